"""Log densities of normal distributions and of their mixtures, as variational autoencoders need them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.double_backward.input_gradient import no_autocast
from lightning_gans.functional.numerics import exact_products, full_precision


def normal_log_density(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Log density (N,) of rows under normal distributions of independent coordinates.

    .. math:: -\tfrac12 \sum_j \Big( \log 2\pi + v_j + (x_j - \mu_j)^2 e^{-v_j} \Big)

    Args:
        x: (N, ...).
        mean: of the same shape.
        log_variance: v, of the same shape or a number for all.

    >>> zero = torch.zeros(1, 2)
    >>> round(float(normal_log_density(zero, zero, zero)), 4)  # -log 2 pi
    -1.8379
    """
    x, mean, log_variance = full_precision(x), full_precision(mean), full_precision(log_variance)
    terms = math.log(2 * math.pi) + log_variance + (x - mean).square() * (-log_variance).exp()
    return -terms.flatten(1).sum(1) / 2


def standard_normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Divergence (N,) of normal distributions of independent coordinates from the standard normal one, in nats.

    .. math:: KL = \tfrac12 \sum_j \big( \mu_j^2 + e^{v_j} - 1 - v_j \big)

    Args:
        mean: (N, ...).
        log_variance: v, of the same shape.

    >>> standard_normal_kl(torch.ones(1, 2), torch.zeros(1, 2)).tolist()
    [1.0]
    """
    mean, log_variance = full_precision(mean), full_precision(log_variance)
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2


def mixture_log_density(
    z: Tensor, means: Tensor, log_variance: Tensor, left_out: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    r"""Log density (N,) of rows under an equal mixture of normal distributions of one variance.

    .. math:: \log \frac1{|S_i|} \sum_{n \in S_i} \mathcal N(z_i;\ \mu_n, e^v I)

    S_i is all components, or those that are not left out for row i. No tensor is larger than (N, M).

    Args:
        z: (N, d).
        means: (M, d), the components' means.
        log_variance: v, a number.
        left_out: (N, M), True where a component does not count for a row; each row must keep one.
        count: (N,) by what the sum is divided in place of |S_i|: with more, components that are not among the means
            have the density 0, and what is returned is a bound from below.

    >>> round(float(mixture_log_density(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor(0.0))), 4)  # -log 2 pi
    -1.8379
    """
    z, means, log_variance = full_precision(z), full_precision(means), full_precision(log_variance)
    with no_autocast(z.device.type), exact_products():
        centre = means.detach().mean(0)  # what is expanded must be small, or rounding would show
        a, b = z - centre, means - centre
        distance = a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)
    logits = -distance / 2 * (-log_variance).exp()
    total: Tensor | float = float(len(means)) if count is None else count
    if left_out is not None:
        logits, total = logits.masked_fill(left_out, -math.inf), (~left_out).sum(1) if count is None else count
    constant = z.shape[1] / 2 * (math.log(2 * math.pi) + log_variance)
    return logits.logsumexp(1) - torch.as_tensor(total, dtype=logits.dtype, device=z.device).log() - constant


def importance_bound(
    x: Tensor,
    moments: tuple[Tensor, Tensor],
    decode: Callable[[Tensor], Tensor],
    log_prior: Callable[[Tensor], Tensor],
    log_variance: Tensor,
    samples: int = 16,
) -> Tensor:
    r"""A bound (N,) of log p(x), in nats, that is tighter in expectation with more samples (arXiv:1509.00519).

    .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}, \qquad z_k \sim q(z|x)

    Args:
        x: (N, ...).
        moments: mean and log variance (N, d) of q(z|x).
        decode: z (N, d) to the mean of p(x|z).
        log_prior: z to log p(z) (N,).
        log_variance: of p(x|z).
        samples: K; one is the usual bound. The draws are the same each time.

    >>> zero, posterior = torch.zeros(1, 1), (torch.zeros(1, 1), torch.full((1, 1), -math.log(2)))
    >>> bound = importance_bound(zero, posterior, lambda z: z, lambda z: normal_log_density(z, zero, zero), zero)
    >>> round(float(bound), 4)  # z and x - z standard normal, q the posterior: log p(x) = -log(4 pi) / 2 itself
    -1.2655
    """
    checks.at_least_one(samples=samples)
    (mean, spread), own, found = moments, torch.Generator().manual_seed(0), []
    for _ in range(samples):
        z = mean + (spread / 2).exp() * torch.randn(mean.shape, generator=own, dtype=mean.dtype).to(mean.device)
        likelihood = normal_log_density(x, decode(z), log_variance)
        found.append(likelihood + log_prior(z) - normal_log_density(z, mean, spread))
    return torch.stack(found).logsumexp(0) - math.log(samples)
