"""The stage of ``benchmarks.gpu`` that trains a transformer."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import Any

import torch

from benchmarks.common import quiet
from benchmarks.gpu_games import Setting, given, tf32
from benchmarks.parts import Row, Send
from lightning_gans import TransGAN
from lightning_gans.compat.lightning import pl
from lightning_gans.networks import TransGANDiscriminator, TransGANGenerator

WAYS: dict[str, dict[str, Any]] = {
    "eager": {},
    "graphs": {"cuda_graphs": True},
    "graphs, bf16": {"cuda_graphs": True, "precision": "bf16-mixed"},
}


class Marks(pl.Callback):
    """Times at which updates of G end, by the device's clock."""

    def __init__(self, end: float) -> None:
        self.times: list[float] = []
        self.end, self.updates = end, 0

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """One more, unless data ended within a cycle; the fit stops at the end of its seconds."""
        if trainer.global_step == self.updates:
            return
        self.updates = trainer.global_step
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.monotonic())
        trainer.should_stop = self.times[-1] > self.end


def transformer(setting: Setting, send: Send) -> Row:
    """Updates of G per second of TransGAN for CIFAR-10, its final networks and its 4 updates of D to one of G."""
    tf32(True)
    rows: dict[str, Row] = {}
    whole = setting.scale == 1
    for i, (name, way) in enumerate(WAYS.items()):
        options = dict(way)
        precision = options.pop("precision", "32-true")
        g = TransGANGenerator() if whole else TransGANGenerator((3, 32, 32), 8, 64, (1, 1, 1), 1, "fused", False)
        d = TransGANDiscriminator() if whole else TransGANDiscriminator((3, 32, 32), (8, 4), (1, 1, 1), 8)
        module = TransGAN(g, d, g.latent_dim, **options)
        end = time.monotonic() + 0.9 * setting.left / (len(WAYS) - i)
        marks, batch = Marks(end), setting.times(64, 8)
        where = "gpu" if setting.device == "cuda" else "cpu"
        trainer = pl.Trainer(accelerator=where, devices=1, precision=precision,
                             max_steps=setting.times(60, 6), max_epochs=-1, callbacks=[marks], logger=False,
                             enable_checkpointing=False, enable_progress_bar=False,
                             enable_model_summary=False)  # fmt: skip
        try:
            with quiet():
                trainer.fit(module, given(setting, batch))
        except Exception as error:  # the other ways go on without it
            rows[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            send({"rows": rows})
            continue
        spans = [b - a for a, b in pairwise(marks.times)][4:]  # behind what is recorded, and chosen, first
        if spans:
            ms = 1000 * statistics.median(spans)
            rows[name] = {"ms": ms, "updates_per_second": 1000 / ms, "updates": len(spans), "batch": batch}
            send({"rows": rows})
    told = ", ".join(f"{name} {row['updates_per_second']:.3g}" for name, row in rows.items() if "ms" in row)
    return {"rows": rows, "told": f"TransGAN, updates per second: {told}"}
