"""An autoencoder of text whose decoder writes in a style that it is told (after Hu et al. 2017, arXiv:1703.00955)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.text import draw_tokens, relax, to_tokens
from lightning_gans.networks.language import before
from lightning_gans.networks.rel_gan import Annealed


class StyleAutoencoder(Annealed):
    r"""A recurrent encoder to a code, and a recurrent decoder that begins with a style and a code.

    .. math:: c = \mathrm{GRU}(E x)_{T, S:}, \qquad h_0 = (e_y, c), \qquad
              h_t = \mathrm{GRU}(E \tilde x_{t-1}, h_{t-1}), \qquad \tilde x_t = \mathrm{softmax}(\beta\, (W h_t + b))

    As a generator it maps z, a code with T numbers of noise behind it, and styles (N,) to relaxed texts (N, T, V): each
    relaxed token is read, as the mixture of vectors that it is, for the next one, so that what is said of the text has
    a gradient. beta, the inverse of a temperature, goes from ``beta[0]`` to ``beta[1]`` within ``schedule_steps``
    generator updates (``g/beta``). :meth:`generate` draws tokens by the noise, :meth:`rewritten` takes the likeliest.

    Departures: no attention; the relaxed tokens have no Gumbel noise, as in the paper, not its later code.

    Args:
        shape: (T, V), length and number of symbols.
        latent_dim: length of z: that of the code, and T.
        num_classes: number of styles.
        embedding: width of a token's vector.
        style: width S of a style's.
        dropout: share of the vectors' entries that is dropped in training.
        beta: at first, and at last.
        schedule: see ``functional.text.inverse_temperature``.
        schedule_steps: updates from first to last.

    Raises:
        ValueError: for settings out of range.

    >>> model = StyleAutoencoder((4, 5), latent_dim=12)
    >>> x, styles = torch.tensor([[1, 2, 3, 0]]), torch.tensor([1])
    >>> code = model.encode(x)
    >>> code.shape, model(torch.cat([code, torch.randn(1, 4)], 1), styles).shape, model.rewritten(x, styles).shape
    (torch.Size([1, 8]), torch.Size([1, 4, 5]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        shape: tuple[int, int] = (32, 27),
        latent_dim: int = 128,
        num_classes: int = 2,
        embedding: int = 64,
        style: int = 32,
        dropout: float = 0.0,
        beta: tuple[float, float] = (1.0, 100.0),
        schedule: str = "exponential",
        schedule_steps: int = 5000,
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"shape must be (T, V), length and number of symbols, got {tuple(shape)}.")
        self.length, self.vocabulary_size, self.num_classes = *shape, num_classes
        checks.at_least_one(length=self.length, vocabulary_size=self.vocabulary_size, embedding=embedding, style=style)
        if num_classes is None:  # as the data tell
            raise ValueError("num_classes must be the number of styles, got none: TextFile's path is a file for each.")
        checks.at_least(2, num_classes=num_classes)
        checks.at_least(self.length + 1, latent_dim=latent_dim)
        checks.below_one(dropout=dropout)
        self.latent_dim, self.code, width = latent_dim, latent_dim - self.length, style + latent_dim - self.length
        self.embedding, self.styles = nn.Embedding(self.vocabulary_size, embedding), nn.Embedding(num_classes, style)
        self.encoder = nn.GRU(embedding, width, batch_first=True)
        self.decoder = nn.GRU(embedding, width, batch_first=True)
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(width, self.vocabulary_size)
        self.anneal(beta, schedule, schedule_steps)

    def read(self, x: Tensor) -> Tensor:
        """Vectors (N, T, E) of tokens (N, T), or mixtures of them of relaxed ones (N, T, V)."""
        return self.dropout(x @ self.embedding.weight if x.is_floating_point() else self.embedding(x))

    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, latent_dim - T) of texts, tokens or relaxed ones."""
        return self.encoder(self.read(x))[1][0, :, -self.code :]

    def logits(self, x: Tensor, code: Tensor, labels: Tensor) -> Tensor:
        """Of each token given those before it, (N, T, V), of texts, by codes and styles (N,)."""
        return self.out(self.decoder(self.read(before(to_tokens(x))), self._begin(code, labels))[0])

    def _begin(self, code: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([self.styles(labels), code.to(self.styles.weight)], 1)[None].contiguous()

    def _written(self, code: Tensor, labels: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Token after token, each as ``choose`` makes it of logits (N, V) and its place."""
        state, made = self._begin(code, labels), list[Tensor]()
        read = self.read(labels.new_zeros(len(labels), 1))
        for t in range(self.length):
            h, state = self.decoder(read, state)
            made.append(choose(self.out(h[:, 0]), t))
            read = self.read(made[-1][:, None])
        return torch.stack(made, 1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Relaxed texts (N, T, V)."""
        return self._written(z[:, : self.code], labels, lambda logits, t: relax(logits, self.beta))

    def generate(self, z: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
        """Tokens (N, T) int64, by p^(1 / temperature)."""
        checks.positive(temperature=temperature)
        code, noise = z[:, : self.code], z[:, self.code :]
        return self._written(code, labels, lambda logits, t: draw_tokens(logits, noise[:, t], temperature))

    def rewritten(self, x: Tensor, labels: Tensor) -> Tensor:
        """Texts in styles (N,), tokens (N, T) int64, of which each is the likeliest."""
        return self._written(self.encode(x), labels, lambda logits, t: logits.argmax(-1))
