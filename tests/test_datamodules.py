"""Data modules: what they declare, their exact toys, the image sets (tiny files in the real layouts), bad files."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import pickle
import struct
import sys
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from sklearn.datasets import load_digits, make_swiss_roll
from torch import Generator, Tensor

from lightning_gans.cli.mistakes import sentence_of
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import (
    CIFAR10,
    CIFAR100,
    MNIST,
    Digits,
    FashionMNIST,
    GANDataModule,
    Gaussian1D,
    Grid,
    Images,
    PointMass,
    RareTail1D,
    Ring,
    StackedMNIST,
    SwissRoll,
    digits,
)
from lightning_gans.datamodules.mnist import datasets
from lightning_gans.datamodules.toy import Mixture

TOYS = [PointMass, Gaussian1D, RareTail1D, Ring, Grid, SwissRoll]


# -- what is known before a file is read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "shape", "num_classes"),
    [
        (Digits, (1, 8, 8), 10),
        (MNIST, (1, 28, 28), 10),
        (FashionMNIST, (1, 28, 28), 10),
        (StackedMNIST, (3, 28, 28), 1000),
        (CIFAR10, (3, 32, 32), 10),
        (CIFAR100, (3, 32, 32), 100),
    ],
)
def test_images_declare_shape_classes_and_range_without_files(
    cls: Any, shape: tuple[int, ...], num_classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_GANS_DATA", str(tmp_path / "absent"))
    data = cls()
    assert (data.name, data.shape, data.num_classes) == (cls.__name__, shape, num_classes)
    assert data.value_range == (-1, 1) and cls(value_range=[0, 1]).value_range == (0, 1)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("cls", TOYS)
def test_toys_declare_shape_and_have_no_classes_or_range(cls: Any) -> None:
    data = cls()
    assert data.name == cls.__name__ and data.num_classes is None and data.value_range is None
    assert data.shape == ((1,) if cls.__name__ in ("PointMass", "Gaussian1D", "RareTail1D") else (2,))
    assert data.num_items == 256 * 1000
    assert data.name in data.describe() and "\n" not in data.describe()


def test_hyper_parameters_are_saved_and_plain(tmp_path: Path) -> None:
    ring = Ring(modes=6, batch_size=32)
    assert dict(ring.hparams) == {
        "modes": 6,
        "radius": 2.0,
        "std": 0.02,
        "scale": 1.414,
        "batch_size": 32,
        "batches_per_epoch": 1000,
        "rare_share": None,
    }
    torch.save(dict(MNIST(items=5, root=str(tmp_path)).hparams), tmp_path / "h.pt")
    loaded = torch.load(tmp_path / "h.pt", weights_only=True)
    assert loaded["items"] == 5 and loaded["root"] == str(tmp_path) and MNIST(**loaded).items == 5


def test_the_command_line_finds_classes_and_arguments() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(GANDataModule, "data")
    config = parser.parse_args(["--data=MNIST", "--data.value_range=[0,1]", "--data.items=7", "--data.root=/x"])
    instantiate = parser.instantiate if hasattr(parser, "instantiate") else parser.instantiate_classes
    data = instantiate(config).data
    assert isinstance(data, MNIST) and data.value_range == (0, 1) and data.items == 7 and data.root == Path("/x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Digits(batch_size=0), "batch_size must be an integer >= 1, got 0"),
        (lambda: Digits(value_range=(1, -1)), r"value_range must be \(low, high\) with low < high, got \(1, -1\)"),
        (lambda: Digits(items=0), "items must be an integer >= 1"),
        (lambda: Digits(items=1501).setup("fit"), "items is 1501, but Digits has only 1500 training items"),
        (lambda: Digits().reference("val"), "split must be one of train, test, got 'val'"),  # type: ignore[arg-type]
        (lambda: Ring().reference("val"), "split must be one of train, test, got 'val'"),  # type: ignore[arg-type]
        (lambda: Ring(modes=0), "modes must be an integer >= 1, got 0"),
        (lambda: Ring(rare_share=1), r"rare_share must be in \(0, 1\), got 1"),
        (lambda: Ring(modes=1, rare_share=0.1), "modes must be 2 or more with rare_share, got 1"),
        (lambda: Ring(batches_per_epoch=0), "batches_per_epoch must be an integer >= 1, got 0"),
        (lambda: Grid(modes=24), "modes must be a square number such as 9, 16 or 25, got 24"),
        (lambda: SwissRoll(noise=-1), "noise must be a finite number > 0, got -1"),
        (lambda: Gaussian1D(std=0), "std must be a finite number > 0, got 0"),
        (lambda: RareTail1D(tail_share=1), r"tail_share must be in \(0, 1\), got 1"),
        (lambda: RareTail1D(tail_mean=-1), "tail_mean must be above body_mean = 0.0, got -1"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


# -- toys --------------------------------------------------------------------------------------------------------------


def test_ring_has_eight_distinct_centres_on_a_circle() -> None:
    data = Ring()
    assert data.modes.shape == (8, 2) and torch.pdist(data.modes).min() > 1
    torch.testing.assert_close(data.modes.norm(dim=1), torch.full((8,), 2 / 1.414))
    torch.testing.assert_close(data.modes[1], torch.tensor([2**0.5, 2**0.5]) / 1.414)
    assert data.std == pytest.approx(0.02 / 1.414, rel=1e-12)


def test_grid_has_25_centres() -> None:
    data = Grid()
    expected = [(2 * i / 2.828, 2 * j / 2.828) for i in range(-2, 3) for j in range(-2, 3)]
    torch.testing.assert_close(data.modes, torch.tensor(expected))
    assert data.std == pytest.approx(0.05 / 2.828, rel=1e-12)
    assert Grid(modes=4).modes.abs().allclose(torch.tensor(1 / 2.828))


@pytest.mark.parametrize("make", [Ring, Grid, RareTail1D, Gaussian1D, partial(Ring, rare_share=0.02)])
def test_draws_follow_the_declared_mixture(make: Any) -> None:
    data = make()
    n = 40_000
    x = data.sample_exact(n, Generator().manual_seed(0))
    assert x.shape == (n, *data.shape) and x.dtype == torch.float32
    nearest = torch.cdist(x, data.modes) if make is not RareTail1D else (x - data.modes.T).abs() / data.stds
    which = nearest.argmin(1)
    for k, (mode, std, weight) in enumerate(zip(data.modes, data.stds, data.mode_weights)):
        here = x[which == k]
        tolerance = 6 / math.sqrt(len(here))
        assert abs(len(here) / n - weight) < 6 * math.sqrt(weight * (1 - weight) / n) + 1e-6
        assert ((here.mean(0) - mode).abs() < tolerance * std).all()
        assert ((here.std(0) / std - 1).abs() < tolerance).all()


@pytest.mark.parametrize("make", [Ring, Grid])
def test_coordinates_have_unit_std(make: Any) -> None:
    assert make().sample_exact(100_000, Generator().manual_seed(0)).std(0).sub(1).abs().max() < 0.01


def test_point_mass_is_one_point() -> None:
    data = PointMass(value=-3)
    assert (data.sample_exact(9) == -3).all() and data.std == 0 and data.modes.tolist() == [[-3]]
    assert data.tail_threshold is None and data.tail_mass is None


def test_swiss_roll_is_that_of_scikit_learn() -> None:
    data = SwissRoll()
    theirs = torch.from_numpy(make_swiss_roll(40_000, noise=0.25, random_state=0)[0][:, [0, 2]] / 7.5).float()
    ours = data.sample_exact(40_000, Generator().manual_seed(0))
    levels = torch.linspace(0.01, 0.99, 25)
    for f in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.norm(dim=1), lambda x: x.sum(1)):
        assert (f(ours).quantile(levels) - f(theirs).quantile(levels)).abs().max() < 0.04
    assert data.std == pytest.approx(0.25 / 7.5) and data.modes is None
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, 4000)
    spiral = torch.stack([t * t.cos(), t * t.sin()], 1) / 7.5
    across = torch.cdist(ours[:2000], spiral).min(1).values  # |N(0, std^2)|, nearly
    assert across.square().mean().sqrt() == pytest.approx(data.std, rel=0.06)


def test_tail_masses_are_exact() -> None:
    normal = torch.distributions.Normal(0.0, 1.0)
    assert Gaussian1D().tail_mass == pytest.approx(1 - float(normal.cdf(torch.tensor(2.0))), abs=1e-6)
    data = RareTail1D(tail_share=0.2, body_mean=1, body_std=1, tail_mean=4, tail_std=2)
    assert data.tail_threshold == 2  # one std above the body's mean, one below the tail's
    p = float(normal.cdf(torch.tensor(1.0)))
    assert data.tail_mass == pytest.approx(0.2 * p + 0.8 * (1 - p), abs=1e-6)
    x = data.sample_exact(100_000, Generator().manual_seed(1))
    assert float((x > 2).float().mean()) == pytest.approx(data.tail_mass, abs=0.006)
    rare = RareTail1D()
    assert rare.tail_mass == pytest.approx(0.01, abs=4e-5) and rare.tail_threshold == 2


@pytest.mark.parametrize("cls", TOYS)
def test_toy_batches_are_fresh_and_references_fixed(cls: Any) -> None:
    data = cls(batch_size=8, batches_per_epoch=3)
    batches = list(data.train_dataloader())
    assert [tuple(real.shape) for real in batches] == [(8, *data.shape)] * 3
    (a, labels), (b, _), (test, _) = data.reference(), data.reference(), data.reference("test")
    assert labels is None and len(a) == 10_000 and torch.equal(a, b)
    if cls is not PointMass:
        assert not torch.equal(a, test) and not torch.equal(batches[0], batches[1])
    before = torch.get_rng_state()
    assert torch.equal(torch.cat(list(data.val_dataloader())), test)
    assert torch.equal(torch.cat(list(data.fixed_loader("train"))), a)
    assert torch.equal(torch.get_rng_state(), before)


# -- digits, and what all images share ---------------------------------------------------------------------------------


def test_digits_do_not_wait_for_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is read without what it imports; where there is no such file it is asked."""
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "sklearn.datasets", None)
        read, classes = digits._read()
        assert len(Digits().reference("test")[0]) == 297
    pixels, labels = load_digits(return_X_y=True)
    assert np.array_equal(read, pixels) and np.array_equal(classes, labels) and classes.dtype == labels.dtype
    monkeypatch.setattr(digits, "Path", lambda *parts: Path("not", "there"))
    asked, _ = digits._read()
    assert np.array_equal(asked, pixels)


def test_digits_are_all_of_scikit_learn() -> None:
    data = Digits()
    (train, train_labels), (test, test_labels) = data.reference("train"), data.reference("test")
    assert train.shape == (1500, 1, 8, 8) and test.shape == (297, 1, 8, 8) and train.dtype == torch.uint8
    assert data.num_items == 1500 and train_labels is not None and test_labels is not None
    pixels, labels = load_digits(return_X_y=True)
    theirs = sorted((*row, label) for row, label in zip(np.rint(pixels * 255 / 16).astype(int).tolist(), labels))
    together, both = torch.cat([train, test]).flatten(1), torch.cat([train_labels, test_labels])
    assert sorted((*row, label) for row, label in zip(together.tolist(), both.tolist())) == theirs
    assert both.dtype == torch.int64 and len(train.unique()) == 17 and int(train.max()) == 255
    assert torch.equal(Digits().reference("test")[0], test)


def test_image_batches() -> None:
    data = Digits(batch_size=50, flip=True, dequantize=True, value_range=(0, 1), items=200)
    assert data.num_items == 200 and torch.equal(data.reference()[0], Digits().reference()[0][:200])
    loader = data.train_dataloader()
    assert len(loader) == 4
    real, labels = next(iter(loader))
    assert real.shape == (50, 1, 8, 8) and labels.shape == (50,) and real.dtype == torch.float32
    assert real.min() >= 0 and real.max() <= 1 and len(real.unique()) > 1000

    before = torch.get_rng_state()
    held_out = list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
    clean, clean_labels = data.reference("test")
    real, labels = (torch.cat(column) for column in zip(*held_out))
    assert torch.equal(labels, clean_labels)
    noise = real.double() * 256 - clean  # not flipped, but as noisy as the training images
    assert noise.min() > -1e-4 and noise.max() < 1 + 1e-4 and abs(noise.mean() - 0.5) < 0.02
    assert torch.equal(torch.cat([real for real, _ in data.test_dataloader()]), real)
    assert data.describe() == (
        "Digits: 200 training images, 1x8x8, in [0, 1], 10 classes, random flips, dequantisation noise"
    )


def test_samples_can_be_predicted_where_the_data_are_not(tmp_path: Path) -> None:
    class Module(pl.LightningModule):
        def predict_step(self, batch: Any, batch_idx: int) -> int:
            return 5

    trainer = pl.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path)
    data = MNIST(root=str(tmp_path / "absent"), download=False)
    data.predict_dataloader = lambda: [0]  # type: ignore[method-assign]
    assert trainer.predict(Module(), datamodule=data) == [5]


def test_a_trainer_is_fed(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append(batch)
            return self.layer.weight.sum()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            assert not self.training and batch[0].shape[1:] == (1, 8, 8)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    for data, batches in ((Digits(batch_size=500), 3), (Ring(batches_per_epoch=4), 4)):
        seen.clear()
        trainer = pl.Trainer(
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            limit_val_batches=2 if isinstance(data, Digits) else 0,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(Module(), datamodule=data)
        assert len(seen) == batches and data.device == torch.device("cpu")


# -- files that torchvision downloads and reads ------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, train: int = 40, test: int = 12) -> None:
    random = np.random.RandomState(0)
    folder.mkdir(parents=True)
    for split, n in (("train", train), ("t10k", test)):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(random.randint(256, size=(n, 28, 28)).astype("u1")))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx((np.arange(n) % 10).astype("u1")))


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_mnist_layout(cls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / cls.__name__ / "raw")
    monkeypatch.setenv("LIGHTNING_GANS_DATA", str(tmp_path))
    data = cls(batch_size=16, download=False)
    data.prepare_data()
    data.setup("fit")
    images, labels = data.reference()
    assert images.shape == (40, 1, 28, 28) and images.dtype == torch.uint8 and data.num_items == 40
    raw = np.random.RandomState(0).randint(256, size=(40, 28, 28))
    assert torch.equal(images[:, 0], torch.from_numpy(raw.astype("u1"))) and torch.equal(labels, torch.arange(40) % 10)
    assert len(data.reference("test")[0]) == 12 and len(data.train_dataloader()) == 2


def test_damaged_files_are_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)

    def message(method: str = "prepare_data", **kwargs: Any) -> str:
        data = MNIST(root=str(tmp_path), download=False, **kwargs)
        with pytest.raises(FileNotFoundError) as error:
            data.prepare_data() if method == "prepare_data" else data.setup("fit")
        text = str(error.value)
        assert "\n" not in text and "download=True" in text
        return text

    labels, images = raw / "t10k-labels-idx1-ubyte", raw / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[:1000])
    assert f"{images} has 1,000 bytes where its header promises 31,376" in message()
    assert f"{images} has 1,000 bytes" in message("setup")
    images.write_bytes(b"<html>not found, sorry</html>")
    assert f"{images} is not an idx file of images of 28x28 pixels" in message()
    images.write_bytes(b"")
    assert f"{images} is not an idx file" in message()
    images.write_bytes(whole)
    labels.unlink()
    assert f"{labels} is missing" in message()
    labels.write_bytes(idx(np.zeros((12, 28, 28), "u1")))
    assert f"{labels} is not an idx file of labels" in message()
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(39, "u1")))
    labels.write_bytes(idx(np.zeros(12, "u1")))
    named = rf"MNIST: {images} and {raw / 'train-labels-idx1-ubyte'} must fit together, got 40 images, 39 labels\."
    with pytest.raises(ValueError, match=named):
        MNIST(root=str(tmp_path)).setup("fit")


def everything_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def use_downloads(monkeypatch: pytest.MonkeyPatch, archives: dict[str, bytes], broken: int = 0) -> list[str]:
    """Let torchvision fetch from ``archives`` instead of the network; a broken one ends half-way with an error."""
    fetched: list[str] = []

    def retrieve(url: str, filename: Any, *_: Any) -> None:
        name = Path(filename).name
        fetched.append(name)
        half = len(fetched) == broken
        Path(filename).write_bytes(archives[name][: len(archives[name]) // (2 if half else 1)])
        if half:
            raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", retrieve)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops=3: url)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://one.invalid/"])
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", sums)
    return fetched


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, bytes]:
    write_mnist(tmp_path / "source")
    names = [name for name, _ in datasets.MNIST.resources]
    return {name: gzip.compress((tmp_path / "source" / name.removesuffix(".gz")).read_bytes()) for name in names}


def test_a_download_leaves_the_files_and_nothing_else(
    tmp_path: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = use_downloads(monkeypatch, archives)
    root, raw = tmp_path / "root", tmp_path / "root" / "MNIST" / "raw"
    data = MNIST(root=str(root))
    with pytest.raises(FileNotFoundError, match=r"is missing; put it there, or prepare_data\(\) downloads it"):
        data.setup("fit")
    data.prepare_data()
    assert len(fetched) == 4 and data.num_items == 40
    assert everything_below(root) == sorted(data.files)
    data.prepare_data()
    assert len(fetched) == 4, "what is there is not fetched again"

    (raw / "train-images-idx3-ubyte").write_bytes(b"half of it")
    MNIST(root=str(root)).prepare_data()
    assert len(fetched) == 8 and MNIST(root=str(root)).num_items == 40
    (raw / "train-images-idx3-ubyte").unlink()
    for name, content in archives.items():
        (raw / name).write_bytes(content)
    MNIST(root=str(root)).prepare_data()
    assert len(fetched) == 8 and MNIST(root=str(root)).num_items == 40, "archives that are there are used"


@pytest.mark.parametrize("broken", [1, 3])
def test_a_failed_download_leaves_nothing(
    tmp_path: Path, archives: dict[str, bytes], broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_downloads(monkeypatch, archives, broken)
    root = tmp_path / "root"
    with pytest.raises(
        ConnectionError, match=r"MNIST: .* is missing, and it could not be downloaded to .*reset by peer.*: put train-"
    ) as error:
        MNIST(root=str(root)).prepare_data()
    assert "\n" not in str(error.value) and everything_below(root) == [] and list(root.iterdir()) == []


def test_a_damaged_download_is_not_taken(
    tmp_path: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {**archives, "t10k-labels-idx1-ubyte.gz": gzip.compress(b"<html>")}
    use_downloads(monkeypatch, wrong)
    with pytest.raises(ConnectionError, match="t10k-labels-idx1-ubyte is not an idx file of labels"):
        MNIST(root=str(tmp_path / "root")).prepare_data()
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "online"])
def test_what_is_wrong_is_told_where_nothing_can_be_fetched(
    tmp_path: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """By default a damaged file is fetched anew; without a network its fault is not lost, nor that of an archive."""
    use_downloads(monkeypatch, archives, broken=1 if offline else 0)
    root, raw = tmp_path / "root", tmp_path / "root" / "MNIST" / "raw"
    write_mnist(raw)
    damaged = raw / "train-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    page, cut = raw / "t10k-labels-idx1-ubyte.gz", raw / "train-labels-idx1-ubyte.gz"
    page.write_bytes(b"\n<!doctype html>please log in")
    cut.write_bytes(archives[cut.name][:30])
    before = {path: path.read_bytes() for path in raw.iterdir()}
    if not offline:
        MNIST(root=str(root)).prepare_data()
        assert MNIST(root=str(root), download=False).num_items == 40
        return
    with pytest.raises(ConnectionError) as error:
        MNIST(root=str(root)).prepare_data()
    told = str(error.value)
    assert f"{damaged} has 1,000 bytes where its header promises 31,376" in told and sentence_of(error.value) == told
    assert f"{page} is a web page (29 bytes)" in told and f"{cut} is truncated or no archive (30 bytes)" in told
    assert "\n" not in told and "reset by peer" in told
    assert {path: path.read_bytes() for path in raw.iterdir()} == before and [p.name for p in root.iterdir()] == [
        "MNIST"
    ]


def test_downloads_of_killed_processes_are_removed(
    tmp_path: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_downloads(monkeypatch, archives)
    for name, age in ((".download-old", 2e5), (".download-new", 0)):
        (tmp_path / "root" / name).mkdir(parents=True)
        os.utime(tmp_path / "root" / name, (time.time() - age,) * 2)
    MNIST(root=str(tmp_path / "root")).prepare_data()
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == [".download-new", "MNIST"]


def test_a_root_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectionError, match=r"MNIST: .*it could not be downloaded to") as error:
        MNIST(root=str(tmp_path / "file" / "below")).prepare_data()
    assert "\n" not in str(error.value)


def test_stacked_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setattr(StackedMNIST, "num_stacks", {"train": 3000, "test": 70})
    data = StackedMNIST(root=str(tmp_path), batch_size=32, value_range=(0, 255))
    digits, digit_labels = MNIST(root=str(tmp_path)).reference()
    assert all(torch.equal(a, b) for a, b in zip(data.digits(), (digits, digit_labels)))
    stacks, labels = data.reference()
    assert stacks.shape == (3000, 3, 28, 28) and data.num_items == 3000 and data.num_modes == 1000
    number_of = {image.numpy().tobytes(): int(label) for image, label in zip(digits, digit_labels)}
    for image, label in zip(stacks[:200], labels):
        a, b, c = (number_of[channel.numpy().tobytes()] for channel in image)
        assert label == 100 * a + 10 * b + c
    assert len(labels.unique()) > 900
    assert torch.equal(StackedMNIST(root=str(tmp_path)).reference()[0], stacks)
    assert len(data.reference("test")[0]) == 70

    known = {image.numpy().tobytes(): int(label) for image, label in zip(stacks, labels)}
    real, numbers = next(iter(data.train_dataloader()))
    assert real.shape == (32, 3, 28, 28)
    assert [known[image.round().byte().numpy().tobytes()] for image in real] == numbers.tolist()
    real, numbers = next(iter(data.val_dataloader()))
    torch.testing.assert_close(real, data.reference("test")[0][:32].float(), atol=1e-3, rtol=0)
    real, _ = next(iter(data.fixed_loader("train")))
    torch.testing.assert_close(real, stacks[:32].float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("cls", "key"), [(CIFAR10, "labels"), (CIFAR100, "fine_labels")])
def test_cifar_layout(cls: Any, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = cls.dataset
    folder = tmp_path / theirs.base_folder
    folder.mkdir()

    def write(name: str, content: Any) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    random = np.random.RandomState(0)
    pixels = {
        name: random.randint(256, size=(6, 3072)).astype("u1") for name, _ in theirs.train_list + theirs.test_list
    }
    sums = {name: write(name, {"data": rows, key: list(range(6))}) for name, rows in pixels.items()}
    for listing in ("train_list", "test_list"):
        monkeypatch.setattr(theirs, listing, [[name, sums[name]] for name, _ in getattr(theirs, listing)])
    meta = write(theirs.meta["filename"], {theirs.meta["key"]: ["a", "b"]})
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": meta})

    data = cls(root=str(tmp_path), download=False, batch_size=4)
    data.prepare_data()
    images, labels = data.reference()
    expected = np.concatenate([pixels[name] for name, _ in theirs.train_list]).reshape(-1, 3, 32, 32)
    assert images.is_contiguous() and torch.equal(images, torch.from_numpy(expected))
    assert labels.tolist() == list(range(6)) * len(theirs.train_list) and labels.dtype == torch.int64
    assert len(data.reference("test")[0]) == 6

    last = folder / theirs.train_list[-1][0]
    last.write_bytes(last.read_bytes()[:-9])
    with pytest.raises(FileNotFoundError, match=rf"{last} is truncated or wrong \(its md5 sum differs\); put it there"):
        cls(root=str(tmp_path), download=False).prepare_data()
    with pytest.raises(FileNotFoundError, match=f"{last} is truncated or wrong"):
        cls(root=str(tmp_path)).setup("fit")


# -- own images --------------------------------------------------------------------------------------------------------


def picture(width: int, height: int, mode: str = "RGB", colour: Any = (250, 20, 30)) -> Image.Image:
    return Image.new("RGB", (width, height), colour).convert(mode)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """19 images of all kinds in two classes, two that cannot be read, and things that are no images."""
    folder = tmp_path / "album"
    for kind in ("cats", "dogs", "dogs/small"):
        (folder / kind).mkdir(parents=True)
    for i in range(10):
        picture(16, 16).save(folder / "cats" / f"{i}.png")
    picture(40, 30).save(folder / "dogs" / "wide.jpg", quality=95)
    picture(30, 900).save(folder / "dogs" / "small" / "tall.JPEG", quality=95)
    picture(16, 16, "L").save(folder / "dogs" / "grey.png")
    picture(16, 16, "P").save(folder / "dogs" / "palette.gif")
    picture(16, 16, "1").save(folder / "dogs" / "bits.bmp")
    picture(16, 16, "CMYK").save(folder / "dogs" / "print.tif")
    Image.new("RGBA", (16, 16), (250, 20, 30, 254)).save(folder / "dogs" / "alpha.webp", lossless=True)
    Image.fromarray(np.full((16, 16), 32896, np.uint16)).save(folder / "dogs" / "deep.png")
    Image.fromarray(np.full((16, 16), 0.25, np.float32)).save(folder / "dogs" / "float.tiff")
    whole = (folder / "dogs" / "grey.png").read_bytes()
    (folder / "dogs" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dogs" / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    (folder / "cats" / ".hidden.png").write_text("no image")
    return folder


def zipped(folder: Path, inside: str = "") -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, f"{inside}{path.relative_to(folder).as_posix()}")
        archive.writestr("__MACOSX/cats/._0.png", b"rubbish")
    return target


def test_any_images_become_one_size_and_mode(album: Path) -> None:
    data = Images(str(album), size=16, test_share=0, value_range=(0, 1), batch_size=5)
    assert data.shape == (3, 16, 16) and data.num_classes == 2 and data.classes == ["cats", "dogs"]
    images, labels = data.reference()
    assert images.shape == (19, 3, 16, 16) and images.dtype == torch.uint8 and data.num_items == 19
    assert labels.tolist() == [0] * 10 + [1] * 9
    assert data.report == (
        "album: read 19 train images, 2 classes from subfolders, 2 resized to 16x16 (crop), 7 converted to RGB, "
        "integers in the range 0 to 65535, floats in the range 0 to 1, "
        "2 unreadable skipped (dogs/cut.png: no picture of a known kind, dogs/text.jpg), "
        "1 other files left out (.txt)"
    )
    assert data.describe() == (
        "album: 19 training images, 3x16x16, in [0, 1], 2 classes, 2 resized to 16x16 (crop), 7 converted to RGB, "
        "integers in the range 0 to 65535, floats in the range 0 to 1"
    )
    files = [file for file in data.files if file not in ("dogs/cut.png", "dogs/text.jpg")]
    mean = {file: image.float().mean((1, 2)).round().int().tolist() for file, image in zip(files, images)}
    red = torch.tensor([250, 20, 30])
    for file in ("cats/0.png", "dogs/wide.jpg", "dogs/small/tall.JPEG", "dogs/print.tif", "dogs/alpha.webp"):
        assert (torch.tensor(mean[file]) - red).abs().max() <= 2, file
    assert (
        mean["dogs/grey.png"] == [90] * 3 and mean["dogs/deep.png"] == [128] * 3 and mean["dogs/float.tiff"] == [64] * 3
    )
    assert data.val_dataloader() == []
    real, _ = next(iter(data.train_dataloader()))
    assert real.shape == (5, 3, 16, 16) and real.min() >= 0 and real.max() <= 1


def test_a_zip_file_gives_the_same_as_its_folder(album: Path) -> None:
    ours = Images(str(album), size=8, mode="L")
    for inside in ("", "my photos/"):
        other = Images(str(zipped(album, inside)), size=8, mode="L")
        assert other.classes == ours.classes and other.shape == (1, 8, 8)
        for split in ("train", "test"):
            (a, a_labels), (b, b_labels) = ours.reference(split), other.reference(split)  # type: ignore[arg-type]
            assert torch.equal(a, b) and torch.equal(a_labels, b_labels)


def test_held_out_images_are_others_and_always_the_same(tmp_path: Path) -> None:
    for i in range(30):
        picture(4, 4, colour=(i, 0, 0)).save(tmp_path / f"{i:02}.png")
    data = Images(str(tmp_path), size=4, test_share=0.2)
    assert data.num_classes is None and data.reference()[1] is None
    train, test = (set(data.reference(split)[0][:, 0, 0, 0].tolist()) for split in ("train", "test"))
    assert len(train) == 24 and len(test) == 6 and train | test == set(range(30))
    assert torch.equal(Images(str(tmp_path), size=4, test_share=0.2).reference("test")[0], data.reference("test")[0])
    assert isinstance(next(iter(data.val_dataloader())), Tensor)


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("crop", [255, 255, 255, 255]), ("stretch", [0, 255, 255, 0]), ("pad", [0, 255, 255, 0])],
)
def test_ways_to_fit(tmp_path: Path, fit: Any, expected: list[int]) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)  # 8 wide, 4 high: black, white middle, black
    pixels[:, 2:6] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = Images(str(tmp_path), size=4, fit=fit, test_share=0).reference()[0][0]
    assert (image[0, 2].int() - torch.tensor(expected)).abs().max() <= 25
    assert image[0, 0].max() == (0 if fit == "pad" else 255) or fit == "stretch"


def test_camera_rotation_and_transparency_are_respected(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255  # right half white
    tags = Image.Exif()
    tags[0x0112] = 6  # shown turned by 90 degrees clockwise: what was right is below
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=tags)
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4, :, 3] = 255  # upper half black, lower half transparent
    Image.fromarray(clear).save(tmp_path / "b.png")
    turned, composed = Images(str(tmp_path), size=8, mode="L", test_share=0).reference()[0][:, 0]
    for image in (turned, composed):
        assert (image[:4] == 0).all() and (image[4:] == 255).all()


def test_folders_without_usable_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"path .*nowhere does not exist: it must be a folder of images or a \.zip"
    ):
        Images(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"holds no images \(files that end in \.jpg"):
        Images(str(tmp_path))
    (tmp_path / "a.zip").write_bytes(b"PK but no zip file")
    with pytest.raises(ValueError, match=r"a\.zip is neither a folder nor a sound \.zip file"):
        Images(str(tmp_path / "a.zip"))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"none of its 1 image files can be read \(a\.png: no picture of a known"):
        Images(str(tmp_path)).setup("fit")
    for arguments, message in (
        ({"size": 0}, r"size must be an integer >= 1, got 0"),
        ({"fit": "zoom"}, "fit must be one of crop, stretch, pad, got 'zoom'"),
        ({"mode": "CMYK"}, "mode must be one of L, LA, RGB, RGBA, got 'CMYK'"),
        ({"test_share": 1}, r"test_share must be in \[0, 1\), got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Images(str(tmp_path), **arguments)  # type: ignore[arg-type]


def test_a_mixture_without_dimensions_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"the modes of Mixture must be finite, \(K\), got"):
        Mixture().set_components(torch.zeros(2, 2), [1.0, 1.0], [0.5, 0.5])


def test_it_is_printed_in_one_line() -> None:
    """Lightning's own way goes through the loaders, and fails on ours."""
    assert str(Ring(batch_size=8)) == "Ring of shape (2,), batches of 8"
