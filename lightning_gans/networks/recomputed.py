"""Batch normalisation, ReLU and a convolution that keep one map for the backward pass where torch keeps two.

The normalised map is computed again from the map before it when its gradient is due: torch keeps both, the one as the
input of the normalisation, the other as that of the convolution. A generator's step has its peak of memory there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from lightning_gans.functional.modes import hooked
from lightning_gans.networks.fold import DownConv2d, UpConv2d

_aten = torch.ops.aten
Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]  # the last arguments of aten::convolution


def norm_relu_conv(norm: nn.Module, conv: nn.Module, x: Tensor, *given: Tensor) -> Tensor:
    """``conv(relu(norm(x, *given)))``: the same numbers, gradients and running statistics, of less memory if it can be.

    That is on a CPU, in float32 or float64 without autocast, for a training ``nn.BatchNorm2d`` and a convolution
    without padding modes, hooks or parametrizations; anything else is computed by the modules one after the other.

    Args:
        norm: a layer of normalisation.
        conv: a convolution, folded or not.
        x: (N, C, H, W).
        given: what else the normalisation takes.

    >>> norm, conv, x = nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3), torch.randn(4, 2, 5, 5)
    >>> torch.allclose(norm_relu_conv(norm, conv, x), conv(norm(x).relu()))
    True
    """
    operation = _operation(conv) if _recomputes(norm, x) and not hooked(norm) and not hooked(conv) else None
    if operation is None:
        return conv(F.relu(norm(x, *given)))
    norm.num_batches_tracked.add_(1)  # type: ignore[operator, union-attr]
    return _NormReLUConv.apply(x, norm.weight, norm.bias, *operation[:2], norm, operation[2])


def _recomputes(norm: Any, x: Tensor) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and all(
            v is not None for v in (norm.weight, norm.bias, norm.running_mean, norm.num_batches_tracked, norm.momentum)
        )
        and x.device.type == "cpu"
        and x.dtype == norm.weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and x.ndim == 4
        and x.shape[1] == norm.num_features
        and x.numel() > x.shape[1]  # of one value no statistics: torch says so
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad.unpack_dual(x).tangent is None
    )


def _operation(conv: Any) -> tuple[Tensor, Tensor | None, Geometry] | None:
    """Kernel, bias and geometry of a convolution; None of another layer, such as one under a parametrization."""
    ones = [1, 1]
    if type(conv) in (DownConv2d, UpConv2d) and conv.kernel_size == (3, 3):
        return conv.folded(), conv.bias, ([2, 2], ones, ones, type(conv) is UpConv2d, [0, 0], 1)
    if type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
        return conv.weight, conv.bias, (
            [*conv.stride], [*conv.padding], [*conv.dilation], False, [0, 0], conv.groups)  # fmt: skip
    return None


class _NormReLUConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, kernel: Tensor, bias: Tensor | None, norm: Any, how: Geometry
    ) -> Tensor:
        averages = norm.running_mean, norm.running_var
        y, mean, rstd = _aten.native_batch_norm(x, gain, offset, *averages, True, norm.momentum, norm.eps)
        ctx.save_for_backward(x, gain, offset.clone(), kernel, mean, rstd)  # a copy: torch's backward needs no biases
        ctx.eps, ctx.how, ctx.offset, ctx.bias = norm.eps, how, offset, None if bias is None else bias.shape
        return _aten.convolution(y.relu_(), kernel, bias, *how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, kernel, mean, rstd = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again: torch's own
            # Views, since hooks of the tensors themselves are for the pass that this is a part of.
            x, gain, offset, kernel = (t.view_as(t) for t in (x, gain, ctx.offset, kernel))
            inputs = [t for t, w in zip((x, gain, offset, kernel), wanted) if w]
            y = F.batch_norm(x, None, None, gain, offset, True, 0.0, ctx.eps).relu()
            found = iter(torch.autograd.grad(_aten.convolution(y, kernel, None, *ctx.how), inputs, gradient,
                                             create_graph=True))  # fmt: skip
            by_bias = gradient.sum((0, 2, 3)) if wanted[4] else None
            return *(next(found) if w else None for w in wanted[:4]), by_bias, None, None
        scale = gain * rstd
        y = torch.addcmul((offset - mean * scale)[:, None, None], x, scale[:, None, None]).relu_()
        by_y, by_kernel, by_bias = _aten.convolution_backward(
            gradient, y, kernel, ctx.bias, *ctx.how, [True, *wanted[3:5]]
        )
        by_y = _aten.threshold_backward(by_y, y, 0)
        by_norm = _aten.native_batch_norm_backward(by_y, x, gain, None, None, mean, rstd, True, ctx.eps, wanted[:3])
        return *by_norm, by_kernel, by_bias, None, None
