"""Commands that show what runs have done: ``report``, ``compare`` and ``workspace``."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from lightning_gans.cli.mistakes import silence, told
from lightning_gans.compat.shell import usage
from lightning_gans.runs.record import read_record
from lightning_gans.tools.compare import compare as compared
from lightning_gans.tools.report import report as reported
from lightning_gans.tools.workspace import layout, save_workspace


def report(args: list[str]) -> None:
    """``report``: a run as one HTML file: curves, samples over training, protocols, warnings, card, configuration."""
    parser = argparse.ArgumentParser(usage("report"), description=report.__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="Folder of a run, or a checkpoint in one.")
    parser.add_argument("--ckpt_path", type=Path, help="The same, as other commands take it.")
    parser.add_argument("--out", type=Path, default=None, help="HTML file; by default report.html in the run.")
    own = parser.parse_args(args)
    silence()
    with told():
        if (own.run is None) == (own.ckpt_path is None):
            raise ValueError(
                f"report needs one run: report runs/a, or --ckpt_path, got {'both' if own.run else 'none'}."
            )
        print(f"Report       {reported(own.run or own.ckpt_path, own.out)}")


def compare(args: list[str]) -> None:
    """``compare``: runs, or folders of runs that differ in their seeds, as tables and one HTML file of curves."""
    parser = argparse.ArgumentParser(usage("compare"), description=compare.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="Folders of runs, or of runs of several seeds.")
    parser.add_argument("--out", type=Path, default=Path("comparison.html"), help="HTML file.")
    parser.add_argument("--reach", action="append", default=[], metavar="SCORE=VALUE",
                        help="Tell the time to this value; by default to the best that all runs reach.")  # fmt: skip
    own = parser.parse_args(args)
    silence()
    with told():
        print(found := compared(own.runs, own.out, dict(_level(text) for text in own.reach)))
        print(f"\nComparison   {found.path}")


def workspace(args: list[str]) -> None:
    """``workspace``: a workspace and a report of W&B, of all that runs have logged: scores, samples, terms, time."""
    parser = argparse.ArgumentParser(usage("workspace"), description=workspace.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="Folders of runs, which tell what there is to show.")
    parser.add_argument("--project", default=os.environ.get("WANDB_PROJECT") or "lightning_gans", help="Of W&B.")
    parser.add_argument("--entity", default=os.environ.get("WANDB_ENTITY"), help="User or team; by default yours.")
    parser.add_argument("--dry_run", action="store_true", help="Print what would be shown and stop.")
    own = parser.parse_args(args)
    with told():
        if own.dry_run:
            for title, panels in layout([read_record(run) for run in own.runs]).items():
                print(title, *(f"  {panel}: {', '.join(names)}" for panel, names in panels.items()), sep="\n")
            return
        made = save_workspace(own.runs, own.project, own.entity)
        print("Workspace    {}\nReport       {}".format(*made))


def _level(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        level = float(value if equals else "?")
    except ValueError:
        level = math.nan
    if not math.isfinite(level):
        raise ValueError(f"--reach must be SCORE=VALUE, as fid/lenet=20, got {text}.")
    return name, level
