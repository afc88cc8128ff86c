"""A toy language in two styles, each of whose law is known, and the right translation."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.datamodules.base import Split
from lightning_gans.datamodules.text import LETTERS, TextDataModule
from lightning_gans.datamodules.toy_text import MarkovText
from lightning_gans.functional.text import Vocabulary, markov_law


class StyledText(TextDataModule):
    """Sentences of `MarkovText`, whose last ``marked`` letters are written small in style 0 and as capitals in style 1.

    As in reviews that praise or complain most words are common to both styles, and a few have a counterpart. What a
    sentence is in the other style is known (:meth:`transferred`); one without a marked letter has no style.

    Args:
        K: letters of the chain, in 3..26.
        T: length.
        marked: letters that have a counterpart, in 1..K - 1.
        items: training sentences, half of them of each style; a tenth as many are held out.
        batch_size: sentences per batch and process.
        one_hot: see `TextDataModule`.

    Raises:
        ValueError: for sizes out of range.

    >>> data = StyledText()
    >>> tokens = torch.tensor([[0, 4, 5, 1, 2, 3, 4, 5]])
    >>> data.shape, data.decode(torch.cat([tokens, data.transferred(tokens, torch.tensor([1]))]))
    ((8, 8), ['aefbcdef', 'aEFbcdEF'])
    """

    name, num_classes = "StyledText", 2

    def __init__(
        self, K: int = 6, T: int = 8, marked: int = 2, items: int = 10_000, batch_size: int = 64, one_hot: bool = True
    ) -> None:
        super().__init__(batch_size, one_hot)
        checks.at_least(3, K=K)
        checks.within(1, K - 1, marked=marked)
        checks.at_least(20, items=items)
        self.chain, self.K, self.marked, self.items = MarkovText(K, T), K, marked, items
        letters = LETTERS[1 : K + 1]
        self.vocabulary = Vocabulary((*letters, *letters[-marked:].upper()))
        self.shape, self.source = (T, K + marked), f"first-order chain, K={K}, T={T}, {marked} marked"

    def transferred(self, tokens: Tensor, styles: Tensor) -> Tensor:
        """Sentences (N, T), of any style, in styles (N,): what is right."""
        plain = torch.where(tokens < self.K, tokens, tokens - self.marked)
        return plain + self.marked * ((plain >= self.K - self.marked) & (styles[:, None] == 1))

    def law(self, n: int) -> Tensor:
        """Probabilities (V^n,) float64 of all n-grams of both styles together, the first letter the slowest."""
        letters = torch.arange(self.K)[:, None]
        laws = []
        for style in (0, 1):
            written = torch.zeros(self.K, self.shape[1], dtype=torch.float64)
            written.scatter_(1, self.transferred(letters, torch.full((self.K,), style)), 1)
            laws.append(markov_law(written.T @ self.chain.transitions @ written, self.chain.start @ written, n))
        return (laws[0] + laws[1]) / 2

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Draws, the same at every call, others for "test" than for "train", and their styles."""
        n = self.items if split == "train" else self.items // 10
        drawn = self.chain.sample_exact(n, Generator().manual_seed(int(split == "test")))
        return self.transferred(drawn, styles := torch.arange(n) % 2), styles
