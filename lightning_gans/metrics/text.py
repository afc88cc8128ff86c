"""Scores of text, as sequences of tokens: n-gram laws, BLEU, diversity, copies."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.text import as_read, check_tokens, sentences

Sentence = Sequence[Any]  # symbols, or their tokens
_MOST = 2**62


def ngrams(corpora: Sequence[Tensor], n: int, size: int) -> list[Tensor]:
    """The n-grams of each corpus (N, T) int64 as numbers (N, T - n + 1) int64, equal where the n-grams are.

    Numbers are in the base of ``size``, the first symbol the slowest, as long as that can be; else any.

    >>> ngrams([torch.tensor([[1, 0, 1]])], 2, 2)[0].tolist()
    [[2, 1]]
    """
    checks.at_least_one(n=n)
    for tokens in corpora:
        check_tokens(tokens, size)
        if tokens.shape[1] < n:
            raise ValueError(f"n must be at most the length of the sequences, {tokens.shape[1]}, got {n}.")
    made, base = [tokens[:, : tokens.shape[1] - n + 1] for tokens in corpora], size
    for i in range(1, n):
        if base * size > _MOST:  # number those anew that there are
            known, places = torch.unique(torch.cat([m.flatten() for m in made]), return_inverse=True)
            parts, base = places.split([m.numel() for m in made]), len(known)
            made = [part.view(m.shape) for part, m in zip(parts, made)]
        made = [m * size + tokens[:, i : tokens.shape[1] - n + 1 + i] for m, tokens in zip(made, corpora)]
        base *= size
    return made


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    r"""Of two laws (K,), in bits, so in [0, 1].

    .. math:: JS = \tfrac12 KL(p \| m) + \tfrac12 KL(q \| m), \qquad m = (p + q) / 2

    >>> jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    1.0
    """
    p, q = p.double(), q.double()
    m = ((p + q) / 2).log2()
    return sum(torch.where(x > 0, x * (x.log2() - m), 0.0).sum() for x in (p, q)) / 2  # type: ignore[return-value]


def ngram_js(samples: Tensor, reference: Tensor, n: int, size: int) -> float:
    """JS in bits between the n-grams of two corpora (N, T) of ``size`` symbols, as WGAN-GP's code has it.

    >>> x = torch.tensor([[0, 1, 0, 1]])
    >>> ngram_js(x, x, 2, 2), ngram_js(x, 1 - x, 1, 2), round(ngram_js(x, torch.zeros_like(x), 1, 2), 3)
    (0.0, 0.0, 0.311)
    """
    made = [m.flatten() for m in ngrams((samples, reference), n, size)]
    known, places = torch.unique(torch.cat(made), return_inverse=True)
    counts = [part.bincount(minlength=len(known)) for part in places.split([len(m) for m in made])]
    return float(jensen_shannon(*(c.double() / c.sum() for c in counts)))


def ngram_js_to_law(samples: Tensor, law: Callable[[int], Tensor], n: int, size: int) -> float:
    """The same to a law that is known, ``law(n)`` (size^n,), the first symbol the slowest: without a corpus' noise.

    >>> ngram_js_to_law(torch.tensor([[0, 1]]), lambda n: torch.full((2**n,), 0.5**n), 1, 2)
    0.0
    """
    counts = ngrams((samples,), n, size)[0].flatten().bincount(minlength=size**n)
    return float(jensen_shannon(counts.double() / counts.sum(), law(n)))


def distinct(samples: Tensor, n: int, size: int, pad: int | None = None) -> float:
    """Different n-grams of samples (N, T), over all of theirs; those with padding, or behind it, are left out.

    >>> distinct(torch.tensor([[0, 0, 0, 1]]), 2, 2)
    0.6666666666666666
    """
    (kept,) = _whole((samples,), n, size, pad)
    return len(kept.unique()) / max(1, len(kept))


def copied(samples: Tensor, training: Tensor, n: int, size: int, pad: int | None = None) -> float:
    """Share of the samples' n-grams that stand in the training sequences too; without padding and what is behind it.

    >>> copied(torch.tensor([[0, 0, 1]]), torch.tensor([[1, 0, 1, 1]]), 2, 2)
    0.5
    """
    ours, theirs = _whole((samples, training), n, size, pad)
    return float(torch.isin(ours, theirs).double().mean()) if len(ours) else 0.0


def _whole(corpora: Sequence[Tensor], n: int, size: int, pad: int | None) -> list[Tensor]:
    made = ngrams(corpora := [as_read(tokens, pad) for tokens in corpora], n, size)
    if pad is None:
        return [m.flatten() for m in made]
    return [m[(tokens != pad).unfold(1, n, 1).all(-1)] for m, tokens in zip(made, corpora)]


class Bleu:
    r"""BLEU-n of sentences against many references, as published: that of ``nltk`` with its smoothing method 1.

    .. math:: \exp\Big(\min(0, 1 - r / h) + \frac1n \sum_{k=1}^n \ln p_k\Big)

    p_k is the share of the sentence's k-grams that a reference has (counted as often as the one that has most), .1 in
    place of a count of 0; h is the sentence's length, r the nearest of the references' (of two the shorter). It is 0
    without a common symbol. The table of counts is built once, for all sentences.

    Args:
        references: sentences, lists of symbols.
        n: the longest n-grams.

    Raises:
        ValueError: without references.

    >>> bleu = Bleu([["a", "b", "c"], ["a", "d"]], 2)
    >>> bleu(["a", "b"]), bleu(["x", "y"]), round(bleu(["b", "a"]), 4)
    (1.0, 0.0, 0.3162)
    """

    def __init__(self, references: Sequence[Sentence], n: int = 5) -> None:
        checks.at_least_one(n=n)
        if not references:
            raise ValueError("references must hold a sentence, got none.")
        self.n, self.lengths = n, Counter(len(reference) for reference in references)
        self.first, self.second = _two_largest(references, n)

    def __call__(self, sentence: Sentence) -> float:
        """BLEU-n."""
        return self.up_to(sentence)[-1]

    def up_to(self, sentence: Sentence, own: bool = False) -> list[float]:
        """BLEU-1 to BLEU-n of a sentence; ``own``: it is one of the references, which is left out."""
        length, result, logs = len(sentence), [], []
        for k in range(1, self.n + 1):
            matches = 0
            for gram, count in _counts(sentence, k).items():
                most = self.first.get(gram, 0)
                if own and count == most:
                    most = self.second.get(gram, 0)
                matches += min(count, most)
            if k == 1 and matches == 0:
                return [0.0] * self.n
            logs.append(math.log((matches or 0.1) / max(1, length - k + 1)))
            weight = 1 / k
            result.append(self._brevity(length, own) * math.exp(math.fsum(weight * log for log in logs)))
        return result

    def _brevity(self, length: int, own: bool) -> float:
        lengths = [r for r, count in self.lengths.items() if count > (own and r == length)]
        nearest = min(lengths, key=lambda r: (abs(r - length), r))
        return 1.0 if length > nearest else math.exp(1 - nearest / length)


def _two_largest(references: Sequence[Sentence], n: int) -> tuple[dict[Any, int], dict[Any, int]]:
    """The largest count of each n-gram in a reference, and the one behind it, where that is another."""
    first: dict[Any, int] = {}
    second: dict[Any, int] = {}
    counted = (_counts(reference, k).items() for reference in references for k in range(1, n + 1))
    for gram, count in chain.from_iterable(counted):
        most = first.get(gram, 0)
        if count > most:
            first[gram] = count
            if most:
                second[gram] = most
        elif count > second.get(gram, 0):
            second[gram] = count
    return first, second


def _counts(sentence: Sentence, k: int) -> Counter[tuple[Any, ...]]:
    return Counter(zip(*(sentence[i:] for i in range(k))))


def bleu(samples: Sequence[Sentence], references: Sequence[Sentence], n: int = 5) -> dict[int, float]:
    """Mean BLEU-1 to BLEU-n of samples against all references.

    >>> bleu([["a", "b"]], [["a", "b"]], 2)
    {1: 1.0, 2: 1.0}
    """
    table = Bleu(references, n)
    return _means([table.up_to(sample) for sample in samples])


def self_bleu(samples: Sequence[Sentence], n: int = 5) -> dict[int, float]:
    """Mean BLEU of each sample against all others, itself left out: 1 for copies of one; it grows with their number.

    Empty samples are copies of one another, so 1 each where there are several, and no reference of others.

    >>> self_bleu([["a", "b"], ["a", "b"]], 2), self_bleu([["a"], ["b"]], 1), self_bleu([[], []], 1)
    ({1: 1.0, 2: 1.0}, {1: 0.0}, {1: 1.0})
    """
    if len(samples) < 2:
        raise ValueError(f"samples must be at least 2 for self-BLEU, got {len(samples)}.")
    written = [sample for sample in samples if len(sample)]
    empty = len(samples) - len(written)
    found = [[float(empty > 1)] * n] * empty
    if written:
        table = Bleu(written, n)
        found += [table.up_to(sample, own=True) for sample in written]
    return _means(found)


def _means(found: list[list[float]]) -> dict[int, float]:
    return {k + 1: math.fsum(column) / len(column) for k, column in enumerate(zip(*found))}


TEXT_METRICS = ("js", "distinct", "copied", "bleu", "self_bleu", "nll_oracle")


class TextScores:
    """Scores of samples against a corpus, by name, each with what it is measured by in ``protocol``.

    ``js-n`` in bits to the corpus (and ``js-n/law``, n up to 3, where that is known), ``distinct-n``, ``copied-8``, the
    share of their 8-grams that the training part has, ``bleu-n`` against the held-out part, ``self_bleu-n``, and
    ``nll_oracle``, nats a token, where there is an oracle. Where there is padding, ``empty`` is the share of samples
    that hold nothing else, and tokens behind a text's first padding are taken for padding: its text does not show them.

    Args:
        training: tokens (N, T) of the training part.
        held_out: of the other; BLEU's references.
        size: number of symbols.
        metrics: some of `TEXT_METRICS`.
        js: n of the n-gram laws.
        bleu_n: n of BLEU and self-BLEU, >= 2.
        pad: token of padding, if there is one.
        law: of n-grams, where it is known.
        oracle: -log p (N, T) of tokens by the true model, in nats, where there is one.

    Raises:
        ValueError: for an unknown metric, and sizes out of range.

    >>> x = torch.tensor([[0, 1, 1, 0]])
    >>> TextScores(x, x, 2, metrics=("js", "distinct"), js=(1, 2))(x)
    {'js-1': 0.0, 'js-2': 0.0, 'distinct-1': 0.5, 'distinct-2': 1.0}
    """

    def __init__(
        self,
        training: Tensor,
        held_out: Tensor,
        size: int,
        metrics: Sequence[str] = ("js", "distinct", "copied"),
        js: Sequence[int] = (1, 2, 3, 4),
        bleu_n: Sequence[int] = (2, 3, 4, 5),
        pad: int | None = None,
        law: Callable[[int], Tensor] | None = None,
        oracle: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        for metric in metrics:
            checks.one_of("metrics", metric, TEXT_METRICS)
        checks.at_least(2, **{f"bleu_n[{i}]": n for i, n in enumerate(bleu_n)})
        checks.at_least(1, **{f"js[{i}]": n for i, n in enumerate(js)})
        for name, given, of in (("js", js, ("js",)), ("bleu_n", bleu_n, ("bleu", "self_bleu"))):
            if not given and set(of) & set(metrics):
                raise ValueError(f"{name} must hold a length of n-grams for {' and '.join(of)}, got none.")
        if "nll_oracle" in metrics and oracle is None:
            raise ValueError("metrics must be without 'nll_oracle' for data that have no oracle.")
        self.training, self.held_out, self.size, self.metrics = training, held_out, size, tuple(metrics)
        self.js, self.bleu_n, self.pad, self.law, self.oracle = tuple(js), tuple(bleu_n), pad, law, oracle
        longest = training.shape[1]
        self.js = tuple(n for n in self.js if n <= longest)
        self.table: Bleu | None = None  # built at the first use
        self.about: dict[str, Any] = {}  # the data

    @property
    def protocol(self) -> dict[str, Any]:
        """What the numbers are measured by, but for the samples."""
        told: dict[str, Any] = {**self.about, "training": len(self.training), "held_out": len(self.held_out)}
        if "js" in self.metrics:
            told["js"] = "bits, to the training part"
        if "bleu" in self.metrics or "self_bleu" in self.metrics:
            told["bleu"] = "nltk method 1, mean over sentences, all of the held-out part as references"
        return told

    @property
    def names(self) -> list[str]:
        """Names of the scores, in order: those of two texts against two."""
        few = copy.copy(self)
        few.training = few.held_out = self.training[[0, 0]]
        few.table = None
        return list(few(few.training))

    def __call__(self, samples: Tensor) -> dict[str, float]:
        """The scores of tokens (N, T) int64."""
        samples, found = as_read(samples, self.pad), dict[str, float]()
        longest = samples.shape[1]
        if "js" in self.metrics:
            found |= {f"js-{n}": ngram_js(samples, self.training, n, self.size) for n in self.js}
            if self.law is not None:
                law = self.law
                found |= {f"js-{n}/law": ngram_js_to_law(samples, law, n, self.size) for n in self.js if n <= 3}
        if "distinct" in self.metrics:
            found |= {f"distinct-{n}": distinct(samples, n, self.size, self.pad) for n in (1, 2) if n <= longest}
        if "copied" in self.metrics and longest >= 8:
            found["copied-8"] = copied(samples, self.training, 8, self.size, self.pad)
        made = sentences(samples, self.pad)
        if self.pad is not None:
            found["empty"] = sum(not sentence for sentence in made) / len(made)
        if "bleu" in self.metrics:
            self.table = self.table or Bleu(sentences(self.held_out, self.pad), max(self.bleu_n))
            means = _means([self.table.up_to(sentence) for sentence in made])
            found |= {f"bleu-{n}": means[n] for n in self.bleu_n}
        if "self_bleu" in self.metrics:
            means = self_bleu(made, max(self.bleu_n))
            found |= {f"self_bleu-{n}": means[n] for n in self.bleu_n}
        if "nll_oracle" in self.metrics and self.oracle is not None:
            with torch.no_grad():
                found["nll_oracle"] = float(
                    torch.cat([self.oracle(part).mean(1) for part in samples.split(200)]).mean()
                )
        return found


def scores_of(data: Any, metrics: Sequence[str], **options: Any) -> TextScores:
    """`TextScores` against a data module of text."""
    oracle = getattr(data, "oracle", None)
    scores = TextScores(
        data.reference("train")[0],
        data.reference("test")[0],
        len(data.vocabulary),
        metrics,
        pad=data.vocabulary.pad,
        law=getattr(data, "law", None),
        oracle=None if oracle is None else oracle.nll,
        **options,
    )
    scores.about = about(data)
    return scores


def about(data: Any) -> dict[str, Any]:
    """What a protocol tells of a data module of text: its source, how it is cut into symbols, and how many a text has.

    >>> from lightning_gans.datamodules import MarkovText
    >>> about(MarkovText())
    {'data': 'first-order chain, K=6, T=8', 'tokens': 'char', 'length': 8}
    """
    return {"data": data.source, "tokens": data.vocabulary.level, "length": data.shape[0]}


def held_out_nll(model: Any, tokens: Tensor, temperature: float = 1.0) -> float:
    """Mean -log p of a token, in nats, by a model with a density, at a temperature of sampling."""
    parts = [-model.log_density_bound(part.to(model.device), temperature).double().cpu() for part in tokens.split(200)]
    return float(torch.cat(parts).mean()) / tokens.shape[1]
