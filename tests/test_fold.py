"""Folded convolutions equal the two layers that they are, to every order; and nets in channels_last train the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from common import plain, state, trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_gans import WGANGP
from lightning_gans.functional import gradient_penalty
from lightning_gans.networks import ResNetDiscriminator, ResNetGenerator, StyleDiscriminator
from lightning_gans.networks.fold import DownConv2d, UpConv2d


class PlainDown(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class PlainUp(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2))


PAIRS = {DownConv2d: PlainDown, UpConv2d: PlainUp}


def unfolded(network: nn.Module) -> nn.Module:
    """The same network with every folded layer taken apart, by way of its state dict."""
    other = copy.deepcopy(network)
    for module in list(other.modules()):
        for name, child in module.named_children():
            if type(child) in PAIRS:
                size = child.kernel_size[0]
                setattr(
                    module, name, PAIRS[type(child)](child.in_channels, child.out_channels, size, padding=size // 2)
                )
    other.double().load_state_dict(network.state_dict())
    return other


def derivatives(f: Callable[[Tensor], Tensor], x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The output; its gradients by input and parameters; and those of a penalty on the input gradient."""
    x = x.detach().requires_grad_()
    y = f(x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    first = torch.autograd.grad((y.sin() * weight).sum(), [x, *parameters], create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), parameters, allow_unused=True)
    return [y, *first, *(s for s in second if s is not None)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """To 1e-12 of the largest number of all."""
    scale = max(float(b.abs().max()) for b in expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (2, 2)])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("layer", [DownConv2d, UpConv2d])
def test_folded_layer(layer: type[nn.Conv2d], kernel_size: int, size: tuple[int, int], channels_last: bool) -> None:
    torch.manual_seed(0)
    folded = layer(3, 4, kernel_size).double()
    apart = PAIRS[layer](3, 4, kernel_size, padding=kernel_size // 2).double()
    apart.load_state_dict(folded.state_dict())
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    if channels_last:
        x, folded = x.contiguous(memory_format=torch.channels_last), folded.to(memory_format=torch.channels_last)
    assert_equal(*(derivatives(net, x, list(net.parameters())) for net in (folded, apart)))


@pytest.mark.parametrize("wrap", [parametrizations.spectral_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("layer", [DownConv2d, UpConv2d])
def test_parametrized_weights_are_folded(layer: type[nn.Conv2d], wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Also the power iterations take their course: one per forward pass."""
    torch.manual_seed(0)
    folded = wrap(layer(3, 4, 3).double())
    apart = wrap(PAIRS[layer](3, 4, 3, padding=1).double())
    apart.load_state_dict(folded.state_dict())
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for _ in range(2):
        assert_equal(*(derivatives(net, x, list(net.parameters())) for net in (folded, apart)))
    assert_equal(*(list(net.state_dict().values()) for net in (folded, apart)))


@pytest.mark.parametrize("wrap", [None, parametrizations.spectral_norm])
def test_whole_critic_and_its_penalty(wrap: Callable[[nn.Module], nn.Module] | None) -> None:
    torch.manual_seed(0)
    critic = ResNetDiscriminator((3, 16, 16), width=6).double()
    apart = unfolded(critic)
    if wrap is not None:
        for net in (critic, apart):
            torch.manual_seed(1)
            for module in list(net.modules()):
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    wrap(module)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    found = []
    for net in (critic, apart):
        loss = net(x).square().mean() + gradient_penalty(net, x)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]))
    assert float((found[0] - found[1]).abs().max() / found[1].abs().max()) < 1e-10


def test_whole_generator() -> None:
    torch.manual_seed(0)
    generator = ResNetGenerator((3, 16, 16), latent_dim=5, width=6).double()
    apart, z = unfolded(generator), torch.randn(4, 5, dtype=torch.float64)
    assert_equal(*(derivatives(net, z, list(net.parameters())) for net in (generator, apart)))
    assert generator(z).is_contiguous()


def test_checkpoints_are_those_of_the_unfolded_nets() -> None:
    critic = ResNetDiscriminator((3, 16, 16), width=6)
    apart = unfolded(critic)
    assert list(apart.state_dict()) == list(critic.state_dict())
    assert [v.shape for v in apart.state_dict().values()] == [v.shape for v in critic.state_dict().values()]
    critic.load_state_dict(apart.state_dict())


@pytest.mark.parametrize("layer", [DownConv2d, UpConv2d])
def test_folding_keeps_half_precision(layer: type[nn.Conv2d]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(3, 4, 3)(torch.randn(2, 3, 8, 8)).dtype == torch.bfloat16


def test_other_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="DownConv2d takes kernel_size 1 or 3, got 5"):
        DownConv2d(3, 4, 5)


def test_training_does_not_depend_on_the_memory_format() -> None:
    """Fused optimizers read gradient and parameter as they lie in memory, so both have to lie alike."""
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        nets = ResNetGenerator((1, 8, 8), latent_dim=3, width=4), ResNetDiscriminator((1, 8, 8), width=4)
        nets = tuple(net.double().to(memory_format=memory_format) for net in nets)
        module = WGANGP(*nets, 3, d_steps=2, lr_d=1e-2, lr_g=1e-2)
        trainer(max_steps=3).fit(module, plain(shape=(1, 8, 8), dtype=torch.float64))
        assert all(p.grad is None or p.grad.stride() == p.stride() for p in module.parameters())
        found.append(state(module))
    for a, b in zip(found[0].values(), found[1].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)  # Adam amplifies rounding where a gradient is zero


@pytest.mark.parametrize("network", [ResNetDiscriminator, StyleDiscriminator])
def test_kernels_of_one_pixel_are_in_channels_last_too(network: Any) -> None:
    """`contiguous` leaves them as they are, and their convolutions then run as in the default format."""
    net = network((3, 8, 8), 4)
    asked = copy.deepcopy(net).to(memory_format=torch.channels_last)
    assert [p.stride() for p in net.parameters()] == [p.stride() for p in asked.parameters()]
    assert any(p.stride()[2:] == (p.shape[1],) * 2 for p in net.parameters() if p.shape[2:] == (1, 1))
