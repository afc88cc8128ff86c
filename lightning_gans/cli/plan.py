"""The resolved plan of a run, for ``--dry_run``."""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.engine.module import GenerativeModule


def plan(model: GenerativeModule, data: GANDataModule, options: Any, run_dir: Path, steps: int = 3) -> str:
    """The resolved plan of a run: shapes, parameters, batches, and time and memory measured over a few real steps."""
    trial = copy.deepcopy(model)
    clock: list[float] = []

    class Clock(callbacks.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            clock.append(time.perf_counter())

    trainer_options = {k: options["trainer"].get(k) for k in ("accelerator", "precision")}
    trainer = pl.Trainer(max_steps=steps + 1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, devices=1, limit_val_batches=0, callbacks=[Clock()],
                         **trainer_options)  # fmt: skip
    trainer.fit(trial, datamodule=data)
    seconds = (clock[-1] - clock[0]) / max(1, len(clock) - 1)
    size, updates = data.batch_size, options["trainer"].get("max_steps", -1)

    def count(net: nn.Module) -> str:
        return f"{type(net).__name__}, {sum(p.numel() for p in net.parameters()):,} parameters"

    players = {name: " and ".join(player.networks) for name, player in model.players.items()}
    turns = [f"{getattr(model, f'{name}_steps', 1)} {nets} update(s)" for name, nets in players.items()]
    networks = [name for player in reversed(model.players.values()) for name in player.networks]
    factor = getattr(model, "g_batch_factor", None)
    fakes = "" if factor is None else f", {size * factor} fakes for the generator's"
    total = (
        f"{updates:,} {players[model.counted]} updates, about {_duration(seconds * updates)}"
        if updates > 0
        else "no max_steps"
    )
    if torch.cuda.is_available() and trial.device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB peak on the GPU"
    else:
        memory = f"{_peak_memory_mib():,.0f} MiB peak of this process"
    penalties = [name for name in getattr(model, "own_terms", ()) if name != "adversarial"]
    penalties += [r.name for r in getattr(model, "regularizers", ())]
    return "\n".join(
        [
            f"Technique      {type(model).__name__}, {', '.join(turns)} per cycle",
            f"Data           {data.describe()}",
            f"Samples        shape {tuple(data.shape)}, range {data.value_range}, classes {data.num_classes}",
            f"Noise          shape {model.noise_shape}",
            *(f"{name.capitalize():<14} {count(getattr(model, name))}" for name in networks),
            f"Regularizers   {', '.join(penalties) or 'none'}",
            f"Batch          {size} real samples for an update{fakes}",
            f"Cycle          {seconds * 1000:.1f} ms measured, {size * model.batches_needed()[0]} images",
            f"Length         {total}",
            f"Memory         {memory}",
            f"Run folder     {run_dir}",
        ]
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _peak_memory_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
