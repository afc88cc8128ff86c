"""A critic that reads pixels into a few latent vectors, at a cost linear in their number (arXiv:2103.03206)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.attention import Attention, Kernel
from lightning_gans.networks.layers import ProjectionHead, check_input, check_labels, image_shape


class _Reader(nn.Module):
    """Latents + attention to the pixels, + feed-forward, then blocks of attention among the latents."""

    def __init__(self, width: int, pixel: int, blocks: int, heads: int, kernel: Kernel) -> None:
        super().__init__()
        near = kernel == "favor"  # queries and keys normalised, which keeps the error small
        self.norm, self.norm_pixels = nn.LayerNorm(width), nn.LayerNorm(pixel)
        self.cross = Attention(width, 1, kernel=kernel, context=pixel, inner=64, qk_norm=near)
        self.feed = _Gated(width)
        self.inner = nn.Sequential(*(_Inner(width, heads, kernel, near) for _ in range(blocks)))

    def forward(self, latents: Tensor, pixels: Tensor) -> Tensor:
        latents = latents + self.cross(self.norm(latents), self.norm_pixels(pixels))
        return self.inner(latents + self.feed(latents))


class _Inner(nn.Module):
    """Latents + attention among them, + feed-forward."""

    def __init__(self, width: int, heads: int, kernel: Kernel, near: bool) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads, kernel=kernel, qk_norm=near)
        self.feed = _Gated(width)

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents + self.attention(self.norm(latents))
        return latents + self.feed(latents)


class _Gated(nn.Module):
    """Layer norm, linear to two times four widths, one half times the GELU of the other, linear back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.up(self.norm(x)).chunk(2, -1)
        return self.down(a * F.gelu(b))


class PerceiverCritic(nn.Module):
    """Images to a raw score: learned latents attend to the pixels, again and again, and their mean is scored.

    A pixel is told by its channels and its place, p and sin(pi f p), cos(pi f p) of each axis with p in [-1, 1]: which
    pixels are neighbours is not built in, so that pixels, moved with their places, score the same. The cost of reading
    is linear in the number of pixels. No normalisation over samples: any per-sample penalty is welcome.

    ================================================ ====================
    layer (shape (3, 32, 32), defaults)              output
    ================================================ ====================
    pixels and their places                          (N, 1024, 37)
    latents, the same for all                        (N, 32, 64)
    2 x [latents attend to pixels, gated MLP,        (N, 32, 64)
    attention among latents, gated MLP]
    mean over latents, layer norm, linear            (N,)
    ================================================ ====================

    Args:
        shape: ``(C, H, W)``.
        latents: their number n.
        width: of a latent; ``heads`` divide it.
        bands: frequencies of the places, from 1 to half of the longer side.
        depth: readings of the pixels.
        blocks: of attention among latents behind each reading.
        heads: of these; reading has one head of width 64.
        shared: readings from the second on have the same weights.
        kernel: of attention, see `Attention`; with "favor" queries and keys are normalised.
        num_classes: makes it conditional, by a projection (`ProjectionHead`).

    >>> critic = PerceiverCritic((1, 8, 8), latents=4, width=8)
    >>> critic(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        latents: int = 32,
        width: int = 64,
        bands: int = 8,
        depth: int = 2,
        blocks: int = 1,
        heads: int = 4,
        shared: bool = True,
        kernel: Kernel = "auto",
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, heads=heads, num_classes=num_classes)
        super().__init__()
        checks.at_least_one(latents=latents, width=width, bands=bands, depth=depth)
        checks.at_least(0, blocks=blocks)
        self.shape = image_shape(shape, "PerceiverCritic", "H and W at least 1", lambda h, w: 1)
        self.num_classes, self.bands, self.depth = num_classes, bands, depth
        pixel = self.shape[0] + 2 * (2 * bands + 1)
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.02)
        readers = [_Reader(width, pixel, blocks, heads, kernel) for _ in range(min(depth, 2) if shared else depth)]
        self.readers, self.norm, self.head = (
            nn.ModuleList(readers),
            nn.LayerNorm(width),
            ProjectionHead(width, num_classes),
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` to scores ``(N,)``."""
        check_input(x, self.shape, "PerceiverCritic")
        check_labels(labels, self.num_classes, len(x), "PerceiverCritic")
        return self.score(torch.cat([x.flatten(2).transpose(1, 2), self.places(x).expand(len(x), -1, -1)], 2), labels)

    def score(self, pixels: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores (N,) of pixels with their places (N, M, F), in any order and of any number."""
        latents = self.latents.expand(len(pixels), -1, -1)
        for i in range(self.depth):
            latents = self.readers[min(i, len(self.readers) - 1)](latents, pixels)
        return self.head(self.norm(latents.mean(1)), labels)

    def places(self, x: Tensor) -> Tensor:
        """What tells the places of the pixels, (H W, 2 (2 K + 1)), in raster order."""
        dtype = torch.promote_types(x.dtype, torch.float32)  # in half the fastest waves would be noise
        axes = [torch.linspace(-1, 1, side, dtype=dtype, device=x.device) for side in self.shape[1:]]
        p = torch.stack(torch.meshgrid(*axes, indexing="ij"), 2).flatten(0, 1)
        waves = torch.linspace(1, max(self.shape[1:]) / 2, self.bands, dtype=dtype, device=x.device)
        angles = math.pi * (p[:, :, None] * waves).flatten(1)
        return torch.cat([angles.sin(), angles.cos(), p], 1).to(x.dtype)
