"""TransGAN, a GAN without convolutions (Jiang, Chang and Wang 2021, arXiv:2102.07074)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.penalties import drift
from lightning_gans.networks import Attention
from lightning_gans.techniques.wgan_gp import WGANGP


class TransGAN(WGANGP):
    r"""The Wasserstein game of two transformers, whose critic is kept near level 0.

    .. math:: L_D = E f(G(z)) - E f(x) + \lambda E (\|\nabla f(\hat x)\| - 1)^2 + \epsilon (E f(x))^2, \qquad
              L_G = - E f(G(z)) + \mu E \|G_{\uparrow}(x_{\downarrow}) - x\|^2

    Terms ``adversarial``, ``gradient_penalty``, ``drift`` and G's ``super_resolution``. The drift term is of the mean
    over a batch (of all ranks), so that accumulated batches have one each. Networks: ``networks.TransGANGenerator`` and
    ``networks.TransGANDiscriminator`` (under ``wrappers.DiffAugment``); any others do.

    Two papers have this name. The final one (NeurIPS 2021) is what the defaults are: the loss ``wgangp-eps`` of its
    code, for CIFAR-10. The first had two aids for G, off here:

    - super-resolution beside the game: the generator's blocks make of a real image x, shrunk by means to its first
      grid, that image again (mu = 50; never in its code, so the stem, a linear function of each pixel, is ours);
    - a mask that lets the last block see near tokens only, at first: ``locality``.

    Departures: in the code the average of G's weights has a half-life of min(500k, .1 n) images, n seen so far, of one
    batch for each update of G: ``callbacks.EMA(half_life=2e6, ramp_up=.4)``, which counts those of all four D updates.

    Overrides :meth:`cycle`, to move the mask.

    When: A transformer as generator. Give it a D of convolutions first, which was far ahead of one of transformers
    here.

    Defaults: those of the code of the final paper for CIFAR-10.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: the critic f, scores (N,).
        latent_dim: length of z.
        drift_weight: epsilon >= 0, 0 for none.
        super_resolution: mu >= 0, 0 for none; otherwise a generator with ``bottom`` and ``upscale``, such as a
            `TransGANGenerator` with a stem.
        locality: (reach, generator updates until which it holds) in order, then no limit; of the layers of the
            generator that have a locality. The first paper's code: reaches 4, 6, 8, 10 until epochs 22, 32, 42 and 60.
        loss: "wasserstein", "hinge", "least_squares" or "non_saturating".
        gp_weight: lambda.
        d_steps: discriminator updates per generator update.
        g_batch_factor: fakes in G's step for each real sample in D's.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the critic's Adam.
        betas: beta1, beta2 of Adam.
        clip_grad_g: largest norm of the generator's gradient.
        clip_grad_d: the same of the critic.

    Logged:
        d/drift: epsilon times the squared mean score of real samples.
        g/super_resolution: mu times the squared error of enlarged images, if mu is above 0.

    Raises:
        ValueError: for settings out of range or order, for another loss, for super-resolution by a generator that
            cannot, and for a locality of one that has none.

    >>> from lightning_gans.networks import TransGANDiscriminator, TransGANGenerator
    >>> generator = TransGANGenerator((3, 16, 16), latent_dim=8, width=64, depths=(1, 1, 1))
    >>> critic = TransGANDiscriminator((3, 16, 16), widths=(16, 8), depths=(1, 1, 1))
    >>> model = TransGAN(generator, critic, latent_dim=8)
    >>> model.sample(4).shape, model.d_steps, model.g_batch_factor
    (torch.Size([4, 3, 16, 16]), 4, 2)
    """

    losses = ("wasserstein", "hinge", "least_squares", "non_saturating")

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        drift_weight: float = 1e-3,
        super_resolution: float = 0.0,
        locality: Sequence[tuple[float, int]] = (),
        loss: Literal["wasserstein", "hinge", "least_squares", "non_saturating"] = "wasserstein",
        gp_weight: float = 10.0,
        d_steps: int = 4,
        g_batch_factor: int = 2,
        lr_g: float = 1e-4,
        lr_d: float = 1e-4,
        betas: tuple[float, float] = (0.0, 0.99),
        clip_grad_g: float | None = 5.0,
        clip_grad_d: float | None = 5.0,
        **kwargs: Any,
    ) -> None:
        checks.not_negative(drift_weight=drift_weight, super_resolution=super_resolution)
        checks.networks(generator=generator, discriminator=discriminator)
        locality, ends = [*locality], [until for _, until in locality]
        if ends != sorted({*ends}) or any(reach < 0 for reach, _ in locality):
            raise ValueError(f"locality must be pairs (reach >= 0, until) in order of until, got {locality!r}.")
        self.limited = [m for m in generator.modules() if isinstance(m, Attention) and m.locality != "none"]
        if locality and not self.limited:
            raise ValueError(f"locality must be empty for a generator without a layer of one, got {locality!r}.")
        if super_resolution and (not hasattr(generator, "upscale") or getattr(generator, "stem", True) is None):
            raise ValueError(f"super_resolution must be 0 for a generator without a stem, got {super_resolution!r}.")
        self.declare(False, drift=drift_weight)
        kwargs |= {"g_batch_factor": g_batch_factor, "clip_grad_g": clip_grad_g, "clip_grad_d": clip_grad_d}
        kwargs |= {"gp_weight": gp_weight, "d_steps": d_steps, "lr_g": lr_g, "lr_d": lr_d, "betas": betas, "loss": loss}
        super().__init__(generator, discriminator, latent_dim, **kwargs)
        self.drift_weight, self.super_resolution, self.locality = drift_weight, super_resolution, locality

    def score_terms(self, on_real: Tensor, on_fake: Tensor) -> Terms:
        """epsilon (E f(x))^2."""
        return {"drift": self.drift_weight * drift(on_real)} if self.drift_weight else {}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E f(G(z)), and the error of small real images made large."""
        terms = super().generator_terms(batch, fake)
        if not self.super_resolution:
            return terms
        generator: Any = self.generator
        made = generator.upscale(F.adaptive_avg_pool2d(batch.real, generator.bottom))
        error = F.mse_loss(full_precision(made), full_precision(batch.real))
        return {**terms, "super_resolution": self.super_resolution * error}

    def cycle(self) -> None:
        """Moves the mask, by the number of updates alone."""
        if self.locality:
            reach = next((reach for reach, until in self.locality if self.global_step < until), float("inf"))
            for layer in self.limited:
                cast(Tensor, layer.reach).fill_(reach)
        super().cycle()
