"""Adam that cuts off gradients which are far out of the ordinary (VAEBM, arXiv:2010.00654)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.optim import Adam

from lightning_gans import checks


class ClippedAdam(Adam):
    r"""Adam on gradients that are cut off, number by number, at what was usual before.

    .. math:: |g| \le k \sqrt{\hat v} + c, \qquad \hat v = v / (1 - \beta_2^t)

    with Adam's second moment v of the previous step; the first step is not cut off. For energies, whose contrast can
    explode from one step to the next.

    Args:
        parameters: as of Adam.
        factor: k > 0.
        slack: c > 0.
        options: of Adam (``lr``, ``betas``, ``weight_decay`` ...).

    >>> w = torch.zeros(1, requires_grad=True)
    >>> optimizer = ClippedAdam([w])
    >>> for gradient in (1.0, 100.0):
    ...     w.grad = torch.tensor([gradient])
    ...     optimizer.step()
    >>> round(float(w.grad), 4)  # 3 * 1 + 0.1
    3.1
    """

    def __init__(self, parameters: Any, factor: float = 3.0, slack: float = 0.1, **options: Any) -> None:
        checks.positive(factor=factor, slack=slack)
        super().__init__(parameters, **options)
        self.factor, self.slack = factor, slack

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; a closure is called once, before it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and (state := self.state[p]):
                    v = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
                    bound = self.factor * v.sqrt() + self.slack
                    p.grad = p.grad.clamp(-bound, bound)
        cast(Any, super()).step()
        return loss
