"""Probability ratio clipping and sample reweighting (Wu et al. 2020, arXiv:2006.06900)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.player import OptimizerFactory, Player, SchedulerFactory
from lightning_gans.functional import prc
from lightning_gans.functional.conditional import score
from lightning_gans.functional.losses import LOSSES, LossName
from lightning_gans.functional.ranks import mean_over_ranks
from lightning_gans.gan import warn_of_sigmoid
from lightning_gans.techniques.ct_gan import CTGAN


class PRCGAN(CTGAN):
    r"""Two independent switches over any adversarial loss: reweighted fakes for D, a clipped surrogate for G.

    .. math:: L_D = -E f(x) + E \, W f(G(z)), \qquad L_G = -E \min(r, 1 + \epsilon) f(G(z)), \qquad
              W = N \, \mathrm{softmax}(f(G(z)) / T), \quad r = p_\theta / p_{\theta_t}

    for the Wasserstein loss. ``reweight``: W is over the batch of all ranks (each of ``accumulate_d`` batches by
    itself), without gradient; D then maximises the Donsker-Varadhan bound E f(x) - log E exp f(G(z)), and
    ``d/wasserstein`` is E f(x) - E W f(G(z)).

    ``ratio_clip``: G maximises E w A with A the reward (f(G(z)) for the Wasserstein loss) and w the ratio r clipped at
    1 + eps (``functional.prc.surrogate_weights``). A classifier C with logits l and label 1 = real gives
    log r = l_old(x_old) - l_new(x_new), where x_old and x_new have the same z, that of the last discriminator step, and
    l_old(x_old) is kept from before the first of ``g_steps`` updates. The gradient flows through A and r. Each
    generator update comes after ``c_steps`` updates of C on real batches of their own.

    With both off and ``g_steps=1`` it is :class:`GAN`, and C is neither asked for nor fed. Adds the player C, and
    overrides :meth:`before_generator_step` and :meth:`generator_batch`.

    On text (the paper's section 4.2): `networks.RelationalGenerator` with ``beta=(.2, 1.)``,
    `networks.RelGANDiscriminator` for D and C, ``g_steps=1``, ``ct_weight=0``, rates of 1e-4, gradients clipped at 5,
    and ``generator_checkpoint`` of a language model. z is the Gumbel noise, so that x_old and x_new share it, where the
    released text code draws anew and compares unmatched texts; f, in loss, weights and penalty, is the mean over the
    representations, where that code penalises their sum and weighs each score by itself.

    Defaults of the released image code, with its penalties of CT-GAN. Departures: its learning rates fall to 0
    linearly, which the recipe says and the defaults here do not; r is taken from logits, and log r within +-10; the
    consistency term draws dropout masks of its own; C's BatchNorm averages stay as they are in generator steps.

    When: Reweighted fakes (``ratio_clip=None``) on toys and data with outliers; clipping to see what it does.

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
        optimizer_c: as ``optimizer_d``, for C.
        clip_grad_c: largest gradient norm of C.
        scheduler_c: as ``scheduler_d``, for C.

    Logged:
        d/donsker_varadhan: the bound, E f(x) - log E exp f(G(z)).
        d/effective_share: 1 / mean W^2: as if so large a share of the fakes counted, and alike.
        d/weight_max: the largest W.
        g/clipped: share of the fakes whose ratio is clipped.
        g/ratio_q05, g/ratio_q50, g/ratio_q95: quantiles of r.
        c/real, c/fake: C's loss on real and on generated samples.
        c/accuracy: share of both that C tells right.

    Raises:
        ValueError: for settings out of range; for ``ratio_clip`` without a classifier, with ``accumulate_g`` or
            ``g_batch_factor`` above 1, or with ``order="g_first"``.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> critic, classifier = ToyDiscriminator(width=8), ToyDiscriminator(width=8)
    >>> model = PRCGAN(ToyGenerator(width=8), critic, latent_dim=2, classifier=classifier, ct_weight=0)
    >>> list(model.players), model.g_steps, model.log_ratio is classifier
    (['d', 'g', 'c'], 5, True)
    """

    losses = LOSSES

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
        loss: LossName = "wasserstein",
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
        optimizer_c: OptimizerFactory | None = None,
        scheduler_c: SchedulerFactory | None = None,
        **kwargs: Any,
    ) -> None:
        prc.check_prc(ratio_clip, temperature, surrogate, c_steps)
        kwargs |= {"ct_weight": ct_weight, "d_steps": d_steps, "g_steps": g_steps}
        kwargs |= {"lr_d": lr_d, "lr_g": lr_g, "betas": betas, "gp_weight": gp_weight}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        self.reweight, self.temperature, self.surrogate = reweight, temperature, surrogate
        self.ratio_clip, self.center_scores = ratio_clip, center_scores
        if ratio_clip is None:
            return
        if classifier is None:
            raise ValueError("classifier must be a network with ratio_clip, got None (ratio_clip=None needs none).")
        why = "with ratio_clip, which reuses the noise of D"
        checks.only("accumulate_g", self.players["g"].accumulate, 1, why)
        checks.only("g_batch_factor", self.g_batch_factor, 1, why)
        checks.only("order", self.order, "d_first", why)
        self.classifier, self.g_batches = classifier, c_steps
        self.play(Player("c", ("classifier",), lr_c, optimizer_c, scheduler_c, clip_grad_c))
        warn_of_sigmoid(classifier)

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w A, or the plain loss without ``ratio_clip``."""
        on_real = self.score(batch.real, batch) if self.relativistic else None
        on_fake, weights = self.score(fake, batch), None
        if self.center_scores:
            on_fake = on_fake - mean_over_ranks(on_fake.detach().mean())
        if self.ratio_clip is not None:
            ratio = prc.log_ratio(score(self.classifier, fake, batch.labels, "classifier"), self.kept["logits"]).exp()
            positive = prc.reward(self.loss.generator, on_fake, on_real) >= 0 if self.surrogate == "paper" else None
            weights = prc.surrogate_weights(ratio, positive, self.ratio_clip, self.surrogate)
            self.tell(lambda: prc.ratio_summary(ratio, weights))
        return {"adversarial": self.loss.generator(on_fake, on_real, weights, batch.weights)}

    def classifier_terms(self, batch: Batch) -> Terms:
        """-E log C(x) - E log(1 - C(G(z))), logged as ``c/<name>``."""
        with torch.no_grad():
            fake = self.make_fake(batch)
        on_real, on_fake = (score(self.classifier, x, batch.labels, "classifier") for x in (batch.real, fake))
        self.tell(lambda: {"c_accuracy": torch.cat([on_real > 0, on_fake <= 0]).float().mean()})
        return {"real": F.softplus(-on_real.float()).mean(), "fake": F.softplus(on_fake.float()).mean()}

    def fake_weights(self, on_real: Tensor, on_fake: Tensor) -> Tensor | None:
        """W."""
        weights = prc.softmax_weights(on_fake, self.temperature) if self.reweight else None
        self.tell(lambda: prc.weight_summary(on_real, on_fake, weights))
        return weights

    def before_generator_step(self, batches: Sequence[Batch]) -> None:
        """Keep the old logits once per cycle, then train C."""
        if self.ratio_clip is None:
            return
        if "logits" not in self.kept:
            last, fake = cast(Batch, self.last_batch), cast(Tensor, self.last_fake)
            self.kept["logits"] = score(self.classifier, fake, last.labels, "classifier").detach()
        for batch in batches:
            self.minimise("c", self.classifier_terms, [batch])

    def generator_batch(self, last: Batch) -> Batch:
        """The noise and labels of the last discriminator step; fresh ones without ``ratio_clip``."""
        return super().generator_batch(last) if self.ratio_clip is None else last

    @property
    def log_ratio(self) -> nn.Module | None:
        """C; without it D, if its loss is logistic and its fakes are not reweighted."""
        return self.classifier if self.ratio_clip is not None else None if self.reweight else super().log_ratio
