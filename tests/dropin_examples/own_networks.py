"""WGAN-GP with your own networks and your own data: any DataLoader of x, or of (x, y)."""

from lightning_gans import WGANGP
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

images, classes = torch.rand(512, 1, 8, 8) * 2 - 1, torch.randint(10, (512,))  # yours
loader = DataLoader(TensorDataset(images, classes), batch_size=32, shuffle=True)

generator = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1), nn.Flatten(0))

model = WGANGP(generator, critic, latent_dim=16)
trainer = pl.Trainer(max_steps=20)
trainer.fit(model, loader)
samples = model.sample(64)  # (64, 1, 8, 8)
