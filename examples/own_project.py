"""A GAN in a Lightning project that is there already, on data of Hugging Face's `datasets`.

    pip install datasets
    python examples/own_project.py

One minute on one CPU core. Everything down to "What changes" is a project as anybody may have it: a data set, a
LightningDataModule, two networks, a callback. Nothing of it knows lightning_gans, nor has to be changed for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_gans import WGANGP
from lightning_gans.callbacks import EMA, GANProgressBar, GenerativeMetrics
from datasets import ClassLabel, Dataset, Features, Image
import pytorch_lightning as pl
import torch
from PIL import Image as PILImage
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import save_image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--updates", type=int, default=900, help="of the generator")
parser.add_argument("--out", type=Path, default=Path("runs/own-project"))
arguments = parser.parse_args()


# ---------------------------------------------------------------------- the data set
def digits() -> Dataset:
    """1,797 handwritten digits as rows of a picture and a class; nothing is downloaded.

    With a network, in place of it: `datasets.load_dataset("ylecun/mnist", split="train")`, whose rows are the same but
    for their 28 pixels.
    """
    found = load_digits()
    pictures = [PILImage.fromarray((image * 15).astype("uint8")) for image in found.images]
    features = Features({"image": Image(), "label": ClassLabel(10)})
    return Dataset.from_dict({"image": pictures, "label": found.target.tolist()}, features)


class DigitsData(pl.LightningDataModule):
    """Batches are dictionaries, as of most projects with Hugging Face data."""

    def __init__(self, rows: Dataset, batch_size: int = 64) -> None:
        super().__init__()
        self.rows, self.batch_size = rows, batch_size

    def train_dataloader(self) -> DataLoader:
        """Pictures (N, 1, 8, 8) in [-1, 1], and their classes (N,)."""

        def tensors(rows: dict) -> dict:
            pixels = [pil_to_tensor(picture).float() / 127.5 - 1 for picture in rows["image"]]
            return {"pixel_values": pixels, "label": rows["label"]}

        return DataLoader(self.rows.with_transform(tensors), self.batch_size, shuffle=True, drop_last=True)


# ---------------------------------------------------------------------- the networks
class Generator(nn.Module):
    """Noise (N, 32) and classes (N,) to pictures (N, 1, 8, 8)."""

    num_classes = 10  # by which samples of all classes can be asked for

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Embedding(10, 16)
        self.layers = nn.Sequential(nn.Linear(48, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64))

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A picture each."""
        return self.layers(torch.cat([z, self.classes(labels)], 1)).tanh().unflatten(1, (1, 8, 8))


class Critic(nn.Module):
    """Pictures and classes to scores (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Embedding(10, 16)
        self.layers = nn.Sequential(
            nn.Linear(80, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A score each: no sigmoid."""
        return self.layers(torch.cat([x.flatten(1), self.classes(labels)], 1)).squeeze(1)


# ---------------------------------------------------------------------- the training
class Pictures(pl.Callback):
    """Saves a picture of samples when training ends: a callback of the project's own."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One class a row."""
        labels = torch.arange(10).repeat_interleave(8)
        samples = interpolate(pl_module.sample(80, labels, seed=0), scale_factor=6)
        save_image(samples, arguments.out / "samples.png", value_range=(-1, 1), normalize=True)


arguments.out.mkdir(parents=True, exist_ok=True)
pl.seed_everything(0)
data = DigitsData(digits())
checkpoints = ModelCheckpoint(arguments.out, "{step}", monitor="metrics/fid/lenet", save_last=True,
                              every_n_train_steps=max(1, arguments.updates // 3))  # fmt: skip
ours = [Pictures(), LearningRateMonitor("step"), checkpoints]

# ---------------------------------------------------------------------- What changes
# 1. The LightningModule is a technique around the two networks. It finds "pixel_values" and "label" in the batches by
#    their names (`columns={"real": ..., "labels": ...}` names others), and gives the labels to networks that take them.
model = WGANGP(Generator(), Critic(), latent_dim=32, lr_g=5e-4, lr_d=5e-4, betas=(0.5, 0.9))
# 2. Callbacks that a GAN wants, beside the project's own: averaged weights, FID, and a bar over all updates in place of
#    Lightning's over each epoch. InceptionV3 means nothing for digits of 8 pixels, so that a small classifier takes its
#    place, and gives the score its name: fid/lenet.
scores = GenerativeMetrics(max(1, arguments.updates // 3), "lenet", ["fid"], num_fake=1500)
theirs = [EMA(decay=0.98), scores, GANProgressBar()]
# 3. `max_steps` counts updates of the generator; a `Trainer` needs no other setting.
trainer = pl.Trainer(
    max_steps=arguments.updates, max_epochs=-1, accelerator="cpu", callbacks=[*theirs, *ours], log_every_n_steps=20,
    logger=CSVLogger(arguments.out),
)  # fmt: skip
trainer.fit(model, datamodule=data)

# ---------------------------------------------------------------------- and afterwards
# Lightning's own way back: the networks are the project's, so the checkpoint needs to be given them.
again = WGANGP.load_from_checkpoint(checkpoints.best_model_path, generator=Generator(), discriminator=Critic())
sevens = interpolate(again.sample(8, torch.full((8,), 7), seed=0), scale_factor=6)
save_image(sevens, arguments.out / "sevens.png", value_range=(-1, 1), normalize=True)

told = [f"{entry['metrics/fid/lenet']:.1f} ({entry['step']})" for entry in scores.history]
print(f"\nFID, by update: {', '.join(told)}")
print(f"Look at {arguments.out}/samples.png (one class a row), {arguments.out}/sevens.png, and the curves in\n"
      f"{trainer.logger.log_dir}/metrics.csv, whose step is the generator's update.")  # fmt: skip
