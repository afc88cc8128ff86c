"""A long run takes no more memory than a short one."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from common import trainer

from lightning_gans import TECHNIQUES
from lightning_gans.callbacks import EMA, GANProgressBar, NonFiniteGuard
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Ring
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.runs.metrics_csv import MetricsCSV

STATM = Path("/proc/self/statm")
TOLERANCE = 3.0  # MiB; the allocator's own noise is below 1, and 53 bytes left behind per update are 3 MiB in 60,000


class Resident(pl.Callback):
    """The process's resident memory in MiB after every ``every`` updates; ``leak`` bytes are kept per update."""

    def __init__(self, every: int, leak: int = 0) -> None:
        self.every, self.leak = every, leak
        self.seen: list[float] = []
        self.kept: list[bytes] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.leak:
            self.kept.append(os.urandom(self.leak))
        if trainer.global_step % self.every == 0:
            gc.collect()
            self.seen.append(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)


def growth(*args: Any, **options: Any) -> float:
    """:func:`grown` in a process of its own: one that has run before reuses what it freed, and would hide a leak."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(grown, *args, **options).result()


def grown(folder: Path, technique: str, updates: int, leak: int = 0, **options: Any) -> float:
    """MiB by which the last fifth of a run stands above its second one, largest against largest."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    nets = ToyGenerator(width=4, depth=1), ToyDiscriminator(width=4, depth=1)
    module, resident = TECHNIQUES[technique](*nets, 2, **options), Resident(updates // 50, leak)
    callbacks = [EMA(), GANProgressBar(), NonFiniteGuard("rollback"), resident]
    t = trainer(max_steps=updates, callbacks=callbacks, logger=MetricsCSV(folder), enable_progress_bar=True)
    t.fit(module, train_dataloaders=Ring(batch_size=8, batches_per_epoch=1000).train_dataloader())
    assert len(resident.seen) == 50
    return max(resident.seen[40:]) - max(resident.seen[10:20])


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("technique", "updates", "options"),
    [("wgan_gp", 100_000, {"d_steps": 1}), ("wgan_gp", 10_000, {"d_steps": 5}), ("gan", 20_000, {})],
)
def test_memory_is_flat(tmp_path: Path, technique: str, updates: int, options: dict[str, Any]) -> None:
    assert growth(tmp_path, technique, updates, **options) < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads /proc")
def test_a_leak_would_be_seen(tmp_path: Path) -> None:
    assert growth(tmp_path, "gan", 10_000, leak=1000) > TOLERANCE
