"""Small games for the tests: every technique on two-dimensional data, in milliseconds."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_gans import MLE, NONADVERSARIAL, TECHNIQUES, GANModule, LeakGAN, SeqGAN, StyleTransfer
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.datamodules import MarkovText, MemoryLoader
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.text import one_hot
from lightning_gans.metrics import ngram_js_to_law
from lightning_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    DiffusionMLP,
    LanguageModel,
    LeakGANGenerator,
    StyleAutoencoder,
    ToyDiscriminator,
    ToyGenerator,
    VAEDecoder,
    VAEEncoder,
)

# What a technique needs to run by itself on nets without dropout, in cycles of one generator update.
SETTINGS: dict[str, dict[str, Any]] = {
    "prc_gan": {"ct_weight": 0.0, "ratio_clip": None, "g_steps": 1},
    "unrolled": {"unroll_steps": 2, "unroll_optimizer": "sgd", "unroll_lr": 0.1},
    "unrolled_adam": {"unroll_steps": 2},
    "robust_wgan": {"w_start": 0},
    "style_gan2": {"r1_every": 1, "path_length_weight": 0.0, "style_mixing": 0.0},  # for want of styles
    "gan_control": {
        "path_length_weight": 0.0,
        "r1_every": 1,
        "groups": {"mean": 1, "other": 2},
        "pairs": 1,
        "ramp": 2,
        "lr_g": 2e-4,
        "lr_d": 2e-4,
    },
    "stylex": {"path_length_weight": 0.0, "r1_every": 1, "lr_g": 2e-4, "lr_d": 2e-4},
    "seq_gan": {"rollouts": 2, "l2_weight": 0.0, "d_steps": 2},
    "leak_gan": {"rollouts": 2, "l2_weight": 0.0, "d_steps": 2},
    "boosted": {"p": 0.7},
    "boosted_learned": {"p": 0.7, "learn_p": True},
}
# Beside the techniques: one with its classifier, in cycles of several generator updates; one by another rule; one
# with a mixture weight that trains.
VARIANTS = [*TECHNIQUES, "prc_gan_clip", "unrolled_adam", "boosted_learned"]
# Each kind of engine's path once: what is tried with these by default is tried with all of them by --runslow.
KINDS = {"gan", "wgan_gp", "sn_gan", "prc_gan_clip", "unrolled", "robust_wgan", "primal_dual", "boosted_learned"}
KINDS |= {"style_gan2", "trans_gan"}
BY_KIND = [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
# Models without an adversary, and variants of them, with their settings.
OTHERS: dict[str, dict[str, Any]] = {
    **{name: {} for name in NONADVERSARIAL},
    "vaebm": {"vae_steps": 1, "chain_steps": 2, "buffer_size": 20},
    "ddpm": {"steps": 20, "sampling_steps": 4},
    "ddpm_learned": {"steps": 20, "sampling_steps": 4, "variance": "learned", "loss_aware": True},
    "exemplar_vae_near": {"exemplars": 20, "neighbours": 2},
}
TEXTS = {"seq_gan", "leak_gan", "style_transfer"}  # whose generator writes texts
GROWN = {"boosted", "boosted_learned", "ada_gan"}  # on top of a frozen generator

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": -1,
}


def make(technique: str, **options: Any) -> Any:
    """A technique, or another model, with tiny MLPs on (2,)-shaped data, the same weights each time."""
    torch.manual_seed(1)
    if technique in OTHERS:
        return other(technique, (2,), **options)
    generator = ToyGenerator(shape=(2,), latent_dim=3, width=8, depth=1)
    discriminator = ToyDiscriminator(shape=(2,), width=8, depth=1)
    return build(technique, generator, discriminator, ToyDiscriminator(shape=(2,), width=8, depth=1), **options)


def make_images(technique: str, **options: Any) -> Any:
    """A technique with tiny DCGAN nets on 1x8x8 images; BatchNorm in both where the technique allows it."""
    torch.manual_seed(1)
    if technique in OTHERS:
        return other(technique, (1, 8, 8), **options)
    norm = "none" if technique in PENALISED else "batch"
    generator = DCGANGenerator(shape=(1, 8, 8), latent_dim=3, width=4)
    discriminator = DCGANDiscriminator(shape=(1, 8, 8), width=4, norm=norm)
    classifier = DCGANDiscriminator(shape=(1, 8, 8), width=4)
    return build(technique, generator, discriminator, classifier, **options)


def other(name: str, shape: tuple[int, ...], **options: Any) -> Any:
    """A model without an adversary, or a variant of one."""
    options = OTHERS[name] | options
    if name == "mle":
        return NumbersMLE(LanguageModel((3, 5), 4, 4), **options)
    if name.startswith("ddpm"):
        net = DiffusionMLP(shape, 16, 1, learned_variance=options.get("variance") == "learned")
        return NONADVERSARIAL["ddpm"](net, shape, **options)
    if name == "vaebm":
        return NONADVERSARIAL[name](*autoencoder(shape), ToyDiscriminator(shape, 8, 1), 3, **options)  # type: ignore[call-arg]
    return NONADVERSARIAL[name.removesuffix("_near")](*autoencoder(shape), 3, **options)  # type: ignore[call-arg]


def read(batch: Batch) -> Batch:
    """What the tests train on as texts: the first three numbers, in about [-1, 1], as one of five symbols each."""
    x = batch.real.flatten(1)
    tokens = F.pad(((x[:, :3] + 1) * 2.5).long().clamp(0, 4), (0, max(0, 3 - x.shape[1])))
    return replace(batch, real=one_hot(tokens, 5, x.dtype))


class ReadsNumbers:
    """A model of text that trains on numbers."""

    def take(self, n: int) -> list[Batch]:
        return [read(batch) for batch in super().take(n)]  # type: ignore[misc]

    def check_first_batch(self, batch: Batch) -> None:
        super().check_first_batch(read(batch))  # type: ignore[misc]


class NumbersMLE(ReadsNumbers, MLE):
    """Maximum likelihood of them."""


class NumbersSeqGAN(ReadsNumbers, SeqGAN):
    """SeqGAN of them."""


class NumbersLeakGAN(ReadsNumbers, LeakGAN):
    """LeakGAN of them."""


class NumbersStyleTransfer(ReadsNumbers, StyleTransfer):
    """Style transfer of them; the first symbol tells the style."""

    def take(self, n: int) -> list[Batch]:
        return [styled(batch) for batch in super().take(n)]

    def check_first_batch(self, batch: Batch) -> None:
        super().check_first_batch(styled(read(batch)))


def styled(batch: Batch) -> Batch:
    """With a style of each text."""
    return replace(batch, labels=(batch.real[:, 0].argmax(1) > 2).long())


class OfTexts(nn.Module):
    """A discriminator of numbers that takes texts (N, 3, 5) for such; its features are its score and the text."""

    def __init__(self, net: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape, self.num_classes = net, shape, getattr(net, "num_classes", None)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        x, size = x.flatten(1), math.prod(self.shape)
        return conditional_call(
            self.net, x.repeat(1, 1 + size // x.shape[1])[:, :size].unflatten(1, self.shape), labels
        )

    def features(self, tokens: Tensor) -> Tensor:
        read = one_hot(tokens.clamp(min=0), 5, next(self.parameters()).dtype) * (tokens >= 0)[..., None]
        return torch.cat([self(read, tokens.new_zeros(len(tokens))).view(-1, 1), read.flatten(1)], 1)


def autoencoder(shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """An encoder to codes of length 3 and its decoder."""
    return VAEEncoder(shape, 3, width=8, depth=1), VAEDecoder(shape, 3, width=8, depth=1)


def brightness(x: Tensor) -> dict[str, Tensor]:
    """An attribute of anything."""
    return {"mean": x.flatten(1).mean(1)}


def bright(x: Tensor) -> Tensor:
    """The logit of another."""
    return 3 * x.flatten(1).mean(1)


def build(
    technique: str, generator: nn.Module, discriminator: nn.Module, classifier: nn.Module, /, **options: Any
) -> GANModule:
    """A technique or variant of one."""
    if technique == "prc_gan_clip":
        own: dict[str, Any] = {"classifier": classifier, "ct_weight": 0.0, "d_steps": 2, "g_steps": 3}
        return TECHNIQUES["prc_gan"](generator, discriminator, 3, **(own | options))
    if technique == "seq_gan":
        shape = (1, 8, 8) if isinstance(generator, DCGANGenerator) else (2,)
        settings = SETTINGS[technique] | options
        return NumbersSeqGAN(LanguageModel((3, 5), 4, 4), OfTexts(discriminator, shape), 3, **settings)
    if technique == "style_transfer":
        shape = (1, 8, 8) if isinstance(generator, DCGANGenerator) else (2,)
        own = {"classifier": nn.Sequential(nn.Flatten(), nn.Linear(15, 2))} | options
        return NumbersStyleTransfer(
            StyleAutoencoder((3, 5), 7, 2, 4, 2, schedule="constant"), OfTexts(discriminator, shape), 7, **own
        )
    if technique == "leak_gan":
        critic = OfTexts(discriminator, (1, 8, 8) if isinstance(generator, DCGANGenerator) else (2,))
        net = LeakGANGenerator(critic, (3, 5), 4, 4, 2, horizon=2)
        return NumbersLeakGAN(net, critic, 3, **SETTINGS[technique] | options)
    third = {"weight_network": classifier} if technique == "robust_wgan" else {}
    if technique == "stylex":
        size = 64 if isinstance(generator, DCGANGenerator) else 2
        third |= {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(size, 1)), "classifier": bright}
    third |= {"measure": brightness} if technique == "gan_control" else {}
    settings = SETTINGS.get(technique, {}) | third | options
    if technique in GROWN:
        settings["base"] = copy.deepcopy(generator)
    return TECHNIQUES[technique.removesuffix("_adam").removesuffix("_learned")](generator, discriminator, 3, **settings)


# A per-sample penalty of their own refuses BatchNorm in the discriminator.
PENALISED = {name for name in VARIANTS if any(make(name).own_terms.values())}


def networks(module: GANModule) -> dict[str, nn.Module]:
    """The networks of a module by the names of its arguments."""
    taken = inspect.signature(type(module)).parameters
    names = [name for player in module.players.values() for name in player.networks]
    names += [name for name in ("measure", "classifier") if hasattr(module, name)]  # which no player has
    names = [name for name in names if name != "log_variances"]  # which a model makes itself
    return {name: getattr(module, name) for name in names if name in taken or "kwargs" in taken or "options" in taken}


def trainer(**options: Any) -> pl.Trainer:
    """A trainer that prints and writes nothing, unless told to."""
    return pl.Trainer(**(QUIET | options))


def plain(
    n: int = 400, batch_size: int = 4, shape: tuple[int, ...] = (2,), dtype: torch.dtype | None = None
) -> DataLoader:
    """A plain DataLoader of n fixed items in [-1, 1], in order."""
    data = torch.rand(n, *shape, generator=torch.Generator().manual_seed(7), dtype=dtype) * 2 - 1
    return DataLoader(data, batch_size)


def data_for(name: str, shape: tuple[int, ...] = (2,)) -> Any:
    """:func:`plain` data in the loader that a model needs."""
    loader = plain(shape=shape)
    return MemoryLoader(loader.dataset, None, 4, shuffle=False) if name in OTHERS else loader  # type: ignore[arg-type]


class Noisy(Dataset):
    """Items that draw random numbers when they are read, as augmentations do."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Tensor:
        return torch.tensor([i / self.n, 0.5]) + 0.1 * torch.randn(2)


def noisy_loader(n: int, batch_size: int, workers: int) -> DataLoader:
    """A plain shuffling DataLoader over :class:`Noisy`."""
    return DataLoader(Noisy(n), batch_size, shuffle=True, num_workers=workers, drop_last=True)


def state(module: GANModule) -> dict[str, Tensor]:
    """Parameters and buffers, copied."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def copy_of(name: str) -> str:
    """The weight that one of a copy within the module follows; itself for others."""
    return name.replace("delayed.", "generator.").replace("generator.leaked.", "discriminator.")


def resting(module: GANModule) -> set[str]:
    """Names in the state of what never trains: parameters without a gradient, buffers in evaluation mode."""
    trains = {name: p.requires_grad for name, p in module.named_parameters()}
    names = {name for name in trains if not trains[copy_of(name)]}
    for owner, sub in module.named_modules():
        kept = not sub.training or owner == "generator"  # the weights among a mixture's frozen components
        names |= {f"{owner}.{name}" for name, _ in sub.named_buffers(recurse=False) if kept}
    return names


def equal(a: Any, b: Any) -> bool:
    """Bit-wise equality of nested containers of tensors and plain values."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, Iterable) and not isinstance(a, str):
        a, b = list(a), list(b)
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b))
    return bool(a == b)


def doubles(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of a seed, in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def critic(*end: nn.Module) -> nn.Sequential:
    """A discriminator of points, with what may stand at its end."""
    return nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), *end)


def loud(net: Any) -> Any:
    """With laws that are far from uniform, in float64."""
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return net.double()


def js2(model: Any, data: MarkovText, samples: int = 2000) -> float:
    """How far a model's bigrams are from the law of its data."""
    return ngram_js_to_law(model.sample(samples, seed=0), data.law, 2, 6)


def near_modes(points: Tensor) -> float:
    """Share of points (N, 2) within three deviations, of 0.1, of one of the modes (-1, 0) and (1, 0)."""
    return float(((points[:, :1].abs() - 1).square() + points[:, 1:].square() < 0.3**2).float().mean())


class Record(loggers.Logger):
    """A logger that remembers, by step, what is logged under a prefix."""

    name, version = "record", 0

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.prefix = prefix
        self.rows: dict[int, dict[str, float]] = {}

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep what begins so."""
        if found := {name: value for name, value in metrics.items() if name.startswith(self.prefix)}:
            self.rows.setdefault(int(step or 0), {}).update(found)

    def of(self, name: str) -> dict[int, float]:
        """Value by step."""
        return {step: row[name] for step, row in self.rows.items() if name in row}
