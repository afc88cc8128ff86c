"""Architectures: sizes, ranges, initialisation, normalisation, conditioning and errors."""

from __future__ import annotations

import inspect
import io
import json
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import networks
from lightning_gans.networks import (
    BottleneckDiscriminator,
    BottleneckGenerator,
    CIFARCritic,
    CIFARGenerator,
    ConditionalBatchNorm2d,
    DCGANDiscriminator,
    DCGANGenerator,
    LayerNorm,
    LeNet,
    MNISTCritic,
    MNISTGenerator,
    PrimalDualDiscriminator,
    PrimalDualGenerator,
    ProjectionHead,
    ResNetClassifier,
    ResNetDiscriminator,
    ResNetGenerator,
    TaperedResNetDiscriminator,
    TaperedResNetGenerator,
    ToyDiscriminator,
    ToyGenerator,
    make_norm,
)
from lightning_gans.networks.deep_resnet import BottleneckBlock
from lightning_gans.networks.layers import GatedTanh, SameConv2d, SameConvTranspose2d, glorot_
from lightning_gans.networks.resnet import DownBlock, ImageBlock, PlainBlock, UpBlock

NORMS = ["none", "batch", "layer", "instance", "group"]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

# every network, small: (class, arguments as a config file would hold them, shape of a sample)
GENERATORS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (ToyGenerator, {"width": 16}, (2,)),
    (ToyGenerator, {"width": 16, "depth": 1, "shape": [1, 8, 8]}, (1, 8, 8)),
    (MNISTGenerator, {"width": 4}, (1, 28, 28)),
    (MNISTGenerator, {"width": 4, "batch_norm": True}, (1, 28, 28)),
    (PrimalDualGenerator, {"width": 4, "dropout": 0.0, "activations": True}, (1, 28, 28)),
    (CIFARGenerator, {"width": 4}, (3, 32, 32)),
    *[(DCGANGenerator, {"width": 4, "shape": [1, s, s]}, (1, s, s)) for s in (8, 16, 28, 32, 64)],
    *[(DCGANGenerator, {"width": 4, "shape": [3, 8, 8], "norm": n}, (3, 8, 8)) for n in NORMS],
    *[(DCGANGenerator, {"width": 4, "shape": [3, 8, 8], "activation": a}, (3, 8, 8)) for a in ("tanh", "gated")],
    (DCGANGenerator, {"width": 4, "shape": [3, 32, 32], "norm": "none", "constant_width": True}, (3, 32, 32)),
    *[(TaperedResNetGenerator, {"width": 4, "shape": [c, s, s]}, (c, s, s)) for c, s in ((1, 8), (1, 28), (3, 64))],
    (TaperedResNetGenerator, {"width": 4, "shape": [3, 8, 8], "norm": "layer"}, (3, 8, 8)),
    *[
        (BottleneckGenerator, {"width": w, "shape": [c, s, s]}, (c, s, s))
        for w, c, s in ((16, 1, 8), (16, 1, 28), (64, 3, 64))
    ],
    (BottleneckGenerator, {"width": 16, "shape": [3, 8, 8], "norm": "none"}, (3, 8, 8)),
    (ResNetGenerator, {"width": 4, "shape": [3, 8, 8], "skip": "identity"}, (3, 8, 8)),
    *[(ResNetGenerator, {"width": 4, "shape": [c, s, s]}, (c, s, s)) for c, s in ((1, 8), (1, 28), (3, 32), (3, 64))],
]
DISCRIMINATORS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (ToyDiscriminator, {"width": 16}, (2,)),
    (ToyDiscriminator, {"width": 16, "depth": 1, "shape": [1, 8, 8]}, (1, 8, 8)),
    (MNISTCritic, {"width": 4}, (1, 28, 28)),
    (MNISTCritic, {"width": 4, "batch_norm": True}, (1, 28, 28)),
    (PrimalDualDiscriminator, {"width": 4, "dropout": 0.0}, (1, 28, 28)),
    (CIFARCritic, {"width": 4}, (3, 32, 32)),
    (CIFARCritic, {"width": 4, "batch_norm": True}, (3, 32, 32)),
    *[(DCGANDiscriminator, {"width": 4, "shape": [1, s, s]}, (1, s, s)) for s in (8, 16, 28, 32, 64)],
    *[(DCGANDiscriminator, {"width": 4, "shape": [3, 8, 8], "norm": n}, (3, 8, 8)) for n in NORMS],
    *[
        (ResNetDiscriminator, {"width": 4, "shape": [c, s, s]}, (c, s, s))
        for c, s in ((1, 8), (1, 28), (3, 32), (3, 64))
    ],
    *[(ResNetDiscriminator, {"width": 4, "shape": [3, 8, 8], "norm": n}, (3, 8, 8)) for n in NORMS],
    (ResNetDiscriminator, {"width": 4, "shape": [3, 8, 8], "pool": "sum", "init": "kaiming"}, (3, 8, 8)),
    *[
        (DCGANDiscriminator, {"width": 4, "shape": [3, 8, 8], "activation": a, "norm": n}, (3, 8, 8))
        for a, n in (("tanh", "none"), ("gated", "layer"))
    ],
    *[(TaperedResNetDiscriminator, {"width": 4, "shape": [c, s, s]}, (c, s, s)) for c, s in ((1, 28), (3, 64))],
    *[(TaperedResNetDiscriminator, {"width": 4, "shape": [3, 8, 8], "norm": n}, (3, 8, 8)) for n in NORMS],
    *[(BottleneckDiscriminator, {"width": w, "shape": [c, s, s]}, (c, s, s)) for w, c, s in ((16, 1, 28), (64, 3, 64))],
    *[
        (BottleneckDiscriminator, {"width": 16, "shape": [3, 8, 8], "norm": n}, (3, 8, 8))
        for n in ("none", "batch", "layer")
    ],
]
CLASSIFIERS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (cls, {"shape": [c, s, s], "num_classes": 7}, (c, s, s))
    for cls in (LeNet, ResNetClassifier)
    for c, s in ((1, 8), (1, 28), (3, 32))
]
EVERY = GENERATORS + DISCRIMINATORS + CLASSIFIERS


def named(cases: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]]) -> dict[str, Any]:
    """Arguments for ``parametrize``, with readable names."""
    ids = [f"{cls.__name__}-{'-'.join(f'{k}={v}' for k, v in kwargs.items())}" for cls, kwargs, _ in cases]
    return {"argnames": "cls, kwargs, shape", "argvalues": cases, "ids": ids}


def inputs(net: nn.Module, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A batch of what `net` takes: noise or images."""
    shape = (net.latent_dim,) if hasattr(net, "latent_dim") else net.shape
    return torch.randn(n, *shape, dtype=dtype)  # type: ignore[misc]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def has_batch_norm(net: nn.Module) -> bool:
    return any(isinstance(m, BATCH_NORMS) for m in net.modules())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (ToyGenerator, 527_874),
        (ToyDiscriminator, 527_361),
        (lambda: ToyGenerator(shape=(1,), latent_dim=1, width=32, depth=1), 97),
        (lambda: ToyDiscriminator(shape=(1,), width=32, depth=1), 97),
        (MNISTGenerator, 1_554_177),
        (MNISTCritic, 1_030_145),
        (PrimalDualGenerator, 71_361),
        (PrimalDualDiscriminator, 155_137),
        (CIFARGenerator, 5_179_907),
        (CIFARCritic, 4_114_689),
        (DCGANGenerator, 3_576_707),
        (DCGANDiscriminator, 2_765_633),
        (ResNetGenerator, 1_204_483),
        (ResNetDiscriminator, 1_053_825),
        (lambda: ResNetGenerator(width=256), 4_276_739),  # SN-GAN
        (lambda: ResNetDiscriminator(pool="sum"), 1_053_824),
        (lambda: ResNetGenerator(width=256, skip="identity"), 4_079_363),  # PRC-GAN: G, critic, classifier
        (lambda: ResNetDiscriminator(width=332, dropout=(0.2, 0.5, 0.5)), 7_067_949),
        (lambda: ResNetDiscriminator(width=332, norm="batch"), 7_071_933),
        (TaperedResNetGenerator, 8_541_443),
        (TaperedResNetDiscriminator, 7_492_801),
        (BottleneckGenerator, 8_665_907),
        (BottleneckDiscriminator, 7_618_801),
        (LeNet, 422_154),
        (ResNetClassifier, 308_650),
    ],
)
def test_parameter_counts(net: Callable[[], nn.Module], parameters: int) -> None:
    assert count(net()) == parameters


COUNTED = [ToyGenerator, ToyDiscriminator, MNISTGenerator, MNISTCritic, CIFARGenerator]
COUNTED += [PrimalDualGenerator, PrimalDualDiscriminator, TaperedResNetGenerator, TaperedResNetDiscriminator]
COUNTED += [BottleneckGenerator, BottleneckDiscriminator]


@pytest.mark.parametrize("cls", COUNTED)
def test_docstring_states_the_parameter_count(cls: type[nn.Module]) -> None:
    assert f"{count(cls()):,}".replace(",", " ") in (cls.__doc__ or "")


@pytest.mark.parametrize(**named(GENERATORS))
def test_generator_output(cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    net = cls(**json.loads(json.dumps(kwargs)))
    assert net.shape == shape and net.num_classes is None
    assert net(inputs(net, 5)).shape == (5, *shape)
    if cls is ToyGenerator:
        return
    last = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))][-1]
    with torch.no_grad():
        last.weight.mul_(1e6)  # drives the output to its bounds
        x = net(inputs(net, 5))
    assert x.min() == (0 if cls is MNISTGenerator else -1) and x.max() == 1


@pytest.mark.parametrize(**named(DISCRIMINATORS))
def test_discriminator_output(cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    net = cls(**json.loads(json.dumps(kwargs)))
    assert net.shape == shape and net.num_classes is None
    scores = net(inputs(net, 5))
    assert scores.shape == (5,) and scores.std() > 0


@pytest.mark.parametrize(**named(CLASSIFIERS))
def test_classifier_output(cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    net = cls(**kwargs).eval()
    x = inputs(net, 5)
    features = net.features(x)
    assert features.shape == (5, 128) and net(x).shape == (5, 7)
    assert torch.equal(net(x), net.logits(features))
    assert features.min() >= 0 and features.std() > 0


@pytest.mark.parametrize("cls", [LeNet, ResNetClassifier])
def test_classifier_learns_where_a_bright_square_is(cls: type[nn.Module]) -> None:
    net = cls(shape=(1, 8, 8), num_classes=4)
    labels = torch.arange(64) % 4
    x = -torch.ones(64, 1, 8, 8) + 0.3 * torch.randn(64, 1, 8, 8)
    for image, label in zip(x, labels.tolist()):
        image[0, label // 2 * 4 :, label % 2 * 4 :][:4, :4] += 1
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(net(x[:48]), labels[:48]).backward()
        optimizer.step()
    net.train(cls is ResNetClassifier)  # 15 steps are few for running averages
    assert (net(x[48:]).argmax(1) == labels[48:]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("side", "generator_stages", "last_map"),
    [(8, 1, 4), (12, 1, 6), (16, 2, 8), (20, 2, 5), (28, 2, 7), (32, 3, 8), (64, 4, 8)],
)
def test_resnet_sides(side: int, generator_stages: int, last_map: int) -> None:
    generator, discriminator = ResNetGenerator((1, side, side), width=2), ResNetDiscriminator((1, side, side), width=2)
    assert len(generator.blocks) == generator_stages
    x = generator(torch.randn(2, 128))
    assert x.shape == (2, 1, side, side)
    assert discriminator.blocks(x).shape == (2, 2, last_map, last_map)


def test_resnet_critics_halve_a_rectangle_by_its_shorter_side() -> None:
    critic = ResNetDiscriminator((1, 16, 32), width=2)
    assert critic.blocks(torch.randn(2, 1, 16, 32)).shape == (2, 2, 8, 16)


def test_resnet_bottoms_of_more_than_seven_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the shorter of H and W 4, 5, 6 or 7 times 2, 4, 8 .*, got \(1, 16, 18\)"):
        ResNetGenerator((1, 16, 18), width=2)


def test_resnet_kernels_are_channels_last_and_images_are_as_ever() -> None:
    generator = ResNetGenerator((3, 8, 8), 4, width=4)
    kernels = [p for p in generator.parameters() if p.ndim == 4 and p.shape[-1] > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert generator(torch.randn(2, 4)).is_contiguous()


def channels(layers: nn.Module) -> list[int]:
    """Channels that the children of a network put out, where they say so."""
    outs = []
    for m in layers.children():
        if isinstance(m, (UpBlock, DownBlock, BottleneckBlock)):
            outs.append(m.conv2.out_channels if not isinstance(m, BottleneckBlock) else m.conv3.out_channels)
        elif isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            outs.append(m.out_channels)
    return outs


@pytest.mark.parametrize(
    ("side", "up", "down"),
    [
        (8, [4], [4, 4]),
        (28, [8, 4], [4, 8, 8]),
        (32, [16, 8, 4], [4, 8, 16, 16]),
        (64, [32, 16, 8, 4], [4, 8, 16, 32, 32]),
        (128, [32, 32, 16, 8, 4], [4, 8, 16, 32, 32, 32]),
    ],
)
def test_tapered_widths(side: int, up: list[int], down: list[int]) -> None:
    generator = TaperedResNetGenerator((3, side, side), width=4)
    assert channels(generator.layers) == [*up, 3] and generator.layers[1].unflattened_size[0] == up[0]
    assert channels(TaperedResNetDiscriminator((3, side, side), width=4).layers) == down


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64])
@pytest.mark.parametrize("cls", [BottleneckGenerator, BottleneckDiscriminator])
def test_bottleneck_networks_have_101_layers(cls: type[nn.Module], side: int) -> None:
    net = cls((3, side, side), width=32)
    main = [
        m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and not name.endswith(".skip")
    ]
    assert len(main) == 101
    blocks = [m for m in net.modules() if isinstance(m, BottleneckBlock)]
    changing = [m for m in blocks if not isinstance(m.skip, nn.Identity)]
    assert len(blocks) == 33 and len(changing) == round(math.log2(side // (7 if side == 28 else 4)))


@pytest.mark.parametrize(
    ("side", "up"),
    [
        (64, [32] * 6 + [16] * 7 + [8] * 7 + [4] * 7 + [2] * 6),
        (32, [32] * 8 + [16] * 9 + [8] * 8 + [4] * 8),
        (8, [32] * 16 + [16] * 17),
    ],
)
def test_bottleneck_widths(side: int, up: list[int]) -> None:
    assert channels(BottleneckGenerator((3, side, side), width=32).layers) == [*up, 3]
    down = channels(BottleneckDiscriminator((3, side, side), width=32).layers)
    assert down == [*up[::-1], 32]  # what a generator's block puts out is what the critic's takes


@pytest.mark.parametrize("cls", [BottleneckGenerator, BottleneckDiscriminator])
def test_bottleneck_width_error(cls: type[nn.Module]) -> None:
    message = rf"^({cls.__name__} takes a width that is a multiple of 32 for this shape, got 48|width .* got 0)\.$"
    for width in (48, 0):
        with pytest.raises(ValueError, match=message):
            cls(width=width)


def test_dcgan_constant_width_and_gated_channels() -> None:
    shape = (3, 32, 32)
    assert channels(DCGANGenerator(shape, width=4).layers) == [8, 4, 3]
    assert channels(DCGANGenerator(shape, width=4, constant_width=True).layers) == [4, 4, 3]
    assert channels(DCGANGenerator(shape, width=4, activation="gated").layers) == [16, 8, 3]
    assert channels(DCGANDiscriminator(shape, width=4, activation="gated").layers) == [8, 16, 32]
    for cls in (DCGANGenerator, DCGANDiscriminator):
        norms = [m for m in cls(shape, width=4, activation="gated").modules() if isinstance(m, nn.BatchNorm2d)]
        assert [m.num_features for m in norms] == ([32, 16, 8] if cls is DCGANGenerator else [16, 32])


@pytest.mark.parametrize("cls", [DCGANGenerator, DCGANDiscriminator])
def test_dcgan_activations(cls: type[nn.Module]) -> None:
    hidden = 3
    for activation, kind in (("tanh", nn.Tanh), ("gated", GatedTanh)):
        modules = list(cls((3, 32, 32), width=4, activation=activation).modules())
        output = cls is DCGANGenerator and activation == "tanh"
        assert sum(isinstance(m, kind) for m in modules) == hidden + output
        assert not any(isinstance(m, (nn.ReLU, nn.LeakyReLU)) for m in modules)


def test_gated_tanh() -> None:
    x = torch.tensor([[[[0.0]], [[math.log(3)]], [[1.0]], [[-2.0]]]], dtype=torch.float64)  # sigmoid(ln 3) = 3/4
    expected = torch.tensor([0.5 * math.tanh(1), -0.75 * math.tanh(2)], dtype=torch.float64)
    assert torch.allclose(GatedTanh()(x).flatten(), expected, atol=1e-15)


# ------------------------------------------------------------------------------------------------- initialisation


def assert_uniform(weight: Tensor, std: float) -> None:
    """Uniform on +-sqrt(3) std: the bound is hardly missed, and the second and fourth moments are right to 4 errors."""
    bound, n = math.sqrt(3) * std, weight.numel()
    assert (1 - 20 / n) * bound < weight.abs().max() <= bound * (1 + 1e-6)
    scaled = weight.double() / bound
    assert (scaled**2).mean().item() == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / n))
    assert scaled.mean().item() == pytest.approx(0, abs=4 * math.sqrt(1 / 3 / n))


def test_glorot_of_the_wgan_gp_code() -> None:
    he = math.sqrt(2)
    assert_uniform(glorot_(nn.Linear(300, 200)).weight, math.sqrt(2 / 500))
    assert_uniform(glorot_(nn.Conv2d(20, 60, 3)).weight, math.sqrt(2 / (9 * 80)))
    assert_uniform(glorot_(nn.Conv2d(20, 60, 3), he).weight, math.sqrt(4 / (9 * 80)))
    assert_uniform(glorot_(nn.Conv2d(20, 60, 5, stride=2), he).weight, math.sqrt(4 / (25 * 20 + 25 * 60 / 4)))
    assert_uniform(glorot_(nn.ConvTranspose2d(20, 60, 5, stride=2), he).weight, math.sqrt(4 / (25 * 20 / 4 + 25 * 60)))
    assert glorot_(nn.Conv2d(2, 2, 3, bias=False)).bias is None


@pytest.mark.parametrize("cls", [ToyGenerator, ToyDiscriminator])
def test_toy_initialisation(cls: type[nn.Module]) -> None:
    linears = [m for m in cls().modules() if isinstance(m, nn.Linear)]
    for hidden in linears[:-1]:
        assert_uniform(hidden.weight, math.sqrt(2 / hidden.in_features))
    last = linears[-1]
    assert_uniform(last.weight, math.sqrt(2 / (last.in_features + last.out_features)))
    assert all(not m.bias.any() for m in linears)


@pytest.mark.parametrize("cls", [MNISTGenerator, MNISTCritic, CIFARGenerator, CIFARCritic])
def test_small_wgan_gp_initialisation(cls: type[nn.Module]) -> None:
    convolutions = linears = 0
    for m in cls(width=32).modules():
        if isinstance(m, nn.Linear):
            assert_uniform(m.weight, math.sqrt(2 / (m.in_features + m.out_features)))
            linears += 1
        elif isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            fan_in, fan_out = 25 * m.in_channels, 25 * m.out_channels
            transposed = isinstance(m, nn.ConvTranspose2d)
            assert_uniform(m.weight, math.sqrt(4 / (fan_in / 4 + fan_out if transposed else fan_in + fan_out / 4)))
            assert m.bias is not None and not m.bias.any()
            convolutions += 1
    assert (convolutions, linears) == (3, 1)


@pytest.mark.parametrize("net", [ResNetGenerator, ResNetDiscriminator])
def test_resnet_initialisation(net: Callable[[], nn.Module]) -> None:
    seen = set()
    for name, m in net().named_modules():
        if isinstance(m, nn.Conv2d):
            taps = m.kernel_size[0] ** 2
            he = name.endswith(("conv1", "conv2"))
            assert_uniform(m.weight, math.sqrt((4 if he else 2) / (taps * (m.in_channels + m.out_channels))))
            assert m.bias is not None and not m.bias.any()
            seen.add((taps, he))
        elif isinstance(m, nn.Linear):
            assert_uniform(m.weight, math.sqrt(2 / (m.in_features + m.out_features)))
    assert seen == ({(9, True), (9, False), (1, False)} if net is ResNetGenerator else {(9, True), (1, False)})


def test_resnet_kaiming_initialisation() -> None:
    for name, m in ResNetDiscriminator(width=64, init="kaiming").named_modules():
        if name.endswith(("conv1", "conv2")):
            assert_uniform(m.weight, math.sqrt(2 / (9 * m.out_channels)))
        elif isinstance(m, (nn.Conv2d, nn.Linear)):
            taps = m.weight[0, 0].numel()
            assert_uniform(m.weight, math.sqrt(2 / (taps * (m.weight.shape[0] + m.weight.shape[1]))))


@pytest.mark.parametrize(
    "net", [TaperedResNetGenerator, TaperedResNetDiscriminator, BottleneckGenerator, BottleneckDiscriminator]
)
def test_deep_resnet_initialisation(net: Callable[[], nn.Module]) -> None:
    gains = set()
    for name, m in net().named_modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            he = name.endswith(("conv1", "conv2", "conv3"))
            taps = m.weight[0, 0].numel()
            assert_uniform(m.weight, math.sqrt((4 if he else 2) / (taps * (m.weight.shape[0] + m.weight.shape[1]))))
            assert (m.bias is None) == name.endswith("conv3") and (m.bias is None or not m.bias.any())
            gains.add((isinstance(m, nn.Linear), he))
    assert gains == {(True, False), (False, False), (False, True)}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("cls", [DCGANGenerator, DCGANDiscriminator])
def test_dcgan_initialisation(cls: type[nn.Module], norm: str) -> None:
    net = cls(shape=(3, 32, 32), norm=norm, num_classes=10)
    for m in net.modules():
        weight, bias = getattr(m, "weight", None), getattr(m, "bias", None)
        if isinstance(weight, nn.Parameter):
            gain = weight.ndim == 1
            assert weight.mean().item() == pytest.approx(float(gain), abs=4 * 0.02 / math.sqrt(weight.numel()))
            assert weight.std().item() == pytest.approx(0.02, rel=4 / math.sqrt(2 * weight.numel()))
            assert weight.abs().max() > 0.02 * math.sqrt(3) + gain  # not uniform
        if isinstance(bias, nn.Parameter):
            assert not bias.any()


# ------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("side", [7, 8])
def test_same_convolution_pads_like_tensorflow(side: int) -> None:
    conv = SameConv2d(1, 1).double()
    x = torch.randn(1, 1, side, side, dtype=torch.float64)
    out = math.ceil(side / 2)
    before = max((out - 1) * 2 + 5 - side, 0) // 2  # TensorFlow's rule
    assert before == (1 if side == 8 else 2)
    expected = torch.zeros(out, out, dtype=torch.float64)
    for i in range(out):
        for j in range(out):
            for k in range(5):
                for m in range(5):
                    row, column = 2 * i - before + k, 2 * j - before + m
                    if 0 <= row < side and 0 <= column < side:
                        expected[i, j] += conv.weight[0, 0, k, m].detach() * x[0, 0, row, column]
    assert torch.allclose(conv(x)[0, 0], expected + conv.bias.detach()[0], atol=1e-12)  # type: ignore[index]


def test_same_convolution_of_a_wide_image_pads_each_side_by_its_own_rule() -> None:
    conv = SameConv2d(1, 1).double()
    x = torch.randn(1, 1, 8, 7, dtype=torch.float64)
    assert torch.allclose(conv(x), F.conv2d(F.pad(x, (2, 2, 1, 2)), conv.weight, conv.bias, 2), atol=1e-12)


def test_same_transposed_convolution_is_the_adjoint() -> None:
    conv, deconv = SameConv2d(3, 2).double(), SameConvTranspose2d(2, 3).double()
    x, y = torch.randn(1, 3, 14, 14, dtype=torch.float64), torch.randn(1, 2, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        deconv.weight.copy_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.zeros_(deconv.bias)  # type: ignore[arg-type]
        assert deconv(y).shape == x.shape
        assert (conv(x) * y).sum().item() == pytest.approx((x * deconv(y)).sum().item(), rel=1e-12)


def test_layer_norm_is_over_chw_with_an_affine_map_per_channel() -> None:
    norm = LayerNorm(3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + 2 * torch.randn(4, 3, 5, 6, dtype=torch.float64)
    plain = F.layer_norm(x, (3, 5, 6), eps=norm.eps)
    expected = plain * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(norm(x), expected, atol=1e-12)
    assert norm.weight.shape == norm.bias.shape == (3,)


@pytest.mark.parametrize(
    ("name", "dims"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("instance", (2, 3)), ("group", (2, 3, 4))]
)
def test_norms_standardise_over_the_stated_dimensions(name: Any, dims: tuple[int, ...]) -> None:
    norm = make_norm(name, 32).double()
    y = norm(3 + 2 * torch.randn(4, 32, 6, 6, dtype=torch.float64))
    y = y.unflatten(1, (2, 16)) if name == "group" else y
    assert torch.allclose(y.mean(dims), torch.zeros(1, dtype=y.dtype), atol=1e-8)
    assert torch.allclose(y.var(dims, unbiased=False), torch.ones(1, dtype=y.dtype), atol=1e-4)
    assert count(norm) == 64


@pytest.mark.parametrize("channels", [3, 8, 24, 40, 64, 100])
def test_group_norm_accepts_any_number_of_channels(channels: int) -> None:
    norm = make_norm("group", channels)
    assert isinstance(norm, nn.GroupNorm) and channels / norm.num_groups >= min(channels, 16)


def test_no_norm_is_the_identity_and_an_unknown_one_an_error() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(make_norm("none", 3)(x), x)
    with pytest.raises(ValueError, match=r"^norm must be one of none, batch, .*, group, got 'spectral'\.$"):
        make_norm("spectral", 3)  # type: ignore[arg-type]


def test_conditional_batch_norm() -> None:
    norm = ConditionalBatchNorm2d(3, 5).double()
    x, labels = 3 + 2 * torch.randn(6, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    plain = F.batch_norm(x, None, None, training=True)
    assert torch.allclose(norm(x, labels), plain, atol=1e-12)  # gains 1 and offsets 0 at first
    nn.init.normal_(norm.gain.weight)
    nn.init.normal_(norm.offset.weight)
    y = norm(x, labels)
    for i, label in enumerate(labels):
        gain, offset = norm.gain.weight[label, :, None, None], norm.offset.weight[label, :, None, None]
        assert torch.allclose(y[i], gain * plain[i] + offset, atol=1e-12)
    norm.eval()  # running averages: a sample no longer depends on its batch
    assert torch.allclose(norm(x, labels)[:1], norm(x[:1], labels[:1]), atol=1e-12)


def test_projection_head() -> None:
    head = ProjectionHead(6, 4).double()
    h, labels = torch.randn(3, 6, dtype=torch.float64), torch.tensor([2, 0, 2])
    assert head.embedding is not None
    expected = [head.score(h[i])[0] + head.embedding.weight[y] @ h[i] for i, y in enumerate(labels)]
    assert torch.allclose(head(h, labels), torch.stack(expected), atol=1e-12)
    assert ProjectionHead(6).embedding is None and ProjectionHead(6).score.bias is not None
    assert ProjectionHead(6, bias=False).score.bias is None
    torch.manual_seed(0)
    drawn = ProjectionHead(60, 40).embedding
    assert drawn is not None and 0.9 < float(drawn.weight.abs().max()) / math.sqrt(6 / (60 + 40)) <= 1  # Glorot's


def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A layer's convolution without what is folded into it."""
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.padding)


@torch.no_grad()
def test_residual_blocks_follow_the_card() -> None:
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    up2 = nn.Upsample(scale_factor=2)
    up = UpBlock(4, 3).double().eval()
    h = up.conv2(up.norm2(conv(up.conv1, up2(up.norm1(x).relu()))).relu())
    assert h.shape == (2, 3, 16, 16) and torch.allclose(up(x), conv(up.skip, up2(x)) + h, atol=1e-12)
    up = UpBlock(4, 4, "layer", skip="identity").double()
    h = up.conv2(up.norm2(conv(up.conv1, up2(up.norm1(x).relu()))).relu())
    assert torch.allclose(up(x), up2(x) + h, atol=1e-12)
    down = DownBlock(4, 6, "layer").double()
    h = F.avg_pool2d(conv(down.conv2, down.norm2(down.conv1(down.norm1(x).relu())).relu()), 2)
    assert torch.allclose(down(x), F.avg_pool2d(conv(down.skip, x), 2) + h, atol=1e-12)
    plain = PlainBlock(4, "instance").double()
    h = plain.conv2(plain.norm2(plain.conv1(plain.norm1(x).relu())).relu())
    assert torch.allclose(plain(x), x + h, atol=1e-12)
    first = ImageBlock(4, 6).double()
    h = F.avg_pool2d(conv(first.conv2, first.conv1(x).relu()), 2)
    assert torch.allclose(first(x), conv(first.skip, F.avg_pool2d(x, 2)) + h, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("c_out", [2, 4, 8])
def test_bottleneck_block_follows_the_card(c_out: int) -> None:
    x, block = torch.randn(2, 4, 8, 8, dtype=torch.float64), BottleneckBlock(4, c_out, "layer").double()
    nn.init.normal_(block.norm.weight)
    before, after = nn.Identity(), nn.Identity()
    if c_out == 2:
        before = nn.Upsample(scale_factor=2)
    if c_out == 8:
        after = nn.AvgPool2d(2)
    assert block.conv1.out_channels == 2 and block.conv2.out_channels == c_out // 2
    h = after(conv(block.conv2, before(block.conv1(x.relu()).relu())))
    h = block.norm(block.conv3(h.relu()))
    skip = x if c_out == 4 else after(conv(block.skip, before(x)))
    assert torch.allclose(block(x), skip + 0.3 * h, atol=1e-12)


@torch.no_grad()
def test_bottleneck_outputs_are_divided_by_five() -> None:
    generator, critic = BottleneckGenerator((3, 8, 8), width=8).double(), BottleneckDiscriminator((3, 8, 8), width=8)
    z, x = inputs(generator, 2, torch.float64), inputs(critic.double(), 2, torch.float64)
    assert torch.allclose(generator(z), (generator.layers(z) / 5).tanh(), atol=1e-12)
    assert torch.allclose(critic(x), critic.head.score(critic.layers(x).flatten(1))[:, 0] / 5, atol=1e-12)


def test_dcgan_dropout() -> None:
    """After every activation, in training only; none by default."""
    net = DCGANDiscriminator(shape=(1, 8, 8), width=4, norm="none", dropout=0.5)
    kinds = [type(m) for m in net.layers if isinstance(m, (nn.LeakyReLU, nn.Dropout))]
    assert kinds == [nn.LeakyReLU, nn.Dropout] * 2
    x = torch.randn(16, 1, 8, 8)
    assert not torch.equal(net(x), net(x)) and torch.equal(net.eval()(x), net(x))
    assert not any(isinstance(m, nn.Dropout) for m in DCGANDiscriminator(shape=(1, 8, 8)).modules())
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1"):
        DCGANDiscriminator(dropout=1.0)


def test_resnet_dropout() -> None:
    """In training only, after the last three blocks, without a trace in the state dict."""
    torch.manual_seed(0)
    net, plain = (
        ResNetDiscriminator((3, 8, 8), width=4, dropout=(0.2, 0.5, 0.5)),
        ResNetDiscriminator((3, 8, 8), width=4),
    )
    plain.load_state_dict(net.state_dict())
    assert ResNetDiscriminator(width=4, dropout=(0.2, 0.5, 0.5)).dropout == [0.0, 0.2, 0.5, 0.5]
    x = inputs(net, 2, torch.float32)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), plain(x))
    for wrong in ((1.0, 0.5, 0.5), (0.5, 0.5)):
        with pytest.raises(ValueError, match=re.escape(f"dropout must be three shares in [0, 1), got {wrong}")):
            ResNetDiscriminator((3, 8, 8), width=4, dropout=wrong)  # type: ignore[arg-type]


@torch.no_grad()
def test_resnet_head_is_a_mean_over_positions() -> None:
    net = ResNetDiscriminator((3, 32, 32), width=8).double()
    x = inputs(net, 2, torch.float64)
    h = net.blocks(x).relu().mean((2, 3))
    assert torch.allclose(net(x), net.head.score(h)[:, 0], atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("num_classes", [None, 5])
def test_resnet_sum_pooling_is_64_times_the_mean_at_8_by_8(num_classes: int | None) -> None:
    mean, total = (ResNetDiscriminator(width=8, pool=p, num_classes=num_classes).double() for p in ("mean", "sum"))
    missing, unexpected = total.load_state_dict(mean.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["head.score.bias"])
    x = inputs(mean, 3, torch.float64)
    labels = () if num_classes is None else (torch.arange(3),)
    assert torch.allclose(total(x, *labels), 64 * mean(x, *labels), rtol=1e-12)  # the bias is 0 at first


# ------------------------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize(**named(DISCRIMINATORS))
def test_samples_are_coupled_by_batch_norm_only(
    cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    norm = kwargs.get("norm", "batch" if cls is DCGANDiscriminator or kwargs.get("batch_norm") else "none")
    net = cls(**kwargs).double()
    x = inputs(net, 4, torch.float64)
    alone = torch.cat([net(one) for one in x.split(1)])
    assert has_batch_norm(net) == (norm == "batch")
    assert torch.allclose(net(x), alone, atol=1e-10) == (norm != "batch")


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (MNISTGenerator(width=2), 0),
        (MNISTGenerator(width=2, batch_norm=True), 3),
        (MNISTCritic(width=2, batch_norm=True), 2),
        (CIFARGenerator(width=2), 3),
        (CIFARCritic(width=2, batch_norm=True), 2),
        (DCGANGenerator((1, 64, 64), width=2), 4),
        (DCGANDiscriminator((1, 64, 64), width=2), 3),
        (ResNetGenerator(width=2), 7),
        (ResNetDiscriminator(width=2, norm="batch"), 6),
        (TaperedResNetGenerator(width=2), 9),
        (TaperedResNetDiscriminator(width=2, norm="batch"), 8),
        (BottleneckGenerator(width=32), 33),
        (BottleneckDiscriminator(width=32, norm="batch"), 33),
    ],
)
def test_number_of_batch_norms(net: nn.Module, expected: int) -> None:
    assert sum(isinstance(m, BATCH_NORMS) for m in net.modules()) == expected


def test_layers_of_the_mnist_networks_come_in_the_order_of_the_card() -> None:
    generator, critic = MNISTGenerator(width=2, batch_norm=True), MNISTCritic(width=2, batch_norm=True)
    up, down = ["BatchNorm2d", "ReLU"], ["SameConv2d", "BatchNorm2d", "LeakyReLU"]
    head = ["Linear", "BatchNorm1d", "ReLU", "Unflatten", "SameConvTranspose2d", *up, "_Crop", "SameConvTranspose2d"]
    assert [type(m).__name__ for m in generator.layers] == [*head, *up, "SameConvTranspose2d", "Sigmoid"]
    assert [type(m).__name__ for m in critic.layers] == ["SameConv2d", "LeakyReLU", *down, *down]
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(generator.layers[7](x), x[..., :7, :7])


def test_dcgan_has_no_norm_on_the_generators_output_and_the_discriminators_input() -> None:
    generator, discriminator = DCGANGenerator((1, 32, 32), width=2), DCGANDiscriminator((1, 32, 32), width=2)
    assert [type(m) for m in generator.layers][-2:] == [nn.ConvTranspose2d, nn.Tanh]
    assert [type(m) for m in discriminator.layers][:2] == [nn.Conv2d, nn.LeakyReLU]


@pytest.mark.parametrize("cls", [DCGANDiscriminator, MNISTCritic, CIFARCritic])
def test_slope_of_the_leaky_relus(cls: type[nn.Module]) -> None:
    slopes = [m.negative_slope for m in cls(width=2).modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.2] * (4 if cls is DCGANDiscriminator else 3)


# ------------------------------------------------------------------------------------------------- conditioning


@pytest.mark.parametrize(**named(GENERATORS + DISCRIMINATORS))
def test_labels_reach_the_output_and_learn(
    cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    net = cls(**kwargs, num_classes=5).double()
    assert net.num_classes == 5
    if cls is ResNetGenerator:  # all classes start equal: gains 1, offsets 0
        for m in net.modules():
            if isinstance(m, ConditionalBatchNorm2d):
                nn.init.normal_(m.gain.weight, 1, 0.1)
    x = inputs(net, 6, torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    net.eval()
    y, other = net(x, labels), net(x, labels.roll(1))
    assert y.shape == ((6, *shape) if hasattr(net, "latent_dim") else (6,))
    assert ((y - other).flatten(1) if y.ndim > 1 else (y - other)[:, None]).abs().amax(1).min() > 1e-9
    net.train()
    net(x, labels).square().sum().backward()
    for name, parameter in net.named_parameters():
        if "embedding" in name or "gain" in name or "offset" in name:
            assert parameter.grad is not None
            assert (parameter.grad.abs().amax(1) > 0).tolist() == [True, True, True, True, False], name


def test_resnet_generator_conditions_all_norms_but_the_last() -> None:
    net = ResNetGenerator(width=4, num_classes=3)
    assert sum(isinstance(m, ConditionalBatchNorm2d) for m in net.modules()) == 6
    assert isinstance(net.norm, nn.BatchNorm2d) and net.norm.affine


@pytest.mark.parametrize("kind", [GENERATORS[:1] + GENERATORS[2:3] + GENERATORS[4:6] + GENERATORS[-1:], DISCRIMINATORS])
def test_label_errors(kind: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]]) -> None:
    for cls, kwargs, _ in kind:
        name, labels = cls.__name__, torch.zeros(4, dtype=torch.int64)
        conditional, unconditional = cls(**kwargs, num_classes=3), cls(**kwargs)
        x = inputs(conditional, 4)
        with pytest.raises(ValueError, match=rf"^{name} is conditional .* and needs labels, got none\.$"):
            conditional(x)
        with pytest.raises(ValueError, match=rf"^{name} is unconditional .* takes no labels, got \(4,\)\.$"):
            unconditional(x, labels)
        with pytest.raises(ValueError, match=rf"^{name} takes labels of shape \(4,\) and dtype int64, got \(3,\) "):
            conditional(x, labels[:3])
        with pytest.raises(ValueError, match=rf"^{name} takes labels of shape .* got \(4,\) torch.float32\.$"):
            conditional(x, labels.float())


# ------------------------------------------------------------------------------------------------- contract of all


@pytest.mark.parametrize(**named(EVERY))
def test_wrong_input_shape_is_one_sentence(
    cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    net = cls(**kwargs)
    right = inputs(net, 2)
    for wrong in (torch.zeros(2, *right.shape[1:-1], right.shape[-1] + 1), right[0], right[None]):
        with pytest.raises(ValueError) as error:
            net(wrong)
        message = str(error.value)
        expected = ", ".join(map(str, right.shape[1:]))
        assert message == f"{cls.__name__} takes an input of shape (N, {expected}), got {tuple(wrong.shape)}."


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DCGANGenerator((3, 18, 48)), r"^DCGANGenerator takes .* multiples of 4 from 16 on, or both 8, got"),
        (lambda: DCGANDiscriminator((3, 32, 30)), r"^DCGANDiscriminator takes .* both 8, got \(3, 32, 30\)\.$"),
        (lambda: DCGANDiscriminator((32, 32)), r"^DCGANDiscriminator takes .* both 8, got \(32, 32\)\.$"),
        (lambda: DCGANGenerator((3, 8, 8), norm="spectral"), r"^norm must be one of"),  # type: ignore[arg-type]
        (lambda: ResNetGenerator((3, 18, 18)), r"^ResNetGenerator takes shape=\(C, H, W\) .* got \(3, 18, 18\)\.$"),
        (lambda: ResNetDiscriminator((3, 7, 7)), r"^ResNetDiscriminator takes shape=.* got \(3, 7, 7\)\.$"),
        (lambda: ResNetDiscriminator((3, 32, 63)), r"^ResNetDiscriminator takes shape=.* got \(3, 32, 63\)\.$"),
        (lambda: TaperedResNetGenerator((3, 18, 18)), r"^TaperedResNetGenerator takes .* got \(3, 18, 18\)\.$"),
        (lambda: TaperedResNetDiscriminator((3, 7, 7)), r"^TaperedResNetDiscriminator takes .* got \(3, 7, 7\)\.$"),
        (lambda: BottleneckGenerator((3, 4, 4)), r"^BottleneckGenerator takes shape=.* got \(3, 4, 4\)\.$"),
        (lambda: BottleneckDiscriminator((3, 8)), r"^BottleneckDiscriminator takes shape=.* got \(3, 8\)\.$"),
        (lambda: LeNet((28, 28)), r"^LeNet takes shape=\(C, H, W\) .* got \(28, 28\)\.$"),
        (lambda: ResNetClassifier((1, 2, 8)), r"^ResNetClassifier takes shape=.* got \(1, 2, 8\)\.$"),
    ],
)
def test_impossible_shapes_are_one_sentence(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert str(error.value).count("\n") == 0 and str(error.value).endswith(".")


NEEDED: dict[str, dict[str, Any]] = {
    "Attention": {"width": 8},
    "ConditionalBatchNorm2d": {"channels": 4, "num_classes": 3},
    "LayerNorm": {"channels": 4},
    "LeakGANGenerator": {"discriminator": networks.SeqGANDiscriminator(filters=2)},
    "ModulatedConv2d": {"channels": 4, "out": 4, "kernel": 3},
    "ProjectionHead": {"features": 4},
    "RelationalMemory": {"inputs": 8},
    "TransformerBlock": {"width": 8, "heads": 2},
}
NONE_WILL_DO = {
    "blocks": ("PerceiverCritic", "R3Generator", "R3Discriminator"),
    "classes": ("StyleEncoder",),
    "passed": ("StyleGenerator",),
}


@pytest.mark.parametrize("name", [name for name in networks.__all__ if name[0].isupper()])
def test_sizes_that_make_no_network_are_one_sentence(name: str) -> None:
    """Whatever counts or measures, by the types of the arguments: of new networks too."""
    for argument in inspect.signature(cls := getattr(networks, name)).parameters.values():
        bad: list[Any] = []
        if argument.annotation in ("int", "int | None", "int | Sequence[int]"):
            bad += [-1] if name in NONE_WILL_DO.get(argument.name, ()) else [0]
        if argument.annotation in ("tuple[int, ...]", "Sequence[int]", "int | Sequence[int]"):
            bad += [(), (0,)]
        for value in bad:
            with pytest.raises(ValueError, match=rf"\b{argument.name}\b.* got .*\.$"):
                cls(**NEEDED.get(name, {}) | {argument.name: value})


@pytest.mark.parametrize(
    ("cls", "argument", "choices"),
    [
        (ResNetGenerator, "skip", "conv, identity"),
        (ResNetDiscriminator, "pool", "mean, sum"),
        (ResNetDiscriminator, "init", "glorot, kaiming"),
        (DCGANGenerator, "activation", "relu, tanh, gated"),
        (DCGANDiscriminator, "activation", "relu, tanh, gated"),
    ],
)
def test_unknown_choices_are_one_sentence(cls: type[nn.Module], argument: str, choices: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} must be one of {choices}, got 'other'\.$"):
        cls(**{argument: "other"})


@pytest.mark.parametrize(**named(EVERY))
def test_every_parameter_gets_a_gradient_in_float64(
    cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    net = cls(**kwargs).double()
    if cls is DCGANGenerator and kwargs["shape"][1] == 64:
        net.eval()  # keeps the gradient of 4 stacked norms away from rounding
    y = net(inputs(net, 8, torch.float64))
    assert y.dtype == torch.float64
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(**named(DISCRIMINATORS))
def test_gradient_penalty_differentiates_twice(
    cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    net = cls(**kwargs).double()
    x = inputs(net, 4, torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    (gradient.flatten(1).norm(dim=1) - 1).square().mean().backward()
    weights = [p for name, p in net.named_parameters() if p.ndim > 1]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0 for p in weights)


@pytest.mark.parametrize(**named(EVERY))
def test_pickle_and_state_dict_round_trips(
    cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    net = cls(**kwargs)
    x = inputs(net, 4)
    net(x)  # moves running averages off their initial values
    net.eval()
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    fresh = cls(**kwargs)
    fresh.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    for copy in (fresh.eval(), pickle.loads(pickle.dumps(net))):
        assert torch.equal(copy(x), net(x))


@pytest.mark.parametrize("num_classes", [None, 5])
@pytest.mark.parametrize(**named(GENERATORS + DISCRIMINATORS))
def test_bfloat16_autocast_stays_near_float32(
    cls: type[nn.Module], kwargs: dict[str, Any], shape: tuple[int, ...], num_classes: int | None
) -> None:
    net = cls(**kwargs, num_classes=num_classes)
    labels = () if num_classes is None else (torch.arange(8) % num_classes,)
    x = inputs(net, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, *labels)
    exact = net(x, *labels)
    assert torch.isfinite(half).all() and (half.float() - exact).norm() <= 0.1 * exact.norm()


@pytest.mark.parametrize("cls", sorted({cls for cls, _, _ in GENERATORS + DISCRIMINATORS}, key=lambda c: c.__name__))
def test_forward_declares_labels(cls: type[nn.Module]) -> None:
    """What the library's `takes_labels` looks at, and what the command line needs: defaults for all arguments."""
    labels = inspect.signature(cls.forward).parameters["labels"]
    assert labels.default is None
    arguments = inspect.signature(cls).parameters
    assert arguments["num_classes"].default is None and {"width"} <= set(arguments)
    assert all(p.default is not p.empty for p in arguments.values())


def test_class_names_do_not_clash_with_torchvision() -> None:
    """On the command line a class goes by its bare name as long as that is unique among imported modules."""
    torchvision = pytest.importorskip("torchvision")
    theirs = set(dir(torchvision.models)) | set(dir(torchvision.ops)) | set(dir(nn))
    ours = {cls.__name__ for cls, _, _ in EVERY}
    assert ours <= set(networks.__all__) and not ours & theirs


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "instance", "group"])
def test_resnet_generator_with_any_normalisation(norm: Any) -> None:
    net = ResNetGenerator(width=16, norm=norm)
    batch_norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert net(torch.randn(2, 128)).shape == (2, 3, 32, 32)
    assert len(batch_norms) == (7 if norm == "batch" else 0)
    if norm != "batch":
        with pytest.raises(ValueError, match="norm must be 'batch'"):
            ResNetGenerator(norm=norm, num_classes=10)


# ------------------------------------------------------------------------------------------------- primal-dual study


def test_the_printed_generator_is_affine_but_for_dropout() -> None:
    """And with activations it is not."""
    z = torch.randn(2, 4)
    for activations in (False, True):
        net = PrimalDualGenerator(activations=activations).eval()
        with torch.no_grad():
            middle, mean = net(z.mean(0, keepdim=True)), net(z).mean(0, keepdim=True)
        assert torch.allclose(middle, mean, atol=1e-5) is not activations
        assert len([m for m in net.modules() if isinstance(m, nn.Dropout)]) == 3


def test_maps_of_the_study_have_the_printed_sizes() -> None:
    """Its table 2, both columns."""
    sizes: dict[str, list[tuple[int, ...]]] = {"g": [], "d": []}
    for key, net in (("g", PrimalDualGenerator()), ("d", PrimalDualDiscriminator())):
        for layer in net.layers:
            layer.register_forward_hook(lambda _, __, y, key=key: sizes[key].append(tuple(y.shape[1:])))
        net(inputs(net, 2))
    assert list(dict.fromkeys(sizes["d"])) == [(128, 14, 14), (128, 7, 7)]
    g = [(3136,), (64, 7, 7), (64, 14, 14), (32, 14, 14), (32, 28, 28), (1, 28, 28)]
    assert list(dict.fromkeys(sizes["g"])) == g
