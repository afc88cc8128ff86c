"""The first stages of ``benchmarks.gpu``: functions of the setting and of ``send``, for what is found on the way."""

from __future__ import annotations

import platform
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import speed
from benchmarks.common import commit, quiet
from benchmarks.gpu_games import Churn, Setting, Until, fit, make, scorer, seconds_of, tf32
from benchmarks.parts import Row, Send, together
from lightning_gans.compat.lightning import pl
from lightning_gans.functional import double_backward, gradient_penalty, interpolate
from lightning_gans.metrics import content_hash, weights_hash

GFLOP, TFLOPS = 1546, 400  # of an update at width 128, by docs/results/speed.md's rewrites; a card's rate in TF32


# ---------------------------------------------------------------------- environment and extractor
def environment(setting: Setting, send: Send) -> Row:
    """Card, versions, the way of the data to the device, and the rate of large matrix products."""
    row: Row = {"commit": commit(), "date": str(date.today()), "python": platform.python_version(),
                "torch": torch.__version__, "lightning": pl.__version__, "images": len(setting.images),
                "source": setting.source}  # fmt: skip
    if setting.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        row |= {"memory_gib": card.total_memory / 2**30, "processors": card.multi_processor_count,
                "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # fmt: skip
    send(row)
    seconds_of(lambda: torch.zeros(1, device=setting.device), setting.device)  # the device wakes up
    row["data_to_device_s"] = seconds_of(lambda: setting.images.to(setting.device), setting.device)
    n = setting.times(8192, 256)
    for name, dtype in (("tf32", torch.float32), ("bf16", torch.bfloat16)):
        tf32(True)
        a = torch.randn(n, n, device=setting.device, dtype=dtype)
        seconds_of(lambda a=a: a @ a, setting.device)
        row[f"tflops_{name}"] = 2 * n**3 / 1e12 / min(seconds_of(lambda a=a: a @ a, setting.device) for _ in range(5))
    told = f"{row['tflops_tf32']:.3g} TFLOP/s in TF32, {row['tflops_bf16']:.3g} in bf16"
    return {**row, "told": told}


@torch.no_grad()
def extractor(setting: Setting, send: Send) -> Row:
    """Have the classifier: what comes with the package, or lies in the folder of the results, or else is trained."""
    tf32(True)
    start = time.monotonic()
    with quiet():
        classifier = scorer(setting)
    found = {"seconds_to_have": time.monotonic() - start}
    images, labels = setting.test or (setting.images, setting.labels)
    right = 0
    for some, their in zip(images.split(1000), labels.split(1000)):
        right += int((classifier(some.to(setting.device))[1].argmax(1).cpu() == their).sum())
    accuracy, on = right / len(images), "test" if setting.test else "training"
    return {**found, "weights": weights_hash(classifier), "data": content_hash(setting.images, setting.labels),
            "accuracy": accuracy, "accuracy_on": on, "told": f"accuracy {accuracy:.3f} on the {on} images"}  # fmt: skip


# ---------------------------------------------------------------------- exactness
def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two states beside the largest number in the first; NaN stays NaN."""
    names = [name for name, value in one.items() if value.is_floating_point()]
    gap = torch.stack([(one[name] - other[name]).abs().max() for name in names]).max()
    return float(gap / torch.stack([one[name].abs().max() for name in names]).max())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(value, other[name]) for name, value in one.items())


def exact_training(setting: Setting, name: str, send: Send) -> Row:
    """Graphs against the second of two eager runs, without and with churn; a resumed run against one never stopped."""
    tf32(False)
    width, batch = setting.times(32, 4), setting.times(16, 8)
    row: Row = {"updates": setting.times(300, 4)}
    ops: set[str] = set()

    def train(updates: int, graphs: bool, *callbacks: pl.Callback, ckpt_path: Path | None = None) -> Any:
        if setting.left < 0:
            raise TimeoutError("the next run did not fit")
        module = make(name, width, cuda_graphs=graphs)
        torch.manual_seed(1)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            trainer = fit(setting, module, updates, batch, callbacks, ckpt_path, deterministic="warn")
        ops.update(str(w.message).split(" ")[0] for w in seen if "deterministic" in str(w.message))
        return {key: value.clone() for key, value in module.state_dict().items()}, trainer

    first, trainer = train(row["updates"], False, Until(time.monotonic() + setting.left / 8))
    row["updates"] = updates = trainer.global_step  # as many as there was time for
    eager = train(updates, False)[0]  # what others are measured by: on a card, a process's first run may differ
    send({**row, "eager_twice": difference(eager, first)})
    graphs = train(updates, True)[0]
    send({"graphs": difference(eager, graphs), "graphs_bits": same(eager, graphs)})
    churned = train(updates, True, Churn())[0]
    send({"churn": difference(eager, churned), "churn_bits": same(graphs, churned)})
    path = setting.scratch / f"{name}.ckpt"
    train(updates // 2, True)[1].save_checkpoint(path)
    resumed = train(updates, True, ckpt_path=path)[0]
    path.unlink()
    return {"resume": difference(graphs, resumed), "resume_bits": same(graphs, resumed), "not_deterministic": [*ops]}


def penalty_gradient(setting: Setting, method: Any, autocast: bool) -> tuple[Tensor, Tensor]:
    """The penalty of a critic and its gradient, by one method, in bf16-mixed or not."""
    module = make("wgan_gp", setting.times(128, 4)).to(setting.device)
    real, fake = (torch.rand(setting.times(64, 8), 3, 32, 32).to(setting.device) for _ in range(2))
    with torch.autocast(setting.device, torch.bfloat16, enabled=autocast), double_backward(method):
        penalty = gradient_penalty(module.discriminator, interpolate(real, fake))
    found = torch.autograd.grad(penalty, list(module.discriminator.parameters()), allow_unused=True,
                                materialize_grads=True)  # fmt: skip
    return penalty.detach(), torch.cat([g.flatten() for g in found])


def exact_penalty(setting: Setting, method: Any, autocast: bool, send: Send) -> Row:
    """A penalty and its gradient against those of the plain double backward pass in float32."""
    tf32(False)
    penalty, gradient = penalty_gradient(setting, "plain", False)
    start = time.monotonic()
    other, its_gradient = penalty_gradient(setting, method, autocast)
    return {"dtype": str(other.dtype), "penalty": float((other - penalty).abs() / penalty),
            "gradient": float((its_gradient - gradient).abs().max() / gradient.abs().max()),
            "first_call_s": time.monotonic() - start}  # fmt: skip


def exactness(setting: Setting, send: Send) -> Row:
    """Can CUDA graphs, resuming, bf16-mixed and the compiled double backward pass be trusted? TF32 is off."""
    jobs = {name: partial(exact_training, setting, name) for name in ("wgan_gp", "sn_gan", "prc", "robust")}
    jobs["penalty in bf16-mixed"] = partial(exact_penalty, setting, "sparse", True)
    jobs["double_backward=compiled"] = partial(exact_penalty, setting, "compiled", False)
    rows = together(jobs, setting.end, 6 if setting.device == "cuda" else 1, lambda rows: send({"rows": rows}))
    told = ", ".join(f"{name} {row['graphs']:.0e}" for name, row in rows.items() if row.get("graphs") is not None)
    return {"rows": rows, "told": f"largest differences of graphs to eager: {told or 'none measured'}"}


# ---------------------------------------------------------------------- speed
SIDES = {"plain": "plain", "skilled": "skilled", "ours": "ours", "graphs": "ours, graphs",
         "graphs, bf16": "ours, graphs, bf16", "compiled": "ours, compiled"}  # fmt: skip


@contextmanager
def kernels(found: Row, device: str) -> Iterator[Callable[[int], None]]:
    """A tick that profiles updates 7 to 11; ``found`` then has the ms of their kernels, all and the slowest."""
    if device != "cuda":
        yield lambda update: None
        return
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

    def tick(update: int) -> None:
        if update == 6:
            profiler.start()
        elif update == 11:
            profiler.stop()

    yield tick
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in profiler.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not (getattr(event, "is_user_annotation", False) or event.name.startswith("Optimizer."))
    )
    busy, until, each = 0.0, 0.0, Counter[str]()
    for start, end, name in spans:  # kernels of two streams may overlap
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
        each[name[:120]] += (end - start) / 1000 / 5
    found["kernels_ms"], found["slowest"] = busy / 1000 / 5, dict(each.most_common(12))


def race(setting: Setting, sides: Sequence[str], send: Send) -> Row:
    """Milliseconds per update of some sides, which take turns for three rounds, one wait per update."""
    tf32(True)
    torch.backends.cudnn.benchmark = True
    cuda, start = setting.device == "cuda", time.monotonic()
    game = replace(speed.wide(setting.times(128, 4), 60, 3), batch=setting.times(64, 8), items=setting.times(5000, 64))
    rows: dict[str, Row] = {side: {} for side in sides}
    each: dict[str, list[float]] = {side: [] for side in sides}
    for side, row in rows.items():  # first calls, that pay for compiling and for choosing algorithms
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            with kernels(row, setting.device) as tick, quiet():
                marks = speed.SIDES[SIDES[side]](game, 12 if cuda else 3, setting.device, tick=tick).marks
        except Exception as error:  # the other sides go on without it
            row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        row["first_calls_s"] = time.monotonic() - start
        row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
        row["ms"] = 1000 * min(b - a for a, b in pairwise(marks))  # an estimate, for the number of updates
        start = time.monotonic()
        send(rows)
    sides = [side for side in sides if "ms" in rows[side]]
    whole = sum(rows[side]["ms"] for side in sides) / 1000
    updates = min(setting.times(60, 4), int(0.8 * setting.left / 3 / whole))
    if updates < 4:
        raise TimeoutError(f"3 rounds of 4 updates did not fit into {setting.left:.0f} s")
    for i in range(3):
        for side in [*sides][i % len(sides) :] + [*sides][: i % len(sides)]:
            with quiet():
                marks = speed.SIDES[SIDES[side]](game, updates, setting.device).marks
            warm = len(marks) // 5
            each[side].append(1000 * (marks[-1] - marks[warm]) / (len(marks) - 1 - warm))
            for name, row in rows.items():
                ratios = [a / b for a, b in zip(each[name], each["plain"])]
                if ratios:
                    row |= {"ms": statistics.median(each[name]), "ratio": statistics.median(ratios)}
                    row |= {"ratio_min": min(ratios), "ratio_max": max(ratios), "rounds": len(ratios)}
                    row |= {"updates": updates, "busy": row["kernels_ms"] / row["ms"] if "kernels_ms" in row else None}
                    row["share_of_floor"] = GFLOP / TFLOPS / row["ms"] if setting.scale == 1 else None
            send(rows)
            if setting.left < 0:
                raise TimeoutError(f"the end came in round {i + 1}")
    return rows


def speeds(setting: Setting, send: Send) -> Row:
    """The sides beside the plain loop; what has to be compiled in a process, and with a limit, of its own."""
    races = {"main": [*SIDES][:-1], "compiled": ["plain", "compiled"]}
    rows: dict[str, Row] = {}
    ends = {"main": time.monotonic() + 0.6 * setting.left, "compiled": setting.end}
    for name, sides in races.items():
        mine = replace(setting, end=ends[name] - min(1.0, 0.05 * setting.left))
        told = partial(_merged, send, rows, name)
        found = together({name: partial(race, mine, sides)}, ends[name], told=told)[name]
        rows |= {side: found[side] for side in sides if side in found and side not in rows}
        for row in rows.values():
            if "ms" in row and "ms" in rows.get("skilled", {}):
                row["ratio_to_skilled"] = row["ms"] / rows["skilled"]["ms"]
        if "error" in found:
            rows[f"{name}: what ended it"] = {"error": found["error"]}
        send({"rows": rows})
    ms = ", ".join(f"{side} {row['ms']:.3g}" for side, row in rows.items() if "ms" in row)
    return {"rows": rows, "told": f"ms per update: {ms}"}


def _merged(send: Send, rows: dict[str, Row], name: str, found: dict[str, Row]) -> None:
    """Send what a race has so far, behind the rows of the one before."""
    send({"rows": {**{side: row for side, row in found[name].items() if side in SIDES}, **rows}})
