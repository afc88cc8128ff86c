"""Scores of texts that were rewritten in another style: told by a judge, and by how much of the text is left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.text import as_read, check_tokens, sentences
from lightning_gans.metrics.text import Sentence, about, ngrams


class StyleJudge:
    r"""Which of two styles a text is written in, by naive Bayes of its 1- and 2-grams: in closed form, and by no net.

    .. math:: \log\frac{p(1|x)}{p(0|x)} = \log\frac{N_1}{N_0} + \sum_{g \in x} \log\frac{(n_1(g) + 1) / (n_1 + G)}
              {(n_0(g) + 1) / (n_0 + G)}

    n_y(g) is how often the texts of style y have the n-gram g, n_y how many they have of its length, of which there are
    G different ones; others are left out, as are those with padding or behind it.

    Args:
        tokens: training texts (M, T) int64.
        styles: (M,) int64, 0 or 1, of which both are there.
        size: number of symbols.
        pad: token of padding, if there is one.

    Raises:
        ValueError: for other styles, and tokens out of range.

    >>> judge = StyleJudge(torch.tensor([[0, 1], [0, 2]]), torch.tensor([0, 1]), 4)
    >>> judge(torch.tensor([[2, 0], [1, 3]])).tolist(), round(float(judge.log_odds(torch.tensor([[3, 2]])).exp()), 4)
    ([1, 0], 2.0)
    """

    def __init__(self, tokens: Tensor, styles: Tensor | None, size: int, pad: int | None = None) -> None:
        check_tokens(tokens, size)
        if styles is None or sorted(set(styles.tolist())) != [0, 1]:
            got = "none" if styles is None else len(set(styles.tolist()))
            raise ValueError(f"texts must be of two styles, as labels 0 and 1, got {got}.")
        self.size, self.pad, self.table = size, pad, list[tuple[int, Tensor, Tensor]]()
        many = [float((styles == y).sum()) for y in (0, 1)]
        self.prior = math.log(many[1] / many[0])
        for n in (1, 2)[: tokens.shape[1]]:
            grams, whole = self._grams(tokens, n)
            if not whole.any():  # texts of one word
                continue
            known, place = torch.unique(grams[whole], return_inverse=True)
            style = styles[:, None].expand_as(grams)[whole]
            counts = [place[style == y].bincount(minlength=len(known)).double() + 1 for y in (0, 1)]
            self.table.append((n, known, (counts[1] / counts[1].sum()).log() - (counts[0] / counts[0].sum()).log()))

    def _grams(self, tokens: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Numbers of the n-grams (N, T - n + 1), and which are without padding."""
        kept = torch.ones_like(tokens, dtype=torch.bool) if self.pad is None else as_read(tokens, self.pad) != self.pad
        return ngrams((tokens,), n, self.size)[0], kept.unfold(1, n, 1).all(-1)

    def log_odds(self, tokens: Tensor) -> Tensor:
        """(N,) float64, in nats, above 0 for style 1."""
        found = torch.full((len(tokens),), self.prior, dtype=torch.float64)
        for n, known, odds in self.table:
            grams, whole = self._grams(tokens, n)
            place = torch.searchsorted(known, grams.contiguous()).clamp_max(len(known) - 1)
            found += torch.where(whole & (known[place] == grams), odds[place], 0.0).sum(1)
        return found

    def __call__(self, tokens: Tensor) -> Tensor:
        """Styles (N,)."""
        return (self.log_odds(tokens) > 0).long()


def corpus_bleu(samples: Sequence[Sentence], references: Sequence[Sentence], n: int = 4) -> float:
    r"""BLEU-n of all samples at once, each against one reference, as Moses' ``multi-bleu`` has it; in [0, 1].

    .. math:: \exp\Big(\min(0, 1 - r / h) + \frac1n \sum_{k=1}^n \ln p_k\Big)

    p_k is the share of all samples' k-grams that their references have, h and r are the lengths of all samples and
    references; nothing is smoothed.

    >>> corpus_bleu(["abcd"], ["abcd"]), round(corpus_bleu(["abcd", "ab"], ["abcx", "ab"], 2), 4)
    (1.0, 0.7906)
    """
    checks.at_least_one(n=n)
    if len(samples) != len(references) or not samples:
        raise ValueError(f"references must be one for each sample, got {len(references)} for {len(samples)}.")
    logs = []
    for k in range(1, n + 1):
        same = every = 0
        for sample, reference in zip(samples, references):
            ours, theirs = (Counter(zip(*(x[i:] for i in range(k)))) for x in (sample, reference))
            same, every = same + sum((ours & theirs).values()), every + sum(ours.values())
        if not same:
            return 0.0
        logs.append(math.log(same / every))
    h, r = (sum(len(x) for x in texts) for texts in (samples, references))
    return math.exp(min(0.0, 1 - r / h) + math.fsum(logs) / n)


def harmonic_mean(a: float, b: float) -> float:
    """2 a b / (a + b); 0 if both are.

    >>> harmonic_mean(1.0, 0.5), harmonic_mean(0.0, 0.0)
    (0.6666666666666666, 0.0)
    """
    return 2 * a * b / (a + b) if a + b else 0.0


class TransferScores:
    """Scores of rewritten texts: ``accuracy``, ``bleu`` to the input, their ``harmonic`` mean, and ``copies``.

    The accuracy is the share that a `StyleJudge` of the training part takes for the style that was wanted, BLEU-4 the
    `corpus_bleu`, and copies are outputs that are their input. Who copies all has BLEU 1 and hardly any accuracy
    (``copy``): a score says nothing without that line. ``right`` is the share of right answers where data know them.
    Tokens behind a text's first padding are taken for padding.

    Args:
        data: a data module of text in two styles.
        texts: the most that are rewritten, of the held-out part, and by which seed they are chosen.
        seed: see ``texts``.

    Raises:
        ValueError: for data that are not of two styles.

    >>> from lightning_gans.datamodules import StyledText
    >>> scores = TransferScores(StyledText(items=1000))
    >>> right, copy = scores(scores.data.transferred(scores.inputs, scores.wanted)), scores.copy
    >>> copy["bleu"], copy["copies"], right["right"], right["accuracy"] > 0.9, copy["accuracy"] < 0.1
    (1.0, 1.0, 1.0, True, True)
    """

    def __init__(self, data: Any, texts: int = 1000, seed: int = 0) -> None:
        checks.at_least_one(texts=texts)
        self.data, size, self.pad = data, len(data.vocabulary), data.vocabulary.pad
        training: tuple[Tensor, Tensor] = data.reference("train")
        self.judge = StyleJudge(training[0], training[1], size, self.pad)
        tokens, styles = data.reference("test")
        chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))[:texts]
        self.inputs, self.wanted = tokens[chosen], 1 - styles[chosen]
        self.n = min(4, tokens.shape[1])
        right = float((self.judge(tokens) == styles).double().mean())
        self.protocol = {
            **about(data), "texts": len(chosen), "seed": seed,
            "bleu": f"corpus, n={self.n}, to the input", "judge_accuracy": right,
            "judge": "naive Bayes, 1- and 2-grams of the training part",
        }  # fmt: skip

    @property
    def copy(self) -> dict[str, float]:
        """What copying the input scores."""
        return self(self.inputs)

    def __call__(self, outputs: Tensor) -> dict[str, float]:
        """The scores of tokens (N, T) int64, the inputs rewritten in the styles ``wanted``."""
        outputs = as_read(outputs, self.pad)
        accuracy = float((self.judge(outputs) == self.wanted).double().mean())
        bleu = corpus_bleu(sentences(outputs, self.pad), sentences(self.inputs, self.pad), self.n)
        found = {"accuracy": accuracy, "bleu": bleu, "harmonic": harmonic_mean(accuracy, bleu),
                 "copies": float((outputs == self.inputs).all(1).double().mean())}  # fmt: skip
        if hasattr(self.data, "transferred"):
            right = self.data.transferred(self.inputs, self.wanted)
            found["right"] = float((outputs == right).all(1).double().mean())
        return found
