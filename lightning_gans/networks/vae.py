"""Encoder and decoder of small variational autoencoders: gated layers, as in the code of the Exemplar VAE."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import check_input


def _gated(inputs: int, width: int, depth: int) -> nn.Sequential:
    """`depth` layers of a linear part times the sigmoid of another."""
    layers: list[nn.Module] = []
    for fan_in in [inputs] + [width] * (depth - 1):
        layers += [nn.Linear(fan_in, 2 * width), nn.GLU()]
    return nn.Sequential(*layers)


class VAEEncoder(nn.Module):
    """MLP from samples to the mean and the log variance of a normal distribution of z.

    ===================================== ==================
    layer (defaults)                      output
    ===================================== ==================
    x flat                                (N, 784)
    2 x [linear, gate]                    (N, 300)
    linear; linear, cut off at -6 and 2   2 times (N, 40)
    ===================================== ==================

    675 680 parameters at the defaults, the network of arXiv:2004.04795.

    Args:
        shape: of one sample.
        latent_dim: length of z.
        width: units of each hidden layer.
        depth: number of hidden layers, at least 1.

    >>> import torch
    >>> mean, log_variance = VAEEncoder((1, 8, 8), latent_dim=3, width=16)(torch.randn(4, 1, 8, 8))
    >>> mean.shape, log_variance.shape
    (torch.Size([4, 3]), torch.Size([4, 3]))
    """

    def __init__(
        self, shape: tuple[int, ...] = (1, 28, 28), latent_dim: int = 40, width: int = 300, depth: int = 2
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, width=width, depth=depth)
        super().__init__()
        self.shape, self.latent_dim = tuple(shape), latent_dim
        self.layers = _gated(math.prod(self.shape), width, depth)
        self.mean = nn.Linear(width, latent_dim)
        self.log_variance = nn.Sequential(nn.Linear(width, latent_dim), nn.Hardtanh(-6.0, 2.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, *shape)`` to means and log variances ``(N, latent_dim)``."""
        check_input(x, self.shape, "VAEEncoder")
        features = self.layers(x.flatten(1))
        return self.mean(features), self.log_variance(features)


class VAEDecoder(nn.Module):
    """MLP from z to the mean of samples, in [-1, 1] for images.

    ===================================== ==================
    layer (defaults)                      output
    ===================================== ==================
    z                                     (N, 40)
    2 x [linear, gate]                    (N, 300)
    linear, tanh for images               (N, 1, 28, 28)
    ===================================== ==================

    Arguments as in `VAEEncoder`; ``shape`` is ``(C, H, W)`` for images, any other is unbounded.

    >>> import torch
    >>> x = VAEDecoder((1, 8, 8), latent_dim=3, width=16)(torch.randn(4, 3))
    >>> x.shape, bool(x.abs().max() <= 1)
    (torch.Size([4, 1, 8, 8]), True)
    """

    def __init__(
        self, shape: tuple[int, ...] = (1, 28, 28), latent_dim: int = 40, width: int = 300, depth: int = 2
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, width=width, depth=depth)
        super().__init__()
        self.shape, self.latent_dim = tuple(shape), latent_dim
        self.layers = _gated(latent_dim, width, depth).append(nn.Linear(width, math.prod(self.shape)))
        if len(self.shape) == 3:
            self.layers.append(nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """``(N, latent_dim)`` to ``(N, *shape)``."""
        check_input(z, (self.latent_dim,), "VAEDecoder")
        return self.layers(z).unflatten(1, self.shape)
