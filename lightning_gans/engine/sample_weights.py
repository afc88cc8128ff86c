"""``SampleWeighted``: games that keep a weight for each training sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans.engine.module import GenerativeModule
from lightning_gans.functional.columns import columns
from lightning_gans.functional.conditional import score
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import gather_rows


class SampleWeighted(GenerativeModule):
    """Multiplies the weights of each batch by those of its samples, one for each item of the training data.

    It needs a ``datamodules.MemoryLoader``, which knows what item a row of a batch is. The weights are one at first, in
    each new run and on other data, and part of the checkpoint; a batch has those of the time when it was fetched.

    Attributes:
        weighs_samples: whether the game does; set it in the constructor.
        sample_weights: (N,) the weights, in the loader's order, or None before training starts.
        sample_scores: (N,) running average of their scores, or None before they were asked for.

    Raises:
        ValueError: when training starts, if another loader is given.
    """

    weighs_samples = False
    sample_weights: Tensor | None = None
    sample_scores: Tensor | None = None

    def score_samples(self, network: nn.Module, momentum: float) -> tuple[Tensor, Tensor | None]:
        """Score all training samples by a network in evaluation mode: m times the average so far + (1 - m) score.

        Returns:
            the average (N,), which is the score at first, and what each sample counts in the data (N,); None: alike.
        """
        loader: Any = self.trainer.train_dataloader
        rows = []
        with torch.no_grad(), evaluating(network):
            for raw in loader.in_order():
                real, labels, *_ = columns(self.trainer.precision_plugin.convert_input(raw), self.columns)
                rows.append(score(network, real, labels if self.conditional else None))
        found, known = full_precision(gather_rows(torch.cat(rows)))[: len(loader.data)], self.sample_scores
        average = found if known is None else momentum * known.to(found) + (1 - momentum) * found
        self.sample_scores = average
        return average, loader.mass

    def set_sample_weights(self, weights: Tensor) -> None:
        """Let the batches to come have these weights (N,), of mean one."""
        assert self.sample_weights is not None
        self.sample_weights.copy_(weights)

    def on_train_start(self) -> None:
        """Give the loader the weights of its samples: all one, or those that the run goes on with."""
        if not self.weighs_samples:
            return
        loader: Any = self.trainer.train_dataloader
        if not hasattr(loader, "factors"):
            raise ValueError(
                f"The training data must be in a MemoryLoader, got a {type(loader).__name__}: without a network of its "
                f"own {type(self).__name__} keeps a weight for each sample."
            )
        known = self.sample_weights
        if not self.progress.measured or known is None or len(known) != len(loader.data):
            known = torch.ones(len(loader.data))
            self.sample_scores = None
        self.progress.measured = True
        loader.factors = self.sample_weights = known.to(loader.device)

    def on_train_end(self) -> None:
        """Take the weights back: the loader may be another game's next."""
        if self.weighs_samples:
            self.trainer.train_dataloader.factors = None  # type: ignore[union-attr]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is known of the samples."""
        super().on_save_checkpoint(checkpoint)
        known = {"sample_weights": self.sample_weights, "sample_scores": self.sample_scores}
        checkpoint |= {name: value.cpu() for name, value in known.items() if value is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.sample_weights, self.sample_scores = (checkpoint.get(f"sample_{what}") for what in ("weights", "scores"))
