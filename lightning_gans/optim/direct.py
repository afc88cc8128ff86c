"""Torch's optimizers without the wrappers around their operations, which cost more than a small network's update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_, itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as torchs

Tensors = list[Tensor] | tuple[Tensor, ...]
Lists = tuple[list[Tensor], Sequence[Tensors], Tensors, Tensor]


class Direct(torch.optim.Optimizer):
    """A base beside one of torch's optimizers, for whose common steps :meth:`update` stands.

    The numbers of updates of a group's parameters, to which torch adds one by one, are views of one tensor. Whatever
    asks for more is torch's own step: hooks, a profiler, a gradient scaler, parameters without a gradient, a rate in a
    tensor, options that it does not know, and the first step, which makes the state.
    """

    slots: ClassVar[tuple[str, ...]]  # names of what the state has of each parameter
    needs: ClassVar[Mapping[str, Any]]  # what a group's options must be for :meth:`update` to be all there is to do
    theirs: ClassVar[type[torch.optim.Optimizer]]
    _counts: Mapping[int, tuple[list[Tensor], Tensor]] = {}  # by group: views, and what they are views of

    def update(
        self, group: dict[str, Any], lr: Any, gradients: list[Tensor], slots: Sequence[Tensors], counts: Any
    ) -> None:
        """One step of a group, at a rate that is a number, or a tensor where the operations take one."""
        raise NotImplementedError

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
        if (found := self.tensors()) is None:
            self._by_torch()
            return loss
        with torch.no_grad():
            for group, (gradients, slots, counts, count) in zip(self.param_groups, found):
                count.add_(1)
                self.update(group, group["lr"], gradients, slots, counts)
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # torch need not wrap it

    def _by_torch(self, *closure: Callable[[], Any]) -> Any:
        step: Any = self.theirs.step
        return (step if getattr(step, "hooked", False) else torchs.Optimizer.profile_hook_step(step))(self, *closure)

    def tensors(self) -> list[Lists] | None:
        """What a step of each group needs; None if one call is not all there is to do."""
        found: list[Lists] = []
        state, read = self.state, itemgetter(*self.slots, "step")
        for i, group in enumerate(self.param_groups):
            if not isinstance(group["lr"], float) or not group["params"]:
                return None
            for name, value in self.needs.items():
                if group.get(name, value) != value:
                    return None
            gradients: list[Tensor] = []
            rows: list[Sequence[Tensor]] = []
            for p in group["params"]:
                gradient, slot = p.grad, state.get(p)
                if gradient is None or not slot:
                    return None
                gradients.append(gradient)
                rows.append(read(slot))
            counts: Tensors
            *slots, counts = zip(*rows)
            views, count = self._counts.get(i, ((), None))
            if count is None or len(views) != len(counts) or not all(map(is_, views, counts)):
                if (count := self._together(i, group["params"], counts)) is None:
                    return None
                counts = self._counts[i][0]
            found.append((gradients, slots, counts, count))
        return found

    def _together(self, i: int, parameters: list[Tensor], counts: Tensors) -> Tensor | None:
        """Let the counts of a group, as torch or a checkpoint has them, be views of one tensor."""
        kinds = {(p.device, p.dtype) for p in parameters}
        halves = (torch.float16, torch.bfloat16)
        if parameters[0].device.type == "cpu" and parameters[0].dtype in halves:  # lists of these round otherwise
            return None
        if len(kinds) > 1 or parameters[0].is_complex() or any(c.device != counts[0].device for c in counts):
            return None
        count = torch.stack([*counts])
        views = [count[k] for k in range(len(counts))]
        for p, view in zip(parameters, views):
            self.state[p]["step"] = view
        self._counts = {**self._counts, i: (views, count)}
        return count
