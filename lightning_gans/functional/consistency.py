"""How far apart a network with dropout is from itself (CT-GAN, arXiv:1803.01541)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from lightning_gans.functional.conditional import score
from lightning_gans.functional.numerics import full_precision


def consistency_term(
    discriminator: nn.Module,
    x: Tensor,
    labels: Tensor | None = None,
    margin: float = 0.0,
    feature_weight: float = 0.1,
) -> Tensor:
    r"""Mean distance of a critic's two answers to the same samples under two dropout masks, above a margin; a scalar.

    .. math:: E \max(0, (f' - f'')^2 + \frac{a}{F} \|h' - h''\|^2 - m)

    where f', f'' are the scores and h', h'' (F,) the features of one sample, which are what goes into the last linear
    layer.

    Args:
        discriminator: the critic, with active dropout.
        x: samples (N, ...).
        labels: their classes (N,), if the critic takes them.
        margin: m >= 0.
        feature_weight: a >= 0.

    Raises:
        ValueError: for a critic without a linear layer if a > 0.

    >>> net, x = nn.Sequential(nn.Dropout(), nn.Linear(2, 1)).requires_grad_(False), torch.ones(64, 2)
    >>> float(consistency_term(net.eval(), x)), float(consistency_term(net.train(), x)) > 0
    (0.0, True)
    """
    return (dropout_distance(discriminator, x, labels, feature_weight) - margin).clamp_min(0).mean()


def dropout_distance(
    discriminator: nn.Module, x: Tensor, labels: Tensor | None = None, feature_weight: float = 0.1
) -> Tensor:
    """The distance (N,) of each sample's two answers, before margin and mean; as in `consistency_term`.

    >>> dropout = nn.Sequential(nn.Dropout(0.5), nn.Flatten(0))  # 1 becomes 0 or 2
    >>> sorted(set(dropout_distance(dropout, torch.ones(100, 1), feature_weight=0).tolist()))
    [0.0, 4.0]
    """
    twice = torch.cat([x, x])  # one pass: each row has a mask of its own
    labels = None if labels is None else torch.cat([labels, labels])
    features: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        for layer in discriminator.modules()
        if isinstance(layer, nn.Linear) and feature_weight > 0
    ]
    try:
        f1, f2 = full_precision(score(discriminator, twice, labels)).chunk(2)
    finally:
        for hook in hooks:
            hook.remove()
    distance = (f1 - f2).square()
    if feature_weight > 0:
        if not features:
            raise ValueError(
                f"feature_weight must be 0 for a discriminator without a torch.nn.Linear layer, got {feature_weight}."
            )
        h1, h2 = full_precision(features[-1].flatten(1)).chunk(2)
        distance = distance + feature_weight * (h1 - h2).square().mean(1)
    return distance


def warn_without_dropout(distance: Tensor) -> None:
    """Warn if distances (N,) are all 0. Waits for the device."""
    if not distance.detach().any():
        warnings.warn("The consistency term is 0: the discriminator has no active dropout.", stacklevel=3)
