"""Langevin dynamics: the walk of samplers in a latent space, and of energy-based models."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def langevin_step(x: Tensor, gradient: Tensor, step_size: float, noise: Tensor) -> Tensor:
    r"""One step towards low energy U, with noise.

    .. math:: x - \frac\eta2 \nabla U(x) + \sqrt\eta\, \xi

    Args:
        x: (N, d).
        gradient: of each row's energy, (N, d).
        step_size: eta > 0.
        noise: xi, standard normal (N, d).
    """
    return x - step_size / 2 * gradient + step_size**0.5 * noise


def langevin(
    gradient: Callable[[Tensor], Tensor], x: Tensor, steps: int, step_size: float, noise: Callable[[], Tensor]
) -> Tensor:
    r"""Where ``steps`` steps lead, detached.

    Their law tends to exp(-U) but for what steps of finite size change: a normal law of variance 1 becomes one of
    :math:`1 / (1 - \eta/4)`.

    Args:
        gradient: x (N, d) to that of each row's energy.
        x: where chains begin, (N, d).
        steps: >= 0.
        step_size: eta > 0.
        noise: draws standard normal numbers (N, d).

    >>> import torch
    >>> own = torch.Generator().manual_seed(0)
    >>> end = langevin(lambda x: x - 3, torch.zeros(2000, 1), 60, 0.2, lambda: torch.randn(2000, 1, generator=own))
    >>> round(float(end.mean()), 1)  # of N(3, 1 / (1 - .05))
    3.0
    """
    for _ in range(steps):
        x = langevin_step(x, gradient(x), step_size, noise()).detach()
    return x
