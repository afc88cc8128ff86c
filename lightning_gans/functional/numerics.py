"""Precision and norms shared by the losses and penalties."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it came so."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def row_norm(x: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm of each row, (N, D) -> (N,), p >= 1 (infinity included).

    Exact, with no epsilon inside the root; at a zero row the value is 0 and so are derivatives of every order.
    """
    if x.device.type == "cpu":  # where looking is cheap; elsewhere one would wait for the device
        norm = torch.linalg.vector_norm(x, p, dim=1)
        if len(x) == 0 or norm.detach().min() > 0:
            return norm
    zero = (x.detach() == 0).all(1)
    # A zero row is replaced before the norm: masking only the result would leave 0/0 in the second derivative.
    return torch.linalg.vector_norm(x.masked_fill(zero[:, None], 1), p, dim=1).masked_fill(zero, 0)


def tell_gradient_norm(tell: Callable[..., None], name: str, term: Tensor, at: Tensor) -> None:
    """When a backward pass goes from `term` through `at`, call `tell(<name>=norm of d term / d at)`: no other cost.

    Give each term an alias of its own (``x.view_as(x)``) to tell their gradients apart. What `term` is multiplied by
    before the pass, by a gradient scaler say, is divided out. Nothing happens if `at` has no graph.
    """
    if not at.requires_grad:
        return
    scale: list[Tensor] = []
    term.register_hook(scale.append)
    at.register_hook(lambda gradient: tell(**{name: full_precision(gradient).norm() / full_precision(scale[-1])}))
