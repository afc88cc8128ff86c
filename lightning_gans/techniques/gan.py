"""The original generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.losses import LOSSES, RELATIVISTIC, LossName
from lightning_gans.functional.text import log_density
from lightning_gans.gan import GANModule, real_in_generator_step
from lightning_gans.runs.load import load_generator


class GAN(GANModule):
    r"""Two players, of which D tells real samples from generated ones, and G makes those that it cannot tell.

    .. math:: \min_G \max_D \; E_{x \sim p_d} \log D(x) + E_{z \sim p_z} \log(1 - D(G(z))), \qquad
              D = \sigma(\mathrm{score})

    The paper's value function (eq. 1) is ``loss="minimax"``; its section 3 also proposes that G maximise log D(G(z))
    instead, because log(1 - D) saturates while D is ahead: ``loss="non_saturating"``. The optimal discriminator is
    p_d / (p_d + p_g), and D's loss is then 2 log 2 at p_g = p_d (``d/adversarial`` tends to 1.386).

    Any loss of ``functional.losses.LOSSES`` is played by the same rules. Of the Wasserstein one ``d/wasserstein`` is
    the critic's estimate of the distance, up to its unknown Lipschitz constant. The relativistic ones score real
    samples in G's step too; the one by pairs takes as many fakes as real samples.

    Departures: Adam instead of the paper's SGD with momentum.

    When: A first game, and the plain one that others are compared with; ``loss="non_saturating"`` unless the value
    function itself is the question.

    Defaults: one step of D and the minimax loss are the paper's; Adam's rates and betas are those of :class:`DCGAN`.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        loss: name of the adversarial loss.
        d_steps: the paper's k.
        generator_checkpoint: a checkpoint, or the folder of a run (its best one, else the last), whose generator's
            weights, averaged if they are, G begins with; of any model with such a generator, as `MLE` for text.

    Logged:
        d/adversarial: D's loss by the scores of real and generated samples.
        g/adversarial: G's loss by the scores of generated samples.
        d/real: mean score of real samples.
        d/fake: mean score of generated samples.
        d/wasserstein: of the Wasserstein loss: the critic's estimate of the distance, without penalties.

    Raises:
        ValueError: for an unknown loss; with a relativistic one, for ``g_batch_factor`` above 1 if D is conditional or
            the loss goes by pairs; when training starts, for a checkpoint of another generator.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = GAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, loss="non_saturating")
    >>> model.sample(4).shape, model.log_ratio is model.discriminator
    (torch.Size([4, 2]), True)
    """

    losses: Collection[str] = LOSSES  # that a technique takes

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        loss: LossName = "minimax",
        d_steps: int = 1,
        generator_checkpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        checks.one_of("loss", loss, self.losses)
        super().__init__(generator, discriminator, latent_dim, d_steps=d_steps, **kwargs)
        self.generator_checkpoint = generator_checkpoint
        self.loss, self.relativistic, self.wasserstein = LOSSES[loss], loss in RELATIVISTIC, loss == "wasserstein"
        self.logistic = loss in ("minimax", "non_saturating")
        if loss == "relativistic":
            checks.only("g_batch_factor", self.g_batch_factor, 1, "with loss='relativistic', which goes by pairs")
        if self.relativistic:
            real_in_generator_step(self.g_batch_factor, discriminator)

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) log D(x) - E w log(1 - D(G(z))), for the minimax loss."""
        on_real, on_fake = self.score(batch.real, batch), self.score(fake, batch)
        notes = self.told(on_real, on_fake)
        weights = self.fake_weights(on_real, on_fake)
        loss = self.loss.discriminator(on_real, on_fake, real_weight=batch.weights, fake_weight=weights)
        if self.wasserstein:
            notes["d_wasserstein"] = -loss
        self.note(**notes)
        return {"adversarial": loss, **self.score_terms(on_real, on_fake)}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """E log(1 - D(G(z))) for minimax, -E log D(G(z)) for non_saturating."""
        on_real = self.score(batch.real, batch) if self.relativistic else None
        return {"adversarial": self.loss.generator(self.score(fake, batch), on_real, real_weight=batch.weights)}

    def told(self, on_real: Tensor, on_fake: Tensor) -> dict[str, Tensor]:
        """What is noted of the scores (see :meth:`note`)."""
        return {"d_real": on_real.mean(), "d_fake": on_fake.mean()}

    def score_terms(self, on_real: Tensor, on_fake: Tensor) -> Terms:
        """Further terms of D that are of its scores alone."""
        return {}

    def fake_weights(self, on_real: Tensor, on_fake: Tensor) -> Tensor | None:
        """Weights of the fakes in D's loss, of the shape of their scores; None: all one."""
        return None

    def on_fit_start(self) -> None:
        """Begin with the weights of ``generator_checkpoint``, unless the fit goes on from a checkpoint of its own."""
        path, self.generator_checkpoint = self.generator_checkpoint, None
        if path is not None and self.trainer.ckpt_path is None:
            load_generator(self.generator, path, self.vocabulary)
            for net in self.annealed:
                net.at_update(0)

    @property
    def log_density_bound(self) -> Callable[..., Tensor] | None:
        """log p (N,) of texts, perhaps at a temperature, by a generator that is a language model; else None."""
        return partial(log_density, self.network) if hasattr(self.trained_network, "nll") else None

    @property
    def log_ratio(self) -> nn.Module | None:
        """The discriminator, for the losses whose optimal score is log p_d / p_g: minimax and non_saturating."""
        return self.discriminator if self.logistic else None
