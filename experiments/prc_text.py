"""PRC-GAN on text: none, reweighting, ratio clipping, both, after a language model, on a language whose law is known.

    python -m experiments.prc_text --out docs/results/prc-text.md

A Markov chain of six letters. A small LSTM learns it by maximum likelihood for a few updates; from there it goes on as
the generator of PRC-GAN, with each setting of its two switches, old and new texts of a ratio by the same Gumbel noise.
Beside them: where all begin, the language model that goes on learning for as many updates, and the data themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from experiments import figures, measures, page, playing
from experiments.reweight_and_clip import SWITCHES
from lightning_gans import MLE, PRCGAN
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MarkovText
from lightning_gans.metrics import TextScores, jensen_shannon

JS, BLEU = "metrics/js-2/law", "metrics/self_bleu-6"
SCORES = {"metrics": ["js", "self_bleu"], "bleu_n": [6], "num_samples": 1000}


def begun(generator: Any, discriminator: nn.Module, latent_dim: int, *, mle: int, **options: Any) -> PRCGAN:
    """PRC-GAN whose generator has learnt by maximum likelihood, for ``mle`` updates, with all seeds of one text."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trainer = pl.Trainer(
            max_steps=mle, max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", devices=1,
        )  # fmt: skip
        trainer.fit(MLE(generator), datamodule=MarkovText(one_hot=False))
    return PRCGAN(generator, discriminator, latent_dim, **options)


def game(switches: dict[str, Any], arguments: Any, mle: int, updates: int) -> playing.Game:
    """A game of RelGAN's discriminator and an LSTM, small."""
    rates = {f"lr_{player}": arguments.rate for player in "gdc"}
    clips = {f"clip_grad_{player}": 5.0 for player in "gdc"}
    critic = ["RelGANDiscriminator", {"embedding": 16, "representations": 4, "filters": arguments.filters,
                                      "kernels": [2, 3, 4], "hidden": 16, "dropout": 0.0}]  # fmt: skip
    beta = {"beta": [arguments.beta, 5 * arguments.beta], "schedule_steps": max(1, arguments.updates)}
    return {
        "technique": "experiments.prc_text.begun", "data": "MarkovText", "latent_dim": 48, "batch_size": 64,
        "generator": ["LSTMGenerator", {"embedding": 16, "hidden": 32, **beta}], "discriminator": critic,
        **({"classifier": critic} if switches["ratio_clip"] else {}),
        "options": {**switches, **rates, **clips, "mle": mle, "ct_weight": 0.0, "g_steps": 1,
                    "d_steps": arguments.d_steps, "betas": [0.5, 0.9]},
        "updates": updates, "every": max(1, updates // 10), "log_every": 10, "score": SCORES,
    }  # fmt: skip


def first(result: playing.Result, name: str) -> float:
    """What was measured before the first update."""
    return measures.series(result, name)[0][1]


def of_data(seeds: list[int]) -> list[str]:
    """The row of the data themselves, as many texts as were scored."""
    data, found = MarkovText(), []
    scores = TextScores(*(data.reference(split)[0] for split in ("train", "test")), 6, ("js", "self_bleu"),
                        bleu_n=(6,), law=data.law)  # fmt: skip
    for seed in seeds:
        found.append(scores(data.sample_exact(SCORES["num_samples"], torch.Generator().manual_seed(seed))))
    cells = [measures.spread(row[name.removeprefix("metrics/")] for row in found) for name in (JS, JS, JS, BLEU)]
    return [f"| the data | {' | '.join(cells)} | 1 |  |  |  |  |"]


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, updates=200, mle=5, rate=2e-3, beta=1.0, d_steps=3, filters=32)
    arguments = p.parse_args()
    games = {name: game(s, arguments, arguments.mle, arguments.updates) for name, s in SWITCHES.items()}
    longer = game(SWITCHES["none"], arguments, arguments.mle + arguments.updates, 1)
    found = playing.sweep({**games, "language model": longer}, arguments.seeds, arguments)
    model = found.pop("language model")
    columns: measures.Columns = {
        "JS_2 to the law, last": lambda r: measures.last(r, JS),
        "best": lambda r: measures.best(r, JS),
        "worst": lambda r: max(value for _, value in measures.series(r, JS)),
        "self-BLEU-6": lambda r: measures.last(r, BLEU),
        "sharpness": lambda r: measures.last(r, "metrics/sharpness"),
        "effective share": lambda r: measures.late_mean(r, "d/effective_share"),
        "clipped": lambda r: measures.late_mean(r, "g/clipped"),
        "accuracy of C": lambda r: measures.late_mean(r, "c/accuracy"),
        "ms per update": measures.milliseconds,
    }
    before: measures.Columns = {
        name: (lambda r, at=at: first(r, at) if at else float("nan"))  # type: ignore[misc]
        for name, at in zip(columns, (JS, JS, JS, BLEU, "", "", "", "", ""))
    }
    lines = {f"language model, {arguments.mle} updates: the start": found["none"],
             f"language model, {arguments.mle + arguments.updates} updates": model}  # fmt: skip
    tables = measures.table(found, columns, "game")
    starts = [row.replace("none", "") for row in measures.table(lines, before, "game")[2:]]
    tables = ["", *tables[:2], *of_data(arguments.seeds), *starts, *tables[2:]]
    figure = figures.stack(
        figures.curves({"JS of pairs to the law": found}, JS, "bits", log=True),
        figures.curves({"self-BLEU-6": found}, BLEU, "self-BLEU-6"),
    )
    letters = MarkovText().law(1)
    independent = float(jensen_shannon((letters[:, None] * letters).flatten(), MarkovText().law(2)))
    protocol = [
        "a Markov chain of 6 letters, texts of 8; JS in bits between the pairs of 1,000 texts and the known law; "
        f"independent letters of the right frequency have {independent:.3f}",
        f"the language model: LSTM 16/32, {arguments.mle} updates by maximum likelihood (batch 64, Adam 1e-2), the "
        "same start for all four games of a seed",
        f"then {arguments.updates} generator updates, each after {arguments.d_steps} of the critic; Wasserstein, "
        f"gradient penalty 5, no consistency term; Adam(0.5, 0.9), {arguments.rate:g} for all, clipped at 5",
        f"inverse temperature {arguments.beta:g} to {5 * arguments.beta:g}; discriminator and classifier of 4 "
        f"representations, 3 x {arguments.filters} filters; eps 0.4, temperature 1, the surrogate of the code",
        "best: the lowest of the 10 measurements after the first update; worst: the highest, with that before it; both "
        "by the law itself; accuracy of C: with which it tells relaxed texts from one-hot ones, like shares, over the "
        "second half of a game; sharpness: mean of the largest share of a relaxed letter; self-BLEU-6 of "
        f"{SCORES['num_samples']:,} texts against one another, each itself left out",
    ]
    page.publish(arguments, "PRC-GAN on text", {**found, "language model": model}, protocol, tables, figure)


if __name__ == "__main__":
    main()
