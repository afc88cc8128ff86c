r"""Sharpness-aware minimisation (Foret et al. 2021, arXiv:2010.01412), as arithmetic on gradients that are there.

.. math::
    w \leftarrow w - \eta\, \nabla L(w + e), \qquad
    e = \rho\, \frac{\nabla L(w)}{\lVert \nabla L(w) \rVert_2 + 10^{-12}}

with the norm over all parameters together. Who trains takes the second gradient with the same samples and the same
random numbers, puts the parameters back, and lets any optimizer step: ``sam_g`` and ``sam_d`` of a `GANModule`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

Saved = list[tuple[nn.Parameter, Tensor]]


@torch.no_grad()
def ascend(parameters: Iterable[nn.Parameter], rho: float) -> Saved:
    """Move parameters by e, along the gradients in their ``.grad``; those without one stay.

    Args:
        parameters: of one player.
        rho: distance, >= 0.

    Returns:
        Each parameter that was moved with a copy of what it was, for :func:`put_back`.

    >>> w = nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> w.grad = torch.tensor([3.0, 4.0])
    >>> saved = ascend([w], rho=0.5)
    >>> w.tolist()
    [1.2999999523162842, 2.4000000953674316]
    >>> put_back(saved)
    >>> w.tolist()
    [1.0, 2.0]
    """
    moved = [p for p in parameters if p.grad is not None]
    saved = [(p, p.detach().clone()) for p in moved]
    norms = [torch.linalg.vector_norm(p.grad) for p in moved if p.grad is not None]
    length = torch.linalg.vector_norm(torch.stack(norms)) + 1e-12 if norms else None
    for p in moved:
        assert p.grad is not None and length is not None
        p.add_(p.grad * (rho / length))
    return saved


@torch.no_grad()
def put_back(saved: Saved) -> None:
    """Undo :func:`ascend`, to the bit."""
    for p, w in saved:
        p.copy_(w)
