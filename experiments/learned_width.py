"""Does the width of the learned law depend on batch size and learning rate?

    python -m experiments.learned_width --out docs/results/learned-width.md

A plain GAN on N(0, 1), after the same number of updates: the standard deviation and the tail mass of its samples, on
average and how they go up and down while training goes on.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from experiments import figures, measures, page, playing
from lightning_gans.visualization.images import figure_image, new_figure

TAIL = 0.02275  # of N(0, 1), beyond 2


def game(size: int, optimizer: str, rate: float, decay: bool, arguments: Any) -> playing.Game:
    """One batch size with one optimizer."""
    kinds = {
        "Adam": ["torch.optim.Adam", {"lr": rate, "betas": [0.5, 0.999]}],
        "SGD": ["torch.optim.SGD", {"lr": rate}],
    }
    made = playing.line_game(
        "Gaussian1D", arguments.updates, arguments.width, technique="gan", options={},
        optimizers={"g": kinds[optimizer], "d": kinds[optimizer]}, data_options={"mean": 0.0, "std": 1.0},
    )  # fmt: skip
    return made | {"batch_size": size, "every": max(1, arguments.updates // 40), "decay": decay}


def settings(arguments: Any) -> dict[str, tuple[str, float, bool]]:
    """Optimizers by name."""
    made = {f"Adam {rate:g}": ("Adam", rate, False) for rate in arguments.rates}
    made |= {f"SGD {rate:g}": ("SGD", rate, False) for rate in arguments.sgd_rates}
    return made | {f"Adam {rate:g}, falling to 0": ("Adam", rate, True) for rate in arguments.rates[1:2]}


def width(result: playing.Result) -> float:
    """Mean standard deviation over the second half."""
    return measures.late_mean(result, "metrics/std")


def swing(result: playing.Result) -> float:
    """How the standard deviation goes up and down in the second half."""
    return measures.late_deviation(result, "metrics/std")


def tail(result: playing.Result) -> float:
    """Mean tail mass over the second half, relative to the truth."""
    return measures.late_mean(result, "metrics/tail_mass") / TAIL


def picture(found: dict[str, list[playing.Result]], names: list[str], sizes: list[int]) -> Image.Image:
    """Width, its swing and the tail over the batch size, a line per optimizer, a point per seed."""
    figure = new_figure(13.0, 4.2)
    panels = {"standard deviation": width, "its swing over time": swing, "tail mass / truth": tail}
    for axes, (label, value) in zip(figure.subplots(1, 3), panels.items()):
        for colour, name in zip(figures.COLOURS, names):
            seeds = [[value(r) for r in found[f"{name}, batch {size}"]] for size in sizes]
            axes.plot(sizes, [sum(s) / len(s) for s in seeds], color=colour, linewidth=1.4, label=name)
            for size, values in zip(sizes, seeds):
                axes.plot([size] * len(values), values, "o", color=colour, markersize=2.5)
        axes.set_xscale("log", base=2)
        if value is swing:
            axes.set_yscale("log")
        else:
            axes.axhline(1, color="#9aa0a8", linewidth=0.8, linestyle=(0, (4, 2)))
        figures.tidy(axes, label, "batch size", "")
        axes.legend(frameon=False, fontsize=7.5)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, updates=4000, width=32, batch_sizes=[16, 64, 256, 1024], rates=[1e-4, 1e-3, 5e-3], sgd_rates=[0.1]
    )
    arguments = p.parse_args()
    chosen = settings(arguments)
    games = {
        f"{name}, batch {size}": game(size, *how, arguments)
        for name, how in chosen.items()
        for size in arguments.batch_sizes
    }
    found = playing.sweep(games, arguments.seeds, arguments)
    columns: measures.Columns = {
        "standard deviation": width,
        "its swing": swing,
        "tail mass / truth": tail,
        "W1": lambda r: measures.late_mean(r, "metrics/w1"),
        "std, last": lambda r: measures.last(r, "metrics/std"),
        "W1, best": lambda r: measures.best(r, "metrics/w1"),
    }
    protocol = [
        f"plain GAN, non-saturating, on N(0, 1); nets 1-{arguments.width}-1; {arguments.updates} updates of each "
        "player whatever the batch size; no EMA; Adam with beta 0.5, 0.999; falling: linearly, both rates",
        "means over the second half of a run, measured with 10,000 samples 20 times; swing: their standard deviation "
        "about a line of least squares; two standard errors of a standard deviation of 10,000 samples are 0.014",
        f"tail mass: of samples beyond 2, relative to {TAIL}",
    ]
    table = measures.table(found, columns, "optimizer, batch size")
    figure = picture(found, list(chosen), arguments.batch_sizes)
    page.publish(arguments, "The learned width", found, protocol, table, figure)


if __name__ == "__main__":
    main()
