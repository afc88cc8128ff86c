"""What several benchmarks need: a clock, silence, memory, and what a page tells of where it was measured."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import resource
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from lightning_gans.compat.lightning import pl

Clock = Callable[[int], None]


class Ticks(pl.Callback):
    """Calls a clock after each generator update."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.clock(trainer.global_step)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on the screen."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def spread(values: Sequence[float]) -> str:
    """Median (smallest to largest)."""
    return f"**{statistics.median(values):.3f}** ({min(values):.3f} to {max(values):.3f})"


def peak_mib() -> float:
    """Largest resident set of this process so far.

    Linux hands ``ru_maxrss`` of the parent on to a child that it starts, so the kernel's own mark is read there.
    """
    if (status := Path("/proc/self/status")).exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mib() -> float:
    """Resident set of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def commit() -> str | None:
    """What is checked out, if that can be told."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
    except OSError:  # there is no git
        return None


def circumstances(command: str) -> str:
    """Command, commit, date, hardware and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join([
        f"- Command: `{command}`",
        f"- Commit: {commit() or 'unknown'}; date: {date.today()}",
        f"- Hardware: {model}, {os.cpu_count()} cores, 1 torch thread; load average at the end {load}",
        f"- Versions: Python {platform.python_version()}, torch {torch.__version__}, {pl.__name__} {pl.__version__}",
    ])  # fmt: skip
