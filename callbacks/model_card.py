"""A page beside each checkpoint that says what it is."""

from __future__ import annotations

import json
import platform
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_gans._lightning import pl, plugins_io
from lightning_gans.base import PLAYERS, GANModule
from lightning_gans.callbacks.probe import as_gan
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.checkpoints import write_text
from lightning_gans.version import __version__


class ModelCard(pl.Callback):
    """Writes ``last.md`` beside ``last.ckpt``, and so for every checkpoint, and removes it with its checkpoint.

    It tells technique and paper, data, generator updates, real samples seen, networks, the scores that were measured
    last with their protocol, the settings, versions, and how to load it. Whoever saves, ``ModelCheckpoint`` or
    ``trainer.save_checkpoint`` (also after ``fit``): the trainer's writer of checkpoints is wrapped when training
    starts. A card that cannot be written costs a warning. Strategies that write without it have no cards.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wrap what writes the checkpoints."""
        if stage != "fit":
            return
        module, writer = as_gan(self, pl_module), trainer.strategy.checkpoint_io
        if not isinstance(writer, _WithCards):  # a trainer may fit again
            trainer.strategy.checkpoint_io = writer = _WithCards(writer)
        writer.card = lambda checkpoint, path: card(trainer, module, checkpoint, path.name)


class _WithCards(plugins_io.CheckpointIO):
    """A writer of checkpoints that writes their cards, too."""

    card: Callable[[Mapping[str, Any], Path], str]

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        self.inner.save_checkpoint(checkpoint, path, storage_options=storage_options)
        if "://" in str(path):
            return
        try:
            write_text(_beside(path), self.card(checkpoint, Path(path)))
        except Exception as error:  # whatever a user's data or settings do: the training is worth more
            warnings.warn(f"there is no card for {path} ({type(error).__name__}: {error}).", stacklevel=2)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.inner.load_checkpoint(path, *args, **kwargs)

    def remove_checkpoint(self, path: str | Path) -> None:
        self.inner.remove_checkpoint(path)
        if "://" not in str(path):
            _beside(path).unlink(missing_ok=True)

    def teardown(self) -> None:
        self.inner.teardown()


def _beside(path: str | Path) -> Path:
    return Path(path).with_suffix(".md")


# ---------------------------------------------------------------------- the page
def card(trainer: pl.Trainer, module: GANModule, checkpoint: Mapping[str, Any], name: str) -> str:
    """The page (Markdown) of a checkpoint called ``name``."""
    settings = {key: checkpoint.get(key) or {} for key in ("hyper_parameters", "datamodule_hyper_parameters")}
    kind, (cls, paper) = type(module).__name__, _paper(type(module))
    technique = kind if kind == cls else f"{kind}, a kind of {cls}"
    facts = {
        "technique": technique if paper is None else f"{technique} ([arXiv:{paper}](https://arxiv.org/abs/{paper}))",
        "data": _data(trainer),
        "generator updates": f"{checkpoint['global_step']:,}",
        "real samples seen": f"{checkpoint.get('gan', {}).get('images_seen', module.images_seen):,}",
        **{PLAYERS[player]: _network(module.player(player)) for player in reversed(module.players)},
        "averaged weights": "yes" if "ema" in checkpoint else "no",
        "regularizers": ", ".join(f"{r.name} (weight {r.weight:g})" for r in module.regularizers) or "none",
        "versions": f"lightning_gans {__version__}, torch {torch.__version__}, {pl.__name__} {pl.__version__}, "
        f"Python {platform.python_version()}",
    }
    networks = "" if "generator" in settings["hyper_parameters"] else ", generator=..., discriminator=..."
    parts = [
        f"# {kind}: {name}",
        _table(("", ""), facts),
        *_scores(trainer, int(checkpoint["global_step"])),
        "## Samples",
        f'```python\nfrom lightning_gans import load\n\nsamples = load("{name}"{networks}).sample(64)\n```',
        "## Settings",
        *(_json(_public(options)) for options in settings.values() if options),
    ]
    return "\n\n".join(parts) + "\n"


def _paper(cls: type) -> tuple[str, str | None]:
    """The arXiv id of a technique, or of that which it is derived from, and the name of the class it is of."""
    for base in cls.__mro__[: cls.__mro__.index(GANModule)]:
        ours = base.__module__.startswith("lightning_gans.")  # a file is a paper there
        told = sys.modules[base.__module__].__doc__ if ours else base.__doc__
        if found := re.search(r"arXiv:(\d{4}\.\d{4,5})", told or ""):
            return base.__name__, found[1]
    return cls.__name__, None


def _data(trainer: pl.Trainer) -> str:
    datamodule: Any = getattr(trainer, "datamodule", None)
    if hasattr(datamodule, "describe"):
        return datamodule.describe()
    if datamodule is not None:
        return type(datamodule).__name__
    loader: Any = trainer.train_dataloader
    dataset: Any = getattr(loader, "dataset", None)
    items = f", {len(dataset):,} items" if hasattr(dataset, "__len__") else ""
    return type(loader).__name__ + ("" if dataset is None else f" of a {type(dataset).__name__}{items}")


def _network(network: nn.Module) -> str:
    return f"{type(network).__name__}, {sum(p.numel() for p in network.parameters()):,} parameters"


def _scores(trainer: Any, step: int) -> list[str]:
    """A table for each callback that scores, of what it measured last, and how."""
    parts = []
    for callback in trainer.callbacks:
        history = [e for e in callback.history if e["step"] <= step] if isinstance(callback, ScoreCallback) else []
        if not history:
            continue
        values = {key: f"{value:.6g}" for key, value in history[-1].items() if key != "step"}
        parts += [f"Measured at update {history[-1]['step']:,.0f}:", _table(("score", "value"), values)]
        parts.append(_json(callback.protocol) if callback.protocol else "The protocol is that of before the resume.")
    return ["## Scores", *parts] if parts else []


def _table(head: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {_cell(value)} |" for key, value in rows.items())])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _public(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the class's path in front, without Lightning's own."""
    told = {"class_path": options["_class_path"]} if "_class_path" in options else {}
    return {**told, **{key: value for key, value in options.items() if not key.startswith("_")}}


def _json(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, default=str)}\n```"
