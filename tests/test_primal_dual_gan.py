"""Primal-dual subgradient steps (arXiv:1802.01765)."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gans import GAN, PrimalDualGAN
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import PAIRS, log_kernel_density, median_distance
from lightning_gans.functional.numerics import tell_gradients
from lightning_gans.networks import ToyDiscriminator, ToyGenerator

DOUBLE = torch.float64


class Constant(nn.Module):
    """D(x) = sigmoid(logit) everywhere."""

    def __init__(self, d: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(d, dtype=DOUBLE).logit())

    def forward(self, x: Tensor) -> Tensor:
        return self.logit.expand(len(x))


class Slope(nn.Module):
    """Logit a x_0"""

    def __init__(self, a: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x[:, 0]


class Point(nn.Module):
    """All noise to one point."""

    def __init__(self, *where: float) -> None:
        super().__init__()
        self.where = nn.Parameter(torch.tensor(where, dtype=DOUBLE))

    def forward(self, z: Tensor) -> Tensor:
        return self.where.expand(len(z), -1)


def game(discriminator: nn.Module, **options: Any) -> PrimalDualGAN:
    options = {"relative": False, "alpha": 0.3} | options
    return PrimalDualGAN(Point(0.0), discriminator, 3, **options).double()


def terms(module: PrimalDualGAN, real: Tensor, fake: Tensor, weights: Tensor | None = None) -> Any:
    return module.generator_terms(Batch(real, None, weights, torch.zeros(len(fake), 3, dtype=DOUBLE)), fake)


def kernel_gradient(module: PrimalDualGAN, real: Tensor, fake: Tensor, **options: Any) -> Tensor:
    fake = fake.clone().requires_grad_()
    return torch.autograd.grad(terms(module, real, fake, **options)["kernel"], fake)[0]


# ---------------------------------------------------------------------- kernels and pairs
def test_density_is_the_mean_of_the_kernels() -> None:
    x, y = torch.randn(5, 2, 3, dtype=DOUBLE), torch.randn(7, 2, 3, dtype=DOUBLE)
    squares = (x[:, None] - y[None]).flatten(2).square().sum(2)
    torch.testing.assert_close(log_kernel_density(x, y, 1.7).exp(), torch.exp(-squares / 1.7**2).mean(1))


def test_density_is_finite_far_away_and_exact_close_by() -> None:
    """Where exp would be 0, and where ||x||^2 - 2 x.y + ||y||^2 would have no digit left."""
    far = log_kernel_density(torch.zeros(1, 1), torch.tensor([[100.0], [200.0]]).requires_grad_(), 1.0)
    assert float(far) == pytest.approx(-10_000 - math.log(2))
    x, y = torch.tensor([[1.0]]), torch.tensor([[1.0 + 2**-10]]).requires_grad_()
    assert float(log_kernel_density(x, y, 2**-10)) == pytest.approx(-1, rel=1e-5)
    same = torch.ones(2, 1, requires_grad=True)
    assert torch.autograd.grad(log_kernel_density(x, same, 1.0).sum(), same)[0].tolist() == [[0.0], [0.0]]


def test_median_distance() -> None:
    """Of 0, 1, 3, 7: the six distances are 1, 2, 3, 4, 6, 7, and torch's median is the lower middle."""
    assert float(median_distance(torch.tensor([[0.0], [1.0], [3.0], [7.0]]))) == 3


def test_pairs() -> None:
    score = torch.tensor([-2.0, 0.0, 3.0], dtype=DOUBLE)
    d = torch.sigmoid(score)
    torch.testing.assert_close(PAIRS["js"].f0(score), d.log())
    torch.testing.assert_close(PAIRS["js"].f1(score), (2 * (1 - d)).log())
    torch.testing.assert_close(PAIRS["js"].d(score), d)
    assert equal([f(score) for f in PAIRS["wasserstein"]], [score, -score, score])
    assert torch.isfinite(PAIRS["js"].f1(torch.tensor(1e4)))


# ---------------------------------------------------------------------- the kernel term
@pytest.mark.parametrize("pair", ["js", "wasserstein"])
def test_kernel_gradient_is_that_of_the_linear_form(pair: Any) -> None:
    """(2 alpha / m1) sum_i f1(D(x_i)) p_g(x_i), f1 fixed: by finite differences of that form."""
    module = game(Slope(1.3), pair=pair, sigma=0.875)
    real, fake = torch.randn(6, 2, dtype=DOUBLE), torch.randn(5, 2, dtype=DOUBLE)
    f1 = PAIRS[pair].f1(1.3 * real[:, 0]).detach()

    def linear(y: Tensor) -> Tensor:
        squares = (real[:, None] - y[None]).square().sum(2)
        return 2 * 0.3 * (f1 * torch.exp(-squares / 0.875**2).mean(1)).mean()

    got = kernel_gradient(module, real, fake)
    for i in range(fake.numel()):
        step = torch.zeros(fake.numel(), dtype=DOUBLE)
        step[i] = 1e-5
        step = step.view_as(fake)
        want = float(linear(fake + step) - linear(fake - step)) / 2e-5
        assert float(got.flatten()[i]) == pytest.approx(want, abs=1e-9)
    assert float(got.abs().max()) > 1e-3


def test_an_undecided_discriminator_has_no_kernel_term() -> None:
    module = game(Constant(0.5))
    real, fake = torch.randn(4, 1, dtype=DOUBLE), torch.randn(4, 1, dtype=DOUBLE)
    assert float(terms(module, real, fake)["kernel"]) == 0
    assert not kernel_gradient(module, real, fake).any()


@pytest.mark.parametrize(("d", "towards"), [(0.9, 1.0), (0.1, -1.0)])
def test_samples_go_where_the_data_look_real(d: float, towards: float) -> None:
    """One sample at 0, one data point at 1: minus the gradient is -2 alpha f1(D) 2 (x - y) k / sigma^2."""
    pull = -float(kernel_gradient(game(Constant(d)), torch.ones(1, 1, dtype=DOUBLE), torch.zeros(1, 1, dtype=DOUBLE)))
    assert pull == pytest.approx(-2 * 0.3 * math.log(2 * (1 - d)) * 2 * math.exp(-1))
    assert pull * towards > 0


def test_a_wide_kernel_sees_everything_and_moves_nothing() -> None:
    module = game(Constant(0.9), sigma=1e6)
    real, fake = torch.randn(4, 1, dtype=DOUBLE), torch.randn(4, 1, dtype=DOUBLE)
    assert float(kernel_gradient(module, real, fake).abs().max()) < 1e-11
    assert float(module.values["g/p_g"]) == pytest.approx(1, abs=1e-10)


class Tabulated(nn.Module):
    """The optimal D for data on {0, 3} in halves and all samples at 0: D(0) = 1/3, D(3) = 1 (nearly); flat."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 1.5, 8.0, math.log(0.5)) + 0 * x[:, 0]


def test_a_missed_mode_pulls() -> None:
    module = game(Tabulated(), sigma=3.0)
    real, fake = torch.tensor([[0.0], [3.0]], dtype=DOUBLE), torch.zeros(4, 1, dtype=DOUBLE, requires_grad=True)
    found = terms(module, real, fake)
    plain_term, kernel = (torch.autograd.grad(found[k], fake, retain_graph=True)[0] for k in ("adversarial", "kernel"))
    assert not plain_term.any() and (kernel < -1e-3).all()


def test_alpha_zero_is_the_plain_game_bit_for_bit() -> None:
    real, fake = torch.randn(4, 1, dtype=DOUBLE), torch.randn(4, 1, dtype=DOUBLE)
    assert not kernel_gradient(game(Slope(2.0), alpha=0.0), real, fake).any()
    found = []
    for module in (make("primal_dual", alpha=0.0, d_steps=2), make("gan", d_steps=2)):
        torch.manual_seed(3)
        trainer(max_steps=5).fit(module, plain())
        found.append({k: v for k, v in state(module).items() if k != "unit"})
    assert equal(*found)
    other = make("primal_dual", alpha=0.1, d_steps=2)
    torch.manual_seed(3)
    trainer(max_steps=5).fit(other, plain())
    assert not equal(found[0], {k: v for k, v in state(other).items() if k != "unit"})


def test_one_step_by_hand() -> None:
    """Algorithm 1 from D = sigmoid(a x), a = 0, all data at 1, all samples at 0; SGD of rates 2 and 1.

    D: d/da of -log s(a) - log(2 (1 - s(0))) is -1/2 at 0, so a = 1. Then f1(D(1)) = log 2 - log(1 + e) = -0.620115,
    p_g(1) = exp(-1/4) = 0.778801 and dp_g = 0.389400 for sigma = 2, p~ = p_g + 0.310057 for alpha = 1/2;
    G: -s(0) a - 2 (0.310057) (0.389400) = -0.5 - 0.241472 = -0.741472.
    """
    sgd = lambda lr: lambda parameters: torch.optim.SGD(parameters, lr)  # noqa: E731
    module = game(Slope(), alpha=0.5, sigma=2.0, optimizer_d=sgd(2.0), optimizer_g=sgd(1.0))
    trainer(max_steps=1).fit(module, torch.utils.data.DataLoader(torch.ones(8, 1, dtype=DOUBLE), 4))
    assert float(module.discriminator.a) == pytest.approx(1, abs=1e-12)
    assert float(module.generator.where) == pytest.approx(0.741472, abs=2e-6)
    logged = {name: float(value) for name, value in module.values.items()}
    expected = {
        "g/adversarial": 0.0,
        "g/kernel": 0.310057**2,
        "g/p_g": 0.778801,
        "g/log_p_g": -0.25,
        "g/p_target": 0.778801 + 0.310057,
        "g/d_real": 0.731059,
        "g/adversarial_gradient": 0.5 / 2,  # four samples of a quarter each
        "g/kernel_gradient": 0.241472 / 2,
        "g/gradient_cosine": 1.0,
        "d/adversarial": math.log(2),
    }
    assert {name: logged[name] for name in expected} == pytest.approx(expected, abs=2e-6)


def test_saturating_or_not() -> None:
    real, fake = torch.ones(1, 1, dtype=DOUBLE), torch.ones(1, 1, dtype=DOUBLE)
    value = {s: float(terms(game(Constant(0.8), saturating=s), real, fake)["adversarial"]) for s in (True, False)}
    assert value == pytest.approx({True: math.log(0.4), False: -math.log(0.8)})


def test_projection_keeps_the_target_at_zero() -> None:
    """D(x) = .1 and p_g = exp(-9): the target p_g - 0.3 log 1.8 is negative."""
    real, fake = torch.zeros(1, 1, dtype=DOUBLE), torch.full((1, 1), 3.0, dtype=DOUBLE)
    for project, target in ((False, math.exp(-9) - 0.3 * math.log(1.8)), (True, 0.0)):
        module = game(Constant(0.1), project=project)
        kernel = float(terms(module, real, fake)["kernel"])
        assert float(module.values["g/p_target"]) == pytest.approx(target)
        assert kernel == pytest.approx((target - math.exp(-9)) ** 2)


def test_weights_of_the_data_weight_the_kernel_term() -> None:
    real, fake = torch.randn(2, 1, dtype=DOUBLE), torch.randn(3, 1, dtype=DOUBLE)
    module = game(Slope(2.0))
    first = terms(module, real[:1], fake)["kernel"]
    weighted = terms(module, real, fake, weights=torch.tensor([2.0, 0.0], dtype=DOUBLE))["kernel"]
    torch.testing.assert_close(weighted, first)


def test_the_discriminator_gets_no_gradient_from_the_kernel_term() -> None:
    module = game(Slope(2.0))
    fake = torch.randn(3, 1, dtype=DOUBLE, requires_grad=True)
    kernel = terms(module, torch.randn(2, 1, dtype=DOUBLE), fake)["kernel"]
    assert torch.autograd.grad(kernel, module.discriminator.a, allow_unused=True)[0] is None


def test_gradients_are_those_of_the_terms() -> None:
    """Whatever the loss is multiplied by on its way back, as a gradient scaler does."""
    module = game(Slope(1.5))
    real, fake = torch.randn(4, 1, dtype=DOUBLE), torch.randn(5, 1, dtype=DOUBLE).requires_grad_()
    found = terms(module, real, fake)
    want = {k: torch.autograd.grad(v, fake, retain_graph=True)[0] for k, v in found.items()}
    found = terms(module, real, fake)
    (1024 * sum(found.values())).backward()
    for name, gradient in want.items():
        torch.testing.assert_close(module.values[f"g/{name}_gradient"], gradient.norm())
        assert gradient.norm() > 0
    cosine = torch.nn.functional.cosine_similarity(*(g.flatten() for g in want.values()), dim=0)
    torch.testing.assert_close(module.values["g/gradient_cosine"], cosine)
    assert 0.01 < abs(cosine) < 0.99


@pytest.mark.parametrize(("small", "cosine"), [(1e-30, 0.0), (0.0, 0.0), (1e-15, 1.0)])
def test_the_cosine_beside_a_gradient_that_vanishes(small: float, cosine: float) -> None:
    """In float32, where the norm of 1e-30 is 0, but not the product with another gradient."""
    told: dict[str, Tensor] = {}
    x = torch.ones(3, requires_grad=True)
    ways = x.view_as(x), x.view_as(x)
    terms_of = {"a": ways[0].sum(), "b": small * ways[1].sum()}
    tell_gradients(lambda **values: told.update(values), "", terms_of, ways)
    sum(terms_of.values()).backward()  # type: ignore[union-attr]
    assert float(told["gradient_cosine"]) == pytest.approx(cosine)


def test_dual_is_p_g_and_its_target_at_any_points() -> None:
    """Of samples 0 and 2 at x = 1, sigma 2: exp(-1/4); D(x) = s(1.5 x); and at x = -1: (exp(-1/4) + exp(-9/4)) / 2."""
    fakes = torch.tensor([[0.0], [2.0]], dtype=DOUBLE).requires_grad_()
    points = torch.tensor([[1.0], [-1.0]], dtype=DOUBLE)
    p_g = torch.tensor([math.exp(-0.25), (math.exp(-0.25) + math.exp(-2.25)) / 2], dtype=DOUBLE)
    step = 0.9 * (2 * (1 - torch.sigmoid(1.5 * points[:, 0]))).log()
    for project in (False, True):
        p, target = game(Slope(1.5), sigma=2.0, alpha=0.9, project=project).dual(points, fakes)
        torch.testing.assert_close(p, p_g)
        torch.testing.assert_close(target, (p_g - step).clamp_min(0) if project else p_g - step)
        assert p.requires_grad and not target.requires_grad
    assert float((p_g - step).min()) < 0


def test_the_kernel_term_is_that_of_dual() -> None:
    module = game(Slope(1.5), sigma=0.8, features=nn.Linear(2, 3))
    real, fake = torch.randn(4, 2, dtype=DOUBLE), torch.randn(5, 2, dtype=DOUBLE)
    p, target = module.dual(real, fake)
    torch.testing.assert_close(terms(module, real, fake)["kernel"], (target - p).square().mean())
    torch.testing.assert_close(module.values["g/p_target"], target.mean().detach())


def test_dual_is_unknown_until_sigma_has_its_unit() -> None:
    module = game(Constant(0.7), relative=True)
    real, fake = torch.randn(4, 1, dtype=DOUBLE), torch.randn(5, 1, dtype=DOUBLE)
    assert all(value.isnan().all() for value in module.dual(real, fake))
    terms(module, real, fake)
    assert all(value.isfinite().all() for value in module.dual(real, fake))


# ---------------------------------------------------------------------- sigma and features
def image_game(shape: tuple[int, ...] = (1, 28, 28), **options: Any) -> PrimalDualGAN:
    generator = ToyGenerator(shape=shape, latent_dim=3, width=8, depth=1)
    return PrimalDualGAN(generator, ToyDiscriminator(shape=shape, width=8, depth=1), 3, **options)


@pytest.mark.parametrize("options", [{"sigma": 1.0, "relative": False}, {}])
def test_a_kernel_out_of_reach_is_told_once(options: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(max_steps=3).fit(image_game(**options), plain(64, shape=(1, 28, 28)))
    told = [str(w.message) for w in caught if "kernel term is inactive" in str(w.message)]
    assert len(told) == (1 if options else 0)


def test_relative_sigma_has_the_first_batch_as_its_unit(tmp_path: Path) -> None:
    module, data = make("primal_dual", sigma=0.5), plain()
    t = trainer(max_steps=3)
    t.fit(module, data)
    unit = median_distance(data.dataset[:4])  # type: ignore[index]
    assert torch.equal(module.unit, unit) and float(module.sigma) == 0.5
    t.save_checkpoint(tmp_path / "a.ckpt")
    other = make("primal_dual")
    again = PrimalDualGAN.load_from_checkpoint(
        tmp_path / "a.ckpt", generator=other.generator, discriminator=other.discriminator
    )
    assert torch.equal(again.unit, unit)
    trainer(max_steps=4).fit(again, DataLoader(10 * data.dataset, 4), ckpt_path=tmp_path / "a.ckpt")  # type: ignore[operator]
    assert torch.equal(again.unit, unit)  # a run that goes on
    trainer(max_steps=1).fit(again, DataLoader(10 * data.dataset, 4))  # type: ignore[operator]
    torch.testing.assert_close(again.unit, 10 * unit)  # a new one


def test_relative_sigma_is_relative() -> None:
    """Data and samples ten times as large have the same p_g."""
    real, fake = torch.randn(6, 1, dtype=DOUBLE), torch.randn(6, 1, dtype=DOUBLE)
    found = []
    for scale in (1, 10):
        module = game(Constant(0.7), relative=True)
        terms(module, scale * real, scale * fake)
        found.append(float(module.values["g/p_g"]))
    assert found[0] == pytest.approx(found[1]) and 0.1 < found[0] < 0.99


def test_degenerate_data_need_an_absolute_sigma() -> None:
    real = torch.ones(4, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match="relative must be False"):
        terms(game(Constant(0.7), relative=True), real, real)
    assert float(terms(game(Constant(0.7)), real, real)["kernel"]) > 0


def test_sigma_goes_along_its_schedule() -> None:
    module = make("primal_dual", sigma=2.0, sigma_end=1.0, sigma_steps=4)
    seen: list[float] = []
    inner = module.generator_terms
    module.generator_terms = lambda *a: (seen.append(float(module.sigma)), inner(*a))[1]  # type: ignore[method-assign]
    trainer(max_steps=6).fit(module, plain())
    assert seen == pytest.approx([2.0, 1.75, 1.5, 1.25, 1.0, 1.0])


def test_features_measure_and_stay_as_they_are() -> None:
    """Distances of the projected samples; no gradient, no optimizer, no running average."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module = make("primal_dual", features=features, relative=False, sigma=1.5)
    before = {k: v.clone() for k, v in features.state_dict().items()}
    trainer(max_steps=3).fit(module, plain())
    assert equal(before, features.state_dict()) and not any(p.requires_grad for p in features.parameters())
    optimized = {id(p) for o in module.configure_optimizers()[0] for g in o.param_groups for p in g["params"]}
    assert not optimized & {id(p) for p in features.parameters()}
    real, fake = torch.randn(4, 2), torch.randn(5, 2, requires_grad=True)
    kernel = terms(module, real, fake)["kernel"]
    assert float(torch.autograd.grad(kernel, fake)[0].norm()) > 0
    features.eval()
    p = log_kernel_density(features(real), features(fake), 1.5).exp().mean()
    torch.testing.assert_close(module.values["g/p_g"], p.detach())
    features.train()


class Conditional(ToyDiscriminator):
    def __init__(self) -> None:
        super().__init__(shape=(2,), width=4, depth=1, num_classes=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pair": "hinge"}, "pair must be one of js, wasserstein, got 'hinge'"),
        ({"alpha": -1.0}, "alpha must be a finite number >= 0, got -1.0"),
        ({"sigma": 0.0}, "sigma must be a finite number > 0, got 0.0"),
        ({"sigma_end": -1.0}, "sigma_end must be a finite number > 0, got -1.0"),
        ({"sigma_steps": 0}, "sigma_steps must be an integer >= 1, got 0"),
        ({"g_batch_factor": 2}, "g_batch_factor must be 1 with a conditional discriminator"),
    ],
)
def test_bad_settings(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrimalDualGAN(ToyGenerator(latent_dim=3, width=4), Conditional(), 3, **options)


def test_wasserstein_pair_plays_the_wasserstein_game() -> None:
    module, other = make("primal_dual", pair="wasserstein"), make("gan", loss="wasserstein")
    assert isinstance(module, PrimalDualGAN) and isinstance(other, GAN)
    batch = Batch(torch.randn(4, 2), None, None, torch.zeros(4, 3))
    fake = torch.randn(4, 2)
    for a, b in ((module, other), (other, module)):
        torch.testing.assert_close(
            a.discriminator_terms(batch, fake)["adversarial"], b.discriminator_terms(batch, fake)["adversarial"]
        )
    torch.testing.assert_close(
        module.generator_terms(batch, fake)["adversarial"], other.generator_terms(batch, fake)["adversarial"]
    )
