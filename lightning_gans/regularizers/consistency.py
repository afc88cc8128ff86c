"""Consistency of a critic with dropout around the data."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from lightning_gans.functional.conditional import score
from lightning_gans.functional.numerics import full_precision
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class ConsistencyTerm(Regularizer):
    """mean max(0, (f1 - f2)^2 + a mean_F (h1 - h2)^2 - M / lambda) at real samples (CT-GAN, arXiv:1803.01541).

    f1, f2 (N,) are the scores and h1, h2 (N, F) the features of the same samples under two dropout masks; a feature is
    what goes into the last linear layer. Weighted by lambda it is the released code's term, whose hinge has lambda
    inside; the paper has distances where the code has squares. The code takes the first pass from the adversarial
    term; here both are the term's own. Without dropout, or in evaluation mode, it is 0, which is told in a warning.

    Args:
        weight: lambda, the paper's lambda_2.
        margin: M >= 0, the paper's M'.
        feature_weight: a >= 0.

    Raises:
        ValueError: for an argument out of range; when called, for a critic without a linear layer if a > 0.
    """

    name = "consistency"
    per_sample = True

    def __init__(self, weight: float = 2.0, margin: float = 0.0, feature_weight: float = 0.1) -> None:
        super().__init__(weight)
        for name, value in (("margin", margin), ("feature_weight", feature_weight)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number >= 0, got {value}.")
        if margin and not weight:
            raise ValueError(f"margin must be 0 with weight=0, got {margin}.")
        self.margin, self.feature_weight, self._checked = margin, feature_weight, False

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        twice = torch.cat([batch.real, batch.real])  # one pass: each row has a mask of its own
        labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        features: list[Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
            for layer in discriminator.modules()
            if isinstance(layer, nn.Linear) and self.feature_weight > 0
        ]
        try:
            f1, f2 = full_precision(score(discriminator, twice, labels)).chunk(2)
        finally:
            for hook in hooks:
                hook.remove()
        distance = (f1 - f2).square()
        if self.feature_weight > 0:
            if not features:
                raise ValueError(
                    "feature_weight must be 0 for a discriminator without a torch.nn.Linear layer, "
                    f"got {self.feature_weight}."
                )
            h1, h2 = full_precision(features[-1].flatten(1)).chunk(2)
            distance = distance + self.feature_weight * (h1 - h2).square().mean(1)
        if not self._checked and not distance.detach().any():
            warnings.warn("The consistency term is 0: the discriminator has no active dropout.", stacklevel=2)
        self._checked = True
        return (distance - self.margin / self.weight if self.margin else distance).clamp_min(0).mean()
