"""The script that measures on a GPU: its machinery with stages that fail, and real stages on a CPU."""

from __future__ import annotations

import json
import os
import pickle
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fresh import python

from benchmarks import gpu, gpu_report
from benchmarks.gpu import STAGES, Setting, Stage
from benchmarks.gpu_games import RESULTS
from benchmarks.parts import Row, Send, plain_numbers, together

ROOT = Path(__file__).parents[1]
BLOCKED = """  # the checkout as it is, not installed, and two packages fewer
import importlib.metadata as metadata, runpy, sys
for name in ("jsonargparse", "torch_fidelity"):
    sys.modules[name] = None
known = metadata.version
def version(name):
    if name.replace("-", "_") in ("jsonargparse", "torch_fidelity"):
        raise metadata.PackageNotFoundError(name)
    return known(name)
metadata.version = version
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in str(getattr(finder, "__name__", ""))]
sys.argv = ["gpu", *%s]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


def setting(out: Path) -> Setting:
    images, labels = gpu.made_up(20)
    return Setting("cpu", 0.01, out, out, "a card", "made-up images", images, labels)


def strictly(path: Path) -> Row:
    """JSON without NaN and the like, which only Python reads."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(), parse_constant=refuse)


# ---------------------------------------------------------------------- machinery
def good(s: Setting, send: Send) -> Row:
    return {"rows": {"x": {"loss": float("nan"), "n": 1}}, "told": f"{s.card}, ends in time: {s.left > 0}"}


def raises(s: Setting, send: Send) -> Row:
    send({"rows": {"first": {"n": 1}}})
    raise RuntimeError("no such kernel\nand more")


def dies(s: Setting, send: Send) -> Row:
    os._exit(7)


def overruns(s: Setting, send: Send) -> Row:
    send({"rows": {"first": {"n": 1}}})
    inner = together({"inner": lambda send: time.sleep(60) or {}}, time.monotonic() + 60)
    return {"rows": inner}


def test_stages_that_fail_lose_nothing_of_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stages = {"raises": Stage(raises, 5, 0.1), "dies": Stage(dies, 5, 0.1), "overruns": Stage(overruns, 1, 0.1),
              "good": Stage(good, 5, 0.1)}  # fmt: skip
    begun = time.monotonic()
    rows = gpu.run(stages, setting(tmp_path), begun + 60)
    assert time.monotonic() - begun < 20
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS]
    assert strictly(tmp_path / RESULTS) == plain_numbers(rows)
    again = gpu.run({"raises": Stage(good, 5, 0.1)}, setting(tmp_path), time.monotonic() + 60)
    assert strictly(tmp_path / RESULTS) == plain_numbers(rows | again)
    for row in rows.values():
        assert row["card"] == "a card" and row["seconds"] < 20
    assert rows["raises"]["error"] == "RuntimeError: no such kernel"
    assert rows["raises"]["rows"] == rows["overruns"]["rows"] == {"first": {"n": 1, "card": "a card"}}
    assert rows["dies"]["error"] == "the process ended with exit code 7"
    assert rows["overruns"]["error"] == "stopped: its time was over"
    assert rows["good"]["told"] == "a card, ends in time: True" and rows["good"]["rows"]["x"]["loss"] is None
    assert "no such kernel" in capfd.readouterr().out


def test_a_stage_starts_only_if_it_fits_and_leaves_the_next_ones_their_seconds(tmp_path: Path) -> None:
    def ends(s: Setting, send: Send) -> Row:
        return {"left": s.left}

    stages = {"first": Stage(ends, 100, 1), "long": Stage(ends, 100, 50), "last": Stage(ends, 100, 5)}
    rows = gpu.run(stages, setting(tmp_path), time.monotonic() + 30)
    assert rows["first"]["error"].startswith("not started: it needs 1 s, 0 s")  # the two others want 55 s
    assert rows["long"]["error"].startswith("not started: it needs 50 s, 25 s") and 20 < rows["last"]["left"] < 30


def test_jobs_run_at_once(tmp_path: Path) -> None:
    def job(mine: str, other: str, send: Send) -> Row:
        (tmp_path / mine).touch()
        while not (tmp_path / other).exists():
            time.sleep(0.01)
        return {"met": other}

    jobs = {"a": partial(job, "a", "b"), "b": partial(job, "b", "a")}
    assert together(jobs, time.monotonic() + 60, at_once=2) == {"a": {"met": "b"}, "b": {"met": "a"}}


def test_jobs_end_at_the_end() -> None:
    jobs: dict[str, Any] = {"long": lambda send: time.sleep(60) or {}, "next": lambda send: {}}
    rows = together(jobs, time.monotonic() + 0.3)
    assert rows == {"long": {"error": "stopped: its time was over"}, "next": {"error": "not started: no time was left"}}


# ---------------------------------------------------------------------- bad input, data
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--stages", "speed,sped"], "--stages must be some of environment, .*, got sped."),
        (["--scale", "2"], r"--scale must be in \(0, 1\], got 2.0."),
        (["--device", "cpu", "--data", "nowhere"], "--data must be a folder with cifar-10-batches-py.*got 'nowhere'."),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda needs a CUDA device, but none is there.",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(arguments: list[str], told: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        gpu.main(arguments)
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, lines[-1])


def test_a_part_of_cifar_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    with pytest.raises(ValueError, match="--data must hold data_batch_1"):
        gpu.read_cifar(tmp_path)
    for i, name in enumerate(("data_batch_2", "data_batch_1", "test_batch")):
        content = {"data": np.full((3, 3072), i, dtype=np.uint8), "labels": [0, 1, 2]}
        (folder / name).write_bytes(pickle.dumps(content))
    splits, files = gpu.read_cifar(tmp_path)
    assert files == ["data_batch_1", "data_batch_2", "test_batch"]
    images, labels = splits["data"]
    assert images.shape == (6, 3, 32, 32) and images[0, 0, 0, 0] == 1 and labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(splits["test"][0]) == 3


# ---------------------------------------------------------------------- real stages
def script(out: Path, *arguments: str, fork: bool = False) -> str:
    given = ["--device", "cpu", "--scale", "0.01", "--out", str(out), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "LIGHTNING_GANS_DATA"}
    return python(BLOCKED % given, ROOT, out.with_name("told"), environment, fork, seconds=900)


def test_it_runs_not_installed_without_jsonargparse_and_torch_fidelity(tmp_path: Path) -> None:
    told = script(tmp_path / "out", "--stages", "environment", fork=True)
    tmp_path = tmp_path / "out"
    row = strictly(tmp_path / RESULTS)["environment"]
    assert row["card"] == "CPU" and row["source"].startswith("made-up images") and row["tflops_tf32"] > 0
    assert told.splitlines()[-1].startswith("| environment | ")
    page = gpu_report.write(tmp_path, tmp_path / "gpu.md").read_text()
    assert "On one CPU, scale 0.01; made-up images" in page and "## Environment" in page


def test_every_stage_is_in_the_report(tmp_path: Path) -> None:
    """With its own table where it has one."""
    assert set(gpu_report.STAGES) == STAGES.keys()
    rows = {"a": {"ms": 3.25, "updates": 7, "scores": [{"step": 7, "seconds": 75.0, "metrics/fid/resnet": 41.5}]}}
    one = {"card": "a card", "scale": 1, "source": "nothing", "seconds": 1.0, "rows": rows}
    found = {name: {**one, "told": f"of {name}"} for name in STAGES}
    (tmp_path / RESULTS).write_text(json.dumps(found))
    page = gpu_report.write(tmp_path, tmp_path / "gpu.md").read_text()
    sections = ["Commands", *(name.capitalize() for name in gpu_report.STAGES)]
    assert re.findall(r"^## (\w+)", page, re.M) == sections
    styles = page.split("## Styles")[1].split("## ")[0]
    assert "of styles (1 s)" in styles and "| a, after 75 s | - | 7 | 75 | 41.5 | - |" in styles


def test_somebodys_words_open_the_report_written_anew(tmp_path: Path) -> None:
    one = {"card": "a card", "scale": 1, "source": "nothing", "seconds": 1.0, "told": "it"}
    (tmp_path / RESULTS).write_text(json.dumps({"environment": one}))
    words = "## What it showed\n\n**Take it.**\n\n- More.\n\n## Commands\n"
    (tmp_path / "gpu.md").write_text(f"# Nine\n\n{words}\nformer\n")
    for _ in range(2):
        page = gpu_report.write(tmp_path, tmp_path / "gpu.md").read_text()
        assert re.findall(r"^## ([\w ]+)", page, re.M) == ["What it showed", "Commands", "Environment"]
        assert words in page and "former" not in page


@pytest.mark.slow
def test_rehearsal_of_every_stage(tmp_path: Path) -> None:
    script(tmp_path := tmp_path / "out")
    rows = strictly(tmp_path / RESULTS)
    assert rows.keys() == STAGES.keys()
    for name, row in rows.items():
        assert "error" not in row, (name, row)
        assert not [part for part in row.get("rows", {}).values() if "error" in part], (name, row)
    for name in ("wgan_gp", "sn_gan", "prc", "robust"):
        row = rows["exactness"]["rows"][name]
        assert row["eager_twice"] == row["graphs"] == row["churn"] == row["resume"] == 0 and row["resume_bits"]
    assert rows["exactness"]["rows"]["double_backward=compiled"]["gradient"] < 1e-4
    assert rows["exactness"]["rows"]["penalty in bf16-mixed"]["dtype"] == "torch.float32"
    assert all(row["rounds"] == 3 for row in rows["speed"]["rows"].values())
    assert all(len(row["scores"]) == 4 for row in rows["training"]["rows"].values())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) <= 4 and all(path.stat().st_size < 2**24 for path in files)
    page = gpu_report.write(tmp_path, tmp_path / "gpu.md").read_text()
    assert "prc_off, after" in page and (tmp_path / "gpu.png").exists()
