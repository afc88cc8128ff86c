"""Optimizers for games and energies, for ``optimizer_g`` and ``optimizer_d`` by class path."""

from lightning_gans.optim.adam import Adam
from lightning_gans.optim.clipped import ClippedAdam
from lightning_gans.optim.look_ahead import ExtraAdam, ExtraSGD, OptimisticAdam, OptimisticSGD
from lightning_gans.optim.rmsprop import RMSprop

__all__ = ["Adam", "ClippedAdam", "ExtraAdam", "ExtraSGD", "OptimisticAdam", "OptimisticSGD", "RMSprop"]
