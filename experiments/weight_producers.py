"""Four producers of per-sample weights, on contaminated data and on long-tailed data.

    python -m experiments.weight_producers --out docs/results/weight-producers.md

The same WGAN-GP, with fakes reweighted by the critic (PRC), training items weighted by a robust transport plan, the
items of lowest density drawn often with weights that keep the law, and the items that a first game ranks most
conspicuous left out. On a ring with a share of far outliers, and on one with a rare mode of that share: what one needs
to lose is what the other needs to keep.
"""

from __future__ import annotations

from typing import Any

from experiments import figures, measures, page, playing
from experiments.robust import contaminated, last, plain_game, robust
from lightning_gans.functional.robust import rho_for_share

PROBLEMS = {"contaminated": "a far blob", "long-tailed": "a rare mode"}
SPECIAL = {"contaminated": "samples/outlying", "long-tailed": "samples/hard"}


def data_of(problem: str, share: float, game: playing.Game) -> playing.Game:
    """The game on one of the problems; both are a fixed set of 10,000 points."""
    if problem == "contaminated":
        return contaminated(game, ["Blob", {}], share)
    return contaminated(game | {"data_options": {"rare_share": share}}, ["Blob", {}], 0.0)


def producers(plain: playing.Game, arguments: Any) -> dict[str, playing.Game]:
    """What needs one game."""
    share, options = arguments.share, plain["options"]
    reweighted = {**options, "reweight": True, "ratio_clip": None, "ct_weight": 0.0, "g_steps": 1, "d_steps": 5}
    inner = [plain["data"], plain["data_options"]]
    low = {"data": inner, "tail": ["LowDensity", {"share": share}], "share": arguments.often}
    return {
        "none": plain,
        "reweighted fakes": plain | {"technique": "prc_gan", "options": reweighted},
        "robust weights": robust(plain, "network", rho_for_share(share), 1),
        "rare items often": plain | {"data": "TailSampled", "data_options": low},
    }


def ranked(first: playing.Result, share: float) -> playing.Game:
    """The first game again, without the share of items of highest margin."""
    game = {k: v for k, v in first["game"].items() if k not in ("seed", "folder")}
    margins = first["kept"]["Planted"]["margins"]
    order = sorted(range(len(margins)), key=margins.__getitem__)
    out = set(order[len(order) - round(share * len(order)) :])
    keep = [float(i not in out) for i in range(len(margins))]
    return game | {
        "data": "Resampled",
        "data_options": {"data": [game["data"], game["data_options"]], "probabilities": keep},
    }


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, share=0.02, often=0.2, updates=1500, width=64, rate=1e-3)
    arguments = p.parse_args()
    tables: list[str] = []
    panels: dict[str, dict[str, list[playing.Result]]] = {}
    for problem in PROBLEMS:
        plain = data_of(problem, arguments.share, plain_game("Ring", arguments))
        found = playing.sweep(producers(plain, arguments), arguments.seeds, arguments)
        again = [
            playing.sweep({"conspicuous items left out": ranked(first, arguments.share)}, [seed], arguments)
            for seed, first in zip(arguments.seeds, found["none"])
        ]
        found["conspicuous items left out"] = [one["conspicuous items left out"][0] for one in again]
        panels[problem] = found
        rare = f"of the rare mode (wanted: {arguments.share:g})"
        columns: measures.Columns = {
            "outliers among samples (wanted: 0)" if problem == "contaminated" else rare: last(SPECIAL[problem]),
            "modes": last("metrics/modes"),
            "high quality": last("metrics/high_quality"),
            "reverse KL": last("metrics/reverse_kl"),
            "ms per update": measures.milliseconds,
        }
        tables += ["", f"## {problem}: {PROBLEMS[problem]}", "", *measures.table(found, columns, "weights")]
    shares = {
        f"{problem}: {PROBLEMS[problem]}": {
            name: [measures.last(r, SPECIAL[problem]) for r in results] for name, results in found.items()
        }
        for problem, found in panels.items()
    }
    figure = figures.bars(shares, "share among the samples, each seed")
    share, often = f"{100 * arguments.share:g} %", f"{100 * arguments.often:g} %"
    protocol = [
        f"ring of 8; contaminated: {share} of 10,000 points replaced by a blob at (4, 4); long-tailed: one mode has "
        f"{share} of the points; no technique is told which",
        f"WGAN-GP, penalty 0.1, {arguments.updates} generator updates, five of the critic each; 3 x {arguments.width} "
        f"units, batch 256; Adam(0.5, 0.9), {arguments.rate:g}; EMA (0.99)",
        "reweighted fakes: N softmax of the critic's scores, in the critic's loss (PRCGAN without clipping)",
        f"robust weights: the weight network of RobustWGAN, rho for a share of {share}",
        f"rare items often: the {share} of lowest density, by a kernel estimate, make {often} of a batch, with weights "
        "that keep every expectation",
        f"conspicuous items left out: the {share} of highest mean score over the first game with the same seed; the "
        "same game again on the rest",
        "shares: of 2,000 samples, by the nearest training item",
    ]
    everything = {f"{p}: {n}": rs for p, lines in panels.items() for n, rs in lines.items()}
    page.publish(arguments, "Four producers of weights", everything, protocol, tables, figure)


if __name__ == "__main__":
    main()
