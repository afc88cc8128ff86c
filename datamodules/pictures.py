"""Files of pictures: which there are, and how one becomes pixels. What is deep is scaled alike in all files."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_gans import checks

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_UNREAD = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")  # Pillow knows their names, and needs another program
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_EIGHT_BITS = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".webp")
FULL = 0.0, 65535.0  # of 16 bits
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
            raise FileNotFoundError(
                f"path {path} does not exist{checks.seen_from(path)}: it must be a folder of images or a .zip file."
            )
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
            pages = []
            for k in range(number):
                if number > 1:
                    image.seek(k)
                with self._room(image.width * image.height):
                    if (colour := deep_colour(image, data)) is not None:
                        image.paste(self._scaled(image, colour))
                        remark = remark if colour.dtype == np.uint16 else "upper 8 of 16 bits per channel"
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

    def _scaled(self, image: Image.Image, colour: np.ndarray) -> Image.Image:
        """Colour of 16 bits, or its upper 8, in 8 bits; transparency is always of all bits."""
        if colour.dtype == np.uint16:
            pixels = eight_bits(colour, *self.scale["integer"])
        elif self.scale["integer"] == FULL:
            pixels = colour
        else:
            raise ValueError(
                "of its 16 bits per colour the upper 8 alone can be read, which is too little for the range "
                f"{self.scale['integer'][0]:g} to {self.scale['integer'][1]:g}: save it as PNG, not interlaced"
            )
        bands = [Image.fromarray(band) for band in pixels.transpose(2, 0, 1)]
        return Image.merge(image.mode, [*bands, *image.split()[len(bands) :]])

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


def deep_colour(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Colours (H, W, C) uint16, without transparency, of a picture of 16 bits per channel; else None.

    Of these Pillow keeps the upper 8 bits. The lower ones of a PNG are a PNG of their own, since its filters work on
    each byte by those of the same place in other pixels. Where that cannot be had, it is the upper ones, as uint8.
    """
    if ";16" not in str(getattr(image, "tile", "")) or depth(image) is not None:
        return None
    upper = np.asarray(image).reshape(image.height, image.width, -1)  # an error if anything is missing
    colours = upper.shape[-1] - image.mode.endswith("A")
    if image.format != "PNG" or data[28] or "transparency" in image.info:  # interlaced, or one colour is transparent
        return upper[..., :colours]
    packed, place = b"", 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        packed += data[place + 8 : place + 8 + length] if data[place + 4 : place + 8] == b"IDAT" else b""
        place += length + 12
    rows = np.frombuffer(zlib.decompressobj().decompress(packed), np.uint8)
    channels = {2: 3, 4: 2, 6: 4}[data[25]]
    rows = rows[: image.height * (1 + 2 * image.width * channels)].reshape(image.height, -1)
    halves = zlib.compress(np.concatenate([rows[:, :1], rows[:, 2::2]], axis=1).tobytes(), 1)
    parts = ((b"IHDR", data[16:24] + b"\x08" + data[25:29]), (b"IDAT", halves), (b"IEND", b""))
    chunks = [struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in parts]
    with Image.open(io.BytesIO(data[:8] + b"".join(chunks))) as lower:
        return 256 * upper[..., :colours].astype(np.uint16) + np.asarray(lower.convert(image.mode))[..., :colours]


def eight_bits(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers in [low, high], and others at its ends, in 0..255."""
    return np.rint(255 * ((levels.astype(np.float64) - low) / (high - low)).clip(0, 1)).astype(np.uint8)


def depth(image: Image.Image) -> Depth | None:
    """The kind of number of a picture of more than 8 bits, else None."""
    return None if image.mode[0] not in "IF" else "float" if image.mode[0] == "F" else "integer"


def recolour(image: Image.Image, mode: str, scale: Scale) -> Image.Image:
    """To 8 bits and a mode: deep pictures scaled, transparency over white where the mode has none."""
    if (kind := depth(image)) is not None:
        levels = np.asarray(image)
        if not np.isfinite(levels).all():
            raise ValueError("it holds NaN or infinite values")
        image = Image.fromarray(eight_bits(levels, *scale[kind]))
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if mode not in ("LA", "RGBA"):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


# ------------------------------------------------------------------------------------------------- one scale for all


def common_scale(read: Callable[[str], bytes], files: Sequence[str]) -> dict[Depth, tuple[float, float]]:
    """The scale of the deep pictures among these files (see :func:`scale_of`)."""

    def deep() -> Iterator[tuple[Depth, np.ndarray]]:
        for file in files:
            if PurePosixPath(file).suffix.lower() in _EIGHT_BITS:
                continue
            try:
                with Image.open(io.BytesIO(data := read(file))) as image:
                    for k in range(getattr(image, "n_frames", 1) if image.format == "TIFF" else 1):
                        image.seek(k)
                        if (kind := depth(image)) is not None:
                            yield kind, np.asarray(image)
                        elif (colour := deep_colour(image, data)) is not None:
                            yield "integer", colour if colour.dtype == np.uint16 else 256.0 * colour
            except Exception:  # told when it is decoded
                continue

    return scale_of(deep())


def scale_of(pictures: Iterable[tuple[Depth, np.ndarray]]) -> dict[Depth, tuple[float, float]]:
    """The scale of the numbers of deep pictures, by their kind: none, if there are none.

    Integers begin at 0, or the least of all if that is negative, and end at the largest number of as many bits as the
    largest of all has; floats end at 1 if all are smaller, at 255 if the largest is in its upper half, else at that.
    """
    seen: dict[Depth, tuple[float, float]] = {}
    for kind, levels in pictures:
        if np.isfinite(levels).all():
            low, high = seen.get(kind, (np.inf, -np.inf))
            seen[kind] = min(low, float(levels.min())), max(high, float(levels.max()))
    return {kind: _round_scale(kind, *limits) for kind, limits in seen.items()}


def _round_scale(kind: Depth, low: float, high: float) -> tuple[float, float]:
    if kind == "integer" and low >= 0:
        return 0.0, float(2 ** max(int(high).bit_length(), 8) - 1)
    if kind == "float" and low >= 0:
        return 0.0, 1.0 if high <= 1 else 255.0 if 128 <= high <= 255 else high
    return low, max(high, low + 1)
