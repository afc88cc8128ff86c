"""Batches of pairs that share one part of their noise, and what a contrast of their attributes asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gans.functional.numerics import full_precision, probe
from lightning_gans.functional.ranks import gather_rows, rank_and_world

Measure = Callable[[Tensor], Mapping[str, Tensor]]


def share_parts(z: Tensor, column_group: Tensor, pairs: int) -> Tensor:
    """Noise (N, d) whose rows i and i + N/2 share a part: group 0 for the first ``pairs`` i, 1 for the next, and so on.

    What is left of the batch shares nothing. Rows and pairs are those of the global batch, of which rank r of W holds
    rows r::W; both rows of a pair are on one rank.

    Args:
        z: (N, d), N even.
        column_group: (d,) number of the group of each coordinate; -1 for none.
        pairs: of each group.

    >>> z, group = torch.arange(12.0).view(6, 2), torch.tensor([0, 1])
    >>> share_parts(z, group, pairs=1)[3:].tolist()  # row 3 has the first number of row 0, 4 the second one of 1
    [[0.0, 7.0], [8.0, 3.0], [10.0, 11.0]]
    """
    rank, world = rank_and_world()
    first, second = z.chunk(2)
    owner = (rank + world * torch.arange(len(first), device=z.device)) // pairs
    return torch.cat([first, torch.where(owner[:, None] == column_group, first, second)])


def roll_half(rows: Tensor) -> Tensor:
    """Rows (N, ...) with the second half of the global batch rolled by one: N/2 + j goes to N/2 + (j + 1) mod N/2.

    A minibatch standard deviation over strided groups then sees no pair (i, i + N/2). A collective, differentiable.

    >>> roll_half(torch.arange(8)).tolist()
    [0, 1, 2, 3, 7, 4, 5, 6]
    """
    rank, world = rank_and_world()
    first, second = gather_rows(rows).chunk(2)
    return torch.cat([first, second.roll(1, 0)])[rank::world]


def pairs_meet(n: int, group: int) -> bool:
    """Whether two of a pair come into one of the n / group strided groups, in spite of :func:`roll_half`.

    >>> pairs_meet(32, 4), pairs_meet(4, 4)
    (False, True)
    """
    half = n // 2
    return group > 1 and any((i - half - (i + 1) % half) % (n // group) == 0 for i in range(half))


def check_pairs(n: int, pairs: int, groups: Sequence[int]) -> None:
    """ValueError for a generator batch of ``n`` rows on each rank that cannot hold ``pairs`` pairs, or keep them apart.

    Args:
        n: rows on each rank.
        pairs: of the global batch, in all.
        groups: sizes of the groups that minibatch statistics are over.
    """
    world, least = rank_and_world()[1], max(2 * pairs, 4)  # of two rows alone there is no other pair to differ
    if n % 2 or n * world < least or any(n % size or pairs_meet(n * world, size) for size in groups):
        apart = f", in groups of {groups[0]} that keep pairs apart," if groups else ""
        raise ValueError(
            f"batch_size must be even{apart} and hold {least // 2} pairs of samples, {least} rows, on all ranks "
            f"together, got {n} on each of {world} (drop_last=True leaves out a short last one)."
        )


def contrast(features: Tensor, start: int, pairs: int, same: float, different: float) -> tuple[Tensor, Tensor]:
    r"""How far an attribute is from agreeing where its noise is shared, and differing elsewhere (arXiv:2101.02477).

    .. math:: \operatorname{mean}_{(i, j) \in P} (d_{ij} - \tau_s)^+, \qquad
              \operatorname{mean}_{(i, j) \notin P} (\tau_d - d_{ij})^+

    d is the mean absolute difference of features; P are the pairs (i, i + N/2) from i = ``start`` on, and the second
    mean is over all other unordered pairs of the batch, those that share another part included.

    Args:
        features: (N, F), in units in which the thresholds are meant.
        start: first row that shares this attribute's noise.
        pairs: their number.
        same: tau_s.
        different: tau_d.

    >>> same, different = contrast(torch.zeros(4, 1), start=0, pairs=1, same=0.1, different=1.0)
    >>> float(same), float(different)
    (0.0, 1.0)
    """
    n, features = len(features), full_precision(features)  # there is no cdist in half precision
    d = torch.cdist(features, features, p=1) / features.shape[1]
    own = d.diagonal(n // 2)[start : start + pairs]
    others = (different - d).relu().triu(1).sum() - (different - own).relu().sum()
    return (own - same).relu().mean(), others / (n * (n - 1) / 2 - pairs)


def measured(measure: Measure, samples: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """What ``measure`` says of samples (N, ...): features (N, F) by name, numbers (N,) being (N, 1).

    Raises:
        TypeError: for what is no mapping.
        ValueError: for a name that it does not have, or one without a row for each sample.

    >>> measured(lambda x: {"mean": x.mean(1)}, torch.ones(3, 2), ["mean"])["mean"].tolist()
    [[1.0], [1.0], [1.0]]
    """
    found, n = measure(full_precision(samples)), len(samples)
    if not isinstance(found, Mapping):
        raise TypeError(f"measure must return a mapping of names to tensors, got a {type(found).__name__}.")
    for name in names:
        if name not in found:
            raise ValueError(f"measure must have {name}, got only {', '.join(found)}.")
        if not isinstance(value := found[name], Tensor) or value.ndim not in (1, 2) or len(value) != n:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"measure must give numbers ({n},) or features ({n}, F) of {name}, got {got}.")
    return {name: found[name].reshape(n, -1) for name in names}


def check_measure(measure: Measure, samples: Tensor, names: Collection[str], learned: bool = True) -> None:
    """As :func:`measured`; ValueError also for what is the same of all, or, if it is learned by, has no gradient."""
    with torch.enable_grad():
        found = measured(measure, probe(samples), names)
    for name, features in found.items():
        if learned and not features.requires_grad:
            raise ValueError(f"measure must be differentiable in the samples, got {name} without a gradient.")
        if len(features) > 1 and not bool((features != features[:1]).any()):
            raise ValueError(f"measure must tell samples apart, got the same {name} of all in the first batch.")


def requested(measure: Measure, name: str, value: Any, n: int) -> Tensor:
    """Features (n, F) of a value that is asked for: one for all samples, or as a tensor (n,) or (n, V) one for each.

    A ``measure`` whose values are not its features has ``features(name, values)``, (n, V) to (n, F).

    Raises:
        ValueError: for what are no numbers, or not as many as there are samples.

    >>> requested(lambda x: {}, "position", (0.7, 0.5), 2).tolist()
    [[0.699999988079071, 0.5], [0.699999988079071, 0.5]]
    """
    try:
        values = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"attributes[{name!r}] must be a number, or several, got {value!r}.") from None
    each = isinstance(value, Tensor) and value.ndim > 0
    if each and len(values) != n:
        raise ValueError(f"attributes[{name!r}] must be one for each of {n} samples, got {len(values)}.")
    values = values.reshape(n, -1) if each else values.reshape(1, -1).expand(n, -1)
    features = getattr(measure, "features", None)
    return values if features is None else features(name, values)
