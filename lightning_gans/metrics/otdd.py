"""Optimal transport dataset distance (Alvarez-Melis and Fusi, arXiv:2002.02923): of labelled sets."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_gans import checks
from lightning_gans.metrics.generative import frechet_distance


class DatasetDistance(NamedTuple):
    """The distance of fakes from reals, and two lines to read it by: what sampling alone makes, and shuffled labels.

    >>> DatasetDistance(distance=0.9, real=0.8, shuffled=1.7).distance
    0.9
    """

    distance: float
    real: float
    shuffled: float


def class_distances(x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor, classes: int) -> Tensor:
    r"""Squared W2 (K, K) between normal laws of the classes of two sets.

    .. math:: |\mu-\mu'|^2 + tr(S + S' - 2 (SS')^{1/2})

    A covariance of fewer than 2 F samples gets 1e-6 of its mean variance on its diagonal.
    """
    laws = [[_law(x[y == k], k) for k in range(classes)] for x, y in ((x, y), (other_x, other_y))]
    return torch.stack([torch.stack([frechet_distance(*a, *b).clamp_min(0) for b in laws[1]]) for a in laws[0]])


def otdd(x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor, blur: float | None = None) -> float:
    r"""Square root of the least mean over a matching of :math:`|x - x'|^2 + W_2^2(\alpha_y, \alpha_{y'})`.

    The matching is exact (linear assignment): n^3, 0.24 s for 1,000 items a side and 1.2 s for 2,000. Sets of different
    size are repeated to the least common multiple, so keep sizes alike. The distance of labels is that of normal laws
    of their features (see `class_distances`); the released code halves both terms, here they are whole.

    With ``blur`` the matching is entropic and debiased (Sinkhorn divergence, by ``geomloss``): n^2, on the features'
    device, for sets of any two sizes. It tends to the exact one as blur -> 0, and is never below 0 nor, for equal sets,
    above it.

    Args:
        x: (N, F) features, 64 to 128 of a classifier, say.
        y: (N,) labels in 0..K-1.
        other_x: (M, F).
        other_y: (M,).
        blur: > 0, in units of distance; None: exact.

    Raises:
        ValueError: for shapes that do not fit, a class with fewer than two items in either set, and, without a blur,
            sets whose least common multiple is above 10,000.
        ImportError: for a blur where geomloss is not installed (extra ``transport``).

    >>> x, y = torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([0, 0, 1, 1])
    >>> otdd(x, y, x, y), round(otdd(x, y, x + 3, y) ** 2, 6)  # the features move by 3, and so do the classes
    (0.0, 18.0)
    """
    for name, a, b in (("x", x, y), ("other_x", other_x, other_y)):
        if a.dim() != 2 or b.shape != (len(a),) or len(a) == 0 or a.shape[1] != x.shape[1]:
            raise ValueError(f"{name} and its labels must be (N, F) and (N,), got {tuple(a.shape)}, {tuple(b.shape)}.")
        if b.is_floating_point() or int(b.min()) < 0:
            raise ValueError(f"labels of {name} must be integers >= 0, got {b.dtype} from {b.min().item()} on.")
    if blur is not None:
        checks.positive(blur=blur)
        checks.installed("geomloss")
    size = math.lcm(len(x), len(other_x))
    if blur is None and size > 10_000:
        raise ValueError(f"the sets must have a least common multiple of at most 10,000, got {len(x)}, {len(other_x)}.")
    x, other_x, classes = x.double(), other_x.double(), 1 + int(torch.maximum(y.max(), other_y.max()))
    if blur is not None:
        return _entropic(x, y, other_x, other_y, classes, blur)
    between = class_distances(x, y, other_x, other_y, classes)
    cost = torch.cdist(x, other_x, compute_mode="donot_use_mm_for_euclid_dist").square() + between[y][:, other_y]
    cost = cost.repeat_interleave(size // len(x), 0).repeat_interleave(size // len(other_x), 1).cpu()
    rows, columns = linear_sum_assignment(cost.numpy())
    return math.sqrt(max(float(cost[rows, columns].mean()), 0.0))


def otdd_report(fake: Tensor, fake_labels: Tensor, real: Tensor, labels: Tensor, n: int = 500,
                seed: int = 0, blur: float | None = None) -> DatasetDistance:  # fmt: skip
    """`otdd` of n fakes from n reals, beside that of other n reals, and that of the fakes with shuffled labels.

    Args:
        fake: (N, F) features, N >= n.
        fake_labels: (N,) the classes that they were asked to be of.
        real: (M, F) features, M >= 2 n.
        labels: (M,).
        n: items of each set.
        seed: of the choice and the shuffle.
        blur: see `otdd`.

    Raises:
        ValueError: as `otdd`, and for too few items.

    >>> labels = torch.arange(80) % 2
    >>> real = 4.0 * labels[:, None] + torch.randn(80, 1, generator=torch.Generator().manual_seed(0))
    >>> report = otdd_report(real[:40], labels[:40], real, labels, n=20)
    >>> report.distance < report.shuffled  # labels that fit lie nearer
    True
    """
    checks.at_least(2, n=n)
    if len(fake) < n or len(real) < 2 * n:
        raise ValueError(f"there must be n={n} fakes and {2 * n} reals, got {len(fake)} and {len(real)}.")
    own = torch.Generator().manual_seed(seed)
    some, order = (torch.randperm(len(a), generator=own) for a in (fake, real))
    one, two, shuffle = order[:n], order[n : 2 * n], torch.randperm(n, generator=own)
    given = fake_labels[some[:n]]
    target = real[one], labels[one]
    return DatasetDistance(
        otdd(fake[some[:n]], given, *target, blur),
        otdd(real[two], labels[two], *target, blur),
        otdd(fake[some[:n]], given[shuffle], *target, blur),
    )


def _entropic(x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor, classes: int, blur: float) -> float:
    """The debiased distance, whose parts within a set need the distances of its own classes too."""
    from geomloss import SamplesLoss

    pairs = [(x, y), (other_x, other_y)]
    table = torch.cat([torch.cat([class_distances(*a, *b, classes) for b in pairs], 1) for a in pairs])

    def half_cost(a: Tensor, b: Tensor) -> Tensor:  # (B, N, F + 1), the label as the last column
        own, other = (points[..., -1].long() for points in (a, b))
        features = torch.cdist(a[..., :-1], b[..., :-1], compute_mode="donot_use_mm_for_euclid_dist").square()
        return (features + table[own[..., :, None], other[..., None, :]]) / 2

    sides = [
        torch.cat([points, label[:, None].to(points)], 1)[None]
        for points, label in ((x, y), (other_x, other_y + classes))
    ]
    far = max(float(half_cost(a, b).max()) for a in sides for b in sides)
    loss = SamplesLoss(
        "sinkhorn",
        p=2,
        blur=blur,
        diameter=max((2 * far) ** 0.5, blur),
        scaling=0.95,
        cost=half_cost,
        backend="tensorized",
    )
    return math.sqrt(max(2 * float(loss(*sides)), 0.0))


def _law(x: Tensor, label: int) -> tuple[Tensor, Tensor]:
    if len(x) < 2:
        raise ValueError(f"each class must have two items or more in both sets, got {len(x)} of class {label}.")
    covariance = torch.cov(x.T).view(x.shape[1], -1)
    if len(x) < 2 * x.shape[1]:
        covariance = covariance + 1e-6 * covariance.trace() / len(covariance) * torch.eye(len(covariance)).to(x)
    return x.mean(0), covariance
