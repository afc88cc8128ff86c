"""What a W&B run should know besides its curves."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from lightning_gans import __version__, checks
from lightning_gans.callbacks.ema import EMA
from lightning_gans.callbacks.non_finite import NonFiniteGuard
from lightning_gans.callbacks.rates import Rates
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.compat.lightning import datamodule_of, loggers, pl
from lightning_gans.engine.contract import Played, require
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.engine.loggers import attempt

GROUPS = ("c", "d", "g", "grad", "lr", "metrics", "samples", "surrogate", "time", "variance")
_AXIS = "trainer/global_step"  # Lightning's name; here it counts generator updates
_VARIETY = {"modes", "recall", "coverage", "distinct-1", "distinct-2"}
_LOWER_IS_BETTER = ("metrics/fid/*", "metrics/kid/*")


def git_commit(folder: str | Path = ".") -> str | None:
    """Commit of the git working tree that holds ``folder``, with ``+`` if files differ from it; None outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        done.check_returncode()
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


class WandbSetup(Rates):
    """Prepares W&B runs; with other loggers it is but :class:`Rates`, and it never needs ``wandb`` installed.

    Every group of metrics (``d/ g/ grad/ metrics/ ...``) gets generator updates as its x-axis, and FID and
    KID are summarised by their least value. Into the run's config go the git commit of the working folder, the version
    of this package, the technique, its penalties and networks, the data, seed, batch size, ``max_steps``, the decay of
    averaged weights and, once there are scores, their protocols, beside the hyper-parameters that Lightning puts there.
    It logs what :class:`Rates` does. ``WANDB_MODE=offline`` works as ever.

    W&B is alerted, which mails or posts as its user has chosen, when a value is not finite (also of one that
    :class:`NonFiniteGuard` went back from), and when a measure of variety (modes, recall, coverage, distinct n-grams)
    falls below ``collapse`` times its best or the FID rises above its best / ``collapse``, once until it recovers.

    Args:
        alerts: send them.
        collapse: 0 < collapse < 1.

    >>> callback = WandbSetup(collapse=0.25)  # for pl.Trainer(logger=WandbLogger(), callbacks=[callback])
    >>> callback.alerts, callback.collapse
    (True, 0.25)
    """

    def __init__(self, alerts: bool = True, collapse: float = 0.5) -> None:
        super().__init__()
        checks.inside(collapse=collapse)
        self.alerts, self.collapse = alerts, collapse
        self._alerted: set[str] = set()
        self._looked: dict[str, float] = {}  # label of a score, and the update of the last value that was looked at
        self._gone_back = 0
        self._told: dict[str, Any] = {}  # protocols

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the run, once it is there and before anything is logged."""
        super().on_fit_start(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, loggers.WandbLogger):
                attempt(logger, partial(self._tell, logger, pl_module, self.facts(trainer, pl_module)))
        self._told, self._looked, self._gone_back = {}, {}, 0
        self._alerted.clear()

    def _tell(self, logger: Any, pl_module: Any, facts: dict[str, Any]) -> None:
        run = logger.experiment
        run.define_metric(_AXIS)
        for group in dict.fromkeys((*GROUPS, *getattr(pl_module, "players", ()))):
            run.define_metric(f"{group}/*", step_metric=_AXIS)
        for name in _LOWER_IS_BETTER:
            run.define_metric(name, step_metric=_AXIS, summary="min")
        run.config.update(facts, allow_val_change=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log rates and speed, tell protocols that are new, and look at what was measured."""
        if self.alerts and trainer.is_global_zero:
            self._look(trainer)
        if self.log_rates(trainer, pl_module):
            self._tell_protocols(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the protocols of scores that were measured at the end."""
        if trainer.is_global_zero:
            self._tell_protocols(trainer)
            if self.alerts:
                self._look(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Alert of a value that is not finite."""
        if self.alerts and isinstance(exception, NonFiniteError) and trainer.is_global_zero:
            self._alert(trainer, "A value is not finite", str(exception), "ERROR")

    def _look(self, trainer: Any) -> None:
        times = sum(c.gone_back for c in trainer.callbacks if isinstance(c, NonFiniteGuard))
        if times > self._gone_back:
            self._alert(trainer, "A value was not finite", f"Went back by update {trainer.global_step}.", "WARN")
        self._gone_back = times
        for c in trainer.callbacks:
            if not isinstance(c, ScoreCallback) or not c.history or self._looked.get(c.label) == c.history[-1]["step"]:
                continue
            self._looked[c.label] = c.history[-1]["step"]
            for name, value in c.history[-1].items():
                if (kind := _VARIETY & set(name.split("/"))) or "fid" in name.split("/"):
                    best = c.best(name)[name]
                    lost = value < self.collapse * best if kind else value > best / self.collapse
                    if lost and name not in self._alerted:
                        told = f"{name} is {value:.4g} at update {c.history[-1]['step']:.0f}, its best was {best:.4g}."
                        self._alert(trainer, "The generator may have collapsed", told, "WARN")
                    (self._alerted.add if lost else self._alerted.discard)(name)

    def _alert(self, trainer: Any, title: str, text: str, level: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, loggers.WandbLogger):
                attempt(logger, lambda run=logger: run.experiment.alert(title=title, text=text, level=level))  # type: ignore[misc]

    def _tell_protocols(self, trainer: Any) -> None:
        found = {c.label: dict(c.protocol) for c in trainer.callbacks if isinstance(c, ScoreCallback) and c.protocol}
        if found == self._told:
            return
        self._told = found
        for logger in trainer.loggers:
            if isinstance(logger, loggers.WandbLogger):
                attempt(logger, lambda run=logger: run.experiment.config.update(  # type: ignore[misc]
                    {"protocols": found}, allow_val_change=True))  # fmt: skip

    def facts(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The config entries: plain values only."""
        module: Any = require(pl_module, Played, self)
        datamodule = datamodule_of(trainer)
        seed = os.environ.get("PL_GLOBAL_SEED")  # what seed_everything leaves
        emas = [c for c in trainer.callbacks if isinstance(c, EMA)]  # type: ignore[attr-defined]
        ema = next(iter(emas), None)
        names = [name for player in reversed(module.players.values()) for name in player.networks]
        networks = {name: getattr(module, name) for name in names}
        return {
            "git_commit": git_commit(),
            "lightning_gans": __version__,
            "technique": type(module).__name__,
            "data": None if datamodule is None else getattr(datamodule, "name", type(datamodule).__name__),
            "seed": None if seed is None else int(seed),
            "batch_size": getattr(datamodule, "batch_size", None),
            "max_steps": trainer.max_steps,
            "ema_decay": None if ema is None or ema.half_life is not None else ema.decay,
            "ema_half_life": None if ema is None else ema.half_life,
            "regularizer_weights": {r.name: r.weight for r in getattr(module, "regularizers", ())},
            "networks": {name: type(net).__name__ for name, net in networks.items()},
            "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()},
        }
