"""Where the discriminator's weights are."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lightning_gans.callbacks.probe import Draws, EveryNSteps, histogram, log_metrics
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.contract import Critic
from lightning_gans.visualization.images import FAKE_COLOUR, INK, REAL_COLOUR, figure_image, new_figure


def share_at(weights: Tensor, c: float) -> Tensor:
    """Share (0 to 1) of the weights at the ends of [-c, c]: those with ``|w| >= (1 - 1e-3) c``."""
    return (weights.abs() >= (1 - 1e-3) * c).float().mean()


class WeightHistogram(EveryNSteps, Draws):
    """Draws the histogram of all the discriminator's parameters.

    The source's diagnostic of weight clipping (arXiv:1704.00028, figure 1b): the weights gather at the two extremes
    -c and c, so that D is nearly a binary network; under a gradient penalty they do not. For a module with an attribute
    ``c`` the share of parameters there is logged as ``d/weights_at_c`` (0 to 1). Pictures are
    ``<folder>/weights/step_000100.png`` (``latest.png`` is the newest), and ``d/weights`` in W&B and TensorBoard.

    Args:
        every_n_steps: generator updates between pictures.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.

    >>> callback = WeightHistogram(every_n_steps=100)  # for pl.Trainer(callbacks=[callback])
    >>> float(share_at(torch.tensor([-0.01, 0.0, 0.005, 0.01]), c=0.01))  # what it logs of a clipped critic
    0.5
    """

    place = "weights"
    needs = Critic

    def __init__(self, every_n_steps: int = 500, dirpath: str | Path | None = None) -> None:
        super().__init__(every_n_steps)
        self.dirpath = dirpath

    def act(self, trainer: pl.Trainer, module: Critic, step: int) -> None:
        """Draw the histogram and log the share at c, on the first rank only."""
        if not trainer.is_global_zero:
            return
        weights = torch.cat([p.detach().float().flatten() for p in module.discriminator.parameters()])
        c = getattr(module, "c", None)
        if c is not None:
            log_metrics(trainer, {"d/weights_at_c": float(share_at(weights, float(c)))}, step)
        image = histogram_picture(weights, None if c is None else float(c), step)
        self.show(trainer, image, [f"step_{step:06d}", "latest"], "d/weights", step)


def histogram_picture(weights: Tensor, c: float | None, step: int) -> Image.Image:
    """Histogram of the weights, as per cent of all per bin; dashed lines mark -c and c."""
    bound = float(weights.abs().max()) if c is None else 1.05 * c
    bound = bound if 0 < bound < float("inf") else 1.0  # a dead or diverged network still gets a picture
    edges = torch.linspace(-bound, bound, 82)
    counts = histogram(weights.cpu(), len(edges) - 1, -bound, bound)
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    axes.stairs(100 * counts / len(weights), edges, fill=True, color=FAKE_COLOUR, alpha=0.85)
    title = f"discriminator after {step:,} generator updates"
    if c is not None:
        for end in (-c, c):
            axes.axvline(end, color=REAL_COLOUR, linewidth=1, linestyle=(0, (4, 2)))
        title += f": {100 * float(share_at(weights, c)):.0f} % of the weights at ±c = ±{c:g}"
    axes.set_title(title, color=INK, fontsize=9)
    axes.set_xlim(-bound, bound)
    axes.set_xlabel("parameter value", color=INK, fontsize=9)
    axes.set_ylabel(f"parameters per bin (% of {len(weights):,})", color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure_image(figure)
