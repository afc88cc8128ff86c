"""What every model has to keep, whatever it minimises. Parametrized over TECHNIQUES and NONADVERSARIAL."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from common import (
    BY_KIND,
    VARIANTS,
    data_for,
    equal,
    make,
    make_images,
    networks,
    noisy_loader,
    plain,
    resting,
    state,
    trainer,
)
from torch import Tensor, nn

from lightning_gans import NONADVERSARIAL, TECHNIQUES, WGANGP, GANModule
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import MemoryLoader
from lightning_gans.engine.frozen import frozen
from lightning_gans.regularizers import GradientPenalty
from lightning_gans.runs.metrics_csv import MetricsCSV

all_techniques = pytest.mark.parametrize("name", TECHNIQUES)
all_models = pytest.mark.parametrize("name", [*TECHNIQUES, *NONADVERSARIAL])
others = pytest.mark.parametrize("name", NONADVERSARIAL)
kinds = pytest.mark.parametrize("name", BY_KIND)


class Watch(callbacks.Callback):
    """Counts the optimizer steps of the two networks, and records what a step changed in the other one."""

    def __init__(self) -> None:
        self.steps = {"d": 0, "g": 0}
        self.other_changed: list[str] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.minimise = partial(self.watched, pl_module, pl_module.minimise)

    def watched(self, module: GANModule, minimise: Callable[..., None], player: str, *arguments: Any) -> None:
        before, other = state(module), {"d": "generator.", "g": "discriminator."}.get(player, "-")
        minimise(player, *arguments)
        after = state(module)
        self.other_changed += [k for k in after if k.startswith(other) and not torch.equal(after[k], before[k])]

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        first = optimizer.param_groups[0]["params"][0]
        player = next(n for n in pl_module.players if any(first is p for p in pl_module.networks(n)[0].parameters()))
        if player in self.steps:
            self.steps[player] += 1
        assert all(torch.isfinite(p.grad).all() for p in optimizer.param_groups[0]["params"] if p.grad is not None)


def test_private_names_do_not_clash() -> None:
    """A private method of a technique that is named as one of the engine's would take its place without a word."""
    for model in [*TECHNIQUES.values(), *NONADVERSARIAL.values()]:
        ours = [cls for cls in model.__mro__ if cls.__module__.startswith("lightning_gans")]
        names = [name for cls in ours for name in vars(cls) if name.startswith("_") and not name.endswith("_")]
        assert not {name for name in names if names.count(name) > 1} - {"_abc_impl"}, model


@all_techniques
def test_steps_are_counted_honestly(name: str) -> None:
    module, watch = make(name, d_steps=5), Watch()
    t = trainer(max_steps=6, callbacks=[watch])
    t.fit(module, train_dataloaders=plain())
    assert (t.global_step, watch.steps) == (6, {"d": 30, "g": 6})
    assert module.images_seen == 30 * 4


@all_techniques
@pytest.mark.parametrize("order", ["d_first", "g_first"])
def test_a_step_leaves_the_other_network_alone(name: str, order: str) -> None:
    """Bit for bit and buffers included, on nets with BatchNorm."""
    module, watch = make_images(name, d_steps=2, order=order), Watch()
    before, still = state(module), resting(module)
    flags = [p.requires_grad for p in module.parameters()], [m.training for m in module.modules()]
    trainer(max_steps=3, callbacks=[watch]).fit(module, train_dataloaders=plain(shape=(1, 8, 8)))
    after = state(module)
    assert watch.other_changed == []
    assert watch.steps == {"d": 6, "g": 3}
    unchanged = {k for k in after if torch.equal(before[k], after[k])}
    assert unchanged >= still
    # All else moved; a Wasserstein loss does not depend on the one, and the other is the +-1 of a single row.
    assert unchanged - still <= {f"discriminator.head.score.{name}" for name in ("bias", "parametrizations.weight.0.u")}
    assert flags == ([p.requires_grad for p in module.parameters()], [m.training for m in module.modules()])


@all_models
def test_every_parameter_gets_a_gradient(name: str) -> None:
    """And nothing that the module holds is told to belong to nobody, nor a player to be idle."""
    module = make_images(name)
    t = trainer(max_steps=2)  # of some models one part is trained after the other
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No player has|The player .* has made no update")
        t.fit(module, train_dataloaders=data_for(name, (1, 8, 8)))
    assert [k for k, p in module.named_parameters() if p.grad is None and p.requires_grad] == []


@all_techniques
def test_terms_are_finite_and_logged(name: str) -> None:
    module = make(name)
    t = trainer(max_steps=4, log_every_n_steps=2)
    t.fit(module, train_dataloaders=plain())
    logged = {k: float(v) for k, v in t.callback_metrics.items()}
    assert {"d/loss", "g/loss", "d/adversarial", "g/adversarial"} <= logged.keys()
    assert all(torch.isfinite(torch.tensor(v)) for v in logged.values())
    terms = [v for k, v in logged.items() if k in {f"d/{term}" for term in module.own_terms}]
    assert logged["d/loss"] == pytest.approx(sum(terms), rel=1e-5)


@others
def test_terms_of_other_models_are_finite_and_logged(name: str) -> None:
    """``<player>/<term>`` of each player, whose sum is ``<player>/loss``."""
    module, seen = make(name, **({"vae_steps": 0, "sigma": 0.5} if name == "vaebm" else {})), {}
    terms = module.terms

    def kept(player: str, batch: Any) -> Any:
        found = terms(player, batch)
        seen.update({f"{player}/{term}": 0.0 for term in found})
        return found

    module.terms = kept
    t = trainer(max_steps=4, log_every_n_steps=2)
    t.fit(module, train_dataloaders=data_for(name))
    logged = {k: float(v) for k, v in t.callback_metrics.items()}
    assert all(torch.isfinite(torch.tensor(v)) for v in logged.values()) and seen.keys() <= logged.keys()
    for player in (player for player, updates in module.progress.updates.items() if updates):
        own = sum(v for k, v in logged.items() if k in seen and k.startswith(f"{player}/"))
        assert logged[f"{player}/loss"] == pytest.approx(own, rel=1e-5)


def accumulating(module: Any, n: int) -> Any:
    """With so many batches for each update."""
    for player in module.players.values():
        player.accumulate = n
    return module


@others
def test_steps_of_other_models_are_counted_honestly(name: str) -> None:
    module = accumulating(make(name), 3)
    t = trainer(max_steps=16)
    t.fit(module, train_dataloaders=data_for(name))
    assert t.global_step == 16 == sum(module.progress.updates.values())
    assert module.images_seen == 3 * 16 * 4


@others
def test_cycles_of_other_models_span_epochs(name: str) -> None:
    """Two batches an epoch, three for an update."""
    module = accumulating(make(name), 3)
    t = trainer(max_epochs=7, max_steps=-1)
    t.fit(module, train_dataloaders=MemoryLoader(torch.randn(8, 2), None, 4))
    assert t.global_step == 4


@others
def test_clipping_of_other_models(name: str) -> None:
    module = make(name)
    for player in module.players.values():
        player.clip, player.optimizer = 1e-3, lambda parameters: torch.optim.SGD(parameters, lr=1.0)
    before = {k: p.detach().clone() for k, p in module.named_parameters()}
    trainer(max_steps=1, log_every_n_steps=1).fit(module, train_dataloaders=data_for(name))
    moved = torch.cat([(p.detach() - before[k]).flatten() for k, p in module.named_parameters()]).norm()
    stepped = [player for player, updates in module.progress.updates.items() if updates]
    assert float(moved) == pytest.approx(1e-3 * len(stepped) ** 0.5, rel=1e-3)
    assert float(module.values[f"{stepped[0]}/grad_norm"]) > 1e-2


@others
def test_accumulation_of_other_models_is_a_larger_batch(name: str) -> None:
    """In float64, for terms that are means over samples."""

    def train(size: int, accumulate: int) -> dict[str, Tensor]:
        pl.seed_everything(0, verbose=False)
        module = accumulating(make(name, **({"vae_steps": 3} if name == "vaebm" else {})), accumulate).double()
        data = plain(192, dtype=torch.float64).dataset
        trainer(max_steps=3).fit(module, train_dataloaders=MemoryLoader(data, None, size, shuffle=False))  # type: ignore[arg-type]
        return state(module)

    large, small = train(32, 1), train(16, 2)
    assert max(float((large[k] - small[k]).abs().max()) for k in large) < 1e-12


@all_models
def test_checkpoint_round_trip(tmp_path: Path, name: str) -> None:
    module = make(name)
    t = trainer(max_steps=2)
    t.fit(module, train_dataloaders=data_for(name))
    t.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    again = type(module).load_from_checkpoint(tmp_path / "a.ckpt", **networks(make(name)))
    assert equal(state(module), state(again))
    assert dict(module.hparams).items() <= dict(again.hparams).items()  # networks may be arguments of either
    assert again.latent_dim == module.latent_dim


HOOKS = ("on_fit_start", "on_train_start", "on_train_end", "on_save_checkpoint", "on_load_checkpoint")


@pytest.mark.parametrize("name", [*TECHNIQUES, *NONADVERSARIAL, "a weight for each sample"])
def test_nothing_of_a_technique_hangs_on_hooks(tmp_path: Path, name: str) -> None:
    """With hooks that people override without super() it trains, resumes and samples as without."""
    loader = MemoryLoader(plain().dataset, None, 4, shuffle=False)  # type: ignore[arg-type]

    def begun(*hooks: str) -> Any:
        each = name == "a weight for each sample"
        module = make("robust_wgan", weight_network=None, w_every=1) if each else make(name)
        if hasattr(module, "generator_checkpoint"):
            weights = {f"generator.{k}": 0.9 * p.detach() for k, p in module.generator.named_parameters()}
            torch.save({"state_dict": weights, "pytorch-lightning_version": ""}, tmp_path / "generator.ckpt")
            module.generator_checkpoint = str(tmp_path / "generator.ckpt")
        if hasattr(module, "classifier_weights"):
            torch.save({k: 0.9 * p for k, p in module.classifier.state_dict().items()}, tmp_path / "classifier.pt")
            module.classifier_weights = str(tmp_path / "classifier.pt")
        module.__class__ = type("Own", (type(module),), {hook: lambda self, *_: None for hook in hooks})
        return module

    whole, half, rest = begun(), begun(*HOOKS), begun(*HOOKS)
    pl.seed_everything(0, verbose=False)
    trainer(max_steps=4).fit(whole, loader)
    pl.seed_everything(0, verbose=False)
    t = trainer(max_steps=2)
    t.fit(half, loader)
    t.save_checkpoint(tmp_path / "half.ckpt")
    trainer(max_steps=4).fit(rest, loader, ckpt_path=str(tmp_path / "half.ckpt"))
    assert equal(state(whole), state(rest))
    assert equal(whole.sample(3, seed=0), rest.sample(3, seed=0))
    assert getattr(loader, "factors", None) is None


@all_techniques
def test_cycles_span_epochs(name: str) -> None:
    """Two batches an epoch, three for a cycle: no discriminator step without its generator step is left over."""
    module, watch = make(name, d_steps=3), Watch()
    t = trainer(max_epochs=7, max_steps=-1, callbacks=[watch])
    t.fit(module, train_dataloaders=noisy_loader(8, 4, 0))
    assert (t.global_step, watch.steps) == (4, {"d": 12, "g": 4})  # 14 batches: 4 cycles, 2 batches unused


@all_techniques
def test_half_a_cycle_is_carried_over(name: str) -> None:
    """11 batches an epoch: after two epochs 22 batches have made 7 cycles of 3."""
    module = make(name, d_steps=3)
    t = trainer(max_epochs=2, max_steps=-1)
    t.fit(module, train_dataloaders=noisy_loader(44, 4, 0))
    assert t.global_step == 7


class Steps(callbacks.Callback):
    """Records global_step at the end of each Lightning step."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.seen.append(trainer.global_step)


def test_no_lightning_step_passes_without_an_update() -> None:
    """Else its own batch counter (LearningRateMonitor's x-axis) would run ahead: 11 batches an epoch, 3 a cycle."""
    steps = Steps()
    trainer(max_steps=12, callbacks=[steps]).fit(make("gan", d_steps=3), train_dataloaders=noisy_loader(44, 4, 0))
    assert steps.seen == list(range(1, 13))


def test_learning_rate_monitor_counts_generator_updates(tmp_path: Path) -> None:
    linear = lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 10)  # noqa: E731
    log, monitor = MetricsCSV(tmp_path), callbacks.LearningRateMonitor()
    module = make("gan", d_steps=3, lr_g=1.0, scheduler_g=linear)
    t = trainer(max_steps=6, logger=log, callbacks=[monitor], log_every_n_steps=2)
    t.fit(module, train_dataloaders=noisy_loader(44, 4, 0))
    rows = list(csv.DictReader(log.path.open()))
    rates = {int(row["step"]): float(row["lr/g"]) for row in rows if row.get("lr/g")}
    assert rates == pytest.approx({1: 0.9, 3: 0.7, 5: 0.5})


def test_accumulation_is_a_larger_batch() -> None:
    """The mean gradient over two batches of N is that of one batch of 2 N, for terms that are means over samples."""

    def train(size: int, **options: Any) -> dict[str, Tensor]:
        module = make("wgan", d_steps=2, **options).double()
        trainer(max_steps=3).fit(module, train_dataloaders=plain(192, size, dtype=torch.float64))
        return state(module)

    pl.seed_everything(0, verbose=False)
    large = train(32, accumulate_d=1, accumulate_g=1)
    pl.seed_everything(0, verbose=False)
    small = train(16, accumulate_d=2, accumulate_g=2)
    assert max(float((large[k] - small[k]).abs().max()) for k in large) < 1e-12


def test_clipping_is_per_network() -> None:
    module = make("gan", clip_grad_d=1e-3, lr_d=1.0, lr_g=1.0)
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    module.players["d"].optimizer = module.players["g"].optimizer = sgd
    before = state(module)
    trainer(max_steps=1, log_every_n_steps=1).fit(module, train_dataloaders=plain())
    moved = {k: v - before[k] for k, v in state(module).items()}
    norm = {p: torch.cat([v.flatten() for k, v in moved.items() if k.startswith(p)]).norm() for p in ("gen", "disc")}
    assert float(norm["disc"]) == pytest.approx(1e-3, rel=1e-3) and float(norm["gen"]) > 1e-2
    assert float(module.values["d/grad_norm"]) > 1e-2


@kinds
def test_float16_with_a_gradient_scaler_trains(name: str) -> None:
    """16-mixed on the CPU: losses are scaled, gradients unscaled before clipping, penalties in float32."""
    if name in ("seq_gan", "leak_gan"):  # of an LSTM, which not every processor has in float16
        try:
            with torch.autocast("cpu", torch.float16):
                nn.LSTM(2, 2)(torch.zeros(1, 1, 2))
        except RuntimeError as error:
            pytest.skip(f"no LSTM in float16 here: {error}")
    precision = pytest.importorskip(f"{pl.__name__}.plugins.precision")
    plugin = precision.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    module = make_images(name, clip_grad_d=1.0, clip_grad_g=1.0)
    before = state(module)
    t = trainer(max_steps=4, plugins=[plugin], log_every_n_steps=1)
    t.fit(module, train_dataloaders=plain(shape=(1, 8, 8)))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert not equal(before, state(module)) and t.global_step == 4
    assert float(module.values["d/grad_norm"]) < 2.0**10  # the norm of the unscaled gradient


@kinds
def test_checkpoints_fall_on_every_multiple(tmp_path: Path, name: str) -> None:
    save = callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)
    t = trainer(max_steps=11, callbacks=[save], enable_checkpointing=True)
    t.fit(make(name), train_dataloaders=plain())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step=3.ckpt", "step=6.ckpt", "step=9.ckpt"]


@all_models
def test_weights_of_real_samples_reach_the_loss(name: str) -> None:
    """A weight of zero for every real sample is not the same game as none."""

    def train(weight: float | None) -> dict[str, Tensor]:
        module, x = make(name), plain(40).dataset
        if name in NONADVERSARIAL:
            weights = None if weight is None else torch.full((40,), weight)
            loader = MemoryLoader(x, None, 4, shuffle=False, weights=weights)  # type: ignore[arg-type]
            trainer(max_steps=2).fit(module, train_dataloaders=loader)
            return state(module)
        data = [(v, torch.tensor(0), torch.tensor(weight)) if weight is not None else v for v in x]  # type: ignore[attr-defined]
        trainer(max_steps=2).fit(module, train_dataloaders=torch.utils.data.DataLoader(data, 4))
        return state(module)

    pl.seed_everything(0, verbose=False)
    without = train(None)
    pl.seed_everything(0, verbose=False)
    assert equal(without, train(1.0))
    pl.seed_everything(0, verbose=False)
    assert not equal(without, train(0.0))


@all_techniques
def test_g_batch_factor_draws_more_fakes(name: str) -> None:
    try:
        module = make(name, g_batch_factor=2)
    except ValueError as refusal:  # of a game that goes by pairs
        assert "g_batch_factor must be 1" in str(refusal)
        return
    sizes: list[int] = []
    terms = module.generator_terms
    module.generator_terms = lambda batch, fake: (sizes.append(len(fake)), terms(batch, fake))[1]  # type: ignore[method-assign]
    trainer(max_steps=2).fit(module, train_dataloaders=plain())
    assert sizes == [8, 8]


def test_schedulers_step_once_per_generator_update() -> None:
    linear = torch.optim.lr_scheduler.LinearLR
    schedule = {k: lambda o: linear(o, 1.0, 0.0, 10) for k in ("scheduler_g", "scheduler_d")}
    module = make("wgan_gp", d_steps=3, lr_g=1.0, lr_d=2.0, **schedule)
    t = trainer(max_steps=4)
    t.fit(module, train_dataloaders=plain())
    assert [o.param_groups[0]["lr"] for o in t.optimizers] == pytest.approx([2.0 * 0.6, 1.0 * 0.6])


def test_optimizers_by_factory() -> None:
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5)  # noqa: E731
    module = make("wgan_gp", optimizer_d=sgd)
    optimizers, schedulers = module.configure_optimizers()
    assert isinstance(optimizers[0], torch.optim.SGD) and isinstance(optimizers[1], torch.optim.Adam)
    assert schedulers == []


def test_wgan_clips_every_parameter() -> None:
    module = make_images("wgan", c=0.02, lr_d=0.1)
    trainer(max_steps=2).fit(module, train_dataloaders=plain(shape=(1, 8, 8)))
    largest = [float(p.abs().max()) for p in module.discriminator.parameters()]
    assert max(largest) == pytest.approx(0.02)


@all_models
def test_samples(name: str) -> None:
    module = make_images(name)
    if name in NONADVERSARIAL:  # some sample by what they have seen
        trainer(max_steps=1).fit(module, train_dataloaders=data_for(name, (1, 8, 8)))
    generator = torch.Generator().manual_seed(3)
    x = module.sample(5, generator=generator)
    assert (
        x.shape == ((5, 3) if name in ("mle", "seq_gan", "leak_gan", "style_transfer") else (5, 1, 8, 8))
        and not x.requires_grad
        and module.trained_network.training
    )
    assert equal(module.sample(5, seed=4), module.sample(5, seed=4)) and not equal(x, module.sample(5, seed=4))
    with pytest.raises(ValueError, match="seed must be None where a generator is given, got 4"):
        module.sample(5, generator=generator, seed=4)
    generator.manual_seed(3)
    module.sample(5, generator=generator)
    assert equal(x, module.sample(5, generator=generator.manual_seed(3)))
    module.start_ema()
    with torch.no_grad():
        for p in module.trained_network.parameters():
            p.zero_()
    assert equal(x, module.sample(5, generator=generator.manual_seed(3)))  # the average is used
    assert not any("ema" in k for k in module.state_dict())
    assert all(p is not q for p in module.parameters() for q in module.start_ema().parameters())


@all_models
def test_ema_is_in_the_checkpoint(tmp_path: Path, name: str) -> None:
    module = make(name)
    module.start_ema()
    t = trainer(max_steps=2)
    t.fit(module, train_dataloaders=data_for(name))
    t.save_checkpoint(tmp_path / "a.ckpt")
    again = type(module).load_from_checkpoint(tmp_path / "a.ckpt", **networks(make(name)))
    assert again.ema is not None
    assert equal(module.start_ema().state_dict(), again.ema.state_dict())
    assert not equal(again.ema.state_dict(), again.trained_network.state_dict())


@pytest.mark.parametrize("name", [*VARIANTS, *NONADVERSARIAL])
def test_bfloat16_mixed_precision_trains(name: str) -> None:
    module = make_images(name)
    t = trainer(max_steps=3, precision="bf16-mixed", log_every_n_steps=1)
    t.fit(module, train_dataloaders=data_for(name, (1, 8, 8)))
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in module.parameters())


def test_penalties_are_in_full_precision_under_autocast() -> None:
    """The double backward too: its matrix products would be cast down if they ran in autocast's region."""

    def gradients(precision: str) -> Tensor:
        module = make("wgan_gp", regularizers=[], d_steps=1)
        module.discriminator_terms = lambda batch, fake: {}  # type: ignore[method-assign]
        module.regularizers = [GradientPenalty(at="real")]
        trainer(max_steps=1, precision=precision).fit(module, train_dataloaders=plain())
        return torch.cat([p.grad.flatten() for p in module.discriminator.parameters() if p.grad is not None])

    full, mixed = gradients("32-true"), gradients("bf16-mixed")
    assert float(full.norm()) > 0 and float((full - mixed).abs().max() / full.abs().max()) < 1e-6


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_true_precisions_convert_the_data(precision: Any) -> None:
    module = make("gan")
    trainer(max_steps=2, precision=precision).fit(module, train_dataloaders=plain())
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_plateau_schedulers_see_the_loss() -> None:
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    module = make("gan", lr_g=1.0, scheduler_g=lambda o: plateau(o, patience=0, factor=0.5, threshold=1e9))
    t = trainer(max_steps=4)
    t.fit(module, train_dataloaders=plain())
    assert t.optimizers[1].param_groups[0]["lr"] == 0.5**4


def test_a_test_run_leaves_nothing_to_resume(tmp_path: Path) -> None:
    module = make("gan")
    t = trainer(max_steps=3)
    t.fit(module, train_dataloaders=plain())
    t.save_checkpoint(tmp_path / "a.ckpt")
    trainer().test(module, plain(), ckpt_path=str(tmp_path / "a.ckpt"), verbose=False)
    trainer(max_steps=2).fit(module, train_dataloaders=plain())
    assert module.images_seen == 2 * 4


def test_frozen_gives_everything_back() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    net[0].bias.requires_grad_(False)
    flags, buffers = [p.requires_grad for p in net.parameters()], [b for b in net.buffers()]
    with frozen(net):
        net(torch.randn(4, 2))
        assert not any(p.requires_grad for p in net.parameters())
    assert flags == [p.requires_grad for p in net.parameters()]
    assert all(a is b for a, b in zip(buffers, net.buffers())) and float(net[1].running_mean.abs().sum()) == 0


def test_autocast_sees_the_weights_of_each_update() -> None:
    """The steps of a cycle run in one autocast context; with a cache it would go on with the weights it cast first."""
    module, seen = make_images("wgan_gp", d_steps=4, lr_d=0.1), []
    terms = module.discriminator_terms

    def recorded(batch: Any, fake: Tensor) -> Any:
        seen.append(module.discriminator(torch.ones(1, 1, 8, 8)).item())
        return terms(batch, fake)

    module.discriminator_terms = recorded  # type: ignore[method-assign]
    trainer(max_steps=2, precision="bf16-mixed").fit(module, train_dataloaders=plain(shape=(1, 8, 8)))
    assert len(set(seen)) == len(seen) == 8


@pytest.mark.parametrize("method", ["linear", "plain"])
def test_double_backward_is_a_matter_of_speed(method: Any) -> None:
    found = []
    for chosen in ("sparse", method):
        torch.manual_seed(0)
        module = make_images("wgan_gp", double_backward=chosen).double()
        trainer(max_steps=3).fit(module, train_dataloaders=plain(shape=(1, 8, 8), dtype=torch.float64))
        found.append(state(module))
    for a, b in zip(found[0].values(), found[1].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)  # Adam amplifies rounding where a gradient is zero


class Counted(torch.nn.Module):
    """A linear discriminator that counts its passes, with or without a buffer."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.weight, self.passes = torch.nn.Parameter(torch.tensor([1.0, -0.5])), 0
        if buffer:
            self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return (x @ self.weight).tanh()


class Peeking(WGANGP):
    """Scores the samples without a gradient first, as a diagnostic might."""

    def discriminator_terms(self, batch: Any, fake: Tensor) -> Any:
        with torch.no_grad():
            self.note(d_peek=self.score(batch.real, batch).mean())
        return super().discriminator_terms(batch, fake)


class Together(Counted):
    """Looks at the whole batch, without a buffer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.std(0).sum()


@pytest.mark.parametrize(
    ("technique", "buffer", "net", "passes"),
    [
        (WGANGP, False, Counted, 1),
        (WGANGP, True, Counted, 2),
        (Peeking, False, Counted, 2),
        (WGANGP, False, Together, 2),
    ],
)
def test_real_and_fake_are_scored_in_one_pass(technique: type[WGANGP], buffer: bool, net: Any, passes: int) -> None:
    """One for both, unless it makes a difference; and one for the generator. The result is that of two passes."""
    found = []
    for joint in (True, False):
        torch.manual_seed(0)
        critic = net(buffer)
        module = technique(make("gan").generator, critic, 3, gp_weight=0.0, d_steps=1, lr_d=0.1)
        if not joint:
            module.score = lambda x, batch, critic=critic: critic(x)  # type: ignore[method-assign]
        trainer(max_steps=1).fit(module, train_dataloaders=plain())
        before = critic.passes
        trainer(max_steps=4).fit(module, train_dataloaders=plain())
        if joint:
            checked = before - (passes + 1)  # what the check of the first batch takes
            assert critic.passes - before - checked == 4 * (passes + 1)
        found.append(critic.weight.detach().clone())
    torch.testing.assert_close(*found)
