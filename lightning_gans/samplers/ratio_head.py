"""A discriminator trained further, with the generator as it is, until its logit is log p_data / p_generated."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from lightning_gans import checks
from lightning_gans.functional.conditional import score, takes_labels
from lightning_gans.functional.modes import copied, evaluating
from lightning_gans.samplers.base import BLOCK, discriminator_of, stream
from lightning_gans.samplers.calibration import check_alike, check_real, for_generator, logistic_fit

Part = Literal["network", "head"]
Fakes = Callable[[int, Generator, Tensor | None], Tensor]


class RatioHead(nn.Module):
    """A copy of a discriminator whose output is a logit: log p_d / p_g, once it is trained (`keep_training`).

    ========= ======================================================= ====================
    part      output                                                  what trains
    ========= ======================================================= ====================
    "network" a D(x) + b, begun by logistic regression                D, a and b
    "head"    linear, LeakyReLU, linear of D's features and its score the two linear layers
    ========= ======================================================= ====================

    The features are ``discriminator.features(x)``, if there is such a method, else what its last linear layer with one
    output is given, or if there is none its last linear layer; without either, the score is all. They are brought to
    mean 0 and deviation 1.

    Args:
        discriminator: copied; raw scores (N,), by any loss.
        part: what trains.
        real: (M, ...) real samples, by which scales are set.
        fake: (M, ...) generated ones.
        labels: (M,) of both.
        width: hidden units of the head.

    Attributes:
        history: (step, loss on held-out samples) of the training; 2 log 2 = 1.386 is that of l = 0.

    >>> critic, real, fake = nn.Linear(1, 1), 1 + torch.randn(2000, 1), torch.randn(2000, 1)  # log p_d / p_g = x - 1/2
    >>> head = RatioHead(critic, "network", real, fake)
    >>> zero, one = head(torch.tensor([[0.0], [1.0]])).tolist()
    >>> round(one - zero), round(2 * zero)
    (1, -1)
    """

    num_classes: int | None

    def __init__(
        self,
        discriminator: nn.Module,
        part: Part,
        real: Tensor,
        fake: Tensor,
        labels: Tensor | None = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        checks.one_of("part", part, get_args(Part))
        checks.at_least_one(width=width)
        self.part, self.history = part, list[tuple[int, float]]()
        self.discriminator = copied(discriminator).eval().requires_grad_(part == "network")
        self.num_classes = getattr(discriminator, "num_classes", 1) if takes_labels(discriminator) else None
        with torch.no_grad():
            parts = [self.features(x, labels) for x in (real, fake)]
        both = torch.cat(parts)
        if part == "network":
            begin = logistic_fit(*(features[:, -1] for features in parts))
            self.affine = nn.Parameter(both.new_tensor(begin))
            return
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", both.mean(0))
        self.register_buffer("scale", both.std(0).clamp_min(1e-6))
        layers = nn.Linear(both.shape[1], width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
        self.layers = nn.Sequential(*layers).to(both)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples ``(N, ...)`` to logits ``(N,)``."""
        if self.part == "network":
            return self.affine[0] * score(self.discriminator, x, labels) + self.affine[1]
        return self.layers((self.features(x, labels) - self.centre) / self.scale).squeeze(1)

    def features(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The features and, as the last column, the score, (N, F + 1)."""
        own = getattr(self.discriminator, "features", None)
        with _input_of_last_linear(self.discriminator) as seen:
            scores = score(self.discriminator, x, labels)
            seen = [own(x)] if callable(own) else seen[-1:]
        return torch.cat([*(h.reshape(len(x), -1) for h in seen if len(h) % len(x) == 0), scores[:, None]], 1)


@contextmanager
def _input_of_last_linear(network: nn.Module) -> Iterator[list[Tensor]]:
    """A list of what linear layers with one output are given meanwhile, or all of them where none has one."""
    seen: list[Tensor] = []
    linear = [m for m in network.modules() if "out_features" in vars(m)]  # torch's, and `networks.style`'s
    linear = [m for m in linear if m.out_features == 1] or linear
    handles = [layer.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[:1])) for layer in linear]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def keep_training(
    module: Any,
    real: Tensor,
    labels: Tensor | None = None,
    *,
    part: Part = "network",
    steps: int = 2000,
    patience: int | None = 10,
    held_out: float = 0.2,
    lr: float = 1e-4,
    seed: int = 0,
    progress: bool = True,
) -> RatioHead:
    """Train a copy of D, or a head on it, against G as it is, and stop when it no longer gets better on other data.

    Minimises -log sigmoid(l(x)) - log(1 - sigmoid(l(G(z)))), of which the optimum is l = log p_d / p_g, by Adam, in
    evaluation mode as it will be used. Works for any technique: a critic's scores become logits too. Every 50 updates
    the loss is taken on held-out real samples and as many fixed generated ones; the result is the best of these, the
    start included.

    Args:
        module: a trained module with ``sample`` and ``discriminator``; not changed.
        real: (M, ...) real samples, as the discriminator takes them, best those it was not trained on; M >= 10.
        labels: (M,) their labels, if the discriminator or the generator takes any. G's samples get the same ones.
        part: "network" trains all of D's copy, "head" two linear layers on its features.
        steps: updates at most, with batches of 100.
        patience: measurements without a better one after which to stop; None makes all the steps and keeps the last.
        held_out: share of the real samples that is held out, in (0, 1).
        lr: learning rate of Adam.
        seed: of the split, the batches, the noise and the head's weights.
        progress: show a bar.

    Raises:
        TypeError: for real samples that are no tensor.
        ValueError: for settings out of range, too few samples, and such as the generator does not make.

    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(discriminator=nn.Linear(1, 1))
    >>> module.sample = lambda n, labels, generator: torch.randn(n, 1, generator=generator)
    >>> head = keep_training(module, 1 + torch.randn(200, 1), steps=50, progress=False)
    >>> [step for step, held_out_loss in head.history]
    [0, 50]
    """

    def fakes(n: int, generator: Generator, given: Tensor | None) -> Tensor:
        return module.sample(n, for_generator(module, given), generator)  # type: ignore[no-any-return]

    def begin(x: Tensor, fake: Tensor, given: Tensor | None) -> RatioHead:
        return RatioHead(discriminator_of(module), part, x, fake, given)

    return train(begin, fakes, real, labels, steps, patience, held_out, lr, seed, progress)


def train(
    begin: Callable[[Tensor, Tensor, Tensor | None], RatioHead],
    fakes: Fakes,
    real: Tensor,
    labels: Tensor | None,
    steps: int,
    patience: int | None,
    held_out: float,
    lr: float,
    seed: int,
    progress: bool = True,
) -> RatioHead:
    """What `keep_training` does, for any source of generated samples.

    Args:
        begin: makes the head of real samples, generated ones and labels.
        fakes: ``(n, generator, labels) -> (n, ...)``.
        real: as the rest, see `keep_training`.
    """
    checks.at_least_one(steps=steps, **checks.given(patience=patience))
    checks.at_least(0, seed=seed)
    checks.positive(lr=lr)
    check_real(real, labels, 10)
    checks.inside(held_out=held_out)
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs for good
        generator = stream(seed, 0)
        order = torch.randperm(len(real), generator=generator)
        other = max(1, round(held_out * len(real)))

        def rows(which: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            given = None if labels is None else labels[which.to(labels.device)].clone()
            with torch.no_grad():
                fake = fakes(len(which), generator, given)
            check_alike(real, fake)
            return real[which.to(real.device)].to(fake.device), fake, None if given is None else given.to(fake.device)

        aside = [rows(which) for which in order[:other].split(BLOCK)]
        head = begin(*rows(order[other : other + 10 * BLOCK])).eval()
        optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=lr)

        @torch.no_grad()
        def measured(step: int) -> float:
            value = sum(float(loss(head, *part)) * len(part[0]) for part in aside) / other
            head.history.append((step, value))
            return value

        best, state, idle = measured(0), copy.deepcopy(head.state_dict()), 0
        with tqdm(total=steps, desc="keep training", leave=False, disable=not progress) as bar:
            for step in range(1, steps + 1):
                which = order[other:][torch.randint(len(real) - other, (BLOCK,), generator=generator)]
                optimizer.zero_grad()
                loss(head, *rows(which)).backward()
                optimizer.step()
                bar.update()
                if patience is None or (step % 50 and step != steps):
                    continue
                value, idle = measured(step), idle + 1
                bar.set_postfix(held_out=f"{value:.4f}", refresh=False)
                if value < best:
                    best, state, idle = value, copy.deepcopy(head.state_dict()), 0
                if idle >= patience or not math.isfinite(value):
                    break
    if patience is not None:
        head.load_state_dict(state)
    return head.requires_grad_(False)


def loss(head: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
    """-E log sigmoid(l(x)) - E log(1 - sigmoid(l(x'))), of a network in evaluation mode."""
    with evaluating(head):
        on_real, on_fake = (score(head, x, labels) for x in (real, fake))
    return F.softplus(-on_real.float()).mean() + F.softplus(on_fake.float()).mean()
