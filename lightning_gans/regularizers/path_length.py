"""The path length of a generator by styles."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import takes_labels
from lightning_gans.functional.double_backward.input_gradient import in_full_precision
from lightning_gans.functional.penalties import path_length
from lightning_gans.functional.ranks import mean_over_ranks
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer

_STYLED = ("map", "spread", "synthesis", "follow", "noise_shapes", "num_ws", "path_length")


class PathLength(Regularizer):
    r"""A step of w moves the image by a length that is the same everywhere (arXiv:1912.04958, section 3.2).

    .. math:: E_{w, y} (\|J_w^T y\| - a)^2, \qquad a \leftarrow a + \mathrm{decay}\,(E \|J_w^T y\| - a)

    It is the generator's term, whose gradient reaches the mapping too; a is the generator's buffer ``path_length``, so
    that it is saved with it, and holds for all ranks. Noise is drawn anew.

    Departures from the released code: the a of the penalty is detached (its share of the gradient is ``decay``); each
    sample has one w for all layers; only the first of the noise is taken, a ``1 / shrink`` of it.

    Args:
        weight: of the term.
        every: it is part of every n-th update only, n times as heavy.
        decay: of the running mean, in (0, 1).
        shrink: it is taken on so many times fewer samples, >= 1.

    Raises:
        ValueError: for settings out of range, and, when a game is made, for a generator without styles.
    """

    name = "path_length"
    player = "g"

    def __init__(self, weight: float = 2.0, every: int = 4, decay: float = 0.01, shrink: int = 2) -> None:
        super().__init__(weight, every)
        checks.inside(decay=decay)
        checks.at_least_one(shrink=shrink)
        self.decay, self.shrink = decay, shrink

    def fitting(self, network: nn.Module) -> Regularizer:
        """Itself, for a generator by styles."""
        require_styles(network, "PathLength")
        return self

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at fresh styles; what it is given as a discriminator is the player's network, the generator."""
        generator: Any = require_styles(discriminator, "PathLength")
        n = -(-len(batch.z) // self.shrink)
        labels = None if batch.labels is None or not takes_labels(generator) else batch.labels[:n]
        ws = generator.spread(generator.map(batch.z[:n], labels))
        normal = partial(draw.normal, n, generator=batch.generator, device=fake.device, dtype=ws.dtype)
        maps = [normal(*shape) for shape in generator.noise_shapes]
        synthesis = in_full_precision(partial(_images, generator, noise=maps))
        lengths = path_length(synthesis, ws, normal(*fake.shape[1:]))
        with torch.no_grad():
            generator.path_length.lerp_(mean_over_ranks(lengths.mean()).to(generator.path_length.dtype), self.decay)
        return (lengths - generator.path_length.clone()).square().mean()


def _images(generator: Any, ws: Tensor, noise: list[Tensor]) -> Tensor:
    return generator.synthesis(ws, noise=noise)


def by_styles(generator: nn.Module) -> bool:
    """Whether a generator has what `networks.StyleGenerator` has beside ``forward``."""
    return all(hasattr(generator, name) for name in _STYLED)


def require_styles(generator: nn.Module, who: str) -> nn.Module:
    """The generator; a ValueError if it is not one by styles."""
    if not by_styles(generator):
        missing = next(name for name in _STYLED if not hasattr(generator, name))
        raise ValueError(
            f"{who} needs a generator by styles, such as networks.StyleGenerator, got {type(generator).__name__}, "
            f"which has no {missing}."
        )
    return generator
