"""How an outer loss depends on what a training was weighted by (Teaching with Commentaries, arXiv:2011.03037)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gans import checks


def slopes_by(loss: Tensor, parameters: Sequence[Tensor], create_graph: bool = False) -> list[Tensor | None]:
    """The gradient of a scalar by each parameter; None for one that is frozen, or not used."""
    live = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad(loss, live, create_graph=create_graph, allow_unused=True) if live else ())
    return [next(found) if p.requires_grad else None for p in parameters]


def hypergradient(
    inner: Tensor, outer: Tensor, parameters: Sequence[Tensor], phi: Tensor, rate: float, terms: int = 1
) -> Tensor:
    r"""The gradient of an outer loss by what the inner loss depends on, phi, through the parameters that minimise it.

    .. math:: -\alpha\, \partial_\phi \Big\langle \nabla_\theta L_{in},\ \sum_{k=0}^{K} (I - \alpha H)^k
        \nabla_\theta L_{out} \Big\rangle, \qquad H = \nabla^2_\theta L_{in}

    The implicit function theorem, its inverse of H by a Neumann series, which converges for alpha < 2 / lambda_max(H).
    K = 0 is the gradient through one step of gradient descent.

    Args:
        inner: a scalar with the graph of parameters and phi, twice differentiable.
        outer: a scalar with the graph of the parameters.
        parameters: theta; one that the inner loss does not depend on has no part.
        phi: requires a gradient.
        rate: alpha > 0.
        terms: K >= 0.

    Raises:
        ValueError: if the inner loss depends on none of the parameters.

    >>> theta, phi = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    >>> inner, outer = ((theta - phi).square() / 2).sum(), theta.sum()  # theta* = phi
    >>> hypergradient(inner, outer, [theta], phi, 0.5, 20)
    tensor([1.0000])
    """
    checks.positive(rate=rate)
    checks.at_least(0, terms=terms)
    slopes = slopes_by(inner, parameters, create_graph=True)
    if all(s is None for s in slopes):
        raise ValueError("inner must depend on one of the parameters at least, got a loss that depends on none.")
    if not any(s is not None and s.requires_grad for s in slopes):  # linear, and apart from phi
        return torch.zeros_like(phi)
    used, slope = zip(*((p, s) for p, s in zip(parameters, slopes) if s is not None and s.requires_grad))
    zeroed = lambda found: tuple(torch.zeros_like(p) if g is None else g for p, g in zip(used, found))  # noqa: E731
    total = q = zeroed(slopes_by(outer, used))
    for _ in range(terms):
        product = zeroed(torch.autograd.grad(slope, used, q, retain_graph=True, allow_unused=True))
        q = tuple(a - rate * b for a, b in zip(q, product))
        total = tuple(a + b for a, b in zip(total, q))
    (found,) = torch.autograd.grad(slope, phi, total, retain_graph=True, allow_unused=True)
    return torch.zeros_like(phi) if found is None else -rate * found
