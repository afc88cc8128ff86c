"""Is the finite-difference penalty equivalent to the gradient penalty?

    python -m experiments.finite_difference --out docs/results/finite-difference.md

(||grad f(x^)|| - 1)^2 at one interpolate, against (|f(x1) - f(x2)| / ||x1 - x2|| - 1)^2 for two independent ones, which
needs no gradient of a gradient. Its author tried it on MNIST with MLPs; here also toys and a convolutional critic, and
the true gradient norm is reported for both. MNIST is downloaded to ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

from typing import Any

from experiments import figures, measures, page, playing
from experiments.one_or_two_sided import NORMS, game, quality

PENALTIES = {"gradient": "GradientPenalty", "finite difference": "FiniteDifferencePenalty"}
MLP: dict[str, Any] = {
    "generator": ["ToyGenerator", {"width": 128}],
    "discriminator": ["ToyDiscriminator", {"width": 128}],
}


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__,
        (*playing.TOYS, *playing.IMAGES, "MNIST, MLP"),
        data=["Ring", "Grid", "MNIST", "MNIST, MLP"],
        updates=800,
    )
    arguments = p.parse_args()
    tables: list[str] = []
    panels: dict[str, dict[str, list[playing.Result]]] = {}
    for data in arguments.data:
        weight = 0.1 if data in playing.TOYS else 10.0
        more = MLP if data.endswith("MLP") else {}
        games = {
            name: game(data.split(",")[0], [penalty, {"weight": weight}], arguments.updates, **more)
            for name, penalty in PENALTIES.items()
        }
        panels[data] = playing.sweep(games, arguments.seeds, arguments)
        columns = quality(data.split(",")[0]) | NORMS
        tables += ["", f"## {data}", "", *measures.table(panels[data], columns, "penalty")]
    figure = figures.curves(panels, "grad/input/interpolated", "mean gradient norm on interpolates")
    results = {f"{data}: {name}": found for data, lines in panels.items() for name, found in lines.items()}
    protocol = [
        "as in one-or-two-sided.md; weight 0.1 on toys, 10 on images; MLP: 3 x 128 units in both networks",
        "norms: of the true gradient, whatever was penalised; mean over the second half of a run",
    ]
    page.publish(arguments, "Is the finite-difference penalty equivalent?", results, protocol, tables, figure)


if __name__ == "__main__":
    main()
