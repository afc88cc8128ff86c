"""Adversarial Lipschitz regularization (Terjek 2020, arXiv:1907.05681)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.lipschitz import adversarial_lipschitz_penalty, check_lipschitz
from lightning_gans.functional.losses import LossName
from lightning_gans.techniques.gan import GAN


class WGANALP(GAN):
    r"""The Wasserstein game with an explicit Lipschitz penalty on adversarial pairs in place of WGAN-GP's gradient.

    .. math:: L_D = E f(G(z)) - E f(x) + \lambda \, E \max\left(0, \frac{|f(x) - f(x + r)|}{\|r\|} - 1\right)^2

    at real and generated x, r in the direction in which f changes most (``functional.adversarial_lipschitz_penalty``).

    Defaults of the released code, in which the critic is low for real samples; here it is high, as everywhere.
    Departures: its learning rates fall to 0 linearly, which the recipes say and the defaults here do not.

    When: As :class:`WGANGP`, for an explicit bound on differences in place of gradients; the search costs a forward
    pass at x + xi d and one backward to d, the pair another forward pass at x + r.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        alp_weight: lambda, >= 0, 0 for no penalty.
        epsilon: range of the distance between the two points of a pair.
        xi: length of the probing step of the search.
        clip: range of the data, or None where there is none (points of a toy).
        loss: always "wasserstein"; older checkpoints name "minimax" here, which is taken for it with a warning.
        d_steps: critic updates per generator update.
        g_batch_factor: fakes of a generator update, in batches.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the critic's Adam.
        betas: beta1, beta2 of Adam.

    Logged:
        d/adversarial_lipschitz: lambda times the penalty.

    Raises:
        ValueError: for settings out of range and for another loss.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = WGANALP(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, clip=None)  # points
    >>> model.sample(4).shape, model.d_steps, model.g_batch_factor
    (torch.Size([4, 2]), 5, 2)
    """

    losses = ("wasserstein",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        alp_weight: float = 10.0,
        epsilon: tuple[float, float] = (0.1, 10.0),
        xi: float = 10.0,
        clip: tuple[float, float] | None = (-1.0, 1.0),
        loss: LossName = "wasserstein",
        d_steps: int = 5,
        g_batch_factor: int = 2,
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        **kwargs: Any,
    ) -> None:
        checks.not_negative(alp_weight=alp_weight)
        check_lipschitz(1.0, epsilon, xi, clip=clip)
        if loss == "minimax":  # what checkpoints say that were written before a loss was refused
            message = 'WGANALP takes loss="minimax" for "wasserstein", which it always played.'
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            loss = "wasserstein"
        self.declare(False, adversarial_lipschitz=alp_weight)
        kwargs |= {"d_steps": d_steps, "g_batch_factor": g_batch_factor, "lr_g": lr_g, "lr_d": lr_d, "betas": betas}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        self.alp_weight, self.epsilon, self.xi, self.clip = alp_weight, epsilon, xi, clip

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) f(x) + E f(G(z)), and the penalty at both."""
        terms = super().discriminator_terms(batch, fake)
        if not self.alp_weight:
            return terms
        twice = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        critic, x = self.critic(replace(batch, labels=twice)), torch.cat([batch.real, fake])
        penalty = adversarial_lipschitz_penalty(
            critic, x, epsilon=self.epsilon, xi=self.xi, clip=self.clip, generator=batch.generator
        )
        return {**terms, "adversarial_lipschitz": self.alp_weight * penalty}
