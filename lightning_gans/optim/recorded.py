"""A step of Adam as a part of a CUDA graph."""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import optimizer as torchs

if TYPE_CHECKING:
    from lightning_gans.optim.adam import Adam


class RecordedStep:
    """The step of an `Adam` that has stepped before, with the learning rates in tensors, where a graph reads them.

    Everything else that a step reads is recorded as it is: the other options, and where the state lies.

    Args:
        optimizer: whose step it is; ``fused``, and with a gradient for each parameter.

    >>> from lightning_gans.optim import Adam
    >>> w = torch.ones(1, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1, fused=True)
    >>> w.grad = torch.ones(1)
    >>> optimizer.step()
    >>> recorded = RecordedStep(optimizer)
    >>> optimizer.param_groups[0]["lr"] = 0.2
    >>> recorded.is_due() and recorded()
    True
    >>> round(float(w.detach()), 4), float(optimizer.state[w]["step"])
    (0.7, 2.0)
    """

    def __init__(self, optimizer: Adam) -> None:
        self.optimizer = optimizer
        self._options, self._state = self._reads()
        first = [group["params"][0] for group in optimizer.param_groups]
        # On a GPU the operation takes no rate of more than 32 bits in a tensor.
        kinds = [torch.float32 if p.is_cuda else torch.float64 for p in first]
        self._rates = [torch.empty((), dtype=kind, device=p.device) for kind, p in zip(kinds, first)]
        self._known: list[float | None] = [None] * len(first)

    @classmethod
    def of(cls, optimizer: Any) -> RecordedStep | None:
        """That of an optimizer, or None if its step is not this one (see `Direct`)."""
        from lightning_gans.optim.adam import Adam  # not by an import of the library (see `optim`)

        own = type(optimizer) is Adam and optimizer.tensors() is not None
        return cls(optimizer) if own else None

    def is_due(self) -> bool:
        """Whether the optimizer would do this now, too; the rates become what they are by then."""
        options, state = self._reads()
        plain = all(isinstance(group["lr"], float) for group in self.optimizer.param_groups)
        if not plain or self._hooked() or options != self._options or not all(map(is_, state, self._state)):
            return False
        for i, (group, rate) in enumerate(zip(self.optimizer.param_groups, self._rates)):
            if group["lr"] != self._known[i]:
                self._known[i] = group["lr"]
                rate.fill_(group["lr"])
        return True

    @torch.no_grad()
    def __call__(self) -> bool:
        """The step; False, and nothing done, where a parameter has no gradient this time."""
        optimizer, found = self.optimizer, self.optimizer.tensors()
        if found is None:
            return False
        for group, lr, (gradients, slots, counts, count) in zip(optimizer.param_groups, self._rates, found):
            count.add_(1)
            optimizer.update(group, lr, gradients, slots, counts)
        return True

    def _hooked(self) -> bool:
        step = vars(self.optimizer).get("step")  # a scheduler's counts, around the class's
        if step is not None and getattr(step, "__wrapped__", None) is not type(self.optimizer).step:
            return True  # somebody's own
        own, other = self.optimizer._optimizer_step_pre_hooks, self.optimizer._optimizer_step_post_hooks
        return bool(own or other or torchs._global_optimizer_pre_hooks or torchs._global_optimizer_post_hooks)

    def _reads(self) -> tuple[list[dict[str, Any]], list[Any]]:
        """Each group's options, and its state, in whose place loading puts another."""
        groups = self.optimizer.param_groups
        options = [{name: value for name, value in g.items() if name not in ("params", "lr")} for g in groups]
        return options, [self.optimizer.state.get(g["params"][0]) for g in groups]
