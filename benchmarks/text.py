"""How long scores and samples of text take: ``python -m benchmarks.text``, some seconds on one core.

BLEU and self-BLEU of sentences of a file, one a line (``--file``, for example 10,000 lines of EMNLP news), or of
made-up ones of 27 words, whose frequencies fall as in a language; samples of a language model of 5,000 words; the
share of a character WGAN-GP's update that making one-hot batches takes.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.overhead import quiet
from lightning_gans import WGANGP
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MarkovText
from lightning_gans.datamodules.text import OneHot, read_text
from lightning_gans.metrics import Bleu, self_bleu
from lightning_gans.networks import CharCritic, CharGenerator, LanguageModel


def seconds(function: Callable[[], Any]) -> float:
    """Of the processor."""
    start = time.process_time()
    function()
    return time.process_time() - start


def sentences(file: str, many: int) -> list[list[str]]:
    """So many, at most, of a file, or made-up ones."""
    if file:
        return [line.split() for line in read_text(file).splitlines()[:many]]
    law = 1 / torch.arange(1.0, 10_001)
    words = torch.multinomial(law, many * 27, replacement=True, generator=torch.Generator().manual_seed(0))
    return [[str(word) for word in row] for row in words.view(many, 27).tolist()]


def one_hot_share(updates: int) -> float:
    """What making a batch takes of an update of the toy language's recipe, six batches each."""
    data = MarkovText(batch_size=64)
    module = WGANGP(CharGenerator(data.shape, 16, 16, 1, 3), CharCritic(data.shape, 16, 1, 3), 16)
    trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator="cpu", devices=1, logger=False,
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with quiet():
        update = seconds(lambda: trainer.fit(module, datamodule=data)) / updates
    tokens, made, own = data.reference("train")[0][:64], OneHot(data.shape[1]), torch.Generator()
    return 6 * seconds(lambda: [made(tokens, own) for _ in range(1000)]) / 1000 / update


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="")
    parser.add_argument("--references", type=int, default=9000)
    parser.add_argument("--samples", type=int, default=1000, help="each scored by BLEU-2 to 5, and as many drawn")
    parser.add_argument("--updates", type=int, default=100)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    found = sentences(options.file, options.references + options.samples)
    references, samples = found[: options.references], found[options.references :]
    tables: list[Bleu] = []
    rows = {
        f"BLEU-5's table of {len(references):,} references": seconds(lambda: tables.append(Bleu(references, 5))),
        f"{4 * len(samples):,} scores by it": seconds(lambda: [tables[0].up_to(sample) for sample in samples]),
        f"self-BLEU of {len(samples):,}": seconds(lambda: self_bleu(samples, 5)),
    }
    model, z = LanguageModel((20, 5000)), torch.randn(len(samples), 20)
    with torch.no_grad():
        model(z[:10])  # the first call prepares
        rows[f"{len(z):,} samples of 20 words of 5,000, LSTM 32"] = seconds(lambda: model(z))
    print("| | CPU seconds |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} |")
    print(f"\nOne-hot batches: {one_hot_share(options.updates):.1%} of an update of the toy language's recipe.")


if __name__ == "__main__":
    main()
