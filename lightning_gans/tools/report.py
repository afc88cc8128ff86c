"""A run as one HTML file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_gans import checks
from lightning_gans.runs.atomic import check_writable, write_text
from lightning_gans.runs.card import card
from lightning_gans.runs.checkpoints import read_checkpoint
from lightning_gans.runs.folder import run_of
from lightning_gans.runs.record import Curve, Record, read_record
from lightning_gans.runs.sections import LOGARITHMIC, SAMPLES, SCORES, TERMS, sections
from lightning_gans.visualization import page
from lightning_gans.visualization.charts import Line, line_chart

UNKNOWN = "-"


def report(path: str | Path, out: str | Path | None = None) -> Path:
    """Write one HTML file about a run: curves, samples over training, protocols, warnings, card and configuration.

    Args:
        path: its folder, or a checkpoint in it, whose model card is shown in place of the newest one's.
        out: the file; by default ``report.html`` in the run.

    Raises:
        ValueError: there is no run, or it has no metrics.
        ImportError: plotly is not installed.
    """
    checks.installed("plotly")
    path = Path(path)
    folder = path if path.is_dir() else run_of(path)
    if folder is None or not path.exists():
        raise ValueError(f"A report is of a run, or of a checkpoint that lies in one, got {path}{checks.near(path)}")
    record = read_record(folder)
    out = Path(out or folder / "report.html")
    check_writable("--out", out)
    checkpoint, name = (record.checkpoint, "last.ckpt") if path.is_dir() else (read_checkpoint(path), path.name)
    films = [(title, page.film(folder / "samples", prefix)) for prefix, title in SAMPLES.items()]
    sections = [
        ("Warnings", page.notes(record.warned)),
        (SCORES, _score_table(record) + page.charts(_panels(record, scores=True), "scores")),
        *films,
        (TERMS, page.charts(_panels(record, scores=False), "terms")),
        ("How scores were measured", protocol_tables(record.protocols)),
        ("Model card", model_card(checkpoint, name)),
        ("Configuration", configuration(record)),
    ]
    done = f"{record.done} updates" if record.ended is None else f"ended at update {record.ended[0]:,}"
    facts = [title_of(record), done, *_time(record), str(folder)]
    write_text(out, page.page(title_of(record), " · ".join(facts[1:]), sections))
    return out


def title_of(record: Record) -> str:
    """Technique and data, as far as they are on record."""
    model, data = (
        str((record.config.get(k) or {}).get("class_path", "")).rpartition(".")[2] for k in ("model", "data")
    )
    return f"{model} on {data}" if model and data else record.folder.name


def _panels(record: Record, scores: bool) -> dict[str, Any]:
    """A figure for each score, or for each group of other curves."""
    return {
        panel: line_chart(
            [_line(n, record.curves[n], i, n) for i, n in enumerate(names)],
            logarithmic=title in LOGARITHMIC,
        )
        for title, panels in sections(record.curves).items()
        if scores == (title == SCORES)
        for panel, names in panels.items()
    }


def _line(name: str, curve: Curve, colour: int = 0, label: str | None = None) -> Line:
    return Line(label or name, curve.steps, curve.values, None, colour)


def _score_table(record: Record) -> str:
    rows = []
    for name in record.scores:
        curve, best = record.curves[name], record.best(name)
        found = [UNKNOWN] * 3 if best is None else [f"{best[0]:.4g}", f"{best[1]:,}", clock(record.seconds_at(best[1]))]
        before = f"{curve.values[0]:.4g}" if curve.steps[0] == 0 else ""
        last = [f"{curve.values[-1]:.4g}", f"{int(curve.steps[-1]):,}"]
        rows.append([name.removeprefix("metrics/"), before, *last, *found])
    heads = ["score", "before", "last", "at update", "best of training", "at update", "after"]
    return page.table(heads, rows) if rows else ""


def protocol_tables(known: Mapping[str, Mapping[str, Any]]) -> str:
    """How scores were made, a table for each label."""
    return "".join(page.table([label, ""], protocol.items()) for label, protocol in known.items())


def model_card(checkpoint: Mapping[str, Any], name: str) -> str:
    """That of a checkpoint, by its file's name; nothing for one that holds none of ours."""
    return page.markdown(card(checkpoint, name)) if "class_path" in checkpoint else ""


def configuration(record: Record) -> str:
    """The whole of it, to be opened."""
    text = yaml.safe_dump(record.config, sort_keys=False) if record.config else ""
    return page.folded("config.yaml", text) if text else ""


def _time(record: Record) -> list[str]:
    rate = record.updates_per_second
    took = record.seconds_at(record.updates)
    told = [] if math.isnan(rate) else [f"{rate:.3g} updates per second"]
    return [] if math.isnan(took) else [clock(took), *told]


def clock(seconds: float) -> str:
    """A duration, to be read."""
    if math.isnan(seconds):
        return UNKNOWN
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
