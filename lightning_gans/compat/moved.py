"""Old names of modules: made on demand, with one warning each, so that scripts, configurations and checkpoints go on.

What is found under an old name is the same object as under the new one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

# Old name -> the modules that have its contents now, all within the package; of several, the first that has a name.
MOVED: dict[str, tuple[str, ...]] = {
    "_lightning": ("compat.lightning",),
    "_torchvision": ("compat.torchvision",),
    "base": ("gan", "engine.batch", "engine.frozen", "engine.player", "functional.modes"),
    "callbacks.image_logging": ("visualization.images", "callbacks.probe"),
    "card": ("runs.card",),
    "checkpoints": ("runs.checkpoints",),
    "cli.runs": ("runs.folder",),
    "distributed": ("engine.distributed",),
    "functional.first_order": ("functional.double_backward.first_order",),
    "functional.input_gradient": ("functional.double_backward.input_gradient",),
    "functional.sparse": ("functional.double_backward.sparse",),
    "graphs": ("engine.graphs",),
    "loading": ("runs.load",),
    "loggers": ("runs.metrics_csv",),
    "rng": ("engine.rng",),
    "rounds": ("stages",),
    "sample_weights": ("engine.sample_weights",),
    "stream": ("engine.stream",),
    "tools.latent_directions": (
        "diagnostics.latent_directions",
        "diagnostics.direction_measures",
        "callbacks.direction_charts",
    ),
}
_PACKAGE = __name__.partition(".")[0]


class OldNames(Loader):
    """Python's finder and loader of modules under their old names; asked last, so that a real module goes before."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """A specification, if it is an old name."""
        package, _, rest = name.partition(".")
        known = package == _PACKAGE and rest in MOVED
        return importlib.util.spec_from_loader(name, OldNames()) if known else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the real module in place of an empty one, or the contents of several into it."""
        old = module.__name__
        now = [f"{_PACKAGE}.{name}" for name in MOVED[old.removeprefix(f"{_PACKAGE}.")]]
        warnings.warn(f"{old} has moved to {', '.join(now)}.", DeprecationWarning, stacklevel=2)
        found = [importlib.import_module(name) for name in now]
        if len(found) == 1:
            sys.modules[old] = found[0]
        for part in reversed(found):
            vars(module).update({name: value for name, value in vars(part).items() if not name.startswith("__")})


def install() -> None:
    """Let the old names be imported."""
    if OldNames not in sys.meta_path:
        sys.meta_path.append(OldNames)


def attribute(name: str) -> ModuleType:
    """``lightning_gans.base`` and the like, which were there without an import of their own."""
    if name in MOVED and not name.startswith("_"):
        return importlib.import_module(f"{_PACKAGE}.{name}")
    raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
