"""Which training samples does the discriminator find hardest, or most out of place?"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.callbacks.probe import Draws, EveryNSteps, log_metrics, scores, untouched
from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine import distributed
from lightning_gans.engine.contract import Critic
from lightning_gans.functional.columns import columns
from lightning_gans.runs.atomic import replacing
from lightning_gans.visualization.images import grid_image


def auroc(values: Tensor, positive: Tensor) -> float:
    """P(value of a positive > value of a negative), ties counted half, of (N,) values and bools; NaN without either."""
    _, which, counts = values.double().unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[which]  # of equal values the mean rank
    n = int(positive.sum())
    m = len(values) - n
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


class SampleRanking(EveryNSteps, Draws):
    r"""Ranks all training samples by their mean score over training, as AUM ranks them by a classifier's margin.

    Every n generator updates D scores them all, in evaluation mode and without augmentation, in the order of
    ``datamodule.fixed_loader("train")``. The mean over the samples is subtracted, since the level of D drifts, and the
    margin of a sample is the mean over the passes so far:

    .. math:: m_i = \frac1T \sum_{t=1}^T \Big( D_t(x_i) - \frac1N \sum_j D_t(x_j) \Big)

    High: D tells the sample easily, so G does not come there; with a Wasserstein critic that is where outliers are.
    Low: D takes it for a fake. (A game that drops outliers has no use for a D that tells them, and may turn the order
    round: rank by a plain game.) ``<folder>/ranking/samples.csv`` lists index and margin, highest first, with a column
    ``outlier`` where the datamodule says which they are (``is_outlier``); then ``rank/auroc`` is logged, how well a
    high margin tells them (0.5 is chance, below it they are at the low end). Of images the ``shown`` highest and lowest
    are drawn, as ``highest.png`` and ``lowest.png`` beside it and in W&B and TensorBoard.

    Args:
        every_n_steps: generator updates between passes, each of which costs a forward pass of D over the data.
        shown: images to draw of each end.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.

    Attributes:
        margin: (N,) the means, part of the checkpoint; None before the first pass.
        passes: T.

    Raises:
        ValueError: before training starts, without a datamodule that has a ``fixed_loader``.

    >>> callback = SampleRanking(every_n_steps=100)  # for pl.Trainer(callbacks=[callback])
    >>> margin, is_outlier = torch.tensor([0.5, 2.0, -1.0, 1.5]), torch.tensor([False, True, False, False])
    >>> auroc(margin, is_outlier)  # it logs that of all training samples
    1.0
    """

    place = "ranking"
    needs = Critic

    def __init__(self, every_n_steps: int = 500, shown: int = 32, dirpath: str | Path | None = None) -> None:
        super().__init__(every_n_steps)
        checks.at_least_one(shown=shown)
        self.shown, self.dirpath = shown, dirpath
        self.loader: Any = None
        self.flags: Tensor | None = None
        self.margin: Tensor | None = None
        self.passes = 0

    def check(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The training samples must come in a fixed order."""
        if not hasattr(datamodule_of(trainer), "fixed_loader"):
            raise ValueError("SampleRanking needs a datamodule with fixed_loader('train'), and there is none.")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the samples; margins of other data are forgotten."""
        super().on_train_start(trainer, pl_module)
        self.check(trainer, pl_module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with untouched(pl_module):
            self.loader, flags = data.fixed_loader("train"), getattr(data, "is_outlier", None)
        self.flags = flags if isinstance(flags, Tensor) else None
        if pl_module.global_step == 0 or (self.margin is not None and len(self.margin) != len(self.loader.data)):
            self.margin, self.passes = None, 0

    @torch.no_grad()
    def act(self, trainer: pl.Trainer, module: Critic, step: int) -> None:
        """Score all samples, update the means; on the first rank also list, draw and log."""
        like, rows = next(module.discriminator.parameters()), []
        for batch in self.loader:
            real, labels, *_ = columns(batch)
            rows.append(scores(module, real.to(like), labels))
        found = distributed.interleave(torch.cat(rows))[: len(self.loader.data)].double().cpu()
        found = found - found.mean()
        self.passes += 1
        self.margin = found if self.margin is None else self.margin + (found - self.margin) / self.passes
        if not trainer.is_global_zero:
            return
        order = self.margin.argsort(descending=True, stable=True)
        self._list(order)
        if self.flags is not None:
            log_metrics(trainer, {"rank/auroc": auroc(self.margin, self.flags)}, step)
        self._draw(trainer, order, step)

    def _list(self, order: Tensor) -> None:
        assert self.margin is not None
        table: dict[str, list[Any]] = {
            "index": order.tolist(),
            "margin": [f"{m:.8g}" for m in self.margin[order].tolist()],
        }
        if self.flags is not None:
            table["outlier"] = self.flags[order].int().tolist()
        with replacing(self.folder / "samples.csv") as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([list(table), *map(list, zip(*table.values()))])

    def _draw(self, trainer: pl.Trainer, order: Tensor, step: int) -> None:
        data = datamodule_of(trainer)
        shape: tuple[int, ...] = getattr(data, "shape", ())
        if len(shape) != 3:
            return
        for name, picked in (("highest", order[: self.shown]), ("lowest", order.flip(0)[: self.shown])):
            rows = self.loader.data[picked.to(self.loader.device)]
            if self.loader.transform is not None:
                rows = self.loader.transform(rows, torch.Generator(rows.device).manual_seed(0))
            image = grid_image(rows, 8, getattr(data, "value_range", None) or (-1.0, 1.0))
            self.show(trainer, image, [name], f"ranking/{name}", step)

    def state_dict(self) -> dict[str, Any]:
        """The means and their number."""
        return {"margin": self.margin, "passes": self.passes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on averaging."""
        self.margin, self.passes = state_dict["margin"], state_dict["passes"]
