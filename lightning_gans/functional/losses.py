"""Adversarial losses: real scores high, everything is minimised, scores are raw (logits).

With r = D(x) and f = D(G(z)) the scores, s the sigmoid and m_r, m_f the mean scores (weighted if there are weights, and
over all processes of a distributed run), averaged over the batch:

| name                 | discriminator                              | generator                     | source           |
|----------------------|--------------------------------------------|-------------------------------|------------------|
| minimax              | -log s(r) - log(1 - s(f))                  | log(1 - s(f))                 | arXiv:1406.2661  |
| non_saturating       | -log s(r) - log(1 - s(f))                  | -log s(f)                     | arXiv:1406.2661  |
| hinge                | max(0, 1 - r) + max(0, 1 + f)              | -f                            | arXiv:1705.02894 |
| least_squares        | (r - 1)^2 / 2 + f^2 / 2                    | (f - 1)^2 / 2                 | arXiv:1611.04076 |
| wasserstein          | f - r                                      | -f                            | arXiv:1701.07875 |
| relativistic_average | -log s(r - m_f) - log(1 - s(f - m_r))      | the same, r and f exchanged   | arXiv:1807.00734 |

Everything is computed in at least float32 and stays exact for scores of any size: no logarithm of a sigmoid is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import mean_over_ranks


class AdversarialLoss(NamedTuple):
    """The two sides of a game, each a scalar to minimise.

    `discriminator(real, fake, real_weight=None, fake_weight=None)` takes the scores of real and fake samples, (N,) and
    (M,), and `generator(fake, real=None, fake_weight=None, real_weight=None)` those of fake samples; only the
    relativistic loss needs the real ones there too. Weights have the shape of their scores and mean 1 in expectation: a
    weighted mean is mean(weight * loss), divided by the number of samples and not by the sum of weights, which keeps
    it unbiased. A weight of another shape is a ValueError.
    """

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]


def weighted_mean(loss: Tensor, weight: Tensor | None, name: str = "weights") -> Tensor:
    """mean(weight * loss) of (N,) values, the plain mean without weights; a weight of another shape is a ValueError."""
    if weight is None:
        return loss.mean()
    if weight.shape != loss.shape:
        raise ValueError(f"{name} must be one weight per score, {tuple(loss.shape)}, got {tuple(weight.shape)}.")
    return (weight * loss).mean()


def _minus_log_sigmoid(x: Tensor) -> Tensor:
    # Not softplus(-x), which torch replaces by a straight line beyond 20: visible in float64.
    return -F.logsigmoid(x)


def _minus_log_one_minus_sigmoid(x: Tensor) -> Tensor:
    return -F.logsigmoid(-x)


def _log_one_minus_sigmoid(x: Tensor) -> Tensor:
    return F.logsigmoid(-x)


def _hinge_real(x: Tensor) -> Tensor:
    return F.relu(1 - x)


def _hinge_fake(x: Tensor) -> Tensor:
    return F.relu(1 + x)


def _half_square_to_one(x: Tensor) -> Tensor:
    return (x - 1).square() / 2


def _half_square(x: Tensor) -> Tensor:
    return x.square() / 2


def _up(x: Tensor) -> Tensor:
    return -x


def _down(x: Tensor) -> Tensor:
    return x


Term = Callable[[Tensor], Tensor]


def _two_terms(
    on_real: Term,
    on_fake: Term,
    real: Tensor,
    fake: Tensor,
    real_weight: Tensor | None = None,
    fake_weight: Tensor | None = None,
) -> Tensor:
    real_term = weighted_mean(on_real(full_precision(real)), real_weight, "real_weight")
    return real_term + weighted_mean(on_fake(full_precision(fake)), fake_weight, "fake_weight")


def _one_term(
    on_fake: Term,
    fake: Tensor,
    real: Tensor | None = None,
    fake_weight: Tensor | None = None,
    real_weight: Tensor | None = None,
) -> Tensor:
    return weighted_mean(on_fake(full_precision(fake)), fake_weight, "fake_weight")


def _relativistic(
    real: Tensor,
    fake: Tensor,
    real_weight: Tensor | None = None,
    fake_weight: Tensor | None = None,
    names: tuple[str, str] = ("real_weight", "fake_weight"),
) -> Tensor:
    real, fake = full_precision(real), full_precision(fake)
    means = torch.stack([weighted_mean(real, real_weight, names[0]), weighted_mean(fake, fake_weight, names[1])])
    real_mean, fake_mean = mean_over_ranks(means).unbind()
    real_term = weighted_mean(_minus_log_sigmoid(real - fake_mean), real_weight, names[0])
    return real_term + weighted_mean(_minus_log_one_minus_sigmoid(fake - real_mean), fake_weight, names[1])


def _relativistic_generator(
    fake: Tensor,
    real: Tensor | None = None,
    fake_weight: Tensor | None = None,
    real_weight: Tensor | None = None,
) -> Tensor:
    if real is None:
        raise ValueError("real must be the scores of real samples for a relativistic generator loss, got None.")
    return _relativistic(fake, real, fake_weight, real_weight, ("fake_weight", "real_weight"))


def _separable(on_real: Term, on_fake: Term, generator: Term) -> AdversarialLoss:
    # Partials of module functions, unlike closures, can be pickled, so a module that holds a loss can be too.
    return AdversarialLoss(partial(_two_terms, on_real, on_fake), partial(_one_term, generator))


minimax = _separable(_minus_log_sigmoid, _minus_log_one_minus_sigmoid, _log_one_minus_sigmoid)
non_saturating = _separable(_minus_log_sigmoid, _minus_log_one_minus_sigmoid, _minus_log_sigmoid)
hinge = _separable(_hinge_real, _hinge_fake, _up)
least_squares = _separable(_half_square_to_one, _half_square, _half_square_to_one)
wasserstein = _separable(_up, _down, _up)
relativistic_average = AdversarialLoss(_relativistic, _relativistic_generator)


class SaddlePair(NamedTuple):
    """f0 and f1 of max_D E_{x~p_d} f0(D(x)) + E_{x~p_g} f1(D(x)), element by element on raw scores.

    ============= ======================= ======================================================
    name          D                       f0, f1
    ============= ======================= ======================================================
    "js"          sigmoid of the score    log D, log(2 (1 - D)); both players' value is 0 at 1/2
    "wasserstein" the score               D, -D
    ============= ======================= ======================================================

    The first pair plays `minimax` up to a constant, the second `wasserstein` (arXiv:1802.01765).
    """

    f0: Term
    f1: Term
    d: Term


def _log_two_one_minus_sigmoid(x: Tensor) -> Tensor:
    return math.log(2) + F.logsigmoid(-x)


PAIRS: dict[str, SaddlePair] = {
    "js": SaddlePair(F.logsigmoid, _log_two_one_minus_sigmoid, torch.sigmoid),
    "wasserstein": SaddlePair(_down, _up, _down),
}
LOSSES: dict[str, AdversarialLoss] = {
    "minimax": minimax,
    "non_saturating": non_saturating,
    "hinge": hinge,
    "least_squares": least_squares,
    "wasserstein": wasserstein,
    "relativistic_average": relativistic_average,
}
