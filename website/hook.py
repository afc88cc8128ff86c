"""What mkdocs calls while it builds: it hands over `pages`, and the package as one folder for mkdocstrings."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # mkdocs runs this file by its path

from website import docstrings, pages

PACKAGE = docstrings.ROOT / "build" / "website"


def on_startup(**_: Any) -> None:
    """Mkdocstrings leaves out folders that are not there when it begins."""
    PACKAGE.mkdir(parents=True, exist_ok=True)


def on_config(config: Any) -> Any:
    """The table of contents; and the package with what setup.cfg maps into it, as it is installed."""
    for read in (docstrings.classes, pages.records, pages.recipes, pages.results):
        read.cache_clear()  # mkdocs serve builds again and again
    config.nav = pages.nav()
    shutil.rmtree(PACKAGE, ignore_errors=True)
    copied = {"lightning_gans": docstrings.LIBRARY} | {f"lightning_gans/{n}": p for n, p in pages.FOLDERS.items()}
    for name, folder in copied.items():
        shutil.copytree(folder, PACKAGE / name, ignore=shutil.ignore_patterns("__pycache__"))
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what is generated."""
    from mkdocs.structure.files import File

    for place, text in pages.generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page of docs/, with links as they are on the site."""
    written = page.file.generated_by is None
    return pages.changed(markdown, page.file.src_uri) if written else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Equations as MathML."""
    return pages.mathml(html)
