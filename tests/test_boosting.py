"""Weights of AdaGAN's rounds (arXiv:1701.02386), and boosted densities (arXiv:1702.08484)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor

from lightning_gans import AdaGAN, BoostedGAN
from lightning_gans.datamodules import Digits, MemoryLoader, Resampled, Ring
from lightning_gans.datamodules.resampled import ResampledLoader
from lightning_gans.functional.boosting import (
    BOOSTS,
    dagger_weights,
    ratio_of,
    star_weights,
    step_size,
    topk_weights,
)
from lightning_gans.metrics import kde_coverage
from lightning_gans.wrappers import MixtureGenerator


def ratios(seed: int, n: int = 200) -> Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).exp()


# ---------------------------------------------------------------------- weights
@pytest.mark.parametrize("name", BOOSTS)
def test_a_mixture_that_is_right_everywhere_leaves_equal_weights(name: str) -> None:
    weights = BOOSTS[name](torch.ones(8), 1.0 if name == "topk" else 0.3)
    assert weights.tolist() == pytest.approx([1 / 8] * 8, abs=1e-12)


@pytest.mark.parametrize("name", BOOSTS)
def test_one_half_is_missed(name: str) -> None:
    """h = 0 on one half and 2 on the other, b = 1/2: all weight goes to the missed half."""
    h = torch.tensor([2.0, 0, 0, 2, 2, 0])
    assert BOOSTS[name](h, 0.5).tolist() == pytest.approx([0, 1 / 3, 1 / 3, 0, 0, 1 / 3], abs=1e-12)


@pytest.mark.parametrize("name", BOOSTS)
@pytest.mark.parametrize("b", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_weights_are_probabilities_that_fall_with_the_ratio(name: str, b: float, seed: int) -> None:
    h = ratios(seed)
    weights = BOOSTS[name](h, b)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12) and float(weights.min()) >= 0
    assert (weights[h.argsort()].diff() <= 1e-15).all() and float(weights.max()) > float(weights.min())


@pytest.mark.parametrize("b", [0.05, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(5))
def test_the_level_is_the_one_that_makes_the_sum_one(b: float, seed: int) -> None:
    """Before they are normalised: the level, read off two weights, is found again by bisection."""
    h, n = ratios(seed), 200
    weights = star_weights(h, b)
    low, high = 0.0, 1e3
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if float((level - (1 - b) * h).clamp_min(0).sum()) < n * b else (low, level)
    torch.testing.assert_close(weights, (level - (1 - b) * h).clamp_min(0) / (n * b), rtol=0, atol=1e-12)
    low, high = 0.0, 1e6
    for _ in range(300):
        level = (low + high) / 2
        low, high = (level, high) if float((1 - level * (1 - b) * h).clamp_min(0).sum()) > n * b else (low, level)
    expected = (1 - level * (1 - b) * h).clamp_min(0) / (n * b)
    torch.testing.assert_close(dagger_weights(h, b), expected, rtol=0, atol=1e-12)


def test_the_whole_weight_leaves_the_data_as_they_are() -> None:
    for name in ("star", "dagger"):
        assert BOOSTS[name](ratios(0, 10), 1.0).tolist() == pytest.approx([0.1] * 10, abs=1e-12)


def test_exact_ratios_end_at_the_data() -> None:
    """Discrete data, and a Q that is exactly what the weights ask for: each step is P + b (w - P), and h comes to 1."""
    data = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    n = 1000
    items = torch.repeat_interleave(torch.arange(4), (data * n).long())
    p = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    distances = []
    for t in range(1, 8):
        b = step_size("uniform", t)
        q = torch.zeros(4, dtype=torch.float64).index_add(0, items, star_weights((p / data)[items], b))
        p = (1 - b) * p + b * q
        distances.append(float((p - data).abs().sum()))
    assert distances[0] > 0.1 and max(distances[1:]) < 1e-12, distances


def test_topk_takes_the_smallest() -> None:
    assert topk_weights(torch.tensor([3.0, 1, 2, 5]), 0.5).tolist() == [0, 0.5, 0.5, 0]
    assert topk_weights(torch.tensor([3.0, 1, 2, 5]), 0.01).tolist() == [0, 1, 0, 0]


def test_a_ratio_is_of_logits() -> None:
    logits = torch.tensor([0.0, math.log(4), -1.0])
    c = logits.sigmoid().double()
    torch.testing.assert_close(ratio_of(logits), (1 - c) / c, rtol=1e-6, atol=0)
    assert ratio_of(torch.tensor([1e4, -1e4])).tolist() == pytest.approx([math.exp(-15), math.exp(15)])


def test_step_sizes() -> None:
    assert [step_size("uniform", t) for t in (1, 2, 9)] == [1 / 2, 1 / 3, 1 / 10]
    assert step_size(0.3, 5) == 0.3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: star_weights(torch.tensor([1.0, -1]), 0.5), "h must be a row of finite numbers >= 0"),
        (lambda: dagger_weights(torch.ones(2, 2), 0.5), r"h must be .* got shape \(2, 2\)"),
        (lambda: topk_weights(torch.tensor([1.0, math.inf]), 0.5), "h must be"),
        (lambda: star_weights(torch.ones(2), 0.0), r"b must be in \(0, 1\], got 0.0"),
        (lambda: step_size("all", 1), "beta must be 'uniform' or in"),  # type: ignore[arg-type]
        (lambda: step_size(1.0, 1), "beta must be 'uniform' or in"),
    ],
)
def test_mistakes_are_told(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


# ---------------------------------------------------------------------- data and module
def test_items_are_drawn_by_their_probabilities() -> None:
    data, p = torch.arange(4.0)[:, None].repeat(1000, 1), torch.tensor([0.0, 1, 2, 5]).repeat(1000)
    loader = ResampledLoader(MemoryLoader(data, torch.arange(4000), 100), p)
    batches = [batch for _ in range(3) for batch in loader]
    x, y = (torch.cat(column) for column in zip(*batches))
    assert len(loader) == 40 and torch.equal(x[:, 0], (y % 4).float())
    shares = torch.bincount(x[:, 0].long(), minlength=4) / len(x)
    expected = torch.tensor([0.0, 1, 2, 5]) / 8
    assert ((shares - expected).abs() <= 3 * (expected * (1 - expected) / len(x)).sqrt()).all(), shares
    assert len(batches[0][1].unique()) > 90 and not equal(batches[0], batches[40])


def test_resampled_modules() -> None:
    digits, n = Digits(batch_size=10), Digits().num_items
    keep = torch.zeros(n)
    keep[:3] = 1
    real, labels = next(iter(Resampled(digits, keep).train_dataloader()))
    assert set(labels.tolist()) <= set(digits.reference()[1][:3].tolist())  # type: ignore[index]
    assert real.shape == (10, 1, 8, 8) and float(real.min()) >= -1
    ring = Ring(batch_size=16)
    points, _ = ring.reference()
    keep = (points[:, 0] > 0.5).float()
    assert (next(iter(Resampled(ring, keep).train_dataloader()))[:, 0] > 0.5).all()
    for wrong in (torch.ones(3), -torch.ones(10_000), torch.zeros(10_000)):
        with pytest.raises(ValueError, match="probabilities must be 10000 finite numbers >= 0, not all 0"):
            Resampled(ring, wrong).train_dataloader()


def test_mixture_weights_by_rounds() -> None:
    """1 / T each if uniform; the product of what the later ones left for a constant."""
    for beta, expected in (("uniform", [0.25] * 4), (0.5, [0.125, 0.125, 0.25, 0.5])):
        module: Any = None
        for _ in range(4):
            module = AdaGAN(make("gan").generator, make("gan").discriminator, 3, base=module, beta=beta)  # type: ignore[arg-type]
        torch.testing.assert_close(module.generator.weights, torch.tensor(expected))


def test_the_first_round_is_a_plain_gan_and_a_later_one_trains_as_one() -> None:
    """All samples of training are the new generator's; samples after it are the mixture's."""

    def train(module: Any) -> Any:
        torch.manual_seed(3)
        trainer(max_steps=3).fit(module, train_dataloaders=plain())
        return module

    nets = lambda: (make("gan").generator, make("gan").discriminator, 3)  # noqa: E731
    gan = train(make("gan", loss="non_saturating"))
    first, second = train(AdaGAN(*nets())), train(AdaGAN(*nets(), base=make("wgan").generator))
    assert equal(state(gan), state(first)) and not isinstance(first.generator, MixtureGenerator)
    assert equal(second.generator.components[1].state_dict(), gan.generator.state_dict())
    assert equal(second.discriminator.state_dict(), gan.discriminator.state_dict())
    assert second.generator.components[0].training is False and second.sample(6).shape == (6, 2)


def test_either_grows_from_the_other() -> None:
    nets = lambda: (make("gan").generator, make("gan").discriminator, 3)  # noqa: E731
    module: Any = BoostedGAN(*nets(), base=AdaGAN(*nets(), base=AdaGAN(*nets())), p=0.8)
    torch.testing.assert_close(module.generator.weights, torch.tensor([0.4, 0.4, 0.2]))


# ---------------------------------------------------------------------- the coverage metric
def test_kde_coverage() -> None:
    """About 95 % of the data for the true law; half of them for one of two modes; none far away."""
    generator = torch.Generator().manual_seed(0)

    def two(n: int, share: float = 0.5) -> Tensor:
        sign = (torch.rand(n, 1, generator=generator) < share).float() * 2 - 1
        return 3 * sign + 0.3 * torch.randn(n, 1, generator=generator)

    real = two(1000)
    assert kde_coverage(real, two(1500)) == pytest.approx(0.95, abs=0.03)
    assert kde_coverage(real, two(1500, 1.0)) == pytest.approx(0.95 * float((real > 0).double().mean()), abs=0.04)
    assert kde_coverage(real, two(1500) + 50) == 0
    with pytest.raises(ValueError, match="fake must be at least 2 samples like real"):
        kde_coverage(real, torch.zeros(9, 2))
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got 2"):
        kde_coverage(real, two(100), level=2)
