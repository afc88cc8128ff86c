"""Texts, whoever wrote them, against a corpus; a model of text as a curve over temperatures; texts rewritten."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.datamodules.text import TextDataModule, lines_of, md5
from lightning_gans.engine.contract import Likelihood, Rewrites, Text, has, require
from lightning_gans.metrics.text import held_out_nll, scores_of

TEMPERATURES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)


def score_text(
    samples: str | Path | Sequence[str], data: TextDataModule, metrics: Sequence[str] = ("js", "distinct", "copied")
) -> dict[str, Any]:
    """Scores of texts against a data module of text, by the same code as ``TextMetrics`` uses in training.

    Args:
        samples: a UTF-8 file, a text a line, empty ones too, or texts. Each is cut to the data's length; for
            `PyDocText`, which has no lines, the whole is cleaned as it is and cut into windows, unless all are such.
        data: the corpus.
        metrics: some of ``metrics.TEXT_METRICS``.

    Returns:
        ``scores`` by name, and their ``protocol``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: for fewer than two texts, and for texts that are not made of the data's symbols.

    >>> from lightning_gans.datamodules import MarkovText
    >>> found = score_text(["abcdefab", "defabcde"], MarkovText(), metrics=["distinct"])
    >>> found["scores"]["distinct-1"], found["protocol"]["samples"]
    (0.375, 2)
    """
    given = lines_of(samples, blank=True) if isinstance(samples, (str, Path)) else list(samples)
    if len(given) < 2:
        raise ValueError(f"samples must hold at least 2 texts, got {len(given)}.")
    data.prepare_data()
    data.setup("test")
    rows = []
    for i, text in enumerate(data.samples_of(given)):
        try:
            rows.append(data.vocabulary.encode(text, data.shape[0]))
        except ValueError as error:
            raise ValueError(f"samples, text {i + 1}: {error}") from error
    scores = scores_of(data, metrics)
    found = scores(torch.tensor(rows))
    protocol = {
        **scores.protocol, "lines": len(given), "samples": len(rows), "samples_md5": md5("\n".join(given)),
    }  # fmt: skip
    return {"scores": found, "protocol": protocol}


def rewrite(lines: Sequence[str], model: Any, style: int) -> list[str]:
    """Texts in another style, by a model that was trained to rewrite them; symbols that it does not know stay unknown.

    Args:
        lines: texts, of at most the model's length.
        model: as `StyleTransfer`, which tells its vocabulary.
        style: which, 0 or 1.

    Raises:
        TypeError: for a model that rewrites nothing.
        ValueError: for another style, no text, a model that does not tell its vocabulary, and texts that are too long.
    """
    require(model, Rewrites, "rewrite")
    checks.each({"style": style}, "0 or 1", lambda s: s in (0, 1))
    if not lines:
        raise ValueError("lines must hold a text, got none.")
    if model.vocabulary is None:
        raise ValueError("model must tell its vocabulary, got one that was not trained on a data module of text.")
    rows = []
    for i, line in enumerate(lines):
        try:
            rows.append(model.vocabulary.encode(line, model.generator.length))
        except ValueError as error:
            raise ValueError(f"samples, text {i + 1}: {error}") from error
    tokens = torch.tensor(rows)
    made = [model.transfer(part, torch.full((len(part),), style)).cpu() for part in tokens.split(500)]
    return model.vocabulary.decode(torch.cat(made))


def temperature_sweep(
    model: Any,
    data: TextDataModule,
    temperatures: Sequence[float] = TEMPERATURES,
    samples: int = 1000,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of a model of text at each temperature of sampling, of the same noise: its curve, in place of a point.

    Args:
        model: that makes text.
        data: what it was trained on.
        temperatures: each > 0.
        samples: at each.
        metrics: some of ``metrics.TEXT_METRICS``; None means ``distinct``, and ``nll_oracle`` if the data have an
            oracle, else ``js``.
        seed: of the noise.

    Returns:
        ``curve``, a dict by name for each temperature; a model that has a density also ``nll_gen`` of the held-out part
        at that temperature. And the ``protocol``.

    Raises:
        TypeError: for a model that makes no text.
        ValueError: for settings out of range.
    """
    require(model, Text, "temperature_sweep")
    checks.at_least(2, samples=samples)
    if not temperatures:
        raise ValueError("temperatures must hold a number > 0, got none.")
    for temperature in temperatures:
        checks.positive(temperature=temperature)
    data.prepare_data()
    data.setup("test")
    if model.vocabulary is not None:
        model.vocabulary.require(data.vocabulary, "data")
    checks.only("The number of the data's symbols", len(data.vocabulary), model.vocabulary_size, "as the model has")
    scores, curve = scores_of(data, _metrics(data, metrics)), []
    for temperature in temperatures:
        own = torch.Generator().manual_seed(seed)
        sizes = [min(500, samples - done) for done in range(0, samples, 500)]
        made: Tensor = torch.cat([model.sample(n, None, own, temperature=temperature).cpu() for n in sizes])
        point = {"temperature": float(temperature), **scores(made)}
        if has(model, Likelihood):
            point["nll_gen"] = held_out_nll(model, scores.held_out, temperature)
        curve.append(point)
    protocol = {
        **scores.protocol, "samples": samples, "seed": seed, "weights": "raw" if model.ema is None else "ema",
    }  # fmt: skip
    return {"curve": curve, "protocol": protocol}


def landmarks(
    data: TextDataModule, samples: int = 1000, metrics: Sequence[str] | None = None, seed: int = 0
) -> dict[str, dict[str, float]]:
    """What a curve of `temperature_sweep` is read beside: scores of as many real texts, and of symbols without order.

    Args:
        data: what the models were trained on.
        samples: as of the sweep: n-gram laws of fewer texts are further from any.
        metrics: as of the sweep.
        seed: of what is drawn.

    Returns:
        scores by name of "held-out text", drawn without repetition (left out where fewer are held out; BLEU's
        references are the other held-out texts, and where there are none it is left out), and of "independent symbols"
        with the frequencies of the training part, whose ``nll_gen`` is there too unless the held-out part has a symbol
        that the training part lacks.

    Raises:
        ValueError: for settings out of range.

    >>> from lightning_gans.datamodules import MarkovText
    >>> found = landmarks(MarkovText(), samples=500, metrics=["js"])
    >>> found["held-out text"]["js-2"] < 0.01 < 0.3 < found["independent symbols"]["js-2"]
    True
    """
    checks.at_least(2, samples=samples)
    data.prepare_data()
    data.setup("test")
    scores, own = scores_of(data, _metrics(data, metrics)), torch.Generator().manual_seed(seed)
    counts = scores.training.flatten().bincount(minlength=scores.size).double()
    letters = torch.multinomial(counts, samples * data.shape[0], replacement=True, generator=own)
    nll = -(counts / counts.sum()).log()[scores.held_out].mean()
    found = {"independent symbols": scores(letters.view(samples, -1))}
    if nll.isfinite():
        found["independent symbols"]["nll_gen"] = float(nll)
    if len(scores.held_out) < samples:
        return found
    drawn, others = scores.held_out[torch.randperm(len(scores.held_out), generator=own)].tensor_split([samples])
    among = copy.copy(scores)  # a text that is among its own references has a BLEU of 1
    among.held_out, among.table = others, None
    among.metrics = tuple(name for name in scores.metrics if name != "bleu" or len(others))
    return {"held-out text": among(drawn), **found}


def _metrics(data: TextDataModule, metrics: Sequence[str] | None) -> Sequence[str]:
    return ["distinct", "nll_oracle" if hasattr(data, "oracle") else "js"] if metrics is None else metrics
