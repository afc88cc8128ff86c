"""Images of coloured shapes whose every factor is known."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.datamodules.base import ImageDataModule, Split
from lightning_gans.functional.shapes import RANGES, SHAPES, draw_shapes

_CHUNK = 256  # images drawn at a time: what fits a cache
_SIDES = (16, 32, 64)


class Shapes(ImageDataModule):
    """One coloured square, triangle or ellipse on a dark ground: images with a truth, drawn when first needed.

    Nothing is downloaded: 50,000 images of 32 pixels take a second or two. Six independent factors, all uniform:
    shape; hue in [0, 1); size in (.1, .2), the radius of the disc of equal area; x and y in (.32, .68), from the left
    and from the top, all in units of the side; rotation in (-40, 40) degrees, counter-clockwise. See
    `functional.draw_shapes`. The same seed and device give the same bytes; fewer ``items`` are the first of more.

    Args:
        side: 16, 32 or 64 pixels.
        label: the factor that the labels are of; None for images without labels.
        bins: classes of a label other than the shape: bins of equal width over the factor's range, >= 2.
        correlate: (follower, leader, rho): with probability rho the follower is where the leader is in its range, so
            that their ranks correlate by rho, while each is distributed as before. ("hue", "shape", .9): 93 % of the
            squares have a hue in [0, 1/3), of the triangles one in [1/3, 2/3), of the ellipses one in [2/3, 1).
        seed: of the factors.
        batch_size: images per batch and process.
        flip: mirror each training image with probability 1/2, when `factors` no longer tells its x and rotation.
        dequantize: add uniform noise as wide as a grey level to the batches.
        value_range: of the batches.
        items: number of training images.
        held_out: number of test images.

    Raises:
        ValueError: for settings out of range, a factor that does not exist, and one that follows itself.

    >>> data = Shapes(side=16, items=100, label="hue", bins=4)
    >>> images, labels = data.reference()
    >>> tuple(images.shape), torch.equal(labels, (data.factors()["hue"] * 4).long())
    ((100, 3, 16, 16), True)
    """

    name = "Shapes"

    def __init__(
        self,
        side: int = 32,
        label: str | None = "shape",
        bins: int = 8,
        correlate: tuple[str, str, float] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        flip: bool = False,
        dequantize: bool = False,
        value_range: tuple[float, float] = (-1.0, 1.0),
        items: int = 50_000,
        held_out: int = 10_000,
    ) -> None:
        checks.one_of("side", side, _SIDES)
        if label is not None:
            checks.one_of("label", label, RANGES)
        checks.at_least(2, bins=bins)
        checks.at_least(0, seed=seed)
        checks.at_least_one(items=items, held_out=held_out)
        self.correlate = None if correlate is None else _checked(correlate)
        super().__init__(batch_size, flip, dequantize, value_range, items)
        self.side, self.label, self.bins, self.seed, self.held_out = side, label, bins, seed, held_out
        self.shape = (3, side, side)
        self.num_classes = None if label is None else len(SHAPES) if label == "shape" else bins

    def factors(self, split: Split = "train") -> dict[str, Tensor]:
        """The truth about each image of a split, in order: ``shape`` (N,) int64, and the others (N,) float32."""
        checks.one_of("split", split, ("train", "test"))
        source = Generator().manual_seed(2 * self.seed + (split == "test"))
        assert self.items is not None
        n = self.items if split == "train" else self.held_out
        place = dict(zip([*RANGES, "follows"], torch.rand(n, len(RANGES) + 1, generator=source).unbind(1)))
        if self.correlate is not None:
            follower, leader, rho = self.correlate
            place[follower] = torch.where(place["follows"] < rho, place[leader], place[follower])
        found = {name: low + (high - low) * place[name] for name, (low, high) in RANGES.items()}
        return {**found, "shape": found["shape"].long().clamp_max(len(SHAPES) - 1)}

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Draw a split: uint8 images (N, 3, side, side) and labels (N,) int64, or None."""
        factors = self.factors(split)
        images = torch.empty(len(factors["hue"]), *self.shape, dtype=torch.uint8)
        for rows in factors["shape"].argsort(stable=True).split(_CHUNK):
            these = {name: value[rows].to(self.device) for name, value in factors.items()}
            images[rows] = draw_shapes(these, self.side).mul_(255).round_().byte().cpu()
        return images, None if self.label is None else self._labels(factors[self.label])

    def _labels(self, values: Tensor) -> Tensor:
        if self.label is None or self.label == "shape":
            return values
        low, high = RANGES[self.label]
        return ((values - low) / (high - low) * self.bins).long().clamp(0, self.bins - 1)


def _checked(correlate: tuple[str, str, float]) -> tuple[str, str, float]:
    """(follower, leader, rho), or a ValueError."""
    if len(correlate) != 3:
        raise ValueError(f"correlate must be (follower, leader, rho), got {tuple(correlate)}.")
    follower, leader, rho = correlate
    checks.one_of("The follower of correlate", follower, RANGES)
    checks.one_of("The leader of correlate", leader, [name for name in RANGES if name != follower])
    checks.share(**{"rho of correlate": rho})
    return follower, leader, rho
