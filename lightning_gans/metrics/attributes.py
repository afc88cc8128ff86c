"""Attributes of images of strokes (digits, letters) and of coloured shapes, measured without people or classifiers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.shapes import GROUND, RANGES, SHAPES, colour

_EMPTY = 1e-6
# The k of E z^k that a shape's symmetry leaves, its value over (E |z|^2)^(k/2), and its phase when upright.
_HARMONICS = {"square": (4, 0.6, math.pi), "triangle": (3, 0.8, -math.pi / 2), "ellipse": (2, 0.4814, 0.0)}


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


def shape_attributes(images: Tensor, value_range: tuple[float, float] = (-1.0, 1.0)) -> dict[str, Tensor]:
    r"""Attributes (N,) of one coloured shape on a dark ground, as `datamodules.Shapes` draws it, by closed forms.

    They are differentiable (almost everywhere, but for ``shape``), so a generator can be trained through them, and hold
    for generated images as far as these show one shape. An image of nothing but ground has zeros.

    A pixel belongs to the shape by :math:`m = 2\,\mathrm{clamp}(\max_c |x_c - .15| - .15,\, 0,\, .5)`, which is 1/2
    where the shape covers half of it. Of these masses come

    - ``x``, ``y``: their centre, and ``size``: :math:`\sqrt{\sum m / \pi}`, the radius of the disc of equal area, all
      in units of the width;
    - ``red``, ``green``, ``blue``: the mean colour under m, in [0, 1], and ``hue``: of that colour, in [0, 1);
    - ``square``, ``triangle``, ``ellipse``: how much of that shape there is, about 1 for it and 0 for the others. With
      z = right + i up about the centre and :math:`M_k = E_m z^k / (E_m |z|^2)^{k/2}` these are
      :math:`|M_4 - 2 M_2^2|`, :math:`|M_3|` and :math:`|M_2|` over their values for the ideal shape: each shape's
      symmetry leaves one of them only. ``shape``: the number (int64) of the largest, in that order;
    - ``rotation``: in degrees, from the phase of that harmonic: within 45, 60 or 90 degrees of upright;
    - ``ground_error``: mean :math:`|x_c - .15|` where there is no shape; far from 0, the others mean little.

    Args:
        images: (N, 3, H, W).
        value_range: black and white.

    Raises:
        ValueError: for samples that are no images of three colours.

    >>> from lightning_gans.functional.shapes import draw_shapes
    >>> truth = {"hue": 0.6, "size": 0.15, "x": 0.4, "y": 0.6, "rotation": 25.0}
    >>> image = draw_shapes({"shape": torch.tensor([1]), **{k: torch.tensor([v]) for k, v in truth.items()}}, 32)
    >>> found = shape_attributes(image, value_range=(0, 1))
    >>> {name: round(float(found[name]), 2) for name in ("x", "y", "hue", "size", "shape")}
    {'x': 0.4, 'y': 0.6, 'hue': 0.6, 'size': 0.15, 'shape': 1.0}
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have shape (N, 3, H, W), got {tuple(images.shape)}.")
    low, high = value_range
    pixels = (images - low) / (high - low)
    away = (pixels - GROUND).abs()
    mass = 2 * (away.amax(1) - 0.15).clamp(0, 0.5)
    total = mass.sum((1, 2))
    share = mass / total.clamp(min=_EMPTY)[:, None, None]
    height, width = mass.shape[1:]
    rows, columns = (torch.arange(n, device=images.device, dtype=images.dtype) + 0.5 for n in (height, width))
    y, x = ((share * place).sum((1, 2)) for place in (rows[:, None], columns))
    red, green, blue = (share[:, None] * pixels).sum((2, 3)).unbind(1)
    right, up = columns - x[:, None, None], y[:, None, None] - rows[:, None]
    degrees, turns = _harmonics(share, right, up)
    shape = torch.stack(list(degrees.values())).argmax(0)
    bare = 1 - mass
    found = {
        "x": x / width,
        "y": y / width,
        "size": (total.clamp(min=_EMPTY) / math.pi).sqrt() / width,
        "red": red,
        "green": green,
        "blue": blue,
        "hue": _hue(red, green, blue),
        **degrees,
        "shape": shape,
        "rotation": torch.stack(turns).gather(0, shape[None])[0],
    }
    ground_error = (bare * away.mean(1)).sum((1, 2)) / bare.sum((1, 2)).clamp(min=_EMPTY)
    return {**{name: value * (total > _EMPTY) for name, value in found.items()}, "ground_error": ground_error}


class ShapeMeasure(nn.Module):
    """`shape_attributes` as features of attributes that can be asked for (`GANControl`): a formula, without weights.

    ========= ================================ ====================================
    attribute features                         what is asked for
    ========= ================================ ====================================
    hue       red, green, blue                 in [0, 1]
    size      size                             in [.1, .2], in units of the width
    position  x, y                             two numbers in [.32, .68]
    shape     square, triangle, ellipse        0, 1 or 2
    ========= ================================ ====================================

    Args:
        value_range: black and white.

    >>> measure = ShapeMeasure()
    >>> [round(v, 4) for v in measure.features("hue", torch.tensor([[0.0]]))[0].tolist()]
    [0.95, 0.1425, 0.1425]
    """

    parts = {"hue": ("red", "green", "blue"), "size": ("size",), "position": ("x", "y"), "shape": SHAPES}  # noqa: RUF012

    def __init__(self, value_range: tuple[float, float] = (-1.0, 1.0)) -> None:
        super().__init__()
        self.value_range = value_range

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features (N, F) by attribute of images (N, 3, H, W)."""
        found = shape_attributes(images, self.value_range)
        return {name: torch.stack([found[part] for part in parts], 1) for name, parts in self.parts.items()}

    def features(self, name: str, values: Tensor) -> Tensor:
        """Features (N, F) of values (N, V) of an attribute.

        Raises:
            ValueError: for an attribute that there is not, another number of values, and values out of range.
        """
        checks.one_of("name", name, self.parts)
        wanted = 2 if name == "position" else 1
        low, high = {"position": RANGES["x"], "shape": (0, len(SHAPES) - 1)}.get(name) or RANGES[name]
        if values.shape[1] != wanted:
            raise ValueError(f"{name} must be {wanted} number{'s' * (wanted > 1)}, got {values.shape[1]}.")
        outside = values[~((values >= low) & (values <= high))]
        if len(outside) or (name == "shape" and bool((values % 1 != 0).any())):
            got = float(outside[0]) if len(outside) else values.flatten().tolist()[0]
            raise ValueError(f"{name} must be in [{low}, {high}], got {got:g}.")
        if name == "hue":
            return colour(values[:, 0])
        return nn.functional.one_hot(values[:, 0].long(), len(SHAPES)).to(values) if name == "shape" else values


class ShapeRule(nn.Module):
    """A classifier whose rule is known: is an attribute of a shape above a value? Its logit, a formula.

    Args:
        attribute: one of `shape_attributes`.
        above: the value.
        scale: of the attribute that is a logit of 1, > 0; negative turns the classes round.
        value_range: black and white.

    >>> rule = ShapeRule("size", above=0.15, scale=0.01)
    >>> rule(torch.full((2, 3, 16, 16), -0.7)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        attribute: str = "size",
        above: float = 0.15,
        scale: float = 0.01,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        known = shape_attributes(torch.zeros(1, 3, 8, 8))
        checks.one_of("attribute", attribute, known)
        checks.finite(above=above)
        checks.each({"scale": scale}, "a finite number other than 0", lambda s: s != 0 and math.isfinite(s))
        self.attribute, self.above, self.scale, self.value_range = attribute, above, scale, value_range

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,) of images (N, 3, H, W)."""
        return (shape_attributes(images, self.value_range)[self.attribute] - self.above) / self.scale


def _harmonics(share: Tensor, right: Tensor, up: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
    """How much of each shape there is, (N,) by name, and by how many degrees each would be turned."""
    spread = (share * (right.square() + up.square())).sum((1, 2)).clamp(min=_EMPTY)
    real, imaginary, moments = right, up, {}
    for k in (2, 3, 4):
        real, imaginary = real * right - imaginary * up, real * up + imaginary * right
        moments[k] = [(share * part).sum((1, 2)) / spread ** (k / 2) for part in (real, imaginary)]
    (a, b), fourth = moments[2], moments[4]
    moments[4] = [fourth[0] - 2 * (a * a - b * b), fourth[1] - 4 * a * b]  # which an ellipse has too
    degrees, turns = {}, []
    for name, (k, ideal, phase) in _HARMONICS.items():
        cos, sin = moments[k]
        nothing = cos.square() + sin.square() < 1e-12  # where the angle has no derivative
        cos, sin = cos.masked_fill(nothing, 1), sin.masked_fill(nothing, 0)
        degrees[name] = ((cos.square() + sin.square()).sqrt() / ideal).masked_fill(nothing, 0)
        start = math.cos(phase), math.sin(phase)
        turned = torch.atan2(sin * start[0] - cos * start[1], cos * start[0] + sin * start[1])
        turns.append(torch.rad2deg(turned / k))
    return degrees, turns


def _hue(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """HSV's hue in [0, 1); 0 for grey."""
    colours = torch.stack([red, green, blue])
    most = colours.amax(0)
    chroma = most - colours.amin(0)
    grey = chroma < _EMPTY
    chroma = chroma.masked_fill(grey, 1)
    sixths = torch.where(
        most == red,
        (green - blue) / chroma,
        torch.where(most == green, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    return ((sixths / 6) % 1).masked_fill(grey, 0)
