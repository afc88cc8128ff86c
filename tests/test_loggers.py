"""metrics.csv: a row per step, whole at any moment, and continued by a resumed run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from common import make, plain, trainer

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
    second.log_metrics({"a": -6, "only after": 2}, step=6)
    second.log_metrics({"a": -8}, step=8)
    assert [(row["step"], row["a"], row["only before"], row["only after"]) for row in rows(tmp_path)] == [
        ("2", "2.0", "1.0", ""), ("4", "4.0", "1.0", ""), ("6", "-6.0", "", "2.0"), ("8", "-8.0", "", ""),
    ]  # fmt: skip


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


@pytest.mark.parametrize("name", ["name", "version"])
def test_the_folder_is_the_runs(tmp_path: Path, name: str) -> None:
    logger = MetricsCSV(tmp_path)
    assert (logger.save_dir, getattr(logger, name)) == (str(tmp_path), "")
