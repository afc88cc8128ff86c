"""A convolution and the change of resolution beside it, computed as one strided convolution.

The mean over 2 x 2 pixels of a 3 x 3 convolution is a 4 x 4 convolution of stride 2, whose kernel is a quarter of the
sum of the four shifts of the 3 x 3 one; a 3 x 3 convolution of repeated pixels is a transposed convolution of the same
kind; and a 1 x 1 convolution commutes with both. That is 4 / 9 and 1 / 4 of the multiplications, and no map at the
higher resolution between the two. The layers hold the parameters of the plain convolution, so checkpoints and
initialisation are those of the network that computes them one after the other.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def _shifted_sum(kernel: Tensor) -> Tensor:
    """The sum of the four one-pixel shifts of (..., 3, 3), as (..., 4, 4)."""
    rows = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


class _Folded(nn.Conv2d):
    def __init__(self, c_in: int, c_out: int, kernel_size: int, bias: bool = True, **kwargs: Any) -> None:
        if kernel_size not in (1, 3):
            raise ValueError(f"{type(self).__name__} takes kernel_size 1 or 3, got {kernel_size}.")
        super().__init__(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=bias, **kwargs)


class DownConv2d(_Folded):
    """``avg_pool2d(conv2d(x), 2)`` of (N, C, H, W), the convolution 1 x 1 or 3 x 3 with zero padding.

    ``weight`` and ``bias`` are those of the convolution. An odd last row or column is dropped, as by the pooling.
    """

    def folded(self) -> Tensor:
        """The 4 x 4 kernel of the strided convolution, of a 3 x 3 one."""
        return _shifted_sum(self.weight) / 4

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 2, W / 2)."""
        if self.kernel_size[0] == 1:
            return F.conv2d(F.avg_pool2d(x, 2), self.weight, self.bias)
        return F.conv2d(x, self.folded(), self.bias, stride=2, padding=1)


class UpConv2d(_Folded):
    """``conv2d(interpolate(x, scale_factor=2))`` of (N, C, H, W), repeating pixels; 1 x 1 or 3 x 3 with zero padding.

    ``weight`` and ``bias`` are those of the convolution.
    """

    def folded(self) -> Tensor:
        """The 4 x 4 kernel of the transposed convolution, of a 3 x 3 one."""
        return _shifted_sum(self.weight.flip(2, 3)).transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', 2 H, 2 W)."""
        if self.kernel_size[0] == 1:
            return F.interpolate(F.conv2d(x, self.weight, self.bias), scale_factor=2)
        return F.conv_transpose2d(x, self.folded(), self.bias, stride=2, padding=1)
