"""How should a mixture's new generator begin, and does a learned p reach the true share of the tail?

    python -m experiments.boosted_start --out docs/results/boosted-start.md

A GAN is trained on a law with a rare tail, of which it misses most, and frozen. Beside it a new generator G_1 begins as
its copy, from scratch, or pre-trained on the tail by matching its moments or by a small VAE; p is fixed at its true
value, or too low, or learned from several starts.
"""

from __future__ import annotations

from PIL import Image

from experiments import figures, measures, page, playing
from experiments.tail_gradients import STARTS, boosted_game, plain_game, tail_sampled


def relative(name: str, share: float) -> measures.Columns:
    """A logged mass, last and over the second half, relative to the share."""
    return {
        "tail mass / truth, last": lambda r: measures.last(r, name) / share,
        "mean of the second half": lambda r: measures.late_mean(r, name) / share,
    }


def over_time(found: dict[str, list[playing.Result]], title: str, name: str, label: str) -> Image.Image:
    """Curves of some games."""
    return figures.curves({title: found}, name, label)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, updates=2000, long_updates=6000, shares=[0.01, 0.05], ps=[0.5, 0.9, 0.99], batch_size=64, width=64,
        rate=1e-3,
    )  # fmt: skip
    arguments = p.parse_args()
    tables: list[str] = []
    everything: dict[str, list[playing.Result]] = {}
    pictures: list[Image.Image] = []

    share = arguments.shares[0]
    base = plain_game(share, arguments.updates, arguments)
    long = plain_game(share, 2 * arguments.updates, arguments)
    games = {"the GAN alone": base, "twice as long": long, "twice as long, tail-sampled": tail_sampled(long, share)}
    for start in STARTS:
        for name, options in (
            (f"p = {1 - share:g}", {"p": 1 - share}),
            ("p = 0.9", {"p": 0.9}),
            ("p learned from 0.9", {"p": 0.9, "learn_p": True}),
        ):
            games[f"{start}, {name}"] = boosted_game(base, start, arguments.updates, share, **options)
    found = playing.sweep(games, arguments.seeds, arguments)
    everything |= found
    columns = relative("metrics/tail_mass", share) | {
        "W1, last": lambda r: measures.last(r, "metrics/w1"),
        "best": lambda r: measures.best(r, "metrics/w1"),
        "p, last": lambda r: measures.last(r, "g/p"),
        "ms per update": measures.milliseconds,
    }
    tables += ["", f"## How G_1 begins (true tail mass {share:g})", "", *measures.table(found, columns, "G_1 begins")]
    shown = {s: found[f"{s}, p = {1 - share:g}"] for s in STARTS}
    pictures.append(over_time(shown, f"p = {1 - share:g}, fixed", "metrics/tail_mass", "tail mass of the samples"))

    learned: dict[str, list[playing.Result]] = {}
    for share in arguments.shares:
        base = plain_game(share, arguments.updates, arguments)
        games = {
            f"tail {share:g}, p from {start:g}": boosted_game(
                base, "moments", arguments.long_updates, share, p=start, learn_p=True
            )
            for start in arguments.ps
        }
        played = playing.sweep(games, arguments.seeds, arguments)
        learned |= played
        columns = {"p, last": lambda r: measures.last(r, "g/p"), "p, halfway": lambda r: middle(r, "g/p")}
        columns |= relative("metrics/tail_mass", share) | {"W1, last": lambda r: measures.last(r, "metrics/w1")}
        tables += ["", f"## Learned p (p = {1 - share:g} if G has none of the tail and G_1 nothing else)", ""]
        tables += measures.table(played, columns, "tail mass, start")
        pictures.append(over_time(played, f"tail mass {share:g}", "g/p", "p"))
    everything |= learned
    protocol = [
        "(1 - a) N(0, 0.5^2) + a N(3, 0.25^2), the tail beyond 2, its mass a; batch "
        f"{arguments.batch_size}; 2 x {arguments.width} units; Adam({arguments.rate:g}; 0.5, 0.999), p by that of G_1; "
        "EMA (0.995); non-saturating",
        f"the GAN: {arguments.updates} updates on data as they come, then frozen; mixtures: {arguments.updates} "
        f"updates of D and G_1 ({arguments.long_updates} for a learned p), half of each batch from the upper a of the "
        "data, with weights; half of the fakes are G's, with weights",
        "moments, vae: G_1 is first trained on the data beyond 2; learned p: after moments",
        "10,000 samples, 20 times; the share of the tail among 10,000 true draws is known to 10 % (4 % for a = 0.05)",
    ]
    page.publish(arguments, "How a mixture grows", everything, protocol, tables, figures.stack(*pictures))


def middle(result: playing.Result, name: str) -> float:
    """The value half-way through."""
    found = measures.series(result, name)
    return found[len(found) // 2][1] if found and not result["failed"] else float("nan")


if __name__ == "__main__":
    main()
