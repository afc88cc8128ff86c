"""Penalties on the norm of the discriminator's input gradient."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.penalties import check_penalty, gradient_penalty, interpolate
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer, conditioned

Points = Literal["interpolates", "real", "fake"]


class GradientPenalty(Regularizer):
    """mean |n - K|^power, or one-sided mean max(0, n - K)^power, with n = ||grad D(x)||_p (WGAN-GP, arXiv:1704.00028).

    Args:
        weight: lambda of the paper.
        p: order of the norm, >= 1.
        target: K >= 0.
        power: > 0.
        one_sided: penalise only norms above K.
        at: where the gradient is taken: at random points between each real and fake sample, at real or at fake samples.
            A conditional discriminator gets the batch's labels there, so fakes must be made for these labels.

    Raises:
        ValueError: for an argument out of range; when called, for interpolates of unequal numbers of real and fake.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.rand(4, 1), labels=None, generator=None)
    >>> terms = GradientPenalty(), GradientPenalty(target=4.0), GradientPenalty(target=4.0, one_sided=True)
    >>> [float(term(lambda x: 3 * x[:, 0], batch, fake=torch.rand(4, 1))) for term in terms]
    [4.0, 1.0, 0.0]
    """

    name = "gradient_penalty"
    per_sample = True

    def __init__(
        self,
        weight: float = 10.0,
        p: float = 2.0,
        target: float = 1.0,
        power: float = 2.0,
        one_sided: bool = False,
        at: Points = "interpolates",
    ) -> None:
        super().__init__(weight)
        check_penalty(p, target, power)
        checks.one_of("at", at, get_args(Points))
        self.p, self.target, self.power, self.one_sided, self.at = p, target, power, one_sided, at

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at the points ``at``."""
        if self.at == "interpolates":
            x = interpolate(batch.real, fake, batch.generator)
        else:
            x = batch.real if self.at == "real" else fake
        return gradient_penalty(conditioned(discriminator, batch), x, self.p, self.target, self.power, self.one_sided)


class R1(Regularizer):
    """mean ||grad D(x)||^2 / 2 at real samples (arXiv:1801.04406).

    The half is inside the term, so `weight` is the paper's gamma: the loss gains gamma / 2 mean ||grad D(x)||^2. It is
    part of every n-th update only, n = ``every``, n times as heavy.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.ones(4, 1), labels=None, generator=None)
    >>> R1()(lambda x: x[:, 0] ** 2, batch, fake=torch.zeros(4, 1)).item()  # 2^2 / 2
    2.0
    """

    name = "r1"
    per_sample = True

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at the real samples."""
        return gradient_penalty(conditioned(discriminator, batch), batch.real, target=0.0) / 2


class R2(Regularizer):
    """mean ||grad D(x)||^2 / 2 at fake samples (arXiv:1801.04406); `weight` is the paper's gamma, as in `R1`.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.ones(4, 1), labels=None, generator=None)
    >>> R2()(lambda x: x[:, 0] ** 2, batch, fake=torch.zeros(4, 1)).item()
    0.0
    """

    name = "r2"
    per_sample = True

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at the fake samples."""
        return gradient_penalty(conditioned(discriminator, batch), fake, target=0.0) / 2
