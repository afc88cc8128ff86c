"""Exemplar VAE (Norouzi, Fleet and Norouzi, arXiv:2004.04795): a prior that is a mixture around training samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.conditional import without_labels
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.numerics import floating, full_precision
from lightning_gans.functional.ranks import gather_rows, rank_and_world
from lightning_gans.functional.variational import mixture_log_density, normal_log_density
from lightning_gans.nonadversarial.vae import VAE


class ExemplarVAE(VAE):
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
    :meth:`vary` makes samples of the neighbourhood of any x, by which a classifier's training data can be augmented.

    With ``neighbours`` k, only those exemplars are encoded that are among the k nearest to a sample of the batch, by
    codes that each item had when it was encoded last (the paper's retrieval). What they leave out is >= 0 and the sum
    is still divided by the number of exemplars: a bound from below of log p(z).

    The training data must be in a ``datamodules.MemoryLoader``, as those of all our data modules, toys without end
    excepted. Networks take no labels.

    Departures: a normal density of pixels in place of Bernoulli's; exemplars are drawn without replacement; Adam; old
    codes are of the item's last encoding, not of the epoch's start.

    When: Samples like given ones, as to augment the data of a classifier; a prior that needs no more than the data.

    Defaults: all exemplars and no search; the released code draws 25,000 on MNIST and looks at the 10 nearest. The rest
    is of :class:`VAE`.

    Args:
        encoder: samples (N, ...) to means and log variances (N, latent_dim), as `networks.VAEEncoder`.
        decoder: codes (N, latent_dim) to samples; the network that ``callbacks.EMA`` averages and ``export`` writes.
        latent_dim: length of z.
        exemplars: drawn for each update, >= 2; None takes all training items.
        neighbours: k >= 1, of these exemplars; None takes them all.
        kwargs: as for `VAE`.

    Logged:
        vae/bound: the bound of log p(x) in nats, leave-one-out and with beta = 1.

    Raises:
        ValueError: for settings out of range, a decoder that takes labels, and when training starts on data that are
            in no ``MemoryLoader``, or one item.

    >>> from lightning_gans.networks import VAEDecoder, VAEEncoder
    >>> model = ExemplarVAE(VAEEncoder((2,), 3, 8), VAEDecoder((2,), 3, 8), latent_dim=3, neighbours=10)
    >>> model.vary(torch.zeros(4, 2)).shape  # each like one of these
    torch.Size([4, 2])
    """

    needs_index, normal_noise, averaged_with, spreads = True, False, (), ("data", "prior")  # codes: of the trained one
    means: Tensor
    codes: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        exemplars: int | None = None,
        neighbours: int | None = None,
        **kwargs: Any,
    ) -> None:
        checks.at_least(2, **checks.given(exemplars=exemplars))
        checks.at_least_one(**checks.given(neighbours=neighbours))
        checks.only("cuda_graphs", bool(neighbours and kwargs.get("cuda_graphs")), False, "with neighbours")
        super().__init__(encoder, decoder, latent_dim, **kwargs)
        without_labels(encoder=encoder, decoder=decoder)
        self.exemplars, self.neighbours, self._made = exemplars, neighbours, list[tuple[Tensor, Tensor]]()
        self.means_of = self.together_of = -1  # the update that the means are of; ... of the last ones by all ranks
        self.register_buffer("means", torch.empty(0, latent_dim))
        self.register_buffer("codes", torch.empty(0, latent_dim), persistent=neighbours is not None)

    # ------------------------------------------------------------------ training
    def cycle(self) -> None:
        """One update, behind which the codes that were made in it are kept, to find neighbours by."""
        known = self.progress.measured and self.progress.updates["vae"] and len(self.codes) == self.run.num_items
        if self.neighbours is not None and not known:
            self.codes, self.progress.measured = torch.no_grad()(self._all)(self._together), True
        super().cycle()
        for index, codes in self._made:
            self.codes[index] = codes
        self._made.clear()

    def divergence(self, z: Tensor, mean: Tensor, log_variance: Tensor, batch: Batch) -> Tensor:
        """log q(z|x) - log p(z) (N,)."""
        if self.neighbours is not None:
            self._made.append((gather_rows(self.numbers(batch)), gather_rows(mean.detach())))
        return normal_log_density(z, mean, log_variance) - self.log_prior(z, batch)

    def log_prior(self, z: Tensor, batch: Batch) -> Tensor:
        """log p(z) (N,) by this step's exemplars, each sample's own left out; the same exemplars on all ranks."""
        n, own, count = self.run.num_items, self.numbers(batch)[:, None], None
        index = torch.arange(n, device=z.device)
        if self.exemplars is not None and self.exemplars < n:
            index = torch.randperm(n, generator=batch.generator, device=z.device)[: self.exemplars]
        if self.neighbours is not None:
            count = (index != own).sum(1)
            index = self.nearest(index, *self._made[-1])
        means = self._together(index, batch.generator)
        if self.neighbours is not None:
            self._made.append((index, means.detach()))
        return mixture_log_density(z, means, self.log_variances["prior"], index == own, count)

    def numbers(self, batch: Batch) -> Tensor:
        """Of the batch's items (N,)."""
        assert batch.index is not None
        return batch.index

    def nearest(self, index: Tensor, own: Tensor, at: Tensor) -> Tensor:
        """Of these items those that are among the k nearest of a code (N, d), the code's own item not counted."""
        distance = torch.cdist(full_precision(at), full_precision(self.codes[index]))
        distance = distance.masked_fill(index == own[:, None], torch.inf)
        nearest = distance.topk(min(self.neighbours or 1, len(index) - 1), largest=False).indices
        return index[nearest.unique()]

    # ------------------------------------------------------------------ exemplars
    def _encoded(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """Codes of training items by the encoder as it is now."""
        return self.encoder(self.run.items(index, generator).to(self.log_variances["prior"]))[0]

    def _together(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """The same, each rank encoding its share. A collective.

        As many rows on one rank as on several, for transforms that draw: a multiple of 24, of some items twice.
        """
        (rank, world), n = rank_and_world(), len(index)
        filled = torch.cat([index, index[torch.arange(-n % math.lcm(24, world), device=index.device) % n]])
        return gather_rows(self._encoded(filled[rank::world], generator))[:n]

    @torch.no_grad()
    def encode(self, by: Callable[..., Tensor]) -> None:
        """Bring ``means`` up to date while training is under way; after it they are what they were at its end."""
        together = by == self._together  # which all ranks do or none, whatever one of them has encoded by itself
        done = self.together_of if together else self.means_of
        if self.run is not None and self.run.trainer is not None and done != self.global_step:
            self.means, self.means_of = self._all(by), self.global_step
            self.together_of = self.global_step if together else self.together_of

    def _all(self, by: Callable[..., Tensor]) -> Tensor:
        """Codes of all training items, the same each time."""
        index, own = torch.arange(self.run.num_items), torch.Generator().manual_seed(0)
        with evaluating(self.encoder):
            return torch.cat([by(part, own) for part in index.split(1000)])

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
    def vary(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A sample of the neighbourhood of each x (N, ...): f(z), z ~ N(mu(x), sigma^2 I).

        Args:
            x: samples as in training, on this module's device.
            generator: source of the noise (CPU); the global one if not given.
        """
        with evaluating(self.encoder):
            mean = self.encoder(floating(x))[0]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
        return self.decode(mean + (self.log_variances["prior"] / 2).exp() * noise)

    def prior(self) -> Callable[[Tensor], Tensor]:
        """log p(z) by all exemplars: what is not trained on is none."""
        self.encode(self._encoded)
        return partial(mixture_log_density, means=self.means, log_variance=self.log_variances["prior"])

    # ------------------------------------------------------------------ start, stop and resume
    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for networks that do not fit the data, or each other."""
        self.means_of = self.together_of = -1  # of this fit they are not known yet
        checks.at_least(2, items=2 if self.run is None else self.run.num_items)
        super().check_first_batch(batch)

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
        for name in ("means", "codes"):
            setattr(self, name, self.means.new_empty(state_dict.get(name, self.means[:0]).shape))
        return super().load_state_dict(state_dict, *args, **options)
