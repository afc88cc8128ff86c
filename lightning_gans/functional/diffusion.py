"""Denoising diffusion (arXiv:2006.11239, 2102.09672, 2010.02502): schedules, their respacing, one step back, bounds.

Times are counted from 0, the least noise, to T - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_gans import checks

Schedule = Literal["linear", "cosine"]
Variance = Literal["fixed_large", "fixed_small", "learned"]
SCHEDULES, VARIANCES = ("linear", "cosine"), ("fixed_large", "fixed_small", "learned")


def betas_of(schedule: Schedule, steps: int) -> Tensor:
    r"""The noise that each of T steps adds, beta (T,) in float64.

    Linear: from 1e-4 to 0.02, times 1000/T. Cosine: :math:`1 - f_{t+1}/f_t`, at most 0.999, with :math:`f_t =
    \cos^2(\frac{t/T + .008}{1.008} \frac\pi2)`.

    >>> f"{float((1 - betas_of('linear', 1000)).prod()):.3g}"  # what is left of x_0 at the end
    '4.04e-05'
    """
    checks.at_least(2, steps=steps)
    checks.one_of("schedule", schedule, SCHEDULES)
    if schedule == "linear":
        return (torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * 1000 / steps).clamp_max(0.999)
    f = ((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - f[1:] / f[:-1]).clamp_max(0.999)


class Diffusion:
    r"""q(x_t|x_0) = N(sqrt(a_t) x_0, (1 - a_t) I), a_t the product of 1 - beta up to t, and its way back.

    Args:
        betas: (T,) in float64.
        times: (T,) numbers of these steps in a longer schedule, for networks; None: their own.
        total: steps of that schedule.

    >>> process = Diffusion(betas_of("cosine", 100))
    >>> process.respaced(10).times.tolist()
    [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    >>> bool((process.respaced(100).betas - process.betas).abs().max() < 1e-12)
    True
    """

    def __init__(self, betas: Tensor, times: Tensor | None = None, total: int | None = None) -> None:
        self.betas, self.steps = betas.double(), len(betas)
        self.times = torch.arange(self.steps) if times is None else times
        self.total = total or self.steps
        self.told = self.times.double() * (1000 / self.total)  # to networks, in [0, 1000) whatever T
        self.kept = (1 - self.betas).cumprod(0)  # a_t
        self.before = torch.cat([torch.ones(1, dtype=torch.float64), self.kept[:-1]])  # a_{t-1}
        self.posterior = self.betas * (1 - self.before) / (1 - self.kept)  # variance of q(x_{t-1} | x_t, x_0)
        first = self.posterior[1:2] if self.steps > 1 else self.betas[:1]
        self.log_posterior = torch.cat([first, self.posterior[1:]]).log()  # 0 at t = 0 has no logarithm
        self.log_large = torch.cat([first, self.betas[1:]]).log()
        self.log_betas = self.betas.log()
        self.signal, self.spread = self.kept.sqrt(), (1 - self.kept).sqrt()  # x_t = signal x_0 + spread noise
        self.of_x0 = self.betas * self.before.sqrt() / (1 - self.kept)
        self.of_xt = (1 - self.before) * (1 - self.betas).sqrt() / (1 - self.kept)
        self.placed: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def respaced(self, steps: int, strided: bool = False, floor: float = 0.0) -> Diffusion:
        """The process at so many of its times, evenly from the first to the last.

        Args:
            steps: at most T.
            strided: every T/steps-th time from 0 on, as DDIM's code takes them.
            floor: the last is the last one with a_t of at least this; if there are fewer such times, all of them.

        Raises:
            ValueError: for more than T, and for a stride that is no integer.
        """
        checks.at_least_one(steps=steps)
        if steps > self.steps or (strided and self.steps % steps):
            what = f"divide the {self.steps} times" if strided else f"be at most {self.steps}"
            raise ValueError(f"steps must {what} of the schedule, got {steps}.")
        if strided:
            which = torch.arange(0, self.steps, self.steps // steps)
        else:
            last = max(int((self.kept >= floor).sum()), 1) - 1
            first = 0 if steps > 1 else last  # one step is from the noise that samples begin with
            which = torch.linspace(first, last, min(steps, last + 1), dtype=torch.float64).round().long()
        kept = self.kept[which]
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        return Diffusion(1 - kept / before, self.times[which], self.total)

    def at(self, table: str, t: Tensor, like: Tensor) -> Tensor:
        """Entries t (N,) of a table (T,), as numbers that a tensor (N, ...) can be multiplied by.

        A copy of the table stays on each device: no copies in a training step, nor in a CUDA graph, which takes none.
        """
        key = (table, like.device, like.dtype)
        if key not in self.placed:
            self.placed[key] = getattr(self, table).to(like.device, like.dtype, copy=True)
        return self.placed[key][t].view(-1, *[1] * (like.dim() - 1))

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t of x_0 (N, ...) at times t (N,)."""
        return self.at("signal", t, x) * x + self.at("spread", t, x) * noise

    def clean(self, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_0 by the noise that is in x_t."""
        return (x_t - self.at("spread", t, x_t) * noise) / self.at("signal", t, x_t)

    def noise(self, x_t: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """The noise that is in x_t if x_0 is x."""
        return (x_t - self.at("signal", t, x_t) * x) / self.at("spread", t, x_t)

    def mean(self, x: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0 = x)."""
        return self.at("of_x0", t, x_t) * x + self.at("of_xt", t, x_t) * x_t

    def log_variance(self, t: Tensor, like: Tensor, kind: Variance, v: Tensor | None = None) -> Tensor:
        """Log variance of a step back: log beta (fixed_large), that of the posterior, or v in [-1, 1] between them."""
        if kind == "learned":
            assert v is not None
            share = (v + 1) / 2
            low, high = self.at("log_posterior", t, like), self.at("log_betas", t, like)
            return share * high + (1 - share) * low
        return self.at("log_large" if kind == "fixed_large" else "log_posterior", t, like)

    def bound(self, x: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, log_variance: Tensor) -> Tensor:
        """The term L_t (N,) of the bound of -log p(x_0), in bits per dimension, of a predicted noise and variance.

        At t > 0 the divergence KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 0 minus the logarithm of the
        probability of x_0's cell of width 2/255 on [-1, 1].
        """
        mean = self.mean(self.clean(x_t, t, noise), x_t, t)
        true, low = self.mean(x, x_t, t), self.at("log_posterior", t, x_t)
        divergence = (log_variance - low + (low - log_variance).exp() - 1) / 2
        divergence = divergence + (true - mean).square() * (-log_variance).exp() / 2
        value = torch.where((t == 0).view(-1, *[1] * (x.dim() - 1)), -cell_log_probability(x, mean, log_variance),
                            divergence)  # fmt: skip
        return value.flatten(1).mean(1) / math.log(2)

    def back(
        self, x_t: Tensor, x: Tensor, i: int, variance: Tensor, eta: float | None, draw: Callable[[], Tensor],
        push: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x at the time before the i-th of this process, of x_t and a predicted x_0; no noise is added at the last.

        Args:
            x_t: (N, ...).
            x: predicted x_0.
            i: place of the time in this process.
            variance: of the ancestral step.
            eta: None for the ancestral step; DDIM's share of noise else, 0 for none.
            draw: standard normal noise.
            push: gradient of log p(y | x_t) times its scale: moves the mean (arXiv:2105.05233).
        """
        t = torch.full((len(x_t),), i, device=x_t.device)
        if eta is None:
            mean = self.mean(x, x_t, t)
            mean = mean if push is None else mean + variance * push
            return mean if i == 0 else mean + variance.sqrt() * draw()
        noise = self.noise(x_t, t, x)
        if push is not None:
            noise = noise - self.at("spread", t, x_t) * push
            x = self.clean(x_t, t, noise)
        before, kept = float(self.before[i]), float(self.kept[i])
        sigma = eta * math.sqrt((1 - before) / (1 - kept) * (1 - kept / before))
        mean = math.sqrt(before) * x + math.sqrt(max(1 - before - sigma**2, 0.0)) * noise
        return mean if i == 0 or eta == 0 else mean + sigma * draw()


def cell_log_probability(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of each number's cell of width 2/255, the outermost open, under a normal law.

    By the tanh approximation of the normal distribution function.

    >>> zero = torch.zeros(1, 1)
    >>> round(float(cell_log_probability(zero, zero, zero).exp() * 255 / 2), 3)  # the density 1 / sqrt(2 pi)
    0.399
    """

    def phi(v: Tensor) -> Tensor:
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2

    scale = (-log_variance / 2).exp()
    above, below = phi(scale * (x - mean + 1 / 255)), phi(scale * (x - mean - 1 / 255))
    cell = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return cell.clamp_min(1e-12).log()
