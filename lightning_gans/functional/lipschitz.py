"""The slope of a critic between points that are chosen to make it large (ALP, arXiv:1907.05681)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.double_backward.input_gradient import Discriminator, in_full_precision, no_autocast
from lightning_gans.functional.draw import uniform
from lightning_gans.functional.numerics import full_precision, row_norm

Range = tuple[float, float]


def adversarial_lipschitz_penalty(
    discriminator: Discriminator,
    x: Tensor,
    target: float = 1.0,
    epsilon: Range = (0.1, 10.0),
    xi: float = 10.0,
    power_iterations: int = 1,
    clip: Range | None = (-1.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Mean squared excess of the slope towards an adversarial direction; a scalar.

    .. math:: E \max\left(0, \frac{|f(x) - f(x + r)|}{\|r\|} - K\right)^2, \qquad r = \epsilon d,

    with :math:`\epsilon` uniform in a range and d a unit vector, found from a random one by steps
    :math:`d \leftarrow \nabla_d |f(x) - f(x + \xi d)|`, normalised; points are clipped to the range of the data. The
    gradient flows through both scores and not through d. Where the gradient is 0 the random direction stays; where
    clipping leaves no distance the pair counts as 0.

    Args:
        discriminator: f, (N, ...) -> (N,).
        x: the points (N, ...).
        target: K >= 0.
        epsilon: least and most distance, 0 < least <= most.
        xi: length of the probing step, > 0.
        power_iterations: steps of the search, >= 1.
        clip: range of the data, or None.
        generator: source of the random numbers.

    >>> round(float(adversarial_lipschitz_penalty(lambda x: 3 * x[:, 0], torch.zeros(4, 1))), 4)  # (3 - 1)^2
    4.0
    """
    x, f = full_precision(x.detach()), in_full_precision(discriminator)
    draw = partial(uniform, len(x), generator=generator, device=x.device, dtype=x.dtype)
    with no_autocast(x.device.type):
        d = _unit(draw(*x.shape[1:]) - 0.5)
        for _ in range(power_iterations):
            with torch.no_grad():
                here = f(x)
            probe = d.requires_grad_()
            (slope,) = torch.autograd.grad((here - f(_clipped(x + xi * probe, clip))).abs().mean(), probe)
            found = row_norm(slope.flatten(1), 2).view(-1, *[1] * (x.ndim - 1)) > 0
            d = torch.where(found, _unit(slope), d.detach())
        low, high = epsilon
        there = _clipped(x + (low + (high - low) * draw(*[1] * (x.ndim - 1))) * d, clip)
        distance = row_norm((x - there).flatten(1), 2)
        near = distance < 1e-6
        quotient = (f(x) - f(there)).abs() / distance.masked_fill(near, 1)
        return (quotient - target).clamp_min(0).square().masked_fill(near, 0).mean()


def check_lipschitz(
    target: float, epsilon: Range, xi: float, power_iterations: int = 1, clip: Range | None = None
) -> None:
    """ValueError that names the first argument of `adversarial_lipschitz_penalty` out of its range."""
    checks.not_negative(target=target)
    checks.each({"epsilon": epsilon}, "0 < least <= most", lambda e: len(e) == 2 and 0 < e[0] <= e[1] < float("inf"))
    checks.positive(xi=xi)
    low_high = "(low, high) with low < high or None"  # an infinite bound is none
    checks.each(checks.given(clip=clip), low_high, lambda c: len(c) == 2 and c[1] - c[0] > 0)
    checks.at_least_one(power_iterations=power_iterations)


def _clipped(x: Tensor, clip: Range | None) -> Tensor:
    return x if clip is None else x.clamp(*clip)


def _unit(x: Tensor) -> Tensor:
    # torch's normalize has a floor for the norm, below which a tiny gradient would keep its length
    largest = x.flatten(1).abs().amax(1).view(-1, *[1] * (x.ndim - 1))
    x = x / largest.masked_fill(largest == 0, 1)
    return torch.nn.functional.normalize(x.flatten(1)).view_as(x)
