"""Techniques of several rounds: each round is one ``fit``, on top of what the rounds before have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_gans import checks
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.stages.fits import fit


def boost(
    make: Callable[[GenerativeModule | None], GenerativeModule],
    data: Any,
    rounds: int,
    folder: str | Path,
    *,
    max_steps: int,
    first: GenerativeModule | None = None,
    prepare: Callable[[GenerativeModule], None] | None = None,
    callbacks: Callable[[], Sequence[Any]] = tuple,
    every_n_steps: int = 1000,
    seed: int = 0,
    **options: Any,
) -> GenerativeModule:
    """Train round after round, and return the last one's module, whose samples are the mixture's.

    Each round has a folder ``round-<k>`` with one checkpoint, ``last.ckpt``. Called again after it was stopped, it
    passes over finished rounds and goes on in the middle of the one that was not, to the same end to the bit (as far as
    ``fit`` resumes so). A round that a later one stands on stays as it is, with a warning if ``max_steps`` has grown.

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

    >>> import tempfile
    >>> from lightning_gans import BoostedGAN
    >>> from lightning_gans.datamodules import Ring
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> def make(last):
    ...     return BoostedGAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2, base=last)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = boost(make, Ring(batch_size=8), 2, folder, max_steps=1, logger=False)
    >>> model.sample(4).shape, len(model.generator.components)
    (torch.Size([4, 2]), 2)
    """
    checks.at_least_one(rounds=rounds, max_steps=max_steps, every_n_steps=every_n_steps)
    last = first
    for k in range(rounds):
        place = Path(folder) / f"round-{k}"
        pl.seed_everything(seed + k, verbose=False)
        module = make(last)
        source = partial(data, last, place) if callable(data) else data
        later = place.with_name(f"round-{k + 1}") / "last.ckpt"
        begin = (lambda: None) if prepare is None else partial(prepare, module)
        fit(module, source, max_steps, place, callbacks=callbacks(), every_n_steps=every_n_steps, begin=begin,
            finished=later.is_file(), **options)  # fmt: skip
        last = module
    assert last is not None
    return last
