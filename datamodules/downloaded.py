"""Base of the data sets that torchvision downloads and reads."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_gans.datamodules.base import ImageDataModule, Split
from lightning_gans.runs.atomic import replacing

_DAY = 24 * 60 * 60


def default_root() -> Path:
    """Where data sets are kept: $LIGHTNING_GANS_DATA, or ~/.cache/lightning_gans."""
    return Path(os.environ.get("LIGHTNING_GANS_DATA") or "~/.cache/lightning_gans").expanduser()


class DownloadedDataModule(ImageDataModule):
    """Images that torchvision downloads and reads, in its layout below ``root``.

    A subclass says which torchvision class it stands for (`dataset`) and which files that needs (`files`, `archives`),
    and finds what is wrong with a file (`fault`). A download goes to a temporary folder inside ``root`` and is moved
    into place when it is whole and right, so that a failed one leaves nothing behind.

    Args:
        batch_size: images per batch and process.
        root: folder of the data sets; default: $LIGHTNING_GANS_DATA, or ~/.cache/lightning_gans.
        download: fetch what is missing or damaged (in `prepare_data`); otherwise that is an error.
        flip: mirror each training image left to right with probability 1/2.
        dequantize: add uniform noise as wide as a grey level to the batches.
        value_range: of the batches, such as (-1, 1) for a generator that ends in tanh, (0, 1) for a sigmoid.
        items: use only the first so many training images (quick runs); None: all.
    """

    dataset: Any  # the torchvision class

    def __init__(
        self,
        batch_size: int = 64,
        root: str | None = None,
        download: bool = True,
        flip: bool = False,
        dequantize: bool = False,
        value_range: tuple[float, float] = (-1.0, 1.0),
        items: int | None = None,
    ) -> None:
        super().__init__(batch_size, flip, dequantize, value_range, items)
        self.root = default_root() if root is None else Path(root).expanduser()
        self.download = download
        self._sound = False  # the files were looked at and found right

    @property
    def files(self) -> list[str]:
        """Files that are read, relative to ``root``."""
        raise NotImplementedError

    @property
    def archives(self) -> list[str]:
        """Files that may lie below ``root`` and save a download, relative to it."""
        raise NotImplementedError

    def files_of(self, split: Split) -> list[str]:
        """Those of `files` that a split is read from."""
        return self.files

    def fault(self, path: Path) -> str | None:
        """What is wrong with one of `files`, which exists, as a phrase; None if nothing is."""
        raise NotImplementedError

    def first_fault(self, root: Path) -> str | None:
        """The first file below ``root`` that is missing or wrong, and how; None if all are right."""
        for path in (root / file for file in self.files):
            problem = self.fault(path) if path.is_file() else "is missing"
            if problem is not None:
                return f"{path} {problem}"
        return None

    def prepare_data(self) -> None:
        """Download what is missing or damaged, where that is allowed; for predicting nothing is needed.

        Raises:
            FileNotFoundError: something is missing or damaged, and ``download`` is False.
            ConnectionError: it could not be downloaded.
        """
        if self.trainer is not None and self.trainer.predicting:
            return
        problem = self.first_fault(self.root)
        if problem is None:
            self._sound = True
        elif self.download:
            self._fetch(problem)
        else:
            raise FileNotFoundError(f"{self.name}: {problem}; put it there, or set download=True to fetch it.")

    def _fetch(self, problem: str) -> None:
        archives = [self.root / name for name in self.archives if (self.root / name).is_file()]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for left in self.root.glob(".download-*"):  # by a process that was killed
                if time.time() - left.stat().st_mtime > _DAY:
                    shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".download-") as folder:
                here = Path(folder)
                for archive in archives:
                    copy = here / archive.relative_to(self.root)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(archive, copy)
                self.dataset(folder, download=True)
                if (fault := self.first_fault(here)) is not None:
                    raise OSError(f"in the download {fault}")
                for file in self.files:
                    with replacing(self.root / file) as temporary:
                        os.replace(here / file, temporary)
        except Exception as error:  # whatever went wrong in network, disk, archive or file: one sentence
            reason = " ".join(str(error).split())
            faults = [f"{path} {fault}" for path in archives if (fault := _archive_fault(path)) is not None]
            names, target = ", ".join(Path(file).name for file in self.files), self.root / Path(self.files[0]).parent
            raise ConnectionError(
                f"{self.name}: {', '.join([problem, *faults])}, and it could not be downloaded to {self.root} "
                f"({reason}): put {names} into {target}."
            ) from error
        self._sound = True

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Read a split through torchvision: uint8 images (N, C, H, W) and labels (N,) int64."""
        raise NotImplementedError

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Read a split: uint8 images (N, C, H, W) and labels (N,) int64.

        Raises:
            FileNotFoundError: a file is missing or damaged.
            ValueError: images and labels do not fit together.
        """
        if not self._sound and (problem := self.first_fault(self.root)) is not None:
            remedy = "prepare_data() downloads it" if self.download else "set download=True to fetch it"
            raise FileNotFoundError(f"{self.name}: {problem}; put it there, or {remedy}.")
        self._sound = True
        images, labels = self.read(split == "train")
        if len(images) != len(labels):
            named = " and ".join(str(self.root / file) for file in self.files_of(split))
            raise ValueError(f"{self.name}: {named} must fit together, got {len(images)} images, {len(labels)} labels.")
        return images, labels


def _archive_fault(path: Path) -> str | None:
    """What is wrong with a .gz file, as a phrase."""
    try:
        with gzip.open(path) as file:
            while file.read(2**20):
                pass
    except (OSError, EOFError, zlib.error):
        with path.open("rb") as file:
            page = file.read(200).lstrip()[:1] == b"<"
        return f"is {'a web page' if page else 'truncated or no archive'} ({path.stat().st_size:,} bytes)"
    return None
