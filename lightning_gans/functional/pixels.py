"""Images as bytes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def to_uint8(images: Tensor, value_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    """Float images from ``value_range`` as uint8 0..255: scaled, rounded and clipped, NaN black; uint8 as they are.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 7.0, float("nan")])).tolist()
    [0, 128, 255, 255, 0]
    """
    if images.dtype == torch.uint8:
        return images
    low, high = value_range
    scaled = (images.float() - low) * (255 / (high - low))
    return scaled.round().nan_to_num(0.0, 255.0, 0.0).clamp(0, 255).to(torch.uint8)


def range_of(images: Tensor, value_range: tuple[float, float] | None) -> tuple[float, float]:
    """``value_range``; where none is known -1 to 1, with a warning if float images are never below 0.

    >>> range_of(torch.tensor([0.2, 0.9]), (0.0, 1.0)), range_of(torch.tensor([-0.5, 0.9]), None)
    ((0.0, 1.0), (-1.0, 1.0))
    """
    if value_range is None and images.is_floating_point() and bool((images >= 0).all()):
        warnings.warn(
            "Samples are taken as of -1 to 1, but are never below 0: say their range by the data module's value_range, "
            "or the callback's.",
            stacklevel=3,
        )
    return value_range or (-1.0, 1.0)
