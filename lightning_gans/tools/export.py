"""``export``: a trained generator as one file that runs without this library, in torch or in any ONNX runtime."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.contract import Latents, require, require_one_call
from lightning_gans.functional.conditional import conditional_call, label_argument, takes_labels
from lightning_gans.functional.importance import uniform_of
from lightning_gans.functional.modes import copied
from lightning_gans.runs.atomic import check_writable, replacing
from lightning_gans.wrappers.mixture import MixtureGenerator

_NAMES = ("z", "labels")
_TRACED, _TRIED = 2, (1, 16)  # batch sizes; of a traced 0 or 1 torch.export makes a constant


def export(module: Any, path: str | Path) -> Path:
    """Write a module's generator (or decoder) to a file, in evaluation mode; returns the path.

    Its EMA weights are taken if there are any.

    The file maps ``z`` (N, latent_dim), of the generator's precision, and for a conditional generator ``labels`` (N,)
    int64, to ``samples`` (N, ...), for any N >= 1. It is made for a CPU. Of a text GAN these are relaxed one-hot
    vectors (N, T, V), whose argmax are the tokens that ``sample`` gives.

    ======= =======================================================================================
    path    use
    ======= =======================================================================================
    .pt2    ``torch.export.load(path).module()(z)``
    .onnx   ``onnxruntime.InferenceSession(path).run(None, {"z": z})``; needs ``onnx``, ``onnxscript``
    ======= =======================================================================================

    It gets its name only after it was read again and run on 1 and on 16 rows of noise, by torch or by onnxruntime
    (without which onnx's slow reference is taken). What comes out must be what the generator makes, to the square root
    of its precision times the largest value (3.5e-4 in float32).

    z is standard normal but for models that draw it by another law (`ExemplarVAE` around codes of training items,
    `StylEx` with a verdict at its end): a warning says so, and ``module.latents(n)`` makes some to feed the file.

    In a mixture (`MixtureGenerator`) all components compute all rows here, and each row is then its own component's.
    The module is left as it is. (onnxruntime has no transposed convolution in float64.)

    Args:
        module: with a generator or decoder that torch can trace, and whose samples are told by z and the label alone.
        path: where to, .pt2 or .onnx; the folder is made if it is not there.

    Raises:
        TypeError: for a model whose samples are no function of noise.
        ValueError: for a model whose samples take several network calls (a diffusion), a path that ends otherwise or
            cannot be written, a generator that cannot be traced or has an operation that ONNX does not have, or a file
            that computes something else. There is no file then.
        ImportError: for .onnx, if a package is missing.

    >>> import tempfile
    >>> from lightning_gans import GAN
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = GAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.export.load(export(model, f"{folder}/generator.pt2")).module()(torch.randn(3, 2)).shape
    torch.Size([3, 2])
    """
    format = {".pt2": "torch", ".onnx": "onnx"}.get((path := Path(path)).suffix)
    if format is None:
        raise ValueError(f"path must end in .pt2 or .onnx, got {str(path)!r}.")
    check_writable("path", path)
    if format == "onnx":
        checks.installed("onnx", "onnxscript")
    net = require(module, Latents, "export").network
    require_one_call(module, "export")
    net = _plain(net)
    source, dtype = torch.Generator().manual_seed(0), next(net.parameters(), torch.empty(0)).dtype
    dtype = getattr(module, "noise_dtype", dtype)

    def inputs(n: int) -> tuple[Tensor, ...]:
        z = torch.randn(n, module.latent_dim, generator=source, dtype=dtype)
        if not takes_labels(net):
            return (z,)
        return z, torch.randint(module.num_classes or 1, (n,), generator=source)

    traced, tried = inputs(_TRACED), [inputs(n) for n in _TRIED]
    write, read = (_write_torch, _read_torch) if format == "torch" else (_write_onnx, _read_onnx)
    with replacing(path, path.suffix) as part:  # torch wants to see the ending
        with torch.no_grad(), warnings.catch_warnings(), _silent():
            warnings.simplefilter("ignore")  # of torch's own doings
            try:
                wanted = [conditional_call(net, *given) for given in tried]
                if getattr(module, "vocabulary_size", None) is not None and not wanted[0].is_floating_point():
                    raise ValueError("it writes one token after another, which is no graph")
                size = torch.export.Dim("batch")
                # strict, since otherwise len(z), which many networks call, would become a constant
                write(torch.export.export(_Traceable(net), traced, dynamic_shapes=({0: size},) * len(traced),
                                          strict=True), part)  # fmt: skip
                run = read(part)
                made = [run(*given) for given in tried]
            except Exception as error:  # torch, onnx and onnxruntime raise many kinds
                raise ValueError(f"{_named(net)} cannot be exported to {format}: {_reason(error)}") from error
        for n, right, got in zip(_TRIED, wanted, made):
            if told := _difference(right, got):
                raise ValueError(
                    f"{_named(net)} cannot be exported to {format}: on {n} rows the file is off by {told}. "
                    "(A generator must not draw noise of its own.)"
                )
    if not getattr(module, "normal_noise", True):
        warnings.warn(
            f"The noise of {type(module).__name__} is not standard normal: feed {path.name} with z of its latents(n).",
            stacklevel=2,
        )
    return path


def _plain(net: nn.Module) -> nn.Module:
    """A copy as it is evaluated, on the CPU, without what cannot be traced."""
    net = copied(cast(nn.Module, getattr(net, "_orig_mod", net))).cpu().eval().requires_grad_(False)
    for layer in net.modules():
        for remove in (nn.utils.remove_spectral_norm, nn.utils.remove_weight_norm):
            with suppress(ValueError):  # torch's older ones, which cannot be traced: for good, by the weights they give
                remove(layer)
    for parameter in net.parameters():  # a .pt2 stores those in channels_last only with a warning
        parameter.data = parameter.data.contiguous()
    return net


def _difference(right: Tensor, got: Tensor) -> str:
    """How far a file's samples are off, if it is too far."""
    eps = torch.finfo(right.dtype).eps if right.is_floating_point() else 0.0
    allowed = eps**0.5 * float(right.abs().max())
    off = float((got - right).abs().max()) if got.shape == right.shape else float("nan")
    return "" if off <= allowed else f"{off:.3g}, with {allowed:.3g} allowed"


@contextmanager
def _silent() -> Iterator[None]:
    """Without torch's logs of what is told in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _named(net: nn.Module) -> str:
    return f"The generator {type(net).__name__}"


def _reason(error: BaseException) -> str:
    """The first line of what began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".") + "."


class _Traceable(nn.Module):
    """A generator without what cannot be traced: a look at signatures, and a mixture's dealing out of rows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.components = nn.ModuleList([net])
        self.thresholds: Tensor
        if isinstance(net, MixtureGenerator):
            self.components = net.components
            self.register_buffer("thresholds", net.weights.double().cumsum(0)[:-1])
        self.labelled = [label_argument(c) for c in self.components]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, latent_dim) to (N, ...); of a mixture as its own forward in evaluation mode."""
        first, *others = [
            c(z) if own is None else c(z, **{own: labels}) for c, own in zip(self.components, self.labelled)
        ]
        if others:
            which = (uniform_of(z)[:, None] >= self.thresholds).sum(1)
            for k, other in enumerate(others, start=1):
                first = torch.where((which == k).unflatten(0, (-1, *[1] * (first.ndim - 1))), other, first)
        return first


# ---------------------------------------------------------------------- torch
def _write_torch(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.export.save(program, path)


def _read_torch(path: Path) -> Callable[..., Tensor]:
    return torch.export.load(path).module()


# ---------------------------------------------------------------------- ONNX
def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    inputs = len(program.graph_signature.user_inputs)
    torch.onnx.export(program.run_decompositions(_PORTABLE), (), path, dynamo=True, verbose=False, external_data=False,
                      input_names=_NAMES[:inputs], output_names=["samples"],
                      dynamic_shapes=({0: "batch"},) * inputs)  # fmt: skip


def _read_onnx(path: Path) -> Callable[..., Tensor]:
    session: Any
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    else:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
    return lambda *given: torch.from_numpy(session.run(None, {n: x.numpy() for n, x in zip(_NAMES, given)})[0])


def _bits(x: Tensor, dtype: torch.dtype) -> Any:
    """``x.view(torch.int32)`` of finite float32, by arithmetic that is exact in float64: old ONNX has no bit cast.

    Numbers of exponent e are 2^23 steps of size 2^(e - 23); below the second least e steps have the least size.
    """
    if (x.dtype, dtype) != (torch.float32, torch.int32):
        return NotImplemented
    size = x.double().abs()
    doubled = (size[..., None] >= 2.0 ** torch.arange(-125, 128, dtype=torch.float64, device=x.device)).sum(-1)
    steps = (size * torch.exp2(149.0 - doubled.double())).long()
    return (doubled * 2**23 + steps - (x.reciprocal() < 0) * 2**31).to(torch.int32)  # of -0, too


def _wrapping_sum(x: Tensor, dim: Any, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """A sum of int64 modulo 2^64, where onnxruntime stops at the largest number: of both halves, exact in float64."""
    if x.dtype != torch.int64 or dtype not in (None, torch.int64):
        return NotImplemented
    high, low = (half.double().sum(dim, keepdim).long() for half in (x >> 32, x & 2**32 - 1))
    return high * 2**32 + low


_PORTABLE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.view.dtype: _bits,
    torch.ops.aten.sum.dim_IntList: _wrapping_sum,
}
