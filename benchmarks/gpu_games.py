"""What the stages of ``benchmarks.gpu`` train, on what, and how."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import speed
from benchmarks.parts import Row
from lightning_gans import PRCGAN, SNGAN, WGANGP, GANModule, RobustWGAN, StyleGAN2
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import ImageDataModule, Split
from lightning_gans.metrics import ClassifierExtractor
from lightning_gans.networks import ResNetDiscriminator, ResNetGenerator, StyleDiscriminator, StyleGenerator

LATENT = 128
RESULTS = "stages.json"


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


def kept(folder: Path) -> dict[str, Row]:
    """What the stages found so far, of all runs into this folder."""
    return json.loads(path.read_text()) if (path := folder / RESULTS).exists() else {}


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


def scorer(setting: Setting) -> ClassifierExtractor:
    """The classifier that all scores are made with: trained once, then found in the folder of the results."""
    epochs = None if setting.scale == 1 else 1
    return ClassifierExtractor(setting.images, setting.labels, "resnet", cache_dir=setting.out, epochs=epochs,
                               device=setting.device)  # fmt: skip


def make(name: str, width: int, **options: Any) -> GANModule:
    """A technique of the tables with its networks, always from the same seed."""
    torch.manual_seed(0)
    if name == "style_gan2":
        nets = StyleGenerator(latent_dim=LATENT, widths=2 * width), StyleDiscriminator(widths=2 * width, group=4)
        return StyleGAN2(*nets, LATENT, path_length_weight=0.0, style_mixing=0.0, **options)
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
    """Ends the training with the update during which a time comes; between two updates D would be ahead of G."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end, self.step = end, 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        whole, self.step = trainer.global_step > self.step, trainer.global_step
        if whole and time.monotonic() >= self.end:
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
