"""Docstrings as Markdown, before mkdocstrings reads them."""

from __future__ import annotations

from typing import Any

import griffe

from website.docstrings import markdown


class Markdown(griffe.Extension):
    """Equations, roles and lists of our docstrings, as the pages of techniques have them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
