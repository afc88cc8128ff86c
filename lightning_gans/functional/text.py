"""Sequences of tokens: alphabets, one-hot vectors, and draws that are a function of noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.numerics import full_precision

_PARTS = 2**40  # a probability is a whole number of these
_BLOCK = 128  # probabilities that are summed at once
CACHED = 2**19  # logits, in 2 MiB, whose softmax and sums stay in a core's cache


@dataclass(frozen=True)
class Vocabulary:
    """The symbols that a text is made of, in the order of their tokens.

    Args:
        symbols: characters or words, all different; none where texts are only to be split.
        level: "char", or "word" where symbols are parted by blanks.
        pad: token of what stands behind a sentence that is shorter than others; None: there is none.
        unknown: token of symbols that are not known; None: they are refused.

    Raises:
        ValueError: for another level, a symbol that comes twice, and a pad or unknown that is no token.

    >>> words = Vocabulary(("", "?", "a", "b"), "word", pad=0, unknown=1)
    >>> words.encode("b a c", length=4), words.decode(torch.tensor([[3, 2, 1, 0]]))
    ([3, 2, 1, 0], ['b a ?'])
    """

    symbols: tuple[str, ...]
    level: str = "char"
    pad: int | None = None
    unknown: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("level", self.level, ("char", "word"))
        if len(self.known) < len(self):
            twice = next(symbol for token, symbol in enumerate(self.symbols) if self.known[symbol] != token)
            raise ValueError(f"symbols must be all different, got {twice!r} twice.")
        for name, token in (("pad", self.pad), ("unknown", self.unknown)):
            if token is not None and token not in range(len(self)):
                raise ValueError(f"{name} must be None or a token, an integer in 0..{len(self) - 1}, got {token!r}.")

    def __len__(self) -> int:
        """How many there are."""
        return len(self.symbols)

    @cached_property
    def known(self) -> dict[str, int]:
        """Token by symbol."""
        return {symbol: token for token, symbol in enumerate(self.symbols)}

    def split(self, text: str) -> list[str]:
        """The symbols of a text, known or not."""
        return list(text) if self.level == "char" else text.split()

    def encode(self, text: str, length: int | None = None) -> list[int]:
        """Tokens of a text, followed by padding up to ``length``.

        Raises:
            ValueError: for a symbol that is not known, and for a text that is longer, or without padding shorter.
        """
        tokens = [self.known.get(symbol, self.unknown) for symbol in self.split(text)]
        if None in tokens:
            wrong = self.split(text)[tokens.index(None)]
            raise ValueError(f"a text must be made of the {len(self)} known symbols, got {wrong!r} in {text[:60]!r}.")
        missing = 0 if length is None else length - len(tokens)
        if missing < 0 or (missing and self.pad is None):
            most = "" if self.pad is None else "at most "
            raise ValueError(f"a text must have {most}{length} symbols, got {len(tokens)}: {text[:60]!r}.")
        return [token for token in tokens if token is not None] + [self.pad or 0] * missing

    def decode(self, tokens: Tensor) -> list[str]:
        """Texts of tokens (N, T) int64, each up to its first padding.

        Raises:
            ValueError: for anything else, and for tokens out of range.
        """
        check_tokens(tokens, len(self))
        joiner = "" if self.level == "char" else " "
        return [joiner.join(self.symbols[token] for token in row) for row in sentences(tokens, self.pad)]

    def require(self, found: Vocabulary, name: str) -> None:
        """ValueError unless the tokens of ``found``, which ``name`` has, mean the same."""
        pairs = zip_longest(self.symbols, found.symbols)
        if changed := [(token, *pair) for token, pair in enumerate(pairs) if pair[0] != pair[1]]:
            token, mine, other = changed[0]
            got = f"{other!r}" if other is not None else "no symbol"
            kept = f"{mine!r} is" if mine is not None else "none is"
            raise ValueError(
                f"{name} must have the symbols that the model was trained with, in their order, got {got} where {kept} "
                f"(token {token}; {len(changed):,} of {max(len(self), len(found)):,} differ)."
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, of which ``Vocabulary(**values)`` is the same."""
        return {**asdict(self), "symbols": list(self.symbols)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary of :meth:`as_dict`."""
        return cls(**{**values, "symbols": tuple(values["symbols"])})


def sentences(tokens: Tensor, pad: int | None = None) -> list[list[int]]:
    """Rows of tokens (N, T) as lists, each up to its first padding.

    >>> sentences(torch.tensor([[3, 4, 0, 0], [5, 6, 7, 8]]), pad=0)
    [[3, 4], [5, 6, 7, 8]]
    """
    rows = tokens.tolist()
    return rows if pad is None else [row[: row.index(pad)] if pad in row else row for row in rows]


def as_read(tokens: Tensor, pad: int | None = None) -> Tensor:
    """Tokens (N, T) with padding for all that stands behind a row's first padding, which no text shows.

    >>> as_read(torch.tensor([[3, 0, 4, 0], [5, 6, 7, 8]]), pad=0).tolist()
    [[3, 0, 0, 0], [5, 6, 7, 8]]
    """
    return tokens if pad is None else torch.where((tokens == pad).cumsum(-1) > 0, pad, tokens)


def check_tokens(tokens: Tensor, size: int) -> None:
    """ValueError unless ``tokens`` are int64 (N, T) in 0..size - 1.

    >>> check_tokens(torch.tensor([[0, 3]]), 3)
    Traceback (most recent call last):
    ValueError: tokens must lie in 0..2, got 0..3.
    """
    if not torch.is_tensor(tokens) or tokens.dtype != torch.int64 or tokens.dim() != 2:
        got = f"{tokens.dtype} {tuple(tokens.shape)}" if torch.is_tensor(tokens) else type(tokens).__name__
        raise ValueError(f"tokens must be int64 (N, T), got {got}.")
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= size):
        raise ValueError(f"tokens must lie in 0..{size - 1}, got {int(tokens.min())}..{int(tokens.max())}.")


def one_hot(tokens: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Tokens (N, T) as vectors (N, T, size), on their device.

    >>> one_hot(torch.tensor([[2, 0]]), 3).tolist()
    [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    """
    return tokens.new_zeros((*tokens.shape, size), dtype=dtype).scatter_(-1, tokens[..., None], 1)


def to_tokens(x: Tensor) -> Tensor:
    """Tokens (N, T) int64 of one-hot or relaxed vectors (N, T, V): the largest; tokens stay as they are.

    >>> to_tokens(torch.tensor([[[0.2, 0.8], [1.0, 0.0]]])).tolist()
    [[1, 0]]
    """
    return x.argmax(-1) if x.is_floating_point() else x


def check_language_model(network: object, *more: str) -> None:
    """TypeError unless it tells ``length`` and ``vocabulary_size``, and has methods ``nll``, ``generate`` and ``more``.

    >>> check_language_model(torch.nn.Linear(1, 1))
    Traceback (most recent call last):
    TypeError: generator must be a language model, got Linear without length.
    """
    checks.networks(generator=network)
    for name in ("length", "vocabulary_size", "nll", "generate", *more):
        if not hasattr(network, name):
            raise TypeError(f"generator must be a language model, got {type(network).__name__} without {name}.")


def check_autoencoder(network: Any, latent_dim: int) -> Any:
    """The network, if it writes a text anew in one of two styles, of z so long; else a TypeError or ValueError.

    >>> check_autoencoder(torch.nn.Linear(1, 1), 8)
    Traceback (most recent call last):
    TypeError: generator must be an autoencoder of text by styles, got Linear without length.
    """
    for name in ("length", "vocabulary_size", "latent_dim", "num_classes", "encode", "logits", "generate", "rewritten"):
        if not hasattr(network, name):
            got = f"{type(network).__name__} without {name}"
            raise TypeError(f"generator must be an autoencoder of text by styles, got {got}.")
    if network.num_classes != 2:
        raise ValueError(f"generator must be of 2 styles, of which each has one other, got {network.num_classes}.")
    if network.latent_dim != latent_dim:
        raise ValueError(f"latent_dim must be that of the generator, {network.latent_dim}, got {latent_dim!r}.")
    return network


def check_styled(tokens: Tensor, styles: Tensor, network: Any) -> tuple[Tensor, Tensor]:
    """Both, if ``tokens`` are int64 (N, T) that the network can read, and ``styles`` int64 (N,) of 0 and 1."""
    check_tokens(tokens, network.vocabulary_size)
    if tokens.shape[1] != network.length:
        raise ValueError(f"tokens must be of length {network.length}, got {tokens.shape[1]}.")
    if styles.dtype != torch.int64 or styles.shape != tokens.shape[:1] or not set(styles.tolist()) <= {0, 1}:
        told = f"{styles.dtype} {tuple(styles.shape)} of {', '.join(map(str, styles.unique().tolist()))}"
        raise ValueError(f"styles must be int64 ({len(tokens)},) of 0 and 1, got {told}.")
    return tokens, styles


def log_density(network: Any, x: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(x) (N,), in nats, of tokens or one-hot vectors by a language model, as it is sampled at a temperature."""
    with torch.no_grad(), evaluating(network):
        return -network.nll(to_tokens(x), temperature).sum(1)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits over a temperature > 0; below 1e-30, by which they would overflow, it counts for that.

    >>> tempered(torch.tensor([0.0, 5.0]), 1e-40).softmax(-1).tolist()
    [0.0, 1.0]
    """
    return logits if temperature == 1 else full_precision(logits) / max(temperature, 1e-30)


def draw_tokens(logits: Tensor, z: Tensor, temperature: float = 1.0) -> Tensor:
    r"""One token a row of logits (N, V), by the inverse of the distribution function at :math:`\Phi(z)`.

    .. math:: t = \min\{k : \sum_{i \le k} p_i > \Phi(z)\}, \qquad p \propto e^{\mathrm{logits} / \mathrm{temperature}}

    A function of standard normal noise z (N,): the same noise, the same text. Probabilities are summed as whole
    numbers of 2^-40, so that the sum does not depend on its order, on any device; many of them in blocks, of which
    one is chosen first. Logits that are no numbers give a token too: whoever looks at losses or weights tells of them.

    >>> draw_tokens(torch.tensor([[0.0, 0.0]]).expand(3, 2), torch.tensor([-1.0, 0.1, 1.0])).tolist()
    [0, 1, 1]
    """
    size = logits.shape[1]
    if logits.device.type == "cpu" and len(logits) > (rows := max(1, CACHED // size)):
        parts = zip(logits.split(rows), z.split(rows))
        return torch.cat([draw_tokens(part, noise, temperature) for part, noise in parts])
    logits = logits if logits.dtype == torch.float64 else logits.float()
    p = torch.softmax(tempered(logits, temperature), -1)
    u = torch.special.ndtr(z.double())
    if size <= _BLOCK:
        return _invert(p, u)[0]
    blocks = F.pad(p, (0, -size % _BLOCK)).unflatten(1, (-1, _BLOCK))
    block, *found = _invert(blocks.sum(-1), u)
    inside = blocks.gather(1, block[:, None, None].expand(-1, 1, _BLOCK)).squeeze(1)
    return (block * _BLOCK + _invert(inside, _share(block, *found))[0]).clamp_(max=size - 1)


def _invert(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which of the weights (N, M) the share u (N,) of their sum falls on, and what :func:`_share` needs."""
    parts = (weights.double() / weights.sum(-1, keepdim=True) * _PARTS).round_().long()
    sums = parts.cumsum(-1)
    exact = u * sums[:, -1]
    place = exact.long().minimum(sums[:, -1] - 1)
    found = torch.searchsorted(sums, place[:, None], right=True).squeeze(1)
    return found.clamp_(max=weights.shape[1] - 1), parts, sums, exact


def _share(index: Tensor, parts: Tensor, sums: Tensor, exact: Tensor) -> Tensor:
    """The share of the weight that was found, in [0, 1)."""
    weight, behind = (x.gather(1, index[:, None]).squeeze(1) for x in (parts, sums))
    return ((exact - (behind - weight)) / weight).clamp(0, 1 - 2**-53)


def gumbel(z: Tensor) -> Tensor:
    r"""Gumbel noise :math:`-\log(-\log \Phi(z))` of standard normal noise z, of its shape; finite.

    The largest of logits + Gumbel noise has the law of their softmax.

    >>> gumbel(torch.tensor([-30.0, 0.0, 30.0]))
    tensor([-4.3229,  0.3665, 75.4107])
    """
    return -torch.log(-torch.special.log_ndtr(full_precision(z).clamp(-12, 12))).to(z)


def relax(h: Tensor, beta: Tensor | float) -> Tensor:
    """softmax(beta h) over the last axis, relaxed one-hot vectors of its argmax; computed in full precision.

    >>> relax(torch.tensor([1.0, 3.0]), 1000.0)
    tensor([0., 1.])
    """
    return (beta * full_precision(h)).softmax(-1).to(h)


SCHEDULES = ("exponential", "linear", "logarithmic", "sqrt", "quadratic", "sigmoid", "constant")


def inverse_temperature(step: int, first: float, last: float, steps: int, schedule: str = "exponential") -> float:
    r"""beta after so many updates, on its way from ``first`` to ``last`` within ``steps``, where it stays.

    With :math:`t = \min(1, \mathrm{step} / \mathrm{steps})` and :math:`b = \mathrm{last} / \mathrm{first}`, it is
    ``first`` times

    ============= ====================================================================================
    exponential   :math:`b^t`
    linear        :math:`1 + (b - 1) t`
    quadratic     :math:`1 + (b - 1) t^2`
    sqrt          :math:`1 + (b - 1) \sqrt t`
    logarithmic   :math:`1 + (b - 1) \ln(1 + t\,\mathrm{steps}) / \ln(1 + \mathrm{steps})`
    sigmoid       :math:`1 + (b - 1) / (1 + e^{10 - 20 t})`, which is off by 5e-5 (b - 1) at both ends
    constant      b
    ============= ====================================================================================

    >>> [round(inverse_temperature(step, 1, 100, 5000), 2) for step in (0, 2000, 3000, 9999)]
    [1.0, 6.31, 15.85, 100.0]
    """
    t, b = min(1.0, step / steps), last / first
    if schedule == "exponential":
        return first * b**t
    way = {
        "linear": t,
        "quadratic": t * t,
        "sqrt": math.sqrt(t),
        "logarithmic": math.log1p(t * steps) / math.log1p(steps),
        "sigmoid": 1 / (1 + math.exp(10 - 20 * t)),
        "constant": 1.0,
    }[schedule]
    return first * (1 + (b - 1) * way)


def token_nll(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """-log p of each token, (N, T) nats, from logits (N, T, V) over a temperature, in full precision.

    >>> token_nll(torch.zeros(1, 2, 4), torch.tensor([[0, 3]])).exp().tolist()
    [[4.0, 4.0]]
    """
    logits = tempered(full_precision(logits), temperature).flatten(0, 1)
    return F.cross_entropy(logits, tokens.flatten(), reduction="none").view(tokens.shape)


def markov_law(transitions: Tensor, start: Tensor, n: int) -> Tensor:
    """Probabilities (K^n,) of all n-grams of a stationary chain, the first symbol the slowest; float64.

    Args:
        transitions: (K, K), from row to column.
        start: (K,), the stationary law.
        n: length.

    >>> markov_law(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0.5, 0.5]), 2).tolist()
    [0.0, 0.5, 0.5, 0.0]
    """
    law = start.double()
    for _ in range(n - 1):
        law = (law.view(-1, len(start), 1) * transitions.double()).flatten()
    return law


def common(symbols: Iterable[str]) -> list[str]:
    """Different symbols, the most frequent first, equally frequent ones by name.

    >>> common("abcab")
    ['a', 'b', 'c']
    """
    counts: dict[str, int] = {}
    for symbol in symbols:
        counts[symbol] = counts.get(symbol, 0) + 1
    return sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
