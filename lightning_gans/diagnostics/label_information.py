"""Does a conditional discriminator look at its label at all?"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_gans.functional.conditional import score
from lightning_gans.functional.information import Law, label_information
from lightning_gans.functional.modes import evaluating


class LabelUse(NamedTuple):
    """What a conditional discriminator's answer depends on.

    Attributes:
        label: functional Fisher information in the label's vector, >= 0; 0: the label is ignored.
        sample: that in the sample.
        share: label / (label + sample).
        swap: how far another label moves the score: root mean square, in standard deviations of the scores.

    >>> use = LabelUse(label=1.0, sample=3.0, share=0.25, swap=0.5)
    >>> use.share == use.label / (use.label + use.sample)
    True
    """

    label: float
    sample: float
    share: float
    swap: float


def label_use(
    model: Any, x: Tensor, labels: Tensor | None, *, noise: float = 1.0, law: Law | None = None, seed: int = 0
) -> LabelUse:
    """Of a trained model's discriminator, in evaluation mode; see `functional.information.label_information`.

    Args:
        model: with a ``discriminator`` that takes labels.
        x: real samples (N, ...), on the model's device; some hundreds.
        labels: their classes (N,).
        noise: >= 0, in standard deviations of the batch.
        law: "logit" or "normal"; None: the first where the model says that its discriminator is a logit
            (``log_ratio``).
        seed: of the noise, and of the other labels.

    Raises:
        ValueError: for a discriminator without labels.

    >>> from types import SimpleNamespace
    >>> net = torch.nn.Linear(1, 1)
    >>> net.forward = lambda x, labels: x[:, 0] + 0 * torch.nn.functional.one_hot(labels, 2)[:, 0]
    >>> label_use(SimpleNamespace(discriminator=net), torch.randn(8, 1), torch.arange(8) % 2).label
    0.0
    """
    net, own = model.discriminator, torch.Generator().manual_seed(seed)
    if law is None:
        law = "logit" if getattr(model, "log_ratio", None) is net else "normal"
    with evaluating(net), torch.enable_grad():
        found = label_information(net, x, labels, noise, law, own)
        assert labels is not None
        other = labels[torch.randperm(len(labels), generator=own).to(labels.device)]
        with torch.no_grad():
            scores = score(net, x, labels).double()
            moved = (score(net, x, other).double() - scores)[other != labels]
    spread = float(scores.std(unbiased=False)) or 1.0
    swap = float(moved.square().mean().sqrt()) / spread if len(moved) else 0.0
    label, sample, share = (float(value.detach()) for value in (found.label, found.sample, found.share))
    return LabelUse(label, sample, share, swap)
