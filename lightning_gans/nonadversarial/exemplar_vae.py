"""Exemplar VAE (Norouzi, Fleet and Norouzi, arXiv:2004.04795): a prior that is a mixture around training samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import OptimizerFactory, Player, SchedulerFactory
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.ranks import gather_rows, rank_and_world
from lightning_gans.functional.variational import importance_bound, mixture_log_density, normal_log_density
from lightning_gans.nonadversarial.codes import check_codes


class ExemplarVAE(GenerativeModule):
    r"""A variational autoencoder whose prior lies around the codes of training samples, the exemplars.

    .. math::
        p(z) = \frac1N \sum_{n=1}^N \mathcal N(z;\ \mu(x_n), \sigma^2 I), \qquad
        q(z|x) = \mathcal N(z;\ \mu(x), \mathrm{diag}\, v(x)), \qquad
        p(x|z) = \mathcal N(x;\ f(z), s^2 I)

    with one encoder :math:`\mu` for q and for the exemplars, through which both have gradients, and numbers
    :math:`\sigma, s` that are learned. Minimised is :math:`-\log p(x|z)` (``reconstruction``) plus :math:`\beta` times
    :math:`\log q(z|x) - \log p(z)` (``kl``) at one z ~ q(z|x). Each sample's own exemplar is left out of its p(z), and
    N - 1 is divided by: else the prior would shrink around what it is to explain (leave-one-out).

    A sample is f(z), z ~ p(z): of a training item's neighbourhood. For that all codes :math:`\mu(x_n)` are kept in the
    buffer ``means``, which is part of the checkpoint and brought up to date for samples, checkpoints and at the end.

    The training data must be in a ``datamodules.MemoryLoader``, as those of all our data modules, toys without end
    excepted. Labels are not used. Departures: a normal density of pixels in place of Bernoulli's; exemplars are drawn
    without replacement; Adam. The paper's search for the nearest exemplars is not here: all of a step's are taken.

    Logged beside the terms: ``vae/bound``, the bound of log p(x) in nats, leave-one-out and with beta = 1.

    Args:
        encoder: samples (N, ...) to means and log variances (N, latent_dim), as `networks.VAEEncoder`.
        decoder: codes (N, latent_dim) to samples; the network that ``callbacks.EMA`` averages and ``export`` writes.
        latent_dim: length of z.
        exemplars: drawn for each update, >= 2; None takes all training items.
        warm_up: updates over which beta rises from 0 to 1, >= 0.
        lr_vae: of Adam.
        optimizer_vae: makes another optimizer of all parameters.
        scheduler_vae: makes its learning rate scheduler.
        clip_grad_vae: largest norm of the gradient.
        accumulate_vae: batches whose mean gradient makes one update.
        cuda_graphs: see `GenerativeModule`.

    Raises:
        ValueError: for settings out of range, and when training starts on data that are in no ``MemoryLoader``.
    """

    counted, made_by, needs_index = "vae", "decoder", True
    means: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        exemplars: int | None = None,
        warm_up: int = 0,
        lr_vae: float = 1e-3,
        optimizer_vae: OptimizerFactory | None = None,
        scheduler_vae: SchedulerFactory | None = None,
        clip_grad_vae: float | None = None,
        accumulate_vae: int = 1,
        cuda_graphs: bool = False,
    ) -> None:
        checks.at_least_one(latent_dim=latent_dim)
        checks.at_least(0, warm_up=warm_up)
        checks.at_least(2, **({} if exemplars is None else {"exemplars": exemplars}))
        super().__init__(cuda_graphs=cuda_graphs)
        self.encoder, self.decoder, self.latent_dim = encoder, decoder, latent_dim
        self.exemplars, self.warm_up, self.means_of = exemplars, warm_up, -1  # means_of: the update that they are of
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in ("data", "prior")})
        self.register_buffer("means", torch.empty(0, latent_dim))
        nets = ("encoder", "decoder", "log_variances")
        self.play(Player("vae", nets, lr_vae, optimizer_vae, scheduler_vae, clip_grad_vae, accumulate_vae))

    # ------------------------------------------------------------------ training
    def cycle(self) -> None:
        """One update; beta is a tensor, since a CUDA graph would go on with a number."""
        beta = min(1.0, self.progress.updates["vae"] / self.warm_up) if self.warm_up else 1.0
        self.progress.kept["beta"] = torch.tensor(beta, device=self.device)
        super().cycle()

    def terms(self, player: str, batch: Batch) -> Terms:
        """Both parts of the negative bound, each a mean over samples by their weights."""
        mean, log_variance = self.encoder(batch.real)
        z = mean + (log_variance / 2).exp() * batch.z
        likelihood = normal_log_density(batch.real, self.decoder(z), self.log_variances["data"])
        kl = normal_log_density(z, mean, log_variance) - self.log_prior(z, batch)
        self.note(vae_bound=(likelihood - kl).mean())
        weights, beta = 1.0 if batch.weights is None else batch.weights, self.progress.kept["beta"]
        return {"reconstruction": -(weights * likelihood).mean(), "kl": beta * (weights * kl).mean()}

    def log_prior(self, z: Tensor, batch: Batch) -> Tensor:
        """log p(z) (N,) by this step's exemplars, each sample's own left out; the same exemplars on all ranks."""
        n = self.run.num_items
        assert batch.index is not None
        index = torch.arange(n, device=z.device)
        if self.exemplars is not None and self.exemplars < n:
            index = torch.randperm(n, generator=batch.generator, device=z.device)[: self.exemplars]
        means, own = self._together(index, batch.generator), index == batch.index[:, None]
        return mixture_log_density(z, means, self.log_variances["prior"], own)

    # ------------------------------------------------------------------ exemplars
    def _encoded(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """Codes of training items by the encoder as it is now."""
        return self.encoder(self.run.items(index, generator).to(self.log_variances["prior"]))[0]

    def _together(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """The same, each rank encoding its share. A collective."""
        (rank, world), n = rank_and_world(), len(index)
        filled = torch.cat([index, index[: -n % world]])
        return gather_rows(self._encoded(filled[rank::world], generator))[:n]

    @torch.no_grad()
    def encode(self, by: Callable[..., Tensor]) -> None:
        """Bring ``means`` up to date while training is under way; after it they are what they were at its end."""
        if self.run is not None and self.run.trainer is not None and self.means_of != self.global_step:
            index, own = torch.arange(self.run.num_items), torch.Generator().manual_seed(0)
            with evaluating(self.encoder):
                self.means = torch.cat([by(part, own) for part in index.split(1000)])
            self.means_of = self.global_step

    def latents(self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None,
                seed: int | None = None) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """z ~ p(z) (n, latent_dim): noise around the codes of training items drawn at random."""
        self.encode(self._encoded)
        if len(self.means) == 0:
            raise ValueError("means must hold the exemplars' codes, got none: train the module, or load a checkpoint.")
        if seed is not None and generator is None:
            generator, seed = torch.Generator().manual_seed(seed), None
        noise, labels = super().latents(n, labels, generator, seed)
        which = torch.randint(len(self.means), (n,), generator=generator).to(noise.device)
        return self.means[which] + (self.log_variances["prior"].detach() / 2).exp() * noise, labels

    @torch.no_grad()
    def log_density_bound(self, x: Tensor, samples: int = 16) -> Tensor:
        """A bound (N,) of log p(x), all exemplars counting; tighter with more ``samples`` (see `importance_bound`)."""
        self.encode(self._encoded)
        prior = partial(mixture_log_density, means=self.means, log_variance=self.log_variances["prior"])
        with evaluating(self.encoder), evaluating(self.network):
            return importance_bound(x, self.encoder(x), self.network, prior, self.log_variances["data"], samples)

    # ------------------------------------------------------------------ start, stop and resume
    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for networks that do not fit the data, or each other."""
        self.means_of = -1  # of this fit they are not known yet
        super().check_first_batch(batch)
        check_codes(batch, self.encoder, self.decoder, self.latent_dim)

    def on_train_end(self) -> None:
        """Keep the codes of the trained encoder."""
        self.encode(self._together)

    def save_state(self, checkpoint: dict[str, Any]) -> None:
        """Add the codes as they are now."""
        self.encode(self._together)
        checkpoint["state_dict"]["means"] = self.means
        super().save_state(checkpoint)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Take as many exemplars as there are."""
        self.means = self.means.new_empty(state_dict.get("means", self.means).shape)
        return super().load_state_dict(state_dict, *args, **options)
