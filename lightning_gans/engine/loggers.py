"""Loggers may fail: a chart is worth less than the training that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lightning_gans.compat.lightning import utilities

_METHODS = ("log_metrics", "log_hyperparams", "log_graph", "log_image", "log_text", "log_table", "save",
            "after_save_checkpoint", "finalize")  # fmt: skip
_TOLD = "_has_failed"


def attempt(logger: Any, call: Callable[[], Any]) -> Any:
    """What ``call``, which hands something to a logger, returns; None if it fails, which is told once for each."""
    try:
        return call()
    except Exception as error:  # of network, disk, server: whatever the logger's package raises
        if not vars(logger).get(_TOLD):
            vars(logger)[_TOLD] = True
            reason, who = " ".join(f"{type(error).__name__}, {error}".split()), type(logger).__name__
            utilities.rank_zero_warn(f"{who} has failed and may miss values, training goes on ({reason}).")
        return None


def let_fail(loggers: Iterable[Any]) -> None:
    """Until the end of the fit, whoever calls these loggers, an error of theirs is a warning."""
    for logger in loggers:
        for name in _METHODS:
            if hasattr(type(logger), name) and name not in vars(logger):
                vars(logger)[name] = partial(_attempted, logger, name)


def go_on(loggers: Iterable[Any], step: int) -> None:
    """Tell those that go on with a file of which update the fit does: what is behind it is of a run that died."""
    for logger in loggers:
        if hasattr(logger, "goes_on_from"):
            logger.goes_on_from(step)


def _attempted(logger: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return attempt(logger, partial(getattr(type(logger), name), logger, *args, **kwargs))
    finally:
        if name == "finalize":  # by which Lightning ends, whatever happened
            for method in _METHODS:
                vars(logger).pop(method, None)
