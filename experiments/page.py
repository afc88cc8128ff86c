"""What every experiment can be told on the command line, and the page that comes of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.recipes import given, header, words
from experiments.playing import Result
from lightning_gans.runs.atomic import write_text
from lightning_gans.visualization.images import save_image_atomic


def parser(doc: str | None, known: Collection[str] | None = None, **defaults: Any) -> argparse.ArgumentParser:
    """What every experiment can be told.

    Args:
        doc: what it is about.
        known: names that ``data`` may have.
        defaults: of its own options.
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="games played at once, one thread each")
    made.add_argument("--runs", default="runs/experiments", help="folder that keeps what was played")
    made.add_argument("--out", type=Path, default=None, help="Markdown file to write; a figure lies beside it")
    for name, default in defaults.items():
        many: dict[str, Any] = {"nargs": "+"} if isinstance(default, list) else {}
        kind = type(default[0] if isinstance(default, list) else default)
        if name == "data":
            many |= {"choices": known, "metavar": "NAME"}
        made.add_argument(f"--{name}", type=kind, default=default, **many)
    return made


def publish(
    arguments: argparse.Namespace,
    title: str,
    results: Mapping[str, Sequence[Result]],
    protocol: Sequence[str],
    tables: Sequence[str],
    figure: Image.Image | None = None,
) -> None:
    """Print the tables; write them, their protocol and the figure, and leave the words above the mark as they are."""
    print("\n".join(tables))
    if arguments.out is None:
        return
    script = Path(sys.argv[0]).stem
    command = f"python -m experiments.{script} {given(sys.argv[1:])}"
    seeds = f"- seeds: {', '.join(map(str, arguments.seeds))}; mean ± standard deviation over seeds; "
    seeds += f"{arguments.jobs} games at once"
    told = header(command)
    every = [result for found in results.values() for result in found]
    told[1] = f"- commit: {', '.join(sorted({r['commit'] for r in every}))}"
    if played_on := sorted({r["hardware"] for r in every if "hardware" in r}):
        told[3] = f"- hardware: {'; '.join(played_on)}"
    lines = [words(arguments.out, title), *told, seeds, *(f"- {line}" for line in protocol), "", *tables]
    if figure is not None:
        picture = arguments.out.with_suffix(".png")
        save_image_atomic(figure, picture)
        lines += ["", f"![{title}]({picture.name})"]
    write_text(arguments.out, "\n".join([*lines, ""]))
    print(f"written: {arguments.out}", file=sys.stderr)
