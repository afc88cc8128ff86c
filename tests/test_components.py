"""Small components that the sources name: closed forms, and what each is for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import doubles, make, plain, trainer
from torch import Tensor, nn

from lightning_gans import GAN
from lightning_gans.diagnostics import commentary_weights
from lightning_gans.functional.commentaries import hypergradient
from lightning_gans.functional.consistency import relic_term
from lightning_gans.functional.preference import preference_loss
from lightning_gans.functional.sinkhorn import sinkhorn_codes
from lightning_gans.metrics import prototype_counts
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import ConsistencyTerm
from lightning_gans.regularizers.permutation import PermutationTerm
from lightning_gans.regularizers.reward import Reward
from lightning_gans.wrappers import Packed


# ---------------------------------------------------------------------- Sinkhorn codes
def test_codes_are_balanced_whatever_the_scores() -> None:
    scores = doubles(24, 6).tanh()
    codes = sinkhorn_codes(scores, 0.05, 1e-9)
    torch.testing.assert_close(codes.sum(1), torch.ones(24).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(codes.sum(0), torch.full((6,), 4.0).double(), rtol=1e-8, atol=0)
    torch.testing.assert_close(sinkhorn_codes(torch.zeros(5, 3)), torch.full((5, 3), 1 / 3))
    # what is of rank one, u_i v_j, is all that the iteration changes
    ratio = codes.log() - scores / 0.05
    assert float((ratio - ratio[:, :1] - ratio[:1] + ratio[:1, :1]).abs().max()) < 1e-9
    few = sinkhorn_codes(scores, 0.05, 1e-9, most=3).sum(0)
    assert float((few / 4 - 1).abs().max()) > 0.02  # three are not enough


def ring(n: int, modes: int, seed: int) -> Tensor:
    own = torch.Generator().manual_seed(seed)
    angle = torch.randint(modes, (n,), generator=own) * torch.pi / 4
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.04 * torch.randn(n, 2, generator=own)


@pytest.mark.parametrize("modes", [8, 5, 1])
def test_modes_are_counted_without_labels(modes: int) -> None:
    counts = prototype_counts(ring(400, modes, 1), ring(600, 8, 0))
    assert counts.found == modes and float(counts.shares.sum()) == pytest.approx(1)


# ---------------------------------------------------------------------- ReLIC
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_modes_do_not_depend_on_the_unit_of_features(scale: float) -> None:
    """Nor the line between prototypes, of which modes of 10, 20 and 30 make three even ones."""
    real = torch.tensor([0.0] * 10 + [5.0] * 20 + [7.0] * 30)[:, None]
    line = torch.linspace(-1, 8, 91)[:, None]
    found, same = prototype_counts(line, real, 3), prototype_counts(scale * line, scale * real, 3)
    assert same.found == found.found and torch.equal(same.shares, found.shares)


def test_relic_by_hand_and_without_a_gradient_in_its_reference() -> None:
    class Two(nn.Module):
        """The second half of a batch is seen otherwise."""

        def __init__(self) -> None:
            super().__init__()
            self.turn, self.last = nn.Parameter(torch.tensor(0.3).double()), nn.Linear(2, 1).double()

        def forward(self, x: Tensor) -> Tensor:
            one, two = x.chunk(2)
            c, s = self.turn.cos(), self.turn.sin()
            return self.last(torch.cat([one, two @ torch.stack([torch.stack([c, s]), torch.stack([-s, c])])]))

    net, x = Two(), doubles(3, 2)
    a = torch.nn.functional.normalize(x, dim=1)
    b = a @ torch.tensor([[torch.cos(net.turn), torch.sin(net.turn)], [-torch.sin(net.turn), torch.cos(net.turn)]])
    b = b.detach()
    p, q = ((u @ v.T / 0.5).softmax(1) for u, v in ((a, b), (b, a)))
    contrast = -(p.diagonal().log() + q.diagonal().log()).mean() / 2
    known = contrast + 2 * (p * (p / q).log()).sum(1).mean()
    found = relic_term(net, x, None, 0.5, 2.0)
    assert found.item() == pytest.approx(float(known), rel=1e-6)
    both = [torch.autograd.grad(relic_term(net, x, None, 0.5, alpha), net.turn)[0] for alpha in (0.0, 2.0)]
    turn = net.turn.detach().clone().requires_grad_()
    moved = a @ torch.stack([torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])])
    kl = 2 * (p * (p / (moved @ a.T / 0.5).softmax(1)).log()).sum(1).mean()
    assert float(both[1] - both[0]) == pytest.approx(float(torch.autograd.grad(kl, turn)[0]), rel=1e-6)


def test_relic_is_a_kind_of_the_consistency_term() -> None:
    net = ToyDiscriminator((2,), 8, 1)
    net.layers.insert(0, nn.Dropout(0.3))
    module = GAN(ToyGenerator((2,), 3, 8, 1), net, 3, regularizers=[ConsistencyTerm(kind="relic")])
    trainer(max_steps=2).fit(module, plain())
    assert float(module.values["d/consistency"]) > 0
    batch: Any = SimpleNamespace(real=doubles(4, 2), labels=None, generator=None)
    with pytest.raises(ValueError, match=r"relic needs a discriminator with a torch\.nn\.Linear layer"):
        ConsistencyTerm(kind="relic")(nn.Flatten(0), SimpleNamespace(**vars(batch) | {"real": doubles(4, 1)}), None)  # type: ignore[arg-type]
    for options, words in (
        ({"kind": "other"}, "kind must be one of distance, relic, got 'other'"),
        ({"kind": "relic", "margin": 1.0}, r"margin must be 0\.0 with kind='relic', got 1\.0"),
        ({"kind": "relic", "feature_weight": 5.0}, r"feature_weight must be 0\.1 with kind='relic', got 5\.0"),
        ({"temperature": 0.0}, "temperature must be a finite number > 0"),
    ):
        with pytest.raises(ValueError, match=words):
            ConsistencyTerm(**options)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- SIRE
class First(nn.Module):
    """Of a pack's members in two dimensions the weighted sum of their first coordinates."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights).double())

    def forward(self, pack: Tensor) -> Tensor:
        return pack[:, ::2] @ self.weights


def test_a_pack_has_one_score_and_the_term_is_the_square_of_a_swap() -> None:
    x = doubles(6, 2)
    packed = Packed(First(1.0, 3.0), 2)
    scores = packed(x)
    torch.testing.assert_close(scores[:3], x[:3, 0] + 3 * x[3:, 0])
    assert torch.equal(scores[:3], scores[3:]) and packed(x[:5]).shape == (5,)
    torch.testing.assert_close(packed(x[:5]), (x[:3, 0] + 3 * x[[3, 4, 0], 0]).repeat(2)[:5])  # filled by the first row
    batch: Any = SimpleNamespace(real=x, labels=None, generator=None)
    term = PermutationTerm()(packed, batch, x)
    assert term.item() == pytest.approx(float((2 * (x[3:, 0] - x[:3, 0])).square().mean()), rel=1e-12)
    assert float(PermutationTerm()(Packed(First(2.0, 2.0, 2.0), 3), batch, x)) < 1e-24  # invariant by its form


def test_a_game_of_packs_with_the_term_is_played_and_the_order_matters_less() -> None:
    swaps = []
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        term = [PermutationTerm(weight)]
        net = Packed(ToyDiscriminator((4,), 16, 1), 2)
        module = GAN(ToyGenerator((2,), 3, 8, 1), net, 3, regularizers=term, lr_d=5e-3)
        trainer(max_steps=30).fit(module, plain(batch_size=16))
        x = doubles(200, 2).float()
        swaps.append(float(PermutationTerm()(net, SimpleNamespace(real=x, labels=None, generator=None), x)))  # type: ignore[arg-type]
    assert swaps[1] < 0.3 * swaps[0]
    with pytest.raises(
        ValueError, match=r"PermutationTerm needs a discriminator in wrappers\.Packed, of size >= 2, got"
    ):
        make("gan", regularizers=[PermutationTerm()])


# ---------------------------------------------------------------------- commentaries
A = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)


def test_the_hypergradient_of_a_quadratic() -> None:
    """Of |theta - phi|_A^2 / 2 and |theta - t|^2 / 2 at theta* = phi it tends to theta - t, from one step's."""
    theta, phi, t = doubles(2).requires_grad_(), doubles(2).requires_grad_(), doubles(2, seed=1)
    found = []
    for terms in (0, 1, 200):
        d = theta - phi
        inner, outer = d @ A @ d / 2, (theta - t).square().sum() / 2
        found.append(hypergradient(inner, outer, [theta], phi, 0.5, terms))
    g = (theta - t).detach()
    torch.testing.assert_close(found[0], 0.5 * A @ g)  # of theta - 0.5 A (theta - phi)
    torch.testing.assert_close(found[1], 0.5 * A @ (2 * g - 0.5 * A @ g))
    torch.testing.assert_close(found[2], g)


def test_outliers_get_less_weight_than_clean_items() -> None:
    own = torch.Generator().manual_seed(0)
    near, far = torch.randn(450, 2, generator=own), torch.tensor([6.0, 0.0]) + 0.3 * torch.randn(50, 2, generator=own)
    fakes = torch.tensor([4.0, 0.0]) + 2 * torch.randn(400, 2, generator=own)
    torch.manual_seed(0)
    net = ToyDiscriminator((2,), 16, 1)
    before = [p.clone() for p in net.parameters()]
    weights = commentary_weights(net, torch.cat([near, far]), torch.randn(200, 2, generator=own), fakes, steps=100)
    assert weights.shape == (500,) and float(weights.mean()) == pytest.approx(1, rel=1e-5)
    assert float(weights[450:].mean()) < 0.6 < 0.9 < float(weights[:450].mean())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))


def test_parameters_that_a_discriminator_does_not_use_have_no_part() -> None:
    own = torch.Generator().manual_seed(0)
    x, clean, fakes = (torch.randn(n, 2, generator=own) for n in (40, 20, 40))
    found = []
    for extra in (False, True):
        torch.manual_seed(0)
        net = ToyDiscriminator((2,), 8, 1)
        if extra:
            net.spare = nn.Parameter(torch.ones(3))  # type: ignore[assignment]
        found.append(commentary_weights(net, x, clean, fakes, steps=3))
    assert torch.equal(*found)
    theta, frozen, phi = doubles(2).requires_grad_(), doubles(2), doubles(2).requires_grad_()
    losses = lambda: ((theta - phi).square().sum() / 2, theta.sum() + frozen.sum())  # noqa: E731
    both = hypergradient(*losses(), [theta, frozen, doubles(1).requires_grad_()], phi, 0.5, 2)
    torch.testing.assert_close(both, hypergradient(*losses(), [theta], phi, 0.5, 2))
    for apart in (theta.sum(), theta.square().sum()):
        assert torch.equal(hypergradient(apart + phi.sum(), theta.sum(), [theta], phi, 0.5), torch.zeros_like(phi))
    with pytest.raises(ValueError, match="inner must depend on one of the parameters at least, got a loss that"):
        hypergradient(phi.sum(), theta.sum(), [theta], phi, 0.5)


# ---------------------------------------------------------------------- preferences
def test_a_reward_learned_from_preferences_moves_the_known_factor_and_the_anchor_holds() -> None:
    """Who likes points to the right: sigma(difference of the first coordinates / .2)."""
    own, reward = torch.Generator().manual_seed(0), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    pairs = torch.randn(2, 600, 2, generator=own)
    swap = torch.rand(600, generator=own) > ((pairs[0] - pairs[1])[:, 0] / 0.2).sigmoid()
    won, lost = (torch.where(swap[:, None], b, a) for a, b in (pairs, pairs.flip(0)))
    optimizer = torch.optim.Adam(reward.parameters(), 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        preference_loss(reward(won), reward(lost)).backward()
        optimizer.step()
    slope = next(reward.parameters()).detach()[0]
    assert float(slope[0]) > 3 > 10 * abs(float(slope[1]))
    moved = []
    for beta in (0.0, 100.0):
        torch.manual_seed(0)
        generator = ToyGenerator((2,), 3, 16, 1)
        term = Reward(reward, generator, beta=beta)
        module = GAN(generator, ToyDiscriminator((2,), 16, 1), 3, regularizers=[term], lr_g=5e-3)
        start = module.sample(500, seed=0)[:, 0].mean()
        trainer(max_steps=40).fit(module, plain(batch_size=32))
        moved.append(float(module.sample(500, seed=0)[:, 0].mean() - start))
    assert moved[0] > 1 > 0.3 > abs(moved[1])
    assert not any(p.requires_grad for p in term.reward.parameters()) and reward[0].weight.requires_grad


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_reward_in_other_precisions(precision: Any) -> None:
    torch.manual_seed(0)
    generator, told = ToyGenerator((2,), 3, 8, 1), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    term = Reward(told, generator)
    module = GAN(generator, ToyDiscriminator((2,), 8, 1), 3, regularizers=[term])
    trainer(max_steps=2, precision=precision).fit(module, plain())
    wide = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for net in (term.reward, term.anchor) for p in net.parameters()} == {wide}


def test_packs_are_scored_apart_also_by_a_head_that_begins_at_zero() -> None:
    """Its scores are the same in one pass as in two on the first batch alone: packs of both have no gradient."""
    for bias in (0.0, 0.7):
        torch.manual_seed(0)
        net = ToyDiscriminator((4,), 16, 1)
        with torch.no_grad():
            net.layers[-1].weight.zero_()
            net.layers[-1].bias.fill_(bias)
        module = GAN(ToyGenerator((2,), 3, 8, 1), Packed(net, 2), 3)
        trainer(max_steps=2).fit(module, plain(batch_size=16))
        assert not module._joint and float(net.layers[-1].weight.abs().max()) > 0
        with torch.no_grad():
            net.layers[-1].weight.zero_()
        module = GAN(ToyGenerator((4,), 3, 8, 1), net, 3)
        trainer(max_steps=1).fit(module, plain(batch_size=16, shape=(4,)))
        assert module._joint  # without packs one pass serves for two, as after a resume


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sinkhorn_codes(torch.zeros(3)), r"scores must be \(N, K\) and not empty, got \(3,\)"),
        (lambda: sinkhorn_codes(torch.zeros(3, 2), 0.0), "epsilon must be a finite number > 0"),
        (
            lambda: prototype_counts(torch.ones(3, 1), torch.ones(3, 1)),
            "prototypes must be at most 3, the number of re",
        ),
        (lambda: prototype_counts(torch.ones(3, 2), torch.ones(9, 1)), r"samples and real must be \(M, F\) and \(N, F"),
        (lambda: Packed(nn.Flatten(0), 0), "size must be an integer >= 1, got 0"),
        (lambda: Reward(nn.Flatten(0), nn.Identity(), beta=-1), "beta must be a finite number >= 0, got -1"),
        (lambda: hypergradient(A[0], A[0], [A], A, 0.0), "rate must be a finite number > 0, got 0"),
        (lambda: hypergradient(A[0], A[0], [A], A, 0.1, -1), "terms must be an integer >= 0, got -1"),
    ],
)
def test_bad_input(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
