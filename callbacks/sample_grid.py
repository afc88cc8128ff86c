"""The same noise, time after time: what the model makes of it as training goes on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lightning_gans import checks
from lightning_gans.callbacks.probe import AlsoAtTheEnds, Draws, scores
from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine.contract import Critic, Latents, Pictures, Samples, has
from lightning_gans.engine.distributed import world_size
from lightning_gans.functional.latent import nearest, walk
from lightning_gans.functional.pixels import range_of
from lightning_gans.visualization.images import (
    contact_sheet,
    evenly,
    grid_image,
    read_images,
    save_film,
    to_uint8,
)
from lightning_gans.visualization.toy import common_bounds, toy_picture

FRAMES, SHOWN = 100, 9  # at most so many pictures in the film and on the sheet
LONGEST = 860  # pixels of a frame's longer side: the film is held in memory


class SampleGrid(AlsoAtTheEnds, Draws):
    """Draws samples of one fixed noise every n generator updates, at the start and at the end.

    Images become a grid (a conditional generator shows one class per row). Points in the plane are shown with the real
    ones, over the discriminator's contour if there is one; numbers as two densities with its curve and, of a technique
    with ``dual(points, fakes)``, p_g and its target (in one process), on axes that the first picture of a run decides.
    EMA weights are used where there are any. Pictures go to ``<folder>/samples/step_000100.png`` (``latest.png`` is the
    newest) and, as ``samples/...``, to W&B and TensorBoard.

    When training ends, and there are two pictures or more, those of the folder up to the last step (a resumed run's
    earlier ones too) become a film, ``samples/animation.gif``, of at most 100 frames, and a sheet of at most nine,
    ``samples/over_training.png``, each with its number of generator updates; both evenly spaced from the first to the
    last. Pictures that cannot be read or have another size than the first are left out.

    Args:
        every_n_steps: generator updates between pictures; None: no picture at all.
        rows: rows of the grid; None means 8, or one per class (at most 20).
        columns: columns of the grid.
        interpolations: rows of a further picture ``interpolation_*.png``, each a walk (:func:`slerp`) between two
            fixed noises; 0 for none, and none for a model whose noise cannot be chosen.
        neighbours: columns of a further picture ``neighbours_*.png``: samples, and below each the nearest training
            image by Euclidean distance in pixels; needs a datamodule with ``reference``; 0 for none.
        points: number of samples and of real points shown for toy data.
        cell: small images are enlarged to at least this many pixels.
        seed: of the fixed noise.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.
        value_range: of images, lowest and highest value; None means the datamodule's, and where it has none (-1, 1).

    Raises:
        ValueError: before training starts, if the folder cannot be written to.

    >>> from lightning_gans import GAN
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = GAN(ToyGenerator((1, 8, 8), width=8), ToyDiscriminator((1, 8, 8), width=8), latent_dim=2)
    >>> callback = SampleGrid(every_n_steps=100, rows=2, columns=4, cell=16)  # for pl.Trainer(callbacks=[callback])
    >>> callback.pictures(model)["grid"].size
    (84, 44)
    """

    place = "samples"
    needs = Pictures

    def __init__(
        self,
        every_n_steps: int | None = 500,
        rows: int | None = None,
        columns: int = 8,
        interpolations: int = 0,
        neighbours: int = 0,
        points: int = 1000,
        cell: int = 64,
        seed: int = 0,
        dirpath: str | Path | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        checks.at_least_one(**checks.given(rows=rows), columns=columns, points=points, cell=cell)
        checks.at_least(0, interpolations=interpolations, neighbours=neighbours, seed=seed)
        self.rows, self.columns, self.interpolations, self.neighbours = rows, columns, interpolations, neighbours
        self.points, self.cell, self.seed, self.dirpath = points, cell, seed, dirpath
        self.value_range = None if value_range is None else checks.interval("value_range", value_range)
        self.reference: Callable[[str], tuple[Tensor, Tensor | None]] | None = None
        self.items: Tensor | None = None  # clean training items: uint8 images or points
        self.limits: tuple[float, float] | None = None  # of the axis of numbers, once there are real ones

    # ------------------------------------------------------------------ when
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse text, unless no picture is asked for."""
        if not self.off:
            super().on_fit_start(trainer, pl_module)

    def check(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Neighbours must be known."""
        if self.neighbours and getattr(datamodule_of(trainer), "reference", None) is None:
            raise ValueError("SampleGrid needs a datamodule with reference(split) for its neighbours, got none.")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what the untrained generator makes."""
        self.items, self.limits = None, None
        self.check(trainer, pl_module)
        self.reference = getattr(datamodule_of(trainer), "reference", None)
        super().on_train_start(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last state, if it was not drawn just now, and show the whole training on the first rank."""
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero and not self.off:
            self.show_training(trainer, pl_module.global_step)

    def act(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        """Draw, write and log the pictures, on the first rank only."""
        self.drawn_step = step
        if not trainer.is_global_zero:
            return
        known = self.value_range or getattr(datamodule_of(trainer), "value_range", None)
        for name, image in self.pictures(module, known).items():
            prefix = "step" if name == "grid" else name
            names = [f"{prefix}_{step:06d}", *(["latest"] if name == "grid" else [])]
            self.show(trainer, image, names, f"samples/{name}", step)

    def show_training(self, trainer: pl.Trainer, last_step: int) -> None:
        """Write the film and the sheet of the folder's pictures up to ``last_step``, and log the sheet."""
        names = ((re.fullmatch(r"step_(\d+)\.png", path.name), path) for path in self.folder.glob("step_*.png"))
        paths = {int(name[1]): path for name, path in names if name and int(name[1]) <= last_step}
        frames = list(read_images(evenly(paths, FRAMES), LONGEST).values())
        if len(frames) > 1:
            save_film(frames, self.folder / "animation.gif")
        shown = {f"update {step}": image for step, image in read_images(evenly(paths, SHOWN)).items()}
        if len(shown) > 1:
            self.show(trainer, contact_sheet(shown), ["over_training"], "samples/over_training", last_step)

    # ------------------------------------------------------------------ what
    def pictures(self, module: Samples, value_range: tuple[float, float] | None = None) -> dict[str, Image.Image]:
        """The pictures of the module as it is, by name: ``grid``, and ``interpolation`` and ``neighbours`` if asked."""
        classes = module.num_classes
        rows = self.rows or (8 if classes is None else min(classes, 20))
        labels = None if classes is None else (torch.arange(rows) % classes).repeat_interleave(self.columns)
        samples = self.sample(module, rows * self.columns, labels)
        shape = tuple(samples.shape[1:])
        if shape in ((1,), (2,)):
            return {"grid": self.points_picture(module)}
        if len(shape) != 3:
            message = f"SampleGrid draws images (C, H, W), and points in 1-D and 2-D; not samples of {shape}."
            warnings.warn(message, stacklevel=2)
            return {}
        value_range = range_of(samples, value_range)
        found = {"grid": grid_image(samples, self.columns, value_range, self.cell)}
        if self.interpolations and has(module, Latents):
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

    def sample(self, module: Samples, n: int, labels: Tensor | None = None) -> Tensor:
        """``n`` samples of the fixed noise."""
        return module.sample(n, labels, generator=torch.Generator().manual_seed(self.seed)).float()

    def walk(self, module: Any) -> Tensor:
        """(interpolations * columns, ...) samples along :func:`slerp` paths, one class per row if there are classes."""
        return walk(module, self.interpolations, self.columns, self.seed)

    def points_picture(self, module: Samples) -> Image.Image:
        """Samples and data in 1-D or 2-D, and what the discriminator says there, if there is one."""
        model: Any = module
        critic = has(module, Critic) and not model.conditional  # a score needs a class, and toy data have none
        fake, real = self.sample(module, self.points), self.real_points(module)
        limits = (self.limits or common_bounds(fake, real)) if fake.shape[1] == 1 else None
        self.limits = None if real is None else limits
        return toy_picture(
            fake,
            real,
            partial(scores, model) if critic else None,
            None if world_size() > 1 else getattr(module, "dual", None),  # p_g is over all ranks, and one draws
            like=next(model.discriminator.parameters()) if critic else fake,
            limits=limits,
        )

    def training_items(self) -> Tensor | None:
        """Clean training items, uint8 images or points; None without a datamodule that has them."""
        if self.items is None and self.reference is not None:
            self.items = self.reference("train")[0]
        return self.items

    def real_points(self, module: Samples) -> Tensor | None:
        """Real toy samples to compare with, (points, d)."""
        if self.training_items() is None and module.last_batch is not None:
            self.items = module.last_batch.real  # kept, so that the axes stay the same
        return None if self.items is None else self.items[: self.points].float()
