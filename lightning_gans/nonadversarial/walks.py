"""Models whose samples are made of noise step by step, with further noise between."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_gans.engine.module import GenerativeModule


def noise_of(z: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    r"""Noise (N, size) that is a continuous function of each row of z (N, d), the next draw being of another.

    .. math:: a \cos \phi + b \sin \phi, \qquad \phi = \pi W z / \sqrt d, \qquad a, b, W \text{ standard normal}

    It is standard normal for each z, and of independent normal z nearly independent.

    >>> z, own = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    >>> x, y = noise_of(z, 4000, own)
    >>> round(float(x.var()), 1), round(abs(float((x * y).mean())), 1)
    (1.0, 0.0)
    """
    a, b, *w = torch.randn(2 + z.shape[1], size, generator=generator, dtype=z.dtype).to(z.device)
    phase = math.pi / z.shape[1] ** 0.5 * z @ torch.stack(w)
    return a * phase.cos() + b * phase.sin()


class Walks(GenerativeModule):
    """Sampling by a walk: subclasses define :meth:`reverse`."""

    def reverse(
        self, z: Tensor, labels: Tensor | None = None, generator: torch.Generator | None = None, *, of_z: bool = False
    ) -> Tensor:
        """Samples (N, ...) of noise z (N, latent_dim); the noise between by ``generator`` (CPU).

        With ``of_z`` there is none, or it is a function of z, which is another for other rows.
        """
        raise NotImplementedError

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples of noise z: a continuous function of each row, the same in each call and whatever is beside it.

        So the pictures along a path differ by z alone. One noise between for all rows would not do: their walks meet.
        """
        return self.reverse(z, labels, torch.Generator().manual_seed(0), of_z=True)

    def sample(self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None,
               seed: int | None = None, temperature: float | None = None) -> Tensor:  # fmt: skip
        """``n`` samples (n, ...); see `Sampling.sample`."""
        if temperature is not None:
            return super().sample(n, labels, generator, seed, temperature)  # which refuses it
        if seed is not None and generator is None:  # the noise between goes on where that of the beginning ends
            generator, seed = torch.Generator().manual_seed(seed), None
        return self.reverse(*self.latents(n, labels, generator, seed), generator)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As :meth:`decode`."""
        return self.decode(z, labels)
