"""Which recipes are for a laptop, and what do ten minutes of one core make?

    python -m experiments.laptop --hours 2

Plays each recipe whose name ends in ``_cpu`` by the command that a user types, seed by seed, and writes
``--out`` anew after each. What is played is kept. The data are looked for in ``$LIGHTNING_GANS_DATA``;
those of ``images/``, which are a user's own, are drawn: shapes of 64 pixels.
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
from zipfile import ZipFile

from PIL import Image
from tqdm import tqdm

from benchmarks.recipes import header
from experiments import figures, measures, page
from experiments.playing import Result
from lightning_gans.cli.recipes import names, shipped
from lightning_gans.datamodules import Shapes
from lightning_gans.runs.atomic import replacing, write_text
from lightning_gans.runs.load import load

COMMAND = [sys.executable, "-c", "from lightning_gans.cli import main; main()", "fit"]
SHAPES = ("square", "triangle", "ellipse")
SCORED = (  # own images may have no classes, hence no score in the recipe
    "--trainer.callbacks+=GenerativeMetrics", "--trainer.callbacks.every_n_steps=1000",
    "--trainer.callbacks.extractor=lenet", "--trainer.callbacks.num_fake=5000",
)  # fmt: skip


def own_images(path: Path, items: int = 5000) -> Path:
    """A zip file as a user has one: pictures, in folders that are classes."""
    if not path.exists():
        data = Shapes(side=64, items=items, held_out=1)
        data.setup("fit")
        images, labels = data.reference()
        with replacing(path) as made, ZipFile(made, "w") as packed:
            for i, (image, label) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist())):
                with packed.open(f"{SHAPES[label]}/{i:05}.png", "w") as file:
                    Image.fromarray(image).save(file, "png")
    return path


def fid(result: Result) -> str:
    """The name of its score."""
    return next(name for name in result["rows"][-1] if name.startswith("metrics/fid/"))


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
    if recipe.startswith("images/"):
        given += [f"--data.path={own_images(runs / 'shapes64.zip')}", *SCORED]
    own = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with log.open("w") as told:
        child = subprocess.Popen([*COMMAND, *given], env=os.environ | own, stdout=told, stderr=told)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"error: {recipe} of seed {seed} ended with status {child.returncode}: see {log}.")
    scores = [json.loads(line) for path in run.glob("scores-*.jsonl") for line in path.read_text().splitlines()]
    result = {
        "rows": [{k: v for k, v in row.items() if k == "step" or k.startswith("metrics/fid/")} for row in scores],
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
        "FID, last": lambda result: measures.last(result, fid(result)),
        "best": lambda result: measures.best(result, fid(result)),
    }
    counted = {name: found for name, found in played.items() if found}
    n = len(arguments.seeds)
    rows = {f"{k}, {len(v)} of {n} seeds" if len(v) < n else k: v for k, v in counted.items()}
    by_data = {
        data: {k: v for k, v in counted.items() if Path(k).parent.name == data}
        for data in (Path(k).parent.name for k in counted)
    }
    names = {data: fid(next(iter(found.values()))[0]) for data, found in by_data.items()}
    by = " and ".join(f"{name.rsplit('/', 1)[1]} on {data}" for data, name in names.items())
    protocol = [
        "minutes are processor time of the whole run, its start, scores and pictures included; one thread",
        f"FID of as many samples of the averaged generator, against the training images, as the recipe says, by {by}",
        "pictures: the first samples of the first seed, none chosen",
    ]
    figure = figures.stack(figures.samples(counted, 20), figures.curves(by_data, names, "FID", log=True))
    page.publish(arguments, "Recipes for a laptop", counted, protocol, measures.table(rows, columns, "recipe"), figure)


def main() -> None:
    """Play what is missing until the hours are over."""
    p = page.parser(__doc__, hours=8.0)
    p.add_argument("--only", nargs="+", default=[name for name in names() if name.endswith("_cpu")])
    p.set_defaults(out=Path("runs/laptop.md"), jobs=1, runs="runs/experiments")
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
