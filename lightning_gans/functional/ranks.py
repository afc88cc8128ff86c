"""Statistics of a batch that is spread over the processes of a distributed run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

_apart: list[bool] = []  # not empty: what this process does now is no part of what all do


@contextmanager
def apart() -> Iterator[None]:
    """This process is one by itself for a while, in which the others do not follow it.

    >>> with apart():
    ...     rank_and_world()
    (0, 1)
    """
    _apart.append(True)
    try:
        yield
    finally:
        _apart.pop()


def rank_and_world() -> tuple[int, int]:
    """This process' rank and the number of processes; (0, 1) where `torch.distributed` is not in use.

    >>> rank_and_world()  # in a single process
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized() and not _apart:
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def in_contact() -> Iterator[None]:
    """Say in a sentence that another process is not there; around each collective."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, NotImplementedError):
        raise
    except RuntimeError as error:
        rank, world = rank_and_world()
        raise RuntimeError(
            f"Rank {rank} of {world} lost contact with another rank, which has ended or does not come: see its output "
            f"for the cause. Checkpoints are whole; resume from the last one. ({str(error).splitlines()[0][:200]})"
        ) from error


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a tensor over all processes, differentiable; the tensor itself where there is one process.

    With gradients averaged over the processes afterwards, a loss of such a mean has the same gradient as in one process
    that holds the whole batch. A collective: every process must call it, with the same shape.

    >>> float(mean_over_ranks(torch.tensor(3.0)))  # in a single process
    3.0
    """
    _, world = rank_and_world()
    if world == 1:
        return value
    return cast(Tensor, _Sum.apply(value)) / world


def gather_rows(value: Tensor) -> Tensor:
    """The rows (N, ...) of all W processes, differentiable: (W N, ...), row i W + r being row i of process r.

    With gradients averaged over the processes afterwards, a mean of losses that each process takes of all rows has the
    same gradient as in one process. A collective, as `mean_over_ranks` is.

    >>> gather_rows(torch.tensor([[1.0], [2.0]])).tolist()  # in a single process
    [[1.0], [2.0]]
    """
    if rank_and_world()[1] == 1:
        return value
    return cast(Tensor, _Rows.apply(value))


def max_over_ranks(value: Tensor) -> Tensor:
    """Largest value of a tensor over all processes, detached. A collective, as `mean_over_ranks` is.

    >>> float(max_over_ranks(torch.tensor(3.0)))  # in a single process
    3.0
    """
    value = value.detach()
    if rank_and_world()[1] > 1:
        value = value.clone()
        with in_contact():
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


class _Sum(torch.autograd.Function):
    """The sum over all processes, of which each has the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        with in_contact():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        return _Sum.apply(gradient[0])


class _Rows(torch.autograd.Function):
    """The rows of all processes, interleaved; a row's gradient is the sum of what it has in each."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        with in_contact():
            dist.all_gather(parts, value.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        return _Sum.apply(gradient[0]).unflatten(0, (-1, dist.get_world_size()))[:, dist.get_rank()]
