"""The last stages of ``benchmarks.gpu``: techniques against the clock, and what they leave."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from benchmarks import speed
from benchmarks.common import quiet
from benchmarks.gpu_games import Setting, fit, given, kept, make, scorer, tf32
from benchmarks.parts import Row, Send, together
from lightning_gans import GANModule
from lightning_gans.callbacks import EMA, GenerativeMetrics
from lightning_gans.compat.lightning import pl


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
    rows = kept(setting.out).get("speed", {}).get("rows", {})
    at_once = 2 if (rows.get("graphs, bf16", {}).get("busy") or 1.0) < 0.5 else 1
    seconds = min(max(75 * setting.scale, 3.0), setting.left * at_once / len(TRAINED) - 3)
    jobs = {name: partial(train, setting, name, seconds) for name in TRAINED}
    rows = together(jobs, setting.end, at_once, lambda rows: send({"rows": rows, "at_once": at_once}))
    last = {name: row["scores"][-1] for name, row in rows.items() if row.get("scores")}
    told = ", ".join(f"{name} FID {score['metrics/fid/resnet']:.4g}" for name, score in last.items())
    return {"rows": rows, "at_once": at_once, "told": told or "nothing was scored"}


def styles(setting: Setting, send: Send) -> Row:
    """75 seconds of StyleGAN2, of the widths of configs/cifar10/style_gan2.yaml without classes and augmentation."""
    seconds = min(max(75 * setting.scale, 3.0), setting.left - 3)
    jobs = {"style_gan2": partial(train, setting, "style_gan2", seconds)}
    row = together(jobs, setting.end, 1, lambda rows: send({"rows": rows}))["style_gan2"]
    told = f"{1000 / row['ms']:.3g} updates/s" if row.get("ms") else "no update"
    if row.get("scores"):
        told += f", FID {row['scores'][-1]['metrics/fid/resnet']:.4g}"
    return {"rows": {"style_gan2": row}, "told": told}


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
