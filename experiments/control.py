"""What does control over attributes cost, and what is got of what is asked? Are the other attributes kept?

    python -m experiments.control --out docs/results/control.md

GAN-Control beside the same networks without its groups and its contrast, on coloured shapes whose attributes a formula
measures. Asked for are hues, sizes and places of held-out shapes: the error of samples of a controlled generator is
beside that of samples for which nothing was asked, and of the best of a number of samples of an uncontrolled one, which
is what one would do without control.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from experiments import figures, measures, page, playing
from lightning_gans import GANControl
from lightning_gans.compat.lightning import pl
from lightning_gans.diagnostics import control_table
from lightning_gans.functional.control import measured, requested
from lightning_gans.metrics import ShapeMeasure
from lightning_gans.stages import fit_control

GROUPS = {"hue": 12, "size": 12, "position": 12, "other": 12}
NAMES = ("hue", "size", "position")
SWEEP = 10  # samples of a row of the figure
ROWS = {"nothing asked": "", "best of {best}": "best", "asked for": "alone", "asked for all at once": "together"}


class Control(pl.Callback):
    """Measures control of the trained generator: ``kept``.

    Args:
        samples: asked for, and for each table.
        best: of so many samples the best is taken, without control.
        table: samples that the second stage learns from.
        steps: of it.
    """

    def __init__(self, samples: int, best: int, table: int, steps: int) -> None:
        self.samples, self.best, self.table, self.steps = samples, best, table, steps
        self.kept: dict[str, Any] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """By the averaged weights."""
        module: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        measure, n = ShapeMeasure(), self.samples
        real = measured(measure, data.reference("test")[0].float() / 127.5 - 1, NAMES)
        units = {name: float(x.var(0).mean().sqrt()) for name, x in real.items()}
        truth = data.factors("test")
        wanted = {"hue": truth["hue"][:n], "size": truth["size"][:n].clamp(0.1, 0.2),
                  "position": torch.stack([truth["x"], truth["y"]], 1)[:n]}  # fmt: skip
        asked = {name: requested(measure, name, value, len(value)) for name, value in wanted.items()}
        n = len(asked["size"])

        def errors(found: Mapping[str, Tensor], names: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
            return {name: (found[name] - asked[name]).abs().mean(1) / units[name] for name in names}

        tries = [errors(measured(measure, module.sample(n, seed=k), NAMES)) for k in range(self.best)]
        found = control_table(module, measure, GROUPS, n=n)
        own = torch.eye(len(NAMES), len(GROUPS), dtype=torch.bool)
        self.kept = {
            "own": dict(zip(NAMES, found.ratio[own].tolist())),
            "others": float(found.ratio[~own].mean()),
            "auc": dict(zip(NAMES, found.auc[own].tolist())),
            "deviation": {name: float(d) / units[name] for name, d in zip(NAMES, found.deviation)},
            "floor": _means(errors({name: x[:n] for name, x in real.items()})),
            "": _means(tries[0]),
            "best": {name: float(torch.stack([t[name] for t in tries]).amin(0).mean()) for name in NAMES},
        }
        if isinstance(module, GANControl):
            with torch.random.fork_rng():
                fit_control(module, samples=self.table, steps=self.steps)
            self.kept |= self._asked(module, measure, wanted, errors)

    def _asked(
        self, module: Any, measure: Any, wanted: dict[str, Tensor], errors: Callable[..., Any]
    ) -> dict[str, Any]:
        """What is got, alone and together; how far the others move, by the distance of any two; and pictures."""
        n = len(wanted["size"])
        plain = measured(measure, module.sample(n, seed=0), NAMES)
        alone, moved = dict[str, float](), list[float]()
        for name, value in wanted.items():
            got = measured(measure, module.sample(n, seed=0, attributes={name: value}), NAMES)
            alone[name] = float(errors(got, (name,))[name].mean())
            for other in set(NAMES) - {name}:
                any_two = (plain[other] - plain[other].roll(1, 0)).abs().mean()
                moved.append(float((got[other] - plain[other]).abs().mean() / any_two))
        together = measured(measure, module.sample(n, seed=0, attributes=wanted), NAMES)
        rising = torch.linspace(0, 1, SWEEP)
        ways = {"hue": rising * 0.9, "size": 0.1 + 0.1 * rising,
                "position": torch.stack([0.32 + 0.36 * rising, 0.5 + 0 * rising], 1)}  # fmt: skip
        z = module.latents(1, seed=4)[0].expand(SWEEP, -1)
        shown = {name: [[round(v, 2) for v in x.flatten().tolist()] for x in module.controlled(z, {name: way})]
                 for name, way in ways.items()}  # fmt: skip
        return {"alone": alone, "together": _means(errors(together)), "moved": statistics.fmean(moved), "sweeps": shown}


def _means(found: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(x.mean()) for name, x in found.items()}


def games(arguments: argparse.Namespace) -> dict[str, playing.Game]:
    """Without control, and with it at each weight."""
    options = {"samples": arguments.samples, "best": arguments.best, "table": arguments.table, "steps": arguments.steps}
    watch = [["experiments.control.Control", options]]
    plain = playing.shapes_game(arguments, watch=watch)
    found = {"StyleGAN2": plain}
    for weight in arguments.weights:
        generator = ["StyleGenerator", {"widths": arguments.widths, "groups": list(GROUPS.values())}]
        found[f"GANControl, weight {weight:g}"] = plain | {
            "technique": "gan_control", "generator": generator, "measure": ["lightning_gans.metrics.ShapeMeasure", {}],
            "options": plain["options"] | {"groups": GROUPS, "control_weight": weight},
        }  # fmt: skip
    return found


def number(key: str, name: str | None = None) -> Callable[[playing.Result], float]:
    """A column: what was kept under a name, of an attribute; NaN if it was not."""

    def column(result: playing.Result) -> float:
        found = {} if result["failed"] else result["kept"]["Control"]
        value = found.get(key, float("nan"))
        return float(value if name is None or not isinstance(value, dict) else value[name])

    return column


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, updates=5000, widths=[64, 32, 16], items=10_000, fakes=2000, weights=[2.0], samples=500, best=16,
        table=5000, steps=1000,
    )  # fmt: skip
    arguments = p.parse_args()
    found = playing.sweep(games(arguments), arguments.seeds, arguments)
    cost: measures.Columns = {
        "FID": lambda r: measures.last(r, playing.score_of("Shapes")),
        "ms per update": measures.milliseconds,
        **{f"{name} shared": number("own", name) for name in NAMES},
        "others shared": number("others"),
        "others moved": number("moved"),
    }
    spread: measures.Columns = {name: number("deviation", name) for name in NAMES}
    tables = ["", *measures.table(found, cost), "", "Deviation of the samples' attributes over the data's:", ""]
    tables += [*measures.table(found, spread), "", "Mean error of what was asked for, in deviations of the data:", ""]
    rows = {"the data's own": ("floor", found["StyleGAN2"])} | {
        f"{game}: {title.format(best=arguments.best)}": (key, results)
        for game, results in found.items()
        for title, key in ROWS.items()
        if game != "StyleGAN2" or key in ("", "best")
    }
    errors = {row: [{**r, "errors": key} for r in results] for row, (key, results) in rows.items()}
    each: measures.Columns = {
        name: lambda r, name=name: number(r["errors"], name)(r) for name in NAMES  # type: ignore[misc]
    }  # fmt: skip
    tables += measures.table(errors, each, "samples")
    panels = {name: {row: [each[name](r) for r in runs] for row, runs in errors.items()} for name in NAMES}
    shown: dict[str, list[playing.Result]] = {name: results[:1] for name, results in found.items()}
    for name, results in found.items():
        for attribute, flat in results[0]["kept"].get("Control", {}).get("sweeps", {}).items():
            images = torch.tensor(flat).unflatten(1, (3, 16, 16)).tolist()
            shown[f"{name}: {attribute} asked for"] = [{"sample": images}]
    figure = figures.stack(figures.bars(panels, "error in deviations"), figures.samples(shown, SWEEP))
    protocol = [
        f"coloured shapes of 16 pixels, widths {arguments.widths}, z of 48 coordinates (GANControl: 12 each for hue, "
        f"size, position and other), {arguments.updates} updates with batch 32, EMA (0.99); FID by a small ResNet, "
        f"{arguments.fakes} samples",
        "shared: mean distance of an attribute for pairs that share its part of z, over that of any two; others: of "
        "pairs that share any other part, all nine off the diagonal (for StyleGAN2 the same parts, which it knows "
        "nothing of)",
        f"asked for: the values of {arguments.samples} held-out shapes, one attribute at a time, or all three of a "
        f"shape; the second stage learned from {arguments.table} samples in {arguments.steps} steps",
        f"best: of {arguments.best} samples the one nearest in that attribute alone; the data's own: what the formula "
        "measures on the held-out images themselves",
        "others moved: change of the two other attributes of the same noise when one is asked for, over the distance "
        "of any two samples",
        "figure: samples, and one noise with an attribute asked for at ten values (the place from left to right), of "
        "the first seed",
    ]
    page.publish(arguments, "What control over attributes costs, and gives", found, protocol, tables, figure)


if __name__ == "__main__":
    main()
