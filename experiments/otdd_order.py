"""Does the distance of labelled sets (OTDD) order generators as the classifiers do that are trained on their samples?

    python -m experiments.otdd_order --out docs/results/otdd-order.md

Three conditional GANs on the 8x8 digits, each looked at after few and after many updates. Of each: OTDD and FID of its
samples to real items that no model has seen, and the accuracy on these of a classifier trained on the samples alone.
Then the rank correlation of each distance with that accuracy. Beside it real items with a share of wrong labels, which
is what OTDD is to see and FID cannot.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

from experiments import measures, page, playing
from experiments.exemplars import SHAPE, Few, classifier_accuracy
from experiments.figures import COLOURS, tidy
from experiments.sampling_cost import fit
from lightning_gans import DCGAN, GAN, WGANGP, networks
from lightning_gans.compat.lightning import pl
from lightning_gans.metrics import ClassifierExtractor, GenerativeScores, otdd_report, to_uint8
from lightning_gans.visualization.images import figure_image, new_figure

METHODS: dict[str, tuple[Any, str, dict[str, Any]]] = {  # class, norm of D, values of configs/digits
    "GAN": (GAN, "none", {"loss": "minimax", "lr_g": 2e-4, "lr_d": 2e-4}),
    "DCGAN": (DCGAN, "batch", {}),
    "WGANGP": (WGANGP, "none", {"betas": (0.5, 0.9), "lr_g": 1e-3, "lr_d": 1e-3}),
}
PLANTED = "real, labels wrong"
CRITIC = 5  # updates of the critic for each of the generator, whose moments come so much earlier


class At(pl.Callback):
    """Looks at the model after so many updates."""

    def __init__(self, moments: Sequence[int], look: Callable[[Any], dict[str, float]]) -> None:
        self.moments, self.look = moments, look
        self.seen: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        """Now, for the first time? (An epoch may end within a cycle of updates, which counts no step.)"""
        if trainer.global_step in self.moments and trainer.global_step not in self.seen:
            self.seen[trainer.global_step] = self.look(module)


class Judge:
    """Scores of labelled images (N, C, H, W) uint8, against real ones that no model is trained on."""

    def __init__(self, data: Few, items: int, steps: int) -> None:
        (images, labels), (self.others, right) = data.reference("train"), data.reference("test")
        assert labels is not None and right is not None
        self.net = ClassifierExtractor(images, labels, "lenet")
        self.images, self.labels, self.right, self.items, self.steps = images, labels, right, items, steps
        self.features = self.net(self.others)[0]
        self.fid = GenerativeScores(self.features, ("fid",))

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
        features, logits = self.net(images)
        assert logits is not None
        distance = otdd_report(features, labels, self.features, self.right, self.items, seed)
        x, test = (part.float() / 127.5 - 1 for part in (images, self.others))
        return {
            "otdd": distance.distance, "otdd of reals": distance.real, "otdd of shuffled": distance.shuffled,
            "fid": self.fid(features)["fid"], "right class": float((logits.argmax(1) == labels).double().mean()),
            "accuracy": classifier_accuracy(x, labels, test, self.right, seed, self.steps),
        }  # fmt: skip


def play(method: str, seed: int, a: argparse.Namespace, judge: Callable[[], Judge], data: Few) -> playing.Result:
    """Train one model and look at it at its moments."""
    pl.seed_everything(seed, verbose=False)
    made, norm, options = METHODS[method]
    size: dict[str, Any] = {"shape": SHAPE, "width": a.width, "num_classes": 10}
    nets = networks.DCGANGenerator(latent_dim=64, **size), networks.DCGANDiscriminator(norm=norm, **size)
    labels = torch.arange(len(judge().labels)) % 10
    draw = lambda module: to_uint8(module.sample(len(labels), labels, seed=seed), (-1.0, 1.0))  # noqa: E731
    at = At(moments(method, a), lambda module: judge()(draw(module), labels, seed))
    fit(made(*nets, 64, **options), data, 1e9, max(at.moments), at)
    return {"failed": None, "seen": {f"{method} {step}": found for step, found in at.seen.items()}}


def moments(method: str, a: argparse.Namespace) -> list[int]:
    """The updates after which a model is looked at."""
    return [max(1, m // CRITIC) if method == "WGANGP" else m for m in a.moments]


def planted(seed: int, a: argparse.Namespace, judge: Judge) -> playing.Result:
    """Real items, of which some have wrong labels."""
    own, labels, seen = torch.Generator().manual_seed(seed), judge.labels, {}
    order = torch.randperm(len(labels), generator=own)
    other = (labels + torch.randint(1, 10, (len(labels),), generator=own)) % 10
    for share in a.wrong:
        wrong = order[: round(share * len(labels))]
        given = labels.index_copy(0, wrong, other[wrong])
        seen[f"{share:.0%} wrong"] = judge(judge.images, given, seed)
    return {"failed": None, "seen": seen}


def correlation(seen: dict[str, dict[str, float]], name: str, least: float = 0.0) -> float:
    """Spearman's, of a distance and the accuracy, with its sign turned: 1 if the nearest set teaches best."""
    found = [row for row in seen.values() if row["accuracy"] >= least]
    if len(found) < 3:
        return float("nan")
    distances = [row[name] for row in found]
    if max(distances) - min(distances) < 1e-6:  # all the same but for rounding, which is no order
        return float("nan")
    return -float(spearmanr(distances, [row["accuracy"] for row in found]).statistic)


def figure(found: dict[str, list[playing.Result]]) -> Image.Image:
    """Accuracy over each distance, a point for each generator and seed."""
    sheet = new_figure(11, 4.2)
    for axes, (name, label) in zip(sheet.subplots(1, 2), (("otdd", "OTDD"), ("fid", "FID/lenet"))):
        for colour, (method, results) in zip(COLOURS, found.items()):
            rows = [row for r in results for row in r["seen"].values()]
            axes.scatter([max(row[name], 1e-3) for row in rows], [row["accuracy"] for row in rows], color=colour, s=18,
                         label=method)  # fmt: skip
        axes.set_xscale("log")
        tidy(axes, label, "distance to the data", "accuracy of a classifier trained on it")
        axes.legend(frameon=False, fontsize=8)
    return figure_image(sheet)


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, updates=400, moments=[50, 100, 200, 400], width=64, each=90, items=400,
                    classifier_steps=300, wrong=[0.0, 0.05, 0.1, 0.2, 0.4], good=0.3)  # fmt: skip
    a = p.parse_args()
    a.moments = sorted({min(m, a.updates) for m in a.moments})
    torch.set_num_threads(1)
    playing._quiet()
    data, judges = Few(a.each), []

    def judge() -> Judge:
        return judges[0] if judges else (judges.append(Judge(data, a.items, a.classifier_steps)), judges[0])[1]

    values = playing.told(a.moments, a.width, a.each, a.items, a.classifier_steps, a.wrong)
    found: dict[str, list[playing.Result]] = {}
    for seed in a.seeds:
        made = {method: partial(play, method, seed, a, judge, data) for method in METHODS}
        made[PLANTED] = lambda seed=seed: planted(seed, a, judge())  # type: ignore[misc]
        for name, one in made.items():
            path = Path(a.runs) / f"otdd-{name.split(',')[0]}-{seed}-{values}.json"
            found.setdefault(name, []).append(playing.once(path, one))
    numbers = {"OTDD": "otdd", "OTDD, labels shuffled": "otdd of shuffled", "FID/lenet": "fid",
               "of the right class": "right class", "accuracy of a classifier trained on it": "accuracy"}  # fmt: skip
    tables = ["", "| samples of | " + " | ".join(numbers) + " |", "|---" * (len(numbers) + 1) + "|"]
    for results in found.values():
        for name in results[0]["seen"]:
            cells = [measures.spread(r["seen"][name][number] for r in results) for number in numbers.values()]
            tables.append(f"| {name} | {' | '.join(cells)} |")
    real = measures.spread(r["seen"][n]["otdd of reals"] for rs in found.values() for r in rs for n in r["seen"])
    tables += ["", f"OTDD of two halves of the real items: {real}.", "", "| rank correlation with that accuracy | "
               "OTDD | FID |", "|---|---|---|"]  # fmt: skip
    by_seed: list[dict[str, dict[str, float]]] = [
        {k: row for method in METHODS for k, row in found[method][i]["seen"].items()} for i in range(len(a.seeds))
    ]
    groups = {
        "all generators": (by_seed, 0.0),
        f"those with an accuracy of {a.good:g} at least": (by_seed, a.good),
        "real items with wrong labels": ([r["seen"] for r in found[PLANTED]], 0.0),
        "generators and real items together": ([{**a, **r["seen"]} for a, r in zip(by_seed, found[PLANTED])], 0.0),
    }
    for title, (seeds, least) in groups.items():
        cells = [measures.spread(correlation(seen, name, least) for seen in seeds) for name in ("otdd", "fid")]
        tables.append(f"| {title} | {' | '.join(cells)} |")
    protocol = [
        f"models: DCGAN's networks of width {a.width}, told the class, on {10 * a.each} digits, as in configs/digits; "
        f"looked at after {', '.join(map(str, a.moments))} updates, WGAN-GP, whose critic has {CRITIC} updates for "
        f"each of the generator, after a {CRITIC}th of that; EMA 0.99",
        f"features: a LeNet trained on the same {10 * a.each} items; both distances are to the other "
        f"{1797 - 10 * a.each}: OTDD exact, {a.items} samples against {a.items} of them, FID of {10 * a.each} samples; "
        f"classifier: another LeNet, {a.classifier_steps} updates on those samples with the classes asked for, tested "
        "on the same other items",
        "rank correlation: Spearman's, of minus the distance, over generators of one seed: models and moments alike",
        "seeds share the split of the items and the extractor, so that their spread is of models, samples and "
        "classifiers alone",
    ]
    page.publish(a, "OTDD against downstream accuracy", found, protocol, tables, figure(found))


if __name__ == "__main__":
    main()
