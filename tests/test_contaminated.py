"""Planted outliers: how many, which, seeded; and that everything that is scored against stays clean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common import build, trainer
from torch import Tensor

from lightning_gans.callbacks import ModeCoverage
from lightning_gans.cli import main
from lightning_gans.datamodules import (
    Blob,
    Contaminated,
    Digits,
    FashionMNIST,
    GANDataModule,
    Gaussian1D,
    Grid,
    RareTail1D,
    Ring,
)
from lightning_gans.datamodules.contaminated import alike
from lightning_gans.networks import ToyDiscriminator, ToyGenerator


class Colours(GANDataModule):
    """Plain RGB images of 12x12; red is item's number."""

    name, shape, num_classes, value_range = "Colours", (3, 12, 12), None, (-1.0, 1.0)

    def __init__(self, n: int = 200) -> None:
        super().__init__()
        self.n, self.prepared = n, 0

    def reference(self, split: Any = "train") -> tuple[Tensor, None]:
        red = torch.arange(self.n, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 12, 12)
        return torch.cat([red, torch.full_like(red, 30), torch.full_like(red, 60)], 1), None

    def prepare_data(self) -> None:
        self.prepared += 1


def test_a_share_of_the_images_is_replaced() -> None:
    base = Digits(batch_size=32, value_range=(0, 1), flip=True)
    data = Contaminated(base, Colours(), 0.05)
    images, labels, flags = data.mixed()
    clean, classes = base.reference()
    assert int(flags.sum()) == 75 == round(0.05 * 1500) and data.num_items == 1500
    assert torch.equal(data.is_outlier, flags)
    assert torch.equal(images[~flags], clean[~flags]) and torch.equal(labels[~flags], classes[~flags])
    levels = images[flags].flatten(1)
    assert bool((levels == levels[:, :1]).all())  # grey
    red = 3 * levels[:, 0].float() - 90
    assert len({round(float(r)) for r in red}) > 40 and float(red.min()) > -2 and float(red.max()) < 201
    assert set(labels[flags].tolist()) == set(range(10))
    assert (data.shape, data.num_classes, data.value_range, data.batch_size) == ((1, 8, 8), 10, (0, 1), 32)
    assert data.name == "Digits+Colours" and "75 of 1,500 fixed training items are Colours" in data.describe()


def test_no_outlier_is_planted_twice() -> None:
    images, _, flags = Contaminated(Digits(), few := Colours(75), 0.05).mixed()
    expected = alike(few.reference()[0], (1, 8, 8))
    assert torch.equal(images[flags][:, 0, 0, 0].sort().values, expected[:, 0, 0, 0].sort().values)


def test_everything_that_is_scored_against_is_clean() -> None:
    base = Digits()
    data = Contaminated(base, "noise", 0.5)
    for split in ("train", "test"):
        assert torch.equal(data.reference(split)[0], base.reference(split)[0])  # type: ignore[arg-type]
    assert torch.equal(
        torch.cat([x for x, _ in data.val_dataloader()]), torch.cat([x for x, _ in base.val_dataloader()])
    )
    assert not torch.equal(data.mixed()[0], base.reference()[0])
    assert not torch.equal(data.mixed()[1], base.reference()[1])  # type: ignore[arg-type]
    for now, ever in zip(base.reference(), Digits().reference()):
        assert torch.equal(now, ever)  # type: ignore[arg-type]


def test_the_fixed_loader_has_the_order_of_the_flags() -> None:
    data = Contaminated(Digits(value_range=(0, 1), flip=True), "noise", 0.1)
    seen = torch.cat([x for x, _ in data.fixed_loader("train")])
    assert torch.equal((seen * 255).round().to(torch.uint8), data.mixed()[0])
    wide = next(iter(Contaminated(Digits(dequantize=True), "noise", 0.1).fixed_loader("train")))[0]
    assert len(wide.unique()) > 1000  # with the noise that the base is to have
    mean = seen.mean((1, 2, 3))
    noisy = seen[data.is_outlier]
    assert len(seen) == 1500 and float(noisy.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(noisy.std()) == pytest.approx(1 / 12**0.5, abs=0.01) and float(mean[~data.is_outlier].mean()) < 0.4


def test_training_sees_the_outliers() -> None:
    data = Contaminated(Digits(batch_size=100, value_range=(0, 1)), Colours(), 0.1)
    batches = torch.cat([x for x, _ in data.train_dataloader()]).flatten(1)
    assert int((batches == batches[:, :1]).all(1).sum()) == 150


def test_the_choice_is_seeded() -> None:
    first, same, other = (Contaminated(Digits(), "noise", 0.1, seed=seed).mixed() for seed in (1, 1, 2))
    assert torch.equal(first[0], same[0]) and torch.equal(first[1], same[1]) and torch.equal(first[2], same[2])
    assert not torch.equal(first[2], other[2])
    before = torch.get_rng_state()
    Contaminated(Ring(), "noise", 0.1, seed=1).mixed()
    assert torch.equal(before, torch.get_rng_state())


def test_no_share_leaves_the_data_as_they_are() -> None:
    images, labels, flags = Contaminated(Digits(), "noise", 0.0).mixed()
    assert torch.equal(images, Digits().reference()[0]) and not flags.any()
    assert torch.equal(labels, Digits().reference()[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("base", [Ring(batch_size=64), Grid(batch_size=64)])
def test_a_toy_with_a_far_blob(base: Any) -> None:
    data = Contaminated(base, Blob(centre=(5.0, -3.0), std=0.1), 0.05)
    points, labels, flags = data.mixed()
    assert labels is None and len(points) == 10_000 and int(flags.sum()) == 500
    blob = points[flags] - torch.tensor([5.0, -3.0])
    assert float(blob.mean(0).abs().max()) < 4 * 0.1 / 500**0.5 and float(blob.std(0).min()) == pytest.approx(
        0.1, rel=0.15
    )
    assert torch.equal(points[~flags], base.reference()[0][~flags])
    assert torch.equal(data.modes, base.modes) and data.std == base.std
    assert torch.equal(data.sample_exact(5, torch.Generator().manual_seed(1)),
                       base.sample_exact(5, torch.Generator().manual_seed(1)))  # fmt: skip
    assert len(next(iter(data.train_dataloader()))) == 64


def test_a_rare_tail_and_outliers_on_the_line() -> None:
    base = RareTail1D(tail_share=0.02)
    data = Contaminated(base, Gaussian1D(mean=10.0, std=0.1), 0.05)
    points, _, flags = data.mixed()
    assert (points[flags] > 9).all() and data.tail_mass == base.tail_mass and data.tail_threshold == base.tail_threshold
    assert float((points[~flags] > data.tail_threshold).float().mean()) == pytest.approx(0.02, abs=0.005)


def test_noise_around_a_toy_is_uniform_in_the_doubled_box() -> None:
    points, _, flags = Contaminated(Ring(), "noise", 0.5).mixed()
    clean, _ = Ring().reference()
    noise, width = points[flags], clean.amax(0) - clean.amin(0)
    assert bool(
        (noise.amax(0) - noise.amin(0) > 1.95 * width).all() and (noise.amax(0) <= clean.amax(0) + width / 2).all()
    )
    assert float((noise.std(0) / (2 * width)).mean()) == pytest.approx(1 / 12**0.5, rel=0.03)


def test_images_are_made_alike() -> None:
    grey = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 6, 6) * 60
    assert torch.equal(alike(grey, (3, 12, 12)), (grey[..., :1, :1]).expand(4, 3, 12, 12))
    colour = torch.tensor([10, 20, 62], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 5, 5)
    assert torch.equal(alike(colour, (1, 5, 5)), torch.full((2, 1, 5, 5), 31, dtype=torch.uint8))
    half = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    half[..., 2:] = 200
    assert alike(half, (1, 2, 2))[0, 0, 0].float().diff() > 100


def test_it_trains_on_a_toy_and_is_measured_against_the_clean_law() -> None:
    data = Contaminated(Ring(batch_size=16), Blob(), 0.05)
    module = build("gan", ToyGenerator(latent_dim=3, width=8), ToyDiscriminator(width=8), ToyDiscriminator(width=8))
    trainer(max_steps=2, callbacks=[coverage := ModeCoverage(2, num_samples=100)]).fit(module, datamodule=data)
    assert coverage.protocol["modes"] == 8 and coverage.protocol["radius"] == pytest.approx(4 * 0.02 / 1.414)
    assert "base" not in data.hparams and data.hparams["share"] == 0.05


def test_parts_are_prepared_and_know_the_trainer() -> None:
    outliers = Colours()
    data = Contaminated(Digits(), outliers, 0.1)
    data.trainer = trainer()
    data.prepare_data()
    Contaminated(Digits(), Colours(5), 0.1).setup("predict")  # which needs none: there are too few
    assert outliers.prepared == 1 and data.data.trainer is data.trainer is outliers.trainer


def test_the_command_line_builds_and_remembers_it(tmp_path: Path) -> None:
    nets = ["--model.generator=ToyGenerator", "--model.discriminator=ToyDiscriminator", "--model.latent_dim=2"]
    data = ["--data=Contaminated", "--data.base=Ring", "--data.base.batch_size=8", "--data.outliers=Blob"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_steps=2"]
    no_pictures = ["--grid.every_n_steps=null"]
    main(
        ["fit", "--model=GAN", *nets, *data, "--data.share=0.2", *quiet, *no_pictures, f"--out={tmp_path}", "--name=a"]
    )
    saved = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert saved["base"]["class_path"].endswith("Ring") and saved["share"] == 0.2
    (elsewhere := tmp_path / "b.ckpt").write_bytes((tmp_path / "a/checkpoints/last.ckpt").read_bytes())
    main(["predict", f"--ckpt_path={elsewhere}", "--samples=3", f"--out={tmp_path}", "--name=c", *quiet[:2]])
    assert len((tmp_path / "c/predictions/samples.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Contaminated(Ring(), share=1.0), r"share must be in \[0, 1\), got 1.0"),
        (lambda: Contaminated(Ring(), "blob"), "outliers must be 'noise' or a data module, got 'blob'"),  # type: ignore[arg-type]
        (lambda: Contaminated(Ring(), Gaussian1D()), r"same kind as base, of shape \(2,\), got shape \(1,\)"),
        (lambda: Contaminated(Digits(), Ring()), r"same kind as base, of shape \(1, 8, 8\), got shape \(2,\)"),
        (lambda: Contaminated(Digits(), Colours(5), 0.1).setup("fit"), "asks for 150 outliers, but Colours has only 5"),
        (lambda: Blob(std=0), "std must be a finite number > 0, got 0"),
    ],
)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_is_read_by_the_constructor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_GANS_DATA", str(tmp_path / "absent"))
    data = Contaminated(FashionMNIST(), "noise")
    assert data.shape == (1, 28, 28) and not hasattr(data, "absent") and not (tmp_path / "absent").exists()
    with pytest.raises(AttributeError):
        data._absent  # noqa: B018
