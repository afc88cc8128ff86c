"""Ways through the latent space, and the nearest of some items."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.modes import evaluating


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    r"""Spherical interpolation (arXiv:1609.04468), which keeps the length of Gaussian noise where a chord would not.

    .. math:: \frac{\sin((1-t)\omega)}{\sin\omega}\,a + \frac{\sin(t\omega)}{\sin\omega}\,b,
              \qquad \cos\omega = \frac{a \cdot b}{|a|\,|b|}

    Args:
        start: (N, latent_dim), a.
        end: (N, latent_dim), b. Where a and b are (anti)parallel the interpolation is linear.
        t: (T,) positions in [0, 1].

    Returns:
        (N, T, latent_dim).

    >>> middle = slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0.5]))
    >>> tuple(middle.shape), round(float(middle.norm()), 4)  # as long as the ends
    ((1, 1, 2), 2.0)
    """
    a, b, t = start[:, None], end[:, None], t[None, :, None]
    omega = torch.nn.functional.cosine_similarity(a, b, dim=-1)[..., None].clamp(-1, 1).acos()
    sine = omega.sin()
    straight = sine < 1e-3
    safe = sine.masked_fill(straight, 1)
    round_ = (((1 - t) * omega).sin() * a + (t * omega).sin() * b) / safe
    return torch.where(straight, (1 - t) * a + t * b, round_)


def way(module: Any, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Noise (N, T, latent_dim) from ``start`` to ``end`` (N, latent_dim) at t (T,): :func:`slerp` if it is normal.

    Of another law (``normal_noise``; codes, or probabilities among them) the straight way: the great circle's weights
    do not sum to 1.
    """
    if getattr(module, "normal_noise", True):
        return slerp(start, end, t)
    return torch.lerp(start[:, None], end[:, None], t[None, :, None])


def in_w(generator: Any) -> bool:
    """Whether a generator has a space w between its noise and its samples (`networks.StyleGenerator`)."""
    return all(hasattr(generator, name) for name in ("map", "spread", "synthesis"))


def to_w(generator: Any, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """w (N, w_dim) of noise (N, latent_dim); the noise itself where a generator has no w."""
    return generator.map(z, labels) if in_w(generator) else z


def from_w(generator: Any, w: Tensor, labels: Tensor | None = None) -> Tensor:
    """Samples of :func:`to_w`; a generator with a w has taken its labels already.

    >>> tuple(from_w(torch.nn.Identity(), to_w(torch.nn.Identity(), torch.zeros(3, 2))).shape)
    (3, 2)
    """
    return generator.synthesis(generator.spread(w)) if in_w(generator) else conditional_call(generator, w, labels)


@torch.no_grad()
def between(module: Any, start: Tensor, end: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    """Samples (N, T, ...) on the straight way in w from that of noise ``start`` to that of ``end`` (N, latent_dim).

    Raises:
        ValueError: for a generator without w.
    """
    network = module.network
    if not in_w(network):
        raise ValueError(f"space must be z for a {type(network).__name__}, which has no w, got 'w'.")
    with evaluating(network):
        labels = None if labels is None else labels.to(start.device)
        a, b = (to_w(network, z, labels) for z in (start, end))
        w = torch.lerp(a[:, None], b[:, None], t.to(a)[None, :, None])
        return from_w(network, w.flatten(0, 1)).unflatten(0, w.shape[:2])


def nearest(queries: Tensor, items: Tensor, chunk: int = 4096) -> Tensor:
    """Index (N,) of the item (M, ...) at the least Euclidean distance from each query (N, ...), in pixel values.

    >>> nearest(torch.tensor([[0.9], [5.0]]), torch.tensor([[0.0], [1.0], [2.0]])).tolist()
    [1, 2]
    """
    queries = queries.flatten(1).float()
    best = torch.full((len(queries),), float("inf"), device=queries.device)
    index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    for first in range(0, len(items), chunk):
        part = items[first : first + chunk].to(queries.device).flatten(1).float()
        distance, where = torch.cdist(queries, part).min(dim=1)
        closer = distance < best
        best, index = torch.where(closer, distance, best), torch.where(closer, where + first, index)
    return index


def walk(module: Any, rows: int, columns: int, seed: int = 0, space: Literal["z", "w"] = "z") -> Tensor:
    """Samples (rows * columns, ...) along :func:`slerp` paths between random noises, one class per row.

    In w, which is no Gaussian, and where noise is none, paths are straight.

    Args:
        module: a model whose noise can be chosen: ``latents``, ``decode``, ``num_classes``.
        rows: paths.
        columns: places on each.
        seed: of the paths' ends.
        space: where the paths are; w of a generator that has it.

    >>> from types import SimpleNamespace
    >>> ends = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> model = SimpleNamespace(num_classes=None, latents=lambda n, y, seed: (ends, y), decode=lambda z, y: z)
    >>> [[round(v, 2) for v in z] for z in walk(model, rows=1, columns=3).tolist()]
    [[1.0, 0.0], [0.71, 0.71], [0.0, 1.0]]
    """
    classes = module.num_classes
    labels = None if classes is None else torch.arange(rows) % classes
    both = None if labels is None else labels.repeat(2)
    ends, _ = module.latents(2 * rows, both, seed=seed)
    t = torch.linspace(0, 1, columns).to(ends)
    if space == "w":
        return between(module, ends[:rows], ends[rows:], t, labels).flatten(0, 1).float()
    z = way(module, ends[:rows], ends[rows:], t).flatten(0, 1)
    return module.decode(z, None if labels is None else labels.repeat_interleave(columns).to(z.device)).float()
