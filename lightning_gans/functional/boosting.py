"""Weights of training items for the next component of a mixture, and densities that are products.

AdaGAN (arXiv:1701.02386): the next component Q gets weight b in (1 - b) P + b Q, and is trained on the data by weights
that are large where h = dP / dP_data is small. Multiplicative boosting (arXiv:1702.08484): a model's density is
multiplied by powers of estimated ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_gans import checks

Beta = float | Literal["uniform"]


def step_size(beta: Beta, components: int) -> float:
    """b, the weight of a component that joins ``components`` others: a constant, or 1 / (components + 1), "uniform".

    >>> step_size("uniform", 3), step_size(0.3, 3)
    (0.25, 0.3)
    """
    if beta == "uniform":
        return 1 / (components + 1)
    checks.each({"beta": beta}, "'uniform' or in (0, 1)", lambda beta: 0 < beta < 1)
    return beta


def ratio_of(logits: Tensor, largest: float = 15.0) -> Tensor:
    """h = dP / dP_data = (1 - C) / C = exp(-logit) of a classifier C, label 1 = data; within exp(+-largest).

    >>> [round(h, 4) for h in ratio_of(torch.tensor([1.0, 4.0]).log()).tolist()]
    [1.0, 0.25]
    """
    return torch.exp(-logits.double().clamp(-largest, largest))


def star_weights(h: Tensor, b: float) -> Tensor:
    """w_i = (lambda - (1 - b) h_i)_+ / (N b), of sum 1: the best next component when h (N,) is exact.

    lambda is found exactly: it is one of N candidates, one for each number of items with a weight.

    >>> h = torch.tensor([0.5, 1.5])
    >>> w = star_weights(h, b=0.5)
    >>> w.tolist(), (0.5 * h + 0.5 * 2 * w).tolist()  # the mixture is the data's distribution
    ([0.75, 0.25], [1.0, 1.0])
    """
    h = _checked(h, b)
    cost = (1 - b) * h.sort().values
    k = torch.arange(1, len(h) + 1, device=h.device)
    levels = (b * len(h) + cost.cumsum(0)) / k
    after = torch.cat([cost[1:], cost.new_full((1,), math.inf)])
    level = levels[int((levels <= after).int().argmax())]
    return _normalised((level - (1 - b) * h).clamp_min(0))


def dagger_weights(h: Tensor, b: float) -> Tensor:
    """w_i = (1 - lambda (1 - b) h_i)_+ / (N b), of sum 1: the same for the other f-divergences.

    Where a share of b or more of the items has h = 0, their weights are equal and all others 0, the limit.

    >>> dagger_weights(torch.tensor([0.5, 1.5]), b=0.5).tolist()
    [0.75, 0.25]
    >>> dagger_weights(torch.tensor([0.0, 0.0, 3.0]), b=0.5).tolist()
    [0.5, 0.5, 0.0]
    """
    h = _checked(h, b)
    if int((h == 0).sum()) >= b * len(h):
        return _normalised((h == 0).double())
    cost = (1 - b) * h.sort().values
    k = torch.arange(1, len(h) + 1, device=h.device)
    levels = (k - b * len(h)) / cost.cumsum(0).clamp_min(torch.finfo(h.dtype).tiny)
    after = torch.cat([cost[1:], cost.new_full((1,), math.inf)])
    level = levels[int(((levels >= 0) & (after >= 1 / levels)).int().argmax())]
    return _normalised((1 - level * (1 - b) * h).clamp_min(0))


def topk_weights(h: Tensor, b: float = 0.5) -> Tensor:
    """Equal weights, of sum 1, for the share ``b`` of the items with the smallest h, at least one.

    >>> topk_weights(torch.tensor([3.0, 1.0, 2.0, 0.0])).tolist()
    [0.0, 0.5, 0.0, 0.5]
    """
    h = _checked(h, b)
    weights = torch.zeros_like(h)
    weights[h.argsort(stable=True)[: max(1, round(b * len(h)))]] = 1
    return _normalised(weights)


BOOSTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "star": star_weights,
    "dagger": dagger_weights,
    "topk": topk_weights,
}


def _checked(h: Tensor, b: float) -> Tensor:
    if h.dim() != 1 or len(h) == 0 or not bool((h >= 0).all()) or not bool(h.isfinite().all()):
        raise ValueError(f"h must be a row of finite numbers >= 0, got shape {tuple(h.shape)} with minimum "
                         f"{float(h.min()) if h.numel() else math.nan:g}.")  # fmt: skip
    checks.up_to_one(b=b)
    return h.double()


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum()
