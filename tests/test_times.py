"""The check of how long each test file takes."""

from __future__ import annotations

import json

from conftest import TIMES, too_long


def test_a_file_that_takes_too_long_is_named() -> None:
    took = {"a.py": 31.0, "b.py": 29.0, "short.py": 10.9, "new.py": 9.0, "newer.py": 11.0}
    known = {"a.py": 10.0, "b.py": 10.0, "short.py": 1.0}
    told = too_long(took, known)
    assert [line.split()[0] for line in told] == ["a.py", "newer.py"]
    assert told[0] == "a.py took 31 CPU seconds, more than three times the 10 of tests/times.json."


def test_what_is_on_record_is_there() -> None:
    assert all(TIMES.with_name(name).exists() for name in json.loads(TIMES.read_text()))
