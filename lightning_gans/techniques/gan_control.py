"""GAN-Control (Shoshan et al. 2021, arXiv:2101.02477): an attribute of its own for each part of the noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.control import (
    Measure,
    check_measure,
    check_pairs,
    contrast,
    measured,
    requested,
    roll_half,
    share_parts,
)
from lightning_gans.functional.latent import from_w, in_w, to_w
from lightning_gans.functional.modes import beside, evaluating, frozen_copy
from lightning_gans.functional.numerics import RunningMeans
from lightning_gans.functional.ranks import gather_rows, rank_and_world
from lightning_gans.networks.control import AttributeEncoders
from lightning_gans.networks.style import std_groups
from lightning_gans.techniques.style_gan2 import StyleGAN2

OTHER = "other"  # the group of all that is not controlled
_FROM = 100  # D updates whose real samples the deviations are of


class GANControl(RunningMeans, StyleGAN2):
    r"""StyleGAN2 in which each group of z decides one attribute, and does nothing to the others.

    .. math:: L_G = L_G^{\mathrm{StyleGAN2}} + \lambda \sum_k \Big[
              \operatorname{mean}_{z_k^i = z_k^j} (d_k(x_i, x_j) - \tau_s)^+ \qquad +
              \operatorname{mean}_{z_k^i \neq z_k^j} (\tau_d - d_k(x_i, x_j))^+ \Big]

    d_k is the mean absolute difference of what ``measure`` says of attribute k, in units of its standard deviation in
    the data (running, over the first hundred updates), so that thresholds and weight serve all attributes. In a
    generator step rows i and i + N/2 share one group of z: that of the first attribute for the first ``pairs`` i, then
    of the next; all else is drawn anew. Terms ``<attribute>_same`` and ``<attribute>_different``.

    A second stage, ``stages.fit_control``, learns what part of w an attribute needs; then ``sample(n,
    attributes={"hue": .3, "position": (.7, .5)})`` makes samples that have them, all else being random.

    D sees the second half of a generator batch rolled by one row, so that no pair is in one group of its minibatch
    standard deviation. Departures: units of deviations (the paper has thresholds and weights by attribute), the term
    is ramped, and one batch layout for any number of attributes.

    Overrides :meth:`generator_batch`, :meth:`after_discriminator_step`, :meth:`sample`.

    When: Attributes by request, each of which a formula or a frozen network can measure.

    Defaults: weight, thresholds and ramp are our choice, in deviations; no mixing, as in the code. Else as
    :class:`StyleGAN2`.

    Args:
        generator: see :class:`StyleGAN2`, as for the remaining arguments; with styles, one with these ``groups``.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        measure: samples (N, ...) to a number (N,) or features (N, F) by name (``metrics.ShapeMeasure``): a formula, or
            a network, which is frozen and no part of the checkpoint. Must be differentiable in the samples.
        groups: length of each attribute's part of z, in order, by the names that ``measure`` has; "other" for what is
            not controlled.
        control_weight: lambda >= 0.
        pairs: that share z of an attribute, in each (global) generator batch.
        tau_same: in deviations, >= 0.
        tau_different: in deviations, > tau_same.
        ramp: generator updates in which the term comes to its weight.
        style_mixing: as of StyleGAN2; mixtures would lend a sample another's attributes.

    Logged:
        g/<attribute>_same: lambda times the contrast of pairs that share the attribute's part of z.
        g/<attribute>_different: the same of all others.

    Raises:
        ValueError: for settings out of range, groups that do not sum to latent_dim or that the generator does not
            have; when training starts, for names that ``measure`` does not have or has no gradient of, and for a batch
            that is too small for the pairs, or cannot be split into halves and groups on each rank.

    >>> from lightning_gans.networks import StyleDiscriminator, StyleGenerator
    >>> groups = {"light": 4, "other": 4}
    >>> generator = StyleGenerator((3, 16, 16), 8, widths=4, groups=[4, 4])
    >>> model = GANControl(generator, StyleDiscriminator((3, 16, 16), widths=4), latent_dim=8, groups=groups,
    ...                    measure=lambda x: {"light": x.mean((1, 2, 3))})
    >>> model.sample(4).shape, model.attributes
    (torch.Size([4, 3, 16, 16]), ['light'])
    """

    columns_of: Tensor
    variance: Tensor
    strength: Tensor
    running = ("variance",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        measure: nn.Module | Measure,
        groups: Mapping[str, int],
        control_weight: float = 2.0,
        pairs: int = 4,
        tau_same: float = 0.1,
        tau_different: float = 1.0,
        ramp: int = 200,
        style_mixing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        checks.not_negative(control_weight=control_weight, tau_same=tau_same)
        checks.at_least_one(pairs=pairs, ramp=ramp, **{f"groups[{name!r}]": size for name, size in groups.items()})
        checks.each({"tau_different": tau_different}, f"> tau_same = {tau_same:g}", lambda tau: tau > tau_same)
        names, sizes = [name for name in groups if name != OTHER], list(groups.values())
        if not names or sum(sizes) != latent_dim:
            raise ValueError(f"groups must have an attribute, and the sum latent_dim = {latent_dim}, got {groups}.")
        has = list(getattr(generator, "groups", None) or ())
        if in_w(generator) and has != sizes:
            raise ValueError(f"generator must have groups={sizes}, as the model has, got {has or None}.")
        self.declare(False, **{f"{name}_{part}": control_weight for name in names for part in ("same", "different")})
        super().__init__(generator, discriminator, latent_dim, style_mixing=style_mixing, **kwargs)
        self.groups, self.attributes, self.control_weight, self.pairs = dict(groups), names, control_weight, pairs
        self.tau_same, self.tau_different, self.ramp = tau_same, tau_different, ramp
        self._measure: dict[str, Measure] = frozen_copy(measure=measure)
        self._encoders: dict[str, AttributeEncoders] = {}
        columns = [names.index(name) if name in names else -1 for name, size in groups.items() for _ in range(size)]
        self.register_buffer("columns_of", torch.tensor(columns), persistent=False)
        self.register_buffer("variance", torch.ones(len(names)))
        self.register_buffer("strength", torch.zeros(()))

    @property
    def measure(self) -> Measure:
        """What measures attributes, on this module's device, in its type, or in float32 where that has fewer bits."""
        found: Any = self._measure["measure"]
        return beside(found, next(self.generator.parameters())) if isinstance(found, nn.Module) else found

    def generator_batch(self, last: Batch) -> Batch:
        """Noise of which pairs share a part."""
        batch = super().generator_batch(last)
        check_pairs(len(batch.z), self.pairs * len(self.attributes), std_groups(self.discriminator))  # it may be short
        return replace(batch, z=share_parts(batch.z, self.columns_of, self.pairs))

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """Of StyleGAN2, with the pairs apart, and two for each attribute."""
        labels = None if batch.labels is None else roll_half(batch.labels)
        terms = {**super().generator_terms(replace(batch, labels=labels), roll_half(fake))}
        if not self.control_weight:
            return terms
        found, weight = measured(self.measure, fake, self.attributes), self.control_weight * self.strength
        for k, (name, features) in enumerate(found.items()):
            features = gather_rows(features) / self.variance[k].sqrt()
            two = contrast(features, k * self.pairs, self.pairs, self.tau_same, self.tau_different)
            terms |= {f"{name}_same": weight * two[0], f"{name}_different": weight * two[1]}
        return terms

    @torch.no_grad()
    def after_discriminator_step(self) -> None:
        """Follows the deviations of the first real samples, and the ramp."""
        super().after_discriminator_step()
        updates, last = self.progress.updates, self.last_batch
        # one sample has no deviation
        if last is not None and updates["d"] <= _FROM and len(last.real) * rank_and_world()[1] > 1:
            found = measured(self.measure, last.real, self.attributes).values()
            now = torch.stack([gather_rows(features).var(0).mean() for features in found])
            self.variance.lerp_(now.to(self.variance), 1 / updates["d"])
        self.strength.fill_(min(1.0, updates["g"] / self.ramp))

    def check_first_batch(self, batch: Batch) -> None:
        """Also that there are pairs enough, and that they can be kept apart."""
        super().check_first_batch(batch)
        self._encoders.clear()  # the generator will be another
        n = self.g_batch_factor * len(batch.real)
        check_pairs(n, self.pairs * len(self.attributes), std_groups(self.discriminator))
        check_measure(self.measure, batch.real, self.attributes, self.control_weight > 0)

    def sample(self, n: int, labels: Tensor | None = None, generator: Generator | None = None, seed: int | None = None,
               temperature: float | None = None, attributes: Mapping[str, Any] | None = None) -> Tensor:  # fmt: skip
        """``n`` samples; ``attributes`` asks for values by name, once `stages.fit_control` has learned to give them.

        A value is that of all samples, or as a tensor (n,) or (n, V) that of each. Those not asked for are random.

        Raises:
            ValueError: for names that are not controlled, values out of range, and before that stage.
        """
        if not attributes or temperature is not None:  # which is refused
            return super().sample(n, labels, generator, seed, temperature)
        z, labels = self.latents(n, labels, generator, seed)
        return self.controlled(z, attributes, labels)

    @torch.no_grad()
    def controlled(self, z: Tensor, attributes: Mapping[str, Any], labels: Tensor | None = None) -> Tensor:
        """Samples of noise (N, latent_dim) whose attributes are replaced by what is asked for."""
        if "control" not in self._encoders:
            raise ValueError("attributes must be learned before they are asked for: call stages.fit_control(module).")
        self.check_attributes(attributes)
        encoders = self._encoders["control"].to(z)
        with evaluating(network := self.network):
            w = to_w(network, z, labels)
            parts = dict(zip(self.groups, w.split(list(self.groups.values()), 1)))
            for name, value in attributes.items():
                features = requested(self.measure, name, value, len(z)).to(z)
                if not hasattr(self.measure, "features"):  # which knows its range
                    encoders.check(name, features)
                parts[name] = encoders(name, features)
            return from_w(network, torch.cat(list(parts.values()), 1), labels)

    def check_attributes(self, names: Iterable[str]) -> None:
        """ValueError for a name that is not controlled."""
        for name in names:
            checks.one_of("attributes", name, self.attributes)

    def learned(self, encoders: AttributeEncoders) -> None:
        """Take what `stages.fit_control` has learned."""
        self._encoders["control"] = encoders.eval().requires_grad_(False)

    def sampling_state(self) -> dict[str, Any]:
        """With what was learned of attributes."""
        return super().sampling_state() | {name: net.described() for name, net in self._encoders.items()}

    def load_sampling_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Take it back."""
        super().load_sampling_state(checkpoint)
        self._encoders.clear()
        if "control" in checkpoint:
            self.learned(AttributeEncoders.of(checkpoint["control"]))
