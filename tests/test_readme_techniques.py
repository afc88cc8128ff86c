"""The table of docs/techniques.md says what there is: each class, its paper, and the data that it has recipes for."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from lightning_gans import NONADVERSARIAL, TECHNIQUES

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| .+ \| `(\w+)` \| \[(.+?)\]\(\S+\) \| (.+) \|$", re.MULTILINE)
TABLE = {name: (paper, recipes) for name, paper, recipes in ROW.findall((ROOT / "docs" / "techniques.md").read_text())}


def recipes(name: str) -> set[str]:
    """Folders of configs/ with a recipe of a technique."""
    return {folder for folder, model in models() if model == name}


@cache
def models() -> list[tuple[str, str]]:
    """Folder and class of the model of each recipe."""
    paths = (ROOT / "configs").glob("*/*.yaml")
    return [(p.parent.name, yaml.safe_load(p.read_text())["model"]["class_path"]) for p in paths]


def test_all_techniques_are_in_the_table() -> None:
    assert TABLE.keys() == {model.__name__ for model in [*TECHNIQUES.values(), *NONADVERSARIAL.values()]}


@pytest.mark.parametrize(
    "technique", [*TECHNIQUES.values(), *NONADVERSARIAL.values()], ids=[*TECHNIQUES, *NONADVERSARIAL]
)
def test_a_row_tells_paper_and_recipes(technique: type) -> None:
    paper, told = TABLE[technique.__name__]
    doc = sys.modules[technique.__module__].__doc__ or ""
    assert paper in doc if "." in paper else paper == "issue"
    assert set(told.split(", ")) == recipes(technique.__name__)
