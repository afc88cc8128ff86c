"""SeqGAN's discriminator (Yu et al. 2017, arXiv:1609.05473)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks

KERNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)
FILTERS = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160)


class SeqGANDiscriminator(nn.Module):
    r"""A convolutional network that tells texts apart, of tokens (N, T) int64 or of one-hot vectors (N, T, V).

    Each token is a vector; convolutions of several widths, ReLU and the maximum over places make features c; then

    .. math:: h = g * \mathrm{relu}(W c + b) + (1 - g) * c, \qquad g = \sigma(W_g c + b_g), \qquad
              \mathrm{score} = (W_s h + b_s)_1 - (W_s h + b_s)_0

    with dropout before the last layer: the score is the logit of "real", of two. Tokens and their one-hot vectors have
    the same score; tokens cost a look-up in place of a product with V rows. The last layer is ``score``, whose weights
    `SeqGAN` keeps small.

    Departures: the highway's matrices begin by Glorot's rule.

    Args:
        shape: (T, V), length and number of symbols.
        embedding: width of a token's vector.
        kernels: widths of the convolutions; those above T are left out.
        filters: of each width, or one number for all.
        dropout: share that is dropped.

    Raises:
        ValueError: for sizes out of range, for lists of different lengths, and for texts shorter than all kernels.

    >>> critic = SeqGANDiscriminator((20, 5000))
    >>> critic.score.in_features, sum(p.numel() for p in critic.parameters())
    (1720, 7045402)
    >>> tokens = torch.randint(5000, (2, 20))
    >>> critic(tokens).shape, critic(F.one_hot(tokens, 5000).float()).shape
    (torch.Size([2]), torch.Size([2]))
    """

    def __init__(
        self,
        shape: tuple[int, int] = (32, 27),
        embedding: int = 64,
        kernels: Sequence[int] = KERNELS,
        filters: int | Sequence[int] = FILTERS,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"shape must be (T, V), length and number of symbols, got {tuple(shape)}.")
        checks.sizes(embedding=embedding, kernels=tuple(kernels), filters=filters)
        many = [filters] * len(kernels) if isinstance(filters, int) else list(filters)
        if len(many) != len(kernels):
            raise ValueError(f"filters must be one number, or one for each of {len(kernels)} kernels, got {len(many)}.")
        checks.below_one(dropout=dropout)
        sizes = [(k, n) for k, n in zip(kernels, many) if k <= shape[0]]
        if not sizes:
            raise ValueError(f"kernels must hold one of at most {shape[0]}, the length of a text, got {(*kernels,)}.")
        self.length, self.vocabulary_size = shape
        self.embedding = nn.Embedding(shape[1], embedding)
        self.convolutions = nn.ModuleList([nn.Conv1d(embedding, n, k) for k, n in sizes])
        size = sum(n for _, n in sizes)
        self.lifted, self.gate = nn.Linear(size, size), nn.Linear(size, size)
        self.dropout, self.score = nn.Dropout(dropout), nn.Linear(size, 2)
        nn.init.uniform_(self.embedding.weight, -1, 1)
        for layer in (*self.convolutions, self.score):
            nn.init.trunc_normal_(layer.get_parameter("weight"), std=0.1, a=-0.2, b=0.2)
            nn.init.constant_(layer.get_parameter("bias"), 0.1)
        for linear in (self.lifted, self.gate):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def features(self, x: Tensor) -> Tensor:
        """What scores are linear functions of, h (N, F); where no token is yet, -1 or a vector of zeros, it reads 0."""
        if x.is_floating_point():
            embedded = x @ self.embedding.weight
        else:
            embedded = self.embedding(x.clamp(min=0)) * (x >= 0)[..., None]
        return self._highway([conv(embedded.transpose(1, 2)).amax(-1) for conv in self.convolutions])

    def _highway(self, maxima: Sequence[Tensor]) -> Tensor:
        features = F.relu(torch.cat(list(maxima), 1))
        gate = self.gate(features).sigmoid()
        return gate * F.relu(self.lifted(features)) + (1 - gate) * features

    def read_on(self, token: Tensor, t: int, state: Any = None) -> tuple[Tensor, Any]:
        """:meth:`features` (N, F) of texts whose last token, at place t, is ``token`` (N,), and the next state.

        The state behind the tokens before, None at t = 0, is of each convolution the k windows that were read into
        last, and the largest of those that are complete: so a token costs k products, whatever was read before.
        """
        x, convolutions, maxima, after = self.embedding(token), cast(Any, self.convolutions), [], []
        for i, conv in enumerate(convolutions):
            weight, bias, last = conv.weight.flip(2).permute(2, 0, 1), conv.bias, self.length - conv.kernel_size[0]
            nothing = bias.new_full((len(token), len(weight), len(bias)), -math.inf)
            opened, done = (nothing, nothing[:, 0]) if state is None else state[i]
            new = bias.expand_as(nothing)[:, :1] if t <= last else nothing[:, :1]
            opened = torch.cat([opened[:, 1:], new], 1) + F.linear(x, weight.flatten(0, 1)).view_as(nothing)
            done = torch.maximum(done, opened[:, 0])
            most = torch.maximum(done, opened.amax(1))
            maxima.append(torch.maximum(most, bias) if t < last else most)
            after.append((opened, done))
        return self._highway(maxima), after

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,)."""
        logits = self.score(self.dropout(self.features(x)))
        return logits[:, 1] - logits[:, 0]
