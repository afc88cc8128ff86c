"""A classifier of the styles of texts, by which others are rewritten (`StyleTransfer`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.functional.conditional import as_logits
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.text import check_tokens, one_hot
from lightning_gans.stages.fits import fit_items


def fit_style_classifier(
    classifier: nn.Module,
    tokens: Tensor,
    styles: Tensor | None,
    size: int,
    *,
    steps: int = 1000,
    batch_size: int = 64,
    lr: float = 1e-3,
    folder: str | Path | None = None,
    seed: int | None = None,
) -> None:
    """Train a classifier, in place, to tell the style of a text: minimises E -log p(y | x), x one-hot.

    Args:
        classifier: texts (N, T, V) to logits (N, 2), or (N,) of style 1, as `networks.SeqGANDiscriminator`.
        tokens: (M, T) int64.
        styles: (M,) int64, 0 or 1.
        size: V.
        steps: updates.
        batch_size: texts for each.
        lr: of Adam.
        folder: for losses and a checkpoint, from which a call that was stopped goes on, in a folder of its own by data,
            network and settings; None leaves nothing on disk.
        seed: that the first weights were drawn by: calls of another one do not go on with each other.

    Raises:
        ValueError: for numbers below 1, no styles or others than two, and logits of another shape.

    >>> classifier = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3, 2))  # of two tokens of three symbols
    >>> styles = torch.arange(40) % 2
    >>> tokens = torch.stack([styles, torch.full_like(styles, 2)], 1)  # the first one tells
    >>> fit_style_classifier(classifier, tokens, styles, size=3, steps=50, lr=0.1)
    >>> style_accuracy(classifier, tokens, styles, size=3)
    1.0
    """
    checks.at_least_one(steps=steps, batch_size=batch_size)
    checks.positive(lr=lr)
    check_tokens(tokens, size)
    if styles is None or sorted(set(styles.tolist())) != [0, 1]:
        got = "none" if styles is None else f"{len(set(styles.tolist()))}"
        raise ValueError(f"data must be of two styles, as labels 0 and 1, got {got}.")
    with torch.no_grad():
        as_logits(classifier(one_hot(tokens[:2], size)), len(tokens[:2]), 2)
    fit_items(_StyleClassifier(classifier, size, lr), tokens, styles, batch_size, steps, folder, seed=seed)


@torch.no_grad()
def style_accuracy(classifier: nn.Module, tokens: Tensor, styles: Tensor, size: int) -> float:
    """Share of texts (M, T) whose style (M,) a classifier tells.

    >>> from torch import nn
    >>> classifier = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3, 2))  # of two tokens of three symbols
    >>> _ = nn.init.zeros_(classifier[1].weight), nn.init.zeros_(classifier[1].bias)  # says style 0 of any text
    >>> style_accuracy(classifier, torch.zeros(4, 2, dtype=torch.int64), torch.tensor([0, 0, 0, 1]), size=3)
    0.75
    """
    with evaluating(classifier):
        told = [as_logits(classifier(one_hot(part, size)), len(part), 2).argmax(1) for part in tokens.split(500)]
    return float((torch.cat(told) == styles).double().mean())


class _StyleClassifier(GenerativeModule):
    """A classifier of one-hot texts, which are made of tokens batch by batch."""

    counted, made_by, latent_dim, reads_tokens = "c", "classifier", 1, True

    def __init__(self, classifier: nn.Module, size: int, lr: float) -> None:
        super().__init__()
        self.classifier, self.size = classifier, size
        self.play(Player("c", ("classifier",), lr))
        self.conditional = True

    @property
    def vocabulary_size(self) -> int:
        return self.size

    def terms(self, player: str, batch: Batch) -> Terms:
        assert batch.labels is not None
        logits = as_logits(self.classifier(one_hot(batch.real, self.size)), len(batch.real), 2)
        self.note(c_accuracy=(logits.argmax(1) == batch.labels).float().mean())
        return {"cross_entropy": F.cross_entropy(logits.float(), batch.labels)}
