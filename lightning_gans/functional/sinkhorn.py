"""Balanced codes by Sinkhorn's iteration (SwAV, arXiv:2006.09882)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_gans import checks


def sinkhorn_codes(scores: Tensor, epsilon: float = 0.05, tolerance: float = 1e-3, most: int = 1000) -> Tensor:
    r"""Soft codes (N, K), rows of sum 1 and columns of equal sum N / K, nearest to the scores.

    .. math:: \max_Q\ \langle Q, S \rangle + \epsilon H(Q), \qquad Q 1_K = 1_N, \qquad Q^T 1_N = \tfrac NK 1_K

    In the log domain, until no column's sum is off by more than ``tolerance`` of N / K: the paper's three iterations
    are far from balanced at small epsilon.

    Args:
        scores: (N, K).
        epsilon: > 0; small: codes are hard.
        tolerance: > 0.
        most: iterations at most.

    >>> codes = sinkhorn_codes(torch.tensor([[9.0, 0.0], [8.0, 0.0]]), epsilon=0.1)  # one each, though both like 0
    >>> codes.round().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    checks.positive(epsilon=epsilon, tolerance=tolerance)
    checks.at_least_one(most=most)
    if scores.dim() != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be (N, K) and not empty, got {tuple(scores.shape)}.")
    n, k = scores.shape
    log = (scores.double() / epsilon).log_softmax(1)
    for _ in range(most):
        columns = torch.logsumexp(log, 0) + math.log(k / n)
        if float(columns.exp().sub(1).abs().max()) <= tolerance:
            break
        log = (log - columns).log_softmax(1)
    return log.exp().to(scores.dtype)
