"""Wasserstein GAN with weight clipping (Arjovsky, Chintala, Bottou 2017, arXiv:1701.07875)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.losses import LOSSES
from lightning_gans.gan import GANModule


class WGAN(GANModule):
    """min_G max_{f in F} E_{x~p_d} f(x) - E_{z~p_z} f(G(z)), F = critics whose parameters lie in [-c, c].

    Algorithm 1: after each of ``d_steps`` critic updates every parameter of the critic, biases and normalisation
    included, is clamped to [-c, c]. ``d/wasserstein`` is the critic's estimate, up to the unknown Lipschitz constant.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        c: clipping threshold, > 0.
        d_steps: the paper's n_critic.
        lr_g: learning rate of the generator's RMSprop.
        lr_d: learning rate of the critic's RMSprop.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        c: float = 0.01,
        d_steps: int = 5,
        lr_g: float = 5e-5,
        lr_d: float = 5e-5,
        **kwargs: Any,
    ) -> None:
        checks.positive(c=c)
        super().__init__(generator, discriminator, latent_dim, d_steps=d_steps, lr_g=lr_g, lr_d=lr_d, **kwargs)
        self.c = c
        self.loss = LOSSES["wasserstein"]

    def default_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """RMSprop, as in Algorithm 1 (momentum destabilised the training there)."""
        return torch.optim.RMSprop(parameters, lr=lr)

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) f(x) + E f(G(z))."""
        loss = self.loss.discriminator(
            self.score(batch.real, batch), self.score(fake, batch), real_weight=batch.weights
        )
        self.note(d_wasserstein=-loss)
        return {"adversarial": loss}

    @torch.no_grad()
    def after_discriminator_step(self) -> None:
        """w <- clip(w, -c, c) for every parameter of the critic."""
        for parameter in self.discriminator.parameters():
            parameter.clamp_(-self.c, self.c)

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E f(G(z))."""
        return {"adversarial": self.loss.generator(self.score(fake, batch))}
