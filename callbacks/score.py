"""When a score is computed, and where it goes: what GenerativeMetrics and ModeCoverage share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.callbacks.probe import Asks, log_metrics, run_dir
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed, rng
from lightning_gans.engine.contract import Critic, Samples, has, require
from lightning_gans.runs.atomic import write_text
from lightning_gans.runs.card import best_entry


def labels_as_in(known: Tensor | None, n: int, num_classes: int | None, seed: int) -> tuple[Tensor | None, str]:
    """Labels (n,) of a conditional model's fakes, with the frequencies of the data's ``known`` ones, and their law.

    Uniform where the data have none, or others than the model; None for a model without classes.
    """
    own = torch.Generator().manual_seed(seed)
    if num_classes is None:
        return None, "none"
    if known is None or len(known) == 0 or int(known.max()) >= num_classes:
        return torch.randint(num_classes, (n,), generator=own), "uniform"
    return known.cpu()[torch.randint(len(known), (n,), generator=own)], "frequencies of the data"


def names_of(metric: str, names: Iterable[str]) -> list[str]:
    """The full names of a score: itself, or ``metrics/`` and it, or else those of which it is a part.

    >>> names_of("bleu", ["metrics/bleu", "metrics/copy/bleu"]), names_of("fid", ["metrics/fid/lenet", "metrics/modes"])
    (['metrics/bleu'], ['metrics/fid/lenet'])
    """
    known = list(names)
    whole = [name for name in (metric, f"metrics/{metric}") if name in known]
    return whole[:1] or [name for name in known if metric in name.split("/")]


class ScoreCallback(Asks):
    """Computes scores every n generator updates, at step 0, at the end of training, and in ``test``.

    Each result goes to all loggers (x-axis: generator updates); to ``trainer.callback_metrics``, so that
    ``ModelCheckpoint(monitor=...)`` and ``EarlyStopping(monitor=...)`` find it; into ``history``; and, with the
    protocol, as a line of ``<run folder>/scores-<label>.jsonl``. Put it behind ``EMA`` in the list of callbacks. The
    global random number generators are left as they were found.

    Args:
        every_n_steps: generator updates between two measurements, >= 1.
        at_start: measure at step 0 too.
        seed: of all randomness of a measurement (noise, labels, subsets).

    Attributes:
        history: one dict per measurement during ``fit``: ``step`` and the values by name, in order.
        protocol: how the numbers are made; complete after the first measurement.
    """

    needs: type[Samples] = Samples
    higher_is_better: tuple[str, ...] = ()
    in_progress_bar: tuple[str, ...] = ()

    def __init__(self, every_n_steps: int, at_start: bool, seed: int) -> None:
        super().__init__()
        checks.at_least_one(every_n_steps=every_n_steps)
        checks.at_least(0, seed=seed)
        self.every_n_steps, self.at_start, self.seed = every_n_steps, at_start, seed
        self.history: list[dict[str, float]] = []
        self.protocol: dict[str, Any] = {}
        self._file: Path | None = None  # that has the lines of this fit
        self._loaded: dict[int, Any] = {}  # of the model, by its id, that was loaded since the last fit, the update

    # ------------------------------------------------------------------ what a subclass defines
    @property
    def label(self) -> str:
        """Tells this callback's state and file from those of others of its class."""
        raise NotImplementedError

    def measure(self, trainer: pl.Trainer, pl_module: Samples) -> dict[str, float]:
        """The scores by full name (``metrics/...``). Called on every rank, with the global generators seeded."""
        raise NotImplementedError

    def will_measure(self, trainer: pl.Trainer, pl_module: Samples) -> list[str]:
        """Full names of all that `measure` may find here, before it does. Only our own callbacks are asked."""
        raise NotImplementedError

    # ------------------------------------------------------------------ results
    def best(self, metric: str) -> dict[str, float]:
        """The entry of ``history`` with the best value of ``metric`` (full name, or a part of it such as ``fid``).

        Of parts ``metrics/<metric>`` itself comes first: ``harmonic`` is not ``metrics/copy/harmonic``.

        That of update 0, before any training, counts only where there is no other. Of a score of which no value is
        better than another (``mean``, ``sharpness``), it is the last.
        """
        names = {name for entry in self.history for name in entry if name != "step"}
        matching = names_of(metric, names)
        if len(matching) != 1:
            raise ValueError(
                f"metric must be one of {', '.join(sorted(names)) or '(none measured yet)'}, got {metric!r}."
            )
        return dict(best_entry(self.history, matching[0], self.higher_is_better) or self.history[-1])

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return f"{type(self).__name__}[{self.label}]"

    def state_dict(self) -> dict[str, Any]:
        """The history, as plain numbers, and what a model card tells of it."""
        told = {"protocol": dict(self.protocol), "higher_is_better": list(self.higher_is_better)}
        return {"history": [dict(entry) for entry in self.history], **told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the history back, and how it was made."""
        self.history = [dict(entry) for entry in state_dict["history"]]
        self.protocol = dict(state_dict.get("protocol", {}))

    # ------------------------------------------------------------------ hooks
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep which update it is of, which ``trainer.test`` does not restore."""
        self._loaded = {id(pl_module): checkpoint.get("global_step")}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure at step 0; after a resume, publish what was measured last."""
        with rng.untouched():
            self.check(trainer, require(pl_module, self.needs, self))
        step = pl_module.global_step
        self.history = [entry for entry in self.history if entry["step"] <= step] if step else []
        self._file, self._loaded = None, {}
        if step == 0 and self.at_start:
            self._record(trainer, pl_module)
        if self.history:
            self._publish(trainer, {name: value for name, value in self.history[-1].items() if name != "step"})

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure where the number of generator updates is a multiple of ``every_n_steps``."""
        step = pl_module.global_step
        if step and step % self.every_n_steps == 0 and not self._measured(step):
            values = self._record(trainer, pl_module)
            shown = self.shown(values)
            for name, value in values.items():
                pl_module.log(name, value, logger=False, prog_bar=name in shown, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure at the end, unless that was just done; the weights may be the best."""
        module: Any = pl_module
        if not self._measured(module.global_step):
            self._publish(trainer, values := self._record(trainer, module))
            module.run.monitors.save_last(trainer, values)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fail before the first batch, if at all."""
        with rng.untouched():
            self.check(trainer, require(pl_module, self.needs, self))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure once; the values are among those that ``trainer.test`` prints and returns."""
        values = self._measure(trainer, pl_module)
        pl_module.log_dict(values, batch_size=1, sync_dist=trainer.world_size > 1)  # equal: else there is a warning
        step = self._loaded.get(id(pl_module), pl_module.global_step)
        self._write(trainer, "test", [{"step": step, **values}])

    @property
    def awaited(self) -> bool:
        """Nothing was measured yet, so that the names of the scores are not known."""
        return not self.history

    def shown(self, names: Iterable[str]) -> list[str]:
        """Those of the scores that the progress bar and the terminal tell."""
        known = list(names)
        return [name for metric in self.in_progress_bar for name in names_of(metric, known)]

    def _measured(self, step: int) -> bool:
        return bool(self.history) and self.history[-1]["step"] == step

    def _record(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, float]:
        """Measure during ``fit``: history, loggers, file."""
        values, step = self._measure(trainer, pl_module), pl_module.global_step
        self.history.append({"step": step, **values})
        pl_module.run.monitors.measured.update(dict.fromkeys(values, step))
        log_metrics(trainer, values, step)
        self._write(trainer, "fit", self.history)
        return values

    def _measure(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, float]:
        chooses = pl_module.discriminator if getattr(self, "sampler", None) and has(pl_module, Critic) else None
        for net in filter(None, (pl_module.trained_network, pl_module.ema, chooses)):
            distributed.broadcast_buffers(net)  # ranks share the work, so they must sample from one network
        with rng.untouched(), torch.no_grad():
            rng.seed(self.seed)
            values = self.measure(trainer, pl_module)
        return trainer.strategy.broadcast(values)  # ranks may differ in the last bit; decisions must not

    def _publish(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        """Make values visible where Lightning allows no ``log`` (start and end of training)."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        trainer.progress_bar_metrics.update({name: values[name] for name in self.shown(values)})

    def _write(self, trainer: pl.Trainer, stage: str, entries: list[dict[str, float]]) -> None:
        """Add the last line; the first time in a fit write all lines anew, so that a resumed run repeats none."""
        folder = run_dir(trainer)  # on all ranks: it is a collective
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        path = folder / f"{'' if stage == 'fit' else stage + '-'}scores-{self.label}.jsonl"
        own, self._file = self._file, None
        if path == own and path.is_file() and self._added(path, self._as_line(entries[-1])):
            self._file = own  # a long run measures often, and would write ever more
            return
        write_text(path, "".join(map(self._as_line, entries)))
        self._file = path if stage == "fit" else own

    @staticmethod
    def _added(path: Path, line: str) -> bool:
        """Add a line whole or not at all, and tell which: of a full disk `write_text` tells."""
        size = path.stat().st_size
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            os.truncate(path, size)
            return False
        return True

    def _as_line(self, entry: dict[str, float]) -> str:
        return json.dumps({**entry, "protocol": self.protocol}) + "\n"
