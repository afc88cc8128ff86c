"""A model of the codes of another: cascaded meta-models (Bao, Su and Zhu, arXiv:1905.04534), with any model behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.engine.contract import Likelihood, require, require_one_call
from lightning_gans.engine.first_batch import sample_labels
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.functional.modes import evaluating
from lightning_gans.stages.fits import fit_items


class Cascade:
    r"""An autoencoder whose codes are drawn by a second model, in place of its prior: a GAN, a diffusion, another VAE.

    .. math:: x = f(z), \qquad z \sim m_2, \qquad m_2 \text{ trained on } z \sim q(z|x),\ x \sim \mathrm{data}

    The codes of the data seldom have the law of the prior, and what the decoder makes of a z where no code lies is
    nothing that it was trained on. The bound of log p(x) grows by what :meth:`gain` tells.

    Args:
        first: a trained `VAE` or `ExemplarVAE`; not changed.
        second: a model of its codes (d,) that is trained already; else :meth:`fit` trains one.

    Raises:
        ValueError: for a first model without an encoder to means and log variances, or of several network calls.

    Attributes:
        second: the model of the codes; None before there is one.

    >>> from lightning_gans import GAN, VAE
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator, VAEDecoder, VAEEncoder
    >>> first = VAE(VAEEncoder((2,), 3, 8), VAEDecoder((2,), 3, 8), latent_dim=3)
    >>> second = GAN(ToyGenerator((3,), width=8), ToyDiscriminator((3,), width=8), latent_dim=2)  # of codes
    >>> Cascade(first, second).sample(4).shape
    torch.Size([4, 2])
    """

    def __init__(self, first: Any, second: GenerativeModule | None = None) -> None:
        if not hasattr(first, "encoder") or not hasattr(first, "prior"):
            raise ValueError(f"first must be a VAE, which has an encoder and a prior, got {type(first).__name__}.")
        require_one_call(first, "Cascade")
        self.first, self.second = first, second

    @torch.no_grad()
    def codes(self, items: Tensor, seed: int = 0) -> Tensor:
        """z ~ q(z|x) (M, d) of items (M, ...) as in training, on their device; the same for a seed."""
        encoder, own, found = self.first.averaged("encoder"), torch.Generator().manual_seed(seed), []
        with evaluating(encoder):
            for x in items.split(1000):
                mean, log_variance = encoder(x.to(self.first.device))
                noise = torch.randn(mean.shape, generator=own, dtype=mean.dtype).to(mean.device)
                found.append((mean + (log_variance / 2).exp() * noise).to(items.device))
        return torch.cat(found)

    def fit(
        self, second: GenerativeModule, items: Tensor, labels: Tensor | None = None, *, steps: int = 1000,
        batch_size: int = 128, folder: str | Path | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        """Train a model, in place, on the codes of items; it is then :attr:`second`.

        Args:
            second: any model of samples (d,): its networks map to, or score, codes.
            items: (M, ...) training data of the first.
            labels: (M,) their classes, if the second takes any.
            steps: updates.
            batch_size: codes for each.
            folder: for losses and a checkpoint, from which a call that was stopped goes on; None: nothing on disk.
            seed: of the codes.
        """
        checks.at_least_one(steps=steps, batch_size=batch_size)
        fit_items(second, self.codes(items, seed), labels, batch_size, steps, folder)
        self.second = second

    def sample(
        self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None, seed: int | None = None
    ) -> Tensor:
        """``n`` samples (n, ...); see `Sampling.sample`.

        Raises:
            ValueError: before there is a model of the codes; for labels that do not fit, or that neither model takes.
        """
        second = self._second()
        sample_labels(labels, n, self.num_classes)
        drawer = next((m for m in (second, self.first) if m.num_classes is not None), None)
        if seed is not None and generator is None:
            generator, seed = torch.Generator().manual_seed(seed), None
        if labels is None and drawer is not None:
            labels = drawer.draw_labels(n, generator)
        z = second.sample(n, labels if second.num_classes is not None else None, generator, seed)
        given = None if labels is None or self.first.num_classes is None else labels.to(self.first.device)
        decoded: Tensor = self.first.decode(z.to(self.first.device), given)
        return decoded

    def gain(self, items: Tensor, seed: int = 0, labels: Tensor | None = None) -> float:
        """E log m_2(z) - log p(z) over codes of items, in nats: what the second adds to the first one's bound.

        A bound from below itself, of a second model that bounds densities (`VAE`); at most 0: leave it out.

        Args:
            items: (M, ...), held-out ones: an `ExemplarVAE` has those that it was trained on in its prior.
            seed: of the codes.
            labels: (M,) their classes, for a second model that takes them: log m_2(z|y) in place of log m_2(z).

        Raises:
            ValueError: for labels that do not fit, or none where the second needs them.
        """
        second = require(self._second(), Likelihood, "gain")
        if labels is None and second.num_classes is not None:
            raise ValueError("labels must be given for the gain by a conditional second model, got None.")
        sample_labels(labels, len(items), second.num_classes)
        z, given = self.codes(items, seed), {} if labels is None else {"labels": labels.to(second.device)}
        return float((second.log_density_bound(z.to(second.device), **given).to(z) - self.first.prior()(z)).mean())

    @property
    def num_classes(self) -> int | None:
        """Classes that samples can be asked for."""
        return self._second().num_classes or self.first.num_classes

    @property
    def network_calls(self) -> int:
        """For each sample: those of the second, and the decoder's."""
        return self._second().network_calls + 1

    def _second(self) -> Any:
        if self.second is None:
            raise ValueError("Cascade must have a model of the codes before it can sample, got none: fit one first.")
        return self.second
