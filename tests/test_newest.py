"""Which checkpoint a run goes on from: the newest whole one, whatever wrote it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import equal, make, plain, trainer

from lightning_gans.cli.configuration import resolve
from lightning_gans.runs.checkpoints import newest_checkpoint
from lightning_gans.runs.folder import finished, newest_run, run_of
from lightning_gans.runs.load import load

NAMES = ["checkpoints/last.ckpt", "checkpoints/last-v1.ckpt", "hpc_ckpt_1.ckpt", "hpc_ckpt_12.ckpt"]


def write(path: Path, second: int) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    torch.save({"second": second}, path)
    os.utime(path, (second, second))


@pytest.mark.parametrize("newest", NAMES)
def test_the_newest_whoever_wrote_it(tmp_path: Path, newest: str) -> None:
    for second, name in enumerate([*NAMES, newest]):
        write(tmp_path / name, second)
    write(tmp_path / "checkpoints" / "best-step=000001.ckpt", 100)  # ends no stretch of training
    assert newest_checkpoint(tmp_path) == tmp_path / newest


def test_a_damaged_one_is_passed_over_and_told(tmp_path: Path) -> None:
    for second, name in enumerate(["checkpoints/000025.ckpt", "hpc_ckpt_1.ckpt", "checkpoints/last.ckpt"]):
        write(tmp_path / name, second)
    for damaged, taken in (
        ("checkpoints/last.ckpt", "hpc_ckpt_1.ckpt"),
        ("hpc_ckpt_1.ckpt", "checkpoints/000025.ckpt"),
    ):
        (tmp_path / damaged).write_bytes((tmp_path / damaged).read_bytes()[:100])
        with pytest.warns(UserWarning, match=rf"is damaged: .*{taken} is taken, the newest whole one\."):
            assert newest_checkpoint(tmp_path) == tmp_path / taken
    (tmp_path / taken).write_bytes(b"")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"  # its reader tells


def test_whoever_takes_a_folder_finds_it(tmp_path: Path) -> None:
    for steps, name in ((1, "checkpoints/last.ckpt"), (2, "hpc_ckpt_1.ckpt")):
        module, t = make("gan"), trainer(max_steps=steps)
        t.fit(module, plain())
        t.save_checkpoint(tmp_path / name)
        os.utime(tmp_path / name, (steps, steps))
    (tmp_path / "config.yaml").touch()
    nets = {name: getattr(make("gan"), name) for name in ("generator", "discriminator")}
    assert equal(load(tmp_path, **nets).state_dict(), module.state_dict())
    args = resolve(["fit", f"--ckpt_path={tmp_path}"], None, {"fit"})
    assert args == ["fit", "--config", str(tmp_path / "config.yaml"), f"--ckpt_path={tmp_path / 'hpc_ckpt_1.ckpt'}"]


@pytest.mark.parametrize(
    ("most", "made", "whether"),
    [
        ({"max_steps": 4, "max_epochs": -1}, {"global_step": 3, "epoch": 9}, False),
        ({"max_steps": 4, "max_epochs": -1}, {"global_step": 4, "epoch": 0}, True),
        ({"max_steps": -1, "max_epochs": 5}, {"global_step": 3, "epoch": 0}, False),
        ({"max_steps": 9, "max_epochs": 5}, {"global_step": 3, "epoch": 5}, True),
        ({"max_steps": -1, "max_epochs": None}, {"global_step": 3, "epoch": 5}, False),
        ({"max_steps": 4}, {}, False),
    ],
)
def test_a_run_is_finished_by_updates_or_epochs(
    tmp_path: Path, most: dict[str, Any], made: dict[str, int], whether: bool
) -> None:
    """Where there is no limit of one of them it is not reached."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": most}))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2", **made}, tmp_path / NAMES[0])
    assert finished(tmp_path) is whether


def test_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"


def test_the_run_of_a_checkpoint_beside_its_configuration(tmp_path: Path) -> None:
    run = tmp_path / "round-3-2"
    for path in (run / NAMES[0], run / NAMES[2]):
        write(path, 0)
        assert run_of(path) is None
    (run / "config.yaml").touch()
    assert run_of(run / NAMES[0]) == run_of(run / NAMES[2]) == run.resolve()
    (run / NAMES[0]).unlink()
    assert newest_run(tmp_path, 3) == run and newest_run(tmp_path, 2) is None
