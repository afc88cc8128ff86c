"""How far the character WGAN-GP goes: longer texts, larger alphabets, words.

    python -m experiments.alphabet --out docs/results/alphabet.md
    python -m experiments.alphabet --file shakespeare.txt          # another text

One small network plays for as many updates on texts of each length and alphabet, of the language reference that comes
with Python: letters alone (27), its most frequent characters (65, 104), its most frequent words. n-gram JS to the
training part, beside what held-out texts have (the floor) and independent symbols of the right frequency (the line that
says whether anything of order was learnt), at equal updates and after equal time.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from pathlib import Path
from typing import Any

import torch

from experiments import figures, measures, page, playing
from lightning_gans import datamodules
from lightning_gans.datamodules.text import letters as cleaned
from lightning_gans.metrics import TextScores
from lightning_gans.runs.atomic import write_text

ORDERS, SAMPLES = (1, 2, 3, 4), 640


def reference_lines(letters: bool = False) -> list[str]:
    """The language reference that comes with Python, a topic a line, as it is or its letters, in lower case, alone."""
    topics = importlib.import_module("pydoc_data.topics").topics
    lines = [topics[name] for name in sorted(topics)]
    return [" ".join((cleaned(line) if letters else line).split()) for line in lines]


def corpus(alphabet: str, length: int, a: argparse.Namespace) -> list[Any]:
    """A data module, as a game has it."""
    if alphabet == "27":
        return ["PyDocText", {"length": length, **({"path": a.file} if a.file else {})}]
    words, path = alphabet == "words", Path(a.file or Path(a.runs) / f"reference-{alphabet}.txt")
    if not a.file and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(reference_lines(letters=words)))
    size = a.words if words else int(alphabet)
    return ["TextFile", {"path": str(path), "length": length, "level": "word" if words else "char", "max_vocab": size,
                         "rare": "unknown", "long": "windows"}]  # fmt: skip


def game(alphabet: str, length: int, a: argparse.Namespace) -> playing.Game:
    """The game of a corpus."""
    name, options = corpus(alphabet, length, a)
    net = {"width": a.width, "blocks": a.blocks}
    return {
        "technique": "wgan_gp", "data": name, "data_options": options, "latent_dim": 32, "batch_size": 32,
        "generator": ["CharGenerator", net], "discriminator": ["CharCritic", net], "score": None,
        "options": {"betas": [0.5, 0.9], "lr_g": a.rate, "lr_d": a.rate, "d_steps": a.d_steps},
        "updates": a.updates, "log_every": max(1, a.updates // 10),
        "watch": [["TextMetrics", {"every_n_steps": max(1, a.updates // 5), "num_samples": SAMPLES,
                                   "metrics": ["js", "distinct"]}]],
    }  # fmt: skip


def lines(corpora: dict[str, list[Any]], seeds: list[int]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """JS by corpus of held-out texts (the floor), training texts, and independent symbols; one dict a seed."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for title, (name, options) in corpora.items():
        data = getattr(datamodules, name)(**options)
        training, held_out = (data.reference(split)[0] for split in ("train", "test"))
        scores = TextScores(training, held_out, data.shape[1], ("js",), ORDERS)
        symbols = training.flatten()
        found[title] = {"held out": [], "training": [], "independent": []}
        for seed in seeds:
            own = torch.Generator().manual_seed(seed)
            for line, drawn in (
                ("held out", held_out[torch.randperm(len(held_out), generator=own)[:SAMPLES]]),
                ("training", training[torch.randperm(len(training), generator=own)[:SAMPLES]]),
                ("independent", symbols[torch.randint(len(symbols), (SAMPLES, training.shape[1]), generator=own)]),
            ):
                found[title][line].append(scores(drawn))
    return found


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, updates=800, lengths=[8, 16, 32, 64], alphabets=["27", "65", "104", "words"], words=500, width=32,
        blocks=1, rate=3e-3, d_steps=2, file="",
    )  # fmt: skip
    a = p.parse_args()
    cells = {f"{size}, length {length}": (size, length) for size in a.alphabets for length in a.lengths}
    found = playing.sweep({title: game(*cell, a) for title, cell in cells.items()}, a.seeds, a)
    beside = lines({title: corpus(*cell, a) for title, cell in cells.items()}, a.seeds)
    seconds = min(r["rows"][-1]["seconds"] for results in found.values() for r in results)
    js = [f"metrics/js-{n}" for n in ORDERS]
    head = [*(f"JS_{n}" for n in ORDERS), *(f"learnt, n = {n}" for n in ORDERS[1:]), f"JS_2 after {seconds:.0f} s",
            "learnt, n = 2", "different texts", "ms per update"]  # fmt: skip
    tables = ["", f"| text | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    floors = ["", "| text | line | JS_1 | JS_2 | JS_3 | JS_4 |", "|---|---|---|---|---|---|"]
    for title, results in found.items():
        at = {line: [[row[f"js-{n}"] for row in rows] for n in ORDERS] for line, rows in beside[title].items()}
        alone, floor = ([statistics.fmean(values) for values in at[line]] for line in ("independent", "held out"))
        ends = [[measures.last(r, name) for r in results] for name in js]
        timed = [measures.at_time(r, js[1], seconds) for r in results]
        values = [*ends, *([(alone[i] - v) / (alone[i] - floor[i]) for v in ends[i]] for i in (1, 2, 3)), timed,
                  [(alone[1] - v) / (alone[1] - floor[1]) for v in timed],
                  [len({tuple(text) for text in r["sample"]}) / len(r["sample"]) for r in results],
                  [measures.milliseconds(r) for r in results]]  # fmt: skip
        tables.append(f"| {title} | {' | '.join(map(measures.spread, values))} |")
        floors += [f"| {title} | {line} | {' | '.join(map(measures.spread, rows))} |" for line, rows in at.items()]
    panels = {size: {f"length {n}": found[f"{size}, length {n}"] for n in a.lengths} for size in a.alphabets}
    figure = figures.curves(panels, js[1], "JS of pairs to the training part, bits")
    protocol = [
        "the text: " + (a.file or "the language reference of Python, letters alone (27), as it is with the most "
        "frequent characters, of which two stand for others and padding (65, 104), and the most frequent "
        f"{a.words} words, the others one; its last tenth held out; windows begin at each word"),
        f"networks: width {a.width}, {a.blocks} residual block(s), kernel 5, z of 32, the same for all; batch 32, "
        f"{a.d_steps} critic steps, penalty 10, Adam({a.rate:g}, 0.5, 0.9), {a.updates} updates of G",
        f"JS in bits of the n-grams of {SAMPLES} texts, the likeliest symbols, to those of the training part; held "
        "out: as many held-out texts; training: as many of the training part; independent: as many texts of "
        "independent symbols of the training part's frequencies; last, no choice of the best",
        "learnt: (independent - JS) / (independent - held out): 1 is what held-out texts have, 0 what the right "
        "frequencies alone have, below 0 even these are missing",
        f"after {seconds:.0f} s: on the line between two measurements, in the time of the fastest game; different "
        "texts: share of 100",
    ]  # fmt: skip
    page.publish(a, "Longer texts, larger alphabets, words", found, protocol, [*tables, *floors], figure)


if __name__ == "__main__":
    main()
