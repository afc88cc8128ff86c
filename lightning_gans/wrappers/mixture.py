"""Frozen generators and one that trains, as one generator."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.conditional import conditional_call, takes_labels
from lightning_gans.functional.importance import stratum_weights, uniform_of
from lightning_gans.functional.modes import copied
from lightning_gans.functional.ranks import rank_and_world


class MixtureGenerator(nn.Module):
    """p G + (1 - p) G_1 of a frozen generator G, or mixture of some, and G_1, which alone trains.

    In evaluation mode a sample is of component k with its probability (``weights``). Which one is told by a hash of z,
    so that the same noise gives the same samples on any device, in any batch and on any number of processes.

    In training mode components are drawn by importance sampling: the first ``share`` of the rows of a batch, that of
    all processes, are G's and all others G_1's, and ``importance`` says what they weigh. G is always in evaluation
    mode, has no gradient, and stays as it is to the bit.

    Args:
        old: G, copied. The components of a `MixtureGenerator` are taken over with their weights.
        new: G_1.
        p: weight of G, in (0, 1).
        share: of G's samples in a batch of training, in [0, 1).
        learn_p: train p, too: a parameter of this network, through ``importance``.

    >>> mixture = MixtureGenerator(MixtureGenerator(nn.Linear(2, 1), nn.Linear(2, 1), p=0.5), nn.Linear(2, 1), p=0.8)
    >>> [round(w, 2) for w in mixture.weights.tolist()]
    [0.4, 0.4, 0.2]
    """

    num_classes: int | None
    components: nn.ModuleList

    def __init__(
        self, old: nn.Module, new: nn.Module, p: float = 0.9, share: float = 0.5, learn_p: bool = False
    ) -> None:
        super().__init__()
        checks.inside(p=p)
        checks.below_one(share=share)
        if learn_p and share == 0:
            raise ValueError("learn_p needs samples of both components, but share is 0.")
        components: list[nn.Module] = list(old.components) if isinstance(old, MixtureGenerator) else [old]
        shares = old.weights.detach().clone() if isinstance(old, MixtureGenerator) else torch.ones(1)
        self.components = nn.ModuleList([copied(c).requires_grad_(False) for c in components])
        self.components.append(new)
        self.share = share
        self.logit = nn.Parameter(torch.tensor(p).logit(), requires_grad=learn_p)
        self.shares: Tensor
        self.register_buffer("shares", shares)
        if not takes_labels(new):
            self.num_classes = None
        elif hasattr(new, "num_classes"):
            self.num_classes = cast(int, new.num_classes)
        self.train()

    @property
    def p(self) -> Tensor:
        """Weight of all frozen components together, a number in (0, 1)."""
        return self.logit.sigmoid()

    @property
    def weights(self) -> Tensor:
        """Probabilities of the components, (K,)."""
        return torch.cat([self.p * self.shares, (1 - self.p)[None]])

    def train(self, mode: bool = True) -> MixtureGenerator:
        """Frozen components stay in evaluation mode."""
        super().train(mode)
        for component in [*self.components][:-1]:  # a slice of the list would be made a list of modules
            component.eval()
        return self

    def importance(self, n: int) -> Tensor:
        """What the samples of a batch of ``n`` weigh in training, (n,), of mean 1 over all processes.

        p / s for those of G and (1 - p) / (1 - s) for those of G_1, where s is what G makes of the batch.
        """
        first, share = self._split(n)
        if share == 0:
            return torch.ones(n, device=self.logit.device, dtype=self.logit.dtype)
        old, new = stratum_weights(self.p, share)
        return torch.cat([old.expand(first), new.expand(n - first)])

    def _split(self, n: int) -> tuple[int, float]:
        """How many rows of this process are G's, and their share of the rows of all processes."""
        if self.share == 0:
            return 0, 0.0
        rank, world = rank_and_world()
        if n * world < 2:
            raise ValueError(f"A batch of a mixture must hold at least 2 samples, one of each side, got {n * world}.")
        old = min(max(round(self.share * n * world), 1), n * world - 1)
        return (old - rank + world - 1) // world, old / (n * world)  # of the global rows, process r has r, r + W ...

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise ``(N, latent_dim)`` to samples of the components."""
        if not self.training:
            thresholds = self.weights.double().cumsum(0)[:-1]
            which = torch.searchsorted(thresholds, uniform_of(z), right=True)
            return self._each(which, z, labels)
        first, _ = self._split(len(z))
        if first == 0:
            return conditional_call(self.components[-1], z, labels)
        here, there = (None, None) if labels is None else (labels[:first], labels[first:])
        with torch.no_grad():
            old = self._old(z[:first], here)
        if first == len(z):
            return old
        return torch.cat([old, conditional_call(self.components[-1], z[first:], there)])

    def _old(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """A sample of the frozen mixture for each row. All components see all rows: a GPU need not be waited for."""
        outputs = [conditional_call(c, z, labels) for c in [*self.components][:-1]]
        if len(outputs) == 1:
            return outputs[0]
        which = torch.searchsorted(self.shares.double().cumsum(0)[:-1], uniform_of(z), right=True)
        return torch.stack(outputs)[which, torch.arange(len(z), device=z.device)]

    def _each(self, which: Tensor, z: Tensor, labels: Tensor | None) -> Tensor:
        """Row i by component which_i; a component sees its own rows only."""
        order = which.argsort(stable=True)
        counts = torch.bincount(which, minlength=len(self.components)).tolist()
        parts = [
            conditional_call(c, z[rows], None if labels is None else labels[rows])
            for c, rows in zip(self.components, order.split(counts))
            if len(rows)
        ]
        return torch.cat(parts)[order.argsort()]
