"""``Progress``: where training stands, and what its steps have left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_gans.engine.batch import Batch


@dataclass
class Progress:
    """In an object of its own, since assigning to a module is slow.

    Attributes:
        done: turns of each player in the cycle under way; all 0 between two cycles.
        updates: of each player since the run began.
        images_seen: real samples that all ranks have trained on, repetitions counted.
        labels: of the cycle's real batches.
        values: last value of everything that is logged, detached and on the device.
        kept: tensors that a technique keeps until the cycle ends.
        made: tensors that the last steps made, such as ``fake``.
        batches: the last batch of each player.
        measured: what a technique measures once on the data is of those that it trains on now. It says so itself, and
            measures anew where this is False: in a new run, and where one goes on with data of another name.
    """

    done: dict[str, int] = field(default_factory=dict)
    updates: dict[str, int] = field(default_factory=dict)
    images_seen: int = 0
    labels: list[Tensor] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    made: dict[str, Tensor] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    measured: bool = False

    def begin(self, players: Any, anew: bool = True) -> None:
        """A new run: everything but the values is forgotten, and images unless the trainer counts on (not ``anew``)."""
        self.done, self.updates = dict.fromkeys(players, 0), dict.fromkeys(players, 0)
        self.images_seen, self.labels = 0 if anew else self.images_seen, []
        self.measured = self.measured and not anew
        for content in (self.kept, self.made, self.batches):
            content.clear()

    def end_cycle(self) -> None:
        """A cycle is complete."""
        for name in self.done:
            self.done[name] = 0
        self.labels.clear()
        self.kept.clear()

    def take_means(self, noted: Sequence[dict[str, Tensor]]) -> None:
        """Of what several batches have noted, of truths their share; given: before the first and behind each."""
        for name in noted[-1]:
            parts = [now[name] * 1.0 for old, now in pairwise(noted) if now.get(name) is not old.get(name)]
            if parts:
                self.values[name] = reduce(torch.add, parts) / len(parts)

    def __getstate__(self) -> dict[str, Any]:
        """Values alone: what a copy of a module in training would not go on with stays behind."""
        return vars(Progress()) | {"values": self.values, "images_seen": self.images_seen}
