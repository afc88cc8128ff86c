"""The deeper residual networks of the 64 x 64 experiments in the WGAN-GP code (arXiv:1704.00028), also for other sides.

That code trains a list of architectures with the same settings. The others of the list are

============================================== =====================================================================
generator and discriminator                    here
============================================== =====================================================================
DCGAN                                          `DCGANGenerator`, `DCGANDiscriminator`
generator without BN and of constant width     ``DCGANGenerator(norm="none", constant_width=True)``
no normalisation anywhere                      ``norm="none"`` in both
tanh everywhere                                ``activation="tanh"`` in both
gated units                                    ``activation="gated"`` in both
generator a ReLU MLP of 4 layers               ``ToyGenerator(shape=(3, 64, 64), latent_dim=128, width=512, depth=4)``
============================================== =====================================================================

where a discriminator with a gradient penalty has ``norm="layer"`` wherever it would have batch norm.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks
from lightning_gans.networks.fold import DownConv2d, UpConv2d
from lightning_gans.networks.layers import (
    Norm,
    ProjectionHead,
    append_one_hot,
    below,
    channels_last_,
    check_input,
    check_labels,
    glorot_,
    make_norm,
)
from lightning_gans.networks.resnet import HE, DownBlock, UpBlock, conv3, generator_stages

BLOCKS = 33  # of three convolutions; with the first and the last layer there are 101


# ------------------------------------------------------------------------------------------------- tapered


class TaperedResNetGenerator(nn.Module):
    """Noise to images in [-1, 1] by residual blocks whose channels fall as the resolution grows.

    ============================================= ===================
    layer (defaults)                              output
    ============================================= ===================
    z, and the one-hot label if any               (N, 128)
    linear                                        (N, 512, 4, 4)
    `UpBlock`                                     (N, 512, 8, 8)
    `UpBlock`                                     (N, 256, 16, 16)
    `UpBlock`                                     (N, 128, 32, 32)
    `UpBlock`                                     (N, 64, 64, 64)
    norm, ReLU, conv3, tanh                       (N, 3, 64, 64)
    ============================================= ===================

    8 541 443 parameters. Smaller images have fewer blocks, the first of which keeps its channels too: 32 starts at
    (4 width, 4, 4), 28 at (2 width, 7, 7), 16 at (2 width, 4, 4), 8 at (width, 4, 4); larger ones start at 8 width.
    Initialisation: as in `ResNetGenerator`. Ours: the place where a block changes its channels (see `UpBlock`), sides
    other than 64, and the label.

    Args:
        shape: ``(C, H, W)``, with the sides that `ResNetGenerator` takes.
        latent_dim: length of z.
        width: channels of the last hidden map.
        norm: "batch", "none", "layer", "instance" or "group" (see `make_norm`).
        num_classes: makes it conditional: ``forward(z, labels)``, the label appended to z as a one-hot vector.

    >>> import torch
    >>> generator = TaperedResNetGenerator((3, 32, 32), latent_dim=8, width=4)
    >>> generator(torch.randn(2, 8)).shape
    torch.Size([2, 3, 32, 32])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 64, 64),
        latent_dim: int = 128,
        width: int = 64,
        norm: Norm = "batch",
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, width=width, num_classes=num_classes)
        super().__init__()
        stages = generator_stages(shape, "TaperedResNetGenerator")
        self.shape, self.latent_dim, self.num_classes = tuple(shape), latent_dim, num_classes
        channels = _tapered_widths(width, stages)[::-1]
        bottom = (channels[0], *below(self.shape, stages))
        self.layers = nn.Sequential(
            glorot_(nn.Linear(latent_dim + (num_classes or 0), math.prod(bottom))),
            nn.Unflatten(1, bottom),
            *(UpBlock(c_in, c_out, norm) for c_in, c_out in pairwise(channels)),
            make_norm(norm, width),
            nn.ReLU(),
            conv3(width, self.shape[0], gain=1),
            nn.Tanh(),
        )
        channels_last_(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, C, H, W)`` in [-1, 1]."""
        check_input(z, (self.latent_dim,), "TaperedResNetGenerator")
        check_labels(labels, self.num_classes, len(z), "TaperedResNetGenerator")
        return self.layers(append_one_hot(z, labels, self.num_classes)).contiguous()  # a user's critic may call view


class TaperedResNetDiscriminator(nn.Module):
    """Images to a raw score by residual blocks whose channels grow as the resolution falls.

    ============================================== ===================
    layer (defaults)                               output
    ============================================== ===================
    conv3                                          (N, 64, 64, 64)
    `DownBlock`                                    (N, 128, 32, 32)
    `DownBlock`                                    (N, 256, 16, 16)
    `DownBlock`                                    (N, 512, 8, 8)
    `DownBlock`                                    (N, 512, 4, 4)
    flatten, linear (plus projection on the label) (N,)
    ============================================== ===================

    7 492 801 parameters. Other sides mirror those of `TaperedResNetGenerator`. Initialisation: as in
    `ResNetGenerator`, the first convolution with a gain of 1. Ours: that gain, the place where a block changes its
    channels (see `DownBlock`), sides other than 64, and the projection.

    Args:
        shape: ``(C, H, W)``, with the sides that `ResNetGenerator` takes.
        width: channels of the first map.
        norm: "layer" as in the code with a gradient penalty, "batch" as in the code without one, "none", "instance" or
            "group" (see `make_norm`).
        num_classes: makes it conditional: ``forward(x, labels)``, a projection discriminator (see `ProjectionHead`).

    >>> import torch
    >>> critic = TaperedResNetDiscriminator((3, 32, 32), width=4)
    >>> critic(torch.randn(2, 3, 32, 32)).shape, critic.head.score.in_features
    (torch.Size([2]), 256)
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 64, 64),
        width: int = 64,
        norm: Norm = "layer",
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, width=width, num_classes=num_classes)
        super().__init__()
        stages = generator_stages(shape, "TaperedResNetDiscriminator")
        self.shape, self.num_classes = tuple(shape), num_classes
        channels = _tapered_widths(width, stages)
        self.layers = nn.Sequential(
            conv3(self.shape[0], width, gain=1),
            *(DownBlock(c_in, c_out, norm) for c_in, c_out in pairwise(channels)),
        )
        self.head = ProjectionHead(channels[-1] * math.prod(below(self.shape, stages)), num_classes)
        channels_last_(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` to scores ``(N,)``."""
        check_input(x, self.shape, "TaperedResNetDiscriminator")
        check_labels(labels, self.num_classes, len(x), "TaperedResNetDiscriminator")
        return self.head(self.layers(x).flatten(1), labels)


def _tapered_widths(width: int, stages: int) -> list[int]:
    """Channels from the side of the image to the bottom: doubled by each of up to three stages, not by the last one."""
    return [width * 2 ** min(i, stages - 1, 3) for i in range(stages + 1)]


# ------------------------------------------------------------------------------------------------- bottleneck


class BottleneckBlock(nn.Module):
    """``skip(x) + 0.3 norm(h)``, h by ReLU, conv1, ReLU, conv3, ReLU, conv1 with half as many channels between them.

    Args:
        c_in: channels of x.
        c_out: channels of the output. More than `c_in` halve H and W (conv3 + pool2; skip: pool2 + conv1), fewer double
            them (up2 + conv3; skip: up2 + conv1); with as many the skip is the identity.
        norm: after the last convolution, which has no bias.
    """

    def __init__(self, c_in: int, c_out: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = glorot_(nn.Conv2d(c_in, c_in // 2, 1), HE)
        self.skip: nn.Module = nn.Identity()
        if c_in == c_out:
            self.conv2: nn.Conv2d = conv3(c_in // 2, c_out // 2)
        else:
            resample = DownConv2d if c_in < c_out else UpConv2d
            self.conv2 = glorot_(resample(c_in // 2, c_out // 2, 3), HE)
            self.skip = glorot_(resample(c_in, c_out, 1))
        self.conv3 = glorot_(nn.Conv2d(c_out // 2, c_out, 1, bias=False), HE)
        self.norm = make_norm(norm, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, H', W')."""
        h = x
        for conv in (self.conv1, self.conv2, self.conv3):
            h = conv(F.relu(h))
        return self.skip(x) + 0.3 * self.norm(h)


class BottleneckGenerator(nn.Module):
    """Noise to images in [-1, 1] by a residual network of 101 layers.

    ============================================= ===================
    layer (defaults)                              output
    ============================================= ===================
    z, and the one-hot label if any               (N, 128)
    linear                                        (N, 512, 4, 4)
    6 x `BottleneckBlock`                         (N, 512, 4, 4)
    1 doubling and 6 plain ones                   (N, 256, 8, 8)
    1 doubling and 6 plain ones                   (N, 128, 16, 16)
    1 doubling and 6 plain ones                   (N, 64, 32, 32)
    1 doubling and 5 plain ones                   (N, 32, 64, 64)
    conv1, tanh(x / 5)                            (N, 3, 64, 64)
    ============================================= ===================

    8 665 907 parameters; 1 + 33 x 3 + 1 layers, skips not counted. Smaller images have fewer doublings and still 33
    blocks, spread evenly. Initialisation: see `glorot_`, with a gain of sqrt(2) for the convolutions after a ReLU and 1
    for skips, the first and the last layer. Ours: this initialisation, how a block changes the resolution (see
    `BottleneckBlock`), sides other than 64, and the label.

    Args:
        shape: ``(C, H, W)``, with the sides that `ResNetGenerator` takes.
        latent_dim: length of z.
        width: channels of the first map, halved by each doubling; a multiple of 2 to the number of doublings plus one.
        norm: "batch", "none", "layer", "instance" or "group" (see `make_norm`).
        num_classes: makes it conditional: ``forward(z, labels)``, the label appended to z as a one-hot vector.

    >>> import torch
    >>> generator = BottleneckGenerator((3, 16, 16), latent_dim=8, width=16)
    >>> generator(torch.randn(2, 8)).shape
    torch.Size([2, 3, 16, 16])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 64, 64),
        latent_dim: int = 128,
        width: int = 512,
        norm: Norm = "batch",
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, num_classes=num_classes)
        super().__init__()
        stages = generator_stages(shape, "BottleneckGenerator")
        channels = _block_widths(width, stages, "BottleneckGenerator")
        self.shape, self.latent_dim, self.num_classes = tuple(shape), latent_dim, num_classes
        bottom = (width, *below(self.shape, stages))
        self.layers = nn.Sequential(
            glorot_(nn.Linear(latent_dim + (num_classes or 0), math.prod(bottom))),
            nn.Unflatten(1, bottom),
            *(BottleneckBlock(c_in, c_out, norm) for c_in, c_out in pairwise(channels)),
            glorot_(nn.Conv2d(channels[-1], self.shape[0], 1)),
        )
        channels_last_(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, C, H, W)`` in [-1, 1]."""
        check_input(z, (self.latent_dim,), "BottleneckGenerator")
        check_labels(labels, self.num_classes, len(z), "BottleneckGenerator")
        h = self.layers(append_one_hot(z, labels, self.num_classes))
        return (h / 5).tanh().contiguous()  # a user's critic may call view


class BottleneckDiscriminator(nn.Module):
    """Images to a raw score by a residual network of 101 layers, the mirror image of `BottleneckGenerator`.

    ================================================= ===================
    layer (defaults)                                  output
    ================================================= ===================
    conv1                                             (N, 32, 64, 64)
    5 x `BottleneckBlock`                             (N, 32, 64, 64)
    1 halving and 6 plain ones                        (N, 64, 32, 32)
    1 halving and 6 plain ones                        (N, 128, 16, 16)
    1 halving and 6 plain ones                        (N, 256, 8, 8)
    1 halving and 6 plain ones                        (N, 512, 4, 4)
    flatten, linear (plus projection), divided by 5   (N,)
    ================================================= ===================

    7 618 801 parameters. Other sides, initialisation and what is ours: as in `BottleneckGenerator`; ours is also the
    projection.

    Args:
        shape: ``(C, H, W)``, with the sides that `ResNetGenerator` takes.
        width: channels of the last map; each earlier one has half as many. A multiple, as in `BottleneckGenerator`.
        norm: "layer" as in the code with a gradient penalty, "batch" as in the code without one, "none", "instance" or
            "group" (see `make_norm`).
        num_classes: makes it conditional: ``forward(x, labels)``, a projection discriminator (see `ProjectionHead`).

    >>> import torch
    >>> critic = BottleneckDiscriminator((3, 16, 16), width=16, num_classes=5)
    >>> critic(torch.randn(2, 3, 16, 16), torch.tensor([0, 4])).shape
    torch.Size([2])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 64, 64),
        width: int = 512,
        norm: Norm = "layer",
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, num_classes=num_classes)
        super().__init__()
        stages = generator_stages(shape, "BottleneckDiscriminator")
        channels = _block_widths(width, stages, "BottleneckDiscriminator")[::-1]
        self.shape, self.num_classes = tuple(shape), num_classes
        self.layers = nn.Sequential(
            glorot_(nn.Conv2d(self.shape[0], channels[0], 1)),
            *(BottleneckBlock(c_in, c_out, norm) for c_in, c_out in pairwise(channels)),
        )
        self.head = ProjectionHead(width * math.prod(below(self.shape, stages)), num_classes)
        channels_last_(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` to scores ``(N,)``."""
        check_input(x, self.shape, "BottleneckDiscriminator")
        check_labels(labels, self.num_classes, len(x), "BottleneckDiscriminator")
        return self.head(self.layers(x).flatten(1), labels) / 5


def _block_widths(width: int, stages: int, who: str) -> list[int]:
    """Channels before, between and after the 33 blocks of a generator, halved `stages` times."""
    checks.at_least_one(width=width)
    if width % 2 ** (stages + 1):
        raise ValueError(f"{who} takes a width that is a multiple of {2 ** (stages + 1)} for this shape, got {width}.")
    plain, more = divmod(BLOCKS - stages, stages + 1)  # blocks that change nothing, per resolution
    widths = [width]
    for i in range(stages + 1):
        widths += [width >> i] * (plain + (i < more) + (i > 0))
    return widths
