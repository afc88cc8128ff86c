"""Games seen as dynamical systems: when they settle, and how that is measured (Lu et al.)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import GAN
from lightning_gans.callbacks import StationarityGap
from lightning_gans.compat.lightning import callbacks, loggers
from lightning_gans.engine.batch import Batch
from lightning_gans.regularizers import ScorePenalty


class G(nn.Module):
    """G(z) = g"""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.g.expand(len(z), 1)


class D(nn.Module):
    """f(x) = d x"""

    def __init__(self) -> None:
        super().__init__()
        self.d = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.d * x[:, 0]


class Path(callbacks.Callback):
    """(g, d) after every generator update."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.points.append((float(pl_module.generator.g), float(pl_module.discriminator.d)))


class Kept(loggers.Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, dict[str, float]] = {}

    name = version = "kept"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.seen.setdefault(step, {}).update(metrics)


def sgd(lr: float) -> Any:
    return lambda parameters: torch.optim.SGD(parameters, lr)


def bilinear(
    weight: float, steps: int, cls: Any = GAN, every: int = 1, **options: Any
) -> tuple[list[tuple[float, float]], Kept]:
    """min_g max_d -d g - weight / 4 d^2 (1 + g^2): the Wasserstein game on +-1 against g, with f = d x."""
    data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(100, 1)
    regularizers = [ScorePenalty(weight)] if weight else []
    module = cls(G(), D(), 1, loss="wasserstein", regularizers=regularizers, **options)
    path, kept = Path(), Kept()
    t = trainer(max_steps=steps, callbacks=[path, StationarityGap(every)], logger=kept, log_every_n_steps=1)
    t.fit(module, torch.utils.data.DataLoader(data, 4))
    return path.points, kept


# ---------------------------------------------------------------------- the penalty
def test_penalty_is_half_the_mean_square_of_all_scores() -> None:
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [0.0]])
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten(0))
    nn.init.constant_(net[0].weight, 2.0)  # type: ignore[arg-type]
    term = ScorePenalty(3.0)(net, Batch(x, None, None, x), y)
    assert float(term) == pytest.approx((4 + 16 + 36 + 0) / 4 / 2)
    assert ScorePenalty(3.0).weight == 3 and not ScorePenalty.per_sample


def test_a_strongly_concave_discriminator_lets_the_game_settle() -> None:
    """V = -g d - d^2 / 2 near 0: alternating steps of sizes 1 (D) and .5 (G) halve g each time."""
    options = {"optimizer_d": sgd(1.0), "optimizer_g": sgd(0.5)}
    points, _ = bilinear(2.0, 40, **options)
    assert math.hypot(*points[-1]) < 1e-9
    assert points[-5][0] / points[-6][0] == pytest.approx(0.5, rel=1e-3)


def test_without_it_the_game_goes_round_for_ever() -> None:
    """Alternating steps of the bilinear game keep a quadratic form, so they neither settle nor diverge."""
    points, _ = bilinear(0.0, 200, optimizer_d=sgd(0.3), optimizer_g=sgd(0.3))
    forms = [g * g + d * d - 0.3 * g * d for g, d in points]
    assert forms == pytest.approx([forms[0]] * 200, rel=1e-9)
    assert min(math.hypot(*p) for p in points) > 0.3
    assert max(math.hypot(*p) for p in points[-50:]) > 0.4


# ---------------------------------------------------------------------- the gap
def test_gap_is_the_gradient_of_plain_steps() -> None:
    """D goes from d to d - g by the rate .3 first, then G: |g| and |d| of the moment are the two gaps."""
    points, kept = bilinear(0.0, 4, optimizer_d=sgd(0.3), optimizer_g=sgd(0.2))
    before = [(0.5, 0.5), *points]
    for step, ((g, _), (_, d)) in enumerate(zip(before, points), start=1):
        logged = kept.seen[step]
        assert logged["gap/d"] == pytest.approx(abs(g)) and logged["gap/g"] == pytest.approx(abs(d))
        assert logged["gap"] == pytest.approx(abs(g) + abs(d))


def test_gap_tends_to_zero_where_the_game_settles() -> None:
    _, kept = bilinear(2.0, 40, optimizer_d=sgd(1.0), optimizer_g=sgd(0.5))
    assert kept.seen[1]["gap"] > 0.5 and kept.seen[40]["gap"] < 1e-9


def test_gap_every_n_updates_by_groups_and_without_a_trace() -> None:
    """Groups with rates of their own; one whose rate is 0 is left out; the training is as without."""

    def groups(parameters: Any) -> Any:
        first, *rest = parameters
        return torch.optim.SGD([{"params": [first], "lr": 0.0}, {"params": rest, "lr": 0.1}], 0.1)

    found, kept = [], Kept()
    for watched in ([], [StationarityGap(3)]):
        module = make("wgan_gp", optimizer_g=groups, d_steps=2)
        torch.manual_seed(3)
        trainer(max_steps=7, callbacks=watched, logger=kept if watched else False).fit(module, plain())
        found.append(state(module))
    assert equal(*found)
    gaps = {step: values for step, values in kept.seen.items() if "gap" in values}
    assert set(gaps) == {3, 6} and all(0 < v < math.inf for values in gaps.values() for v in values.values())


def test_gap_is_of_a_whole_cycle_whichever_of_its_updates_is_due() -> None:
    """D moves in the first of a cycle's generator updates: |g| of the moment, as for plain steps."""
    points, kept = bilinear(0.0, 8, optimizer_d=sgd(0.3), optimizer_g=sgd(0.2), g_steps=2, every=3)
    gaps = {step: values for step, values in kept.seen.items() if "gap" in values}
    before = dict(enumerate([(0.5, 0.5), *points]))
    assert set(gaps) == {4, 6}
    for step, values in gaps.items():
        assert values["gap/d"] == pytest.approx(abs(before[step - 2][0]))
        assert values["gap/g"] == pytest.approx(2 * abs(before[step][1]))  # two steps, the same d


class Backwards(GAN):
    def configure_optimizers(self) -> Any:
        return list(reversed(super().configure_optimizers()[0])), []


def test_gap_is_each_players_own_in_any_order_of_optimizers() -> None:
    made = {"optimizer_d": sgd(0.3), "optimizer_g": sgd(0.2)}
    told = [bilinear(0.0, 2, cls=cls, **made)[1].seen for cls in (GAN, Backwards)]
    assert told[0] == told[1]


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="every_n_steps must be an integer >= 1, got 0"):
        StationarityGap(0)
    with pytest.raises(ValueError, match="weight must be a finite number >= 0, got -1"):
        ScorePenalty(-1)
