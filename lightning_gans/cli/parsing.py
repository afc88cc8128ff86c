"""What stands before the parser, and what it says: words that cannot be meant, and errors in one line."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonargparse._typehints
import torch
import yaml
from torch import nn

import lightning_gans.callbacks as gan_callbacks
import lightning_gans.datamodules as gan_datamodules
from lightning_gans import networks, nonadversarial, regularizers, techniques, wrappers
from lightning_gans.cli.configuration import parameters
from lightning_gans.cli.recipes import RECIPES, inline, shipped
from lightning_gans.cli.shortcuts import instead
from lightning_gans.compat.lightning import callbacks, loggers, pl, pl_cli
from lightning_gans.optim import adam, rmsprop  # noqa: F401  (whose bare names stand for ours)

_PACKAGES = (techniques, nonadversarial, gan_datamodules, gan_callbacks, networks, regularizers, wrappers)
RUN = "<run>"  # the run's folder, as ``save_dir`` of a logger
_LISTS = {"trainer.callbacks": "null", "trainer.plugins": "null", "trainer.logger": "null", "model.regularizers": "[]"}
_CLASSES = re.compile(r"(model|data|trainer\.callbacks)\b")  # options whose values are names of classes

_COMMANDS = {
    "fit": "Train a model, or go on with a run (--ckpt_path).",
    "test": "Score a run or a checkpoint.",
    "predict": "Draw samples of a run or a checkpoint, into files.",
}


class Parser(pl_cli.LightningArgumentParser):
    """Tells an error in a line, with the nearest valid names, and leaves out the 250 lines of usage before it."""

    def add_subcommands(self, *args: Any, **kwargs: Any) -> Any:
        """With a line of ours for each: Lightning's break off where its docstrings go on in another line."""
        commands: Any = super().add_subcommands(*args, **kwargs)
        add = commands.add_subcommand

        def added(name: str, parser: Any, **options: Any) -> Any:
            parser.description = options["help"] = _COMMANDS.get(name, options.get("help"))
            return add(name, parser, **options)

        commands.add_subcommand = added
        return commands

    def print_usage(self, file: Any = None) -> None:
        """Nothing: an error ends with a hint at ``--help``."""

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """As text. What stands in a class is not checked once more there: the whole has been before."""
        inner = {"skip_validation": True} if vars(self).get("_inner_parser") else {}
        return super().dump(*args, **kwargs | inner)

    def error(self, message: str, *args: Any, **kwargs: Any) -> Any:
        """Tell the innermost mistake, with the nearest valid names, and end."""
        told, said = innermost(str(message))
        options = {part for action in self._actions for part in str(action.dest).split(".")}
        classes = {name for package in _PACKAGES for name in package.__all__}
        owners = [pl.Trainer, callbacks.ModelCheckpoint, *(getattr(p, name) for p in _PACKAGES for name in p.__all__)]
        known = options | classes | {name for owner in owners for name in parameters(owner)}
        known |= {"Callback", "GANDataModule", "GenerativeModule", "Logger", "Module", "NoneType"}
        known |= {"trainer", "model", "data", "checkpoint", "grid"}
        known |= {name for home in (loggers, torch.optim) for name, of in vars(home).items() if inspect.isclass(of)}
        if option := re.match(r"--([\w.]+)", told):  # which the parser has found: its value is wrong, or one below it
            known |= {*option[1].split(".")}
        quoted = re.findall(r"""["'`]([\w.]+)["'`]|--([\w.]+)|class, got (\w+)""", told)
        words = {word for groups in quoted for group in groups for word in group.split(".") if word}
        hints = {word: difflib.get_close_matches(word, known, n=3, cutoff=0.75) for word in sorted(words - known)}
        lines = [f"'{word}': did you mean {', '.join(near)}?" for word, near in hints.items() if near]
        said += [line for line in lines if not any(line.split(":")[0] in other for other in said)]
        return super().error("\n  ".join([told, *said]), *args, **kwargs)


def innermost(message: str) -> tuple[str, list[str]]:
    """One line of jsonargparse's many, with the option that it is about; and the hints that are among them."""
    where, leaves, given, hints, of_class = [], [], "", [], ""
    for line in message.splitlines():
        depth, text = len(line) - len(line.lstrip()), line.strip().removeprefix("- ")
        if match := re.fullmatch(r'Parser key "([\w.]+)":', text):
            where.append(match[1])
        elif match := re.match(r"Problem with given class_path '([\w.]+)'", text):
            of_class = f", {match[1]}"
        elif "': did you mean " in text:
            hints.append(text)
        elif text.startswith("Given value: "):
            given = given or text.removeprefix("Given value: ")
        elif text and not text.startswith(
            ("Does not validate against any", "Subtypes: ", "Errors:", "Given value type:")
        ):
            leaves.append((depth, text))
    if not where or not leaves:
        return message, []
    deepest = max(depth for depth, text in leaves)
    found = [text for depth, text in leaves if depth == deepest]
    option = "--" + ".".join(where)
    if found[0].startswith("--"):  # told by a parser within this one
        return f"{option}.{found[0][2:]}", hints
    if match := re.search(r"dot import path string: (.+)", "\n".join(found)):
        return f"{option} must be the name of a class, got {match[1]}", hints
    types = [re.fullmatch(r"Expected an? (?:<class '([\w.]+)'>|(.+?))(?:\. Got value: (.*))?", text) for text in found]
    if all(types):
        wanted = [(match[1] or match[2]).replace("NoneType", "null") for match in types if match]
        got = next((match[3] for match in types if match and match[3]), given)
        choices = [of[1] for kind in wanted if (of := re.fullmatch(r"(?:typing\.)?Literal\[(.+)\]", kind))]
        wanted = [
            *["one of " + ", ".join(choices).replace("'", "")] * bool(choices),
            *(k for k in wanted if "Literal[" not in k),
        ]
        if where[-1] == "seed_everything":  # True draws one, which nobody asks for
            wanted = [kind for kind in wanted if kind != "bool"]
        if "int" in wanted and "float" not in wanted and re.fullmatch(r"[+-]?\d+\.0", got):
            got = f"{got}: write {got[:-2]}"
        if got.lower().lstrip("+-") in ("nan", "inf", "infinity"):  # YAML writes .nan
            wanted = ["a finite number" if kind == "float" else kind for kind in wanted]
        return f"{option} must be {' or '.join(wanted)}{got and f', got {got}'}", hints
    return f"{option}{of_class}: {found[0]}", hints


def prepared(args: list[str]) -> list[str]:
    """The same, so that the parser does what is meant by it.

    A recipe's name (``ring/wgan_gp``) means its file; a list that is given as a whole starts anew, so that its members
    do not inherit arguments from those that had their places; ``null`` is understood at any depth;
    a logger that must be given ``save_dir`` writes into the run's folder.

    Raises:
        SystemExit: with one sentence, for a configuration that cannot be read, or the name of a class that only
            torchvision has.
    """
    result: list[str] = []
    configured = False
    for option, value, tokens in _options(args):
        found: dict[str, Any] = {}
        if option in ("-c", "--config") and value is not None:
            tokens = [f"{option}={(value := shipped(value))}"] if value != shipped(value) else tokens
            found = _read_config(value)
            result += [f"--{name}={nothing}" for name, nothing in _LISTS.items() if configured and _has(found, name)]
            configured = True
        name = option.removeprefix("--")
        for where, class_name in [*_named(found), (name, value)]:
            if class_name is not None and _CLASSES.match(where):
                _refuse_others(where, class_name)
        if name.rstrip("+") == "trainer.logger" and value is not None:
            kind = getattr(loggers, value.rpartition(".")[2], None)
            tokens = [*tokens, f"--trainer.logger.save_dir={RUN}"] if "save_dir" in _required(kind) else tokens
        if name in _LISTS and value is not None:
            result.append(f"--{name}={_LISTS[name]}")
        parts = [part for part in name.split(".") if part != "init_args"]
        if value == "null" and parts[0] in ("model", "data") and len(parts) > 2:
            nested: Any = None
            for part in reversed(parts[1:]):
                nested = {"init_args": {part: nested}}
            tokens = [f"--{parts[0]}={json.dumps(nested)}"]
        result += tokens
    return result


def typed_options(args: list[str]) -> list[str]:
    """Names of what was typed, without what stands in files.

    >>> typed_options(["fit", "--config=a.yaml", "--model.lr_g", "0.1", "--dry_run"])
    ['config', 'model.lr_g', 'dry_run']
    """
    return [option[2:] for option, *_ in _options(args) if option.startswith("--")]


def given_values(args: list[str]) -> dict[tuple[str, ...], Any]:
    """What a user has given of the model and the data, by path.

    Shape and number of classes of a network in a file are not among them, nor what it has for a latent_dim that another
    takes the place of: a recipe, or the configuration of a run, goes with any data.

    >>> given_values(["fit", "--model.generator.num_classes=3", "--data", "Ring"])
    {('model', 'generator', 'num_classes'): 3, ('data',): 'Ring'}
    """
    found: dict[tuple[str, ...], Any] = {}
    typed: dict[tuple[str, ...], Any] = {}
    sources = []
    for option, value, _ in _options(args):
        if value is None:
            continue
        if option in ("-c", "--config"):
            leaves = dict(_leaves(_read_config(shipped(value))))
            of_data = {p for p in leaves if p[-1] == "num_classes" or (p[-1] == "shape" and len(p) == 3)}
            sources.append({p: leaves[p] for p in leaves.keys() - of_data})  # below a wrapper samples may be packed
        elif option.startswith(("--model", "--data")):
            path = tuple(part for part in option[2:].split(".") if part != "init_args")
            with suppress(yaml.YAMLError):  # which the parser refuses
                typed |= _leaves(yaml.safe_load(value), path)
    for source in [*sources, typed]:
        if any(path[:2] == ("model", "groups") for path in source):
            found = {path: value for path, value in found.items() if path[-1] != "groups"}
        if (latent := ("model", "latent_dim")) in source and latent in found:
            z = found[latent]
            found = {path: value for path, value in found.items() if path[-1] != "latent_dim" or value != z}
        found |= source
    return found


def all_shipped(args: list[str]) -> bool:
    """Whether no configuration is the user's own: what only recipes say, nobody has asked for."""
    files = [value for option, value, _ in _options(args) if option in ("-c", "--config") and value is not None]
    shelf = RECIPES.resolve()
    return all(not inline(value) and shelf in Path(shipped(value)).resolve().parents for value in files)


def _leaves(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value of model and data in a configuration, with its path, in which no ``init_args`` are told."""
    if not isinstance(config, dict):
        yield path, config
        return
    for key, value in config.items():
        if path or key in ("model", "data"):
            yield from _leaves(value, path if key == "init_args" else (*path, str(key)))


def spread(args: list[str], option: str, brackets: bool = False) -> list[str]:
    """The same, with the values of an option, given as words or in brackets, in one of these forms, behind the others.

    >>> spread(["--m", "js", "bleu", "--out", "a"], "--m", brackets=True), spread(["--m=[js, bleu]"], "--m")
    (['--out', 'a', '--m=[js, bleu]'], ['--m', 'js', 'bleu'])
    """
    others: list[str] = []
    values: list[str] | None = None
    own = False
    for arg in args:
        name, _, value = arg.partition("=")
        if arg.startswith("--"):
            own, arg = name == option, value if name == option else arg
        if own:
            values = [*(values or []), *re.findall(r"""[^\s,'"[\]]+""", arg)]
        else:
            others.append(arg)
    if values is None:
        return others
    return [*others, f"{option}=[{', '.join(values)}]"] if brackets and values else [*others, option, *values]


def _options(args: list[str]) -> Iterator[tuple[str, str | None, list[str]]]:
    """Name, value (None where there is none) and tokens of each option."""
    i = 0
    while i < len(args):
        name, equals, value = args[i].partition("=")
        if equals or not name.startswith("-") or i + 1 == len(args) or args[i + 1].startswith("-"):
            yield name, value if equals else None, args[i : i + 1]
            i += 1
        else:
            yield name, args[i + 1], args[i : i + 2]
            i += 2


def _read_config(given: str) -> dict[str, Any]:
    """The configuration in a file, or the one that is given itself; {} for a file that is not there."""
    path = Path(given)
    try:
        there = path.is_file()
    except OSError:  # too long for a name: it is a configuration
        there = False
    if not there and not given.lstrip().startswith("{"):
        return {}
    try:
        text = path.read_text() if there else given
        found = yaml.safe_load(text)
    except UnicodeDecodeError:
        raise SystemExit(f"error: --config {given} must be a text file, got something else.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = str(getattr(error, "problem", None) or error).splitlines()[0]
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        tab = mark is not None and text.splitlines()[mark.line : mark.line + 1] and "\t" in text.splitlines()[mark.line]
        raise SystemExit(
            f"error: --config {given} must be YAML, got {'a tab' if tab else repr(what)}{place}"
            f"{'; YAML indents by spaces' if tab else ''}."
        ) from None
    if not isinstance(found, dict):
        what = "an empty file" if found is None else f"a {type(found).__name__}"
        raise SystemExit(f"error: --config {given} must hold options by name, such as model and data, got {what}.")
    return found


def _has(config: Any, dotted: str) -> bool:
    for part in dotted.split("."):
        config = config.get(part) if isinstance(config, dict) else None
        if isinstance(config, dict) and "init_args" in config:
            config = config["init_args"]
    return isinstance(config, list)


def _named(config: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Each class of a configuration, as it is named there, with the option it stands at."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "class_path" and isinstance(value, str):
                yield where, value
            elif key == "init_args":
                yield from _named(value, where)
            else:
                yield from _named(value, f"{where}.{key}".lstrip("."))
    elif isinstance(config, list):
        for value in config:
            yield from _named(value, where)


def _refuse_others(where: str, name: str) -> None:
    """SystemExit for the bare name of a network that only torchvision has: it would be taken."""
    if not name.isidentifier():
        return
    homes, classes = set(), [nn.Module]
    while classes:
        new = classes.pop().__subclasses__()
        classes += new
        homes |= {f"{c.__module__.removesuffix('.' + name.lower())}.{name}" for c in new if c.__name__ == name}
    if homes and all(home.startswith("torchvision.") for home in homes):
        ours = [n for package in _PACKAGES for n in package.__all__]
        near = [n for n in ours if name.lower() in n.lower()] or difflib.get_close_matches(name, ours, n=3, cutoff=0.6)
        hint = f": did you mean {', '.join(near[:3])}?" if near else "."
        home = min(homes)
        raise SystemExit(
            f"error: --{where} must be a class of this library or a full path, as {home}, got {name}{hint}"
        )


def _own_defaults(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    """Of another class's arguments keep what the new one must be given, and whether it is conditional.

    jsonargparse keeps all that the new class takes, too.
    """
    _DISCARD(parser_or_action, prev_val, value)
    if not prev_val or "init_args" not in prev_val or prev_val["class_path"] == value["class_path"]:
        return
    needed = _required(pkgutil.resolve_name(str(value["class_path"]))) | {"num_classes"}
    for key in list(vars(prev_val["init_args"])):
        if key not in needed:
            prev_val["init_args"].pop(key)


@functools.cache
def _required(of: Any) -> frozenset[str]:
    """Names of what a class, or function, cannot be called without."""
    has_default: dict[str, bool] = {}
    for owner in inspect.getmro(of) if inspect.isclass(of) else (of,):
        with suppress(TypeError, ValueError):
            call = vars(owner)["__init__"] if inspect.isclass(owner) and "__init__" in vars(owner) else owner
            for name, p in inspect.signature(call).parameters.items() if call is not object else ():
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                    has_default.setdefault(name, p.default is not p.empty)
    return frozenset(name for name, default in has_default.items() if not default)


def _by_name(cls: Any, name: str) -> str:
    """Full name of the class that is meant by a bare one: what jsonargparse finds, in a hundredth of its time.

    Where torch has one of the same name (`Adam`) it is ours. Jsonargparse asks for each of the thousand networks that
    there are where it can be imported from.
    """
    classes = [cls] if inspect.isclass(cls) and name.isidentifier() else []
    found = {c for c in classes if c.__name__ == name}
    while classes:
        new = [c for c in type.__subclasses__(classes.pop()) if "<locals>" not in c.__qualname__]
        classes += new
        found |= {c for c in new if c.__name__ == name}
    found = {c for c in found if c.__module__.startswith("lightning_gans.")} or found  # ours before torch's
    if len(found) == 1 and not inspect.isabstract(only := found.pop()):
        home = f"{only.__module__}.{only.__qualname__}"
        if "._" not in home and getattr(sys.modules.get(only.__module__), name, None) is only:
            return jsonargparse._typehints.get_import_path(only) or home
    return _RESOLVE(cls, name)  # none, several, or an odd one, of which it tells


_DISCARD = jsonargparse._typehints.discard_init_args_on_class_path_change
jsonargparse._typehints.discard_init_args_on_class_path_change = _own_defaults
_RESOLVE = instead("resolve_class_path_by_name", _by_name, jsonargparse._typehints)
