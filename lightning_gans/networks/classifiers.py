"""Small classifiers whose features stand in for Inception's where those make no sense or cannot be had."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks
from lightning_gans.networks.layers import check_input


class LeNet(nn.Module):
    """A small convolutional classifier for digits.

    ============================================= ===================
    layer (shape (1, 28, 28))                     output
    ============================================= ===================
    conv5 s2, ReLU                                (N, 32, 14, 14)
    conv3, ReLU, max pool 2                       (N, 64, 7, 7)
    flatten, linear, ReLU: the features           (N, 128)
    linear: the logits                            (N, num_classes)
    ============================================= ===================

    422 154 parameters with 10 classes. Images of less than 16 pixels are not halved by the first convolution.

    Args:
        shape: ``(C, H, W)``, H and W at least 4. Values in [-1, 1].
        num_classes: number of logits.

    >>> import torch
    >>> classifier, x = LeNet((1, 28, 28), num_classes=10), torch.zeros(2, 1, 28, 28)
    >>> classifier.features(x).shape, classifier(x).shape
    (torch.Size([2, 128]), torch.Size([2, 10]))
    """

    def __init__(self, shape: tuple[int, ...] = (1, 28, 28), num_classes: int = 10) -> None:
        checks.sizes(shape=shape, num_classes=num_classes)
        super().__init__()
        self.shape, self.num_classes = _at_least_4(shape, "LeNet"), num_classes
        channels, *sides = self.shape
        stride = 2 if min(sides) >= 16 else 1
        self.conv1 = nn.Conv2d(channels, 32, 5, stride, 2)
        self.conv2 = nn.Conv2d(32, 64, 3, 1, 1)
        self.linear = nn.Linear(64 * math.prod(math.ceil(side / stride) // 2 for side in sides), 128)
        self.logits = nn.Linear(128, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` in [-1, 1] to the ``(N, 128)`` activations before the logits."""
        check_input(x, self.shape, "LeNet")
        h = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        return F.relu(self.linear(h.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` in [-1, 1] to logits ``(N, num_classes)``."""
        return self.logits(self.features(x))


class _Residual(nn.Module):
    """conv3, BN, ReLU, conv3, BN, plus the skip (conv1 and BN when the shape changes), ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.skip: nn.Module = nn.Identity()
        if (c_in, stride) != (c_out, 1):
            self.skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + self.skip(x))


class ResNetClassifier(nn.Module):
    """A small residual classifier (arXiv:1512.03385) for CIFAR-10 and the like.

    ============================================= ===================
    layer (shape (3, 32, 32))                     output
    ============================================= ===================
    conv3, BN, ReLU                               (N, 32, 32, 32)
    residual block                                (N, 32, 32, 32)
    residual block, s2                            (N, 64, 16, 16)
    residual block, s2                            (N, 128, 8, 8)
    mean over H and W: the features               (N, 128)
    linear: the logits                            (N, num_classes)
    ============================================= ===================

    308 650 parameters with 10 classes.

    Args:
        shape: ``(C, H, W)``, H and W at least 4. Values in [-1, 1].
        num_classes: number of logits.

    >>> import torch
    >>> classifier, x = ResNetClassifier((3, 8, 8), num_classes=10), torch.zeros(2, 3, 8, 8)
    >>> classifier.features(x).shape, classifier(x).shape
    (torch.Size([2, 128]), torch.Size([2, 10]))
    """

    def __init__(self, shape: tuple[int, ...] = (3, 32, 32), num_classes: int = 10) -> None:
        checks.sizes(shape=shape, num_classes=num_classes)
        super().__init__()
        self.shape, self.num_classes = _at_least_4(shape, "ResNetClassifier"), num_classes
        self.blocks = nn.Sequential(
            nn.Conv2d(self.shape[0], 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            _Residual(32, 32, 1),
            _Residual(32, 64, 2),
            _Residual(64, 128, 2),
        )
        self.logits = nn.Linear(128, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` in [-1, 1] to the ``(N, 128)`` activations before the logits."""
        check_input(x, self.shape, "ResNetClassifier")
        return self.blocks(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` in [-1, 1] to logits ``(N, num_classes)``."""
        return self.logits(self.features(x))


def _at_least_4(shape: tuple[int, ...], who: str) -> tuple[int, ...]:
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ValueError(f"{who} takes shape=(C, H, W) with H and W at least 4, got {tuple(shape)}.")
    return tuple(shape)
