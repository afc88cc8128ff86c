"""What to do when a loss or a gradient is no number any more."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from lightning_gans import checks
from lightning_gans.callbacks.probe import Asks, cycle_begins, due_in_cycle, require_writable, run_dir, stepping
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed
from lightning_gans.engine.contract import Played
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.runs.atomic import no_space, replacing

Action = Literal["stop", "rollback"]
_GRADIENT = "the gradient"
_LEAST = 1e-3  # of the learning rates that training started with: below, it stands still
_SPREAD = "all terms are finite"


class NonFiniteGuard(Asks):
    """Looks at each loss and gradient before the optimizer uses it; at the first NaN or infinity it stops or goes back.

    Nothing is zeroed or skipped in silence: it says which term, or else the gradient of which parameter, of which
    network was not finite in which generator update, and saves the batch as ``non_finite_step_000123.pt`` in the run's
    folder (ranks other than 0 add ``_rank1`` ...): real, labels, weights, z and fake of the last discriminator step
    (without a discriminator: of the last step, and no fake), the terms, and what was found. It opens with
    ``torch.load(path, weights_only=True)``.

    * ``stop`` raises :class:`NonFiniteError`; the weights are those before the step.
    * ``rollback`` leaves the rest of this update out, puts parameters, buffers, optimizer states and EMA weights back
      to the last good state, and multiplies all learning rates, and those that schedulers start from, by
      ``lr_factor``. Steps are counted on, and noise and data go on too, so that the same numbers do not come again.

    On a CPU each step is looked at before it is made. On another device, for which the host would have to wait each
    time, what a step has is kept there and read once per generator update, when that is over: what is not finite may
    have reached the weights by then, within this update. ``stop`` leaves such weights behind; ``rollback`` goes back to
    the last good state as ever. The first step that went wrong is named, with its terms, but not the parameter of a
    gradient; the batch that is saved is the update's last one.

    All processes decide together. In 16-mixed a gradient that is not finite under finite losses is left to the gradient
    scaler, which meets one now and then by design.

    Args:
        action: ``stop`` or ``rollback``.
        lr_factor: what a rollback multiplies the learning rates by, 0 < lr_factor <= 1.
        every_n_steps: look at every n-th generator update only, with its whole cycle. A skipped look lets what went
            wrong reach the weights, and the next names what it finds there.
        keep_every_n_steps: for ``rollback``: updates between two good states, a multiple of ``every_n_steps``. One is
            kept, on the device, as large as all networks with their optimizers' states.
        max_rollbacks: stop after so many rollbacks to one and the same state, >= 1. It stops too where all rollbacks
            together have brought the learning rates below a thousandth.
        dirpath: where batches are saved; default: the run's folder.

    Raises:
        ValueError: for settings out of range, or a folder that cannot be written.

    >>> guard = NonFiniteGuard("rollback", lr_factor=0.5, max_rollbacks=3)  # for pl.Trainer(callbacks=[guard])
    >>> guard.gone_back, guard.lowered  # how often so far, and what became of the learning rates
    (0, 1.0)
    """

    guards_numbers = True  # so the engine does not
    needs = Played

    def __init__(
        self,
        action: Action = "stop",
        lr_factor: float = 0.5,
        every_n_steps: int = 1,
        keep_every_n_steps: int = 100,
        max_rollbacks: int = 10,
        dirpath: str | Path | None = None,
    ) -> None:
        super().__init__()
        checks.one_of("action", action, ("stop", "rollback"))
        checks.up_to_one(lr_factor=lr_factor)
        checks.at_least_one(
            every_n_steps=every_n_steps, keep_every_n_steps=keep_every_n_steps, max_rollbacks=max_rollbacks
        )
        if keep_every_n_steps % every_n_steps:
            raise ValueError(
                f"keep_every_n_steps must be a multiple of every_n_steps={every_n_steps}, since only a "
                f"state that was looked at is known to be good, got {keep_every_n_steps}."
            )
        self.action, self.lr_factor, self.max_rollbacks, self.dirpath = action, lr_factor, max_rollbacks, dirpath
        self.every_n_steps, self.keep_every_n_steps = every_n_steps, keep_every_n_steps
        self.step = 0  # the generator update that is under way
        self.looks = True  # at the cycle that is under way
        self.found: str | None = None  # what was not finite in it
        self.rollbacks = 0  # to the state that is kept
        self.gone_back = 0  # times, to whatever state
        self.lowered = 1.0  # what all rollbacks have multiplied the learning rates by
        self.kept: dict[str, Any] = {}
        self.waits_each_step: bool | None = None  # None: on a CPU
        self._seen: list[tuple[str, list[str], Tensor]] = []  # of each step: whose, names and values of what it had

    def state_dict(self) -> dict[str, Any]:
        """How far the learning rates were lowered."""
        return {"lowered": self.lowered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.lowered = state_dict["lowered"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the folder; a new fit begins with its own learning rates (a checkpoint is read after this)."""
        if stage == "fit":
            self.lowered, self.gone_back = 1.0, 0
        self.folder = run_dir(trainer, self.dirpath)
        require_writable(self, self.folder)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the state that training starts from."""
        self.found, self.step, self.looks = None, pl_module.global_step, True
        self._seen.clear()
        self._keep(trainer, pl_module)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Note the number of the update that begins (or goes on, after the end of an epoch)."""
        self.step = pl_module.global_step + 1
        if cycle_begins(pl_module):
            self.looks = due_in_cycle(pl_module, self.every_n_steps)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the loss and the gradient of the network that is about to step."""
        if not self.looks:
            return
        module: Any = pl_module
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.found is None:
            player = stepping(module)
            scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
            gradients = [p.grad for p in parameters if p.grad is not None and not scaled]
            if not (module.device.type == "cpu" if self.waits_each_step is None else self.waits_each_step):
                self._seen.append(_numbers(module, player, gradients))
                return
            bad = not _all_finite(module.values.get(f"{player}/loss"), gradients)
            if trainer.strategy.reduce_boolean_decision(bad, all=False):
                self._report(
                    module, player, _what(module, player) if bad else None, "with the weights before this step"
                )
        if self.found is not None:  # a rollback: no step of this update is to reach a weight
            for p in parameters:
                p.grad = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Go back if something was found in this update, else keep its state if that is due."""
        module: Any = pl_module
        if module.global_step < self.step:
            return  # the epoch ended inside the update
        self._read(trainer, module)
        if self.found is not None:
            self._go_back(trainer, module)
        elif self.step % self.keep_every_n_steps == 0:
            self._keep(trainer, module)

    # ------------------------------------------------------------------ what was found
    def _read(self, trainer: pl.Trainer, module: Played) -> None:
        """What the steps of this update had, with one wait for the device."""
        if not self._seen:
            return
        values = iter(torch.cat([value for *_, value in self._seen]).tolist())
        steps = [(player, {name: next(values) for name in names}) for player, names, _ in self._seen]
        self._seen.clear()
        player, found = next(iter(module.players)), None
        for whose, had in reversed(steps):  # the first one is told
            bad = [name for name, value in had.items() if not math.isfinite(value)]
            if f"{whose}/loss" in bad or _GRADIENT in bad:
                terms = [f"{name} = {had[name]}" for name in bad if name not in (f"{whose}/loss", _GRADIENT)]
                player, found = whose, ", ".join(terms or bad)
        if trainer.strategy.reduce_boolean_decision(found is not None, all=False):
            self._report(module, player, found, "after this update")

    def _report(self, module: Played, player: str, found: str | None, stopped: str) -> None:
        seen: list[Any] = distributed.gather_objects((player, found))
        told = [(rank, *what) for rank, what in enumerate(seen) if what[1]]
        # gradients are of all ranks by now, terms are not
        whose, player, what = min(told, key=lambda one: one[2] == _GRADIENT or _SPREAD in one[2])
        own = distributed.rank()
        self.found = what if whose == own else f"{what}, on rank {whose}"
        saved = self._save_batch(module, player) if whose == own else f" Its batch is in {self._batch_path(whose)}."
        update = "generator update" if "g" in module.players else "update"
        said = (
            f"NonFiniteGuard: in {update} {self.step}, step of the {_named(module, player)}, not finite: {self.found}"
        )
        if self.action == "stop":
            error = NonFiniteError(f"{said}. Stopped {stopped}.{saved}")
            error.weights_are_good = "before" in stopped
            raise error
        if self.rollbacks == self.max_rollbacks:
            raise NonFiniteError(
                f"{said}. Stopped after {self.rollbacks} rollbacks to the state of update {self.kept['step']}.{saved}"
            )
        if self.lowered * self.lr_factor < _LEAST:
            raise NonFiniteError(
                f"{said}. Stopped, since rollbacks have multiplied the learning rates by {self.lowered:g} already, and "
                f"training would stand still.{saved}"
            )
        self.rollbacks += 1
        self.gone_back += 1
        self.lowered *= self.lr_factor
        back = f"Going back to the state of update {self.kept['step']}, learning rates times {self.lr_factor:g}."
        pl.utilities.rank_zero_warn(f"{said}. {back}{saved}")

    def _batch_path(self, rank: int) -> Path:
        return self.folder / f"non_finite_step_{self.step:06d}{f'_rank{rank}' if rank else ''}.pt"

    def _save_batch(self, module: Played, player: str) -> str:
        batch, rank = module.last_batch, distributed.rank()
        if batch is None:
            return ""
        tensors = {"real": batch.real, "labels": batch.labels, "weights": batch.weights, "z": batch.z,
                   "fake": getattr(module, "last_fake", None)}  # fmt: skip
        terms = {name: float(value) for name, value in module.values.items() if name.startswith(f"{player}/")}
        content = {"step": self.step, "network": _named(module, player), "found": self.found, "terms": terms}
        # a clone, since a slice would be saved with everything that it is a slice of
        content |= {name: None if t is None else t.detach().clone().cpu() for name, t in tensors.items()}
        path = self._batch_path(rank)
        try:
            with replacing(path) as temporary:
                torch.save(content, temporary)
        except OSError as error:  # a full disk must not hide what was found
            return f" The batch could not be saved: {no_space(error) or error} ({path})."
        return f" The batch is in {path}."

    # ------------------------------------------------------------------ the last good state
    def _keep(self, trainer: pl.Trainer, module: Any) -> None:
        if self.action == "stop":
            return
        self.rollbacks = 0
        self.kept = copy.deepcopy(  # of state dicts, so tensors are cloned
            {
                "step": module.global_step,
                "module": module.state_dict(),
                "optimizers": [optimizer.state_dict()["state"] for optimizer in trainer.optimizers],
                "ema": {name: mean.state_dict() for name, (mean, _) in getattr(module, "averages", {}).items()},
            }
        )

    def _go_back(self, trainer: pl.Trainer, module: Any) -> None:
        self.found = None
        module.load_state_dict(self.kept["module"])
        for name, (mean, trained) in getattr(module, "averages", {}).items():
            mean.load_state_dict(self.kept["ema"].get(name) or trained.state_dict())  # it may have begun since
        for optimizer, state in zip(trainer.optimizers, self.kept["optimizers"]):
            for group in optimizer.param_groups:
                for name in {"lr", "initial_lr"} & group.keys():
                    group[name] = group[name] * self.lr_factor
            # a copy, since the optimizer goes on writing into what it is given
            optimizer.load_state_dict({**optimizer.state_dict(), "state": copy.deepcopy(state)})
        schedulers = module.lr_schedulers() or []
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            for part in (scheduler, *getattr(scheduler, "_schedulers", ())):
                if hasattr(part, "base_lrs"):
                    part.base_lrs = [lr * self.lr_factor for lr in part.base_lrs]


def _named(module: Played, player: str) -> str:
    """A player by its networks."""
    return " and ".join(module.players[player].networks)


@torch.no_grad()
def _all_finite(loss: Tensor | None, gradients: list[Tensor]) -> bool:
    """Whether the loss and the gradients are finite, with one wait for the device.

    The maximum norm: a Euclidean one overflows for large finite gradients.
    """
    values = [] if loss is None else [loss.float().reshape(())]
    if gradients:
        values.append(get_total_norm(gradients, float("inf")).float())
    return not values or bool(torch.stack(values).isfinite().all())


@torch.no_grad()
def _numbers(module: Played, player: str, gradients: list[Tensor]) -> tuple[str, list[str], Tensor]:
    """A player, the names of its terms and of its gradient's norm, and a copy of their values; no wait."""
    found = {name: value for name, value in module.values.items() if name.startswith(f"{player}/")}
    if gradients:
        found[_GRADIENT] = get_total_norm(gradients, float("inf"))
    device = module.device
    values = [value.to(device, torch.float32).reshape(()) for value in found.values()]
    return player, list(found), torch.stack(values) if values else torch.zeros(0, device=device)


def _what(module: Played, player: str) -> str:
    """The terms of a player that are not finite, or else the first parameter whose gradient is not."""
    values = {name: float(v) for name, v in module.values.items() if name.startswith(f"{player}/")}
    bad = [name for name, value in values.items() if not torch.tensor(value).isfinite()]
    if terms := [f"{name} = {values[name]}" for name in bad if name != f"{player}/loss"] or [f"{name}" for name in bad]:
        return ", ".join(terms)
    networks = module.players[player].networks
    own = ((f"{net}.{name}", p) for net in networks for name, p in getattr(module, net).named_parameters())
    for name, p in own:
        if p.grad is not None and not p.grad.isfinite().all():
            count = int((~p.grad.isfinite()).sum())
            return f"{count} of {p.numel()} elements of the gradient of {name} ({_SPREAD})"
    return "the gradient"
