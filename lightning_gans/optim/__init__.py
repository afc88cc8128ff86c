"""Optimizers for games, for ``optimizer_g`` and ``optimizer_d`` by class path."""

from lightning_gans.optim.look_ahead import ExtraAdam, ExtraSGD, OptimisticAdam, OptimisticSGD

__all__ = ["ExtraAdam", "ExtraSGD", "OptimisticAdam", "OptimisticSGD"]
