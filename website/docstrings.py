"""Docstrings as Markdown, and what a technique's one says: its equation, defaults, departures and logged terms.

Files are read, not imported, so that neither torch nor mkdocs is needed.
"""

from __future__ import annotations

import ast
import doctest
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "lightning_gans"
SECTION = re.compile(r"^(Args|Raises|Attributes|Logged|Returns|Yields|Example):$")
LABELS = ("Departures", "Defaults", "When", "Logged", "Overrides")
ENTRY = re.compile(r"^([\w./<>-]+(?:, [\w./<>-]+)*): (.*)$")
EQUATION = re.compile(r"^\.\. math::[ ]*(.*(?:\n(?:[ ]+.*|(?=\n[ ])))*)", re.MULTILINE)
Function = ast.FunctionDef


def content(path: Path) -> str:
    """Of a text file of the repository, all of which are in UTF-8."""
    return path.read_text(encoding="utf-8")


def markdown(text: str) -> str:
    r"""RST of docstrings as Markdown: equations, roles, examples, and entries of logged terms as a list.

    >>> markdown("By :math:`x^2` of :class:`GAN`:\n\n.. math:: a \\le\n          b\n\n>>> 1 + 1\n2")
    'By \\(x^2\\) of `GAN`:\n\n\\[ a \\le b \\]\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    text = EQUATION.sub(lambda found: rf"\[ {' '.join(found[1].split())} \]", text)
    text = re.sub(r":math:`([^`]+)`", lambda found: rf"\({found[1]}\)", text)
    text = re.sub(r":(?:class|meth|func|mod|attr|exc):`~?([^`]+)`", r"`\1`", text)
    parts = re.split(r"(?m)^((?:>>> .*)(?:\n(?!\s*$).*)*)", text)
    parts[1::2] = [f"```pycon\n{part}\n```" for part in parts[1::2]]
    lines, inside = [], False
    for line in "".join(parts).split("\n"):
        inside = line == "Logged:" or (inside and (not line or line.startswith(" ")))
        entry = ENTRY.match(line.strip()) if inside and line.startswith("    ") and line[4:5] != " " else None
        lines.append(f"    - `{entry[1]}`: {entry[2]}" if entry else line)
    return "\n".join(lines)


@cache
def exports(package: str) -> dict[str, str]:
    """What the ``__init__`` of a package has: names, and the modules they come from."""
    parts = package.split(".")[1:]
    folder = ROOT / parts[0] if parts and parts[0] in ("callbacks", "datamodules") else LIBRARY.joinpath(*parts)
    tree = ast.parse(content(folder / "__init__.py"))
    return {a.asname or a.name: n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.module
            for a in n.names}  # fmt: skip


def home(name: str, module: str) -> str:
    """The shortest public place of what is defined in a module."""
    above = module.rpartition(".")[0]
    if above in ("lightning_gans.techniques", "lightning_gans.nonadversarial"):
        return "lightning_gans" if exports(above).get(name) == module else module
    return next((p for p in ("lightning_gans", above) if above and exports(p).get(name) == module), module)


@cache
def names(path: Path, module: str) -> dict[str, str]:
    """The names that a file has at its top, and the statements that import each elsewhere."""
    found = {}
    for node in ast.parse(content(path)).body:
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name: f"import {a.name}{f' as {a.asname}' * bool(a.asname)}" for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for a in node.names:
                place = home(a.name, node.module) if node.module.startswith("lightning_gans.") else node.module
                found[a.asname or a.name] = f"from {place} import {a.name}{f' as {a.asname}' * bool(a.asname)}"
        elif isinstance(node, (ast.ClassDef, Function)):
            found[node.name] = f"from {home(node.name, module)} import {node.name}"
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id: f"from {home(t.id, module)} import {t.id}" for t in targets if isinstance(t, ast.Name)}
    return found


def runnable(text: str, path: Path, module: str) -> str:
    """A docstring whose example begins with the imports that it has from its file, so that it can be pasted anywhere.

    >>> example = runnable(">>> F.relu(torch.ones(1))", LIBRARY / "functional" / "penalties.py", "m")
    >>> example.splitlines()
    ['>>> import torch', '>>> import torch.nn.functional as F', '>>> F.relu(torch.ones(1))']
    """
    if ">>> " not in text:
        return text
    code = ast.parse("".join(e.source for e in doctest.DocTestParser().get_examples(text)))
    used = {n.id for n in ast.walk(code) if isinstance(n, ast.Name)}
    own = {n.id for n in ast.walk(code) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {a.asname or a.name for n in ast.walk(code) if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names}
    known = names(path, module)
    lines = sorted({known[name] for name in used if name in known and name not in own}, key=lambda s: (s[0] == "f", s))
    merged: dict[str, str] = {}
    for line in lines:
        head, _, name = line.partition(" import ") if line.startswith("from") else (line, "", "")
        merged[head] = f"{merged[head]}, {name}" if head in merged else line
    before, after = text.split(">>> ", 1)
    indent = before[before.rfind("\n") + 1 :]
    return before + "".join(f">>> {line}\n{indent}" for line in merged.values()) + ">>> " + after


@dataclass
class Doc:
    """A docstring by its parts, as Markdown."""

    summary: str
    body: list[str] = field(default_factory=list)  # paragraphs that have no label, equations among them
    labelled: dict[str, str] = field(default_factory=dict)  # "Departures" and so on
    entries: dict[str, dict[str, str]] = field(default_factory=dict)  # "Args" and so on: name to meaning


def parse(text: str) -> Doc:
    """By its parts: sections of entries, and paragraphs (or what is left of one) that begin with a label."""
    doc, plain, section, last = Doc(""), [], "", ""
    for line in text.splitlines():
        if found := SECTION.match(line):
            section, last = found[1], ""
            doc.entries[section] = {}
        elif section and line.startswith("    "):
            found = ENTRY.match(line[4:]) if line[4] != " " else None
            last = found[1] if found else last
            doc.entries[section][last] = f"{doc.entries[section].get(last, '')} {found[2] if found else line.strip()}"
        elif line and not line.startswith(" "):
            section = ""
        if not section:
            plain.append(line)
    for entries in doc.entries.values():
        entries |= {name: markdown(meaning.strip()) for name, meaning in entries.items()}
    label = rf"(?:{'|'.join(LABELS)})\b"
    for paragraph in re.split(r"\n\s*\n(?! )", "\n".join(plain).strip()):
        text = paragraph if paragraph.startswith((".. ", ">>>", "- ")) else " ".join(paragraph.split())
        for part in re.split(rf"(?<=[.)]) (?={label})", text):
            found = re.match(rf"({label}):? ?", part)
            if found:
                told = part.removeprefix(f"{found[1]}: ")
                before = doc.labelled.get(found[1])
                doc.labelled[found[1]] = markdown(f"{before} {told}" if before else told)
            else:
                doc.body.append(markdown(part))
    doc.summary = doc.body.pop(0) if doc.body else ""
    return doc


@dataclass
class Technique:
    """A class of ``techniques`` or ``nonadversarial``, as its file says."""

    name: str
    path: Path
    head: str  # the first line of the file, with the paper
    bases: list[str]
    doc: Doc
    defaults: dict[str, str]  # of its own signature

    @property
    def stem(self) -> str:
        """The name of its file, and of its page."""
        return self.path.stem


def read(path: Path) -> list[Technique]:
    """The documented classes of a file."""
    tree = ast.parse(content(path))
    head = (ast.get_docstring(tree) or "").split("\n")[0]
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return [
        Technique(node.name, path, head, [ast.unparse(base) for base in node.bases],
                  parse(runnable(ast.get_docstring(node) or "", path, module)), _defaults(node))
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    ]  # fmt: skip


def _defaults(node: ast.ClassDef) -> dict[str, str]:
    for made in node.body:
        if isinstance(made, Function) and made.name == "__init__":
            a = made.args
            told = dict(
                zip([x.arg for x in (*a.posonlyargs, *a.args)][::-1], [ast.unparse(d) for d in a.defaults[::-1]])
            )
            return told | {x.arg: ast.unparse(d) for x, d in zip(a.kwonlyargs, a.kw_defaults) if d is not None}
    return {}


@cache
def classes() -> dict[str, Technique]:
    """Every class that a technique may derive from, by name."""
    files = [LIBRARY / "gan.py", LIBRARY / "engine" / "module.py", LIBRARY / "engine" / "sample_weights.py"]
    files += [p for folder in ("techniques", "nonadversarial") for p in sorted((LIBRARY / folder).glob("*.py"))]
    return {found.name: found for path in files if path.name != "__init__.py" for found in read(path)}


def techniques() -> list[Technique]:
    """In the order of docs/techniques.md."""
    table = content(ROOT / "docs" / "techniques.md")
    return [classes()[name] for name in re.findall(r"^\| .+? \| `(\w+)` \|", table, re.MULTILINE)]


def lineage(technique: Technique) -> list[Technique]:
    """The class and those of ours that it derives from, nearest first."""
    found = [technique]
    for one in found:
        found += [classes()[name] for name in one.bases if name in classes() and classes()[name] not in found]
    return found
