"""Steps on tensors in fixed places, and as CUDA graphs where there is a GPU, train as eager ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from common import BY_KIND, VARIANTS, equal, make, make_images, plain, state, trainer
from torch import Tensor

from lightning_gans import GANModule
from lightning_gans.engine.graphs import StepGraphs

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
def test_most_steps_are_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(1), replay(graph))[1])
    module = make("wgan_gp", cuda_graphs=True, d_steps=2)
    trainer(max_steps=20, accelerator="gpu").fit(module, plain(400, 4))
    assert len(replays) >= 20 * 3 - 2 * 3


@cuda
def test_replays_draw_new_numbers() -> None:
    graphs = StepGraphs(torch.device("cuda"), [generator := torch.Generator("cuda").manual_seed(1)])
    seen = [graphs.run("x", lambda: torch.rand(4, device="cuda", generator=generator)).clone() for _ in range(6)]
    again = torch.Generator("cuda").manual_seed(1)
    for value in seen:
        torch.testing.assert_close(value, torch.rand(4, device="cuda", generator=again))
