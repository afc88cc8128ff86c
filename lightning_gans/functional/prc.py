"""Sample reweighting and probability ratio clipping (PRC-GAN, arXiv:2006.06900): the maths, on scores and logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import max_over_ranks, mean_over_ranks

Surrogate = Literal["paper", "code"]
LOG_RATIO_LIMIT = 10.0


def log_mean_exp(scores: Tensor) -> Tensor:
    """log mean_i exp(f_i) of scores (N,) over the batch of all processes; finite for scores of any size.

    >>> float(log_mean_exp(torch.tensor([1000.0, 1000.0])))
    1000.0
    """
    scores = full_precision(scores)
    largest = max_over_ranks(scores.detach().max())
    return mean_over_ranks((scores - largest).exp().mean()).log() + largest


def softmax_weights(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Weights W_i = N exp(f_i / T) / sum_j exp(f_j / T) of scores (N,), without gradient; their mean is 1.

    Sampling from p_theta e^f / Z by importance weights. Over the batch of all processes. At T = 1 the gradient of
    mean(W f) is that of `log_mean_exp(f)`.

    >>> [round(w, 4) for w in softmax_weights(torch.tensor([1.0, 3.0]).log()).tolist()]
    [0.5, 1.5]
    """
    scaled = full_precision(scores.detach()) / temperature
    odds = (scaled - max_over_ranks(scaled.max())).exp()
    return odds / mean_over_ranks(odds.mean())


def log_ratio(new_logits: Tensor, old_logits: Tensor, limit: float = LOG_RATIO_LIMIT) -> Tensor:
    """log r_i = l_old(x_i^old) - l_new(x_i^new), within +-limit, of a classifier's logits l (N,) with label 1 = real.

    For the optimal classifier l = log p_data - log p_theta, so that at one point x, r = p_theta(x) / p_theta_t(x). The
    released code compares the two samples of the same z instead, which is what this is given.

    >>> log_ratio(torch.tensor([1.0, -50.0]), torch.tensor([3.0, 0.0])).tolist()
    [2.0, 10.0]
    """
    return (full_precision(old_logits) - full_precision(new_logits)).clamp(-limit, limit)


def surrogate_weights(ratio: Tensor, positive: Tensor | None, epsilon: float, surrogate: Surrogate = "code") -> Tensor:
    """Weights w (N,) such that w A is the clipped surrogate of the reward A, of ratios r (N,); differentiable in r.

    ========= ================================= ==========================================
    surrogate A >= 0                            A < 0
    ========= ================================= ==========================================
    "paper"   min(r, 1 + eps)                   max(r, 1 - eps): min(r A, clip(r) A)
    "code"    min(r, 1 + eps)                   min(r, 1 + eps): the lower bound is unused
    ========= ================================= ==========================================

    Args:
        ratio: r > 0.
        positive: (N,) bool, whether A >= 0; read by "paper" only.
        epsilon: eps > 0.

    >>> r, negative = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([False, False, False])
    >>> surrogate_weights(r, negative, 0.25, "paper").tolist(), surrogate_weights(r, negative, 0.25, "code").tolist()
    ([0.75, 1.0, 2.0], [0.5, 1.0, 1.25])
    """
    upper = ratio.clamp_max(1 + epsilon)
    return (
        upper if surrogate == "code" or positive is None else torch.where(positive, upper, ratio.clamp_min(1 - epsilon))
    )


def donsker_varadhan(real: Tensor, fake: Tensor) -> Tensor:
    """E f(x) - log E exp f(G(z)), a lower bound of KL(p_data || p_theta) in nats, of scores (N,) and (M,).

    >>> float(donsker_varadhan(torch.tensor([2.0, 4.0]), torch.zeros(5)))
    3.0
    """
    return mean_over_ranks(full_precision(real).mean()) - log_mean_exp(fake)


@torch.no_grad()
def weight_summary(real: Tensor, fake: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
    """What the discriminator's step logs of its scores and of the weights W (N,), over all processes.

    The Donsker-Varadhan value; the largest weight; the effective sample size as a share of the batch, 1 / mean W^2.

    >>> summary = weight_summary(torch.ones(2), torch.zeros(2), torch.tensor([0.0, 2.0]))
    >>> {name: float(value) for name, value in summary.items()}
    {'d_donsker_varadhan': 1.0, 'd_effective_share': 0.5, 'd_weight_max': 2.0}
    """
    summary = {"d_donsker_varadhan": donsker_varadhan(real, fake)}
    if weights is not None:
        summary["d_effective_share"] = 1 / mean_over_ranks(weights.square().mean())
        summary["d_weight_max"] = max_over_ranks(weights.max())
    return summary


@torch.no_grad()
def ratio_summary(ratio: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """What the generator's step logs of ratios r and surrogate weights w (N,): share clipped, quantiles of r.

    >>> r = torch.tensor([0.5, 1.0, 1.0, 2.0])
    >>> float(ratio_summary(r, r.clamp_max(1.5))["g_clipped"])
    0.25
    """
    ordered, last = ratio.flatten().sort().values, ratio.numel() - 1
    summary = {"g_clipped": (weights != ratio).to(ratio.dtype).mean()}
    for percent in (5, 50, 95):  # as torch.quantile has them (but for NaN), in a fraction of its time
        below, rest = divmod(percent * last, 100)
        q = ordered[below]
        summary[f"g_ratio_q{percent:02}"] = torch.lerp(q, ordered[below + 1], rest / 100) if rest else q
    return summary


def check_prc(ratio_clip: float | None, temperature: float, surrogate: str, c_steps: int) -> None:
    """Raises a ValueError that names the first argument out of its range; warns of a limit that limits little."""
    checks.positive(temperature=temperature, **checks.given(ratio_clip=ratio_clip))
    checks.one_of("surrogate", surrogate, get_args(Surrogate))
    checks.at_least_one(c_steps=c_steps)
    if ratio_clip is not None and ratio_clip > 1:
        warnings.warn(f"ratio_clip is {ratio_clip:g}: ratios are clipped at 1 + ratio_clip only.", stacklevel=3)


def reward(generator_loss: Callable[..., Tensor], fake: Tensor, real: Tensor | None = None) -> Tensor:
    """A_i (N,), the share of each fake score in minus the generator's loss times N, detached.

    The score itself for the Wasserstein and hinge losses, log s(f) for the non-saturating one.

    >>> from lightning_gans.functional.losses import wasserstein_g
    >>> reward(wasserstein_g, torch.tensor([1.0, -2.0])).tolist()
    [1.0, -2.0]
    """
    weight = torch.ones_like(fake.detach()).requires_grad_()
    with torch.enable_grad():
        loss = generator_loss(fake.detach(), None if real is None else real.detach(), fake_weight=weight)
        (slope,) = torch.autograd.grad(loss, weight)
    return -len(fake) * slope
