"""Architecture against objective: which pairs train at all?

    python -m experiments.architectures --out docs/results/architectures.md

The architectures of WGAN-GP's list, narrow and on scikit-learn's digits, the 101-layer residual network among them,
against four objectives with one setting each. A pair succeeds if its last FID is below ``--success``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

from PIL import Image

from experiments import figures, measures, page, playing
from lightning_gans.visualization.images import figure_image, new_figure

OBJECTIVES: dict[str, dict[str, Any]] = {
    "GAN": {"technique": "gan", "options": {"loss": "non_saturating", "betas": [0.5, 0.999]}},
    "LSGAN": {"technique": "gan", "options": {"loss": "least_squares", "betas": [0.5, 0.999]}},
    "WGAN": {"technique": "wgan", "options": {"c": 0.01}},
    "WGAN-GP": {"technique": "wgan_gp", "options": {"betas": [0.5, 0.9]}},
}


def _dcgan(generator: dict[str, Any], critic: dict[str, Any]) -> Callable[[int, str], dict[str, Any]]:
    def nets(width: int, norm: str) -> dict[str, Any]:
        return {
            "generator": ["DCGANGenerator", {"width": width, **generator}],
            "discriminator": ["DCGANDiscriminator", {"width": width, "norm": norm, **critic}],
        }

    return nets


def _mlp(width: int, norm: str) -> dict[str, Any]:
    critic = ["DCGANDiscriminator", {"width": width, "norm": norm}]
    return {"generator": ["ToyGenerator", {"width": 8 * width, "depth": 4}], "discriminator": critic}


def _residual(kind: str) -> Callable[[int, str], dict[str, Any]]:
    def nets(width: int, norm: str) -> dict[str, Any]:
        return {
            "generator": [f"{kind}Generator", {"width": width}],
            "discriminator": [f"{kind}Discriminator", {"width": width, "norm": norm}],
        }

    return nets


# Of a width and the critic's normalisation: layer norm under a gradient penalty, batch norm otherwise, as in the code.
ARCHITECTURES: dict[str, Callable[[int, str], dict[str, Any]]] = {
    "DCGAN": _dcgan({}, {}),
    "G without BN, constant width": _dcgan({"norm": "none", "constant_width": True}, {}),
    "G a 4-layer ReLU MLP": _mlp,
    "no normalisation": _dcgan({"norm": "none"}, {"norm": "none"}),
    "gated": _dcgan({"activation": "gated"}, {"activation": "gated"}),
    "tanh": _dcgan({"activation": "tanh"}, {"activation": "tanh"}),
    "good ResNet": _residual("TaperedResNet"),
    "101-layer ResNet": _residual("Bottleneck"),
}
DEEP = "101-layer ResNet"


def fid(result: playing.Result) -> float:
    """The last FID; NaN if the game failed."""
    return measures.last(result, playing.score_of(result["game"]["data"]))


def success(result: playing.Result, below: float) -> bool:
    """Whether the last FID is below a bound: not, if the game failed."""
    return fid(result) < below


def map_of(found: dict[str, list[playing.Result]], rows: list[str], columns: list[str], below: float) -> Image.Image:
    """Last FID of every pair on a logarithmic colour scale, with the number of successes."""
    figure = new_figure(2.6 + 1.35 * len(columns), 0.8 + 0.5 * len(rows))
    axes = figure.subplots()
    cells = [[[fid(r) for r in found[f"{a} | {o}"]] for o in columns] for a in rows]
    heat = [
        [figures.log10(statistics.fmean(v)) if not any(map(math.isnan, v)) else math.nan for v in row] for row in cells
    ]
    axes.imshow(heat, cmap="viridis_r", vmin=0.5, vmax=3.5, aspect="auto")
    for i, a in enumerate(rows):
        for j, o in enumerate(columns):
            results = found[f"{a} | {o}"]
            text = f"{measures.spread(cells[i][j])}\n{sum(success(r, below) for r in results)} of {len(results)}"
            dark = not heat[i][j] < 2
            axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "#202020")
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_title("last FID, and how many seeds succeed", fontsize=10)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, playing.IMAGES, data="Digits", updates=1000, deep_updates=300, width=16, rate=1e-3,
        deep_rate=1e-3, success=100.0,
        architectures=list(ARCHITECTURES), objectives=list(OBJECTIVES),
    )  # fmt: skip
    arguments = p.parse_args()
    score, games = playing.score_of(arguments.data), {}
    for architecture in arguments.architectures:
        for objective in arguments.objectives:
            chosen = OBJECTIVES[objective]
            deep = architecture == DEEP
            rate = arguments.deep_rate if deep else arguments.rate
            updates = arguments.deep_updates if deep else arguments.updates
            options = chosen["options"] | {"lr_g": rate, "lr_d": rate, "d_steps": 5}
            nets = ARCHITECTURES[architecture](arguments.width, "layer" if objective == "WGAN-GP" else "batch")
            play = {"technique": chosen["technique"], "options": options, **nets}
            games[f"{architecture} | {objective}"] = playing.image_game(
                arguments.data, updates, arguments.width, **play
            )
    found = playing.sweep(games, arguments.seeds, arguments)
    rows = [f"| architecture | {' | '.join(arguments.objectives)} |", "|---" * (1 + len(arguments.objectives)) + "|"]
    for a in arguments.architectures:
        cells = []
        for o in arguments.objectives:
            results = found[f"{a} | {o}"]
            last, best = measures.spread(map(fid, results)), measures.spread(measures.best(r, score) for r in results)
            cells.append(f"{sum(success(r, arguments.success) for r in results)}/{len(results)}: {last} (best {best})")
        rows.append(f"| {a} | {' | '.join(cells)} |")
    counts = {a: found[f"{a} | {arguments.objectives[0]}"][0]["parameters"] for a in arguments.architectures}
    rows += ["", "Parameters of generator and critic: "
             + "; ".join(f"{a} {n['g']:,} and {n['d']:,}" for a, n in counts.items()) + "."]  # fmt: skip
    protocol = [
        "cells: seeds that succeed, last FID, best in brackets; success: last FID below "
        f"{arguments.success:g} (untrained DCGAN generators are at about 2,000)",
        f"data: {arguments.data}; width {arguments.width}, batch 32, {arguments.updates} generator updates ("
        f"{arguments.deep_updates} with 101 layers) of 5 discriminator updates for each; EMA generator (0.99)",
        f"learning rate {arguments.rate:g}, {arguments.deep_rate:g} for the 101 layers: Adam(0.5, 0.999) for GAN (non-"
        "saturating) and LSGAN, RMSprop with c = 0.01 for WGAN, Adam(0.5, 0.9) and weight 10 for WGAN-GP",
        "critic: layer norm under the gradient penalty, batch norm otherwise, none in its own row",
        f"FID/{score.rsplit('/', 1)[1]}: 2,000 samples of the EMA generator",
    ]
    picture = map_of(found, arguments.architectures, arguments.objectives, arguments.success)
    page.publish(arguments, "Architecture against objective", found, protocol, rows, picture)


if __name__ == "__main__":
    main()
