"""What the exact rewrites gain: ``trainer.fit`` beside plain loops of the same WGAN-GP by torch's own autograd.

Run from the repository's root, on an otherwise idle machine::

    python -m benchmarks.speed                               # every case, printed
    python -m benchmarks.speed --case toy512 --case mnist    # some cases
    python -m benchmarks.speed --out runs/speed.md
    python -m benchmarks.speed --device cuda --case cifar128 # on a GPU, with TF32 on both sides

Sides, which take turns in one process with one thread, each in turn the first:

* *plain*: a hand-written loop, no logging, no hooks: fakes under no_grad, D(fake) and D(real) apart, the penalty by
  autograd.grad with create_graph, one backward pass, torch.optim.Adam as it comes; networks with every convolution,
  pooling and upsampling computed one after the other, in torch's default memory format;
* *ours*: the library's WGAN-GP by ``trainer.fit`` with its defaults, logging every 50 updates to a CSV file; *ours,
  bf16* with ``precision="bf16-mixed"``, which keeps the penalty in float32 (gradients then differ by some per cent);
  on a GPU also *compiled* (``double_backward="compiled"``) and *graphs* (``cuda_graphs=True``), where the aim at width
  128 is 0.35 of the plain loop and 9.75 ms;
* *script*: as a popular collection of scripts has it: noise by numpy, the generator's graph kept in the critic's step,
  the critic not frozen in the generator's;
* *two steps*: as a popular framework has it: critic loss and penalty are two Adam updates, with one interpolation
  weight and one norm per batch. Not the same algorithm;
* *skilled*: the plain loop with channels_last and fused Adam; on a GPU and for the toys real and fake are scored in one
  pass, which costs time with large batches on a CPU.

A ratio is the median over rounds of the ratio to *plain*, or to *skilled*, within a round; the smallest and the largest
stand beside it. On a CPU the clock is CPU time of the process.
The toys are timed as a whole, from the call of ``fit`` or of the loop to its return, after a round that is left out;
the others without their first update and what comes before it (some 0.4 seconds of ``fit``).
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.common import Ticks, circumstances, peak_mib, quiet, spread
from benchmarks.overhead import BETAS, D_STEPS, GAMES, GP_WEIGHT, LR, Game, penalty
from lightning_gans import WGANGP
from lightning_gans.callbacks import GANProgressBar
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.functional import double_backward, gradient_penalty
from lightning_gans.networks import ResNetDiscriminator, ResNetGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.networks.fold import DownConv2d, UpConv2d
from lightning_gans.runs.atomic import write_text
from lightning_gans.runs.metrics_csv import MetricsCSV


@dataclasses.dataclass(frozen=True)
class Case:
    """A game, the sides that play it, and the largest ratios that are aimed at."""

    game: Game
    targets: dict[str, float | None]
    memory: float | None = None


def wide(width: int, updates: int, rounds: int) -> Game:
    nets = lambda: (ResNetGenerator(width=width), ResNetDiscriminator(width=width))  # noqa: E731
    title = f"CIFAR ResNet, width {width}, 5 D (64) + 1 G (128)"
    return dataclasses.replace(GAMES["c"], title=title, nets=nets, updates=updates, rounds=rounds)


CASES = {
    "toy512": Case(
        dataclasses.replace(
            GAMES["a"], title="toy, 3 x 512 units, batch 256, 5 D + 1 G", updates=40, rounds=5,
            nets=lambda: (ToyGenerator(), ToyDiscriminator()),
        ),
        {"skilled": None, "ours": 0.90, "script": None, "two steps": None},
    ),
    "toy32": Case(
        dataclasses.replace(GAMES["a"], title="toy, 3 x 32 units, batch 256, 5 D + 1 G", updates=1000, rounds=7),
        {"skilled": None, "ours": 1.00, "script": None, "two steps": None},
    ),
    "mnist": Case(
        dataclasses.replace(GAMES["b"], title="MNIST nets, batch 50, D step alone", updates=3),
        {"skilled": None, "ours": 0.80, "ours, bf16": None},
    ),
    "cifar32": Case(
        wide(32, updates=5, rounds=4),
        {"skilled": None, "ours": 0.50, "ours, bf16": 0.32, "script": None, "two steps": None}, 0.90
    ),
    "cifar128": Case(wide(128, updates=2, rounds=3), {"skilled": None, "ours": 0.50, "ours, bf16": 0.32}, 0.90),
}  # fmt: skip


# ---------------------------------------------------------------------- networks taken apart
class PlainDown(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class PlainUp(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2))


class PlainConv(nn.Conv2d):
    """Which `networks.recomputed` leaves alone."""


def unfolded(network: nn.Module) -> nn.Module:
    """The same network and weights, each operation for itself, in the default memory format; 1 x 1 skips stay cheap."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if type(module) is nn.Conv2d:
            module.__class__ = PlainConv
        for name, child in module.named_children():
            if isinstance(child, (DownConv2d, UpConv2d)) and child.kernel_size == (3, 3):
                apart = (PlainDown if isinstance(child, DownConv2d) else PlainUp)(
                    child.in_channels, child.out_channels, 3, padding=1
                )
                apart.load_state_dict(child.state_dict())
                setattr(module, name, apart)
    for p in network.parameters():
        p.data = p.data.contiguous()
    return network


# ---------------------------------------------------------------------- the sides
class Times(NamedTuple):
    """Seconds per update: in the critic's steps (if they are timed apart, which makes the host wait for the device
    around each of them), of the whole call, and without its beginning and first update."""

    in_d: float
    whole: float
    steady: float
    marks: tuple[float, ...] = ()  # the clock after each update


def plain(
    game: Game,
    updates: int,
    device: str,
    apart: bool = False,
    script: bool = False,
    two_steps: bool = False,
    skilled: bool = False,
    tick: Callable[[int], None] = lambda update: None,
) -> Times:
    """A loop written by hand; ``apart`` times the critic's steps too; ``tick`` is called after each update."""
    layout = torch.channels_last if skilled else torch.contiguous_format
    generator, critic, data = game.start()
    generator, critic = (unfolded(net).to(device, memory_format=layout) for net in (generator, critic))
    data = data.to(device, memory_format=layout) if data.ndim == 4 else data.to(device)
    adam = partial(torch.optim.Adam, lr=LR, betas=BETAS, fused=skilled or None)  # False would rule out foreach, too
    optimizer_g, optimizer_d = adam(generator.parameters()), adam(critic.parameters())
    in_d, marks = 0.0, [clock(device)]
    for update in range(updates):
        for _ in range(D_STEPS):
            begun = clock(device) if apart else 0.0
            real = data[torch.randint(len(data), (game.batch,), device=device)]
            if script:
                noise = np.random.normal(0, 1, (game.batch, game.latent_dim)).astype("float32")
                fake = generator(torch.from_numpy(noise).to(device))
            else:
                with torch.no_grad():
                    fake = generator(torch.randn(game.batch, game.latent_dim, device=device))
            optimizer_d.zero_grad(set_to_none=True)
            if skilled and (device == "cuda" or real[0].numel() < 100):
                on_fake, on_real = critic(torch.cat([fake, real])).chunk(2)
            else:
                on_fake, on_real = critic(fake), critic(real)
            loss = on_fake.mean() - on_real.mean()
            if two_steps:
                loss.backward()
                optimizer_d.step()
                optimizer_d.zero_grad(set_to_none=True)
                x = torch.lerp(fake, real, float(torch.rand(()))).requires_grad_()
                (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
                loss = GP_WEIGHT * (gradient.norm() - 1) ** 2
            else:
                loss = loss + GP_WEIGHT * penalty(critic, real, fake)
            loss.backward()
            optimizer_d.step()
            in_d += clock(device) - begun if apart else 0.0
        critic.requires_grad_(script)
        optimizer_g.zero_grad(set_to_none=True)
        noise = torch.randn(game.g_batch_factor * game.batch, game.latent_dim, device=device)
        (-critic(generator(noise)).mean()).backward()
        optimizer_g.step()
        critic.requires_grad_(True)
        marks.append(clock(device))
        tick(update + 1)
    steady = (marks[-1] - marks[1]) / max(1, updates - 1)
    return Times(in_d / updates, (marks[-1] - marks[0]) / updates, steady, tuple(marks[1:]))


class Timed(WGANGP):
    """Times the critic's steps, fakes and data included."""

    in_d = 0.0

    def take(self, n: int) -> Any:
        self.begun = clock(self.device.type)
        return super().take(n)

    def used(self, batches: Any) -> None:
        super().used(batches)
        self.in_d += clock(self.device.type) - self.begun if batches else 0.0


def ours(
    game: Game,
    updates: int,
    device: str,
    apart: bool = False,
    precision: Any = "32-true",
    tick: Callable[[int], None] = lambda update: None,
    **options: Any,
) -> Times:
    """The library, as a user has it, on data that lie on the device as the plain loop's do."""
    generator, critic, data = game.start()
    gan = Timed if apart else WGANGP
    module = gan(generator, critic, game.latent_dim, gp_weight=GP_WEIGHT, d_steps=D_STEPS, lr_g=LR, lr_d=LR,
                 betas=BETAS, g_batch_factor=game.g_batch_factor, **options)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, quiet():
        start, marks = clock(device), []

        def mark(update: int) -> None:
            marks.append(clock(device))
            tick(update)

        trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator=device, devices=1, precision=precision,
                             logger=MetricsCSV(folder), callbacks=[GANProgressBar(), Ticks(mark)],
                             enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(module, train_dataloaders=MemoryLoader(data, None, game.batch, device=device))
    steady = (marks[-1] - marks[0]) / max(1, updates - 1)
    return Times(getattr(module, "in_d", 0.0) / updates, (clock(device) - start) / updates, steady, tuple(marks))


SIDES: dict[str, Callable[..., Times]] = {
    "plain": plain,
    "ours": ours,
    "ours, bf16": partial(ours, precision="bf16-mixed"),
    "ours, compiled": partial(ours, double_backward="compiled"),
    "ours, graphs": partial(ours, cuda_graphs=True),
    "ours, graphs, bf16": partial(ours, cuda_graphs=True, precision="bf16-mixed"),
    "script": partial(plain, script=True),
    "two steps": partial(plain, two_steps=True),
    "skilled": partial(plain, skilled=True),
}


def clock(device: str) -> float:
    """Seconds, of this process alone on a CPU: other jobs do not count."""
    if device != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------------- whole runs
def compare(name: str, case: Case, rounds: int, updates: int, device: str) -> list[str]:
    """Rows of the first table: one per side of a case."""
    part = "in_d" if name == "mnist" else "whole" if name.startswith("toy") else "steady"
    on_gpu: dict[str, float | None] = {"ours": None, "ours, compiled": None, "ours, graphs": 0.35,
                                       "ours, graphs, bf16": None}  # fmt: skip
    sides: dict[str, float | None] = {"plain": None, **(on_gpu if device == "cuda" else case.targets)}
    seen: dict[str, list[float]] = {side: [] for side in sides}
    for i in range(0 if part == "steady" else -1, rounds):
        order = [*sides][i % len(sides) :] + [*sides][: i % len(sides)]
        for side in order:
            seconds = getattr(SIDES[side](case.game, updates, device, part == "in_d"), part)
            if i >= 0:
                seen[side].append(seconds)
    rows = []
    for side, target in sides.items():
        ratio, other = (
            "" if base not in seen else "1" if side == base else spread([a / b for a, b in zip(seen[side], seen[base])])
            for base in ("plain", "skilled")
        )
        ms = 1000 * statistics.median(seen[side])
        aim = "" if target is None else f"{target:.2f}"
        rows.append(f"| {case.game.title} | {side} | {rounds} x {updates} | {ms:.1f} | {ratio} | {aim} | {other} |")
        print(rows[-1], flush=True)
    return rows


# ---------------------------------------------------------------------- one critic's gradient, idea by idea
def steps(game: Game) -> dict[str, Callable[[], Any]]:
    """The gradient of a critic's loss on one batch, by one idea after the other."""
    _, critic, data = game.start()
    apart, real, fake = unfolded(critic), data[: game.batch], data[-game.batch :]
    x = torch.lerp(fake, real, 0.3)
    folded = copy.deepcopy(critic)
    for p in folded.parameters():
        p.data = p.data.contiguous()

    def gradient(net: nn.Module, method: Any) -> list[Tensor | None]:
        with double_backward(method):
            loss = net(fake).mean() - net(real).mean() + GP_WEIGHT * gradient_penalty(net, x)
        return list(torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True))

    found = {"plain": partial(gradient, apart, "plain")}
    if any(isinstance(m, DownConv2d) for m in critic.modules()):
        found["folded"] = partial(gradient, folded, "plain")
    found["sparse double backward"] = partial(gradient, apart, "sparse")
    if any(isinstance(m, DownConv2d) for m in critic.modules()):
        found["both"] = partial(gradient, folded, "sparse")
        found["both, channels_last"] = partial(gradient, critic, "sparse")
    found["linear, rest as shipped"] = partial(gradient, critic, "linear")
    return found


def largest_difference(game: Game, name: str) -> float:
    """max |g - g_plain| / max |g_plain| over all parameters, in float64, of one idea."""
    small = dataclasses.replace(game, items=16, batch=8)

    def double() -> tuple[nn.Module, nn.Module]:
        generator, critic = game.nets()
        return generator.double(), critic.double()

    torch.set_default_dtype(torch.float64)
    try:
        found = steps(dataclasses.replace(small, nets=double))
    finally:
        torch.set_default_dtype(torch.float32)
    ours, plain = (torch.cat([g.flatten() for g in found[key]()]) for key in (name, "plain"))
    return float((ours - plain).abs().max() / plain.abs().max())


def breakdown(name: str, game: Game, rounds: int) -> list[str]:
    """Rows of the second table."""
    found, rows = steps(game), []
    seen: dict[str, list[float]] = {key: [] for key in found}
    repeat = 200 if name == "toy32" else 1
    for i in range(-1, rounds):
        order = [*found][i % len(found) :] + [*found][: i % len(found)]
        for key in order:
            start = clock("cpu")
            for _ in range(repeat):
                found[key]()
            if i >= 0:
                seen[key].append((clock("cpu") - start) / repeat)
    for key, times in seen.items():
        ratio = "1" if key == "plain" else spread([a / b for a, b in zip(times, seen["plain"])])
        error = "" if key == "plain" else f"{largest_difference(game, key):.0e}"
        rows.append(f"| {game.title} | {key} | {1000 * statistics.median(times):.2f} | {ratio} | {error} |")
        print(rows[-1], flush=True)
    return rows


# ---------------------------------------------------------------------- memory
def peak(task: str) -> list[float]:
    """Peak memory before and after so many updates, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--child", task]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def memory(name: str, case: Case) -> str:
    """A row of the third table."""
    found = {side: peak(f"{side}/{name}") for side in ("plain", "ours")}
    (before, plain_peak), (_, our_peak) = found["plain"], found["ours"]
    row = (f"| {case.game.title} | {before:.0f} | {plain_peak:.0f} | {our_peak:.0f} | **{our_peak / plain_peak:.3f}** "
           f"| {case.memory:.2f} | {(our_peak - before) / (plain_peak - before):.3f} |")  # fmt: skip
    print(row, flush=True)
    return row


TABLES = {
    "whole": (
        "## Whole runs",
        "| case | side | rounds x updates | ms per update | ratio to plain | at most | ratio to skilled |",
        7,
    ),
    "ideas": (
        "## One critic's gradient, idea by idea",
        "| case | how | ms | ratio to plain | largest difference, float64 |",
        5,
    ),
    "memory": (
        "## Peak memory of the process",
        "| case | imports alone, MiB | plain, MiB | ours, MiB | ratio | at most | ratio without the imports |",
        7,
    ),
}


def main() -> None:
    """Measure, print, and write the report if asked to."""
    parser = argparse.ArgumentParser(description="What the exact rewrites gain.")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only these (repeat the option)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to measure")
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick and options.out:
        parser.error("--quick measures too little to be written down: leave out --quick or --out.")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no CUDA device is there.")
    torch.set_num_threads(1)
    if options.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if options.child:
        side, name = options.child.split("/")
        before = peak_mib()
        SIDES[side](CASES[name].game, 2, "cpu")
        print(json.dumps([before, peak_mib()]))
        return
    rows: dict[str, list[str]] = {table: [] for table in TABLES}
    for name in options.case or CASES:
        case = CASES[name]
        game = case.game
        rounds, updates = (1, max(2, game.updates // 20)) if options.quick else (game.rounds, game.updates)
        updates = updates if options.device == "cpu" else 100 * updates
        rows["whole"] += compare(name, case, rounds, updates, options.device)
        if options.device == "cpu":
            rows["ideas"] += breakdown(name, game, rounds)
            rows["memory"] += [memory(name, case)] if case.memory else []
    print_or_write(rows, options.out)


def print_or_write(rows: dict[str, list[str]], out: Path | None) -> None:
    """The report, on the screen or in a file."""
    parts = [
        "\n".join([f"{title}\n", head, "|---" * columns + "|", *rows[table]])
        for table, (title, head, columns) in TABLES.items()
        if rows[table]
    ]
    command = " ".join(["python -m benchmarks.speed", *sys.argv[1:]])
    protocol = (__doc__ or "").split("::\n", 1)[1].split("\n\n", 2)[2].strip().replace("``", "`")
    report = "\n\n".join(["# What the exact rewrites gain", circumstances(command), protocol, *parts]) + "\n"
    if out is None:
        print("\n" + report)
        return
    write_text(out, report)
    print(f"Report: {out}")


if __name__ == "__main__":
    main()
