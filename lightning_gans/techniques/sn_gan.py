"""Spectral normalisation for GANs (Miyato et al. 2018, arXiv:1802.05957)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from torch import nn

from lightning_gans import checks
from lightning_gans.functional.losses import LossName
from lightning_gans.techniques.gan import GAN
from lightning_gans.wrappers import is_normalised, spectral_norm
from lightning_gans.wrappers.spectral_norm import plain_layers


class SNGAN(GAN):
    r"""The hinge game with every weight of D divided by its spectral norm.

    .. math:: L_D = E \max(0, 1 - D(x)) + E \max(0, 1 + D(G(z))), \qquad L_G = -E D(G(z)), \qquad
              \bar W = W / \sigma(W), \quad \sigma(W) = \max_{\|h\| \le 1} \|W h\|

    The discriminator is wrapped here, in place. One that has a spectral norm already, by ``wrappers.spectral_norm``,
    torch's or a layer of its own, stays as it is, with a warning if some of its layers have none.

    Defaults of the released CIFAR-10 code: the generator steps first and draws twice the batch. Departures: its
    learning rates fall to 0 linearly, which the recipes say and the defaults here do not; sigma starts from a power
    iteration of 15 steps where there one random vector is used; D's iterations do not move on in the generator's step.

    When: Pictures, at a bound on the slope that costs no second backward pass.

    Args:
        generator: see :class:`GAN`, as for the remaining arguments.
        discriminator: raw scores (N,); without normalisation layers in the paper.
        latent_dim: length of z.
        power_iterations: per forward pass of D.
        loss: name of the adversarial loss.
        d_steps: discriminator updates per generator update.
        g_batch_factor: fakes of a generator update, in batches.
        order: which player begins.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the discriminator's Adam.
        betas: beta1, beta2 of Adam.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = SNGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2)
    >>> is_normalised(model.discriminator), model.order, model.d_steps
    (True, 'g_first', 5)
    """

    stable_rank: float | None = None

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        power_iterations: int = 1,
        loss: LossName = "hinge",
        d_steps: int = 5,
        g_batch_factor: int = 2,
        order: Literal["d_first", "g_first"] = "g_first",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        **kwargs: Any,
    ) -> None:
        checks.networks(discriminator=discriminator)
        if not is_normalised(discriminator):
            spectral_norm(discriminator, power_iterations, self.stable_rank)
        elif plain := plain_layers(discriminator):
            done = f"The discriminator stays as it is, since it is normalised already, but not in {', '.join(plain)}."
            warnings.warn(done, stacklevel=2)
        kwargs |= {"d_steps": d_steps, "g_batch_factor": g_batch_factor, "order": order}
        kwargs |= {"lr_g": lr_g, "lr_d": lr_d, "betas": betas}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
