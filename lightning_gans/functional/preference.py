"""A reward that is learned from preferences (arXiv:2009.01325)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_gans.functional.numerics import full_precision


def preference_loss(preferred: Tensor, other: Tensor) -> Tensor:
    r"""Mean of :math:`-\log \sigma(r_w - r_l)` over pairs of rewards (N,): that the first of a pair is preferred.

    >>> import torch
    >>> round(float(preference_loss(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1e3]))), 3)  # (log 2 + 1000) / 2
    500.347
    """
    return F.softplus(full_precision(other) - full_precision(preferred)).mean()
