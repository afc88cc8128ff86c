"""Training items drawn by weights, as boosting techniques do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from lightning_gans.datamodules.around import AroundDataModule
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.datamodules.memory import MemoryLoader


class Resampled(AroundDataModule):
    """Another data module whose training items are drawn with replacement, each with a probability of its own.

    A toy's items are those of its reference, 10,000 exact draws.

    Args:
        data: any data module of this library.
        probabilities: (N,) of the training items in the order of ``data.fixed_loader("train")``, up to a factor; or
            the path of a file that holds them (``torch.save``), as ``stages.reweight`` writes it.

    >>> from lightning_gans.datamodules import Ring
    >>> probabilities = torch.zeros(10_000)
    >>> probabilities[:2] = 1  # of all items two alone
    >>> data = Resampled(Ring(batch_size=8), probabilities)
    >>> len(next(iter(data.train_dataloader())).unique(dim=0)) <= 2
    True
    """

    live = ("data", "probabilities")

    def __init__(self, data: GANDataModule, probabilities: Tensor | str) -> None:
        super().__init__(data)
        self.probabilities = probabilities

    def train_dataloader(self) -> Any:
        """Batches as the other data module's, of items that are drawn by their probabilities."""
        loader = self.data.train_dataloader()
        if not isinstance(loader, MemoryLoader):
            loader = self.data.fixed_loader("train")
        return ResampledLoader(loader, self._drawn_by())

    def _drawn_by(self) -> Tensor:
        given = self.probabilities
        if isinstance(given, (str, Path)):
            try:
                given = torch.load(Path(given).expanduser(), weights_only=True)
            except FileNotFoundError:
                raise FileNotFoundError(f"probabilities {given} does not exist.") from None
            except Exception as error:  # torch.load fails in many ways
                raise ValueError(f"probabilities {given} must be a tensor by torch.save, got another file.") from error
        if not isinstance(given, Tensor):
            raise ValueError(f"probabilities must be a tensor (N,), got {type(given).__name__}.")
        return given

    def describe(self) -> str:
        """The data set in one line (reads the files)."""
        return f"{self.data.describe()}; drawn by weights"


class ResampledLoader(MemoryLoader):
    """A `MemoryLoader` whose epoch is as many draws with replacement as there are items."""

    def __init__(self, loader: MemoryLoader, probabilities: Tensor) -> None:
        p, n = probabilities.detach().double().cpu(), len(loader.data)
        if p.shape != (n,) or not bool((p >= 0).all()) or not 0 < float(p.sum()) < float("inf"):
            raise ValueError(
                f"probabilities must be {n} finite numbers >= 0, not all 0, got shape {tuple(p.shape)} with sum "
                f"{float(p.sum()):g}."
            )
        self.probabilities = p
        super().__init__(
            loader.data,
            loader.labels,
            loader.batch_size,
            transform=loader.transform,
            device=loader.device,
            weights=loader.mass,
        )

    @property
    def mass(self) -> Tensor:
        """How often each is drawn in an epoch, and what it weighs then."""
        p = (self.probabilities / self.probabilities.mean()).to(self.device, torch.float32)
        return p if self.weights is None else p * self.weights

    def order(self, rows: int, generator: Generator) -> Tensor:
        """Draws with replacement."""
        return torch.multinomial(self.probabilities, rows, replacement=True, generator=generator)
