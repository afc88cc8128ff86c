"""What do samplers make of a trained GAN, and at what price?

    python -m experiments.samplers --out docs/results/samplers.md

The grid of 25 Gaussians: thresholding, rejection, Metropolis-Hastings, Langevin and collaborative sampling beside plain
samples, by the discriminator as training left it, trained further against the finished generator, or calibrated; with
several gammas, burn-ins and lengths of chains. A uniform proposal and a Gaussian target with the exact ratio, where
thresholding loses the tails. FID of the digits before and after, for each technique; ``--data MNIST`` is downloaded to
``$LIGHTNING_GANS_DATA``, and so is ``--data CIFAR10 --image_width 64 --image_updates 20000``, which is for a GPU.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Generator, Tensor

from experiments import figures, measures, page, playing
from lightning_gans import samplers
from lightning_gans.callbacks import GenerativeMetrics
from lightning_gans.compat.lightning import pl
from lightning_gans.gan import GANModule
from lightning_gans.metrics import mode_coverage
from lightning_gans.samplers import Calibrated, RejectionSampler, Thresholding, calibrate, keep_training
from lightning_gans.visualization.images import figure_image, new_figure

Method = Sequence[Any]  # the sampler's class, its options, and where its log ratio comes from
_FOUND: WeakKeyDictionary[GANModule, dict[str, Any]] = WeakKeyDictionary()


def ratio_of(module: GANModule, name: Any, real: Tensor, labels: Tensor | None, keep: int) -> Any:
    """The log ratio of a finished module by name, made once; ``keep`` are the updates at most."""
    found = _FOUND.setdefault(module, {})
    if name not in found:
        with torch.enable_grad():
            if name == "raw":
                found[name] = module.discriminator
            elif name in ("isotonic", "logistic"):
                found[name] = calibrate(module, real, labels, method=name)
            else:
                part: Any = "head" if name == "head" else "network"
                found[name] = keep_training(module, real, labels, part=part, steps=keep, lr=1e-3, progress=False)
    return found[name]


def built(method: Method, module: GANModule, ratio: Any, real: Tensor, labels: Tensor | None) -> samplers.Sampler:
    """The sampler of a method."""
    name, options, _ = method
    if name == "MetropolisHastings":
        options = options | {"real": real[:1000], "real_labels": None if labels is None else labels[:1000]}
    return getattr(samplers, name)(module, ratio, **options)  # type: ignore[no-any-return]


def items(data: Any, split: str, number: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Real samples as the discriminator takes them, and their labels."""
    batches = [batch if isinstance(batch, tuple) else (batch, None) for batch in data.fixed_loader(split)]
    real = torch.cat([batch[0] for batch in batches])[:number].to(device)
    labels = None if batches[0][1] is None else torch.cat([batch[1] for batch in batches])[:number].to(device)
    return real, labels


class Sampled(pl.Callback):
    """Samples a finished toy game by all methods; ``kept`` are the numbers of each, by name.

    ``modes``, ``high quality`` and ``reverse KL`` of `mode_coverage` within 4 standard deviations; ``deviation`` of the
    high-quality samples from their modes, in units of the data's; ``proposals`` per accepted sample; ``seconds``, those
    for the ratio left out, which are ``ratio seconds``.

    Args:
        methods: by name.
        num_samples: of each.
        num_real: fresh real samples for ratios and chains.
        keep: updates at most of a discriminator that is trained on.
        dearest: proposals per sample beyond which rejection is not tried.
    """

    def __init__(self, methods: dict[str, Method], num_samples: int, num_real: int, keep: int, dearest: float) -> None:
        self.methods, self.num_samples, self.num_real, self.keep = methods, num_samples, num_real, keep
        self.dearest = dearest
        self.kept: dict[str, dict[str, float]] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the ratios, then the samples."""
        module, data, n = pl_module, trainer.datamodule, self.num_samples  # type: ignore[attr-defined]
        assert isinstance(module, GANModule)
        real, labels = items(data, "test", self.num_real, module.device)
        took: dict[str, float] = {}
        begin = time.process_time()
        plain = torch.cat([module.sample(100, generator=Generator().manual_seed(i)) for i in range(max(1, n // 100))])
        seconds = time.process_time() - begin
        self.kept["the data"] = spread_of(data, data.sample_exact(n, Generator().manual_seed(2)))
        self.kept["plain"] = spread_of(data, plain.cpu()) | {"proposals": 1.0, "seconds": seconds}
        for name, method in self.methods.items():
            begin = time.process_time()
            ratio = ratio_of(module, method[2], real, labels, self.keep)
            took.setdefault(method[2], time.process_time() - begin)
            begin = time.process_time()
            sampler = built(method, module, ratio, real, labels)
            if isinstance(sampler, RejectionSampler):
                sampler.prepare()
                if sampler.expected < 1 / self.dearest:
                    self.kept[name] = {"proposals": 1 / sampler.expected, "acceptance": sampler.expected}
                    continue
            points = sampler.sample(n, progress=False).cpu()
            told = {"seconds": time.process_time() - begin, "ratio seconds": took[method[2]]}
            report, rejects = sampler.report, isinstance(sampler, RejectionSampler)
            told |= {"proposals": 1 / report.acceptance if rejects else report.cost, "acceptance": report.acceptance}
            if isinstance(ratio, Calibrated):
                told |= {"Z": ratio.z, "Z before": ratio.z_before}
            self.kept[name] = spread_of(data, points) | told


def spread_of(data: Any, points: Tensor) -> dict[str, float]:
    """How points lie about the modes of the data."""
    found = mode_coverage(points, data.modes, 4 * data.std)
    points = points[points.isfinite().all(1)].double()
    distance, nearest = torch.cdist(points, data.modes.double()).min(1)
    near = distance <= 4 * data.std
    off = (points - data.modes.double()[nearest])[near]
    deviation = float(off.square().mean().sqrt()) / data.std if len(off) else math.nan
    return {"modes": float(found.modes), "high quality": found.high_quality, "reverse KL": found.reverse_kl,
            "deviation": deviation}  # fmt: skip


class Scored(GenerativeMetrics):
    """FID of a method's samples at the end of a game of images: ``metrics/fid/<extractor>/<name>``.

    Args:
        name: of the method.
        method: the method.
        num_real: images for its ratio.
        keep: updates at most of a discriminator that is trained on.
        options: of `GenerativeMetrics`.
        split: of these images.
    """

    def __init__(
        self, name: str, method: Method, num_real: int, keep: int, options: dict[str, Any], split: str = "train"
    ) -> None:
        made = Make(name, method, num_real, keep, split)
        super().__init__(10**9, metrics=["fid"], at_start=False, sampler=made, **options)


@dataclass
class Make:
    """Makes a method's sampler of a finished module; the fields are those of `Scored`."""

    name: str
    method: Method
    num_real: int
    keep: int
    split: str

    def __call__(self, module: GANModule) -> samplers.Sampler:
        """With real images."""
        data = module.trainer.datamodule  # type: ignore[attr-defined]
        real, labels = items(data, self.split, self.num_real, module.device)
        ratio = ratio_of(module, self.method[2], real, labels, self.keep)
        return built(self.method, module, ratio, real, labels)


# ---------------------------------------------------------------------------------------------- games
def methods(arguments: Any) -> dict[str, Method]:
    """All that is tried on the grid, for a technique whose raw score is a logit."""
    steps, deep = arguments.chain, {"steps": arguments.langevin, "step_size": 0.001}
    made: dict[str, Method] = {
        "thresholding, best 20 %": ["Thresholding", {"keep": 0.2}, "trained on"],
        "rejection, D as it is": ["RejectionSampler", {}, "raw"],
        "rejection, D trained on": ["RejectionSampler", {}, "trained on"],
        "rejection, head on D": ["RejectionSampler", {}, "head"],
        "rejection, D calibrated": ["RejectionSampler", {}, "isotonic"],
        "rejection, calibrated by logistic": ["RejectionSampler", {}, "logistic"],
        "rejection, l_M and gamma by batch": ["RejectionSampler", {"running": True, "gamma": None}, "trained on"],
        f"chains of {steps}, D as it is": ["MetropolisHastings", {"steps": steps}, "raw"],
        f"chains of {steps}, D trained on": ["MetropolisHastings", {"steps": steps}, "trained on"],
        f"chains of {steps}, D calibrated": ["MetropolisHastings", {"steps": steps}, "isotonic"],
        f"chains of {steps}, calibrated by logistic": ["MetropolisHastings", {"steps": steps}, "logistic"],
        "Langevin, D trained on": ["LatentLangevin", deep, "trained on"],
        "Langevin, corrected": ["LatentLangevin", deep | {"adjusted": True}, "trained on"],
        "collaborative, D trained on": ["CollaborativeSampler", {"steps": 20, "step_size": 0.001}, "trained on"],
    }
    for gamma in arguments.gammas:
        made[f"gamma {gamma:g}"] = ["RejectionSampler", {"gamma": gamma}, "trained on"]
    for percentile in arguments.percentiles:
        made[f"percentile {percentile:g}"] = ["RejectionSampler", {"gamma": None, "percentile": percentile},
                                              "trained on"]  # fmt: skip
    for burn_in in arguments.burn_ins:
        made[f"burn-in {burn_in}"] = ["RejectionSampler", {"burn_in": burn_in}, "trained on"]
    for length in arguments.chains:
        made[f"chains of {length}"] = ["MetropolisHastings", {"steps": length}, "trained on"]
    return made


CRITIC = ("thresholding, best 20 %", "rejection, D trained on", "rejection, head on D", "rejection, D calibrated",
          "rejection, calibrated by logistic", "Langevin, D trained on", "collaborative, D trained on")  # fmt: skip


def grid_games(updates: int, arguments: Any) -> dict[str, playing.Game]:
    """The plain game, whose score is a logit, and a Wasserstein game, whose score is none."""
    tried = methods(arguments)
    rates = {"lr_g": arguments.rate, "lr_d": arguments.rate}
    plays = {
        "GAN": ("gan", {"loss": "non_saturating", **rates}, tried),
        "WGANGP": ("wgan_gp", {"gp_weight": 0.1, "betas": [0.5, 0.9], **rates}, {k: tried[k] for k in CRITIC}),
    }
    made = {}
    for name, (technique, options, some) in plays.items():
        watching = {"methods": some, "num_samples": arguments.samples, "num_real": arguments.real}
        made[name] = playing.toy_game(
            "Grid", updates, arguments.width, technique=technique, options=options, ema=None, decay=True,
            data_options={"spacing": 1.0, "scale": 1.0},
            watch=[["experiments.samplers.Sampled", watching | {"keep": arguments.keep, "dearest": arguments.dearest}]],
        )  # fmt: skip
    return made


FAST = {"lr_g": 1e-3, "lr_d": 1e-3}
# By name: the norm of the discriminator, and what else the game is. Mixtures, which take several rounds, are left out.
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "GAN": ("none", {"technique": "gan", "options": {"loss": "non_saturating", **FAST}}),
    "DCGAN": ("batch", {"technique": "dcgan", "options": FAST}),
    "SNGAN": ("none", {"technique": "sn_gan", "options": FAST}),
    "WGANGP": ("none", {"technique": "wgan_gp", "options": {**FAST, "betas": [0.5, 0.9]}}),
    "WGAN": ("batch", {"technique": "wgan", "options": {**FAST, "c": 0.01}}),
    "CTGAN": ("none", {"technique": "ct_gan", "options": {**FAST, "betas": [0.5, 0.9]}}),
    "WGANALP": ("none", {"technique": "wgan_alp", "options": FAST}),
    "SRNGAN": ("none", {"technique": "srn_gan", "options": FAST}),
    "PRCGAN": ("none", {"technique": "prc_gan", "options": {"lr_g": 2e-4, "lr_d": 1e-3, "lr_c": 2e-4}}),
    "UnrolledGAN": ("none", {"technique": "unrolled", "options": {**FAST, "unroll_steps": 1, "unroll_lr": 1e-3}}),
    "RobustWGAN": ("none", {"technique": "robust_wgan", "options": {**FAST, "betas": [0.5, 0.9], "w_every": 100}}),
    "PrimalDualGAN": ("none", {"technique": "primal_dual", "options": {**FAST, "saturating": False}}),
}


def image_methods(arguments: Any) -> dict[str, Method]:
    """All that is tried on images."""
    return {
        "thresholding": ["Thresholding", {"keep": 0.2}, "trained on"],
        "rejection, 80": ["RejectionSampler", {"gamma": None, "percentile": 80.0}, "trained on"],
        "rejection, 95": ["RejectionSampler", {"gamma": None, "percentile": 95.0}, "trained on"],
        "rejection, 80, head": ["RejectionSampler", {"gamma": None, "percentile": 80.0}, "head"],
        "chains": ["MetropolisHastings", {"steps": arguments.image_chain}, "isotonic"],
        "Langevin": ["LatentLangevin", {"steps": arguments.image_langevin, "step_size": 0.01}, "trained on"],
    }


def image_games(data: str, arguments: Any) -> dict[str, playing.Game]:
    """Each technique, its finished generator scored by all methods."""
    made = {}
    own = {} if data == "Digits" else {"split": "test"}  # where there are enough images that D was not trained on
    for name in arguments.techniques:
        norm, play = IMAGES[name]
        game = playing.image_game(data, arguments.image_updates, arguments.image_width, norm, **play)
        if name == "CTGAN":
            game["discriminator"][1]["dropout"] = 0.2
        if name == "PRCGAN":
            game["classifier"] = ["DCGANDiscriminator", {"width": arguments.image_width, "norm": "batch"}]
        watch = [
            ["experiments.samplers.Scored",
             {"name": k, "method": m, "num_real": arguments.image_real, "keep": arguments.image_keep,
              "options": game["score"], **own}]
            for k, m in image_methods(arguments).items()
        ]  # fmt: skip
        made[f"{data}: {name}"] = game | {"watch": watch}
    return made


# ---------------------------------------------------------------------------------------------- tails
def tails(seeds: Sequence[int], n: int) -> dict[str, Tensor]:
    """Draws of N(0, 1) by a uniform proposal on [-4, 4] with the exact ratio: (seeds, n) by method."""

    def uniform(k: int, generator: Generator) -> Tensor:
        return 8 * torch.rand(k, 1, generator=generator, dtype=torch.float64) - 4

    def ratio(x: Tensor) -> Tensor:
        return math.log(8 / math.sqrt(2 * math.pi)) - x[:, 0].square() / 2

    keep = math.sqrt(2 * math.pi) / 8  # as many proposals per sample as rejection needs
    made = {
        "rejection": RejectionSampler(uniform, ratio),
        "thresholding": Thresholding(uniform, ratio, keep=keep),
    }
    return {
        name: torch.stack([sampler.sample(n, seed=seed, progress=False)[:, 0] for seed in seeds])
        for name, sampler in made.items()
    }


def tail_table(drawn: Mapping[str, Tensor]) -> list[str]:
    """Shares beyond 1, 2 and 3, and the standard deviation."""
    rows = ["| method | beyond 1 | beyond 2 | beyond 3 | deviation |", "|---|---|---|---|---|"]
    exact = [math.erfc(t / math.sqrt(2)) for t in (1, 2, 3)]
    rows.append(f"| exact | {' | '.join(f'{p:.3g}' for p in exact)} | 1 |")
    for name, x in drawn.items():
        cells = [measures.spread((x.abs() > t).double().mean(1).tolist()) for t in (1, 2, 3)]
        rows.append(f"| {name} | {' | '.join(cells)} | {measures.spread(x.std(1).tolist())} |")
    return rows


# ---------------------------------------------------------------------------------------------- tables and figures
def number(name: str, what: str) -> Callable[[playing.Result], float]:
    """One number of a method in a grid game."""
    return lambda r: r["kept"]["Sampled"].get(name, {}).get(what, math.nan) if not r["failed"] else math.nan


COLUMNS = ("modes", "high quality", "deviation", "reverse KL", "proposals", "seconds")


def method_table(
    results: Sequence[playing.Result], names: Sequence[str], columns: Sequence[str] = COLUMNS
) -> list[str]:
    """A row per method, over seeds."""
    rows = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        rows.append(f"| {name} | {' | '.join(measures.spread(map(number(name, c), results)) for c in columns)} |")
    return rows


def image_table(found: Mapping[str, Sequence[playing.Result]], names: Sequence[str]) -> list[str]:
    """FID by technique and method."""
    columns: measures.Columns = {"plain": lambda r: measures.last(r, playing.score_of(r["game"]["data"]))}
    columns |= {name: partial(fid, method=name) for name in names}
    return measures.table(found, columns, "game")


def fid(result: playing.Result, method: str) -> float:
    """FID of a method's samples."""
    return measures.last(result, f"{playing.score_of(result['game']['data'])}/{method}")


def price(title: str, results: Sequence[playing.Result], groups: Mapping[str, Sequence[str]]) -> Image.Image:
    """High quality and divergence against proposals per sample, means over seeds; no point where one was not done."""
    figure = new_figure(10.6, 4.4)
    for axes, what in zip(figure.subplots(1, 2), ("high quality", "reverse KL")):
        for colour, (group, names) in zip(figures.COLOURS, groups.items()):
            points = []
            for name in names:
                pairs = [(number(name, "proposals")(r), number(name, what)(r)) for r in results]
                if not any(map(math.isnan, sum(pairs, ()))):
                    points.append([statistics.fmean(values) for values in zip(*pairs)])
            if points:
                axes.plot(*zip(*sorted(points)), "o-", color=colour, markersize=4, linewidth=1, label=group)
        axes.set_xscale("log")
        figures.tidy(axes, title, "proposals per sample", what)
        axes.legend(frameon=False, fontsize=7.5)
    return figure_image(figure)


def tail_figure(drawn: Mapping[str, Tensor]) -> Image.Image:
    """The densities of what was drawn, and the target's."""
    figure = new_figure(5.6, 3.6)
    axes = figure.subplots()
    for colour, (name, x) in zip(figures.COLOURS, drawn.items()):
        axes.hist(x.flatten().tolist(), 80, (-4, 4), density=True, color=colour, alpha=0.45, label=name)
    at = torch.linspace(-4, 4, 200)
    axes.plot(
        at.tolist(), ((-at.square() / 2).exp() / math.sqrt(2 * math.pi)).tolist(), color="#20242b", label="target"
    )
    figures.tidy(axes, "uniform proposal, exact ratio", "x", "density")
    axes.legend(frameon=False, fontsize=8)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, ("Digits", "MNIST", "CIFAR10"), data=["Digits"], techniques=list(IMAGES),
        updates=[3000, 20_000], width=64, rate=1e-3, samples=5_000,
        real=10_000, chain=100, chains=[10, 30, 300], langevin=200, gammas=[-4.0, -2.0, 2.0],
        percentiles=[50.0, 80.0, 95.0], burn_ins=[100, 1000], keep=4000, dearest=300.0,
        image_updates=400, image_width=16, image_real=1500, image_chain=100, image_langevin=50, image_keep=1000,
    )  # fmt: skip
    p.set_defaults(seeds=[1, 2, 3, 4, 5])
    arguments = p.parse_args()
    tables: list[str] = []
    grids: dict[str, list[playing.Result]] = {}
    tried = list(methods(arguments))
    main_methods, sensitivity = tried[:14], tried[14:]
    base = ["rejection, D trained on"]
    for updates in arguments.updates:
        grid = playing.sweep(grid_games(updates, arguments), arguments.seeds, arguments)
        titles = {name: f"Grid: {name}, {updates} updates" for name in grid}
        grids |= {titles[name]: results for name, results in grid.items()}
        plain = grid["GAN"]
        tables += ["", f"## {titles['GAN']}", "", *method_table(plain, ["the data", "plain", *main_methods])]
        tables += ["", f"## {titles['WGANGP']}", "", *method_table(grid["WGANGP"], ["plain", *CRITIC])]
        tables += ["", f"## {titles['GAN']}, D trained on: gamma, l_M and the length of chains", ""]
        tables += method_table(plain, [*base, *sensitivity], (*COLUMNS[:5], "acceptance"))
        for name, made in {"GAN": f"chains of {arguments.chain}", "WGANGP": "rejection"}.items():  # done in all seeds
            tables += ["", f"## {titles[name]}: calibration", ""]
            names = [f"{made}, D calibrated", f"{made}, calibrated by logistic"]
            tables += method_table(grid[name], names, ("Z before", "Z", "ratio seconds"))
    drawn = tails(arguments.seeds, arguments.samples)
    tables += ["", "## Tails", "", *tail_table(drawn)]
    found: dict[str, list[playing.Result]] = {}
    for data in arguments.data:
        found |= playing.sweep(image_games(data, arguments), arguments.seeds[:3], arguments)
    names = list(image_methods(arguments))
    tables += ["", "## FID", "", *image_table(found, names)]
    groups = {
        "plain": ["plain"],
        "thresholding": ["thresholding, best 20 %"],
        "rejection, fixed gamma": [*base, *(n for n in sensitivity if n.startswith("gamma"))],
        "rejection, percentile": [n for n in sensitivity if n.startswith("percentile")],
        "rejection, burn-in": [n for n in sensitivity if n.startswith("burn-in")],
        "rejection, D as it is": ["rejection, D as it is"],
        "chains": [n for n in tried if n.startswith("chains") and not n.endswith(("is", "calibrated", "logistic"))],
        "Langevin": ["Langevin, D trained on"],
    }
    panels = {
        name: {"plain": [measures.last(r, playing.score_of(r["game"]["data"])) for r in results]}
        | {method: [fid(r, method) for r in results] for method in names}
        for name, results in found.items()
    }
    in_rows = [dict(list(panels.items())[i : i + 4]) for i in range(0, len(panels), 4)]
    prices = [price(title, results, groups) for title, results in grids.items() if ": GAN," in title]
    pictures = [*prices, tail_figure(drawn), *(figures.bars(row, "FID") for row in in_rows)]
    a = arguments
    protocol = [
        f"grid: unit spacing, standard deviation 0.05; 3 x {a.width} units, batch 256, "
        f"Adam, {a.rate:g} for both, falling to 0; no EMA; {a.samples} samples of each method; rejection with "
        f"more than {a.dearest:g} proposals per sample was not done, and these proposals are told",
        "high quality: within 4 standard deviations of a mode; deviation: of these from their mode, in units of the "
        "data's",
        f"trained on, head: keep_training on {a.real} fresh real samples, a fifth of them held out, for at most "
        f"{a.keep} updates; calibrated: isotonic regression, or logistic, on one half of them, Z on the other",
        f"rejection with gamma 0 and a burn-in of 10,000 where nothing else is said; {a.langevin} Langevin steps of "
        "0.001; 20 collaborative steps of 0.001 on the samples themselves",
        "proposals: samples of G per accepted one, or moves per sample; seconds of processor time for all "
        "samples, ratio left out",
        "tails: a uniform proposal on [-4, 4], N(0, 1) as the target, exact ratio; thresholding keeps as large a share "
        "of the proposals as rejection",
        f"images: DCGAN nets of width {a.image_width}, {a.image_updates} generator updates, batch 32, EMA (0.99), "
        f"2,000 samples; ratios from {a.image_real} images, of MNIST those of the test set, of Digits those of the "
        f"training set, for at most {a.image_keep} updates; the first "
        f"three seeds; chains of {a.image_chain}; {a.image_langevin} Langevin steps of 0.01; 80, 95: gamma by "
        "percentile",
    ]
    page.publish(arguments, "Samplers", grids | found, protocol, tables, figures.stack(*pictures))


if __name__ == "__main__":
    main()
