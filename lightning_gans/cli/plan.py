"""What will be trained: in short where a run begins, and measured for ``--dry_run``."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_gans.callbacks.ema import EMA
from lightning_gans.callbacks.probe import Asks
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.engine import rng
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.monitors import refuse_unmeasured

ENOUGH = 20.0  # seconds of measuring, after which no other cycle begins, but for models of several phases
CYCLES = 3  # measured of each phase, behind its first


class Checks(callbacks.Callback):
    """Has callbacks refuse what they would refuse where a fit starts, but does nothing else with them."""

    def __init__(self, asking: Sequence[Any]) -> None:
        self.listed, self.asking = asking, [callback for callback in asking if isinstance(callback, Asks)]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Of the model, and of each other."""
        EMA.check_once(self.listed)
        for callback in self.asking:
            callback.on_fit_start(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Of the data, and of their scores."""
        with rng.untouched():
            for callback in self.asking:
                callback.check(trainer, pl_module)
            refuse_unmeasured(self.listed, trainer)


def plan(model: GenerativeModule, data: GANDataModule, options: Any, run_dir: Path, asking: Sequence[Any] = ()) -> str:
    """The resolved plan of a run: shapes, parameters, batches, and time and memory measured over a few real steps.

    Callbacks of the run (``asking``) that do not fit the model or the data refuse them, as they would in the run.
    """
    trial = copy.deepcopy(model)
    seconds = _measured(trial, data, options, asking)
    measured = " and ".join(f"{s:.3g} s" if s >= 1 else f"{s * 1000:.1f} ms" for s in seconds.values())
    size, updates = data.batch_size, options["trainer"].get("max_steps", -1)

    factor = getattr(model, "g_batch_factor", None)
    fakes = "" if factor is None else f", {size * factor} fakes for the generator's"
    total = "no max_steps"
    if updates > 0:
        parts, left = [], updates
        for name, most in _phases(model).items():
            if (n := left if most is None else min(most, left)) > 0:
                parts.append((name, n))
                left -= n
        told = " and ".join(counted(n, f"{_whose(model, name)}update") for name, n in parts)
        total = f"{told}, about {duration(sum(seconds[name] * n for name, n in parts))}"
    if (epochs := options["trainer"].get("max_epochs") or -1) > 0:
        total = f"{total}, or {counted(epochs, 'epoch')}" if updates > 0 else counted(epochs, "epoch")
    if torch.cuda.is_available() and trial.device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB peak on the GPU"
    else:
        memory = f"{_peak_memory_mib():,.0f} MiB peak of this process"
    penalties = [name for name in getattr(model, "own_terms", ()) if name != "adversarial"]
    penalties += [r.name for r in getattr(model, "regularizers", ())]
    return "\n".join(
        [
            _technique(model),
            f"Data           {data.describe()}",
            f"Samples        shape {tuple(data.shape)}, range {data.value_range}, classes {data.num_classes}",
            f"Noise          shape {model.noise_shape}",
            *_networks(model),
            f"Regularizers   {', '.join(penalties) or 'none'}",
            f"Batch          {size} real samples for an update{fakes}",
            f"Cycle          {measured} measured, {counted(size * model.batches_needed()[0], 'sample')}",
            f"Length         {total}",
            f"Memory         {memory}",
            f"Run folder     {run_dir}",
        ]
    )


def _measured(trial: GenerativeModule, data: GANDataModule, options: Any, asking: Sequence[Any]) -> dict[str, float]:
    """Seconds of a cycle of each phase that has updates, over a few real ones, which change the model."""
    phases = _phases(trial)
    played = [name for name, n in phases.items() if n != 0]
    clock, begun = list[tuple[str, float]](), dict[str, float]()
    if hasattr(trial, "phases"):
        trial.phases = {name: 0 if n == 0 else CYCLES + 1 for name, n in phases.items()}

    class Clock(callbacks.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            self.phase = trial.counted
            begun.setdefault(self.phase, time.perf_counter())

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            clock.append((self.phase, time.perf_counter()))
            trainer.should_stop |= len(played) == 1 and clock[-1][1] - begun[self.phase] > ENOUGH

    trainer_options = {k: options["trainer"].get(k) for k in ("accelerator", "precision")}
    trainer = pl.Trainer(max_steps=len(played) * (CYCLES + 1), logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, devices=1, limit_val_batches=0,
                         callbacks=[Checks(asking), Clock()], **trainer_options)  # fmt: skip
    trainer.fit(trial, datamodule=data)
    seconds = dict.fromkeys(played, 0.0)
    for name in played:
        times = [t for phase, t in clock if phase == name]
        if len(times) == 1:  # one was enough
            seconds[name] = times[0] - begun[name]
        elif times:
            seconds[name] = (times[-1] - times[0]) / (len(times) - 1)
    return seconds


class Opening(callbacks.Callback):
    """Says, before anything is trained, what will be, on what, for how long, and where the run lies."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Say it on the first rank; files are there by now, and a checkpoint is read."""
        with rng.untouched():  # here no score was measured yet, and no file written
            refuse_unmeasured(trainer.callbacks, trainer)
        if trainer.is_global_zero:
            with rng.untouched():  # whatever a description reads or draws
                told = opening(trainer, pl_module, self.run_dir)
            print(told, flush=True)


def opening(trainer: Any, model: GenerativeModule, run_dir: Path) -> str:
    """A few lines, of what is known without a step."""
    data: Any = trainer.datamodule
    seed, batch, done = os.environ.get("PL_GLOBAL_SEED"), getattr(data, "batch_size", None), model.global_step
    where = f"{trainer.strategy.root_device}{f' and {n - 1} more' if (n := trainer.world_size) > 1 else ''}"
    told = type(data).__name__
    with suppress(NotImplementedError):  # of a user's own
        told = data.describe()
    limits = [(trainer.max_steps, f"{_whose(model, model.counted)}update"), (trainer.max_epochs or -1, "epoch")]
    length = ", or ".join(counted(n, what) for n, what in limits if n > 0) or "until it is stopped"
    for limit in (c for c in trainer.callbacks if isinstance(c, callbacks.Timer)):
        length += f", at most {duration(limit.time_remaining() or 0.0)}"
    of_which = f", of which {done:,} {'is' if done == 1 else 'are'} done" if done else ""
    return "\n".join(
        [
            _technique(model),
            f"Data           {told}{f', batches of {batch:,}' if batch else ''}",
            *_networks(model),
            f"Length         {length}{of_which}",
            f"Device         {where}, precision {trainer.precision}{f', seed {seed}' if seed else ''}",
            f"Run folder     {run_dir}",
        ]
    )


def _phases(model: GenerativeModule) -> dict[str, int | None]:
    """Players whose updates are counted, one after the other, and how many; None: all that are left."""
    return dict(getattr(model, "phases", {model.counted: None}))


def _technique(model: GenerativeModule) -> str:
    if len(phases := _phases(model)) > 1:
        parts = [
            f"{_whose(model, name)}updates" if n is None else counted(n, f"{_whose(model, name)}update")
            for name, n in phases.items()
        ]
        return f"Technique      {type(model).__name__}, {', then '.join(parts)}"
    times = {name: getattr(model, f"{name}_steps", 1) for name in model.players}
    turns = [counted(n, f"{_whose(model, name)}update") for name, n in times.items()]
    return f"Technique      {type(model).__name__}, {', '.join(turns)} per cycle"


def _whose(model: GenerativeModule, name: str) -> str:
    """A player by its networks, unless it is the only one."""
    return f"{' and '.join(_nets(model, name))} " if len(model.players) > 1 else ""


def _nets(model: GenerativeModule, player: str) -> dict[str, nn.Module]:
    """Networks of a player by name: what only holds parameters is none."""
    nets = zip(model.players[player].networks, model.networks(player))
    return {name: net for name, net in nets if not isinstance(net, (nn.ParameterDict, nn.ParameterList))}


def _networks(model: GenerativeModule) -> list[str]:
    """Class and size of each."""
    nets = {name: net for player in reversed(model.players) for name, net in _nets(model, player).items()}
    return [
        f"{name.capitalize():<14} {type(net).__name__}, {sum(p.numel() for p in net.parameters()):,} parameters"
        for name, net in nets.items()
    ]


def duration(seconds: float) -> str:
    """A duration, to be read."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if round(seconds) >= 2 * length:
            amount = seconds / length
            return f"{amount:,.0f} {unit}" if amount >= 9.95 else f"{amount:.1f} {unit}"
    return counted(round(seconds), "second")


def counted(n: int, what: str) -> str:
    """So many of it, to be read."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def _peak_memory_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
