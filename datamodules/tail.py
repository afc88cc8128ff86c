"""Tail importance sampling: rare items are drawn often, with weights that keep every expectation.

In a batch the tail makes ``share`` of the items instead of its mass pi. Tail items then weigh pi / share, all others
(1 - pi) / (1 - share), so that E[weight * f(item)] = E_data f for every f, and the variance of a tail term of small pi
falls by about share / pi. What the tail is, is anybody's choice: a `Tail`, or any ``tail(items, labels)`` that returns
a boolean per item. The idea, without a paper: issue 2 of github.com/yandexdataschool/PreciseGAN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_gans import checks
from lightning_gans.datamodules.around import AroundDataModule
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.datamodules.memory import FreshLoader, MemoryLoader, draw_seed, rank_and_world
from lightning_gans.functional.columns import columns
from lightning_gans.functional.importance import stratum_weights

Feature = int | Literal["mean", "norm"] | Callable[[Tensor], Tensor]


class Tail:
    """A definition of the tail: which items are rare. Subclass it, or give any callable of the same arguments.

    >>> class Odd(Tail):
    ...     def __call__(self, data, labels):
    ...         return data.sum(1) % 2 == 1
    >>> Odd()(torch.tensor([[1.0], [2.0], [3.0]]), None).tolist()
    [True, False, True]
    """

    def fit(self, data: Tensor, labels: Tensor | None) -> Tail:
        """A fixed definition, of what the data are like. Called once, with all items or many draws."""
        return self

    def __call__(self, data: Tensor, labels: Tensor | None) -> Tensor:
        """(N,) booleans for items (N, ...), as a loader stores them (uint8 for images), and labels (N,) or None."""
        raise NotImplementedError


class Threshold(Tail):
    """Items with a feature above (or below) a value.

    Args:
        value: the threshold; an item at it is no tail.
        feature: a place in the flattened item, "mean", "norm", or a function of items (N, ...) to numbers (N,).
        above: False for the lower tail.

    >>> Threshold(2.0)(torch.tensor([[1.0], [2.0], [3.0]]), None).tolist()
    [False, False, True]
    """

    def __init__(self, value: float, feature: Feature = 0, above: bool = True) -> None:
        checks.finite(value=value)
        self.value, self.feature, self.above = value, feature, above

    def __call__(self, data: Tensor, labels: Tensor | None) -> Tensor:
        """(N,) booleans."""
        x = _feature(data, self.feature)
        return x > self.value if self.above else x < self.value


class Quantile(Tail):
    """The ``share`` of items with the largest (or smallest) feature: a `Threshold` that is found from the data.

    Args:
        share: mass of the tail, in (0, 1).
        feature: as for `Threshold`.
        above: False for the lower tail.

    >>> tail = Quantile(share=0.25).fit(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), None)
    >>> tail.value, tail(torch.tensor([[3.0], [3.5]]), None).tolist()
    (3.0, [False, True])
    """

    def __init__(self, share: float = 0.01, feature: Feature = 0, above: bool = True) -> None:
        checks.inside(share=share)
        self.share, self.feature, self.above = share, feature, above

    def fit(self, data: Tensor, labels: Tensor | None) -> Threshold:
        """The threshold that leaves ``share`` of these items beyond it (fewer if several items are at it)."""
        x = _feature(data, self.feature)
        beyond = max(1, round(self.share * len(x)))
        value = (x if not self.above else -x).kthvalue(min(beyond + 1, len(x))).values
        return Threshold(float(-value if self.above else value), self.feature, self.above)

    def __call__(self, data: Tensor, labels: Tensor | None) -> Tensor:
        """(N,) booleans, by the threshold that these items give."""
        return self.fit(data, labels)(data, labels)


class Classes(Tail):
    """Items of certain classes.

    Args:
        classes: their labels.

    >>> Classes([7, 9])(torch.zeros(4, 2), torch.tensor([1, 7, 8, 9])).tolist()
    [False, True, False, True]
    """

    def __init__(self, classes: Sequence[int]) -> None:
        self.classes = list(classes)

    def __call__(self, data: Tensor, labels: Tensor | None) -> Tensor:
        """(N,) booleans; a ValueError without labels."""
        if labels is None:
            raise ValueError(f"tail: classes {self.classes} were asked for, but the data have no labels.")
        return torch.isin(labels, torch.tensor(self.classes, device=labels.device))


class LowDensity(Tail):
    """The ``share`` of items with the lowest density, estimated by a Gaussian kernel around some of the items.

    Args:
        share: mass of the tail, in (0, 1).
        width: of the kernel, in units of the median distance between two items.
        references: number of items around which there is a kernel.

    >>> data = torch.tensor([[0.0], [0.1], [0.2], [5.0]])
    >>> LowDensity(share=0.25, width=1.0)(data, None).tolist()
    [False, False, False, True]
    """

    def __init__(self, share: float = 0.01, width: float = 0.1, references: int = 500) -> None:
        checks.inside(share=share)
        checks.positive(width=width)
        checks.at_least(2, references=references)
        self.share, self.width, self.references = share, width, references

    def fit(self, data: Tensor, labels: Tensor | None) -> Threshold:
        """The density around the first of these items in a fixed shuffled order, and the threshold on it."""
        some = torch.randperm(len(data), generator=Generator().manual_seed(0))[: self.references]
        points = data[some.to(data.device)].float()
        density = partial(_density, points, float(torch.pdist(points.flatten(1)).median()) * self.width)
        return Quantile(self.share, density, above=False).fit(data, labels)

    def __call__(self, data: Tensor, labels: Tensor | None) -> Tensor:
        """(N,) booleans, by the density of these items."""
        return self.fit(data, labels)(data, labels)


class TailSampled(AroundDataModule):
    """Another data module whose training batches hold the tail in a chosen share, with weights.

    Batches are ``(real, labels, weights)``. Their weights have mean exactly 1 over the batch of all processes, and over
    many batches every expectation is that of the plain data. Losses of this library take the weights by themselves. In
    a conditional game, fakes are made for the labels of the batch and do not have these weights; so the tail should
    then say nothing of the class.

    Args:
        data: any data module of this library.
        tail: what the tail is: a `Tail`, or a function of items and labels.
        share: of the tail in a batch, in (0, 1); at least one item, and not all.

    >>> from lightning_gans.datamodules import RareTail1D
    >>> data = TailSampled(RareTail1D(batch_size=8), Threshold(2.0), share=0.5)
    >>> real, labels, weights = next(iter(data.train_dataloader()))
    >>> int((real > 2).sum()), round(float(weights.mean()), 3)
    (4, 1.0)
    """

    live = ("data", "tail")

    def __init__(
        self, data: GANDataModule, tail: Tail | Callable[[Tensor, Tensor | None], Tensor], share: float = 0.5
    ) -> None:
        checks.inside(share=share)
        inner: Any = data
        while isinstance(inner, AroundDataModule):
            if isinstance(inner, TailSampled):
                raise ValueError("data must not be TailSampled already: its tail would be lost, and its weights stay.")
            inner = inner.data
        super().__init__(data)
        self.tail, self.share = tail, share

    def train_dataloader(self) -> Any:
        """Batches ``(real, labels, weights)``, labels None where there are none."""
        return tail_loader(self.data.train_dataloader(), self.tail, self.share)

    def describe(self) -> str:
        """The data set in one line (reads the files)."""
        return f"{self.data.describe()}; the tail makes {self.share:g} of a batch"


def tail_loader(loader: Any, tail: Any, share: float = 0.5) -> Any:
    """A loader like the given one whose batches ``(real, labels, weights)`` hold the tail in a share of ``share``.

    Args:
        loader: `MemoryLoader` or `FreshLoader`; or a ``DataLoader`` of a data set that has a length, whose items are
            ``x`` or ``(x, label)``: all items are read once to find the tail, and its own sampler is left out.
        tail: a `Tail`, a function of items and labels, or (not for fresh draws) N booleans.
        share: in (0, 1).

    Raises:
        ValueError: for another loader, a share out of range, a tail that has no items or all, a global batch of 1.

    >>> loader = tail_loader(MemoryLoader(torch.arange(100.0), None, batch_size=4), torch.arange(100) >= 90, share=0.5)
    >>> real, labels, weights = next(iter(loader))
    >>> int((real >= 90).sum()), round(float(weights.mean()), 3)
    (2, 1.0)
    """
    checks.inside(share=share)
    if isinstance(loader, (StratifiedLoader, StratifiedFreshLoader)) or isinstance(
        getattr(loader, "dataset", None), _Weighted
    ):
        raise ValueError(f"loader must not hold a tail in a chosen share already, got {type(loader).__name__}.")
    if isinstance(loader, FreshLoader):
        return StratifiedFreshLoader(loader, tail, share)
    if isinstance(loader, MemoryLoader):
        return StratifiedLoader(loader, tail, share)
    if not isinstance(loader, DataLoader) or not hasattr(loader.dataset, "__len__") or loader.batch_size is None:
        raise ValueError(
            "loader must be a MemoryLoader, a FreshLoader or a DataLoader of batches of a data set that has a length, "
            f"got {type(loader).__name__}."
        )
    mask = _mask(tail, *(() if isinstance(tail, Tensor) else _items(loader)), n=len(loader.dataset))
    sampler = TailSampler(mask, share, loader.batch_size)
    workers = {"num_workers": loader.num_workers, "worker_init_fn": loader.worker_init_fn,
               "pin_memory": loader.pin_memory, "persistent_workers": loader.persistent_workers}  # fmt: skip
    return DataLoader(
        _Weighted(loader.dataset, sampler.weights),
        loader.batch_size,
        sampler=sampler,
        drop_last=True,
        collate_fn=partial(_collate, loader.collate_fn),
        **cast(Any, workers),
    )


class TailSampler(Sampler[int]):
    """Indices for a ``DataLoader``: of each ``batch_size`` (times the number of processes) the tail makes ``share``.

    All indices, in an order that all processes agree on if their global generators do; Lightning gives each process
    its part. Each item of the tail comes up as often as the others of the tail, and likewise in the body.

    Args:
        tail: (N,) booleans.
        share: of the tail in a batch, in (0, 1).
        batch_size: items per batch and process.

    >>> sampler = TailSampler(torch.arange(100) >= 90, share=0.5, batch_size=4)
    >>> batch = list(sampler)[:4]
    >>> len(sampler), sum(i >= 90 for i in batch), round(float(sampler.weights[batch].mean()), 3)
    (100, 2, 1.0)
    """

    def __init__(self, tail: Tensor, share: float, batch_size: int) -> None:
        checks.inside(share=share)
        checks.at_least_one(batch_size=batch_size)
        self.tail, self.share, self.batch_size = _mask(tail, n=len(tail)), share, batch_size

    @property
    def weights(self) -> Tensor:
        """(N,) weight of each item, of mean 1 over every batch."""
        batch = rank_and_world()[1] * self.batch_size
        return _weights(self.tail, tail_count(self.share, batch) / batch)

    def __len__(self) -> int:
        """Indices of an epoch, whole batches only."""
        batch = rank_and_world()[1] * self.batch_size
        return len(self.tail) // batch * batch

    def __iter__(self) -> Iterator[int]:
        batch = rank_and_world()[1] * self.batch_size
        generator = Generator().manual_seed(draw_seed())
        yield from _stratified(self.tail, self.share, batch, len(self) // batch, generator).flatten().tolist()


class StratifiedLoader(MemoryLoader):
    """A `MemoryLoader` whose batches hold the tail in a chosen share, with weights (see `tail_loader`)."""

    def __init__(self, loader: MemoryLoader, tail: Any, share: float) -> None:
        self.tail, self.share = _mask(tail, loader.data, loader.labels, n=len(loader.data)).cpu(), share
        self.given = loader.mass
        super().__init__(
            loader.data, loader.labels, loader.batch_size, transform=loader.transform, device=loader.device
        )

    @property
    def mass(self) -> Tensor | None:
        """That of the plain data: what is drawn more often weighs less."""
        return self.given

    def order(self, rows: int, generator: Generator) -> Tensor:
        """Each batch of all processes has its share of the tail, in random places."""
        batch = rank_and_world()[1] * self.batch_size
        return _stratified(self.tail, self.share, batch, rows // batch, generator).flatten()

    def __iter__(self) -> Iterator[Any]:
        batch = rank_and_world()[1] * self.batch_size
        weights = _weights(self.tail, tail_count(self.share, batch) / batch).to(self.device)
        self.weights = weights if self.given is None else weights * self.given
        yield from super().__iter__()


class StratifiedFreshLoader(FreshLoader):
    """A `FreshLoader` whose batches hold the tail in a chosen share, with weights (see `tail_loader`).

    Items are picked from blocks of fresh draws, and weighed by the mass that the tail has in their block: unbiased
    without that the mass of the tail need be known. What can be learned of the data is learned from draws that are the
    same each time.
    """

    def __init__(self, loader: FreshLoader, tail: Any, share: float) -> None:
        super().__init__(loader.draw, loader.batch_size, loader.batches_per_epoch, loader.device)
        pilot = self.draw(self.block, Generator(self.device).manual_seed(0))
        if isinstance(tail, Tensor):
            raise ValueError("tail must be a definition, not booleans, for data that are drawn anew.")
        self.tail = tail.fit(pilot, None) if isinstance(tail, Tail) else tail
        self.share, self.mass = share, float(_mask(self.tail, pilot, None, n=len(pilot)).double().mean())

    def __iter__(self) -> Iterator[Any]:
        generator = Generator(self.device).manual_seed(draw_seed())
        rank, world = rank_and_world()
        batch = world * self.batch_size
        size, count = max(self.block, 4 * batch), tail_count(self.share, batch)
        # Not by what a block holds: blocks with much of the tail would be used more often than others.
        per_block = max(1, int(size * min(self.mass / count, (1 - self.mass) / (batch - count))))
        for start in range(0, self.batches_per_epoch, per_block):
            items, batches = self.draw(size, generator), min(per_block, self.batches_per_epoch - start)
            mask = self.tail(items, None)
            weights = _weights(mask, count / batch)
            for index in _stratified(mask, self.share, batch, batches, generator)[:, rank::world]:
                yield items.index_select(0, index), None, weights.index_select(0, index)


class _Weighted(Dataset):
    def __init__(self, dataset: Any, weights: Tensor) -> None:
        self.dataset, self.weights = dataset, weights

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Any, float]:
        return self.dataset[i], float(self.weights[i])


def _collate(collate: Callable[[list], Any], rows: list[tuple[Any, float]]) -> tuple[Any, Any, Tensor]:
    batch = collate([item for item, _ in rows])
    real, labels, *_ = columns(batch)
    return real, labels, torch.tensor([weight for _, weight in rows])


def tail_count(share: float, batch: int) -> int:
    """How many of ``batch`` items are of the tail: ``share`` of them, but at least one and not all.

    Raises:
        ValueError: for a batch of one item.

    >>> tail_count(0.25, batch=8), tail_count(0.01, batch=8)
    (2, 1)
    """
    if batch < 2:
        raise ValueError(f"batch_size must be at least 2, for the tail and the rest, got {batch}.")
    return min(max(round(share * batch), 1), batch - 1)


def _items(loader: DataLoader) -> tuple[Tensor, Tensor | None]:
    batches = map(columns, DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn))
    items, labels, *_ = zip(*batches)
    return torch.cat(items), torch.cat(labels) if isinstance(labels[0], Tensor) else None


def _mask(tail: Any, data: Tensor | None = None, labels: Tensor | None = None, *, n: int) -> Tensor:
    """(n,) booleans, neither all true nor all false."""
    if not isinstance(tail, Tensor):
        assert data is not None
        tail = tail.fit(data, labels)(data, labels) if isinstance(tail, Tail) else tail(data, labels)
    if not isinstance(tail, Tensor) or tail.dtype != torch.bool or tail.shape != (n,):
        got = f"{tail.dtype} of shape {tuple(tail.shape)}" if isinstance(tail, Tensor) else type(tail).__name__
        raise ValueError(f"tail must give {n} booleans, one per item, got {got}.")
    if not 0 < (found := int(tail.sum())) < n:
        raise ValueError(f"tail must hold some items and not all, got {found} of {n}.")
    return tail


def _weights(mask: Tensor, share: float) -> Tensor:
    """(N,) weights where the tail makes ``share`` of a batch; 1 for data that are all tail or have none."""
    mass = float(mask.double().mean())
    if mass in (0.0, 1.0):
        return torch.ones(len(mask), device=mask.device)
    tail, body = stratum_weights(mass, share)
    return torch.full((len(mask),), body, device=mask.device).masked_fill(mask, tail)


def _stratified(mask: Tensor, share: float, batch: int, batches: int, generator: Generator) -> Tensor:
    """(batches, batch) indices: each row holds its share of the tail, in random places."""
    count, (tail, body) = tail_count(share, batch), (mask.nonzero()[:, 0], (~mask).nonzero()[:, 0])
    count = 0 if len(tail) == 0 else batch if len(body) == 0 else count
    rows = torch.cat([_cycled(tail, batches, count, generator), _cycled(body, batches, batch - count, generator)], 1)
    places = torch.rand(batches, batch, generator=generator, device=mask.device, dtype=torch.float64).argsort(1)
    return rows.gather(1, places)


def _cycled(index: Tensor, batches: int, count: int, generator: Generator) -> Tensor:
    """(batches, count) of one shuffled order of ``index`` after the other."""
    if count == 0:
        return index.new_empty(batches, 0)
    rounds = math.ceil(batches * count / len(index))
    key = torch.rand(rounds, len(index), generator=generator, device=index.device, dtype=torch.float64)
    return index[key.argsort(1).flatten()[: batches * count]].view(batches, count)


def _feature(data: Tensor, feature: Feature) -> Tensor:
    if callable(feature):
        return feature(data)
    flat = data.flatten(1)
    if isinstance(feature, int):
        if not 0 <= feature < flat.shape[1]:
            raise ValueError(f"feature must be in 0..{flat.shape[1] - 1}, or 'mean' or 'norm', got {feature}.")
        return flat[:, feature].float()
    if feature not in ("mean", "norm"):
        raise ValueError(f"feature must be a place, 'mean', 'norm' or a function, got {feature!r}.")
    return flat.float().mean(1) if feature == "mean" else flat.float().norm(dim=1)


def _density(points: Tensor, sigma: float, data: Tensor) -> Tensor:
    """log sum_j exp(-||y_j - x_i||^2 / 2 sigma^2) (N,) at items x, of points y; a part of the items at a time."""
    y = points.flatten(1)
    parts = [torch.cdist(x.flatten(1), y) for x in data.float().split(4096)]
    return torch.cat([torch.logsumexp(-(distance / sigma).square() / 2, dim=1) for distance in parts])
