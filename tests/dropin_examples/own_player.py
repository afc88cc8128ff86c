"""A further player: beside D and G an encoder learns which noise a sample was made of."""

from lightning_gans import GAN
from lightning_gans.engine.player import Player
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader


class EncodedGAN(GAN):
    """E minimises |E(G(z)) - z|^2, one step in each cycle, from which G learns nothing."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        encoder: nn.Module,
        lr_e: float = 2e-4,
        clip_grad_e: float | None = None,
        **kwargs,
    ):
        super().__init__(generator, discriminator, latent_dim, **kwargs)
        self.encoder = encoder
        self.play(Player("e", ("encoder",), lr_e, clip=clip_grad_e))

    def encoder_terms(self, batch):
        return {"reconstruction": (self.encoder(self.make_fake(batch).detach()) - batch.z).square().mean()}

    def before_generator_step(self, batches):
        self.minimise("e", self.encoder_terms, [self.last_batch])


generator = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))
discriminator = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))
encoder = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))

model = EncodedGAN(generator, discriminator, latent_dim=2, encoder=encoder, lr_e=2e-3)
trainer = pl.Trainer(max_steps=200)
trainer.fit(model, DataLoader(torch.randn(4096, 2), batch_size=64, shuffle=True))
