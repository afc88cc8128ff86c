"""Images as bytes."""

from __future__ import annotations

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
