"""What the loop costs: ``trainer.fit`` beside a hand-written PyTorch loop of the same WGAN-GP.

Run from the repository's root, on an otherwise idle machine::

    python -m benchmarks.overhead                                     # every case, printed
    python -m benchmarks.overhead --case a --case d                   # some cases
    python -m benchmarks.overhead --long                              # memory over 100,000 toy updates as well
    python -m benchmarks.overhead --long --out runs/overhead.md

Cases: (a) toy MLPs, (b) the MNIST nets, (c) the CIFAR ResNet, (d) the in-memory loader, (e) peak memory.

Both sides train the same networks from the same seed, on the same tensor in memory, for the same number of updates, in
one process with one thread. They take turns, and who goes first alternates. The plain loop does nothing that is not the
algorithm: no logging, no hooks. Ours logs every 50 updates to a CSV file and draws its progress bar.

* *whole*: everything from the call of ``fit``, or of the loop, to its return;
* *steady*: time per update after the first fifth of them.

A ratio is the median over rounds of the ratio within a round; the smallest and the largest stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import Clock, Ticks, circumstances, peak_mib, quiet, resident_mib, spread
from lightning_gans import WGANGP
from lightning_gans.callbacks import GANProgressBar
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import ToRange
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.networks import (
    MNISTCritic,
    MNISTGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    ToyDiscriminator,
    ToyGenerator,
)
from lightning_gans.runs.atomic import write_text
from lightning_gans.runs.metrics_csv import MetricsCSV

D_STEPS, GP_WEIGHT, LR, BETAS = 5, 10.0, 1e-4, (0.0, 0.9)


@dataclass(frozen=True)
class Game:
    """Networks, data and length of one comparison.

    Attributes:
        title: what the table calls it.
        nets: makes the generator and the critic.
        shape: of one item; the data are ``items`` random ones.
        batch: items per critic update.
        g_batch_factor: fakes per generator update, in batches.
        updates: generator updates per round and side.
        rounds: how often the sides take turns.
        target: largest ratio allowed.
    """

    title: str
    nets: Callable[[], tuple[nn.Module, nn.Module]]
    latent_dim: int
    shape: tuple[int, ...]
    items: int
    batch: int
    g_batch_factor: int
    updates: int
    rounds: int
    target: float

    def start(self) -> tuple[nn.Module, nn.Module, Tensor]:
        """The same networks and data each time."""
        torch.manual_seed(0)
        return *self.nets(), torch.rand(self.items, *self.shape)


GAMES = {
    "a": Game(
        "toy, 3 x 32 units, batch 256",
        lambda: (ToyGenerator(width=32), ToyDiscriminator(width=32)),
        latent_dim=2, shape=(2,), items=100_000, batch=256, g_batch_factor=1, updates=2000, rounds=9, target=1.15,
    ),
    "b": Game(
        "MNIST nets, batch 50",
        lambda: (MNISTGenerator(), MNISTCritic()),
        latent_dim=128, shape=(1, 28, 28), items=10_000, batch=50, g_batch_factor=1, updates=15, rounds=7, target=1.03,
    ),
    "c": Game(
        "CIFAR ResNet, width 32, batch 64 and 128",
        lambda: (ResNetGenerator(width=32), ResNetDiscriminator(width=32)),
        latent_dim=128, shape=(3, 32, 32), items=5000, batch=64, g_batch_factor=2, updates=8, rounds=7, target=1.02,
    ),
}  # fmt: skip


# ---------------------------------------------------------------------- the two sides
def penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """mean (||grad f(x^)|| - 1)^2 at x^ = a x + (1 - a) G(z)."""
    a = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    x = (a * real + (1 - a) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def plain_loop(game: Game, updates: int, clock: Clock) -> None:
    """WGAN-GP as one writes it by hand; calls ``clock`` after each generator update."""
    generator, critic, data = game.start()
    clock(0)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=LR, betas=BETAS)
    optimizer_d = torch.optim.Adam(critic.parameters(), lr=LR, betas=BETAS)
    for update in range(1, updates + 1):
        for _ in range(D_STEPS):
            real = data[torch.randint(len(data), (game.batch,))]
            with torch.no_grad():
                fake = generator(torch.randn(game.batch, game.latent_dim))
            optimizer_d.zero_grad(set_to_none=True)
            loss = critic(fake).mean() - critic(real).mean() + GP_WEIGHT * penalty(critic, real, fake)
            loss.backward()
            optimizer_d.step()
        critic.requires_grad_(False)
        optimizer_g.zero_grad(set_to_none=True)
        loss = -critic(generator(torch.randn(game.g_batch_factor * game.batch, game.latent_dim))).mean()
        loss.backward()
        optimizer_g.step()
        critic.requires_grad_(True)
        clock(update)


def ours(game: Game, updates: int, clock: Clock) -> None:
    """The same by ``trainer.fit``, with a CSV logger and the progress bar (drawn into nothing)."""
    generator, critic, data = game.start()
    loader = MemoryLoader(data, None, game.batch)
    module = WGANGP(generator, critic, game.latent_dim, gp_weight=GP_WEIGHT, d_steps=D_STEPS, lr_g=LR, lr_d=LR,
                    betas=BETAS, g_batch_factor=game.g_batch_factor)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, quiet():
        clock(0)
        trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator="cpu", logger=MetricsCSV(folder),
                             callbacks=[GANProgressBar(), Ticks(clock)], enable_checkpointing=False,
                             enable_model_summary=False)  # fmt: skip
        trainer.fit(module, train_dataloaders=loader)


SIDES = {"plain": plain_loop, "ours": ours}


def timed(side: str, game: Game, updates: int) -> tuple[float, float]:
    """Seconds per update: of the whole call, and after the first fifth."""
    times: dict[int, float] = {}

    def clock(update: int) -> None:
        times[update] = time.perf_counter()

    SIDES[side](game, updates, clock)
    end, warm = time.perf_counter(), updates // 5
    return (end - times[0]) / updates, (times[updates] - times[warm]) / (updates - warm)


# ---------------------------------------------------------------------- (a) to (c)
def compare(game: Game, rounds: int, updates: int) -> str:
    """A row of the table of (a) to (c)."""
    seen: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": []}
    for side in seen:
        timed(side, game, max(2, updates // 10))  # first calls, that pay for lazy imports and allocations
    for i in range(rounds):
        for side in sorted(seen, reverse=i % 2 == 0):
            seen[side].append(timed(side, game, updates))
    whole, steady = ([o[k] / p[k] for o, p in zip(seen["ours"], seen["plain"])] for k in (0, 1))
    ms = [f"{1000 * statistics.median(t[0] for t in seen[side]):.2f}" for side in ("plain", "ours")]
    return (f"| {game.title} | {rounds} x {updates} | {ms[0]} | {ms[1]} | {spread(whole)} | {spread(steady)} "
            f"| {game.target:.2f} |")  # fmt: skip


def loops(cases: Sequence[str], quick: bool) -> str:
    """The table of (a) to (c)."""
    rows = ["| case | rounds x updates | plain, ms per update | ours, ms | ratio, whole | ratio, steady | at most |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for case in cases:
        game = GAMES[case]
        rounds, updates = (2, max(2, game.updates // 5)) if quick else (game.rounds, game.updates)
        rows.append(f"| ({case}) " + compare(game, rounds, updates).removeprefix("| "))
        print(rows[-1], flush=True)
    return "## Training against a plain loop\n\n" + "\n".join(rows)


# ---------------------------------------------------------------------- (d)
class Pictures(Dataset):
    """Grey images as torchvision's MNIST hands them out: a PIL image through ToTensor and Normalize."""

    def __init__(self, images: Tensor) -> None:
        from torchvision import transforms

        self.images, self.labels = images, torch.zeros(len(images), dtype=torch.int64)
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i].numpy())), int(self.labels[i])


def batches_per_second(loader: Any, seconds: float) -> float:
    """Over so many seconds and at least 10 batches, from the first batch on; epochs follow one another."""
    done, start = 0, 0.0
    while True:
        for _ in loader:
            now = time.perf_counter()
            if start == 0:
                start = now
                continue
            done += 1
            if done >= 10 and now - start >= seconds:
                return done / (now - start)


def loading(quick: bool) -> str:
    """The table of (d)."""
    images = torch.randint(256, (60_000, 28, 28), dtype=torch.uint8)
    pictures = Pictures(images)
    loaders = {
        "ours, in memory": MemoryLoader(images[:, None], pictures.labels, 64, transform=ToRange(-1, 1)),
        "DataLoader, num_workers=0": DataLoader(pictures, 64, shuffle=True, drop_last=True),
        "DataLoader, num_workers=2": DataLoader(pictures, 64, shuffle=True, drop_last=True, num_workers=2,
                                                persistent_workers=True),
    }  # fmt: skip
    rounds, seconds = (2, 0.5) if quick else (9, 2.0)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, loader in loaders.items():
            rates[name].append(batches_per_second(loader, seconds))
    mine = rates["ours, in memory"]
    rows = ["| (d) loader | batches of 64 per second | ours is so many times faster | at least |", "|---|---|---|---|"]
    for name, seen in rates.items():
        times = [a / b for a, b in zip(mine, seen)]
        ratio = (
            "| | |"
            if name.startswith("ours")
            else f"| **{statistics.median(times):.0f}** ({min(times):.0f} to {max(times):.0f}) | 10 |"
        )
        rows.append(f"| {name} | {statistics.median(seen):.0f} {ratio}")
        print(rows[-1], flush=True)
    return "## Loading, MNIST-shaped images with labels, ToTensor and Normalize\n\n" + "\n".join(rows)


# ---------------------------------------------------------------------- (e)
def child(task: str) -> Any:
    """What ``--child task`` prints, in a process of its own.

    Its C library gives larger blocks back to the system at once. What it keeps otherwise is left to chance: the peak of
    either side, the same program each time, then differs by 10 % from run to run.
    """
    command = [sys.executable, "-m", "benchmarks.overhead", "--child", task]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_child(task: str) -> Any:
    """``plain-a``: peak memory before and after so many updates of that side. ``long-100000``: memory on the way."""
    side, _, case = task.partition("-")
    if side != "long":
        before = peak_mib()
        SIDES[side](GAMES[case], 200 if case == "a" else 3, lambda update: None)
        return [before, peak_mib()]
    updates, seen = int(case), []
    every = updates // 10
    ours(GAMES["a"], updates, lambda update: seen.append(resident_mib()) if update % every == 0 else None)
    return seen


def memory(quick: bool) -> str:
    """The table of (e)."""
    rows = ["| (e) peak memory of the process | imports alone, MiB | plain, MiB | ours, MiB | ratio | at most |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    for case, game in GAMES.items():
        rounds = 1 if quick else 3
        seen = {side: [child(f"{side}-{case}") for _ in range(rounds)] for side in SIDES}
        before = statistics.median(s[0] for side in seen.values() for s in side)
        plain, mine = (statistics.median(s[1] for s in seen[side]) for side in ("plain", "ours"))
        rows.append(f"| {game.title} | {before:.0f} | {plain:.0f} | {mine:.0f} | **{mine / plain:.3f}** | 1.05 |")
        print(rows[-1], flush=True)
    return (
        "## Peak memory (both sides with the same imports; freed blocks of 64 KiB and more returned at once)\n\n"
        + "\n".join(rows)
    )


def long_run(updates: int) -> str:
    """Memory on the way through many toy updates."""
    seen = child(f"long-{updates}")
    steps = [i * updates // 10 for i in range(len(seen))]
    rows = [f"| toy updates | {' | '.join(f'{step:,}' for step in steps)} |", "|---" * (len(seen) + 1) + "|",
            f"| resident, MiB | {' | '.join(f'{value:.1f}' for value in seen)} |"]  # fmt: skip
    print(rows[-1], flush=True)
    return f"## Memory over {updates:,} toy updates\n\n" + "\n".join(rows)


# ---------------------------------------------------------------------- report
def main() -> None:
    """Measure, print, and write the report if asked to."""
    parser = argparse.ArgumentParser(description="Speed and memory beside a plain PyTorch loop.")
    parser.add_argument("--case", action="append", choices=list("abcde"), help="only these (repeat the option)")
    parser.add_argument("--long", action="store_true", help="also 100,000 toy updates, for their memory")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to measure")
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick and options.out:
        parser.error("--quick measures too little to be written down: leave out --quick or --out.")
    torch.set_num_threads(1)
    if options.child:
        print(json.dumps(run_child(options.child)))
        return
    cases = options.case or list("abcde")
    parts = []
    if chosen := [case for case in "abc" if case in cases]:
        parts.append(loops(chosen, options.quick))
    if "d" in cases:
        parts.append(loading(options.quick))
    if "e" in cases:
        parts.append(memory(options.quick))
    if options.long:
        parts.append(long_run(2000 if options.quick else 100_000))
    command = " ".join(["python -m benchmarks.overhead", *sys.argv[1:]])
    protocol = (__doc__ or "").split("\n\n", 3)[3].strip().replace("``", "`")
    report = "\n\n".join(["# What the loop costs", circumstances(command), protocol, *parts]) + "\n"
    if options.out:
        write_text(options.out, report)
        print(f"Report: {options.out}")
    else:
        print("\n" + report)


if __name__ == "__main__":
    main()
