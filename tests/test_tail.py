"""Tail importance sampling: shares, weights that keep every expectation, and whatever the tail is said to be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, state, trainer
from torch import Generator, Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_gans import datamodules
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import (
    Classes,
    Digits,
    FreshLoader,
    LowDensity,
    MemoryLoader,
    Quantile,
    RareTail1D,
    Ring,
    TailSampled,
    TailSampler,
    Threshold,
    memory,
    tail_loader,
)
from lightning_gans.datamodules.resampled import ResampledLoader
from lightning_gans.functional import residual, stratum_weights, uniform_of

N, TAIL = 1000, 30  # items, and how many of them are the tail
DATA = torch.arange(float(N))[:, None]
DEFINITION = Threshold(N - TAIL - 0.5)


def as_processes(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    for module in (memory, datamodules.tail):
        monkeypatch.setattr(module, "rank_and_world", lambda: (rank, world))


def memory_loader(batch_size: int = 40) -> Any:
    return MemoryLoader(DATA, None, batch_size)


def plain_loader(batch_size: int = 40) -> Any:
    return DataLoader(TensorDataset(DATA, torch.arange(N)), batch_size, shuffle=True)


def fresh_loader(batch_size: int = 40) -> Any:
    return FreshLoader(lambda n, g: torch.rand(n, 1, generator=g) * N, batch_size, 25)


LOADERS: dict[str, Callable[..., Any]] = {"memory": memory_loader, "plain": plain_loader, "fresh": fresh_loader}
all_loaders = pytest.mark.parametrize("kind", LOADERS)


def epochs(loader: Any, n: int) -> tuple[Tensor, Tensor]:
    """Items and weights of each batch: (batches, batch size) twice."""
    batches = [batch for _ in range(n) for batch in loader]
    return torch.stack([real[:, 0] for real, _, _ in batches]), torch.stack([w for _, _, w in batches])


# ---------------------------------------------------------------------- weights
def test_weights_of_the_two_sides() -> None:
    """pi = .01 in half of a batch; a mixture's p = .9 in half of it."""
    assert stratum_weights(0.01, 0.5) == pytest.approx((0.02, 1.98), abs=1e-12)
    assert stratum_weights(0.9, 0.5) == pytest.approx((1.8, 0.2), abs=1e-12)
    for mass, share in ((0.01, 0.3), (0.9, 0.7)):
        a, b = stratum_weights(mass, share)
        assert share * a + (1 - share) * b == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        stratum_weights(0.5, 1)


def test_residual_of_a_mixture() -> None:
    """Uniform data on four points, G on the first two only, p = .4: what is left sums to .6 before it is normalised."""
    target, fixed = torch.full((4,), 0.25).double(), torch.tensor([0.5, 0.5, 0, 0]).double()
    rest = residual(target, fixed, 0.4)
    assert float((0.6 * rest).sum()) == pytest.approx(0.6, abs=1e-12)
    torch.testing.assert_close(0.4 * fixed + 0.6 * rest, target)
    assert residual(target, fixed, 0.8)[:2].tolist() == [0, 0]  # more of G than there are data
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\), got 1"):
        residual(target, fixed, 1)


def test_uniform_of_noise_is_uniform_and_tells_nothing_of_it() -> None:
    z = torch.randn(40_000, 2, generator=Generator().manual_seed(0))
    u = uniform_of(z)
    assert float(u.min()) >= 0 and float(u.max()) < 1
    bins = torch.histc(u, 20, 0, 1) / len(u)
    assert float((bins - 0.05).abs().max()) < 4 * (0.05 * 0.95 / len(u)) ** 0.5
    for v in (z[:, 0], z[:, 1], z.norm(dim=1), (z * 1000).frac()[:, 0]):
        assert abs(float(torch.corrcoef(torch.stack([u, v]))[0, 1])) < 4 / len(u) ** 0.5
    torch.testing.assert_close(uniform_of(z.flip(0)).flip(0), u, rtol=0, atol=0)  # row by row
    assert not torch.equal(uniform_of(z.flip(1)), u) and len(u.unique()) > 39_990


# ---------------------------------------------------------------------- batches
@all_loaders
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_the_tail_has_its_share_and_the_weights_mean_one(kind: str, share: float) -> None:
    loader = tail_loader(LOADERS[kind](), DEFINITION, share)
    items, weights = epochs(loader, 1)
    assert items.shape == (25, 40) and len(loader) == 25
    tail = DEFINITION(items.view(-1, 1), None).view_as(items)
    assert (tail.sum(1) == 40 * share).all()
    torch.testing.assert_close(weights.mean(1), torch.ones(25))
    expected = TAIL / N / share
    assert weights[tail].tolist() == pytest.approx([expected] * int(tail.sum()), rel=0 if kind != "fresh" else 0.2,
                                                   abs=1e-6)  # fmt: skip
    assert not torch.equal(tail[0], tail[1])  # in random places


@all_loaders
def test_every_expectation_is_kept(kind: str) -> None:
    """Means of weight * f over many batches, against those of the plain data, within three standard errors."""
    items, weights = epochs(tail_loader(LOADERS[kind](), DEFINITION), 20)
    x = items.double() / N
    truth = DATA[:, 0].double() / N if kind != "fresh" else (torch.arange(10**5).double() + 0.5) / 10**5
    for f in (lambda x: x, lambda x: x.square(), lambda x: (x > 0.99).double(), lambda x: (7 * x).cos()):
        means = (weights * f(x)).mean(1)
        error = float(means.std()) / len(means) ** 0.5
        assert abs(float(means.mean() - f(truth).mean())) < 3 * error + 1e-7, error
        assert abs(float(f(x).mean() - f(truth).mean())) > 10 * error  # and the weights are needed for that


def test_the_tails_term_has_less_variance() -> None:
    """Of the mean of 1(tail) g over a batch, g of variance 1: pi / B drawn plainly, pi^2 / (tau B) here.

    The latter is 7/8 of that, since the 25 items of the tail in a batch are different ones of 200.
    """
    torch.manual_seed(0)
    g, mass, batch = torch.randn(20_000, 1), 0.01, 50
    mask = torch.zeros(20_000, dtype=torch.bool)
    mask[:200] = True
    g[:200] = (g[:200] - g[:200].mean()) / g[:200].std(correction=0)
    g[200:] += 100.0
    items, weights = epochs(tail_loader(MemoryLoader(g, None, batch), lambda data, labels: data[:, 0] < 50), 12)
    term = (weights * items * (items < 50)).mean(1)
    plain_term = torch.stack(
        [(b[:, 0] * (b[:, 0] < 50)).mean() for _ in range(12) for b in MemoryLoader(g, None, batch)]
    )
    assert float(plain_term.var()) == pytest.approx(mass / batch, rel=0.12)
    assert float(term.var()) == pytest.approx(mass**2 / (0.5 * batch) * 7 / 8, rel=0.12)


def test_every_item_comes_up_equally_often() -> None:
    items, _ = epochs(tail_loader(memory_loader(), DEFINITION), 3)
    counts = torch.bincount(items.flatten().long(), minlength=N)
    assert counts[-TAIL:].min() >= 48 and counts[-TAIL:].max() <= 51  # 500 an epoch of 30 items: 16 or 17 of each
    assert counts[:-TAIL].max() <= 3 and int(counts[:-TAIL].sum()) == 1500  # 500 an epoch of 970: none twice


@pytest.mark.parametrize("kind", ["memory", "fresh"])  # Lightning hands a sampler's indices out
@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_one_global_batch(monkeypatch: pytest.MonkeyPatch, kind: str, world: int) -> None:
    """W processes of batch B see what one of batch W B does, weights included, which are global."""
    torch.manual_seed(3)
    one = epochs(tail_loader(LOADERS[kind](48), DEFINITION, 0.3), 1)
    parts = []
    for rank in range(world):
        as_processes(monkeypatch, rank, world)
        torch.manual_seed(3)
        parts.append(epochs(tail_loader(LOADERS[kind](48 // world), DEFINITION, 0.3), 1))
    for whole, columns in zip(one, zip(*parts)):
        torch.testing.assert_close(torch.stack(columns, 2).flatten(1), whole, rtol=0, atol=0)
    for _, weights in parts:
        assert weights.shape[1] == 48 // world


def test_a_sampler_deals_in_global_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    as_processes(monkeypatch, 0, 4)
    sampler = TailSampler(DATA[:, 0] >= N - TAIL, 0.5, 10)
    index = torch.tensor(list(sampler)).view(25, 40)
    assert len(sampler) == N and ((index >= N - TAIL).sum(1) == 20).all()
    torch.testing.assert_close(sampler.weights[index].mean(1), torch.ones(25))


def test_labels_and_given_weights_stay_with_their_items() -> None:
    loader = tail_loader(MemoryLoader(DATA, torch.arange(N), 40, weights=torch.arange(float(N))), DEFINITION)
    assert loader.mass is loader.given and loader.mass.tolist() == list(range(N))
    for real, labels, weights in loader:
        assert real[:, 0].tolist() == labels.tolist()
        tail = labels >= N - TAIL
        torch.testing.assert_close(weights, labels * torch.where(tail, 0.06, 1.94))
    for real, labels, _ in tail_loader(plain_loader(), DEFINITION):
        assert real[:, 0].tolist() == labels.tolist()


def test_a_sampler_around_a_sampler_keeps_the_expectation_of_the_inner_one() -> None:
    """With the tail in its own share each item comes once, so that its weight is its probability."""
    data, p = torch.arange(40.0)[:, None], torch.linspace(0.5, 1.5, 40)
    items, weights = epochs(tail_loader(ResampledLoader(MemoryLoader(data, None, 40), p), data[:, 0] >= 30, 0.25), 1)
    torch.testing.assert_close(weights[0][items[0].argsort()], p)
    drawn = tail_loader(MemoryLoader(data, None, 8), data[:, 0] >= 30, 0.5)
    list(drawn)  # whose weights are those of an epoch now
    assert ResampledLoader(drawn, torch.ones(40)).weights is None


def test_a_block_without_a_tail_is_all_body() -> None:
    """Only what is drawn first, to learn of the data, has a tail: then batches are plain ones, all of weight 1."""
    calls: list[int] = []

    def draw(n: int, generator: Generator) -> Tensor:
        calls.append(n)
        return torch.rand(n, 1, generator=generator) * (N if len(calls) == 1 else N / 2)

    items, weights = epochs(tail_loader(FreshLoader(draw, 40, 5), DEFINITION), 1)
    assert items.shape == (5, 40) and items.max() < N / 2 and (weights == 1).all()


# ---------------------------------------------------------------------- what the tail is
def test_definitions() -> None:
    x, y = torch.tensor([[0.0, 3], [1, 2], [2, 1], [9, 9]]), torch.tensor([0, 1, 2, 1])
    assert Threshold(1.0)(x, y).tolist() == [False, False, True, True]
    assert Threshold(1.5, feature=1, above=False)(x, y).tolist() == [False, False, True, False]
    assert Threshold(5.0, feature="mean")(x, y).tolist() == Threshold(5.0, feature="norm")(x, y).tolist()
    assert Threshold(-3, lambda x: -x.sum(1))(x, y).tolist() == [False] * 4
    assert Quantile(0.25)(x, y).tolist() == [False, False, False, True]
    assert Quantile(0.5, feature=1, above=False)(x, y).tolist() == [False, True, True, False]
    assert Classes([1])(x, y).tolist() == [False, True, False, True]
    assert Threshold(3.0, feature="norm")(torch.tensor([[2.0, 2.0], [2.0, 3.0]]), None).tolist() == [False, True]
    for share, n, beyond in ((0.29, 100, 29), (0.01, 10, 1), (0.99, 10, 9)):  # rounded, but one at least and not all
        assert int(Quantile(share)(torch.arange(float(n))[:, None], None).sum()) == beyond


def test_low_density_finds_the_outliers() -> None:
    x = torch.randn(2000, 2, generator=Generator().manual_seed(0))
    found = LowDensity(0.05, width=0.3)(x, None)
    assert int(found.sum()) == 100
    assert float(x[found].norm(dim=1).mean()) > 2.3 > 1.3 > float(x[~found].norm(dim=1).mean())


def test_density_is_of_items_from_all_over_the_data() -> None:
    """Half and half of two places, one behind the other: 20 items around which there are kernels are of both."""
    x = torch.cat([torch.randn(200, 2, generator=Generator().manual_seed(i)) + 20 * i for i in range(2)])
    found = LowDensity(0.1, references=20)(x, None)
    assert 5 < int(found[200:].sum()) < 35


@pytest.mark.parametrize(("mass", "share"), [(0.5, 0.125), (0.5, 0.875)])
def test_a_block_of_fresh_draws_is_used_once(mass: float, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for chance: whichever side it has less of for the batches, most of its items come up once."""
    monkeypatch.setattr(FreshLoader, "block", 256)
    fresh = FreshLoader(lambda n, generator: torch.rand(n, 1, generator=generator), 8, 64)
    items = torch.cat([real for real, _, _ in tail_loader(fresh, Threshold(1 - mass), share)]).flatten()
    assert len(items) == 512 and len(items.unique()) > 480


def test_the_width_of_a_density_is_in_units_of_the_median_distance() -> None:
    """9 of 1, 9 and 10: at the middle point exp(-1/2 (1/9)^2) + 1 + exp(-1/2)."""
    x = torch.tensor([[0.0], [1.0], [10.0]])
    fitted = LowDensity(0.4, width=1.0).fit(x, None)
    assert callable(fitted.feature)
    known = math.log(math.exp(-1 / 162) + 1 + math.exp(-1 / 2))
    assert float(fitted.feature(x)[1]) == pytest.approx(known, rel=1e-6)


def test_a_fitted_definition_stays() -> None:
    x = torch.arange(100.0)[:, None]
    threshold = Quantile(0.1).fit(x, None)
    assert int(threshold(x, None).sum()) == 10 and int(threshold(x + 50, None).sum()) == 60


@pytest.mark.parametrize("tail", [Quantile(0.05), LowDensity(0.05, references=50), Threshold(2.0)])
def test_any_definition_goes_with_fresh_draws(tail: Any) -> None:
    items, weights = epochs(tail_loader(RareTail1D(batch_size=64, batches_per_epoch=8).train_dataloader(), tail), 1)
    assert items.shape == (8, 64)
    torch.testing.assert_close(weights.mean(1), torch.ones(8))
    assert float(weights.min()) < 0.15 < 1.8 < float(weights.max())


# ---------------------------------------------------------------------- the data module
def test_the_data_module_says_what_its_own_says() -> None:
    ring = Ring(batch_size=16)
    data = TailSampled(ring, Quantile(0.1), 0.25)
    assert (data.shape, data.name, data.batch_size, data.num_items) == ((2,), "Ring", 16, ring.num_items)
    assert data.modes is ring.modes and data.std == ring.std
    assert data.describe() == f"{ring.describe()}; the tail makes 0.25 of a batch"
    assert equal(list(data.val_dataloader()), list(ring.val_dataloader()))
    assert equal(data.reference("test"), ring.reference("test"))
    with pytest.raises(AttributeError):
        _ = data.nothing


def test_digits_by_class() -> None:
    data = TailSampled(Digits(batch_size=20), Classes([3]), 0.5)
    real, labels, weights = next(iter(data.train_dataloader()))
    assert real.shape == (20, 1, 8, 8) and int((labels == 3).sum()) == 10
    assert float(real.min()) >= -1 and float(real.max()) <= 1  # what the plain data module would yield
    _, all_labels = data.reference()
    assert all_labels is not None
    mass = float((all_labels == 3).double().mean())
    assert float(weights[labels == 3].mean()) == pytest.approx(2 * mass, rel=1e-5)


@pytest.mark.parametrize("data", [lambda: Ring(batch_size=8, batches_per_epoch=5), lambda: Ring(batch_size=8)])
def test_training_resumes_to_the_bit(tmp_path: Path, data: Callable[[], Any]) -> None:
    """And checkpoints load as weights only, though the data module holds objects."""

    def run(steps: int, ckpt: str | None = None) -> Any:
        pl.seed_everything(5, verbose=False)
        module, save = make("gan", d_steps=2), callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4)
        t = trainer(max_steps=steps, limit_val_batches=0, enable_checkpointing=True, callbacks=[save])
        t.fit(module, datamodule=TailSampled(data(), Quantile(0.1)), ckpt_path=ckpt)
        return module

    whole = state(run(7))
    path = tmp_path / "step=4.ckpt"
    assert torch.load(path, weights_only=True)["datamodule_hyper_parameters"]["share"] == 0.5
    assert equal(whole, state(run(7, str(path))))


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tail_loader(memory_loader(), Threshold(5000.0)), "some items and not all, got 0 of 1000"),
        (lambda: tail_loader(memory_loader(), Threshold(-1.0)), "some items and not all, got 1000 of 1000"),
        (lambda: tail_loader(memory_loader(), lambda x, y: x[:5, 0] > 0), "1000 booleans, one per item"),
        (lambda: tail_loader(memory_loader(), lambda x, y: x[:, 0]), "1000 booleans, one per item, got torch.float32"),
        (lambda: tail_loader(fresh_loader(), torch.ones(5) > 0), "must be a definition"),
        (lambda: tail_loader(memory_loader(), DEFINITION, 0.0), r"share must be in \(0, 1\), got 0.0"),
        (lambda: tail_loader([DATA], DEFINITION), "loader must be a MemoryLoader, .* got list"),
        (lambda: list(tail_loader(memory_loader(1), DEFINITION)), "batch_size must be at least 2"),
        (lambda: tail_loader(memory_loader(), Classes([1])), "have no labels"),
        (lambda: Quantile(1.5), r"share must be in \(0, 1\), got 1.5"),
        (lambda: LowDensity(width=0), "width must be a finite number > 0"),
        (lambda: LowDensity(references=1), "references must be an integer >= 2"),
        (lambda: Threshold(1, feature=1)(DATA, None), "feature must be in 0..0"),
        (lambda: Threshold(1, feature="max")(DATA, None), "feature must be a place"),  # type: ignore[arg-type]
        (lambda: TailSampled(memory_loader(), DEFINITION), "data must be a GANDataModule"),
    ],
)
def test_mistakes_are_told(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
