"""A run that is killed twenty times ends where the undisturbed one does."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal

KILLS, SAVE_EVERY, STEPS = 20, 25, 4000
ROOT = Path(__file__).parents[1]
CONFIG = f"""
seed_everything: 3
model:
  class_path: WGANGP
  init_args:
    latent_dim: 2
    d_steps: 3
    generator: {{class_path: ToyGenerator, init_args: {{width: 4, depth: 1}}}}
    discriminator: {{class_path: ToyDiscriminator, init_args: {{width: 4, depth: 1}}}}
data: {{class_path: Ring, init_args: {{batch_size: 8, batches_per_epoch: 1000}}}}  # epochs end within cycles
trainer:
  accelerator: cpu
  max_steps: {STEPS}
  log_every_n_steps: 40
  callbacks: [{{class_path: EMA}}]
checkpoint: {{every_n_train_steps: {SAVE_EVERY}}}
grid: {{every_n_steps: {STEPS}}}
out: out
"""


def start(out: Path, *options: str) -> subprocess.Popen:
    (out / "kill.yaml").write_text(CONFIG)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), "fit", *options]
    with (out / "output.txt").open("a") as output:
        return subprocess.Popen(command, cwd=out, env=environment, stdout=output, stderr=output)


def finish(out: Path, *options: str) -> None:
    child = start(out, *options)
    try:
        assert child.wait(timeout=900) == 0, (out / "output.txt").read_text()[-3000:]
    finally:
        child.kill()


def mark(path: Path) -> int:
    """Changes whenever the file is replaced."""
    return path.stat().st_mtime_ns if path.exists() else 0


def wait_for_saves(child: subprocess.Popen, last: Path, count: int) -> None:
    """Until ``last`` was replaced ``count`` times."""
    seen, deadline = mark(last), time.monotonic() + 120
    while count:
        assert child.poll() is None, "the run ended before it was killed: give it more steps"
        assert time.monotonic() < deadline, "the run writes no checkpoints"
        if (now := mark(last)) != seen:
            seen, count = now, count - 1
        time.sleep(0.0005)


def rows(run: Path) -> list[dict[str, str]]:
    """What is logged, but for how long it took."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/seconds")} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_killed_twenty_times_ends_at_the_same_weights(tmp_path: Path) -> None:
    whole, killed = tmp_path / "out" / "whole", tmp_path / "out" / "killed"
    finish(tmp_path, "--config=kill.yaml", "--name=whole")

    moment, last, reached = random.Random(0), killed / "checkpoints" / "last.ckpt", [0]
    for i in range(KILLS):
        resume = [f"--ckpt_path={killed}"] if i else ["--config=kill.yaml", "--name=killed"]
        child = start(tmp_path, *resume)
        try:
            if i % 5 == 4:  # anywhere, imports and the reading of the checkpoint included
                time.sleep(moment.uniform(0, 8))
            else:  # while it trains, and in the middle of writing more often than chance would have it
                wait_for_saves(child, last, moment.randint(1, 6))
                time.sleep(moment.choice([0, 0, moment.uniform(0, 0.1)]))
        finally:
            child.kill()
            child.wait()
        for path in last.parent.glob("*.ckpt"):  # whatever lies there by a name that anyone reads is whole
            found: dict[str, Any] = torch.load(path, weights_only=True)
            assert found["global_step"] % SAVE_EVERY == 0
        reached.append(torch.load(last, weights_only=True)["global_step"])
    assert reached == sorted(reached) and len(set(reached)) > KILLS / 2 and reached[-1] < STEPS
    finish(tmp_path, f"--ckpt_path={killed}")

    assert not (tmp_path / "out" / "killed-2").exists()
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, killed))
    assert a["global_step"] == b["global_step"] == STEPS
    for key in ("state_dict", "optimizer_states", "ema", "engine"):
        assert equal(a[key], b[key]), key
    assert rows(whole) == rows(killed)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, share: float) -> None:
    finish(tmp_path, "--config=kill.yaml", "--name=run", "--trainer.max_steps=2")
    last = tmp_path / "out" / "run" / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[: int(share * len(whole))])
    child = start(tmp_path, "--ckpt_path=out/run", "--trainer.max_steps=4")
    assert child.wait(timeout=120) != 0
    assert "is not a readable checkpoint: it is truncated" in (tmp_path / "output.txt").read_text()
    assert len(last.read_bytes()) == int(share * len(whole))  # evidence is not overwritten
