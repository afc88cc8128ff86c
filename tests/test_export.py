"""Generators as files that need none of this library, and give the same samples."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gans import GAN, BoostedGAN
from lightning_gans import networks as nets
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.tools import export

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs ONNX"
)
GENERATORS: dict[str, Any] = {
    "toy": lambda: ToyGenerator((2,), 4, 8, 2),
    "toy with labels": lambda: ToyGenerator((2,), 4, 8, 2, num_classes=3),
    "dcgan with labels": lambda: nets.DCGANGenerator(shape=(1, 28, 28), latent_dim=4, width=2, num_classes=3),
    "resnet": lambda: nets.ResNetGenerator(shape=(3, 32, 32), latent_dim=4, width=4),
    "resnet with labels": lambda: nets.ResNetGenerator(shape=(3, 32, 32), latent_dim=4, width=4, num_classes=3),
    "mnist": lambda: nets.MNISTGenerator(latent_dim=4, width=2),
    "cifar": lambda: nets.CIFARGenerator(latent_dim=4, width=2),
    "primal dual": lambda: nets.PrimalDualGenerator(latent_dim=4, width=2),
    "tapered": lambda: nets.TaperedResNetGenerator(shape=(3, 32, 32), latent_dim=4, width=2),
}


def module(net: nn.Module, ema: bool = True) -> GAN:
    torch.manual_seed(0)
    made = GAN(net, ToyDiscriminator(), 4)
    if ema:
        made.start_ema()
        with torch.no_grad():
            for p in made.generator.parameters():
                p.add_(1)
    return made


def check(made: GAN, path: Path) -> None:
    labels = None if made.num_classes is None else torch.tensor([0, 1, 2, 1, 0])
    wanted = made.sample(5, labels, generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    given = (z,) if labels is None else (z, labels)
    if path.suffix == ".pt2":
        got = torch.export.load(path).module()(*given)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        assert [i.name for i in session.get_inputs()] == ["z", "labels"][: len(given)]
        assert [o.name for o in session.get_outputs()] == ["samples"]
        got = torch.from_numpy(session.run(None, dict(zip(["z", "labels"], (g.numpy() for g in given))))[0])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)


SLOW = {"resnet", "tapered", "cifar", "dcgan with labels"}


def some(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@pytest.mark.parametrize("name", some(GENERATORS))
def test_as_torch(name: str, tmp_path: Path) -> None:
    made = module(GENERATORS[name]())
    check(made, export(made, tmp_path / "deep" / "g.pt2"))


@needs_onnx
@pytest.mark.parametrize("name", some(["toy with labels", "mnist", "resnet", "tapered", "cifar"]))
def test_as_onnx(name: str, tmp_path: Path) -> None:
    made = module(GENERATORS[name]())
    check(made, export(made, tmp_path / "g.onnx"))


def test_nothing_of_ours_is_needed_to_read_it(tmp_path: Path) -> None:
    made = module(GENERATORS["mnist"]())
    path = export(made, tmp_path / "g.pt2")
    wanted = made.sample(2, generator=torch.Generator().manual_seed(0)).sum().item()
    code = f"""import sys, torch
z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
print(torch.export.load({str(path)!r}).module()(z).sum().item())
assert not [m for m in sys.modules if m.startswith("lightning")]"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert float(told.stdout) == pytest.approx(wanted, abs=1e-3)


def test_a_mixture_takes_its_components_by_the_same_noise(tmp_path: Path) -> None:
    made = BoostedGAN(ToyGenerator((2,), 4, 8, 1), ToyDiscriminator(), 4, base=ToyGenerator((2,), 4, 8, 1), p=0.6)
    again = BoostedGAN(ToyGenerator((2,), 4, 8, 1), ToyDiscriminator(), 4, base=made, p=0.7)
    z = torch.randn(200, 4)
    torch.testing.assert_close(
        torch.export.load(export(again, tmp_path / "g.pt2")).module()(z), again.generator.eval()(z)
    )
    assert not again.generator.components[0].training
    with pytest.raises(ValueError, match=r"MixtureGenerator cannot be written as \.onnx: .+"):
        export(again, tmp_path / "g.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["g.pt2"]


class Loops(ToyGenerator):
    """Does as many steps as its input says."""

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        for _ in range(int(z.abs().sum())):
            z = z + 1
        return super().forward(z, labels)


def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module(ToyGenerator((2,), 4, 8, 1), ema=False)
    made.generator.train()
    with pytest.raises(ValueError, match=r"path must end in \.pt2 or \.onnx, got 'g\.pth'"):
        export(made, "g.pth")
    with pytest.raises(ValueError, match=r"Loops cannot be written as \.pt2: .+") as caught:
        export(module(Loops((2,), 4, 8, 1)), tmp_path / "g.pt2")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(
        importlib.import_module("lightning_gans.tools.export"),
        "_as_torch",
        lambda net, inputs, part: lambda z: net(z) + 1e-3,
    )
    with pytest.raises(ValueError, match=r"would not give the generator's samples: they differ by 0\.001"):
        export(made, tmp_path / "g.pt2")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'onnxscript is missing, .*pip install "lightning_gans\[export\]"'):
        export(made, tmp_path / "g.onnx")
    assert not list(tmp_path.iterdir()) and made.generator.training
