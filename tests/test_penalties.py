from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from common import doubles
from torch import Tensor, nn

from lightning_gans.functional import (
    LOSSES,
    finite_difference_penalty,
    gradient_norm,
    gradient_penalty,
    input_gradient,
    interpolate,
    perturb,
)

W = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)  # norms: 1-norm 5, 2-norm 3, infinity 2


def linear(w: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x.flatten(1) @ w


def half_square_norm(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1) / 2


def test_input_gradient_of_a_quadratic_is_the_point() -> None:
    x = doubles(5, 3, 8, 8)
    gradient = input_gradient(half_square_norm, x)
    assert gradient.shape == (5, 192)
    torch.testing.assert_close(gradient, x.flatten(1), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "p, norm", [(1, 5.0), (1.5, (1 + 2 * 2**1.5) ** (2 / 3)), (2, 3.0), (3, 17 ** (1 / 3)), (math.inf, 2.0)]
)
def test_norm_of_a_linear_critic(p: float, norm: float) -> None:
    assert gradient_norm(linear(W), doubles(4, 3), p).tolist() == pytest.approx([norm] * 4, rel=1e-14)


def test_a_norm_without_a_graph_has_no_gradient() -> None:
    w = W.clone().requires_grad_()
    assert gradient_norm(linear(w), doubles(4, 3)).requires_grad
    assert not gradient_norm(linear(w), doubles(4, 3), create_graph=False).requires_grad


def test_norm_is_not_biased_when_small() -> None:
    """A root with 1e-12 added inside would give 1e-6 here."""
    assert gradient_norm(linear(1e-9 * W), doubles(2, 3)).tolist() == pytest.approx([3e-9] * 2, rel=1e-14)


@pytest.mark.parametrize("target", [0.0, 1.0, 3.0, 4.0])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("one_sided", [False, True])
def test_penalty_of_a_linear_critic(target: float, power: float, one_sided: bool) -> None:
    value = gradient_penalty(linear(W), doubles(4, 3), target=target, power=power, one_sided=one_sided)
    expected = (max(0.0, 3 - target) if one_sided else abs(3 - target)) ** power
    assert value.item() == pytest.approx(expected, abs=1e-10)


def test_defaults_are_those_of_wgan_gp() -> None:
    assert gradient_penalty(linear(W), doubles(4, 3)).item() == pytest.approx((3 - 1) ** 2, abs=1e-10)


def test_norm_is_over_all_dimensions() -> None:
    x = doubles(6, 3, 8, 8)
    norms = x.square().sum((1, 2, 3)).sqrt()
    value = gradient_penalty(half_square_norm, interpolate(x, x, torch.Generator().manual_seed(3)))
    assert value.item() == pytest.approx((norms - 1).square().mean().item(), abs=1e-10)
    assert norms.min() > 10  # hence far from what a norm per channel or pixel gives


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_zero_gradient_has_finite_derivatives(p: float, one_sided: bool, power: float, target: float) -> None:
    """Dead units give exactly zero input gradients; the penalty's gradient there is 0, its second one no NaN."""
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double()
    nn.init.zeros_(critic[2].weight)
    value = gradient_penalty(critic, doubles(5, 3), p, target, power, one_sided)
    assert value.item() == (0.0 if one_sided else target**power)
    parameters = [critic[0].weight, critic[2].weight]
    gradients = torch.autograd.grad(value, parameters, create_graph=True)
    assert all(bool((g == 0).all()) for g in gradients)
    second = torch.autograd.grad(sum(g.sum() for g in gradients), parameters, allow_unused=True)
    assert all(g is None or bool(g.isfinite().all()) for g in second)


@pytest.mark.parametrize("one_sided", [False, True])
def test_root_of_a_norm_on_target(one_sided: bool) -> None:
    """Power 1/2 has an infinite slope at n = K; exactly there the gradient is 0, not NaN."""
    w = W.clone().requires_grad_(True)
    gradient_penalty(linear(w), doubles(4, 3), target=3, power=0.5, one_sided=one_sided).backward()
    assert w.grad is not None and bool((w.grad == 0).all())


def test_zero_gradient_of_one_sample_leaves_the_others() -> None:
    """A ReLU critic that is dead on the left: samples there add 1 to the sum and nothing to the gradient."""
    w = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]], dtype=torch.float64)
    value = gradient_penalty(lambda x: (w * x).relu().squeeze(1), x)
    value.backward()
    assert value.item() == pytest.approx((1 + 1 + 4 + 4) / 4, abs=1e-14)
    assert w.grad is not None and w.grad.item() == pytest.approx(2 * 2 * 2 / 4, abs=1e-14)


@pytest.mark.parametrize(
    "p, power, one_sided, target", [(2, 2, False, 1), (2, 2, True, 0.1), (3, 1.5, False, 2), (2, 1, False, 1)]
)
def test_gradcheck(p: float, power: float, one_sided: bool, target: float) -> None:
    x = doubles(3, 2)
    weights = [doubles(2, 4, seed=1).requires_grad_(True), doubles(4, seed=2).requires_grad_(True)]

    def penalty(a: Tensor, b: Tensor) -> Tensor:
        return gradient_penalty(lambda x: (x @ a).tanh() @ b, x, p, target, power, one_sided)

    assert torch.autograd.gradcheck(penalty, weights)
    assert torch.autograd.gradgradcheck(penalty, weights)


def test_gradient_reaches_the_critic_only() -> None:
    generator = nn.Linear(2, 3)
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    real = torch.randn(5, 3, requires_grad=True)
    fake = generator(torch.randn(5, 2))
    x = interpolate(real, fake)
    assert not x.requires_grad and not perturb(real).requires_grad
    total = gradient_penalty(critic, x) + gradient_penalty(critic, fake) + gradient_penalty(critic, real)
    (total + finite_difference_penalty(critic, fake, real)).backward()
    assert real.grad is None and generator.weight.grad is None and generator.bias.grad is None
    assert critic[0].weight.grad.abs().sum() > 0 and critic[2].weight.grad.abs().sum() > 0
    assert fake.requires_grad and real.requires_grad  # the callers' tensors are left as they were


def test_last_bias_gets_nothing() -> None:
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    gradient_penalty(critic, torch.randn(5, 3)).backward()
    assert critic[2].bias.grad is None or bool((critic[2].bias.grad == 0).all())
    assert critic[0].bias.grad.abs().sum() > 0


def test_works_without_grad_mode() -> None:
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    x = torch.randn(5, 3)
    with torch.no_grad():
        norm = gradient_norm(critic, x, create_graph=False)
    assert not norm.requires_grad
    torch.testing.assert_close(norm, gradient_norm(critic, x).detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_under_autocast(dtype: torch.dtype) -> None:
    """Half-precision points are raised, the critic runs outside autocast: bit for bit the float32 value."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(144, 1), nn.Flatten(0))
    real, fake = torch.randn(6, 1, 8, 8).to(dtype), torch.randn(6, 1, 8, 8).to(dtype)

    def all_of_them(real: Tensor, fake: Tensor) -> list[Tensor]:
        x = interpolate(real, fake, torch.Generator().manual_seed(1))
        y = perturb(real, torch.Generator().manual_seed(2))
        return [
            gradient_penalty(critic, x),
            gradient_penalty(critic, y),
            gradient_penalty(critic, fake),
            finite_difference_penalty(critic, real, fake),
        ]

    expected = all_of_them(real.float(), fake.float())
    with torch.autocast("cpu", dtype=dtype):
        assert critic(real).dtype is dtype  # autocast is on
        values = all_of_them(real, fake)
    for value, wanted in zip(values, expected):
        assert value.dtype is torch.float32
        assert value.item() == wanted.item()
        assert 0 < value.item() < math.inf
    gradients = torch.autograd.grad(sum(values), critic.parameters(), allow_unused=True)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)


def test_float64_stays() -> None:
    x = doubles(4, 3)
    assert interpolate(x, x).dtype is perturb(x).dtype is input_gradient(linear(W), x).dtype is torch.float64


def test_interpolates_have_one_coefficient_per_sample() -> None:
    real, fake = doubles(2000, 2, 3), doubles(2000, 2, 3, seed=1)
    x = interpolate(real, fake, torch.Generator().manual_seed(0))
    a = ((x - fake) / (real - fake)).flatten(1)
    assert (a - a[:, :1]).abs().max() < 1e-9  # the same over all elements of a sample
    a = a[:, 0]
    assert a.min() > -1e-9 and a.max() < 1 + 1e-9
    # Uniform: mean 1/2 and mean square 1/3, each within 4 standard errors.
    assert a.mean().item() == pytest.approx(1 / 2, abs=4 * math.sqrt(1 / 12 / 2000))
    assert a.square().mean().item() == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / 2000))


def test_perturbed_points() -> None:
    real = 3 + 2 * doubles(500, 2, 4)
    noise = perturb(real, torch.Generator().manual_seed(0)) - real
    u = noise / (0.5 * real.std(correction=0))
    assert u.min() > -1e-12 and u.max() < 1
    assert u.mean().item() == pytest.approx(1 / 2, abs=4 * math.sqrt(1 / 12 / 4000))
    assert u.square().mean().item() == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / 4000))
    assert (u - u[:, :1, :1]).abs().max() > 0.1  # drawn per element
    real = torch.tensor([[0.0, 2.0]], dtype=torch.float64).expand(50, 2)  # columns of no spread: one number for all
    assert 0.4 < (perturb(real) - real).max().item() < 0.5


def test_optimal_linear_critic_of_wgan_gp() -> None:
    """Mean gap 1, lambda 10: the slope is 1 + 1/20 and the critic's estimate 1 + 1/40."""
    gap = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    fake = doubles(64, 3)
    real = fake + gap
    w = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.02)
    draws = torch.Generator().manual_seed(0)
    for _ in range(1500):
        optimizer.zero_grad()
        critic = linear(w)
        loss = LOSSES["wasserstein"].discriminator(critic(real), critic(fake))
        loss = loss + 10 * gradient_penalty(critic, interpolate(real, fake, draws))
        loss.backward()
        optimizer.step()
    assert w.norm().item() == pytest.approx(1.05, abs=1e-3)
    assert -loss.item() == pytest.approx(1.025, abs=1e-3)
    torch.testing.assert_close(w.detach(), 1.05 * gap, rtol=0, atol=1e-3)


@pytest.mark.parametrize("p, distance", [(1, 5.0), (2, 3.0), (math.inf, 2.0)])
def test_finite_difference_of_a_linear_critic(p: float, distance: float) -> None:
    """Along w, the slope is w.w / ||w||_p."""
    x = doubles(4, 3)
    value = finite_difference_penalty(linear(W), x + W, x, p)
    assert value.item() == pytest.approx((9 / distance - 1) ** 2, abs=1e-10)
    assert finite_difference_penalty(linear(-W), x + W, x, p).item() == pytest.approx(value.item(), abs=1e-10)


def test_finite_difference_is_a_secant() -> None:
    """x^2 between a and b has slope |a + b|."""
    a, b = doubles(50, 1), doubles(50, 1, seed=1)
    value = finite_difference_penalty(lambda x: x.squeeze(1).square(), a, b)
    assert value.item() == pytest.approx(((a + b).abs() - 1).square().mean().item(), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_difference_of_near_points(dtype: torch.dtype) -> None:
    """Coinciding pairs, the origin among them, count as 0 in the mean and leave the gradient finite."""
    w = W.to(dtype).requires_grad_(True)
    x = doubles(4, 3).to(dtype)
    x[3] = 0
    y = x.clone()
    y[0] += W.to(dtype)
    y[1] *= 1 + 2 * torch.finfo(dtype).eps
    value = finite_difference_penalty(linear(w), x, y)
    assert value.item() == pytest.approx((3 - 1) ** 2 / 4, rel=1e-5)
    value.backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, 2 * 2 * W.to(dtype) / 3 / 4, rtol=1e-5, atol=0)
    assert finite_difference_penalty(linear(w), x, x).item() == 0


def test_finite_difference_of_close_points_is_the_slope() -> None:
    """The guard is about rounding only: points some hundred roundings apart still count, a few do not, of any size."""
    for dtype in (torch.float64, torch.float32):
        eps = torch.finfo(dtype).eps
        for size in (1e-3, 1.0, 1e5):
            x = size * doubles(4, 3).to(dtype)
            y = x + 300 * eps * x.norm(dim=1, keepdim=True) * W.to(dtype)
            assert finite_difference_penalty(linear(W.to(dtype)), x, y).item() == pytest.approx(4.0, rel=0.2)
            near = x * (1 + 4 * eps)
            assert finite_difference_penalty(linear(W.to(dtype)), x, near).item() == 0


def test_finite_difference_cannot_vanish_off_a_line() -> None:
    """Three corners of an equilateral triangle of side 1: the scores that do best leave 1/9 x 1."""
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]], dtype=torch.float64)
    best = math.inf
    for seed in range(8):
        table = doubles(3, seed=seed).requires_grad_(True)
        optimizer = torch.optim.SGD([table], lr=0.2)
        for _ in range(300):
            optimizer.zero_grad()
            x1, x2 = triangle[[0, 1, 2]], triangle[[1, 2, 0]]

            def critic(x: Tensor, table: Tensor = table) -> Tensor:
                return table[torch.cdist(x, triangle).argmin(1)]

            loss = finite_difference_penalty(critic, x1, x2)
            loss.backward()
            optimizer.step()
        best = min(best, loss.item())
    # |a-b| = |b-c| = t, |a-c| = 2t: mean of 2 (t-1)^2 + (2t-1)^2 is least at t = 2/3, where it is (2/9 + 1/9) / 3.
    assert best == pytest.approx(1 / 9, abs=1e-6)


def test_finite_difference_gradcheck() -> None:
    x, y = doubles(5, 2), doubles(5, 2, seed=5)
    weights = [doubles(2, 4, seed=1).requires_grad_(True), doubles(4, seed=2).requires_grad_(True)]

    def penalty(a: Tensor, b: Tensor) -> Tensor:
        return finite_difference_penalty(lambda x: (x @ a).tanh() @ b, x, y)

    assert torch.autograd.gradcheck(penalty, weights)
    assert torch.autograd.gradgradcheck(penalty, weights)


def test_nan_is_not_hidden() -> None:
    x = doubles(4, 3)
    x[1, 1] = math.nan
    assert gradient_penalty(half_square_norm, x).isnan()
    assert finite_difference_penalty(half_square_norm, x, doubles(4, 3, seed=1)).isnan()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"p": 0.5}, "p must be the order of a norm, at least 1, got 0.5."),
        ({"p": math.nan}, "p must be the order of a norm, at least 1, got nan."),
        ({"target": -1.0}, "target must be a finite number >= 0, got -1.0."),
        ({"target": math.inf}, "target must be a finite number >= 0, got inf."),
        ({"power": 0}, "power must be a finite number > 0, got 0."),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:
        gradient_penalty(linear(W), doubles(4, 3), **arguments)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match=r"^fake must have the shape of real, \(4, 3\), got \(5, 3\)\.$"):
        interpolate(doubles(4, 3), doubles(5, 3))
    with pytest.raises(ValueError, match=r"^x2 must have the shape of x1, \(4, 3\), got \(1, 3\)\.$"):
        finite_difference_penalty(linear(W), doubles(4, 3), doubles(1, 3))
    with pytest.raises(ValueError, match=r"^discriminator must return scores of shape \(4,\), got \(4, 2\)\.$"):
        gradient_penalty(lambda x: x @ torch.stack([W, W], 1), doubles(4, 3))
    with pytest.raises(ValueError, match=r"^discriminator must return scores of shape \(4,\), got \(4, 2\)\.$"):
        finite_difference_penalty(lambda x: x @ torch.stack([W, W], 1), doubles(4, 3), doubles(4, 3, seed=1))
    with pytest.raises(ValueError, match=r"^p must be "):
        finite_difference_penalty(linear(W), doubles(4, 3), doubles(4, 3), p=0)
