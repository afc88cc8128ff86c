"""Processes that do not outlive the one that has started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from threading import Thread


def end_with_parent() -> None:
    """End this process, started by ``multiprocessing``, as soon as the one that started it is gone, killed or not.

    A parent that is killed tells its children nothing, and they would go on for minutes, for nobody. A process that
    leads a group of its own takes the group with it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_follow, args=(parent,), daemon=True).start()


def pool(processes: int) -> ProcessPoolExecutor:
    """Fresh processes, as a GPU needs them, that `end_with_parent`."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=spawn, initializer=end_with_parent)


def _follow(parent: BaseProcess) -> None:
    parent.join()  # the end of a pipe, which comes whatever the parent died of
    if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
