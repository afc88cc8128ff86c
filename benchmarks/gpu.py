"""Nine minutes on a GPU: one command measures everything that the tables want of one.

Run from the repository's root::

    python -m benchmarks.gpu --data DIR --out OUT                 # DIR/cifar-10-batches-py/data_batch_1 ...
    python -m benchmarks.gpu --device cpu --scale 0.01 --out OUT  # a rehearsal, on made-up images if there is no --data
    python -m benchmarks.gpu --report OUT                         # docs/results/gpu.md of what lies in OUT

Stages: environment, extractor (the classifier that scores), exactness (CUDA graphs, resuming, bf16-mixed, the compiled
double backward pass), speed (beside plain loops), transformer (TransGAN), training (four techniques against the clock),
results (generators and samples), styles (StyleGAN2) and text (character WGAN-GP, RelGAN), if there is time left. Each
runs in a process of its own, within its own seconds and before the end of all, and is in ``OUT/stages.json`` as soon as
there is anything to say, so that one that fails, hangs or is cut off loses nothing of the others, nor of earlier runs.
A classifier that lies in ``OUT/classifiers`` is used again, so that scores of several runs can be compared.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before torch starts, for bits that repeat
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # this process is forked from, so it leaves the card alone
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from benchmarks import gpu_report, gpu_stages, gpu_text, gpu_training, gpu_transformer
from benchmarks.gpu_games import RESULTS, Setting, kept
from benchmarks.parts import Job, Row, Send, together, write_json


@dataclass(frozen=True)
class Stage:
    """A part of the whole.

    Attributes:
        run: of the setting and of a function that takes what is found on the way.
        seconds: its share.
        least: seconds without which it is not started; they are kept free for it by the stages before.
    """

    run: Callable[[Setting, Send], Row]
    seconds: float
    least: float


STAGES = {
    "environment": Stage(gpu_stages.environment, 20, 5),
    "extractor": Stage(gpu_stages.extractor, 30, 10),
    "exactness": Stage(gpu_stages.exactness, 70, 20),
    "speed": Stage(gpu_stages.speeds, 140, 30),
    "transformer": Stage(gpu_transformer.transformer, 40, 15),
    "training": Stage(gpu_training.training, 300, 60),
    "results": Stage(gpu_training.results, 40, 20),
    "styles": Stage(gpu_training.styles, 90, 20),
    "text": Stage(gpu_text.text, 100, 25),
}


def run(stages: Mapping[str, Stage], setting: Setting, deadline: float) -> dict[str, Row]:
    """Run stages one after the other; those that do not fit any more are left out."""
    head = {"card": setting.card, "device": setting.device, "scale": setting.scale, "source": setting.source}
    before, rows = kept(setting.out), dict[str, Row]()
    names = list(stages)
    for i, (name, stage) in enumerate(stages.items()):
        start = time.monotonic()
        end = min(start + stage.seconds, deadline - sum(stages[later].least for later in names[i + 1 :]))
        rows[name] = {}

        def keep(found: Mapping[str, Row], name: str = name, start: float = start) -> None:
            rows[name] = {"stage": name, **head, "seconds": time.monotonic() - start, **found[name]}
            for part in rows[name].get("rows", {}).values():
                part["card"] = setting.card
            write_json(setting.out / RESULTS, before | rows)

        if end - start < stage.least:
            keep({name: {"error": f"not started: it needs {stage.least:g} s, {max(0.0, end - start):.0f} s were left"}})
        else:
            mine = replace(setting, end=end - min(2.0, 0.1 * (end - start)))
            together({name: partial(stage.run, mine)}, end, told=keep, group=True)
        print(f"{name}: {rows[name]['seconds']:.0f} s, {told(rows[name])}", flush=True)
    return rows


def told(row: Row) -> str:
    """A stage in one line."""
    return f"{row['error']} (kept: {len(row.get('rows', {}))} rows)" if "error" in row else row.get("told", "")


def read_cifar(folder: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """What there is of CIFAR-10 in torchvision's layout: (images, labels) of ``train`` and ``test``, names of files."""
    batches = folder / "cifar-10-batches-py"
    if not batches.is_dir():
        raise ValueError(f"--data must be a folder with cifar-10-batches-py in it, got {str(folder)!r}.")
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    files = sorted(path for path in batches.iterdir() if path.name.startswith(("data_batch_", "test_batch")))
    for path in files:
        content = pickle.loads(path.read_bytes(), encoding="latin1")
        images = torch.from_numpy(content["data"].reshape(-1, 3, 32, 32).copy())
        found.setdefault(path.name[:4], []).append((images, torch.tensor(content["labels"])))
    if "data" not in found:
        raise ValueError(f"--data must hold data_batch_1, or 2 to 5, got none of them in {str(batches)!r}.")
    splits = {split: (torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts]))
              for split, parts in found.items()}  # fmt: skip
    return splits, [path.name for path in files]


def made_up(items: int) -> tuple[Tensor, Tensor]:
    """Images of ten colours with noise, and their labels."""
    own = torch.Generator().manual_seed(0)
    labels = torch.arange(items) % 10
    colours = torch.randint(40, 216, (10, 3, 1, 1), generator=own)[labels]
    return (colours + torch.randint(-40, 40, (items, 3, 32, 32), generator=own)).byte(), labels


def card_of(device: str) -> str:
    """The card's name, asked for by another process: this one must not touch it."""
    if device == "cpu":
        return "CPU"
    job: Job = lambda send: {"name": torch.cuda.get_device_name(0)} if torch.cuda.is_available() else {}  # noqa: E731
    found = together({"card": job}, time.monotonic() + 60)["card"]
    if "name" not in found:
        raise ValueError("--device cuda needs a CUDA device, but none is there.")
    return str(found["name"])


def prepare(options: argparse.Namespace) -> Setting:
    """The setting that the options ask for; ValueError, in one sentence, where it cannot be had."""
    card = card_of(options.device)
    folder = options.data or os.environ.get("LIGHTNING_GANS_DATA")
    test = None
    if folder is None:
        if options.device == "cuda":
            raise ValueError("--data must be a folder with cifar-10-batches-py in it, got none.")
        images, labels = made_up(640)
        source = "made-up images"
    else:
        splits, files = read_cifar(Path(folder))
        (images, labels), test = splits["data"], splits.get("test")
        source = f"CIFAR-10: {', '.join(files)}"
    if options.scale < 1:
        keep = max(640, round(len(images) * options.scale))
        images, labels = images[:keep], labels[:keep]
        test = None if test is None else (test[0][:200], test[1][:200])
        source += f", {len(images)} images of them"
    return Setting(options.device, options.scale, options.out, Path(), card, source, images, labels, test)


def main(arguments: list[str] | None = None, stages: Mapping[str, Stage] = STAGES) -> None:
    """Parse, run what was asked for, and print a short table."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10, or a part of it; default: $LIGHTNING_GANS_DATA")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--seconds", type=float, default=540, help="the end of all, from the start on")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times smaller, to rehearse; at most 1")
    parser.add_argument("--stages", help=f"only these, separated by commas: {','.join(stages)}")
    parser.add_argument("--report", type=Path, metavar="OUT", help="write docs/results/gpu.md of these results")
    options = parser.parse_args(arguments)
    if options.report:
        print(f"Report: {gpu_report.write(options.report)}")
        return
    chosen = options.stages.split(",") if options.stages else list(stages)
    if unknown := [name for name in chosen if name not in stages]:
        parser.error(f"--stages must be some of {', '.join(stages)}, got {', '.join(unknown)}.")
    if not 0 < options.scale <= 1:
        parser.error(f"--scale must be in (0, 1], got {options.scale!r}.")
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stages are ended, too
    try:
        setting = prepare(options)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as scratch:
        setting = replace(setting, scratch=Path(scratch))
        rows = run({name: stages[name] for name in stages if name in chosen}, setting, begun + options.seconds)
    for lock in setting.out.glob("classifiers/*.lock"):  # all processes have ended; few files are to come back
        lock.unlink()
    print(f"\n{setting.card}, {setting.source}; results in {setting.out}")
    for name, row in rows.items():
        print(f"| {name} | {row['seconds']:.0f} s | {told(row)} |")


if __name__ == "__main__":
    main()
