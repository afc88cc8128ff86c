"""The experiments' own arithmetic, and each of them from beginning to end in a few updates."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import common
from lightning_gans.datamodules.downloaded import default_root

ROOT = Path(__file__).parent.parent


def result(**columns: list[float]) -> common.Result:
    rows = [{"step": 10 * i, "seconds": float(i), **{k: v[i] for k, v in columns.items()}} for i in range(8)]
    return {"rows": rows, "failed": None}


def test_numbers_of_a_run() -> None:
    run = result(**{"metrics/fid/lenet": [9, 8, 7, 2, 4, 5, 6, 3.0], "line": [1, 3, 5, 7, 9, 11, 13, 15.0]})
    assert common.last(run, "metrics/fid/lenet") == 3 and common.best(run, "metrics/fid/lenet") == 2
    assert common.best(run, "line") == 15
    assert common.at_time(run, "metrics/fid/lenet", 3.5) == pytest.approx(8**0.5)  # between 2 and 4
    assert common.late_mean(run, "line") == 12
    assert common.late_deviation(run, "line") == pytest.approx(0, abs=1e-12)  # a trend is no noise
    assert common.late_deviation(run, "metrics/fid/lenet", 1.0) > 1
    assert common.milliseconds(run) == pytest.approx(100)
    assert math.isnan(common.last({**run, "failed": "not finite"}, "line"))


def test_spread_tells_of_failures() -> None:
    assert common.spread([1.0, 3.0]) == "2 ± 1.4"
    assert common.spread([1.0, math.nan]) == "1 (1 of 2)"
    assert common.spread([math.nan]) == "none"


def test_a_game_is_played_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A game is known by its values and seed, whatever it is called."""
    played: list[int] = []

    def play(game: common.Game) -> common.Result:
        played.append(game["seed"])
        return result()

    monkeypatch.setattr(common, "play", play)
    arguments = common.parser(None).parse_args(["--runs", str(tmp_path), "--jobs", "1"])
    game = common.toy_game("Ring", 4, technique="gan")
    first = common.sweep({"a": game}, [1, 2], arguments)
    again = common.sweep({"b": game, "c": game | {"updates": 5}}, [1, 2], arguments)
    assert played == [1, 2, 1, 2]
    assert first["a"] == again["b"] and [r["game"]["updates"] for r in again["c"]] == [5, 5]


def test_a_diverged_game_is_a_result() -> None:
    """It is told as failed, with what it is about."""
    game = common.toy_game("Ring", 6, width=8, technique="gan", options={"loss": "wasserstein", "lr_d": 1e30})
    found = common.play(game | {"seed": 0, "folder": "."})
    assert found["failed"] == "not finite" and math.isnan(common.last(found, "metrics/modes"))


def test_words_stay_when_a_table_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.md"
    arguments = common.parser(None).parse_args(["--out", str(out)])
    monkeypatch.setattr(sys, "argv", ["experiments/a.py"])
    found = {"x": [{"commit": "abc"}]}
    common.publish(arguments, "Title", found, ["p"], ["| old |"])
    out.write_text(out.read_text().replace("# Title\n", "# Title\n\nThe answer.\n"))
    common.publish(arguments, "Title", found, ["p"], ["| new |"])
    text = out.read_text()
    assert text.startswith("# Title\n\nThe answer.\n") and "| new |" in text and "| old |" not in text
    assert "- commit: abc\n" in text and "- command: `python -m experiments.a " in text


TINY = ["--seeds", "1", "--jobs", "1", "--updates", "8"]
ON_IMAGES = (
    "critic_normalisation",
    "convergence",
    "architectures",
    "primal_dual_mnist",
)  # scores of 2,000 images take their time
EXPERIMENTS: dict[str, list[str]] = {
    "one_or_two_sided": ["--data", "Ring", "--weights", "0.1"],
    "finite_difference": ["--data", "Ring"],
    "clipping_band": ["--thresholds", "0.1", "--depth", "3", "--width", "8"],
    "reweight_and_clip": ["--data", "Ring", "--updates", "10"],
    "critic_normalisation": ["--data", "Digits", "--width", "4"],
    "convergence": ["--data", "Digits", "--width", "4", "--batch_size", "8"],
    "primal_dual_gaussian": [
        "--deviations",
        "0",
        "0.0316228",
        "--sigmas",
        "1",
        "--alphas",
        "1",
        "--steps",
        "4",
        "--changes",
        "SGD 0.1",
    ],
    "mode_collapse": ["--data", "Ring", "--width", "8", "--ks", "1"],
    "unrolling": ["--width", "8", "--ks", "1", "--times", "2"],
    "optimizers": ["--data", "Gaussian1D", "--optimizers", "extra-Adam"],
    "primal_dual_mnist": ["--width", "2"],
    "architectures": ["--data", "Digits", "--width", "4", "--deep_updates", "1"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the classifier of the scores is kept: trained once for all."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in ON_IMAGES else ()) for n in EXPERIMENTS]
)
def test_from_beginning_to_end(name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a row per game, a figure beside it, and nothing left half-written."""
    monkeypatch.setenv("LIGHTNING_GANS_CACHE", str(cache))
    if name == "primal_dual_mnist" and not list(default_root().glob("MNIST/raw/*")):
        pytest.skip("needs MNIST in $LIGHTNING_GANS_DATA")
    out = tmp_path / "result.md"
    rest: list[Any] = [*TINY, *EXPERIMENTS[name], "--runs", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [f"experiments/{name}.py", *rest])
    importlib.import_module(f"experiments.{name}").main()
    text = out.read_text()
    assert common.MARK in text and "- commit:" in text and "| " in text
    assert out.with_suffix(".png").stat().st_size > 5000
    games = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    assert games and all(game["failed"] is None for game in games)
    assert not list(tmp_path.rglob("*.part"))


def test_all_experiments_are_tested() -> None:
    scripts = {p.stem for p in (ROOT / "experiments").glob("*.py")} - {"__init__", "common", "figures"}
    assert scripts == set(EXPERIMENTS)
