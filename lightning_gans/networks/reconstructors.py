"""What changed between two samples: the networks that search for directions in a latent space."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.classifiers import LeNet, ResNetClassifier
from lightning_gans.networks.layers import check_input
from lightning_gans.networks.mlp import ToyDiscriminator

Body = Literal["lenet", "resnet", "mlp"]
_FEATURES = 128


class Reconstructor(nn.Module):
    """R(x1, x2): which of the directions x2 was shifted along, and how far (arXiv:2002.03754).

    ============================================= ===================
    layer (defaults)                              output
    ============================================= ===================
    x1 and x2 one after the other, by channels    (N, 2, 28, 28)
    body: the features of a LeNet                 (N, 128)
    for each head: linear, ReLU, linear           (N, 10) and (N,)
    ============================================= ===================

    Departures: the bodies are our small classifiers without their last layer, so that any size from 4 x 4 on will do.

    Args:
        shape: of one sample; ``(C, H, W)`` with H and W at least 4 but for an MLP, which takes any.
        num_directions: how many there are to choose from.
        body: ``lenet``, ``resnet`` (its BatchNorm sees both samples of a pair), or ``mlp`` of two ReLU layers, which
            gets x1 and x2 - x1; None takes a LeNet for images and an MLP for anything else.

    >>> logits, shifts = Reconstructor((1, 8, 8), num_directions=5)(*torch.randn(2, 3, 1, 8, 8))
    >>> logits.shape, shifts.shape
    (torch.Size([3, 5]), torch.Size([3]))
    """

    def __init__(self, shape: tuple[int, ...] = (1, 28, 28), num_directions: int = 10, body: Body | None = None):
        checks.sizes(shape=shape, num_directions=num_directions)
        super().__init__()
        self.shape, self.num_directions = tuple(shape), num_directions
        body = body or ("lenet" if len(shape) == 3 and min(shape[1:]) >= 4 else "mlp")
        checks.one_of("body", body, get_args(Body))
        self.body: nn.Module
        if body == "mlp":
            layers = ToyDiscriminator((2 * math.prod(shape),), _FEATURES, depth=2).layers
            self.body = layers[:-1]
        else:
            images = (2 * shape[0], *shape[1:])
            classifier: nn.Module = LeNet(images) if body == "lenet" else ResNetClassifier(images)
            classifier.logits = nn.Identity()
            self.body = classifier
        self.flat = body == "mlp"
        self.which, self.how_far = (
            nn.Sequential(nn.Linear(_FEATURES, 84), nn.ReLU(), nn.Linear(84, outputs))
            for outputs in (num_directions, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Two times ``(N, *shape)`` to logits ``(N, num_directions)`` and shifts ``(N,)``."""
        check_input(first, self.shape, "Reconstructor")
        check_input(second, self.shape, "Reconstructor")
        if self.flat:
            pair = torch.cat([first.flatten(1), (second - first).flatten(1)], 1)
        else:
            pair = torch.cat([first, second], 1)
        features = self.body(pair)
        return self.which(features), self.how_far(features).squeeze(1)
