"""Exact scores where the data's distribution is known: modes covered, W1 and tail mass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gans import checks
from lightning_gans.callbacks.score import ScoreCallback, labels_as_in
from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine.contract import Pictures, Samples
from lightning_gans.metrics import (
    ClassifierExtractor,
    class_coverage,
    mode_coverage,
    tail_mass,
    to_uint8,
    wasserstein1,
)
from lightning_gans.samplers.base import SamplerFactory, name_of

_BLOCK = 1000  # samples made at once
_CLASSIFIER_IMAGES = 20_000  # stacked images, of three digits each, that are enough to train a digit classifier


class ModeCoverage(ScoreCallback):
    """What the data allow to be known exactly, every n generator updates.

    * With ``datamodule.modes`` (K, d) in two and more dimensions: ``metrics/modes`` (number covered),
      ``metrics/high_quality`` (share of samples within ``radius`` of a mode) and ``metrics/reverse_kl`` (nats).
    * On the line: ``metrics/w1``, the exact W1 between samples and as many draws of ``datamodule.sample_exact``; the
      samples' ``metrics/mean`` and ``metrics/std``; and, with ``datamodule.tail_threshold``, ``metrics/tail_mass``, the
      share of samples beyond it.
    * For stacked digits (three channels, 1000 classes ``100 a + 10 b + c``): ``metrics/modes/lenet`` and
      ``metrics/reverse_kl/lenet``, by `ClassifierExtractor` of the digits that are stacked.

    Args:
        every_n_steps: generator updates between two measurements, >= 1.
        num_samples: number of samples; 26,000 is the custom for the 1000 modes of StackedMNIST.
        threshold: samples of high quality that make a mode covered, >= 1.
        radius: in the data's units; None = 4 times ``datamodule.std``.
        at_start: measure at step 0 too.
        seed: of noise and exact draws.
        cache_dir: folder for the classifier; None = ``$LIGHTNING_GANS_CACHE``, else ``~/.cache/lightning_gans``.
        sampler: as for `GenerativeMetrics`; the names of the scores then end in its name, ``metrics/modes/drs``.

    Raises:
        ValueError: for settings out of range, and for data of which nothing is known exactly.

    >>> callback = ModeCoverage(num_samples=2500)  # for pl.Trainer(callbacks=[EMA(), callback])
    >>> callback.history = [{"step": n, "metrics/modes": modes} for n, modes in ((0, 2.0), (500, 8.0), (1000, 7.0))]
    >>> callback.best("modes")  # as after a training
    {'step': 500, 'metrics/modes': 8.0}
    """

    needs = Pictures
    higher_is_better = ("modes", "high_quality")
    in_progress_bar = ("modes", "high_quality", "w1")

    def __init__(
        self,
        every_n_steps: int = 500,
        num_samples: int = 10_000,
        threshold: int = 1,
        radius: float | None = None,
        at_start: bool = True,
        seed: int = 0,
        cache_dir: str | None = None,
        sampler: SamplerFactory | None = None,
    ) -> None:
        super().__init__(every_n_steps, at_start, seed)
        checks.at_least_one(num_samples=num_samples, threshold=threshold)
        checks.positive(**checks.given(radius=radius))
        self.num_samples, self.threshold, self.radius, self.cache_dir = num_samples, threshold, radius, cache_dir
        self.sampler = sampler
        self._classifier: ClassifierExtractor | None = None

    @property
    def label(self) -> str:
        """One callback of this class is enough, and one for each sampler."""
        return "coverage" if self.sampler is None else f"coverage-{name_of(self.sampler)}"

    def check(self, trainer: pl.Trainer, pl_module: Samples) -> None:
        """Something must be known of the data."""
        self._classifier = None  # another trainer, other data
        data = datamodule_of(trainer)
        line = hasattr(data, "sample_exact") and getattr(data, "shape", None) == (1,)
        if not (line or getattr(data, "modes", None) is not None or _stacked(data)):
            raise ValueError(
                "ModeCoverage needs a datamodule with modes, a one-dimensional one with sample_exact, or stacked "
                f"digits; got {getattr(data, 'name', None) or type(data).__name__}."
            )

    def will_measure(self, trainer: pl.Trainer, pl_module: Samples) -> list[str]:
        """Of the data; tail_mass is of some."""
        found, data = ["modes", "high_quality", "reverse_kl"], datamodule_of(trainer)
        if _stacked(data):
            found = ["modes/lenet", "reverse_kl/lenet"]
        elif getattr(data, "shape", None) == (1,):
            found = ["w1", "mean", "std", "tail_mass"]
        behind = "" if self.sampler is None else f"/{name_of(self.sampler)}"
        return [f"metrics/{name}{behind}" for name in found]

    def measure(self, trainer: pl.Trainer, pl_module: Samples) -> dict[str, float]:
        """The same on every rank: samples are cheap here."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        own = torch.Generator().manual_seed(self.seed)
        sizes = [min(_BLOCK, self.num_samples - start) for start in range(0, self.num_samples, _BLOCK)]
        weights = "raw" if pl_module.ema is None else "ema"
        known = None if pl_module.num_classes is None else data.reference("train")[1]
        labels, law = labels_as_in(known, self.num_samples, pl_module.num_classes, self.seed)
        self.protocol = {"samples": self.num_samples, "labels": law, "seed": self.seed, "weights": weights}
        self.protocol["network_calls"] = pl_module.network_calls
        if self.sampler is None:
            parts = [None] * len(sizes) if labels is None else labels.split(_BLOCK)
            samples = [pl_module.sample(size, some, own) for size, some in zip(sizes, parts)]
            return self._values(data, samples, own, pl_module.device)
        sampler = self.sampler(pl_module)
        samples = list(sampler.sample(self.num_samples, labels, self.seed, progress=False).split(_BLOCK))
        self.protocol |= sampler.protocol
        values = self._values(data, samples, own, pl_module.device)
        return {f"{name}/{name_of(self.sampler)}": value for name, value in values.items()}

    def _values(self, data: Any, samples: list[Tensor], own: torch.Generator, device: torch.device) -> dict[str, float]:
        if _stacked(data):
            return self._stacked_coverage(data, samples, device)
        points = torch.cat(samples).flatten(1).cpu()
        return self._line(data, points, own) if data.shape == (1,) else self._plane(data, points)

    def _plane(self, data: Any, points: Tensor) -> dict[str, float]:
        radius = self.radius or 4 * float(data.std)
        found = mode_coverage(points, data.modes, radius, self.threshold, getattr(data, "mode_weights", None))
        self.protocol |= {"modes": len(data.modes), "radius": radius, "threshold": self.threshold}
        return {f"metrics/{name}": float(value) for name, value in found._asdict().items()}

    def _line(self, data: Any, points: Tensor, own: torch.Generator) -> dict[str, float]:
        exact = data.sample_exact(self.num_samples, own)
        values = {"metrics/w1": float(wasserstein1(points, exact))}
        values |= {"metrics/mean": float(points.mean()), "metrics/std": float(points.std())}
        if (threshold := getattr(data, "tail_threshold", None)) is not None:
            values["metrics/tail_mass"] = tail_mass(points, threshold)
            self.protocol |= {"tail_threshold": float(threshold), "exact_tail_mass": getattr(data, "tail_mass", None)}
        return values

    def _stacked_coverage(self, data: Any, samples: list[Tensor], device: torch.device) -> dict[str, float]:
        if self._classifier is None:
            self._classifier = digit_classifier(data, self.cache_dir, device)
        self._classifier.to(device)
        modes = []
        for part in samples:
            _, logits = self._classifier(to_uint8(part, data.value_range).flatten(0, 1)[:, None])
            assert logits is not None
            modes.append((logits.argmax(1).view(-1, 3) * torch.tensor([100, 10, 1], device=device)).sum(1))
        found = class_coverage(torch.cat(modes).cpu(), 1000, self.threshold)
        self.protocol |= {"modes": 1000, "threshold": self.threshold, **self._classifier.describe()}
        return {"metrics/modes/lenet": float(found.modes), "metrics/reverse_kl/lenet": found.reverse_kl}


def digit_classifier(
    data: Any, cache_dir: str | None = None, device: torch.device | str = "cpu"
) -> ClassifierExtractor:
    """The LeNet that tells the single digits (N, 1, H, W) of stacked ones: of MNIST, or of the digits of the stacks."""
    if hasattr(data, "digits"):
        images, digits = data.digits("train")
    else:
        images, labels = (part[:_CLASSIFIER_IMAGES] for part in data.reference("train"))
        images = images.flatten(0, 1)[:, None]
        digits = torch.stack([labels // 100, labels // 10 % 10, labels % 10], dim=1).flatten()
    with torch.inference_mode(False):  # trainer.test is in inference mode, where nothing can be trained
        return ClassifierExtractor(images, digits, "lenet", cache_dir=cache_dir, device=device)


def _stacked(data: Any) -> bool:
    """Three channels, 1000 classes."""
    return getattr(data, "num_classes", None) == 1000 and len(data.shape) == 3 and data.shape[0] == 3
