"""A checkpoint is whole or not there, and a bad one is told in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer

from lightning_gans.runs.checkpoints import AtomicCheckpointIO, read_checkpoint

GOOD = {"state_dict": {"w": torch.arange(4.0)}, "pytorch-lightning_version": "2.6.0"}
READERS = pytest.mark.parametrize("read", [AtomicCheckpointIO().load_checkpoint, read_checkpoint])


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(GOOD, path)
    assert equal(AtomicCheckpointIO().load_checkpoint(path), GOOD) and equal(read_checkpoint(path), GOOD)
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_what_stops_a_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(GOOD, path)

    def half(checkpoint: Any, file: Any) -> None:
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(type(error)):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    assert equal(read_checkpoint(path), GOOD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen, save = tmp_path / "a.ckpt", [], torch.save

    def watched(checkpoint: Any, file: Any) -> None:
        save(checkpoint, file)
        seen.append((path.exists(), sorted(p.suffix for p in tmp_path.iterdir())))

    monkeypatch.setattr(torch, "save", watched)
    AtomicCheckpointIO().save_checkpoint(GOOD, path)
    assert seen == [(False, [".tmp"])]  # a process killed here leaves a file that nothing takes for a checkpoint


@READERS
def test_missing(tmp_path: Path, read: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint at .*a\.ckpt"):
        read(tmp_path / "a.ckpt")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        read(tmp_path)
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=rf"/lst\.ckpt: did you mean {tmp_path}/last\.ckpt\?$"):
        read(tmp_path / "lst.ckpt")


@READERS
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated(tmp_path: Path, read: Any, share: float) -> None:
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(GOOD, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"a\.ckpt is not a readable checkpoint: it is truncated or no checkpoint"):
        read(path)


@READERS
@pytest.mark.parametrize(
    "content", [b"hello, I am text\n", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100), bytes(5000)]
)
def test_other_files(tmp_path: Path, read: Any, content: bytes) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.ckpt (is not a readable|holds no Lightning) checkpoint"):
        read(path)


@READERS
@pytest.mark.parametrize(
    ("content", "missing"),
    [({"a": 1}, "state_dict"), ([1, 2], "state_dict"), ({"state_dict": {}}, "pytorch-lightning_version")],
)
def test_foreign_checkpoints(tmp_path: Path, read: Any, content: Any, missing: str) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"a\.ckpt holds no Lightning checkpoint \(no '{missing}' in it\)"):
        read(tmp_path / "a.ckpt")


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_fit_says_so(tmp_path: Path, kind: str) -> None:
    path, io = tmp_path / "a.ckpt", AtomicCheckpointIO()
    if kind == "truncated":
        io.save_checkpoint(GOOD, path)
        path.write_bytes(path.read_bytes()[:-100])
    module = make("gan")
    before = state(module)
    message = {"missing": "[Nn]o checkpoint|not found", "truncated": "is truncated or no checkpoint"}[kind]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        trainer(max_steps=2, plugins=[io]).fit(module, train_dataloaders=plain(), ckpt_path=path)
    assert equal(before, state(module))


def test_a_trainer_saves_and_resumes_through_it(tmp_path: Path) -> None:
    t = trainer(max_steps=2, plugins=[AtomicCheckpointIO()])
    t.fit(make("gan"), train_dataloaders=plain())
    t.save_checkpoint(tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")["global_step"] == 2
    again = trainer(max_steps=3, plugins=[AtomicCheckpointIO()])
    again.fit(make("gan"), train_dataloaders=plain(), ckpt_path=tmp_path / "a.ckpt")
    assert again.global_step == 3
