"""Discriminator rejection sampling (Azadi et al. 2018, arXiv:1810.06758), and thresholding beside it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.samplers.base import BLOCK, LogRatio, Sampler, stream

EPSILON = 1e-14
PATIENCE = 1000  # blocks of proposals without one that is accepted


def acceptance_logit(logits: Tensor, maximum: Tensor | float, gamma: float = 0.0, epsilon: float = EPSILON) -> Tensor:
    """F = l - l_M - log(1 - exp(l - l_M - epsilon)) - gamma: a proposal is accepted with probability sigmoid(F).

    At gamma = epsilon = 0 that is e^(l - l_M), p_data / (M p_generated). A logit above the maximum counts as the
    maximum, where F is about -log epsilon, infinite at epsilon = 0.

    Args:
        logits: l (N,); F is in float64, in which alone an epsilon of 1e-14 is not lost.
        maximum: l_M.
        gamma: > 0 rejects more, < 0 accepts more.
        epsilon: >= 0.

    >>> [round(v, 6) for v in acceptance_logit(torch.tensor([-1.0, -2.0]), 0.0, epsilon=0.0).sigmoid().log().tolist()]
    [-1.0, -2.0]
    """
    below = (logits.double() - maximum).clamp_max(0)
    return below - (-torch.expm1(below - epsilon)).log() - gamma


class RejectionSampler(Sampler):
    """A proposal x of G is kept with probability sigmoid(F(x)), F = l - l_M - log(1 - e^(l - l_M - eps)) - gamma.

    l = log p_d / p_g is the log ratio and l_M its maximum, so that at gamma = 0 the kept samples follow p_d if l is
    right and nothing exceeds l_M, and a share 1 / M of the proposals is kept, M = e^l_M. gamma > 0 rejects more and
    gamma < 0 accepts more. Taken as a percentile of F, it lets the proposal at that percentile be kept with probability
    1/2. How much is kept then depends on how widely l is spread, and what is kept is a soft choice of the highest l, no
    longer p_d.

    l_M and gamma are taken from a burn-in and then fixed, so that samples can be drawn in any order. With ``running``
    they follow the batches, as in the paper: l_M is raised where it is exceeded (what was kept before is not taken
    back) and gamma is the percentile within each batch of 100. Samples then depend on all that were drawn before.

    With labels given, each is proposed for until it has its sample.

    Departures: gamma = 0, which aims at p_d, where the paper takes the 80th percentile (``gamma=None``); l_M and gamma
    are those of a burn-in, where there they follow the batches (``running=True``).

    Attributes:
        expected: share of the proposals that will be accepted, by those of the burn-in; NaN before :meth:`prepare`.

    Args:
        module: see `Sampler`, as for ``log_ratio``.
        log_ratio: l.
        gamma: a number, or None for the percentile.
        percentile: 0 or in [1, 100], if gamma is None.
        epsilon: eps >= 0, which bounds F where l = l_M.
        burn_in: proposals by which l_M, and gamma, are fixed.
        running: l_M and gamma by batch.
        seed: of the burn-in.

    Raises:
        ValueError: for settings out of range; in sampling, if nothing is accepted any more.

    >>> def proposal(n, generator):
    ...     return torch.rand(n, generator=generator)
    >>> sampler = RejectionSampler(proposal, lambda x: torch.where(x > 0.5, 1.5, 0.5).log(), burn_in=100)
    >>> share = float((sampler.sample(1000, progress=False) > 0.5).double().mean())  # 3 / 4, of 2 / 3 of the proposals
    >>> abs(share - 0.75) < 0.05, abs(sampler.report.acceptance - 2 / 3) < 0.05
    (True, True)
    """

    name = "drs"

    def __init__(
        self,
        module: Any,
        log_ratio: LogRatio | None = None,
        *,
        gamma: float | None = 0.0,
        percentile: float = 80.0,
        epsilon: float = EPSILON,
        burn_in: int = 10_000,
        running: bool = False,
        seed: int = 0,
    ) -> None:
        checks.finite(**checks.given(gamma=gamma))
        checks.each({"percentile": percentile}, "0 or in [1, 100], such as 80", lambda p: p == 0 or 1 <= p <= 100)
        checks.not_negative(epsilon=epsilon)
        checks.at_least_one(burn_in=burn_in)
        checks.at_least(0, seed=seed)
        super().__init__(module, log_ratio)
        self.gamma, self.percentile, self.epsilon, self.burn_in = gamma, percentile, epsilon, burn_in
        self.running, self.seed = running, seed
        self.maximum: Tensor | None = None  # l_M
        self.shift = 0.0  # gamma
        self.expected = math.nan
        self.exceeded = 0  # proposals above l_M

    def prepare(self) -> None:
        """The burn-in."""
        if self.maximum is not None:
            return
        logits = []
        for start in range(0, self.burn_in, BLOCK):  # streams that no seed of samples has
            proposals = self.propose(min(BLOCK, self.burn_in - start), stream(-1 - self.seed, start))
            logits.append(self.logits(*proposals))
        every = torch.cat(logits)
        if not bool(every.isfinite().any()):
            raise ValueError(f"log_ratio must be above -inf for a proposal, got -inf for all {self.burn_in}.")
        self.fix(every)
        self.expected = float(self.probability(every).mean())
        self.report.burn_in += self.burn_in

    def fix(self, logits: Tensor) -> None:
        """Take l_M and gamma from these."""
        logits = logits[logits.isfinite()]
        self.maximum = logits.max()
        self.shift = self.percentile_of(logits) if self.gamma is None else self.gamma

    def percentile_of(self, logits: Tensor) -> float:
        """gamma by percentile of F."""
        assert self.maximum is not None
        return float(torch.quantile(acceptance_logit(logits, self.maximum, 0.0, self.epsilon), self.percentile / 100))

    def probability(self, logits: Tensor) -> Tensor:
        """With which proposals of these logits (N,) are kept, (N,)."""
        assert self.maximum is not None
        self.exceeded += int((logits > self.maximum).sum())
        if self.running and len(possible := logits[logits.isfinite()]):
            self.maximum = torch.maximum(self.maximum, possible.max())
            self.shift = self.percentile_of(possible) if self.gamma is None else self.gamma
        return acceptance_logit(logits, self.maximum, self.shift, self.epsilon).sigmoid()

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """Propose 100 at a time until all are found."""
        self.prepare()
        found: dict[int, Tensor] = {}
        idle = 0
        while len(found) < n:
            missing = [i for i in range(n) if i not in found]
            rows = [missing[j % len(missing)] for j in range(BLOCK)]  # for which each proposal is, if it has a label
            x, given = self.propose(BLOCK, generator, None if labels is None else labels[rows])
            probability = self.probability(self.logits(x, given)).cpu()
            kept = (torch.rand(BLOCK, generator=generator, dtype=torch.float64) < probability).nonzero()[:, 0].tolist()
            self.report.proposals += BLOCK
            self.report.accepted += len(kept)
            for place, j in enumerate(kept):
                if labels is not None:
                    found.setdefault(rows[j], x[j])
                elif place < len(missing):
                    found[missing[place]] = x[j]
            idle = 0 if kept else idle + 1
            if idle == PATIENCE:
                raise ValueError(
                    f"none of the last {BLOCK * PATIENCE} proposals was accepted: lower gamma, or make a log_ratio "
                    "that is not so far from 0."
                )
        return torch.stack([found[i] for i in range(n)])


class Thresholding(RejectionSampler):
    """Keeps a proposal if its log ratio is among the highest: what rejection sampling is compared with.

    The threshold is a quantile of the log ratios of the burn-in. Regions of a low ratio are left out altogether, where
    rejection sampling gives them what they deserve.

    Args:
        module: see `Sampler`, as for ``log_ratio``.
        log_ratio: l.
        keep: share of the proposals that is kept, in (0, 1].
        burn_in: as for `RejectionSampler`.
        seed: of the burn-in.

    >>> def proposal(n, generator):
    ...     return torch.rand(n, generator=generator)
    >>> sampler = Thresholding(proposal, lambda x: x, keep=0.2, burn_in=1000)
    >>> bool((sampler.sample(100, progress=False) > 0.75).all()), round(sampler.report.acceptance, 1)
    (True, 0.2)
    """

    name = "threshold"

    def __init__(
        self,
        module: Any,
        log_ratio: LogRatio | None = None,
        *,
        keep: float = 0.2,
        burn_in: int = 10_000,
        seed: int = 0,
    ) -> None:
        checks.up_to_one(keep=keep)
        super().__init__(module, log_ratio, burn_in=burn_in, seed=seed)
        self.keep = keep

    def fix(self, logits: Tensor) -> None:
        """Take the threshold from these: what is never kept counts among the others."""
        possible = logits.isfinite()
        share = max(0.0, 1 - self.keep / float(possible.double().mean()))
        self.maximum = torch.quantile(logits[possible], share)

    def probability(self, logits: Tensor) -> Tensor:
        """1 from the threshold on, 0 below."""
        assert self.maximum is not None
        return (logits >= self.maximum).double()
