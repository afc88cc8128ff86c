"""A CSV logger with one row per step, that a resumed run goes on writing."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_gans._lightning import loggers, utilities


class MetricsCSV(loggers.Logger):
    """Writes ``<save_dir>/metrics.csv``: a ``step`` column (generator updates) and one column per metric.

    Lightning's own ``CSVLogger`` deletes the file when a run is resumed, and writes a row per call. Here values of one
    step share a row, rows from before the resumed step are kept, and later ones (of a run that died) are dropped.

    Args:
        save_dir: folder of the run.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._row: dict[str, Any] = {}
        self._started = False

    @property
    def save_dir(self) -> str:
        """Folder of the run."""
        return str(self._folder)

    @property
    def path(self) -> Path:
        """The CSV file."""
        return self._folder / "metrics.csv"

    @property
    def name(self) -> str:
        """Empty: the run's folder is the whole name."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as :attr:`name`."""
        return ""

    @utilities.rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of ``step``; a row is written once the next step begins."""
        step = int(step or 0)
        if not self._started:
            self._started = True
            self._rows = self._read(step)
            self._columns = list(dict.fromkeys(name for row in self._rows for name in row)) or ["step"]
            self._rewrite()
        if self._row and self._row["step"] != step:
            self._write_row()
        self._row |= {"step": step, **{name: float(value) for name, value in metrics.items() if name != "step"}}

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's configuration is ``config.yaml``."""

    def save(self) -> None:
        """Nothing to do between rows."""

    @utilities.rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last row."""
        if self._row:
            self._write_row()

    def _read(self, before: int) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(file)]
        return [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) < before]

    def _write_row(self) -> None:
        self._rows.append(self._row)
        new = [name for name in self._row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(self._row)
        self._row = {}

    def _rewrite(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(temporary, self.path)
