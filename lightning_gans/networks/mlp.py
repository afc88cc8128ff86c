"""Multi-layer perceptrons: the toy networks of the WGAN-GP code, also the 1-32-1 networks of the primal-dual study."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import append_one_hot, check_input, check_labels, glorot_


def _perceptron(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """`depth` hidden ReLU layers of `width` units, He-uniform; a linear output layer, Glorot-uniform; biases 0."""
    layers: list[nn.Module] = []
    for fan_in in [inputs] + [width] * (depth - 1):
        hidden = nn.Linear(fan_in, width)
        nn.init.kaiming_uniform_(hidden.weight, nonlinearity="relu")
        nn.init.zeros_(hidden.bias)
        layers += [hidden, nn.ReLU()]
    return nn.Sequential(*layers, glorot_(nn.Linear(width, outputs)))


class ToyGenerator(nn.Module):
    """MLP from noise to points, or to images: `depth` ReLU layers of `width` units and a linear output.

    ===================================== ==================
    layer (defaults)                      output
    ===================================== ==================
    z, and the one-hot label if any       (N, 2)
    3 x [linear, ReLU]                    (N, 512)
    linear                                (N, 2)
    ===================================== ==================

    527 874 parameters at the defaults, the toy network of the WGAN-GP code (arXiv:1704.00028). With ``shape=(1,),
    latent_dim=1, width=32, depth=1`` it is the 1-32-1 network of the primal-dual study (arXiv:1802.01765), of 97.

    Args:
        shape: of one sample, ``(d,)`` or ``(C, H, W)``; images end in a tanh, the output is unbounded otherwise.
        latent_dim: length of z.
        width: units of each hidden layer.
        depth: number of hidden layers, at least 1.
        num_classes: makes it conditional: ``forward(z, labels)``.

    >>> import torch
    >>> generator = ToyGenerator(shape=(1,), latent_dim=1, width=32, depth=1)
    >>> generator(torch.randn(4, 1)).shape, sum(p.numel() for p in generator.parameters())
    (torch.Size([4, 1]), 97)
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (2,),
        latent_dim: int = 2,
        width: int = 512,
        depth: int = 3,
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, width=width, depth=depth, num_classes=num_classes)
        super().__init__()
        self.shape, self.latent_dim, self.num_classes = tuple(shape), latent_dim, num_classes
        self.layers = _perceptron(latent_dim + (num_classes or 0), math.prod(self.shape), width, depth)
        if len(self.shape) == 3:
            self.layers.append(nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, *shape)``."""
        check_input(z, (self.latent_dim,), "ToyGenerator")
        check_labels(labels, self.num_classes, len(z), "ToyGenerator")
        return self.layers(append_one_hot(z, labels, self.num_classes)).unflatten(1, self.shape)


class ToyDiscriminator(nn.Module):
    """MLP from points, or flattened images, to a raw score: `depth` ReLU layers of `width` units.

    ===================================== ==================
    layer (defaults)                      output
    ===================================== ==================
    x flat, and the one-hot label if any  (N, 2)
    3 x [linear, ReLU]                    (N, 512)
    linear                                (N,)
    ===================================== ==================

    527 361 parameters at the defaults (arXiv:1704.00028), 97 as a 1-32-1 network. No normalisation, so any per-sample
    penalty is welcome. Arguments as in `ToyGenerator`.

    >>> import torch
    >>> critic = ToyDiscriminator(shape=(2,), width=8, num_classes=3)
    >>> critic(torch.randn(4, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4])
    """

    num_classes: int | None

    def __init__(
        self, shape: tuple[int, ...] = (2,), width: int = 512, depth: int = 3, num_classes: int | None = None
    ) -> None:
        checks.sizes(shape=shape, width=width, depth=depth, num_classes=num_classes)
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        self.layers = _perceptron(math.prod(self.shape) + (num_classes or 0), 1, width, depth)

    @property
    def perceptron(self) -> nn.Sequential | None:
        """What scores flattened samples, by which penalties on the input gradient are faster; None with labels."""
        return self.layers if self.num_classes is None and type(self) is ToyDiscriminator else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, *shape)`` to scores ``(N,)``."""
        check_input(x, self.shape, "ToyDiscriminator")
        check_labels(labels, self.num_classes, len(x), "ToyDiscriminator")
        return self.layers(append_one_hot(x.flatten(1), labels, self.num_classes)).squeeze(1)
