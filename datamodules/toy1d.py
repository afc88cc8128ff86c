"""Toys on the line, for exact Wasserstein-1 distances and tail masses."""

from __future__ import annotations

import math

import torch

from lightning_gans import checks
from lightning_gans.datamodules.toy import Mixture


class Mixture1D(Mixture):
    """Gaussian mixture on the line.

    Attributes:
        tail_threshold: where the upper tail begins; None where there is no tail to speak of.
    """

    shape = (1,)
    tail_threshold: float | None = None

    @property
    def tail_mass(self) -> float | None:
        """Exact P(x > tail_threshold) = sum_k weights_k Phi((modes_k - tail_threshold) / stds_k)."""
        if self.tail_threshold is None:
            return None
        gap = (self.tail_threshold - self.modes[:, 0].double()) / (math.sqrt(2) * self.stds.double())
        return float((self.mode_weights.double() * torch.special.erfc(gap) / 2).sum())


class PointMass(Mixture1D):
    """All mass at one point, the degenerate 1-D case: `std` is 0 and there is no tail.

    Args:
        value: the point.
        batch_size: items per batch and process.
        batches_per_epoch: batches that are called an epoch.

    >>> PointMass(value=1.0).sample_exact(3).tolist()
    [[1.0], [1.0], [1.0]]
    """

    name = "PointMass"

    def __init__(self, value: float = 1.0, batch_size: int = 256, batches_per_epoch: int = 1000) -> None:
        checks.finite(value=value)
        super().__init__(batch_size, batches_per_epoch)
        self.set_components(torch.tensor([[value]]), [0.0], [1.0])


class Gaussian1D(Mixture1D):
    """N(mean, std^2); its tail begins two standard deviations above the mean (mass 0.02275).

    Args:
        mean: of the Gaussian.
        std: its standard deviation, not the variance: the N(1, 1e-3) of the primal-dual study (arXiv:1802.01765) is the
            default if 1e-3 is one, and std=0.0316228 if it is the variance; `PointMass` is its degenerate case.
        batch_size: items per batch and process.
        batches_per_epoch: batches that are called an epoch.

    >>> data = Gaussian1D(mean=0.0, std=0.5)
    >>> data.tail_threshold, round(data.tail_mass, 5)
    (1.0, 0.02275)
    """

    name = "Gaussian1D"

    def __init__(
        self, mean: float = 1.0, std: float = 1e-3, batch_size: int = 256, batches_per_epoch: int = 1000
    ) -> None:
        checks.finite(mean=mean)
        checks.positive(std=std)
        super().__init__(batch_size, batches_per_epoch)
        self.set_components(torch.tensor([[mean]]), [float(std)], [1.0])
        self.tail_threshold = mean + 2 * std


class RareTail1D(Mixture1D):
    """(1 - share) N(body_mean, body_std^2) + share N(tail_mean, tail_std^2) with a small share: a rare upper tail.

    The tail begins where body and tail are equally many standard deviations away: 4 by default, so that the mass beyond
    is the share up to 3e-5.

    Args:
        tail_share: probability of the tail component, in (0, 1).
        body_mean: mean of the body.
        body_std: standard deviation of the body.
        tail_mean: mean of the tail, above that of the body.
        tail_std: standard deviation of the tail.
        batch_size: items per batch and process.
        batches_per_epoch: batches that are called an epoch.

    >>> data = RareTail1D(tail_share=0.01)
    >>> round(data.tail_threshold, 3), round(data.tail_mass, 3)
    (2.0, 0.01)
    """

    name = "RareTail1D"

    def __init__(
        self,
        tail_share: float = 0.01,
        body_mean: float = 0.0,
        body_std: float = 0.5,
        tail_mean: float = 3.0,
        tail_std: float = 0.25,
        batch_size: int = 256,
        batches_per_epoch: int = 1000,
    ) -> None:
        checks.finite(body_mean=body_mean, tail_mean=tail_mean)
        checks.positive(body_std=body_std, tail_std=tail_std)
        checks.inside(tail_share=tail_share)
        checks.each({"tail_mean": tail_mean}, f"above body_mean = {body_mean}", lambda mean: mean > body_mean)
        super().__init__(batch_size, batches_per_epoch)
        centres = torch.tensor([[body_mean], [tail_mean]])
        self.set_components(centres, [float(body_std), float(tail_std)], [1 - tail_share, tail_share])
        self.tail_threshold = (body_mean * tail_std + tail_mean * body_std) / (body_std + tail_std)
