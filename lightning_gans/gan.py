"""``GANModule``: the game of a discriminator and a generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine import distributed
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.first_batch import scored_alone, tried, warn_of_range
from lightning_gans.engine.first_batch import warn_of_sigmoid as warn_of_sigmoid
from lightning_gans.engine.frozen import frozen
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.own_code import check_regularizers, speaks_for
from lightning_gans.engine.player import OptimizerFactory, Player, SchedulerFactory, check_betas
from lightning_gans.functional import draw
from lightning_gans.functional.columns import Names
from lightning_gans.functional.conditional import real_in_generator_step as real_in_generator_step
from lightning_gans.functional.conditional import score
from lightning_gans.functional.double_backward.input_gradient import DoubleBackward
from lightning_gans.functional.penalties import Discriminator
from lightning_gans.regularizers import Regularizer

_LARGE = 2**14  # elements of a batch


class GANModule(GenerativeModule):
    """Cycles of ``d_steps`` discriminator and ``g_steps`` generator updates; subclasses say what is minimised.

    One ``training_step`` is one generator update, the cycle's first one together with the discriminator updates before
    it; Lightning's ``global_step`` counts generator updates. Any loader works that yields ``x``, ``(x, labels)`` or
    ``(x, labels, weights)``, where labels and weights may be None, or a dictionary (``columns``).

    Override levels, smallest first: :meth:`discriminator_terms` and :meth:`generator_terms`;
    :meth:`after_discriminator_step`, :meth:`before_generator_step`; :meth:`make_fake`; :meth:`generator_batch`; a
    further `Player`, given to :meth:`play`; :meth:`cycle`.

    Args:
        generator: maps noise (N, latent_dim) [, labels (N,)] to samples (N, ...).
        discriminator: maps samples [, labels (N,)] to raw scores (N,), high for real. No sigmoid.
        latent_dim: length of z.
        regularizers: terms added to a player's loss (``lightning_gans.regularizers``).
        d_steps: discriminator updates per cycle, >= 1.
        g_steps: generator updates per cycle, >= 1.
        g_batch_factor: the generator step draws this many times the batch size of fakes, >= 1.
        order: ``d_first``, or ``g_first`` where the generator steps before the discriminator in a cycle.
        lr_g: learning rate of the generator's default optimizer.
        lr_d: learning rate of the discriminator's default optimizer.
        betas: beta1, beta2 of the default optimizer (Adam).
        optimizer_g: makes the generator's optimizer of its parameters; replaces the default, lr_g and betas.
        optimizer_d: the same for the discriminator.
        scheduler_g: makes a learning rate scheduler of the generator's optimizer; it steps once per generator update.
        scheduler_d: the same for the discriminator, also once per generator update.
        clip_grad_g: largest norm of the generator's gradient; longer ones are scaled down (after unscaling).
        clip_grad_d: the same for the discriminator.
        double_backward: see `GenerativeModule`.
        cuda_graphs: see `GenerativeModule`.
        accumulate_g: noise batches whose mean gradient makes one generator update. Real samples in a generator's loss
            (a relativistic one, say) are those of D's last batch, the same for each.
        accumulate_d: data batches whose mean gradient makes one discriminator update.
        sam_g: rho of sharpness-aware minimisation (``optim.sam``) by the generator, >= 0: its gradient is taken at that
            distance from its weights, and costs twice as much. None: off.
        sam_d: the same for the discriminator.
        columns: see `GenerativeModule`.

    Raises:
        ValueError: for settings out of range, for two terms of one name, and for BatchNorm in a discriminator with a
            per-sample penalty.
    """

    own_terms: Mapping[str, bool] = {"adversarial": False}  # of the technique itself, by name: is it per sample?

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        *,
        regularizers: Sequence[Regularizer] = (),
        d_steps: int = 1,
        g_steps: int = 1,
        g_batch_factor: int = 1,
        order: Literal["d_first", "g_first"] = "d_first",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        optimizer_g: OptimizerFactory | None = None,
        optimizer_d: OptimizerFactory | None = None,
        scheduler_g: SchedulerFactory | None = None,
        scheduler_d: SchedulerFactory | None = None,
        clip_grad_g: float | None = None,
        clip_grad_d: float | None = None,
        double_backward: DoubleBackward = "sparse",
        cuda_graphs: bool = False,
        accumulate_g: int = 1,
        accumulate_d: int = 1,
        sam_g: float | None = None,
        sam_d: float | None = None,
        columns: Names | None = None,
    ) -> None:
        checks.at_least_one(latent_dim=latent_dim, d_steps=d_steps, g_steps=g_steps, g_batch_factor=g_batch_factor)
        checks.networks(generator=generator, discriminator=discriminator)
        regularizers = check_regularizers(regularizers)
        checks.one_of("order", order, ("d_first", "g_first"))
        if order == "g_first":
            checks.only("g_steps", g_steps, 1, "with order='g_first'")
        check_betas(betas, optimizer_g is None or optimizer_d is None)
        d = Player("d", ("discriminator",), lr_d, optimizer_d, scheduler_d, clip_grad_d, accumulate_d, sam=sam_d)
        g = Player("g", ("generator",), lr_g, optimizer_g, scheduler_g, clip_grad_g, accumulate_g, sam=sam_g)
        super().__init__(double_backward=double_backward, cuda_graphs=cuda_graphs, columns=columns)
        self.generator, self.discriminator = generator, discriminator
        self.annealed = [net for net in generator.modules() if hasattr(net, "at_update")]
        self.latent_dim, self.g_batch_factor, self.order = latent_dim, g_batch_factor, order
        self.d_steps, self.g_steps, self.betas = d_steps, g_steps, (betas[0], betas[1])
        self.g_batches = 0  # real batches that each generator update takes for before_generator_step
        for r in regularizers:
            checks.one_of(f"player of the regularizer {r.name!r}", r.player, ("d", "g"))
        self.regularizers = [r.fitting(discriminator if r.player == "d" else generator) for r in regularizers]
        check_terms(self.own_terms, self.regularizers, discriminator)
        warn_of_sigmoid(discriminator)
        self.play(d, g)
        self._joint = False  # score real and fake samples in one pass
        self._pair: list[Any] = []  # while that is under way: the two, then their scores

    # ------------------------------------------------------------------ what a technique defines
    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """Terms whose sum the discriminator minimises, logged as ``d/<name>``; ``fake`` is detached."""
        raise NotImplementedError

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """Terms whose sum the generator minimises, logged as ``g/<name>``; ``fake`` carries the generator's graph."""
        raise NotImplementedError

    def after_discriminator_step(self) -> None:
        """Called after each discriminator update (weight clipping lives here)."""

    def before_generator_step(self, batches: Sequence[Batch]) -> None:
        """Called before each generator update, in either ``order``, with ``g_batches`` fresh real batches.

        Further players step here.
        """

    def make_fake(self, batch: Batch) -> Tensor:
        """The fakes of a step, of the batch's noise and labels; in D's step without gradient."""
        return self.generated(batch.z, batch.labels)

    def as_real(self, made: Tensor, batch: Batch) -> Tensor:
        """What the generator returns, in the form of real samples, if a technique's is another."""
        return made

    def generator_batch(self, last: Batch) -> Batch:
        """The batch of a generator step, given the last discriminator step's: fresh noise, labels as in the data."""
        n, labels = self.g_batch_factor * len(last.real), last.labels
        if labels is not None and self.g_batch_factor > 1:  # the cycle's labels have the data's class frequencies
            pool = distributed.interleave(torch.cat(self.progress.labels or [labels]))
            labels = pool[(draw.uniform(n, generator=self.run.noise, device=pool.device) * len(pool)).long()]
        return Batch(last.real, labels, last.weights, self.draw_noise(n), self.run.noise)

    # ------------------------------------------------------------------ what it can use
    def declare(self, per_sample: bool, **weights: float) -> None:
        """Say, before ``GANModule.__init__``, which terms of its own D has; a term of weight 0 is none."""
        self.own_terms = {**self.own_terms, **{name: per_sample for name, weight in weights.items() if weight}}

    def score(self, x: Tensor, batch: Batch) -> Tensor:
        """Scores (N,) of ``x`` by the discriminator, with the batch's labels if it takes them; in float32 or better.

        In a discriminator step the real and the fake samples are scored in one pass, by the first of the two calls,
        where that makes no difference: without buffers, and if it made none on the first batch of the run, to dropout
        neither. Each gets its scores once; who asks again is given a new pass. (On a CPU small batches only: large
        ones are faster apart.)
        """
        pair, labels = self._pair, batch.labels
        if pair and torch.is_grad_enabled() and (x is pair[0] or x is pair[1]):
            if len(pair) == 2:
                labels = None if labels is None else torch.cat([labels, labels])
                pair += score(self.discriminator, torch.cat(pair), labels).chunk(2)
            which = 0 if x is pair[0] else 1
            scores, pair[which] = pair[2 + which], None
        else:
            scores = score(self.discriminator, x, labels)
        return scores.float() if scores.element_size() < 4 else scores

    def critic(self, batch: Batch) -> Discriminator:
        """The discriminator as a function of samples alone, with the batch's labels, outside of the joint pass."""
        return partial(score, self.discriminator, labels=batch.labels)

    @property
    def log_ratio(self) -> nn.Module | None:
        """The network whose output tends to log p_data / p_generated, if the technique trains one (see samplers)."""
        return None

    @property
    def last_batch(self) -> Batch | None:
        """Batch of the last discriminator step, on the training device; in a generator's that is first, of the next."""
        return self.progress.batches.get("d")

    @property
    def last_fake(self) -> Tensor | None:
        """Detached fakes of the last discriminator step."""
        return self.progress.made.get("fake")

    @property
    def kept(self) -> dict[str, Tensor]:
        """What a technique keeps from one generator update of a cycle to the next; emptied when the cycle ends.

        It is per rank and part of the checkpoint.
        """
        return self.progress.kept

    # ------------------------------------------------------------------ one cycle
    def cycle(self) -> None:
        """The discriminator's updates, unless they are done, and one of the generator's."""
        done = self.progress.done
        if self.order == "g_first" and not done["g"]:
            *batches, last = self.take(self.g_batches + 1)
            self.progress.batches["d"] = last  # not the last cycle's, of which a resumed run knows nothing
            self.progress.made.pop("fake", None)
            self._generator_step(batches, last)
        while done["d"] < self.d_steps:
            batches = self.take(self.players["d"].accumulate)
            self.minimise("d", self._d_terms, batches, self._active("d") if self.regularizers else ())
            self.after_discriminator_step()
            self.used(batches)
        if self.order == "d_first":
            self._generator_step(self.take(self.g_batches) if self.g_batches else [], self.progress.batches["d"])
        if done["g"] == self.g_steps:
            self.progress.end_cycle()

    def _generator_step(self, own: list[Batch], last: Batch) -> None:
        self.before_generator_step(own)
        if own:
            self.used(own)
        batches = []
        for _ in range(self.players["g"].accumulate):  # a comprehension would be one more call
            batches.append(self.generator_batch(last))
        self.minimise("g", self._g_terms, batches, self._active("g") if self.regularizers else ())

    def batches_needed(self) -> tuple[int, int]:
        """Those of D's updates, and the generator's own."""
        size, done = self.players["d"].accumulate, self.progress.done
        whole = self.d_steps * size + self.g_batches
        return whole - done["d"] * size, whole if done["g"] + 1 >= self.g_steps else self.g_batches

    def terms(self, player: str, batch: Batch) -> Terms:
        """What a player minimises on a batch, regularizers included."""
        return self._d_terms(batch) if player == "d" else self._g_terms(batch)

    @speaks_for("discriminator_terms")
    def _d_terms(self, batch: Batch) -> Terms:
        with torch.no_grad():
            self.progress.made["fake"] = fake = self.make_fake(batch)
        self._pair[:] = (batch.real, fake) if self._joint else ()
        terms = self.discriminator_terms(batch, fake)
        self._pair.clear()
        return self._regularized(terms, "d", self.discriminator, batch, fake) if self.regularizers else terms

    @speaks_for("generator_terms")
    def _g_terms(self, batch: Batch) -> Terms:
        fake = self.make_fake(batch)
        terms = self.generator_terms(batch, fake)
        return self._regularized(terms, "g", self.generator, batch, fake) if self.regularizers else terms

    def _active(self, player: str) -> tuple[str, ...]:
        """Names of the regularizers of a player's next update."""
        done = self.progress.updates[player]
        return tuple([r.name for r in self.regularizers if r.player == player and done % r.every == 0])

    def _regularized(self, terms: Terms, player: str, network: nn.Module, batch: Batch, fake: Tensor) -> Terms:
        active = self._active(player) if isinstance(terms, Mapping) else ()  # else the step says so
        result: Any = dict(terms) if active else terms
        for r in [r for r in self.regularizers if r.player == player and r.name in active]:
            if r.name in terms:
                raise ValueError(f"regularizers must not be named as a term of the technique, got {r.name!r}.")
            term = r.weight * r(network, batch, fake)
            result[r.name] = r.every * term if r.every > 1 else term
        return result

    # ------------------------------------------------------------------ the first batch
    @torch.no_grad()
    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for data that the networks cannot be trained on; see if one pass serves for two."""
        super().check_first_batch(batch)
        with frozen(self.generator), frozen(self.discriminator):
            fake = self._checked_fake(batch)
            self._check_scores(batch)
            warn_of_range(self.generator, fake, batch.real)
            small = (self.device.type != "cpu" or batch.real.numel() < _LARGE) and not [*self.discriminator.buffers()]
            self._joint = small and scored_alone(self.discriminator, batch.real, fake, batch.labels)

    def _checked_fake(self, batch: Batch) -> Tensor:
        hint = f"; latent_dim={self.latent_dim} must be the length of the noise that it takes"
        try:
            fake = self.as_real(tried("generator", self.generator, "noise", batch.z, batch.labels, hint), batch)
        except ValueError:
            if self._takes_maps(batch):
                raise ValueError(
                    f"The generator must take noise (N, {self.latent_dim}), got one of (N, {self.latent_dim}, 1, 1): "
                    f"give nn.Sequential(nn.Unflatten(1, ({self.latent_dim}, 1, 1)), generator)."
                ) from None
            raise
        if fake.shape != batch.real.shape:
            raise ValueError(
                f"The generator's output has shape {tuple(fake.shape)}, but real samples have "
                f"{tuple(batch.real.shape)}: both must be the same."
            )
        return fake

    def _takes_maps(self, batch: Batch) -> bool:
        """Whether the generator takes noise (N, latent_dim, 1, 1)."""
        with suppress(ValueError):
            return len(tried("generator", self.generator, "noise", batch.z[..., None, None], batch.labels)) > 0
        return False

    def _check_scores(self, batch: Batch) -> None:
        scores = tried("discriminator", self.discriminator, "real samples", batch.real, batch.labels)
        if scores.shape[:1] != (n := len(batch.real),) or scores.numel() != n:
            raise ValueError(
                f"The discriminator must return one score per sample, shape ({n},), got {tuple(scores.shape)}."
            )


def check_terms(own: Mapping[str, bool], regularizers: Sequence[Regularizer], discriminator: nn.Module) -> None:
    """ValueError for two terms of one name, and for one that is per sample with BatchNorm in the discriminator.

    Args:
        own: the technique's terms by name: is it per sample?
        regularizers: those that are injected.
        discriminator: the network that is penalised.
    """
    names = [*own, *(r.name for r in regularizers)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"regularizers must have different names, got {repeated[0]!r} more than once.")
    per_sample = [name for name, alone in own.items() if alone]
    per_sample += [r.name for r in regularizers if r.per_sample and r.player == "d"]
    for name, layer in discriminator.named_modules():
        if per_sample and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"The penalty {per_sample[0]!r} is per sample, but BatchNorm (discriminator layer {name!r}) makes each "
                "score depend on the whole batch: use layer, instance, group or no normalisation there."
            )
