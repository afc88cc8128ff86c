"""MNIST, Fashion-MNIST and Stacked MNIST."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from lightning_gans.datamodules.base import Split
from lightning_gans.datamodules.downloaded import DownloadedDataModule
from lightning_gans.datamodules.memory import Transform


class MNIST(DownloadedDataModule):
    """Handwritten digits: 60,000 training and 10,000 test images of 28x28, 10 classes.

    Arguments: see `DownloadedDataModule`. The files are the four of ``torchvision.datasets.MNIST``, in
    ``root/MNIST/raw``.

    >>> data = MNIST(batch_size=128, value_range=(0, 1))  # downloads when a training starts
    >>> data.shape, data.num_classes, data.value_range
    ((1, 28, 28), 10, (0.0, 1.0))
    """

    name = "MNIST"
    shape = (1, 28, 28)
    num_classes: int | None = 10
    dataset = datasets.MNIST

    @property
    def archives(self) -> list[str]:
        """The compressed files, as torchvision fetches them."""
        return [f"{self.dataset.__name__}/raw/{name}" for name, _ in self.dataset.resources]

    @property
    def files(self) -> list[str]:
        """Images and labels of both splits, unpacked."""
        return [archive.removesuffix(".gz") for archive in self.archives]

    def files_of(self, split: Split) -> list[str]:
        """Its images and its labels."""
        return self.files[:2] if split == "train" else self.files[2:]

    def fault(self, path: Path) -> str | None:
        """Compare an idx file with its own header: magic number, image size, length."""
        labels = "labels" in path.name
        shape = () if labels else (28, 28)
        length = 8 + 4 * len(shape)
        with path.open("rb") as file:
            header = file.read(length)
        expected = (2049 if labels else 2051, *shape)
        found = struct.unpack(f">{length // 4}I", header) if len(header) == length else ()
        if (*found[:1], *found[2:]) != expected:
            what = "labels" if labels else "images of 28x28 pixels"
            return f"is not an idx file of {what}"
        size, right = path.stat().st_size, length + found[1] * math.prod(shape)
        return None if size == right else f"has {size:,} bytes where its header promises {right:,}"

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Read a split: uint8 images (N, 1, 28, 28) and labels (N,) int64."""
        data = self.dataset(self.root, train=train)
        return data.data[:, None], data.targets


class FashionMNIST(MNIST):
    """Articles of clothing: 60,000 training and 10,000 test images of 28x28, 10 classes.

    Arguments: see `DownloadedDataModule`. The files are the four of ``torchvision.datasets.FashionMNIST``, in
    ``root/FashionMNIST/raw``.

    >>> data = FashionMNIST(items=10_000)  # of the training images the first
    >>> data.name, data.shape, data.num_classes
    ('FashionMNIST', (1, 28, 28), 10)
    """

    name = "FashionMNIST"
    dataset = datasets.FashionMNIST


class StackedMNIST(MNIST):
    """Three random MNIST digits as the channels of one 28x28 image: 1000 modes, the three-digit numbers.

    Drawn with replacement and always the same: 60,000 stacks of training digits and 10,000 of test digits. Only the
    indices are kept; batches are stacked on the training device. The label of digits (a, b, c) is 100a + 10b + c.

    Arguments: see `DownloadedDataModule`. The files are those of `MNIST`.

    >>> data = StackedMNIST()
    >>> data.shape, data.num_classes
    ((3, 28, 28), 1000)
    """

    name = "StackedMNIST"
    shape = (3, 28, 28)
    num_classes = 1000
    num_modes = 1000
    num_stacks: Mapping[str, int] = MappingProxyType({"train": 60_000, "test": 10_000})

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Indices (N, 3) of the digits of each stack, and labels (N,)."""
        digits, labels = super().load(split)
        random = np.random.RandomState(split == "test")  # a stream that numpy promises never to change
        triples = torch.from_numpy(random.randint(len(digits), size=(self.num_stacks[split], 3)))
        self._digits = {**getattr(self, "_digits", {}), split: digits}
        return triples, (labels[triples] * torch.tensor([100, 10, 1])).sum(1)

    def digits(self, split: Split = "train") -> tuple[Tensor, Tensor]:
        """What is stacked: the images (N, 1, 28, 28) of `MNIST` and their labels (N,)."""
        return super().load(split)

    def reference(self, split: Split = "train") -> tuple[Tensor, Tensor | None]:
        """All stacks as uint8 (N, 3, 28, 28), made anew at each call, and their labels (N,)."""
        triples, labels = self.stored(split)
        return stack(self._digits[split], triples), labels

    def transform(self, split: Split, augment: bool) -> Transform:
        """From indices to batches."""
        self.stored(split)
        digits, to_range = self._digits[split].to(self.device), super().transform(split, augment)
        return lambda triples, generator: to_range(stack(digits, triples), generator)


def stack(digits: Tensor, triples: Tensor) -> Tensor:
    """Digits (M, 1, H, W) picked by (N, 3) indices, as the channels of (N, 3, H, W).

    >>> stack(torch.arange(3).view(3, 1, 1, 1), torch.tensor([[2, 0, 1]])).flatten().tolist()
    [2, 0, 1]
    """
    return digits.index_select(0, triples.flatten()).view(len(triples), -1, *digits.shape[2:])
