"""DCGAN (arXiv:1511.06434) for images of 8, 16, 28, 32, 64 or other pixels, square or not."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import (
    GatedTanh,
    Norm,
    ProjectionHead,
    append_one_hot,
    below,
    check_input,
    check_labels,
    halvings,
    image_shape,
    make_norm,
)

SIDES = "H and W multiples of 4 from 16 on, or both 8"
Activation = Literal["relu", "tanh", "gated"]


def _stages(height: int, width: int) -> int:
    """How often both sides are halved: 16, 28, 32, 64 to 4, 7, 4, 4 pixels, and 8 to 2; 0 for fewer times."""
    if (height, width) == (8, 8):
        return 2
    depth = min(halvings(height, 4), halvings(width, 4))
    return depth if depth > 1 else 0


def _initialise(module: nn.Module) -> None:
    """The paper's initialisation: every weight N(0, 0.02), gains of normalisations N(1, 0.02), every bias 0."""
    scaling = not isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding))
    for name, parameter in module.named_parameters(recurse=False):
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, mean=float(scaling), std=0.02)


def _activation(name: Activation, slope: float) -> nn.Module:
    """The activation by name; `slope` is that of the negative side of "relu"."""
    if name == "relu":
        return nn.LeakyReLU(slope) if slope else nn.ReLU()
    return nn.Tanh() if name == "tanh" else GatedTanh()


class DCGANGenerator(nn.Module):
    """Noise to images in [-1, 1] by transposed convolutions (kernel 4, stride 2), ReLU and a last tanh.

    ============================================= ===================
    layer (shape (3, 64, 64), width 64)           output
    ============================================= ===================
    z, and the one-hot label if any               (N, 100)
    linear, norm, ReLU                            (N, 512, 4, 4)
    deconv4 s2, norm, ReLU                        (N, 256, 8, 8)
    deconv4 s2, norm, ReLU                        (N, 128, 16, 16)
    deconv4 s2, norm, ReLU                        (N, 64, 32, 32)
    deconv4 s2, tanh                              (N, 3, 64, 64)
    ============================================= ===================

    3 576 707 parameters. Smaller images have fewer stages: 32 starts at (4 width, 4, 4), 28 at (2 width, 7, 7), 16 at
    (2 width, 4, 4), 8 at (2 width, 2, 2). The output carries no normalisation. Weights start as N(0, 0.02).

    Args:
        shape: ``(C, H, W)`` with H and W in 8 (both), 16, 20, 24, 28, 32, 36, ... 64, ...
        latent_dim: length of z.
        width: channels of the last hidden map; each earlier one has twice as many.
        norm: "none", "batch", "layer", "instance" or "group" (see `make_norm`).
        num_classes: makes it conditional: ``forward(z, labels)``, the label appended to z as a one-hot vector.
        activation: "relu", "tanh", or "gated" for sigmoid(a) tanh(b), where the layer and the normalisation before it
            have twice the channels (see `GatedTanh`).
        constant_width: `width` channels in every hidden map.

    >>> import torch
    >>> x = DCGANGenerator((1, 28, 28), latent_dim=8, width=4)(torch.randn(2, 8))
    >>> x.shape, bool(x.abs().max() <= 1)
    (torch.Size([2, 1, 28, 28]), True)
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 64, 64),
        latent_dim: int = 100,
        width: int = 64,
        norm: Norm = "batch",
        num_classes: int | None = None,
        activation: Activation = "relu",
        constant_width: bool = False,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, width=width, num_classes=num_classes)
        super().__init__()
        checks.one_of("activation", activation, get_args(Activation))
        self.shape = image_shape(shape, "DCGANGenerator", SIDES, _stages)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        stages, bias = _stages(*self.shape[1:]), norm == "none"  # a normalisation has a bias of its own
        channels = [width if constant_width else width * 2**i for i in reversed(range(stages))]
        halves = 2 if activation == "gated" else 1
        bottom = (halves * channels[0], *below(self.shape, stages))
        self.project = nn.Sequential(
            nn.Linear(latent_dim + (num_classes or 0), bottom[0] * bottom[1] * bottom[2], bias=bias),
            nn.Unflatten(1, bottom),
            make_norm(norm, bottom[0]),
            _activation(activation, 0),
        )
        self.layers = nn.Sequential()
        for c_in, c_out in pairwise(channels):
            self.layers.append(nn.ConvTranspose2d(c_in, halves * c_out, 4, 2, 1, bias=bias))
            self.layers.extend([make_norm(norm, halves * c_out), _activation(activation, 0)])
        self.layers.extend([nn.ConvTranspose2d(channels[-1], self.shape[0], 4, 2, 1), nn.Tanh()])
        self.apply(_initialise)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, C, H, W)`` in [-1, 1]."""
        check_input(z, (self.latent_dim,), "DCGANGenerator")
        check_labels(labels, self.num_classes, len(z), "DCGANGenerator")
        return self.layers(self.project(append_one_hot(z, labels, self.num_classes)))


class DCGANDiscriminator(nn.Module):
    """Images to a raw score by convolutions (kernel 4, stride 2) and LeakyReLU(0.2).

    ============================================== ===================
    layer (shape (3, 64, 64), width 64)            output
    ============================================== ===================
    conv4 s2, LeakyReLU                            (N, 64, 32, 32)
    conv4 s2, norm, LeakyReLU                      (N, 128, 16, 16)
    conv4 s2, norm, LeakyReLU                      (N, 256, 8, 8)
    conv4 s2, norm, LeakyReLU                      (N, 512, 4, 4)
    flatten, linear (plus projection on the label) (N,)
    ============================================== ===================

    2 765 633 parameters. Smaller images have fewer stages, as in `DCGANGenerator`. The input carries no normalisation.
    Weights start as N(0, 0.02).

    Args:
        shape: ``(C, H, W)`` with H and W in 8 (both), 16, 20, 24, 28, 32, 36, ... 64, ...
        width: channels of the first map; each later one has twice as many.
        norm: "batch" as in the paper, which a per-sample penalty (WGAN-GP) does not allow: then "none", "layer",
            "instance" or "group" (see `make_norm`).
        num_classes: makes it conditional: ``forward(x, labels)``, a projection discriminator (see `ProjectionHead`).
        activation: "relu" for LeakyReLU(0.2), "tanh" or "gated", as in `DCGANGenerator`.
        dropout: share of what each activation puts out that is dropped (CT-GAN, arXiv:1803.01541, needs some).

    >>> import torch
    >>> critic = DCGANDiscriminator((1, 28, 28), width=4, norm="layer", num_classes=10)
    >>> critic(torch.randn(2, 1, 28, 28), torch.tensor([3, 5])).shape
    torch.Size([2])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 64, 64),
        width: int = 64,
        norm: Norm = "batch",
        num_classes: int | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        checks.sizes(shape=shape, width=width, num_classes=num_classes)
        super().__init__()
        checks.one_of("activation", activation, get_args(Activation))
        checks.below_one(dropout=dropout)
        self.shape, self.num_classes = image_shape(shape, "DCGANDiscriminator", SIDES, _stages), num_classes
        stages, bias = _stages(*self.shape[1:]), norm == "none"
        channels = [width * 2**i for i in range(stages)]
        halves = 2 if activation == "gated" else 1
        drop = [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(
            nn.Conv2d(self.shape[0], halves * width, 4, 2, 1), _activation(activation, 0.2), *drop
        )
        for c_in, c_out in pairwise(channels):
            self.layers.append(nn.Conv2d(c_in, halves * c_out, 4, 2, 1, bias=bias))
            self.layers.extend([make_norm(norm, halves * c_out), _activation(activation, 0.2), *drop])
        self.head = ProjectionHead(channels[-1] * math.prod(below(self.shape, stages)), num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` to scores ``(N,)``."""
        check_input(x, self.shape, "DCGANDiscriminator")
        check_labels(labels, self.num_classes, len(x), "DCGANDiscriminator")
        return self.head(self.layers(x).flatten(1), labels)
