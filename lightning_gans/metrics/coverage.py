"""Exact metrics for data whose distribution is known: modes covered, W1 in one dimension, tail mass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gans import checks


class Coverage(NamedTuple):
    """How samples spread over the modes of a mixture.

    Attributes:
        modes: number of modes that hold enough samples.
        high_quality: share of samples that lie at a mode, in [0, 1].
        reverse_kl: KL(shares of the samples || shares of the data) over the modes, in nats, >= 0.

    >>> samples, modes = torch.tensor([[0.0], [0.1], [5.0], [9.0]]), torch.tensor([[0.0], [5.0]])
    >>> mode_coverage(samples, modes, radius=0.5)
    Coverage(modes=2, high_quality=0.75, reverse_kl=0.0)
    """

    modes: int
    high_quality: float
    reverse_kl: float


def mode_coverage(
    samples: Tensor, modes: Tensor, radius: float, min_samples: int = 1, weights: Tensor | None = None
) -> Coverage:
    """Coverage of a mixture with known centres.

    A sample is of high quality if it lies within ``radius`` of the nearest centre, and a mode is covered if at least
    ``min_samples`` of those are its own. For the KL every finite sample counts for its nearest centre.

    Args:
        samples: (N, d).
        modes: (K, d) centres.
        radius: in the data's units, > 0; 3 or 4 standard deviations of a component are the custom.
        min_samples: >= 1.
        weights: (K,) shares of the modes in the data; uniform if None.

    >>> mode_coverage(torch.tensor([[0.0], [0.1], [9.0]]), torch.tensor([[0.0], [5.0]]), radius=0.5).modes
    1
    """
    if samples.dim() != 2 or len(samples) == 0 or samples.shape[1:] != modes.shape[1:]:
        raise ValueError(f"samples must have shape (N, {modes.shape[1]}), got {tuple(samples.shape)}.")
    checks.positive(radius=radius)
    checks.at_least_one(min_samples=min_samples)
    number = len(samples)
    samples = samples[torch.isfinite(samples).all(1)].double()
    distance, nearest = torch.cdist(samples, modes.to(samples)).min(1)
    near = distance <= radius
    held = torch.bincount(nearest[near], minlength=len(modes))
    covered = int((held >= min_samples).sum())
    counts = torch.bincount(nearest, minlength=len(modes))
    return Coverage(covered, float(near.sum()) / number, reverse_kl(counts, weights))


def class_coverage(labels: Tensor, num_modes: int, min_samples: int = 1, weights: Tensor | None = None) -> Coverage:
    """Coverage of ``num_modes`` classes by samples whose classes (N,) a classifier told; all count as high quality.

    Args:
        labels: (N,) int64 in [0, num_modes).
        num_modes: K.
        min_samples: samples that make a mode covered, >= 1.
        weights: (K,) shares of the modes in the data; uniform if None.

    >>> coverage = class_coverage(torch.tensor([0, 0, 1, 1]), num_modes=4)
    >>> coverage.modes, round(coverage.reverse_kl, 4)  # log 2
    (2, 0.6931)
    """
    if len(labels) == 0:
        raise ValueError("labels must hold at least one, got none.")
    checks.at_least_one(num_modes=num_modes, min_samples=min_samples)
    counts = torch.bincount(labels, minlength=num_modes)
    return Coverage(int((counts >= min_samples).sum()), 1.0, reverse_kl(counts, weights))


def reverse_kl(counts: Tensor, weights: Tensor | None = None) -> float:
    """KL(p || q) in nats of ``p = counts / sum`` (K,) and ``q`` = normalised ``weights``, or uniform.

    NaN if there is no count. Infinite if a mode of weight 0 is hit.

    >>> round(reverse_kl(torch.tensor([5, 0])), 4)  # log 2
    0.6931
    """
    p = counts.double() / counts.sum()
    q = torch.full_like(p, 1 / len(p)) if weights is None else weights.to(p) / weights.to(p).sum()
    return float(torch.where(p > 0, p * (p / q).log(), p).sum())


def wasserstein1(x: Tensor, y: Tensor) -> Tensor:
    r"""Exact W1 of two samples on the line, :math:`\int |F_x(t) - F_y(t)| dt`, by sorting.

    Args:
        x: N numbers (any shape).
        y: M numbers (any shape); M need not be N.

    >>> float(wasserstein1(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 4.0])))
    3.0
    """
    x, y = x.double().flatten().sort().values, y.double().flatten().sort().values
    if len(x) == 0 or len(y) == 0:
        raise ValueError(f"wasserstein1 needs samples on both sides, got {len(x)} and {len(y)}.")
    points = torch.cat([x, y]).sort().values
    below_x = torch.searchsorted(x, points[:-1], right=True).double() / len(x)
    below_y = torch.searchsorted(y, points[:-1], right=True).double() / len(y)
    return ((below_x - below_y).abs() * points.diff()).sum()


def tail_mass(samples: Tensor, threshold: float) -> float:
    """Share of the samples beyond ``threshold``, in [0, 1].

    >>> tail_mass(torch.tensor([0.0, 1.0, 2.0, 3.0]), threshold=2.0)
    0.25
    """
    return float((samples > threshold).double().mean())


def kde_coverage(real: Tensor, fake: Tensor, level: float = 0.95) -> float:
    """Share of the real samples where the density of the fakes is high, the metric C of AdaGAN (arXiv:1701.02386).

    High is above what a share ``level`` of the fakes themselves lie above. The density is a Gaussian kernel estimate
    around the first two thirds of the fakes; its width, out of a geometric grid about the median distance, is the one
    under which the last third is likeliest, and the threshold is taken on the last third, too: the kernels know their
    own centres too well.

    Args:
        real: (N, ...).
        fake: (M, ...), M >= 2, in an order of no meaning.
        level: in (0, 1).

    >>> kde_coverage(torch.tensor([[0.0], [9.0]]), torch.linspace(-1, 1, 30)[torch.randperm(30)][:, None])
    0.5
    """
    if len(fake) < 2 or real.shape[1:] != fake.shape[1:]:
        raise ValueError(f"fake must be at least 2 samples like real, {tuple(real.shape[1:])}, got "
                         f"{tuple(fake.shape)}.")  # fmt: skip
    checks.inside(level=level)
    real, fake = real.double().flatten(1), fake.double().flatten(1)
    centres, rest = fake.split([len(fake) - max(1, len(fake) // 3), max(1, len(fake) // 3)])
    to_rest, to_real = torch.cdist(rest, centres), torch.cdist(real, centres)
    typical, least = to_rest.median(), 1e-7 * to_rest.max()  # which rounding makes of nothing
    if typical <= least:  # most pairs coincide: the others tell a width
        apart = to_rest[to_rest > least]
        typical = apart.median() if len(apart) else torch.ones_like(typical)
    widths = typical * 2.0 ** torch.arange(-7, 7, device=fake.device)
    dimension = fake.shape[1]
    log_density = [torch.logsumexp(-(to_rest / w).square() / 2, 1) - dimension * w.log() for w in widths]
    best = int(torch.stack([values.mean() for values in log_density]).nan_to_num(-torch.inf).argmax())
    threshold = log_density[best].quantile(1 - level)
    on_real = torch.logsumexp(-(to_real / widths[best]).square() / 2, 1) - dimension * widths[best].log()
    return float((on_real > threshold).double().mean())
