"""The benchmarks treat both sides alike, and run on a device that is not the CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import overhead, speed
from lightning_gans.networks import ToyDiscriminator, ToyGenerator

TINY = dataclasses.replace(
    overhead.GAMES["a"], items=64, batch=4, nets=lambda: (ToyGenerator(width=8), ToyDiscriminator(width=8))
)


def test_the_penalty_is_computed_where_the_samples_are() -> None:
    real, fake = (torch.empty(4, 2, device="meta") for _ in range(2))
    assert overhead.penalty(nn.Linear(2, 1, device="meta"), real, fake).device.type == "meta"


@pytest.mark.parametrize("side", ["plain", "ours"])
@pytest.mark.parametrize(("apart", "waits"), [(False, 1), (True, 1 + 2 * overhead.D_STEPS)])
def test_both_sides_wait_equally_often(side: str, apart: bool, waits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(speed, "clock", lambda device: calls.append(device) or float(len(calls)))
    counts = []
    for updates in (2, 5):
        calls.clear()
        times = speed.SIDES[side](TINY, updates, "cpu", apart)
        assert (times.in_d > 0) == apart
        counts.append(len(calls))
    assert counts[1] - counts[0] == 3 * waits


def test_our_data_lie_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Any] = []
    loader = speed.MemoryLoader
    monkeypatch.setattr(speed, "MemoryLoader", lambda *a, device, **k: devices.append(device) or loader(*a, **k))
    speed.ours(TINY, 2, "cpu")
    assert devices == ["cpu"]
