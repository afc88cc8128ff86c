"""How much do the losses jump from update to update?"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_gans import checks
from lightning_gans.callbacks.probe import EveryNSteps, log_metrics, stepping
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed
from lightning_gans.engine.contract import Played, require

_TERMS = ("loss", "adversarial")


class LossVariance(EveryNSteps):
    r"""Logs the variance of each player's loss over its last updates.

    Of arXiv:2006.06900, whose reweighted fakes are said to lower the variance of both losses. Logged are
    ``variance/d/loss`` and ``variance/g/loss``, of all terms together, and ``variance/d/adversarial`` and
    ``variance/g/adversarial``, without the penalties, and so for every other player:

    .. math:: \frac{1}{n - 1} \sum_{i=1}^n (L_i - \bar L)^2

    over the player's last n = ``window`` updates, or as many as there were. :math:`L_i` is the mean over all ranks.
    Each update counts once: the discriminator's ``d_steps`` of a cycle are as many values. A drift of the loss counts
    too, and with it that of the level of a Wasserstein critic, which nothing fixes. The values wait on the device; a
    resumed run starts with none.

    Args:
        every_n_steps: generator updates between logs.
        window: n, an integer >= 2.

    >>> callback = LossVariance(every_n_steps=50, window=200)  # for pl.Trainer(callbacks=[callback])
    >>> callback.window, callback.held  # the last losses by name, once there are some
    (200, {})
    """

    needs = Played

    def __init__(self, every_n_steps: int = 100, window: int = 100) -> None:
        super().__init__(every_n_steps)
        checks.at_least(2, window=window)
        self.window = window
        self.held: dict[str, deque[Tensor]] = {}  # by name, of this rank

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an earlier training."""
        super().on_train_start(trainer, pl_module)
        self.held = {}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Keep the values of the player that is about to step."""
        module = require(pl_module, Played, self)
        for name in (f"{stepping(module)}/{term}" for term in _TERMS):
            if name in module.values:  # copied, since a CUDA graph puts the next value in the same place
                self.held.setdefault(name, deque(maxlen=self.window)).append(module.values[name].clone())

    def act(self, trainer: pl.Trainer, module: Played, step: int) -> None:
        """Log the variances; on every rank, since the values are averaged over them."""
        held = {name: torch.stack(list(values)) for name, values in sorted(self.held.items()) if len(values) > 1}
        if held:
            means = distributed.average(list(held.values()))
            variances = torch.stack([values.var().float() for values in means]).tolist()
            log_metrics(trainer, {f"variance/{name}": v for name, v in zip(held, variances)}, step)
