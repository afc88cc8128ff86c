"""A rank that dies ends the run with a clear message, and the last checkpoint is whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def children(pid: int) -> list[int]:
    """Processes that ``pid`` has started."""
    return [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the rank")
def test_a_dead_rank_ends_the_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", str(ROOT / "configs/ring/wgan_gp.yaml")]
    command += ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.max_steps=100000", "--name=run"]
    command += ["--checkpoint.every_n_train_steps=5", f"--out={tmp_path}"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        started = time.monotonic()
        while not last.exists() and time.monotonic() - started < 120:
            assert run.poll() is None, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.2)
        ranks = [c for c in children(run.pid) if "train.py" in Path(f"/proc/{c}/cmdline").read_text()]
        assert len(ranks) == 1
        os.kill(ranks[0], signal.SIGKILL)
        assert run.wait(120) != 0
    finally:
        run.kill()
    text = (tmp_path / "log").read_text()
    assert re.search(r"^error: .*lost contact with another rank", text, re.I | re.M) and "Traceback" not in text
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] >= 5 and len(checkpoint["engine"]["ranks"]) == 2
