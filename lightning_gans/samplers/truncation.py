"""Truncated noise (Brock et al. 2018, arXiv:1809.11096)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from lightning_gans import checks
from lightning_gans.samplers.base import LatentSampler, LogRatio


def _constant(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


class Truncation(LatentSampler):
    """G(z) of noise near the origin: better samples, less varied. No discriminator is asked.

    ``redraw``: each coordinate is standard normal within [-t, t], as if drawn anew until it is. ``rescale``: z longer
    than t sqrt(latent_dim) is scaled back to that length.

    Args:
        module: see `Sampler`.
        threshold: t > 0.
        mode: redraw or rescale.

    Raises:
        ValueError: for settings out of range, and a module without a generator.

    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(generator=nn.Identity(), latent_dim=2)
    >>> bool((Truncation(module, threshold=0.5).sample(100, progress=False).abs() <= 0.5).all())
    True
    """

    name = "truncated"

    def __init__(self, module: Any, *, threshold: float = 1.0, mode: Literal["redraw", "rescale"] = "redraw") -> None:
        checks.positive(threshold=threshold)
        if mode not in ("redraw", "rescale"):
            raise ValueError(f"mode must be redraw or rescale, got {mode!r}.")
        ratio: LogRatio = _constant
        super().__init__(module, ratio)
        self.threshold, self.mode = threshold, mode

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` samples."""
        z, labels = self.latents(n, generator, labels)
        if self.mode == "redraw":
            drawn = torch.empty(z.shape, dtype=z.dtype)
            z = nn.init.trunc_normal_(drawn, a=-self.threshold, b=self.threshold, generator=generator).to(z.device)
        else:
            length = z.norm(dim=1, keepdim=True)
            z = z * (self.threshold * z.shape[1] ** 0.5 / length).clamp_max(1)
        self.report.proposals += n
        self.report.accepted += n
        return self.make(z, labels)
