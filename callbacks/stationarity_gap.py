"""Is the game coming to rest?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gans.callbacks.probe import WholeCycles, log_metrics
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.contract import Played


class StationarityGap(WholeCycles):
    r"""Logs how far a cycle moved each player, in units of its learning rate.

    ``gap/g`` :math:`= \|\theta_{t+1} - \theta_t\| / \eta_G`, ``gap/d`` :math:`= \|\phi_{t+1} - \phi_t\| / \eta_D`, and
    their sum ``gap``, the stationarity gap of Lu et al. ("Understand the dynamics of GANs via primal-dual
    optimization"): 0 at a stationary point, and for a step of plain gradient descent the norm of the gradient. A cycle
    moves D ``d_steps`` times. For Adam it is the norm of what Adam makes of the gradient, about the root of the number
    of parameters as long as gradients keep their signs.

    The learning rates are those before the cycle; parameters whose rate is 0 are left out. Costs a copy of the trained
    parameters in the cycles that are looked at.

    Args:
        every_n_steps: generator updates between logs, each at the end of the cycle that the update lies in.

    >>> callback = StationarityGap(every_n_steps=50)  # for pl.Trainer(callbacks=[callback])
    >>> callback.every_n_steps, callback.before  # copies of the weights, while a cycle is looked at
    (50, {})
    """

    needs = Played

    def __init__(self, every_n_steps: int = 100) -> None:
        super().__init__(every_n_steps)
        self.before: dict[str, list[tuple[float, list[Tensor]]]] = {}  # by player: rate and copies of each group

    def begin(self, trainer: pl.Trainer, module: Any) -> None:
        """Copy the parameters."""
        self.before = {
            player: [(float(g["lr"]), [p.detach().clone() for p in g["params"]]) for g in optimizer.param_groups]
            for player, optimizer in self.optimizers(trainer, module)
        }

    def act(self, trainer: pl.Trainer, module: Played, step: int) -> None:
        """Log how far the parameters have come."""
        gaps: dict[str, Tensor] = {}
        for player, optimizer in self.optimizers(trainer, module):
            moved = [
                torch.stack([(p.detach() - old).float().norm() for p, old in zip(group["params"], copies)]).norm() / lr
                for group, (lr, copies) in zip(optimizer.param_groups, self.before.get(player, []))
                if lr > 0
            ]
            if moved:
                gaps[f"gap/{player}"] = torch.stack(moved).norm()
        self.before = {}
        if gaps:
            values = dict(zip(gaps, torch.stack(list(gaps.values())).tolist()))
            log_metrics(trainer, {**values, "gap": sum(values.values())}, step)

    @staticmethod
    def optimizers(trainer: pl.Trainer, module: Any) -> list[tuple[str, Any]]:
        """Each player's name and the optimizer that moves its parameters, in whatever order they are."""
        of = {id(p): optimizer for optimizer in trainer.optimizers for g in optimizer.param_groups for p in g["params"]}
        found: dict[str, Any] = {}
        for player in module.players:
            for p in (p for net in module.networks(player) for p in net.parameters() if id(p) in of):
                found[player] = of[id(p)]
        return list(found.items())
