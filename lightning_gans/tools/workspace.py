"""A workspace and a report of W&B, laid out as the page of a run is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_gans import checks
from lightning_gans.runs.record import Record, read_record
from lightning_gans.runs.sections import LOGARITHMIC, SAMPLES, SCORES, Sections, merged, sections

AXIS = "trainer/global_step"  # Lightning's name; here it counts generator updates
_OPEN = (SCORES, "Samples")


def layout(records: Sequence[Record]) -> Sections:
    """What is shown: section, panel and the names in it, of all that the runs have logged.

    Behind the scores comes a section "Samples", of the pictures (or texts) that lie in their folders.
    """
    found = sections(merged(record.curves for record in records))
    files = [path for r in records for path in (r.folder / "samples").glob("*_*.*")]
    kinds = {(path.stem.rpartition("_")[0], path.suffix == ".txt") for path in files}
    shown = {SAMPLES[prefix]: [f"samples/{'grid' if prefix == 'step' else prefix}"] for prefix in SAMPLES
             if (prefix, False) in kinds}  # fmt: skip
    if any(text for _, text in kinds):
        shown["Texts"] = ["samples/text"]
    first = {SCORES: found.pop(SCORES)} if SCORES in found else {}
    return {**first, **({"Samples": shown} if shown else {}), **found}


def workspace(shown: Sections, project: str, entity: str, name: str = "Generative models") -> Any:
    """The `wandb_workspaces` object of a layout; nothing is sent before its ``save()``.

    Args:
        shown: of `layout`.
        project: of W&B.
        entity: user or team that owns it.
        name: of the workspace.

    Raises:
        ImportError: ``wandb-workspaces`` is not installed.
    """
    checks.installed("wandb_workspaces")
    import wandb_workspaces.workspaces as ws

    parts = [
        ws.Section(name=title, panels=_panels(title, panels), is_open=title in _OPEN) for title, panels in shown.items()
    ]
    settings = ws.WorkspaceSettings(x_axis=AXIS)
    return ws.Workspace(entity=entity, project=project, name=name, sections=parts, settings=settings)


def wandb_report(shown: Sections, project: str, entity: str, title: str = "Generative models") -> Any:
    """The same as a report: a heading and a grid of panels for each section, over all runs of the project.

    Raises:
        ImportError: ``wandb-workspaces`` is not installed.
    """
    checks.installed("wandb_workspaces")
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for heading, panels in shown.items():
        blocks += [wr.H2(text=heading), wr.PanelGrid(panels=_panels(heading, panels))]
    told = "Scores, samples, loss terms and diagnostics over generator updates, as lightning_gans logs them."
    return wr.Report(project=project, entity=entity, title=title, description=told, blocks=blocks, width="fluid")


def _panels(section: str, panels: dict[str, list[str]]) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    if section != "Samples":
        logarithmic = section in LOGARITHMIC or None
        return [
            wr.LinePlot(title=t, x=AXIS, y=[*n], title_x="generator updates", log_y=logarithmic)
            for t, n in panels.items()
        ]
    return [
        wr.WeavePanelSummaryTable(table_name=names[0]) if names == ["samples/text"] else
        wr.MediaBrowser(title=title, num_columns=1, media_keys=names)
        for title, names in panels.items()
    ]  # fmt: skip


def save_workspace(runs: Sequence[str | Path], project: str, entity: str | None = None) -> tuple[str, str]:
    """Make a workspace and a report in a project of W&B, of all that the runs have logged; needs a login.

    Args:
        runs: folders, of runs whose names are shown; those that are shown are all of the project.
        project: of W&B.
        entity: user or team that owns it; None: W&B's default.

    Returns:
        their addresses.

    Raises:
        ValueError: a folder is no run, and without a login.
        ImportError: ``wandb`` or ``wandb-workspaces`` is not installed.
        ConnectionError: W&B is out of reach, or refuses.
    """
    shown = layout([read_record(run) for run in runs])
    checks.installed("wandb", "wandb_workspaces")
    import wandb

    if (mode := os.environ.get("WANDB_MODE", "online")) != "online":
        raise ValueError(f"WANDB_MODE must be online, or not set, for a workspace, which lies at W&B; got {mode}.")
    with _reaching():
        if not wandb.login(prompt=False):
            raise ValueError("W&B must have a login for a workspace, which lies there, got none: wandb login.")
        entity = entity or wandb.Api().default_entity or ""
        saved = workspace(shown, project, entity).save()
        try:
            return saved.url, wandb_report(shown, project, entity).save().url
        except Exception as error:
            raise ConnectionError(f"the workspace is at {saved.url}, but there is no report: {error}") from error


@contextmanager
def _reaching() -> Iterator[None]:
    """Whatever the client raises of the network, as one sentence."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "").rstrip(".") or type(error).__name__
        raise ConnectionError(f"W&B must be within reach and take it, got {type(error).__name__}: {reason}.") from error
