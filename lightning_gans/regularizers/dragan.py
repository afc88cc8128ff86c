"""A gradient penalty around the data."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_gans.functional.penalties import gradient_penalty, perturb
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer, conditioned


class DRAGAN(Regularizer):
    """mean (||grad D(x + d)|| - 1)^2 at perturbed real samples, d = 0.5 std(x) u with u ~ U[0, 1) (arXiv:1705.07215).

    Variants in use: the paper's text has Gaussian noise d ~ N(0, c I) on each element; its authors' code, followed
    here, uniform noise that is scaled by the standard deviation of the batch and never negative. That code also moves
    the point back towards x by a random fraction, which the paper does not have; that step is left out.

    Args:
        weight: lambda.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.rand(4, 1), labels=None, generator=None)
    >>> float(DRAGAN()(lambda x: 3 * x[:, 0], batch, fake=torch.rand(4, 1)))  # (3 - 1)^2
    4.0
    """

    name = "dragan"
    per_sample = True

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__(weight)

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term around the real samples."""
        return gradient_penalty(conditioned(discriminator, batch), perturb(batch.real, batch.generator))
