"""Words that must agree with the code: defaults and departures, what dashboards are told, which classes are drawn."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from common import equal, plain, trainer
from torch import nn

from lightning_gans import (
    CTGAN,
    GAN,
    MLE,
    PRCGAN,
    SNGAN,
    SRNGAN,
    WGANALP,
    AdaGAN,
    RelGAN,
    RobustWGAN,
    SeqGAN,
    StyleTransfer,
    UnrolledGAN,
    load,
    techniques,
)
from lightning_gans.callbacks import EMA, ModeCoverage, WandbSetup
from lightning_gans.cli import main
from lightning_gans.cli.gan_cli import GANCLI
from lightning_gans.cli.mistakes import sentence_of
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.datamodules import Digits, MemoryLoader, Ring
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.samplers import RejectionSampler
from lightning_gans.samplers.rejection import EPSILON, acceptance_logit
from lightning_gans.tools.write import SampleWriter

# What the released code, or the paper, has; where our default is another, the words under Departures that say so.
THEIRS: list[tuple[Any, str, Any, str]] = [
    (UnrolledGAN, "order", "g_first", '``order="g_first"``'),
    (CTGAN, "g_batch_factor", 2, "``g_batch_factor=2``"),
    (CTGAN, "scheduler_g", "linear", "fall to 0 linearly"),
    (SNGAN, "scheduler_g", "linear", "fall to 0 linearly"),
    (SNGAN, "power_iterations", 1, ""),
    (SNGAN, "g_batch_factor", 2, ""),
    (SNGAN, "order", "g_first", ""),
    (WGANALP, "scheduler_d", "linear", "fall to 0 linearly"),
    (WGANALP, "g_batch_factor", 2, ""),
    (PRCGAN, "scheduler_g", "linear", "fall to 0 linearly"),
    (AdaGAN, "loss", "minimax", "the default loss is the non-saturating one"),
    (SeqGAN, "clip_grad_g", 5.0, ""),
    (RelGAN, "clip_grad_g", 5.0, ""),
    (RelGAN, "clip_grad_d", 5.0, ""),
    (MLE, "clip_grad_mle", 5.0, ""),
    (StyleTransfer, "clip_grad_g", 5.0, ""),
    (RejectionSampler, "gamma", None, "gamma = 0"),
    (RejectionSampler, "percentile", 80.0, ""),
    (RejectionSampler, "epsilon", 1e-14, ""),
    (RejectionSampler, "running", True, "``running=True``"),
]


def default_of(owner: Any, name: str) -> Any:
    for base in inspect.getmro(owner):
        parameter = inspect.signature(base).parameters.get(name)
        if parameter is not None:
            return parameter.default
    raise AssertionError(f"{owner.__name__} takes no {name}")


@pytest.mark.parametrize(("owner", "name", "theirs", "words"), THEIRS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_default_is_that_of_the_code_or_departures_says_so(owner: Any, name: str, theirs: Any, words: str) -> None:
    departures = " ".join(str(owner.__doc__).partition("Departures")[2].partition("Args:")[0].split())
    if default_of(owner, name) == theirs:
        assert not words, f"{owner.__name__} departs no more in {name}: take the words away"
    else:
        assert words and words in departures


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        (SNGAN, "power iteration of 15 steps"),
        (SRNGAN, "its departures too"),
        (RobustWGAN, "the weights step before D and reuse D's fakes"),
        (AdaGAN, "h is kept within exp(+-15)"),
        (UnrolledGAN, "D steps first, and the K updates go on from there on the batch of its last step"),
    ],
)
def test_departures_that_are_no_defaults(owner: Any, words: str) -> None:
    assert words in " ".join(str(owner.__doc__).split())


def test_every_technique_that_has_the_defaults_of_a_code_tells_its_departures() -> None:
    for name in techniques.__all__:
        doc = str(getattr(techniques, name).__doc__)
        assert "efaults of the released" not in doc or "Departures" in doc, name


def test_the_constants_of_rejection_sampling_can_be_set() -> None:
    module = GAN(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), 2)
    own, plain = (RejectionSampler(module, burn_in=200, **options) for options in ({"epsilon": 0.5}, {}))
    own.prepare()
    plain.prepare()
    logits = torch.tensor([0.0, -1.0], dtype=torch.float64) + torch.as_tensor(plain.maximum)
    for sampler, epsilon in ((own, 0.5), (plain, EPSILON)):
        below = torch.tensor([0.0, -1.0], dtype=torch.float64)
        right = (below - torch.log1p(-torch.exp(below - epsilon))).sigmoid()
        torch.testing.assert_close(sampler.probability(logits), right, rtol=1e-3, atol=1e-7)
    assert float(own.probability(logits)[0]) < 0.8 < float(plain.probability(logits)[0])
    assert acceptance_logit(torch.zeros(1), 0.0, epsilon=0.5).isfinite().all()
    with pytest.raises(ValueError, match="epsilon must be a finite number >= 0, got -1"):
        RejectionSampler(module, epsilon=-1.0)


# ---------------------------------------------------------------------- which classes are drawn
def conditional() -> GAN:
    return GAN(ToyGenerator((2,), 2, 8, 1, num_classes=3), ToyDiscriminator((2,), 8, 1, num_classes=3), 2)


COUNTS = torch.tensor([70, 0, 30])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[GAN, Path]:
    path = tmp_path_factory.mktemp("labels") / "a.ckpt"
    labels = torch.tensor([0]).repeat(70).tolist() + [2] * 30
    module, fit = conditional(), trainer(max_steps=1)
    fit.fit(module, MemoryLoader(torch.randn(100, 2), torch.tensor(labels), 10))
    fit.save_checkpoint(path)
    return module, path


def test_samples_have_the_classes_of_the_data(fitted: tuple[GAN, Path]) -> None:
    module, path = fitted
    for trained in (module, load(path, generator=module.generator, discriminator=module.discriminator)):
        assert trained.label_counts is not None and torch.equal(trained.label_counts, COUNTS)
        labels = trained.latents(2000, seed=0)[1]
        assert labels is not None
        share = labels.bincount(minlength=3) / 2000
        assert share[1] == 0 and abs(float(share[0]) - 0.7) < 0.04
    given = torch.tensor([1, 1])
    assert torch.equal(module.latents(2, given)[1], given)  # type: ignore[arg-type]
    assert equal(module.latents(50, seed=1), module.latents(50, seed=1)), "drawn from the same source"
    plain = dict(torch.load(path, weights_only=True))
    del plain["label_counts"]
    trained.load_sampling_state(plain)
    assert trained.label_counts is None, "of another checkpoint"
    module.count_labels(torch.tensor([0, 0]))
    assert module.label_counts is not None and module.label_counts.tolist() == [2, 0, 0]
    module.count_labels(torch.tensor([0] * 70 + [2] * 30))


def test_they_are_uniform_where_the_data_do_not_tell() -> None:
    module = conditional()
    for labels in (None, torch.tensor([0, 3]), torch.tensor([], dtype=torch.long)):
        module.count_labels(labels)
        assert module.label_counts is None
    shares = module.draw_labels(3000, torch.Generator().manual_seed(0)).bincount(minlength=3) / 3000
    assert float((shares - 1 / 3).abs().max()) < 0.04
    assert "label_counts" not in module.sampling_state()


def test_the_classes_of_a_data_module_are_those_of_its_reference() -> None:
    data = Digits(batch_size=8)
    _, labels = data.reference("train")
    assert labels is not None
    nets = DCGANGenerator((1, 8, 8), 4, 2, num_classes=10), DCGANDiscriminator((1, 8, 8), 2, num_classes=10)
    module = GAN(*nets, 4)
    trainer(max_steps=1).fit(module, datamodule=data)
    assert torch.equal(module.label_counts, labels.bincount(minlength=10))  # type: ignore[arg-type]


def test_what_predict_writes_has_them_and_says_so(
    fitted: tuple[GAN, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    fit: Any = SimpleNamespace(is_global_zero=True, datamodule=None)
    made = [fitted[0].predict_step(200, 0), fitted[0].predict_step(200, 1)]
    writer = SampleWriter(tmp_path / "a", None, npz=True)
    for _ in range(2):  # once each time
        writer.write_on_epoch_end(fit, fitted[0], made, None)
        writer.on_predict_end()
        assert capsys.readouterr().out.count("Classes ") == 1
    writer.write_on_epoch_end(fit, fitted[0], made, None)
    writer.on_exception()
    assert "Classes      as frequent as in the training data" in capsys.readouterr().out
    labels = torch.from_numpy(np.load(tmp_path / "a" / "samples.npz")["labels"])
    assert set(labels.tolist()) == {0, 2} and 0.6 < float((labels == 0).float().mean()) < 0.8
    writer.write_on_epoch_end(fit, conditional(), made, None)
    writer.on_predict_end()
    assert "Classes      equally frequent" in capsys.readouterr().out


def test_a_sampler_draws_them_too(fitted: tuple[GAN, Path]) -> None:
    labels = RejectionSampler(fitted[0]).some_labels(500, torch.Generator().manual_seed(1), None)
    assert labels is not None and set(labels.tolist()) == {0, 2}


# ---------------------------------------------------------------------- dashboards
class Run(loggers.Logger):
    """In the place of W&B's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Any] = {}
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        config = SimpleNamespace(update=lambda values, **_: self.told.update(values))
        self.experiment = SimpleNamespace(define_metric=lambda *_, **__: None, config=config)

    name = version = "run"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def test_wandb_is_told_what_a_run_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "WandbLogger", Run)
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    run = Run()
    module = GAN(ToyGenerator((2,), 2, 8, 1), ToyDiscriminator((2,), 8, 1), 2, lr_d=3e-3)
    callbacks = [WandbSetup(), EMA(0.9), ModeCoverage(every_n_steps=100, num_samples=50)]
    fit = trainer(max_steps=4, logger=run, callbacks=callbacks, log_every_n_steps=2)
    fit.fit(module, datamodule=Ring(batch_size=16))
    facts = {key: run.told[key] for key in ("seed", "batch_size", "max_steps", "ema_decay")}
    assert facts == {"seed": 5, "batch_size": 16, "max_steps": 4, "ema_decay": 0.9}
    (protocol,) = run.told["protocols"].values()
    assert protocol["samples"] == 50
    rates = [(step, row) for step, row in run.rows if "lr/d" in row]
    assert [step for step, _ in rates] == [2, 4] and all(row["lr/d"] == 3e-3 for _, row in rates)
    each = [row["time/seconds_per_update"] for _, row in rates]
    assert min(each) > 0 and sum(each) * 2 == pytest.approx(rates[1][1]["time/seconds"])


class Logging(GAN):
    """A user's own, which logs the number of updates."""

    def training_step(self, dataloader_iter: Any) -> None:
        super().training_step(dataloader_iter)
        self.log("mine", float(self.global_step))
        self.log_dict({"half": self.global_step / 2})
        self.log("by_place", 1.0, False, False, True, False, "mean", False, False, None, True, 4)


def test_what_people_log_stands_at_the_update_it_was_logged_at(tmp_path: Path) -> None:
    module = Logging(ToyGenerator((2,), 2, 8, 1), ToyDiscriminator((2,), 8, 1), 2)
    saved = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    run = Run()
    fit = trainer(max_steps=6, logger=run, log_every_n_steps=2, callbacks=[saved], enable_checkpointing=True)
    fit.fit(module, datamodule=Ring(batch_size=16))
    mine = [(step, row["mine"], row["half"]) for step, row in run.rows if "mine" in row]
    assert mine == [(2, 2.0, 1.0), (4, 4.0, 2.0), (6, 6.0, 3.0)]
    assert [step for step, row in run.rows if "d/loss" in row] == [2, 4, 6]
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"step=3.ckpt", "step=6.ckpt"}


class Validated(GAN):
    """A user's own, which logs the number of updates when it validates and when an epoch ends."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("valid", float(self.global_step))

    def on_train_epoch_end(self) -> None:
        self.log("epoch", float(self.global_step))


def test_what_people_log_of_a_validation_does_too(tmp_path: Path) -> None:
    """Also in epochs that are shorter than a cycle, whose end Lightning counts as a step."""
    module = Validated(ToyGenerator((2,), 2, 8, 1), ToyDiscriminator((2,), 8, 1), 2, d_steps=3)
    saved = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    run, data = Run(), plain(8, 4)
    fit = trainer(max_steps=6, logger=run, log_every_n_steps=2, callbacks=[saved], enable_checkpointing=True)
    fit.fit(module, data, data)
    for name in ("valid", "epoch"):
        found = [(step, row[name]) for step, row in run.rows if name in row]
        assert found and all(step == value for step, value in found)
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"step=3.ckpt", "step=6.ckpt"}


class Silent(GAN):
    """A user's own, which logs nothing of an epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("shown", 1.0, logger=False)

    def on_train_epoch_end(self) -> None:
        """Nothing."""

    def on_train_batch_end(self, *_: Any) -> None:
        self.log("mine", 1.0)


def test_no_row_is_of_nothing() -> None:
    module = Silent(ToyGenerator((2,), 2, 8, 1), ToyDiscriminator((2,), 8, 1), 2)
    run, data = Run(), plain(16, 4)
    trainer(max_epochs=3, logger=run, log_every_n_steps=2).fit(module, data, data)
    assert run.rows and all({*row} - {"epoch", "step"} for _, row in run.rows)


class Callback(pl.Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("late", float(trainer.global_step))


@pytest.mark.parametrize("by_callback", [False, True])
def test_what_others_log_at_an_epochs_end_stands_at_the_update(by_callback: bool) -> None:
    """Also where nobody has logged before; by a hook that was set on the object."""
    module = GAN(ToyGenerator((2,), 2, 8, 1), ToyDiscriminator((2,), 8, 1), 2)
    if not by_callback:
        module.on_train_epoch_end = lambda: module.log("late", float(module.global_step))
    run = Run()
    fit = trainer(max_epochs=2, logger=run, log_every_n_steps=3, callbacks=[Callback()] if by_callback else [])
    fit.fit(module, plain(16, 4))
    assert all({*row} - {"epoch", "step"} for _, row in run.rows), "no row of nothing"
    assert [(step, row["late"]) for step, row in run.rows if "late" in row] == [(4, 4.0), (8, 8.0)]


@pytest.mark.parametrize("sweep", [False, True])
def test_the_run_of_wandb_is_the_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a folder would remember another run than the one that was written; and runs have names."""
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if sweep:
        monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    asked: list[Any] = []

    def before_fit(self: GANCLI) -> None:
        asked.append((self.wandb_id, self.trainer.loggers[-1]._wandb_init))
        self._place_loggers(None)
        asked.append(self.options["trainer"]["logger"]["init_args"])
        raise SystemExit(0)

    monkeypatch.setattr(GANCLI, "before_fit", before_fit)
    nets = {n: {"class_path": f"Toy{n.title()}", "init_args": {"width": 8}} for n in ("generator", "discriminator")}
    config = {"model": {"class_path": "GAN", "init_args": {"latent_dim": 2, **nets}}, "data": {"class_path": "Ring"}}
    Path("a.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        main(["fit", "--config=a.yaml", "--name=mine", "--trainer.logger=WandbLogger", "--trainer.accelerator=cpu"])
    (run, init), written = asked
    assert run == init["id"] == "agents" and (init["name"], init["project"]) == ("mine", "lightning_gans")
    assert written["id"] is written["name"] is None  # another run may start from its configuration


# ---------------------------------------------------------------------- several devices
@pytest.mark.parametrize("words", ["Connection closed by peer [127.0.0.1]:5", "Connection reset by peer"])
def test_a_rank_that_is_left_alone_says_so(words: str) -> None:
    assert "another rank, which has probably ended" in (sentence_of(RuntimeError(f"gloo/pair.cc: {words}")) or "")
    assert sentence_of(RuntimeError("a fault of ours")) is None
