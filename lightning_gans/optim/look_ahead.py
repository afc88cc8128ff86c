"""Optimizers for games: optimistic and extra-gradient steps, for ``optimizer_g`` and ``optimizer_d`` by class path.

Gradient descent by both players circles around a saddle point, or away from it: on min_x max_y x y every simultaneous
step of size eta makes the distance sqrt(1 + eta^2) times as large. These look ahead, and approach it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_gans import checks


class _GameOptimizer(Optimizer):
    """Steps made of lr times a direction; ``move`` says how."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, **defaults: Any) -> None:
        checks.not_negative(lr=lr)
        super().__init__(params, {"lr": lr, **defaults})

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        """Where a plain step would go, down."""
        assert p.grad is not None
        return p.grad

    def move(self, p: Tensor, step: Tensor) -> None:
        """Moves ``p``, given a plain step (lr times the direction)."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of every parameter with a gradient; returns the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, group["lr"] * self.direction(p, group))
        return loss


class _Optimistic(_GameOptimizer):
    def move(self, p: Tensor, step: Tensor) -> None:
        """The step twice, less the last one."""
        before = self.state[p].get("last_step")
        p.sub_(2 * step if before is None else 2 * step - before)
        self.state[p]["last_step"] = step


class _Extra(_GameOptimizer):
    def move(self, p: Tensor, step: Tensor) -> None:
        """Look ahead, or step from where that began."""
        start = self.state[p].pop("start", None)
        if start is None:
            self.state[p]["start"] = p.clone()
            p.sub_(step)
        else:
            p.copy_(start - step)


class _AdamDirection(_GameOptimizer):
    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.5, 0.9), eps: float = 1e-8
    ) -> None:
        checks.betas(betas)
        checks.positive(eps=eps)
        super().__init__(params, lr, betas=(betas[0], betas[1]), eps=eps)

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        """Adam's, from moments that see every gradient."""
        assert p.grad is not None
        state, (beta1, beta2) = self.state[p], group["betas"]
        if "step" not in state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] += 1
        state["exp_avg"].lerp_(p.grad, 1 - beta1)
        state["exp_avg_sq"].lerp_(p.grad.square(), 1 - beta2)
        root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt_()
        return state["exp_avg"] / (1 - beta1 ** state["step"]) / root.add_(group["eps"])


class OptimisticSGD(_Optimistic):
    """w_{t+1} = w_t - 2 s_t + s_{t-1}, s_t = lr grad_t and s_{-1} = 0 (Daskalakis et al. 2018, arXiv:1711.00141).

    The same as extra-gradient by *extrapolation from the past*, v_t = w_t - s_{t-1}, w_{t+1} = w_t - lr grad(v_t), at a
    constant lr (Gidel et al. 2019, arXiv:1802.10551), with the extrapolated point v_t as the parameter: one gradient
    per update, taken of both players at points where both have looked ahead.

    Args:
        params: parameters, or groups of them.
        lr: step size, >= 0.

    >>> x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)  # min over x, max over y of x y
    >>> optimizer = OptimisticSGD([x, y], lr=0.3)
    >>> for _ in range(100):
    ...     x.grad, y.grad = y.detach().clone(), -x.detach()
    ...     optimizer.step()
    >>> float(x.detach().hypot(y.detach())) < 0.05  # of sqrt(2); gradient descent would go away from 0
    True
    """


class OptimisticAdam(_Optimistic, _AdamDirection):
    """`OptimisticSGD` with Adam's direction in place of the gradient (Daskalakis et al. 2018, arXiv:1711.00141).

    w_{t+1} = w_t - 2 s_t + s_{t-1}, s_t = lr m_t / (sqrt(v_t) + eps), with bias-corrected moments. It is also Adam with
    extrapolation from the past (arXiv:1802.10551), where both half steps share one update of the moments.

    Args:
        params: parameters, or groups of them.
        lr: step size, >= 0.
        betas: decay of the two moments, in [0, 1).
        eps: > 0.

    >>> w = torch.ones(1, requires_grad=True)
    >>> optimizer = OptimisticAdam([w], lr=0.1)
    >>> for _ in range(2):
    ...     w.grad = torch.ones(1)
    ...     optimizer.step()
    >>> round(float(w.detach()), 4)  # 1 - 2 * 0.1, then less 2 * 0.1 - 0.1
    0.7
    """


class ExtraSGD(_Extra):
    """Extra-gradient (Korpelevich; for GANs Gidel et al. 2019, arXiv:1802.10551): look ahead, come back, step.

    Two updates make one step: the first one extrapolates, v = w - lr grad(w), and the second one goes from where that
    began by the gradient found there, w <- w - lr grad(v). Give it to both players, with an
    odd number of ``d_steps``, so that they keep in step. Generator updates of odd number leave looked-ahead weights
    behind: sample, score and save after even ones. The players of this library take turns, so the generator's gradient
    is taken against a discriminator that has already looked ahead, or stepped.

    Args:
        params: parameters, or groups of them.
        lr: step size, >= 0.

    >>> x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)  # min over x, max over y of x y
    >>> optimizer = ExtraSGD([x, y], lr=0.3)
    >>> for _ in range(100):
    ...     x.grad, y.grad = y.detach().clone(), -x.detach()
    ...     optimizer.step()
    >>> float(x.detach().hypot(y.detach())) < 0.2  # of sqrt(2); gradient descent would go away from 0
    True
    """


class ExtraAdam(_Extra, _AdamDirection):
    """`ExtraSGD` with Adam's direction in place of the gradient; moments see the gradients of both half steps.

    Gidel et al. 2019 (arXiv:1802.10551). Arguments as in `OptimisticAdam`.

    >>> w, seen = torch.ones(1, requires_grad=True), []
    >>> optimizer = ExtraAdam([w], lr=0.1)
    >>> for _ in range(2):  # looks ahead, then steps from where that began
    ...     w.grad = torch.ones(1)
    ...     optimizer.step()
    ...     seen.append(round(float(w.detach()), 4))
    >>> seen
    [0.9, 0.9]
    """
