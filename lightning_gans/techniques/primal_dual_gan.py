"""GAN training by primal-dual subgradient steps (Chen, Wang and Ge 2018, arXiv:1802.01765)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.kernels import log_kernel_density, unit_of_distance, warn_out_of_reach
from lightning_gans.functional.losses import PAIRS, weighted_mean
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.numerics import full_precision, tell_gradients
from lightning_gans.gan import GANModule, real_in_generator_step


class PrimalDualGAN(GANModule):
    r"""D's values are the primal variables and p_g the dual one of a convex programme, solved by subgradient steps.

    .. math:: \max_D \; \frac{1}{m_1} \sum_i f_0(D(x_i)) + \frac{1}{m_2} \sum_j f_1(D(G(z_j)))

    D ascends this k_0 times. With the density of the fakes at the data and the target of a dual subgradient step,

    .. math:: p_g(x_i) = \frac{1}{m_2} \sum_j e^{-\|G(z_j) - x_i\|^2 / \sigma^2}, \qquad
              \tilde p(x_i) = p_g(x_i) - \alpha f_1(D(x_i)),

    the latter held fixed, G then descends

    .. math:: \frac{1}{m_2} \sum_j f_1(D(G(z_j))) + \frac{1}{m_1} \sum_i w_i (\tilde p(x_i) - p_g(x_i))^2,

    ``g/adversarial`` and ``g/kernel``: where D takes the data for real, generated samples are drawn to them, whether
    or not any is there yet. The x_i are the real samples of D's last batch, w_i their weights (1 without), and p_g is
    over the fakes of all processes. The gradient of the second term is that of (2 alpha / m1) sum_i f1(D(x_i)) p_g(x_i)
    with f1 fixed, and vanishes both for samples many sigmas away and for sigma far above the spread of the data. For
    "js" the first term is the saturating one, and f1 is unbounded below, so that p~ may exceed p_g's largest value, 1.
    "wasserstein" wants a Lipschitz D: give it a ``GradientPenalty``, or weight normalisation.

    With ``alpha=0`` it is :class:`GAN` by its minimax or Wasserstein loss. Departures: Adam; ``relative``,
    ``features``, ``saturating=False`` and the schedule are additions.

    When: A saturating game that is stuck; with a wide kernel and, by ``relative=False``, alpha about sigma squared.

    Defaults: our choice, all of them, since none was found in any source; Adam as in :class:`DCGAN`.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        pair: f0 and f1, see ``functional.SaddlePair``: "js" or "wasserstein".
        alpha: dual step size, >= 0.
        sigma: width of the kernel, > 0. A tensor ``self.sigma`` holds it, for a callback to change.
        relative: sigma is in units of the median distance between two real samples of the run's first batch; that
            unit, ``self.unit``, is part of the checkpoint.
        sigma_end: let sigma go there linearly; None keeps it.
        sigma_steps: over this many generator updates.
        project: keep p~ at 0 or above, where the dual variable belongs.
        saturating: False has G minimise -f0(D(G(z))) in the first term.
        features: network in whose (flattened) output distances are measured, frozen and in evaluation mode; None for
            the samples themselves.
        d_steps: k_0.

    Logged:
        d/adversarial: minus what D ascends.
        d/real: mean score of real samples.
        d/fake: mean score of generated samples.
        g/adversarial: the first term of what G descends.
        g/kernel: the second one.
        g/p_g, g/log_p_g: mean density of the fakes at the data, and of its logarithm.
        g/p_target: mean of p~.
        g/d_real: mean of D(x_i).
        g/adversarial_gradient, g/kernel_gradient: norms of the two terms' gradients by the batch of fakes, caught on
            their way back at no cost.
        g/gradient_cosine: of the angle between them.

    Raises:
        ValueError: for settings out of range, for a conditional D with ``g_batch_factor`` above 1; in the first step,
            with ``relative``, for data of which half coincide.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = PrimalDualGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, relative=False)
    >>> p_g, target = model.dual(torch.zeros(3, 2), fakes=torch.zeros(5, 2))  # all fakes are at the data
    >>> [round(p, 3) for p in p_g.tolist()]
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        pair: Literal["js", "wasserstein"] = "js",
        alpha: float = 0.1,
        sigma: float = 1.0,
        relative: bool = True,
        sigma_end: float | None = None,
        sigma_steps: int = 10_000,
        project: bool = False,
        saturating: bool = True,
        features: nn.Module | None = None,
        d_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        checks.one_of("pair", pair, PAIRS)
        checks.positive(sigma=sigma, **checks.given(sigma_end=sigma_end))
        checks.at_least_one(sigma_steps=sigma_steps)
        checks.not_negative(alpha=alpha)
        super().__init__(generator, discriminator, latent_dim, d_steps=d_steps, **kwargs)
        real_in_generator_step(self.g_batch_factor, discriminator)
        self.pair, self.alpha, self.project, self.saturating = PAIRS[pair], alpha, project, saturating
        self.relative, self.schedule = relative, (sigma, sigma_end, sigma_steps)
        self.features = (features or nn.Identity()).requires_grad_(False)
        # Tensors, since a CUDA graph would go on with numbers; the unit is 0 until the first batch tells it.
        self.sigma: Tensor
        self.unit: Tensor
        self.register_buffer("sigma", torch.tensor(float(sigma)), persistent=False)
        self.register_buffer("unit", torch.tensor(0.0 if relative else 1.0), persistent=relative)

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w(x) f0(D(x)) - E f1(D(G(z)))."""
        on_real, on_fake = (full_precision(self.score(x, batch)) for x in (batch.real, fake))
        self.tell(lambda: {"d_real": on_real.mean(), "d_fake": on_fake.mean()})
        return {"adversarial": -weighted_mean(self.pair.f0(on_real), batch.weights) - self.pair.f1(on_fake).mean()}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """E f1(D(G(z))), and the mean of w (p~ - p_g)^2."""
        ways = fake.view_as(fake), fake.view_as(fake)  # one for each term, so that their gradients can be told apart
        on_fake = full_precision(self.score(ways[0], batch))
        if not self.progress.measured:
            self._look(batch.real, fake)
        log_p, target, d = self._dual(batch, ways[1])
        p = log_p.exp()
        self.tell(lambda: dict(g_p_g=p.mean(), g_log_p_g=log_p.mean(), g_p_target=target.mean(), g_d_real=d.mean()))
        first = self.pair.f1(on_fake) if self.saturating else -self.pair.f0(on_fake)
        terms = {"adversarial": first.mean(), "kernel": weighted_mean((target - p).square(), batch.weights)}
        if self.run is None or self.run.tells(self.g_steps):
            tell_gradients(self.note, "g_", terms, ways)
        return terms

    def generator_batch(self, last: Batch) -> Batch:
        """Moves sigma along its schedule."""
        start, end, steps = self.schedule
        if end is not None:
            self.sigma.fill_(start + min(1.0, self.global_step / steps) * (end - start))
        return super().generator_batch(last)

    def dual(self, points: Tensor, fakes: Tensor) -> tuple[Tensor, Tensor]:
        """p_g and its target p~ as they are now, (N,) each, for an unconditional D. A collective, as p_g is over ranks.

        Args:
            points: x, (N, ...): any, not only data.
            fakes: G(z), (M, ...), by which p_g is differentiable; p~ is held fixed.

        Returns:
            Both nan as long as a relative sigma has no unit, before the first step.
        """
        log_p, target, _ = self._dual(Batch(points, None, None, points), fakes)
        return log_p.exp(), target

    def _dual(self, batch: Batch, fakes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p_g, p~ and D at the batch's real samples."""
        with torch.no_grad():
            on_real = full_precision(self.score(batch.real, batch))
        x, y = self._seen(batch.real, fakes)
        log_p = log_kernel_density(x, y, self.sigma * self.unit.where(self.unit > 0, float("nan")))
        target = log_p.detach().exp() - self.alpha * self.pair.f1(on_real)
        return log_p, target.clamp_min(0.0) if self.project else target, self.pair.d(on_real)

    def _seen(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Features of both."""
        if type(self.features) is nn.Identity:
            return real, fake
        with evaluating(self.features):
            return self.features(real), self.features(fake)

    @torch.no_grad()
    def _look(self, real: Tensor, fake: Tensor) -> None:
        """Look at the first batch of the data: measure the unit of sigma, and warn if all samples are out of reach."""
        x, y = self._seen(real, fake)
        if self.relative:
            self.unit.copy_(unit_of_distance(x))
        warn_out_of_reach(x, y, self.sigma * self.unit)
        self.progress.measured = True

    @property
    def log_ratio(self) -> nn.Module | None:
        """The discriminator, for the pair "js"."""
        return self.discriminator if self.pair == PAIRS["js"] else None
