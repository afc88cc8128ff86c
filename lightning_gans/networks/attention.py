"""Attention for every network: fused, by plain operations, which can be penalised, or linear in the number of tokens.

Fused kernels (flash, memory efficient, cuDNN) have no second derivative, which a penalty on the input gradient needs.
``functional.input_gradient`` switches them off while it calls a critic, so that attention of any make, torch's own
modules included, works under a penalty. `Attention` looks at the same switch.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.random_features import RandomFeatures

Kernel = Literal["auto", "fused", "explicit", "favor"]
Locality = Literal["none", "raster", "window"]
MANY = 256  # tokens from which on the fused kernel is the faster one on a CPU (docs/results/transformers.md)


class Attention(nn.Module):
    r"""Each token takes a mean of the values of others, weighed by how its query fits their keys, in several heads.

    .. math:: \mathrm{softmax}\Big(\frac{q k^\top}{\sqrt d} + b\Big) v

    with d the width of a head and b what is learned or given of pairs of places. Of several forms of the same formula:

    ========== =================================================================================================
    `kernel`   how it is computed
    ========== =================================================================================================
    "auto"     fused if that is faster: on a GPU, and on a CPU from 256 keys on without a learned b; explicitly in
               penalties on the input gradient and wherever else it is differentiated twice
    "fused"    ``F.scaled_dot_product_attention``; refused in a penalised critic
    "explicit" matrix products and a softmax, q scaled first
    "favor"    random features in place of the softmax, at a cost linear in the number of tokens: an approximation, see
               `RandomFeatures`; without b
    ========== =================================================================================================

    Args:
        width: of the tokens, and of the result.
        heads: their number divides ``inner``.
        kernel: see above.
        context: width of the tokens that are attended to, if they are others.
        inner: width of all heads together; None: ``width``.
        qkv_bias: queries, keys and values have biases.
        grid: (H, W) of the tokens' places, in raster order; needed by ``relative`` and by a locality of "window".
        relative: learn a number for each head and each displacement on the grid, a table of (2 H - 1)(2 W - 1) rows
            (its part of b starts as a normal of .02, cut at 2).
        locality: tokens see those at most ``reach`` away only: "raster", in raster order |i - j|, a band, as in
            TransGAN's first code; "window", in both directions on the grid, as its paper draws it.
        reach: how far; a buffer, which a technique may move. Infinity: no limit.
        qk_norm: queries and keys have length 1, and q k^T is multiplied by a learned number for each head, 2 at first,
            in place of 1 / sqrt(d). It keeps the error of "favor" small.
        noise: in training add to each token a number N(0, 1) times a learned one, 0 at first, the same for all its
            channels (TransGAN's discriminator).
        features: their number m, of "favor"; None: d ln d.
        redraw_every: calls in training mode from one draw of them to the next.

    Raises:
        ValueError: for heads that do not divide the width, for a grid that is missing, and for b with "favor". When
            called, for tokens of another number or width, for masks of another size, and for "fused" where it is
            differentiated twice.

    >>> tokens = torch.randn(2, 16, 8)
    >>> Attention(8, 2, grid=(4, 4), relative=True)(tokens).shape
    torch.Size([2, 16, 8])
    """

    reach: Tensor | None

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        kernel: Kernel = "auto",
        context: int | None = None,
        inner: int | None = None,
        qkv_bias: bool = False,
        grid: tuple[int, int] | None = None,
        relative: bool = False,
        locality: Locality = "none",
        reach: float = math.inf,
        qk_norm: bool = False,
        noise: bool = False,
        features: int | None = None,
        redraw_every: int = 1000,
    ) -> None:
        checks.sizes(context=context, grid=grid, features=features, redraw_every=redraw_every)
        super().__init__()
        inner = width if inner is None else inner
        checks.at_least_one(width=width, heads=heads, inner=inner)
        checks.one_of("kernel", kernel, get_args(Kernel))
        checks.one_of("locality", locality, get_args(Locality))
        checks.not_negative(**checks.given(reach=None if reach == math.inf else reach))
        if inner % heads:
            raise ValueError(f"heads must divide the width of {inner}, got {heads}.")
        if grid is None and (relative or locality == "window"):
            raise ValueError("grid must be (H, W) with relative places or a locality of 'window', got None.")
        if kernel == "favor" and (relative or locality != "none"):
            raise ValueError("relative and locality must be off with kernel='favor', which has no place for them.")
        self.width, self.heads, self.kernel, self.context = width, heads, kernel, context
        self.grid, self.locality, d = grid, locality, inner // heads
        parts = (inner,) if context else (3 * inner,)
        self.qkv = nn.Linear(width, *parts, bias=qkv_bias)
        self.kv = nn.Linear(context, 2 * inner, bias=qkv_bias) if context else None
        self.project = nn.Linear(inner, width)
        self.table = self.strength = self.temperature = None
        if relative and grid is not None:
            self.table = nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1), heads))
            nn.init.trunc_normal_(self.table, std=0.02)
        if noise:
            self.strength = nn.Parameter(torch.zeros(1))
        if qk_norm:
            self.temperature = nn.Parameter(torch.full((heads, 1, 1), 2.0))
        self.register_buffer("reach", None if locality == "none" else torch.tensor(float(reach)))
        self.features = RandomFeatures(d, features, redraw_every) if kernel == "favor" else None

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Tokens (N, L, width) to as many of the same width.

        Args:
            x: the tokens that ask.
            context: those that answer (N, S, context), if they are others.
            mask: what is added to the logits, or whether a token sees another (each one at least), of a shape that
                broadcasts to (N, heads, L, S).
        """
        q, k, v = self._parts(x, context)
        if self.features is not None:
            if mask is not None:
                raise ValueError("mask must be None with kernel='favor', which has no place for it, got one.")
            y = self.features(q, k, v)
        else:
            y = self.attend(q, k, v, self.bias(q, k, mask))
        return self.project(y.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """What each token takes of each other, (N, heads, L, S), each row of sum 1; of the arguments of `forward`.

        With "favor", whose product never makes them, those of the softmax that it stands for.
        """
        q, k, _ = self._parts(x, context)
        logits, bias = q @ k.transpose(2, 3), self.bias(q, k, mask)
        return (logits if bias is None else logits + bias).softmax(3)

    def _parts(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        """Queries, scaled, keys and values, each (N, heads, tokens, d)."""
        if x.ndim != 3 or x.shape[2] != self.width:
            raise ValueError(f"Attention takes tokens (N, L, {self.width}), got {tuple(x.shape)}.")
        if (context is None) != (self.context is None) or (
            context is not None and (context.ndim != 3 or context.shape[2] != self.context)
        ):
            wanted = "no context" if self.context is None else f"a context (N, S, {self.context})"
            raise ValueError(f"Attention takes {wanted}, got {None if context is None else tuple(context.shape)}.")
        if self.strength is not None and self.training:
            x = x + self.strength * torch.randn(*x.shape[:2], 1, dtype=x.dtype, device=x.device)
        if self.kv is None:
            parts = self.qkv(x).chunk(3, 2)
        else:
            parts = (self.qkv(x), *self.kv(context).chunk(2, 2))
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        if self.temperature is None:
            q = q / math.sqrt(q.shape[3])
        else:
            q, k = _unit(q) * self.temperature, _unit(k)
        return [q, k, v]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """The mean of v, by the kernel that suits; q is scaled already."""
        if self._fused(q, k, bias):
            return F.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
        logits = q @ k.transpose(2, 3)
        if bias is not None:
            logits = logits + bias
        return logits.softmax(3).to(v.dtype) @ v

    @property
    def once_differentiable(self) -> bool:
        """Whether it has no second derivative, which ``functional.input_gradient`` asks."""
        return self.kernel == "fused"

    def _fused(self, q: Tensor, k: Tensor, bias: Tensor | None) -> bool:
        # The switch is of the CPU's kernels too; compiled code is fused by the compiler.
        if self.kernel != "auto" or torch.compiler.is_compiling() or not torch.backends.cuda.flash_sdp_enabled():
            return self.kernel == "fused"
        learned = bias is not None and bias.requires_grad and torch.is_grad_enabled()
        return q.device.type != "cpu" or (k.shape[2] >= MANY and not learned)

    def bias(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
        """What is added to the logits of queries (N, heads, L, d) and keys (N, heads, S, d); None for nothing."""
        length, others, bias = q.shape[2], k.shape[2], mask
        if mask is not None:
            whole = (max(len(q), len(k)), self.heads, length, others)
            if mask.ndim > 4 or any(m not in (1, n) for m, n in zip(mask.shape[::-1], whole[::-1])):
                raise ValueError(f"mask must broadcast to {whole}, got {tuple(mask.shape)}.")
            if mask.dtype == torch.bool:
                bias = torch.zeros_like(mask, dtype=self.project.weight.dtype).masked_fill(~mask, -math.inf)
        if self.grid is not None and not length == others == math.prod(self.grid):
            raise ValueError(
                f"Attention takes {math.prod(self.grid)} tokens, one for each place of its grid, got {length}."
            )
        if self.table is not None:
            learned = displaced(self.table, self.grid or (0, 0))
            bias = learned if bias is None else learned + bias
        if self.reach is not None:
            if length != others:
                raise ValueError(
                    f"Attention of a locality takes as many tokens of a context as ask, {length}, got {others}."
                )
            far = self.distance(length, self.reach.device) > self.reach
            start = self.reach.new_zeros((), dtype=self.project.weight.dtype) if bias is None else bias
            bias = start.masked_fill(far, -math.inf)
        return bias

    def distance(self, length: int, device: torch.device) -> Tensor:
        """From each token to each, (L, L), as the locality counts it."""
        place = torch.arange(length, device=device)
        if self.locality == "raster" or self.grid is None:
            return (place[:, None] - place).abs()
        rows, columns = place // self.grid[1], place % self.grid[1]
        return torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())


def displaced(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """(heads, L, L) of a table by displacement ((2 H - 1)(2 W - 1), heads): from i to j that of (y_i - y_j, x_i - x_j).

    >>> displaced(torch.tensor([[1.0], [2.0], [3.0]]), (1, 2)).tolist()
    [[[2.0, 1.0], [3.0, 2.0]]]
    """
    height, width = grid
    pairs = table.view(2 * height - 1, 2 * width - 1, -1).unfold(0, height, 1).unfold(1, width, 1)
    return pairs.flip(3, 4).permute(2, 0, 1, 3, 4).reshape(-1, height * width, height * width)


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1; of none, none."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
