"""Which family finds all modes: GANs, an autoencoder, an energy or a diffusion, after the same time of training?

    python -m experiments.modes_at_equal_time --out docs/results/modes-at-equal-time.md
    python -m experiments.modes_at_equal_time --data Ring Grid StackedMNIST --out docs/results/modes-at-equal-time.md

The networks and values of `sampling_cost`, on the ring of 8 narrow modes and the grid of 25. Every model is trained for
the same processor time; what its samples cost is beside its scores. Beside them lines that nothing is trained for:
uniform noise where the modes lie, and the data themselves. With StackedMNIST (not by default: MNIST is downloaded to
``$LIGHTNING_GANS_DATA``) also the 1,000 modes of three stacked digits, with the narrow networks of MNIST.
"""

from __future__ import annotations

import argparse
import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments import figures, measures, page, playing
from experiments.figures import COLOURS, tidy
from experiments.sampling_cost import fit, models
from lightning_gans import R3GAN, networks
from lightning_gans.callbacks.mode_coverage import digit_classifier
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Grid, Ring, StackedMNIST
from lightning_gans.metrics import GenerativeScores, class_coverage, mode_coverage, to_uint8
from lightning_gans.visualization.images import figure_image, new_figure

METHODS = ("GAN", "WGANGP", "R3GAN", "VAE", "VAEBM", "DDPM")
DATA = {"Ring": Ring, "Grid": Grid}
UPDATES = 100_000  # at most: more than there is time for
SCORES = ("modes", "high_quality", "reverse_kl", "distance")
SURE = 0.95
BATCH, BLOCK, COLUMNS = 64, 50, 12  # images trained on at once, drawn at once, and shown


def scores(samples: Tensor, data: Any) -> dict[str, float]:
    """Of samples (N, 2)."""
    found: dict[str, float] = mode_coverage(samples, data.modes, 4 * data.std)._asdict()
    return found | {"distance": float(torch.cdist(samples.double(), data.modes.double()).min(1).values.mean())}


def untrained(data: Any, number: int, seed: int) -> dict[str, Tensor]:
    """Uniform noise on the hull of the modes, for a ring on their circle too, and the data: (number, 2) each."""
    own = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, number, generator=own)
    far = float(data.modes.abs().max())
    found = {"the data": data.sample_exact(number, own)}
    if not isinstance(data, Ring):
        return {"noise on the square": far * torch.stack([2 * a - 1, 2 * b - 1], 1), **found}
    circle = far * torch.stack([(2 * math.pi * a).cos(), (2 * math.pi * a).sin()], 1)
    return {"noise on the disc": b.sqrt()[:, None] * circle, "noise on the circle": circle, **found}


def play(name: str, method: str, seed: int, a: argparse.Namespace) -> playing.Result:
    """Train one model and score its samples."""
    pl.seed_everything(seed, verbose=False)
    images = name == "StackedMNIST"
    data = stacks().data if images else DATA[name](batch_size=256)
    module = (image_models() if images else models("Ring"))[method]()
    if method == "DDPM":
        module.steps_back = module.process.respaced(a.calls)
    updates = fit(module, data, a.stacked_seconds if images else a.seconds, a.updates)
    result = {"failed": None, "updates": updates, "calls": module.network_calls}
    if images:
        own, sizes = torch.Generator().manual_seed(seed), [BLOCK] * (a.samples // BLOCK) + [a.samples % BLOCK]
        parts = [to_uint8(module.sample(size, generator=own), (-1.0, 1.0)) for size in sizes if size]
        return result | stacks().told(torch.cat(parts))
    samples = module.sample(a.samples, seed=seed)
    return result | {"scores": scores(samples, data),
                     "drawn": [[round(v, 3) for v in row] for row in samples[:500].tolist()]}  # fmt: skip


# ---------------------------------------------------------------------------------------------- stacked digits
def image_models() -> dict[str, Any]:
    """Makers of the same families for three digits, as narrow as for MNIST; GAN and R3GAN with DCGAN's networks."""
    made, size = models("MNIST", 3), {"shape": (3, 28, 28), "width": 16}
    nets = lambda: (networks.DCGANGenerator(latent_dim=64, norm="none", **size),  # noqa: E731
                    networks.DCGANDiscriminator(norm="none", **size), 64)  # fmt: skip
    r3_gan = lambda: R3GAN(*nets(), gamma=0.3, betas=(0.0, 0.99), lr_g=5e-4, lr_d=5e-4)  # noqa: E731 (configs/images)
    made |= {"GAN": made["DCGAN"], "R3GAN": r3_gan}
    return {method: made[method] for method in METHODS}


class Stacks:
    """The data, and scores of samples by the LeNet that `ModeCoverage` has trained on single digits."""

    def __init__(self) -> None:
        self.data = StackedMNIST(batch_size=BATCH)
        self.data.prepare_data()
        self.net = digit_classifier(self.data)
        self.fid = GenerativeScores(self.seen(self.data.reference("train")[0][:5000])[0], ("fid",))

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 3 F) of uint8 stacks (N, 3, 28, 28), and probabilities (N, 3, 10) of their digits."""
        features, logits = zip(*(self.net(part) for part in images.flatten(0, 1)[:, None].split(1000)))
        return torch.cat(features).view(len(images), -1), torch.cat(logits).softmax(1).view(len(images), 3, -1)

    def told(self, images: Tensor) -> playing.Result:
        """Scores of uint8 stacks, and the first of them in [-1, 1]; the distance is FID."""
        features, probabilities = self.seen(images)
        share, digits = probabilities.max(2)
        found = class_coverage((digits * torch.tensor([100, 10, 1])).sum(1), 1000)._asdict()
        found |= {"high_quality": float((share.min(1).values > SURE).double().mean())}
        first = (images[:COLUMNS].double() / 127.5 - 1).mul(100).round() / 100
        return {"scores": found | {"distance": self.fid(features)["fid"]}, "sample": first.tolist()}

    def untrained(self, number: int, seed: int) -> playing.Result:
        """Held-out stacks, the same with each pixel from another one, and uniform noise: (number, 3, 28, 28) each."""
        own, held_out = torch.Generator().manual_seed(seed), self.data.reference("test")[0]
        real = held_out[torch.randperm(len(held_out), generator=own)[:number]]
        others = torch.randint(len(held_out), (number, real[0].numel()), generator=own)
        mixed = held_out.flatten(1).gather(0, others).view(-1, *real.shape[1:])
        noise = torch.randint(256, (number, *real.shape[1:]), generator=own, dtype=torch.uint8)
        drawn = {"noise": noise, "pixels of different data": mixed, "the data": real}
        return {"failed": None, "lines": {name: self.told(images) for name, images in drawn.items()}}


stacks = cache(Stacks)  # where all is played already none is needed


def figure(found: dict[str, dict[str, list[dict[str, Any]]]]) -> Image.Image:
    """Samples of the first seed: a row for each data set, a column for each method."""
    sheet = new_figure(2.2 * len(METHODS), 2.4 * len(found))
    for axes, (data, methods) in zip(sheet.subplots(len(found), len(METHODS), squeeze=False), found.items()):
        for one, (method, results) in zip(axes, methods.items()):
            x, y = zip(*results[0]["drawn"])
            one.scatter(x, y, s=2, color=COLOURS[0], linewidths=0)
            one.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")
            tidy(one, f"{method}, {data}", "", "")
    return figure_image(sheet)


# ---------------------------------------------------------------------------------------------- the page
def plain(data: str, seed: int, a: argparse.Namespace) -> dict[str, playing.Result]:
    """The lines that nothing is trained for."""
    if data == "StackedMNIST":
        path = Path(a.runs) / f"modes-{data}-untrained-{seed}-{a.samples}.json"
        lines: dict[str, playing.Result] = playing.once(path, lambda: stacks().untrained(a.samples, seed))["lines"]
        return lines
    made = DATA[data]()
    return {name: {"scores": scores(samples, made)} for name, samples in untrained(made, a.samples, seed).items()}


def trained(data: str, method: str, seed: int, a: argparse.Namespace) -> playing.Result:
    """What is kept of a game, which is played if it is not there."""
    values = [a.stacked_seconds if data == "StackedMNIST" else a.seconds, a.samples, a.calls]
    values += [a.updates] if a.updates != UPDATES else []
    path = Path(a.runs) / f"modes-{data}-{method}-{seed}-{'-'.join(f'{v:g}' for v in values)}.json"
    return playing.once(path, partial(play, data, method, seed, a))


def table(data: str, lines: dict[str, list[playing.Result]]) -> list[str]:
    """A row for each line; what is not trained has neither calls nor updates."""
    number, near, far = (1000, "share sure of three digits", "FID/lenet") if data == "StackedMNIST" else (
        len(DATA[data]().modes), "share near a mode", "mean distance to a mode")  # fmt: skip
    rows = [f"| model | modes | {near} | reverse KL | {far} | network calls | updates |", f"|{'---|' * 7}"]
    for name, results in lines.items():
        cells = [measures.spread(float(r["scores"][score]) for r in results) for score in SCORES]
        if "updates" in results[0]:
            cells += [str(results[0]["calls"]), measures.spread(float(r["updates"]) for r in results)]
        rows.append(f"| {' | '.join([name, *cells])} |" + ("" if "updates" in results[0] else " | |"))
    return ["", f"## {data}: {number:,} modes", "", *rows]


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, (*DATA, "StackedMNIST"), data=["Ring", "Grid"], updates=UPDATES, seconds=10.0,
                    stacked_seconds=90.0, samples=2000, calls=50)  # fmt: skip
    a = p.parse_args()
    torch.set_num_threads(1)
    playing._quiet()
    found: dict[str, dict[str, list[playing.Result]]] = {}
    tables: list[str] = []
    pictures: list[Image.Image] = []
    for data in a.data:
        seeded = [plain(data, seed, a) for seed in a.seeds]
        lines = {name: [each[name] for each in seeded] for name in seeded[0]}
        found[data] = {method: [trained(data, method, seed, a) for seed in a.seeds] for method in METHODS}
        lines |= found[data]
        tables += table(data, lines)
        if data == "StackedMNIST":
            pictures.append(figures.samples(lines, COLUMNS))
    if points := {data: methods for data, methods in found.items() if data != "StackedMNIST"}:
        pictures.insert(0, figure(points))
    protocol = []
    if points:
        protocol += [
            f"training{' on points' if pictures[1:] else ''}: {a.seconds:g} s of processor time, one thread, whatever "
            "the updates; EMA 0.99; networks and values of experiments/sampling_cost.py",
            f"scores of {a.samples} samples; near: within 4 standard deviations; a mode counts with one sample near it",
            "noise: uniform, as far out as the modes are; of VAEBM's updates the first 1,000 are those of its VAE",
        ]
    if "StackedMNIST" in a.data:
        protocol += [
            f"StackedMNIST: {a.stacked_seconds:g} s of processor time each, batches of {BATCH}, EMA 0.99; the narrow "
            "networks and values for MNIST of experiments/sampling_cost.py with three channels and codes of 60; GAN: "
            "DCGAN; R3GAN: DCGAN's networks without normalisation, values of configs/images; of VAEBM's updates the "
            "first 3,000 are those of its VAE",
            f"scores of {a.samples} stacks by a LeNet of single digits: a mode counts with one stack, however unsure; "
            f"sure: all three digits have more than {SURE:g}; FID/lenet: of three digits' features, to 5,000 training "
            "stacks",
            "the data: held-out stacks, as many; pixels of different data: each pixel that of another held-out stack",
        ]
    flat = {f"{d}: {m}": r for d, methods in found.items() for m, r in methods.items()}
    page.publish(a, "Modes at equal time", flat, protocol, tables, figures.stack(*pictures))


if __name__ == "__main__":
    main()
