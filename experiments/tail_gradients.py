"""Does tail importance sampling cut the noise of the tail's gradients, and leave their expectation as it is?

    python -m experiments.tail_gradients --out docs/results/tail-gradients.md

A mixture of a frozen GAN and a new generator G_1 plays on a law with a rare tail. Then nothing is updated any more, and
many batches are drawn in each way: the gradients of D by the real samples of the tail and of the body, those of G_1 by
its samples in the tail and elsewhere, their means and their variances. And what it is worth: the tail mass that a plain
GAN learns with and without.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from experiments import figures, measures, page, playing
from lightning_gans import BoostedGAN, stages
from lightning_gans.callbacks.probe import untouched
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import GANDataModule, Threshold, tail_loader
from lightning_gans.engine import rng
from lightning_gans.gan import GANModule
from lightning_gans.visualization.images import figure_image, new_figure

STARTS = ("copy", "scratch", "moments", "vae")


# ---------------------------------------------------------------------------------------------- a boosted game
def boosted(
    generator: nn.Module, discriminator: nn.Module, latent_dim: int, *, base: playing.Game, start: str, **options: Any
) -> GANModule:
    """A BoostedGAN on a GAN that is trained first, G_1 from scratch, copied, or pre-trained on the tail."""
    with rng.untouched(), tempfile.TemporaryDirectory() as folder:
        first, data = playing.build(base | {"seed": torch.initial_seed() % 2**32})
        averaging = [playing.callbacks.EMA(base["ema"])]
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        pl.Trainer(
            max_steps=base["updates"], max_epochs=-1, logger=False, devices=1, callbacks=averaging,
            limit_val_batches=0, default_root_dir=folder, **quiet,
        ).fit(first, datamodule=data)  # fmt: skip
        tail = in_the_tail(data)
        if start == "copy":
            generator.load_state_dict((first.ema or first.generator).state_dict())
        elif start != "scratch":
            fit = stages.match_moments if start == "moments" else stages.fit_vae
            fit(generator, tail, latent_dim)
    return BoostedGAN(generator, discriminator, latent_dim, base=first, **options)


def in_the_tail(data: GANDataModule) -> Tensor:
    """The items of the reference that lie beyond the threshold."""
    items = data.reference("train")[0]
    return items[items[:, 0] > data.tail_threshold]  # type: ignore[attr-defined]


def plain_game(share: float, updates: int, arguments: Any) -> playing.Game:
    """A GAN on a line with a tail of some share."""
    rates = {"lr_g": arguments.rate, "lr_d": arguments.rate}
    made = playing.line_game("RareTail1D", updates, technique="gan", options=rates, data_options={"tail_share": share})
    nets = {"width": arguments.width, "depth": 2}
    made |= {"generator": ["ToyGenerator", nets], "discriminator": ["ToyDiscriminator", nets]}
    return made | {"latent_dim": 2, "batch_size": arguments.batch_size, "ema": 0.995}


def tail_sampled(game: playing.Game, share: float, often: float = 0.5) -> playing.Game:
    """The game with the upper share of the data drawn often."""
    wrapped = {"data": [game["data"], game["data_options"]], "tail": ["Quantile", {"share": share}], "share": often}
    return game | {"data": "TailSampled", "data_options": wrapped}


def boosted_game(base: playing.Game, start: str, updates: int, share: float, **options: Any) -> playing.Game:
    """A mixture on top of a base game; its real data are tail-sampled."""
    own = {"base": base, "start": start, **base["options"], **options}
    made = base | {"technique": "experiments.tail_gradients.boosted", "options": own, "updates": updates}
    return tail_sampled(made | {"every": max(1, updates // 20), "log_every": max(1, updates // 100)}, share)


# ---------------------------------------------------------------------------------------------- the gradients
class Gradients(pl.Callback):
    """When training is over: moments of the gradients under several ways to draw, in ``kept``.

    For each way and stratum ``<stratum>/mean``, the norm of the mean gradient; ``/noise``, the root of the trace of the
    covariance of one batch's gradient; and ``/shift``, the squared distance from the plain way's mean in units of what
    chance makes of it, 1 if the expectations are the same.

    Args:
        batches: gradients of each.
        often: shares of the tail (and of G_1's samples) that are tried beside the plain way.
    """

    def __init__(self, batches: int, often: list[float]) -> None:
        super().__init__()
        self.batches, self.often = batches, often
        self.kept: dict[str, float] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look."""
        data: Any = trainer.datamodule.data  # type: ignore[attr-defined]
        module: Any = pl_module
        threshold, size = data.tail_threshold, data.batch_size
        with untouched(module):
            torch.manual_seed(torch.initial_seed())  # the game's
            plain = data.train_dataloader()
            ways = {"plain": (plain, float(module.generator.p))}
            ways |= {f"{s:g}": (tail_loader(plain, Threshold(threshold), s), 1 - s) for s in self.often}
            seen = {way: self._strata(module, *how, threshold, size) for way, how in ways.items()}
        for way, strata in seen.items():
            for stratum, found in strata.items():
                mean, variance = found.mean(0), found.var(0).sum()
                base = seen["plain"][stratum]
                chance = (variance + base.var(0).sum()) / self.batches
                shift = (mean - base.mean(0)).square().sum() / chance
                values = {"mean": mean.norm(), "noise": variance.sqrt(), "shift": shift}
                self.kept |= {f"{way}/{stratum}/{name}": float(value) for name, value in values.items()}

    def _strata(self, module: Any, loader: Any, old: float, threshold: float, size: int) -> dict[str, Tensor]:
        """(batches, parameters) gradients by stratum; ``old`` is the share of G's samples in a batch."""
        found: dict[str, list[Tensor]] = {}
        batches = endless(loader)
        before, module.generator.share = module.generator.share, old
        new, d = module.generator.components[-1], module.discriminator
        module.generator.train()
        for _ in range(self.batches):
            real, _, weights = (
                (*item, None, None)[:3] if isinstance(item := next(batches), tuple) else (item, None, None)
            )
            each = F.softplus(-d(real)) * (1 if weights is None else weights)
            tail = real[:, 0] > threshold
            for name, chosen in (("D, tail", tail), ("D, body", ~tail), ("D, all real", tail | ~tail)):
                found.setdefault(name, []).append(gradient((each * chosen).mean(), d))
            fake = module.generator(torch.randn(size, module.latent_dim))
            each = F.softplus(-d(fake)) * module.generator.importance(size).detach()
            tail = fake[:, 0].detach() > threshold
            for name, chosen in (("G_1, tail", tail), ("G_1, all", tail | ~tail)):
                found.setdefault(name, []).append(gradient((each * chosen).mean(), new))
        module.generator.share = before
        return {name: torch.stack(rows).double() for name, rows in found.items()}


def endless(loader: Any) -> Iterator[Any]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def gradient(loss: Tensor, net: nn.Module) -> Tensor:
    """Of all parameters of a network, as one vector."""
    parameters = list(net.parameters())
    parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, parts)])


def number(result: playing.Result, way: str, stratum: str, what: str) -> float:
    """What `Gradients` has kept of a stratum; also ``relative``, noise over mean, and ``variance``, over plain's."""
    if result["failed"]:
        return math.nan
    seen = {name: result["kept"]["Gradients"][f"{way}/{stratum}/{name}"] for name in ("mean", "noise", "shift")}
    noise = result["kept"]["Gradients"][f"plain/{stratum}/noise"]
    seen["relative"] = seen["noise"] / seen["mean"] if seen["mean"] else math.nan
    seen["variance"] = (seen["noise"] / noise) ** 2 if noise else math.nan
    return float(seen[what])


def picture(results: list[playing.Result], ways: list[str], strata: list[str]) -> Image.Image:
    """Noise over size of the mean by way to draw, a line per stratum, a point per seed."""
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    for colour, stratum in zip(figures.COLOURS, strata):
        rows = [[number(r, way, stratum, "relative") for way in ways] for r in results]
        axes.plot([sum(c) / len(c) for c in zip(*rows)], color=colour, linewidth=1.5, label=stratum)
        for row in rows:
            axes.plot(row, "o", color=colour, markersize=3)
    axes.set_yscale("log")
    axes.set_xticks(range(len(ways)), ways)
    figures.tidy(axes, "one batch's gradient", "share of the tail, and of G_1, in a batch", "noise / |mean|")
    axes.legend(frameon=False, fontsize=8)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, share=0.01, updates=2000, boosted_updates=500, batch_size=64, width=64, rate=1e-3,
        often=[0.1, 0.25, 0.5, 0.75], batches=1000,
    )  # fmt: skip
    arguments = p.parse_args()
    share = arguments.share
    plain = plain_game(share, arguments.updates, arguments)
    mixture = boosted_game(plain, "moments", arguments.boosted_updates, share, p=1 - share)
    watch = [["experiments.tail_gradients.Gradients", {"batches": arguments.batches, "often": arguments.often}]]
    frozen = playing.sweep({"mixture": mixture | {"watch": watch}}, arguments.seeds, arguments)
    names = [f"tail drawn in a share of {s:g}" for s in arguments.often]
    sampled = {name: tail_sampled(plain, share, s) for name, s in zip(names, arguments.often)}
    played = playing.sweep({"plain": plain, **sampled}, arguments.seeds, arguments)

    ways = ["plain", *(f"{s:g}" for s in arguments.often)]
    strata = ["D, tail", "D, body", "D, all real", "G_1, tail", "G_1, all"]
    cells = {"mean": "size of the mean", "noise": "noise", "relative": "noise / mean", "variance": "variance / plain's"}
    cells["shift"] = "shift"
    tables = ["", "## The gradient of one batch", "", f"| stratum, share in a batch | {' | '.join(cells.values())} |"]
    tables.append("|---" * (len(cells) + 1) + "|")
    for stratum in strata:
        for way in ways:
            told = [measures.spread([number(r, way, stratum, what) for r in frozen["mixture"]]) for what in cells]
            tables.append(f"| {stratum}, {way} | {' | '.join(told)} |")
    columns: measures.Columns = {
        "tail mass, last": lambda r: measures.last(r, "metrics/tail_mass"),
        "mean of the second half": lambda r: measures.late_mean(r, "metrics/tail_mass"),
        "W1, last": lambda r: measures.last(r, "metrics/w1"),
        "best": lambda r: measures.best(r, "metrics/w1"),
    }
    tables += ["", f"## What a plain GAN learns (true tail mass {share:g})", ""]
    tables += measures.table(played, columns, "data")
    protocol = [
        f"(1 - {share:g}) N(0, 0.5^2) + {share:g} N(3, 0.25^2), the tail beyond 2; batch {arguments.batch_size}; "
        f"2 x {arguments.width} units; Adam({arguments.rate:g}; 0.5, 0.999); EMA (0.995)",
        f"gradients: a GAN of {arguments.updates} updates, frozen, and G_1, pre-trained by matching the tail's moments "
        f"and trained for {arguments.boosted_updates} updates (p = {1 - share:g}, half of each batch); then "
        f"{arguments.batches} batches for each way to draw, without an update",
        f"plain: real samples as they come, {100 * (1 - share):g} % of the fakes G's; else the share is the tail's "
        "among the real samples, and G_1's among the fakes, with weights",
        "noise: root of the trace of the covariance of one batch's gradient; shift: squared distance from the plain "
        "way's mean in units of its expectation under equal means, so about 1 if nothing but the noise has changed",
        f"what a plain GAN learns: {arguments.updates} updates, 10,000 samples",
    ]
    everything = {**frozen, **played}
    figure = picture(frozen["mixture"], ways, strata)
    page.publish(arguments, "The noise of the tail's gradients", everything, protocol, tables, figure)


if __name__ == "__main__":
    main()
