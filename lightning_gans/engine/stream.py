"""The data of whole D/G cycles, drawn from any loader, and resumable to the batch.

A cycle takes ``n`` batches. Lightning hands over its loader's iterator (``dataloader_iter``) once per cycle; this class
takes the batches out, carries what an epoch's end leaves over into the next epoch, and knows how to come back to the
same place after a restart:

* the loader runs on *its own* stream of random numbers, seeded per epoch by ``(seed, epoch)`` and swapped in only while
  batches are fetched. So the order of the data does not depend on what training draws, and an epoch can be replayed:
  seed, open the iterator, skip the batches that were used. That holds for ``DataLoader`` with and without workers, for
  transforms that draw in the main process, and for our in-memory loaders;
* a loader or sampler that was given a generator of its own keeps it: of such the state is remembered in which an epoch
  found them;
* batches that were fetched and not yet used are part of the state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Generator, Tensor

from lightning_gans.compat.lightning import utilities
from lightning_gans.engine import distributed, rng

_EPOCH_STRIDE = 1_000_003  # a prime: neighbouring base seeds do not share epochs
NO_BATCH = (
    "The training data loader yields no batch: the data set is empty, or the batch is larger than the data set with "
    "drop_last."
)
USED_UP = (
    "The training data loader yields no batch in another epoch: an iterator, such as a generator, can be gone through "
    "once; give what begins anew each time (a DataLoader, or a class with __iter__)."
)


class DataStream:
    """Batches of consecutive cycles.

    Attributes:
        pending: batches that are fetched and not yet used, oldest first.
        epoch: number of the loader's iterator that is open (0 at first).
        position: batches taken from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self.pending: deque[Any] = deque()
        self.untouched = True  # nobody has asked for a batch
        self._finished = True  # the open iterator is used up (or none was opened yet)
        self._next_epoch = 0
        self._replay = 0
        self._first = True
        self._iterator: Iterator[Any] | None = None
        self._training_state: rng.Place | rng.RNGState | None = None  # while the global generators are the loader's
        self._data_state: rng.Place | None = None
        self._items: int | None = None  # in the data, if they have a length
        self._generators: list[Generator] = []  # the loaders' own
        self._found: list[Tensor] = []  # their states as the open epoch, or the one that comes, has found them
        self._anew_every = 0  # epochs
        self._unknown = False  # how many batches each of several ranks has: they must end the epoch together
        self._seeded_once = False  # the loader draws from the global generators only when an epoch begins

    def enter_loader_random_state(self, loaders: Any, anew_every: int = 0) -> None:
        """Give the global generators to the loaders, which Lightning is about to open (in ``on_train_epoch_start``).

        Args:
            loaders: perhaps others than in the epoch before.
            anew_every: after how many epochs they are built anew; 0 never.
        """
        if self._training_state is None:
            self._training_state = rng.swap(None)
        self._anew_every = anew_every
        if not self._first:
            self._generators = _generators(_flat(loaders))
            self._found = [generator.get_state() for generator in self._generators]
        self._seed_epoch(self._next_epoch, loaders)

    def fill(self, iterator: Any, n: int, following: int) -> bool:
        """Fetch until ``n`` batches are pending; False if the epoch ended before (what came stays pending).

        Where the rest of an epoch is shorter than the ``following`` step it is fetched too. Then the epoch ends with a
        whole step, and no Lightning step passes without a generator update.
        """
        opening, self.untouched = iterator is not self._iterator, False
        if not opening and self._seeded_once and self.position:  # its order is drawn with the first batch
            return self._fill(iterator, n, following)
        training, self._training_state = self._training_state, None
        here = rng.swap(None if opening else self._data_state)
        try:
            if opening:
                self._open(iterator)
                lengths: list[Any] = distributed.gather_objects(iterator.length)
                self._unknown = len(lengths) > 1 and None in lengths
                if not self._unknown and len({*lengths}) > 1:
                    iterator.data_fetcher.length = min(lengths)
            complete = self._fill(iterator, n, following)
            if not complete and self.position == 0 and len(self.pending) < n:
                raise ValueError(USED_UP if self.epoch else NO_BATCH)
        finally:
            self._data_state = rng.swap(training or here, cuda=False)
        return complete

    def _fill(self, iterator: Any, n: int, following: int) -> bool:
        complete = self._take(iterator, n - len(self.pending))
        if self._unknown and complete != all(distributed.gather_objects(complete)):
            complete, iterator.data_fetcher.done = False, True  # another rank has no more
        if complete and iterator.length is not None and iterator.length - iterator.fetched < following:
            self._take(iterator, iterator.length - iterator.fetched)
        self._finished = iterator.done
        return complete

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: seed, epoch, batches taken in it, and the pending ones."""
        epoch, position = (self._next_epoch, self._replay) if self._finished else (self.epoch, self.position)
        place = {"seed": self.seed, "epoch": epoch, "position": position, "pending": list(self.pending)}
        between = self._finished and self._training_state is None  # two epochs
        found = [generator.get_state() for generator in self._generators] if between else self._found
        if between and self._anew_every and self._next_epoch % self._anew_every == 0:
            found = []  # the next epoch's are not these
        return place | {"items": self._items, "generators": found}

    def load_state_dict(self, state: dict[str, Any], training_state: rng.RNGState) -> None:
        """Go on from a :meth:`state_dict` once an iterator is handed over, and then with ``training_state``."""
        self._training_state = training_state
        self.seed = state["seed"]
        self._next_epoch, self._replay = state["epoch"], state["position"]
        self.pending = deque(state["pending"])
        self._items, self._found = state.get("items"), state.get("generators", [])
        self._finished = True

    def _seed_epoch(self, epoch: int, loaders: Any) -> None:
        """Everything that the order of an epoch depends on: the global generators, and a distributed sampler's epoch.

        Lightning sets the latter too, but not in time for a resumed run's first epoch, and counts it differently.
        """
        rng.seed((self.seed + _EPOCH_STRIDE * epoch) % 2**63)
        for loader in _flat(loaders):
            sampler = getattr(loader, "sampler", None)
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)

    def _open(self, iterator: Any) -> None:
        if not hasattr(iterator, "data_fetcher"):
            raise ValueError(
                "training_step must have one argument of the name dataloader_iter, and hand it on, got another: "
                "Lightning gives batches to those."
            )
        loaders = iterator.data_fetcher.combined_loader.flattened
        self._seeded_once = all(getattr(loader, "seeded_once", False) for loader in loaders)
        self.epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        self._seed_epoch(self.epoch, loaders)
        skip, self._replay = self._replay, 0
        was, self._items = self._items, _count(loaders)
        if (skip or self._first) and was is not None and self._items not in (None, was):
            anew = ": the epoch begins anew" if skip else ""
            utilities.rank_zero_warn(
                f"The data have {self._items} items, and had {was} when the checkpoint was written{anew}."
            )
            skip = 0
        if any(hasattr(loader, "load_state_dict") for loader in loaders):  # Lightning has brought it to its place
            self._first, self.position, self._iterator = False, skip, iterator
            iterator.data_fetcher.fetched = skip
            return
        self._generators = _generators(loaders)
        if self._first:  # Lightning opened it too early: before the generators were seeded and the state restored
            for generator, state in zip(self._generators, self._found):
                generator.set_state(state)
            self._found = [generator.get_state() for generator in self._generators]
            iter(iterator.data_fetcher)
            self._seed_epoch(self.epoch, loaders)
            self._first = False
            _tell_persistent(loaders)
        self._iterator = iterator.data_fetcher.iterator_wrapper
        # After a restart Lightning presets this count with the *steps* of the epoch; what it has to hold is batches.
        iterator.data_fetcher.fetched = 0
        self.position = 0
        for taken in range(skip):
            if not self._take(iterator, 1, keep=False):
                raise ValueError(
                    f"The checkpoint was written after {skip} batches of an epoch, but the loader ended after {taken}: "
                    "resume with the data, batch size and number of devices that the run was started with."
                )

    def _take(self, iterator: Any, n: int, keep: bool = True) -> bool:
        for _ in range(n):
            try:
                batch, *_ = next(iterator)
            except StopIteration:
                return False
            self.position += 1
            if keep:
                self.pending.append(batch)
        return True


def _flat(loaders: Any) -> list[Any]:
    """Those of a collection."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    return [found for part in loaders for found in _flat(part)] if isinstance(loaders, (list, tuple)) else [loaders]


def _count(loaders: Any) -> int | None:
    """Items of the data behind the loaders."""
    try:
        return sum(len(getattr(loader, "dataset", loader)) for loader in loaders)
    except (TypeError, NotImplementedError):  # a stream
        return None


def _generators(loaders: Any) -> list[Generator]:
    """Those that the loaders and their samplers were given, each once."""
    samplers = [getattr(loader, name, None) for loader in loaders for name in ("sampler", "batch_sampler")]
    owners = [*loaders, *samplers, *[getattr(sampler, "sampler", None) for sampler in samplers]]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, Generator)}.values())


def _tell_persistent(loaders: Any) -> None:
    """Workers that outlive an epoch cannot be seeded for the next."""
    if any(getattr(loader, "num_workers", 0) and getattr(loader, "persistent_workers", False) for loader in loaders):
        utilities.rank_zero_warn(
            "The training data loader has persistent_workers=True: what its data set draws in them is not drawn again "
            "after a resume, which is exact in all else."
        )
