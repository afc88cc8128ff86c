"""Numbers of an experiment's results, and the tables that they stand in."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from experiments.playing import Result

Columns = dict[str, Callable[[Result], float]]


def series(result: Result, name: str) -> list[tuple[int, float]]:
    """(step, value) of everything that was logged under a name."""
    return [(int(row["step"]), row[name]) for row in result["rows"] if name in row]


def last(result: Result, name: str) -> float:
    """The last value of a name; NaN if there is none, or the game failed."""
    found = series(result, name)
    return found[-1][1] if found and not result["failed"] else math.nan


def best(result: Result, name: str) -> float:
    """The best value after the first update: the lowest FID or divergence, the highest share or number of modes."""
    found = [value for step, value in series(result, name) if step > 0 and not math.isnan(value)]
    lower = any(part in ("fid", "kid", "reverse_kl", "w1") or part.startswith("js-") for part in name.split("/"))
    return (min if lower else max)(found) if found and not result["failed"] else math.nan


def late_mean(result: Result, name: str, share: float = 0.5) -> float:
    """Mean over the last share of a run."""
    found = [value for _, value in series(result, name)]
    late = found[int(len(found) * (1 - share)) :]
    return statistics.fmean(late) if late and not result["failed"] else math.nan


def late_deviation(result: Result, name: str, share: float = 0.5) -> float:
    """Standard deviation over the last share of a run, of what is left when its line of least squares is taken off."""
    found = [value for _, value in series(result, name)]
    late = found[int(len(found) * (1 - share)) :]
    if len(late) < 3 or result["failed"]:
        return math.nan
    slope, intercept = statistics.linear_regression(range(len(late)), late)
    return statistics.stdev(value - slope * i - intercept for i, value in enumerate(late))


def milliseconds(result: Result) -> float:
    """Seconds of training per generator update, times 1000."""
    row = result["rows"][-1]
    return 1000 * row["seconds"] / row["step"] if row["step"] else math.nan


def megabytes(result: Result) -> float:
    """The most that autograd held for backward passes in one cycle, in units of 10^6 bytes."""
    return float(result["bytes"]) / 1e6


def at_time(result: Result, name: str, seconds: float) -> float:
    """A positive value after so many seconds of training: on the line, in its logarithm, between two measurements."""
    found = [(row["seconds"], row[name]) for row in result["rows"] if name in row]
    for (t0, a), (t1, b) in pairwise(found):
        if t0 <= seconds <= t1 and not result["failed"]:
            return a * (b / a) ** ((seconds - t0) / (t1 - t0))
    return math.nan


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation over seeds; a run without a value is told, not left out in silence."""
    values = list(values)
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "none" if values else ""
    text = f"{statistics.fmean(known):.3g}"
    if len(known) > 1 and math.isfinite(sum(known)):  # `stdev` takes no infinity
        text += f" ± {statistics.stdev(known):.2g}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def middle(values: Iterable[float]) -> str:
    """Median, lowest and highest over seeds, for numbers of which one may be far away from the others."""
    known = sorted(v for v in values if not math.isnan(v))
    if not known:
        return "-"
    return f"{statistics.median(known):.3g} ({known[0]:.2g} to {known[-1]:.2g})"


def table(
    results: Mapping[str, Sequence[Result]],
    columns: Columns,
    first: str = "game",
    cell: Callable[[Iterable[float]], str] = spread,
) -> list[str]:
    """Markdown: a row per name, a column per number, each over the seeds."""
    rows = [f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, found in results.items():
        rows.append(f"| {name} | {' | '.join(cell(map(number, found)) for number in columns.values())} |")
    return rows
