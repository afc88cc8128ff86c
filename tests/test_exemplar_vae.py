"""The Exemplar VAE: its prior against closed forms, what leave-one-out is for, and a life from the command line."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import doubles, equal, make, make_images, plain, state, trainer
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gans import ExemplarVAE, load
from lightning_gans.callbacks import EMA, GenerativeMetrics, SampleGrid
from lightning_gans.cli import main
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Digits, MemoryLoader
from lightning_gans.engine.batch import Batch
from lightning_gans.engine.contract import Latents, Likelihood, Samples, has
from lightning_gans.functional.variational import importance_bound, mixture_log_density, normal_log_density
from lightning_gans.networks import ToyGenerator, VAEDecoder, VAEEncoder
from lightning_gans.samplers import RejectionSampler, keep_training
from lightning_gans.stages.fits import _Again, fit_items
from lightning_gans.tools import export
from lightning_gans.tools.write import SampleWriter

CONFIG = Path(__file__).parent.parent / "configs" / "digits" / "exemplar_vae.yaml"


# ---------------------------------------------------------------------- densities
def test_normal_log_density() -> None:
    x, mean, log_variance = doubles(5, 2, 3), doubles(5, 2, 3, seed=1), doubles(5, 2, 3, seed=2)
    exact = Normal(mean, (log_variance / 2).exp()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(normal_log_density(x, mean, log_variance), exact, rtol=1e-12, atol=0)
    number = torch.tensor(0.3, dtype=torch.float64)
    exact = Normal(mean, math.exp(0.15)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(normal_log_density(x, mean, number), exact, rtol=1e-12, atol=0)


def test_the_mixture_is_torchs() -> None:
    z, means, v = doubles(6, 3), doubles(9, 3, seed=1), torch.tensor(-0.7, dtype=torch.float64)
    parts = Independent(Normal(means, (v / 2).exp()), 1)
    exact = MixtureSameFamily(Categorical(torch.ones(9, dtype=torch.float64)), parts).log_prob(z)
    torch.testing.assert_close(mixture_log_density(z, means, v), exact, rtol=1e-12, atol=0)


def test_the_mixture_is_exact_where_fewer_bits_are_allowed() -> None:
    """|z - m|^2 is a small difference of products: with TF32's ten bits the density would be wrong by nats."""
    seen = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if op in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
                cuda: Any = torch.backends.cuda.matmul
                seen.append(cuda.fp32_precision == "ieee" if hasattr(cuda, "fp32_precision") else not cuda.allow_tf32)
            return op(*args, **(kwargs or {}))

    torch.set_float32_matmul_precision("high")
    try:
        with Products():
            mixture_log_density(torch.randn(4, 3), torch.randn(5, 3), torch.zeros(()))
        assert seen == [True] and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_of_two_exemplars_the_other_one_is_left() -> None:
    z, means, v = doubles(2, 3), doubles(2, 3, seed=1), torch.tensor(0.4, dtype=torch.float64)
    found = mixture_log_density(z, means, v, torch.eye(2, dtype=torch.bool))
    torch.testing.assert_close(found, normal_log_density(z, means.flip(0), v), rtol=1e-12, atol=0)


def test_equal_exemplars_are_one_normal_distribution() -> None:
    z, v = doubles(4, 3), torch.tensor(-1.0, dtype=torch.float64)
    means = doubles(1, 3, seed=1).expand(7, 3)
    for left_out in (None, torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.5):
        found = mixture_log_density(z, means, v, left_out)
        torch.testing.assert_close(found, normal_log_density(z, means[:4], v), rtol=1e-12, atol=0)


def test_an_item_that_occurs_twice_is_left_out_twice() -> None:
    """And the sum is divided by what is left."""
    z, means, v = doubles(1, 2), doubles(3, 2, seed=1), torch.tensor(0.0, dtype=torch.float64)
    twice, own = means[[0, 1, 1, 2]], torch.tensor([[False, True, True, False]])
    found = mixture_log_density(z, twice, v, own)
    torch.testing.assert_close(found, mixture_log_density(z, means[[0, 2]], v), rtol=1e-12, atol=0)


def test_the_expanded_distance_is_accurate_in_float32() -> None:
    means = 10 * torch.rand(500, 8, generator=torch.Generator().manual_seed(0)) + 20
    z, v = means[:50] + 0.1, torch.tensor(-2.0)
    exact = mixture_log_density(z.double(), means.double(), v.double())
    assert float((mixture_log_density(z, means, v) - exact).abs().max()) < 1e-2 * 1e-1  # of values about 10
    with torch.autocast("cpu", torch.bfloat16):
        assert float((mixture_log_density(z, means, v) - exact).abs().max()) < 1e-2 * 1e-1


def test_the_mixtures_gradient() -> None:
    z, means, v = (t.requires_grad_() for t in (doubles(3, 2), doubles(4, 2, seed=1), doubles(1, seed=2)[0]))
    left_out = torch.eye(3, 4, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda *t: mixture_log_density(*t, left_out), (z, means, v))


# ---------------------------------------------------------------------- a linear case that is known
W, B, S2, R2 = torch.tensor([1.5, -0.5], dtype=torch.float64), torch.tensor([0.2, 0.1], dtype=torch.float64), 0.3, 0.8

LOG_S2, LOG_R2 = (torch.tensor(v, dtype=torch.float64).log() for v in (S2, R2))


class Decode(nn.Module):
    """f(z) = w z + b."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(W[:, None].clone()), nn.Parameter(B.clone())

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.w.T + self.b


class Lookup(nn.Module):
    """A code of its own for x with x_1 < 0 and for the others; one variance."""

    def __init__(self, means: Tensor, variance: float) -> None:
        super().__init__()
        self.means = nn.Parameter(means.clone())
        self.log_variance = nn.Parameter(torch.tensor(math.log(variance), dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.means[(x[:, 0] >= 0).long()]
        return mean, self.log_variance.expand_as(mean)


X = torch.tensor([[-1.0, 0.7], [0.9, -0.4]], dtype=torch.float64)


def exact_model(variance: float | None = None) -> tuple[ExemplarVAE, Tensor]:
    """Two items, each the other's exemplar, with q the posterior; and log p(x_i | the other), which is known.

    z ~ N(m, r^2), x = w z + b + N(0, s^2): z | x has precision 1/r^2 + w.w/s^2 and mean m + gain.(x - w m - b).
    """
    posterior = 1 / (1 / R2 + W @ W / S2)
    gain = posterior * W / S2
    keep = 1 - gain @ W
    shift = (X - B) @ gain
    system = torch.stack([torch.stack([torch.ones_like(keep), -keep]), torch.stack([-keep, torch.ones_like(keep)])])
    means = torch.linalg.solve(system, shift)  # m_i = keep m_other + shift_i
    module = ExemplarVAE(
        Lookup(means[:, None], float(posterior) if variance is None else variance), Decode(), 1
    ).double()
    with torch.no_grad():
        module.log_variances["data"].fill_(math.log(S2))
        module.log_variances["prior"].fill_(math.log(R2))
    covariance = S2 * torch.eye(2, dtype=torch.float64) + R2 * torch.outer(W, W)
    centres = means.flip(0)[:, None] * W + B
    return module, MultivariateNormal(centres, covariance).log_prob(X)


class Look(pl.Callback):
    """The terms of an untouched module on the two items, with any noise."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.found = []
        pl_module.progress.kept["beta"] = torch.ones(())
        pl_module.run.trainer.train_dataloader.with_index = True
        for seed in range(50):
            batch = Batch(X, None, None, doubles(2, 1, seed=seed), None, torch.arange(2))
            terms = pl_module.terms("vae", batch)
            self.found.append(-(terms["reconstruction"] + terms["kl"]).detach())


def bounds(module: ExemplarVAE) -> Tensor:
    look = Look()
    trainer(max_steps=1, callbacks=[look]).fit(module, MemoryLoader(X, None, 2))
    return torch.stack(look.found)


def test_the_bound_is_exact_where_q_is_the_posterior() -> None:
    """Leave-one-out, reconstruction, entropy and prior, all at once: for any noise the same, log p(x) itself."""
    module, exact = exact_model()
    torch.testing.assert_close(bounds(module), exact.mean().expand(50), rtol=1e-10, atol=0)


class KeepsOwn(ExemplarVAE):
    """Without leave-one-out."""

    def log_prior(self, z: Tensor, batch: Batch) -> Tensor:
        nothing = torch.full_like(batch.index, -1)  # type: ignore[arg-type]
        return super().log_prior(z, Batch(batch.real, None, None, batch.z, batch.generator, nothing))


class NormalPrior(ExemplarVAE):
    """An ordinary VAE."""

    def log_prior(self, z: Tensor, batch: Batch) -> Tensor:
        return normal_log_density(z, torch.zeros_like(z), torch.zeros((), dtype=z.dtype))


@pytest.mark.parametrize("other", [KeepsOwn, NormalPrior])
def test_another_prior_has_another_bound(other: type[ExemplarVAE]) -> None:
    module, exact = exact_model()
    module.__class__ = other
    assert float((bounds(module) - exact.mean()).abs().max()) > 0.1


def test_any_other_q_has_a_lower_bound() -> None:
    module, exact = exact_model(variance=0.5)
    assert float(bounds(module).mean()) < float(exact.mean()) - 0.1


@pytest.mark.parametrize("samples", [1, 7])
def test_the_importance_bound_is_exact_there_too(samples: int) -> None:
    m, posterior = torch.tensor(0.4, dtype=torch.float64), 1 / (1 / R2 + W @ W / S2)
    mean = m + ((X - B - W * m) @ W / S2 * posterior)[:, None]
    prior = partial(normal_log_density, mean=m.expand_as(mean), log_variance=LOG_R2)
    found = importance_bound(X, (mean, posterior.log().expand_as(mean)), Decode(), prior, LOG_S2, samples).detach()
    covariance = S2 * torch.eye(2, dtype=torch.float64) + R2 * torch.outer(W, W)
    torch.testing.assert_close(found, MultivariateNormal(m * W + B, covariance).log_prob(X), rtol=1e-10, atol=0)


def test_more_samples_make_the_bound_tighter() -> None:
    m, wide = torch.zeros((), dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    prior = lambda z: normal_log_density(z, m.expand_as(z), torch.tensor(R2, dtype=torch.float64).log())  # noqa: E731
    values = [
        importance_bound(X, (wide, wide), Decode(), prior, torch.tensor(S2).double().log(), k).mean() for k in (1, 2000)
    ]
    covariance = S2 * torch.eye(2, dtype=torch.float64) + R2 * torch.outer(W, W)
    exact = MultivariateNormal(B, covariance).log_prob(X).mean()
    assert float(values[0]) < float(exact) - 0.1 and float(values[1]) == pytest.approx(float(exact), abs=0.1)


class Copied(nn.Module):
    """The first number of x for its code."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1], torch.zeros_like(x[:, :1])


@pytest.mark.parametrize("exemplars", [None, 4])
def test_what_is_not_near_counts_as_nothing(exemplars: int | None) -> None:
    """One neighbour of four or, of these exemplars without its own, three others: a bound from below."""
    data = torch.tensor([[0.0], [1.0], [50.0], [60.0], [70.0]], dtype=torch.float64)
    module: Any = ExemplarVAE(Copied(), nn.Linear(1, 1), 1, neighbours=1, exemplars=exemplars).double()
    with torch.no_grad():
        module.log_variances["prior"].fill_(math.log(R2))
    module.run = SimpleNamespace(num_items=5, items=lambda index, generator: data[index])
    module.codes, own, found = data, torch.tensor([0]), set()
    for seed in range(20):
        module._made.append((own, data[:1]))
        batch = Batch(data[:1], None, None, data[:1], torch.Generator().manual_seed(seed), own)
        found.add(round(float(module.log_prior(data[:1], batch)), 9))
    near = Normal(torch.ones(()).double(), R2**0.5).log_prob(torch.zeros(()).double())
    expected = float(near) - math.log(4)
    if exemplars is None:
        assert found == {round(expected, 9)}
    else:  # also without item 0 among them, or without its neighbour
        assert found >= {round(expected, 9), round(float(near) - math.log(3), 9)} and max(found) < float(near)


# ---------------------------------------------------------------------- exemplars
def memory(n: int = 40, batch_size: int = 8, **options: Any) -> MemoryLoader:
    return MemoryLoader(plain(n).dataset, None, batch_size, **options)  # type: ignore[arg-type]


def test_a_sample_is_of_an_items_neighbourhood() -> None:
    module, loader = make("exemplar_vae"), memory()
    trainer(max_steps=3).fit(module, loader)
    with torch.no_grad():
        module.log_variances["prior"].fill_(-60)
        rebuilt = module.decoder(module.encoder(loader.data)[0])
    found = torch.cdist(module.sample(200, seed=0), rebuilt).min(1)
    assert float(found.values.max()) < 1e-4 and len(found.indices.unique()) > 30
    assert module.means.shape == (40, 3) and not module.means.requires_grad


def test_the_exemplars_are_those_of_the_encoder_as_it_is() -> None:
    """In callbacks, in checkpoints, at the end, and in a second fit on other data."""
    module, wrong = make("exemplar_vae", lr_vae=0.1), []

    class Compare(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            pl_module.sample(2)
            wrong.append(float((pl_module.means - pl_module.encoder(trainer.train_dataloader.data)[0]).abs().max()))

    for n in (40, 24):
        loader = memory(n)
        t = trainer(max_steps=4, callbacks=[Compare()])
        t.fit(module, loader)
        assert len(module.means) == n and loader.with_index is False  # given back
        torch.testing.assert_close(module.means, module.encoder(loader.data)[0].detach())
    assert len(wrong) == 8 and max(wrong) < 1e-6


def test_what_one_rank_has_encoded_keeps_it_from_no_collective(tmp_path: Path) -> None:
    """Rank 0 alone draws grids, and a checkpoint of the same update must find all ranks in the same call."""

    class Grid(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
            pl_module.sample(2)
            calls = list[str]()
            own, pl_module._together = pl_module._together, lambda *args: calls.append("all") or own(*args)
            trainer.save_checkpoint(tmp_path / "a.ckpt")
            trainer.save_checkpoint(tmp_path / "b.ckpt")  # once is enough
            del pl_module._together
            seen.append(len(calls))

    seen: list[int] = []
    trainer(max_steps=2, callbacks=[Grid()]).fit(make("exemplar_vae"), memory())
    assert seen == [1, 1]


def test_a_share_of_the_exemplars() -> None:
    seen = []

    class Watched(ExemplarVAE):
        def _together(self, index: Tensor, generator: Any) -> Tensor:
            seen.append(index)
            return super()._together(index, generator)

    torch.manual_seed(0)
    module = Watched(VAEEncoder((2,), 3, 8, 1), VAEDecoder((2,), 3, 8, 1), 3, exemplars=10)
    trainer(max_steps=3).fit(module, memory())
    drawn = seen[:3]
    assert all(len(index) == len(index.unique()) == 10 for index in drawn) and not equal(drawn[0], drawn[1])
    assert all(equal(index, torch.arange(40)) for index in seen[3:])  # those that are kept
    more, every = (make("exemplar_vae", exemplars=n) for n in (1000, None))
    for other in (more, every):
        pl.seed_everything(0, verbose=False)
        trainer(max_steps=3).fit(other, memory())
    assert equal(state(more), state(every))


def test_beta_rises_over_the_warm_up() -> None:
    """And weighs the term that is minimised, not the bound that is logged."""
    module, seen = make("exemplar_vae", warm_up=4), []

    class Record(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            v = {k: float(value) for k, value in pl_module.values.items()}
            seen.append(v["vae/kl"] / (-v["vae/bound"] - v["vae/reconstruction"]))

    trainer(max_steps=6, callbacks=[Record()]).fit(module, memory())
    assert seen == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.0], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exemplars": 1}, "exemplars must be an integer >= 2, got 1"),
        ({"warm_up": -1}, "warm_up must be an integer >= 0, got -1"),
        ({"clip_grad_vae": 0.0}, "clip_grad_vae must be a finite number > 0, got 0.0"),
        ({"accumulate_vae": 0}, "accumulate_vae must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("exemplar_vae", **options)


def test_what_cannot_be_trained_or_sampled_is_told_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^means must hold the exemplars' codes, got none: train the module, or load"):
        make("exemplar_vae").sample(1)
    with pytest.raises(ValueError, match=r"^The training data must be in a MemoryLoader, got a DataLoader: the"):
        trainer(max_steps=1).fit(make("exemplar_vae"), plain())
    module = make("exemplar_vae")
    module.encoder.log_variance = nn.Linear(8, 4)
    with pytest.raises(
        ValueError, match=r"encoder must return means and log variances \(8, 3\), got \[\(8, 3\), \(8, 4\)\]"
    ):
        trainer(max_steps=1).fit(module, memory())
    module = make("exemplar_vae")
    module.decoder = VAEDecoder((3,), 3, 8, 1)
    with pytest.raises(
        ValueError, match=r"decoder's output must have the shape of the samples, \(8, 2\), got \(8, 3\)"
    ):
        trainer(max_steps=1).fit(module, memory())


def test_one_item_and_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="items must be an integer >= 2, got 1"):
        trainer(max_steps=1).fit(make("exemplar_vae"), MemoryLoader(torch.zeros(1, 2), None, 1))
    with pytest.raises(ValueError, match="decoder must take no labels, got ToyGenerator, which does"):
        ExemplarVAE(VAEEncoder((2,), 3, 8), ToyGenerator((2,), 3, 8, num_classes=4), 3)


def test_items_that_a_stage_repeats_keep_their_numbers() -> None:
    """Otherwise an item would find its own exemplar among the copies, and nothing were left out."""
    module = make("exemplar_vae")
    fit_items(module, torch.randn(7, 2), None, 4, 3, None)
    assert len(module.means) == 7
    loader = _Again(torch.arange(7.0), None, 4)
    assert len(loader) == 21 and sorted(set(torch.cat(list(loader)).tolist())) == list(range(7))
    assert torch.cat(list(loader.in_order())).tolist() == list(range(7))
    loader.with_index = True
    assert all(torch.equal(x, index.float()) for x, _, _, index in loader)


def test_what_it_can(tmp_path: Path) -> None:
    module = make_images("exemplar_vae")
    assert has(module, Samples) and has(module, Latents) and has(module, Likelihood)
    trainer(max_steps=2).fit(module, MemoryLoader(plain(40, shape=(1, 8, 8)).dataset, None, 8))  # type: ignore[arg-type]
    bound = module.log_density_bound(torch.rand(5, 1, 8, 8))
    assert bound.shape == (5,) and bool(bound.isfinite().all()) and module.encoder.training
    writer = SampleWriter(tmp_path, None)
    writer.write_on_epoch_end(SimpleNamespace(is_global_zero=True), module, [module.sample(2)], None)
    assert {"grid.png", "interpolation.png", "walk.gif"} <= {path.name for path in tmp_path.iterdir()}
    assert not has(make("gan"), Likelihood)


def test_its_decoder_is_exported_for_noise_that_is_its_own(tmp_path: Path) -> None:
    module = make("exemplar_vae")
    trainer(max_steps=1).fit(module, memory())
    z, _ = module.latents(5, seed=3)
    with pytest.warns(
        UserWarning, match=r"noise of ExemplarVAE is not standard normal: feed d\.pt2 with z of its latents"
    ):
        exported = torch.export.load(export(module, tmp_path / "d.pt2")).module()
    torch.testing.assert_close(exported(z), module.sample(5, seed=3), rtol=1e-5, atol=1e-5)


def test_callbacks_leave_its_training_alone(tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [SampleGrid(2, rows=2, columns=2, interpolations=1, dirpath=str(tmp_path))]):
        pl.seed_everything(0, verbose=False)
        module = make_images("exemplar_vae")
        loader = MemoryLoader(plain(40, shape=(1, 8, 8)).dataset, None, 8)  # type: ignore[arg-type]
        trainer(max_steps=5, callbacks=callbacks).fit(module, loader)
        ends.append(state(module))
    assert equal(*ends)
    assert (tmp_path / "samples" / "interpolation_000004.png").is_file()


def test_neighbours_are_found_among_the_items_that_there_are(tmp_path: Path) -> None:
    """A run that goes on with other data has the codes of those, not of the old ones."""

    class Of(pl.LightningDataModule):
        def __init__(self, items: int) -> None:
            super().__init__()
            self.name, self.items = str(items), items

        def train_dataloader(self) -> MemoryLoader:
            return MemoryLoader(plain(self.items).dataset, None, 4)  # type: ignore[arg-type]

    first = trainer(max_steps=3)
    first.fit(make("exemplar_vae_near"), datamodule=Of(24))
    first.save_checkpoint(tmp_path / "a.ckpt")
    module = make("exemplar_vae_near")
    with pytest.warns(UserWarning, match="other data, 40"):
        trainer(max_steps=15).fit(module, datamodule=Of(40), ckpt_path=tmp_path / "a.ckpt")
    assert len(module.codes) == 40


# ---------------------------------------------------------------------- learning
def learned(
    cls: type[ExemplarVAE], steps: int, seed: int = 0, items: int | None = None, lr: float = 2e-3
) -> tuple[ExemplarVAE, Digits]:
    pl.seed_everything(seed, verbose=False)
    shape, data = (1, 8, 8), Digits(batch_size=min(100, items or 100), items=items)
    module = cls(VAEEncoder(shape, 8, 64), VAEDecoder(shape, 8, 64), 8, lr_vae=lr, warm_up=steps // 10)
    trainer(max_steps=steps).fit(module, datamodule=data)
    return module, data


def test_leave_one_out_keeps_the_prior_from_its_own_items() -> None:
    """Without it each item is explained by its own exemplar: better where it was trained, far worse elsewhere."""
    with_it, without = (learned(cls, 150, items=50, lr=7e-3)[0] for cls in (ExemplarVAE, KeepsOwn))
    assert float(without.values["vae/bound"]) > float(with_it.values["vae/bound"]) + 2
    held_out = Digits().reference("train")[0][400:800].float() / 127.5 - 1
    gain = (with_it.log_density_bound(held_out) - without.log_density_bound(held_out)).mean()
    assert float(gain) > 5  # nats per sample that were not trained on


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exemplars_explain_held_out_digits_better_than_a_normal_prior(seed: int) -> None:
    gains = []
    for cls in (ExemplarVAE, NormalPrior):
        module, data = learned(cls, 1700, seed)
        x = data.reference("test")[0].float() / 127.5 - 1
        if cls is NormalPrior:
            with torch.no_grad():
                prior = partial(normal_log_density, mean=torch.zeros(len(x), 8), log_variance=torch.zeros(()))
                args = module.encoder(x), module.decoder, prior, module.log_variances["data"]
                gains.append(float(importance_bound(x, *args, samples=64).mean()))
        else:
            gains.append(float(module.log_density_bound(x, samples=64).mean()))
    assert gains[0] > gains[1] + 0.5, gains


# ---------------------------------------------------------------------- from the command line
def test_its_life_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Trained by its YAML, scored, drawn, carded, loaded; and its plan. (Resumed exactly: test_resume.py.)"""
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
    short = ["fit", f"--config={CONFIG}", *quiet, "--grid.every_n_steps=3"]
    main([*short, "--name=a", "--trainer.max_steps=3"])
    run = tmp_path / "runs" / "a"
    rows = (run / "metrics.csv").read_text().splitlines()
    assert {"vae/bound", "vae/reconstruction", "vae/kl", "vae/loss", "metrics/fid/lenet"} <= set(rows[0].split(","))
    scores = [json.loads(line) for line in (run / "scores-lenet.jsonl").read_text().splitlines()]
    assert scores[-1]["step"] == 3 and math.isfinite(scores[-1]["metrics/fid/lenet"])
    assert (run / "samples" / "latest.png").is_file()
    card = (run / "checkpoints" / "last.md").read_text()
    for words in ("# ExemplarVAE on Digits", "arXiv:2004.04795", "- updates: 3 (300 real samples seen)", "fid/lenet"):
        assert words in card, words
    module = load(run)
    assert isinstance(module, ExemplarVAE) and len(module.means) > 1000 and module.ema is not None
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*short, "--dry_run", "--trainer.max_steps=6"])
    plan = capsys.readouterr().out
    for words in ("ExemplarVAE, 1 update per cycle", "Encoder ", "Decoder ",
                  "100 real samples for an update\n", "100 samples", "Regularizers   none"):  # fmt: skip
        assert words in plan, words


def test_it_is_scored_by_the_networks_that_sample(tmp_path: Path) -> None:
    """Any number at once, the averaged decoder, around the exemplars of the encoder as it is."""
    found = []
    for size in (100, 300):
        pl.seed_everything(0, verbose=False)
        shape = (1, 8, 8)
        module = ExemplarVAE(VAEEncoder(shape, 3, 16), VAEDecoder(shape, 3, 16), 3)
        score = GenerativeMetrics(2, ToUnit(), ["fid"], num_fake=300, batch_size=size)
        trainer(max_steps=2, callbacks=[EMA(0.5), score], default_root_dir=tmp_path).fit(module, datamodule=Digits(100))
        found.append([row["metrics/fid/tounit"] for row in score.history])
    assert len(found[0]) == 2 and found[0] == pytest.approx(found[1], rel=1e-4)


class ToUnit(nn.Module):
    """Eight features of an image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1).unflatten(1, (8, 8)).mean(2) / 255


def test_samplers_that_need_a_discriminator_say_so() -> None:
    with pytest.raises(ValueError, match=r"^log_ratio must be given for ExemplarVAE"):
        RejectionSampler(make("exemplar_vae"))
    with pytest.raises(ValueError, match=r"^module must have a discriminator, got ExemplarVAE, which has none\.$"):
        module = make("exemplar_vae")
        trainer(max_steps=1).fit(module, memory())
        keep_training(module, plain(40).dataset, steps=1, progress=False)  # type: ignore[arg-type]
