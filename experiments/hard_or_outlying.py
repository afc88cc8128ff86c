"""Is a training item of low weight hard, or is it outlying?

    python -m experiments.hard_or_outlying --out docs/results/hard-or-outlying.md

Two small groups of equal share: hard inliers, which are one rare mode of the ring, at its place; and outliers, a blob
outside the ring, far away or as near as the modes are to each other. How the weights of RobustWGAN and the margins of
WGAN-GP's critic tell each group from the rest, and one from the other, over training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from experiments import figures, measures, page, playing
from experiments.robust import FORMS, GROUPS, contaminated, last, robust
from lightning_gans.functional.robust import rho_for_share
from lightning_gans.visualization.images import figure_image, new_figure

PAIRS = {"hard from ordinary": "ordinary/hard", "outlying from ordinary": "ordinary/outlying",
         "outlying from hard": "hard/outlying"}  # fmt: skip


def methods(place: float, arguments: Any) -> dict[str, playing.Game]:
    """WGAN-GP, and both forms with what drops one group, and what drops two."""
    share = arguments.share
    options = {"gp_weight": 0.1, "lr_d": arguments.rate, "lr_g": arguments.rate, "betas": [0.5, 0.9]}
    made = playing.toy_game("Ring", arguments.updates, arguments.width, technique="wgan_gp", options=options)
    made["data_options"] = {"rare_share": share}
    plain = contaminated(made, ["Blob", {"centre": [place, place]}], share)
    games = {"WGANGP": plain}
    for form in FORMS:
        for groups in (1, 2):
            rho = rho_for_share(groups * share)
            games[f"{form}, rho for {100 * groups * share:g} %"] = robust(plain, form, rho, arguments.w_every)
    return games


def by_group(panels: Mapping[str, Sequence[playing.Result]], what: str) -> Image.Image:
    """One panel per game: the mean of a group over training, its mean over seeds and the range of the seeds."""
    figure = new_figure(1.0 + 3.8 * len(panels), 3.6)
    for i, (axes, (title, results)) in enumerate(
        zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items())
    ):
        for colour, group in zip(figures.COLOURS, GROUPS):
            seeds = [measures.series(r, f"{what}/{group}") for r in results if not r["failed"]]
            columns = [[value for _, value in at] for at in zip(*seeds)]
            steps = [step for step, _ in seeds[0][: len(columns)]] if seeds else []
            axes.plot(steps, [sum(c) / len(c) for c in columns], color=colour, linewidth=1.5, label=group)
            axes.fill_between(steps, list(map(min, columns)), list(map(max, columns)), color=colour, alpha=0.15, lw=0)
        figures.tidy(axes, title, "generator updates", f"mean {what}" if i == 0 else "")
        axes.legend(frameon=False, fontsize=8)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, places=[4.0, 2.0], share=0.02, updates=1500, width=64, rate=1e-3, w_every=20)
    arguments = p.parse_args()
    tables: list[str] = []
    found: dict[str, dict[str, list[playing.Result]]] = {}
    columns: measures.Columns = {f"weight, {group}": last(f"weight/{group}") for group in GROUPS}
    for what in ("weight", "margin"):
        columns |= {f"AUROC of {what}s, {name}": last(f"auroc/{what}/{pair}") for name, pair in PAIRS.items()}
    columns |= {f"samples, {group}": last(f"samples/{group}") for group in GROUPS[1:]}
    for place in arguments.places:
        title = f"Blob at ({place:g}, {place:g})"
        found[title] = playing.sweep(methods(place, arguments), arguments.seeds, arguments)
        tables += ["", f"## {title}", "", *measures.table(found[title], columns, "technique")]
    pictures = []
    for title, games in found.items():
        weighted = {name: results for name, results in games.items() if name != "WGANGP"}
        pictures.append(by_group({f"{title}: {name}": results for name, results in weighted.items()}, "weight"))
    plain = {title: games["WGANGP"] for title, games in found.items()}
    pictures.append(by_group({f"{title}: WGANGP": results for title, results in plain.items()}, "margin"))
    telling = "P(an outlier is more conspicuous than a hard item)"
    for what, panels in (
        ("weight", {t: {n: r for n, r in games.items() if n != "WGANGP"} for t, games in found.items()}),
        ("margin", found),
    ):
        named = {f"{t}: by {what}": games for t, games in panels.items()}
        pictures.append(figures.curves(named, f"auroc/{what}/hard/outlying", telling))
    share = 100 * arguments.share
    protocol = [
        f"ring of 8, one mode with {share:g} % of the ring; {share:g} % of the points replaced by a blob, whose "
        "distance from the nearest mode is 4.24 at (4, 4) and 1.41 at (2, 2); neighbouring modes are 1.08 apart",
        f"{arguments.updates} generator updates, five of the critic each; 3 x {arguments.width} units, batch 256, "
        f"penalty 0.1; Adam(0.5, 0.9), {arguments.rate:g} for all; EMA (0.99); the weight network is as the critic",
        f"rho for a share a: a / (2 (1 - a)); weights from update 60 on, every update (network) or every "
        f"{arguments.w_every} (discrete); until then the network's weights are those that it starts with",
        "AUROC: the probability that an item of the first group has the lower weight, or the higher margin (mean score "
        "over training, relative to the mean of all items), than one of the second; 0.5 is chance",
        "samples: share of 2,000 whose nearest item is of the group, the rare mode at (1.41, 0)",
        "figure: mean over seeds, and the range from the lowest to the highest",
    ]
    everything = {f"{title}: {name}": results for title, games in found.items() for name, results in games.items()}
    page.publish(arguments, "Hard or outlying?", everything, protocol, tables, figures.stack(*pictures))


if __name__ == "__main__":
    main()
