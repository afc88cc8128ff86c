"""What Lightning does around each update for those who ask, left out where nobody does."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any, cast
from weakref import WeakSet

from lightning_gans.compat.lightning import callbacks, pl, strategies

_HOOK = "on_before_optimizer_step"
# Lightning warns of what we do on purpose: we take whole cycles of batches, have no validation loop, and resume data.
_ON_PURPOSE = ".*(`dataloader_iter`|have no `validation_step`|your dataloader is not resumable)"
_quiet: WeakSet[Any] = WeakSet()


def hush(trainer: Any) -> None:
    """Leave these warnings out while a trainer has a module of ours: they may tell something of others."""
    _quiet.add(trainer)
    warnings.filterwarnings("ignore", _ON_PURPOSE)


def speak(trainer: Any) -> None:
    """Undo :func:`hush`, unless another trainer has one."""
    _quiet.discard(trainer)
    if not _quiet:
        known: list[Any] = cast(Any, warnings).filters
        known[:] = [entry for entry in known if getattr(entry[1], "pattern", None) != _ON_PURPOSE]


def skip_profiles(trainer: Any) -> None:
    """Let a profiler that measures nothing not be entered and left some thirty times in each update."""
    if type(trainer.profiler) is pl.profilers.PassThroughProfiler:
        vars(trainer.profiler)["profile"] = nullcontext


def restore_profiles(trainer: Any) -> None:
    """Undo :func:`skip_profiles`."""
    vars(trainer.profiler).pop("profile", None)


def clip(trainer: Any, pl_module: Any, optimizer: Any) -> None:
    """Scale down the gradient of the networks that step: our own hook, where Lightning has unscaled it by now."""
    if (step := pl_module.run.stepping).player.clip is not None:
        step.clip()


class Hooks:
    """Whether anybody but us hooks into optimizer steps: if not, what Lightning makes of one is that step alone."""

    def __init__(self, trainer: Any) -> None:
        precision, kinds = trainer.precision_plugin, pl.plugins
        steps: list[Any] = [kinds.Precision.optimizer_step]
        if getattr(precision, "scaler", None) is None:
            steps.append(kinds.MixedPrecision.optimizer_step)
        self._plain = _function(trainer.strategy.optimizer_step) is strategies.Strategy.optimizer_step
        self._plain &= _function(precision.optimizer_step) in steps
        self._plain &= type(trainer.profiler) is pl.profilers.PassThroughProfiler
        self._seen: list[tuple[int, bool]] | None = None
        self._alone = False

    def none(self, trainer: Any, module: Any) -> bool:
        """Whether there is no such hook now, of a callback or of the module."""
        found = trainer.callbacks
        if self._seen != (now := [(id(callback), _HOOK in vars(callback)) for callback in found]):
            self._seen = now
            mine = getattr(type(module), _HOOK) is not getattr(pl.LightningModule, _HOOK)
            known = callbacks.Callback.on_before_optimizer_step, clip
            theirs = any(_function(getattr(callback, _HOOK)) not in known for callback in found)
            self._alone = self._plain and not mine and not theirs
        return self._alone and _HOOK not in vars(module)


def _function(method: Any) -> Any:
    return getattr(method, "__func__", method)
