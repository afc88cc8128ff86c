"""Boosted generative models (Grover and Ermon, arXiv:1702.08484): one model, corrected by several classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lightning_gans import checks
from lightning_gans.samplers.base import LogRatio, call_ratio
from lightning_gans.samplers.metropolis_hastings import MetropolisHastings
from lightning_gans.samplers.ratio_head import keep_training


class BoostedRatio(nn.Module):
    r"""The log ratio of a boosted model to the one that it begins with, for any sampler.

    .. math:: \log \tilde q_t(x) - \log h_0(x) = \sum_{s=1}^t a_s\, l_s(x)

    Each l_s is log p_data / q_{s-1}, as `boosted_ratio` trains them; with a = 1 and exact ones the first is enough.
    ``MetropolisHastings(model, BoostedRatio(...))`` then draws from q_t, as ``LatentLangevin`` does.

    Args:
        ratios: networks, or functions, of samples [, labels] to (N,).
        weights: a_s, one each; None: all 1.

    Raises:
        ValueError: for another number of weights.

    >>> both = BoostedRatio([lambda x: x[:, 0], lambda x: x[:, 1]], weights=[1.0, 0.5])
    >>> both(torch.tensor([[1.0, 4.0]])).tolist()
    [3.0]
    """

    def __init__(self, ratios: Sequence[LogRatio], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.ratios, self.weights = list(ratios), [1.0] * len(ratios) if weights is None else list(weights)
        if len(self.weights) != len(self.ratios):
            raise ValueError(f"weights must be one for each of {len(self.ratios)} ratios, got {len(self.weights)}.")
        self.networks = nn.ModuleList([ratio for ratio in self.ratios if isinstance(ratio, nn.Module)])

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples (N, ...) to their log ratios (N,)."""
        parts = [a * call_ratio(ratio, x, labels) for a, ratio in zip(self.weights, self.ratios)]
        return torch.stack(parts).sum(0) if parts else torch.zeros(len(x), device=x.device)


def boosted_ratio(
    module: Any,
    real: Tensor,
    discriminators: Sequence[nn.Module],
    *,
    weights: Sequence[float] | None = None,
    chain: int = 20,
    seed: int = 0,
    **options: Any,
) -> BoostedRatio:
    """Train classifier after classifier, each of data against samples of the model that those before it make.

    Args:
        module: the model h_0, with ``sample``; not changed, and without classes.
        real: (M, ...) real samples, as of `keep_training`.
        discriminators: (N, ...) to (N,), one for each round; copied.
        weights: a_s of each.
        chain: Metropolis-Hastings proposals for each sample of a round behind the first.
        seed: of the rounds.
        options: of `keep_training`.

    Raises:
        ValueError: for settings out of range, and another number of weights than of discriminators.

    >>> module = SimpleNamespace(sample=lambda n, labels, generator: torch.randn(n, 1, generator=generator))
    >>> found = boosted_ratio(module, 1 + torch.randn(100, 1), [nn.Linear(1, 1)], steps=10, progress=False)
    >>> found(torch.zeros(3, 1)).shape
    torch.Size([3])
    """
    checks.at_least_one(chain=chain)
    weights = BoostedRatio(list(discriminators), weights).weights
    made = BoostedRatio([])
    for s, discriminator in enumerate(discriminators):

        def sample(n: int, labels: Any, generator: Generator, ratio: BoostedRatio = made) -> Tensor:
            if not ratio.ratios:
                return module.sample(n, None, generator)  # type: ignore[no-any-return]
            return MetropolisHastings(module, ratio, steps=chain).draw(n, generator)

        source = SimpleNamespace(discriminator=discriminator, sample=sample)
        head = keep_training(source, real, seed=seed + s, **options)
        made = BoostedRatio([*made.ratios, head], weights[: s + 1])
    return made
