"""The examples in docstrings say what happens."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_gans.compat.lightning import pl
from website.docstrings import runnable

ROOT = Path(__file__).parent.parent
TOP = ("callbacks", "datamodules")  # folders beside the package, whose modules are lightning_gans.callbacks.x
FOLDERS = ("diagnostics", "engine", "functional", "metrics", "networks", "nonadversarial", "optim", "regularizers",
           "runs", "samplers", "stages", "techniques", "tools", "visualization", "wrappers")  # fmt: skip
WHOLE = ("callbacks", "datamodules", "functional", "metrics", "networks", "nonadversarial", "optim", "regularizers",
         "samplers", "stages", "techniques", "tools", "wrappers")  # fmt: skip
EXCUSED = {
    "guided_scores": "trains a judge on 15,000 images, and keeps it in the user's cache",
    "load_from_hub": "asks the Hub",
}


def examples() -> Iterator[tuple[str, str, str]]:
    """Module, name and docstring of whatever has an example."""
    folders = [*(ROOT / "lightning_gans" / name for name in FOLDERS), *(ROOT / name for name in TOP)]
    for path in sorted(p for folder in folders for p in folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts if parts[0] == "lightning_gans" else ("lightning_gans", *parts))
        for node in ast.walk(ast.parse(path.read_text())):
            documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            if documented and ">>>" in (text := ast.get_docstring(node) or ""):
                yield module, getattr(node, "name", path.stem), text


@pytest.mark.parametrize(("module", "name", "text"), [pytest.param(*found, id=found[1]) for found in examples()])
def test_an_example_says_what_happens(module: str, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is pasted, with the imports that the site shows before it."""
    monkeypatch.setattr(pl.callbacks.TQDMProgressBar, "is_disabled", True)  # it prints to stdout
    scope = {"__name__": "__main__"}
    told: list[str] = []
    runner = doctest.DocTestRunner()
    text = runnable(text, Path(str(importlib.import_module(module).__file__)), module)
    runner.run(doctest.DocTestParser().get_doctest(text, scope, name, module, 0), out=told.append)
    assert runner.tries and not runner.failures, "".join(told)


@pytest.mark.parametrize("folder", WHOLE)
def test_whatever_is_exported_has_an_example(folder: str) -> None:
    package = importlib.import_module(f"lightning_gans.{folder}")
    exported = {name: getattr(package, name) for name in package.__all__}
    called = {name: thing for name, thing in exported.items() if inspect.isclass(thing) or inspect.isroutine(thing)}
    assert called
    assert {name for name, thing in called.items() if ">>>" not in (thing.__doc__ or "")} == EXCUSED.keys() & called
