"""The losses of small games are those on record, whatever was moved (tests/golden)."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from golden import compare
from golden.cases import CASES, UPDATES, play

from lightning_gans import TECHNIQUES

HERE = Path(__file__).parent / "golden"
RECORD: dict[str, Any] = {}
for file in sorted(HERE.glob("*.json")):
    RECORD |= json.loads(file.read_text())


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_on_record(name: str) -> None:
    found = compare.differences(RECORD[name], play(CASES[name]), relative=1e-10, absolute=1e-12)
    assert not found, "\n".join(found)


def test_every_technique_is_on_record() -> None:
    assert {case.technique for case in CASES.values()} >= TECHNIQUES.keys()
    assert RECORD.keys() == CASES.keys()
    for losses in RECORD.values():
        assert {"d/loss", "g/loss", "d/adversarial", "g/adversarial"} <= losses.keys()
        assert all(len(column) == UPDATES and len(set(column)) > 1 for name, column in losses.items() if "loss" in name)


def test_what_counts_as_a_difference() -> None:
    old = {"a": [None, 1.0, math.nan], "b": [1e-16]}
    near = {"a": [None, 1.0 + 1e-15, math.nan], "b": [-1e-16], "c": [1.0]}
    assert compare.differences(old, old) == [] == compare.differences(old, near, 1e-10, 1e-12)
    assert len(compare.differences(old, near)) == 2
    for other in ({"b": [1e-16]}, {**old, "a": [None, 1.0]}, {**old, "a": [*old["a"], 2.0]}, {**old, "a": [0.0, 1.0]}):
        assert len(compare.differences(old, other, 1e-10, 1e-12)) == 1


@pytest.mark.parametrize("name", ["0123abc", "nowhere/at/all"])
def test_a_commit_that_does_not_exist(name: str) -> None:
    with pytest.raises(SystemExit, match=f"error: there is no commit or folder '{name}'"):
        compare.main([name, "HEAD"])


@pytest.mark.slow
def test_two_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is loaded from where it lies: a change in one of them is seen."""
    root = HERE.parent.parent
    for part in ("lightning_gans", "datamodules", "callbacks"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    assert compare.main([str(root), str(tmp_path), "--cases", "wgan"]) == 0
    assert "bit for bit" in capsys.readouterr().out
    path = tmp_path / "lightning_gans" / "techniques" / "wgan.py"
    path.write_text(path.read_text().replace("parameters, -self.c", "parameters, -0.999999999999 * self.c"))
    assert compare.main([str(root), str(tmp_path), "--cases", "wgan"]) == 1
    assert "wgan: d/adversarial at update " in capsys.readouterr().out
