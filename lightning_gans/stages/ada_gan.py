"""The data of AdaGAN's next round: drawn by weights of what the mixture misses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.datamodules.resampled import Resampled
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.functional.boosting import BOOSTS, Beta, ratio_of, step_size
from lightning_gans.functional.conditional import score
from lightning_gans.functional.modes import evaluating
from lightning_gans.metrics.extractors import content_hash, weights_hash
from lightning_gans.runs.atomic import replacing, write_text
from lightning_gans.stages.fits import fit_items, key_of
from lightning_gans.wrappers.mixture import MixtureGenerator


def reweight(
    data: GANDataModule,
    last: GenerativeModule | None,
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
    ``<folder>/weights.pt``, from where a round that goes on takes them, if ``weights.json`` beside them tells the same
    settings, data and mixture.

    Args:
        data: the plain data.
        last: the module of the last round, or None.
        classifier: logits (N,) or (N, 1), high for data; a new one for each round.
        folder: the round's.
        weights: of ``functional.boosting``; "topk" takes the half of the items with the smallest ratio.
        beta: as of `AdaGAN`.
        steps: updates of the classifier.
        batch_size: real samples, and fakes, of each.
        lr: of its Adam.

    >>> import tempfile
    >>> from lightning_gans import AdaGAN
    >>> from lightning_gans.datamodules import Ring
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> last = AdaGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = reweight(Ring(), last, ToyDiscriminator(width=8), folder, steps=5)
    >>> type(data).__name__, data.probabilities.shape
    ('Resampled', torch.Size([10000]))
    """
    checks.one_of("weights", weights, BOOSTS)
    if last is None:
        return data
    path = Path(folder) / "weights.pt"
    data.setup("fit")
    settings = {"weights": weights, "beta": beta, "steps": steps, "batch_size": batch_size, "lr": lr,
                "mixture": weights_hash(last.network), "items": content_hash(_items(data, "train")),
                "classifier": {name: list(p.shape) for name, p in classifier.named_parameters()}}  # fmt: skip
    told = path.with_suffix(".json")
    key = key_of(settings)
    if not (path.is_file() and told.is_file() and key_of(json.loads(told.read_text())) == key):
        components = len(last.generator.components) if isinstance(last.generator, MixtureGenerator) else 1
        h = density_ratio(
            data, last, classifier, steps=steps, batch_size=batch_size, lr=lr, folder=path.with_name("classifier")
        )
        found = BOOSTS[weights](h, 0.5 if weights == "topk" else step_size(beta, components))
        told.unlink(missing_ok=True)
        with replacing(path) as temporary:
            torch.save(found, temporary)
        write_text(told, json.dumps(settings, indent=1) + "\n")
    return Resampled(data, torch.load(path, weights_only=True))


def density_ratio(
    data: GANDataModule,
    module: GenerativeModule,
    classifier: nn.Module,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    looks: int = 20,
    folder: str | Path | None = None,
) -> Tensor:
    """h = dP / dP_data (N,) at the training items, P the law of ``module``'s samples, by a classifier that is trained.

    The classifier's weights are the best of ``looks`` looks at the held-out items: a classifier that knows its training
    items by heart would say 0 for all of them. With a ``folder``, a call that was stopped goes on.

    >>> from lightning_gans import GAN
    >>> from lightning_gans.datamodules import Ring
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> model = GAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2)
    >>> h = density_ratio(Ring(), model, ToyDiscriminator(width=8), steps=5)
    >>> h.shape, bool((h > 0).all())
    (torch.Size([10000]), True)
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, looks=looks)
    checks.positive(lr=lr)
    data.setup("fit")
    items, held = (_items(data, split) for split in ("train", "test"))
    fakes = module.sample(len(held), seed=0).to(held)
    look = _Look(held, fakes, max(1, steps // looks))
    mixture = weights_hash(module.network)
    fit_items(
        _Ratio(classifier, module, lr), items, None, batch_size, steps, folder, [look], mixture=mixture, looks=looks
    )
    classifier.load_state_dict(look.kept)
    with torch.no_grad():
        return ratio_of(torch.cat([_logits(classifier.eval(), x) for x in items.split(1024)]))


class _Ratio(GenerativeModule):
    """A classifier of data against samples of a module, which is none of its networks."""

    counted, made_by, latent_dim = "c", "classifier", 1

    def __init__(self, classifier: nn.Module, module: GenerativeModule, lr: float) -> None:
        super().__init__()
        self.classifier, self.fakes = classifier, module.sample
        self.play(Player("c", ("classifier",), lr))

    def terms(self, player: str, batch: Batch) -> Terms:
        return {
            "cross_entropy": _cross_entropy(self.classifier, batch.real, self.fakes(len(batch.real)).to(batch.real))
        }


class _Look(pl.Callback):
    """Keeps the weights with which the classifier was best at held-out items."""

    def __init__(self, held: Tensor, fakes: Tensor, every: int) -> None:
        super().__init__()
        self.held, self.fakes, self.every = held, fakes, every
        self.best, self.kept = float("inf"), dict[str, Any]()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step % self.every and trainer.global_step < trainer.max_steps:
            return
        with torch.no_grad(), evaluating(pl_module.classifier):
            now = float(_cross_entropy(pl_module.classifier, self.held, self.fakes))
        if now < self.best:
            self.best, self.kept = now, copy.deepcopy(pl_module.classifier.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.kept = state["best"], state["kept"]


def _items(data: GANDataModule, split: Literal["train", "test"]) -> Tensor:
    return torch.cat([b[0] if isinstance(b, (tuple, list)) else b for b in data.fixed_loader(split)]).cpu()


def _cross_entropy(classifier: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-_logits(classifier, real)).mean() + F.softplus(_logits(classifier, fake)).mean()


def _logits(classifier: nn.Module, x: Tensor) -> Tensor:
    return score(classifier, x, name="classifier")
