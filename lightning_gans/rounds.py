"""Techniques of several rounds: each round is one ``fit``, on top of what the rounds before have left."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.datamodules.resampled import Resampled
from lightning_gans.functional.boosting import BOOSTS, Beta, ratio_of, step_size
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.gan import GANModule
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, read_checkpoint
from lightning_gans.wrappers.mixture import MixtureGenerator


def boost(
    make: Callable[[GANModule | None], GANModule],
    data: Any,
    rounds: int,
    folder: str | Path,
    *,
    max_steps: int,
    first: GANModule | None = None,
    prepare: Callable[[GANModule], None] | None = None,
    callbacks: Callable[[], Sequence[Any]] = tuple,
    every_n_steps: int = 1000,
    seed: int = 0,
    **options: Any,
) -> GANModule:
    """Train round after round, and return the last one's module, whose samples are the mixture's.

    Each round has a folder ``round-<k>`` with one checkpoint, ``last.ckpt``. Called again after it was stopped, it
    passes over finished rounds and goes on in the middle of the one that was not, to the same end to the bit (as far as
    ``fit`` resumes so).

    Args:
        make: the module of a round, of the last round's (``first`` before the first round): ``lambda last:
            BoostedGAN(G(), D(), 2, base=last)``. Must always make the same networks under the same seed.
        data: a data module or loader; or a function of the last round's module and this round's folder that makes one
            (`reweight`, say).
        rounds: how many, >= 1.
        folder: where to write.
        max_steps: generator updates of each round.
        first: a trained module to start from.
        prepare: done once to a new module, before its training: `match_moments` or `fit_vae` of its new component.
        callbacks: makes the callbacks of a round's trainer.
        every_n_steps: generator updates from checkpoint to checkpoint.
        seed: round k is seeded with ``seed + k``.
        options: of the ``Trainer`` of each round.

    Raises:
        ValueError: for numbers below 1, and for a checkpoint that is unreadable or goes beyond ``max_steps``.
    """
    checks.at_least_one(rounds=rounds, max_steps=max_steps, every_n_steps=every_n_steps)
    last = first
    for k in range(rounds):
        place = Path(folder) / f"round-{k}"
        pl.seed_everything(seed + k, verbose=False)
        module, checkpoint = make(last), place / "last.ckpt"
        saved = read_checkpoint(checkpoint) if checkpoint.is_file() else None
        if saved is not None and saved["global_step"] > max_steps:
            raise ValueError(f"max_steps is {max_steps}, but {checkpoint} is of {saved['global_step']} updates.")
        if saved is None or saved["global_step"] < max_steps:
            place.mkdir(parents=True, exist_ok=True)
            source = data(last, place) if callable(data) else data
            if saved is None and prepare is not None:
                prepare(module)
            keep = lightning_callbacks.ModelCheckpoint(
                place, "last", every_n_train_steps=every_n_steps, enable_version_counter=False
            )
            trainer = pl.Trainer(
                max_steps=max_steps,
                callbacks=[*callbacks(), keep],
                plugins=[AtomicCheckpointIO()],
                **{"max_epochs": -1, "default_root_dir": place, "limit_val_batches": 0, **options},
            )
            where = {"datamodule": source} if hasattr(source, "setup") else {"train_dataloaders": source}
            trainer.fit(module, ckpt_path=None if saved is None else str(checkpoint), **where)
            trainer.save_checkpoint(checkpoint)
        else:
            module.load_state_dict(saved["state_dict"])
            module.on_load_checkpoint(saved)
        last = module
    assert last is not None
    return last


# ---------------------------------------------------------------------- AdaGAN
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
        torch.save(found, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
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


# ---------------------------------------------------------------------- before a round
def match_moments(
    generator: nn.Module,
    items: Tensor,
    latent_dim: int,
    *,
    labels: Tensor | None = None,
    steps: int = 500,
    batch_size: int = 256,
    lr: float = 1e-3,
) -> None:
    """Train a generator, in place, until the mean and covariance of its samples are those of ``items``.

    Minimises (||m - m'||^2 + ||C - C'||_F^2 / tr C) / tr C, m and C the mean and covariance of all items, m' and C' of
    a batch of samples: crude, and enough to begin with samples in the tail.

    Args:
        generator: noise (N, latent_dim) to samples.
        items: (M, ...), those of the tail, say; M >= 2.
        latent_dim: length of z.
        labels: (M,) their classes, for a conditional generator.
        steps: updates.
        batch_size: samples for each.
        lr: of Adam.

    Raises:
        ValueError: for numbers below 1, for fewer than two items, for items that are all the same.
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, latent_dim=latent_dim)
    _spread(items)
    mean, covariance = _moments(items)
    total = covariance.trace()
    optimizer = torch.optim.Adam(generator.parameters(), lr=lr)
    for _ in range(steps):
        chosen = None if labels is None else labels[torch.randint(len(labels), (batch_size,))]
        m, c = _moments(conditional_call(generator, _noise_like(items, batch_size, latent_dim), chosen))
        loss = ((m - mean).square().sum() + (c - covariance).square().sum() / total) / total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def fit_vae(
    generator: nn.Module,
    items: Tensor,
    latent_dim: int,
    *,
    labels: Tensor | None = None,
    sigma: float = 0.5,
    width: int = 64,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
) -> None:
    """Train a generator, in place, as the decoder of a small variational autoencoder (arXiv:1312.6114) of ``items``.

    Minimises E ||x - G(z)||^2 / (2 s^2) + KL(q(z | x) || N(0, I)), z ~ q(z | x) a Gaussian of independent coordinates
    whose moments an MLP of one hidden layer tells; s is ``sigma`` times the standard deviation of the items. The MLP is
    thrown away.

    Args:
        generator: as for `match_moments`, like the arguments that are not listed here.
        items: (M, ...).
        latent_dim: length of z.
        labels: (M,) classes.
        sigma: s in units of the items' standard deviation, > 0.
        width: of the MLP.
        steps: updates.
        batch_size: items for each.
        lr: of Adam.
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, latent_dim=latent_dim, width=width)
    checks.positive(sigma=sigma)
    flat, spread = items.flatten(1), _spread(items)
    mean = flat.mean(0)
    device_and_type: dict[str, Any] = {"device": items.device, "dtype": items.dtype}
    layers = nn.Linear(flat.shape[1], width), nn.Tanh(), nn.Linear(width, 2 * latent_dim)
    encoder = nn.Sequential(*layers).to(**device_and_type)
    optimizer = torch.optim.Adam([*generator.parameters(), *encoder.parameters()], lr=lr)
    for _ in range(steps):
        chosen = torch.randint(len(items), (batch_size,), device=items.device)
        x = flat[chosen]
        mu, log_std = encoder((x - mean) / spread).chunk(2, 1)
        z = mu + log_std.exp() * _noise_like(items, batch_size, latent_dim)
        fake = conditional_call(generator, z, None if labels is None else labels[chosen]).flatten(1)
        kl = (mu.square() + (2 * log_std).exp() - 1) / 2 - log_std
        loss = ((x - fake).square().sum(1) / (2 * (sigma * spread) ** 2) + kl.sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _noise_like(items: Tensor, n: int, latent_dim: int) -> Tensor:
    return torch.randn(n, latent_dim, device=items.device, dtype=items.dtype)


def _moments(items: Tensor) -> tuple[Tensor, Tensor]:
    flat = items.flatten(1)
    return flat.mean(0), torch.cov(flat.T).view(flat.shape[1], -1)


def _spread(items: Tensor) -> float:
    """Root mean square distance of a coordinate from its mean."""
    spread = float((items - items.mean(0)).square().mean().sqrt()) if len(items) > 1 else 0.0
    if not spread > 0:
        raise ValueError(f"items must be at least two different ones, got {len(items)} of spread {spread:g}.")
    return spread
