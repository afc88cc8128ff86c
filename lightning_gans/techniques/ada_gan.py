"""AdaGAN: a mixture of GANs, each trained on what the mixture misses (Tolstikhin et al. 2017, arXiv:1701.02386)."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_gans.functional.boosting import Beta, step_size
from lightning_gans.functional.losses import LossName
from lightning_gans.techniques.boosted_gan import component, grown
from lightning_gans.techniques.gan import GAN
from lightning_gans.wrappers.mixture import MixtureGenerator


class AdaGAN(GAN):
    r"""One round of a mixture: Q is trained as a GAN of its own on what the mixture P_{t-1} misses.

    .. math:: P_t = (1 - \beta) P_{t-1} + \beta Q, \qquad
              w_i = \frac{1}{N \beta} \left(\lambda - (1 - \beta) h_i\right)_+, \quad h_i = \frac{1 - C(x_i)}{C(x_i)}

    What makes it AdaGAN are the data, drawn anew for each round by the weights w_i of a classifier C between the data
    and P_{t-1}: ``stages.boost`` with ``stages.reweight``. Losses are not weighted. ``sample`` draws from P_t; in
    training all samples are Q's, and P_{t-1} stays as it is.

    Departures: items are drawn with replacement; Adam in place of SGD; the default loss is the non-saturating one; h
    is kept within exp(+-15).

    When: Modes that one generator loses: each round goes after what the mixture misses.

    Defaults: "uniform", by which all components weigh the same, is one of the released code's; rates are those of
    :class:`DCGAN`.

    Args:
        generator: Q; or a `MixtureGenerator`, as a finished round's, whose last component trains on.
        discriminator: raw scores (N,).
        latent_dim: length of z, the same for all components.
        base: P_{t-1}, as for :class:`BoostedGAN`; None in the first round, b = 1, which is a plain :class:`GAN`.
        beta: b, a constant in (0, 1), or "uniform", which gives all components the same weight.
        loss: as of :class:`GAN`.

    Raises:
        ValueError: for ``beta`` out of range, for a mixture with a ``base``.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> first = AdaGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2)
    >>> model = AdaGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, base=first)  # the second round
    >>> model.sample(4).shape, round(float(model.generator.p), 3)  # P_1 and Q weigh the same
    (torch.Size([4, 2]), 0.5)
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        base: nn.Module | str | None = None,
        beta: Beta = "uniform",
        loss: LossName = "non_saturating",
        **kwargs: Any,
    ) -> None:
        b = step_size(beta, 1)
        if base is not None:
            base = component(base)
            b = step_size(beta, len(base.components) if isinstance(base, MixtureGenerator) else 1)
            generator = grown(generator, base, 1 - b, share=0.0, learn_p=False)
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)

    @property
    def log_ratio(self) -> nn.Module | None:
        """None: D tells Q from the re-weighted data, not P_t from the data."""
        return None
