"""Attributes of images of strokes (digits, letters) that can be measured without people or classifiers."""

from __future__ import annotations

import torch
from torch import Tensor

_EMPTY = 1e-6


def stroke_attributes(images: Tensor, value_range: tuple[float, float] = (-1.0, 1.0)) -> dict[str, Tensor]:
    r"""Attributes (N,) of bright strokes on a dark ground, by name; an image without ink has zeros.

    With the grey value :math:`g \in [0, 1]`, rows y and columns x in pixels, and :math:`\mu_{ab}` the central moments
    of g over the plane, divided by its sum:

    - ``ink``: the mean of g;
    - ``thickness``: :math:`2 \sum g / \sum |\nabla g|`, which for a long bar is its width in pixels;
    - ``slant``: :math:`-\mu_{11} / \mu_{02}`, the shear; positive leans to the right, as / does;
    - ``aspect``: :math:`\log(\mu_{20} / \mu_{02}) / 2`, the logarithm of width over height;
    - ``x``, ``y``: the centre, in pixels from the left upper one.

    Args:
        images: (N, C, H, W); channels are averaged.
        value_range: black and white.

    Raises:
        ValueError: for samples that are no images.

    >>> image = torch.full((1, 1, 9, 9), -1.0)
    >>> image[..., 2:7, 6] = 1  # an upright stroke of five pixels
    >>> {name: round(float(value), 1) for name, value in stroke_attributes(image).items() if name in "xy"}
    {'x': 6.0, 'y': 4.0}
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {tuple(images.shape)}.")
    low, high = value_range
    grey = ((images.mean(1) - low) / (high - low)).clamp(0, 1)
    ink = grey.sum((1, 2))
    share = grey / ink.clamp(min=_EMPTY)[:, None, None]
    rows, columns = (torch.arange(n, device=images.device, dtype=images.dtype) for n in grey.shape[1:])
    y, x = ((share * place).sum((1, 2)) for place in (rows[:, None], columns))
    dy, dx = rows[:, None] - y[:, None, None], columns - x[:, None, None]
    mu20, mu11, mu02 = ((share * product).sum((1, 2)) for product in (dx * dx, dx * dy, dy * dy))
    right = torch.diff(grey, dim=2, append=grey[:, :, -1:])
    down = torch.diff(grey, dim=1, append=grey[:, -1:])
    edges = (right.square() + down.square()).sqrt().sum((1, 2))
    found = {
        "ink": grey.mean((1, 2)),
        "thickness": 2 * ink / edges.clamp(min=_EMPTY),
        "slant": -mu11 / mu02.clamp(min=_EMPTY),
        "aspect": 0.5 * torch.log(mu20.clamp(min=_EMPTY) / mu02.clamp(min=_EMPTY)),
        "x": x,
        "y": y,
    }
    return {name: value * (ink > _EMPTY) for name, value in found.items()}
