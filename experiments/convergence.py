"""Convergence: techniques of one game of images, at equal time, long enough to choose one by it.

    python -m experiments.convergence --hours 8

The unit is one game of a technique and a seed on narrow DCGAN networks: a third of the time for each of three learning
rates on a seed that is not reported, then the whole of it by the best one. Time is that of one thread's processor in
training steps, scores left out; a technique gets as many updates as fit into it by its first ones. Games are taken from
a queue, seed by seed; each that ends adds a line to the ``.jsonl`` beside ``--out``, of which the page is written anew,
and one that is broken off goes on from its last checkpoint. The data are looked for in ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.recipes import header
from experiments import figures, measures, page, playing
from lightning_gans import datamodules
from lightning_gans.runs.atomic import write_text
from lightning_gans.tools.score import score_samples
from lightning_gans.visualization.images import grid_image, save_image_atomic

Line = dict[str, Any]
# Of each technique the options of its paper, whether D has BatchNorm or dropout, and whether the rates fall to nothing.
WASSERSTEIN: dict[str, Any] = {"betas": [0.5, 0.9]}
PRC: dict[str, Any] = {"decay": True, "dropout": True, "slow": ["lr_g"]}  # what has a fifth of D's rate, as in its code
CLIPPED: dict[str, Any] = PRC | {"classifier": True, "slow": ["lr_g", "lr_c"]}
TECHNIQUES: dict[str, dict[str, Any]] = {
    "dcgan": {"norm": "batch"},
    "wgan_gp": {"options": WASSERSTEIN, "decay": True},
    "sn_gan": {"decay": True},
    "prc_gan": CLIPPED,
    "prc_gan_reweight": PRC | {"technique": "prc_gan", "options": {"ratio_clip": None}},  # without clipping
    "prc_gan_weighs": CLIPPED | {"technique": "experiments.late_clipping.Guarded", "options": {"through": False}},
    "r3_gan": {},
    "ct_gan": {"options": WASSERSTEIN, "decay": True, "dropout": True},
    "wgan": {"norm": "batch"},
    "srn_gan": {"decay": True},
    "wgan_alp": {"decay": True},
    "unrolled": {},
    "robust_wgan": {"options": WASSERSTEIN},
    "gan": {},
}
RATES = (2e-4, 6e-4, 2e-3)  # of D, and of G except for PRC-GAN
CHOOSING = 100  # the seed by which rates are chosen, which is not reported
SAME = ("data", "width", "batch_size", "num_fake")  # arguments that games of one table share
FIRST = 60  # updates by which the time of one is measured


def game(technique: str, rate: float, updates: int, seed: int, arguments: Any) -> playing.Game:
    """One game, whose ``seed`` is set."""
    own = TECHNIQUES[technique]
    rates = {"lr_d": rate, "lr_g": rate} | dict.fromkeys(own.get("slow", []), rate / 5)
    rates |= {"anneal_steps": max(1, 2 * updates // 3)} if technique == "r3_gan" else {}
    made = playing.image_game(
        arguments.data, updates, arguments.width, own.get("norm", "none"), arguments.batch_size, seed=seed,
        technique=own.get("technique", technique), options=own.get("options", {}) | rates,
        decay=own.get("decay", False), save_every=updates // 20 + 1,  # not at the end, which is still to be scored
    )  # fmt: skip
    made |= {"every": max(1, updates // 10), "log_every": max(1, updates // 50), "ema": 0.999}
    made["score"] |= {"metrics": ["fid", "kid", "prdc"], "num_fake": arguments.num_fake, "at_start": False}
    if own.get("dropout"):
        made["discriminator"][1]["dropout"] = 0.2
    if own.get("classifier"):
        made["classifier"] = ["DCGANDiscriminator", {"width": arguments.width, "norm": "batch"}]
    return made


def updates_in(technique: str, minutes: float, arguments: Any) -> int:
    """Updates that fit into the time, by a few first ones, of which those before the third are left out.

    A multiple of 30, so that a third of them, a tenth of these and the way back from a line are whole numbers: a game
    that goes on is scored at the updates at which it was to be.
    """
    tried = game(technique, RATES[0], FIRST, CHOOSING, arguments)
    tried |= {"every": FIRST + 1, "log_every": 2, "save_every": 0, "folder": str(Path(arguments.runs) / "first")}
    rows = playing.play(tried)["rows"]
    seconds, updates = rows[-1]["seconds"] - rows[0]["seconds"], rows[-1]["step"] - rows[0]["step"]
    found = int(60 * minutes / (seconds / updates))
    return max(30, found - found % 30)


def length(technique: str, lines: list[Line], arguments: Any) -> int:
    """Updates of a whole game: as those of the lines that are there, else measured, once, also for games broken off."""
    for line in lines:
        if line["technique"] == technique:
            return round(line["updates"] / line["minutes"] * arguments.minutes)
    name = f"convergence-{arguments.data}-{arguments.minutes:g}-{technique}-updates.json"
    measured = playing.once(
        Path(arguments.runs) / name, lambda: {"updates": updates_in(technique, arguments.minutes, arguments)}
    )
    return int(measured["updates"])


def queue(lines: list[Line], arguments: Any) -> Iterator[tuple[str, int, float]]:
    """(technique, seed, rate) of the games that are missing; ``lines`` grows meanwhile."""
    for seed in arguments.seeds:
        for technique in arguments.only:
            for rate in RATES:
                if not of(lines, technique, CHOOSING, rate):
                    yield technique, CHOOSING, rate
            rate = best_rate(lines, technique)
            if not of(lines, technique, seed, rate):
                yield technique, seed, rate


def of(lines: list[Line], technique: str, seed: int, rate: float) -> list[Line]:
    """The lines of one game."""
    return [n for n in lines if (n["technique"], n["seed"], n["rate"]) == (technique, seed, rate)]


def best_rate(lines: list[Line], technique: str) -> float:
    """The rate of the lowest FID at the end of a third of the time; one that failed comes last."""
    ends = {line["rate"]: score(line) for rate in RATES for line in of(lines, technique, CHOOSING, rate)}
    return min(ends, key=lambda rate: (math.isnan(ends[rate]), ends[rate]))


def score(line: Line, name: str = "fid") -> float:
    """The last value of a score, NaN if the game failed."""
    return measures.last(line, f"metrics/{name}/{line['extractor']}")


def check_same(lines: list[Line], arguments: Any, weights: str) -> None:
    """SystemExit for games of other data or length, or another judge, which would stand in one table with these."""
    kept = arguments.out.with_suffix(".jsonl")
    for line in lines:
        if line.get("extractor_weights") != weights:
            raise SystemExit(
                f"error: the games in {kept} were scored by another classifier than the one here ({weights}), whose "
                "scores have another scale: take another --out."
            )
        minutes = line["minutes"] * (3 if line["seed"] == CHOOSING else 1)
        for name, was in ({"minutes": round(minutes, 6)} | {name: line[name] for name in SAME}).items():
            if (got := getattr(arguments, name)) != was:
                raise SystemExit(
                    f"error: --{name} must be {was}, as of the games in {kept}, got {got}: or take another --out."
                )


def pictures(arguments: Any) -> Path:
    """The folder of sample rows, beside the page."""
    return Path(arguments.out.with_suffix(""))


def floor(arguments: Any) -> tuple[dict[str, float], str]:
    """The scores of as many test images as a generator makes, below which it is not asked to go; the judge's hash."""
    data = getattr(datamodules, arguments.data)(**({} if arguments.data == "Digits" else {"download": False}))
    data.prepare_data()
    data.setup("test")
    images = data.reference("test")[0][: arguments.num_fake]
    extractor: Any = playing.score_of(arguments.data).rsplit("/", 1)[1]
    real = None if arguments.data == "Digits" else 10_000
    found = score_samples(images, data, extractor, ["fid", "kid", "prdc"], num_real=real)
    return {key.partition("/")[0]: value for key, value in found["scores"].items()}, found["protocol"][
        "extractor_weights"
    ]


def ranked(played: dict[str, list[Line]]) -> dict[str, str]:
    """Techniques by their mean last FID, with their rank; one within the spread of the one before shares its rank."""
    means = {t: statistics.fmean(map(score, found)) for t, found in played.items()}
    spreads = {  # of one that failed there is none, and `stdev` takes no NaN
        t: 0.0 if math.isnan(means[t]) or len(found) < 2 else statistics.stdev(map(score, found))
        for t, found in played.items()
    }
    order = sorted(played, key=lambda t: (math.isnan(means[t]), means[t]))
    ranks: dict[str, str] = {}
    for i, technique in enumerate(order):
        before = order[i - 1] if i else technique
        tied = means[technique] - means[before] <= max(spreads[technique], spreads[before])
        ranks[technique] = ranks[before] if i and tied else str(i + 1)
    return ranks


def write_page(lines: list[Line], arguments: Any, real: dict[str, float]) -> None:
    """The table of the lines that are there, sorted by their last FID, and how many are missing."""
    played = {t: [n for n in lines if n["technique"] == t and n["seed"] in arguments.seeds] for t in arguments.only}
    played = {t: found for t, found in played.items() if found}
    if not played:
        return
    ranks = ranked(played)
    played = {f"{ranks[t]}. {t}" + (f", {n} of {len(arguments.seeds)} seeds" if (n := len(played[t])) <
              len(arguments.seeds) else ""): played[t] for t in ranks}  # fmt: skip
    missing = len(arguments.only) * len(arguments.seeds) - sum(map(len, played.values()))
    extractor = lines[0]["extractor"]
    name = f"metrics/fid/{extractor}"
    columns: measures.Columns = {
        f"FID/{extractor}, last": score,
        "best": lambda line: measures.best(line, name),
        "KID": lambda line: score(line, "kid"),
        "precision": lambda line: score(line, "precision"),
        "recall": lambda line: score(line, "recall"),
        "G updates": lambda line: line["updates"],
        "rate": lambda line: line["rate"],
    }
    tables = measures.table(played, columns, "technique")
    tables += [
        "",
        f"Test images against training images: FID {real['fid']:.3g}, KID {real['kid']:.2g}, precision "
        f"{real['precision']:.2g}, recall {real['recall']:.2g}.",
        *("", "## Learning rates", "", f"FID/{extractor} after a third of the time, seed {CHOOSING}.", ""),
        f"| technique | {' | '.join(f'{rate:g}' for rate in RATES)} |",
        "|---" * (1 + len(RATES)) + "|",
    ]
    for t in ranks:
        cells = [measures.spread(map(score, of(lines, t, CHOOSING, rate))) for rate in RATES]
        tables.append(f"| {t} | {' | '.join(cells)} |")
    tables += ["", f"## Samples, seed {arguments.seeds[0]}", ""]
    for t in ranks:
        tables += [f"{t}: ![samples of {t}]({pictures(arguments).name}/{t}-{arguments.seeds[0]}.png)", ""]
    own = {
        key: " and ".join(t for t in arguments.only if key in TECHNIQUES[t]) or "none"
        for key in ("norm", "dropout", "decay")
    }
    protocol = [
        f"{missing} of {len(arguments.only) * len(arguments.seeds)} games are missing",
        f"data: {arguments.data}; DCGAN networks of width {arguments.width}, batch {arguments.batch_size}, EMA 0.999; "
        f"BatchNorm in D of {own['norm']}, dropout of 0.2 in D of {own['dropout']}; rates that fall to nothing: "
        f"{own['decay']}",
        f"{arguments.minutes:g} minutes of one thread's processor time per game, in training steps; as many updates as "
        f"fit into it by the first {FIRST}",
        f"scores of {arguments.num_fake:,} samples against 10,000 training images, by the {extractor} of weights "
        f"{lines[0]['extractor_weights']}; ranked by the mean last "
        "FID; a row that differs from the one above by no more than the larger of the two deviations shares its rank",
    ]
    curves = {arguments.data: played}
    figure = figures.stack(
        figures.curves(curves, name, "FID", log=True), figures.curves(curves, name, "FID", log=True, x="seconds")
    )
    page.publish(arguments, f"{arguments.data}, {arguments.minutes:g} minutes", played, protocol, tables, figure)


def main() -> None:
    """Play until the hours are over or nothing is missing; write the page."""
    p = page.parser(
        __doc__, playing.IMAGES, data="MNIST", minutes=15.0, hours=8.0, width=16, batch_size=32, num_fake=5000
    )
    p.add_argument("--only", nargs="+", default=list(TECHNIQUES), choices=list(TECHNIQUES))
    p.set_defaults(out=Path("runs/mnist.md"), jobs=1)
    arguments = p.parse_args()
    kept = arguments.out.with_suffix(".jsonl")
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    real, weights = floor(arguments)
    check_same(lines, arguments, weights)
    end = time.monotonic() + 3600 * arguments.hours
    for technique, seed, rate in tqdm(queue(lines, arguments), desc="games", unit="game"):
        if time.monotonic() > end:
            break
        share = arguments.minutes / (3 if seed == CHOOSING else 1)
        updates = length(technique, lines, arguments) // (3 if seed == CHOOSING else 1)
        made = game(technique, rate, updates, seed, arguments)
        name = f"convergence-{arguments.data}-{arguments.minutes:g}-{technique}-{rate:g}-{seed}"
        folder = Path(arguments.runs) / name
        result = playing.play(made | {"folder": str(folder)})
        told = header("")
        lines.append({
            "technique": technique, "seed": seed, "rate": rate, "minutes": share,
            **{name: getattr(arguments, name) for name in SAME}, "updates": made["updates"],
            "extractor": playing.score_of(arguments.data).rsplit("/", 1)[1], "extractor_weights": weights,
            "commit": told[1].removeprefix("- commit: "), "date": told[2].removeprefix("- date: "),
            "hardware": told[3].removeprefix("- hardware: "), "failed": result["failed"],
            "rows": [{k: float(f"{v:.5g}") for k, v in row.items() if k.startswith(("step", "seconds", "metrics/"))}
                     for row in result["rows"] if any(k.startswith("metrics/") for k in row)],
        })  # fmt: skip
        if seed == arguments.seeds[0]:
            samples = grid_image(torch.tensor(result["sample"][:20]).nan_to_num(), 20, cell=40)
            save_image_atomic(samples, pictures(arguments) / f"{technique}-{seed}.png")
        write_text(kept, "".join(json.dumps(line) + "\n" for line in lines))
        shutil.rmtree(folder, ignore_errors=True)
        write_page(lines, arguments, real)
    write_page(lines, arguments, real)


if __name__ == "__main__":
    main()
