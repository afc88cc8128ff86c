"""Values on their way from the device to loggers and schedulers, without a wait in each step."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_gans.engine import distributed


class NonFiniteError(RuntimeError):
    """A loss term, a gradient or a weight was NaN or infinite, and training was stopped.

    Attributes:
        weights_are_good: they are those before the step that went wrong.

    >>> NonFiniteError("d/adversarial was nan in generator update 7.").weights_are_good
    False
    """

    weights_are_good = False


def require_finite(values: Mapping[str, float], terms: Mapping[str, Iterable[str]], step: int, every: int) -> None:
    """Stop a training whose weights are lost.

    Diagnostics may be infinite by right, so only what is minimised counts.

    Args:
        values: the last ones by name.
        terms: names of what each player minimises.
        step: updates done.
        every: updates between two looks.

    Raises:
        NonFiniteError: it names the first loss that is no number.
    """
    for player, names in terms.items():
        if not math.isfinite(values.get(f"{player}/loss", 0.0)):
            known = {f"{player}/{name}": values.get(f"{player}/{name}", 0.0) for name in [*names, "loss"]}
            name, value = next((name, value) for name, value in known.items() if not math.isfinite(value))
            raise NonFiniteError(
                f"{name} must be a finite number, got {value} at update {step}: training stopped. Losses are looked at "
                f"every {every} updates; callbacks.NonFiniteGuard looks at each, keeps the batch, and can go back."
            )


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


def step_schedulers(
    trainer: Any, interval: str, values: Mapping[str, Tensor], counted: str, run: Any, waiting: Collection[str] = ()
) -> None:
    """One step of each scheduler that is due at the end of an update ("step") or of an epoch ("epoch").

    One that waits for a plateau sees its monitor, each measurement once, or else the loss of its player,
    ``lr/<player>``: the mean over ranks, so that all of them go on with the same rate. Those whose names are among
    ``waiting`` stay where they are.
    """
    for i, config in enumerate(trainer.lr_scheduler_configs):
        done = trainer.global_step if interval == "step" else trainer.current_epoch + 1
        if config.interval != interval or done % config.frequency or config.name in waiting:
            continue
        if not isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.step()
            continue
        name = getattr(config.scheduler, "monitor", None) or f"{str(config.name).rpartition('/')[2]}/loss"
        if name in trainer.callback_metrics and name not in values:
            if run.monitors.is_new(f"scheduler {i}", name, trainer.global_step):
                config.scheduler.step(float(of_all_ranks(trainer.callback_metrics[name], trainer)))
        elif name in values or getattr(config.scheduler, "monitor", None) is None:
            name = name if name in values else f"{counted}/loss"
            if name not in values:
                continue
            if (value := run.late.read(name, of_all_ranks(values[name], trainer))) is not None:
                config.scheduler.step(value)


def of_all_ranks(value: Tensor, trainer: Any) -> Tensor:
    """The mean of a value over ranks, for what must be decided alike on all of them. A collective."""
    if distributed.world_size() == 1:
        return value
    return distributed.average([value.to(trainer.strategy.root_device) * 1.0])[0]  # it may be an integer


def show(values: Mapping[str, float], trainer: Any) -> None:
    """Let callbacks find the values where Lightning's own are.

    Not by ``self.log``, after which Lightning goes through all values in every step.
    """
    for known in (trainer.callback_metrics, trainer.logged_metrics):
        known.update({name: torch.tensor(value) for name, value in values.items()})


def require_alike(names: Iterable[str], device: torch.device) -> None:
    """Raise unless all ranks have noted the same names. A collective."""
    if differ := distributed.where_differ(names, device):
        told = [f"{name} on rank {' and '.join(map(str, ranks))} alone" for name, ranks in differ.items()]
        raise ValueError(
            f"Values must have the same names on all ranks when they are logged, got {', '.join(told)}: note each of "
            "them on every rank, whatever is in its batch."
        )


def means(values: Mapping[str, Tensor], device: torch.device) -> dict[str, float]:
    """The values as numbers, averaged over ranks, with one wait for the device (on several ranks two).

    Raises:
        ValueError: for a value that is not one number, and for one that other ranks do not have.
    """
    require_alike(values, device)
    if not values:
        return {}
    for name, value in values.items():
        if value.numel() != 1:
            raise ValueError(f"{name} must be noted as one number, got a tensor of shape {tuple(value.shape)}.")
    names = sorted(values)  # ranks may have noted them in different order
    now = torch.stack([values[name].to(device, torch.float32).reshape(()) for name in names])
    found = dict(zip(names, distributed.average([now])[0].tolist()))
    return {name: found[name] for name in values}
