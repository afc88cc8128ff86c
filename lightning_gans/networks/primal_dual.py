"""The MNIST networks of a replication study of the primal-dual GAN (arXiv:1802.01765): 28 x 28 grey images."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import ProjectionHead, append_one_hot, check_input, check_labels


class PrimalDualGenerator(nn.Module):
    """Noise to 28 x 28 images.

    ============================================= ===================
    layer (width 64)                              output
    ============================================= ===================
    z, and the one-hot label if any               (N, 4)
    linear, dropout                               (N, 3136)
    reshape                                       (N, 64, 7, 7)
    upsample, conv3, dropout                      (N, 64, 14, 14)
    conv3, dropout                                (N, 32, 14, 14)
    upsample, conv3                               (N, 1, 28, 28)
    ============================================= ===================

    71 361 parameters. The study's table lists no activation, so that its generator is linear in z but for dropout, and
    so is this one, with unbounded pixels. Kernel size, nearest-neighbour upsampling, rate of dropout and, with
    ``activations``, ReLUs before each dropout and a tanh at the end (data in [-1, 1]) are our choice.

    Args:
        latent_dim: length of z.
        width: channels of the first maps, even.
        dropout: rate, in [0, 1).
        activations: ReLUs, and a tanh at the end.
        num_classes: makes it conditional: ``forward(z, labels)``, the label appended to z as a one-hot vector.

    >>> import torch
    >>> generator = PrimalDualGenerator(latent_dim=4)
    >>> generator(torch.randn(2, 4)).shape, sum(p.numel() for p in generator.parameters())
    (torch.Size([2, 1, 28, 28]), 71361)
    """

    num_classes: int | None
    shape = (1, 28, 28)

    def __init__(
        self,
        latent_dim: int = 4,
        width: int = 64,
        dropout: float = 0.3,
        activations: bool = False,
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(latent_dim=latent_dim, width=width, num_classes=num_classes)
        checks.below_one(dropout=dropout)
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes

        def after() -> list[nn.Module]:
            return [*([nn.ReLU()] if activations else []), nn.Dropout(dropout)]

        self.layers = nn.Sequential(
            nn.Linear(latent_dim + (num_classes or 0), width * 7 * 7),
            *after(),
            nn.Unflatten(1, (width, 7, 7)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            *after(),
            nn.Conv2d(width, width // 2, 3, padding=1),
            *after(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width // 2, 1, 3, padding=1),
            *([nn.Tanh()] if activations else []),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, 1, 28, 28)``."""
        check_input(z, (self.latent_dim,), "PrimalDualGenerator")
        check_labels(labels, self.num_classes, len(z), "PrimalDualGenerator")
        return self.layers(append_one_hot(z, labels, self.num_classes))


class PrimalDualDiscriminator(nn.Module):
    """28 x 28 images to a raw score.

    ============================================== ===================
    layer (width 128)                              output
    ============================================== ===================
    conv3 s2, LeakyReLU(0.2), dropout              (N, 128, 14, 14)
    max pool 2                                     (N, 128, 7, 7)
    conv3, LeakyReLU(0.2), dropout                 (N, 128, 7, 7)
    flatten, linear (plus projection on the label) (N,)
    ============================================== ===================

    155 137 parameters. Kernel size, slope and rate of dropout are not in the study's table; they are our choice.

    Args:
        width: channels.
        dropout: rate, in [0, 1).
        num_classes: makes it conditional: ``forward(x, labels)`` (see `ProjectionHead`).

    >>> import torch
    >>> critic = PrimalDualDiscriminator()
    >>> critic(torch.randn(2, 1, 28, 28)).shape, sum(p.numel() for p in critic.parameters())
    (torch.Size([2]), 155137)
    """

    num_classes: int | None
    shape = (1, 28, 28)

    def __init__(self, width: int = 128, dropout: float = 0.3, num_classes: int | None = None) -> None:
        checks.sizes(width=width, num_classes=num_classes)
        checks.below_one(dropout=dropout)
        super().__init__()
        self.num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
        )
        self.head = ProjectionHead(width * 7 * 7, num_classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, 1, 28, 28)`` to scores ``(N,)``."""
        check_input(x, self.shape, "PrimalDualDiscriminator")
        check_labels(labels, self.num_classes, len(x), "PrimalDualDiscriminator")
        return self.head(self.layers(x).flatten(1), labels)
