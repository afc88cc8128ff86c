"""What do outliers in the training data do to WGAN-GP, and what to RobustWGAN?

    python -m experiments.robust --out docs/results/robust.md

The ring with a far blob, and the digits with images of noise, at several shares of outliers: scores against the clean
data, the share of outliers among the samples, the weights of both kinds of training items, and how well weights and
margins tell them apart. rho is half, just and twice what the true share needs; on clean data, what ``--presumed`` would
need. ``--data MNIST`` plants Fashion-MNIST; both are downloaded to ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments import figures, measures, page, playing
from experiments.one_or_two_sided import quality
from lightning_gans.callbacks import SampleRanking
from lightning_gans.callbacks.probe import log_metrics
from lightning_gans.callbacks.sample_ranking import auroc
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Contaminated, MemoryLoader
from lightning_gans.functional.conditional import score
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.robust import divergence, rho_for_share, softplus_weights
from lightning_gans.gan import GANModule
from lightning_gans.visualization.images import figure_image, new_figure

OUTLIERS: dict[str, Any] = {"Ring": ["Blob", {}], "Digits": "noise", "MNIST": ["FashionMNIST", {"download": False}]}
FACTORS = {"half": 0.5, "right": 1.0, "twice": 2.0}
FORMS = ("network", "discrete")
GROUPS = ("ordinary", "hard", "outlying")


class Planted(SampleRanking):
    """A ranking that also tells what becomes of groups of training items: ordinary, of a rare mode ("hard"), outlying.

    A mode is rare if its share is below half that of the largest. With every pass it logs by group the means
    ``weight/<group>`` and ``margin/<group>``, and ``samples/<group>``, the share of G's samples whose nearest item is
    of the group, among 4,000 of which half are outliers; ``divergence``, E (w - 1)^2 / 2 over all items; and
    ``auroc/<what>/<a>/<b>``, the probability that an item of b is more conspicuous than one of a: of higher margin, or
    of lower weight. ``kept`` are the groups, weights and margins of all items at the last pass.

    Args:
        every_n_steps: generator updates between passes.
        num_samples: G's samples.
    """

    def __init__(self, every_n_steps: int, num_samples: int = 2000) -> None:
        super().__init__(every_n_steps)
        self.num_samples = num_samples
        self.kept: dict[str, list[float]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the groups."""
        super().on_train_start(trainer, pl_module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        while not isinstance(data, Contaminated):
            data = data.data
        self.groups = groups(data, self.loader.data, data.is_outlier)
        pool = copy.copy(data)  # with as many of each kind, so that neither is nearer for being sampled more densely
        vars(pool).update(share=0.5, seed=1, _mixed=None)
        self.pool = items(pool.fixed_loader("train"))[:4000].cpu()
        self.pool_groups = groups(pool, self.pool, pool.is_outlier[:4000])

    @torch.no_grad()
    def act(self, trainer: pl.Trainer, module: GANModule, step: int) -> None:
        """Rank, then compare the groups."""
        super().act(trainer, module, step)
        assert self.margin is not None
        weights = item_weights(module, self.loader).double().cpu()
        samples = module.sample(self.num_samples, generator=torch.Generator().manual_seed(0)).cpu()
        nearest = self.pool_groups[torch.cdist(samples.flatten(1), self.pool.flatten(1)).argmin(1)]
        seen = {"divergence": float(divergence(weights))}
        for k, group in enumerate(GROUPS):
            seen[f"weight/{group}"] = float(weights[self.groups == k].mean())
            seen[f"margin/{group}"] = float(self.margin[self.groups == k].mean())
            seen[f"samples/{group}"] = float((nearest == k).double().mean())
        for a, b in ((0, 1), (0, 2), (1, 2)):
            either = (self.groups == a) | (self.groups == b)
            for what, values in (("weight", -weights), ("margin", self.margin)):
                seen[f"auroc/{what}/{GROUPS[a]}/{GROUPS[b]}"] = auroc(values[either], self.groups[either] == b)
        log_metrics(trainer, seen, step)
        kept = {"groups": self.groups, "weights": weights, "margins": self.margin}
        self.kept = {name: [round(v, 4) for v in values.tolist()] for name, values in kept.items()}


def groups(data: Contaminated, points: Tensor, outlying: Tensor) -> Tensor:
    """(N,) the place in `GROUPS` of each training item."""
    found, shares = 2 * outlying.long().cpu(), getattr(data, "mode_weights", None)
    if shares is not None:
        rare = (shares < shares.max() / 2)[torch.cdist(points.cpu(), data.modes).argmin(1)]
        found[rare & ~outlying.cpu()] = 1
    return found


def items(loader: MemoryLoader) -> Tensor:
    """All items (N, ...) as they come in batches."""
    return torch.cat([batch[0] if isinstance(batch, tuple) else batch for batch in loader])


def item_weights(module: GANModule, loader: MemoryLoader) -> Tensor:
    """(N,) the weight of each training item now; one in a game without weights."""
    network: Any = getattr(module, "weight_network", None)
    if network is not None:
        with evaluating(network):
            return softplus_weights(torch.cat([score(network, rows) for rows in items(loader).split(1000)]))
    known = getattr(module, "sample_weights", None)
    return torch.ones(len(loader.data)) if known is None else known


# ---------------------------------------------------------------------------------------------- games
def contaminated(game: playing.Game, outliers: Any, share: float) -> playing.Game:
    """The game on data of which a share is replaced by outliers, with `Planted` watching."""
    options = {"base": [game["data"], game.get("data_options", {})], "outliers": outliers, "share": share}
    watch = [["experiments.robust.Planted", {"every_n_steps": max(1, game["updates"] // 20)}]]
    return game | {"data": "Contaminated", "data_options": options, "watch": watch}


def robust(game: playing.Game, form: str, rho: float, w_every: int) -> playing.Game:
    """RobustWGAN in place of a WGAN-GP; the weight network is as the critic."""
    made = game | {"technique": "robust_wgan", "options": game["options"] | {"rho": rho}}
    if form == "network":
        return made | {"weight_network": game["discriminator"]}
    made["options"]["w_every"] = w_every
    return made


def methods(plain: playing.Game, fraction: float, arguments: Any) -> dict[str, playing.Game]:
    """WGAN-GP, and both forms with the right rho; half and twice that for the presumed share and for clean data."""
    right = rho_for_share(fraction or arguments.presumed)
    made = {"WGANGP": plain}
    for form in FORMS:
        for name, factor in FACTORS.items():
            if name == "right" or fraction in (0, arguments.presumed):
                made[f"{form}, rho {name}"] = robust(plain, form, factor * right, arguments.w_every)
    return made


def plain_game(data: str, arguments: Any) -> playing.Game:
    """WGAN-GP on a clean data set."""
    rates = {"lr_d": arguments.rate, "lr_g": arguments.rate, "betas": [0.5, 0.9]}
    if data in playing.TOYS:
        options = {"gp_weight": 0.1, **rates}
        return playing.toy_game(data, arguments.updates, arguments.width, technique="wgan_gp", options=options)
    options = {"gp_weight": 10.0, **rates}
    width, updates = arguments.image_width, arguments.image_updates
    return playing.image_game(data, updates, width, technique="wgan_gp", options=options)


# ---------------------------------------------------------------------------------------------- figures
def against_fractions(found: dict[str, dict[str, list[playing.Result]]], arguments: Any) -> Image.Image:
    """Share of outliers among the samples, and the score, against their share in the data; each seed a point."""
    figure = new_figure(1.0 + 4.4 * len(found), 7.6)
    grid = figure.subplots(2, len(found), squeeze=False)
    for column, (data, results) in enumerate(found.items()):
        wanted = playing.score_of(data)
        for axes, name in zip(grid[:, column], ("samples/outlying", wanted)):
            for colour, method in zip(figures.COLOURS, ("WGANGP", *(f"{form}, rho right" for form in FORMS))):
                values = [[measures.last(r, name) for r in results[label(f, method)]] for f in arguments.fractions]
                known = [[v for v in seeds if not math.isnan(v)] for seeds in values]
                points = [(f, v) for f, seeds in zip(arguments.fractions, known) for v in seeds]
                line = [(f, statistics.fmean(seeds)) for f, seeds in zip(arguments.fractions, known) if seeds]
                axes.plot(*zip(*line), color=colour, linewidth=1.5, label=method) if line else None
                axes.plot(*zip(*points), "o", color=colour, markersize=3) if points else None
            if name != wanted:
                axes.axline((0, 0), slope=1, color="#9aa0a8", linewidth=0.8, linestyle=(0, (4, 2)))
            what = "share of outliers among the samples" if name != wanted else wanted.removeprefix("metrics/")
            figures.tidy(axes, data, "share of outliers in the data", what)
            axes.legend(frameon=False, fontsize=8)
    return figure_image(figure)


def histograms(panels: dict[str, list[playing.Result]]) -> Image.Image:
    """One panel per game: the weights of its training items by group, all seeds together, each group's area one."""
    figure = new_figure(1.0 + 3.8 * len(panels), 3.6)
    for axes, (title, results) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        kept = [r["kept"]["Planted"] for r in results if not r["failed"]]
        highest = max((w for k in kept for w in k["weights"]), default=1.0)
        for i, group in enumerate(GROUPS):
            values = [w for k in kept for w, g in zip(k["weights"], k["groups"]) if g == i]
            if values:
                shares = [1 / len(values)] * len(values)
                axes.hist(values, 40, (0, highest), weights=shares, color=figures.COLOURS[i], alpha=0.55, label=group)
        figures.tidy(axes, title, "weight at the end", "share of the group")
        axes.legend(frameon=False, fontsize=8)
    return figure_image(figure)


def last(name: str) -> Callable[[playing.Result], float]:
    """A column: the last value of a name."""
    return partial(measures.last, name=name)


def label(fraction: float, method: str) -> str:
    """Row of a game."""
    return f"{100 * fraction:g} %: {method}"


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, ("Ring", "Digits", "MNIST"), data=["Ring", "Digits"], fractions=[0.0, 0.05, 0.2],
        presumed=0.05, updates=1000, width=64,
        image_updates=400, image_width=16, rate=1e-3, w_every=20,
    )  # fmt: skip
    arguments = p.parse_args()
    tables: list[str] = []
    found: dict[str, dict[str, list[playing.Result]]] = {}
    for data in arguments.data:
        games: dict[str, playing.Game] = {}
        for fraction in arguments.fractions:
            plain = contaminated(plain_game(data, arguments), OUTLIERS[data], fraction)
            games |= {label(fraction, n): game for n, game in methods(plain, fraction, arguments).items()}
        found[data] = playing.sweep(games, arguments.seeds, arguments)
        columns = quality(data) | {
            "outliers among samples": last("samples/outlying"),
            "weight of the others": last("weight/ordinary"),
            "of outliers": last("weight/outlying"),
            "divergence": last("divergence"),
            "AUROC of weights": last("auroc/weight/ordinary/outlying"),
            "of margins": last("auroc/margin/ordinary/outlying"),
            "ms per update": measures.milliseconds,
        }
        tables += ["", f"## {data}", "", *measures.table(found[data], columns, "outliers: technique")]
    shown = arguments.presumed if arguments.presumed in arguments.fractions else arguments.fractions[-1]
    figure = figures.stack(
        against_fractions(found, arguments),
        *(
            histograms({f"{data}, {form}": results[label(shown, f"{form}, rho right")] for form in FORMS})
            for data, results in found.items()
        ),
    )
    everything = {f"{data}: {name}": results for data, lines in found.items() for name, results in lines.items()}
    protocol = [
        f"{arguments.updates} generator updates on toys, {arguments.image_updates} on images, five of the critic each; "
        f"Adam(0.5, 0.9), {arguments.rate:g} for all; EMA (0.99)",
        f"toys: 3 x {arguments.width} units, batch 256, penalty 0.1, 10,000 fixed points; images: DCGAN nets of width "
        f"{arguments.image_width}, batch 32, penalty 10; the weight network is as the critic",
        f"right: rho = a / (2 (1 - a)) for the share a of outliers, for {arguments.presumed:g} on clean data; rho = 0 "
        f"is WGANGP; weights from update 60 on, every update (network) or every {arguments.w_every} (discrete); "
        "until then the network's weights are those that it starts with",
        "outliers: a blob at (4, 4), uniform noise for Digits, Fashion-MNIST for MNIST; scores go by the clean data",
        "outliers among samples: of 2,000, whose nearest item among 4,000, half of them outliers, is an outlier; "
        "with 0 % it is what the measure reads of unformed samples",
        "AUROC: the probability that an outlier has the lower weight, or the higher mean score over training, than "
        "another item; 0.5 is chance; divergence: E (w - 1)^2 / 2 over all training items",
        f"figure: each seed a point; weights with {100 * shown:g} % of outliers, all seeds together",
    ]
    page.publish(arguments, "Outliers in the training data", everything, protocol, tables, figure)


if __name__ == "__main__":
    main()
