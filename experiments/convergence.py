"""Convergence of the Lipschitz family: the same networks at equal numbers of updates and at equal time.

    python -m experiments.convergence --out docs/results/convergence.md

DCGAN, WGAN, WGAN-GP, SN-GAN, CT-GAN, WGAN-ALP, SRN-GAN and PRC-GAN, each with its paper's steps, betas and penalties,
on MNIST (downloaded to ``$LIGHTNING_GANS_DATA``; ``--data Digits`` needs no files, ``--data CIFAR10 --width 64`` is
the same at scale). Learning rates: the better of 2e-4 and 1e-3 on seed 0 (``--seeds 0 --rates`` plays that choice).
"""

from __future__ import annotations

import math
from typing import Any

from experiments import figures, measures, page, playing

# Options of each technique; the learning rate of D (that of G is the same, a fifth of it for PRC-GAN as in its code);
# how many times the generator updates that the others have it is given: its cycle is that much cheaper.
PAPERS: dict[str, tuple[dict[str, Any], float, int]] = {
    "dcgan": ({}, 1e-3, 5),
    "wgan": ({"c": 0.01}, 1e-3, 1),
    "wgan_gp": ({"betas": [0.5, 0.9]}, 1e-3, 1),
    "sn_gan": ({}, 1e-3, 1),
    "ct_gan": ({"betas": [0.5, 0.9]}, 1e-3, 1),
    "wgan_alp": ({}, 1e-3, 1),
    "srn_gan": ({}, 1e-3, 1),
    "prc_gan": ({}, 1e-3, 5),
}
BATCH_NORM = ("dcgan", "wgan")  # in the discriminator, as in their papers
DROPOUT = ("ct_gan", "prc_gan")


def game(technique: str, rate: float, arguments: Any) -> playing.Game:
    """One technique by its paper's rules."""
    options, _, times = PAPERS[technique]
    norm = "batch" if technique in BATCH_NORM else "none"
    rates = {"lr_d": rate, "lr_g": rate / 5 if technique == "prc_gan" else rate}
    if technique == "prc_gan":
        rates["lr_c"] = rate / 5
    made = playing.image_game(
        arguments.data, times * arguments.updates, arguments.width, norm, arguments.batch_size,
        technique=technique, options=options | rates,
    )  # fmt: skip
    made["every"] = max(1, arguments.updates // 4)
    if technique in DROPOUT:
        made["discriminator"][1]["dropout"] = arguments.dropout
    if technique == "prc_gan":
        made["classifier"] = ["DCGANDiscriminator", {"width": arguments.width, "norm": "batch"}]
    return made


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, data="MNIST", updates=800, width=16, batch_size=32, dropout=0.2, only=list(PAPERS), seconds=0.0
    )
    p.add_argument("--rates", nargs="*", type=float, default=None, help="compare learning rates instead")
    arguments = p.parse_args()
    fid = playing.score_of(arguments.data)
    if arguments.rates is not None:
        games = {f"{t} {r:g}": game(t, r, arguments) for t in arguments.only for r in arguments.rates or [2e-4, 1e-3]}
    else:
        games = {t: game(t, PAPERS[t][1], arguments) for t in arguments.only}
    found = playing.sweep(games, arguments.seeds, arguments)
    lengths = [r["rows"][-1]["seconds"] for results in found.values() for r in results if not r["failed"]]
    seconds = arguments.seconds or math.floor(min(lengths))
    columns = {
        f"FID after {arguments.updates} G updates": lambda r: next(
            (row[fid] for row in r["rows"] if row["step"] == arguments.updates and fid in row), float("nan")
        ),
        f"FID after {seconds:.0f} s": lambda r: measures.at_time(r, fid, seconds),
        "FID, last": lambda r: measures.last(r, fid),
        "FID, best": lambda r: measures.best(r, fid),
        "G updates": lambda r: r["rows"][-1]["step"],
        "ms per G update": measures.milliseconds,
        "seconds": lambda r: r["rows"][-1]["seconds"],
    }
    tables = measures.table(found, columns, "technique")
    figure = figures.stack(
        figures.curves({arguments.data: found}, fid, "FID", log=True),
        figures.curves({arguments.data: found}, fid, "FID", log=True, x="seconds"),
        figures.samples(found),
    )
    protocol = [
        f"data: {arguments.data}; DCGAN networks of width {arguments.width}, batch {arguments.batch_size}; BatchNorm "
        f"in the discriminators of {' and '.join(BATCH_NORM)}, dropout of {arguments.dropout:g} in those of "
        f"{' and '.join(DROPOUT)}",
        f"learning rates: {', '.join(f'{t} {PAPERS[t][1]:g}' for t in arguments.only)}; by time: between two "
        "measurements, on the line of the logarithm",
        "each technique has the discriminator steps, betas, clipping and penalty weights of its paper's code",
        f"FID/{fid.rsplit('/', 1)[1]}: 2,000 samples of the EMA generator (0.99)",
        "seconds: of the processor, one thread, training steps alone",
    ]
    page.publish(arguments, "Convergence of the Lipschitz family", found, protocol, tables, figure)


if __name__ == "__main__":
    main()
