"""An exported generator computes what it did, in torch without this library and in onnxruntime, for any batch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from common import make
from torch import Tensor, nn

from lightning_gans import GAN, MLE, networks, wrappers
from lightning_gans.cli import main
from lightning_gans.functional.importance import uniform_of
from lightning_gans.tools import export
from lightning_gans.wrappers.mixture import MixtureGenerator

tool = sys.modules[export.__module__]
ENDINGS = {"torch": ".pt2", "onnx": ".onnx"}
L, CLASSES = 3, 4
SMALL: dict[str, Any] = {"latent_dim": L, "width": 4}
GENERATORS = {
    "toy": lambda: networks.ToyGenerator(**SMALL, depth=1),
    "toy_images_labels": lambda: networks.ToyGenerator((1, 8, 8), **SMALL, depth=1, num_classes=CLASSES),
    "dcgan": lambda: networks.DCGANGenerator((1, 8, 8), **SMALL),
    "dcgan_labels": lambda: networks.DCGANGenerator((1, 8, 8), **SMALL, num_classes=CLASSES, activation="gated"),
    "dcgan_instance": lambda: networks.DCGANGenerator((1, 8, 8), **SMALL, norm="instance"),
    "dcgan_layer": lambda: networks.DCGANGenerator((1, 8, 8), **SMALL, norm="layer", constant_width=True),
    "resnet": lambda: networks.ResNetGenerator((1, 8, 8), **SMALL),
    "resnet_labels": lambda: networks.ResNetGenerator((1, 8, 8), **SMALL, num_classes=CLASSES),
    "resnet_group": lambda: networks.ResNetGenerator((1, 8, 8), **SMALL, skip="identity", norm="group"),
    "mnist": lambda: networks.MNISTGenerator(**SMALL, num_classes=CLASSES),
    "cifar": lambda: networks.CIFARGenerator(**SMALL),
    "primal_dual": lambda: networks.PrimalDualGenerator(**SMALL),
    "tapered": lambda: networks.TaperedResNetGenerator((1, 8, 8), **SMALL),
    "bottleneck": lambda: networks.BottleneckGenerator((1, 8, 8), latent_dim=L, width=8),
    "spectral_norm": lambda: wrappers.spectral_norm(networks.DCGANGenerator((1, 8, 8), **SMALL)),
    "weight_norm": lambda: wrappers.weight_norm(networks.ResNetGenerator((1, 8, 8), **SMALL)),
}
QUICK = [("toy", "torch"), ("resnet", "onnx")]  # an export takes seconds
CASES = [
    pytest.param(name, format, marks=[] if (name, format) in QUICK else pytest.mark.slow)
    for name in GENERATORS
    for format in ("torch", "onnx")
]


def gan(generator: nn.Module) -> GAN:
    """A game about a generator whose BatchNorm has averages of its own."""
    for name, buffer in generator.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return GAN(generator, networks.ToyDiscriminator(), L)


def inputs(n: int, labelled: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    z = torch.randn(n, L, dtype=dtype)
    return (z, torch.randint(CLASSES, (n,))) if labelled else (z,)


def hide(patch: pytest.MonkeyPatch, package: str) -> None:
    """As if a package were not installed."""
    found = importlib.util.find_spec
    patch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))


def run_onnx(path: Path, *given: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path))
    return torch.from_numpy(session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), given)})[0])


def run(path: Path, *given: Tensor) -> Tensor:
    return run_onnx(path, *given) if path.suffix == ".onnx" else torch.export.load(path).module()(*given)


@torch.no_grad()
def evaluated(net: nn.Module, *given: Tensor) -> Tensor:
    training = net.training
    out = net.eval()(*given)
    net.train(training)
    return out


@pytest.mark.parametrize("name, format", CASES)
def test_every_generator_in_both_formats(name: str, format: str, tmp_path: Path) -> None:
    module = gan(GENERATORS[name]())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    path = export(module, tmp_path / "new" / f"g{ENDINGS[format]}")
    for n in (1, 3, 7):  # of which only the first was tried when the file was written
        given = inputs(n, labelled=module.num_classes is not None)
        right = evaluated(module.generator, *given)
        torch.testing.assert_close(run(path, *given), right, rtol=0, atol=1e-5 * float(right.abs().max()))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert module.generator.training and all(p.requires_grad for p in module.generator.parameters())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def mixture_of_three(folder: Path, format: str) -> tuple[MixtureGenerator, Path]:
    """Conditional generators, in float64, where a wrong component cannot hide; and its file."""
    torch.manual_seed(3)
    nets = [networks.ToyGenerator((2,), **SMALL, depth=1, num_classes=CLASSES) for _ in range(3)]
    mixture = MixtureGenerator(MixtureGenerator(nets[0], nets[1], p=0.6), nets[2], p=0.7).double()
    return mixture, export(gan(mixture).double(), folder / f"g{ENDINGS[format]}")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[MixtureGenerator, Path]:
    return mixture_of_three(tmp_path_factory.mktemp("onnx"), "onnx")


def check_mixture(mixture: MixtureGenerator, path: Path) -> None:
    given = inputs(2000, True, torch.float64)
    torch.testing.assert_close(run(path, *given), evaluated(mixture, *given), rtol=0, atol=1e-12)
    which = torch.searchsorted(mixture.weights.double().cumsum(0)[:-1], uniform_of(given[0]), right=True)
    assert which.bincount().min() > 500  # 0.42, 0.28 and 0.3 of 2000


def test_a_mixture_takes_the_same_component_for_each_noise(mixed: tuple[MixtureGenerator, Path]) -> None:
    check_mixture(*mixed)


@pytest.mark.slow
def test_in_torch_too(tmp_path: Path) -> None:
    check_mixture(*mixture_of_three(tmp_path, "torch"))


def test_an_onnx_file_is_whole_and_names_its_axes(
    mixed: tuple[MixtureGenerator, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file, checked by onnx itself; and the slow reference, which stands in where there is no onnxruntime."""
    mixture, path = mixed
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)

    def axes(values: Any) -> dict[str, list[Any]]:
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert axes(model.graph.input) == {"z": ["batch", L], "labels": ["batch"]}
    assert axes(model.graph.output) == {"samples": ["batch", 2]}
    types = [onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64]
    assert [i.type.tensor_type.elem_type for i in model.graph.input] == types
    hide(monkeypatch, "onnxruntime")
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    given = inputs(6, True, torch.float64)
    torch.testing.assert_close(tool._read_onnx(path)(*given), evaluated(mixture, *given), rtol=0, atol=1e-12)


def test_the_bits_by_arithmetic() -> None:
    exponents = torch.randint(-50, 39, (20000,), generator=torch.Generator().manual_seed(0))
    x = torch.randn(20000, generator=torch.Generator().manual_seed(1)) * 10.0**exponents
    edges = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0**-126, 2.0**-149, -(2.0**-127), torch.finfo(torch.float32).max])
    x = torch.cat([x[x.isfinite()], edges])
    assert torch.equal(tool._bits(x, torch.int32), x.view(torch.int32))
    assert tool._bits(x.double(), torch.int64) is NotImplemented


def test_the_sum_that_wraps_around() -> None:
    x = torch.randint(-(2**63), 2**63 - 1, (50, 128), generator=torch.Generator().manual_seed(0))
    assert torch.equal(tool._wrapping_sum(x, [1]), x.sum(1))
    assert tool._wrapping_sum(x.double(), [1]) is NotImplemented


def test_averaged_weights_are_exported_where_there_are_any(tmp_path: Path) -> None:
    module = make("gan")
    ema = module.start_ema()
    with torch.no_grad():
        for parameter in ema.parameters():
            parameter.mul_(2)
    (z,) = inputs(5, labelled=False)
    out = run(export(module, tmp_path / "g.pt2"), z)
    torch.testing.assert_close(out, ema(z))
    assert (out - module.generator(z)).abs().min() > 1e-3


@pytest.mark.slow
def test_a_pt2_needs_nothing_of_this_library(tmp_path: Path) -> None:
    """In a fresh process in which it cannot be imported."""
    module = gan(GENERATORS["resnet_labels"]())
    given = inputs(9, labelled=True)
    export(module, tmp_path / "g.pt2")
    torch.save(given, tmp_path / "given.pt")
    code = (
        "import sys; sys.modules['lightning_gans'] = None\n"
        "import torch\n"
        "torch.save(torch.export.load('g.pt2').module()(*torch.load('given.pt')), 'made.pt')\n"
        "assert not [name for name in sys.modules if name.startswith('lightning_gans.')]\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path)
    right = evaluated(module.generator, *given)
    torch.testing.assert_close(torch.load(tmp_path / "made.pt"), right, rtol=0, atol=1e-6)


def test_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file lies in the run, or where it is asked for; a mistake is told in a line."""
    toy = {"width": 8, "depth": 1}
    model = {
        "latent_dim": L,
        "generator": {"class_path": "ToyGenerator", "init_args": toy},
        "discriminator": {"class_path": "ToyDiscriminator", "init_args": toy},
    }
    config = {
        "model": {"class_path": "GAN", "init_args": model},
        "data": {"class_path": "Ring", "init_args": {"batch_size": 8}},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "max_steps": 1},
        "grid": {"every_n_steps": None},
    }
    Path("a.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config=a.yaml", f"--out={tmp_path}", "--name=run"])
    capsys.readouterr()
    run_folder = tmp_path / "run"
    last, path = run_folder / "checkpoints" / "last.ckpt", run_folder / "generator.pt2"
    main(["export", f"--ckpt_path={run_folder}", f"--out={path}"])
    assert capsys.readouterr().out == f"Generator    {path}\n"
    (z,) = inputs(5, labelled=False)
    right = evaluated(GAN.load_from_checkpoint(last).generator, z)
    torch.testing.assert_close(run(path, z), right, rtol=0, atol=1e-5)
    for wrong in (["--ckpt_path=none", "--out=a.pt2"], [f"--ckpt_path={run_folder}", "--out=a.bin"]):
        with pytest.raises(SystemExit, match=r"error: (There is no checkpoint at none|path must end in \.pt2)"):
            main(["export", *wrong])


# ---------------------------------------------------------------------- what is refused
class Odd(nn.Module):
    """A generator with a habit."""

    def __init__(self, habit: str) -> None:
        super().__init__()
        self.habit, self.layer = habit, nn.Linear(L, 2)

    def forward(self, z: Tensor) -> Tensor:
        x = self.layer(z)
        if self.habit == "noise":
            return x + torch.randn_like(x)
        if self.habit == "loop":
            return x * sum(1 for v in z.sum(1).tolist() if v > 0)
        if self.habit == "fixed":
            return x.view(2, 2)
        return torch.linalg.matrix_exp(x[:, :, None] * x[:, None]).sum(1)  # nothing that ONNX has


@pytest.mark.parametrize(
    "habit, format, told",
    [
        ("noise", "torch", r"on 1 rows the file is off by .* allowed. \(A generator must not draw noise"),
        ("loop", "torch", "cannot be exported to torch: "),
        ("fixed", "torch", "cannot be exported to torch: "),
        pytest.param("exp", "onnx", "cannot be exported to onnx: .*linalg_matrix_exp", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(habit: str, format: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / f"g{ENDINGS[format]}"
    path.write_bytes(b"an earlier one")
    with pytest.raises(ValueError, match=f"The generator Odd .*{told}") as error:
        export(gan(Odd(habit)), path)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"an earlier one"


@pytest.mark.parametrize("change", [lambda x: x * 1.001, lambda x: x[:, :1], lambda x: x * np.nan])
def test_a_file_that_computes_something_else_is_no_file(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tool._read_torch
    monkeypatch.setattr(tool, "_read_torch", lambda path: lambda *given: change(read(path)(*given)))
    with pytest.raises(ValueError, match=r"ToyGenerator cannot be exported to torch: on 1 rows the file is off by"):
        export(make("gan"), tmp_path / "g.pt2")
    assert not list(tmp_path.iterdir())


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"LanguageModel cannot be exported to torch: it writes one token after another"
    ):
        export(MLE(networks.LanguageModel((4, 3))), tmp_path / "g.pt2")
    module = make("gan")
    with pytest.raises(ValueError, match=r"path must end in \.pt2 or \.onnx, got '.*g\.pt'"):
        export(module, tmp_path / "new" / "g.pt")
    hide(monkeypatch, "onnxscript")
    with pytest.raises(ImportError, match=r"^onnxscript must be installed for this: .+ -m pip install onnxscript$"):
        export(module, tmp_path / "new" / "g.onnx")
    assert not list(tmp_path.iterdir())
