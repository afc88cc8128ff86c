"""Capture, restore and seed every random number generator that training code may draw from.

States are plain lists and tensors, so that a checkpoint that holds them loads under
``torch.load(path, weights_only=True)``.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch

RNGState = dict[str, Any]
_WORDS = 624  # of NumPy's Mersenne Twister, behind which its place in them lies
_settled: dict[str, bytes] = {}  # those words, as they were known to have no second normal number waiting


class Place(NamedTuple):
    """Where the generators stand, as they have it themselves: quick to take and to go to, not to be saved."""

    python: tuple[Any, ...]
    numpy: tuple[bytes, tuple[Any, ...] | None]  # the words; all of it where a second normal number waits
    torch: torch.Tensor
    cuda: torch.Tensor | None


def capture() -> RNGState:
    """State of Python's, NumPy's and torch's global generators, and of the current device's."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state: RNGState = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: RNGState) -> None:
    """Put every generator back into a state that :func:`capture` returned."""
    _settled.clear()
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed(value: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators (the ones that data loading draws from)."""
    _settled.clear()
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.default_generator.manual_seed(value)


def swap(there: Place | RNGState | None, cuda: bool = True) -> Place:
    """Go to a place, or to what :func:`capture` returned, or stay; returns the place that is left.

    A tenth of what :func:`capture` and :func:`restore` take, since NumPy hands its words out one by one: they are
    copied where they lie, once they are found there, unless a normal number waits that was drawn with another.
    """
    words = _found(np.random.get_bit_generator()) if hasattr(np.random, "get_bit_generator") else None
    raw, whole = b"" if words is None else bytes(words), None
    if words is None or raw != _settled.get("words"):
        whole = cast(tuple[Any, ...], np.random.get_state(legacy=True))
        if words is not None and not whole[3]:
            _settled["words"], whole = raw, None
    with_cuda = cuda and torch.cuda.is_available() and torch.cuda.is_initialized()
    left = Place(
        random.getstate(),
        (raw, whole),
        torch.default_generator.get_state(),
        torch.cuda.get_rng_state() if with_cuda else None,
    )
    if isinstance(there, dict):
        restore(there)
    elif there is not None:
        random.setstate(there.python)
        raw, all_of_it = there.numpy
        if all_of_it is None and whole is None and words is not None:  # none waits, here or there
            ctypes.memmove(words, raw, len(raw))
            _settled["words"] = raw
        else:
            _settled.clear()
            keys = np.frombuffer(raw, np.uint32)
            np.random.set_state(all_of_it or ("MT19937", keys[:_WORDS], int(keys[_WORDS]), 0, 0.0))
        torch.default_generator.set_state(there.torch)
        if there.cuda is not None:
            torch.cuda.set_rng_state(there.cuda)
    return left


@contextmanager
def untouched() -> Iterator[None]:
    """Leave every global generator as it was found."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


@lru_cache(maxsize=2)
def _found(generator: Any) -> Any:
    """The words of NumPy's global generator in memory; None if they are not where they are thought to be."""
    words = (ctypes.c_uint32 * (_WORDS + 1)).from_address(generator.ctypes.state_address)
    name, keys, position, *_ = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    return words if name == "MT19937" and [*words] == [*keys.tolist(), position] else None
