"""What a run has left behind, as numbers and text: for reports and comparisons."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gans import checks
from lightning_gans.runs.card import NEITHER, goodness
from lightning_gans.runs.checkpoints import newest_checkpoint, read_checkpoint
from lightning_gans.runs.folder import newest_config, reached

SECONDS = "time/seconds"
# What may differ between two runs on the same data: how it is fetched and dealt out.
_DEALING = {"batch_size", "batches_per_epoch", "root", "download", "workers", "flip", "dequantize", "one_hot"}
# Parts of scores' names of which more is better, where no checkpoint tells (`ScoreCallback.higher_is_better`).
HIGHER_IS_BETTER = frozenset(("is", "precision", "recall", "density", "coverage", "modes", "high_quality", "bleu",
                              "distinct", "accuracy", "harmonic", "right"))  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Values over generator updates, both of one length; values may be NaN."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Record:
    """A run's folder as it is read.

    Attributes:
        folder: it.
        curves: by the names of ``metrics.csv``, in its order.
        config: the newest configuration; empty where there is none.
        protocols: how scores were made, by the label of their file.
        warned: what was warned of during training, one line each.
    """

    folder: Path
    curves: dict[str, Curve]
    config: dict[str, Any] = field(default_factory=dict)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)

    @property
    def scores(self) -> list[str]:
        """Names of the scores."""
        return [name for name in self.curves if name.startswith("metrics/")]

    @property
    def updates(self) -> int:
        """The last one on record, or that of the newest checkpoint."""
        saved = self.checkpoint.get("global_step", 0)
        return int(max(saved, *(curve.steps[-1] for curve in self.curves.values())))

    @property
    def missing(self) -> int:
        """Updates that were asked for and are not made yet; 0 where no checkpoint tells, or epochs have ended it."""
        trainer = self.config.get("trainer") or {}
        if "global_step" not in self.checkpoint or reached(trainer, self.checkpoint):
            return 0
        return max(0, (trainer.get("max_steps") or -1) - self.updates)

    @property
    def done(self) -> str:
        """Updates, and of how many, if they are not all."""
        return f"{self.updates:,}" + (f" of {self.updates + self.missing:,}" if self.missing else "")

    @property
    def ended(self) -> tuple[int, str] | None:
        """The error that ended it, and at which update, if it did not go on since."""
        found = [match for line in self.warned if (match := re.fullmatch(r"update (\d+): ended by (.+)", line))]
        return (int(found[-1][1]), found[-1][2]) if found and int(found[-1][1]) >= self.updates else None

    @property
    def seed(self) -> Any:
        """As configured."""
        return self.config.get("seed_everything")

    @property
    def data(self) -> Any:
        """Class and arguments of the data, without how they are dealt out; None where they are not on record."""
        return _without(self.config.get("data"), _DEALING)

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """The newest one; empty where none can be read."""
        try:
            return read_checkpoint(newest_checkpoint(self.folder))
        except (FileNotFoundError, ValueError):
            return {}

    @cached_property
    def higher_is_better(self) -> frozenset[str]:
        """Parts of the names of such scores."""
        states = self.checkpoint.get("callbacks", {}).values()
        known = [s["higher_is_better"] for s in states if isinstance(s, Mapping) and "higher_is_better" in s]
        return HIGHER_IS_BETTER.union(*known)

    def goodness(self, name: str) -> Callable[[float], float]:
        """Larger for the better of two values of a score."""
        return goodness(name, self.higher_is_better)

    def best(self, name: str) -> tuple[float, int] | None:
        """The best value of a score after update 0, and its update; None if there is none, or none is better."""
        if set(name.split("/")) & NEITHER:
            return None
        good = self.goodness(name)
        return max(self._trained(name), key=lambda pair: good(pair[0]), default=None)

    def seconds_at(self, step: float) -> float:
        """Seconds of training until an update, between those on record, or behind them at the usual pace; else NaN."""
        if self._clock is None:
            return math.nan
        steps, seconds = self._clock.steps, self._clock.values
        behind = step - float(steps[-1])
        if behind > 0 and (rate := self.updates_per_second) > 0:
            return float(seconds[-1]) + behind / rate
        return float(np.interp(step, steps, seconds))

    @cached_property
    def _clock(self) -> Curve | None:
        """Seconds over updates, from 0 on."""
        known = self.curves.get(SECONDS)
        return None if known is None else Curve(*(np.concatenate([[0.0], x]) for x in (known.steps, known.values)))

    def reached(self, name: str, value: float) -> int | None:
        """The first update after 0 at which a score is as good as a value; None where none is better than another."""
        if set(name.split("/")) & NEITHER:
            return None
        good = self.goodness(name)
        return next((step for v, step in self._trained(name) if good(v) >= good(value)), None)

    def _trained(self, name: str) -> list[tuple[float, int]]:
        curve = self.curves[name]
        return [(v, int(s)) for s, v in zip(curve.steps, curve.values) if s > 0 and math.isfinite(v)]

    @cached_property
    def updates_per_second(self) -> float:
        """The median between rows, which passes over the time of scores; NaN where it is not on record."""
        if self._clock is None:
            return math.nan
        first = 1 if len(self._clock.steps) > 2 else 0  # of one row there is nothing else to go by
        took, made = np.diff(self._clock.values[first:]), np.diff(self._clock.steps[first:])
        return float(np.median(made[took > 0] / took[took > 0])) if (took > 0).any() else math.nan


def read_record(folder: str | Path) -> Record:
    """Read a run's folder.

    Raises:
        ValueError: there is no ``metrics.csv`` with a number in it, or its configuration is no YAML.
    """
    folder = Path(folder)
    path = folder / "metrics.csv"
    if not path.is_file():
        raise ValueError(f"A run must hold metrics.csv, got {folder}, which has none{checks.near(folder)}")
    curves = read_curves(path)
    if not curves:
        raise ValueError(f"metrics.csv must hold steps and values, got none in {path}.")
    warned = folder / "warnings.txt"
    lines = warned.read_text("utf-8", "replace").splitlines() if warned.is_file() else []
    return Record(folder, curves, newest_config(folder), _protocols(folder), lines)


def read_curves(path: Path) -> dict[str, Curve]:
    """The columns of a ``metrics.csv`` that have values, by rising steps; of a step that is there twice, the last."""
    columns: dict[str, dict[float, float]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            if step is None:
                continue
            for name, text in row.items():
                if name and name != "step" and (value := _number(text)) is not None:
                    columns.setdefault(name, {})[step] = value
    return {n: Curve(*np.array(sorted(column.items()), dtype=float).T) for n, column in columns.items()}


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _protocols(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("scores-*.jsonl")):
        try:
            last = json.loads(path.read_text().strip().splitlines()[-1])
            found[path.stem.removeprefix("scores-")] = dict(last["protocol"])
        except (ValueError, IndexError, KeyError, TypeError):  # half a line of a killed run
            continue
    return found


def _without(config: Any, names: set[str]) -> Any:
    if isinstance(config, Mapping):
        return {key: _without(value, names) for key, value in config.items() if key not in names}
    return config
