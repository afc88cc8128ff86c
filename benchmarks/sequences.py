"""Texts: each technique by ``trainer.fit`` beside the loop that a skilled engineer writes for it.

Run from the repository's root::

    python -m benchmarks.sequences                           # every row
    python -m benchmarks.sequences --only rel_gan seq_gan    # some rows

Clock, protocol and columns are those of `benchmarks.techniques`. Texts of 16 characters of 27, at random, in memory;
the loops keep tokens, and have the library's networks for their weights alone. What they do otherwise:

* a token is drawn by a uniform number and the sums of a softmax, Gumbel noise is of one exponential number;
* what a token adds to an LSTM's gates is in a table;
* rewards and what LeakGAN reads are of convolutions by tables, its written and real texts in one pass of G;
* convolutions of RelGAN's few channels are matrix products, its real texts are tokens, also where ours are one-hot;
* style transfer encodes a sentence once for both texts made of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.images import Clipped
from benchmarks.skilled import Loop, Setting, step
from benchmarks.techniques import measure
from lightning_gans.functional.goals import goal_cosines, goal_sums, intrinsic_rewards
from lightning_gans.functional.policy import rank_rescaled
from lightning_gans.networks import (
    LanguageModel,
    LeakGANGenerator,
    LSTMGenerator,
    RelationalGenerator,
    RelGANDiscriminator,
    SeqGANDiscriminator,
    StyleAutoencoder,
)
from lightning_gans.networks.language import before

SHAPE, CODE = (16, 27), 32
State = tuple[Tensor, ...]
Next = Callable[[Tensor, State, int], State]  # of tokens, a state and its place; what logits are of comes first


def as_tokens(data: Tensor) -> Tensor:
    return data.argmax(-1) if data.is_floating_point() else data


def highway(net: Any, features: Tensor) -> Tensor:
    return torch.lerp(features, F.relu(net.lifted(features)), net.gate(features).sigmoid())


def zeros(n: int, net: nn.LSTM) -> State:
    return tuple(net.weight_hh_l0.new_zeros(n, net.hidden_size) for _ in range(2))


def halved(net: nn.LSTM) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (inputs, state) and bias of gates of which one sigmoid is enough: tanh(x) = 2 sigmoid(2 x) - 1."""
    twice = net.weight_hh_l0.new_ones(4, net.hidden_size)
    twice[2] = 2
    twice = twice.flatten()
    return net.weight_ih_l0.T * twice, net.weight_hh_l0.T * twice, net.bias_ih_l0 * twice


def moved(gates: Tensor, c: Tensor) -> State:
    i, f, g, o = gates.sigmoid().chunk(4, 1)
    c = torch.addcmul(f * c, i, 2 * g - 1)
    return o * c.tanh(), c


def cell(vectors: Tensor, net: nn.LSTM) -> Next:
    """Steps of an LSTM, of whose gates each token's part is in a table."""
    inputs, weight, bias = halved(net)
    table = torch.addmm(bias, vectors, inputs)
    return lambda token, state, t: moved(torch.addmm(table[token], state[0], weight), state[1])


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
        for t, g in enumerate(noise.unbind(1)):
            state = follows(token, state, t)
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

    def follows(token: Tensor, state: State, t: int) -> State:
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

    rollouts, every, l2, delay = 16, 1, 0.2, 0.8

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

    def begun(self, net: Any, n: int) -> tuple[Next, State]:
        """The steps of a language model, and its first state."""
        return cell(net.embedding.weight, net.lstm), zeros(n, net.lstm)

    @torch.no_grad()
    def written(self, net: Any, u: Tensor) -> Tensor:
        (follows, state), made = self.begun(net, len(u)), list[Tensor]()
        token = torch.zeros(len(u), dtype=torch.int64)
        for t, share in enumerate(u.unbind(1)):
            state = follows(token, state, t)
            token = drawn(net.out(state[0]), share)
            made.append(token)
        return torch.stack(made, 1)

    def update_g(self, real: Tensor) -> None:
        tokens = self.generator(self.noise())
        step(self.policy(tokens, self.rewards(tokens), real), self.g_parameters, self.g_optimizer)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.delayed.parameters()), list(self.net.parameters()), 1 - self.delay)
            self.delayed.embedding.weight.copy_(self.net.embedding.weight)

    def policy(self, tokens: Tensor, rewards: Tensor, real: Tensor) -> Tensor:
        logits = self.net.out(self.net.lstm(self.net.embedding(before(tokens)))[0])
        return (surprise(logits, tokens) * rewards).sum()

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
        """Texts (K, R, N, T) that begin as these, with ``every`` tokens more each time; all are written together."""
        (n, length), net, r = tokens.shape, self.delayed, self.rollouts
        texts = tokens.expand((length - 1) // self.every, r, n, length).clone()
        follows, state = self.begun(net, n)
        read = torch.zeros(n, dtype=torch.int64)
        for t in range(length):
            state, k = follows(read, state, t), t // self.every
            if t and t % self.every == 0:  # behind the others the text as it is, of which a beginning parts now
                state = tuple(torch.cat([s[:-n], s[-n:].repeat(r, *[1] * (s.dim() - 1)), s[-n:]]) for s in state)
            read = tokens[:, t]
            if k:
                new = drawn(net.out(state[0][:-n]), torch.rand(k * r * n))
                texts[:k, ..., t] = new.view(k, r, n)
                read = torch.cat([new, read])
        return texts


def surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


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


# ---------------------------------------------------------------------- LeakGAN
class Leaked(Rewarded):
    """LeakGAN, whose features of what is written are kept up with, token by token."""

    rollouts, every = 4, 4

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.delayed.leaked = self.net.leaked

    def after_d(self, real: Tensor, fake: Tensor) -> None:
        with torch.no_grad():
            torch._foreach_copy_(list(self.net.leaked.parameters()), list(self.critic.parameters()))

    def begun(self, net: Any, n: int) -> tuple[Next, State]:
        (inputs, weight, bias), worker = halved(net.manager), cell(net.embedding.weight, net.lstm)
        add, windows = reading(net.leaked, n)
        goals = inputs.new_zeros(n, net.horizon, len(inputs))

        def follows(token: Tensor, state: State, t: int) -> State:
            _, mh, mc, wh, wc, goals, *windows = state
            if t:
                add(windows, token, t - 1)
            features = highway(net.leaked, most(windows))
            mh, mc = moved(torch.addmm(torch.addmm(bias, features, inputs), mh, weight), mc)
            goals[:, t % net.horizon] = F.normalize(net.aim(mh), dim=-1)
            wh, wc = worker(token, (wh, wc), t)
            return turned(net, wh, goals.sum(1)), mh, mc, wh, wc, goals, *windows

        return follows, (inputs.new_zeros(n, 0), *zeros(n, net.manager), *zeros(n, net.lstm), goals, *windows)

    def policy(self, tokens: Tensor, rewards: Tensor, real: Tensor) -> Tensor:
        net, n, both = self.net, len(tokens), torch.cat([tokens, real])
        features = self.features(both)
        goals = F.normalize(net.aim(net.manager(features[:, :-1])[0]), dim=-1)
        h = net.lstm(net.embedding(before(both)))[0]
        nll = surprise(net.out(turned(net, h, goal_sums(goals.detach(), self.every))), both)
        missed = 1 - goal_cosines(features, goals, self.every)
        followed = intrinsic_rewards(features[:n], goals[:n].detach(), self.every)
        own = (missed[:n] * rank_rescaled(rewards)).sum() + (nll[:n] * followed).sum()
        return own + nll[n:].sum() + missed[n:].sum()

    @torch.no_grad()
    def features(self, tokens: Tensor) -> Tensor:
        """(N, T + 1, F) of texts of which 0, ..., T tokens are written."""
        add, windows = reading(self.net.leaked, len(tokens))
        found = [most(windows)]
        for t, token in enumerate(tokens.unbind(1)):
            add(windows, token, t)
            found.append(most(windows))
        return highway(self.net.leaked, torch.stack(found, 1))


def reading(critic: Any, n: int) -> tuple[Callable[[Sequence[Tensor], Tensor, int], None], list[Tensor]]:
    """What adds a token to the sums of a convolution's windows (N, L, F), and these sums of texts without a token."""
    tables = [convolved(critic.embedding.weight, conv).flip(0).transpose(0, 1) for conv in critic.convolutions]
    windows = [
        conv.bias.repeat(n, SHAPE[0] - table.shape[1] + 1, 1) for table, conv in zip(tables, critic.convolutions)
    ]

    def add(windows: Sequence[Tensor], token: Tensor, t: int) -> None:
        for table, sums in zip(tables, windows):
            k = table.shape[1]
            first, end = max(0, t - k + 1), min(t + 1, sums.shape[1])
            sums[:, first:end] += table[:, k - 1 - t + first : k - 1 - t + end][token]

    return add, windows


def most(windows: Sequence[Tensor]) -> Tensor:
    return F.relu(torch.cat([sums.amax(1) for sums in windows], 1))


def turned(net: Any, h: Tensor, goals: Tensor) -> Tensor:
    w = F.normalize(net.turn(goals), dim=-1)
    return (F.pad(h, (0, 1), value=1.0)[..., None] * w[..., None, :]).flatten(-2)


# ---------------------------------------------------------------------- style transfer
class Rewritten(Loop):
    """Style transfer; a sentence is encoded once for both texts that are made of it."""

    def begin(self, setting: Setting) -> None:
        made = list[nn.Module]()

        def networks() -> Any:
            made.extend(setting.networks())
            return made[:2]

        super().begin(replace(setting, networks=networks))
        self.g_optimizer = Clipped(self.g_parameters, lr=self.options["lr_g"], betas=(0.9, 0.999), fused=True)
        self.net: Any = self.generator
        self.classifier, self.tokens, self.styles = made[2].eval(), as_tokens(setting.data), setting.labels
        self.classifier.requires_grad_(False)
        self.generator: Any = self.rewritten
        self.d_loss, self.g_loss, self.done = self.logistic, self.terms, 0

    def real(self) -> Any:
        which = torch.randint(len(self.tokens), (self.setting.batch,))
        self.last = self.tokens[which], self.styles[which]  # type: ignore[index]
        return self.last

    def noise(self, factor: int = 1) -> Any:
        return self.last

    def update_g(self, real: Tensor) -> None:
        self.net.at_update(self.done)
        self.done += 1
        super().update_g(real)

    def rewritten(self, given: tuple[Tensor, Tensor]) -> Tensor:
        """Relaxed texts in the other style; tokens are mixtures of rows of a table."""
        (tokens, styles), net = given, self.net
        self.code = net.encoder(net.embedding(tokens))[1][0, :, -net.code :]
        gru, h = net.decoder, self.begun(1 - styles)
        table = F.linear(net.embedding.weight, gru.weight_ih_l0, gru.bias_ih_l0)
        x, made, width = table[:1].expand(len(tokens), -1), list[Tensor](), gru.hidden_size
        for _ in range(tokens.shape[1]):
            own = F.linear(h, gru.weight_hh_l0, gru.bias_hh_l0)
            r, z = (x[:, : 2 * width] + own[:, : 2 * width]).sigmoid().chunk(2, 1)
            h = torch.lerp(torch.addcmul(x[:, 2 * width :], r, own[:, 2 * width :]).tanh(), h, z)
            made.append((net.beta * net.out(h)).softmax(-1))
            x = made[-1] @ table
        return torch.stack(made, 1)

    def begun(self, styles: Tensor) -> Tensor:
        return torch.cat([self.net.styles(styles), self.code], 1)

    def logistic(self, critic: Any, real: tuple[Tensor, Tensor], fake: Tensor) -> Tensor:
        x = torch.cat([critic.embedding(real[0]), fake @ critic.embedding.weight])
        on_real, on_fake = scores(critic, x).chunk(2)
        return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()

    def terms(self, critic: Any, fake: Tensor, real: tuple[Tensor, Tensor]) -> Tensor:
        (tokens, styles), net, classifier = real, self.net, cast(Any, self.classifier)
        told = scores(classifier, fake @ classifier.embedding.weight)
        style = F.softplus((2 * styles - 1) * told).mean()
        adversarial = F.softplus(-scores(critic, fake @ critic.embedding.weight)).mean()
        logits = net.out(net.decoder(net.embedding(before(tokens)), self.begun(styles)[None])[0])
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten()) + 0.1 * style + 0.02 * adversarial


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
        styles: they have one of two, at random.
        batch: texts of an update.
        target: of the ratio; there is none.
    """

    title: str
    technique: str
    networks: Callable[[], tuple[nn.Module, ...]]
    loop: Callable[[], Loop]
    options: dict[str, Any]
    updates: int
    latent_dim: int = SHAPE[0]
    one_hot: bool = False
    styles: bool = False
    batch: int = 32
    target: None = None

    def setting(self) -> Setting:
        """The game with its data."""
        torch.manual_seed(0)
        data, networks = torch.randint(SHAPE[1], (2000, SHAPE[0])), self.networks
        made: Any = F.one_hot(data, SHAPE[1]).float() if self.one_hot else data
        styles = torch.randint(2, (len(data),)) if self.styles else None
        return Setting(networks, made, self.batch, self.latent_dim, self.options, loop=self.loop, labels=styles)  # type: ignore[arg-type]


def representing() -> nn.Module:
    return RelGANDiscriminator(SHAPE, embedding=32, representations=8, filters=32, hidden=32)


def judging(kernels: tuple[int, ...] = (1, 2, 3, 4)) -> Any:
    return SeqGANDiscriminator(SHAPE, embedding=32, kernels=kernels, filters=32)


def leaking() -> tuple[nn.Module, ...]:
    critic = judging()
    return LeakGANGenerator(critic, SHAPE), critic


def transferring() -> tuple[nn.Module, ...]:
    autoencoder = StyleAutoencoder(SHAPE, CODE + SHAPE[0], embedding=32, style=16)
    return autoencoder, judging((3, 4, 5)), judging((1, 2, 3))


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
    "leak_gan": Row(
        "LeakGAN, 4 rollouts behind every 4th token", "leak_gan", leaking, Leaked,
        {"lr_g": 1e-3, "lr_d": 1e-4, "d_steps": 5, "betas": (0.9, 0.999)}, 8,
    ),
    "style_transfer": Row(
        "style transfer, 1 D + 1 G", "style_transfer", transferring, Rewritten,
        {"lr_g": 5e-4, "lr_d": 5e-4, "betas": (0.9, 0.999)}, 30, CODE + SHAPE[0], one_hot=True, styles=True,
    ),
}  # fmt: skip


if __name__ == "__main__":
    measure(ROWS, "Texts beside a skilled engineer's loop, in CPU time.")
