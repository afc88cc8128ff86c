"""Toys in the plane: the three sets of the WGAN-GP paper (arXiv:1704.00028), of about unit std; and a far blob."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.datamodules.toy import Mixture, ToyDataModule


class Ring(Mixture):
    """Equally likely Gaussians on a circle: centres radius (cos 2 pi k / K, sin 2 pi k / K), all divided by ``scale``.

    By default 8 distinct centres at distance 1.414 from the origin, each of std 0.01414.

    Args:
        modes: number K of Gaussians.
        radius: of the circle, before scaling.
        std: of each Gaussian, before scaling.
        scale: everything is divided by this.
        batch_size: items per batch and process.
        batches_per_epoch: batches that are called an epoch.
        rare_share: probability of the Gaussian at angle 0, in (0, 1), the others sharing the rest; None: all equal.

    >>> data = Ring(modes=8, radius=2.0, scale=1.0)
    >>> data.modes[0].tolist(), tuple(data.modes.shape), data.std
    ([2.0, 0.0], (8, 2), 0.02)
    """

    name = "Ring"
    shape = (2,)

    def __init__(
        self,
        modes: int = 8,
        radius: float = 2.0,
        std: float = 0.02,
        scale: float = 1.414,
        batch_size: int = 256,
        batches_per_epoch: int = 1000,
        rare_share: float | None = None,
    ) -> None:
        checks.at_least_one(modes=modes)
        checks.positive(radius=radius, std=std, scale=scale)
        if rare_share is not None:
            checks.inside(rare_share=rare_share)
            if modes < 2:
                raise ValueError(f"modes must be 2 or more with rare_share, got {modes}.")
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
        centres = radius / scale * torch.stack([angle.cos(), angle.sin()], dim=1)
        super().__init__(batch_size, batches_per_epoch)
        rare = 1 / modes if rare_share is None else rare_share
        shares = [rare] + [1 / modes if rare_share is None else (1 - rare) / (modes - 1)] * (modes - 1)
        self.set_components(centres, [std / scale] * modes, shares)


class Grid(Mixture):
    """Equally likely Gaussians on a square grid about the origin, neighbours ``spacing`` apart, all over ``scale``.

    By default 25 centres 0.7072 apart, each of std 0.01768.

    Args:
        modes: number of Gaussians, a square.
        spacing: between neighbouring centres, before scaling.
        std: of each Gaussian, before scaling.
        scale: everything is divided by this.
        batch_size: items per batch and process.
        batches_per_epoch: batches that are called an epoch.

    >>> data = Grid(modes=9, spacing=2.0, scale=1.0)
    >>> data.modes[0].tolist(), tuple(data.modes.shape)
    ([-2.0, -2.0], (9, 2))
    """

    name = "Grid"
    shape = (2,)

    def __init__(
        self,
        modes: int = 25,
        spacing: float = 2.0,
        std: float = 0.05,
        scale: float = 2.828,
        batch_size: int = 256,
        batches_per_epoch: int = 1000,
    ) -> None:
        checks.at_least_one(modes=modes)
        checks.positive(spacing=spacing, std=std, scale=scale)
        side = math.isqrt(modes)
        if side**2 != modes:
            raise ValueError(f"modes must be a square number such as 9, 16 or 25, got {modes}.")
        line = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * spacing / scale
        centres = torch.cartesian_prod(line, line)
        super().__init__(batch_size, batches_per_epoch)
        self.set_components(centres, [std / scale] * modes, [1 / modes] * modes)


class Blob(Mixture):
    """One Gaussian, by default far from the other toys: outliers for `Contaminated`.

    Args:
        centre: of the Gaussian.
        std: of each coordinate.
        batch_size: items per batch and process.
        batches_per_epoch: batches that are called an epoch.

    >>> data = Blob(centre=(4.0, 4.0), std=0.0625)
    >>> data.modes.tolist(), data.std
    ([[4.0, 4.0]], 0.0625)
    """

    name = "Blob"
    shape = (2,)

    def __init__(
        self,
        centre: tuple[float, float] = (4.0, 4.0),
        std: float = 0.05,
        batch_size: int = 256,
        batches_per_epoch: int = 1000,
    ) -> None:
        checks.positive(std=std)
        super().__init__(batch_size, batches_per_epoch)
        self.set_components(torch.tensor([list(centre)]), [float(std)], [1.0])


class SwissRoll(ToyDataModule):
    """A spiral without modes: t (cos t, sin t) + noise * N(0, I), t = 1.5 pi (1 + 2u), u ~ U[0, 1), all over ``scale``.

    This is the law of the first and third coordinate of scikit-learn's ``make_swiss_roll``. `std` is the noise after
    scaling, 0.0333 by default.

    Args:
        noise: standard deviation across the spiral, before scaling.
        scale: everything is divided by this.
        batch_size: items per batch and process.
        batches_per_epoch: batches that are called an epoch.

    >>> data = SwissRoll()
    >>> data.sample_exact(5).shape, round(data.std, 4), data.modes
    (torch.Size([5, 2]), 0.0333, None)
    """

    name = "SwissRoll"
    shape = (2,)

    def __init__(
        self, noise: float = 0.25, scale: float = 7.5, batch_size: int = 256, batches_per_epoch: int = 1000
    ) -> None:
        checks.positive(noise=noise, scale=scale)
        super().__init__(batch_size, batches_per_epoch)
        self.scale, self.std = scale, noise / scale

    def sample_exact(self, n: int, generator: Generator | None = None) -> Tensor:
        """(n, 2) independent exact draws, float32, on the generator's device (the CPU without one)."""
        device = torch.device("cpu") if generator is None else generator.device
        t = 1.5 * math.pi * (1 + 2 * torch.rand(n, generator=generator, device=device))
        spiral = t[:, None] / self.scale * torch.stack([t.cos(), t.sin()], dim=1)
        return spiral + self.std * torch.randn(n, 2, generator=generator, device=device)
