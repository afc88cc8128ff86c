"""One-sided or two-sided gradient penalty: which is better?

    python -m experiments.one_or_two_sided --out docs/results/one-or-two-sided.md

Three forms of the penalty on ||grad f(x^)||: two-sided (n - 1)^2, as WGAN-GP has it; one-sided max(0, n - 1)^2; and
one-sided without the square, max(0, n - 1). Same networks, data, seeds and learning rates. MNIST is downloaded to
``$LIGHTNING_GANS_DATA``; ``--data Ring Grid`` leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments import figures, measures, page, playing

FORMS: dict[str, dict[str, Any]] = {
    "two-sided": {},
    "one-sided": {"one_sided": True},
    "one-sided, power 1": {"one_sided": True, "power": 1.0},
}
PLAY: dict[str, Any] = {
    "technique": "gan",
    "options": {"loss": "wasserstein", "d_steps": 5, "lr_g": 1e-3, "lr_d": 1e-3, "betas": [0.5, 0.9]},
    "watch": [["GradientNorms", {"every_n_steps": 50, "per_layer": False}]],
}


def game(data: str, penalty: Sequence[Any], updates: int, **more: Any) -> playing.Game:
    """A Wasserstein game with one penalty; the toys play for twice as many updates on the grid as on the ring."""
    play = PLAY | {"regularizers": [penalty]}
    if data == "Ring":
        return playing.toy_game(data, updates, **play, **more)
    if data == "Grid":
        return playing.toy_game(data, 2 * updates, **play, **more)
    return playing.image_game(data, updates, **play, **more)


def estimate(result: playing.Result) -> float:
    """Mean of E f(x) - E f(G(z)) over the second half of a run."""
    if measures.series(result, "d/wasserstein"):
        return measures.late_mean(result, "d/wasserstein")
    return measures.late_mean(result, "d/real") - measures.late_mean(result, "d/fake")


NORMS: measures.Columns = {
    "norm on interpolates": lambda r: measures.late_mean(r, "grad/input/interpolated"),
    "on real": lambda r: measures.late_mean(r, "grad/input/real"),
    "on fake": lambda r: measures.late_mean(r, "grad/input/fake"),
    "E f(x) - E f(G(z))": estimate,
    "ms per update": measures.milliseconds,
}


def quality(data: str) -> measures.Columns:
    """The columns of sample quality."""
    if data in playing.TOYS:
        return {
            "modes": lambda r: measures.last(r, "metrics/modes"),
            "high quality, last": lambda r: measures.last(r, "metrics/high_quality"),
            "best": lambda r: measures.best(r, "metrics/high_quality"),
            "reverse KL, last": lambda r: measures.last(r, "metrics/reverse_kl"),
        }
    name = playing.score_of(data)
    return {"FID, last": lambda r: measures.last(r, name), "FID, best": lambda r: measures.best(r, name)}


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, (*playing.TOYS, *playing.IMAGES), data=["Ring", "Grid", "MNIST"], updates=800, weights=[0.1, 10.0]
    )
    arguments = p.parse_args()
    tables: list[str] = []
    everything: dict[str, list[playing.Result]] = {}
    for data in arguments.data:
        weights = arguments.weights if data in playing.TOYS else [10.0]
        games = {
            f"{form}, weight {weight:g}": game(data, ["GradientPenalty", {"weight": weight, **o}], arguments.updates)
            for weight in weights
            for form, o in FORMS.items()
        }
        found = playing.sweep(games, arguments.seeds, arguments)
        tables += ["", f"## {data}", "", *measures.table(found, quality(data) | NORMS, "penalty")]
        everything |= {f"{data}: {name}": results for name, results in found.items()}
    figure = figures.curves(
        {data: {n.split(": ")[1]: r for n, r in everything.items() if n.startswith(data)} for data in arguments.data},
        "grad/input/interpolated",
        "mean gradient norm on interpolates",
        log=True,
    )
    protocol = [
        "WGAN losses, 5 critic updates per generator update, Adam(1e-3; 0.5, 0.9), EMA generator (0.99)",
        "toys: 3 x 128 units, batch 256; MNIST: DCGAN nets of width 16 without normalisation in the critic, batch 32",
        f"generator updates: {arguments.updates}, twice as many on the grid",
        "toys: 10,000 samples, within 4 standard deviations of a mode; MNIST: FID/lenet, 2,000 samples against 10,000",
        "norms and estimate: mean over the second half of a run; time: of the processor, one thread",
    ]
    page.publish(arguments, "One-sided or two-sided penalty?", everything, protocol, tables, figure)


if __name__ == "__main__":
    main()
