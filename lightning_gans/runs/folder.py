"""Where a run lies, and what is in its folder."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from lightning_gans.runs.checkpoints import newest_checkpoint, read_checkpoint


def configs(folder: Path) -> list[Path]:
    """``config.yaml``, ``config-2.yaml`` ... of a run, oldest first."""
    found = [path for path in folder.glob("config*.yaml") if re.fullmatch(r"config(-\d+)?", path.stem)]
    return sorted(found, key=lambda path: int(path.stem.partition("-")[2] or 1))


def newest_config(run: Path) -> dict[str, Any]:
    """What the newest configuration of a run holds; nothing where there is none, or one that is no mapping.

    Raises:
        ValueError: it is no YAML.
    """
    known = configs(run)
    try:
        found = yaml.safe_load(known[-1].read_text(encoding="utf-8")) if known else {}
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        place = "" if mark is None else f" in line {mark.line + 1}"
        raise ValueError(f"{known[-1]} must be YAML, got {str(what).splitlines()[0]!r}{place}.") from None
    return found if isinstance(found, dict) else {}


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    folders = list(checkpoint.resolve().parents)[1::-1]  # SLURM's lie beside config.yaml, others in a folder
    return next((folder for folder in folders if (folder / "config.yaml").is_file()), None)


def unused(folder: Path) -> Path:
    """The folder, or where there is one already ``<folder>-2``, ``<folder>-3`` ..."""
    candidates = itertools.chain([folder], (Path(f"{folder}-{i}") for i in itertools.count(2)))
    return next(path for path in candidates if not os.path.lexists(path))


def claim(folder: Path) -> Path:
    """Make the first unused folder. A sweep may start several runs within a second; one mkdir succeeds only once."""
    while True:
        fresh = unused(folder)
        fresh.parent.mkdir(parents=True, exist_ok=True)  # an error here, of a link to nowhere, is no race
        with suppress(FileExistsError):
            fresh.mkdir()
            return fresh


def remove_empty(folder: Path, around: Sequence[Path] = ()) -> None:
    """Remove a folder if there are only empty ones in it, and those ``around`` it (inner first) that are so then."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder, *around]:
        with suppress(OSError):
            path.rmdir()


def newest_run(folder: Path, k: int) -> Path | None:
    """The run of round k that has a checkpoint; a run that was stopped before its first one has none."""
    found = [run for run in folder.glob(f"round-{k}*") if re.fullmatch(rf"round-{k}(-\d+)?", run.name)]
    found = [run for run in found if newest_checkpoint(run).is_file()]
    return max(found, key=lambda run: run.stat().st_mtime, default=None)


def finished(run: Path) -> bool:
    """Whether a run has made the updates, or epochs, that its newest configuration asks for."""
    return reached(newest_config(run)["trainer"], read_checkpoint(newest_checkpoint(run)))


def reached(trainer: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of as many updates, or epochs, as options of a trainer allow; None or -1: of any."""
    made = {"max_steps": checkpoint.get("global_step", 0), "max_epochs": checkpoint.get("epoch", 0)}
    return any(0 <= (-1 if (most := trainer.get(name)) is None else most) <= n for name, n in made.items())
