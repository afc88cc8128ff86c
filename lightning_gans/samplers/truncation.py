"""Truncated noise (Brock et al. 2018, arXiv:1809.11096)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.modes import evaluating
from lightning_gans.samplers.base import LatentSampler, LogRatio


def _constant(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


class Truncation(LatentSampler):
    """G(z) of noise near the origin: better samples, less varied. No discriminator is asked.

    ``redraw``: each coordinate is standard normal within [-t, t], as if drawn anew until it is. ``rescale``: z longer
    than t sqrt(latent_dim) is scaled back to that length. ``w``, of a generator by styles (`networks.StyleGenerator`):
    w is drawn towards its mean, w_mean + t (w - w_mean), at 0 all samples are the same (arXiv:1812.04948). Such a
    generator goes by the direction of z alone, which the other two leave as it is, or nearly so: they are refused.

    Args:
        module: see `Sampler`.
        threshold: t > 0, by default 1; in w, psi in [0, 1], by default 0.7.
        mode: redraw, rescale or w; None: w of a generator by styles, else redraw.

    Raises:
        ValueError: for settings out of range, a module without a generator, and a mode that its generator has not.

    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(generator=nn.Identity(), latent_dim=2)
    >>> bool((Truncation(module, threshold=0.5).sample(100, progress=False).abs() <= 0.5).all())
    True
    """

    name = "truncated"

    def __init__(
        self, module: Any, *, threshold: float | None = None, mode: Literal["redraw", "rescale", "w"] | None = None
    ) -> None:
        ratio: LogRatio = _constant
        super().__init__(module, ratio)
        styled = hasattr(self.network, "truncate")
        self.mode = mode or ("w" if styled else "redraw")
        checks.one_of("mode", self.mode, ("redraw", "rescale", "w"))
        if styled != (self.mode == "w"):
            kind = "w, or None, for a generator by" if styled else "redraw or rescale for a generator without"
            raise ValueError(f"mode must be {kind} styles, got {mode!r} with a {type(self.network).__name__}.")
        if threshold is None:
            threshold = 0.7 if styled else 1.0
        (checks.share if styled else checks.positive)(threshold=threshold)
        self.threshold = threshold

    def make(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The samples of z."""
        if self.mode != "w":
            return super().make(z, labels)
        network: Any = self.network
        with evaluating(network):
            return network.synthesis(network.spread(network.truncate(network.map(z, labels), self.threshold)))

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` samples."""
        z, labels = self.latents(n, generator, labels)
        if self.mode == "redraw":
            drawn = torch.empty(z.shape, dtype=z.dtype)
            z = nn.init.trunc_normal_(drawn, a=-self.threshold, b=self.threshold, generator=generator).to(z.device)
        elif self.mode == "rescale":
            length = z.norm(dim=1, keepdim=True)
            z = z * (self.threshold * z.shape[1] ** 0.5 / length).clamp_max(1)
        self.report.proposals += n
        self.report.accepted += n
        return self.make(z, labels)
