"""The variance of each player's loss over its last updates."""

from __future__ import annotations

import copy
import statistics
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import Record, equal, make, plain, state, trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gans import GANModule
from lightning_gans.callbacks import LossVariance
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.networks import ToyDiscriminator, ToyGenerator


class Sequence(GANModule):
    """Losses that are known: the k-th update of D has k^2 and a penalty of 100 k, that of G has 10 k^2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(ToyGenerator(shape=(2,), latent_dim=3), ToyDiscriminator(shape=(2,)), 3, **options)
        self.done = {"d": 0, "g": 0}

    def known(self, player: str, network: nn.Module) -> Tensor:
        self.done[player] += 1
        return 0 * sum(p.sum() for p in network.parameters()) + torch.tensor(float(self.done[player]))

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        k = self.known("d", self.discriminator)
        self.note(d_real=k, d_weight_max=k)
        return {"adversarial": k.square(), "penalty": 100 * k}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        return {"adversarial": 10 * self.known("g", self.generator).square()}


def variances(module: GANModule, steps: int, **options: Any) -> dict[int, dict[str, float]]:
    record = Record("variance/")
    trainer(max_steps=steps, logger=record, callbacks=[LossVariance(**options)]).fit(module, plain())
    return record.rows


def test_each_update_of_a_player_counts_once() -> None:
    """Two cycles of three D and two G updates: D's last four are its 3rd to 6th, G's are all."""
    rows = variances(Sequence(d_steps=3, g_steps=2), 4, every_n_steps=4, window=4)
    assert rows.keys() == {4}
    assert rows[4] == pytest.approx(
        {
            "variance/d/adversarial": statistics.variance([9, 16, 25, 36]),
            "variance/d/loss": statistics.variance([309, 416, 525, 636]),
            "variance/g/adversarial": statistics.variance([10, 40, 90, 160]),
            "variance/g/loss": statistics.variance([10, 40, 90, 160]),
        },
        rel=1e-6,
    )


def test_the_window_moves_and_begins_with_what_there_is() -> None:
    rows = variances(Sequence(), 6, every_n_steps=1, window=3)
    assert 1 not in rows  # one value has no variance
    expected = {2: [1, 4], 3: [1, 4, 9], 4: [4, 9, 16], 5: [9, 16, 25], 6: [16, 25, 36]}
    for step, losses in expected.items():
        assert rows[step]["variance/d/adversarial"] == pytest.approx(statistics.variance(losses), rel=1e-6)


def test_values_in_fixed_places_are_copied() -> None:
    """A CUDA graph writes each loss over the last one."""
    callback, module = LossVariance(window=3), make("gan")
    optimizer = torch.optim.SGD(module.generator.parameters(), 0.1)
    module.run = SimpleNamespace(stepping=SimpleNamespace(player=module.players["g"]))  # type: ignore[assignment]
    place = torch.zeros(())
    for value in (1.0, 2.0, 4.0):
        module.values["g/loss"] = place.fill_(value)
        callback.on_before_optimizer_step(trainer(), module, optimizer)
    assert [float(v) for v in callback.held["g/loss"]] == [1.0, 2.0, 4.0]


class Listen(pl.Callback):
    """The losses of each update, by player."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {"d": [], "g": []}

    def on_before_optimizer_step(self, _: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        first = optimizer.param_groups[0]["params"][0]
        for player, network in (("d", module.discriminator), ("g", module.generator)):
            if any(p is first for p in network.parameters()):
                self.losses[player].append(float(module.values[f"{player}/loss"]))


def test_a_third_players_steps_are_not_the_discriminators() -> None:
    record, listen = Record("variance/"), Listen()
    module = make("prc_gan_clip")
    callbacks = [LossVariance(every_n_steps=6), listen]
    trainer(max_steps=6, logger=record, callbacks=callbacks).fit(module, plain())
    assert [len(losses) for losses in listen.losses.values()] == [4, 6]
    for player, losses in listen.losses.items():
        assert record.rows[6][f"variance/{player}/loss"] == pytest.approx(statistics.variance(losses), rel=1e-4)


def test_it_leaves_no_trace() -> None:
    ends = []
    for callbacks in ([], [LossVariance(every_n_steps=2)]):
        torch.manual_seed(5)
        module = copy.deepcopy(make("prc_gan_clip"))
        trainer(max_steps=5, callbacks=callbacks).fit(module, plain())
        ends.append((state(module), torch.get_rng_state(), dict(sorted(module.values.items()))))
    assert equal(*ends)


def test_another_training_starts_with_nothing() -> None:
    callback = LossVariance(every_n_steps=1)
    for _ in range(2):
        trainer(max_steps=3, callbacks=[callback]).fit(Sequence(), plain())
        assert [float(v) for v in callback.held["g/loss"]] == [10.0, 40.0, 90.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "window must be an integer >= 2, got 1"),
        ({"window": True}, "window must be an integer >= 2, got True"),
        ({"every_n_steps": 0}, "every_n_steps must be an integer >= 1, got 0"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossVariance(**options)
