"""What a user is told: of a mistake one sentence, of what cannot be helped nothing."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_gans import checks
from lightning_gans.compat.lightning import utilities
from lightning_gans.engine import contract, first_batch, own_code, player
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.functional import columns, control, numerics, text
from lightning_gans.networks import leak_gan
from lightning_gans.samplers import calibration

_LIGHTNINGS = tuple(  # what it asks of options that we hand on to it
    f"{home}.{part}"
    for home, part in (
        ("pytorch_lightning", "trainer.connectors."),
        ("lightning.pytorch", "trainer.connectors."),
        ("lightning_fabric", "utilities.seed"),
        ("lightning.fabric", "utilities.seed"),
    )
)
_LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric",
            "pytorch_lightning.callbacks.early_stopping", "lightning.pytorch.callbacks.early_stopping")  # fmt: skip

# Where a TypeError is meant, and no fault of ours.
_ASK = (checks, contract, first_batch, own_code, player, columns, control, numerics, text, leak_gan, calibration)
ASK_FOR_TYPES = tuple(part.__name__ for part in _ASK)


def sentence_of(error: Exception) -> str | None:
    """What a user is told instead of a traceback if the mistake is theirs: what our own code, or Lightning, refuses."""
    known = (utilities.exceptions.MisconfigurationException, NonFiniteError)
    if isinstance(error, known) or "stateful callback" in str(error):
        return str(error)
    if isinstance(error, RuntimeError) and "lost contact with another rank" in str(error):
        return str(error)
    if isinstance(error, RuntimeError) and re.search("Connection (closed|reset) by peer", str(error)):  # gloo's
        return "Lost contact with another rank, which has probably ended: see its output for the cause."
    if first_batch.out_of_memory(error):
        reason = next(iter(str(error).strip().splitlines()), "").partition(" If reserved")[0].rstrip(".")
        return (
            f"The memory must hold a batch and its gradients, got: {reason or 'not enough'}. Lower --data.batch_size."
        )
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        detail = " ".join(str(error).splitlines()[1:2]).strip().rstrip(".")
        return f"The checkpoint does not fit the networks that the configuration asks for ({detail})."
    if isinstance(error, RuntimeError) and "negative dimension" in str(error):
        return f"Networks must have sizes >= 1, got another ({str(error).splitlines()[0].rstrip('.')})."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename} cannot be used: {error.strerror[:1].lower()}{error.strerror[1:]}."
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_by = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    ours = trace is not None and raised_by.startswith("lightning_gans.") and "self" in trace.tb_frame.f_locals
    if trace is not None and ours and isinstance(error, NotImplementedError):
        owner, asked = type(trace.tb_frame.f_locals["self"]).__name__, trace.tb_frame.f_code.co_name
        return f"{owner} must define {asked}, which is needed here, got none of its own."
    if raised_by.startswith("jsonargparse.") and isinstance(error.__cause__, Exception):
        return sentence_of(error.__cause__)  # raised by a constructor
    refused = raised_by.startswith(("lightning_gans.", *_LIGHTNINGS)) and isinstance(error, (ValueError, OSError))
    return (
        str(error) if refused or (raised_by in ASK_FOR_TYPES and isinstance(error, (TypeError, ImportError))) else None
    )


@contextmanager
def told() -> Iterator[None]:
    """What a user has done wrong, as one sentence."""
    try:
        yield
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) and sentence_of(error) is None:
            raise  # torch's, of an operation that a device lacks
        raise SystemExit(f"error: {sentence_of(error) or error}") from error


def silence() -> None:
    """Leave out what a user can do nothing about."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of Lightning's own calls
    for message in (
        "isinstance",
        "does not have many workers",
        "smaller than the logging interval",
        "Checkpoint directory",
        "Couldn't infer the batch indices",
        "The dirpath has changed",
        "args parameter is intended",
        "in eval mode at the start of training",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*")


def is_quiet() -> bool:
    """Whether Lightning says nothing of its own."""
    return not any(logging.getLogger(name).isEnabledFor(logging.INFO) for name in _LOGGERS[:2])


@contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Lightning says nothing of its own (seed, accelerators, limits, what ended a fit) but warnings and early stops."""
    loggers = [logging.getLogger(name) for name in _LOGGERS if on]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.INFO if logger.name.endswith("early_stopping") else logging.WARNING))
    try:
        yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)
