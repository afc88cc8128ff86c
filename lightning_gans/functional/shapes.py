"""One coloured shape on a dark ground, drawn by its signed distance: images whose every factor is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

SHAPES = ("square", "triangle", "ellipse")
GROUND = 0.15  # grey value around the shape
SATURATION, VALUE = 0.85, 0.95  # of its colour
RANGES: dict[str, tuple[float, float]] = {  # of the factors, that of the shape being its number
    "shape": (0, 3),
    "hue": (0.0, 1.0),
    "size": (0.1, 0.2),
    "x": (0.32, 0.68),
    "y": (0.32, 0.68),
    "rotation": (-40.0, 40.0),
}
_STRETCH = 1.3


def draw_shapes(factors: Mapping[str, Tensor], side: int) -> Tensor:
    r"""Images (N, 3, side, side) in [0, 1] of one shape each, differentiable by every factor but the shape.

    With d the signed distance of a pixel's centre from the shape's border, in pixels, it is covered to
    :math:`c = \mathrm{clamp}(1/2 - d, 0, 1)`, and its colour is c times the shape's and 1 - c times the ground's
    (grey, .15). All shapes of one size have the area of the disc of that radius.

    Args:
        factors: (N,) each: ``shape`` 0, 1, 2 (int64), see `SHAPES`: square, triangle with its tip up, ellipse of axes
            1.3 and 1/1.3, the longer one level; ``hue`` in [0, 1) (HSV, saturation .85, value .95); ``size``, ``x`` and
            ``y`` (from the left and from the top) in units of the side; ``rotation`` in degrees, counter-clockwise.
        side: in pixels.

    >>> one = {name: torch.tensor([value]) for name, value in zip(RANGES, (0, 0.0, 0.15, 0.5, 0.5, 0.0))}
    >>> [round(float(value), 4) for value in draw_shapes(one, 32)[0, :, 16, 16]]  # red
    [0.95, 0.1425, 0.1425]
    """
    hue = factors["hue"]
    centres = (torch.arange(side, device=hue.device, dtype=hue.dtype) + 0.5) / side
    image = hue.new_empty(len(hue), 3, side, side)
    for number, name in enumerate(SHAPES):
        row = (factors["shape"] == number).nonzero().flatten()
        if not len(row):
            continue
        x, y, size, turn = (factors[of][row, None, None] for of in ("x", "y", "size", "rotation"))
        right, down, turn = centres - x, centres[:, None] - y, torch.deg2rad(turn)
        cos, sin = turn.cos(), turn.sin()
        d = _distance(name, cos * right - sin * down, sin * right + cos * down, size)
        covered = (0.5 - d * side).clamp(0, 1)
        image[row] = GROUND + covered[:, None] * (colour(hue[row])[:, :, None, None] - GROUND)
    return image


def colour(hue: Tensor) -> Tensor:
    """Red, green and blue (N, 3) of a shape of this hue (N,)."""
    place = (hue[:, None] * 6 + hue.new_tensor([5.0, 3.0, 1.0])) % 6
    return VALUE - VALUE * SATURATION * torch.minimum(place, 4 - place).clamp(0, 1)


def _distance(shape: str, x: Tensor, y: Tensor, size: Tensor) -> Tensor:
    """How far outside the border (x, y) is, in the shape's own coordinates, y down; of an ellipse to first order."""
    if shape == "square":
        half = math.sqrt(math.pi) / 2 * size
        dx, dy = x.abs() - half, y.abs() - half
        return (dx.clamp_min(0).square() + dy.clamp_min(0).square() + 1e-20).sqrt() + torch.maximum(dx, dy).clamp_max(0)
    if shape == "triangle":
        inner = math.sqrt(math.pi / (3 * math.sqrt(3))) * size  # the inscribed circle's radius
        return torch.maximum(y, math.sqrt(3) / 2 * x.abs() - y / 2) - inner
    p, q = _STRETCH * size, size / _STRETCH
    tiny = 1e-20
    once = ((x / p).square() + (y / q).square() + tiny).sqrt()
    twice = ((x / p.square()).square() + (y / q.square()).square() + tiny).sqrt()
    return once * (once - 1) / twice
