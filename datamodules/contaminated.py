"""Data with planted outliers, of which it is known which they are."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.datamodules.around import AroundDataModule
from lightning_gans.datamodules.base import GANDataModule, Split, ToRange
from lightning_gans.datamodules.memory import MemoryLoader, Transform


class Contaminated(AroundDataModule):
    """The training data of ``base``, a share of it replaced by outliers; all that is scored against stays clean.

    Which items are replaced, and by what, depends on the seed alone. Outlying images are brought to the size and the
    channels of ``base``; the labels of outliers are random classes. A toy becomes a set of 10,000 items, its reference.
    `reference`, the held-out items, and for toys ``modes``, ``sample_exact`` and the like are those of ``base``: what
    is not found here is looked for there.

    Args:
        base: the clean data.
        outliers: data whose training items are planted, or "noise": images of uniform noise, and for toys uniform
            points in the box of the clean items, doubled about its centre.
        share: of the items that are replaced, in [0, 1).
        seed: of the choice.

    Raises:
        ValueError: for a share out of range, for outliers of another kind, or if there are too few of them.

    >>> from lightning_gans.datamodules import Blob, Ring
    >>> data = Contaminated(Ring(), outliers=Blob(), share=0.05)
    >>> data.name, data.num_items, int(data.is_outlier.sum())
    ('Ring+Blob', 10000, 500)
    """

    live = ("data", "base", "outliers")

    def __init__(
        self,
        base: GANDataModule,
        outliers: Literal["noise"] | GANDataModule = "noise",
        share: float = 0.05,
        seed: int = 0,
    ) -> None:
        checks.below_one(share=share)
        checks.at_least(0, seed=seed)
        if isinstance(outliers, str) and outliers != "noise":
            raise ValueError(f"outliers must be 'noise' or a data module, got {outliers!r}.")
        other = base.shape if isinstance(outliers, str) else outliers.shape
        if len(other) != len(base.shape) or (len(other) == 1 and other != base.shape):
            raise ValueError(f"outliers must be of the same kind as base, of shape {base.shape}, got shape {other}.")
        super().__init__(base)
        self.outliers, self.share, self.seed = outliers, share, seed
        self.name = f"{base.name}+{outliers if isinstance(outliers, str) else outliers.name}"
        self._mixed: tuple[Tensor, Tensor | None, Tensor] | None = None

    @property
    def parts(self) -> list[GANDataModule]:
        """The data modules that this one is made of, attached to its trainer."""
        parts = [part for part in (self.data, self.outliers) if isinstance(part, GANDataModule)]
        for part in parts:
            part.trainer = self.trainer
        return parts

    def prepare_data(self) -> None:
        """Download what is missing."""
        for part in self.parts:
            part.prepare_data()

    def setup(self, stage: str) -> None:
        """Read and mix the training items; predicting needs none."""
        for part in self.parts:
            part.setup(stage)
        if stage != "predict":
            self.mixed()

    def mixed(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """The training items (N, ...), their labels (N,) or None, and whether each is an outlier (N,) bool."""
        if self._mixed is None:
            random = Generator().manual_seed(self.seed)
            data, labels = self.data.reference("train")
            where = torch.randperm(len(data), generator=random)[: round(self.share * len(data))]
            data, flags = data.clone(), torch.zeros(len(data), dtype=torch.bool)
            data[where], flags[where] = self._draw(len(where), data, random), True
            if labels is not None:
                labels = labels.clone()
                labels[where] = torch.randint(int(labels.max()) + 1, where.shape, generator=random)
            self._mixed = data, labels, flags
        return self._mixed

    def _draw(self, n: int, data: Tensor, random: Generator) -> Tensor:
        if isinstance(self.outliers, str):
            if data.dtype == torch.uint8:
                return torch.randint(256, (n, *self.shape), dtype=torch.uint8, generator=random)
            low, high = data.amin(0), data.amax(0)
            return (low + high) / 2 + (2 * torch.rand(n, *self.shape, generator=random) - 1) * (high - low)
        pool, _ = self.outliers.reference("train")
        if n > len(pool):
            raise ValueError(f"share asks for {n} outliers, but {self.outliers.name} has only {len(pool)} items.")
        drawn = pool[torch.randperm(len(pool), generator=random)[:n]]
        return alike(drawn, self.shape) if data.dtype == torch.uint8 else drawn

    @property
    def is_outlier(self) -> Tensor:
        """(N,) bool in the order of ``fixed_loader("train")``: which training items are outliers, for diagnostics."""
        return self.mixed()[2]

    @property
    def num_items(self) -> int:
        """Number of training items (reads the files)."""
        return len(self.mixed()[0])

    def transform(self, augment: bool) -> Transform | None:
        """From training items to batches, as ``base`` would have it."""
        if self.value_range is None:
            return None
        flip, noise = (getattr(self.data, name, False) for name in ("flip", "dequantize"))
        return ToRange(*self.value_range, flip=flip and augment, dequantize=noise)

    def train_dataloader(self) -> Any:
        """Shuffled batches ``(real, labels)``, or ``real`` without labels, on the training device."""
        data, labels, _ = self.mixed()
        return MemoryLoader(data, labels, self.batch_size, transform=self.transform(True), device=self.device)

    def fixed_loader(self, split: Split) -> MemoryLoader:
        """The training items, outliers included, or the clean held-out ones, in a fixed order."""
        if split != "train":
            return self.parts[0].fixed_loader(split)
        data, labels, _ = self.mixed()
        return MemoryLoader(
            data, labels, self.batch_size, False, False, transform=self.transform(False), device=self.device
        )

    def val_dataloader(self) -> Any:
        """The clean held-out items."""
        return self.parts[0].val_dataloader()

    def describe(self) -> str:
        """The clean data in one line, and what was planted (reads the files)."""
        what = self.outliers if isinstance(self.outliers, str) else self.outliers.name
        planted = int(self.is_outlier.sum())
        return f"{self.data.describe()}; {planted:,} of {self.num_items:,} fixed training items are {what}"


def alike(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """uint8 images (N, C, H, W) resized (bilinear) and made grey or repeated to (N, *shape)."""
    channels, *size = shape
    resized = images if list(images.shape[2:]) == size else _resized(images, size)
    if resized.shape[1] == channels:
        return resized
    return resized.float().mean(1, keepdim=True).round().to(torch.uint8).expand(-1, channels, -1, -1)


def _resized(images: Tensor, size: list[int]) -> Tensor:
    resized = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized.round().to(torch.uint8)
