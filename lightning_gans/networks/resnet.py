"""The CIFAR-10 residual networks of the WGAN-GP code (arXiv:1704.00028), also for other images.

The same blocks make the networks of two later papers, at other widths:

====================================== ======================================= ========================================
code                                   generator                               discriminator
====================================== ======================================= ========================================
WGAN-GP (arXiv:1704.00028)             the defaults                            the defaults
SN-GAN (arXiv:1802.05957)              width 256                               pool "sum"
PRC-GAN (arXiv:2006.06900)             width 256, skip "identity"              width 332, dropout (0.2, 0.5, 0.5),
                                                                               init "kaiming"; its classifier has norm
                                                                               "batch" in place of dropout
====================================== ======================================= ========================================
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks
from lightning_gans.networks.fold import DownConv2d, UpConv2d
from lightning_gans.networks.layers import (
    ConditionalBatchNorm2d,
    Norm,
    ProjectionHead,
    below,
    channels_last_,
    check_input,
    check_labels,
    glorot_,
    halvings,
    image_shape,
    make_norm,
)
from lightning_gans.networks.recomputed import norm_relu_conv

HE = math.sqrt(2)  # the gain that the code's "he" flag stands for: 3 x 3 convolutions of the blocks
Skip = Literal["conv", "identity"]
Init = Literal["glorot", "kaiming"]
Pool = Literal["mean", "sum"]


def conv3(c_in: int, c_out: int, gain: float = HE) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps H and W, initialised by `glorot_`."""
    return glorot_(nn.Conv2d(c_in, c_out, 3, padding=1), gain)


def generator_stages(shape: tuple[int, ...], who: str) -> int:
    """Doublings from a bottom of 4 to 7 pixels to the shorter side of `shape`; ``ValueError`` if there is no such."""
    sides = "the shorter of H and W 4, 5, 6 or 7 times 2, 4, 8 ..., and the longer a multiple of that power"
    return _stages(*image_shape(shape, who, sides, _stages)[1:])


def _stages(height: int, width: int) -> int:
    stages = min(halvings(height, 4), halvings(width, 4))
    return stages if min(height, width) >> stages <= 7 else 0


class UpBlock(nn.Module):
    """Residual block that doubles H and W: norm, ReLU, up2 + conv3, norm, ReLU, conv3; skip: up2 + conv1, or up2 alone.

    up2 repeats pixels; the first convolution changes `c_in` to `c_out` channels, which a `skip` without convolution
    ("identity") needs to be the same. With `num_classes` the normalisation is batch norm by class.
    """

    def __init__(
        self, c_in: int, c_out: int, norm: Norm = "batch", num_classes: int | None = None, skip: Skip = "conv"
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = (
            make_norm(norm, channels) if num_classes is None else ConditionalBatchNorm2d(channels, num_classes)
            for channels in (c_in, c_out)
        )
        self.conv1 = glorot_(UpConv2d(c_in, c_out, 3), HE)
        self.conv2 = conv3(c_out, c_out)
        self.skip = nn.Upsample(scale_factor=2) if skip == "identity" else glorot_(UpConv2d(c_in, c_out, 1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, 2 H, 2 W); labels (N,) if its norms are by class."""
        given = () if labels is None else (labels,)
        h = norm_relu_conv(self.norm1, self.conv1, x, *given)
        return norm_relu_conv(self.norm2, self.conv2, h, *given) + self.skip(x)


class ImageBlock(nn.Module):
    """The critic's first residual block, which halves H and W: conv3, ReLU, conv3 + pool2; skip: pool2 + conv1.

    pool2 takes means. No activation or normalisation before the first convolution: its input is the image.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = conv3(c_in, c_out)
        self.conv2 = glorot_(DownConv2d(c_out, c_out, 3), HE)
        self.skip = glorot_(DownConv2d(c_in, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, H / 2, W / 2)."""
        return self.conv2(F.relu(self.conv1(x))) + self.skip(x)


class DownBlock(nn.Module):
    """Residual block that halves H and W: norm, ReLU, conv3, norm, ReLU, conv3 + pool2; skip: pool2 + conv1.

    The second convolution changes `c_in` to `c_out` channels.
    """

    def __init__(self, c_in: int, c_out: int, norm: Norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = make_norm(norm, c_in), make_norm(norm, c_in)
        self.conv1 = conv3(c_in, c_in)
        self.conv2 = glorot_(DownConv2d(c_in, c_out, 3), HE)
        self.skip = glorot_(DownConv2d(c_in, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, H / 2, W / 2)."""
        h = norm_relu_conv(self.norm1, self.conv1, x)
        return norm_relu_conv(self.norm2, self.conv2, h) + self.skip(x)


class PlainBlock(nn.Module):
    """Residual block at constant resolution: norm, ReLU, conv3, norm, ReLU, conv3; the skip is the identity."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = make_norm(norm, channels), make_norm(norm, channels)
        self.conv1 = conv3(channels, channels)
        self.conv2 = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        h = norm_relu_conv(self.norm1, self.conv1, x)
        return x + norm_relu_conv(self.norm2, self.conv2, h)


class ResNetGenerator(nn.Module):
    """Noise to images in [-1, 1] by residual blocks of constant width.

    ============================================= ===================
    layer (defaults)                              output
    ============================================= ===================
    linear                                        (N, 128, 4, 4)
    3 x `UpBlock`                                 (N, 128, 32, 32)
    batch norm, ReLU, conv3, tanh                 (N, 3, 32, 32)
    ============================================= ===================

    1 204 483 parameters. Other sides start from a bottom of 4 to 7 pixels: 8 and 64 at 4, 28 at 7. Initialisation: see
    `glorot_`, with a gain of sqrt(2) for the 3 x 3 convolutions in the blocks and 1 for the other layers.

    Args:
        shape: ``(C, H, W)``, the shorter side 8, 10, 12, 14, 16, 20, 24, 28, 32, ... 64, ..., the longer a multiple of
            the same power of 2.
        latent_dim: length of z.
        width: channels of every hidden map.
        norm: "batch" as in the code, "none", "layer", "instance" or "group" (see `make_norm`).
        num_classes: makes it conditional: ``forward(z, labels)``, by class-conditional batch normalisation in the
            blocks (not in the last one, as in the code).
        skip: "conv" for skips with a 1 x 1 convolution, "identity" for skips that only repeat pixels.

    Raises:
        ValueError: for another normalisation than batch norm together with `num_classes`; for an unknown `skip`; for
            sides of no such form.

    >>> import torch
    >>> generator = ResNetGenerator((1, 28, 28), latent_dim=8, width=4, num_classes=10)
    >>> generator(torch.randn(2, 8), torch.tensor([3, 5])).shape, len(generator.blocks)
    (torch.Size([2, 1, 28, 28]), 2)
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        latent_dim: int = 128,
        width: int = 128,
        norm: Norm = "batch",
        num_classes: int | None = None,
        skip: Skip = "conv",
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, width=width, num_classes=num_classes)
        super().__init__()
        checks.one_of("skip", skip, get_args(Skip))
        if num_classes is not None and norm != "batch":
            raise ValueError(f"norm must be 'batch' for a conditional generator, got {norm!r}.")
        stages = generator_stages(shape, "ResNetGenerator")
        self.shape, self.latent_dim, self.num_classes = tuple(shape), latent_dim, num_classes
        bottom = (width, *below(self.shape, stages))
        self.project = glorot_(nn.Linear(latent_dim, math.prod(bottom)))
        self.unflatten = nn.Unflatten(1, bottom)
        self.blocks = nn.ModuleList(UpBlock(width, width, norm, num_classes, skip) for _ in range(stages))
        self.norm = make_norm(norm, width)
        self.conv = conv3(width, self.shape[0], gain=1)
        channels_last_(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, C, H, W)`` in [-1, 1]."""
        check_input(z, (self.latent_dim,), "ResNetGenerator")
        check_labels(labels, self.num_classes, len(z), "ResNetGenerator")
        h = self.unflatten(self.project(z))
        for block in self.blocks:
            h = block(h, labels)
        return norm_relu_conv(self.norm, self.conv, h).tanh().contiguous()  # a user's critic may call view


class ResNetDiscriminator(nn.Module):
    """Images to a raw score by residual blocks of constant width.

    ============================================== ===================
    layer (defaults)                               output
    ============================================== ===================
    `ImageBlock`                                   (N, 128, 16, 16)
    `DownBlock`                                    (N, 128, 8, 8)
    2 x `PlainBlock`                               (N, 128, 8, 8)
    ReLU, mean (or sum) over H and W               (N, 128)
    linear (plus projection on the label)          (N,)
    ============================================== ===================

    1 053 825 parameters. Other images are halved down to 5 to 8 pixels (64 to 8, 28 to 7), at least once (8 to 4).
    Initialisation: as in `ResNetGenerator`.

    Args:
        shape: ``(C, H, W)``, with the sides that `ResNetGenerator` takes.
        width: channels of every hidden map.
        norm: "none" as in the code, "layer", "instance", "group", or "batch", which a per-sample penalty does not
            allow (see `make_norm`). The first block has none.
        dropout: shares of what the last three blocks put out that are dropped, before the next ReLU; the code of
            CT-GAN (arXiv:1803.01541) has 0.2, 0.5, 0.5.
        num_classes: makes it conditional: ``forward(x, labels)``, a projection discriminator (see `ProjectionHead`).
        pool: "mean" over H and W, or "sum" as in the code of SN-GAN (arXiv:1802.05957), whose linear layer has no bias.
        init: "glorot", or "kaiming" as in the code of PRC-GAN (arXiv:2006.06900): the 3 x 3 convolutions in the blocks
            have a std of sqrt(2 / n_out), which is another law for the very first one only.

    Raises:
        ValueError: for shares outside [0, 1); for an unknown `pool` or `init`; for sides of no such form.

    >>> import torch
    >>> critic = ResNetDiscriminator((1, 28, 28), width=4)
    >>> critic(torch.randn(2, 1, 28, 28)).shape, [type(block).__name__ for block in critic.blocks]
    (torch.Size([2]), ['ImageBlock', 'DownBlock', 'PlainBlock', 'PlainBlock'])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        width: int = 128,
        norm: Norm = "none",
        num_classes: int | None = None,
        dropout: tuple[float, float, float] = (0.0, 0.0, 0.0),
        pool: Pool = "mean",
        init: Init = "glorot",
    ) -> None:
        checks.sizes(shape=shape, width=width, num_classes=num_classes)
        super().__init__()
        checks.one_of("pool", pool, get_args(Pool))
        checks.one_of("init", init, get_args(Init))
        checks.each(
            {"dropout": dropout}, "three shares in [0, 1)", lambda d: len(d) == 3 and all(0 <= p < 1 for p in d)
        )
        generator_stages(shape, "ResNetDiscriminator")
        self.shape, self.num_classes, self.pool = tuple(shape), num_classes, pool
        first = ImageBlock(self.shape[0], width)
        self.blocks = nn.Sequential(
            first,
            *(DownBlock(width, width, norm) for _ in range(min(halvings(side, 5) for side in self.shape[1:]) - 1)),
            PlainBlock(width, norm),
            PlainBlock(width, norm),
        )
        self.dropout = [0.0] * (len(self.blocks) - 3) + list(dropout)
        self.head = ProjectionHead(width, num_classes, bias=pool == "mean")
        if init == "kaiming":
            nn.init.kaiming_uniform_(first.conv1.weight, mode="fan_out", nonlinearity="relu")
        channels_last_(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` to scores ``(N,)``."""
        check_input(x, self.shape, "ResNetDiscriminator")
        check_labels(labels, self.num_classes, len(x), "ResNetDiscriminator")
        for block, p in zip(self.blocks, self.dropout):
            x = F.dropout(block(x), p, self.training) if p > 0 else block(x)
        h = F.relu(x)
        return self.head(h.mean((2, 3)) if self.pool == "mean" else h.sum((2, 3)), labels)
