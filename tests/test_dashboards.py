"""W&B and TensorBoard: the same groups, the whole configuration, histograms, and alerts when a training goes wrong."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from common import make, plain, trainer
from test_cli import TOY
from torch import nn

from lightning_gans.callbacks import GradientNorms, ModeCoverage, NonFiniteError, NonFiniteGuard, Rates, WandbSetup
from lightning_gans.callbacks.gradient_norms import layer_histograms
from lightning_gans.cli import main
from lightning_gans.compat.lightning import callbacks, loggers
from lightning_gans.datamodules import Ring


class Board(loggers.Logger):
    """In the place of W&B's logger: what a run is told."""

    name = version = "board"
    made: list[Board] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)
        self.config: dict[str, Any] = {}
        self.alerts: list[tuple[str, str, str]] = []
        self.rows: list[dict[str, Any]] = []
        self.experiment = SimpleNamespace(
            define_metric=lambda *_, **__: None,
            config=SimpleNamespace(update=lambda values, **_: self.config.update(values)),
            alert=lambda title, text, level: self.alerts.append((title, text, level)),
        )

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def log_image(self, *_: Any, **__: Any) -> None:
        """Nothing."""


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setattr(loggers, "WandbLogger", Board)
    return Board()


# ---------------------------------------------------------------------- alerts
def looks(board: Board, setup: WandbSetup, values: list[dict[str, float]]) -> list[int]:
    """At which of the measurements an alert was sent."""
    modes, sent = ModeCoverage(every_n_steps=1), []
    for i, found in enumerate(values):
        modes.history.append({"step": i, **found})
        before = len(board.alerts)
        for _ in range(2):  # each update looks
            setup._look(SimpleNamespace(callbacks=[modes], loggers=[board], global_step=i))
        sent += [i] * (len(board.alerts) - before)
    return sent


def test_an_alert_when_modes_are_lost(board: Board) -> None:
    """Once, and again when they are lost again; the same for a FID that doubles."""
    lost = [{"metrics/modes": n} for n in (2.0, 8.0, 5.0, 3.0, 1.0, 7.0, 3.0)]
    assert looks(board, WandbSetup(), lost) == [3, 6]
    told = "metrics/modes is 3 at update 3, its best was 8."
    assert board.alerts[0] == ("The generator may have collapsed", told, "WARN")
    assert looks(board, WandbSetup(), [{"metrics/fid/lenet": v} for v in (90.0, 10.0, 19.0, 21.0)]) == [3]
    assert looks(board, WandbSetup(collapse=0.9), lost) == [2], "7 is no recovery"
    assert looks(board, WandbSetup(), [{"metrics/reverse_kl": v} for v in (1e-4, 1.0)]) == []
    nan = [{"metrics/modes": v} for v in (8.0, float("nan"), 8.0)]
    assert looks(board, WandbSetup(), nan) == []
    with pytest.raises(ValueError, match="collapse must be in"):
        WandbSetup(collapse=1.0)


@pytest.mark.parametrize("alerts", [True, False])
def test_an_alert_when_a_value_is_not_finite(board: Board, alerts: bool) -> None:
    fit = trainer(max_steps=60, logger=board, callbacks=[WandbSetup(alerts=alerts)], log_every_n_steps=1)
    with pytest.raises(NonFiniteError):
        fit.fit(make("gan", lr_d=1e30), train_dataloaders=plain())
    assert [(title, level) for title, _, level in board.alerts] == [("A value is not finite", "ERROR")] * alerts


class Spoiled(NonFiniteGuard):
    """Finds something in the third update."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        self.gone_back += pl_module.global_step == 3


def test_an_alert_when_a_guard_went_back(board: Board) -> None:
    fit = trainer(max_steps=5, logger=board, callbacks=[Spoiled("rollback"), WandbSetup()], log_every_n_steps=1)
    fit.fit(make("gan"), train_dataloaders=plain())
    assert board.alerts == [("A value was not finite", "Went back by update 3.", "WARN")]


def test_a_guard_counts_how_often_it_went_back() -> None:
    guard = NonFiniteGuard("rollback", lr_factor=1e-2, max_rollbacks=3)
    with pytest.raises(NonFiniteError), pytest.warns(UserWarning, match="Going back"):
        trainer(max_steps=200, callbacks=[guard]).fit(make("gan", lr_d=1e30), train_dataloaders=plain())
    assert guard.gone_back >= 1


# ---------------------------------------------------------------------- what is logged
def test_histograms_are_numpys() -> None:
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    net(torch.randn(11, 5)).square().sum().backward()
    net[2].bias.requires_grad_(False).grad = None
    found = layer_histograms(net, bins=16)
    assert found.keys() == {"0", "2"}
    for name, gradients in {"0": [net[0].weight, net[0].bias], "2": [net[2].weight]}.items():
        elements = torch.cat([p.grad.flatten() for p in gradients if p.grad is not None]).numpy()
        counts, edges = np.histogram(elements, 16)
        assert found[name][0].sum() == len(elements) and np.abs(found[name][0].numpy() - counts).sum() <= 2  # edges
        np.testing.assert_allclose(found[name][1].numpy(), edges, rtol=1e-5, atol=1e-9)
    net[2].weight.grad.fill_(float("inf"))  # type: ignore[union-attr]
    net[0].weight.grad.fill_(1.0), net[0].bias.grad.fill_(1.0)  # type: ignore[union-attr]
    found = layer_histograms(net)
    assert found.keys() == {"0"} and found["0"][0].sum() == 42


def test_both_dashboards_have_the_same_groups(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, scores, gradients, rates and times; and histograms, by option."""
    pytest.importorskip("tensorboard")
    wandb = pytest.importorskip("wandb")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tensorboard = loggers.TensorBoardLogger(tmp_path)
    norms = GradientNorms(every_n_steps=2, picture_every=9, histograms=True)
    watching = [Rates(), ModeCoverage(every_n_steps=2, num_samples=20), norms]
    fit = trainer(max_steps=4, logger=[board, tensorboard], callbacks=watching, log_every_n_steps=2)
    fit.fit(make("gan"), datamodule=Ring(batch_size=4))
    events = EventAccumulator(tensorboard.log_dir)
    events.Reload()
    tags = events.Tags()
    theirs = {name: value for row in board.rows for name, value in row.items()}
    histograms = {name for name, value in theirs.items() if isinstance(value, wandb.Histogram)}
    assert set(tags["scalars"]) - {"epoch", "hp_metric"} == theirs.keys() - histograms - {"epoch"}
    assert {name.split("/")[0] for name in theirs} == {"d", "g", "grad", "lr", "metrics", "time"}
    assert set(tags["histograms"]) == histograms and {name.split("/")[1] for name in histograms} == {"d", "g"}
    assert [len(histograms & row.keys()) for row in board.rows if histograms & row.keys()] == [len(histograms)] * 2
    (one, *_) = sorted(histograms)
    kept = events.Histograms(one)[-1].histogram_value
    assert kept.num == sum(theirs[one].histogram) and np.isclose(kept.max, theirs[one].bins[-1])


def test_the_clock_starts_behind_the_scores_of_update_0() -> None:
    """For which a classifier may be trained: two runs of one configuration would not be alike."""
    clock = Rates()

    class Slow(callbacks.Callback):
        def on_train_start(self, *_: Any) -> None:
            time.sleep(0.5)
            assert clock.seconds == 0

    trainer(max_steps=1, callbacks=[clock, Slow()]).fit(make("gan"), datamodule=Ring(batch_size=4))
    assert clock.seconds > 0


def test_the_whole_configuration_is_told(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOY, "seed_everything", 7)
    Path("a.yaml").write_text(yaml.safe_dump(TOY))
    main(["fit", "--config=a.yaml", "--name=a", "--trainer.max_steps=1", f"--trainer.logger={__name__}.Board"])
    told = Board.made[-1].config["config"]
    assert told == yaml.safe_load(Path("runs/a/config.yaml").read_text()) and told["seed_everything"] == 7
    assert told["model"]["init_args"]["latent_dim"] == 2 and told["data"]["init_args"]["batch_size"] == 16
    made = len(Board.made)
    main(["predict", "--ckpt_path=runs/a", "--samples=1"])  # logs nothing, and begins no run of a dashboard's
    assert len(Board.made) == made
