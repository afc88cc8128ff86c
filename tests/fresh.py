"""Code run as if by a fresh interpreter, without the seconds that it takes to import torch and what comes with it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# What a fork of this process forgets: ours, Lightning, and what only some of it asks for.
OURS = {"lightning_gans", "callbacks", "datamodules", "benchmarks"}
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "torchmetrics"}
UNASKED = {"jsonargparse", "matplotlib", "plotly", "sklearn", "tensorboard", "torch_fidelity", "wandb"}


def python(
    code: str, folder: Path, output: Path, environment: Mapping[str, str], fork: bool = True, seconds: float = 300
) -> str:
    """What code prints that runs in ``folder``: in a fork that has forgotten what is above, or a new interpreter."""
    if fork:
        child = multiprocessing.get_context("fork").Process(target=_child, args=(code, folder, output, environment))
        child.start()
        child.join(seconds)
        code_of_end = child.exitcode
        child.kill()
    else:
        with output.open("w") as file:
            code_of_end = subprocess.run([sys.executable, "-c", code], cwd=folder, env=dict(environment), stdout=file,
                                         stderr=file, timeout=seconds).returncode  # fmt: skip
    assert code_of_end == 0, output.read_text()[-3000:]
    return output.read_text()


def _child(code: str, folder: Path, output: Path, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    sys.path.insert(0, "")
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
    gone = [sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] in OURS | LIGHTNING | UNASKED]
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
    del gone  # until here: what was declared to torch lives as long as its module
