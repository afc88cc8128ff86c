"""What control over attributes is worth: whether a part of the noise decides one, and what is got of what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.functional.control import Measure, measured, requested
from lightning_gans.techniques.gan_control import GANControl


class ControlTable(NamedTuple):
    """For each attribute (row) and each group of z (column), names, and what sharing that part of z does.

    Attributes:
        attributes: names of the rows.
        groups: names of the columns.
        ratio: (K, G) mean distance of pairs that share the group, over that of any two samples: 0 where the group
            decides the attribute, 1 where it does nothing to it.
        auc: (K, G) how often a pair that shares it is nearer than one that does not: 1 and 1/2.
        deviation: (K,) standard deviation of the attribute's features in the samples, root mean square.

    >>> ratio, auc = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.5]])
    >>> table = ControlTable(("hue",), ("hue", "other"), ratio, auc, deviation=torch.ones(1))
    >>> table.groups[int(table.ratio[0].argmin())]  # what decides the hue
    'hue'
    """

    attributes: list[str]
    groups: list[str]
    ratio: Tensor
    auc: Tensor
    deviation: Tensor


@torch.no_grad()
def control_table(
    module: Any,
    measure: Measure | None = None,
    groups: Mapping[str, int] | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
) -> ControlTable:
    """Whether each part of the noise decides its attribute and no other, by samples that share a part of it.

    Args:
        module: a model whose noise can be chosen; for one that is not controlled, tell what follows.
        measure: see `GANControl`; the module's own by default.
        groups: the same.
        n: pairs for each group, >= 2.
        seed: of the noise.

    Raises:
        ValueError: for n below 2, and groups that do not sum to the length of z.

    >>> from lightning_gans import GAN
    >>> from lightning_gans.networks import ToyDiscriminator
    >>> generator = torch.nn.Linear(2, 2, bias=False)
    >>> _ = torch.nn.init.eye_(generator.weight)  # a sample is its noise
    >>> model = GAN(generator, ToyDiscriminator(width=8), latent_dim=2)
    >>> table = control_table(model, lambda x: {"place": x[:, 0]}, groups={"place": 1, "other": 1}, n=500)
    >>> round(float(table.ratio[0, 0]), 3), abs(float(table.ratio[0, 1]) - 1) < 0.2
    (0.0, True)
    """
    checks.at_least(2, n=n)
    measure = module.measure if measure is None else measure
    groups = module.groups if groups is None else groups
    if sum(groups.values()) != module.latent_dim:
        raise ValueError(f"groups must have the sum latent_dim = {module.latent_dim}, got {dict(groups)}.")
    names = [name for name in groups if name != "other"]
    both, labels = module.latents(2 * n, seed=seed)
    labels = None if labels is None else labels[:n]
    z, other = both.chunk(2)

    def features(noise: Tensor) -> dict[str, Tensor]:
        parts = zip(noise.split(1000), [None] * n if labels is None else labels.split(1000))
        found = [measured(measure, module.decode(x, y), names) for x, y in parts]
        return {name: torch.cat([f[name] for f in found]).double() for name in names}

    here, there = features(z), features(other)
    any_two = {name: (here[name] - there[name]).abs().mean(1) for name in names}
    ratio, auc = torch.empty(2, len(names), len(groups), dtype=torch.float64)
    start = 0
    for column, size in enumerate(groups.values()):
        mixed = other.clone()
        mixed[:, start : start + size] = z[:, start : start + size]
        start += size
        for row, (name, end) in enumerate(features(mixed).items()):
            d = (here[name] - end).abs().mean(1)
            ratio[row, column] = d.mean() / any_two[name].mean()
            nearer = (d[:, None] < any_two[name]).double() + (d[:, None] == any_two[name]).double() / 2
            auc[row, column] = nearer.mean()
    deviation = torch.stack([here[name].var(0).mean().sqrt() for name in names])
    return ControlTable(names, list(groups), ratio, auc, deviation)


@torch.no_grad()
def requested_errors(
    module: GANControl, attributes: Mapping[str, Any], *, n: int = 256, seed: int = 0, controlled: bool = True
) -> dict[str, float]:
    """Mean absolute error of each attribute that is asked for, in deviations of the data.

    Args:
        module: after `stages.fit_control`.
        attributes: values by name; as tensors (n,) or (n, V), one for each sample.
        n: samples.
        seed: of their noise.
        controlled: False: of samples for which nothing was asked, as a baseline.
    """
    checks.at_least_one(n=n)
    samples = module.sample(n, seed=seed, attributes=attributes if controlled else None)
    found = measured(module.measure, samples, attributes)
    units = dict(zip(module.attributes, module.variance.sqrt().tolist()))
    return {name: error(module.measure, name, value, found[name]) / units[name] for name, value in attributes.items()}


def error(measure: Measure, name: str, value: Any, found: Tensor) -> float:
    """Mean absolute difference of features (N, F) from those of a value that was asked for."""
    return float((found - requested(measure, name, value, len(found)).to(found)).abs().mean())
