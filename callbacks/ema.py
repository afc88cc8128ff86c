"""Exponential moving average of the weights of the network that makes samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lightning_gans import checks
from lightning_gans.callbacks.probe import Asks
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.contract import Samples


class EMA(Asks):
    r"""Averages a network over updates: :math:`\bar\theta_t = \beta\,\bar\theta_{t-1} + (1-\beta)\,\theta_t`.

    It is the one that makes samples, the generator of a game (and what goes with it, as the encoder of `StylEx`).
    :math:`\bar\theta` starts as a copy of it after update ``start_step``. Parameters are averaged, buffers (BatchNorm
    statistics) are copied, in float32 or better, whatever the precision. The weights live in the module
    (``pl_module.ema``), which samples with them and saves them, so nothing is kept here. List this callback before
    those that sample. A later fit without it forgets the average, and says so.

    Args:
        decay: :math:`\beta` per generator update, 0 <= decay < 1. 0.999, the default, remembers about 1,000 updates.
        half_life: in place of a decay, the number of real samples (of all ranks) after which a weight counts half:
            :math:`\beta = .5^{n / h}` for the n samples of an update (on average so far).
        ramp_up: the half-life is at most this share of the samples seen so far (.05 in arXiv:2006.06676), so that an
            average does not keep what was there at first; > 0. None: no such limit.
        start_step: generator updates to wait for before averaging starts.
        every_n_steps: average only after every n-th update; the decay is then ``decay ** n``, so that the memory,
            counted in updates, stays the same.

    >>> callbacks = [EMA(decay=0.999)]  # for pl.Trainer(callbacks=callbacks), before those that sample
    >>> beta = EMA(half_life=6400).beta(step=10, images=640)  # of batches of 64
    >>> round(beta**100, 3)  # what is left of a weight after 100 updates
    0.5
    """

    needs = Samples
    averages = True  # so averaged weights of a resumed run, or of an earlier fit, go on

    def __init__(
        self,
        decay: float | None = None,
        start_step: int = 0,
        every_n_steps: int = 1,
        half_life: float | None = None,
        ramp_up: float | None = None,
    ) -> None:
        super().__init__()
        if half_life is not None:
            checks.positive(half_life=half_life)
            checks.only("decay", decay, None, "with a half_life")
        else:
            checks.only("ramp_up", ramp_up, None, "without a half_life")
        checks.positive(**checks.given(ramp_up=ramp_up))
        decay = 0.999 if decay is None else decay
        checks.below_one(decay=decay)
        checks.at_least(0, start_step=start_step)
        checks.at_least_one(every_n_steps=every_n_steps)
        self.decay, self.start_step, self.every_n_steps = decay, start_step, every_n_steps
        self.half_life, self.ramp_up = half_life, ramp_up
        self.seen_step, self.before = -1, 0

    @staticmethod
    def check_once(listed: Sequence[pl.Callback]) -> None:
        """ValueError for callbacks with two averages among them."""
        if (number := sum(isinstance(callback, EMA) for callback in listed)) > 1:
            raise ValueError(f"EMA must be listed once, since a module has one average, got it {number} times.")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the untrained generator, or go on from the checkpoint's average."""
        module: Any = pl_module
        self.check_once(trainer.callbacks)  # type: ignore[attr-defined]
        self.seen_step = module.global_step
        self.before = 0 if module.images_seen else self.seen_step  # updates of another module, by the same trainer
        if module.ema is not None or self.seen_step >= self.start_step:
            self._begin(module)

    def _begin(self, module: Any) -> None:
        module.start_ema()
        module.ema_by_hand = False  # a later fit without such a callback forgets it

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average after a generator update."""
        step = pl_module.global_step
        if step == self.seen_step or step < self.start_step:
            return
        self.seen_step = step
        module: Any = pl_module
        if module.ema is None:
            self._begin(module)  # a copy of the generator as it is now
        elif step % self.every_n_steps == 0:
            average = get_ema_multi_avg_fn(self.beta(step - self.before, module.images_seen))
            for ema, trained in module.averages.values():
                means = tuple(ema.parameters())  # of more bits than a bf16-true or 16-true module has
                average(means, tuple([now.to(mean.dtype) for mean, now in zip(means, trained.parameters())]), None)
                for mean, now in zip(ema.buffers(), trained.buffers()):
                    mean.copy_(now)

    def beta(self, step: int, images: int) -> float:
        """How much of the average stays after update ``step``, when so many real samples have been seen."""
        if self.half_life is None:
            return self.decay**self.every_n_steps
        if images == 0:
            return 0.0
        half_life = self.half_life if self.ramp_up is None else min(self.half_life, self.ramp_up * images)
        return float(0.5 ** (self.every_n_steps * images / step / half_life))
