"""Which family finds all modes: GANs, an autoencoder, an energy or a diffusion, after the same time of training?

    python -m experiments.modes_at_equal_time --out docs/results/modes-at-equal-time.md

The networks and values of `sampling_cost`, on the ring of 8 narrow modes and the grid of 25. Every model is trained for
the same processor time; what its samples cost is beside its scores. Beside them two lines that nothing is trained for:
uniform noise where the modes lie, and the data themselves.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments import measures, page, playing
from experiments.figures import COLOURS, tidy
from experiments.sampling_cost import fit, models
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Grid, Ring
from lightning_gans.metrics import mode_coverage
from lightning_gans.visualization.images import figure_image, new_figure

METHODS = ("GAN", "WGANGP", "R3GAN", "VAE", "VAEBM", "DDPM")
DATA = {"Ring": Ring, "Grid": Grid}
UPDATES = 100_000  # at most: more than there is time for
SCORES = ("modes", "high_quality", "reverse_kl", "distance")


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


def play(name: str, method: str, seed: int, a: argparse.Namespace) -> dict[str, Any]:
    """Train one model and score its samples."""
    pl.seed_everything(seed, verbose=False)
    data, module = DATA[name](batch_size=256), models("Ring")[method]()
    if method == "DDPM":
        module.steps_back = module.process.respaced(a.calls)
    updates = fit(module, data, a.seconds, a.updates)
    samples = module.sample(a.samples, seed=seed)
    return {"failed": None, "updates": updates, "calls": module.network_calls, "scores": scores(samples, data),
            "drawn": [[round(v, 3) for v in row] for row in samples[:500].tolist()]}  # fmt: skip


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


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, data=["Ring", "Grid"], updates=UPDATES, seconds=10.0, samples=2000, calls=50)
    a = p.parse_args()
    torch.set_num_threads(1)
    playing._quiet()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    tables: list[str] = []
    for data in a.data:
        tables += ["", f"## {data}: {len(DATA[data]().modes)} modes", "", "| model | modes | share near a mode | "
                   "reverse KL | mean distance to a mode | network calls | updates |",
                   "|---|---|---|---|---|---|---|"]  # fmt: skip
        plain = [untrained(DATA[data](), a.samples, seed) for seed in a.seeds]
        for name in plain[0]:
            rows = [scores(drawn[name], DATA[data]()) for drawn in plain]
            tables.append(
                f"| {name} | {' | '.join(measures.spread(row[score] for row in rows) for score in SCORES)} | | |"
            )
        for method in METHODS:
            for seed in a.seeds:
                values = [a.seconds, a.samples, a.calls, *([a.updates] if a.updates != UPDATES else [])]
                path = Path(a.runs) / f"modes-{data}-{method}-{seed}-{'-'.join(f'{v:g}' for v in values)}.json"
                found.setdefault(data, {}).setdefault(method, []).append(
                    playing.once(path, partial(play, data, method, seed, a))
                )
            results = found[data][method]
            cells = [measures.spread(float(r["scores"][score]) for r in results) for score in SCORES]
            cells += [str(results[0]["calls"]), measures.spread(float(r["updates"]) for r in results)]
            tables.append(f"| {method} | {' | '.join(cells)} |")
    protocol = [
        f"training: {a.seconds:g} s of processor time, one thread, whatever the updates; EMA 0.99; networks and values "
        "of experiments/sampling_cost.py",
        f"scores of {a.samples} samples; near: within 4 standard deviations; a mode counts with one sample near it",
        "noise: uniform, as far out as the modes are; of VAEBM's updates the first 1,000 are those of its VAE",
    ]
    flat = {f"{d}: {m}": r for d, methods in found.items() for m, r in methods.items()}
    page.publish(a, "Modes at equal time", flat, protocol, tables, figure(found))


if __name__ == "__main__":
    main()
