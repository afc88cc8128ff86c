"""Techniques of several rounds: each round is one ``fit``, on top of what the rounds before have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_gans import checks
from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.compat.lightning import pl
from lightning_gans.gan import GANModule
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, read_checkpoint


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
