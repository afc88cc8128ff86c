"""The same noise, time after time: the texts that the model makes of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lightning_gans import checks
from lightning_gans.callbacks.probe import AlsoAtTheEnds, Draws
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.compat.shell import printable
from lightning_gans.engine.contract import Samples, Text
from lightning_gans.engine.loggers import attempt
from lightning_gans.runs.atomic import write_text


class SampleText(AlsoAtTheEnds, Draws):
    """Writes lines of one fixed noise every n generator updates, at the start and at the end.

    To ``<folder>/samples/step_000100.txt`` (``latest.txt`` is the newest), the first of them to the output, and as
    ``samples/text`` to W&B's table and TensorBoard's text. A model card shows ten of the last ones. EMA weights are
    used where there are any.

    Args:
        every_n_steps: generator updates between them; None: none at all.
        lines: number of samples.
        shown: of which so many are printed.
        temperature: of sampling, > 0; None: as the model is.
        seed: of the fixed noise.
        dirpath: the folder; None means the logger's, or ``default_root_dir``.

    Attributes:
        texts: the last lines, part of the checkpoint.

    Raises:
        TypeError: before training starts, of a model that makes no text.
        ValueError: for settings out of range, and if the folder cannot be written to.

    >>> from lightning_gans import MLE
    >>> from lightning_gans.networks import LanguageModel
    >>> callback = SampleText(every_n_steps=100, lines=2)  # for pl.Trainer(callbacks=[callback])
    >>> lines = callback.made(MLE(LanguageModel((8, 6), 4, 4)))
    >>> [len(line.split()) for line in lines]  # numbers, as long as no data say what symbols they are
    [8, 8]
    """

    place = "samples"
    needs = Text

    def __init__(
        self,
        every_n_steps: int | None = 500,
        lines: int = 64,
        shown: int = 3,
        temperature: float | None = None,
        seed: int = 0,
        dirpath: str | Path | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        checks.at_least_one(lines=lines)
        checks.at_least(0, shown=shown, seed=seed)
        checks.positive(**checks.given(temperature=temperature))
        self.lines, self.shown, self.temperature = lines, shown, temperature
        self.seed, self.dirpath = seed, dirpath
        self.texts: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """The last lines, for the model card."""
        return {"texts": self.texts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.texts = list(state_dict["texts"])

    def act(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        """Make, write, print and log the lines."""
        self.drawn_step, self.texts = step, self.made(module)
        if not trainer.is_global_zero:
            return
        for name in (f"step_{step:06d}", "latest"):
            write_text(self.folder / f"{name}.txt", "\n".join(self.texts) + "\n")
        with printable():
            for line in self.texts[: self.shown]:
                tqdm.write(f"update {step:<8} {line}")  # above the bar
        for logger in trainer.loggers:
            attempt(logger, partial(self._log, logger, step))

    def made(self, module: Samples) -> list[str]:
        """The lines of the module as it is; tokens where their symbols are not known."""
        tokens = module.sample(self.lines, seed=self.seed, temperature=self.temperature).cpu()
        vocabulary = getattr(module, "vocabulary", None)
        return [" ".join(map(str, row)) for row in tokens.tolist()] if vocabulary is None else vocabulary.decode(tokens)

    def _log(self, logger: Any, step: int) -> None:
        if isinstance(logger, loggers.WandbLogger):
            logger.log_text("samples/text", ["line"], [[line] for line in self.texts], step=step)
        elif isinstance(logger, loggers.TensorBoardLogger):
            logger.experiment.add_text("samples/text", "\n".join(f"    {line}" for line in self.texts), step)
