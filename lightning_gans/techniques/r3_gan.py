"""R3GAN, a GAN without tricks (Huang, Gokaslan, Kuleshov and Tompkin 2024, arXiv:2501.05441)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.double_backward.input_gradient import scores_and_gradient
from lightning_gans.techniques.gan import GAN


class R3GAN(GAN):
    r"""Real and generated samples are compared in pairs, by a critic with zero-centred penalties at both.

    .. math:: L_D = E \log(1 + e^{-(f(x) - f(G(z)))}) + \frac{\gamma}{2} E \|\nabla f(x)\|^2
              \qquad + \frac{\gamma}{2} E \|\nabla f(G(z))\|^2, \qquad
              L_G = E \log(1 + e^{-(f(G(z)) - f(x))})

    Terms ``adversarial``, ``r1`` and ``r2``; a pair is what has the same place in the batches of D's last step, so that
    there are as many fakes as real samples. The level of f is free, hence no ``log_ratio``. Both losses are log 2 where
    f tells nothing. Networks as in the paper: ``networks.R3Generator`` and ``networks.R3Discriminator``.

    Defaults are where the CIFAR-10 preset of the released code starts. It ends at gamma = .005, beta2 = .99 and a
    learning rate of 5e-5 after 20 million images; ``gamma_end``, ``beta2_end`` and ``anneal_steps`` go there by half a
    cosine, and a scheduler (``CosineAnnealingLR``) does the same for the rates. Gamma is to grow with the number of
    pixels. Departures: no adaptive augmentation; the cosine is our choice of the schedule's form; in mixed precision,
    and with another ``double_backward``, the penalties have a pass of their own, for which a random augmentation
    (``wrappers.DiffAugment``) is drawn anew.

    Overrides :meth:`cycle`, to move gamma and beta2.

    When: One update of D for each of G, and few modes lost. Gamma has to grow with the image.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: f, scores (N,); without normalisation layers in the paper.
        latent_dim: length of z.
        gamma: weight of both penalties, >= 0, 0 for none.
        gamma_end: where gamma goes; None keeps it.
        beta2_end: where beta2 of both players' Adam goes; None keeps it.
        anneal_steps: generator updates until then.
        loss: always "relativistic".
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the discriminator's Adam.
        betas: beta1, beta2 of Adam.

    Logged:
        d/r1, d/r2: gamma / 2 times the mean squared slope at real and at generated samples.

    Raises:
        ValueError: for settings out of range, for another loss, and for ``g_batch_factor`` above 1.

    >>> from lightning_gans.networks import R3Discriminator, R3Generator
    >>> networks = R3Generator((1, 16, 16), 8, widths=8), R3Discriminator((1, 16, 16), widths=8)
    >>> model = R3GAN(*networks, latent_dim=8, gamma=0.05, gamma_end=0.005)
    >>> model.sample(4).shape, model.log_ratio
    (torch.Size([4, 1, 16, 16]), None)
    """

    losses = ("relativistic",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        gamma: float = 0.05,
        gamma_end: float | None = None,
        beta2_end: float | None = None,
        anneal_steps: int = 40_000,
        loss: Literal["relativistic"] = "relativistic",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        **kwargs: Any,
    ) -> None:
        checks.not_negative(gamma=gamma)
        checks.positive(**checks.given(gamma_end=gamma_end))
        if gamma == 0:
            checks.only("gamma_end", gamma_end, None, "with gamma=0, which leaves the penalties out")
        checks.inside(**checks.given(beta2_end=beta2_end))
        checks.at_least_one(anneal_steps=anneal_steps)
        self.declare(True, r1=gamma, r2=gamma)
        super().__init__(generator, discriminator, latent_dim, loss=loss, lr_g=lr_g, lr_d=lr_d, betas=betas, **kwargs)
        self.gamma_range, self.beta2_end, self.anneal_steps = (gamma, gamma_end), beta2_end, anneal_steps
        self.gamma: Tensor  # on the device: in a CUDA graph a number would stay as it was
        self.register_buffer("gamma", torch.tensor(float(gamma)), persistent=False)

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """E log(1 + e^-(f(x) - f(G(z)))), and gamma / 2 times the mean squared slope at both."""
        if not self.gamma_range[0]:
            return super().discriminator_terms(batch, fake)
        if self._joint:  # one pass for two
            labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
            critic = self.critic(replace(batch, labels=labels))
            on_all, gradient = scores_and_gradient(critic, torch.cat([batch.real, fake]))
            scores, slopes = on_all.chunk(2), gradient.chunk(2)
        else:
            scores, slopes = zip(*(scores_and_gradient(self.critic(batch), x) for x in (batch.real, fake)))
        half = self.gamma / 2
        r1, r2 = (half * slope.square().sum(1).mean() for slope in slopes)
        self._pair[:] = (batch.real, fake, *scores)  # what `score` gives for the two
        terms = super().discriminator_terms(batch, fake)
        self._pair.clear()
        return {**terms, "r1": r1, "r2": r2}

    def cycle(self) -> None:
        """Moves gamma and beta2 along their schedules, by the number of updates alone."""
        share = (1 - math.cos(math.pi * min(1.0, self.global_step / self.anneal_steps))) / 2
        start, end = self.gamma_range
        if end is not None:
            self.gamma.fill_(start + share * (end - start))
        if self.beta2_end is not None:
            betas = self.betas[0], self.betas[1] + share * (self.beta2_end - self.betas[1])
            for step in self.run.steps.values():
                for group in step.optimizer.param_groups:
                    group["betas"] = betas
        super().cycle()
