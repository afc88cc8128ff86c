"""The adversarial Lipschitz penalty (arXiv:1907.05681)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gans import WGANALP
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.penalties import gradient_norm
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import AdversarialLipschitzPenalty


class Linear(nn.Module):
    """f = w . x"""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


class Square(nn.Module):
    """f = a ||x||^2"""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.square().sum(1)


def at(x: Tensor, seed: int = 0) -> Batch:
    return Batch(x, None, None, torch.zeros(len(x), 2), torch.Generator().manual_seed(seed))


X = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("w", "expected"), [((1.0, 2.0, 2.0), 4.0), ((0.1, 0.2, 0.2), 0.0)])
def test_linear_critic(w: tuple[float, ...], expected: float) -> None:
    """d = +-w / ||w||, so the quotient is ||w|| for every pair: max(0, ||w|| - 1)^2, with its gradient."""
    critic = Linear(*w)
    term = AdversarialLipschitzPenalty(clip=None)(critic, at(X), X.flip(0))
    assert term.item() == pytest.approx(expected, abs=1e-10)
    norm = critic.w.detach().norm()
    slope = 2 * (norm - 1).clamp_min(0) * critic.w.detach() / norm
    torch.testing.assert_close(torch.autograd.grad(term, critic.w)[0], slope)


def test_quadratic_critic_at_the_origin() -> None:
    """|f(r) - f(0)| / ||r|| = eps, in whatever direction."""
    zero = torch.zeros(4, 3, dtype=torch.float64)
    term = AdversarialLipschitzPenalty(clip=None, epsilon=(2.5, 2.5))(Square(), at(zero), zero)
    assert term.item() == pytest.approx((2.5 - 1) ** 2, abs=1e-10)


def test_never_more_than_the_lipschitz_constant_allows() -> None:
    torch.manual_seed(0)
    critic = ToyDiscriminator(shape=(3,), width=16).double()
    bound = 1.0
    for layer in critic.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.8)
            bound *= float(torch.linalg.matrix_norm(layer.weight, 2))
    term = AdversarialLipschitzPenalty(clip=None)(critic, at(X), X.flip(0)).item()
    assert 0 < term <= (bound - 1) ** 2


def test_the_search_finds_steeper_pairs_than_chance() -> None:
    torch.manual_seed(0)
    critic, x = Linear(*([3.0] + [0.0] * 19)), torch.zeros(64, 20, dtype=torch.float64)
    found = AdversarialLipschitzPenalty(clip=None, target=0.0)(critic, at(x), x).item()
    direction = torch.nn.functional.normalize(torch.rand(128, 20, dtype=torch.float64) - 0.5)
    assert found == pytest.approx(9.0) and (direction @ critic.w).square().mean() < 2


def test_clipped_and_dead_points_are_finite() -> None:
    """Points at the corner of the range have nowhere to go; a dead critic has no direction."""
    corner = torch.ones(4, 3, dtype=torch.float64)
    critic = Linear(1.0, 2.0, 2.0)
    for seed in range(4):
        term = AdversarialLipschitzPenalty()(critic, at(corner, seed), -corner)
        assert 0 <= term.item() <= 4 and torch.autograd.grad(term, critic.w)[0].isfinite().all()
    dead = Linear(0.0, 0.0, 0.0)
    term = AdversarialLipschitzPenalty(clip=None)(dead, at(X), X)
    assert term.item() == 0 and torch.autograd.grad(term, dead.w)[0].isfinite().all()


def test_no_gradient_reaches_the_generator_and_no_grad_is_left() -> None:
    generator = ToyGenerator(shape=(3,), latent_dim=2, width=4).double()
    module = WGANALP(generator, ToyDiscriminator(shape=(3,), width=8).double(), 2, clip=None)
    fake = generator(torch.randn(16, 2, dtype=torch.float64))
    term = module.discriminator_terms(at(X), fake)["adversarial_lipschitz"]
    assert all(g is None for g in torch.autograd.grad(term, list(generator.parameters()), allow_unused=True))
    assert all(p.grad is None for p in module.parameters())


def test_it_keeps_a_critic_lipschitz() -> None:
    """A critic that gains from any slope: with the penalty its slopes end near 1, without it they go on growing."""
    slopes = {}
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        critic = ToyDiscriminator(shape=(3,), width=32, depth=2).double()
        penalty, optimizer = AdversarialLipschitzPenalty(weight, clip=None), torch.optim.Adam(critic.parameters(), 1e-2)
        for step in range(150):
            fake = X + torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
            loss = critic(fake).mean() - critic(X).mean() + weight * penalty(critic, at(X, step), fake)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        slopes[weight] = float(gradient_norm(critic, X, create_graph=False).mean())
    assert slopes[10.0] < 2 and slopes[0.0] > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": -1.0}, "target must be"),
        ({"epsilon": (0.0, 1.0)}, "epsilon must be 0 < least <= most"),
        ({"epsilon": (2.0, 1.0)}, "epsilon must be 0 < least <= most"),
        ({"xi": 0.0}, "xi must be a finite number > 0"),
        ({"clip": (1.0, -1.0)}, "clip must be \\(low, high\\) with low < high"),
        ({"power_iterations": 0}, "power_iterations must be an integer >= 1"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialLipschitzPenalty(**options)


class Ramp(nn.Module):
    """f = 3 max(0, x_0)"""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x[:, 0].relu()


@pytest.mark.parametrize("flip", [False, True])
def test_pairs_start_at_real_and_at_fake_samples(flip: bool) -> None:
    """Slope 3 around one half of the points, 0 around the other: ((3 - 1)^2 + 0) / 2."""
    flat, steep = (torch.full((8, 2), level, dtype=torch.float64) for level in (-5.0, 5.0))
    real, fake = (steep, flat) if flip else (flat, steep)
    term = AdversarialLipschitzPenalty(clip=None, epsilon=(0.1, 0.2), xi=0.1)(Ramp(), at(real), fake)
    assert term.item() == pytest.approx(2.0, abs=1e-10)


def test_the_technique_has_the_penalty_by_its_values() -> None:
    nets = ToyGenerator(shape=(3,), latent_dim=2, width=4).double(), ToyDiscriminator(shape=(3,), width=4).double()
    for options in ({}, {"epsilon": (0.2, 0.3), "xi": 0.5, "clip": None}):
        module: Any = WGANALP(*nets, 2, alp_weight=3.0, **options)  # type: ignore[arg-type]
        term = module.discriminator_terms(at(X), X + 1)["adversarial_lipschitz"]
        expected = AdversarialLipschitzPenalty(3.0, **options)(nets[1], at(X), X + 1)  # type: ignore[arg-type]
        assert float(term) == 3.0 * float(expected) > 0


def test_the_loss_that_older_checkpoints_name() -> None:
    nets = ToyGenerator(shape=(3,), latent_dim=2, width=4), ToyDiscriminator(shape=(3,), width=4)
    with pytest.warns(DeprecationWarning, match='"minimax" for "wasserstein"'):
        assert WGANALP(*nets, 2, loss="minimax").wasserstein
