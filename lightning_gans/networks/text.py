"""Residual networks of one dimension for sequences of symbols, as in the WGAN-GP paper (arXiv:1704.00028)."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.text import gumbel, relax, tempered


class _Block(nn.Module):
    """h + 0.3 conv(relu(conv(relu(h)))), the length unchanged."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(width, width, kernel, padding=kernel // 2)

    def forward(self, h: Tensor) -> Tensor:
        return h + 0.3 * self.second(F.relu(self.first(F.relu(h))))


def _checked(shape: tuple[int, int], **sizes: int) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"shape must be (T, V), length and number of symbols, got {tuple(shape)}.")
    checks.at_least_one(length=shape[0], symbols=shape[1], **sizes)
    if sizes["kernel"] % 2 == 0:
        raise ValueError(f"kernel must be odd, so that the length stays, got {sizes['kernel']}.")
    return shape[0], shape[1]


def _initialise(network: nn.Module) -> None:
    """The released code's: uniform, of std sqrt(4 / (in + out)) in convolutions and sqrt(2 / (in + out)) elsewhere."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv1d, nn.Linear)):
            fan = layer.weight[0].numel() + layer.weight[:, 0].numel()
            bound = math.sqrt(3 * (4 if isinstance(layer, nn.Conv1d) else 2) / fan)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(cast(Tensor, layer.bias))


class CharGenerator(nn.Module):
    r"""Noise to a text, all symbols at once: residual convolutions, then a softmax at each place.

    Its output in training, relaxed one-hot vectors (N, T, V), is what the critic sees; its text is the largest of each.
    With ``gumbel`` the softmax is of :math:`\beta (\mathrm{logits} + g)`, so that each place is drawn by its own law;
    the Gumbel noise :math:`g = -\log(-\log \Phi(z'))` is of the last T V numbers of z. With ``straight_through`` the
    output is the one-hot vector, its gradient that of the relaxed one.

    Args:
        shape: (T, V), length and number of symbols.
        latent_dim: length of z, above T V with ``gumbel``.
        width: channels; the paper has 512.
        blocks: residual blocks.
        kernel: width of their convolutions, odd.
        gumbel: beta, > 0, the inverse of a temperature; None: no such noise, as published.
        straight_through: give one-hot vectors.

    Raises:
        ValueError: for sizes out of range.

    >>> y = CharGenerator((8, 6), latent_dim=4, width=8, blocks=1)(torch.randn(2, 4))
    >>> y.shape, y.sum(-1).round(decimals=4).unique().tolist()
    (torch.Size([2, 8, 6]), [1.0])
    """

    def __init__(
        self,
        shape: tuple[int, int] = (32, 27),
        latent_dim: int = 128,
        width: int = 512,
        blocks: int = 5,
        kernel: int = 5,
        gumbel: float | None = None,
        straight_through: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"latent_dim": latent_dim, "width": width, "blocks": blocks, "kernel": kernel}
        self.length, self.vocabulary_size = _checked(shape, **sizes)
        checks.positive(**checks.given(gumbel=gumbel))
        self.latent_dim, self.width, self.gumbel, self.straight_through = latent_dim, width, gumbel, straight_through
        own = latent_dim - (0 if gumbel is None else self.length * self.vocabulary_size)
        if own < 1:
            raise ValueError(f"latent_dim must be above {latent_dim - own}, T V, with gumbel, got {latent_dim}.")
        self.noise = nn.Linear(own, width * self.length)
        self.blocks = nn.Sequential(*[_Block(width, kernel) for _ in range(blocks)])
        self.out = nn.Conv1d(width, self.vocabulary_size, 1)
        _initialise(self)

    def logits(self, z: Tensor) -> Tensor:
        """Of each symbol at each place, (N, T, V)."""
        own = z if self.gumbel is None else z[:, : self.noise.in_features]  # all of z is used, or refused
        h = self.noise(own.to(self.noise.weight)).view(len(z), self.width, self.length)  # channels first, as the code
        return self.out(self.blocks(h)).transpose(1, 2)

    def forward(self, z: Tensor) -> Tensor:
        """Relaxed one-hot vectors (N, T, V) of noise (N, latent_dim)."""
        h = self.logits(z)
        soft = h.softmax(-1) if self.gumbel is None else relax(h + self._gumbel(z), self.gumbel).to(self.out.weight)
        if not self.straight_through:
            return soft
        return torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1) + (soft - soft.detach())

    def generate(self, z: Tensor, temperature: float | None = None) -> Tensor:
        """Tokens (N, T) int64: the likeliest symbol of each place; with ``gumbel`` one drawn by p^(1 / temperature).

        Raises:
            ValueError: for a temperature out of range, or without ``gumbel``.
        """
        if self.gumbel is None:
            if temperature is not None:
                raise ValueError(f"temperature must be None for a CharGenerator without gumbel, got {temperature}.")
            return self.logits(z).argmax(-1)
        temperature = 1.0 if temperature is None else temperature
        checks.positive(temperature=temperature)
        return (tempered(self.logits(z), temperature) + self._gumbel(z)).argmax(-1)

    def _gumbel(self, z: Tensor) -> Tensor:
        own = z[:, self.noise.in_features :].unflatten(1, (self.length, self.vocabulary_size))
        return gumbel(own)


class CharCritic(nn.Module):
    """One-hot or relaxed texts (N, T, V) to scores (N,): residual convolutions and a linear layer, no normalisation.

    Args:
        shape: (T, V), length and number of symbols.
        width: channels; the paper has 512.
        blocks: residual blocks.
        kernel: width of their convolutions, odd.

    Raises:
        ValueError: for sizes out of range.

    >>> CharCritic((8, 6), width=8, blocks=1)(torch.rand(2, 8, 6)).shape
    torch.Size([2])
    """

    def __init__(self, shape: tuple[int, int] = (32, 27), width: int = 512, blocks: int = 5, kernel: int = 5) -> None:
        super().__init__()
        length, symbols = _checked(shape, width=width, blocks=blocks, kernel=kernel)
        self.inside = nn.Conv1d(symbols, width, 1)
        self.blocks = nn.Sequential(*[_Block(width, kernel) for _ in range(blocks)])
        self.score = nn.Linear(width * length, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return self.score(self.blocks(self.inside(x.transpose(1, 2))).flatten(1)).squeeze(1)
