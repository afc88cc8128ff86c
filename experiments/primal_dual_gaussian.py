"""Why does the primal-dual GAN learn the wrong law on a narrow Gaussian, N(1, 1e-3)?

    python -m experiments.primal_dual_gaussian --out docs/results/primal-dual-gaussian.md

First what can be computed: the drift of a generator m + s z against the discriminator that is best for it, by
quadrature, beside closed forms of it. Then what is learned, with the 1-32-1 nets of the study, as one thing after
another is changed: the data's deviation, sigma, alpha, k_0, the optimizer, its rate, the number and the law of the
noise samples.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments import figures, measures, page, playing
from lightning_gans.functional.losses import PAIRS
from lightning_gans.visualization.images import figure_image, new_figure

MEAN = 1.0
Judge = Callable[[Tensor, Tensor, float], Callable[[Tensor], Tensor]]  # of m, s and the data's deviation: f1(D(.))


# ---------------------------------------------------------------------------------------------- what can be computed
def gains(sigma: float, std: float) -> tuple[float, float]:
    r"""By how much the kernel term at alpha = 1/2 multiplies the pull towards the right mean and the right deviation.

    Next to the fixed point, against the best D, the drift is that of the plain game times
    :math:`1 + 2\alpha\kappa`, with :math:`v = 4\tau^2/\sigma^2`, :math:`\kappa_1 = \frac{v}{2}(1+v)^{-3/2}` for the
    mean and :math:`\kappa_2 = \frac{3}{8}v^2(1+v)^{-5/2}` for the deviation. Returns kappa_1 and kappa_2.
    """
    v = 4 * std**2 / sigma**2
    return v / 2 * (1 + v) ** -1.5, 3 / 8 * v**2 * (1 + v) ** -2.5


def normal(x: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    """log density of N(mean, std^2)."""
    return -0.5 * ((x - mean) / std) ** 2 - torch.log(torch.as_tensor(std)) - 0.5 * math.log(2 * math.pi)


_ZERO = torch.zeros((), dtype=torch.float64)
_Z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
_WEIGHT = normal(_Z, _ZERO, 1.0).exp() * (_Z[1] - _Z[0])


def best(m: Tensor, s: Tensor, std: float) -> Callable[[Tensor], Tensor]:
    """f1 of the best D between N(0, std^2) and N(m, s^2)."""
    return lambda x: PAIRS["js"].f1(normal(x, _ZERO, std) - normal(x, m, s))


def straight(m: Tensor, s: Tensor, std: float) -> Callable[[Tensor], Tensor]:
    """f1 of the best D with a straight logit a + b x: a logistic regression, by Newton's method."""
    line = torch.zeros(2, dtype=torch.float64)
    sides = [(std * _Z, -1.0), (m + s * _Z, 1.0)]
    for _ in range(20):
        gradient, hessian = torch.zeros(2, dtype=torch.float64), 1e-12 * torch.eye(2, dtype=torch.float64)
        for x, sign in sides:
            rows = torch.stack([torch.ones_like(x), x / std])
            at = (sign * (line @ rows)).sigmoid()
            gradient += rows @ (_WEIGHT * sign * at)
            hessian += (_WEIGHT * at * (1 - at) * rows) @ rows.T
        line = line - torch.linalg.solve(hessian, gradient)
    return lambda x: PAIRS["js"].f1(line[0] + line[1] * x / std)


def level(*logits: float) -> Judge:
    """f1 of a D that is flat around the data, at one level, or swinging between several: then the mean of f1."""
    mean = statistics.fmean(float(PAIRS["js"].f1(torch.tensor(v, dtype=torch.float64))) for v in logits)
    return lambda m, s, std: lambda x: mean + 0 * x


def drift(
    mean: float, std: float, sigma: float, alpha: float, data_std: float, judge: Judge = best
) -> tuple[float, float]:
    """-(d/dm, d/ds) of G's loss for G = m + s z on N(0, data_std^2), while D stays as the judge makes it.

    By quadrature on a line of 4,001 points, in float64; alpha = 0 is the plain game.
    """
    m, s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mean, std))
    f1 = judge(m.detach(), s.detach(), data_std)
    first = (_WEIGHT * f1(m + s * _Z)).sum()
    x, width = data_std * _Z, sigma**2 + 2 * s**2
    p_g = sigma / width.sqrt() * torch.exp(-((x - m) ** 2) / width)  # the kernel's mean over N(m, s^2)
    target = p_g.detach() - alpha * f1(x)
    second = (_WEIGHT * (target - p_g) ** 2).sum()
    dm, ds = torch.autograd.grad(first + second, (m, s))
    return -float(dm), -float(ds)


def measured_gains(sigma: float, std: float) -> tuple[float, float]:
    """kappa_1 and kappa_2 by quadrature, from two drifts a thousandth of the data's deviation off the fixed point."""
    off = 1e-3 * std
    found = []
    for i, at in enumerate(((off, std), (0.0, std + off))):
        with_kernel, plain = (drift(*at, sigma, alpha, std)[i] for alpha in (0.5, 0.0))
        found.append(with_kernel / plain - 1)
    return found[0], found[1]


def resting_place(
    sigma: float, alpha: float, judge: Judge, start: tuple[float, float], steps: int
) -> tuple[float, float]:
    """(m, s) that the drift leads to, in units of the data's deviation; s is stopped at 0.05.

    Along the flow in steps whose length falls from 0.05 to 0, so that weak drifts get as far as strong ones.
    """
    m, s = start
    for step in range(steps):
        dm, ds = drift(m, s, sigma, alpha, 1.0, judge)
        if (size := math.hypot(dm, ds)) < 1e-9:
            break
        length = 0.05 * (1 - step / steps) / size
        m, s = m + length * dm, max(0.05, s + length * ds)
    return m, s


JUDGES: dict[str, Judge] = {
    "the best D": best,
    "the best D with a straight logit": straight,
    "flat, D = 0.6": level(math.log(1.5)),
    "flat, D = 0.4": level(-math.log(1.5)),
    "flat, D swinging between 0.4 and 0.6": level(math.log(1.5), -math.log(1.5)),
}


# ---------------------------------------------------------------------------------------------- what is learned
RATES = {"lr_g": 1e-3, "lr_d": 1e-3}
OPTIMIZERS: dict[str, list[Any]] = {
    "SGD 0.1": ["torch.optim.SGD", {"lr": 0.1}],
    "Adam(0, 0.9)": ["torch.optim.Adam", {"lr": 1e-3, "betas": [0.0, 0.9]}],
    "RMSprop": ["torch.optim.RMSprop", {"lr": 1e-3}],
    "optimistic Adam": ["lightning_gans.optim.OptimisticAdam", {"lr": 1e-3, "betas": [0.5, 0.9]}],
    "extra-Adam": ["lightning_gans.optim.ExtraAdam", {"lr": 1e-3, "betas": [0.5, 0.9]}],
}

NETS = {"generator": "ToyGenerator", "discriminator": "ToyDiscriminator"}
# More of the game, and options of the technique.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as above": ({}, {}), "k_0 = 5": ({}, {"d_steps": 5}), "k_0 = 20": ({}, {"d_steps": 20}),
    "64 samples": ({"batch_size": 64}, {}), "1024 samples": ({"batch_size": 1024}, {}),
    "four times the noise": ({}, {"g_batch_factor": 4}),
    "uniform noise": ({"uniform_noise": True}, {}),
    "rates 1e-4": ({}, {"lr_g": 1e-4, "lr_d": 1e-4}), "rates fall to 0": ({"decay": True}, {}),
    "1-256-1 nets": ({k: [kind, {"width": 256, "depth": 1}] for k, kind in NETS.items()}, {}),
    **{name: ({"optimizers": {"g": o, "d": o}}, {}) for name, o in OPTIMIZERS.items()},
}  # fmt: skip


def game(method: str, std: float, updates: int, more: dict[str, Any] | None = None, **options: Any) -> playing.Game:
    """One of `METHODS` on N(1, std^2), a point mass for 0."""
    data = {"data": "PointMass"} if std == 0 else {"data": "Gaussian1D", "data_options": {"mean": MEAN, "std": std}}
    own: dict[str, Any] = {"loss": "minimax"}
    if method != "GAN":
        own = {"relative": False, "alpha": 0.1, "sigma": 1.0}
    if method == "wide":
        own |= {"alpha": 10.0, "sigma": 3.0}
    if method == "narrow":  # sigma: from where all samples see the data to the data's deviation
        own |= {"alpha": 1.0, "sigma_end": max(std, 1e-3), "sigma_steps": max(1, updates // 2)}
    play = {"technique": "gan" if method == "GAN" else "primal_dual", "options": RATES | own | options}
    return {**playing.line_game("Gaussian1D", updates), **play, **data, **(more or {})}


METHODS = {
    "GAN": "GAN", "sigma 1, alpha 0.1": "naive", "sigma to tau, alpha 1": "narrow", "sigma 3, alpha 10": "wide",
}  # fmt: skip


def groups(arguments: Any) -> dict[str, dict[str, playing.Game]]:
    """The games, by what differs."""
    n, std = arguments.updates, arguments.std
    made: dict[str, dict[str, playing.Game]] = {"data's deviation": {}, "sigma and alpha": {}, "what else": {}}
    for value in arguments.deviations:
        for name, method in METHODS.items():
            made["data's deviation"][f"{value:g}: {name}"] = game(method, value, n)
    for sigma in arguments.sigmas:
        for alpha in arguments.alphas:
            name = f"sigma {sigma:g}, alpha {alpha:g}"
            made["sigma and alpha"][name] = game("naive", std, n, sigma=sigma, alpha=alpha)
    for change in arguments.changes:
        more, options = CHANGES[change]
        for name, method in METHODS.items():
            made["what else"][f"{change}: {name}"] = game(method, std, n, more, **options)
    return made


def unit(result: playing.Result) -> float:
    """The data's deviation; 1 for a point mass."""
    return float(result["game"].get("data_options", {}).get("std", 1.0))


def share(result: playing.Result, name: str) -> float:
    """Late mean of a score, in units of the data's deviation."""
    return measures.late_mean(result, name) / unit(result)


def off_centre(result: playing.Result) -> float:
    """Late mean of |mean - 1|, in units of the data's deviation."""
    found = [abs(value - MEAN) for _, value in measures.series(result, "metrics/mean")]
    late = found[len(found) // 2 :]
    return statistics.fmean(late) / unit(result) if late and not result["failed"] else math.nan


def kernel_ratio(result: playing.Result) -> float:
    """Late mean of p_g at the data, over what it would be for the right law, (1 + 4 tau^2 / sigma^2)^(-1/2)."""
    options = result["game"]["options"]
    if "sigma" not in options or result["failed"]:
        return math.nan
    std = result["game"].get("data_options", {}).get("std", 0.0)
    sigma = options.get("sigma_end") or options["sigma"]
    return measures.late_mean(result, "g/p_g") * math.sqrt(1 + 4 * std**2 / sigma**2)


COLUMNS: measures.Columns = {
    "W1 / tau": lambda r: share(r, "metrics/w1"),
    "best": lambda r: measures.best(r, "metrics/w1") / unit(r),
    "std / tau": lambda r: share(r, "metrics/std"),
    "off centre / tau": off_centre,
    "p_g / true": kernel_ratio,
    "D(x)": lambda r: measures.late_mean(r, "g/d_real"),
    "gradient, first term": lambda r: measures.late_mean(r, "g/adversarial_gradient"),
    "kernel term": lambda r: measures.late_mean(r, "g/kernel_gradient"),
    "cosine": lambda r: measures.late_mean(r, "g/gradient_cosine"),
    "ms per update": measures.milliseconds,
}


def picture(found: dict[str, dict[str, list[playing.Result]]], arguments: Any) -> Image.Image:
    """The gains over sigma; the learned deviation over sigma, and over the data's; the deviation over training."""
    figure = new_figure(11.6, 7.6)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    ratio = torch.logspace(-1.2, 1.6, 60).tolist()
    for i, (colour, what) in enumerate(zip(figures.COLOURS, ("mean", "deviation"))):
        first.loglog(ratio, [gains(r, 1.0)[i] for r in ratio], color=colour, linewidth=1.5, label=f"of the {what}")
        some = ratio[::6]
        first.loglog(some, [measured_gains(r, 1.0)[i] for r in some], "o", color=colour, markersize=4)
    first.set_ylim(1e-6, 1)
    figures.tidy(first, "what the kernel term adds to the pull (points: quadrature)", "sigma / tau", "kappa")
    first.legend(frameon=False, fontsize=8)

    def band(axes: Any, at: Sequence[float], runs: Sequence[Sequence[playing.Result]], colour: str, label: str) -> None:
        values = [[share(r, "metrics/std") for r in results] for results in runs]
        axes.plot(
            at, [statistics.median(v) for v in values], "o-", color=colour, markersize=3.5, linewidth=1.4, label=label
        )
        axes.fill_between(at, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15, lw=0)

    for colour, alpha in zip(figures.COLOURS, arguments.alphas):
        runs = [found["sigma and alpha"][f"sigma {s:g}, alpha {alpha:g}"] for s in arguments.sigmas]
        band(second, [s / arguments.std for s in arguments.sigmas], runs, colour, f"alpha {alpha:g}")
    wide = [d for d in arguments.deviations if d > 0]
    for colour, name in zip(figures.COLOURS[3:], METHODS):
        band(third, wide, [found["data's deviation"][f"{d:g}: {name}"] for d in wide], colour, name)
    for axes in (second, third):
        axes.set_yscale("log")
        axes.set_xscale("log")
    figures.tidy(second, f"learned deviation, tau = {arguments.std:g}", "sigma / tau", "std of samples / tau")
    figures.tidy(third, "learned deviation", "tau, the data's deviation", "std of samples / tau")
    for axes in (second, third):
        axes.axhline(1, color="#9aa0a8", linewidth=0.8, linestyle=(0, (4, 2)))
        axes.legend(frameon=False, fontsize=8)
    near = min(wide, key=lambda d: abs(math.log(d / arguments.std)))
    for colour, name in zip(figures.COLOURS[3:], METHODS):
        for result in found["data's deviation"][f"{near:g}: {name}"]:
            points = measures.series(result, "metrics/std")[1:]
            fourth.plot([x for x, _ in points], [y / near for _, y in points], color=colour, linewidth=1, alpha=0.8)
    fourth.set_ylim(0, 3)
    fourth.axhline(1, color="#9aa0a8", linewidth=0.8, linestyle=(0, (4, 2)))
    figures.tidy(fourth, f"over training, tau = {near:g}, each seed", "generator updates", "std of samples / tau")
    return figure_image(figure)


def main() -> None:
    """Compute, play, print, write."""
    p = page.parser(
        __doc__, updates=2000, std=0.0316228, deviations=[0.0, 0.001, 0.01, 0.0316228, 0.1, 0.3, 1.0],
        sigmas=[0.01, 0.0316228, 0.1, 0.3, 1.0, 3.0, 10.0], alphas=[0.1, 1.0, 10.0, 100.0], changes=list(CHANGES),
        steps=800,
    )  # fmt: skip
    arguments = p.parse_args()
    tables = ["## Computed: the kernel term's gain", ""]
    tables += ["| sigma / tau | kappa_1 | by quadrature | kappa_2 | by quadrature |", "|---" * 5 + "|"]
    for ratio in (0.1, 0.5, 1.0, math.sqrt(2), 3.0, 10.0, 30.0):
        closed, found_by = gains(ratio, 1.0), measured_gains(ratio, 1.0)
        tables.append(f"| {ratio:.3g} | {closed[0]:.3g} | {found_by[0]:.3g} | {closed[1]:.3g} | {found_by[1]:.3g} |")
    starts = [(1.0, 2.0), (0.5, 0.5)]
    tables += ["", "## Computed: where m and s come to rest, in units of tau", ""]
    names = [
        f"{kind}, from {m:g} and {s:g}" for m, s in starts for kind in ("plain", "alpha 1, sigma tau", "sigma 10 tau")
    ]
    tables += [f"| D | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for name, judge in JUDGES.items():
        places = [
            resting_place(sigma, a, judge, at, arguments.steps)
            for at in starts
            for sigma, a in ((1.0, 0.0), (1.0, 1.0), (10.0, 1.0))
        ]
        tables.append(f"| {name} | {' | '.join(f'{m:.2f} and {s:.2f}' for m, s in places)} |")
    found: dict[str, dict[str, list[playing.Result]]] = {}
    everything: dict[str, list[playing.Result]] = {}
    played = groups(arguments)
    flat = playing.sweep(
        {f"{g}: {n}": v for g, lines in played.items() for n, v in lines.items()}, arguments.seeds, arguments
    )
    for group, lines in played.items():
        found[group] = {name: flat[f"{group}: {name}"] for name in lines}
        everything |= {f"{group}: {name}": results for name, results in found[group].items()}
        tables += ["", f"## Learned: {group}", "", *measures.table(found[group], COLUMNS, "game", measures.middle)]
    protocol = [
        "computed: G = m + s z with z ~ N(0, 1), by quadrature; s is stopped at 0.05; see the text",
        f"learned: {arguments.updates} generator updates; G and D 1-32-1 ReLU, batch 256, z ~ N(0, 1), Adam(0.5, "
        "0.999) at 1e-3 and saturating losses unless said otherwise",
        "GAN: the saturating game; the others primal-dual, sigma absolute; to tau: from 1 to tau (0.001 for the point "
        "mass) over the first half",
        f"sigma and alpha, and what else: tau = {arguments.std:g}",
        "cells: median (lowest to highest seed) of means over the second half of a run, but for the best W1; W1 of "
        "10,000 samples; tau is the data's deviation (1 for the point mass, whose std and W1 are absolute)",
        "gradients: by the fakes; p_g / true: mean kernel density at the data over that of the right law, with the "
        "last sigma",
    ]
    figure = picture(found, arguments)
    page.publish(arguments, "Why does primal-dual learn the wrong law?", everything, protocol, tables, figure)


if __name__ == "__main__":
    main()
