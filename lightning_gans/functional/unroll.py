"""Gradient steps that one can differentiate through (arXiv:1611.02163)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_gans.functional.conditional import check_scores, label_argument
from lightning_gans.functional.double_backward.input_gradient import twice_differentiable
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import mean_over_ranks

Rule = Literal["sgd", "adam"]


class Moments(NamedTuple):
    """Where Adam stands: number of its updates (a scalar), and its two averages, of the flattened parameters."""

    step: Tensor
    first: Tensor
    second: Tensor


def unroll(
    loss: Callable[[dict[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    steps: int,
    lr: float,
    *,
    rule: Rule = "sgd",
    betas: tuple[float, float] = (0.5, 0.999),
    moments: Moments | None = None,
    first_order: bool = False,
) -> dict[str, Tensor]:
    """phi_K of phi_{k+1} = phi_k - lr direction(grad loss(phi_k)), phi_0 the parameters, which are left alone.

    With phi_K depend on theta, where the loss does: d phi_K / d theta is exact, for second and higher derivatives of
    the loss as torch has them. Gradients are averaged over processes, and differentiated through the average. Steps are
    taken in full precision, also of parameters in half.

    Args:
        loss: of named parameters, a scalar; in a distributed run the mean over this process' samples.
        parameters: phi_0.
        steps: K >= 0.
        lr: step size, > 0.
        rule: "sgd", or "adam" with a parameter that never had a gradient kept as it is.
        betas: of Adam.
        moments: what Adam goes on from; a fresh start if not given.
        first_order: phi_K as a constant, with no derivative by theta.

    >>> phi = unroll(lambda phi: phi["x"] ** 2 / 2, {"x": torch.tensor(1.0)}, steps=2, lr=0.5)  # (1 - lr)^2
    >>> phi["x"].item()
    0.25
    """
    sizes = [p.numel() for p in parameters.values()]
    phi = torch.cat([full_precision(p.detach()).reshape(-1) for p in parameters.values()]).requires_grad_()

    def named(flat: Tensor) -> dict[str, Tensor]:
        parts = zip(parameters.items(), flat.split(sizes))
        return {name: part.view(p.shape).to(p.dtype) for (name, p), part in parts}

    fresh = phi.new_zeros(()), torch.zeros_like(phi), torch.zeros_like(phi)
    state = Moments(*map(full_precision, moments or fresh))
    for _ in range(steps):
        with nullcontext() if first_order else twice_differentiable():
            (gradient,) = torch.autograd.grad(loss(named(phi)), phi, create_graph=not first_order)
        gradient = mean_over_ranks(gradient)
        if rule == "adam":
            gradient, state = _adam(gradient, state, betas)
        phi = phi - lr * gradient
        if first_order:
            phi = phi.detach().requires_grad_()
    return named(phi.detach() if first_order else phi)


def _adam(gradient: Tensor, moments: Moments, betas: tuple[float, float]) -> tuple[Tensor, Moments]:
    """Adam's direction, and its next state."""
    step = moments.step + 1
    first = betas[0] * moments.first + (1 - betas[0]) * gradient
    second = betas[1] * moments.second + (1 - betas[1]) * gradient.square()
    seen = second > 0  # the root has no derivative at 0, and 0 * inf would spread
    root = (torch.where(seen, second, 1) / (1 - betas[1] ** step)).sqrt()
    direction = torch.where(seen, first / (1 - betas[0] ** step) / (root + 1e-8), 0)
    return direction, Moments(step, first, second)


def score_with(
    discriminator: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, labels: Tensor | None = None
) -> Tensor:
    """`score` of x (N, ...) by the discriminator with some of its parameters, by name, replaced: (N,).

    Raises:
        ValueError: if the scores are not of shape (N,).

    >>> parameters = {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([1.0])}
    >>> score_with(nn.Linear(1, 1), parameters, torch.tensor([[3.0]])).tolist()
    [7.0]
    """
    name = None if labels is None else label_argument(discriminator)
    options = {} if name is None else {name: labels}
    return check_scores(functional_call(discriminator, dict(parameters), (x,), options), len(x))
