"""A discriminator of several samples at once (PacGAN, arXiv:1712.04086)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gans import checks


class Packed(nn.Module):
    """Scores packs of m samples, side by side along their first dimension (channels, or coordinates); all members have
    their pack's score, so that losses and callbacks need not know.

    Rows i, i + N/m, ... are a pack; N is filled up to a multiple of m by the first rows. A generator that makes few
    modes is told by packs that are too much alike. Per-sample penalties see m times the slope.

    Args:
        network: packs (N, m C, ...) to scores (N,), without labels.
        size: m >= 1.

    >>> net = Packed(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), 2)  # of points in two dimensions
    >>> scores = net(torch.randn(6, 2))
    >>> tuple(scores.shape), torch.equal(scores[:3], scores[3:])
    ((6,), True)
    """

    num_classes = None

    def __init__(self, network: nn.Module, size: int = 2) -> None:
        checks.at_least_one(size=size)
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """Samples (N, ...) to the scores (N,) of their packs, whose members come in an ``order`` (m,) of places."""
        n, m = len(x), self.size
        filled = torch.cat([x, x[torch.arange(-n % m, device=x.device) % n]]) if n % m else x
        members = filled.unflatten(0, (m, -1))
        members = members if order is None else members.index_select(0, order)
        scores: Tensor = self.network(torch.cat(members.unbind(0), 1)).flatten()
        return scores.repeat(m)[:n]
