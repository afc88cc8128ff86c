"""Neuron Shapley (Ghorbani and Zou, arXiv:2002.09815): what each filter of a network is worth to what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.layers import ConditionalBatchNorm2d, LayerNorm
from lightning_gans.networks.style import EqualConv2d, EqualLinear, StyleLayer

Filter = tuple[str, int]  # name of a module, number of its output channel
Value = Callable[[], float]
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv1d, nn.ConvTranspose1d, EqualConv2d)
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    ConditionalBatchNorm2d,
    LayerNorm,
)


@dataclass
class FilterValues:
    """What filters are worth.

    Attributes:
        filters: (module, channel) of each.
        values: (n,) Shapley values, in the order of ``filters``.
        errors: (n,) standard errors over permutations; NaN for one.
        full: value of the whole network; ``empty`` that without any of the filters. Without truncation the values sum
            to full - empty.
        calls: evaluations of the value.

    >>> values, errors = torch.tensor([1.0, 3.0]), torch.zeros(2)
    >>> found = FilterValues([("0", 0), ("0", 1)], values, errors, full=4.0, empty=0.0, calls=10)
    >>> found.top(1)
    [('0', 1)]
    """

    filters: list[Filter]
    values: Tensor
    errors: Tensor
    full: float
    empty: float
    calls: int

    def top(self, k: int) -> list[Filter]:
        """The k filters of the highest value, the highest first."""
        return [self.filters[i] for i in self.values.argsort(descending=True, stable=True)[:k].tolist()]


def filters_of(network: nn.Module, modules: Sequence[str] | None = None) -> list[Filter]:
    """The output channels of a network's convolutions, or of the modules named: those with channels, of any kind.

    Name what comes behind a convolution (its activation or normalisation) to remove a filter there; the number of
    channels is then that of the last convolution or linear layer before it, and of a block that of the last one in it.
    By default a filter is removed behind the convolution, or the normalisation that follows it in an `nn.Sequential`:
    ahead of that, what is removed would come out as a constant. (Departure: the paper's code removes activations.)

    Args:
        network: any.
        modules: dotted names in it; None: all convolutions, but for a last one that no linear layer follows, whose
            channels are an image's or scores; of a generator by styles all style layers.

    Raises:
        ValueError: for a name that is not in the network, and for modules without filters.

    >>> filters_of(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3)))
    [('0', 0), ('0', 1)]
    """
    known, found, channels = dict(network.named_modules()), list[Filter](), dict[str, int]()
    last = 0
    for name, module in known.items():
        own, *inner = (int(getattr(m, "out_channels", getattr(m, "out_features", 0))) for m in module.modules())
        last = own or last
        channels[name] = own or next(filter(None, reversed(inner)), last)
    if modules is None:
        modules = [name for name, module in known.items() if isinstance(module, StyleLayer)]
        modules = modules or [_behind(known, name) for name in _inner(known)]
    for name in modules:
        if name not in known:
            raise ValueError(f"modules must be names in the network, such as {', '.join([*known][1:4])}, got {name!r}.")
        if channels[name] == 0:
            raise ValueError(f"modules must have filters, got {name!r}, before which no layer has channels.")
        found += [(name, k) for k in range(channels[name])]
    if not found:
        raise ValueError(f"modules must be named for a {type(network).__name__}, which has no inner convolutions.")
    return found


def _inner(known: Mapping[str, nn.Module]) -> list[str]:
    """Convolutions, without a last one that ends the network."""
    layers = [name for name, module in known.items() if isinstance(module, (*_CONVOLUTIONS, nn.Linear, EqualLinear))]
    ends = layers[-1:] if layers and isinstance(known[layers[-1]], _CONVOLUTIONS) else []
    return [name for name in layers if isinstance(known[name], _CONVOLUTIONS) and name not in ends]


def _behind(known: Mapping[str, nn.Module], name: str) -> str:
    """The normalisation that follows a convolution in an ``nn.Sequential``, or itself."""
    folder, _, own = name.rpartition(".")
    row = known[folder]
    names = list(row._modules) if isinstance(row, nn.Sequential) else [own]
    follows = names[names.index(own) + 1 :][:1]
    after = f"{folder}.{follows[0]}".lstrip(".") if follows else name
    return after if isinstance(known.get(after), _NORMS) else name


@contextmanager
def removed(network: nn.Module, filters: Sequence[Filter]) -> Iterator[None]:
    """The network with these filters' outputs at zero, by hooks: weights are not touched.

    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU())
    >>> with removed(net, [("1", 0)]):
    ...     float(net(torch.tensor([[3.0]]))[0, 0])
    0.0
    """
    known, by_module, hooks = dict(network.named_modules()), dict[str, list[int]](), []
    for name, channel in filters:
        by_module.setdefault(name, []).append(channel)

    def zero(channels: list[int]) -> Callable[..., Tensor]:
        return lambda module, given, out: out.index_fill(1, torch.tensor(channels, device=out.device), 0)

    try:
        for name, channels in by_module.items():
            hooks.append(known[name].register_forward_hook(zero(channels)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def neuron_shapley(
    network: nn.Module,
    value: Value,
    filters: Sequence[Filter] | None = None,
    *,
    permutations: int = 50,
    tolerance: float | None = None,
    seed: int = 0,
) -> FilterValues:
    r"""Shapley values of filters: the mean over orders of what a filter adds to those that are still there.

    .. math:: \phi_i = E_\pi [ v(S_\pi \cup \{i\}) - v(S_\pi) ]

    Walked from the whole network down, a filter at a time. Costs ``permutations`` times the number of filters
    evaluations of v. (A bandit, as in the paper, pays for many more filters only.)

    Args:
        network: whose filters they are.
        value: v of the network as it is now, high for good: of a generator the mean of log p(class) of samples of fixed
            noise, of a discriminator its balanced accuracy, say. Must not draw new random numbers, nor train.
        filters: as `filters_of` tells; None: those that it tells by default.
        permutations: >= 1.
        tolerance: stop a walk when v was within this of the empty network's for more than five filters in a row; the
            rest then counts 0, and the values no longer sum to full - empty. None: no such stop.
        seed: of the orders.

    Raises:
        ValueError: for settings out of range, and a network without filters.

    >>> net = nn.Sequential(nn.Linear(1, 3, bias=False))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [2.0], [4.0]]))
    >>> found = neuron_shapley(net, lambda: float(net(torch.ones(1, 1)).sum()), filters_of(net, ["0"]), permutations=1)
    >>> found.values.tolist(), found.top(1)  # a sum is worth its parts
    ([1.0, 2.0, 4.0], [('0', 2)])
    """
    checks.at_least_one(permutations=permutations)
    checks.not_negative(**checks.given(tolerance=tolerance))
    players = list(filters_of(network) if filters is None else filters)
    if not players:
        raise ValueError("filters must be at least one, got none.")
    own, calls = torch.Generator().manual_seed(seed), 2
    full = value()
    with removed(network, players):
        empty = value()
    parts = torch.zeros(permutations, len(players), dtype=torch.float64)
    for row in parts:
        order, before, idle = torch.randperm(len(players), generator=own).tolist(), full, 0
        for k, i in enumerate(order):
            if k == len(order) - 1:
                now = empty
            else:
                with removed(network, [players[j] for j in order[: k + 1]]):
                    now = value()
                calls += 1
            row[i], before = before - now, now
            idle = idle + 1 if tolerance is not None and abs(now - empty) <= tolerance else 0
            if idle > 5:
                break
    errors = parts.std(0) / permutations**0.5 if permutations > 1 else torch.full((len(players),), float("nan"))
    return FilterValues(players, parts.mean(0), errors, full, empty, calls)


@torch.no_grad()
def removal_curve(
    network: nn.Module, value: Value, found: FilterValues, most: int = 10, seeds: Sequence[int] = (0, 1, 2)
) -> tuple[list[float], list[float]]:
    """v without the best k filters, k = 0 .. ``most``, and without k random ones, the mean over seeds.

    >>> net = nn.Sequential(nn.Linear(1, 3, bias=False))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [2.0], [4.0]]))
    >>> value = lambda: float(net(torch.ones(1, 1)).sum())
    >>> found = neuron_shapley(net, value, filters_of(net, ["0"]), permutations=1)
    >>> removal_curve(net, value, found, most=2)[0]  # without any, without the best, without the two best
    [7.0, 3.0, 1.0]
    """
    checks.at_least_one(most=most)
    if most > len(found.filters):
        raise ValueError(f"most must be at most {len(found.filters)}, the number of filters, got {most}.")

    def walk(order: Sequence[Filter]) -> list[float]:
        values = []
        for k in range(most + 1):
            with removed(network, order[:k]):
                values.append(value())
        return values

    chance = []
    for seed in seeds:
        order = torch.randperm(len(found.filters), generator=torch.Generator().manual_seed(seed)).tolist()
        chance.append(walk([found.filters[i] for i in order]))
    return walk(found.top(most)), torch.tensor(chance, dtype=torch.float64).mean(0).tolist()
