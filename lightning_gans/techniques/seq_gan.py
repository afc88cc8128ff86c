"""SeqGAN (Yu et al. 2017, arXiv:1609.05473): text by a policy gradient, whose rewards are of rollouts."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import score
from lightning_gans.functional.modes import copied, evaluating
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.policy import Baseline, Reward, check_batch, check_policy, follow, permuted, policy_loss
from lightning_gans.functional.ranks import mean_over_ranks
from lightning_gans.functional.text import check_language_model, one_hot, to_tokens
from lightning_gans.networks.language import Recurrent
from lightning_gans.techniques.gan import GAN


class SeqGAN(GAN):
    r"""G writes token by token, and is reinforced where D takes what it wrote, and would write then, for real.

    .. math:: L_G = -\sum_{i,t} R_{it} \log p_G(y_{it} | y_{i, <t}), \qquad
              R_t = \frac1N \sum_{n=1}^N D(y_{1:t}, y'^{(n)}_{t+1:T} \sim G_\beta), \quad R_T = D(y_{1:T})

    .. math:: L_D = -E \log D(x) - E \log(1 - D(y)) + \lambda |W_s|^2, \qquad
              G_\beta \leftarrow 0.8\, G_\beta + 0.2\, G

    D is the probability of "real", without dropout here. The rollout policy G_beta is ``delayed``, which follows G
    after each of its updates; its embedding is G's. Networks: `networks.LanguageModel` (or another
    `networks.language.Recurrent`) and `networks.SeqGANDiscriminator`. Data are tokens (N, T) int64 (``one_hot=False``),
    or one-hot vectors, of which regularizers of D make sense too; what D gets is of the same kind. G begins with a
    language model by maximum likelihood, a fit of its own: `MLE`, then ``generator_checkpoint``. So may D: a fit with
    ``lr_g=0`` and ``reward="constant"``, gone on with.

    **Controls**: ``reward="constant"``, R = 1, sharpens for no reason; ``"permuted"`` gives each text the rewards of
    another. What they gain is not D's doing. (The third, as many more updates of maximum likelihood, is `MLE` gone on
    with.)

    Departures: fresh texts at each update of D, where the code trains 3 epochs on 10,000, 5 times a round (4,680
    batches); R_T is taken once; log p is not cut at 1e-20; D's losses are two means, where the code's is one, hence
    twice its weight decay.

    Overrides :meth:`make_fake`, :meth:`cycle`.

    When: Text by a reward, where no gradient can go through tokens; always beside its controls.

    Defaults: rollouts, delay, rates, clipping and the weight decay are those of the released code; 50 updates of D for
    one of G are our choice.

    Args:
        generator: see :class:`GAN`, as for the remaining arguments; a language model, without labels.
        discriminator: scores (N,) of tokens or one-hot vectors; ``score`` is its last layer.
        latent_dim: length of the generator's z; T for a `LanguageModel`.
        rollouts: N.
        delay: share of itself that the rollout policy keeps, in [0, 1).
        baseline: "batch" takes the mean over the batch, place by place, off the rewards; "none", as in the code.
        reward: "discriminator", or a control.
        l2_weight: lambda >= 0.
        loss: "non_saturating", which tells how D is trained.
        d_steps: updates of D per update of G.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the discriminator's Adam.
        betas: beta1, beta2 of Adam.
        clip_grad_g: largest norm of the generator's gradient.

    Logged:
        g/adversarial: L_G; a baseline is taken off the rewards before.
        g/reward: mean of R.
        g/entropy: mean of -log p of G's own tokens, in nats: a text GAN that only sharpens shows there.
        d/l2: lambda times the squared weights of D's last layer.

    Raises:
        TypeError: for a generator that is no language model.
        ValueError: for settings out of range, for a baseline with constant rewards or batches of one text, and for a
            discriminator without ``score`` where there is a weight for it.

    >>> from lightning_gans.networks import LanguageModel, SeqGANDiscriminator
    >>> shape = (8, 6)  # T tokens of V symbols
    >>> discriminator = SeqGANDiscriminator(shape, embedding=8, kernels=(1, 2), filters=8)
    >>> model = SeqGAN(LanguageModel(shape, 8, 8), discriminator, latent_dim=8, rollouts=4)
    >>> model.sample(4).shape, model.log_density_bound(model.sample(4)).shape
    (torch.Size([4, 8]), torch.Size([4]))
    """

    losses, reads_tokens, every = ("non_saturating",), True, 1  # tokens from one reward to the next

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        rollouts: int = 16,
        delay: float = 0.8,
        baseline: Baseline = "none",
        reward: Reward = "discriminator",
        l2_weight: float = 0.2,
        loss: Literal["non_saturating"] = "non_saturating",
        d_steps: int = 50,
        lr_g: float = 1e-2,
        lr_d: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        clip_grad_g: float | None = 5.0,
        **kwargs: Any,
    ) -> None:
        check_policy(rollouts, delay, baseline, reward)
        checks.not_negative(l2_weight=l2_weight)
        if l2_weight and not isinstance(getattr(discriminator, "score", None), nn.Module):
            got = type(discriminator).__name__
            raise ValueError(f"discriminator must have its last layer as score for l2_weight={l2_weight}, got {got}.")
        check_language_model(generator, "embedding", "rollouts")
        size = cast(int, generator.vocabulary_size)
        checks.only("discriminator.vocabulary_size", getattr(discriminator, "vocabulary_size", size), size, "as G's")
        self.declare(False, l2=l2_weight)
        kwargs |= {"d_steps": d_steps, "lr_g": lr_g, "lr_d": lr_d, "betas": betas, "clip_grad_g": clip_grad_g}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        self.rollouts, self.delay, self.baseline, self.reward = rollouts, delay, baseline, reward
        self.l2_weight, self.delayed = l2_weight, copied(generator).requires_grad_(False)

    def score_terms(self, on_real: Tensor, on_fake: Tensor) -> Terms:
        """The weight decay of D's last layer."""
        last: Any = getattr(self.discriminator, "score", None)
        return {"l2": self.l2_weight * sum(p.square().sum() for p in last.parameters())} if self.l2_weight else {}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-sum R log p."""
        tokens, generator = to_tokens(fake), cast(Recurrent, self.generator)
        nll = generator.nll(tokens)
        self.note(g_entropy=nll.mean())
        return {"adversarial": policy_loss(nll, self.rewards(tokens, batch))}

    @torch.no_grad()
    def rewards(self, tokens: Tensor, batch: Batch) -> Tensor:
        """R (N, T) of the tokens of texts (N, T); of every K-th alone (N, T / K), rounded up, the last among them."""
        (n, length), places = tokens.shape, (tokens.shape[1] - 1) // self.every
        if self.reward == "constant":
            return torch.ones(n, places + 1, device=tokens.device)
        like: Any = {"generator": batch.generator, "device": tokens.device, "dtype": batch.z.dtype}
        z, policy = draw.normal(n, self.rollouts, places, length, **like), cast(Recurrent, self.delayed)
        with evaluating(policy), evaluating(self.discriminator):
            texts = [*policy.rollouts(tokens, z, self.every), tokens]
            reward = torch.stack([self.probability(x, batch).view(n, -1).mean(1) for x in texts], 1)
        self.note(g_reward=reward.mean())
        return self.given(reward, batch)

    def given(self, reward: Tensor, batch: Batch) -> Tensor:
        """Rewards (N, ...) as a control and the baseline leave them."""
        if self.reward == "permuted":
            reward = permuted(reward, draw.normal(len(reward), generator=batch.generator, device=reward.device))
        return reward if self.baseline == "none" else reward - mean_over_ranks(reward.mean(0))

    def probability(self, tokens: Tensor, batch: Batch) -> Tensor:
        """D (M,) of texts (M, T), M / N of them for each of the batch's N."""
        labels = None if batch.labels is None else batch.labels.repeat_interleave(len(tokens) // len(batch.labels))
        return full_precision(score(self.discriminator, self.as_real(tokens, batch), labels)).sigmoid()

    @torch.no_grad()
    def make_fake(self, batch: Batch) -> Tensor:
        """Texts that G writes."""
        return self.as_real(super().make_fake(batch), batch)

    def as_real(self, made: Tensor, batch: Batch) -> Tensor:
        """Tokens, or their one-hot vectors where real samples are such."""
        tokens, real = to_tokens(made), batch.real
        return one_hot(tokens, cast(int, self.vocabulary_size), real.dtype) if real.is_floating_point() else tokens

    def check_first_batch(self, batch: Batch) -> None:
        """Also that no regularizer asks for slopes at tokens, and that the baseline leaves a reward."""
        super().check_first_batch(batch)
        check_batch(self.g_batch_factor * len(batch.real), self.baseline)
        slopes = [r.name for r in self.regularizers if r.per_sample and not r.of_tokens and r.player == "d"]
        if slopes and not batch.real.is_floating_point():
            raise ValueError(f"real samples must be one-hot (one_hot=True) for the penalty {slopes[0]!r}, got tokens.")

    def cycle(self) -> None:
        """One of the game; then the rollout policy follows."""
        super().cycle()
        follow(self.delayed, self.generator, self.delay, ("embedding",))

    def on_fit_start(self) -> None:
        """The rollout policy begins as G does."""
        super().on_fit_start()
        if not any(self.progress.updates.values()):
            follow(self.delayed, self.generator, 0.0)
