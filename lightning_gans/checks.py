"""Argument checks, each told in one sentence, which names the argument and not its class."""

from __future__ import annotations

import difflib
import importlib.util
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from lightning_gans.compat.shell import python


def installed(*packages: str) -> None:
    """ImportError, with the command that helps, unless all packages are installed."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        command = shlex.join([python(), "-m", "pip", "install", *missing])
        raise ImportError(f"{', '.join(missing)} must be installed for this: {command}")


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None: ``checks.positive(**checks.given(clip=clip))``."""
    return {name: value for name, value in values.items() if value is not None}


def at_least(least: int, **values: int) -> None:
    """ValueError unless every value is an integer >= ``least``."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}.")


def at_least_one(**values: int) -> None:
    """ValueError unless every value is an integer >= 1."""
    at_least(1, **values)


def within(low: int, high: int, **values: int) -> None:
    """ValueError unless every value is an integer in ``low..high``."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name} must be an integer in {low}..{high}, got {value!r}.")


def sizes(**values: int | Sequence[int] | None) -> None:
    """ValueError unless every value is an integer >= 1, or several such; None, for what is not there, is left out."""
    for name, value in values.items():
        if isinstance(value, Sequence):
            if not value or not all(isinstance(v, Integral) and not isinstance(v, bool) and v >= 1 for v in value):
                raise ValueError(f"{name} must be integers >= 1, at least one, got {value!r}.")
        elif value is not None:
            at_least_one(**{name: value})


def networks(**values: Any) -> None:
    """TypeError unless every value is a torch Module; a class of one is not."""
    from torch import nn  # not needed by whoever checks numbers

    for name, value in values.items():
        if isinstance(value, type):
            raise TypeError(f"{name} must be a network, got the class {value.__name__}: call it.")
        if not isinstance(value, nn.Module):
            raise TypeError(f"{name} must be a network, got {value!r}.")


def functions(**values: Any) -> None:
    """TypeError unless every value can be called, a network or a function; a class is none."""
    for name, value in values.items():
        if isinstance(value, type):
            raise TypeError(f"{name} must be a network or a function, got the class {value.__name__}: call it.")
        if not callable(value):
            raise TypeError(f"{name} must be a network or a function, got {value!r}.")


def positive(**values: float) -> None:
    """ValueError unless every value is a finite number > 0."""
    each(values, "a finite number > 0", lambda v: 0 < v < float("inf"))


def not_negative(**values: float) -> None:
    """ValueError unless every value is a finite number >= 0."""
    each(values, "a finite number >= 0", lambda v: 0 <= v < float("inf"))


def finite(**values: float) -> None:
    """ValueError unless every value is a finite number."""
    each(values, "a finite number", lambda v: -float("inf") < v < float("inf"))


def share(**values: float) -> None:
    """ValueError unless every value is in [0, 1]."""
    each(values, "in [0, 1]", lambda v: 0 <= v <= 1)


def inside(**values: float) -> None:
    """ValueError unless every value is in (0, 1)."""
    each(values, "in (0, 1)", lambda v: 0 < v < 1)


def below_one(**values: float) -> None:
    """ValueError unless every value is in [0, 1)."""
    each(values, "in [0, 1)", lambda v: 0 <= v < 1)


def up_to_one(**values: float) -> None:
    """ValueError unless every value is in (0, 1]."""
    each(values, "in (0, 1]", lambda v: 0 < v <= 1)


def each(values: Mapping[str, Any], what: str, condition: Callable[[Any], bool]) -> None:
    """ValueError, which says ``what`` they must be, unless every value meets the condition."""
    for name, value in values.items():
        if not _holds(condition, value):
            raise ValueError(f"{name} must be {what}, got {value!r}.")


def _holds(condition: Callable[[Any], bool], value: Any) -> bool:
    """Whether it does; what cannot be compared, a word say, does not, nor does a boolean."""
    try:
        return not isinstance(value, bool) and bool(condition(value))
    except (TypeError, ValueError, RuntimeError):
        return False


def _told(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else repr(value)


def weights(**values: float) -> None:
    """ValueError unless every ``<name>_weight`` is a finite number >= 0, and one of them above."""
    not_negative(**{f"{name}_weight": value for name, value in values.items()})
    if not any(values.values()):
        raise ValueError(f"One of {', '.join(f'{name}_weight' for name in values)} must be > 0, got 0 for all.")


def interval(name: str, value: Sequence[float]) -> tuple[float, float]:
    """The two bounds; ValueError unless they are finite, (low, high) with low < high."""
    if not _holds(lambda v: len(v) == 2 and v[0] < v[1] and v[0] - v[1] < 0, value):  # words have an order, too
        raise ValueError(f"{name} must be (low, high) with low < high, got {_told(value)}.")
    if float("inf") in (-value[0], value[1]):
        raise ValueError(f"{name} must be two finite numbers, got {tuple(value)}.")
    return float(value[0]), float(value[1])


def betas(value: Sequence[float]) -> None:
    """ValueError unless Adam can have these."""
    if not _holds(lambda v: len(v) == 2 and all(_holds(lambda beta: 0 <= beta < 1, b) for b in v), value):
        raise ValueError(f"betas must be two numbers in [0, 1), got {_told(value)}.")


def seen_from(path: Path) -> str:
    """Where a relative path that is not there was looked for: " in /the/folder"."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    if value not in (choices := tuple(allowed)):
        raise ValueError(
            f"{name} must be {'one of ' * (len(choices) > 1)}{', '.join(map(str, choices))}, got {value!r}."
        )


def only(name: str, value: Any, allowed: Any, reason: str = "") -> None:
    """ValueError unless ``value`` is the one that is allowed, for a ``reason`` that begins with "with"."""
    if value != allowed:
        raise ValueError(f"{name} must be {allowed!r}{reason and f' {reason}'}, got {value!r}.")


def near(path: Path) -> str:
    """The end of a sentence about a path that is not there: what lies there by a name like it."""
    beside = [] if path.exists() or not path.parent.is_dir() else [other.name for other in path.parent.iterdir()]
    found = difflib.get_close_matches(path.name, beside, n=1)
    return f": did you mean {path.parent / found[0]}?" if found else "."
