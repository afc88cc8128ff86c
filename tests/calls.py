"""How many of the library's own functions a cycle calls."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import lightning_gans  # isort: skip  (before what imports torchvision)
import pytorch_lightning as pl

from lightning_gans import GANModule, callbacks, datamodules

FOLDERS = tuple(f"{Path(str(package.__file__)).parent}/" for package in (lightning_gans, callbacks, datamodules))
STEADY = 5  # cycles before the first that is counted


class _Count(pl.Callback):
    """Counts from the end of one Lightning step to the end of the next: one generator update."""

    def __init__(self) -> None:
        self.calls = 0
        self.updates: list[int] = []

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """Set by ``sys.setprofile``: a function's first line, or a generator's that is entered again."""
        if event == "call" and frame.f_code.co_filename.startswith(FOLDERS):
            self.calls += 1

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.updates.append(self.calls)
        self.calls = 0


def calls_per_cycle(module: GANModule, loader: Any, cycles: int = 9) -> int:
    """Calls of functions whose code lies in our folders in one cycle of a fit, the median of some steady cycles.

    What the loader does counts too if it is ours; a generator (a context manager's) counts each time it is entered.
    """
    count = _Count()
    steps = (STEADY + cycles) * module.g_steps
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, callbacks=[count], logger=False,
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                         log_every_n_steps=10**6)  # fmt: skip
    before = sys.getprofile()
    sys.setprofile(count.profile)
    try:
        trainer.fit(module, train_dataloaders=loader)
    finally:
        sys.setprofile(before)
    each = [sum(count.updates[i : i + module.g_steps]) for i in range(0, steps, module.g_steps)]
    return int(statistics.median(each[STEADY:]))
