"""Pictures: a grid of samples, a figure as a picture, a film, a sheet, a picture on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.pixels import to_uint8 as to_uint8
from lightning_gans.runs.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAP_COLOUR = (205, 209, 214)  # tells cells apart whether their background is black or white
REAL_COLOUR, FAKE_COLOUR, INK = "#d1601f", "#1f6fa8", "#30343b"


def grid_image(
    images: Tensor, columns: int, value_range: tuple[float, float] = (-1.0, 1.0), cell: int = 64, gap: int = 4
) -> Image.Image:
    """Images side by side, row by row, as one picture.

    Args:
        images: (N, C, H, W), floats in ``value_range`` or uint8. One channel is grey, three are RGB, four RGB and how
            opaque it is, over white; the channels of all others are shown side by side, in grey.
        columns: cells in a row, >= 1; the last row may stay incomplete.
        value_range: the values that become black and white.
        cell: small images are enlarged by the least whole factor that makes their longer side at least this many
            pixels, each pixel a square; larger ones stay as they are.
        gap: pixels between cells and around the grid.

    >>> grid_image(torch.zeros(6, 1, 8, 8), columns=3, cell=16, gap=4).size  # each pixel a square of 2 x 2
    (64, 44)
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be (N, C, H, W) and not empty, got {tuple(images.shape)}.")
    checks.at_least_one(columns=columns)
    n, channels, height, width = images.shape
    factor = max(1, -(-cell // max(height, width)))
    pixels = to_uint8(images.detach().cpu(), value_range)
    if channels == 4:
        opaque = pixels[:, 3:].float() / 255
        pixels = (pixels[:, :3] * opaque + 255 * (1 - opaque)).round().to(torch.uint8)
    elif channels not in (1, 3):
        pixels = torch.cat(pixels.split(1, 1), 3)
    pixels = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    columns, (height, width) = min(columns, n), pixels.shape[1:3]
    rows = -(-n // columns)
    sheet = torch.tensor(_GAP_COLOUR, dtype=torch.uint8).repeat(
        rows * (height + gap) + gap, columns * (width + gap) + gap, 1
    )
    for i, image in enumerate(pixels):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet.numpy())


def new_figure(width: float, height: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    """An empty figure of so many inches, apart from pyplot's state; "none" has the axes stay where they are put."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout=layout)  # type: ignore[arg-type]
    FigureCanvasAgg(figure)
    return figure


def figure_image(figure: Figure) -> Image.Image:
    """The figure as a picture."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]


def evenly(paths: Mapping[int, Path], most: int) -> dict[int, Path]:
    """At most ``most`` >= 2 of the paths by step, evenly spaced in their order, the first and the last among them."""
    steps = sorted(paths)
    if len(steps) > most:
        steps = [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]
    return {step: paths[step] for step in steps}


def read_images(paths: Mapping[int, Path], longest: int | None = None) -> dict[int, Image.Image]:
    """The pictures (RGB) by step, without those that cannot be read or are not as large as the first that can.

    Args:
        paths: the files by step.
        longest: larger pictures are reduced until their longer side has so many pixels; None keeps them.
    """
    found: dict[int, Image.Image] = {}
    size: tuple[int, int] | None = None
    for step, path in paths.items():
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except Exception:  # no file may end a training, and Pillow raises many kinds of errors
            continue
        size = size or image.size
        if image.size == size:
            if longest is not None:
                image.thumbnail((longest, longest))
            found[step] = image
    return found


def save_film(frames: Sequence[Image.Image], path: str | Path) -> Path:
    """Write two or more pictures (RGB) of one size as a GIF: each with its own palette, looping, the last held for 2 s.

    A film lasts ten seconds and the last frame, but no frame is shown for longer than half a second.
    """
    first, *others = [frame.quantize(dither=Image.Dither.NONE) for frame in frames]
    durations = [min(500, 10_000 // len(frames))] * len(others) + [2000]
    return save_image_atomic(first, path, "GIF", save_all=True, append_images=others, duration=durations, loop=0)


def contact_sheet(images: Mapping[str, Image.Image], columns: int = 3, gap: int = 16) -> Image.Image:
    """Pictures of one size side by side, row by row, each below its name; reduced if the sheet were wider than 2000.

    Args:
        images: one or more pictures (RGB) by name.
        columns: pictures in a row, >= 1; the last row may stay incomplete.
        gap: pixels between the pictures and around them.
    """
    width, height = next(iter(images.values())).size
    columns = min(columns, len(images))
    scale = min(1.0, (2000 - gap * (columns + 1)) / columns / width)
    width, height = max(1, int(scale * width)), max(1, int(scale * height))
    size = max(8, min(24, width // 10))
    font = ImageFont.load_default(size)
    head = 2 * size
    rows = -(-len(images) // columns)
    whole = columns * (width + gap) + gap, rows * (head + height + gap) + gap
    sheet = Image.new("RGB", whole, "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, image) in enumerate(images.items()):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (head + height + gap)
        draw.text((left + width // 2, top + head // 2), name, fill=INK, font=font, anchor="mm")
        small = image if scale == 1 else image.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(small, (left, top + head))
    return sheet


def save_image_atomic(image: Image.Image, path: str | Path, format: str = "PNG", **options: Any) -> Path:
    """Write a picture under a temporary name, then rename it, so that no reader meets half of it.

    Args:
        image: the picture.
        path: where to; the folder is made if it is not there.
        format: Pillow's name of the format, whatever the path ends in.
        options: of that format, for Pillow.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_image_atomic(grid_image(torch.zeros(1, 3, 8, 8), columns=1, gap=0), Path(folder) / "a.png")
    ...     print(path.name, Image.open(path).size)
    a.png (64, 64)
    """
    with replacing(path) as temporary:
        image.save(temporary, format=format, **options)
    return Path(path)
