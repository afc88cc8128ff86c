"""A normalised map that is computed again in the backward pass: what torch computes, of less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_gans.networks import ResNetDiscriminator, ResNetGenerator
from lightning_gans.networks import recomputed as module
from lightning_gans.networks.fold import DownConv2d, UpConv2d
from lightning_gans.networks.recomputed import norm_relu_conv

CONVS: dict[str, Callable[[], nn.Conv2d]] = {
    "up": lambda: UpConv2d(4, 3, 3),
    "down": lambda: DownConv2d(4, 3, 3),
    "plain": lambda: nn.Conv2d(4, 3, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, dilation=2, padding=(1, 2), groups=2, bias=False),
}


def one_after_the_other(norm: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
    return conv(F.relu(norm(x)))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each call that does not go by the modules."""
    calls: list[int] = []
    apply = module._NormReLUConv.apply
    monkeypatch.setattr(module._NormReLUConv, "apply", lambda *a: calls.append(1) or apply(*a))
    return calls


def layers(conv: str, dtype: torch.dtype = torch.float64) -> tuple[nn.BatchNorm2d, nn.Conv2d, Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.to(dtype), CONVS[conv]().to(dtype), torch.randn(5, 4, 6, 8, dtype=dtype) * 3 + 1


def derivatives(f: Any, norm: nn.Module, conv: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, its gradients, and those of a function of the first of them."""
    x = x.detach().requires_grad_()
    wanted = [x, *norm.parameters(), *conv.parameters()]
    y = f(norm, conv, x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    loss = (y.sin() * weight).sum()
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    again = torch.autograd.grad(loss, wanted, create_graph=True)
    return [y, *first, *torch.autograd.grad(sum(g.square().sum() for g in again), wanted)]  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("conv", CONVS)
def test_values_and_gradients_are_those_of_torch(conv: str, layout: torch.memory_format, used: list[int]) -> None:
    """To both orders in float64, and running statistics to the bit."""
    norm, kernel, x = layers(conv)
    x = x.contiguous(memory_format=layout)
    other = copy.deepcopy(norm)
    found, expected = derivatives(norm_relu_conv, norm, kernel, x), derivatives(one_after_the_other, other, kernel, x)
    scale = max(float(b.detach().abs().max()) for b in expected)
    assert used and len(found) == len(expected)
    assert all(float((a - b).abs().max()) < 1e-12 * scale for a, b in zip(found, expected))
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), other.buffers()))
    assert int(norm.num_batches_tracked) == 1


def test_only_what_is_asked_for_has_a_gradient() -> None:
    norm, conv, x = layers("up")
    norm.requires_grad_(False)
    conv.weight.requires_grad_(False)
    x.requires_grad_()
    norm_relu_conv(norm, conv, x).square().sum().backward()
    ours = x.grad, conv.bias.grad
    assert norm.weight.grad is None and conv.weight.grad is None
    x.grad = conv.bias.grad = None
    one_after_the_other(norm, conv, x).square().sum().backward()
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(ours, (x.grad, conv.bias.grad)))


def test_hooks_of_tensors_fire_once_under_a_graph() -> None:
    norm, conv, x = layers("plain")
    x.requires_grad_()
    found = []
    for f in (norm_relu_conv, one_after_the_other):
        h = 1 * x
        hooks = [conv.weight.register_hook(lambda g: 2 * g), h.register_hook(lambda g: 3 * g)]
        wanted = [x, conv.weight, conv.bias, norm.bias]
        first = torch.autograd.grad(f(norm, conv, h).sin().sum(), wanted, create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), wanted)])
        for hook in hooks:
            hook.remove()
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*found))


def test_biases_may_change_before_the_backward_pass() -> None:
    found = []
    for f in (norm_relu_conv, one_after_the_other):
        norm, conv, x = layers("up")
        loss = f(norm, conv, x).square().sum()
        with torch.no_grad():
            norm.bias.add_(1)
            conv.bias.add_(1)
        found.append(torch.autograd.grad(loss, [norm.weight, norm.bias, conv.weight, conv.bias]))
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(*found))


class Pair(nn.Module):
    def __init__(self, f: Any, *layers: nn.Module) -> None:
        super().__init__()
        self.f, self.layers = f, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(*self.layers, x)


def test_transforms_and_batched_gradients() -> None:
    norm, conv, x = layers("plain")

    def of_x(f: Any) -> Tensor:
        net = Pair(f, norm, conv)

        def loss(x: Tensor) -> Tensor:
            own = {name: value.clone() for name, value in (*net.named_parameters(), *net.named_buffers())}
            return torch.func.functional_call(net, own, (x,)).sin().sum()

        return torch.func.grad(loss)(x)

    torch.testing.assert_close(of_x(norm_relu_conv), of_x(one_after_the_other))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert torch.autograd.forward_ad.unpack_dual(norm_relu_conv(norm, conv, dual)).tangent is not None
    x.requires_grad_()
    batched = []
    for f in (norm_relu_conv, one_after_the_other):
        y = f(norm, conv, x)
        (found,) = torch.autograd.grad(y, x, torch.stack([torch.ones_like(y), y.detach()]), is_grads_batched=True)
        batched.append(found)
    torch.testing.assert_close(*batched)


def test_hooks_of_all_modules(used: list[int]) -> None:
    norm, conv, x = layers("plain")
    seen: list[int] = []
    handle = nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1))
    try:
        norm_relu_conv(norm, conv, x)
    finally:
        handle.remove()
    assert seen == [1, 1] and not used


def without(norm: nn.Module, name: str) -> nn.Module:
    setattr(norm, name, None)
    return norm


def hooked(norm: nn.Module, conv: nn.Module) -> tuple[nn.Module, nn.Module]:
    conv.register_forward_hook(lambda *_: None)
    return norm, conv


@pytest.mark.parametrize(
    "change",
    [
        lambda norm, conv: (norm.eval(), conv),
        hooked,
        lambda norm, conv: hooked(conv, norm)[::-1],
        lambda norm, conv: (norm, parametrizations.spectral_norm(conv.train()).eval()),
        lambda norm, conv: (nn.BatchNorm2d(4, affine=False).double(), conv),
        lambda norm, conv: (nn.BatchNorm2d(4, momentum=None).double(), conv),
        lambda norm, conv: (without(norm, "bias"), conv),
        lambda norm, conv: (without(norm, "num_batches_tracked"), conv),
        lambda norm, conv: (nn.BatchNorm2d(4, track_running_stats=False).double(), conv),
        lambda norm, conv: (nn.GroupNorm(2, 4).double(), conv),
        lambda norm, conv: (norm, nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular").double()),
    ],
    ids=["evaluation", "hook", "hook of the norm", "spectral norm", "no gain", "cumulative", "no bias", "no count",
         "no averages", "group", "circular"],
)  # fmt: skip
def test_anything_else_is_left_to_its_modules(change: Any, used: list[int]) -> None:
    norm, conv, x = layers("plain")
    norm, conv = change(norm, conv)
    other = copy.deepcopy(norm)
    assert torch.equal(norm_relu_conv(norm, conv, x), one_after_the_other(other, conv, x))
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), other.buffers()))
    assert not used


def test_autocast_is_left_to_its_modules(used: list[int]) -> None:
    norm, conv, x = layers("up", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = norm_relu_conv(norm, conv, x), one_after_the_other(norm, conv, x)
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected) and not used


def test_one_value_for_each_channel_is_refused_as_by_torch() -> None:
    norm, conv, x = layers("plain")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_relu_conv(norm, conv, x[:1, :, :1, :1])


def test_norms_of_several_devices_are_found() -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(ResNetGenerator((3, 8, 8), latent_dim=4, width=4))
    kinds = [type(m) for m in converted.modules()]
    assert nn.SyncBatchNorm in kinds and nn.BatchNorm2d not in kinds


@pytest.mark.parametrize("network", ["generator", "critic"])
def test_one_map_is_kept_in_place_of_two(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that the backward pass of a whole network needs, parameters left out; and its gradients."""
    torch.manual_seed(0)
    generator = ResNetGenerator((3, 16, 16), latent_dim=4, width=8).double()
    critic = ResNetDiscriminator((3, 16, 16), width=8, norm="batch").double()
    net, x = (generator, torch.randn(6, 4)) if network == "generator" else (critic, torch.randn(6, 3, 16, 16))
    own = {p.data_ptr() for p in net.parameters()}

    def run() -> tuple[int, list[Tensor]]:
        kept: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            if t.data_ptr() not in own:
                kept[t.data_ptr()] = t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = net(x.double()).sin().sum()
        return sum(kept.values()), list(torch.autograd.grad(loss, list(net.parameters())))

    ours, found = run()
    monkeypatch.setattr(module, "_operation", lambda conv: None)
    plain, expected = run()
    scale = max(float(b.detach().abs().max()) for b in expected)
    assert ours < (0.65 if network == "generator" else 0.8) * plain, ours / plain
    assert all(float((a - b).abs().max()) < 1e-12 * scale for a, b in zip(found, expected))
