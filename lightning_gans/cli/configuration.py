"""Configurations: what a checkpoint brings along, and networks that take their shape from the data."""

from __future__ import annotations

import inspect
import json
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_gans.compat.lightning import utilities
from lightning_gans.runs.checkpoints import newest_checkpoint, read_checkpoint
from lightning_gans.runs.folder import configs, run_of
from lightning_gans.runs.load import HARMLESS, load, resolve_class

# Where the classes are defined that a checkpoint may name if it lies in no run.
_REMEMBERED = (*HARMLESS, "lightning_gans.datamodules.", "lightning_gans.optim", "torch.optim.")


def resolve(args: list[str], default_config: Path | None, commands: Collection[str]) -> list[str]:
    """A run folder as ``--ckpt_path`` means its newest whole checkpoint; a checkpoint brings its configuration along.

    Args:
        args: of the command line.
        default_config: of ``fit``, if none is given.
        commands: to which this applies.
    """
    if not args or args[0] not in commands:
        return args
    config = None if default_config is None else str(default_config)
    given = any(a.partition("=")[0] in ("-c", "--config") for a in args)
    i = next((i for i, arg in enumerate(args) if arg.partition("=")[0] == "--ckpt_path"), None)
    if i is not None and args[i:] != ["--ckpt_path"]:
        name, inline, value = args[i].partition("=")
        path = Path(value if inline else args[i + 1])
        path = newest_checkpoint(path) if path.is_dir() else path
        try:
            checkpoint = read_checkpoint(path)
        except (FileNotFoundError, ValueError) as error:
            raise SystemExit(f"error: --ckpt_path: {error}") from error
        args[i : i + (1 if inline else 2)] = [f"{name}={path}"]
        folder = run_of(path)
        if not given:
            config = str(configs(folder)[-1]) if folder is not None else _remembered_config(checkpoint)
    elif i is None and args[0] != "fit" and not any(a.startswith(("-h", "--help", "--print_config")) for a in args):
        raise SystemExit(f"error: {args[0]} needs --ckpt_path, a checkpoint or the folder of a run.")
    if config is not None and not given:
        args[1:1] = ["--config", config]
    return args


def _remembered_config(checkpoint: dict[str, Any]) -> str | None:
    """Model and data as a checkpoint knows them, for one that lies in no run folder; JSON is YAML.

    It may be a stranger's, so that only classes which ``load`` would build are taken, data and optimizers.
    """
    config: dict[str, Any] = {}
    for name, key in (("model", "hyper_parameters"), ("data", "datamodule_hyper_parameters")):
        options = {k: v for k, v in checkpoint.get(key, {}).items() if k != "_instantiator"}
        if (class_path := options.pop("_class_path", None)) is not None:
            config[name] = {"class_path": class_path, "init_args": options}
    try:
        for class_path in _class_paths(config):
            resolve_class(class_path, (object,), harmless=_REMEMBERED)
        base = config.get("model", {}).get("init_args", {}).get("base")
        if isinstance(base, str) and Path(base).is_file():  # of a mixture: another checkpoint, by the same rule
            load(base)
    except ValueError as error:
        told = str(error).partition(";")[0].rstrip(".")
        raise SystemExit(f"error: --ckpt_path: {told}; if you trust it, give its configuration by --config.") from error
    return json.dumps(config) if config else None


def _class_paths(config: Any) -> Iterator[str]:
    """All of a configuration."""
    if isinstance(config, dict) and "class_path" in config:
        yield str(config["class_path"])
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, (list, tuple)) else ():
        yield from _class_paths(value)


def fit_networks_to_data(options: Any, given: Mapping[tuple[str, ...], Any] | None = None, warn: bool = True) -> None:
    """Write what the data and latent_dim determine into networks that take it, and were not given it.

    These are shape, latent_dim, groups of z, and the number of classes of a network that is conditional (none for
    unlabelled data). The length of z itself is written where the class of the generator knows it (``noise_length``).

    Args:
        options: of the command, parsed.
        given: what a user has given, by path (:func:`parsing.given_values`).
        warn: of classes that a network in a file has, and the data have not.

    Raises:
        ValueError: the user gave a shape, a number of classes or a length of the generator's z that cannot be meant.
    """
    model, data = options.get("model"), options.get("data")
    if not model or not data or "init_args" not in model:
        return
    source, told = built(data.as_dict()), dict(given or {})
    if hasattr(generator := model["init_args"].get("generator"), "class_path") and "latent_dim" in model["init_args"]:
        length = getattr(pkgutil.resolve_name(generator["class_path"]), "noise_length", None)
        model["init_args"]["latent_dim"] = length(source.shape) if length else model["init_args"]["latent_dim"]
    nets: list[tuple[tuple[str, ...], Any]] = [(("model", name), net) for name, net in vars(model["init_args"]).items()]
    while nets:
        path, config = nets.pop()
        if not hasattr(config, "as_dict") or "init_args" not in config:
            continue
        own = config["init_args"]
        nets += [((*path, name), net) for name, net in vars(own).items()]  # a wrapper has a network of its own
        taken = parameters(pkgutil.resolve_name(config["class_path"]))
        fitting: dict[str, tuple[Any, str]] = {}
        if "shape" in taken:
            fitting["shape"] = list(source.shape), "that of the data"
        if "latent_dim" in taken and "latent_dim" in model["init_args"]:
            fitting["latent_dim"] = model["init_args"]["latent_dim"], "--model.latent_dim"
        if "groups" in taken and model["init_args"].get("groups"):
            fitting["groups"] = list(dict(model["init_args"]["groups"]).values()), "those of --model.groups"
        if own.get("num_classes"):
            labelled = source.num_classes is not None
            fitting["num_classes"] = (
                source.num_classes,
                "that of the data" if labelled else f"null for {type(source).__name__}, which has no num_classes",
            )
        bound = ("shape", "num_classes") if len(path) == 2 else ("num_classes",)  # a wrapper's may see packs of samples
        for name, (value, what) in fitting.items():
            has, typed = (_listed(v) for v in (own.get(name), told.get((*path, name))))
            if typed is None or typed != has:  # not given, or to a class that was replaced
                if has and value is None and warn:
                    utilities.rank_zero_warn(f"--{'.'.join((*path, name))} {has} is left out: it must be {what}.")
                own[name] = value
            elif has != value and (name in bound or path[1] == "generator"):
                of = f", {value}" * (value is not None)
                raise ValueError(f"--{'.'.join((*path, name))} must be {what}{of}, got {has}.")


def require_annotations(model: Any) -> None:
    """ValueError for a class of the user's that is to get a network, and does not say so: it would get its name."""
    cls = pkgutil.resolve_name(model["class_path"]) if model else object
    given = (model or {}).get("init_args") or {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.annotation is parameter.empty and _names_network(cls, name, given.get(name)):
            raise ValueError(
                f"{cls.__name__}.__init__ must annotate {name} (def __init__(self, {name}: nn.Module, ...)), or the "
                "command line does not know that it is to build a network, got no annotation."
            )


def _names_network(cls: type, name: str, value: Any) -> bool:
    if not isinstance(value, str):  # else with arguments of its own
        return type(value).__name__ == "NestedArg" or (hasattr(value, "keys") and "class_path" in value)
    theirs = [vars(base)["__init__"].__annotations__ for base in cls.__mro__[1:-1] if "__init__" in vars(base)]
    return any("Module" in str(annotations.get(name)) for annotations in theirs)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def built(config: Any) -> Any:
    """The object that a class path with its arguments stands for, which may be such objects in their turn."""
    if not isinstance(config, dict) or "class_path" not in config:
        return config
    arguments = {key: built(value) for key, value in config.get("init_args", {}).items()}
    return pkgutil.resolve_name(config["class_path"])(**arguments)


def parameters(obj: Any) -> list[str]:
    """Names of what ``obj`` takes when it is called; none if it does not say."""
    try:
        return list(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return []
