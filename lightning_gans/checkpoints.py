"""Checkpoints that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from lightning_gans._lightning import plugins_io


class AtomicCheckpointIO(plugins_io.TorchCheckpointIO):
    """Writes beside the target and renames, so that a killed process leaves the old file or the new one, never half.

    Lightning writes to the system's temporary folder first; where that is another file system, its move is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save to a local path; anything with a scheme (``s3://``) is left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load, with one clear sentence for a missing, truncated or foreign file."""
        if "://" not in str(path) and not Path(path).is_file():
            raise FileNotFoundError(f"There is no checkpoint at {path}.")
        try:
            checkpoint = super().load_checkpoint(path, *args, **kwargs)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path} is not a readable checkpoint: it is truncated or no checkpoint at all."
            ) from error
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise ValueError(f"{path} holds no Lightning checkpoint (no 'state_dict' in it).")
        return checkpoint
