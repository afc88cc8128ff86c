"""Networks in evaluation mode for a while, and copies of them, in other types too."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_gans import checks

Network = TypeVar("Network", bound=nn.Module)
Function = TypeVar("Function")


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


def frozen_copy(**functions: Function) -> dict[str, Function]:
    """A frozen copy in evaluation mode of what is a network, by its name; a function is kept as it is.

    A module holds it in this mapping, so that it is no submodule.

    Raises:
        TypeError: for what is neither.
    """
    checks.functions(**functions)
    nets = {name: f for name, f in functions.items() if isinstance(f, nn.Module)}
    return functions | {name: copied(net).eval().requires_grad_(False) for name, net in nets.items()}


def alike(network: nn.Module, other: nn.Module) -> bool:
    """Whether two networks of one kind have their tensors in the same types, on the same devices."""
    return all(a.dtype == b.dtype and a.device == b.device for a, b in zip(_tensors(network), _tensors(other)))


def averaging(mean: nn.Module, trained: nn.Module) -> None:
    """Bring an average to the devices and types of what it is of, but to float32 where those are of fewer bits.

    >>> averaging(mean := nn.Linear(1, 1), nn.Linear(1, 1).bfloat16())
    >>> mean.bias.dtype
    torch.float32
    """
    with torch.inference_mode(False):  # it goes on behind a validation
        for own, like in zip(_tensors(mean), _tensors(trained)):
            wide = torch.promote_types(like.dtype, torch.float32) if like.is_floating_point() else like.dtype
            own.data = own.data.to(like.device, wide)


def beside(network: Network, x: Tensor) -> Network:
    """Bring a frozen network that no module holds to the device and the type of ``x``, but to float32 at least."""
    return network.to(x.device, torch.promote_types(x.dtype, torch.float32))


def rounded(mean: Network, trained: nn.Module, into: Network | None = None) -> Network:
    """A copy of an average in the types of what it is of; ``into`` an earlier one."""
    with torch.inference_mode(False):
        copy = copied(mean) if into is None else into
        for own, value, like in zip(_tensors(copy), _tensors(mean), _tensors(trained)):
            own.data = value.data.to(like.dtype)
    return copy


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, module by module, without the names that a walk over all would make."""
    for module in network.modules():
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)


def hooked(module: nn.Module) -> bool:
    """Whether calling it does more than the ``forward`` of its class.

    >>> hooked(nn.ReLU())
    False
    """
    own = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(own) or nn.modules.module._has_any_global_hook() or "forward" in vars(module)
