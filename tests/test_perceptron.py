"""The input gradient of perceptrons, one operation with its gradient written out, equals torch's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lightning_gans.functional.conditional import score
from lightning_gans.functional.double_backward import input_gradient as module
from lightning_gans.functional.double_backward.input_gradient import (
    double_backward,
    input_gradient,
    scores_and_gradient,
)
from lightning_gans.functional.double_backward.perceptron import perceptron_layers
from lightning_gans.networks import ToyDiscriminator

CRITICS = {
    "ReLU": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)),
    "leaky": lambda: nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(0.2, True), nn.Linear(5, 1, bias=False)),
    "both": lambda: nn.Sequential(nn.Linear(6, 5, False), nn.ReLU(True), nn.Linear(5, 4), nn.LeakyReLU(),
                                  nn.Linear(4, 1)),
    "flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)),
    "flat scores": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1), nn.Flatten(0)),
    "linear": lambda: nn.Sequential(nn.Linear(6, 1)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.4), nn.Linear(9, 8), nn.ReLU(),
                                     nn.Dropout(0.2), nn.Linear(8, 1)),
    "silent dropout": lambda: nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(), nn.Dropout(), nn.Linear(5, 1)).eval(),
    "toy": lambda: ToyDiscriminator((6,), width=5),
    "a layer twice": lambda: nn.Sequential(*[nn.Linear(6, 6), nn.ReLU()] * 2, nn.Linear(6, 1)),
    "tied weights": lambda: tied(),
    "a hook of a weight": lambda: halved(),
}  # fmt: skip


def tied() -> nn.Module:
    critic = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1))
    critic[2].weight = critic[0].weight
    return critic


def halved() -> nn.Module:
    critic = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)).double()
    critic[0].weight.register_hook(lambda g: g / 2)
    return critic


def samples() -> Tensor:
    x = torch.randn(7, 6, dtype=torch.double)
    x[0] = 0  # where a unit without bias is at its kink
    return x


def found(critic: nn.Module, x: Tensor, method: Any, again: bool = False) -> list[Tensor]:
    """The input gradient, the gradient of a function of it, and the gradient of that one's."""
    parameters = list(critic.parameters())
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    torch.manual_seed(1)  # masks
    with double_backward(method):
        gradient = input_gradient(partial(score, critic, labels=None), x)
    loss = (gradient.square().sum(1) - 1).square().mean() + gradient.sin().sum()
    first = torch.autograd.grad(loss, parameters, create_graph=again, **options)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), parameters, **options) if again else ()
    return [gradient, *first, *second]


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("again", [False, True])
def test_it_equals_torchs_own(name: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    critic, x = CRITICS[name]().double(), samples()
    plain = found(critic, x, "plain", again)
    calls: list[int] = []
    whole = module.perceptron_input_gradient
    monkeypatch.setattr(module, "perceptron_input_gradient", lambda *a: (calls.append(1), whole(*a))[1])
    for one, other in zip(found(critic, x, "sparse", again), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert calls == [1]


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("again", [False, True])
def test_scores_come_from_the_same_pass(name: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gradient of what is made of both, and of either alone."""
    calls: list[int] = []
    whole = module.perceptron_scores_and_gradient
    monkeypatch.setattr(module, "perceptron_scores_and_gradient", lambda *a: (calls.append(1), whole(*a))[1])
    torch.manual_seed(0)
    critic, x = CRITICS[name]().double(), samples()
    parameters = list(critic.parameters())
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True, "create_graph": again}
    everything = []
    for method in ("plain", "sparse"):
        torch.manual_seed(1)
        with double_backward(method):
            scores, gradient = scores_and_gradient(partial(score, critic, labels=None), x)
        found = [scores, gradient]
        for loss in (scores.sin().sum() * gradient.square().sum(), scores.exp().mean(), gradient.sin().sum()):
            first = torch.autograd.grad(loss, parameters, retain_graph=True, **options)
            found += first
            if again:
                found += torch.autograd.grad(sum(g.square().sum() for g in first), parameters, retain_graph=True,
                                             allow_unused=True, materialize_grads=True)  # fmt: skip
        everything.append(found)
    for one, other in zip(*everything, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert calls == [1]


def test_scores_and_gradient_under_autocast_and_by_other_methods() -> None:
    critic, x = CRITICS["ReLU"](), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        scores, gradient = scores_and_gradient(critic, x)
    assert scores.dtype == torch.bfloat16 and gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, input_gradient(critic, x))
    with double_backward("linear"):
        scores, gradient = scores_and_gradient(critic, x)
    torch.testing.assert_close(scores, critic(x).squeeze(1))
    torch.testing.assert_close(gradient, input_gradient(critic, x))


def test_frozen_weights_have_no_gradient() -> None:
    critic = CRITICS["ReLU"]()
    critic[0].weight.requires_grad_(False)
    input_gradient(critic, torch.randn(3, 6)).square().sum().backward()
    assert critic[0].weight.grad is None and critic[2].weight.grad is not None
    assert not input_gradient(critic.requires_grad_(False), torch.randn(3, 6)).requires_grad


class Own(nn.Sequential):
    """Scores otherwise than its layers."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Twice(ToyDiscriminator):
    """The same, of a network that tells of its layers."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return 2 * super().forward(x, labels)


def hooked(where: int | None, kind: str = "register_forward_hook") -> nn.Module:
    critic = CRITICS["ReLU"]()
    getattr(critic if where is None else critic[where], kind)(lambda *_: None)
    return critic


OTHERS = {
    "a smooth activation": lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)),
    "a norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 1)),
    "two scores": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)),
    "an activation at the end": lambda: nn.Sequential(nn.Linear(6, 1), nn.ReLU()),
    "a slope below zero": lambda: nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(-0.1), nn.Linear(5, 1)),
    "nothing": lambda: nn.Sequential(),
    "dropout and a slope": lambda: nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(), nn.Dropout(), nn.Linear(5, 1)),
    "dropout of all": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(1.0), nn.Linear(5, 1)),
    "dropout twice": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(), nn.Dropout(), nn.Linear(5, 1)),
    "dropout before": lambda: nn.Sequential(nn.Dropout(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)),
    "dropout first": lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.ReLU(), nn.Linear(5, 1)),
    "no activation": lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 1)),
    "two activations": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 1)),
    "a hook": lambda: hooked(None),
    "a hook of a layer": lambda: hooked(2, "register_forward_pre_hook"),
    "a hook of an activation": lambda: hooked(1, "register_full_backward_hook"),
    "a parametrization": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 5)), nn.ReLU(),
                                               nn.Linear(5, 1)),
    "a forward of its own": lambda: Own(*CRITICS["ReLU"]()),
    "labels": lambda: ToyDiscriminator((6,), width=5, num_classes=3),
    "a subclass": lambda: Twice((6,), width=5),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_to_the_general_way(name: str) -> None:
    assert perceptron_layers(OTHERS[name]()) is None


def test_hooks_of_all_modules_are_called() -> None:
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert perceptron_layers(CRITICS["ReLU"]()) is None
    finally:
        hook.remove()


def test_other_functions_of_a_network_are_left_to_the_general_way() -> None:
    critic, x = CRITICS["ReLU"](), torch.randn(3, 6)
    three = partial(lambda network, x: 3 * network(x), critic)
    torch.testing.assert_close(input_gradient(three, x), 3 * input_gradient(critic, x))
