"""Text GANs on SeqGAN's set-up, an oracle that wrote the text and judges it: every system as a curve, not a number.

    python -m experiments.oracle --out docs/results/oracle.md

An LSTM with random weights, the oracle, writes the training text. A language model learns it by maximum likelihood;
from there, the same start for all games of a seed, go on: maximum likelihood itself, RelGAN, PRC-GAN with each setting
of its two switches (with neither it is WGAN-GP; both ends also with RelGAN's inverse temperature), SeqGAN, and SeqGAN's
controls, whose rewards are a constant or those of other texts. SeqGAN's discriminator has learnt before, in a game in
which the generator stayed. LeakGAN, whose generator is another, has a start of its own and is slow: ``--leak 100``
plays so many updates of it. Of each the last and the best generator are sampled at ten temperatures, which makes two
curves in the plane of NLL_oracle (is what it writes likely?) and held-out NLL_gen (does it write all that is?).
"""

from __future__ import annotations

import argparse
import math
import statistics
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from experiments import figures, measures, page, playing
from experiments.reweight_and_clip import SWITCHES
from lightning_gans import MLE
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import OracleText
from lightning_gans.functional.modes import copied, evaluating
from lightning_gans.metrics import distinct
from lightning_gans.networks import LeakGANGenerator, SeqGANDiscriminator
from lightning_gans.tools.text import TEMPERATURES
from lightning_gans.visualization.images import figure_image, new_figure

Point = dict[str, float]


def language_model(generator: Any, discriminator: nn.Module, latent_dim: int, **options: Any) -> MLE:
    """Maximum likelihood, as a game whose discriminator is none, or one that waits for the next game."""
    model = MLE(generator, **options)
    if list(discriminator.parameters()):
        model.discriminator = discriminator.requires_grad_(False)
    return model


def leaky(shape: tuple[int, int], critic: dict[str, Any], **size: int) -> LeakGANGenerator:
    """LeakGAN's generator, which reads a discriminator of these sizes."""
    return LeakGANGenerator(SeqGANDiscriminator(shape, **critic), shape, **size)


def point(net: Any, data: Any, held_out: Tensor, samples: int, seed: int, temperature: float) -> Point:
    """Where a language model lies in the plane at a temperature, in nats a token."""
    z = torch.randn(samples, getattr(net, "latent_dim", net.length), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad(), evaluating(net):
        tokens = torch.cat([net.generate(part, temperature) for part in z.split(250)])
        return {
            "temperature": temperature,
            "nll_oracle": float(data.oracle.nll(tokens).mean()),
            "nll_gen": float(net.nll(held_out, temperature).mean()),
            "distinct-2": distinct(tokens, 2, data.shape[1]),
        }


class Curves(pl.Callback):
    """Measures at temperature 1 while a game is played, and both curves when it is over.

    The best is that with the lowest NLL_oracle + NLL_gen after the first update, by texts and held-out ones that the
    curves do not see.

    Args:
        every: updates between measurements.
        samples: texts that are measured; the curves are of as many others.
        temperatures: of the curves.
    """

    def __init__(self, every: int, samples: int, temperatures: list[float]) -> None:
        self.every, self.samples, self.temperatures = every, samples, temperatures
        self.lowest, self.best_step, self.best, self.kept = math.inf, 0, dict[str, Tensor](), dict[str, Any]()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"lowest": self.lowest, "best_step": self.best_step, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of one."""
        vars(self).update(state_dict)

    def measure(self, trainer: Any, module: Any) -> None:
        """Log where the generator is; keep its weights if it never was better."""
        held_out = trainer.datamodule.reference("test")[0]
        found = point(module.generator, trainer.datamodule, held_out[: len(held_out) // 2], self.samples, 1, 1.0)
        trainer.logger.log_metrics({f"curve/{k}": v for k, v in found.items()}, module.global_step)
        if module.global_step and found["nll_oracle"] + found["nll_gen"] < self.lowest:
            self.lowest, self.best_step = found["nll_oracle"] + found["nll_gen"], module.global_step
            self.best = {name: value.clone() for name, value in module.generator.state_dict().items()}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The start."""
        if not pl_module.global_step:
            self.measure(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Now and then."""
        if pl_module.global_step % self.every == 0:
            self.measure(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The curves."""
        data, net = trainer.datamodule, copied(pl_module.generator)
        held_out = data.reference("test")[0]
        held_out = held_out[len(held_out) // 2 :]
        for name, weights in (("last", pl_module.generator.state_dict()), ("best", self.best)):
            net.load_state_dict(weights)
            self.kept[name] = [point(net, data, held_out, self.samples, 2, t) for t in self.temperatures]
        self.kept["best_step"] = self.best_step


def games(a: argparse.Namespace) -> dict[str, playing.Game]:
    """By name; all but the first begin where that ends."""
    watch = [["experiments.oracle.Curves",
              {"every": max(1, a.updates // 10), "samples": a.samples, "temperatures": a.temperatures}]]  # fmt: skip
    size = {"embedding": 32, "hidden": 32}
    common = {
        "data": "OracleText", "batch_size": 64, "score": None, "log_every": max(1, a.updates // 10), "watch": watch,
        "data_options": {"vocabulary_size": a.vocabulary, "length": a.length, "items": a.items, "one_hot": False},
        "save_every": max(1, a.updates // 4),
    }  # fmt: skip
    model = {
        **common, "technique": "experiments.oracle.language_model", "latent_dim": a.length,
        "generator": ["LanguageModel", size], "discriminator": ["torch.nn.Identity", {}],
    }  # fmt: skip
    start = {**model, "updates": a.mle, "options": {"lr_mle": 1e-2},
             "watch": [[watch[0][0], {**watch[0][1], "every": a.mle}]]}  # fmt: skip
    critic = {"embedding": 32, "kernels": [2, 3], "filters": a.filters}
    seq = {
        **common, "technique": "seq_gan", "latent_dim": a.length, "generator": ["LanguageModel", size],
        "discriminator": ["SeqGANDiscriminator", critic], "updates": a.updates,
    }  # fmt: skip
    own = {"rollouts": a.rollouts, "d_steps": a.d_steps, "lr_g": a.rate, "lr_d": 3e-3, "l2_weight": 0.02}
    before = {**seq, "start": start, "updates": a.before, "watch": [],
              "options": {**own, "lr_g": 0.0, "reward": "constant"}}  # fmt: skip
    rel = {
        **common, "technique": "rel_gan", "latent_dim": a.length * a.vocabulary, "updates": a.updates, "start": start,
        "data_options": {**common["data_options"], "one_hot": True},
        "generator": ["LSTMGenerator", {**size, "beta": [1.0, 100.0], "schedule_steps": a.updates}],
        "discriminator": ["RelGANDiscriminator",
                          {"embedding": 32, "representations": 8, "filters": a.filters // 4, "kernels": [2, 3, 4]}],
        "options": {"lr_g": a.rel_rate, "lr_d": a.rel_rate},
    }  # fmt: skip
    rates = {f"lr_{player}": a.rel_rate for player in "gdc"} | {f"clip_grad_{player}": 5.0 for player in "gdc"}
    fixed = {"ct_weight": 0.0, "gp_weight": 5.0, "g_steps": 1, "d_steps": 5, "betas": [0.5, 0.9]}
    cool = {**rel, "generator": ["LSTMGenerator", {**rel["generator"][1], "beta": [0.2, 1.0]}], "technique": "prc_gan"}
    ratio = {
        "WGAN-GP" if name == "none" else f"PRC-GAN, {name}": {
            **cool, "options": {**switches, **rates, **fixed},
            **({"classifier": rel["discriminator"]} if switches["ratio_clip"] else {}),
        }
        for name, switches in SWITCHES.items()
    }  # fmt: skip
    sharp = {f"{name}, sharp": {**ratio[name], "generator": rel["generator"]} for name in ("WGAN-GP", "PRC-GAN, both")}
    leak = {
        "generator": ["experiments.oracle.leaky", {"critic": critic, **size}],
        "discriminator": seq["discriminator"],
    }
    d_alone = {**before, **leak, "technique": "leak_gan", "start": {**start, **leak, "watch": []}}
    read = {**start, **leak, "start": d_alone}
    leaking = {
        "LeakGAN, the start": read,
        "LeakGAN": {**seq, **leak, "technique": "leak_gan", "start": read, "updates": a.leak,
                    "options": {"rollouts": a.rollouts, "d_steps": a.d_steps, "lr_d": 1e-3, "baseline": "batch"}},
    }  # fmt: skip
    longer = {**model, "start": start, "updates": a.updates, "options": {"lr_mle": 1e-2}}
    return {
        "maximum likelihood, the start": start,
        "maximum likelihood, gone on with": longer,
        "RelGAN": rel,
        **ratio,
        **sharp,
        "SeqGAN": {**seq, "start": before, "options": own},
        "SeqGAN, baseline": {**seq, "start": before, "options": {**own, "baseline": "batch"}},
        "control: permuted reward": {**seq, "start": before, "options": {**own, "reward": "permuted"}},
        "control: constant reward": {**seq, "start": before, "options": {**own, "reward": "constant"}},
        **(leaking if a.leak else {}),
    }  # fmt: skip


def at_one(which: str, name: str) -> Any:
    """A number of a curve where the temperature is 1."""
    return lambda result: next(p[name] for p in result["kept"]["Curves"][which] if p["temperature"] == 1)


def own_start(result: playing.Result) -> tuple[int, bool]:
    """With which start a system is compared: of its seed, and of its kind of generator."""
    return result["game"]["seed"], "leaky" in result["game"]["generator"][0]


def above(which: str, starts: dict[Any, list[Point]], x: str = "nll_oracle", y: str = "nll_gen") -> Any:
    """How much higher a curve lies than that of its start: y at equal x, mean over points."""

    def found(result: playing.Result) -> float:
        gaps: list[float] = []
        for p in result["kept"]["Curves"][which]:
            for pair in pairwise(starts[own_start(result)]):
                a, b = sorted(pair, key=lambda point: point[x])
                if a[x] <= p[x] <= b[x] and a[x] < b[x]:
                    gaps.append(p[y] - a[y] - (p[x] - a[x]) / (b[x] - a[x]) * (b[y] - a[y]))
                    break
        return statistics.fmean(gaps) if gaps else math.nan

    return found


def prc_told(a: argparse.Namespace) -> str:
    """The line of the protocol on WGAN-GP and PRC-GAN."""
    return (
        "WGAN-GP and PRC-GAN: RelGAN's networks, C as D, 5 updates of D (penalty 5) per update of G, Adam "
        f"{a.rel_rate:g} for all, clipped at 5, eps 0.4, inverse temperature 0.2 to 1, as in PRC-GAN's code"
    )


def leak_told(a: argparse.Namespace) -> str:
    """The line of the protocol on LeakGAN."""
    return (
        f"LeakGAN: manager and worker of LSTM 32/32; {a.mle} updates by maximum likelihood, D alone as for SeqGAN, "
        f"as many by maximum likelihood again, which is its start, then {a.leak} updates, Adam 1.5e-3, D by Adam "
        "1e-3, baseline of the batch, maximum likelihood in each (mle_weight 1)"
    )


def planes(found: dict[str, list[playing.Result]], truth: float) -> Image.Image:
    """Both curves of each system, mean over seeds, and the point of the truth."""
    figure = new_figure(11.0, 4.8)
    for axes, which in zip(figure.subplots(1, 2), ("last", "best")):
        for i, (name, results) in enumerate(found.items()):
            again, k = divmod(i, len(figures.COLOURS))  # more systems than colours: dashed
            colour = figures.COLOURS[::-1][k]
            curves = [r["kept"]["Curves"][which] for r in results]
            x, y = ([statistics.fmean(p[k] for p in at) for at in zip(*curves)] for k in ("nll_gen", "nll_oracle"))
            wide = 2.4 if name.endswith("the start") else 1.2
            axes.plot(x, y, "--o" if again else "-o", color=colour, markersize=3, linewidth=wide, label=name)
        axes.plot([truth], [truth], "*", color="black", markersize=11, label="the truth")
        figures.tidy(axes, f"{which} generator, temperature .4 (below) to 1.3", "held-out NLL_gen, nats a token",
                     "NLL_oracle, nats a token" if which == "last" else "")  # fmt: skip
    axes.legend(frameon=False, fontsize=7.5)
    return figure_image(figure)


def main() -> None:
    """Play, print, write."""
    p = page.parser(
        __doc__, updates=150, mle=624, before=80, vocabulary=100, length=20, items=10_000, samples=1000, filters=64,
        rollouts=4, d_steps=10, rate=3e-3, rel_rate=1e-3, leak=0, temperatures=list(TEMPERATURES),
    )  # fmt: skip
    arguments = p.parse_args()
    found = playing.sweep(games(arguments), arguments.seeds, arguments)
    data = OracleText(arguments.vocabulary, arguments.length, arguments.items)
    held_out = data.reference("test")[0]
    with torch.no_grad():
        truth = float(data.oracle.nll(held_out[len(held_out) // 2 :]).mean())
    starts = {own_start(r): r["kept"]["Curves"]["last"]
              for name, results in found.items() if name.endswith("the start") for r in results}  # fmt: skip
    columns: measures.Columns = {
        "NLL_oracle, last": at_one("last", "nll_oracle"),
        "NLL_gen, last": at_one("last", "nll_gen"),
        "above the start, last": above("last", starts),
        "NLL_oracle, best": at_one("best", "nll_oracle"),
        "NLL_gen, best": at_one("best", "nll_gen"),
        "above the start, best": above("best", starts),
        "best at update": lambda r: float(r["kept"]["Curves"]["best_step"]),
        "ms per update": measures.milliseconds,
    }
    cold = {f"{name}, temperature {t:g}": [
                next(q for q in r["kept"]["Curves"]["last"] if q["temperature"] == t) for r in results]
            for name, results in list(found.items())[:1] for t in arguments.temperatures}  # fmt: skip
    names = ("nll_oracle", "nll_gen", "distinct-2")
    rows = [f"| {name} | {' | '.join(measures.spread(q[k] for q in at) for k in names)} |" for name, at in cold.items()]
    pairs = distinct(held_out, 2, arguments.vocabulary)
    tables = [
        "", *measures.table(found, columns, "system"), "",
        f"The truth: NLL_oracle = NLL_gen = {truth:.3f}, distinct pairs {pairs:.3g} (of {len(held_out):,} texts).", "",
        "| one language model | NLL_oracle | NLL_gen | distinct pairs |", "|---|---|---|---|", *rows,
    ]  # fmt: skip
    a = arguments
    protocol = [
        f"the oracle: LSTM 32/32 with N(0, 1) weights, seed 0, {a.vocabulary} symbols, texts of {a.length}; "
        f"{a.items:,} to train on, {a.items // 10:,} held out, of which the first half chooses the best generator and "
        "the other is what NLL_gen is of; small networks all through: the literature has 5,000 symbols",
        f"the start: LSTM 32/32, {a.mle} updates by maximum likelihood (batch 64, Adam 1e-2, clipped at 5), the same "
        f"for all systems of a seed; from there {a.updates} generator updates each",
        f"SeqGAN: {a.rollouts} rollouts, {a.d_steps} updates of D (2 x {a.filters} filters, Adam 3e-3, l2 0.02) per "
        f"update of G (Adam {a.rate:g}, clipped at 5), rollout policy 0.8 old + 0.2 new; before that D alone for "
        f"{a.before * a.d_steps} updates (the code: 46,800, and 4,680 per update of G); no baseline but where said",
        f"RelGAN: an LSTM as its generator, 5 updates of D (8 representations, 3 x {a.filters // 4} filters) per "
        f"update of G, Adam {a.rel_rate:g} for both, inverse temperature 1 to 100",
        f"{prc_told(a)}; sharp: RelGAN's, 1 to 100",
        f"scores: {a.samples:,} texts at each temperature, the same noise at all; NLL in nats a token; at temperature "
        "1 where none is told; NLL_gen at a temperature is of p^(1/temperature)",
        *([leak_told(a)] if a.leak else []),
        "best: the lowest NLL_oracle + NLL_gen at temperature 1 of the 10 measurements after the first update, by "
        "other texts and the other half of the held-out part",
        "above the start: NLL_gen of a curve's points minus that of the start's curve at equal NLL_oracle, on the line "
        "between two temperatures, mean over the points that it reaches; below 0 is better than a temperature",
    ]  # fmt: skip
    page.publish(arguments, "Text GANs and their oracle", found, protocol, tables, planes(found, truth))


if __name__ == "__main__":
    main()
