"""A CSV logger with one row per step, that a resumed run goes on writing."""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_gans.compat.lightning import loggers, utilities
from lightning_gans.runs.atomic import replacing


class MetricsCSV(loggers.Logger):
    """Writes ``<save_dir>/metrics.csv``: a ``step`` column (generator updates) and one column per metric.

    Lightning's own ``CSVLogger`` deletes the file when a run is resumed, and writes a row per call. Here values of one
    step share a row, rows from before the resumed step are kept, and later ones (of a run that died) are dropped.

    A row is in the file as soon as its first value is logged.

    Args:
        save_dir: folder of the run.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._columns = ["step"]
        self._rows: list[dict[str, Any]] = []
        self._last = 0  # where the last row begins in the file
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
        """Add values to the row of ``step``."""
        step = int(step or 0)
        values = {name: float(value) for name, value in metrics.items() if name != "step"}
        if not self._started:
            self._rows = self._read(step)
            self._columns = list(dict.fromkeys(["step", *(name for row in self._rows for name in row)]))
        new_columns = [name for name in values if name not in self._columns]
        new_row = not self._rows or self._rows[-1]["step"] != step
        if new_row:
            self._rows.append({"step": step})
        self._rows[-1] |= values
        self._columns += new_columns
        if new_columns or not self._started:
            self._rewrite()
        else:
            self._write_last(new_row)
        self._started = True

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's configuration is ``config.yaml``."""

    def save(self) -> None:
        """Nothing: every value is in the file at once."""

    def _read(self, before: int) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        whole_lines = self.path.read_text().rpartition("\n")[0]  # a killed process may have left half a line
        rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(whole_lines.splitlines())]
        steps = [int(step) if (step := row.get("step", "")).isdigit() else before for row in rows]
        return [row | {"step": step} for row, step in zip(rows, steps) if step < before]

    def _lines(self, rows: list[dict[str, Any]], header: bool = False) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    def _write_last(self, new: bool) -> None:
        with self.path.open("r+b") as file:
            self._last = file.seek(0, os.SEEK_END) if new else file.seek(self._last)
            file.write(self._lines(self._rows[-1:]))
            file.truncate()

    def _rewrite(self) -> None:
        before = self._lines(self._rows[:-1], header=True)
        with replacing(self.path) as temporary:
            temporary.write_bytes(before + self._lines(self._rows[-1:]))
        self._last = len(before)
