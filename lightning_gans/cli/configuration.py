"""Configurations: what a checkpoint brings along, and networks that take their shape from the data."""

from __future__ import annotations

import inspect
import json
import pkgutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

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


def fit_networks_to_data(options: Any) -> None:
    """Write what the data and latent_dim determine into networks that take it: no other value could work.

    These are shape, latent_dim, groups of z, and the number of classes of a network that is conditional (none for
    unlabelled data). The length of z itself is written where the class of the generator knows it (``noise_length``).
    """
    model, data = options.get("model"), options.get("data")
    if not model or not data:
        return
    source = built(data.as_dict())
    nets = list(vars(model["init_args"]).values())
    if hasattr(generator := model["init_args"].get("generator"), "class_path") and "latent_dim" in model["init_args"]:
        length = getattr(pkgutil.resolve_name(generator["class_path"]), "noise_length", None)
        model["init_args"]["latent_dim"] = length(source.shape) if length else model["init_args"]["latent_dim"]
    while nets:
        config = nets.pop()
        if not hasattr(config, "as_dict") or "init_args" not in config:
            continue
        nets += vars(config["init_args"]).values()  # a wrapper has a network of its own
        taken = parameters(pkgutil.resolve_name(config["class_path"]))
        if "shape" in taken:
            config["init_args"]["shape"] = list(source.shape)
        if "latent_dim" in taken and "latent_dim" in model["init_args"]:
            config["init_args"]["latent_dim"] = model["init_args"]["latent_dim"]
        if "groups" in taken and model["init_args"].get("groups"):
            config["init_args"]["groups"] = list(dict(model["init_args"]["groups"]).values())
        if config["init_args"].get("num_classes") is not None:
            config["init_args"]["num_classes"] = source.num_classes


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
