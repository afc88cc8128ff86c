"""Does the conditional discriminator look at its label?"""

from __future__ import annotations

from typing import Any

import torch

from lightning_gans import checks
from lightning_gans.callbacks.probe import EveryNSteps, log_metrics
from lightning_gans.compat.lightning import pl
from lightning_gans.diagnostics.label_information import label_use
from lightning_gans.engine.contract import Critic
from lightning_gans.functional.information import LAWS, Law, require_labels


class LabelInformation(EveryNSteps):
    """Logs how much a conditional discriminator's answer depends on the label, and how much on the sample.

    ``d/label_information`` and ``d/sample_information`` (functional Fisher information, arXiv:2010.10802) of the last
    batch's real samples, ``d/label_share``, the first over the sum of both, and ``d/label_swap``: how far another label
    moves the score, in standard deviations of the scores; on several ranks each is the mean of theirs. A label that is
    ignored has 0 in all but the second: then the generator is not taught classes, and ``regularizers.InformationTerm``
    is for that.

    Args:
        every_n_steps: generator updates between looks.
        noise: >= 0, in standard deviations of the batch.
        law: "logit", "normal", or None; see `diagnostics.label_use`.

    Raises:
        TypeError: before training starts, for a model without a discriminator.
        ValueError: before training starts, for a discriminator that takes no labels.

    >>> callback = LabelInformation(every_n_steps=200, law="logit")  # for pl.Trainer(callbacks=[callback])
    >>> callback.every_n_steps, callback.noise, callback.law
    (200, 1.0, 'logit')
    """

    needs = Critic

    def __init__(self, every_n_steps: int = 100, noise: float = 1.0, law: Law | None = None) -> None:
        super().__init__(every_n_steps)
        checks.not_negative(noise=noise)
        if law is not None:
            checks.one_of("law", law, LAWS)
        self.noise, self.law = noise, law

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a model without a discriminator, or with one that takes no labels."""
        super().on_fit_start(trainer, pl_module)
        net: Any = pl_module.discriminator
        require_labels(net, "LabelInformation")

    def act(self, trainer: pl.Trainer, module: Critic, step: int) -> None:
        """Look, and log."""
        if (batch := module.last_batch) is None or batch.labels is None:
            return
        found = label_use(module, batch.real, batch.labels, noise=self.noise, law=self.law)
        told = trainer.strategy.reduce(torch.tensor(found, device=batch.real.device), reduce_op="mean").tolist()
        names = ("label_information", "sample_information", "label_share", "label_swap")
        log_metrics(trainer, {f"d/{name}": value for name, value in zip(names, told)}, step)
