"""Text GANs on sentences: BLEU against self-BLEU as curves over temperature, beside what real sentences have.

    python -m experiments.captions --out docs/results/captions.md
    python -m experiments.captions --file captions.txt --vocabulary 5000      # any file, a sentence a line

The systems of `experiments.oracle`, from one language model a seed, on words. BLEU is against the held-out sentences,
self-BLEU of the samples against one another; the point of real sentences is that of as many training ones. The file's
last tenth is held out: of 10,000 lines 9,000 are trained on. By default the sentences are those of the language
reference that comes with Python.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from experiments import figures, measures, oracle, page, playing
from experiments.alphabet import reference_lines
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import TextFile
from lightning_gans.functional.modes import evaluating
from lightning_gans.metrics import TextScores
from lightning_gans.metrics.text import scores_of
from lightning_gans.runs.atomic import write_text
from lightning_gans.visualization.images import figure_image, new_figure

NS = (2, 3, 4, 5)
METRICS = ("bleu", "self_bleu", "copied")
SYSTEMS = ("maximum likelihood", "RelGAN", "WGAN-GP", "PRC-GAN, both", "SeqGAN", "LeakGAN")


class Curves(pl.Callback):
    """Scores a language model at each temperature when its training is over, with the same noise at all.

    Args:
        samples: texts.
        temperatures: of sampling.
    """

    def __init__(self, samples: int, temperatures: list[float]) -> None:
        self.samples, self.temperatures, self.kept = samples, temperatures, dict[str, Any]()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Now."""
        net, scores = pl_module.generator, scores_of(trainer.datamodule, METRICS)
        length = getattr(net, "latent_dim", net.length)
        z, self.kept["last"] = torch.randn(self.samples, length, generator=torch.Generator().manual_seed(2)), []
        with torch.no_grad(), evaluating(net):
            for t in self.temperatures:
                tokens = torch.cat([net.generate(part, t) for part in z.split(250)])
                nll = torch.cat([net.nll(part, t) for part in scores.held_out.split(250)]).mean()
                self.kept["last"].append({"temperature": t, "nll_gen": float(nll), **scores(tokens)})


def sentences() -> list[str]:
    """Those of the language reference, of 5 to 20 words, in lower case, each once."""
    text = "\n".join(reference_lines())
    words = (re.sub("[^a-z]+", " ", s.lower()).split() for s in re.split(r"(?<=[.!?:])\s", text))
    return list(dict.fromkeys(" ".join(w) for w in words if 5 <= len(w) <= 20))


def corpus(a: argparse.Namespace) -> dict[str, Any]:
    """Options of the ``TextFile``."""
    path = Path(a.file or Path(a.runs) / "reference-sentences.txt")
    if not a.file:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(sentences()))
    return {"path": str(path), "length": a.length, "level": "word", "max_vocab": a.vocabulary, "rare": "unknown",
            "long": "truncate"}  # fmt: skip


def on(game: playing.Game, options: dict[str, Any], watch: list[Any]) -> playing.Game:
    """A game of the oracle on other data."""
    own = {**options, "one_hot": game["data_options"]["one_hot"]}
    made = {**game, "data": "TextFile", "data_options": own, "watch": watch if game["watch"] else []}
    return made | ({"start": on(game["start"], options, watch)} if "start" in game else {})


def planes(found: dict[str, list[playing.Result]], real: dict[str, float]) -> Image.Image:
    """A curve of each system, mean over seeds, and the point of real sentences; one panel for each of two n."""
    figure = new_figure(11.0, 4.8)
    for axes, n in zip(figure.subplots(1, 2), (3, 5)):
        for colour, (name, results) in zip(figures.COLOURS[::-1], found.items()):
            curves = [r["kept"]["Curves"]["last"] for r in results]
            x, y = ([statistics.fmean(p[f"{k}-{n}"] for p in at) for at in zip(*curves)] for k in ("self_bleu", "bleu"))
            wide = 2.4 if name.endswith("the start") else 1.2
            axes.plot(x, y, "-o", color=colour, markersize=3, linewidth=wide, label=name)
        axes.plot([real[f"self_bleu-{n}"]], [real[f"bleu-{n}"]], "*", color="black", markersize=11, label="real text")
        figures.tidy(axes, f"n = {n}; cold sampling is right", f"self-BLEU-{n}", f"BLEU-{n}")
    axes.legend(frameon=False, fontsize=7.5)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, updates=60, mle=500, before=20, vocabulary=1000, length=20, samples=500, filters=32, rollouts=2,
        d_steps=5, rate=3e-3, rel_rate=1e-3, leak=0, temperatures=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2], file="",
    )  # fmt: skip
    a = p.parse_args()
    options = corpus(a)
    data = TextFile(**options)
    training = data.reference("train")[0]
    a.items, a.vocabulary = len(training), data.shape[1]
    watch = [["experiments.captions.Curves", {"samples": a.samples, "temperatures": a.temperatures}]]
    chosen = {
        name: game for name, game in oracle.games(a).items() if name.startswith(SYSTEMS) and not name.endswith("sharp")
    }
    games = {name: on(game, options, watch) for name, game in chosen.items()}
    found = playing.sweep(games, a.seeds, a)
    scores = scores_of(data, METRICS)
    own = torch.Generator().manual_seed(0)
    real = scores(training[torch.randperm(len(training), generator=own)[: a.samples]])
    other = TextScores(scores.held_out, training, a.vocabulary, ("bleu",), pad=scores.pad)(scores.held_out[: a.samples])
    starts = {oracle.own_start(r): r["kept"]["Curves"]["last"]
              for name, results in found.items() if name.endswith("the start") for r in results}  # fmt: skip
    names = [*(f"bleu-{n}" for n in NS), *(f"self_bleu-{n}" for n in NS)]
    shown = {name: name.replace("_", "-").replace("bleu", "BLEU") for name in names}
    columns: measures.Columns = {shown[name]: oracle.at_one("last", name) for name in names}
    columns |= {
        "NLL_gen": oracle.at_one("last", "nll_gen"),
        **{f"BLEU-{n} above the start": oracle.above("last", starts, f"self_bleu-{n}", f"bleu-{n}") for n in (3, 5)},
        "8-grams copied": oracle.at_one("last", "copied-8"),
        "ms per update": measures.milliseconds,
    }
    tables = ["", *measures.table(found, columns, "system, temperature 1")]
    cells = [*(f"{real[name]:.3g}" for name in names), "", "", "", f"{real['copied-8']:.3g}", ""]
    tables.insert(3, f"| real sentences | {' | '.join(cells)} |")
    cells = [f"{other[name]:.3g}" if name in other else "" for name in [*names, *[""] * 5]]
    tables.insert(4, f"| real sentences, held out, against the training part | {' | '.join(cells)} |")
    tables += ["", f"| one language model, temperature | {' | '.join(shown.values())} |", "|---" * 9 + "|"]
    for i, t in enumerate(a.temperatures):
        at = [r["kept"]["Curves"]["last"][i] for r in next(iter(found.values()))]
        tables.append(f"| {t:g} | {' | '.join(measures.spread(point[name] for point in at) for name in names)} |")
    unknown = float((training == data.vocabulary.unknown).sum() / (training != data.vocabulary.pad).sum())
    protocol = [
        f"the text: {data.source if a.file else 'sentences of 5 to 20 words of the language reference of Python'}; "
        f"{a.items:,} to train on, {len(scores.held_out):,} held out (the last tenth), at most {a.length} words, "
        f"{a.vocabulary:,} symbols, {unknown:.0%} of the words unknown ones",
        f"the start: LSTM 32/32, {a.mle} updates by maximum likelihood (batch 64, Adam 1e-2), the same for all systems "
        f"of a seed; from there {a.updates} generator updates each; the rest as on the page of the oracle: "
        f"{a.rollouts} rollouts, {a.d_steps} updates of D (2 x {a.filters} filters) per update of G, before that "
        f"{a.before * a.d_steps} of D alone; RelGAN with 8 representations, Adam {a.rel_rate:g}",
        oracle.prc_told(a),
        *([oracle.leak_told(a)] if a.leak else []),
        f"scores of {a.samples:,} texts, the same noise at all temperatures; BLEU: nltk's method 1, mean over texts, "
        "all held-out sentences as references; self-BLEU: each text against the others, itself left out; words parted "
        "by blanks; real sentences: as many of the training part; or held-out ones, with all of the training part as "
        "references, as many as published numbers have; last, no choice of the best",
        "above the start: BLEU of a curve's points minus that of the start's curve at equal self-BLEU, mean over the "
        "points that it reaches; above 0 is better than a temperature",
    ]
    page.publish(a, "Text GANs on sentences", found, protocol, tables, planes(found, real))


if __name__ == "__main__":
    main()
