"""A penalty on the size of the scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gans.functional.conditional import score
from lightning_gans.functional.numerics import full_precision
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class ScorePenalty(Regularizer):
    """mean f(x)^2 / 2 over the real and the fake samples together, of the raw scores f.

    The half is inside the term, so `weight` is gamma of gamma / 2 mean f^2. It makes a game that is linear in f, such
    as the Wasserstein one, strongly concave in f: for such games the usual alternating gradient steps were shown to
    converge to a stationary solution, given suitable step sizes (Lu et al., "Understand the dynamics of GANs via
    primal-dual optimization"). A learning rate of D near 1 / gamma and a small one of G suit it; the callback
    ``StationarityGap`` shows whether it settles.

    Args:
        weight: gamma.

    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.full((4, 1), 2.0), labels=None, generator=None)
    >>> float(ScorePenalty()(lambda x: x[:, 0], batch, fake=torch.zeros(4, 1)))  # (4 + 0) / 2 / 2
    1.0
    """

    name = "score_penalty"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at real and fake samples."""
        scores = [full_precision(score(discriminator, x, batch.labels)) for x in (batch.real, fake)]
        return torch.cat(scores).square().mean() / 2
