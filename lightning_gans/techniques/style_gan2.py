"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958; as of its version for little data, arXiv:2006.06676)."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import draw
from lightning_gans.functional.ranks import mean_over_ranks
from lightning_gans.regularizers import R1, Regularizer
from lightning_gans.regularizers.path_length import PathLength, by_styles, require_styles
from lightning_gans.techniques.gan import GAN
from lightning_gans.wrappers import AdaptiveAugment


class StyleGAN2(GAN):
    r"""A generator by styles, trained with mixed ones, and two penalties that are taken now and then.

    .. math:: L_D = E \log(1 + e^{D(G(z))}) + E \log(1 + e^{-D(x)}) + \frac{\gamma}{2} E \|\nabla D(x)\|^2, \qquad
              L_G = E \log(1 + e^{-D(G(z))}) + \lambda E (\|J_w^T y\| - a)^2

    Terms ``adversarial``, D's ``r1`` in every 16th update, 16 times as heavy, and G's ``path_length`` in every 4th, 4
    times as heavy (`regularizers.PathLength`; it reaches the mapping). With probability ``style_mixing`` the layers
    from a random one on have the w of another z. Training draws noise anew, samples are made with the constant one. The
    mean of w, for `samplers.Truncation`, and a are buffers of the generator, averaged over ranks. The networks are
    ``networks.StyleGenerator`` and ``networks.StyleDiscriminator``; any others do without mixing and path length.

    Defaults are those of the released code for 32 pixels (its ``cifar``) but for mixing and path length, which it has
    for larger images only. Gamma grows with the image: .0002 H^2 / batch there. The average of the weights is
    ``callbacks.EMA(half_life=..., ramp_up=.05)``.

    Departures: a penalty is part of the step, not one of its own, so learning rates and betas need no correction by
    k / (k + 1), which makes up for the steps in addition; each sample has a mixture of its own, not the whole batch.

    In a discriminator under ``wrappers.AdaptiveAugment`` its probability is moved, by ``d/sign``, the mean sign of D's
    scores of real samples.

    Overrides :meth:`make_fake`, :meth:`after_discriminator_step`.

    When: Images whose factors are to be found, edited or controlled afterwards, in w and in the styles of layers.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        r1_gamma: weight gamma of D's penalty, >= 0, 0 for none.
        r1_every: D updates from one to the next.
        path_length_weight: lambda >= 0, 0 for none.
        path_length_every: G updates from one to the next.
        style_mixing: probability of a mixture, in [0, 1].
        loss: always "non_saturating".
        lr_g: learning rate of the generator's Adam; the mapping's is a hundredth.
        lr_d: learning rate of the discriminator's Adam.
        betas: beta1, beta2 of Adam.

    Logged:
        d/r1: the penalty on D's slope at real samples, in the updates that have it.
        g/path_length: the penalty on the path length, in the updates that have it.
        d/sign: mean sign of D's scores of real samples: near 1 where it overfits.
        d/augment: probability of ``wrappers.AdaptiveAugment``, if D is under it.

    Raises:
        ValueError: for settings out of range, for another loss, and for mixing or path length of a generator without
            styles.

    >>> from lightning_gans.networks import StyleDiscriminator, StyleGenerator
    >>> networks = StyleGenerator((3, 16, 16), 8, widths=4), StyleDiscriminator((3, 16, 16), widths=4)
    >>> model = StyleGAN2(*networks, latent_dim=8)
    >>> model.sample(4).shape, [(term.name, term.every) for term in model.regularizers]
    (torch.Size([4, 3, 16, 16]), [('r1', 16), ('path_length', 4)])
    """

    losses = ("non_saturating",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        r1_gamma: float = 0.01,
        r1_every: int = 16,
        path_length_weight: float = 2.0,
        path_length_every: int = 4,
        style_mixing: float = 0.9,
        loss: Literal["non_saturating"] = "non_saturating",
        lr_g: float = 2.5e-3,
        lr_d: float = 2.5e-3,
        betas: tuple[float, float] = (0.0, 0.99),
        **kwargs: Any,
    ) -> None:
        checks.not_negative(r1_gamma=r1_gamma, path_length_weight=path_length_weight)
        checks.at_least_one(r1_every=r1_every, path_length_every=path_length_every)
        checks.share(style_mixing=style_mixing)
        checks.networks(generator=generator, discriminator=discriminator)
        styled = {"style_mixing": style_mixing, "path_length_weight": path_length_weight}
        if asked := [f"{name}={value:g}" for name, value in styled.items() if value]:
            require_styles(generator, f"{type(self).__name__} with {' and '.join(asked)}")
        lazy: list[Regularizer] = []
        if r1_gamma:
            lazy.append(R1(r1_gamma, r1_every))
        if path_length_weight:
            lazy.append(PathLength(path_length_weight, path_length_every))
        self.declare(True, r1=r1_gamma)
        self.declare(False, path_length=path_length_weight)
        super().__init__(generator, discriminator, latent_dim, loss=loss, lr_g=lr_g, lr_d=lr_d, betas=betas, **kwargs)
        self.regularizers += lazy
        self.style_mixing = style_mixing

    def make_fake(self, batch: Batch) -> Tensor:
        """Images of mixed styles and fresh noise."""
        generator: Any = self.generator
        if not by_styles(generator):
            return super().make_fake(batch)
        w = generator.map(batch.z, batch.labels)
        if torch.is_grad_enabled():  # in its own step
            generator.follow(mean_over_ranks(w.detach().mean(0)))
        normal = partial(draw.normal, len(w), generator=batch.generator, device=w.device, dtype=w.dtype)
        ws, layers = generator.spread(w), generator.num_ws
        if self.style_mixing:
            other = generator.spread(generator.map(normal(*self.noise_shape), batch.labels))
            u = draw.uniform(len(w), 2, generator=batch.generator, device=w.device)
            cut = torch.where(u[:, 0] < self.style_mixing, 1 + (u[:, 1] * (layers - 1)).long(), layers)
            ws = torch.where((torch.arange(layers, device=w.device) < cut[:, None])[:, :, None], ws, other)
        return generator.synthesis(ws, [normal(*shape) for shape in generator.noise_shapes])

    def told(self, on_real: Tensor, on_fake: Tensor) -> dict[str, Tensor]:
        """Also how many of the real scores are positive, as a mean sign."""
        return {**super().told(on_real, on_fake), "d_sign": on_real.sign().mean()}

    def after_discriminator_step(self) -> None:
        """Moves the probability of an adaptive augmentation."""
        if isinstance(self.discriminator, AdaptiveAugment):
            assert self.last_batch is not None
            images = len(self.last_batch.real) * self.players["d"].accumulate  # of which the last batch tells the sign
            self.discriminator.see(self.values["d/sign"], images, self.progress.updates["d"])
            self.note(d_augment=self.discriminator.p.clone())
