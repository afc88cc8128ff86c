"""A penalty on the level of the scores of real samples."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_gans.functional.conditional import score
from lightning_gans.functional.penalties import drift
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class Drift(Regularizer):
    """(mean f(x))^2 over the real samples of all ranks: it holds the level of a critic that has none of its own.

    It is the square of the batch's mean, as in TransGAN's loss ``wgangp-eps``; in the one of progressive growing
    (arXiv:1710.10196) it is the mean of squares, twice a `ScorePenalty` of the real samples. `TransGAN` has it as a
    term of its own.

    Args:
        weight: epsilon of epsilon (mean f)^2.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.tensor([[3.0], [-1.0]]), labels=None, generator=None)
    >>> float(Drift()(lambda x: x[:, 0], batch, fake=torch.zeros(2, 1)))
    1.0
    """

    name = "drift"

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__(weight)

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at real samples."""
        return drift(score(discriminator, batch.real, batch.labels))
