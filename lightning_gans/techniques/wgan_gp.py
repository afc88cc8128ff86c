"""Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv:1704.00028)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.losses import LossName
from lightning_gans.functional.penalties import gradient_penalty, interpolate
from lightning_gans.techniques.gan import GAN


class WGANGP(GAN):
    r"""The Wasserstein game with a critic whose slope is drawn to 1 between real and generated samples.

    .. math:: L_D = E f(G(z)) - E f(x) + \lambda \, E (\|\nabla f(\hat x)\|_2 - 1)^2, \qquad
              \hat x = \epsilon x + (1 - \epsilon) G(z), \quad \epsilon \sim U[0, 1]

    Equation 3 and Algorithm 1. The critic must not use BatchNorm, since the penalty is per sample. ``d/wasserstein`` is
    the critic's estimate of the distance, the penalty left out.

    When: A game that works without choosing much, with any critic that has no BatchNorm; it costs a second backward
    pass.

    Defaults: Algorithm 1's.

    Departures: none that is known.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        gp_weight: the paper's lambda, >= 0, 0 for no penalty; its released code uses 0.1 for 2-D toys.
        loss: "wasserstein"; a derived technique may take others.
        d_steps: the paper's n_critic.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the critic's Adam.
        betas: beta1, beta2 of Adam; the released code uses (0.5, 0.9) for all but its ResNets.

    Logged:
        d/gradient_penalty: lambda times the penalty.

    Raises:
        ValueError: for a weight out of range and for another loss.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = WGANGP(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, gp_weight=0.1)
    >>> model.sample(4).shape, model.d_steps
    (torch.Size([4, 2]), 5)
    """

    losses: Collection[str] = ("wasserstein",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        gp_weight: float = 10.0,
        loss: LossName = "wasserstein",
        d_steps: int = 5,
        lr_g: float = 1e-4,
        lr_d: float = 1e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        **kwargs: Any,
    ) -> None:
        checks.not_negative(gp_weight=gp_weight)
        self.declare(True, gradient_penalty=gp_weight)
        kwargs |= {"d_steps": d_steps, "lr_g": lr_g, "lr_d": lr_d, "betas": betas}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        self.gp_weight = gp_weight

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) f(x) + E f(G(z)), and the penalty at interpolates."""
        terms = super().discriminator_terms(batch, fake)
        if not self.gp_weight:
            return terms
        x_hat = interpolate(batch.real, fake, batch.generator)
        return {**terms, "gradient_penalty": self.gp_weight * gradient_penalty(self.critic(batch), x_hat)}
