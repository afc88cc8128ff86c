"""Policy gradients of text: its tokens are actions, a text's worth their reward."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import gather_rows, rank_and_world

Baseline = Literal["none", "batch"]
Reward = Literal["discriminator", "constant", "permuted"]


def check_policy(rollouts: int, delay: float, baseline: str, reward: str) -> None:
    """ValueError for settings of a policy gradient that are out of range, or leave nothing of it."""
    checks.at_least_one(rollouts=rollouts)
    checks.below_one(delay=delay)
    checks.one_of("baseline", baseline, get_args(Baseline))
    checks.one_of("reward", reward, get_args(Reward))
    if reward == "constant":
        checks.only("baseline", baseline, "none", "with reward='constant', of which it would leave nothing")


def check_batch(n: int, baseline: str) -> None:
    """ValueError for a batch (of this rank) of one text alone, of whose rewards the baseline leaves nothing."""
    if n * rank_and_world()[1] == 1:
        checks.only("baseline", baseline, "none", "with a batch of one text, of which it would leave nothing")


def policy_loss(nll: Tensor, reward: Tensor) -> Tensor:
    r"""The surrogate whose gradient is REINFORCE's, :math:`-\sum_{i, t} R_{it} \log p(y_{it} | y_{i, <t})`.

    A sum over the texts of all ranks and their tokens, not a mean; rewards are constants. (What ranks average
    afterwards is the sum of each one's times their number.)

    Args:
        nll: -log p (N, T) of tokens that p drew, in nats.
        reward: R (N, T).

    >>> nll = torch.tensor([[1.0, 2.0], [3.0, 0.5]], requires_grad=True)
    >>> loss = policy_loss(nll, torch.tensor([[0.5, 1.0], [0.0, 2.0]]))
    >>> float(loss), torch.autograd.grad(loss, nll)[0].tolist()
    (3.5, [[0.5, 1.0], [0.0, 2.0]])
    """
    return rank_and_world()[1] * (full_precision(nll) * reward.detach()).sum()


def permuted(rows: Tensor, u: Tensor) -> Tensor:
    """Rows (N, ...) in the order that random numbers u (N,) have, among those of all ranks.

    >>> permuted(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0.5, 0.9, 0.1])).flatten().tolist()
    [3.0, 1.0, 2.0]
    """
    rank, world = rank_and_world()
    return gather_rows(rows)[gather_rows(u).argsort()[rank::world]]


def rank_rescaled(reward: Tensor, delta: float = 12.0) -> Tensor:
    r"""What a reward is worth among the others of its place, :math:`\sigma(\delta\,(1/2 - \mathrm{rank}_i / B))`.

    Rank 1 is the best of the B texts of all processes, by itself in each column; equal ones share their mean rank. So
    the mean and variance of rewards are always the same, however little they differ. (LeakGAN, arXiv:1709.08624.)

    Args:
        reward: (N, ...).
        delta: > 0; how far apart the best and the worst are.

    >>> rank_rescaled(torch.tensor([[0.3], [0.1], [0.2], [0.1]])).flatten().tolist() == [
    ...     float(torch.tensor(12 * (0.5 - rank / 4)).sigmoid()) for rank in (1, 3.5, 2, 3.5)
    ... ]
    True
    """
    every, own = full_precision(gather_rows(reward))[None], full_precision(reward)[:, None]
    better, equal = ((every > own).to(own.dtype).sum(1), (every == own).to(own.dtype).sum(1))
    return (delta * (0.5 - (better + (equal + 1) / 2) / every.shape[1])).sigmoid()


@torch.no_grad()
def follow(delayed: nn.Module, live: nn.Module, delay: float, copied: Collection[str] = ()) -> None:
    """Move a network towards another one of its class: each weight becomes delay * its own + (1 - delay) * the other's.

    Args:
        delayed: is moved.
        live: stays.
        delay: in [0, 1]; 0 makes a copy.
        copied: parts of the network whose weights are copied; buffers are, too.

    >>> a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> _ = nn.init.ones_(a.weight), nn.init.zeros_(b.weight)
    >>> follow(a, b, 0.75), float(a.weight)
    (None, 0.75)
    """
    whole = {p for name in copied for p in delayed.get_submodule(name).parameters()}
    for old, new in zip(delayed.parameters(), live.parameters()):
        old.copy_(new) if old in whole else old.lerp_(new, 1 - delay)
    for buffer, value in zip(delayed.buffers(), live.buffers()):
        buffer.copy_(value)
