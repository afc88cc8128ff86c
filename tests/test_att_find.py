"""AttFind: on decisions whose coordinates are known, with direction, from any space of any generator."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import make, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import StyleGAN2
from lightning_gans.cli import main
from lightning_gans.diagnostics import AttFind, coordinate_effects, merge_picks, pick_coordinates
from lightning_gans.diagnostics.att_find import Pick
from lightning_gans.functional.conditional import as_logits
from lightning_gans.functional.shapes import draw_shapes
from lightning_gans.metrics import ShapeRule
from lightning_gans.networks import StyleDiscriminator, StyleGenerator


def test_a_classifier_in_training_mode_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))
    before, z = {k: v.clone() for k, v in classifier.state_dict().items()}, torch.randn(20, 2)
    model: Any = SimpleNamespace(network=nn.Identity(), latents=lambda n, seed: (z, None))
    found = AttFind(model, classifier, n=20)
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items()) and classifier[1].training
    with torch.no_grad():
        torch.testing.assert_close(found.base, classifier.eval()(z))


def test_of_two_directions_the_one_that_was_chosen_first_is_merged() -> None:
    effects = torch.zeros(1, 2, 4, 2)
    effects[0, 1, 3, 0], effects[0, 0, 3, 0] = 3.0, 0.5
    both = [Pick(3, 1, 3.0, 1.0), Pick(3, -1, 0.5, 0.0)]
    assert merge_picks(effects, {0: both, 1: []}) == [Pick(3, 1, 3.0, 1.0)]
    assert [p.direction for p in merge_picks(effects, {0: [], 1: both})] == [-1]


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


V = torch.tensor([0.5, -3.0, 0.0, 1.0, 2.0, -0.1, 0.2, 0.0, -1.5, 0.05, 0.0, 0.3], dtype=torch.float64)


def linear(s: Tensor, rows: Tensor | None = None) -> Tensor:
    return torch.stack([torch.zeros_like(s[:, 0]), s @ V], 1)


def test_of_a_linear_decision_the_order_is_that_of_weight_times_range() -> None:
    ranges = torch.linspace(0.5, 2, 12, dtype=torch.float64).flip(0)
    s = uniform(200, 12) * ranges
    effects, base, ends = coordinate_effects(linear, s, trim=0)
    torch.testing.assert_close(effects[:, 1, :, 1], (ends[1] - s) * V)
    torch.testing.assert_close(effects[:, 0, :, 1], (ends[0] - s) * V)
    picks = pick_coordinates(effects, base, 1, threshold=100, picks=8)  # nobody is ever explained
    expected = sorted(range(12), key=lambda j: -float(V[j].abs() * ranges[j]))[:8]
    assert [p.coordinate for p in picks] == expected
    assert [p.direction for p in picks] == [1 if V[j] > 0 else -1 for j in expected]
    turned = pick_coordinates(effects, base, 0, threshold=100, picks=8)
    assert turned == []  # its logit is always 0
    merged = merge_picks(torch.cat([-effects[..., 1:], effects[..., 1:]], 3), {0: [], 1: picks})
    assert [(p.coordinate, p.direction) for p in merged] == [(p.coordinate, -p.direction) for p in picks]


def test_it_stops_when_all_is_explained_or_nothing_gains() -> None:
    s = uniform(50, 12)
    effects, base, _ = coordinate_effects(linear, s)
    assert len(pick_coordinates(effects, base, 1, threshold=1e-3)) == 1
    assert pick_coordinates(torch.zeros_like(effects), base, 1) == []
    flat, _, _ = coordinate_effects(linear, s, shift=0)
    assert float(flat.abs().max()) == 0
    wild = effects.clone()
    wild[base.argmax(1) == 0] = 0
    one = int((base.argmax(1) == 0).nonzero()[0])
    wild[one] = 100.0  # and all its coordinates with it
    assert [p.effect > 1 for p in pick_coordinates(wild, base, 1, picks=1)] == [True]
    assert pick_coordinates(wild, base, 1, unstable=0.5) == []


def test_five_thresholds_explain_and_ten_are_wild() -> None:
    """Gains of .3 each at a threshold of .2: the fourth goes beyond 1. Effects up to 2 are no reason to leave out."""
    base, effects = torch.tensor([[1.0, 0.0]]).double(), torch.zeros(1, 2, 10, 2, dtype=torch.float64)
    effects[0, 1, :, 1] = 0.3
    assert len(pick_coordinates(effects, base, 1, picks=10)) == 4
    effects[0, 1, :4, 1] = 1.9  # of 4 in 40
    assert len(pick_coordinates(effects, base, 1, unstable=0.05)) == 1
    effects[0, 1, :4, 1] = 2.1
    assert len(pick_coordinates(effects, base, 1, unstable=0.1)) == 1
    with pytest.raises(ValueError, match="unstable must leave some samples of other classes than 1"):
        pick_coordinates(effects, base, 1, unstable=0.05)


class Renderer(nn.Module):
    """Twelve coordinates, of which 2 is the size, 5 the hue and 7 the place; from left to right, bounded."""

    def forward(self, z: Tensor) -> Tensor:
        z = z.tanh()
        n = z.new_tensor
        factors = {"shape": torch.zeros(len(z), dtype=torch.int64), "hue": 0.3 + 0.2 * z[:, 5],
                   "size": 0.15 - 0.05 * z[:, 2], "x": 0.5 + 0.15 * z[:, 7], "y": n(0.5).expand(len(z)),
                   "rotation": n(0.0).expand(len(z))}  # fmt: skip
        return 2 * draw_shapes(factors, 16) - 1


@pytest.mark.parametrize(("attribute", "pick"), [("size", (2, -1)), ("x", (7, 1)), ("hue", (5, 1))])
def test_a_planted_rule_is_found(attribute: str, pick: tuple[int, int]) -> None:
    z = torch.randn(40, 12, generator=torch.Generator().manual_seed(1))
    model: Any = SimpleNamespace(network=Renderer(), latents=lambda n, seed: (z, None))
    above = {"size": 0.15, "x": 0.5, "hue": 0.3}[attribute]
    found = AttFind(model, ShapeRule(attribute, above, 0.02), n=40)
    first = found.picks(1)[0]
    assert first[:2] == pick and first.flipped > 0.9 and found.name(first.coordinate) == f"z[{pick[0]}]"
    picture, told = found.chart(first, 1, rows=4)
    assert told.shape == (4, 2) and float(told[:, 0].max()) < 0.5 < float(told[:, 1].min())
    assert picture.size[0] > 40 and f"| z[{pick[0]}] | {'up' if pick[1] > 0 else 'down'} |" in found.table([first])


def test_a_chart_moves_as_far_as_the_effects_did() -> None:
    """Half of the way, and never back from beyond an end."""
    z = torch.linspace(-1, 1, 20)[:, None] * torch.ones(1, 2)

    class Net(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z[:, :, None, None].expand(-1, 2, 8, 8)[:, :1]

    model: Any = SimpleNamespace(network=Net(), latents=lambda n, seed: (z, None))
    for shift, trim in ((1.0, 0.0), (0.5, 0.0), (1.0, 0.3), (0.0, 0.0)):
        found = AttFind(model, lambda x: x[:, 0, 0, 0] - 0.2, n=20, shift=shift, trim=trim)
        _, told = found.chart(Pick(0, 1, 0.0, 0.0), 1, rows=20)
        gain = told.logit().diff(dim=1)[:, 0]
        torch.testing.assert_close(gain.sort().values, found.effects[:, 1, 0, 1].sort().values, atol=1e-5, rtol=1e-4)
        assert float(gain.max()) == pytest.approx(shift * (1 + float(z[:, 0].quantile(1 - trim))), abs=1e-5)


def styles() -> StyleGAN2:
    torch.manual_seed(0)
    nets = StyleGenerator((3, 8, 8), 6, w_dim=5, widths=(4, 3)), StyleDiscriminator((3, 8, 8), 4, group=2)
    return StyleGAN2(*nets, 6)


@pytest.mark.parametrize("space", ["styles", "w", "z"])
def test_each_space_of_a_generator_by_styles(space: Any) -> None:
    module = styles()
    before = state(module)

    def brightness(x: Tensor) -> Tensor:
        return 10 * x.mean((1, 2, 3))

    found = AttFind(module, brightness, space=space, n=20)
    assert found.coordinates.shape == (20, {"styles": 4 + 4 + 3, "w": 5, "z": 6}[space])
    rows = torch.arange(20)
    torch.testing.assert_close(found.render(found.coordinates, rows), module.decode(module.latents(20, seed=0)[0]))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(module).values())) and module.training
    moved = found.coordinates.clone()
    moved[:, 3] = torch.maximum(moved[:, 3], found.ends[1, 3])
    with torch.no_grad():
        gain = brightness(found.render(moved, rows)) - brightness(found.render(found.coordinates, rows))
    torch.testing.assert_close(found.effects[:, 1, 3, 1], gain, atol=1e-5, rtol=1e-4)
    assert found.name(9) == {"styles": "layer 2[1]", "w": "w[9]", "z": "z[9]"}[space]


def test_explain_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = StyleGenerator((3, 8, 8), 6, widths=4)
    config: dict[str, Any] = {
        "generator": {"class_path": "lightning_gans.networks.StyleGenerator",
                      "init_args": {"shape": [3, 8, 8], "latent_dim": 6, "widths": 4}},
        "discriminator": {"class_path": "lightning_gans.networks.StyleDiscriminator",
                          "init_args": {"shape": [3, 8, 8], "widths": 4}},
        "latent_dim": 6, "_class_path": "lightning_gans.StyleGAN2",
    }  # fmt: skip
    made = StyleGAN2(generator, StyleDiscriminator((3, 8, 8), 4), 6)
    t = trainer(max_steps=1)
    t.fit(made, plain(shape=(3, 8, 8)))
    t.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    checkpoint["hyper_parameters"] = config
    torch.save(checkpoint, tmp_path / "x.ckpt")
    command = ["explain", f"--ckpt_path={tmp_path}/x.ckpt", "--samples=20", "--picks=2"]
    with torch.no_grad():
        middle = float(ShapeRule("red", 0, 1)(made.decode(made.latents(20, seed=0)[0])).median())
    main([*command, "--classifier=ShapeRule", "--classifier.attribute=red", f"--classifier.above={middle}"])
    assert "| layer " in (told := capsys.readouterr().out) and "Explained" in told
    assert (tmp_path / "explained" / "0.png").is_file() and (tmp_path / "explained" / "table.md").is_file()
    with pytest.warns(UserWarning, match="LeNet is explained as it was built: give --weights a file of its"):
        main([*command, "--classifier=LeNet", "--classifier.shape=[3,8,8]"])
    rule = [*command, "--classifier=ShapeRule"]
    for more, message in {
        "--target=2": "target must be an integer in 0..1, got 2",
        "--space=y": "space must be one of styles, w, z, got 'y'",
        "--samples=1": "n must be an integer >= 2, got 1",
        f"--weights={tmp_path}/no.pt": "--weights must be a file with the classifier's state_dict, got .*no.pt",
        "--classifier.above=1000 --target=0": "target must be a class that the classifier does not tell of all "
        "samples, got 0, which it tells of all 20: explain another class, or train the generator longer",
    }.items():
        with pytest.raises(SystemExit, match=f"error: {message}"):
            main([*rule, *more.split()])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AttFind(make("gan"), lambda x: x, n=4), None),
        (lambda: AttFind(make("gan"), lambda x: x[:1], n=4), "classifier must return logits .* got"),
        (lambda: AttFind(make("gan"), lambda x: x, space="w"), "space must be one that a ToyGenerator has, got 'w'"),
        (lambda: AttFind(make("gan"), lambda x: x, codes=torch.zeros(4, 2)), "codes must be None in z, got some"),
        (lambda: AttFind(make("ddpm"), lambda x: x, n=4), "AttFind needs a module whose .* one network call, got DDPM"),
        (lambda: AttFind(make("gan"), lambda x: x, n=1), "n must be an integer >= 2, got 1"),
        (lambda: coordinate_effects(linear, uniform(3, 12), trim=0.5), r"trim must be in \[0, .5\), got 0.5"),
        (lambda: as_logits(torch.zeros(2, 2, 2), 2), r"classifier must return logits .* got \(2, 2, 2\)"),
        (lambda: AttFind(make("gan"), None), "classifier must be a network or a function, got None"),  # type: ignore[arg-type]
        (lambda: ShapeRule("weight"), "attribute must be one of x, y, size, .* got 'weight'"),
        (lambda: ShapeRule(scale=0), "scale must be a finite number other than 0, got 0"),
        (lambda: AttFind(make("gan"), lambda x: x, n=9).picks(1, threshold=0), "threshold must be a finite number > 0"),
        (lambda: AttFind(make("gan"), lambda x: -x, n=30).chart(AttFind(make("gan"), lambda x: x).picks(1)[0], 1),
         r"chart needs images \(N, C, H, W\), got samples of shape \(6, 2\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(call: Any, message: str | None) -> None:
    if message is None:
        assert call().space == "z"
        return
    with pytest.raises((TypeError, ValueError), match=message) as error:
        call()
    assert "\n" not in str(error.value)
