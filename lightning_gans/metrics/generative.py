"""Scores of generated samples against real ones: FID, IS, KID, precision/recall and density/coverage.

Every class here takes features that were computed once (:mod:`lightning_gans.metrics.extractors`), so that one pass
of one extractor serves all. FID and KID are torchmetrics' classes; IS, of which torchmetrics makes uneven parts, and
precision/recall and density/coverage, which it lacks, are ours. Everything is computed in float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from lightning_gans import checks
from lightning_gans.metrics.uniformity import uniformity_gap

METRICS = ("fid", "is", "kid", "prdc")  # that are computed where none are named
_KNOWN = (*METRICS, "uniformity")
_ROWS = 1024  # rows of a distance matrix that are held at once


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: of fakes inside the reals' manifold, and of reals inside the fakes'.

    >>> scores = precision_recall(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [9.0]]), neighbours=1)
    >>> float(scores.precision), float(scores.recall)
    (0.5, 1.0)
    """

    precision: Tensor
    recall: Tensor


class DensityCoverage(NamedTuple):
    """Density (>= 0, about 1 for equal distributions) and coverage (a share in [0, 1]).

    >>> real, fake = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[0.5], [9.0]])
    >>> scores = density_coverage(real, fake, neighbours=1)
    >>> float(scores.density), float(scores.coverage)
    (1.0, 0.5)
    """

    density: Tensor
    coverage: Tensor


def frechet_distance(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> Tensor:
    r"""Squared Frechet distance of two Gaussians, :math:`|m_1-m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^{1/2})`.

    With :math:`C_1 = R R^T` the last trace is that of :math:`(R^T C_2 R)^{1/2}`, a symmetric matrix: several times
    faster than the eigenvalues of :math:`C_1 C_2`, and right for singular covariances too.

    Args:
        mean_1: (F,) mean; ``mean_2`` alike.
        cov_1: (F, F) covariance; ``cov_2`` alike.

    >>> float(frechet_distance(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 4.0]), torch.eye(2)))
    25.0
    """
    return _frechet_distance(mean_1, covariance_root(cov_1), mean_2, cov_2)


def covariance_root(cov: Tensor) -> Tensor:
    """``R`` (F, rank) with ``R @ R.T`` equal to the covariance (F, F)."""
    values, vectors = torch.linalg.eigh(cov)
    keep = values > values[-1].clamp(min=0) * len(values) * torch.finfo(cov.dtype).eps
    return vectors[:, keep] * values[keep].sqrt()


def _frechet_distance(mean_1: Tensor, root_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> Tensor:
    cross = torch.linalg.eigvalsh(root_1.T @ cov_2 @ root_1).clamp(min=0).sqrt().sum()
    return (mean_1 - mean_2).square().sum() + root_1.square().sum() + cov_2.trace() - 2 * cross


def knn_radii(x: Tensor, neighbours: int) -> Tensor:
    """Distance (N,) of each row of ``x`` (N, F) to its ``neighbours``-th nearest other row.

    >>> knn_radii(torch.tensor([[0.0], [1.0], [3.0]]), neighbours=1).tolist()
    [1.0, 1.0, 2.0]
    """
    checks.at_least_one(neighbours=neighbours)
    if neighbours >= len(x):
        raise ValueError(f"neighbours must lie in 1..{len(x) - 1} for {len(x)} samples, got {neighbours}.")
    return torch.cat(
        [torch.cdist(rows, x).topk(neighbours + 1, largest=False).values[:, -1] for rows in x.split(_ROWS)]
    )


def _inside(x: Tensor, centres: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """For M balls around ``centres``: how many of them hold each of the N rows of ``x``, and which hold any (M,)."""
    counts, covered = [], torch.zeros_like(radii, dtype=torch.bool)
    for rows in x.split(_ROWS):
        held = torch.cdist(rows, centres) <= radii
        counts.append(held.sum(1))
        covered |= held.any(0)
    return torch.cat(counts), covered


def precision_recall(
    real: Tensor, fake: Tensor, neighbours: int = 3, real_radii: Tensor | None = None
) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al., arXiv:1904.06991).

    The manifold of a set is the union of balls around its members, each reaching to the k-th nearest other member.
    Precision is the share of fakes in the reals' manifold, recall the share of reals in the fakes'.

    Args:
        real: (N, F) features.
        fake: (M, F) features.
        neighbours: k, 3 as in the paper.
        real_radii: ``knn_radii(real, neighbours)``, if at hand.

    >>> real, fake = torch.tensor([[0.0], [1.0], [50.0], [51.0]]), torch.tensor([[0.4], [0.6]])  # of two clusters, one
    >>> [float(share) for share in precision_recall(real, fake, neighbours=1)]
    [1.0, 0.0]
    """
    real, fake = real.double(), fake.double()
    radii = knn_radii(real, neighbours) if real_radii is None else real_radii
    precision = (_inside(fake, real, radii)[0] > 0).double().mean()
    recall = (_inside(real, fake, knn_radii(fake, neighbours))[0] > 0).double().mean()
    return PrecisionRecall(precision, recall)


def density_coverage(
    real: Tensor, fake: Tensor, neighbours: int = 5, real_radii: Tensor | None = None
) -> DensityCoverage:
    """Density and coverage (Naeem et al., arXiv:2002.09797).

    Density is the mean number of real balls (as in :func:`precision_recall`) that hold a fake, divided by k; coverage
    is the share of real balls that hold a fake.

    Args:
        real: (N, F) features.
        fake: (M, F) features.
        neighbours: k, 5 as in the paper.
        real_radii: ``knn_radii(real, neighbours)``, if at hand.

    >>> real, fake = torch.tensor([[0.0], [1.0], [50.0], [51.0]]), torch.tensor([[0.4], [0.6]])  # of two clusters, one
    >>> [float(share) for share in density_coverage(real, fake, neighbours=1)]
    [2.0, 0.5]
    """
    real, fake = real.double(), fake.double()
    radii = knn_radii(real, neighbours) if real_radii is None else real_radii
    counts, covered = _inside(fake, real, radii)
    return DensityCoverage(counts.double().mean() / neighbours, covered.double().mean())


class _Given(nn.Module):
    """torchmetrics' classes call a network on images; ours are given the features that are already there."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class FID(FrechetInceptionDistance):
    """torchmetrics' FrechetInceptionDistance on given features, by :func:`frechet_distance`; reals survive ``reset``.

    Args:
        num_features: F.
        kwargs: as for any ``torchmetrics.Metric``.

    >>> fid = FID(num_features=1)
    >>> fid.update(torch.tensor([[-1.0], [1.0]]), real=True)
    >>> fid.update(torch.tensor([[2.0], [4.0]]), real=False)  # the same, shifted by 3
    >>> round(float(fid.compute()), 4)
    9.0
    """

    def __init__(self, num_features: int, **kwargs: Any) -> None:
        super().__init__(feature=_Given(num_features), reset_real_features=False, **kwargs)
        self._root: tuple[int, Tensor] | None = None  # of the reals, with their number

    def compute(self) -> Tensor:
        """The distance, a float64 scalar."""
        mean_1, cov_1 = _moments(self.real_features_sum, self.real_features_cov_sum, self.real_features_num_samples)
        mean_2, cov_2 = _moments(self.fake_features_sum, self.fake_features_cov_sum, self.fake_features_num_samples)
        number = int(self.real_features_num_samples)
        if self._root is None or self._root[0] != number:
            self._root = (number, covariance_root(cov_1))
        return _frechet_distance(mean_1, self._root[1].to(mean_1), mean_2, cov_2)


def _moments(total: Tensor, products: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    if int(number) < 2:
        raise ValueError(f"a Frechet distance needs at least 2 samples on each side, got {int(number)}.")
    mean = total / number
    return mean, (products - number * torch.outer(mean, mean)) / (number - 1)


_DENSITY_NEIGHBOURS = 5


class PRDC(Metric):
    """:func:`precision_recall` and :func:`density_coverage` on given features; reals survive ``reset``.

    Args:
        neighbours: k of precision and recall; density and coverage have 5.
        kwargs: as for any ``torchmetrics.Metric``.

    >>> prdc, features = PRDC(), torch.arange(6.0)[:, None]
    >>> prdc.update(features, real=True)
    >>> prdc.update(features + 100, real=False)  # far away
    >>> {name: float(value) for name, value in prdc.compute().items()}
    {'precision': 0.0, 'recall': 0.0, 'density': 0.0, 'coverage': 0.0}
    """

    full_state_update = False
    is_differentiable = False
    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(self, neighbours: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.neighbours = neighbours
        self.add_state("real_features", [], dist_reduce_fx="cat")
        self.add_state("fake_features", [], dist_reduce_fx="cat")
        self._radii: tuple[int, Tensor, Tensor] | None = None  # of the reals, with their number

    def update(self, features: Tensor, real: bool) -> None:
        """Add features (N, F) to the reals or to the fakes."""
        (self.real_features if real else self.fake_features).append(features.double())

    def compute(self) -> dict[str, Tensor]:
        """``precision``, ``recall``, ``density`` and ``coverage``."""
        real, fake = _joined(self.real_features), _joined(self.fake_features)
        if self._radii is None or self._radii[0] != len(real):
            radii = (knn_radii(real, k) for k in (self.neighbours, _DENSITY_NEIGHBOURS))
            self._radii = (len(real), *radii)  # type: ignore[assignment]
        assert self._radii is not None
        _, radii_pr, radii_dc = self._radii
        first = precision_recall(real, fake, self.neighbours, radii_pr)
        second = density_coverage(real, fake, _DENSITY_NEIGHBOURS, radii_dc)
        return {**first._asdict(), **second._asdict()}

    def reset(self) -> None:
        """Forget the fakes."""
        real = list(self.real_features)  # a copy: torchmetrics empties the list itself
        super().reset()
        self.real_features = real


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    return torch.cat(list(parts)) if isinstance(parts, (list, tuple)) else parts


def inception_scores(logits: Tensor, splits: int) -> Tensor:
    """The inception score of each of so many parts of logits (N, K), of sizes that differ by one at most.

    >>> inception_scores(torch.tensor([[9.0, -9.0], [-9.0, 9.0]] * 5), splits=3)
    tensor([1.8899, 1.8899, 2.0000])
    """
    ends = [(i + 1) * len(logits) // splits for i in range(splits)]
    scores = []
    for part in logits.tensor_split(ends[:-1]):
        p, log_p = part.softmax(1), part.log_softmax(1)
        mean = p.mean(0, keepdim=True)
        terms = torch.where((p > 0) & (mean > 0), p * (log_p - mean.log()), 0.0)  # p log p is 0 at 0
        scores.append(terms.sum(1).mean().exp())
    return torch.stack(scores)


class GenerativeScores:
    """All scores of sets of fakes against one set of reals, whose statistics are computed once.

    Args:
        real: (N, F) features of the reference.
        metrics: which of ``fid``, ``is``, ``kid``, ``prdc`` (precision, recall, density, coverage) and ``uniformity``
            (with ``uniformity_real``, of as many reals, and ``uniformity_gap``: `uniformity_gap`; NaN where features
            have length 0); IS and KID with their standard deviations over parts and subsets (``is_std``, ``kid_std``).
        is_splits: number of parts of the inception score; its mean over them is the score.
        kid_subsets: number of random subsets over which KID is averaged.
        kid_subset_size: samples in each; lowered to the number at hand, and to one subset if that is all there are.
        seed: of the order for the IS parts, of the KID subsets, and of the choice of as many reals as fakes.

    Raises:
        ValueError: an unknown metric, or too few samples.

    >>> real = torch.arange(6.0)[:, None]
    >>> scores = GenerativeScores(real, metrics=["fid", "prdc"])
    >>> {name: round(value, 2) for name, value in scores(real + 100).items()}  # 100^2
    {'fid': 10000.0, 'precision': 0.0, 'recall': 0.0, 'density': 0.0, 'coverage': 0.0}
    """

    def __init__(
        self,
        real: Tensor,
        metrics: Iterable[str] = METRICS,
        *,
        is_splits: int = 10,
        kid_subsets: int = 100,
        kid_subset_size: int = 1000,
        seed: int = 0,
    ) -> None:
        self.metrics = check_metrics(metrics)
        checks.at_least_one(is_splits=is_splits, kid_subsets=kid_subsets)
        checks.at_least(2, kid_subset_size=kid_subset_size)
        self.is_splits, self.seed = is_splits, seed
        self.kid_subsets, self.kid_subset_size = kid_subsets, kid_subset_size
        self.real, self._told = real.double(), False
        _enough("reals", real, 6 if "prdc" in self.metrics else 2)
        keep = {"sync_on_compute": False}  # every rank already holds the features of all
        self._fid = FID(real.shape[1], **keep).to(real.device)
        self._fid.update(self.real, real=True)
        self._prdc = PRDC(**keep)
        self._prdc.update(self.real, real=True)

    def __call__(self, fake: Tensor, logits: Tensor | None = None) -> dict[str, float]:
        """Scores of features ``fake`` (M, F) and, for ``is``, their logits (M, K); NaN for all if any is not finite."""
        _enough("fakes", fake, 6 if "prdc" in self.metrics else 2)
        if "is" in self.metrics and logits is None:
            raise ValueError("metric 'is' needs an extractor with class logits; leave it out of metrics.")
        if not torch.isfinite(fake).all():
            return dict.fromkeys(self.names, float("nan"))
        if not self._told:
            for caveat in self.caveats(len(fake)):
                warnings.warn(f"{caveat}.", stacklevel=2)
            self._told = True
        scores: dict[str, float] = {}
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # torchmetrics announces that it stores features
            torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would seed GPUs for good
            for metric in self.metrics:
                scores |= getattr(self, f"_compute_{metric}")(fake.double(), logits)
        return scores

    @property
    def names(self) -> list[str]:
        """Names of the scores, in order."""
        return score_names(self.metrics)

    def caveats(self, num_fake: int) -> list[str]:
        """What must be known of scores of so many fakes, for the protocol; told once as a warning too."""
        number, features = min(num_fake, len(self.real)), self.real.shape[1]
        if "fid" not in self.metrics or number > features:
            return []
        return [
            f"fid of {num_fake} fakes and {len(self.real)} reals on {features} features is biased upwards: it takes "
            "more samples than features, and compares only with one of as many"
        ]

    def _compute_fid(self, fake: Tensor, logits: Tensor | None) -> dict[str, float]:
        self._fid.reset()
        self._fid.update(fake, real=False)
        return {"fid": float(self._fid.compute())}

    def _compute_is(self, fake: Tensor, logits: Tensor | None) -> dict[str, float]:
        assert logits is not None
        if len(fake) < self.is_splits:
            raise ValueError(f"is_splits must be at most the number of fakes, {len(fake)}, got {self.is_splits}.")
        scores = inception_scores(logits.double()[torch.randperm(len(logits))], self.is_splits)
        return {"is": float(scores.mean()), "is_std": float(scores.std()) if self.is_splits > 1 else 0.0}

    def _compute_kid(self, fake: Tensor, logits: Tensor | None) -> dict[str, float]:
        subsets, size = self.kid_plan(len(self.real), len(fake))
        score = KernelInceptionDistance(_Given(fake.shape[1]), subsets=subsets, subset_size=size, sync_on_compute=False)
        score.update(self.real, real=True)
        score.update(fake, real=False)
        mean, spread = (float(value) for value in score.compute())
        return {"kid": mean, "kid_std": spread}

    def kid_plan(self, num_real: int, num_fake: int) -> tuple[int, int]:
        """Number and size of the KID subsets that these numbers of samples allow."""
        size = min(self.kid_subset_size, num_real, num_fake)
        return (1 if size == num_real == num_fake else self.kid_subsets), size

    def _compute_prdc(self, fake: Tensor, logits: Tensor | None) -> dict[str, float]:
        self._prdc.reset()
        self._prdc.update(fake, real=False)
        return {name: float(value) for name, value in self._prdc.compute().items()}

    def _compute_uniformity(self, fake: Tensor, logits: Tensor | None) -> dict[str, float]:
        nowhere = any(bool((x == 0).all(1).any()) for x in (fake, self.real))  # on the sphere
        values = [math.nan] * 3 if nowhere else uniformity_gap(fake, self.real, seed=self.seed)
        return dict(zip(("uniformity", "uniformity_real", "uniformity_gap"), values))

    def uniformity_plan(self, num_fake: int) -> dict[str, Any]:
        """What the protocol tells of uniformity, which depends on the number of samples; nothing if it is not asked."""
        asked = "uniformity" in self.metrics
        return {"uniformity_items": min(num_fake, len(self.real)), "uniformity_t": 2.0} if asked else {}


def score_names(metrics: Iterable[str]) -> list[str]:
    """Names of the scores of these metrics, in order.

    >>> score_names(["fid", "kid"])
    ['fid', 'kid', 'kid_std']
    """
    parts: dict[str, tuple[str, ...]] = {"is": ("is", "is_std"), "kid": ("kid", "kid_std")}
    parts |= {"prdc": ("precision", "recall", "density", "coverage")}
    parts |= {"uniformity": ("uniformity", "uniformity_real", "uniformity_gap")}
    return [name for metric in metrics for name in parts.get(metric, (metric,))]


def check_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """The metrics as a tuple; ValueError for none or an unknown one."""
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if not names or set(names) - set(_KNOWN):
        raise ValueError(f"metrics must be some of {', '.join(_KNOWN)}, got {', '.join(map(str, names)) or 'none'}.")
    return names


def _enough(what: str, features: Tensor, needed: int) -> None:
    if len(features) < needed:
        raise ValueError(f"these metrics need at least {needed} {what}, got {len(features)}.")
