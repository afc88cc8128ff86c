"""What people have run into in training: fits that do nothing, monitors, schedulers, hooks and resumes of their own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from common import make, plain, state, trainer
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from lightning_gans import GAN, GANModule
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.compat.lightning import callbacks, pl


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


# ---------------------------------------------------------------------- monitors
class Scores(ScoreCallback):
    """A score that is known beforehand."""

    label = "told"

    def __init__(self, every: int, values: list[float], at_start: bool = True) -> None:
        super().__init__(every, at_start, 0)
        self.values = values

    def measure(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        return {"metrics/told": self.values[min(len(self.history), len(self.values) - 1)]}


@pytest.mark.parametrize("patience, stop", [(1, 24), (2, 36)])
def test_early_stopping_counts_measurements(patience: int, stop: int) -> None:
    """Epochs of 4 updates, a score each 12: 3, 2, 2, 2 ... stops ``patience`` measurements after the second."""
    stopping = callbacks.EarlyStopping("metrics/told", patience=patience)
    t = trainer(max_steps=60, callbacks=[Scores(12, [3.0, 2.0]), stopping], default_root_dir=".")
    t.fit(make("gan"), plain(16, 4))
    assert t.global_step == stop and "on_train_epoch_end" not in vars(stopping)


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


def test_the_best_checkpoint_is_that_of_the_loss_at_its_step(tmp_path: Path) -> None:
    losses: dict[int, float] = {}

    class Note(callbacks.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            losses[trainer.global_step] = float(pl_module.values["g/loss"])

    best = callbacks.ModelCheckpoint(tmp_path, "{step}", "g/loss", every_n_train_steps=2, save_top_k=-1)
    trainer(max_steps=6, callbacks=[Note(), best], enable_checkpointing=True).fit(make("gan"), plain(12, 4))
    found = {Path(path).stem: float(value) for path, value in best.best_k_models.items()}
    assert found == pytest.approx({f"step={step}": losses[step] for step in (2, 4, 6)})


@pytest.mark.parametrize("monitor", ["metrics/toad", "g/los"])
@pytest.mark.parametrize("kind", [callbacks.EarlyStopping, callbacks.ModelCheckpoint])
def test_a_monitor_that_nothing_measures(monitor: str, kind: Any, tmp_path: Path) -> None:
    who = kind(monitor=monitor)
    words = rf"{kind.__name__}: monitor must be one of .*g/loss.*, got '{monitor}', which nothing measures\."
    t = trainer(max_steps=40, callbacks=[Scores(4, [1.0]), who], enable_checkpointing=True, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match=words):
        t.fit(make("gan"), plain(16, 4))
    assert t.global_step == 4


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


# ---------------------------------------------------------------------- methods of the user's
def test_callbacks_without_ours_are_told() -> None:
    class Mine(GAN):
        def configure_callbacks(self) -> Any:
            return [callbacks.Callback()]

    with pytest.raises(ValueError, match=r"Mine\.configure_callbacks must return what super\(\)\.configure_callbacks"):
        trainer(max_steps=1).fit(own(Mine), plain())


def test_a_training_step_without_ours_is_told() -> None:
    class Mine(GAN):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            """Does something else."""

    with pytest.warns(UserWarning, match=r"Mine\.training_step must call super\(\)\.training_step\(dataloader_iter\)"):
        trainer(max_epochs=1).fit(own(Mine), plain(8, 4))
