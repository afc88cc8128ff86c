"""The input gradient of a multilayer perceptron as one operation, whose own gradient is written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_aten = torch.ops.aten
Layers = tuple[list[nn.Linear], list[float]]


def perceptron_layers(network: nn.Module | None) -> Layers | None:
    """The linear layers of a network, and the slope below zero behind each but the last; None for any other network.

    Taken are an ``nn.Sequential`` of ``nn.Linear`` that alternate with ``nn.ReLU`` or ``nn.LeakyReLU`` (an
    ``nn.Flatten()`` may come first, and an ``nn.Flatten(0)`` last), and networks that tell one by an attribute
    ``perceptron``, of which they are the scores of flattened samples (a property, or set in the class); no hooks, no
    parametrizations, one score.
    """
    told = network if type(network) is nn.Sequential else getattr(network, "perceptron", None)
    if network is None or type(told) is not nn.Sequential or _hooked(network) or _hooked(told):
        return None
    modules = [*told]
    for place, start in ((0, 1), (-1, 0)):
        if modules and _flattens(modules[place], start):
            del modules[place]
    if len(modules) % 2 == 0:
        return None
    linear, between = modules[0::2], modules[1::2]
    if any(type(m) is not nn.Linear or _hooked(m) for m in linear):
        return None
    slopes = [_slope(m) for m in between]
    if linear[-1].out_features != 1 or None in slopes:
        return None
    return linear, slopes  # type: ignore[return-value]


def perceptron_input_gradient(layers: Layers, x: Tensor) -> Tensor:
    r"""The gradient of scores by samples (N, D), differentiable by weights; not by x, which is held fixed.

    .. math::
        g = W_1^\top M_1 W_2^\top M_2 \cdots W_L^\top, \qquad
        \langle u, g\rangle = W_L M_{L-1} W_{L-1} \cdots M_1 W_1 u

    with the masks M of the activations. The gradient by :math:`W_l` of the right side is an outer product of what comes
    from its left and from its right; there is none by biases. A gradient of that gradient is torch's own.
    """
    linear, slopes = layers
    parameters = [p for layer in linear for p in (layer.weight, layer.bias)]
    return _InputGradient.apply(x.flatten(1), slopes, *parameters)


def _flattens(module: nn.Module, start: int) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (start, -1) and not _hooked(module)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _slope(module: nn.Module) -> float | None:
    if _hooked(module) or type(module) not in (nn.ReLU, nn.LeakyReLU):
        return None
    slope = float(getattr(module, "negative_slope", 0.0))
    return slope if slope >= 0 else None  # the sign of what comes out tells what went in


def _activate(h: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(h, slope, inplace=True) if slope else torch.relu_(h)


def _masked(v: Tensor, h: Tensor, slope: float) -> Tensor:
    return _aten.leaky_relu_backward(v, h, slope, True) if slope else _aten.threshold_backward(v, h, 0)


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Sequence[float], *parameters: Any) -> Tensor:
        weights, biases = parameters[0::2], parameters[1::2]
        h, hidden = x, []
        for w, b, slope in zip(weights, biases, slopes):
            h = _activate(F.linear(h, w, b), slope)
            hidden.append(h)
        v, above = weights[-1].expand(len(x), -1), []
        for w, h, slope in zip(reversed(weights[:-1]), reversed(hidden), reversed(slopes)):
            v = _masked(v, h, slope)
            above.append(v)
            v = v @ w
        ctx.save_for_backward(x, *parameters, *hidden, *reversed(above))
        ctx.slopes = slopes
        return v.clone() if not hidden else v

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (u,), slopes, n = grads, ctx.slopes, len(ctx.slopes)
        x, *saved = ctx.saved_tensors
        parameters, hidden, above = saved[: 2 * n + 2], saved[2 * n + 2 : 3 * n + 2], saved[3 * n + 2 :]
        weights = parameters[0::2]
        if torch.is_grad_enabled():  # this will be differentiated again
            return None, None, *_by_torch(x, slopes, parameters, u)
        tangent, found = u, []
        for w, h, v, slope in zip(weights, hidden, above, slopes):
            found += [v.t() @ tangent, None]
            tangent = _masked(tangent @ w.t(), h, slope)
        return None, None, *found, tangent.sum(0, keepdim=True), None


def _by_torch(x: Tensor, slopes: Sequence[float], parameters: Sequence[Any], u: Tensor) -> list[Tensor | None]:
    h = at = x.detach().requires_grad_()
    for w, b, slope in zip(parameters[0:-2:2], parameters[1:-2:2], slopes):
        h = F.leaky_relu(F.linear(h, w, b), slope)
    total = F.linear(h, *parameters[-2:]).sum()
    (gradient,) = torch.autograd.grad(total, at, create_graph=True)
    wanted = [p for p in parameters if p is not None and p.requires_grad]
    found = iter(torch.autograd.grad(gradient, wanted, u, create_graph=True, allow_unused=True))
    return [next(found) if p is not None and p.requires_grad else None for p in parameters]
