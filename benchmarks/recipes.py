"""Run recipes over several seeds and write one table: mean and spread of the scores, at the best and the last step.

    python -m benchmarks.recipes configs/digits/*.yaml --seeds 1 2 3 --out docs/results/digits.md

Every run is an ordinary ``python train.py fit`` in a folder of its own under ``--runs``; a run whose scores are there
already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

import lightning_gans
from lightning_gans.compat.lightning import pl
from lightning_gans.runs.atomic import write_text

ROOT = Path(__file__).parent.parent
LOWER = ("fid", "kid", "reverse_kl", "w1")


def run(config: Path, seed: int, runs: Path, extra: list[str]) -> tuple[list[dict[str, float]], float]:
    """Scores of one run, a dict per measurement, and its seconds."""
    name = f"{config.parent.name}-{config.stem}-seed{seed}"
    folder = runs / name
    done = folder / "seconds.txt"
    if not done.exists():
        command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", str(config), "--out", str(runs),
                   "--name", name, "--seed_everything", str(seed), *extra]  # fmt: skip
        start = time.perf_counter()
        with (runs / f"{name}.log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
        done.write_text(f"{time.perf_counter() - start:.1f}\n")
    lines = [line for file in folder.glob("scores-*.jsonl") for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines], float(done.read_text())


def summary(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    if len(values) == 1 or not math.isfinite(sum(values)):  # of a seed that diverged
        return f"{statistics.fmean(values):.3g}"
    return f"{statistics.fmean(values):.3g} ± {statistics.stdev(values):.2g}"


def table(configs: list[Path], seeds: list[int], runs: Path, extra: list[str]) -> list[str]:
    """Markdown rows, one per recipe and score."""
    rows = ["| recipe | score | step 0 | best | last | updates | seconds |", "|---|---|---|---|---|---|---|"]
    jobs = [(config, seed) for config in configs for seed in seeds]
    results = {job: run(*job, runs, extra) for job in tqdm(jobs, desc="runs")}
    for config in configs:
        histories = [results[config, seed][0] for seed in seeds]
        seconds = [results[config, seed][1] for seed in seeds]
        for name in (n for n in histories[0][0] if n.startswith("metrics/")):
            best = min if any(part in LOWER for part in name.split("/")) else max
            series = [[entry[name] for entry in history] for history in histories]
            scores = [[s[0] for s in series], [best(s) for s in series], [s[-1] for s in series]]
            cells = [*map(summary, scores), f"{histories[0][-1]['step']:.0f}", summary(seconds)]
            recipe = f"{config.parent.name}/{config.stem}"
            rows.append(f"| {recipe} | {name.removeprefix('metrics/')} | {' | '.join(cells)} |")
    return rows


def header(command: str) -> list[str]:
    """What every table has to say about where it comes from: the command, then commit, date and machine."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    versions = f"lightning_gans {lightning_gans.__version__}, torch {torch.__version__}, {pl.__name__} {pl.__version__}"
    return [f"- command: `{command}`", f"- commit: {commit.strip()}",
            f"- date: {date.today()}", f"- hardware: {cpu or platform.processor()}, {os.cpu_count()} cores, "
            f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}", f"- versions: {versions}"]  # fmt: skip


def given(arguments: Sequence[str]) -> str:
    """Arguments as a page tells them: without ``--runs``, which changes no number, and folders of this machine."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runs")
    rest = parser.parse_known_args(arguments)[1]
    return shlex.join(Path(part).name if os.path.isabs(part) else part for part in rest)


MARK = "<!-- Below this line everything is written by the command. -->"


def words(out: Path | None, title: str) -> str:
    """What a person wrote on a page, above `MARK`, and what a page written anew keeps; of a new page its title.

    A page that was written before there was a mark has its words above the command's own lines.
    """
    text = out.read_text() if out and out.exists() else ""
    below = re.escape(MARK) if MARK in text else "^- command: `python -m "
    kept = re.split(below, text, maxsplit=1, flags=re.MULTILINE)[0].rstrip()
    return f"{kept or f'# {title}'}\n\n{MARK}\n"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Parse the arguments, run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--out", type=Path, help="Markdown file to write.")
    parser.add_argument("--title", default="Results", help="Title of a new page.")
    arguments, extra = parser.parse_known_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    rows = table(arguments.configs, arguments.seeds, arguments.runs, extra)
    seeds = f"- seeds: {', '.join(map(str, arguments.seeds))}; mean ± standard deviation over seeds"
    told = header(f"python -m benchmarks.recipes {given(sys.argv[1:])}")
    text = "\n".join([words(arguments.out, arguments.title), *told, seeds, "", *rows, ""])
    print(text)
    if arguments.out:
        write_text(arguments.out, text)


if __name__ == "__main__":
    main()
