"""Samplers against laws that are known exactly, and what they must leave alone."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import QUIET, TEXTS, VARIANTS, make, make_images, state, trainer
from ranks import two_ranks
from scipy import stats
from torch import Generator, Tensor, nn

from lightning_gans import CTGAN, GAN, PRCGAN, SNGAN, WGANGP, AdaGAN, PrimalDualGAN
from lightning_gans.callbacks import GenerativeMetrics, ModeCoverage
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Digits, Gaussian1D, Ring
from lightning_gans.engine import distributed
from lightning_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    StyleDiscriminator,
    ToyDiscriminator,
    ToyGenerator,
)
from lightning_gans.runs.record import Record
from lightning_gans.samplers import (
    CollaborativeSampler,
    LatentLangevin,
    LatentOptimisation,
    MetropolisHastings,
    RatioHead,
    RejectionSampler,
    Sampler,
    Thresholding,
    Truncation,
    acceptance_logit,
    calibrate,
    calibration_z,
    keep_training,
    pick,
)
from lightning_gans.samplers.base import stream
from lightning_gans.samplers.calibration import Calibrated
from lightning_gans.tools.compare import Entry, _notes
from lightning_gans.wrappers import AdaptiveAugment

SCALE = 1.5  # p_g = N(0, 1.5^2), p_d = N(0, 1): the ratio is at most 1.5, at 0


def wide(n: int, generator: Generator) -> Tensor:
    return SCALE * torch.randn(n, 1, generator=generator, dtype=torch.float64)


def exact(x: Tensor) -> Tensor:
    return math.log(SCALE) - x[:, 0].square() / 2 * (1 - 1 / SCALE**2)


def constant(x: Tensor) -> Tensor:
    return torch.full((len(x),), 0.3)


class Identity(nn.Module):
    """G(z) = z in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.unused = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z)


class Linear(nn.Module):
    """f(x) = w . x in float64."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def latent(dimension: int = 1, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(generator=Identity(), latent_dim=dimension, **more)


def conditional(norm: str = "none") -> GAN:
    torch.manual_seed(2)
    nets = DCGANGenerator((1, 8, 8), 3, width=4, num_classes=10), DCGANDiscriminator((1, 8, 8), 4, norm, num_classes=10)  # type: ignore[arg-type]
    return GAN(*nets, 3)


# ---------------------------------------------------------------------------------------------- rejection
def test_acceptance_logit_is_exact_rejection() -> None:
    a = -torch.logspace(-6, math.log10(30), 200, dtype=torch.float64)
    found = acceptance_logit(a + 7, 7.0, epsilon=0.0).sigmoid()
    assert float((found / a.exp() - 1).abs().max()) < 1e-12
    assert float(acceptance_logit(a, 0.0, gamma=0.7, epsilon=0.0).sub(acceptance_logit(a, 0.0, epsilon=0.0))[3]) == (
        pytest.approx(-0.7)
    )


def test_the_maximum_itself_is_finite_in_float32() -> None:
    logits = torch.linspace(-3, 2, 100)
    found = acceptance_logit(logits, logits.max())
    assert bool(found.isfinite().all()) and float(found.max()) == pytest.approx(-math.log(1e-14))
    assert math.isfinite(float(torch.quantile(found, 0.99)))


def test_rejection_with_the_exact_ratio_is_exact() -> None:
    sampler = RejectionSampler(wide, exact)
    x = sampler.sample(6000, seed=3, progress=False)[:, 0]
    assert stats.kstest(x.numpy(), "norm").pvalue > 0.01
    assert stats.kstest(wide(6000, Generator().manual_seed(0))[:, 0].numpy(), "norm").pvalue < 1e-6  # it can tell
    n = sampler.report.proposals
    assert sampler.report.acceptance == pytest.approx(1 / SCALE, abs=4 * math.sqrt(2 / 9 / n))
    assert sampler.report.cost == n / 6000 and sampler.report.burn_in == 10_000 and sampler.report.seconds > 0
    assert float(sampler.maximum) == pytest.approx(math.log(SCALE), abs=1e-5)
    assert sampler.expected == pytest.approx(1 / SCALE, abs=4 * math.sqrt(2 / 9 / 10_000))


def test_a_constant_ratio_accepts_all() -> None:
    sampler = RejectionSampler(wide, constant, burn_in=100)
    found = sampler.sample(250, progress=False)
    assert sampler.report.acceptance == 1
    plain = torch.cat([wide(100, stream(0, 0)), wide(100, stream(0, 100)), wide(100, stream(0, 200))[:50]])
    assert found.shape == (250, 1) and torch.equal(found[:100], plain[:100]) and torch.equal(found[200:], plain[200:])


@pytest.mark.parametrize(("percentile", "rate"), [(80, 0.331), (95, 0.196)])
def test_percentile_law(percentile: float, rate: float) -> None:
    """l ~ N(0, 1), l_M the largest of 100,000: rates by simulation, for this width only."""

    def normal(n: int, generator: Generator) -> Tensor:
        return torch.randn(n, 1, generator=generator, dtype=torch.float64)

    sampler = RejectionSampler(normal, lambda x: x[:, 0], gamma=None, percentile=percentile)
    logits = torch.randn(100_000, generator=Generator().manual_seed(1), dtype=torch.float64)
    sampler.fix(logits)
    assert float(sampler.probability(logits).mean()) == pytest.approx(rate, abs=0.006)
    at = logits.quantile(percentile / 100)
    assert float(sampler.probability(at[None])) == pytest.approx(0.5, abs=1e-3)
    assert sampler.sample(100, progress=False).mean() > 0.5


def test_gamma_above_zero_rejects_more() -> None:
    rates = []
    for gamma in (-1.0, 0.0, 1.0):
        sampler = RejectionSampler(wide, exact, gamma=gamma, burn_in=1000)
        sampler.sample(500, progress=False)
        rates.append(sampler.report.acceptance)
    assert rates[0] > rates[1] + 0.05 > rates[2] + 0.1


def test_a_running_maximum_is_raised() -> None:
    """From a burn-in of one proposal it is soon the true one; a fixed one stays."""
    fixed, running = (RejectionSampler(wide, exact, burn_in=1, running=r, gamma=None) for r in (False, True))
    for sampler in (fixed, running):
        sampler.sample(1000, progress=False)
    assert float(running.maximum) == pytest.approx(math.log(SCALE), abs=1e-3)
    assert float(fixed.maximum) == float(exact(wide(1, stream(-1, 0)))[0]) < float(running.maximum)
    assert fixed.exceeded > 10 and running.shift != fixed.shift


def test_labels_that_are_asked_for_are_proposed_until_found() -> None:
    module, seen = conditional(), []

    def ratio(x: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return -labels.double()

    labels = torch.arange(120) % 4
    sampler = RejectionSampler(module, ratio, burn_in=1000)
    found = sampler.sample(120, labels, seed=5, progress=False)
    assert found.shape == (120, 1, 8, 8)
    rows = torch.cat(seen[10:]).bincount(minlength=10)
    assert bool((rows[:4] > 20).all()) and int(rows[4:].sum()) == 0
    assert int(rows[3]) > 5 * int(rows[0]), "class 3 is accepted with e^-3 only"
    assert torch.cat(seen[:10]).unique().tolist() == list(range(10)), "the burn-in has all classes"


def test_thresholding_lacks_the_tails_and_rejection_does_not() -> None:
    """Uniform proposals on [-4, 4], a standard normal target."""

    def uniform(n: int, generator: Generator) -> Tensor:
        return 8 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 4

    def ratio(x: Tensor) -> Tensor:
        return -x[:, 0].square() / 2

    n, tail = 4000, 2 * stats.norm.sf(2)
    by_ratio = RejectionSampler(uniform, ratio).sample(n, progress=False)
    sampler = Thresholding(uniform, ratio, keep=math.sqrt(2 * math.pi) / 8)
    by_threshold = sampler.sample(n, progress=False)
    share = float((by_ratio.abs() > 2).double().mean())
    assert (
        share == pytest.approx(tail, abs=4 * math.sqrt(tail / n)) and stats.kstest(by_ratio[:, 0], "norm").pvalue > 0.01
    )
    assert sampler.report.acceptance == pytest.approx(math.sqrt(2 * math.pi) / 8, abs=0.02)
    assert float(by_threshold.abs().max()) < 1.35  # everything within the threshold, nothing beyond


def test_rejection_that_never_accepts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_gans.samplers.rejection.PATIENCE", 3)
    with pytest.raises(ValueError, match="none of the last 300 proposals was accepted: lower gamma"):
        RejectionSampler(wide, exact, gamma=800.0, burn_in=100).sample(1)


# ---------------------------------------------------------------------------------------------- Metropolis-Hastings
def test_the_chain_keeps_the_law_of_the_data() -> None:
    """Three states: from the target's law, after any number of steps it is still the target's, exactly."""
    p_g, p_d = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    ratio = (p_d / p_g).log()
    transition = torch.zeros(3, 3, dtype=torch.float64)
    fine = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000  # all ratios are multiples of 1/1000, or above 1
    fine = torch.cat([fine, torch.tensor([0.0])])[:1000]
    for i in range(3):
        for j in range(3):
            moved = pick(torch.stack([ratio[[i]].expand(1000), ratio[[j]].expand(1000)]), torch.stack([fine, fine]))
            transition[i, j] += p_g[j] * moved.double().mean()
            transition[i, i] += p_g[j] * (1 - moved.double().mean())
    assert torch.allclose(transition.sum(1), torch.ones(3).double())
    by_hand = p_g * (ratio[None] - ratio[:, None]).exp().clamp_max(1)
    assert torch.allclose(transition - transition.diag().diag(), by_hand - by_hand.diag().diag(), atol=5e-4)
    exactly = by_hand + (1 - by_hand.sum(1)).diag()
    assert torch.allclose(p_d @ exactly, p_d, atol=1e-12) and torch.allclose(p_d @ transition, p_d, atol=1e-3)


def naive(logits: list[float], uniforms: list[float], start: float | None) -> int:
    """One chain after the other; if nothing is accepted, that from the first proposal."""
    for first in (start, None):
        if first is None:
            at, current, begin = 0, logits[0], 1
        else:
            at, current, begin = -1, first, 0
        for k in range(begin, len(logits)):
            if math.log(uniforms[k]) < logits[k] - current:
                at, current = k, logits[k]
        if at >= 0:
            return at
    raise AssertionError


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("started", [True, False])
def test_vectorised_picker_is_the_naive_loop(spread: float, started: bool) -> None:
    own = Generator().manual_seed(4)
    logits = spread * torch.randn(12, 200, generator=own, dtype=torch.float64)
    uniforms = torch.rand(12, 200, generator=own, dtype=torch.float64)
    start = spread * (torch.randn(200, generator=own, dtype=torch.float64) + 1) if started else None
    expected = [
        naive(logits[:, i].tolist(), uniforms[:, i].tolist(), None if start is None else float(start[i]))
        for i in range(200)
    ]
    assert pick(logits, uniforms, start).tolist() == expected


def test_a_discriminator_of_one_half_accepts_everything() -> None:
    sampler = MetropolisHastings(wide, lambda x: torch.zeros(len(x)), real=torch.zeros(5, 1), steps=7)
    found = sampler.sample(10, progress=False)
    own = stream(0, 0)
    torch.randint(5, (10,), generator=own)
    for _ in range(7):
        last = wide(10, own)
        torch.rand(10, generator=own, dtype=torch.float64)
    assert sampler.report.acceptance == 1 and torch.equal(found, last)


def test_chains_of_the_exact_ratio_end_at_the_data() -> None:
    real = torch.randn(500, 1, generator=Generator().manual_seed(9), dtype=torch.float64)
    x = MetropolisHastings(wide, exact, real=real, steps=20).sample(4000, progress=False)[:, 0]
    assert stats.kstest(x.numpy(), "norm").pvalue > 0.01
    one = MetropolisHastings(wide, exact, steps=1).sample(4000, progress=False)[:, 0]
    assert stats.kstest(one.numpy(), "norm").pvalue < 1e-6


# ---------------------------------------------------------------------------------------------- calibration
def test_z_of_calibrated_and_of_overconfident_logits() -> None:
    own = Generator().manual_seed(6)
    real, fake = torch.randn(4000, 1, generator=own).double(), wide(4000, own)
    assert abs(calibration_z(exact(real), exact(fake))) < 3
    assert calibration_z(exact(real) + 0.3, exact(fake) + 0.3) < -8
    assert calibration_z(torch.tensor([2.0]), torch.tensor([2.0])) == pytest.approx(
        (1 - 2 / (1 + math.exp(-2))) / math.sqrt(2 * math.exp(-2)) * (1 + math.exp(-2))
    )


def test_logistic_calibration_undoes_scale_and_shift() -> None:
    """The exact ratio, squeezed: a and b come back, and Langevin can differentiate through them."""
    own = Generator().manual_seed(6)
    real, fake = torch.randn(20_000, 1, generator=own).double(), wide(20_000, own)
    made = Calibrated(lambda x: (exact(x) - 2) / 5, "logistic", *((exact(x) - 2) / 5 for x in (real, fake)))
    assert made.slope == pytest.approx(5, abs=0.4) and made.shift == pytest.approx(2, abs=0.15)
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    assert float(made(x)) == pytest.approx(float(exact(x)), abs=0.05) and made(x).requires_grad


def test_isotonic_calibration_of_any_rising_function() -> None:
    own = Generator().manual_seed(6)
    real, fake = torch.randn(20_000, 1, generator=own).double(), wide(20_000, own)
    bend = lambda x: exact(x).exp() ** 3 - 40  # noqa: E731
    made = Calibrated(bend, "isotonic", bend(real), bend(fake))
    x = torch.linspace(0.25, 2.5, 10).double()[:, None]
    assert float((made(x) - exact(x)).abs().max()) < 0.25
    assert abs(float(made(torch.zeros(1, 1).double())) - math.log(SCALE)) < 1  # the highest score of all: not infinity
    assert not made(x).requires_grad and math.isfinite(float(made(torch.full((1, 1), 50.0).double())))


def test_both_sides_count_the_same_whatever_their_numbers() -> None:
    """Of 2 real scores one is 0, of 4 generated ones three: 1/4 to 3/8 there, and 1/4 to 1/8 at 1."""
    on_real, on_fake = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    calibrated = Calibrated(lambda x: x, "isotonic", on_real, on_fake)
    assert calibrated(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([math.log(2 / 3), math.log(2)])


def test_isotonic_ends_are_told_as_far_as_they_are_known() -> None:
    """The seven highest scores are of real samples, the three lowest of generated ones: 8/9 and 1/5, not 1 and 0."""
    real, fake = torch.tensor([1.0, 3.0, *range(10, 17)]), torch.tensor([-3.0, -2.0, -1.0, 2.0, *[4.0] * 5])
    made = Calibrated(constant, "isotonic", real, fake)
    found = made.of_scores(torch.tensor([-9.0, -1.0, 1.0, 3.0, 16.0, 99.0])).sigmoid()
    assert found.tolist() == pytest.approx([0.2, 0.2, 0.25, 0.25, 8 / 9, 8 / 9])


def test_calibrate_a_critic() -> None:
    """A Wasserstein critic that is the exact ratio of its module, shifted far away."""
    module = SimpleNamespace(
        sample=lambda n, labels, generator: wide(n, generator), discriminator=lambda x: 0.5 * exact(x) + 30
    )
    real = torch.randn(6000, 1, generator=Generator().manual_seed(6)).double()
    for method in ("logistic", "isotonic"):
        made = calibrate(module, real, method=method)
        assert abs(made.z) < 3.5 and made.z_before < -50
        sampler = RejectionSampler(module, made, burn_in=2000)
        x = sampler.sample(2000, progress=False)
        assert float(x.std()) == pytest.approx(1, abs=0.08)


# ---------------------------------------------------------------------------------------------- in the latent space
def test_langevin_mean_and_variance() -> None:
    """Prior N(0, 1), data N(1.5, 1): l = 1.5 x - 1.125. Discrete steps have the variance 1 / (1 - e/4)."""
    e, n = 0.5, 20_000
    sampler = LatentLangevin(latent(), lambda x: 1.5 * x[:, 0] - 1.125, steps=60, step_size=e)
    z = sampler.draw(n, Generator().manual_seed(1))[:, 0]
    variance = 1 / (1 - e / 4)
    assert float(z.mean()) == pytest.approx(1.5, abs=4 * math.sqrt(variance / n))
    assert float(z.var()) == pytest.approx(variance, abs=4 * variance * math.sqrt(2 / n))
    assert 0.9 < sampler.report.acceptance < 1 and sampler.report.proposals == n * 60


def test_the_correction_makes_langevin_exact() -> None:
    e, n = 1.0, 20_000
    plain, exactly = (
        LatentLangevin(latent(), lambda x: 1.5 * x[:, 0] - 1.125, steps=60, step_size=e, adjusted=adjusted)
        for adjusted in (False, True)
    )
    assert float(plain.draw(n, Generator().manual_seed(1)).var()) == pytest.approx(4 / 3, abs=0.06)
    z = exactly.draw(n, Generator().manual_seed(1))[:, 0]
    assert float(z.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    assert float(z.mean()) == pytest.approx(1.5, abs=4 / math.sqrt(n))
    assert 0.5 < exactly.report.acceptance < 0.99


def test_the_correction_by_hand() -> None:
    """min(1, pi(z') q(z | z') / (pi(z) q(z' | z))) of one step, with scipy's densities."""
    e = 0.8
    sampler = LatentLangevin(latent(), lambda x: 1.5 * x[:, 0] - x[:, 0] ** 4, steps=1, step_size=e)
    new = float(sampler.draw(1, Generator().manual_seed(3)))
    old = float(torch.randn(1, 1, generator=Generator().manual_seed(3), dtype=torch.float64))

    def log_law(z: float) -> float:
        return -(z**2) / 2 + 1.5 * z - z**4

    def log_step(to: float, at: float) -> float:
        return float(stats.norm.logpdf(to, at + e / 2 * (-at + 1.5 - 4 * at**3), math.sqrt(e)))

    expected = log_law(new) + log_step(old, new) - log_law(old) - log_step(new, old)
    assert sampler.report.accepted == pytest.approx(min(1.0, math.exp(expected)), rel=1e-9)


def test_the_correction_refuses_a_score_of_groups() -> None:
    """Whose chains would depend on each other; also within what was trained on. A group of one is none."""
    module, score = latent(), StyleDiscriminator((1, 8, 8), widths=2, group=2)
    for ratio in (score, nn.Sequential(score)):
        with pytest.raises(
            ValueError, match="log_ratio must be of single samples with adjusted, got one of groups of 2"
        ):
            LatentLangevin(module, ratio, adjusted=True)
    LatentLangevin(module, score)
    LatentLangevin(module, StyleDiscriminator((1, 8, 8), widths=2, group=1), adjusted=True)


@pytest.mark.parametrize("layer", ["", "layer"])
def test_collaborative_steps_by_a_linear_discriminator(layer: str) -> None:
    """Each step moves by step size times w."""
    f = Linear(0.5, -2.0)
    sampler = CollaborativeSampler(latent(2, discriminator=f), layer=layer, steps=7, step_size=0.03)
    z = torch.randn(5, 2, dtype=torch.float64)
    moved = sampler.refine(z) - z
    assert torch.allclose(moved, 7 * 0.03 * f.w.detach().expand(5, 2), atol=1e-10, rtol=0)
    assert f.w.grad is None and not moved.requires_grad


def test_collaborative_refines_inside_the_generator_and_raises_the_score() -> None:
    module = make("gan")
    f = module.discriminator
    z = torch.randn(50, 3)
    scores = [f(module.generator(z))]
    for steps in (1, 5, 20):
        sampler = CollaborativeSampler(module, layer="layers.0", steps=steps, step_size=0.02)
        scores.append(f(sampler.refine(z)))
    assert all(bool((b >= a - 1e-6).all()) and bool((b > a).any()) for a, b in pairwise(scores))
    assert not module.generator.layers[0]._forward_hooks


def test_a_layer_that_runs_twice_is_refused() -> None:
    class Twice(Identity):
        def forward(self, z: Tensor) -> Tensor:
            return self.layer(self.layer(z))

    module = SimpleNamespace(generator=Twice(), latent_dim=1, discriminator=Linear(1.0))
    with pytest.raises(ValueError, match="layer must run once in the generator, but 'layer' runs 2 times"):
        CollaborativeSampler(module, layer="layer").refine(torch.zeros(1, 1).double())
    with pytest.raises(ValueError, match="layer must be one of layer, or empty, got 'head'"):
        CollaborativeSampler(module, layer="head")


def test_shaping_is_between_real_and_refined_samples() -> None:
    """Where refined samples lie beyond the data, the shaped copy no longer calls for it; the module's D stays."""
    torch.manual_seed(0)
    module = GAN(nn.Sequential(nn.Linear(1, 1)), ToyDiscriminator((1,), 16, 1), 1)
    nn.init.ones_(module.generator[0].weight)
    with torch.no_grad():
        module.generator[0].bias.fill_(-3.0)
    before = state(module)
    sampler = CollaborativeSampler(module, lambda x: x[:, 0], steps=10, step_size=0.6)
    far = float(sampler.sample(200, progress=False).mean())
    head = sampler.shape(torch.randn(500, 1), steps=300, lr=0.02)
    near = float(sampler.sample(200, progress=False).mean())
    assert far == pytest.approx(3, abs=0.3) and abs(near) < 1.5 and sampler.log_ratio is head
    assert all(torch.equal(before[k], v) for k, v in state(module).items())


def test_latent_optimisation_by_a_linear_score() -> None:
    sampler = LatentOptimisation(latent(2, discriminator=Linear(0.5, -2.0)), steps=3, step_size=0.1)
    z = torch.randn(4, 2, generator=Generator().manual_seed(1), dtype=torch.float64)
    moved = sampler.draw(4, Generator().manual_seed(1)) - z
    assert torch.allclose(moved, torch.tensor([0.15, -0.6]).double().expand(4, 2), atol=1e-10)


def test_truncation() -> None:
    redrawn = Truncation(latent(3), threshold=0.5).draw(5000, Generator().manual_seed(1))
    law = stats.truncnorm(-0.5, 0.5)
    assert float(redrawn.abs().max()) <= 0.5 and stats.kstest(redrawn.flatten().numpy(), law.cdf).pvalue > 0.01
    z = torch.randn(5000, 3, generator=Generator().manual_seed(1), dtype=torch.float64)
    scaled = Truncation(latent(3), threshold=0.5, mode="rescale").draw(5000, Generator().manual_seed(1))
    limit = 0.5 * math.sqrt(3)
    assert torch.allclose(scaled.norm(dim=1), z.norm(dim=1).clamp_max(limit))
    assert torch.allclose(scaled / scaled.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True))


# ---------------------------------------------------------------------------------------------- a head
@pytest.mark.parametrize("part", ["network", "head"])
def test_keep_training_finds_the_ratio_for_a_critic(part: Any) -> None:
    """G = N(0, 1.5^2), data N(0, 1), a WGAN critic's random features: the logit comes near the exact log ratio."""
    torch.manual_seed(3)
    module = WGANGP(nn.Sequential(nn.Linear(1, 1)), ToyDiscriminator((1,), 32, 2), 1)
    with torch.no_grad():
        module.generator[0].weight.fill_(SCALE)
        module.generator[0].bias.zero_()
    before = state(module)
    real = torch.randn(4000, 1, generator=Generator().manual_seed(1))
    head = keep_training(module, real, part=part, steps=800, lr=5e-3)
    x = torch.linspace(-2, 2, 9)[:, None]
    assert float((head(x) - exact(x)).abs().max()) < 0.3
    assert min(value for _, value in head.history) < head.history[0][1] - 0.02
    assert all(torch.equal(before[k], v) for k, v in state(module).items())
    assert not any(p.requires_grad for p in head.parameters()) and all(p.grad is None for p in module.parameters())
    if part == "head":
        own = dict(head.discriminator.named_parameters())
        assert all(torch.equal(own[k], v) for k, v in module.discriminator.named_parameters())


def test_keep_training_stops_and_keeps_the_best() -> None:
    """A few real samples are soon learnt by heart: the loss of held-out ones rises, and the best is what is kept."""
    module, real = make("gan"), torch.randn(20, 2, generator=Generator().manual_seed(3))
    head = keep_training(module, real, steps=5000, patience=3, lr=0.01)
    steps, values = zip(*head.history)
    assert steps == (0, 50, 100, 150, 200) and min(values) == values[1] < values[0] - 0.05
    best, last = (keep_training(module, real, steps=n, patience=None, lr=0.01) for n in (50, 200))
    assert torch.allclose(head(real), best(real), atol=1e-5) and not torch.allclose(head(real), last(real), atol=0.1)
    assert not best.history[1:]
    assert [step for step, _ in keep_training(module, real, steps=60, lr=0.01).history] == [0, 50, 60]


def test_keep_training_draws_the_same_whatever_else_does() -> None:
    module, real = make("sn_gan"), torch.randn(50, 2)
    torch.manual_seed(1)
    a = keep_training(module, real, part="head", steps=20)
    first = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), first), "the global generator is left as it was"
    b = keep_training(module, real, part="head", steps=20)
    assert torch.equal(a(real), b(real)) and a.history == b.history


def test_features_are_what_the_last_layer_sees() -> None:
    x = torch.randn(6, 1, 8, 8)
    net = DCGANDiscriminator((1, 8, 8), 4, "none")
    head = RatioHead(net, "head", x, x + 1)
    expected = torch.cat([net.layers(x).flatten(1), net(x)[:, None]], 1)
    assert torch.allclose(head.features(x), expected)

    y = torch.tensor([0, 1, 1, 0, 1, 0])
    for classes, labels in ((None, None), (2, y)):  # of equalised layers; with labels none has one output
        styled = StyleDiscriminator((1, 8, 8), 3, num_classes=classes)
        expected = torch.cat([styled.layers[:-1](x), styled(x, labels)[:, None]], 1)
        for critic in (styled, AdaptiveAugment(styled)):
            head = RatioHead(critic, "head", x, x + 1, labels)
            torch.testing.assert_close(head.features(x, labels), expected)

    class Own(nn.Module):
        def features(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3]

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).sum(1)

    assert RatioHead(Own(), "head", x, x + 1).features(x).shape == (6, 4)
    assert RatioHead(Linear(1.0, 1.0), "head", torch.randn(6, 2).double(), torch.randn(6, 2).double()).features(
        torch.randn(2, 2).double()
    ).shape == (2, 1)


def test_a_conditional_head_takes_labels() -> None:
    module, x, y = conditional(), torch.rand(60, 1, 8, 8), torch.arange(60) % 10
    head = keep_training(module, x, y, part="head", steps=10)
    assert head.num_classes == 10 and not torch.equal(head(x, y), head(x, 9 - y))
    assert RejectionSampler(module, head, burn_in=100).sample(20, progress=False).shape == (20, 1, 8, 8)
    with pytest.raises(ValueError, match=r"labels must have shape \(60,\), one per real sample, got \(3,\)"):
        keep_training(module, x, y[:3])


# ---------------------------------------------------------------------------------------------- any module
def test_which_network_is_a_log_ratio() -> None:
    nets = lambda: (ToyGenerator(width=8), ToyDiscriminator(width=8), 2)  # noqa: E731
    for loss, logistic in (
        ("minimax", True),
        ("non_saturating", True),
        ("hinge", False),
        ("relativistic_average", False),
    ):
        module = GAN(*nets(), loss=loss)
        assert (module.log_ratio is module.discriminator) == logistic
    c = ToyDiscriminator(width=8)
    assert PRCGAN(*nets(), classifier=c, ct_weight=0.0).log_ratio is c
    plain: dict[str, Any] = {"ratio_clip": None, "ct_weight": 0.0, "loss": "minimax"}
    assert PRCGAN(*nets(), **plain).log_ratio is None and PRCGAN(*nets(), reweight=False, **plain).log_ratio is not None
    assert PrimalDualGAN(*nets()).log_ratio is not None and PrimalDualGAN(*nets(), pair="wasserstein").log_ratio is None
    assert SNGAN(*nets()).log_ratio is None and AdaGAN(*nets()).log_ratio is None
    with pytest.raises(ValueError, match=r"log_ratio must be given for CTGAN, which trains no network .*keep_training"):
        RejectionSampler(CTGAN(*nets(), ct_weight=0.0))


def everything(module: Any) -> list[Sampler]:
    ratio = module.log_ratio or module.discriminator  # of any scale
    return [
        RejectionSampler(module, ratio, burn_in=200, gamma=None, percentile=50),
        Thresholding(module, ratio, keep=0.5, burn_in=200),
        MetropolisHastings(module, ratio, steps=4),
        LatentLangevin(module, ratio, steps=3),
        CollaborativeSampler(module, steps=2),
        Truncation(module),
        LatentOptimisation(module),
    ]


@pytest.mark.parametrize("technique", [name for name in VARIANTS if name not in TEXTS and make(name).normal_noise])
def test_any_technique_is_sampled_and_left_as_it_was(technique: str) -> None:
    """In training mode, too (others are refused): no weight, buffer, gradient, mode or global random number changes."""
    module = make(technique).train()
    before, modes = state(module), [m.training for m in module.modules()]
    torch.manual_seed(5)
    for sampler in everything(module):
        assert sampler.sample(7, progress=False).shape == (7, 2)
    following = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), following)
    assert all(torch.equal(before[k], v) for k, v in state(module).items())
    assert [m.training for m in module.modules()] == modes and all(p.grad is None for p in module.parameters())


def test_images_with_batch_norm_and_labels() -> None:
    for module in (make_images("gan").train(), conditional("batch").train()):
        before = state(module)
        labels = None if module.num_classes is None else torch.arange(5)
        for sampler in everything(module):
            found = sampler.sample(5, labels, progress=False)
            assert found.shape == (5, 1, 8, 8) and bool(found.isfinite().all())
        assert all(torch.equal(before[k], v) for k, v in state(module).items())


def test_the_averaged_generator_is_sampled() -> None:
    module = make("gan")
    with torch.no_grad():
        for p in module.start_ema().parameters():
            p.zero_()
        module.start_ema().layers[-1].bias.fill_(2.0)
    for sampler in everything(module):
        if sampler.name != "collaborative":
            assert sampler.sample(3, progress=False).tolist() == [[2.0, 2.0]] * 3


@pytest.mark.parametrize("index", range(7))
def test_samples_do_not_depend_on_how_they_are_asked_for(index: int) -> None:
    whole = everything(make("gan"))[index].sample(250, seed=4, progress=False)
    other = everything(make("gan"))[index]
    tail = other.sample(150, seed=4, start=100, progress=False)
    head = other.sample(100, seed=4, progress=False)
    assert torch.equal(torch.cat([head, tail]), whole)
    assert torch.equal(torch.cat(list(other.blocks(250, seed=4))), whole)
    assert not torch.equal(other.sample(100, seed=5, progress=False), head)
    assert other.report.samples == 600


def test_under_inference_mode() -> None:
    """As in ``trainer.test``."""
    module, critic = conditional(), make("wgan_gp")
    with torch.inference_mode():
        for sampler in everything(module):
            assert sampler.sample(3, torch.arange(3), progress=False).shape == (3, 1, 8, 8)
        assert math.isfinite(calibrate(critic, torch.randn(20, 2), method="logistic").z)
        head = keep_training(critic, torch.randn(20, 2), steps=3)
        assert RejectionSampler(critic, head, burn_in=100).sample(3, progress=False).shape == (3, 2)


def test_one_sampler_proposes_for_another() -> None:
    module = make("gan")
    sampler = RejectionSampler(Truncation(module).draw, module.log_ratio, burn_in=100)
    assert sampler.sample(5, progress=False).shape == (5, 2)
    with pytest.raises(ValueError, match="labels were given, but the proposal is a function"):
        sampler.sample(2, torch.tensor([0, 1]), progress=False)


@pytest.mark.parametrize(
    "sampler",
    [
        partial(RejectionSampler, burn_in=500),
        partial(RejectionSampler, burn_in=500, gamma=None),
        partial(RejectionSampler, burn_in=500, gamma=None, running=True),
        partial(Thresholding, burn_in=500, keep=0.9),
        partial(MetropolisHastings, steps=40),
    ],
)
def test_minus_infinity_is_never_kept(sampler: Any) -> None:
    never = lambda x: torch.where(x[:, 0] > 0, exact(x), -torch.inf)  # noqa: E731
    assert bool((sampler(wide, never).sample(200, progress=False) > 0).all())


@pytest.mark.parametrize("keep", [0.2, 0.45])
def test_a_threshold_counts_what_is_never_kept(keep: float) -> None:
    """The share is that of all proposals, half of which are refused from the beginning."""
    half = Thresholding(wide, lambda x: torch.where(x[:, 0] > 0, x[:, 0], -torch.inf), keep=keep, burn_in=5000)
    half.sample(1000, progress=False)
    assert half.report.acceptance == pytest.approx(keep, abs=0.05)


def test_a_bar_tells_the_acceptance(capsys: pytest.CaptureFixture[str]) -> None:
    RejectionSampler(wide, constant, burn_in=1).sample(200)
    shown = capsys.readouterr().err
    assert "drs:" in shown and "200" in shown
    RejectionSampler(wide, constant, burn_in=1).sample(200, progress=False)
    assert capsys.readouterr().err == ""


BAD: list[tuple[Any, str]] = [
    (lambda: RejectionSampler(wide), "log_ratio must be given for function"),
    (lambda: RejectionSampler(wide, 3), "log_ratio must be a network or a function, got 3"),  # type: ignore[arg-type]
    (lambda: calibrate(make("gan"), torch.zeros(9, 2), log_ratio=3), "log_ratio must be a network or a function"),  # type: ignore[arg-type]
    (lambda: RejectionSampler(wide, exact, gamma=math.nan), "gamma must be a finite number, got nan"),
    (lambda: RejectionSampler(wide, exact, percentile=120), r"percentile must be 0 or in .*, got 120"),
    (lambda: RejectionSampler(wide, exact, burn_in=0), "burn_in must be an integer >= 1, got 0"),
    (lambda: RejectionSampler(wide, exact, seed=-1), "seed must be an integer >= 0, got -1"),
    (lambda: Thresholding(wide, exact, keep=0), r"keep must be in \(0, 1\], got 0"),
    (lambda: MetropolisHastings(wide, exact, steps=0), "steps must be an integer >= 1, got 0"),
    (lambda: MetropolisHastings(wide, exact, real=torch.zeros(0, 1)), "real must hold at least one sample, got"),
    (lambda: MetropolisHastings(wide, exact, real_labels=torch.zeros(2)), "real_labels must be one per real sample"),
    (lambda: MetropolisHastings(wide, lambda x: x[:, 0] - math.inf).sample(1), "above -inf for one of 640 proposals"),
    (lambda: MetropolisHastings(wide, exact, real=torch.zeros(5, 2)).sample(1), "real must be samples of shape"),
    (lambda: LatentLangevin(wide, exact), "module must have a generator for LatentLangevin, got function"),
    (lambda: LatentLangevin(latent(), exact, step_size=0), "step_size must be a finite number > 0, got 0"),
    (lambda: Truncation(latent(), threshold=-1), "threshold must be a finite number > 0, got -1"),
    (lambda: Truncation(latent(), mode="cut"), "mode must be one of redraw, rescale, w, got 'cut'"),  # type: ignore[arg-type]
    (lambda: RejectionSampler(wide, exact).sample(0), "n must be an integer >= 1, got 0"),
    (lambda: RejectionSampler(wide, exact).sample(9, start=50), "start must be a multiple of 100"),
    (lambda: RejectionSampler(wide, exact).sample(2, torch.zeros(3)), r"labels must have shape \(2,\)"),
    (lambda: RejectionSampler(make("gan")).sample(2, torch.zeros(2).long()), "labels were given, but the generator"),
    (lambda: RejectionSampler(wide, lambda x: x[:, 0] / 0).sample(1), "finite numbers or -inf, got NaN or infinity.$"),
    (lambda: LatentLangevin(latent(log_ratio=lambda x: x[:, 0] / 0)).sample(1), "the networks have diverged"),
    (lambda: LatentLangevin(latent(), lambda x: x[:, 0] - math.inf).sample(1), "finite numbers, got NaN or infinity.$"),
    (lambda: RejectionSampler(wide, lambda x: x[:, 0] - math.inf, burn_in=9).prepare(), "above -inf .* for all 9"),
    (lambda: calibrate(make("gan"), torch.zeros(3, 2)), "real must be at least 4 finite floating-point samples, got 3"),
    (lambda: calibrate(make("gan"), torch.zeros(9, 2), method="beta"), "method must be one of isotonic, logistic"),  # type: ignore[arg-type]
    (lambda: keep_training(make("gan"), torch.zeros(20, 2), part="tail"), "part must be one of network, head"),  # type: ignore[arg-type]
    (lambda: keep_training(make("gan"), torch.zeros(20, 2), held_out=1), r"held_out must be in \(0, 1\), got 1"),
    (lambda: keep_training(make("gan"), torch.zeros(20, 2).byte()), "real must be at least 10 finite floating-point"),
    (lambda: keep_training(make("gan"), [torch.zeros(20, 2)]), "real must be a tensor of samples"),  # type: ignore[arg-type]
    (lambda: keep_training(make("gan"), torch.zeros(20, 3)), r"real must be samples of shape \(2,\) each"),
    (lambda: calibrate(make("gan"), torch.zeros(20, 3)), r"real must be samples of shape \(2,\) each, .* got \(3,\)"),
    (lambda: GenerativeMetrics(batch_size=50, num_fake=60, sampler=RejectionSampler), "batch_size must be at least"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


# ---------------------------------------------------------------------------------------------- scores
def flat(**options: Any) -> GenerativeMetrics:
    defaults: dict[str, Any] = {"extractor": nn.Flatten(), "metrics": ("fid",), "num_fake": 250, "batch_size": 100}
    return GenerativeMetrics(1, **(defaults | options))


def digits(**options: Any) -> GAN:
    torch.manual_seed(2)
    return GAN(DCGANGenerator((1, 8, 8), 3, width=4), DCGANDiscriminator((1, 8, 8), 4, "none"), 3, **options)


DRS = partial(RejectionSampler, burn_in=200, gamma=None, percentile=80)


def test_scores_before_and_after_in_one_table(tmp_path: Path) -> None:
    module = digits()
    before, after = flat(), flat(sampler=DRS)
    runner = pl.Trainer(**(QUIET | {"callbacks": [before, after], "default_root_dir": tmp_path}))
    (found,) = runner.test(module, Digits(batch_size=8), verbose=False)
    assert found.keys() == {"metrics/fid/flatten", "metrics/fid/flatten/drs"}
    assert found["metrics/fid/flatten"] != found["metrics/fid/flatten/drs"]
    options = {"gamma": None, "percentile": 80, "epsilon": 1e-14, "burn_in": 200, "running": False, "seed": 0}
    assert after.protocol["sampler"] == {"name": "drs", **options}
    told = after.protocol["sampler_report"]
    assert told["samples"] == 250 and 0 < told["acceptance"] < 1
    assert "sampler" not in before.protocol and before.state_key != after.state_key
    assert {p.name for p in tmp_path.glob("*.jsonl")} == {"test-scores-flatten.jsonl", "test-scores-flatten-drs.jsonl"}
    expected = DRS(module).sample(250, progress=False)
    other = flat(sampler=lambda _: DRS(module), batch_size=200)
    (again,) = pl.Trainer(**(QUIET | {"callbacks": [other]})).test(module, Digits(batch_size=8), verbose=False)
    assert again == {"metrics/fid/flatten/sampler": pytest.approx(found["metrics/fid/flatten/drs"], rel=1e-6)}
    assert len(expected) == 250 and other.protocol["sampler_report"]["proposals"] == told["proposals"]


def test_runs_by_one_sampler_are_measured_alike() -> None:
    """Whatever it found, and however long it took; by another step size they are not."""
    entries = []
    for size, seconds in ((0.01, 1.0), (0.01, 2.0), (0.02, 1.0)):
        sampler = LatentLangevin(latent(), lambda x: 0.1 * x[:, 0], steps=2, step_size=size)
        sampler.sample(5, seed=int(seconds), progress=False)
        sampler.report.seconds = seconds
        entries.append(Entry(str(size), [Record(Path(), {}, protocols={"coverage-ddls": sampler.protocol})]))
    notes = [[note for note in _notes(some, []) if "alike" in note] for some in (entries[:2], entries[1:])]
    assert notes == [[], ["Scores of coverage-ddls were not measured alike (sampler): compare them with care."]]


@pytest.mark.parametrize(
    "build",
    [
        partial(LatentOptimisation, steps=1), partial(CollaborativeSampler, steps=2), partial(LatentLangevin, steps=5),
        partial(MetropolisHastings, steps=7), partial(RejectionSampler, burn_in=100), Truncation,
    ],
)  # fmt: skip
def test_network_calls_are_those_that_were_made(build: Any) -> None:
    module, rows = latent(), []
    module.generator.register_forward_hook(lambda *_: rows.append(len(_[1][0])))
    module.sample = lambda n, labels, generator: module.generator(torch.randn(n, 1, generator=generator))
    sampler = build(module) if build is Truncation else build(module, lambda x: 0.1 * x[:, 0])
    sampler.sample(200, progress=False)
    assert sampler.network_calls == (sum(rows) - sampler.report.burn_in) / 200


def test_labels_of_scored_samples_are_drawn_as_in_the_data() -> None:
    module, seen = conditional(), []

    class Spy(RejectionSampler):
        def sample(self, n: int, labels: Any = None, *args: Any, **kwargs: Any) -> Tensor:
            seen.append(labels)
            return super().sample(n, labels, *args, **kwargs)

    metrics = flat(sampler=partial(Spy, burn_in=100))
    pl.Trainer(**(QUIET | {"callbacks": [metrics]})).test(module, Digits(batch_size=8), verbose=False)
    own = Generator().manual_seed(0)
    known = Digits().reference()[1]
    assert torch.equal(torch.cat(seen), known[torch.randint(len(known), (250,), generator=own)])


def test_coverage_of_better_samples() -> None:
    """A generator of which half misses the ring, and the ratio that says so: in training, and on the line."""
    module = make("gan")
    plain = ModeCoverage(1, num_samples=300)
    better = ModeCoverage(1, num_samples=300, sampler=partial(Thresholding, keep=0.5, burn_in=200))
    trainer(max_steps=1, callbacks=[plain, better], limit_val_batches=0).fit(module, datamodule=Ring(batch_size=8))
    assert plain.history[-1].keys() == {"step", "metrics/modes", "metrics/high_quality", "metrics/reverse_kl"}
    assert better.history[-1].keys() == {"step"} | {f"{k}/threshold" for k in plain.history[-1] if k != "step"}
    assert better.protocol["sampler"]["name"] == "threshold"
    torch.manual_seed(0)
    line = GAN(ToyGenerator((1,), 1, 8, 1), ToyDiscriminator((1,), 8, 1), 1)
    on_line = ModeCoverage(1, num_samples=300, sampler=DRS)
    (found,) = trainer(callbacks=[on_line]).test(line, Gaussian1D(batch_size=8), verbose=False)
    x = DRS(line).sample(300, progress=False)
    assert found["metrics/mean/drs"] == pytest.approx(float(x.mean()), rel=1e-5)


def test_ranks_choose_by_one_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose running averages differ by rank; of scores without a sampler it has no part."""
    module, shared = make("gan"), []
    monkeypatch.setattr(distributed, "broadcast_buffers", shared.append)
    for sampler in (None, partial(Thresholding, keep=0.5, burn_in=200)):
        coverage = ModeCoverage(num_samples=100, sampler=sampler)
        trainer(callbacks=[coverage]).test(module, Ring(batch_size=8), verbose=False)
    assert shared == [module.generator, module.generator, module.discriminator]


def _rank(rank: int, folder: Path) -> None:
    metrics = flat(sampler=DRS)
    runner = pl.Trainer(**(QUIET | {"devices": 2, "strategy": "gan_ddp", "callbacks": [metrics]}))
    (found,) = runner.test(digits(), Digits(batch_size=8), verbose=False)
    torch.save((found, metrics.protocol["sampler_report"]["samples"]), folder / f"rank{rank}.pt")


def test_two_ranks_score_as_one_process(tmp_path: Path) -> None:
    (one,) = pl.Trainer(**(QUIET | {"callbacks": [flat(sampler=DRS)]})).test(
        digits(), Digits(batch_size=8), verbose=False
    )
    two_ranks(_rank, tmp_path)
    for rank, share in ((0, 150), (1, 100)):  # blocks 0, 2 and 1
        found, samples = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found == pytest.approx(one, rel=1e-6) and samples == share
