"""The data of AdaGAN's next round: drawn by weights of what the mixture misses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.datamodules.resampled import Resampled
from lightning_gans.functional.boosting import BOOSTS, Beta, ratio_of, step_size
from lightning_gans.gan import GANModule
from lightning_gans.runs.atomic import replacing
from lightning_gans.wrappers.mixture import MixtureGenerator


def reweight(
    data: GANDataModule,
    last: GANModule | None,
    classifier: nn.Module,
    folder: str | Path,
    *,
    weights: Literal["star", "dagger", "topk"] = "star",
    beta: Beta = "uniform",
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
) -> GANDataModule:
    """The data of AdaGAN's next round: ``data`` itself in the first one, then drawn by weights of what is missed.

    Trains ``classifier`` on fresh samples of the mixture against the data (`density_ratio`). The weights are written to
    ``<folder>/weights.pt``, from where a round that goes on takes them.

    Args:
        data: the plain data.
        last: the module of the last round, or None.
        classifier: logits (N,), high for data; a new one for each round.
        folder: the round's.
        weights: of ``functional.boosting``; "topk" takes the half of the items with the smallest ratio.
        beta: as of `AdaGAN`.
        steps: updates of the classifier.
        batch_size: real samples, and fakes, of each.
        lr: of its Adam.
    """
    checks.one_of("weights", weights, BOOSTS)
    if last is None:
        return data
    path = Path(folder) / "weights.pt"
    if not path.is_file():
        components = len(last.generator.components) if isinstance(last.generator, MixtureGenerator) else 1
        h = density_ratio(data, last, classifier, steps=steps, batch_size=batch_size, lr=lr)
        found = BOOSTS[weights](h, 0.5 if weights == "topk" else step_size(beta, components))
        with replacing(path) as temporary:
            torch.save(found, temporary)
    return Resampled(data, torch.load(path, weights_only=True))


def density_ratio(
    data: GANDataModule,
    module: GANModule,
    classifier: nn.Module,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    looks: int = 20,
) -> Tensor:
    """h = dP / dP_data (N,) at the training items, P the law of ``module``'s samples, by a classifier that is trained.

    The classifier's weights are the best of ``looks`` looks at the held-out items: a classifier that knows its training
    items by heart would say 0 for all of them.
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, looks=looks)
    data.setup("fit")
    items, held = (_items(data, split) for split in ("train", "test"))
    optimizer = torch.optim.Adam(classifier.parameters(), lr=lr)
    fakes = module.sample(len(held)).to(held)
    best, kept = float("inf"), copy.deepcopy(classifier.state_dict())
    for step in range(1, steps + 1):
        x = items[torch.randint(len(items), (batch_size,))]
        loss = _cross_entropy(classifier.train(), x, module.sample(batch_size).to(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // looks) == 0 or step == steps:
            with torch.no_grad():
                if (now := float(_cross_entropy(classifier.eval(), held, fakes))) < best:
                    best, kept = now, copy.deepcopy(classifier.state_dict())
    classifier.load_state_dict(kept)
    with torch.no_grad():
        return ratio_of(torch.cat([classifier.eval()(x) for x in items.split(1024)]))


def _items(data: GANDataModule, split: Literal["train", "test"]) -> Tensor:
    return torch.cat([b[0] if isinstance(b, (tuple, list)) else b for b in data.fixed_loader(split)]).cpu()


def _cross_entropy(classifier: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-classifier(real)).mean() + F.softplus(classifier(fake)).mean()
