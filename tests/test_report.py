"""`report` and `compare`: what runs have done, as pages that need nothing else."""

from __future__ import annotations

import html
import importlib.util
import json
import math
import re
import shutil
import subprocess
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_cli import TOY

from lightning_gans import callbacks
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.cli import main
from lightning_gans.cli.warned import KeptWarnings
from lightning_gans.compat.lightning import callbacks as pl_callbacks
from lightning_gans.compat.shell import python
from lightning_gans.runs.card import _rows, best_entry, card
from lightning_gans.runs.metrics_csv import MetricsCSV
from lightning_gans.runs.record import HIGHER_IS_BETTER, SECONDS, Curve, Record, read_record
from lightning_gans.tools.compare import compare
from lightning_gans.tools.report import report
from lightning_gans.visualization.charts import POINTS, Line, line_chart, thinned
from lightning_gans.visualization.page import markdown

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = "</script><b>name & more"


def written(folder: Path, fid: list[float], seed: int = 0, rate: float = 2.0, **config: Any) -> Path:
    """A run with a score at every hundredth update, ``rate`` updates per second, and pictures."""
    (folder / "samples").mkdir(parents=True)
    lines = ["step,d/loss,metrics/fid/lenet,time/seconds"]
    for i, value in enumerate(fid):
        step = 100 * i
        lines.append(f"{step},,{value},{step / rate}")
        lines.append(f"{step + 50},{-value / 10},,{(step + 50) / rate}")
        Image.new("RGB", (6, 4), (i, 0, 0)).save(folder / "samples" / f"step_{step:06d}.png")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    known = {
        "seed_everything": seed,
        "model": {"class_path": "lightning_gans.WGANGP", "init_args": {"lr_d": 1e-3}},
        "data": {"class_path": "Ring", "init_args": {"modes": 8, "batch_size": 4}},
        "out": str(folder.parent),
    } | config
    (folder / "config.yaml").write_text(yaml.safe_dump(known))
    protocol = {"step": 0, "protocol": {"num_fake": 1500, "seed": 0}}
    (folder / "scores-fid.jsonl").write_text(json.dumps(protocol) + "\n")
    return folder


class Page(HTMLParser):
    """What a browser would load from elsewhere, and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        if len(data) < 1_000_000:  # plotly itself
            self.text += data


# ---------------------------------------------------------------------- what is read
def test_numbers_of_a_record(tmp_path: Path) -> None:
    record = read_record(written(tmp_path / "a", [30.0, 9.0, math.nan, 7.0], rate=4.0))
    assert record.updates == 350 and record.scores == ["metrics/fid/lenet"]
    assert record.best("metrics/fid/lenet") == (7.0, 300)
    assert [record.reached("metrics/fid/lenet", value) for value in (30, 9, 8, 1)] == [100, 100, 300, None]
    untrained = read_record(written(tmp_path / "b", [1.0, 9.0, 8.0]))
    assert untrained.best("metrics/fid/lenet") == (8.0, 200) and untrained.reached("metrics/fid/lenet", 9.5) == 100
    assert record.updates_per_second == pytest.approx(4.0)
    assert record.seconds_at(75) == pytest.approx(75 / 4)  # between 50 and 100
    assert record.data == {"class_path": "Ring", "init_args": {"modes": 8}}  # batches may be of any size


def test_speed_passes_over_the_time_of_scores(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,time/seconds\n10,1\n20,2\n30,90\n40,91\n")
    assert read_record(tmp_path).updates_per_second == 10.0


def test_the_pace_of_a_short_run_and_behind_its_last_row(tmp_path: Path) -> None:
    """By the one row that there is; times behind the last are not those of the last."""
    (tmp_path / "metrics.csv").write_text("step,time/seconds\n50,5\n")
    record = read_record(tmp_path)
    assert record.updates_per_second == 10 and record.seconds_at(25) == 2.5 and record.seconds_at(60) == 6


def test_times_of_a_long_run_are_looked_up(tmp_path: Path) -> None:
    """A hundred thousand rows are gone through once, not for each score (which took 14 seconds)."""
    clock = Curve(np.arange(1.0, 100_001), np.arange(1.0, 100_001) / 4)
    record, begun = Record(tmp_path, {SECONDS: clock}), time.process_time()
    assert [record.seconds_at(step) for step in range(99_900, 100_100)] == [s / 4 for s in range(99_900, 100_100)]
    assert time.process_time() - begun < 1


def test_runs_that_ended_early_are_told(tmp_path: Path) -> None:
    def saved(name: str, updates: int, warned: str = "", epochs: int = 0) -> Path:
        folder = written(tmp_path / name, [30.0, 9.0])
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["trainer"] = {"max_steps": 3000, "max_epochs": 2}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "checkpoints").mkdir(exist_ok=True)
        torch.save({"global_step": updates, "epoch": epochs, "state_dict": {}, "pytorch-lightning_version": "2.6.6"},
                   folder / "checkpoints" / "last.ckpt")  # fmt: skip
        (folder / "warnings.txt").write_text(warned)
        return folder

    line = "update 2005: ended by NonFiniteError: d\n"  # behind the last row and checkpoint
    runs = [saved("whole", 3000), saved("stopped", 1810), saved("nan", 2000, line), saved("resumed", 3000, line)]
    runs.append(saved("two_epochs", 1500, epochs=2))
    told = compare(runs)
    assert [row[3] for row in told.tables["Runs"][1]] == ["3,000", "1,810 of 3,000", "2,000 of 3,000", "3,000", "1,500"]
    early = [note for note in told.notes if "ended" in note or "so far" in note]
    assert early == [
        "stopped: so far 1,810 of 3,000 updates.",
        "nan: ended at update 2,005 by NonFiniteError: d",
    ]
    pages = [Page(report(run, tmp_path / "r.html")).text for run in runs[1:3]]
    assert "1,810 of 3,000 updates" in pages[0] and "ended at update 2,005 ·" in pages[1]


def test_the_last_value_of_an_update_counts_and_updates_rise(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a,b\n10,1,5\n30,3,\n20,2,\n10,4,\n")
    curves = read_record(tmp_path).curves
    assert curves["a"].steps.tolist() == [10, 20, 30] and curves["a"].values.tolist() == [4, 2, 3]
    assert curves["b"].values.tolist() == [5]


def test_scores_of_which_more_is_better() -> None:
    kinds = [vars(callbacks)[name] for name in callbacks.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, ScoreCallback)]
    assert len(kinds) >= 3 and {name for kind in kinds for name in kind.higher_is_better} == HIGHER_IS_BETTER


def test_a_gap_with_a_sign_is_best_at_nothing(tmp_path: Path) -> None:
    """More crowded than real samples (above 0) is no better than spread out (below)."""
    rows = [(1, -0.5), (2, 0.4), (3, 0.1), (4, -0.2)]
    name = "metrics/uniformity_gap/lenet"
    (tmp_path / "metrics.csv").write_text("\n".join([f"step,{name}", *(f"{s},{v}" for s, v in rows)]))
    record = read_record(tmp_path)
    assert record.best(name) == (0.1, 3) and record.reached(name, 0.4) == 2
    entries = [{"step": float(s), name: v} for s, v in rows]
    assert best_entry(entries, name, ()) == {"step": 3.0, name: 0.1}


def test_a_score_that_should_be_as_of_real_samples_has_no_best(tmp_path: Path, capsys: Any) -> None:
    """Nor is it reached; a run without a score does not say "never" of it, nor an untrained value as its last."""
    texts = {"a": "step,metrics/mean,metrics/modes\n0,0.1,1\n10,0.2,3\n20,1.0,2", "b": "step,metrics/modes\n0,1\n",
             "c": "step,d/loss\n10,1\n20,2"}  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(text)
    assert read_record(tmp_path / "a").best("metrics/mean") is None
    tables = compare([tmp_path / name for name in texts]).tables
    told = compare([tmp_path / name for name in texts], reach={"mean": 0.5}).tables["mean"][1]
    assert {row[0]: row[-2:] for row in told}["a"] == ["-", "-"]
    mean, modes = ({row[0]: row[1:] for row in tables[title][1]} for title in ("mean", "modes"))
    assert mean["a"] == ["1", "-", "-", "-", "-"] and modes["a"][:2] == ["2", "3"]
    assert modes["b"] == ["-"] * 5 and modes["c"] == ["-"] * 5
    for text in ("modes=nan", "modes"):
        with pytest.raises(SystemExit, match="--reach must be SCORE=VALUE"):
            main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--reach", text])


def test_a_card_of_scores_that_are_of_update_0_alone() -> None:
    history = [{"step": 0.0, "metrics/modes": 4.0, "metrics/mean": 0.5}]
    assert _rows(history, ["modes"]) == ["| modes | 4 | 4 | 0 | - | - |", "| mean | 0.5 | 0.5 | 0 | - | - |"]


def test_no_sample_ends_its_block_of_a_card() -> None:
    """What follows would be Markdown of ours, on the Hub too."""
    texts = ["a = `1`", "```", "![x](http://evil)", "````python"]
    told = card({"callbacks": {"SampleText": {"texts": texts}}, "hyper_parameters": {"lines": "a\n```\nb"}})
    assert "\n".join(["`````text", *texts, "`````", "", "## Use", "", "```python", "from "]) in told
    blocks = re.findall(r"<pre>(.*?)</pre>", markdown(told), re.DOTALL)
    assert len(blocks) == 3 and blocks[0].splitlines() == texts and blocks[1].startswith("from ")
    assert yaml.safe_load(html.unescape(blocks[2]))["model"]["lines"] == "a\n```\nb"


@pytest.mark.parametrize("text", [None, "", "hello\nthere\n", "step,a\n", "step,a\n1,\n"])
def test_a_folder_without_metrics_is_one_sentence(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    for command in (["report", f"--ckpt_path={tmp_path}"], ["compare", str(tmp_path), str(tmp_path)]):
        with pytest.raises(SystemExit) as caught:
            main(command)
        assert re.fullmatch(r"error: .+ must hold (metrics\.csv|steps and values), .+\.", str(caught.value.code))
    assert not list(tmp_path.glob("*.html"))


def test_a_run_by_nearly_its_name(tmp_path: Path) -> None:
    run = written(tmp_path / "gann", [3.0, 2.0])
    for command in (["report", str(tmp_path / "gan")], ["compare", str(run), str(tmp_path / "gan")]):
        with pytest.raises(SystemExit, match=rf"/gan.*: did you mean {run}\?$"):
            main(command)


def test_half_a_line_of_a_run_that_goes_on(tmp_path: Path) -> None:
    run = written(tmp_path / "a", [3.0, 2.0])
    with (run / "metrics.csv").open("a") as file:
        file.write("200,0.1")
    with (run / "scores-fid.jsonl").open("a") as file:
        file.write('{"step": 10')
    assert read_record(run).updates == 200 and read_record(run).protocols == {}


def test_a_damaged_file_of_a_run(tmp_path: Path) -> None:
    """A configuration is named in one sentence; of metrics what can be read is."""
    run = written(tmp_path / "a", [3.0, 2.0])
    before = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(before + b"200,\xff,1.0,100\n")
    assert read_record(run).curves["metrics/fid/lenet"].values.tolist() == [3, 2, 1]
    logger = MetricsCSV(run)
    logger.goes_on_from(150)
    logger.log_metrics({"d/loss": 1}, step=151)
    assert read_record(run).updates == 151
    for text in (b"model: {a: [1, 2\ndata: 3\n", b"model: \xff\n"):
        (run / "config.yaml").write_bytes(text)
        for command in (["report", str(run)], ["compare", str(run), str(tmp_path)]):
            with pytest.raises(SystemExit) as caught:
                main(command)
            assert re.fullmatch(r"error: .*a/config\.yaml must be YAML, got .+\.", str(caught.value.code)), command
    (run / "config-2.yaml").write_text("- no\n- mapping\n")
    assert read_record(run).config == {}


# ---------------------------------------------------------------------- one run
def test_a_report_holds_everything(tmp_path: Path) -> None:
    run = written(tmp_path / "<b>&name", [30.0, 9.0, 11.0])
    (run / "warnings.txt").write_text(f"update 7: {NASTY}\n")
    path = report(run)
    page = Page(path)
    assert path == run / "report.html" and page.addresses == []
    assert page.tags.count("h2") == 6 and "b" not in page.tags  # warnings to configuration; there is no checkpoint
    for told in ("WGANGP on Ring", "250 updates", "2 updates per second", NASTY, "num_fake", "1500", "lr_d: 0.001"):
        assert told in page.text, told
    assert re.search(r"fid/lenet\s*30\s*11\s*200\s*9\s*100\s*50 s", page.text), "before, last, best, and after how long"
    frames = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', path.read_text())[0])
    assert [step for step, _ in frames] == [0, 100, 200] and all(p.startswith("data:image/png;b") for _, p in frames)
    drawn = path.read_text().split("Plotly.newPlot")
    assert any('"y":[30.0,9.0,11.0]' in chart for chart in drawn) and any('"name":"d\\u002floss"' in c for c in drawn)


def test_texts_have_a_film_too(tmp_path: Path) -> None:
    run = written(tmp_path / "a", [2.0, 1.0])
    for path in (run / "samples").iterdir():
        path.with_suffix(".txt").write_text(f"{NASTY}\n")
        path.unlink()
    page = Page(report(run))
    assert NASTY in page.text.replace("\\u003c", "<") and "b" not in page.tags


def test_long_curves_are_thinned() -> None:
    assert thinned(5).tolist() == [0, 1, 2, 3, 4]
    kept = thinned(1_000_000)
    assert len(kept) == POINTS and (kept[0], kept[-1]) == (0, 999_999) and len(np.unique(np.diff(kept))) <= 2


def test_a_score_that_falls_far_has_a_logarithmic_axis() -> None:
    def axis(values: list[float], logarithmic: bool = True) -> Any:
        return line_chart([Line("a", np.arange(len(values)), np.array(values))], logarithmic=logarithmic).layout.yaxis

    assert axis([2000.0, 3.0, math.nan]).type == "log" and axis([2000.0, 3.0], False).type is None
    assert {axis(values).type for values in ([20.0, 3.0], [2000.0, 0.0], [2000.0, -3.0], [math.nan], [])} == {None}
    assert axis([200.0, 3.0]).dtick == "D2" and axis([9000.0, 3.0]).dtick == 1  # 1, 2, 5, 10 ...; all digits are many
    assert axis([0.001, 0.001]).range == (0, 0.002) and axis([0.0, 0.0]).range is None


def test_a_band_is_whole_beside_a_gap() -> None:
    """Its outline goes there and back for each stretch; what it holds counts for the axis."""
    x, low = np.arange(6.0), np.array([1.0, 2.0, math.nan, 4.0, 5.0, 6.0])
    high = low + 300
    high[5] = math.inf
    band = line_chart([Line("a", x, low + 150, (low, high))], logarithmic=True)
    assert band.data[0].x == (0, 1, 1, 0, None, 3, 4, 4, 3)
    assert band.data[0].y == (301, 302, 2, 1, None, 304, 305, 5, 4)
    assert band.layout.yaxis.type == "log"
    assert line_chart([Line("a", x, low + 150, (low - 1, high))], logarithmic=True).layout.yaxis.type is None
    nothing = np.full(6, math.nan)
    assert line_chart([Line("a", x, nothing, (nothing, nothing))]).data[0].x == ()


def test_names_in_a_legend_are_no_html() -> None:
    chart = line_chart([Line("run<1> & <b>'y'</b>", np.arange(2), np.arange(2.0))])
    assert chart.data[0].name == "run&lt;1&gt; &amp; &lt;b&gt;'y'&lt;/b&gt;"


class Warns(pl_callbacks.Callback):
    """Warns at each update."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        warnings.warn("the loss\nis odd", stacklevel=1)


def test_a_run_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It keeps its warnings, each once, leaves Python's as it was, and is reported with its card."""
    Path("a.yaml").write_text(yaml.safe_dump({**TOY, "grid": {"every_n_steps": 4}}))
    before = warnings.showwarning, warnings.formatwarning
    with pytest.warns(UserWarning, match="is odd"):
        main(["fit", "--config=a.yaml", "--name=a", f"--trainer.callbacks+={__name__}.Warns"])
    assert (warnings.showwarning, warnings.formatwarning) == before
    kept = Path("runs/a/warnings.txt").read_text().splitlines()
    assert [line for line in kept if "odd" in line] == ["update 1: the loss is odd"]
    main(["report", "--ckpt_path=runs/a/checkpoints/last.ckpt", "--out=r.html"])
    page = Page(Path("r.html"))
    assert "Report       r.html" in capsys.readouterr().out and page.addresses == []
    for told in ("the loss is odd", "technique: lightning_gans.techniques.wgan_gp.WGANGP", "generator updates: 4"):
        assert told in page.text, told
    main(["report", "runs/a"])  # as `compare` takes them
    assert Path("runs/a/report.html").is_file() and "time/images_seen" not in Page(Path("runs/a/report.html")).text
    for args in ([], ["runs/a", "--ckpt_path=runs/a"]):
        with pytest.raises(SystemExit) as caught:
            main(["report", *args])
        assert "report needs one run: report runs/a, or --ckpt_path, got " in str(caught.value.code)
    with pytest.raises(SystemExit) as caught:
        main(["report", "--ckpt_path=a.yaml"])
    assert "of a run, or of a checkpoint that lies in one, got a.yaml" in str(caught.value.code)


def test_a_loss_that_is_no_number_is_on_record() -> None:
    Path("a.yaml").write_text(yaml.safe_dump(TOY))
    with pytest.raises(SystemExit):
        main(["fit", "--config=a.yaml", "--name=a", "--model.lr_d=1e30", "--trainer.max_steps=50"])
    last = Path("runs/a/warnings.txt").read_text().splitlines()[-1]
    assert re.match(r"update \d+: ended by NonFiniteError: .* must be a finite number", last)


def test_a_run_that_goes_on_has_not_ended(tmp_path: Path) -> None:
    """Also where it is not as far yet as it was: of what is resumed from, or asked for, there may be less."""
    run, lines = written(tmp_path / "a", [3.0, 2.0]), ["update 3: odd", "update 900: ended by OSError: full"]
    (run / "warnings.txt").write_bytes("\n".join(lines).encode() + b" \xff\n")
    assert read_record(run).ended == (900, "OSError: full \ufffd")
    KeptWarnings(run).on_train_start(SimpleNamespace(is_global_zero=True, global_step=50), None)
    record = read_record(run)
    assert record.ended is None and record.warned == [
        "update 3: odd", "update 900: was ended by OSError: full \ufffd; gone on with at update 50",
    ]  # fmt: skip


# ---------------------------------------------------------------------- several runs
def test_a_comparison_tells_last_best_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, fid in enumerate(([30.0, 9.0, 11.0], [20.0, 12.0, 7.0])):
        written(tmp_path / "a" / f"seed-{seed}", fid, seed)
    written(tmp_path / "b", [40.0, 30.0, 10.0], rate=1.0)
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out=c.html"])
    told = capsys.readouterr().out
    assert re.search(r"^a +WGANGP +2 \(0, 1\) +250 +2 ± 0 +2\.08 min$", told, re.MULTILINE), told
    assert re.search(r"^b +WGANGP +0 +250 +1 +4\.17 min$", told, re.MULTILINE)
    assert "10 reached at" in told  # the best that all reach
    assert re.search(
        r"^a +9 ± 2\.8 +8 ± 1\.4 +150 \(100 to 200\) +150 \(100 to 200\) +1\.25 ± 0\.59 min$", told, re.MULTILINE
    )
    assert re.search(r"^b +10 +10 +200 +200 +3\.33 min$", told, re.MULTILINE)
    page, text = Page(Path("c.html")), Path("c.html").read_text()
    assert page.addresses == [] and "mean, within the least and the greatest" in page.text
    assert (
        '"y":[25.0,10.5,9.0]' in text and "[30.0,12.0,11.0,7.0,9.0,20.0]" in text
    )  # mean; and its band, there and back
    found = compare([tmp_path / "a", tmp_path / "b"], reach={"fid/lenet": 8.0}).tables["fid/lenet"][1]
    assert [row[-2:] for row in found] == [["never in 1 of 2", "-"], ["never", "-"]]
    assert text.count('"mode":"lines","opacity"') == text.count('"fill":"toself"') > 0, "edges without dots"
    untrained = [written(tmp_path / name, fid) for name, fid in (("c", [1.0, 9.0, 8.0]), ("d", [1.0, 9.0, 7.0]))]
    head, rows = compare(untrained).tables["fid/lenet"]
    assert head[-2:] == ["8 reached at", "after"] and [row[2:5] for row in rows] == [
        ["8", "200", "200"],
        ["7", "200", "200"],
    ]


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_seed_without_a_finite_value_is_told(tmp_path: Path, last: float) -> None:
    """One that diverged, and one that has only begun."""
    for seed, fid in enumerate(([30.0, 9.0, 11.0], [20.0, 12.0, 7.0], [20.0, 12.0, last])):
        written(tmp_path / "a" / f"seed-{seed}", fid, seed)
    b = written(tmp_path / "b", [last])
    head = (tmp_path / "a/seed-2/metrics.csv").read_text()
    told = compare([tmp_path / "a", b], tmp_path / "c.html").tables["fid/lenet"][1]
    assert told[0][1:3] == ["9 ± 2.8 (2 of 3)", "9.333 ± 2.5"] and told[1][1:3] == ["-", "-"]
    (tmp_path / "a/seed-2/metrics.csv").write_text("\n".join(head.splitlines()[:2]) + "\n")
    assert compare([tmp_path / "a", b]).tables["Runs"][1][0][-2] == "2 ± 0 (2 of 3)"


def test_a_comparison_tells_what_differs(tmp_path: Path) -> None:
    """Options that differ, in the terminal and on the page; there also warnings and whole configurations."""
    model = {"class_path": "lightning_gans.WGANGP", "init_args": {"lr_d": 2e-3, "gp_weight": 3.0}}
    runs = [written(tmp_path / "a", [3.0, 2.0]), written(tmp_path / "b", [3.0, 1.0], seed=1, model=model)]
    (runs[1] / "warnings.txt").write_text("update 5: lr_c is 0\n")
    told = compare(runs, tmp_path / "c.html")
    assert told.tables["Options that differ"] == (
        ["option", "a", "b"], [["model.lr_d", "0.001", "0.002"], ["model.gp_weight", "-", "3.0"]]
    )  # fmt: skip
    assert re.search(r"^model\.lr_d +0\.001 +0\.002$", str(told), re.MULTILINE)
    assert list(told.tables) == ["Runs", "fid/lenet", "Options that differ"]
    text = Page(tmp_path / "c.html").text
    assert "lr_c is 0" in text and text.count("config.yaml") == 2 and "Warnings" in text
    (runs[0] / "config.yaml").unlink()
    assert "Options that differ" not in compare(runs).tables
    alike = [written(tmp_path / name, [3.0, 2.0], seed) for seed, name in enumerate("de")]
    assert "Options that differ" not in compare(alike).tables


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"class_path": "Grid"}}, "must be on the same data, got Ring (a) and Grid (b)."),
        ({"data": {"class_path": "Ring", "init_args": {"modes": 5}}},
         "must be on the same data, got Ring of modes 8 (a) and Ring of modes 5 (b)."),
    ],
)  # fmt: skip
def test_other_data_are_not_compared(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    runs = [str(written(tmp_path / "a", [3.0])), str(written(tmp_path / "b", [2.0], **change))]
    with pytest.raises(SystemExit) as caught:
        main(["compare", *runs])
    assert str(caught.value.code) == f"error: Runs that are compared {words}" and not Path("comparison.html").exists()


def test_runs_that_differ_in_more_than_their_seeds(tmp_path: Path) -> None:
    written(tmp_path / "a" / "x", [3.0])
    written(tmp_path / "a" / "y", [2.0], 1, model={"class_path": "lightning_gans.GAN"})
    told = r"The runs in .*a must differ in their seeds alone, got .*WGANGP.* and .*GAN.* for model.class_path \(x, y\)"
    with pytest.raises(ValueError, match=told):
        compare([tmp_path / "a", tmp_path / "a"])


def test_mistakes_of_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (str(written(tmp_path / name, [3.0])) for name in "ab")
    for args, words in (
        ([a], "must be of two runs or more, got 1."),
        ([a, str(tmp_path / "c")], "or be a folder of runs that do, got"),
        ([a, b, "--reach=fid"], "--reach must be SCORE=VALUE, as fid/lenet=20, got fid."),
        ([a, b, "--reach=kid=2"], "--reach must name a score of the runs (fid/lenet), got kid."),
        ([a, b, f"--out={a}"], "--out must be the name of a file"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["compare", *args])
        assert words in str(caught.value.code), args
    for runs in ([a, f"{a}/../a"], [a, str(tmp_path)]):
        with pytest.raises(ValueError, match=r"^Runs that are compared must be different ones, got a twice \(in "):
            compare(runs)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *args: None if n == "plotly" else find(n, *args))
    for args in (["compare", a, b], ["report", f"--ckpt_path={a}"]):
        with pytest.raises(SystemExit) as caught:
            main(args)
        assert str(caught.value.code) == f"error: plotly must be installed for this: {python()} -m pip install plotly"


def test_scores_that_were_measured_otherwise_are_told(tmp_path: Path) -> None:
    a, b = (written(tmp_path / name, [3.0]) for name in "ab")
    (b / "scores-fid.jsonl").write_text(json.dumps({"protocol": {"num_fake": 10, "seed": 0}}) + "\n")
    (note,) = compare([a, b]).notes
    assert note == "Scores of fid were not measured alike (num_fake): compare them with care."


def test_what_a_comparison_lacks_is_told(tmp_path: Path) -> None:
    """A seed that left no metrics, by its name, and data that may be others; on the page as on the terminal."""
    for seed in range(2):
        written(tmp_path / "a" / f"seed-{seed}", [3.0], seed)
    b = written(tmp_path / "b", [2.0])
    (tmp_path / "a" / "seed-1" / "metrics.csv").unlink()
    (b / "config.yaml").unlink()
    told = compare([tmp_path / "a", b], tmp_path / "c.html")
    for note in (
        "a: without seed-1, which has no metrics.csv.",
        "b: its data are not on record (config.yaml), and may be others.",
    ):
        assert note in told.notes and note in str(told) and note in Page(tmp_path / "c.html").text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_browser_shows_it(tmp_path: Path, command: str) -> None:
    """All charts are drawn and the film plays, without a word in the console."""
    for name in "ab":
        written(tmp_path / name, [30.0, 9.0, 11.0])
    runs = [f"--ckpt_path={tmp_path / 'a'}"] if command == "report" else [str(tmp_path / "a"), str(tmp_path / "b")]
    main([command, *runs, f"--out={tmp_path / 'page.html'}"])
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=8000",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1240,3000",
    ]
    address = f"file://{tmp_path / 'page.html'}"
    shot = [str(CHROMIUM), *options, f"--screenshot={tmp_path / 'page.png'}", address]
    subprocess.run(shot, check=True, capture_output=True, timeout=120)
    assert Image.open(tmp_path / "page.png").size == (1240, 3000)
    done = subprocess.run([str(CHROMIUM), *options, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    dom = done.stdout
    charts = len(re.findall(r'id="(scores|terms|timed)-\d+"', dom))
    assert charts >= 3 and dom.count('class="cartesianlayer"') == charts
    assert "update 200</output>" in dom and '<img class="frame" alt="samples" src="data:image/png' in dom
