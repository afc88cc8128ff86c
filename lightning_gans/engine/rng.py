"""Capture, restore and seed every random number generator that training code may draw from.

States are plain lists and tensors, so that a checkpoint that holds them loads under
``torch.load(path, weights_only=True)``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

RNGState = dict[str, Any]


def capture(cuda: bool = True) -> RNGState:
    """State of Python's, NumPy's and torch's global generators (``cuda``: of the current device's too)."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state: RNGState = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if cuda and torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: RNGState) -> None:
    """Put every generator back into a state that :func:`capture` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed(value: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators (the ones that data loading draws from)."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.default_generator.manual_seed(value)


@contextmanager
def untouched() -> Iterator[None]:
    """Leave every global generator as it was found."""
    state = capture()
    try:
        yield
    finally:
        restore(state)
