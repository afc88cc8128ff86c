"""Shapley values of filters against games whose values are known, and on networks that are made to have a best one."""

from __future__ import annotations

import pytest
import torch
from common import equal
from torch import nn

from lightning_gans.diagnostics import filters_of, neuron_shapley, removal_curve, removed
from lightning_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    ResNetDiscriminator,
    StyleDiscriminator,
    StyleGenerator,
    ToyGenerator,
)


class Game(nn.Module):
    """Three filters that are 1 where they are there."""

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(1, n, bias=False)
        nn.init.ones_(self.layer.weight)

    def there(self) -> list[float]:
        return self.layer(torch.ones(1, 1))[0].tolist()


def glove(game: Game) -> float:
    """One left glove and two right ones: a pair is worth 1."""
    left, *right = game.there()
    return min(left, max(right))


def test_the_glove_game() -> None:
    game = Game()
    found = neuron_shapley(game, lambda: glove(game), filters_of(game, ["layer"]), permutations=3000)
    assert found.values.tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=0.02)
    assert float(found.errors.max()) < 0.01 and (found.full, found.empty) == (1.0, 0.0)
    assert found.top(1) == [("layer", 0)]


def test_efficiency_symmetry_and_dummies() -> None:
    """For each order by itself the values sum to what there is; equal filters are worth the same, idle ones nothing."""
    game = Game(5)
    weights = torch.tensor([1.0, 2.0, 2.0, 0.0, 3.0])

    def value() -> float:
        x = torch.tensor(game.there()) * weights
        return float(x.sum() ** 2)

    for permutations in (1, 400):
        found = neuron_shapley(game, value, filters_of(game, ["layer"]), permutations=permutations)
        assert float(found.values.sum()) == pytest.approx(64.0, abs=1e-9)
        assert found.calls == 2 + 4 * permutations and float(found.values[3]) == 0
    assert float(found.values[1] - found.values[2]) == pytest.approx(0, abs=1.5)
    assert found.values.tolist() == pytest.approx([8 * w for w in weights.tolist()], abs=1)  # w_i times the sum


def test_a_walk_may_stop() -> None:
    game = Game(30)
    value = lambda: game.there()[0]  # noqa: E731
    whole, short = (
        neuron_shapley(game, value, filters_of(game, ["layer"]), permutations=20, tolerance=t) for t in (None, 0.1)
    )
    assert whole.values.tolist() == short.values.tolist() == [1.0] + [0.0] * 29
    assert short.calls < whole.calls - 100


def test_the_network_is_given_back() -> None:
    torch.manual_seed(0)
    net = DCGANGenerator((1, 8, 8), 3, 4).eval()
    z, weights = torch.randn(4, 3), {k: v.clone() for k, v in net.state_dict().items()}
    before = net(z)
    with pytest.raises(RuntimeError, match="stopped"), removed(net, filters_of(net)[:2]):
        assert not equal(net(z), before)
        raise RuntimeError("stopped")
    assert equal(net(z), before) and equal(dict(net.state_dict()), weights)
    neuron_shapley(net, lambda: float(net(z).mean()), filters_of(net)[:3], permutations=1)
    assert equal(net(z), before) and not any(m._forward_hooks for m in net.modules())


def test_the_filter_that_draws_is_found() -> None:
    """One hidden unit of a generator makes all of the first coordinate; without the best, v falls; by chance less."""
    torch.manual_seed(0)
    net = ToyGenerator((2,), 2, 16, 1)
    with torch.no_grad():
        net.layers[2].weight[0].mul_(0.01)
        net.layers[2].weight[0, 5] = 5.0
        net.layers[0].weight[5] = torch.tensor([1.0, 0.0])
    z = torch.randn(200, 2)
    value = lambda: float(net(z)[:, 0].var())  # noqa: E731
    found = neuron_shapley(net, value, filters_of(net, ["layers.1"]), permutations=10)
    assert found.top(1) == [("layers.1", 5)] and len(found.filters) == 16
    best, chance = removal_curve(net, value, found, most=3)
    assert best[0] == chance[0] == found.full and best[1] < 0.05 * best[0] < chance[1]


def test_the_filter_by_which_a_discriminator_tells_fakes_is_found() -> None:
    """A convolution whose third filter alone sees what is different; what the others see is in both."""
    torch.manual_seed(0)
    net = DCGANDiscriminator((1, 8, 8), 4, "none").eval()
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    name = next(n for n, m in net.named_modules() if m is first)
    with torch.no_grad():
        first.weight[:, 0] -= first.weight[:, 0].mean((1, 2), keepdim=True)  # blind to brightness, but for one
        first.weight[2] = 0.1
    real = torch.randn(64, 1, 8, 8)
    fake = real + 2
    value = lambda: float((net(real).mean() - net(fake).mean()).abs())  # noqa: E731
    found = neuron_shapley(net, value, filters_of(net, [name]), permutations=20)
    assert found.top(1) == [(name, 2)]
    best, chance = removal_curve(net, value, found, most=1)
    assert best[1] < 0.3 * best[0] < chance[1]


def test_blocks_and_what_is_in_them_have_their_own_channels() -> None:
    block = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1))
    net = nn.Sequential(nn.Conv2d(3, 4, 1), block, nn.Flatten(), nn.Linear(6, 1))
    for name, channels in {"0": 4, "1": 6, "1.0": 4, "1.1": 8, "1.2": 8, "1.3": 6, "2": 6}.items():
        assert filters_of(net, [name]) == [(name, k) for k in range(channels)], name


def test_what_is_removed_behind_a_normalisation_is_gone() -> None:
    """And the last convolution of a discriminator has filters, where that of a generator has the image."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(3, 1))
    assert filters_of(net) == [("1", 0), ("1", 1), ("2", 0), ("2", 1), ("2", 2)]
    with torch.no_grad(), removed(net, [("1", 0)]):
        nn.init.ones_(net[1].bias)
        assert not net[:2](torch.randn(4, 1, 1, 1))[:, 0].any()
    assert {name for name, _ in filters_of(ResNetDiscriminator((3, 8, 8), 4))} >= {"blocks.2.conv2"}
    assert {name for name, _ in filters_of(StyleDiscriminator((3, 8, 8), (4, 3), group=2))} >= {"layers.3"}
    act = nn.ReLU()  # used twice, but known by its first name alone
    assert filters_of(nn.Sequential(nn.Conv2d(1, 1, 1), act, nn.Conv2d(1, 1, 1), act)) == [("0", 0)]


@pytest.mark.parametrize(
    ("net", "given", "names"),
    [
        (StyleGenerator((3, 8, 8), 6, widths=(4, 3)), torch.ones(2, 6), ["layers.0", "layers.1", "layers.2"]),
        (StyleDiscriminator((3, 8, 8), (4, 3), group=2), torch.ones(2, 3, 8, 8), ["layers.1.main.0", "layers.1.skip"]),
        (DCGANGenerator((1, 8, 8), 3, 4), torch.ones(2, 3), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_filters_are_channels_that_can_be_removed(net: nn.Module, given: torch.Tensor, names: list[str]) -> None:
    """Each module has as many as it gives out, of whatever kind its convolutions are."""
    shapes: dict[str, int] = {}
    known = dict(net.named_modules())
    found = filters_of(net)
    for name in {name for name, _ in found}:
        known[name].register_forward_hook(lambda m, x, out, name=name: shapes.update({name: out.shape[1]}))
    with torch.no_grad():
        net.eval()(given)
    assert (
        shapes
        and set(names) <= shapes.keys()
        and found == [(name, k) for name in dict(found) for k in range(shapes[name])]
    )
    if isinstance(net, StyleGenerator):
        assert shapes == {"layers.0": 4, "layers.1": 3, "layers.2": 3}
        assert len(filters_of(net, ["layers.1.affine", "layers.1.conv", "images.1.conv"])) == 4 + 3 + 3


def test_bad_input() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="modules must be named for a Sequential, which has no inner convolutions"):
        neuron_shapley(net, lambda: 0.0)
    with pytest.raises(ValueError, match="modules must be names in the network, such as 0, 1, got 'conv'"):
        filters_of(net, ["conv"])
    with pytest.raises(ValueError, match="modules must have filters, got '0', before which no layer has channels"):
        filters_of(net, ["0"])
    with pytest.raises(ValueError, match="permutations must be an integer >= 1, got 0"):
        neuron_shapley(net, lambda: 0.0, filters_of(net, ["1"]), permutations=0)
    with pytest.raises(ValueError, match="filters must be at least one, got none"):
        neuron_shapley(net, lambda: 0.0, [])
    found = neuron_shapley(net, lambda: 0.0, filters_of(net, ["1"]), permutations=1)
    with pytest.raises(ValueError, match="most must be at most 2, the number of filters, got 3"):
        removal_curve(net, lambda: 0.0, found, most=3)
