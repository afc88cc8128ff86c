"""Several runs, or folders of runs that differ in their seeds, beside each other."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gans import checks
from lightning_gans.runs.atomic import check_writable, write_text
from lightning_gans.runs.card import NEITHER
from lightning_gans.runs.record import SECONDS, Record, read_record
from lightning_gans.tools.report import UNKNOWN, clock, configuration, model_card, protocol_tables, title_of
from lightning_gans.visualization import page
from lightning_gans.visualization.charts import Line, line_chart

# What runs of one kind may differ in: their seeds, and where they lie.
_OWN = ("seed_everything", "name", "out", "ckpt_path", "config", "trainer.default_root_dir", "checkpoint.dirpath",
        "grid.dirpath", "trainer.logger")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What is compared: a run, or runs that differ in their seeds alone; ``without`` are those that left no metrics."""

    name: str
    records: list[Record]
    without: tuple[str, ...] = ()

    @property
    def seeds(self) -> str:
        """Those that are on record."""
        known = [str(record.seed) for record in self.records if record.seed is not None]
        return f"{len(self.records)} ({', '.join(known)})" if len(self.records) > 1 else ", ".join(known) or UNKNOWN

    def line(self, name: str, colour: int, seconds: bool = False) -> Line | None:
        """The mean of a curve over the runs, at updates that all have, within the least and the greatest."""
        curves = [record.curves[name] for record in self.records if name in record.curves]
        if len(curves) < len(self.records):
            return None
        steps = reduce(np.intersect1d, [curve.steps for curve in curves])
        values = np.array([curve.values[np.isin(curve.steps, steps)] for curve in curves])
        x = np.array([np.mean([record.seconds_at(s) for record in self.records]) for s in steps]) if seconds else steps
        band = (values.min(0), values.max(0)) if len(curves) > 1 else None
        return Line(self.name, x, values.mean(0), band, colour) if len(steps) else None


@dataclass(frozen=True)
class Comparison:
    """Tables by title: a head, and a row for each entry."""

    tables: dict[str, tuple[list[str], list[list[str]]]]
    notes: list[str]
    path: Path | None = None

    def __str__(self) -> str:
        """For a terminal."""
        return "\n\n".join([*("\n".join(_aligned(title, *table)) for title, table in self.tables.items()), *self.notes])


def compare(
    paths: Sequence[str | Path], out: str | Path | None = None, reach: Mapping[str, float] | None = None
) -> Comparison:
    """Read the runs, tell last and best scores, time and speed, and write their curves over each other as HTML.

    Args:
        paths: folders of runs, or folders that hold runs which differ in their seeds, of which the mean is told, with
            the standard deviation, and drawn within the least and the greatest value.
        out: the HTML file; None: none.
        reach: value of a score (by full name, or without ``metrics/``) to which the time is told; by default the best
            that all runs reach.

    Raises:
        ValueError: fewer than two, one without metrics, one given twice, or runs on different data.
        ImportError: plotly is not installed.
    """
    if len(paths) < 2:
        raise ValueError(f"A comparison must be of two runs or more, got {len(paths)}.")
    if out is not None:
        checks.installed("plotly")
        check_writable("--out", out)
    entries = [read_entry(path, name) for path, name in zip(paths, _names(paths))]
    _require_different(entries)
    _require_same_data(entries)
    scores = list(dict.fromkeys(name for entry in entries for r in entry.records for name in r.scores))
    wanted = {name.removeprefix("metrics/"): value for name, value in (reach or {}).items()}
    if unknown := wanted.keys() - {name.removeprefix("metrics/") for name in scores}:
        known = ", ".join(name.removeprefix("metrics/") for name in scores) or "none"
        raise ValueError(f"--reach must name a score of the runs ({known}), got {min(unknown)}.")
    tables = {"Runs": (["run", "technique", "seeds", "updates", "updates/s", "time"], [_run_row(e) for e in entries])}
    for name in scores:
        short = name.removeprefix("metrics/")
        tables[short] = _score_table(entries, name, wanted.get(short))
    if asked := list(_differing(entries)):  # of two techniques they are many
        tables["Options that differ"] = (["option", *(entry.name for entry in entries)], asked)
    told = Comparison(tables, list(_notes(entries, scores)), None if out is None else Path(out))
    if out is not None:
        write_text(out, _page(entries, scores, told))
    return told


def _names(paths: Sequence[str | Path]) -> list[str]:
    """The paths, as seen from the folder that they have in common."""
    common = os.path.commonpath([Path(path).absolute().parent for path in paths])
    return [Path(os.path.relpath(path, common)).as_posix() for path in paths]


def read_entry(path: str | Path, name: str) -> Entry:
    """A run, or the runs in a folder, by a name.

    Raises:
        ValueError: there is none, or they differ in more than their seeds.
    """
    path = Path(path)
    folders = [path] if (path / "metrics.csv").is_file() else sorted(p.parent for p in path.glob("*/metrics.csv"))
    if not folders:
        raise ValueError(f"A run must hold metrics.csv, or be a folder of runs that do, got {path}{checks.near(path)}")
    begun = {p.parent for p in path.glob("*/config.yaml")} if folders != [path] else set()
    records = [read_record(folder) for folder in folders]
    first = dict(_flat(records[0].config))
    for record in records[1:]:
        other = dict(_flat(record.config))
        differing = sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k))
        if differing := [k for k in differing if not k.startswith(_OWN)]:
            raise ValueError(
                f"The runs in {path} must differ in their seeds alone, got {first.get(differing[0])!r} and "
                f"{other.get(differing[0])!r} for {differing[0]} ({folders[0].name}, {record.folder.name})."
            )
    return Entry(name, records, tuple(sorted(folder.name for folder in begun.difference(folders))))


def _require_different(entries: Sequence[Entry]) -> None:
    known: dict[Path, str] = {}
    for entry in entries:
        for folder in (record.folder.resolve() for record in entry.records):
            if folder in known:
                raise ValueError(
                    f"Runs that are compared must be different ones, got {folder.name} twice (in {known[folder]} and "
                    f"{entry.name})."
                )
            known[folder] = entry.name


def _require_same_data(entries: Sequence[Entry]) -> None:
    known = [(entry, data) for entry in entries if (data := entry.records[0].data) is not None]
    for entry, data in known[1:]:
        if data != known[0][1]:
            first, other = (str(d.get("class_path")).rpartition(".")[2] for d in (known[0][1], data))
            if first == other:
                a, b = dict(_flat(known[0][1])), dict(_flat(data))
                key = min(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
                argument = key.replace("init_args.", "")
                first, other = f"{first} of {argument} {a.get(key)}", f"{other} of {argument} {b.get(key)}"
            raise ValueError(
                f"Runs that are compared must be on the same data, got {first} ({known[0][0].name}) and {other} "
                f"({entry.name})."
            )


def _asked(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol without what a sampler found: how often it accepted, and so how many calls it took, and its time."""
    found = {"sampler_report", "network_calls"} if "sampler" in protocol else set()
    return {name: value for name, value in protocol.items() if name not in found}


def _notes(entries: Sequence[Entry], scores: Sequence[str]) -> Iterator[str]:
    records = [record for entry in entries for record in entry.records]
    for label in dict.fromkeys(label for r in records for label in r.protocols):
        protocols = [_asked(record.protocols[label]) for record in records if label in record.protocols]
        keys = {k for p in protocols for k in p if any(k in q and p[k] != q[k] for q in protocols)}
        if keys:
            yield f"Scores of {label} were not measured alike ({', '.join(sorted(keys))}): compare them with care."
    if any(SECONDS not in record.curves for record in records):
        yield "Some runs have no times on record."
    for entry in entries:
        if entry.without:
            one = len(entry.without) == 1
            yield f"{entry.name}: without {', '.join(entry.without)}, which {'has' if one else 'have'} no metrics.csv."
        if entry.records[0].data is None:
            yield f"{entry.name}: its data are not on record (config.yaml), and may be others."
        for record in entry.records:
            which = f"{entry.name} ({record.folder.name})" if len(entry.records) > 1 else entry.name
            if record.ended is not None:
                yield f"{which}: ended at update {record.ended[0]:,} by {record.ended[1]}"
            elif record.missing:
                yield f"{which}: so far {record.done} updates."
        for name in scores:
            if any(name in r.curves for r in entry.records) and not all(name in r.curves for r in entry.records):
                yield f"{entry.name}: not all runs have {name.removeprefix('metrics/')}."


def _differing(entries: Sequence[Entry]) -> Iterator[list[str]]:
    """Options of the configurations that are not the same in all, in the order of the first that has them."""
    known = [dict(_flat(entry.records[0].config)) for entry in entries]
    if not all(known):  # trained without the command line
        return
    for key in dict.fromkeys(key for config in known for key in config):
        values = [config.get(key) for config in known]
        if not key.startswith(_OWN) and any(value != values[0] for value in values):
            told = (UNKNOWN if value is None else str(value) for value in values)
            yield [key.replace("init_args.", ""), *(t if len(t) <= 40 else f"{t[:37]}..." for t in told)]


def _run_row(entry: Entry) -> list[str]:
    records = entry.records
    rate, took = ([f(r) for r in records] for f in (lambda r: r.updates_per_second, lambda r: r.seconds_at(r.updates)))
    title, updates = title_of(records[0]).partition(" on ")[0], sorted({record.updates for record in records})
    told = f"{updates[0]:,} to {updates[-1]:,}" if len(updates) > 1 else max(records, key=lambda r: r.missing).done
    return [entry.name, title, entry.seeds, told, _mean(rate, ".3g"), clock(statistics.fmean(took))]


def _score_table(entries: Sequence[Entry], name: str, value: float | None) -> tuple[list[str], list[list[str]]]:
    known = [r for entry in entries for r in entry.records if name in r.curves]
    bests = [top[0] for r in known if (top := r.best(name)) is not None]
    if value is None and bests:
        value = min(bests, key=known[0].goodness(name))
    rows = []
    for entry in entries:
        having = [r for r in entry.records if name in r.curves]
        best = [found for r in having if (found := r.best(name)) is not None]
        steps = [None if value is None else r.reached(name, value) for r in having]
        last = [float(r.curves[name].values[-1]) for r in having if r.curves[name].steps[-1] > 0]
        row = [entry.name, _mean(last)]
        row += [_mean([value for value, _ in best]), _median([step for _, step in best])]
        reached = [(r, s) for r, s in zip(having, steps) if s is not None]
        if value is None or not having or set(name.split("/")) & NEITHER or not last:
            row += [UNKNOWN, UNKNOWN]
        elif len(reached) < len(having):
            row += [f"never in {len(having) - len(reached)} of {len(having)}" if reached else "never", UNKNOWN]
        else:
            row += [_median([s for _, s in reached]), _clock([r.seconds_at(s) for r, s in reached])]
        rows.append(row)
    level = UNKNOWN if value is None else f"{value:.4g}"
    return ["run", "last", "best", "at update", f"{level} reached at", "after"], rows


def _mean(values: Sequence[float], form: str = ".4g") -> str:
    """Of the finite ones; that a seed has none is told, not left out in silence."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return UNKNOWN if math.isnan(total := sum(values) or math.nan) else f"{total}"
    spread = f" ± {statistics.stdev(known):.2g}" if len(known) > 1 else ""
    share = f" ({len(known)} of {len(values)})" if len(known) < len(values) else ""
    return f"{statistics.fmean(known):{form}}{spread}{share}"


def _median(steps: Sequence[int]) -> str:
    if not steps:
        return UNKNOWN
    spread = f" ({min(steps):,} to {max(steps):,})" if len(steps) > 1 else ""
    return f"{statistics.median(steps):,.0f}{spread}"


def _clock(seconds: Sequence[float]) -> str:
    told = clock(mean := statistics.fmean(seconds))
    if len(seconds) < 2 or math.isnan(mean):
        return told
    value, unit = told.split()
    return f"{value} ± {statistics.stdev(seconds) * float(value) / mean:.2g} {unit}" if mean else told


def _page(entries: Sequence[Entry], scores: Sequence[str], told: Comparison) -> str:
    def panels(names: Sequence[str], seconds: bool = False) -> dict[str, Any]:
        drawn = {n: [line for i, e in enumerate(entries) if (line := e.line(n, i, seconds)) is not None] for n in names}
        x_title = "seconds of training" if seconds else "generator updates"
        far = {n for n in drawn if n.startswith(("metrics/", "grad/")) or n.endswith("/grad_norm")}
        return {
            n.removeprefix("metrics/"): line_chart(ls, x_title, n in far, legend=True) for n, ls in drawn.items() if ls
        }

    names = list(dict.fromkeys(name for e in entries for r in e.records for name in r.curves))
    others = [n for n in names if n not in scores and n not in (SECONDS, "time/images_seen")]
    timed = all(SECONDS in record.curves for entry in entries for record in entry.records)
    first = {entry.name: entry.records[0] for entry in entries}
    films = {e.name: page.film(e.records[0].folder / "samples", "step") for e in entries}
    several = any(len(entry.records) > 1 for entry in entries)
    lead = "Lines of several seeds: their mean, within the least and the greatest; tables: mean ± standard deviation."
    return page.page(
        " and ".join(entry.name for entry in entries) if len(entries) < 4 else f"{len(entries)} runs",
        lead if several else "One run each: differences may be the seed's.",
        [
            ("Notes", page.notes(told.notes)),
            *((title, page.table(*table)) for title, table in told.tables.items()),
            ("Scores over updates", page.charts(panels(scores), "scores")),
            ("Scores over time", page.charts(panels(scores, seconds=True), "timed") if timed else ""),
            ("Samples of one fixed noise", page.beside(films)),
            ("Loss terms and diagnostics", page.charts(panels(others), "terms")),
            ("How scores were measured", page.beside({n: protocol_tables(r.protocols) for n, r in first.items()})),
            ("Warnings", page.beside({n: page.notes(r.warned) for n, r in first.items()})),
            ("Model cards", page.beside({n: model_card(r.checkpoint, "last.ckpt") for n, r in first.items()})),
            ("Configurations", page.beside({n: configuration(r) for n, r in first.items()})),
        ],
    )


def _flat(config: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _flat(value, f"{where}.{key}".lstrip("."))
    elif isinstance(config, list) and all(isinstance(part, Mapping) and "class_path" in part for part in config):
        for i, part in enumerate(config):  # of several of one class the places are told
            names = [str(other["class_path"]).rpartition(".")[2] for other in config]
            yield from _flat(part, f"{where}.{names[i]}" + (f"-{i + 1}" if names.count(names[i]) > 1 else ""))
    else:
        yield where, config


def _aligned(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    yield title
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
