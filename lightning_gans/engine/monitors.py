"""What callbacks and schedulers of the user's compare: values of the moment, and each measurement once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, wraps
from types import FunctionType
from typing import Any

from lightning_gans.compat.lightning import callbacks, looks_at, save_if_best, utilities
from lightning_gans.engine.own_code import arguments_of

# Classes of which it is known what they log.
_KNOWN = ("lightning_gans.", "pytorch_lightning.", "lightning.pytorch.", "torch.optim.")


class Monitors:
    """Who compares which value in a fit.

    Attributes:
        measured: update at which each score was measured last, by name; whoever measures one writes it here.
        compared: update of the measurement that each callback and scheduler has seen last.
        names: values that somebody compares.
    """

    def __init__(self) -> None:
        self.measured: dict[str, int] = {}
        self.compared: dict[str, int] = {}
        self.names: set[str] = set()
        self._unknown: list[Any] = []  # those of which it is not known yet whether anything measures what they compare

    def begin(self, trainer: Any, values: Mapping[str, Any]) -> None:
        """Find them; from here on an EarlyStopping counts measurements, not epochs, and the best are saved once."""
        found = [c for c in trainer.callbacks if isinstance(c, (callbacks.EarlyStopping, callbacks.ModelCheckpoint))]
        found += [config.scheduler for config in trainer.lr_scheduler_configs]
        found = [c for c in found if getattr(c, "monitor", None) is not None]
        self.names = {str(c.monitor) for c in found}
        self._unknown = [] if trainer.enable_validation else [c for c in found if getattr(c, "strict", True)]
        refuse_unmeasured(trainer.callbacks, trainer)
        for callback in found:
            if isinstance(callback, callbacks.EarlyStopping):
                at = looks_at(callback)
                vars(callback)[at] = partial(self._once, callback, getattr(type(callback), at), values)
                plain = type(callback) is callbacks.EarlyStopping  # others may look elsewhere
                if plain and at == "on_validation_end" and not trainer.enable_validation:
                    utilities.rank_zero_warn(
                        f"EarlyStopping looks at {callback.monitor} behind validations, and none is made: it will not "
                        "stop training. Give it check_on_train_epoch_end=True."
                    )
            elif isinstance(callback, callbacks.ModelCheckpoint):
                vars(callback)["check_monitor_top_k"] = partial(self._is_among_best, callback, values)
        known = callbacks.ModelCheckpoint.on_train_batch_end  # a method of the user's needs the module itself
        for callback in trainer.callbacks:
            if getattr(type(callback), "on_train_batch_end", None) is known:
                vars(callback)["on_train_batch_end"] = partial(_save, callback)

    def end(self, trainer: Any) -> None:
        """Leave the callbacks, and the module's hooks, as they were."""
        release(vars(trainer.lightning_module))
        for callback in trainer.callbacks:
            if isinstance(callback, (callbacks.EarlyStopping, callbacks.ModelCheckpoint)):
                for name in ("on_train_epoch_end", "on_validation_end", "check_monitor_top_k", "on_train_batch_end"):
                    vars(callback).pop(name, None)

    def save_last(self, trainer: Any, measured: Collection[str]) -> None:
        """Have scores of a fit's last weights, which no batch follows, compared with the best that are saved."""
        for saving in trainer.callbacks:
            if isinstance(saving, callbacks.ModelCheckpoint) and saving.monitor in measured and saving.save_top_k > 0:
                save_if_best(saving, trainer)

    def is_new(self, who: str, name: str, step: int) -> bool:
        """Whether a value has been measured, by now, since it was looked at last; it counts as looked at.

        What was measured before the first update tells nothing of the weights that there are now.
        """
        stamp = self.measured.get(name, step)
        new = self.compared.get(who) != stamp and (stamp > 0 or name not in self.measured)
        self.compared[who] = stamp
        return new

    def check(self, trainer: Any, values: Collection[str], last: bool) -> None:
        """Look for a monitor that nothing measures, until it is known that there is none.

        Args:
            trainer: whose callbacks they are.
            values: names that are known beside those that were logged.
            last: whatever is logged at all has been by now, but for what is measured after a number of updates.

        Raises:
            ValueError: it names the callback, and the values that there are.
        """
        known, left = {*trainer.callback_metrics, *values}, []
        for who in self._unknown:
            ours = who.monitor.startswith("metrics/")
            if who.monitor in known:
                continue
            if (last or ours) and not any(_awaited(c, ours, trainer.global_step) for c in trainer.callbacks):
                raise ValueError(
                    f"{type(who).__name__}: monitor must be one of {', '.join(sorted(known))}, got {who.monitor!r}, "
                    "which nothing measures."
                )
            left.append(who)
        self._unknown = left

    def tell_unknown(self) -> None:
        """At the end of a fit: whose monitor was never measured."""
        for who in self._unknown:
            utilities.rank_zero_warn(f"{type(who).__name__}: nothing has measured its monitor {who.monitor!r}.")

    def _once(
        self, stopping: Any, hook: Callable[..., None], values: Mapping[str, Any], trainer: Any, module: Any
    ) -> None:
        """Its check at the end of an epoch, unless it has seen this measurement already, or there is none yet."""
        name = stopping.monitor
        if name not in trainer.callback_metrics:
            if trainer.global_step == 0 or stopping in self._unknown:
                return
        elif {name} & {*self.measured, *values} and not self.is_new(stopping.state_key, name, trainer.global_step):
            return
        hook(stopping, trainer, module)

    def _is_among_best(self, saving: Any, values: Mapping[str, Any], trainer: Any, current: Any = None) -> bool:
        """Its answer, unless it has seen this measurement: later weights are not to be saved under an old score."""
        known = saving.save_top_k != -1 and current is not None and saving.monitor in {*self.measured, *values}
        if known and not self.is_new(saving.state_key, saving.monitor, trainer.global_step):
            return False
        return bool(type(saving).check_monitor_top_k(saving, trainer, current))


def refuse_unmeasured(listed: Sequence[Any], trainer: Any) -> None:
    """Look, before anything is trained, for a monitor that is a score which no callback of the run measures.

    A callback or module of the user's own may log one under any name: `Monitors.check` waits for what it does.

    Args:
        listed: callbacks of the run.
        trainer: who has the module, the data and the schedulers.

    Raises:
        ValueError: it names who compares it, and the scores that there will be.
    """
    found = [c for c in listed if isinstance(c, (callbacks.EarlyStopping, callbacks.ModelCheckpoint))]
    found += [config.scheduler for config in trainer.lr_scheduler_configs]
    asked = [c for c in found if str(getattr(c, "monitor", None)).startswith("metrics/") and getattr(c, "strict", True)]
    parts = (*listed, *found, module := trainer.lightning_module)
    known = (type(p).__module__.startswith(_KNOWN) and not isinstance(p, callbacks.LambdaCallback) for p in parts)
    if not asked or not all(known):
        return
    names = [name for c in listed if hasattr(c, "will_measure") for name in c.will_measure(trainer, module)]
    for who in asked:
        if who.monitor not in names and who.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"{type(who).__name__}: monitor must be {'one of ' * bool(names)}{', '.join([*sorted(names), ''])}"
                f"{'or ' * bool(names)}a value that training logs, got {who.monitor!r}, which nothing measures."
            )


class _Automatic:
    """A module that Lightning seems to optimize by itself."""

    automatic_optimization = True

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _save(saving: Any, trainer: Any, module: Any, *batch: Any) -> None:
    """Its look at a batch's end, which under manual optimization knows no ``train_time_interval``, and warns."""
    type(saving).on_train_batch_end(saving, trainer, _Automatic(module), *batch)


def _awaited(callback: Any, score: bool, step: int) -> bool:
    """Whether a callback will log something that it has not logged yet: a score, or anything."""
    return bool(getattr(callback, "awaited", False) if score else getattr(callback, "every_n_steps", 0) > step)


def keep_monitors(module: Any) -> None:
    """Let each scheduler know the monitor that it comes with, which Lightning drops under manual optimization.

    Raises:
        ValueError: somebody has set ``configure_optimizers`` on the module itself, in place of its players' optimizers.
    """
    if (found := vars(module).get("configure_optimizers")) is not None and not hasattr(found, "in_place_of"):
        known = arguments_of(type(module))
        names = [name for name in (f"optimizer_{player}" for player in module.players) if name in known]
        raise ValueError(
            f"configure_optimizers must be a method of the class {type(module).__name__}, got one that was set on the "
            "object, as LightningCLI does for --optimizer: "
            + (f"give {' and '.join(names)} to the model." if names else "override it in a class of your own.")
        )
    vars(module).pop("configure_optimizers", None)  # ours, of a fit that was refused before it asked for optimizers
    configure = module.configure_optimizers

    @wraps(configure)
    def keeping() -> Any:
        vars(module).pop("configure_optimizers", None)
        _mark(found := configure())
        return found

    vars(keeping)["in_place_of"] = None
    vars(module)["configure_optimizers"] = keeping


def _mark(found: Any) -> None:
    if isinstance(found, dict):
        if "scheduler" in found:
            found["scheduler"].monitor = found.pop("monitor", None)
            found.pop("strict", None)
        _mark(list(found.values()))
    elif isinstance(found, (list, tuple)):
        for part in found:
            _mark(part)


def follow(module: Any, hook: str, call: Callable[[], None]) -> None:
    """Have something called behind a module's hook, once: Lightning calls that hook behind those of callbacks."""
    own, method = vars(module).get(hook), getattr(module, hook)

    def both() -> None:
        release(vars(module))
        method()
        call()

    vars(both)["in_place_of"] = own
    vars(module)[hook] = both


def release(state: dict[str, Any]) -> dict[str, Any]:
    """Take what a fit has set on a module, in place of its own methods, out of its attributes or a copy of them."""
    for name, value in [*state.items()]:
        if isinstance(value, FunctionType) and hasattr(value, "in_place_of"):
            del state[name]
            state.update({} if value.in_place_of is None else {name: value.in_place_of})
    return state
