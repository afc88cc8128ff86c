"""Deep convolutional GAN (Radford, Metz, Chintala 2015, arXiv:1511.06434)."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_gans.functional.losses import LossName
from lightning_gans.techniques.gan import GAN


class DCGAN(GAN):
    r"""The original game with the non-saturating generator, one step each, and the optimizer of the paper.

    .. math:: \max_D \; E \log D(x) + E \log(1 - D(G(z))), \qquad \max_G \; E \log D(G(z))

    What the paper adds lies in the networks (``networks.DCGANGenerator``, ``networks.DCGANDiscriminator``: strided
    convolutions, BatchNorm except at the discriminator's input and the generator's output, N(0, 0.02) weights) and in
    Adam with learning rate 2e-4 and beta1 = 0.5.

    Departures: noise is standard normal, not uniform.

    When: Pictures soon, with convolutional networks and BatchNorm and without a penalty to pay for.

    Defaults: Rate, beta1 and a z of length 100 are the paper's; beta2 is Adam's own.

    Args:
        generator: see :class:`GAN`, as for the remaining arguments.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        loss: name of the adversarial loss.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the discriminator's Adam.
        betas: beta1, beta2 of Adam.

    >>> from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator
    >>> model = DCGAN(DCGANGenerator((1, 32, 32), width=4), DCGANDiscriminator((1, 32, 32), width=4))
    >>> model.latent_dim, model.sample(4).shape
    (100, torch.Size([4, 1, 32, 32]))
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int = 100,
        *,
        loss: LossName = "non_saturating",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        **kwargs: Any,
    ) -> None:
        kwargs |= {"lr_g": lr_g, "lr_d": lr_d, "betas": betas}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
