"""What people have run into in training: fits that do nothing, monitors, schedulers, hooks and resumes of their own."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from common import PENALISED, equal, make, make_images, plain, state, trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau, SequentialLR, StepLR
from torch.utils.data import DataLoader

from lightning_gans import GAN, MLE, WGANGP, GANModule, UnrolledGAN, load
from lightning_gans.callbacks import EMA, GenerativeMetrics, ModeCoverage, TextMetrics, TransferMetrics
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import Digits, MarkovText, RareTail1D, Ring, StyledText
from lightning_gans.diagnostics import commentary_weights
from lightning_gans.engine.player import Player
from lightning_gans.engine.settings import plain as plain_values
from lightning_gans.functional.double_backward.input_gradient import double_backward
from lightning_gans.functional.lipschitz import adversarial_lipschitz_penalty
from lightning_gans.functional.penalties import finite_difference_penalty, gradient_norm
from lightning_gans.functional.robust import softplus_weights
from lightning_gans.functional.unroll import score_with, unroll
from lightning_gans.metrics.generative import GenerativeScores
from lightning_gans.networks import LanguageModel, ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import Regularizer
from lightning_gans.runs.card import card
from lightning_gans.samplers.calibration import logistic_fit
from lightning_gans.wrappers import spectral_norm


def own(cls: type[GANModule], technique: str = "gan", **options: Any) -> Any:
    """A class of the user's with the usual networks."""
    nets = make(technique)
    return cls(nets.generator, nets.discriminator, 3, **options)


def told(record: Any) -> list[str]:
    return [str(warning.message) for warning in record]


# ---------------------------------------------------------------------- fits that train nothing
@pytest.mark.parametrize("d_steps, accumulate", [(1, 1), (5, 1), (2, 3)])
def test_a_trial_plays_a_whole_cycle(d_steps: int, accumulate: int) -> None:
    module = make("gan", d_steps=d_steps, accumulate_d=accumulate)
    before = state(module)
    t = trainer(fast_dev_run=True)
    t.fit(module, plain(100, 4))
    assert t.global_step == 1 and module.progress.updates == {"d": d_steps, "g": 1}
    assert all((value != before[name]).any() for name, value in state(module).items())


@pytest.mark.parametrize(
    "options, why",
    [
        ({"max_steps": 0}, "max_steps=0"),
        ({"limit_train_batches": 0.0}, r"limit_train_batches=0\.0"),
        ({"max_epochs": 1}, r"3 batches an epoch, while one update takes 5 \(d_steps\), and 1 epochs"),
    ],
)
def test_a_fit_without_an_update_says_so(options: dict[str, Any], why: str) -> None:
    with pytest.warns(UserWarning, match=rf"The fit has made no update of 'g': {why}"):
        trainer(**options).fit(make("wgan_gp", d_steps=5), plain(12, 4))


def test_a_run_that_has_had_its_epochs_says_so(tmp_path: Path) -> None:
    first = trainer(max_epochs=2)
    first.fit(make("gan"), plain(12, 4))
    first.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match=r"no update of 'g': max_epochs=2, and 2 are done\."):
        trainer(max_epochs=2).fit(make("gan"), plain(12, 4), ckpt_path=tmp_path / "last.ckpt")


# ---------------------------------------------------------------------- validation
@pytest.mark.parametrize(
    ("interval", "options", "expected"),
    [
        (0.25, {"d_steps": 5}, [3, 6, 9, 10, 13, 16, 19, 20]),  # four times an epoch
        (15, {"d_steps": 5}, [3, 6, 9, 10, 13, 16, 19, 20]),
        (0.5, {"d_steps": 2, "g_steps": 2}, [26, 49, 75, 99]),  # its last cycle ends in the next epoch
        (0.75, {"d_steps": 2, "g_steps": 3}, [57, 73, 130, 148]),
        (0.5, {}, [25, 50, 75, 100]),
        (30, {"d_steps": 5, "every": None}, [6, 10, 12, 18, 20]),
        (1.0, {"g_steps": 2}, [99, 199]),
        (0.5, {"d_steps": 2, "g_steps": 5}, [65, 121, 186, 246]),
        (40, {"g_steps": 2, "every": None}, [80, 99, 160, 199]),
    ],
)
def test_validation_intervals_count_batches(interval: Any, options: dict[str, Any], expected: list[int]) -> None:
    """Lightning compares them with its steps, of which an epoch has fewer, or more; it validates at its end, too."""

    class Validated(GAN):
        at: list[int]

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.at.append(self.global_step)

    every = options.pop("every", 1)
    module, data = own(Validated, **options), plain(100, 2)
    module.at = []
    trainer(max_epochs=2, val_check_interval=interval, check_val_every_n_epoch=every, num_sanity_val_steps=0,
            limit_val_batches=1).fit(module, data, data)  # fmt: skip
    assert module.at == expected


@pytest.mark.parametrize("options", [{}, {"g_steps": 2}, {"d_steps": 2, "g_steps": 3}, {"d_steps": 5, "g_steps": 2}])
def test_a_trial_of_several_batches_validates(options: dict[str, int]) -> None:
    class Validated(GAN):
        at: ClassVar[set[int]] = set()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.at.add(self.global_step)

    trainer(fast_dev_run=3).fit(own(Validated, **options), plain(100, 2), plain(100, 2))
    assert Validated.at == {3}


@pytest.mark.parametrize(
    ("batches", "options", "calls", "seen"),
    [
        (16, {}, [*range(1, 17)], 16),
        (15, {"d_steps": 5}, [1, 2, 3], 15),
        (2, {"d_steps": 3}, [0, 1, 2, 2], 6),  # inside a cycle: a call without an update
        (16, {"g_steps": 2}, [*range(1, 32)], 16),  # its last update begins the next epoch
    ],
)
def test_calls_of_a_callback_are_as_the_docs_say(
    batches: int, options: dict[str, int], calls: list[int], seen: int
) -> None:
    class Counting(callbacks.Callback):
        found: ClassVar[list[int]] = []

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.found.append(trainer.global_step)

    module = own(GAN, **options)
    trainer(max_epochs=4 if batches == 2 else 1, callbacks=[Counting()]).fit(module, plain(4 * batches, 4))
    assert Counting.found == calls and module.images_seen == 4 * seen


# ---------------------------------------------------------------------- monitors
class Scores(ScoreCallback):
    """A score that is known beforehand."""

    label = "told"

    def __init__(self, every: int, values: list[float], at_start: bool = True) -> None:
        super().__init__(every, at_start, 0)
        self.values = values

    def measure(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        return {"metrics/told": self.values[min(len(self.history), len(self.values) - 1)]}


class Validated(GAN):
    """With a validation of the user's, behind which Lightning may look."""

    def validation_step(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("patience, stop, look", [
    (1, 24, {}), (2, 36, {}), (2, 36, {"val_check_interval": 2}), (2, 40, {"check_val_every_n_epoch": 2}),
])  # fmt: skip
def test_early_stopping_counts_measurements(patience: int, stop: int, look: dict[str, int]) -> None:
    """Epochs of 4 updates, a score each 12: 3, 2, 2, 2 ... stops ``patience`` measurements after the second."""
    stopping, nets = callbacks.EarlyStopping("metrics/told", patience=patience), make("gan")
    t = trainer(max_steps=60, callbacks=[Scores(12, [3.0, 2.0]), stopping], default_root_dir=".", **look)
    module = Validated(nets.generator, nets.discriminator, nets.latent_dim) if look else nets
    t.fit(module, plain(16, 4), plain(8, 4) if look else None)
    assert t.global_step == stop and not {"on_train_epoch_end", "on_validation_end"} & vars(stopping).keys()


def test_early_stopping_behind_validations_that_are_not_made() -> None:
    """Lightning never asks it; told when it has to."""
    for choice in (None, True):
        stopping = callbacks.EarlyStopping("metrics/told", patience=1, check_on_train_epoch_end=choice)
        t = trainer(max_steps=40, callbacks=[Scores(4, [2.0]), stopping], check_val_every_n_epoch=2)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            t.fit(make("gan"), plain(16, 4))
        words = [str(one.message) for one in record if "it will not stop training" in str(one.message)]
        assert (t.global_step, len(words)) == ((8, 0) if choice else (40, 1))


def test_early_stopping_goes_on_after_a_resume(tmp_path: Path) -> None:
    """What it has seen before it was stopped is not counted again."""

    def run(steps: int, path: Any = None) -> pl.Trainer:
        stopping = callbacks.EarlyStopping("metrics/told", patience=2)
        saving = callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=18, enable_version_counter=False)
        used = [Scores(12, [3.0, 2.0]), stopping, saving]
        t = trainer(max_steps=steps, callbacks=used, default_root_dir=tmp_path, enable_checkpointing=True)
        t.fit(make("gan"), plain(16, 4), ckpt_path=path)
        return t

    run(18)
    assert run(60, tmp_path / "step=18.ckpt").global_step == 36


class Seen(callbacks.EarlyStopping):
    """Notes what it compares."""

    seen: list[float] = []  # noqa: RUF012

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append(float(trainer.callback_metrics[self.monitor]))
        assert self.seen[-1] == float(pl_module.values[self.monitor])
        super().on_train_epoch_end(trainer, pl_module)


@pytest.mark.parametrize("batches, d_steps, compared", [(4, 1, 3), (2, 3, 2)])
def test_a_monitored_loss_is_that_of_the_moment(batches: int, d_steps: int, compared: int) -> None:
    """In the first epoch too; an epoch without an update has nothing to compare."""
    Seen.seen = []
    t = trainer(max_epochs=3, callbacks=[Seen("g/loss", patience=9)])
    t.fit(make("gan", d_steps=d_steps), plain(4 * batches, 4))
    assert len(Seen.seen) == compared == len(set(Seen.seen))


@pytest.mark.parametrize("log_every_n_steps", [1, 2, 50])
def test_the_best_checkpoint_is_that_of_the_loss_at_its_step(log_every_n_steps: int, tmp_path: Path) -> None:
    """Whether this is a step at which values are logged or not."""
    losses: dict[int, float] = {}

    class Note(callbacks.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            losses[trainer.global_step] = float(pl_module.values["g/loss"])

    best = callbacks.ModelCheckpoint(tmp_path, "{step}", "g/loss", every_n_train_steps=2, save_top_k=-1)
    used = {"callbacks": [Note(), best], "enable_checkpointing": True, "log_every_n_steps": log_every_n_steps}
    trainer(max_steps=6, **used).fit(make("gan"), plain(12, 4))
    found = {Path(path).stem: float(value) for path, value in best.best_k_models.items()}
    assert found == pytest.approx({f"step={step}": losses[step] for step in (2, 4, 6)})


@pytest.mark.parametrize("top_k", [1, 3])
def test_a_score_is_saved_once(top_k: int, tmp_path: Path) -> None:
    """Checkpoints each 2 updates, measurements each 4: the weights in between have no score of their own."""
    best = callbacks.ModelCheckpoint(tmp_path, "{step}", "metrics/told", every_n_train_steps=2, save_top_k=top_k)
    scores = Scores(4, [5.0, 4.0, 3.0, 3.5, 2.0], at_start=False)
    used = {"callbacks": [scores, best], "enable_checkpointing": True, "default_root_dir": tmp_path}
    trainer(max_steps=10, **used).fit(make("gan"), plain(400, 4))
    found = {Path(path).stem: float(value) for path, value in best.best_k_models.items()}
    assert found == ({"step=10": 3.0} if top_k == 1 else {"step=4": 5.0, "step=8": 4.0, "step=10": 3.0})
    assert "check_monitor_top_k" not in vars(best)


@pytest.mark.parametrize(("last", "found"), [(3.0, "step=7"), (4.5, "step=4")])
def test_the_last_weights_are_the_best_if_they_are(last: float, found: str, tmp_path: Path) -> None:
    """Of a fit that ends between two measurements, at none of the updates that are saved; whatever was best goes."""

    class Own(callbacks.ModelCheckpoint):
        """It has a state of its own, which the last file is to have too."""

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "own": 1}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict({k: v for k, v in state_dict.items() if k != "own"})
            assert state_dict["own"] == 1

    best = Own(None, "{step}", "metrics/told", every_n_train_steps=4, save_last=True)
    used = {"callbacks": [Scores(4, [4.0, last], False), best], "enable_checkpointing": True}
    trainer(max_steps=7, default_root_dir=".", **used).fit(make("gan"), plain(28, 4), plain(4))
    assert best.dirpath is not None
    assert {path.stem for path in Path(best.dirpath).glob("*.ckpt")} == {found, "last"}
    assert Path(best.best_model_path).stem == found and float(best.best_model_score or 0) == min(4.0, last)
    kept = torch.load(Path(best.dirpath) / "last.ckpt", weights_only=True)["callbacks"]
    assert Path(next(state for state in kept.values() if "own" in state)["best_model_path"]).stem == found


def test_the_untrained_score_is_never_the_best(tmp_path: Path) -> None:
    """Not of a callback, nor on a card, and no later weights are saved under it, nor a fit stopped."""
    best = callbacks.ModelCheckpoint(tmp_path, "{step}", "metrics/told", every_n_train_steps=2)
    stopping = callbacks.EarlyStopping("metrics/told", patience=1)
    scores = Scores(4, [1.0, 5.0, 4.0, 4.5, 4.6])
    used = {"callbacks": [scores, best, stopping], "enable_checkpointing": True, "default_root_dir": tmp_path}
    t = trainer(max_steps=20, **used)
    t.fit(make("gan"), plain(8, 4))
    assert t.global_step == 12 and Path(best.best_model_path).stem == "step=8"
    assert scores.best("told") == {"step": 8, "metrics/told": 4.0}
    t.save_checkpoint(tmp_path / "last.ckpt")
    assert "| told | 1 | 4.5 | 12 | 4 | 8 |" in card(torch.load(tmp_path / "last.ckpt", weights_only=True))
    scores.history = scores.history[:1]
    assert scores.best("told")["step"] == 0, "there is no other"


def test_whoever_keeps_all_checkpoints_has_all(tmp_path: Path) -> None:
    best = callbacks.ModelCheckpoint(tmp_path, "{step}", "metrics/told", every_n_train_steps=2, save_top_k=-1)
    scores = Scores(4, [5.0, 4.0, 3.0], at_start=False)
    used = {"callbacks": [scores, best], "enable_checkpointing": True, "default_root_dir": tmp_path}
    trainer(max_steps=9, **used).fit(make("gan"), plain(400, 4))
    assert sorted(path.stem for path in tmp_path.glob("*.ckpt")) == ["step=4", "step=6", "step=8"]


def test_checkpoints_by_time(tmp_path: Path) -> None:
    """Lightning leaves them out under manual optimization."""
    saving = callbacks.ModelCheckpoint(tmp_path, "{step}", train_time_interval=timedelta(microseconds=1), save_top_k=-1)
    t = trainer(max_steps=3, callbacks=[saving], enable_checkpointing=True, default_root_dir=tmp_path)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        t.fit(make("wgan_gp"), plain(400, 4))
    assert not [text for text in told(record) if "ModelCheckpoint" in text]
    assert sorted(path.stem for path in tmp_path.glob("*.ckpt")) == ["step=1", "step=2", "step=3"]
    assert "on_train_batch_end" not in vars(saving)


def test_a_checkpoints_own_method_is_given_the_module(tmp_path: Path) -> None:
    class Mine(callbacks.ModelCheckpoint):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any) -> None:
            assert isinstance(pl_module, GAN) and len(pl_module(torch.zeros(2, 3))) == 2
            super().on_train_batch_end(trainer, pl_module, *batch)

    saving = Mine(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    t = trainer(max_steps=4, callbacks=[saving], enable_checkpointing=True, default_root_dir=tmp_path)
    t.fit(own(GAN), plain(400, 4))
    assert sorted(path.stem for path in tmp_path.glob("*.ckpt")) == ["step=2", "step=4"]


@pytest.mark.parametrize("monitor", ["metrics/toad", "g/los"])
@pytest.mark.parametrize("kind", [callbacks.EarlyStopping, callbacks.ModelCheckpoint])
def test_a_monitor_that_nothing_measures(monitor: str, kind: Any, tmp_path: Path) -> None:
    who = kind(monitor=monitor)
    words = rf"{kind.__name__}: monitor must be one of .*g/loss.*, got '{monitor}', which nothing measures\."
    t = trainer(max_steps=40, callbacks=[Scores(4, [1.0]), who], enable_checkpointing=True, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match=words):
        t.fit(make("gan"), plain(16, 4))
    assert t.global_step == 4


@pytest.mark.parametrize("monitor", ["g/los", "metrics/toad"])
def test_a_schedules_monitor_that_nothing_measures(monitor: str, tmp_path: Path) -> None:
    class Waiting(Scheduled):
        kind = staticmethod(lambda optimizer: ReduceLROnPlateau(optimizer))
        config = {"monitor": monitor, "interval": "epoch"}  # noqa: RUF012

    t = trainer(max_steps=8, callbacks=[Scores(4, [1.0])], default_root_dir=tmp_path)
    with pytest.raises(ValueError, match=rf"^ReduceLROnPlateau: monitor must be .*, got '{monitor}', which nothing"):
        t.fit(own(Waiting), plain(16, 4))


def test_a_monitor_may_be_missing_if_that_is_said() -> None:
    missing = [callbacks.EarlyStopping(name, strict=False) for name in ("metrics/none", "g/none")]
    t = trainer(max_steps=8, callbacks=list(missing))
    t.fit(make("gan"), plain(16, 4))
    assert t.global_step == 8


def test_a_monitor_may_come_with_a_validation(tmp_path: Path) -> None:
    class Validated(GAN):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("v", 1.0, batch_size=1)

    saving = callbacks.ModelCheckpoint(tmp_path, monitor="v")
    t = trainer(max_steps=16, callbacks=[saving], enable_checkpointing=True, check_val_every_n_epoch=2)
    t.fit(own(Validated), plain(16, 4), plain(8, 4))
    assert t.global_step == 16 and len(list(tmp_path.glob("*.ckpt"))) == 1


def test_a_monitor_that_was_waited_for_in_vain_is_told_at_the_end() -> None:
    class Later(callbacks.Callback):
        every_n_steps = 100

    with pytest.warns(UserWarning, match=r"^EarlyStopping: nothing has measured its monitor 'mine'\.$"):
        trainer(max_steps=8, callbacks=[Later(), callbacks.EarlyStopping("mine")]).fit(make("gan"), plain(16, 4))


def scored(kind: str) -> tuple[Any, Any, Any]:
    """A callback that scores, with a model and data that it fits."""
    if kind == "modes":
        return ModeCoverage(9, 50), make("gan"), Ring(batch_size=4)
    if kind == "line":
        nets = ToyGenerator((1,), 3, 8, 1), ToyDiscriminator((1,), 8, 1)
        return ModeCoverage(9, 50), GAN(*nets, 3), RareTail1D(batch_size=4)
    if kind == "pictures":
        few: Any = {"num_fake": 50, "num_real": 50, "metrics": ["fid", "kid", "prdc"], "kid_subset_size": 9}
        return GenerativeMetrics(9, Mean(), **few), make_images("gan"), Digits(batch_size=4)
    if kind == "text":
        every: Any = ["js", "distinct", "copied", "bleu", "self_bleu", "nll_gen"]
        data = MarkovText(batch_size=4)
        return TextMetrics(9, 4, every), MLE(LanguageModel(data.shape)), data
    return TransferMetrics(9, 4), make("gan"), StyledText(4, 3, items=100, batch_size=4)


class Mean(nn.Module):
    """Features of uint8 images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((1, 2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["modes", "line", "pictures", "text"])
def test_what_a_callback_will_measure_is_known_beforehand(kind: str, tmp_path: Path) -> None:
    callback, module, data = scored(kind)
    t = trainer(max_steps=1, callbacks=[callback], default_root_dir=tmp_path)
    t.fit(module, datamodule=data)
    assert callback.will_measure(t, module) == [name for name in callback.history[0] if name != "step"]


def test_what_transfer_metrics_will_measure_is_known_beforehand() -> None:
    callback, module, data = scored("styles")
    names = callback.will_measure(SimpleNamespace(datamodule=data), module)
    found = ("accuracy", "bleu", "harmonic", "copies", "right")
    assert names == [*(f"metrics/{name}" for name in found), *(f"metrics/copy/{name}" for name in found)]


@pytest.mark.parametrize("kind", [callbacks.EarlyStopping, callbacks.ModelCheckpoint])
def test_a_score_that_no_callback_measures_is_refused_before_training(kind: Any, tmp_path: Path) -> None:
    """Unless somebody else may log it."""
    scores, module, data = scored("modes")
    scores.at_start = False
    words = rf"{kind.__name__}: monitor must be one of metrics/high_quality, metrics/modes, metrics/reverse_kl, or a "
    words += r"value that training logs, got 'metrics/w1', which nothing measures\."
    where: Any = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    t = trainer(max_steps=1, callbacks=[scores, kind(monitor="metrics/w1")], **where)
    with pytest.raises(ValueError, match=words):
        t.fit(module, datamodule=data)
    assert t.global_step == 0 and not list(tmp_path.iterdir())

    class Logs(callbacks.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            module.log("metrics/w1", 1.0, batch_size=1)

    t = trainer(max_steps=1, callbacks=[Logs(), kind(monitor="metrics/w1")], **where)
    t.fit(make("gan"), plain(8, 4))
    assert t.global_step == 1


@pytest.mark.parametrize("on_object", [False, True])
def test_what_the_modules_own_hook_logs_is_compared(on_object: bool, tmp_path: Path) -> None:
    """At the end of an epoch, behind our callback's hook; a schedule looks at the epoch's own value too."""

    class Logs(Scheduled):
        config = {"monitor": "v", "interval": "epoch"}  # noqa: RUF012
        kind = staticmethod(lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0))

        def tell(self) -> None:
            self.log("v", 1.0, batch_size=1)

        def on_train_epoch_end(self) -> None:
            self.tell()

    module = own(Logs)
    if on_object:
        Logs.on_train_epoch_end = GAN.on_train_epoch_end  # type: ignore[method-assign]
        module.on_train_epoch_end = module.tell
    best = callbacks.ModelCheckpoint(tmp_path, "{epoch}", monitor="v")
    used = {"callbacks": [callbacks.EarlyStopping("v", patience=2), best], "enable_checkpointing": True}
    t = trainer(max_epochs=9, default_root_dir=tmp_path, **used)
    t.fit(module, plain(8, 4))
    assert t.current_epoch == 3 and [path.stem for path in tmp_path.glob("*.ckpt")] == ["epoch=0"]
    assert t.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-6 * 0.5**2)
    assert vars(module).get("on_train_epoch_end") == (module.tell if on_object else None)


def test_a_score_that_will_be_measured_is_waited_for(tmp_path: Path) -> None:
    stopping = callbacks.EarlyStopping("metrics/told", patience=1)
    scores = Scores(12, [2.0], at_start=False)
    t = trainer(max_steps=60, callbacks=[scores, stopping], default_root_dir=tmp_path)
    t.fit(make("gan"), plain(16, 4))
    assert t.global_step == 24


# ---------------------------------------------------------------------- schedulers
class Scheduled(GAN):
    """The user's own optimizers, with schedulers in Lightning's words."""

    config: dict[str, Any] = {}  # noqa: RUF012
    kind: Any = staticmethod(lambda optimizer: StepLR(optimizer, 1, gamma=0.5))

    def configure_optimizers(self) -> Any:
        d, g = SGD(self.discriminator.parameters(), 1.0), SGD(self.generator.parameters(), 1e-6)
        return [d, g], [{"scheduler": self.kind(g), **self.config}]


@pytest.mark.parametrize(
    "config, steps",
    [({}, 3), ({"interval": "epoch", "frequency": 2}, 1), ({"interval": "step"}, 12),
     ({"interval": "step", "frequency": 5}, 2)],
)  # fmt: skip
def test_intervals_of_schedulers_are_honoured(config: dict[str, Any], steps: int) -> None:
    """Three epochs of four updates."""
    Scheduled.config = config
    t = trainer(max_epochs=3)
    t.fit(own(Scheduled), plain(16, 4))
    assert t.global_step == 12 and t.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-6 * 0.5**steps)


class Halved(Scheduled):
    """Its callback, which is asked behind ours, copies the module at an epoch's end, and stops the fit once."""

    class Stopping(callbacks.Callback):
        stops = True
        copies: ClassVar[list[Any]] = []

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.copies += [pickle.loads(pickle.dumps(pl_module)), copy.deepcopy(pl_module)]
            if self.stops:
                self.stops = False
                raise RuntimeError("once")

    stopping: ClassVar[Any] = Stopping()
    config: ClassVar[Any] = {"interval": "epoch"}

    def configure_callbacks(self) -> Any:
        return [*super().configure_callbacks(), self.stopping]


def test_what_waits_for_an_epochs_end_is_of_this_fit() -> None:
    """A fit that failed there left its own to the next, and no module could be pickled where it waited."""
    module = own(Halved)
    with pytest.raises(RuntimeError, match="once"):
        trainer(max_epochs=2).fit(module, plain(16, 4))
    assert "on_train_epoch_end" not in vars(module)
    t = trainer(max_epochs=2)
    t.fit(module, plain(16, 4))
    assert t.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-6 * 0.5**2)
    assert len(Halved.stopping.copies) == 6
    assert not any("on_train_epoch_end" in vars(found) for found in Halved.stopping.copies)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_monitors_of_schedulers_are_honoured(interval: str, tmp_path: Path) -> None:
    """A score each 8 updates, the same from the second on: one more measurement than the patience lowers the rate."""

    class Waiting(Scheduled):
        kind = staticmethod(lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0))
        config = {"monitor": "metrics/told", "interval": interval}  # noqa: RUF012

    t = trainer(max_steps=32, callbacks=[Scores(8, [3.0, 2.0])], default_root_dir=tmp_path)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        t.fit(own(Waiting), plain(16, 4))
    assert not [text for text in told(record) if "ignored" in text]
    lowered = {"epoch": 3, "step": 2}[interval]  # the last one is measured after the update's own step
    assert t.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-6 * 0.5**lowered)


def test_optimizers_that_are_set_on_the_object_are_refused() -> None:
    """As LightningCLI does for ``--optimizer``; they were dropped in silence."""
    module = own(GAN)
    module.configure_optimizers = lambda: SGD(module.parameters(), 0.5)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"of the class GAN, got one .* give optimizer_d and optimizer_g to the"):
            trainer(max_steps=1).fit(module, plain(8, 4))
    del module.configure_optimizers
    with pytest.raises(ValueError, match="yields no batch"):
        trainer(max_steps=1).fit(module, DataLoader(torch.zeros(2, 2), 4, drop_last=True))
    trainer(max_steps=1).fit(module, plain(8, 4))  # what a refused fit leaves is ours


# ---------------------------------------------------------------------- methods of the user's
def test_callbacks_without_ours_are_told() -> None:
    class Mine(GAN):
        def configure_callbacks(self) -> Any:
            return [callbacks.Callback()]

    with pytest.raises(ValueError, match=r"Mine\.configure_callbacks must return what super\(\)\.configure_callbacks"):
        trainer(max_steps=1).fit(own(Mine), plain())


class Around(pl.LightningModule):
    """A project's module that has a GAN as a part."""

    def __init__(self, gan: GAN) -> None:
        super().__init__()
        self.gan, self.automatic_optimization = gan, False

    def training_step(self, dataloader_iter: Any) -> None:
        self.gan.training_step(dataloader_iter)

    def configure_optimizers(self) -> Any:
        return self.gan.configure_optimizers()


class Plain(pl.LightningModule):
    """Of another library, in the same process."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), 0.1)


def test_what_lightning_tells_others_is_left_to_them() -> None:
    """Warnings of what we do on purpose are left out in fits of ours alone, however they end."""
    before = [*warnings.filters]
    for module, heard in ((Plain(), True), (make("gan"), False), (Plain(), True)):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            trainer(max_steps=1).fit(module, plain(8, 4), plain(8, 4))
        assert bool([t for t in told(record) if "validation_step" in t]) is heard
    for data in (DataLoader(torch.zeros(2, 2), 4, drop_last=True), plain(8, 4, (3,))):
        with pytest.raises(ValueError, match=r"no batch|shape"):
            trainer(max_steps=1).fit(make("gan"), data)
    assert [*warnings.filters] == before


def test_a_module_around_a_gan_is_told_what_works() -> None:
    with pytest.raises(ValueError, match=r"^GAN must be the module .* got it within Around: derive Around from"):
        trainer(max_steps=1).fit(Around(own(GAN)), plain())


def test_a_training_step_that_asks_for_batches_is_told() -> None:
    class Mine(GAN):
        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            super().training_step(batch)

    with pytest.raises(ValueError, match="training_step must have one argument of the name dataloader_iter"):
        trainer(max_steps=1).fit(own(Mine), plain())


def test_a_training_step_without_ours_is_told() -> None:
    class Mine(GAN):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            """Does something else."""

    with pytest.warns(UserWarning, match=r"Mine\.training_step must call super\(\)\.training_step\(dataloader_iter\)"):
        trainer(max_epochs=1).fit(own(Mine), plain(8, 4))


class Late(GAN):
    """Plays before it has the network."""

    def __init__(self, *networks: Any) -> None:
        super().__init__(*networks)
        self.play(Player("e", ("encoder",)))


@pytest.mark.parametrize(
    ("make_it", "error", "words"),
    [
        (lambda: own(Late), ValueError, "got 'encoder', which this Late does not have: set self.encoder before the pl"),
        (lambda: Player("f", "enc2"), TypeError, r"player 'f' must be a tuple of names, got 'enc2': give \('enc"),
        (lambda: own(GAN).play(Player("g", ("generator",))), ValueError, r"got 'g' twice: change self.players\['g'\]"),
    ],
)
def test_a_player_of_ones_own_that_cannot_play(make_it: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make_it()


class Odd(GAN):
    """Terms of any kind."""

    made: Any = None

    def generator_terms(self, batch: Any, fake: Any) -> Any:
        return self.made(super().generator_terms(batch, fake), fake)


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda terms, fake: None, TypeError, "got NoneType."),
        (lambda terms, fake: terms["adversarial"], TypeError, "got Tensor."),
        (lambda terms, fake: (terms["adversarial"], terms), TypeError, "got tuple."),
        (lambda terms, fake: {}, TypeError, "got an empty one."),
        (lambda terms, fake: {**terms, "x": 0.5}, TypeError, "got float for 'x'."),
        (lambda terms, fake: {**terms, "x": fake.mean(1)}, ValueError, "got a tensor of shape (4,) for 'x'."),
        (lambda terms, fake: {"x": fake.mean().detach()}, ValueError, "got none with a gradient."),
        (lambda terms, fake: {"loss": fake.mean()}, ValueError, "got 'loss', under which the engine logs another"),
        (lambda terms, fake: {"grad_norm": fake.mean()}, ValueError, "got 'grad_norm', under which"),
    ],
)
def test_terms_that_are_none_are_told(made: Any, error: Any, words: str) -> None:
    module = own(Odd, clip_grad_g=1.0)
    module.made = made
    with pytest.raises(error, match=r"^Odd\.generator_terms must return a dict of .*" + re.escape(words)):
        trainer(max_steps=1).fit(module, plain())


class Squares(GANModule):
    """As docs/own-project.md writes a technique: nothing is said of precision."""

    def discriminator_terms(self, batch: Any, fake: Any) -> Any:
        real_score, fake_score = self.score(batch.real, batch), self.score(fake, batch)
        return {"real": (real_score - 1).square().mean(), "fake": fake_score.square().mean()}

    def generator_terms(self, batch: Any, fake: Any) -> Any:
        return {"adversarial": (self.score(fake, batch) - 1).square().mean()}


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("bf16-true", torch.float32),
                                                  ("64-true", torch.float64)])  # fmt: skip
def test_terms_of_scores_are_in_float32_or_better(precision: Any, dtype: torch.dtype) -> None:
    module = own(Squares)
    trainer(max_steps=2, precision=precision).fit(module, plain())
    assert {module.values[name].dtype for name in ("d/real", "d/fake", "g/adversarial")} == {dtype}


class Brighter(Regularizer):
    """A term of the generator's."""

    name, player = "brightness", "g"

    def __call__(self, network: Any, batch: Any, fake: Any) -> Any:
        return fake.mean()


def test_terms_that_are_none_are_told_beside_a_regularizer() -> None:
    module = own(Odd, regularizers=[Brighter(0.1)])
    module.made = lambda terms, fake: terms["adversarial"]
    with pytest.raises(TypeError, match=r"^Odd\.generator_terms must return .*, got Tensor\.$"):
        trainer(max_steps=1).fit(module, plain())


def test_what_is_noted_has_names_of_its_own() -> None:
    """In each fit; what an earlier one has left is no note."""
    module, note = own(Odd), []
    module.made = lambda terms, fake: (note and module.note(g_adversarial=fake.mean()), terms)[1]
    for _ in range(2):
        trainer(max_steps=1).fit(module, plain())
    note.append(True)
    with pytest.raises(ValueError, match=r"got g_adversarial, and 'adversarial' of Odd\.generator_terms\.$"):
        trainer(max_steps=1).fit(module, plain())


def test_what_is_noted_is_one_number() -> None:
    """A plain one, or a tensor of one."""
    module, value = own(Odd), [0.5]
    module.made = lambda terms, fake: (module.note(g_other=value[0]), terms)[1]
    trainer(max_steps=1).fit(module, plain())
    assert module.values["g/other"] == 0.5
    value[0] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"^g/other must be noted as one number, got a tensor of shape \(3,\)\.$"):
        trainer(max_steps=1).fit(module, plain())


class Hooked(pl.LightningDataModule):
    """Data whose hooks say that they were called."""

    def train_dataloader(self) -> Any:
        return plain(8, 4)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch + 10

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch + 100


class HookedGAN(GAN):
    """The same, of a module."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch + 1000


@pytest.mark.parametrize(
    ("cls", "data", "added"),
    [(GAN, Hooked, 110), (HookedGAN, Hooked, 110), (HookedGAN, None, 1000), (GAN, None, 0)],
)
def test_hooks_of_the_transfer_are_called_as_lightning_would(cls: Any, data: Any, added: int) -> None:
    """The data module's before the module's."""
    module, loader = own(cls), plain(8, 4) if data is None else data()
    trainer(max_steps=1).fit(module, loader)
    assert module.last_batch is not None and round(float(module.last_batch.real.mean()), -1) == added


# ---------------------------------------------------------------------- constructors, checkpoints
class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("this network cannot be copied")


def test_a_constructor_copies_no_network() -> None:
    module = GAN(Uncopyable(3, 2), make("gan").discriminator, 3, lr_g=0.5, d_steps=2)
    assert module.hparams["lr_g"] == 0.5 and module.hparams["d_steps"] == 2 and module.hparams_initial["lr_g"] == 0.5
    assert not {"generator", "discriminator"} & module.hparams.keys()
    trainer(max_steps=1).fit(module, plain())


class Narrow(WGANGP):
    """Builds its networks by itself, with arguments of its own."""

    def __init__(self, width: int = 4, rate: float = 1e-3) -> None:
        critic = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1), nn.Flatten(0))
        super().__init__(nn.Linear(3, 2), critic, 3, lr_g=rate, lr_d=rate)


def test_load_of_a_class_with_arguments_of_its_own(tmp_path: Path) -> None:
    module, t = Narrow(width=6), trainer(max_steps=1)
    t.fit(module, plain())
    t.save_checkpoint(tmp_path / "a.ckpt")
    loaded = load(tmp_path / "a.ckpt")
    assert isinstance(loaded, Narrow) and equal(loaded.sample(4, seed=0), module.sample(4, seed=0))
    assert loaded.hparams["width"] == 6


# ---------------------------------------------------------------------- penalties
def finite_difference(discriminator: Any, x: torch.Tensor) -> torch.Tensor:
    return finite_difference_penalty(discriminator, x[:8], x[8:])


@pytest.mark.parametrize("technique", sorted(PENALISED))
@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_penalties_of_networks_in_half_precision(technique: str, precision: Any) -> None:
    module = make(technique, d_steps=1)
    trainer(max_steps=1, precision=precision).fit(module, plain())
    assert next(module.discriminator.parameters()).dtype == {"b": torch.bfloat16, "1": torch.half}[precision[0]]
    assert all(value.isfinite().all() for value in module.values.values())


def test_unrolled_steps_of_any_network_in_half_precision() -> None:
    nets = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    module = UnrolledGAN(*nets, 3)
    trainer(max_steps=1, precision="bf16-true").fit(module, DataLoader(torch.randn(8, 2), 4))
    assert module.values and all(value.isfinite().all() for value in module.values.values())


@pytest.mark.parametrize("penalty", [adversarial_lipschitz_penalty, finite_difference])
def test_slopes_of_any_network_in_half_precision(penalty: Any) -> None:
    """Ours cast what they are given, others do not."""
    net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    nn.init.constant_(net[0].weight, 2.0)
    x = torch.rand(16, 2)
    torch.manual_seed(0)
    right = float(penalty(net, x))
    torch.manual_seed(0)
    assert float(penalty(net.bfloat16(), x.bfloat16())) == pytest.approx(right, rel=0.2) and right > 0.5


class Attentive(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.unflatten(1, (1, 4, 2))
        return nn.functional.scaled_dot_product_attention(rows, rows, rows).flatten(1).sum(1)


def test_the_penalty_of_attention_is_exact() -> None:
    """Its gradient in float32, by the default method, is that of plain operations in float64."""
    x = torch.randn(3, 8)

    def gradient(x: torch.Tensor, method: Any) -> torch.Tensor:
        scale = torch.ones((), dtype=x.dtype, requires_grad=True)
        with double_backward(method):
            norm = gradient_norm(lambda y: Attentive()(y * scale), x).sum()
        return torch.autograd.grad(norm, scale)[0]

    before = torch.backends.cuda.flash_sdp_enabled()
    torch.testing.assert_close(gradient(x, "sparse").double(), gradient(x.double(), "plain"), rtol=1e-4, atol=1e-5)
    assert torch.backends.cuda.flash_sdp_enabled() == before


@pytest.mark.parametrize("whole", [True, False])
def test_the_penalty_of_a_compiled_critic_is_that_of_the_critic(whole: bool) -> None:
    """torch.compile by a backend that compiles nothing; of the critic, or of a part of it."""
    critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    x, expected = torch.randn(4, 2), torch.zeros(())
    for network in (critic, torch.compile(critic, backend="aot_eager") if whole else nn.Sequential(
            torch.compile(critic[:2], backend="aot_eager"), *critic[2:])):  # fmt: skip
        norm = gradient_norm(network, x).sum()
        (found,) = torch.autograd.grad(norm, critic[0].weight)
        assert equal(found, expected) or network is critic
        expected = found


def test_penalties_of_a_critic_that_is_compiled_late_or_called_by_another_function() -> None:
    """Compiled once it was penalised, and within a function that does not tell its network."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    critic, x = Own(), torch.randn(4, 2)
    slope = lambda net: torch.autograd.grad(gradient_norm(net, x).sum(), critic.layers[0].weight)[0]  # noqa: E731
    expected = slope(critic)
    critic.compile(backend="aot_eager")
    assert equal(slope(critic), expected) and equal(slope(lambda x: critic(x)), expected)


@pytest.mark.slow
def test_a_penalty_within_a_function_that_is_compiled() -> None:
    """There torch refuses to be told what to compile."""
    critic, x = ToyDiscriminator(shape=(2,), width=8, depth=1), torch.randn(4, 2)
    whole = torch.compile(lambda x: gradient_norm(critic.forward, x).sum(), backend="eager")
    torch.testing.assert_close(whole(x), gradient_norm(critic, x).sum())


def test_unrolling_and_commentaries_of_a_compiled_discriminator() -> None:
    critic = ToyDiscriminator(shape=(2,), width=8, depth=1).double()
    compiled, data = torch.compile(critic, backend="aot_eager"), torch.randn(8, 2, dtype=torch.float64)
    slopes = []
    for net in (critic, compiled):
        x = torch.ones_like(data).requires_grad_()
        fake = partial(score_with, net, x=x)
        phi = unroll(lambda phi, fake=fake: fake(phi).square().mean(), dict(net.named_parameters()), 2, 0.1)
        slopes.append(torch.autograd.grad(sum(p.sum() for p in phi.values()), x)[0])
    assert equal(*slopes)
    found = [commentary_weights(net, data, data[:4], -data, steps=2) for net in (critic, compiled)]
    assert equal(*found) and found[0].std() > 0


# ---------------------------------------------------------------------- data behind the first batch
@pytest.mark.parametrize(
    "labels, weights, words",
    [
        ([0, 9, 10, 1], [1.0] * 4, r"labels must lie in 0\.\.9, which the generator knows, got 0\.\.10"),
        ([0, -1, 1, 1], [1.0] * 4, r"labels must lie in 0\.\.9, which the generator knows, got -1\.\.1"),
        ([0, 1, 1, 1], [1.0, -2.0, 1.0, 1.0], r"weights must be 4 numbers >= 0, one per real sample, .* -2\."),
    ],
)
def test_a_later_batch_is_looked_at_too(labels: list[int], weights: list[float], words: str) -> None:
    conditional = {"shape": (2,), "width": 8, "depth": 1, "num_classes": 10}
    nets = ToyGenerator(latent_dim=3, **conditional), ToyDiscriminator(**conditional)  # type: ignore[arg-type]
    good = (torch.rand(4, 2), torch.tensor([0, 1, 2, 9]), torch.ones(4))
    bad = (torch.rand(4, 2), torch.tensor(labels), torch.tensor(weights))
    with pytest.raises(ValueError, match=words):
        trainer(max_steps=3).fit(GAN(*nets, 3), DataLoader([good, bad, good], batch_size=None))  # type: ignore[arg-type]


@pytest.mark.parametrize("rows, words", [(4, "The generator is conditional, but the data loader yields no labels"),
                                         (0, "The data loader yielded an empty batch")])  # fmt: skip
def test_a_later_batch_lacks_nothing(rows: int, words: str) -> None:
    options: dict[str, Any] = {"shape": (2,), "width": 8, "depth": 1, "num_classes": 2 if rows else None}
    module = GAN(ToyGenerator(latent_dim=3, **options), ToyDiscriminator(**options), 3)
    good = (torch.rand(4, 2), torch.tensor([0, 1, 1, 0]))
    with pytest.raises(ValueError, match=words):
        trainer(max_steps=3).fit(module, DataLoader([good, (torch.rand(rows, 2),), good], batch_size=None))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- numbers
def test_logistic_regression_is_not_held_back() -> None:
    """Where the likelihood is greatest its derivatives vanish; the usual penalty would make the slope too flat."""
    x = torch.randn(100, dtype=torch.float64) * 2
    real = torch.rand(100) < (3 * x).sigmoid()
    a, b = logistic_fit(x[real], x[~real])
    sides = [(y - (a * f + b).sigmoid()) for y, f in ((1, x[real]), (0, x[~real]))]
    assert abs(sum(float(s.mean()) for s in sides)) < 1e-4
    assert abs(sum(float((s * f).mean()) for s, f in zip(sides, (x[real], x[~real])))) < 1e-4
    with pytest.warns(UserWarning, match="A threshold tells all 3 real scores from the 2 generated ones"):
        a, _ = logistic_fit(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, 0.5]))
    assert 0 < a < 10


@pytest.mark.parametrize("stable_rank", [None, 0.5])
def test_spectral_norm_of_nothing(stable_rank: float | None) -> None:
    """A weight of zeros stays, has a gradient, and is normalised as soon as there is something."""
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    spectral_norm(layer, stable_rank=stable_rank)
    out = layer(torch.randn(5, 4))
    out.sum().backward()
    original: Any = layer.parametrizations["weight"].original  # type: ignore[index]
    assert equal(layer.weight, torch.zeros(3, 4)) and original.grad.isfinite().all()
    with torch.no_grad():
        original.copy_(torch.randn(3, 4))
    for _ in range(50):
        layer(torch.randn(5, 4))
    assert float(torch.linalg.matrix_norm(layer.weight, 2)) == pytest.approx(1, rel=1e-3)


def test_softplus_weights_far_below_zero() -> None:
    """softplus(l) = e^l there: the weights are a softmax, with a gradient that is not 0."""
    logits = torch.tensor([-300.0, -301.0, -310.0], requires_grad=True)
    weights = softplus_weights(logits)
    torch.testing.assert_close(weights, 3 * torch.softmax(logits, 0))
    (gradient,) = torch.autograd.grad(weights[0], logits)
    assert gradient[0] > 0.1 and gradient.isfinite().all()
    near, far = (softplus_weights(torch.tensor([0.0, -1.0]) - d) for d in (39.99, 40.01))
    torch.testing.assert_close(near, far)


@pytest.mark.parametrize("option", ["is_splits", "kid_subsets", "kid_subset_size"])
def test_scores_of_no_subset(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be an integer >= [12], got -1\."):
        GenerativeScores(torch.randn(10, 4), **{option: -1})


# ---------------------------------------------------------------------- resumes with other settings
def half(folder: Path, steps: int = 4, **options: Any) -> Path:
    """A checkpoint after some updates."""
    t = trainer(max_steps=steps)
    t.fit(make("gan", **options), plain(400, 4))
    t.save_checkpoint(folder / "half.ckpt")
    return folder / "half.ckpt"


def resumed(path: Path, module: GANModule, steps: int = 8, used: Any = (), data: Any = None) -> tuple[pl.Trainer, Any]:
    t = trainer(max_steps=steps, callbacks=list(used))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        given = {"datamodule": data} if data is not None else {"train_dataloaders": plain(400, 4)}
        t.fit(module, ckpt_path=path, **given)
    return t, [text for text in told(record) if "goes on with" in text or "when the checkpoint" in text]


def test_a_resume_with_the_same_settings_is_silent(tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr_g": 0.01, "scheduler_g": lambda o: LambdaLR(o, lambda i: 1 - i / 100)}
    t, words = resumed(half(tmp_path, **options), make("gan", **options))
    assert words == [] and t.optimizers[1].param_groups[0]["lr"] == pytest.approx(0.01 * 0.92)


def test_other_rates_and_betas_are_applied_and_told(tmp_path: Path) -> None:
    path = half(tmp_path, lr_g=0.001, lr_d=0.002, scheduler_g=lambda o: StepLR(o, 2, 0.5))
    module = make("gan", lr_g=0.05, lr_d=0.002, betas=(0.1, 0.9), d_steps=2, scheduler_g=lambda o: StepLR(o, 2, 0.5))
    t, words = resumed(path, module)
    d, g = (o.param_groups[0] for o in t.optimizers)
    assert (d["lr"], d["betas"], g["betas"]) == (0.002, (0.1, 0.9), (0.1, 0.9))
    assert g["lr"] == pytest.approx(0.05 * 0.5**4) and g["initial_lr"] == 0.05
    (text,) = words
    for part in ("d_steps 2 (was 1)", "lr of 'g' 0.05 (was 0.001)", "betas of 'd' [0.1, 0.9] (was [0.5, 0.999])"):
        assert part in text
    t.save_checkpoint(tmp_path / "b.ckpt")
    known = torch.load(tmp_path / "b.ckpt", weights_only=True)["hyper_parameters"]
    assert known["lr_g"] == 0.05 and tuple(known["betas"]) == (0.1, 0.9)
    assert resumed(tmp_path / "b.ckpt", module, 9)[1] == []
    assert text.count("of 'd'") == 1 and text.count("of 'g'") == 2  # betas, and a rate
    counts = [{float(kept["step"]) for kept in o.state.values()} for o in t.optimizers]
    assert counts == [{12.0}, {8.0}], "the moments of both go on"


def fade(i: int, n: float) -> float:
    return 1 - i / n


def fading(n: float) -> Any:
    return lambda i: 1 - i / n


def two_parts(o: Any) -> Any:
    return SequentialLR(o, [LambdaLR(o, fading(100)), LambdaLR(o, fading(50))], [2])


@pytest.mark.parametrize(
    "schedule, factor",
    [(lambda o: LambdaLR(o, fading(100)), 0.92), (lambda o: LambdaLR(o, lambda i: (i + 1) / 100), 0.09),
     (two_parts, 0.88)],
)  # fmt: skip
def test_another_rate_is_scaled_by_its_own_schedule(schedule: Any, factor: float, tmp_path: Path) -> None:
    """One that takes its rates from those at the beginning, too, alone or as a part; the other player's stays."""
    path = half(tmp_path, lr_g=0.001, lr_d=0.002, scheduler_g=schedule, scheduler_d=schedule)
    t, words = resumed(path, make("gan", lr_g=0.05, lr_d=0.002, scheduler_g=schedule, scheduler_d=schedule))
    rates = [o.param_groups[0]["lr"] for o in t.optimizers]
    assert rates == pytest.approx([0.002 * factor, 0.05 * factor])
    assert len(words) == 1 and "lr of 'g'" in words[0] and "of 'd'" not in words[0] and "schedule" not in words[0]


def test_each_group_of_an_optimizer_has_its_own_settings(tmp_path: Path) -> None:
    """One of two groups has other ones; how a step is computed (``foreach``) is no setting."""

    def grouped(rate: float, momentum: float, foreach: bool) -> Any:
        def build(parameters: Any) -> Any:
            first, *rest = parameters
            return SGD([{"params": [first]}, {"params": rest, "lr": rate, "momentum": momentum}], 0.1, foreach=foreach)

        return {"optimizer_g": build, "scheduler_g": lambda o: LambdaLR(o, fading(100))}

    path = half(tmp_path, **grouped(0.01, 0.5, False))
    assert resumed(path, make("gan", **grouped(0.01, 0.5, True)), 5)[1] == []
    t, (text,) = resumed(path, make("gan", **grouped(0.02, 0.9, False)))
    first, rest = t.optimizers[1].param_groups
    assert first["lr"] == pytest.approx(0.1 * 0.92) and rest["lr"] == pytest.approx(0.02 * 0.92)
    assert (first["momentum"], rest["momentum"]) == (0, 0.9) and "momentum of 'g' 0.9 (was 0.5)" in text


def test_who_had_no_rate_begins_anew(tmp_path: Path) -> None:
    """Its moments are of gradients that moved nothing, which its steps would be small by; the other player's stay."""
    path, module = half(tmp_path, lr_g=0.0), make("gan", lr_g=0.05)
    before = torch.load(path, weights_only=True)["state_dict"]
    t, words = resumed(path, module, 5)
    moved = torch.cat([(p - before[f"generator.{n}"]).flatten().abs() for n, p in module.generator.named_parameters()])
    torch.testing.assert_close(
        moved[moved > 0], torch.full_like(moved[moved > 0], 0.05), rtol=1e-3, atol=0
    )  # a first step
    counts = [{float(kept["step"]) for kept in o.state.values()} for o in t.optimizers]
    assert counts == [{5.0}, {1.0}] and "lr of 'g' 0.05 (was 0.0)" in words[0]


class Fading:
    """A schedule that is an object."""

    def __init__(self, n: float) -> None:
        self.n = n

    def __call__(self, i: int) -> float:
        return 1 - i / self.n


def milestones(*at: int) -> Any:
    """A schedule of a list, and of a name that has no value."""
    steps = [*at]

    def factor(i: int) -> float:
        return 0.5 ** sum(i >= step for step in steps) if i >= 0 else float(later)

    return factor
    later = 1.0


@pytest.mark.parametrize(
    "old, new, expected",
    [
        (None, lambda o: StepLR(o, 2, 0.5), 0.5**4),
        (None, lambda o: LinearLR(o, 0.5, 1.0, 10), 0.9),
        (lambda o: LambdaLR(o, fading(100)), lambda o: LambdaLR(o, fading(10)), 0.2),
        (lambda o: LambdaLR(o, lambda i, n=100: 1 - i / n), lambda o: LambdaLR(o, lambda i, n=10: 1 - i / n), 0.2),
        (lambda o: LambdaLR(o, Fading(100)), lambda o: LambdaLR(o, Fading(10)), 0.2),
        (lambda o: LambdaLR(o, partial(fade, n=100)), lambda o: LambdaLR(o, partial(fade, n=10)), 0.2),
        (lambda o: LambdaLR(o, milestones(90)), lambda o: LambdaLR(o, milestones(3, 5)), 0.25),
        (two_parts, lambda o: SequentialLR(o, [LambdaLR(o, fading(100)), LambdaLR(o, fading(10))], [2]), 0.4),
        (lambda o: StepLR(o, 2, 0.5), None, 1.0),
        (lambda o: StepLR(o, 2, 0.5), lambda o: StepLR(o, 4, 0.1), 0.01),
        (lambda o: LambdaLR(o, lambda i: 1 - i / 100), lambda o: LambdaLR(o, lambda i: 1 - i / 10), 0.2),
        (lambda o: StepLR(o, 2, 0.5), lambda o: LinearLR(o, 1.0, 0.0, 10), 0.2),
    ],
)
def test_another_schedule_is_where_it_would_be(old: Any, new: Any, expected: float, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr_g": 0.01, "lr_d": 0.01, "scheduler_d": lambda o: StepLR(o, 2, 0.5)}
    t, words = resumed(half(tmp_path, scheduler_g=old, **options), make("gan", scheduler_g=new, **options))
    d, g = (o.param_groups[0] for o in t.optimizers)
    assert (d["lr"], g["lr"], g["initial_lr"]) == pytest.approx((0.01 * 0.5**4, 0.01 * expected, 0.01))
    one = SGD([torch.zeros(1)], 0.01)
    now, was = ("none" if make_it is None else type(make_it(one)).__name__ for make_it in (new, old))
    was = "one of other settings" if now == was else was
    assert words == [f"The run goes on with other settings: schedule of 'g' {now} (was {was})."]


@pytest.mark.parametrize(
    "old, config, kind, expected",
    [
        ({"interval": "epoch"}, {"interval": "epoch"}, lambda o: StepLR(o, 1, 0.1), 0.1**3),
        ({"interval": "step"}, {"interval": "epoch"}, lambda o: StepLR(o, 1, 0.5), 0.5**3),
        ({"interval": "step"}, {"interval": "step", "frequency": 3}, lambda o: StepLR(o, 1, 0.5), 0.5**4),
        ({"interval": "epoch"}, {"monitor": "g/loss", "interval": "epoch"}, ReduceLROnPlateau, 1.0),
    ],
)
def test_another_schedule_in_lightnings_words(old: Any, config: Any, kind: Any, expected: Any, tmp_path: Path) -> None:
    """After two epochs of four updates, for a third; a plateau is waited for anew."""

    class Scheduled(GAN):
        config, kind = old, staticmethod(lambda o: StepLR(o, 1, 0.5))

        def configure_optimizers(self) -> Any:
            d, g = SGD(self.discriminator.parameters(), 1.0), SGD(self.generator.parameters(), 1e-6)
            return [d, g], [{"scheduler": self.kind(g), **self.config}]

    t = trainer(max_epochs=2)
    t.fit(own(Scheduled), plain(16, 4))
    t.save_checkpoint(tmp_path / "a.ckpt")
    Scheduled.config, Scheduled.kind = config, staticmethod(kind)  # type: ignore[assignment]
    t, words = resumed(tmp_path / "a.ckpt", own(Scheduled), 12, data=Named("", 16))
    assert t.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-6 * expected)
    assert len(words) == 1 and "schedule of 'g'" in words[0] and "of 'd'" not in words[0]


def test_a_schedule_that_holds_itself(tmp_path: Path) -> None:
    held: dict[str, Any] = {"n": 100}
    held["itself"] = held
    assert plain_values(partial(fade, n=nn.Linear(1, 1)))[2] == {"n": ["Linear", None]}
    assert plain_values(lambda i: held["n"] - i)[-1] == {"n": 100, "itself": ["dict", None]}
    itself = Fading(10)
    itself.held = [itself]  # type: ignore[attr-defined]
    assert plain_values(itself) == ["Fading", {"n": 10, "held": [["Fading", None]]}]
    trainer(max_steps=1).fit(make("gan", scheduler_g=lambda o: LambdaLR(o, itself)), plain(16, 4))


def test_checkpoints_without_settings_are_compared_by_hyperparameters(tmp_path: Path) -> None:
    path = half(tmp_path, lr_g=0.001)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["engine"]["settings"]
    torch.save(checkpoint, path)
    t, words = resumed(path, make("gan", lr_g=0.01, betas=(0.1, 0.9)))
    assert t.optimizers[1].param_groups[0]["lr"] == pytest.approx(0.01) and "(was 0.001)" in words[0]
    assert [o.param_groups[0]["betas"] for o in t.optimizers] == [(0.1, 0.9)] * 2 and "(was (0.5, 0.999))" in words[0]


@pytest.mark.parametrize(
    "build",
    [
        lambda: make("gan", optimizer_g=lambda p: torch.optim.Adam(p, 0.03, (0.8, 0.9))),
        lambda: own(Scheduled, lr_g=0.3),
    ],
)
def test_checkpoints_without_settings_tell_nothing_of_own_optimizers(build: Any, tmp_path: Path) -> None:
    Scheduled.config = {}
    t = trainer(max_steps=4)
    t.fit(build(), plain(400, 4))
    t.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del checkpoint["engine"]["settings"]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    assert resumed(tmp_path / "a.ckpt", build())[1] == []


def test_what_cannot_go_on_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be one of WGANGP, got one of GAN: begin with its weights"):
        resumed(half(tmp_path), make("wgan_gp"))
    with pytest.raises(ValueError, match=r"must be those of the checkpoint, Adam, Adam, got Adam, SGD"):
        resumed(half(tmp_path), make("gan", optimizer_g=lambda p: SGD(p, 0.1)))


def test_a_checkpoint_of_a_module_that_was_not_ours_is_refused(tmp_path: Path) -> None:
    class Foreign(pl.LightningModule):
        """A GAN by hand, with networks of the same names and optimizers in another order."""

        def __init__(self) -> None:
            super().__init__()
            nets = make("gan")
            self.generator, self.discriminator, self.automatic_optimization = nets.generator, nets.discriminator, False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(net.parameters()) for net in (self.generator, self.discriminator)]

    t = trainer(max_steps=2)
    t.fit(Foreign(), plain(16, 4))
    t.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"^The checkpoint must be one of GAN, got one of a module that was not ours"):
        resumed(tmp_path / "a.ckpt", make("gan"))


def test_a_class_of_the_users_may_extend_that_of_the_checkpoint(tmp_path: Path) -> None:
    assert resumed(half(tmp_path), own(Scheduled.__base__))[0].global_step == 8

    class Mine(GAN):
        pass

    assert resumed(half(tmp_path), own(Mine))[0].global_step == 8


def test_averages_that_begin_or_end_are_told(tmp_path: Path) -> None:
    module = make("gan")
    _, words = resumed(half(tmp_path), module, used=[EMA()])
    assert "averaged weights, from update 4 on (the checkpoint has none)" in words[0] and module.ema is not None
    module.trainer.save_checkpoint(tmp_path / "ema.ckpt")
    assert resumed(tmp_path / "ema.ckpt", make("gan"), 9, used=[EMA()])[1] == []
    module = make("gan")
    _, words = resumed(tmp_path / "ema.ckpt", module, 12)
    assert "no averaged weights" in words[0] and module.ema is None


def test_data_that_have_grown_between_two_epochs_are_told(tmp_path: Path) -> None:
    t = trainer(max_steps=4)
    t.fit(make("gan"), plain(16, 4))
    t.save_checkpoint(tmp_path / "a.ckpt")
    t, found = resumed(tmp_path / "a.ckpt", make("gan"), data=Named("", 20))
    assert "The data have 20 items, and had 16 when the checkpoint was written." in found and t.global_step == 8


class Named(pl.LightningDataModule):
    def __init__(self, name: str, items: int) -> None:
        super().__init__()
        self.name, self.items = name, items

    def train_dataloader(self) -> DataLoader:
        return plain(self.items, 4)


@pytest.mark.parametrize(
    "name, items, words",
    [("ring", 400, []), ("grid", 40, ["The run goes on with other data, grid (was ring), from their beginning."]),
     ("ring", 404, ["The data have 404 items, and had 400 when the checkpoint was written: the epoch begins anew."])],
)  # fmt: skip
def test_other_data_are_told(name: str, items: int, words: list[str], tmp_path: Path) -> None:
    t = trainer(max_steps=4)
    t.fit(make("gan"), datamodule=Named("ring", 400))
    t.save_checkpoint(tmp_path / "a.ckpt")
    t, found = resumed(tmp_path / "a.ckpt", make("gan"), data=Named(name, items))
    assert found == words and t.global_step == 8
    assert torch.equal(t.lightning_module.last_batch.real, plain(items, 4).dataset[28:32] if not words else  # type: ignore[union-attr,index]
                       plain(items, 4).dataset[12:16])  # type: ignore[index]  # fmt: skip


# ---------------------------------------------------------------------- Lightning's own aids
@pytest.mark.parametrize("batches", [1, 2])
def test_batches_to_overfit_are_whole_cycles(batches: int) -> None:
    """One of d_steps = 2 and the generator's would be of three epochs else; the same ones in each epoch."""
    module, fitting = make("wgan_gp", d_steps=2), trainer(max_epochs=3, overfit_batches=batches)
    fitting.fit(module, plain())
    assert fitting.global_step == 3 * batches and module.progress.updates == {"d": 6 * batches, "g": 3 * batches}


class Sized(pl.LightningDataModule):
    batch_size = 2

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.rand(40, 2) * 2 - 1, self.batch_size)


def test_a_batch_size_is_found_before_training() -> None:
    data, finder = Sized(), callbacks.BatchSizeFinder("power", steps_per_trial=1, init_val=2, max_trials=2)
    module, fitting = make("wgan_gp"), trainer(max_steps=3, callbacks=[finder])
    fitting.fit(module, datamodule=data)
    assert data.batch_size in (4, 8) and fitting.global_step == 3  # Lightning 2.4 tries once more


# ---------------------------------------------------------------------- overrides that plain Lightning is used to
def test_a_forward_of_the_users_is_not_what_is_trained() -> None:
    """Samples are the network's alone, so what is trained is too, and it is said."""

    class Shifted(GAN):
        def forward(self, z: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return self.generator(z) + 5

    shifted, ours = own(Shifted), own(GAN)
    for module in (shifted, ours):
        torch.manual_seed(3)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            trainer(max_steps=2).fit(module, plain(16, 4))
        said = "Shifted.forward is called neither in training nor by Shifted.sample: its generator alone makes samples"
        assert any(said in line for line in told(record)) == (module is shifted)
    assert equal(state(shifted), state(ours))

    class Made(Shifted):
        def make_fake(self, batch: Any) -> torch.Tensor:
            return self(batch.z)

    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        trainer(max_steps=1).fit(own(Made), plain(16, 4))
    assert "forward is called neither" not in " ".join(told(record))


def test_a_hook_may_be_called_by_name() -> None:
    class Named(GAN):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            super().on_save_checkpoint(checkpoint=checkpoint)

    t = trainer(max_steps=1)
    t.fit(own(Named), plain(16, 4))
    t.save_checkpoint("named.ckpt")
    assert "engine" in torch.load("named.ckpt", weights_only=True)


def test_a_score_of_a_function_of_the_users_may_be_a_monitor() -> None:
    logging = callbacks.LambdaCallback(on_train_epoch_end=lambda trainer, module: module.log("metrics/mine", 1.0))
    t = trainer(max_epochs=2, callbacks=[logging, callbacks.EarlyStopping("metrics/mine")])
    t.fit(make("gan"), plain(8, 4))
    assert t.current_epoch == 2


def test_callbacks_find_the_values_at_the_end() -> None:
    class Looking(callbacks.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 5:
                assert trainer.logged_metrics["g/loss"] == trainer.callback_metrics["g/loss"] != 0

    t = trainer(max_steps=7, log_every_n_steps=5, callbacks=[Looking()])
    t.fit(module := make("gan"), plain(100, 4))
    for values in (t.callback_metrics, t.logged_metrics):
        assert values["g/loss"] == module.values["g/loss"] and values["d/loss"] == module.values["d/loss"]


def test_a_rate_is_not_found_by_lightning() -> None:
    """Its trial has callbacks of its own alone, in place of ours."""
    tuner = pytest.importorskip(f"{pl.__name__}.tuner").Tuner(trainer(max_steps=3))
    module = make("vae")
    module.lr = 1e-3
    with pytest.raises(ValueError, match=r"^lr_find must be given a module with automatic optimization, got VAE"):
        tuner.lr_find(module, plain(), num_training=2)
