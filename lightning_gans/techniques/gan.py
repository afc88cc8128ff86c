"""The original generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661)."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.losses import LOSSES
from lightning_gans.gan import GANModule


class GAN(GANModule):
    """min_G max_D E_{x~p_d} log D(x) + E_{z~p_z} log(1 - D(G(z))), with D = sigmoid(score).

    The paper's value function (eq. 1) is ``loss="minimax"``; its section 3 also proposes that G maximise log D(G(z))
    instead, because log(1 - D) saturates while D is ahead: ``loss="non_saturating"``. The optimal discriminator is
    p_d / (p_d + p_g), and D's loss is then 2 log 2 at p_g = p_d (``d/adversarial`` tends to 1.386).

    Any loss of ``functional.losses.LOSSES`` can be played by the same rules: hinge, least_squares, wasserstein,
    relativistic_average.

    Departures: Adam instead of the paper's SGD with momentum.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        loss: name of the adversarial loss.
        d_steps: the paper's k.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        loss: Literal[
            "minimax", "non_saturating", "hinge", "least_squares", "wasserstein", "relativistic_average"
        ] = "minimax",
        d_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        checks.one_of("loss", loss, LOSSES)
        super().__init__(generator, discriminator, latent_dim, d_steps=d_steps, **kwargs)
        self.loss, self.relativistic = LOSSES[loss], loss == "relativistic_average"
        self.logistic = loss in ("minimax", "non_saturating")

    @property
    def log_ratio(self) -> nn.Module | None:
        """The discriminator, for the losses whose optimal score is log p_d / p_g: minimax and non_saturating."""
        return self.discriminator if self.logistic else None

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) log D(x) - E log(1 - D(G(z))), for the minimax loss."""
        on_real, on_fake = self.score(batch.real, batch), self.score(fake, batch)
        self.note(d_real=on_real.mean(), d_fake=on_fake.mean())
        return {"adversarial": self.loss.discriminator(on_real, on_fake, real_weight=batch.weights)}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """E log(1 - D(G(z))) for minimax, -E log D(G(z)) for non_saturating."""
        on_real = self.score(batch.real, batch) if self.relativistic else None
        return {"adversarial": self.loss.generator(self.score(fake, batch), on_real, real_weight=batch.weights)}
