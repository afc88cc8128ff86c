"""Which directions of a GAN's latent space can be told apart, and which of those can be named?

    python -m experiments.latent_directions --out docs/results/latent-directions.md

Orthonormal, unit and free columns that are learned, beside coordinate axes and random ones that are not, each with a
reconstructor of its own and the same number of steps: in a fixed generator whose factors are known (``Factors``) and
in GANs of several techniques. Nobody is asked what they see: a direction counts as named if one measured attribute of
the strokes goes with its shift and all others stay. ``--data MNIST`` is downloaded to ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from experiments import figures, measures, page, playing
from lightning_gans.compat.lightning import pl
from lightning_gans.diagnostics.direction_measures import (
    attribute_correlations,
    match_directions,
    name_directions,
    sign_accuracy,
)
from lightning_gans.diagnostics.latent_directions import LatentDirections
from lightning_gans.metrics import ClassifierExtractor, stroke_attributes, to_uint8
from lightning_gans.visualization.images import figure_image, new_figure

# What A is held to, where it starts, and whether it learns.
METHODS: dict[str, tuple[Any, Any, bool]] = {
    "orthonormal": ("orthonormal", "random", True),
    "unit": ("unit", "random", True),
    "free": ("free", "random", True),
    "coordinate axes": ("free", "axes", False),
    "random": ("orthonormal", "random", False),
    "true axes": ("free", "axes", False),  # where there are such
}
ATTRIBUTES = ("ink", "slant", "aspect", "x", "y")  # thickness goes with ink
KNOWN = 5  # factors of `Factors`
SHIFTS = 7  # in the pictures


class Factors(nn.Module):
    """A spot on a dark ground, of five known factors of z turned by a fixed rotation: place, size, light, aspect.

    Args:
        shape: of an image, (1, H, W).
        latent_dim: length of z, at least 5; what is beyond the factors changes nothing.
    """

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8), latent_dim: int = 8) -> None:
        super().__init__()
        self.shape, self.latent_dim = tuple(shape), latent_dim
        self.rotation = nn.Parameter(nn.init.orthogonal_(torch.empty(latent_dim, latent_dim)))

    @property
    def axes(self) -> Tensor:
        """The true directions (latent_dim, 5)."""
        return self.rotation[:KNOWN].T.detach()

    def forward(self, z: Tensor) -> Tensor:
        """(N, latent_dim) to (N, 1, H, W) in [-1, 1]."""
        x, y, size, light, aspect = torch.tanh(z @ self.axes / 2 + 0 * self.rotation[0, 0])[:, :, None, None].unbind(1)
        rows, columns = (torch.linspace(-1, 1, n, device=z.device) for n in self.shape[1:])
        width, height = 0.3 * torch.exp(size / 2 - 0.7 * aspect), 0.3 * torch.exp(size / 2 + 0.7 * aspect)
        square = ((columns - 0.6 * x) / width) ** 2 + ((rows[:, None] - 0.6 * y) / height) ** 2
        return ((1.1 + 0.9 * light) * torch.exp(-square / 2))[:, None] - 1


class Directions(pl.Callback):
    """Finds and measures directions of the trained generator, by each of the methods: ``kept``, by method.

    Args:
        num_directions: K.
        steps: of A and R.
        rate: of their Adam.
        max_shift: the largest shift.
    """

    def __init__(self, num_directions: int, steps: int, rate: float, max_shift: float = 6.0) -> None:
        self.num_directions, self.steps, self.rate, self.max_shift = num_directions, steps, rate, max_shift
        self.kept: dict[str, Any] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One method after another."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        true = getattr(pl_module.generator, "axes", None)

        def attributes(images: Tensor) -> dict[str, Tensor]:
            found = stroke_attributes(images, data.value_range)
            return {name: found[name] for name in ATTRIBUTES}

        classify = ClassifierExtractor(*data.reference("train"))
        for method in METHODS:
            if method == "true axes" and true is None:
                continue
            module = find(pl_module, method, self.num_directions, self.steps, self.rate, self.max_shift, true)
            correlations = attribute_correlations(module, attributes)
            axes = {"regressed": regressed_axes(module, attributes), **({} if true is None else {"true": true})}
            self.kept[method] = {
                **reconstruction(module),
                "sign": sign_accuracy(module).tolist(),
                "correlations": {name: values.tolist() for name, values in correlations.items()},
                "class": class_changes(module, lambda x: classify(to_uint8(x, data.value_range))[1]).tolist(),
                **{name: match_directions(module.matrix, a).cosine.tolist() for name, a in axes.items()},
                "pictures": pictures(module, correlations, data.value_range),
            }


def find(
    gan: nn.Module, method: str, k: int, steps: int, rate: float, max_shift: float, true: Tensor | None
) -> LatentDirections:
    """Directions by one of `METHODS`, with a reconstructor that has learned to tell them."""
    kind, init, learns = METHODS[method]
    module = LatentDirections(gan, k, kind=kind, init=init, lr=rate, max_shift=max_shift)
    if method == "true axes" and true is not None:
        module.directions.weight.data.copy_(true)
    module.directions.requires_grad_(learns)
    pl.Trainer(
        max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False, devices=1,
        enable_model_summary=False, limit_val_batches=0,
    ).fit(module)  # fmt: skip
    return module.eval()


@torch.no_grad()
def reconstruction(module: LatentDirections, n: int = 4000) -> dict[str, list[float]]:
    """By direction: the share of pairs whose direction R tells, and the mean error of the shift."""
    pairs = module.pairs(n, torch.Generator().manual_seed(2**31))
    logits, shift = module.reconstructor(pairs.first, pairs.second)
    right, error = (logits.argmax(1) == pairs.direction).double(), (shift - pairs.shift).abs().double()
    which = [pairs.direction == k for k in range(module.num_directions)]
    return {name: [float(v[w].mean()) for w in which] for name, v in (("told", right), ("error", error))}


@torch.no_grad()
def class_changes(module: LatentDirections, classify: Callable[[Tensor], Tensor], n: int = 256) -> Tensor:
    """(K,) the share of noise whose two ends, shifted by -max_shift and max_shift, are of different classes."""
    z, labels = module.noise(n, torch.Generator().manual_seed(1))
    found = []
    for k in range(module.num_directions):
        numbers, ends = torch.full((n,), k), []
        for r in (-module.max_shift, module.max_shift):
            ends.append(classify(module(z, numbers, torch.full((n,), r), labels)).argmax(1))
        found.append((ends[0] != ends[1]).double().mean())
    return torch.stack(found)


@torch.no_grad()
def regressed_axes(
    module: LatentDirections, attributes: Callable[[Tensor], Mapping[str, Tensor]], n: int = 4000
) -> Tensor:
    """(d, T) the direction of z along which each attribute rises by linear regression: what labels would have found."""
    z, labels = module.noise(n, torch.Generator().manual_seed(2))
    sample = module(z, torch.zeros(n, dtype=torch.int64), torch.zeros(n), labels)
    values = torch.stack(list(attributes(sample).values()), 1)
    return F.normalize(torch.linalg.lstsq(z, values - values.mean(0)).solution, dim=0)


def largest(correlations: Mapping[str, Sequence[float]], k: int, rank: int = 0) -> float:
    """The largest absolute correlation of a direction, or the second (rank 1)."""
    return sorted((abs(values[k]) for values in correlations.values()), reverse=True)[rank]


@torch.no_grad()
def pictures(
    module: LatentDirections, correlations: Mapping[str, Tensor], value_range: tuple[float, float]
) -> tuple[list[int], list[Any]]:
    """The shape, and what the four most selective directions do to one sample, as [label, images in [-1, 1]]."""
    z, labels = module.noise(1, torch.Generator().manual_seed(3))
    size, which = torch.stack([values.abs() for values in correlations.values()]).topk(2, dim=0)
    low, high = value_range
    shifts, shown = torch.linspace(-module.max_shift, module.max_shift, SHIFTS), []
    for k in (size[0] - size[1]).argsort(descending=True)[:4].tolist():
        again = None if labels is None else labels.expand(SHIFTS)
        images = 2 * (module(z.expand(SHIFTS, -1), torch.full((SHIFTS,), k), shifts, again) - low) / (high - low) - 1
        name = list(correlations)[int(which[0, k])]
        flat = [[round(v, 2) for v in image.flatten().tolist()] for image in images]
        shown.append([f"{name} {float(size[0, k]):.2f}, next {float(size[1, k]):.2f}", flat])
    return list(module.shape), shown


# ---------------------------------------------------------------------------------------------- games
def games(data: str, shift: float, arguments: Any) -> dict[str, playing.Game]:
    """A GAN by each technique, or the fixed generator, with `Directions` watching."""
    options = {"num_directions": arguments.directions, "steps": arguments.steps, "rate": arguments.rate}
    options |= {} if shift == 6 else {"max_shift": shift}
    watch = [["experiments.latent_directions.Directions", options]]
    if data == "Factors":  # one update at rate 0, only so that it is played as the others are
        still = {"technique": "gan", "options": {"lr_g": 0.0, "lr_d": 0.0}, "ema": None, "latent_dim": 8}
        made = playing.image_game("Digits", 1, arguments.width, watch=watch)
        options["num_directions"] = KNOWN
        return {"fixed generator": made | still | {"generator": ["experiments.latent_directions.Factors", {}]}}

    def game(technique: str) -> playing.Game:
        betas = {"betas": [0.5, 0.9]} if technique == "wgan_gp" else {}
        times, norm = (
            (5, "batch") if technique == "dcgan" else (1, "none")
        )  # of one update of D, where others have five
        return playing.image_game(
            data, times * arguments.updates, arguments.width, norm, arguments.batch_size, technique=technique,
            options={**betas, "lr_g": 1e-3, "lr_d": 1e-3}, latent_dim=arguments.latent_dim, watch=watch,
        )  # fmt: skip

    return {technique: game(technique) for technique in arguments.techniques}


def number(key: str) -> Callable[[playing.Result], float]:
    """A column: the mean over directions (or true axes) of what was kept under a name."""
    return lambda r: statistics.fmean(r["found"][key]) if r["found"].get(key) else math.nan


def correlation(rank: int) -> Callable[[playing.Result], float]:
    """A column: the mean over directions of the largest correlation, or of the second."""

    def column(result: playing.Result) -> float:
        found = result["found"]
        if not found:
            return math.nan
        return statistics.fmean(largest(found["correlations"], k, rank) for k in range(len(found["told"])))

    return column


def names(result: playing.Result, at_least: float = 0.0) -> list[str | None]:
    """The names of the directions of which R tells this share of their shifts, or more."""
    found = result["found"]
    given = name_directions({name: torch.tensor(values) for name, values in found["correlations"].items()})
    return [name for name, told in zip(given, found["told"]) if told >= at_least]


def share_named(result: playing.Result, at_least: float = 0.0) -> float:
    """The share of them that have a name."""
    given = names(result, at_least) if result["found"] else []
    return statistics.fmean(float(name is not None) for name in given) if given else math.nan


def columns(arguments: Any) -> measures.Columns:
    """The numbers of a table."""
    return {
        "RCA": number("told"),
        "shift error": number("error"),
        "sign told from one image": number("sign"),
        "class changes": number("class"),
        "largest correlation": correlation(0),
        "second": correlation(1),
        "share named": share_named,
        "of those told": lambda r: share_named(r, arguments.told),
        "attributes named": lambda r: float(len({*names(r)} - {None})) if r["found"] else math.nan,
        "cosine with regressed axes": number("regressed"),
        "with true axes": number("true"),
    }


def scatter(panels: Mapping[str, Mapping[str, list[playing.Result]]]) -> Image.Image:
    """One panel per game: each direction's accuracy and the gap of its correlations, all seeds together."""
    across = min(4, len(panels))
    down = math.ceil(len(panels) / across)
    figure = new_figure(1.0 + 3.8 * across, 3.9 * down)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, lines) in zip(grid, panels.items()):
        for colour, (method, results) in zip(figures.COLOURS, lines.items()):
            points = [
                (
                    r["found"]["told"][k],
                    largest(r["found"]["correlations"], k) - largest(r["found"]["correlations"], k, 1),
                )
                for r in results
                for k in range(len(r["found"].get("told", ())))
            ]
            if points:
                axes.plot(*zip(*points), "o", color=colour, markersize=3.5, alpha=0.6, label=method)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        figures.tidy(axes, title, "share of its shifts that R tells", "largest |correlation| minus the second")
        axes.legend(frameon=False, fontsize=7.5)
    return figure_image(figure)


def rows_of(title: str, results: list[playing.Result], method: str) -> dict[str, list[playing.Result]]:
    """The pictures of the first seed that did not fail, for `figures.samples`."""
    for r in results:
        if (kept := found_by(r, method)) and kept["pictures"]:
            shape, shown = kept["pictures"]
            images = {label: torch.tensor(flat).unflatten(1, shape).tolist() for label, flat in shown[:2]}
            return {f"{title}: {label}": [{"sample": image}] for label, image in images.items()}
    return {}


def found_by(result: playing.Result, method: str) -> dict[str, Any]:
    """What was kept of a method; empty if the game failed."""
    kept = result["kept"].get("Directions", {})
    return {} if result["failed"] else kept.get(method, {})


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, ("Factors", "Digits", "MNIST"), data=["Factors", "Digits"],
        techniques=["dcgan", "sn_gan", "wgan_gp"], updates=400, width=16,
        batch_size=32, latent_dim=16, directions=16, steps=800, rate=1e-3, told=0.9, shifts=[6.0, 2.0],
    )  # fmt: skip
    arguments = p.parse_args()
    tables: list[str] = []
    everything: dict[str, list[playing.Result]] = {}
    panels: dict[str, dict[str, list[playing.Result]]] = {}
    shown: list[Image.Image] = []
    for data, shift in itertools.product(arguments.data, arguments.shifts):
        found = playing.sweep(games(data, shift, arguments), arguments.seeds, arguments)
        for name, results in found.items():
            title = f"{data}, {name}, shifts to {shift:g}"
            everything[title] = results
            used = [m for m in METHODS if m != "true axes" or data == "Factors"]
            panels[title] = {m: [{**r, "found": found_by(r, m)} for r in results] for m in used}
            tables += ["", f"## {title}", "", *measures.table(panels[title], columns(arguments), "directions")]
            if rows := rows_of(title, results, "unit"):
                shown.append(figures.samples(rows, SHIFTS))
    protocol = [
        f"A and R: {arguments.steps} steps of Adam({arguments.rate:g}) with batch 32, R a small LeNet of its own for "
        "each row; shifts of at least 0.5; coordinate axes and random (orthonormal) columns do not learn",
        f"GANs: {arguments.directions} directions of {arguments.latent_dim}; {arguments.updates} generator updates "
        f"(five times as many for DCGAN), DCGAN nets of width {arguments.width}, EMA (0.99)",
        "Factors: a fixed generator of 8 x 8 images, five factors of eight turned at random, five directions",
        "RCA and shift error: 4,000 fresh pairs; sign: accuracy of a small classifier, trained for 50 steps, that "
        "tells the two ends, G(z + s a) and G(z - s a) with s the largest shift, by one image; class changes: share "
        "of z of which these two are of different classes by the classifier of the scores",
        f"named: the shift correlates with the change of one of {', '.join(ATTRIBUTES)} by 0.7 or more, and with none "
        f"of the others by more than 0.5; those told: R tells at least {arguments.told:g} of their shifts; no person "
        "has looked, and this is not the paper's measure",
        "cosines: absolute, matched one to one, with the directions that linear regression of the attributes on z "
        "gives, and with the true ones",
        "figure: each direction a point; below, what the two most selective unit directions of a seed do to a sample",
    ]
    figure = figures.stack(scatter(panels), *shown)
    page.publish(arguments, "Latent directions", everything, protocol, tables, figure)


if __name__ == "__main__":
    main()
