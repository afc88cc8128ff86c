"""Attention, random features or a Perceiver in the critic: score, time and memory.

    python -m experiments.linear_attention --out docs/results/linear-attention.md

One game on digits, whose critic has a token for each of the 64 pixels: attention proper, FAVOR+ with d ln d features,
or latents that read the pixels. Then what a penalised update of each critic takes at 64, 256 and 1,024 tokens: seconds
of the processor, and bytes that the forward pass keeps for the backward ones.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn

from experiments import figures, measures, page, playing
from lightning_gans import networks
from lightning_gans.functional import gradient_penalty

OPTIONS: dict[str, Any] = {"d_steps": 2, "g_batch_factor": 1, "lr_g": 1e-3, "lr_d": 1e-3, "betas": [0.0, 0.9]}


def critics(width: int) -> dict[str, list[Any]]:
    """A token for each pixel."""
    tokens = {"widths": [width], "depths": [1, 1], "patch": 1, "relative": False}
    return {
        "softmax": ["TransGANDiscriminator", tokens | {"kernel": "explicit"}],
        "FAVOR+": ["TransGANDiscriminator", tokens | {"kernel": "favor"}],
        "Perceiver": ["PerceiverCritic", {"width": width, "latents": 16}],
    }


def cost(spec: list[Any], side: int, batch: int) -> tuple[float, float]:
    """Milliseconds of the processor of a penalty with its gradient, the median of three; MiB a forward pass keeps."""
    net: nn.Module = getattr(networks, spec[0])((1, side, side), **spec[1])
    x, kept = torch.randn(batch, 1, side, side), [0.0]

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[0] += value.numel() * value.element_size() / 2**20
        return value

    gradient_penalty(net, x).backward()
    spent = []
    for _ in range(3):
        start = time.process_time()
        gradient_penalty(net, x).backward()
        spent.append(1000 * (time.process_time() - start))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        net(x)
    return statistics.median(spent), kept[0]


def main() -> None:
    """Play, measure, print, write."""
    p = page.parser(__doc__, updates=1000)
    p.add_argument("--width", type=int, default=32)
    p.add_argument("--sides", nargs="+", type=int, default=[8, 16, 32])
    arguments = p.parse_args()
    made = critics(arguments.width)
    games = {
        name: playing.image_game(
            "Digits", arguments.updates, technique="trans_gan", options=OPTIONS, discriminator=spec
        )
        for name, spec in made.items()
    }
    found = playing.sweep(games, arguments.seeds, arguments)
    score = playing.score_of("Digits")
    columns: measures.Columns = {
        "FID, last": lambda r: measures.last(r, score),
        "FID, best": lambda r: measures.best(r, score),
        "ms per update": measures.milliseconds,
    }
    tables = ["", *measures.table(found, columns, "critic"), ""]
    tables += ["| critic | parameters (64 tokens) | tokens | ms of a penalty | MiB of a forward pass |",
               "|---|---|---|---|---|"]  # fmt: skip
    torch.set_num_threads(1)
    default = ["TransGANDiscriminator", made["softmax"][1] | {"kernel": "auto"}]
    for name, spec in (made | {"softmax, fused where no slope is asked for (auto)": default}).items():
        net = getattr(networks, spec[0])((1, 8, 8), **spec[1])
        parameters = sum(p.numel() for p in net.parameters())
        for side in arguments.sides:
            ms, size = cost(spec, side, 8)
            tables.append(f"| {name} | {parameters:,} | {side * side} | {ms:.0f} | {size:.1f} |")
    protocol = [
        "TransGAN's game, 2 critic updates per generator update, Adam(1e-3; 0, 0.9), a DCGAN generator of width 16, "
        "batch 32, EMA generator (0.99)",
        f"critics of width {arguments.width}; {arguments.updates} generator updates",
        "FID by a small classifier, 2,000 samples",
        "second table: batch 8, one thread, the median of three calls behind a first; bytes of a forward pass without "
        "a slope, once for each operation that keeps them; softmax: the explicit product, which a penalty needs",
    ]
    figure = figures.curves({"digits": found}, score, "FID", log=True)
    page.publish(arguments, "Attention in the critic", found, protocol, tables, figure)


if __name__ == "__main__":
    main()
