"""A recurrent language model, one token after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.text import check_temperature, draw_tokens, token_nll


class LanguageModel(nn.Module):
    r"""An LSTM that says the law of each token given those before it, as SeqGAN's (arXiv:1609.05473).

    .. math:: h_t = \mathrm{LSTM}(E_{y_{t-1}}, h_{t-1}), \qquad p(y_t | y_{<t}) = \mathrm{softmax}(W h_t + b), \qquad
              y_0 = 0

    As a generator it maps standard normal noise (N, T), one number a token, to tokens (N, T) int64.

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
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"shape must be (T, V), length and number of symbols, got {tuple(shape)}.")
        self.length, self.vocabulary_size = shape
        checks.at_least_one(length=self.length, vocabulary_size=self.vocabulary_size)
        checks.at_least_one(embedding=embedding, hidden=hidden)
        self.embedding = nn.Embedding(self.vocabulary_size, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        nn.init.zeros_(self.lstm.get_parameter("bias_hh_l0")).requires_grad_(False)  # the other one does the same
        self.out = nn.Linear(hidden, self.vocabulary_size)

    def logits(self, tokens: Tensor) -> Tensor:
        """Of each token given those before it, (N, T, V) for tokens (N, T)."""
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)
        return self.out(self.lstm(self.embedding(before))[0])

    def nll(self, tokens: Tensor, temperature: float = 1.0) -> Tensor:
        """-log p of each token given those before it, (N, T) nats, by p^(1 / temperature)."""
        check_temperature(temperature)
        return token_nll(self.logits(tokens), tokens, temperature)

    def generate(self, z: Tensor, temperature: float = 1.0) -> Tensor:
        """Tokens (N, T) int64 of noise (N, T), by p^(1 / temperature)."""
        check_temperature(temperature)
        token, state, made = z.new_zeros(len(z), dtype=torch.int64), None, []
        for t in range(self.length):
            h, state = self.lstm(self.embedding(token)[:, None], state)
            token = draw_tokens(self.out(h[:, 0]), z[:, t], temperature)
            made.append(token)
        return torch.stack(made, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Tokens of noise."""
        return self.generate(z)
