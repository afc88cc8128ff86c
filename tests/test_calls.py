"""Overhead is bounded: a cycle calls few functions of our own."""

from __future__ import annotations

from typing import Any

import pytest
from calls import calls_per_cycle
from common import plain

from lightning_gans import GAN, WGANGP
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator


@pytest.mark.parametrize(("technique", "budget"), [(GAN, 100), (WGANGP, 165)])
def test_calls_of_one_update_of_each_player(technique: Any, budget: int) -> None:
    """See tests/golden/README.md. The networks count too, at 10 calls or so for each pass."""
    shape = (1, 8, 8)
    module = technique(DCGANGenerator(shape, 3, 4), DCGANDiscriminator(shape, 4, "none"), 3, d_steps=1)
    assert calls_per_cycle(module, plain(shape=shape)) <= budget
