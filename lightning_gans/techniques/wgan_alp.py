"""Adversarial Lipschitz regularization (Terjek 2020, arXiv:1907.05681)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_gans.regularizers import AdversarialLipschitzPenalty, Regularizer
from lightning_gans.techniques.gan import GAN


class WGANALP(GAN):
    """The Wasserstein game with an explicit Lipschitz penalty on adversarial pairs in place of WGAN-GP's gradient.

    The penalty is :class:`AdversarialLipschitzPenalty`. The defaults are those of the released code, in which the
    critic is low for real samples; here it is high, as everywhere.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        alp_weight: lambda.
        epsilon: range of the distance between the two points of a pair.
        xi: length of the probing step of the search.
        clip: range of the data, or None where there is none (points of a toy).
        d_steps: critic updates per generator update.
        g_batch_factor: fakes of a generator update, in batches.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the critic's Adam.
        betas: beta1, beta2 of Adam.
        regularizers: further terms.
    """

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
        d_steps: int = 5,
        g_batch_factor: int = 2,
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        regularizers: Sequence[Regularizer] = (),
        **kwargs: Any,
    ) -> None:
        penalty = AdversarialLipschitzPenalty(alp_weight, epsilon=epsilon, xi=xi, clip=clip)
        kwargs |= {"d_steps": d_steps, "g_batch_factor": g_batch_factor, "lr_g": lr_g, "lr_d": lr_d, "betas": betas}
        kwargs |= {"loss": "wasserstein", "regularizers": [penalty, *regularizers]}
        super().__init__(generator, discriminator, latent_dim, **kwargs)
