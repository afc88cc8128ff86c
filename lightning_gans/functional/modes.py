"""Networks in evaluation mode for a while, and copies of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, given back as it was (module by module)."""
    training = [m for m in network.modules() if m.training]
    if training:  # chains ask thousands of times, and a walk that sets is the dearer one
        network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def copied(network: Network) -> Network:
    """A deep copy; of what is no leaf of autograd, as torch's older spectral norm keeps its weight, the values."""
    kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    known: dict[int, Any] = {id(value): value.detach().clone() for value in kept if not value.is_leaf}
    return copy.deepcopy(network, known)
