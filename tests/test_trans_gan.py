"""TransGAN: its networks, the level of its critic, and the two aids of its first paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from common import plain, trainer
from test_graph_places import watched
from torch import Tensor, nn

from lightning_gans import TransGAN
from lightning_gans.callbacks import EMA
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.penalties import gradient_penalty
from lightning_gans.networks import ToyGenerator, TransGANDiscriminator, TransGANGenerator
from lightning_gans.networks.transformer import shuffled
from lightning_gans.regularizers import Drift
from lightning_gans.wrappers import DiffAugment

CONFIGS = Path(__file__).parent.parent / "configs"
DOUBLE = torch.float64


def generator(**options: Any) -> TransGANGenerator:
    torch.manual_seed(0)
    return TransGANGenerator((1, 8, 8), 3, **({"width": 32, "depths": (1, 1), "heads": 2} | options))


def discriminator(**options: Any) -> TransGANDiscriminator:
    torch.manual_seed(0)
    return TransGANDiscriminator((1, 8, 8), **({"widths": (8, 4), "depths": (1, 1, 1), "heads": 2} | options))


# ---------------------------------------------------------------------- networks
@pytest.mark.parametrize(
    ("network", "parameters"), [(TransGANGenerator, 83_312_495), (TransGANDiscriminator, 10_210_400)]
)
def test_parameters_of_the_final_code(network: Any, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in network().parameters()) == parameters


def test_initial_weights_of_the_discriminator() -> None:
    """Deviations of .02, and Glorot's rule for patches; biases 0."""
    torch.manual_seed(0)
    net = TransGANDiscriminator((3, 16, 16), (96, 32), depths=(1, 1, 1), heads=4)
    layers: list[Any] = [layer for layer in net.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    assert len(layers) > 8
    for layer in layers:
        patch = isinstance(layer, nn.Conv2d)
        std = (2 / (layer.weight[0].numel() + layer.weight[:, 0].numel())) ** 0.5 if patch else 0.02
        assert float(layer.weight.std()) == pytest.approx(std, rel=0.3 if layer is net.head.score else 0.06)
        assert layer.bias is None or not bool(layer.bias.any())
    assert float(net.token.std()) == pytest.approx(0.02, rel=0.3)


def test_a_token_becomes_two_by_two() -> None:
    tokens = torch.zeros(1, 6, 12)
    tokens[0, 4] = 1.0  # at row 1, column 1 of a grid of 2 x 3
    image = shuffled(tokens, (2, 3)).transpose(1, 2).unflatten(2, (4, 6))
    assert image.shape == (1, 3, 4, 6)
    lit = torch.zeros(4, 6)
    lit[2:4, 2:4] = 1.0
    assert all(torch.equal(channel, lit) for channel in image[0])


def test_shapes_and_oblong_images() -> None:
    labels = torch.tensor([0, 2])
    g = TransGANGenerator((3, 8, 16), 4, 64, (1, 1, 1), num_classes=3)
    d = TransGANDiscriminator((3, 8, 16), (8, 8), (1, 1, 1), num_classes=3)
    x = g(torch.randn(2, 4), labels)
    assert x.shape == (2, 3, 8, 16) and d(x, labels).shape == (2,)
    assert not torch.equal(d(x, labels), d(x, labels.flip(0)))


@pytest.mark.parametrize("relative", [True, False])
def test_without_places_tokens_may_change_them(relative: bool) -> None:
    """A D whose places and tables are 0 does not see where a patch lies; one that has them does."""
    d = discriminator(widths=(8,), depths=(2, 1), relative=relative).double()
    x = torch.randn(3, 1, 8, 8, dtype=DOUBLE)
    moved = x.roll((2, 4), (2, 3))  # by whole patches
    assert not torch.allclose(d(x), d(moved), rtol=1e-6)
    with torch.no_grad():
        for name, p in d.named_parameters():
            if "places" in name or "table" in name:
                p.zero_()
    torch.testing.assert_close(d(x), d(moved))


def test_the_second_scale_sees_the_image_and_the_first() -> None:
    d, x, seen = discriminator().double(), torch.randn(2, 1, 8, 8, dtype=DOUBLE), {}
    d.stages[0].register_forward_hook(lambda m, given, y: seen.update(first=y))
    d.stages[1].register_forward_pre_hook(lambda m, given: seen.update(second=given[0]))
    d(x)
    pooled = seen["first"].unflatten(1, (2, 2, 2, 2)).mean((2, 4)).flatten(1, 2)
    patches = F.conv2d(x, d.patches[1].weight, d.patches[1].bias, 4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen["second"], torch.cat([pooled, patches], 2) + d.places[1])


def test_scores_are_deterministic_as_long_as_noise_has_no_strength() -> None:
    d, x = discriminator(), torch.randn(2, 1, 8, 8)
    assert torch.equal(d(x), d(x))
    d.stages[0][0].attention.strength.data.fill_(1.0)
    assert not torch.equal(d(x), d(x)) and torch.equal(d.eval()(x), d(x))


@pytest.mark.parametrize("kernel", ["auto", "explicit", "favor"])
def test_the_penalty_reaches_every_parameter(kernel: Any) -> None:
    """But those whose derivative by x is none: the last bias, and the noise that is not there."""
    d = discriminator(kernel=kernel).double()
    value = gradient_penalty(d, torch.randn(2, 1, 8, 8, dtype=DOUBLE))
    value.backward()
    without = {name for name, p in d.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name.rpartition(".")[2] for name in without} <= {"bias", "strength"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generator(width=20), "width must be a multiple of 8 .heads too., got 20"),
        (lambda: generator(depths=(1, 0)), r"depths must be integers >= 1, at least one, got \[1, 0\]"),
        (lambda: TransGANGenerator((1, 9, 8), 3, 32, (1, 1)), r"H and W multiples of 2 with 2 depths, got \(1, 9, 8\)"),
        (lambda: TransGANDiscriminator((1, 6, 8)), r"H and W multiples of 4 with patches of 2 to 4, got \(1, 6, 8\)"),
        (lambda: discriminator(depths=(1, 1)), "depths must be one more than widths, got 2 and 2"),
        (lambda: discriminator(widths=(9, 4)), "heads must divide the width of 9, got 2"),
        (lambda: generator().upscale(torch.zeros(1, 1, 4, 4)), "stem must be True"),
        (lambda: generator(stem=True).upscale(torch.zeros(1, 1, 8, 8)), r"of shape \(N, 1, 4, 4\), got \(1, 1, 8, 8\)"),
        (lambda: DiffAugment(discriminator(), translation=2.0), r"translation must be in \[0, 1\], got 2.0"),
        (lambda: DiffAugment(discriminator(), cutout_p=-0.1), r"cutout_p must be in \[0, 1\], got -0.1"),
    ],
)
def test_bad_networks(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------- the game
class Linear(nn.Module):
    """f(x) = <a, x> + b."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (
            nn.Parameter(torch.tensor([0.6, -0.8], dtype=DOUBLE) * 3),
            nn.Parameter(torch.tensor(2.0).double()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a + self.b


def test_terms_by_hand() -> None:
    torch.manual_seed(0)
    module = TransGAN(ToyGenerator((2,), 3, width=8), Linear(), 3, drift_weight=0.5).double()
    x, y = torch.randn(2, 6, 2, dtype=DOUBLE)
    f = module.discriminator
    terms = module.discriminator_terms(Batch(x, None, None, y), y)
    assert terms.keys() == module.own_terms.keys() == {"adversarial", "gradient_penalty", "drift"}
    assert float(terms["adversarial"]) == pytest.approx(float(f(y).mean() - f(x).mean()))
    assert float(terms["gradient_penalty"]) == pytest.approx(10 * (3 - 1) ** 2)
    assert float(terms["drift"]) == pytest.approx(0.5 * float(f(x).mean()) ** 2)
    (by_b,) = torch.autograd.grad(terms["drift"], [f.b])
    assert float(by_b) == pytest.approx(float(f(x).mean()))
    assert float(terms["drift"]) < 0.5 * float(f(x).square().mean())
    alone = Drift()(f, Batch(x, None, None, y), y)  # type: ignore[arg-type]
    assert float(alone) == pytest.approx(2 * float(terms["drift"]))
    assert set(TransGAN(ToyGenerator((2,), 3, width=8), Linear(), 3, drift_weight=0).own_terms) == {
        "adversarial",
        "gradient_penalty",
    }


def test_super_resolution() -> None:
    """Of real images shrunk by means; it reaches the stem and the blocks, not what reads z."""
    module = TransGAN(generator(stem=True), discriminator(), 3, super_resolution=50.0).double()
    g: Any = module.generator
    x = torch.randn(4, 1, 8, 8, dtype=DOUBLE)
    term = module.generator_terms(Batch(x, None, None, x), x)["super_resolution"]
    small = x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    assert float(term) == pytest.approx(50 * float((g.upscale(small) - x).square().mean()))
    found = {
        n
        for n, p in zip(dict(g.named_parameters()), torch.autograd.grad(term, [*g.parameters()], allow_unused=True))
        if p is None
    }
    assert found == {"project.weight", "project.bias"}
    module = TransGAN(generator(), discriminator(), 3)
    assert module.generator_terms(Batch(x.float(), None, None, x), x.float()).keys() == {"adversarial"}
    own: Any = torch.nn.Linear(3, 64)  # of a user, without a stem of that name
    own.bottom, own.upscale = (4, 4), torch.nn.Upsample(scale_factor=2)
    assert TransGAN(own, discriminator(), 3, super_resolution=1.0).super_resolution == 1


def test_the_mask_moves_with_the_updates_and_is_kept(tmp_path: Path) -> None:
    g = generator(locality="raster")
    limited = [layer.reach for layer in g.modules() if getattr(layer, "reach", None) is not None]
    assert len(limited) == 1 and g.stages[-1][-1].attention.reach is limited[0]
    module = TransGAN(g, discriminator(), 3, d_steps=1, g_batch_factor=1, locality=[(2, 1), (5, 3)])
    seen: list[float] = []
    step = module.after_discriminator_step
    module.after_discriminator_step = lambda: (seen.append(float(limited[0])), step())[1]  # type: ignore[method-assign]
    t = trainer(max_steps=3)
    t.fit(module, plain(shape=(1, 8, 8)))
    assert seen == [2, 5, 5]
    t.save_checkpoint(tmp_path / "a.ckpt")
    again = TransGAN.load_from_checkpoint(
        tmp_path / "a.ckpt", generator=generator(locality="raster"), discriminator=discriminator()
    )
    assert float(again.generator.stages[-1][-1].attention.reach) == 5
    t = trainer(max_steps=4)
    t.fit(module, plain(shape=(1, 8, 8)), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert seen[3:] == [float("inf")]


@pytest.mark.parametrize("kernel", ["auto", pytest.param("favor", marks=pytest.mark.slow)])
def test_what_a_cuda_graph_would_record(kernel: Any) -> None:
    """All that is special, at once: mask, super-resolution, noise, features that are drawn anew, augmentation."""
    local: dict[str, Any] = {"locality": "raster"} if kernel == "auto" else {}
    game: dict[str, Any] = {"locality": [(2, 3)]} if local else {}
    d = DiffAugment(discriminator(kernel=kernel), translation=0.2, cutout_p=0.3)
    for layer in d.modules():
        if hasattr(layer, "redraw_every"):
            layer.redraw_every = 2
    module = TransGAN(
        generator(kernel=kernel, stem=True, **local),
        d,
        3,
        super_resolution=1.0,
        d_steps=1,
        g_batch_factor=1,
        cuda_graphs=True,
        **game,
    )
    with watched(module) as seen:
        trainer(max_steps=6).fit(module, plain(400, 4, shape=(1, 8, 8)))
    for calls in seen.values():
        assert len(calls) >= 6 and all(call == calls[1] for call in calls[1:6])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drift_weight": -1.0}, "drift_weight must be a finite number >= 0, got -1.0"),
        ({"super_resolution": 50.0}, "super_resolution must be 0 for a generator without a stem, got 50.0"),
        ({"locality": [(4, 10)]}, r"locality must be empty for a generator without a layer of one, got \[\(4, 10\)\]"),
        ({"locality": [(4, 10), (6, 5)]}, "locality must be pairs .* in order of until"),
        ({"loss": "relativistic"}, "loss must be one of wasserstein, hinge, least_squares, non_saturating"),
        ({"regularizers": [Drift()]}, "'drift' more than once"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransGAN(generator(), discriminator(), 3, **options)


# ---------------------------------------------------------------------- augmentation as in its code
def test_diff_augment_of_its_code() -> None:
    """Translation by up to .2 of a side, 6 pixels of 32; a cutout for all of a batch or none, with probability .3."""
    torch.manual_seed(0)
    identity = nn.Flatten()
    x = torch.zeros(4000, 1, 32, 32)
    x[:, :, 16, 16] = 1
    for share, most in ((0.2, 6), (0.125, 4)):
        place = DiffAugment(identity, "translation", translation=share).augment(x).flatten(1).argmax(1)
        assert set((place // 32 - 16).tolist()) == set((place % 32 - 16).tolist()) == set(range(-most, most + 1))
    cut = DiffAugment(identity, "cutout", cutout_p=0.3)
    ones = torch.ones(8, 1, 8, 8)
    shares = torch.tensor([float((cut.augment(ones).flatten(1).min(1).values == 0).float().mean()) for _ in range(400)])
    assert set(shares.tolist()) == {0.0, 1.0} and abs(float(shares.mean()) - 0.3) < 0.07


def test_its_average_of_the_weights() -> None:
    """The recipe counts the images of D's four updates at each step of the average, the code those of one."""
    recipe = yaml.safe_load((CONFIGS / "cifar10" / "trans_gan.yaml").read_text())
    ema = EMA(**recipe["trainer"]["callbacks"][0]["init_args"])
    for step in (10, 1000, 500_000):
        half_life = min(500_000, 0.1 * 4 * 64 * step)
        assert ema.beta(step, 4 * 64 * step) == pytest.approx(0.5 ** (64 / half_life))
