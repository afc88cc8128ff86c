"""Robust optimal transport (Balaji et al. 2020, arXiv:2010.05862): weights of samples in a chi-square ball."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import max_over_ranks, mean_over_ranks


def _score(x: Tensor) -> Tensor:
    return x


def _hinge(x: Tensor) -> Tensor:
    return -F.relu(1 - x)


# d_i, what a real sample of this score contributes to the value that the discriminator maximises.
VALUES: dict[str, Callable[[Tensor], Tensor]] = {"wasserstein": _score, "non_saturating": F.logsigmoid, "hinge": _hinge}


def robust_weights(values: Tensor, rho: float, base: Tensor | None = None) -> Tensor:
    """The weights w (N,) that make E w d least under w >= 0, E w = 1 and E (w - 1)^2 / 2 <= rho; without gradient.

    The second-order cone programme of the paper's discrete form, solved in closed form. At the optimum
    w_i = max(0, a - b d_i), so that what is weighted at all are the samples of the k smallest values. With their
    share P, mean m and standard deviation s, w_i = 1/P - sqrt((1 + 2 rho - 1/P) / P) (d_i - m) / s there, and the k
    that gives the least mean is found among all N after one sort. Where no weight reaches 0 this is
    w_i = 1 - sqrt(2 rho) (d_i - mean d) / std d, and the least mean is mean d - sqrt(2 rho) std d.

    Args:
        values: d (N,), such as the critic's scores; the largest are weighted least.
        rho: radius of the ball, >= 0; 0 gives w = 1.
        base: (N,) weights >= 0 of the samples under the expectation, such as importance weights; None means equal ones.
            What has none under it gets none.

    Raises:
        ValueError: for a rho below 0 or not finite, no values or such as are not finite, or a base of another shape.

    >>> [round(w, 4) for w in robust_weights(torch.tensor([0.0, 1.0]), rho=0.125).tolist()]  # 1 +- sqrt(2 rho)
    [1.5, 0.5]
    """
    checks.not_negative(rho=rho)
    if values.dim() != 1 or len(values) == 0:
        raise ValueError(f"values must be a number per sample, (N,), got shape {tuple(values.shape)}.")
    if not bool(values.isfinite().all()):
        raise ValueError(f"values must be finite numbers, got {int((~values.isfinite()).sum())} that are not.")
    if base is not None and base.shape != values.shape:
        raise ValueError(f"base must be one weight per value, {tuple(values.shape)}, got {tuple(base.shape)}.")
    if base is not None and not bool((base > 0).any()):
        raise ValueError("base must have a weight above 0, got none.")
    if base is not None and bool((base == 0).any()):
        result = torch.zeros_like(values, dtype=torch.promote_types(values.dtype, torch.float32), requires_grad=False)
        result[base != 0] = robust_weights(values[base != 0], rho, base[base != 0])
        return result
    d, order = values.detach().double().sort(stable=True)
    d = (d - d[0]) / (d[-1] - d[0]).clamp_min(torch.finfo(d.dtype).tiny)
    p = torch.ones_like(d) if base is None else base.detach().double()[order]
    total = p.cumsum(0)
    p, share = p / total[-1], total / total[-1]
    mean = (p * d).cumsum(0) / share
    std = ((p * d.square()).cumsum(0) / share - mean.square()).clamp_min(0).sqrt()
    room = 1 + 2 * rho - 1 / share  # what the ball leaves for weights that differ among the first k
    spread = (room.clamp_min(0) / share).sqrt()
    smallest = 1 / share - spread * torch.where(std > 0, (d - mean) / std, 0)
    least = torch.where((room >= -1e-9) & (smallest >= -1e-9), mean - share * spread * std, math.inf)
    k = int((least <= least.min() + 1e-12).nonzero()[-1])
    p, d = p[: k + 1], d[: k + 1]
    off = d - (p * d).sum() / share[k]
    scale = ((p * off.square()).sum() / share[k]).sqrt()  # in two passes, which loses no digits
    w = (1 / share[k] - spread[k] * (off / scale if scale > 0 else 0 * off)).clamp_min(0)
    result = torch.zeros_like(total)
    result[order[: k + 1]] = w / (p * w).sum()
    return result.to(torch.promote_types(values.dtype, torch.float32))


def mean(x: Tensor, base: Tensor | None = None) -> Tensor:
    """Mean of base * x (N,), over this process' batch; ``base`` has mean one in expectation, None means all one.

    >>> float(mean(torch.tensor([1.0, 3.0]), base=torch.tensor([0.5, 1.5])))
    2.5
    """
    return (x if base is None else base * x).mean()


def softplus_weights(logits: Tensor, base: Tensor | None = None) -> Tensor:
    """Weights softplus(l_i) / E softplus(l) (N,) of a network's outputs l (N,), over the batch of all processes.

    E is the mean with the samples' own weights ``base``, if any. Not negative, and of mean one whatever the network:
    where all logits are far below 0 softplus(l) is exp(l), and they count by their distance from the largest.

    >>> softplus_weights(torch.tensor([0.0, 0.0])).tolist()
    [1.0, 1.0]
    >>> [round(w, 4) for w in softplus_weights(torch.tensor([1.0, 3.0]).log() - 99).tolist()]  # exp so far below 0
    [0.5, 1.5]
    """
    logits = full_precision(logits)
    top = max_over_ranks(logits.max())
    positive = torch.where(top > -40, F.softplus(logits), (logits - top).exp())
    level = mean_over_ranks(mean(positive, base))
    return positive / torch.where(level > 0, level, 1)  # 0 where all samples weigh nothing


def divergence(weights: Tensor, base: Tensor | None = None) -> Tensor:
    """E (w - 1)^2 / 2 of weights w (N,), over the batch of all processes.

    >>> float(divergence(torch.tensor([1.5, 0.5])))
    0.125
    """
    return mean_over_ranks(mean((weights - 1).square(), base)) / 2


def rho_for_share(share: float) -> float:
    """The least rho at which a share a of outliers can get weight 0 and the rest 1/(1 - a): a / (2 (1 - a)).

    0.026316 for five per cent. A ValueError unless 0 <= share < 1.

    >>> rho_for_share(0.5)
    0.5
    """
    checks.below_one(share=share)
    return share / (2 * (1 - share))


def outlier_share(scores: Tensor, clean: Tensor, level: float = 0.95) -> float:
    """The share of outliers in the data, from the scores of one critic on them and on samples known to be clean.

    To calibrate rho where the share is unknown: train with ``rho=0``, score the training data (N,) and a set of clean
    samples (M,) that was not trained on, and take ``rho_for_share(outlier_share(scores, clean))``. A share 1 - level of
    clean samples lies above the ``level``-quantile q of ``clean``, so that, if all outliers lie above it, the share
    a = (P(score > q) - (1 - level)) / level. Outliers below q are missed: the critic must tell them.

    Args:
        scores: of the training data, high where the generator does not go.
        clean: of the clean samples.
        level: in (0, 1); the standard error is about sqrt((1 - level) / level (1/N + 1/M)) where there are no outliers.

    Raises:
        ValueError: for a level out of range, or no scores.

    >>> clean = torch.arange(100)
    >>> round(outlier_share(torch.cat([clean, torch.full((100,), 1000)]), clean), 4)
    0.5
    """
    checks.inside(level=level)
    for name, given in (("scores", scores), ("clean", clean)):
        if given.numel() == 0:
            raise ValueError(f"{name} must have at least one score, got none.")
    ranked = clean.double().flatten().sort().values
    threshold = ranked[math.ceil(level * len(ranked)) - 1]
    above = float((scores.double() > threshold).double().mean())
    return max(0.0, (above - (1 - level)) / level)
