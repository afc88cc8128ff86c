"""A long run costs no more per update than a short one: nothing that watches it keeps, or writes, ever more."""

from __future__ import annotations

import itertools
import json
import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from common import make, plain, trainer

from benchmarks import growth
from lightning_gans import callbacks as ours
from lightning_gans.callbacks import GradientNorms, gradient_norms, score
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.metrics import extractors
from lightning_gans.runs.metrics_csv import MetricsCSV


def things(value: Any, seen: set[int]) -> int:
    """How many values hang on an object of the library, or on a container."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, Mapping):
        return 1 + sum(things(part, seen) for part in value.values())
    if isinstance(value, (list, tuple, set, deque)):
        return 1 + sum(things(part, seen) for part in value)
    if type(value).__module__.startswith("lightning_gans"):
        return 1 + things(vars(value), seen) if hasattr(value, "__dict__") else 1
    return 1


class Held(pl.Callback):
    """What callbacks, loggers and the module hold, update by update."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        mine: set[int] = {id(self), id(trainer)}
        watching = [vars(c) for c in (*trainer.callbacks, *trainer.loggers) if c is not self]
        self.seen.append(things([*watching, vars(pl_module), trainer.callback_metrics], mine))


def test_nothing_is_kept_for_each_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_norms, "_KEPT", 8)
    probes = [ours.EMA(), ours.NonFiniteGuard("rollback"), ours.LossVariance(1, window=10), ours.StationarityGap(1)]
    held, saves = Held(), callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=20)
    own = [*probes, ours.Rates(), ours.GANProgressBar(), GradientNorms(1, picture_every=10**6), saves, held]
    t = trainer(max_steps=90, callbacks=own, logger=MetricsCSV(tmp_path), log_every_n_steps=1,
                enable_checkpointing=True, enable_progress_bar=True)  # fmt: skip
    t.fit(make("wgan_gp", d_steps=1), plain(128, 4))
    assert len(held.seen) == 90 and max(held.seen[60:]) <= max(held.seen[30:60]) + 3, held.seen
    assert max(held.seen[1:4]) < max(held.seen[30:60])  # it does see what `GradientNorms` keeps


def test_gradient_norms_keep_what_a_picture_needs() -> None:
    norms = GradientNorms(10)
    for step in range(10, 100_001, 10):
        norms.keep(step, {"d": {"layer": float(step)}})
        assert len(norms.history) <= 64
    steps = [step for step, _ in norms.history]
    apart = [after - before for before, after in itertools.pairwise(steps)]
    assert steps[0] == 10 and steps[-1] == 100_000 and len(steps) >= 32
    assert len(set(apart[:-1])) == 1 and apart[-1] <= apart[0]
    short = GradientNorms(10)
    for step in range(10, 641, 10):
        short.keep(step, {})
    assert [step for step, _ in short.history] == list(range(10, 641, 10))


class Told(ScoreCallback):
    """A score whose protocol changes."""

    label = "told"

    def measure(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        self.protocol = {"measured": len(self.history)}
        return {"metrics/told": float(pl_module.global_step)}


def test_a_score_adds_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written as a whole when a fit begins, and where a line cannot be added."""
    whole: list[int] = []
    write = score.write_text
    monkeypatch.setattr(score, "write_text", lambda path, text: whole.append(text.count("\n")) or write(path, text))

    def fit(steps: int, checkpoint: Path | None = None) -> list[dict[str, Any]]:
        t = trainer(max_steps=steps, callbacks=[Told(1, True, 0)], default_root_dir=tmp_path)
        t.fit(make("gan"), plain(128, 4), ckpt_path=checkpoint)
        t.save_checkpoint(tmp_path / "a.ckpt")
        return [json.loads(line) for line in (tmp_path / "scores-told.jsonl").read_text().splitlines()]

    lines = fit(8)
    assert [line["step"] for line in lines] == list(range(9)) and whole == [1]
    assert [line["protocol"]["measured"] for line in lines] == list(range(9))
    again = fit(12, tmp_path / "a.ckpt")
    assert [line["step"] for line in again] == list(range(13)) and whole == [1, 10]


def test_a_line_that_cannot_be_added_is_written_with_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scores-told.jsonl"

    class Breaks(Told):
        def measure(self, trainer: Any, pl_module: Any) -> dict[str, float]:
            if pl_module.global_step == 2:
                file.unlink()
            return super().measure(trainer, pl_module)

    t = trainer(max_steps=3, callbacks=[Breaks(1, True, 0)], default_root_dir=tmp_path)
    t.fit(make("gan"), plain(128, 4))
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [0, 1, 2, 3]


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text("{}\n")
    opened = Path.open

    class Half:
        def __init__(self, path: Path) -> None:
            self.file = opened(path, "a")

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def write(self, text: str) -> None:
            self.file.write(text[:4])
            raise OSError("the disk is full")

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: Half(path))
    assert not ScoreCallback._added(file, '{"step": 3}\n')
    monkeypatch.undo()
    assert file.read_text() == "{}\n" and ScoreCallback._added(file, "[]\n") and file.read_text() == "{}\n[]\n"


# ---------------------------------------------------------------------- what measures it
QUICK = {"updates", "data", "checkpoints"}


@pytest.mark.parametrize("part", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in growth.PARTS])
def test_each_part_makes_a_table(
    part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extractors, "_train_classifier", lambda *_: None)  # how it scores is of no interest here
    growth.main(["--tiny", "--only", part])
    told = capsys.readouterr().out
    head, rule, *rows = [line for line in told.splitlines() if line.startswith("|")]
    assert told.startswith(f"### {part}") and rows and len({line.count("|") for line in (head, rule, *rows)}) == 1
    if part == "ranks":  # what is averaged is the gradients, by one call for each step; Lightning may add its own
        cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
        assert [re.findall(r"([\d.]+) all_reduce", row[4]) for row in cells] == [
            [],
            ["2.00"],
            [],
            ["6.00"],
            [],
            ["6.00"],
        ]
        assert {float(row[6]) for row in cells[::2]} == {0} and all(1 <= float(row[6]) < 1.01 for row in cells[1::2])
