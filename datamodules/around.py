"""Data modules around another one: all is as there, but for the training batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gans.datamodules.base import GANDataModule, Split
from lightning_gans.datamodules.memory import MemoryLoader


class AroundDataModule(GANDataModule):
    """What a data module says of itself, of another one; a subclass makes the training batches.

    Args:
        data: the other one.
    """

    live: tuple[str, ...] = ("data",)  # arguments that may be objects, which no checkpoint can hold

    def __init__(self, data: GANDataModule) -> None:
        if not isinstance(data, GANDataModule):
            raise ValueError(f"data must be a GANDataModule, got {type(data).__name__}.")
        super().__init__(data.batch_size)
        objects = [name for name in self.live if not isinstance(self.hparams.get(name, {}), (Mapping, str, Path))]
        for name in objects:
            self.hparams.pop(name)
        if objects:  # from the command line they are class paths, which a checkpoint can hold
            self.save_hyperparameters(ignore=list(self.live), logger=False)
        self.data = data
        self.name, self.shape = data.name, data.shape
        self.num_classes, self.value_range = data.num_classes, data.value_range

    def __getattr__(self, name: str) -> Any:
        """What else the other one knows: the modes of a toy, say."""
        if name.startswith("_") or name == "data":
            raise AttributeError(name)
        return getattr(self.data, name)

    @property
    def num_items(self) -> int:
        """Number of training items of the other one."""
        return self.data.num_items

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.data.device

    def setup(self, stage: str) -> None:
        """Lend the trainer, and set the other one up."""
        self.data.trainer = self.trainer
        self.data.setup(stage)

    def state_dict(self) -> dict[str, Any]:
        """What the other one keeps."""
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the other one compare it."""
        self.data.trainer = self.trainer
        self.data.load_state_dict(state_dict)

    def prepare_data(self) -> None:
        """Have the other one download its files."""
        self.data.prepare_data()

    def reference(self, split: Split = "train") -> tuple[Tensor, Tensor | None]:
        """All clean items of a split, as they are without this module."""
        return self.data.reference(split)

    def fixed_loader(self, split: Split) -> MemoryLoader:
        """A split in a fixed order, as it is without this module."""
        return self.data.fixed_loader(split)
