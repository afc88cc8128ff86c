"""Calling a discriminator that may or may not take labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor, cat, nn, zeros_like

from lightning_gans import checks

NAMES = ("labels", "label", "y", "class_labels")  # of the argument that takes them, ours first


def takes_labels(net: Callable[..., Any]) -> bool:
    """Whether a network is conditional: forward has such an argument and `num_classes`, if there, is not None or 0.

    >>> takes_labels(lambda x: x), takes_labels(lambda x, labels: x)
    (False, True)
    """
    return label_argument(net) is not None


def without_labels(**nets: Callable[..., Any]) -> None:
    """ValueError for a network that takes labels.

    >>> without_labels(decoder=lambda x, labels: x)
    Traceback (most recent call last):
    ValueError: decoder must take no labels, got function, which does.
    """
    for name, net in nets.items():
        if takes_labels(net):
            raise ValueError(f"{name} must take no labels, got {type(net).__name__}, which does.")


def label_argument(net: Callable[..., Any]) -> str | None:
    """Name of the argument by which a conditional network takes labels, one of `NAMES`; None if it takes none."""
    net = getattr(net, "_orig_mod", net)  # torch.compile hides the signature of forward
    if getattr(net, "num_classes", 1) in (None, 0):  # StudioGAN's, and others', say 0
        return None
    forward = getattr(net, "forward", net)
    return _argument(getattr(forward, "__func__", forward))[0]


def needs_labels(net: Callable[..., Any]) -> bool:
    """Whether a network cannot do without: it knows the number of its classes, or the argument has no default."""
    net = getattr(net, "_orig_mod", net)
    forward = getattr(net, "forward", net)
    required = _argument(getattr(forward, "__func__", forward))[1]
    return takes_labels(net) and (required or getattr(net, "num_classes", None) is not None)


@lru_cache(maxsize=64)
def _argument(function: Callable[..., Any]) -> tuple[str | None, bool]:
    arguments = inspect.signature(function).parameters
    name = next((name for name in NAMES if name in arguments), None)
    return name, name is not None and arguments[name].default is inspect.Parameter.empty


def real_in_generator_step(g_batch_factor: int, discriminator: nn.Module) -> None:
    """ValueError if the generator's step cannot score real samples, since its labels are not theirs."""
    if takes_labels(discriminator):
        reason = "with a conditional discriminator that scores real samples in the generator's step"
        checks.only("g_batch_factor", g_batch_factor, 1, reason)


def conditional_call(net: Callable[..., Tensor], x: Tensor, labels: Tensor | None = None) -> Tensor:
    """`net(x)`, or `net(x, labels=labels)` if there are labels and the network takes them, by whatever name.

    Raises:
        ValueError: if there is not one label per row of `x`.
    """
    if labels is None or (name := label_argument(net)) is None:
        return net(x)
    if len(labels) != len(x):
        raise ValueError(f"labels must be one per sample, {len(x)}, got {len(labels)}.")
    return net(x, **{name: labels})


def as_logits(told: Any, n: int, classes: int | None = None) -> Tensor:
    """Logits (n, K) of a classifier; of (n,) or (n, 1), those of classes 0 and 1, of which the first is 0.

    Raises:
        ValueError: for anything else, and for another number of ``classes``.

    >>> import torch
    >>> as_logits(torch.tensor([2.0, -1.0]), 2).tolist()
    [[0.0, 2.0], [0.0, -1.0]]
    """
    if not isinstance(told, Tensor) or told.shape[:1] != (n,) or told.ndim > 2:
        got = tuple(told.shape) if isinstance(told, Tensor) else type(told).__name__
        raise ValueError(f"classifier must return logits (N, K) for {n} samples, got {got}.")
    one = told.reshape(n, -1)
    logits = cat([zeros_like(one), one], 1) if one.shape[1] == 1 else one
    if classes not in (None, logits.shape[1]):
        raise ValueError(f"classifier must tell num_classes = {classes} classes, got {logits.shape[1]}.")
    return logits


def score(
    discriminator: Callable[..., Tensor], x: Tensor, labels: Tensor | None = None, name: str = "discriminator"
) -> Tensor:
    """The raw scores (N,) of `x` (N, ...); `labels` (N,) are passed on only if the discriminator takes them.

    `name` is that of the network in errors.

    Raises:
        ValueError: if the scores are not of shape (N,), or if there is not one label per sample.

    >>> import torch
    >>> score(lambda x, labels: x.sum(1) + labels, torch.ones(2, 3), torch.tensor([0, 1])).tolist()
    [3.0, 4.0]
    """
    scores, n = discriminator(x) if labels is None else conditional_call(discriminator, x, labels), len(x)
    return scores if scores.shape == (n,) else check_scores(scores, n, name)


def check_scores(scores: Tensor, n: int, name: str = "discriminator") -> Tensor:
    """Returns `scores` (n,), flat where they are (n, 1) or the like; any other shape, which would broadcast silently
    in a loss, is a ValueError.

    >>> import torch
    >>> tuple(check_scores(torch.zeros(3, 1), 3).shape)
    (3,)
    """
    if scores.shape != (n,):
        if len(scores.shape) > 1 and scores.shape[0] == n == scores.numel():
            return scores.flatten()
        raise ValueError(f"{name} must return scores of shape ({n},), got {tuple(scores.shape)}.")
    return scores
