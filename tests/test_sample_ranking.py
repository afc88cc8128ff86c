"""The ranking of training samples by their mean score: its numbers, its files, and that it leaves no trace."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from common import build, equal, make, plain, state, trainer
from PIL import Image
from torch import Tensor, nn

from lightning_gans import GANModule
from lightning_gans.callbacks import SampleRanking
from lightning_gans.callbacks.sample_ranking import auroc
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Blob, Contaminated, Digits, Ring
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.runs.metrics_csv import MetricsCSV


class Line(nn.Module):
    """D(x) = level + slope * mean of x, which does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.slope, self.level = nn.Parameter(torch.zeros(())), 1.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.level + self.slope * x.flatten(1).mean(1) + 0 * self.unused


def test_auroc_counts_pairs() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0])
    positive = torch.tensor([True, False, True, False, False])
    pairs = [(p > n) + (p == n) / 2 for p in values[positive] for n in values[~positive]]
    assert auroc(values, positive) == pytest.approx(float(sum(pairs)) / 6) == 0.5833333333333334
    assert auroc(values, values > 2.5) == 1.0 and auroc(-values, values > 2.5) == 0.0
    assert auroc(torch.ones(4), torch.tensor([True, False, True, False])) == 0.5
    assert math.isnan(auroc(values, torch.zeros(5, dtype=torch.bool)))


def digits(share: float = 0.1, **options: Any) -> Contaminated:
    return Contaminated(Digits(batch_size=64, items=130, value_range=(0, 1), **options), "noise", share)


def game(discriminator: nn.Module | None = None, shape: tuple[int, ...] = (1, 8, 8)) -> GANModule:
    torch.manual_seed(1)
    nets = ToyGenerator(shape=shape, latent_dim=3, width=8), discriminator or ToyDiscriminator(shape=shape, width=8)
    return build("wgan_gp", *nets, nn.Identity(), d_steps=1)


def rank(
    module: GANModule, data: pl.LightningDataModule, steps: int = 4, every: int = 2, **options: Any
) -> SampleRanking:
    callback = SampleRanking(every, shown=5)
    torch.manual_seed(7)
    trainer(max_steps=steps, callbacks=[callback], limit_val_batches=0, **options).fit(module, datamodule=data)
    return callback


def test_the_margin_is_the_mean_of_centred_scores(tmp_path: Path) -> None:
    """The slope doubles and the level drifts from one pass to the next."""
    critic, data = Line(), digits()
    module = game(critic)

    class Drift(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            critic.slope, critic.level = 2.0 ** (trainer.global_step // 2), 100.0 * trainer.global_step

    callback = SampleRanking(2, shown=5)
    t = trainer(max_steps=6, callbacks=[Drift(), callback], default_root_dir=tmp_path, limit_val_batches=0)
    t.fit(module, datamodule=data)
    x = data.mixed()[0].double().flatten(1).mean(1) / 255
    assert callback.passes == 3 and callback.margin is not None
    torch.testing.assert_close(callback.margin, (x - x.mean()) * (1 + 2 + 4) / 3, rtol=0, atol=2e-5)


def test_the_list_names_samples_and_flags_highest_first(tmp_path: Path) -> None:
    data = digits()
    callback = rank(game(Line()), data, logger=MetricsCSV(tmp_path), log_every_n_steps=1)
    rows = list(csv.DictReader((tmp_path / "ranking" / "samples.csv").open()))
    margins = [float(row["margin"]) for row in rows]
    assert margins == sorted(margins, reverse=True) and sorted(int(row["index"]) for row in rows) == list(range(130))
    assert callback.margin is not None
    for row in rows:
        i = int(row["index"])
        assert float(row["margin"]) == pytest.approx(float(callback.margin[i]), rel=1e-6)
        assert bool(int(row["outlier"])) == bool(data.is_outlier[i])
    logged = [row["rank/auroc"] for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row.get("rank/auroc")]
    assert len(logged) == 2 and float(logged[-1]) == pytest.approx(auroc(callback.margin, data.is_outlier))
    assert float(logged[-1]) > 0.95  # noise is brighter than digits


def test_the_ends_are_drawn(tmp_path: Path) -> None:
    rank(game(Line()), digits(flip=True), default_root_dir=tmp_path)
    bright, dark = (Image.open(tmp_path / "ranking" / f"{name}.png").convert("L") for name in ("highest", "lowest"))
    assert bright.size == (5 * 68 + 4, 68 + 4) == dark.size
    inside = [
        torch.tensor(list(picture.crop((4, 4, 68, 68)).get_flattened_data())).float() for picture in (bright, dark)
    ]
    x = digits().mixed()[0].float().flatten(1).mean(1).sort().values
    assert float(inside[0].mean()) == pytest.approx(float(x[-1]), abs=1)
    assert float(inside[1].mean()) == pytest.approx(float(x[0]), abs=1)


def test_points_are_listed_and_not_drawn(tmp_path: Path) -> None:
    rank(game(shape=(2,)), Contaminated(Ring(batch_size=256), Blob(), 0.05), default_root_dir=tmp_path)
    assert sorted(path.name for path in (tmp_path / "ranking").iterdir()) == ["samples.csv"]
    assert len((tmp_path / "ranking" / "samples.csv").read_text().splitlines()) == 10_001


def test_without_flags_there_is_no_column_and_no_auroc(tmp_path: Path) -> None:
    rank(game(), Digits(batch_size=64, items=130), logger=MetricsCSV(tmp_path), log_every_n_steps=1)
    assert (tmp_path / "ranking" / "samples.csv").read_text().splitlines()[0] == "index,margin"
    assert "auroc" not in (tmp_path / "metrics.csv").read_text()


def test_it_leaves_no_trace_in_the_training(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [SampleRanking(1)]):
        module = game()
        module.discriminator.layers.insert(1, nn.Dropout(0.2))
        torch.manual_seed(7)
        t = trainer(max_steps=4, callbacks=callbacks, default_root_dir=tmp_path, limit_val_batches=0)
        t.fit(module, datamodule=digits())
        found.append((state(module), torch.get_rng_state()))
    assert equal(*found)


def test_a_resumed_run_goes_on_averaging(tmp_path: Path) -> None:
    whole = rank(game(), digits(), steps=6, default_root_dir=tmp_path)
    first, module = SampleRanking(2), game()
    torch.manual_seed(7)
    half = trainer(max_steps=3, callbacks=[first], default_root_dir=tmp_path, limit_val_batches=0)
    half.fit(module, datamodule=digits())
    half.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    rest = SampleRanking(2)
    t = trainer(max_steps=6, callbacks=[rest], default_root_dir=tmp_path, limit_val_batches=0)
    t.fit(game(), datamodule=digits(), ckpt_path=tmp_path / "a.ckpt")
    assert first.passes == 1 and rest.passes == whole.passes == 3
    assert equal(whole.margin, rest.margin)


def test_another_run_starts_anew(tmp_path: Path) -> None:
    callback = SampleRanking(2)
    for _ in range(2):
        trainer(max_steps=4, callbacks=[callback], default_root_dir=tmp_path, limit_val_batches=0).fit(
            game(), datamodule=digits()
        )
        assert callback.passes == 2


def test_a_loader_without_a_datamodule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SampleRanking needs a datamodule with fixed_loader\('train'\)"):
        trainer(max_steps=1, callbacks=[SampleRanking()], default_root_dir=tmp_path).fit(make("gan"), plain())
    with pytest.raises(ValueError, match="shown must be an integer >= 1, got 0"):
        SampleRanking(shown=0)
