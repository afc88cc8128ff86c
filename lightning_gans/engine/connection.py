"""``Connection``: how a module is tied to its trainer, by a callback and not by hooks which people override."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_gans.compat.lightning import callbacks, datamodule_of, pl
from lightning_gans.engine import logbook, resume
from lightning_gans.engine.distributed import by_script
from lightning_gans.engine.first_batch import check_loader
from lightning_gans.engine.hooks import tell_uncalled
from lightning_gans.engine.loggers import go_on, let_fail
from lightning_gans.engine.monitors import follow, keep_monitors
from lightning_gans.engine.own_code import (
    check_apart,
    check_not_compiled,
    refuse_lightnings_own,
    tell_idle,
    tell_no_update,
    tell_untrained,
    tell_untrained_step,
    unconnected,
)
from lightning_gans.engine.settings import Fresh, compare
from lightning_gans.engine.shortcuts import clip, hush, restore_profiles, skip_profiles, speak
from lightning_gans.engine.step import Step
from lightning_gans.engine.stream import NO_BATCH
from lightning_gans.engine.symbols import check_symbols, leave_symbols, take_symbols
from lightning_gans.engine.validation import batches_of_cycle, validate_by_batches


def _validate_at_first(trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
    if batch_idx == 0:
        validate_by_batches(trainer, module)


def check_connected(trainer: Any, module: Any) -> None:
    """ValueError unless the module is its trainer's, and gives it what connects them.

    A tuner's trials leave all callbacks out.
    """
    name = type(module).__name__
    if (outer := trainer.lightning_module) is not module:
        raise ValueError(
            f"{name} must be the module that Trainer.fit is given, or checkpoints lack what it goes on from, got it "
            f"within {type(outer).__name__}: derive {type(outer).__name__} from {name}, or train {name} by itself."
        )
    found = [*trainer.callbacks] or module.configure_callbacks()
    if not any(
        isinstance(callback, Connection) for callback in (found if isinstance(found, (list, tuple)) else [found])
    ):
        raise ValueError(unconnected(trainer, name))


def connect(module: Any) -> Connection:
    """What connects a module to its trainer, which is about to look whether they fit.

    Raises:
        ValueError: for options of the trainer in whose place each player has one.
    """
    try:
        trainer = module.trainer
    except RuntimeError:  # none yet
        return Connection()
    if str(getattr(trainer.state.fn, "value", "")) == "fit":
        refuse_lightnings_own(trainer, module)
    hush(trainer)
    return Connection()


@contextmanager
def hooked_once(trainer: Any, module: Any, step: Step) -> Iterator[Callable[[], Tensor]]:
    """A closure after whose later calls Lightning finds no hook to fire."""
    hooks, own = trainer.callbacks, vars(module).get("on_before_optimizer_step")

    def closure() -> Tensor:
        if step.calls:
            trainer.callbacks = []
            vars(module)["on_before_optimizer_step"] = _no_hook
        return step.closure()

    try:
        yield closure
    finally:
        trainer.callbacks = hooks
        vars(module).pop("on_before_optimizer_step", None)
        vars(module).update({} if own is None else {"on_before_optimizer_step": own})


def step_optimizer(trainer: Any, module: Any, step: Step, counted: bool) -> None:
    """Step a player's optimizer: by Lightning, which counts it, if it is the counted one's.

    The others go past its counter, and where nobody has a hook there past all it does. A graph may have taken one
    already.
    """
    if step.stepped:
        return
    if step.may_repeat:
        with hooked_once(trainer, module, step) as closure:
            if counted:
                step.optimizer.step(closure)
            else:
                trainer.strategy.optimizer_step(step.optimizer.optimizer, closure, model=module)
    elif counted:
        step.optimizer.step(step.closure)
    elif step.simple and module.run.hooks.none(trainer, module):
        if step.player.clip is not None:
            step.clip()
        step.optimizer.optimizer.step()
    else:
        trainer.strategy.optimizer_step(step.optimizer.optimizer, step.closure, model=module)


def _no_hook(optimizer: Optimizer) -> None:
    """What is called in place of a hook that has fired already."""


class Connection(callbacks.Callback):
    """Connects a `GenerativeModule` to its Trainer, which adds it: nothing hangs on hooks that people override."""

    others_log = told = False  # people log in steps; a number of updates was told beside what an epoch logs
    awaited: Sequence[str] = ()  # players whose turn it is in the first cycle

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Lightning is about to load weights, and to ask for the optimizers."""
        if str(getattr(trainer.precision_plugin, "precision", "")).endswith("-true"):
            # Lightning does so later, and so would round weights of a checkpoint to the type the module was made in
            trainer.precision_plugin.convert_module(pl_module)
        if stage == "fit":
            check_not_compiled(pl_module)
            keep_monitors(pl_module)
            let_fail(trainer.loggers)
            self.resumed: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Seed the noise (equally on all ranks), or go on from the checkpoint; batches of a trial are whole cycles."""
        pl_module.begin()
        take_symbols(trainer, pl_module)  # before callbacks of the user's write texts
        skip_profiles(trainer)
        if any(player.clip is not None for player in pl_module.players.values()):  # else there is no such hook
            vars(self)["on_before_optimizer_step"] = clip
        if trainer.reload_dataloaders_every_n_epochs:  # of a resumed run's first epoch no start is told
            vars(self)["on_train_batch_start"] = _validate_at_first
        pl_module.run.fresh = Fresh(trainer)
        if cycles := trainer.fast_dev_run or (type(trainer.overfit_batches) is int and trainer.overfit_batches):
            trainer.limit_train_batches = max(trainer.limit_train_batches, int(cycles) * batches_of_cycle(pl_module))

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Scores of text are of the same symbols."""
        check_symbols(trainer, pl_module)

    on_validation_start = on_test_start

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Have the loader number its items, if the module asks and the loader can; from here on values count."""
        go_on(trainer.loggers, trainer.global_step)
        check_loader(trainer.train_dataloader, pl_module.columns)
        check_apart(trainer, pl_module)
        validate_by_batches(trainer, pl_module)  # of a resumed epoch, too
        if pl_module.needs_index and hasattr(trainer.train_dataloader, "with_index"):
            trainer.train_dataloader.with_index = True
        data = datamodule_of(trainer)
        if pl_module.num_classes is not None:
            known = data.reference("train")[1] if hasattr(data, "reference") else None
            pl_module.count_labels(getattr(trainer.train_dataloader, "labels", None) if known is None else known)
        run = pl_module.run
        run.watching = not any(getattr(callback, "guards_numbers", False) for callback in trainer.callbacks)
        run.monitors.begin(trainer, pl_module.values)
        averaging = pl_module.ema_by_hand or any(getattr(callback, "averages", False) for callback in trainer.callbacks)
        if dropped := pl_module.ema is not None and not averaging:
            pl_module.drop_ema()
        if self.resumed is not None:
            compare(trainer, pl_module, self.resumed)
        elif dropped:
            pl.utilities.rank_zero_warn(
                "The averaged weights of an earlier fit are dropped, since no EMA goes on with them: list one among "
                "the callbacks, or call start_ema() before this fit to average by hand."
            )
        self.resumed = None
        tell_untrained(trainer, pl_module)
        tell_uncalled(trainer, pl_module)
        self.awaited = [] if trainer.global_step else [name for name in pl_module.players if pl_module.due(name)]

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning is about to open the next epoch's iterator, perhaps of another loader."""
        stream, anew_every = pl_module.run.stream, trainer.reload_dataloaders_every_n_epochs
        stream.enter_loader_random_state(trainer.train_dataloader, anew_every)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Say so if somebody's ``training_step`` has trained in place of ours."""
        self.others_log = self.others_log or ("step" in pl_module.run.logs and bool(trainer.loggers))
        if self.others_log:
            # What people log stands at the number of updates, as ours does, and not one before: Lightning takes the
            # step from a value of that name. It stays what checkpoints are named by, so it is told in each step.
            pl_module.log("step", float(trainer.global_step), batch_size=1)
        if self.told:
            self.told = False
            if not self.others_log:  # else checkpoints are named by it from here on
                trainer.callback_metrics.pop("step", None)
        progress = pl_module.progress
        if self.awaited and progress.updates[pl_module.counted] and not any(progress.done.values()):
            tell_idle(self.awaited, progress.updates)
            self.awaited = ()
        if pl_module.run.stream.untouched:
            pl_module.run.stream.untouched = False
            tell_untrained_step(pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Step the schedulers that count epochs: before anybody compares a value or saves, behind what may log one."""

        def end() -> None:
            self._tell_step(trainer, pl_module)
            if trainer.global_step:
                pl_module.run.monitors.check(trainer, pl_module.values, last=True)
                pl_module.step_schedulers("epoch")

        follow(pl_module, "on_train_epoch_end", end)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """What people log of a validation stands at the number of updates, too."""
        if trainer.state.fn == "fit":
            follow(pl_module, "on_validation_epoch_end", lambda: self._tell_step(trainer, pl_module))

    def _tell_step(self, trainer: Any, pl_module: Any) -> None:
        """Once all have logged what they do at an epoch's end: beside nothing it would be a row of nothing."""
        found, kind = pl_module.run.logs, "epoch" if trainer.training else "validation"
        if kind in found and trainer.loggers and not trainer.sanity_checking:
            # a rank may have logged nothing, and would be waited for
            pl_module.log("step", float(trainer.global_step), batch_size=1, sync_dist=True, rank_zero_only=True)
            self.told = True
        found.discard(kind)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Look once more whether all is well."""
        run = pl_module.run
        run.monitors.tell_unknown()
        run.monitors.end(trainer)
        if run.watching and sum(pl_module.progress.updates.values()) != run.began:
            run.require_finite(last := logbook.means(pl_module.values, pl_module.device), trainer)
            logbook.show(last, trainer)
            if bad := [name for name, p in pl_module.named_parameters() if not bool(p.isfinite().all())]:
                raise logbook.NonFiniteError(f"{bad[0]} must be finite, got a NaN or infinity in the last updates.")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the callbacks of others as they were."""
        restore_profiles(trainer)
        speak(trainer)
        if pl_module.run is not None:
            leave_symbols(pl_module)
            pl_module.run.monitors.end(trainer)
            pl_module.run.watching = False  # a checkpoint may be written of what there is

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Let go of trainer and data. Lightning ends silently where there is nothing to train on, or too little."""
        pl_module.run.trainer = None
        leave_symbols(pl_module)
        restore_profiles(trainer)
        if pl_module.needs_index and hasattr(trainer.train_dataloader, "with_index"):
            trainer.train_dataloader.with_index = False  # it may be another module's next
        if trainer.num_training_batches == 0 and trainer.limit_train_batches != 0:
            raise ValueError(NO_BATCH)
        if sum(pl_module.progress.updates.values()) == pl_module.run.began:
            tell_no_update(trainer, pl_module.counted, batches_of_cycle(pl_module), pl_module.run.began)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The trainer is done with the module."""
        speak(trainer)
        pl_module.hands_back = stage == "fit" and not by_script(trainer.strategy.launcher)  # and ends

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out; of lost weights there is no checkpoint."""
        if pl_module.run is not None and trainer.training and pl_module.run.watching:
            pl_module.run.require_finite(logbook.means(pl_module.values, pl_module.device), trainer)
        pl_module.save_state(checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take it back, in a fit if it is of such a model."""
        if trainer.state.fn != "fit":
            pl_module.load_state(checkpoint)
            return
        options, engine = resume.options_of(checkpoint), checkpoint.get("engine", {})
        resume.look_at(checkpoint, pl_module, trainer)
        data, was = resume.data_name(trainer), checkpoint.get("data")
        if other := None not in (data, was) and data != was:
            pl.utilities.rank_zero_warn(f"The run goes on with other data, {data} (was {was}), from their beginning.")
        pl_module.load_state(checkpoint, fitting=True, other_data=other)
        self.resumed = {"hyper_parameters": options, "settings": engine.get("settings"), "ema": "ema" in checkpoint}
