"""A file is whole or not there: no half, no trace of a failure, the mode that the umask says."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path

import pytest
import torch

from lightning_gans.cli.mistakes import sentence_of
from lightning_gans.runs.atomic import NoSpaceError, alone, locked, replacing, sweep, write_text
from lightning_gans.runs.checkpoints import AtomicCheckpointIO

ROOT = Path(__file__).parent.parent


def test_the_file_appears_when_it_is_whole_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "new" / "a.ckpt", []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((path.exists(), temporary.read_text())))
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.parent == path.parent and temporary.suffix == ".tmp"
        temporary.write_text("whole")
    assert seen == [(False, "whole")] and path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("new")
        1 / 0  # noqa: B018
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_have_two_names(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        one.write_text("1")
        other.write_text("2")
        assert one != other
    assert (tmp_path / "a").read_text() == "1"  # the last to end


def test_the_mode_is_the_umasks(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "ä")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert (tmp_path / "a").read_bytes() == "ä".encode()


def test_one_at_a_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "new" / "a.lock"):
            waits = pool.submit(enter, tmp_path / "new" / "a.lock")
            with pytest.raises(TimeoutError):
                waits.result(timeout=0.2)
        assert waits.result(timeout=60)


def test_nobody_waits_where_there_can_be_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "file" / "a.lock"):
        1 / 0  # noqa: B018


def enter(path: Path) -> bool:
    with locked(path):
        return True


def test_no_other_file_renames() -> None:
    folders = ("lightning_gans", "callbacks", "datamodules", "experiments", "benchmarks")
    renames = re.compile(r"os\.replace|os\.rename|\.rename\(|mkstemp|NamedTemporaryFile")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if renames.search(path.read_text())
    }
    # the second moves what it has downloaded to the temporary name
    assert found == {"lightning_gans/runs/atomic.py", "datamodules/downloaded.py"}


# ---------------------------------------------------------------------- no space, other processes, leftovers
@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be longer than 4 KiB: writing fails as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("what", ["text", "checkpoint"])
def test_no_space_is_told_with_path_and_space(tmp_path: Path, small_files: None, what: str, old: bool) -> None:
    path = tmp_path / "a.ckpt"
    if old:
        write_text(path, "old")
    with pytest.raises(NoSpaceError, match=r"a\.ckpt could not be written \(File too large, [\d,]+ MiB free\)") as told:
        if what == "text":
            write_text(path, "x" * 10_000)
        else:
            AtomicCheckpointIO().save_checkpoint({"w": torch.zeros(100_000)}, path)
    assert "\n" not in str(told.value) and str(told.value).endswith("; the old one is intact." if old else "free).")
    assert sentence_of(told.value) == str(told.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"] * old and (not old or path.read_text() == "old")


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "quota")])
def test_kinds_of_no_space(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(NoSpaceError, match=f"(?i){words}"), replacing(tmp_path / "a"):
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise RuntimeError("unexpected pos 64 vs 0") from error


def test_another_failure_is_not_the_disks(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), replacing(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")


HOLD = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); f.write('process 7 on moon')"
HOLD += "; f.flush(); print(flush=True); sys.stdin.read()"


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with alone(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())
    command = [sys.executable, "-S", "-c", HOLD, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        told = r"no other process writes to, got one in use by process 7 on moon\."
        with pytest.raises(ValueError, match=told), alone(tmp_path):
            pass
        assert (tmp_path / ".lock").exists(), "it is the other one's"
        other.kill()
    with alone(tmp_path):  # a lock ends with its process, whatever file it leaves
        pass
    assert not list(tmp_path.iterdir())


def test_where_there_can_be_no_lock_nobody_is_refused(tmp_path: Path) -> None:
    with alone(tmp_path / "nowhere"):
        pass


def test_leftovers_of_killed_processes_are_swept(tmp_path: Path) -> None:
    """Whatever ``replacing`` was writing, in any folder of the run, also by version 0.1; nothing else."""
    left: list[Path] = []
    (tmp_path / "checkpoints").mkdir()
    for name, ending in (("config.yaml", ""), ("checkpoints/last.ckpt", ""), ("g.pt2", ".pt2")):
        try:
            with replacing(tmp_path / name, ending) as temporary:
                assert not ending or temporary.suffix == ending
                left.append(temporary)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            temporary.write_text("half")
    left.append(tmp_path / "checkpoints" / ".last.ckpt.4711.tmp")
    left[-1].touch()
    kept = [tmp_path / name for name in (".lock", ".gitignore", "a.tmp", ".a.b.tmp", "checkpoints/last.ckpt",
                                         ".notes.20240101.txt", ".a.0a1b2c3d.tmp~")]  # fmt: skip
    for path in kept:
        path.touch()
    sweep(tmp_path)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in left)
