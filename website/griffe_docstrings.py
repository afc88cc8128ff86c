"""Docstrings as Markdown, before mkdocstrings reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import griffe

from website.docstrings import markdown, runnable


class Markdown(griffe.Extension):
    """Equations, roles, lists and examples of our docstrings, as the pages of techniques have them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.docstring:
            text = runnable(obj.docstring.value, Path(str(obj.filepath)), obj.module.path)
            obj.docstring.value = markdown(text)
