"""Wasserstein GAN with weight clipping (Arjovsky, Chintala, Bottou 2017, arXiv:1701.07875)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gans import checks
from lightning_gans.techniques.gan import GAN


class WGAN(GAN):
    r"""G minimises the Wasserstein distance to the data, which a critic f of bounded slope estimates.

    .. math:: \min_G \max_{f \in F} \; E_{x \sim p_d} f(x) - E_{z \sim p_z} f(G(z)), \qquad
              F = \{f_w : w \in [-c, c]^l\}

    Algorithm 1: after each of ``d_steps`` critic updates every parameter of the critic, biases and normalisation
    included, is clamped to [-c, c]. ``d/wasserstein`` is the critic's estimate, up to the unknown Lipschitz constant.
    Overrides :meth:`after_discriminator_step` and :meth:`default_optimizer`.

    When: To see what clipping does, by an update that costs nothing more; :class:`WGANGP` and :class:`SNGAN` need no c
    that fits the networks.

    Defaults: ``c``, ``d_steps``, RMSprop and its rate are those of Algorithm 1.

    Departures: none that is known.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        c: clipping threshold, > 0.
        loss: always "wasserstein".
        d_steps: the paper's n_critic.
        lr_g: learning rate of the generator's RMSprop.
        lr_d: learning rate of the critic's RMSprop.

    Raises:
        ValueError: for c out of range and for another loss.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = WGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, c=0.01)
    >>> model.after_discriminator_step()  # as behind each of the critic's updates
    >>> model.d_steps, all(bool((p.abs() <= 0.01).all()) for p in model.discriminator.parameters())
    (5, True)
    """

    losses = ("wasserstein",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        c: float = 0.01,
        loss: Literal["wasserstein"] = "wasserstein",
        d_steps: int = 5,
        lr_g: float = 5e-5,
        lr_d: float = 5e-5,
        **kwargs: Any,
    ) -> None:
        checks.positive(c=c)
        kwargs |= {"d_steps": d_steps, "lr_g": lr_g, "lr_d": lr_d}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        self.c = c

    @torch.no_grad()
    def after_discriminator_step(self) -> None:
        """w <- clip(w, -c, c) for every parameter of the critic."""
        parameters: list[Tensor] = [*self.discriminator.parameters()]
        torch._foreach_clamp_min_(parameters, -self.c)
        torch._foreach_clamp_max_(parameters, self.c)

    def default_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """RMSprop, as in Algorithm 1 (momentum destabilised the training there)."""
        from lightning_gans.optim import RMSprop  # not by an import of the library (see `optim`)

        return RMSprop(parameters, lr=lr)
