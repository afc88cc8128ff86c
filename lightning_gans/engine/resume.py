"""What a checkpoint holds beside Lightning's own, so that a run goes on to the bit."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from types import FrameType
from typing import Any, cast

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_gans.compat.lightning import datamodule_of, utilities
from lightning_gans.engine import distributed, rng
from lightning_gans.engine.batch import TENSORS, Batch
from lightning_gans.engine.progress import Progress
from lightning_gans.engine.settings import scalar
from lightning_gans.engine.stream import DataStream
from lightning_gans.version import __version__


def save(progress: Progress, stream: DataStream, noise: torch.Generator) -> dict[str, Any]:
    """Random numbers, the place in the data, and the cycle under way, of all ranks. A collective."""
    mine: dict[str, Any] = {"random": rng.capture(), "stream": stream.state_dict(), "labels": progress.labels}
    if any(progress.done.values()):  # the rest of the cycle goes on from what its first part has left
        batches = {name: [getattr(b, t) for t in TENSORS] for name, b in progress.batches.items()}
        mine |= {name: getattr(progress, name) for name in ("made", "kept", "values")} | {"batches": batches}
    mine = apply_to_collection(mine, Tensor, lambda t: t.cpu())
    return {
        "ranks": distributed.gather_objects(mine),
        "noise": noise.get_state(),
        "device": noise.device.type,
        "done": dict(progress.done),
        "updates": dict(progress.updates),
        "images_seen": progress.images_seen,
    }


def origin(module: Any) -> dict[str, Any]:
    """What a checkpoint is of, and by which versions it was written."""
    return {
        "class_path": f"{type(module).__module__}.{type(module).__qualname__}",
        "network_calls": module.network_calls,
        "versions": {"lightning_gans": __version__, "torch": str(torch.__version__)},
    }


def restore(state: Mapping[str, Any], progress: Progress, stream: DataStream, noise: torch.Generator) -> None:
    """Go on from what :func:`save` returned, or its first form (version 0.1)."""
    progress.images_seen = state["images_seen"]
    progress.updates.update(state.get("updates", {}))
    progress.measured = progress.images_seen > 0 and not state.get("other_data")
    if state.get("other_data"):
        return
    was, now = (len(state["ranks"]), state["device"]), (distributed.world_size(), noise.device.type)
    if was != now:
        utilities.rank_zero_warn(
            f"The checkpoint was written by {was[0]} process(es) on {was[1]} and is resumed by {now[0]} on {now[1]}"
            ": weights and optimizers go on exactly, data order and noise start afresh."
        )
        return
    progress.done.update(state.get("done") or {"d": state["d_done"], "g": state["g_done"]})
    mine = state["ranks"][distributed.rank()]
    noise.set_state(state["noise"])
    stream.load_state_dict(mine["stream"], mine["random"])
    parts = {name: mine.get(name, {}) for name in ("made", "kept", "values", "batches")} | {"labels": mine["labels"]}
    if "last" in mine:
        parts |= {"batches": {"d": [*mine["last"], None]}, "made": {"fake": mine["fake"]}}
    parts = apply_to_collection(parts, Tensor, lambda t: t.to(noise.device))
    progress.labels = parts["labels"]
    for name in ("made", "kept", "values"):
        getattr(progress, name).update(parts[name])
    progress.batches |= {name: Batch(**dict(zip(TENSORS, b)), generator=noise) for name, b in parts["batches"].items()}


def look_at(checkpoint: Mapping[str, Any], module: Any, trainer: Any) -> None:
    """Refuse what is no checkpoint of the module; let one that was written at the end of the data begin an epoch.

    Lightning would count its steps on, which end an epoch and time validations, unless they are as many as batches.
    """
    check_class(checkpoint, module)
    steps = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    within = steps.get("is_last_batch") and steps["total"]["completed"] < steps["total"]["processed"]
    if within and hasattr(trainer.fit_loop.epoch_loop, "restarted_on_train_batch_end"):  # not of early versions
        steps["current"]["completed"] = -1  # and one is added


def check_class(checkpoint: Mapping[str, Any], module: Any) -> None:
    """ValueError unless a checkpoint is of the module's class, or of one that a class of the user's extends."""
    own, path = type(module), checkpoint.get("class_path") or checkpoint.get("hyper_parameters", {}).get("_class_path")
    if path is None and not {"engine", "gan"} & checkpoint.keys():
        raise ValueError(
            f"The checkpoint must be one of {own.__name__}, got one of a module that was not ours: begin with its "
            "weights (load_state_dict) instead."
        )
    if path is None:  # of an early version
        return
    name = path.rpartition(".")[2]
    ours = own.__module__.startswith("lightning_gans.")
    if name not in ([own.__name__] if ours else [cls.__name__ for cls in own.__mro__]):
        raise ValueError(
            f"The checkpoint must be one of {own.__name__}, got one of {name}: begin with its weights (load) instead."
        )


def data_name(trainer: Any) -> str | None:
    """What a checkpoint calls the data; None for loaders without a data module."""
    data = datamodule_of(trainer)
    return None if data is None else str(getattr(data, "name", None) or type(data).__name__)


def keep_plain_hyperparameters(module: Any) -> None:
    """``save_hyperparameters()`` without live objects, which are not copied either.

    From the CLI the nets arrive as class paths and are kept, so that ``load_from_checkpoint(path)`` rebuilds them.
    """
    module.save_hyperparameters(frame=outermost())  # what the CLI gives, and else nothing
    every, again = arguments(module)
    known = dict(module.hparams)  # by a class of the user's, too, ahead of ours
    ignored = [name for name, value in (every | known).items() if not is_plain(value)]
    for name in ignored:
        module.hparams.pop(name, None)
    module.save_hyperparameters(ignore=ignored)
    module.hparams.update(readable(dict(module.hparams)))
    module._decided = tuple(name for name in module.hparams if name not in again | known)


def arguments(module: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the constructors of a module that is being built were called with, by name, innermost first.

    Returns:
        All of it, and what of it the constructor that was called can be given again: of a class of the user's that
        hands on ``**options`` those alone that it was given, since it adds some of its own; not if it hands on
        ``*args``, which have no name but further in.
    """
    frame, found, again = cast(Any, inspect.currentframe()), dict[str, Any](), dict[str, Any]()
    while frame is not None:
        code, values = frame.f_code, frame.f_locals
        if code.co_name == "__init__" and code.co_argcount and values.get(code.co_varnames[0]) is module:
            count, unnamed = code.co_argcount + code.co_kwonlyargcount, bool(code.co_flags & inspect.CO_VARARGS)
            options = bool(code.co_flags & inspect.CO_VARKEYWORDS)
            more = values.get(code.co_varnames[count + unnamed], {}) if options else {}
            given = {name: values[name] for name in code.co_varnames[1:count] if name in values} | more
            found |= given
            ours = str(frame.f_globals.get("__name__")).startswith("lightning_gans.")
            again = found if ours or unnamed or not options else given
        frame = cast(Any, frame.f_back)
    return found, again


def set_apart(module: Any, checkpoint: dict[str, Any]) -> None:
    """Leave to the constructor what a class of the user's decides itself: such are in the checkpoint to compare.

    What it has kept by a ``save_hyperparameters`` of its own, and torch would read by running code alone, is left out.
    """
    fixed = {name: module.hparams[name] for name in module._decided if name in module.hparams}
    checkpoint |= {"fixed": fixed} if fixed else {}
    if "hyper_parameters" in checkpoint:
        options = checkpoint["hyper_parameters"].items()
        checkpoint["hyper_parameters"] = {k: v for k, v in options if k not in fixed and is_read(v)}


def options_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """All hyper-parameters of a checkpoint."""
    return {**checkpoint.get("fixed", {}), **checkpoint.get("hyper_parameters", {})}


def outermost() -> FrameType:
    """The frame that called all others: no constructor."""
    frame = cast(FrameType, inspect.currentframe())
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def is_plain(value: Any) -> bool:
    """Whether a hyper-parameter can be written into a checkpoint: no live object is in it."""
    if isinstance(value, Mapping):
        return all(is_plain(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_plain(v) for v in value)
    return isinstance(scalar(value), (int, float, str, bool, type(None)))


def is_read(value: Any) -> bool:
    """Whether torch reads a value of a checkpoint without running code."""
    if isinstance(value, Mapping):
        return all(is_read(part) for part in value.values())
    if isinstance(value, (list, tuple, set)):
        return all(is_read(part) for part in value)
    return is_plain(value) or isinstance(value, (torch.Tensor, torch.dtype, torch.device, bytes, complex))


def readable(value: Any) -> Any:
    """NumPy's numbers, paths and so on, which torch reads by running code alone, as Python's; in collections too."""
    if isinstance(value, dict):
        found = copy.copy(value)
        for key, part in value.items():
            found[key] = readable(part)
        return found
    return type(value)(map(readable, value)) if type(value) in (list, tuple) else scalar(value)
