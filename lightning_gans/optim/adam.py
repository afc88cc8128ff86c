"""Adam whose fused step goes without torch's wrappers around it, which cost more than a small network's update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import is_
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import optimizer as torchs

_Lists = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], Tensor]


class Adam(torch.optim.Adam):
    """``torch.optim.Adam``, to the bit and with the same state; the default optimizer of most models.

    With ``fused=True`` a step is the one fused operation and one addition that counts it: the numbers of updates of a
    group's parameters, to which torch adds one by one, are views of one tensor. Whatever asks for more is torch's own
    step: hooks, a profiler, a gradient scaler, parameters without a gradient, a rate in a tensor, ``amsgrad`` and so
    on, and the first step, which makes the state.

    Args: as of ``torch.optim.Adam``.

    >>> w = torch.ones(1, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1, fused=True)
    >>> for _ in range(2):
    ...     w.grad = torch.ones(1)
    ...     optimizer.step()
    >>> round(float(w.detach()), 4), float(optimizer.state[w]["step"])
    (0.8, 2.0)
    """

    _counts: Mapping[int, tuple[list[Tensor], Tensor]] = {}  # by group: views, and what they are views of

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update; a closure is called once, before it."""
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        hooks = hooks or torchs._global_optimizer_pre_hooks or torchs._global_optimizer_post_hooks
        watched = torch.autograd._profiler_enabled() or torch.compiler.is_compiling()
        if hooks or watched or hasattr(self, "grad_scale"):
            return self._by_torch() if closure is None else self._by_torch(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if (found := self._tensors()) is None:
            self._by_torch()
            return loss
        with torch.no_grad():
            for group, (gradients, first, second, counts, count) in zip(self.param_groups, found):
                count.add_(1)
                beta1, beta2 = group["betas"]
                torch._fused_adam_(
                    group["params"], gradients, first, second, [], counts, amsgrad=False, lr=group["lr"], beta1=beta1,
                    beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"],
                )  # fmt: skip
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # torch need not wrap it

    def _by_torch(self, *closure: Callable[[], Any]) -> Any:
        step = cast(Any, torch.optim.Adam).step
        return (step if getattr(step, "hooked", False) else torchs.Optimizer.profile_hook_step(step))(self, *closure)

    def _tensors(self) -> list[_Lists] | None:
        """What a step of each group needs; None if one operation is not all there is to do."""
        found: list[_Lists] = []
        for i, group in enumerate(self.param_groups):
            if not group["fused"] or group["amsgrad"] or group["capturable"] or group["differentiable"]:
                return None
            if not isinstance(group["lr"], float) or group.get("decoupled_weight_decay") or not group["params"]:
                return None
            gradients, first, second, counts = [], [], [], []
            for p in group["params"]:
                gradient, slot = p.grad, self.state.get(p)
                if gradient is None or not slot:
                    return None
                gradients.append(gradient)
                first.append(slot["exp_avg"])
                second.append(slot["exp_avg_sq"])
                counts.append(slot["step"])
            views, count = self._counts.get(i, ((), None))
            if count is None or len(views) != len(counts) or not all(map(is_, views, counts)):
                if (count := self._together(i, group["params"], counts)) is None:
                    return None
                counts = self._counts[i][0]
            found.append((gradients, first, second, counts, count))
        return found

    def _together(self, i: int, parameters: list[Tensor], counts: list[Tensor]) -> Tensor | None:
        """Let the counts of a group, as torch or a checkpoint has them, be views of one tensor."""
        kinds = {(p.device, p.dtype) for p in parameters}
        if len(kinds) > 1 or parameters[0].is_complex() or any(c.device != parameters[0].device for c in counts):
            return None
        count = torch.stack(counts)
        views = [count[k] for k in range(len(counts))]
        for p, view in zip(parameters, views):
            self.state[p]["step"] = view
        self._counts = {**self._counts, i: (views, count)}
        return count
