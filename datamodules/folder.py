"""Anyone's own images: a folder or a zip file of any sizes and modes."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lightning_gans import checks
from lightning_gans.compat.lightning import utilities
from lightning_gans.datamodules.base import ImageDataModule, Split
from lightning_gans.datamodules.pictures import (
    CHANNELS,
    Decoded,
    Decoder,
    Fit,
    Scale,
    common_scale,
    list_files,
    reading,
    told,
)
from lightning_gans.functional import rank_and_world

_SPLITS: dict[str, Split] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("val", "valid", "validation"), "test")
_STORAGE = re.compile(r"(.*/)?\d{5}/(img)?\d{5,8}\.\w+")  # thousands of files, as StyleGAN and FFHQ lay them down


class Images(ImageDataModule):
    """The images of a folder (and of its subfolders) or of a .zip file, brought to one size and mode.

    If all images lie in subfolders, and in more than one, these are the classes, in alphabetical order; where there is
    StyleGAN's ``dataset.json``, the labels are those that it tells. Subfolders train and test (or val) are these
    splits; else some images, always the same, are held out as the test split. Every page of a TIFF is an image. What
    was converted, scaled or left out is said in one line (`report`).

    Args:
        path: folder or .zip file.
        size: of the images in pixels: one number, or (height, width).
        fit: how another shape is made to fit: "crop" (the centre), "stretch", or "pad" (with black).
        mode: "RGB" or "L" (grey), where transparent parts become white; "RGBA" or "LA", which keep the transparency.
        test_share: share of the images that is held out, in [0, 1), if there are no subfolders train and test.
        batch_size: images per batch and process.
        flip: mirror each training image left to right with probability 1/2.
        dequantize: add uniform noise as wide as a grey level to the batches.
        value_range: of the batches, such as (-1, 1) for a generator that ends in tanh, (0, 1) for a sigmoid.
        items: use only the first so many training images (quick runs); None: all.
        scale: the numbers that become black and white in files of more than 8 bits; None takes 0, or what is less, and
            the largest number of as many bits as the largest of all files has (of floats 1, 255 or the largest).
        damaged: "skip" files that cannot be read, or "stop".

    Raises:
        FileNotFoundError: no such path.
        ValueError: not a folder or zip file, no images in it, or none that can be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (48, 32)).save(Path(folder) / "a.png")
    ...     data = Images(folder, size=16, test_share=0.0)
    ...     images, labels = data.reference()
    >>> data.shape, data.num_classes, images.shape
    ((3, 16, 16), None, torch.Size([1, 3, 16, 16]))
    """

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int] = 64,
        fit: Fit = "crop",
        mode: Literal["L", "LA", "RGB", "RGBA"] = "RGB",
        test_share: float = 0.1,
        batch_size: int = 64,
        flip: bool = False,
        dequantize: bool = False,
        value_range: tuple[float, float] = (-1.0, 1.0),
        items: int | None = None,
        scale: tuple[float, float] | None = None,
        damaged: Literal["skip", "stop"] = "skip",
    ) -> None:
        super().__init__(batch_size, flip, dequantize, value_range, items)
        self.size = image_size(size)
        checks.one_of("fit", fit, get_args(Fit))
        checks.one_of("mode", mode, CHANNELS)
        checks.one_of("damaged", damaged, ("skip", "stop"))
        if not 0 <= test_share < 1:
            raise ValueError(f"test_share must be in [0, 1), got {test_share}.")
        if scale is not None:
            checks.interval("scale", scale)
        self.path = Path(path).expanduser()
        self.fit, self.mode, self.test_share, self.given_scale, self.damaged = fit, mode, test_share, scale, damaged
        self.name = self.path.stem
        self.shape = (CHANNELS[mode], *self.size)
        self.files, self.others = list_files(self.path)
        self.folders = split_folders(self.files)
        if self.folders:
            used = [file for file in self.files if any(_in(file, folder) for folder in self.folders.values())]
            self.files, self.others = used, [*self.others, *sorted(set(self.files) - set(used))]
        self.index = next((name for name in self.others if PurePosixPath(name).name == "dataset.json"), None)
        self.labels, self.classes = self._labels()
        self.num_classes = len(self.classes) or None
        self.report = ""

    def split_files(self, split: Split) -> list[str]:
        """The files of a split, in alphabetical order: those of its subfolder, or a random ``test_share`` held out."""
        if self.folders:
            return [file for file in self.files if _in(file, self.folders[split])]
        held_out = round(self.test_share * len(self.files))
        if self.test_share > 0 and len(self.files) > 1:
            held_out = min(max(held_out, 1), len(self.files) - 1)
        order = np.random.RandomState(0).permutation(len(self.files))  # numpy promises never to change this stream
        return [self.files[i] for i in sorted(order[:held_out] if split == "test" else order[held_out:])]

    @cached_property
    def scale(self) -> Scale:
        """Of the files of more than 8 bits: as told, or found in all files."""
        if self.given_scale is not None:
            low, high = self.given_scale
            return {"integer": (low, high), "float": (low, high)}
        with reading(self.path) as read:
            return common_scale(read, self.files)

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Read a split: uint8 images (N, C, H, W), and labels (N,) int64, or None."""
        files, decoder = self.split_files(split), Decoder(self.mode, self.scale, self.size, self.fit)
        with reading(self.path) as read, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            results = pool.map(partial(self._decoded, decoder, read), files)
            silent = rank_and_world()[0] > 0
            done = list(tqdm(results, f"reading {self.name}", len(files), leave=False, unit="image", disable=silent))
        failed = [(file, file_.error) for file, file_ in zip(files, done) if file_.error]
        if len(failed) == len(files) > 0:
            raise ValueError(f"{self.path}: none of its {len(files)} image files can be read ({': '.join(failed[0])}).")
        self.report = self._report(split, done, [file for file, _ in failed])
        utilities.rank_zero_info(self.report)
        pixels = [page.pixels for one in done for page in one.pages]
        images = torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0, *self.shape, dtype=torch.uint8)
        if not self.classes:
            return images, None
        labels = [self.labels[file] for file, one in zip(files, done) for _ in one.pages]
        return images, torch.tensor(labels, dtype=torch.int64)

    def _decoded(self, decoder: Decoder, read: Any, file: str) -> Decoded:
        try:
            return decoder(read(file))
        except Exception as error:  # decoders fail in many ways; to us each means: not readable
            if self.damaged == "stop":
                raise ValueError(f"{self.path}: {file} cannot be read ({told(error)}).") from error
            return Decoded(error=told(error))

    def val_dataloader(self) -> Any:
        """The held-out images in a fixed order; no loader at all if none are held out."""
        return self.fixed_loader("test") if self.split_files("test") else []

    def _labels(self) -> tuple[dict[str, int], list[str]]:
        """The class of each file, and the names of the classes; nothing if there are none."""
        if self.index is not None:
            with reading(self.path) as read:
                return listed_labels(read(self.index), self.index, self.files)
        if all(_STORAGE.fullmatch(file) for file in self.files):
            return {}, []
        inner = {file: PurePosixPath(file) for file in self.files}
        for folder in self.folders.values():
            inner |= {file: path.relative_to(folder) for file, path in inner.items() if _in(file, folder)}
        parent = common_parent(inner.values())
        below = {file: path.relative_to(parent).parts for file, path in inner.items()}
        if any(len(parts) < 2 for parts in below.values()):
            return {}, []
        classes = sorted({parts[0] for parts in below.values()})
        return {file: classes.index(parts[0]) for file, parts in below.items()}, classes

    def _report(self, split: Split, done: Sequence[Decoded], failed: list[str]) -> str:
        pages = [page for one in done for page in one.pages]
        parts = [f"{self.name}: read {len(pages):,} {split} images"]
        if len(pages) != (read := len(done) - len(failed)):
            parts.append(f"the pages of {read:,} files")
        if self.folders:
            parts.append(f"from {self.folders[split]}")
        if self.classes:
            parts.append(f"{len(self.classes)} classes from {'subfolders' if self.index is None else 'dataset.json'}")
        if resized := sum(page.resized for page in pages):
            parts.append(f"{resized:,} resized to {self.size[1]}x{self.size[0]} ({self.fit})")
        if recoloured := sum(page.recoloured for page in pages):
            parts.append(f"{recoloured:,} converted to {self.mode}")
        for kind, (low, high) in self.scale.items():
            given = " as told" if self.given_scale is not None else ""
            parts.append(f"{kind}s in the range {low:g} to {high:g}{given}")
        for remark, number in Counter(one.remark for one in done if one.remark).items():
            parts.append(f"{number:,} with the {remark}")
        if failed:
            parts.append(f"{len(failed):,} unreadable skipped ({', '.join(failed[:3])}{', ...' if failed[3:] else ''})")
        others = Counter(PurePosixPath(name).suffix or "no ending" for name in self.others if name != self.index)
        if others:
            kinds = ", ".join(kind for kind, _ in others.most_common(3))
            parts.append(f"{others.total():,} other files left out ({kinds}{', ...' if len(others) > 3 else ''})")
        return ", ".join(parts)


def image_size(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of one number or two, each >= 1.

    >>> image_size(32), image_size((24, 32))
    ((32, 32), (24, 32))
    """
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or min(both) < 1:
        raise ValueError(f"size must be at least 1 pixel, or (height, width), got {size}.")
    return both[0], both[1]


def common_parent(paths: Iterable[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all files."""
    return PurePosixPath(os.path.commonpath([path.parent.as_posix() for path in paths]).replace("\\", "/"))


def _in(file: str, folder: PurePosixPath) -> bool:
    return PurePosixPath(file).is_relative_to(folder)


def split_folders(files: Sequence[str]) -> dict[Split, PurePosixPath]:
    """The folders train and test, or val, if all files lie in such; else nothing. Val is left out if there is test."""
    parent = common_parent(PurePosixPath(file) for file in files)
    names = {PurePosixPath(file).relative_to(parent).parts[0] for file in files}
    if not names <= {name for name in names if name.lower() in _SPLITS}:
        return {}
    ordered = sorted(names, key=lambda name: list(_SPLITS).index(name.lower()))
    found: dict[Split, PurePosixPath] = {}
    for name in ordered:
        found.setdefault(_SPLITS[name.lower()], parent / name)
    return found if len(found) == 2 else {}


def listed_labels(content: bytes, name: str, files: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Labels and classes as StyleGAN's ``dataset.json`` tells them: ``{"labels": [[file, class], ...]}``, or null."""
    try:
        pairs = json.loads(content)["labels"]
        labels = {(PurePosixPath(name).parent / file).as_posix(): label for file, label in pairs or ()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} must hold {{'labels': [[file, class], ...]}}, or null there.") from error
    if not labels:
        return {}, []
    for file in files:
        if not isinstance(label := labels.get(file), int) or label < 0:
            raise ValueError(f"{name} must tell a class >= 0 for {file}, got {label!r}.")
    return {file: labels[file] for file in files}, [str(i) for i in range(max(labels.values()) + 1)]
