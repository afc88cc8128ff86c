"""What is asked of a model, and the sentence where it cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import nn

from lightning_gans import TECHNIQUES
from lightning_gans.callbacks import (
    EMA,
    GradientNorms,
    LossVariance,
    NonFiniteError,
    NonFiniteGuard,
    OverfitAlarm,
    RankConsistency,
    SampleGrid,
    SampleRanking,
    StationarityGap,
    SurrogateObjective,
    WeightHistogram,
)
from lightning_gans.callbacks.probe import untouched
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.contract import Critic, Latents, Likelihood, Ratio, Samples, require
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.runs.metrics_csv import MetricsCSV


@pytest.mark.parametrize("name", TECHNIQUES)
@pytest.mark.parametrize("capability", [Samples, Latents, Critic])
def test_every_technique(name: str, capability: type) -> None:
    module = make(name)
    assert require(module, capability, "it") is module


@pytest.mark.parametrize("name", TECHNIQUES)
def test_the_ratio_is_a_value(name: str) -> None:
    module = make(name)
    if module.log_ratio is None:
        with pytest.raises(TypeError, match=r"it needs a model that estimates the ratio .* which has no log_ratio\.$"):
            require(module, Ratio, "it")
    else:
        assert require(module, Ratio, "it") is module


class Nothing(pl.LightningModule):
    pass


class NoMethod(pl.LightningModule):
    """An attribute of an instance is no method of a class, and a number no network."""

    def __init__(self) -> None:
        super().__init__()
        self.sample: Any = 3
        self.discriminator: Any = 4

    def score(self, x: Any, batch: Any) -> Any: ...


class Lazy(nn.Module):
    """Looking must not run what it looks at."""

    @property
    def sample(self) -> Any:
        raise AssertionError("evaluated")


@pytest.mark.parametrize(
    ("model", "capability", "words"),
    [
        (Nothing(), Samples, "Lazy needs a model that makes samples, got Nothing, which has no sample."),
        (NoMethod(), Samples, "Lazy needs a model that makes samples, got NoMethod, which has no sample."),
        (NoMethod(), Critic, "Lazy needs a model that has a discriminator, got NoMethod, which has no discriminator."),
        (Nothing(), Likelihood, "Lazy needs a model that bounds the density of data, got Nothing, which has no "
         "log_density_bound."),
        (Lazy(), Samples, "Lazy needs a model that makes samples, got Lazy, which has no sample."),
    ],
)  # fmt: skip
def test_sentences(model: Any, capability: type, words: str) -> None:
    with pytest.raises(TypeError) as error:
        require(model, capability, Lazy())
    assert str(error.value) == words


# ---------------------------------------------------------------------- callbacks
class Pull(GenerativeModule):
    """A model with one network and one player that learns the mean of the data: no discriminator, noise of two."""

    counted = "net"
    made_by = "net"
    latent_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
        self.play(Player("net", ("net",), lr=1e-2))

    def terms(self, player: str, batch: Batch) -> Terms:
        return {"distance": (self(batch.z) - batch.real).square().mean()}


class OwnSample(Pull):
    """Its samples are no function of the noise that it would tell."""

    def sample(self, n: int, labels: Any = None, generator: Any = None, seed: Any = None) -> Any:
        return super().sample(n, labels, generator, seed) + 10


@pytest.mark.parametrize(
    "callback",
    [WeightHistogram(1), OverfitAlarm(1), SampleRanking(1), SurrogateObjective(1)],
    ids=lambda c: type(c).__name__,
)
def test_what_looks_at_a_discriminator_refuses_a_model_without_one(callback: Any, tmp_path: Path) -> None:
    module = Pull()
    words = f"{type(callback).__name__} needs a model that has a discriminator, got Pull, which has no score."
    with pytest.raises(TypeError) as error:
        trainer(max_steps=1, callbacks=[callback], default_root_dir=tmp_path).fit(module, plain())
    assert str(error.value) == words
    assert module.images_seen == 0 and list(tmp_path.iterdir()) == []  # before any work


@pytest.mark.parametrize("model", [Pull, OwnSample])
def test_what_looks_at_players_and_samples_works_without_a_discriminator(model: type[Pull], tmp_path: Path) -> None:
    module, rows = model(), MetricsCSV(tmp_path)
    watching = [EMA(0.5), GradientNorms(1), LossVariance(1), StationarityGap(1), RankConsistency(1),
                SampleGrid(2, points=20, interpolations=1), NonFiniteGuard("rollback")]  # fmt: skip
    trainer(max_steps=4, callbacks=watching, logger=rows, log_every_n_steps=1, default_root_dir=tmp_path).fit(
        module, plain()
    )
    header = rows.path.read_text().splitlines()[0].split(",")
    assert {"net/loss", "net/distance", "grad/net", "grad/net/0", "grad/net/2", "variance/net/loss", "gap/net"} <= {
        *header
    }
    assert not any(name.startswith("grad/input") for name in header)
    assert (tmp_path / "samples" / "latest.png").is_file() and module.ema is not None


def test_the_guard_names_the_network_of_any_player(tmp_path: Path) -> None:
    module = Pull()
    with torch.no_grad():
        module.net[2].bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"in update 1, step of the net, not finite: net/distance = nan"):
        trainer(max_steps=2, callbacks=[NonFiniteGuard()], default_root_dir=tmp_path).fit(module, plain())


def test_a_rollback_of_one_player(tmp_path: Path) -> None:
    module = Pull()
    before = state(module)
    data = torch.full((8, 2), 1e30)  # whose square is infinite
    with pytest.warns(UserWarning, match="Going back to the state of update 0"):
        trainer(max_steps=1, callbacks=[NonFiniteGuard("rollback")], default_root_dir=tmp_path).fit(
            module,
            torch.utils.data.DataLoader(data, 4),  # type: ignore[arg-type]
        )
    assert equal(before, state(module))


def test_looking_evaluates_every_network() -> None:
    for module in (Pull(), make("prc_gan_clip"), make("gan")):
        with untouched(module):
            assert not any(m.training for m in module.modules())
        assert all(m.training for m in module.modules())
