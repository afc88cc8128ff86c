"""One resumable fit, which every stage is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, read_checkpoint
from lightning_gans.runs.metrics_csv import MetricsCSV

EVERY = 100  # updates from checkpoint to checkpoint of `fit_items`
_BATCHES = 20  # of an epoch at least, since to begin one takes time


def fit(
    module: GenerativeModule,
    data: Any,
    max_steps: int,
    folder: str | Path | None = None,
    *,
    callbacks: Sequence[Any] = (),
    every_n_steps: int = 1000,
    begin: Callable[[], Any] = lambda: None,
    **options: Any,
) -> None:
    """Train a module up to ``max_steps`` updates; in a folder, go on from the checkpoint ``last.ckpt`` that lies there.

    A fit that was stopped comes to the same end to the bit, and one that has ended is only loaded.

    Args:
        module: what is trained.
        data: a data module or a loader; or a function without arguments that makes one, called if there is training.
        max_steps: updates.
        folder: where checkpoints go; None leaves nothing on disk.
        callbacks: of the trainer.
        every_n_steps: updates from checkpoint to checkpoint.
        begin: called before the first update, not when a fit goes on.
        options: of the ``Trainer``.

    Raises:
        ValueError: for a checkpoint that is unreadable or goes beyond ``max_steps``.
    """
    place = None if folder is None else Path(folder)
    checkpoint = None if place is None else place / "last.ckpt"
    saved = read_checkpoint(checkpoint) if checkpoint is not None and checkpoint.is_file() else None
    if saved is not None and saved["global_step"] > max_steps:
        raise ValueError(f"max_steps is {max_steps}, but {checkpoint} is of {saved['global_step']} updates.")
    if saved is not None and saved["global_step"] == max_steps:
        module.load_state_dict(saved["state_dict"])
        module.on_load_checkpoint(saved)
        return
    kept: list[Any] = []
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        kept = [lightning_callbacks.ModelCheckpoint(place, "last", every_n_train_steps=every_n_steps,
                                                    enable_version_counter=False)]  # fmt: skip
        options = {"default_root_dir": place, "plugins": [AtomicCheckpointIO()], **options}
    else:
        options = {"logger": False, "enable_checkpointing": False, **options}
    source = data() if callable(data) else data
    if saved is None:
        begin()
    options = {"max_epochs": -1, "limit_val_batches": 0, **options}
    trainer = pl.Trainer(max_steps=max_steps, callbacks=[*callbacks, *kept], **options)
    where = {"datamodule": source} if hasattr(source, "setup") else {"train_dataloaders": source}
    trainer.fit(module, ckpt_path=None if saved is None else str(checkpoint), **where)
    if checkpoint is not None:
        trainer.save_checkpoint(checkpoint)


def fit_items(
    module: GenerativeModule,
    items: Tensor,
    labels: Tensor | None,
    batch_size: int,
    steps: int,
    folder: str | Path | None,
    callbacks: Sequence[Any] = (),
) -> None:
    """`fit` on items (M, ...), however few, on their device, with losses in ``<folder>/metrics.csv``."""
    times = math.ceil(_BATCHES * batch_size / len(items))
    repeated = items.repeat(times, *[1] * (items.dim() - 1)), None if labels is None else labels.repeat(times)
    options: dict[str, Any] = {}
    if folder is not None:
        options = {"logger": MetricsCSV(folder), "log_every_n_steps": min(20, steps)}
    device = "gpu" if items.is_cuda else "cpu"
    fit(module, MemoryLoader(*repeated, batch_size), steps, folder, callbacks=callbacks,
        every_n_steps=EVERY, accelerator=device, devices=1, enable_model_summary=False, **options)  # fmt: skip
    module.to(items.device)
