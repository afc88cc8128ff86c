"""StylEx (Lang et al. 2021, arXiv:2104.13369): a generator by styles that keeps what a classifier looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import as_logits
from lightning_gans.functional.latent import from_w, to_w
from lightning_gans.functional.modes import beside, evaluating, frozen_copy
from lightning_gans.functional.numerics import floating, full_precision, has_gradient
from lightning_gans.functional.ranks import gather_rows, mean_over_ranks
from lightning_gans.regularizers.path_length import by_styles
from lightning_gans.techniques.style_gan2 import StyleGAN2

_SEEN = 256  # probabilities of real samples that samples are made with


class StylEx(StyleGAN2):
    r"""StyleGAN2 with an encoder, and a classifier C whose verdict on a sample its reconstruction has to keep.

    .. math:: x' = G(E(x), C(x)), \qquad L_{G, E} = L_G^{\mathrm{StyleGAN2}} + a_1 |x - x'| \qquad + a_2\, d_C(x, x') +
              a_3 |E(x) - E(x')| + b\, KL(C(x) \| C(x'))

    Half of a batch are reconstructions, of its first half, the rest are samples of noise; w is a code and the
    probabilities C(x) of a real sample, which are also the discriminator's soft label (`networks.SoftDiscriminator`).
    So the last ``num_classes`` numbers of z are those probabilities, which the generator passes on to w
    (``StyleGenerator(passed=...)``); samples have those of real samples that were seen last. d_C is the mean square
    difference of C's ``features`` at unit length, of log C(x) if it has none: not LPIPS, whose networks are others.
    Terms ``image``, ``features``, ``style`` and ``kl``. What C depends on is then found by `diagnostics.AttFind`.

    Departures: both halves are in one step, where the public reproduction alternates; logistic loss in place of its
    hinge; the encoder steps with the generator.

    Overrides :meth:`take`, :meth:`generator_batch`, :meth:`make_fake`, :meth:`after_discriminator_step`,
    :meth:`latents`.

    When: To explain a classifier of images: what it looks at is kept by the generator, and found by
    `diagnostics.AttFind`.

    Defaults: the weights are those of the public reproduction; the paper's were not found. Else as
    :class:`StyleGAN2`.

    Args:
        generator: see :class:`StyleGAN2`, as for the remaining arguments.
        discriminator: raw scores (N,); may take probabilities as ``labels`` (N, K).
        latent_dim: length of z, with the probabilities.
        encoder: samples to codes (N, latent_dim - num_classes); trained with the generator.
        classifier: samples to logits, frozen and no part of the checkpoint: (N, K), or (N,) of two classes. Must be
            differentiable in the samples.
        num_classes: K.
        image_weight: a_1 >= 0.
        features_weight: a_2 >= 0.
        style_weight: a_3 >= 0.
        kl_weight: b >= 0; 0 leaves it to chance whether G keeps what C looks at.

    Logged:
        g/image, g/features: a_1 and a_2 times the distance between a sample and its reconstruction.
        g/style: a_3 times the distance of their codes.
        g/kl: b times the divergence of C's verdicts on them.

    Raises:
        ValueError: for settings out of range, a generator that passes on another number, and when training starts for
            a classifier of other classes or without a gradient, and a batch of one.

    >>> from lightning_gans.networks import SoftDiscriminator, StyleEncoder, StyleGenerator
    >>> shape = (3, 16, 16)
    >>> generator, critic = StyleGenerator(shape, 8, widths=4, passed=2), SoftDiscriminator(shape, 4, classes=2)
    >>> encoder, classifier = StyleEncoder(shape, 8, 2, widths=4), lambda x: x.mean((1, 2, 3))  # is it bright?
    >>> model = StylEx(generator, critic, latent_dim=8, encoder=encoder, classifier=classifier)
    >>> model.sample(4).shape, model.latents(4)[0][:, -2:].sum(1).tolist()  # the last numbers are probabilities
    (torch.Size([4, 3, 16, 16]), [1.0, 1.0, 1.0, 1.0])
    """

    normal_noise, averaged_with = False, ("encoder",)
    seen: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        encoder: nn.Module,
        classifier: nn.Module | Callable[[Tensor], Tensor],
        num_classes: int = 2,
        image_weight: float = 1.0,
        features_weight: float = 0.1,
        style_weight: float = 0.1,
        kl_weight: float = 1.0,
        style_mixing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        weights = {"image": image_weight, "features": features_weight, "style": style_weight, "kl": kl_weight}
        checks.not_negative(**{f"{name}_weight": weight for name, weight in weights.items()})
        checks.at_least(2, num_classes=num_classes)
        checks.at_least(num_classes + 1, latent_dim=latent_dim)
        checks.only("style_mixing", style_mixing, 0.0, "of StylEx, whose codes are of one sample")
        if by_styles(generator) and getattr(generator, "passed", 0) != num_classes:
            raise ValueError(f"generator must have passed={num_classes}, got {getattr(generator, 'passed', 0)}.")
        checks.networks(encoder=encoder)
        self.declare(False, **weights)
        super().__init__(generator, discriminator, latent_dim, style_mixing=style_mixing, **kwargs)
        checks.only("g_batch_factor", self.g_batch_factor, 1, "of StylEx, which goes by pairs")
        checks.only("accumulate_g", self.players["g"].accumulate, 1, "of StylEx, which reconstructs D's one batch")
        self.encoder, self.classes, self.weights, self.conditional = encoder, num_classes, weights, False
        self.players["g"].networks = ("generator", "encoder")
        # the codes go from a generator step's fakes to its terms
        self._classifier, self._codes = frozen_copy(classifier=classifier), dict[Batch, Tensor]()
        self.register_buffer("seen", torch.full((_SEEN, num_classes), 1 / num_classes))

    @property
    def classifier(self) -> Any:
        """The frozen classifier, on this module's device, in its type, or in float32 where that has fewer bits."""
        found: Any = self._classifier["classifier"]
        return beside(found, next(self.generator.parameters())) if isinstance(found, nn.Module) else found

    def log_probabilities(self, x: Tensor) -> Tensor:
        """log C(x), (N, K), of samples."""
        return as_logits(self.classifier(full_precision(x)), len(x), self.classes).log_softmax(1)

    def features(self, x: Tensor, log_p: Tensor | None = None) -> Tensor:
        """The classifier's ``features`` of samples, or log C(x), which is evaluated unless it is given."""
        told = self.log_probabilities if log_p is None else lambda _: log_p
        return getattr(self.classifier, "features", told)(full_precision(x))

    @torch.no_grad()
    def told_by(self, batch: Batch, p: Tensor | None = None) -> Batch:
        """The batch with probabilities (N, K), by default C's, as labels, and in its noise."""
        if len(batch.real) < 2:
            told = "a batch of 1 (drop_last=True leaves out a short last one)"
            raise ValueError(f"batch_size must be >= 2 for reconstructions and samples, got {told}.")
        p = self.log_probabilities(batch.real).exp().to(batch.z) if p is None else p
        return replace(batch, labels=p, z=torch.cat([batch.z[:, : -self.classes], p], 1))

    def take(self, n: int) -> list[Batch]:
        """Batches, whose own labels are not used."""
        return [self.told_by(batch) for batch in super().take(n)]

    def generator_batch(self, last: Batch) -> Batch:
        """The real samples of D's batch, of which C has told, and fresh noise."""
        return self.told_by(super().generator_batch(last), last.labels)

    def make_fake(self, batch: Batch) -> Tensor:
        """Reconstructions of the first half of the real samples, and samples of noise."""
        generator: Any = self.generator
        half, w = len(batch.real) // 2, to_w(self.generator, batch.z)
        codes = self.encoder(batch.real[:half])
        self._codes = {batch: codes} if torch.is_grad_enabled() else {}
        w = torch.cat([torch.cat([codes, w[:half, -self.classes :]], 1), w[half:]])
        if not by_styles(generator):
            return from_w(generator, w)
        if torch.is_grad_enabled():  # in its own step
            generator.follow(mean_over_ranks(w.detach().mean(0)))
        normal = partial(draw.normal, len(w), generator=batch.generator, device=w.device, dtype=w.dtype)
        return generator.synthesis(generator.spread(w), [normal(*shape) for shape in generator.noise_shapes])

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """w (N, w_dim) of samples: their codes, by the averaged encoder if there is one, and what C says of them."""
        with evaluating(encoder := self.averaged("encoder")):
            return torch.cat([encoder(floating(x)), self.log_probabilities(x).exp().to(x)], 1)

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """Of StyleGAN2, and what a reconstruction has to keep."""
        x, again, p = (rows[: len(fake) // 2] for rows in (batch.real, fake, batch.z[:, -self.classes :]))
        q, codes = self.log_probabilities(again), self._codes.pop(batch, None)
        near = [F.normalize(f.reshape(len(x), -1), dim=1) for f in (self.features(x), self.features(again, q))]
        found = {
            "image": (x - again).abs().mean(),
            "features": (near[0] - near[1]).square().sum(1).mean(),
            "style": ((self.encoder(x) if codes is None else codes) - self.encoder(again)).abs().mean(),
            "kl": F.kl_div(q, p, reduction="batchmean"),
        }
        own = {name: self.weights[name] * value for name, value in found.items() if self.weights[name]}
        return {**super().generator_terms(batch, fake), **own}

    @torch.no_grad()
    def after_discriminator_step(self) -> None:
        """Keeps the probabilities of real samples that were seen last."""
        super().after_discriminator_step()
        if self.last_batch is not None and self.last_batch.labels is not None:
            self.seen.copy_(torch.cat([gather_rows(self.last_batch.labels).to(self.seen), self.seen])[:_SEEN])

    def check_first_batch(self, batch: Batch) -> None:
        """Also that the classifier and the encoder fit."""
        super().check_first_batch(batch)
        codes = self.encode(batch.real)
        if codes.shape != (len(batch.real), self.latent_dim):
            wanted, got = (length - self.classes for length in (self.latent_dim, codes.shape[1]))
            raise ValueError(f"encoder must return codes (N, {wanted}), got (N, {got}).")
        for name, told in {"kl": self.log_probabilities, "features": self.features}.items():
            if self.weights[name] and not has_gradient(told, batch.real):
                raise ValueError(f"classifier must be differentiable in the samples for {name}_weight > 0.")

    def latents(self, n: int, labels: Tensor | None = None, generator: Generator | None = None,
                seed: int | None = None) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Noise, and behind it the probabilities of a real sample."""
        if seed is not None and generator is None:
            generator, seed = Generator().manual_seed(seed), None
        z, labels = super().latents(n, labels, generator, seed)
        which = torch.randint(_SEEN, (n,), generator=generator).to(self.seen.device)
        return torch.cat([z[:, : -self.classes], self.seen[which].to(z)], 1), labels
