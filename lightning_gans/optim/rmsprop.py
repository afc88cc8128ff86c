"""RMSprop whose step goes without torch's wrappers around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_gans.optim.direct import Direct, Tensors


class RMSprop(Direct, torch.optim.RMSprop):
    """``torch.optim.RMSprop``, to the bit and with the same state; the default optimizer of `WGAN`.

    A step is five operations on lists; whatever asks for more, such as ``momentum``, is torch's own (see `Direct`).

    Args: as of ``torch.optim.RMSprop``.

    >>> w = torch.ones(1, requires_grad=True)
    >>> optimizer = RMSprop([w], lr=0.1)
    >>> for _ in range(2):
    ...     w.grad = torch.ones(1)
    ...     optimizer.step()
    >>> round(float(w.detach()), 4), float(optimizer.state[w]["step"])
    (-0.7089, 2.0)
    """

    slots, theirs = ("square_avg",), torch.optim.RMSprop
    needs: ClassVar[Mapping[str, Any]] = {
        "foreach": None,  # on a GPU torch's default is that of lists, too
        **dict.fromkeys(("momentum", "weight_decay"), 0),
        **dict.fromkeys(("centered", "maximize", "capturable", "differentiable"), False),
    }

    def update(
        self, group: dict[str, Any], lr: float, gradients: list[Tensor], slots: Sequence[Tensors], counts: Any
    ) -> None:
        """s <- alpha s + (1 - alpha) g^2 and w <- w - lr g / (sqrt(s) + eps)."""
        squares, alpha = slots[0], group["alpha"]
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - alpha)
        size = torch._foreach_sqrt(squares)
        torch._foreach_add_(size, group["eps"])
        torch._foreach_addcdiv_(group["params"], gradients, size, value=-lr)
