"""Consistency of a critic with dropout around the data."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.consistency import dropout_distance, relic_term, warn_without_dropout
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer

Kind = Literal["distance", "relic"]


class ConsistencyTerm(Regularizer):
    """mean max(0, (f1 - f2)^2 + a mean_F (h1 - h2)^2 - M / lambda) at real samples (CT-GAN, arXiv:1803.01541).

    See ``functional.consistency``. Weighted by lambda it is the released code's term, whose hinge has lambda inside;
    the paper has distances where the code has squares. The code takes the first pass from the adversarial term; here
    both are the term's own. Without dropout, or in evaluation mode, it is 0, which is told in a warning.

    ``kind="relic"`` has in its place ReLIC's contrast of the features and the divergence of their similarities
    (arXiv:2010.07922, ``functional.consistency.relic_term``), whose masks may be those of ``wrappers.DiffAugment``:
    the samples of a batch must be told from each other, and in the same way under both.

    Args:
        weight: lambda, the paper's lambda_2.
        margin: M >= 0, the paper's M'.
        feature_weight: a >= 0; of no use to "relic", as M.
        kind: "distance" or "relic".
        temperature: tau > 0 of ReLIC.
        alpha: >= 0, the weight of its divergence.

    Raises:
        ValueError: for an argument out of range, or a margin or another than the default ``feature_weight`` with
            "relic"; when called, for a critic without a linear layer if a > 0, or with "relic".

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.ones(100, 1), labels=None, generator=None)
    >>> term, dropout = ConsistencyTerm(feature_weight=0), nn.Sequential(nn.Dropout(0.5), nn.Flatten(0))
    >>> 0 < float(term(dropout, batch, fake=batch.real)) < 4  # squares of 0 and of 2
    True
    """

    name = "consistency"
    per_sample, of_tokens = True, True

    def __init__(
        self, weight: float = 2.0, margin: float = 0.0, feature_weight: float = 0.1, kind: Kind = "distance",
        temperature: float = 0.1, alpha: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(weight)
        checks.one_of("kind", kind, get_args(Kind))
        checks.positive(temperature=temperature)
        checks.not_negative(alpha=alpha)
        if kind == "relic":
            checks.only("margin", margin, 0.0, "with kind='relic'")
            checks.only("feature_weight", feature_weight, 0.1, "with kind='relic'")
        checks.not_negative(margin=margin, feature_weight=feature_weight)
        if margin and not weight:
            raise ValueError(f"margin must be 0 with weight=0, got {margin}.")
        self.margin, self.feature_weight, self._checked = margin, feature_weight, False
        self.kind, self.temperature, self.alpha = kind, temperature, alpha

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at the real samples; the first call warns where it is 0."""
        if self.kind == "relic":
            return relic_term(discriminator, batch.real, batch.labels, self.temperature, self.alpha)
        distance = dropout_distance(discriminator, batch.real, batch.labels, self.feature_weight)
        if not self._checked:
            warn_without_dropout(distance)
            self._checked = True
        return (distance - self.margin / self.weight if self.margin else distance).clamp_min(0).mean()
