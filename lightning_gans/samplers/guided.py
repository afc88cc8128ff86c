"""Classifier guidance of a diffusion (Dhariwal and Nichol, arXiv:2105.05233)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.modes import evaluating
from lightning_gans.samplers.base import Sampler


def _constant(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


class Guided(Sampler):
    r"""Samples of a diffusion, drawn at each step to a class by a classifier of noised samples.

    An ancestral step's mean is moved by :math:`\Sigma\, s \nabla \log p(y|x_t)`, the gradient taken at :math:`x_t` and
    :math:`\Sigma` the step's variance; of DDIM the noise, by :math:`-\sqrt{1 - a_t}\, s \nabla \log p(y|x_t)`. At s = 1
    with an exact classifier that is the law given y. Larger s makes samples more typical and less varied.

    Args:
        module: a trained diffusion, as `DDPM`: what has ``reverse(z, labels, generator, push)``.
        classifier: (x_t, t) to logits (N, K), t (N,) in [0, 1000); trained on noised samples
            (``stages.fit_noisy_classifier``): one of clean samples is of no use.
        scale: s >= 0, 0 for no guidance.

    Raises:
        ValueError: for a scale out of range, a module that is no diffusion; in sampling, without labels where the
            classifier does not tell its ``num_classes``, of which they would be drawn.

    >>> from lightning_gans import DDPM
    >>> from lightning_gans.networks import DiffusionMLP
    >>> model = DDPM(DiffusionMLP((2,), 16, 1), (2,), steps=20, sampling_steps=5)
    >>> class Side(nn.Module):
    ...     def forward(self, x, t):
    ...         return torch.stack([x[:, 0], -x[:, 0]], 1)
    >>> Guided(model, Side(), scale=2.0).sample(3, labels=torch.zeros(3, dtype=torch.int64)).shape
    torch.Size([3, 2])
    """

    name = "guided"

    def __init__(self, module: Any, classifier: nn.Module, *, scale: float = 1.0) -> None:
        checks.not_negative(scale=scale)
        if not hasattr(module, "process"):
            raise ValueError(f"module must be a diffusion, with a reverse process, got {type(module).__name__}.")
        super().__init__(module, _constant)
        self.classifier, self.scale = classifier, scale

    @property
    def network_calls(self) -> float:
        """Per sample: of each step one of the denoiser and, with its gradient, one of the classifier."""
        return float(self.module.network_calls * (2 if self.scale else 1))

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` samples."""
        own = labels if self.module.num_classes is not None else None
        z, own = self.module.latents(n, own, generator)
        labels = self.classes(n, generator) if labels is None and own is None else own if labels is None else labels
        target = labels.to(z.device)
        self.report.proposals += n
        self.report.accepted += n
        if not self.scale:
            return self.module.reverse(z, own, generator)
        with evaluating(self.classifier):
            return self.module.reverse(z, own, generator, lambda x, t: self.scale * self.push(x, t, target))

    def classes(self, n: int, generator: Generator) -> Tensor:
        """Labels (n,) to guide by, where none are given."""
        if (known := getattr(self.classifier, "num_classes", None)) is None:
            name = type(self.classifier).__name__
            raise ValueError(f"labels must be given to guide by {name}, which tells no num_classes, got none.")
        return torch.randint(known, (n,), generator=generator)

    def push(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Gradient (N, ...) of log p(labels | x, t) by x."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.classifier(x, t.to(x.dtype))
            if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
                got = f"{int(labels.min())}..{int(labels.max())}"
                raise ValueError(f"labels must lie in 0..{logits.shape[1] - 1}, which the classifier knows, got {got}.")
            chosen = logits.log_softmax(1).gather(1, labels[:, None])
            return torch.autograd.grad(chosen.sum(), x)[0]
