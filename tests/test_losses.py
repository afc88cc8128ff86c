from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from lightning_gans.functional import LOSSES
from lightning_gans.functional.losses import RELATIVISTIC, LossName

LN2 = math.log(2)


def scores(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def sp(x: float) -> float:
    """log(1 + e^x), exactly."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sig(x: float) -> float:
    return math.exp(-sp(-x))


# name: (term of a real score, its slope), the same of a fake score, the same of the generator
BY_HAND: dict[str, tuple[tuple[Callable[[float], float], Callable[[float], float]], ...]] = {
    "minimax": (
        (lambda r: sp(-r), lambda r: -sig(-r)),
        (lambda f: sp(f), lambda f: sig(f)),
        (lambda f: -sp(f), lambda f: -sig(f)),
    ),
    "non_saturating": (
        (lambda r: sp(-r), lambda r: -sig(-r)),
        (lambda f: sp(f), lambda f: sig(f)),
        (lambda f: sp(-f), lambda f: -sig(-f)),
    ),
    "hinge": (
        (lambda r: max(0, 1 - r), lambda r: -1.0 if r < 1 else 0.0),
        (lambda f: max(0, 1 + f), lambda f: 1.0 if f > -1 else 0.0),
        (lambda f: -f, lambda f: -1.0),
    ),
    "least_squares": (
        (lambda r: (r - 1) ** 2 / 2, lambda r: r - 1),
        (lambda f: f**2 / 2, lambda f: f),
        (lambda f: (f - 1) ** 2 / 2, lambda f: f - 1),
    ),
    "wasserstein": (
        (lambda r: -r, lambda r: -1.0),
        (lambda f: f, lambda f: 1.0),
        (lambda f: -f, lambda f: -1.0),
    ),
}


def test_every_loss_is_checked() -> None:
    assert set(LOSSES) == {*BY_HAND, *RELATIVISTIC} == set(get_args(LossName))


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("values", [(0.3, -0.7, 2.0), (100.0, -100.0, 25.0, -25.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_slopes(name: str, values: tuple[float, ...], dtype: torch.dtype) -> None:
    """Also at |logit| = 100, and at +-25, where a softplus with a threshold is off by 1e-11."""
    (real_term, real_slope), (fake_term, fake_slope), (generator_term, generator_slope) = BY_HAND[name]
    tolerance = {"rel": 1e-6 if dtype is torch.float32 else 1e-14, "abs": 1e-44 if dtype is torch.float32 else 0.0}
    n = len(values)
    real, fake = scores(*values, dtype=dtype), scores(*values, dtype=dtype)
    fake_part = LOSSES[name].discriminator(scores(*[0.0] * n, dtype=dtype), fake)
    fake_part.backward()
    real_part = LOSSES[name].discriminator(real, scores(*[0.0] * n, dtype=dtype))
    real_part.backward()
    real_values, fake_values = real.tolist(), fake.tolist()
    assert fake_part.item() == pytest.approx(real_term(0.0) + sum(map(fake_term, fake_values)) / n, **tolerance)
    assert real_part.item() == pytest.approx(fake_term(0.0) + sum(map(real_term, real_values)) / n, **tolerance)
    assert real.grad is not None and fake.grad is not None
    assert real.grad.tolist() == pytest.approx([real_slope(v) / n for v in real_values], **tolerance)
    assert fake.grad.tolist() == pytest.approx([fake_slope(v) / n for v in fake_values], **tolerance)

    generated = scores(*values, dtype=dtype)
    loss = LOSSES[name].generator(generated)
    loss.backward()
    assert loss.item() == pytest.approx(sum(map(generator_term, generated.tolist())) / n, **tolerance)
    assert generated.grad is not None
    assert generated.grad.tolist() == pytest.approx([generator_slope(v) / n for v in generated.tolist()], **tolerance)


def test_minimax_at_the_optimum() -> None:
    """D = 1/2 everywhere: the value of the game is -log 4, and D minimises its negative."""
    zeros = torch.zeros(4, dtype=torch.float64)
    assert LOSSES["minimax"].discriminator(zeros, zeros).item() == pytest.approx(2 * LN2, rel=1e-15)
    assert LOSSES["minimax"].generator(zeros).item() == pytest.approx(-LN2, rel=1e-15)
    assert LOSSES["non_saturating"].generator(zeros).item() == pytest.approx(LN2, rel=1e-15)


def test_minimax_discriminator_finds_the_density_ratio() -> None:
    """On three points with p = (.5, .3, .2) and q = (.2, .2, .6) as weights, the best logits are log p / q."""
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    logits = (p / q).log().requires_grad_(True)
    LOSSES["minimax"].discriminator(logits, logits, real_weight=3 * p, fake_weight=3 * q).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-15


def test_relativistic_average_by_hand() -> None:
    r, f = [1.0, 3.0], [-2.0, 0.5]
    mr, mf = 2.0, -0.75
    expected = sum(sp(mf - x) for x in r) / 2 + sum(sp(x - mr) for x in f) / 2
    expected_g = sum(sp(mr - x) for x in f) / 2 + sum(sp(x - mf) for x in r) / 2
    loss = LOSSES["relativistic_average"]
    assert loss.discriminator(scores(*r), scores(*f)).item() == pytest.approx(expected, rel=1e-14)
    assert loss.generator(scores(*f), scores(*r)).item() == pytest.approx(expected_g, rel=1e-14)
    shifted = loss.discriminator(scores(*[x + 7 for x in r]), scores(*[x + 7 for x in f]))
    assert shifted.item() == pytest.approx(expected, rel=1e-13)


def test_relativistic_average_with_weights_by_hand() -> None:
    """Weighted, the other side's mean is a weighted mean too; the two sides may differ in number."""
    r, f, w, v = [1.0, 3.0], [-2.0, 0.5, 1.0], [0.5, 1.5], [2.0, 0.25, 0.75]
    mr = sum(a * b for a, b in zip(w, r)) / 2
    mf = sum(a * b for a, b in zip(v, f)) / 3
    expected = sum(a * sp(mf - x) for a, x in zip(w, r)) / 2 + sum(a * sp(x - mr) for a, x in zip(v, f)) / 3
    expected_g = sum(a * sp(mr - x) for a, x in zip(v, f)) / 3 + sum(a * sp(x - mf) for a, x in zip(w, r)) / 2
    loss = LOSSES["relativistic_average"]
    value = loss.discriminator(scores(*r), scores(*f), real_weight=scores(*w), fake_weight=scores(*v))
    assert value.item() == pytest.approx(expected, rel=1e-14)
    value = loss.generator(scores(*f), scores(*r), fake_weight=scores(*v), real_weight=scores(*w))
    assert value.item() == pytest.approx(expected_g, rel=1e-14)


def test_relativistic_average_far_out() -> None:
    real, fake = scores(-100.0, -100.0, dtype=torch.float32), scores(100.0, 100.0, dtype=torch.float32)
    loss = LOSSES["relativistic_average"].discriminator(real, fake)
    loss.backward()
    assert loss.item() == pytest.approx(400.0, rel=1e-6)
    assert real.grad is not None and fake.grad is not None
    assert real.grad.tolist() == pytest.approx([-1.0, -1.0], rel=1e-6)
    assert fake.grad.tolist() == pytest.approx([1.0, 1.0], rel=1e-6)


def test_relativistic_pairs_by_hand() -> None:
    """Values, slopes, weights: a pair's is the product of the two. Equal scores give log 2, a shift changes nothing."""
    r, f, w, v = [1.0, 3.0, -0.5], [-2.0, 0.5, 90.0], [0.5, 1.5, 1.0], [2.0, 0.25, 0.75]
    loss = LOSSES["relativistic"]
    real, fake = scores(*r), scores(*f)
    value = loss.discriminator(real, fake, scores(*w).detach(), scores(*v).detach())
    value.backward()
    assert value.item() == pytest.approx(sum(a * b * sp(y - x) for x, y, a, b in zip(r, f, w, v)) / 3, rel=1e-14)
    slopes = [a * b * sig(y - x) / 3 for x, y, a, b in zip(r, f, w, v)]
    assert real.grad is not None and real.grad.tolist() == pytest.approx([-s for s in slopes], rel=1e-14)
    assert fake.grad is not None and fake.grad.tolist() == pytest.approx(slopes, rel=1e-14)
    plain = loss.generator(scores(*f), scores(*r))
    assert plain.item() == pytest.approx(sum(sp(x - y) for x, y in zip(r, f)) / 3, rel=1e-14)
    weighted = loss.generator(scores(*f), scores(*r), fake_weight=scores(*v), real_weight=scores(*w))
    assert weighted.item() == pytest.approx(sum(a * b * sp(x - y) for x, y, a, b in zip(r, f, w, v)) / 3, rel=1e-14)
    shifted = loss.generator(scores(*[y + 7 for y in f]), scores(*[x + 7 for x in r]))
    assert shifted.item() == pytest.approx(plain.item(), rel=1e-13)
    assert loss.discriminator(scores(*r), scores(*r)).item() == pytest.approx(LN2, rel=1e-15)
    turned = loss.discriminator(scores(*r), scores(*f[1:], f[0]))
    assert abs(turned.item() - loss.discriminator(scores(*r), scores(*f)).item()) > 0.5  # who is paired matters


@pytest.mark.parametrize("name", BY_HAND)
def test_weights(name: str) -> None:
    """mean(w * loss), not divided by the sum of w: doubled weights double the term, and 0 drops a sample."""
    (real_term, _), (fake_term, _), (generator_term, _) = BY_HAND[name]
    loss = LOSSES[name]
    r, f = [0.3, -1.7, 0.4], [0.1, 0.6, -0.2, 1.5]
    w, v = [2.0, 0.0, 4.0], [0.0, 1.0, 6.0, 0.5]
    expected = sum(a * real_term(x) for a, x in zip(w, r)) / 3 + sum(a * fake_term(x) for a, x in zip(v, f)) / 4
    value = loss.discriminator(scores(*r), scores(*f), real_weight=scores(*w), fake_weight=scores(*v))
    assert value.item() == pytest.approx(expected, rel=1e-14)
    value = loss.generator(scores(*f), fake_weight=scores(*v))
    assert value.item() == pytest.approx(sum(a * generator_term(x) for a, x in zip(v, f)) / 4, rel=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_ones_are_no_weights(name: str) -> None:
    real, fake, ones = scores(0.3, -1.7), scores(0.1, 0.6), torch.ones(2).double()
    loss = LOSSES[name]
    assert loss.discriminator(real, fake).item() == loss.discriminator(real, fake, ones, ones).item()
    assert loss.generator(fake, real).item() == loss.generator(fake, real, ones, ones).item()


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    n = 5 if name == "relativistic" else 4
    real, fake, w, v = (torch.rand(k, generator=generator).double().mul(3) - 1.3 for k in (5, n, 5, n))
    real.requires_grad_(True)
    fake.requires_grad_(True)
    w, v = w.abs(), v.abs()
    assert torch.autograd.gradcheck(lambda r, f: LOSSES[name].discriminator(r, f, w, v), (real, fake))
    assert torch.autograd.gradgradcheck(lambda r, f: LOSSES[name].discriminator(r, f, w, v), (real, fake))
    inputs = (fake, real) if name in RELATIVISTIC else (fake,)
    assert torch.autograd.gradcheck(lambda f, *r: LOSSES[name].generator(f, *r, fake_weight=v), inputs)
    assert torch.autograd.gradgradcheck(lambda f, *r: LOSSES[name].generator(f, *r, fake_weight=v), inputs)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores(name: str, dtype: torch.dtype) -> None:
    """300^2 / 2 is beyond float16: the loss is the float32 one, its gradient returns in half."""
    real, fake = scores(300.0, -1.5, dtype=dtype), scores(-300.0, 0.5, dtype=dtype)
    loss = LOSSES[name].discriminator(real, fake)
    assert loss.dtype is torch.float32
    assert loss.item() == LOSSES[name].discriminator(real.float(), fake.float()).item()
    loss.backward()
    assert real.grad is not None and real.grad.dtype is dtype and bool(real.grad.isfinite().all())


def test_bad_arguments() -> None:
    real, fake, weight = scores(0.0, 1.0), scores(0.0, 1.0), torch.ones(2, 1)
    with pytest.raises(ValueError, match=r"real_weight must be one weight per score, \(2,\), got \(2, 1\)\."):
        LOSSES["hinge"].discriminator(real, fake, real_weight=weight)
    for name in LOSSES:
        with pytest.raises(ValueError, match=r"fake_weight must be .* got \(2, 1\)\."):
            LOSSES[name].discriminator(real, fake, fake_weight=weight)
        with pytest.raises(ValueError, match=r"fake_weight must be .* got \(2, 1\)\."):
            LOSSES[name].generator(fake, real, fake_weight=weight)
    with pytest.raises(ValueError, match=r"real must be the scores of real samples .* got None\."):
        LOSSES["relativistic_average"].generator(fake)
    with pytest.raises(ValueError, match=r"real must be the scores of real samples .* got None\."):
        LOSSES["relativistic"].generator(fake)
    with pytest.raises(ValueError, match=r"as many fake scores as real ones, .*, got 3 and 2\.$"):
        LOSSES["relativistic"].discriminator(real, scores(0.0, 1.0, 2.0))


def test_losses_can_be_pickled() -> None:
    real, fake = scores(0.3, -1.7), scores(0.1, 0.6)
    for loss in LOSSES.values():
        copy = pickle.loads(pickle.dumps(loss))
        assert copy.discriminator(real, fake).item() == loss.discriminator(real, fake).item()
