"""Variational autoencoder (Kingma and Welling, arXiv:1312.6114): what a generator does without an adversary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import OptimizerFactory, Player, SchedulerFactory
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.numerics import floating
from lightning_gans.functional.variational import importance_bound, normal_log_density, standard_normal_kl
from lightning_gans.nonadversarial.codes import check_codes


class VAE(GenerativeModule):
    r"""A decoder that explains data by normal codes, and an encoder that tells which codes explain a sample.

    .. math::
        -\log p(x|z) + \beta\, KL(q(z|x)\,\|\,\mathcal N(0, I)), \qquad z \sim q(z|x) = \mathcal N(z;\ \mu(x),
        \mathrm{diag}\, v(x)), \qquad p(x|z) = \mathcal N(x;\ f(z), s^2 I)

    are the terms ``reconstruction`` and ``kl``, whose sum bounds -log p(x) at :math:`\beta = 1`; the divergence is in
    closed form (appendix B), and s one number for all pixels, learned. A sample is f(z), z standard normal: the mean of
    p(x|z), without its noise. A decoder that takes labels is trained and sampled with them: p(x|z, y); the encoder has
    none.

    When: A density of the data, codes of given samples, or a model in seconds; samples are blurred.

    Defaults: our choice, but for the bound itself (beta = 1); s is learned.

    Departures: one s, where the paper's decoder tells one for each pixel; Adam in place of Adagrad.

    Args:
        encoder: samples (N, ...) to means and log variances (N, latent_dim), as `networks.VAEEncoder`.
        decoder: codes (N, latent_dim) to samples; the network that ``export`` writes. Any generator will do.
            ``callbacks.EMA`` averages both.
        latent_dim: length of z.
        sigma: s in units of the data, > 0; None learns it.
        warm_up: updates over which beta rises from 0 to 1, >= 0.
        lr_vae: of Adam.
        optimizer_vae: makes another optimizer of all parameters.
        scheduler_vae: makes its learning rate scheduler.
        clip_grad_vae: largest norm of the gradient.
        accumulate_vae: batches whose mean gradient makes one update.
        kwargs: ``cuda_graphs`` and ``columns`` of `GenerativeModule`.

    Logged:
        vae/reconstruction: -log p(x|z), in nats.
        vae/kl: beta times the divergence.
        vae/bound: the bound of log p(x) in nats with beta = 1.

    Raises:
        ValueError: for settings out of range, and when training starts with networks that do not fit each other.

    >>> from lightning_gans.networks import VAEDecoder, VAEEncoder
    >>> model = VAE(VAEEncoder((2,), 3, 8), VAEDecoder((2,), 3, 8), 3)
    >>> tuple(model.sample(5, seed=0).shape), tuple(model.log_density_bound(torch.zeros(4, 2)).shape)
    ((5, 2), (4,))
    """

    counted, made_by = "vae", "decoder"
    averaged_with: tuple[str, ...] = ("encoder",)  # codes and bounds are of both
    spreads: tuple[str, ...] = ("data",)  # the log variances that it has

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        sigma: float | None = None,
        warm_up: int = 0,
        lr_vae: float = 1e-3,
        optimizer_vae: OptimizerFactory | None = None,
        scheduler_vae: SchedulerFactory | None = None,
        clip_grad_vae: float | None = None,
        accumulate_vae: int = 1,
        **kwargs: Any,
    ) -> None:
        checks.networks(encoder=encoder, decoder=decoder)
        checks.at_least_one(latent_dim=latent_dim)
        checks.at_least(0, warm_up=warm_up)
        checks.positive(**checks.given(sigma=sigma))
        super().__init__(**kwargs)
        self.encoder, self.decoder, self.latent_dim, self.warm_up = encoder, decoder, latent_dim, warm_up
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in self.spreads})
        if sigma is not None:
            self.log_variances["data"] = nn.Parameter(torch.tensor(2 * math.log(sigma)), requires_grad=False)
        nets = ("encoder", "decoder", "log_variances")
        self.play(Player("vae", nets, lr_vae, optimizer_vae, scheduler_vae, clip_grad_vae, accumulate_vae))

    def cycle(self) -> None:
        """One update; beta is a tensor, since a CUDA graph would go on with a number."""
        beta = min(1.0, self.progress.updates["vae"] / self.warm_up) if self.warm_up else 1.0
        self.progress.kept["beta"] = torch.tensor(beta, device=self.device)
        super().cycle()

    def terms(self, player: str, batch: Batch) -> Terms:
        """Both parts of the negative bound, each a mean over samples by their weights."""
        mean, log_variance = self.encoder(batch.real)
        z = mean + (log_variance / 2).exp() * batch.z
        decoded = conditional_call(self.decoder, z, batch.labels)
        likelihood = normal_log_density(batch.real, decoded, self.log_variances["data"])
        kl = self.divergence(z, mean, log_variance, batch)
        self.note(vae_bound=(likelihood - kl).mean())
        weights, beta = 1.0 if batch.weights is None else batch.weights, self.progress.kept["beta"]
        return {"reconstruction": -(weights * likelihood).mean(), "kl": beta * (weights * kl).mean()}

    def divergence(self, z: Tensor, mean: Tensor, log_variance: Tensor, batch: Batch) -> Tensor:
        """KL(q(z|x) || p(z)) (N,), or an estimate of it at z ~ q(z|x)."""
        return standard_normal_kl(mean, log_variance)

    def prior(self) -> Callable[[Tensor], Tensor]:
        """z (N, latent_dim) to log p(z) (N,)."""
        return lambda z: normal_log_density(z, torch.zeros_like(z), z.new_zeros(()))

    @torch.no_grad()
    def log_density_bound(self, x: Tensor, samples: int = 16, labels: Tensor | None = None) -> Tensor:
        """A bound (N,) of log p(x), in nats; tighter with more ``samples`` (see `importance_bound`)."""
        prior, spread = self.prior(), self.log_variances["data"]
        network = self.network if self.made_by == "decoder" else self.decoder
        with evaluating(encoder := self.averaged("encoder")), evaluating(network):
            decode = lambda z: conditional_call(network, z, labels)  # noqa: E731
            return importance_bound(x, encoder(floating(x)), decode, prior, spread, samples)

    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for networks that do not fit the data, or each other."""
        super().check_first_batch(batch)
        check_codes(batch, self.encoder, self.decoder, self.latent_dim)
