"""Five producers of per-sample weights, on contaminated data and on long-tailed data.

    python -m experiments.weight_producers --out docs/results/weight-producers.md

The same WGAN-GP, with fakes reweighted by the critic (PRC), training items weighted by a robust transport plan, the
items of lowest density drawn often with weights that keep the law, the items that a first game ranks most conspicuous
left out, and items drawn by commentaries: weights that are learnt, after a first game, by what a step of its critic on
weighted items does to its loss on some that are known to be clean. On a ring with a share of far outliers, and on one
with a rare mode of that share: what one needs to lose is what the other needs to keep.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from experiments import figures, measures, page, playing
from experiments.robust import contaminated, items, last, plain_game, robust
from lightning_gans.compat.lightning import pl
from lightning_gans.diagnostics import commentary_weights
from lightning_gans.functional.robust import rho_for_share

PROBLEMS = {"contaminated": "a far blob", "long-tailed": "a rare mode"}
COMMENTARY = "experiments.weight_producers.Commentary"
SPECIAL = {"contaminated": "samples/outlying", "long-tailed": "samples/hard"}


class Commentary(pl.Callback):
    """`commentary_weights` of all training items when a game is over: ``kept``.

    Args:
        steps: of the critic and the weights.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.kept = steps, dict[str, list[float]]()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """With 500 items that are no outliers, and 2,000 samples."""
        data, module, own = cast(Any, trainer).datamodule, cast(Any, pl_module), torch.Generator().manual_seed(0)
        x = items(data.fixed_loader("train"))
        clean = x[~data.is_outlier]
        known = clean[torch.randperm(len(clean), generator=own)[:500]]
        fakes = module.sample(2000, generator=own)
        weights = commentary_weights(module.discriminator, x, known, fakes, steps=self.steps)
        self.kept = {"weights": [round(w, 5) for w in weights.tolist()]}


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
        "none": plain | {"watch": [*plain["watch"], [COMMENTARY, {"steps": arguments.commentary_steps}]]},
        "reweighted fakes": plain | {"technique": "prc_gan", "options": reweighted},
        "robust weights": robust(plain, "network", rho_for_share(share), 1),
        "rare items often": plain | {"data": "TailSampled", "data_options": low},
    }


def again(first: playing.Result, probabilities: list[float]) -> playing.Game:
    """The first game again, its items drawn by probabilities."""
    game = {k: v for k, v in first["game"].items() if k not in ("seed", "folder")}
    return game | {
        "watch": [watch for watch in game["watch"] if watch[0] != COMMENTARY],
        "data": "Resampled",
        "data_options": {"data": [game["data"], game["data_options"]], "probabilities": probabilities},
    }


def ranked(first: playing.Result, share: float) -> list[float]:
    """Nothing for the share of items of highest margin in the first game."""
    margins = first["kept"]["Planted"]["margins"]
    order = sorted(range(len(margins)), key=margins.__getitem__)
    out = set(order[len(order) - round(share * len(order)) :])
    return [float(i not in out) for i in range(len(margins))]


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, share=0.02, often=0.2, updates=1500, width=64, rate=1e-3, commentary_steps=2000)
    arguments = p.parse_args()
    tables: list[str] = []
    panels: dict[str, dict[str, list[playing.Result]]] = {}
    for problem in PROBLEMS:
        plain = data_of(problem, arguments.share, plain_game("Ring", arguments))
        found = playing.sweep(producers(plain, arguments), arguments.seeds, arguments)
        for seed, first in zip(arguments.seeds, list(found["none"])):
            second = {
                "conspicuous items left out": again(first, ranked(first, arguments.share)),
                "commentaries": again(first, first["kept"]["Commentary"]["weights"]),
            }
            for name, results in playing.sweep(second, [seed], arguments).items():
                found.setdefault(name, []).extend(results)
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
        f"commentaries: the critic of the first game, {arguments.commentary_steps:,} steps with 128 items, as many of "
        "500 known to be no outliers, and as many samples; then the same game again, items drawn by the weights",
        "shares: of 2,000 samples, by the nearest training item",
    ]
    everything = {f"{p}: {n}": rs for p, lines in panels.items() for n, rs in lines.items()}
    page.publish(arguments, "Five producers of weights", everything, protocol, tables, figure)


if __name__ == "__main__":
    main()
