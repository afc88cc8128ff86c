"""One resumable fit, which every stage is made of."""

from __future__ import annotations

import hashlib
import json
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from lightning_gans.callbacks.progress import GANProgressBar
from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.settings import differences
from lightning_gans.metrics.extractors import content_hash
from lightning_gans.runs.atomic import write_text
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, read_checkpoint
from lightning_gans.runs.metrics_csv import MetricsCSV

_BAR = lightning_callbacks.ProgressBar
EVERY = 100  # updates from checkpoint to checkpoint of `fit_items`
_BATCHES = 20  # of an epoch at least, since to begin one takes time


def fit(
    module: GenerativeModule,
    data: Any,
    max_steps: int,
    folder: str | Path | None = None,
    *,
    callbacks: Sequence[Any] = (),
    every_n_steps: int = 1000,
    begin: Callable[[], Any] = lambda: None,
    finished: bool = False,
    **options: Any,
) -> None:
    """Train a module up to ``max_steps`` updates; in a folder, go on from the checkpoint ``last.ckpt`` that lies there.

    A fit that was stopped comes to the same end to the bit, and one that has ended is only loaded, with a warning where
    it had other hyper-parameters, or fewer updates. SIGTERM ends the process, at the latest when the fit is over.

    Args:
        module: what is trained.
        data: a data module or a loader; or a function without arguments that makes one, called if there is training.
        max_steps: updates.
        folder: where checkpoints go; None leaves nothing on disk.
        callbacks: of the trainer.
        every_n_steps: updates from checkpoint to checkpoint.
        begin: called before the first update, not when a fit goes on.
        finished: what lies in the folder is not gone on with, however many updates it is of.
        options: of the ``Trainer``.

    Raises:
        ValueError: for a checkpoint that is unreadable, of other networks, or goes beyond ``max_steps``.
    """
    place = None if folder is None else Path(folder)
    checkpoint = None if place is None else place / "last.ckpt"
    saved = read_checkpoint(checkpoint) if checkpoint is not None and checkpoint.is_file() else None
    if saved is not None and saved["global_step"] > max_steps:
        raise ValueError(f"max_steps is {max_steps}, but {checkpoint} is of {saved['global_step']} updates.")
    if saved is not None:
        _check_networks(module, saved["state_dict"], checkpoint)
    if saved is not None and (finished or saved["global_step"] == max_steps):
        was = {**saved.get("hyper_parameters", {}), "max_steps": saved["global_step"]}
        if told := "; ".join(differences(was, {**module.hparams, "max_steps": max_steps})):
            pl.utilities.rank_zero_warn(
                f"{checkpoint} is finished, and stays as it is, without other settings: {told}."
            )
        module.load_state_dict(saved["state_dict"])
        module.on_load_checkpoint(saved)
        for callback in callbacks:
            if (state := saved.get("callbacks", {}).get(callback.state_key)) is not None:
                callback.load_state_dict(state)
        return
    kept: list[Any] = []
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        kept = [lightning_callbacks.ModelCheckpoint(place, "last", every_n_train_steps=every_n_steps,
                                                    enable_version_counter=False)]  # fmt: skip
        options = {"default_root_dir": place, "plugins": [AtomicCheckpointIO()], **options}
    else:
        options = {"logger": False, "enable_checkpointing": False, **options}
    source = data() if callable(data) else data
    if saved is None:
        begin()
    options = {"max_epochs": -1, "limit_val_batches": 0, **options}
    if options.get("enable_progress_bar", True) and not any(isinstance(c, _BAR) for c in callbacks):
        kept.append(GANProgressBar())
    trainer = pl.Trainer(max_steps=max_steps, callbacks=[*callbacks, *kept], **options)
    where = {"datamodule": source} if hasattr(source, "setup") else {"train_dataloaders": source}
    trainer.fit(module, ckpt_path=None if saved is None else str(checkpoint), **where)
    if checkpoint is not None:
        trainer.save_checkpoint(checkpoint)
    if trainer.received_sigterm:  # behind the last update, where Lightning would let the next fit begin
        raise SystemExit(128 + signal.SIGTERM)


class _Again(MemoryLoader):
    """Few items several times an epoch, so that it has batches enough; their numbers stay theirs."""

    def __init__(self, items: Tensor, labels: Tensor | None, batch_size: int) -> None:
        self.times = math.ceil(_BATCHES * batch_size / max(1, len(items)))
        super().__init__(items, labels, batch_size)

    def _num_rows(self) -> int:
        n = self.times * len(self.data)
        return n - n % self.batch_size if self.shuffle else super()._num_rows()

    def order(self, rows: int, generator: Generator) -> Tensor:
        return torch.randperm(self.times * len(self.data), generator=generator) % len(self.data)


def fit_items(
    module: GenerativeModule,
    items: Tensor,
    labels: Tensor | None,
    batch_size: int,
    steps: int,
    folder: str | Path | None,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> None:
    """`fit` on items (M, ...), however few, on their device, with losses in ``metrics.csv``.

    It has a folder of its own within ``folder``, by :func:`key_of` of items, labels, layers as they print, rates, size
    of batches and ``settings``, which lie in it as ``settings.json``: none goes on with what is of others. Only the
    number of steps may grow.
    """
    loader = _Again(items, labels, batch_size)
    options: dict[str, Any] = {}
    if folder is not None:
        of = {"fit": type(module).__name__, "batch_size": batch_size, "items": content_hash(items),
              "labels": None if labels is None else content_hash(labels),
              "rates": {name: player.lr for name, player in module.players.items()},
              "layers": str(module), "networks": {name: list(p.shape) for name, p in module.named_parameters()},
              **settings}  # fmt: skip
        folder = Path(folder) / key_of(of)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "settings.json", json.dumps(of, indent=1) + "\n")
        options = {"logger": MetricsCSV(folder), "log_every_n_steps": min(20, steps)}
    device = "gpu" if items.is_cuda else "cpu"
    fit(module, loader, steps, folder, callbacks=callbacks,
        every_n_steps=EVERY, accelerator=device, devices=1, enable_model_summary=False, **options)  # fmt: skip
    module.to(items.device)


def key_of(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of plain settings: equal settings, equal key.

    >>> key_of({"lr": 0.1, "seed": 1}) == key_of({"seed": 1, "lr": 0.1}), key_of({}) == key_of({"lr": 0.1})
    (True, False)
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _check_networks(module: GenerativeModule, saved: Mapping[str, Tensor], checkpoint: Path | None) -> None:
    """ValueError for weights of other shapes."""
    for name, p in module.named_parameters():
        got = tuple(saved[name].shape) if name in saved else "missing"
        if got != tuple(p.shape):
            raise ValueError(
                f"folder must be that of a fit of the same networks, in which {name} is {tuple(p.shape)}, got "
                f"{checkpoint}, where it is {got}."
            )
