"""Heavy packages are imported where they are used: who trains a GAN does not wait for what draws or parses.

That an import works without them is tried in test_lightning.py, where a fresh process is at hand.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("matplotlib", "plotly", "sklearn", "jsonargparse", "torch_fidelity")
MAY = ("lightning_gans/cli/", "lightning_gans/visualization/")
FILES = [p for folder in ("lightning_gans", "datamodules", "callbacks") for p in sorted((ROOT / folder).rglob("*.py"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]


def at_the_top(path: Path) -> set[str]:
    """Packages that are imported when the file is: not inside a function, nor for a type checker alone."""
    found = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(MAY)])
def test_no_heavy_package_at_the_top(name: str) -> None:
    assert not at_the_top(ROOT / name) & set(HEAVY)


def test_what_the_top_is(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    lines = ["import a.b", "if TYPE_CHECKING:", "    import c", "else:", "    from d.e import f"]
    lines += ["class G:", "    import h", "def i():", "    import j"]
    lines += ["try:", "    import k", "except ImportError:", "    import l"]
    path.write_text("\n".join(lines))
    assert at_the_top(path) == {"a", "d", "h", "k", "l"}
