"""A file is whole or not there: no half, no trace of a failure, the mode that the umask says."""

from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path

import pytest

from lightning_gans.runs.atomic import locked, replacing, write_text

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
