"""Robust optimal transport GAN (arXiv:2010.05862): its weights in closed form, the network's, and the discrete form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from common import doubles, equal, make, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import WGANGP, RobustWGAN
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MemoryLoader, tail_loader
from lightning_gans.datamodules.resampled import ResampledLoader
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import outlier_share, rho_for_share, robust, robust_weights
from lightning_gans.functional.losses import LOSSES
from lightning_gans.networks import ToyDiscriminator, ToyGenerator


def game(**options: Any) -> RobustWGAN:
    return make("robust_wgan", **options)  # type: ignore[return-value]


def discrete(**options: Any) -> RobustWGAN:
    return game(weight_network=None, **({"w_every": 1, "d_steps": 1} | options))


def mean(x: Tensor, base: Tensor | None = None) -> Tensor:
    return x.mean() if base is None else (base * x).sum() / base.sum()


# ---------------------------------------------------------------------- closed forms
def test_weights_where_none_is_zero() -> None:
    d, rho = doubles(500).clamp(-2, 2), 0.05
    w = robust_weights(d, rho)
    torch.testing.assert_close(w, 1 - math.sqrt(2 * rho) * (d - d.mean()) / d.std(correction=0), rtol=0, atol=1e-8)
    assert w.min() > 0 and float(w.mean()) == pytest.approx(1, abs=1e-12)
    assert float((w - 1).square().mean() / 2) == pytest.approx(rho, abs=1e-9)
    assert float((w * d).mean()) == pytest.approx(float(d.mean() - math.sqrt(2 * rho) * d.std(correction=0)), abs=1e-9)


@pytest.mark.parametrize("rho", [0.01, 0.3, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_are_those_that_a_solver_finds(rho: float, weighted: bool) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    d = doubles(12, seed=3)
    base = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) if weighted else None
    p = (torch.ones_like(d) if base is None else base).numpy()
    p, w = p / p.sum(), robust_weights(d, rho, base)
    constraints = [
        {"type": "eq", "fun": lambda x: p @ x - 1, "jac": lambda x: p},
        {"type": "ineq", "fun": lambda x: rho - p @ (x - 1) ** 2 / 2, "jac": lambda x: -p * (x - 1)},
    ]
    found = optimize.minimize(
        lambda x: p @ (x * d.numpy()), torch.ones(12).numpy(), jac=lambda x: p * d.numpy(), method="SLSQP",
        bounds=[(0, None)] * 12, constraints=constraints, options={"ftol": 1e-14, "maxiter": 1000},
    )  # fmt: skip
    assert w.min() >= 0 and float(mean(w, base)) == pytest.approx(1, abs=1e-12)
    assert float(mean((w - 1).square(), base) / 2) <= rho + 1e-9
    assert float(mean(w * d, base)) == pytest.approx(found.fun, abs=1e-6)
    if rho < 1:  # beyond, what weighs next to nothing under the expectation may weigh anything
        torch.testing.assert_close(w, torch.from_numpy(found.x), rtol=0, atol=1e-3)


def test_weights_are_those_that_a_conic_solver_finds() -> None:
    cp = pytest.importorskip("cvxpy")
    d, rho = doubles(40, seed=5), 0.4
    w = cp.Variable(40, nonneg=True)
    ball = cp.norm(w - 1) <= math.sqrt(2 * rho * 40)
    cp.Problem(cp.Minimize(w @ d.numpy()), [ball, cp.sum(w) == 40]).solve()
    torch.testing.assert_close(robust_weights(d, rho), torch.from_numpy(w.value), rtol=0, atol=1e-3)


def test_weights_fall_with_the_value() -> None:
    d = doubles(200, seed=2).sort().values
    w = robust_weights(d, 0.6)
    assert bool((w.diff() <= 0).all()) and 0 < int((w == 0).sum()) < 150
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(robust_weights(d[shuffled] * 3 + 7, 0.6), w[shuffled], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("rho", "left"), [(0.02, True), (0.0263, True), (0.02632, False), (0.5, False)])
def test_five_per_cent_are_dropped_from_their_rho_on(rho: float, left: bool) -> None:
    """95 samples at 0 and 5 at 10, as scored by f(x) = x."""
    d = torch.cat([torch.zeros(95), torch.full((5,), 10.0)]).double()
    w = robust_weights(d, rho)
    torch.testing.assert_close(w[:95], w[:1].expand(95))
    if left:
        a = 0.05
        torch.testing.assert_close(w[95:], torch.full((5,), 1 - math.sqrt(2 * rho * (1 - a) / a)).double())
    else:
        torch.testing.assert_close(w, torch.cat([torch.full((95,), 1 / 0.95), torch.zeros(5)]).double())


def test_equal_values_and_rho_zero_leave_the_weights_at_one() -> None:
    assert robust_weights(torch.full((7,), 0.1), 0.3).tolist() == [1.0] * 7
    torch.testing.assert_close(robust_weights(doubles(9), 0.0), torch.ones(9).double(), rtol=0, atol=1e-12)
    assert robust_weights(torch.tensor([3.0]), 1.0).tolist() == [1.0]
    assert robust_weights(torch.tensor([2.0, 1.0, 3.0]), 9.0).tolist() == [0.0, 3.0, 0.0]  # the ball holds all weights


def test_samples_that_have_no_share_get_none_and_small_shares_leave_weights_finite() -> None:
    values = torch.tensor([0.1, 0.1, 0.9, 0.1, 0.5, 0.0], dtype=torch.float64)
    base = torch.tensor([2.0, 2.0, 0.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    some, found = base > 0, robust_weights(values, 0.1, base)
    assert equal(found[some], robust_weights(values[some], 0.1, base[some])) and not found[~some].any()
    for row, shares, rho in (
        ([0.1, 0.3, 0.5, 0.5, 0.4, 0.8], [1e-18, 1e-18, 1.0, 2.0, 0.0, 1e-18], 0.606),
        ([0.9, 0.8, 1.0, 0.1, 1.0], [1.0, 1e-18, 1e-18, 1e-18, 1e-9], 0.562),
    ):
        w = robust_weights(torch.tensor(row, dtype=torch.float64), rho, torch.tensor(shares, dtype=torch.float64))
        assert w.isfinite().all() and (w >= 0).all()
    assert robust_weights(values.bfloat16(), 0.1).dtype == torch.float32


def test_divergence_is_of_the_weighted_mean() -> None:
    w, base = torch.tensor([1.5, 0.5, 3.0]), torch.tensor([1.0, 2.0, 0.0])
    assert float(robust.divergence(w, base)) == pytest.approx((0.25 + 2 * 0.25) / 3 / 2)


def test_rho_of_a_share() -> None:
    assert rho_for_share(0.05) == pytest.approx(0.0263158, abs=1e-6)
    assert rho_for_share(0.0) == 0 and rho_for_share(0.5) == 0.5


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_the_share_is_found_with_clean_samples(share: float) -> None:
    clean, data = doubles(20_000, seed=1), doubles(20_000, seed=2)
    data[: int(share * 20_000)] += 20
    assert abs(outlier_share(data, clean) - share) < 3 * math.sqrt(0.05 / 0.95 * 2 / 20_000)


def test_the_share_at_a_small_quantile_is_exact() -> None:
    clean, scores = torch.arange(4.0), torch.tensor([0.0, 1.0, 2.0, 9.0, 9.0, 9.0, 1.0, 0.0])
    assert outlier_share(scores, clean, 0.5) == pytest.approx((0.5 - 0.5) / 0.5 + 0.0)
    assert outlier_share(scores, clean, 0.75) == pytest.approx((3 / 8 - 0.25) / 0.75)
    scores = torch.cat([clean := torch.arange(100.0), torch.full((100,), 96.5)])
    assert outlier_share(scores, clean) == outlier_share(scores, clean, 0.95) == pytest.approx(0.5)
    assert outlier_share(scores, clean, 0.99) == 0


def test_softplus_weights_have_mean_one_under_the_base_weights() -> None:
    logits, base = doubles(9).requires_grad_(), torch.rand(9, dtype=torch.float64)
    w = robust.softplus_weights(logits, base)
    assert float((base * w).mean().detach()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(w / w[0], nn.functional.softplus(logits) / nn.functional.softplus(logits[0]))
    nothing = robust.softplus_weights(logits, torch.zeros(9))
    assert nothing.isfinite().all()
    far = robust.softplus_weights(torch.tensor([1.0, 3.0]).log() - 300)  # whose exponentials are 0 in float32
    torch.testing.assert_close(far, torch.tensor([0.5, 1.5]))
    for part in (None, base):
        slope = torch.autograd.grad(mean(robust.softplus_weights(logits, part), part), logits)[0]
        if part is None:
            assert float(slope.abs().max()) < 1e-12  # the mean is one, whatever the network


@pytest.mark.parametrize("loss", list(robust.VALUES))
def test_values_are_what_the_discriminators_loss_takes_of_a_real_sample(loss: str) -> None:
    f, w = doubles(6), torch.rand(6, dtype=torch.float64)
    nothing = torch.zeros(6, dtype=torch.float64)
    value = -LOSSES[loss].discriminator(f, f, real_weight=w, fake_weight=nothing)
    torch.testing.assert_close((w * robust.VALUES[loss](f)).mean(), value)


# ---------------------------------------------------------------------- the game
def double_batch(weights: Tensor | None = None) -> tuple[Batch, Tensor]:
    real, fake = doubles(2, 8, 2, seed=4)
    return Batch(real, None, weights, torch.zeros(8, 3)), fake


@pytest.mark.parametrize("loss", ["wasserstein", "non_saturating", "hinge"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_weight_is_outside_the_nonlinearity_and_held_fixed(loss: str, weighted: bool) -> None:
    base = torch.linspace(0.2, 1.8, 8, dtype=torch.float64) if weighted else None
    module, (batch, fake) = game(loss=loss).double(), double_batch(base)
    terms = module.discriminator_terms(batch, fake)
    f, g = module.discriminator(batch.real), module.discriminator(fake)
    v = 1.0 if base is None else base
    s = nn.functional.softplus(module.weight_network(batch.real)).detach()
    w = v * s / (v * s).mean()
    on_real, on_fake = {
        "wasserstein": (-f, g),
        "non_saturating": (nn.functional.softplus(-f), nn.functional.softplus(g)),
        "hinge": ((1 - f).relu(), (1 + g).relu()),
    }[loss]
    torch.testing.assert_close(terms["adversarial"], (w * on_real).mean() + on_fake.mean())
    terms["adversarial"].backward()
    assert all(p.grad is None for p in module.weight_network.parameters())


@pytest.mark.parametrize("weighted", [False, True])
def test_the_network_minimises_what_the_critic_maximises(weighted: bool) -> None:
    base = torch.linspace(0.2, 1.8, 8, dtype=torch.float64) if weighted else torch.ones(8, dtype=torch.float64)
    module, (batch, _) = game(rho=0.001).double(), double_batch(base if weighted else None)
    with torch.no_grad():
        for p in module.weight_network.parameters():
            p.mul_(4)
    terms = module.weight_terms(batch)
    w = module.weigh(batch)
    f = module.discriminator(batch.real).detach()
    torch.testing.assert_close(terms["value"], (base * w * f).mean())
    excess = (base * (w - 1).square()).mean() / 2 - 0.001
    assert excess > 0.001
    torch.testing.assert_close(terms["constraint"], 100 * excess)
    assert float(module.__class__.weight_terms(game(rho=50.0).double(), batch)["constraint"]) == 0
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in module.discriminator.parameters())
    assert all(p.grad is not None for p in module.weight_network.parameters())


def test_a_network_that_learns_alone_finds_the_optimal_weights() -> None:
    """Against a fixed critic, f(x) = x_1: what robust_weights finds on the one batch there is, but for Adam's noise.

    -0.56, where equal weights give -0.13.
    """
    x = doubles(64, 2, seed=6).float()
    torch.manual_seed(0)
    nets: list[Any] = [ToyGenerator(width=4, depth=1), First(), ToyDiscriminator(width=32, depth=2)]
    options: dict[str, Any] = {"w_start": 0, "d_steps": 1, "lr_g": 0.0, "lr_d": 0.0, "gp_weight": 0.0, "rho": 0.1}
    module = RobustWGAN(*nets[:2], 2, weight_network=nets[2], **options)
    module.players["w"].lr = 5e-3
    trainer(max_steps=300).fit(module, torch.utils.data.DataLoader(x.repeat(300, 1), 64))
    best = float((robust_weights(x[:, 0], 0.1) * x[:, 0]).mean())
    w = module.weigh(Batch(x, None, None, x)).detach()
    assert best - 0.03 < float((w * x[:, 0]).mean()) < best + 0.1
    assert 0.04 < float(robust.divergence(w)) < 0.12
    assert float(module.values["w/value"]) < float(x[:, 0].mean()) - 0.3


class First(nn.Module):
    """f(x) = x_1."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x[:, 0]


@pytest.mark.parametrize(("w_start", "w_every", "updates"), [(0, 1, 6), (0, 3, 2), (4, 1, 2), (6, 1, 0)])
@pytest.mark.parametrize("order", ["d_first", "g_first"])
def test_the_network_steps_once_a_cycle_when_it_is_due(w_start: int, w_every: int, updates: int, order: Any) -> None:
    module, done = game(w_start=w_start, w_every=w_every, d_steps=3, order=order), []
    terms = module.weight_terms
    module.weight_terms = lambda batch: (done.append(module.global_step), terms(batch))[1]  # type: ignore[method-assign]
    before = state(module.weight_network)
    trainer(max_steps=6).fit(module, plain())
    late = order == "g_first"  # there global_step is one ahead
    assert done == [step + late for step in range(6) if step >= w_start and step % w_every == 0]
    assert len(done) == updates and equal(before, state(module.weight_network)) == (not done)


def test_the_weight_network_has_the_settings_of_the_discriminator() -> None:
    players = game(rho=0.2, lr_d=3e-3, clip_grad_d=0.5).players
    assert (players["w"].lr, players["w"].clip) == (players["d"].lr, players["d"].clip) == (3e-3, 0.5)


@pytest.mark.parametrize("network", [None, ToyDiscriminator(width=8)])
def test_with_rho_zero_it_is_wgan_gp(network: nn.Module | None) -> None:
    """Bit for bit, with nothing built and no random number drawn."""
    nets = [(ToyGenerator(shape=(2,), latent_dim=3, width=8), ToyDiscriminator(shape=(2,), width=8)) for _ in "ab"]
    for a, b in zip(*nets, strict=True):
        b.load_state_dict(a.state_dict())
    same: dict[str, Any] = {"d_steps": 2, "lr_d": 1e-3, "lr_g": 1e-3, "betas": (0.0, 0.9)}
    reference, ours = WGANGP(*nets[0], 3, **same), RobustWGAN(*nets[1], 3, rho=0.0, weight_network=network, **same)
    assert not hasattr(ours, "weight_network") and list(ours.players) == ["d", "g"] and not ours.weighs_samples
    drawn = []
    for module in (reference, ours):
        torch.manual_seed(5)
        trainer(max_steps=6).fit(module, plain(batch_size=4))
        drawn.append(torch.get_rng_state())
    assert equal(state(reference), state(ours)) and equal(*drawn)
    assert equal(reference.run.noise.get_state(), ours.run.noise.get_state())


@pytest.mark.parametrize("form", [game, discrete])
def test_steps_as_cuda_graphs_see_the_weights_of_now(form: Any) -> None:
    """On a CPU the same code runs without recording."""
    found = []
    for graphs in (False, True):
        module = form(rho=0.2, cuda_graphs=graphs, lr_d=1e-2, d_steps=2, w_every=2)
        torch.manual_seed(3)
        trainer(max_steps=6).fit(module, MemoryLoader(doubles(40, 2).float(), None, 4))
        found.append(state(module))
    assert equal(*found)


@pytest.mark.parametrize("form", [game, discrete])
def test_the_weights_count_cycles(form: Any) -> None:
    """Of two generator updates each: every other one of six."""
    module, turns = form(rho=0.2, w_every=2, g_steps=2, d_steps=1), []
    module.set_sample_weights = lambda weights: turns.append(module.global_step)  # type: ignore[method-assign]
    weight_terms = module.weight_terms
    module.weight_terms = lambda batch: (turns.append(module.global_step), weight_terms(batch))[1]  # type: ignore[method-assign]
    trainer(max_steps=12).fit(module, MemoryLoader(doubles(40, 2).float(), None, 4))
    assert turns == [0, 4, 8]


def test_networks_with_labels_get_them() -> None:
    torch.manual_seed(0)
    x, labels = doubles(24, 2).float(), torch.arange(24) % 3
    generator = ToyGenerator(latent_dim=3, width=8, num_classes=3)
    for network in (ToyDiscriminator(width=8, num_classes=3), ToyDiscriminator(width=8), None):
        critic = ToyDiscriminator(width=8, num_classes=3)
        module = RobustWGAN(generator, critic, 3, weight_network=network, w_start=0, w_every=1)
        trainer(max_steps=2).fit(module, MemoryLoader(x, labels, 6))
        if network is None:
            assert module.sample_scores is not None and len(module.sample_scores) == 24


@pytest.mark.parametrize("weights", [None, "tails"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_mean_weight_is_one_for_every_sampler(weights: str | None, drop_last: bool) -> None:
    """Exactly, in each batch, short ones and those of stratified samplers included."""
    data = doubles(50, 2, seed=8).float()
    own = None if weights is None else torch.where(data[:, 0] > 1, 0.2, 1.3)
    module, seen = game(d_steps=1), []
    discriminator = module.loss.discriminator
    module.loss = module.loss._replace(
        discriminator=lambda *a, **weights: (seen.append(weights["real_weight"]), discriminator(*a, **weights))[1]
    )
    trainer(max_steps=8).fit(module, MemoryLoader(data, None, 8, weights=own, drop_last=drop_last))
    assert len(seen) == 8 and all(float(w.mean()) == pytest.approx(1, abs=1e-5) for w in seen)
    assert float(torch.stack([w[:2] for w in seen]).std()) > 0.01


# ---------------------------------------------------------------------- one weight for each sample
class Seen(list):
    """The weights of each batch of D's steps."""

    def __init__(self, module: RobustWGAN) -> None:
        terms = module.discriminator_terms
        module.discriminator_terms = lambda b, fake: (self.append((b.real, b.weights)), terms(b, fake))[1]  # type: ignore[method-assign]


@pytest.mark.parametrize("weighted", [False, True])
def test_each_sample_gets_the_optimal_weight_for_its_score(weighted: bool) -> None:
    data = doubles(42, 2, seed=9).float()  # two are left over in each epoch
    own = torch.linspace(0.5, 1.5, 42) if weighted else None
    module = discrete(rho=0.2, lr_d=0.0, w_start=2)
    loader, seen = MemoryLoader(data, None, 4, weights=own), Seen(module)
    trainer(max_steps=6).fit(module, loader)
    with torch.no_grad():
        best = robust_weights(module.discriminator(data), 0.2, own)
    torch.testing.assert_close(module.sample_weights, best, rtol=0, atol=1e-5)
    assert float((best - 1).abs().max()) > 0.1 and loader.factors is None  # given back
    for step, (real, weights) in enumerate(seen):
        rows = [int((data == x).all(1).nonzero()) for x in real]
        expected = torch.ones(4) if step < 3 else best[rows]  # the solution of step 2 is for the next batches
        torch.testing.assert_close(weights, expected if own is None else own[rows] * expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", ["resampled", "tails"])
def test_samplers_leave_scores_with_their_samples_and_the_mean_with_the_data(sampler: str) -> None:
    data, p = doubles(42, 2, seed=9).float(), torch.linspace(0.5, 1.5, 42)
    loader = ResampledLoader(MemoryLoader(data, None, 4), p)
    if sampler == "tails":
        loader = tail_loader(MemoryLoader(data, None, 4, weights=p), data[:, 0] > 1)
    module = discrete(rho=0.2, lr_d=0.0, w_start=0)
    trainer(max_steps=2).fit(module, loader)
    with torch.no_grad():
        best = robust_weights(module.discriminator(data), 0.2, p)
    torch.testing.assert_close(module.sample_weights, best, rtol=0, atol=1e-5)


def test_the_scores_are_averaged_over_the_updates_of_the_weights() -> None:
    data, momentum = doubles(40, 2, seed=9).float(), 0.7
    module, scores = discrete(rho=0.2, lr_d=0.05, momentum=momentum), []
    score_samples = module.score_samples

    def recorded(network: Any, m: float) -> Any:
        scores.append(module.discriminator(data).detach())
        return score_samples(network, m)

    module.score_samples = recorded  # type: ignore[method-assign]
    trainer(max_steps=4).fit(module, MemoryLoader(data, None, 4))
    average = scores[0]
    for found in scores[1:]:
        average = momentum * average + (1 - momentum) * found
    assert len(scores) == 4 and float((scores[0] - scores[-1]).abs().max()) > 0.05
    torch.testing.assert_close(module.sample_scores, average)
    torch.testing.assert_close(module.sample_weights, robust_weights(average, 0.2), rtol=0, atol=1e-4)


def test_augmentations_of_the_pass_over_the_data_take_nothing_from_training() -> None:
    """Nor does a dropout: with a ball so small that the weights stay at one, the game is WGAN-GP's."""
    data, jitter = doubles(40, 2).float(), lambda x, g: x + 0.1 * torch.rand(x.shape, generator=g)
    found = []
    for rho in (1e-30, 0.0):
        module = discrete(rho=rho)
        module.discriminator.layers.insert(1, nn.Dropout(0.2))
        torch.manual_seed(3)
        trainer(max_steps=5).fit(module, MemoryLoader(data, None, 4, transform=jitter))
        found.append((state(module), torch.get_rng_state()))
    assert equal(*found)


def test_the_weights_of_the_samples_are_resumed(tmp_path: Path) -> None:
    data = doubles(44, 2, seed=9).float()
    whole, first, rest = (discrete(rho=0.2, w_every=2, d_steps=3, lr_d=1e-2) for _ in range(3))
    torch.manual_seed(3)
    trainer(max_steps=9).fit(whole, MemoryLoader(data, None, 4))
    torch.manual_seed(3)
    half = trainer(max_steps=4)
    half.fit(first, MemoryLoader(data, None, 4))
    half.save_checkpoint(tmp_path / "d.ckpt")
    saved = torch.load(tmp_path / "d.ckpt", weights_only=True)
    assert len(saved["sample_weights"]) == len(saved["sample_scores"]) == 44
    torch.manual_seed(99)
    trainer(max_steps=9).fit(rest, MemoryLoader(data, None, 4), ckpt_path=tmp_path / "d.ckpt")
    assert equal(state(whole), state(rest)) and equal(whole.sample_weights, rest.sample_weights)
    assert float((whole.sample_weights - 1).abs().max()) > 0.1  # type: ignore[operator]


class Of(pl.LightningDataModule):
    """Data of a name, of which all have as many items."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__()
        self.name, self.data = name, doubles(44, 2, seed=seed).float()

    def train_dataloader(self) -> MemoryLoader:
        return MemoryLoader(self.data, None, 4)


class Begins(pl.Callback):
    """Whether the weights of the samples are one where an update begins."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.found.append(bool((pl_module.sample_weights == 1).all()) and pl_module.sample_scores is None)


def test_weights_of_other_data_are_dropped(tmp_path: Path) -> None:
    """Of as many items: in a new run, and where one goes on with them; not where a trainer goes on."""
    module, again = (discrete(rho=0.2, w_every=2, d_steps=3, lr_d=1e-2) for _ in range(2))
    begins = Begins()
    first = trainer(max_steps=3, callbacks=[begins])
    first.fit(module, datamodule=Of("first", 9))
    first.save_checkpoint(tmp_path / "d.ckpt")
    first.fit_loop.epoch_loop.max_steps = 4
    first.fit(module, datamodule=Of("first", 9))
    assert begins.found == [True, False, False, False]
    with pytest.warns(UserWarning, match="other data, second"):
        trainer(max_steps=4, callbacks=[begins]).fit(again, datamodule=Of("second", 10), ckpt_path=tmp_path / "d.ckpt")
    trainer(max_steps=1, callbacks=[begins]).fit(module, datamodule=Of("second", 10))
    assert begins.found[4:] == [True, True]


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -0.1}, "rho must be a finite number >= 0, got -0.1"),
        ({"rho": math.inf}, "rho must be"),
        ({"loss": "minimax"}, "loss must be one of wasserstein, non_saturating, hinge, got 'minimax'"),
        ({"constraint_weight": 0.0}, "constraint_weight must be a finite number > 0"),
        ({"w_every": 0}, "w_every must be an integer >= 1, got 0"),
        ({"w_start": -1}, "w_start must be an integer >= 0, got -1"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        game(**options)


def test_the_discrete_form_needs_data_in_memory() -> None:
    module = discrete()
    with pytest.raises(ValueError, match="training data must be in a MemoryLoader, got a DataLoader"):
        trainer(max_steps=1).fit(module, plain())
    assert module.global_step == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rho_for_share(1.0), r"share must be in \[0, 1\), got 1.0"),
        (lambda: outlier_share(torch.ones(2), torch.ones(2), 1.0), r"level must be in \(0, 1\), got 1.0"),
        (lambda: outlier_share(torch.ones(2), torch.ones(0)), "clean must have at least one score, got none"),
        (lambda: robust_weights(torch.ones(0), 0.1), r"values must be a number per sample, \(N,\), got shape \(0,\)"),
        (lambda: robust_weights(torch.ones(2), 0.1, torch.ones(3)), r"base must be one weight per value, \(2,\)"),
        (lambda: robust_weights(torch.ones(2), -1.0), "rho must be a finite number >= 0, got -1.0"),
    ],
)
def test_bad_arguments_of_the_functions(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
