"""Anyone's own images: a folder or a zip file of any sizes and modes."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    Page,
    Scale,
    common_scale,
    folders_in,
    list_files,
    reading,
    told,
)
from lightning_gans.functional import rank_and_world

_SPLITS: dict[str, Split] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("val", "valid", "validation", "eval"), "test")
_HERE = PurePosixPath()
_STORAGE = re.compile(r"(.*/)?\d{5}/(img)?\d{5,8}\.\w+")  # thousands of files, as StyleGAN and FFHQ lay them down


class Images(ImageDataModule):
    """The images of a folder (and of its subfolders) or of a .zip file, brought to one size and mode.

    If most images lie in subfolders, and in more than one, these are the classes, in alphabetical order; where there is
    StyleGAN's ``dataset.json``, the labels are those that it tells. Subfolders train and test (or val) are these
    splits; else some images, always the same, are held out as the test split. Images beside the splits, or beside the
    classes, are left out. Every page of a TIFF is an image. What was converted or scaled is said in one line (`report`,
    `describe`), and what was skipped or left out in a warning too.

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
        items: use only so many training images (quick runs), the first of each class; None: all.
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
        checks.below_one(test_share=test_share)
        if scale is not None:
            checks.interval("scale", scale)
        self.path = Path(path).expanduser()
        self.fit, self.mode, self.test_share, self.given_scale, self.damaged = fit, mode, test_share, scale, damaged
        place = Path(os.path.abspath(self.path))  # the current folder has a name too
        self.name = place.name if place.is_dir() else place.stem
        self.shape = (CHANNELS[mode], *self.size)
        self.files, self.others = list_files(self.path)
        self.left_out: list[str] = []  # which images are, by why, and what else has no images
        self.folders = split_folders(self.files)
        if self.folders:
            outside = [file for file in self.files if not any(_in(file, folder) for folder in self.folders.values())]
            above = common_parent(map(PurePosixPath, self.files))
            names = sorted({PurePosixPath(file).relative_to(above).parts[0] for file in outside})
            self._leave_out(outside, f"beside {' and '.join(map(str, self.folders.values()))}", names)
        self.index = next((name for name in self.others if PurePosixPath(name).name == "dataset.json"), None)
        self.labels, self.classes = self._labels()
        self.num_classes = len(self.classes) or None
        self.report = ""
        self._done: dict[str, list[str]] = {}  # what was converted, by split

    def _leave_out(self, images: Sequence[str], why: str, names: Sequence[str]) -> None:
        if images:
            self.files = sorted(set(self.files) - set(images))
            self.left_out.append(f"{len(images):,} images {why} left out ({some(names)})")

    def split_files(self, split: Split) -> list[str]:
        """The files of a split, in alphabetical order: those of its subfolder, or a random ``test_share`` held out."""
        if self.folders:
            return [file for file in self.files if _in(file, self.folders[split])]
        return [self.files[i] for i in split_rows(len(self.files), self.test_share)[split]]

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
        labels = [self.labels[file] for file, one in zip(files, done) for _ in one.pages] if self.classes else []
        lost = skipped(failed)
        if split == "train":
            lost += self.left_out
            if absent := sorted(set(range(len(self.classes))) - set(labels)):
                lost.append(f"no training images of the class {some([self.classes[i] for i in absent])}")
        self._done[split] = self._converted(done)
        self.report = ", ".join([*self._read(split, done), *self._done[split], *lost, *self._others()])
        utilities.rank_zero_info(self.report)
        if lost:
            utilities.rank_zero_warn(f"{self.name}, {split}: {', '.join(lost)}.")
        pixels = [page.pixels for one in done for page in one.pages]
        images = torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0, *self.shape, dtype=torch.uint8)
        return images, torch.tensor(labels, dtype=torch.int64) if self.classes else None

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

    def describe(self) -> str:
        """Number of training images, shape, range, classes, augmentation and what was converted, in one line."""
        return ", ".join([super().describe(), *self._done.get("train", ())])

    def _labels(self) -> tuple[dict[str, int], list[str]]:
        """The class of each file, and the names of the classes; nothing if there are none."""
        if self.index is not None:
            with reading(self.path) as read:
                listed = listed_labels(read(self.index), self.index, self.files)
            if listed is not None:
                return listed
            self.left_out.append(f"{self.index} left out, which is not StyleGAN's ({{'labels': [[file, class], ...]}})")
            self.index = None
        if 2 * sum(_STORAGE.fullmatch(file) is not None for file in self.files) > len(self.files):
            return {}, []
        inner = {file: PurePosixPath(file) for file in self.files}
        for folder in self.folders.values():
            inner |= {file: path.relative_to(folder) for file, path in inner.items() if _in(file, folder)}
        parent, found = class_folders(inner)
        if not found:
            return {}, []
        for folder in self.folders.values():
            if not any(_in(file, folder) for file in found):
                raise ValueError(
                    f"path {self.path} must have classes in {' and in '.join(map(str, self.folders.values()))}, or in "
                    f"none of them, got no subfolders in {folder}: give {self.path / self.folders['train']} alone, of "
                    "which some images are held out."
                )
        beside = [file for file in self.files if file not in found]
        self._leave_out(beside, "beside the class folders", beside)
        classes = sorted(set(found.values()))
        there = set().union(*(folders_in(self.path, folder / parent) for folder in self.folders.values() or (_HERE,)))
        if empty := sorted(there - set(classes)):
            self.left_out.append(f"no images in the folder {some(empty)}")
        return {file: classes.index(name) for file, name in found.items()}, classes

    def _read(self, split: Split, done: Sequence[Decoded]) -> Iterator[str]:
        pages, read = sum(len(one.pages) for one in done), sum(not one.error for one in done)
        yield f"{self.name}: read {pages:,} {split} images"
        if pages != read:
            yield f"the pages of {read:,} files"
        if self.folders:
            yield f"from {self.folders[split]}"
        if self.classes:
            yield f"{len(self.classes)} classes from {'subfolders' if self.index is None else 'dataset.json'}"

    def _converted(self, done: Sequence[Decoded]) -> list[str]:
        pages = [page for one in done for page in one.pages]
        parts = converted(pages, self.mode, self.size, self.fit, self.scale, self.given_scale is not None)
        remarks = Counter(one.remark for one in done if one.remark)
        return [*parts, *(f"{number:,} with the {remark}" for remark, number in remarks.items())]

    def _others(self) -> Iterator[str]:
        others = Counter(PurePosixPath(name).suffix or "no ending" for name in self.others if name != self.index)
        if others:
            yield f"{others.total():,} other files left out ({some([kind for kind, _ in others.most_common()])})"


def some(names: Sequence[str]) -> str:
    """The first three, and whether there are more."""
    return ", ".join([*names[:3], *(["..."] if names[3:] else [])])


def skipped(failed: Sequence[tuple[str, str]]) -> list[str]:
    """That some files are, given with their reasons, of which the first is told."""
    names = [": ".join(one) if i == 0 else one[0] for i, one in enumerate(failed)]
    return [f"{len(failed):,} unreadable skipped ({some(names)})"] if failed else []


def converted(
    pages: Sequence[Page], mode: str, size: tuple[int, int], fit: Fit, scale: Scale, as_told: bool = False
) -> list[str]:
    """What was done to pictures, in a few words each."""
    parts = []
    if resized := sum(page.resized for page in pages):
        parts.append(f"{resized:,} resized to {size[1]}x{size[0]} ({fit})")
    if recoloured := sum(page.recoloured for page in pages):
        parts.append(f"{recoloured:,} converted to {mode}")
    told = " as told" if as_told else ""
    return [*parts, *(f"{kind}s in the range {low:g} to {high:g}{told}" for kind, (low, high) in scale.items())]


def image_size(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of one number or two, each >= 1.

    >>> image_size(32), image_size((24, 32))
    ((32, 32), (24, 32))
    """
    checks.sizes(size=size)
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2:
        raise ValueError(f"size must be one number of pixels, or (height, width), got {size}.")
    return both[0], both[1]


def split_rows(n: int, test_share: float) -> dict[Split, np.ndarray]:
    """Rows of each split: a random share is held out, always the same; one at least if there are two."""
    held_out = min(max(round(test_share * n), test_share > 0), max(n - 1, 0))
    order = np.random.RandomState(0).permutation(n)  # numpy promises never to change this stream
    return {"train": np.sort(order[held_out:]), "test": np.sort(order[:held_out])}


def common_parent(paths: Iterable[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds all files."""
    return PurePosixPath(os.path.commonpath([path.parent.as_posix() for path in paths]).replace("\\", "/"))


def _in(file: str, folder: PurePosixPath) -> bool:
    return PurePosixPath(file).is_relative_to(folder)


def split_folders(files: Sequence[str]) -> dict[Split, PurePosixPath]:
    """The folders train and test, or val, side by side; else nothing. Val is left out if there is test.

    They lie where all images do, or deeper if at least half of all images lie there.

    Raises:
        ValueError: there are several such pairs.
    """
    paths = [PurePosixPath(file) for file in files]
    folders = {folder for parent in {path.parent for path in paths} for folder in (parent, *parent.parents)}
    pairs: dict[PurePosixPath, dict[Split, PurePosixPath]] = {}
    order = {name: i for i, name in enumerate(_SPLITS)}
    splits = [folder for folder in folders if folder.name.lower() in _SPLITS]
    for folder in sorted(splits, key=lambda folder: (order[folder.name.lower()], folder)):
        pairs.setdefault(folder.parent, {}).setdefault(_SPLITS[folder.name.lower()], folder)
    pairs = {parent: pair for parent, pair in pairs.items() if len(pair) == 2}
    outer = sorted(parent for parent in pairs if not pairs.keys() & set(parent.parents))
    inside = sum(any(parent in path.parents for parent in outer) for path in paths)
    if not outer or (outer != [common_parent(paths)] and 2 * inside < len(files)):
        return {}
    if len(outer) > 1:
        raise ValueError(
            f"path must hold folders train and test once, got them in {some([str(parent) for parent in outer])}: give "
            "the path of one, or have train and test above all else."
        )
    return pairs[outer[0]]


def class_folders(paths: Mapping[str, PurePosixPath]) -> tuple[PurePosixPath, dict[str, str]]:
    """The folder that holds the class folders, and the class of each file in them; none if most files lie beside."""
    parent = common_parent(paths.values())
    below = {file: path.relative_to(parent).parts for file, path in paths.items()}
    inner = {file: path for file, path in paths.items() if len(below[file]) > 1}
    if len(inner) == len(paths):
        return parent, {file: parts[0] for file, parts in below.items()}
    return class_folders(inner) if 2 * len(inner) > len(paths) else (parent, {})


def listed_labels(content: bytes, name: str, files: Sequence[str]) -> tuple[dict[str, int], list[str]] | None:
    """Labels and classes as StyleGAN's ``dataset.json`` tells them: ``{"labels": [[file, class], ...]}``, or null.

    None for a file of another form, which happens to have this name.
    """
    try:
        pairs = json.loads(content)["labels"] or []
        if not all(isinstance(pair, list) for pair in pairs):
            return None
        labels = {(PurePosixPath(name).parent / file).as_posix(): label for file, label in pairs}
    except (ValueError, KeyError, TypeError):
        return None
    if not labels:
        return {}, []
    for file in files:
        if not isinstance(label := labels.get(file), int) or label < 0:
            raise ValueError(f"{name} must tell a class >= 0 for {file}, got {label!r}.")
    return {file: labels[file] for file in files}, [str(i) for i in range(max(labels.values()) + 1)]
