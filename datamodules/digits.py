"""scikit-learn's handwritten digits: real data that need no download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gans.datamodules.base import ImageDataModule, Split


class Digits(ImageDataModule):
    """The 1,797 handwritten digits (8x8, 17 grey levels) that come with scikit-learn; nothing is downloaded.

    1,500 are for training and 297, always the same, are held out. The levels 0..16 are spread over 0..255.

    >>> data = Digits(batch_size=100)
    >>> data.shape, data.num_classes, data.held_out
    ((1, 8, 8), 10, 297)
    """

    name = "Digits"
    shape = (1, 8, 8)
    num_classes = 10
    held_out = 297

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Read a split: uint8 images (N, 1, 8, 8) and labels (N,)."""
        images, labels = _read()
        order = np.random.RandomState(0).permutation(len(images))  # a stream that numpy promises never to change
        part = order[: self.held_out] if split == "test" else order[self.held_out :]
        pixels = torch.from_numpy(np.rint(images[part] * 255 / 16).astype(np.uint8))
        return pixels.reshape(-1, *self.shape), torch.from_numpy(labels[part]).long()


def _read() -> tuple[Any, Any]:
    """Grey levels (1797, 64) and classes (1797,) as ``load_digits`` has them.

    From the file that it reads: to import it takes longer than the rest of a run's start that is ours. Another
    scikit-learn, with the file elsewhere, is asked.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        if (file := Path(folder, "datasets", "data", "digits.csv.gz")).is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(int)
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)
