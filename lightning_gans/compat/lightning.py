"""One name, ``pl``, for whichever Lightning is in use.

``import pytorch_lightning as pl`` and ``import lightning as L`` are two class hierarchies, and the Trainer of one
refuses a module of the other. We build on the one that is already imported; if neither (or both) are, on
``pytorch_lightning`` when it is installed, else on ``lightning``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from lightning_gans.compat import torchvision as _torchvision  # noqa: F401  (before anything that imports torchvision)

_OURS, _OTHER = "pytorch_lightning", "lightning.pytorch"


def resolve() -> str:
    """Name of the package to build on: ``pytorch_lightning`` or ``lightning.pytorch``."""
    if _OURS in sys.modules:
        return _OURS
    if _OTHER in sys.modules or importlib.util.find_spec(_OURS) is None:
        return _OTHER
    return _OURS


if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning import callbacks, loggers, strategies, utilities
    from pytorch_lightning import cli as pl_cli
    from pytorch_lightning.plugins import io as plugins_io
else:
    pl = importlib.import_module(resolve())
    callbacks = importlib.import_module(f"{pl.__name__}.callbacks")
    loggers = importlib.import_module(f"{pl.__name__}.loggers")
    strategies = importlib.import_module(f"{pl.__name__}.strategies")
    utilities = importlib.import_module(f"{pl.__name__}.utilities")
    plugins_io = importlib.import_module(f"{pl.__name__}.plugins.io")

    def __getattr__(name: str) -> Any:
        """``pl_cli`` when it is asked for, since jsonargparse comes with it."""
        if name == "pl_cli":
            return importlib.import_module(f"{pl.__name__}.cli")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def datamodule_of(trainer: Any) -> Any:
    """The data module of a trainer, which has no such attribute before it is given one; None without one."""
    return getattr(trainer, "datamodule", None)


def save_if_best(saving: Any, trainer: Any) -> None:
    """Have a ``ModelCheckpoint`` compare what it monitors, where no hook of its own comes any more.

    There is no public way; it is left alone where Lightning has these names no longer.
    """
    needed = ("_monitor_candidates", "_save_topk_checkpoint", "_save_last_checkpoint", "_last_global_step_saved")
    if trainer.fast_dev_run or not all(hasattr(saving, name) for name in needed):
        return
    candidates = saving._monitor_candidates(trainer)
    saving._save_topk_checkpoint(trainer, candidates)
    if saving._last_global_step_saved == trainer.global_step:  # the last file tells which is the best
        saving._save_last_checkpoint(trainer, candidates)


def looks_at(stopping: Any) -> str:
    """The hook in which an ``EarlyStopping`` looks at its monitor; there is no public way to know."""
    return "on_train_epoch_end" if getattr(stopping, "_check_on_train_epoch_end", True) else "on_validation_end"


__all__ = [
    "callbacks",
    "datamodule_of",
    "loggers",
    "looks_at",
    "pl",
    "pl_cli",
    "plugins_io",
    "resolve",
    "save_if_best",
    "strategies",
    "utilities",
]
