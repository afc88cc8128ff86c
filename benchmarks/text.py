"""How long scores and samples of text take: ``python -m benchmarks.text``, some seconds on one core.

BLEU and self-BLEU of sentences of a file, one a line (``--file``, for example 10,000 lines of EMNLP news), or of
made-up ones of 27 words, whose frequencies fall as in a language; samples of a language model of 5,000 words; the
share of an update that making one-hot batches takes, of a character WGAN-GP's on the toy language of 6 letters and of
RelGAN's on SeqGAN's oracle of 5,000 words, both with small networks, beside which the batches weigh most.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import quiet
from lightning_gans import GAN, WGANGP, RelGAN
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MarkovText, OracleText
from lightning_gans.datamodules.text import OneHot, TextDataModule, read_text
from lightning_gans.metrics import Bleu, self_bleu
from lightning_gans.networks import CharCritic, CharGenerator, LanguageModel, LSTMGenerator, RelGANDiscriminator


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


def characters() -> tuple[GAN, TextDataModule]:
    """The toy language's recipe."""
    data = MarkovText(batch_size=64)
    return WGANGP(CharGenerator(data.shape, 16, 16, 1, 3), CharCritic(data.shape, 16, 1, 3), 16), data


def words(many: int) -> tuple[GAN, TextDataModule]:
    """The oracle's recipe of RelGAN, with so many words."""
    data = OracleText(many, items=640, batch_size=64)
    critic = RelGANDiscriminator(data.shape, embedding=32, representations=8, filters=32)
    return RelGAN(LSTMGenerator(data.shape, 32, 32), critic, data.shape[0] * many), data


def one_hot_share(module: GAN, data: TextDataModule, updates: int) -> tuple[float, float]:
    """Seconds of an update, and the share of it that making its batches takes."""
    trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator="cpu", devices=1, logger=False,
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    tokens, made, own = data.reference("train")[0][:64], OneHot(data.shape[1]), torch.Generator()
    with quiet():
        update = seconds(lambda: trainer.fit(module, datamodule=data)) / updates
    times = max(20, 3_000_000 // made(tokens, own).numel())
    batch = seconds(lambda: [made(tokens, own) for _ in range(times)]) / times
    return update, module.batches_needed()[0] * batch / update


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="")
    parser.add_argument("--references", type=int, default=9000)
    parser.add_argument("--samples", type=int, default=1000, help="each scored by BLEU-2 to 5, and as many drawn")
    parser.add_argument("--words", type=int, default=5000, help="of the language models")
    parser.add_argument("--updates", type=int, default=100, help="of WGAN-GP, and a tenth as many of RelGAN")
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
    many = options.words
    model, z = LanguageModel((20, many)), torch.randn(len(samples), 20)
    with torch.no_grad():
        model(z[:10])  # the first call prepares
        rows[f"{len(z):,} samples of 20 words of {many:,}, LSTM 32"] = seconds(lambda: model(z))
    print("| | CPU seconds |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} |")
    print("\n| update | CPU ms | of which one-hot batches |\n|---|---|---|")
    for name, game, updates in (
        ("WGAN-GP, 6 letters", characters(), options.updates),
        (f"RelGAN, {many:,} words", words(many), max(2, options.updates // 10)),
    ):
        update, share = one_hot_share(*game, updates)
        print(f"| {name} | {1000 * update:.1f} | {share:.2%} |")


if __name__ == "__main__":
    main()
