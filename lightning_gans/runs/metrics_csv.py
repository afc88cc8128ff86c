"""A CSV logger with one row per step, that a resumed run goes on writing."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_gans.compat.lightning import loggers, utilities
from lightning_gans.runs.atomic import replacing


class MetricsCSV(loggers.Logger):
    """Writes ``<save_dir>/metrics.csv``: a ``step`` column (generator updates) and one column per metric.

    Lightning's own ``CSVLogger`` deletes the file when a run is resumed, and writes a row per call. Here values of one
    step share a row, rows up to the resumed step are kept, and later ones (of a run that died) are dropped. What is no
    fit, a test of a checkpoint say, drops none.

    A row is in the file as soon as its first value is logged.

    Args:
        save_dir: folder of the run.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._columns = ["step"]
        self._rows: list[dict[str, Any]] = []  # the last one alone, and those before it that could not be written
        self._last = 0  # where these begin in the file
        self._end: int | None = None  # of the file; None when the last writing failed
        self._started = False
        self._from: int | None = None  # update that the fit goes on from; None where none does

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

    def goes_on_from(self, step: int) -> None:
        """A fit does, from this update: rows behind it are dropped with the next value, but for those it has logged."""
        if not self._rows or self._rows[0]["step"] == step:  # else they are of another fit that had this logger
            self._from, self._started = step, False

    @utilities.rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of ``step``."""
        step = int(step or 0)
        values = {name: float(value) for name, value in metrics.items() if name != "step"}
        if not self._rows or self._rows[-1]["step"] != step:
            if self._end is not None:
                self._rows, self._last = [], self._end
            self._rows.append({"step": step})
        self._rows[-1] |= values
        self._end = None
        known = self._started and all(row.keys() <= set(self._columns) for row in self._rows)
        self._end = self._write_last() if known else self._rewrite()
        self._started = True

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's configuration is ``config.yaml``."""

    def save(self) -> None:
        """Nothing: every value is in the file at once."""

    def _earlier(self) -> list[dict[str, Any]]:
        """The rows above those: of this run, or of the one that it goes on with."""
        if not self.path.exists():
            return []
        written, step = self.path.read_bytes(), self._rows[0]["step"]
        text = (written[: self._last] if self._started else written).decode(errors="replace")
        whole_lines = text.rpartition("\n")[0]  # a killed process may have left half a line
        rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(whole_lines.splitlines())]
        if self._started:
            return rows
        known = [(int(row["step"]), row) for row in rows if row.get("step", "").isdigit()]
        if self._from is not None:
            known = list({n: (n, row) for n, row in known if n <= self._from and n < step}.values())
        return [row | {"step": n} for n, row in known]

    @staticmethod
    def _lines(columns: list[str], rows: list[dict[str, Any]], header: bool = False) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    def _write_last(self) -> int:
        with self.path.open("r+b") as file:
            file.seek(self._last)
            file.write(self._lines(self._columns, self._rows))
            end = file.tell()
            file.truncate()
        return end

    def _rewrite(self) -> int:
        earlier = self._earlier()
        names = (name for row in [*earlier, *self._rows] for name in row)
        columns = list(dict.fromkeys([*self._columns, *names]))
        before, rows = self._lines(columns, earlier, header=True), self._lines(columns, self._rows)
        with replacing(self.path) as temporary:
            temporary.write_bytes(before + rows)
        self._columns, self._last = columns, len(before)
        return len(before + rows)
