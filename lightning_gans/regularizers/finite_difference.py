"""A Lipschitz penalty without a gradient of a gradient."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_gans.functional.penalties import check_penalty, finite_difference_penalty, interpolate
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer, conditioned


class FiniteDifferencePenalty(Regularizer):
    """mean (|D(x1) - D(x2)| / ||x1 - x2||_p - 1)^2 over two independent interpolates of real and fake samples.

    The second point comes from the pair of samples half a batch further on, hence from other samples than the first (in
    a batch of one, from the same pair). A slope belongs to one function, so a conditional discriminator scores
    both points under the label of the first.

    Args:
        weight: lambda.
        p: order of the norm, >= 1.

    Raises:
        ValueError: for an argument out of range; when called, for unequal numbers of real and fake.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.ones(4, 1).double(), labels=None, generator=None)
    >>> penalty = FiniteDifferencePenalty()(lambda x: 3 * x[:, 0], batch, fake=torch.zeros(4, 1).double())
    >>> round(float(penalty), 4)  # (3 - 1)^2
    4.0
    """

    name = "finite_difference"
    per_sample = True

    def __init__(self, weight: float = 10.0, p: float = 2.0) -> None:
        super().__init__(weight)
        check_penalty(p)
        self.p = p

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at two random points between real and fake samples."""
        x1 = interpolate(batch.real, fake, batch.generator)
        # Half a batch, not one row: for even N the same pairs meet when the batch is spread over several processes.
        half = len(fake) // 2
        x2 = interpolate(batch.real.roll(half, 0), fake.roll(half, 0), batch.generator)
        return finite_difference_penalty(conditioned(discriminator, batch), x1, x2, self.p)
