"""The same noise, time after time: what the generator makes of it as training goes on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lightning_gans.callbacks.probe import (
    EveryNSteps,
    as_gan,
    at_least_one,
    log_image,
    require_writable,
    run_dir,
    scores,
    untouched,
)
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.distributed import world_size
from lightning_gans.gan import GANModule, evaluating
from lightning_gans.visualization.images import (
    FAKE_COLOUR,
    INK,
    REAL_COLOUR,
    contact_sheet,
    evenly,
    figure_image,
    grid_image,
    new_figure,
    read_images,
    save_film,
    save_image_atomic,
    to_uint8,
)

FRAMES, SHOWN = 100, 9  # at most so many pictures in the film and on the sheet
LONGEST = 860  # pixels of a frame's longer side: the film is held in memory


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""Spherical interpolation (arXiv:1609.04468), which keeps the length of Gaussian noise where a chord would not.

    .. math:: \frac{\sin((1-t)\omega)}{\sin\omega}\,a + \frac{\sin(t\omega)}{\sin\omega}\,b,
              \qquad \cos\omega = \frac{a \cdot b}{|a|\,|b|}

    Args:
        start: (N, latent_dim), a.
        end: (N, latent_dim), b. Where a and b are (anti)parallel the interpolation is linear.
        t: (T,) positions in [0, 1].

    Returns:
        (N, T, latent_dim).
    """
    a, b, t = start[:, None], end[:, None], t[None, :, None]
    omega = torch.nn.functional.cosine_similarity(a, b, dim=-1)[..., None].clamp(-1, 1).acos()
    sine = omega.sin()
    straight = sine < 1e-3
    safe = sine.masked_fill(straight, 1)
    round_ = (((1 - t) * omega).sin() * a + (t * omega).sin() * b) / safe
    return torch.where(straight, (1 - t) * a + t * b, round_)


def nearest(queries: Tensor, items: Tensor, chunk: int = 4096) -> Tensor:
    """Index (N,) of the item (M, ...) at the least Euclidean distance from each query (N, ...), in pixel values."""
    queries = queries.flatten(1).float()
    best = torch.full((len(queries),), float("inf"), device=queries.device)
    index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for first in range(0, len(items), chunk):
        part = items[first : first + chunk].to(queries.device).flatten(1).float()
        distance, where = torch.cdist(queries, part).min(dim=1)
        closer = distance < best
        best, index = torch.where(closer, distance, best), torch.where(closer, where + first, index)
    return index


class SampleGrid(EveryNSteps):
    """Draws samples of one fixed noise every n generator updates, at the start and at the end.

    Images become a grid (a conditional generator shows one class per row). Points in the plane are shown with the real
    ones over the discriminator's contour; numbers as two densities with the discriminator's curve and, of a technique
    with ``dual(points, fakes)``, p_g and its target (in one process), on axes that the first picture of a run decides.
    EMA weights are used where there are any. Pictures go to ``<folder>/samples/step_000100.png`` (``latest.png`` is the
    newest) and, as ``samples/...``, to W&B and TensorBoard.

    When training ends, and there are two pictures or more, those of the folder up to the last step (a resumed run's
    earlier ones too) become a film, ``samples/animation.gif``, of at most 100 frames, and a sheet of at most nine,
    ``samples/over_training.png``, each with its number of generator updates; both evenly spaced from the first to the
    last. Pictures that cannot be read or have another size than the first are left out.

    Args:
        every_n_steps: generator updates between pictures.
        rows: rows of the grid; None means 8, or one per class (at most 20).
        columns: columns of the grid.
        interpolations: rows of a further picture ``interpolation_*.png``, each a walk (:func:`slerp`) between two
            fixed noises; 0 for none.
        neighbours: columns of a further picture ``neighbours_*.png``: samples, and below each the nearest training
            image by Euclidean distance in pixels; needs a datamodule with ``reference``; 0 for none.
        points: number of samples and of real points shown for toy data.
        cell: small images are enlarged to at least this many pixels.
        seed: of the fixed noise.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.

    Raises:
        ValueError: before training starts, if the folder cannot be written to.
    """

    def __init__(
        self,
        every_n_steps: int = 500,
        rows: int | None = None,
        columns: int = 8,
        interpolations: int = 0,
        neighbours: int = 0,
        points: int = 1000,
        cell: int = 64,
        seed: int = 0,
        dirpath: str | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        at_least_one(self, rows=1 if rows is None else rows, columns=columns, points=points, cell=cell)
        for name, value in (("interpolations", interpolations), ("neighbours", neighbours)):
            if value < 0:
                raise ValueError(f"SampleGrid: {name} must be >= 0, got {value!r}.")
        self.rows, self.columns, self.interpolations, self.neighbours = rows, columns, interpolations, neighbours
        self.points, self.cell, self.seed, self.dirpath = points, cell, seed, dirpath
        self.folder = Path()
        self.reference: Callable[[str], tuple[Tensor, Tensor | None]] | None = None
        self.items: Tensor | None = None  # clean training items: uint8 images or points
        self.limits: tuple[float, float] | None = None  # of the axis of numbers, once there are real ones
        self.drawn_step = -1

    # ------------------------------------------------------------------ when
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder, and refuse one that cannot be written to."""
        self.folder = run_dir(trainer, self.dirpath) / "samples"
        if trainer.is_global_zero and stage == "fit":
            require_writable(self, self.folder)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what the untrained generator makes."""
        super().on_train_start(trainer, pl_module)
        self.drawn_step, self.items, self.limits = -1, None, None
        module = as_gan(self, pl_module)
        self.reference = getattr(getattr(trainer, "datamodule", None), "reference", None)
        if self.neighbours and self.reference is None:
            raise ValueError("SampleGrid: neighbours needs a datamodule with reference(split), and there is none.")
        if module.global_step == 0:
            with untouched(module):
                self.act(trainer, module, 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last state, if it was not drawn just now, and show the whole training on the first rank."""
        module = as_gan(self, pl_module)
        if self.drawn_step != module.global_step:
            with untouched(module):
                self.act(trainer, module, module.global_step)
        if trainer.is_global_zero:
            self.show_training(trainer, module.global_step)

    def act(self, trainer: pl.Trainer, module: GANModule, step: int) -> None:
        """Draw, write and log the pictures, on the first rank only."""
        self.drawn_step = step
        if not trainer.is_global_zero:
            return
        value_range = getattr(getattr(trainer, "datamodule", None), "value_range", None) or (-1.0, 1.0)
        for name, image in self.pictures(module, value_range).items():
            prefix = "step" if name == "grid" else name
            save_image_atomic(image, self.folder / f"{prefix}_{step:06d}.png")
            if name == "grid":
                save_image_atomic(image, self.folder / "latest.png")
            log_image(trainer, f"samples/{name}", image, step)

    def show_training(self, trainer: pl.Trainer, last_step: int) -> None:
        """Write the film and the sheet of the folder's pictures up to ``last_step``, and log the sheet."""
        names = ((re.fullmatch(r"step_(\d+)\.png", path.name), path) for path in self.folder.glob("step_*.png"))
        paths = {int(name[1]): path for name, path in names if name and int(name[1]) <= last_step}
        frames = list(read_images(evenly(paths, FRAMES), LONGEST).values())
        if len(frames) > 1:
            save_film(frames, self.folder / "animation.gif")
        shown = {f"update {step}": image for step, image in read_images(evenly(paths, SHOWN)).items()}
        if len(shown) > 1:
            sheet = contact_sheet(shown)
            save_image_atomic(sheet, self.folder / "over_training.png")
            log_image(trainer, "samples/over_training", sheet, last_step)

    # ------------------------------------------------------------------ what
    def pictures(self, module: GANModule, value_range: tuple[float, float] = (-1.0, 1.0)) -> dict[str, Image.Image]:
        """The pictures of the module as it is, by name: ``grid``, and ``interpolation`` and ``neighbours`` if asked."""
        classes = module.num_classes
        rows = self.rows or (8 if classes is None else min(classes, 20))
        labels = None if classes is None else (torch.arange(rows) % classes).repeat_interleave(self.columns)
        samples = self.sample(module, rows * self.columns, labels)
        shape = tuple(samples.shape[1:])
        if shape in ((1,), (2,)):
            fake, real = self.sample(module, self.points), self.real_points(module)
            if shape == (2,):
                return {"grid": contour_picture(module, fake, real)}
            limits = self.limits or _common_bounds(fake, real)
            self.limits = None if real is None else limits
            return {"grid": density_picture(module, fake, real, limits)}
        if len(shape) != 3 or shape[0] not in (1, 3):
            message = f"SampleGrid draws images of 1 or 3 channels, and points in 1-D and 2-D; not samples of {shape}."
            warnings.warn(message, stacklevel=2)
            return {}
        found = {"grid": grid_image(samples, self.columns, value_range, self.cell)}
        if self.interpolations:
            walk = self.walk(module)
            found["interpolation"] = grid_image(walk, self.columns, value_range, self.cell)
        if self.neighbours:
            items = self.training_items()
            assert items is not None
            images = to_uint8(self.sample(module, self.neighbours), value_range)
            closest = items[nearest(images, items).to(items.device)].to(images.device)
            pairs = torch.cat([images, closest.expand_as(images)])
            found["neighbours"] = grid_image(pairs, self.neighbours, value_range, self.cell)
        return found

    def sample(self, module: GANModule, n: int, labels: Tensor | None = None) -> Tensor:
        """``n`` samples of the fixed noise."""
        return module.sample(n, labels, generator=torch.Generator().manual_seed(self.seed)).float()

    @torch.no_grad()
    def walk(self, module: GANModule) -> Tensor:
        """(interpolations * columns, ...) samples along :func:`slerp` paths, one class per row if there are classes."""
        net = module.generator if module.ema is None else module.ema
        ends = torch.randn(
            2, self.interpolations, module.latent_dim, generator=torch.Generator().manual_seed(self.seed)
        )
        z = slerp(ends[0], ends[1], torch.linspace(0, 1, self.columns)).flatten(0, 1)
        z = z.to(next(net.parameters()))
        with evaluating(net):
            if module.num_classes is None:
                return net(z).float()
            labels = torch.arange(self.interpolations, device=z.device) % module.num_classes
            return net(z, labels.repeat_interleave(self.columns)).float()

    def training_items(self) -> Tensor | None:
        """Clean training items, uint8 images or points; None without a datamodule that has them."""
        if self.items is None and self.reference is not None:
            self.items = self.reference("train")[0]
        return self.items

    def real_points(self, module: GANModule) -> Tensor | None:
        """Real toy samples to compare with, (points, d)."""
        if self.training_items() is None and module.last_batch is not None:
            self.items = module.last_batch.real  # kept, so that the axes stay the same
        return None if self.items is None else self.items[: self.points].float()


# ---------------------------------------------------------------------- toy data
def _bounds(points: Tensor, margin: float = 0.25) -> tuple[float, float]:
    """A range that holds the points and some room around, the same in every picture of a run."""
    low, high = float(points.min()), float(points.max())
    room = max(margin * (high - low), 0.5 if high - low < 1e-3 else 0.0)
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
def contour_picture(module: GANModule, fake: Tensor, real: Tensor | None) -> Image.Image:
    """Samples (N, 2) and real points (M, 2) over the discriminator's contour."""
    shown = fake if real is None else real
    low, high = _bounds(shown)
    figure = _fixed_figure(6.6, 5.7)
    axes = figure.subplots()
    if not module.conditional:  # a score needs a class there, and toy data have none
        side = torch.linspace(low, high, 121, device=fake.device)
        y, x = torch.meshgrid(side, side, indexing="ij")
        plane = torch.stack([x, y], dim=-1).reshape(-1, 2).to(next(module.discriminator.parameters()))
        level = scores(module, plane).float().reshape(x.shape).cpu()
        if level.isfinite().all() and level.max() > level.min():
            side = side.cpu()
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


def _common_bounds(fake: Tensor, real: Tensor | None) -> tuple[float, float]:
    """:func:`_bounds` of the data and 98% of the samples, which are finite; those of -1 and 1 if none is."""
    found = [x[x.isfinite()].double().cpu() for x in (fake, real) if x is not None]
    if len(found[0]):
        found[0] = found[0].quantile(torch.tensor([0.01, 0.99], dtype=torch.double))  # the axis is not a few samples'
    points = torch.cat(found)
    return _bounds(points if len(points) else torch.tensor([-1.0, 1.0]), 0.1)


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


def _curves(axes: Any, module: GANModule, fake: Tensor, limits: tuple[float, float]) -> list[Any]:
    """The discriminator's score and, on an axis of their own, the values that the module's ``dual`` gives."""
    x = torch.linspace(*limits, 400)
    points = x[:, None].to(next(module.discriminator.parameters()))
    dashed = {"color": INK, "linewidth": 1.3, "linestyle": (0, (4, 2))}
    handles = axes.plot(x, scores(module, points).float().cpu(), label="score D(x)", **dashed)
    axes.set(xlim=limits)
    axes.set_ylabel("score D(x)", color=INK)
    _tidy(axes)
    dual = getattr(module, "dual", None)
    if dual is None or world_size() > 1:  # there p_g is over the samples of all ranks, and only one of them draws
        return handles
    p, target = (value.float().cpu() for value in dual(points, fake.to(points)))
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
    module: GANModule, fake: Tensor, real: Tensor | None, limits: tuple[float, float] | None = None
) -> Image.Image:
    """Densities of samples (N, 1) and real numbers (M, 1), and below them the discriminator's curve.

    Data much narrower than the axis are shown once more from close up. The picture's size is always the same.

    Args:
        module: its discriminator is shown, and p_g and its target if it has ``dual``.
        fake: samples.
        real: data, if there are any.
        limits: ends of the axis; None takes what holds data and samples.
    """
    limits = limits or _common_bounds(fake, real)
    window = _close_up(real, limits)
    figure = _fixed_figure(6.4, 6.4)
    rows = 1 + (not module.conditional) + (window is not None)
    top, *others = figure.subplots(rows, squeeze=False)[:, 0]
    handles = _densities(top, fake, real, limits, "")
    if not module.conditional:  # a score needs a class there, and toy data have none
        others[0].sharex(top)
        top.tick_params(labelbottom=False)
        handles += _curves(others[0], module, fake, limits)
    if window is not None:
        _densities(others[-1], fake, real, window, "around the data")
    others = others or [top]
    others[-1].set_xlabel("x", color=INK)
    _legend_above(figure, handles)
    return figure_image(figure)
