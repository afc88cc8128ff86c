"""A mixture of a frozen generator and a new one (issue 2 of github.com/yandexdataschool/PreciseGAN)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.contract import Latents, has, require_normal_noise, require_one_call
from lightning_gans.functional.losses import LossName
from lightning_gans.runs.load import load
from lightning_gans.techniques.gan import GAN
from lightning_gans.wrappers.mixture import MixtureGenerator


class BoostedGAN(GAN):
    r"""The game of q = p G + (1 - p) G_1 against the data, with G frozen and G_1 sampled more often than it occurs.

    .. math:: \min_D \; E_x \, l(D(x), 1) + E_{\tilde x} \, w \, l(D(\tilde x), 0), \qquad
              \min_{G_1} \; E_{\tilde x} \, w \, l_G(D(\tilde x)) = (1 - p) \, E_z \, l_G(D(G_1(z))) + \mathrm{const}

    Each batch of fakes holds a share s of G's samples and 1 - s of G_1's, with weights w = p / s and (1 - p) / (1 - s),
    so that E w f is E_q f. Against the best D the best :math:`G_1` is :math:`(p_d - p \, G)_+ / (1 - p)`, where
    :math:`p_d \ge p \, G` (``functional.residual``). With ``learn_p``, p = sigmoid(a) descends the same loss:
    :math:`dL / dp = E_G \, l_G - E_{G_1} \, l_G`, which is zero where D takes both components for equally real.

    ``sample`` draws from q, so that the result can be boosted again; all but the last component are then frozen. Real
    samples may have weights of their own: feed the tail often by ``datamodules.TailSampled``.

    When: A trained generator that lacks a part of the data, a tail say, and is not to be touched.

    Defaults: our choice, since there is no paper and no code.

    Departures: none, for want of a paper. Penalties on the gradient are not weighted, and Adam does not feel the factor
    1 - p in the loss of G_1.

    Args:
        generator: G_1; or a `MixtureGenerator`, as a finished run's, whose last component trains on.
        discriminator: raw scores (N,).
        latent_dim: length of z, the same for G and G_1.
        base: G: a generator, a :class:`GANModule` (its averaged generator if it has one), or the path of a checkpoint
            that the command line has written. Copied, and left alone. None for a first round, a plain :class:`GAN`.
        p: weight of G in the mixture, in (0, 1); with ``learn_p`` at first.
        share: s, in (0, 1).
        learn_p: train p, by the optimizer of G_1.
        loss: as of :class:`GAN`.

    Logged:
        g/p: the mixture's p, with ``learn_p``.

    Raises:
        ValueError: for settings out of range, for a mixture with a ``base``.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> first = GAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2)
    >>> model = BoostedGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, base=first, p=0.75)
    >>> model.sample(4).shape, len(model.generator.components), round(float(model.generator.p), 3)
    (torch.Size([4, 2]), 2, 0.75)
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        base: nn.Module | str | None = None,
        p: float = 0.9,
        share: float = 0.5,
        learn_p: bool = False,
        loss: LossName = "non_saturating",
        **kwargs: Any,
    ) -> None:
        checks.inside(p=p, share=share)
        mixture = grown(generator, base, p, share, learn_p)
        super().__init__(mixture, discriminator, latent_dim, loss=loss, **kwargs)

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w log D(x~), for the non-saturating loss."""
        on_real = self.score(batch.real, batch) if self.relativistic else None
        weights = None
        if isinstance(self.generator, MixtureGenerator):
            weights = self.generator.importance(len(fake))
            self.note(g_p=self.generator.p)
        loss = self.loss.generator(self.score(fake, batch), on_real, fake_weight=weights, real_weight=batch.weights)
        return {"adversarial": loss}

    def fake_weights(self, on_real: Tensor, on_fake: Tensor) -> Tensor | None:
        """w of the mixture's samples."""
        mixture = self.generator if isinstance(self.generator, MixtureGenerator) else None
        return None if mixture is None else mixture.importance(len(on_fake)).detach()


def grown(generator: nn.Module, base: nn.Module | str | None, p: float, share: float, learn_p: bool) -> nn.Module:
    """p base + (1 - p) generator; ``generator`` itself without a base."""
    if base is None:
        return generator
    if isinstance(generator, MixtureGenerator):
        raise ValueError(f"base must be None for a generator that is a mixture already, got a {type(base).__name__}.")
    return MixtureGenerator(component(base), generator, p, share, learn_p)


def component(base: nn.Module | str, who: object = "A mixture") -> nn.Module:
    """The generator of a network, a module or a checkpoint, by its averaged weights if there are any.

    Raises:
        ValueError: for a checkpoint that cannot be read, and for a model whose samples are not what its network makes
            of normal noise, which ``who`` draws.
    """
    if isinstance(base, str):
        try:
            base = load(base, trust_code=True)  # named by the user, as the classes of the new networks are
        except ValueError as error:
            raise ValueError(f"base: {str(error).rstrip('.')}. Or give the module itself.") from error
    checks.networks(base=base)
    require_normal_noise(base, who)
    require_one_call(base, who)
    model: Any = base
    return cast(nn.Module, model.network if has(model, Latents) else model)
