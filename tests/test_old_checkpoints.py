"""What was written before the parts of ``base.py`` were moved is read, sampled from and trained on as then."""

from __future__ import annotations

import csv
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import equal
from old_checkpoints import CHECKPOINTS, RUN, class_of, latest, numbers, own, resumed, unpack

from lightning_gans import TECHNIQUES, load
from lightning_gans.cli import main

EXPECTED: dict[str, Any] = json.loads((CHECKPOINTS / "expected.json").read_text())
# techniques that are younger
SINCE = {"r3_gan", "style_gan2", "trans_gan", "gan_control", "stylex", "rel_gan", "seq_gan"}
SINCE |= {"leak_gan", "style_transfer"}
every_checkpoint = pytest.mark.parametrize("name", EXPECTED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints, unpacked."""
    target = tmp_path_factory.mktemp("old")
    unpack(target)
    return target


@pytest.fixture
def path(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint. A mixture finds that of its base from here."""
    monkeypatch.chdir(folder)
    return Path(f"{name}.ckpt")


def test_there_is_one_of_each_technique(folder: Path) -> None:
    assert {path.stem for path in folder.glob("*.ckpt")} == EXPECTED.keys()
    then = {cls for name, cls in TECHNIQUES.items() if name not in SINCE}
    assert {class_of(folder / f"{name}.ckpt") for name in EXPECTED} >= then
    progress = torch.load(folder / "prc_gan.ckpt", weights_only=True)["gan"]
    assert (progress["d_done"], progress["g_done"]) == (2, 3), "it was written in the middle of a cycle"


@every_checkpoint
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_it_is_loaded(name: str, path: Path, weights: Any) -> None:
    module = load(path, weights=weights, **own(name))
    assert type(module) is class_of(path) and (module.ema is None) == (weights == "raw")
    assert numbers(module) == pytest.approx(EXPECTED[name][weights], rel=1e-5, abs=1e-7)


@every_checkpoint
def test_it_is_loaded_by_lightning(name: str, path: Path) -> None:
    module = class_of(path).load_from_checkpoint(path, **own(name))
    assert module.ema is not None
    assert numbers(module) == pytest.approx(EXPECTED[name]["ema"], rel=1e-5, abs=1e-7)
    assert equal(module.state_dict(), torch.load(path, weights_only=True)["state_dict"])


@every_checkpoint
def test_it_is_trained_on(name: str, path: Path) -> None:
    """By ``trainer.fit(ckpt_path=...)``: the place in the cycle, data and noise are taken up."""
    found, expected = latest(resumed(path)), EXPECTED[name]["resumed"]
    # float32: weights that differ in the last bit, or another processor, change these two by 5e-5; other noise by 4e-3
    slack = 2e-4 if name in ("prc_gan", "robust_wgan") else 1e-5
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-3, abs=slack)


newer = pytest.mark.skipif(
    version("pytorch_lightning").startswith(("2.4.", "2.5.")), reason="config.yaml has the arguments of Lightning 2.6"
)


def end(run: Path) -> dict[str, Any]:
    """What the last checkpoint of a run holds."""
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {k: saved[k] for k in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "global_step", "engine")}


@newer
def test_a_run_is_continued(tmp_path: Path) -> None:
    """Four updates of old and four of now are eight of now."""
    old = Path(shutil.copytree(RUN, tmp_path / "runs" / "x"))
    config = yaml.safe_load((old / "config.yaml").read_text())
    assert config["trainer"]["logger"]["class_path"] == "lightning_gans.loggers.MetricsCSV"
    rows, no_pictures = list(csv.DictReader((old / "metrics.csv").open())), ["--grid.every_n_steps=null"]
    main(["fit", f"--ckpt_path={old}", "--trainer.max_steps=8", *no_pictures])
    main(["fit", f"--config={RUN / 'config.yaml'}", "--trainer.max_steps=8", "--name=fresh", *no_pictures])
    then, now = end(old), end(tmp_path / "runs" / "fresh")
    assert then["global_step"] == 8
    for key in ("state_dict", "ema"):
        assert then[key].keys() == now[key].keys()
        torch.testing.assert_close(then[key], now[key], rtol=0, atol=1e-6)
    for part in ("noise", "done", "images_seen"):
        assert equal(then["engine"][part], now["engine"][part])
    torch.testing.assert_close(then["optimizer_states"], now["optimizer_states"], rtol=1e-4, atol=1e-6)
    after = list(csv.DictReader((old / "metrics.csv").open()))  # what is logged by now besides is empty in old rows
    assert [{key: row[key] for key in rows[0]} for row in after[: len(rows)]] == rows
    assert [row["step"] for row in after[len(rows) :]] == ["5", "6", "7", "8"]
    steps = [json.loads(line)["step"] for line in (old / "scores-coverage.jsonl").read_text().splitlines()]
    assert steps == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("ending", ["", "checkpoints/last.ckpt"])
def test_a_run_is_loaded(ending: str) -> None:
    module = load(RUN / ending)
    assert module.ema is not None and module.sample(2, seed=0).shape == (2, 2)
    assert equal(module.state_dict(), torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
