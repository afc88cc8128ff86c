"""Languages whose law is known: a Markov chain, and a recurrent network with random weights (an oracle)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.datamodules.base import Split
from lightning_gans.datamodules.memory import FreshLoader
from lightning_gans.datamodules.text import LETTERS, OneHot, TextDataModule, checked_length, md5
from lightning_gans.functional.text import Vocabulary, markov_law
from lightning_gans.networks.language import LanguageModel


class _FreshText(FreshLoader):
    """Fresh tokens, made one-hot batch by batch."""

    one_hot: OneHot | None = None

    def __iter__(self) -> Iterator[Tensor]:
        for tokens in super().__iter__():
            yield tokens if self.one_hot is None else self.one_hot(tokens, Generator())


class MarkovText(TextDataModule):
    """A stationary Markov chain of first order: every batch is a fresh draw, and the law of all n-grams is known.

    From letter i it goes to i + 1 with probability 0.6, to i^2 + 2 with 0.3 and to i + 4 with 0.1, modulo K (added
    where they coincide).

    Args:
        K: letters, in 2..26.
        T: length.
        batch_size: sequences per batch and process.
        batches_per_epoch: batches that are called an epoch.
        one_hot: see `TextDataModule`.

    Raises:
        ValueError: for sizes out of range.

    >>> round(MarkovText().law(1).sum().item(), 12), MarkovText(K=3, T=5).shape
    (1.0, (5, 3))
    """

    name = "MarkovText"
    reference_items = 10_000

    def __init__(
        self, K: int = 6, T: int = 8, batch_size: int = 64, batches_per_epoch: int = 1000, one_hot: bool = True
    ) -> None:
        super().__init__(batch_size, one_hot)
        checks.within(2, 26, K=K)
        checks.at_least_one(T=T, batches_per_epoch=batches_per_epoch)
        self.shape, self.vocabulary, self.batches_per_epoch = (
            (T, K),
            Vocabulary(tuple(LETTERS[1 : K + 1])),
            batches_per_epoch,
        )
        self.transitions = torch.zeros(K, K, dtype=torch.float64)
        for i in range(K):
            for p, j in ((0.6, i + 1), (0.3, i * i + 2), (0.1, i + 4)):
                self.transitions[i, j % K] += p
        start = torch.linalg.matrix_power(self.transitions, 4096)[0]
        self.start = start / start.sum()
        self.source = f"first-order chain, K={K}, T={T}"

    def law(self, n: int) -> Tensor:
        """Probabilities (K^n,) float64 of all n-grams, the first letter the slowest."""
        return markov_law(self.transitions, self.start, n)

    def sample_exact(self, n: int, generator: Generator | None = None) -> Tensor:
        """Tokens (n, T) int64, on the generator's device."""
        device = torch.device("cpu") if generator is None else generator.device
        u = torch.rand(n, self.shape[0], generator=generator, device=device, dtype=torch.float64)
        start, steps = self.start.cumsum(0).to(device), self.transitions.cumsum(1).to(device)
        last = len(start) - 1
        tokens = [torch.searchsorted(start, u[:, 0].contiguous(), right=True).clamp_max(last)]
        for t in range(1, self.shape[0]):
            tokens.append((steps[tokens[-1]] <= u[:, t, None]).sum(1).clamp_max(last))
        return torch.stack(tokens, 1)

    def load(self, split: Split) -> tuple[Tensor, None]:
        """10,000 draws, the same at every call, others for "test" than for "train"."""
        return self.sample_exact(self.reference_items, Generator().manual_seed(int(split == "test"))), None

    @property
    def num_items(self) -> int:
        """Sequences per epoch and process (no two epochs share any)."""
        return self.batch_size * self.batches_per_epoch

    def train_dataloader(self) -> FreshLoader:
        """Batches of fresh draws, made on the training device."""
        loader = _FreshText(self.sample_exact, self.batch_size, self.batches_per_epoch, device=self.device)
        loader.one_hot = OneHot(len(self.vocabulary)) if self.one_hot else None
        return loader


class OracleText(TextDataModule):
    """SeqGAN's set-up (arXiv:1609.05473): samples of an LSTM with random weights, the oracle, which judges others'.

    Args:
        vocabulary_size: V.
        length: T, 20 or 40 in the literature.
        items: training sequences; a tenth as many are held out.
        hidden: width of the LSTM and its embedding.
        seed: of the oracle's weights, all of them N(0, 1), and of its samples, >= 0.
        path: .npz file of an oracle's parameters in place of them: ``embedding`` (V, E), ``w_k`` (E, H), ``u_k``
            (H, H) and ``b_k`` (H,) for k = i, f, o, c, ``w_out`` (H, V), ``b_out`` (V,).
        batch_size: sequences per batch and process.
        one_hot: see `TextDataModule`.

    Raises:
        ValueError: for sizes out of range, and for a file that holds something else.
        FileNotFoundError: there is none.

    >>> data = OracleText(vocabulary_size=10, length=4, items=20)
    >>> data.reference("train")[0].shape, data.reference("test")[0].shape
    (torch.Size([20, 4]), torch.Size([2, 4]))
    """

    name = "OracleText"

    def __init__(
        self,
        vocabulary_size: int = 5000,
        length: int = 20,
        items: int = 10_000,
        hidden: int = 32,
        seed: int = 0,
        path: str | None = None,
        batch_size: int = 64,
        one_hot: bool = True,
    ) -> None:
        super().__init__(batch_size, one_hot)
        checked_length(length)
        checks.at_least(10, items=items)
        checks.at_least(2, vocabulary_size=vocabulary_size)
        checks.at_least_one(hidden=hidden)
        checks.at_least(0, seed=seed)
        self.items, self.seed, self.shape = items, seed, (length, vocabulary_size)
        self.vocabulary = Vocabulary(tuple(str(i) for i in range(vocabulary_size)), "word")
        told = f"of seed {seed}, hidden {hidden}"
        if path is None:
            self.oracle = LanguageModel(self.shape, hidden, hidden)
            own = Generator().manual_seed(seed)
            with torch.no_grad():
                for p in self.oracle.parameters():
                    p.copy_(torch.randn(p.shape, generator=own) if p.requires_grad else torch.zeros(()))
        else:
            file = Path(path).expanduser()
            self.oracle = read_oracle(file, self.shape)
            told = f"{file.name}, md5 {md5(file.read_bytes())}"
        self.oracle.requires_grad_(False)
        self.source = f"oracle {told}, V={vocabulary_size}, T={length}"

    def load(self, split: Split) -> tuple[Tensor, None]:
        """Draws of the oracle, the same at every call."""
        stream = np.random.SeedSequence((self.seed, split == "test"))  # no other seed's, nor that of the weights
        own = Generator().manual_seed(int(stream.generate_state(1, np.uint64)[0] >> 1))
        n = self.items if split == "train" else self.items // 10
        z = torch.randn(n, self.shape[0], generator=own)
        return torch.cat([self.oracle(part) for part in z.split(1000)]), None


def read_oracle(path: str | Path, shape: tuple[int, int]) -> LanguageModel:
    """The oracle of an .npz file; see `OracleText`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else, or another number of symbols than ``shape``.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"path must be an .npz file of an oracle, got {path}, which is none{checks.seen_from(path)}."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: torch.from_numpy(file[name]).float() for name in file}
        gates = {part: torch.cat([found[f"{part}_{k}"].T for k in "ifco"]) for part in "wu"}
        bias = torch.cat([found[f"b_{k}"] for k in "ifco"])
        oracle = LanguageModel(shape, found["embedding"].shape[1], len(found["w_out"]))
        oracle.load_state_dict(
            {
                "embedding.weight": found["embedding"],
                "lstm.weight_ih_l0": gates["w"],
                "lstm.weight_hh_l0": gates["u"],
                "lstm.bias_ih_l0": bias,
                "lstm.bias_hh_l0": torch.zeros_like(bias),
                "out.weight": found["w_out"].T,
                "out.bias": found["b_out"],
            }
        )
    except Exception as error:  # a broken archive, missing names, other shapes
        told = " ".join(str(error).split())[:120]
        raise ValueError(f"path must hold an oracle of {shape[1]} symbols, got {path} ({told}).") from error
    return oracle
