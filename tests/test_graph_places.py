"""What a CUDA graph would record: a recorded function reads and writes only what stays where it is.

A graph knows addresses. If a step reads a tensor that was made outside of the recorded function and is freed later, a
replay reads and writes whatever lies there then. That needs no GPU to be seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from common import BY_KIND, PENALISED, VARIANTS, data_for, make, make_images, plain, trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_gans import GAN, NONADVERSARIAL
from lightning_gans.engine.frozen import kept_buffers
from lightning_gans.engine.graphs import _EAGER, StepGraphs
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.functional import numerics
from lightning_gans.wrappers import spectral_norm

ELSEWHERE = torch.device("meta")  # for tensors made without a device, which beside a GPU are the host's
WAITING = ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "unique")


class Foreign(TorchDispatchMode):
    """Addresses of the storages that operations take and that none of them has made.

    Storages that operations make are kept alive, so that none is at the address of one that was freed. What a recording
    cannot hold is kept by name: constants that come from the host, and questions whose answer Python waits for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Any] = {}
        self.found: dict[int, Any] = {}
        self.refused: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        by_mask = "index" in str(function) and any(t.dtype in (torch.bool, torch.uint8) for t in tensors)
        if by_mask or any(name in str(function) for name in WAITING):
            self.refused.append(str(function))
        given = [t.untyped_storage() for t in tensors]
        if "lift_fresh" in str(function):  # a constant that Python has just made
            self.made |= {s.data_ptr(): s for s in given}
        result = function(*args, **(kwargs or {}))
        self.found |= {s.data_ptr(): s for s in given if s.data_ptr() and s.data_ptr() not in self.made}
        made = [t.untyped_storage() for t in tree_leaves(result) if isinstance(t, Tensor)]
        self.made |= {s.data_ptr(): s for s in made if s.data_ptr() not in self.found}
        return result


def addresses(tensors: Iterable[Any]) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors if isinstance(t, Tensor)}


@contextmanager
def watched(module: GenerativeModule) -> Iterator[dict[Any, list[set[int]]]]:
    """Foreign storages of each recorded function, call by call.

    They must be parameters or buffers from before the fit, what optimizers keep, or what is held.
    """
    seen: dict[Any, list[set[int]]] = {}
    run, staying = StepGraphs.run, addresses([*module.parameters(), *module.buffers()])

    def watch(self: StepGraphs, key: Any, function: Callable[[], Any]) -> Any:
        past = len(seen.setdefault(key, []))
        with Foreign() as mode, ELSEWHERE if past == _EAGER else nullcontext():
            result = run(self, key, function)
        kept = tree_leaves([optimizer.state for optimizer in module.trainer.optimizers])
        kept += tree_leaves(getattr(getattr(module, "process", None), "placed", {}))  # tables of a diffusion
        kept += [getattr(module.trainer.train_dataloader, "data", None)]
        kept += [rate for s in module.run.steps.values() if s._recorded is not None for rate in s._recorded._rates]
        outside = mode.found.keys() - staying - addresses([*kept, *self._places.values()])
        assert past < _EAGER or not mode.refused, f"{key[0]} holds {mode.refused}, which cannot be recorded"
        assert past < _EAGER or not outside, f"{key[0]} reads {len(outside)} tensors that a replay would not find"
        seen[key].append(set(mode.found))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepGraphs, "run", watch)
        patch.setattr(numerics, "LOOKED_AT", set())  # as on a GPU
        yield seen


def play(
    module: GenerativeModule, shape: tuple[int, ...], data: Any = None, cycles: int = 6
) -> dict[Any, list[set[int]]]:
    with watched(module) as seen, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="cuda_graphs has no effect")
        trainer(max_steps=cycles * getattr(module, "g_steps", 1) + getattr(module, "phases", {}).get("vae", 0)).fit(
            module, data or plain(400, 4, shape=shape)
        )
    return seen


def check(module: GenerativeModule, shape: tuple[int, ...], data: Any = None) -> None:
    seen = play(module, shape, data)
    assert {key[0] for key in seen} == set(module.players)
    for key, calls in seen.items():
        if len(calls) == 1 and key[1]:  # the first step of an optimizer, which is inside of later ones
            assert (key[0], False, *key[2:]) in seen
            continue
        assert len(calls) >= 5 > _EAGER + 1 and all(call == calls[1] for call in calls[1:5]), key


@pytest.mark.parametrize("name", VARIANTS)
def test_batch_norm(name: str) -> None:
    """In the discriminator where the technique allows it, in the generator and in third networks."""
    check(make_images(name, cuda_graphs=True, d_steps=1), (1, 8, 8))


@pytest.mark.parametrize("name", BY_KIND)
def test_spectral_norm(name: str) -> None:
    if name == "leak_gan":
        pytest.skip("its generator holds a copy of the discriminator as it was made")
    module = (make if name in PENALISED else make_images)(name, d_steps=1)
    for player in ("d", "c", "w"):
        for network in module.networks(player) if player in module.players else ():
            if not any("parametrizations" in key for key in network.state_dict()):
                spectral_norm(network)
    module.cuda_graphs = True
    check(module, (2,) if name in PENALISED else (1, 8, 8))


@pytest.mark.parametrize("name", [*NONADVERSARIAL, "ddpm_learned"])
def test_without_an_adversary(name: str) -> None:
    """A diffusion has tables by time, an exemplar prior the data: neither may come from the host at each step."""
    options: dict[str, Any] = {"ddpm_learned": {"loss_aware": False}, "vaebm": {"vae_steps": 6}}
    check(make(name, cuda_graphs=True, **options.get(name, {})), (2,), data_for(name))


class Level(nn.Module):
    """A critic with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1)
        self.register_buffer("level", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) + self.level).squeeze(1)


class Faulty(GAN):
    """Copies the discriminator's buffer outside of what is recorded, and frees the copy after the step."""

    def minimise(self, player: str, *arguments: Any) -> None:
        self.run.steps["g"]._other_places = []
        with kept_buffers(self.discriminator) if player == "g" else nullcontext():
            super().minimise(player, *arguments)


class Constant(GAN):
    """Copies a number from the host at each step."""

    def generator_terms(self, batch: Any, fake: Tensor) -> Any:
        self.note(g_half=fake.new_tensor(0.5))
        return super().generator_terms(batch, fake)


class Asking(GAN):
    """Waits for a number of the device at each step."""

    def generator_terms(self, batch: Any, fake: Tensor) -> Any:
        return {name: term * float(fake.detach().max()) for name, term in super().generator_terms(batch, fake).items()}


@pytest.mark.parametrize("fault, what", [(Constant, "lift_fresh"), (Asking, "_local_scalar_dense")])
def test_the_watch_sees_what_cannot_be_recorded(fault: type[GAN], what: str) -> None:
    with pytest.raises(AssertionError, match=f"g holds .*{what}.*, which cannot be recorded"):
        play(fault(make("gan").generator, make("gan").discriminator, 3, cuda_graphs=True), (2,))


def test_the_watch_sees_what_a_step_made_and_freed() -> None:
    with pytest.raises(AssertionError, match="g reads 1 tensors that a replay would not find"):
        play(Faulty(make("gan").generator, Level(), 3, cuda_graphs=True), (2,))
    play(GAN(make("gan").generator, Level(), 3, cuda_graphs=True), (2,))
