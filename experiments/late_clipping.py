"""Does ratio clipping help late? PRC-GAN's switches, all from the same trained WGAN-GP.

    python -m experiments.late_clipping --out docs/results/late-clipping.md

A WGAN-GP is trained once per seed; from its weights the game goes on without either switch, with reweighting, with
clipping, with both, and with both under the suspects: centred scores, the paper's surrogate, a smaller eps, a better
classifier, a faster generator, and a ratio that a classifier too sure of itself cannot break, each a departure from the
paper. MNIST is downloaded to ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from experiments import figures, measures, page, playing
from experiments.one_or_two_sided import quality
from experiments.reweight_and_clip import SWITCHES
from lightning_gans import PRCGAN
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.functional import prc


class Guarded(PRCGAN):
    """PRC-GAN whose ratio a sure classifier cannot break.

    Args:
        limit: largest |log r|; beyond, r has no gradient.
        surest: G's step has no ratio while C tells more than this share of the last fakes and reals right.
        through: whether G's gradient flows through r, or through the reward alone.
    """

    def __init__(
        self, *args: Any, limit: float = prc.LOG_RATIO_LIMIT, surest: float = 1.0, through: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.limit, self.surest, self.through = limit, surest, through

    def before_generator_step(self, batches: Sequence[Batch]) -> None:
        """C's accuracy too."""
        super().before_generator_step(batches)
        if self.surest >= 1:
            return
        with torch.no_grad():
            real, fake = cast(Batch, self.last_batch).real, cast(Tensor, self.last_fake)
            right = torch.cat([self.classifier(real) > 0, self.classifier(fake) <= 0])
        self.kept["sure"] = right.float().mean() > self.surest

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        """-E w f(G(z))."""
        ratio = prc.log_ratio(self.classifier(fake), self.kept["logits"], self.limit).exp()
        ratio = ratio if self.through else ratio.detach()
        if (sure := self.kept.get("sure")) is not None:
            ratio = torch.where(sure, torch.ones_like(ratio), ratio)
        weights = prc.surrogate_weights(ratio, None, cast(float, self.ratio_clip))
        self.tell(lambda: prc.ratio_summary(ratio, weights))
        return {"adversarial": self.loss.generator(self.score(fake, batch), None, weights)}


BOTH = SWITCHES["both"]
VARIANTS: dict[str, dict[str, Any]] = {
    **SWITCHES,
    "both, centred scores": BOTH | {"center_scores": True},
    "both, the paper's surrogate": BOTH | {"surrogate": "paper"},
    "both, eps 0.2": BOTH | {"ratio_clip": 0.2},
    "both, eps 0.1": BOTH | {"ratio_clip": 0.1},
    "both, 5 steps of C": BOTH | {"c_steps": 5},
    "both, C as fast as D": BOTH | {"fast": "lr_c"},
    "both, C a tenth as fast": BOTH | {"slow": "lr_c"},
    "both, log r within log(1 + eps)": BOTH | {"limit": math.log(1.4)},
    "both, no gradient through r": BOTH | {"through": False},
    "both, no ratio while C is right in 0.7": BOTH | {"surest": 0.7},
    "none, G as fast as D": SWITCHES["none"] | {"fast": "lr_g"},
    "both, G as fast as D": BOTH | {"fast": "lr_g"},
}


def games(data: str, arguments: Any) -> dict[str, playing.Game]:
    """The start, and what goes on from it."""
    toy = data in playing.TOYS
    base: dict[str, Any] = {"gp_weight": 0.1 if toy else 5.0, "betas": [0.5, 0.9] if toy else [0.0, 0.9]}
    longer, guards = 2 if data == "Grid" else 1, {"limit", "surest", "through"}
    made = playing.toy_game if toy else playing.image_game
    start = made(
        data, longer * arguments.start_updates, technique="wgan_gp",
        options=base | {"d_steps": 5, "lr_d": arguments.rate, "lr_g": arguments.rate},
    )  # fmt: skip
    start |= {} if toy else {"save_every": arguments.start_updates}  # as it is long, played once
    found: dict[str, playing.Game] = {"the start": start}
    for name in arguments.only:
        switches = VARIANTS[name]
        rates = {"lr_d": arguments.rate, "lr_g": arguments.rate / 5, "lr_c": arguments.rate / 5}
        options = {key: value for key, value in switches.items() if key not in ("fast", "slow")}
        rates |= {switches["fast"]: arguments.rate} if "fast" in switches else {}
        rates |= {switches["slow"]: arguments.rate / 50} if "slow" in switches else {}
        technique = "experiments.late_clipping.Guarded" if guards & {*options} else "prc_gan"
        found[name] = made(
            data, longer * arguments.updates, technique=technique, start=start,
            options=base | rates | options | {"d_steps": 5, "g_steps": 5, "ct_weight": 0.0},
        ) | {"ema": 0.998}  # fmt: skip
        if switches["ratio_clip"]:
            kind, shared = found[name]["discriminator"]
            found[name]["classifier"] = [kind, shared if toy else shared | {"norm": "batch"}]
    return found


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, (*playing.TOYS, *playing.IMAGES), data=["Ring", "Grid"], updates=2000, start_updates=1500, rate=1e-3
    )
    p.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT")
    arguments = p.parse_args()
    tables: list[str] = []
    panels: dict[str, dict[str, list[playing.Result]]] = {}
    for data in arguments.data:
        panels[data] = found = playing.sweep(games(data, arguments), arguments.seeds, arguments)
        columns = quality(data) | {
            "accuracy of C": lambda r: measures.late_mean(r, "c/accuracy"),
            "clipped": lambda r: measures.late_mean(r, "g/clipped"),
            "ms per update": measures.milliseconds,
        }
        tables += ["", f"## {data}", "", *measures.table(found, columns, "goes on with")]
    scores = {data: playing.score_of(data) for data in arguments.data}
    drawn = SWITCHES if len(arguments.only) == len(VARIANTS) else arguments.only  # not all of so many
    shown = {data: {name: lines[name] for name in drawn} for data, lines in panels.items()}
    seen = {"high quality" if data in playing.TOYS else "FID" for data in arguments.data}
    figure = figures.stack(
        figures.curves(shown, scores, " or ".join(sorted(seen))), figures.curves(shown, scores, "", x="seconds")
    )
    results = {f"{data}: {name}": found for data, lines in panels.items() for name, found in lines.items()}
    protocol = [
        f"start: WGAN-GP after {arguments.start_updates} generator updates of 5 critic updates, twice as many on the "
        f"grid; rates {arguments.rate:g}",
        f"then {arguments.updates} generator updates (twice as many on the grid) and as many of the critic, in cycles "
        f"of 5 + 5; critic {arguments.rate:g}, G and C a fifth of it but where said; new optimizers, a new C",
        "toys: 3 x 128 units, batch 256, gradient penalty 0.1; eps 0.4, temperature 1, the surrogate of the code and 1 "
        "step of C but where said; EMA generator (0.998; of the start 0.99)",
    ]
    page.publish(arguments, "Clipping late in a game", results, protocol, tables, figure)


if __name__ == "__main__":
    main()
