"""Toy distributions that are known exactly: every batch is a fresh draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.datamodules.base import GANDataModule, Split
from lightning_gans.datamodules.memory import FreshLoader, MemoryLoader


class ToyDataModule(GANDataModule):
    """A distribution on R^d that one can sample.

    Attributes:
        modes: (K, d) exact centres, None where the distribution has none.
        std: standard deviation of each coordinate around a centre (of the widest, if they differ).

    Args:
        batch_size: items per batch and process.
        batches_per_epoch: the data have no end, so this many batches are called an epoch.

    >>> class Square(ToyDataModule):
    ...     name, shape = "Square", (2,)
    ...     def sample_exact(self, n, generator=None):
    ...         return torch.rand(n, 2, generator=generator)
    >>> next(iter(Square(batch_size=8).train_dataloader())).shape
    torch.Size([8, 2])
    """

    modes: Tensor | None = None
    std: float
    reference_items = 10_000

    def __init__(self, batch_size: int = 256, batches_per_epoch: int = 1000) -> None:
        super().__init__(batch_size)
        checks.at_least_one(batches_per_epoch=batches_per_epoch)
        self.batches_per_epoch = batches_per_epoch

    @property
    def num_items(self) -> int:
        """Items per epoch and process (no two epochs share any)."""
        return self.batch_size * self.batches_per_epoch

    def sample_exact(self, n: int, generator: Generator | None = None) -> Tensor:
        """(n, d) independent exact draws, float32, on the generator's device (the CPU without one)."""
        raise NotImplementedError

    def reference(self, split: Split = "train") -> tuple[Tensor, None]:
        """10,000 exact draws, the same at every call, others for "test" than for "train"; no labels."""
        checks.one_of("split", split, ("train", "test"))
        return self.sample_exact(self.reference_items, Generator().manual_seed(int(split == "test"))), None

    def train_dataloader(self) -> Any:
        """Batches ``real`` of fresh draws, made on the training device."""
        return FreshLoader(self.sample_exact, self.batch_size, self.batches_per_epoch, device=self.device)

    def fixed_loader(self, split: Split) -> MemoryLoader:
        """The reference of a split in batches."""
        data, _ = self.reference(split)
        return MemoryLoader(data, None, self.batch_size, shuffle=False, drop_last=False, device=self.device)

    def describe(self) -> str:
        """Dimension, number of modes and std in one line."""
        modes = "no modes" if self.modes is None else f"{len(self.modes)} mode{'s'[: len(self.modes) > 1]}"
        return f"{self.name}: {self.shape[0]}-D toy, {modes}, std {self.std:.4g}, fresh draws in every batch"


class Mixture(ToyDataModule):
    """Mixture of isotropic Gaussians, sum_k mode_weights_k N(modes_k, stds_k^2 I); a std of 0 is a point mass.

    Attributes:
        modes: (K, d) centres.
        stds: (K,) standard deviations; `std` is the largest.
        mode_weights: (K,) probabilities.

    >>> class Coin(Mixture):
    ...     name, shape = "Coin", (1,)
    >>> data = Coin()
    >>> data.set_components(torch.tensor([[0.0], [1.0]]), stds=[0.0, 0.0], weights=[0.25, 0.75])
    >>> share = float((data.sample_exact(10_000, Generator().manual_seed(0)) == 1).double().mean())
    >>> abs(share - 0.75) < 0.02
    True
    """

    modes: Tensor

    def set_components(self, modes: Tensor, stds: list[float], weights: list[float]) -> None:
        """Say what the mixture is, once, in the constructor; ValueError unless it is a law on the data's space."""
        if modes.shape[1:] != self.shape or not bool(modes.isfinite().all()):
            name, expected = self.name or type(self).__name__, ", ".join(map(str, ("K", *self.shape)))
            raise ValueError(f"the modes of {name} must be finite, ({expected}), got {modes.tolist()}.")
        self.modes, self.stds, self.mode_weights = modes.float(), torch.tensor(stds), torch.tensor(weights)
        self.std = max(stds)

    def sample_exact(self, n: int, generator: Generator | None = None) -> Tensor:
        """(n, d) independent exact draws, float32, on the generator's device (the CPU without one)."""
        device = torch.device("cpu") if generator is None else generator.device
        shares = self.mode_weights.cumsum(0).to(device)  # not multinomial, which is not deterministic on a GPU
        u = torch.rand(n, generator=generator, device=device, dtype=shares.dtype) * shares[-1]
        which = torch.searchsorted(shares, u, right=True).clamp_max(len(shares) - 1)
        noise = torch.randn(n, *self.shape, generator=generator, device=device)
        return self.modes.to(device)[which] + self.stds.to(device)[which, None] * noise
