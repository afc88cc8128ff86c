"""GANs with an unrolled discriminator (Metz, Poole, Pfau and Sohl-Dickstein 2017, arXiv:1611.02163)."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional.double_backward.input_gradient import no_autocast
from lightning_gans.functional.unroll import Moments, Rule, score_with, unroll
from lightning_gans.gan import real_in_generator_step
from lightning_gans.techniques.gan import GAN


class UnrolledGAN(GAN):
    r"""G plays against the discriminator that D would be after K more updates, and differentiates through them.

    .. math:: V(\theta, \phi) = E \log D_\phi(x) + E \log(1 - D_\phi(G_\theta(z))), \qquad
              \phi_{k+1} = \phi_k + \eta \nabla_\phi V(\theta, \phi_k), \quad \phi_0 = \phi

    all on the real samples of D's last batch and the fakes of G's step. G descends V(theta, phi_K(theta)),
    d phi_K / d theta included, and the minimax form it is: its second term alone would leave out that phi_K knows the
    real samples too. D itself is not moved by this, buffers included, and ascends V by ordinary steps. K = 0 is
    ``GAN(loss="minimax")``.

    ``g/adversarial`` is V(theta, phi_K). Time and memory of G's step grow with K. In a distributed run the K updates
    are those of one process with the whole batch. They run in full precision, outside of autocast.

    Departures: D steps first, and the K updates go on from there on the batch of its last step (the paper's order is
    ``order="g_first"``); with "adam" the updates go on from the moments of D's own Adam (afresh if it has another
    optimizer) with eps = 1e-8 and ``betas``, and pass no derivative through parameters that never had a gradient.
    Regularizers are refused, since the K updates follow V alone.

    When: Mode collapse where updates, not seconds, are what is scarce: K steps cost K times as much.

    Defaults: K, the rates and Adam in the unrolled steps are those of the authors' demo.

    Args:
        generator: see :class:`GANModule`, as for the remaining arguments.
        discriminator: raw scores (N,).
        latent_dim: length of z.
        unroll_steps: K >= 0.
        unroll_lr: eta > 0.
        unroll_optimizer: "adam", or "sgd" for the equation above.
        first_order: take phi_K as a constant: a copy of D trained for K more steps, another algorithm.
        loss: always "minimax", the V above.
        lr_g: learning rate of the generator's Adam.
        lr_d: learning rate of the discriminator's Adam.

    Raises:
        ValueError: for settings out of range and for another loss; with K > 0 for regularizers, and for a conditional D
            with ``g_batch_factor`` above 1.

    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = UnrolledGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, unroll_steps=3)
    >>> model.sample(4).shape, model.unroll_steps
    (torch.Size([4, 2]), 3)
    """

    losses = ("minimax",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        unroll_steps: int = 5,
        unroll_lr: float = 1e-4,
        unroll_optimizer: Rule = "adam",
        first_order: bool = False,
        loss: Literal["minimax"] = "minimax",
        lr_g: float = 1e-3,
        lr_d: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        checks.one_of("unroll_optimizer", unroll_optimizer, get_args(Rule))
        checks.positive(unroll_lr=unroll_lr)
        if unroll_steps:
            checks.at_least_one(unroll_steps=unroll_steps)
            if kwargs.get("regularizers"):
                raise ValueError(f"regularizers must be empty with unroll_steps > 0, got {kwargs['regularizers']!r}.")
        kwargs |= {"lr_g": lr_g, "lr_d": lr_d}
        super().__init__(generator, discriminator, latent_dim, loss=loss, **kwargs)
        if unroll_steps:
            real_in_generator_step(self.g_batch_factor, discriminator)
        self.unroll_steps, self.unroll_lr, self.first_order = unroll_steps, unroll_lr, first_order
        self.unroll_optimizer: Rule = unroll_optimizer
        self.d_updates: Tensor  # of D's Adam, on the device: in a CUDA graph a number would stay as it was
        self.register_buffer("d_updates", torch.zeros(()), persistent=False)

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """V(theta, phi_K(theta))."""
        if not self.unroll_steps:
            return super().generator_terms(batch, fake)

        fake = fake.to(batch.real.dtype)  # which is full under autocast, and half where the networks are

        one_by_one = [(batch.real, batch.labels), (fake, batch.labels)]
        labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        parts = [(torch.cat([batch.real, fake]), labels)] if self._joint else one_by_one

        def minus_value(phi: dict[str, Tensor]) -> Tensor:
            scores = [score_with(self.discriminator, phi, x, y) for x, y in parts]
            on_real, on_fake = scores[0].split([len(batch.real), len(fake)]) if self._joint else scores
            return self.loss.discriminator(on_real, on_fake, real_weight=batch.weights)

        parameters, slots = self._tensors()
        moments: Moments | None = None
        if self.unroll_optimizer == "adam" and slots:
            flat = (torch.cat([slot[name].reshape(-1) for slot in slots]) for name in ("exp_avg", "exp_avg_sq"))
            moments = Moments(self.d_updates, *flat)
        options: Any = {"rule": self.unroll_optimizer, "betas": self.betas, "moments": moments}
        options |= {"first_order": self.first_order}
        with no_autocast(self.device.type):
            phi = unroll(minus_value, parameters, self.unroll_steps, self.unroll_lr, **options)
            return {"adversarial": -minus_value(phi)}

    def generator_batch(self, last: Batch) -> Batch:
        """Notes where D's Adam stands."""
        if self.unroll_optimizer == "adam" and (slots := self._tensors()[1]):
            self.d_updates.fill_(slots[0]["step"])
        return super().generator_batch(last)

    def _tensors(self) -> tuple[dict[str, Tensor], list[Any]]:
        """D's parameters that its optimizer moves, by name, and Adam's state of each, if it is Adam's and complete."""
        optimizer = self.run.steps["d"].optimizer.optimizer
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters = {name: p for name, p in self.discriminator.named_parameters() if id(p) in moved}
        slots = [optimizer.state.get(p, {}) for p in parameters.values()]
        return cast(dict[str, Tensor], parameters), slots if all("exp_avg_sq" in slot for slot in slots) else []
