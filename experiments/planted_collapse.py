"""Does uniformity of features flag a planted collapse, and the more the worse it is?

    python -m experiments.planted_collapse --out docs/results/planted-collapse.md

Nothing is trained but a LeNet, for features. The fakes are real samples that were not compared with, of which something
is taken away: modes (neighbours together, or in any order), or variety (of each distinct sample so many copies). On the
ring the features are the points themselves, on digits those of the LeNet. Beside the gap of uniformity stands FID.
"""

from __future__ import annotations

import argparse
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments import measures, page, playing
from experiments.figures import COLOURS, tidy
from lightning_gans.datamodules import Digits, Ring
from lightning_gans.metrics import ClassifierExtractor, GenerativeScores, uniformity_gap
from lightning_gans.visualization.images import figure_image, new_figure

PLANTED = {
    "neighbours": "modes lost, neighbours together",
    "any": "modes lost, in any order",
    "copies": "copies of each",
}


def features_of(data: str, samples: int) -> tuple[Tensor, Tensor]:
    """Features of real samples (M, F), and the mode of each."""
    if data == "Ring":
        ring = Ring()
        x = ring.sample_exact(2 * samples, torch.Generator().manual_seed(0))
        return x, torch.cdist(x, ring.modes).argmin(1)
    images, labels = Digits().reference("train")
    assert labels is not None
    return ClassifierExtractor(images, labels, "lenet")(images)[0].double(), labels


def planted(kind: str, level: int, mode: Tensor, order: Tensor) -> Tensor:
    """Which rows are left: so many modes less, by their ``order``, or so many copies of each that is left."""
    if kind == "copies":
        few = torch.arange(len(mode))[: max(2, len(mode) // level)]
        return few.repeat(level)[: len(mode)]
    gone = order[:level]
    return torch.isin(mode, gone, invert=True).nonzero().flatten()


def play(x: Tensor, mode: Tensor, levels: dict[str, list[int]], seed: int) -> dict[str, Any]:
    """{kind: {level: {gap, fid}}}."""
    own, many = torch.Generator().manual_seed(seed), int(mode.max()) + 1
    half = torch.randperm(len(x), generator=own).tensor_split(2)
    real, fake, at = x[half[0]], x[half[1]], mode[half[1]]
    scores = GenerativeScores(real.float(), ("fid",))
    found: dict[str, Any] = {}
    for kind, wanted in levels.items():
        start = int(torch.randint(many, (), generator=own))
        order = (torch.arange(many) + start) % many if kind == "neighbours" else torch.randperm(many, generator=own)
        for level in (level for level in wanted if kind == "copies" or level < many):
            left = fake[planted(kind, level, at, order)]
            told = {"gap": uniformity_gap(left, real, seed=seed).gap, "fid": float(scores(left.float())["fid"])}
            found.setdefault(kind, {})[str(level)] = told
    return found


def rises(values: list[float]) -> float:
    """Share of steps from a level to the next at which a value rises."""
    return sum(a < b for a, b in pairwise(values)) / max(1, len(values) - 1)


def figure(found: dict[str, list[dict[str, Any]]]) -> Image.Image:
    """A panel for each data set: the gap over what was planted, from the lowest seed to the highest."""
    sheet = new_figure(1 + 4.6 * len(found), 4.2)
    for axes, (data, results) in zip(sheet.subplots(1, len(found), squeeze=False)[0], found.items()):
        for colour, kind in zip(COLOURS, results[0]["gaps"]):
            levels = list(results[0]["gaps"][kind])
            values = [[r["gaps"][kind][level]["gap"] for r in results] for level in levels]
            mean = [sum(v) / len(v) for v in values]
            axes.plot(range(len(levels)), mean, color=colour, marker="o", markersize=3.5, label=PLANTED[kind])
            axes.fill_between(range(len(levels)), [min(v) for v in values], [max(v) for v in values], color=colour,
                              alpha=0.15, linewidth=0)  # fmt: skip
        tidy(axes, data, "modes lost, or doublings of copies", "gap of uniformity")
        axes.legend(frameon=False, fontsize=8)
    return figure_image(sheet)


def main() -> None:
    """Plant, measure, write."""
    p = page.parser(__doc__, ("Ring", "Digits"), data=["Ring", "Digits"], updates=0, samples=1000,
                    lost=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], copies=[1, 2, 4, 8, 16, 32])  # fmt: skip
    a: argparse.Namespace = p.parse_args()
    torch.set_num_threads(1)
    features = cache(features_of)
    found: dict[str, list[dict[str, Any]]] = {}
    tables: list[str] = []
    for data in a.data:
        for seed in a.seeds:
            levels = {"neighbours": a.lost, "any": a.lost, "copies": a.copies}
            path = Path(a.runs) / f"planted-{data}-{seed}-{playing.told(a.samples, levels)}.json"
            made = lambda: {"failed": None, "gaps": play(*features(data, a.samples), levels, seed)}  # noqa: B023, E731
            found.setdefault(data, []).append(playing.once(path, made))
        tables += ["", f"## {data}", "", "| planted | level | gap of uniformity | FID | above all gaps of none |",
                   "|---|---|---|---|---|"]  # fmt: skip
        rise = ["", "| planted | share of steps at which the gap rises | FID rises |", "|---|---|---|"]
        for kind in found[data][0]["gaps"]:
            by = [r["gaps"][kind] for r in found[data]]
            none = max(level["gap"] for level in (g[next(iter(g))] for g in by))
            for level in by[0]:
                gap, fid = (measures.spread(g[level][name] for g in by) for name in ("gap", "fid"))
                flagged = sum(g[level]["gap"] > none for g in by)
                tables.append(f"| {PLANTED[kind]} | {level} | {gap} | {fid} | {flagged} of {len(by)} |")
            shares = [measures.spread(rises([v[name] for v in g.values()]) for g in by) for name in ("gap", "fid")]
            rise.append(f"| {PLANTED[kind]} | {' | '.join(shares)} |")
        tables += rise
    protocol = [
        f"ring: {a.samples} points against as many; digits: half of the training images against what is left of the "
        "rest, features of a LeNet trained on all of them; uniformity with t = 2, of as many fakes as reals",
    ]
    page.publish(a, "Planted collapse and the gap of uniformity", found, protocol, tables, figure(found))


if __name__ == "__main__":
    main()
