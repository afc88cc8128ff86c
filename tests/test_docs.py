"""README and docs: short enough, links that lead somewhere, commands that there are."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
from torch import nn

from lightning_gans import callbacks, datamodules, networks, regularizers, samplers
from lightning_gans.cli import GANCLI, OTHERS
from lightning_gans.cli.recipes import RECIPES, names, shipped
from lightning_gans.compat.lightning import pl

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BASES = {"Regularizer", "Sampler", "LatentSampler", *(f"{kind}DataModule" for kind in ("GAN", "Image", "Text", "Toy"))}
COMMAND = re.compile(r"^(?:lightning-gans|python train\.py) (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150 and "![" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), f"{page.name}: {link}"


def test_commands_that_are_told_are_there() -> None:
    known = {*GANCLI.subcommands(), *OTHERS}
    told = [(page, line) for page in PAGES for line in COMMAND.findall(page.read_text().replace("\\\n", " "))]
    assert len(told) > 20
    for page, line in told:
        words = shlex.split(line.partition("  # ")[0].partition("   #")[0], comments=False)
        assert words[0] in known, f"{page.name}: {line}"
        for option, value in itertools.pairwise(words):
            if option == "--config" and not value.startswith("runs/"):
                assert (ROOT / value).is_file() or Path(shipped(value)).is_file(), f"{page.name}: {line}"
    listed = {Path(word).with_suffix("").as_posix() for _, line in told for word in line.split() if "configs/" in word}
    assert {name.removeprefix("configs/") for name in listed} <= set(names()) and RECIPES.is_dir()


def test_each_experiment_is_a_question() -> None:
    scripts = {p.stem for p in (ROOT / "experiments").glob("*.py") if "\ndef main(" in p.read_text()}
    told = re.findall(r"`python -m experiments\.(\w+)", (ROOT / "docs" / "questions.md").read_text())
    assert sorted(told) == sorted(scripts)


def test_components_can_be_found() -> None:
    """Data, networks, what one adds to a training or asks of a model: all is named where people look for it."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
    named = set(re.findall(r"\w+", "\n".join(page.read_text() for page in pages)))
    kinds = (
        *((callbacks, pl.Callback), (regularizers, regularizers.Regularizer), (samplers, samplers.Sampler)),
        *((datamodules, datamodules.GANDataModule), (networks, nn.Module)),
    )
    asked = {name for module, base in kinds for name in module.__all__ if _is_a(getattr(module, name), base)}
    asked |= {"neuron_shapley", "removal_curve", "label_use", "commentary_weights", "spectrum_bands", "spectrum_gap"}
    asked |= {"otdd_report", "alignment", "uniformity", "relic", "loss_aware", "UNet2DModel", "vary", "boosted_ratio"}
    assert len(asked) > 100 and asked <= named, asked - named


def _is_a(made: object, base: type) -> bool:
    """Of that kind, and no base of others."""
    return isinstance(made, type) and issubclass(made, base) and made.__name__ not in BASES
