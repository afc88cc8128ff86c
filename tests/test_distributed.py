"""Two ranks do what one process with the same global batch does. One spawned pair of processes serves all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from common import VARIANTS, make, state
from ranks_worker import SGD, loader, train, weighs_samples, with_batch_norm

from lightning_gans import NONADVERSARIAL, TECHNIQUES

WORKER = Path(__file__).with_name("ranks_worker.py")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(WORKER)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "found.pt", weights_only=True)


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.mark.parametrize("name", [*VARIANTS, *NONADVERSARIAL])
def test_two_ranks_equal_one_process(two_ranks: dict[str, Any], name: str) -> None:
    start, one = state(make(name).double()), state(train(make(name).double(), loader(8), 50, strategy="auto"))
    assert largest_difference(start, one) > 1e-4  # it did train
    assert largest_difference(one, two_ranks[name]) < 1e-10


@pytest.mark.parametrize("name", TECHNIQUES)  # by SGD: Adam, which a classifier has, amplifies rounding
def test_two_ranks_equal_one_process_in_float32(two_ranks: dict[str, Any], name: str) -> None:
    start, data = state(make(name)), loader(8, torch.float32)
    one = state(train(make(name, **SGD), data, 50, strategy="auto"))
    assert largest_difference(start, one) > 1e-4
    assert largest_difference(one, two_ranks[f"{name} float32"]) < 1e-6


@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_equal_one_process_with_global_batch_statistics(two_ranks: dict[str, Any], name: str) -> None:
    start, one = state(with_batch_norm(name)), state(train(with_batch_norm(name), loader(8), 50, strategy="auto"))
    assert largest_difference(start, one) > 1e-4
    assert largest_difference(one, two_ranks[f"{name} batch norm"]) < 1e-10


def test_two_ranks_weigh_the_samples_as_one_process_does(two_ranks: dict[str, Any]) -> None:
    one = train(weighs_samples(), loader(8), 50, strategy="auto")
    assert float((one.sample_weights - 1).abs().max()) > 0.1  # type: ignore[union-attr, operator]
    assert largest_difference(state(one), two_ranks["weights of samples"]) < 1e-6  # the weights are float32


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_lightnings_own_strategies_train_the_same(two_ranks: dict[str, Any], strategy: str) -> None:
    one = state(train(make("wgan_gp").double(), loader(8), 5, strategy="auto"))
    assert largest_difference(one, two_ranks[strategy]) < 1e-10


def test_bytes_reduced_are_the_gradients_of_the_network_that_steps(two_ranks: dict[str, Any]) -> None:
    assert two_ranks["bytes"] == two_ranks["gradient_bytes"]


def test_resume_on_two_ranks_is_exact(two_ranks: dict[str, Any]) -> None:
    assert two_ranks["resume"] is True


def test_ranks_see_different_data(two_ranks: dict[str, Any]) -> None:
    assert two_ranks["orders_differ"] is True


def test_drift_is_named(two_ranks: dict[str, Any]) -> None:
    assert two_ranks["no_drift"] is None
    assert two_ranks["drift"].startswith("discriminator.")
