"""Wrappers beside spectral norm: differentiable augmentation (arXiv:2006.10738) and weight norm (arXiv:1602.07868)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import build, plain, trainer
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans import WGANGP
from lightning_gans.cli import main
from lightning_gans.functional.conditional import score, takes_labels
from lightning_gans.functional.double_backward.input_gradient import DoubleBackward, double_backward, input_gradient
from lightning_gans.functional.modes import evaluating
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator
from lightning_gans.wrappers import DiffAugment, spectral_norm, weight_norm


class Weighted(nn.Module):
    """f(x) = <w, x>."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return (self.w * x).flatten(1).sum(1)


class Labelled(nn.Module):
    """A conditional network that does not say how many classes it knows."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return x.flatten(1).sum(1) * 0 + labels


def augment(policy: Any, x: Tensor) -> Tensor:
    return DiffAugment(nn.Identity(), policy).augment(x)


def images(*shape: int) -> Tensor:
    """Without a zero, so that those of an augmentation can be told."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1


def fills(values: Tensor, low: float, high: float) -> bool:
    """Whether many values lie in [low, high), evenly."""
    shares = ((values.flatten() - low) / (high - low)).sort().values
    even = torch.linspace(0, 1, len(shares), dtype=shares.dtype)
    return bool(shares[0] >= 0 and shares[-1] < 1) and float((shares - even).abs().max()) < 0.04


# ---------------------------------------------------------------------- what is done to an image
def test_color() -> None:
    """The mean rises by b; the grey image's deviation from it is multiplied by c, that of a pixel from its grey by s c.

    With one channel nothing deviates from grey.
    """
    x = images(4000, 3, 4, 4)
    y = augment("color", x)
    (x_grey, y_grey), (x_mean, y_mean) = ([v.mean(axes, keepdim=True) for v in (x, y)] for axes in (1, (1, 2, 3)))
    c, sc = (y_grey - y_mean) / (x_grey - x_mean), (y - y_grey) / (x - x_grey)
    for factor in (c, sc):
        torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(factor))
    b, c, s = y_mean - x_mean, c[:, :, :1, :1], sc[:, :1, :1, :1] / c[:, :, :1, :1]
    assert fills(b, -0.5, 0.5) and fills(c, 0.5, 1.5) and fills(s, 0, 2)
    assert torch.corrcoef(torch.stack([v.flatten() for v in (b, c, s)])).triu(1).abs().max() < 0.06
    grey = augment("color", x[:, :1])
    factor = (grey - grey.mean((2, 3), keepdim=True)) / (x[:, :1] - x[:, :1].mean((2, 3), keepdim=True))
    torch.testing.assert_close(factor, factor[..., :1, :1].expand_as(factor))
    assert fills(factor[..., 0, 0], 0.5, 1.5)


@pytest.mark.parametrize(("side", "most"), [((8, 8), (1, 1)), ((16, 12), (2, 2)), ((3, 8), (0, 1))])
def test_translation(side: tuple[int, int], most: tuple[int, int]) -> None:
    """Each result is one of the possible shifts of its image, all channels together; each shift is as likely."""
    x = images(1000, 2, *side)
    y = augment("translation", x)
    (h, w), (up, left) = side, most
    padded = F.pad(x, (left, left, up, up))
    windows = [padded[..., i : i + h, j : j + w] for i in range(2 * up + 1) for j in range(2 * left + 1)]
    same = torch.stack([(y == window).flatten(1).all(1) for window in windows], 1)
    assert (same.sum(1) == 1).all()
    share = same.double().mean(0)
    assert share.sub(1 / len(windows)).abs().max() < 0.05


@pytest.mark.parametrize("side", [(8, 8), (5, 6)])
def test_cutout(side: tuple[int, int]) -> None:
    """A rectangle of half of each side about any pixel of the image, cut off at the edge; the rest is as it was."""
    x = images(3000, 2, *side)
    y = augment("cutout", x)
    (h, w), (tall, wide) = side, (round(side[0] / 2 + 1e-6), round(side[1] / 2 + 1e-6))
    masks = torch.ones(h * w, 1, h, w, dtype=torch.bool)
    for i, mask in enumerate(masks):
        top, left = i // w - tall // 2, i % w - wide // 2
        mask[:, max(top, 0) : top + tall, max(left, 0) : left + wide] = False
    centre = (x[:, None, :1] * masks == y[:, None, :1]).flatten(2).all(2)
    assert (centre.sum(1) == 1).all() and centre.any(0).all()
    torch.testing.assert_close(y, x * masks[centre.int().argmax(1)], rtol=0, atol=0)
    assert centre.double().mean(0).sub(1 / (h * w)).abs().max() < 0.03


def test_policy() -> None:
    """In the order given, with one string or several; what was moved in or cut out after the colour stays 0."""
    x = images(20, 3, 8, 8)
    assert DiffAugment(nn.Identity()).policy == ("color", "translation", "cutout")
    for policy in ("color, cutout", ["color", "cutout"]):
        torch.manual_seed(5)
        y = augment(policy, x)
        assert ((y == 0).flatten(1).sum(1) >= 3 * 4).all()
        torch.manual_seed(5)
        torch.testing.assert_close(y, augment("cutout", augment("color", x)), rtol=0, atol=0)
    assert not (augment(("cutout", "color"), x) == 0).any()


def test_precision() -> None:
    """Computed in float32 or better, given back in the images' own."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = images(6, 3, 8, 8).to(dtype)
        torch.manual_seed(0)
        y = augment("color,translation,cutout", x)
        torch.manual_seed(0)
        wide = augment("color,translation,cutout", x.to(torch.promote_types(dtype, torch.float32)))
        assert y.dtype == dtype and torch.equal(y, wide.to(dtype))


# ---------------------------------------------------------------------- gradients
def test_derivatives() -> None:
    def augmented(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return augment("color,translation,cutout", x)

    x = images(2, 2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(augmented, x)
    assert torch.autograd.gradgradcheck(lambda x: augmented(x).square(), x)


@pytest.mark.parametrize("method", ["sparse", "linear", "plain"])
def test_gradient_of_a_penalty(method: DoubleBackward) -> None:
    """The input gradient of <w, T(x)> under a cutout is w outside of the hole: its squared norm has gradient 2 w there.

    A convolutional critic is given the same gradients by every method.
    """
    x, w = images(5, 1, 8, 8), images(1, 8, 8)
    net = DiffAugment(Weighted(w), "cutout")
    with double_backward(method):
        torch.manual_seed(0)
        slope = input_gradient(net, x)
        torch.manual_seed(0)
        kept = augment("cutout", torch.ones_like(x))
        assert 0 < kept.mean() < 1
        torch.testing.assert_close(slope, (kept * w).flatten(1), rtol=0, atol=0)
        (found,) = torch.autograd.grad(slope.square().sum(), net.discriminator.parameters())
        torch.testing.assert_close(found, 2 * w * kept.sum(0))

        critic = DiffAugment(DCGANDiscriminator((1, 8, 8), width=4, norm="none")).double()
        torch.manual_seed(0)
        gradients = torch.autograd.grad(input_gradient(critic, x).square().sum(), list(critic.parameters())[::2])
    torch.manual_seed(0)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(leaf).sum(), leaf, create_graph=True)
    expected = torch.autograd.grad(slope.square().sum(), list(critic.parameters())[::2])
    torch.testing.assert_close(gradients, expected)
    assert all(g.abs().max() > 0 for g in expected)


# ---------------------------------------------------------------------- as a discriminator
def test_evaluation_sees_plain_images() -> None:
    net = DiffAugment(DCGANDiscriminator((1, 8, 8), width=4, norm="none").double())
    x = images(5, 1, 8, 8)
    with evaluating(net):
        before = torch.get_rng_state()
        assert torch.equal(net(x), net.discriminator(x)) and torch.equal(torch.get_rng_state(), before)
    assert (net(x) != net.discriminator(x)).all() and (net(x) != net(x)).all()


def test_state_of_the_plain_network() -> None:
    inner = DCGANDiscriminator((1, 8, 8), width=4)
    net = DiffAugment(inner)
    assert net.state_dict().keys() == {f"discriminator.{key}" for key in inner.state_dict()}
    assert not hasattr(DiffAugment(nn.Identity()), "shape") and net.shape == (1, 8, 8)


def test_labels() -> None:
    """The wrapper takes labels if the network does."""
    x, labels = images(6, 1, 8, 8).float(), torch.arange(6) % 3
    conditional = DiffAugment(DCGANDiscriminator((1, 8, 8), width=4, num_classes=3, norm="none"), "color")
    assert takes_labels(conditional) and conditional.num_classes == 3
    torch.manual_seed(0)
    found = score(conditional, x, labels)
    torch.manual_seed(0)
    torch.testing.assert_close(found, conditional.discriminator(conditional.augment(x), labels))
    for free in (DCGANDiscriminator((1, 8, 8), width=4), nn.Flatten(0)):
        assert not takes_labels(net := DiffAugment(free)) and net.num_classes is None
    unsaid = DiffAugment(Labelled())
    assert takes_labels(unsaid) and not hasattr(unsaid, "num_classes")
    assert score(unsaid, x, labels).tolist() == labels.tolist()
    assert takes_labels(DiffAugment(conditional)) and not takes_labels(DiffAugment(DiffAugment(Weighted(x[0]))))


@pytest.mark.parametrize("name", ["gan", "wgan_gp"])
def test_real_and_fake_are_augmented_in_both_steps(name: str) -> None:
    """What reaches the discriminator is never what was scored, and has holes."""
    torch.manual_seed(1)
    inner = DCGANDiscriminator((1, 8, 8), width=4, norm="none")
    net, seen, scored = DiffAugment(inner, "cutout"), [], []
    module = build(name, DCGANGenerator((1, 8, 8), 3, width=4), net, nn.Identity(), d_steps=1)
    start = {k: v.clone() for k, v in module.state_dict().items()}

    def watch(batch: Any, _: int = 0) -> None:
        inner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        net.register_forward_pre_hook(lambda _, inputs: scored.append(inputs[0].detach()))

    module.on_train_batch_start = watch  # type: ignore[method-assign]
    trainer(max_steps=1).fit(module, plain(shape=(1, 8, 8)))
    used = [(a, b) for a, b in zip(seen, scored) if len(a) == 4 and a.is_floating_point()]
    assert len(seen) == len(scored) and len(used) >= (3 if name == "gan" else 4)
    for y, x in used:
        assert ((y == 0).flatten(1).sum(1) >= 4).all()
        assert torch.equal(y, x.masked_fill(y == 0, 0)) and not torch.equal(y, x)
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, start[k])}
    assert any(k.startswith("generator") for k in moved) and any(k.startswith("discriminator") for k in moved)


@pytest.mark.parametrize("policy", ["", "color,cut", (), ("color", "")])
def test_bad_policy(policy: Any) -> None:
    with pytest.raises(ValueError, match=r"^policy must be one or several of color, translation, cutout, got "):
        DiffAugment(nn.Identity(), policy)


def test_bad_samples() -> None:
    net = DiffAugment(nn.Identity())
    with pytest.raises(ValueError, match=r"^x must be images of shape \(N, C, H, W\) for DiffAugment, got \(4, 2\)"):
        net(torch.zeros(4, 2))


# ---------------------------------------------------------------------- from the command line
def config(discriminator: dict[str, Any]) -> dict[str, Any]:
    nets = {"generator": {"class_path": "DCGANGenerator", "init_args": {"width": 4, "num_classes": 10}},
            "discriminator": discriminator}  # fmt: skip
    return {
        "model": {"class_path": "WGANGP", "init_args": {"latent_dim": 6, "d_steps": 1, **nets}},
        "data": {"class_path": "Digits", "init_args": {"batch_size": 8}},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1, "max_steps": 2},
        "grid": {"every_n_steps": None},
    }


def fit(discriminator: dict[str, Any], *args: str) -> None:
    path = Path("default.yaml").absolute()
    path.write_text(yaml.safe_dump(config(discriminator)))
    main(["fit", "--name=a", *args], default_config=path)


def wrapped(network: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"class_path": "DiffAugment", "init_args": {"discriminator": network, **options}}


CRITIC = {"class_path": "DCGANDiscriminator", "init_args": {"width": 4, "num_classes": 3, "norm": "none"}}


def test_from_a_config() -> None:
    """Shape and classes of the network within come from the data, at any depth; the checkpoint rebuilds it all."""
    fit(wrapped(wrapped(CRITIC, policy="color"), policy=["translation", "cutout"]))
    module = WGANGP.load_from_checkpoint("runs/a/checkpoints/last.ckpt")
    outer: Any = module.discriminator
    assert (outer.policy, outer.discriminator.policy) == (("translation", "cutout"), ("color",))
    critic = outer.discriminator.discriminator
    assert isinstance(critic, DCGANDiscriminator) and (critic.shape, critic.num_classes) == ((1, 8, 8), 10)
    again = yaml.safe_load(Path("runs/a/config.yaml").read_text())["model"]["init_args"]["discriminator"]
    assert again["init_args"]["discriminator"]["init_args"]["discriminator"]["init_args"]["shape"] == [1, 8, 8]


def test_the_command_line_refuses_points() -> None:
    toy = {"class_path": "ToyDiscriminator", "init_args": {"width": 8}}
    args = ["--data=Ring", "--model.generator=ToyGenerator"]
    with pytest.raises(
        SystemExit,
        match=r"^error: The discriminator failed on real .* \(x must be images of shape",
    ):
        fit(wrapped(toy), *args)


# ---------------------------------------------------------------------- weight norm
LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(3, 5), (5, 1)),
    (nn.Conv1d(2, 4, 3), (4, 1, 1)),
    (nn.Conv2d(2, 4, 3), (4, 1, 1, 1)),
    (nn.ConvTranspose2d(2, 4, 3), (1, 4, 1, 1)),
    (nn.ConvTranspose3d(2, 4, 3), (1, 4, 1, 1, 1)),
]


@pytest.mark.parametrize(("layer", "outputs"), LAYERS)
def test_weights_are_g_v_over_the_norm_of_v(layer: nn.Module, outputs: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer).double()
    before = layer.weight.detach().clone()
    assert weight_norm(layer) is layer
    axes = [i for i, size in enumerate(outputs) if size == 1]
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    torch.testing.assert_close(layer.weight, before)
    assert g.shape == outputs and v.shape == before.shape
    torch.testing.assert_close(g, before.square().sum(axes, keepdim=True).sqrt())
    with torch.no_grad():
        v.mul_(7)
        torch.testing.assert_close(layer.weight, before)
        v.normal_()
    torch.testing.assert_close(layer.weight, g * v / v.square().sum(axes, keepdim=True).sqrt())


def test_gradient_of_g_and_v() -> None:
    """dL/dg = <G, v> / ||v|| and dL/dv = g / ||v|| (G - <G, v> v / ||v||^2), with G = dL/dw."""
    layer, slope = weight_norm(nn.Linear(4, 1, bias=False).double()), images(1, 4)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    to_g, to_v = torch.autograd.grad((layer.weight * slope).sum(), (g, v))
    g, v, size = g.detach(), v.detach(), v.detach().norm()
    torch.testing.assert_close(to_g, ((slope * v).sum() / size).view(1, 1))
    torch.testing.assert_close(to_v, g / size * (slope - (slope * v).sum() * v / size**2))


def test_a_whole_network() -> None:
    net = DCGANDiscriminator((1, 8, 8), width=4, num_classes=3).eval()
    x, labels = images(4, 1, 8, 8).float(), torch.tensor([0, 1, 2, 0])
    before, again = net(x, labels), copy.deepcopy(net)
    torch.testing.assert_close(weight_norm(net)(x, labels), before)
    names = {k.partition(".parametrizations")[0] for k in net.state_dict() if "parametrizations" in k}
    assert names == {"layers.0", "layers.2", "head.score"}
    with torch.no_grad():
        net.layers[0].parametrizations.weight.original0.mul_(2)
    weight_norm(again).load_state_dict(net.state_dict())
    assert torch.equal(again(x, labels), net(x, labels)) and not torch.allclose(net(x, labels), before)


def test_networks_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^network must have linear or convolutional layers, got none"):
        weight_norm(nn.Embedding(3, 4))
    olds = [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm]
    for normalise in (weight_norm, spectral_norm, *olds):
        net = nn.Sequential(nn.Linear(2, 3), normalise(nn.Linear(3, 3)))
        with pytest.raises(ValueError, match=r"^network must be one without normalised weights, got one in layer '1'"):
            weight_norm(net)
        assert isinstance(net[0].weight, nn.Parameter)  # nothing was done before it was refused
    outputs = nn.ConvTranspose2d(2, 3, 1)
    with torch.no_grad():
        outputs.weight[0] = 0  # of an input
    assert torch.isfinite(weight_norm(outputs).weight).all()
    dead = nn.Linear(2, 3)
    with torch.no_grad():
        dead.weight[1] = 0
    with pytest.raises(ValueError, match=r"^network must have weights other than 0 for each output, got none in layer"):
        weight_norm(dead)
    with torch.no_grad():
        dead.weight[1, 0] = 1
    assert torch.isfinite(weight_norm(dead).weight).all()
