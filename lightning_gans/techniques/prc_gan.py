"""Probability ratio clipping and sample reweighting (Wu et al. 2020, arXiv:2006.06900)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.player import Player, SchedulerFactory
from lightning_gans.functional import prc
from lightning_gans.functional.conditional import score
from lightning_gans.functional.ranks import mean_over_ranks
from lightning_gans.gan import warn_of_sigmoid
from lightning_gans.regularizers import ConsistencyTerm, GradientPenalty, Regularizer
from lightning_gans.techniques.gan import GAN


class PRCGAN(GAN):
    """Two independent switches over any adversarial loss: reweighted fakes for D, a clipped surrogate for G.

    ``reweight``: the fakes of D's loss have weights W = N softmax(f(G(z)) / T) over the batch of all ranks (each of
    ``accumulate_d`` batches by itself), without gradient; for the Wasserstein loss D then maximises the
    Donsker-Varadhan bound E f(x) - log E exp f(G(z)).

    ``ratio_clip``: G maximises E w A with A the reward (f(G(z)) for the Wasserstein loss) and w the ratio
    r = p_theta / p_theta_t clipped at 1 + eps (``functional.prc.surrogate_weights``). A classifier C with logits l and
    label 1 = real gives log r = l_old(x_old) - l_new(x_new), where x_old and x_new have the same z, that of the last
    discriminator step, and l_old(x_old) is kept from before the first of ``g_steps`` updates. The gradient flows
    through A and r. Each generator update comes after ``c_steps`` updates of C on real batches of their own.

    With both off and ``g_steps=1`` it is :class:`GAN`, and C is neither asked for nor fed. The defaults are those of
    the released image code, with its penalties of CT-GAN. Departures: r is taken from logits, and log r within +-10;
    the consistency term draws dropout masks of its own; C's BatchNorm averages stay as they are in generator steps.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        classifier: C, logits (N,), high for real; needed for ``ratio_clip`` only.
        reweight: reweight the fakes in D's loss.
        ratio_clip: eps, or None for G's plain loss on fresh noise.
        temperature: T of the weights.
        surrogate: "code" or "paper", see ``functional.prc.surrogate_weights``.
        center_scores: subtract the mean of f(G(z)) before G's reward is taken: a Wasserstein critic leaves the level
            of f open, and the surrogate depends on it. Off in the code.
        loss: name of the adversarial loss.
        gp_weight: weight of the two-sided gradient penalty, 0 for none.
        ct_weight: weight of the consistency term, 0 for none; it needs dropout in D.
        c_steps: updates of C per generator update.
        lr_c: learning rate of C's Adam.
        clip_grad_c: largest gradient norm of C.
        scheduler_c: as ``scheduler_d``, for C.
        regularizers: further terms.

    Raises:
        ValueError: for settings out of range; for ``ratio_clip`` without a classifier, with ``accumulate_g`` or
            ``g_batch_factor`` above 1, or with ``order="g_first"``.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        classifier: nn.Module | None = None,
        reweight: bool = True,
        ratio_clip: float | None = 0.4,
        temperature: float = 1.0,
        surrogate: prc.Surrogate = "code",
        center_scores: bool = False,
        loss: Any = "wasserstein",
        gp_weight: float = 5.0,
        ct_weight: float = 2.0,
        d_steps: int = 5,
        g_steps: int = 5,
        c_steps: int = 1,
        lr_d: float = 1e-4,
        lr_g: float = 2e-5,
        lr_c: float = 2e-5,
        betas: tuple[float, float] = (0.0, 0.9),
        clip_grad_c: float | None = 0.5,
        scheduler_c: SchedulerFactory | None = None,
        regularizers: Sequence[Regularizer] = (),
        **kwargs: Any,
    ) -> None:
        prc.check_prc(ratio_clip, temperature, surrogate)
        checks.at_least_one(c_steps=c_steps)
        own = [make(weight) for make, weight in ((GradientPenalty, gp_weight), (ConsistencyTerm, ct_weight)) if weight]
        kwargs |= {"d_steps": d_steps, "g_steps": g_steps, "lr_d": lr_d, "lr_g": lr_g, "betas": betas}
        super().__init__(generator, discriminator, latent_dim, loss=loss, regularizers=[*own, *regularizers], **kwargs)
        self.reweight, self.temperature, self.surrogate = reweight, temperature, surrogate
        self.ratio_clip, self.center_scores = ratio_clip, center_scores
        if ratio_clip is None:
            return
        self.classifier = self._checked(classifier)
        self.g_batches = c_steps
        self.play(Player("c", ("classifier",), lr_c, scheduler=scheduler_c, clip=clip_grad_c))

    def _checked(self, classifier: nn.Module | None) -> nn.Module:
        """The classifier, if there is one and the generator's steps can go on with the discriminator's noise."""
        if classifier is None:
            raise ValueError("classifier must be a network with ratio_clip, got None (ratio_clip=None needs none).")
        for name, value, only in (
            ("accumulate_g", self.players["g"].accumulate, 1),
            ("g_batch_factor", self.g_batch_factor, 1),
            ("order", self.order, "d_first"),
        ):
            if value != only:
                raise ValueError(
                    f"{name} must be {only!r} with ratio_clip, which reuses the noise of D, got {value!r}."
                )
        warn_of_sigmoid(classifier)
        return classifier

    @property
    def log_ratio(self) -> nn.Module | None:
        """C; without it D, if its loss is logistic and its fakes are not reweighted."""
        return self.classifier if self.ratio_clip is not None else None if self.reweight else super().log_ratio

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) f(x) + E W f(G(z)), for the Wasserstein loss."""
        on_real, on_fake = self.score(batch.real, batch), self.score(fake, batch)
        weights = prc.softmax_weights(on_fake, self.temperature) if self.reweight else None
        self.note(d_real=on_real.mean(), d_fake=on_fake.mean(), **prc.weight_summary(on_real, on_fake, weights))
        loss = self.loss.discriminator(on_real, on_fake, real_weight=batch.weights, fake_weight=weights)
        return {"adversarial": loss}

    def before_generator_step(self, batches: Sequence[Batch]) -> None:
        """Keep the old logits once per cycle, then train C."""
        if self.ratio_clip is None:
            return
        assert self.last_batch is not None and self.last_fake is not None
        if "logits" not in self.kept:
            with torch.no_grad():
                self.kept["logits"] = score(self.classifier, self.last_fake, self.last_batch.labels)
        for batch in batches:
            self.minimise("c", self.classifier_terms, [batch])

    def classifier_terms(self, batch: Batch) -> Terms:
        """-E log C(x) - E log(1 - C(G(z))), logged as ``c/<name>``."""
        with torch.no_grad():
            fake = self.make_fake(batch)
        on_real, on_fake = (score(self.classifier, x, batch.labels) for x in (batch.real, fake))
        self.note(c_accuracy=torch.cat([on_real > 0, on_fake <= 0]).float().mean())
        return {"real": F.softplus(-on_real.float()).mean(), "fake": F.softplus(on_fake.float()).mean()}

    def generator_batch(self, last: Batch) -> Batch:
        """The noise and labels of the last discriminator step; fresh ones without ``ratio_clip``."""
        return super().generator_batch(last) if self.ratio_clip is None else last

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w A, or the plain loss without ``ratio_clip``."""
        on_real = self.score(batch.real, batch) if self.relativistic else None
        on_fake, weights = self.score(fake, batch), None
        if self.center_scores:
            on_fake = on_fake - mean_over_ranks(on_fake.detach().mean())
        if self.ratio_clip is not None:
            ratio = prc.log_ratio(score(self.classifier, fake, batch.labels), self.kept["logits"]).exp()
            positive = prc.reward(self.loss.generator, on_fake, on_real) >= 0
            weights = prc.surrogate_weights(ratio, positive, self.ratio_clip, self.surrogate)
            self.note(**prc.ratio_summary(ratio, weights))
        loss = self.loss.generator(on_fake, on_real, fake_weight=weights, real_weight=batch.weights)
        return {"adversarial": loss}
