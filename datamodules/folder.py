"""Anyone's own images: a folder or a zip file of any sizes and modes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from lightning_gans.compat.lightning import utilities
from lightning_gans.datamodules.base import ImageDataModule, Split
from lightning_gans.functional import rank_and_world

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Converted(NamedTuple):
    """An image, and what was done to it; if it is unreadable, ``pixels`` is None and ``error`` says why."""

    pixels: np.ndarray | None
    resized: bool = False
    recoloured: bool = False
    error: str = ""


class Images(ImageDataModule):
    """The images of a folder (and of its subfolders) or of a .zip file, brought to one size and mode.

    If all images lie in subfolders, and in more than one, these are the classes, in alphabetical order. Some images,
    always the same, are held out as the test split. What was converted or skipped is said in one line (`report`).

    Args:
        path: folder or .zip file.
        size: height and width of the images, in pixels.
        fit: how another shape is made square: "crop" (the centre), "stretch", or "pad" (with black).
        mode: "RGB" or "L" (grey). Transparent parts become white; 16-bit images are scaled to 8 bits.
        test_share: share of the images that is held out, in [0, 1).
        batch_size: images per batch and process.
        flip: mirror each training image left to right with probability 1/2.
        dequantize: add uniform noise as wide as a grey level to the batches.
        value_range: of the batches, such as (-1, 1) for a generator that ends in tanh, (0, 1) for a sigmoid.
        items: use only the first so many training images (quick runs); None: all.

    Raises:
        FileNotFoundError: no such path.
        ValueError: not a folder or zip file, no images in it, or none that can be read.
    """

    def __init__(
        self,
        path: str,
        size: int = 64,
        fit: Literal["crop", "stretch", "pad"] = "crop",
        mode: Literal["RGB", "L"] = "RGB",
        test_share: float = 0.1,
        batch_size: int = 64,
        flip: bool = False,
        dequantize: bool = False,
        value_range: tuple[float, float] = (-1.0, 1.0),
        items: int | None = None,
    ) -> None:
        super().__init__(batch_size, flip, dequantize, value_range, items)
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}.")
        if fit not in ("crop", "stretch", "pad"):
            raise ValueError(f"fit must be 'crop', 'stretch' or 'pad', got {fit!r}.")
        if mode not in ("RGB", "L"):
            raise ValueError(f"mode must be 'RGB' or 'L', got {mode!r}.")
        if not 0 <= test_share < 1:
            raise ValueError(f"test_share must be in [0, 1), got {test_share}.")
        self.path = Path(path).expanduser()
        self.size, self.fit, self.mode, self.test_share = size, fit, mode, test_share
        self.name = self.path.stem
        self.shape = (3 if mode == "RGB" else 1, size, size)
        self.files = list_images(self.path)
        self.classes = class_names(self.files)
        self.num_classes = len(self.classes) or None
        self.report = ""

    def split_files(self, split: Split) -> list[str]:
        """The files of a split, in alphabetical order: a random ``test_share`` of them is held out."""
        held_out = round(self.test_share * len(self.files))
        if self.test_share > 0 and len(self.files) > 1:
            held_out = min(max(held_out, 1), len(self.files) - 1)
        order = np.random.RandomState(0).permutation(len(self.files))  # numpy promises never to change this stream
        return [self.files[i] for i in sorted(order[:held_out] if split == "test" else order[held_out:])]

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Read a split: uint8 images (N, C, H, W), and labels (N,) int64, or None."""
        files = self.split_files(split)
        read, close = reader(self.path)
        try:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                results = pool.map(lambda file: self.convert(read, file), files)
                silent = rank_and_world()[0] > 0
                done = list(
                    tqdm(results, f"reading {self.name}", len(files), leave=False, unit="image", disable=silent)
                )
        finally:
            close()
        kept = [(file, image.pixels) for file, image in zip(files, done) if image.pixels is not None]
        failed = [(file, image.error) for file, image in zip(files, done) if image.pixels is None]
        if files and not kept:
            raise ValueError(f"{self.path}: none of its {len(files)} image files can be read ({': '.join(failed[0])}).")
        self.report = self._report(split, done, [file for file, _ in failed])
        utilities.rank_zero_info(self.report)
        images = (
            torch.from_numpy(np.stack([pixels for _, pixels in kept]))
            if kept
            else torch.empty(0, *self.shape, dtype=torch.uint8)
        )
        if not self.classes:
            return images, None
        depth = len(common_parent(self.files).parts)
        return images, torch.tensor([self.classes.index(PurePosixPath(file).parts[depth]) for file, _ in kept])

    def convert(self, read: Callable[[str], bytes], file: str) -> Converted:
        """Read one image file and bring it to the wanted size and mode."""
        try:
            with Image.open(io.BytesIO(read(file))) as image:
                mode, size = image.mode, image.size
                image.draft(None, (2 * self.size, 2 * self.size))  # JPEG: decode a large photograph at a fraction
                picture = recolour(ImageOps.exif_transpose(image), self.mode)
                target = (self.size, self.size)
                if picture.size != target:
                    picture = {
                        "crop": lambda: ImageOps.fit(picture, target, Image.Resampling.LANCZOS),
                        "stretch": lambda: picture.resize(target, Image.Resampling.LANCZOS),
                        "pad": lambda: ImageOps.pad(picture, target, Image.Resampling.LANCZOS),
                    }[self.fit]()
                pixels = np.asarray(picture).reshape(self.size, self.size, -1).transpose(2, 0, 1)
                return Converted(np.ascontiguousarray(pixels), size != target, mode != self.mode)
        except Exception as error:  # decoders fail in many ways; to us each means: not readable
            return Converted(None, error=" ".join(str(error).split()) or type(error).__name__)

    def val_dataloader(self) -> Any:
        """The held-out images in a fixed order; no loader at all if none are held out."""
        return self.fixed_loader("test") if self.split_files("test") else []

    def _report(self, split: str, done: list[Converted], failed: list[str]) -> str:
        resized, recoloured = sum(image.resized for image in done), sum(image.recoloured for image in done)
        parts = [f"{self.name}: read {len(done) - len(failed):,} {split} images"]
        if self.classes:
            parts.append(f"{len(self.classes)} classes from subfolders")
        if resized:
            parts.append(f"{resized:,} resized to {self.size}x{self.size} ({self.fit})")
        if recoloured:
            parts.append(f"{recoloured:,} converted to {self.mode}")
        if failed:
            parts.append(f"{len(failed):,} unreadable skipped ({', '.join(failed[:3])}{', ...' if failed[3:] else ''})")
        return ", ".join(parts)


def list_images(path: Path) -> list[str]:
    """Names of the image files below a folder or in a zip file, relative to it, in alphabetical order."""
    if not path.exists():
        raise FileNotFoundError(f"path {path} does not exist: it must be a folder of images or a .zip file.")
    if path.is_dir():
        found = [
            Path(folder, name).relative_to(path).as_posix() for folder, _, names in os.walk(path) for name in names
        ]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
    else:
        raise ValueError(f"path {path} is neither a folder nor a sound .zip file.")
    names = sorted(name for name in found if name.lower().endswith(SUFFIXES) and not is_hidden(PurePosixPath(name)))
    if not names:
        raise ValueError(f"path {path} holds no images (files that end in {', '.join(SUFFIXES)}).")
    return names


def is_hidden(name: PurePosixPath) -> bool:
    """Whether a file, or a folder it lies in, is hidden or one of those that macOS adds to zip files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


def common_parent(files: list[str]) -> PurePosixPath:
    """The deepest folder that holds all files."""
    return PurePosixPath(
        os.path.commonpath([PurePosixPath(file).parent.as_posix() for file in files]).replace("\\", "/")
    )


def class_names(files: list[str]) -> list[str]:
    """Names of the subfolders, if all files lie in subfolders (of their common parent); else none."""
    parent = common_parent(files)
    paths = [PurePosixPath(file).relative_to(parent) for file in files]
    return sorted({path.parts[0] for path in paths}) if all(len(path.parts) > 1 for path in paths) else []


def reader(path: Path) -> tuple[Callable[[str], bytes], Callable[[], None]]:
    """A function that reads a file of a folder or zip file by its name, and one to call when done."""
    if path.is_dir():
        return lambda name: (path / name).read_bytes(), lambda: None
    archive = zipfile.ZipFile(path)
    return archive.read, archive.close


def recolour(image: Image.Image, mode: str) -> Image.Image:
    """To 8-bit grey ("L") or "RGB": transparency over white, deep images scaled to 8 bits."""
    if image.mode[0] in "IF":
        levels = np.asarray(image, dtype=np.float64)
        top = 65535 if levels.max() > 255 or image.mode.startswith("I;16") else 255 if levels.max() > 1 else 1
        image = Image.fromarray(np.rint(255 * (levels / top).clip(0, 1)).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
