"""Bad input, told in one sentence before any work is lost."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_gans.functional.conditional import conditional_call, score, takes_labels
from lightning_gans.functional.double_backward.input_gradient import no_autocast

if TYPE_CHECKING:
    from lightning_gans.gan import Batch, GANModule
    from lightning_gans.regularizers import Regularizer

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm
_INACTIVE = 1e-6  # a p_g below which the kernel term of the primal-dual game moves nothing


def installed(*packages: str) -> None:
    """ImportError, with the command that helps, unless all packages are installed."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ImportError(f"{', '.join(missing)} must be installed for this: pip install {' '.join(missing)}")


def at_least_one(**values: int) -> None:
    """ValueError unless every value is an integer >= 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")


def positive(**values: float) -> None:
    """ValueError unless every value is > 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value!r}.")


def inside(**values: float) -> None:
    """ValueError unless every value is in (0, 1)."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must be in (0, 1), got {value!r}.")


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    if value not in tuple(allowed):
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


def regularizers(items: Sequence[Regularizer], discriminator: nn.Module) -> None:
    """ValueError for two regularizers of one name, and for a per-sample penalty with BatchNorm in the discriminator."""
    names = [r.name for r in items]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"regularizers must have different names, got {repeated[0]!r} more than once.")
    for r in items:
        for name, layer in discriminator.named_modules():
            if r.per_sample and isinstance(layer, _BATCH_NORMS):
                raise ValueError(
                    f"The penalty {r.name!r} is per sample, but BatchNorm (discriminator layer {name!r}) makes each "
                    "score depend on the whole batch: use layer, instance, group or no normalisation there."
                )


@torch.no_grad()
def scores_each_alone(module: GANModule, batch: Batch) -> bool:
    """Whether real and fake samples get the same scores in one batch as in two (not with minibatch statistics, say)."""
    fake = conditional_call(module.generator, batch.z, batch.labels)
    if (batch.real.shape, batch.real.dtype) != (fake.shape, fake.dtype):
        return False
    labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
    with no_autocast(fake.device.type):
        apart = torch.cat([score(module.discriminator, x, batch.labels) for x in (batch.real, fake)])
        joint = score(module.discriminator, torch.cat([batch.real, fake]), labels)
    return bool((joint - apart).abs().max() <= 1e-3 * apart.abs().max())  # not, if there is a NaN


def classifier(module: GANModule, network: nn.Module | None) -> nn.Module:
    """``network``, if it is one and ``module`` can go on with the discriminator's noise in the generator's steps."""
    if network is None:
        raise ValueError("classifier must be a network with ratio_clip, got None (ratio_clip=None needs none).")
    for name, value, only in (
        ("accumulate_g", module._accumulate["g"], 1),
        ("g_batch_factor", module.g_batch_factor, 1),
        ("order", module.order, "d_first"),
    ):
        if value != only:
            raise ValueError(f"{name} must be {only!r} with ratio_clip, which reuses the noise of D, got {value!r}.")
    discriminator_output(network)
    return network


def real_in_generator_step(module: GANModule) -> None:
    """ValueError if the generator's step cannot score real samples, since its labels are not theirs."""
    if module.g_batch_factor > 1 and takes_labels(module.discriminator):
        raise ValueError(
            "g_batch_factor must be 1 with a conditional discriminator that scores real samples in the generator's "
            f"step, got {module.g_batch_factor!r}."
        )


def unit_of_sigma(distance: Tensor) -> Tensor:
    """``distance``, the median one between real samples, if it can be the unit of a kernel's width."""
    if not distance > 0:
        raise ValueError(
            f"relative must be False for data whose median distance is not above 0, got {float(distance):g}."
        )
    return distance


def kernel_reaches(log_p: Tensor, sigma: Tensor) -> None:
    """Warn if no generated sample is near enough to a real one for the kernel to move it."""
    largest = float(log_p.max().exp())
    if largest < _INACTIVE:
        warnings.warn(
            f"The kernel term is inactive: the largest p_g of the first batch is {largest:.2g}, since all generated "
            f"samples are many times sigma = {float(sigma):.3g} away from the real ones: raise sigma.",
            stacklevel=5,
        )


def discriminator_output(discriminator: nn.Module) -> None:
    """Warn if the discriminator's last layer is a sigmoid: all losses take raw scores."""
    reshape = (nn.Flatten, nn.Unflatten, nn.Identity)
    layers = [m for m in discriminator.modules() if not any(True for _ in m.children()) and not isinstance(m, reshape)]
    if layers and isinstance(layers[-1], (nn.Sigmoid, nn.LogSigmoid, nn.Softmax)):
        warnings.warn(
            f"The discriminator ends in {type(layers[-1]).__name__}, but the losses expect raw scores (logits): "
            "leave the last activation out.",
            stacklevel=4,
        )


def sample_labels(labels: Tensor | None, n: int, num_classes: int | None) -> None:
    """ValueError unless ``labels`` fits ``n`` samples of a generator with ``num_classes`` classes."""
    if labels is None:
        return
    if num_classes is None:
        raise ValueError("labels were given, but the generator takes none: build it with num_classes.")
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one per sample, got {tuple(labels.shape)}.")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}.")


@torch.no_grad()
def batch(module: GANModule, b: Batch) -> None:
    """Check the first batch against the networks: finite data, weights, labels, and what both networks return."""
    if not torch.is_tensor(b.real) or not b.real.is_floating_point():
        kind = b.real.dtype if torch.is_tensor(b.real) else type(b.real).__name__
        hint = (
            "scale images to the data's range"
            if torch.is_tensor(b.real)
            else "yield x, (x, labels) or (x, labels, weights)"
        )
        raise TypeError(f"real samples must be a floating-point tensor, got {kind}: {hint}.")
    n = len(b.real)
    if n == 0:
        raise ValueError("The data loader yielded an empty batch.")
    if not torch.isfinite(b.real).all():
        raise ValueError("The first batch of real samples holds NaN or infinite values.")
    if b.weights is not None and (b.weights.shape != (n,) or not bool((b.weights >= 0).all())):
        raise ValueError(f"weights must be {n} numbers >= 0, one per real sample, got shape {tuple(b.weights.shape)}"
                         f" with minimum {float(b.weights.min()):g}.")  # fmt: skip
    for who, net in (("generator", module.generator), ("discriminator", module.discriminator)):
        if takes_labels(net) and b.labels is None:
            raise ValueError(
                f"The {who} is conditional, but the data loader yields no labels: let it yield (x, labels)."
            )
    _labels(module, b)
    with_labels = "" if b.labels is None else f" and labels {int(b.labels.min())}..{int(b.labels.max())}"
    try:
        fake = module(b.z, b.labels)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"The generator failed on noise of shape {tuple(b.z.shape)}{with_labels}; latent_dim={module.latent_dim} "
            f"must be the length of the noise that it takes ({error})."
        ) from error
    if fake.shape != b.real.shape:
        raise ValueError(
            f"The generator's output has shape {tuple(fake.shape)}, but real samples have {tuple(b.real.shape)}: "
            "both must be the same."
        )
    try:
        scores = conditional_call(module.discriminator, b.real, b.labels)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"The discriminator failed on real samples of shape {tuple(b.real.shape)}{with_labels} ({error})."
        ) from error
    if scores.shape != (n,):
        raise ValueError(
            f"The discriminator must return one score per sample, shape ({n},), got {tuple(scores.shape)}"
            + (": end it with .squeeze(1) or .flatten()." if scores.shape == (n, 1) else ".")
        )


def _labels(module: GANModule, b: Batch) -> None:
    """ValueError unless the labels of a batch are one class index per sample, within what the networks know."""
    if b.labels is None:
        return
    if b.labels.shape != (len(b.real),) or b.labels.is_floating_point():
        raise ValueError(
            f"labels must be {len(b.real)} integers, one class per real sample, got shape {tuple(b.labels.shape)} "
            f"of {b.labels.dtype}."
        )
    for who, net in (("generator", module.generator), ("discriminator", module.discriminator)):
        known = getattr(net, "num_classes", None)
        if takes_labels(net) and known is not None:
            low, high = int(b.labels.min()), int(b.labels.max())
            if low < 0 or high >= known:
                raise ValueError(f"labels must lie in 0..{known - 1}, which the {who} knows, got {low}..{high}.")
