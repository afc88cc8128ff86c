"""The gradient of an input gradient without a second backward pass, for piecewise linear critics.

Around a point x such a critic is linear, f(x + t) - f(x) = J t, where J is the network with its masks frozen and its
biases left out. If P(g) is a penalty on g = grad f(x), its gradient by the parameters is that of <dP/dg, g> = J(dP/dg),
one forward and one backward pass of the frozen network (the tangent pass) once g is known from an ordinary one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_gans.functional.double_backward.sparse import reaches

_LINEAR = {
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool2d, F.interpolate,
    *(getattr(owner, name) for owner in (torch, Tensor) for name in (
        "mean", "sum", "flatten", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "narrow", "select", "neg",
        "chunk", "split", "movedim", "roll", "flip", "clone")),
    Tensor.view, Tensor.view_as, Tensor.expand, Tensor.contiguous, Tensor.__getitem__, Tensor.__neg__, Tensor.repeat,
    Tensor.unflatten, torch.stack,
}  # fmt: skip
_WEIGHTED = {  # linear in the first argument for a fixed second one, plus a bias
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
}  # fmt: skip
_SUMS = {torch.add, torch.sub, *(getattr(Tensor, n) for n in (
    "add", "sub", "__add__", "__radd__", "__sub__", "__rsub__"))}  # fmt: skip
_SCALED = {torch.mul, torch.div, *(getattr(Tensor, n) for n in (
    "mul", "div", "__mul__", "__rmul__", "__truediv__"))}  # fmt: skip
_RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_LEAKY = {F.leaky_relu, F.leaky_relu_}
_FACTS = {  # of a tensor, that do not depend on its values
    Tensor.size, Tensor.dim, Tensor.__len__, Tensor.numel, Tensor.is_contiguous, Tensor.is_floating_point,
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "requires_grad", "is_cuda")),
}  # fmt: skip


class _NotLinear(Exception):
    """The network does something whose derivative this file does not know."""


class _Tape(TorchFunctionMode):
    """Writes down what happens to x, as steps of the frozen network.

    Values that depend on x are numbered; a step is a function of the numbered tangents so far and of the weights.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.number = {id(x): 0}
        self.alive: list[Any] = [x]  # as long as ids are compared
        self.steps: list[tuple[Callable[[list[Any], list[Tensor]], Any], list[int]]] = []
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(id(leaf) in self.number for leaf in _leaves((args, kwargs))):
            return func(*args, **kwargs)
        if func in _FACTS:
            return func(*args, **kwargs)
        if not args or not torch.is_grad_enabled():  # inside a custom function, say, whose backward may be anything
            raise _NotLinear
        if any(torch.is_tensor(leaf) and self._hidden(leaf) for leaf in _leaves((args, kwargs))):
            raise _NotLinear
        in_place = func in (torch.relu_, Tensor.relu_, F.leaky_relu_) or len(args) + len(kwargs) > 1  # perhaps
        if func in _RELU | _LEAKY and in_place and args[0]._is_view():
            raise _NotLinear  # the base would change too
        result = func(*args, **kwargs)
        step = self._step(func, args, kwargs, result)
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        numbers = [len(self.alive) + i for i in range(len(results))]
        self.steps.append((step, numbers))
        self.alive += results
        self.number |= {id(value): number for value, number in zip(results, numbers)}
        return result

    def _hidden(self, value: Tensor) -> bool:
        """Whether a value depends on x by a way that was not seen (a custom autograd function, a scripted module)."""
        return id(value) not in self.number and value.grad_fn is not None and reaches(value, self.alive[0])

    def _step(self, func: Any, args: Any, kwargs: Any, result: Any) -> Callable[[list[Any], list[Tensor]], Any]:
        if func in _RELU:
            source, mask = self.number[id(args[0])], result.detach() > 0
            return lambda tangents, weights: tangents[source] * mask
        if func in _LEAKY:
            slope = kwargs.get("negative_slope", args[1] if len(args) > 1 else 0.01)
            if slope <= 0:  # the sign of the result would not tell
                raise _NotLinear
            source, mask = self.number[id(args[0])], result.detach() > 0
            return lambda tangents, weights: torch.where(mask, tangents[source], slope * tangents[source])
        if func in _WEIGHTED:
            if any(id(leaf) in self.number for leaf in _leaves((args[1:], kwargs))):
                raise _NotLinear
            source, weight = self.number[id(args[0])], self._weight(args[1] if len(args) > 1 else kwargs["weight"])
            rest, named = args[3:], {k: v for k, v in kwargs.items() if k not in ("weight", "bias")}
            return lambda tangents, weights: func(tangents[source], weights[weight], None, *rest, **named)
        if func in _SUMS or func in (torch.cat, torch.concat, F.pad):
            if "other" in kwargs:  # it would stay, where its derivative is zero
                raise _NotLinear
            if func is F.pad and (kwargs.get("value") or len(args) > 3 or kwargs.get("mode", "constant") != "constant"):
                raise _NotLinear
            return self._replay(func, args, kwargs, constant=_zero)
        if func in _SCALED:
            if kwargs:  # the other one by its name, or a rounding
                raise _NotLinear
            first, second = (id(a) in self.number for a in args[:2])
            if first == second or (second and func in (torch.div, Tensor.div, Tensor.__truediv__)):
                raise _NotLinear
            return self._replay(func, args, kwargs, constant=_itself)
        if func is F.interpolate and kwargs.get("mode", "nearest") != "nearest":
            raise _NotLinear
        if func in _LINEAR:
            return self._replay(func, args, kwargs, constant=_itself)
        raise _NotLinear

    def _replay(
        self, func: Any, args: Any, kwargs: Any, constant: Callable[[Any], Any]
    ) -> Callable[[list[Any], list[Tensor]], Any]:
        """The same call on tangents; tensors that do not depend on x by way of ``constant``, or as weights."""

        def place(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                places = [place(v) for v in value]
                return lambda tangents, weights: [p(tangents, weights) for p in places]
            if id(value) in self.number:
                number = self.number[id(value)]
                return lambda tangents, weights: tangents[number]
            if constant is _itself and torch.is_tensor(value) and value.requires_grad:
                weight = self._weight(value)
                return lambda tangents, weights: weights[weight]
            fixed = constant(value)
            return lambda tangents, weights: fixed

        # Only operands are replaced; axes, shapes and the like stay. Sums have two of them, all others one.
        operands = 2 if (constant is _zero and func not in (torch.cat, torch.concat, F.pad)) or func in _SCALED else 1
        places, rest = [place(a) for a in args[:operands]], args[operands:]
        if any(id(leaf) in self.number for leaf in _leaves((rest, kwargs))):
            raise _NotLinear
        return lambda tangents, weights: func(*(p(tangents, weights) for p in places), *rest, **kwargs)

    def _weight(self, value: Tensor) -> int:
        self.weights.append(value)
        return len(self.weights) - 1

    def tangent(self, t: Tensor, weights: list[Tensor]) -> Tensor:
        """J t of the frozen network, per sample."""
        tangents: list[Any] = [None] * (self.steps[-1][1][-1] + 1)
        tangents[0] = t
        for step, numbers in self.steps:
            result = step(tangents, weights)
            for number, value in zip(numbers, result if isinstance(result, (tuple, list)) else [result]):
                tangents[number] = value
        return tangents[self.output]

    def close(self, output: Tensor) -> None:
        """Forget the values, which only the numbering needed."""
        if id(output) not in self.number:
            raise _NotLinear
        self.output = self.number[id(output)]
        self.number, self.alive = {}, []


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from _leaves(v)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
    else:
        yield value


def _zero(value: Any) -> Any:
    return torch.zeros_like(value) if torch.is_tensor(value) else operator.mul(value, 0)


def _itself(value: Any) -> Any:
    return value


class _InputGradient(torch.autograd.Function):
    """g as a function of the weights, whose backward pass is the tangent pass."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, tape: _Tape, *weights: Tensor) -> Tensor:
        ctx.tape = tape
        ctx.save_for_backward(*weights)
        return g.view_as(g)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        weights = [w.detach().requires_grad_(w.requires_grad) for w in ctx.saved_tensors]
        wanted = [w for w in weights if w.requires_grad]
        with torch.enable_grad():
            total = ctx.tape.tangent(grads[0], weights).sum()
            found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
        return None, None, *(next(found) if w.requires_grad else None for w in weights)


def linear_input_gradient(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    """The gradient of the summed scores by the leaf x, differentiable once by the parameters, in the shape of x.

    None for a network that is not known to be piecewise linear in x; it has then run once for nothing.
    """
    tape = _Tape(x)
    try:
        with tape:
            scores = discriminator(x)
        tape.close(scores)
    except _NotLinear:
        return None
    (g,) = torch.autograd.grad(scores.sum(), x)
    return _InputGradient.apply(g, tape, *tape.weights)
