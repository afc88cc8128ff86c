"""What is done with the checkpoints in tests/fixtures, now as when they were made."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

from lightning_gans import WGANGP, GANModule  # isort: skip  (before what imports torchvision)
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gans.callbacks import EMA
from lightning_gans.datamodules import Digits, GANDataModule, Ring

CHECKPOINTS = Path(__file__).parent / "fixtures" / "checkpoints"
RUN = CHECKPOINTS.parent / "runs" / "x"


def unpack(folder: Path) -> None:
    """The checkpoints, as ``<name>.ckpt``."""
    for packed in CHECKPOINTS.glob("*.ckpt.xz"):
        (folder / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))


def numbers(module: GANModule) -> list[float]:
    """The first numbers of four samples."""
    return module.sample(4, seed=0).flatten(1)[:, :8].flatten().tolist()


def class_of(path: Path) -> type[GANModule]:
    """The class that a checkpoint names, of the package's public names."""
    import lightning_gans

    return getattr(lightning_gans, torch.load(path, weights_only=True)["class_path"].rpartition(".")[2])


def data_of(path: Path) -> GANDataModule:
    """The data that a checkpoint was trained on."""
    digits = torch.load(path, weights_only=True)["data"] != "Ring"
    return Digits(batch_size=16, items=64) if digits else Ring(batch_size=16)


def make_trainer(steps: int, *callbacks: Any) -> pl.Trainer:
    """A quiet trainer."""
    return pl.Trainer(accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, callbacks=list(callbacks),
                      logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False)  # fmt: skip


def drop_in(steps: int, *callbacks: Any) -> tuple[GANModule, pl.Trainer]:
    """A game with networks of one's own, which its checkpoint does not hold, and a trainer for it."""
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Flatten(0))
    return WGANGP(generator, critic, latent_dim=3, d_steps=2, clip_grad_d=1.0), make_trainer(steps, *callbacks)


def own(name: str) -> dict[str, Any]:
    """The networks that a checkpoint does not tell."""
    module = drop_in(1)[0]
    return {"generator": module.generator, "discriminator": module.discriminator} if name == "drop_in" else {}


def resumed(path: Path) -> GANModule:
    """The module after three more updates, by ``fit`` of the class that the checkpoint names."""
    module = class_of(path).load_from_checkpoint(path, **own(path.stem))
    trainer = make_trainer(6, EMA(0.5))
    trainer.fit(module, datamodule=data_of(path), ckpt_path=str(path))
    assert trainer.global_step == 6
    return module


def latest(module: GANModule) -> dict[str, float]:
    """What was logged last."""
    return {name: float(value) for name, value in module.values.items()}
