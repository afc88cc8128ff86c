"""Alignment and uniformity of features on the sphere (Wang and Isola, arXiv:2005.10242): a flag of collapse."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gans import checks

_ROWS = 1024  # of a distance matrix that are held at once


class UniformityGap(NamedTuple):
    """Uniformity of fakes, of as many reals, and the first minus the second.

    A gap well above 0 says that the fakes crowd where reals do not. It grows with every mode that is lost, if what is
    lost lies together (on the ring of eight 0.08, 0.21, 0.38, 0.58, 0.83, 1.15, 1.58 for 7 modes down to 1); not always
    if what is left is spread out evenly: four of eight at right angles are as uniform as five (0.23 and 0.24).

    >>> UniformityGap(fake=-1.5, real=-2.0, gap=0.5).gap
    0.5
    """

    fake: float
    real: float
    gap: float


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> float:
    r"""Mean distance of features of pairs, E :math:`\|x - y\|^\alpha`, rows scaled to length 1; 0 for equal directions.

    Args:
        x: (N, F); y alike, row i being of another view of what row i of x is of.
        alpha: > 0.

    >>> round(alignment(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])), 9)
    2.0
    """
    checks.positive(alpha=alpha)
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {tuple(x.shape)}, got {tuple(y.shape)}.")
    return float((_on_sphere("x", x, 1) - _on_sphere("y", y, 1)).norm(dim=1).pow(alpha).mean())


def uniformity(features: Tensor, t: float = 2.0) -> float:
    r"""How evenly features lie on the sphere: the log of the mean over pairs i < j of :math:`e^{-t\|x_i-x_j\|^2}`.

    Rows are scaled to length 1. 0 where all are the same, the lower the more even; it depends on the extractor and,
    through the mean in the logarithm, on N: compare equal numbers only (`uniformity_gap`).

    Args:
        features: (N, F), N >= 2, none of length 0.
        t: > 0.

    >>> round(uniformity(torch.eye(3)), 9), round(uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])), 9)
    (-4.0, -8.0)
    """
    checks.positive(t=t)
    x, parts = _on_sphere("features", features, 2), []
    for start in range(0, len(x), _ROWS):  # all at once are gigabytes for 10,000 samples
        distances = torch.cdist(x[start : start + _ROWS], x[start:])
        parts.append((-t * distances[torch.ones_like(distances, dtype=torch.bool).triu(1)].square()).logsumexp(0))
    return float(torch.stack(parts).logsumexp(0)) - math.log(len(x) * (len(x) - 1) / 2)


def uniformity_gap(fake: Tensor, real: Tensor, t: float = 2.0, seed: int = 0) -> UniformityGap:
    """Uniformity of fakes beside that of as many reals, the larger set being reduced at random.

    Args:
        fake: (N, F) features.
        real: (M, F) features by the same extractor.
        t: of `uniformity`.
        seed: of the choice.

    >>> even, crowded = torch.eye(4), torch.tensor([[1.0, 0.0, 0.0, 0.01 * i] for i in range(4)])
    >>> uniformity_gap(crowded, even).gap > 3.9
    True
    """
    if fake.dim() != 2 or real.dim() != 2 or fake.shape[1] != real.shape[1]:
        raise ValueError(f"fake and real must be (N, F) and (M, F), got {tuple(fake.shape)} and {tuple(real.shape)}.")
    n, own = min(len(fake), len(real)), torch.Generator().manual_seed(seed)
    values = [
        uniformity(x if len(x) == n else x[torch.randperm(len(x), generator=own)[:n].to(x.device)], t)
        for x in (fake, real)
    ]
    return UniformityGap(values[0], values[1], values[0] - values[1])


def _on_sphere(name: str, x: Tensor, least: int) -> Tensor:
    if x.dim() != 2 or len(x) < least:
        raise ValueError(f"{name} must be (N, F) with N >= {least}, got {tuple(x.shape)}.")
    x = x.double()
    length = x.norm(dim=1, keepdim=True)
    if not bool((length > 0).all() and length.isfinite().all()):
        raise ValueError(f"{name} must be finite and no row of length 0, got lengths from {float(length.min()):g}.")
    return x / length
