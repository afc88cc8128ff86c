"""Stable rank normalisation for GANs (Sanyal et al. 2020, arXiv:1906.04659)."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_gans import checks
from lightning_gans.techniques.sn_gan import SNGAN
from lightning_gans.wrappers import SpectralNorm, is_normalised


class SRNGAN(SNGAN):
    r"""SN-GAN whose weights have, besides a spectral norm of 1, a stable rank of at most c times the full one.

    .. math:: \mathrm{srank}(W) = \frac{\|W\|_F^2}{\|W\|_2^2} \le c \min(m, n), \qquad W \in R^{m \times n}

    Everything else is :class:`SNGAN`, its departures too; the normalisation is ``wrappers.SpectralNorm`` with
    ``stable_rank=c``.

    When: As :class:`SNGAN`; a lower stable rank is to leave D fewer directions to memorise by, as the paper argues.

    Defaults: ``c`` is our choice; the rest is of :class:`SNGAN`. No official code was found.

    Departures: those of :class:`SNGAN`.

    Args:
        generator: see :class:`SNGAN`, as for the remaining arguments.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        c: share of the full rank, in (0, 1].

    Raises:
        ValueError: for a discriminator that is normalised already, to another share or by other code.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = SRNGAN(ToyGenerator(width=8), ToyDiscriminator(width=8, depth=2), latent_dim=2, c=0.5)
    >>> [layer.stable_rank for layer in model.discriminator.modules() if isinstance(layer, SpectralNorm)]
    [0.5, 0.5, 0.5]
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, latent_dim: int, *, c: float = 0.7, **kwargs: Any
    ) -> None:
        checks.networks(discriminator=discriminator)
        checks.up_to_one(c=c)
        norms = [layer.stable_rank for layer in discriminator.modules() if isinstance(layer, SpectralNorm)]
        if is_normalised(discriminator) and set(norms) != {c}:
            got = str(norms[0]) if norms else "a spectral norm of other code"
            raise ValueError(f"discriminator must have no normalisation, or one with stable_rank={c}, got {got}.")
        self.stable_rank = c  # a plain number, which may be set before Module.__init__
        super().__init__(generator, discriminator, latent_dim, **kwargs)
