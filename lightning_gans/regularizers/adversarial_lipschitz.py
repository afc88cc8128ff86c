"""An explicit Lipschitz penalty at the pairs of points that violate it most."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lightning_gans.functional.conditional import score
from lightning_gans.functional.double_backward.input_gradient import no_autocast
from lightning_gans.functional.draw import uniform
from lightning_gans.functional.numerics import full_precision, row_norm
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class AdversarialLipschitzPenalty(Regularizer):
    """mean max(0, |f(x) - f(x + r)| / ||r|| - K)^2 over real and fake x, r in an adversarial direction (ALP).

    arXiv:1907.05681, by its released code: r = eps d with eps uniform in a range and d a unit vector, found from a
    random one by steps d <- grad_d |f(x) - f(x + xi d)|, normalised; points are clipped to the range of the data. The
    gradient flows through both scores and not through d. Where the gradient is 0 the random direction stays; where
    clipping leaves no distance the pair counts as 0. BatchNorm in the critic is not refused, since no gradient of
    single samples is taken; but the two batches then have statistics of their own.

    Args:
        weight: lambda; 10 in the code.
        target: K >= 0.
        epsilon: range of eps, 0 < least <= most.
        xi: length of the probing step, > 0.
        power_iterations: steps of the search, >= 1.
        clip: range of the data, or None.

    Raises:
        ValueError: for an argument out of range.
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
        if not 0 <= target < float("inf"):
            raise ValueError(f"target must be a finite number >= 0, got {target}.")
        if not 0 < epsilon[0] <= epsilon[1] < float("inf"):
            raise ValueError(f"epsilon must be 0 < least <= most, got {epsilon}.")
        if not 0 < xi < float("inf"):
            raise ValueError(f"xi must be a finite number > 0, got {xi}.")
        if clip is not None and not clip[0] < clip[1]:
            raise ValueError(f"clip must be (low, high) with low < high or None, got {clip}.")
        if not isinstance(power_iterations, int) or power_iterations < 1:
            raise ValueError(f"power_iterations must be an integer >= 1, got {power_iterations}.")
        self.target, self.epsilon, self.xi, self.power_iterations = target, epsilon, xi, power_iterations
        self.clip = clip

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        x = full_precision(torch.cat([batch.real, fake]).detach())
        labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        f = partial(score, discriminator, labels=labels)
        draw = partial(uniform, len(x), generator=batch.generator, device=x.device, dtype=x.dtype)
        with no_autocast(x.device.type):
            d = _unit(draw(*x.shape[1:]) - 0.5)
            for _ in range(self.power_iterations):
                with torch.no_grad():
                    here = f(x)
                probe = d.requires_grad_()
                (slope,) = torch.autograd.grad((here - f(self._clip(x + self.xi * probe))).abs().mean(), probe)
                found = row_norm(slope.flatten(1), 2).view(-1, *[1] * (x.ndim - 1)) > 0
                d = torch.where(found, _unit(slope), d.detach())
            low, high = self.epsilon
            there = self._clip(x + (low + (high - low) * draw(*[1] * (x.ndim - 1))) * d)
            distance = row_norm((x - there).flatten(1), 2)
            near = distance < 1e-6
            quotient = (f(x) - f(there)).abs() / distance.masked_fill(near, 1)
            return (quotient - self.target).clamp_min(0).square().masked_fill(near, 0).mean()

    def _clip(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(*self.clip)


def _unit(x: Tensor) -> Tensor:
    # torch's normalize has a floor for the norm, below which a tiny gradient would keep its length
    largest = x.flatten(1).abs().amax(1).view(-1, *[1] * (x.ndim - 1))
    x = x / largest.masked_fill(largest == 0, 1)
    return torch.nn.functional.normalize(x.flatten(1)).view_as(x)
