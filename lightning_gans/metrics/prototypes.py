"""Modes counted without labels: by prototypes that share the data evenly (after SwAV, arXiv:2006.09882)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.sinkhorn import sinkhorn_codes


class PrototypeCounts(NamedTuple):
    """How samples spread over K prototypes of the data.

    Attributes:
        found: prototypes that have at least a tenth of their even share of the samples.
        shares: (K,) of the samples.

    >>> PrototypeCounts(2, torch.tensor([0.5, 0.5])).found
    2
    """

    found: int
    shares: Tensor


def prototype_counts(
    samples: Tensor, real: Tensor, prototypes: int = 8, rounds: int = 20, epsilon: float = 0.05, seed: int = 0
) -> PrototypeCounts:
    """Count the samples nearest to each of K prototypes, which real samples share evenly; labels are not needed.

    Prototypes are the means of balanced codes of the real features (`functional.sinkhorn_codes` of minus the squared
    distance, in units of the features' variance), begun at items far from each other. Take K not below the number of
    modes, and compare with the counts of as many held-out reals.

    Args:
        samples: (M, F) features.
        real: (N, F), N >= K.
        prototypes: K >= 2.
        rounds: of codes and means at most, >= 1.
        epsilon: of the codes, > 0.
        seed: of the first prototype.

    Raises:
        ValueError: for settings out of range, shapes that do not fit, and fewer real samples than prototypes.

    >>> real = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> prototype_counts(torch.tensor([[0.0], [0.05]]), real, 2).found, prototype_counts(real, real, 2).found
    (1, 2)
    """
    checks.at_least(2, prototypes=prototypes)
    checks.at_least_one(rounds=rounds)
    checks.positive(epsilon=epsilon)
    if real.dim() != 2 or samples.dim() != 2 or samples.shape[1] != real.shape[1] or len(samples) == 0:
        got = f"{tuple(samples.shape)}, {tuple(real.shape)}"
        raise ValueError(f"samples and real must be (M, F) and (N, F), got {got}.")
    if len(real) < prototypes:
        raise ValueError(f"prototypes must be at most {len(real)}, the number of real samples, got {prototypes}.")
    x = real.double()
    unit = x.var(0, unbiased=False).sum().clamp_min(1e-12)
    first = int(torch.randint(len(x), (), generator=torch.Generator().manual_seed(seed)))
    centres = x[first : first + 1]
    while len(centres) < prototypes:
        centres = torch.cat([centres, x[torch.cdist(x, centres).amin(1).argmax()][None]])
    for _ in range(rounds):
        codes = sinkhorn_codes(-torch.cdist(x, centres).square() / unit, epsilon, tolerance=0.02, most=100)
        before, centres = centres, codes.T @ x / codes.sum(0)[:, None]
        if float((centres - before).square().sum(1).max()) < 1e-6 * float(unit):
            break
    shares = torch.cdist(samples.double(), centres).argmin(1).bincount(minlength=prototypes) / len(samples)
    return PrototypeCounts(int((shares >= 0.1 / prototypes).sum()), shares)
