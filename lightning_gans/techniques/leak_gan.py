"""LeakGAN (Guo et al. 2018, arXiv:1709.08624): SeqGAN whose discriminator leaks its features to the generator."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.goals import goal_cosines, intrinsic_rewards
from lightning_gans.functional.policy import follow, policy_loss, rank_rescaled
from lightning_gans.functional.text import check_language_model, to_tokens
from lightning_gans.networks.leak_gan import LeakGANGenerator
from lightning_gans.techniques.seq_gan import SeqGAN


class LeakGAN(SeqGAN):
    r"""`SeqGAN` of a manager that reads D's features f of what is written, and a worker that follows its goals g.

    .. math:: L_m = \sum_{i,t} Q_{it} \left(1 - \cos(f_{i,t+c} - f_{it}, g_{it})\right), \quad t = 0, c, 2c, \dots,
              \qquad Q_{it} = \sigma(\delta (1/2 - \mathrm{rank}_i(R_{i,t+c}) / B))

    .. math:: L_w = -\sum_{i,t} r_{it} \log p_G(y_{it} | y_{i, <t}), \qquad
              r_t = \frac1c \sum_{k=1}^c \cos(f_t - f_{t-k}, g_{t-k})

    R is SeqGAN's reward, the mean of N rollouts, here behind every c-th token; its rank among the B texts, 1 for the
    best, decides how much a goal counts. Goals are constants to the worker, which gets another reward: to have gone
    where they pointed. D's terms are SeqGAN's. The third term of G, ``mle``, is of real texts: L_m with Q = 1 and L_w
    with r = 1, times ``mle_weight``.

    After each update of D its weights are copied to ``generator.leaked``. With a ``generator_checkpoint`` D begins as
    what G has learned to read; so `MLE`, then D alone (``lr_g=0``), then `MLE` from there
    (its ``generator_checkpoint``), then this, is the paper's alternation before the game. What the rollout policy
    reads is the same copy, not a delayed one.

    **Controls** are SeqGAN's, of both rewards: constant, Q = r = 1; permuted, which also is what the released code's
    rescaling comes to, whose values go by no score.

    Departures: real texts are in each update, where the paper has an epoch of maximum likelihood now and then; r is the
    mean over those goals that there are; the goals before the first are none, where the code learns one; one gradient
    is clipped, of manager and worker; no temperature in training, which is an argument of sampling.

    Overrides :meth:`make_fake`, :meth:`cycle`, :meth:`after_discriminator_step`.

    When: Longer texts, where a reward at the end of a sentence says too little of its parts.

    Defaults: rollouts and the rate are those of the released code for length 20; delta is the paper's as it is
    remembered, not checked (in the code it is 16, of what is no rank); ``mle_weight`` is our choice. Else as
    :class:`SeqGAN`.

    Args:
        generator: see :class:`SeqGAN`, as for the remaining arguments; `networks.LeakGANGenerator`, made of this D.
        discriminator: scores (N,) and ``features`` (N, F) of tokens, as of `networks.SeqGANDiscriminator`.
        latent_dim: T.
        delta: of the ranks, > 0; None: Q is R itself.
        mle_weight: of real texts in G's loss, >= 0: what a token of theirs is worth, the rewards being at most 1.
        rollouts: N.
        lr_g: learning rate of the generator's Adam.

    Logged:
        g/manager: L_m.
        g/adversarial: L_w, the worker's.
        g/mle: both of real texts, times ``mle_weight``.
        g/reward: mean of R before ranks are taken.
        g/followed: mean of r: how far the worker goes where the goals point.

    Raises:
        TypeError: for a generator of another kind.
        ValueError: for settings out of range, and for a generator that was made of another discriminator.

    >>> from lightning_gans.networks import SeqGANDiscriminator
    >>> shape = (8, 6)  # T tokens of V symbols
    >>> discriminator = SeqGANDiscriminator(shape, embedding=8, kernels=(1, 2), filters=8)
    >>> generator = LeakGANGenerator(discriminator, shape, embedding=8, hidden=8, goal_size=4, horizon=2)
    >>> model = LeakGAN(generator, discriminator, latent_dim=8)
    >>> model.sample(4).shape, model.every  # tokens from one reward to the next
    (torch.Size([4, 8]), 2)
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        delta: float | None = 12.0,
        mle_weight: float = 1.0,
        rollouts: int = 4,
        lr_g: float = 1.5e-3,
        **kwargs: Any,
    ) -> None:
        checks.positive(**checks.given(delta=delta))
        checks.not_negative(mle_weight=mle_weight)
        checks.networks(discriminator=discriminator)
        check_language_model(generator, "leaked", "told", "losses")
        self.check_leak(cast(Any, generator).leaked, discriminator)
        super().__init__(generator, discriminator, latent_dim, rollouts=rollouts, lr_g=lr_g, **kwargs)
        self.delta, self.mle_weight, self.every = delta, mle_weight, cast(int, generator.horizon)
        self.delayed.leaked = generator.leaked  # one for both, in all copies of this model

    @staticmethod
    def check_leak(leaked: nn.Module, discriminator: nn.Module) -> None:
        """ValueError unless one can be a copy of the other."""
        ours, own = ({k: v.shape for k, v in net.state_dict().items()} for net in (leaked, discriminator))
        if ours != own:
            raise ValueError("generator must be made of a discriminator of the same sizes, got another one's.")

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """The manager's, the worker's, and those of real texts."""
        tokens, generator = to_tokens(fake), cast(LeakGANGenerator, self.generator)
        nll, features, goals = generator.told(tokens)
        missed = 1 - goal_cosines(features, goals, self.every)
        terms = {"manager": policy_loss(missed, self.rewards(tokens, batch))}
        followed = intrinsic_rewards(features, goals.detach(), self.every)
        self.note(g_entropy=nll.mean(), g_followed=followed.mean())
        constant = self.reward == "constant"
        own = torch.ones_like(nll) if constant else super().given(followed, batch)
        terms["adversarial"] = policy_loss(nll, own)
        if self.mle_weight:
            worth = self.mle_weight * (nll.new_ones(1) if batch.weights is None else batch.weights[:, None])
            losses = generator.losses(to_tokens(batch.real)).values()
            terms["mle"] = cast(Tensor, sum(policy_loss(loss, worth) for loss in losses))
        return terms

    def given(self, reward: Tensor, batch: Batch) -> Tensor:
        """By ranks, then as of SeqGAN."""
        return super().given(reward if self.delta is None else rank_rescaled(reward, self.delta), batch)

    def after_discriminator_step(self) -> None:
        """The leak."""
        super().after_discriminator_step()
        follow(cast(nn.Module, self.generator.leaked), self.discriminator, 0.0)

    def on_fit_start(self) -> None:
        """D and what is leaked begin as one: as what G has learned to read, if it has."""
        after, before = cast(nn.Module, self.generator.leaked), self.discriminator
        if self.generator_checkpoint is not None:
            after, before = before, after
        super().on_fit_start()
        if not any(self.progress.updates.values()):
            follow(after, before, 0.0)
