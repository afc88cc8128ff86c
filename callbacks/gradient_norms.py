"""Do gradients vanish or explode on their way through the networks?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gans import checks
from lightning_gans.callbacks.probe import Draws, WholeCycles, histogram, log_histograms, log_metrics, scores, stepping
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.batch import Batch
from lightning_gans.engine.contract import Critic, Played, has
from lightning_gans.visualization.images import INK, figure_image, new_figure

_FLOOR = 1e-12  # a logarithm has no place for zero
_CURVES = 6
_KEPT = 64  # times to choose the curves from


def layer_norms(net: nn.Module) -> dict[str, Tensor]:
    """Euclidean norm of the gradient that each layer's own parameters hold now, from the input to the output.

    A layer is a module with parameters of its own; parameters without a gradient are passed over.
    """
    squares: dict[str, Tensor] = {}
    for layer, gradient in _by_layer(net):
        squares[layer] = squares.get(layer, 0.0) + gradient.square().sum()
    return {layer: square.sqrt() for layer, square in squares.items()}


def layer_histograms(net: nn.Module, bins: int = 64) -> dict[str, tuple[Tensor, Tensor]]:
    """Counts (bins,) of the elements of each layer's gradient, and edges (bins + 1,), of finite ones."""
    parts: dict[str, list[Tensor]] = {}
    for layer, gradient in _by_layer(net):
        parts.setdefault(layer, []).append(gradient.flatten()[gradient.flatten().isfinite()])
    found = {}
    for layer, elements in ((layer, torch.cat(known)) for layer, known in parts.items()):
        if len(elements):
            low, high = elements.aminmax()
            high = torch.where(high > low, high, low + 1e-12 + low.abs() * 1e-6)  # all are equal
            counts = histogram(elements, bins, float(low), float(high))
            found[layer] = counts, torch.linspace(float(low), float(high), bins + 1, dtype=torch.float64)
    return found


def _by_layer(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Gradients with the layer that each is of."""
    for name, p in net.named_parameters():
        if p.grad is not None:
            layer = name.split(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
            yield layer or "parameters", p.grad.detach().float()


def mean_input_gradient(module: Critic, x: Tensor, labels: Tensor | None) -> Tensor:
    r"""Mean over samples of :math:`\|\nabla_x D(x)\|_2`, all dimensions but the first; touches no ``.grad``."""
    x = x.detach().to(next(module.discriminator.parameters()).dtype).requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(scores(module, x, labels).sum(), x)
    return gradient.float().flatten(1).norm(dim=1).mean()


class GradientNorms(WholeCycles, Draws):
    r"""Logs how large the gradients are, and draws them by layer.

    The source's diagnostic of WGAN (arXiv:1704.00028, figure 1b): by layer, on a log scale, the critic's gradients
    vanish or explode with depth under weight clipping unless c is chosen well, and are flat under a gradient penalty.

    Logged: ``grad/d``, ``grad/g``, and so for any other player: norm of the gradient of its own loss, all terms
    together, with respect to its parameters, as it is when the optimizer steps (the cycle's last step of that player),
    before it is clipped; ``grad/d/<layer>`` and ``grad/g/<layer>``: the part of each layer; ``grad/input/real``,
    ``.../fake``, ``.../interpolated``: mean of :math:`\|\nabla_x D(x)\|_2` over the last batch, its fakes and points
    :math:`\alpha x + (1 - \alpha)\tilde x,\ \alpha \sim U(0, 1)` (D in evaluation mode; left out where there is none).
    ``history`` keeps at most 64 times, evenly spaced, and the last.
    The figure is ``<folder>/gradients/latest.png``, and ``grad/layers`` in W&B and TensorBoard; histograms of each
    layer's gradient are there as ``grad/d/<layer>/histogram``.

    Args:
        every_n_steps: generator updates between logs, each at the end of the cycle that the update lies in.
        per_layer: log and draw layers.
        inputs: log the norms with respect to D's input, at the price of three forward and backward passes of D.
        picture_every: draw at every k-th log (and at the end).
        seed: of the interpolation.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.
        histograms: log them too.

    >>> callback = GradientNorms(every_n_steps=50, histograms=True)  # for pl.Trainer(callbacks=[callback])
    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False))
    >>> net(torch.ones(3, 1)).sum().backward()
    >>> {layer: float(norm) for layer, norm in layer_norms(net).items()}  # what it logs as grad/d/0
    {'0': 3.0}
    """

    place = "gradients"
    needs = Played

    def __init__(
        self,
        every_n_steps: int = 100,
        per_layer: bool = True,
        inputs: bool = True,
        picture_every: int = 10,
        seed: int = 0,
        dirpath: str | Path | None = None,
        histograms: bool = False,
    ) -> None:
        super().__init__(every_n_steps)
        checks.at_least_one(picture_every=picture_every)
        checks.at_least(0, seed=seed)
        self.histograms = histograms
        self.counted: dict[str, tuple[Tensor, Tensor]] = {}  # of the cycle under way
        self.per_layer, self.inputs, self.picture_every = per_layer, inputs, picture_every
        self.seed, self.dirpath = seed, dirpath
        self.held: dict[str, dict[str, Tensor]] = {}  # by player and layer, of the cycle under way
        self.history: list[tuple[int, dict[str, dict[str, float]]]] = []  # step, player, layer, norm; evenly spaced
        self.apart, self.logs = 0, 0  # updates between two of them, at least; and how often norms were logged
        self.titles: dict[str, str] = {}  # the networks of each player

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder, if there will be a picture."""
        if self.per_layer:
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what is not of this training."""
        super().on_train_start(trainer, pl_module)
        self.history = [known for known in self.history if known[0] <= pl_module.global_step]
        if not self.history:
            self.apart, self.logs, self.titles = 0, 0, {}

    def begin(self, trainer: pl.Trainer, module: Any) -> None:
        """Forget the norms of an earlier cycle."""
        self.held, self.counted = {}, {}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Take the norms of the player that is about to step; the others' gradients are old, or clipped by now."""
        if self.cycle_is_due:
            module: Any = pl_module
            names = module.players[player := stepping(module)].networks
            self.titles[player] = " and ".join(names)
            norms = {name: layer_norms(getattr(module, name)) for name in names}
            one = len(names) == 1
            self.held[player] = {
                layer if one else f"{name}.{layer}": norm for name in names for layer, norm in norms[name].items()
            }
            for name in names if self.histograms else ():
                for layer, counts in layer_histograms(getattr(module, name)).items():
                    self.counted[f"grad/{player}/{layer if one else f'{name}.{layer}'}/histogram"] = counts

    def act(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        """Log the norms of the cycle that has just ended."""
        values: dict[str, Tensor] = {}
        players = [player for player in module.players if self.held.get(player)]
        for player in players:
            layers = self.held[player]
            values[f"grad/{player}"] = torch.stack(list(layers.values())).norm()
            if self.per_layer:
                values |= {f"grad/{player}/{layer}": norm for layer, norm in layers.items()}
        log_histograms(trainer, self.counted, step)
        if self.inputs and has(module, Critic) and module.last_batch is not None and module.last_fake is not None:
            norms = self.input_norms(module, module.last_batch, module.last_fake, step)
            means = trainer.strategy.reduce(torch.stack(list(norms.values())), reduce_op="mean")  # each has its rows
            values |= dict(zip(norms, means))
        if not values:
            return
        numbers = dict(zip(values, torch.stack(list(values.values())).tolist()))
        log_metrics(trainer, numbers, step)
        if self.per_layer:
            by_layer = {
                player: {k.split("/", 2)[2]: v for k, v in numbers.items() if k.startswith(f"grad/{player}/")}
                for player in players
            }
            if any(by_layer.values()):
                self.logs += 1
                self.keep(step, by_layer)
                if self.logs % self.picture_every == 0:
                    self.draw(trainer, step)

    def keep(self, step: int, by_layer: dict[str, dict[str, float]]) -> None:
        """Add to ``history``: its first and last time, and between them as many as pictures choose from."""
        steps = [known for known, _ in self.history[-2:]]
        if len(steps) == 2 and steps[1] - steps[0] < self.apart:
            self.history.pop()
        self.history.append((step, by_layer))
        if len(self.history) > _KEPT:
            self.history = self.history[::2]
            self.apart = self.history[1][0] - self.history[0][0]

    def input_norms(self, module: Critic, batch: Batch, fake: Tensor, step: int) -> dict[str, Tensor]:
        """Mean norms of D's gradient with respect to real, fake and interpolated inputs."""
        n = min(len(batch.real), len(fake))
        labels = None if batch.labels is None else batch.labels[:n]
        real, fake = batch.real[:n].detach(), fake[:n].detach().to(batch.real.dtype)
        alpha = torch.rand(n, *[1] * (real.ndim - 1), generator=torch.Generator().manual_seed(self.seed + step))
        between = torch.lerp(fake, real, alpha.to(real))
        points = {"real": real, "fake": fake, "interpolated": between}
        return {f"grad/input/{name}": mean_input_gradient(module, x, labels) for name, x in points.items()}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what was seen."""
        if self.history:
            self.draw(trainer, pl_module.global_step)

    def draw(self, trainer: pl.Trainer, step: int) -> None:
        """Write and log the figure, on the first rank only."""
        if trainer.is_global_zero:
            self.show(trainer, layer_picture(self.history, self.titles), ["latest"], "grad/layers", step)


def layer_picture(
    history: list[tuple[int, dict[str, dict[str, float]]]], titles: Mapping[str, str] | None = None
) -> Image.Image:
    """Gradient norm (log scale) against layer, from input to output; one curve per time, later ones darker.

    Args:
        history: (updates, player -> layer -> norm) of each time.
        titles: of the players' panels; their names by default.
    """
    from matplotlib import colormaps

    count = min(_CURVES, len(history))
    chosen = [history[round(i * (len(history) - 1) / max(count - 1, 1))] for i in range(count)]
    known = dict.fromkeys(player for _, by_layer in chosen for player in by_layer)
    players = [p for p in known if any(by_layer.get(p) for _, by_layer in chosen)]
    figure = new_figure(1.8 + 4.2 * len(players), 4.2)
    panels = figure.subplots(1, len(players), squeeze=False, sharey=True)[0]
    colours = [colormaps["viridis_r"](0.15 + 0.85 * i / max(count - 1, 1)) for i in range(count)]
    drawn: list[float] = []
    for axes, player in zip(panels, players):
        for (step, by_layer), colour in zip(chosen, colours):
            norms = [
                max(norm, _FLOOR) if math.isfinite(norm) else math.nan for norm in by_layer.get(player, {}).values()
            ]
            drawn += [norm for norm in norms if norm > 0]
            x = range(1, len(norms) + 1)
            axes.plot(x, norms, "o-", color=colour, markersize=3.5, linewidth=1.4, label=f"{step:,}")
        layers = list(next(by_layer[player] for _, by_layer in reversed(chosen) if by_layer.get(player)))
        axes.set_title((titles or {}).get(player, player), color=INK, fontsize=10)
        axes.set_xlabel("layer, from input to output", color=INK, fontsize=9)
        if len(layers) <= 16:
            axes.set_xticks(range(1, len(layers) + 1), layers, rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(colors=INK, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e6ea", linewidth=0.7)
    low, high = (math.log10(end) for end in (min(drawn, default=1), max(drawn, default=1)))
    middle, half = (low + high) / 2, max((high - low) / 2 + 0.2, 2.0)  # at least 4 decades, so that flat looks flat
    panels[0].set(yscale="log", ylim=(10 ** (middle - half), 10 ** (middle + half)))
    panels[0].set_ylabel("gradient norm of the layer's parameters", color=INK, fontsize=9)
    handles, names = panels[0].get_legend_handles_labels()
    title = {"title": "generator update", "title_fontsize": 8}
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=8, **title)
    return figure_image(figure)
