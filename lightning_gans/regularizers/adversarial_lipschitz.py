"""An explicit Lipschitz penalty at the pairs of points that violate it most."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lightning_gans.functional.conditional import score
from lightning_gans.functional.lipschitz import adversarial_lipschitz_penalty, check_lipschitz
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class AdversarialLipschitzPenalty(Regularizer):
    """mean max(0, |f(x) - f(x + r)| / ||r|| - K)^2 over real and fake x, r in an adversarial direction (ALP).

    arXiv:1907.05681, by its released code: see ``functional.adversarial_lipschitz_penalty``. BatchNorm in the critic is
    not refused, since no gradient of single samples is taken; but the two batches then have statistics of their own.

    Args:
        weight: lambda; 10 in the code.
        target: K >= 0.
        epsilon: range of eps, 0 < least <= most.
        xi: length of the probing step, > 0.
        power_iterations: steps of the search, >= 1.
        clip: range of the data, or None.

    Raises:
        ValueError: for an argument out of range.

    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.zeros(4, 1), labels=None, generator=None)
    >>> penalty = AdversarialLipschitzPenalty()(lambda x: 3 * x[:, 0], batch, fake=torch.ones(4, 1) / 2)
    >>> round(float(penalty), 4)  # (3 - 1)^2
    4.0
    """

    name = "adversarial_lipschitz"

    def __init__(
        self,
        weight: float = 10.0,
        target: float = 1.0,
        epsilon: tuple[float, float] = (0.1, 10.0),
        xi: float = 10.0,
        power_iterations: int = 1,
        clip: tuple[float, float] | None = (-1.0, 1.0),
    ) -> None:
        super().__init__(weight)
        check_lipschitz(target, epsilon, xi, power_iterations, clip)
        self.target, self.epsilon, self.xi, self.power_iterations = target, epsilon, xi, power_iterations
        self.clip = clip

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at real and fake samples."""
        labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        critic, x = partial(score, discriminator, labels=labels), torch.cat([batch.real, fake])
        options = self.target, self.epsilon, self.xi, self.power_iterations, self.clip
        return adversarial_lipschitz_penalty(critic, x, *options, batch.generator)
