"""At which times a diffusion is trained: all alike, or those more often whose loss is large (arXiv:2102.09672)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LAST = 10  # losses of a time that count


class LossAwareTimes(nn.Module):
    r"""Probabilities of T times, :math:`.999\, w_t / \sum w + .001 / T` with :math:`w_t = \sqrt{E L_t^2}`.

    The mean is over the last 10 losses of a time; until each time has 10, all are alike. Buffers hold them, so that
    they are part of a checkpoint.

    >>> times = LossAwareTimes(2)
    >>> times.update(torch.tensor([0] * 10 + [1] * 10), torch.tensor([1.0] * 10 + [3.0] * 10))
    >>> [round(p, 3) for p in times.probabilities().tolist()]
    [0.25, 0.75]
    """

    losses: Tensor
    seen: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.zeros(steps, _LAST))
        self.register_buffer("seen", torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """(T,), of sum 1."""
        steps = len(self.seen)
        weights = self.losses.square().mean(1).sqrt()
        aware = 0.999 * weights / weights.sum().clamp_min(1e-30) + 0.001 / steps
        return torch.where((self.seen >= _LAST).all(), aware, torch.full_like(aware, 1 / steps))

    def update(self, times: Tensor, losses: Tensor) -> None:
        """Take the losses (N,) at times (N,), of all ranks, in their order."""
        order = times.argsort(stable=True)
        t, new = times[order], losses[order].to(self.losses)
        many = times.bincount(minlength=len(self.seen))
        place = torch.arange(len(t), device=t.device) - (many.cumsum(0) - many)[t]
        last = place >= many[t] - _LAST  # of more than 10 at once the last
        self.losses[t[last], (self.seen[t] + place)[last] % _LAST] = new[last]
        self.seen += many
