"""A picture of each technique on the same data, with what it logged and what an update cost: for its page.

    python -m website.portraits                    # what docs/images/techniques lacks; the rest is kept
    python -m website.portraits --only wgan_gp     # again

Points: the ring of eight modes, perceptrons of three layers of 64 units, batches of 256, EMA of 0.99, 1,000 generator
updates, rates of 1e-3 with beta1 = 0.5 unless ``RING`` says otherwise; nothing is tuned. Texts: a Markov chain of six
letters whose law is known, networks of configs/markov. Seed 0, one core. Times are of the processor, of training steps
alone, and of a machine on which other things ran.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.recipes import header
from experiments.playing import Clock, Rows
from lightning_gans import MLE, NONADVERSARIAL, TECHNIQUES
from lightning_gans.callbacks import EMA
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MarkovText, MemoryLoader, Ring, StyledText
from lightning_gans.metrics import mode_coverage
from lightning_gans.networks import (
    DiffusionMLP,
    LanguageModel,
    LeakGANGenerator,
    RelationalGenerator,
    RelGANDiscriminator,
    SeqGANDiscriminator,
    StyleAutoencoder,
    ToyDiscriminator,
    ToyGenerator,
    VAEDecoder,
    VAEEncoder,
)
from lightning_gans.runs.atomic import replacing, write_text
from lightning_gans.stages import fit_style_classifier
from lightning_gans.visualization.images import FAKE_COLOUR, INK, REAL_COLOUR, figure_image, new_figure

FOLDER = Path(__file__).parent.parent / "docs" / "images" / "techniques"
RECORD = "record.json"
WIDTH, BATCH, UPDATES, SEED, SHOWN, LATENT = 64, 256, 1000, 0, 1000, 2
RATES: dict[str, Any] = {"lr_g": 1e-3, "lr_d": 1e-3, "betas": (0.5, 0.9)}
WEAK: dict[str, Any] = {"gp_weight": 0.1}  # as in the released code's toys
RING: dict[str, dict[str, Any]] = {
    "gan": RATES,
    "dcgan": RATES | {"betas": (0.5, 0.999)},
    "wgan": {"c": 0.1, "lr_g": 5e-4, "lr_d": 5e-4},
    "wgan_gp": RATES | WEAK,
    "ct_gan": RATES | WEAK,
    "sn_gan": RATES,
    "srn_gan": RATES,
    "wgan_alp": RATES | {"alp_weight": 1.0, "clip": None},
    "prc_gan": RATES | WEAK | {"ct_weight": 0.0, "lr_g": 2e-4, "lr_c": 2e-4},
    "primal_dual": RATES | {"alpha": 0.1, "sigma": 0.3, "saturating": False},
    "unrolled": {"lr_g": 1e-3, "lr_d": 1e-4, "unroll_lr": 1e-4},
    "robust_wgan": RATES | WEAK | {"rho": 0.0264, "w_start": 100},
    "boosted": RATES | {"p": 0.5},
    "ada_gan": RATES | {"beta": 0.5},
    "r3_gan": RATES | {"gamma": 3e-4, "betas": (0.5, 0.999)},
    "style_gan2": RATES | {"style_mixing": 0.0, "path_length_weight": 0.0, "r1_gamma": 0.01},  # for want of styles
    "trans_gan": RATES | WEAK | {"d_steps": 4},
    "gan_control": RATES | {"path_length_weight": 0.0, "r1_gamma": 0.01, "groups": {"x": 1, "other": 1}},
    "stylex": RATES | {"path_length_weight": 0.0, "r1_gamma": 0.01},
    "vae": {"lr_vae": 1e-3, "warm_up": 300},
    "vaebm": {"lr_vae": 2e-3, "warm_up": 300, "vae_steps": 700, "sigma": 0.05, "step_size": 0.1, "spectral": 2.0,
              "lr_energy": 2e-4, "noisy": False},
    "exemplar_vae": {"lr_vae": 1e-3, "exemplars": 500},
    "ddpm": {"steps": 50, "variance": "fixed_small", "lr": 2e-3},
}  # fmt: skip
KINDS: dict[str, Any] = {**TECHNIQUES, **NONADVERSARIAL}
TEXTS = ("rel_gan", "seq_gan", "leak_gan", "style_transfer", "mle")


def stem(name: str) -> str:
    """The name of a technique's file, and of its picture and page."""
    return str(KINDS[name].__module__).rpartition(".")[2]


def fit(model: pl.LightningModule, data: Any, updates: int, *callbacks: pl.Callback) -> Clock:
    """Train, and tell what was logged and how long it took."""
    clock = Clock()
    batches = {"datamodule": data} if isinstance(data, pl.LightningDataModule) else {"train_dataloaders": data}
    pl.Trainer(
        max_steps=updates, max_epochs=-1, accelerator="cpu", devices=1, logger=Rows(clock), log_every_n_steps=10,
        callbacks=[clock, *callbacks], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    ).fit(model, **batches)  # fmt: skip
    return clock


def rightness(x: Tensor) -> Tensor:
    """A logit for `StylEx`: is a point in the right half?"""
    return 4 * x[:, 0]


def position(x: Tensor) -> dict[str, Tensor]:
    """An attribute for `GANControl`: how far to the right?"""
    return {"x": x[:, 0]}


def on_points(name: str) -> tuple[Any, Any]:
    """A model and the ring."""
    data, options, made = Ring(batch_size=BATCH), dict(RING[name]), KINDS[name]
    encoder, decoder = VAEEncoder((2,), LATENT, WIDTH), VAEDecoder((2,), LATENT, WIDTH)
    critic = ToyDiscriminator(width=WIDTH)
    if name == "ddpm":
        return made(DiffusionMLP((2,), WIDTH), (2,), **options), data
    if name in ("vae", "exemplar_vae"):
        finite = MemoryLoader(data.sample_exact(10_000, torch.Generator().manual_seed(SEED)), None, BATCH)
        return made(encoder, decoder, LATENT, **options), finite if name == "exemplar_vae" else data
    if name == "vaebm":
        return made(encoder, decoder, critic, LATENT, **options), data
    generator = ToyGenerator(width=WIDTH)
    if name in ("boosted", "ada_gan"):  # on top of the plain game's generator
        base = KINDS["gan"](deepcopy(generator), ToyDiscriminator(width=WIDTH), LATENT, **RATES)
        fit(base, data, UPDATES)
        options["base"] = base.generator
    elif name == "ct_gan":
        layers = [nn.Sequential(nn.Linear(n, WIDTH), nn.ReLU(), nn.Dropout(0.2)) for n in (2, WIDTH, WIDTH)]
        critic = nn.Sequential(*layers, nn.Linear(WIDTH, 1), nn.Flatten(0))  # type: ignore[assignment]
    elif name in ("robust_wgan", "prc_gan"):
        third = {"robust_wgan": "weight_network", "prc_gan": "classifier"}[name]
        options[third] = ToyDiscriminator(width=WIDTH)
    elif name == "gan_control":
        options["measure"] = position
    elif name == "stylex":
        options |= {"classifier": rightness, "encoder": ToyGenerator((2,), 2, WIDTH)}
        return made(ToyGenerator((2,), 4, WIDTH), critic, 4, **options), data
    return made(generator, critic, LATENT, **options), data


def on_texts(name: str) -> tuple[Any, Any, int]:
    """A model that has begun as a language model where that is its way, its data, and its updates."""
    data = MarkovText(batch_size=64, one_hot=name not in ("seq_gan", "leak_gan", "mle"))
    shape, small = data.shape, {"embedding": 16, "filters": 32, "dropout": 0.0}
    if name == "rel_gan":
        generator = RelationalGenerator(shape, 16, head_size=8, beta=(5.0, 20.0), schedule_steps=400)
        critic = RelGANDiscriminator(shape, representations=4, kernels=(2, 3, 4), hidden=16, **small)
        return KINDS[name](generator, critic, 48, d_steps=1, lr_g=2e-3, lr_d=2e-3), data, 400
    if name == "mle":
        return MLE(LanguageModel(shape, 16, 32)), data, 100
    if name == "style_transfer":
        styled = StyledText(batch_size=64)
        tokens, styles = styled.reference("train")
        judge = SeqGANDiscriminator(styled.shape, 16, (1, 2), 16)
        fit_style_classifier(judge, tokens, styles, styled.shape[1], steps=300)
        net = StyleAutoencoder(styled.shape, 72, 2, 16, 8, beta=(1.0, 10.0), schedule_steps=1000)
        critic = SeqGANDiscriminator(styled.shape, 16, (1, 2, 3), 16, dropout=0.0)
        for alone in (True, False):  # the autoencoder, then the game
            own = {"style_weight": 0.0, "adversarial_weight": 0.0} if alone else {}
            model = KINDS[name](net, critic, 72, classifier=judge.eval(), lr_g=3e-3, lr_d=1e-3, **own)
            if alone:
                fit(model, styled, 1000)
        return model, styled, 500
    critic = SeqGANDiscriminator(shape, 16, (1, 2, 3, 4), 32)
    net = LeakGANGenerator(critic, shape, 16, 32) if name == "leak_gan" else LanguageModel(shape, 16, 32)
    fit(MLE(net), data, 8)
    return KINDS[name](net, critic, 8, rollouts=4, baseline="batch", d_steps=5, lr_d=2e-3), data, 120


def points_picture(samples: Tensor, data: Any, path: Path) -> dict[str, float]:
    """Samples over the data, and how many modes they cover."""
    real = data.sample_exact(SHOWN, torch.Generator().manual_seed(SEED))
    figure = new_figure(2.4, 2.4, layout="none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.scatter(*real.T, s=12, color=REAL_COLOUR, alpha=0.25, linewidths=0)
    axes.scatter(*samples.T, s=3, color=FAKE_COLOUR, alpha=0.7, linewidths=0)
    axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    save(figure, path)
    found = mode_coverage(samples, data.modes, 4 * data.std, 10)
    return {"modes": found.modes, "high_quality": round(found.high_quality, 3)}


def texts_picture(tokens: Tensor, data: Any, path: Path) -> dict[str, float]:
    """A dozen samples, and which share of all their pairs of letters the chain can write."""
    figure = new_figure(2.4, 2.4, layout="none")
    for i, line in enumerate(data.decode(tokens[:12])):
        figure.text(0.5, 0.93 - 0.078 * i, line, family="monospace", size=10, color=INK, ha="center", va="center")
    save(figure, path)
    pairs = tokens[:, :-1] * data.shape[1] + tokens[:, 1:]
    return {"possible_pairs": round(float((data.law(2)[pairs] > 1e-12).double().mean()), 3)}


def save(figure: Any, path: Path) -> None:
    """As a small PNG."""
    with replacing(path, ".png") as part:
        figure_image(figure).quantize(64).save(part, optimize=True)


def portrait(name: str, path: Path) -> dict[str, Any]:
    """Train one, draw its samples, and tell what was seen."""
    pl.seed_everything(SEED, verbose=False)
    if name in TEXTS:
        model, data, updates = on_texts(name)
        clock = fit(model, data, updates)
    else:
        (model, data), updates = on_points(name), UPDATES
        clock = fit(model, data, updates, EMA(0.99))
    samples = model.sample(SHOWN, seed=SEED).cpu()
    drawn = data if isinstance(data, pl.LightningDataModule) else Ring()
    scores = (texts_picture if name in TEXTS else points_picture)(samples, drawn, path)
    logged = sorted({key for row in clock.rows.values() for key in row} - {"step", "seconds", "epoch"})
    return {"data": drawn.name, "updates": updates, "ms": round(1000 * clock.seconds / updates, 2), "scores": scores,
            "logged": logged, "commit": header("")[1].removeprefix("- commit: ")}  # fmt: skip


def missing(folder: Path, again: list[str]) -> Iterator[str]:
    """The techniques without a picture or a record, and those that are asked for."""
    known = json.loads((folder / RECORD).read_text(encoding="utf-8")) if (folder / RECORD).exists() else {}
    for name in KINDS:
        if name in again if again else not (stem(name) in known and (folder / f"{stem(name)}.png").exists()):
            yield name


def main() -> None:
    """Draw what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], choices=list(KINDS))
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger(pl.__name__).setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in missing(options.out, options.only):
        found = portrait(name, options.out / f"{stem(name)}.png")
        path = options.out / RECORD
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_text(path, json.dumps(known | {stem(name): found}, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {found['ms']:.1f} ms per update, {found['scores']}", flush=True)


if __name__ == "__main__":
    main()
