"""WGAN-GP with a consistency term (Wei et al. 2018, arXiv:1803.01541)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_gans.regularizers import ConsistencyTerm, Regularizer
from lightning_gans.techniques.wgan_gp import WGANGP


class CTGAN(WGANGP):
    """WGAN-GP plus ``ct_weight`` times :class:`ConsistencyTerm`, which keeps the critic smooth around the data.

    The critic needs dropout, active in every step (in the released code 0.2, 0.5, 0.5 after the last three residual
    blocks). The defaults are those of that code.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f with dropout, scores (N,).
        latent_dim: length of z.
        ct_weight: lambda_2.
        margin: M'; 0 in the code.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the critic's Adam.
        regularizers: further terms.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        ct_weight: float = 2.0,
        margin: float = 0.0,
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        regularizers: Sequence[Regularizer] = (),
        **kwargs: Any,
    ) -> None:
        consistency = ConsistencyTerm(ct_weight, margin)
        kwargs |= {"lr_g": lr_g, "lr_d": lr_d, "regularizers": [consistency, *regularizers]}
        super().__init__(generator, discriminator, latent_dim, **kwargs)
