"""Checkpoints that are whole or not there."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lightning_gans import checks
from lightning_gans.compat.lightning import plugins_io, utilities
from lightning_gans.runs.atomic import replacing, write_text
from lightning_gans.runs.card import card

_SPAWNED = ".temp.ckpt"  # weights alone, by which the processes that Lightning starts hand back what they have trained


class AtomicCheckpointIO(plugins_io.TorchCheckpointIO):
    """Writes beside the target and renames, so that a killed process leaves the old file or the new one, never half.

    Lightning writes to the system's temporary folder first; where that is another file system, its move is a copy. A
    model card (``runs.card``), ``last.md`` of ``last.ckpt``, lies beside each checkpoint, and goes with it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save to a local path; anything with a scheme (``s3://``) is left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        with replacing(target) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
        if "class_path" in checkpoint:  # of a GenerativeModule
            write_text(target.with_suffix(".md"), card(checkpoint, target.name))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its card."""
        super().remove_checkpoint(path)
        if "://" not in str(path):
            Path(path).with_suffix(".md").unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load, with one clear sentence for a missing, truncated or foreign file."""
        if "://" in str(path) or Path(path).name == _SPAWNED:
            return super().load_checkpoint(path, *args, **kwargs)
        with _readable(path):
            checkpoint = super().load_checkpoint(path, *args, **kwargs)
        return _checked(checkpoint, path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A Lightning checkpoint; its tensors stay in the file until they are used.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is truncated, or no checkpoint of Lightning's.
    """
    with _readable(path):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return _checked(checkpoint, path)


def newest_checkpoint(run: str | Path) -> Path:
    """The checkpoint that a run goes on from: the newest whole one that ends a stretch of training, or else of all.

    Args:
        run: its folder; ``checkpoints/last.ckpt`` in it, or ``hpc_ckpt_<n>.ckpt``, which Lightning writes under SLURM.

    Returns:
        Its path; ``checkpoints/last.ckpt`` if none is whole, which need not be there.
    """
    run = Path(run)
    last, found = run / "checkpoints" / "last.ckpt", list[Path]()
    for patterns in (("checkpoints/last*.ckpt", "hpc_ckpt_*.ckpt"), ("checkpoints/*.ckpt",)):
        found += _newest_first(path for pattern in patterns for path in run.glob(pattern) if path not in found)
    whole = next((path for path in found if zipfile.is_zipfile(path)), None)
    if whole is None:
        return last
    if whole != found[0]:
        utilities.rank_zero_warn(f"{found[0]} is damaged: {whole} is taken, the newest whole one.")
    return whole


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    if not Path(path).is_file():
        near = f": did you mean {run}?" if (run := _newest_run_below(Path(path))) else checks.near(Path(path))
        raise FileNotFoundError(f"There is no checkpoint at {path}{near}")
    try:
        yield
    except Exception as error:  # damaged bytes make torch and pickle fail in many ways
        if code := re.search(r"nsupported (?:global: )?GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{path} is not a readable checkpoint: it holds code ({code[1]}), which was not run."
            ) from error
        size, whole = Path(path).stat().st_size, _whole_beside(Path(path))
        raise ValueError(
            f"{path} is not a readable checkpoint: it is truncated or no checkpoint at all ({size:,} bytes"
            f"{f'; {whole.name} beside it is whole' if whole else ''})."
        ) from error


def _newest_run_below(path: Path) -> Path | None:
    """Of the folder that was given for a run, if runs lie in it."""
    patterns = ("*/checkpoints/*.ckpt", "*/*/checkpoints/*.ckpt") if path.parent.name == "checkpoints" else ()
    found = [found for pattern in patterns for found in path.parent.parent.glob(pattern) if found.is_file()]
    found = _newest_first(found)
    return found[0].parent.parent if found else None


def _whole_beside(path: Path) -> Path | None:
    """The newest other checkpoint of a folder whose end is there."""
    others = _newest_first(path.parent.glob("*.ckpt"))
    return next((file for file in others if file != path and zipfile.is_zipfile(file)), None)


def _checked(checkpoint: Any, path: str | Path) -> dict[str, Any]:
    wanted = ("state_dict", "pytorch-lightning_version")
    if missing := [key for key in wanted if not isinstance(checkpoint, dict) or key not in checkpoint]:
        raise ValueError(f"{path} holds no Lightning checkpoint (no {missing[0]!r} in it).")
    return checkpoint
