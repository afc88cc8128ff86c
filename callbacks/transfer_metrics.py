"""Scores of texts that a model rewrites in another style, while it learns to."""

from __future__ import annotations

from typing import cast

import torch

from lightning_gans import checks
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine.contract import Rewrites, Samples
from lightning_gans.metrics.style import TransferScores


class TransferMetrics(ScoreCallback):
    """Has held-out texts rewritten in their other style every n generator updates, and scores the result.

    ``metrics/accuracy``, ``metrics/bleu`` to the input, ``metrics/harmonic``, ``metrics/copies`` and, where
    the data know what is right, ``metrics/right`` (`metrics.TransferScores`); beside them ``metrics/copy/...``, what
    copying the input scores.

    Args:
        every_n_steps: generator updates between two measurements, >= 1.
        num_samples: the most texts that are rewritten.
        at_start: measure at step 0 too.
        seed: by which the texts are chosen.

    Raises:
        TypeError: of a model that rewrites nothing.
        ValueError: for settings out of range, and for data that are not text in two styles.

    >>> callback = TransferMetrics(num_samples=500)  # for pl.Trainer(callbacks=[EMA(), callback])
    >>> callback.history = [{"step": n, "metrics/harmonic": h} for n, h in ((0, 0.1), (500, 0.7), (1000, 0.6))]
    >>> callback.best("harmonic")  # as after a training
    {'step': 500, 'metrics/harmonic': 0.7}
    """

    needs = Rewrites
    higher_is_better = ("accuracy", "bleu", "harmonic", "right")
    in_progress_bar = ("harmonic",)
    label = "transfer"

    def __init__(self, every_n_steps: int = 500, num_samples: int = 1000, at_start: bool = True, seed: int = 0) -> None:
        super().__init__(every_n_steps, at_start, seed)
        checks.at_least_one(num_samples=num_samples)
        self.num_samples = num_samples
        self.scores: TransferScores | None = None

    def check(self, trainer: pl.Trainer, pl_module: Samples) -> None:
        """Data must be text in two styles."""
        data = datamodule_of(trainer)
        if getattr(data, "vocabulary", None) is None or data.num_classes != 2:
            raise ValueError(f"TransferMetrics needs a datamodule of text in two styles, got {type(data).__name__}.")
        self.scores = TransferScores(data, self.num_samples, self.seed)

    def will_measure(self, trainer: pl.Trainer, pl_module: Samples) -> list[str]:
        """Of the data."""
        self.check(trainer, pl_module)
        copy = cast(TransferScores, self.scores).copy
        return [f"metrics/{part}{name}" for part in ("", "copy/") for name in copy]

    def measure(self, trainer: pl.Trainer, pl_module: Samples) -> dict[str, float]:
        """The same on every rank."""
        scores, model = cast(TransferScores, self.scores), cast(Rewrites, pl_module)
        pairs = zip(scores.inputs.split(500), scores.wanted.split(500))
        made = torch.cat([model.transfer(tokens, styles).cpu() for tokens, styles in pairs])
        self.protocol = {**scores.protocol, "weights": "raw" if pl_module.ema is None else "ema"}
        found = scores(made) | {f"copy/{name}": value for name, value in scores.copy.items()}
        return {f"metrics/{name}": value for name, value in found.items()}
