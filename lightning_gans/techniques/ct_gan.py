"""WGAN-GP with a consistency term (Wei et al. 2018, arXiv:1803.01541)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.frozen import frozen
from lightning_gans.functional.consistency import consistency_term, dropout_distance, warn_without_dropout
from lightning_gans.techniques.wgan_gp import WGANGP


class CTGAN(WGANGP):
    r"""WGAN-GP whose critic is also kept smooth around the data: two dropout masks must give similar answers.

    .. math:: L_D = E f(G(z)) - E f(x) + \lambda_1 GP \qquad + \lambda_2 \,
              E \max\left(0, (f'(x) - f''(x))^2 + \tfrac{0.1}{F} \|h'(x) - h''(x)\|^2 - M' / \lambda_2\right)

    where h (F,) are the features before the last linear layer (``functional.consistency_term``). The critic needs
    dropout, active in every step (in the released code 0.2, 0.5, 0.5 after the last three residual blocks).

    Defaults of the released code. Departures: there the generator's batch is twice the critic's (``g_batch_factor=2``)
    and learning rates fall to 0 linearly, which the recipes say and the defaults here do not; its first pass is that
    of the adversarial term, where both are here the term's own; the paper has distances where code and this have
    squares.

    When: Where a penalised critic of few data overfits: the term looks at real samples, which the interpolates of
    WGAN-GP seldom meet.

    Args:
        generator: see :class:`WGANGP`, as for the remaining arguments.
        discriminator: the critic f with dropout, scores (N,).
        latent_dim: length of z.
        ct_weight: lambda_2, >= 0, 0 for no term.
        margin: M' >= 0; 0 in the code.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the critic's Adam.

    Logged:
        d/consistency: lambda_2 times the consistency term.

    Raises:
        ValueError: for a weight or margin out of range; when training starts, for a critic without a linear layer.

    >>> from lightning_gans.networks import ResNetDiscriminator, ResNetGenerator
    >>> critic = ResNetDiscriminator(width=4, dropout=(0.2, 0.5, 0.5))
    >>> model = CTGAN(ResNetGenerator(latent_dim=8, width=4), critic, latent_dim=8)
    >>> model.sample(4).shape, sorted(model.own_terms)
    (torch.Size([4, 3, 32, 32]), ['adversarial', 'consistency', 'gradient_penalty'])
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
        **kwargs: Any,
    ) -> None:
        checks.not_negative(ct_weight=ct_weight, margin=margin)
        if not ct_weight:
            checks.only("margin", margin, 0.0, "with ct_weight=0")
        self.declare(True, consistency=ct_weight)
        super().__init__(generator, discriminator, latent_dim, lr_g=lr_g, lr_d=lr_d, **kwargs)
        self.ct_weight, self.margin = ct_weight, margin

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """Those of WGAN-GP, and the consistency at real samples."""
        terms = super().discriminator_terms(batch, fake)
        if not self.ct_weight:
            return terms
        term = consistency_term(self.discriminator, batch.real, batch.labels, self.margin / self.ct_weight)
        return {**terms, "consistency": self.ct_weight * term}

    @torch.no_grad()
    def check_first_batch(self, batch: Batch) -> None:
        """Warn of a critic without dropout."""
        super().check_first_batch(batch)
        if self.ct_weight:
            with frozen(self.discriminator):
                warn_without_dropout(dropout_distance(self.discriminator, batch.real, batch.labels))
