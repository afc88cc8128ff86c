"""Jobs in processes of their own: one that fails, hangs or crashes loses nothing of the others."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.orphans import end_with_parent
from lightning_gans.runs.atomic import write_text

Row = dict[str, Any]
Send = Callable[[Row], None]
Job = Callable[[Send], Row]
_FORK = multiprocessing.get_context("fork")  # imports are paid once; whoever forks must not have touched the GPU


def together(
    jobs: Mapping[str, Job],
    end: float,
    at_once: int = 1,
    told: Callable[[dict[str, Row]], None] = lambda rows: None,
    group: bool = False,
) -> dict[str, Row]:
    """The results of jobs by name, so many of them at once, each in a process forked from this one.

    A job is given a function and hands it what it has found so far; that and what it returns make its row. A row has
    ``error`` where the job raised, died, was stopped at the end, or was not started before it.

    Args:
        jobs: by name, in the order in which they start.
        end: ``time.monotonic()`` at which jobs are stopped.
        at_once: how many run at the same time.
        told: called with all rows whenever one of them grew.
        group: give each job a process group of its own, which is stopped as a whole.
    """
    waiting, rows = dict(jobs), {name: Row() for name in jobs}
    running: dict[Connection, tuple[str, Any]] = {}

    def stop(process: Any) -> None:
        if group:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has just ended, or did not get as far as having a group
                process.kill()
        else:
            process.kill()
        process.join()

    def grew(name: str, row: Row) -> None:
        rows[name].update(row)
        told(rows)

    try:
        while waiting or running:
            while waiting and len(running) < at_once and time.monotonic() < end:
                name = next(iter(waiting))
                here, there = _FORK.Pipe(duplex=False)
                process = _FORK.Process(target=_child, args=(waiting.pop(name), there, group))
                process.start()
                there.close()
                running[here] = name, process
            ready = wait(list(running), timeout=max(0.0, min(end - time.monotonic(), 3600.0)))
            for pipe in ready:
                name, process = running[pipe]  # type: ignore[index]
                try:
                    grew(name, pipe.recv())  # type: ignore[union-attr]
                except EOFError:
                    del running[pipe]  # type: ignore[arg-type]
                    process.join()
                    if process.exitcode:
                        grew(name, {"error": f"the process ended with exit code {process.exitcode}"})
            if time.monotonic() >= end:
                for name, process in running.values():
                    stop(process)
                    grew(name, {"error": "stopped: its time was over"})
                for name in waiting:
                    grew(name, {"error": "not started: no time was left"})
                running.clear()
                waiting.clear()
    finally:
        for _, process in running.values():
            stop(process)
    return rows


def _child(job: Job, pipe: Connection, group: bool) -> None:
    if group:
        os.setpgrp()
    end_with_parent()
    try:
        pipe.send(plain_numbers(job(lambda row: pipe.send(plain_numbers(row)))))
    except Exception as error:
        traceback.print_exc()
        pipe.send({"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})


def plain_numbers(value: Any) -> Any:
    """The same for JSON: None for numbers that are not finite, which it does not know."""
    if isinstance(value, Mapping):
        return {str(key): plain_numbers(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_numbers(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Row) -> None:
    """A reader finds the whole file or none."""
    write_text(path, json.dumps(plain_numbers(content), indent=1, allow_nan=False) + "\n")
