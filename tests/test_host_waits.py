"""Where the host would wait for a GPU in each step, told without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import make, trainer
from torch import Tensor

from lightning_gans.engine.batch import to_device
from lightning_gans.engine.logbook import Late, step_schedulers
from lightning_gans.engine.monitors import Monitors

CUDA = torch.device("cuda", 0)


class Pageable(Tensor):
    """A tensor on the CPU that notes how it is taken away."""

    log: list[Any]

    def is_pinned(self, *_: Any) -> bool:  # type: ignore[override]
        return "pinned" in self.log

    def pin_memory(self, *_: Any) -> Pageable:
        self.log.append("pinned")
        return self

    def to(self, device: Any, non_blocking: bool = False) -> Pageable:  # type: ignore[override]
        self.log.append((device, non_blocking))
        return self


def test_batches_go_through_pinned_memory() -> None:
    x = torch.ones(3).as_subclass(Pageable)
    x.log = []
    to_device(x, CUDA)
    assert x.log == ["pinned", (CUDA, True)]
    to_device(x, CUDA)  # pinned already
    assert x.log[1:] == [(CUDA, True)] * 2
    assert to_device(None, CUDA) is None and to_device("path", CUDA) == "path"
    here = torch.ones(3)
    assert to_device(here, torch.device("cpu")) is here


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_column_of_a_batch_goes_there(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Where one is elsewhere; where none is, nobody is asked."""
    seen: list[Any] = []
    monkeypatch.setattr(
        "lightning_gans.engine.module.to_device",
        lambda part, to: (seen.append(to), part if part.is_meta else part.to(to))[1],
    )
    real, labels, weights = torch.zeros(8, 2), torch.zeros(8, dtype=torch.int64, device=device), torch.ones(8)
    batches: list[Any] = [(real, labels, weights, torch.arange(8))] * 3
    module = make("gan")
    trainer(max_steps=1).fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    assert seen == ([] if device == "cpu" else [torch.device("cpu")] * 4)
    assert module.last_batch is not None and module.last_batch.index is not None


class OnGPU:
    """A number that is computed on a GPU, later."""

    device = CUDA

    def __init__(self, value: float) -> None:
        self.value = value

    def detach(self) -> OnGPU:
        return self


class Place:
    """Pinned memory: what is copied there has not arrived until somebody waits."""

    def __init__(self) -> None:
        self.value: float | None = None

    def copy_(self, source: OnGPU, non_blocking: bool) -> Place:
        assert non_blocking
        self.value = source.value
        return self

    def __float__(self) -> float:
        assert self.value is not None
        return self.value


class Event:
    waits: list[Event] = []  # noqa: RUF012

    def record(self) -> None: ...

    def synchronize(self) -> None:
        Event.waits.append(self)


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    Event.waits = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: Place())


@pytest.mark.usefixtures("_gpu")
def test_a_number_is_read_one_update_late() -> None:
    late, seen = Late(), []
    for value in (1.0, 2.0, 3.0):
        seen.append((late.read("g/loss", OnGPU(value)), len(Event.waits)))  # type: ignore[arg-type]
    assert seen == [(None, 0), (1.0, 1), (2.0, 2)]  # each wait is for what was computed an update before


@pytest.mark.usefixtures("_gpu")
def test_what_is_on_its_way_is_part_of_the_checkpoint() -> None:
    late = Late()
    late.read("g/loss", OnGPU(1.0))  # type: ignore[arg-type]
    state = late.state_dict()
    assert state == {"g/loss": 1.0} and late.state_dict() == state
    resumed = Late()
    resumed.load_state_dict(state)
    for one in (late, resumed):
        assert one.read("g/loss", OnGPU(5.0)) == 1.0  # type: ignore[arg-type]
        assert one.read("g/loss", OnGPU(6.0)) == 5.0  # type: ignore[arg-type]


@pytest.mark.usefixtures("_gpu")
def test_a_plateau_is_seen_one_update_late() -> None:
    class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def step(self, metrics: Any, epoch: Any = None) -> None:
            self.seen.append(metrics)

    class Config:
        scheduler, name, interval, frequency, monitor = Plateau(), "lr/g", "step", 1, None

    class Trainer:
        lr_scheduler_configs, global_step, callback_metrics = (Config,), 1, {}

    run, values = SimpleNamespace(late=Late(), monitors=Monitors()), {"d/loss": OnGPU(9.0)}
    for value in (1.0, 2.0, 3.0):
        values["g/loss"] = OnGPU(value)
        step_schedulers(Trainer, "step", values, "g", run)  # type: ignore[arg-type]
    assert Config.scheduler.seen == [1.0, 2.0]


def test_on_a_cpu_there_is_nothing_to_wait_for() -> None:
    late = Late()
    assert [late.read("x", torch.tensor(value)) for value in (1.0, 2.0)] == [1.0, 2.0]
    assert late.state_dict() == {}
