"""What an optimizer and its schedules are set to, compared with a checkpoint's when a run goes on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import CellType
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_gans.compat.lightning import utilities

_HOW = {"params", "foreach", "fused", "capturable", "differentiable", "lr", "initial_lr"}  # changes no step, or is told
_WHERE = {"base_lrs", "_last_lr", "last_epoch", "_step_count", "_get_lr_called_within_step", "_is_initial", "verbose"}
_WHERE |= {"monitor"}


def settings(optimizers: Iterable[Any], configs: Iterable[Any]) -> list[dict[str, Any]]:
    """Of each optimizer as it is now, before its first step or a checkpoint's state: plain values.

    Args:
        optimizers: in their order.
        configs: Lightning's, of all schedulers.
    """
    found, configs = [], list(configs)
    for optimizer in optimizers:
        groups = [
            {"lr": _rate(group)} | {k: plain(v) for k, v in group.items() if k not in _HOW}
            for group in optimizer.param_groups
        ]
        schedules = [
            [type(c.scheduler).__name__, c.interval, c.frequency, plain(_configuration(c.scheduler))]
            for c in configs
            if getattr(c.scheduler, "optimizer", None) is optimizer
        ]
        found.append({"class": type(optimizer).__name__, "groups": groups, "schedules": schedules})
    return found


class Fresh:
    """Optimizers and schedulers as they were configured, kept until a checkpoint's state was put into them.

    Attributes:
        settings: of each optimizer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        configs = trainer.lr_scheduler_configs
        self.settings = settings(trainer.optimizers, configs)
        self._rates = [[group["lr"] for group in o.param_groups] for o in trainer.optimizers]
        self._groups = [
            [{k: v for k, v in group.items() if k not in _HOW} for group in o.param_groups] for o in trainer.optimizers
        ]
        self._states = [copy.deepcopy(c.scheduler.state_dict()) for c in configs]

    def apply(self, was: list[dict[str, Any]], names: list[str]) -> Iterator[str]:
        """Bring in what differs from a checkpoint's settings; yields what that is.

        A rate is scaled, since schedules and rollbacks have changed it meanwhile. Where it was 0, the optimizer begins
        anew: its moments are of gradients that moved nothing, and say nothing of what comes. A schedule that is
        another one is taken to where it would be after as many updates.

        Raises:
            ValueError: for another class of optimizer, or another number of them.
        """
        optimizers = self.trainer.optimizers
        classes = [o["class"] for o in self.settings]
        if [o["class"] for o in was] != classes:
            raise ValueError(
                f"The optimizers must be those of the checkpoint, {', '.join(o['class'] for o in was)}, got "
                f"{', '.join(classes)}: their states do not fit."
            )
        for i, (name, optimizer, old, new) in enumerate(zip(names, optimizers, was, self.settings)):
            for j, (group, a, b) in enumerate(zip(optimizer.param_groups, old["groups"], new["groups"])):
                for key in (key for key in b if key in a and not same(a[key], b[key])):  # another torch has others
                    yield f"{key} of {name!r} {b[key]} (was {a[key]})"
                    if key == "lr":
                        self._scale(optimizer, group, j, b["lr"] / a["lr"] if a["lr"] else None, b["lr"])
                    else:
                        group[key] = self._groups[i][j][key]
            if not same(old["schedules"], new["schedules"]):
                now, then = (", ".join(s[0] for s in x["schedules"]) or "none" for x in (new, old))
                yield f"schedule of {name!r} {now} (was {then if now != then else 'one of other settings'})"
                self._reschedule(optimizer, i)

    def _scale(self, optimizer: Any, group: dict[str, Any], j: int, factor: float | None, rate: float) -> None:
        for key in {"lr", "initial_lr"} & group.keys():
            group[key] = rate if factor is None else group[key] * factor
        for parameter in group["params"] if factor is None else ():
            optimizer.state.pop(parameter, None)
        for config in self.trainer.lr_scheduler_configs:
            for part in (config.scheduler, *getattr(config.scheduler, "_schedulers", ())):
                if getattr(part, "optimizer", None) is optimizer and hasattr(part, "base_lrs"):
                    part.base_lrs[j] = rate if factor is None else part.base_lrs[j] * factor

    def _reschedule(self, optimizer: Any, i: int) -> None:
        for group, rate, new in zip(optimizer.param_groups, self._rates[i], self.settings[i]["groups"]):
            group["lr"], group["initial_lr"] = rate, new["lr"]
        for config, state in zip(self.trainer.lr_scheduler_configs, self._states):
            if getattr(config.scheduler, "optimizer", None) is not optimizer:
                continue
            config.scheduler.load_state_dict(copy.deepcopy(state))
            if isinstance(config.scheduler, ReduceLROnPlateau):
                continue  # it begins to wait anew
            done = self.trainer.global_step if config.interval == "step" else self.trainer.current_epoch
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the optimizer has not stepped yet
                for _ in range(done // config.frequency):
                    config.scheduler.step()


def _rate(group: Mapping[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))


def _configuration(scheduler: Any) -> dict[str, Any]:
    """What a scheduler does: its state without how far it is, and what its functions are made of."""
    state = {key: value for key, value in vars(scheduler).items() if key not in _WHERE | {"optimizer", "_schedulers"}}
    parts = getattr(scheduler, "_schedulers", ())
    return state | {"parts": [[type(part).__name__, _configuration(part)] for part in parts]}


def scalar(value: Any) -> Any:
    """A number of NumPy's as Python's, a word or number of an enumeration as itself, a path as a word; else it."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum) and isinstance(value, (int, float, str)):
        return value.value
    return value.item() if isinstance(value, np.generic) else value


def plain(value: Any, within: tuple[Any, ...] = ()) -> Any:
    """Numbers, words and lists of them, as a checkpoint can hold and two runs can compare.

    Args:
        value: of a function what it is made of, as far as that are numbers, words and collections of them.
        within: what holds it; where that is itself, only its class is told, as of a network, whose weights change.
    """
    value = scalar(value)
    if isinstance(value, torch.nn.Module) or any(value is holder for holder in within):
        return [type(value).__name__, None]
    inner = partial(plain, within=(*within, value))
    if isinstance(value, Mapping):
        return {str(k): inner(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [inner(v) for v in value]
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (int, float, str, bool, type(None))):
        return value
    if isinstance(value, partial):
        return inner([value.func, value.args, value.keywords])
    if callable(value) and hasattr(value, "__code__"):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]  # some are still empty
        return [inner(v) for v in (*value.__code__.co_consts, *(value.__defaults__ or ()), *cells) if _is_told(v)]
    own = getattr(value, "__dict__", None)
    return [type(value).__name__, inner(own) if isinstance(own, dict) and callable(value) else None]


def _is_told(value: Any, within: tuple[Any, ...] = ()) -> bool:
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else None
    if values is None:
        return isinstance(value, (int, float, str))
    inside = (*within, value)
    return all(any(v is holder for holder in inside) or _is_told(v, inside) for v in values)


def same(a: Any, b: Any) -> bool:
    """Equal, a tuple being as good as a list."""
    return bool(plain(a) == plain(b))


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Hyper-parameters that a checkpoint knows with another value, but those of optimizers."""
    for key in sorted(was.keys() & now.keys()):
        if not key.startswith(("_", "lr", "betas", "optimizer_", "scheduler_")) and not same(was[key], now[key]):
            yield f"{key} {now[key]} (was {was[key]})"


def before_settings(
    now: list[dict[str, Any]], names: list[str | None], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The settings of a checkpoint that has not kept them, as far as its hyper-parameters tell.

    Args:
        now: of each optimizer, as it is configured.
        names: whose it is, if it is the default one; None for others.
        options: the hyper-parameters.
    """
    found = copy.deepcopy(now)
    for name, one in zip(names, found):
        for group in one["groups"] if name is not None else ():
            group["lr"] = options.get(f"lr_{name}", group["lr"])
            if "betas" in group:
                group["betas"] = options.get("betas", group["betas"])
    return found


def compare(trainer: Any, module: Any, resumed: Mapping[str, Any]) -> None:
    """Bring in, and tell, what is not as in the checkpoint that the run goes on from."""
    owners = {id(p): n for n in module.players for net in module.networks(n) for p in net.parameters()}
    names = [owners.get(id(o.param_groups[0]["params"][0]), str(i)) for i, o in enumerate(trainer.optimizers)]
    fresh, options = module.run.fresh, resumed["hyper_parameters"]
    ours = module.configure_optimizers.__qualname__.startswith("GenerativeModule.")
    default = [name if ours and module.players[name].optimizer is None else None for name in names]
    was = resumed["settings"] or before_settings(fresh.settings, default, options)
    told = [*differences(options, module.hparams), *fresh.apply(was, names)]
    if resumed["ema"] and module.ema is None:
        told.append("no averaged weights (the checkpoint has some, but no EMA goes on with them)")
    elif module.ema is not None and not resumed["ema"]:
        told.append(f"averaged weights, from update {trainer.global_step} on (the checkpoint has none)")
    if told:
        utilities.rank_zero_warn(f"The run goes on with other settings: {'; '.join(told)}.")
