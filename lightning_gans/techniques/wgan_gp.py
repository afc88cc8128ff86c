"""Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv:1704.00028)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.losses import LOSSES
from lightning_gans.gan import GANModule
from lightning_gans.regularizers import GradientPenalty, Regularizer


class WGANGP(GANModule):
    """L_D = E f(G(z)) - E f(x) + gp_weight E (||grad f(x^)||_2 - 1)^2 with x^ = a x + (1 - a) G(z), a ~ U[0, 1].

    Equation 3 and Algorithm 1, whose values are the defaults. The critic must not use BatchNorm, since the penalty is
    per sample. ``d/wasserstein`` is the critic's estimate of the distance, the penalty left out.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        gp_weight: the paper's lambda; its released code uses 0.1 for 2-D toys.
        d_steps: the paper's n_critic.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the critic's Adam.
        betas: beta1, beta2 of Adam; the released code uses (0.5, 0.9) for all but its ResNets.
        regularizers: further terms beside the penalty.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        gp_weight: float = 10.0,
        d_steps: int = 5,
        lr_g: float = 1e-4,
        lr_d: float = 1e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        regularizers: Sequence[Regularizer] = (),
        **kwargs: Any,
    ) -> None:
        kwargs |= {"d_steps": d_steps, "lr_g": lr_g, "lr_d": lr_d, "betas": betas}
        penalty = GradientPenalty(weight=gp_weight)
        super().__init__(generator, discriminator, latent_dim, regularizers=[penalty, *regularizers], **kwargs)
        self.loss = LOSSES["wasserstein"]

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) f(x) + E f(G(z)); the penalty is the first of ``regularizers``."""
        loss = self.loss.discriminator(
            self.score(batch.real, batch), self.score(fake, batch), real_weight=batch.weights
        )
        self.note(d_wasserstein=-loss)
        return {"adversarial": loss}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E f(G(z))."""
        return {"adversarial": self.loss.generator(self.score(fake, batch))}
