"""Training steps as CUDA graphs: recorded once, then started as a whole, without Python and its launches in between."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
_EAGER = 3


class StepGraphs:
    """Runs functions of tensors in fixed places: eagerly three times, then recorded, then replayed.

    The eager runs let libraries choose their algorithms. A function is known by a key. What it reads must lie where it
    lay when it was recorded: parameters and buffers do, and everything else goes through :meth:`hold` first. What it
    returns lies in fixed places too and is overwritten by the next replay. Its Python code runs for the recording only,
    so numbers that it computes in Python stay as they were then.

    On other devices nothing is recorded and functions run eagerly, on tensors held in the same way.

    Args:
        device: where the tensors are.
        generators: random number generators, beside the device's own, that the functions draw from.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self.device, self.generators = device, list(generators)
        self._places: dict[Hashable, Tensor] = {}
        self._runs: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = {}
        self._pool: Any = None
        self._side: torch.cuda.Stream | None = None

    def hold(self, key: Hashable, value: Tensor | None) -> Tensor | None:
        """A copy of ``value`` in the place for its key and shape, the same at each call."""
        if value is None:
            return None
        where = (key, value.shape, value.dtype)
        if where not in self._places:
            self._places[where] = torch.empty_like(value)
        return self._places[where].copy_(value)

    def run(self, key: Hashable, function: Callable[[], Result]) -> Result:
        """The function's result, by whatever way it is due."""
        if self.device.type != "cuda":
            return function()
        if key not in self._recorded:
            done = self._runs[key] = self._runs.get(key, 0) + 1
            if done <= _EAGER:
                side = self._side = self._side or torch.cuda.Stream(self.device)
                side.wait_stream(torch.cuda.current_stream(self.device))
                with torch.cuda.stream(side):
                    result = function()
                torch.cuda.current_stream(self.device).wait_stream(side)
                return result
            self._recorded[key] = self._record(function)
        graph, result = self._recorded[key]
        graph.replay()
        return result

    def _record(self, function: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self._pool):  # recording executes nothing; the replay that follows does
            result = function()
        self._pool = graph.pool()
        return graph, result
