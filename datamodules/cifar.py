"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from lightning_gans.datamodules.downloaded import DownloadedDataModule


class CIFAR10(DownloadedDataModule):
    """Small photographs: 50,000 training and 10,000 test images of 3x32x32, 10 classes.

    Arguments: see `DownloadedDataModule`. The files are those of ``torchvision.datasets.CIFAR10``, in
    ``root/cifar-10-batches-py``; ``root/cifar-10-python.tar.gz`` saves the download.

    >>> data = CIFAR10(batch_size=128, flip=True)  # downloads when a training starts
    >>> data.shape, data.num_classes, data.value_range
    ((3, 32, 32), 10, (-1.0, 1.0))
    """

    name = "CIFAR10"
    shape = (3, 32, 32)
    num_classes = 10
    dataset = datasets.CIFAR10

    @property
    def checksums(self) -> dict[str, str]:
        """md5 of each file, by its name, as torchvision knows them."""
        listed = [*self.dataset.train_list, *self.dataset.test_list]
        return {**{name: md5 for name, md5 in listed}, self.dataset.meta["filename"]: self.dataset.meta["md5"]}

    @property
    def archives(self) -> list[str]:
        """The archive, as torchvision fetches it."""
        return [self.dataset.filename]

    @property
    def files(self) -> list[str]:
        """The unpacked batches and the names of the classes."""
        return [f"{self.dataset.base_folder}/{name}" for name in self.checksums]

    def fault(self, path: Path) -> str | None:
        """Compare the md5 sum."""
        return (
            None if check_integrity(path, self.checksums[path.name]) else "is truncated or wrong (its md5 sum differs)"
        )

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Read a split: uint8 images (N, 3, 32, 32) and labels (N,) int64."""
        data = self.dataset(self.root, train=train)
        return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


class CIFAR100(CIFAR10):
    """Small photographs: 50,000 training and 10,000 test images of 3x32x32, 100 (fine) classes.

    Arguments: see `DownloadedDataModule`. The files are those of ``torchvision.datasets.CIFAR100``, in
    ``root/cifar-100-python``; ``root/cifar-100-python.tar.gz`` saves the download.

    >>> data = CIFAR100(download=False)
    >>> data.shape, data.num_classes
    ((3, 32, 32), 100)
    """

    name = "CIFAR100"
    num_classes = 100
    dataset = datasets.CIFAR100
