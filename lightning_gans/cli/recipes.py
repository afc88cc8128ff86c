"""The recipes that are shipped: where they lie, which one a name means, and what they cost."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import lightning_gans
from lightning_gans.cli.plan import duration
from lightning_gans.compat.shell import usage

_PACKAGE = Path(lightning_gans.__file__).parent
# In a wheel inside of the package; in a clone, and in an editable install of one, beside it.
RECIPES = next((f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir()), _PACKAGE / "configs")
COSTS = RECIPES / "costs.json"
MAIN = "digits/wgan_gp"  # what ``fit`` alone does


def names() -> list[str]:
    """All of them, as ``ring/wgan_gp``."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml"))


def shipped(given: str) -> str:
    """The file that a ``--config`` means: as it is given if there is one, or else a recipe of that name.

    ``ring/wgan_gp``, ``ring/wgan_gp.yaml`` and ``configs/ring/wgan_gp.yaml`` are one.

    Raises:
        SystemExit: a name like those of recipes that none has.
    """
    if inline(given) or Path(given).is_file():
        return given
    name = given.removeprefix("configs/").removesuffix(".yaml")
    if name in (known := names()):
        return str(RECIPES / f"{name}.yaml")
    if re.fullmatch(r"[\w-]+(/[^/]+)?", name) and not given.endswith((".yaml", ".yml")):
        near = [recipe for recipe in known if name in recipe.split("/")][:3]
        near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f": did you mean {', '.join(near)}?" if near else " (`recipes` lists them)."
        raise SystemExit(f"error: --config must be a file or a recipe, got {given}{hint}")
    return given


def inline(given: str) -> bool:
    """Whether a ``--config`` is the configuration itself, and no file's name."""
    return "\n" in given or given.lstrip().startswith(("{", "["))


def unasked(sentence: str, args: list[str]) -> str:
    """Where parts of a configuration refuse what was asked for: whose they are, and what to type.

    These are parts of the recipe that ``fit`` alone begins with, and of any a monitor that nothing measures, scores by
    a classifier of labels that the data lack, and a path of images where nothing is.

    Args:
        sentence: of the error.
        args: of the command, with the recipe's file if nothing else was given.
    """
    monitor = re.search(r"^ModelCheckpoint: monitor must be .*got '(.+)', which nothing measures\.$", sentence)
    options = [(arg.partition("=")[0], arg.partition("=")[2] or then) for arg, then in zip(args, [*args[1:], ""])]
    typed = {option for option, _ in options}
    for file in [Path(value) for option, value in options if option in ("-c", "--config") and not inline(value)]:
        text = file.read_text() if file.is_file() else ""
        of = file.relative_to(RECIPES).with_suffix("").as_posix() if file.is_relative_to(RECIPES) else str(file)
        if (
            monitor
            and "--checkpoint.monitor" not in typed
            and re.search(rf"monitor: {re.escape(monitor[1])}(?![\w/-])", text)
        ):
            return f" It is that of {of}: give --checkpoint.monitor another, or null."
        missing = re.match(r"path (\S+) does not exist", sentence)
        if missing and not {"--data", "--data.path"} & typed and f"path: {missing[1]}" in text:
            return f" It is that of {of}: give --data.path."
        if "trained on the data set's labels, but there are none" in sentence and "GenerativeMetrics" in text:
            left = "EMA" if "EMA" in text else "null"
            hint = f"--trainer.callbacks {left} --checkpoint.monitor null trains without its scores"
            return "" if "--trainer.callbacks" in typed else f" It is part of {of}: {hint}."
    recipe = RECIPES / f"{MAIN}.yaml"
    parts = set(re.findall(r"class_path: (\w+)", recipe.read_text())) - {"WGANGP", "Digits"}
    named = {part for part in parts if part in sentence and not any(part in arg for arg in args)}
    if str(recipe) not in args or not named:
        return ""
    return f" It is part of {MAIN}, where a fit begins that is given no --config: `recipes` lists those of other data."


def recipes(args: list[str]) -> None:
    """``recipes``: what is shipped: technique, data, updates, and time and memory on one CPU core."""
    parser = argparse.ArgumentParser(usage("recipes"), description=recipes.__doc__)
    parser.add_argument("words", nargs="*", help="Only those with all of these in their lines.")
    own = parser.parse_args(args)
    lines = [line for line in table() if all(word.lower() in " ".join(line).lower() for word in own.words)]
    if not lines:
        known = {part.lower() for line in table() for part in re.split(r"\W", " ".join(line[:3]))}
        lost = [word.lower() for word in own.words if not any(word.lower() in part for part in known)]
        near = {word: found[0] for word in lost if (found := difflib.get_close_matches(word, known, n=1))}
        hint = "".join(f"; {word}: did you mean {found}?" for word, found in near.items()) or "."
        raise SystemExit(f"error: words must be in the line of a recipe, got {' '.join(own.words)}{hint}")
    head = ("recipe", "technique", "data", "updates", "CPU time", "memory")
    widths = [max(map(len, column)) for column in zip(head, *lines)]
    for line in [head, *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    if measured := _costs().get("measured"):
        print(f"\nCPU time of all updates, without scores and pictures; -: not measured. {measured}.")


def table() -> Iterator[tuple[str, ...]]:
    """A line for each."""
    known = _costs().get("recipes", {})
    for name in names():
        config = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        model, data = (str(config[part]["class_path"]).rpartition(".")[2] for part in ("model", "data"))
        inner = config["data"].get("init_args", {}).get("data")
        inner = inner["class_path"].rpartition(".")[2] if isinstance(inner, dict) else inner
        data = f"{data}({inner})" if inner else data
        cost: dict[str, Any] = known.get(name, {})
        took = "-" if "seconds" not in cost else duration(cost["seconds"])
        memory = "-" if "mib" not in cost else f"{cost['mib']:,.0f} MiB"
        yield name, model, data, f"{config['trainer']['max_steps']:,}", took, memory


def _costs() -> dict[str, Any]:
    return dict(json.loads(COSTS.read_text())) if COSTS.is_file() else {}
