"""Loaders for data that live in memory, on the training device: no worker processes, no collating, no copies.

Both loaders follow the same rules about randomness:

* one int64 seed per epoch is drawn from the global torch RNG of the CPU, lazily at the first ``next()`` (as torch's
  ``RandomSampler`` does), so whoever re-seeds that RNG can replay an epoch exactly; the seed then drives the order and
  everything that is drawn for the batches;
* on W processes a batch is W x ``batch_size`` consecutive items of the one global order, of which rank r takes the rows
  r::W, so that together they see exactly what one process with the W-fold batch would. Their global RNGs must agree,
  which ``seed_everything`` sees to.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.functional import rank_and_world

Transform = Callable[[Tensor, Generator], Tensor]


def draw_seed() -> int:
    """One int64 from the global torch RNG of the CPU: the only number an epoch takes from it."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


class MemoryLoader:
    """Batches of a tensor, picked by ``index_select`` on the device that holds it.

    Yields ``real``; ``(real, labels)`` when there are labels; ``(real, labels, weights)`` when there are weights
    (labels may then be None); ``(real, labels, weights, index)`` with ``with_index``.

    Args:
        data: (N, ...), usually uint8 images; floating-point data must be finite.
        labels: (N,) int64, or None.
        batch_size: items per batch and process.
        shuffle: a new permutation each epoch; otherwise the given order, nothing is taken from the global RNG, and
            every pass draws the same random numbers for ``transform``.
        drop_last: leave out the items that do not fill a batch; otherwise the last batch is short (and, on W processes,
            filled up to a multiple of W with the first items).
        transform: ``transform(rows, generator)`` makes the batch from the picked rows, on their device; ``None`` leaves
            them as they are. Per-sample random numbers are to be drawn through `lightning_gans.functional.draw`.
        device: where the data are kept and the batches made; default: where ``data`` is.
        weights: (N,) importance weight of each item, or None.

    Attributes:
        factors: (N,) numbers that the weights are multiplied by, or None; a technique that learns a weight for each
            item sets them, and changes them in place as it trains.
        with_index: yield the number (N,) int64 of each item of a batch too; a model that needs it sets this.

    Raises:
        ValueError: empty data, NaN or infinite data, lengths that differ, a batch larger than the data set.

    >>> loader = MemoryLoader(torch.arange(5.0), labels=None, batch_size=2, shuffle=False)
    >>> len(loader), [batch.tolist() for batch in loader]  # the last one would be short
    (2, [[0.0, 1.0], [2.0, 3.0]])
    """

    seeded_once = True  # lets lightning_gans leave the global generators alone between the batches of an epoch

    def __init__(
        self,
        data: Tensor,
        labels: Tensor | None,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = True,
        transform: Transform | None = None,
        device: torch.device | str | None = None,
        weights: Tensor | None = None,
    ) -> None:
        checks.at_least_one(batch_size=batch_size)
        if len(data) == 0:
            raise ValueError("The data set is empty: data has no items.")
        if data.is_floating_point() and not data.isfinite().all():
            bad = int((~data.isfinite()).flatten(1).any(1).sum()) if data.dim() > 1 else int((~data.isfinite()).sum())
            raise ValueError(f"data must be finite, but {bad} of its {len(data)} items hold NaN or infinite values.")
        for name, column in (("labels", labels), ("weights", weights)):
            if column is not None and column.shape != data.shape[:1]:
                raise ValueError(f"{name} must have shape ({len(data)},) as data has, got {tuple(column.shape)}.")
        self.batch_size, self.shuffle, self.drop_last, self.transform = batch_size, shuffle, drop_last, transform
        self.device = data.device if device is None else torch.device(device)
        self.data = data.to(self.device)
        self.labels = None if labels is None else labels.to(self.device)
        self.weights = None if weights is None else weights.to(self.device)
        self.factors: Tensor | None = None
        self.with_index = False
        self._num_rows()  # a batch that is too large is reported here, not at the first batch

    def _num_rows(self) -> int:
        """Items that one epoch takes over all processes."""
        world = rank_and_world()[1]
        n, batch = len(self.data), world * self.batch_size
        if not self.drop_last:
            return -(-n // world) * world
        if batch > n:
            processes = f" on {world} processes (together {batch})" if world > 1 else ""
            raise ValueError(f"batch_size {self.batch_size}{processes} is larger than the data set of {n} items.")
        return n - n % batch

    def in_order(self) -> MemoryLoader:
        """The same items in their order, all of them, with the same random numbers in every pass."""
        other = copy.copy(self)
        other.shuffle = other.drop_last = False
        return other

    def __len__(self) -> int:
        """Batches per epoch on each process."""
        return -(-self._num_rows() // (rank_and_world()[1] * self.batch_size))

    @property
    def mass(self) -> Tensor | None:
        """(N,) what each item counts in an expectation over many batches; None: all alike."""
        return self.weights

    def order(self, rows: int, generator: Generator) -> Tensor:
        """The items of a shuffled epoch, (N or ``rows`` or more,) int64 indices on the CPU, the same on all processes.

        A sampler overrides it; what is not shuffled does not ask it.
        """
        return torch.randperm(len(self.data), generator=generator)

    def __iter__(self) -> Iterator[Any]:
        cpu = Generator().manual_seed(draw_seed() if self.shuffle else 0)
        n, rows = len(self.data), self._num_rows()
        order = self.order(rows, cpu) if self.shuffle else torch.arange(n)
        if rows > n:
            order = torch.cat([order, order.repeat(-(-rows // n) - 1)[: rows - n]])
        generator = Generator(self.device).manual_seed(int(torch.randint(2**62, (), generator=cpu)))
        rank, world = rank_and_world()
        # Global batches are multiples of W long, so every W-th item of the whole order is every W-th item of each.
        for index in order[rank:rows:world].to(self.device).split(self.batch_size):
            real = self.data.index_select(0, index)
            if self.transform is not None:
                real = self.transform(real, generator)
            columns = [column for column in (self.weights, self.factors) if column is not None]
            if self.labels is None and not columns and not self.with_index:
                yield real
                continue
            labels = None if self.labels is None else self.labels.index_select(0, index)
            weights = [column.index_select(0, index) for column in columns]
            weight = math.prod(weights[1:], start=weights[0]) if weights else None
            batch = (real, labels, weight, index)
            yield batch if self.with_index else batch[:3] if weights else batch[:2]


class FreshLoader:
    """Batches of new draws from a known distribution: a data set without end.

    Args:
        draw: ``draw(n, generator)`` returns n new items (n, ...) on the generator's device.
        batch_size: items per batch and process.
        batches_per_epoch: what counts as an epoch.
        device: where to draw.

    >>> draw = lambda n, generator: torch.rand(n, 2, generator=generator)
    >>> loader = FreshLoader(draw, batch_size=4, batches_per_epoch=3)
    >>> [tuple(batch.shape) for batch in loader]
    [(4, 2), (4, 2), (4, 2)]
    """

    seeded_once = True  # as above
    block = 65_536  # items drawn at once: a draw costs a dozen small operations, a slice of it almost nothing

    def __init__(
        self,
        draw: Callable[[int, Generator], Tensor],
        batch_size: int,
        batches_per_epoch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        checks.at_least_one(batch_size=batch_size)
        checks.at_least_one(batches_per_epoch=batches_per_epoch)
        self.draw, self.batch_size, self.batches_per_epoch = draw, batch_size, batches_per_epoch
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Batches per epoch on each process."""
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[Tensor]:
        generator = Generator(self.device).manual_seed(draw_seed())
        rank, world = rank_and_world()
        batch = world * self.batch_size
        per_block = max(1, self.block // batch)
        for start in range(0, self.batches_per_epoch, per_block):
            count = min(per_block, self.batches_per_epoch - start)
            for real in self.draw(count * batch, generator)[rank::world].split(self.batch_size):
                yield real.clone()  # a slice would keep (and a checkpoint would save) the whole block
