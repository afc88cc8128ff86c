"""What does the optimizer do to each technique?

    python -m experiments.optimizers --out docs/results/optimizers.md

The same optimizer for both players, one after another, on N(1, 1e-3) and on the ring.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from experiments import figures, measures, page, playing
from lightning_gans.visualization.images import figure_image, new_figure

OPTIMIZERS: dict[str, list[Any]] = {
    "SGD": ["torch.optim.SGD", {"lr": 0.1}],
    "SGD, momentum 0.9": ["torch.optim.SGD", {"lr": 0.01, "momentum": 0.9}],
    "Adam, beta1 0": ["torch.optim.Adam", {"lr": 1e-3, "betas": [0.0, 0.9]}],
    "Adam, beta1 0.5": ["torch.optim.Adam", {"lr": 1e-3, "betas": [0.5, 0.9]}],
    "Adam, beta1 0.9": ["torch.optim.Adam", {"lr": 1e-3, "betas": [0.9, 0.9]}],
    "RMSprop": ["torch.optim.RMSprop", {"lr": 1e-3, "alpha": 0.9}],
    "extra-Adam": ["lightning_gans.optim.ExtraAdam", {"lr": 1e-3, "betas": [0.5, 0.9]}],
    "optimistic Adam": ["lightning_gans.optim.OptimisticAdam", {"lr": 1e-3, "betas": [0.5, 0.9]}],
}
TECHNIQUES: dict[str, dict[str, Any]] = {
    "GAN": {"technique": "gan", "options": {"loss": "non_saturating"}},
    "UnrolledGAN, K = 1": {"technique": "unrolled", "options": {"unroll_steps": 1, "unroll_lr": 1e-3}},
    "PrimalDualGAN": {"technique": "primal_dual", "options": {"alpha": 1.0, "saturating": False}},
    "WGANGP": {"technique": "wgan_gp", "options": {"gp_weight": 0.1}},
}
SIGMA = {"Ring": 0.3, "Grid": 0.3, "Gaussian1D": 1.0}  # in units of the median distance between two real samples


def game(data: str, technique: str, optimizer: list[Any], arguments: Any) -> playing.Game:
    """One technique with one optimizer."""
    chosen = TECHNIQUES[technique]
    options = dict(chosen["options"])
    if technique == "PrimalDualGAN":
        options["sigma"] = SIGMA[data]
        if data == "Gaussian1D":  # from where all samples see the data
            options |= {"sigma": 30.0, "sigma_end": 1.0, "sigma_steps": max(1, arguments.updates // 2)}
    play = {"technique": chosen["technique"], "options": options, "optimizers": {"g": optimizer, "d": optimizer}}
    if data == "Gaussian1D":
        law = {"data_options": {"mean": 1.0, "std": arguments.std}}
        return playing.line_game(data, arguments.updates, **law, **play)
    return playing.toy_game(data, arguments.updates, arguments.width, **play)


def value(data: str, result: playing.Result, arguments: Any) -> float:
    """W1 in units of the data's deviation, over the second half; or the last share of high quality."""
    if data == "Gaussian1D":
        return measures.late_mean(result, "metrics/w1") / arguments.std
    return measures.last(result, "metrics/high_quality")


def panel(found: dict[str, dict[str, list[float]]], optimizers: list[str]) -> Image.Image:
    """A panel per data set: techniques in colour over optimizers."""
    figure = new_figure(11.0, 0.6 + 3.4 * len(found))
    for axes, (data, cells) in zip(figure.subplots(len(found), 1, squeeze=False)[:, 0], found.items()):
        for i, (technique, colour) in enumerate(zip(TECHNIQUES, figures.COLOURS)):
            for j, optimizer in enumerate(optimizers):
                values = cells[f"{technique} | {optimizer}"]
                axes.plot([j + 0.16 * (i - 1.5)] * len(values), values, "o", color=colour, markersize=4,
                          label=technique if j == 0 else None)  # fmt: skip
        axes.set_xticks(range(len(optimizers)), optimizers)
        line = data == "Gaussian1D"
        if line:
            axes.set_yscale("log")
        figures.tidy(axes, data, "", "W1 / tau" if line else "share of high quality")
        axes.legend(frameon=False, fontsize=8, ncols=4)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__,
        ("Gaussian1D", *playing.TOYS),
        data=["Gaussian1D", "Ring"],
        updates=1000,
        width=64,
        std=0.0316228,
        optimizers=list(OPTIMIZERS),
    )
    arguments = p.parse_args()
    tables: list[str] = []
    everything: dict[str, list[playing.Result]] = {}
    drawn: dict[str, dict[str, list[float]]] = {}
    for data in arguments.data:
        games = {
            f"{technique} | {name}": game(data, technique, OPTIMIZERS[name], arguments)
            for technique in TECHNIQUES
            for name in arguments.optimizers
        }
        found = playing.sweep(games, arguments.seeds, arguments)
        everything |= {f"{data}: {name}": results for name, results in found.items()}
        drawn[data] = {name: [value(data, r, arguments) for r in results] for name, results in found.items()}
        tables += [
            "",
            f"## {data}",
            "",
            f"| optimizer | {' | '.join(TECHNIQUES)} |",
            "|---" * (1 + len(TECHNIQUES)) + "|",
        ]
        for name in arguments.optimizers:
            cells = []
            for technique in TECHNIQUES:
                results = found[f"{technique} | {name}"]
                if data == "Gaussian1D":
                    best = measures.middle(measures.best(r, "metrics/w1") / arguments.std for r in results)
                    width = measures.middle(measures.late_mean(r, "metrics/std") / arguments.std for r in results)
                    more = f"best {best}; std {width}"
                else:
                    best = measures.spread(measures.best(r, "metrics/high_quality") for r in results)
                    more = f"best {best}; modes {measures.spread(measures.last(r, 'metrics/modes') for r in results)}"
                told = (measures.middle if data == "Gaussian1D" else measures.spread)(
                    drawn[data][f"{technique} | {name}"]
                )
                cells.append(f"{told}; {more}")
            tables.append(f"| {name} | {' | '.join(cells)} |")
    protocol = [
        f"{arguments.updates} generator updates, one update of D each (five for WGANGP); the same optimizer for G and "
        "D, rates as in the script: 0.1 for SGD, 0.01 with momentum, 0.001 else, beta2 0.9",
        f"Gaussian1D: N(1, {arguments.std:g}^2), 1-32-1 nets; cells: mean W1 of the second half, the best, and the "
        "mean deviation of samples, all in units of the data's deviation tau: median (lowest to highest seed)",
        f"Ring: 3 x {arguments.width} units, EMA generator (0.99); cells: last share of high quality, the best, and "
        "the modes covered",
        "GAN non-saturating; UnrolledGAN saturating with one Adam step at 0.001; PrimalDualGAN non-saturating, alpha "
        "1, sigma 0.3 (1D: from 30 to 1) times the median distance of two real samples; WGANGP with weight 0.1",
        "two updates of extra-Adam make one step: at equal updates it has made half as many",
    ]
    page.publish(
        arguments, "What does the optimizer do?", everything, protocol, tables, panel(drawn, arguments.optimizers)
    )


if __name__ == "__main__":
    main()
