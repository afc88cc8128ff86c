"""``Player``: who takes part in a game, and how it steps."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_gans import checks

OptimizerFactory = Callable[[Iterable], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


@dataclass
class Player:
    """One side of a game, with networks, an optimizer and a turn of its own.

    Args:
        name: a letter or word, under which its terms are logged (``d/loss``).
        networks: names of the module's attributes that hold its networks.
        lr: learning rate of its default optimizer, >= 0; 0 is warned of.
        optimizer: makes its optimizer of its parameters; None for the model's default.
        scheduler: makes a learning rate scheduler of that; it steps once per update of the counted player.
        clip: largest norm of its gradient, > 0; longer ones are scaled down (after unscaling). None: no limit.
        accumulate: batches whose mean gradient makes one update, >= 1; above 1 `minimise` must be given so many.
        every: it steps in every n-th cycle, >= 1; `minimise` leaves it out in the others.
        sam: distance rho at which its gradient is taken (``optim.sam``), >= 0; None: where its weights are.

    Raises:
        TypeError: for ``networks`` that are one string, and for what makes no optimizer or scheduler.
        ValueError: for a setting out of range; it is named ``clip_grad_<name>``, ``sam_<name>`` and so on.
    """

    name: str
    networks: tuple[str, ...]
    lr: float = 2e-4
    optimizer: OptimizerFactory | None = None
    scheduler: SchedulerFactory | None = None
    clip: float | None = None
    accumulate: int = 1
    every: int = 1
    sam: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.networks, str):
            raise TypeError(
                f"networks of the player {self.name!r} must be a tuple of names, got {self.networks!r}: give "
                f"({self.networks!r},)."
            )
        for option, made in (("optimizer", "parameters"), ("scheduler", "an optimizer")):
            if (given := getattr(self, option)) is not None and not callable(given):
                raise TypeError(
                    f"{option}_{self.name} must be a function of {made} that makes one, got a {type(given).__name__}: "
                    f"give lambda x: {type(given).__name__}(x, ...)."
                )
        checks.not_negative(**{f"lr_{self.name}": self.lr})
        if self.lr == 0 and self.optimizer is None:
            warnings.warn(f"lr_{self.name} is 0: {', '.join(self.networks)} will not learn.", stacklevel=4)
        checks.positive(**checks.given(**{f"clip_grad_{self.name}": self.clip}))
        checks.not_negative(**checks.given(**{f"sam_{self.name}": self.sam}))
        checks.at_least_one(**{f"accumulate_{self.name}": self.accumulate, f"{self.name}_every": self.every})


def check_betas(betas: tuple[float, float], used: bool) -> None:
    """ValueError unless Adam can have these; a warning for ``used`` ones that are probably the wrong way round."""
    checks.betas(betas)
    if used and betas[0] > betas[1]:
        warnings.warn(f"betas are {tuple(betas)}: Adam's first is meant to be the smaller one.", stacklevel=4)


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether an optimizer cannot step without its closure."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def may_call_again(optimizer: Optimizer) -> bool:
    """Whether an optimizer's step may call its closure more than once: all may but torch's (save LBFGS) and ours."""
    known = type(optimizer).__module__.startswith(("torch.optim.", "lightning_gans.optim."))
    return not known or isinstance(optimizer, torch.optim.LBFGS)
