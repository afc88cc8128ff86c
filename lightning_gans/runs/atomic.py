"""The one way a file is made: whole, or not at all, and once where several processes want it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path, ending: str = ".tmp") -> Iterator[Path]:
    """A temporary name in the same folder, which is made; what was written there becomes ``path`` at the end.

    A reader, a killed process and a power cut meet the old file or the new one, never half. After an error the old
    one stays and the temporary one is gone. Several processes may write one path: the last one wins.

    Args:
        path: the file.
        ending: of the temporary name, so that no pattern like ``*.ckpt`` finds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{ending}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(name: str, path: str | Path) -> None:
    """ValueError unless a file can be made at ``path``, asked for by ``name``: before any work is lost. Makes none."""
    path = Path(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise ValueError(f"{name} must be the name of a file, got the folder {path}.")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{name} must be a file that can be written, got {path}, but {folder} takes none.")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8), whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """One process at a time; the others wait. The file ``path`` is made for it and stays, empty.

    Where there is no such lock (Windows, a folder that cannot be written) nobody waits.
    """
    path = Path(path)
    with ExitStack() as stack:
        with suppress(ImportError, OSError):
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("a")), fcntl.LOCK_EX)
        yield
