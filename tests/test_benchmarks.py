"""The benchmarks treat both sides alike, and run on a device that is not the CPU."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import orphans, overhead, recipes, speed, text
from lightning_gans.networks import ToyDiscriminator, ToyGenerator

TINY = dataclasses.replace(
    overhead.GAMES["a"], items=64, batch=4, nets=lambda: (ToyGenerator(width=8), ToyDiscriminator(width=8))
)


def test_the_penalty_is_computed_where_the_samples_are() -> None:
    real, fake = (torch.empty(4, 2, device="meta") for _ in range(2))
    assert overhead.penalty(nn.Linear(2, 1, device="meta"), real, fake).device.type == "meta"


@pytest.mark.parametrize("side", ["plain", "ours", "skilled"])
@pytest.mark.parametrize(("apart", "waits"), [(False, 1), (True, 1 + 2 * overhead.D_STEPS)])
def test_both_sides_wait_equally_often(side: str, apart: bool, waits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(speed, "clock", lambda device: calls.append(device) or float(len(calls)))
    counts = []
    for updates in (2, 5):
        calls.clear()
        times = speed.SIDES[side](TINY, updates, "cpu", apart)
        assert (times.in_d > 0) == apart
        counts.append(len(calls))
    assert counts[1] - counts[0] == 3 * waits


def test_our_data_lie_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Any] = []
    loader = speed.MemoryLoader
    monkeypatch.setattr(speed, "MemoryLoader", lambda *a, device, **k: devices.append(device) or loader(*a, **k))
    speed.ours(TINY, 2, "cpu")
    assert devices == ["cpu"]


def test_a_seed_that_diverged_ends_no_table() -> None:
    assert [recipes.summary([1.0, x]) for x in (3.0, float("nan"), float("inf"))] == ["2 ± 1.4", "nan", "inf"]


# ---------------------------------------------------------------------- whoever started them is killed
AT_WORK = """
import multiprocessing, os, time
from orphans import end_with_parent, pool

def work(leads):
    if leads:
        os.setpgrp()
    end_with_parent()
    os.write(1, b"x\\n")  # at once: others write too
    time.sleep(60)

if __name__ == "__main__":
    for leads in {leads}:
        {start}
    time.sleep(60)
"""
POOL = "processes = pool(1); processes.submit(os.write, 1, b'x\\n').result(); processes.submit(time.sleep, 60)"
FORK = "multiprocessing.get_context('fork').Process(target=work, args=(leads,)).start()"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
@pytest.mark.parametrize(("start", "leads"), [(POOL, [False]), (FORK, [False, True, False])], ids=["pool", "fork"])
def test_no_process_outlives_a_parent_that_is_killed(start: str, leads: list[bool], tmp_path: Path) -> None:
    """The output's end comes when the last process that could write to it is gone."""
    (tmp_path / "at_work.py").write_text(AT_WORK.format(start=start, leads=leads))
    environment = os.environ | {"PYTHONPATH": str(Path(orphans.__file__).parent)}  # alone, without torch
    command = [sys.executable, str(tmp_path / "at_work.py")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    for _ in leads:
        assert parent.stdout.readline() == b"x\n"
    parent.kill()
    parent.communicate(timeout=20)  # raises if anyone holds it still


def test_whoever_starts_processes_lets_them_follow() -> None:
    for folder in ("benchmarks", "experiments"):
        for path in (Path(__file__).parents[1] / folder).glob("*.py"):
            text = path.read_text()
            assert "ProcessPoolExecutor" not in text or path.stem == "orphans", path
            assert ".Process(" not in text or "    end_with_parent()\n" in text, path


def test_text_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    text.main(["--references", "20", "--samples", "5", "--updates", "2", "--words", "30"])
    told = capsys.readouterr().out
    assert "| BLEU-5's table of 20 references | " in told and "| 20 scores by it | " in told
    assert "| 5 samples of 20 words of 30, LSTM 32 | " in told
    for game in ("WGAN-GP, 6 letters", "RelGAN, 30 words"):
        assert re.search(rf"^\| {game} \| [\d.]+ \| \d+\.\d\d% \|$", told, re.MULTILINE)
