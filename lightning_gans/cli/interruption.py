"""A run that is told to stop, by Ctrl-C, by SIGTERM or by SLURM, saves first and says how it goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from lightning_gans.compat.lightning import callbacks
from lightning_gans.engine.run import LOOK_EVERY
from lightning_gans.runs.atomic import write_text

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGHUP"):
    _NAMES[signal.SIGHUP] = "SIGHUP"  # the terminal was closed
_STOPPED = "Stopped by %s; what was written before is intact."
_HANDLED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Interruption(callbacks.Checkpoint):
    """Ends a fit with the update under way when a signal comes: saves, says how to go on, exits with 128 + its number.

    A second Ctrl-C ends at once. SLURM's signal before the time is up is answered between two updates too, where a
    checkpoint is exact. It is a ``Checkpoint`` so that it comes behind all callbacks whose state is to be saved. Who
    calls for the fit puts the handlers back (:func:`handlers_kept`).

    Args:
        path: the checkpoint to write.
        resume: the command by which the run goes on.
    """

    def __init__(self, path: Path, resume: str) -> None:
        self.path, self.resume = path, resume
        self.received: int | None = None
        self.told = ""
        self._training, self._process = False, os.getpid()
        self._later: list[Callable[[], Any]] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Before workers are started, which inherit the handlers and are not to end by Ctrl-C."""
        self._handle(*_NAMES)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """From here on there is something to save; Lightning has set handlers of its own by now."""
        self._training = True
        self._handle(*_NAMES)
        if hasattr(signal, "SIGUSR1") and callable(requeue := signal.getsignal(signal.SIGUSR1)):
            self._handle(signal.SIGUSR1, to=lambda *args: self._later.append(lambda: requeue(*args)))

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Do what was asked for; several processes agree on it, whenever they wait for each other anyway."""
        if trainer.world_size == 1 or trainer.global_step % (trainer.log_every_n_steps or LOOK_EVERY) == 0:
            self._answer(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Do what was asked for during the last update."""
        self._answer(trainer)
        self._training = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """There will be no more updates to wait for; what is said comes behind the line of the bar."""
        self._training = False
        if self.told and trainer.is_global_zero:
            with suppress(OSError):  # of a terminal that was closed
                print(self.told, file=sys.stderr, flush=True)

    def _answer(self, trainer: Any) -> None:
        if trainer.world_size > 1:
            if trainer.strategy.reduce_boolean_decision(bool(self._later), all=False):
                self._later = self._later[:1] or [lambda: trainer.save_checkpoint(self.path)]
            if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
                self.received = self.received or signal.SIGTERM
        while self._later:
            self._later.pop()()
        if self.received is None:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        by = _NAMES[signal.Signals(self.received)]
        self.told = f"Stopped by {by} after update {trainer.global_step}: go on with {self.resume}"
        raise SystemExit(128 + self.received)

    def _handle(self, *numbers: int, to: Callable[..., Any] | None = None) -> None:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python has no signals
            for number in numbers:
                if signal.getsignal(number) != signal.SIG_IGN:  # by nohup, or a shell that started it with &
                    signal.signal(number, to or self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child, which Ctrl-C reaches too: it ends when this process lets it
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if not self._training or number == self.received == signal.SIGINT:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            _stop(number, frame)
        if self.received is None and number == signal.SIGINT:
            os.write(2, b"\nStopping with this update (Ctrl-C once more: at once).\n")  # print may be under way
        self.received = number


@contextmanager
def handlers_kept() -> Iterator[None]:
    """At the end all handlers of signals are as they were."""
    main = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in _HANDLED if main and hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python did not set
                signal.signal(number, handler)


@contextmanager
def exit_status() -> Iterator[None]:
    """One sentence for Ctrl-C, and the status that a shell expects; also while no fit is under way."""
    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            for number in _NAMES:
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, _stop)
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as error:
            interrupts = (error, error.__context__)  # Lightning turns one into a status of 1
            pressed = any(isinstance(e, KeyboardInterrupt) for e in interrupts) and getattr(error, "code", 1) == 1
            if not pressed and not isinstance(error, _Stopped):
                raise
            traceback.clear_frames(error.__traceback__)  # which hold bars, whose last line is to come before
            number = error.number if isinstance(error, _Stopped) else signal.SIGINT
            with suppress(OSError):  # of a terminal that was closed
                print(_STOPPED % _NAMES[number], file=sys.stderr, flush=True)
            raise SystemExit(128 + number) from None


class _Stopped(SystemExit):
    """By a signal, where there is nothing to be saved."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = signal.Signals(number)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def remember_job(folder: Path, command: Sequence[str]) -> None:
    """Write into a new run's folder which job of SLURM, by which command, it is of."""
    if job := _job(command):
        write_text(folder / "slurm_job", job)


def requeued(near: Path, command: Sequence[str]) -> Path | None:
    """The run that this job of SLURM, which was queued again, began by the same command; None if it is no such job.

    Args:
        near: the folder that a new run would have; it is looked for beside it.
        command: the arguments.
    """
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0) < 1:
        return None
    found = [path for path in near.parent.glob("*/slurm_job") if path.read_text() == _job(command)]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _job(command: Sequence[str]) -> str | None:
    array = [os.environ.get(f"SLURM_ARRAY_{part}") for part in ("JOB_ID", "TASK_ID")]
    job = "_".join(filter(None, array)) or os.environ.get("SLURM_JOB_ID")
    return json.dumps({"job": job, "command": [*command]}) if job else None
