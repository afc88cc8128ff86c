"""How narrow is the usable band of the clipping threshold c?

    python -m experiments.clipping_band --out docs/results/clipping-band.md

A sweep of c with a deep critic: gradient norm by layer, histogram of the parameters, and what the generator makes of
it; WGAN-GP beside it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from experiments import figures, measures, page, playing
from lightning_gans.visualization.images import figure_image, new_figure


def layers(result: playing.Result) -> list[float]:
    """Gradient norm by layer of the critic, from input to output; geometric mean over the second half of the run."""
    late = result["rows"][len(result["rows"]) // 2 :]
    names = list(dict.fromkeys(name for row in late for name in row if name.startswith("grad/d/")))
    floor = 1e-30
    return [10 ** statistics.fmean(math.log10(max(r[n], floor)) for r in late if n in r) for n in names]


def decades(result: playing.Result) -> float:
    """How many decades the gradient gains from the output to the input: below 0 it vanishes, above 0 it explodes.

    Of the hidden layers of equal shape, so that a difference in size is not taken for one in gradient.
    """
    found = layers(result)[1:-1]
    return math.log10(found[0] / found[-1]) if found else math.nan


def at_ends(result: playing.Result, c: float) -> float:
    """Share of the critic's parameters within 0.1 % of -c or c."""
    weights = result["weights"]
    return sum(abs(w) >= (1 - 1e-3) * c for w in weights) / len(weights) if weights else math.nan


def draw(found: Mapping[str, Sequence[playing.Result]]) -> Image.Image:
    """Left: gradient norm by layer. Right: the first seed's histogram of the parameters, in units of the largest."""
    from matplotlib import colormaps

    figure = new_figure(12.0, 4.8)
    left, right = figure.subfigures(1, 2, width_ratios=[1.0, 1.1])
    axes, columns = left.subplots(), 4
    panels = right.subplots(-(-len(found) // columns), columns, sharex=True, squeeze=False).flatten()
    for i, (name, results) in enumerate(found.items()):
        penalty = "=" not in name
        colour = figures.COLOURS[1] if penalty else colormaps["viridis_r"](0.1 + 0.9 * i / len(found))
        norms = [layers(r) for r in results if not r["failed"]]
        if norms:
            means = [10 ** statistics.fmean(map(figures.log10, at)) for at in zip(*norms)]
            line = "s--" if penalty else "o-"
            axes.plot(range(1, len(means) + 1), means, line, color=colour, markersize=3, linewidth=1.3, label=name)
        weights = results[0]["weights"]
        largest = max(map(abs, weights), default=0.0) or 1.0
        panels[i].hist([w / largest for w in weights], bins=25, range=(-1.0, 1.0), color=colour)
        panels[i].set_title(name, fontsize=8)
    for panel in panels:
        panel.set_yticks([])
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right", "left"]].set_visible(False)
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    axes.set_yscale("log")
    figures.tidy(axes, "gradient norm by layer", "layer of the critic, from input to output", "norm")
    axes.legend(frameon=False, fontsize=7, ncols=2)
    right.supxlabel("parameter / largest parameter", fontsize=9)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    thresholds = [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0]
    p = page.parser(__doc__, playing.TOYS, thresholds=thresholds, data="Ring", depth=12, width=64, updates=600)
    arguments = p.parse_args()
    play: dict[str, Any] = {
        "watch": [["GradientNorms", {"every_n_steps": 20, "inputs": False}]],
        "discriminator": ["ToyDiscriminator", {"width": arguments.width, "depth": arguments.depth}],
        "generator": ["ToyGenerator", {"width": arguments.width}],
    }
    rates = {"lr_g": 5e-4, "lr_d": 5e-4}

    def game(technique: str, **options: Any) -> playing.Game:
        return playing.toy_game(arguments.data, arguments.updates, technique=technique, options=rates | options, **play)

    games = {f"c = {c:g}": game("wgan", c=c) for c in arguments.thresholds}
    games["gradient penalty"] = game("wgan_gp", gp_weight=0.1, betas=[0.5, 0.9])
    found = playing.sweep(games, arguments.seeds, arguments)
    for name, results in found.items():
        for r in results:
            r["c"] = float(name.split(" = ")[1]) if "=" in name else math.nan
    columns = {
        "decades, output to input": decades,
        "smallest layer norm": lambda r: min(layers(r), default=math.nan),
        "largest": lambda r: max(layers(r), default=math.nan),
        "parameters at ±c": lambda r: at_ends(r, r["c"]),
        "modes": lambda r: measures.last(r, "metrics/modes"),
        "high quality, last": lambda r: measures.last(r, "metrics/high_quality"),
        "best": lambda r: measures.best(r, "metrics/high_quality"),
        "reverse KL, last": lambda r: measures.last(r, "metrics/reverse_kl"),
    }
    tables = measures.table(found, columns, "critic")
    protocol = [
        f"data: {arguments.data}; critic of {arguments.depth} x {arguments.width} ReLU units, generator 3 x "
        f"{arguments.width}; batch 256; {arguments.updates} generator updates of 5 critic updates",
        "WGAN: RMSprop(5e-4); WGAN-GP: Adam(5e-4; 0.5, 0.9), weight 0.1; EMA generator (0.99)",
        "decades: log10 of the ratio of first to last hidden layer of equal shape; parameters: of 201 quantiles",
    ]
    title = "How narrow is the usable clipping band?"
    page.publish(arguments, title, found, protocol, tables, draw(found))


if __name__ == "__main__":
    main()
