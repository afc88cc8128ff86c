"""Class-conditional: networks whose ``forward`` has an argument ``labels`` are given the loader's."""

from lightning_gans import WGANGP
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Generator(nn.Module):
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.embed, self.layers = nn.Embedding(3, 4), nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, z, labels):
        return self.layers(torch.cat([z, self.embed(labels)], dim=1))


class Critic(nn.Module):
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.embed, self.layers = nn.Embedding(3, 4), nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x, labels):
        return self.layers(torch.cat([x, self.embed(labels)], dim=1)).squeeze(1)


labels = torch.randint(3, (4096,))
points = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[labels] + 0.1 * torch.randn(4096, 2)

model = WGANGP(Generator(), Critic(), latent_dim=4, gp_weight=0.1, lr_g=1e-3, lr_d=1e-3, betas=(0.5, 0.9))
trainer = pl.Trainer(max_steps=150)
trainer.fit(model, DataLoader(TensorDataset(points, labels), batch_size=64, shuffle=True))
samples = model.sample(300, labels=torch.full((300,), 2))  # class 2 only
