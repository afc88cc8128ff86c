"""How an outer loss depends on what a training was weighted by (Teaching with Commentaries, arXiv:2011.03037)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gans import checks


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
        parameters: theta.
        phi: requires a gradient.
        rate: alpha > 0.
        terms: K >= 0.

    >>> theta, phi = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    >>> inner, outer = ((theta - phi).square() / 2).sum(), theta.sum()  # theta* = phi
    >>> hypergradient(inner, outer, [theta], phi, 0.5, 20)
    tensor([1.0000])
    """
    checks.positive(rate=rate)
    checks.at_least(0, terms=terms)
    slope = torch.autograd.grad(inner, parameters, create_graph=True)
    q = torch.autograd.grad(outer, parameters)
    total = q
    for _ in range(terms):
        product = torch.autograd.grad(slope, parameters, q, retain_graph=True)
        q = tuple(a - rate * b for a, b in zip(q, product))
        total = tuple(a + b for a, b in zip(total, q))
    (found,) = torch.autograd.grad(slope, phi, total, retain_graph=True)
    return -rate * found
