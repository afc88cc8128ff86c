"""The small CIFAR-10 networks of the WGAN-GP code (arXiv:1704.00028): 32 x 32 colour images with values in [-1, 1]."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import SameConvTranspose2d, append_one_hot, check_input, check_labels, glorot_
from lightning_gans.networks.mnist import HE, ThreeConvCritic


class CIFARGenerator(nn.Module):
    """Noise to 32 x 32 colour images in [-1, 1].

    ============================================= ===================
    layer (width 128)                             output
    ============================================= ===================
    z, and the one-hot label if any               (N, 128)
    linear, batch norm per unit, ReLU             (N, 512, 4, 4)
    deconv5 s2, batch norm, ReLU                  (N, 256, 8, 8)
    deconv5 s2, batch norm, ReLU                  (N, 128, 16, 16)
    deconv5 s2, tanh                              (N, 3, 32, 32)
    ============================================= ===================

    5 179 907 parameters. A remark in the code says that this width overfits and 64 is safer.
    Convolutions pad as TensorFlow's 'SAME' does. Initialisation: see `glorot_`.

    Args:
        latent_dim: length of z.
        width: channels of the last hidden map.
        num_classes: makes it conditional: ``forward(z, labels)``, the label appended to z as a one-hot vector.

    >>> import torch
    >>> generator = CIFARGenerator(latent_dim=8, width=4, num_classes=10)
    >>> generator(torch.randn(2, 8), torch.tensor([3, 5])).shape
    torch.Size([2, 3, 32, 32])
    """

    num_classes: int | None
    shape = (3, 32, 32)

    def __init__(self, latent_dim: int = 128, width: int = 128, num_classes: int | None = None) -> None:
        checks.sizes(latent_dim=latent_dim, width=width, num_classes=num_classes)
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.layers = nn.Sequential(
            glorot_(nn.Linear(latent_dim + (num_classes or 0), 4 * width * 4 * 4)),
            nn.BatchNorm1d(4 * width * 4 * 4),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, 4, 4)),
            glorot_(SameConvTranspose2d(4 * width, 2 * width), HE),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            glorot_(SameConvTranspose2d(2 * width, width), HE),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            glorot_(SameConvTranspose2d(width, 3), HE),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, 3, 32, 32)`` in [-1, 1]."""
        check_input(z, (self.latent_dim,), "CIFARGenerator")
        check_labels(labels, self.num_classes, len(z), "CIFARGenerator")
        return self.layers(append_one_hot(z, labels, self.num_classes))


class CIFARCritic(ThreeConvCritic):
    """32 x 32 colour images to a raw score.

    ============================================== ===================
    layer (width 128)                              output
    ============================================== ===================
    conv5 s2, LeakyReLU(0.2)                       (N, 128, 16, 16)
    conv5 s2, LeakyReLU(0.2)                       (N, 256, 8, 8)
    conv5 s2, LeakyReLU(0.2)                       (N, 512, 4, 4)
    flatten, linear (plus projection on the label) (N,)
    ============================================== ===================

    4 114 689 parameters. Convolutions pad as TensorFlow's 'SAME' does. Initialisation: see `glorot_`.

    Args:
        width: channels of the first map.
        batch_norm: before the second and third LeakyReLU; the code has it wherever there is no gradient penalty.
        num_classes: makes it conditional: ``forward(x, labels)`` (see `ProjectionHead`).

    >>> import torch
    >>> critic = CIFARCritic(width=4)
    >>> critic(torch.randn(2, 3, 32, 32)).shape, critic.head.score.in_features
    (torch.Size([2]), 256)
    """

    shape = (3, 32, 32)

    def __init__(self, width: int = 128, batch_norm: bool = False, num_classes: int | None = None) -> None:
        super().__init__(width, batch_norm, num_classes)
