"""Pictures of points in 1-D and 2-D: beside the data, and with what a discriminator says of every place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lightning_gans.visualization.images import FAKE_COLOUR, INK, REAL_COLOUR, figure_image, new_figure

Scores = Callable[[Tensor], Tensor]  # points (N, d) to (N,)
Dual = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # numbers (N, 1) and samples to p_g and its target, (N,) each
LIKE = torch.empty(0)
_FAR = 1e37  # float32 holds no width of an axis that ends ten times as far away


def toy_picture(
    fake: Tensor,
    real: Tensor | None,
    scores: Scores | None = None,
    dual: Dual | None = None,
    *,
    like: Tensor = LIKE,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Samples (N, 1 or 2) and data (M, 1 or 2), if there are any, with what the discriminator says of every place.

    Args:
        fake: samples.
        real: data.
        scores: the discriminator's; None shows samples and data alone.
        dual: p_g and its target at numbers, of samples; shown with the scores, of data in 1-D.
        like: a tensor of the type and device that ``scores`` and ``dual`` need.
        limits: ends of the axis in 1-D; None takes what holds data and samples.
    """
    if fake.shape[1] == 2:
        return contour_picture(fake, real, scores, like=like)
    return density_picture(fake, real, scores, dual, like=like, limits=limits)


def _bounds(points: Tensor, margin: float = 0.25) -> tuple[float, float]:
    """A range around the finite points, the same in every picture of a run; around -1 and 1 if there are none."""
    points = points[points.isfinite()]
    points = points if len(points) else torch.tensor([-1.0, 1.0])
    low, high = (min(max(float(end), -_FAR), _FAR) for end in (points.min(), points.max()))
    room = max(margin * (high - low), max(0.5, 1e-3 * abs(high)) if high - low < 1e-3 else 0.0)
    return low - room, high + room


def _fixed_figure(width: float, height: float) -> Any:
    """An empty figure whose axes do not move with the length of the labels, so that a film is steady."""
    figure = new_figure(width, height, layout="none")
    figure.subplots_adjust(left=0.11, right=0.89, bottom=0.08, top=0.91, hspace=0.4)
    return figure


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)


def _legend_above(figure: Any, handles: list[Any]) -> None:
    place = {"loc": "outside upper center", "ncols": len(handles), "frameon": False}
    legend = figure.legend(handles=handles, fontsize=9, markerscale=2, **place)
    for handle in legend.legend_handles:
        handle.set_alpha(1)


@torch.no_grad()
def contour_picture(
    fake: Tensor, real: Tensor | None, scores: Scores | None = None, *, like: Tensor = LIKE
) -> Image.Image:
    """Samples (N, 2) and real points (M, 2) over the contour of the discriminator's scores (:func:`toy_picture`)."""
    shown = fake if real is None else real
    low, high = _bounds(shown)
    figure = _fixed_figure(6.6, 5.7)
    axes = figure.subplots()
    if scores is not None:
        side = torch.linspace(low, high, 121)
        y, x = torch.meshgrid(side, side, indexing="ij")
        plane = torch.stack([x, y], dim=-1).reshape(-1, 2).to(like)
        level = scores(plane).float().reshape(x.shape).cpu()
        if level.isfinite().all() and level.max() > level.min():
            filled = axes.contourf(side, side, level, levels=18, cmap="Greys", alpha=0.55)
            axes.contour(side, side, level, levels=18, colors="white", linewidths=0.4, linestyles="solid")
            bar = figure.colorbar(filled, ax=axes, shrink=0.85, pad=0.02)
            bar.set_label("discriminator score D(x)", color=INK, fontsize=9)
            bar.ax.tick_params(colors=INK, labelsize=8)
            bar.outline.set_visible(False)
    handles: list[Any] = []
    for points, colour, label in ((real, REAL_COLOUR, "real"), (fake, FAKE_COLOUR, "generated")):
        if points is not None:
            a, b = points.cpu().unbind(1)
            handles.append(axes.scatter(a, b, s=9, alpha=0.55, color=colour, linewidths=0, zorder=3, label=label))
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_xlabel("x₁", color=INK)
    axes.set_ylabel("x₂", color=INK)
    _tidy(axes)
    _legend_above(figure, handles)
    return figure_image(figure)


def common_bounds(fake: Tensor, real: Tensor | None) -> tuple[float, float]:
    """:func:`_bounds` of the data and 98% of the samples that are finite."""
    found = [x[x.isfinite()].double().cpu() for x in (fake, real) if x is not None]
    if len(found[0]):
        found[0] = found[0].quantile(torch.tensor([0.01, 0.99], dtype=torch.double))  # the axis is not a few samples'
    return _bounds(torch.cat(found), 0.1)


def _close_up(real: Tensor | None, limits: tuple[float, float]) -> tuple[float, float] | None:
    """Six standard deviations around the mean of data that are narrow (a twentieth) beside the limits; else None."""
    if real is None:
        return None
    span = limits[1] - limits[0]
    mean, std = float(real.double().mean()), float(real.double().std(correction=0))
    if std >= span / 20:
        return None
    room = 6 * std if std > 1e-6 * span else span / 100  # a point has no width, and float32 no digits for less
    return mean - room, mean + room


def _densities(axes: Any, fake: Tensor, real: Tensor | None, limits: tuple[float, float], title: str) -> list[Any]:
    """Histograms of samples and data, of which those outside count in the whole; the title tells the samples' share."""
    handles = []
    for points, colour, label in ((real, REAL_COLOUR, "real"), (fake, FAKE_COLOUR, "generated")):
        if points is not None:
            values = points.flatten().double().cpu()
            inside = values[(values >= limits[0]) & (values <= limits[1])]
            density, edges = torch.histogram(inside, 80, range=limits)
            density = density / (max(len(values), 1) * (edges[1] - edges[0]))
            handles.append(axes.stairs(density, edges, fill=True, alpha=0.4, color=colour, label=label, linewidth=0))
            axes.stairs(density, edges, color=colour, linewidth=1.2)
    outside = 1 - len(inside) / len(values)  # of the samples, which come last
    if outside:
        title = f"{title}{', ' if title else ''}{100 * outside:.3g}% of the samples outside"
    axes.set_title(title, color=INK, fontsize=9, loc="left")
    axes.set(xlim=limits)
    axes.set_ylabel("density", color=INK)
    _tidy(axes)
    return handles


def _curves(
    axes: Any, scores: Scores, dual: Dual | None, fake: Tensor, like: Tensor, limits: tuple[float, float]
) -> list[Any]:
    """The discriminator's score and, on an axis of their own, p_g and its target."""
    x = torch.linspace(*limits, 400)
    points = x[:, None].to(like)
    dashed = {"color": INK, "linewidth": 1.3, "linestyle": (0, (4, 2))}
    handles = axes.plot(x, scores(points).float().cpu(), label="score D(x)", **dashed)
    axes.set(xlim=limits)
    axes.set_ylabel("score D(x)", color=INK)
    _tidy(axes)
    if dual is None:
        return handles
    p, target = (value.float().cpu() for value in dual(points, fake.to(like)))
    if p.isfinite().all():
        other = axes.twinx()
        handles += other.plot(x, p, color=FAKE_COLOUR, linewidth=1.3, label="$p_g(x)$")
        handles += other.plot(
            x, target, color=FAKE_COLOUR, linewidth=1.3, linestyle=":", label=r"target $\tilde{p}(x)$"
        )
        other.set_ylabel(r"$p_g$ and $\tilde{p}$", color=INK)
        other.spines["top"].set_visible(False)
        other.tick_params(colors=INK, labelsize=8)
    return handles


@torch.no_grad()
def density_picture(
    fake: Tensor,
    real: Tensor | None,
    scores: Scores | None = None,
    dual: Dual | None = None,
    *,
    like: Tensor = LIKE,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Densities of samples (N, 1) and real numbers (M, 1), and below them the discriminator's curve.

    Data much narrower than the axis are shown once more from close up. The picture's size is always the same. Its
    arguments are those of :func:`toy_picture`.
    """
    limits = limits or common_bounds(fake, real)
    window = _close_up(real, limits)
    figure = _fixed_figure(6.4, 6.4)
    rows = 1 + (scores is not None) + (window is not None)
    top, *others = figure.subplots(rows, squeeze=False)[:, 0]
    handles = _densities(top, fake, real, limits, "")
    if scores is not None:
        others[0].sharex(top)
        top.tick_params(labelbottom=False)
        handles += _curves(others[0], scores, dual, fake, like, limits)
    if window is not None:
        _densities(others[-1], fake, real, window, "around the data")
    others = others or [top]
    others[-1].set_xlabel("x", color=INK)
    _legend_above(figure, handles)
    return figure_image(figure)


def scatter_picture(shown: Tensor, shifts: Tensor, which: list[int]) -> Image.Image:
    """Points (K, N, S, 1 or 2) at S shifts, a panel for each of K directions; 1-D ones against the shift."""
    columns = min(4, len(which))
    rows = -(-len(which) // columns)
    figure = new_figure(0.8 + 3.0 * columns, 0.6 + 2.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, points, k in zip(panels, shown, which):
        colour = shifts.expand(len(points), -1)
        x, y = (colour, points[..., 0]) if points.shape[-1] == 1 else points.unbind(-1)
        drawn = axes.scatter(x, y, c=colour, s=5, cmap="coolwarm", linewidths=0)
        axes.set_title(f"direction {k}", color=INK, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8)
    for axes in panels[len(which) :]:
        axes.set_axis_off()
    figure.colorbar(drawn, ax=list(panels), shrink=0.8).set_label("shift", color=INK, fontsize=9)
    return figure_image(figure)
