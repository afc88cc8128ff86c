"""StyleGAN2: its layers by closed forms, its penalties by plain autograd, its mixtures, and what truncation does."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from common import doubles, equal, make, plain, state, trainer
from test_graph_places import play
from torch import Tensor, nn

from lightning_gans import GAN, StyleGAN2
from lightning_gans.callbacks import EMA
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import double_backward, gradient_penalty, path_length
from lightning_gans.networks import DCGANDiscriminator, ModulatedConv2d, StyleDiscriminator, StyleGenerator
from lightning_gans.networks.style import EqualConv2d, EqualLinear, MinibatchStd, _doubled, blur, pixel_norm
from lightning_gans.regularizers import R1, R2
from lightning_gans.regularizers.path_length import PathLength
from lightning_gans.samplers import Truncation
from lightning_gans.wrappers import AdaptiveAugment

DOUBLE = torch.float64
SIDE = (1, 8, 8)


def generator(**options: Any) -> StyleGenerator:
    return StyleGenerator(SIDE, **{"latent_dim": 6, "w_dim": 5, "widths": (4, 3), **options}).double()


def game(**options: Any) -> StyleGAN2:
    """Tiny networks on images of 8 pixels, whose noise is of some account."""
    torch.manual_seed(1)
    g, d = generator(), StyleDiscriminator(SIDE, (4, 3), group=2).double()
    for layer in g.layers:
        nn.init.constant_(layer.strength, 0.3)  # type: ignore[arg-type]
    return StyleGAN2(g, d, 6, **options)


def batch(n: int = 4) -> Batch:
    return Batch(doubles(n, *SIDE, seed=5), None, None, doubles(n, 6, seed=6), torch.Generator().manual_seed(7))


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (partial(StyleDiscriminator, (3, 16, 16), (64, 32, 16)), 140_497),
        (partial(StyleDiscriminator, (3, 32, 32), (64, 64, 32, 16)), 218_449),
        (partial(StyleGenerator, (3, 16, 16), 48, widths=(64, 32, 16)), 93_342),
        (partial(StyleGenerator, (3, 32, 32), 48, widths=(64, 64, 32, 16)), 176_803),
        # 4 classes: an embedding of 48 x 4 + 48, and 48 x 48 more weights of the mapping's first layer
        (partial(StyleGenerator, (3, 16, 16), 48, widths=(64, 32, 16), num_classes=4), 93_342 + 240 + 2304),
        # an embedding and two layers of 64, and 64 scores for one
        (partial(StyleDiscriminator, (3, 16, 16), (64, 32, 16), num_classes=4), 140_497 + 320 + 2 * 4160 + 63 * 65),
    ],
)
def test_parameter_counts(net: Any, parameters: int) -> None:
    assert sum(p.numel() for p in net().parameters()) == parameters


@pytest.mark.parametrize("upsampled", [False, True])
def test_modulation_is_that_of_a_kernel_for_each_sample(upsampled: bool) -> None:
    conv, x, style = (
        ModulatedConv2d(3, 4, 3, doubles=upsampled).double(),
        doubles(5, 3, 6, 6),
        doubles(5, 3, seed=1) + 1,
    )
    kernels = style[:, None, :, None, None] * conv.weight
    kernels = kernels / (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    for one, kernel, y in zip(x, kernels, conv(x, style)):
        if upsampled:
            expected = blur(F.conv_transpose2d(one[None], kernel.transpose(0, 1), stride=2), 1, 1, gain=4)
        else:
            expected = F.conv2d(one[None], kernel, padding=1)
        assert y.shape == (4, 12 if upsampled else 6, 12 if upsampled else 6)
        torch.testing.assert_close(y, expected[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(conv(x, 7 * style), conv(x, style), rtol=1e-6, atol=1e-6)
    colours = ModulatedConv2d(3, 4, 1, demodulate=False).double()
    torch.testing.assert_close(colours(x, 7 * style), 7 * colours(x, style))
    by_hand = torch.einsum("nihw,ni,oi->nohw", x, style, colours.weight[:, :, 0, 0]) / math.sqrt(3)
    torch.testing.assert_close(colours(x, style), by_hand)


def test_layers_keep_the_scale() -> None:
    """Of normal numbers; LeakyReLU(0.2) times sqrt(2) has the second moment 1.04."""
    torch.manual_seed(0)
    x = torch.randn(64, 48, 8, 8)
    assert float(ModulatedConv2d(48, 64, 3)(x, torch.rand(64, 48) + 0.5)[:, :, 1:-1, 1:-1].std()) == pytest.approx(
        1, abs=0.01
    )
    assert float(EqualConv2d(48, 64, 3)(x)[:, :, 1:-1, 1:-1].square().mean()) == pytest.approx(1.04, abs=0.03)
    z, deep = torch.randn(2000, 48), EqualLinear(48, 200, lr_mul=0.01, activate=True)
    assert float(deep(z).square().mean()) == pytest.approx(1.04, abs=0.03)
    assert float(deep.weight.std()) == pytest.approx(100, rel=0.03)
    assert torch.equal(EqualLinear(3, 2, lr_mul=0.01, bias=1.0)(torch.zeros(1, 3)), torch.ones(1, 2))
    slope = torch.autograd.grad(deep(z).sum(), deep.weight)[0]  # a hundredth of what the weight itself would get
    like = EqualLinear(48, 200, activate=True)
    like.load_state_dict({"weight": deep.weight / 100, "bias": deep.bias / 100})
    torch.testing.assert_close(100 * slope, torch.autograd.grad(like(z).sum(), like.weight)[0], rtol=1e-3, atol=1e-3)


def test_resampling() -> None:
    level = torch.full((2, 3, 8, 8), 0.7, dtype=DOUBLE)
    torch.testing.assert_close(blur(level, 2, 1)[:, :, 2:-2, 2:-2], level[:, :, 2:-2, 2:-2])
    assert _doubled(level).shape == (2, 3, 16, 16)
    torch.testing.assert_close(_doubled(level)[:, :, 1:-1, 1:-1], torch.full((2, 3, 14, 14), 0.7, dtype=DOUBLE))
    for kernel in (1, 3):
        assert EqualConv2d(3, 4, kernel, halves=True).double()(level).shape == (2, 4, 4, 4)
    ramp = torch.arange(8.0, dtype=DOUBLE).expand(1, 1, 8, 8)  # pixel centres stay where they are
    places = (torch.arange(16.0, dtype=DOUBLE) - 0.5) / 2
    torch.testing.assert_close(_doubled(ramp)[0, 0, 8, 3:-3], places[3:-3])
    up = ModulatedConv2d(1, 1, 3, doubles=True, demodulate=False).double()
    up.weight.data = torch.zeros(1, 1, 3, 3, dtype=DOUBLE)
    up.weight.data[0, 0, 1, 1] = 3  # sqrt(fan in): the identity
    torch.testing.assert_close(up(ramp, torch.ones(1, 1, dtype=DOUBLE))[0, 0, 8, 3:-3], places[3:-3])


def test_the_kernel_of_the_larger_image_is_not_mirrored() -> None:
    """A weight to the right of the centre moves the image to the right."""
    up = ModulatedConv2d(1, 1, 3, doubles=True, demodulate=False).double()
    dot = torch.zeros(1, 1, 8, 8, dtype=DOUBLE)
    dot[..., 4, 4] = 1

    def centre(column: int) -> float:
        up.weight.data = torch.zeros(1, 1, 3, 3, dtype=DOUBLE)
        up.weight.data[0, 0, 1, column] = 1
        y = up(dot, torch.ones(1, 1, dtype=DOUBLE))[0, 0]
        return float((y.sum(0) * torch.arange(16)).sum() / y.sum())

    assert centre(2) - centre(1) == pytest.approx(1) == centre(1) - centre(0)


def test_mapping_goes_by_the_direction_of_z_and_by_the_label() -> None:
    plain_one, by_class = generator(), generator(num_classes=3)
    z = doubles(4, 6)
    torch.testing.assert_close(plain_one.map(7 * z), plain_one.map(z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(pixel_norm(z).square().mean(1), torch.ones(4, dtype=DOUBLE))
    a, b = (by_class(z, torch.full((4,), label)) for label in (0, 2))
    assert not torch.allclose(a, b)
    d = StyleDiscriminator(SIDE, 4, num_classes=3).double()
    assert not torch.allclose(d(a, torch.tensor([0] * 4)), d(a, torch.tensor([2] * 4)))


def test_the_score_by_a_label_is_the_product_with_its_mapping_as_it_is() -> None:
    d: Any = StyleDiscriminator(SIDE, 2, num_classes=2).double()
    with torch.no_grad():
        d.layers[-1].weight.zero_()
        d.layers[-1].bias.copy_(torch.tensor([1, 0.5]))
        d.mapping.embed.weight.copy_(math.sqrt(2) * torch.tensor([[3, 0], [4, 0]]))  # scaled by 1 / sqrt(2)
        for layer in d.mapping.layers:
            layer.weight.copy_(100 * math.sqrt(2) * torch.eye(2))  # scaled to the identity
    # the embedding (3, 4) over sqrt(12.5), times sqrt(2) in each of the two layers: its product with (1, .5) is 8^.5
    expected = torch.full((3,), 2.0, dtype=DOUBLE)
    torch.testing.assert_close(d(doubles(3, *SIDE), torch.zeros(3, dtype=torch.int64)), expected)


def test_which_w_goes_where() -> None:
    g = StyleGenerator((3, 16, 16), 6, widths=4).double()
    assert g.num_ws == 6 and [s[-1] for s in g.noise_shapes] == [4, 8, 8, 16, 16]
    ws = g.spread(g.map(doubles(2, 6)))
    base = g.styles(ws)
    assert [len(s[0]) for s in base] == [4] * 8
    moved = {}
    for i in range(6):
        other = ws.clone()
        other[:, i] += 1
        assert not torch.allclose(g.synthesis(other), g.synthesis(ws))
        moved[i] = [j for j, (a, b) in enumerate(zip(base, g.styles(other))) if not torch.equal(a, b)]
    assert moved == {0: [0], 1: [1, 5], 2: [2], 3: [3, 6], 4: [4], 5: [7]}  # five layers, then three images
    torch.testing.assert_close(g.render(base), g(doubles(2, 6)))
    g.layers[2].strength.data.fill_(1.0)  # type: ignore[union-attr,operator]
    noise = [doubles(2, *shape) for shape in g.noise_shapes]
    assert not torch.allclose(g.synthesis(ws, noise), g.synthesis(ws))
    assert torch.equal(g.synthesis(ws), g.synthesis(ws))


def test_minibatch_standard_deviation_is_of_strided_groups() -> None:
    x = doubles(8, 3, 4, 4)
    y = MinibatchStd(4)(x)
    assert torch.equal(y[:, :3], x) and y.shape == (8, 4, 4, 4)
    for i in range(8):
        group = x[i % 2 :: 2]
        expected = (group.var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(y[i, 3], expected.expand(4, 4))
    same = MinibatchStd(4)(x[:1].expand(8, -1, -1, -1))[:, 3]
    torch.testing.assert_close(same, torch.full((8, 4, 4), 1e-4, dtype=DOUBLE))
    halves = torch.cat([MinibatchStd(4)(x[r::2]) for r in range(2)])  # ranks that take every second row
    torch.testing.assert_close(halves[[0, 4, 1, 5, 2, 6, 3, 7]][:, 3], y[:, 3])
    assert MinibatchStd(4)(x[:6]).shape == (6, 4, 4, 4)  # in groups of three


# -- penalties ---------------------------------------------------------------------------------------------------------


def test_path_length_of_a_linear_map() -> None:
    a, w = doubles(3 * 4 * 4, 5), doubles(7, 5, seed=1)
    linear = lambda at: (at @ a.t()).unflatten(1, (3, 4, 4))  # noqa: E731
    y = doubles(7, 3, 4, 4, seed=2)
    expected = (y.flatten(1) @ a).norm(dim=1) / 4
    torch.testing.assert_close(path_length(linear, w, y), expected)
    many = path_length(lambda at: linear(at.expand(2000, -1)), w[:1].expand(2000, -1), doubles(2000, 3, 4, 4))
    assert float(many.square().mean()) == pytest.approx(float(a.square().sum()) / 16, rel=0.02)
    by_layer = lambda at: linear(at[:, 0] + 2 * at[:, 1])  # noqa: E731
    found = path_length(by_layer, torch.stack([w, w], 1), y)
    torch.testing.assert_close(found, expected * math.sqrt((1 + 4) / 2))


@pytest.mark.parametrize("method", ["sparse", "linear", "compiled"])
def test_path_length_reaches_the_mapping_with_torchs_own_gradients(method: Any) -> None:
    """ "linear" and "compiled" cannot, and leave it to "sparse"."""
    g, z, y = game().generator, doubles(3, 6), doubles(3, *SIDE)
    found = {}
    for way in (method, "plain"):
        with double_backward(way):
            term = (path_length(g.synthesis, g.spread(g.map(z)), y) - 0.1).square().mean()  # type: ignore[operator]
        names = [name for name, _ in g.named_parameters()]
        grads = torch.autograd.grad(term, list(g.parameters()), allow_unused=True)
        found[way] = {name: grad for name, grad in zip(names, grads) if grad is not None}
    assert found[method].keys() == found["plain"].keys()
    for name, gradient in found[method].items():
        torch.testing.assert_close(gradient, found["plain"][name], rtol=1e-10, atol=1e-12)
    assert all(float(found[method][f"mapping.layers.{i}.weight"].abs().max()) > 0 for i in range(2))
    ws = g.spread(g.map(z)).detach().requires_grad_()  # type: ignore[operator]
    total = (g.synthesis(ws) * y / 8).sum()  # type: ignore[operator]
    by_hand = torch.autograd.grad(total, ws)[0].square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(path_length(g.synthesis, ws, y), by_hand)  # type: ignore[arg-type]


def test_r1_of_the_discriminator_has_torchs_own_gradients() -> None:
    d, x = game().discriminator, doubles(4, *SIDE)
    found = []
    for way in ("sparse", "plain"):
        with double_backward(way):  # type: ignore[arg-type]
            term = gradient_penalty(d, x, target=0.0)
        found.append(torch.autograd.grad(term, [p for p in d.parameters() if p.ndim > 1]))
    for fast, own in zip(*found):
        torch.testing.assert_close(fast, own, rtol=1e-10, atol=1e-12)


def test_the_running_mean_of_the_path_length() -> None:
    g: Any = game().generator
    penalty, data = PathLength(decay=0.25, shrink=2), batch()
    lengths = []
    for mean in (0.0, 0.4):
        g.path_length.fill_(mean)
        term = penalty(g, Batch(data.real, None, None, data.z, torch.Generator().manual_seed(7)), data.real)
        replay = torch.Generator().manual_seed(7)
        maps = [torch.randn(2, *shape, generator=replay, dtype=DOUBLE) for shape in g.noise_shapes]
        y = torch.randn(2, *SIDE, generator=replay, dtype=DOUBLE)
        length = path_length(partial(g.synthesis, noise=maps), g.spread(g.map(data.z[:2])), y)
        new = mean + 0.25 * (float(length.mean()) - mean)
        assert float(g.path_length) == pytest.approx(new, rel=1e-12)
        assert float(term) == pytest.approx(float((length - new).square().mean()), rel=1e-12)
        lengths.append(length)
    torch.testing.assert_close(*lengths)


# -- the technique -----------------------------------------------------------------------------------------------------


def test_terms_are_lazy_and_as_much_heavier() -> None:
    module, data = game(r1_gamma=3.0, r1_every=5, path_length_weight=0.5, path_length_every=3), batch()
    due: dict[str, list[int]] = {"d": [], "g": []}
    terms: Any = {}
    for player, name in (("d", "r1"), ("g", "path_length")):
        for step in range(11):
            module.progress.updates[player] = step
            found = module.terms(player, data)
            assert found.keys() <= {"adversarial", name}
            if name in found:
                due[player].append(step)
                terms.setdefault(name, found[name])
    assert due == {"d": [0, 5, 10], "g": [0, 3, 6, 9]}
    slope = gradient_penalty(module.discriminator, data.real, target=0.0)
    assert float(terms["r1"]) == pytest.approx(5 * 3 / 2 * float(slope), rel=1e-10)
    g: Any = module.generator
    g.path_length.zero_()
    again = Batch(data.real, None, None, data.z, torch.Generator().manual_seed(7))
    module.make_fake(again)  # draws what it draws before the term does
    first = torch.Generator().manual_seed(7)
    module.progress.updates["g"] = 0
    g.path_length.zero_()
    term = module.terms("g", Batch(data.real, None, None, data.z, first))["path_length"]
    g.path_length.zero_()
    expected = PathLength(0.5, 3)(g, again, data.real)
    assert float(term) == pytest.approx(3 * 0.5 * float(expected), rel=1e-10)
    assert module.own_terms == {"adversarial": False, "r1": True, "path_length": False}
    none = game(r1_gamma=0.0, path_length_weight=0.0)
    assert none.own_terms == {"adversarial": False} and not none.regularizers


def test_a_lazy_penalty_has_the_mean_gradient_of_one_that_is_not() -> None:
    data = batch()

    def mean_gradient(every: int) -> Tensor:
        module, total = game(r1_gamma=3.0, r1_every=every), 0.0
        for step in range(4):
            module.progress.updates["d"] = step
            terms = module.terms("d", data)
            if "r1" in terms:
                total += torch.autograd.grad(terms["r1"], next(module.discriminator.parameters()))[0] / 4
        return total  # type: ignore[return-value]

    torch.testing.assert_close(mean_gradient(4), mean_gradient(1))


class Spied(nn.Module):
    """A generator by styles that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.net = generator()
        self.given: list[tuple[Tensor, list[Tensor]]] = []

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("net", "given") else getattr(self.net, name)

    def synthesis(self, ws: Tensor, noise: Any = None) -> Tensor:
        self.given.append((ws.detach(), noise))
        return self.net.synthesis(ws, noise)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_styles_are_mixed_from_a_random_layer_on(probability: float) -> None:
    spy = Spied()
    module = StyleGAN2(spy, StyleDiscriminator(SIDE, 3).double(), 6, style_mixing=probability)
    data = batch(400)
    module.make_fake(data)
    module.make_fake(data)
    (ws, noise), (_, more) = spy.given
    w, layers = spy.net.map(data.z).detach(), spy.net.num_ws
    own = (ws == w[:, None]).all(2)
    cut = own.sum(1)
    assert torch.equal(own, torch.arange(layers) < cut[:, None])  # first this z's, then another's
    for row, c in zip(ws, cut.tolist()):
        assert (row[c:] == row[-1]).all()
    share = float((cut < layers).float().mean())
    assert share == pytest.approx(probability, abs=0.06) and cut.min() >= 1
    if probability == 1:
        assert cut.bincount().tolist()[1:] == pytest.approx([400 / (layers - 1)] * (layers - 1), abs=40)
    assert all(a.shape == (400, *shape) for a, shape in zip(noise, spy.net.noise_shapes))
    assert not torch.equal(noise[0], more[0])  # drawn anew


def test_the_mean_of_w_follows_in_the_generators_step_alone() -> None:
    module, data = game(), batch()
    g: Any = module.generator
    with torch.no_grad():
        module.make_fake(data)
    assert float(g.w_mean.abs().max()) == 0
    module.make_fake(data)
    torch.testing.assert_close(g.w_mean, 0.005 * g.map(data.z).mean(0).detach())
    w = g.map(data.z)
    torch.testing.assert_close(g.truncate(w, 0.3), g.w_mean + 0.3 * (w - g.w_mean))


def test_truncation_in_w() -> None:
    module = game()
    g: Any = module.generator
    g.w_mean.copy_(doubles(5))
    none, half, full = (Truncation(module, threshold=psi).draw(6, torch.Generator()) for psi in (0, 0.5, 1))
    torch.testing.assert_close(none, none[:1].expand_as(none))
    torch.testing.assert_close(none[0], g.synthesis(g.spread(g.w_mean[None]))[0].detach())
    z, _ = Truncation(module).latents(6, torch.Generator(), None)
    torch.testing.assert_close(full, module.decode(z))
    middle = g.w_mean + 0.5 * (g.map(z) - g.w_mean)
    torch.testing.assert_close(half, g.synthesis(g.spread(middle)).detach())
    assert (Truncation(module).threshold, Truncation(make("gan")).threshold) == (0.7, 1)
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 1.5"):
        Truncation(module, threshold=1.5, mode="w")
    for mode in ("redraw", "rescale"):  # the mapping takes the length of z away
        message = f"mode must be w, or None, for a generator by styles, got '{mode}' with a StyleGenerator"
        with pytest.raises(ValueError, match=message):
            Truncation(module, mode=mode)
    with pytest.raises(ValueError, match="mode must be redraw or rescale for a generator without styles, got 'w' with"):
        Truncation(make("gan"), mode="w")


def small(**options: Any) -> StyleGAN2:
    torch.manual_seed(2)
    nets = StyleGenerator(SIDE, 6, widths=8), StyleDiscriminator(SIDE, 8, group=2)
    return StyleGAN2(*nets, 6, **{"r1_every": 4, "path_length_every": 2, **options})


def test_everything_trains_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    module = small()
    before = state(module)
    whole = trainer(max_steps=8, callbacks=[EMA(half_life=20)])
    torch.manual_seed(3)
    whole.fit(module, plain(shape=SIDE))
    after = state(module)
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert all(name.endswith(".noise") for name in still) and len(still) == 3
    assert {"d/r1", "g/path_length", "d/adversarial", "g/adversarial"} <= module.values.keys()
    assert all(float(layer.strength.abs()) > 0 for layer in module.generator.layers)  # type: ignore[union-attr,operator]
    ema: Any = module.ema
    assert torch.equal(ema.w_mean, module.generator.w_mean) and float(ema.w_mean.abs().max()) > 0  # copied
    assert float(module.generator.path_length) > 0  # type: ignore[arg-type]
    assert torch.equal(module.sample(3, seed=1), module.sample(3, seed=1))
    half, first = small(), trainer(max_steps=5, callbacks=[EMA(half_life=20)])
    torch.manual_seed(3)
    first.fit(half, plain(shape=SIDE))
    first.save_checkpoint(tmp_path / "x.ckpt")
    resumed = small()
    trainer(max_steps=8, callbacks=[EMA(half_life=20)]).fit(resumed, plain(shape=SIDE), ckpt_path=tmp_path / "x.ckpt")
    assert equal(state(resumed), after) and equal(resumed.ema.state_dict(), ema.state_dict())  # type: ignore[union-attr]
    loaded = StyleGAN2.load_from_checkpoint(
        tmp_path / "x.ckpt", generator=StyleGenerator(SIDE, 6, widths=8),
        discriminator=StyleDiscriminator(SIDE, 8, group=2),
    )  # fmt: skip
    assert loaded.hparams["r1_every"] == 4 and loaded.regularizers[0].every == 4


def test_what_a_cuda_graph_would_read_stays_where_it_is() -> None:
    """And there is one for each set of terms, and the same bits come of it."""
    seen = play(small(cuda_graphs=True, path_length_every=3), SIDE, cycles=6)
    # Of six updates of D, whose optimizer's first step is outside, and of G.
    assert sorted(len(calls) for calls in seen.values()) == [1, 1, 2, 4, 4]
    assert all(call == calls[1] for calls in seen.values() for call in calls[1:])
    with pytest.warns(UserWarning, match="cuda_graphs has no effect"):
        again = small(cuda_graphs=True, path_length_every=3)
        for one in (again, plain_one := small(path_length_every=3)):
            torch.manual_seed(3)
            trainer(max_steps=6).fit(one, plain(400, 4, shape=SIDE))
    assert equal(state(again), state(plain_one))


# -- adaptive augmentation ---------------------------------------------------------------------------------------------


def test_each_operation_is_done_on_a_share_of_the_images() -> None:
    x = doubles(2000, 1, 8, 8)
    never, half, always = (AdaptiveAugment(nn.Flatten(), "cutout", p=p) for p in (0, 0.3, 1))
    assert torch.equal(never.augment(x), x)
    changed = [float((net.augment(x) != x).flatten(1).any(1).double().mean()) for net in (half, always)]
    assert changed[1] == 1 and changed[0] == pytest.approx(0.3, abs=0.03)
    assert torch.equal(always.eval()(x), x.flatten(1))
    both = AdaptiveAugment(nn.Flatten(), "color,cutout", p=0.5)
    torch.manual_seed(0)
    y = both.augment(x)
    holes = (y == 0).flatten(1).any(1)
    coloured = ((y != x) & (y != 0)).flatten(1).any(1)
    assert float((holes & coloured).double().mean()) == pytest.approx(0.25, abs=0.04)  # each by a coin of its own


def test_the_probability_follows_the_signs_of_the_last_updates() -> None:
    net = AdaptiveAugment(nn.Flatten(), target=0.6, speed=1000, interval=4)
    for update, sign in enumerate([1.0, 1.0, 1.0, -0.5], 1):  # r = .625
        assert float(net.p) == 0
        net.see(torch.tensor(sign), 32, update)
    assert float(net.p) == pytest.approx(32 * 4 / 1000)
    for update in range(5, 9):
        net.see(torch.tensor(0.59), 32, update)
    assert float(net.p) == 0  # and the signs before are forgotten
    for update in range(9, 100):
        net.see(torch.tensor(1.0 if update < 60 else -1.0), 32, update)
        assert 0 <= float(net.p) <= 1
        if update == 59:
            assert float(net.p) == 1
    official = AdaptiveAugment(nn.Flatten())
    for update in range(1, 5):
        official.see(torch.tensor(1.0), 64, update)
    assert float(official.p) == pytest.approx(0.000512)
    for update in range(5, 9):
        official.see(torch.tensor(0.59), 64, update)
    assert float(official.p) == 0


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_running_means_keep_their_bits(precision: Any) -> None:
    """In 16 bits p would stay at .5 plus a step of a thousandth, and a mean of w where a five-hundredth leaves it."""
    torch.manual_seed(0)
    with trainer(precision=precision).init_module():
        net = AdaptiveAugment(nn.Flatten(), target=0.6, speed=80_000, interval=1)
    net.half().bfloat16()
    for update in range(1, 11):
        net.see(torch.tensor(1.0), 8, update)
    assert net.p.item() == pytest.approx(0.001, rel=1e-5)

    module = game(path_length_every=1)
    trainer(max_steps=2, precision=precision, callbacks=[EMA(0.9)]).fit(module.float(), plain(shape=SIDE))
    g = module.generator
    for running in (g.w_mean, g.path_length, module.ema.w_mean):
        assert running.dtype == torch.float32 and 0 < running.norm() < torch.inf
    g.w_mean.fill_(1)
    g.follow(torch.full((5,), 1.1, dtype=g.constant.dtype))
    assert g.w_mean[0].item() == pytest.approx(1.0005, rel=1e-5)
    assert Truncation(module).sample(2, seed=0, progress=False).isfinite().all()
    assert module.double().generator.w_mean.dtype == torch.float64


def test_adaptive_augmentation_trains_and_is_in_the_checkpoint(tmp_path: Path) -> None:
    def module() -> StyleGAN2:
        torch.manual_seed(2)
        d = AdaptiveAugment(StyleDiscriminator(SIDE, 8, group=2), "color", p=0.5, target=0.001, speed=100, interval=2)
        return StyleGAN2(StyleGenerator(SIDE, 6, widths=8), d, 6, r1_every=4, path_length_every=2)

    whole, half, resumed = module(), module(), module()
    torch.manual_seed(3)
    trainer(max_steps=7).fit(whole, plain(shape=SIDE))
    moves = round((float(whole.discriminator.p) - 0.5) / 0.08)  # type: ignore[arg-type]
    assert float(whole.discriminator.p) == pytest.approx(0.5 + 0.08 * moves) and abs(moves) in (1, 3)  # type: ignore[arg-type]
    assert float(whole.values["d/augment"]) == float(whole.discriminator.p)  # type: ignore[arg-type]
    told = whole.told(torch.tensor([1.0, -2.0, 3.0, 0.5]), torch.tensor([-1.0, -1.0, -1.0, 1.0]))
    assert float(told["d_sign"]) == 0.5  # of the real scores
    assert float(whole.values["d/sign"]) in (-1, -0.5, 0, 0.5, 1)
    torch.manual_seed(3)
    first = trainer(max_steps=3)
    first.fit(half, plain(shape=SIDE))
    first.save_checkpoint(tmp_path / "x.ckpt")  # between two moves
    trainer(max_steps=7).fit(resumed, plain(shape=SIDE), ckpt_path=tmp_path / "x.ckpt")
    assert equal(state(resumed), state(whole))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, r"p must be in \[0, 1\], got 1.5"),
        ({"target": 1}, r"target must be in \(0, 1\), got 1"),
        ({"speed": 0}, "speed must be a finite number > 0, got 0"),
        ({"interval": 0}, "interval must be an integer >= 1, got 0"),
        ({"policy": "flip"}, "policy must be one or several of color, translation, cutout, got 'flip'"),
    ],
)
def test_bad_augmentation_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveAugment(nn.Flatten(), **options)


def test_path_length_in_another_game() -> None:
    module = GAN(generator(), DCGANDiscriminator(SIDE, 4, norm="none").double(), 6, regularizers=[PathLength()])
    trainer(max_steps=2, precision="64-true").fit(module, plain(shape=SIDE))
    assert float(module.generator.path_length) > 0 and "g/path_length" in module.values  # type: ignore[arg-type]


def test_weights_of_other_networks_need_no_styles() -> None:
    module = make("style_gan2")
    assert [r.name for r in module.regularizers] == ["r1"] and module.players["d"].lr == 2.5e-3
    assert module.betas == (0.0, 0.99) and module.log_ratio is module.discriminator


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r1_gamma": -1}, "r1_gamma must be a finite number >= 0, got -1"),
        ({"path_length_weight": math.inf}, "path_length_weight must be a finite number >= 0, got inf"),
        ({"r1_every": 0}, "r1_every must be an integer >= 1, got 0"),
        ({"path_length_every": 0}, "path_length_every must be an integer >= 1, got 0"),
        ({"style_mixing": 1.5}, r"style_mixing must be in \[0, 1\], got 1.5"),
        ({"style_mixing": 0.5}, "^StyleGAN2 with style_mixing=0.5 needs .* got ToyGenerator, which has no map"),
        ({"path_length_weight": 2.0}, "^StyleGAN2 with path_length_weight=2 needs .* ToyGenerator, which has no"),
        ({"loss": "hinge"}, "loss must be non_saturating, got 'hinge'"),
        ({"regularizers": [R1()]}, "regularizers must have different names, got 'r1' more than once"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make("style_gan2", **options)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: StyleGenerator((1, 28, 28)), "StyleGenerator takes .* a power of two of at least 8, got .*28"),
        (lambda: StyleDiscriminator((1, 4, 4)), "StyleDiscriminator takes .* a power of two of at least 8, got .*4"),
        (lambda: StyleGenerator((1, 8, 16)), "StyleGenerator takes .*H = W"),
        (lambda: StyleGenerator(SIDE, widths=[4]), r"widths must be one number or 2 at 8 pixels, got \[4\]"),
        (lambda: StyleGenerator(SIDE, widths=0), "widths must be an integer >= 1, got 0"),
        (lambda: StyleGenerator(SIDE, mapping_layers=0), "mapping_layers must be an integer >= 1, got 0"),
        (lambda: StyleDiscriminator(SIDE, group=0), "group must be an integer >= 1, got 0"),
        (lambda: generator().synthesis(doubles(2, 3, 5)), r"ws must have shape \(N, 4, 5\), got \(2, 3, 5\)"),
        (lambda: generator()(doubles(2, 5)), "StyleGenerator takes"),
        (lambda: R1(every=0), "every must be an integer >= 1, got 0"),
        (lambda: R2(every=0), "every must be an integer >= 1, got 0"),
        (lambda: PathLength(decay=1.0), r"decay must be in \(0, 1\), got 1.0"),
        (lambda: PathLength(shrink=0), "shrink must be an integer >= 1, got 0"),
        (lambda: PathLength(-1), "weight must be a finite number >= 0, got -1"),
        (lambda: PathLength()(nn.Linear(1, 1), batch(), batch().real), "PathLength needs a generator by styles"),
    ],
)
def test_networks_and_regularizers_refuse_in_one_sentence(make_it: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make_it()
    assert "\n" not in str(error.value)


# -- mixed precision ---------------------------------------------------------------------------------------------------


def test_large_styles_and_equal_samples_do_in_float16() -> None:
    """Sums of squares beyond 65,504 are taken in float32, and so is a root of 1e-8."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(64, 64, 1)
    x, s = torch.randn(4, 64, 4, 4), 40 * torch.randn(4, 64)
    with torch.autocast("cpu", torch.float16):
        y = layer(x, s)
    torch.testing.assert_close(y.float(), layer(x, s), rtol=0.02, atol=0.02)
    same = torch.ones(4, 2, 4, 4, dtype=torch.float16, requires_grad=True)
    MinibatchStd()(same).float().sum().backward()
    assert same.grad is not None and bool(same.grad.isfinite().all())


def test_accumulated_batches_count_in_adaptive_augmentation() -> None:
    moved = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        module = small(accumulate_d=accumulate)
        module.discriminator = AdaptiveAugment(module.discriminator, "color", p=0.5, speed=1000, interval=1)
        trainer(max_steps=1).fit(module, plain(400, 4, shape=SIDE))
        moved.append(abs(float(module.discriminator.p) - 0.5))
    assert moved == pytest.approx([0.004, 0.008], abs=1e-6)
