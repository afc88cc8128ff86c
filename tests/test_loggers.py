"""metrics.csv: a row per step, whole at any moment, and continued by a resumed run."""

from __future__ import annotations

import csv
import errno
import importlib.util
import math
import os
import pickle
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import make, plain, trainer
from PIL import Image
from test_interruption import CONFIG

from lightning_gans.callbacks import ModeCoverage
from lightning_gans.callbacks.probe import log_image
from lightning_gans.cli import main
from lightning_gans.cli.gan_cli import offline_without_login
from lightning_gans.compat.lightning import callbacks, loggers, pl
from lightning_gans.datamodules import Ring
from lightning_gans.runs import metrics_csv
from lightning_gans.runs.metrics_csv import MetricsCSV


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_values_of_one_step_share_a_row(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"d/loss": 0.1, "g/loss": 2}, step=3)
    logger.log_metrics({"metrics/fid": torch.tensor(7.5)}, step=3)  # type: ignore[dict-item]
    logger.log_metrics({"d/loss": 0.2}, step=6)
    assert rows(tmp_path) == [
        {"step": "3", "d/loss": "0.1", "g/loss": "2.0", "metrics/fid": "7.5"},
        {"step": "6", "d/loss": "0.2", "g/loss": "", "metrics/fid": ""},
    ]


def test_every_value_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A run that is killed right after its score was logged has not lost it."""
    logger = MetricsCSV(tmp_path)
    for step in range(1, 6):
        logger.log_metrics({"a": step}, step=step)
        assert [row["a"] for row in rows(tmp_path)] == [f"{s}.0" for s in range(1, step + 1)]
        logger.log_metrics({"a": -step, "b": 1.5}, step=step)
        assert rows(tmp_path)[-1] == {"step": str(step), "a": f"-{step}.0", "b": "1.5"}
        logger.log_metrics({"a": step}, step=step)
    assert [float(row["b"]) for row in rows(tmp_path)] == [1.5] * 5


def test_numbers_are_exact(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"third": 1 / 3, "tiny": 1e-300, "nan": math.nan, "inf": math.inf}, step=0)
    (row,) = rows(tmp_path)
    assert (float(row["third"]), float(row["tiny"]), row["nan"], row["inf"]) == (1 / 3, 1e-300, "nan", "inf")


def test_a_new_column_keeps_the_old_rows(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    for step in (1, 2, 3):
        logger.log_metrics({f"column, {step}": step}, step=step)
    assert rows(tmp_path) == [
        {"step": str(a), **{f"column, {b}": f"{b}.0" if a == b else "" for b in (1, 2, 3)}} for a in (1, 2, 3)
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_resumed_run_goes_on_in_the_file(tmp_path: Path) -> None:
    """Rows from before stay; those that a killed run wrote after its last checkpoint are written anew, once."""
    first = MetricsCSV(tmp_path)
    for step in (2, 4, 6, 8):
        first.log_metrics({"a": step, "only before": 1}, step=step)
    second = MetricsCSV(tmp_path)
    second.goes_on_from(5)
    second.log_metrics({"a": -6, "only after": 2}, step=6)
    second.log_metrics({"a": -8}, step=8)
    assert [(row["step"], row["a"], row["only before"], row["only after"]) for row in rows(tmp_path)] == [
        ("2", "2.0", "1.0", ""), ("4", "4.0", "1.0", ""), ("6", "-6.0", "", "2.0"), ("8", "-8.0", "", ""),
    ]  # fmt: skip


def test_a_long_run_keeps_one_row(tmp_path: Path) -> None:
    """What the logger holds does not grow with the run, whose last row may gain columns late."""

    def held(logger: MetricsCSV) -> int:
        return len(pickle.dumps(vars(logger)))

    logger, sizes = MetricsCSV(tmp_path), []
    for step in range(100, 300):
        logger.log_metrics({"a": 1.5, "b": step}, step=step)
        sizes.append(held(logger))
    assert max(sizes[1:]) <= sizes[1] + 8  # the file is longer, and so is the number of where its last row begins
    logger.log_metrics({"late": 3}, step=299)
    logger.log_metrics({"later": 4}, step=300)
    found = rows(tmp_path)
    assert [int(row["step"]) for row in found] == list(range(100, 301)) and held(logger) < 2 * sizes[1]
    assert [float(row["b"]) for row in found[:-1]] == list(range(100, 300))
    assert [(row["b"], row["late"], row["later"]) for row in found[-2:]] == [("299.0", "3.0", ""), ("", "", "4.0")]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_rewrite_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool) -> None:
    logger = MetricsCSV(tmp_path)
    for step in (1, 2):
        logger.log_metrics({"a": step}, step=step)
    if resumed:
        logger = MetricsCSV(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(metrics_csv, "replacing", full)
        logger.log_metrics({"b": 3}, step=3)
    assert [row["a"] for row in rows(tmp_path)] == ["1.0", "2.0"]
    logger.log_metrics({"a": 3}, step=3)
    assert [(row["a"], row["b"]) for row in rows(tmp_path)] == [("1.0", ""), ("2.0", ""), ("3.0", "3.0")]


def full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "the disk is full")


def test_rows_wait_for_a_disk_that_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line is written over, and what could not be written comes with the next row; a new column among them."""

    def half(logger: MetricsCSV) -> None:
        with logger.path.open("r+b") as file:
            file.seek(logger._last)
            file.write(b"3,3")
        full()

    logger = MetricsCSV(tmp_path)
    for step in (1, 2):
        logger.log_metrics({"a": step + 0.5}, step=step)
    with monkeypatch.context() as patched:
        patched.setattr(MetricsCSV, "_write_last", half)
        patched.setattr(metrics_csv, "replacing", full)
        for step, values in ((3, {"a": 3.5}), (4, {"a": 4.5, "b": 4.0})):
            with pytest.raises(OSError, match="full"):
                logger.log_metrics(values, step=step)
    for step in (5, 6):
        logger.log_metrics({"a": step + 0.5}, step=step)
    found = [(row["step"], row["a"], row["b"]) for row in rows(tmp_path)]
    assert found == [(str(step), f"{step}.5", "4.0" if step == 4 else "") for step in range(1, 7)]
    assert len(logger._rows) == 1


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a\n2,2.0\n4,4.0\n5,0.1234")
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"a": 6}, step=6)
    assert [row["step"] for row in rows(tmp_path)] == ["2", "4", "6"]


def test_a_foreign_file_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("hello\nthere,you\n")
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"a": 6}, step=6)
    assert rows(tmp_path) == [{"step": "6", "a": "6.0"}]


def test_training_logs_by_generator_updates(tmp_path: Path) -> None:
    def fit(max_steps: int, checkpoint: Path | None = None) -> list[dict[str, str]]:
        t = trainer(max_steps=max_steps, log_every_n_steps=2, logger=MetricsCSV(tmp_path))
        t.fit(make("wgan_gp", d_steps=3), train_dataloaders=plain(), ckpt_path=checkpoint)
        t.save_checkpoint(tmp_path / "a.ckpt")
        return rows(tmp_path)

    before = fit(5)
    assert [row["step"] for row in before] == ["2", "4"]
    assert [row["time/images_seen"] for row in before] == [f"{step * 3 * 4}.0" for step in (2, 4)]
    assert {"d/loss", "g/loss", "d/gradient_penalty", "d/wasserstein"} <= before[0].keys()
    after = fit(8, tmp_path / "a.ckpt")
    assert [row["step"] for row in after] == ["2", "4", "6", "8"] and after[:2] == before


class Scores(pl.Callback):
    """Logs one where a fit begins, as `ScoreCallback` does."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.logger.log_metrics({"metrics/a": 0.5}, step=trainer.global_step)  # type: ignore[union-attr]


def test_rows_behind_the_resumed_update_are_dropped_however_often_it_logs(tmp_path: Path) -> None:
    """Those of the run that died, which logged more often, would be told as of this one."""
    options: dict[str, Any] = {"logger": MetricsCSV(tmp_path), "log_every_n_steps": 1}
    first = trainer(max_steps=3, **options)
    first.fit(make("gan"), plain())
    first.save_checkpoint(tmp_path / "a.ckpt")
    trainer(max_steps=7, **options).fit(make("gan"), plain(), ckpt_path=tmp_path / "a.ckpt")
    before = rows(tmp_path)
    for scores in ([], [Scores()]):
        options = {"logger": MetricsCSV(tmp_path), "log_every_n_steps": 4, "callbacks": scores}
        trainer(max_steps=9, **options).fit(make("gan"), plain(), ckpt_path=tmp_path / "a.ckpt")
        found = rows(tmp_path)
        assert [row["step"] for row in found] == ["1", "2", "3", "4", "8"]
        assert [row["d/loss"] for row in found[:2]] == [row["d/loss"] for row in before[:2]]
    assert found[2]["metrics/a"] == "0.5"


def test_what_is_no_fit_drops_no_row(tmp_path: Path) -> None:
    """A test of a checkpoint by a trainer of its own is at step 0."""
    fitted = trainer(max_steps=4, log_every_n_steps=1, logger=MetricsCSV(tmp_path))
    fitted.fit(model := make("gan"), plain())
    trainer(logger=(logger := MetricsCSV(tmp_path))).test(model, Ring(batch_size=8), verbose=False)
    logger.log_metrics({"metrics/modes": 7}, step=0)
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4", "0"]
    assert rows(tmp_path)[-1]["metrics/modes"] == "7.0"


@pytest.mark.parametrize("name", ["name", "version"])
def test_the_folder_is_the_runs(tmp_path: Path, name: str) -> None:
    logger = MetricsCSV(tmp_path)
    assert (logger.save_dir, getattr(logger, name)) == (str(tmp_path), "")


# ---------------------------------------------------------------------- loggers that fail
class Broken(loggers.Logger):
    """A logger whose server has gone away, for all that may be asked of it but the methods in ``works``."""

    name = version = "broken"

    def __init__(self, works: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.works, self.asked = works, Counter[str]()

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if what not in self.works:
            raise ConnectionError("the server is gone\nfor good")

    @property
    def experiment(self) -> None:
        self._ask("experiment")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._ask("log_metrics")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._ask("log_hyperparams")

    def save(self) -> None:
        self._ask("save")

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._ask("after_save_checkpoint")

    def finalize(self, status: str) -> None:
        self._ask("finalize")


FAILED = r"Broken has failed and may miss values, training goes on \(ConnectionError, the server is gone for good\)\."


def told(caught: Any) -> list[str]:
    return [str(w.message) for w in caught if re.fullmatch(FAILED, str(w.message))]


def test_a_logger_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    """Whatever it is asked for, by the engine, a callback or Lightning; told once; the others get all."""
    broken, csv = Broken(works=("experiment",)), MetricsCSV(tmp_path)
    keep = callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=2)
    modes = ModeCoverage(every_n_steps=2, num_samples=20)
    t = trainer(
        max_steps=4, log_every_n_steps=1, logger=[broken, csv], enable_checkpointing=True, callbacks=[keep, modes]
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        t.fit(make("gan"), datamodule=Ring(batch_size=4))
    asked = {"experiment", "log_metrics", "log_hyperparams", "save", "after_save_checkpoint", "finalize"}
    assert broken.asked.keys() == asked and broken.asked["log_metrics"] >= 6
    assert len(told(caught)) == 1 and t.global_step == 4
    with pytest.raises(ConnectionError):  # again, for whoever uses it next
        broken.log_metrics({})
    assert "log_metrics" not in vars(csv)
    assert [row["step"] for row in rows(tmp_path) if row["g/loss"]] == ["1", "2", "3", "4"]


def test_our_own_file_may_fail_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MetricsCSV, "_rewrite", full)
    t = trainer(max_steps=2, log_every_n_steps=1, logger=MetricsCSV(tmp_path))
    with pytest.warns(UserWarning, match=r"MetricsCSV has failed .* \(OSError, \[Errno 28\] No space left on device\)"):
        t.fit(make("gan"), train_dataloaders=plain())
    assert t.global_step == 2


def test_pictures_for_a_tensorboard_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = loggers.TensorBoardLogger(tmp_path)
    monkeypatch.setattr(logger.experiment, "add_image", lambda *args, **kwargs: {}[0])
    with pytest.warns(UserWarning, match=r"TensorBoardLogger has failed .* \(KeyError, 0\)"):
        log_image(trainer(logger=logger), "a", Image.new("RGB", (4, 4)), 0)


def test_the_command_line_goes_on_without_a_logger_that_cannot_start() -> None:
    Path("a.yaml").write_text(yaml.safe_dump(CONFIG | {"trainer": CONFIG["trainer"] | {"max_steps": 2}}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        main(["fit", "--config=a.yaml", "--name=a", f"--trainer.logger={__name__}.Broken"])
    assert len(told(caught)) == 1 and [row["step"] for row in rows(Path("runs/a"))] == ["1", "2"]


def test_wandb_without_login_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "login", lambda **options: asked.append(options))
    monkeypatch.setattr(wandb, "teardown", lambda: asked.append({"teardown": True}))
    offline_without_login()
    assert not asked, "the mode is given"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "")  # whatever is set is put back
    with pytest.warns(UserWarning, match=r"W&B has no login \(`wandb login`\): the run is written to the disk"):
        offline_without_login()
    assert os.environ["WANDB_MODE"] == "offline" and asked == [{"prompt": False}, {"teardown": True}]
    del os.environ["WANDB_MODE"]
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    offline_without_login()
    assert "WANDB_MODE" not in os.environ


def test_wandb_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "wandb" else find(name, *args))
    Path("a.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--config=a.yaml", "--name=a", "--trainer.logger=WandbLogger"])
    assert str(caught.value.code).startswith("error: wandb must be installed for this: ")
    assert str(caught.value.code).endswith(" -m pip install wandb")
    assert not Path("runs/a").exists()
