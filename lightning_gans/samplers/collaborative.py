"""Collaborative sampling (Liu et al. 2019, arXiv:1902.00813)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor

from lightning_gans import checks
from lightning_gans.samplers.base import LatentSampler, LogRatio, call_ratio, discriminator_of, score_of
from lightning_gans.samplers.calibration import for_generator
from lightning_gans.samplers.ratio_head import RatioHead, train


class _Point:
    """What goes through a layer of the generator: seen, or put in its place."""

    def __init__(self) -> None:
        self.seen = self.given = torch.empty(0)
        self.replacing, self.calls = False, 0

    def __call__(self, layer: Any, inputs: Any, output: Tensor) -> Tensor:
        self.calls += 1
        self.seen = output
        return self.given if self.replacing else output


class CollaborativeSampler(LatentSampler):
    """Samples refined at a layer of the generator: h <- h + s grad_h f(G_2(h)), f the score and G = G_2 after h.

    Generator and discriminator stay as they are. What follows the refinement in the paper, accepting or rejecting, is
    ``RejectionSampler(collaborative.draw, log_ratio)``. :meth:`shape` fine-tunes a copy of D between real and refined
    samples, which smooths the way that the refinement takes.

    Departures: the gradient is that of the score itself, not of the generator's loss, so that a step by a linear D
    is s times its weight; as many steps for all samples, also those that D takes for real by then.

    Args:
        module: see `Sampler`.
        log_ratio: f, differentiable; None takes ``module.log_ratio``, else the discriminator, of whatever loss.
        layer: name of the layer in ``generator.named_modules()``; "" refines the samples themselves.
        steps: >= 1.
        step_size: s > 0.

    Raises:
        ValueError: for settings out of range, an unknown layer, or one that runs more than once per pass.

    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(generator=torch.nn.Identity(), latent_dim=1)
    >>> sampler = CollaborativeSampler(module, lambda x: 3 * x[:, 0], steps=2, step_size=0.5)
    >>> sampler.refine(torch.zeros(1, 1)).tolist()  # 2 steps of 3 / 2
    [[3.0]]
    """

    name = "collaborative"
    other_calls = 2  # of z, and of where h ends

    def __init__(
        self,
        module: Any,
        log_ratio: LogRatio | None = None,
        *,
        layer: str = "",
        steps: int = 10,
        step_size: float = 0.1,
    ) -> None:
        checks.at_least_one(steps=steps)
        checks.positive(step_size=step_size)
        super().__init__(module, score_of(module, log_ratio))
        names = [name for name, _ in self.network.named_modules()]
        if layer not in names:
            known = ", ".join(name for name in names if name)
            raise ValueError(f"layer must be one of {known}, or empty, got {layer!r}.")
        self.layer, self.steps, self.step_size = layer, steps, step_size

    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` refined samples."""
        z, labels = self.latents(n, generator, labels)
        x = self.refine(z, labels)
        self.report.proposals += n * self.steps
        self.report.accepted += n * self.steps
        return x

    @torch.no_grad()
    def refine(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The refined samples of noise (N, latent_dim)."""
        with self._watched() as point:
            self.make(z, labels)
            if point.calls != 1:
                raise ValueError(f"layer must run once in the generator, but {self.layer!r} runs {point.calls} times.")
            h, point.replacing = point.seen, True

            def after(h: Tensor) -> Tensor:
                point.given = h
                return self.make(z, labels)

            for _ in range(self.steps):
                h = h + self.step_size * self.gradient(lambda h: call_ratio(self.log_ratio, after(h), labels), h)[1]
            return after(h)

    @contextmanager
    def _watched(self) -> Iterator[_Point]:
        point = _Point()
        handle = dict(self.network.named_modules())[self.layer].register_forward_hook(point)
        try:
            yield point
        finally:
            handle.remove()

    def shape(
        self, real: Tensor, labels: Tensor | None = None, *, steps: int = 500, lr: float = 1e-4, seed: int = 0
    ) -> RatioHead:
        """Fine-tune a copy of D by -log sigmoid(f(x)) - log(1 - sigmoid(f(x'))), x' refined by the copy as it is then.

        The sampler goes on with the copy, which is returned; the module's D is not touched.

        Args:
            real: (M, ...) real samples, as the discriminator takes them.
            labels: (M,) their labels, if it takes any.
            steps: updates, with batches of 100.
            lr: learning rate of Adam.
            seed: of the batches and the noise.
        """

        def begin(x: Tensor, fake: Tensor, given: Tensor | None) -> RatioHead:
            self.log_ratio = head = RatioHead(discriminator_of(self.module), "network", x, fake, given)
            return head

        def refined(n: int, generator: Generator, given: Tensor | None) -> Tensor:
            return self.refine(*self.latents(n, generator, for_generator(self.module, given)))

        return train(begin, refined, real, labels, steps, None, 0.2, lr, seed)
