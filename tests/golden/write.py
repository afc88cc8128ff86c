"""Write the losses of the library as it is into ``<technique>.json``: ``python tests/golden/write.py [case ...]``.

Only for new cases, or where losses are meant to change: say so in the commit.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from cases import CASES, Losses, play, unwritten

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    """Play the named cases, all without a name, and put their losses beside those of the others."""
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"error: there is no case {unknown[0]!r}.")
    if forgotten := [f"{name}: {', '.join(left)}" for name in names or CASES if (left := unwritten(CASES[name]))]:
        raise SystemExit(f"error: arguments are left to their defaults: {'; '.join(forgotten)}.")
    files: dict[Path, dict[str, Losses]] = defaultdict(dict)
    for name, case in CASES.items():
        path = HERE / f"{case.technique}.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        files[path][name] = play(case) if name not in known or not names or name in names else known[name]
    for path, found in files.items():
        path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
