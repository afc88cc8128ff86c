"""``Step``: one optimizer step of one player, while the other networks are left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_gans.engine import distributed, rng
from lightning_gans.engine.batch import TENSORS, Batch, Terms
from lightning_gans.engine.frozen import Buffers, buffers_of, places_of, put_back, swap_in_copies
from lightning_gans.engine.graphs import StepGraphs
from lightning_gans.engine.own_code import check_terms, nothing_to_train
from lightning_gans.engine.player import Player, may_call_again, needs_closure
from lightning_gans.engine.progress import Progress
from lightning_gans.functional.double_backward.input_gradient import no_autocast
from lightning_gans.optim.recorded import RecordedStep
from lightning_gans.optim.sam import ascend
from lightning_gans.optim.sam import put_back as put_weights_back

_NOTHING = nullcontext()
TermsOf = Callable[[Batch], Terms]
Gradients = Sequence[Tensor | None]
_trains = attrgetter("requires_grad")


class Step:
    """The optimizer steps of one player during one fit.

    Gradients are asked for the player's own parameters only; those of the other players are frozen meanwhile, and their
    buffers (BatchNorm's averages, power iteration vectors) come back unchanged. Ranks average them as one flat buffer.

    Args:
        player: whose step it is.
        networks: of all players, by name.
        optimizers: of all players, as Lightning wraps them.
        progress: where values go, and where they are found.
        generator: source of the per-sample draws.
        scaler: of 16-bit gradients, or None.
        graphs: records the gradients as CUDA graphs; None computes them afresh each time.
        alone: whether nobody hooks into the optimizer's step and nobody counts it, so that a graph may have it in it.
    """

    def __init__(
        self,
        player: Player,
        networks: dict[str, list[nn.Module]],
        optimizers: dict[str, Any],
        progress: Progress,
        generator: torch.Generator,
        scaler: Any = None,
        graphs: StepGraphs | None = None,
        alone: Callable[[], bool] | None = None,
    ) -> None:
        self.player, self.progress, self.generator = player, progress, generator
        self.scaler, self.graphs, self.device_type = scaler, graphs, generator.device.type
        self.optimizer = optimizers[player.name]
        others = [name for name in networks if name != player.name]
        self._groups = self.optimizer.param_groups
        self._other_groups = [group for name in others for group in optimizers[name].param_groups]
        self._places = places_of(networks[player.name])
        self._other_places = places_of([net for name in others for net in networks[name]])
        self._many = distributed.world_size() > 1
        self._exact_name = f"{player.name}/loss"
        self.may_repeat = may_call_again(self.optimizer.optimizer)
        self.simple = not needs_closure(self.optimizer.optimizer)
        unclipped = player.clip is None
        self._alone = alone if self.simple and unclipped and scaler is None and not self._many else None
        self._recorded: RecordedStep | None = None
        self.stepped = False  # the optimizer, with the gradients
        self.always = False  # it is this player's turn, without asking
        self.terms: dict[str, None] = {}  # names of what is minimised
        self._before = dict(progress.values)  # this fit
        self.calls = 0  # of the closure, since the last gradients
        self.loss = torch.empty(())
        self._repeated: tuple[TermsOf, Sequence[Batch], Any, Buffers] | None = None

    def compute(self, terms: TermsOf, batches: Sequence[Batch], key: tuple[Any, ...] = ()) -> None:
        """Set the gradients of the mean over ``batches`` of the sum of ``terms``; ``stepped`` tells if it stepped, too.

        Args:
            terms: what is minimised, by name, of a batch.
            batches: one, or as many as are accumulated.
            key: whatever else than shapes decides which operations ``terms`` runs (one CUDA graph for each).
        """
        self.calls = 0
        if self.graphs is not None:
            batches = self._held(self.graphs, batches)
        elif self.may_repeat or self.player.sam:
            buffers = [(module, name, buffer.clone()) for module, name, buffer in buffers_of(self._places)]
            self._repeated = terms, batches, self._random_state(), buffers
        self.progress.batches[self.player.name] = batches[-1]
        if self.graphs is None:
            self._assign(self._evaluate(terms, batches))
            if self.player.sam:
                self._sharpen(self.player.sam)
        else:
            self._assign(self._replay(self.graphs, terms, batches, key, self._step_inside()))

    def closure(self) -> Tensor:
        """The loss, of accumulated batches the mean: as computed on the first call, evaluated again on later ones.

        That is: with the same random numbers, all buffers kept, gradients averaged and clipped, and nothing logged.

        Raises:
            ValueError: for a later call with a gradient scaler or CUDA graphs.
        """
        self.calls += 1
        if self.calls > 1:
            if self.graphs is not None or self.scaler is not None:
                reason = "a gradient scaler" if self.graphs is None else "cuda_graphs"
                raise ValueError(
                    f"The optimizer of {self.player.name!r} must evaluate its closure once with {reason}, got "
                    f"{type(self.optimizer.optimizer).__name__}, which asks again."
                )
            self._repeat()
            if self.player.sam:
                self._sharpen(self.player.sam)
            if self.player.clip is not None:
                nn.utils.clip_grad_norm_([p for g in self._groups for p in g["params"]], self.player.clip)
        return self.loss

    def clip(self) -> None:
        """Scale the gradient down to the player's limit, and note its norm."""
        assert self.player.clip is not None
        norm = nn.utils.clip_grad_norm_([p for g in self._groups for p in g["params"]], self.player.clip)
        self.progress.values[f"{self.player.name}/grad_norm"] = norm.detach()

    # ------------------------------------------------------------------ gradients
    def _evaluate(self, terms: TermsOf, batches: Sequence[Batch]) -> Gradients:
        own: list[nn.Parameter] = []
        for group in self._groups:
            own += filter(_trains, group["params"])
        if not own:
            raise ValueError(nothing_to_train(self.player, begun=True))
        others = []
        for group in self._other_groups:
            for p in group["params"]:
                if p.requires_grad:
                    others.append(p.requires_grad_(False))
        originals = swap_in_copies(self._other_places) if self._other_places else None
        total: Any = None
        noted = [self.progress.values.copy()] if len(batches) > 1 else []
        try:
            for batch in batches:
                values = terms(batch)
                if not self.terms:
                    self._check(terms, values, len(batches))
                self.loss = loss = reduce(torch.add, values.values())
                for term, value in values.items():
                    self.progress.values[f"{self.player.name}/{term}"] = value.detach()
                    self.terms[term] = None
                self.progress.values[self._exact_name] = loss.detach()
                if noted:
                    noted.append(self.progress.values.copy())
                    loss = loss / len(batches)
                autocast = torch.is_autocast_enabled(self.device_type)
                with no_autocast(self.device_type) if autocast else _NOTHING:  # a penalty's double backward is not cast
                    scaled = loss if self.scaler is None else self.scaler.scale(loss)
                    new = torch.autograd.grad(scaled, own, allow_unused=True)
                total = new if total is None else [_sum(a, b) for a, b in zip(total, new)]
        finally:
            for p in others:
                p.requires_grad_(True)
            if originals is not None:
                put_back(originals)
        if noted:
            self.progress.take_means(noted)
            self.loss = self.progress.values[self._exact_name]
        return cast(Gradients, total)

    def _check(self, terms: TermsOf, found: Terms, batches: int) -> None:
        """Of the first terms: they are such, and nothing of their names was noted in this fit."""
        noted = [name for name, value in self.progress.values.items() if value is not self._before.get(name)]
        check_terms(self.player, terms, found, batches, noted)

    def _assign(self, gradients: Gradients) -> None:
        if self._many:
            means = iter(distributed.average([g for g in gradients if g is not None]))
            gradients = [None if g is None else next(means) for g in gradients]
            if self.may_repeat:  # what it makes of the loss must be the same on all ranks
                self.loss = distributed.average([self.loss.detach()])[0]
        remaining = iter(gradients)
        for group in self._groups:
            for p in group["params"]:
                if p.requires_grad:
                    g = next(remaining)
                    if g is not None and g.stride() != p.stride():  # fused optimizers read both as they lie in memory
                        g = torch.empty_like(p).copy_(g)
                    p.grad = g
                else:
                    p.grad = None  # of one that was frozen meanwhile the last gradient goes on otherwise

    def _repeat(self) -> None:
        """Evaluate again: with the same random numbers, all buffers kept, nothing noted but the loss."""
        assert self._repeated is not None
        terms, batches, before, buffers = self._repeated
        after, known = self._random_state(), {name: dict(vars(self.progress)[name]) for name in ("values", "made")}
        originals = swap_in_copies(self._places)
        put_back([(module, name, buffer.clone()) for module, name, buffer in buffers])
        self._set_random_state(before)
        try:
            with torch.enable_grad():
                self._assign(self._evaluate(terms, batches))
        finally:
            self._set_random_state(after)
            put_back(originals)
            for name, content in known.items():
                vars(self.progress)[name].clear()
                vars(self.progress)[name].update(content)

    def _sharpen(self, rho: float) -> None:
        """Replace the gradient by that of weights a distance rho away along it."""
        loss, saved = self.loss, ascend((p for g in self._groups for p in g["params"]), rho)
        try:
            self._repeat()
        finally:
            put_weights_back(saved)
        self.loss = loss

    def _random_state(self) -> tuple[rng.RNGState, Tensor]:
        return rng.capture(), self.generator.get_state()

    def _set_random_state(self, state: tuple[rng.RNGState, Tensor]) -> None:
        rng.restore(state[0])
        self.generator.set_state(state[1])

    # ------------------------------------------------------------------ CUDA graphs
    def _held(self, graphs: StepGraphs, batches: Sequence[Batch]) -> list[Batch]:
        """The batches, and what the cycle keeps, in the places where a graph looks for them."""
        hold, name = graphs.hold, self.player.name
        for key, value in self.progress.kept.items():
            self.progress.kept[key] = cast(Tensor, hold(key, value))
        held: list[Batch] = []
        for i, b in enumerate(batches):
            tensors: dict[str, Any] = {t: hold((name, i, t), getattr(b, t)) for t in TENSORS}
            held.append(replace(b, **tensors))
        return held

    def _step_inside(self) -> RecordedStep | None:
        """The optimizer's step, where a graph may have it in it."""
        if self._alone is None or not self._alone():
            return None
        recorded = self._recorded = self._recorded or RecordedStep.of(self.optimizer.optimizer)
        return recorded if recorded is not None and recorded.is_due() else None

    def _replay(
        self, graphs: StepGraphs, terms: TermsOf, batches: Sequence[Batch], key: Any, step: RecordedStep | None
    ) -> Gradients:
        """What :meth:`_evaluate` gives and notes, by a CUDA graph once there is one for batches of this shape."""
        progress, before = self.progress, dict(self.progress.values)

        def recorded() -> tuple[Gradients, bool, Tensor, dict[str, Tensor], dict[str, Tensor]]:
            progress.values.clear()
            gradients, stepped = self._evaluate(terms, batches), False
            if step is not None:
                self._assign(gradients)
                stepped = step()
                gradients = [p.grad for group in self._groups for p in group["params"] if p.requires_grad]
            return gradients, stepped, self.loss, dict(progress.values), dict(progress.made)

        shapes = [None if t is None else t.shape for b in batches for t in (getattr(b, name) for name in TENSORS)]
        shapes += [value.shape for value in progress.kept.values()]
        trained = tuple(p.requires_grad for group in self._groups for p in group["params"])
        known = (self.player.name, step is None, trained, *shapes, *key)
        gradients, self.stepped, self.loss, values, made = graphs.run(known, recorded)
        progress.values.clear()
        progress.values.update({**before, **values})
        progress.made.update(made)
        return gradients


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
