"""Attention: one formula in several forms, of which all but the fused one have a second derivative."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from common import plain, trainer
from torch import Tensor, nn

from lightning_gans import WGANGP
from lightning_gans.functional import numerics
from lightning_gans.functional.double_backward.first_order import linear_input_gradient
from lightning_gans.functional.double_backward.input_gradient import double_backward
from lightning_gans.functional.penalties import gradient_penalty
from lightning_gans.networks import Attention, ToyGenerator
from lightning_gans.networks.attention import displaced
from lightning_gans.networks.random_features import RandomFeatures, orthogonal

TOKENS, WIDTH = 16, 8


# ---------------------------------------------------------------------- critics as users write them
def by_plain_operations(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (logits if attn_mask is None else logits + attn_mask).softmax(-1) @ v


class Fused(nn.Module):
    """`F.scaled_dot_product_attention` with a mask that is none, constant or learned."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        given = torch.randn(TOKENS, TOKENS)
        self.mask = {"none": None, "constant": given, "learned": nn.Parameter(given)}[mask]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, 3)
        return F.scaled_dot_product_attention(q, k, v, None if self.mask is None else self.mask.to(x.dtype))[:, 0]


class OfTorch(nn.Module):
    """`nn.MultiheadAttention`."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.inner, self.mask = nn.MultiheadAttention(WIDTH, 2, batch_first=True), Fused(mask).mask

    def forward(self, x: Tensor) -> Tensor:
        mask = None if self.mask is None else self.mask.to(x.dtype)
        return self.inner(x, x, x, attn_mask=mask, need_weights=False)[0]


class Scored(nn.Module):
    """Scores of points by what becomes of their tokens."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.tokens, self.inner, self.head = nn.Linear(2, TOKENS * WIDTH), inner, nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.tokens(x).unflatten(1, (TOKENS, WIDTH))).tanh().mean(1))[:, 0]


def encoder(training: bool) -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True).train(training)


USERS: dict[str, Callable[[], nn.Module]] = {
    **{f"function_{mask}": lambda mask=mask: Fused(mask) for mask in ("none", "constant", "learned")},
    **{f"module_{mask}": lambda mask=mask: OfTorch(mask) for mask in ("none", "constant", "learned")},
    "encoder": lambda: encoder(True),
    "encoder_eval": lambda: encoder(False),
}
OURS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Attention(WIDTH, 2),
    "relative": lambda: Attention(WIDTH, 2, grid=(4, 4), relative=True),
    "local": lambda: Attention(WIDTH, 2, locality="raster", reach=3),
    "normalised": lambda: Attention(WIDTH, 2, qk_norm=True),
    "favor": lambda: Attention(WIDTH, 2, kernel="favor", qk_norm=True, redraw_every=10**6),
}
ALL = {**USERS, **OURS}


def made(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    critic = Scored(ALL[name]()).to(dtype)
    critic.train(name != "encoder_eval")
    return critic, torch.randn(5, 2, dtype=torch.float64).to(dtype)


def slopes(critic: nn.Module, x: Tensor, method: Any = "sparse") -> Tensor:
    """The gradient of a penalty by all parameters."""
    with double_backward(method):
        value = gradient_penalty(critic, x, target=0.1)
    parts = torch.autograd.grad(value, list(critic.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def by_torch_alone(critic: nn.Module, x: Tensor) -> Tensor:
    """The same without anything of ours."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    value = (gradient.flatten(1).norm(dim=1) - 0.1).square().mean()
    parts = torch.autograd.grad(value, list(critic.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("method", ["sparse", "linear", "plain"])
@pytest.mark.parametrize("name", ALL)
def test_a_penalty_takes_any_attention(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient is that of plain operations, in float64 to 1e-10 of the largest."""
    critic, x = made(name)
    found = slopes(critic, x, method)
    monkeypatch.setattr(F, "scaled_dot_product_attention", by_plain_operations)
    expected = by_torch_alone(critic, x)
    assert expected.abs().max() > 0
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-10


@pytest.mark.parametrize("name", ALL)
def test_a_penalty_of_attention_in_float32(name: str) -> None:
    critic, x = made(name, torch.float32)
    expected = slopes(copy.deepcopy(critic).double(), x.double())
    torch.testing.assert_close(slopes(critic, x).double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["function_none", "function_constant", "module_none", "encoder", "encoder_eval"])
def test_without_us_torch_refuses(name: str) -> None:
    """What all this is for: if torch learns it one day, this says so."""
    with pytest.raises(RuntimeError, match="not implemented"):
        by_torch_alone(*made(name))


@pytest.mark.parametrize("name", ALL)
def test_attention_is_not_piecewise_linear(name: str) -> None:
    critic, x = made(name)
    assert linear_input_gradient(critic, x.requires_grad_()) is None


@pytest.mark.parametrize("name", ["module_none", "encoder", "relative"])
def test_a_penalty_of_a_compiled_critic(name: str) -> None:
    """torch.compile by a backend that compiles nothing; its penalty is that of the critic as it is."""
    critic, x = made(name)
    expected = slopes(critic, x)
    torch.testing.assert_close(slopes(torch.compile(critic, backend="eager"), x), expected, rtol=1e-10, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["function_none", "module_learned", "encoder", "relative", "local", "favor"])
def test_a_penalty_that_is_compiled(name: str) -> None:
    critic, x = made(name)
    expected = slopes(critic, x)
    assert float((slopes(critic, x, "compiled") - expected).abs().max() / expected.abs().max()) < 1e-9


# ---------------------------------------------------------------------- our own
def test_the_kernels_agree() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    one = Attention(WIDTH, 2, kernel="explicit", grid=(4, 4), relative=True).double()
    q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in one.qkv(x).chunk(3, 2))
    table = displaced(one.table, (4, 4))
    expected = one.project(((q @ k.transpose(2, 3) / 2 + table).softmax(3) @ v).transpose(1, 2).flatten(2))
    for kernel in ("explicit", "fused", "auto"):
        one.kernel = kernel
        torch.testing.assert_close(one(x), expected, rtol=1e-12, atol=1e-14)


def test_auto_is_fused_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU: with many keys, nothing learned beside, and no penalty."""
    called: list[int] = []
    fused = F.scaled_dot_product_attention

    def counted(*arguments: Any, **options: Any) -> Tensor:
        called.append(arguments[0].shape[2])
        return fused(*arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    wide, relative = Attention(4, 1), Attention(4, 1, grid=(16, 16), relative=True)
    few, many = torch.randn(1, 255, 4), torch.randn(1, 256, 4)
    for layer, x in ((wide, few), (wide, many), (relative, many)):
        layer(x)
    assert called == [256]
    with torch.no_grad():
        relative(many)
    assert len(called) == 2
    gradient_penalty(lambda x: wide(x).sum((1, 2)), many)
    assert len(called) == 2


@pytest.mark.parametrize("method", ["sparse", "linear", "plain", "compiled"])
def test_fused_by_name_is_refused_under_a_penalty(method: Any) -> None:
    critic = Scored(Attention(WIDTH, 2, kernel="fused"))
    module = WGANGP(ToyGenerator((2,), 3, width=8, depth=1), critic, 3, double_backward=method)
    with pytest.raises(ValueError, match=r"kernel must be auto, explicit or favor .* got 'fused'"):
        trainer(max_steps=1).fit(module, plain())
    WGANGP(ToyGenerator((2,), 3, width=8, depth=1), critic, 3, gp_weight=0)  # which takes it
    gradient_penalty(Scored(Attention(WIDTH, 2, kernel="auto")), torch.randn(2, 2))


def test_a_table_is_looked_up_by_displacement() -> None:
    table = torch.arange(2 * 5 * 3, dtype=torch.float64).view(15, 2)  # of a grid of 2 rows and 3 columns: 3 * 5 rows
    bias = displaced(table, (2, 3))
    for i in range(6):
        for j in range(6):
            row = (i // 3 - j // 3 + 1) * 5 + i % 3 - j % 3 + 2
            assert torch.equal(bias[:, i, j], table[row])


def test_a_constant_table_changes_nothing() -> None:
    torch.manual_seed(0)
    layer, x = Attention(WIDTH, 2, grid=(4, 4), relative=True).double(), torch.randn(2, 16, WIDTH).double()
    before = layer(x)
    with torch.no_grad():
        layer.table += torch.tensor([3.0, -1.0])
    torch.testing.assert_close(layer(x), before, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        layer.table[0] += 1
    assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize("locality", ["raster", "window"])
def test_locality(locality: Any) -> None:
    """Each token sees those that it may, and no others; without a limit all of them."""
    torch.manual_seed(0)
    layer = Attention(WIDTH, 2, grid=(3, 4), locality=locality, reach=1).double()
    x = torch.randn(1, 12, WIDTH, dtype=torch.float64)
    seen = torch.autograd.functional.jacobian(lambda x: layer(x)[0], x)[:, :, 0].abs().amax((1, 3)) > 0
    for i in range(12):
        for j in range(12):
            apart = abs(i - j), max(abs(i // 4 - j // 4), abs(i % 4 - j % 4))
            assert bool(seen[i, j]) == (apart[locality == "window"] <= 1)
    if locality == "raster":
        assert seen.sum(1).tolist() == [min(i, 1) + min(11 - i, 1) + 1 for i in range(12)]
    layer.reach.fill_(math.inf)
    free = Attention(WIDTH, 2).double()
    free.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "reach"})
    torch.testing.assert_close(layer(x), free(x))


def test_masks() -> None:
    torch.manual_seed(0)
    layer, x = Attention(WIDTH, 2).double(), torch.randn(3, 5, WIDTH, dtype=torch.float64)
    sees = torch.rand(3, 1, 5, 5) < 0.5
    sees |= torch.eye(5, dtype=torch.bool)
    added = torch.zeros(3, 1, 5, 5, dtype=torch.float64).masked_fill(~sees, -1e9)
    torch.testing.assert_close(layer(x, mask=sees), layer(x, mask=added))
    only_itself = layer(x, mask=torch.eye(5, dtype=torch.bool))
    torch.testing.assert_close(only_itself, layer.project(layer.qkv(x).chunk(3, 2)[2]))


def test_keys_and_values_of_others() -> None:
    torch.manual_seed(0)
    layer = Attention(WIDTH, 1, context=3, inner=4).double()
    x, others = torch.randn(2, 5, WIDTH).double(), torch.randn(2, 7, 3).double()
    k, v = layer.kv(others).chunk(2, 2)
    expected = layer.project((layer.qkv(x) @ k.transpose(1, 2) / 2).softmax(2) @ v)
    torch.testing.assert_close(layer(x, others), expected)


def test_normalised_queries_and_keys() -> None:
    """Only their directions count; a token of zeros is no fault, nor are its derivatives."""
    torch.manual_seed(0)
    layer, x = Attention(WIDTH, 2, qk_norm=True).double(), torch.randn(2, 5, WIDTH).double()
    before = layer(x)
    with torch.no_grad():
        layer.qkv.weight[: 2 * WIDTH] *= 10
    torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        layer.temperature *= 3
    assert not torch.allclose(layer(x), before, rtol=1e-2)
    x[:, 0] = 0
    value = gradient_penalty(lambda x: layer(x).square().sum((1, 2)), x)
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, layer.temperature))


def test_noise() -> None:
    """A number for each token, in training only, and none as long as its strength is 0."""
    torch.manual_seed(0)
    layer, x = Attention(WIDTH, 2, noise=True), torch.randn(2, 5, WIDTH)
    assert torch.equal(layer(x), layer(x))
    torch.nn.init.ones_(layer.strength)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    seen: list[Tensor] = []
    layer.qkv.register_forward_pre_hook(lambda module, given: seen.append(given[0] - x))
    layer(x)
    torch.testing.assert_close(seen[0], seen[0][:, :, :1].expand_as(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads must divide the width of 8, got 3"),
        ({"relative": True}, "grid must be .H, W. with relative places .* got None"),
        ({"locality": "window"}, "grid must be .H, W."),
        ({"locality": "near"}, "locality must be one of none, raster, window, got 'near'"),
        ({"kernel": "flash"}, "kernel must be one of auto, fused, explicit, favor, got 'flash'"),
        ({"kernel": "favor", "features": 0}, "features must be an integer >= 1, got 0"),
        ({"kernel": "favor", "grid": (4, 4), "relative": True}, "relative and locality must be off"),
        ({"locality": "raster", "reach": -1}, "reach must be a finite number >= 0, got -1"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attention(WIDTH, **options)


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({}, {"mask": torch.zeros(4, 5)}, r"mask must broadcast to \(2, 4, 9, 9\), got \(4, 5\)"),
        ({}, {"mask": torch.zeros(2, 2, 9, 9)}, r"mask must broadcast to \(2, 4, 9, 9\), got \(2, 2, 9, 9\)"),
        ({}, {"mask": torch.zeros(3, 1, 1, 9)}, r"mask must broadcast to \(2, 4, 9, 9\), got \(3, 1, 1, 9\)"),
        ({}, {"context": torch.zeros(2, 9, 8)}, r"takes no context, got \(2, 9, 8\)"),
        ({"context": 3}, {}, r"takes a context \(N, S, 3\), got None"),
        ({"context": 3}, {"context": torch.zeros(9, 3)}, r"takes a context \(N, S, 3\), got \(9, 3\)"),
        (
            {"context": 3, "locality": "raster", "reach": 2},
            {"context": torch.zeros(2, 7, 3)},
            "Attention of a locality takes as many tokens of a context as ask, 9, got 7",
        ),
        ({"grid": (4, 4), "relative": True}, {}, "takes 16 tokens, one for each place of its grid, got 9"),
        ({"kernel": "favor"}, {"mask": torch.zeros(9, 9)}, "mask must be None with kernel='favor'"),
    ],
)
def test_bad_tokens(options: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attention(WIDTH, **options)(torch.zeros(2, 9, WIDTH), **given)
    with pytest.raises(ValueError, match=r"takes tokens \(N, L, 8\), got \(2, 9, 4\)"):
        Attention(WIDTH)(torch.zeros(2, 9, 4))


# ---------------------------------------------------------------------- random features
def qkv(scale: float, tokens: int = 6, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, tokens, width, dtype=torch.float64).unbind()
    return q * scale, k * scale, v


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(2, 3)).softmax(3) @ v


def test_the_features_are_unbiased() -> None:
    """The mean of exp(w (q + k) - (|q|^2 + |k|^2) / 2) over 1,000 draws of rows, within 3 standard errors."""
    q, k, _ = (part[0, 0, 0] for part in qkv(0.25))
    draws = torch.stack([orthogonal(12, 8, torch.tensor(i)) for i in range(1000)])
    each = (draws @ (q + k) - (q.square().sum() + k.square().sum()) / 2).exp().mean(1)
    assert float((each.mean() - (q @ k).exp()).abs()) < 3 * float(each.std()) / 1000**0.5


def test_the_error_falls_as_the_root_of_the_features() -> None:
    q, k, v = qkv(0.25, 16)
    errors = []
    for features in (16, 64, 256, 1024):
        mean = []
        for seed in range(40):
            layer = RandomFeatures(8, features).double()
            layer.projection = orthogonal(features, 8, torch.tensor(seed))
            mean.append((layer.eval()(q, k, v) - exact(q, k, v)).square().mean())
        errors.append(float(torch.stack(mean).mean().sqrt().log()))
    slope = (errors[-1] - errors[0]) / math.log(1024 / 16)
    assert -0.6 < slope < -0.4


def test_rows_are_orthogonal_and_of_the_length_of_normal_ones() -> None:
    w = orthogonal(4000 * 8, 8, torch.tensor(1)).view(4000, 8, 8)
    gram = w @ w.transpose(1, 2)
    assert float((gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))).abs().max()) < 1e-8
    assert float(gram.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(8, rel=0.01)
    assert float(w.mean((0, 1)).abs().max()) < 0.03 and float(w.square().mean((0, 1)).sub(1).abs().max()) < 0.05
    assert orthogonal(3, 8, torch.tensor(1)).shape == (3, 8)  # fewer than a block


def test_constant_values_come_back() -> None:
    q, k, v = qkv(3.0)
    layer = RandomFeatures(8, 5).double().eval()
    torch.testing.assert_close(layer(q, k, torch.full_like(v, 2.5)), torch.full_like(v, 2.5))
    one = [part[:, :, :1] for part in (q, k, v)]
    torch.testing.assert_close(layer(*one), one[2])  # one token sees itself


@pytest.mark.parametrize("scale", [0.5, 4.0, 30.0])
def test_large_queries_and_keys(scale: float) -> None:
    """Equal to the sums in log space, whatever the exponents; finite in float32, with derivatives."""
    q, k, v = qkv(scale)
    layer = RandomFeatures(8, 24).double().eval()
    w = layer.projection
    on_k = k @ w.t() - k.square().sum(3, keepdim=True) / 2
    logits = torch.logsumexp((q @ w.t())[:, :, :, None] + on_k[:, :, None], 4)
    torch.testing.assert_close(layer(q, k, v), logits.softmax(3) @ v, rtol=1e-8, atol=1e-10)
    q, k, v = (part.float().requires_grad_() for part in (q, k, v))
    y = layer.float()(q, k, v)
    (slope,) = torch.autograd.grad(y.square().sum(), q, create_graph=True)
    assert all(t.isfinite().all() for t in (y, slope, *torch.autograd.grad(slope.square().sum(), (q, k))))


def test_features_are_drawn_anew_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = RandomFeatures(4, 6, redraw_every=3)
    given, first, random = qkv(1.0, 2, 4), layer.projection.clone(), torch.get_rng_state()
    drawn = [first]
    for _ in range(6):
        layer(*given)
        drawn.append(layer.projection.clone())
    assert [torch.equal(a, b) for a, b in itertools.pairwise(drawn)] == [True, True, False, True, True, False]
    assert torch.equal(torch.get_rng_state(), random)
    other = RandomFeatures(4, 6, redraw_every=3)
    other.load_state_dict(layer.state_dict())
    for _ in range(3):
        layer(*given)
        with monkeypatch.context() as patch:  # as on a GPU, which is not asked whether it is time
            patch.setattr(numerics, "LOOKED_AT", set())
            other(*given)
    assert torch.equal(layer.projection, other.projection) and not torch.equal(layer.projection, drawn[-1])
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    for _ in range(4):
        layer(*given)
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


def test_two_calls_before_a_backward_pass() -> None:
    """A draw between them does not touch what the first one's derivative needs."""
    layer, (q, k, v) = RandomFeatures(4, 6, redraw_every=1), qkv(1.0, 2, 4)
    q.requires_grad_()
    (layer(q, k, v).sum() + layer(q, k, v).square().sum()).backward()
    assert q.grad.isfinite().all()


def test_a_mask_of_each_context_of_learned_queries() -> None:
    torch.manual_seed(0)
    layer, q, context = Attention(8, 2, context=6), torch.randn(1, 4, 8), torch.randn(3, 5, 6)
    mask = torch.ones(3, 1, 1, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(q, context, mask), layer(q, context))
