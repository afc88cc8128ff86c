"""Models whose samples are made of noise step by step, with further noise between."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gans.engine.module import GenerativeModule


class Walks(GenerativeModule):
    """Sampling by a walk: subclasses define :meth:`reverse`."""

    def reverse(
        self, z: Tensor, labels: Tensor | None = None, generator: torch.Generator | None = None, *, alike: bool = False
    ) -> Tensor:
        """Samples (N, ...) of noise z (N, latent_dim); the noise between by ``generator`` (CPU).

        It is each row's own, or with ``alike`` the same for all.
        """
        raise NotImplementedError

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples of noise z, with the same noise between in each call and for each row: a function of z.

        So a picture does not depend on what is decoded beside it, and the pictures along a path differ by z alone. Two
        walks by the same noise may meet: for samples as various as the model's take :meth:`sample`.
        """
        return self.reverse(z, labels, torch.Generator().manual_seed(0), alike=True)

    def sample(self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None,
               seed: int | None = None, temperature: float | None = None) -> Tensor:  # fmt: skip
        """``n`` samples (n, ...); see `Sampling.sample`."""
        if temperature is not None:
            return super().sample(n, labels, generator, seed, temperature)  # which refuses it
        source = torch.Generator().manual_seed(seed + 1) if seed is not None else generator
        return self.reverse(*self.latents(n, labels, generator, seed), source)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As :meth:`decode`."""
        return self.decode(z, labels)
