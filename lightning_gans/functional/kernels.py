"""Densities of generated samples at data points, smoothed by a kernel (arXiv:1802.01765)."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import gather_rows

_INACTIVE = 1e-6  # a p_i below which a term of it moves nothing


def log_kernel_density(points: Tensor, samples: Tensor, sigma: Tensor | float) -> Tensor:
    """log p_i (N,) at points x (N, ...), p_i = (1/M) sum_j exp(-||y_j - x_i||^2 / sigma^2), of samples y (M, ...).

    The kernel has no factor 2 and no normalisation, so p_i is in [0, 1]. Samples are those of all processes. Finite and
    differentiable however far the samples are, and where they coincide with a point.

    Args:
        points: x.
        samples: y, of the same shape but for M.
        sigma: width, > 0; a tensor of no dimensions or a number.

    >>> log_kernel_density(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0]]), sigma=1.0).tolist()
    [-1.0, 0.0]
    """
    x, y = full_precision(points).flatten(1), full_precision(gather_rows(samples)).flatten(1)
    # Not ||x||^2 - 2 x.y + ||y||^2, which loses all digits of distances that are small beside the points themselves.
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.logsumexp(-(distance / sigma).square(), dim=1) - math.log(len(y))


def median_distance(points: Tensor) -> Tensor:
    """Median of the distances between any two of the points (N, ...) of all processes, detached; nan for one point.

    >>> float(median_distance(torch.tensor([[0.0], [1.0], [3.0]])))
    2.0
    """
    rows = full_precision(gather_rows(points.detach())).flatten(1)
    return torch.pdist(rows).median()


def unit_of_distance(points: Tensor) -> Tensor:
    """`median_distance` as the unit of a relative sigma; a ValueError where it is 0."""
    if len(rows := gather_rows(points.detach())) < 2:
        raise ValueError(
            f"batch_size must be at least 2 with relative=True, which measures distances, got {len(rows)}."
        )
    unit = median_distance(points)
    if not unit > 0:
        raise ValueError(f"relative must be False for data whose median distance is not above 0, got {float(unit):g}.")
    return unit


def warn_out_of_reach(points: Tensor, samples: Tensor, sigma: Tensor) -> None:
    """Warn if all samples are so many sigmas away from the points that `log_kernel_density` has no gradient there."""
    if (largest := float(log_kernel_density(points, samples, sigma).max().exp())) < _INACTIVE:
        warnings.warn(
            f"The kernel term is inactive: the largest p_g of the first batch is {largest:.2g}, since all "
            f"generated samples are many times sigma = {float(sigma):.3g} away from the real ones: raise sigma.",
            stacklevel=5,
        )
