"""The one way a file is made: whole, or not at all, and once where several processes want it."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8}\.tmp(\.\w+)?|\d+\.tmp)")  # the second by version 0.1


class NoSpaceError(OSError):
    """A file could not be written for want of space; what was there before is intact."""


@contextmanager
def replacing(path: str | Path, ending: str = "") -> Iterator[Path]:
    """A temporary name in the same folder, which is made; what was written there becomes ``path`` at the end.

    A reader, a killed process and a power cut meet the old file or the new one, never half. After an error the old
    one stays and the temporary one is gone. Several processes may write one path: the last one wins.

    Args:
        path: the file.
        ending: of the temporary name, behind ``.tmp``, where a writer wants to see one.

    Raises:
        NoSpaceError: the disk is full, or a quota reached.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp{ending}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if (reason := no_space(error)) is None:
            raise
        free, kept = shutil.disk_usage(path.parent).free, "; the old one is intact" if path.exists() else ""
        raise NoSpaceError(f"{path} could not be written ({reason}, {free / 2**20:,.0f} MiB free){kept}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def no_space(error: BaseException | None) -> str | None:
    """What the system says where a full disk or a quota is behind an error, which torch tells as one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return os.strerror(error.errno)
        error = error.__cause__ or error.__context__
    return None


def sweep(folder: str | Path) -> None:
    """Remove what killed processes were writing by :func:`replacing`, in all of a folder that nobody else writes to."""
    for path in Path(folder).rglob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


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


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Write to a folder as the only process that does; meanwhile there is a file ``.lock`` in it.

    The lock ends with the process, however that ends. Where there are no locks (Windows, some network disks) nobody is
    refused.

    Raises:
        ValueError: another process is at work in it.
    """
    path = Path(folder) / ".lock"
    with ExitStack() as stack:
        with suppress(ImportError, OSError):
            import fcntl

            while True:
                file = stack.enter_context(path.open("a+"))
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which workers do not inherit, unlike flock's
                except (BlockingIOError, PermissionError):
                    raise ValueError(
                        f"{folder} must be a folder that no other process writes to, got one in use by {_holder(file)}."
                    ) from None
                with suppress(FileNotFoundError):  # its owner has just removed it
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                        break
            stack.callback(path.unlink, missing_ok=True)
            file.truncate(0)
            os.write(file.fileno(), f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read() or "another process"
