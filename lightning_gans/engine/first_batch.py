"""The first batch of a run, checked before any work is lost."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_gans.engine.batch import Batch
from lightning_gans.functional.conditional import conditional_call, needs_labels, takes_labels


def check_data(batch: Batch, networks: Mapping[str, nn.Module]) -> None:
    """Real samples, weights and labels are such as can be trained on, and as the networks expect them.

    Args:
        batch: the first one.
        networks: by name; those that take labels need them.

    Raises:
        TypeError: for real samples that are no tensor of numbers.
        ValueError: for everything else.
    """
    real = batch.real
    if not torch.is_tensor(real):
        raise TypeError(
            f"real samples must be a floating-point tensor, got {type(real).__name__}: yield x, (x, labels) or "
            "(x, labels, weights), or tell columns=."
        )
    if not real.is_floating_point():
        raise TypeError(
            f"real samples must be a floating-point tensor, got {real.dtype}: scale images to the data's range."
        )
    n = len(real)
    if n == 0:
        raise ValueError("The data loader yielded an empty batch.")
    if not torch.isfinite(real).all():
        raise ValueError("The first batch of real samples holds NaN or infinite values.")
    if batch.weights is not None and (batch.weights.shape != (n,) or not bool((batch.weights >= 0).all())):
        raise ValueError(
            f"weights must be {n} numbers >= 0, one per real sample, got shape {tuple(batch.weights.shape)}"
            f" with minimum {float(batch.weights.min()):g}."
        )
    if batch.weights is not None:
        mean = float(batch.weights.mean())
        if not 0.1 <= mean <= 10:
            warnings.warn(
                f"The weights of the first batch have mean {mean:.3g}; they are meant to have mean 1, in expectation.",
                stacklevel=2,
            )
    conditional = {name: network for name, network in networks.items() if takes_labels(network)}
    for name, network in conditional.items():
        if batch.labels is None and needs_labels(network):
            raise ValueError(
                f"The {name} is conditional, but the data loader yields no labels: let it yield (x, labels)."
            )
    if batch.labels is not None:
        _check_labels(batch.labels, n, conditional)


def _check_labels(labels: Tensor, n: int, networks: Mapping[str, nn.Module]) -> None:
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be {n} integers, one class per real sample, got {type(labels).__name__}.")
    if labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(
            f"labels must be {n} integers, one class per real sample, got shape {tuple(labels.shape)} "
            f"of {labels.dtype}."
        )
    for name, network in networks.items():
        if (known := getattr(network, "num_classes", None)) is not None:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= known:
                raise ValueError(f"labels must lie in 0..{known - 1}, which the {name} knows, got {low}..{high}.")


def tried(name: str, network: nn.Module, what: str, x: Tensor, labels: Tensor | None, hint: str = "") -> Tensor:
    """What a network makes of ``x``; ValueError with its name, what it was given and a hint if it fails."""
    try:
        return conditional_call(network, x, labels)
    except (RuntimeError, IndexError) as error:
        known = "" if labels is None else f" and labels {int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"The {name} failed on {what} of shape {tuple(x.shape)}{known}{hint} ({error}).") from error


def sample_labels(labels: Tensor | None, n: int, num_classes: int | None) -> None:
    """ValueError unless ``labels`` fits ``n`` samples of a generator with ``num_classes`` classes."""
    if labels is None:
        return
    if num_classes is None:
        raise ValueError("labels were given, but the generator takes none: build it with num_classes.")
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one per sample, got {tuple(labels.shape)}.")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}.")
