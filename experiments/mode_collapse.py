"""Which technique covers all modes, and at what price?

    python -m experiments.mode_collapse --out docs/results/mode-collapse.md

The ring of 8, the grid of 25 and the 1,000 modes of StackedMNIST: the plain game, unrolled discriminators (first and
second order, and G's step first), primal-dual steps, a gradient penalty, R3GAN; same networks and data. A seed succeeds
on a toy if all modes are covered and the reverse KL divergence, of samples over modes, is at most ``--success`` nats.
MNIST is downloaded to ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

import math
from typing import Any

from experiments import figures, measures, page, playing

DATA = ["Ring", "Grid", "StackedMNIST"]
MODES = {"Ring": 8, "Grid": 25, "StackedMNIST": 1000}


def methods(arguments: Any) -> dict[str, dict[str, Any]]:
    """The techniques by name: K = 0 is the saturating game that the unrolled ones start from.

    The saturating games have the two rates of the unrolled GAN's demo, the others one rate for both players.
    """
    slow = {"lr_g": arguments.rate, "lr_d": arguments.rate_d}
    both = {"lr_g": arguments.rate, "lr_d": arguments.rate}
    dual = {"sigma": 0.3, "alpha": arguments.alpha}
    made: dict[str, dict[str, Any]] = {
        "GAN, non-saturating": {"technique": "gan", "options": {"loss": "non_saturating", **both}},
        "GAN, saturating (K = 0)": {"technique": "gan", "options": {"loss": "minimax", **slow}},
    }
    for first_order in (False, True):
        for k in arguments.ks:
            options = {"unroll_steps": k, "first_order": first_order, "unroll_lr": arguments.rate_d, **slow}
            made[f"UnrolledGAN, K = {k}{', first order' * first_order}"] = {"technique": "unrolled", "options": options}
    options = {"unroll_steps": 5, "order": "g_first", "unroll_lr": arguments.rate_d, **slow}
    made["UnrolledGAN, K = 5, G first"] = {"technique": "unrolled", "options": options}
    options = {**dual, "saturating": False, **both}
    made["PrimalDualGAN, non-saturating"] = {"technique": "primal_dual", "options": options}
    made["PrimalDualGAN, saturating"] = {"technique": "primal_dual", "options": {**dual, **slow}}
    made["WGANGP"] = {"technique": "wgan_gp", "options": {"betas": [0.5, 0.9], **both}}
    made["R3GAN"] = {"technique": "r3_gan", "options": {"betas": [0.0, 0.99], **both}}
    return made


def game(data: str, method: dict[str, Any], arguments: Any) -> playing.Game:
    """One technique on one data set."""
    toy = data in playing.TOYS
    options = dict(method["options"])
    if method["technique"] == "primal_dual" and not toy:
        options["sigma"] = 1.0
    if method["technique"] == "wgan_gp":
        options["gp_weight"] = 0.1 if toy else 10.0
    if method["technique"] == "r3_gan":
        options["gamma"] = 0.0003 if toy else arguments.gamma
    play = {"technique": method["technique"], "options": options}
    if toy:
        return playing.toy_game(data, arguments.updates, arguments.width, **play)
    made = playing.image_game(data, arguments.image_updates, arguments.image_width, **play)
    return made | {"score": {"num_samples": arguments.image_samples}}


def success(result: playing.Result, below: float) -> float:
    """1 if all modes are covered, and evenly enough, 0 otherwise."""
    modes, divergence = measures.last(result, "metrics/modes"), measures.last(result, "metrics/reverse_kl")
    return float(modes == MODES[result["game"]["data"]] and divergence <= below)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, DATA, data=DATA, updates=4000, width=64, ks=[1, 5, 10], rate=1e-3, rate_d=1e-4, alpha=1.0, success=0.1,
        image_updates=2000, image_width=8, image_samples=5000, gamma=1.0,
    )  # fmt: skip
    p.set_defaults(seeds=[1, 2, 3, 4, 5])
    arguments = p.parse_args()
    tables: list[str] = []
    panels: dict[str, dict[str, list[playing.Result]]] = {}
    for data in arguments.data:
        games = {n: game(data, m, arguments) for n, m in methods(arguments).items()}
        panels[data] = found = playing.sweep(games, arguments.seeds, arguments)
        if data in playing.TOYS:
            columns: measures.Columns = {
                "seeds that succeed": lambda r: success(r, arguments.success),
                "modes": lambda r: measures.last(r, "metrics/modes"),
                "high quality, last": lambda r: measures.last(r, "metrics/high_quality"),
                "best": lambda r: measures.best(r, "metrics/high_quality"),
                "reverse KL, last": lambda r: measures.last(r, "metrics/reverse_kl"),
            }
        else:
            columns = {
                "modes, last": lambda r: measures.last(r, "metrics/modes/lenet"),
                "best": lambda r: measures.best(r, "metrics/modes/lenet"),
                "reverse KL, last": lambda r: measures.last(r, "metrics/reverse_kl/lenet"),
            }
        rows = measures.table(
            found, columns | {"ms per update": measures.milliseconds, "MB held": measures.megabytes}, "technique"
        )
        tables += ["", f"## {data}", "", *(count(row, found) for row in rows)]
    everything = {f"{data}: {name}": results for data, lines in panels.items() for name, results in lines.items()}
    names = {d: "metrics/modes" if d in playing.TOYS else "metrics/modes/lenet" for d in arguments.data}
    figure = figures.bars(
        {data: {n: [measures.last(r, names[data]) / MODES[data] for r in rs] for n, rs in lines.items()}
         for data, lines in panels.items()},
        "share of the modes covered, last, each seed",
    )  # fmt: skip
    protocol = [
        f"{arguments.updates} generator updates on toys, {arguments.image_updates} on StackedMNIST, one of D each "
        "(five for WGANGP); EMA generator (0.99)",
        f"Adam(0.5, 0.999), (0.5, 0.9) for WGANGP; rate {arguments.rate:g} for G; for D and the K steps "
        f"{arguments.rate_d:g} in the saturating games, {arguments.rate:g} in the others",
        f"toys: 3 x {arguments.width} units, batch 256; StackedMNIST: DCGAN nets of width {arguments.image_width} "
        "without normalisation in D, batch 32",
        f"PrimalDualGAN: alpha {arguments.alpha:g}, sigma 0.3 (1 on StackedMNIST) times the median distance of two "
        f"real samples; WGANGP: weight 0.1 (10); R3GAN: Adam(0, 0.99), gamma 0.0003 ({arguments.gamma:g})",
        f"success: all modes covered, reverse KL at most {arguments.success:g}, at the end; toys: 10,000 samples, high "
        f"quality within 4 standard deviations of a mode; StackedMNIST: {arguments.image_samples:,} samples",
        "time: of the processor, one thread; MB held: the most at once that autograd keeps for backward passes",
    ]
    page.publish(arguments, "Mode collapse", everything, protocol, tables, figure)


def count(row: str, found: dict[str, list[playing.Result]]) -> str:
    """The row with its mean of successes as a count."""
    cells = row.split(" | ")
    results = found.get(cells[0].removeprefix("| "))
    if results and results[0]["game"]["data"] in playing.TOYS:
        share = cells[1].split(" ")[0]
        cells[1] = f"{0 if math.isnan(float(share)) else round(float(share) * len(results))} of {len(results)}"
    return " | ".join(cells)


if __name__ == "__main__":
    main()
