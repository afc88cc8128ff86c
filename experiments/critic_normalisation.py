"""Which normalisation may a penalised critic have: none, layer, instance, group, weight; BatchNorm is refused.

    python -m experiments.critic_normalisation --out docs/results/critic-normalisation.md

MNIST is downloaded to ``$LIGHTNING_GANS_DATA``; ``--data Digits`` needs no files.
"""

from __future__ import annotations

from typing import Any

from experiments import figures, measures, page, playing
from experiments.one_or_two_sided import NORMS, quality

KINDS = ("none", "layer", "instance", "group", "weight", "batch")


def game(norm: str, arguments: Any) -> playing.Game:
    """WGAN-GP with one normalisation in its critic."""
    made = playing.image_game(
        arguments.data, arguments.updates, arguments.width, "none" if norm == "weight" else norm,
        technique="wgan_gp", options={"lr_g": arguments.rate, "lr_d": arguments.rate, "betas": [0.5, 0.9]},
        watch=[["GradientNorms", {"every_n_steps": 50, "per_layer": False}]],
    )  # fmt: skip
    if norm == "weight":
        made["wrap"] = [["weight_norm", {}]]
    return made


def refusal(norm: str, arguments: Any) -> str | None:
    """What is said of a critic with this normalisation before anything is trained, if it is refused."""
    try:
        playing.build(game(norm, arguments) | {"seed": 0})
    except ValueError as error:
        return str(error)
    return None


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, playing.IMAGES, data="MNIST", updates=800, width=16, rate=1e-3)
    arguments = p.parse_args()
    refused = {norm: said for norm in KINDS if (said := refusal(norm, arguments)) is not None}
    games = {norm: game(norm, arguments) for norm in KINDS if norm not in refused}
    found = playing.sweep(games, arguments.seeds, arguments)
    tables = measures.table(found, quality(arguments.data) | NORMS, "normalisation")
    tables += ["", *(f"{norm}: refused. *{said}*" for norm, said in refused.items())]
    figure = figures.stack(figures.curves({arguments.data: found}, playing.score_of(arguments.data), "FID", log=True),
                           figures.samples(found))  # fmt: skip
    protocol = [
        f"WGAN-GP on {arguments.data}, DCGAN networks of width {arguments.width}, batch 32; {arguments.updates} "
        f"generator updates of 5 critic updates; Adam({arguments.rate:g}; 0.5, 0.9), weight 10; EMA generator (0.99)",
        "FID/lenet: 2,000 samples against 10,000 training images; time: of the processor, one thread",
    ]
    page.publish(arguments, "Normalisation in a penalised critic", found, protocol, tables, figure)


if __name__ == "__main__":
    main()
