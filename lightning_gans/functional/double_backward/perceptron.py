"""The input gradient of a multilayer perceptron as one operation, whose own gradient is written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans.functional.modes import hooked

_aten = torch.ops.aten
Layers = tuple[list[nn.Linear], list[float], list[float]]


def perceptron_layers(network: nn.Module | None) -> Layers | None:
    """Its linear layers, and behind each but the last the slope below zero and the dropout; None for other networks.

    Taken are an ``nn.Sequential`` of ``nn.Linear`` that alternate with ``nn.ReLU`` or ``nn.LeakyReLU``, an ``nn.ReLU``
    perhaps followed by ``nn.Dropout`` (an ``nn.Flatten()`` may come first, and an ``nn.Flatten(0)`` last), and networks
    that tell one by an attribute ``perceptron``, of which they are the scores of flattened samples (a property, or set
    in the class); no hooks, no parametrizations, one score.
    """
    told = network if type(network) is nn.Sequential else getattr(network, "perceptron", None)
    if network is None or type(told) is not nn.Sequential or hooked(network) or hooked(told):
        return None
    modules = [*told]
    for place, start in ((0, 1), (-1, 0)):
        if modules and _flattens(modules[place], start):
            del modules[place]
    linear: list[nn.Linear] = []
    slopes: list[float] = []
    rates: list[float] = []
    for module in modules:
        kind = type(module)
        if hooked(module):
            return None
        if kind is nn.Linear and len(linear) == len(slopes):
            linear.append(module)
        elif kind in (nn.ReLU, nn.LeakyReLU) and len(linear) == len(slopes) + 1:
            slopes.append(float(getattr(module, "negative_slope", 0.0)))
            rates.append(0.0)
            if slopes[-1] < 0:  # the sign of what comes out would not tell what went in
                return None
        elif kind is nn.Dropout and slopes and len(linear) == len(slopes) and not rates[-1]:
            rates[-1] = module.p if module.training else 0.0
            if rates[-1] and (slopes[-1] or rates[-1] == 1):
                return None
        else:
            return None
    return (linear, slopes, rates) if len(linear) == len(slopes) + 1 and linear[-1].out_features == 1 else None


def perceptron_input_gradient(layers: Layers, x: Tensor) -> Tensor:
    r"""The gradient of scores by samples (N, D), differentiable by weights; not by x, which is held fixed.

    .. math::
        g = W_1^\top M_1 W_2^\top M_2 \cdots W_L^\top, \qquad
        \langle u, g\rangle = W_L M_{L-1} W_{L-1} \cdots M_1 W_1 u

    with the masks M of the activations, in which those of dropout are. The gradient by :math:`W_l` of the right side is
    an outer product of what comes from its left and from its right; there is none by biases. A gradient of that
    gradient is torch's own.
    """
    linear, slopes, rates = layers
    parameters = [p for layer in linear for p in (layer.weight, layer.bias)]
    return cast(Tensor, _InputGradient.apply(x.flatten(1), slopes, rates, False, *parameters))


def perceptron_scores_and_gradient(layers: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N,) and what `perceptron_input_gradient` gives of the same pass, at the cost of little more.

    The gradient by :math:`W_l` of scores times s is the outer product of the layer's input with s times what comes from
    the left of :math:`W_l` in g: no backward pass of their own.
    """
    linear, slopes, rates = layers
    parameters = [p for layer in linear for p in (layer.weight, layer.bias)]
    scores, gradient = _InputGradient.apply(x.flatten(1), slopes, rates, True, *parameters)
    return scores, gradient


def _flattens(module: nn.Module, start: int) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (start, -1) and not hooked(module)


def _activate(h: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(h, slope, inplace=True) if slope else torch.relu_(h)


def _masked(v: Tensor, h: Tensor, slope: float, rate: float) -> Tensor:
    """v times the derivative of the activation, and of the dropout behind it, whose result is h."""
    if slope:
        return _aten.leaky_relu_backward(v, h, slope, True)
    masked = _aten.threshold_backward(v, h, 0)
    return masked.mul_(1 / (1 - rate)) if rate else masked


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, slopes: Sequence[float], rates: Sequence[float], scored: bool, *parameters: Any
    ) -> Any:
        weights, biases = parameters[0::2], parameters[1::2]
        h, hidden = x, []
        for w, b, slope, rate in zip(weights, biases, slopes, rates):
            h = _activate(F.linear(h, w, b), slope)
            h = F.dropout(h, rate) if rate else h
            hidden.append(h)
        v, above = weights[-1].expand(len(x), -1), []
        for w, h, slope, rate in zip(reversed(weights[:-1]), reversed(hidden), reversed(slopes), reversed(rates)):
            v = _masked(v, h, slope, rate)
            above.append(v)
            v = v @ w
        ctx.save_for_backward(x, *parameters, *hidden, *reversed(above))
        ctx.set_materialize_grads(False)
        ctx.slopes, ctx.rates, ctx.scored = slopes, rates, scored
        v = v if hidden else v.clone()
        return (F.linear(hidden[-1] if hidden else x, weights[-1], biases[-1]).flatten(), v) if scored else v

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (s, u), slopes, rates = (grads if ctx.scored else (None, *grads)), ctx.slopes, ctx.rates
        x, *saved = ctx.saved_tensors
        n = len(slopes)
        parameters, hidden, above = saved[: 2 * n + 2], saved[2 * n + 2 : 3 * n + 2], saved[3 * n + 2 :]
        if torch.is_grad_enabled():  # this will be differentiated again
            return None, None, None, None, *_by_torch(x, slopes, rates, parameters, hidden, s, u)
        tangent = torch.zeros_like(x) if u is None else u
        column, found = None if s is None else s[:, None], []
        for w, b, before, h, v, slope, rate in zip(
            parameters[0::2], parameters[1::2], [x, *hidden], hidden, above, slopes, rates
        ):
            left = tangent if column is None else torch.addcmul(tangent, before, column)
            found += [v.t() @ left, None if s is None or b is None else s @ v]
            tangent = _masked(tangent @ w.t(), h, slope, rate)
        left = tangent if column is None else torch.addcmul(tangent, [x, *hidden][-1], column)
        found += [left.sum(0, keepdim=True), None if s is None or parameters[-1] is None else s.sum().view(1)]
        return None, None, None, None, *found


def _by_torch(
    x: Tensor,
    slopes: Sequence[float],
    rates: Sequence[float],
    parameters: Sequence[Any],
    hidden: Sequence[Tensor],
    s: Tensor | None,
    u: Tensor | None,
) -> list[Tensor | None]:
    parameters = [None if p is None else p.view_as(p) for p in parameters]  # one that stands twice has two gradients
    h = at = x.detach().requires_grad_()
    for w, b, after, slope, rate in zip(parameters[0:-2:2], parameters[1:-2:2], hidden, slopes, rates):
        h = F.linear(h, w, b)
        h = h * (after > 0) / (1 - rate) if rate else F.leaky_relu(h, slope)
    scores = F.linear(h, *parameters[-2:]).flatten()
    (gradient,) = torch.autograd.grad(scores.sum(), at, create_graph=True)
    wanted = [p for p in parameters if p is not None and p.requires_grad]
    if s is None and u is None:
        return [None] * len(parameters)
    outputs, by = zip(*((value, given) for value, given in ((scores, s), (gradient, u)) if given is not None))
    found = iter(torch.autograd.grad(outputs, wanted, by, create_graph=True, allow_unused=True))
    return [next(found) if p is not None and p.requires_grad else None for p in parameters]
