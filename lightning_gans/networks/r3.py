"""The networks of R3GAN (arXiv:2501.05441): residual blocks of grouped convolutions without normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import append_one_hot, check_input, check_labels, image_shape

STAGES = {8: 2, 16: 3, 28: 3, 32: 4, 64: 5}  # side of the image -> number of resolutions, from 4 (7 for 28) pixels on
_SIDES = f"H = W, one of {', '.join(map(str, STAGES))}"


def _stages(height: int, width: int) -> int:
    return STAGES.get(height, 0) if height == width else 0


_GAIN = math.sqrt(2 / (1 + 0.2**2))  # of LeakyReLU(0.2): keeps the variance


class _BiasedActivation(nn.Module):
    """LeakyReLU(0.2) of the input plus a bias for each channel, which starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias[:, None, None], 0.2)


class _Block(nn.Module):
    """x + [1x1, activation, 3x3 in groups, activation, 1x1], the last convolution 0 at first."""

    def __init__(self, channels: int, cardinality: int, blocks: int) -> None:
        super().__init__()
        inner, gain = 2 * channels, _GAIN * blocks**-0.25
        self.layers = nn.Sequential(
            _initialised(nn.Conv2d(channels, inner, 1, bias=False), gain),
            _BiasedActivation(inner),
            _initialised(nn.Conv2d(inner, inner, 3, padding=1, groups=cardinality, bias=False), gain),
            _BiasedActivation(inner),
            _initialised(nn.Conv2d(inner, channels, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Up(nn.Module):
    """Twice the size by zeros between the pixels and the filter [1, 2, 1] / 2 in both directions."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(F.interpolate(x, scale_factor=2), (0, 1, 0, 1)), 2, 1)


class _Down(nn.Module):
    """Half the size by the filter [1, 2, 1] / 4 in both directions."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.avg_pool2d(x, 2, 1, 1), 2, 2)


class R3Generator(nn.Module):
    """Noise to images, without normalisation and without a last tanh.

    ================================================ ====================
    layer (shape (3, 32, 32), defaults)              output
    ================================================ ====================
    learned 4x4 maps, times a linear function of z   (N, 64, 4, 4)
    2 x block                                        (N, 64, 4, 4)
    3 x [1x1 if the width changes, up, 2 x block]    (N, 64, 32, 32)
    1x1                                              (N, 3, 32, 32)
    ================================================ ====================

    A block is x + [1x1 to twice the width, 3x3 in groups, 1x1], with a bias and LeakyReLU(0.2) before the second and
    third, and starts as the identity. The weights of its first two start as N(0, (g / (L^(1/4) sqrt(fan in)))^2), L the
    number of blocks of the network. The paper's CIFAR-10 network has widths 768 and cardinality 96.

    Args:
        shape: ``(C, H, H)`` with H in 8, 16, 28, 32, 64.
        latent_dim: length of z.
        widths: channels at each resolution, smallest first; one number for all of them.
        cardinality: groups of the 3x3 convolutions.
        blocks: at each resolution.
        num_classes: makes it conditional: ``forward(z, labels)``, a linear function of the label beside z.

    >>> generator = R3Generator((3, 16, 16), latent_dim=8, widths=(16, 8, 8), blocks=1)
    >>> generator(torch.randn(2, 8)).shape
    torch.Size([2, 3, 16, 16])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        latent_dim: int = 64,
        widths: int | Sequence[int] = 64,
        cardinality: int = 8,
        blocks: int = 2,
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, cardinality=cardinality, num_classes=num_classes)
        checks.at_least(0, blocks=blocks)
        super().__init__()
        self.shape = image_shape(shape, "R3Generator", _SIDES, _stages)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        channels = _channels(widths, self.shape[1], cardinality, "R3Generator")
        side, total = self.shape[1] >> len(channels) - 1, blocks * len(channels)
        embedded = latent_dim if num_classes else 0
        self.embed = _initialised(nn.Linear(num_classes, embedded, bias=False)) if num_classes else None
        self.basis = nn.Parameter(torch.randn(channels[0], side, side))
        self.project = _initialised(nn.Linear(latent_dim + embedded, channels[0], bias=False))
        self.layers = nn.Sequential()
        for i, width in enumerate(channels):
            if i and width != channels[i - 1]:
                self.layers.append(_initialised(nn.Conv2d(channels[i - 1], width, 1, bias=False)))
            self.layers.extend([_Up()] * bool(i))
            self.layers.extend(_Block(width, cardinality, total) for _ in range(blocks))
        self.layers.append(_initialised(nn.Conv2d(channels[-1], self.shape[0], 1, bias=False)))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, C, H, H)``, unbounded."""
        check_input(z, (self.latent_dim,), "R3Generator")
        check_labels(labels, self.num_classes, len(z), "R3Generator")
        if self.embed is not None:
            z = torch.cat([z, self.embed(append_one_hot(z[:, :0], labels, self.num_classes))], 1)
        return self.layers(self.basis * self.project(z)[:, :, None, None])


class R3Discriminator(nn.Module):
    """Images to a raw score, without normalisation.

    ================================================ ====================
    layer (shape (3, 32, 32), defaults)              output
    ================================================ ====================
    1x1                                              (N, 64, 32, 32)
    3 x [2 x block, down, 1x1 if the width changes]  (N, 64, 4, 4)
    2 x block                                        (N, 64, 4, 4)
    4x4, one filter for each channel                 (N, 64)
    linear                                           (N,)
    ================================================ ====================

    Blocks and arguments as in `R3Generator`; ``widths`` smallest resolution first, so that one list serves for both.
    With ``num_classes`` the score is the product of a linear function of the 64 numbers and an embedding of the label.

    >>> critic = R3Discriminator((3, 16, 16), widths=(16, 8, 8), blocks=1, num_classes=5)
    >>> critic(torch.randn(2, 3, 16, 16), torch.tensor([0, 4])).shape
    torch.Size([2])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        widths: int | Sequence[int] = 64,
        cardinality: int = 8,
        blocks: int = 2,
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, cardinality=cardinality, num_classes=num_classes)
        checks.at_least(0, blocks=blocks)
        super().__init__()
        self.shape, self.num_classes = image_shape(shape, "R3Discriminator", _SIDES, _stages), num_classes
        channels = _channels(widths, self.shape[1], cardinality, "R3Discriminator")[::-1]
        side, total = self.shape[1] >> len(channels) - 1, blocks * len(channels)
        self.layers = nn.Sequential(_initialised(nn.Conv2d(self.shape[0], channels[0], 1, bias=False)))
        for i, width in enumerate(channels):
            self.layers.extend([_Down()] * bool(i))
            if i and width != channels[i - 1]:
                self.layers.append(_initialised(nn.Conv2d(channels[i - 1], width, 1, bias=False)))
            self.layers.extend(_Block(width, cardinality, total) for _ in range(blocks))
        last = channels[-1]
        self.layers.append(_initialised(nn.Conv2d(last, last, side, groups=last, bias=False)))
        self.head = _initialised(nn.Linear(last, last if num_classes else 1, bias=False))
        self.embed = nn.Embedding(num_classes, last) if num_classes else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=1 / math.sqrt(last))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, H)`` to scores ``(N,)``."""
        check_input(x, self.shape, "R3Discriminator")
        check_labels(labels, self.num_classes, len(x), "R3Discriminator")
        y = self.head(self.layers(x).flatten(1))
        return y.squeeze(1) if self.embed is None else (y * self.embed(labels)).sum(1)


def _initialised(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """The layer with weights N(0, (gain / sqrt(fan in))^2)."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()))
    return layer


def _channels(widths: int | Sequence[int], side: int, cardinality: int, who: str) -> list[int]:
    """The width at each resolution."""
    checks.sizes(widths=widths)
    channels = [widths] * STAGES[side] if isinstance(widths, int) else list(widths)
    if len(channels) != STAGES[side]:
        raise ValueError(f"{who}: widths must be one number or {STAGES[side]} at {side} pixels, got {len(channels)}.")
    if odd := [c for c in channels if 2 * c % cardinality]:
        raise ValueError(f"{who}: widths must be multiples of half the cardinality, {cardinality}, got {odd[0]}.")
    return channels
