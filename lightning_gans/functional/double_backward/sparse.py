"""What a gradient penalty costs in the second backward pass, without the part of it that is zero.

Torch's formulas for the backward pass of ReLU, LeakyReLU and average pooling name the forward activation as an input,
with a derivative of zero, so the second backward pass drags zeros through the whole critic; and that of a convolution
takes a slow general route to the weight's gradient. `sparse_double_backward` is a mode under which a network is called,
its own code unchanged, that replaces these three by functions with the same values and the same derivatives of every
order (where they exist). All else stays torch's own, so norms, smooth activations and linear layers need no exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_aten = torch.ops.aten
SMALL = 2**15  # elements of a (N, F) activation below which the replacement costs more than it saves


class Session:
    """One input gradient; `inner` is true while it is taken, when no parameter's gradient is wanted.

    Attributes:
        x: what the network is called on, usually a leaf.
        replaced: whether anything was replaced.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.inner = False
        self.replaced = False


class _Geometry(NamedTuple):
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int


# Each function saves what torch's own saves, so that activation checkpointing, which recomputes without the mode, fits.
class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        y = torch.relu_(x) if inplace else torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _aten.threshold_backward(grads[0], ctx.saved_tensors[0].detach(), 0), None


class _LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        y = F.leaky_relu(x, slope, inplace)
        ctx.save_for_backward(y if inplace else x)
        ctx.settings = slope, inplace
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _aten.leaky_relu_backward(grads[0], ctx.saved_tensors[0].detach(), *ctx.settings), None, None


class _AvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.settings = settings
        return F.avg_pool2d(x, *settings)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        size, stride, *rest = ctx.settings
        gradient = _aten.avg_pool2d_backward(grads[0], ctx.saved_tensors[0].detach(), size, stride or size, *rest)
        return gradient, *[None] * len(ctx.settings)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, session: Session, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.session, ctx.geometry = session, geometry
        return torch.convolution(x, w, b, *geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, w), (g,) = ctx.saved_tensors, grads
        if ctx.session.inner:
            to_x = _ConvolutionInputGradient.apply(g, w, x.detach(), ctx.geometry) if ctx.needs_input_grad[0] else None
            return to_x, None, None, None, None
        out = w.size(1) * ctx.geometry.groups if ctx.geometry.transposed else w.size(0)
        wanted = list(ctx.needs_input_grad[:3])
        return *_aten.convolution_backward(g, x, w, [out], *ctx.geometry, wanted), None, None


class _ConvolutionInputGradient(torch.autograd.Function):
    """The gradient A(w)' g of <A(w) x, g>, which is linear in g and in w; x only lends its shape."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.geometry = geometry
        return _aten.convolution_backward(g, x, w, None, *geometry, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g, w), (t,) = ctx.saved_tensors, grads
        to_g = torch.convolution(t, w, None, *ctx.geometry) if ctx.needs_input_grad[0] else None
        to_w = None
        if ctx.needs_input_grad[1]:
            to_w = _aten.convolution_backward(g, t, w, None, *ctx.geometry, [False, True, False])[1]
        return to_g, to_w, None, None


def reaches(value: Tensor, x: Tensor, limit: int = 200) -> bool:
    """Whether `value` is computed from x; also true where the graph is too large to tell."""
    waiting: list[Any] = [value.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node is x.grad_fn or getattr(node, "variable", None) is x or len(seen) == limit:
            return True
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return False


def _own(*tensors: Any) -> bool:
    """Whether torch's own kernels would be called directly on these."""
    for t in tensors:
        if t is not None and type(t) not in (Tensor, nn.Parameter):
            return False
    autocast = torch.is_autocast_enabled(tensors[0].device.type)
    return not autocast and not torch._C._are_functorch_transforms_active()


def _pays(x: Tensor) -> bool:
    return x.requires_grad and (x.ndim != 2 or x.numel() >= SMALL) and _own(x)


def _relu(session: Session, function: Callable[..., Tensor], input: Tensor, inplace: bool = False) -> Tensor:
    x, inplace = input, inplace or function in (torch.relu_, Tensor.relu_)
    if not _pays(x) or (inplace and x._is_view()):
        return F.relu(x, inplace)
    session.replaced = True
    return _ReLU.apply(x, inplace)


def _leaky_relu(
    session: Session,
    function: Callable[..., Tensor],
    input: Tensor,
    negative_slope: float = 0.01,
    inplace: bool = False,
) -> Tensor:
    inplace = inplace or function is F.leaky_relu_
    x, refused = input, inplace and (input._is_view() or negative_slope < 0)
    if not _pays(x) or refused:
        return F.leaky_relu(x, negative_slope, inplace)
    session.replaced = True
    return _LeakyReLU.apply(x, negative_slope, inplace)


def _avg_pool2d(
    session: Session,
    function: Callable[..., Tensor],
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    settings: list[Any] = [_pair(kernel_size), _pair(stride) if stride else [], _pair(padding)]
    settings += [ceil_mode, count_include_pad, divisor_override]
    if not _own(input) or not input.requires_grad:
        return F.avg_pool2d(input, *settings)
    session.replaced = True
    return _AvgPool2d.apply(input, *settings)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _convolution(spatial: int, transposed: bool) -> Callable[..., Tensor]:
    names = ("input", "weight", "bias", "stride", "padding", *(("output_padding",) if transposed else ()))
    names += ("groups", "dilation") if transposed else ("dilation", "groups")

    def convolve(session: Session, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        given = {**dict(zip(names, args)), **kwargs}
        x, w, b, padding = given["input"], given["weight"], given.get("bias"), given.get("padding", 0)
        if (
            isinstance(padding, str)
            or not _own(x, w, b)
            or not x.requires_grad
            or x.ndim != spatial + 2
            or (w.grad_fn is not None and reaches(w, session.x))  # then its gradient is part of x's
            or (b is not None and b.grad_fn is not None and reaches(b, session.x))
        ):
            return function(*args, **kwargs)
        numbers = [given.get("stride", 1), padding, given.get("dilation", 1), given.get("output_padding", 0)]
        for i, number in enumerate(numbers):
            short = isinstance(number, int) or len(number) == 1
            numbers[i] = [number if isinstance(number, int) else number[0]] * spatial if short else list(number)
        stride, padding, dilation, more = numbers
        geometry = _Geometry(stride, padding, dilation, transposed, more, given.get("groups", 1))
        session.replaced = True
        return _Convolution.apply(x, w, b, session, geometry)

    return convolve


_REPLACED: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _relu),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky_relu),
    F.avg_pool2d: _avg_pool2d,
    F.conv1d: _convolution(1, False),
    F.conv2d: _convolution(2, False),
    F.conv3d: _convolution(3, False),
    F.conv_transpose1d: _convolution(1, True),
    F.conv_transpose2d: _convolution(2, True),
    F.conv_transpose3d: _convolution(3, True),
}


class _Replace(TorchFunctionMode):
    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replaced = _REPLACED.get(func)
        if replaced is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        return replaced(self.session, func, *args, **(kwargs or {}))


@contextmanager
def sparse_double_backward(x: Tensor) -> Iterator[Session]:
    """Call a network on `x` under this; set the session's `inner` while its gradient by x is taken.

    Without `inner` a function's backward pass is torch's. With it convolutions give no gradient to their weights, which
    `torch.autograd.grad` would not use; a weight that depends on x is noticed, and its convolution left alone.
    """
    session = Session(x)
    with _Replace(session):
        yield session
