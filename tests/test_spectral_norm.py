"""Spectral and stable rank normalisation, and SN-GAN and SRN-GAN (arXiv:1802.05957, arXiv:1906.04659)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gans import GAN, SNGAN, SRNGAN
from lightning_gans.engine.frozen import kept_buffers
from lightning_gans.networks import ResNetDiscriminator, ToyDiscriminator, ToyGenerator
from lightning_gans.wrappers import SpectralNorm, is_normalised, spectral_norm


def linear(weight: Tensor, **options: Any) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    return spectral_norm(layer, **options)


def norm_of(layer: nn.Module) -> SpectralNorm:
    return next(m for m in layer.modules() if isinstance(m, SpectralNorm))


def diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def test_largest_singular_value_is_one_at_convergence() -> None:
    torch.manual_seed(0)
    layer = linear(torch.randn(20, 50, dtype=torch.float64))
    for _ in range(200):
        weight = layer.weight
    assert abs(float(torch.linalg.matrix_norm(weight, 2)) - 1) < 1e-4
    torch.testing.assert_close(linear(diagonal(3, 1), power_iterations=50).weight, diagonal(1, 1 / 3))


def test_sigma_is_never_above_the_truth() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        layer = linear(torch.randn(6, 9, dtype=torch.float64))
        norm_of(layer).u.copy_(nn.functional.normalize(torch.randn(6, dtype=torch.float64), dim=0))
        assert float(torch.linalg.matrix_norm(layer.weight, 2)) > 1 - 1e-12


def test_gradient() -> None:
    """dL/dW = (G - <G, W_bar> u v') / sigma with G = dL/dW_bar, u and v constant."""
    torch.manual_seed(0)
    layer = linear(torch.randn(4, 5, dtype=torch.float64)).eval()
    original = layer.parametrizations.weight.original
    normalised, g = layer.weight, torch.randn(4, 5, dtype=torch.float64)
    u, v = SpectralNorm._iterate(original.detach(), norm_of(layer).u, 1)
    sigma = u @ original.detach() @ v
    expected = (g - (g * normalised).sum() * torch.outer(u, v)) / sigma
    torch.testing.assert_close(torch.autograd.grad((normalised * g).sum(), original)[0], expected.detach())


@pytest.mark.parametrize("zero", [False, True])
def test_gradient_of_the_gradient(zero: bool) -> None:
    """As torch has it of W / u' W v, which is W where the weight is 0."""
    torch.manual_seed(0)
    layer = linear(torch.randn(4, 5, dtype=torch.float64)).eval()
    original = layer.parametrizations.weight.original
    if zero:
        nn.init.zeros_(original)
    g, h = torch.randn(2, 4, 5, dtype=torch.float64).requires_grad_()
    u, v = SpectralNorm._iterate(original.detach(), norm_of(layer).u, 1)
    found = []
    for normalised in (layer.weight, original / (1 if zero else u @ original @ v)):
        (first,) = torch.autograd.grad(normalised, original, g, create_graph=True)
        found.append([first, *torch.autograd.grad((first * h).sum(), [g, original], allow_unused=True)])
    for ours, theirs in zip(*found, strict=True):
        zeros = torch.zeros(4, 5, dtype=torch.float64)
        torch.testing.assert_close(*(zeros if x is None else x for x in (ours, theirs)))


def test_scale_of_the_weights_does_not_matter() -> None:
    torch.manual_seed(0)
    net = spectral_norm(nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    before = net.eval()(x)
    with torch.no_grad():
        net[0].parametrizations.weight.original.mul_(5)
    torch.testing.assert_close(net(x), before)


LAYERS = [
    (lambda: nn.Conv2d(3, 5, 3), (5, 27), 0),
    (lambda: nn.ConvTranspose2d(3, 5, 4), (5, 48), 1),
    (lambda: nn.Conv1d(3, 5, 3), (5, 9), 0),
    (lambda: nn.Embedding(7, 4), (7, 4), 0),
]


@pytest.mark.parametrize("c", [None, 0.3])
@pytest.mark.parametrize(("make_layer", "shape", "dim"), LAYERS)
def test_layers(make_layer: Any, shape: tuple[int, int], dim: int, c: float | None) -> None:
    torch.manual_seed(0)
    layer = make_layer().double()
    start = torch.linalg.svdvals(layer.weight.detach().movedim(dim, 0).flatten(1))
    spectral_norm(layer, 100, c)
    matrix = layer.weight.movedim(dim, 0).flatten(1)
    assert matrix.shape == shape
    values = torch.linalg.svdvals(matrix)
    assert abs(float(values[0]) - 1) < 1e-6
    stable = float(values.square().sum() / values[0] ** 2)
    expected = max(0.3 * min(shape), 1.0) if c else float(start.square().sum() / start[0] ** 2)
    assert stable == pytest.approx(expected, rel=1e-6)


def test_stable_rank() -> None:
    """diag(4, 2, 1) at r = 1.2 becomes diag(1, 0.4, 0.2); a matrix below its r is left alone."""
    given = diagonal(4, 2, 1)
    torch.testing.assert_close(linear(given, power_iterations=60, stable_rank=0.4).weight, diagonal(1, 0.4, 0.2))
    torch.testing.assert_close(linear(given, power_iterations=60, stable_rank=0.9).weight, diagonal(1, 0.5, 0.25))
    torch.testing.assert_close(linear(diagonal(1, 1, 1), stable_rank=1.0).weight, diagonal(1, 1, 1))
    row = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(linear(row, stable_rank=0.1).weight, row / 5)


def test_the_gradient_of_a_stable_rank_goes_through_the_rest_and_is_finite_without_one() -> None:
    """Of u v' + sqrt(r - 1) / ||R|| R, u and v constant; a matrix of rank 1 has no rest."""
    own = torch.Generator().manual_seed(0)
    weight, g = (torch.randn(3, 3, generator=own, dtype=torch.float64) for _ in range(2))
    weight = diagonal(4, 3, 3) + 0.2 * weight
    layer = linear(weight, stable_rank=0.5).eval()
    original = layer.parametrizations.weight.original
    (found,) = torch.autograd.grad((layer.weight * g).sum(), original)
    u, v = SpectralNorm._iterate(weight, norm_of(layer).u, 1)
    rest = original / (u @ original @ v) - torch.outer(u, v)
    (known,) = torch.autograd.grad((rest / rest.norm() * 0.5**0.5 * g).sum(), original)
    assert rest.norm() > 0.5**0.5
    torch.testing.assert_close(found, known)
    one = linear(diagonal(2, 0), stable_rank=0.5)
    one.weight.sum().backward()
    assert torch.equal(one.weight, diagonal(1, 0)) and one.parametrizations.weight.original.grad.isfinite().all()


def test_a_weight_that_is_or_was_zero_is_normalised_later() -> None:
    for norm in (SpectralNorm(diagonal(0, 0)), SpectralNorm(diagonal(4, 2))):
        assert not norm(diagonal(0, 0)).any()
        for _ in range(30):
            weight = norm(diagonal(4, 2))
        torch.testing.assert_close(weight, diagonal(1, 0.5))


def test_autocast_leaves_the_norm_alone() -> None:
    layer = linear(torch.randn(4, 5, dtype=torch.float64)).float().eval()
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer.weight
    assert torch.equal(cast, layer.weight)


def test_of_a_weight_that_is_computed_already_the_result_is_normalised() -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    layer = nn.Linear(3, 3).double()
    nn.utils.parametrize.register_parametrization(layer, "weight", Twice())
    assert float(torch.linalg.matrix_norm(spectral_norm(layer, 100).weight, 2)) == pytest.approx(1, rel=1e-6)


def test_state() -> None:
    """u moves on with each pass in training, not in evaluation; it is saved; two passes before a backward work."""
    torch.manual_seed(0)
    net = spectral_norm(ToyDiscriminator(width=8))
    u, x = norm_of(net).u.clone(), torch.randn(4, 2)
    net.eval()(x)
    assert torch.equal(norm_of(net).u, u)
    with kept_buffers(net.train()):
        net(x)
    assert torch.equal(norm_of(net).u, u)
    (net(x).sum() + net(2 * x).sum()).backward()
    assert not torch.equal(norm_of(net).u, u)
    again = spectral_norm(ToyDiscriminator(width=8))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(x), net.eval()(x)) and torch.equal(copy.deepcopy(net)(x), net(x))


def test_residual_net() -> None:
    net = spectral_norm(ResNetDiscriminator((3, 8, 8), width=4, num_classes=3))
    assert sum(isinstance(m, SpectralNorm) for m in net.modules()) == sum(
        isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding)) for m in net.modules()
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.randn(2, 3, 8, 8), torch.tensor([0, 2])).sum().backward()


def test_techniques_wrap_the_discriminator_once() -> None:
    nets = ToyGenerator(shape=(2,), latent_dim=3), spectral_norm(ToyDiscriminator(), 2)
    SNGAN(*nets, 3)
    assert norm_of(nets[1]).power_iterations == 2
    assert is_normalised(SNGAN(nets[0], ToyDiscriminator(), 3).discriminator)
    srn = SRNGAN(nets[0], ToyDiscriminator(), 3, c=0.3)
    assert norm_of(srn.discriminator).stable_rank == 0.3 and srn.hparams["c"] == 0.3
    SRNGAN(nets[0], srn.discriminator, 3, c=0.3)
    with pytest.raises(ValueError, match=r"or one with stable_rank=0\.3, got None"):
        SRNGAN(nets[0], spectral_norm(ToyDiscriminator()), 3, c=0.3)


@pytest.mark.parametrize("name", ["sn_gan", "srn_gan"])
def test_the_discriminator_stays_lipschitz(name: str) -> None:
    """Of a three-layer MLP with 1-Lipschitz activations, no slope above 1."""
    module = make(name, lr_d=0.05, power_iterations=5)
    trainer(max_steps=40).fit(module, plain())
    x = torch.randn(500, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(module.discriminator.eval()(x).sum(), x)
    assert float(slope.norm(dim=1).max()) < 1.02
    free = make("gan", loss="hinge", lr_d=0.05, d_steps=5, g_batch_factor=2)
    trainer(max_steps=40).fit(free, plain())
    (slope,) = torch.autograd.grad(free.discriminator(x).sum(), x)
    assert float(slope.norm(dim=1).max()) > 1.5


def test_the_generators_step_leaves_u_alone() -> None:
    module = make("sn_gan", lr_d=0.0, lr_g=0.0, d_steps=1)
    before = state(module)
    trainer(max_steps=1).fit(module, plain())
    moved = {k for k, v in state(module).items() if not equal(v, before[k])}
    assert all(key.endswith(".u") for key in moved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power_iterations": 0}, "power_iterations must be an integer >= 1, got 0"),
        ({"stable_rank": 0.0}, r"stable_rank must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spectral_norm(nn.Linear(2, 3), **options)
    with pytest.raises(ValueError, match="got one that has it already"):
        spectral_norm(spectral_norm(nn.Linear(2, 3)))
    with pytest.raises(ValueError, match="got none"):
        spectral_norm(nn.ReLU())


class Nothing(nn.Module):
    """A generator of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(4))

    def forward(self, z: Tensor) -> Tensor:
        return z.new_zeros(len(z), 4) * self.theta


class Quadratic(nn.Module):
    """f = x' W x"""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.layer(x)).sum(1)


@pytest.mark.parametrize(
    ("technique", "options", "best"),
    [(SNGAN, {}, 4.0), (SRNGAN, {"c": 0.5}, 1 + 3**0.5), (GAN, {"d_steps": 5}, None)],
)
def test_the_critic_finds_the_known_optimum(technique: Any, options: dict[str, Any], best: float | None) -> None:
    """Data of covariance I in four dimensions, fakes at 0, Wasserstein loss: the critic gains tr W.

    With a spectral norm of 1 that is at most 4, by W = I. With a stable rank of r besides, singular values 1, s, s, s
    with 3 s^2 = r - 1: 1 + sqrt(3 (r - 1)). Without either there is nothing to stop W.
    """
    torch.manual_seed(0)
    if technique is not GAN:
        options = options | {"power_iterations": 5}
    module = technique(Nothing(), Quadratic(), 2, loss="wasserstein", lr_d=0.01, lr_g=0.0, betas=(0.5, 0.9), **options)
    data = 2 * torch.eye(4)
    trainer(max_steps=100).fit(module, DataLoader([data] * 600, batch_size=None))
    found = float(module.discriminator.eval()(data).mean().detach())
    assert found == pytest.approx(best, rel=0.08) if best else found > 8.0
