"""How much of images is at which frequency: what upsampling leaves out or makes up shows here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_gans import checks


def cosine_transform(n: int) -> Tensor:
    r"""The orthonormal DCT-II as a matrix (n, n) in float64, row k being :math:`\cos(\pi (i + 1/2) k / n)`.

    >>> m = cosine_transform(5)
    >>> bool(((m @ m.T) - torch.eye(5)).abs().max() < 1e-12)
    True
    """
    checks.at_least_one(n=n)
    at = torch.arange(n, dtype=torch.float64)
    matrix = (math.pi / n * at[:, None] * (at + 0.5)).cos() * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def spectrum_bands(images: Tensor, bands: int = 8) -> Tensor:
    r"""Mean power of images in bands of frequency, (bands,) in float64; their sum weighed by size is the mean square.

    The DCT-II along rows and columns; band b holds the frequencies (k, l) of :math:`\sqrt{(k/H)^2 + (l/W)^2} / \sqrt2`
    in [b/B, (b+1)/B), the first also the mean of the image. Power is the mean square of their coefficients over images,
    channels and frequencies; NaN for a band without any.

    Args:
        images: (N, C, H, W), floats, or uint8 that is taken for [-1, 1].
        bands: B >= 1.

    >>> [round(v, 9) for v in spectrum_bands(torch.ones(1, 1, 4, 4), 3).tolist()]  # 16, of one in 4 coefficients
    [4.0, 0.0, 0.0]
    """
    checks.at_least_one(bands=bands)
    if images.dim() != 4 or len(images) == 0:
        raise ValueError(f"images must be (N, C, H, W) and not empty, got {tuple(images.shape)}.")
    x = images.double() / 127.5 - 1 if images.dtype == torch.uint8 else images.double()
    height, width = x.shape[2:]
    rows, columns = cosine_transform(height).to(x.device), cosine_transform(width).to(x.device)
    power = (rows @ x @ columns.T).square().mean((0, 1)).flatten()
    k, l = (torch.arange(n, dtype=torch.float64, device=x.device) / n for n in (height, width))  # noqa: E741
    radius = ((k[:, None].square() + l.square()) / 2).sqrt().flatten()
    band = (radius * bands).long().clamp_max(bands - 1)
    total = torch.zeros(bands, dtype=torch.float64, device=x.device).index_add_(0, band, power)
    return total / band.bincount(minlength=bands)


def spectrum_gap(fake: Tensor, real: Tensor, bands: int = 8) -> Tensor:
    """Decibels by which fakes exceed reals in each band, (bands,): 10 log10 of the ratio of `spectrum_bands`.

    >>> round(float(spectrum_gap(2 * torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), 1)), 2)
    6.02
    """
    if fake.shape[1:] != real.shape[1:]:
        raise ValueError(f"fake must have the shape of real, {tuple(real.shape[1:])}, got {tuple(fake.shape[1:])}.")
    for name, images, other in (("fake", fake, real), ("real", real, fake)):  # uint8 become [-1, 1]
        if images.is_floating_point() and other.dtype == torch.uint8 and (most := float(images.abs().max())) > 2:
            raise ValueError(
                f"{name} must be uint8 as the others are, or in [-1, 1], got {images.dtype} up to {most:g}."
            )
    return 10 * (spectrum_bands(fake, bands) / spectrum_bands(real, bands)).log10()
