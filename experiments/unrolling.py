"""What does unrolling cost, and what is it worth?

    python -m experiments.unrolling --out docs/results/unrolling.md

UnrolledGAN on the ring with K = 0 (the plain saturating game) and more, second and first order: mode coverage at equal
updates and at equal time, seconds per update, and the memory that autograd holds.
"""

from __future__ import annotations

from typing import Any

from experiments import figures, measures, page, playing


def within(result: playing.Result, name: str, seconds: float) -> float:
    """The last value of a score that was there after so many seconds of training."""
    found = [row[name] for row in result["rows"] if name in row and row["seconds"] <= seconds]
    return found[-1] if found and not result["failed"] else float("nan")


def game(k: int, first_order: bool, arguments: Any, times: int = 1) -> playing.Game:
    """One K, played for so many times the updates."""
    options = {
        "unroll_steps": k, "first_order": first_order, "unroll_lr": arguments.rate_d,
        "unroll_optimizer": "adam", "lr_g": arguments.rate_g, "lr_d": arguments.rate_d,
    }  # fmt: skip
    updates = times * arguments.updates
    made = playing.toy_game(arguments.data, updates, arguments.width, technique="unrolled", options=options)
    return made | {"every": max(1, updates // 30)}


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, playing.TOYS, data="Ring", updates=2000, width=64, ks=[1, 2, 5, 10], rate_g=1e-3, rate_d=1e-4, times=13
    )
    arguments = p.parse_args()
    games = {"K = 0": game(0, False, arguments)}
    for first_order in (False, True):
        games |= {f"K = {k}{', first order' * first_order}": game(k, first_order, arguments) for k in arguments.ks}
    games[f"K = 0, {arguments.times} times as long"] = game(0, False, arguments, arguments.times)
    found = playing.sweep(games, arguments.seeds, arguments)
    budget = min(r["rows"][-1]["seconds"] for r in found["K = 0"])
    good, modes = "metrics/high_quality", "metrics/modes"
    columns: measures.Columns = {
        "modes": lambda r: measures.last(r, modes),
        "high quality, last": lambda r: measures.last(r, good),
        "best": lambda r: measures.best(r, good),
        "reverse KL, last": lambda r: measures.last(r, "metrics/reverse_kl"),
        f"modes after {budget:.0f} s": lambda r: within(r, modes, budget),
        "high quality then": lambda r: within(r, good, budget),
        "ms per update": measures.milliseconds,
        "MB held": measures.megabytes,
    }
    table = measures.table(found, columns, "unrolling")
    figure = figures.stack(
        figures.curves({"at equal updates": dict(list(found.items())[:-1])}, good, "share of high quality"),
        figures.curves({"at equal time": found}, good, "share of high quality", x="seconds"),
    )
    protocol = [
        f"{arguments.data}: {arguments.updates} generator updates, one of D each; 3 x {arguments.width} units, batch "
        f"256; Adam(0.5, 0.999), {arguments.rate_g:g} for G, {arguments.rate_d:g} for D and the K steps; EMA (0.99)",
        f"{arguments.times} times as long: about the time of the largest K",
        "10,000 samples; high quality: within 4 standard deviations of a mode",
        f"after {budget:.0f} s: of training alone, what K = 0 takes for all its updates",
        "MB held: the most bytes at once that autograd keeps for backward passes in one cycle, storages counted once",
    ]
    page.publish(arguments, "Cost and gain of unrolling", found, protocol, table, figure)


if __name__ == "__main__":
    main()
