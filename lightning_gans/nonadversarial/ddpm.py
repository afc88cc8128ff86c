"""Denoising diffusion (Ho et al., arXiv:2006.11239; learned variance and respacing: 2102.09672; DDIM: 2010.02502)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.player import OptimizerFactory, Player, SchedulerFactory
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import label_argument
from lightning_gans.functional.diffusion import VARIANCES, Diffusion, Schedule, Variance, betas_of
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import gather_rows
from lightning_gans.nonadversarial.times import LossAwareTimes
from lightning_gans.nonadversarial.walks import Walks

# a_t where steps without noise begin: an x_0 that is predicted before has the network's error over the root of it
FLOOR = 1e-4


class DDPM(Walks):
    r"""A network that tells the noise in noised data; samples are made of noise by taking it out step by step.

    .. math::
        L = E \|\epsilon - \epsilon_\theta(x_t, t)\|^2 / d, \qquad x_t = \sqrt{a_t}\, x + \sqrt{1 - a_t}\, \epsilon,
        \qquad \epsilon \sim \mathcal N(0, I),\ t \text{ uniform on } 0, ..., T - 1

    (``mse``), and with ``variance="learned"``, where the network has twice the channels, T/1000 times the bound's term
    L_t in bits per dimension (``bound``), through which the variance learns alone: the noise in it is detached.

    A sample takes ``sampling_steps`` network calls, which is told in scores and cards as ``network_calls``: the
    ancestral steps of the paper, or with ``eta`` those of DDIM, of which eta = 0 adds no noise. The noise between is
    drawn by the source of z in :meth:`sample`; :meth:`decode` has none, but the steps of eta = 0 whatever ``eta`` is:
    what it makes of z is then a function, of which interpolations can be drawn. ``samplers.Guided`` draws a sample to a
    class.

    When: Good samples at any price of sampling; of images with labels by `samplers.Guided`.

    Defaults: T and the rate of Adam are those of Ho et al., the cosine schedule of 2102.09672.

    Departures: samples are clipped where they are images; regularization (dropout, an average of the weights) is left
    to the network and ``callbacks.EMA``.

    Args:
        denoiser: (x_t, t), and labels if it takes any, to the noise, of the shape of x_t, or to (N, 2 C, ...) with a
            learned variance; as `networks.DiffusionMLP`, `networks.DiffusionUNet`, or ``diffusers.UNet2DModel``. t (N,)
            is in [0, 1000), whatever T: a network need not know it; in float32 where x_t has fewer bits.
        shape: of one sample; None takes ``denoiser.shape``.
        steps: T >= 2.
        schedule: "cosine" or "linear".
        variance: of a step back: beta ("fixed_large"), that of the posterior ("fixed_small"), "learned" between them.
        sampling_steps: network calls for a sample, at most T; None for T. Any number: times are spread evenly over the
            schedule and rounded. Every k-th one, as DDIM's code takes them, is ``Diffusion.respaced(strided=True)`` of
            ``functional.diffusion``, which refuses a number that does not divide T.
        eta: None for ancestral steps, in [0, 1] for DDIM's.
        clip: the predicted sample is clipped to [-1, 1]; None: if samples are images (C, H, W).
        loss_aware: times of a large loss are trained more often (`LossAwareTimes`), with weights that keep the mean.
        lr_denoiser: of Adam.
        optimizer_denoiser: makes another optimizer.
        scheduler_denoiser: makes its learning rate scheduler.
        clip_grad_denoiser: largest norm of the gradient.
        accumulate_denoiser: batches whose mean gradient makes one update.
        kwargs: ``cuda_graphs`` and ``columns`` of `GenerativeModule`.

    Logged:
        denoiser/mse: the first term, of noise.
        denoiser/bound: with a learned variance: T / 1000 times L_t, in bits per dimension.

    Raises:
        ValueError: for settings out of range, and when training starts with a network that does not fit the data.

    >>> from lightning_gans.networks import DiffusionMLP
    >>> model = DDPM(DiffusionMLP((2,), 16, 1), (2,), steps=20, sampling_steps=5)
    >>> tuple(model.sample(3, seed=0).shape), model.network_calls
    ((3, 2), 5)
    """

    counted, made_by = "denoiser", "denoiser"

    def __init__(
        self,
        denoiser: nn.Module,
        shape: Sequence[int] | None = None,
        *,
        steps: int = 1000,
        schedule: Schedule = "cosine",
        variance: Variance = "fixed_large",
        sampling_steps: int | None = None,
        eta: float | None = None,
        clip: bool | None = None,
        loss_aware: bool = False,
        lr_denoiser: float = 2e-4,
        optimizer_denoiser: OptimizerFactory | None = None,
        scheduler_denoiser: SchedulerFactory | None = None,
        clip_grad_denoiser: float | None = None,
        accumulate_denoiser: int = 1,
        **kwargs: Any,
    ) -> None:
        checks.one_of("variance", variance, VARIANCES)
        checks.share(**checks.given(eta=eta))
        checks.at_least(2, steps=steps)
        checks.within(1, steps, **checks.given(sampling_steps=sampling_steps))
        checks.only("cuda_graphs", loss_aware and kwargs.get("cuda_graphs", False), False, "with loss_aware")
        checks.networks(denoiser=denoiser)
        shape = getattr(denoiser, "shape", None) if shape is None else shape
        if not isinstance(shape, Sequence):
            raise ValueError(f"shape must be given for a {type(denoiser).__name__}, which has none, got {shape!r}.")
        checks.sizes(shape=shape)
        super().__init__(**kwargs)
        self.denoiser, self.shape, self.latent_dim = denoiser, tuple(shape), math.prod(shape)
        self.process, self.variance, self.eta = Diffusion(betas_of(schedule, steps)), variance, eta
        self.clip = len(self.shape) == 3 if clip is None else clip
        self.steps_of_z = self.process.respaced(sampling_steps or steps, floor=FLOOR)
        self.steps_back = self.steps_of_z if eta == 0 else self.process.respaced(sampling_steps or steps)
        self.times = LossAwareTimes(steps) if loss_aware else None
        self._losses: list[tuple[Tensor, Tensor]] = []
        own = lr_denoiser, optimizer_denoiser, scheduler_denoiser, clip_grad_denoiser, accumulate_denoiser
        self.play(Player("denoiser", ("denoiser",), *own))

    @property
    def network_calls(self) -> int:
        """For each sample."""
        return self.steps_back.steps

    @property
    def num_classes(self) -> int | None:
        """Classes that samples can be asked for."""
        config = getattr(self.denoiser, "config", None)
        return super().num_classes or getattr(config, "num_class_embeds", None)

    # ------------------------------------------------------------------ training
    def predict(self, x_t: Tensor, t: Tensor, labels: Tensor | None, process: Diffusion, net: nn.Module) -> Any:
        """The noise in x_t, and v of a learned variance or None, at places t (N,) in a process."""
        name = None if labels is None or (hasattr(net, "config") and not self.num_classes) else label_argument(net)
        told = process.at("told", t, full_precision(x_t)).flatten()
        seen = x_t.to(next(net.parameters(), x_t).dtype)
        out = net(seen, told, **({} if name is None else {name: labels}))
        out = full_precision(getattr(out, "sample", out))
        return out.chunk(2, 1) if self.variance == "learned" else (out, None)

    def terms(self, player: str, batch: Batch) -> Terms:
        """The squared error of the noise, and the bound's term if the variance is learned."""
        x, steps = full_precision(batch.real), self.process.steps
        noise = full_precision(batch.z).view_as(x)
        u = draw.uniform(len(x), generator=batch.generator, device=x.device, dtype=torch.float64)
        weights: Any = 1.0 if batch.weights is None else batch.weights
        if self.times is None:
            t = (u * steps).long()
        else:
            p = self.times.probabilities().double()
            t = torch.searchsorted(p.cumsum(0), u).clamp_max(steps - 1)
            weights = weights / (steps * p[t]).to(x.dtype)
        x_t = self.process.noised(x, t, noise)
        predicted, v = self.predict(x_t, t, batch.labels, self.process, self.denoiser)
        losses = {"mse": (noise - predicted).square().flatten(1).mean(1)}
        if v is not None:
            log_variance = self.process.log_variance(t, x_t, "learned", v)
            losses["bound"] = self.process.bound(x, x_t, t, predicted.detach(), log_variance) * (steps / 1000)
        if self.times is not None:
            self._losses.append((gather_rows(t), gather_rows(sum(losses.values()).detach())))  # type: ignore[union-attr]
        return {name: (weights * loss).mean() for name, loss in losses.items()}

    def cycle(self) -> None:
        """One update, and what is known of the losses of the times."""
        super().cycle()
        for t, losses in self._losses if self.times is not None else ():
            self.times.update(t, losses)  # type: ignore[union-attr]
        self._losses.clear()

    # ------------------------------------------------------------------ samples
    @torch.no_grad()
    def reverse(
        self, z: Tensor, labels: Tensor | None = None, generator: torch.Generator | None = None,
        push: Callable[[Tensor, Tensor], Tensor] | None = None, *, of_z: bool = False,
    ) -> Tensor:  # fmt: skip
        """Samples (N, *shape) of noise z (N, latent_dim), step by step.

        Args:
            z: x at the last time.
            labels: (N,) for a conditional network.
            generator: source of the noise between (CPU); the global one if not given.
            push: x_t and times (N,) in [0, 1000) to a gradient by x_t that moves the samples, see `samplers.Guided`.
            of_z: by steps of eta = 0, without noise between.
        """
        x, given = full_precision(z).view(-1, *self.shape), (self.steps_back, self.eta)
        noise = lambda: torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)  # noqa: E731
        process, eta = (self.steps_of_z, 0.0) if of_z and self.eta != 0 else given
        with evaluating(net := self.network):
            for i in reversed(range(process.steps)):
                t = torch.full((len(x),), i, device=x.device)
                predicted, v = self.predict(x, t, labels, process, net)
                clean = process.clean(x, t, predicted)
                clean = clean.clamp(-1, 1) if self.clip else clean
                variance = process.log_variance(t, x, self.variance, v).exp()
                gradient = None if push is None else push(x, process.at("told", t, x).flatten())
                x = process.back(x, clean, i, variance, eta, noise, gradient)
        return x.to(z.dtype)

    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for a network that does not fit the data."""
        super().check_first_batch(batch)
        if tuple(batch.real.shape[1:]) != self.shape:
            raise ValueError(f"shape must be that of the data, {tuple(batch.real.shape[1:])}, got {self.shape}.")
        with torch.no_grad(), evaluating(self.denoiser):
            zero = batch.real.new_zeros(len(batch.real), dtype=torch.int64)
            made = self.predict(batch.real, zero, batch.labels, self.process, self.denoiser)
        if any(part is not None and part.shape != batch.real.shape for part in made):
            got, n = [tuple(part.shape) for part in made if part is not None], len(batch.real)
            told = f"noise of shape {(n, *self.shape)}{' and as many v' * (self.variance == 'learned')}"
            raise ValueError(f"denoiser must return {told} with variance={self.variance!r}, got {got}.")
