"""The values of a run's last update."""

from __future__ import annotations

from typing import Any

from lightning_gans.callbacks.probe import log_metrics
from lightning_gans.callbacks.rates import Rates
from lightning_gans.compat.lightning import callbacks
from lightning_gans.engine import logbook


class LastValues(callbacks.Callback):
    """Logs what a run ends with, where its last update is none that is logged: a short run has a row, too."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Of all ranks."""
        every, step = trainer.log_every_n_steps, pl_module.global_step
        if not every or not step % every or sum(pl_module.progress.updates.values()) == pl_module.run.began:
            return
        values = logbook.means(pl_module.values, pl_module.device)
        pl_module.run.require_finite(values, trainer)
        values["time/images_seen"] = float(pl_module.images_seen)
        values |= next(c.rates(pl_module) for c in trainer.callbacks if isinstance(c, Rates))
        log_metrics(trainer, values, step)
