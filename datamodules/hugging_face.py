"""Image data sets of Hugging Face's ``datasets``, whose rows are dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_gans import checks
from lightning_gans.compat.lightning import utilities
from lightning_gans.datamodules.base import ImageDataModule, Split
from lightning_gans.datamodules.folder import converted, image_size, skipped, split_rows
from lightning_gans.datamodules.pictures import CHANNELS, Decoder, Fit, Page, Scale, depth, scale_of, told


class HuggingFace(ImageDataModule):
    """A data set of Hugging Face, brought into memory at one size and mode.

    Its splits train and test (or validation) are these; of a single split some rows, always the same, are held out.
    Classes are those of the column's features, else its values in their order. Rows whose picture is none, or cannot be
    read, are skipped with a warning; what was converted is said in one line (`describe`).

    Args:
        path_or_dataset: name of a data set on the hub, a folder of ``save_to_disk``, or a ``Dataset`` or
            ``DatasetDict`` that is there already.
        image: the column of pictures.
        label: the column of classes, integers or names; None for none.
        size: of the images in pixels: one number, or (height, width).
        fit: how another shape is made to fit: "crop", "stretch" or "pad".
        mode: "RGB", "L", "RGBA" or "LA", as of `Images`.
        test_share: share of the rows that is held out of a single split, in [0, 1).
        batch_size: images per batch and process.
        flip: mirror each training image left to right with probability 1/2.
        dequantize: add uniform noise as wide as a grey level to the batches.
        value_range: of the batches.
        items: use only the first so many training images; None: all.

    Raises:
        ImportError: without ``datasets``, for a path.
        ValueError: for settings out of range, for columns that there are not, for labels that are neither integers >= 0
            nor names, and without a picture that can be read.

    >>> class Rows(list):  # for a ``datasets.Dataset``, or the name of one on the hub
    ...     features = {"image": None}
    >>> data = HuggingFace(Rows({"image": Image.new("RGB", (48, 32))} for _ in range(10)), size=16)
    >>> data.shape, data.num_classes, [len(data.reference(split)[0]) for split in ("train", "test")]
    ((3, 16, 16), None, [9, 1])
    """

    def __init__(
        self,
        path_or_dataset: Any,
        image: str = "image",
        label: str | None = None,
        size: int | tuple[int, int] = 64,
        fit: Fit = "crop",
        mode: Literal["L", "LA", "RGB", "RGBA"] = "RGB",
        test_share: float = 0.1,
        batch_size: int = 64,
        flip: bool = False,
        dequantize: bool = False,
        value_range: tuple[float, float] = (-1.0, 1.0),
        items: int | None = None,
    ) -> None:
        super().__init__(batch_size, flip, dequantize, value_range, items)
        if not isinstance(path_or_dataset, str):  # no checkpoint can hold it
            self.hparams.pop("path_or_dataset", None)
            self.save_hyperparameters(ignore=["path_or_dataset"], logger=False)
        checks.one_of("fit", fit, get_args(Fit))
        checks.one_of("mode", mode, CHANNELS)
        checks.below_one(test_share=test_share)
        self.image, self.label, self.size, self.fit, self.mode = image, label, image_size(size), fit, mode
        self.splits = rows_of_splits(opened(path_or_dataset), test_share, label)
        self.name = path_or_dataset if isinstance(path_or_dataset, str) else "HuggingFace"
        self.shape = (CHANNELS[mode], *self.size)
        features = self.splits["train"][0].features
        for name in filter(None, (image, label)):
            if name not in features:
                raise ValueError(f"columns of the data set are {', '.join(features)}; there is no {name!r}.")
        self.label_names = None if label is None else getattr(features[label], "names", None)
        self._labels = {name: self._labels_of(name) for name in get_args(Split)} if label is not None else {}
        found = {value for values in self._labels.values() for value in values}
        self.classes = sorted(found) if self.label_names is None else list(self.label_names)
        self.num_classes = len(self.classes) or None
        self._scale: Scale | None = None
        self._converted: list[str] = []

    def _labels_of(self, split: Split) -> list[Any]:
        data, rows = self.splits[split]
        values: list[Any] = [value.item() if hasattr(value, "item") else value for value in data[self.label]]
        found = [values[int(row)] for row in rows]
        kind = str if any(isinstance(value, str) for value in found) else int
        most = None if self.label_names is None else len(self.label_names) - 1
        for row, value in zip(rows, found):
            number = int(value) if kind is int and isinstance(value, int) else 0
            if not isinstance(value, kind) or number < 0 or (most is not None and number > most):
                wanted = "names or integers >= 0" if most is None else f"integers in 0..{most}"
                raise ValueError(
                    f"label {self.label!r} must hold {wanted} (all of one kind), got {value!r} in row {row} of the "
                    f"{split} split: leave such rows out, or give label=None."
                )
        return found

    def _pictures(self, split: Split) -> Iterator[Image.Image | Exception]:
        """Each row's, or why there is none."""
        data, rows = self.splits[split]
        for row in rows:
            try:
                given = data[int(row)][self.image]
                if given is None:
                    raise ValueError("there is none")
                picture = given if isinstance(given, Image.Image) else Image.fromarray(np.asarray(given))
                picture.load()
                yield picture
            except Exception as error:  # decoders fail in many ways; to us each means: not readable
                yield error

    def load(self, split: Split) -> tuple[Tensor, Tensor | None]:
        """Decode a split: uint8 images (N, C, H, W), and labels (N,) int64, or None."""
        if self._scale is None:
            self._scale = scale_of(
                (kind, np.asarray(image))
                for name in get_args(Split)
                for image in self._pictures(name)
                if isinstance(image, Image.Image) and (kind := depth(image)) is not None
            )
        decoder = Decoder(self.mode, self._scale, self.size, self.fit)
        pages: list[Page] = []
        read: list[int] = []
        failed: list[tuple[str, str]] = []
        for place, image in enumerate(self._pictures(split)):
            try:
                if isinstance(image, Exception):
                    raise image
                pages.append(decoder.page(image, image.size))
                read.append(place)
            except Exception as error:
                failed.append((f"row {self.splits[split][1][place]}", told(error)))
        if failed and not pages:
            raise ValueError(
                f"{self.name}: none of its {len(failed)} {split} pictures can be read ({': '.join(failed[0])})."
            )
        if failed:
            utilities.rank_zero_warn(f"{self.name}, {split}: {', '.join(skipped(failed))}.")
        if split == "train":
            self._converted = converted(pages, self.mode, self.size, self.fit, self._scale)
        pixels = [page.pixels for page in pages]
        images = torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0, *self.shape, dtype=torch.uint8)
        if self.label is None:
            return images, None
        labels = [self._labels[split][place] for place in read]
        if self.label_names is None:
            numbers = {value: i for i, value in enumerate(self.classes)}
            labels = [numbers[value] for value in labels]
        return images, torch.tensor(labels, dtype=torch.int64)

    def describe(self) -> str:
        """Number of training images, shape, range, classes, augmentation and what was converted, in one line."""
        return ", ".join([super().describe(), *self._converted])

    def val_dataloader(self) -> Any:
        """The held-out images in a fixed order; no loader at all if none are held out."""
        return self.fixed_loader("test") if len(self.splits["test"][1]) else []


def opened(given: Any) -> Any:
    """A ``Dataset`` or ``DatasetDict``, from the hub or the disk if it is a path."""
    if not isinstance(given, str):
        return given
    checks.installed("datasets")
    import datasets

    path = Path(given).expanduser()
    if any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return datasets.load_from_disk(str(path))
    return datasets.load_dataset(str(path) if given.startswith("~") else given)


def rows_of_splits(data: Any, test_share: float, label: str | None = None) -> dict[Split, tuple[Any, np.ndarray]]:
    """For each split a ``Dataset`` and the numbers of its rows; a test split without its labels is passed by."""
    if not isinstance(data, Mapping):
        if not (hasattr(data, "features") and hasattr(data, "__len__")):
            raise TypeError(
                "path_or_dataset must be a name, a folder, a Dataset or a DatasetDict of the package datasets, got "
                f"{type(data).__name__}."
            )
        return {name: (data, rows) for name, rows in split_rows(len(data), test_share).items()}
    if "train" not in data:
        raise ValueError(f"path_or_dataset must have a split 'train', got {', '.join(map(str, data))}.")
    names = [name for name in ("test", "validation", "valid", "val") if name in data]
    kept_back = {name for name in names if label in data[name].features and {*data[name][label]} <= {-1, None}}
    other = next((name for name in names if name not in kept_back), None)
    if other is None:
        return rows_of_splits(data["train"], test_share)
    return {"train": (data["train"], np.arange(len(data["train"]))), "test": (data[other], np.arange(len(data[other])))}
