"""Modules under their old names: the same objects, one warning, and class paths of old files resolve."""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from torch import nn

import lightning_gans
from lightning_gans.compat.moved import MOVED
from lightning_gans.gan import GANModule
from lightning_gans.regularizers import Regularizer
from lightning_gans.runs import metrics_csv
from lightning_gans.runs.load import resolve_class

OLD = {  # what each of them had in public
    "_lightning": "pl callbacks loggers strategies utilities pl_cli plugins_io resolve",
    "_torchvision": "native_library_loads declare_missing_ops",
    "base": "Batch GANModule frozen kept_buffers evaluating",
    "callbacks.image_logging": "to_uint8 grid_image new_figure figure_image evenly read_images save_film contact_sheet "
    "save_image_atomic run_dir require_writable log_image log_metrics",
    "card": "card",
    "checkpoints": "AtomicCheckpointIO read_checkpoint",
    "cli.runs": "configs run_of unused claim remove_empty newest_run finished",
    "distributed": "rank world_size average gather_objects interleave broadcast_buffers broadcast_module drifted "
    "GANDDPStrategy",
    "functional.first_order": "linear_input_gradient",
    "functional.input_gradient": "Discriminator DoubleBackward double_backward input_gradient no_autocast",
    "functional.sparse": "SMALL Session reaches sparse_double_backward",
    "graphs": "Result StepGraphs",
    "loading": "HARMLESS load resolve_class",
    "loggers": "MetricsCSV",
    "rng": "RNGState capture restore seed untouched",
    "rounds": "boost reweight density_ratio match_moments fit_vae",
    "sample_weights": "SampleWeighted",
    "stream": "NO_BATCH DataStream",
    "tools.latent_directions": "Kind Init Attributes Pairs Match UnitColumns LatentDirections DirectionCharts raised "
    "match_directions sign_accuracy attribute_correlations name_directions",
}


@pytest.mark.parametrize("old", OLD)
def test_the_same_objects_under_the_old_name(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"lightning_gans.{old}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        module = importlib.import_module(name)
        importlib.import_module(name)
    seen = [w for w in seen if "has moved to" in str(w.message)]
    assert [w.category for w in seen] == [DeprecationWarning]
    now = [importlib.import_module(f"lightning_gans.{part}") for part in MOVED[old]]
    assert str(seen[0].message) == f"{name} has moved to {', '.join(m.__name__ for m in now)}."
    for public in OLD[old].split():
        assert getattr(module, public) is next(getattr(m, public) for m in now if hasattr(m, public))


def test_every_old_name_is_tested_and_is_no_file() -> None:
    assert OLD.keys() == MOVED.keys()
    root = Path(lightning_gans.__file__).parent
    assert not [old for old in OLD if (root / old.replace(".", "/")).with_suffix(".py").exists()]


def test_attributes_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lightning_gans.distributed is importlib.import_module("lightning_gans.engine.distributed")
    monkeypatch.delitem(sys.modules, "lightning_gans.base", raising=False)
    monkeypatch.delitem(vars(lightning_gans), "base", raising=False)  # delattr would look it up, which imports it
    with pytest.warns(DeprecationWarning, match="lightning_gans.base has moved to"):
        assert lightning_gans.base.GANModule is GANModule
    with pytest.raises(AttributeError, match="module 'lightning_gans' has no attribute 'nothing'"):
        lightning_gans.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        importlib.import_module("lightning_gans.nothing")
    with pytest.raises(ModuleNotFoundError, match="another"):
        importlib.import_module("another.base")


def test_nothing_of_ours_uses_an_old_name() -> None:
    """Inside of functions neither, where only whoever comes by is warned."""
    root, old = Path(__file__).parent.parent, {f"lightning_gans.{name}" for name in MOVED}
    paths = [root / "train.py"]
    for folder in ("lightning_gans", "callbacks", "datamodules", "benchmarks", "experiments"):
        paths += sorted((root / folder).rglob("*.py"))
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            found += [f"{path.relative_to(root)}, line {node.lineno}: {name}" for name in names & old]
    assert not found


# ---------------------------------------------------------------------- class paths in old files
@pytest.mark.filterwarnings("ignore:.*has moved to:DeprecationWarning")
def test_an_old_class_path_of_a_checkpoint() -> None:
    assert resolve_class("lightning_gans.base.GANModule", (GANModule,)) is GANModule


@pytest.mark.filterwarnings("ignore:.*has moved to:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lightning_gans.base.os.system", "no such class|is no Module or Regularizer"),
        ("lightning_gans.cli.runs.os.system", "is no Module or Regularizer"),
        ("lightning_gans.tools.latent_directions.LatentDirections", "none of lightning_gans' or torch.nn's"),
        ("lightning_gans.callbacks.image_logging.save_image_atomic", "is no Module or Regularizer"),
        ("lightning_gans.callbacks.image_logging.os.system", "no such class|is no Module or Regularizer"),
        ("lightning_gans.checkpoints.torch.load", "is no Module or Regularizer"),
    ],
)
def test_old_names_are_no_way_around_what_is_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        resolve_class(name, (nn.Module, Regularizer))


@pytest.mark.filterwarnings("ignore:.*has moved to:DeprecationWarning")
def test_an_old_class_path_of_a_configuration(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--logger", type=metrics_csv.loggers.Logger)
    given = {"class_path": "lightning_gans.loggers.MetricsCSV", "init_args": {"save_dir": str(tmp_path)}}
    made = parser.instantiate_classes(parser.parse_object({"logger": given}))
    assert type(made.logger) is metrics_csv.MetricsCSV
