"""Are the processes of a distributed run still training the same networks?"""

from __future__ import annotations

from lightning_gans.callbacks.probe import EveryNSteps
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed


class RankConsistency(EveryNSteps):
    """Compares all parameters between the processes, bit for bit, and stops the run where they differ.

    Copies that drift apart (a seed that differs, a parameter that is changed on one process only) do not fail by
    themselves: every process goes on, and the result is nobody's. With one process there is nothing to compare.

    Args:
        every_n_steps: generator updates between two comparisons, >= 1. One reads every parameter once.

    Raises:
        RuntimeError: on all processes, naming the first parameter that differs.

    >>> callback = RankConsistency(every_n_steps=100)  # for pl.Trainer(devices=2, callbacks=[callback])
    >>> callback.every_n_steps
    100
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        super().__init__(every_n_steps)

    def act(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        """Compare after generator update number ``step``."""
        if (name := distributed.drifted(module)) is not None:
            raise RuntimeError(
                f"After generator update {step} the parameter {name!r} is not the same on all "
                f"{distributed.world_size()} processes: something changes it, or draws random numbers, on some only."
            )
