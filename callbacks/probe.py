"""What every diagnostic callback shares: when to look, how to look without leaving a trace, where the result goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.engine import rng
from lightning_gans.engine.batch import Batch
from lightning_gans.engine.contract import Critic, Played, require
from lightning_gans.engine.loggers import attempt
from lightning_gans.functional.modes import evaluating
from lightning_gans.visualization.images import save_image_atomic

_COUNTED = 2**24  # values at once


class Asks(pl.Callback):
    """Base of callbacks that work on models with a capability of ``engine.contract``: refuses others before training.

    Attributes:
        needs: the capability; None is any model.
    """

    needs: type | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a model that lacks what is needed, in one sentence."""
        if self.needs is not None:
            require(pl_module, self.needs, self)

    def check(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Raise one sentence if this cannot work here. Called before the first step, when the data are there."""


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Look at a module in training and leave it as it was.

    Inside, all its networks are in evaluation mode, so that no running statistic moves; afterwards every train/eval
    flag and the global random state (Python's, NumPy's, torch's) are what they were.
    """
    with rng.untouched(), evaluating(module):
        yield


def stepping(module: Played) -> str:
    """Name of the player whose optimizer steps now."""
    return str(module.run.stepping.player.name)


def scores(module: Critic, x: Tensor, labels: Tensor | None = None) -> Tensor:
    """The discriminator's scores (N,) of ``x`` (N, ...) with ``labels`` (N,), from any device, if it takes them."""
    return module.score(x, Batch(x, None if labels is None else labels.to(x.device), None, x))


class EveryNSteps(Asks):
    """Base of the diagnostics: calls :meth:`act` after every ``every_n_steps``-th generator update.

    A generator update is one increment of ``global_step``, whatever the number of discriminator updates. ``act`` runs
    inside :func:`untouched`, on every rank.
    """

    def __init__(self, every_n_steps: int) -> None:
        super().__init__()
        checks.at_least_one(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self.seen_step = -1  # the last generator update that we were told of

    def act(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        """Look at the module after its generator update number ``step`` (counted from 1)."""
        raise NotImplementedError

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember where training starts, which is not at zero when it is resumed."""
        self.seen_step = pl_module.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act if this batch ended in a generator update that is due."""
        step = pl_module.global_step
        if step == self.seen_step:
            return
        self.seen_step = step
        if step % self.every_n_steps == 0:
            with untouched(pl_module):
                self.act(trainer, pl_module, step)


class AlsoAtTheEnds(EveryNSteps):
    """Base of those that act on the untrained model too, and on the last state, unless that was just done.

    Args:
        every_n_steps: generator updates between; None: never, not at the ends either.
    """

    def __init__(self, every_n_steps: int | None) -> None:
        super().__init__(sys.maxsize if every_n_steps is None else every_n_steps)
        self.off = every_n_steps is None
        self.drawn_step = -1  # the last that :meth:`act` was called for, which it keeps here

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Act, if nothing is trained yet."""
        super().on_train_start(trainer, pl_module)
        self.drawn_step = -1
        if pl_module.global_step == 0:
            self._act_now(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Act on the last state."""
        if self.drawn_step != pl_module.global_step:
            self._act_now(trainer, pl_module)

    def _act_now(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.off:
            with untouched(module):
                self.act(trainer, module, module.global_step)


def cycle_begins(module: Any) -> bool:
    """Whether no player has had its turn in the cycle that comes next."""
    return not any(module.progress.done.values())


def due_in_cycle(module: Any, every: int) -> bool:
    """Whether one of the generator updates of the cycle that begins is an ``every``-th one."""
    step = module.global_step
    return bool((step + module.g_steps) // every > step // every)


class WholeCycles(EveryNSteps):
    """Base of diagnostics of whole cycles: calls :meth:`begin` before each with a due update in it, ``act`` after it.

    The discriminator steps along with the first of a cycle's generator updates, whichever of them is due. Of a cycle
    that is under way when training starts the beginning is not known: it is passed over.
    """

    cycle_is_due = False

    def begin(self, trainer: pl.Trainer, module: Any) -> None:
        """Remember what is to be compared when the cycle is over."""
        raise NotImplementedError

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for a cycle to begin."""
        super().on_train_start(trainer, pl_module)
        self.cycle_is_due = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See whether a cycle begins that is due."""
        if cycle_begins(pl_module):
            self.cycle_is_due = due_in_cycle(pl_module, self.every_n_steps)
            if self.cycle_is_due:
                self.begin(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act if this batch ended such a cycle."""
        step = pl_module.global_step
        if step != self.seen_step and self.cycle_is_due and cycle_begins(pl_module):
            with untouched(pl_module):
                self.act(trainer, pl_module, step)
        self.seen_step = step


# ---------------------------------------------------------------------- where it goes
class Draws(pl.Callback):
    """Base of callbacks that draw: finds the folder ``place`` in the run's, refuses one that cannot be written to.

    Args:
        dirpath: the run's folder; None means the logger's, or ``default_root_dir``.
    """

    place: str
    dirpath: str | Path | None = None
    folder = Path()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder, and refuse one that cannot be written to."""
        self.folder = run_dir(trainer, self.dirpath) / self.place
        if trainer.is_global_zero and stage == "fit":
            require_writable(self, self.folder)

    def show(self, trainer: pl.Trainer, image: Image.Image, names: Iterable[str], key: str, step: int) -> None:
        """Write the picture under all ``names``, and log it as ``key``."""
        for name in names:
            save_image_atomic(image, self.folder / f"{name}.png")
        log_image(trainer, key, image, step)


def run_dir(trainer: pl.Trainer, dirpath: str | Path | None = None) -> Path:
    """The run's folder: ``dirpath``, or the logger's, or ``default_root_dir``. Call it on all ranks.

    A logger with one folder for all runs (W&B's) has one in it for each, where Lightning puts checkpoints too, unless
    it and the trainer (``default_root_dir``) were given the same one, as on the command line.
    """
    if dirpath:
        return Path(dirpath)
    folder, first = Path(trainer.log_dir or trainer.default_root_dir), next(iter(trainer.loggers), None)
    if first is None or first.save_dir is None or isinstance(first, (loggers.TensorBoardLogger, loggers.CSVLogger)):
        return folder
    if os.path.normpath(first.save_dir) == str(trainer.default_root_dir):  # "." is a whole path there, and not the same
        return folder
    name, version = trainer.strategy.broadcast((first.name, first.version))  # which rank 0 alone may know
    return folder / str(name) / (version if isinstance(version, str) else f"version_{version}")


def require_writable(owner: object, folder: Path) -> None:
    """Raise a ValueError, before any work is lost, if ``folder`` cannot be made or written to. Creates nothing."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{type(owner).__name__}: dirpath {folder} cannot be used, since {there} is not a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{type(owner).__name__}: dirpath {folder} cannot be used, since {there} is not writable.")


def log_image(trainer: pl.Trainer, key: str, image: Image.Image, step: int) -> None:
    """Hand the picture to every logger that shows pictures (W&B, TensorBoard); others are passed over."""
    for logger in trainer.loggers:
        if isinstance(logger, loggers.WandbLogger):
            logger.log_image(key, [image], step=step)
        elif isinstance(logger, loggers.TensorBoardLogger):
            attempt(logger, partial(_draw, logger, key, image, step))


def _draw(logger: Any, key: str, image: Image.Image, step: int) -> None:
    logger.experiment.add_image(key, np.asarray(image), step, dataformats="HWC")


def histogram(values: Tensor, bins: int, low: float, high: float) -> Tensor:
    """Counts (bins,) of values (N,) between two ends, on the CPU: in parts, since torch counts to 2^24 in float32."""
    return torch.stack([torch.histc(part, bins, low, high).cpu().double() for part in values.split(_COUNTED)]).sum(0)


def log_histograms(trainer: pl.Trainer, found: Mapping[str, tuple[Tensor, Tensor]], step: int) -> None:
    """Hand counts (bins,) between edges (bins + 1,) to every logger that shows histograms (W&B, TensorBoard)."""
    for logger in trainer.loggers if found and trainer.is_global_zero else ():
        if isinstance(logger, (loggers.WandbLogger, loggers.TensorBoardLogger)):
            attempt(logger, partial(_count, logger, found, step))


def _count(logger: Any, found: Mapping[str, tuple[Tensor, Tensor]], step: int) -> None:
    if isinstance(logger, loggers.WandbLogger):  # all in one row of its history
        from wandb import Histogram

        drawn: Any = {key: Histogram(np_histogram=(n.numpy(), edges.numpy())) for key, (n, edges) in found.items()}
        logger.log_metrics(drawn, step=step)
        return
    for key, (counts, edges) in found.items():
        middle, n = (edges[1:] + edges[:-1]) / 2, counts.sum()
        logger.experiment.add_histogram_raw(
            key, float(edges[0]), float(edges[-1]), int(n), float((counts * middle).sum()),
            float((counts * middle.square()).sum()), edges[1:].tolist(), counts.tolist(), step)  # fmt: skip


def log_metrics(trainer: pl.Trainer, values: dict[str, float], step: int) -> None:
    """Hand the values to every logger, at this generator update."""
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)
