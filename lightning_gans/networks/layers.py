"""Building blocks shared by the networks: normalisation by name, class conditioning, initialisation, input checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks

Norm = Literal["none", "batch", "layer", "instance", "group"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


# ------------------------------------------------------------------------------------------------- checks


def check_input(x: Tensor, shape: tuple[int, ...], who: str) -> None:
    """Raise ``ValueError`` unless `x` is a batch ``(N, *shape)``; `who` names the network in the message."""
    if x.shape[1:] != shape:
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"{who} takes an input of shape ({expected}), got {tuple(x.shape)}.")


def check_labels(labels: Tensor | None, num_classes: int | None, n: int, who: str) -> None:
    """Raise ``ValueError`` unless there are `n` integer labels exactly when the network `who` is conditional."""
    if labels is None and num_classes is None:
        return
    if labels is None:
        raise ValueError(f"{who} is conditional (num_classes={num_classes}) and needs labels, got none.")
    if num_classes is None:
        raise ValueError(f"{who} is unconditional (num_classes=None) and takes no labels, got {tuple(labels.shape)}.")
    if labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(
            f"{who} takes labels of shape ({n},) and dtype int64, got {tuple(labels.shape)} {labels.dtype}."
        )


def halvings(side: int, least: int) -> int:
    """How often `side` can be halved without becoming fractional or less than `least`."""
    return 0 if side % 2 or side // 2 < least else 1 + halvings(side // 2, least)


def image_shape(shape: Sequence[int], who: str, sides: str, stages: Callable[[int, int], int]) -> tuple[int, int, int]:
    """`shape` as a tuple ``(C, H, W)``; ``ValueError``, which says which `sides` do, if `stages` finds no depth."""
    if len(shape) != 3 or min(shape[1:]) < 1 or not stages(shape[1], shape[2]):
        raise ValueError(f"{who} takes shape=(C, H, W) with {sides}, got {tuple(shape)}.")
    return shape[0], shape[1], shape[2]


def below(shape: Sequence[int], stages: int) -> tuple[int, int]:
    """Height and width of a shape ``(C, H, W)``, halved so many times."""
    return shape[1] >> stages, shape[2] >> stages


# ------------------------------------------------------------------------------------------------- conditioning


def append_one_hot(x: Tensor, labels: Tensor | None, num_classes: int | None) -> Tensor:
    """``(N, F)`` and labels ``(N,)`` to ``(N, F + num_classes)``; `x` as it is without labels."""
    if labels is None or num_classes is None:
        return x
    return torch.cat([x, F.one_hot(labels, num_classes).to(x.dtype)], dim=1)


class ProjectionHead(nn.Module):
    """Features h (N, F) to scores (N,): ``f = <w, h> + b``, and ``+ <e_y, h>`` with one embedding e_y per class.

    The projection discriminator of Miyato & Koyama (arXiv:1802.05637), without b if `bias` is False. Glorot
    initialisation.

    >>> head, h = ProjectionHead(features=4, num_classes=3), torch.randn(2, 4)
    >>> y = torch.tensor([0, 2])
    >>> torch.allclose(head(h, y), head.score(h)[:, 0] + (head.embedding(y) * h).sum(1))
    True
    """

    def __init__(self, features: int, num_classes: int | None = None, bias: bool = True) -> None:
        checks.sizes(features=features, num_classes=num_classes)
        super().__init__()
        self.score = glorot_(nn.Linear(features, 1, bias=bias))
        self.embedding: nn.Embedding | None = None
        if num_classes is not None:
            self.embedding = nn.Embedding(num_classes, features)
            nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, h: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores (N,) of features (N, F), given the classes (N,) if there are any."""
        score = self.score(h).squeeze(1)
        if self.embedding is None:
            return score
        return score + (self.embedding(labels) * h).sum(1)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation of ``(N, C, H, W)`` whose gain and offset per channel are looked up by class.

    Dumoulin et al. (arXiv:1610.07629). Gains start at 1 and offsets at 0; statistics are shared by all classes.

    >>> norm = ConditionalBatchNorm2d(channels=4, num_classes=3)
    >>> norm(torch.randn(2, 4, 8, 8), torch.tensor([0, 2])).shape, norm.gain.weight.shape
    (torch.Size([2, 4, 8, 8]), torch.Size([3, 4]))
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        checks.sizes(channels=channels, num_classes=num_classes)
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.offset = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.offset.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalise (N, C, H, W), then scale and shift each channel by the row's class (N,)."""
        gain, offset = (table(labels)[:, :, None, None] for table in (self.gain, self.offset))
        return torch.addcmul(offset, gain, self.norm(x))


# ------------------------------------------------------------------------------------------------- normalisation


class LayerNorm(nn.GroupNorm):
    """Layer normalisation of ``(N, C, H, W)`` over (C, H, W), with one gain and one offset per channel.

    What the WGAN-GP code puts in a critic in place of batch normalisation (arXiv:1704.00028): samples stay independent.
    ``torch.nn.LayerNorm`` would have a gain per pixel; a group norm with a single group is the same thing by channel.

    >>> y = LayerNorm(4)(5 + 3 * torch.randn(2, 4, 8, 8))
    >>> [round(float(m), 3) for m in y.mean((1, 2, 3)).abs()], y.square().mean((1, 2, 3)).round(decimals=3).tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """

    def __init__(self, channels: int) -> None:
        checks.sizes(channels=channels)
        super().__init__(1, channels)


def make_norm(name: Norm, channels: int) -> nn.Module:
    """A fresh normalisation layer for ``(N, channels, H, W)``, always with a learnt gain and offset per channel.

    ========== =====================================================================================================
    `name`     statistics over
    ========== =====================================================================================================
    "none"     (identity)
    "batch"    N, H, W: couples the samples of a batch, so it must not meet a per-sample penalty in a discriminator
    "layer"    C, H, W
    "instance" H, W
    "group"    H, W and groups of about 16 channels (arXiv:1803.08494)
    ========== =====================================================================================================

    >>> [type(make_norm(name, 32)).__name__ for name in ("none", "batch", "layer")], make_norm("group", 32).num_groups
    (['Identity', 'BatchNorm2d', 'LayerNorm'], 2)
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "layer":
        return LayerNorm(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if name == "group":
        return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)
    raise ValueError(f"norm must be one of none, batch, layer, instance, group, got {name!r}.")


# ------------------------------------------------------------------------------------------------- convolutions


class SameConv2d(nn.Conv2d):
    """Convolution with kernel 5 and stride 2 padded as TensorFlow's 'SAME': H to ceil(H / 2).

    An even side gets 1 zero before and 2 after, an odd one 2 and 2. (Two and two for an even side would give the same
    shape, shifted by a pixel.)
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=5, stride=2)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2))."""
        height, width = input.shape[2:]
        return super().forward(F.pad(input, (1 + width % 2, 2, 1 + height % 2, 2)))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """The transpose of `SameConv2d` at an even side: H to 2 H, with kernel 5 and stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=5, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, H, W) to (N, C', 2 H, 2 W)."""
        return super().forward(input, output_size)[..., :-1, :-1]


# ------------------------------------------------------------------------------------------------- activations


class GatedTanh(nn.Module):
    """``(N, 2 C, ...)`` to ``sigmoid(a) * tanh(b)``, of shape ``(N, C, ...)``: a is the first half, b the second."""

    def forward(self, x: Tensor) -> Tensor:
        """The first half gates the second."""
        a, b = x.chunk(2, 1)
        return a.sigmoid() * b.tanh()


# ------------------------------------------------------------------------------------------------- initialisation


def channels_last_(network: nn.Module) -> None:
    """Store the kernels of a convolutional network in ``torch.channels_last``; its maps follow by themselves.

    The same numbers, faster where maps are large (docs/results/speed.md).
    """
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)  # contiguous() leaves 1 x 1 as it is


def glorot_(layer: Layer, gain: float = 1.0) -> Layer:
    r"""Initialise as the WGAN-GP code does: weights uniform of std :math:`g\sqrt{2 / (n_{in} + n_{out})}`, biases 0.

    ``n_in = in k^2`` and ``n_out = out k^2 / stride^2``; a transposed convolution divides ``n_in`` instead. The code's
    "he" flag is a `gain` of sqrt(2) (not Kaiming's scale, which knows only ``n_in``). Returns the layer.
    """
    if isinstance(layer, nn.Linear):
        fans = float(layer.in_features + layer.out_features)
    else:
        taps, skipped = math.prod(layer.kernel_size), math.prod(layer.stride)
        transposed = isinstance(layer, nn.ConvTranspose2d)
        fan_in = layer.in_channels * taps / (skipped if transposed else 1)
        fans = fan_in + layer.out_channels * taps / (1 if transposed else skipped)
    bound = gain * math.sqrt(2 / fans) * math.sqrt(3)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
