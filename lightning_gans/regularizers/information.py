"""A conditional discriminator is to look at its label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.information import LAWS, Law, label_information, require_labels
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class InformationTerm(Regularizer):
    r"""Both inputs of a conditional discriminator are to matter (functional Fisher information, arXiv:2010.10802).

    .. math:: \Big\| \Big( \frac1{I_x + c}, \frac1{I_y + c} \Big) \Big\|_2

    with the information I of the answer in real samples x and in their labels y, see ``functional.label_information``;
    the smaller of the two has nearly all of the gradient. A discriminator that ignores its label has I_y = 0, and the
    callback ``LabelInformation`` shows whether it does.

    Departures from the released code: c in place of a division by what may be 0; the noise has the data's
    covariance, and is drawn once. That code's weight is 1e-10, of a term without bound.

    Args:
        weight: of the term, which is at most sqrt(2) / c.
        floor: c > 0.
        noise: >= 0, in standard deviations of the batch.
        law: "logit" if scores are logits (GAN, DCGAN), "normal" for critics.
        every: it is part of every n-th update only, n times as heavy.

    Raises:
        ValueError: for an argument out of range; when a game is made, for a discriminator that takes no labels.

    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(real=torch.tensor([[-1.0], [1.0]]), labels=torch.tensor([0, 1]), generator=None)
    >>> critic = lambda x, labels: x[:, 0] + torch.tensor([[0.0], [2.0]])[labels][:, 0]
    >>> round(float(InformationTerm(floor=1.0, law="normal")(critic, batch, fake=None)), 4)  # both are 2: sqrt(2) / 3
    0.4714
    """

    name = "label_information"
    per_sample = True

    def __init__(
        self, weight: float = 0.1, floor: float = 0.01, noise: float = 1.0, law: Law = "logit", every: int = 1
    ) -> None:
        super().__init__(weight, every)
        checks.positive(floor=floor)
        checks.not_negative(noise=noise)
        checks.one_of("law", law, LAWS)
        self.floor, self.noise, self.law = floor, noise, law

    def fitting(self, network: nn.Module) -> Regularizer:
        """Itself, for a discriminator that takes labels."""
        require_labels(network, "InformationTerm")
        return self

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at the real samples."""
        found = label_information(discriminator, batch.real, batch.labels, self.noise, self.law, batch.generator)
        return torch.linalg.vector_norm(1 / (torch.stack(found) + self.floor))
