"""A classifier of noised samples, by which a diffusion is guided (arXiv:2105.05233)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.functional import draw
from lightning_gans.metrics.extractors import content_hash
from lightning_gans.stages.fits import fit_items


def fit_noisy_classifier(
    module: Any,
    classifier: nn.Module,
    items: Tensor,
    labels: Tensor | None,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    folder: str | Path | None = None,
    seed: int | None = None,
) -> None:
    """Train a classifier, in place, on samples as noisy as those that a diffusion is at on its way.

    Minimises E -log p(y | x_t, t), t uniform on the diffusion's times.

    Args:
        module: the diffusion (`DDPM`), which is left as it is.
        classifier: (x_t, t) to logits (N, K), t (N,) in [0, 1000), as `networks.TimedClassifier`.
        items: (M, ...) in the diffusion's range.
        labels: (M,) their classes.
        steps: updates.
        batch_size: items for each.
        lr: of Adam.
        folder: for losses and a checkpoint, from which a call that was stopped goes on, in a folder of its own by data,
            networks and settings; None leaves nothing on disk.
        seed: that the classifier's first weights were drawn by: calls of another one do not go on with each other.

    Raises:
        ValueError: for numbers below 1, no labels, a module that is no diffusion, items of another shape than its
            samples, and logits of another shape.

    >>> from lightning_gans import DDPM
    >>> from lightning_gans.networks import DiffusionMLP, TimedClassifier
    >>> labels = torch.arange(64) % 2
    >>> items = (2.0 * labels[:, None] - 1).expand(64, 2).contiguous()  # (-1, -1) and (1, 1)
    >>> module, classifier = DDPM(DiffusionMLP((2,), 8, 1), (2,), steps=20), TimedClassifier((2,), 2, width=8, depth=1)
    >>> fit_noisy_classifier(module, classifier, items, labels, steps=100, lr=0.02)
    >>> float((classifier(items, torch.zeros(64)).argmax(1) == labels).double().mean())
    1.0
    """
    checks.at_least_one(steps=steps, batch_size=batch_size)
    checks.positive(lr=lr)
    if labels is None:
        raise ValueError("labels must be the classes of the items, got none: nothing can be guided to.")
    if not hasattr(module, "process"):
        raise ValueError(f"module must be a diffusion, got {type(module).__name__}.")
    if (shape := tuple(items.shape[1:])) != (own := tuple(getattr(module, "shape", shape))):
        raise ValueError(f"items must be of shape {own}, as the diffusion's samples are, got {shape}.")
    with torch.no_grad():
        logits = classifier(items[:2], torch.zeros(len(items[:2]), dtype=items.dtype, device=items.device))
    if logits.dim() != 2 or logits.shape[1] <= int(labels.max()):
        wanted = int(labels.max()) + 1
        raise ValueError(f"classifier must return logits of {wanted} classes or more, got shape {tuple(logits.shape)}.")
    process = content_hash(module.process.betas, module.process.times)
    fit = _NoisyClassifier(module, classifier, lr)
    fit_items(fit, items, labels, batch_size, steps, folder, process=process, seed=seed)


class _NoisyClassifier(GenerativeModule):
    """A classifier that is told the time; the diffusion is none of its networks."""

    counted, made_by, latent_dim = "c", "classifier", 1

    def __init__(self, module: Any, classifier: nn.Module, lr: float) -> None:
        super().__init__()
        self.classifier, self.process = classifier, module.process
        self.play(Player("c", ("classifier",), lr))
        self.conditional = True

    def terms(self, player: str, batch: Batch) -> Terms:
        x, process = batch.real, self.process
        assert batch.labels is not None
        u = draw.uniform(len(x), generator=batch.generator, device=x.device)
        t = (u * process.steps).long()
        noise = draw.normal(len(x), *x.shape[1:], generator=batch.generator, device=x.device, dtype=x.dtype)
        logits = self.classifier(process.noised(x, t, noise), (t * (1000 / process.total)).to(x.dtype))
        self.note(c_accuracy=(logits.argmax(1) == batch.labels).float().mean())
        return {"cross_entropy": F.cross_entropy(logits.float(), batch.labels)}
