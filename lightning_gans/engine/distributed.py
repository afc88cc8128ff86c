"""Several devices: the strategy ``gan_ddp`` and the reductions that the base class uses.

``DistributedDataParallel`` expects every parameter to get a gradient in every backward pass, which no GAN step does.
The base class takes the gradients of the network that steps by ``autograd.grad`` and averages them over ranks itself,
as one flat buffer: exactly the bytes of that network's gradients, under any of Lightning's DDP strategies. ``gan_ddp``
leaves out the wrapper, which would only add its own buffer broadcasts.
"""

from __future__ import annotations

import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_gans.compat.lightning import strategies
from lightning_gans.engine import rng
from lightning_gans.functional.ranks import in_contact, max_over_ranks, rank_and_world


def rank() -> int:
    """Index of this process among :func:`world_size` ones."""
    return rank_and_world()[0]


def world_size() -> int:
    """Number of processes that train together."""
    return rank_and_world()[1]


def average(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each tensor over all ranks, by one all-reduce of one flat buffer per dtype."""
    tensors = list(tensors)
    if world_size() == 1 or not tensors:
        return tensors
    result: list[Tensor] = list(tensors)
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        index = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = torch.cat([tensors[i].reshape(-1) for i in index])
        with in_contact():
            dist.all_reduce(flat)
        flat /= world_size()
        for i, part in zip(index, flat.split([tensors[i].numel() for i in index])):
            result[i] = part.view_as(tensors[i])
    return result


def where_differ(words: Iterable[str], device: torch.device) -> dict[str, list[int]]:
    """Of each word that only some ranks have: which. A collective, in one small reduction where all have the same."""
    words = sorted(words)
    if world_size() == 1:
        return {}
    mark = zlib.crc32("\n".join(words).encode())
    most, least = max_over_ranks(torch.tensor([mark, -mark], device=device)).tolist()
    if most == -least:
        return {}
    every: list[Any] = gather_objects(words)
    found = {word: [r for r, known in enumerate(every) if word in known] for word in sorted({*chain(*every)})}
    return {word: ranks for word, ranks in found.items() if len(ranks) < world_size()}


def gather_objects(value: object) -> list[object]:
    """``value`` of every rank, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[object] = [None] * world_size()
    with in_contact():
        dist.all_gather_object(values, value)
    return values


def interleave(rows: Tensor) -> Tensor:
    """The rows (N, ...) of all W ranks as one process would have them, (W N, ...): row i W + r is row i of rank r."""
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    with in_contact():
        dist.all_gather(parts, rows.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


@torch.no_grad()
def broadcast_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank 0 (BatchNorm's averages differ unless it is synchronised)."""
    with in_contact():
        for buffer in module.buffers() if world_size() > 1 else ():
            dist.broadcast(buffer, src=0)


@torch.no_grad()
def broadcast_module(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    with in_contact():
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, src=0)


def drifted(module: nn.Module) -> str | None:
    """Name of the first parameter that is not bit-identical on all ranks, or None. A collective call."""
    if world_size() == 1:
        return None
    for name, parameter in module.named_parameters():
        # a bit-wise sum, exact in integers: equal parameters give equal sums on all ranks
        bits = parameter.detach().reshape(-1).view(torch.uint8).to(torch.int64)
        weights = torch.arange(1, bits.numel() + 1, device=bits.device) % 65521
        checksum = (bits * weights).sum()
        sums = [torch.empty_like(checksum) for _ in range(world_size())]
        with in_contact():
            dist.all_gather(sums, checksum)
        if any(s != sums[0] for s in sums):
            return name
    return None


class GANDDPStrategy(strategies.DDPStrategy):
    """Data-parallel training without the ``DistributedDataParallel`` wrapper: state broadcast once, gradients by us.

    Random numbers go on where they are, as in one process, and Ctrl-C is for rank 0, which answers for all.
    """

    strategy_name = "gan_ddp"

    def setup_distributed(self) -> None:
        """Meet the other ranks; Lightning would begin the random numbers anew, behind the networks' weights."""
        with rng.untouched() if by_script(self.launcher) else nullcontext():  # forked ones have none of their own
            super().setup_distributed()

    @property
    def launcher(self) -> Any:
        """What starts the other ranks."""
        found = super().launcher
        if found is not None and by_script(found) and "launch" not in vars(found):
            vars(found)["launch"] = partial(_deaf, found.launch)
        return found

    def configure_ddp(self) -> None:
        """Start from rank 0's state instead of wrapping the module."""
        assert self.model is not None
        broadcast_module(self.model)


def by_script(launcher: Any) -> bool:
    """Whether all ranks run the same script, started by Lightning or from outside: not forked, not spawned."""
    return launcher is None or type(launcher).__name__ == "_SubprocessScriptLauncher"


def _deaf(launch: Callable[..., Any], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Launch processes that do not hear the terminal's Ctrl-C; this one does again, when it begins the function."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is None:  # one that Python did not set
        return launch(function, *args, **kwargs)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def heard(*own: Any, **options: Any) -> Any:
        signal.signal(signal.SIGINT, before)
        return function(*own, **options)

    try:
        return launch(heard, *args, **kwargs)
    finally:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)


if "gan_ddp" not in strategies.StrategyRegistry:
    strategies.StrategyRegistry.register("gan_ddp", GANDDPStrategy, description=GANDDPStrategy.__doc__ or "")
