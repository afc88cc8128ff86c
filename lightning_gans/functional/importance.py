"""Weights of samples that are drawn more often than they occur, and mixtures whose components are."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from lightning_gans import checks

Number = TypeVar("Number", float, Tensor)


def stratum_weights(mass: Number, share: float) -> tuple[Number, Number]:
    """(mass / share, (1 - mass) / (1 - share)): the weights of two strata of which the first makes ``share`` of a draw.

    With these, the mean of weight * f over such a draw has the expectation of f where the first stratum has probability
    ``mass``; the weights themselves have mean 1.

    Args:
        mass: probability of the first stratum, in [0, 1].
        share: how much of the draw it makes, in (0, 1).

    Raises:
        ValueError: if ``share`` is not in (0, 1).

    >>> stratum_weights(mass=0.75, share=0.5)
    (1.5, 0.5)
    """
    checks.inside(share=share)
    return mass / share, (1 - mass) / (1 - share)


def residual(target: Tensor, fixed: Tensor, p: float) -> Tensor:
    """(target - p fixed)_+ / (1 - p): what the other component of p fixed + (1 - p) x has to be.

    A density, of mass 1, where p fixed <= target everywhere; more mass otherwise.

    Args:
        target: densities or probabilities (N,).
        fixed: those of the component that stays, (N,).
        p: its weight, in [0, 1).

    >>> residual(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]), p=0.5).tolist()
    [0.0, 1.0]
    """
    checks.below_one(p=p)
    return (target - p * fixed).clamp_min(0) / (1 - p)


def uniform_of(z: Tensor) -> Tensor:
    """A number in [0, 1) for each row of ``z`` (N, ...), (N,) float64: a hash of its bits, as good as independent of z.

    Computed in integers, so that it does not depend on the order of rows, the number of processes or the device; of z
    as float32.

    >>> z = torch.randn(5, 2)
    >>> torch.equal(uniform_of(z[3:]), uniform_of(z)[3:])
    True
    """
    bits = z.detach().flatten(1).float().contiguous().view(torch.int32).long()
    place = torch.arange(1, bits.shape[1] + 1, device=z.device)
    h = _mix(_mix(bits + place * -0x61C8864680B583EB).sum(1))
    return (h >> 11 & 2**53 - 1).double() / 2**53


def _mix(h: Tensor) -> Tensor:
    """The finaliser of splitmix64; integers wrap around, and the mask makes the shifts logical."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        h = (h ^ (h >> shift & 2 ** (64 - shift) - 1)) * factor
    return h ^ (h >> 31 & 2**33 - 1)
