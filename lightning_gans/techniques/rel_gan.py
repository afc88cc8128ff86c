"""RelGAN (Nie, Narodytska and Patel 2019, openreview.net/forum?id=rJedV3R5tm): text by Gumbel noise, no policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.losses import LOSSES, LossName
from lightning_gans.techniques.gan import GAN


class RelGAN(GAN):
    r"""A relativistic game of relaxed texts, over the pairs of all representations that D has of them.

    .. math:: L_D = -\frac1R \sum_r E \log \sigma(f_r(x) - f_r(y)), \qquad
              L_G = -\frac1R \sum_r E \log \sigma(f_r(y) - f_r(x)), \qquad y = \mathrm{softmax}(\beta (o + g))

    o are G's logits and g is Gumbel noise, so that argmax y is a text by the law of o, and y its relaxation, with a
    gradient; beta rises with the updates (``g/beta``), from exploration to one-hot vectors. Networks:
    `networks.RelationalGenerator` or `networks.LSTMGenerator`, which have the schedule of beta, and
    `networks.RelGANDiscriminator`, whose method ``each`` gives f_r, (N, R) scores; other networks play with one.
    G begins with a language model by maximum likelihood, a fit of its own: `MLE`, then ``generator_checkpoint``.
    ``metrics/sharpness`` of ``TextMetrics``, the mean of max y, tells how far y is from a text.

    Departures: the loss is taken of full-precision log-sigmoids; a round is G's update and then D's five, as in the
    code.

    When: Text by gradients through a relaxation, from a language model on; compare it with that model at a lower
    temperature.

    Defaults: those of the released code.

    Args:
        generator: see :class:`GAN`, as for the remaining arguments.
        discriminator: scores (N,); with a method ``each`` for (N, R).
        latent_dim: length of z; T V for the generators above.
        loss: "relativistic", or any other that is no Wasserstein one; the code has others too.
        d_steps: updates of D per update of G.
        order: who is first in a round.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the discriminator's Adam.
        betas: beta1, beta2 of Adam.
        clip_grad_g: largest norm of the generator's gradient.
        clip_grad_d: the same of the discriminator.

    Logged:
        g/beta: the inverse temperature of the relaxation.

    Raises:
        ValueError: for settings out of range, for a Wasserstein loss (`WGANGP` and `PRCGAN` take these networks), for
            ``g_batch_factor`` above 1 with pairs, and for a wrapper that hides ``each``.

    >>> from lightning_gans.networks import LSTMGenerator, RelGANDiscriminator
    >>> shape = (8, 6)  # T tokens of V symbols
    >>> discriminator = RelGANDiscriminator(shape, embedding=4, representations=4, filters=8, hidden=8)
    >>> model = RelGAN(LSTMGenerator(shape, 8, 8), discriminator, latent_dim=8 * 6)
    >>> model.sample(4).shape, model.order, model.d_steps
    (torch.Size([4, 8]), 'g_first', 5)
    """

    losses = tuple(name for name in LOSSES if name != "wasserstein")

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        loss: LossName = "relativistic",
        d_steps: int = 5,
        order: Literal["d_first", "g_first"] = "g_first",
        lr_g: float = 1e-4,
        lr_d: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        clip_grad_g: float | None = 5.0,
        clip_grad_d: float | None = 5.0,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"d_steps": d_steps, "order": order, "lr_g": lr_g, "lr_d": lr_d, "betas": betas}
        kwargs |= {"clip_grad_g": clip_grad_g, "clip_grad_d": clip_grad_d}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        if not hasattr(discriminator, "each") and any(hasattr(part, "each") for part in discriminator.modules()):
            got = f"{type(discriminator).__name__}, a part of which has it: its representations would be averaged"
            raise ValueError(f"discriminator must have the method each itself, got {got}.")

    def each(self, x: Tensor, batch: Batch) -> Tensor:
        """Scores (N, R) of all representations; (N,) by a discriminator of one."""
        scores: Any = getattr(self.discriminator, "each", None)
        return self.score(x, batch) if scores is None else conditional_call(scores, x, batch.labels)

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E log s(f_r(x) - f_r(y)), over pairs and representations."""
        if self._joint:  # one pass for two
            labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
            on_real, on_fake = self.each(torch.cat([batch.real, fake]), replace(batch, labels=labels)).chunk(2)
        else:
            on_real, on_fake = self.each(batch.real, batch), self.each(fake, batch)
        self.note(**self.told(on_real, on_fake))
        return {"adversarial": self.loss.discriminator(on_real, on_fake, real_weight=batch.weights)}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """The same, real and fake exchanged."""
        on_real = self.each(batch.real, batch) if self.relativistic else None
        return {"adversarial": self.loss.generator(self.each(fake, batch), on_real, real_weight=batch.weights)}
