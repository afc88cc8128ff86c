"""What the tokens of a transformer look at, and how far away it is."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.callbacks.probe import Draws, EveryNSteps, log_metrics, scores, untouched
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.contract import Critic, Samples, has
from lightning_gans.visualization.images import FAKE_COLOUR, INK, REAL_COLOUR, figure_image, new_figure


@runtime_checkable
class Attention(Protocol):
    """What is asked of a layer: `networks.Attention` has it, and one of yours may."""

    context: int | None
    grid: tuple[int, int] | None

    def weights(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(N, heads, L, S) of what `forward` takes."""

    def distance(self, length: int, device: torch.device) -> Tensor:
        """(L, L) integers."""


class AttentionMaps(EveryNSteps, Draws):
    r"""Draws what each `networks.Attention` looks at, and how far away: is attention a convolution in disguise?

    Of the samples of a fixed noise, and of the discriminator's view of them, each layer's weights a are averaged over
    samples and heads. Drawn are what the token in the middle takes of each other, on its grid if it has one, and the
    share that all tokens take at each distance, beside what they would if all weights were equal. Logged is the mean
    distance, in tokens,

    .. math:: \frac1L \sum_{i, j} a_{ij} \, d_{ij}

    with d the larger of the two displacements on the grid, or |i - j| without one, as ``attention/<layer>``. Pictures
    are ``<folder>/attention/step_000100.png`` (``latest.png`` is the newest), and ``attention`` in W&B and TensorBoard;
    the first is of the untrained networks.

    Args:
        every_n_steps: generator updates between pictures.
        num_samples: over which is averaged.
        seed: of their noise.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.

    Attributes:
        kept: by update, by layer, the share of the weights at distance 0, 1, 2, ...

    Raises:
        ValueError: before training starts, for a model without such a layer.

    >>> from lightning_gans import networks
    >>> callback = AttentionMaps(every_n_steps=100)  # for pl.Trainer(callbacks=[callback]), behind EMA
    >>> layer = networks.Attention(8, heads=2, grid=(2, 2))
    >>> by_distance(torch.full((4, 4), 1 / 4), layer).tolist()  # equal weights: itself, and three neighbours
    [0.25, 0.75]
    """

    place = "attention"
    needs = Samples

    def __init__(
        self, every_n_steps: int = 500, num_samples: int = 64, seed: int = 0, dirpath: str | Path | None = None
    ) -> None:
        super().__init__(every_n_steps)
        checks.at_least_one(num_samples=num_samples)
        checks.at_least(0, seed=seed)
        self.num_samples, self.seed, self.dirpath = num_samples, seed, dirpath
        self.kept: dict[int, dict[str, list[float]]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a model without attention."""
        super().on_fit_start(trainer, pl_module)
        if not layers(pl_module):
            raise ValueError(
                f"AttentionMaps needs a model with networks.Attention, got {type(pl_module).__name__} without one."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the untrained networks."""
        super().on_train_start(trainer, pl_module)
        if pl_module.global_step == 0:
            self.kept = {}
            with untouched(pl_module):
                self.act(trainer, pl_module, 0)

    @torch.no_grad()
    def act(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        """Draw, write and log, on the first rank only."""
        if not trainer.is_global_zero:
            return
        found = attention(module, self.num_samples, self.seed)
        of_layers = layers(module)
        shares = {name: by_distance(a, of_layers[name]) for name, a in found.items()}
        self.kept[step] = {name: share.tolist() for name, share in shares.items()}
        far = {f"attention/{name}": float(share @ torch.arange(len(share)).to(share)) for name, share in shares.items()}
        log_metrics(trainer, far, step)
        image = picture(found, of_layers, step)
        self.show(trainer, image, [f"step_{step:06d}", "latest"], "attention", step)


def layers(module: Any) -> dict[str, Attention]:
    """Each attention of the network that makes samples and of the discriminator, by its name."""
    networks: dict[str, nn.Module] = {"g": module.network}
    if has(module, Critic):
        networks["d"] = module.discriminator
    return {
        f"{who}/{name or 'attention'}": layer
        for who, network in networks.items()
        for name, layer in network.named_modules()
        if isinstance(layer, Attention) and layer.context is None
    }


def attention(module: Any, n: int, seed: int = 0) -> dict[str, Tensor]:
    """Of each layer (L, L) weights: those of n samples of a fixed noise, averaged over samples, heads and calls."""
    sums: dict[str, tuple[Tensor, int]] = {}

    def look(name: str, layer: Any, inputs: tuple[Any, ...]) -> None:
        before, calls = sums.get(name, (0.0, 0))
        sums[name] = before + layer.weights(*inputs).float().mean((0, 1)).cpu(), calls + 1

    with ExitStack() as stack:
        for name, layer in layers(module).items():
            hooked: Any = layer
            stack.callback(hooked.register_forward_pre_hook(partial(look, name)).remove)
        labels = None if module.num_classes is None else torch.arange(n) % module.num_classes
        fake = module.sample(n, labels, generator=torch.Generator().manual_seed(seed))
        if has(module, Critic):
            scores(module, fake, labels)
    return {name: total / calls for name, (total, calls) in sums.items()}


def by_distance(weights: Tensor, layer: Attention) -> Tensor:
    """The share of (L, L) weights at distance 0, 1, 2, ..., of sum 1."""
    distance = layer.distance(len(weights), weights.device).flatten()
    return torch.zeros(int(distance.max()) + 1).index_add(0, distance, weights.flatten()) / len(weights)


def picture(found: dict[str, Tensor], of_layers: dict[str, Attention], step: int) -> Image.Image:
    """A column for each layer: what the token in the middle takes of each, and the share at each distance."""
    figure = new_figure(max(3.2, 1.9 * len(found)), 4.2)
    axes = figure.subplots(2, len(found), squeeze=False)
    for column, (name, a) in enumerate(found.items()):
        layer, length = of_layers[name], len(a)
        rows, across = layer.grid or (1, length)
        middle = (rows // 2) * across + across // 2
        above, below = axes[:, column]
        above.imshow(a[middle].view(rows, across).numpy(), cmap="magma", vmin=0)
        above.set_title(name.replace(".attention", ""), color=INK, fontsize=7)
        above.axis("off")
        share, even = by_distance(a, layer), by_distance(torch.full_like(a, 1 / length), layer)
        below.bar(range(len(share)), (100 * share).tolist(), color=FAKE_COLOUR)
        below.plot(range(len(even)), (100 * even).tolist(), color=REAL_COLOUR, linewidth=1, label="all weights equal")
        below.tick_params(colors=INK, labelsize=7)
        below.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel("share of the weights (%)", color=INK, fontsize=8)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="lower right", fontsize=7, frameon=False)
    figure.supxlabel("distance in tokens", color=INK, fontsize=8)
    figure.suptitle(f"attention after {step:,} generator updates", color=INK, fontsize=9)
    return figure_image(figure)
