"""Files of pictures: which there are, and how one becomes pixels. What is deep is scaled alike in all files."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_UNREAD = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")  # Pillow knows their names, and needs another program
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_EIGHT_BITS = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".webp")
AT_ONCE = 2**25  # pixels that are decoded at the same time; a larger picture is decoded alone

Fit = Literal["crop", "stretch", "pad"]
Depth = Literal["integer", "float"]
Scale = Mapping[Depth, tuple[float, float]]  # by the kind of number: what becomes black, and white


class Page(NamedTuple):
    """One picture (C, H, W) uint8, and what was done to it."""

    pixels: np.ndarray
    resized: bool
    recoloured: bool


class Decoded(NamedTuple):
    """The pictures of a file, or why it cannot be read (``error``), and what of it was left out (``remark``)."""

    pages: Sequence[Page] = ()
    error: str = ""
    remark: str = ""


# ------------------------------------------------------------------------------------------------- which files


@lru_cache
def suffixes() -> frozenset[str]:
    """Endings of the files that Pillow reads."""
    Image.init()
    return frozenset(
        s for s, name in Image.registered_extensions().items() if name in Image.OPEN and name not in _UNREAD
    )


def list_files(path: Path) -> tuple[list[str], list[str]]:
    """Names of the picture files below a folder or in a .zip file, and of its other files, relative to it and sorted.

    Links are followed, but not back to a folder they lie in; what is hidden is no file at all.

    Raises:
        FileNotFoundError: no such path.
        ValueError: not a folder or .zip file, one that cannot be read, or no pictures in it.
    """
    try:
        if not path.exists():
            raise FileNotFoundError(f"path {path} does not exist: it must be a folder of images or a .zip file.")
        if path.is_dir():
            found = [file.relative_to(path).as_posix() for file in _below(path)]
        else:
            with path.open("rb") as file:
                if not zipfile.is_zipfile(file):
                    raise ValueError(f"path {path} is neither a folder nor a sound .zip file.")
                with zipfile.ZipFile(file) as archive:
                    found = [name for name in archive.namelist() if not name.endswith("/")]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"path {error.filename or path} cannot be read ({error.strerror or error}).") from error
    names = sorted(name for name in found if not is_hidden(PurePosixPath(name)))
    images = [name for name in names if PurePosixPath(name).suffix.lower() in suffixes()]
    if not images:
        raise ValueError(f"path {path} holds no images (files that end in .jpg, .png, .tif or whatever Pillow reads).")
    return images, sorted(set(names) - set(images))


def _below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    here = folder.resolve()
    if not any(one.is_relative_to(here) for one in above):
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from _below(entry, (*above, here))
            else:
                yield entry


def is_hidden(name: PurePosixPath) -> bool:
    """Whether a file, or a folder it lies in, is hidden or one of those that macOS adds to zip files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


def folders_in(path: Path, parent: PurePosixPath) -> set[str]:
    """Names of the folders right below one that lies in a folder or .zip file, whatever they hold."""
    if path.is_dir():
        here = path / parent
        found = {entry.name for entry in here.iterdir() if entry.is_dir()} if here.is_dir() else set()
    else:
        with zipfile.ZipFile(path) as archive:  # the last of a name is a file, or nothing
            inside = [name.rpartition("/")[0] for name in archive.namelist()]
        below = [PurePosixPath(name) for name in inside if PurePosixPath(name).is_relative_to(parent)]
        found = {parts[0] for folder in below if (parts := folder.relative_to(parent).parts)}
    return {name for name in found if not is_hidden(PurePosixPath(name))}


@contextmanager
def reading(path: Path) -> Iterator[Callable[[str], bytes]]:
    """A function that reads a file of a folder or .zip file by its name."""
    if path.is_dir():
        yield lambda name: (path / name).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            yield archive.read


# ------------------------------------------------------------------------------------------------- to pixels


class Decoder:
    """Decodes files, in any number of threads at once, to pictures of one mode, and of one size if it is told.

    Args:
        mode: "L", "LA", "RGB" or "RGBA"; the first and the third have what is transparent over white.
        scale: of numbers of more than 8 bits.
        size: (height, width), or None to keep what there is.
        fit: how another shape is brought to that size.
    """

    def __init__(self, mode: str, scale: Scale, size: tuple[int, int] | None = None, fit: Fit = "crop") -> None:
        self.mode, self.scale, self.size, self.fit = mode, scale, size, fit
        self._free, self._changed = AT_ONCE, threading.Condition()

    def __call__(self, data: bytes) -> Decoded:
        """The pictures of a file's bytes: all pages of a TIFF, the first frame of anything else."""
        with Image.open(io.BytesIO(data)) as image:
            shape = image.size
            if self.size is not None:
                image.draft(None, (2 * self.size[1], 2 * self.size[0]))  # JPEG: a large photograph at a fraction
            frames = getattr(image, "n_frames", 1)
            number = frames if image.format == "TIFF" else 1
            remark = "first frame of several" if frames > number else ""
            if _cut(image):
                remark = "8 of 16 bits per channel"
            pages = []
            for k in range(number):
                if number > 1:
                    image.seek(k)
                with self._room(image.width * image.height):
                    pages.append(self.page(image, shape if k == 0 else image.size))
        return Decoded(pages, remark=remark)

    def page(self, image: Image.Image, shape: tuple[int, int]) -> Page:
        """One picture, whose size was ``shape`` before it was opened at a fraction."""
        mode, picture = image.mode, ImageOps.exif_transpose(image)
        target = picture.size if self.size is None else (self.size[1], self.size[0])
        if picture.mode == "1":
            picture = picture.convert("L")
        if picture.mode == "L" and self.size is not None:  # large ones as small as a draft would be, before they grow
            factor = min(picture.width // target[0], picture.height // target[1]) // 2
            if factor > 1 and picture.width * picture.height > AT_ONCE:
                picture = picture.reduce(factor)
        picture = recolour(picture, self.mode, self.scale)
        if picture.size != target:
            picture = {
                "crop": lambda: ImageOps.fit(picture, target, Image.Resampling.LANCZOS),
                "stretch": lambda: picture.resize(target, Image.Resampling.LANCZOS),
                "pad": lambda: ImageOps.pad(picture, target, Image.Resampling.LANCZOS),
            }[self.fit]()
        pixels = np.asarray(picture).reshape(target[1], target[0], -1).transpose(2, 0, 1)
        return Page(np.ascontiguousarray(pixels), self.size is not None and shape != target, mode != self.mode)

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels may be decoded."""
        pixels = min(pixels, AT_ONCE)
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._free)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


def told(error: Exception) -> str:
    """What a decoder said, in one line."""
    if isinstance(error, UnidentifiedImageError):  # Pillow tells of an object in memory
        return "no picture of a known kind"
    said, kind = " ".join(str(error).split()), type(error).__name__
    return f"{kind} {said}" if isinstance(error, LookupError) else said or kind  # of a key that is not there


def _cut(image: Image.Image) -> bool:
    """Whether Pillow keeps the upper half only of 16 bits per channel, as it does with colours."""
    return ";16" in str(getattr(image, "tile", "")) and depth(image) is None


def depth(image: Image.Image) -> Depth | None:
    """The kind of number of a picture of more than 8 bits, else None."""
    return None if image.mode[0] not in "IF" else "float" if image.mode[0] == "F" else "integer"


def recolour(image: Image.Image, mode: str, scale: Scale) -> Image.Image:
    """To 8 bits and a mode: deep pictures scaled, transparency over white where the mode has none."""
    if (kind := depth(image)) is not None:
        levels = np.asarray(image, dtype=np.float64)
        if not np.isfinite(levels).all():
            raise ValueError("it holds NaN or infinite values")
        low, high = scale[kind]
        image = Image.fromarray(np.rint(255 * ((levels - low) / (high - low)).clip(0, 1)).astype(np.uint8))
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if mode not in ("LA", "RGBA"):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


# ------------------------------------------------------------------------------------------------- one scale for all


def common_scale(read: Callable[[str], bytes], files: Sequence[str]) -> dict[Depth, tuple[float, float]]:
    """The scale of the deep pictures among these files (see :func:`scale_of`)."""

    def pages() -> Iterator[Image.Image]:
        for file in files:
            if PurePosixPath(file).suffix.lower() in _EIGHT_BITS:
                continue
            try:
                with Image.open(io.BytesIO(read(file))) as image:
                    for k in range(getattr(image, "n_frames", 1) if image.format == "TIFF" else 1):
                        image.seek(k)
                        if depth(image) is not None:
                            image.load()
                            yield image
            except Exception:  # told when it is decoded
                continue

    return scale_of(pages())


def scale_of(images: Iterable[Image.Image]) -> dict[Depth, tuple[float, float]]:
    """The scale of the deep ones among pictures: none, if there are none.

    Integers begin at 0, or the least of all if that is negative, and end at the largest number of as many bits as the
    largest of all has; floats end at 1 if all are smaller, at 255 if the largest is in its upper half, else at that.
    """
    seen: dict[Depth, tuple[float, float]] = {}
    for image in images:
        if (kind := depth(image)) is not None and np.isfinite(levels := np.asarray(image)).all():
            low, high = seen.get(kind, (np.inf, -np.inf))
            seen[kind] = min(low, float(levels.min())), max(high, float(levels.max()))
    return {kind: _round_scale(kind, *limits) for kind, limits in seen.items()}


def _round_scale(kind: Depth, low: float, high: float) -> tuple[float, float]:
    if kind == "integer" and low >= 0:
        return 0.0, float(2 ** max(int(high).bit_length(), 8) - 1)
    if kind == "float" and low >= 0:
        return 0.0, 1.0 if high <= 1 else 255.0 if 128 <= high <= 255 else high
    return low, max(high, low + 1)
