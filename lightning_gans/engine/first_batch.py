"""The first batch of a run, checked before any work is lost."""

from __future__ import annotations

import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans.compat.lightning import utilities
from lightning_gans.engine import distributed
from lightning_gans.engine.batch import Batch
from lightning_gans.engine.frozen import frozen
from lightning_gans.functional.columns import Names
from lightning_gans.functional.conditional import NAMES, conditional_call, needs_labels, score, takes_labels
from lightning_gans.functional.double_backward.input_gradient import no_autocast
from lightning_gans.functional.modes import copied
from lightning_gans.functional.text import check_tokens

LONELY = "more than 1 value per channel"  # what torch's BatchNorm says of a batch of one
RESHAPE = (nn.Flatten, nn.Unflatten, nn.Identity)  # layers that only give another shape


def check_loader(loader: Any, names: Names | None) -> None:
    """ValueError for several loaders in a list: Lightning puts their batches side by side, as labels are beside x."""
    if isinstance(loader, (list, tuple)) and len(loader) > 1 and names is None:
        raise ValueError(
            f"The training data must be one loader, got a {type(loader).__name__} of {len(loader)} "
            f"({', '.join(dict.fromkeys(type(part).__name__ for part in loader))}): join the data sets "
            "(ConcatDataset), or tell by columns= which of them the real samples come from."
        )


def check_data(batch: Batch, networks: Mapping[str, nn.Module], symbols: int | None = None) -> None:
    """Real samples, weights and labels are such as can be trained on, and as the networks expect them.

    Args:
        batch: the first one.
        networks: by name; those that take labels need them.
        symbols: where real samples may be tokens (N, T) int64, how many different ones there are.

    Raises:
        TypeError: for real samples that are no tensor of numbers.
        ValueError: for everything else.
    """
    real = batch.real
    if not torch.is_tensor(real):
        raise TypeError(
            f"real samples must be a floating-point tensor, got {type(real).__name__}: yield x, (x, labels) or "
            "(x, labels, weights), or tell columns=."
        )
    if symbols is not None and not real.is_floating_point():
        check_tokens(real, symbols)
    elif not real.is_floating_point():
        tokens = real.dtype == torch.int64 and real.ndim == 2
        hint = "of text take one_hot=True" if tokens else "scale images to the data's range"
        raise TypeError(f"real samples must be a floating-point tensor, got {real.dtype}: {hint}.")
    n = len(real)
    check_rows(n)
    if not torch.isfinite(real).all():
        raise ValueError("The first batch of real samples holds NaN or infinite values.")
    if batch.weights is not None:
        check_weights(batch.weights, n)
        mean = float(batch.weights.mean())
        if not 0.1 <= mean <= 10:
            warnings.warn(
                f"The weights of the first batch have mean {mean:.3g}; they are meant to have mean 1, in expectation.",
                stacklevel=2,
            )
    conditional = {name: network for name, network in networks.items() if takes_labels(network)}
    if batch.labels is None:
        check_unlabelled(conditional)
    else:
        check_labels(batch.labels, n, conditional)


def warn_of_same(real: Tensor) -> None:
    """Warn if several ranks have the same first batch, unless all of its samples are the same. A collective."""
    if (world := distributed.world_size()) == 1:
        return
    found = distributed.gather_objects(zlib.crc32(real.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()))
    same = max(Counter(found).values())
    if same > 1 and bool((real != real[:1]).any()):
        utilities.rank_zero_warn(
            f"{same} of the {world} ranks have the same first batch: a stream (IterableDataset) "
            "and a loader of one's own are not shared out by Lightning; let each rank yield a part of its own."
        )


def check_weights(weights: Tensor, n: int) -> None:
    """ValueError unless there are ``n`` weights, all >= 0."""
    if weights.shape != (n,) or not bool((weights >= 0).all()):
        low = float(weights.min()) if weights.numel() else float("nan")
        raise ValueError(
            f"weights must be {n} numbers >= 0, one per real sample, got shape {tuple(weights.shape)} with minimum "
            f"{low:g}."
        )


def check_rows(n: int) -> None:
    """ValueError for a batch of no sample."""
    if n == 0:
        raise ValueError("The data loader yielded an empty batch.")


def check_unlabelled(networks: Mapping[str, nn.Module]) -> None:
    """ValueError if one of the networks, by name, cannot do without the labels that a batch lacks."""
    for name, network in networks.items():
        if needs_labels(network):
            raise ValueError(
                f"The {name} is conditional, but the data loader yields no labels: let it yield (x, labels)."
            )


def check_labels(labels: Tensor, n: int, networks: Mapping[str, nn.Module]) -> None:
    """ValueError unless there are ``n`` labels that the networks, by name, know."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be {n} integers, one class per real sample, got {type(labels).__name__}.")
    if labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(
            f"labels must be {n} integers, one class per real sample, got shape {tuple(labels.shape)} "
            f"of {labels.dtype}."
        )
    for name, network in networks.items():
        if (known := getattr(network, "num_classes", None)) is not None:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= known:
                raise ValueError(f"labels must lie in 0..{known - 1}, which the {name} knows, got {low}..{high}.")


def tried(name: str, network: nn.Module, what: str, x: Tensor, labels: Tensor | None, hint: str = "") -> Tensor:
    """What a network makes of ``x``; ValueError with its name and what it was given if it fails.

    The ``hint`` is about shapes, and left out where the network fails for another reason.
    """
    try:
        made: Any = conditional_call(network, x, labels)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        if out_of_memory(error):  # which is nobody's mistake
            raise
        own = next((p.dtype for p in network.parameters()), x.dtype) if isinstance(network, nn.Module) else x.dtype
        if own != x.dtype and "dtype" in str(error):
            hint = f" of {x.dtype}, while its parameters are {own}: have the data in that type, or cast in the network"
        elif LONELY in str(error) or not re.search(r"shape|size|dimension|channel|match", str(error)):
            hint = ""
        told = str(error).rstrip(".")
        if "required positional argument" in told:
            hint = f"; labels are given to an argument of the name {', '.join(NAMES)}, and nothing else is given"
        known = "" if labels is None else f" and labels {int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"The {name} failed on {what} of shape {tuple(x.shape)}{known}{hint} ({told}).") from error
    if not isinstance(made, Tensor):
        raise TypeError(f"The {name} must return a tensor, got a {type(made).__name__}: wrap it, to return that alone.")
    return made


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device or of the machine was too small."""
    words = "out of memory|can't allocate memory|DefaultCPUAllocator"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(re.search(words, str(error))))


def check_company(networks: Iterable[tuple[str, nn.Module]], batch: Batch, trainer: Any) -> str | None:
    """Name of a network whose BatchNorm cannot be trained on one sample, if there is any.

    ValueError if training is known to come to a batch of one: at the end of the loader's first epoch.
    """
    name = next((name for name, network in networks if _needs_company(network, batch)), None)
    if name is not None and (last := _lonely_end(trainer)):
        raise ValueError(lonely(name, last))
    return name


def _needs_company(network: nn.Module, batch: Batch) -> bool:
    """Whether it has a BatchNorm that cannot be trained on one sample."""
    if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules()):
        return False
    with frozen(network), torch.no_grad():
        for x in (batch.real, batch.z):
            try:
                conditional_call(network, x[:1], None if batch.labels is None else batch.labels[:1])
            except Exception as error:  # it may take neither
                if LONELY in str(error):
                    return True
    return False


def _lonely_end(trainer: Any) -> str:
    """The batch of one at the end of the loader's first epoch, if a fit is sure to come to one."""
    loader, module = trainer.train_dataloader, trainer.lightning_module
    size, rows = getattr(loader, "batch_size", None), getattr(loader, "sampler", None)
    n = len(rows) if isinstance(rows, Sized) and not getattr(loader, "drop_last", True) else 0
    if not size or n % size != 1:
        return ""
    batches = n // size + 1
    updates = batches * module.g_steps  # at most, in which a fit may see them
    sure = module.run.batches >= batches and not 0 <= trainer.max_steps < updates
    return f"a last one of 1 ({n} items by {size})" if sure else ""


def lonely(name: str, got: str) -> str:
    """That a batch of one sample cannot be trained on."""
    return (
        f"Batches must hold 2 samples or more for the BatchNorm of the {name}, got {got}: give the loader "
        "drop_last=True, or another batch_size."
    )


def sample_labels(labels: Tensor | None, n: int, num_classes: int | None, known: bool = True) -> None:
    """ValueError unless ``labels`` fits ``n`` samples of a generator with ``num_classes`` classes.

    None are those of one that takes no labels, or, if they are not ``known``, of one that does not tell how many.
    """
    if labels is None:
        return
    if num_classes is None and known:
        raise ValueError("labels were given, but the generator takes none: build it with num_classes.")
    if not isinstance(labels, Tensor) or labels.shape != (n,):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else repr(labels)
        raise ValueError(f"labels must have shape ({n},), one per sample, got {got}.")
    if int(labels.min()) < 0 or (num_classes is not None and int(labels.max()) >= num_classes):
        top = "" if num_classes is None else num_classes - 1
        raise ValueError(f"labels must lie in 0..{top}, got {int(labels.min())}..{int(labels.max())}.")


def scored_alone(discriminator: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None) -> bool:
    """Whether real and fake samples get the same scores in one batch as in two (not with minibatch statistics).

    Dropout must draw the same numbers too, whatever the seed: as it does on a CPU, in a network that has it once. A
    head that begins at zero does not tell: where all scores are equal, a copy with other weights is asked.
    """
    if real.dtype != fake.dtype:
        return False
    net, own = discriminator, torch.Generator().manual_seed(0)
    one = [(torch.cat([real, fake]), None if labels is None else torch.cat([labels, labels]))]

    def scores(seed: int, parts: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([score(net, x, y) for x, y in parts])

    with torch.no_grad(), no_autocast(fake.device.type):
        for again in (True, False):
            apart, joint = (
                torch.stack([scores(seed, parts) for seed in range(4)])
                for parts in ([(real, labels), (fake, labels)], one)
            )
            spread = apart.max() - apart.min()
            if spread != 0 or not again:
                break
            for p in (net := copied(net)).parameters():
                p.add_(torch.randn(p.shape, generator=own).to(p), alpha=0.1)
    return bool((joint - apart).abs().max() < 1e-3 * spread)  # not, if there is a NaN


def check_not_lazy(networks: Iterable[nn.Module]) -> None:
    """ValueError for a network some of whose parameters have no shape yet."""
    for net in networks:
        if any(nn.parameter.is_lazy(p) for p in [*net.parameters(), *net.buffers()]):
            raise ValueError(f"networks must have no lazy layers left, got {type(net).__name__}: call it on a batch.")


def warn_of_range(generator: nn.Module, fake: Tensor, real: Tensor) -> None:
    """Warn if real samples lie where a generator that ends in tanh or a sigmoid never comes.

    Of images, an untrained generator whose samples all lie in [-1, 1] is taken for one.
    """
    layers = [m for m in generator.modules() if not any(True for _ in m.children()) and not isinstance(m, RESHAPE)]
    last = layers[-1] if layers else None
    low = 0.0 if isinstance(last, nn.Sigmoid) else -1.0
    bounded = isinstance(last, (nn.Tanh, nn.Sigmoid)) or (fake.dim() == 4 and float(fake.abs().max()) <= 1)
    least, most = float(real.min()), float(real.max())
    if bounded and (least < low - 0.1 or most > 1.1):
        warnings.warn(
            f"Real samples of the first batch lie in {least:.3g} to {most:.3g}, where the generator's, in "
            f"{float(fake.min()):.3g} to {float(fake.max()):.3g}, seem not to come: scale the data to [{low:g}, 1].",
            stacklevel=2,
        )


def warn_of_sigmoid(discriminator: nn.Module) -> None:
    """Warn if the discriminator's last layer is a sigmoid: all losses take raw scores."""
    layers = [m for m in discriminator.modules() if not any(True for _ in m.children()) and not isinstance(m, RESHAPE)]
    if layers and isinstance(layers[-1], (nn.Sigmoid, nn.LogSigmoid, nn.Softmax)):
        warnings.warn(
            f"The discriminator ends in {type(layers[-1]).__name__}, but the losses expect raw scores (logits): "
            "leave the last activation out.",
            stacklevel=4,
        )
