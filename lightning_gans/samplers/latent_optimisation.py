"""Latent optimisation, applied when sampling (Wu et al. 2019, arXiv:1912.00953)."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.samplers.base import LatentSampler, LogRatio, score_of


class LatentOptimisation(LatentSampler):
    """G(z) after steps z <- z + s grad f(G(z)) up the score f: samples that D likes, no longer of any known law.

    Departures: the paper moves z in training, by one step and also by the natural gradient; here the nets are done, and
    the gradient is plain.

    Args:
        module: see `Sampler`.
        log_ratio: f, differentiable; None takes ``module.log_ratio``, else the discriminator, of whatever loss.
        steps: >= 1.
        step_size: s > 0.

    Raises:
        ValueError: for settings out of range, and a module without a generator.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(generator=torch.nn.Identity(), latent_dim=1)
    >>> samplers = [LatentOptimisation(module, lambda x: 3 * x[:, 0], steps=k, step_size=0.5) for k in (1, 2)]
    >>> one, two = (sampler.sample(1, progress=False) for sampler in samplers)
    >>> round(float(two - one), 4)  # a step of 3 / 2
    1.5
    """

    name = "latent"
    other_calls = 1  # of where z ends

    def __init__(
        self, module: Any, log_ratio: LogRatio | None = None, *, steps: int = 1, step_size: float = 0.1
    ) -> None:
        checks.at_least_one(steps=steps)
        checks.positive(step_size=step_size)
        super().__init__(module, score_of(module, log_ratio))
        self.steps, self.step_size = steps, step_size

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` samples."""
        z, labels = self.latents(n, generator, labels)
        for _ in range(self.steps):
            z = z + self.step_size * self.gradient(self.ratio_of_latent(labels), z)[1]
        self.report.proposals += n * self.steps
        self.report.accepted += n * self.steps
        return self.make(z, labels)
