"""How the library's costs grow, in CPU time of one thread: one Markdown table for each of

* *updates*: of a long toy fit with log, bar and checkpoints, and its memory;
* *probes*: the same of WGAN-GP with callbacks that look at each update, or draw;
* *batch*: from 16 to 16,384;
* *data*: items in memory, a thousand to ten million;
* *terms*: further values that a technique notes, logged every 50 updates and in each;
* *ranks*: bytes and calls of collectives (gloo, on this machine);
* *scores*: FID, and all scores, over samples: the small classifier on scikit-learn's digits;
* *checkpoints*: a save over parameters.

Run from the repository's root::

    python -m benchmarks.growth                          # all of them, some twenty minutes
    python -m benchmarks.growth --only updates ranks

Toys of 3 x 32 units and batches of 256 unless a table says otherwise. What is repeated is repeated in turns, and the
smallest time is told, since a busy machine only adds.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.common import Ticks, circumstances, peak_mib, quiet, resident_mib
from benchmarks.orphans import end_with_parent
from benchmarks.parts import together
from lightning_gans import DCGAN, GAN, WGANGP, GANModule, callbacks
from lightning_gans.compat.lightning import callbacks as pl_callbacks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Digits, MemoryLoader
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.runs.checkpoints import AtomicCheckpointIO
from lightning_gans.runs.metrics_csv import MetricsCSV

BATCH = 256
# What is measured, and updates or rounds; and a fraction of both, by which a test sees that it runs.
SIZES: dict[str, tuple[list[int], int]] = {
    "updates": ([100_000], 10),
    "probes": ([50_000], 10),
    "batch": ([16, 64, 256, 1024, 4096, 16_384], 500),
    "data": ([10**3, 10**4, 10**5, 10**6, 10**7], 500),
    "terms": ([0, 10, 30, 100], 1000),
    "ranks": ([1, 2], 100),
    "scores": ([500, 2000, 5000, 20_000], 1),
    "checkpoints": ([10**4, 10**5, 10**6, 10**7], 5),
}
TINY: dict[str, tuple[list[int], int]] = {
    "updates": ([10], 5), "probes": ([2], 2), "batch": ([2, 4], 3), "data": ([256, 512], 3), "terms": ([0, 2], 3),
    "ranks": ([1, 2], 5), "scores": ([100], 1), "checkpoints": ([10**3], 1),
}  # fmt: skip


def toy(technique: type[GANModule] = GAN, width: int = 32, **options: Any) -> GANModule:
    """The same networks each time."""
    torch.manual_seed(0)
    return technique(ToyGenerator(width=width), ToyDiscriminator(width=width), 2, **options)


def points(items: int = 100_000, batch: int = BATCH) -> MemoryLoader:
    """So many in memory."""
    return MemoryLoader(torch.rand(items, 2), None, batch)


def fit(module: GANModule, data: Any, updates: int, *own: Any, tick: Callable[[int], Any] = id, **options: Any) -> Any:
    """Train with log and bar, and hand back the trainer; ``tick`` is called after each update."""
    given = {"enable_checkpointing": False, "log_every_n_steps": 50, "devices": 1} | options
    with tempfile.TemporaryDirectory() as folder, quiet():
        watching = [callbacks.GANProgressBar(), callbacks.Rates(), *own, Ticks(tick)]
        trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator="cpu", logger=MetricsCSV(folder),
                             callbacks=watching, enable_model_summary=False, limit_val_batches=0,
                             plugins=[AtomicCheckpointIO()], **given)  # fmt: skip
        trainer.fit(module, data)
    return trainer


def seconds_each(make: Callable[[], tuple[GANModule, Any]], updates: int, **options: Any) -> float:
    """CPU seconds of an update after the first fifth of them."""
    marks: dict[int, float] = {}
    fit(*make(), updates, tick=lambda update: marks.update({update: time.process_time()}), **options)
    warm = max(1, updates // 5)
    return (marks[updates] - marks[warm]) / (updates - warm)


def least(jobs: dict[Any, Callable[[], float]]) -> dict[Any, float]:
    """The smallest number of each over three rounds in which they take turns."""
    seen = [{name: job() for name, job in jobs.items()} for _ in range(3)]
    return {name: min(row[name] for row in seen) for name in jobs}


def table(head: str, rows: Iterable[Iterable[Any]]) -> str:
    """Markdown."""
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


# ---------------------------------------------------------------------- the parts
def updates(sizes: list[int], stretches: int, module: GANModule | None = None, *own: Any) -> str:
    """A long fit, stretch by stretch, with a hundred checkpoints."""
    every, seen = sizes[0] // stretches, [(0.0, 0.0)]

    def tick(update: int) -> None:
        if update == 1 or update % every == 0:
            seen.append((time.process_time(), resident_mib()))

    saves = pl_callbacks.ModelCheckpoint(every_n_train_steps=max(1, sizes[0] // 100))
    fit(module or toy(), points(batch=64), sizes[0], *own, saves, tick=tick, enable_checkpointing=True)
    ms = [1e3 * (after - before) / every for (before, _), (after, _) in itertools.pairwise(seen[1:])]
    rows = [(f"{(i + 1) * every:,}", f"{t:.3f}", f"{t / ms[0]:.2f}", f"{seen[i + 2][1]:.1f}") for i, t in enumerate(ms)]
    return table("up to update | ms each | to first | resident, MiB", rows)


def probes(sizes: list[int], stretches: int) -> str:
    """The same with what looks, keeps or draws."""
    own = [callbacks.EMA(), callbacks.NonFiniteGuard("rollback"), callbacks.GradientNorms(), callbacks.LossVariance(),
           callbacks.StationarityGap(), callbacks.SampleGrid(max(1, sizes[0] // 20))]  # fmt: skip
    return updates(sizes, stretches, toy(WGANGP, d_steps=1), *own)


def images(n: int) -> tuple[GANModule, Any]:
    """A small DCGAN of 8 x 8 pixels."""
    nets = DCGANGenerator((1, 8, 8), 16, 16), DCGANDiscriminator((1, 8, 8), 16)
    return DCGAN(*nets, 16), MemoryLoader(torch.rand(2 * n, 1, 8, 8), None, n)


def batch(sizes: list[int], steps: int) -> str:
    """Points by perceptrons, and images by convolutions."""
    makes = {"points": lambda n: (toy(), points(2 * n, n)), "images": images}
    found = least({(kind, n): partial(seconds_each, partial(make, n), max(5, min(steps, 400_000 // n)))
                   for n in sizes for kind, make in makes.items() if kind == "points" or n <= 1024})  # fmt: skip
    rows = [[f"{n:,}", *(
        f"{1e3 * (s := found[kind, n]):.3g} | {1e6 * s / n:.3g} | {s / n * sizes[0] / found[kind, sizes[0]]:.3f}"
        if (kind, n) in found else " | | " for kind in makes)] for n in sizes]  # fmt: skip
    return table(" | ".join(["batch", *(f"{kind}, ms each | us a sample | to first" for kind in makes)]), rows)


def begin(loader: MemoryLoader) -> float:
    """CPU seconds until an epoch's first batch is there."""
    start = time.process_time()
    next(iter(loader))
    return time.process_time() - start


def data(sizes: list[int], steps: int) -> str:
    """Items in memory; an epoch begins with a permutation of them."""
    loaders = {n: points(n) for n in sizes}
    begun = least({n: partial(begin, loader) for n, loader in loaders.items()})
    each = least({n: partial(seconds_each, lambda n=n: (toy(), loaders[n]), steps) for n in sizes})
    rows = [(f"{n:,}", f"{n // BATCH:,}", f"{1e3 * each[n]:.3f}", f"{each[n] / each[sizes[-1]]:.2f}", f"{1e3 * s:.3g}",
             f"{1e9 * s / n:.3g}", f"{1e3 * s / (n // BATCH):.4f}") for n, s in begun.items()]  # fmt: skip
    return table("items | updates an epoch | ms an update | to last | until an epoch's first batch, ms | ns an item | "
                 "ms an update of the epoch", rows)  # fmt: skip


class Noting(GAN):
    """Notes further numbers in each step of D."""

    extra: dict[str, Tensor]

    def discriminator_terms(self, *args: Any) -> Any:
        self.note(**self.extra)
        return super().discriminator_terms(*args)


def noting(n: int) -> tuple[GANModule, Any]:
    """So many."""
    module = toy(Noting)
    module.extra = {f"d_further{i}": torch.tensor(float(i)) for i in range(n)}
    return module, points()


def terms(sizes: list[int], steps: int) -> str:
    """Further values beside the losses."""
    found = least({(n, every): partial(seconds_each, partial(noting, n), steps, log_every_n_steps=every)
                   for n in sizes for every in (50, 1)})  # fmt: skip
    rows = [[n, *(f"{1e3 * found[n, e]:.3f} | {found[n, e] / found[sizes[0], e]:.2f}" for e in (50, 1))] for n in sizes]
    return table("further values | logged every 50 updates, ms each | to first | logged in each, ms | to first", rows)


COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gather_object",
    "broadcast",
    "broadcast_object_list",
    "barrier",
    "reduce",
)


def counting(name: str, counted: collections.Counter[str]) -> Callable[..., Any]:
    """A collective that counts its calls, and the bytes of what this process hands to it (not those of objects)."""
    inner = getattr(dist, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        counted[name] += 1
        given = [value for value in (*args, *kwargs.values()) if torch.is_tensor(value)]
        counted["bytes"] += sum(tensor.numel() * tensor.element_size() for tensor in given)
        return inner(*args, **kwargs)

    return call


def of_rank(index: int, world: int, folder: str, steps: int) -> None:
    """What one rank does: trains each game, and writes down what its updates took."""
    end_with_parent()
    os.environ |= {"WORLD_SIZE": str(world), "NODE_RANK": "0", "LOCAL_RANK": str(index), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    meet = f"file://{folder}/{world}"
    dist.init_process_group("gloo", init_method=meet, rank=index, world_size=world, timeout=timedelta(seconds=300))
    counted, found = collections.Counter[str](), {}
    for name in COLLECTIVES:
        setattr(dist, name, counting(name, counted))
    for title, technique, width in (("GAN", GAN, 32), ("WGAN-GP", WGANGP, 32), ("WGAN-GP", WGANGP, 128)):
        seen: list[tuple[float, Any]] = []
        module = toy(technique, width)
        fit(module, points(), steps, tick=lambda _, seen=seen: seen.append((time.process_time(), counted.copy())),
            devices=world, strategy="gan_ddp")  # fmt: skip
        (start, before), (end, after) = seen[steps // 5 - 1], seen[-1]
        moved = [sum(4 * p.numel() for net in module.networks(player) for p in net.parameters()) for player in "dg"]
        every = steps - steps // 5
        each = {kind: number / every for kind, number in (after - before).items()}
        found[f"{title}, 3 x {width}"] = (
            (end - start) / every,
            each,
            getattr(module, "d_steps", 1) * moved[0] + moved[1],
        )
    if index == 0:
        torch.save(found, f"{folder}/found{world}")
    dist.barrier()
    dist.destroy_process_group()


def ranks(sizes: list[int], steps: int) -> str:
    """Processes on one machine."""
    found, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for world in sizes:
            torch.multiprocessing.start_processes(of_rank, (world, folder, steps), world, start_method="fork")
            found[world] = torch.load(f"{folder}/found{world}")
    for title in found[sizes[0]]:
        for world in sizes:
            seconds, each, moved = found[world][title]
            sent = each.pop("bytes", 0)
            calls = ", ".join(f"{number:.2f} {kind}" for kind, number in each.items()) or "none"
            rows.append((title, world, f"{1e3 * seconds:.3f}", f"{seconds / found[sizes[0]][title][0]:.2f}", calls,
                         f"{sent:,.0f}", f"{sent / moved:.3f}"))  # fmt: skip
    return table("game | ranks | CPU ms of an update, rank 0 | to one | collectives of an update | bytes of them | "
                 "to those of its gradients", rows)  # fmt: skip


class Timed(callbacks.GenerativeMetrics):
    """Keeps the CPU seconds of each measurement."""

    def measure(self, *args: Any) -> dict[str, float]:
        start = time.process_time()
        found = super().measure(*args)
        self.took = [*getattr(self, "took", []), time.process_time() - start]
        return found


def scored(n: int, metrics: tuple[str, ...], steps: int, cache: str, send: Any = None) -> dict[str, Any]:
    """Measurements beside a DCGAN, the first one, with the reference's statistics, left out."""
    score, before = Timed(1, "lenet", metrics, n, cache_dir=cache), peak_mib()
    fit(images(64)[0], Digits(batch_size=64), steps, score)
    return {"s": min(score.took[1:]), "mib": peak_mib() - before}


def scores(sizes: list[int], steps: int) -> str:
    """Each in a process of its own, for its peak memory."""
    kinds = {"FID": ("fid",), "FID, IS, KID, P/R/D/C": ("fid", "is", "kid", "prdc")}
    with tempfile.TemporaryDirectory() as cache:
        scored(200, ("fid",), 1, cache)  # trains the classifier
        jobs = {f"{k}{n}": partial(scored, n, metrics, steps, cache) for n in sizes for k, metrics in kinds.items()}
        found = together(jobs, time.monotonic() + 400)
    rows = [[f"{n:,}", *(
        f"{(one := found[f'{k}{n}'])['s']:.2f} | {one['s'] / n * sizes[0] / found[f'{k}{sizes[0]}']['s']:.2f} "
        f"| {one['mib']:.0f}" for k in kinds)] for n in sizes]  # fmt: skip
    return table(" | ".join(["samples", *(f"{kind}, s | a sample, to first | peak, MiB more" for kind in kinds)]), rows)


def checkpoints(sizes: list[int], rounds: int) -> str:
    """Weights and what Adam keeps."""
    rows = []
    for n in sizes:
        module, took = toy(width=round((n / 4) ** 0.5)), []
        many, trainer = sum(p.numel() for p in module.parameters()), fit(module, points(), 1)
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(rounds):
                start = time.process_time(), time.perf_counter()
                trainer.save_checkpoint(path := Path(folder) / "a.ckpt")
                took.append((time.process_time() - start[0], time.perf_counter() - start[1]))
            cpu, wall, size = *map(min, zip(*took)), path.stat().st_size
        rows.append((f"{many:,}", f"{size:,}", f"{size / many:.1f}", f"{1e3 * cpu:.1f}", f"{1e3 * wall:.1f}",
                     f"{1e9 * cpu / many:.1f}"))  # fmt: skip
    return table("parameters | bytes | a parameter | CPU ms | ms by the clock | CPU ns a parameter", rows)


PARTS = {f.__name__: f for f in (updates, probes, batch, data, terms, ranks, scores, checkpoints)}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="to see that it runs, not to measure")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger(pl.__name__).setLevel(logging.ERROR)
    for name in options.only:
        print(f"### {name}\n\n{PARTS[name](*(TINY if options.tiny else SIZES)[name])}\n", flush=True)
    print(circumstances(f"python -m benchmarks.growth --only {' '.join(options.only)}"))


if __name__ == "__main__":
    main()
