"""Small games in float64 whose losses are on record: what every change of the engine has to reproduce.

All arguments are written out, so that a changed default is no change here; weights, data and dropout are made of
uniform numbers, which are the same on every machine. Only names that are public are imported, so that one file plays
older and newer commits: ``python cases.py`` prints the losses of the library on ``sys.path``.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lightning_gans import TECHNIQUES, GANModule, regularizers  # isort: skip  (before what imports torchvision)
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gans.datamodules import MemoryLoader
from lightning_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    LanguageModel,
    LeakGANGenerator,
    SeqGANDiscriminator,
    StyleAutoencoder,
    StyleDiscriminator,
    StyleGenerator,
    ToyDiscriminator,
    ToyGenerator,
)
from lightning_gans.optim import ExtraAdam, OptimisticAdam

UPDATES, LATENT, WIDTH, CLASSES = 20, 3, 8, 3
# Of each logged value one number per generator update, None before its first; of what is left in the end a few.
Losses = dict[str, list[float | None]]

# ---------------------------------------------------------------------- arguments
COMMON: dict[str, Any] = {
    "d_steps": 2,
    "g_steps": 1,
    "g_batch_factor": 1,
    "order": "d_first",
    "lr_g": 2e-3,
    "lr_d": 3e-3,
    "betas": (0.5, 0.9),
    "clip_grad_g": None,
    "clip_grad_d": None,
    "double_backward": "sparse",
    "cuda_graphs": False,
    "accumulate_g": 1,
    "accumulate_d": 1,
}
PRC: dict[str, Any] = {
    "reweight": True,
    "ratio_clip": None,
    "temperature": 0.8,
    "surrogate": "code",
    "center_scores": False,
    "loss": "wasserstein",
    "gp_weight": 5.0,
    "ct_weight": 0.0,
    "c_steps": 1,
    "lr_c": 1e-3,
    "clip_grad_c": 0.5,
}
SPECTRAL: dict[str, Any] = {"power_iterations": 1, "loss": "hinge", "g_batch_factor": 2, "order": "g_first"}
OWN: dict[str, dict[str, Any]] = {
    "gan": {"loss": "minimax"},
    "dcgan": {"loss": "non_saturating"},
    "wgan": {"c": 0.3},
    "wgan_gp": {"gp_weight": 10.0},
    "ct_gan": {"gp_weight": 10.0, "ct_weight": 2.0, "margin": 0.01},
    "sn_gan": SPECTRAL,
    "srn_gan": {**SPECTRAL, "c": 0.7},
    "wgan_alp": {"alp_weight": 10.0, "epsilon": (0.1, 10.0), "xi": 10.0, "clip": (-1.0, 1.0), "g_batch_factor": 2},
    "prc_gan": PRC,
    "primal_dual": {
        "pair": "js",
        "alpha": 0.3,
        "sigma": 0.8,
        "relative": True,
        "sigma_end": 0.4,
        "sigma_steps": 10,
        "project": False,
        "saturating": True,
    },
    "unrolled": {"unroll_steps": 2, "unroll_lr": 0.1, "unroll_optimizer": "sgd", "first_order": False},
    "robust_wgan": {
        "rho": 0.01,
        "loss": "wasserstein",
        "gp_weight": 10.0,
        "constraint_weight": 100.0,
        "w_start": 3,
        "w_every": 1,
        "momentum": 0.9,
    },
    "boosted": {"p": 0.7, "share": 0.5, "learn_p": False, "loss": "non_saturating"},
    "r3_gan": {"gamma": 0.5, "gamma_end": 0.1, "beta2_end": 0.99, "anneal_steps": 10, "loss": "relativistic"},
    "style_gan2": {
        "r1_gamma": 0.5,
        "r1_every": 3,
        "path_length_weight": 0.0,
        "path_length_every": 2,
        "style_mixing": 0.0,
        "loss": "non_saturating",
    },
    "trans_gan": {
        "drift_weight": 0.5,
        "super_resolution": 0.0,
        "locality": (),
        "loss": "wasserstein",
        "gp_weight": 10.0,
        "g_batch_factor": 2,
    },
    "gan_control": {
        "r1_gamma": 0.5,
        "r1_every": 3,
        "path_length_weight": 0.0,
        "path_length_every": 2,
        "style_mixing": 0.0,
        "groups": {"mean": 1, "other": 2},
        "control_weight": 2.0,
        "pairs": 1,
        "tau_same": 0.1,
        "tau_different": 1.0,
        "ramp": 5,
        "loss": "non_saturating",
    },
    "stylex": {
        "r1_gamma": 0.5,
        "r1_every": 3,
        "path_length_weight": 0.0,
        "path_length_every": 2,
        "style_mixing": 0.0,
        "num_classes": 2,
        "image_weight": 1.0,
        "features_weight": 0.1,
        "style_weight": 0.1,
        "kl_weight": 1.0,
        "loss": "non_saturating",
    },
    "ada_gan": {"beta": "uniform", "loss": "non_saturating"},
    "rel_gan": {"loss": "relativistic", "order": "g_first"},
    "seq_gan": {
        "rollouts": 2,
        "delay": 0.8,
        "baseline": "none",
        "reward": "discriminator",
        "l2_weight": 0.2,
        "loss": "non_saturating",
    },
    "leak_gan": {
        "rollouts": 2,
        "delay": 0.8,
        "baseline": "none",
        "reward": "discriminator",
        "l2_weight": 0.2,
        "delta": 12.0,
        "mle_weight": 1.0,
        "loss": "non_saturating",
    },
    "style_transfer": {
        "reconstruction_weight": 1.0,
        "style_weight": 0.5,
        "adversarial_weight": 0.3,
        "reweight": False,
        "temperature": 0.7,
        "loss": "non_saturating",
    },
}
OBJECTS = {"regularizers", "optimizer_g", "optimizer_d", "scheduler_g", "scheduler_d", "scheduler_c"}
OBJECTS |= {"classifier", "weight_network", "base", "features", "measure", "encoder"}
OBJECTS |= {
    "columns",
    "sam_g",
    "sam_d",
    "generator_checkpoint",
    "classifier_weights",
}  # None, and younger than the first cases
# Said by the technique itself, or not taken by it before.
FIXED = {name: {"loss"} for name in ("unrolled", "wgan", "wgan_alp", "wgan_gp", "ct_gan")}
FIXED["prc_gan"] = {"margin"}


@dataclass(frozen=True)
class Case:
    """One game: a technique, its networks (see ``networks``), its data (see ``loader``) and what differs in it."""

    technique: str
    nets: str = "mlp"
    data: str = "plain"
    options: dict[str, Any] = field(default_factory=dict)
    regularizer: tuple[str, dict[str, Any]] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {**COMMON, **OWN[self.technique], **self.options}


CLIP = {"ratio_clip": 0.4, "g_steps": 3}
HALVED = partial(torch.optim.lr_scheduler.StepLR, step_size=5, gamma=0.5)
LOSSES = ("non_saturating", "hinge", "least_squares", "wasserstein", "relativistic_average")
INJECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "dragan": ("DRAGAN", {"weight": 3.0}),
    "r1": ("R1", {"weight": 2.0}),
    "r2": ("R2", {"weight": 2.0}),
    "lipschitz": (
        "AdversarialLipschitzPenalty",
        {"weight": 3.0, "target": 0.5, "epsilon": (0.1, 2.0), "xi": 5.0, "power_iterations": 2, "clip": None},
    ),
    "consistency": ("ConsistencyTerm", {"weight": 2.0, "margin": 0.0, "feature_weight": 0.1}),
    "finite_difference": ("FiniteDifferencePenalty", {"weight": 3.0, "p": 2.0}),
    "penalty": (
        "GradientPenalty",
        {"weight": 3.0, "p": 2.0, "target": 0.2, "power": 2.0, "one_sided": True, "at": "real"},
    ),
    "score": ("ScorePenalty", {"weight": 0.5}),
}
TEXT = {"seq_gan", "leak_gan", "style_transfer"}  # of no other networks
CASES: dict[str, Case] = {
    **{name: Case(name, "dropout" if name == "ct_gan" else "mlp") for name in OWN if name not in TEXT},
    "seq_gan": Case("seq_gan", "text", "text"),
    "leak_gan": Case("leak_gan", "leak", "text"),
    "seq_gan-permuted": Case("seq_gan", "text", "one-hot", {"reward": "permuted", "baseline": "batch"}),
    "style_transfer": Case("style_transfer", "text", "styled"),
    "style_transfer-reweight": Case("style_transfer", "text", "styled", {"reweight": True}),
    # the variants of techniques
    "prc_gan-clip": Case("prc_gan", options=CLIP),
    "prc_gan-paper": Case("prc_gan", "dropout", options={**CLIP, "surrogate": "paper", "center_scores": True,
                                                         "ct_weight": 2.0, "c_steps": 2}),
    "unrolled-adam": Case("unrolled", options={"unroll_optimizer": "adam", "unroll_lr": 2e-3}),
    "unrolled-first_order": Case("unrolled", options={"first_order": True}),
    "unrolled-none": Case("unrolled", options={"unroll_steps": 0}),
    "boosted-learned": Case("boosted", options={"learn_p": True}),
    "boosted-weights": Case("boosted", data="weights"),
    "robust_wgan-discrete": Case("robust_wgan", "no third", "memory", {"w_start": 2, "w_every": 2}),
    "robust_wgan-hinge": Case("robust_wgan", options={"loss": "hinge"}),
    "primal_dual-wasserstein": Case("primal_dual", options={"pair": "wasserstein", "project": True,
                                                            "relative": False, "sigma_end": None}),
    "primal_dual-weights": Case("primal_dual", data="weights", options={"saturating": False}),
    # losses and terms
    "sn_gan-relativistic": Case("sn_gan", data="weights", options={"loss": "relativistic", "g_batch_factor": 1}),
    **{f"gan-{loss}": Case("gan", options={"loss": loss}) for loss in LOSSES},
    **{f"gan-{name}": Case("gan", "dropout" if name == "consistency" else "mlp", regularizer=given)
       for name, given in INJECTED.items()},
    # labels and weights
    **{f"{name}-conditional": Case(name, "conditional", "labels")
       for name in ("gan", "wgan", "wgan_gp", "wgan_alp", "prc_gan", "robust_wgan")},
    "prc_gan-conditional_clip": Case("prc_gan", "conditional", "labels", CLIP),
    "ct_gan-conditional": Case("ct_gan", "conditional dropout", "labels"),
    "gan-weights": Case("gan", data="weights"),
    "wgan_gp-weights": Case("wgan_gp", "conditional", "labels and weights"),
    # images and buffers
    "dcgan-image": Case("dcgan", "image", "images"),
    "sn_gan-image": Case("sn_gan", "plain image", "images"),
    "srn_gan-image": Case("srn_gan", "plain image", "images"),
    "wgan_gp-image": Case("wgan_gp", "plain image", "images"),
    "wgan_gp-linear": Case("wgan_gp", "plain image", "images", {"double_backward": "linear"}),
    "prc_gan-image": Case("prc_gan", "plain image", "images", {**CLIP, "loss": "non_saturating"}),
    "robust_wgan-image": Case("robust_wgan", "image", "images", {"gp_weight": 0.0, "loss": "non_saturating"}),
    "boosted-image": Case("boosted", "image", "images"),
    "style_gan2-styles": Case("style_gan2", "styles", "images", {"path_length_weight": 2.0, "style_mixing": 0.9}),
    # the engine
    "gan-accumulate": Case("gan", options={"accumulate_d": 2, "accumulate_g": 2}),
    "gan-factor": Case("gan", options={"g_batch_factor": 2}),
    "gan-factor_conditional": Case("gan", "conditional", "labels", {"g_batch_factor": 2}),
    "wgan_gp-g_first": Case("wgan_gp", options={"order": "g_first"}),
    "gan-g_steps": Case("gan", options={"g_steps": 3}),
    "gan-d_steps": Case("gan", options={"d_steps": 5}),
    "wgan_gp-clip_grad": Case("wgan_gp", options={"clip_grad_d": 0.5, "clip_grad_g": 0.1}),
    "gan-schedule": Case("gan", options={"scheduler_d": HALVED, "scheduler_g": HALVED}),
    "gan-optimistic": Case("gan", options={"optimizer_d": partial(OptimisticAdam, lr=3e-3, betas=(0.5, 0.9), eps=1e-8),
                                           "optimizer_g": partial(ExtraAdam, lr=2e-3, betas=(0.5, 0.9), eps=1e-8)}),
    "wgan_gp-memory": Case("wgan_gp", data="augmented"),
}  # fmt: skip


# ---------------------------------------------------------------------- networks and data
class Drop(nn.Module):
    """Dropout by uniform numbers: torch's own masks differ from machine to machine."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(x.shape, dtype=x.dtype) > 0.3) / 0.7 if self.training else x


class Critic(nn.Module):
    """Points to scores, with dropout before the last layer if asked for.

    The last layer has no bias: its gradient is 0 in a Wasserstein game, and Adam would make steps of the rounding.
    """

    def __init__(self, dropout: bool) -> None:
        super().__init__()
        drop = [Drop()] if dropout else []
        last = nn.Linear(WIDTH, 1, bias=False)
        self.layers = nn.Sequential(nn.Linear(2, WIDTH), nn.LeakyReLU(0.2), *drop, last, nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LabelledCritic(Critic):
    """The same with a term for each class."""

    def __init__(self, dropout: bool) -> None:
        super().__init__(dropout)
        self.classes = nn.Embedding(CLASSES, 2)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.layers(x) + (self.classes(labels) * x).sum(1)


def filled(net: nn.Module, seed: int) -> nn.Module:
    """The network with uniform weights: the same on every machine, whatever its initialisation is."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            u = torch.rand(p.shape, generator=source, dtype=torch.float64) * 2 - 1
            wide = math.sqrt(3 / p[0].numel()) if p.ndim > 1 else 0.1
            p.copy_(wide * u + float(p.ndim == 1 and not name.endswith("bias")))
    return net


def equalised(net: nn.Module) -> nn.Module:
    """A filled network whose weights are of the size that equalised layers expect, which scale them when called."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.ndim > 1:
                p.mul_(math.sqrt(p[0].numel()) * (100 if "mapping" in name else 1))
            elif name.endswith("affine.bias"):
                p.add_(1)
    return net


class Brightness(nn.Module):
    """An attribute of anything."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"mean": x.flatten(1).mean(1)}


class Bright(nn.Module):
    """The logit of it."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.flatten(1).mean(1)


def networks(case: Case) -> dict[str, nn.Module]:
    """Generator, discriminator and what else the technique takes."""
    classes = CLASSES if "conditional" in case.nets else None
    critics: list[nn.Module]
    generators: list[nn.Module]
    if case.nets == "styles":
        generators = [StyleGenerator((1, 8, 8), LATENT, w_dim=LATENT, widths=2, mapping_layers=2, num_classes=None)]
        critics = [StyleDiscriminator((1, 8, 8), widths=2, group=2, num_classes=None)]
    elif case.nets == "text":
        generators = [LanguageModel((LATENT, 5), embedding=WIDTH, hidden=WIDTH)]
        if case.technique == "style_transfer":
            generators = [StyleAutoencoder((2, 5), LATENT, 2, WIDTH, 4, 0.0, (1.0, 9.0), "linear", 10)]
        critics = [SeqGANDiscriminator((2, 5), embedding=WIDTH, kernels=(1, 2), filters=4, dropout=0.0) for _ in "dc"]
    elif case.nets == "leak":
        critics = [SeqGANDiscriminator((LATENT, 5), embedding=WIDTH, kernels=(1, 2), filters=4, dropout=0.0)]
        generators = [LeakGANGenerator(critics[0], (LATENT, 5), embedding=WIDTH, hidden=WIDTH, goal_size=4, horizon=2)]
    elif "image" in case.nets:
        norm: Any = "none" if "plain" in case.nets else "batch"
        generators = [DCGANGenerator(shape=(1, 8, 8), latent_dim=LATENT, width=2, norm="batch", num_classes=None,
                                     activation="relu", constant_width=False) for _ in range(2)]  # fmt: skip
        critics = [DCGANDiscriminator(shape=(1, 8, 8), width=2, norm=n, num_classes=None,
                                    activation="relu", dropout=0.0) for n in (norm, "batch")]  # fmt: skip
    else:
        generators = [ToyGenerator(shape=(2,), latent_dim=LATENT, width=WIDTH, depth=1, num_classes=classes)
                      for _ in range(2)]  # fmt: skip
        third = ToyDiscriminator(shape=(2,), width=WIDTH, depth=1, num_classes=classes)
        critics = [(LabelledCritic if classes else Critic)("dropout" in case.nets), third]
    nets = {"generator": filled(generators[0], 1), "discriminator": filled(critics[0], 2)}
    if case.nets == "styles":
        nets = {name: equalised(net) for name, net in nets.items()}
    if case.technique == "prc_gan" and case.arguments["ratio_clip"] is not None:
        nets["classifier"] = filled(critics[1], 3)
    if case.technique == "style_transfer":
        nets["classifier"] = filled(critics[1], 3)
    if case.technique == "robust_wgan" and case.nets != "no third":
        nets["weight_network"] = filled(critics[1], 3)
    if case.technique == "stylex":
        nets["encoder"] = filled(nn.Sequential(nn.Flatten(), nn.Linear(2, 1)).double(), 5)
        nets["classifier"] = Bright()
    if case.technique == "gan_control":
        nets["measure"] = Brightness()
    if case.technique in ("boosted", "ada_gan"):
        nets["base"] = filled(generators[1], 4)
    return nets


def loader(kind: str) -> Any:
    """44 items in batches of 4, so that cycles span epochs of 11 batches; in a random order."""
    source = torch.Generator().manual_seed(7)
    shape = (1, 8, 8) if kind == "images" else (2,)
    x = torch.rand(44, *shape, generator=source, dtype=torch.float64) * 2 - 1
    labels = torch.randint(CLASSES, (44,), generator=source)
    weights = torch.rand(44, generator=source, dtype=torch.float64) + 0.5
    if kind in ("text", "one-hot", "styled"):
        length = 2 if kind == "styled" else LATENT
        tokens = (torch.rand(44, length, generator=source, dtype=torch.float64) * 5).long()
        texts: Any = tokens if kind == "text" else nn.functional.one_hot(tokens, 5).double()
        return DataLoader(TensorDataset(texts, labels % 2) if kind == "styled" else texts, 4, shuffle=True)
    if kind == "memory":
        return MemoryLoader(x, None, 4, shuffle=True, drop_last=True)
    if kind == "augmented":
        noisy = lambda rows, g: rows + 0.1 * torch.rand(rows.shape, generator=g, dtype=rows.dtype)  # noqa: E731
        return MemoryLoader(x, None, 4, shuffle=True, drop_last=True, transform=noisy, weights=weights)
    if kind == "weights":
        return DataLoader(TensorDataset(x, weights), 4, shuffle=True, collate_fn=without_labels)
    columns = {"labels": (x, labels), "labels and weights": (x, labels, weights)}.get(kind)
    data: Any = TensorDataset(*columns) if columns else x
    return DataLoader(data, 4, shuffle=True)


def without_labels(rows: list[tuple[Tensor, ...]]) -> tuple[Tensor, None, Tensor]:
    """A batch of items and their weights."""
    x, weights = zip(*rows)
    return torch.stack(x), None, torch.stack(weights)


# ---------------------------------------------------------------------- playing
class Record(pl.Callback):
    """Every value of ``module.values`` after every generator update."""

    def __init__(self) -> None:
        self.losses: Losses = {}
        self.updates = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self.updates:  # a step that only carried batches over an epoch's end
            return
        self.updates = trainer.global_step
        for name, value in pl_module.values.items():
            column = self.losses.setdefault(name, [])
            column += [None] * (self.updates - 1 - len(column)) + [float(value)]


@contextmanager
def double() -> Iterator[None]:
    """Numbers are float64 where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build(case: Case) -> GANModule:
    """The module of a case."""
    with double():
        torch.manual_seed(3)  # spectral norm's first vectors
        given = networks(case)
        if case.regularizer is not None:
            name, arguments = case.regularizer
            given["regularizers"] = [getattr(regularizers, name)(**arguments)]  # type: ignore[assignment]
        return TECHNIQUES[case.technique](latent_dim=LATENT, **given, **case.arguments)  # type: ignore[arg-type]


def play(case: Case) -> Losses:
    """The losses of 20 generator updates, and what they leave: parameters, buffers, samples."""
    module, record = build(case), Record()
    trainer = pl.Trainer(accelerator="cpu", devices=1, precision="64-true", max_steps=UPDATES, max_epochs=-1,
                         callbacks=[record], logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, log_every_n_steps=1)  # fmt: skip
    torch.manual_seed(5)
    trainer.fit(module, train_dataloaders=loader(case.data))
    assert record.updates == UPDATES
    samples = module.sample(2, seed=0).flatten()[:4].tolist()
    return {**record.losses, **left(module), "samples": samples, "images_seen": [float(module.images_seen)]}


def left(module: GANModule) -> Losses:
    """A number for each parameter and buffer: a mean with weights between 1 and 2."""
    source = torch.Generator().manual_seed(11)
    found: Losses = {}
    for name, value in module.state_dict().items():
        weights = 1 + torch.rand(value.shape, generator=source, dtype=torch.float64)
        found[f"state/{name}"] = [float((weights * value.double()).mean())]
    return found


def unwritten(case: Case) -> list[str]:
    """Arguments of the technique, or of a class it is derived from, that a case leaves to their defaults."""
    owners = [c for c in TECHNIQUES[case.technique].__mro__ if issubclass(c, GANModule) and "__init__" in vars(c)]
    known = {name for c in owners for name, p in inspect.signature(c.__init__).parameters.items()
             if p.kind is p.KEYWORD_ONLY}  # fmt: skip
    return sorted(known - OBJECTS - FIXED.get(case.technique, set()) - case.arguments.keys())


def known(name: str) -> bool:
    """Whether this commit has what a case is about: a technique or loss may be younger."""
    try:
        build(CASES[name])
    except (KeyError, ValueError):
        return False
    return True


def main(names: list[str]) -> None:
    """Print the losses of the named cases, of all without a name, and the files that the library was taken from."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    losses = {name: play(CASES[name]) for name in names or filter(known, CASES)}
    loaded = [m for name, m in sys.modules.items() if name.split(".")[0] == "lightning_gans"]
    files = sorted({str(Path(m.__file__).resolve()) for m in loaded if getattr(m, "__file__", None)})
    print(json.dumps({"files": files, "losses": losses}))


if __name__ == "__main__":
    main(sys.argv[1:])
