"""Robust optimal transport GAN (Balaji, Chellappa and Feizi 2020, arXiv:2010.05862)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.player import Player
from lightning_gans.engine.sample_weights import SampleWeighted
from lightning_gans.functional import robust
from lightning_gans.functional.conditional import score
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import max_over_ranks
from lightning_gans.gan import warn_of_sigmoid
from lightning_gans.techniques.wgan_gp import WGANGP


class RobustWGAN(SampleWeighted, WGANGP):
    r"""The Wasserstein game on data that may be re-weighted, which lets go of outliers.

    .. math:: \min_G \min_W \max_f \; E \, W(x) f(x) - E f(G(z)), \qquad
              W \ge 0, \; E W = 1, \; \tfrac12 E (W - 1)^2 \le \rho, \; f \text{ 1-Lipschitz}

    Real samples that f tells easily, since G never comes near them, lose their weight. With a presumed share a of
    outliers, ``functional.robust.rho_for_share`` gives the rho that can drop them, a / (2 (1 - a));
    ``functional.robust.outlier_share`` estimates a by means of clean samples.

    With a ``weight_network``, W = softplus(network(x)) over its mean in the batch of all processes. It minimises
    E W d + constraint_weight max(0, E (W - 1)^2 / 2 - rho) (``w/value``, ``w/constraint``) on D's last batch, with D's
    learning rate, optimizer, schedule and limit of the gradient. d is what the sample adds to the value that D
    maximises: f, log s(f) ("non_saturating"), or -max(0, 1 - f) ("hinge"). The penalty is not weighted.

    Without one it is the discrete form: one weight for each training sample, the exact solution
    (``functional.robust.robust_weights``) for the scores of all of them, averaged over the updates of the weights,
    since the best weights against one critic swing to and fro with the next. That takes a pass over the data, and a
    ``MemoryLoader``, which hands the weights to the batches.

    With ``rho=0`` there are no weights, the network is not kept, and for the Wasserstein loss it is :class:`WGANGP`.
    Departures from the released code: there the weights step before D and reuse D's fakes; the weight stands outside
    the nonlinearity in each loss, softplus is never 0 nor negative, "non_saturating" is zero-sum, W is held fixed in
    D's step, and the discrete form averages scores of all samples by one D, not of each batch as it comes (there with
    momentum 0.99).

    Overrides :meth:`due` and :meth:`after_discriminator_step`.

    When: Training data with far outliers of a share that is roughly known; on clean data it costs evenness of modes.

    Defaults: ``rho``, the constraint's weight, ``w_start`` (300 updates of D), steps and Adam are those of the released
    code for WGAN with the networks of DCGAN; ``momentum`` is our choice.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: f, scores (N,).
        latent_dim: length of z.
        rho: radius of the chi-square ball, >= 0.
        weight_network: any network of samples to numbers (N,); None for the discrete form.
        loss: "wasserstein", "non_saturating" or "hinge".
        gp_weight: weight of the two-sided gradient penalty, 0 for none.
        constraint_weight: of the soft constraint on the network's weights.
        w_start: generator updates before the weights are first updated (300 updates of D in the code).
        w_every: cycles between updates of the weights; None: 1 with a network, else 200.
        momentum: of the average of scores in the discrete form, in [0, 1).
        d_steps: updates of D per cycle.

    Logged:
        w/value, w/constraint: the two terms that W minimises.
        w/divergence: E (W - 1)^2 / 2 of the batch, which is to be rho at most.
        w/smallest: the least weight in the batch.

    Raises:
        ValueError: for settings out of range; when training starts, for the discrete form without a ``MemoryLoader``.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> networks = ToyGenerator(width=8), ToyDiscriminator(width=8)
    >>> rho = robust.rho_for_share(0.1)  # a tenth of the data may be outliers
    >>> model = RobustWGAN(*networks, latent_dim=2, rho=rho, weight_network=ToyDiscriminator(width=8))
    >>> round(rho, 3), list(model.players)
    (0.056, ['d', 'g', 'w'])
    """

    losses = tuple(robust.VALUES)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        rho: float = 0.025,
        weight_network: nn.Module | None = None,
        loss: Literal["wasserstein", "non_saturating", "hinge"] = "wasserstein",
        gp_weight: float = 10.0,
        constraint_weight: float = 100.0,
        w_start: int = 60,
        w_every: int | None = None,
        momentum: float = 0.9,
        d_steps: int = 5,
        lr_d: float = 1e-4,
        lr_g: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.9),
        **kwargs: Any,
    ) -> None:
        checks.not_negative(rho=rho)
        checks.positive(constraint_weight=constraint_weight)
        checks.at_least(0, w_start=w_start)
        checks.at_least_one(**checks.given(w_every=w_every))
        checks.below_one(momentum=momentum)
        kwargs |= {"gp_weight": gp_weight, "d_steps": d_steps, "lr_d": lr_d, "lr_g": lr_g, "betas": betas}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        self.rho, self.constraint_weight, self.value = rho, constraint_weight, robust.VALUES[loss]
        self.momentum, self.weighs_samples = momentum, rho > 0 and weight_network is None
        self.w_start, self.w_every = w_start, w_every or (200 if self.weighs_samples else 1)
        if rho > 0 and weight_network is not None:
            self.weight_network, d = weight_network, self.players["d"]
            self.play(Player("w", ("weight_network",), lr_d, d.optimizer, d.scheduler, d.clip, every=self.w_every))
            warn_of_sigmoid(weight_network)

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E W f(x) + E f(G(z)) for the Wasserstein loss, and the penalty; a batch of the discrete form has its W."""
        if "w" in self.players:
            with torch.no_grad():
                weights = self.weigh(batch)
            self.note(w_divergence=robust.divergence(weights, batch.weights))
            self.tell(lambda: {"w_smallest": -max_over_ranks(-weights.min())})
            batch = replace(batch, weights=weights if batch.weights is None else batch.weights * weights)
        return super().discriminator_terms(batch, fake)

    def weigh(self, batch: Batch) -> Tensor:
        """W (N,) of the batch by the network."""
        return robust.softplus_weights(
            score(self.weight_network, batch.real, batch.labels, "weight_network"), batch.weights
        )

    def due(self, player: str) -> bool:
        """The weights, of either form, begin at ``w_start``."""
        step = self.global_step - self.progress.done["g"]  # when the cycle began
        turn = step >= self.w_start and step // self.g_steps % self.w_every == 0
        return turn if player == "w" else super().due(player)

    def after_discriminator_step(self) -> None:
        """Update the weights after the last discriminator update of a cycle, if that is due."""
        if self.rho == 0 or not self.due("w") or self.progress.done["d"] < self.d_steps:
            return
        if self.weighs_samples:
            scores, base = self.score_samples(self.discriminator, self.momentum)
            self.set_sample_weights(robust.robust_weights(self.value(scores), self.rho, base))
        else:
            assert self.last_batch is not None
            self.minimise("w", self.weight_terms, [self.last_batch])

    def weight_terms(self, batch: Batch) -> Terms:
        """E W d and the soft constraint, logged as ``w/<name>``."""
        with torch.no_grad():
            value = self.value(full_precision(self.score(batch.real, batch)))
        weights = self.weigh(batch)
        excess = (robust.divergence(weights, batch.weights) - self.rho).clamp_min(0)
        return {"value": robust.mean(weights * value, batch.weights), "constraint": self.constraint_weight * excess}
