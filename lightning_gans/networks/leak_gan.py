"""LeakGAN's generator (Guo et al. 2018, arXiv:1709.08624)."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.goals import goal_cosines, goal_sums
from lightning_gans.functional.modes import copied, evaluating
from lightning_gans.functional.text import token_nll
from lightning_gans.networks.language import LanguageModel, before, lstm_step


class LeakGANGenerator(LanguageModel):
    r"""A language model of two: a manager reads a discriminator's features of a text, and gives a worker goals.

    .. math:: f_t = F(y_{1:t}), \qquad g_t \propto M\,\mathrm{LSTM}_m(f_t), \qquad
              w_t \propto \Psi \sum_{i=0}^{c-1} g_{t-i}, \qquad |g_t| = |w_t| = 1

    .. math:: O_t = A\,\mathrm{LSTM}_w(E_{y_t}) + B, \qquad p(y_{t+1} | y_{1:t}) = \mathrm{softmax}(O_t w_t)

    F is ``leaked``, a copy of a discriminator, frozen and in evaluation mode, which `LeakGAN` keeps at what its
    discriminator is: so this network is whole, and its checkpoint brings along what it was trained to read. Where
    nothing is written yet F reads token -1. Goals are constants to the worker, features to both: the manager learns
    by :meth:`losses` and `LeakGAN` alone. Noise is as of a `LanguageModel`.

    Args:
        discriminator: with ``features(x)`` (N, F) of tokens (N, T) int64, of which some are -1; where it has
            ``read_on`` (see `SeqGANDiscriminator`), a text that is being written is not read anew for each token.
        shape: (T, V), length and number of symbols.
        embedding: width of E.
        hidden: width of both LSTMs.
        goal_size: length of w.
        horizon: c, tokens within which a goal is to be reached.

    Raises:
        TypeError: for a discriminator without features.
        ValueError: for sizes out of range, and a discriminator of other texts.

    >>> from lightning_gans.networks import SeqGANDiscriminator
    >>> model = LeakGANGenerator(SeqGANDiscriminator((20, 50), filters=4), (20, 50))
    >>> model(torch.zeros(2, 20)).shape, model.nll(torch.zeros(2, 20, dtype=torch.int64)).shape
    (torch.Size([2, 20]), torch.Size([2, 20]))
    """

    def __init__(
        self,
        discriminator: nn.Module,
        shape: tuple[int, int] = (32, 27),
        embedding: int = 32,
        hidden: int = 32,
        goal_size: int = 16,
        horizon: int = 4,
    ) -> None:
        super().__init__(shape, embedding, hidden)
        checks.at_least_one(goal_size=goal_size, horizon=horizon)
        if not hasattr(discriminator, "features"):
            raise TypeError(f"discriminator must have features, got {type(discriminator).__name__} without.")
        for name in ("length", "vocabulary_size"):  # of another length it would read on otherwise than it reads a whole
            known = getattr(discriminator, name, getattr(self, name))
            checks.only(f"discriminator.{name}", known, getattr(self, name), "as the texts have")
        self.horizon, self.leaked = horizon, copied(discriminator).requires_grad_(False)
        try:
            size = self.read(torch.zeros(1, self.length, dtype=torch.int64)).shape[1]
        except RuntimeError as error:  # of kernels that are wider, say
            raise ValueError(
                f"discriminator must read texts of {self.length} tokens, got one that fails: {error}"
            ) from error
        self.manager, self.aim = nn.LSTM(size, hidden, batch_first=True), nn.Linear(hidden, size)
        nn.init.zeros_(self.manager.get_parameter("bias_hh_l0")).requires_grad_(False)  # the other one does the same
        self.turn = nn.Linear(size, goal_size, bias=False)
        self.out = nn.Linear(goal_size * (hidden + 1), self.vocabulary_size, bias=False)  # A and B, flat
        nn.init.uniform_(self.out.weight, -(hidden**-0.5), hidden**-0.5)  # as of a linear layer of the worker's h alone

    @torch.no_grad()
    def read(self, written: Tensor) -> Tensor:
        """The leaked features (N, F) of tokens (N, T), -1 where none is yet."""
        with evaluating(self.leaked):
            return cast(Any, self.leaked).features(written)

    def plan(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, T + 1, F) of texts of which 0, ..., T tokens are written, and goals (N, T, F) at the first T."""
        n, length = tokens.shape
        kept = tokens.new_ones(length + 1, length, dtype=torch.bool).tril(-1)
        features = self.read(torch.where(kept, tokens[:, None], -1).flatten(0, 1)).unflatten(0, (n, length + 1))
        return features, F.normalize(self.aim(self.manager(features[:, :-1])[0]), dim=-1)

    def logits(self, tokens: Tensor) -> Tensor:
        """Of each token given those before it, (N, T, V) for tokens (N, T), all at once."""
        return self.followed(tokens, self.plan(tokens)[1])

    def followed(self, tokens: Tensor, goals: Tensor) -> Tensor:
        """The worker's logits (N, T, V) of tokens (N, T) where a manager has goals (N, T, F)."""
        h = self.lstm(self.embedding(before(tokens)))[0]
        return self.out(self._turned(h, goal_sums(goals.detach(), self.horizon)))

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One of both LSTMs, after another look at what is written."""
        t, seen, manager, worker, goals = state or (0, None, None, None, [])
        features, seen = self.seen(token, t, seen)
        aimed, manager = lstm_step(self.manager, features, manager)
        goals = [*goals, F.normalize(self.aim(aimed), dim=-1)][-self.horizon :]
        h, worker = lstm_step(self.lstm, self.embedding(token), worker)
        return self._turned(h, sum(goals)), (t + 1, seen, manager, worker, goals)

    @torch.no_grad()
    def seen(self, token: Tensor, t: int, seen: Any) -> tuple[Tensor, Any]:
        """The leaked features of t tokens, the last of which is ``token``, and what the next look begins with."""
        if t == 0 or not hasattr(self.leaked, "read_on"):  # the first token, 0, is none of the text
            written = token.new_full((len(token), self.length), -1) if seen is None else seen.clone()
            if t:
                written[:, t - 1] = token
            return self.read(written), None if hasattr(self.leaked, "read_on") else written
        with evaluating(self.leaked):
            return cast(Any, self.leaked).read_on(token, t - 1, seen)

    def told(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-log p (N, T) of tokens, in nats, and what :meth:`plan` gives."""
        features, goals = self.plan(tokens)
        return token_nll(self.followed(tokens, goals), tokens), features, goals

    def losses(self, tokens: Tensor) -> dict[str, Tensor]:
        """What maximum likelihood minimises of texts: -log p (N, T), and by how much goals are missed (N, T / c)."""
        nll, features, goals = self.told(tokens)
        return {"nll": nll, "manager": 1 - goal_cosines(features, goals, self.horizon)}

    def _turned(self, h: Tensor, goals: Tensor) -> Tensor:
        """[h; 1] times w, flat: what O w is a linear function of, without O, which has V rows for each place."""
        w = F.normalize(self.turn(goals), dim=-1)
        return (F.pad(h, (0, 1), value=1.0)[..., None] * w[..., None, :]).flatten(-2)
