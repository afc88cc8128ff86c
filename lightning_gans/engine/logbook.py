"""Values on their way from the device to loggers and schedulers, without a wait in each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_gans.engine import distributed


class Late:
    """Numbers that are read one update after they were computed, when the device has long finished them.

    On a CPU they are there at once. What was not read yet is part of the checkpoint.
    """

    def __init__(self) -> None:
        self._coming: dict[str, tuple[Tensor, Any]] = {}
        self._known: dict[str, float] = {}

    def read(self, name: str, value: Tensor) -> float | None:
        """The number that was given last time under this name, None at first; on a CPU ``value`` itself."""
        if value.device.type != "cuda":
            return float(value)
        last = self._known.pop(name) if name in self._known else self._finished(name)
        arrived = torch.cuda.Event()
        self._coming[name] = torch.empty((), pin_memory=True).copy_(value.detach(), non_blocking=True), arrived
        arrived.record()
        return last

    def state_dict(self) -> dict[str, float]:
        """The numbers that are on their way; waits for them."""
        for name in list(self._coming):
            self._known[name] = self._finished(name) or 0.0
        return dict(self._known)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with them."""
        self._coming, self._known = {}, dict(state)

    def _finished(self, name: str) -> float | None:
        if name not in self._coming:
            return None
        value, arrived = self._coming.pop(name)
        arrived.synchronize()
        return float(value)


def step_schedulers(configs: Iterable[Any], values: Mapping[str, Tensor], counted: str, late: Late) -> None:
    """One step of each scheduler; one that waits for a plateau sees the loss of its player, ``lr/<player>``."""
    for config in configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            loss = f"{str(config.name).rpartition('/')[2]}/loss"
            loss = loss if loss in values else f"{counted}/loss"
            if (value := late.read(loss, values[loss])) is not None:
                config.scheduler.step(value)
        else:
            config.scheduler.step()


def means(values: Mapping[str, Tensor], device: torch.device) -> dict[str, float]:
    """The values as numbers, averaged over ranks, with one wait for the device."""
    if not values:
        return {}
    now = torch.stack([value.to(device, torch.float32).reshape(()) for value in values.values()])
    return dict(zip(values, distributed.average([now])[0].tolist()))
