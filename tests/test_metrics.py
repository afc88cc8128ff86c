"""Metrics against closed forms, brute force and independent implementations; extractors and their cache."""

from __future__ import annotations

import math
import os
import stat
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import doubles
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from lightning_gans.datamodules.digits import Digits
from lightning_gans.metrics import (
    FID,
    PRDC,
    ClassifierExtractor,
    GenerativeScores,
    InceptionExtractor,
    ModuleExtractor,
    class_coverage,
    content_hash,
    density_coverage,
    extractors,
    frechet_distance,
    kde_coverage,
    knn_radii,
    mode_coverage,
    precision_recall,
    reverse_kl,
    tail_mass,
    to_uint8,
    uniformity,
    uniformity_gap,
    wasserstein1,
    weights_hash,
)
from lightning_gans.metrics.generative import FrechetInceptionDistance, inception_scores
from lightning_gans.samplers import keep_training


# ---------------------------------------------------------------------- Frechet distance
def test_frechet_distance_of_diagonal_gaussians() -> None:
    """sum (m1 - m2)^2 + sum (s1 - s2)^2 for diagonal covariances."""
    m1, m2, s1, s2 = doubles(4, 5).unbind()
    s1, s2 = s1.abs(), s2.abs()
    expected = (m1 - m2).square().sum() + (s1 - s2).square().sum()
    assert float(frechet_distance(m1, s1.square().diag(), m2, s2.square().diag())) == pytest.approx(float(expected))


def test_frechet_distance_of_singular_covariances() -> None:
    """Disjoint supports: the cross term is zero, the distance is the sum of the traces."""
    zero = torch.zeros(3, dtype=torch.float64)
    a, b = torch.diag(torch.tensor([4.0, 0, 0]).double()), torch.diag(torch.tensor([0, 1.0, 2.0]).double())
    assert float(frechet_distance(zero, a, zero, b)) == pytest.approx(7, abs=1e-12)
    assert float(frechet_distance(zero, a, zero, a)) == pytest.approx(0, abs=1e-12)
    assert float(frechet_distance(zero, zero.diag(), zero, b)) == pytest.approx(3, abs=1e-12)


@pytest.mark.parametrize("number", [12, 400])
def test_fid_equals_torchmetrics(number: int) -> None:
    """Also with fewer samples than features; reals survive reset, more reals are noticed."""
    real, fake = doubles(number, 32), 1.3 * doubles(number + 5, 32, seed=1) + 0.2

    class Same(nn.Module):
        num_features = 32

        def forward(self, x: Tensor) -> Tensor:
            return x

    theirs, ours = FrechetInceptionDistance(feature=Same()), FID(32)
    for metric in (theirs, ours):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()), rel=1e-5)
    ours.reset()
    ours.update(real, real=False)
    assert float(ours.compute()) == pytest.approx(0, abs=1e-6)
    ours.update(fake, real=True)
    ours.update(fake, real=False)
    assert float(ours.compute()) == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------- manifolds
def brute_force(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    """The four definitions, one pair at a time."""

    def radius(x: Tensor, i: int) -> float:
        return sorted(float((x[i] - x[j]).norm()) for j in range(len(x)) if j != i)[k - 1]

    def inside(x: Tensor, balls: Tensor) -> list[list[bool]]:
        radii = [radius(balls, j) for j in range(len(balls))]
        return [[float((point - balls[j]).norm()) <= radii[j] for j in range(len(balls))] for point in x]

    in_real, in_fake = inside(fake, real), inside(real, fake)
    precision = sum(map(any, in_real)) / len(fake)
    recall = sum(map(any, in_fake)) / len(real)
    density = sum(map(sum, in_real)) / (k * len(fake))
    coverage = sum(any(row[j] for row in in_real) for j in range(len(real))) / len(real)
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_equals_brute_force(k: int) -> None:
    real, fake = doubles(23, 2), doubles(17, 2, seed=1) * 0.8 + 0.5
    found = (*precision_recall(real, fake, k), *density_coverage(real, fake, k))
    assert [float(value) for value in found] == pytest.approx(brute_force(real, fake, k), abs=1e-12)


def test_precision_recall_equals_torch_fidelity() -> None:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    real, fake = doubles(200, 8).float(), (doubles(150, 8, seed=1) * 0.7 + 0.3).float()
    ours = [float(value) for value in precision_recall(real, fake)]
    assert ours == pytest.approx(calculate_precision_recall_full(fake, real), rel=1e-6)
    assert all(0 < value < 1 for value in ours)


def test_all_scores_of_features_equal_torch_fidelity() -> None:
    """The same arithmetic on given features; on images through Inception in a slow test."""
    from torch_fidelity import metric_fid, metric_isc, metric_kid

    real, fake, logits = doubles(120, 8), doubles(120, 8, seed=1) * 0.7 + 0.3, 3 * doubles(120, 5, seed=2)
    ours = GenerativeScores(real, ("fid", "is", "kid"), is_splits=1, kid_subsets=1, kid_subset_size=120)(fake, logits)
    means = [metric_fid.fid_features_to_statistics(x) for x in (real, fake)]
    theirs = {
        "fid": metric_fid.fid_statistics_to_metric(*means, verbose=False)["frechet_inception_distance"],
        "is": metric_isc.isc_features_to_metric(logits, splits=1)["inception_score_mean"],
        "kid": metric_kid.kid_features_to_metric(real, fake, kid_subsets=1, kid_subset_size=120, verbose=False)[
            "kernel_inception_distance_mean"
        ],
    }
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("n", [11, 57, 60])
def test_parts_of_the_inception_score_are_torch_fidelitys(n: int) -> None:
    """As many as asked for, and even; of torchmetrics 11 would be 6 parts, and the last of 57 three."""
    from torch_fidelity import metric_isc
    from torchmetrics.image.inception import InceptionScore

    logits, features = 3 * doubles(n, 5), doubles(n, 3)
    theirs = metric_isc.isc_features_to_metric(logits, splits=10, shuffle=False)
    scores = inception_scores(logits, 10)
    assert float(scores.mean()) == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert float(scores.std(correction=0)) == pytest.approx(theirs["inception_score_std"], rel=1e-9)
    if n == 60:  # to the bit as before
        torch.manual_seed(0)
        given = nn.Identity()
        given.num_features = 5  # type: ignore[assignment]
        other = InceptionScore(feature=given, splits=10)
        other.features = [logits]
        found = GenerativeScores(features, ("is",), seed=0)(features, logits)
        assert (found["is"], found["is_std"]) == tuple(map(float, other.compute()))


def test_prdc_in_rows_equals_prdc_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = doubles(50, 3), doubles(40, 3, seed=1)
    whole = (*precision_recall(real, fake), *density_coverage(real, fake))
    monkeypatch.setattr("lightning_gans.metrics.generative._ROWS", 7)
    assert (*precision_recall(real, fake), *density_coverage(real, fake)) == whole


def test_prdc_of_far_and_of_equal_sets() -> None:
    real = doubles(30, 4)
    metric = PRDC()
    metric.update(real, real=True)
    metric.update(real + 100, real=False)
    assert all(float(value) == 0 for value in metric.compute().values())
    metric.reset()
    metric.update(real, real=False)
    values = metric.compute()
    assert float(values["precision"]) == float(values["recall"]) == float(values["coverage"]) == 1
    assert float(values["density"]) >= 1


def test_knn_radii() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    torch.testing.assert_close(knn_radii(points, 2), torch.tensor([3.0, 2.0, 3.0, 6.0], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"neighbours must lie in 1\.\.3 for 4 samples, got 4"):
        knn_radii(points, 4)


# ---------------------------------------------------------------------- all scores
def test_inception_score_of_sure_and_unsure_classes() -> None:
    """K when each of K classes is told with certainty and equally often; 1 when all are told alike."""
    features = doubles(40, 3)
    scores = GenerativeScores(features, ("is",), is_splits=1)
    sure = 1000 * torch.eye(4).repeat(10, 1)
    assert scores(features, sure)["is"] == pytest.approx(4, rel=1e-9)
    assert scores(features, torch.ones(40, 4))["is"] == pytest.approx(1, rel=1e-9)


def test_inception_score_of_classes_that_never_are() -> None:
    """A class of probability 0 in all rows, by underflow or by a mask, adds nothing; nor does one of some rows."""
    sure = torch.tensor([[0.0, -2000.0, -2000.0], [-2000.0, 0.0, -2000.0]], dtype=torch.float64)
    masked = torch.tensor([[0.0, 0.0, -math.inf], [0.0, -math.inf, -math.inf]], dtype=torch.float64)
    assert float(inception_scores(sure, 1)) == pytest.approx(2)
    gap = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25) + math.log(1 / 0.75)
    assert float(inception_scores(masked, 1)) == pytest.approx(math.exp(gap / 2))


def test_kid_equals_its_definition() -> None:
    """Unbiased squared MMD with the kernel (x.y / F + 1)^3, on one subset of all samples."""
    x, y = doubles(20, 6), doubles(20, 6, seed=1) + 0.3
    found = GenerativeScores(x, ("kid",))(y)["kid"]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / 6 + 1) ** 3

    off = ~torch.eye(20, dtype=torch.bool)
    expected = kernel(x, x)[off].mean() + kernel(y, y)[off].mean() - 2 * kernel(x, y).mean()
    assert found == pytest.approx(float(expected), rel=1e-9)


def test_scores_are_repeatable_and_leave_the_global_generator_alone() -> None:
    scores = GenerativeScores(doubles(60, 4), kid_subsets=3, kid_subset_size=20)
    fake, logits = doubles(50, 4, seed=1), doubles(50, 4, seed=2)
    before = torch.get_rng_state()
    first = scores(fake, logits)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert scores(fake, logits) == first
    names = ["fid", "is", "is_std", "kid", "kid_std", "precision", "recall", "density", "coverage"]
    assert list(first) == scores.names == names


def test_the_generators_of_gpus_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all that seeds the CPU's for a while."""
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    GenerativeScores(doubles(50, 3), metrics=["fid"])(doubles(50, 3))
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    ClassifierExtractor(images, torch.tensor([0, 1, 0, 1]), cache_dir=str(tmp_path), epochs=1)
    net = nn.Linear(2, 1)
    module = SimpleNamespace(discriminator=net, sample=lambda n, labels, generator: torch.randn(n, 2))
    keep_training(module, doubles(20, 2).float(), steps=1, progress=False)
    assert seeds == []


def test_scores_refuse_what_they_cannot_use() -> None:
    real = doubles(20, 4)
    with pytest.raises(ValueError, match="metrics must be some of fid, is, kid, prdc, uniformity, got fidd"):
        GenerativeScores(real, ("fidd",))
    with pytest.raises(ValueError, match="at least 6 reals, got 4"):
        GenerativeScores(real[:4])
    with pytest.raises(ValueError, match="at least 2 fakes, got 1"):
        GenerativeScores(real, ("fid",))(real[:1])
    with pytest.raises(ValueError, match="'is' needs an extractor with class logits"):
        GenerativeScores(real)(real)
    assert math.isnan(GenerativeScores(real, ("fid",))(real / 0)["fid"])


def test_uniformity_of_fakes_beside_that_of_as_many_reals() -> None:
    real, fake = doubles(60, 4), doubles(50, 4, seed=1)
    scores = GenerativeScores(real, ("uniformity",), seed=3)
    found = scores(fake)
    assert list(found) == scores.names == ["uniformity", "uniformity_real", "uniformity_gap"]
    chosen = torch.randperm(60, generator=torch.Generator().manual_seed(3))[:50]
    told = [uniformity(fake), uniformity(real[chosen])]
    assert list(found.values()) == [*told, told[0] - told[1]] == list(uniformity_gap(fake, real, seed=3))
    assert scores(fake[:1].expand(50, -1))["uniformity"] == pytest.approx(0, abs=1e-12)
    assert scores.uniformity_plan(50) == {"uniformity_items": 50, "uniformity_t": 2.0}
    assert all(math.isnan(value) for value in scores(fake * (torch.arange(50) > 0)[:, None]).values())
    assert GenerativeScores(real, ("fid",)).uniformity_plan(50) == {}


# ---------------------------------------------------------------------- known distributions
def test_mode_coverage_counts_modes_quality_and_kl() -> None:
    modes = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    samples = torch.tensor([[0.0, 0.1], [0.1, 0.0], [4.0, 0.2], [0.0, 3.0], [math.nan, 0.0]])
    found = mode_coverage(samples, modes, radius=0.5)
    assert found.modes == 2 and found.high_quality == pytest.approx(3 / 5)
    # shares 1/2, 1/4, 1/4, 0 against 1/4 each
    assert found.reverse_kl == pytest.approx(0.5 * math.log(2), rel=1e-9)
    assert mode_coverage(samples, modes, radius=0.5, min_samples=2).modes == 1
    assert mode_coverage(samples, modes, radius=1.1).modes == 3
    weights = torch.tensor([2.0, 1.0, 1.0, 0.0])
    assert mode_coverage(samples, modes, 0.5, weights=weights).reverse_kl == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"samples must have shape \(N, 2\), got \(5, 1\)"):
        mode_coverage(samples[:, :1], modes, radius=0.5)
    with pytest.raises(ValueError, match="radius must be a finite number > 0, got 0"):
        mode_coverage(samples, modes, radius=0)


def test_class_coverage_and_reverse_kl() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2])
    assert class_coverage(labels, 1000).modes == 3
    assert class_coverage(labels, 1000, min_samples=2).modes == 1
    assert class_coverage(labels[:1], 1000).reverse_kl == pytest.approx(math.log(1000), rel=1e-9)
    with pytest.raises(ValueError, match="labels must hold at least one, got none"):
        class_coverage(labels[:0], 1000)
    assert reverse_kl(torch.tensor([5, 5])) == pytest.approx(0, abs=1e-12)
    assert math.isinf(reverse_kl(torch.tensor([5, 5]), torch.tensor([1.0, 0.0])))


def test_kde_coverage_where_most_fakes_coincide() -> None:
    """And wherever tensors are that are made without a device."""
    real, good = doubles(200, 2), doubles(900, 2, seed=1)
    whole = kde_coverage(real, good)
    assert whole > 0.9
    for place in (0.0, 3.3):
        fake = torch.where((torch.arange(900) / 900 < 0.78)[torch.randperm(900)][:, None], place, good)
        assert kde_coverage(real, fake) > 0.5
    assert kde_coverage(real, torch.zeros(9, 2)) == 0
    with torch.device("meta"):
        assert kde_coverage(real, good) == whole


def test_wasserstein1() -> None:
    """Against scipy for unequal sizes with ties; a shift costs its length; quantiles of a normal law."""
    x, y = doubles(101).round(decimals=1), (2 * doubles(57, seed=1) + 1).round(decimals=1)
    assert float(wasserstein1(x, y)) == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()), rel=1e-12)
    assert float(wasserstein1(x, x + 0.25)) == pytest.approx(0.25, rel=1e-12)
    assert float(wasserstein1(x, x.flip(0))) == 0
    quantiles = torch.special.ndtri((torch.arange(20_000).double() + 0.5) / 20_000)
    assert float(wasserstein1(quantiles, 3 * quantiles)) == pytest.approx(2 * math.sqrt(2 / math.pi), rel=1e-3)
    with pytest.raises(ValueError, match="samples on both sides, got 0 and 3"):
        wasserstein1(x[:0], x[:3])


def test_tail_mass() -> None:
    assert tail_mass(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), 1.5) == 0.5


# ---------------------------------------------------------------------- images and extractors
def test_to_uint8_rounds_and_clips() -> None:
    levels = torch.arange(256, dtype=torch.float32)
    for low, high in ((-1.0, 1.0), (0.0, 1.0), (-2.0, 5.0)):
        assert to_uint8(low + levels / 255 * (high - low), (low, high)).tolist() == list(range(256))
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]
    assert to_uint8(torch.tensor([0.4 / 255, 0.6 / 255]), (0, 1)).tolist() == [0, 1]


def test_content_hash_tells_values_shapes_and_dtypes_apart() -> None:
    zeros = torch.zeros(2, 3, dtype=torch.uint8)
    others = [torch.zeros(3, 2, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.int8), zeros + 1, zeros[:0]]
    assert content_hash(zeros) == content_hash(zeros.T.contiguous().T)
    assert content_hash(zeros) not in {content_hash(other) for other in others}


def test_where_classifiers_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_GANS_CACHE", str(tmp_path))
    assert extractors.cache_folder() == tmp_path
    monkeypatch.delenv("LIGHTNING_GANS_CACHE")
    assert extractors.cache_folder() == Path.home() / ".cache" / "lightning_gans"


@pytest.mark.parametrize(("items", "epochs"), [(7500, 3), (4000, 4), (1, 15_000)])
def test_the_classifiers_recipe(items: int, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About 15,000 images, but three epochs at least: the files that come with the package are found by it."""
    seen: list[int] = []
    monkeypatch.setattr(extractors, "_train_classifier", lambda *a: seen.append(a[3]))
    images = torch.zeros(items, 1, 8, 8, dtype=torch.uint8)
    ClassifierExtractor(images, torch.zeros(items, dtype=torch.int64), cache_dir=tmp_path)
    assert seen == [epochs]


def test_the_classifiers_rate_goes_once_up_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of it per batch, in whatever mode it is trained."""
    rates: list[float] = []

    class Noted(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Noted)
    images, labels = torch.zeros(128, 1, 8, 8, dtype=torch.uint8), torch.arange(128) % 2
    with torch.no_grad():
        ClassifierExtractor(images, labels, cache_dir=tmp_path, epochs=5)
    assert len(rates) == 10 and max(rates) == pytest.approx(3e-3) and rates[0] < 2e-4 and rates[-1] < 1e-6


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, labels = Digits().reference("train")
    assert labels is not None
    return images, labels


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("architecture", ["lenet", pytest.param("resnet", marks=pytest.mark.slow)])
def test_classifier_learns_the_digits_and_is_cached(
    architecture: str, digits: tuple[Tensor, Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_rng_state()
    extractor = ClassifierExtractor(*digits, architecture, cache_dir=cache, epochs=3)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was disturbed"
    images, labels = Digits().reference("test")
    features, logits = extractor(images)
    assert logits is not None and features.shape == (297, 128)
    assert float((logits.argmax(1) == labels).float().mean()) > 0.95
    assert not extractor.training and not any(p.requires_grad for p in extractor.parameters())
    assert extractor.train() is extractor and not extractor.training
    assert extractor.describe()["extractor"] == architecture

    monkeypatch.setattr("lightning_gans.metrics.extractors._train_classifier", lambda *_: pytest.fail("trained again"))
    again = ClassifierExtractor(*digits, architecture, cache_dir=cache, epochs=3)
    assert weights_hash(again) == weights_hash(extractor)
    torch.load(extractor.path, weights_only=True)
    assert [p.name for p in extractor.path.parent.glob(f".{extractor.path.name}*")] == []  # no halves


def test_the_classifier_of_built_in_data_is_the_same_everywhere(
    digits: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained here, it would be that of this processor and number of threads."""
    monkeypatch.setattr(extractors, "_train_classifier", lambda *_: pytest.fail("trained"))
    net = ClassifierExtractor(*digits, cache_dir=tmp_path)
    images, labels = Digits().reference("test")
    assert float((net(images)[1].argmax(1) == labels).float().mean()) > 0.97
    assert net.describe()["extractor_weights"] == "11c8dfa0235bb27c" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("pattern", "shape"), [("lenet-*", (1, 28, 28)), ("resnet-*", (3, 32, 32))])
def test_classifiers_that_are_shipped_fit_their_networks(pattern: str, shape: tuple[int, ...]) -> None:
    """Those of MNIST and CIFAR-10, whose images the tests do not have."""
    found = [torch.load(path, weights_only=True) for path in extractors.SHIPPED.glob(pattern)]
    net = extractors.CLASSIFIERS[pattern[:-2]](shape=shape, num_classes=10)
    sizes = {name: value.shape for name, value in net.state_dict().items()}
    assert [{name: value.shape for name, value in weights.items()} for weights in found].count(sizes) == 1
    assert all(bool(value.isfinite().all()) for weights in found for value in weights.values())


def test_a_cache_below_home(digits: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(extractors, "_train_classifier", lambda *_: None)
    assert ClassifierExtractor(*digits, cache_dir="~/own", epochs=1).path.parents[1] == tmp_path / "own"
    monkeypatch.setenv("LIGHTNING_GANS_CACHE", "~/other")
    assert extractors.cache_folder() == tmp_path / "other"


def build_slowly(images: Tensor, labels: Tensor, folder: Path) -> None:
    train = extractors._train_classifier

    def slow(*args: Any) -> None:
        (folder / f"trained-{os.getpid()}").touch()
        train(*args)
        time.sleep(0.5)

    extractors._train_classifier = slow
    ClassifierExtractor(images, labels, cache_dir=folder, epochs=1)


@pytest.mark.skipif(os.name != "posix", reason="no lock")
def test_two_processes_train_one_classifier(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    arguments = (digits[0][:64], digits[1][:64], tmp_path)
    children = [get_context("fork").Process(target=build_slowly, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert len(list(tmp_path.glob("trained-*"))) == 1


def test_classifier_cache_is_keyed_by_content_and_survives_damage(
    digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    images, labels = digits[0][:100], digits[1][:100]
    first = ClassifierExtractor(images, labels, cache_dir=tmp_path, epochs=1)
    other = ClassifierExtractor(255 - images, labels, cache_dir=tmp_path, epochs=1)
    longer = ClassifierExtractor(images, labels, cache_dir=tmp_path, epochs=2)
    swapped = ClassifierExtractor(images, labels.flip(0), cache_dir=tmp_path, epochs=1)
    assert len({first.path, other.path, longer.path, swapped.path}) == 4
    first.path.write_bytes(first.path.read_bytes()[:1000])
    torch.rand(1)  # it is seeded by itself
    with pytest.warns(UserWarning, match="cannot be read"):
        again = ClassifierExtractor(images, labels, cache_dir=tmp_path, epochs=1)
    assert weights_hash(again) == weights_hash(first) == weights_hash(ClassifierExtractor(
        images, labels, cache_dir=tmp_path, epochs=1))  # fmt: skip


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_classifier_without_a_writable_cache(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.warns(UserWarning, match="could not be kept"):
        ClassifierExtractor(digits[0][:64], digits[1][:64], cache_dir=tmp_path, epochs=1)


def test_classifier_where_the_cache_is_a_file(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="could not be kept|cannot be read"):
        ClassifierExtractor(digits[0][:64], digits[1][:64], cache_dir=tmp_path / "file", epochs=1)


class Returns(nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what

    def forward(self, images: Tensor) -> Any:
        return self.what


def test_extractors_refuse_bad_input(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    images, labels = digits
    with pytest.raises(ValueError, match=r"uint8 of shape \(N, C, H, W\), got torch.float32"):
        ClassifierExtractor(images.float(), labels)
    with pytest.raises(ValueError, match=r"uint8 of shape \(N, C, H, W\), got torch.uint8 of shape \(1, 8, 8\)"):
        ClassifierExtractor(images[0], labels)
    with pytest.raises(ValueError, match=r"labels must be int64 of shape \(1500,\), .* got torch.int32"):
        ClassifierExtractor(images, labels.int())
    with pytest.raises(ValueError, match=r"uint8 of shape \(N, C, H, W\), got torch.float32"):
        ClassifierExtractor(images, labels, cache_dir=tmp_path)(images[:2].float())
    with pytest.raises(ValueError, match="architecture must be one of lenet, resnet, got 'vgg'"):
        ClassifierExtractor(images, labels, "vgg")
    with pytest.raises(ValueError, match=r"labels must be int64 of shape \(1500,\)"):
        ClassifierExtractor(images, labels[:7])
    with pytest.raises(ValueError, match=r"0 or above, got torch.int64 of shape \(1500,\), the least -1"):
        ClassifierExtractor(images, labels - 1)
    with pytest.raises(ValueError, match=r"for one image or more.*of shape \(0,\)\."):
        ClassifierExtractor(images[:0], labels[:0])
    with pytest.raises(ValueError, match="which is not there"):
        InceptionExtractor(tmp_path / "none.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="holds no InceptionV3 weights"):
        InceptionExtractor(tmp_path / "other.pth")
    for wrong in (nn.Flatten(0), nn.Identity(), nn.Flatten(0, 2)):  # another number of dimensions, or of rows
        with pytest.raises(ValueError, match=r"extractor '\w+' must return features of shape \(N, F\)"):
            ModuleExtractor(wrong)(images[:3])
    for kind in (list, dict, tuple):  # a tuple of two alone has logits
        with pytest.raises(ValueError, match=rf"of them and logits, got a {kind.__name__} for 3 images"):
            ModuleExtractor(Returns(kind()))(images[:3])


def test_code_in_a_weights_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"a": Code()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth' holds no InceptionV3 weights"):
        InceptionExtractor("~/code.pth")
    assert not (tmp_path / "ran").exists()


def test_inception_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"could not be downloaded \(no route to host\); give weights_path"):
        InceptionExtractor()


def test_module_extractor_takes_features_with_and_without_logits() -> None:
    class Pair(nn.Module):
        name = "both"

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1).float(), x.flatten(1)[:, :2].float()

    images = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    features, logits = ModuleExtractor(nn.Flatten())(images)
    assert features.shape == (2, 12) and logits is None and ModuleExtractor(nn.Flatten()).name == "flatten"
    features, logits = ModuleExtractor(Pair())(images)
    assert logits is not None and logits.shape == (2, 2) and ModuleExtractor(Pair()).name == "both"
    assert ModuleExtractor(Pair(), "mine").name == "mine" and ModuleExtractor(Pair(), "lenet").name == "own-lenet"
    unsaid = Pair()
    unsaid.name = 3  # type: ignore[assignment]
    assert ModuleExtractor(unsaid).name == "pair" and not ModuleExtractor(unsaid).module.training
