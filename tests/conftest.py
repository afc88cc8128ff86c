"""Shared settings: one torch thread (two on a busy 2-core machine are many times slower), slow tests, two workers.

The tests of a file run on one worker, so that what they share is made once. A file that takes three times the CPU
seconds of ``times.json`` fails the run; ``--record`` writes those that it takes into that file.

The process that hands tests to the workers waits for them, and they for it: it does not import torch.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.metadata
import inspect
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import docstring_parser
import pytest

# pytest writes each test file anew for its assertions, which takes 5 s: once a change, not once a run and worker. The
# processes that tests start find the library compiled.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.fsync = lambda descriptor: None  # waits for the disk, which only a power cut could tell (see test_atomic.py)


def stack_of_names(context: int = 1) -> list[inspect.FrameInfo]:
    """``inspect.stack`` without the lines of code."""
    frames = traceback.walk_stack(sys._getframe(1))
    return [inspect.FrameInfo(f, f.f_code.co_filename, n, f.f_code.co_name, None, None) for f, n in frames]


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background job; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Lightning reads what all installed packages say of themselves for every Trainer.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)
# It looks through the stack for the name of a file whenever a checkpoint is loaded, and torch keeps the stack of each
# seed that it gives to devices which are not there; both read the lines of code of all frames.
inspect.stack = stack_of_names
traceback.format_stack = lambda *_, **__: []
# jsonargparse reads the same docstrings for the options of every command.
docstring_parser.parse = functools.cache(docstring_parser.parse)
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
TIMES = Path(__file__).with_name("times.json")
LIGHTNINGS = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
NUMBERS = itertools.count()  # of folders
SPARE = 10.0  # CPU seconds that a file may take above what was recorded, whatever that is
# CPU seconds that each file took, those of processes that it started too: in this process, at the end in all.
SECONDS: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run learning tests and other long ones")
    parser.addoption("--record", action="store_true", help="write the CPU seconds of each file into tests/times.json")


def pytest_configure(config: pytest.Config) -> None:
    """Classifiers for the scores are trained once per run, by whichever worker comes first."""
    if not hasattr(config, "workerinput"):
        os.environ["LIGHTNING_GANS_CACHE"] = tempfile.mkdtemp(prefix="lightning_gans-tests-")
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Of two workers the second begins at the other end: each compiles half of the files for both."""
    whole = [Path(part).resolve() for part in session.config.args] == [Path(__file__).parent]
    if whole and getattr(session.config, "workerinput", {}).get("workerid") == "gw1":
        files = sorted(Path(__file__).parent.glob("test_*.py"))
        for path in reversed(files[len(files) // 2 :]):
            with suppress(BaseException):  # a skip, or a mistake, which the collection tells
                importlib.import_module(path.stem)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["LIGHTNING_GANS_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that no worker is left alone with one at the end."""
    known = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    items.sort(key=lambda item: (-known.get(item.path.name, 0.0), item.path.name))
    for item in items:
        if "slow" in item.keywords and not config.getoption("--runslow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --runslow"))


def pytest_collection_finish() -> None:
    """Garbage is looked for among what tests make, and less often: otherwise it takes 8 % of a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """As a warning of Python's own: for one of Lightning's the process that hands out tests would import Lightning."""
    kind = next(k for k in warning_message.category.__mro__ if k.__module__ == "builtins")
    warning_message.category, warning_message.message = kind, kind(str(warning_message.message))


# ---------------------------------------------------------------------- the time that each file takes
def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    begun = cpu_seconds()
    try:
        return (yield)
    finally:
        SECONDS[item.path.name] += cpu_seconds() - begun


def pytest_testnodedown(node: Any) -> None:
    """Called where there are workers, as each of them ends."""
    SECONDS.update(getattr(node, "workeroutput", {}).get("seconds", {}))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput"):
        config.workeroutput["seconds"] = dict(SECONDS)
    elif config.getoption("--record"):
        known = json.loads(TIMES.read_text()) if TIMES.exists() else {}
        known |= {name: round(seconds, 1) for name, seconds in SECONDS.items()}
        TIMES.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
    elif not config.getoption("--runslow") and too_long(SECONDS, json.loads(TIMES.read_text())):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def too_long(took: Mapping[str, float], known: Mapping[str, float]) -> list[str]:
    """A sentence for each file that took too long."""
    return [
        f"{name} took {seconds:.0f} CPU seconds, more than three times the {known.get(name, 0):g} of tests/times.json."
        for name, seconds in took.items()
        if seconds > max(3 * known.get(name, 0), known.get(name, 0) + SPARE)
    ]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.write_line(f"{sum(SECONDS.values()):.0f} CPU seconds in the tests.")
    if not config.getoption("--runslow"):
        for sentence in too_long(SECONDS, json.loads(TIMES.read_text())):
            terminalreporter.write_line(sentence, red=True)


@pytest.fixture(autouse=True)
def _quiet_and_seeded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, empty: list[Path]) -> None:
    """In a folder of its own: what a test forgets to direct elsewhere does not land in the repository."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else unused(empty)
    monkeypatch.chdir(folder)
    for logger in LIGHTNINGS:
        if logger.level != logging.ERROR:  # setting it empties a cache of all loggers
            logger.setLevel(logging.ERROR)
    torch = sys.modules["torch"]  # not every process with this file needs it
    torch.default_generator.manual_seed(0)  # `torch.manual_seed` takes ten times as long
    for base in (torch.utils.data.DataLoader, torch.utils.data.BatchSampler):
        if "__old__setattr__" in base.__dict__:
            restore(base)


def restore(cls: type) -> None:
    """Undo what Lightning does to loaders while a data module makes them: it leaves that in place after an error."""
    for name in ("__init__", "__setattr__", "__delattr__"):
        if f"__old{name}" in cls.__dict__:
            setattr(cls, name, getattr(cls, f"__old{name}"))
            delattr(cls, f"__old{name}")
    for subclass in cls.__subclasses__():
        restore(subclass)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """W&B, writing to the disk, without what it imports for each run in case it is a job of its queues: 1.4 s."""
    found = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(found.Run, "_detect_and_apply_job_inputs", lambda run: None, raising=False)
    return found


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The last folder of a test that asks for none; making one by ``tmp_path`` takes longer than many a test."""
    return [tmp_path_factory.mktemp("empty")]


def unused(last: list[Path]) -> Path:
    """A folder that nothing lies in: the last one, or a new one after a test that left something behind."""
    if any(last[0].iterdir()):
        last[0] = last[0].with_name(f"empty-{next(NUMBERS)}")
        last[0].mkdir()
    return last[0]
