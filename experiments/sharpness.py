"""Does sharpness-aware minimisation help a GAN: on the discriminator, the generator, or both?

    python -m experiments.sharpness --out docs/results/sharpness.md

The original GAN with SAM at a distance rho for one player or both, on narrow modes, after equally many updates. Beside
modes and quality stands what SAM is for: the largest eigenvalue of the Hessian of the discriminator's loss at the end.
`--data Ring Grid Digits` adds handwritten digits, with the networks of `playing.image_game` and FID by a small
classifier in place of the modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from experiments import measures, page, playing
from experiments.figures import COLOURS, tidy
from experiments.sampling_cost import Judge
from lightning_gans import GAN, networks
from lightning_gans.callbacks import EMA
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Digits, Grid, Ring
from lightning_gans.visualization.images import figure_image, new_figure

DATA = {"Ring": Ring, "Grid": Grid, "Digits": Digits}
BATCH = {"Digits": 32}  # 256 of others
WHERE = {"D": ("sam_d",), "G": ("sam_g",), "both": ("sam_d", "sam_g")}
TWICE = "none, twice the updates"


def largest_eigenvalue(loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], steps: int = 20) -> float:
    """Of the Hessian of a loss, by power iteration: the one of largest size, with its sign.

    >>> w = nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> round(largest_eigenvalue(lambda: (torch.tensor([1.5, 0.5]) * w * w).sum(), [w]), 3)
    3.0
    """
    own = torch.Generator().manual_seed(0)
    v = [torch.randn(p.shape, generator=own) for p in parameters]
    gradient = torch.autograd.grad(loss(), parameters, create_graph=True)
    value = 0.0
    for _ in range(steps):
        norm = torch.cat([part.flatten() for part in v]).norm()
        v = [part / norm for part in v]
        product = sum((g * part).sum() for g, part in zip(gradient, v))
        image = torch.autograd.grad(product, parameters, retain_graph=True)  # type: ignore[arg-type]
        value = float(sum((a * b).sum() for a, b in zip(image, v)))
        v = list(image)
    return value


def pair(data: Any, width: int) -> tuple[nn.Module, nn.Module, int]:
    """Networks, and the length of the noise; of images those of `playing.image_game`, an eighth as wide."""
    if type(data).__name__ in playing.TOYS:
        return networks.ToyGenerator(width=width), networks.ToyDiscriminator(width=width), 2
    size: dict[str, Any] = {"shape": data.shape, "width": max(2, width // 8)}
    return networks.DCGANGenerator(latent_dim=64, **size), networks.DCGANDiscriminator(norm="none", **size), 64


def scores_of(data: str) -> dict[str, str]:
    """What is in the table, by the name of its result."""
    first = {"modes": "modes", "quality": "share near a mode"} if data in playing.TOYS else {"quality": "FID/lenet"}
    return first | {"eigenvalue": "largest eigenvalue", "loss": "loss of D"}


def play(data: Any, options: dict[str, float], seed: int, updates: int, width: int, samples: int) -> dict[str, Any]:
    """Train one GAN; its scores and the sharpness of its discriminator."""
    judge = Judge(data)  # which may train a classifier
    pl.seed_everything(seed, verbose=False)
    module = GAN(*pair(data, width), loss="non_saturating", lr_g=1e-3, lr_d=1e-3, **options)  # type: ignore[arg-type]
    pl.Trainer(max_steps=updates, max_epochs=-1, logger=False, enable_checkpointing=False, accelerator="cpu",
               enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
               callbacks=[EMA(0.99)]).fit(module, datamodule=data)  # fmt: skip
    found, own = judge(module.sample(samples, seed=seed)), torch.Generator().manual_seed(seed)
    if type(data).__name__ in playing.TOYS:
        real = data.sample_exact(1000, own)
    else:
        images = data.reference("train")[0]
        real = images[torch.randperm(len(images), generator=own)[:1000]].float() / 127.5 - 1
    with torch.no_grad():
        fake = module.generator(torch.randn(1000, module.latent_dim, generator=torch.Generator().manual_seed(seed)))
    d = module.discriminator
    loss = lambda: F.softplus(-d(real)).mean() + F.softplus(d(fake)).mean()  # noqa: E731
    return {"failed": None, **found, "loss": float(loss().detach()),
            "eigenvalue": largest_eigenvalue(loss, list(d.parameters()))}  # fmt: skip


def figure(found: dict[str, dict[str, list[dict[str, Any]]]]) -> Image.Image:
    """Quality over sharpness, a point for each game."""
    sheet = new_figure(1 + 4.8 * len(found), 4.2)
    for axes, (data, games) in zip(sheet.subplots(1, len(found), squeeze=False)[0], found.items()):
        for colour, (name, results) in zip(COLOURS, games.items()):
            axes.scatter([abs(r["eigenvalue"]) for r in results], [r["quality"] for r in results], color=colour, s=22,
                         label=name)  # fmt: skip
        axes.set_xscale("log")
        tidy(axes, data, "largest eigenvalue of the Hessian of D's loss", scores_of(data)["quality"])
        axes.legend(frameon=False, fontsize=7.5)
    return figure_image(sheet)


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, DATA, data=["Ring", "Grid"], updates=2000, width=128, samples=2000, rhos=[0.02, 0.1])
    a = p.parse_args()
    torch.set_num_threads(1)
    playing._quiet()
    games: dict[str, dict[str, float]] = {"none": {}, TWICE: {}}
    games |= {f"{who}, rho {rho:g}": dict.fromkeys(keys, rho) for who, keys in WHERE.items() for rho in a.rhos}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    tables: list[str] = []
    for name in a.data:
        data, told_by = DATA[name](batch_size=BATCH.get(name, 256)), scores_of(name)
        title = f"{name}: {len(data.modes)} modes" if "modes" in told_by else name
        tables += [
            "",
            f"## {title}",
            "",
            f"| SAM | {' | '.join(told_by.values())} |",
            "|---" * (len(told_by) + 1) + "|",
        ]
        for told, options in games.items():
            updates, kind = a.updates * (1 + (told == TWICE)), told.replace(", ", "-")
            for seed in a.seeds:
                path = Path(a.runs) / f"sam-{name}-{kind}-{seed}-{a.updates}-{a.width}-{a.samples}.json"
                made = partial(play, data, options, seed, updates, a.width, a.samples)
                found.setdefault(name, {}).setdefault(told, []).append(playing.once(path, made))
            results = found[name][told]
            cells = [measures.spread(float(r[key]) for r in results) for key in told_by]
            tables.append(f"| {told} | {' | '.join(cells)} |")
    small = f" (Digits: DCGAN's networks of width {max(2, a.width // 8)}, batch 32)" if "Digits" in a.data else ""
    protocol = [
        f"GAN, non-saturating, 3 layers of {a.width}, batch 256{small}, Adam 1e-3 (0.5, 0.999), {a.updates} generator "
        "updates, EMA 0.99 (SAM takes a second gradient for each update of its player: a game with "
        "it on both lasts as long as twice the updates without)",
        f"scores of {a.samples} samples; near: within 4 standard deviations; eigenvalue: 20 power iterations on 1000 "
        "reals and 1000 fakes",
    ]
    flat = {f"{d}: {g}": r for d, by in found.items() for g, r in by.items()}
    page.publish(a, "Sharpness-aware minimisation of a GAN", flat, protocol, tables, figure(found))


if __name__ == "__main__":
    main()
