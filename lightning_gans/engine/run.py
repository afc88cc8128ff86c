"""``Run``: what a module needs while one fit lasts, and never takes along when it is copied or pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine import distributed, logbook
from lightning_gans.engine.batch import Batch
from lightning_gans.engine.first_batch import (
    check_company,
    check_labels,
    check_rows,
    check_unlabelled,
    check_weights,
    lonely,
    warn_of_same,
)
from lightning_gans.engine.graphs import StepGraphs
from lightning_gans.engine.monitors import Monitors
from lightning_gans.engine.player import Player, needs_closure
from lightning_gans.engine.progress import Progress
from lightning_gans.engine.settings import Fresh
from lightning_gans.engine.shortcuts import Hooks
from lightning_gans.engine.step import Step
from lightning_gans.engine.stream import DataStream
from lightning_gans.functional.conditional import takes_labels
from lightning_gans.functional.text import Vocabulary

LOOK_EVERY = 50  # updates, where nothing is logged
_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Run:
    """One fit.

    Args:
        trainer: whose fit it is.
        device: of the networks.
        seed: of noise and data, the same on all ranks.
        noise_shape: of one sample.
        dtype: of noise.
        cuda_graphs: record steps as CUDA graphs.

    Attributes:
        noise: source of every per-sample draw.
        stream: the data.
        transfer: brings a batch to the device by the hooks of the user's; None where nobody has one.
        steps: each player's, from the first update on.
        stepping: the one whose optimizer steps now.
        looked: the first batch was checked.
        labelled: networks that take labels, by name.
        has_labels: the first batch had some.
        needs_two: a network that cannot be trained on a batch of one sample, if there is any.
        fresh: optimizers and schedules as they were configured.
        monitors: who compares which value.
        hooks: who has a hook of optimizer steps.
        watching: losses must be finite; not if a callback of the user's sees to that.
        trainer: whose fit it is; None once that is over.
        began: updates of all players before this fit.
        known: symbols of text that the module knew before it.
        started: the first update of this fit.
        batches: in an epoch, as Lightning counts them.
        counted: the loader whose they are.
        logs: whether people log values of single steps ("step"), or have logged what awaits the end of an epoch of
            training ("epoch") or of a validation ("validation").
    """

    stepping: Step
    known: Vocabulary | None

    def __init__(
        self,
        trainer: Any,
        device: torch.device,
        seed: int,
        noise_shape: tuple[int, ...],
        dtype: torch.dtype,
        cuda_graphs: bool,
    ) -> None:
        self.noise = torch.Generator(device).manual_seed(seed)
        self.noise_shape, self.dtype, self.world = noise_shape, dtype, distributed.world_size()
        self.stream, self.late, self.monitors = DataStream(seed), logbook.Late(), Monitors()
        self.graphs = StepGraphs(device, [self.noise]) if cuda_graphs else None
        if cuda_graphs and device.type != "cuda":
            pl.utilities.rank_zero_warn(f"cuda_graphs has no effect on {device.type}.")
        data = datamodule_of(trainer)
        owners: dict[type, Any] = {pl.LightningModule: trainer.lightning_module, pl.LightningDataModule: data}
        self.transfer = hooked_transfer(owners, trainer.strategy)
        self.trainer: Any = trainer
        self.hooks = Hooks(trainer)
        self.strategy, self.precision = cast(Any, trainer.strategy), cast(Any, trainer.precision_plugin)
        self.steps: dict[str, Step] = {}
        self.overridden_due = type(trainer.lightning_module).due.__module__ != "lightning_gans.engine.module"
        self.looked, self.watching, self.began, self.started = False, True, -1, -1
        self.batches: float = 0
        self.counted: Any = None
        self.labelled: dict[str, nn.Module] = {}
        self.has_labels = False
        self.needs_two: str | None = None
        self.fresh: Fresh | None = None
        self.logs: set[str] = set()

    def tells(self, span: int) -> bool:
        """Whether what this update notes is logged, shown or compared; always under CUDA graphs, which do not ask.

        The first update of a fit and the last one count too, so that a value is there when somebody looks.

        Args:
            span: updates for which a value may have to stand, until it is noted again.
        """
        if self.graphs is not None or self.monitors.names or self.trainer is None:
            return True
        step, every = self.trainer.global_step + 1, self.trainer.log_every_n_steps
        self.started, end = step if self.started < 0 else self.started, step + span - 1
        logged = not every or end // every > (step - 1) // every
        return logged or step < self.started + span or step <= self.trainer.max_steps <= end

    @property
    def num_items(self) -> int:
        """How many training items there are.

        Raises:
            ValueError: for a loader that does not know items by number.
        """
        loader = self.trainer.train_dataloader
        if not hasattr(loader, "with_index"):
            raise ValueError(
                f"The training data must be in a MemoryLoader, got a {type(loader).__name__}: the model asks for items "
                "by their number."
            )
        return len(loader.data)

    def items(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """Training items (M, ...) by number, as batches have them; a transform draws from the generator."""
        loader = self.trainer.train_dataloader
        x = loader.data.index_select(0, index.to(loader.device))
        return cast(Tensor, x if loader.transform is None else loader.transform(x, generator))

    def prepare(
        self, players: Mapping[str, Player], networks_of: Callable[[str], Any], optimizers: Any, progress: Progress
    ) -> None:
        """Give each player a step, with the optimizer that moves its parameters, in whatever order they are.

        Raises:
            ValueError: unless each player has one optimizer to itself.
        """
        wrapped: list[Any] = list(optimizers) if isinstance(optimizers, (list, tuple)) else [optimizers]
        moved = [{id(p) for group in o.param_groups for p in group["params"]} for o in wrapped]
        networks = {name: networks_of(name) for name in players}
        own: dict[str, Any] = {}
        for name, nets in networks.items():
            parameters = {id(p) for net in nets for p in net.parameters()}
            matching = [o for o, ids in zip(wrapped, moved) if ids and ids <= parameters]
            if len(matching) != 1:
                raise ValueError(
                    f"configure_optimizers must return one optimizer of the parameters of {name!r} alone "
                    f"({', '.join(players[name].networks)}), got {len(matching)} such among {len(wrapped)}."
                )
            own[name] = matching[0]
            lay_out(matching[0].optimizer.state)
        scaler = getattr(self.precision, "scaler", None)
        for name, player in players.items():
            if scaler is not None and needs_closure(own[name].optimizer):
                raise ValueError(
                    f"The optimizer of {name!r} must step without a closure under a gradient scaler, got "
                    f"{type(own[name].optimizer).__name__}."
                )
            alone = partial(self.alone, name)
            self.steps[name] = Step(player, networks, own, progress, self.noise, scaler, self.graphs, alone)
            self.steps[name].always = player.every == 1 and not self.overridden_due

    def alone(self, player: str) -> bool:
        """Whether nobody hooks into the step of a player's optimizer now, and Lightning does not count it."""
        module = self.trainer.lightning_module
        return bool(player != module.counted and self.hooks.none(self.trainer, module))

    def look(self, networks: Mapping[str, nn.Module], batch: Batch) -> None:
        """Remember of the first batch what later ones are looked at for."""
        self.looked, self.labelled = True, {name: net for name, net in networks.items() if takes_labels(net)}
        self.has_labels = batch.labels is not None
        self.needs_two = check_company(networks.items(), batch, self.trainer)
        warn_of_same(batch.real)

    def check_later(self, parts: Sequence[Any], n: int) -> None:
        """Labels and weights of a batch behind the first, where looking costs no wait: as they come, on the CPU."""
        check_rows(n)
        on_cpu = [part if torch.is_tensor(part) and part.device.type == "cpu" else None for part in parts]
        if n == 1 and self.needs_two is not None:
            raise ValueError(lonely(self.needs_two, "one of 1"))
        if on_cpu[2] is not None:
            check_weights(on_cpu[2], n)
        if parts[1] is None and self.has_labels:
            check_unlabelled(self.labelled)
        elif on_cpu[1] is not None and self.labelled:
            check_labels(on_cpu[1], n, self.labelled)

    def state_dict(self) -> dict[str, Any]:
        """What was read and compared."""
        monitors = {"measured": dict(self.monitors.measured), "compared": dict(self.monitors.compared)}
        settings = None if self.fresh is None else self.fresh.settings
        return {"late": self.late.state_dict(), "monitors": monitors, "settings": settings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it; version 0.1 had none."""
        self.late.load_state_dict(state.get("late", {}))
        vars(self.monitors).update(state.get("monitors", {}))

    def require_finite(self, values: Mapping[str, float], trainer: Any) -> None:
        """`NonFiniteError` unless each player's loss is finite."""
        if self.watching:
            terms = {name: step.terms for name, step in self.steps.items()}
            logbook.require_finite(values, terms, trainer.global_step, trainer.log_every_n_steps or LOOK_EVERY)


def hooked_transfer(owners: Mapping[type, Any], strategy: Any) -> Callable[[Any], Any] | None:
    """What brings a batch to the device by hooks that somebody overrides, or None; a later owner's is taken."""
    own: dict[str, Callable[..., Any]] = {}
    for base, owner in owners.items():
        for hook in _TRANSFER if owner is not None else ():
            if getattr(method := getattr(owner, hook), "__func__", None) is not getattr(base, hook):
                own[hook] = method
    if (before := own.get("on_before_batch_transfer")) is None:  # the other two Lightning calls itself
        return cast(Any, strategy.batch_to_device) if own else None
    return lambda raw: strategy.batch_to_device(before(raw, 0))


def lay_out(state: Mapping[Tensor, dict[str, Any]]) -> None:
    """Let moments lie in memory as their parameters do, as fused Adam takes for granted; a checkpoint's may not."""
    for p, slot in state.items():
        for name, value in slot.items():
            if torch.is_tensor(value) and value.shape == p.shape and value.stride() != p.stride():
                slot[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)
