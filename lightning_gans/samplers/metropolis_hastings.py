"""Metropolis-Hastings sampling from a GAN (Turner et al. 2018, arXiv:1811.11357)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.samplers.base import LogRatio, Sampler, stream
from lightning_gans.samplers.calibration import check_alike


class Chains:
    """N chains of the independence sampler: from x to x' with probability min(1, e^(l' - l)).

    A chain starts at the log ratio of a real sample, which is not itself a sample of G. Until a proposal is accepted
    there is also the chain that starts at the first proposal, and it is the result if none ever is.

    Args:
        start: (N,) log ratios of the starts; None starts at the first proposal.

    Attributes:
        logits: (N,) log ratios of where the chains are; None before the first proposal.
        moved: (N,) whether the chain has left its start.
        accepted: (N,) proposals that the chains accepted.

    >>> chains, uniforms = Chains(start=torch.zeros(2)), torch.tensor([0.1, 0.9])
    >>> _ = chains.step(torch.tensor([-1.0, -1.0]), uniforms)  # accepted with probability 1/e
    >>> chains.moved.tolist(), chains.accepted.tolist()
    ([True, False], [1, 0])
    """

    logits: Tensor | None = None
    moved: Tensor
    accepted: Tensor

    def __init__(self, start: Tensor | None = None) -> None:
        self.start = start

    def step(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Offer each chain a proposal; (N,) whether it goes there.

        Args:
            logits: (N,) log ratios of the proposals.
            uniforms: (N,) in [0, 1).
        """
        log_u = uniforms.log()
        if self.logits is None:
            self.logits, everywhere = logits, torch.ones_like(logits, dtype=torch.bool)
            self.moved = everywhere if self.start is None else log_u < logits - self.start
            self.accepted = torch.zeros_like(logits, dtype=torch.long) if self.start is None else self.moved.long()
            return everywhere
        onward = log_u < logits - self.logits
        leaves = ~self.moved if self.start is None else ~self.moved & (log_u < logits - self.start)
        self.accepted = self.accepted + (leaves | (self.moved & onward))
        self.moved = self.moved | leaves
        goes = onward | leaves
        self.logits = torch.where(goes, logits, self.logits)
        return goes


def pick(logits: Tensor, uniforms: Tensor, start: Tensor | None = None) -> Tensor:
    """(N,) the index of the proposal at which each of N chains ends.

    Args:
        logits: (K, N) log ratios of the K proposals of each chain.
        uniforms: (K, N) in [0, 1).
        start: (N,) log ratios of the starts; None starts at the first proposal.

    >>> pick(torch.tensor([[0.0], [5.0], [-5.0]]), torch.full((3, 1), 0.5)).tolist()
    [1]
    """
    chains, index = Chains(start), torch.zeros(logits.shape[1], dtype=torch.long, device=logits.device)
    for k in range(len(logits)):
        index[chains.step(logits[k], uniforms[k])] = k
    return index


class MetropolisHastings(Sampler):
    """Each sample is the end of its own chain of K proposals of G, x' accepted with min(1, e^(l(x') - l(x))).

    With D = sigmoid(l) that is (1/D(x) - 1) / (1/D(x') - 1), and the stationary law is p_d if l is right, which wants
    a calibrated discriminator: see `calibrate`. Each chain starts at the score of a random real sample, so that no
    burn-in is needed; if it accepts nothing, the chain of the same proposals from the first of them is the result.

    Args:
        module: see `Sampler`, as for ``log_ratio``.
        log_ratio: l.
        real: (M, ...) real samples that were not trained on, as the discriminator takes them; None starts all chains
            at their first proposal.
        real_labels: (M,) their labels, if the discriminator takes any.
        steps: K >= 1.

    Raises:
        ValueError: for settings out of range, and labels that do not fit.

    >>> def proposal(n, generator):
    ...     return torch.rand(n, generator=generator)
    >>> sampler = MetropolisHastings(proposal, lambda x: torch.where(x > 0.5, 20.0, -20.0), steps=40)
    >>> bool((sampler.sample(50, progress=False) > 0.5).all())
    True
    """

    name = "mh"

    def __init__(
        self,
        module: Any,
        log_ratio: LogRatio | None = None,
        *,
        real: Tensor | None = None,
        real_labels: Tensor | None = None,
        steps: int = 640,
    ) -> None:
        checks.at_least_one(steps=steps)
        if real is not None and len(real) == 0:
            raise ValueError("real must hold at least one sample, got none.")
        if real_labels is not None and (real is None or len(real_labels) != len(real)):
            raise ValueError("real_labels must be one per real sample, got another number.")
        super().__init__(module, log_ratio)
        self.real, self.real_labels, self.steps = real, real_labels, steps
        self.starts: Tensor | None = None

    def prepare(self) -> None:
        """The log ratios of the real samples."""
        if self.real is not None and self.starts is None:
            check_alike(self.real, self.propose(1, stream(0, 0))[0])
            parts = self.real.split(1000)
            labels = [None] * len(parts) if self.real_labels is None else self.real_labels.split(1000)
            self.starts = torch.cat([self.logits(x, y) for x, y in zip(parts, labels)])

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` chains side by side."""
        self.prepare()
        start = None
        if self.starts is not None:
            start = self.starts[torch.randint(len(self.starts), (n,), generator=generator).to(self.starts.device)]
        labels = self.some_labels(n, generator, labels) if hasattr(self.module, "sample") else labels
        chains, x = Chains(start), torch.empty(0)
        for k in range(self.steps):
            proposal, given = self.propose(n, generator, labels)
            logits = self.logits(proposal, given)
            uniforms = torch.rand(n, generator=generator, dtype=torch.float64).to(logits.device)
            goes = chains.step(logits, uniforms).view(-1, *[1] * (proposal.dim() - 1))
            x = torch.where(goes, proposal, x) if k else proposal
        if chains.logits is not None and bool((chains.logits == -torch.inf).any()):
            raise ValueError(f"log_ratio must be above -inf for one of {self.steps} proposals: take more steps.")
        self.report.proposals += n * self.steps
        self.report.accepted += int(chains.accepted.sum())
        return x
