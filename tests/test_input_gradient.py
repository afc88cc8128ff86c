"""The fast gradients of input gradients equal torch's own, for critics that know nothing of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from lightning_gans.functional.conditional import score
from lightning_gans.functional.double_backward import input_gradient as place
from lightning_gans.functional.double_backward import sparse
from lightning_gans.functional.double_backward.first_order import linear_input_gradient
from lightning_gans.functional.double_backward.input_gradient import chosen, double_backward, input_gradient
from lightning_gans.functional.draw import uniform
from lightning_gans.functional.penalties import gradient_penalty, interpolate, perturb
from lightning_gans.networks import (
    DCGANDiscriminator,
    MNISTCritic,
    ResNetDiscriminator,
    ToyDiscriminator,
)

Critic = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def everything_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "SMALL", 0)


# ---------------------------------------------------------------------- critics as users write them
class Functional(nn.Module):
    """Residual, with every call that is replaced, by all its names."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=2)
        self.c, self.d = nn.Conv2d(4, 6, 3, 2, (2, 1), dilation=2, bias=False), nn.ConvTranspose2d(6, 4, 3, 2, 1, 1)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.a(x), 0.2)
        x = x + torch.relu(self.b(x.relu()))
        x = F.avg_pool2d(F.leaky_relu_(self.c(F.pad(x, (1, 1, 1, 1))), 0.1), (2, 1), ceil_mode=True)
        x = torch.relu_(self.d(x))
        x = F.conv2d(x, self.b.weight.mul(0.5), padding="same", groups=2)
        return self.head(F.relu(x).mean((2, 3)))[:, 0]


class Smooth(nn.Module):
    """Norms and smooth activations between the replaced layers: their second derivatives are real."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4, 4, 4, 2, 1), nn.InstanceNorm2d(4, affine=True), nn.Softplus(), nn.AvgPool2d(2, padding=1),
            nn.Conv2d(4, 4, 3), nn.LayerNorm([4, 1, 1]), nn.SiLU(), nn.Flatten(), nn.Linear(4, 4), nn.Tanh(),
            nn.Linear(4, 1), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + 0.1 * x.square().mean((1, 2, 3))


class HyperNetwork(nn.Module):
    """A convolution whose kernel is computed from the image: its gradient is part of the input gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.conv = nn.Linear(2, 2 * 9), nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.make(x.mean((2, 3))).view(-1, 1, 3, 3)
        y = F.conv2d(F.relu(x).flatten(0, 1)[None], kernels, padding=1, groups=len(kernels)).view_as(x)
        return self.conv(F.relu(y)).mean((1, 2, 3))


class Checkpointed(nn.Module):
    """Activation checkpointing: the forward pass runs again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False).mean((1, 2, 3))


class Inner(nn.Module):
    """Takes a gradient by itself, by an intermediate map and by a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        y = F.relu(self.b(h)).mean((1, 2, 3))
        by_h, by_w = torch.autograd.grad(y.sum(), [h, self.b.weight], create_graph=True)
        return y + by_h.square().sum((1, 2, 3)) + by_w.square().sum() * x.mean((1, 2, 3))


def sequential(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(1), nn.LazyLinear(1), nn.Flatten(0))


def random_net(seed: int) -> nn.Module:
    """Layers drawn at random, among them some that are not replaced."""
    g = torch.Generator().manual_seed(seed)

    def pick(*items: Any) -> Any:
        return items[int(torch.randint(len(items), (), generator=g))]

    layers, channels = [], 2
    for _ in range(5):
        out = pick(2, 4, 6)
        layers.append(
            pick(
                lambda: nn.Conv2d(channels, out, 3, 1, 1),  # noqa: B023
                lambda: nn.Conv2d(channels, out, 3, 2, 1, groups=2, bias=False),  # noqa: B023
                lambda: nn.ConvTranspose2d(channels, out, 2, 2),  # noqa: B023
                lambda: nn.Conv2d(channels, out, (1, 3), padding=(0, 1), padding_mode="circular"),  # noqa: B023
            )()
        )
        channels = out
        layers += [pick(nn.Identity, partial(nn.GroupNorm, 1, channels), partial(nn.GroupNorm, 2, channels))()]
        layers += [pick(nn.ReLU, nn.Tanh, partial(nn.LeakyReLU, 0.1), partial(nn.ReLU, inplace=True), nn.ELU)()]
    layers += [pick(partial(nn.AvgPool2d, 2, 1, 1), nn.Identity, partial(nn.AdaptiveAvgPool2d, 1))()]
    return sequential(*layers)


def wrapped(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return sequential(wrap(nn.Conv2d(2, 4, 3, padding=1)), nn.ReLU(), nn.AvgPool2d(2), wrap(nn.Conv2d(4, 4, 3)))


class Batched(nn.Module):
    """nn.Conv1d and nn.Conv3d."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 3, 3, stride=2), nn.Conv3d(1, 2, (1, 2, 2))
        self.c = nn.ConvTranspose1d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        line = F.relu(self.c(F.relu(self.a(x.flatten(2)))))
        return line.mean((1, 2)) + F.leaky_relu(self.b(x[:, None])).mean((1, 2, 3, 4))


CRITICS: dict[str, Callable[[], nn.Module]] = {
    "functional": Functional,
    "smooth": Smooth,
    "hyper_network": HyperNetwork,
    "checkpointed": Checkpointed,
    "inner": Inner,
    "conv1d_conv3d": Batched,
    "spectral_norm": lambda: wrapped(parametrizations.spectral_norm),
    "weight_norm": lambda: wrapped(parametrizations.weight_norm),
    "channels_last": lambda: Functional().to(memory_format=torch.channels_last),
    "resnet": lambda: ResNetDiscriminator((2, 8, 8), width=4),
    "resnet_layer_norm": lambda: ResNetDiscriminator((2, 8, 8), width=4, norm="layer"),
    "resnet_conditional": lambda: ResNetDiscriminator((2, 8, 8), width=4, num_classes=3),
    "dcgan": lambda: DCGANDiscriminator((2, 8, 8), width=4, norm="instance"),
    **{f"random_{seed}": partial(random_net, seed) for seed in range(8)},
}


def make(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(3)
    real, fake = torch.rand(2, 5, 2, 8, 8, dtype=torch.float64) * 2 - 1
    critic = CRITICS[name]().double()
    critic(real, labels=torch.zeros(5).long()) if name.endswith("conditional") else critic(real)  # lazy layers
    return critic, real, fake


# ---------------------------------------------------------------------- penalties
def adversarial_direction(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """As in an adversarial Lipschitz penalty: a direction from an input gradient, then a slope along it."""
    direction = F.normalize(input_gradient(critic, real, create_graph=False)).view_as(real)
    return ((critic(real) - critic(real + 0.3 * direction)).abs() / 0.3 - 1e-6).clamp_min(0).square().mean()


PENALTIES: dict[str, Callable[[Critic, Tensor, Tensor], Tensor]] = {
    "two_sided": lambda f, x, y: gradient_penalty(f, interpolate(x, y, torch.Generator().manual_seed(0))),
    "one_sided": lambda f, x, y: gradient_penalty(f, (x + y) / 2, target=1e-6, one_sided=True),
    "r1": lambda f, x, y: gradient_penalty(f, x, target=0.0) / 2,
    "dragan": lambda f, x, y: gradient_penalty(f, perturb(x, torch.Generator().manual_seed(0))),
    "alp": adversarial_direction,
    "beside_other_terms": lambda f, x, y: f(x).mean() - f(y).square().mean() + gradient_penalty(f, x),
    "gradient_of_gradient": lambda f, x, y: (input_gradient(f, x) * input_gradient(f, y)).sum(),
}


def gradients(method: Any, critic: nn.Module, term: Callable[..., Tensor], *points: Tensor) -> tuple[Tensor, Tensor]:
    """Value of a penalty, and its gradient by all parameters in one vector."""
    labels = torch.arange(len(points[0])) % 3
    with double_backward(method):
        value = term(partial(score, critic, labels=labels), *points)
        parts = torch.autograd.grad(value, list(critic.parameters()), allow_unused=True, materialize_grads=True)
    return value.detach(), torch.cat([p.flatten() for p in parts])


def assert_equal(method: Any, critic: nn.Module, term: Callable[..., Tensor], *points: Tensor) -> None:
    torch.manual_seed(0)
    value, plain = gradients("plain", copy.deepcopy(critic), term, *points)  # power iterations change a critic
    torch.manual_seed(0)
    value_fast, fast = gradients(method, copy.deepcopy(critic), term, *points)
    assert plain.abs().max() > 0
    assert float((fast - plain).abs().max() / plain.abs().max()) < 1e-10
    torch.testing.assert_close(value_fast, value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", CRITICS)
def test_gradients_equal_plain_autograd(name: str, penalty: str) -> None:
    assert_equal("sparse", *make(name)[:1], PENALTIES[penalty], *make(name)[1:])


@pytest.mark.parametrize("penalty", ["two_sided", "one_sided", "r1", "dragan"])
@pytest.mark.parametrize("critic", [MNISTCritic, lambda: ResNetDiscriminator(width=8), ToyDiscriminator])
def test_gradients_of_the_shipped_nets(critic: Callable[[], nn.Module], penalty: str) -> None:
    torch.manual_seed(0)
    net = critic().double()
    real, fake = torch.rand(2, 3, *net.shape, dtype=torch.float64)
    assert_equal("sparse", net, PENALTIES[penalty], real, fake)


# ---------------------------------------------------------------------- without a second backward pass
class Hidden(torch.autograd.Function):
    """A function whose backward is not that of its forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 3 * grads[0]


class Squared(nn.Module):
    """Ends in something that is not linear in x, made by ``end``."""

    def __init__(self, end: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.end = nn.Linear(2, 3), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(F.relu(self.layer(x.mean((2, 3)))), x.mean((2, 3))).sum(1)


NOT_LINEAR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda h, x: h * h,
    "square": lambda h, x: h.square(),
    "quotient": lambda h, x: 1 / (1 + h),
    "tanh": lambda h, x: h.tanh(),
    "dropout": lambda h, x: F.dropout(h, 0.5),
    "where": lambda h, x: torch.where(h > 0.1, h, 0.5 * h),
    "item": lambda h, x: h * float(h.sum()),
    "hidden": lambda h, x: F.relu(h) + Hidden.apply(x)[:, :1],
    "no_grad": lambda h, x: h + h.clone().data,
    "weight_of_x": lambda h, x: F.linear(h, h[:1]),
    "filled": lambda h, x: F.pad(h, (1, 1), mode="replicate"),
    "detached": lambda h, x: h + h.detach(),
    "scaled_by_name": lambda h, x: torch.mul(h, other=2.0),
    "summed_by_name": lambda h, x: torch.add(h, other=2.0),
    "rectified_by_name": lambda h, x: torch.relu(input=h - 0.1),
    "rounded": lambda h, x: torch.div(h, 0.01, rounding_mode="floor") + h,
}


def linear_random_net(seed: int) -> nn.Module:
    """Piecewise linear layers drawn at random, as modules and as calls."""
    g = torch.Generator().manual_seed(seed)
    choices: list[Callable[[], nn.Module]] = [
        lambda: nn.Conv2d(4, 4, 3, 1, 1), lambda: nn.ConvTranspose2d(4, 4, 3, 1, 1, groups=2), nn.ReLU,
        lambda: nn.LeakyReLU(0.3), lambda: nn.AvgPool2d(3, 1, 1), lambda: nn.ReLU(inplace=True),
        lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
    ]  # fmt: skip
    drawn = [choices[int(torch.randint(len(choices), (), generator=g))]() for _ in range(8)]
    return sequential(nn.Conv2d(2, 4, 3), *drawn)


LINEAR = {
    **{name: CRITICS[name] for name in (
        "functional", "checkpointed", "conv1d_conv3d", "spectral_norm", "weight_norm", "resnet", "resnet_conditional")},
    "dcgan": lambda: DCGANDiscriminator((2, 8, 8), width=4, norm="none"),
    **{f"random_{seed}": partial(linear_random_net, seed) for seed in range(6)},
}  # fmt: skip


@pytest.mark.parametrize("penalty", ["two_sided", "one_sided", "r1", "dragan", "beside_other_terms"])
@pytest.mark.parametrize("name", LINEAR)
def test_first_order_gradients_equal_plain_autograd(name: str, penalty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITICS, name, LINEAR[name])
    critic, real, fake = make(name)
    found = linear_input_gradient(partial(score, critic, labels=torch.arange(5) % 3), real.clone().requires_grad_())
    assert found is not None
    assert_equal("linear", critic, PENALTIES[penalty], real, fake)


@pytest.mark.parametrize("end", NOT_LINEAR)
def test_what_is_not_linear_is_left_to_the_double_backward(end: str) -> None:
    _, x, y = make("functional")
    critic = Squared(NOT_LINEAR[end]).double()
    assert linear_input_gradient(critic, x.clone().requires_grad_()) is None
    if end not in ("dropout", "where"):
        assert_equal("linear", critic, PENALTIES["two_sided"], x, y)


@pytest.mark.parametrize("name", ["smooth", "hyper_network", "inner", "resnet_layer_norm", "random_0"])
def test_other_critics_fall_back(name: str) -> None:
    critic, x, y = make(name)
    assert linear_input_gradient(critic, x.clone().requires_grad_()) is None
    assert_equal("linear", critic, PENALTIES["two_sided"], x, y)


def test_the_tangent_pass_changes_no_state() -> None:
    """Spectral norm's power iteration runs once per call, as without a penalty's gradient."""
    torch.manual_seed(0)
    critic = wrapped(parametrizations.spectral_norm).double()
    _, x, _ = make("functional")
    critic(x)
    other = copy.deepcopy(critic)
    for method, net in (("linear", critic), ("plain", other)):
        gradients(method, net, PENALTIES["two_sided"], x, x)
    for a, b in zip(critic.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_conditional", "resnet_layer_norm"])
def test_compiled_gradients_equal_plain_autograd(name: str) -> None:
    critic, real, fake = make(name)
    for penalty in ("two_sided", "one_sided", "r1", "dragan"):
        assert_equal("compiled", critic, PENALTIES[penalty], real, fake)


def test_compiled_gradients_of_a_small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as one graph; the code that torch makes of it, which takes it 2 s, is tried by the slow test."""
    traced = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
    monkeypatch.setattr(place, "_compiled", lambda: traced(place._gradient))
    torch.manual_seed(0)
    net, x = ToyDiscriminator(width=8).double(), torch.randn(6, 2, dtype=torch.float64)
    assert_equal("compiled", net, PENALTIES["two_sided"], x, x + 1)


# ---------------------------------------------------------------------- the default
def test_the_input_gradient_itself_is_the_same() -> None:
    critic, x, _ = make("functional")
    with double_backward("plain"):
        plain = input_gradient(critic, x)
    torch.testing.assert_close(input_gradient(critic, x), plain, rtol=0, atol=0)


# ---------------------------------------------------------------------- what runs
class Convolutions(TorchDispatchMode):
    """Counts convolutions, each as much work as one forward pass of its layer."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.count += 1
        elif func is torch.ops.aten.convolution_backward.default:
            self.count += sum(args[-1][:2])
        return func(*args, **(kwargs or {}))


def test_the_work_that_is_zero_is_left_out() -> None:
    """Of six layers; a penalty needs forward, input gradient, tangent and weight gradient, and autograd two more."""
    layers = [layer for _ in range(6) for layer in (nn.Conv2d(2, 2, 3, padding=1), nn.LeakyReLU(0.2))]
    critic = sequential(*layers, nn.AvgPool2d(2)).double()
    x = torch.rand(4, 2, 8, 8, dtype=torch.float64)
    critic(x)
    count = {}
    for method in ("plain", "sparse"):
        with Convolutions() as seen:
            gradients(method, critic, PENALTIES["r1"], x, x)
        count[method] = seen.count
    assert count["plain"] >= 6 * 5.5
    assert count["sparse"] == 6 * 4


@pytest.mark.parametrize(
    ("name", "taken"),
    [("functional", 4), ("spectral_norm", 2), ("weight_norm", 2), ("hyper_network", 1), ("resnet", 4)],
)
def test_which_convolutions_are_replaced(name: str, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least the four of the functional net, those with computed weights; never the one whose weight sees x."""
    critic, x, _ = make(name)
    calls = []
    plain = sparse._Convolution.apply
    monkeypatch.setattr(sparse._Convolution, "apply", lambda *args: (calls.append(1), plain(*args))[1])
    input_gradient(critic, x)
    assert len(calls) == taken if name != "resnet" else len(calls) >= taken


def test_functorch_transforms_are_left_to_torch() -> None:
    critic, x, leaf = make("functional")
    parameters = dict(critic.named_parameters())

    def value(parameters: dict[str, Tensor]) -> Tensor:
        call = partial(torch.func.functional_call, critic, parameters)
        with sparse.sparse_double_backward(leaf):
            return call(x).sum()

    gradient = torch.func.grad(value)(parameters)
    expected = torch.autograd.grad(critic(x).sum(), list(critic.parameters()))
    for a, b in zip(gradient.values(), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_critic_in_half_precision_by_itself() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return F.relu(self.conv(x)).mean((1, 2, 3)).float()

    _, x, _ = make("functional")
    torch.manual_seed(0)
    assert_equal("sparse", Half(), PENALTIES["r1"], x.float(), x.float())


def test_methods_nest_and_end() -> None:
    with double_backward("plain"):
        with double_backward("linear"):
            assert chosen.get() == "linear"
        assert chosen.get() == "plain"
    assert chosen.get() == "sparse"
    with pytest.raises(ValueError, match="must be one of sparse, linear, compiled, plain, got 'fast'"):
        double_backward("fast").__enter__()  # type: ignore[arg-type]


def test_uniform_draws_are_not_touched() -> None:
    critic, x, _ = make("functional")
    torch.manual_seed(0)
    input_gradient(critic, x)
    after = uniform(3)
    torch.manual_seed(0)
    torch.testing.assert_close(uniform(3), after)
