"""The score callbacks: equal to torch-fidelity, scheduled, monitored, resumed, and invisible to training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from common import QUIET, equal, make, make_images, state
from ranks import two_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lightning_gans.callbacks import NonFiniteError
from lightning_gans.callbacks.generative_metrics import GenerativeMetrics
from lightning_gans.callbacks.mode_coverage import ModeCoverage, digit_classifier
from lightning_gans.compat.lightning import callbacks as pl_callbacks
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.datamodules.digits import Digits
from lightning_gans.datamodules.toy1d import PointMass, RareTail1D
from lightning_gans.datamodules.toy2d import Ring, SwissRoll
from lightning_gans.metrics import (
    FeatureExtractor,
    InceptionExtractor,
    ModuleExtractor,
    content_hash,
    extractors,
    to_uint8,
    wasserstein1,
)
from lightning_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    ResNetGenerator,
    ToyDiscriminator,
    ToyGenerator,
)
from lightning_gans.techniques import WGAN, GANModule

FLAT = "metrics/fid/flatten"


def fit(module: GANModule, *extra: Any, data: Any = None, ckpt_path: str | None = None, **options: Any) -> pl.Trainer:
    """Train on the digits (or other data) with some callbacks."""
    trainer = pl.Trainer(**(QUIET | {"callbacks": list(extra), "log_every_n_steps": 2} | options))
    trainer.fit(module, Digits(batch_size=8) if data is None else data, ckpt_path=ckpt_path)
    return trainer


def flat(every_n_steps: int = 3, **options: Any) -> GenerativeMetrics:
    """Cheap metrics: the features are the pixels."""
    defaults = {"extractor": nn.Flatten(), "metrics": ("fid",), "num_fake": 120}
    return GenerativeMetrics(every_n_steps, **(defaults | options))


def noisy_digits() -> DataLoader:
    """A plain shuffling loader over 100 digits; reading one draws a random number."""
    images, labels = (part[:100] for part in Digits().reference())

    class Noisy(TensorDataset):
        def __getitem__(self, i: int) -> tuple[Tensor, ...]:
            return images[i].float() / 127.5 - 1 + 0.01 * torch.rand(1), labels[i]

    return DataLoader(Noisy(images), 8, shuffle=True, drop_last=True)


# ---------------------------------------------------------------------- torch-fidelity
def varied_images(number: int) -> Tensor:
    """Noise of different colours and contrasts, uint8 (N, 3, 32, 32)."""
    own = torch.Generator().manual_seed(5)
    noise, colour = torch.rand(number, 3, 32, 32, generator=own), torch.rand(number, 3, 1, 1, generator=own)
    return ((0.2 + 0.8 * torch.rand(number, 1, 1, 1, generator=own)) * noise * colour * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the right format, with random weights."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits"])
    for name, parameter in network.named_parameters():
        if name.endswith("conv.weight"):
            nn.init.kaiming_normal_(parameter)
    (features, _) = network(varied_images(4))  # logits that differ: no weight on what all images share
    common = nn.functional.normalize(features.mean(0), dim=0)
    network.fc.weight -= torch.outer(network.fc.weight @ common, common)
    network.fc.weight *= 2 / (features @ network.fc.weight.T).std()
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_in_loop_scores_equal_torch_fidelity(inception_weights: Path) -> None:
    """The same weights file and the same images: FID, IS (1 split), KID (1 subset of all), precision, recall."""
    from torch_fidelity import calculate_metrics

    number = 10
    images = varied_images(number)
    extractor = InceptionExtractor(inception_weights)
    seen: list[Tensor] = []
    extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    class Tinted(nn.Module):
        """The reals, tinted by z: partly near the reals, partly far from them."""

        def __init__(self) -> None:
            super().__init__()
            self.images = nn.Parameter(images / 127.5 - 1)

        def forward(self, z: Tensor) -> Tensor:
            index = (z[:, 0].abs() * 1e4).long() % number
            return self.images[index] + 0.4 * z[:, 1:, None, None]

    module = WGAN(Tinted(), DCGANDiscriminator((3, 32, 32), width=4), 4, d_steps=1)
    metrics = GenerativeMetrics(
        1,
        extractor,
        num_fake=number,
        batch_size=number,
        at_start=False,
        is_splits=1,
        kid_subsets=1,
        kid_subset_size=number,
    )
    fit(module, metrics, data=DataLoader(TensorDataset(images / 127.5 - 1), number), max_steps=1)
    assert [len(part) for part in seen] == [number] * 2, "reals and fakes were not extracted once each"
    real, fake = seen
    assert torch.equal(real, images)

    class Images(torch.utils.data.Dataset):
        def __init__(self, items: Tensor) -> None:
            self.items = items

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, i: int) -> Tensor:
            return self.items[i]

    theirs = calculate_metrics(
        input1=Images(fake), input2=Images(real), cuda=False, verbose=False, cache=False, save_cpu_ram=True,
        batch_size=number, isc=True, fid=True, kid=True, prc=True, isc_splits=1, kid_subsets=1, kid_subset_size=number,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(inception_weights),
    )  # fmt: skip
    ours = metrics.history[-1]
    for name, key in (
        ("fid", "frechet_inception_distance"),
        ("is", "inception_score_mean"),
        ("kid", "kernel_inception_distance_mean"),
        ("precision", "precision"),
        ("recall", "recall"),
    ):
        assert ours[f"metrics/{name}/inception"] == pytest.approx(theirs[key], rel=1e-3), name
    assert ours["metrics/is/inception"] > 1.1 and ours["metrics/fid/inception"] > 0.1, "the comparison is empty"
    assert 0 < ours["metrics/precision/inception"] < 1
    assert "antialias=False" in metrics.protocol["resize"]


@pytest.mark.slow
def test_inception_repeats_grey_images(inception_weights: Path) -> None:
    extractor = InceptionExtractor(inception_weights)
    grey = torch.randint(256, (1, 1, 16, 16), dtype=torch.uint8)
    for once, thrice in zip(extractor(grey), extractor(grey.repeat(1, 3, 1, 1))):
        assert once is not None and thrice is not None and torch.equal(once, thrice)
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        extractor(grey.repeat(1, 2, 1, 1))


# ---------------------------------------------------------------------- when, and where to
def test_schedule_history_loggers_files_and_protocol(tmp_path: Path) -> None:
    metrics = flat(metrics=("fid", "prdc"))
    logger = loggers.CSVLogger(tmp_path, name="", version="run")
    trainer = fit(make_images("wgan", d_steps=2), metrics, max_steps=7, logger=logger)
    assert [entry["step"] for entry in metrics.history] == [0, 3, 6, 7]
    assert set(metrics.history[0]) == {"step"} | {
        f"metrics/{name}/flatten" for name in ("fid", "precision", "recall", "density", "coverage")
    }
    assert trainer.callback_metrics[FLAT] == pytest.approx(metrics.history[-1][FLAT], rel=1e-6)
    assert FLAT in trainer.progress_bar_metrics and "metrics/recall/flatten" not in trainer.progress_bar_metrics

    header, *rows = [line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    column, step = header.index(FLAT), header.index("step")
    logged = {int(row[step]): float(row[column]) for row in rows if row[column]}
    assert logged == pytest.approx({int(entry["step"]): entry[FLAT] for entry in metrics.history})

    lines = [json.loads(line) for line in (tmp_path / "run" / "scores-flatten.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in line.items() if k != "protocol"} for line in lines] == metrics.history
    reference, _ = Digits().reference()
    assert lines[-1]["protocol"] == metrics.protocol
    expected = {
        "extractor": "flatten",
        "reference_split": "train",
        "reference_items": 1500,
        "reference_hash": content_hash(reference),
        "fakes": 120,
        "weights": "raw",
        "batch_norm": "evaluation mode",
    }
    assert expected.items() <= metrics.protocol.items()
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_the_score_is_that_of_the_samples() -> None:
    """FID of the pixels against a computation from scratch."""
    module, metrics = make_images("wgan"), flat(num_fake=100, num_real=300, at_start=False)
    fit(module, metrics, max_steps=2)
    own = torch.Generator().manual_seed(0)
    fake = to_uint8(module.sample(100, generator=own)).flatten(1).double()
    chosen = torch.randperm(1500, generator=torch.Generator().manual_seed(0))[:300]
    real = Digits().reference()[0][chosen].flatten(1).double()
    cross = torch.linalg.eigvals(torch.cov(real.T) @ torch.cov(fake.T)).sqrt().real.sum()
    expected = (real.mean(0) - fake.mean(0)).square().sum() + real.var(0).sum() + fake.var(0).sum() - 2 * cross
    assert metrics.history == [{"step": 2, FLAT: pytest.approx(float(expected), rel=1e-6)}]


def test_checkpoint_and_early_stopping_find_the_score(tmp_path: Path) -> None:
    """The best checkpoint is the best entry of the history; a score that does not improve stops the run.

    That of update 0 is nothing to improve on.
    """
    metrics = flat(every_n_steps=2)
    best = pl_callbacks.ModelCheckpoint(
        tmp_path, monitor=FLAT, every_n_train_steps=2, save_top_k=1, filename="{step}", auto_insert_metric_name=False
    )
    fit(make_images("wgan", lr_g=1e-2), metrics, best, max_steps=8, enable_checkpointing=True)
    expected = min((e for e in metrics.history if e["step"]), key=lambda e: e[FLAT])
    assert Path(best.best_model_path).stem == str(expected["step"])
    assert float(best.best_model_score) == pytest.approx(expected[FLAT], rel=1e-6)

    metrics = flat(every_n_steps=12)  # epochs are of 4: two measurements without success stop, not two epochs
    stopping = pl_callbacks.EarlyStopping(FLAT, patience=2, min_delta=1e9, check_on_train_epoch_end=True)
    short = DataLoader(TensorDataset(Digits().reference()[0][:32].float() / 127.5 - 1), 8)
    trainer = fit(make_images("wgan", d_steps=1), metrics, stopping, data=short, max_steps=100)
    assert trainer.global_step == 36 and [entry["step"] for entry in metrics.history] == [0, 12, 24, 36]


def test_best_and_state(tmp_path: Path) -> None:
    metrics = flat()
    metrics.history = [
        {"step": 0, "metrics/fid/a": 9.0, "metrics/recall/a": 0.1},
        {"step": 1, "metrics/fid/a": math.nan, "metrics/recall/a": 0.9},
        {"step": 2, "metrics/fid/a": 3.0, "metrics/recall/a": 0.5},
    ]
    assert metrics.best("fid")["step"] == 2 and metrics.best("metrics/recall/a")["step"] == 1
    with pytest.raises(ValueError, match="metric must be one of metrics/fid/a, metrics/recall/a, got 'kid'"):
        metrics.best("kid")
    torch.save(metrics.state_dict(), tmp_path / "state.pt")
    other = flat()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.best("fid") == metrics.best("fid")
    assert flat().state_key != flat(split="test").state_key != ModeCoverage().state_key


def test_history_goes_on_after_a_resume(tmp_path: Path) -> None:
    """Also in the file, where no line is repeated; and the last score can be monitored at once."""
    whole, first, second = flat(), flat(), flat()
    fit(make_images("wgan"), whole, max_steps=7)
    trainer = fit(make_images("wgan"), first, max_steps=4, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    fit(make_images("wgan"), second, max_steps=7, default_root_dir=tmp_path, ckpt_path=str(tmp_path / "last.ckpt"))
    assert [entry["step"] for entry in second.history] == [0, 3, 4, 6, 7]
    assert [entry for entry in second.history if entry["step"] != 4] == whole.history
    assert len((tmp_path / "scores-flatten.jsonl").read_text().splitlines()) == 5


def test_trainer_test_scores(tmp_path: Path) -> None:
    """``trainer.test`` measures once and returns the scores; also after fit, with the same callback."""
    module, metrics = make_images("wgan"), flat(extractor="lenet", metrics=("fid", "is"))
    trainer = fit(module, metrics, max_steps=3, default_root_dir=tmp_path)
    (results,) = trainer.test(module, Digits(batch_size=8), verbose=False)
    last = metrics.history[-1]
    assert results == pytest.approx({name: value for name, value in last.items() if name != "step"}, rel=1e-6)
    assert len(metrics.history) == 2 and (tmp_path / "test-scores-lenet.jsonl").exists()
    fresh = flat(extractor="lenet")
    (results,) = pl.Trainer(**QUIET, callbacks=[fresh], default_root_dir=tmp_path).test(
        module, Digits(batch_size=8), verbose=False
    )
    assert results == pytest.approx({"metrics/fid/lenet": last["metrics/fid/lenet"]}, rel=1e-6)


def test_a_classifier_is_of_the_data_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of those of an earlier fit."""
    built: list[Any] = []

    def build(self: Any, trainer: Any, name: str, device: Any) -> ModuleExtractor:
        built.append(trainer.datamodule)
        return ModuleExtractor(nn.Flatten(), name)

    monkeypatch.setattr(GenerativeMetrics, "_build", build)
    metrics, data = flat(extractor="lenet"), [Digits(batch_size=8) for _ in range(2)]
    for some in data:
        fit(make_images("wgan"), metrics, data=some, max_steps=1)
    assert built == data


def test_scores_of_a_checkpoint_are_of_its_update(tmp_path: Path) -> None:
    coverage, again = ModeCoverage(num_samples=50, at_start=False), ModeCoverage(num_samples=50)
    trainer = fit(make("wgan"), coverage, data=Ring(batch_size=8), max_steps=3, default_root_dir=tmp_path)
    trainer.save_checkpoint(path := tmp_path / "3.ckpt")
    fresh = pl.Trainer(**QUIET, callbacks=[again], default_root_dir=tmp_path)

    def told(tester: pl.Trainer, ckpt_path: Path | None = None) -> int:
        tester.test(make("wgan"), Ring(batch_size=8), ckpt_path=ckpt_path, verbose=False)
        return json.loads((tmp_path / "test-scores-coverage.jsonl").read_text())["step"]

    assert told(fresh) == 0 and told(fresh, path) == 3 and told(fresh) == 0  # of another model
    longer = fit(make("wgan"), again, data=Ring(batch_size=8), max_steps=5, default_root_dir=tmp_path)
    assert told(longer) == 5 and told(longer, path) == 3


# ---------------------------------------------------------------------- invisible to training
@pytest.mark.parametrize("own_data", [True, False])
def test_training_is_the_same_with_and_without(own_data: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, although a classifier is trained on the way; nothing of it enters the module."""
    train, trained = extractors._train_classifier, []

    def shortly(network: Any, images: Tensor, labels: Tensor, epochs: int, title: str) -> None:
        trained.append(epochs)
        train(network, images, labels, 1, title)

    monkeypatch.setattr(extractors, "_train_classifier", shortly)
    monkeypatch.setattr(extractors, "SHIPPED", tmp_path)

    def data() -> Any:
        return Digits(batch_size=8) if own_data else noisy_digits()

    plain, measured = make_images("gan"), make_images("gan")
    names = set(measured.state_dict()), len(list(measured.parameters()))
    torch.manual_seed(2)
    fit(plain, data=data(), max_steps=5)
    after = torch.get_rng_state()
    torch.manual_seed(2)
    metrics = flat(2, extractor="lenet", metrics=("fid", "is", "kid"), kid_subsets=2, cache_dir=str(tmp_path))
    fit(measured, metrics, data=data(), max_steps=5)
    assert len(trained) == 1
    assert len(metrics.history) == 4
    assert torch.equal(torch.get_rng_state(), after)
    assert equal(state(plain), state(measured))
    assert (set(measured.state_dict()), len(list(measured.parameters()))) == names
    assert measured.generator.training and all(p.requires_grad for p in measured.parameters())


def test_scores_depend_neither_on_batch_size_nor_on_the_global_generator() -> None:
    results = []
    for seed, batch_size in ((0, 100), (1, 450)):
        metrics = flat(num_fake=330, metrics=("fid", "prdc"), batch_size=batch_size)
        module = make_images("dcgan")  # BatchNorm in the generator
        torch.manual_seed(seed)
        fit(module, metrics, max_steps=1)
        results.append(metrics.history[0])
    assert results[0] == pytest.approx(results[1], rel=1e-9)


@pytest.mark.parametrize("conditional", [False, True])
def test_one_pass_of_the_generator_makes_what_one_per_block_makes(conditional: bool) -> None:
    generator = ResNetGenerator((1, 8, 8), 3, width=4, num_classes=10 if conditional else None)
    module = WGAN(generator, DCGANDiscriminator(shape=(1, 8, 8), width=4), 3)
    passes: list[int] = []
    module.generator.register_forward_hook(lambda _, inputs, output: passes.append(len(output)))
    metrics = flat(num_fake=330, batch_size=400)
    seen: list[Tensor] = []
    metrics.extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    trainer = pl.Trainer(**QUIET, callbacks=[metrics])
    trainer.test(module, Digits(batch_size=8), verbose=False)
    labels = torch.randint(10, (330,), generator=torch.Generator().manual_seed(0)) if conditional else None
    own = [torch.Generator().manual_seed(start) for start in (0, 100, 200, 300)]
    parts = [slice(0, 100), slice(100, 200), slice(200, 300), slice(300, 330)]
    blocks = [
        module.sample(part.stop - part.start, None if labels is None else labels[part], source)
        for part, source in zip(parts, own)
    ]
    assert passes[0] == 330 and len(passes) == 5
    gap = seen[-1].int() - to_uint8(torch.cat(blocks)).int()
    assert gap.abs().max() <= 1 and (gap != 0).float().mean() < 1e-3


def test_ema_weights_are_scored_and_said() -> None:
    class StartEMA(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module.start_ema()  # type: ignore[operator]

    metrics = flat(every_n_steps=1)
    fit(make_images("wgan", lr_g=1e-2), StartEMA(), metrics, max_steps=2)
    assert metrics.protocol["weights"] == "ema"
    assert metrics.history[0][FLAT] == metrics.history[2][FLAT], "the averaged weights never moved, the scores did"


# ---------------------------------------------------------------------- other data and modules
def test_foreign_loader_of_pairs_is_the_whole_reference() -> None:
    """In order, nothing dropped, although the loader shuffles and drops; the running loader is left alone."""
    images, labels = Digits().reference()
    dataset = TensorDataset(images.float() / 127.5 - 1, labels)
    loader = DataLoader(dataset, 64, shuffle=True, drop_last=True)
    metrics, same = flat(), flat()
    fit(make_images("wgan"), metrics, data=loader, max_steps=1)
    fit(make_images("wgan"), same, max_steps=1, data=Digits(batch_size=64))
    assert metrics.protocol["reference_hash"] == same.protocol["reference_hash"]
    assert metrics.history[0] == same.history[0]


def test_a_foreign_loaders_held_out_items_are_no_reference() -> None:
    images, _ = Digits().reference()
    dataset, drawn = TensorDataset(images.float() / 127.5 - 1), torch.arange(100, 300, 2).tolist()
    loader = DataLoader(dataset, 20, sampler=SubsetRandomSampler(drawn))
    metrics, same = flat(), flat()
    fit(make_images("wgan"), metrics, data=loader, max_steps=1)
    fit(make_images("wgan"), same, data=DataLoader(TensorDataset(dataset.tensors[0][100:300:2]), 20), max_steps=1)
    assert metrics.protocol["reference_items"] == 100
    assert metrics.protocol["reference_hash"] == same.protocol["reference_hash"]


def test_samples_that_are_not_of_the_range_that_is_assumed_are_told() -> None:
    images, _ = Digits().reference()

    class Unsaid(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(images / 255), 8)

        def reference(self, split: str) -> tuple[Tensor, None]:
            return images, None

    nets = nn.Sequential(DCGANGenerator((1, 8, 8), 3, width=4), nn.Sigmoid()), DCGANDiscriminator((1, 8, 8), width=4)
    with pytest.warns(UserWarning, match="Samples are taken as of -1 to 1, but are never below 0"):
        fit(WGAN(*nets, 3), flat(), data=Unsaid(), max_steps=1)


def test_value_range_of_the_datamodule_is_used() -> None:
    """A generator that puts out 0 is black in [0, 1] and grey in [-1, 1]."""

    class Zeros(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = nn.Parameter(torch.zeros(1))

        def forward(self, z: Tensor) -> Tensor:
            return self.zero * z.sum(1).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)

    seen: list[int] = []

    class Pixels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(int(x[0, 0, 0, 0]) if bool((x == x[0, 0, 0, 0]).all()) else -1)
            return x.flatten(1).float()

    for value_range, level in (((0.0, 1.0), 0), ((-1.0, 1.0), 128)):
        module = WGAN(Zeros(), DCGANDiscriminator((1, 8, 8), width=4), 3)
        data = Digits(batch_size=8, value_range=value_range)
        fit(module, flat(extractor=Pixels()), data=data, max_steps=1)
        assert seen[-2] == level  # the fakes of step 0, before those of step 1


def test_conditional_generators_get_every_class() -> None:
    asked: list[Tensor] = []

    class Asked(DCGANGenerator):
        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            assert labels is not None
            asked.append(labels)
            return super().forward(z, labels)

    networks = Asked((1, 8, 8), 3, width=4, num_classes=10), DCGANDiscriminator((1, 8, 8), width=4, num_classes=10)
    fit(WGAN(*networks, 3), flat(), max_steps=1)
    fakes = torch.cat([labels for labels in asked if len(labels) > 8])  # the others: training
    assert len(fakes) == 2 * 120 and set(fakes.tolist()) == set(range(10)) and torch.equal(*fakes.chunk(2))


def test_a_diverged_generator_scores_nan() -> None:
    module, metrics = make_images("wgan"), flat(metrics=("fid", "prdc"))
    next(module.generator.parameters()).data.fill_(math.nan)
    words = pytest.warns(UserWarning, match="samples are not finite at step 0; its scores are NaN")
    with words, pytest.raises(NonFiniteError, match="d/adversarial must be a finite number"):
        fit(module, metrics, max_steps=1)
    assert all(math.isnan(value) for name, value in metrics.history[0].items() if name != "step")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be an integer >= 1, got 0"),
        ({"extractor": "vgg"}, "extractor must be one of inception, lenet, resnet, or a module, got 'vgg'"),
        ({"metrics": ("fid", "ssim")}, "metrics must be some of fid, is, kid, prdc, uniformity, got fid, ssim"),
        ({"num_fake": 1}, "num_fake must be an integer >= 2, got 1"),
        ({"split": "val"}, "split must be one of train, test, got 'val'"),
        ({"metrics": ("is",), "num_fake": 5}, "is_splits must be at most num_fake=5, got 10"),
        ({"kid_subset_size": 1}, "kid_subset_size must be an integer >= 2, got 1"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flat(**options)


class Pixels(FeatureExtractor):
    name = "pixels"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return images.flatten(1).float(), None


def test_bad_data() -> None:
    images = [torch.rand(4, 1, 8, 8) for _ in range(4)]
    with pytest.raises(ValueError, match="num_real must be at most 1500, the size of the reference, got 1501"):
        fit(make_images("wgan"), flat(num_real=1501), max_steps=1)
    with pytest.raises(ValueError, match="num_fake must be at least 6 for the metrics prdc, got 5"):
        fit(make_images("wgan"), flat(metrics=("prdc",), num_fake=5), max_steps=1)
    with pytest.raises(ValueError, match="'lenet' is trained on the data set's labels, but there are none"):
        fit(make_images("wgan"), flat(extractor="lenet"), data=images, max_steps=1)
    for extractor in (nn.Flatten(), Pixels()):  # before the first update, not at the first measurement
        module = make_images("wgan")
        with pytest.raises(
            ValueError, match=r"must be without 'is' for the extractor '\w+', which has no class logits"
        ):
            fit(module, flat(extractor=extractor, metrics=("fid", "is"), at_start=False), max_steps=3)
        assert module.global_step == 0
    with pytest.raises(ValueError, match="for toy data use ModeCoverage"):
        fit(make("wgan"), flat(), data=Ring(batch_size=8), max_steps=1)
    with pytest.raises(ValueError, match="for toy data use ModeCoverage"):
        fit(make("wgan"), flat(), data=[torch.rand(4, 2) for _ in range(4)], max_steps=1)


# ---------------------------------------------------------------------- several processes
def _rank(rank: int, folder: Path) -> None:
    metrics = flat(every_n_steps=10, num_fake=330, metrics=("fid", "prdc", "uniformity"))
    classifier = flat(every_n_steps=10, num_fake=330, extractor="lenet", metrics=("is",))
    fit(make_images("dcgan"), metrics, classifier, max_steps=1, devices=2, strategy="gan_ddp", default_root_dir=folder)
    torch.save([metrics.history, classifier.history], folder / f"rank{rank}.pt")


def test_two_ranks_score_as_one_process(tmp_path: Path) -> None:
    metrics = flat(num_fake=330, metrics=("fid", "prdc", "uniformity"))
    classifier = flat(num_fake=330, extractor="lenet", metrics=("is",))
    fit(make_images("dcgan"), metrics, classifier, max_steps=1, default_root_dir=tmp_path / "one")
    two_ranks(_rank, tmp_path)
    for rank in (0, 1):
        two = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert two[0][0] == pytest.approx(metrics.history[0], rel=1e-6)
        assert two[1][0] == pytest.approx(classifier.history[0], rel=1e-6)
    scores = json.loads((tmp_path / "scores-flatten.jsonl").read_text().splitlines()[0])
    assert scores["protocol"]["uniformity_items"] == 330
    parts = [scores[f"metrics/{name}/flatten"] for name in ("uniformity", "uniformity_real", "uniformity_gap")]
    assert parts[2] == pytest.approx(parts[0] - parts[1], rel=1e-9) and parts[2] > 0.01  # untrained: all alike


# ---------------------------------------------------------------------- mode coverage
class Exact(nn.Module):
    """A 'generator' that puts out the ring itself: z picks the mode and the place in it."""

    def __init__(self, modes: Tensor, std: float) -> None:
        super().__init__()
        self.modes, self.std = nn.Parameter(modes.clone()), std

    def forward(self, z: Tensor) -> Tensor:
        index = ((z[:, 0].erf() + 1) / 2 * len(self.modes)).long().clamp(0, len(self.modes) - 1)
        return self.modes[index] + self.std * z[:, 1:]


def test_mode_coverage_of_the_exact_ring_and_of_a_collapsed_one() -> None:
    ring = Ring(batch_size=8)
    for modes, covered, kl in ((ring.modes, 8, 0.2), (ring.modes[:1].repeat(8, 1), 1, math.log(8))):
        coverage = ModeCoverage(num_samples=2500)
        module = WGAN(Exact(modes, ring.std), ToyDiscriminator((2,), width=4, depth=1), 3)
        trainer = fit(module, coverage, data=ring, max_steps=1)
        values = coverage.history[0]
        assert values["metrics/modes"] == covered
        assert values["metrics/high_quality"] == pytest.approx(1 - math.exp(-8), abs=3e-3)  # 4 std of a 2-D Gaussian
        assert values["metrics/reverse_kl"] == pytest.approx(kl, abs=0.05 if covered == 1 else 0.2)
        assert coverage.protocol["radius"] == pytest.approx(4 * ring.std) and coverage.protocol["modes"] == 8
        assert trainer.callback_metrics["metrics/modes"] == coverage.history[1]["metrics/modes"]
        assert coverage.best("modes")["metrics/modes"] >= covered


def test_mode_coverage_on_the_line() -> None:
    """W1 to a point is the mean distance; a tail is counted beyond the data's own threshold."""

    class Affine(nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(shift))

        def forward(self, z: Tensor) -> Tensor:
            return self.shift + 0 * z

    class Doubled(Affine):
        def forward(self, z: Tensor) -> Tensor:
            return self.shift + 2 * z

    coverage = ModeCoverage(num_samples=1500)
    fit(WGAN(Affine(3.5), ToyDiscriminator((1,), width=4, depth=1), 1), coverage, data=PointMass(1.0, 8), max_steps=1)
    assert coverage.history[0]["step"] == 0 and coverage.history[0]["metrics/w1"] == pytest.approx(2.5, rel=1e-6)
    coverage = ModeCoverage(num_samples=10_000)
    fit(WGAN(Doubled(1.0), ToyDiscriminator((1,), width=4, depth=1), 1), coverage, data=PointMass(1.0, 8), max_steps=1)
    assert coverage.history[0]["metrics/mean"] == pytest.approx(1, abs=0.08)  # four standard errors
    assert coverage.history[0]["metrics/std"] == pytest.approx(2, abs=0.06)

    tail, coverage = RareTail1D(batch_size=8), ModeCoverage(num_samples=4000)
    fit(WGAN(Affine(9.0), ToyDiscriminator((1,), width=4, depth=1), 1), coverage, data=tail, max_steps=1)
    exact = float(wasserstein1(torch.full((1,), 9.0), tail.sample_exact(4000, torch.Generator().manual_seed(3))))
    assert coverage.history[0]["metrics/w1"] == pytest.approx(exact, rel=0.02)
    assert coverage.history[0]["metrics/tail_mass"] == 1
    assert coverage.protocol["exact_tail_mass"] == pytest.approx(0.01, abs=1e-3)


def test_mode_coverage_of_stacked_digits() -> None:
    """The digits stacked by a 'generator' that replays them are told apart; one digit repeated is one mode."""
    images, labels = Digits().reference()

    class Stacked(Digits):
        name, shape, num_classes = "Stacked", (3, 8, 8), 1000

        def load(self, split: str) -> tuple[Tensor, Tensor]:
            rows = torch.arange(1500).view(500, 3)
            return images[rows][:, :, 0], labels[rows] @ torch.tensor([100, 10, 1])

    class Replay(nn.Module):
        def __init__(self, kinds: int) -> None:
            super().__init__()
            self.images = nn.Parameter(Stacked().reference()[0][:kinds].float() / 127.5 - 1)

        def forward(self, z: Tensor) -> Tensor:
            return self.images[(z[:, 0] * 1e4).long() % len(self.images)]

    class Told(Stacked):
        def digits(self, split: str) -> tuple[Tensor, Tensor]:
            return images[:20], labels[:20]

    with pytest.MonkeyPatch.context() as patch:  # by whom they are told apart
        patch.setattr("lightning_gans.callbacks.mode_coverage.ClassifierExtractor", lambda *given, **_: given[:2])
        for data, n in ((Stacked(), 1500), (Told(), 20)):
            learned: Any = digit_classifier(data)
            assert torch.equal(learned[0], images[:n]) and torch.equal(learned[1], labels[:n])
    for kinds in (1, 500):
        coverage = ModeCoverage(num_samples=2000)
        module = WGAN(Replay(kinds), DCGANDiscriminator((3, 8, 8), width=4), 1)
        fit(module, coverage, data=Stacked(batch_size=8), max_steps=1)
        held = len(set(Stacked().reference()[1][:kinds].tolist()))
        assert coverage.history[0]["metrics/modes/lenet"] == pytest.approx(held, rel=0.05)
        share = torch.full((held,), 1 / held)
        assert coverage.history[0]["metrics/reverse_kl/lenet"] == pytest.approx(math.log(1000 / held), abs=0.3), share


def test_mode_coverage_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="radius must be a finite number > 0, got -1"):
        ModeCoverage(radius=-1)
    with pytest.raises(ValueError, match="threshold must be an integer >= 1, got 0"):
        ModeCoverage(threshold=0)
    for data, module, name in ((SwissRoll(8), make("wgan"), "SwissRoll"), (Digits(8), make_images("wgan"), "Digits")):
        with pytest.raises(ValueError, match=f"ModeCoverage needs .* got {name}"):
            fit(module, ModeCoverage(), data=data, max_steps=1)


def test_toy_generator_trains_with_mode_coverage() -> None:
    module = WGAN(ToyGenerator((2,), 2, 8, 1), ToyDiscriminator((2,), 8, 1), 2)
    coverage = ModeCoverage(every_n_steps=2, num_samples=200)
    fit(module, coverage, data=Ring(batch_size=8), max_steps=3)
    assert [entry["step"] for entry in coverage.history] == [0, 2, 3]
