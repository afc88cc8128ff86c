"""VAEBM (Xiao, Kreis, Kautz and Vahdat, arXiv:2010.00654): a variational autoencoder, corrected by an energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.player import OptimizerFactory, Player, SchedulerFactory
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import conditional_call, score, takes_labels
from lightning_gans.functional.double_backward.input_gradient import no_autocast
from lightning_gans.functional.langevin import langevin
from lightning_gans.functional.modes import evaluating
from lightning_gans.functional.ranks import gather_rows
from lightning_gans.nonadversarial.singular import SingularValues
from lightning_gans.nonadversarial.vae import VAE
from lightning_gans.nonadversarial.walks import Walks, noise_of
from lightning_gans.optim import ClippedAdam


class VAEBM(Walks, VAE):
    r"""A VAE that is trained and then frozen, and an energy that takes density away where it has too much.

    .. math::
        h(x, z) \propto p(z)\, p(x|z)\, e^{-E(x)}, \qquad
        \min_E\ E_{x \sim \mathrm{data}} E(x) - E_{x \sim h} E(x) + \alpha \sum_l \sigma_{\max}(W_l)

    (``contrast`` and ``spectral``, of the player ``energy``). Samples of h are made where the VAE's noise is, which is
    easier than among pixels: x = f(z) + s e of normal z and e, moved by Langevin steps of size :math:`\eta` on

    .. math:: U(z, e) = E(f(z) + s e) + |z|^2/2 + |e|^2/2.

    The first ``vae_steps`` updates are those of `VAE` (player ``vae``), after which it does not change any more; with
    ``vae_steps=0`` give networks that are trained, and their ``sigma``. Chains of training begin at z of the prior or,
    as often as ``replay`` says, where earlier ones ended: the last ``buffer_size`` of them are in the checkpoint.

    A sample takes ``sampling_steps`` such steps, each a call of the decoder and of the energy, which is told in scores
    and cards as ``network_calls``. The noise between is from the source of z in :meth:`sample`; in :meth:`decode` it is
    a function of z, :math:`a \cos Wz + b \sin Wz` with normal a, b and W that are the same each time.
    ``callbacks.EMA`` averages the energy. The normaliser of h is not known: :meth:`log_density_bound` is that of the
    VAE, without the energy.

    Departures: any network is E, of raw scores, without the code's weight normalisation; samples are not cut off at the
    range of the data within a chain; by default they take as many steps as a chain of training, 10, where the code
    takes 16 (CIFAR-10); E's weights do not decay (there by 3e-5). The code's potential has the logarithm of p(x|z) in
    place of \|e\|^2/2: the same gradient, since s is one number.

    Attributes:
        phases: updates of each player, one after the other; None: all that are left.

    When: A density, and samples with less of what a VAE has too much, at some network calls each.

    Defaults: steps of training, spectral weight and betas are those of the released code for CIFAR-10; so are replay
    and buffer, but its command never switches them on for that set (for LSUN's churches it does): ``replay=0`` is what
    it ran. Step size and rate are our choice, for small data.

    Args:
        encoder: as of `VAE`.
        decoder: as of `VAE`.
        energy: samples [, labels] to E (N,), as any discriminator without normalisation.
        latent_dim: length of z.
        vae_steps: updates of the VAE before the energy's, >= 0.
        chain_steps: Langevin steps of a chain in training, >= 1.
        sampling_steps: of a sample; None: as many.
        step_size: eta > 0.
        spectral: alpha >= 0.
        replay: share of chains that go on with earlier ones, in [0, 1], reached linearly in ``replay_after`` updates;
            none where networks take labels, since kept ones may be of another class.
        replay_after: >= 1.
        buffer_size: ends of chains that are kept, >= 1.
        noisy: samples are f(z) + s e; False: f(z), as of images, with which the energy is trained then, too.
        lr_energy: of `optim.ClippedAdam` with betas (.99, .999).
        optimizer_energy: makes another optimizer.
        scheduler_energy: makes its learning rate scheduler.
        clip_grad_energy: largest norm of its gradient.
        kwargs: as for `VAE`.

    Logged:
        energy/contrast: mean energy of data less that of samples.
        energy/spectral: alpha times the sum of singular values.
        energy/real, energy/fake: mean energy of data, of samples: far apart, the training is about to diverge.

    Raises:
        ValueError: for settings out of range, and when training starts with networks that do not fit each other.

    >>> from lightning_gans.networks import ToyDiscriminator, VAEDecoder, VAEEncoder
    >>> model = VAEBM(VAEEncoder((2,), 3, 8), VAEDecoder((2,), 3, 8), ToyDiscriminator(width=8), 3, chain_steps=5)
    >>> tuple(model.sample(4, seed=0).shape), model.network_calls
    ((4, 2), 11)
    """

    made_by, averaged_with = "energy", ()
    phases: Mapping[str, int | None] = {"vae": 1, "energy": None}  # while the constructor has not said
    ends: Tensor
    pushed: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        energy: nn.Module,
        latent_dim: int,
        *,
        vae_steps: int = 2000,
        chain_steps: int = 10,
        sampling_steps: int | None = None,
        step_size: float = 0.01,
        spectral: float = 0.2,
        replay: float = 0.6,
        replay_after: int = 5000,
        buffer_size: int = 10_000,
        noisy: bool = True,
        lr_energy: float = 1e-3,
        optimizer_energy: OptimizerFactory | None = None,
        scheduler_energy: SchedulerFactory | None = None,
        clip_grad_energy: float | None = None,
        **kwargs: Any,
    ) -> None:
        checks.at_least(0, vae_steps=vae_steps)
        checks.at_least_one(chain_steps=chain_steps, replay_after=replay_after, buffer_size=buffer_size)
        checks.at_least_one(**checks.given(sampling_steps=sampling_steps))
        checks.positive(step_size=step_size)
        checks.not_negative(spectral=spectral)
        checks.share(replay=replay)
        if vae_steps == 0 and kwargs.get("sigma") is None:
            raise ValueError("sigma must be that of the trained VAE with vae_steps=0, got None: nothing learns it.")
        super().__init__(encoder, decoder, latent_dim, **kwargs)
        self.energy, self.singular_values, self.step_size, self.noisy = energy, SingularValues(energy), step_size, noisy
        self.chain_steps, self.sampling_steps, self.spectral = chain_steps, sampling_steps or chain_steps, spectral
        self.replay = 0.0 if takes_labels(decoder) or takes_labels(energy) else replay
        self.replay_after, self.phases = replay_after, {"vae": vae_steps, "energy": None}
        self.register_buffer("ends", torch.zeros(buffer_size, latent_dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))  # into it, since the energy began
        adam = optimizer_energy or partial(ClippedAdam, lr=lr_energy, betas=(0.99, 0.999))
        own = (lr_energy, adam, scheduler_energy, clip_grad_energy, self.players["vae"].accumulate)
        self.play(Player("energy", ("energy",), *own))

    @property
    def counted(self) -> str:  # type: ignore[override]
        """The VAE while it is trained, then the energy."""
        return "vae" if self.progress.updates.get("vae", 0) < (self.phases["vae"] or 0) else "energy"

    @property
    def network_calls(self) -> int:
        """For each sample."""
        return 2 * self.sampling_steps + 1

    @property
    def num_classes(self) -> int | None:
        """Classes that samples can be asked for."""
        told = (getattr(net, "num_classes", None) for net in (self.decoder, self.energy) if takes_labels(net))
        return next(filter(None, told), None)

    # ------------------------------------------------------------------ training
    def due(self, player: str) -> bool:
        """One after the other."""
        return player == self.counted

    def take(self, n: int) -> list[Batch]:
        """The next batches; while the energy learns, with samples of the model in the place of noise."""
        batches = super().take(n)
        if (later := self.counted == "energy") and self.progress.updates["energy"] == 0:
            self.values.clear()  # of the VAE
        return [replace(b, z=self.negatives(b)) for b in batches] if later else batches

    def terms(self, player: str, batch: Batch) -> Terms:
        """Of the VAE, or of the energy on data and samples."""
        if player == "vae":
            return super().terms(player, batch)
        real, fake = (score(self.energy, x, batch.labels, "energy") for x in (batch.real, batch.z))
        self.note(energy_real=real.mean(), energy_fake=fake.mean())
        weights: Any = 1.0 if batch.weights is None else batch.weights
        terms = {"contrast": (weights * real).mean() - fake.mean()}
        return terms | ({"spectral": self.spectral * self.singular_values(self.energy)} if self.spectral else {})

    @torch.no_grad()
    def negatives(self, batch: Batch) -> Tensor:
        """Samples (N, ...) of the model as it is, whose ends are kept."""
        n, source, device = len(batch.z), batch.generator, batch.z.device
        normal = partial(draw.normal, n, generator=source, device=device, dtype=batch.z.dtype)
        u, kept = draw.uniform(n, 2, generator=source, dtype=torch.float64), self.pushed.clamp_max(len(self.ends))
        again = u[:, :1] < self.replay * min(1.0, self.progress.updates["energy"] / self.replay_after)
        z = torch.where(again, self.ends[(u[:, 1] * kept).long()].to(batch.z), batch.z)
        noise = torch.cat([z, normal(batch.real[0].numel())], 1)
        noise = self.walk(noise, batch.labels, self.energy, self.chain_steps, partial(normal, noise.shape[1]))
        new = gather_rows(noise[:, : self.latent_dim])[-len(self.ends) :]
        self.ends[(self.pushed + torch.arange(len(new), device=device)) % len(self.ends)] = new.to(self.ends)
        self.pushed += len(new)
        return self.made(noise, batch.labels, self.noisy)

    # ------------------------------------------------------------------ samples
    def made(self, noise: Tensor, labels: Tensor | None, noisy: bool = True) -> Tensor:
        """f(z) + s e of z and e side by side (N, latent_dim + pixels), or f(z)."""
        with evaluating(self.decoder):
            mean = conditional_call(self.decoder, noise[:, : self.latent_dim], labels)
        s = (self.log_variances["data"] / 2).exp()
        return mean + s * noise[:, self.latent_dim :].view_as(mean) if noisy else mean

    def walk(self, noise: Tensor, labels: Tensor | None, energy: nn.Module, steps: int, normal: Any) -> Tensor:
        """Noise (N, latent_dim + pixels) after Langevin steps on U, each row by itself."""

        def gradient(noise: Tensor) -> Tensor:
            # trainer.test and predict are in inference mode, where nothing has a gradient
            with torch.inference_mode(False), torch.enable_grad(), no_autocast(noise.device.type):
                at, given = noise.clone().requires_grad_(), None if labels is None else labels.clone()
                total = score(energy, self.made(at, given), given, "energy").sum()
                return noise + torch.autograd.grad(total, at)[0]

        with evaluating(energy):
            return langevin(gradient, noise, steps, self.step_size, normal)

    @torch.no_grad()
    def reverse(
        self, z: Tensor, labels: Tensor | None = None, generator: torch.Generator | None = None, *, of_z: bool = False
    ) -> Tensor:
        """Samples (N, ...) of noise z (N, latent_dim); further noise by ``generator`` (CPU), or by :func:`noise_of`."""
        drawn = partial(torch.randn, len(z), generator=generator, dtype=z.dtype)
        normal = lambda d: noise_of(z, d, generator) if of_z else drawn(d).to(z.device)  # noqa: E731
        noise = torch.cat([z, normal(self.made(z[:1], None if labels is None else labels[:1], False).numel())], 1)
        steps = self.sampling_steps * bool(self.pushed)  # before the energy begins, it is a VAE
        noise = self.walk(noise, labels, self.network, steps, partial(normal, noise.shape[1]))
        return self.made(noise, labels, self.noisy)

    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for networks that do not fit the data, or each other."""
        super().check_first_batch(batch)
        with torch.no_grad(), evaluating(self.energy):
            score(self.energy, batch.real, batch.labels, "energy")
