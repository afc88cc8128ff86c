"""What every data module offers: shape, range and classes before a file is read, then batches and clean references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.compat.lightning import pl, utilities
from lightning_gans.datamodules.memory import MemoryLoader, Transform
from lightning_gans.functional import draw

Split = Literal["train", "test"]


class GANDataModule(pl.LightningDataModule):
    """Base of all data modules.

    Attributes known from the constructor alone:
        name: what to call the data set.
        shape: of one item, (C, H, W) or (d,).
        num_classes: number of labels; None when there are no labels.
        value_range: (low, high) of the batches, which images need unless it is (-1, 1); None when unbounded.

    >>> class Two(GANDataModule):
    ...     name, shape, value_range = "Two", (1,), (0.0, 1.0)
    ...     def train_dataloader(self):
    ...         return MemoryLoader(torch.tensor([[0.0], [1.0]]), None, self.batch_size, device=self.device)
    >>> [tuple(batch.shape) for batch in Two(batch_size=1).train_dataloader()]
    [(1, 1), (1, 1)]
    """

    name: str = ""
    shape: tuple[int, ...] = ()
    num_classes: int | None = None
    value_range: tuple[float, float] | None = None

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        checks.at_least_one(batch_size=batch_size)
        self.batch_size = batch_size
        self.save_hyperparameters(logger=False)

    @property
    def num_items(self) -> int:
        """Number of training items (reads the files)."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where batches are made: the trainer's device, or the CPU without a trainer."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def reference(self, split: Split = "train") -> tuple[Tensor, Tensor | None]:
        """All clean items of a split, on the CPU.

        Returns:
            uint8 images (N, C, H, W), or float items (N, d) of a toy; and their labels (N,) int64, or None.
        """
        raise NotImplementedError

    def __str__(self) -> str:
        """What is known without a file; Lightning's own goes through the loaders."""
        return f"{type(self).__name__} of shape {tuple(self.shape)}, batches of {self.batch_size}"

    def describe(self) -> str:
        """The data set in one line (reads the files)."""
        raise NotImplementedError

    def fixed_loader(self, split: Split) -> MemoryLoader:
        """A split in a fixed order, unaugmented: always the same batches; takes nothing from the global RNG."""
        raise NotImplementedError

    def val_dataloader(self) -> Any:
        """The held-out items in a fixed order, for the discriminator's held-out accuracy."""
        return self.fixed_loader("test")

    def test_dataloader(self) -> Any:
        """The same as `val_dataloader`."""
        return self.val_dataloader()


@dataclass(frozen=True)
class ToRange:
    """From uint8 to floats in [low, high], with what is drawn anew for every batch, on the device of the images.

    Without noise x / 255 is stretched over [low, high]; with ``dequantize`` it is (x + u) / 256, u ~ U[0, 1) per value,
    which for (-1, 1) reads 2x / 256 - 1 + U[0, 1/128). ``flip`` mirrors each image left to right with probability 1/2.

    >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    >>> [round(value, 3) for value in ToRange(-1.0, 1.0)(images, Generator()).flatten().tolist()]
    [-1.0, 1.0]
    """

    low: float
    high: float
    flip: bool = False
    dequantize: bool = False

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """(N, C, H, W) uint8 to float32."""
        if self.flip:
            coin = draw.uniform(len(images), generator=generator, device=images.device) < 0.5
            row = torch.arange(len(images), device=images.device) + len(images) * coin
            images = torch.cat([images, images.flip(-1)]).index_select(0, row)  # whole rows: far faster than `where`
        real = images.float()
        if self.dequantize:
            real += draw.uniform(len(real), *real.shape[1:], generator=generator, device=real.device)
        return real.mul_((self.high - self.low) / (256 if self.dequantize else 255)).add_(self.low)


class ImageDataModule(GANDataModule):
    """Images kept in memory as uint8, on the training device, where flips and noise happen too.

    A subclass says `name`, `shape`, `num_classes` and reads its images in `load`. If it has names of classes, in the
    order of their numbers (`classes`), checkpoints keep them, and a run does not go on where they have other numbers.

    Args:
        batch_size: images per batch and process.
        flip: mirror each training image left to right with probability 1/2.
        dequantize: add uniform noise as wide as a grey level to the batches (see `ToRange`).
        value_range: of the batches, such as (-1, 1) for a generator that ends in tanh, (0, 1) for a sigmoid.
        items: use only the first so many training images (quick runs), of all classes if these lie one behind the
            other; None: all.

    >>> class White(ImageDataModule):
    ...     name, shape = "White", (1, 8, 8)
    ...     def load(self, split):
    ...         return torch.full((100, 1, 8, 8), 255, dtype=torch.uint8), None
    >>> batch = next(iter(White(batch_size=10).train_dataloader()))
    >>> batch.shape, round(float(batch.min()), 3)
    (torch.Size([10, 1, 8, 8]), 1.0)
    """

    classes: Sequence[Any] = ()

    def __init__(
        self,
        batch_size: int = 64,
        flip: bool = False,
        dequantize: bool = False,
        value_range: tuple[float, float] = (-1.0, 1.0),
        items: int | None = None,
    ) -> None:
        super().__init__(batch_size)
        checks.at_least_one(**checks.given(items=items))
        self.value_range = checks.interval("value_range", value_range)
        self.flip, self.dequantize, self.items = flip, dequantize, items
        self._splits: dict[str, tuple[Tensor, Tensor | None]] = {}

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Read a split: uint8 images (N, C, H, W) and labels (N,) int64, or None."""
        raise NotImplementedError

    def stored(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """What is kept in memory of a split, read at the first call."""
        checks.one_of("split", split, ("train", "test"))
        if split not in self._splits:
            data, labels = self.load(split)
            if split == "train" and self.items is not None:
                if self.items > len(data):
                    raise ValueError(f"items is {self.items}, but {self.name} has only {len(data)} training items.")
                rows = first_rows(labels, self.items)
                data, labels = data[rows], None if labels is None else labels[rows]
            self._splits[split] = data, labels
        return self._splits[split]

    @property
    def num_items(self) -> int:
        """Number of training images (reads the files)."""
        return len(self.stored("train")[0])

    def reference(self, split: Split = "train") -> tuple[Tensor, Tensor | None]:
        """All images of a split as uint8 (N, C, H, W), on the CPU, and their labels (N,) int64, or None."""
        return self.stored(split)

    def state_dict(self) -> dict[str, Any]:
        """Names of the classes, for the checkpoint."""
        return {"classes": [str(name) for name in self.classes]} if len(self.classes) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the names of the classes: labels must mean what they did; predicting reads none.

        Raises:
            ValueError: a class has another number.
        """
        was, now = state_dict.get("classes", []), [str(name) for name in self.classes]
        model: Any = getattr(self.trainer, "lightning_module", None)
        if was == now or (self.trainer is not None and self.trainer.state.fn == "predict"):
            return
        if model is not None and getattr(model, "num_classes", None) is None:  # to whom labels mean nothing
            return
        numbers = {name: i for i, name in enumerate(was)}
        for i, name in enumerate(now):
            if numbers.get(name, i) != i:
                raise ValueError(
                    f"classes of {self.name} must have the numbers that they have in the checkpoint, got {i} for "
                    f"{name!r}, which was {numbers[name]}: have the {len(was)} classes as they were."
                )
        told = [("new", set(now) - set(was)), ("gone", set(was) - set(now))]
        names = "; ".join(f"{what}: {', '.join(sorted(some))}" for what, some in told if some)
        utilities.rank_zero_warn(f"The run goes on with other classes of {self.name}, {names}.")

    def setup(self, stage: str) -> None:
        """Read the training images, so that a bad file is reported before anything starts; predicting needs none."""
        if stage != "predict":
            self.stored("train")

    def transform(self, split: Split, augment: bool) -> Transform:
        """From stored rows of a split to batches; without ``augment`` there are no flips, but the same noise."""
        assert self.value_range is not None
        return ToRange(*self.value_range, flip=self.flip and augment, dequantize=self.dequantize)

    def train_dataloader(self) -> Any:
        """Shuffled batches ``(real, labels)``, or ``real`` without labels, on the training device."""
        data, labels = self.stored("train")
        transform = self.transform("train", augment=True)
        return MemoryLoader(data, labels, self.batch_size, transform=transform, device=self.device)

    def fixed_loader(self, split: Split) -> MemoryLoader:
        """A split in a fixed order, not flipped: always the same batches; takes nothing from the global RNG."""
        data, labels = self.stored(split)
        transform = self.transform(split, augment=False)
        return MemoryLoader(
            data, labels, self.batch_size, shuffle=False, drop_last=False, transform=transform, device=self.device
        )

    def describe(self) -> str:
        """Number of training images, shape, range, classes and augmentation in one line (reads the files)."""
        assert self.value_range is not None
        classes = "no labels" if self.num_classes is None else f"{self.num_classes} classes"
        extras = [text for on, text in ((self.flip, "random flips"), (self.dequantize, "dequantisation noise")) if on]
        low, high = self.value_range
        parts = [f"{self.num_items:,} training images", "x".join(map(str, self.shape)), f"in [{low:g}, {high:g}]"]
        return f"{self.name}: {', '.join([*parts, classes, *extras])}"


def first_rows(labels: Tensor | None, n: int) -> Tensor | slice:
    """Of which rows to take n: the first; of classes that lie one behind the other, the first of each, by its share.

    >>> first_rows(torch.tensor([0] * 6 + [1] * 3), 3).tolist()
    [0, 1, 6]
    """
    if labels is None or int((labels.diff() != 0).sum()) >= len(labels.unique()):  # they are mixed
        return slice(n)
    _, counts = labels.unique_consecutive(return_counts=True)
    place = torch.cat([torch.arange(int(count)) / count for count in counts])  # 0 of the first of each class
    return place.argsort(stable=True)[:n].sort().values
