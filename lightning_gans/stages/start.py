"""A generator that begins near its data: by moments, or as the decoder of a small autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.conditional import conditional_call


def match_moments(
    generator: nn.Module,
    items: Tensor,
    latent_dim: int,
    *,
    labels: Tensor | None = None,
    steps: int = 500,
    batch_size: int = 256,
    lr: float = 1e-3,
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

    Raises:
        ValueError: for numbers below 1, for fewer than two items, for items that are all the same.
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, latent_dim=latent_dim)
    _spread(items)
    mean, covariance = _moments(items)
    total = covariance.trace()
    optimizer = torch.optim.Adam(generator.parameters(), lr=lr)
    for _ in range(steps):
        chosen = None if labels is None else labels[torch.randint(len(labels), (batch_size,))]
        m, c = _moments(conditional_call(generator, _noise_like(items, batch_size, latent_dim), chosen))
        loss = ((m - mean).square().sum() + (c - covariance).square().sum() / total) / total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


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
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, latent_dim=latent_dim, width=width)
    checks.positive(sigma=sigma)
    flat, spread = items.flatten(1), _spread(items)
    mean = flat.mean(0)
    device_and_type: dict[str, Any] = {"device": items.device, "dtype": items.dtype}
    layers = nn.Linear(flat.shape[1], width), nn.Tanh(), nn.Linear(width, 2 * latent_dim)
    encoder = nn.Sequential(*layers).to(**device_and_type)
    optimizer = torch.optim.Adam([*generator.parameters(), *encoder.parameters()], lr=lr)
    for _ in range(steps):
        chosen = torch.randint(len(items), (batch_size,), device=items.device)
        x = flat[chosen]
        mu, log_std = encoder((x - mean) / spread).chunk(2, 1)
        z = mu + log_std.exp() * _noise_like(items, batch_size, latent_dim)
        fake = conditional_call(generator, z, None if labels is None else labels[chosen]).flatten(1)
        kl = (mu.square() + (2 * log_std).exp() - 1) / 2 - log_std
        loss = ((x - fake).square().sum(1) / (2 * (sigma * spread) ** 2) + kl.sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _noise_like(items: Tensor, n: int, latent_dim: int) -> Tensor:
    return torch.randn(n, latent_dim, device=items.device, dtype=items.dtype)


def _moments(items: Tensor) -> tuple[Tensor, Tensor]:
    flat = items.flatten(1)
    return flat.mean(0), torch.cov(flat.T).view(flat.shape[1], -1)


def _spread(items: Tensor) -> float:
    """Root mean square distance of a coordinate from its mean."""
    spread = float((items - items.mean(0)).square().mean().sqrt()) if len(items) > 1 else 0.0
    if not spread > 0:
        raise ValueError(f"items must be at least two different ones, got {len(items)} of spread {spread:g}.")
    return spread
