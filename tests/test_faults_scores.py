"""Scores that would mean nothing are refused or marked, and their protocol tells how they were made."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gans import GAN
from lightning_gans.callbacks import GenerativeMetrics, ModeCoverage
from lightning_gans.datamodules import Images, Ring
from lightning_gans.metrics import ClassifierExtractor, GenerativeScores, ModuleExtractor, as_extractor
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.tools.score import score_samples


class Means(nn.Module):
    """Mean and spread of each quarter of an image."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


class Inception(Means):
    """Not the canonical one."""


def scored(images: Tensor, labels: Tensor | None = None, **options: Any) -> GenerativeMetrics:
    metrics = GenerativeMetrics(extractor=Means(), metrics=("fid",), num_fake=40, at_start=False, **options)
    classes = None if labels is None else int(labels.max()) + 1
    nets = DCGANGenerator((1, 8, 8), 3, 4, num_classes=classes), DCGANDiscriminator((1, 8, 8), 4, num_classes=classes)
    columns = (images,) if labels is None else (images, labels)
    trainer(max_steps=1, callbacks=[metrics]).fit(GAN(*nets, 3), DataLoader(TensorDataset(*columns), 8))
    return metrics


def test_a_reference_out_of_range_is_refused_and_half_a_range_is_told() -> None:
    images = torch.rand(16, 1, 8, 8)
    for wrong in (images * 255, (images - 0.45) / 0.2):
        with pytest.raises(ValueError, match=r"value_range must be the range of the training images, .* got \(-1.0, 1"):
            scored(wrong)
    with pytest.warns(UserWarning, match=r"value_range is \(-1.0, 1.0\), but the images use .* of it only"):
        scored(images)
    scored(images, value_range=(0.0, 1.0))


def test_fakes_have_the_labels_of_the_data() -> None:
    labels = torch.tensor([0] * 14 + [2, 3])
    given: list[Tensor] = []
    decode, GAN.decode = GAN.decode, lambda self, z, y=None: given.append(y) or decode(self, z, y)  # type: ignore
    try:
        metrics = scored(torch.rand(16, 1, 8, 8) * 2 - 1, labels)
    finally:
        GAN.decode = decode  # type: ignore[method-assign]
    share = torch.cat(given).bincount(minlength=4) / 40
    assert metrics.protocol["fakes_labels"] == "frequencies of the data" and share[0] > 0.7 and share[1] == 0
    assert scored(torch.rand(16, 1, 8, 8) * 2 - 1).protocol["fakes_labels"] == "none"


def test_mode_coverage_of_a_conditional_game_tells_the_labels_of_its_samples() -> None:
    coverage = ModeCoverage(num_samples=50)
    nets = ToyGenerator((2,), 2, 8, 1, num_classes=3), ToyDiscriminator((2,), 8, 1)
    module = GAN(*nets, 2)
    fit = trainer(callbacks=[coverage])
    fit.datamodule = Ring(batch_size=8)  # type: ignore[attr-defined]
    coverage.measure(fit, module)
    assert coverage.protocol["labels"] == "uniform"


def test_few_samples_are_marked_and_spreads_are_kept() -> None:
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    scores = GenerativeScores(x, ("fid", "is", "kid"), is_splits=5, kid_subsets=4, kid_subset_size=20)
    with pytest.warns(UserWarning, match="fid of 8 fakes and 50 reals on 8 features is biased upwards"):
        found = scores(x[:8] + 1, x[:8])
    assert found["is_std"] > 0 and found["kid_std"] > 0 and list(found) == scores.names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GenerativeScores(x, ("fid",))(x + 1)
    assert not scores.caveats(9) and len(scores.caveats(8)) == 1
    assert len(scored(torch.rand(16, 1, 8, 8) * 2 - 1).protocol["caveats"]) == 0


def test_nobody_else_is_called_inception() -> None:
    assert as_extractor(Inception()).name == "own-inception" == ModuleExtractor(Means(), "inception").name
    assert as_extractor(Means()).name == "means"
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4) % 2
    other = ClassifierExtractor(images, labels, "lenet", epochs=1, name="inception", cache_dir=".")
    with pytest.raises(ValueError, match="name must be another than inception, lenet, resnet for ClassifierExtractor"):
        GenerativeMetrics(extractor=other)


def test_score_tells_what_of_a_folder_it_leaves_out(tmp_path: Path) -> None:
    noise = np.random.RandomState(0)
    for i in range(20):
        Image.fromarray(noise.randint(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    data = Images(str(tmp_path), size=8, mode="L")
    options: Any = {"extractor": Means(), "metrics": ("fid",)}
    protocol = score_samples(tmp_path, data, **options)["protocol"]
    assert (protocol["reference_items"], protocol["reference_left_out"]) == (18, 2)
    found = score_samples(tmp_path, data, split="all", **options)
    assert found["protocol"]["reference_left_out"] == 0 and abs(found["scores"]["fid/means-all"]) < 1e-6
    for wrong, words in (
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"split": "val"}, "split must be one of train, test, all, got 'val'"),
        ({"kid_subsets": -1}, "kid_subsets must be an integer >= 1, got -1"),
    ):
        with pytest.raises(ValueError, match=words):
            score_samples(tmp_path, data, **(options | wrong))
