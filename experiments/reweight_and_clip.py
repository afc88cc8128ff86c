"""Sample reweighting and ratio clipping: none, either, both.

    python -m experiments.reweight_and_clip --out docs/results/reweight-and-clip.md

At matched updates, in cycles of five discriminator and five generator updates: mode coverage, FID, the variance of the
losses, gradient norms, time; and whether the surrogate peaks at theta_new. MNIST is downloaded to
``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from PIL import Image

from experiments import figures, measures, page, playing
from experiments.one_or_two_sided import quality
from lightning_gans.visualization.images import figure_image, new_figure

SWITCHES: dict[str, dict[str, Any]] = {
    "none": {"reweight": False, "ratio_clip": None},
    "reweight": {"reweight": True, "ratio_clip": None},
    "clip": {"reweight": False, "ratio_clip": 0.4},
    "both": {"reweight": True, "ratio_clip": 0.4},
}


def game(data: str, switches: dict[str, Any], arguments: Any) -> playing.Game:
    """PRC-GAN with its two switches; the classifier is built only where it is used."""
    toy = data in playing.TOYS
    rate = arguments.rate
    options = {
        **switches, "d_steps": 5, "g_steps": 5, "gp_weight": 0.1 if toy else 5.0, "ct_weight": 0.0,
        "betas": [0.5, 0.9] if toy else [0.0, 0.9], "lr_d": rate, "lr_g": rate / 5, "lr_c": rate / 5,
    }  # fmt: skip
    watch: list[Any] = [
        ["GradientNorms", {"every_n_steps": 50, "per_layer": False}],
        ["LossVariance", {"every_n_steps": 50, "window": 50}],
    ]
    if switches["ratio_clip"]:
        watch.append(["SurrogateObjective", {"every_n_steps": 5 * max(1, arguments.updates // 50)}])
    play = {"technique": "prc_gan", "options": options, "watch": watch}
    if toy:
        made = playing.toy_game(data, (2 if data == "Grid" else 1) * arguments.updates, **play)
    else:
        made = playing.image_game(data, arguments.updates, **play)
    made["ema"] = 0.998
    if switches["ratio_clip"]:
        kind, shared = made["discriminator"]
        made["classifier"] = [kind, shared if toy else shared | {"norm": "batch"}]
    return made


def peaks(result: playing.Result, which: str, low: float, high: float) -> float:
    """Share of the cycles in which a curve is highest between two places on the way from theta_old, 0, to 2."""
    found = [value for _, value in measures.series(result, which)]
    return sum(low <= value <= high for value in found) / len(found) if found else float("nan")


def objectives(panels: dict[str, Sequence[playing.Result]]) -> Image.Image:
    """The paper's figure 1, left: median over cycles and seeds of both objectives on the way, scaled."""
    figure = new_figure(1.0 + 4.4 * len(panels), 3.8)
    for axes, (title, results) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for at, colour, label in ((2, figures.COLOURS[1], "conventional"), (3, figures.COLOURS[0], "surrogate")):
            curves = [c for r in results for c in r["curves"]]
            scale = [max(abs(v - c[2][0]) for v in c[2]) or 1.0 for c in curves]  # of the conventional objective
            rows = [[(v - c[at][0]) / s for v in c[at]] for c, s in zip(curves, scale)]
            if rows:
                middle = [statistics.median(column) for column in zip(*rows)]
                low, high = ([statistics.quantiles(column, n=4)[q] for column in zip(*rows)] for q in (0, 2))
                axes.plot(curves[0][1], middle, color=colour, linewidth=1.6, label=label)
                axes.fill_between(curves[0][1], low, high, color=colour, alpha=0.15, lw=0)
        axes.axvline(1, color="#9aa0a8", linewidth=0.8, linestyle=(0, (4, 2)))
        figures.tidy(axes, title, "s: theta_old (0), theta_new (1)", "objective, relative to its gain")
        axes.legend(frameon=False, fontsize=8)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, (*playing.TOYS, *playing.IMAGES), data=["Ring", "Grid", "MNIST"], updates=3000, rate=1e-3)
    arguments = p.parse_args()
    tables: list[str] = []
    panels: dict[str, dict[str, list[playing.Result]]] = {}
    for data in arguments.data:
        games = {name: game(data, switches, arguments) for name, switches in SWITCHES.items()}
        panels[data] = found = playing.sweep(games, arguments.seeds, arguments)
        columns = quality(data) | {
            "deviation of D's loss": lambda r: measures.late_mean(r, "variance/d/loss") ** 0.5,
            "of G's loss": lambda r: measures.late_mean(r, "variance/g/loss") ** 0.5,
            "gradient of D on fakes": lambda r: measures.late_mean(r, "grad/input/fake"),
            "its deviation": lambda r: measures.late_deviation(r, "grad/input/fake"),
            "effective share": lambda r: measures.late_mean(r, "d/effective_share"),
            "accuracy of C": lambda r: measures.late_mean(r, "c/accuracy"),
            "clipped": lambda r: measures.late_mean(r, "g/clipped"),
            "surrogate highest at .5 to 1.5": lambda r: peaks(r, "surrogate/peak", 0.5, 1.5),
            "conventional there": lambda r: peaks(r, "surrogate/conventional_peak", 0.5, 1.5),
            "surrogate highest beyond": lambda r: peaks(r, "surrogate/peak", 1.51, 2),
            "conventional there, too": lambda r: peaks(r, "surrogate/conventional_peak", 1.51, 2),
            "ms per update": measures.milliseconds,
        }
        tables += ["", f"## {data}", "", *measures.table(found, columns, "switches")]
    scores = {data: playing.score_of(data) for data in arguments.data}
    both = {data: [*found["clip"], *found["both"]] for data, found in panels.items()}
    figure = figures.stack(figures.curves(panels, scores, "high quality, or FID"), objectives(both))
    results = {f"{data}: {name}": found for data, lines in panels.items() for name, found in lines.items()}
    protocol = [
        f"{arguments.updates} generator updates (twice as many on the grid), as many of the critic, in cycles of 5 + 5",
        "Wasserstein losses, gradient penalty 0.1 on toys (3 x 128 units, batch 256) and 5 on MNIST (DCGAN nets of "
        "width 16, batch 32), no consistency term; Adam, learning rate of G and C a fifth of that of D, "
        f"{arguments.rate:g}",
        "eps 0.4, temperature 1, the surrogate of the code; EMA generator (0.998)",
        "deviation: root of the mean variance over windows of 50 generator updates, second half of a run",
        "highest: share of the looked-at cycles in which the maximum on theta_old + s (theta_new - theta_old), s in "
        "[0, 2], lies there",
    ]
    page.publish(arguments, "Reweighting and clipping", results, protocol, tables, figure)


if __name__ == "__main__":
    main()
