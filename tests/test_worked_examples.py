"""The scripts of examples/: what they import is there; with --runslow from beginning to end, short and as they are."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lightning_gans.compat.lightning import pl

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.skipif(pl.__name__ != "pytorch_lightning", reason="the examples import pytorch_lightning")


def played(name: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    """What a script, started in an empty folder, has made of its names."""
    monkeypatch.setattr("sys.argv", [f"examples/{name}.py", *options])
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def shown(out: str) -> list[Path]:
    """The files that a script says to look at; each is there."""
    found = [Path(path) for path in re.findall(r"[\w./-]+\.(?:png|md|csv)", out[out.index("Look at") :])]
    found = [path for path in found if path.parts[0] != "docs"]
    assert found and all(path.is_file() for path in found)
    for path in found:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 20
    return found


@pytest.mark.slow
def test_own_images(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = played("own_images", monkeypatch, "--shapes=80", "--updates=4")
    out = capsys.readouterr().out
    assert {path.name for path in shown(out)} == {"over_training.png", "from_the_best.png", "last.md"}
    assert found["run"] == Path("runs/own-images") and found["model"].num_classes == 3
    assert "fid/lenet" in out and "KID" in out and (found["run"] / "generator.pt2").is_file()
    assert re.search(r"Next +\S*lightning-gans predict --ckpt_path=runs/own-images  # samples", out)
    assert (len(found["data"].split_files("train")), len(found["data"].split_files("test"))) == (72, 8)


@pytest.mark.slow
def test_own_project(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed: pip install -e '.[datasets]'")
    monkeypatch.setenv("HF_HOME", str(Path.cwd()))
    found = played("own_project", monkeypatch, "--updates=3")
    assert [path.name for path in shown(capsys.readouterr().out)] == ["samples.png", "sevens.png", "metrics.csv"]
    assert found["trainer"].global_step == 3 and found["again"].num_classes == 10
    assert [entry["step"] for entry in found["theirs"][1].history] == [0, 1, 2, 3]


@pytest.mark.slow
def test_text_gan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.txt").write_text("the cat sat on a mat and the dog sat on the cat while rain fell on a hat\n" * 20)
    options = ["--text=own.txt", "--likelihood=4", "--updates=2", "--samples=20"]
    found = played("text_gan", monkeypatch, *options)
    assert [path.name for path in shown(capsys.readouterr().out)] == ["curves.png"]
    assert [len(curve) for curve in found["curves"].values()] == [10, 10, 10]
    assert set(found["lines"]) == {"held-out text", "independent symbols"}


@pytest.mark.slow
def test_cascade(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = played("cascade", monkeypatch, "--vae=3", "--updates=3", "--ratio=3")
    out = capsys.readouterr().out
    assert [path.name for path in shown(out)] == ["samples.png"] and len(re.findall(r"FID/lenet [\d.]+\n", out)) == 3
    assert found["gan"].global_step == found["vae"].global_step == 3 and len(found["ratio"].ratios) == 1


@pytest.mark.slow
def test_cascade_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Codes of the GAN make better images than those of the prior, and the ratio better ones still."""
    played("cascade", monkeypatch)
    prior, gan, corrected = map(float, re.findall(r"FID/lenet ([\d.]+)", capsys.readouterr().out))
    assert corrected < gan < 0.8 * prior


@pytest.mark.slow
def test_own_images_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = played("own_images", monkeypatch)
    card = (found["run"] / "checkpoints" / "last.md").read_text()
    (last,) = re.findall(r"\| fid/lenet \| [\d.]+ \| ([\d.]+)", card)
    assert float(last) < 20, "of grey images it is 156"


@pytest.mark.slow
def test_own_project_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed: pip install -e '.[datasets]'")
    monkeypatch.setenv("HF_HOME", str(Path.cwd()))
    history = played("own_project", monkeypatch)["theirs"][1].history
    assert history[-1]["metrics/fid/lenet"] < 0.2 * history[0]["metrics/fid/lenet"]


@pytest.mark.slow
def test_text_gan_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers say what the text says: independent letters are far off, and RelGAN is not below its start."""
    found = played("text_gan", monkeypatch)
    start, gan, rival = ({p["temperature"]: p for p in curve}[1.0] for curve in found["curves"].values())
    assert start["nll_gen"] < 1.6 < found["lines"]["independent symbols"]["nll_gen"]
    assert rival["nll_gen"] < start["nll_gen"] < gan["nll_gen"] and start["js-3"] < gan["js-3"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short_and_told(path: Path) -> None:
    """Each says how it is started and how long it takes, and docs name it."""
    text = path.read_text()
    assert f"python examples/{path.name}" in text and "one CPU core" in (ast.get_docstring(ast.parse(text)) or "")
    assert len(text.splitlines()) < 160
    asked = [node for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)]
    for node in asked:
        if (node.module or "").partition(".")[0] == "lightning_gans":
            assert all(hasattr(importlib.import_module(str(node.module)), name.name) for name in node.names)
    root = EXAMPLES.parent
    assert any(f"examples/{path.name}" in page.read_text() for page in (root / "docs").glob("*.md"))
    assert "(examples" in (root / "README.md").read_text()
