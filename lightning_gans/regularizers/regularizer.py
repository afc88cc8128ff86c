"""What every regularizer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.conditional import score
from lightning_gans.functional.penalties import Discriminator


class RegularizedBatch(Protocol):
    """What a regularizer reads of a batch: `real` (N, ...), noise `z`, and `labels` (N,) and `generator` or None."""

    @property
    def real(self) -> Tensor:
        """Real samples (N, ...)."""

    @property
    def z(self) -> Tensor:
        """Their noise (N, *noise_shape)."""

    @property
    def labels(self) -> Tensor | None:
        """Their classes (N,), if there are any."""

    @property
    def generator(self) -> torch.Generator | None:
        """Source of what the term draws; None means torch's global one."""


class Regularizer(ABC):
    """A term added to a player's loss, the discriminator's unless `player` says otherwise.

    Calling it gives the unweighted term, a scalar; whoever trains multiplies by `weight` and `every` and logs it under
    `name`.

    Attributes:
        name: under which the term is logged.
        per_sample: the term is a function of single samples, so BatchNorm in the discriminator makes it meaningless.
        of_tokens: a term per sample that tokens (N, T) int64 may be given to, since it takes no slopes by samples.
        player: "d" or "g", whose loss it is added to; it is called with that player's network.
        every: it is part of every n-th update only, n times as heavy.
        weight: finite, at least 0.

    A regularizer that takes ``every`` as an argument hands it on. Its gradient, averaged over n updates, is that of one
    that is part of each; at a quarter or a sixteenth of the cost (lazy regularization, arXiv:1912.04958).

    >>> class MeanSquare(Regularizer):
    ...     name = "mean_square"
    ...     def __call__(self, discriminator, batch, fake):
    ...         return fake.square().mean()
    >>> float(MeanSquare(weight=0.5)(None, None, torch.full((4, 2), 3.0)))  # not yet times the weight
    9.0
    """

    name: str
    per_sample: bool = False
    of_tokens: bool = False
    player: str = "d"
    every: int = 1

    def __init__(self, weight: float, every: int | None = None) -> None:
        checks.not_negative(weight=weight)
        self.weight = weight
        if every is not None:
            checks.at_least_one(every=every)
            self.every = every

    def fitting(self, network: nn.Module) -> Regularizer:
        """Itself; a subclass raises a ValueError here for a network of its player that it cannot be taken of."""
        return self

    @abstractmethod
    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The unweighted term, given the batch and the fake samples (N, ...) of this step."""


def conditioned(discriminator: nn.Module, batch: RegularizedBatch) -> Discriminator:
    """The discriminator as a function of samples only: a conditional one is given the batch's labels."""
    return partial(score, discriminator, labels=batch.labels)
