"""``export``: a trained generator as a file that needs none of this library."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans.base import GANModule, evaluating
from lightning_gans.functional.conditional import conditional_call

SUFFIXES = (".pt2", ".onnx")
TOLERANCE = 1e-4  # of the largest value: two runtimes add in different orders
_Run = Callable[..., Tensor]


class _Conditional(nn.Module):
    """A generator as a function of noise and labels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return conditional_call(self.net, z, labels)


class _Plain(_Conditional):
    """A generator as a function of noise alone."""

    def forward(self, z: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(z)  # type: ignore[no-any-return]


def export(module: GANModule, path: str | Path) -> Path:
    """Write a module's generator, by its averaged weights if there are any, as it is in evaluation mode.

    The file maps z (N, latent_dim), standard normal noise in float32, to samples (N, ...) in the range of the data, for
    any N; that of a conditional generator also takes labels (N,) int64. It is read back and run on noise of several
    sizes before it gets its name: the largest deviation from the generator's output is at most 1e-4 of the largest
    value.

    * ``.pt2``: ``torch.export.load(path).module()(z)``, with nothing but torch.
    * ``.onnx``: for ONNX Runtime and others; inputs ``z`` and ``labels``, output ``samples``. Needs the packages
      ``onnx``, ``onnxscript`` and ``onnxruntime`` (``pip install "lightning_gans[export]"``).

    Args:
        module: the trained module, as ``load`` gives it; it stays as it is.
        path: of the file; the suffix tells the format.

    Returns:
        The path.

    Raises:
        ValueError: for another suffix, for a generator that cannot be written so or whose file gives other samples.
        ImportError: for ``.onnx``, without one of its packages.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, got {str(path)!r}.")
    if path.suffix == ".onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ImportError(
                    f'{name} is missing, which ONNX files need: pip install "lightning_gans[export]".'
                ) from error
    net = module.ema or module.generator
    like = next(net.parameters())
    wrapped = (_Plain if module.num_classes is None else _Conditional)(net)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with torch.no_grad(), evaluating(net):
            inputs = _inputs(module, 3, like)
            run = (_as_torch if path.suffix == ".pt2" else _as_onnx)(wrapped, inputs, part)
            for n in (1, 3, 8):
                _compare(wrapped, run, _inputs(module, n, like), path)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _inputs(module: GANModule, n: int, like: Tensor) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(n)
    z = torch.randn(n, module.latent_dim, generator=source).to(like)
    if module.num_classes is None:
        return (z,)
    return z, torch.randint(module.num_classes, (n,), generator=source).to(like.device)


def _program(net: nn.Module, inputs: tuple[Tensor, ...], part: Path) -> Any:
    sizes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    try:
        return torch.export.export(net, inputs, dynamic_shapes=sizes, strict=True)
    except Exception as error:  # whatever a network of a user's does
        raise ValueError(_refusal(net, part, error)) from error


def _as_torch(net: nn.Module, inputs: tuple[Tensor, ...], part: Path) -> _Run:
    torch.export.save(_program(net, inputs, part), part)
    return torch.export.load(part).module()


def _as_onnx(net: nn.Module, inputs: tuple[Tensor, ...], part: Path) -> _Run:
    import onnxruntime

    program = _program(net, inputs, part)
    names = ["z", "labels"][: len(inputs)]
    try:
        made = torch.onnx.export(
            program, input_names=names, output_names=["samples"], dynamo=True, verbose=False, external_data=False
        )
        assert made is not None
        made.save(part, external_data=False)
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(_refusal(net, part, error)) from error

    def run(*given: Tensor) -> Tensor:
        fed = {name: value.cpu().numpy() for name, value in zip(names, given)}
        return torch.from_numpy(session.run(None, fed)[0])

    return run


def _refusal(net: Any, part: Path, error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{type(net.net).__name__} cannot be written as {part.suffix}: {reason}"


def _compare(net: nn.Module, run: _Run, inputs: tuple[Tensor, ...], path: Path) -> None:
    wanted = net(*inputs)
    got = run(*inputs).to(wanted)
    if got.shape != wanted.shape or not (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max().clamp_min(1):
        far = f"by {float((got - wanted).abs().max()):.2g}" if got.shape == wanted.shape else f"in shape {got.shape}"
        raise ValueError(f"{path} would not give the generator's samples: they differ {far}; nothing was written.")


__all__ = ["export"]
