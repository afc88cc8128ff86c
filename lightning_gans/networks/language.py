"""Recurrent language models, one token after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.text import CACHED, draw_tokens, token_nll


class Recurrent(nn.Module):
    """Base: logits of each token from those before it, token 0 before the first; subclasses define ``begin``, ``step``.

    A subclass has ``embedding``, tokens to vectors, and ``out``, from what ``step`` gives to logits. Its state is
    tensors whose first axis is the texts', in tuples or lists; all else in it is the same for all texts.

    Args:
        shape: (T, V), length and number of symbols.

    Raises:
        ValueError: for sizes out of range.
    """

    embedding: nn.Embedding
    out: nn.Linear

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"shape must be (T, V), length and number of symbols, got {tuple(shape)}.")
        self.length, self.vocabulary_size = shape
        checks.at_least_one(length=self.length, vocabulary_size=self.vocabulary_size)

    def begin(self, n: int) -> Any:
        """The state before the first of ``n`` texts' tokens."""
        raise NotImplementedError

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What follows tokens (N,): the input of ``out``, and the next state; the one that came stays as it is."""
        raise NotImplementedError

    def logits(self, tokens: Tensor) -> Tensor:
        """Of each token given those before it, (N, T, V) for tokens (N, T)."""
        state, made = self.begin(len(tokens)), []
        for token in before(tokens).unbind(1):
            h, state = self.step(token, state)
            made.append(h)
        return self.out(torch.stack(made, 1))

    def chosen(self, h: Tensor, z: Tensor, temperature: float = 1.0) -> Tensor:
        """Tokens (N,) that follow on what ``step`` gave, by noise (N,); never more logits than a cache holds."""
        many = max(1, (CACHED if h.device.type == "cpu" else 128 * CACHED) // self.vocabulary_size)
        made = [draw_tokens(self.out(part), own, temperature) for part, own in zip(h.split(many), z.split(many))]
        return made[0] if len(made) == 1 else torch.cat(made)

    def written(self, h: Tensor, state: Any, z: Tensor, temperature: float = 1.0) -> Tensor:
        """Tokens (N, M) that follow on what ``step`` gave, one for each number of noise z (N, M), M >= 1."""
        made = [self.chosen(h, z[:, 0], temperature)]
        for noise in z[:, 1:].unbind(1):
            h, state = self.step(made[-1], state)
            made.append(self.chosen(h, noise, temperature))
        return torch.stack(made, 1)

    def rollouts(self, tokens: Tensor, z: Tensor, every: int = 1) -> Tensor:
        """Texts that begin with the first token, then the first two, ..., and go on as this network writes.

        With ``every`` above 1 they begin with as many tokens, twice as many, ..., fewer than T.

        All are written together, whatever they begin with; what is kept of a text is read once for all.

        Args:
            tokens: texts (N, T).
            z: standard normal noise (N, R, K, T), K = (T - 1) // every, of R texts for each beginning and row: of token
                u behind the first t tokens it is z[:, :, t // every - 1, u].
            every: tokens from one beginning to the next.

        Returns:
            Texts (K, N R, T), the R of a row one after the other.
        """
        (n, r, many, _), state = z.shape, self.begin(len(tokens))
        noise = z.permute(2, 0, 1, 3).flatten(1, 2)
        texts, read = tokens.repeat_interleave(r, 0).repeat(many, 1, 1), torch.zeros_like(tokens[:, 0])
        for t, token in enumerate(tokens.unbind(1)):
            h, state = self.step(read, state)
            if t and t % every == 0:  # behind all others lie the texts as they are, of which a beginning parts
                h, state = _rows((h, state), lambda x: torch.cat([x[:-n], x[-n:].repeat_interleave(r, 0), x[-n:]]))
            k, read = t // every, token
            if k:
                new = self.chosen(h[:-n], noise[:k, :, t].flatten())
                texts[:k, :, t], read = new.view(k, -1), torch.cat([new, token])
        return texts

    def nll(self, tokens: Tensor, temperature: float = 1.0) -> Tensor:
        """-log p of each token given those before it, (N, T) nats, by p^(1 / temperature)."""
        checks.positive(temperature=temperature)
        return token_nll(self.logits(tokens), tokens, temperature)


def _rows(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A state whose tensors are changed."""
    if isinstance(state, (tuple, list)):
        return type(state)([_rows(part, change) for part in state])
    return change(state) if isinstance(state, Tensor) else state


def lstm_step(lstm: nn.LSTM, x: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What an LSTM gives for inputs (N, E), and its next state, of rows; None is the first."""
    if len(x) < 256:  # torch's module is made for long ones
        state = state or (x.new_zeros(len(x), lstm.hidden_size),) * 2
        weights: Any = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
        state = torch.lstm_cell(x, state, *weights)
        return state[0], state
    h, after = lstm(x[:, None], state and tuple(part[None] for part in state))
    return h[:, 0], tuple(part[0] for part in after)


def text_shape(shape: Sequence[int]) -> tuple[int, int]:
    """(T, V), the shape of texts; ValueError for that of other data."""
    if len(shape) != 2:
        raise ValueError(f"data must be texts (T, V) for a generator of text, got samples of shape {(*shape,)}.")
    return shape[0], shape[1]


def before(tokens: Tensor) -> Tensor:
    """The token before each of (N, T); 0 before the first."""
    return torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)


class LanguageModel(Recurrent):
    r"""An LSTM that says the law of each token given those before it, as SeqGAN's (arXiv:1609.05473).

    .. math:: h_t = \mathrm{LSTM}(E_{y_{t-1}}, h_{t-1}), \qquad p(y_t | y_{<t}) = \mathrm{softmax}(W h_t + b), \qquad
              y_0 = 0

    As a generator it maps standard normal noise (N, T), one number a token, to tokens (N, T) int64.

    Departures: weights begin as torch's do, where SeqGAN's code draws them from N(0, 0.1^2).

    Args:
        shape: (T, V), length and number of symbols.
        embedding: width of E.
        hidden: width of h.

    Raises:
        ValueError: for sizes out of range.

    >>> model = LanguageModel((20, 5000))
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    333320
    >>> model(torch.zeros(2, 20)).shape
    torch.Size([2, 20])
    """

    def __init__(self, shape: tuple[int, int] = (32, 27), embedding: int = 32, hidden: int = 32) -> None:
        super().__init__(shape)
        checks.at_least_one(embedding=embedding, hidden=hidden)
        self.embedding = nn.Embedding(self.vocabulary_size, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        nn.init.zeros_(self.lstm.get_parameter("bias_hh_l0")).requires_grad_(False)  # the other one does the same
        self.out = nn.Linear(hidden, self.vocabulary_size)

    @staticmethod
    def noise_length(shape: Sequence[int]) -> int:
        """The length of z, T, of texts of a shape; ValueError for that of other data."""
        return text_shape(shape)[0]

    def begin(self, n: int) -> Any:
        """Of the LSTM, zeros."""
        return None

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One of the LSTM."""
        return lstm_step(self.lstm, self.embedding(token), state)

    def logits(self, tokens: Tensor) -> Tensor:
        """Of each token given those before it, (N, T, V) for tokens (N, T), all at once."""
        return self.out(self.lstm(self.embedding(before(tokens)))[0])

    def generate(self, z: Tensor, temperature: float = 1.0) -> Tensor:
        """Tokens (N, T) int64 of noise (N, T), by p^(1 / temperature)."""
        checks.positive(temperature=temperature)
        if z.shape[1:] != (self.length,):
            raise ValueError(f"z must be of shape (N, {self.length}), a number a token, got {tuple(z.shape)}.")
        first = z.new_zeros(len(z), dtype=torch.int64)
        return self.written(*self.step(first, self.begin(len(z))), z, temperature)

    def forward(self, z: Tensor) -> Tensor:
        """Tokens of noise."""
        return self.generate(z)
