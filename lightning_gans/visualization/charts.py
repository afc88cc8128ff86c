"""Curves over generator updates as plotly draws them: hover, zoom, lines that a click on their name hides."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_gans import checks
from lightning_gans.visualization.images import INK

COLOURS = ("#1f6fa8", "#d1601f", "#3a8f5c", "#8a5aa8", "#c04a5a", "#7a6a4f", "#2a9d9d", "#b58a1b", "#5b6472", "#d477a8")
POINTS = 2000  # of a line: more would not be seen, and would have to be loaded
_FAR = 50.0
_BESIDE = 6  # lines, up to which the legend is above
MARKED = 60  # values, up to which each gets a dot


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend, as plain text.
        x: of one length with ``y``.
        y: values; NaN leaves a gap.
        band: (low, high) around them, if there is one.
        colour: number of its colour; lines of one number belong together.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None
    colour: int = 0


def line_chart(
    lines: Sequence[Line], x_title: str = "generator updates", logarithmic: bool = False, legend: bool = False
) -> Any:
    """A plotly figure of the lines, each thinned to :data:`POINTS`.

    Args:
        lines: what to draw.
        x_title: what x is.
        logarithmic: let the y axis be so where all values are positive and the greatest is far above the least.
        legend: name a single line too.

    Raises:
        ImportError: plotly is not installed.
    """
    checks.installed("plotly")
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for line in lines:
        colour, kept = COLOURS[line.colour % len(COLOURS)], thinned(len(line.x))
        if line.band is not None:
            x, y = _outline(line.x[kept], *(part[kept] for part in line.band))
            figure.add_scatter(x=x, y=y, fill="toself", fillcolor=colour, mode="lines", opacity=0.18,
                               line={"width": 0}, legendgroup=line.name, showlegend=False,
                               hoverinfo="skip")  # fmt: skip
        mode = "lines+markers" if len(kept) <= MARKED else "lines"
        name = html.escape(line.name, quote=False)  # plotly takes names for HTML of its own
        figure.add_scatter(x=line.x[kept].tolist(), y=line.y[kept].tolist(), name=name, legendgroup=line.name,
                           mode=mode, line={"color": colour, "width": 1.8}, marker={"size": 4},
                           hovertemplate="%{x:,}: %{y:.5g}")  # fmt: skip
    axis = {"gridcolor": "#e8eaee", "linecolor": "#b9bec7", "zerolinecolor": "#d5d8de", "ticks": "outside"}
    many = len(lines) > _BESIDE  # then the legend is below, and has room of its own
    below = {"yanchor": "top", "y": -0.22} if many else {"yanchor": "bottom", "y": 1.02}
    figure.update_layout(template="none", height=300 + 11 * len(lines) * many, hovermode="x",
                         margin={"l": 64, "r": 16, "t": 12, "b": 44 + 11 * len(lines) * many},
                         font={"family": "system-ui, sans-serif", "size": 12, "color": INK}, paper_bgcolor="white",
                         plot_bgcolor="white", showlegend=legend or len(lines) > 1,
                         legend={"orientation": "h", **below})  # fmt: skip
    figure.update_xaxes(title_text=x_title, separatethousands=True, **axis)
    figure.update_yaxes(**axis)
    drawn = {float(y) for line in lines for part in (line.y, *(line.band or ())) for y in part if np.isfinite(y)}
    if len(drawn) == 1 and (level := max(drawn)):  # plotly would show it within -1 and 1
        figure.update_yaxes(range=sorted((0, 2 * level)))
    elif logarithmic and drawn and max(drawn) > _FAR * min(drawn) > 0:
        figure.update_yaxes(type="log", dtick=1 if max(drawn) > 1000 * min(drawn) else "D2")
    return figure


def _outline(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[list[Any], list[Any]]:
    """There and back around each stretch of finite values: plotly closes what a gap leaves of a single outline."""
    xs, ys = list[Any](), list[Any]()
    for part in np.ma.clump_unmasked(np.ma.masked_where(~(np.isfinite(low) & np.isfinite(high)), x)):
        xs += [*x[part], *x[part][::-1], None]
        ys += [*high[part], *low[part][::-1], None]
    return xs[:-1], ys[:-1]


def thinned(n: int, most: int = POINTS) -> np.ndarray:
    """Which of ``n`` points to draw: all, or ``most`` of them, evenly spaced, the first and the last among them."""
    return np.arange(n) if n <= most else np.unique(np.linspace(0, n - 1, most).round().astype(int))
