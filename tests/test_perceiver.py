"""The Perceiver critic: pixels in any order, at a cost linear in their number, under a penalty."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from common import plain, trainer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lightning_gans import WGANGP
from lightning_gans.functional.penalties import gradient_penalty
from lightning_gans.networks import Attention, PerceiverCritic, ToyGenerator


def critic(shape: tuple[int, ...] = (2, 4, 4), **options: Any) -> PerceiverCritic:
    torch.manual_seed(0)
    return PerceiverCritic(shape, **({"latents": 6, "width": 8, "bands": 3} | options)).double()


def images(n: int = 3, shape: tuple[int, ...] = (2, 4, 4)) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pixels(net: PerceiverCritic, x: Tensor) -> Tensor:
    return torch.cat([x.flatten(2).transpose(1, 2), net.places(x).expand(len(x), -1, -1)], 2)


@pytest.mark.parametrize("kernel", ["auto", "favor"])
def test_pixels_that_move_with_their_places_score_the_same(kernel: Any) -> None:
    net, x, order = critic(kernel=kernel).eval(), images(), torch.randperm(16)
    torch.testing.assert_close(net.score(pixels(net, x)), net(x))
    torch.testing.assert_close(net.score(pixels(net, x)[:, order]), net(x))
    alone = x.flatten(2)[:, :, order].view_as(x)
    assert not torch.allclose(net(alone), net(x), rtol=1e-6)


def test_places() -> None:
    places = critic((1, 3, 5)).places(images())
    assert places.shape == (15, 14)  # sines and cosines of 2 axes and 3 frequencies, and the 2 coordinates
    p = places[7, -2:]  # in the middle
    torch.testing.assert_close(p, torch.zeros(2, dtype=p.dtype))
    torch.testing.assert_close(places[7, :12], torch.tensor([0.0] * 6 + [1.0] * 6, dtype=p.dtype))
    y, x = places[1, -2:]  # the second of the first row
    assert (float(y), float(x)) == (-1.0, -0.5)
    waves = torch.tensor([1.0, 1.75, 2.5], dtype=p.dtype)
    torch.testing.assert_close(places[1, :6], torch.cat([(torch.pi * waves * c).sin() for c in (y, x)]))
    net = PerceiverCritic((1, 32, 32))
    half = net.places(torch.zeros(1, 1, 32, 32, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16 and float((half.float() - net.places(torch.zeros(1))).abs().max()) < 0.004


def test_the_cost_of_reading_is_linear() -> None:
    def flops(side: int) -> int:
        net, x = critic((2, side, side), kernel="explicit"), images(1, (2, side, side))
        with FlopCounterMode(display=False) as count:
            net(x)
        return count.get_total_flops()

    a, b, c = flops(4), flops(8), flops(16)
    assert c - b == 4 * (b - a)  # 16, 64 and 256 pixels


def test_weights_are_shared_from_the_second_reading_on() -> None:
    def count(**options: Any) -> int:
        return sum(p.numel() for p in critic(**options).parameters())

    assert count(depth=2) == count(depth=5) < count(depth=5, shared=False)
    one, other = (critic(depth=3).readers[i] for i in (0, 1))
    assert not torch.equal(one.cross.project.weight, other.cross.project.weight)


@pytest.mark.parametrize("kernel", ["auto", "explicit", "favor"])
def test_gradients_reach_every_pixel_and_parameter(kernel: Any) -> None:
    net, x = critic(kernel=kernel, num_classes=3), images().requires_grad_()
    labels = torch.tensor([0, 1, 2])
    (slope,) = torch.autograd.grad(net(x, labels).sum(), x)
    assert bool((slope != 0).all())
    gradient_penalty(lambda x: net(x, labels), x).backward()
    without = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name.rpartition(".")[2] for name in without} <= {"bias"}


def test_it_trains_under_a_penalty() -> None:
    module = WGANGP(ToyGenerator((2, 4, 4), 3, width=8, depth=1), critic().float(), 3, d_steps=1)
    before = [p.detach().clone() for p in module.discriminator.parameters()]
    trainer(max_steps=2).fit(module, plain(shape=(2, 4, 4)))
    assert all(not torch.equal(a, b) for a, b in zip(before, module.discriminator.parameters()) if a.ndim > 1)
    assert any(isinstance(layer, Attention) for layer in module.discriminator.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": 0}, "latents must be an integer >= 1, got 0"),
        ({"blocks": -1}, "blocks must be an integer >= 0, got -1"),
        ({"heads": 3}, "heads must divide the width of 8, got 3"),
        ({"shape": (2, 4)}, r"PerceiverCritic takes shape=\(C, H, W\)"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        critic(**options)
    with pytest.raises(ValueError, match=r"PerceiverCritic takes an input of shape \(N, 2, 4, 4\), got \(3, 1, 4, 4\)"):
        critic()(images(3, (1, 4, 4)))
