"""Does the clipped surrogate keep the generator near its old parameters?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torch.func import functional_call
from torch.optim import Optimizer

from lightning_gans import checks
from lightning_gans.callbacks.probe import Asks, Draws, log_metrics
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed, rng
from lightning_gans.engine.batch import Batch
from lightning_gans.engine.contract import Critic
from lightning_gans.engine.frozen import kept_buffers
from lightning_gans.visualization.images import (
    FAKE_COLOUR,
    INK,
    REAL_COLOUR,
    figure_image,
    new_figure,
)

Curves = tuple[int, list[float], list[float], list[float]]  # step, s, conventional, surrogate


class SurrogateObjective(Asks, Draws):
    r"""Draws the generator's objectives along the line on which a cycle has moved it.

    Of arXiv:2006.06900: with :math:`\theta_0` the generator before the first update of a cycle and :math:`\theta_1`
    after the last, :math:`\theta(s) = \theta_0 + s (\theta_1 - \theta_0)`, and two functions of s in [0, reach]:

    * conventional: minus the generator's plain loss, E f(G(z)) for the Wasserstein loss;
    * surrogate: E w A, minus what the generator minimised, with the old logits that the cycle kept.

    Both on the cycle's noise, by D and C as they are after the cycle, averaged over ranks. Is the surrogate at its
    highest near s = 1 and lower beyond, where the conventional objective goes on rising? There the ratio is a brake.

    The networks are in the mode that they were trained in, since the old logits come from that mode: with running
    averages in place of a batch's statistics the ratio at s = 0 would not be 1, even if C stood still. Dropout, if
    any, has the same masks at each point. The training is left as it was.

    Logged: ``surrogate/peak`` and ``surrogate/conventional_peak``, the s at which each is highest (NaN if not finite).
    Pictures, of the differences to s = 0, are ``<folder>/surrogate/step_000100.png`` (``latest.png`` is the newest),
    and ``surrogate/line`` in W&B and TensorBoard.

    Args:
        every_n_steps: generator updates between pictures, each of the cycle in which the count is reached. A cycle in
            which training is resumed is passed over.
        points: values of s, from 0 to ``reach``, >= 2.
        reach: the last s, > 0.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.

    Attributes:
        history: (generator updates, values of s, conventional, surrogate) of each look, not yet as differences.

    Raises:
        ValueError: for settings out of range, a folder that cannot be written, a module without ``ratio_clip``, and
            one with ``center_scores``, which takes another baseline at each point.

    >>> callback = SurrogateObjective(every_n_steps=500, points=11)  # for pl.Trainer(callbacks=[callback]) and PRCGAN
    >>> callback.points, callback.reach, callback.history
    (11, 2.0, [])
    """

    place = "surrogate"
    needs = Critic

    def __init__(
        self, every_n_steps: int = 1000, points: int = 21, reach: float = 2.0, dirpath: str | Path | None = None
    ) -> None:
        super().__init__()
        checks.at_least_one(every_n_steps=every_n_steps)
        checks.at_least(2, points=points)
        checks.positive(reach=reach)
        self.every_n_steps, self.points, self.reach, self.dirpath = every_n_steps, points, reach, dirpath
        self.end = 0  # the number of generator updates after the cycle under way
        self.before: dict[str, Tensor] | None = None  # the generator's parameters before it, if it is due
        self.kept: dict[str, Tensor] = {}  # what the module keeps during the cycle
        self.history: list[Curves] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a module without a surrogate."""
        super().on_fit_start(trainer, pl_module)
        module: Any = pl_module
        if getattr(module, "ratio_clip", None) is None:
            got = "without it" if not hasattr(module, "ratio_clip") else "with ratio_clip=None"
            raise ValueError(
                "SurrogateObjective needs a module that clips ratios (PRCGAN with ratio_clip), got "
                f"{type(module).__name__} {got}."
            )
        if getattr(module, "center_scores", False):
            raise ValueError(
                "center_scores must be False for SurrogateObjective, since its baseline differs from point to point, "
                "got True."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an earlier training."""
        self.before, self.kept, self.history = None, {}, []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the generator where a cycle begins that is due: none is under way while nothing is kept."""
        module: Any = pl_module
        if module.kept:
            return
        step, every = module.global_step, self.every_n_steps
        self.end, self.before, self.kept = step + module.g_steps, None, {}
        if self.end // every > step // every:
            self.before = {name: p.detach().clone() for name, p in module.generator.named_parameters()}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Hold what the module keeps, which it lets go when the cycle ends."""
        if self.before is not None:
            self.kept = dict(cast(Any, pl_module).kept)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look along the line when the cycle is over."""
        module, before = cast(Any, pl_module), self.before
        if before is None or module.global_step < self.end or not self.kept or module.last_batch is None:
            return
        s = [self.reach * i / (self.points - 1) for i in range(self.points)]
        conventional, surrogate = objectives(module, module.last_batch, before, self.kept, s).tolist()
        self.before, self.kept = None, {}
        self.history.append((self.end, s, conventional, surrogate))
        self.draw(trainer)

    def draw(self, trainer: pl.Trainer) -> None:
        """Log the peaks and the picture of the last look, on the first rank only."""
        if not trainer.is_global_zero:
            return
        step, s, conventional, surrogate = self.history[-1]
        peaks = {"surrogate/peak": _peak(s, surrogate), "surrogate/conventional_peak": _peak(s, conventional)}
        log_metrics(trainer, peaks, step)
        self.show(trainer, line_picture(self.history[-1]), [f"step_{step:06d}", "latest"], "surrogate/line", step)


@torch.no_grad()
def objectives(module: Any, batch: Batch, before: dict[str, Tensor], kept: dict[str, Tensor], s: list[float]) -> Tensor:
    """The conventional objective and the surrogate, (2, len(s)), with the generator at ``before + s (now - before)``.

    Leaves the module as it was. A collective: every rank must call it.

    Args:
        module: with ``loss``, ``relativistic`` and ``generator_terms`` as PRCGAN's.
        batch: of the generator's step; no per-sample draw is taken from its generator.
        before: the generator's parameters at s = 0, by name.
        kept: what the module kept when it stepped.
        s: the points.
    """
    batch = replace(batch, generator=None)
    values, own = dict(module.values), dict(module.kept)
    module.kept.update(kept)
    rows = []
    try:
        for point in s:
            now = module.generator.named_parameters()
            moved = {f"generator.{name}": torch.lerp(before[name], p, point) for name, p in now}
            with _as_found(module):  # so that each point has the same masks and buffers
                fake = functional_call(module, moved, (batch.z, batch.labels))
                with _as_found(module):
                    on_real = module.score(batch.real, batch) if module.relativistic else None
                    plain = module.loss.generator(module.score(fake, batch), on_real, real_weight=batch.weights)
                clipped = torch.stack(list(module.generator_terms(batch, fake).values())).sum()
            rows.append(-torch.stack([plain, clipped]))
    finally:
        module.values.clear()
        module.values.update(values)
        module.kept.clear()
        module.kept.update(own)
    return distributed.average([torch.stack(rows, 1)])[0]


@contextmanager
def _as_found(module: Any) -> Iterator[None]:
    """Leave random numbers and the networks' buffers as they are."""
    with rng.untouched(), ExitStack() as buffers:
        for name in module.players:
            for network in module.networks(name):
                buffers.enter_context(kept_buffers(network))
        yield


def _peak(s: list[float], values: list[float]) -> float:
    return s[values.index(max(values))] if all(map(math.isfinite, values)) else math.nan


def line_picture(curves: Curves) -> Image.Image:
    """Both objectives, as differences to s = 0, against s; a dot at the highest point, a dashed line at s = 1."""
    step, s, *both = curves
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    for values, colour, name in zip(both, (REAL_COLOUR, FAKE_COLOUR), ("conventional", "clipped surrogate")):
        rise = [value - values[0] for value in values]
        axes.plot(s, rise, color=colour, linewidth=1.6, label=name)
        if all(map(math.isfinite, rise)):  # a diverged network still gets a picture
            axes.plot(_peak(s, rise), max(rise), "o", color=colour, markersize=5)
    axes.set_title(f"along the cycle that ended with generator update {step:,}", color=INK, fontsize=9)
    axes.set_xlim(0, s[-1])
    axes.set_xlabel("s: 0 before the cycle, 1 after it", color=INK, fontsize=9)
    axes.set_ylabel("objective minus its value at s = 0", color=INK, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.tick_params(colors=INK, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure_image(figure)
