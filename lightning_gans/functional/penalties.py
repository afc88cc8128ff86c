"""Penalties on the slope of a discriminator, and the points where it is taken; the path length of a generator.

All of them run in float32 outside autocast (half-precision points are raised, float64 ones stay), on detached points
(but for `path_length`): their gradient reaches the discriminator's parameters only. A `discriminator` here is any
function (N, ...) -> (N,); for a conditional network pass `partial(score, network, labels=labels)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.conditional import check_scores
from lightning_gans.functional.double_backward.input_gradient import (
    Discriminator,
    in_full_precision,
    input_gradient,
    no_autocast,
)
from lightning_gans.functional.draw import uniform
from lightning_gans.functional.numerics import full_precision, row_norm
from lightning_gans.functional.ranks import mean_over_ranks


def drift(scores: Tensor) -> Tensor:
    """The square of the mean of scores (N,) over the batches of all ranks.

    >>> float(drift(torch.tensor([3.0, -1.0])))
    1.0
    """
    return mean_over_ranks(full_precision(scores).mean()).square()


def gradient_norm(discriminator: Discriminator, x: Tensor, p: float = 2.0, create_graph: bool = True) -> Tensor:
    """The p-norm of each sample's input gradient over all its dimensions: (N, ...) -> (N,).

    >>> gradient_norm(lambda x: x @ torch.tensor([3.0, 4.0]), torch.zeros(2, 2)).tolist()
    [5.0, 5.0]
    """
    return row_norm(input_gradient(discriminator, x, create_graph), p)


def gradient_penalty(
    discriminator: Discriminator,
    x: Tensor,
    p: float = 2.0,
    target: float = 1.0,
    power: float = 2.0,
    one_sided: bool = False,
) -> Tensor:
    """Distance of the discriminator's gradient norm n = ||grad D(x)||_p from a target K, averaged over the points `x`.

    Two-sided: mean |n - K|^power. One-sided: mean max(0, n - K)^power. WGAN-GP (arXiv:1704.00028) is the two-sided one
    with the defaults, at `interpolate(real, fake)`.

    Args:
        discriminator: (N, ...) -> (N,).
        x: the points, (N, ...).
        p: order of the norm, >= 1, infinity included. The constraint it expresses is Lipschitz in the dual norm.
        target: K >= 0.
        power: > 0; below 1 the gradient of the penalty is unbounded next to the target.
        one_sided: penalise only norms above K.

    >>> float(gradient_penalty(lambda x: x @ torch.tensor([3.0, 4.0]), torch.zeros(2, 2)))  # (5 - 1)^2
    16.0
    """
    check_penalty(p, target, power)
    excess = gradient_norm(discriminator, x, p) - target
    if power == 2 and not one_sided:
        return excess.square().mean()
    excess = excess.clamp_min(0) if one_sided else excess.abs()
    if power >= 1:
        return excess.pow(power).mean()
    zero = excess == 0  # where the derivative of the power is infinite, and times that of the clamp or abs, NaN
    return excess.masked_fill(zero, 1).pow(power).masked_fill(zero, 0).mean()


def finite_difference_penalty(discriminator: Discriminator, x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """mean (|D(x1) - D(x2)| / ||x1 - x2||_p - 1)^2 over pairs of points, without a second backward pass.

    The slope of the chord between two points instead of the gradient at one. It is never more than the largest gradient
    norm (dual to p) on the segment, and it cannot be 1 for all pairs of three points that are not on a line: unlike a
    gradient penalty this one does not reach 0. Pairs so close that rounding decides the slope count as 0.

    Args:
        discriminator: (N, ...) -> (N,).
        x1, x2: the points, (N, ...), usually two independent interpolates.
        p: order of the norm, >= 1.

    >>> float(finite_difference_penalty(lambda x: 3 * x[:, 0], torch.zeros(2, 1), torch.ones(2, 1)))  # (3 - 1)^2
    4.0
    """
    check_penalty(p)
    if x1.shape != x2.shape:
        raise ValueError(f"x2 must have the shape of x1, {tuple(x1.shape)}, got {tuple(x2.shape)}.")
    x1, x2 = full_precision(x1.detach()), full_precision(x2.detach())
    f = in_full_precision(discriminator)
    with no_autocast(x1.device.type):
        rise = (check_scores(f(x1), len(x1)) - check_scores(f(x2), len(x2))).abs()
    distance = row_norm((x1 - x2).flatten(1), p)
    near = distance <= 32 * torch.finfo(distance.dtype).eps * row_norm(x1.flatten(1), p)
    slope = rise / distance.masked_fill(near, 1)
    return (slope - 1).square().masked_fill(near, 0).mean()


def interpolate(real: Tensor, fake: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Random points between real and fake samples, a x + (1 - a) x~ with one a ~ U[0, 1) per sample; detached.

    Args:
        real, fake: (N, ...) of the same shape; for a conditional discriminator, of the same labels too.
        generator: source of a.

    >>> x = interpolate(torch.ones(3, 2), torch.zeros(3, 2))
    >>> torch.equal(x[:, 0], x[:, 1]), bool(((x >= 0) & (x < 1)).all())  # one a per sample
    (True, True)
    """
    if real.shape != fake.shape:
        raise ValueError(f"fake must have the shape of real, {tuple(real.shape)}, got {tuple(fake.shape)}.")
    real, fake = full_precision(real.detach()), full_precision(fake.detach())
    a = uniform(len(real), *[1] * (real.ndim - 1), generator=generator, device=real.device, dtype=real.dtype)
    return torch.lerp(fake, real, a)


def perturb(real: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Random points around real samples, x + 0.5 std(x) u with u ~ U[0, 1) per element; detached.

    std(x) is one number, the standard deviation of all elements of the batch (of all processes).

    >>> torch.equal(perturb(torch.ones(3, 2)), torch.ones(3, 2))  # of no spread
    True
    """
    real = full_precision(real.detach())
    std = mean_over_ranks((real - mean_over_ranks(real.mean())).square().mean()).sqrt()
    return real + 0.5 * std * uniform(*real.shape, generator=generator, device=real.device, dtype=real.dtype)


def path_length(synthesis: Callable[[Tensor], Tensor], w: Tensor, noise: Tensor) -> Tensor:
    r"""How far images move with each sample's w, in a random direction of images (arXiv:1912.04958, section 3.2).

    .. math:: \ell = \sqrt{\frac1L \sum_{l=1}^L \Big\|\frac{\partial}{\partial w_l}
              \sum_{c,i,j} G(w)_{cij}\, y_{cij} \Big\|^2}, \qquad y = \mathrm{noise} / \sqrt{HW}

    Its gradient reaches the parameters of ``synthesis`` and those that w was computed from. For a linear map G(w) = A w
    and normal noise :math:`E\,\ell^2 = \|A\|_F^2 / (HW)`.

    Args:
        synthesis: w to images (N, C, H, W), at random in nothing.
        w: (N, L, d) for L layers, or (N, d).
        noise: standard normal, of the shape of the images.

    Returns:
        (N,) lengths.

    >>> double = lambda w: 2 * w.view(-1, 1, 2, 2)  # A = 2 I, images of 2 x 2 pixels
    >>> path_length(double, torch.zeros(1, 4), torch.ones(1, 1, 2, 2)).item()
    2.0
    """
    y = noise / noise[0, 0].numel() ** 0.5
    slope = input_gradient(lambda at: (synthesis(at) * y).flatten(1).sum(1), w, through=True)
    return row_norm(slope) / (w.shape[1] if w.ndim == 3 else 1) ** 0.5


def check_penalty(p: float = 2.0, target: float = 1.0, power: float = 2.0) -> None:
    """Raises a ValueError that names the first argument out of its range."""
    try:
        _check_once(p, target, power)
    except TypeError:  # what has no hash is no number
        _check_once.__wrapped__(p, target, power)


@lru_cache(maxsize=64, typed=True)  # what has passed once is asked no more, at each step of a training
def _check_once(p: float, target: float, power: float) -> None:
    checks.each({"p": p}, "the order of a norm, at least 1", lambda p: p >= 1)
    checks.not_negative(target=target)
    checks.positive(power=power)
