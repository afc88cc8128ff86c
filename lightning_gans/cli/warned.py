"""What a run warns of is told in one line each, and kept in its folder."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_gans.compat.lightning import callbacks
from lightning_gans.runs.atomic import write_text


class KeptWarnings(callbacks.Callback):
    """Writes each warning once into ``warnings.txt`` of a run, with its update, and at the end why it ended early.

    Entered as a context it listens, and leaves Python's way of showing warnings as it was. Nothing is written before
    training starts, so that a run that does not start leaves nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "warnings.txt"
        self.lines: list[str] = []
        self._writes, self._trainer = False, None

    def __enter__(self) -> KeptWarnings:
        """Listen."""
        self._shown, warnings.showwarning = warnings.showwarning, self._show  # type: ignore[assignment]
        return self

    def __exit__(self, *_: Any) -> None:
        """Listen no more."""
        warnings.showwarning = self._shown
        self._trainer = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """From now on there is a run to write to; a resumed one goes on with its list, and has not ended."""
        self._trainer, self._writes = trainer, trainer.is_global_zero
        if self._writes and self.path.is_file():
            before = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            was = rf"\1: was ended by \2; gone on with at update {trainer.global_step}"
            before = [re.sub(r"^(update \d+): ended by (.*)", was, line) for line in before]
            self.lines = list(dict.fromkeys([*before, *self.lines]))
        self._write()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Say why it ended."""
        if isinstance(exception, Exception):
            self._keep(f"ended by {type(exception).__name__}: {exception}", again=True)

    def _show(self, message: Any, category: type, *args: Any, **kwargs: Any) -> None:
        self._keep(str(message))
        self._shown(message, category, *args, **kwargs)

    def _keep(self, text: str, again: bool = False) -> None:
        text = " ".join(text.split())
        if again or not any(line.partition(": ")[2] == text for line in self.lines):
            when = "start" if self._trainer is None else f"update {self._trainer.global_step}"
            self.lines.append(f"{when}: {text}")
            self._write()

    def _write(self) -> None:
        if self._writes and self.lines:
            with suppress(OSError):  # a full disk: no warning ends a training
                write_text(self.path, "\n".join(self.lines) + "\n")


@contextmanager
def in_a_line() -> Iterator[None]:
    """What is warned of is shown in one line each, without its place in our code."""
    before, warnings.formatwarning = warnings.formatwarning, _line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _line(message: Any, *_: Any, **__: Any) -> str:
    return f"warning: {' '.join(str(message).split())}\n"
