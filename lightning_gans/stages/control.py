"""The second stage of GAN-Control: what part of w gives an attribute a value."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.functional.control import measured
from lightning_gans.functional.latent import from_w, to_w
from lightning_gans.functional.modes import evaluating
from lightning_gans.networks.control import AttributeEncoders
from lightning_gans.stages.fits import fit_items
from lightning_gans.techniques.gan_control import GANControl


def fit_control(
    module: GANControl,
    folder: str | Path | None = None,
    *,
    samples: int = 20_000,
    steps: int = 2_000,
    batch_size: int = 256,
    lr: float = 1e-3,
    width: int = 128,
    seed: int = 0,
) -> AttributeEncoders:
    r"""Learn to give samples of a trained `GANControl` an attribute: encoders from its measured value to its part of w.

    .. math:: \min_{E_k} \; E_z \, \| E_k(m_k(G(w))) - w_k \|_1

    for each attribute k, on a table of ``samples`` (arXiv:2101.02477, section 3.2). The module, which is not changed
    otherwise, samples by them from then on: ``module.sample(16, attributes={"hue": .3})``, and its checkpoints have
    them.

    Args:
        module: by its averaged weights if there are any.
        folder: for a checkpoint, from which a call that was stopped goes on, and losses, in a folder of its own by what
            is measured on the generator's samples, and by the settings. None leaves nothing on disk.
        samples: in the table, >= 2.
        steps: updates.
        batch_size: of the table's rows.
        lr: of Adam.
        width: of the encoders.
        seed: of the table and the encoders.

    Raises:
        ValueError: for numbers below 1, and for a module that has no attributes.

    >>> from lightning_gans.networks import StyleDiscriminator, StyleGenerator
    >>> networks = StyleGenerator((3, 8, 8), 8, widths=4, groups=[4, 4]), StyleDiscriminator((3, 8, 8), widths=4)
    >>> model = GANControl(*networks, latent_dim=8, groups={"light": 4, "other": 4},
    ...                    measure=lambda x: {"light": x.mean((1, 2, 3))})
    >>> encoders = fit_control(model, samples=64, steps=5)
    >>> encoders("light", torch.zeros(2, 1)).shape, model.sample(2, attributes={"light": 0.3}).shape
    (torch.Size([2, 4]), torch.Size([2, 3, 8, 8]))
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, width=width)
    checks.at_least(2, samples=samples)
    checks.positive(lr=lr)
    if not isinstance(module, GANControl):
        raise ValueError(f"module must be a GANControl, got a {type(module).__name__}.")
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():  # a prediction may be under way
        torch.manual_seed(seed)
        features, parts = _table(module, samples, seed)
        encoders = AttributeEncoders({name: x.shape[1] for name, x in features.items()}, module.groups, width)
        encoders.fit_to(features)
        items = torch.cat([*features.values(), *parts.values()], 1)
        fit_items(_Encoders(encoders, lr), items, None, batch_size, steps, folder, seed=seed)  # items tell the network
    module.learned(encoders)
    return encoders


@torch.no_grad()
def _table(module: GANControl, samples: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features (samples, F) and parts of w by attribute."""
    source, rows = torch.Generator().manual_seed(seed), list[tuple[dict[str, Tensor], dict[str, Tensor]]]()
    with evaluating(network := module.network):
        for n in [min(256, samples - done) for done in range(0, samples, 256)]:
            z, labels = module.latents(n, generator=source)
            w = to_w(network, z, labels)
            split = dict(zip(module.groups, w.split(list(module.groups.values()), 1)))
            found = measured(module.measure, from_w(network, w, labels), module.attributes)
            rows.append((found, {name: split[name] for name in module.attributes}))
    return tuple({name: torch.cat([row[i][name] for row in rows]) for name in module.attributes} for i in range(2))  # type: ignore[return-value]


class _Encoders(GenerativeModule):
    """Encoders that are fitted to rows of features and parts of w, side by side."""

    counted, made_by, latent_dim = "e", "encoders", 1

    def __init__(self, encoders: AttributeEncoders, lr: float) -> None:
        super().__init__()
        self.encoders = encoders
        self.lengths = [*encoders.arguments["features"].values(), *encoders.arguments["sizes"].values()]
        self.play(Player("e", ("encoders",), lr))

    def terms(self, player: str, batch: Batch) -> Terms:
        columns = batch.real.split(self.lengths, 1)
        pairs = zip(self.encoders.nets, columns, columns[len(columns) // 2 :])
        return {name: (self.encoders(name, x) - w).abs().mean() for name, x, w in pairs}
