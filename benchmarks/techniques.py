"""Each technique by ``trainer.fit``, as a user has it, beside the loop that a skilled engineer writes for it.

Run from the repository's root::

    python -m benchmarks.techniques                           # every technique, toys of 3 x 32 units
    python -m benchmarks.techniques --width 512 --only wgan_gp r3_gan
    python -m benchmarks.techniques --own                     # a user's own networks and loader
    python -m benchmarks.techniques --count gan 1000 ours     # one side alone, for valgrind --tool=cachegrind

CPU time of the process (`time.process_time`), one thread; the sides take turns, who goes first alternates. *whole* is
everything from the call of ``fit``, or of the loop, to its return; *steady* leaves out the first fifth of the updates.
A ratio is the median over rounds of ours over the loop within a round, with the smallest and the largest.

Ours logs every 50 updates to a CSV file and draws its progress bar; with ``--own`` the networks are ``nn.Sequential``,
the data a ``DataLoader`` over an iterable of ready batches, without workers, on both sides. The loops
(``benchmarks.skilled``) do nothing but the algorithm. Batches of 256.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.common import Ticks, quiet, spread
from benchmarks.skilled import Setting, Tick, loops
from lightning_gans import TECHNIQUES
from lightning_gans.callbacks import GANProgressBar
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.runs.metrics_csv import MetricsCSV

BATCH, LATENT, ITEMS = 256, 2, 100_000
WGAN = {"d_steps": 5, "betas": (0.0, 0.9), "lr_g": 1e-4, "lr_d": 1e-4}
LOGISTIC = {"betas": (0.5, 0.999), "lr_g": 1e-4, "lr_d": 1e-4}
# What each is played with, on both sides, and updates of a round at width 32.
TOYS: dict[str, tuple[dict[str, Any], int]] = {
    "gan": (LOGISTIC, 3000),
    "dcgan": (LOGISTIC, 3000),
    "wgan": ({"d_steps": 5, "lr_g": 5e-5, "lr_d": 5e-5}, 1000),
    "wgan_gp": (WGAN, 800),
    "ct_gan": (WGAN, 500),
    "sn_gan": ({**WGAN, "g_batch_factor": 2, "order": "g_first"}, 500),
    "srn_gan": ({**WGAN, "g_batch_factor": 2, "order": "g_first"}, 400),
    "wgan_alp": ({**WGAN, "g_batch_factor": 2, "clip": None}, 400),
    "prc_gan": ({**WGAN, "g_steps": 5, "gp_weight": 5.0, "ct_weight": 0.0, "lr_g": 2e-5}, 2000),
    "primal_dual": ({**LOGISTIC, "alpha": 0.1}, 1500),
    "unrolled": (LOGISTIC, 300),
    "robust_wgan": ({**WGAN, "rho": 0.0264, "gp_weight": 10.0}, 600),
    "boosted": (LOGISTIC, 3000),
    "ada_gan": (LOGISTIC, 3000),
    "r3_gan": ({**LOGISTIC, "betas": (0.0, 0.9), "gamma": 0.05}, 2000),
}
# Networks behind generator and discriminator, by the names that the constructor has for them.
FURTHER = {"prc_gan": ("classifier",), "style_transfer": ("classifier",), "stylex": ("encoder", "classifier")}
PENALISED = {"wgan_gp", "ct_gan", "wgan_alp", "prc_gan", "robust_wgan", "r3_gan"}


def perceptron(inputs: int, outputs: int, width: int, dropout: float = 0.0) -> nn.Sequential:
    """Three hidden layers."""
    layers: list[nn.Module] = []
    for fan_in in (inputs, width, width):
        layers += [nn.Linear(fan_in, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def toy_networks(width: int, dropout: float) -> tuple[nn.Module, nn.Module]:
    """Generator and critic of points."""
    critic = nn.Sequential(*perceptron(2, 1, width, dropout), nn.Flatten(0))
    return perceptron(LATENT, 2, width), critic


class Ready(IterableDataset):
    """A user's own data: ready batches, made on the way."""

    def __init__(self, data: Tensor, batch: int) -> None:
        self.data, self.batch = data, batch

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(len(self.data) // self.batch):
            yield self.data[torch.randint(len(self.data), (self.batch,))]


def toy(name: str, width: int, own: bool) -> Setting:
    """A technique's game on points."""
    torch.manual_seed(0)
    data = torch.rand(ITEMS, 2)
    options, dropout = TOYS[name][0], 0.2 if name == "ct_gan" else 0.0
    batches = (lambda: DataLoader(Ready(data, BATCH), batch_size=None)) if own else None
    return Setting(lambda: toy_networks(width, dropout), data, BATCH, LATENT, options, batches)


def ours(name: str, setting: Setting, updates: int, tick: Tick) -> None:
    """The library, as a user has it."""
    torch.manual_seed(0)
    generator, critic, *_ = setting.networks()
    further = FURTHER.get(name, ())
    options = dict(setting.options) | dict(zip(further, setting.networks()[-len(further) :]))
    options |= {"weight_network": setting.networks()[1]} if name == "robust_wgan" else {}
    options |= {"base": setting.networks()[0]} if name == "boosted" else {}
    with tempfile.TemporaryDirectory() as folder, quiet():
        loader = (
            MemoryLoader(setting.data, setting.labels, setting.batch) if setting.batches is None else setting.batches()
        )
        tick(0)
        module = TECHNIQUES[name](generator, critic, setting.latent_dim, **options)
        trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator="cpu", logger=MetricsCSV(folder),
                             callbacks=[GANProgressBar(), Ticks(tick)], enable_checkpointing=False,
                             enable_model_summary=False)  # fmt: skip
        trainer.fit(module, train_dataloaders=loader)


def skilled(name: str, setting: Setting, updates: int, tick: Tick) -> None:
    """The loop."""
    loop = loops(name, setting.options) if setting.loop is None else setting.loop()
    loop.run(setting, updates, tick)


SIDES: dict[str, Callable[..., None]] = {"skilled": skilled, "ours": ours}


def timed(side: str, name: str, setting: Setting, updates: int) -> tuple[float, float]:
    """CPU seconds per update: of the whole call, and after the first fifth."""
    marks: dict[int, float] = {}

    def tick(update: int) -> None:
        marks[update] = time.process_time()

    start = time.process_time()
    SIDES[side](name, setting, updates, tick)
    end = time.process_time()
    cycle = setting.options.get("g_steps", 1)
    last, warm = max(marks), min(update for update in marks if update >= max(cycle, updates // 5))
    return (end - start) / last, (marks[last] - marks[warm]) / (last - warm)


def compare(name: str, setting: Setting, rounds: int, updates: int, target: float | None) -> str:
    """A row of the table."""
    seen: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for side in SIDES:  # first calls, that pay for lazy imports
        SIDES[side](name, setting, max(updates // 20, min(10, updates // 4), 1), lambda update: None)
    for i in range(rounds):
        for side in sorted(SIDES, reverse=i % 2 == 0):
            seen[side].append(timed(side, name, setting, updates))
    whole, steady = ([o[k] / s[k] for o, s in zip(seen["ours"], seen["skilled"])] for k in (0, 1))
    ms = [f"{1000 * statistics.median(t[0] for t in seen[side]):.3f}" for side in SIDES]
    aim = "" if target is None else f"{target:.2f}"
    return f"| {name} | {rounds} x {updates} | {ms[0]} | {ms[1]} | {spread(whole)} | {spread(steady)} | {aim} |"


def measure(rows: Mapping[str, Any], description: str) -> None:
    """The command line of rows that have a title, a technique, a setting and a length each: measure and print."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", nargs="+", choices=list(rows), default=list(rows))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=float, default=1.0, help="times the updates of a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger(pl.__name__).setLevel(logging.ERROR)
    print("| game | rounds x updates | skilled, ms per update | ours, ms | ratio, whole | ratio, steady | at most |")
    print("|---" * 7 + "|")
    for name in options.only:
        row = rows[name]
        updates = max(2 * row.options.get("g_steps", 1), int(row.updates * options.updates))
        found = compare(row.technique, row.setting(), options.rounds, updates, row.target)
        print(f"| {row.title} " + found.removeprefix(f"| {row.technique} "), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Each technique beside a skilled engineer's loop, in CPU time.")
    parser.add_argument("--only", nargs="+", choices=list(TOYS), default=list(TOYS))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--own", action="store_true", help="a user's own loader, on both sides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=float, default=1.0, help="times the updates of a round")
    parser.add_argument("--count", nargs=3, metavar=("NAME", "UPDATES", "SIDE"), help="run one side and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger(pl.__name__).setLevel(logging.ERROR)
    if options.count:
        name, updates, side = options.count
        SIDES[side](name, toy(name, options.width, options.own), int(updates), lambda update: None)
        return
    print(
        "| technique | rounds x updates | skilled, ms per update | ours, ms | ratio, whole | ratio, steady | at most |"
    )
    print("|---" * 7 + "|")
    for name in options.only:
        updates = max(20, int(TOYS[name][1] * options.updates * (1 if options.width < 100 else 0.05)))
        wide = options.width >= 100
        target = 1.20 if options.own else (0.90 if wide else 1.0) if name in PENALISED else 1.0 if wide else 1.15
        print(compare(name, toy(name, options.width, options.own), options.rounds, updates, target), flush=True)


if __name__ == "__main__":
    main()
