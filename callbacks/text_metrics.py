"""Scores of text while it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from lightning_gans import checks
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine.contract import Critic, Latents, Likelihood, Samples, Text, has
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.modes import evaluating
from lightning_gans.metrics.text import TextScores, held_out_nll, scores_of


class TextMetrics(ScoreCallback):
    """Scores the samples of a model of text every n generator updates, against a data module of text.

    ``metrics/js-n`` (n-gram JS to the training part in bits, and ``metrics/js-n/law`` where the law is known),
    ``metrics/distinct-n``, ``metrics/copied-8``, ``metrics/bleu-n`` to the held-out part, ``metrics/self_bleu-n``,
    ``metrics/nll_oracle`` where the data have an oracle, and ``metrics/nll_gen``, the held-out NLL of a model that has
    a density. Both are in nats per token. (``nll_oracle`` alone ranks nothing: a sharper law of fewer texts lowers it.)
    Of a GAN of relaxed texts also ``metrics/sharpness``, the mean of the largest share of a relaxed symbol, 1 for
    one-hot vectors: how far what its discriminator sees is from the text.

    Args:
        every_n_steps: generator updates between two measurements, >= 1.
        num_samples: number of samples; BLEU wants 1,000 or more.
        metrics: some of ``js``, ``distinct``, ``copied``, ``bleu``, ``self_bleu``, ``nll_oracle``, ``nll_gen``; None
            means the first three, and the last two where they can be.
        js: n of the n-gram laws.
        bleu_n: n of BLEU and self-BLEU.
        temperature: of sampling, > 0; None: as the model is. ``nll_gen`` is at 1.
        at_start: measure at step 0 too.
        seed: of the noise.

    Raises:
        TypeError: of a model that makes no text.
        ValueError: for settings out of range, for data that are no text, and for a metric that these cannot have.

    >>> callback = TextMetrics(num_samples=1000, metrics=["js"])  # for pl.Trainer(callbacks=[EMA(), callback])
    >>> callback.history = [{"step": n, "metrics/js-2": js} for n, js in ((0, 0.5), (500, 0.25), (1000, 0.375))]
    >>> callback.best("js-2")  # as after a training
    {'step': 500, 'metrics/js-2': 0.25}
    """

    needs = Text
    higher_is_better = ("bleu", "distinct")  # of whatever n
    in_progress_bar = ("js-2", "nll_gen")
    label = "text"

    def __init__(
        self,
        every_n_steps: int = 500,
        num_samples: int = 640,
        metrics: Sequence[str] | None = None,
        js: Sequence[int] = (1, 2, 3, 4),
        bleu_n: Sequence[int] = (2, 3, 4, 5),
        temperature: float | None = None,
        at_start: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps, at_start, seed)
        checks.at_least(2, num_samples=num_samples)
        checks.positive(**checks.given(temperature=temperature))
        self.num_samples, self.metrics, self.temperature = num_samples, metrics, temperature
        self.options: dict[str, Any] = {"js": js, "bleu_n": bleu_n}
        self.scores: TextScores | None = None

    def check(self, trainer: pl.Trainer, pl_module: Samples) -> None:
        """Data must be text, and what is asked for must be there."""
        data = datamodule_of(trainer)
        if getattr(data, "vocabulary", None) is None:
            raise ValueError(f"TextMetrics needs a datamodule of text, got {type(data).__name__}.")
        density = has(pl_module, Likelihood)
        asked = self.metrics
        if asked is None:
            asked = ["js", "distinct", "copied", *["nll_oracle"] * hasattr(data, "oracle"), *["nll_gen"] * density]
        if "nll_gen" in asked and not density:
            raise ValueError(f"metrics must be without 'nll_gen' for {type(pl_module).__name__}, which has no density.")
        self.nll_gen = "nll_gen" in asked
        self.scores = scores_of(data, [metric for metric in asked if metric != "nll_gen"], **self.options)

    def will_measure(self, trainer: pl.Trainer, pl_module: Samples) -> list[str]:
        """Of the data; sharpness is of some GANs."""
        self.check(trainer, pl_module)
        assert self.scores is not None
        shown = has(pl_module, Critic) and has(pl_module, Latents)
        return [f"metrics/{n}" for n in (*self.scores.names, *["sharpness"] * shown, *["nll_gen"] * self.nll_gen)]

    def measure(self, trainer: pl.Trainer, pl_module: Samples) -> dict[str, float]:
        """The same on every rank."""
        assert self.scores is not None
        own, found = torch.Generator().manual_seed(self.seed), {}
        sizes = [min(500, self.num_samples - done) for done in range(0, self.num_samples, 500)]
        samples = torch.cat([pl_module.sample(n, None, own, temperature=self.temperature).cpu() for n in sizes])
        found = self.scores(samples)
        if has(pl_module, Critic) and has(pl_module, Latents):
            latents = cast(Latents, pl_module).latents(min(64, self.num_samples), seed=self.seed)
            with torch.no_grad(), evaluating(network := pl_module.network):
                shown = conditional_call(network, *latents)
            if shown.is_floating_point():  # else its discriminator sees the text itself
                found["sharpness"] = float(shown.float().amax(-1).mean())
        if self.nll_gen:
            found["nll_gen"] = held_out_nll(pl_module, self.scores.held_out)
        self.protocol = {
            **self.scores.protocol, "samples": self.num_samples, "temperature": self.temperature or "as the model is",
            "seed": self.seed, "weights": "raw" if pl_module.ema is None else "ema",
            "network_calls": pl_module.network_calls,
        }  # fmt: skip
        return {f"metrics/{name}": value for name, value in found.items()}
