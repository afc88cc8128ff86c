"""Do two commits have the same losses, bit for bit? ``python tests/golden/compare.py OLD NEW [--cases gan ...]``.

OLD and NEW are commits, or folders of a checkout. Each plays the cases of this folder in a process of its own, on this
machine; what OLD logs has to come out of NEW to the bit. Ends with 0 if it does, else with 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
Losses = dict[str, list[float | None]]
SHOWN = 10


def difference(old: float | None, new: float | None, relative: float = 0.0, absolute: float = 0.0) -> float | None:
    """|old - new| where it is more than is allowed, else None; nan equals nan, None equals None."""
    if old is None or new is None:
        return None if old is new else math.inf
    if old == new or (math.isnan(old) and math.isnan(new)):
        return None
    distance = abs(old - new)
    return None if distance <= max(relative * abs(old), absolute) else distance


def differences(old: Losses, new: Losses, relative: float = 0.0, absolute: float = 0.0) -> list[str]:
    """A line for each value of ``old`` that ``new`` does not have: where it first differs. New values may be added."""
    found = []
    for name, column in old.items():
        if name not in new:
            found.append(f"{name} is not there")
            continue
        for update, (a, b) in enumerate(zip_longest(column, new[name]), 1):
            if difference(a, b, relative, absolute) is not None:
                found.append(f"{name} at update {update}: {a!r} and {b!r}")
                break
    return found


def git(*args: str) -> str | None:
    """What a git command of this repository says; None if it fails."""
    done = subprocess.run(["git", "-C", str(HERE), *args], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


@contextmanager
def tree(name: str, folder: Path) -> Iterator[Path]:
    """The files of a commit, or of a folder."""
    if Path(name).is_dir():
        yield Path(name).resolve()
        return
    commit = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if commit is None:
        raise SystemExit(f"error: there is no commit or folder {name!r}.")
    try:
        if git("worktree", "add", "--detach", str(folder), commit) is None:
            raise SystemExit(f"error: git cannot check out {name!r}.")
        yield folder.resolve()
    finally:
        git("worktree", "remove", "--force", str(folder))


def linked(root: Path, folder: Path) -> Path:
    """A folder for ``sys.path`` that holds the library as setup.cfg maps it, by links."""
    package = folder / "lightning_gans"
    package.mkdir(parents=True)
    parts = [p for p in (root / "lightning_gans").iterdir() if p.name != "__pycache__"] if root.is_dir() else []
    for part in [*parts, root / "datamodules", root / "callbacks"]:
        (package / part.name).symlink_to(part)
    return folder


def played(root: Path, path: Path, cases: list[str]) -> dict[str, Losses]:
    """The losses of the library in a folder."""
    if not (root / "lightning_gans" / "__init__.py").is_file():
        raise SystemExit(f"error: there is no lightning_gans in {root}.")
    settings = {**os.environ, "PYTHONPATH": str(linked(root, path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "cases.py"), *cases], capture_output=True, text=True, env=settings, cwd=path
    )
    if done.returncode != 0:
        raise SystemExit(f"error: the cases fail in {root}:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if foreign := [file for file in result["files"] if not Path(file).is_relative_to(root)]:
        raise SystemExit(f"error: {foreign[0]} was loaded, which is not in {root}.")
    return result["losses"]


def main(args: list[str]) -> int:
    """Compare; the exit status."""
    parser = argparse.ArgumentParser("compare.py", description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--cases", nargs="+", default=[], help="Some of the cases; all without it.")
    given = parser.parse_args(args)
    losses = []
    with TemporaryDirectory() as temporary:
        for which in ("old", "new"):
            with tree(getattr(given, which), Path(temporary, which, "tree")) as root:
                losses.append(played(root, Path(temporary, which, "path"), given.cases))
    old, new = losses
    lines = [f"{case}: {line}" for case in old for line in differences(old[case], new.get(case, {}))]
    count = sum(len(column) for case in old.values() for column in case.values())
    if lines:
        more = f"\n... and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        print(f"{given.new} differs from {given.old} in {len(lines)} values:\n" + "\n".join(lines[:SHOWN]) + more)
    else:
        print(f"{given.new} equals {given.old} bit for bit in {count} losses of {len(old)} cases.")
    if added := sorted({name for case in old for name in new.get(case, {}).keys() - old[case].keys()}):
        print(f"Also logged by {given.new}: {', '.join(added)}.")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
