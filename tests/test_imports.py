"""Who may import whom, and that nothing private of Lightning's is used."""

from __future__ import annotations

import ast
import sys
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

# Who may import whom: a name stands for itself and all below it. The longest key that fits a module holds for it.
FLOOR = {"compat", "checks", "version", "runs.atomic"}  # nothing of ours above them, and everybody may use them
FIRST = {f"engine.{name}" for name in ("averages", "batch", "player", "progress", "graphs", "rng", "distributed",
                                       "frozen", "contract", "monitors", "loggers", "shortcuts", "own_code", "hooks",
                                       "validation")}  # fmt: skip
SECOND = {
    f"engine.{name}"
    for name in (
        "step",
        "run",
        "resume",
        "logbook",
        "settings",
        "sampling",
        "stream",
        "first_batch",
        "symbols",
        "connection",
    )
}
MATHS = {"functional", "optim", "regularizers.regularizer"}
FOR_MODELS = {"functional", "regularizers", "wrappers", "networks", "metrics.extractors", "runs.load"}
FOR_MODELS |= {f"engine.{name}" for name in ("batch", "player", "frozen", "contract", "sample_weights")}
LIBRARY = {"functional", "networks", "wrappers", "regularizers", "optim", "metrics", "engine", "gan", "techniques",
           "nonadversarial", "samplers", "visualization", "runs", "datamodules"}  # fmt: skip
RULES: dict[str, set[str]] = {
    **{key: {"compat", "version"} for key in FLOOR},
    "functional": set(),
    "networks": set(),
    "networks.text": {"functional.text"},
    "networks.style": {"functional.numerics"},  # whose running means keep their bits
    "networks.random_features": {"functional.numerics"},  # where Python may ask a tensor
    "networks.rel_gan": {"functional.text", "functional.numerics"},  # what stays in full precision
    "networks.leak_gan": {f"functional.{name}" for name in ("text", "goals", "modes")},  # what it reads, and aims at
    "networks.recomputed": {"functional.modes"},  # whether a layer's call is more than its forward
    "networks.language": {"functional.text"},  # one draw of tokens for all that make them
    "networks.style_transfer": {"functional.text"},
    "wrappers": {"functional"},
    "regularizers": {"functional"},
    "optim": {"functional"},
    "metrics": {"functional", "networks"},
    **{key: FIRST | MATHS for key in FIRST},
    **{key: FIRST | SECOND | MATHS for key in SECOND},
    "engine": FIRST | SECOND | MATHS | {"engine.module"},
    "gan": {"engine", "regularizers", "functional"},
    "techniques": FOR_MODELS | {"gan", "optim"},
    "nonadversarial": FOR_MODELS | {"engine.module", "optim"},
    "samplers": {"engine.contract", "engine.frozen", "engine.batch", "functional"},
    "samplers.latent_langevin": {"functional", "networks.style"},  # which scores are of groups of samples
    "visualization": {"functional.pixels"},
    "runs": {"gan", "engine", "regularizers", "functional.text"},
    "datamodules": {"functional"},
    "datamodules.toy_text": {"functional", "networks.language"},  # an oracle is a language model
    "stages": LIBRARY | {"callbacks"},
    "diagnostics": LIBRARY,
    "tools": LIBRARY | {"diagnostics"},
    "callbacks": {"engine", "metrics", "samplers", "visualization", "diagnostics", "runs", "functional", "regularizers",
                  "gan"},
}  # fmt: skip
SIBLINGS = {"runs.atomic", "engine"}  # of which it is said above who of their own folder they may import
OTHERS: dict[str, set[str]] = {  # packages beside Python's own
    "compat": {"lightning", "pytorch_lightning", "torch"},
    "engine": {"lightning_utilities", "numpy", "torch"},
    "runs": {"numpy", "torch", "yaml"},
    "metrics": {"geomloss", "numpy", "scipy", "torch", "torchmetrics", "torch_fidelity", "tqdm"},
    "samplers": {"sklearn", "torch", "tqdm"},
    "datamodules": {"datasets", "numpy", "PIL", "sklearn", "torch", "torchvision", "tqdm"},
    "visualization": {"matplotlib", "numpy", "PIL", "plotly", "torch"},
    "callbacks": {"matplotlib", "mpl_toolkits", "numpy", "PIL", "torch", "torchvision", "tqdm", "wandb"},
    "diagnostics": {"numpy", "PIL", "scipy", "torch", "tqdm"},
    "tools": {
        "huggingface_hub",
        "numpy",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "PIL",
        "torch",
        "torchmetrics",
        "tqdm",
        "wandb",
        "wandb_workspaces",
        "yaml",
    },
}
ANYTHING = {"__init__", "cli"}  # these may import all of the library
DOOR = "lightning_gans.compat.lightning"  # through which Lightning is reached
PYTHONS = {"_actions", "_asdict", "_fields", "_getframe", "_replace"}  # of argparse, NamedTuple and sys
TORCHS = {
    "_C",
    "_are_functorch_transforms_active",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_buffers",
    "_foreach_add_",
    "_foreach_addcdiv_",
    "_foreach_addcmul_",
    "_foreach_clamp_max_",
    "_foreach_clamp_min_",
    "_foreach_mul_",
    "_foreach_sqrt",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_fused_adam_",
    "_global_optimizer_post_hooks",
    "_global_optimizer_pre_hooks",
    "_has_any_global_hook",
    "_is_view",
    "_modules",
    "_optimizer_step_post_hooks",
    "_optimizer_step_pre_hooks",
    "_profiler_enabled",
    "_version",
}  # no public way is known


@cache
def modules() -> list[tuple[str, Path]]:
    """Dotted name and file of every module of the library."""
    return [
        (".".join([package, *path.relative_to(folder).with_suffix("").parts]), path)
        for package, folder in FOLDERS.items()
        for path in sorted(folder.rglob("*.py"))
    ]


def part(name: str) -> str:
    """``lightning_gans.networks.mlp`` -> ``networks``."""
    return [*name.split("."), "__init__"][1]


@cache
def known() -> frozenset[str]:
    return frozenset(name.removesuffix(".__init__") for name, _ in modules())


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all modules that a file imports, inside functions and for type checkers too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, line {node.lineno}"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known() else str(node.module) for name in inside}
    return frozenset(names)


def below(name: str, parts: set[str]) -> bool:
    """Whether a dotted name is one of these or lies in one of them."""
    return any(f"{name}.".startswith(f"{part}.") for part in parts)


def rule(name: str) -> str:
    """The key of RULES that holds for a module: the longest that it lies in."""
    return max((key for key in RULES if below(name, {key})), key=len)


def short(name: str) -> str:
    return name.removeprefix("lightning_gans.").removesuffix(".__init__")


def test_the_rules_are_about_the_library_that_is_there() -> None:
    parts = {part(name) for name, _ in modules()}
    assert {"functional", "networks", "datamodules", "callbacks", "engine", "gan", "cli"} <= parts
    assert parts <= {key.split(".")[0] for key in RULES} | ANYTHING, "a new part: say in RULES what it may import"
    files = {short(name) for name, _ in modules() if part(name) == "engine"} - {"engine"}
    assert files >= FIRST | SECOND and files - FIRST - SECOND <= {"engine.module", "engine.sample_weights"}


@pytest.mark.parametrize("name", [name for name, _ in modules() if part(name) not in ANYTHING])
def test_imports_go_one_way(name: str) -> None:
    path, own = dict(modules())[name], part(name)
    key = rule(short(name))
    allowed = RULES[key] | FLOOR | (set() if below(key, SIBLINGS) else {own})
    if key == "techniques" and name.endswith("__init__"):
        allowed = {"techniques", "gan"}
    for imported in imports(path):
        top = imported.split(".")[0]
        if imported == "lightning_gans.__version__" or imported == "lightning_gans":
            assert own in ("callbacks", "runs", "tools"), f"{name} must not import the package itself"
        elif top == "lightning_gans":
            assert below(short(imported), allowed), f"{name} must not import {imported}"
        else:
            assert top in sys.stdlib_module_names or top in OTHERS.get(own, {"torch"}), f"{name}: {imported}"


def test_no_circle() -> None:
    """Not even inside of functions or under TYPE_CHECKING."""
    graph = {name.removesuffix(".__init__"): {i for i in imports(path) if i in known()} for name, path in modules()}
    graph["lightning_gans"] = set()  # the package itself imports its parts, which do not import it
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", [name for name, _ in modules() if name != DOOR])
def test_lightning_is_reached_through_one_module(name: str) -> None:
    found = {i for i in imports(dict(modules())[name]) if i.split(".")[0] in ("lightning", "pytorch_lightning")}
    assert not found, f"{name} imports {found}: take it from {DOOR}"


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


@pytest.mark.parametrize("name", [name for name, _ in modules() if name != DOOR])
def test_nothing_private_of_lightning_is_used(name: str) -> None:
    """A private attribute is one that we define ourselves, or torch's (`nn.modules.batchnorm._BatchNorm`).

    Or jsonargparse's, which has no public way to say what a class that replaces another inherits; and what a
    `ModelCheckpoint` has no hook for, in one place, which does without where it is not there.
    """
    ours, files = own_private_names(), {path.stem for _, path in modules()}
    for node in ast.walk(ast.parse(dict(modules())[name].read_text())):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            theirs = {"trainer", "strategy", "pl", "pl_cli", "callbacks", "loggers", "strategies", "utilities"}
            assert not theirs & set(owner.split(".")), f"{name}, line {node.lineno}: {owner}.{node.attr}"
            assert node.attr in ours | PYTHONS | TORCHS or owner.startswith(("nn.", "jsonargparse")), (
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
    files = [ROOT / "lightning_gans" / name for name in ("gan.py", "engine/module.py", "engine/sampling.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    assigned = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    assert assigned & vars(module).keys() > {"_joint", "_pair", "_resumed"}
    assert not private(assigned) & (set(vars(plain)) | set(dir(base)))


def check_class(cls: type) -> None:
    own = [c for c in cls.__mro__ if c.__module__.startswith("lightning_gans")]
    bases = [c for c in cls.__mro__ if c.__module__.startswith(("pytorch_lightning", "lightning."))]
    defined = private(name for c in own for name in vars(c) if not name.startswith("_abc"))
    assert not defined & private(name for c in bases for name in dir(c)), cls
