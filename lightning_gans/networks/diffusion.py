"""Networks of noised samples and their times: the noise in them for a diffusion, and classes to guide it by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks
from lightning_gans.networks.layers import append_one_hot, check_input, check_labels

_FREQUENCIES = (1.0, 2.0, 4.0, 8.0)  # of points
_FASTEST, _WAVES = 30.0, 8  # of times: too fast ones are learned slowly


def time_features(t: Tensor) -> Tensor:
    """Sines and cosines (N, 16) of t / 1000 (N,), of angular frequencies from 1 to 30."""
    waves = torch.logspace(0, math.log10(_FASTEST), _WAVES, device=t.device, dtype=t.dtype)
    angle = t[:, None] / 1000 * waves
    return torch.cat([angle.sin(), angle.cos()], 1)


def point_features(x: Tensor) -> Tensor:
    """x (N, d), and sines and cosines of 1, 2, 4 and 8 times x: a network of x alone does not see fine detail."""
    angle = torch.cat([f * x for f in _FREQUENCIES], 1)
    return torch.cat([x, angle.sin(), angle.cos()], 1)


class _TimedMLP(nn.Module):
    """A perceptron of a sample, its time and perhaps its class; SiLU."""

    def __init__(self, shape: Sequence[int], width: int, depth: int, outputs: int, num_classes: int | None) -> None:
        checks.sizes(shape=shape, width=width, depth=depth, num_classes=num_classes)
        super().__init__()
        self.shape, self.num_classes, size = tuple(shape), num_classes, math.prod(shape)
        self.given = num_classes  # classes that it is told
        seen = size * (1 + 2 * len(_FREQUENCIES) if len(self.shape) == 1 else 1)
        layers: list[nn.Module] = []
        for fan_in in [seen + 2 * _WAVES + (num_classes or 0)] + [width] * (depth - 1):
            layers += [nn.Linear(fan_in, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def values(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        who = type(self).__name__
        check_input(x, self.shape, who)
        check_labels(labels, self.given, len(x), who)
        seen = point_features(x) if len(self.shape) == 1 else x.flatten(1)
        return self.layers(append_one_hot(torch.cat([seen, time_features(t).to(seen)], 1), labels, self.given))


class DiffusionMLP(_TimedMLP):
    """MLP from noised samples and times to the noise in them: for points, and for small images.

    ============================================= ==================
    layer (defaults)                              output
    ============================================= ==================
    x; of points sin, cos of 1, 2, 4, 8 times x   (N, 18)
    16 sines and cosines of t / 1000              (N, 34)
    3 x [linear, SiLU]                            (N, 128)
    linear                                        (N, 2)
    ============================================= ==================

    Args:
        shape: of one sample.
        width: units of each hidden layer.
        depth: number of hidden layers, at least 1.
        num_classes: makes it conditional: ``forward(x, t, labels)``.
        learned_variance: twice the channels, for ``DDPM(variance="learned")``.

    >>> x, t = torch.randn(4, 2), torch.tensor([0, 10, 500, 999])
    >>> DiffusionMLP((2,), width=8)(x, t).shape, DiffusionMLP((2,), width=8, learned_variance=True)(x, t).shape
    (torch.Size([4, 2]), torch.Size([4, 4]))
    """

    def __init__(
        self,
        shape: tuple[int, ...] = (2,),
        width: int = 128,
        depth: int = 3,
        num_classes: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        checks.sizes(shape=shape)
        made = (shape[0] * (2 if learned_variance else 1), *shape[1:])
        super().__init__(shape, width, depth, math.prod(made), num_classes)
        self.made = made

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, *shape)`` and times ``(N,)`` in [0, 1000) to ``(N, *shape)``, or twice the channels."""
        return self.values(x, t, labels).unflatten(1, self.made)


class TimedClassifier(_TimedMLP):
    """MLP from noised samples and times to logits of classes, for `samplers.Guided`; features as in `DiffusionMLP`.

    Args:
        shape: of one sample.
        num_classes: number of logits.
        width: units of each hidden layer.
        depth: number of hidden layers, at least 1.

    >>> TimedClassifier((2,), num_classes=3, width=8)(torch.randn(4, 2), torch.tensor([0, 10, 500, 999])).shape
    torch.Size([4, 3])
    """

    def __init__(self, shape: tuple[int, ...] = (2,), num_classes: int = 10, width: int = 128, depth: int = 3) -> None:
        checks.sizes(num_classes=num_classes)
        super().__init__(shape, width, depth, num_classes, None)
        self.num_classes = num_classes  # of its logits

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """``(N, *shape)`` and times ``(N,)`` in [0, 1000) to logits ``(N, num_classes)``."""
        return self.values(x, t, None)


class _Block(nn.Module):
    """Residual block: group norm, SiLU, conv3, group norm scaled and shifted by time and class, SiLU, conv3 from 0."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(math.gcd(8, inputs), inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.scale = nn.Linear(embedding, 2 * outputs)
        self.norm2, self.conv2 = nn.GroupNorm(math.gcd(8, outputs), outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.scale(e)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))


class _Attention(nn.Module):
    """Each place looks at all others; begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(math.gcd(8, channels), channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.qkv(self.norm(x)).flatten(2).chunk(3, 1))
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, x.shape[2:]))


class DiffusionUNet(nn.Module):
    """U-Net from noised images and times to the noise in them: residual blocks down and up, with skips between.

    ============================================= ===================
    layer (shape (1, 8, 8), defaults)             output
    ============================================= ===================
    conv3                                         (N, 32, 8, 8)
    residual block, mean of 2 x 2                 (N, 32, 4, 4)
    residual block                                (N, 64, 4, 4)
    attention, residual block                     (N, 64, 4, 4)
    skip, residual block, repeated 2 x 2          (N, 32, 8, 8)
    skip, residual block                          (N, 32, 8, 8)
    group norm, SiLU, conv3 that begins at 0      (N, 1, 8, 8)
    ============================================= ===================

    A small form of arXiv:2006.11239 with the scales and shifts of arXiv:2105.05233.

    Args:
        shape: ``(C, H, W)``, H and W divisible by 2 to the number of factors less one.
        width: channels of the first block.
        factors: of the width, one for each resolution.
        num_classes: makes it conditional: ``forward(x, t, labels)``.
        learned_variance: twice the channels, for ``DDPM(variance="learned")``.

    Raises:
        ValueError: for a shape that cannot be halved so often.

    >>> y = DiffusionUNet((1, 8, 8), width=8)(torch.randn(2, 1, 8, 8), torch.tensor([0, 999]))
    >>> y.shape, float(y.abs().max())  # its last layer begins at 0
    (torch.Size([2, 1, 8, 8]), 0.0)
    """

    def __init__(
        self,
        shape: tuple[int, ...] = (1, 8, 8),
        width: int = 32,
        factors: Sequence[int] = (1, 2),
        num_classes: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        checks.sizes(shape=shape, width=width, factors=factors, num_classes=num_classes)
        super().__init__()
        self.shape, self.num_classes, halved = tuple(shape), num_classes, 2 ** (len(factors) - 1)
        if len(shape) != 3 or any(side % halved for side in shape[1:]):
            raise ValueError(f"DiffusionUNet takes shape=(C, H, W) with sides divisible by {halved}, got {self.shape}.")
        embedding, sizes = 4 * width, [width * f for f in factors]
        self.time = nn.Sequential(nn.Linear(2 * _WAVES, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = None if num_classes is None else nn.Embedding(num_classes, embedding)
        self.begin = nn.Conv2d(shape[0], width, 3, padding=1)
        self.down = nn.ModuleList(_Block(a, b, embedding) for a, b in zip([width, *sizes], sizes))
        self.attention, self.middle = _Attention(sizes[-1]), _Block(sizes[-1], sizes[-1], embedding)
        above = [sizes[-1], *reversed(sizes[:-1])]
        self.up = nn.ModuleList(
            _Block(a + b, c, embedding) for a, b, c in zip(above, reversed(sizes), [*above[1:], width])
        )
        self.norm = nn.GroupNorm(math.gcd(8, width), width)
        self.end = nn.Conv2d(width, shape[0] * (2 if learned_variance else 1), 3, padding=1)
        for parameter in self.end.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` and times ``(N,)`` in [0, 1000) to ``(N, C, H, W)``, or twice the channels."""
        check_input(x, self.shape, "DiffusionUNet")
        check_labels(labels, self.num_classes, len(x), "DiffusionUNet")
        e = self.time(time_features(t).to(x))
        e = F.silu(e if self.label is None else e + self.label(labels))
        h, kept = self.begin(x), []
        for i, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if i else h, e)
            kept.append(h)
        h = self.middle(self.attention(h), e)
        for i, block in enumerate(self.up):
            h = F.interpolate(h, scale_factor=2.0) if i else h
            h = block(torch.cat([h, kept.pop()], 1), e)
        return self.end(F.silu(self.norm(h)))
