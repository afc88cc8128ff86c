"""Texts: each technique by ``trainer.fit`` beside the loop that a skilled engineer writes for it.

Run from the repository's root::

    python -m benchmarks.sequences                           # every row
    python -m benchmarks.sequences --only rel_gan seq_gan    # some rows

Clock, protocol and columns are those of `benchmarks.techniques`. Texts of 16 characters of 27, at random, in memory;
the loops keep tokens, and have the library's networks for their weights alone. What they do otherwise:

* a token is drawn by a uniform number and the sums of a softmax, Gumbel noise is of one exponential number;
* tokens are written without gradient, what each adds to an LSTM's gates from a table; their logits are of one pass of
  `nn.LSTM` afterwards, since no gradient goes through a token;
* all rollouts of a text go on together, whatever they begin with, and rewards are of convolutions by tables too;
* convolutions of RelGAN's few channels are matrix products, real and fake texts are in one pass of D.
"""

from __future__ import annotations

import argparse
import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.images import Clipped
from benchmarks.skilled import Loop, Setting, step
from benchmarks.techniques import compare
from lightning_gans.compat.lightning import pl
from lightning_gans.networks import (
    LanguageModel,
    LSTMGenerator,
    RelationalGenerator,
    RelGANDiscriminator,
    SeqGANDiscriminator,
)
from lightning_gans.networks.language import before

SHAPE = (16, 27)
State = tuple[Tensor, ...]
Next = Callable[[Tensor, State], State]  # of tokens and a state; h comes first


def as_tokens(data: Tensor) -> Tensor:
    return data.argmax(-1) if data.is_floating_point() else data


def highway(net: Any, features: Tensor) -> Tensor:
    return torch.lerp(features, F.relu(net.lifted(features)), net.gate(features).sigmoid())


def zeros(n: int, net: nn.LSTM) -> State:
    return tuple(net.weight_hh_l0.new_zeros(n, net.hidden_size) for _ in range(2))


def cell(vectors: Tensor, net: nn.LSTM) -> Next:
    """Steps of an LSTM, of whose gates each token's part is in a table; tanh(x) = 2 sigmoid(2 x) - 1."""
    twice = net.weight_hh_l0.new_ones(4, net.hidden_size)
    twice[2] = 2
    table = F.linear(vectors, net.weight_ih_l0, net.bias_ih_l0) * twice.flatten()
    weight = net.weight_hh_l0.T * twice.flatten()

    def follows(token: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = torch.addmm(table[token], h, weight).sigmoid().chunk(4, 1)
        c = torch.addcmul(f * c, i, 2 * g - 1)
        return o * c.tanh(), c

    return follows


# ---------------------------------------------------------------------- RelGAN
class Relaxed(Loop):
    """RelGAN of an LSTM: tokens without gradient, then the logits of all places at once."""

    def __init__(self) -> None:
        super().__init__(self.by_pairs, lambda critic, fake, real: self.by_pairs(critic, real, fake, -1),
                         adam=partial(Clipped, betas=(0.9, 0.999), fused=True))  # fmt: skip

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.net: Any = self.generator
        self.generator: Any = self.texts
        self.tokens, self.done = as_tokens(setting.data), 0

    def real(self) -> Tensor:
        return self.tokens[torch.randint(len(self.tokens), (self.setting.batch,))]

    def noise(self, factor: int = 1) -> Tensor:
        """Gumbel's."""
        return torch.empty(self.setting.batch, *SHAPE).exponential_().log_().neg_()

    def update_g(self, real: Tensor) -> None:
        self.net.at_update(self.done)
        self.done += 1
        super().update_g(real)

    def texts(self, noise: Tensor) -> Tensor:
        h = self.hidden(noise)
        return (self.net.beta * (self.net.out(h) + noise)).softmax(-1)

    def hidden(self, noise: Tensor) -> Tensor:
        net = self.net
        with torch.no_grad():
            h, tokens = self.written(noise, cell(net.embedding.weight, net.lstm), zeros(len(noise), net.lstm))
        return net.lstm(net.embedding(before(tokens)))[0] if torch.is_grad_enabled() else h

    def written(self, noise: Tensor, follows: Next, state: State) -> tuple[Tensor, Tensor]:
        token, made, tokens = noise.new_zeros(len(noise), dtype=torch.int64), [], []
        for g in noise.unbind(1):
            state = follows(token, state)
            made.append(state[0])
            with torch.no_grad():
                token = torch.addmm(g, made[-1], self.net.out.weight.T).add_(self.net.out.bias).argmax(-1)
            tokens.append(token)
        return torch.stack(made, 1), torch.stack(tokens, 1)

    def by_pairs(self, critic: Any, real: Tensor, fake: Tensor, sign: int = 1) -> Tensor:
        x = torch.cat([F.embedding(real, critic.embedding.weight.T), critic.embedding(fake)])
        on_real, on_fake = representations(critic, x).chunk(2)
        return -F.logsigmoid(sign * (on_real - on_fake)).mean()


def representations(critic: Any, x: Tensor) -> Tensor:
    """Scores (N, R) of vectors (N, T, E)."""
    x, features = x.unflatten(2, (critic.representations, -1)), []
    for conv in critic.convolutions:
        k = conv.kernel_size[0]
        windows = torch.cat([x[:, j : x.shape[1] - k + 1 + j] for j in range(k)], -1)
        features.append(F.linear(windows, conv.weight.transpose(1, 2).flatten(1), conv.bias).amax(1))
    h = critic.dropout(highway(critic, F.relu(torch.cat(features, -1))))
    return critic.score(critic.hidden(h))[..., 0]


class Remembered(Relaxed):
    """RelGAN of a relational memory, through whose steps gradients go."""

    def hidden(self, noise: Tensor) -> Tensor:
        memory = self.net.begin(len(noise))
        return self.written(noise, attending(self.net), (memory.flatten(1), memory))[0]


def attending(net: Any) -> Next:
    """Steps of a relational memory; what a token adds is from tables."""
    m = net.memory
    u = m.inside(net.embedding.weight)
    gates = m.input_gates(u)
    norms = (m.qkv_norm, m.attended_norm, m.mlp_norm)
    qkv_norm, attended_norm, mlp_norm = (normed(norm, m.slots + 1) for norm in norms)

    def follows(token: Tensor, state: State) -> State:
        memory = state[1]
        z = torch.cat([memory, u[token][:, None]], 1)
        qkv = qkv_norm(m.qkv(z)).unflatten(2, (m.heads, -1)).transpose(1, 2)
        q, k, v = qkv.chunk(3, -1)
        attention = (q @ k.transpose(2, 3) * (3 * m.head_size) ** -0.5).softmax(-1)
        z = attended_norm(z + (attention @ v).transpose(1, 2).flatten(2))
        z = mlp_norm(z + m.mlp(z))[:, : m.slots]
        i, f = (m.memory_gates(memory.tanh()) + gates[token][:, None]).chunk(2, -1)
        memory = torch.addcmul((f + 1).sigmoid() * memory, i.sigmoid(), z.tanh())
        return memory.flatten(1), memory

    return follows


def normed(norm: Any, rows: int) -> Callable[[Tensor], Tensor]:
    weight, bias = (p.expand(rows, -1).contiguous() for p in (norm.weight, norm.bias))
    return lambda x: F.layer_norm(x, x.shape[1:], weight, bias, 1e-12)


# ---------------------------------------------------------------------- SeqGAN
def drawn(logits: Tensor, u: Tensor) -> Tensor:
    """Tokens (N,) of logits (N, V) and uniform numbers (N,)."""
    sums = logits.softmax(-1).cumsum(-1)
    return (sums < u[:, None] * sums[:, -1:]).sum(1)


class Rewarded(Loop):
    """SeqGAN."""

    rollouts, l2, delay = 16, 0.2, 0.8

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.g_optimizer = Clipped(self.g_parameters, lr=self.options["lr_g"], betas=(0.9, 0.999), fused=True)
        self.net: Any = self.generator
        self.delayed, self.tokens = copy.deepcopy(self.net), as_tokens(setting.data)
        self.generator: Any = lambda u: self.written(self.net, u)
        self.d_loss = self.apart

    def real(self) -> Tensor:
        return self.tokens[torch.randint(len(self.tokens), (self.setting.batch,))]

    def noise(self, factor: int = 1) -> Tensor:
        return torch.rand(self.setting.batch, SHAPE[0])

    def apart(self, critic: Any, real: Tensor, fake: Tensor) -> Tensor:
        on_real, on_fake = scores(critic, critic.embedding(torch.cat([real, fake]))).chunk(2)
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        return loss + self.l2 * (critic.score.weight.square().sum() + critic.score.bias.square().sum())

    @torch.no_grad()
    def written(self, net: Any, u: Tensor) -> Tensor:
        follows, state, made = cell(net.embedding.weight, net.lstm), zeros(len(u), net.lstm), []
        token = torch.zeros(len(u), dtype=torch.int64)
        for share in u.unbind(1):
            state = follows(token, state)
            token = drawn(net.out(state[0]), share)
            made.append(token)
        return torch.stack(made, 1)

    def update_g(self, real: Tensor) -> None:
        tokens = self.generator(self.noise())
        step(self.policy(tokens, self.rewards(tokens)), self.g_parameters, self.g_optimizer)
        with torch.no_grad():
            old, new = list(self.delayed.parameters()), list(self.net.parameters())
            torch._foreach_lerp_(old, new, 1 - self.delay)
            self.delayed.embedding.weight.copy_(self.net.embedding.weight)

    def policy(self, tokens: Tensor, rewards: Tensor) -> Tensor:
        logits = self.net.out(self.net.lstm(self.net.embedding(before(tokens)))[0])
        return (F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none") * rewards.flatten()).sum()

    @torch.no_grad()
    def rewards(self, tokens: Tensor) -> Tensor:
        """(N, T)."""
        self.critic.eval()
        tables = [convolved(self.critic.embedding.weight, conv) for conv in self.critic.convolutions]
        texts = self.continued(tokens)
        found = [self.worth(x.flatten(0, 1), tables).view(x.shape[:2]).mean(0) for x in texts]
        found.append(self.worth(tokens, tables))
        self.critic.train()
        return torch.stack(found, 1)

    def worth(self, tokens: Tensor, tables: list[Tensor]) -> Tensor:
        """D of tokens (N, T)."""
        maxima = []
        for table, conv in zip(tables, self.critic.convolutions):
            places = tokens.shape[1] - len(table) + 1
            windows = [part[tokens[:, j : j + places]] for j, part in enumerate(table)]
            maxima.append(reduce(Tensor.add_, windows).amax(1) + conv.bias)
        return verdict(self.critic, torch.cat(maxima, 1)).sigmoid()

    def continued(self, tokens: Tensor) -> Tensor:
        """Texts (T - 1, R, N, T) that begin as these, with one token more each time; all are written together."""
        (n, length), net, r = tokens.shape, self.delayed, self.rollouts
        texts = tokens.expand(length - 1, r, n, length).clone()
        follows, state = cell(net.embedding.weight, net.lstm), zeros(n, net.lstm)
        read = torch.zeros(n, dtype=torch.int64)
        for t in range(length):
            state = follows(read, state)
            if t:  # behind the others the text as it is, of which a beginning parts now
                state = tuple(torch.cat([s[:-n], s[-n:].repeat(r, 1), s[-n:]]) for s in state)
                new = drawn(net.out(state[0][:-n]), torch.rand(t * r * n))
                texts[:t, ..., t] = new.view(t, r, n)
                read = torch.cat([new, tokens[:, t]])
            else:
                read = tokens[:, 0]
        return texts


def scores(critic: Any, x: Tensor) -> Tensor:
    """Scores (N,) of vectors (N, T, E)."""
    x = x.transpose(1, 2).contiguous()
    return verdict(critic, torch.cat([conv(x).amax(-1) for conv in critic.convolutions], 1))


def verdict(critic: Any, maxima: Tensor) -> Tensor:
    logits = critic.score(critic.dropout(highway(critic, F.relu(maxima))))
    return logits[:, 1] - logits[:, 0]


def convolved(vectors: Tensor, conv: Any) -> Tensor:
    """(K, V, F), what each token adds to a convolution of which it has the first place, the second, ..."""
    return torch.einsum("ve, fek -> kvf", vectors, conv.weight).contiguous()


# ---------------------------------------------------------------------- the rows
@dataclass(frozen=True)
class Row:
    """A game, and how long a round is.

    Attributes:
        title: what the table calls it.
        technique: by its key in TECHNIQUES.
        networks: makes them.
        loop: of the skilled side.
        options: of the technique.
        updates: of G in a round, on each side.
        latent_dim: of the technique.
        one_hot: ours has one-hot data.
        batch: texts of an update.
    """

    title: str
    technique: str
    networks: Callable[[], tuple[nn.Module, ...]]
    loop: Callable[[], Loop]
    options: dict[str, Any]
    updates: int
    latent_dim: int = SHAPE[0]
    one_hot: bool = False
    batch: int = 32

    def setting(self) -> Setting:
        """The game with its data."""
        torch.manual_seed(0)
        data, networks = torch.randint(SHAPE[1], (2000, SHAPE[0])), self.networks
        made: Any = F.one_hot(data, SHAPE[1]).float() if self.one_hot else data
        return Setting(networks, made, self.batch, self.latent_dim, self.options, loop=self.loop)  # type: ignore[arg-type]


def representing() -> nn.Module:
    return RelGANDiscriminator(SHAPE, embedding=32, representations=8, filters=32, hidden=32)


def judging(kernels: tuple[int, ...] = (1, 2, 3, 4)) -> Any:
    return SeqGANDiscriminator(SHAPE, embedding=32, kernels=kernels, filters=32)


RATES = {"lr_g": 1e-4, "lr_d": 1e-4}
ROWS = {
    "rel_gan_lstm": Row(
        "RelGAN, LSTM", "rel_gan", lambda: (LSTMGenerator(SHAPE), representing()), Relaxed,
        {**RATES, "d_steps": 5}, 16, SHAPE[0] * SHAPE[1], one_hot=True,
    ),
    "rel_gan": Row(
        "RelGAN, relational memory", "rel_gan", lambda: (RelationalGenerator(SHAPE, head_size=16), representing()),
        Remembered, {**RATES, "d_steps": 5}, 12, SHAPE[0] * SHAPE[1], one_hot=True,
    ),
    "seq_gan": Row(
        "SeqGAN, 16 rollouts", "seq_gan", lambda: (LanguageModel(SHAPE), judging()), Rewarded,
        {"lr_g": 1e-3, "lr_d": 1e-4, "d_steps": 5, "betas": (0.9, 0.999)}, 8,
    ),
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Texts beside a skilled engineer's loop, in CPU time.")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=float, default=1.0, help="times the updates of a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger(pl.__name__).setLevel(logging.ERROR)
    print("| game | rounds x updates | skilled, ms per update | ours, ms | ratio, whole | ratio, steady | at most |")
    print("|---" * 7 + "|")
    for name in options.only:
        row = ROWS[name]
        found = compare(row.technique, row.setting(), options.rounds, max(2, int(row.updates * options.updates)), None)
        print(f"| {row.title} " + found.removeprefix(f"| {row.technique} "), flush=True)


if __name__ == "__main__":
    main()
