"""Figures of the experiments: curves over training with the spread of the seeds, small multiples side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import LogFormatter
from PIL import Image

from experiments.measures import series
from experiments.playing import Result
from lightning_gans.visualization.images import INK, figure_image, grid_image, new_figure

COLOURS = ("#1f6fa8", "#d1601f", "#3b8f4e", "#8a4fa3", "#b0912b", "#4bb0b5", "#a34a56", "#5b6470",
           "#e0a0b8", "#7c8f2c", "#20242b")  # fmt: skip
Panels = Mapping[str, Mapping[str, Sequence[Result]]]


class Plain(LogFormatter):
    """60 and 0.1, where matplotlib finds room for a label."""

    def __call__(self, value: float, place: int | None = None) -> str:
        """The label of a value."""
        return f"{value:g}" if super().__call__(value, place) else ""


def tidy(axes: Any, title: str, x: str, y: str) -> None:
    """Labels in ink, no box, a faint grid; plain numbers (60, 0.1) on axes that are logarithmic by now."""
    axes.set_title(title, color=INK, fontsize=10)
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.tick_params(which="both", colors=INK, labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log" and axis.get_transform().base == 10:
            axis.set_major_formatter(Plain())
            axis.set_minor_formatter(Plain())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e6ea", linewidth=0.7)


def curves(
    panels: Panels, name: str | Mapping[str, str], label: str, log: bool = False, x: str = "step"
) -> Image.Image:
    """One panel per data set: the mean over seeds of a logged value, and the range from the lowest to the highest seed.

    Where seeds were measured at other updates than the first one, they are interpolated.

    Args:
        panels: results by panel and by line.
        name: what was logged, the same for all panels or by panel.
        label: of the vertical axis.
        log: logarithmic vertical axis.
        x: ``step`` or ``seconds``.
    """
    many = max(map(len, panels.values())) > 8  # no room for all their names among the lines
    figure = new_figure(1.0 + (6.4 if many else 4.6) * len(panels), 4.4)
    styles = [(colour, dashes) for dashes in ("-", "--", ":") for colour in COLOURS]
    for i, (axes, (title, lines)) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items())):
        wanted = name if isinstance(name, str) else name[title]
        for (colour, dashes), (line, results) in zip(styles, lines.items()):
            rows = [[row for row in r["rows"] if wanted in row] for r in results if not r["failed"]]
            seen = [np.array([(row["step"], row[x], row[wanted]) for row in some]).T for some in rows if some]
            if not seen:
                continue
            first, last = max(s[0][0] for s in seen), min(s[0][-1] for s in seen)
            steps = [step for step in seen[0][0] if first <= step <= last]
            at = np.mean([np.interp(steps, s[0], s[1]) for s in seen], 0)
            values = [np.interp(steps, s[0], s[2]) for s in seen]
            axes.plot(at, np.mean(values, 0), color=colour, linestyle=dashes, linewidth=1.5, label=line)
            axes.fill_between(at, np.min(values, 0), np.max(values, 0), color=colour, alpha=0.15, lw=0)
        if log:
            axes.set_yscale("log")
        tidy(axes, title, "generator updates" if x == "step" else "seconds of training", label if i == 0 else "")
        axes.legend(frameon=False, fontsize=7.5, **({"loc": "upper left", "bbox_to_anchor": (1, 1)} if many else {}))
    return figure_image(figure)


def samples(lines: Mapping[str, Sequence[Result]], columns: int = 10) -> Image.Image:
    """One row of samples per game, of its first seed."""
    figure = new_figure(0.5 + 0.085 * max(map(len, lines)) + 0.55 * columns, 0.62 * len(lines) + 0.2)
    for axes, (name, results) in zip(figure.subplots(len(lines), 1, squeeze=False)[:, 0], lines.items()):
        images = torch.tensor(results[0]["sample"][:columns])
        axes.imshow(grid_image(images.nan_to_num(), columns, cell=56))
        axes.set_axis_off()
        axes.text(-0.01, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=8, color=INK)
    return figure_image(figure)


def bars(panels: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> Image.Image:
    """One panel per data set, a bar per game: the mean over seeds, with a point for each seed; NaN is left out."""
    rows = max(map(len, panels.values()))
    figure = new_figure(2.6 + 3.4 * len(panels), 0.9 + 0.3 * rows)
    for i, (axes, (title, lines)) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items())):
        for at, values in enumerate(lines.values()):
            known = [v for v in values if not math.isnan(v)]
            if known:
                axes.barh(at, statistics.fmean(known), color=COLOURS[0], alpha=0.35, height=0.7)
                axes.plot(known, [at] * len(known), "o", color=COLOURS[0], markersize=3.5)
        axes.set_yticks(range(len(lines)), list(lines) if i == 0 else [""] * len(lines), fontsize=8)
        axes.invert_yaxis()
        tidy(axes, title, label, "")
        axes.grid(axis="y", visible=False)
    return figure_image(figure)


def stack(*pictures: Image.Image) -> Image.Image:
    """Pictures one below the other, on white."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, ((sheet.width - picture.width) // 2, top))
        top += picture.height
    return sheet


def log10(value: float) -> float:
    """log10 of a positive number, NaN otherwise."""
    return math.log10(value) if value > 0 else math.nan


__all__ = ["COLOURS", "bars", "curves", "log10", "samples", "series", "stack", "tidy"]
