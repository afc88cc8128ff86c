"""A technique of your own in a few lines: least squares GAN, in a plain Lightning project."""

from lightning_gans import GANModule
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader


class LSGAN(GANModule):
    """D minimises (D(x) - 1)^2 + D(G(z))^2, and G minimises (D(G(z)) - 1)^2."""

    def discriminator_terms(self, batch, fake):
        real_score, fake_score = self.score(batch.real, batch), self.score(fake, batch)
        return {"real": (real_score - 1).square().mean(), "fake": fake_score.square().mean()}

    def generator_terms(self, batch, fake):
        return {"adversarial": (self.score(fake, batch) - 1).square().mean()}


angle = 2 * torch.pi * torch.rand(4096)
circle = torch.stack([angle.cos(), angle.sin()], dim=1)

generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
discriminator = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))

model = LSGAN(generator, discriminator, latent_dim=8, lr_g=2e-3, lr_d=2e-3)
trainer = pl.Trainer(max_steps=600)
trainer.fit(model, DataLoader(circle, batch_size=64, shuffle=True))
samples = model.sample(500)
