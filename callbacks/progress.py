"""One progress bar for one training."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

from lightning_gans import checks
from lightning_gans.compat.lightning import callbacks, pl

_FORMAT = "{l_bar}{bar:20}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_fmt}{postfix}]"
_NARROW = "{n_fmt}/{total_fmt} |{bar:6}| [{remaining} left{postfix}]"
_WIDE = 120  # columns, from which on there is room for the first
_BATCHES = "{desc}{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} batches [{elapsed}, {remaining} left]"
_REDRAW_SECONDS = 0.1  # reading the metrics waits for the device, so not every step
_FILE_SECONDS = 10.0  # where the bar goes to a file, each time as another line


class GANProgressBar(callbacks.TQDMProgressBar):
    """One bar over the whole training, counting the updates, of a GAN the generator's, beside loss terms and score.

    The total is ``max_steps``, or what ``max_epochs`` amounts to (corrected after the first epoch), or unknown. A
    resumed training goes on where it stopped. Shown are the time left, whatever was logged with ``prog_bar=True``, a
    score first and without the group ``metrics/``, the others behind the losses, and the terms of each loss, as many as
    the terminal has room for: ``fid/lenet=14.2, d/loss=-3.1, g/loss=1.2, d/adversarial=-3.5, ...``. In less than 120
    columns it is shorter. That of ``predict`` goes when it is full; the others are Lightning's.

    Args:
        refresh_rate: redraw after every n-th update (at most ten times a second, or into a file every ten seconds); 0
            hides the bar.
        process_position: lines to leave free above the bar.

    >>> from types import SimpleNamespace
    >>> bar, trainer = GANProgressBar(refresh_rate=10), SimpleNamespace(max_steps=-1, max_epochs=20)
    >>> bar.train_description, bar.total_updates(trainer, done=0, epochs_left=20, per_epoch=50)
    ('Generator updates', 1000)
    """

    def __init__(self, refresh_rate: int = 1, process_position: int = 0) -> None:
        checks.at_least(0, refresh_rate=refresh_rate, process_position=process_position)
        super().__init__(refresh_rate=refresh_rate, process_position=process_position)
        self.epoch_start = 0  # generator updates done when the current epoch began
        self.drawn_at, self.wait, self.counts = 0.0, _REDRAW_SECONDS, "Generator updates"

    @property
    def train_description(self) -> str:
        """What the bar counts."""
        return self.counts

    @property
    def predict_description(self) -> str:
        """What the bar of predict counts batches of."""
        return "Samples"

    def init_predict_tqdm(self) -> Any:
        """Batches of samples."""
        bar = super().init_predict_tqdm()
        bar.leave, bar.bar_format, self.wait = False, _BATCHES, _wait(bar)
        return bar

    def on_predict_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """The total is known."""
        super().on_predict_batch_start(trainer, *args, **kwargs)
        self.predict_progress_bar.set_description(self.predict_description, refresh=False)

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Advance, as seldom as the other bar, and to the end."""
        last = batch_idx + 1 == self.predict_progress_bar.total
        if last or time.monotonic() - self.drawn_at >= self.wait:
            self.drawn_at = time.monotonic()
            super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, *args)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The logged values, three digits each, under short names."""
        known: dict[str, Any] = dict(trainer.progress_bar_metrics)
        scores = [name for name in known if name.startswith("metrics/")]
        values = {n: known[n] for n in (*scores[:1], *(n for n in known if n not in scores), *scores[1:])}
        for player, step in getattr(getattr(pl_module, "run", None), "steps", {}).items():
            names = [f"{player}/{term}" for term in step.terms] if len(step.terms) > 1 else []
            values |= {n: trainer.callback_metrics[n] for n in names if n in trainer.callback_metrics}
        return {name.removeprefix("metrics/"): f"{float(value):.3g}" for name, value in values.items()}

    def total_updates(self, trainer: pl.Trainer, done: int, epochs_left: int, per_epoch: float) -> int | None:
        """Generator updates of the whole training: ``done`` in whole epochs, then ``per_epoch`` in each epoch left."""
        totals: list[float] = []
        if trainer.max_steps >= 0:
            totals.append(trainer.max_steps)
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            totals.append(done + epochs_left * per_epoch)
        total = min(totals, default=math.inf)
        return int(total) if math.isfinite(total) else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, at the position of the checkpoint when training is resumed."""
        done = pl_module.global_step
        self.epoch_start = done - _made_in_epoch(trainer, getattr(pl_module, "g_steps", 1))
        epochs_left = (trainer.max_epochs or 0) - trainer.current_epoch
        of_generator = getattr(pl_module, "counted", "g" if hasattr(pl_module, "discriminator") else None) == "g"
        self.counts = "Generator updates" if of_generator else "Updates"
        bar = self.train_progress_bar = self.init_train_tqdm()
        bar.unit, bar.bar_format = " updates", _FORMAT
        bar.initial = bar.n = bar.last_print_n = done  # the rate counts from here
        bar.total = self.total_updates(trainer, self.epoch_start, epochs_left, float(trainer.num_training_batches))
        self.wait = _wait(bar)
        bar.refresh()

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """The bar is not reset: it counts the whole training."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance to the module's number of generator updates."""
        step, bar = pl_module.global_step, self.train_progress_bar
        if bar.disable or step == bar.n or step % self.refresh_rate:
            return
        if (now := time.monotonic()) - self.drawn_at >= self.wait:
            self.drawn_at = now
            self.draw(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Correct the total by the updates that this epoch really made."""
        step = pl_module.global_step
        per_epoch, self.epoch_start = step - self.epoch_start, step
        epochs_left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        self.train_progress_bar.total = self.total_updates(trainer, step, epochs_left, per_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last state and leave it on the screen."""
        if not self.train_progress_bar.disable:
            self.draw(trainer, pl_module)
        self.train_progress_bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """End its line at the number of updates, so that what is said of the exception has one of its own."""
        with suppress(TypeError):  # there was no bar yet
            self.train_progress_bar.n = max(self.train_progress_bar.n, pl_module.global_step)
            self.train_progress_bar.close()
        with suppress(TypeError):
            self.predict_progress_bar.close()

    def draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the number of updates and the latest values, whole ones only."""
        bar, values = self.train_progress_bar, self.get_metrics(trainer, pl_module)
        bar.n, room = pl_module.global_step, bar.format_dict["ncols"] or math.inf
        bar.bar_format = _FORMAT if room >= _WIDE else _NARROW
        bar.set_postfix(values, refresh=False)
        while values and len(bar.format_meter(**bar.format_dict | {"ncols": None})) > room:
            values.popitem()
            bar.set_postfix(values, refresh=False)
        bar.refresh()


def _made_in_epoch(trainer: Any, steps: int) -> int:
    """Updates that a resumed training has made in the epoch that it goes on with."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    made, whole = progress.current.ready, progress.is_last_batch
    return int(made) if trainer.ckpt_path and not whole and made < steps * trainer.num_training_batches else 0


def _wait(bar: Any) -> float:
    """Seconds from one drawing to the next."""
    file = getattr(bar, "fp", None)  # of a hidden bar, as those of other ranks are, there is none
    stream = getattr(file, "_wrapped", file)  # tqdm's, around a file or a terminal
    return _FILE_SECONDS if isinstance(stream, TextIOWrapper) and not stream.isatty() else _REDRAW_SECONDS
