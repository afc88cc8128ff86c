"""Unrolled discriminators (arXiv:1611.02163)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import UnrolledGAN
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import score, score_with, unroll
from lightning_gans.functional.losses import LOSSES
from lightning_gans.functional.unroll import Moments
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import R1

DOUBLE = torch.float64


def value_and_slope(quadratic: float, steps: int, lr: float, **options: Any) -> tuple[float, float]:
    """V(g, d_K) and its derivative by g at g = .7, d_0 = .3, for V(g, d) = g d - quadratic d^2 / 2."""
    g, d = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True), torch.tensor(0.3, dtype=DOUBLE)

    def value(g: Tensor, d: Tensor) -> Tensor:
        return g * d - quadratic * d.square() / 2

    seen = g.detach() if options.get("first_order") else g
    phi = unroll(lambda phi: -value(seen, phi["d"]), {"d": d}, steps, lr, **options)
    v = value(g, phi["d"])
    assert float(d) == 0.3
    return float(v), float(torch.autograd.grad(v, g)[0])


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_bilinear_game(steps: int) -> None:
    """d_K = d + K eta g, so dV_K/dg is d + 2 K eta g, and d + K eta g of first order."""
    v, slope = value_and_slope(0.0, steps, 0.2)
    assert v == pytest.approx(0.7 * (0.3 + steps * 0.2 * 0.7), abs=1e-12)
    assert slope == pytest.approx(0.3 + 2 * steps * 0.2 * 0.7, abs=1e-12)
    _, slope = value_and_slope(0.0, steps, 0.2, first_order=True)
    assert slope == pytest.approx(0.3 + steps * 0.2 * 0.7, abs=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_many_steps_find_the_optimal_discriminator(first_order: bool) -> None:
    """max_d g d - d^2 / 2 is g^2 / 2 at d = g, and its derivative g by both ways (the envelope theorem)."""
    found = value_and_slope(1.0, 300, 0.1, first_order=first_order)
    assert found == pytest.approx((0.7**2 / 2, 0.7), abs=1e-10)


def test_adam_is_torchs_and_goes_on_from_its_moments() -> None:
    torch.manual_seed(0)
    target, w = torch.randn(2, 3, dtype=DOUBLE), torch.randn(2, 3, dtype=DOUBLE).requires_grad_()
    optimizer = torch.optim.Adam([w], 0.1, betas=(0.5, 0.9))
    moments, start = None, {"w": w.detach().clone()}
    for i in range(6):
        w.grad = torch.autograd.grad((w - target).pow(4).sum(), w)[0]
        optimizer.step()
        if i == 2:
            slot = optimizer.state[w]
            moments = Moments(*(slot[k].clone().reshape(-1) for k in ("step", "exp_avg", "exp_avg_sq")))
            middle = {"w": w.detach().clone()}

    def loss(phi: dict[str, Tensor]) -> Tensor:
        return (phi["w"] - target).pow(4).sum()

    options: Any = {"rule": "adam", "betas": (0.5, 0.9)}
    torch.testing.assert_close(unroll(loss, start, 6, 0.1, **options)["w"], w)
    torch.testing.assert_close(unroll(loss, middle, 3, 0.1, moments=moments, **options)["w"], w)


def test_a_parameter_without_gradients_is_no_trouble_for_adam() -> None:
    """The square root of a second moment of zero has no derivative."""
    g = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    start = {"d": torch.tensor([0.3, 0.4], dtype=DOUBLE)}

    def loss(phi: dict[str, Tensor]) -> Tensor:
        alive, dead = phi["d"]
        return -g * (alive + alive.square() + 0 * dead)  # as of an input that is always 0

    phi = unroll(loss, start, 3, 0.1, rule="adam")["d"]
    assert phi[1] == 0.4 and phi[0] > 0.4
    assert torch.isfinite(torch.autograd.grad(phi.sum(), g)[0])


# ---------------------------------------------------------------------- the technique
def smooth(**options: Any) -> UnrolledGAN:
    """A game without kinks, after one update, so that it has optimizers."""
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    discriminator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    module = UnrolledGAN(generator, discriminator, 3, **options).double()
    trainer(max_steps=1).fit(module, plain(8, dtype=DOUBLE))
    return module


def batch(n: int = 5) -> Batch:
    own = torch.Generator().manual_seed(4)
    weights = torch.linspace(0.5, 1.5, n, dtype=DOUBLE)
    real, z = (torch.randn(n, k, dtype=DOUBLE, generator=own) for k in (2, 3))
    return Batch(real, None, weights, z)


RULES: list[dict[str, Any]] = [{"unroll_optimizer": "sgd", "unroll_lr": 2.0}, {"unroll_lr": 0.3}]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("first_order", [False, True])
def test_generator_gradient_is_that_of_the_unrolled_value(rule: dict[str, Any], first_order: bool) -> None:
    """By finite differences of V(theta, phi_K(theta)), or of V(theta, phi_K) with phi_K held, in each direction."""
    module, b = smooth(unroll_steps=3, first_order=first_order, **rule), batch()
    weight = module.generator[0].weight  # type: ignore[index]
    before = state(module)
    loss = module.generator_terms(b, module(b.z))["adversarial"]
    (got,) = torch.autograd.grad(loss, weight)
    assert equal(before, state(module))

    def value(fake: Tensor, at: Tensor) -> float:
        """V at `fake`, with the discriminator unrolled on `at`, step by step with a real optimizer."""
        phi = {k: p.detach().clone().requires_grad_() for k, p in module.discriminator.named_parameters()}
        if "unroll_optimizer" in rule:
            optimizer: Any = torch.optim.SGD(phi.values(), rule["unroll_lr"])
        else:
            optimizer = torch.optim.Adam(phi.values(), rule["unroll_lr"], betas=module.betas)
            theirs = module.optimizers()[0].optimizer.state  # type: ignore[index]
            for p, q in zip(phi.values(), module.discriminator.parameters()):
                optimizer.state[p] = {k: v.clone() for k, v in theirs[q].items()}
        for _ in range(3):
            real, on_fake = (score_with(module.discriminator, phi, x) for x in (b.real, at))
            minus = LOSSES["minimax"].discriminator(real, on_fake, real_weight=b.weights)
            for p, g in zip(phi.values(), torch.autograd.grad(minus, list(phi.values()))):
                p.grad = g
            optimizer.step()
        real, on_fake = (score_with(module.discriminator, phi, x) for x in (b.real, fake))
        return -float(LOSSES["minimax"].discriminator(real, on_fake, real_weight=b.weights))

    fixed, found = module(b.z).detach(), []
    with torch.no_grad():
        for i in range(weight.numel()):
            values = []
            for step in (1e-5, -1e-5):
                weight.view(-1)[i] += step
                fake = module(b.z)
                with torch.enable_grad():
                    values.append(value(fake, fixed if first_order else fake))
                weight.view(-1)[i] -= step
            found.append((values[0] - values[1]) / 2e-5)
    want = torch.tensor(found, dtype=DOUBLE).view_as(got)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-8)
    assert float(loss) == pytest.approx(value(fixed, fixed), abs=1e-10)


def test_orders_differ() -> None:
    """The derivative through the updates is no small thing here."""
    b, found = batch(), []
    for first_order in (False, True):
        module = smooth(unroll_steps=3, first_order=first_order, **RULES[0])
        loss = module.generator_terms(b, module(b.z))["adversarial"]
        found.append(torch.autograd.grad(loss, module.generator[0].weight)[0])  # type: ignore[index]
    assert float((found[0] - found[1]).norm() / found[0].norm()) > 0.05


def test_no_steps_is_the_minimax_game_bit_for_bit() -> None:
    found = []
    for module in (
        make("unrolled", unroll_steps=0, d_steps=2, lr_g=1e-3, lr_d=1e-3),
        make("gan", d_steps=2, lr_g=1e-3, lr_d=1e-3),
        make("unrolled", unroll_steps=1, d_steps=2, lr_g=1e-3, lr_d=1e-3),
    ):
        torch.manual_seed(3)
        trainer(max_steps=5).fit(module, plain())
        found.append((state(module), module.values))
    strip = lambda pair: ({k: v for k, v in pair[0].items() if k != "d_updates"}, pair[1])  # noqa: E731
    assert equal(strip(found[0]), strip(found[1])) and not equal(strip(found[0])[0], strip(found[2])[0])


def test_running_averages_do_not_move_while_unrolling() -> None:
    """Nor do those of the discriminator move in the generator's step at all."""
    module = make("unrolled", d_steps=1)
    module.discriminator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0))
    seen: list[int] = []
    norm: Any = module.discriminator[1]
    module.after_discriminator_step = lambda: seen.append(int(norm.num_batches_tracked))  # type: ignore[method-assign]
    trainer(max_steps=3).fit(module, plain())
    assert seen == [2, 4, 6]  # D's own step scores real and fake apart


def test_a_parameter_that_is_not_trained_is_not_unrolled() -> None:
    module = make("unrolled", d_steps=1)
    module.discriminator.layers[0].weight.requires_grad_(False)
    trainer(max_steps=1).fit(module, plain())
    assert "layers.0.weight" not in module._tensors()[0]  # type: ignore[operator]
    assert len(module._tensors()[0]) == 3  # type: ignore[operator]


def test_labels_reach_the_unrolled_discriminator() -> None:
    discriminator = ToyDiscriminator(width=4, depth=1, num_classes=3)
    x, labels = torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1])
    own = dict(discriminator.named_parameters())
    assert equal(score_with(discriminator, own, x, labels), score(discriminator, x, labels))
    doubled = {k: 2 * p for k, p in own.items()}
    assert not equal(score_with(discriminator, doubled, x, labels), score(discriminator, x, labels))


def test_more_fakes_than_real_samples() -> None:
    """Scored together or apart they give one value."""
    module, b = smooth(unroll_steps=2, g_batch_factor=2), batch()
    fake, found = module(torch.randn(10, 3, dtype=DOUBLE)), []
    for together in (True, False):
        module._joint = together
        found.append(float(module.generator_terms(b, fake)["adversarial"]))
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unroll_steps": -1}, "unroll_steps must be an integer >= 1, got -1"),
        ({"unroll_lr": 0.0}, "unroll_lr must be a finite number > 0, got 0.0"),
        ({"unroll_optimizer": "rmsprop"}, "unroll_optimizer must be one of sgd, adam, got 'rmsprop'"),
        ({"regularizers": [R1()]}, "regularizers must be empty with unroll_steps > 0"),
        ({"g_batch_factor": 2}, "g_batch_factor must be 1 with a conditional discriminator"),
    ],
)
def test_bad_settings(options: dict[str, Any], words: str) -> None:
    nets = ToyGenerator(latent_dim=3, width=4), ToyDiscriminator(width=4, num_classes=3)
    with pytest.raises(ValueError, match=words):
        UnrolledGAN(*nets, 3, **options)
