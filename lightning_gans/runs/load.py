"""``load``: from a checkpoint, or the folder of a run, to a module that samples. No code of the checkpoint's is run."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lightning_gans import checks
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.functional.text import Vocabulary
from lightning_gans.regularizers import Regularizer
from lightning_gans.runs.card import settings_of
from lightning_gans.runs.checkpoints import newest_checkpoint, read_checkpoint

# Where classes are defined that do nothing when they are built but what a network or a term of a loss does. Others of
# torch's and ours are not among them: some modules read files, download weights or start processes.
_PARTS = ("networks", "nonadversarial", "regularizers", "techniques", "wrappers")
HARMLESS = (*(f"lightning_gans.{part}." for part in _PARTS), "lightning_gans.metrics.attributes", "torch.nn.modules.")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_IF_TRUSTED = "if you trust the checkpoint, load it with trust_code=True"


def load(
    path: str | Path,
    which: Literal["last", "best"] = "last",
    weights: Literal["ema", "raw"] = "ema",
    device: str | torch.device = "cpu",
    *,
    trust_code: bool = False,
    **networks: Any,
) -> GenerativeModule:
    """A trained model from its checkpoint, in evaluation mode and frozen, ready to ``sample``.

    A checkpoint from a stranger is safe to load: it is read without unpickling code, and of the classes that it names
    only networks, wrappers, regularizers and models of this library and layers of ``torch.nn`` are built (and
    techniques of your own, where their module is imported already). It cannot be trained on: resume by ``fit``.

    A mixture (:class:`BoostedGAN`, :class:`AdaGAN`) from the command line holds the weights of all components, but the
    networks of the earlier ones are told by their checkpoint only, which is looked for where it was and beside the run.

    Args:
        path: a checkpoint, or the folder of a run, which holds ``checkpoints/``.
        which: of a folder, "last" or "best" (by the score that was monitored).
        weights: "ema" for the averaged weights if there are any, "raw" for those that were trained.
        device: where to.
        trust_code: import and build classes from anywhere. Importing a module runs its code, and so does building a
            class of it: only for checkpoints of your own.
        networks: ``generator``, ``discriminator`` and whatever else the technique needs that the checkpoint does not
            tell, since it was written by a script; any other argument too. They are taken, not copied.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, foreign, names a class that is refused, or does not fit the networks.

    >>> import tempfile
    >>> from lightning_gans import GAN
    >>> from lightning_gans.datamodules import Ring
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> from lightning_gans.stages.fits import fit
    >>> networks = {"generator": ToyGenerator(width=8), "discriminator": ToyDiscriminator(width=8)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit(GAN(**networks, latent_dim=2), Ring(batch_size=8), 1, folder, logger=False)
    ...     load(f"{folder}/last.ckpt", **networks).sample(4).shape
    torch.Size([4, 2])
    """
    checks.one_of("which", which, ("last", "best"))
    checks.one_of("weights", weights, ("ema", "raw"))
    module = _rebuilt(_found(Path(path).expanduser(), which), weights, trust_code, networks, ())
    return module.to(torch.device(device)).requires_grad_(False).eval()


def load_generator(network: nn.Module, path: str | Path, vocabulary: Vocabulary | None = None) -> None:
    """Give a generator the weights of a checkpoint's generator, averaged ones if there are any.

    Buffers that the checkpoint does not have stay as they are.

    Args:
        network: the generator.
        path: a checkpoint, or the folder of a run: the best by the score that was monitored, else the last one.
        vocabulary: of the texts that it goes on with, if it makes some.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its generator has other weights, or was trained on texts of other symbols.
    """
    path = Path(path).expanduser()
    try:
        path = _found(path, "best")
    except FileNotFoundError:
        path = _found(path, "last")
    checkpoint = read_checkpoint(path)
    if vocabulary is not None and "vocabulary" in checkpoint:
        Vocabulary.of(checkpoint["vocabulary"]).require(vocabulary, f"data of generator_checkpoint {path}")
    every = {name.removeprefix("generator."): w for name, w in checkpoint["state_dict"].items()
             if name.startswith("generator.")}  # fmt: skip
    found, own = checkpoint.get("ema") or every, network.state_dict()
    buffers = {name for name, _ in network.named_buffers()}
    wrong = [n for n in {**own, **found} if n not in own or (n not in found and n not in buffers)]
    wrong += [n for n, w in found.items() if n in own and own[n].shape != w.shape]
    if wrong:
        raise ValueError(
            f"generator_checkpoint must hold the weights of a {type(network).__name__} of this size, got {path}, where "
            f"{wrong[0]} is {tuple(found[wrong[0]].shape) if wrong[0] in found else 'missing'}."
        )
    network.load_state_dict({**own, **found})


def load_weights(network: nn.Module, path: str | Path, name: str = "classifier_weights") -> None:
    """Give a classifier the weights of a file that ``torch.save(network.state_dict(), path)`` has made.

    Args:
        network: the classifier.
        path: the file, which is read without unpickling code.
        name: of the argument, for the message.

    Raises:
        ValueError: it is missing, something else, or of another network.
    """
    try:
        network.load_state_dict(torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True))
    except Exception as error:
        first, *others = str(error).strip().splitlines() or [type(error).__name__]
        if "loading state_dict" in first and others:
            reason = others[0].strip().partition(": copying")[0][:200].rstrip(". ")
            raise ValueError(
                f"{name} must be a file with the classifier's state_dict, got {path}, of another class, other options "
                f"or other data ({reason})."
            ) from error
        reason = type(error).__name__ if first.isdecimal() else first.partition(". ")[0].rstrip(".")
        raise ValueError(f"{name} must be a file with the classifier's state_dict, got {path} ({reason}).") from error


def resolve_class(
    name: str, wanted: tuple[type, ...], trust_code: bool = False, harmless: tuple[str, ...] = HARMLESS
) -> type:
    """The class of a dotted name, if it is a subclass of one in ``wanted`` and may be built (see :func:`load`).

    Args:
        name: as in a checkpoint.
        wanted: what it has to be.
        trust_code: build any.
        harmless: beginnings of the names of modules whose classes may be built.

    Raises:
        ValueError: it is refused, or there is no such class.
    """
    parts, told = name.split("."), f"class path {name!r}"
    ours = name.startswith(("lightning_gans.", "torch.nn."))
    found: Any = None
    for i in range(len(parts) - 1, 0, -1):  # the longest prefix that is a module; the rest may be a class in a class
        module = ".".join(parts[:i])
        if module not in sys.modules and (ours or trust_code):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if not module.startswith(str(error.name)):
                    raise
        if module in sys.modules:
            found = sys.modules[module]
            for part in parts[i:]:
                found = getattr(found, part, None)
            break
    else:
        if not trust_code:
            raise ValueError(f"{told} is refused: its module is not imported yet; {_IF_TRUSTED}.")
        raise ValueError(f"{told}: there is no such class in a module that Python finds from here.")
    if found is None:
        raise ValueError(f"{told}: there is no such class.")
    if not isinstance(found, type) or not issubclass(found, wanted):
        raise ValueError(f"{told} is refused: it is no {' or '.join(cls.__name__ for cls in wanted)}.")
    if trust_code or found.__module__.startswith(harmless) or found.__module__ in ("lightning_gans.gan",):
        return found
    if issubclass(found, (GenerativeModule, Regularizer)):  # written for this library, and imported by the user
        return found
    raise ValueError(f"{told} is refused: it is none of lightning_gans' or torch.nn's; {_IF_TRUSTED}.")


def _found(path: Path, which: str) -> Path:
    """The checkpoint itself, or that of a folder."""
    if not path.is_dir():
        return path
    folder, last = path / "checkpoints", newest_checkpoint(path)
    if which == "last":
        return last
    files = sorted(folder.glob("best-*.ckpt"), key=lambda file: file.stat().st_mtime)
    if last.is_file():  # what Lightning's ModelCheckpoint says of itself
        states = read_checkpoint(last).get("callbacks", {}).values()
        told = [s["best_model_path"] for s in states if isinstance(s, Mapping) and s.get("monitor")]
        files += [folder / Path(str(name)).name for name in told if name and (folder / Path(str(name)).name).is_file()]
    if not files:
        raise FileNotFoundError(
            f"There is no best checkpoint in {folder}: none was saved by a score; take which='last'."
        )
    return files[-1]


def _rebuilt(
    path: Path, weights: str, trust_code: bool, networks: Mapping[str, Any], outer: tuple[Path, ...]
) -> GenerativeModule:
    """The module of a checkpoint, with its weights; ``outer`` are the checkpoints of the mixtures that it is a part of.

    Lightning's ``load_from_checkpoint`` would call whatever function the checkpoint names as its ``_instantiator``.
    """
    if path.resolve() in outer:
        raise ValueError(f"{path} is a mixture that names itself as its base.")
    checkpoint = read_checkpoint(path)
    options = checkpoint.get("hyper_parameters", {})
    name = options.get("_class_path") or checkpoint.get("class_path") if isinstance(options, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"{path} is no checkpoint of a GenerativeModule: it does not tell its class.")
    settings = settings_of(options)

    def build(value: Any) -> Any:
        """Values as they are, lists as tuples, and class paths with their arguments as what they stand for."""
        if isinstance(value, (list, tuple)):
            return tuple(build(v) for v in value)
        if not isinstance(value, Mapping):
            return value
        if "class_path" not in value:
            return {k: build(v) for k, v in value.items()}
        cls = resolve_class(str(value["class_path"]), (nn.Module, Regularizer), trust_code)
        return make(cls, {**(value.get("init_args") or {}), **(value.get("dict_kwargs") or {})})

    def make(cls: type, arguments: Mapping[str, Any]) -> Any:
        ready = {k: v if k in networks else build(v) for k, v in arguments.items()}
        if issubclass(cls, GenerativeModule) and isinstance(base := ready.get("base"), str):
            ready["base"] = _rebuilt(_base(path, base), "ema", trust_code, {}, (*outer, path.resolve()))
        return cls(**ready)

    try:
        cls = resolve_class(name, (GenerativeModule,), trust_code)
        every = inspect.signature(cls).parameters.values()
        parameters = [p for p in every if p.kind not in _VARIADIC]
        if not any(p.kind is p.VAR_KEYWORD for p in every):  # a class of the user's that fills in the rest by itself
            settings = {k: v for k, v in settings.items() if k in {p.name for p in parameters}}
        settings |= networks
        if needed := [p.name for p in parameters if p.default is p.empty and p.name not in settings]:
            raise ValueError(f"the networks are not told by it: give {', '.join(f'{n}=' for n in needed)}.")
        module = make(cls, settings)
        module.load_state_dict(checkpoint["state_dict"])
        if weights == "raw":
            checkpoint.pop("ema", None)
        module.on_load_checkpoint(checkpoint)
    except Exception as error:  # from whatever the arguments in the file make a constructor do
        reason = " ".join(str(error).splitlines()[:2]).strip() or type(error).__name__
        raise ValueError(f"{path} cannot be loaded: {reason}") from error
    module.hparams.update(options)
    return module


def _base(path: Path, base: str) -> Path:
    """The checkpoint of a mixture's earlier components: where it was, or where it is beside this run."""
    near = path.resolve().parents[2].joinpath(*Path(base).parts[-3:]) if len(path.resolve().parents) > 2 else path
    return Path(base) if Path(base).is_file() or not near.is_file() else near
