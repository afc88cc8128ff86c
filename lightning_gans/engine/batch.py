"""``Batch``: what one step of a player sees, and how it is made of what a loader yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gans.functional.columns import columns as columns  # of what a loader yields

Terms = Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What one step of a player sees.

    Attributes:
        real: (N, ...) real samples, in the range that the datamodule declares.
        labels: (N,) int64 class of each sample, or None. In a generator step they are the labels of ``z``.
        weights: (N,) importance weight of each real sample, mean 1 in expectation; None means all one.
        z: (M, *noise_shape) standard normal noise; M = N, or ``g_batch_factor * N`` in a generator step.
        generator: source of every per-sample draw (give it to ``functional.draw``); None means the global one.
        index: (N,) int64 number of each item in the training data, for a model that asks for it (``needs_index``) and a
            loader that knows it; else None.
    """

    real: Tensor
    labels: Tensor | None
    weights: Tensor | None
    z: Tensor
    generator: torch.Generator | None = None
    index: Tensor | None = None


TENSORS = ("real", "labels", "weights", "z", "index")  # of a Batch


def to_device(value: Any, device: torch.device) -> Any:
    """A tensor on the device, anything else as it is.

    On its way to a GPU it goes through pinned memory: a copy from pageable memory waits for all that the GPU has to do.
    """
    if not torch.is_tensor(value) or value.device == device:
        return value
    if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
        value = value.pin_memory()
    return value.to(device, non_blocking=True)
