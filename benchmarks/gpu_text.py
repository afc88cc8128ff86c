"""The stage of ``benchmarks.gpu`` that trains text GANs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from benchmarks.common import quiet
from benchmarks.gpu_games import Setting, tf32
from benchmarks.gpu_transformer import Marks
from benchmarks.parts import Row, Send
from lightning_gans import WGANGP, RelGAN
from lightning_gans.callbacks import TextMetrics
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import OracleText, PyDocText
from lightning_gans.metrics import TextScores
from lightning_gans.networks import CharCritic, CharGenerator, RelationalGenerator, RelGANDiscriminator

WAYS: dict[str, dict[str, Any]] = {"graphs": {"cuda_graphs": True}, "eager": {}}


def train(setting: Setting, module: Any, data: Any, end: float, updates: int, *callbacks: pl.Callback) -> Row:
    """Milliseconds per update, the first few left out; the fit ends in time."""
    marks = Marks(end)
    trainer = pl.Trainer(accelerator="gpu" if setting.device == "cuda" else "cpu", devices=1, max_steps=updates,
                         max_epochs=-1, callbacks=[marks, *callbacks], logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
                         default_root_dir=setting.scratch)  # fmt: skip
    begun = time.monotonic()
    with quiet():
        trainer.fit(module, datamodule=data)
    spans = [b - a for a, b in pairwise(marks.times)][4:]  # behind what is recorded, and chosen, first
    if not spans:
        raise TimeoutError("fewer than 6 updates fitted")
    ms = 1000 * statistics.median(spans)
    return {"ms": ms, "updates_per_second": 1000 / ms, "updates": len(marks.times), "batch": data.batch_size,
            "seconds_trained": marks.times[-1] - begun}  # fmt: skip


def characters(setting: Setting, way: dict[str, Any], end: float) -> Row:
    """The character WGAN-GP as published, against the clock: its n-gram JS, beside the lines of configs/pydoc."""
    width, blocks = setting.times(512, 4), setting.times(5, 1)
    data = PyDocText(length=32, batch_size=setting.times(64, 4))
    nets = CharGenerator(data.shape, 128, width, blocks), CharCritic(data.shape, width, blocks)
    module = WGANGP(*nets, 128, d_steps=10, betas=(0.5, 0.9), lr_g=1e-4, lr_d=1e-4, **way)
    scores = TextMetrics(2**40, setting.times(640, 20), ("js",), at_start=False)
    row = train(setting, module, data, end, 2**40 if setting.scale == 1 else 8, scores)
    training, held_out = (data.reference(split)[0] for split in ("train", "test"))
    own = torch.Generator().manual_seed(0)
    drawn = held_out[torch.randperm(len(held_out), generator=own)[: scores.num_samples]]
    symbols = training.flatten()
    alone = symbols[torch.randint(len(symbols), tuple(drawn.shape), generator=own)]
    js = TextScores(training, held_out, data.shape[1], ("js",))
    found = {name: value for name, value in scores.history[-1].items() if name != "step"}
    for line, texts in (("held_out", drawn), ("independent", alone)):
        found |= {f"{name}/{line}": value for name, value in js(texts).items() if name == "js-2"}
    return {**row, **found}


def relational(setting: Setting, way: dict[str, Any], end: float) -> Row:
    """RelGAN of its released sizes on an oracle of 5,000 words."""
    data = OracleText(setting.times(5000, 9), 20, setting.times(1000, 20), batch_size=setting.times(64, 2))
    generator = RelationalGenerator(data.shape, beta=(1.0, 2.0), **({} if setting.scale == 1 else {"head_size": 4}))
    critic = RelGANDiscriminator(data.shape, filters=setting.times(300, 4))
    return train(setting, RelGAN(generator, critic, generator.latent_dim, **way), data, end, setting.times(60, 6))


def text(setting: Setting, send: Send) -> Row:
    """RelGAN's updates per second, then 60 seconds of the character WGAN-GP."""
    tf32(True)
    torch.backends.cudnn.benchmark = True
    rows: dict[str, Row] = {}
    jobs: list[tuple[str, Callable[..., Row], dict[str, Any], float]] = [
        *((f"RelGAN, {name}", relational, way, 0.12) for name, way in WAYS.items()),
        ("character WGAN-GP, eager, a few updates", characters, WAYS["eager"], 0.1),
        ("character WGAN-GP, graphs", characters, WAYS["graphs"], 0.9),
    ]  # fmt: skip
    for name, job, way, share in jobs:
        torch.manual_seed(0)
        try:
            rows[name] = job(setting, way, time.monotonic() + min(60, share * setting.left))
        except Exception as error:  # the others go on without it
            rows[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        send({"rows": rows})
    last = rows[jobs[-1][0]]
    told = ", ".join(f"{name} {row['updates_per_second']:.3g}" for name, row in rows.items() if "ms" in row)
    if "metrics/js-2" in last:
        told += f"; JS_2 {last['metrics/js-2']:.3f}, independent letters {last['js-2/independent']:.3f}"
    return {"rows": rows, "told": f"updates per second: {told}"}
