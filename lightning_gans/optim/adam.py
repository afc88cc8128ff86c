"""Adam whose fused step goes without torch's wrappers around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_gans.optim.direct import Direct, Tensors


class Adam(Direct, torch.optim.Adam):
    """``torch.optim.Adam``, to the bit and with the same state; the default optimizer of most models.

    With ``fused=True`` a step is the one fused operation and one addition that counts it; whatever asks for more, such
    as ``amsgrad``, is torch's own step (see `Direct`).

    Args: as of ``torch.optim.Adam``.

    >>> w = torch.ones(1, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1, fused=True)
    >>> for _ in range(2):
    ...     w.grad = torch.ones(1)
    ...     optimizer.step()
    >>> round(float(w.detach()), 4), float(optimizer.state[w]["step"])
    (0.8, 2.0)
    """

    slots, theirs = ("exp_avg", "exp_avg_sq"), torch.optim.Adam
    needs: ClassVar[Mapping[str, Any]] = {
        "fused": True,
        **dict.fromkeys(("amsgrad", "capturable", "differentiable", "decoupled_weight_decay"), False),
    }

    def update(
        self, group: dict[str, Any], lr: Any, gradients: list[Tensor], slots: Sequence[Tensors], counts: Any
    ) -> None:
        """The fused operation."""
        (beta1, beta2), (first, second) = group["betas"], slots
        torch._fused_adam_(
            group["params"], gradients, first, second, [], counts, amsgrad=False, lr=lr, beta1=beta1,
            beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"],
        )  # fmt: skip
