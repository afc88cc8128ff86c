"""Softmax attention by random features (FAVOR+; Choromanski et al. 2020, arXiv:2009.14794)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional import numerics


class RandomFeatures(nn.Module):
    r"""Attention whose weights are products of positive features, at a cost linear in the number of tokens.

    .. math:: \varphi(x) = \frac{1}{\sqrt m} \exp\Big(W x - \frac{\|x\|^2}{2}\Big), \qquad
              E\,\varphi(q)^\top \varphi(k) = e^{q^\top k}, \qquad
              y = \frac{\varphi(q)\,(\varphi(k)^\top v)}{\varphi(q)\,(\varphi(k)^\top 1)}

    The m rows of W are normal vectors, orthogonal in blocks of d. They are a buffer, drawn anew in training, after
    every so many calls, by a hash of a seed and the number of the draw: the same on all ranks, in a CUDA graph and
    after a resume. In evaluation mode they stay.

    The largest exponent of each feature over the keys goes to the queries, and of these the largest of each query is
    taken away. Both cancel exactly, and the denominator is at least 1: no epsilon, which would bias.

    The error falls as m^(-1/2) and grows fast with the lengths of q and k: `Attention` with ``qk_norm`` bounds them.

    Args:
        width: d of a head.
        features: m >= 1; None: d ln d.
        redraw_every: calls in training mode from one draw to the next, >= 1.

    >>> q, k, v = torch.randn(3, 1, 2, 6, 8).mul(0.3)
    >>> exact = (q @ k.transpose(2, 3)).softmax(3) @ v
    >>> bool((RandomFeatures(8, 4096)(q, k, v) - exact).abs().max() < 0.05)
    True
    """

    counts = True  # its calls
    projection: Tensor
    seed: Tensor
    calls: Tensor

    def __init__(self, width: int, features: int | None = None, redraw_every: int = 1000) -> None:
        super().__init__()
        features = max(1, int(width * math.log(width))) if features is None else features
        checks.at_least_one(features=features, redraw_every=redraw_every)
        self.redraw_every = redraw_every
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("projection", orthogonal(features, width, self.seed).to(torch.get_default_dtype()))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(..., L, d), (..., S, d), (..., S, e) to (..., L, e), the softmax of q k^T times v; q is scaled already."""
        w = (self._drawn() if self.training else self.projection).to(q.dtype)
        on_q, on_k = q @ w.t(), k @ w.t() - k.square().sum(-1, keepdim=True) / 2  # |q|^2 cancels
        most = on_k.detach().amax(-2, keepdim=True)
        on_q = on_q + most
        phi_q = (on_q - on_q.detach().amax(-1, keepdim=True)).exp()
        phi_k = (on_k - most).exp()
        below = phi_q @ phi_k.sum(-2).unsqueeze(-1)
        return phi_q @ (phi_k.transpose(-2, -1) @ v) / below

    @torch.no_grad()
    def _drawn(self) -> Tensor:
        """The rows for this call, drawn anew if it is time; a copy, since others may still be in use."""
        self.calls += 1
        due = self.calls % self.redraw_every == 0
        if self.calls.device.type not in numerics.LOOKED_AT or due:  # a GPU is not asked: it draws each time
            drawn = orthogonal(len(self.projection), self.projection.shape[1], self.seed + self.calls)
            self.projection.copy_(torch.where(due, drawn.to(self.projection.dtype), self.projection))
        return self.projection.clone()


def orthogonal(rows: int, width: int, seed: Tensor) -> Tensor:
    """Normal vectors (rows, width), orthogonal in blocks of ``width`` and independent otherwise, a function of a seed.

    A block is Q of a square normal matrix, by a Cholesky factor of its Gram matrix, whose positive diagonal makes Q
    uniform, times lengths of other normal vectors.

    >>> w = orthogonal(6, 4, torch.tensor(0))
    >>> bool(((w[:4] @ w[:4].t()).fill_diagonal_(0).abs() < 1e-12).all()), w.shape
    (True, torch.Size([6, 4]))
    """
    blocks = -(-rows // width)
    drawn = normal(2 * blocks * width * width, seed).view(2, blocks, width, width)
    lower = torch.linalg.cholesky_ex(drawn[0] @ drawn[0].transpose(1, 2)).L
    q = torch.linalg.solve_triangular(lower, drawn[0], upper=False)
    return (q * drawn[1].norm(dim=2, keepdim=True)).flatten(0, 1)[:rows]


def normal(n: int, seed: Tensor) -> Tensor:
    """n standard normal numbers in float64, a function of an integer seed, on its device.

    >>> bool(torch.equal(normal(3, torch.tensor(5)), normal(4, torch.tensor(5))[:3]))
    True
    """
    pairs = torch.arange(2 * (-(-n // 2)), device=seed.device) + _mixed(seed)
    u = (_mixed(pairs) >> 11 & 2**52 - 1).double().add_(0.5).mul_(2.0**-52).view(2, -1)
    radius, angle = (-2 * u[0].log()).sqrt(), 2 * math.pi * u[1]
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:n]


def _mixed(x: Tensor) -> Tensor:
    """The bits of integers mixed (as SplitMix64 does, with signed numbers)."""
    x = x * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return x ^ (x >> 31)
