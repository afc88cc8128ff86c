"""Which latent space of a style generator names the factors of its images: z, w, or the styles?

    python -m experiments.spaces --out docs/results/spaces.md

StyleGAN2 on coloured shapes, whose factors are known and can be measured on samples too. In each space coordinates are
taken in units of their deviation, and shifted alike: along its axes, along directions that `LatentDirections` learns
without labels, and along random ones. A factor is named by a direction that changes it steadily, and no other. Beside
that, how much of each factor a linear regression on the coordinates tells, with labels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from experiments import figures, measures, page, playing
from experiments.latent_directions import SHIFTS, largest, pictures
from lightning_gans.compat.lightning import pl
from lightning_gans.diagnostics import LatentDirections
from lightning_gans.diagnostics.direction_measures import attribute_correlations, name_directions
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.latent import from_w, to_w
from lightning_gans.metrics import shape_attributes

FACTORS = {"colour": ("red", "green", "blue"), "size": ("size",), "x": ("x",), "y": ("y",),
           "shape": ("square", "triangle", "ellipse")}  # fmt: skip
SPACES = ("z", "w", "styles")
METHODS = ("axes", "learned", "random")
MAX_SHIFT = 3.0  # deviations
AMONG = 32  # directions that are compared where some spaces have more


class Standard(nn.Module):
    """A generator as a function of the coordinates of one of its spaces, each in deviations from its mean.

    Args:
        generator: by styles.
        space: z, w, or styles: those of all layers and all images, side by side.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, generator: Any, space: str) -> None:
        super().__init__()
        self.generator, self.space, self.noise_length = generator, space, generator.latent_dim
        z = torch.randn(4096, generator.latent_dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            w = to_w(generator, z)
            self.lengths = [len(s[0]) for s in generator.styles(generator.spread(w[:1]))]
            found = self._raw(z)
        self.register_buffer("mean", found.mean(0))
        self.register_buffer("std", found.std(0))
        self.latent_dim = found.shape[1]

    def _raw(self, z: Tensor) -> Tensor:
        if self.space == "z":
            return z
        w = to_w(self.generator, z)
        return w if self.space == "w" else torch.cat(self.generator.styles(self.generator.spread(w)), 1)

    def coordinates(self, z: Tensor) -> Tensor:
        """(N, S) of noise (N, latent_dim)."""
        return (self._raw(z) - self.mean) / self.std.clamp(min=1e-6)

    def forward(self, u: Tensor) -> Tensor:
        """Coordinates (N, S) to images."""
        s = self.mean + self.std * u
        if self.space == "styles":
            return self.generator.render(s.split(self.lengths, 1))  # type: ignore[no-any-return]
        return from_w(self.generator, s) if self.space == "w" else conditional_call(self.generator, s)


class Directions(LatentDirections):
    """Directions of a `Standard`, whose coordinates are those of samples."""

    def noise(self, n: int, source: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Coordinates (n, S)."""
        generator: Any = self.generator
        z = draw.normal(n, generator.noise_length, generator=source, device=self.device, dtype=self.noise_dtype)
        with torch.no_grad():
            return generator.coordinates(z), None


def attributes(images: Tensor) -> dict[str, Tensor]:
    """The measured parts of the factors."""
    found = shape_attributes(images)
    return {part: found[part] for parts in FACTORS.values() for part in parts}


def by_factor(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each factor the part that correlates most with each direction."""
    size = {name: torch.stack([found[part] for part in parts]) for name, parts in FACTORS.items()}
    return {name: x.gather(0, x.abs().argmax(0, keepdim=True))[0] for name, x in size.items()}


@torch.no_grad()
def explained(model: Standard, n: int) -> dict[str, float]:
    """Of each factor the share of its variance that linear regression on the coordinates tells, held-out samples."""
    z = torch.randn(n, model.noise_length, generator=torch.Generator().manual_seed(1))
    u = torch.cat([model.coordinates(z), torch.ones(n, 1)], 1).double()
    values, train = attributes(torch.cat([model(x[:, :-1].float()) for x in u.split(500)])), 3 * n // 4
    y = torch.stack(list(values.values()), 1).double()
    ridge = u[:train].T @ u[:train] + torch.eye(u.shape[1])
    error = u[train:] @ torch.linalg.solve(ridge, u[:train].T @ y[:train]) - y[train:]
    told = dict(zip(values, (1 - error.square().mean(0) / y[train:].var(0)).tolist()))
    return {name: statistics.fmean(told[part] for part in parts) for name, parts in FACTORS.items()}


class Spaces(pl.Callback):
    """Measures the spaces of the trained generator: ``kept``, by space and method.

    Args:
        num_directions: learned and random ones.
        steps: of the learned ones and their reconstructor.
        samples: shifted along each direction.
    """

    def __init__(self, num_directions: int, steps: int, samples: int) -> None:
        self.num_directions, self.steps, self.samples = num_directions, steps, samples
        self.kept: dict[str, Any] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One space after another."""
        for space in SPACES:
            model = Standard(pl_module.network.eval(), space).requires_grad_(False)
            told = explained(model, min(4000, 100 * self.samples))
            for method in METHODS:
                module = self.directions(model, method)
                found = by_factor(attribute_correlations(module, attributes, n=self.samples))
                self.kept[f"{space}, {method}"] = {
                    "correlations": {name: values.tolist() for name, values in found.items()},
                    "explained": told,
                    "pictures": pictures(module, found, (-1.0, 1.0)),
                }

    def directions(self, model: Standard, method: str) -> LatentDirections:
        """By one of `METHODS`."""
        torch.manual_seed(0)
        k, init = (model.latent_dim, "axes") if method == "axes" else (self.num_directions, "random")
        module = Directions(model, k, kind="unit", init=init, lr=1e-3, max_shift=MAX_SHIFT)  # type: ignore[arg-type]
        if method == "learned":
            pl.Trainer(
                max_steps=self.steps, logger=False, enable_checkpointing=False, enable_progress_bar=False, devices=1,
                enable_model_summary=False, limit_val_batches=0,
            ).fit(module)  # fmt: skip
        return module.eval()


# ---------------------------------------------------------------------------------------------- tables
def kept(result: playing.Result, row: str) -> dict[str, Any]:
    """What was kept of a space and method."""
    return {} if result["failed"] else result["kept"]["Spaces"][row]


def names(found: Mapping[str, Any]) -> list[str | None]:
    """The factor that each direction names, or None."""
    return name_directions({name: torch.tensor(values) for name, values in found["correlations"].items()})


def selectivity(found: Mapping[str, Any], among: int | None = None) -> dict[str, float]:
    """Of each factor: of the direction that is best for it, its correlation minus the largest of the others.

    Args:
        found: of a space and method.
        among: best of so many directions, the mean over a hundred choices of them; None: of all.
    """
    table = torch.tensor(list(found["correlations"].values())).abs()
    source, n, best = torch.Generator().manual_seed(0), table.shape[1], {}
    sets = [torch.arange(n)] if among is None else [torch.randperm(n, generator=source)[:among] for _ in range(100)]
    for i, name in enumerate(found["correlations"]):
        alone = table[i] - torch.cat([table[:i], table[i + 1 :]]).amax(0)
        best[name] = statistics.fmean(float(alone[which].max()) for which in sets)
    return best


def over(key: str, rank: int | None = None) -> Callable[[playing.Result], float]:
    """A column: a mean over factors, or over directions."""

    def column(result: playing.Result) -> float:
        found = result["found"]
        if rank is not None:
            ks = range(len(found["correlations"]["size"]))
            return statistics.fmean(largest(found["correlations"], k, rank) for k in ks)
        if key == "explained":
            return statistics.fmean(found[key].values())
        return statistics.fmean(selectivity(found, AMONG if key == "among" else None).values())

    return column


COLUMNS: measures.Columns = {
    "factors named": lambda r: float(len({*names(r["found"])} - {None})),
    "share of directions named": lambda r: statistics.fmean(float(n is not None) for n in names(r["found"])),
    "largest correlation": over("", 0),
    "second": over("", 1),
    "selectivity of the best for each factor": over("selectivity"),
    f"of the best of {AMONG}": over("among"),
    "explained by regression": over("explained"),
}


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__,
        updates=1500,
        widths=[64, 32, 16],
        latent_dim=48,
        items=10_000,
        fakes=2000,
        directions=32,
        steps=400,
        samples=256,
    )
    arguments = p.parse_args()
    options = {"num_directions": arguments.directions, "steps": arguments.steps, "samples": arguments.samples}
    game = playing.shapes_game(arguments, arguments.latent_dim, watch=[["experiments.spaces.Spaces", options]])
    found = playing.sweep({"StyleGAN2": game}, arguments.seeds, arguments)
    results = [r for r in found["StyleGAN2"] if not r["failed"]]
    rows = {f"{s}, {m}": [r | {"found": kept(r, f"{s}, {m}")} for r in results] for s in SPACES for m in METHODS}
    each: measures.Columns = {
        name: lambda r, name=name: selectivity(r["found"])[name] for name in FACTORS  # type: ignore[misc]
    }  # fmt: skip
    told: measures.Columns = {name: lambda r, name=name: r["found"]["explained"][name] for name in FACTORS}  # type: ignore[misc]
    tables = ["", *measures.table(rows, COLUMNS, "directions")]
    tables += ["", "Correlation of the best direction for a factor, minus its largest one with another factor:", ""]
    tables += measures.table(rows, each, "directions")
    tables += ["", "Share of a factor's variance that linear regression on the coordinates tells:", ""]
    tables += measures.table({s: rows[f"{s}, axes"] for s in SPACES}, told, "space")
    score = {"FID": lambda r: measures.last(r, playing.score_of("Shapes"))}
    tables += ["", *measures.table(found, score, "generator")]
    shown = {
        f"{row}: {label}": [{"sample": torch.tensor(flat).unflatten(1, r[0]["found"]["pictures"][0]).tolist()}]
        for row, r in rows.items() if "random" not in row
        for label, flat in r[0]["found"]["pictures"][1][:2]
    }  # fmt: skip
    columns = ("factors named", f"of the best of {AMONG}")
    panels = {
        name if "best" not in name else f"selectivity {name}": {
            row: [COLUMNS[name](r) for r in runs] for row, runs in rows.items()
        }
        for name in columns
    }
    figure = figures.stack(figures.bars(panels, ""), figures.samples(shown, SHIFTS))
    protocol = [
        f"StyleGAN2 on coloured shapes of 16 pixels, widths {arguments.widths}, z and w of {arguments.latent_dim} "
        f"coordinates, {arguments.updates} updates with batch 32, EMA (0.99); FID by a small ResNet, "
        f"{arguments.fakes} samples",
        "styles: of all layers and images, side by side; each coordinate in units of its deviation over samples, and "
        f"shifts of up to {MAX_SHIFT:g} of them, whatever the space",
        f"learned: {arguments.directions} unit columns, {arguments.steps} steps of Adam(1e-3) with batch 32, R a small "
        f"LeNet; random: {arguments.directions} unit columns",
        f"correlation: of a shift with the change of a factor, {arguments.samples} samples per direction; of a colour "
        "that of its channels, and of the shape that of its three measures, which correlates most",
        "named: a factor whose correlation is 0.7 or more, all others being 0.5 or less; five factors: "
        f"{', '.join(FACTORS)}; rotation is left out, since small shapes of 16 pixels do not tell it well",
        "selectivity: correlation with a factor minus the largest one with another; there are 48 axes of z and w, 320 "
        f"of the styles, so the best of {AMONG} is told too, the mean over a hundred choices",
        "regression: on 3,000 samples, told on 1,000 others",
        "figure: below, what the two most selective directions of a row do to one sample of the first seed",
    ]
    page.publish(arguments, "Which latent space names the factors", found, protocol, tables, figure)


if __name__ == "__main__":
    main()
