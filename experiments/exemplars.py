"""Exemplars against GANs: whose samples are better after the same time, and whose help a classifier of few items?

    python -m experiments.exemplars --out docs/results/exemplars.md

On the 8x8 digits: the Exemplar VAE, whose samples are of the neighbourhood of training items, a plain VAE and two GANs,
each trained for the same processor time. First on all 1,500 items, without labels: FID, precision and recall, and
whether samples are copies. Then on few items with their labels, which is when samples are wanted in a classifier's
batches: its accuracy on all other items, beside none, and beside the same items moved by a pixel.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import figures, measures, page, playing
from experiments.sampling_cost import fit, models
from lightning_gans import DCGAN, VAE, WGANGP, ExemplarVAE, networks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Digits
from lightning_gans.functional.modes import evaluating
from lightning_gans.metrics import ClassifierExtractor, GenerativeScores, to_uint8

METHODS = ("DCGAN", "WGANGP", "VAE", "ExemplarVAE")
SHAPE = (1, 8, 8)


class Few(Digits):
    """So many digits of each class, drawn by a seed, for training; all the others for testing.

    >>> [len(Few(each=2).reference(split)[0]) for split in ("train", "test")]
    [20, 1777]
    """

    def __init__(self, each: int = 10, seed: int = 0, batch_size: int = 64) -> None:
        super().__init__(min(batch_size, 10 * each))
        self.each, self.seed = each, seed

    def load(self, split: Any) -> tuple[Tensor, Tensor]:
        """The few, or the others, each in a random order."""
        images, labels = (torch.cat(parts) for parts in zip(*(super(Few, self).load(s) for s in ("train", "test"))))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
        images, labels = images[order], labels[order]
        of_class = F.one_hot(labels)
        few = ((of_class.cumsum(0) * of_class).sum(1) <= self.each).nonzero().flatten()
        rows = few if split == "train" else torch.ones(len(labels)).index_fill_(0, few, 0).nonzero().flatten()
        return images[rows], labels[rows]


def conditional(method: str) -> Any:
    """The models of `sampling_cost` on digits; GANs are told the class, autoencoders vary an item of it."""
    if method in ("DCGAN", "WGANGP"):
        size: dict[str, Any] = {"shape": SHAPE, "width": 64, "num_classes": 10}
        norm, options = ("batch", {}) if method == "DCGAN" else ("none", {"betas": (0.5, 0.9), "lr_g": 1e-3,
                                                                        "lr_d": 1e-3})  # fmt: skip
        nets = networks.DCGANGenerator(latent_dim=64, **size), networks.DCGANDiscriminator(norm=norm, **size)
        return {"DCGAN": DCGAN, "WGANGP": WGANGP}[method](*nets, 64, **options)  # type: ignore[arg-type]
    return plain(method)


def plain(method: str) -> Any:
    """The same without classes."""
    if method != "ExemplarVAE":
        return models("Digits")[method]()
    return ExemplarVAE(networks.VAEEncoder(SHAPE, 8, 64), networks.VAEDecoder(SHAPE, 8, 64), 8, warm_up=170,
                       lr_vae=2e-3)  # fmt: skip


# ---------------------------------------------------------------------------------------------- all items
def nearness(samples: Tensor, trained: Tensor, held_out: Tensor) -> dict[str, float]:
    """Of samples (N, F): ``share`` whose nearest item of all is a training item, ``distance``: median to the nearest.

    The share is 1 for a model that repeats its training items; for real items it is, but for chance, the training
    items' share of all. Samples that are ``held_out`` itself are each compared with the others.

    >>> nearness(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.0], [2.0]]), torch.tensor([[8.0], [10.0]]))
    {'share': 0.6666666666666666, 'distance': 1.0}
    """
    to_trained, to_held_out = (torch.cdist(samples, items) for items in (trained, held_out))
    if torch.equal(samples, held_out):
        to_held_out.fill_diagonal_(torch.inf)
    nearest = to_trained.min(1).values
    nearer = nearest < to_held_out.min(1).values
    return {"share": float(nearer.double().mean()), "distance": float(nearest.median())}


def play_all(method: str, seed: int, a: argparse.Namespace) -> playing.Result:
    """Train on all items, and score the samples."""
    pl.seed_everything(seed, verbose=False)
    module, data = plain(method), Digits(batch_size=100 if method.endswith("VAE") else 64)
    updates = fit(module, data, a.seconds, a.updates)
    samples = module.sample(a.samples, seed=seed)
    return {"failed": None, "updates": updates, "scores": scores(to_uint8(samples, (-1.0, 1.0))),
            "sample": samples[:20].tolist()}  # fmt: skip


def scores(images: Tensor) -> dict[str, float]:
    """Of uint8 images, against the training items of `Digits`, and against those that no model has seen."""
    (trained, labels), (held_out, _) = Digits().reference("train"), Digits().reference("test")
    assert labels is not None
    net = ClassifierExtractor(trained, labels, "lenet")
    own, seen, unseen = (net(x)[0] for x in (images, trained, held_out))
    found = GenerativeScores(seen, ("fid", "prdc"))(own)
    if not torch.equal(images, held_out):
        against = GenerativeScores(unseen, ("fid", "prdc"))(own)
        found |= {"unseen fid": against["fid"], "unseen precision": against["precision"]}
    flat = [x.flatten(1).double() for x in (images, trained, held_out)]
    return found | nearness(*flat)


def of_items() -> dict[str, list[playing.Result]]:
    """The rows of real items: the held-out ones, and the training items, as a model would score that repeats them."""
    items = {"held-out items": Digits().reference("test")[0], "training items": Digits().reference("train")[0]}
    return {name: [{"scores": {k: round(v, 6) for k, v in scores(x).items()}}] for name, x in items.items()}


# ---------------------------------------------------------------------------------------------- few items
def classifier_accuracy(
    images: Tensor, labels: Tensor, test: Tensor, right: Tensor, seed: int, steps: int,
    more: tuple[Tensor, Tensor] | None = None,
) -> float:  # fmt: skip
    """Of a LeNet trained on images in [-1, 1], with half of each batch of 64 from ``more``, if there is any."""
    own = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net: nn.Module = networks.LeNet(tuple(images.shape[1:]), 10)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.randint(len(images), (64 if more is None else 32,), generator=own)
        x, y = images[rows], labels[rows]
        if more is not None:
            rows = torch.randint(len(more[0]), (32,), generator=own)
            x, y = torch.cat([x, more[0][rows]]), torch.cat([y, more[1][rows]])
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    with torch.no_grad(), evaluating(net):
        return float((net(test).argmax(1) == right).double().mean())


def moved(images: Tensor, own: torch.Generator) -> Tensor:
    """Each image moved by a pixel at most, right, left, up or down."""
    side, padded = images.shape[-1], F.pad(images, (1, 1, 1, 1), value=-1.0)
    places = torch.randint(3, (len(images), 2), generator=own).tolist()
    return torch.stack([x[:, top : top + side, left : left + side] for x, (top, left) in zip(padded, places)])


def drawn(method: str, module: Any, x: Tensor, labels: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n samples and the classes that they should be of."""
    own = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(x), (n,), generator=own)
    if method == "moved":
        return moved(x[rows], own), labels[rows]
    if isinstance(module, ExemplarVAE):
        return module.vary(x[rows], own), labels[rows]
    if isinstance(module, VAE):
        with torch.no_grad(), evaluating(module.encoder):
            mean, log_variance = module.averaged("encoder")(x[rows])
        noise = torch.randn(mean.shape, generator=own)
        return module.decode(mean + (log_variance / 2).exp() * noise), labels[rows]
    return module.sample(n, labels[rows], seed=seed), labels[rows]


def play_few(method: str, each: int, seed: int, a: argparse.Namespace) -> playing.Result:
    """Train on few items, draw samples, and train a classifier on both."""
    pl.seed_everything(seed, verbose=False)
    data, updates, module = Few(each, seed), 0, None
    if method not in ("none", "moved"):
        module = conditional(method)
        updates = fit(module, data, a.few_seconds, a.updates)
    (images, labels), (others, right) = data.reference("train"), data.reference("test")
    assert labels is not None and right is not None
    x, test = (part.float() / 127.5 - 1 for part in (images, others))
    result: playing.Result = {"failed": None, "updates": updates, "right class": float("nan")}
    more = None
    if method != "none":
        more = drawn(method, module, x, labels, a.pool, seed)
        every, of = Digits().reference("train")
        assert of is not None
        logits = ClassifierExtractor(every, of, "lenet")(to_uint8(more[0], (-1.0, 1.0)))[1]
        assert logits is not None
        result["right class"] = float((logits.argmax(1) == more[1]).double().mean())
    found = classifier_accuracy(x, labels, test, right, seed, a.classifier_steps, more)
    return result | {"accuracy": found}


# ---------------------------------------------------------------------------------------------- the page
def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, updates=100_000, seconds=20.0, samples=1000, each=[5, 20], few_seconds=5.0, pool=2000,
                    classifier_steps=300)  # fmt: skip
    a = p.parse_args()
    torch.set_num_threads(1)
    playing._quiet()
    whole: dict[str, list[playing.Result]] = {}
    for method in METHODS:
        for seed in a.seeds:
            path = (
                Path(a.runs) / f"exemplars-all-{method}-{seed}-{playing.told(a.seconds, a.samples, a.updates, 2)}.json"
            )
            whole.setdefault(method, []).append(playing.once(path, partial(play_all, method, seed, a)))
    columns: measures.Columns = {
        title: lambda r, name=name: float(r["scores"].get(name, math.nan))  # type: ignore[misc]
        for title, name in {"FID/lenet": "fid", "precision": "precision", "recall": "recall", "density": "density",
                            "coverage": "coverage", "FID to unseen": "unseen fid", "precision, unseen":
                            "unseen precision", "nearest is a training item": "share", "distance to it": "distance",
                            }.items()
    }  # fmt: skip
    columns["updates"] = lambda r: float(r.get("updates", math.nan))
    tables = ["", "## Samples of all 1,500 items", "", *measures.table({**whole, **of_items()}, columns, "model")]
    flat, bars = dict(whole), {}
    for each in a.each:
        few: dict[str, list[playing.Result]] = {}
        for method in ("none", "moved", *METHODS):
            for seed in a.seeds:
                values = playing.told(a.few_seconds, a.pool, a.classifier_steps, a.updates)
                path = Path(a.runs) / f"exemplars-{each}-{method}-{seed}-{values}.json"
                few.setdefault(method, []).append(playing.once(path, partial(play_few, method, each, seed, a)))
        for results in few.values():
            for result, none in zip(results, few["none"]):
                result["gain"] = result["accuracy"] - none["accuracy"]
        told: measures.Columns = {
            "accuracy": lambda r: float(r["accuracy"]),
            "more than with none, by seed": lambda r: float(r["gain"]),
            "samples of the right class": lambda r: float(r["right class"]),
        }
        tables += [
            "",
            f"## A classifier of {each} items of each class",
            "",
            *measures.table(few, told, "half of batch"),
        ]
        flat |= {f"{each}: {method}": results for method, results in few.items()}
        bars[f"{10 * each} items"] = {m: [float(r["accuracy"]) for r in results] for m, results in few.items()}
    protocol = [
        f"samples: {a.seconds:g} s of processor time each on the 1,500 items, one thread, whatever the updates; EMA "
        f"0.99; networks and values of experiments/sampling_cost.py (of the Exemplar VAE: configs/digits); {a.samples} "
        "samples, features of a LeNet trained on the items",
        "FID, precision, recall, density, coverage: against the 1,500 training items; to unseen: against the 297 held "
        "out, whose precision is higher, since few items stand for wider neighbourhoods",
        "nearest is a training item: share of samples whose nearest of all 1,797 items, in pixels of 0 to 255, is one "
        "of the 1,500, 0.835 if only their number told; a held-out item is compared with the others; "
        "distance to it: median of that to the nearest training item",
        f"classifier: LeNet, {a.classifier_steps} updates of batches of 64, half of them real where there is anything "
        f"else; {a.pool} samples of a model trained for {a.few_seconds:g} s on the same few items; tested on all other "
        "items of the 1,797; GANs are asked for classes, autoencoders vary items (the VAE by its posterior)",
    ]
    picture = figures.stack(figures.samples(whole, 20), figures.bars(bars, "accuracy"))
    page.publish(a, "Exemplars against GANs, and as augmentation", flat, protocol, tables, picture)


if __name__ == "__main__":
    main()
