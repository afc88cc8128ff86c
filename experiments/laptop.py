"""Which recipes are for a laptop, and what do ten minutes of one core make?

    python -m experiments.laptop --hours 2

Plays each recipe whose name ends in ``_cpu`` by the command that a user types, seed by seed, and writes
``docs/results/laptop.md`` anew after each. What is played is kept. The data are looked for in ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.recipes import header
from experiments import figures, measures, page
from experiments.playing import Result
from lightning_gans.cli.recipes import names, shipped
from lightning_gans.runs.atomic import write_text
from lightning_gans.runs.load import load

COMMAND = [sys.executable, "-c", "from lightning_gans.cli import main; main()", "fit"]
FID = "metrics/fid/lenet"


def play(recipe: str, seed: int, runs: Path) -> Result:
    """One run of a recipe, kept under ``runs``: its scores, CPU minutes as a whole, and samples."""
    content = sha256(Path(shipped(recipe)).read_bytes()).hexdigest()[:8]
    run = runs / f"laptop-{recipe.replace('/', '-')}-{content}-{seed}"
    kept, log = (runs / f"{run.name}.{kind}" for kind in ("json", "log"))
    if kept.exists():
        found: Result = json.loads(kept.read_text())
        return found
    shutil.rmtree(run, ignore_errors=True)
    given = [f"--config={recipe}", f"--seed_everything={seed}", f"--name={run.name}", f"--out={runs}"]
    own = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with log.open("w") as told:
        child = subprocess.Popen([*COMMAND, *given], env=os.environ | own, stdout=told, stderr=told)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"error: {recipe} of seed {seed} ended with status {child.returncode}: see {log}.")
    scores = [json.loads(line) for line in (run / "scores-lenet.jsonl").read_text().splitlines()]
    result = {
        "rows": [{name: row[name] for name in ("step", FID)} for row in scores],
        "minutes": (used.ru_utime + used.ru_stime) / 60,
        "sample": load(run).sample(20, seed=0).tolist(),
        "commit": header("")[1].removeprefix("- commit: "),
        "failed": None,
    }
    write_text(kept, json.dumps(result))
    return result


def write_page(played: dict[str, list[Result]], arguments: Any) -> None:
    """The table of what has been played."""
    columns: measures.Columns = {
        "core minutes": lambda result: result["minutes"],
        "G updates": lambda result: result["rows"][-1]["step"],
        "FID/lenet, last": lambda result: measures.last(result, FID),
        "best": lambda result: measures.best(result, FID),
    }
    counted = {name: found for name, found in played.items() if found}
    n = len(arguments.seeds)
    rows = {f"{k}, {len(v)} of {n} seeds" if len(v) < n else k: v for k, v in counted.items()}
    protocol = [
        "minutes are processor time of the whole run, its start, scores and pictures included; one thread",
        "FID/lenet: as many samples of the averaged generator, against the training images, as the recipe says",
        "pictures: the first samples of the first seed, none chosen",
    ]
    figure = figures.stack(figures.samples(counted, 20), figures.curves({"": counted}, FID, "FID/lenet", log=True))
    page.publish(arguments, "Recipes for a laptop", counted, protocol, measures.table(rows, columns, "recipe"), figure)


def main() -> None:
    """Play what is missing until the hours are over."""
    p = page.parser(__doc__, hours=8.0)
    p.add_argument("--only", nargs="+", default=[name for name in names() if name.endswith("_cpu")])
    p.set_defaults(out=Path("docs/results/laptop.md"), jobs=1, runs="runs/experiments")
    arguments = p.parse_args()
    arguments.jobs = 1  # whose minutes are told
    runs, end = Path(arguments.runs), time.monotonic() + 3600 * arguments.hours
    runs.mkdir(parents=True, exist_ok=True)
    played: dict[str, list[Result]] = {name: [] for name in arguments.only}
    for seed in tqdm(arguments.seeds, desc="seeds"):
        for name in tqdm(arguments.only, desc="recipes", leave=False):
            if time.monotonic() < end:
                played[name].append(play(name, seed, runs))
                write_page(played, arguments)


if __name__ == "__main__":
    main()
