"""Images of shapes: what is drawn, and that measuring an image finds the factors it was drawn from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from lightning_gans.datamodules import Shapes
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.functional import draw_shapes
from lightning_gans.functional.shapes import GROUND, RANGES, SHAPES, colour
from lightning_gans.metrics import shape_attributes

DOUBLE = torch.float64
PERIODS = torch.tensor([90.0, 120.0, 180.0])


def factors(n: int = 6, **given: Any) -> dict[str, Tensor]:
    """Factors of n images in float64, each of them random unless given."""
    source = torch.Generator().manual_seed(3)
    u = torch.rand(n, len(RANGES), generator=source, dtype=DOUBLE)
    found = {name: low + (high - low) * u[:, i] for i, (name, (low, high)) in enumerate(RANGES.items())}
    found["shape"] = found["shape"].long()
    return found | {k: torch.as_tensor(v, dtype=found[k].dtype).expand(n).clone() for k, v in given.items()}


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_all_shapes_of_a_size_have_the_area_of_its_disc() -> None:
    for shape in range(3):
        image = draw_shapes(factors(16, shape=shape, hue=0.0), 64)
        covered = ((image[:, 0] - GROUND) / (0.95 - GROUND)).mean((1, 2))
        disc = math.pi * factors(16)["size"].square()
        torch.testing.assert_close(covered, disc, rtol=0.01, atol=0)


def test_colour_is_hsv_and_the_ground_is_dark() -> None:
    from colorsys import hsv_to_rgb

    hues = torch.linspace(0, 0.99, 12, dtype=DOUBLE)
    expected = torch.tensor([hsv_to_rgb(float(h), 0.85, 0.95) for h in hues], dtype=DOUBLE)
    torch.testing.assert_close(colour(hues), expected)
    image = draw_shapes(factors(12, hue=0.0, x=0.5, y=0.5) | {"hue": hues}, 32)
    torch.testing.assert_close(image[:, :, 16, 16], expected)
    assert torch.equal(image[:, :, [0, 0, -1, -1], [0, -1, 0, -1]], torch.full((12, 3, 4), GROUND, dtype=DOUBLE))


def test_turning_is_counter_clockwise_the_tip_is_up_and_symmetries_hold() -> None:
    upright: dict[str, Any] = {"x": 0.5, "y": 0.5, "size": 0.2, "hue": 0.0}
    one = factors(3, rotation=0.0, **upright) | {"shape": torch.arange(3)}
    image = draw_shapes(one, 32)[:, 0] - GROUND
    torch.testing.assert_close(image, image.flip(-1))  # mirrored, and turned by -0
    assert (image[1, :16].sum(-1) > 0).sum() > (image[1, 16:].sum(-1) > 0).sum()  # two thirds are above the centre
    turned = draw_shapes(one | {"rotation": torch.full((3,), 30.0, dtype=DOUBLE)}, 32)[:, 0] - GROUND
    rows, columns = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(32.0) - 15.5, indexing="ij")
    assert float((turned[2] * rows * columns).sum()) < -1  # the long axis goes up on the right
    assert float((turned[1] * columns.pow(3)).sum()) > 1  # a tip points to the right, a side to the left
    for shape, period in enumerate(PERIODS.tolist()):
        same = one | {"rotation": torch.full((3,), 30.0 + period, dtype=DOUBLE)}
        torch.testing.assert_close(draw_shapes(same, 32)[shape, 0] - GROUND, turned[shape])


def test_an_image_has_derivatives_by_its_factors() -> None:
    """Where no pixel is at a kink, so with a step small beside the distance of the nearest one."""
    names = ("hue", "size", "x", "y", "rotation")
    known = factors(3, hue=0.3, size=0.17, x=0.437, y=0.551, rotation=11.3) | {"shape": torch.arange(3)}
    weights = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)

    def total(*values: Tensor) -> Tensor:
        return (draw_shapes(known | dict(zip(names, values)), 16) * weights).sum()

    assert torch.autograd.gradcheck(total, tuple(known[name].requires_grad_() for name in names), eps=1e-7, atol=1e-4)


# -- the data module ---------------------------------------------------------------------------------------------------


def test_the_images_are_those_of_the_factors_and_the_same_each_time() -> None:
    data = Shapes(side=16, items=300, held_out=40)
    images, labels = data.reference()
    truth = data.factors()
    assert images.dtype == torch.uint8 and images.shape == (300, 3, 16, 16) and data.shape == (3, 16, 16)
    assert torch.equal(labels, truth["shape"]) and labels.bincount().tolist() == [109, 99, 92]
    torch.testing.assert_close(images / 255, draw_shapes(truth, 16), rtol=0, atol=0.5 / 255 + 1e-6)
    assert torch.equal(images, Shapes(side=16, items=300).reference()[0])
    assert torch.equal(images[:50], Shapes(side=16, items=50).reference()[0])  # the first of more
    test = data.reference("test")[0]
    assert len(test) == 40 and not torch.equal(test, images[:40])
    assert not torch.equal(images, Shapes(side=16, items=300, seed=1).reference()[0])
    for name, (low, high) in RANGES.items():
        assert low <= truth[name].min() and truth[name].max() <= high and len(truth[name]) == 300
        if name != "shape":
            low, high = low + 0.1 * (high - low), high - 0.1 * (high - low)
            assert truth[name].min() < low and high < truth[name].max()
    assert data.describe() == "Shapes: 300 training images, 3x16x16, in [-1, 1], 3 classes"
    real, classes = next(iter(data.train_dataloader()))
    assert real.shape == (64, 3, 16, 16) and float(real.max()) <= 1 and classes.shape == (64,)


@pytest.mark.parametrize("label", [*RANGES, None])
def test_any_factor_may_be_the_label(label: str | None) -> None:
    data = Shapes(side=16, items=500, label=label, bins=5)
    labels = data.reference()[1]
    assert data.num_classes == {None: None, "shape": 3}.get(label, 5)
    if label is None:
        assert labels is None and next(iter(data.train_dataloader())).shape == (64, 3, 16, 16)
    else:
        assert labels is not None and labels.unique().tolist() == list(range(data.num_classes or 0))
        values = data.factors()[label]
        if label != "shape":
            assert data._labels(torch.tensor(RANGES[label])).tolist() == [0, 4]  # rounding may reach the upper end
        assert all(values[labels == k].max() <= values[labels == k + 1].min() for k in range(len(labels.unique()) - 1))


@pytest.mark.parametrize(("follower", "leader"), [("hue", "shape"), ("size", "x")])
def test_correlated_factors_keep_their_distributions(follower: str, leader: str) -> None:
    data = Shapes(items=20_000, correlate=(follower, leader, 0.6))
    truth, free = data.factors(), Shapes(items=20_000).factors()
    for name in set(RANGES) - {follower}:
        assert torch.equal(truth[name], free[name])
    low, high = RANGES[follower]
    place = (truth[follower] - low) / (high - low)
    torch.testing.assert_close(place.sort()[0], torch.linspace(0, 1, 20_000), rtol=0, atol=0.015)
    if leader == "shape":
        share = ((place * 3).long() == truth["shape"]).float().mean()
        assert float(share) == pytest.approx(0.6 + 0.4 / 3, abs=0.01)
    else:
        assert float(torch.corrcoef(torch.stack([place, truth[leader]]))[0, 1]) == pytest.approx(0.6, abs=0.02)
    assert torch.equal(Shapes(items=99, correlate=("y", "x", 1)).factors()["x"], Shapes(items=99).factors()["x"])
    same = Shapes(items=99, correlate=("y", "x", 1.0)).factors()
    assert torch.equal(same["y"], same["x"])


def test_the_command_line_makes_it() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(GANDataModule, "data")
    given = ["--data=Shapes", "--data.side=16", "--data.correlate=[hue,shape,0.9]", "--data.label=size"]
    config = parser.parse_args(given)
    instantiate = parser.instantiate if hasattr(parser, "instantiate") else parser.instantiate_classes
    data = instantiate(config).data
    assert isinstance(data, Shapes) and data.correlate == ("hue", "shape", 0.9) and data.num_classes == 8
    assert torch.equal(Shapes(**dict(data.hparams)).factors()["hue"], data.factors()["hue"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"side": 48}, "side must be one of 16, 32, 64, got 48"),
        ({"side": 8}, "side must be one of 16, 32, 64, got 8"),
        ({"label": "color"}, "label must be one of shape, hue, size, x, y, rotation, got 'color'"),
        ({"bins": 1}, "bins must be an integer >= 2, got 1"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"items": 0}, "items must be an integer >= 1, got 0"),
        ({"held_out": 0}, "held_out must be an integer >= 1, got 0"),
        ({"correlate": ("hue", "shape")}, r"correlate must be \(follower, leader, rho\), got \('hue', 'shape'\)"),
        ({"correlate": ("hues", "shape", 1)}, "The follower of correlate must be one of shape, .*, got 'hues'"),
        ({"correlate": ("hue", "hue", 1)}, "The leader of correlate must be one of shape, size, .*, got 'hue'"),
        ({"correlate": ("hue", "shape", 1.5)}, r"rho of correlate must be in \[0, 1\], got 1.5"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Shapes(**given)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_a_split_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        Shapes(items=2).factors("val")  # type: ignore[arg-type]


# -- measuring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "position", "size", "size_correlation", "rotation"),
    [(16, 0.0025, 0.0016, 0.998, 1.8), (32, 0.0008, 0.0005, 0.9997, 0.7), (64, 0.0003, 0.0002, 0.99995, 0.2)],
)
def test_what_is_measured_is_what_was_drawn(
    side: int, position: float, size: float, size_correlation: float, rotation: float
) -> None:
    """On 600 images; the bounds are a quarter above what was found on 4,000."""
    data = Shapes(side=side, items=600)
    truth, found = data.factors(), shape_attributes(data.reference()[0].float() / 127.5 - 1)
    for name in ("x", "y"):
        assert float((found[name] - truth[name]).abs().mean()) < position
    assert float((found["size"] - truth["size"]).abs().mean()) < size
    assert float(torch.corrcoef(torch.stack([found["size"], truth["size"]]))[0, 1]) > size_correlation
    hue = (found["hue"] - truth["hue"] + 0.5) % 1 - 0.5
    assert float(hue.abs().mean()) < 0.0004 and float(hue.abs().max()) < 0.001
    assert torch.equal(found["shape"], truth["shape"])
    period = PERIODS[truth["shape"]]
    turn = (found["rotation"] - truth["rotation"] + period / 2) % period - period / 2
    assert float(turn.abs().mean()) < rotation
    for number, name in enumerate(SHAPES):
        mine = truth["shape"] == number
        assert float(found[name][mine].mean()) == pytest.approx(1, abs=0.03)
        assert float(found[name][~mine].mean()) < 0.25
    assert float(found["ground_error"].max()) < 0.02


def test_what_a_generator_gets_wrong_is_measured_too() -> None:
    """Noise, a blur and another ground: what is seen of position, colour and size stays; the ground is told."""
    truth = factors(200)
    images = draw_shapes(truth, 32)
    images = torch.nn.functional.avg_pool2d(images, 3, 1, padding=1, count_include_pad=False) + 0.05
    images = images + 0.02 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    found = shape_attributes(images, value_range=(0, 1))
    for name, bound in (("x", 0.001), ("y", 0.001), ("size", 0.006)):
        assert float((found[name] - truth[name]).abs().mean()) < bound, name
    assert float(((found["hue"] - truth["hue"] + 0.5) % 1 - 0.5).abs().mean()) < 0.001
    assert torch.equal(found["shape"], truth["shape"])
    assert float(found["ground_error"].mean()) == pytest.approx(0.055, abs=0.005)


def test_measurements_have_derivatives_and_are_those_of_the_factors() -> None:
    """d measured / d true is near 1 for a factor's own measurement, through the drawing."""
    truth = factors(24)
    own = {name: truth[name].requires_grad_() for name in ("hue", "size", "x", "y", "rotation")}
    found = shape_attributes(draw_shapes(truth, 64), value_range=(0, 1))
    for name, value in own.items():
        (slope,) = torch.autograd.grad(found[name].sum(), value, retain_graph=True)
        assert float(slope.median()) == pytest.approx(1, abs=0.06), name
        assert slope.isfinite().all()
    for name in ("x", "y", "size"):  # through colour and turning nothing moves
        (slope,) = torch.autograd.grad(found[name].sum(), own["hue"], retain_graph=True)
        assert float(slope.abs().max()) < 0.01


@pytest.mark.parametrize("blank", [0.15, 0.0, 1.0])
def test_blank_images_have_finite_measurements_and_derivatives(blank: float) -> None:
    images = torch.full((2, 3, 16, 16), blank, requires_grad=True)
    found = shape_attributes(images, value_range=(0, 1))
    assert all(value.isfinite().all() and value.shape == (2,) for value in found.values())
    total: Any = sum(value.sum() for value in found.values() if value.requires_grad)
    assert torch.autograd.grad(total, images)[0].isfinite().all()
    assert float(found["ground_error"][0].detach()) == pytest.approx(abs(blank - GROUND) * (blank < 1), abs=1e-6)
    if blank == GROUND:
        assert all(float(value.abs().max()) < 1e-6 for value in found.values())


def test_a_symmetric_shape_has_finite_derivatives() -> None:
    """Its odd moments vanish exactly, where an angle has no derivative."""
    one = factors(3, rotation=0.0, x=0.5, y=0.5, size=0.2) | {"shape": torch.arange(3)}
    images = draw_shapes(one, 16).requires_grad_()
    found = shape_attributes(images, value_range=(0, 1))
    total: Any = sum(value.sum() for value in found.values() if value.requires_grad)
    assert torch.autograd.grad(total, images)[0].isfinite().all()


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"images must have shape \(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        shape_attributes(torch.zeros(2, 1, 8, 8))
