"""FID, IS, KID, precision/recall and density/coverage while training, each with its protocol."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler

from lightning_gans import checks
from lightning_gans.callbacks.score import ScoreCallback, labels_as_in
from lightning_gans.compat.lightning import datamodule_of, pl
from lightning_gans.engine.contract import Latents, Pictures, Samples, has
from lightning_gans.engine.sampling import Sampling
from lightning_gans.functional.columns import Names, columns
from lightning_gans.functional.pixels import range_of
from lightning_gans.metrics import (
    METRICS,
    ClassifierExtractor,
    FeatureExtractor,
    GenerativeScores,
    InceptionExtractor,
    ModuleExtractor,
    as_extractor,
    content_hash,
    to_uint8,
)
from lightning_gans.metrics.generative import check_metrics, score_names
from lightning_gans.samplers.base import Sampler, SamplerFactory, name_of

_BLOCK = 100  # fakes that share one stream of noise


class GenerativeMetrics(ScoreCallback):
    """Scores of samples against the data set: ``metrics/fid/<extractor>``, ``metrics/is/<extractor>`` ...

    Samples come from ``pl_module.sample`` (evaluation mode, EMA weights if there are any) with noise of their own, and
    labels as frequent as in the reference, the same in every measurement, and become uint8 by round-and-clip. Their
    noise comes in blocks of 100, each with its own stream: so the scores depend, but for rounding, neither on
    ``batch_size`` (from 100 on) nor on the number of processes, among which the blocks are dealt. The reference's
    statistics are computed once.

    Args:
        every_n_steps: generator updates between two measurements, >= 1.
        extractor: ``inception`` (canonical; 2048 features of torch-fidelity's InceptionV3), ``lenet`` or ``resnet`` (a
            small classifier trained on the data set at hand at first use, then cached), a ready extractor such as a
            ``metrics.ClassifierExtractor`` of fewer epochs, or a module that maps uint8 images (N, C, H, W) to features
            (N, F) or to (features, logits).
        metrics: some of ``fid``, ``is``, ``kid``, ``prdc``, ``uniformity`` (`metrics.GenerativeScores`).
        num_fake: number of samples.
        num_real: size of the reference, drawn at random from the split; None = all of it.
        split: split of the datamodule that is the reference, ``train`` or ``test``.
        batch_size: images per forward pass of the generator and of the extractor, rounded down to a multiple of 100;
            below 100 as given.
        at_start: measure at step 0 too.
        seed: of noise, labels, reference subset, and the random subsets of IS and KID.
        value_range: range of the generator's images; None = the datamodule's, else (-1, 1).
        cache_dir: folder for trained classifiers; None = ``$LIGHTNING_GANS_CACHE``, else ``~/.cache/lightning_gans``.
        is_splits: parts of the inception score.
        kid_subsets: subsets over which KID is averaged.
        kid_subset_size: their size, lowered to the number of samples at hand.
        sampler: makes a sampler of the module at each measurement, such as the class ``samplers.RejectionSampler`` or
            a partial of it, whose samples are scored in place of the module's own; the names of the scores then end in
            its name, ``metrics/fid/lenet/drs``. Beside a callback without one: before and after. ``batch_size`` must be
            at least 100.

    Raises:
        ValueError: for settings out of range, data that are no images, and too few samples.

    >>> callback = GenerativeMetrics(extractor="lenet", metrics=["fid"])  # for pl.Trainer(callbacks=[EMA(), callback])
    >>> callback.history = [{"step": n, "metrics/fid/lenet": fid} for n, fid in ((0, 90.0), (500, 12.0), (1000, 15.0))]
    >>> callback.best("fid")  # as after a training
    {'step': 500, 'metrics/fid/lenet': 12.0}
    """

    needs = Pictures
    higher_is_better = ("is", "precision", "recall", "density", "coverage")
    in_progress_bar = ("fid",)

    def __init__(
        self,
        every_n_steps: int = 1000,
        extractor: str | nn.Module = "inception",
        metrics: Sequence[str] = METRICS,
        num_fake: int = 10_000,
        num_real: int | None = None,
        split: str = "train",
        batch_size: int = 200,
        at_start: bool = True,
        seed: int = 0,
        value_range: tuple[float, float] | None = None,
        cache_dir: str | None = None,
        is_splits: int = 10,
        kid_subsets: int = 100,
        kid_subset_size: int = 1000,
        sampler: SamplerFactory | None = None,
    ) -> None:
        super().__init__(every_n_steps, at_start, seed)
        self.metrics = check_metrics(metrics)
        names = ("inception", "lenet", "resnet")
        if not isinstance(extractor, nn.Module) and extractor not in names:
            raise ValueError(f"extractor must be one of {', '.join(names)}, or a module, got {extractor!r}.")
        checks.at_least(2, num_fake=num_fake, kid_subset_size=kid_subset_size, **checks.given(num_real=num_real))
        checks.at_least_one(batch_size=batch_size, is_splits=is_splits, kid_subsets=kid_subsets)
        if "is" in self.metrics and is_splits > num_fake:
            raise ValueError(f"is_splits must be at most num_fake={num_fake}, got {is_splits}.")
        checks.one_of("split", split, ("train", "test"))
        self.num_fake, self.num_real, self.split, self.batch_size = num_fake, num_real, split, batch_size
        if sampler is not None and batch_size < _BLOCK:
            raise ValueError(f"batch_size must be at least {_BLOCK} with a sampler, got {batch_size!r}.")
        if value_range is not None:
            checks.interval("value_range", value_range)
        self.value_range, self.cache_dir, self.sampler = value_range, cache_dir, sampler
        self._sampler: Sampler | None = None
        self._options: dict[str, int] = {
            "is_splits": is_splits,
            "kid_subsets": kid_subsets,
            "kid_subset_size": kid_subset_size,
        }
        if isinstance(extractor, nn.Module):
            extractor = as_extractor(extractor)
        self.extractor = extractor  # a callback's attribute: never in the module's state_dict() or parameters()
        self._extractor: FeatureExtractor | None = None  # on the device, of the data at hand
        self._scores: GenerativeScores | None = None
        self._reference: Tensor | None = None
        self._law = "none"  # of the labels of the fakes
        self._collected: tuple[Tensor, Tensor | None] | None = None
        self._finite: list[Tensor] = []  # whether the fakes of this measurement are, by forward pass, on the device

    @property
    def label(self) -> str:
        """Name of the extractor, with ``-test`` behind it where the test split is the reference, and the sampler's."""
        return self._measured_by + ("" if self.sampler is None else f"-{name_of(self.sampler)}")

    @property
    def _measured_by(self) -> str:
        name = self.extractor if isinstance(self.extractor, str) else self.extractor.name
        return name if self.split == "train" else f"{name}-{self.split}"

    @property
    def _suffix(self) -> str:
        return self._measured_by + ("" if self.sampler is None else f"/{name_of(self.sampler)}")

    def check(self, trainer: pl.Trainer, pl_module: Samples) -> None:
        """The reference must be images and large enough, and a classifier needs labels."""
        self._scores = self._reference = self._collected = None  # another trainer, other data
        if self.extractor != "inception":
            self._extractor = None
        images, labels = self._data(trainer)
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(
                f"GenerativeMetrics needs uint8 images (N, C, H, W) as reference, got {images.dtype} of shape "
                f"{tuple(images.shape)}; for toy data use ModeCoverage."
            )
        needed = 6 if "prdc" in self.metrics else 2
        for what, number in (("num_fake", self.num_fake), ("the reference", self.num_real or len(images))):
            if number < needed:
                raise ValueError(
                    f"{what} must be at least {needed} for the metrics {', '.join(self.metrics)}, got {number}."
                )
        if self.num_real is not None and self.num_real > len(images):
            raise ValueError(f"num_real must be at most {len(images)}, the size of the reference, got {self.num_real}.")
        if isinstance(self.extractor, str) and self.extractor != "inception" and labels is None:
            raise ValueError(
                f"extractor={self.extractor!r} is trained on the data set's labels, but there are none: "
                "take 'inception' or give a module."
            )
        if isinstance(self.extractor, FeatureExtractor) and "is" in self.metrics and not self._logits(images[:1]):
            raise ValueError(
                f"metrics must be without 'is' for the extractor {self.extractor.name!r}, which has no class logits."
            )

    def will_measure(self, trainer: pl.Trainer, pl_module: Samples) -> list[str]:
        """By metrics, extractor and sampler."""
        return [f"metrics/{name}/{self._suffix}" for name in score_names(self.metrics)]

    def measure(self, trainer: pl.Trainer, pl_module: Samples) -> dict[str, float]:
        """Make the fakes, extract, score."""
        extractor = self._ready_extractor(trainer, pl_module)
        if self._scores is None:
            reference = self._reference_images(trainer)
            real, _ = self._extract(trainer, extractor, len(reference), lambda rows: reference[rows])
            self._scores = GenerativeScores(real, self.metrics, seed=self.seed, **self._options)  # type: ignore[arg-type]
            self._reference, self.protocol = reference, {}
        self._finite.clear()
        fake, logits = self._extract(trainer, extractor, self.num_fake, self._fake_images(trainer, pl_module))
        self.protocol = self._describe(pl_module, extractor)
        self.protocol["network_calls"] = pl_module.network_calls
        if self._sampler is not None:
            self.protocol |= self._sampler.protocol
            self._sampler = None
        finite = not self._finite or bool(torch.stack(self._finite).all())  # the one wait for all of them
        if trainer.strategy.reduce_boolean_decision(finite):
            scores = self._scores(fake, logits)
        else:
            scores = dict.fromkeys(self._scores.names, math.nan)
            warnings.warn(
                f"the generator's samples are not finite at step {pl_module.global_step}; its scores are NaN.",
                stacklevel=1,
            )
        return {f"metrics/{name}/{self._suffix}": value for name, value in scores.items()}

    # ------------------------------------------------------------------ extractor
    def _logits(self, image: Tensor) -> bool:
        """Whether a given extractor has them; a module tells by one image."""
        extractor = self.extractor
        if not isinstance(extractor, ModuleExtractor):
            return bool(getattr(extractor, "has_logits", False))
        like = next(extractor.parameters(), image)
        with torch.no_grad():
            return extractor(image.to(like.device))[1] is not None

    def _ready_extractor(self, trainer: pl.Trainer, pl_module: Samples) -> FeatureExtractor:
        """The extractor on the module's device; rank 0 trains or downloads, the others take the same weights."""
        with torch.inference_mode(False):  # trainer.test is in inference mode, where nothing can be trained
            if isinstance(self.extractor, str) and self._extractor is None:
                built = self._build(trainer, self.extractor, pl_module.device) if trainer.is_global_zero else None
                trainer.strategy.barrier()
                self._extractor = built or self._build(trainer, self.extractor, pl_module.device)
                if trainer.world_size > 1:
                    state = {name: value.cpu() for name, value in self._extractor.state_dict().items()}
                    self._extractor.load_state_dict(trainer.strategy.broadcast(state))
            extractor = self._extractor or self.extractor
            assert isinstance(extractor, FeatureExtractor)
            return extractor.to(pl_module.device)

    def _build(self, trainer: pl.Trainer, name: str, device: torch.device) -> FeatureExtractor:
        if name == "inception":
            return InceptionExtractor()
        images, labels = self._data(trainer, "train")
        assert labels is not None
        return ClassifierExtractor(images, labels, name, cache_dir=self.cache_dir, device=device)

    def _extract(
        self, trainer: pl.Trainer, extractor: FeatureExtractor, number: int, images: Callable[[slice], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Features and logits of rows 0..number, dealt in chunks to the ranks and summed into place."""
        device = trainer.strategy.root_device
        step = max(self.batch_size // _BLOCK, 1) * min(_BLOCK, self.batch_size)
        results: list[Tensor] = []
        for index, start in enumerate(range(0, number, step)):
            rows = slice(start, min(start + step, number))
            if index % trainer.world_size != trainer.global_rank:
                continue
            outputs = [output.detach() for output in extractor(images(rows).to(device)) if output is not None]
            if not results:
                results = [output.new_zeros(number, output.shape[1], dtype=torch.float32) for output in outputs]
            for result, output in zip(results, outputs):
                result[rows] = output.float()
        if trainer.world_size > 1:
            widths = trainer.strategy.broadcast([result.shape[1] for result in results])  # a rank may have had no chunk
            results = results or [torch.zeros(number, width, device=trainer.strategy.root_device) for width in widths]
            results = [trainer.strategy.reduce(result, reduce_op="sum") for result in results]  # type: ignore[misc]
        return results[0], results[1] if len(results) > 1 else None

    # ------------------------------------------------------------------ images
    def _fake_images(self, trainer: pl.Trainer, pl_module: Samples) -> Callable[[slice], Tensor]:
        """Function that returns the fakes of some rows, uint8."""
        low_high = self._known_range(trainer) if self._collected is None else self._value_range(trainer)
        known = None if pl_module.num_classes is None else self._data(trainer)[1]
        labels, self._law = labels_as_in(known, self.num_fake, pl_module.num_classes, self.seed)
        block = min(_BLOCK, self.batch_size)
        if self.sampler is not None:
            self._sampler = self.sampler(pl_module)

        model: Any = pl_module
        at_once = has(model, Latents) and type(model).sample is Sampling.sample  # then it is decode of latents

        def block_of(start: int, stop: int) -> Any:
            own = torch.Generator().manual_seed(self.seed * 1_000_003 + start)
            make = model.latents if at_once else model.sample
            return make(stop - start, None if labels is None else labels[start:stop], own)

        def images(rows: slice) -> Tensor:
            starts = range(rows.start, rows.stop, block)
            blocks = [(start, min(start + block, rows.stop)) for start in starts]
            if self._sampler is not None:
                fake = torch.cat([
                    self._sampler.sample(b - a, None if labels is None else labels[a:b], self.seed, a, progress=False)
                    for a, b in blocks
                ])  # fmt: skip
            elif at_once:
                noise, classes = zip(*(block_of(a, b) for a, b in blocks))
                fake = model.decode(torch.cat(noise), None if labels is None else torch.cat(classes))
            else:
                fake = torch.cat([block_of(a, b) for a, b in blocks])
            self._finite.append(torch.isfinite(fake).all())
            return to_uint8(fake, range_of(fake, low_high))

        return images

    def _value_range(self, trainer: pl.Trainer) -> tuple[float, float]:
        return self._known_range(trainer) or (-1.0, 1.0)

    def _known_range(self, trainer: pl.Trainer) -> tuple[float, float] | None:
        return self.value_range or getattr(datamodule_of(trainer), "value_range", None)

    def _reference_images(self, trainer: pl.Trainer) -> Tensor:
        images, _ = self._data(trainer)
        if self.num_real is None:
            return images
        own = torch.Generator().manual_seed(self.seed)
        return images[torch.randperm(len(images), generator=own)[: self.num_real].sort().values]

    def _data(self, trainer: pl.Trainer, split: str | None = None) -> tuple[Tensor, Tensor | None]:
        """Images and labels of a split: the datamodule's reference, else everything the training loader holds."""
        datamodule = datamodule_of(trainer)
        if hasattr(datamodule, "reference"):
            return datamodule.reference(split or self.split)
        if self._collected is None:
            if self.split != "train" or trainer.train_dataloader is None:
                raise ValueError(
                    "the reference must come from a datamodule with reference(split), or, with split='train' while "
                    f"training, from the training loader; got neither for split={self.split!r}."
                )
            names = getattr(trainer.lightning_module, "columns", None)
            self._collected = _collect(trainer, self._value_range(trainer), names)
        return self._collected

    # ------------------------------------------------------------------ protocol
    def _describe(self, pl_module: Samples, extractor: FeatureExtractor) -> dict[str, Any]:
        if self.protocol:
            return {**self.protocol, "weights": "raw" if pl_module.ema is None else "ema"}
        assert self._scores is not None and self._reference is not None
        subsets, size = self._scores.kid_plan(len(self._reference), self.num_fake)
        return {
            **extractor.describe(),
            "reference_split": self.split,
            "reference_items": len(self._reference),
            "reference_hash": content_hash(self._reference),
            "fakes": self.num_fake,
            "fakes_seed": self.seed,
            "fakes_labels": self._law,
            "weights": "raw" if pl_module.ema is None else "ema",
            "batch_norm": "evaluation mode",
            "images": "uint8, round and clip",
            "features_dtype": "float32",
            "scores_dtype": "float64",
            "is_splits": self._options["is_splits"],
            "kid_subsets": subsets,
            "kid_subset_size": size,
            **self._scores.uniformity_plan(self.num_fake),
            "caveats": self._scores.caveats(self.num_fake),
        }


def _collect(
    trainer: pl.Trainer, value_range: tuple[float, float], names: Names | None
) -> tuple[Tensor, Tensor | None]:
    """All images of the training loader, as uint8, and their labels if the batches have any."""
    loader: Any = trainer.train_dataloader
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        # another pass over the data set itself: in order, nothing dropped, not sharded, the running loader left alone
        data, drawn = loader.dataset, loader.sampler
        if isinstance(drawn, SubsetRandomSampler):  # the others are held out
            data = Subset(data, sorted(drawn.indices))
        loader = DataLoader(data, batch_size=256, collate_fn=loader.collate_fn)
    elif trainer.world_size > 1:
        raise ValueError(
            "on several processes the reference must come from a datamodule with reference(split), or from a "
            f"DataLoader over a data set with indices, got {type(loader).__name__}."
        )
    images, labels, extremes = zip(*_batches(loader, value_range, names))
    lowest, highest, (low, high) = min(e[0] for e in extremes), max(e[1] for e in extremes), value_range
    slack = 0.05 * (high - low)
    seen = f"{lowest:g} to {highest:g}"
    if lowest < low - slack or highest > high + slack:
        raise ValueError(
            f"value_range must be the range of the training images, {seen}, got {tuple(value_range)}: they would be "
            "clipped."
        )
    if lowest >= (low + high) / 2 or highest <= (low + high) / 2:
        warnings.warn(f"value_range is {tuple(value_range)}, but the images use {seen} of it only.", stacklevel=2)
    return torch.cat(images), None if labels[0] is None else torch.cat(labels)


def _batches(
    loader: Any, value_range: tuple[float, float], names: Names | None
) -> Iterator[tuple[Tensor, Tensor | None, tuple[float, float]]]:
    """uint8 images, their labels and their extremes in ``value_range``."""
    for batch in loader:
        real, labels, *_ = columns(batch, names)
        if real.dim() != 4:
            raise ValueError(
                f"GenerativeMetrics needs images of shape (N, C, H, W), got {tuple(real.shape)}; for toy data use "
                "ModeCoverage."
            )
        integers = isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point()
        low, high = value_range
        extremes = (low, high) if real.dtype == torch.uint8 else (float(real.min()), float(real.max()))
        yield to_uint8(real, value_range).cpu(), labels.long().cpu() if integers else None, extremes
