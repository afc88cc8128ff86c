"""Tables of what ``benchmarks.gpu`` has found: docs/results/gpu.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_games import kept
from benchmarks.parts import Row
from lightning_gans.runs.atomic import write_text

REPORT = Path(__file__).parents[1] / "docs" / "results" / "gpu.md"
TITLE = "# Nine minutes on a GPU"
HEAD = """## Commands

```bash
make gpu DATA=<folder with cifar-10-batches-py> OUT=runs/gpu   # at most 540 s; no network is needed
python -m benchmarks.gpu --report runs/gpu                     # writes this page
python -m benchmarks.gpu --device cpu --scale 0.01             # a rehearsal of every stage
```

A folder with some of `data_batch_1` to `data_batch_5` will do; the results say which. With `test_batch` the \
classifier's accuracy is that on other images than it was trained on.
Scores are by the classifier of CIFAR-10 that comes with the package; \
of some batches only it is trained, and one that lies in `OUT/classifiers` is used again.
Sides of the speed table are those of [speed.md](speed.md), in TF32 and with `cudnn.benchmark` all of them; *skilled* \
is the plain loop with channels_last, fused Adam, and real and fake scored in one pass."""
SPEED = ["ms", "ratio", "ratio_min", "ratio_max", "ratio_to_skilled", "busy", "share_of_floor", "peak_mib",
         "first_calls_s", "rounds", "updates"]  # fmt: skip
WORDS = "## What it showed\n"
STAGES = ("environment", "extractor", "exactness", "speed", "transformer", "training", "styles", "text",
          "results")  # fmt: skip
EXACT = ["updates", "eager_twice", "graphs", "churn", "resume", "graphs_bits", "churn_bits", "resume_bits"]
TEXT = [*(f"metrics/js-{n}" for n in (1, 2, 3, 4)), "js-2/held_out", "js-2/independent"]
PENALTY = ["dtype", "penalty", "gradient", "first_call_s"]


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: dict[str, Row], columns: Sequence[str]) -> str:
    """One line per row; an error stands where the first value would."""
    lines = ["| | card | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, row in rows.items():
        cells = [cell(row.get(column)) for column in columns]
        if "error" in row:
            cells[-1] += f" ({row['error']})"
        lines.append(f"| {name} | {cell(row.get('card'))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def part(name: str, found: Row) -> str:
    """A stage's section."""
    rows: dict[str, Row] = found.get("rows", {})
    lines = [f"## {name.capitalize()}", f"{found.get('error') or found.get('told', '')} ({found['seconds']:.0f} s)"]
    if name == "speed":
        lines.append("Aims: a ratio of 0.35 to plain, 0.5 to skilled, 9.75 ms, 0.40 of the TF32 floor.")
        lines.append(table(rows, SPEED))
        for side, row in rows.items():
            if slowest := row.get("slowest"):
                kernels = "".join(f"\n- {ms:.2f}: `{name}`" for name, ms in slowest.items())
                lines.append(f"Slowest kernels of *{side}*, ms per update:\n{kernels}")
    elif name == "exactness":
        lines.append("Largest difference of weights beside the largest weight, against a second eager run; TF32 off.")
        lines.append(table({n: r for n, r in rows.items() if "dtype" not in r}, EXACT))
        lines.append(table({n: r for n, r in rows.items() if "dtype" in r}, PENALTY))
    elif name == "transformer":
        lines.append(table(rows, ["ms", "updates_per_second", "updates", "batch"]))
    elif name == "text":
        lines.append("JS in bits of the n-grams of 640 texts to the training part; TF32.")
        lines.append(table(rows, ["ms", "updates_per_second", "updates", "batch", "seconds_trained", *TEXT]))
    elif name in ("training", "styles"):
        width = "width 128" if name == "training" else "the widths of configs/cifar10/style_gan2.yaml"
        lines.append(f"{found.get('at_once', 1)} at once; graphs, bf16-mixed, {width}, averaged weights, scored by "
                     "our classifier `resnet`.")  # fmt: skip
        scores = {f"{n}, after {s['seconds']:.3g} s": {**s, "card": r.get("card")}
                  for n, r in rows.items() for s in r.get("scores", ())}  # fmt: skip
        lines.append(table(scores, ["step", "seconds", "metrics/fid/resnet", "metrics/is/resnet"]))
        lines.append(table(rows, ["updates", "images_seen", "ms"]))
    else:
        told = ("rows", "told", "stage", "scale", "error", "seconds", "source")
        lines.append("\n".join(f"- {key}: {cell(value)}" for key, value in found.items() if key not in told))
        if rows:
            lines.append(table(rows, ["metrics/fid/resnet", "metrics/is/resnet"]))
    return "\n\n".join(lines)


def write(folder: Path, report: Path = REPORT) -> Path:
    """Write the page, and a picture of the samples beside it if there are any; the page's path."""
    rows = kept(folder)
    found = {name: rows[name] for name in STAGES if name in rows}
    if not found:
        raise SystemExit(f"error: --report must be a folder with results of benchmarks.gpu, got {str(folder)!r}.")
    first = next(iter(found.values()))
    commit = found.get("environment", {}).get("commit") or "not known"
    lines = [TITLE]
    if report.exists() and WORDS in (page := report.read_text()):  # somebody's, on an earlier run
        lines.append(WORDS + "\n" + page.split(WORDS, 1)[1].split("\n## ", 1)[0].strip())
    lines += [HEAD, f"On one {first['card']}, scale {first['scale']:g}; {first['source']}; commit {commit}; one seed."]
    lines += [part(name, rows) for name, rows in found.items()]
    if (path := folder / "generators.pt").exists():
        from lightning_gans.visualization.images import contact_sheet, grid_image

        samples = torch.load(path, weights_only=True)
        grids = {name: grid_image(one["samples"], 8, cell=32, gap=2) for name, one in samples.items()}
        contact_sheet(grids, columns=2).save(report.with_suffix(".png"))
        lines.append(f"![samples]({report.stem}.png)")
    write_text(report, "\n\n".join(lines) + "\n")
    return report
