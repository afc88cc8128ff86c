"""A run that is told to stop, killed, refused the disk or queued again is not lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import equal
from tqdm import tqdm

from lightning_gans.cli import GANCLI, SaveConfig, main
from lightning_gans.cli.interruption import Interruption, remember_job, requeued
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.engine.module import GenerativeModule

ROOT = Path(__file__).parents[1]
CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "WGANGP",
        "init_args": {
            "latent_dim": 2,
            "d_steps": 2,
            "generator": {"class_path": "ToyGenerator", "init_args": {"width": 8}},
            "discriminator": {"class_path": "ToyDiscriminator", "init_args": {"width": 8}},
        },
    },
    "data": {"class_path": "Ring", "init_args": {"batch_size": 16}},
    "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1, "max_steps": 6},
    "grid": {"every_n_steps": None},
}


class Send(pl.Callback):
    """Sends signals to this process, in the middle of an update or before the first one."""

    def __init__(self, signals: list[int], update: int = 3) -> None:
        self.signals, self.update = signals, update

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.update == -1:
            self.send()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.update == -2:  # in the scores from before the first update
            (Path(trainer.default_root_dir) / "scores.jsonl").write_text("{}")
            self.send()

    def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.update - 1:  # of the first player in that update: half of it is done
            self.update = 0
            self.send()

    def send(self) -> None:
        for number in self.signals:
            os.kill(os.getpid(), number)


def fit(*args: str, send: list[int] | None = None, update: int = 3) -> None:
    Path("default.yaml").write_text(yaml.safe_dump(CONFIG))
    sending = {"class_path": f"{__name__}.Send", "init_args": {"signals": send, "update": update}}
    more = [] if send is None else [f"--trainer.callbacks={json.dumps([sending])}"]
    main(["fit", *args, *more], default_config=Path("default.yaml"))


def saved(run: str) -> dict[str, Any]:
    return torch.load(Path("runs", run, "checkpoints", "last.ckpt"), weights_only=True)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "a.yaml").write_text(yaml.safe_dump(CONFIG))
    main(["fit", f"--config={folder / 'a.yaml'}", f"--out={folder}", "--name=whole"])
    return folder / "whole"


@pytest.fixture
def run(whole: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, "runs/mine"))


SIGNALS = pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])


@SIGNALS
def test_a_run_that_is_told_to_stop_ends_at_the_same_weights(
    whole: Path, number: int, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = handlers()
    with pytest.raises(SystemExit) as caught:
        fit("--name=a", send=[number])
    told = capfd.readouterr().err
    assert caught.value.code == 128 + number and handlers() == before
    assert re.search(rf"Stopped by {name} after update 3: go on with .* fit --ckpt_path=runs/a", told)
    assert told.strip().endswith("fit --ckpt_path=runs/a") and "Traceback" not in told
    assert ("once more: at once" in told) == (number == signal.SIGINT)
    assert saved("a")["global_step"] == 3, "the update under way was finished"
    fit("--ckpt_path=runs/a", "--trainer.callbacks=[]")
    last = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved("a")["global_step"] == 6
    assert all(equal(saved("a")[key], last[key]) for key in ("state_dict", "optimizer_states"))
    assert not [path for path in Path("runs/a").rglob(".*")]


def test_in_the_last_update() -> None:
    with pytest.raises(SystemExit) as caught:
        fit("--name=a", send=[signal.SIGHUP], update=6)
    assert caught.value.code == 129 and saved("a")["global_step"] == 6


def test_what_is_ignored_stays_ignored() -> None:
    """As nohup asks for, and a shell for what it starts in the background."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        fit("--name=a", send=[signal.SIGINT, signal.SIGHUP])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert saved("a")["global_step"] == 6


def test_a_second_interrupt_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = handlers()
    with pytest.raises(SystemExit) as caught:
        fit("--name=a", send=[signal.SIGINT, signal.SIGINT])
    assert caught.value.code == 130 and handlers() == before
    assert capfd.readouterr().err.strip().endswith("Stopped by Ctrl-C; what was written before is intact.")
    assert not Path("runs/a/checkpoints/last.ckpt").exists() and not Path("runs/a/.lock").exists()


def test_the_handlers_of_who_calls_from_python_stay() -> None:
    """`GANCLI` without `main`: a fit that goes well, and one that is stopped."""
    Path("a.yaml").write_text(yaml.safe_dump(CONFIG))

    def fit_without_main(*args: str) -> None:
        GANCLI(GenerativeModule, GANDataModule, subclass_mode_model=True, subclass_mode_data=True,
               save_config_callback=SaveConfig, args=["fit", "--config=a.yaml", "--name=a", *args])  # fmt: skip

    before = handlers()
    fit_without_main()
    assert handlers() == before
    sending = [{"class_path": f"{__name__}.Send", "init_args": {"signals": [signal.SIGINT]}}]
    with pytest.raises(SystemExit):
        fit_without_main(f"--trainer.callbacks={json.dumps(sending)}")
    assert handlers() == before


@SIGNALS
def test_before_training(number: int, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fit("--name=a", send=[number], update=-1)
    assert caught.value.code == 128 + number
    told = capfd.readouterr().err
    assert told.strip().endswith(f"Stopped by {name}; what was written before is intact.") and "Traceback" not in told
    assert not Path("runs/a").exists()


@SIGNALS
def test_in_its_first_scores(number: int, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What has been written stays, and by which configuration."""
    with pytest.raises(SystemExit) as caught:
        fit("--name=a", send=[number], update=-2)
    assert caught.value.code == 128 + number
    assert capfd.readouterr().err.strip().endswith(f"Stopped by {name}; what was written before is intact.")
    assert {path.name for path in Path("runs/a").iterdir()} >= {"scores.jsonl", "config.yaml"}


def test_commands_that_do_not_train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(main.__globals__["OTHERS"], "score", interrupted)
    with pytest.raises(SystemExit) as caught:
        main(["score"])
    assert caught.value.code == 130 and capsys.readouterr().err.startswith("Stopped by Ctrl-C")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_last_word_comes_behind_the_bar(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: list[str]) -> None:
        for _ in tqdm(range(3)):
            os.kill(os.getpid(), number)

    monkeypatch.setitem(main.__globals__["OTHERS"], "score", interrupted)
    with pytest.raises(SystemExit) as caught:
        main(["score"])
    told = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 128 + number and "0/3" in told[-2] and told[-1].startswith("Stopped by ")


def test_the_bar_ends_at_the_last_update(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit("--name=a", "--trainer.enable_progress_bar=true", send=[signal.SIGTERM])
    told = capfd.readouterr()
    assert " 3/6 " in told.out.strip().splitlines()[-1]
    assert told.err.strip().splitlines()[-1].startswith("Stopped by SIGTERM after update 3")


# ---------------------------------------------------------------------- one process, whole files
def test_a_run_in_use_is_refused(run: Path) -> None:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True)"
    command = [sys.executable, "-S", "-c", hold + "; sys.stdin.read()", str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        with pytest.raises(SystemExit, match="runs/mine must be a folder that no other process writes to, got one in"):
            fit("--ckpt_path=runs/mine", "--trainer.max_steps=8")
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
        other.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_be_ended(tmp_path: Path) -> None:
    """As a pool's workers are: the request to save is for the process that trains."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        watching = Interruption(tmp_path / "last.ckpt", "resume")
        watching._handle(signal.SIGTERM)
        ready, started = os.pipe()
        if (child := os.fork()) == 0:
            os.write(started, b"!")
            time.sleep(20)
            os._exit(0)
        os.read(ready, 1)  # Python drops signals that come while it forks
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM and watching.received is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_a_killed_process_left_is_swept(run: Path) -> None:
    left = [run / "checkpoints" / ".last.ckpt.0a1b2c3d.tmp", run / "checkpoints" / ".last.ckpt.4711.tmp",
            run / ".metrics.csv.0a1b2c3d.tmp"]  # fmt: skip
    for path in left:
        path.write_text("half")
    fit("--ckpt_path=runs/mine", "--trainer.max_steps=7")
    assert not any(path.exists() for path in left) and saved("mine")["global_step"] == 7


def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_stays(run: Path) -> None:
    resource = pytest.importorskip("resource")
    before, last = resource.getrlimit(resource.RLIMIT_FSIZE), run / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, before[1]))
        with pytest.raises(SystemExit) as caught:
            fit("--ckpt_path=runs/mine", "--trainer.max_steps=8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = str(caught.value.code)
    assert told.startswith("error: ") and "\n" not in told and "Traceback" not in told
    assert "checkpoints/last.ckpt could not be written (File too large, " in told and "old one is intact" in told
    assert last.read_bytes() == content and not [path for path in run.rglob(".*")]


# ---------------------------------------------------------------------- SLURM
@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A job of one task; what scontrol is called with is written into a file."""
    variables = {"JOB_ID": "4711", "JOB_NAME": "job", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0",
                 "NTASKS_PER_NODE": "1", "JOB_NODELIST": "n1", "NODELIST": "n1", "NNODES": "1"}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    (program := tmp_path / "bin" / "scontrol").parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $* > {tmp_path}/asked\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    before = dict(os.environ)
    yield tmp_path / "asked"
    for name in os.environ.keys() - before.keys():  # Lightning's MASTER_ADDR and the like
        del os.environ[name]


def test_a_job_that_is_queued_again_goes_on_in_its_folder(
    whole: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = dict(send=[signal.SIGUSR1, signal.SIGTERM])
    with pytest.raises(SystemExit) as caught:
        fit("--name=job", **command)  # type: ignore[arg-type]
    assert caught.value.code == 143 and slurm.read_text().split() == ["requeue", "4711"]
    written = torch.load("runs/job/hpc_ckpt_1.ckpt", weights_only=True)
    assert written["global_step"] == 3 and equal(written["state_dict"], saved("job")["state_dict"])
    Path("runs/job/checkpoints/last.ckpt").unlink()  # as if it had been killed right after SLURM's
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    fit("--name=job", **command)  # type: ignore[arg-type]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["job"]
    assert saved("job")["global_step"] == 6
    last = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    assert equal(saved("job")["state_dict"], last["state_dict"])


def test_another_job_or_command_begins_anew(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["fit", "--name=job"]
    for name in ("job", "job-2"):
        (tmp_path / name).mkdir()
        remember_job(tmp_path / name, command)
    os.utime(tmp_path / "job" / "slurm_job", (1, 1))
    assert requeued(tmp_path / "job", command) is None, "the same job, twice by hand"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert requeued(tmp_path / "job", command) == tmp_path / "job-2"
    assert requeued(tmp_path / "job", [*command, "--trainer.max_steps=2"]) is None
    for name, value in (("SLURM_ARRAY_JOB_ID", "4711"), ("SLURM_ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(name, value)
    assert requeued(tmp_path / "job", command) is None, "another task of an array"
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name)
    remember_job(tmp_path, command)
    assert requeued(tmp_path / "job", command) is None and not (tmp_path / "slurm_job").exists()


# ---------------------------------------------------------------------- as a process
@pytest.mark.slow
@SIGNALS
@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_the_status_of_a_process(tmp_path: Path, number: int, name: str, group: bool) -> None:
    """The terminal sends Ctrl-C to workers too."""
    config = {
        **CONFIG,
        "trainer": {**CONFIG["trainer"], "max_steps": 1_000_000},
        "checkpoint": {"every_n_train_steps": 5},
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config=a.yaml", "--name=a"]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "runs/a/checkpoints/last.ckpt").exists():
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.05)
        (os.killpg if group else os.kill)(child.pid, number)
        told = child.communicate(timeout=60)[1]
    finally:
        child.kill()
    assert child.returncode == 128 + number
    assert told.strip().splitlines()[-1].startswith(f"Stopped by {name} after update ") and "Traceback" not in told
    fit(f"--ckpt_path={tmp_path / 'runs/a'}", f"--trainer.max_steps={saved('a')['global_step'] + 2}")
