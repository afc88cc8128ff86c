"""When to validate, counted in batches, where Lightning would count its steps, each of which may take many."""

from __future__ import annotations

import math
from typing import Any


def batches_of_cycle(module: Any) -> int:
    """How many batches a whole cycle takes, also in the middle of one."""
    progress = module.progress
    done, progress.done = progress.done, dict.fromkeys(progress.done, 0)
    try:
        return int(module.batches_needed()[0])
    finally:
        progress.done = done


def validate_by_batches(trainer: Any, module: Any) -> None:
    """Let ``val_check_interval`` be a share of an epoch, or a number of batches, rounded up to whole cycles.

    Lightning sets what it goes by when it opens the loader, and compares it with its steps. Where a cycle has several,
    it would end an epoch after as many of them as there are batches; the data are to end it.
    """
    size, updates, run = batches_of_cycle(module), module.g_steps, module.run
    if run.counted is not trainer.train_dataloader:  # Lightning has counted its batches
        run.counted, run.batches = trainer.train_dataloader, trainer.num_training_batches
    if updates > 1 and 0 < run.batches < math.inf:
        trainer.fit_loop.max_batches = (run.batches // size + 3) * updates
    if size == updates == 1 or trainer.val_check_batch in (None, math.inf):  # as it comes; by the clock; at the end
        return
    interval: int | float = trainer.val_check_interval
    batches = interval if isinstance(interval, int) else interval * run.batches
    steps = max(1, math.ceil(round(batches / size, 6))) * updates
    if trainer.fast_dev_run:  # which ends after so many
        steps = min(steps, trainer.max_steps)
    across = trainer.check_val_every_n_epoch is None  # it is counted over epochs
    trainer.val_check_batch = steps if across else min(steps, trainer.num_training_batches)
