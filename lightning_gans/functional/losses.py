"""Adversarial losses: real scores high, everything is minimised, scores are raw (logits).

With r = D(x) and f = D(G(z)) the scores, s the sigmoid and m_r, m_f the mean scores (weighted if there are weights,
over all processes of a distributed run, and of each representation by itself), averaged over the batch:

| name                 | discriminator                              | generator                     | source           |
|----------------------|--------------------------------------------|-------------------------------|------------------|
| minimax              | -log s(r) - log(1 - s(f))                  | log(1 - s(f))                 | arXiv:1406.2661  |
| non_saturating       | -log s(r) - log(1 - s(f))                  | -log s(f)                     | arXiv:1406.2661  |
| hinge                | max(0, 1 - r) + max(0, 1 + f)              | -f                            | arXiv:1705.02894 |
| least_squares        | (r - 1)^2 / 2 + f^2 / 2                    | (f - 1)^2 / 2                 | arXiv:1611.04076 |
| wasserstein          | f - r                                      | -f                            | arXiv:1701.07875 |
| relativistic_average | -log s(r - m_f) - log(1 - s(f - m_r))      | the same, r and f exchanged   | arXiv:1807.00734 |
| relativistic         | -log s(r_i - f_i), in pairs                | -log s(f_i - r_i)             | arXiv:1807.00734 |

Everything is computed in at least float32 and stays exact for scores of any size: no logarithm of a sigmoid is taken
(nor is softplus used, which torch replaces by a straight line beyond 20: visible in float64).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import mean_over_ranks

LossName = Literal[
    "minimax", "non_saturating", "hinge", "least_squares", "wasserstein", "relativistic_average", "relativistic"
]


Weight = Tensor | None  # of each sample


class AdversarialLoss(NamedTuple):
    """The two sides of a game, each a scalar to minimise, of scores (N,), or (N, R) of R representations.

    `discriminator(real, fake, real_weight=None, fake_weight=None)` takes the scores of real and fake samples, (N,) and
    (M,), and `generator(fake, real=None, fake_weight=None, real_weight=None)` those of fake samples; only the
    relativistic losses need the real ones there too. Weights have the shape of their scores and mean 1 in expectation:
    a weighted mean is mean(weight * loss), divided by the number of samples and not by the sum of weights, which keeps
    it unbiased. A weight of another shape is a ValueError.

    >>> real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-0.5])
    >>> float(LOSSES["hinge"].discriminator(real, fake)), float(LOSSES["hinge"].generator(fake))
    (1.0, 0.5)
    >>> float(LOSSES["hinge"].discriminator(real, fake, real_weight=torch.tensor([2.0, 0.0])))
    0.5
    """

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]


def weighted(loss: Tensor, weight: Weight, name: str = "weights") -> Tensor:
    """weight * loss of (N,) values, or these without weights; a weight of another shape is a ValueError.

    Of (N, R) values, those of R representations, each has its sample's weight (N,).
    """
    if weight is None:
        return loss
    if weight.shape != loss.shape:
        if weight.shape != loss.shape[:1]:
            raise ValueError(f"{name} must be one weight per score, {tuple(loss.shape)}, got {tuple(weight.shape)}.")
        weight = weight[:, None]
    return weight * loss


def weighted_mean(loss: Tensor, weight: Weight, name: str = "weights") -> Tensor:
    """mean(weight * loss) of (N,) values, the plain mean without weights; a weight of another shape is a ValueError."""
    return weighted(loss, weight, name).mean()


# ---------------------------------------------------------------------- discriminators
def logistic_d(real: Tensor, fake: Tensor, real_weight: Weight = None, fake_weight: Weight = None) -> Tensor:
    """E -log s(r) + E -log(1 - s(f)), of minimax and of non_saturating."""
    on_real, on_fake = -F.logsigmoid(full_precision(real)), -F.logsigmoid(-full_precision(fake))
    return _two_means(on_real, on_fake, real_weight, fake_weight)


def hinge_d(real: Tensor, fake: Tensor, real_weight: Weight = None, fake_weight: Weight = None) -> Tensor:
    """E max(0, 1 - r) + E max(0, 1 + f)."""
    on_real, on_fake = F.relu(1 - full_precision(real)), F.relu(1 + full_precision(fake))
    return _two_means(on_real, on_fake, real_weight, fake_weight)


def least_squares_d(real: Tensor, fake: Tensor, real_weight: Weight = None, fake_weight: Weight = None) -> Tensor:
    """E (r - 1)^2 / 2 + E f^2 / 2."""
    on_real, on_fake = (full_precision(real) - 1).square() / 2, full_precision(fake).square() / 2
    return _two_means(on_real, on_fake, real_weight, fake_weight)


def wasserstein_d(real: Tensor, fake: Tensor, real_weight: Weight = None, fake_weight: Weight = None) -> Tensor:
    """-E r + E f."""
    if real_weight is None and fake_weight is None:
        return full_precision(fake).mean() - full_precision(real).mean()
    return _two_means(-full_precision(real), full_precision(fake), real_weight, fake_weight)


def relativistic_average_d(
    real: Tensor,
    fake: Tensor,
    real_weight: Weight = None,
    fake_weight: Weight = None,
    names: tuple[str, str] = ("real_weight", "fake_weight"),
) -> Tensor:
    """E -log s(r - m_f) + E -log(1 - s(f - m_r)); the means are over all processes, of each representation its own."""
    r, f = full_precision(real), full_precision(fake)
    means = torch.stack([weighted(r, real_weight, names[0]).mean(0), weighted(f, fake_weight, names[1]).mean(0)])
    m_r, m_f = mean_over_ranks(means).unbind()
    return _two_means(-F.logsigmoid(r - m_f), -F.logsigmoid(m_r - f), real_weight, fake_weight)


def relativistic_d(
    real: Tensor,
    fake: Tensor,
    real_weight: Weight = None,
    fake_weight: Weight = None,
    names: tuple[str, str] = ("real_weight", "fake_weight"),
) -> Tensor:
    """E -log s(r_i - f_i) over pairs of the same place in the batch; a pair's weight is the product of its two.

    Raises:
        ValueError: for unequal numbers of real and fake.
    """
    if real.shape != fake.shape:
        raise ValueError(
            "The relativistic loss must have as many fake scores as real ones, since it compares them in pairs, got "
            f"{fake.numel()} and {real.numel()}."
        )
    loss = -F.logsigmoid(full_precision(real) - full_precision(fake))
    return weighted_mean(weighted(loss, real_weight, names[0]), fake_weight, names[1])


def _two_means(on_real: Tensor, on_fake: Tensor, real_weight: Weight, fake_weight: Weight) -> Tensor:
    return weighted(on_real, real_weight, "real_weight").mean() + weighted(on_fake, fake_weight, "fake_weight").mean()


# ---------------------------------------------------------------------- generators
def minimax_g(
    fake: Tensor, real: Tensor | None = None, fake_weight: Weight = None, real_weight: Weight = None
) -> Tensor:
    """E log(1 - s(f))."""
    return weighted_mean(F.logsigmoid(-full_precision(fake)), fake_weight, "fake_weight")


def non_saturating_g(
    fake: Tensor, real: Tensor | None = None, fake_weight: Weight = None, real_weight: Weight = None
) -> Tensor:
    """E -log s(f)."""
    return weighted_mean(-F.logsigmoid(full_precision(fake)), fake_weight, "fake_weight")


def least_squares_g(
    fake: Tensor, real: Tensor | None = None, fake_weight: Weight = None, real_weight: Weight = None
) -> Tensor:
    """E (f - 1)^2 / 2."""
    return weighted_mean((full_precision(fake) - 1).square() / 2, fake_weight, "fake_weight")


def wasserstein_g(
    fake: Tensor, real: Tensor | None = None, fake_weight: Weight = None, real_weight: Weight = None
) -> Tensor:
    """-E f, of wasserstein and of hinge."""
    return weighted_mean(-full_precision(fake), fake_weight, "fake_weight")


def relativistic_average_g(
    fake: Tensor, real: Tensor | None = None, fake_weight: Weight = None, real_weight: Weight = None
) -> Tensor:
    """That of the discriminator, r and f exchanged."""
    return relativistic_average_d(fake, _needed(real), fake_weight, real_weight, ("fake_weight", "real_weight"))


def relativistic_g(
    fake: Tensor, real: Tensor | None = None, fake_weight: Weight = None, real_weight: Weight = None
) -> Tensor:
    """That of the discriminator, r and f exchanged."""
    return relativistic_d(fake, _needed(real), fake_weight, real_weight, ("fake_weight", "real_weight"))


def _needed(real: Tensor | None) -> Tensor:
    if real is None:
        raise ValueError("real must be the scores of real samples for a relativistic generator loss, got None.")
    return real


LOSSES: dict[str, AdversarialLoss] = {
    "minimax": AdversarialLoss(logistic_d, minimax_g),
    "non_saturating": AdversarialLoss(logistic_d, non_saturating_g),
    "hinge": AdversarialLoss(hinge_d, wasserstein_g),
    "least_squares": AdversarialLoss(least_squares_d, least_squares_g),
    "wasserstein": AdversarialLoss(wasserstein_d, wasserstein_g),
    "relativistic_average": AdversarialLoss(relativistic_average_d, relativistic_average_g),
    "relativistic": AdversarialLoss(relativistic_d, relativistic_g),
}
RELATIVISTIC = ("relativistic_average", "relativistic")  # their generators are given the scores of real samples too


class SaddlePair(NamedTuple):
    """f0 and f1 of max_D E_{x~p_d} f0(D(x)) + E_{x~p_g} f1(D(x)), element by element on raw scores.

    ============= ======================= ======================================================
    name          D                       f0, f1
    ============= ======================= ======================================================
    "js"          sigmoid of the score    log D, log(2 (1 - D)); both players' value is 0 at 1/2
    "wasserstein" the score               D, -D
    ============= ======================= ======================================================

    The first pair plays minimax up to a constant, the second wasserstein (arXiv:1802.01765).

    >>> pair, scores = PAIRS["js"], torch.tensor([0.0, -50.0])
    >>> [[round(v, 4) for v in part.tolist()] for part in (pair.d(scores), pair.f0(scores))]
    [[0.5, 0.0], [-0.6931, -50.0]]
    """

    f0: Callable[[Tensor], Tensor]
    f1: Callable[[Tensor], Tensor]
    d: Callable[[Tensor], Tensor]


def _same(x: Tensor) -> Tensor:
    return x


def _minus(x: Tensor) -> Tensor:
    return -x


def _log_two_one_minus_sigmoid(x: Tensor) -> Tensor:
    return math.log(2) + F.logsigmoid(-x)


PAIRS: dict[str, SaddlePair] = {
    "js": SaddlePair(F.logsigmoid, _log_two_one_minus_sigmoid, torch.sigmoid),
    "wasserstein": SaddlePair(_same, _minus, _same),
}
