"""``predict --attributes``: samples that have what is asked for, as far as the model can give it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.compat.lightning import callbacks
from lightning_gans.functional.control import measured, requested
from lightning_gans.stages.control import fit_control
from lightning_gans.techniques.gan_control import GANControl


class AskedAttributes(callbacks.Callback):
    """Has a `GANControl` predict samples with these attributes, and says how far they are from it.

    What has to be learned for that (`stages.fit_control`) is kept in a folder of the run.

    Args:
        model: that predicts.
        attributes: values by name.
        folder: where what is learned is kept.
        devices: that predict.

    Raises:
        ValueError: for a model without attributes, for values that it cannot be asked for, and several devices.
    """

    def __init__(self, model: Any, attributes: Mapping[str, Any], folder: Path, devices: int = 1) -> None:
        checks.only("devices", devices, 1, "with --attributes, which are learned first")
        if not isinstance(model, GANControl):
            raise ValueError(f"--attributes needs a model GANControl, got {type(model).__name__}.")
        if not attributes:
            raise ValueError(f"--attributes must have a value of one of {', '.join(model.attributes)}, got {{}}.")
        model.check_attributes(attributes)
        self.wanted = {name: requested(model.measure, name, value, 1) for name, value in attributes.items()}
        self.attributes, self.folder = attributes, folder
        self.errors: dict[str, list[Tensor]] = {name: [] for name in attributes}

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Learn to give them, unless that is done."""
        fit_control(pl_module, self.folder)
        pl_module.sample_options["attributes"] = self.attributes

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """See what came of it."""
        for name, found in measured(pl_module.measure, outputs, self.attributes).items():
            self.errors[name].append((found - self.wanted[name].to(found)).abs().mean(1))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Say how far from it."""
        if trainer.is_global_zero:
            deviations = dict(zip(pl_module.attributes, pl_module.variance.sqrt().tolist()))
            told = [f"{k} {float(torch.cat(e).mean()) / deviations[k]:.2f}" for k, e in self.errors.items()]
            print(f"Attributes   mean error in deviations of the data: {', '.join(told)}")
