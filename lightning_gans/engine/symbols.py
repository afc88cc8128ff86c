"""The symbols of text: those of the data, and those that a model was trained on."""

from __future__ import annotations

from typing import Any

from lightning_gans.compat.lightning import datamodule_of
from lightning_gans.functional.text import Vocabulary


def symbols_of(trainer: Any) -> Vocabulary | None:
    """Those of the data, if a data module tells them."""
    found = getattr(datamodule_of(trainer), "vocabulary", None)
    return found if isinstance(found, Vocabulary) else None


def check_symbols(trainer: Any, module: Any) -> None:
    """ValueError for data of text whose tokens mean something else than those of the weights, or are more or fewer."""
    known, found, size = module.vocabulary, symbols_of(trainer), module.vocabulary_size
    if known is not None and found is not None and found is not known:
        known.require(found, "data")
    if size is not None and found is not None and len(found) != size:
        raise ValueError(f"data must have as many symbols as the network, {size:,}, got {len(found):,}.")


def take_symbols(trainer: Any, module: Any) -> None:
    """Those of the data that a model of text is about to be trained on, if they tell them and are no others."""
    module.run.known = module.vocabulary
    check_symbols(trainer, module)
    if module.vocabulary_size is not None:
        module.vocabulary = symbols_of(trainer) or module.vocabulary


def leave_symbols(module: Any) -> None:
    """Those of before a fit that has made no update."""
    run = module.run
    if hasattr(run, "known") and sum(module.progress.updates.values()) == run.began:
        module.vocabulary = run.known
