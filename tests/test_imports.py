"""Who may import whom, and that nothing private of Lightning's is used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from common import make, trainer

from lightning_gans import callbacks, datamodules
from lightning_gans.gan import GANModule
from lightning_gans.runs.metrics_csv import MetricsCSV

ROOT = Path(__file__).parent.parent
FOLDERS = {"lightning_gans": ROOT / "lightning_gans", "lightning_gans.datamodules": ROOT / "datamodules",
           "lightning_gans.callbacks": ROOT / "callbacks"}  # fmt: skip

# Part of the library -> parts of it that it may import, and other packages (beside Python's own).
CORE = {"checks", "engine", "gan", "runs"}
LIGHTNING = {"compat"}
FLOOR = LIGHTNING | {"checks", "version"}  # everybody may use these, and runs.atomic
ANY = {p.name for p in (ROOT / "lightning_gans").iterdir() if p.is_dir()} | {"gan", "datamodules"}
RULES: dict[str, tuple[set[str], set[str]]] = {
    "functional": (set(), {"torch"}),
    "networks": (set(), {"torch"}),
    "wrappers": ({"functional"}, {"torch"}),
    "optim": (set(), {"torch"}),
    "regularizers": ({"functional"}, {"torch"}),
    "metrics": ({"networks"}, {"numpy", "scipy", "torch", "torchmetrics", "torch_fidelity", "tqdm"}),
    "samplers": ({"functional"}, {"sklearn", "torch", "tqdm"}),
    "techniques": ({"engine", "functional", "gan", "regularizers", "runs", "wrappers"}, {"torch"}),
    "nonadversarial": ({"engine", "functional", "networks", "regularizers", "runs", "wrappers"}, {"torch"}),
    "datamodules": ({"functional"}, {"numpy", "PIL", "sklearn", "torch", "torchvision", "tqdm"}),
    "visualization": (set(), {"matplotlib", "numpy", "PIL", "torch"}),
    "callbacks": (
        {"diagnostics", "engine", "functional", "gan", "metrics", "samplers", "visualization"},
        {"matplotlib", "mpl_toolkits", "numpy", "PIL", "torch", "torchvision", "tqdm", "wandb"},
    ),
    **{
        core: (CORE | {"functional", "regularizers"}, {"lightning_utilities", "numpy", "torch", "yaml"})
        for core in CORE
    },
    "diagnostics": (ANY - {"callbacks", "cli", "tools"}, {"numpy", "PIL", "scipy", "torch", "tqdm"}),
    "tools": (
        ANY - {"callbacks", "cli"},
        {"huggingface_hub", "numpy", "onnx", "onnxruntime", "onnxscript", "PIL", "torch", "torchmetrics", "tqdm"},
    ),
    "stages": (ANY - {"callbacks", "cli", "tools"}, {"torch"}),
    "compat": (set(), {"lightning", "pytorch_lightning", "torch"}),
    "version": (set(), set()),
}
ANYTHING = {"__init__", "cli"}  # these may import all of the library
PYTHONS = {"_actions", "_asdict", "_fields", "_replace"}  # of argparse and NamedTuple
TORCHS = {"_C", "_are_functorch_transforms_active", "_is_view"}  # no public way is known


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of the library."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            yield ".".join([package, *path.relative_to(folder).with_suffix("").parts]), path


def part(name: str) -> str:
    """``lightning_gans.networks.mlp`` -> ``networks``."""
    return [*name.split("."), "__init__"][1]


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from walk(child)


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, inside functions too; ``lightning_gans.x`` for names of the package."""
    names = set()
    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, line {node.lineno}"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "lightning_gans" else {module}
    return names


def test_the_rules_are_about_the_library_that_is_there() -> None:
    parts = {part(name) for name, _ in modules()}
    assert {"functional", "networks", "datamodules", "callbacks", "engine", "gan", "cli"} <= parts
    assert parts <= RULES.keys() | ANYTHING, "a new part of the library: say in RULES what it may import"


@pytest.mark.parametrize("name", [name for name, _ in modules()])
def test_imports_go_one_way(name: str) -> None:
    path, own = dict(modules())[name], part(name)
    if own in ANYTHING:
        return
    ours, others = RULES[own]
    for imported in imports(path):
        top = imported.split(".")[0]
        if top == "lightning_gans":
            wanted = part(imported)
            if wanted == "__version__":
                wanted = "version"
            floor = wanted in FLOOR or imported == "lightning_gans.runs.atomic"
            assert floor or wanted in ours | {own}, f"{name} must not import {imported}"
        else:
            assert top in sys.stdlib_module_names or top in others, f"{name} must not import {imported}"


@pytest.mark.parametrize("name", [name for name, _ in modules()])
def test_lightning_is_reached_through_one_module(name: str) -> None:
    if name != "lightning_gans.compat.lightning":
        found = {i for i in imports(dict(modules())[name]) if i.split(".")[0] in ("lightning", "pytorch_lightning")}
        assert not found, f"{name} imports {found}: take it from lightning_gans.compat.lightning"


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@cache
def own_private_names() -> set[str]:
    """Private names that the library itself defines: functions, classes, methods, variables and attributes of self."""
    names: set[str] = set()
    for _, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return {name for name in names if is_private(name)}


@pytest.mark.parametrize("name", [name for name, _ in modules()])
def test_nothing_private_of_lightning_is_used(name: str) -> None:
    """A private attribute is one that we define ourselves, or torch's (`nn.modules.batchnorm._BatchNorm`)."""
    ours, files = own_private_names(), {path.stem for _, path in modules()}
    for node in ast.walk(ast.parse(dict(modules())[name].read_text())):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            theirs = {"trainer", "strategy", "pl", "pl_cli", "callbacks", "loggers", "strategies", "utilities"}
            assert not theirs & set(owner.split(".")), f"{name}, line {node.lineno}: {owner}.{node.attr}"
            assert node.attr in ours | PYTHONS | TORCHS or owner.startswith("nn."), (
                f"{name}, line {node.lineno}: {owner}.{node.attr}"
            )
        elif isinstance(node, ast.ImportFrom):
            private = [alias.name for alias in node.names if is_private(alias.name)]
            private = [n for n in [*private, *(node.module or "").split(".")] if is_private(n)]
            assert set(private) <= ours | files, f"{name}, line {node.lineno}: imports {private}"


def private(names: object) -> set[str]:
    return {name for name in names if is_private(name)}  # type: ignore[attr-defined]


def test_our_private_names_do_not_hide_lightnings() -> None:
    """A subclass that happens to set, say, ``_fabric`` would break its base class."""
    for package in (callbacks, datamodules):
        for cls in (getattr(package, n) for n in package.__all__):
            if isinstance(cls, type):
                check_class(cls)
    check_class(MetricsCSV)
    check_class(GANModule)
    module = make("wgan_gp")
    trainer(max_steps=1).fit(module, train_dataloaders=torch.utils.data.DataLoader(torch.randn(40, 2), 4))  # type: ignore[arg-type]
    base = next(c for c in GANModule.__mro__[1:] if not c.__module__.startswith("lightning_gans"))
    plain = base()
    tree = ast.parse((ROOT / "lightning_gans" / "gan.py").read_text())
    assigned = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    assert assigned & vars(module).keys() > {"_rng", "_stream"}
    assert not private(assigned) & (set(vars(plain)) | set(dir(base)))


def check_class(cls: type) -> None:
    own = [c for c in cls.__mro__ if c.__module__.startswith("lightning_gans")]
    bases = [c for c in cls.__mro__ if c.__module__.startswith(("pytorch_lightning", "lightning."))]
    defined = private(name for c in own for name in vars(c) if not name.startswith("_abc"))
    assert not defined & private(name for c in bases for name in dir(c)), cls
