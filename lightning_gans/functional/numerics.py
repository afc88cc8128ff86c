"""Precision and norms shared by the losses and penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

LOOKED_AT = {"cpu"}  # where Python may ask for a value: elsewhere it would wait, or be part of a graph's recording


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it came so."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RunningMeans(nn.Module):
    """A network some of whose buffers stay in float32 or better, whatever its precision becomes.

    In 16 bits a mean that moves by less than a 500th of itself, or a sum of small steps, stands still.

    Attributes:
        running: names of these buffers, which are made by :func:`full_precision`.
    """

    running: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RunningMeans:
        before = {name: self._buffers[name] for name in self.running}
        super()._apply(fn, recurse)
        for name, value in before.items():
            now = self._buffers[name]
            if value is not None and now is not None and now.element_size() < 4:
                self._buffers[name] = value.to(now.device)
        return self


def floating(x: Tensor) -> Tensor:
    """`x`; a TypeError unless it is a tensor of floating-point numbers, as samples are in training."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"x must be a floating-point tensor of samples as in training, got {got}.")
    return x


def probe(x: Tensor) -> Tensor:
    """A copy of `x` that has a gradient, and may be written to."""
    return x.detach().clone().requires_grad_().clone()


def has_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether what a function says of `x` has a gradient by it, as what is detached has not.

    >>> has_gradient(torch.square, torch.ones(2)), has_gradient(torch.Tensor.detach, torch.ones(2))
    (True, False)
    """
    with torch.enable_grad():
        return function(probe(x)).requires_grad


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 matrices in float32, where fewer bits are allowed (TF32).

    For differences of large numbers, of which a thousandth part is too much. Gradients through them are taken outside.
    """
    cuda: Any = torch.backends.cuda.matmul
    name, exact = ("fp32_precision", "ieee") if hasattr(cuda, "fp32_precision") else ("allow_tf32", False)
    allowed = getattr(cuda, name)
    setattr(cuda, name, exact)
    try:
        yield
    finally:
        setattr(cuda, name, allowed)


def row_norm(x: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm of each row, (N, D) -> (N,), p >= 1 (infinity included).

    Exact, with no epsilon inside the root; at a zero row the value is 0 and so are derivatives of every order.
    """
    if x.device.type in LOOKED_AT:
        norm = torch.linalg.vector_norm(x, p, dim=1)
        if len(x) == 0 or norm.detach().min() > 0:
            return norm
    zero = (x.detach() == 0).all(1)
    # A zero row is replaced before the norm: masking only the result would leave 0/0 in the second derivative.
    return torch.linalg.vector_norm(x.masked_fill(zero[:, None], 1), p, dim=1).masked_fill(zero, 0)


def tell_gradients(tell: Callable[..., None], prefix: str, terms: Mapping[str, Tensor], at: Sequence[Tensor]) -> None:
    """When a backward pass goes from two terms through `at`, tell their gradients there apart: no other cost.

    Calls `tell` with ``<prefix><name>_gradient``, the norm of d term / d at, of each, and with
    ``<prefix>gradient_cosine``, the cosine of the angle between the two (0 if one vanishes). What a term is multiplied
    by before the pass, by a gradient scaler say, is divided out. Nothing happens if `at` has no graph.

    Args:
        tell: takes what was found as keywords.
        prefix: of the keywords.
        terms: two scalars by name.
        at: an alias of the same tensor (``x.view_as(x)``) for each term, through which it goes and the other does not.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def caught(name: str, scale: list[Tensor], gradient: Tensor) -> None:
        flat = full_precision(gradient).flatten() / full_precision(scale[-1])
        found[name] = flat, flat.norm()
        tell(**{f"{prefix}{name}_gradient": found[name][1]})
        if len(found) == 2:
            (one, n), (other, m) = found.values()
            tell(**{f"{prefix}gradient_cosine": torch.dot(one / n, other / m).nan_to_num(0.0, 0.0, 0.0)})
            found.clear()

    for (name, term), alias in zip(terms.items(), at):
        if alias.requires_grad:
            scale: list[Tensor] = []
            term.register_hook(scale.append)
            alias.register_hook(partial(caught, name, scale))
