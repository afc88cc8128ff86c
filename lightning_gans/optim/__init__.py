"""Optimizers for games and energies, for ``optimizer_g`` and ``optimizer_d`` by class path."""

import importlib
from typing import TYPE_CHECKING, Any

from lightning_gans.optim.clipped import ClippedAdam
from lightning_gans.optim.look_ahead import ExtraAdam, ExtraSGD, OptimisticAdam, OptimisticSGD

if TYPE_CHECKING:
    from lightning_gans.optim.adam import Adam
    from lightning_gans.optim.rmsprop import RMSprop

__all__ = ["Adam", "ClippedAdam", "ExtraAdam", "ExtraSGD", "OptimisticAdam", "OptimisticSGD", "RMSprop"]


def __getattr__(name: str) -> Any:
    """`Adam` and `RMSprop` when they are asked for: a LightningCLI refuses a bare name that two classes have."""
    if name in ("Adam", "RMSprop"):
        return getattr(importlib.import_module(f"{__name__}.{name.lower()}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
