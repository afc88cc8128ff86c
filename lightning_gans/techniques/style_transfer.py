"""Style transfer of text without pairs, by a classifier (after Hu et al. 2017, arXiv:1703.00955)."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.conditional import as_logits, without_labels
from lightning_gans.functional.losses import LossName
from lightning_gans.functional.modes import copied, evaluating
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.prc import softmax_weights
from lightning_gans.functional.ranks import gather_rows
from lightning_gans.functional.text import check_autoencoder, check_styled, to_tokens, token_nll
from lightning_gans.runs.load import load_weights
from lightning_gans.techniques.gan import GAN

_SEEN = 256  # sentences that samples are made of


class StyleTransfer(GAN):
    r"""An autoencoder G that writes a sentence x of style y anew in the other style, where a classifier finds it.

    .. math:: L_G = -\frac{a}{T} E \log p_G(x | c(x), y) - b\, E \log C(1 - y | \tilde x) + d\, L_{adv}(\tilde x),
              \qquad \tilde x = G(c(x), 1 - y)

    T is the length of a text, c G's encoder, x~ the relaxed text (`networks.StyleAutoencoder`), C a frozen classifier
    of styles, which is a fit of its own (``train.py classify``, `stages.fit_style_classifier`); D tells sentences from
    transferred ones. Terms ``reconstruction``, ``style`` and ``adversarial``; ``g/transferred`` is the share of x~ that
    C takes for 1 - y. Real samples are one-hot, with their style as label. What G begins with is a fit of its own too,
    the autoencoder alone (``style_weight=0, adversarial_weight=0``), then ``generator_checkpoint``.

    ``reweight``: the fakes have the weights W = N softmax(D(x~) / tau) of `PRCGAN` in D's loss, where the released code
    (arXiv:2006.06900) has them in G's; no ratio is clipped. A critic: ``loss="wasserstein"`` and a gradient penalty.

    Samples are sentences seen last, in the other style; :meth:`transfer` rewrites given ones.

    Departures: C is frozen, where the codes train it along; the codes' losses of z are left out. Weights of real
    samples weigh their reconstruction and style, and D's real ones; all fakes count alike.

    Overrides :meth:`make_fake`, :meth:`after_discriminator_step`, :meth:`latents`.

    When: Sentences to be said in another style, of which no pairs are known.

    Defaults: the style's weight and Adam's rate are those of Texar's example, the clipping is that of the code of
    2006.06900; the adversarial weight is our choice.

    Args:
        generator: as `networks.StyleAutoencoder`: ``encode``, ``logits`` and ``rewritten``, of two styles.
        discriminator: raw scores (N,) of relaxed or one-hot texts (N, T, V), without labels.
        latent_dim: length of z, a code with noise behind it.
        classifier: relaxed texts to logits, (N, 2), or (N,) of style 1; copied, frozen, part of the checkpoint.
        classifier_weights: file of its weights, read when a fit begins; None: it is trained already.
        reconstruction_weight: a >= 0.
        style_weight: b >= 0.
        adversarial_weight: d >= 0.
        reweight: reweight the fakes in D's loss.
        temperature: tau of the weights, > 0.
        loss: name of the adversarial loss.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the discriminator's Adam.
        betas: beta1, beta2 of Adam.
        clip_grad_g: largest norm of the generator's gradient.

    Logged:
        g/reconstruction: a times the loss of a sentence written anew in its own style.
        g/style: b times C's loss on the rewritten one.
        g/adversarial: d times D's verdict on it.
        g/transferred: share of x~ that C takes for the other style.
        g/beta: the inverse temperature of the relaxation.

    Raises:
        TypeError: for a generator that is no such autoencoder.
        ValueError: for settings out of range, no weight above 0, other than two styles, a discriminator that takes
            labels, and a file that does not hold the classifier's weights.

    >>> from lightning_gans.networks import SeqGANDiscriminator, StyleAutoencoder
    >>> classifier, critic = (SeqGANDiscriminator((8, 6), 8, (1, 2), filters=8) for _ in range(2))
    >>> model = StyleTransfer(StyleAutoencoder((8, 6), 16 + 8), critic, latent_dim=16 + 8, classifier=classifier)
    >>> model.transfer(torch.zeros(4, 8, dtype=torch.int64), styles=torch.tensor([0, 0, 1, 1])).shape
    torch.Size([4, 8])
    """

    normal_noise = False
    seen: Tensor
    seen_styles: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        classifier: nn.Module,
        classifier_weights: str | None = None,
        reconstruction_weight: float = 1.0,
        style_weight: float = 0.1,
        adversarial_weight: float = 0.02,
        reweight: bool = False,
        temperature: float = 1.0,
        loss: LossName = "non_saturating",
        lr_g: float = 5e-4,
        lr_d: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        clip_grad_g: float | None = 5.0,
        **kwargs: Any,
    ) -> None:
        weights = {"reconstruction": reconstruction_weight, "style": style_weight, "adversarial": adversarial_weight}
        checks.weights(**weights)
        checks.positive(temperature=temperature)
        own: Any = check_autoencoder(generator, latent_dim)
        without_labels(discriminator=discriminator)
        self.declare(False, **weights)
        kwargs |= {"lr_g": lr_g, "lr_d": lr_d, "betas": betas, "clip_grad_g": clip_grad_g, "loss": loss}
        super().__init__(generator, discriminator, latent_dim, **kwargs)
        checks.only("g_batch_factor", self.g_batch_factor, 1, "where each sentence is rewritten")
        checks.only("accumulate_g", self.players["g"].accumulate, 1, "where G has the sentences of one batch")
        self.reweight, self.temperature, self.weights = reweight, temperature, weights
        self.classifier, self.classifier_weights = copied(classifier).requires_grad_(False), classifier_weights
        self.register_buffer("seen", torch.arange(_SEEN * own.length).view(_SEEN, -1) % own.vocabulary_size)
        self.register_buffer("seen_styles", torch.arange(_SEEN) % 2)

    def make_fake(self, batch: Batch) -> Tensor:
        """The relaxed texts of real samples in the other style."""
        self.kept["code"] = code = cast(Any, self.generator).encode(batch.real)  # in G's step for both of its texts
        return self.generated(torch.cat([code, batch.z[:, code.shape[1] :]], 1), 1 - cast(Tensor, batch.labels))

    def fake_weights(self, on_real: Tensor, on_fake: Tensor) -> Tensor | None:
        """W."""
        return softmax_weights(on_fake, self.temperature) if self.reweight else None

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """What a sentence is rewritten by; those of weight 0 are left out."""
        code, y, found = self.kept.pop("code", None), cast(Tensor, batch.labels), dict[str, Tensor]()
        with evaluating(self.classifier):
            told = full_precision(as_logits(self.classifier(fake), len(fake), 2))
        self.note(g_transferred=(told.argmax(1) != y).float().mean())
        each = 1.0 if batch.weights is None else batch.weights
        if self.weights["reconstruction"]:
            code = cast(Any, self.generator).encode(batch.real) if code is None else code  # of a make_fake of one's own
            logits = cast(Any, self.generator).logits(batch.real, code, y)
            found["reconstruction"] = (each * token_nll(logits, to_tokens(batch.real)).mean(1)).mean()
        if self.weights["style"]:
            found["style"] = (each * F.cross_entropy(told, 1 - y, reduction="none")).mean()
        found |= super().generator_terms(batch, fake) if self.weights["adversarial"] else {}
        return {name: self.weights[name] * term for name, term in found.items()}

    @torch.no_grad()
    def after_discriminator_step(self) -> None:
        """Keep the sentences that were seen last."""
        batch: Any = self.last_batch
        for kept, new in ((self.seen, to_tokens(batch.real)), (self.seen_styles, batch.labels)):
            kept.copy_(torch.cat([gather_rows(new.contiguous()), kept])[:_SEEN])

    def on_fit_start(self) -> None:
        """Read the classifier's weights, unless the fit goes on from a checkpoint."""
        super().on_fit_start()
        if self.classifier_weights is not None and self.trainer.ckpt_path is None:
            load_weights(self.classifier, self.classifier_weights)

    @torch.no_grad()
    def transfer(self, tokens: Tensor, styles: Tensor) -> Tensor:
        """Texts (N, T) int64 in styles (N,), by the averaged network if there is one; the likeliest tokens."""
        with evaluating(network := cast(Any, self.network)):
            return network.rewritten(*(x.to(self.device) for x in check_styled(tokens, styles, network)))

    @torch.no_grad()
    def latents(self, n: int, labels: Tensor | None = None, generator: Generator | None = None,
                seed: int | None = None) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Codes of sentences that were seen last, with noise behind them, and their other style unless told."""
        generator, seed = (generator, seed) if seed is None or generator else (Generator().manual_seed(seed), None)
        which = torch.randint(_SEEN, (n,), generator=generator).to(self.seen.device)
        z, labels = super().latents(n, 1 - self.seen_styles[which] if labels is None else labels, generator, seed)
        with evaluating(network := self.network):
            code = cast(Any, network).encode(self.seen[which])
        return torch.cat([code, z[:, code.shape[1] :]], 1), labels
