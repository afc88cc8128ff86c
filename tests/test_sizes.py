"""No file grows beyond what one reads at a sitting: lines of code, without blanks, comments, docstrings and imports."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "lightning_gans"
MODELS = [*(LIBRARY / "techniques").glob("*.py"), *(LIBRARY / "nonadversarial").glob("*.py")]
TECHNIQUES = sorted(p for p in MODELS if p.name != "__init__.py")
GRANTED: dict[str, int] = {
    "ddpm": 110,
    "exemplar_vae": 105,
    "gan_control": 110,
    "stylex": 105,
    "vaebm": 110,
}  # at most 110
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
           tokenize.ENCODING}  # fmt: skip


def lines_of_code(text: str) -> int:
    """Lines that hold more than a comment, a docstring or an import."""
    lines: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(text.encode()).readline):
        if token.type not in NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_what_is_counted() -> None:
    text = '"""Two\nlines."""\n\nimport a\nfrom b import (\n    c,\n)\n\n\n# a comment\ndef f(  # another\n    x,\n):\n'
    assert lines_of_code(text + '    """Doc."""\n\n    return """a\n\n    b"""  # three\n') == 6


@pytest.mark.parametrize("path", TECHNIQUES, ids=lambda path: path.stem)
def test_a_technique_is_short(path: Path) -> None:
    assert lines_of_code(path.read_text()) <= GRANTED.get(path.stem, 80)


def test_grants_are_few_and_needed() -> None:
    needed = {path.stem for path in TECHNIQUES if lines_of_code(path.read_text()) > 80}
    assert needed == GRANTED.keys() and all(limit <= 110 for limit in GRANTED.values())


@pytest.mark.parametrize("path", [LIBRARY / "gan.py", *sorted((LIBRARY / "engine").glob("*.py"))],
                         ids=lambda path: path.stem)  # fmt: skip
def test_the_engine_is_in_small_parts(path: Path) -> None:
    assert lines_of_code(path.read_text()) <= 200


def test_few_files_lie_at_the_top() -> None:
    assert len(list(LIBRARY.glob("*.py"))) <= 5
