"""Uniformity, spectra and distances of labelled sets: closed forms, and what they are to notice."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from common import doubles
from scipy.fft import dctn

from lightning_gans.datamodules import Digits, Ring
from lightning_gans.metrics import (
    alignment,
    otdd,
    otdd_report,
    spectrum_bands,
    spectrum_gap,
    uniformity,
    uniformity_gap,
)
from lightning_gans.metrics.otdd import class_distances


# ---------------------------------------------------------------------- uniformity
@pytest.mark.parametrize(("d", "value"), [(2, -1.575), (3, -2.0798), (16, -3.513), (128, -3.9375)])
def test_uniformity_of_the_uniform_law(d: int, value: float) -> None:
    """-4 + log 0F1(; d/2; 4), and its series."""
    series = math.log(sum(4**k / math.factorial(k) * math.gamma(d / 2) / math.gamma(d / 2 + k) for k in range(40))) - 4
    assert series == pytest.approx(value, abs=1e-3)
    assert uniformity(5 * doubles(3000, d)) == pytest.approx(series, abs=0.02)


def test_uniformity_knows_no_length_and_no_self() -> None:
    x = doubles(20, 4)
    lengths = torch.rand(20, 1, generator=torch.Generator().manual_seed(1)) + 0.1
    assert uniformity(x * lengths) == pytest.approx(uniformity(x), rel=1e-12)
    pairs = [float((x[i] / x[i].norm() - x[j] / x[j].norm()).square().sum()) for i in range(20) for j in range(i)]
    assert uniformity(x, 3.0) == pytest.approx(math.log(sum(math.exp(-3 * p) for p in pairs) / len(pairs)), rel=1e-12)
    assert uniformity(torch.ones(5, 3)) == 0
    many = torch.nn.functional.normalize(doubles(1025, 4))  # more than a block, by one
    assert uniformity(many) == pytest.approx(float((-2 * torch.pdist(many).square()).exp().mean().log()), rel=1e-12)
    assert alignment(x, 2 * x) == pytest.approx(0, abs=1e-20) and alignment(x, -x, 1.0) == pytest.approx(2)


def test_a_planted_collapse_raises_uniformity_with_every_mode_lost() -> None:
    """On the ring, by its points themselves: k of 8 modes."""
    data = Ring()
    x = data.sample_exact(4000, torch.Generator().manual_seed(0))
    which = torch.cdist(x, data.modes).argmin(1)
    order = torch.tensor([0, 4, 2, 6, 1, 5, 3, 7])  # opposite ones first: what is left is spread as far as it can be
    gaps = [uniformity_gap(x[torch.isin(which, order[:k])][:400], x).gap for k in (8, 6, 4, 2, 1)]
    assert abs(gaps[0]) < 0.05 and gaps[-1] > 1
    neighbouring = [uniformity_gap(x[which < k][:400], x).gap for k in range(8, 0, -1)]
    assert all(b > a + 0.05 for a, b in pairwise(neighbouring))
    assert all(b > a for a, b in pairwise(gaps[2:])) and gaps[1] > -0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uniformity(torch.ones(1, 3)), r"features must be \(N, F\) with N >= 2, got \(1, 3\)"),
        (lambda: uniformity(torch.zeros(2, 3)), "features must be finite and no row of length 0, got lengths from 0"),
        (lambda: uniformity(torch.ones(2, 3), -1), "t must be a finite number > 0, got -1"),
        (lambda: alignment(torch.ones(2, 3), torch.ones(2, 4)), r"y must have the shape of x, \(2, 3\), got \(2, 4\)"),
        (lambda: uniformity_gap(torch.ones(2, 3), torch.ones(2, 4)), r"fake and real must be \(N, F\) and \(M, F\)"),
        (lambda: spectrum_bands(torch.ones(2, 3)), r"images must be \(N, C, H, W\) and not empty, got \(2, 3\)"),
        (lambda: spectrum_gap(torch.ones(1, 1, 4, 4), torch.ones(1, 3, 4, 4)), "fake must have the shape of real"),
        (
            lambda: spectrum_gap(torch.full((1, 1, 4, 4), 9.0), torch.ones(1, 1, 4, 4, dtype=torch.uint8)),
            r"fake must be uint8 as the others are, or in \[-1, 1\], got torch.float32 up to 9",
        ),
    ],
)
def test_bad_input(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]


# ---------------------------------------------------------------------- spectra
def test_the_transform_is_scipys() -> None:
    x = doubles(3, 2, 6, 8)
    power = torch.from_numpy(dctn(x.numpy(), axes=(2, 3), norm="ortho")).square().mean((0, 1))
    found = spectrum_bands(x, 1)
    assert float(found) == pytest.approx(float(power.mean()), rel=1e-12)
    assert float(found) == pytest.approx(float(x.square().mean()), rel=1e-12)  # Parseval
    low = spectrum_bands(x, 16)[0]  # the mean alone, and (0, 0) is all of it
    assert float(low) == pytest.approx(float(power[0, 0]), rel=1e-12)


def test_noise_is_white_and_upsampling_is_not() -> None:
    noise = doubles(2000, 1, 8, 8)
    assert float((spectrum_bands(noise, 5) - 1).abs().max()) < 0.1
    blurred = doubles(2000, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    gap = spectrum_gap(blurred, noise, 5)
    assert float(gap[0]) > 4 and float(gap[-1]) < -4 and bool((gap.diff() < 0).all())
    images = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(spectrum_bands(images), spectrum_bands(images.double() / 127.5 - 1))


# ---------------------------------------------------------------------- labelled sets
def test_distances_of_classes() -> None:
    """Commuting covariances: sum of (sqrt a - sqrt b)^2, and the means."""
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    x = torch.cat([corners * torch.tensor([1.0, 2.0]), 5 + corners * torch.tensor([3.0, 1.0])])
    y = torch.arange(8) // 4
    spread = (4 / 3) ** 0.5  # of n - 1
    found = class_distances(x, y, x, y, 2)
    exact = 50 + spread**2 * ((1 - 3) ** 2 + (2 - 1) ** 2)
    torch.testing.assert_close(found, torch.tensor([[0.0, exact], [exact, 0.0]]).double(), rtol=1e-5, atol=1e-5)


def test_a_covariance_of_few_items_has_a_ridge() -> None:
    """Two items along one axis, two along the other: variances 2 and 0, and 1e-6 of their mean on both."""
    x, y = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double(), torch.tensor([0, 0, 1, 1])
    exact = 2 * ((2 + 1e-6) ** 0.5 - 1e-6**0.5) ** 2
    assert float(class_distances(x, y, x, y, 2)[0, 1]) == pytest.approx(exact, rel=1e-9)


def test_a_shift_counts_twice_and_names_do_not_count() -> None:
    x, y = doubles(60, 3), torch.arange(60) % 3
    x = x + 4 * y[:, None]
    shift = torch.tensor([0.3, -0.4, 1.2])
    assert otdd(x, y, x + shift, y) ** 2 == pytest.approx(2 * float(shift.square().sum()), rel=1e-6)
    assert otdd(x, y, x, y) == pytest.approx(0, abs=1e-5)
    names = torch.tensor([2, 0, 1])
    assert otdd(x, y, x, names[y]) == pytest.approx(0, abs=1e-5)
    assert otdd(x, y, x[:20], y[:20]) > 0  # repeated to the common multiple


def test_shuffled_labels_are_told_where_a_pooled_distance_is_blind() -> None:
    images, labels = Digits().reference("train")
    assert labels is not None
    x = torch.nn.functional.avg_pool2d(images.float() / 255, 2).flatten(1)
    report = otdd_report(x[:400], labels[:400], x[400:1300], labels[400:1300], n=400)
    assert report.distance == pytest.approx(report.real, rel=0.15) and report.shuffled > 1.15 * report.distance
    collapsed = x[:400].clone()
    for k in range(10):  # within each class, towards its mean
        own = labels[:400] == k
        collapsed[own] = x[:400][own].mean(0) + 0.05 * (collapsed[own] - x[:400][own].mean(0))
    assert otdd_report(collapsed, labels[:400], x[400:1300], labels[400:1300], n=400).distance > 1.1 * report.real


def test_the_entropic_distance_tends_to_the_exact_one_and_moves_as_it_does() -> None:
    """Debiased: of equal sets 0, and of a shift 2 |d|^2 whatever the blur (one class: its law moves, too)."""
    pytest.importorskip("geomloss")
    x, y = doubles(30, 2), torch.arange(30) % 3
    x = x + 4 * y[:, None]
    other = doubles(30, 2).flip(0) + 4.5 * y[:, None]
    exact = otdd(x, y, other, y)
    assert otdd(x, y, other, y, blur=0.02) == pytest.approx(exact, rel=1e-6)
    assert otdd(x, y, x, y, blur=0.5) == pytest.approx(0, abs=1e-4) and otdd(x, y, x[:9], y[:9], blur=0.5) > 0
    shift = torch.tensor([0.3, -0.4])
    for blur in (0.1, 1.0):
        moved = otdd(x[::3], 0 * y[::3], x[::3] + shift, 0 * y[::3], blur)
        assert moved**2 == pytest.approx(2 * 0.25, rel=1e-3)
    report = otdd_report(x, y, torch.cat([x, x + 0.1]), torch.cat([y, y]), n=20, blur=0.5)
    assert report.shuffled > 1.5 * report.distance


def test_the_entropic_distance_without_its_package_or_a_blur(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = doubles(12, 2), torch.arange(12) % 3
    with pytest.raises(ValueError, match=r"blur must be a finite number > 0, got 0\.0"):
        otdd(x, y, x, y, blur=0.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"geomloss must be installed for this: .+ -m pip install geomloss"):
        otdd(x, y, x, y, blur=0.1)


def test_bad_sets() -> None:
    x, y = doubles(12, 2), torch.arange(12) % 3
    with pytest.raises(ValueError, match="each class must have two items or more in both sets, got 0 of class 2"):
        otdd(x, y, x, y.clamp_max(1))
    with pytest.raises(ValueError, match=r"other_x and its labels must be \(N, F\) and \(N,\), got \(12, 3\), \(12,\)"):
        otdd(x, y, doubles(12, 3), y)
    with pytest.raises(ValueError, match="least common multiple of at most 10,000, got 101, 103"):
        otdd(doubles(101, 1), torch.zeros(101).long(), doubles(103, 1), torch.zeros(103).long())
    with pytest.raises(ValueError, match="there must be n=500 fakes and 1000 reals, got 12 and 12"):
        otdd_report(x, y, x, y)
