"""Draws, and what else must be the same on two processes with half a batch each as on one with the whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ranks import two_ranks
from torch import Tensor

from lightning_gans.functional import LOSSES, interpolate, mean_over_ranks, normal, perturb, rank_and_world, uniform
from lightning_gans.functional.consistency import relic_term
from lightning_gans.functional.information import label_information
from lightning_gans.functional.penalties import drift
from lightning_gans.functional.robust import softplus_weights
from lightning_gans.regularizers import DRAGAN, FiniteDifferencePenalty, GradientPenalty
from lightning_gans.wrappers import AdaptiveAugment

N = 12  # the whole batch


@dataclass(frozen=True)
class Batch:
    real: Tensor
    labels: Tensor | None
    generator: torch.Generator | None


class Critic(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).tanh().sum((1, 2))


def everything(rank: int, world: int) -> dict[str, Tensor]:
    """Per-sample results and gradients averaged over processes, of this process' rows of one global batch."""
    n = N // world
    draws = torch.Generator().manual_seed(7)
    both = torch.randn(2, N, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    real, fake = both[:, rank::world]
    rows = {
        "uniform": uniform(n, 2, 3, generator=draws),
        "normal": normal(n, 5, generator=draws, dtype=torch.float64),
        "scalar": uniform(n, generator=draws),
        "interpolate": interpolate(real, fake, draws),
        "perturb": perturb(real, draws),
    }
    torch.manual_seed(3)
    rows["without generator"] = normal(n, 2)

    critic = Critic()
    batch = Batch(real, None, draws)
    loss = LOSSES["relativistic_average"].discriminator(critic(real), critic(fake))
    loss = loss + LOSSES["relativistic_average"].generator(critic(fake), critic(real))
    for regularizer in (GradientPenalty(), FiniteDifferencePenalty(), DRAGAN()):
        loss = loss + regularizer(critic, batch, fake)
    loss.backward()
    assert critic.weight.grad is not None
    rows["mean"] = mean_over_ranks(torch.stack([loss.detach(), *critic.weight.grad]))

    for name, term in terms(real, fake, torch.arange(N)[rank::world] % 3, draws).items():
        (gradient,) = torch.autograd.grad(term, WEIGHT)
        rows[f"mean {name}"] = mean_over_ranks(torch.stack([term.detach(), *gradient.flatten()]))
    net = AdaptiveAugment(torch.nn.Identity(), "color", p=0.5, target=0.1, speed=100, interval=1)
    net.see(torch.tensor((-1.0, 0.9)[rank] if world == 2 else -0.05), n, updates=1)  # 0.9 alone would be above target
    rows["mean augment"] = net.p
    net.interval = 2
    net.see(torch.tensor((-1.0, 0.5)[rank] if world == 2 else -0.25), n, updates=1)
    rows["mean signs"] = net.signs  # a checkpoint has rank 0's
    return rows


WEIGHT = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.5, 0.2]], dtype=torch.float64, requires_grad=True)


def terms(real: Tensor, fake: Tensor, labels: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
    """Of the whole batch, which are no means of what each of its samples adds."""

    def conditional(x: Tensor, labels: Tensor) -> Tensor:
        return (x * WEIGHT).sum((1, 2)) * torch.nn.functional.embedding(labels, WEIGHT.T)[:, 0]

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Unflatten(1, (2, 3)), _Times(), torch.nn.Linear(2, 1))
    information = label_information(conditional, real, labels, noise=0.5, generator=draws)
    return {
        "drift": drift((real * WEIGHT).sum((1, 2))),
        "relic": relic_term(net.double(), real.flatten(1), temperature=0.5),
        "information": information.sample * (1 + information.label),
        "softplus": (softplus_weights((real * WEIGHT).sum((1, 2)) - 60) * fake.sum((1, 2))).mean(),
    }


class _Times(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * WEIGHT).sum(2)


def work(rank: int, folder: Path) -> None:
    assert rank_and_world() == (rank, 2)
    torch.save(everything(rank, 2), folder / f"{rank}.pt")


def test_two_processes_equal_one(tmp_path: Path) -> None:
    two_ranks(work, tmp_path)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    one = everything(0, 1)
    for name in one:
        if name.startswith("mean"):
            assert one[name].abs().min() > 1e-3
            for part in parts:
                torch.testing.assert_close(part[name], one[name], rtol=1e-12, atol=1e-14)
            continue
        whole = torch.empty_like(one[name])
        whole[0::2], whole[1::2] = parts[0][name], parts[1][name]
        assert parts[0][name].is_contiguous()
        tolerance = 1e-14 if name == "perturb" else 0  # its standard deviation is summed in another order
        torch.testing.assert_close(whole, one[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("draw, plain", [(uniform, torch.rand), (normal, torch.randn)])
def test_one_process_draws_plainly(draw, plain) -> None:  # type: ignore[no-untyped-def]
    assert rank_and_world() == (0, 1)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    for shape, dtype in (((4, 3, 2), torch.float32), ((20,), torch.float64)):
        drawn = draw(*shape, generator=generators[0], dtype=dtype)
        assert drawn.dtype is dtype
        assert torch.equal(drawn, plain(shape, generator=generators[1], dtype=dtype))
    torch.manual_seed(2)
    drawn = draw(4, 3)
    torch.manual_seed(2)
    assert torch.equal(drawn, plain(4, 3))


def test_a_cpu_generator_serves_any_device() -> None:
    drawn = uniform(4, 3, generator=torch.Generator(), device="meta")
    assert drawn.device.type == "meta" and drawn.shape == (4, 3)
    assert normal(2, device="cpu").device.type == "cpu"


def test_mean_over_one_rank_is_the_value() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert mean_over_ranks(x) is x
