"""Calling a discriminator that may or may not take labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor


def takes_labels(net: Callable[..., Any]) -> bool:
    """Whether a network is conditional: forward has a parameter `labels` and `num_classes`, if there, is not None."""
    net = getattr(net, "_orig_mod", net)  # torch.compile hides the signature of forward
    forward = getattr(net, "forward", net)
    return getattr(net, "num_classes", 1) is not None and _has_labels(getattr(forward, "__func__", forward))


@lru_cache(maxsize=64)
def _has_labels(function: Callable[..., Any]) -> bool:
    return "labels" in inspect.signature(function).parameters


def conditional_call(net: Callable[..., Tensor], x: Tensor, labels: Tensor | None = None) -> Tensor:
    """`net(x)`, or `net(x, labels=labels)` if there are labels and the network takes them.

    Raises:
        ValueError: if there is not one label per row of `x`.
    """
    if labels is None or not takes_labels(net):
        return net(x)
    if len(labels) != len(x):
        raise ValueError(f"labels must be one per sample, {len(x)}, got {len(labels)}.")
    return net(x, labels=labels)


def score(discriminator: Callable[..., Tensor], x: Tensor, labels: Tensor | None = None) -> Tensor:
    """The raw scores (N,) of `x` (N, ...); `labels` (N,) are passed on only if the discriminator takes them.

    Raises:
        ValueError: if the scores are not of shape (N,), or if there is not one label per sample.
    """
    return check_scores(conditional_call(discriminator, x, labels), len(x))


def check_scores(scores: Tensor, n: int) -> Tensor:
    """Returns `scores`; a shape other than (n,), which would broadcast silently in a loss, is a ValueError."""
    if scores.shape != (n,):
        raise ValueError(f"discriminator must return scores of shape ({n},), got {tuple(scores.shape)}.")
    return scores
