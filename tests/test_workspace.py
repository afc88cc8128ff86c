"""The workspace and the report of W&B: what they show, and the objects themselves, which nothing is sent for."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_gans.cli import main
from lightning_gans.runs.record import read_record
from lightning_gans.runs.sections import sections
from lightning_gans.tools import workspace as tool

needs_it = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None,
    reason="wandb-workspaces is not installed: pip install -e '.[workspaces]'",
)
NAMES = ["d/loss", "d/real", "g/loss", "metrics/fid/lenet", "metrics/is/lenet", "grad/d", "lr/d", "lr/g",
         "time/seconds", "time/images_seen"]  # fmt: skip
SHOWN = {
    "Scores": {"fid/lenet": ["metrics/fid/lenet"], "is/lenet": ["metrics/is/lenet"]},
    "Samples": {"Samples of one fixed noise": ["samples/grid"], "Interpolations": ["samples/interpolation"]},
    "Loss terms and diagnostics": {"d": ["d/loss", "d/real"], "g": ["g/loss"]},
    "Gradient norms": {"grad/d": ["grad/d"]},
    "Learning rates": {"Learning rates": ["lr/d", "lr/g"]},
    "Time": {"time/seconds": ["time/seconds"]},
}


def run(folder: Path, names: list[str], *samples: str) -> Path:
    (folder / "samples").mkdir(parents=True)
    (folder / "metrics.csv").write_text(f"step,{','.join(names)}\n1{',1.0' * len(names)}\n")
    for name in samples:
        (folder / "samples" / name).touch()
    return folder


@pytest.fixture
def both(tmp_path: Path) -> list[Path]:
    """Two runs, the second of which has logged something of its own."""
    pictures = ("step_000000.png", "interpolation_000000.png", "animation.gif", "latest.png", "over_training.png")
    return [run(tmp_path / "a", NAMES[:7], *pictures), run(tmp_path / "b", NAMES)]


def test_what_is_shown(both: list[Path], tmp_path: Path) -> None:
    records = [read_record(path) for path in both]
    assert tool.layout(records) == SHOWN and list(tool.layout(records)) == list(SHOWN)
    text = [read_record(run(tmp_path / "text", ["metrics/js-2", "mle/loss"], "step_000001.txt"))]
    assert tool.layout(text)["Samples"] == {"Texts": ["samples/text"]}
    shown = [name for panels in sections(NAMES).values() for names in panels.values() for name in names]
    assert sorted(shown) == sorted({*NAMES} - {"time/images_seen"}), "each once"


@needs_it
def test_the_objects(both: list[Path]) -> None:
    """As they would be sent: each section, each name, over generator updates."""
    shown = tool.layout([read_record(path) for path in both])
    made = tool.workspace(shown, "p", "me")
    sent = json.dumps(made._to_model().model_dump(mode="json", by_alias=True))
    assert [section.name for section in made.sections] == list(SHOWN)
    assert [section.is_open for section in made.sections] == [True, True, False, False, False, False]
    report = json.dumps(tool.wandb_report(shown, "p", "me")._to_model().model_dump(mode="json", by_alias=True))
    for panels in SHOWN.values():
        for panel, names in panels.items():
            for found in (sent, report):
                assert json.dumps(panel) in found and all(json.dumps(name) in found for name in names)
    for panel in (panel for section in made.sections if section.name != "Samples" for panel in section.panels):
        assert panel.x == tool.AXIS
    assert all(heading in report for heading in SHOWN) and '"me"' in report
    text = tool.workspace({"Samples": {"a": ["samples/text"]}}, "p", "me").sections[0].panels[0]
    assert type(text).__name__ == "WeavePanelSummaryTable" and text.table_name == "samples/text"


def test_the_axis_is_that_of_the_runs() -> None:
    from lightning_gans.callbacks import wandb_setup

    assert wandb_setup._AXIS == tool.AXIS
    assert "prompt" in inspect.signature(importlib.import_module("wandb").login).parameters


def test_the_command(both: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    main(["workspace", *map(str, both), "--dry_run"])
    out = capsys.readouterr().out
    assert out.startswith("Scores\n  fid/lenet: metrics/fid/lenet\n") and "\nTime\n" in out

    class Made:
        """Saved somewhere."""

        def __init__(self, kind: str) -> None:
            self.url = f"https://w/{kind}"

        def save(self) -> Made:
            return self

    asked: list[Any] = []
    for kind in ("workspace", "wandb_report"):
        monkeypatch.setattr(tool, kind, lambda *given, kind=kind: (asked.append(given[1:]), Made(kind))[1])
    monkeypatch.setattr("lightning_gans.checks.installed", lambda *names: None)
    api = SimpleNamespace(default_entity="me")
    wandb = SimpleNamespace(login=lambda prompt: True, Api=lambda: api)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_MODE", "online")
    main(["workspace", str(both[0]), "--project=p"])
    assert asked == [("p", "me")] * 2
    assert capsys.readouterr().out.split() == ["Workspace", "https://w/workspace", "Report", "https://w/wandb_report"]

    def refused(*given: Any) -> None:
        raise RuntimeError("no network\nand more")

    monkeypatch.setattr(tool, "workspace", refused)
    with pytest.raises(SystemExit, match=r"error: W&B must be within reach .+, got RuntimeError: no network\.$"):
        main(["workspace", str(both[0])])
    wandb.login = lambda prompt: False
    with pytest.raises(SystemExit, match=r"error: W&B must have a login .+, got none: wandb login\.$"):
        main(["workspace", str(both[0])])


def test_mistakes_are_one_sentence(both: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: A run must hold metrics\.csv, got .+"):
        main(["workspace", str(tmp_path)])
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n, *a: None if n.startswith("wandb") else find(n, *a))
    with pytest.raises(SystemExit, match=r"error: wandb, wandb_workspaces must be installed for this: .+ pip install"):
        main(["workspace", str(both[0])])
    monkeypatch.setattr("lightning_gans.checks.installed", lambda *names: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(SystemExit, match=r"error: WANDB_MODE must be online, or not set, .+; got offline\.$"):
        main(["workspace", str(both[0])])
