"""Does a generator that is not told to by a classifier's loss miss what the classifier looks at?

    python -m experiments.explain --out docs/results/explain.md

StylEx on coloured shapes, for a classifier whose rule is known: is the shape large? With its classifier terms and
without them; with ``--silent`` also with a classifier that says nothing at all. Real held-out shapes are coded and made
again: is the verdict kept, and with it the size, beside colour and place, which nobody asks for? Then `AttFind` looks
for the coordinates that drive the verdict, and what the first of them moves is measured.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from experiments import figures, measures, page, playing
from lightning_gans.compat.lightning import pl
from lightning_gans.diagnostics import AttFind
from lightning_gans.diagnostics.att_find import moved_by
from lightning_gans.functional.latent import from_w
from lightning_gans.metrics import ShapeRule, shape_attributes

PARTS = {"size": ("size",), "colour": ("red", "green", "blue"), "place": ("x", "y")}
ABOVE, SCALE, SILENT = 0.15, 0.01, 1e6
SHOWN = 10


class Explain(pl.Callback):
    """What of the rule the trained model keeps, and what AttFind finds: ``kept``.

    Args:
        samples: real ones that are made again.
        explained: of them, for AttFind.
    """

    def __init__(self, samples: int, explained: int) -> None:
        self.samples, self.explained = samples, explained
        self.kept: dict[str, Any] = {}

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """By the averaged weights."""
        module: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        x, rule = data.reference("test")[0][: self.samples].float() / 127.5 - 1, ShapeRule("size", ABOVE, SCALE)
        codes = module.encode(x)
        module.network.eval()
        again = torch.cat([from_w(module.network, w) for w in codes.split(500)])
        before, after = shape_attributes(x), shape_attributes(again)
        found = AttFind(module, rule, codes=codes[: self.explained])
        units = {part: float(before[part].std()) for parts in PARTS.values() for part in parts}
        self.kept = {
            "same verdict": float(((rule(x) > 0) == (rule(again) > 0)).double().mean()),
            "logit": float((rule(x) - rule(again)).abs().mean()),
            "image": float((x - again).abs().mean()),
            "kept": {name: statistics.fmean(_correlation(before[p], after[p]) for p in parts)
                     for name, parts in PARTS.items()},
            **self._picked(found, units),
            "shown": {"real": _flat(x[:SHOWN]), "made again": _flat(again[:SHOWN])},
        }  # fmt: skip

    def _picked(self, found: AttFind, units: dict[str, float]) -> dict[str, Any]:
        """Of the first pick towards each class: what it flips, beside any coordinate, and what it moves."""
        flipped, chance, moved = list[float](), list[float](), list[dict[str, float]]()
        for target in (0, 1):
            others = found.base.argmax(1) != target
            if not bool(others.any()):
                continue
            flips = (found.base[others, None, None] + found.effects[others]).argmax(-1) == target
            chance.append(float(flips.double().mean(0).amax(0).mean()))  # in the better direction
            picks = found.picks(target, picks=1)
            flipped.append(picks[0].flipped if picks else 0.0)
            if picks:
                j, d = picks[0].coordinate, (picks[0].direction + 1) // 2
                s, rows = found.coordinates.clone(), torch.arange(len(found.coordinates))
                s[:, j] = moved_by(s[:, j], found.ends[d, j], d, found.shift)
                looks = [shape_attributes(found.render(at, rows)) for at in (found.coordinates, s)]
                moved.append({
                    name: statistics.fmean(float((looks[1][p] - looks[0][p]).abs().mean()) / units[p] for p in parts)
                    for name, parts in PARTS.items()
                })  # fmt: skip
        told = {"flipped": flipped, "any": chance, **{f"moved {n}": [m[n] for m in moved] for n in PARTS}}
        return {name: statistics.fmean(values) if values else float("nan") for name, values in told.items()}


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1].nan_to_num())


def _flat(images: Tensor) -> list[list[float]]:
    return [[round(v, 2) for v in x.flatten().tolist()] for x in images]


def games(arguments: argparse.Namespace) -> dict[str, playing.Game]:
    """By what the classifier has to say in training."""
    watch = [["experiments.explain.Explain", {"samples": arguments.samples, "explained": arguments.explained}]]
    widths, d = arguments.widths, 48
    plain = playing.shapes_game(
        arguments, d, technique="stylex", watch=watch,
        generator=["StyleGenerator", {"widths": widths, "passed": 2}],
        discriminator=["SoftDiscriminator", {"widths": widths}],
        encoder=["StyleEncoder", {"widths": widths}],
    )  # fmt: skip

    def game(scale: float, **weights: float) -> playing.Game:
        rule = ["lightning_gans.metrics.ShapeRule", {"attribute": "size", "above": ABOVE, "scale": scale}]
        return plain | {"classifier": rule, "options": plain["options"] | weights}

    found = {
        "with the classifier's terms": game(SCALE),
        "without them": game(SCALE, kl_weight=0.0, features_weight=0.0),
    }
    if arguments.silent:
        found["a classifier that says nothing"] = game(SILENT, kl_weight=0.0, features_weight=0.0)
    return found


def number(key: str, name: str | None = None) -> Callable[[playing.Result], float]:
    """A column: what was kept under a name."""

    def column(result: playing.Result) -> float:
        if result["failed"]:
            return float("nan")
        found = result["kept"]["Explain"][key]
        return float(found if name is None else found[name])

    return column


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, updates=5000, widths=[32, 32, 16], items=10_000, fakes=2000, samples=1000, explained=60)
    p.add_argument("--silent", action="store_true", help="also a classifier that says nothing in training")
    arguments = p.parse_args()
    found = playing.sweep(games(arguments), arguments.seeds, arguments)
    again: measures.Columns = {
        "same verdict": number("same verdict"),
        "error of the logit": number("logit"),
        **{f"{name} kept": number("kept", name) for name in PARTS},
        "error of the image": number("image"),
        "FID": lambda r: measures.last(r, playing.score_of("Shapes")),
    }
    picked: measures.Columns = {
        "flipped by the first pick": number("flipped"),
        "by any coordinate": number("any"),
        **{f"the pick moves {name}": number(f"moved {name}") for name in PARTS},
    }
    tables = ["", "Real shapes, coded and made again:", "", *measures.table(found, again, "training")]
    tables += ["", "AttFind, by the styles of these codes:", "", *measures.table(found, picked, "training")]
    panels = {name: {row: [column(r) for r in runs] for row, runs in found.items()}
              for name, column in (("same verdict", again["same verdict"]), ("size kept", again["size kept"]),
                                   ("flipped by the first pick", picked["flipped by the first pick"]))}  # fmt: skip
    shown: dict[str, list[playing.Result]] = {}
    for name, results in found.items():
        for what, flat in results[0]["kept"].get("Explain", {}).get("shown", {}).items():
            images = torch.tensor(flat).unflatten(1, (3, 16, 16)).tolist()
            shown[what if what == "real" else f"{what}, {name}"] = [{"sample": images}]
    figure = figures.stack(figures.bars(panels, ""), figures.samples(shown, SHOWN))
    protocol = [
        f"StylEx on coloured shapes of 16 pixels, widths {arguments.widths}, w of 46 coordinates and two "
        f"probabilities, {arguments.updates} updates with batch 32, EMA (0.99), averaged encoder; FID by a small "
        f"ResNet, {arguments.fakes} samples",
        f"classifier: a formula, the logit of the size over {ABOVE} in units of {SCALE}; its terms are the "
        "Kullback-Leibler one (weight 1) and the distance of log probabilities (.1); without them the probabilities "
        "still go into w and, as soft labels, to D; verdicts are always told by the formula",
        f"made again: {arguments.samples} held-out shapes; kept: correlation of what is measured on a shape and on "
        "what is made of its code (a colour's channels, x and y: their mean)",
        f"AttFind: {arguments.explained} of them, styles of all layers, the first pick towards either class; flipped: "
        "share of samples of the other class that it makes to be told as this one; by any coordinate: mean over all, "
        "each in its better direction; moves: mean absolute change in deviations of the data",
        "figure: below, shapes and what is made of their codes, of the first seed",
    ]
    page.publish(arguments, "Does the generator keep what a classifier looks at", found, protocol, tables, figure)


if __name__ == "__main__":
    main()
