"""The command line, as a newcomer and as somebody in a hurry would use it."""

from __future__ import annotations

import csv
import importlib.util
import logging
import re
import shutil
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
import yaml
from common import equal, make
from PIL import Image
from torch import nn

from lightning_gans import GAN, WGANGP, GANModule, __version__, checks
from lightning_gans.cli import GANCLI, OTHERS, main, shortcuts
from lightning_gans.cli import plan as planning
from lightning_gans.cli.commands import loaded
from lightning_gans.cli.gan_cli import command, go_fast
from lightning_gans.cli.plan import duration
from lightning_gans.cli.recipes import RECIPES, unasked
from lightning_gans.compat import shell
from lightning_gans.runs.card import card

TRAINER = {"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1, "max_steps": 4}
TOY = {
    "model": {
        "class_path": "WGANGP",
        "init_args": {
            "latent_dim": 2,
            "generator": {"class_path": "ToyGenerator", "init_args": {"width": 8}},
            "discriminator": {"class_path": "ToyDiscriminator", "init_args": {"width": 8}},
        },
    },
    "data": {"class_path": "Ring", "init_args": {"batch_size": 16}},
    "trainer": TRAINER,
    "grid": {"every_n_steps": None},  # half of a run of four updates
}
IMAGES = {
    "model": {
        "class_path": "WGANGP",
        "init_args": {
            "latent_dim": 6,
            "generator": {"class_path": "DCGANGenerator", "init_args": {"width": 4, "num_classes": 10}},
            "discriminator": {
                "class_path": "DCGANDiscriminator",
                "init_args": {"width": 4, "num_classes": 10, "norm": "none"},
            },
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 8}},
    "trainer": TRAINER | {"max_steps": 2},
    "grid": {"every_n_steps": None},
}


def cli(*args: str, config: dict[str, Any] | None = TOY) -> None:
    """Run the command line with a small default configuration."""
    path = Path("default.yaml").absolute()
    if config is not None:
        path.write_text(yaml.safe_dump(config))
    main(list(args), default_config=path)


def refused(capsys: pytest.CaptureFixture[str], *args: str, config: dict[str, Any] | None = TOY) -> str:
    """Run a command that must end with a message and no traceback; the message."""
    with pytest.raises(SystemExit) as caught:
        cli(*args, config=config)
    if isinstance(caught.value.code, str):
        assert caught.value.code.startswith("error: ") and "\n" not in caught.value.code
        return caught.value.code
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "usage:" not in message
    return message


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four generator updates; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "default.yaml").write_text(yaml.safe_dump(TOY))
    main(["fit", f"--out={folder}", "--name=run"], default_config=folder / "default.yaml")
    return folder / "run"


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for images with classes."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "default.yaml").write_text(yaml.safe_dump({**IMAGES, "grid": {"every_n_steps": 500}}))
    main(["fit", f"--out={folder}", "--name=run"], default_config=folder / "default.yaml")
    return folder / "run"


@pytest.fixture
def own_run(toy_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to go on with."""
    return Path(shutil.copytree(toy_run, tmp_path / "runs" / "mine"))


# ---------------------------------------------------------------------- the run's folder
def test_what_a_run_leaves_behind(image_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert files(image_run) - {"warnings.txt"} == {  # pytest shows what we keep quiet
        "config.yaml", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/last.md",
        "samples/latest.png", "samples/step_000000.png", "samples/step_000002.png",
        "samples/animation.gif", "samples/over_training.png",
    }  # fmt: skip
    assert [row["step"] for row in rows(image_run)] == ["1", "2"]
    assert {"d/loss", "d/gradient_penalty", "g/loss", "time/images_seen"} <= rows(image_run)[0].keys()
    config = yaml.safe_load((image_run / "config.yaml").read_text())
    assert config["model"]["init_args"]["generator"]["init_args"]["shape"] == [1, 8, 8]
    assert config["seed_everything"] == 0


def test_the_report_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    cli("fit", "--name=a", "--trainer.max_steps=1", "--trainer.log_every_n_steps=5", "--grid.every_n_steps=5")
    report = capsys.readouterr().out.split("\n\n")[-1]
    named = dict(re.findall(r"^([A-Z][a-z ]+?) {2,}(\S+)$", report, re.MULTILINE))
    assert named.keys() == {"Sample grid", "Metrics", "Checkpoint", "Config"}
    assert all(Path(path).is_file() for path in named.values())
    run = Path("runs/a")
    assert [row["step"] for row in rows(run)] == ["1"]  # one update, five to a log entry: what a run ends with
    assert {"d/loss", "g/loss", "time/images_seen", "time/seconds", "lr/d", "time/seconds_per_update"} <= rows(run)[
        0
    ].keys()
    before = rows(run)
    cli("fit", f"--ckpt_path={run}", "--trainer.max_steps=1")
    assert rows(run) == before


def test_classes_of_the_current_folder_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["first", *sys.path])
    monkeypatch.setattr("sys.argv", ["lightning-gans", "--version"])
    main()
    assert sys.path[0] == "first" and sys.path[-1] == str(Path.cwd())  # last: a file there hides no package


def test_what_lies_in_a_run_is_trusted(own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By commands that load it, as by ``predict``; a checkpoint by itself is not, and the card says how."""
    Path("homemade_nets.py").write_text(
        "from lightning_gans.networks import ToyGenerator\nclass Net(ToyGenerator):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    last = own_run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert 'load("last.ckpt").sample' in card(checkpoint)
    checkpoint["hyper_parameters"]["scheduler_g"] = {"class_path": "torch.optim.lr_scheduler.LinearLR"}
    assert 'load("last.ckpt").sample' in card(checkpoint), "which load does not build"
    checkpoint["hyper_parameters"]["generator"]["class_path"] = "homemade_nets.Net"
    assert 'load("last.ckpt", trust_code=True).sample' in card(checkpoint)
    for path in (last, Path("lone.ckpt")):
        torch.save(checkpoint, path)
    Path("config.yaml").write_text("hydra: {}\n")  # another program's
    with pytest.raises(ValueError, match=r"not imported yet; it is trusted where it lies in the folder of its run, "):
        loaded("lone.ckpt")
    Path("config.yaml").unlink()
    assert "homemade_nets" not in sys.modules
    for path in (own_run, last):
        assert type(loaded(path).generator).__name__ == "Net"
    del sys.modules["homemade_nets"]


def test_the_report_tells_the_scores(capsys: pytest.CaptureFixture[str]) -> None:
    cli("fit", "--name=a", "--trainer.max_steps=2", "--trainer.callbacks=ModeCoverage",
        "--trainer.callbacks.every_n_steps=1", "--trainer.callbacks.num_samples=100")  # fmt: skip
    out = capsys.readouterr().out
    assert re.search(r"modes +\d \(at step 0\), \d \(best of training, at step \d\), \d \(last, at step 2\)", out), out
    assert [row["step"] for row in rows(Path("runs/a"))] == ["0", "1", "2"]


def test_running_again_never_overwrites(own_run: Path) -> None:
    before = {name: (own_run / name).read_bytes() for name in files(own_run)}
    for _ in range(2):
        cli("fit", "--name=mine", "--trainer.max_steps=1")
    assert {name: (own_run / name).read_bytes() for name in files(own_run)} == before
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine", "mine-2", "mine-3"]


def test_without_a_name_the_folder_is_dated() -> None:
    for _ in range(2):  # within the same second
        cli("fit", "--out=here", "--trainer.max_steps=1")
    dated = sorted(str(path.relative_to("here")) for path in Path("here").glob("*/*"))
    assert len(dated) == 2 and all(re.fullmatch(r"ring-wgangp/\d{8}-\d{6}(-2)?", name) for name in dated), dated


def test_a_run_that_does_not_start_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "fit", "--name=a", "--data.batch_size=2000", config=IMAGES)
    refused(capsys, "fit", "--name=a", "--model.d_steps=0")
    assert not Path("runs/a").exists()


@pytest.fixture
def torchs_settings() -> Iterator[None]:
    """Put back what is set for the whole process."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.benchmark = before[1]
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("deterministic", [False, True])
def test_fast_on_a_gpu(deterministic: bool, torchs_settings: None) -> None:
    module = make("wgan_gp")
    torch.use_deterministic_algorithms(deterministic)
    go_fast(module, torch.device("cuda"))
    assert torch.get_float32_matmul_precision() == "high" and module.cuda_graphs
    assert torch.backends.cudnn.benchmark is not deterministic


def test_fast_has_no_effect_on_a_cpu(torchs_settings: None) -> None:
    cli("fit", "--name=slow")
    cli("fit", "--name=fast", "--fast=true")
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.benchmark
    slow, fast = (torch.load(f"runs/{n}/checkpoints/last.ckpt", weights_only=True) for n in ("slow", "fast"))
    assert equal(slow["state_dict"], fast["state_dict"])
    assert yaml.safe_load(Path("runs/fast/config.yaml").read_text())["fast"] is True


def test_only_the_parser_that_is_asked_for_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[Any] = []
    add = GANCLI.add_arguments_to_parser
    monkeypatch.setattr(GANCLI, "add_arguments_to_parser", lambda self, p: built.append(p) or add(self, p))
    for args, parsers in ((["fit", "--help"], 1), (["--help"], 3)):
        built.clear()
        with pytest.raises(SystemExit):
            cli(*args)
        assert len(built) == parsers
    said = capsys.readouterr().out.rpartition("usage: ")[2]  # of the last one, in our words, which end
    assert "Score a run or a checkpoint.\n" in said and "any technique on any" in said and "Lightning T" not in said


def test_warnings_of_other_commands_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a run; Python's way of showing them is left as it was."""
    before, shown = warnings.formatwarning, list[str]()
    warn = lambda _: shown.append(warnings.formatwarning("two\nwords", UserWarning, "a.py", 1))  # noqa: E731
    monkeypatch.setitem(OTHERS, "recipes", warn)
    main(["recipes"])
    assert shown == ["warning: two words\n"] and warnings.formatwarning is before


def test_the_usage_of_other_commands_names_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report", "score"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: lightning-gans {name} ")


@pytest.mark.parametrize("value", ["nan", "-inf", ".nan"])
def test_numbers_that_are_none(capsys: pytest.CaptureFixture[str], value: str) -> None:
    told = refused(capsys, "fit", f"--model.gp_weight={value}")
    assert "gp_weight must be a finite number" in told and value.strip("-.") in told


def test_a_refused_run_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "fit", "--trainer.callbacks=[EMA, EMA]")
    assert not Path("runs").exists()
    Path("mine").mkdir()
    refused(capsys, "fit", "--trainer.callbacks=[EMA, EMA]", "--out=mine")
    assert Path("mine").is_dir() and not list(Path("mine").iterdir())


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    cli("--version")
    assert capsys.readouterr().out.startswith(f"lightning_gans {__version__}, torch {torch.__version__}, ")


def test_shortcuts_change_no_configuration(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor what is told of a wrong one."""
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(SystemExit):
            cli("fit", "--model.generator.width=9", "--trainer.callbacks+=ModeCoverage", "--print_config")
        said += [capsys.readouterr().out + refused(capsys, "fit", "--model.generator.widht=9")]
        for place, name, theirs in (
            (jsonargparse._subcommands, "find_action_and_subcommand", shortcuts._FIND),
            (jsonargparse._core, "find_action_and_subcommand", shortcuts._FIND),
            (jsonargparse._core, "recreate_branches", shortcuts._COPIED),
            (jsonargparse._namespace, "recreate_branches", shortcuts._COPIED),
            (jsonargparse.Namespace, "_parse_key", shortcuts._PARSE_KEY),
        ):
            monkeypatch.setattr(place, name, theirs)
    assert said[0] == said[1] and "width: 9" in said[0] and "widht" in said[0]


def test_an_option_is_found_that_came_later() -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--a.b")
    assert shortcuts._find(parser, "a.c") == (None, None) and shortcuts._find(parser, "a.b")[0].dest == "a.b"
    parser.add_argument("--a.c", "--d")
    assert shortcuts._find(parser, "a.c") == shortcuts._find(parser, "d") != (None, None)
    assert shortcuts._find(parser, "d", exclude=type(shortcuts._find(parser, "d")[0])) == (None, None)


def test_copies_of_configurations() -> None:
    """Apart from the original, with names that the class has itself, and without those that are left out."""
    given = jsonargparse.Namespace({"a": jsonargparse.Namespace({"items": [jsonargparse.Namespace(b=1)]}), "c": 2})
    copy = shortcuts._copied(given, {"c"})
    assert copy == shortcuts._COPIED(given, {"c"}) and copy.as_dict() == {"a": {"items": [{"b": 1}]}}
    copy["a"]["items"][0].b = 3
    assert given.as_dict() == {"a": {"items": [{"b": 1}]}, "c": 2} == shortcuts._copied(given).as_dict()


def test_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli("fit", "--dry_run", "--name=a", "--trainer.max_epochs=3", config=IMAGES)
    plan = capsys.readouterr().out
    assert caught.value.code == 0
    assert {p.name for p in Path().iterdir()} == {"default.yaml"}  # nothing was written
    for words in ("WGANGP, 5 discriminator update", "1,500 training images", "shape (1, 8, 8)", "DCGANGenerator",
                  "gradient_penalty", "8 real samples", ", 40 samples\n", "2 generator updates", "MiB",
                  ", or 3 epochs\n", "runs/a"):  # fmt: skip
        assert words in plan, words
    assert all(re.search(rf"^{net} .*[\d,]+ parameters", plan, re.MULTILINE) for net in ("Generator", "Discriminator"))


def test_a_long_cycle_is_measured_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cycles, cycle = [], WGANGP.cycle
    monkeypatch.setattr(WGANGP, "cycle", lambda self: (cycles.append(1), cycle(self))[1])
    monkeypatch.setattr(planning, "ENOUGH", 0.0)
    with pytest.raises(SystemExit):
        cli("fit", "--dry_run")
    assert len(cycles) == 1 and re.search(r"Cycle +[1-9][\d.]* m?s measured", capsys.readouterr().out)


def test_a_dry_run_refuses_callbacks_that_do_not_fit_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Of those that do not fit the model see test_text.py; what a run would refuse, no plan is printed for."""
    told = refused(capsys, "fit", "--dry_run", "--trainer.callbacks+=GenerativeMetrics")
    assert "GenerativeMetrics needs uint8 images" in told and told.endswith("for toy data use ModeCoverage.")
    assert capsys.readouterr().out == ""
    told = refused(capsys, "fit", "--dry_run", "--trainer.callbacks=[EMA, EMA]")
    assert "EMA must be listed once" in told
    told = refused(capsys, "fit", "--trainer.callbacks=[ModeCoverage, ModeCoverage]")
    assert "must keep states of their own, got ModeCoverage twice, each as ModeCoverage[coverage]." in told


def test_a_monitor_that_nothing_measures_is_told_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    why = "or a value that training logs, got 'metrics/fid/lenet', which nothing measures."
    config = TOY | {"checkpoint": {"monitor": "metrics/fid/lenet"}}
    told = refused(capsys, "fit", "--dry_run", "--trainer.callbacks+=ModeCoverage", config=config)
    assert "ModelCheckpoint: monitor must be one of metrics/high_quality, metrics/modes, metrics/reverse_kl, " in told
    assert why in told and told.endswith("default.yaml: give --checkpoint.monitor another, or null.")
    told = refused(capsys, "fit", "--name=a", "--checkpoint.monitor=metrics/fid/lenet", config=config)
    assert told.endswith("ModelCheckpoint: monitor must be " + why.removeprefix("or "))
    assert not Path("runs").exists()


def test_a_recipes_monitor_and_scores_are_told_to_be_its_own() -> None:
    args = ["fit", f"--config={RECIPES}/markov/rel_gan.yaml", "--data", "TextFile"]
    told = (
        "ModelCheckpoint: monitor must be a value that training logs, got 'metrics/js-2/law', which nothing measures."
    )
    hint = " It is that of markov/rel_gan: give --checkpoint.monitor another, or null."
    assert unasked(told, args) == hint
    assert unasked(told.replace("/law", ""), args) == unasked(told, [*args, "--checkpoint.monitor=a"]) == ""
    args[1:2] = ["--config", f"{RECIPES}/digits/trans_gan.yaml"]
    told = (
        "extractor='lenet' is trained on the data set's labels, but there are none: take 'inception' or give a module."
    )
    hint = "--trainer.callbacks EMA --checkpoint.monitor null trains without its scores."
    assert unasked(told, args) == f" It is part of digits/trans_gan: {hint}"
    assert unasked(told, [*args, "--trainer.callbacks", "null"]) == ""
    told, args[2] = "path images does not exist in /tmp: it must be a folder.", f"{RECIPES}/images/r3_gan.yaml"
    assert unasked(told, args[:3]) == " It is that of images/r3_gan: give --data.path."
    assert unasked(told, [*args[:3], "--data.path=images"]) == unasked(told.replace("images", "a"), args) == ""
    assert (
        unasked(told, ["fit", f"--config={(RECIPES / 'images' / 'r3_gan.yaml').read_text()}"]) == ""
    )  # no file's name


def test_a_class_method_makes_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("homemade.py").write_text(
        "from lightning_gans.networks import ToyGenerator\nclass Net(ToyGenerator):\n"
        "    @classmethod\n    def small(cls, latent_dim: int = 1) -> 'Net':\n"
        "        return cls((2,), latent_dim, 3, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit):
        cli("fit", "--dry_run", "--name=a", "--model.generator=homemade.Net.small")
    assert re.search(r"Generator +Net, +[\d,]+ parameters", capsys.readouterr().out)


class Records(logging.Handler):
    """What loggers say."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def test_what_the_terminal_shows(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run opens with what it is and ends with what to type next; Lightning is heard if that is asked for."""
    records, known = Records(), [logging.getLogger(n) for n in ("pytorch_lightning", "lightning_fabric", "lightning")]
    for logger in known:
        logger.setLevel(logging.INFO)
        logger.addHandler(records)
    try:
        cli("fit", "--ckpt_path", str(own_run), "--trainer.max_steps=5", "--trainer.enable_progress_bar=true",
            "--trainer.max_time=00:01:00:00")  # fmt: skip
        out, quietly = capsys.readouterr().out, list(records.said)
        with pytest.raises(SystemExit):
            cli("fit", "--dry_run")
        assert quietly == records.said == [] and [logger.level for logger in known] == [logging.INFO] * 3
        cli("fit", "--name=loud", "--trainer.max_steps=1", "--verbose")
    finally:
        for logger in known:
            logger.removeHandler(records)
            logger.setLevel(logging.ERROR)
    assert any("Seed set to 0" in text for text in records.said) and any("stopped" in text for text in records.said)
    lines = out.splitlines()
    for line, words in zip(lines, ("Technique      WGANGP, 5 discriminator updates, 1 generator update per cycle",
                                   "Data           Ring: 2-D toy", "Generator      ToyGenerator", "Discriminator  Toy",
                                   "Length         5 generator updates, at most 60 minutes, of which 4 are done",
                                   "Device         cpu, ",
                                   f"Run folder     runs/{own_run.name}")):  # fmt: skip
        assert line.startswith(words), out
    assert lines[-2].startswith("Next ") and lines[-2].endswith(f"predict --ckpt_path=runs/{own_run.name}  # samples")
    assert re.search(r"4/5 \[00:00, .*left", out) and "d/gradient_penalty=" in out
    assert f"Checkpoint   runs/{own_run.name}/checkpoints/last.ckpt" in lines and re.search(
        r"^Trained +5 updates in", out, re.M
    )


@pytest.mark.parametrize("activated", [True, False])
def test_what_to_type_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], activated: bool
) -> None:
    """By the interpreter that runs, where the shell would take another one, or none; no page without plotly."""
    there = Path.cwd() / ".venv" / "bin"
    there.mkdir(parents=True)
    other = Path.cwd() / "other"
    other.mkdir()
    for folder in (there, other):  # as environments do
        (folder / "python").symlink_to(sys.executable)
    (there / "lightning-gans").touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(there / "python"))
    monkeypatch.setenv("PATH", str(there if activated else other))
    python = "python" if activated else ".venv/bin/python"
    for program, words in (
        ("train.py", f"{python} train.py"),
        ("/my stuff/train.py", f"{python} '/my stuff/train.py'"),
        (str(there / "lightning-gans"), "lightning-gans" if activated else ".venv/bin/lightning-gans"),
    ):
        monkeypatch.setattr("sys.argv", [program, "fit"])
        assert command("fit") == f"{words} fit"
    monkeypatch.setattr("sys.argv", ["my_script.py", "--folder", "fit"])  # it calls us, and has options of its own
    assert command("fit") == f"{words} fit"
    monkeypatch.setattr("sys.argv", [program, "fit"])
    monkeypatch.setattr("sys.executable", "/elsewhere/bin/python3")
    assert command("fit").startswith(words) and shell.python() == "/elsewhere/bin/python3"
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n, *args: None if n == "plotly" else find(n, *args))
    with pytest.raises(ImportError, match=r": /elsewhere/bin/python3 -m pip install plotly$"):
        checks.installed("plotly")
    cli("fit", "--name=mine", "--trainer.max_steps=1", "--trainer.max_epochs=2")
    out = capsys.readouterr().out
    assert re.search(rf"Next +{words} predict .+  # samples\n$", out)
    assert "Length         1 generator update, or 2 epochs\n" in out and "Trained      1 update in " in out


def test_one_second_is_no_seconds() -> None:
    found = [duration(s) for s in (119.7, 599.9, 600, 3e7)]
    assert found == ["2.0 minutes", "10 minutes", "10 minutes", "347 days"]
    assert [duration(s) for s in (0.6, 1.4, 1.6, 0.0)] == ["1 second", "1 second", "2 seconds", "0 seconds"]


# ---------------------------------------------------------------------- checkpoints
def test_a_checkpoint_is_enough(image_run: Path, toy_run: Path) -> None:
    for run, cls, shape in ((image_run, WGANGP, (3, 1, 8, 8)), (toy_run, WGANGP, (3, 2))):
        path = run / "checkpoints" / "last.ckpt"
        module = cls.load_from_checkpoint(path)
        assert module.sample(3).shape == shape
        checkpoint = torch.load(path, weights_only=True)
        assert all(torch.equal(value, checkpoint["state_dict"][name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("what", ["folder", "file="])
def test_resume_goes_on_in_the_folder(own_run: Path, what: str) -> None:
    before = rows(own_run)
    last = str(own_run / "checkpoints" / "last.ckpt")
    given = {"folder": ["--ckpt_path", str(own_run)], "file=": [f"--ckpt_path={last}"]}
    asked = ["--trainer.max_steps=6", "--grid.every_n_steps=6"]
    cli("fit", *given[what], *asked, config={"data": {"class_path": "Digits"}})  # the configuration is of no account
    assert [path.name for path in own_run.parent.iterdir()] == ["mine"]
    assert rows(own_run)[:4] == before and [row["step"] for row in rows(own_run)] == list("123456")
    assert {"config.yaml", "config-2.yaml", "samples/step_000006.png"} <= files(own_run)
    assert yaml.safe_load((own_run / "config-2.yaml").read_text())["trainer"]["max_steps"] == 6
    assert torch.load(own_run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_resume_ends_where_one_run_would(own_run: Path) -> None:
    cli("fit", "--ckpt_path", str(own_run), "--trainer.max_steps=7")
    cli("fit", "--name=whole", "--trainer.max_steps=7")
    a, b = (torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("mine", "whole"))
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in b["state_dict"])
    timeless = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(r)] for r in (own_run, Path("runs/whole"))
    ]
    assert timeless[0] == timeless[1]
    seconds = [float(row["time/seconds"]) for row in rows(own_run)]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_resume_uses_the_newest_configuration(own_run: Path) -> None:
    """Resumed with more steps, then once more without saying so: the number that was said last counts."""
    last = own_run / "checkpoints" / "last.ckpt"
    four_updates = last.read_bytes()
    cli("fit", "--ckpt_path", str(own_run), "--trainer.max_steps=5")
    last.write_bytes(four_updates)  # as if that run had been killed
    cli("fit", "--ckpt_path", str(own_run))
    assert torch.load(last, weights_only=True)["global_step"] == 5
    assert "config-3.yaml" not in files(own_run)
    assert [row["step"] for row in rows(own_run)] == list("12345")


def test_the_configuration_of_a_resumed_run_begins_another(own_run: Path) -> None:
    """It names no checkpoint: it trained on in the folder that it lies in."""
    cli("fit", "--ckpt_path", str(own_run), "--trainer.max_steps=5")
    before = {name: (own_run / name).read_bytes() for name in files(own_run)}
    cli("fit", f"--config={own_run}/config-2.yaml", "--name=another", "--out=runs")
    assert {name: (own_run / name).read_bytes() for name in files(own_run)} == before
    a, b = (torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("mine", "another"))
    assert equal(a["state_dict"], b["state_dict"]) and b["global_step"] == 5


def test_a_classifier_that_a_checkpoint_holds_is_not_warned_of(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(WGANGP, "classifier_weights", None, raising=False)
    for where, whether in (("--name=a", True), (f"--ckpt_path={own_run}", False)):
        recwarn.clear()
        cli("fit", where)
        assert any("The classifier stays as it was drawn" in str(w.message) for w in recwarn) is whether


def test_resume_obeys_what_is_asked(own_run: Path) -> None:
    """Lightning 2.6 lets the checkpoint's hyperparameters win over the command line."""
    cli("fit", "--ckpt_path", str(own_run), "--trainer.max_steps=5", "--model.gp_weight=3")
    assert yaml.safe_load((own_run / "config-2.yaml").read_text())["model"]["init_args"]["gp_weight"] == 3
    assert torch.load(own_run / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]["gp_weight"] == 3


def test_a_resume_that_does_not_fit_changes_nothing(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(own_run)
    message = refused(capsys, "fit", "--ckpt_path", str(own_run), "--data=Digits")
    assert "The checkpoint does not fit the networks" in message and "size mismatch" in message
    assert files(own_run) == before


def test_test_scores_a_checkpoint(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = (own_run / "metrics.csv").read_bytes()
    cli("test", "--ckpt_path", str(own_run), "--trainer.callbacks=ModeCoverage", "--trainer.callbacks.num_samples=100")
    told = capsys.readouterr().out
    assert re.search(r"^modes +\d", told, re.M) and "Test metric" not in told
    assert f"Scores       {Path('runs', own_run.name, 'test-scores-coverage.jsonl')}\n" in told
    assert "test-scores-coverage.jsonl" in files(own_run)
    assert (own_run / "metrics.csv").read_bytes() == metrics  # the curve of the training is left alone


def test_a_folder_of_runs_is_told_its_newest(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "predict", "--ckpt_path=runs", config=None)
    assert f"There is no checkpoint at runs/checkpoints/last.ckpt: did you mean runs/{own_run.name}?" in message


def test_predict_writes_images(image_run: Path, tmp_path: Path) -> None:
    """As files, the same ones each time, and as one array."""
    run = Path(shutil.copytree(image_run, tmp_path / "run"))
    for options in (["70"], ["1"], ["70", "--npz"]):
        cli("predict", "--ckpt_path", str(run), "--samples", *options)
    drawn = {"grid.png", "interpolation.png", "walk.gif"}
    for folder, n in (("predictions", 70), ("predictions-2", 1)):
        assert files(run / folder) == drawn | {f"{i:05d}.png" for i in range(n)}
    first, only = (np.array(Image.open(run / f"predictions{k}" / "00000.png")) for k in ("", "-2"))
    assert first.shape[:2] == only.shape[:2] == (8, 8) and first.std() > 0 and only.std() > 0
    film = Image.open(run / "predictions" / "walk.gif")
    assert getattr(film, "n_frames", 1) == 48
    made = np.load(run / "predictions-3" / "samples.npz")["samples"]
    assert made.dtype == np.uint8 and made.shape == (70, 8, 8, 1)
    for i in (0, 69):
        assert np.array_equal(made[i, :, :, 0], np.array(Image.open(run / "predictions" / f"{i:05d}.png").convert("L")))
    assert files(run / "predictions-3") == {"samples.npz"} | drawn


def test_predict_writes_points(own_run: Path) -> None:
    cli("predict", "--ckpt_path", str(own_run / "checkpoints" / "last.ckpt"), "--samples=5")
    values = np.loadtxt(own_run / "predictions" / "samples.csv", delimiter=",")
    assert values.shape == (5, 2) and values.std() > 0
    assert Image.open(own_run / "predictions" / "samples.png").size[0] > 300
    cli("predict", "--ckpt_path", str(own_run), "--samples=5", "--npz")
    assert np.load(own_run / "predictions-2" / "samples.npz")["samples"].shape == (5, 2)


def test_a_checkpoint_outside_of_its_run(image_run: Path, tmp_path: Path) -> None:
    """It remembers its model and data, so that no configuration is needed; a new run folder is made."""
    shutil.copy(image_run / "checkpoints" / "last.ckpt", tmp_path / "best.ckpt")
    cli("predict", "--ckpt_path=best.ckpt", "--samples=2", "--name=p")
    assert {"00000.png", "00001.png"} <= files(Path("runs/p/predictions"))
    cli("fit", "--ckpt_path=best.ckpt", "--name=f", "--trainer.max_steps=3", "--trainer.accelerator=cpu")
    assert torch.load("runs/f/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


class Armed(nn.Module):
    """A network of a module that is imported."""

    def __init__(self) -> None:
        super().__init__()
        Path("pwned").touch()


def test_a_checkpoint_outside_of_its_run_builds_only_what_load_would(capsys: pytest.CaptureFixture[str]) -> None:
    """Optimizers and data too, with whatever they are made of; for anything else the configuration has to be given."""
    inner = {"class_path": "RareTail1D", "init_args": {"batch_size": 8}}
    tail = {"class_path": "Quantile", "init_args": {"share": 0.01}}
    data = {"class_path": "TailSampled", "init_args": {"data": inner, "tail": tail}}
    optimizers = {"g": "torch.optim.RMSprop", "d": "lightning_gans.optim.OptimisticAdam"}
    options = {f"optimizer_{k}": {"class_path": v, "init_args": {"lr": 0.1}} for k, v in optimizers.items()}
    model = {**TOY["model"], "init_args": {**TOY["model"]["init_args"], **options}}
    cli("fit", "--name=r", config={**TOY, "model": model, "data": data})
    shutil.copy("runs/r/checkpoints/last.ckpt", "a.ckpt")
    cli("predict", "--ckpt_path=a.ckpt", "--samples=2", "--name=p")
    checkpoint = torch.load("a.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["generator"]["class_path"] = f"{__name__}.Armed"
    torch.save(checkpoint, "b.ckpt")
    message = refused(capsys, "predict", "--ckpt_path=b.ckpt", config=None)
    assert "Armed' is refused: it is none of lightning_gans' or torch.nn's; if you trust it, give its conf" in message
    boosted = {**TOY["model"]["init_args"], "base": "runs/r/checkpoints/last.ckpt"}
    cli("fit", "--name=m", config={**TOY, "model": {"class_path": "BoostedGAN", "init_args": boosted}, "data": data})
    shutil.copy("runs/m/checkpoints/last.ckpt", "m.ckpt")
    cli("predict", "--ckpt_path=m.ckpt", "--samples=2", "--name=n")
    checkpoint = torch.load("m.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["base"] = "b.ckpt"
    torch.save(checkpoint, "m.ckpt")
    assert "Armed' is refused" in refused(capsys, "predict", "--ckpt_path=m.ckpt", config=None)
    assert not Path("pwned").exists()
    cli("predict", "--ckpt_path=b.ckpt", "--config=runs/r/config.yaml", "--samples=2", "--name=q")


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model.gp_wieght=3"], "'gp_wieght': did you mean gp_weight?"),
        (["--model=WGNGP"], "'WGNGP': did you mean WGANGP?"),
        (["--data=Rings"], "'Rings': did you mean Ring?"),
        (["--model.generator=ToyGenerater"], "'ToyGenerater': did you mean ToyGenerator?"),
        (["--data.bach_size=3"], "'bach_size': did you mean batch_size?"),
        (["--trainer.max_stepz=3"], "did you mean max_steps"),
        (["--trainer.callbacks=ModeCoverrage"], "'ModeCoverrage': did you mean ModeCoverage?"),
        (["--config=nope.yaml"], "File does not exist"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    message = refused(capsys, "fit", *args)
    assert words in message and message.count("did you mean") <= 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("where", ["model", "data", "trainer"])
def test_a_wrong_key_in_a_file(capsys: pytest.CaptureFixture[str], where: str) -> None:
    wrong = {
        "model": ("gp_weigth", "gp_weight"),
        "data": ("batchsize", "batch_size"),
        "trainer": ("max_step", "max_steps"),
    }
    key, right = wrong[where]
    config = yaml.safe_load(yaml.safe_dump(TOY))
    (config[where] if where == "trainer" else config[where]["init_args"])[key] = 1
    message = refused(capsys, "fit", config=config)
    assert key in message and right in message


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fit", "--model.d_steps=0"], "d_steps must be an integer >= 1, got 0"),
        (["fit", "--model.gp_weight=-1"], "gp_weight must be a finite number >= 0, got -1"),
        (["fit", "--data.batch_size=0"], "batch_size must be an integer >= 1, got 0"),
        (["fit", "--model.latent_dim=-1"], "latent_dim must be an integer >= 1, got -1"),
        (["fit", "--trainer.accelerator=abacus"], "invalid accelerator name"),
        (["fit", "--trainer.strategy=none"], "invalid strategy name"),
        (["fit", "--seed_everything=-1"], "seed_everything must be an integer >= 0, got -1"),
        (["fit", "--data=Images", "--data.path=nowhere"], "path nowhere does not exist"),
        (["fit", "--data=MNIST", "--data.root=nowhere", "--data.download=false"], "nowhere/MNIST/raw/"),
        (["fit", "--trainer.enable_checkpointing=false"], "found `ModelCheckpoint` in callbacks"),
        (["fit", "--trainer.callbacks=[ModeCoverage,ModeCoverage]"], "ModeCoverage"),
        (["fit", "--ckpt_path=nowhere"], "There is no checkpoint at nowhere."),
        (["fit", "--ckpt_path"], "expected one argument"),
        (["test"], "test needs --ckpt_path"),
        (["predict", "--samples=3"], "predict needs --ckpt_path"),
        (["validate"], "error: The command must be fit, test, predict, boost, "),
        ([], "error: The command must be fit, test, predict, boost, "),
        (["reprot"], "sweep or workspace, got reprot: did you mean report?"),
        (["foo"], "sweep or workspace, got foo."),
        (
            ["fit", "--config=ring"],
            "must be a file or a recipe, got ring: did you mean ring/ada_gan, ring/ddpm, ring/ga",
        ),
        (["fit", "--config", "r3_gan"], "got r3_gan: did you mean cifar10/r3_gan, digits/r3_gan, grid/r3_gan?"),
        (["fit", "--config=nosuch"], "must be a file or a recipe, got nosuch (`recipes` lists them)."),
    ],
)
def test_one_sentence_and_no_traceback(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert words in refused(capsys, *args)
    assert not Path("runs").exists() or not files(Path("runs"))


def test_networks_that_cannot_take_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "fit", "--data=Ring", config=IMAGES)
    assert (
        message
        == "error: DCGANGenerator takes shape=(C, H, W) with H and W multiples of 4 from 16 on, or both 8, got (2,)."
    )
    with pytest.raises(
        SystemExit, match="It is part of digits/wgan_gp, where a fit begins that is given no --config: "
    ):
        main(["fit", "--data=Ring", "--dry_run"], default_config=RECIPES / "digits" / "wgan_gp.yaml")
    message = refused(capsys, "fit", "--model.discriminator.norm=batch", config=IMAGES)
    assert "'gradient_penalty' is per sample, but BatchNorm (discriminator layer" in message


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "foreign", "pickle"])
def test_bad_checkpoints(capsys: pytest.CaptureFixture[str], toy_run: Path, command: str, kind: str) -> None:
    whole = (toy_run / "checkpoints" / "last.ckpt").read_bytes()
    path = Path(f"{kind}.ckpt")
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello"}.get(kind, b""))
    if kind in ("foreign", "pickle"):
        torch.save({"weights": torch.zeros(2)} if kind == "foreign" else torch.nn.Linear(1, 1), path)
    message = refused(capsys, command, f"--ckpt_path={path}")
    assert re.search(rf"--ckpt_path: {path} (is not a readable|holds no Lightning) checkpoint", message)


def test_errors_that_are_not_the_users_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WGANGP, "generator_terms", lambda *args: [][0])
    with pytest.raises(IndexError):
        cli("fit")


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_unwritable_out(toy_run: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    Path("file").touch()
    shutil.copy(toy_run / "checkpoints" / "last.ckpt", "lone.ckpt")
    args = ["--ckpt_path=lone.ckpt"] if command == "predict" else []
    message = refused(capsys, command, "--out=file/runs", "--name=a", *args)
    assert "the run folder file/runs/a cannot be written" in message and "--out" in message


def test_an_out_that_is_a_link_to_nowhere(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is not mounted, say: it was tried for ever."""
    Path("runs").symlink_to("/nonexistent/runs")
    monkeypatch.setattr("lightning_gans.runs.folder.unused", partial(next, iter([Path("runs/a")])))
    assert "the run folder runs/a cannot be written (File exists)" in refused(capsys, "fit", "--name=a")
    assert Path("runs").is_symlink()


@pytest.mark.parametrize(
    ("asked", "option", "of"),
    [
        ("predict", "--dry_run", "fit"),
        ("test", "--dry_run", "fit"),
        ("predict", "--grid.columns=3", "fit"),
        ("test", "--samples=9", "predict"),
        ("fit", "--npz", "predict"),
        ("fit", "--temperature=0.5", "predict"),
    ],
)
def test_options_of_another_command_are_not_ignored(
    own_run: Path, capsys: pytest.CaptureFixture[str], asked: str, option: str, of: str
) -> None:
    before = files(own_run)
    name = option.partition("=")[0]
    words = f"error: {name} must be left out with {asked}: it is an option of {of}."
    assert refused(capsys, asked, f"--ckpt_path={own_run}", option) == words and files(own_run) == before


@pytest.mark.parametrize("option", ["--checkpoint.dirpath", "--trainer.default_root_dir"])
def test_another_place_of_a_run_is_not_ignored(capsys: pytest.CaptureFixture[str], option: str) -> None:
    """In the configuration of a run they are those of its folder, and another run has its own."""
    words = f"error: {option} must be left out: --out and --name say where a run lies."
    assert refused(capsys, "fit", "--name=a", option, "elsewhere") == words and not Path("runs").exists()


def test_predict_needs_a_number_of_samples(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(own_run)
    assert "samples must be an integer >= 1, got 0" in refused(
        capsys, "predict", "--ckpt_path", str(own_run), "--samples=0"
    )
    assert files(own_run) == before


def test_test_without_a_score(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is nothing to score with" in refused(capsys, "test", "--ckpt_path", str(own_run))


# ---------------------------------------------------------------------- options of Lightning's
@pytest.mark.parametrize(
    "args",
    [
        ["--trainer.logger=false"],
        ["--trainer.fast_dev_run=true"],
        ["--trainer.max_epochs=1", "--trainer.max_steps=-1", "--data.batches_per_epoch=10"],
        ["--trainer.enable_progress_bar=true"],
        ["--trainer.enable_progress_bar=true", "--trainer.callbacks=TQDMProgressBar"],
        ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv"],
    ],
)
def test_options_of_the_trainer(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli("fit", "--name=a", "--trainer.max_steps=1", *args)
    assert re.search(r"^Run folder +runs/a$", capsys.readouterr().out, re.MULTILINE)
    assert bool([*Path("csv").rglob("metrics.csv")]) == ("--trainer.logger.save_dir=csv" in args)


# ---------------------------------------------------------------------- networks follow the data
def pictures(folder: Path, modes: list[str], classes: int = 0) -> Path:
    """24 random images of many sizes."""
    random = np.random.RandomState(0)
    for i in range(24):
        where = folder / f"class{i % classes}" if classes else folder
        where.mkdir(parents=True, exist_ok=True)
        height, width = random.randint(5, 50, 2)
        image = Image.fromarray(random.randint(0, 255, (height, width, 3)).astype(np.uint8))
        image.convert(modes[i % len(modes)]).save(where / f"{i}.png")
    return folder


def trained_on(*args: str) -> GANModule:
    cli("fit", "--name=a", "--data=Images", "--data.batch_size=4", *args, config=IMAGES)
    return WGANGP.load_from_checkpoint("runs/a/checkpoints/last.ckpt")


def test_from_digits_to_a_folder_of_rgb_images() -> None:
    path = pictures(Path("flat"), ["RGB", "L", "RGBA"])
    module = trained_on(f"--data.path={path}", "--data.size=32")
    assert module.sample(2).shape == (2, 3, 32, 32)
    assert module.num_classes is None  # the digits' ten classes are gone with the digits


def test_from_digits_to_a_folder_of_classes() -> None:
    module = trained_on(f"--data.path={pictures(Path('classes'), ['RGB'], classes=3)}", "--data.size=8")
    assert module.sample(2).shape == (2, 3, 8, 8) and module.num_classes == 3
    cli("predict", "--ckpt_path=runs/a", "--samples=2")
    assert Image.open("runs/a/predictions/00001.png").mode == "RGB"


def test_from_digits_to_a_zip_of_grey_images() -> None:
    with zipfile.ZipFile("flat.zip", "w") as archive:
        for path in pictures(Path("flat"), ["L", "RGB"]).iterdir():
            archive.write(path)
    assert trained_on("--data.path=flat.zip", "--data.size=28", "--data.mode=L").sample(2).shape == (2, 1, 28, 28)


def test_an_unconditional_network_stays_so() -> None:
    config = yaml.safe_load(yaml.safe_dump(IMAGES))
    for net in ("generator", "discriminator"):
        del config["model"]["init_args"][net]["init_args"]["num_classes"]
    cli("fit", "--name=a", config=config)
    assert WGANGP.load_from_checkpoint("runs/a/checkpoints/last.ckpt").num_classes is None


def test_another_technique_on_the_same_configuration() -> None:
    cli("fit", "--name=a", "--model=GAN", "--model.loss=hinge")
    assert GAN.load_from_checkpoint("runs/a/checkpoints/last.ckpt").hparams["loss"] == "hinge"


@pytest.mark.parametrize(("logger", "package"), [("TensorBoardLogger", "tensorboard"), ("MLFlowLogger", "mlflow")])
def test_a_logger_whose_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], logger: str, package: str
) -> None:
    find = importlib.util.find_spec
    hidden = (package, "tensorboardX")
    monkeypatch.setattr("importlib.util.find_spec", lambda n, *args: None if n in hidden else find(n, *args))
    told = refused(capsys, "fit", f"--trainer.logger={logger}")
    assert re.fullmatch(rf"error: {package} must be installed for this: .*pip install {package}", told)
    assert not Path("runs").exists()


@pytest.mark.parametrize("how", ["", "+"])
def test_tensorboard_lies_in_the_run(own_run: Path, how: str) -> None:
    pytest.importorskip("tensorboard")
    cli("fit", "--name=a", "--trainer.max_steps=1", f"--trainer.logger{how}", "TensorBoardLogger")
    cli("fit", "--config=runs/a/config.yaml", "--name=b", "--trainer.max_steps=1")
    cli("fit", "--ckpt_path=runs/a", "--trainer.max_steps=2")
    assert [len([*Path("runs", name).rglob("events.out.*")]) for name in "ab"] == [2, 1]
    assert "save_dir: <run>" in Path("runs/a/config.yaml").read_text()  # another run may start from it


def test_wandb_goes_on_with_the_same_run(tmp_path: Path, wandb: Any) -> None:
    common = ["--trainer.logger=WandbLogger", "--trainer.logger.log_model=true", "--trainer.callbacks+=WandbSetup"]
    config = str(Path(__file__).parent.parent / "configs" / "ring" / "wgan_gp.yaml")
    fast = ["--data.batch_size=8", "--trainer.accelerator=cpu", "--trainer.max_steps=2"]
    main(["fit", "--config", config, f"--out={tmp_path}", "--name=a", *fast, *common])
    run = (tmp_path / "a" / "wandb_id").read_text()
    main(["fit", f"--ckpt_path={tmp_path / 'a'}", "--trainer.max_steps=3"])
    wandb.finish()  # else the next test's logger would go on with this run
    assert (tmp_path / "a" / "wandb_id").read_text() == run
    folders = sorted((tmp_path / "a" / "wandb").glob("offline-run-*"))
    assert folders and all(folder.name.endswith(run) for folder in folders)
    for folder in folders:  # the last checkpoint is an artifact of the run
        for _ in range(100):  # W&B's own process writes, and may be behind
            if written := f"model-{run}".encode() in next(folder.glob("*.wandb")).read_bytes():
                break
            time.sleep(0.1)
        assert written
    assert run not in (tmp_path / "a" / "config.yaml").read_text()  # another run may start from it


def test_a_loss_that_is_no_number_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "fit", "--name=lost", "--model.lr_d=1e30", "--trainer.max_steps=200")
    assert "must be a finite number, got nan at update" in told and "training stopped" in told


def test_the_weights_before_a_step_that_went_wrong_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    guard = "--trainer.callbacks=NonFiniteGuard"
    told = refused(capsys, "fit", "--name=kept", "--model.lr_d=1e30", "--trainer.max_steps=200", guard)
    path = Path("runs/kept/checkpoints/before_non_finite.ckpt")
    assert f"The weights are in {path}." in told.replace(str(Path.cwd()) + "/", "")
    assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["state_dict"].values())


@pytest.mark.parametrize("command", ["fit", "predict"])
@pytest.mark.parametrize("option", ["name", "out"])
def test_a_run_takes_no_other_folder(
    command: str, option: str, own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(own_run)
    told = refused(capsys, command, f"--ckpt_path={own_run}", f"--{option}=another", config=None)
    assert f"--{option} must be left out with --ckpt_path" in told and "got 'another'" in told
    assert files(own_run) == before and not Path("another").exists()


def test_resume_applies_a_changed_rate(own_run: Path) -> None:
    with pytest.warns(UserWarning, match=r"The run goes on with other settings: .*lr of 'g' 0\.05"):
        cli("fit", f"--ckpt_path={own_run}", "--model.lr_g=0.05", "--trainer.max_steps=12")
    state = torch.load(own_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["optimizer_states"][1]["param_groups"][0]["lr"] == 0.05 == state["hyper_parameters"]["lr_g"]
