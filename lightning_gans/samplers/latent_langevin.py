"""Discriminator driven latent sampling (Che et al. 2020, arXiv:2003.06060)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.langevin import langevin_step
from lightning_gans.networks.style import std_groups
from lightning_gans.samplers.base import LatentSampler, LogRatio


class LatentLangevin(LatentSampler):
    """G(z) after Langevin steps in the latent space: z <- z - (e/2) grad E(z) + sqrt(e) n, n standard normal.

    The energy is E(z) = |z|^2 / 2 - l(G(z)), so that the law of G(z) is p_g e^l = p_d if l = log p_d / p_g, up to what
    discrete steps change (a variance of 1 / (1 - e/4) in place of 1, say). ``report.acceptance`` is the mean
    probability with which a Metropolis correction of these steps (MALA) would accept them, 1 for e -> 0; with
    ``adjusted`` it decides, and the law is exact in the long run. Chains start at z of the prior.

    Departures: no temperature; the noise is that of the equation.

    Args:
        module: see `Sampler`, as for ``log_ratio``, which must be differentiable.
        log_ratio: l.
        steps: Langevin steps, >= 1.
        step_size: e > 0.
        adjusted: refuse steps by the Metropolis correction.

    Raises:
        ValueError: for settings out of range, a module without a generator, and ``adjusted`` with a log ratio that
            compares the samples of a batch, by which chains would depend on each other.

    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(generator=torch.nn.Identity(), latent_dim=1)  # p_g = N(0, 1)
    >>> sampler = LatentLangevin(module, lambda x: 3 * x[:, 0] - 4.5, steps=50, step_size=0.2)  # p_d = N(3, 1)
    >>> round(float(sampler.sample(100, progress=False).mean()))
    3
    """

    name = "ddls"
    other_calls = 2  # of where the chain starts, and of where it ends

    def __init__(
        self,
        module: Any,
        log_ratio: LogRatio | None = None,
        *,
        steps: int = 200,
        step_size: float = 0.01,
        adjusted: bool = False,
    ) -> None:
        checks.at_least_one(steps=steps)
        checks.positive(step_size=step_size)
        super().__init__(module, log_ratio)
        group = max(std_groups(self.log_ratio), default=1) if isinstance(self.log_ratio, nn.Module) else 1
        if adjusted and group > 1:
            raise ValueError(f"log_ratio must be of single samples with adjusted, got one of groups of {group}.")
        self.steps, self.step_size, self.adjusted = steps, step_size, adjusted

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` chains side by side."""
        z, labels = self.latents(n, generator, labels)
        energy, force = self.energy(z, labels)
        for _ in range(self.steps):
            noise = self.normal(tuple(z.shape), generator)
            new = langevin_step(z, force, self.step_size, noise)
            new_energy, new_force = self.energy(new, labels)
            back = z - new + self.step_size / 2 * new_force
            forward = noise.double().square().sum(1) - back.double().square().sum(1) / self.step_size
            probability = (energy - new_energy + forward / 2).clamp_max(0).exp()
            self.report.accepted += float(probability.sum())
            if self.adjusted:
                uniforms = torch.rand(n, generator=generator, dtype=torch.float64).to(z.device)
                goes = uniforms < probability
                new, new_force = (torch.where(goes[:, None], b, a) for a, b in ((z, new), (force, new_force)))
                new_energy = torch.where(goes, new_energy, energy)
            z, energy, force = new, new_energy, new_force
        self.report.proposals += n * self.steps
        return self.make(z, labels)

    def energy(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """E(z) (N,) in float64 and grad E(z) (N, latent_dim)."""
        ratio, gradient = self.gradient(self.ratio_of_latent(labels), z)
        return z.double().square().sum(1) / 2 - ratio, z - gradient
