"""How a shell finds the Python that runs, and its programs; and what a terminal can show."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def python() -> str:
    """What to type for the interpreter that runs: ``python`` where the shell finds this one by that name.

    >>> python()  # doctest: +SKIP
    '.venv/bin/python'
    """
    return typed(sys.executable, "python") if sys.executable else "python"


def typed(path: str, name: str) -> str:
    """What to type for a program: its name if the shell finds it by that, else where it lies.

    Args:
        path: where it lies; told relative to the current folder if it lies below it.
        name: under which the shell may know it.
    """
    found = shutil.which(name)
    # Pythons of all environments may be links to one, so that their folders tell them apart.
    beside = found is not None and Path(found).parent.resolve() == Path(path).parent.resolve()
    # Windows' programs are told without their .exe.
    if found and beside and (not os.path.exists(path) or os.path.samefile(found, path)):
        return name
    return from_here(path).as_posix()


def usage(command: str) -> str:
    """A command of ours with the name of its program, as its help tells them.

    >>> usage("report")
    'lightning-gans report'
    """
    return f"{'train.py' if Path(sys.argv[0]).name == 'train.py' else 'lightning-gans'} {command}"


@contextmanager
def printable() -> Iterator[None]:
    """Meanwhile a symbol that the encoding of the output lacks is printed as "?", in place of an error.

    >>> with printable():
    ...     print("any symbol")
    any symbol
    """
    reconfigure, before = getattr(sys.stdout, "reconfigure", None), getattr(sys.stdout, "errors", None)
    if reconfigure is None:  # a notebook's, say, which has no encoding of its own
        yield
        return
    reconfigure(errors="replace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # a pipe that nobody reads any more, a closed file
            reconfigure(errors=before)


def from_here(path: str | Path) -> Path:
    """A path relative to the current folder if it lies below it."""
    with suppress(ValueError):
        return Path(path).absolute().relative_to(Path.cwd())
    return Path(path)
