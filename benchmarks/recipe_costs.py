"""What each recipe costs on one CPU core: ``python -m benchmarks.recipe_costs``, a minute or less for each.

Writes ``configs/costs.json``, which ``lightning-gans recipes`` tells: CPU seconds of all generator updates, from a few
of them (the first one left out; scores, pictures and averages too), and the peak memory of the process. Data that are
not there are random, of the same shape. Recipes that are in the file already are passed over.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import time
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.orphans import end_with_parent
from lightning_gans.cli import main
from lightning_gans.cli.gan_cli import GANCLI
from lightning_gans.cli.recipes import COSTS, RECIPES, names
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import StackedMNIST
from lightning_gans.datamodules.downloaded import DownloadedDataModule
from lightning_gans.datamodules.folder import Images
from lightning_gans.runs.atomic import write_text

SECONDS, MOST = 6.0, 60  # of CPU time, and updates, for one recipe


class Clock(callbacks.Callback):
    """CPU seconds at the end of each update of each phase (of a game there is one); ends it when there are enough.

    Args:
        phases: updates of each player whose updates are counted, one after the other.
    """

    def __init__(self, phases: dict[str, int]) -> None:
        self.phases = phases
        self.times: dict[str, list[float]] = {name: [] for name in phases}
        self.playing = ""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.playing = pl_module.counted

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        times = self.times[self.playing]
        times.append(time.process_time())
        if len(times) == MOST or (len(times) > 2 and times[-1] - times[0] > SECONDS):
            pl_module.progress.updates[self.playing] = self.phases[self.playing]
            trainer.should_stop = self.playing == [*self.phases][-1]

    def seconds(self) -> float:
        """Of all updates, by those that were measured."""
        return sum(n * (t[-1] - t[0]) / (len(t) - 1) for n, t in zip(self.phases.values(), self.times.values()))


class Built(Exception):
    """Carries the model, the data and the updates of a recipe."""


def random_data(module: Any, split: str) -> tuple[Tensor, Tensor | None]:
    """In the place of files: 2,048 images."""
    stacked = isinstance(module, StackedMNIST)
    shape, classes = ((1, *module.shape[1:]), 10) if stacked else (module.shape, module.num_classes)
    labels = None if classes is None else torch.arange(2048) % classes
    return torch.randint(256, (2048, *shape), dtype=torch.uint8), labels


def measure(name: str, answer: Connection) -> None:
    """Send CPU seconds and MiB of one recipe; in a process of its own, whose peak memory is then the recipe's."""
    torch.set_num_threads(1)
    classes: list[Any] = [DownloadedDataModule]
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        cls.prepare_data = lambda self: None
        cls.load = cls.load if cls is StackedMNIST else random_data  # it stacks what MNIST loads

    def fit(self: Any, model: Any, datamodule: Any, **_: Any) -> None:
        raise Built(model, datamodule, self.max_steps)

    original, pl.Trainer.fit = pl.Trainer.fit, fit
    path, more = RECIPES / f"{name}.yaml", []
    if "class_path: Images" in path.read_text():
        Images.load, Images.shape, Images.num_classes = random_data, (3, 64, 64), None
        Path("images").mkdir()
        Image.new("RGB", (64, 64)).save("images/0.png")
        more = ["--data.path=images"]
    if "yelp.0" in path.read_text():
        for style in "01":
            lines = [" ".join(f"w{word}" for word in line) for line in torch.randint(5000, (2048, 15)).tolist()]
            Path(f"yelp.{style}").write_text("\n".join(lines))
    GANCLI.config_dump = {}
    try:
        main(["fit", f"--config={path}", "--trainer.accelerator=cpu", "--name=a", *more])
    except Built as built:
        model, data, updates = built.args
    phases, left = {}, updates
    for player, own in getattr(model, "phases", {model.counted: None}).items():
        phases[player] = left if own is None else min(own, left)
        left -= phases[player]
    clock, pl.Trainer.fit = Clock(phases), original
    quick: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=-1, accelerator="cpu", devices=1, limit_val_batches=0, enable_model_summary=False,
                         callbacks=[clock], **quick)  # fmt: skip
    trainer.fit(model, datamodule=data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer.send({"seconds": float(f"{clock.seconds():.3g}"), "mib": float(f"{peak:.3g}")})


def run() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="*", default=names(), help="By default all.")
    parser.add_argument("--limit", type=float, default=240.0, help="Seconds for one recipe.")
    own = parser.parse_args()
    fork = multiprocessing.get_context("fork")
    known = json.loads(COSTS.read_text()) if COSTS.is_file() else {}
    for name in own.recipes:
        if name in known.get("recipes", {}):
            continue
        ours, theirs = fork.Pipe()
        with TemporaryDirectory() as folder:
            child = fork.Process(target=_in, args=(folder, name, theirs))
            child.start()
            theirs.close()
            if not ours.poll(own.limit):
                print(name, "took too long", flush=True)
            elif found := _received(ours):
                known.setdefault("recipes", {})[name] = found
                known["measured"] = (
                    f"{date.today()}, one core of {platform.processor() or platform.machine()}, "
                    f"torch {torch.__version__}"
                )
                write_text(COSTS, json.dumps(known, indent=1, sort_keys=True) + "\n")
                print(name, found, flush=True)
            else:
                print(name, "ended without a result: it may have been killed for its memory", flush=True)
            child.kill()
            child.join()


def _received(ours: Connection) -> Any:
    try:
        return ours.recv()
    except EOFError:  # it has failed
        return None


def _in(folder: str, name: str, answer: Connection) -> None:
    import os

    end_with_parent()
    os.chdir(folder)
    try:
        measure(name, answer)
    except BaseException as error:  # one recipe that fails is no reason to lose the others
        print(name, repr(error)[:300], flush=True)
        raise


if __name__ == "__main__":
    run()
