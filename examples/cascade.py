"""A GAN on the codes of a VAE, in place of its prior, and a discriminator that then corrects both.

    python examples/cascade.py

One minute on one CPU core. Codes of data seldom have the law of a VAE's prior: so a GAN learns to draw them. What is
still wrong a discriminator sees, whose logit is a ratio of densities, and chains of proposals draw by it. It learns
briefly: later it goes by what no proposal has, and all chains end in the same few.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_gans import R3GAN, VAE
from lightning_gans.datamodules import Digits
from lightning_gans.networks import DCGANDiscriminator, ToyDiscriminator, ToyGenerator, VAEDecoder, VAEEncoder
from lightning_gans.samplers import MetropolisHastings, boosted_ratio
from lightning_gans.stages import Cascade
from lightning_gans.tools.score import score_samples
from lightning_gans.visualization.images import contact_sheet, grid_image, to_uint8
import pytorch_lightning as pl
import torch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--vae", type=int, default=1500, help="updates of the VAE")
parser.add_argument("--updates", type=int, default=2500, help="of the GAN's generator")
parser.add_argument("--ratio", type=int, default=300, help="updates of the discriminator that corrects both")
parser.add_argument("--out", type=Path, default=Path("runs/cascade"))
(arguments := parser.parse_args()).out.mkdir(parents=True, exist_ok=True)
pl.seed_everything(0, verbose=False)
data, pictures = Digits(batch_size=100), {}


def judge(what: str, images: torch.Tensor) -> None:
    """Print the FID of images in [-1, 1], by a small classifier of digits, and keep some of them."""
    fid = score_samples(to_uint8(images, (-1, 1)), data, "lenet", ["fid"])["scores"]["fid/lenet"]
    print(f"{what:<24} FID/lenet {fid:.1f}")
    pictures[what] = grid_image(images[:64], 8)


# 1. The VAE, whose prior is the standard normal law.
vae = VAE(VAEEncoder((1, 8, 8), 8, 64, 2), VAEDecoder((1, 8, 8), 8, 64, 2), latent_dim=8, lr_vae=2e-3, warm_up=150)
trainer = pl.Trainer(max_steps=arguments.vae, accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.fit(vae, datamodule=data)
judge("codes of its prior", vae.sample(1500, seed=1))

# 2. A GAN whose data are the codes (8,): any model of such samples would do, a diffusion say.
real = data.reference("train")[0].float() / 127.5 - 1
cascade = Cascade(vae)
gan = R3GAN(ToyGenerator((8,), 8, 128), ToyDiscriminator((8,), 128), 8, gamma=0.1, lr_g=5e-4, lr_d=5e-4)
cascade.fit(gan, real, steps=arguments.updates)
judge("codes of the GAN", cascade.sample(1500, seed=1))

# 3. One discriminator of images against the cascade's, and samples by chains of 40 proposals.
ratio = boosted_ratio(cascade, real, [DCGANDiscriminator((1, 8, 8), 16, norm="none")], steps=arguments.ratio)
judge("corrected by a ratio", MetropolisHastings(cascade, ratio, steps=40).sample(1500, seed=1))

contact_sheet(pictures).save(arguments.out / "samples.png")
print(f"\nLook at {arguments.out}/samples.png.")
