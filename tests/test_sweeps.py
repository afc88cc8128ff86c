"""The files in sweeps/ are what `wandb sweep` takes, and its agents' command lines are what our parser takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_gans.cli import main
from lightning_gans.cli.recipes import RECIPES, shipped

SWEEPS = Path(__file__).parent.parent / "sweeps"
NAMES = sorted(path.stem for path in SWEEPS.glob("*.yaml"))
COVERAGE = {"metrics/reverse_kl", "metrics/modes/lenet", "metrics/w1"}  # of `ModeCoverage`, which has no monitor


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((SWEEPS / f"{name}.yaml").read_text()))


def ends(parameter: dict[str, Any]) -> tuple[Any, Any]:
    """The least and the greatest value, or the first and the last."""
    values = parameter.get("values") or (parameter["min"], parameter["max"])
    return values[0], values[-1]


def command_lines(sweep: dict[str, Any]) -> list[list[str]]:
    """Two, as an agent of W&B makes them."""
    lines = []
    for end in (0, 1):
        made = [f"--{name}={ends(parameter)[end]}" for name, parameter in sweep["parameters"].items()]
        lines.append([part for word in sweep["command"] for part in (made if word == "${args}" else [word])])
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_agents_make_them_so(name: str) -> None:
    """By W&B's own code, whose import takes seconds."""
    utils, sweep = pytest.importorskip("wandb.sdk.launch.sweeps.utils"), read(name)
    for end, line in enumerate(command_lines(sweep)):
        args = {name: {"value": ends(parameter)[end]} for name, parameter in sweep["parameters"].items()}
        made = utils.create_sweep_command_args({"args": args})["args"]
        command = utils.create_sweep_command([*sweep["command"]])
        assert [part for word in command for part in (made if word == "${args}" else [word])] == line


def test_each_data_set_has_one() -> None:
    """Of the swiss roll nothing is measured that a sweep could go by."""
    assert set(NAMES) == {path.name for path in RECIPES.iterdir() if path.is_dir()} - {"swiss_roll"}


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_is_whole(name: str) -> None:
    sweep = read(name)
    assert sweep.keys() == {"program", "method", "metric", "command", "parameters"}
    assert sweep["method"] in ("grid", "random", "bayes") and sweep["metric"]["goal"] in ("minimize", "maximize")
    assert all(set(p) in ({"values"}, {"distribution", "min", "max"}) for p in sweep["parameters"].values())
    assert sweep["command"][:2] == [sweep["program"], "fit"] and sweep["command"][-1] == "${args}"
    (recipe,) = (word.partition("=")[2] for word in sweep["command"] if word.startswith("--config="))
    assert recipe.split("/")[0] == name
    config = yaml.safe_load(Path(shipped(recipe)).read_text())
    monitor, own = config.get("checkpoint", {}).get("monitor"), "GenerativeMetrics" in " ".join(sweep["command"])
    assert sweep["metric"]["name"] == monitor or sweep["metric"]["name"] in COVERAGE or own


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "ring" else pytest.mark.slow) for n in NAMES])
def test_its_command_lines_are_understood(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images").mkdir()
    sweep = read(name)
    for end, line in enumerate(command_lines(sweep)):
        with pytest.raises(SystemExit) as caught:
            main([*line[1:], "--print_config"])
        assert not caught.value.code, caught.value.code
        config = yaml.safe_load(capsys.readouterr().out)
        for parameter, given in sweep["parameters"].items():
            found: Any = config
            for part in parameter.split("."):
                found = found.get("init_args", found)[part]
            assert found == (
                yaml.safe_load(ends(given)[end]) if isinstance(ends(given)[end], str) else ends(given)[end]
            )
        logger, added = config["trainer"]["logger"], [c["class_path"] for c in config["trainer"]["callbacks"]]
        assert logger["class_path"].endswith("WandbLogger") and any(c.endswith("WandbSetup") for c in added)
