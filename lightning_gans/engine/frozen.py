"""Networks that take part in a step without being changed by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn

Places = list[tuple[nn.Module, str]]  # where buffers are registered
Buffers = list[tuple[nn.Module, str, Tensor]]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let a network take part in the other's step: its parameters need no gradient, its buffers come back unchanged.

    Buffers are BatchNorm's averages, power iteration vectors and the like.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        with kept_buffers(network):
            yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Let a network run with copies of its buffers, and give it the originals back, unchanged."""
    originals = swap_in_copies(places_of([network]))
    try:
        yield
    finally:
        put_back(originals)


def places_of(networks: Iterable[nn.Module]) -> Places:
    """Where the networks' buffers are registered, each place once."""
    modules = {m: None for network in networks for m in network.modules()}
    return [(m, name) for m in modules for name, b in m._buffers.items() if b is not None]


def buffers_of(places: Places) -> Buffers:
    """What is registered there now."""
    return [(module, name, cast(Tensor, module._buffers[name])) for module, name in places]


def swap_in_copies(places: Places) -> Buffers:
    """Put copies of the buffers in their places; returns the originals for :func:`put_back`."""
    originals: Buffers = []
    for module, name in places:
        buffers = module._buffers
        buffer = cast(Tensor, buffers[name])
        originals.append((module, name, buffer))
        buffers[name] = buffer.clone()
    return originals


def put_back(buffers: Buffers) -> None:
    """Register these; not by ``setattr``, which is slow on a module."""
    for module, name, buffer in buffers:
        module._buffers[name] = buffer
