"""What does a reward learned from preferences do to a generator, where the preferred factor is known?

    python -m experiments.preference --out docs/results/preference.md

Coloured shapes of 16 pixels, whose size is known and measured. Of two images the one with the larger shape is
preferred, with probability sigmoid(difference of the sizes / 0.02). A network learns the reward from such pairs alone;
a trained DCGAN goes on with and without it, at several weights, held near its start or not. Larger shapes are meant,
and nothing else: beside the size stand its spread, the ground that should be as it was, and the samples' diversity.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import figures, measures, page, playing
from experiments.sampling_cost import fit
from lightning_gans import DCGAN, networks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Shapes
from lightning_gans.functional import preference_loss
from lightning_gans.functional.modes import evaluating
from lightning_gans.metrics import shape_attributes, uniformity_gap
from lightning_gans.regularizers.reward import Reward

SHAPE, SLACK = (3, 16, 16), 0.02  # of sizes, at which a preference is 73 % sure


def learned(images: Tensor, size: Tensor, steps: int, own: torch.Generator) -> nn.Module:
    """A reward (N,) of images, from preferences between pairs of them."""
    net = nn.Sequential(networks.LeNet(SHAPE, 1), nn.Flatten(0))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        a, b = torch.randint(len(images), (2, 64), generator=own)
        first = torch.rand(64, generator=own) < ((size[a] - size[b]) / SLACK).sigmoid()
        won, lost = torch.where(first, a, b), torch.where(first, b, a)
        optimizer.zero_grad()
        preference_loss(net(images[won]), net(images[lost])).backward()
        optimizer.step()
    return net


def agreement(reward: nn.Module, images: Tensor, size: Tensor) -> float:
    """Share of pairs in which the larger one has the higher reward."""
    with torch.no_grad(), evaluating(reward):
        r = reward(images)
    higher, larger = (v[:, None] > v[None] for v in (r, size))
    apart = ~torch.eye(len(r), dtype=torch.bool)
    return float((higher == larger)[apart].double().mean())


def seen(module: Any, reward: nn.Module, real: Tensor, seed: int) -> dict[str, float]:
    """Numbers of as many samples as there are real images."""
    return told(module.sample(len(real), seed=seed), reward, real, seed)


def told(x: Tensor, reward: nn.Module, real: Tensor, seed: int) -> dict[str, float]:
    """Numbers of samples."""
    found = shape_attributes(x)
    with torch.no_grad(), evaluating(reward):
        mean = reward(x).mean()
    gap = uniformity_gap(x.flatten(1).double(), real.flatten(1).double(), seed=seed).gap
    return {
        "size": float(found["size"].mean()), "spread": float(found["size"].std()), "reward": float(mean),
        "beyond": float((found["size"] > 0.21).double().mean()), "ground": float(found["ground_error"].mean()),
        "gap": gap,
    }  # fmt: skip


def play(seed: int, a: argparse.Namespace) -> playing.Result:
    """One generator, one reward, and all ways to go on."""
    pl.seed_everything(seed, verbose=False)
    own = torch.Generator().manual_seed(seed)
    data = Shapes(side=16, label=None, items=a.items, held_out=a.held_out, batch_size=32)
    images, real = (data.reference(split)[0].float() / 127.5 - 1 for split in ("train", "test"))
    size, held_out = data.factors("train")["size"], data.factors("test")["size"]
    reward = learned(images, size, a.reward_steps, own)
    nets = (networks.DCGANGenerator(SHAPE, 32, a.width), networks.DCGANDiscriminator(SHAPE, a.width))
    rate = {"lr_g": 1e-3, "lr_d": 1e-3}
    base = DCGAN(*nets, 32, **rate)  # type: ignore[arg-type]
    fit(base, data, 1e9, a.updates)
    anchor = deepcopy(base.network)
    found = {"the data": told(real, reward, real, seed), "trained": seen(base, reward, real, seed)}
    drawn = {"trained": base.sample(20, seed=seed).tolist()}
    ways: dict[str, list[Any]] = {"on without reward": []}
    for weight in a.weights:
        for beta in a.betas:
            ways[f"reward x {weight:g}, beta {beta:g}"] = [Reward(reward, anchor, weight=weight, beta=beta)]
    for way, terms in ways.items():
        module = DCGAN(*deepcopy(nets), 32, regularizers=terms, **rate)  # type: ignore[arg-type]
        fit(module, data, 1e9, a.more_updates)
        found[way], drawn[way] = seen(module, reward, real, seed), module.sample(20, seed=seed).tolist()
    return {"failed": None, "agreement": agreement(reward, real, held_out), "found": found, "drawn": drawn}


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, updates=1000, more_updates=250, width=32, items=4000, held_out=1000, reward_steps=400,
                    weights=[1.0, 10.0], betas=[0.0, 10.0])  # fmt: skip
    a = p.parse_args()
    torch.set_num_threads(1)
    playing._quiet()
    values = playing.told(a.updates, a.more_updates, a.width, a.items, a.held_out, a.reward_steps, a.weights, a.betas)
    results = [playing.once(Path(a.runs) / f"preference-{s}-{values}.json", partial(play, s, a)) for s in a.seeds]
    rows = {way: [r["found"][way] for r in results] for way in results[0]["found"]}
    titles = {"size": "size", "spread of the size": "spread", "larger than any of the data": "beyond",
              "reward": "reward", "error of the ground": "ground", "gap of uniformity": "gap"}  # fmt: skip
    columns: measures.Columns = {title: lambda row, name=name: float(row[name]) for title, name in titles.items()}  # type: ignore[misc]
    right = measures.spread(r["agreement"] for r in results)
    tables = ["", *measures.table(rows, columns, "samples"), "", "The reward prefers the larger of two unseen images "
              f"in {right} of all pairs."]  # fmt: skip
    protocol = [
        f"data: {a.items} shapes of 16 pixels, sizes uniform in (0.1, 0.2); {a.held_out} others for scores",
        f"reward: a LeNet, {a.reward_steps} updates of 64 pairs; preferred is the larger, with probability "
        f"sigmoid(difference / {SLACK})",
        f"DCGAN of width {a.width}, Adam 1e-3, batches of 32, EMA 0.99: {a.updates} updates, then {a.more_updates} "
        "more with the reward as a term of the generator (and both networks as they were)",
        f"scores of {a.held_out} samples; larger than any: above 0.21; gap of uniformity: of pixels, 0 for samples as "
        "varied as the data",
    ]
    drawn = {way: [{"sample": r["drawn"][way]} for r in results] for way in results[0]["drawn"]}
    page.publish(a, "A reward from preferences, with a known factor", {"": results}, protocol, tables,
                 figures.samples(drawn, 20))  # fmt: skip


if __name__ == "__main__":
    main()
