"""The stages of ``benchmarks.gpu``. Each is a function of the setting and of ``send``, for what it has found so far."""

from __future__ import annotations

import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import speed
from benchmarks.overhead import quiet
from benchmarks.parts import Row, Send, together
from lightning_gans import PRCGAN, SNGAN, WGANGP, GANModule, RobustWGAN
from lightning_gans.callbacks import EMA, GenerativeMetrics
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import ImageDataModule, Split
from lightning_gans.functional import double_backward, gradient_penalty, interpolate
from lightning_gans.metrics import ClassifierExtractor, content_hash, weights_hash
from lightning_gans.networks import ResNetDiscriminator, ResNetGenerator

LATENT = 128
GFLOP, TFLOPS = 1546, 400  # of an update at width 128, by docs/results/speed.md's rewrites; a card's rate in TF32


@dataclass(frozen=True)
class Setting:
    """What a stage works with.

    Attributes:
        device: ``cuda`` or ``cpu``.
        scale: 1 for the real thing; widths, batches, counts and seconds are so many times smaller, down to a least.
        out: folder of the results.
        scratch: folder of what need not be kept.
        card: name of the device.
        source: where the images are from.
        images: uint8 (N, 3, 32, 32), with ``labels`` (N,); ``test`` holds others, or None.
        end: ``time.monotonic()`` at which the stage has to be done.
    """

    device: str
    scale: float
    out: Path
    scratch: Path
    card: str
    source: str
    images: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor] | None = None
    end: float = float("inf")

    def times(self, number: float, least: int) -> int:
        """A number in this scale."""
        return max(least, round(number * self.scale))

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()


class Given(ImageDataModule):
    """The setting's images, with noise as wide as a grey level."""

    name, shape, num_classes = "cifar10", (3, 32, 32), 10

    setting: Setting  # not an argument, which would become part of checkpoints

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """All of them, for either split."""
        return self.setting.images, self.setting.labels


def given(setting: Setting, batch: int) -> Given:
    """The setting's images in batches."""
    data = Given(batch, dequantize=True)
    data.setting = setting
    return data


def tf32(on: bool) -> None:
    """Allow TF32 for matrix products and convolutions, or forbid it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def seconds_of(function: Callable[[], Any], device: str) -> float:
    """How long a call takes, the device's work included."""
    start = speed.clock(device)
    function()
    return speed.clock(device) - start


# ---------------------------------------------------------------------- environment and extractor
def environment(setting: Setting, send: Send) -> Row:
    """Card, versions, the way of the data to the device, and the rate of large matrix products."""
    row: Row = {"python": platform.python_version(), "torch": torch.__version__, "lightning": pl.__version__,
                "images": len(setting.images), "source": setting.source}  # fmt: skip
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


def scorer(setting: Setting) -> ClassifierExtractor:
    """The classifier that all scores are made with: trained once, then found in the folder of the results."""
    epochs = None if setting.scale == 1 else 1
    return ClassifierExtractor(setting.images, setting.labels, "resnet", cache_dir=setting.out, epochs=epochs,
                               device=setting.device)  # fmt: skip


@torch.no_grad()
def extractor(setting: Setting, send: Send) -> Row:
    """Train the classifier, or take the one that lies in the folder of the results."""
    tf32(True)
    start = time.monotonic()
    with quiet():
        classifier = scorer(setting)
    found = {"seconds_to_have": time.monotonic() - start, "file": str(classifier.path.relative_to(setting.out))}
    images, labels = setting.test or (setting.images, setting.labels)
    right = 0
    for some, their in zip(images.split(1000), labels.split(1000)):
        right += int((classifier(some.to(setting.device))[1].argmax(1).cpu() == their).sum())
    accuracy, on = right / len(images), "test" if setting.test else "training"
    return {**found, "weights": weights_hash(classifier), "data": content_hash(setting.images, setting.labels),
            "accuracy": accuracy, "accuracy_on": on, "told": f"accuracy {accuracy:.3f} on the {on} images"}  # fmt: skip


# ---------------------------------------------------------------------- games
def make(name: str, width: int, **options: Any) -> GANModule:
    """A technique of the tables with its networks, always from the same seed."""
    torch.manual_seed(0)
    generator, critic = ResNetGenerator(width=width), partial(ResNetDiscriminator, width=width)
    if name.startswith("prc"):
        generator = ResNetGenerator(width=width, skip="identity")
        judge = critic(dropout=(0.2, 0.5, 0.5), init="kaiming")
        if name == "prc_off":
            return PRCGAN(generator, judge, LATENT, ratio_clip=None, **options)
        return PRCGAN(generator, judge, LATENT, classifier=critic(norm="batch", init="kaiming"), **options)
    if name == "sn_gan":
        return SNGAN(generator, critic(pool="sum"), LATENT, **options)
    if name == "robust":
        return RobustWGAN(generator, critic(), LATENT, weight_network=critic(), w_start=2, **options)
    return WGANGP(generator, critic(), LATENT, g_batch_factor=2, lr_g=2e-4, lr_d=2e-4, **options)


class Until(pl.Callback):
    """Ends the training at a time."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if time.monotonic() >= self.end:
            trainer.should_stop = True


class Churn(pl.Callback):
    """Takes memory between the steps, fills it with NaN and gives it back: whoever reads freed memory will find it."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        sizes = {t.numel() for t in (*pl_module.parameters(), *pl_module.buffers())}
        for size in sorted(sizes | {2**k for k in range(0, 22, 3)}):
            torch.full((size,), float("nan"), device=pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.on_train_batch_start(trainer, pl_module)


def fit(
    setting: Setting,
    module: GANModule,
    updates: int,
    batch: int,
    callbacks: Sequence[pl.Callback] = (),
    ckpt_path: Path | None = None,
    **options: Any,
) -> pl.Trainer:
    """Train without logs and files."""
    trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator=setting.device, devices=1, logger=False,
                         enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
                         limit_val_batches=0, callbacks=list(callbacks), default_root_dir=setting.scratch,
                         **options)  # fmt: skip
    trainer.fit(module, datamodule=given(setting, batch), ckpt_path=ckpt_path and str(ckpt_path))
    return trainer


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
    """Graphs against eager steps, with and without churn, and a resumed run against one that was never stopped."""
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

    eager, trainer = train(row["updates"], False, Until(time.monotonic() + setting.left / 8))
    row["updates"] = updates = trainer.global_step  # as many as there was time for
    send({**row, "eager_twice": difference(eager, train(updates, False)[0])})
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
    module = make("wgan_gp", setting.times(32, 4)).to(setting.device)
    real, fake = (torch.rand(setting.times(16, 8), 3, 32, 32).to(setting.device) for _ in range(2))
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
    """A tick that profiles updates 7 to 11; ``found`` then has the kernels' milliseconds per update."""
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
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not (getattr(event, "is_user_annotation", False) or event.name.startswith("Optimizer."))
    )
    busy, until = 0.0, 0.0
    for start, end in spans:  # kernels of two streams may overlap
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    found["kernels_ms"] = busy / 1000 / 5


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
        found = together({name: partial(race, mine, sides)}, ends[name])[name]
        rows |= {side: found[side] for side in sides if side in found and side not in rows}
        for row in rows.values():
            row["ratio_to_skilled"] = row["ms"] / rows["skilled"]["ms"] if "ms" in rows.get("skilled", {}) else None
        if "error" in found:
            rows[f"{name}: what ended it"] = {"error": found["error"]}
        send({"rows": rows})
    told = ", ".join(f"{side} {row['ms']:.3g}" for side, row in rows.items() if "ms" in row)
    return {"rows": rows, "told": f"ms per update: {told}"}


# ---------------------------------------------------------------------- training
class ByTheClock(GenerativeMetrics):
    """Scores after equal shares of the time, without the time that scoring takes; then training ends."""

    def __init__(self, end: float, shares: int, send: Send, **options: Any) -> None:
        super().__init__(every_n_steps=2**40, **options)
        self.end, self.shares, self.send = end, shares, send
        self.trained, self.began = 0.0, time.monotonic()
        self.each: float | None = None  # seconds of training between two measurements

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first measurement; then the clock starts."""
        super().on_train_start(trainer, pl_module)
        self.began = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Measure when the time has come."""
        now = time.monotonic()
        if self.each is None:  # the first update has compiled, recorded and chosen; the rest is shared out
            measuring = 1.2 * self.measuring * self.shares
            self.each = max(0.0, (self.end - now - measuring) / self.shares)
        if now - self.began >= self.each:
            speed.clock(pl_module.device.type)  # which may be behind
            self.trained += time.monotonic() - self.began
            self._record(trainer, pl_module)
            self.began = time.monotonic()
            trainer.should_stop = len(self.history) > self.shares
        elif now >= self.end:
            trainer.should_stop = True

    def _record(self, trainer: pl.Trainer, pl_module: GANModule) -> dict[str, float]:
        start = time.monotonic()
        values = super()._record(trainer, pl_module)
        self.history[-1]["seconds"] = self.trained
        self.measuring = time.monotonic() - start
        self.send({"scores": [dict(entry) for entry in self.history]})
        return values


def train(setting: Setting, name: str, seconds: float, send: Send) -> Row:
    """One technique by graphs and bf16 for its share of the time; its averaged generator goes to the scratch folder."""
    tf32(True)
    torch.backends.cudnn.benchmark = True
    begun = time.monotonic()
    module = make(name, setting.times(128, 4), cuda_graphs=True)
    scores = ByTheClock(begun + seconds, 3, send, extractor=scorer(setting), metrics=("fid", "is"),
                        num_fake=setting.times(10_000, 100), batch_size=setting.times(1000, 100))  # fmt: skip
    with quiet():
        trainer = fit(setting, module, 2**40, setting.times(64, 8), [EMA(0.999), scores], precision="bf16-mixed")
    if trainer.global_step < 1 or module.ema is None:
        raise TimeoutError("no update fitted")
    state = {key: value.cpu() for key, value in module.ema.state_dict().items()}
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(halves, setting.scratch / f"{name}.pt")
    return {"updates": trainer.global_step, "images_seen": module.images_seen,
            "ms": 1000 * scores.trained / trainer.global_step, "protocol": scores.protocol}  # fmt: skip


TRAINED = ("sn_gan", "wgan_gp", "prc_off", "prc")


def training(setting: Setting, send: Send) -> Row:
    """75 seconds of each technique; two at once where one leaves the card idle for more than half of the time."""
    speeds = setting.out / "speed.json"
    rows = json.loads(speeds.read_text()).get("rows", {}) if speeds.exists() else {}
    at_once = 2 if (rows.get("graphs, bf16", {}).get("busy") or 1.0) < 0.5 else 1
    seconds = min(max(75 * setting.scale, 3.0), setting.left * at_once / len(TRAINED) - 3)
    jobs = {name: partial(train, setting, name, seconds) for name in TRAINED}
    rows = together(jobs, setting.end, at_once, lambda rows: send({"rows": rows, "at_once": at_once}))
    last = {name: row["scores"][-1] for name, row in rows.items() if row.get("scores")}
    told = ", ".join(f"{name} FID {score['metrics/fid/resnet']:.4g}" for name, score in last.items())
    return {"rows": rows, "at_once": at_once, "told": told or "nothing was scored"}


@torch.no_grad()
def results(setting: Setting, send: Send) -> Row:
    """The averaged generators in fp16 and their samples in one file, and what rounding to fp16 costs."""
    kept: dict[str, Any] = {}
    rows: dict[str, Row] = {}
    for name in TRAINED:
        if not (path := setting.scratch / f"{name}.pt").exists():
            continue
        module = make(name, setting.times(128, 4))
        state = torch.load(path, weights_only=True)
        module.generator.load_state_dict(state)
        module.to(setting.device)
        grid = module.sample(64, seed=0)
        grid = ((grid.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu()
        kept[name] = {"generator": state, "width": setting.times(128, 4), "samples": grid}
        temporary = setting.out / ".generators.tmp"
        torch.save(kept, temporary)
        temporary.replace(setting.out / "generators.pt")
        scores = GenerativeMetrics(2**40, scorer(setting), ("fid", "is"), num_fake=setting.times(10_000, 100))
        with quiet():
            trainer = pl.Trainer(accelerator=setting.device, devices=1, logger=False, callbacks=[scores],
                                 enable_checkpointing=False, enable_progress_bar=False, limit_test_batches=1,
                                 default_root_dir=setting.scratch)  # fmt: skip
            rows[name] = dict(trainer.test(module, datamodule=given(setting, 64), verbose=False)[0])
        send({"rows": rows})
    if not kept:
        raise ValueError("results needs generators of the training stage of the same run, got none")
    return {"rows": rows, "told": f"generators and samples of {', '.join(kept)} in generators.pt"}
