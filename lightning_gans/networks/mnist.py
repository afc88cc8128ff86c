"""The MNIST networks of the WGAN-GP code (arXiv:1704.00028): 28 x 28 grey images with values in [0, 1]."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import (
    Norm,
    ProjectionHead,
    SameConv2d,
    SameConvTranspose2d,
    append_one_hot,
    check_input,
    check_labels,
    glorot_,
    make_norm,
)

HE = math.sqrt(2)  # the gain that the code's "he" flag stands for


class _Crop(nn.Module):
    """Keep the first `size` rows and columns."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.size, : self.size]


class MNISTGenerator(nn.Module):
    """Noise to 28 x 28 images in [0, 1].

    ============================================= ===================
    layer (width 64)                              output
    ============================================= ===================
    z, and the one-hot label if any               (N, 128)
    linear, ReLU                                  (N, 256, 4, 4)
    deconv5 s2, ReLU                              (N, 128, 8, 8)
    crop                                          (N, 128, 7, 7)
    deconv5 s2, ReLU                              (N, 64, 14, 14)
    deconv5 s2, sigmoid                           (N, 1, 28, 28)
    ============================================= ===================

    1 554 177 parameters. Data must be scaled to [0, 1] (``value_range: [0, 1]``), because of the sigmoid.
    Convolutions pad as TensorFlow's 'SAME' does. Initialisation: see `glorot_`.

    Args:
        latent_dim: length of z.
        width: channels of the last hidden map.
        batch_norm: before each ReLU (per unit after the linear layer); the code has it for weight clipping only.
        num_classes: makes it conditional: ``forward(z, labels)``, the label appended to z as a one-hot vector.

    >>> import torch
    >>> x = MNISTGenerator(latent_dim=8, width=4)(torch.randn(2, 8))
    >>> x.shape, bool((x >= 0).all() and (x <= 1).all())
    (torch.Size([2, 1, 28, 28]), True)
    """

    num_classes: int | None
    shape = (1, 28, 28)

    def __init__(
        self, latent_dim: int = 128, width: int = 64, batch_norm: bool = False, num_classes: int | None = None
    ) -> None:
        checks.sizes(latent_dim=latent_dim, width=width, num_classes=num_classes)
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        norm: Norm = "batch" if batch_norm else "none"
        self.layers = nn.Sequential(
            glorot_(nn.Linear(latent_dim + (num_classes or 0), 4 * width * 4 * 4)),
            nn.BatchNorm1d(4 * width * 4 * 4) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, 4, 4)),
            glorot_(SameConvTranspose2d(4 * width, 2 * width), HE),
            make_norm(norm, 2 * width),
            nn.ReLU(),
            _Crop(7),
            glorot_(SameConvTranspose2d(2 * width, width), HE),
            make_norm(norm, width),
            nn.ReLU(),
            glorot_(SameConvTranspose2d(width, 1), HE),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, 1, 28, 28)`` in [0, 1]."""
        check_input(z, (self.latent_dim,), "MNISTGenerator")
        check_labels(labels, self.num_classes, len(z), "MNISTGenerator")
        return self.layers(append_one_hot(z, labels, self.num_classes))


class ThreeConvCritic(nn.Module):
    """Images of one ``shape`` to a raw score, by three convolutions: `MNISTCritic` and `CIFARCritic`.

    Args:
        width: channels of the first map.
        batch_norm: before the second and third LeakyReLU.
        num_classes: makes it conditional: ``forward(x, labels)`` (see `ProjectionHead`).
    """

    num_classes: int | None
    shape: tuple[int, int, int]

    def __init__(self, width: int, batch_norm: bool = False, num_classes: int | None = None) -> None:
        checks.sizes(width=width, num_classes=num_classes)
        super().__init__()
        self.num_classes = num_classes
        norm: Norm = "batch" if batch_norm else "none"
        self.layers = nn.Sequential(
            glorot_(SameConv2d(self.shape[0], width), HE),
            nn.LeakyReLU(0.2),
            glorot_(SameConv2d(width, 2 * width), HE),
            make_norm(norm, 2 * width),
            nn.LeakyReLU(0.2),
            glorot_(SameConv2d(2 * width, 4 * width), HE),
            make_norm(norm, 4 * width),
            nn.LeakyReLU(0.2),
        )
        self.head = ProjectionHead(4 * width * 4 * 4, num_classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, *shape)`` to scores ``(N,)``."""
        check_input(x, self.shape, type(self).__name__)
        check_labels(labels, self.num_classes, len(x), type(self).__name__)
        return self.head(self.layers(x).flatten(1), labels)


class MNISTCritic(ThreeConvCritic):
    """28 x 28 images to a raw score.

    ============================================== ===================
    layer (width 64)                               output
    ============================================== ===================
    conv5 s2, LeakyReLU(0.2)                       (N, 64, 14, 14)
    conv5 s2, LeakyReLU(0.2)                       (N, 128, 7, 7)
    conv5 s2, LeakyReLU(0.2)                       (N, 256, 4, 4)
    flatten, linear (plus projection on the label) (N,)
    ============================================== ===================

    1 030 145 parameters. Convolutions pad as TensorFlow's 'SAME' does. Initialisation: see `glorot_`.

    Args:
        width: channels of the first map.
        batch_norm: before the second and third LeakyReLU; the code has it for weight clipping only.
        num_classes: makes it conditional: ``forward(x, labels)`` (see `ProjectionHead`).

    >>> import torch
    >>> critic = MNISTCritic(width=4)
    >>> critic(torch.rand(2, 1, 28, 28)).shape, critic.head.score.in_features
    (torch.Size([2]), 256)
    """

    shape = (1, 28, 28)

    def __init__(self, width: int = 64, batch_norm: bool = False, num_classes: int | None = None) -> None:
        super().__init__(width, batch_norm, num_classes)
