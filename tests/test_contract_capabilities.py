"""What is asked of a model, and the sentence where it cannot be had."""

from __future__ import annotations

from typing import Any

import pytest
from common import make
from torch import nn

from lightning_gans import TECHNIQUES
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.contract import Critic, Latents, Likelihood, Ratio, Samples, require


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
