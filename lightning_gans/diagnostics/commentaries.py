"""Weights of training items that make a discriminator good at clean ones (arXiv:2011.03037)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.commentaries import hypergradient, slopes_by
from lightning_gans.functional.conditional import score
from lightning_gans.functional.double_backward.input_gradient import twice_differentiable
from lightning_gans.functional.modes import copied, evaluating


def commentary_weights(
    discriminator: nn.Module, items: Tensor, clean: Tensor, fakes: Tensor, *, steps: int = 200, lr: float = 0.01,
    rate: float = 0.01, lr_weights: float = 0.1, batch_size: int = 128, seed: int = 0,
) -> Tensor:  # fmt: skip
    """A weight (N,) of mean one for each training item: low where it is of no use to tell clean items from fakes.

    A copy of D learns to tell weighted items from fakes, and with each of its steps the weights follow the gradient of
    its loss on clean items through the step (`functional.commentaries.hypergradient`, one term of the series). They go
    to ``MemoryLoader(weights=...)``, or to ``datamodules.Resampled`` as probabilities. About five times the cost of
    training D so long, where `callbacks.SampleRanking` costs a pass now and then.

    Args:
        discriminator: samples to scores (N,), of any technique; not changed.
        items: (N, ...) training data.
        clean: (M, ...) of which it is known that they are no outliers; some hundreds.
        fakes: (L, ...) samples of the model.
        steps: of D and of the weights.
        lr: of D's Adam.
        rate: alpha of the series, below 2 over the largest curvature of D's loss: a larger one turns weights round.
        lr_weights: of the weights' Adam.
        batch_size: of each.
        seed: of the batches.

    Raises:
        ValueError: for settings out of range, and where there are no items, clean ones or fakes.

    >>> from lightning_gans.networks import ToyDiscriminator
    >>> items, fakes = torch.randn(8, 2), torch.randn(8, 2)
    >>> weights = commentary_weights(ToyDiscriminator(width=8), items, clean=items[:4], fakes=fakes, steps=2)
    >>> weights.shape, round(float(weights.mean()), 3)
    (torch.Size([8]), 1.0)
    """
    checks.at_least_one(steps=steps, batch_size=batch_size)
    checks.positive(lr=lr, lr_weights=lr_weights)
    for name, given in (("items", items), ("clean", clean), ("fakes", fakes)):
        if len(given) == 0:
            raise ValueError(f"{name} must hold a sample, got none.")
    net, own = copied(discriminator).requires_grad_(True), torch.Generator().manual_seed(seed)
    phi = torch.zeros(len(items), device=items.device, requires_grad=True)
    theta = list(net.parameters())
    learners = torch.optim.Adam(theta, lr=lr), torch.optim.Adam([phi], lr=lr_weights)
    pick = lambda x: torch.randint(len(x), (batch_size,), generator=own).to(x.device)  # noqa: E731
    with evaluating(net), torch.enable_grad(), twice_differentiable(net):
        for _ in range(steps):
            index, good, fake = pick(items), clean[pick(clean)], fakes[pick(fakes)]
            false = F.softplus(score(net, fake)).mean()
            real, weight = F.softplus(-score(net, items[index])), phi[index].sigmoid()
            inner = (weight / weight.mean() * real).mean() + false  # of mean one: not simply more of the real
            outer = F.softplus(-score(net, good)).mean() + F.softplus(score(net, fake)).mean()
            phi.grad = hypergradient(inner, outer, theta, phi, rate)
            for p, g in zip(theta, slopes_by(inner, theta)):
                p.grad = g
            for learner in learners:
                learner.step()
    weights = phi.detach().sigmoid()
    return weights / weights.mean()
