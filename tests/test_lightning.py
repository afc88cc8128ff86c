"""`import lightning as L` and `import pytorch_lightning as pl`, and a torchvision whose compiled ops do not load."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fresh import python
from test_light_imports import HEAVY

import lightning_gans
from lightning_gans import WGANGP
from lightning_gans.compat import lightning as _lightning
from lightning_gans.compat import torchvision as _torchvision
from lightning_gans.compat.lightning import pl

# What a user's machine has done by itself: torchvision can be imported (see compat/torchvision.py).
WORKING_TORCHVISION = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("shim", {str(Path(_torchvision.__file__))!r})
shim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shim)
"""
TRAIN = """
import torch
from torch import nn
from torch.utils.data import DataLoader
generator = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
discriminator = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1), nn.Flatten(0))
model = WGANGP(generator, discriminator, latent_dim=3)
trainer = L.Trainer(max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(torch.randn(40, 2), 4))
assert trainer.global_step == 2
assert isinstance(model, L.LightningModule)
from lightning_gans import callbacks, datamodules
assert issubclass(callbacks.EMA, L.Callback) and issubclass(datamodules.Ring, L.LightningDataModule)
"""


BOTH = pytest.mark.parametrize("fork", [True, pytest.param(False, marks=pytest.mark.slow)])  # see fresh.py


@BOTH
def test_lightning(tmp_path: Path, fork: bool) -> None:
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed")
    check = "import sys; print([m for m in sys.modules if m == 'pytorch_lightning'])"
    code = f"{WORKING_TORCHVISION}\nimport lightning as L\nfrom lightning_gans import WGANGP\n{TRAIN}\n{check}"
    told = python(code, tmp_path, tmp_path / "told", os.environ, fork)
    assert told.splitlines()[-1] == "[]"  # one Lightning is enough


# Refuses what a module of ours asks for by itself; Lightning and torchmetrics import some of these of their own.
BLOCKED = """
import builtins, sys
inner = builtins.__import__
def guarded(name, globals=None, *args, **kwargs):
    asks = (globals or {}).get("__name__", "")
    if name.split(".")[0] in %r and asks.startswith("lightning_gans"):
        raise ImportError(f"{asks} imports {name}")
    return inner(name, globals, *args, **kwargs)
builtins.__import__ = guarded
"""


def test_the_library_first(tmp_path: Path) -> None:
    """It needs no heavy package, and builds on pytorch_lightning, whatever is imported later, torchvision too."""
    if importlib.util.find_spec("pytorch_lightning") is None:
        pytest.skip("pytorch_lightning is not installed")
    code = f"""
{BLOCKED % (HEAVY,)}
from lightning_gans import WGANGP
unasked = [name for name in ("jsonargparse", "lightning", "wandb", "tensorboard", "sklearn") if name in sys.modules]
import lightning_gans.callbacks, lightning_gans.datamodules, lightning_gans.samplers, lightning_gans.tools
assert "jsonargparse" not in sys.modules
import torch
for name in ("Adam", "RMSprop"):  # a LightningCLI refuses a bare name that two classes have
    assert name not in [c.__name__ for c in getattr(torch.optim, name).__subclasses__()]
builtins.__import__ = inner
import torchvision
torchvision.ops.nms, torchvision.transforms.ToTensor
if {importlib.util.find_spec("lightning") is not None}:
    import lightning
    assert not issubclass(WGANGP, lightning.LightningModule)
import pytorch_lightning as L
{TRAIN}
print(unasked)
"""
    assert python(code, tmp_path, tmp_path / "told", os.environ, fork=False).splitlines()[-1] == "[]"


def test_this_process() -> None:
    assert issubclass(WGANGP, pl.LightningModule)
    assert pl.__name__ == _lightning.resolve()


@pytest.mark.parametrize(
    ("imported", "installed", "chosen"),
    [
        ((), ("pytorch_lightning", "lightning"), "pytorch_lightning"),
        ((), ("pytorch_lightning",), "pytorch_lightning"),
        ((), ("lightning",), "lightning.pytorch"),
        (("lightning", "lightning.pytorch"), ("pytorch_lightning", "lightning"), "lightning.pytorch"),
        (("pytorch_lightning",), ("pytorch_lightning", "lightning"), "pytorch_lightning"),
        (
            ("pytorch_lightning", "lightning", "lightning.pytorch"),
            ("pytorch_lightning", "lightning"),
            "pytorch_lightning",
        ),
    ],
)
def test_which_one(
    monkeypatch: pytest.MonkeyPatch, imported: tuple[str, ...], installed: tuple[str, ...], chosen: str
) -> None:
    modules = SimpleNamespace(modules={name: ModuleType(name) for name in imported})
    monkeypatch.setattr(_lightning, "sys", modules)
    monkeypatch.setattr(_lightning.importlib.util, "find_spec", lambda name: name if name in installed else None)
    assert _lightning.resolve() == chosen


# ---------------------------------------------------------------------- torchvision
class Declared:
    """Stands for torch.library.Library."""

    def __init__(self, *args: str) -> None:
        self.args, self.schemas = args, list[str]()

    def define(self, schema: str) -> None:
        self.schemas.append(schema)


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """compat/torchvision.py as in a fresh process that has not imported torchvision; it must declare nothing real."""
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torch.library, "Library", Declared)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    loader = importlib.machinery.SourceFileLoader("fresh_shim", str(_torchvision.__file__))
    module = ModuleType("fresh_shim")
    exec(loader.get_code("fresh_shim"), module.__dict__)  # type: ignore[arg-type]
    assert module._library is None  # without torchvision there is nothing to mend
    return module


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, library: str | None, loads: bool) -> list[str]:
    """A torchvision in ``folder`` whose native library loads or does not; the libraries that are tried."""
    tried: list[str] = []

    def load_library(path: str) -> None:
        tried.append(path)
        if not loads:
            raise OSError("libcudart.so: cannot open shared object file")

    if library is not None:
        (folder / library).touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(folder / "__init__.py")))
    monkeypatch.setattr(torch.ops, "load_library", load_library)
    return tried


NATIVE = f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"
STABLE = f"_C_stable{importlib.machinery.EXTENSION_SUFFIXES[-1]}"  # of torchvision 0.29


@pytest.mark.parametrize("library", [NATIVE, STABLE])
def test_shim_does_nothing_where_the_ops_load(
    shim: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str
) -> None:
    tried = install(monkeypatch, tmp_path, library, loads=True)
    assert shim.declare_missing_ops() is False and shim._library is None
    assert tried == [str(tmp_path / library)]


@pytest.mark.parametrize("library", [NATIVE, STABLE, None])
def test_shim_declares_what_is_missing_once(
    shim: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str | None
) -> None:
    install(monkeypatch, tmp_path, library, loads=False)
    assert shim.declare_missing_ops() is True
    declared = shim._library
    assert declared.args == ("torchvision", "DEF")
    assert [schema.split("(")[0] for schema in declared.schemas] == ["nms", "qnms"]
    assert shim.declare_missing_ops() is False and shim._library is declared


def test_shim_does_nothing_where_torchvision_is_imported(
    shim: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = install(monkeypatch, tmp_path, NATIVE, loads=False)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    assert shim.declare_missing_ops() is False and tried == []


def test_the_version_is_stated() -> None:
    assert lightning_gans.__version__.count(".") == 2
