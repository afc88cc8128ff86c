"""Goals of a manager, directions in which a worker is to move features, and how far it has (arXiv:1709.08624)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gans.functional.numerics import full_precision

_STILL = 1e-6  # a shorter way counts as none: it may be rounding, whose direction is the processor's


def goal_sums(goals: Tensor, horizon: int) -> Tensor:
    r"""Sums of the last goals at each place, :math:`\sum_{i=0}^{c-1} g_{t-i}`, of those that are.

    Args:
        goals: g (N, T, F).
        horizon: c.

    >>> goal_sums(torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]]), 3).flatten().tolist()
    [1.0, 11.0, 111.0, 1110.0]
    """
    return F.pad(goals, (0, 0, horizon - 1, 0)).unfold(1, horizon, 1).sum(-1)


def goal_cosines(features: Tensor, goals: Tensor, horizon: int) -> Tensor:
    r"""Whether features went where each c-th goal had pointed, :math:`\cos(f_{t+c} - f_t, g_t)`, t = 0, c, 2c, ...

    Args:
        features: f (N, T + 1, F), of texts of which 0, 1, ..., T tokens are written.
        goals: g (N, T, F), at the first T of these places.
        horizon: c; the last goal may have less, up to the end of the text.

    Returns:
        (N, T / c), rounded up.

    >>> f = torch.tensor([[[0.0, 0.0], [9.0, 9.0], [1.0, 0.0], [1.0, 2.0]]])
    >>> g = torch.tensor([[[1.0, 0.0], [9.0, 9.0], [0.0, -1.0]]])
    >>> goal_cosines(f, g, 2).tolist()
    [[1.0, -1.0]]
    """
    starts = torch.arange(0, goals.shape[1], horizon, device=goals.device)
    ends = (starts + horizon).clamp(max=goals.shape[1])
    f = full_precision(features)
    return F.cosine_similarity(f[:, ends] - f[:, starts], full_precision(goals[:, starts]), -1, _STILL)


def intrinsic_rewards(features: Tensor, goals: Tensor, horizon: int) -> Tensor:
    r"""A worker's reward of each token, :math:`\frac1c \sum_{i=1}^c \cos(f_t - f_{t-i}, g_{t-i})`.

    Before the c-th token it is the mean over those goals that there are.

    Args:
        features: f (N, T + 1, F), of texts of which 0, 1, ..., T tokens are written.
        goals: g (N, T, F), at the first T of these places.
        horizon: c.

    Returns:
        (N, T), of the tokens 1, ..., T.

    >>> f = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    >>> g = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
    >>> intrinsic_rewards(f, g, 1).tolist(), intrinsic_rewards(f, g, 2)[0, 1].mul(4).add(2).square().round().item()
    ([[1.0, -1.0]], 2.0)
    """
    f, g = full_precision(features), full_precision(goals)
    length = g.shape[1]
    total = f.new_zeros(f.shape[0], length)
    for i in range(1, min(horizon, length) + 1):
        cosines = F.cosine_similarity(f[:, i:] - f[:, :-i], g[:, : length - i + 1], -1, _STILL)
        total = total + F.pad(cosines, (i - 1, 0))
    return total / torch.arange(1, length + 1, device=f.device).clamp(max=horizon)
