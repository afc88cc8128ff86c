"""What of a loader's batch is real samples, labels and weights, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Names = Mapping[str, str | int]  # "real", and if there are any "labels" and "weights": their keys or places in a batch
KEYS = {  # what they are called where nobody has told, the likeliest first
    "real": ("real", "image", "images", "pixel_values", "img", "x"),
    "labels": ("labels", "label", "y", "target"),
    "weights": ("weights",),
}


def check_names(names: Names | None) -> None:
    """ValueError unless ``names`` are of columns that there are, with the real samples among them."""
    if names is not None and ("real" not in names or set(names) - set(KEYS)):
        raise ValueError(
            f"columns must name real, and may name labels and weights, got {', '.join(names) or 'nothing'}."
        )


def columns(raw: Any, names: Names | None = None) -> tuple[Any, Any, Any, Any]:
    """``(real, labels, weights, index)`` of what a loader yields.

    Without ``names``: of ``x``, ``(x, labels)``, ``(x, labels, weights)`` where the weights are floats (N,), and, from
    loaders of ours, ``(x, labels, weights, index)`` with the number of each item, int64 (N,); of a dictionary by the
    usual keys. A ``NamedTuple`` is a dictionary if one of its fields is such a key, or ``names`` go by fields.
    Whatever else there is is left out (see :func:`left_out`).

    Raises:
        TypeError: the real samples are nothing that has a length.
        ValueError: there is no such column, or nothing tells which one is the real samples.
    """
    if isinstance(raw, tuple) and hasattr(raw, "_fields"):
        raw = _by_field(raw, names)
    if names is not None or isinstance(raw, Mapping):
        return (*_named(raw, names), None)
    if not isinstance(raw, (tuple, list)):
        return raw if isinstance(raw, Tensor) and raw.ndim else _samples(raw), None, None, None
    real, labels, weights, index = (*raw, None, None, None, None)[:4]
    n = real.shape[:1] if isinstance(real, Tensor) else None
    real = real if n else _samples(real)
    if not (isinstance(weights, Tensor) and weights.is_floating_point() and weights.shape == n):
        weights = None
    if not (isinstance(index, Tensor) and index.dtype == torch.int64 and index.shape == n):
        index = None
    return real, labels, weights, index


def _by_field(raw: Any, names: Names | None) -> Any:
    """A ``NamedTuple`` as a dictionary, if it is its fields that tell where the real samples are."""
    told = bool({*raw._fields} & {*KEYS["real"]}) if names is None else isinstance(names["real"], str)
    return raw._asdict() if told else raw


def _named(raw: Any, names: Names | None) -> tuple[Any, Any, Any]:
    keys = list(raw) if isinstance(raw, Mapping) else list(range(len(raw))) if isinstance(raw, (tuple, list)) else [0]
    told: Mapping[str, Any] = names or {
        role: next((key for key in known if key in keys), None) for role, known in KEYS.items()
    }
    found: list[Any] = []
    for role in KEYS:
        if (key := told.get(role)) is None and role != "real":
            found.append(None)
        elif key not in keys:
            among = ", ".join(map(str, keys))
            raise ValueError(
                f"columns={{'real': ...}} must name the real samples of batches with {among}; got no usual name there."
                if names is None
                else f"columns[{role!r}] must be one of {among}, which the batches have, got {key!r}."
            )
        else:
            found.append(raw[key] if isinstance(raw, (Mapping, tuple, list)) else raw)
    real, labels, weights = found
    return _samples(real), labels, weights


def _samples(real: Any) -> Any:
    """Them; TypeError if they have no length."""
    if hasattr(real, "__len__") and getattr(real, "ndim", True):
        return real
    got = "a number" if hasattr(real, "__len__") else type(real).__name__
    hint = " (a loader has ended: take a CombinedLoader of mode min_size or max_size_cycle)" if real is None else ""
    raise TypeError(
        f"real samples must be a tensor (N, ...), got {got}{hint}: yield x, (x, labels) or (x, labels, weights), or a "
        "dictionary of them."
    )


def left_out(raw: Any, names: Names | None = None) -> list[str]:
    """Keys or places of what :func:`columns` does not take of a batch."""
    raw = _by_field(raw, names) if hasattr(raw, "_fields") else raw
    taken = {id(part) for part in columns(raw, names)}
    parts = raw.items() if isinstance(raw, Mapping) else enumerate(raw) if isinstance(raw, (tuple, list)) else ()
    return [str(key) for key, part in parts if part is not None and id(part) not in taken]
