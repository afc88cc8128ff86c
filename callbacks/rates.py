"""How fast a training is, and how large its steps are: on the same axis as everything else."""

from __future__ import annotations

import time
from typing import Any

from lightning_gans.compat.lightning import pl


class Rates(pl.Callback):
    """Logs ``lr/<player>``, ``time/seconds`` and ``time/seconds_per_update`` to all loggers, with the loss terms.

    ``time/seconds`` is the wall clock of the fit from its first batch on, what callbacks take included; a resumed one
    counts on from its checkpoint. ``time/seconds_per_update`` is the mean since the value before, or since the first
    batch. The command line has one in each run, which logs at its last update, too.

    >>> callback = Rates()  # for pl.Trainer(callbacks=[callback])
    >>> callback.load_state_dict({"seconds": 90.0})  # of a checkpoint
    >>> callback.seconds
    90.0
    """

    def __init__(self) -> None:
        super().__init__()
        self.before = 0.0  # seconds of fits that this one goes on from
        self._begun: float | None = None
        self._since = 0, 0.0  # an update, and when it was done

    @property
    def seconds(self) -> float:
        """Of the fit so far."""
        return self.before + (0.0 if self._begun is None else time.perf_counter() - self._begun)

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from them."""
        self.before = float(state_dict.get("seconds", 0.0))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """A new fit begins at 0; a checkpoint is read after this."""
        self.before, self._begun = 0.0, None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The clock starts: behind the scores of update 0, for which a classifier may be trained first."""
        if self._begun is None:
            self._begun, self._since = time.perf_counter(), (pl_module.global_step, self.before)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log them where loss terms are logged."""
        self.log_rates(trainer, pl_module)

    def log_rates(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Log them if that is due; whether it was."""
        step, every = pl_module.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or step % every or not trainer.is_global_zero or self._since[0] == step:
            return False
        values = self.rates(pl_module)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
        return True

    def rates(self, pl_module: pl.LightningModule) -> dict[str, float]:
        """What is logged."""
        module: Any = pl_module
        values = {f"lr/{name}": s.optimizer.param_groups[0]["lr"] for name, s in module.run.steps.items()}
        (before, then), self._since = self._since, (module.global_step, self.seconds)
        return values | {
            "time/seconds": self._since[1],
            "time/seconds_per_update": (self._since[1] - then) / (module.global_step - before),
        }

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock stops."""
        self.before, self._begun = self.seconds, None
