"""A generator that begins near its data: by moments, or as the decoder of a small autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.variational import standard_normal_kl
from lightning_gans.stages.fits import fit_items


def match_moments(
    generator: nn.Module,
    items: Tensor,
    latent_dim: int,
    *,
    labels: Tensor | None = None,
    steps: int = 500,
    batch_size: int = 256,
    lr: float = 1e-3,
    folder: str | Path | None = None,
) -> None:
    """Train a generator, in place, until the mean and covariance of its samples are those of ``items``.

    Minimises (||m - m'||^2 + ||C - C'||_F^2 / tr C) / tr C, m and C the mean and covariance of all items, m' and C' of
    a batch of samples: crude, and enough to begin with samples in the tail.

    Args:
        generator: noise (N, latent_dim) to samples.
        items: (M, ...), those of the tail, say; M >= 2.
        latent_dim: length of z.
        labels: (M,) their classes, for a conditional generator.
        steps: updates.
        batch_size: samples for each.
        lr: of Adam.
        folder: for losses and a checkpoint, from which a call that was stopped goes on; None leaves nothing on disk.

    Raises:
        ValueError: for numbers below 1, for fewer than two items, for items that are all the same.

    >>> generator, items = nn.Linear(2, 2), torch.randn(200, 2) + 3
    >>> match_moments(generator, items, latent_dim=2, steps=100, batch_size=64, lr=0.1)
    >>> bool((generator.bias - items.mean(0)).abs().max() < 0.5)
    True
    """
    checks.at_least_one(steps=steps, latent_dim=latent_dim)
    checks.at_least(2, batch_size=batch_size)
    checks.positive(lr=lr)
    fit_items(_Moments(generator, items, latent_dim, lr), items, labels, batch_size, steps, folder)


def fit_vae(
    generator: nn.Module,
    items: Tensor,
    latent_dim: int,
    *,
    labels: Tensor | None = None,
    sigma: float = 0.5,
    width: int = 64,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    folder: str | Path | None = None,
) -> None:
    """Train a generator, in place, as the decoder of a small variational autoencoder (arXiv:1312.6114) of ``items``.

    Minimises E ||x - G(z)||^2 / (2 s^2) + KL(q(z | x) || N(0, I)), z ~ q(z | x) a Gaussian of independent coordinates
    whose moments an MLP of one hidden layer tells; s is ``sigma`` times the standard deviation of the items. The MLP is
    thrown away.

    Args:
        generator: as for `match_moments`, like the arguments that are not listed here.
        items: (M, ...).
        latent_dim: length of z.
        labels: (M,) classes.
        sigma: s in units of the items' standard deviation, > 0.
        width: of the MLP.
        steps: updates.
        batch_size: items for each.
        lr: of Adam.

    >>> generator, items = nn.Linear(2, 2), torch.randn(200, 2) + 3
    >>> fit_vae(generator, items, latent_dim=2, sigma=2.0, steps=100, batch_size=64, lr=0.1)
    >>> bool((generator.bias - items.mean(0)).abs().max() < 0.5)
    True
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, latent_dim=latent_dim, width=width)
    checks.positive(sigma=sigma, lr=lr)
    items = items.to(next((p.dtype for p in generator.parameters()), items.dtype))  # since codes go from them into it
    vae = _VAE(generator, items, latent_dim, sigma, width, lr)
    fit_items(vae, items, labels, batch_size, steps, folder, sigma=sigma)


class _Moments(GenerativeModule):
    """A generator whose samples are to have the items' mean and covariance."""

    mean: Tensor
    covariance: Tensor

    def __init__(self, generator: nn.Module, items: Tensor, latent_dim: int, lr: float) -> None:
        super().__init__()
        self.generator, self.latent_dim = generator, latent_dim
        _spread(items)
        mean, covariance = _moments(items)
        self.register_buffer("mean", mean)
        self.register_buffer("covariance", covariance)
        self.play(Player("g", ("generator",), lr))

    def terms(self, player: str, batch: Batch) -> Terms:
        m, c = _moments(conditional_call(self.generator, batch.z, batch.labels))
        total = self.covariance.trace()
        return {"mean": (m - self.mean).square().sum() / total,
                "covariance": (c - self.covariance).square().sum() / total**2}  # fmt: skip


class _VAE(GenerativeModule):
    """A generator as the decoder of a variational autoencoder whose encoder is a small MLP."""

    counted = "vae"
    mean: Tensor

    def __init__(
        self, generator: nn.Module, items: Tensor, latent_dim: int, sigma: float, width: int, lr: float
    ) -> None:
        super().__init__()
        self.generator, self.latent_dim, self.sigma, self.spread = generator, latent_dim, sigma, _spread(items)
        flat = items.flatten(1)
        layers = nn.Linear(flat.shape[1], width), nn.Tanh(), nn.Linear(width, 2 * latent_dim)
        self.encoder = nn.Sequential(*layers).to(items)
        self.register_buffer("mean", flat.mean(0))
        self.play(Player("vae", ("generator", "encoder"), lr))

    def terms(self, player: str, batch: Batch) -> Terms:
        x = batch.real.flatten(1)
        mu, log_std = self.encoder((x - self.mean) / self.spread).chunk(2, 1)
        fake = conditional_call(self.generator, mu + log_std.exp() * batch.z, batch.labels).flatten(1)
        error = (x - fake).square().sum(1) / (2 * (self.sigma * self.spread) ** 2)
        return {"reconstruction": error.mean(), "kl": standard_normal_kl(mu, 2 * log_std).mean()}


def _moments(items: Tensor) -> tuple[Tensor, Tensor]:
    flat = items.flatten(1)
    return flat.mean(0), torch.cov(flat.T).view(flat.shape[1], -1)


def _spread(items: Tensor) -> float:
    """Root mean square distance of a coordinate from its mean."""
    spread = float((items - items.mean(0)).square().mean().sqrt()) if len(items) > 1 else 0.0
    if not spread > 0:
        raise ValueError(f"items must be at least two different ones, got {len(items)} of spread {spread:g}.")
    return spread
