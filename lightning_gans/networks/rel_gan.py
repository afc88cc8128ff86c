"""RelGAN's networks (Nie, Narodytska and Patel 2019, openreview.net/forum?id=rJedV3R5tm)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.text import SCHEDULES, gumbel, inverse_temperature, relax, tempered
from lightning_gans.networks.language import LanguageModel, Recurrent, text_shape


class _Norm(nn.Module):
    """Layer normalisation over all slots and features together, with a scale and shift for each feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:], eps=1e-12) * self.weight + self.bias


class RelationalMemory(nn.Module):
    r"""A recurrent cell whose memory, rows of slots, attends to itself and to the input (arXiv:1806.01822).

    .. math:: Z_0 = [M; u], \quad [q, k, v] = \mathrm{LN}(Z_0 W), \quad
              Z_1 = \mathrm{LN}(Z_0 + \mathrm{softmax}(q k^T / \sqrt{3 d}) v), \quad
              Z = \mathrm{LN}(Z_1 + \mathrm{MLP}(Z_1))

    .. math:: [i, f] = \tanh(M) W_M + u W_u, \qquad M' = \sigma(i) \tanh(Z) + \sigma(f + 1) M

    u is a linear function of the input, d the size of a head; Z without u's row. Normalised are all rows of a sample
    together, as in RelGAN's code. A memory (N, slots, heads d) begins as rows of the identity.

    Args:
        inputs: width of the input.
        slots: rows of the memory.
        heads: of the attention.
        head_size: d, of keys, queries and values.

    Raises:
        ValueError: for sizes out of range.

    >>> cell = RelationalMemory(3, slots=2, heads=2, head_size=4)
    >>> memory = cell.begin(5)
    >>> memory[0, :, :3].tolist(), cell(torch.randn(5, 3), memory).shape
    ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], torch.Size([5, 2, 8]))
    """

    def __init__(self, inputs: int, slots: int = 1, heads: int = 2, head_size: int = 256) -> None:
        super().__init__()
        checks.at_least_one(inputs=inputs, slots=slots, heads=heads, head_size=head_size)
        self.slots, self.heads, self.head_size, self.width = slots, heads, head_size, heads * head_size
        self.inside = nn.Linear(inputs, self.width)
        self.qkv, self.qkv_norm = nn.Linear(self.width, 3 * self.width, bias=False), _Norm(3 * self.width)
        self.attended_norm, self.mlp_norm = _Norm(self.width), _Norm(self.width)
        self.mlp = nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, self.width))
        self.memory_gates = nn.Linear(self.width, 2 * self.width, bias=False)
        self.input_gates = nn.Linear(self.width, 2 * self.width, bias=False)

    def begin(self, n: int) -> Tensor:
        """The first memory of ``n`` samples."""
        like = self.inside.weight
        return torch.eye(self.slots, self.width, device=like.device, dtype=like.dtype).expand(n, -1, -1)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """The next memory (N, slots, width) of an input (N, inputs)."""
        u = self.inside(x)[:, None]
        z = torch.cat([memory, u], 1)
        qkv = self.qkv_norm(self.qkv(z)).unflatten(2, (self.heads, 3 * self.head_size)).transpose(1, 2)
        q, k, v = qkv.chunk(3, -1)
        attention = (q * (3 * self.head_size) ** -0.5 @ k.transpose(2, 3)).softmax(-1)
        z = self.attended_norm(z + (attention @ v).transpose(1, 2).flatten(2))
        z = self.mlp_norm(z + self.mlp(z))[:, : self.slots]
        i, f = (self.memory_gates(memory.tanh()) + self.input_gates(u)).chunk(2, -1)
        return i.sigmoid() * z.tanh() + (f + 1).sigmoid() * memory


class Annealed(nn.Module):
    """What has an inverse temperature beta of relaxed tokens, which goes by the number of updates."""

    beta: Tensor

    def anneal(self, beta: Sequence[float], schedule: str, schedule_steps: int) -> None:
        """Take the schedule of beta, and begin it."""
        checks.one_of("schedule", schedule, SCHEDULES)
        checks.at_least_one(schedule_steps=schedule_steps)
        two = "two finite numbers > 0, at first and at last"
        checks.each({"beta": beta}, two, lambda given: len(given) == 2 and all(0 < b < float("inf") for b in given))
        self.schedule = (float(beta[0]), float(beta[1]), schedule_steps, schedule)
        self.register_buffer("beta", torch.tensor(inverse_temperature(0, *self.schedule)))

    def at_update(self, step: int) -> dict[str, Tensor]:
        """Move beta, by the number of updates alone; what is told in the log."""
        return {"g/beta": self.beta.fill_(inverse_temperature(step, *self.schedule)).clone()}


class _Gumbel(Annealed, Recurrent):
    """What draws its tokens by Gumbel noise, and gives relaxed ones in training; see `RelationalGenerator`."""

    @property
    def latent_dim(self) -> int:
        """The length of z, T V."""
        return self.length * self.vocabulary_size

    @staticmethod
    def noise_length(shape: Sequence[int]) -> int:
        """The length of z, T V, of texts of a shape; ValueError for that of other data."""
        length, size = text_shape(shape)
        return length * size

    def noise(self, z: Tensor) -> Tensor:
        """Gumbel's (N, T, V) of normal noise (N, T V)."""
        return gumbel(z.view(len(z), self.length, self.vocabulary_size))

    def drawn(self, noise: Tensor, temperature: float = 1.0, relaxed: bool = False) -> Tensor:
        """Tokens (N, T), or relaxed ones (N, T, V), by Gumbel noise (N, T, V)."""
        token, state = noise.new_zeros(len(noise), dtype=torch.int64), self.begin(len(noise))
        made: list[Tensor] = []
        for g in noise.unbind(1):
            h, state = self.step(token, state)
            noisy = tempered(self.out(h), temperature) + g
            token = noisy.argmax(-1)
            made.append(noisy if relaxed else token)
        texts = torch.stack(made, 1)
        return relax(texts, self.beta) if relaxed else texts

    def generate(self, z: Tensor, temperature: float = 1.0) -> Tensor:
        """Tokens (N, T) int64 of noise (N, T V), by p^(1 / temperature)."""
        checks.positive(temperature=temperature)
        return self.drawn(self.noise(z), temperature)

    def forward(self, z: Tensor) -> Tensor:
        """Relaxed one-hot vectors (N, T, V) of noise (N, T V)."""
        return self.drawn(self.noise(z), relaxed=True).to(self.out.weight)


class RelationalGenerator(_Gumbel):
    r"""RelGAN's generator: a `RelationalMemory` that writes one token after the other, by Gumbel noise g.

    .. math:: h_t = \mathrm{logits}_t + g_t, \qquad w_t = \mathrm{arg\,max}\, h_t, \qquad
              y_t = \mathrm{softmax}(\beta h_t)

    The token w_t, which has the law of the softmax of the logits, is read for the next one, without gradient; D sees
    the relaxed y (N, T, V). beta, the inverse of a temperature, goes from ``beta[0]`` to ``beta[1]`` within
    ``schedule_steps`` generator updates (``functional.text.inverse_temperature``; logged as ``g/beta``), and decides no
    text. g is a function of standard normal noise (N, T V), so ``latent_dim`` of a model is T V; the same noise, the
    same text. It is a language model too, which ``MLE`` trains; ``generator_checkpoint`` of a GAN begins with that.

    Departures: the code draws Gumbel noise by log(u + 1e-10), and stops where its schedule ends.

    Args:
        shape: (T, V), length and number of symbols.
        embedding: width of a token's vector.
        slots: rows of the memory.
        heads: of its attention.
        head_size: of them.
        beta: at first, and at last; 100 and 1000 in the paper, which at 2,000 updates of 5,000 come to 6.3 and 15.8.
        schedule: "exponential", "linear", "logarithmic", "sqrt", "quadratic", "sigmoid" or "constant".
        schedule_steps: the code's N.

    Raises:
        ValueError: for settings out of range.

    >>> generator = RelationalGenerator((20, 5000))
    >>> sum(p.numel() for p in generator.parameters()), generator.latent_dim
    (5107336, 100000)
    >>> y = RelationalGenerator((4, 3), 2, head_size=4)(torch.randn(2, 12))
    >>> y.shape, y.sum(-1).round(decimals=4).unique().tolist()
    (torch.Size([2, 4, 3]), [1.0])
    """

    def __init__(
        self,
        shape: tuple[int, int] = (32, 27),
        embedding: int = 32,
        slots: int = 1,
        heads: int = 2,
        head_size: int = 256,
        beta: tuple[float, float] = (1.0, 100.0),
        schedule: str = "exponential",
        schedule_steps: int = 5000,
    ) -> None:
        super().__init__(shape)
        checks.at_least_one(embedding=embedding)
        self.embedding = nn.Embedding(self.vocabulary_size, embedding)
        self.memory = RelationalMemory(embedding, slots, heads, head_size)
        self.out = nn.Linear(slots * self.memory.width, self.vocabulary_size)
        self.anneal(beta, schedule, schedule_steps)
        _initialise(self)

    def begin(self, n: int) -> Tensor:
        """The first memory."""
        return self.memory.begin(n)

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next memory, flat and as it is."""
        memory = self.memory(self.embedding(token), state)
        return memory.flatten(1), memory


class LSTMGenerator(_Gumbel, LanguageModel):
    """The same with an LSTM in place of the memory; its weights are those of a `LanguageModel`.

    Args:
        shape: (T, V), length and number of symbols.
        embedding: width of a token's vector.
        hidden: width of the LSTM.
        beta: as of `RelationalGenerator`, like the arguments behind it.

    Raises:
        ValueError: for settings out of range.

    >>> LSTMGenerator((4, 3)).generate(torch.randn(2, 12)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        shape: tuple[int, int] = (32, 27),
        embedding: int = 32,
        hidden: int = 32,
        beta: tuple[float, float] = (1.0, 100.0),
        schedule: str = "exponential",
        schedule_steps: int = 5000,
    ) -> None:
        super().__init__(shape, embedding, hidden)
        self.anneal(beta, schedule, schedule_steps)

    def drawn(self, noise: Tensor, temperature: float = 1.0, relaxed: bool = False) -> Tensor:
        """The same; with a gradient tokens first, through which none goes, then the logits of all places at once."""
        if not (relaxed and torch.is_grad_enabled()):
            return super().drawn(noise, temperature, relaxed)
        with torch.no_grad():
            tokens = super().drawn(noise)
        return relax(self.logits(tokens) + noise, self.beta)


class RelGANDiscriminator(nn.Module):
    """RelGAN's discriminator: several representations of a text, each scored by the same convolutions.

    Tokens are embedded, relaxed ones as mixtures; the vector is cut into slices, the representations. Convolutions of
    several widths, ReLU and the maximum over places make features of each; a highway layer, dropout, a linear layer and
    another one score it. The score of a text is their mean; `each` gives them all, whose loss `RelGAN` takes.

    Args:
        shape: (T, V), length and number of symbols.
        embedding: width of a token's vector, for all representations together.
        representations: R, a divisor of ``embedding``.
        filters: of each width.
        kernels: widths; those above T are left out.
        hidden: width of the last layer but one.
        dropout: share that is dropped.

    Raises:
        ValueError: for sizes out of range, and for texts shorter than all kernels.

    >>> critic = RelGANDiscriminator((20, 5000))
    >>> sum(p.numel() for p in critic.parameters())
    3325601
    >>> x = torch.rand(2, 20, 5000)
    >>> critic(x).shape, critic.each(x).shape
    (torch.Size([2]), torch.Size([2, 64]))
    """

    def __init__(
        self,
        shape: tuple[int, int] = (32, 27),
        embedding: int = 64,
        representations: int = 64,
        filters: int = 300,
        kernels: Sequence[int] = (2, 3, 4, 5),
        hidden: int = 100,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"shape must be (T, V), length and number of symbols, got {tuple(shape)}.")
        checks.at_least_one(embedding=embedding, representations=representations, filters=filters, hidden=hidden)
        checks.at_least_one(**{f"kernels[{i}]": k for i, k in enumerate(kernels)})
        if embedding % representations:
            raise ValueError(f"representations must divide embedding={embedding}, got {representations}.")
        checks.below_one(dropout=dropout)
        widths = [k for k in kernels if k <= shape[0]]
        if not widths:
            raise ValueError(f"kernels must hold one of at most {shape[0]}, the length of a text, got {(*kernels,)}.")
        self.representations = representations
        self.embedding = nn.Linear(shape[1], embedding, bias=False)
        self.convolutions = nn.ModuleList([nn.Conv1d(embedding // representations, filters, k) for k in widths])
        size = filters * len(widths)
        self.lifted, self.gate = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)
        self.dropout, self.hidden, self.score = nn.Dropout(dropout), nn.Linear(size, hidden), nn.Linear(hidden, 1)
        _initialise(self)

    def each(self, x: Tensor) -> Tensor:
        """Scores (N, R) of all representations of texts (N, T, V)."""
        parts = self.embedding(x).unflatten(2, (self.representations, -1)).permute(0, 2, 3, 1).flatten(0, 1)
        features = torch.cat([F.relu(conv(parts).amax(-1)) for conv in self.convolutions], 1)
        gate = self.gate(features).sigmoid()
        features = gate * F.relu(self.lifted(features)) + (1 - gate) * features
        return self.score(self.hidden(self.dropout(features))).view(len(x), self.representations)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) of texts (N, T, V)."""
        return self.each(x).mean(1)


def _initialise(network: nn.Module) -> None:
    """The released code's: truncated normal of std 1 / sqrt(inputs), of convolutions sqrt(2 / inputs); biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Embedding)):
            inputs = len(layer.weight) if isinstance(layer, nn.Embedding) else layer.weight[0].numel()
            std = ((2 if isinstance(layer, nn.Conv1d) else 1) / inputs) ** 0.5
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
