"""Steps on tensors in fixed places, and as CUDA graphs where there is a GPU, train as eager ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from common import BY_KIND, VARIANTS, equal, make, make_images, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import GAN, GANModule
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.graphs import StepGraphs
from lightning_gans.optim import Adam
from lightning_gans.optim.recorded import RecordedStep
from lightning_gans.regularizers import Regularizer

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def train(module: GANModule, steps: int | None = None, items: int = 20, **options: Any) -> dict[str, Tensor]:
    """Three cycles, or so many steps."""
    steps = steps or 3 * module.g_steps
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="cuda_graphs has no effect")
        loader = plain(items, 8, shape=(1, 8, 8) if options.pop("images", False) else (2,))
        trainer(max_steps=steps, log_every_n_steps=1, **options).fit(module, loader)
    return state(module)


# ---------------------------------------------------------------------- everywhere
@pytest.mark.parametrize("name", VARIANTS)
def test_tensors_in_fixed_places_train_the_same(name: str) -> None:
    """The last batch of an epoch is smaller than the others (4 of 8)."""
    eager, held = make(name), make(name, cuda_graphs=True)
    assert equal(train(eager), train(held))
    assert equal(eager.values, held.values) and equal(eager.last_fake, held.last_fake)


@pytest.mark.parametrize("name", BY_KIND)
def test_images_with_batch_norm(name: str) -> None:
    assert equal(train(make_images(name), images=True), train(make_images(name, cuda_graphs=True), images=True))


@pytest.mark.parametrize(
    "options", [{"accumulate_d": 2, "accumulate_g": 2}, {"g_batch_factor": 2}, {"order": "g_first"}]
)
def test_other_cycles(options: dict[str, Any]) -> None:
    assert equal(train(make("wgan_gp", **options)), train(make("wgan_gp", cuda_graphs=True, **options)))


def test_resume(tmp_path: Path) -> None:
    whole = train(make("prc_gan_clip"), 8, 42)
    module = make("prc_gan_clip", cuda_graphs=True)
    torch.manual_seed(3)
    half = trainer(max_steps=5)
    half.fit(module, plain(42, 8))
    half.save_checkpoint(tmp_path / "a.ckpt")
    rest = make("prc_gan_clip", cuda_graphs=True)
    trainer(max_steps=8).fit(rest, plain(42, 8), ckpt_path=tmp_path / "a.ckpt")
    assert equal(whole, state(rest))


def test_places_are_kept() -> None:
    graphs = StepGraphs(torch.device("cpu"), [])
    a, b, small = torch.ones(4), torch.zeros(4), torch.ones(2)
    first, other = graphs.hold("x", a), graphs.hold("x", small)
    assert first is not None and other is not None and graphs.hold("x", None) is None
    assert graphs.hold("x", b) is first and not first.any() and first is not a
    assert other.all() and graphs.hold("y", b) is not first


def test_it_says_that_it_does_nothing_on_a_cpu() -> None:
    with pytest.warns(UserWarning, match="cuda_graphs has no effect on cpu"):
        trainer(max_steps=1).fit(make("gan", cuda_graphs=True), plain())


# ---------------------------------------------------------------------- with the optimizer's step in them
Rates = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


def falling(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)


def one_cycle(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, 20)  # moves beta1, too


def hooked(optimizer: torch.optim.Optimizer) -> None:
    optimizer.register_step_post_hook(lambda *_: None)


def replaced(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    own = optimizer.step

    def step(self: Any, closure: Any = None) -> Any:
        return own(closure)

    optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
    return optimizer


class Asks(pl.Callback):
    """Has a hook of optimizer steps."""

    def __init__(self) -> None:
        self.calls = 0

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.calls += 1


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each step that was taken inside."""
    taken: list[int] = []
    step = RecordedStep.__call__
    monkeypatch.setattr(RecordedStep, "__call__", lambda self: (taken.append(1), step(self))[1])
    return taken


@pytest.mark.parametrize("rates", [None, falling, one_cycle])
def test_steps_of_players_that_are_not_counted_are_inside(inside: list[int], rates: Rates | None) -> None:
    """All but the first, at the rates of schedules; not where other options than the rate change."""
    options: dict[str, Any] = {"d_steps": 3, "scheduler_d": rates, "lr_d": 1e-3}
    eager, held = make("wgan_gp", **options), make("wgan_gp", cuda_graphs=True, **options)
    assert equal(train(eager, 7, 200), train(held, 7, 200))
    steps = 7 * 3 - 1
    assert len(inside) == (steps if rates is not one_cycle else 2)  # those of the first cycle
    assert held.progress.updates == {"d": 21, "g": 7}
    optimizers: list[Any] = [step.optimizer.optimizer for step in held.run.steps.values()]
    assert [float(o.state[o.param_groups[0]["params"][0]]["step"]) for o in optimizers] == [21, 7]


@pytest.mark.parametrize(
    "options",
    [
        {"clip_grad_d": 1.0},
        {"optimizer_d": torch.optim.SGD},
        {"optimizer_d": lambda p: Adam(p, amsgrad=True, fused=True)},
        {"optimizer_d": lambda p: Adam(p, fused=False)},
        {"optimizer_d": lambda p: (o := Adam(p, fused=True), hooked(o))[0]},
        {"optimizer_d": lambda p: replaced(Adam(p, fused=True)), "scheduler_d": falling},
    ],
)
def test_other_steps_are_outside(inside: list[int], options: dict[str, Any]) -> None:
    eager, held = make("wgan_gp", **options), make("wgan_gp", cuda_graphs=True, **options)
    assert equal(train(eager, 5), train(held, 5)) and not inside


def test_steps_that_somebody_hooks_into_are_outside(inside: list[int]) -> None:
    asks = Asks()
    train(make("wgan_gp", cuda_graphs=True, d_steps=3), 5, callbacks=[asks])
    assert asks.calls == 20 and not inside


def test_a_state_that_is_loaded_meanwhile_is_the_one_that_steps(inside: list[int]) -> None:
    """A graph would go on with the moments that it was recorded with."""

    class Loads(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                for optimizer in trainer.optimizers:
                    optimizer.load_state_dict(optimizer.state_dict())

    eager, held = make("wgan_gp"), make("wgan_gp", cuda_graphs=True)
    assert equal(train(eager, 6, 200, callbacks=[Loads()]), train(held, 6, 200, callbacks=[Loads()]))
    assert 0 < len(inside) < 6 * held.d_steps - 1


def test_updates_are_counted_where_the_counted_player_changes(inside: list[int]) -> None:
    """A `VAEBM` counts those of its autoencoder first."""
    options: dict[str, Any] = {"vae_steps": 2, "optimizer_energy": partial(Adam, lr=1e-3, fused=True)}
    modules = [make_images("vaebm", **options), make_images("vaebm", cuda_graphs=True, **options)]
    states = [train(module, 8, 40, images=True) for module in modules]
    assert equal(*states) and not inside
    assert [dict(module.progress.updates) for module in modules] == [{"vae": 2, "energy": 6}] * 2


class Head(nn.Module):
    """A critic with parameters that only a term uses."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[:, 0]


class OfTheHead(Regularizer):
    name = "head"

    def __call__(self, net: Any, batch: Any, fake: Tensor) -> Tensor:
        return net.head(batch.real).square().mean()


def test_a_step_with_a_parameter_without_gradient_is_outside(inside: list[int]) -> None:
    def module(**options: Any) -> GAN:
        torch.manual_seed(0)
        own = {"regularizers": [OfTheHead(1.0, every=2)], "optimizer_d": partial(Adam, lr=1e-2, fused=True)}
        return GAN(nn.Linear(3, 2), Head(), 3, d_steps=4, **own, **options)

    assert equal(train(module(), 5, 200), train(module(cuda_graphs=True), 5, 200)) and inside


@pytest.mark.parametrize("rate", [0, torch.tensor(0.25)], ids=str)
def test_rates_that_are_no_floats_are_outside(inside: list[int], rate: Any) -> None:
    class Sets(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                for optimizer in trainer.optimizers:
                    optimizer.param_groups[0]["lr"] = rate

    eager, held = make("wgan_gp"), make("wgan_gp", cuda_graphs=True)
    assert equal(train(eager, 4, 200, callbacks=[Sets()]), train(held, 4, 200, callbacks=[Sets()]))
    assert len(inside) == 2 * held.d_steps - 1


def test_a_parameter_that_is_frozen_meanwhile_is_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: set[Any] = set()
    run = StepGraphs.run
    monkeypatch.setattr(StepGraphs, "run", lambda self, key, function: (keys.add(key), run(self, key, function))[1])

    class Freezes(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.frozen = next(pl_module.discriminator.parameters())
            if trainer.global_step == 3:
                self.frozen.requires_grad_(False)
                self.then = self.frozen.clone()

    eager, held, freezes = make("gan"), make("gan", cuda_graphs=True), Freezes()
    assert equal(train(eager, 6, 200, callbacks=[Freezes()]), train(held, 6, 200, callbacks=[freezes]))
    assert torch.equal(freezes.then, freezes.frozen)
    assert len({key[2] for key in keys if key[0] == "d"}) == 2


# ---------------------------------------------------------------------- on a GPU
@cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", VARIANTS)
def test_graphs_train_as_eager_steps(name: str, precision: str) -> None:
    options: dict[str, Any] = {"accelerator": "gpu", "precision": precision, "images": True}
    eager = train(make_images(name), 12, 42, **options)
    replayed = train(make_images(name, cuda_graphs=True), 12, 42, **options)
    for key, value in eager.items():
        torch.testing.assert_close(replayed[key], value, rtol=1e-3, atol=1e-4, msg=key)


@cuda
def test_recorded_steps_take_the_rates_of_a_schedule() -> None:
    options: dict[str, Any] = {"d_steps": 3, "scheduler_d": falling, "lr_d": 1e-2}
    eager, replayed = make("wgan_gp", **options), make("wgan_gp", cuda_graphs=True, **options)
    found = [train(module, 12, 200, accelerator="gpu") for module in (eager, replayed)]
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-3, atol=1e-4, msg=key)


@cuda
def test_most_steps_are_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(1), replay(graph))[1])
    module = make("wgan_gp", cuda_graphs=True, d_steps=2)
    trainer(max_steps=20, accelerator="gpu").fit(module, plain(400, 4))
    assert len(replays) >= 20 * 3 - 2 * 3 - 1  # three eager runs for each player, and D's first step by itself


@cuda
def test_replays_draw_new_numbers() -> None:
    graphs = StepGraphs(torch.device("cuda"), [generator := torch.Generator("cuda").manual_seed(1)])
    seen = [graphs.run("x", lambda: torch.rand(4, device="cuda", generator=generator)).clone() for _ in range(6)]
    again = torch.Generator("cuda").manual_seed(1)
    for value in seen:
        torch.testing.assert_close(value, torch.rand(4, device="cuda", generator=again))
