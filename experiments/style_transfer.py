"""Text rewritten in another style without pairs, on a toy language whose right answers are known.

    python -m experiments.style_transfer --out docs/results/style-transfer.md
    python -m experiments.style_transfer --files negative.txt positive.txt     # any two styles, a sentence a line

Of each seed a classifier learns to tell the styles, and an autoencoder to repeat sentences; with both, the start, all
games begin: the autoencoder that goes on alone, the game of classifier and adversary, and that with PRC's reweighting
of the fakes in D's loss. Beside them two lines: copying the input, and the right answers, where they are known.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments import figures, measures, page, playing
from lightning_gans import datamodules
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.functional.text import to_tokens, token_nll
from lightning_gans.metrics import TransferScores
from lightning_gans.stages.style_classifier import fit_style_classifier

SCORES = {"accuracy": "accuracy", "BLEU to the input": "bleu", "harmonic mean": "harmonic", "copies": "copies",
          "right": "right"}  # fmt: skip


class Autoencoder(GenerativeModule):
    """What all begin with: a network that learns to repeat sentences, beside a classifier that has learnt the styles.

    Its loss is that of `StyleTransfer` without classifier and adversary, whose fakes and discriminator it goes without.
    """

    counted, made_by = "g", "generator"

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        classifier: nn.Module,
        steps: int,
        lr_g: float,
        text: Sequence[Any] = ("StyledText", {}),
    ) -> None:
        super().__init__()
        self.generator, self.classifier, self.latent_dim, self.conditional = generator, classifier, latent_dim, True
        self.play(Player("g", ("generator",), lr_g, clip=5.0))
        if steps:
            data = getattr(datamodules, text[0])(**text[1])
            fit_style_classifier(classifier, *data.reference("train"), len(data.vocabulary), steps=steps)

    def terms(self, player: str, batch: Batch) -> Terms:
        """How badly sentences are repeated."""
        own, y = cast(Any, self.generator), batch.labels
        return {
            "reconstruction": token_nll(own.logits(batch.real, own.encode(batch.real), y), to_tokens(batch.real)).mean()
        }

    @torch.no_grad()
    def transfer(self, tokens: Tensor, styles: Tensor) -> Tensor:
        """Sentences in other styles, if it happens to know how."""
        return cast(Any, self.generator).rewritten(tokens, styles)


def text(a: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The data module and its options."""
    if not a.files:
        return "StyledText", {}
    return "TextFile", {"path": a.files, "level": "word", "length": a.length, "max_vocab": a.vocabulary,
                        "rare": "unknown", "long": "truncate"}  # fmt: skip


def games(a: argparse.Namespace) -> dict[str, playing.Game]:
    """By name; all but the first begin where that ends."""
    critic, (data, options) = {"embedding": a.embedding, "filters": a.filters}, text(a)
    common = {
        "data": data, "data_options": options, "batch_size": 64, "score": None, "log_every": 50,
        "latent_dim": a.code + (a.length if a.files else 8),
        "generator": ["StyleAutoencoder", {"num_classes": 2, "embedding": a.embedding, "style": 8, "beta": [1.0, 10.0],
                                           "schedule_steps": a.updates}],
        "discriminator": ["SeqGANDiscriminator", {**critic, "kernels": [1, 2, 3], "dropout": 0.0}],
        "classifier": ["SeqGANDiscriminator", {**critic, "kernels": [1, 2]}],
    }  # fmt: skip
    alone = {**common, "technique": "experiments.style_transfer.Autoencoder"}
    start = {**alone, "updates": a.alone, "watch": [["TransferMetrics", {"every_n_steps": a.alone}]],
             "options": {"lr_g": a.rate, "steps": a.classifier, "text": [data, options]}}  # fmt: skip
    watch = [["TransferMetrics", {"every_n_steps": max(1, a.updates // 10)}]]
    rest = {"updates": a.updates, "start": start, "watch": watch}
    both = {"lr_g": a.rate, "lr_d": 1e-3, "style_weight": a.style, "adversarial_weight": a.adversarial}
    ways = {
        "classifier and adversary": both,
        "classifier and adversary, reweighted": {**both, "reweight": True},
    }
    return {
        "the autoencoder alone: the start": start,
        "the autoencoder alone, gone on with": {**alone, **rest, "options": {"lr_g": a.rate, "steps": 0}},
        **{name: {**common, **rest, "technique": "style_transfer", "options": way} for name, way in ways.items()},
    }


def lines(data: Any) -> dict[str, dict[str, float]]:
    """What copying the input scores, and what the right answers do."""
    scores = TransferScores(data)
    if not hasattr(data, "transferred"):
        return {"copying the input": scores.copy}
    return {
        "copying the input": scores.copy,
        "the right answers": scores(data.transferred(scores.inputs, scores.wanted)),
    }


def parser() -> argparse.ArgumentParser:
    """What it can be told."""
    p = page.parser(__doc__, updates=800, alone=3000, classifier=300, code=64, embedding=16, filters=16, rate=3e-3,
                    style=0.02, adversarial=0.02, length=15, vocabulary=2000)  # fmt: skip
    p.add_argument("--files", nargs=2, default=[], help="of sentences in one style and in another, words by blanks")
    return p


def main() -> None:
    """Play, print, write."""
    a = parser().parse_args()
    name, options = text(a)
    data = getattr(datamodules, name)(**options)
    found = playing.sweep(games(a), a.seeds, a)
    told = lines(data)
    known = {title: at for title, at in SCORES.items() if at in told["copying the input"]}
    columns: measures.Columns = {
        title: (lambda r, at=at: measures.last(r, f"metrics/{at}"))  # type: ignore[misc]
        for title, at in known.items()
    }
    best = "harmonic" if a.files else "right"
    columns["harmonic mean, best" if a.files else "right, best"] = lambda r: measures.best(r, f"metrics/{best}")
    columns["ms per update"] = measures.milliseconds
    tables = ["", *measures.table(found, columns)]
    tables[3:3] = [f"| {title} | {' | '.join(f'{row[at]:.3g}' for at in known.values())} |  |  |"
                   for title, row in told.items()]  # fmt: skip
    shown = {"harmonic mean of accuracy and BLEU": "metrics/harmonic"}
    shown |= {"accuracy": "metrics/accuracy"} if a.files else {"right answers": "metrics/right"}
    panels = {title: dict(list(found.items())[1:]) for title in shown}
    figure = figures.curves(panels, shown, "share")
    judged = TransferScores(data).protocol
    held_out = len(data.reference("test")[0])
    protocol = [
        f"the text: {data.source}; {len(data.reference('train')[0]):,} sentences to train on, no pairs, {held_out:,} "
        f"held out, of which {judged['texts']:,} are rewritten; at most {a.length} words, {len(data.vocabulary):,} "
        "symbols"
        if a.files else
        "StyledText: a Markov chain of 6 letters, sentences of 8, the last 2 letters small or capital by the style; "
        "10,000 sentences to train on, no pairs; the first 1,000 held out are rewritten by the likeliest letters",
        f"the start: an autoencoder (GRU, code {a.code}, embedding {a.embedding}), {a.alone} updates of batch 64, Adam "
        f"{a.rate:g}; from there {a.updates} updates each, inverse temperature 1 to 10",
        f"classifier: 2 x {a.filters} filters, {a.classifier} updates, then frozen, weight {a.style:g}; D: 3 x "
        f"{a.filters} filters, Adam 1e-3, weight {a.adversarial:g}, one update per update of G; reweighted: W = "
        "softmax of D, temperature 1",
        "accuracy: by naive Bayes of 1- and 2-grams, another kind of classifier than the one that is trained by, which "
        f"itself is right of {judged['judge_accuracy']:.1%} of the held-out sentences; BLEU-4 to the input"
        + ("; best: the highest of 10 measurements after the first update, by these sentences themselves" if a.files
           else "; right: letter by letter what the sentence is in the other style; right, best: the highest of 10 "
           "measurements after the first update, by these sentences themselves"),
    ]  # fmt: skip
    page.publish(a, "Style transfer between two files" if a.files else "Style transfer on a toy language", found,
                 protocol, tables, figure)  # fmt: skip


if __name__ == "__main__":
    main()
