"""Pictures of the directions that a training has found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_gans import checks
from lightning_gans.callbacks.probe import log_image, require_writable, run_dir
from lightning_gans.compat.lightning import pl
from lightning_gans.diagnostics.latent_directions import LatentDirections
from lightning_gans.visualization.images import save_image_atomic


class DirectionCharts(pl.Callback):
    """Writes ``all.png`` and one ``direction_<k>.png`` each when a training of directions ends, and logs them.

    Args:
        most: of how many directions, from the first on, there is a picture of its own.
        value_range: of images, the values that become black and white.
        dirpath: folder to write to; None is ``directions`` in that of the logger.

    >>> callback = DirectionCharts(most=4)  # for pl.Trainer(callbacks=[callback]), beside a module LatentDirections
    >>> callback.most, callback.value_range
    (4, (-1.0, 1.0))
    """

    def __init__(
        self, most: int = 16, value_range: tuple[float, float] = (-1.0, 1.0), dirpath: str | Path | None = None
    ) -> None:
        checks.at_least_one(most=most)
        self.most, self.value_range, self.dirpath = most, checks.interval("value_range", value_range), dirpath

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the folder, and refuse one that cannot be written to, or a module of another kind."""
        if not isinstance(pl_module, LatentDirections):
            raise ValueError(f"DirectionCharts needs LatentDirections, got a {type(pl_module).__name__}.")
        self.folder = Path(self.dirpath or run_dir(trainer) / "directions")
        if trainer.is_global_zero:
            require_writable(self, self.folder)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, write and log, on the first rank."""
        if not trainer.is_global_zero:
            return
        found: Any = pl_module
        for k in [None, *range(min(self.most, found.num_directions))]:
            image = found.chart(k, value_range=self.value_range)
            name = "all" if k is None else f"direction_{k:03d}"
            save_image_atomic(image, self.folder / f"{name}.png")
            log_image(trainer, f"directions/{name}", image, trainer.global_step)
