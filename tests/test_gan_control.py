"""GANControl: who shares what, what the contrast asks for, that it gives control, and samples by attributes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import doubles, equal, make, plain, state, trainer
from ranks import two_ranks
from torch import Tensor, nn

from lightning_gans import GAN, GANControl, GANModule, StyleGAN2, load
from lightning_gans.cli import main
from lightning_gans.cli.attributes import AskedAttributes
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MemoryLoader, Shapes
from lightning_gans.diagnostics import control_table, requested_errors
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.control import (
    check_pairs,
    contrast,
    measured,
    pairs_meet,
    requested,
    roll_half,
    share_parts,
)
from lightning_gans.functional.latent import to_w
from lightning_gans.metrics import ShapeMeasure
from lightning_gans.networks import StyleDiscriminator, StyleGenerator, ToyDiscriminator
from lightning_gans.networks.control import AttributeEncoders
from lightning_gans.networks.style import MinibatchStd
from lightning_gans.stages import fit_control
from lightning_gans.stages.control import _Encoders

DOUBLE = torch.float64
SIDE = (3, 8, 8)
ROOT = Path(__file__).parent.parent
GROUPS = {"light": 2, "other": 2, "tint": 3}


def look(x: Tensor) -> dict[str, Tensor]:
    """Attributes of images: a number and two."""
    return {"light": x.mean((1, 2, 3)), "tint": x.mean((2, 3))[:, :2] - x.mean((2, 3))[:, 1:], "more": x[:, 0, 0, 0]}


def game(generator: tuple[int, ...] = tuple(GROUPS.values()), **options: Any) -> GANControl:
    torch.manual_seed(1)
    g = StyleGenerator(SIDE, 7, widths=(4, 3), groups=generator)
    d = StyleDiscriminator(SIDE, (4, 3), group=2)
    own: dict[str, Any] = {
        "measure": look,
        "groups": GROUPS,
        "pairs": 1,
        "path_length_every": 2,
        "r1_every": 2,
        "ramp": 2,
    }
    return GANControl(g, d, 7, **(own | options))


class Looks(torch.nn.Module):
    """A measure with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"light": self.net(x.mean((2, 3)))[:, 0], "tint": self.net(x.mean((2, 3)))}


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_measure_in_other_precisions(precision: Any) -> None:
    module = game(measure=Looks())
    trainer(max_steps=2, precision=precision).fit(module, plain(shape=SIDE))
    measure: Any = module.measure
    assert measure.net.weight.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    assert module.variance.dtype == measure.net.weight.dtype  # a mean over updates, which fewer bits would not tell


# -- who shares what ---------------------------------------------------------------------------------------------------


def test_pairs_share_one_part_and_nothing_else() -> None:
    columns, n, pairs = torch.tensor([0, 0, -1, 1, 1, 1]), 16, 3
    z = share_parts(doubles(n, 6), columns, pairs)
    assert torch.equal(z[:8], doubles(n, 6)[:8])
    for i in range(n):
        for j in range(i + 1, n):
            owner = i // pairs if j == i + n // 2 and i < 2 * pairs else None
            assert [bool(same) for same in z[i] == z[j]] == [owner == c for c in columns.tolist()], (i, j)


@pytest.mark.parametrize(("n", "size"), [(32, 4), (8, 2), (16, 4), (18, 9), (18, 3), (4, 4), (4, 2), (12, 3), (64, 32)])
def test_pairs_never_meet_in_the_discriminator(n: int, size: int) -> None:
    """Unless the batch is refused."""
    places = roll_half(torch.arange(n))
    assert sorted(places.tolist()) == list(range(n)) and places[n // 2 + 1] == n // 2
    groups = places.unflatten(0, (size, -1))  # as MinibatchStd has them
    meet = any(bool((groups[:, m] == i).any() and (groups[:, m] == i + n // 2).any())
               for m in range(n // size) for i in range(n // 2))  # fmt: skip
    assert pairs_meet(n, size) == meet
    assert not pairs_meet(32, 4) and pairs_meet(4, 4)


def test_minibatch_statistics_do_not_see_pairs() -> None:
    """Equal pairs look like any others to the discriminator, behind the roll only."""
    half = doubles(8, 3, 4, 4)
    seen = [MinibatchStd(4)(x)[:, -1, 0, 0] for x in (torch.cat([half, half]), roll_half(torch.cat([half, half])))]
    assert float(seen[0].mean()) < 0.8 * float(seen[1].mean())


# -- what is minimised -------------------------------------------------------------------------------------------------


def test_the_contrast_is_the_sum_over_pairs() -> None:
    f, n, start, pairs = doubles(10, 3), 10, 1, 2
    d = {(i, j): float((f[i] - f[j]).abs().mean()) for i in range(n) for j in range(i + 1, n)}
    shared = [(i, i + 5) for i in range(start, start + pairs)]
    same = sum(max(d[p] - 0.4, 0) for p in shared) / pairs
    different = sum(max(1.3 - d[p], 0) for p in d if p not in shared) / (len(d) - pairs)
    assert [float(x) for x in contrast(f, start, pairs, 0.4, 1.3)] == pytest.approx([same, different], rel=1e-12)
    ideal = torch.tensor([0.0, 3.0, 6.0, 9.0] * 2)[:, None]  # each pair agrees, all others are far apart
    assert [float(x) for x in contrast(ideal, 0, 4, 0.1, 1.0)] == [0, 0]
    assert [float(x) for x in contrast(torch.zeros(6, 2), 0, 1, 0.1, 0.7)] == pytest.approx([0, 0.7])


def test_terms_are_in_deviations_of_the_data_and_ramped() -> None:
    module = game(control_weight=3.0, path_length_weight=0, tau_same=0.2, tau_different=0.9).double()
    real = [doubles(8, *SIDE, seed=seed) for seed in (1, 2)]
    for step, x in enumerate(real, 1):
        module.progress.batches["d"] = Batch(x, None, None, doubles(8, 7))
        module.progress.updates |= {"d": step, "g": step - 1}
        module.after_discriminator_step()
    var = sum(torch.stack([look(x)["light"].var(), look(x)["tint"].var(0).mean()]) for x in real) / 2
    torch.testing.assert_close(module.variance, var)
    module.progress.batches["d"] = Batch(real[0][:1], None, None, doubles(1, 7))  # a short last one, without deviation
    module.after_discriminator_step()
    torch.testing.assert_close(module.variance, var)
    assert float(module.strength) == 0.5
    batch = Batch(real[0], None, None, doubles(8, 7), torch.Generator().manual_seed(1))
    fake = doubles(8, *SIDE, seed=4).requires_grad_()
    terms, found = module.generator_terms(batch, fake), measured(look, fake, ("light", "tint"))
    assert terms.keys() == {"adversarial", *(f"{name}_{part}" for name in found for part in ("same", "different"))}
    for k, (name, f) in enumerate(found.items()):
        want = contrast(f / var[k].sqrt(), k, 1, 0.2, 0.9)
        torch.testing.assert_close(terms[f"{name}_same"], 1.5 * want[0])
        torch.testing.assert_close(terms[f"{name}_different"], 1.5 * want[1])
    torch.testing.assert_close(
        terms["adversarial"], nn.functional.softplus(-module.discriminator(roll_half(fake))).mean()
    )
    module.progress.updates |= {"d": 101, "g": 100}  # the deviations are known by now
    module.after_discriminator_step()
    assert torch.equal(module.variance, var.to(module.variance)) and float(module.strength) == 1


def test_each_part_of_w_is_of_its_part_of_z() -> None:
    g: Any = game().generator.double()
    z = doubles(3, 7).requires_grad_()
    slices = {name: slice(a, a + n) for (name, n), a in zip(GROUPS.items(), (0, 2, 4))}
    for name, own in slices.items():
        (gradient,) = torch.autograd.grad(g.map(z)[:, own].sum() + z.sum() * 0, z)
        moved = {other: bool((gradient[:, part].abs() > 1e-6).any()) for other, part in slices.items()}
        assert moved == {other: other == name for other in slices}
    whole = StyleGenerator(SIDE, 6, widths=(4, 3), groups=(4,), passed=2).double()
    assert torch.equal(whole.map(z[:, 1:])[:, 4:], z[:, 5:])


@pytest.mark.parametrize(
    ("options", "parameters"), [({"groups": (12,) * 4}, 4_848), ({}, 4_704), ({"passed": 3}, 4_413)]
)
def test_parameters_of_the_mapping(options: dict[str, Any], parameters: int) -> None:
    g = StyleGenerator((3, 16, 16), 48, widths=4, **options)
    assert sum(p.numel() for p in g.mapping.parameters()) == parameters


# -- control, learned --------------------------------------------------------------------------------------------------


class Turned(nn.Module):
    """z, turned by 45 degrees to begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.matrix


def first(x: Tensor) -> dict[str, Tensor]:
    return {"first": x[:, 0], "second": x[:, 1:]}


def turned(**options: Any) -> GANControl:
    torch.manual_seed(2)
    nets = Turned(), ToyDiscriminator(shape=(2,), width=16, depth=1)
    own: dict[str, Any] = {"measure": first, "groups": {"first": 1, "second": 1}, "path_length_weight": 0}
    own |= {"r1_gamma": 0.1, "lr_g": 1e-2, "ramp": 20}
    return GANControl(*nets, 2, **(own | options))


def plane(n: int = 2000) -> MemoryLoader:
    """A round normal distribution, which says nothing about directions."""
    return MemoryLoader(torch.randn(n, 2, generator=torch.Generator().manual_seed(3)), None, 16)


def test_the_contrast_gives_control_and_the_second_stage_what_is_asked_for(tmp_path: Path) -> None:
    """By the adversary alone one rotation is as good as another; pairs that share nothing do not help either."""
    without, module = turned(control_weight=0.0), turned()
    for one in (without, module):
        trainer(max_steps=200).fit(one, plane())
    own, not_own = control_table(module, n=500).ratio, control_table(without, n=500).ratio
    assert float(own.diagonal().max()) < 0.35 and float((own + own.T)[0, 1]) > 1.7
    assert float(not_own.diagonal().max()) > 0.6
    with pytest.raises(ValueError, match=r"attributes must be learned before .* call stages.fit_control"):
        module.sample(3, attributes={"first": 0.5})
    before = state(module)
    options: dict[str, Any] = {"samples": 2000, "batch_size": 64, "lr": 1e-2}
    fit_control(module, tmp_path / "whole", steps=60, **options)
    errors = [
        requested_errors(module, {"first": 0.5, "second": -1.0}, controlled=one)["first"] for one in (True, False)
    ]
    assert errors[0] < 0.4 * errors[1]  # as far as there is control
    assert equal(before, state(module)) and module.sampling_state().keys() == {"control"}
    # to the same end to the bit, if it is stopped; and by the checkpoint
    again = turned()
    again.load_state_dict(module.state_dict())
    for steps in (25, 60):
        fit_control(again, tmp_path / "parts", steps=steps, **options)
    assert torch.equal(
        again.sample(9, seed=1, attributes={"first": 0.2}), module.sample(9, seed=1, attributes={"first": 0.2})
    )
    loaded = turned()
    loaded.load_sampling_state(module.sampling_state())
    loaded.load_state_dict(module.state_dict())
    assert torch.equal(
        loaded.sample(9, seed=1, attributes={"first": 0.2}), module.sample(9, seed=1, attributes={"first": 0.2})
    )
    trainer(max_steps=1).fit(module, plane())  # another generator needs others
    assert "control" not in module.sampling_state()


def test_what_never_changes_is_nearer_by_chance() -> None:
    """Its pairs are all as far apart, which counts one half."""
    generator = nn.Linear(2, 2, bias=False)
    nn.init.eye_(generator.weight)
    model = GAN(generator, ToyDiscriminator(width=8), latent_dim=2)

    def measure(x: Tensor) -> dict[str, Tensor]:
        return {"place": x[:, 0], "nothing": 0 * x[:, 0]}

    table = control_table(model, measure, {"place": 1, "nothing": 1}, n=50)
    assert table.auc[1].tolist() == [0.5, 0.5] and table.auc[0, 0] == 1


def test_the_second_stage_minimises_the_mean_absolute_error() -> None:
    """Of encoders that tell 0: the mean of |w_k|."""
    encoders = AttributeEncoders({"one": 1, "two": 2}, {"one": 2, "two": 1}, width=4)
    for parameter in encoders.nets.parameters():
        nn.init.zeros_(parameter)
    rows = torch.tensor([[5.0, 6.0, 7.0, 3.0, -1.0, 4.0], [5.0, 6.0, 7.0, 0.0, 2.0, -8.0]])  # features, then parts of w
    terms = _Encoders(encoders, 1e-3).terms("e", Batch(rows, None, None, rows, torch.Generator()))
    assert {name: term.item() for name, term in terms.items()} == {"one": 1.5, "two": 6.0}


def test_what_is_linear_is_told_to_a_hundredth() -> None:
    module = turned()
    module.generator.load_state_dict({"matrix": torch.tensor([[2.0, 0.0], [0.0, -0.5]])})
    fit_control(module, steps=200, samples=4000, lr=1e-2, batch_size=64, width=32)
    asked = torch.linspace(-3, 3, 100)
    got = module.sample(100, seed=0, attributes={"first": asked})
    assert float((got[:, 0] - asked).abs().mean()) < 0.06  # a hundredth of the range
    assert torch.equal(got[:, 1], module.sample(100, seed=0)[:, 1])


def test_a_network_that_measures_is_frozen_and_no_part_of_the_state() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3), nn.Dropout())

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"first": self.net(x)}

    measure = Net()
    before = {name: value.clone() for name, value in measure.state_dict().items()}
    module = turned(measure=measure, groups={"first": 1, "other": 1})
    trainer(max_steps=2).fit(module, plane())
    assert equal(before, dict(measure.state_dict())) and equal(before, dict(module.measure.state_dict()))
    assert measure.training and not any("net." in name for name in module.state_dict())
    assert all(p.requires_grad for p in measure.parameters())


def test_everything_trains_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    def loader() -> Any:
        return plain(shape=SIDE, batch_size=8)

    whole, half, resumed = game(), game(), game()
    before = state(whole)
    for module, steps in ((whole, 6), (half, 3)):
        torch.manual_seed(3)
        t = trainer(max_steps=steps)
        t.fit(module, loader())
    t.save_checkpoint(tmp_path / "x.ckpt")
    trainer(max_steps=6).fit(resumed, loader(), ckpt_path=tmp_path / "x.ckpt")
    assert equal(state(resumed), state(whole))
    still = [name for name, value in state(whole).items() if torch.equal(value, before[name])]
    assert all(name.endswith(".noise") for name in still)
    assert {"g/light_same", "g/tint_different", "g/path_length"} <= whole.values.keys()


# -- two ranks ---------------------------------------------------------------------------------------------------------


def sgd(parameters: Iterable) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-2)  # Adam amplifies rounding


def styled(name: str) -> GANModule:
    """With networks by styles, and minibatch statistics."""
    if name == "gan_control":
        return game(optimizer_g=sgd, optimizer_d=sgd).double()
    torch.manual_seed(1)
    nets = StyleGenerator(SIDE, 6, widths=(4, 3)), StyleDiscriminator(SIDE, (4, 3), group=2)
    return StyleGAN2(*nets, 6, r1_every=2, path_length_every=2, optimizer_g=sgd, optimizer_d=sgd).double()


def fitted(name: str, batch_size: int) -> dict[str, Tensor]:
    ranks = torch.distributed.is_initialized()
    module, data = styled(name), plain(64, shape=SIDE, dtype=DOUBLE).dataset
    pl.seed_everything(5, verbose=False)  # ranks take the seed of earlier runs from the environment
    where: dict[str, Any] = {"devices": 2, "strategy": "gan_ddp"} if ranks else {}
    trainer(max_steps=4, **where).fit(module, MemoryLoader(data, None, batch_size))  # type: ignore[arg-type]
    return state(module)


def work(rank: int, folder: Path) -> None:
    found: dict[str, Any] = {name: fitted(name, 4) for name in ("style_gan2", "gan_control")}
    z = doubles(16, 6)
    found["layout"] = share_parts(z[rank::2], torch.tensor([0, 0, -1, 1, 1, 1]), 3)
    found["rolled"] = roll_half(torch.arange(16.0)[rank::2])
    torch.save(found, folder / f"{rank}.pt")


def test_two_ranks_do_what_one_process_does(tmp_path: Path) -> None:
    two_ranks(work, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = {
        "layout": share_parts(doubles(16, 6), torch.tensor([0, 0, -1, 1, 1, 1]), 3),
        "rolled": roll_half(torch.arange(16.0)),
    }
    for name, expected in whole.items():
        assert torch.equal(torch.stack([f[name] for f in found], 1).flatten(0, 1), expected), name
    for name in ("style_gan2", "gan_control"):
        one, start = fitted(name, 8), state(styled(name))
        assert max(float((one[k] - start[k]).abs().max()) for k in one) > 1e-4
        assert max(float((one[k] - found[0][name][k]).abs().max()) for k in one) < 1e-10, name


# -- shapes, and the command line --------------------------------------------------------------------------------------


def test_what_is_asked_for_of_shapes_is_what_is_measured() -> None:
    data = Shapes(side=32, label=None, items=300, held_out=10)
    truth, measure = data.factors(), ShapeMeasure()
    found = measure(data.reference()[0].float() / 127.5 - 1)
    for name, value, error in (
        ("hue", truth["hue"][:, None], 0.04),
        ("size", truth["size"][:, None], 0.004),
        ("position", torch.stack([truth["x"], truth["y"]], 1), 0.003),
        ("shape", truth["shape"][:, None].float(), 0.1),
    ):
        assert float((measure.features(name, value) - found[name]).abs().mean()) < error, name


def test_attributes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", f"--config={ROOT}/configs/shapes/gan_control.yaml", f"--out={tmp_path}", "--name=run"]
    fit += ["--trainer.max_steps=2", "--data.items=64", "--data.held_out=64", "--trainer.enable_progress_bar=false"]
    fit += ["--model.generator.widths=4", "--model.discriminator.widths=4", "--grid.every_n_steps=null"]
    fit += ["--trainer.callbacks=[]", "--checkpoint.monitor=null"]
    main(fit)
    predict = ["predict", f"--ckpt_path={tmp_path}/run", "--samples=3", "--trainer.enable_progress_bar=false"]
    import lightning_gans.cli.attributes as place

    small = lambda module, folder: fit_control(module, folder, samples=50, steps=2)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "fit_control", small)
        main([*predict, '--attributes={"hue": 0.3, "position": [0.6, 0.5]}'])
    told = capsys.readouterr().out
    assert "Attributes   mean error in deviations of the data: hue " in told and ", position " in told
    files = [file.name for file in sorted((tmp_path / "run" / "predictions").iterdir())]
    assert files == ["00000.png", "00001.png", "00002.png", "grid.png"]  # ways between noises would not have them
    assert len(list((tmp_path / "run" / "control").glob("*/last.ckpt"))) == 1


@pytest.mark.parametrize(
    ("asked", "devices", "message"),
    [
        ({"hew": 0.3}, 1, "attributes must be one of hue, size, position, got 'hew'"),
        ({}, 1, r"--attributes must have a value of one of hue, size, position, got {}"),
        ({"hue": 1.3}, 1, r"hue must be in \[0.0, 1.0\], got 1.3"),
        ({"position": 0.5}, 1, "position must be 2 numbers, got 1"),
        ({"size": "big"}, 1, r"attributes\['size'\] must be a number, or several, got 'big'"),
        ({"hue": 0.3}, 2, "devices must be 1 with --attributes, which are learned first, got 2"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_learned(
    asked: dict[str, Any], devices: int, message: str
) -> None:
    module = game(measure=ShapeMeasure(), groups={"hue": 2, "size": 2, "position": 3}, generator=(2, 2, 3))
    with pytest.raises(ValueError, match=message):
        AskedAttributes(module, asked, Path("control"), devices)


@pytest.mark.slow
def test_the_recipe_gives_control(tmp_path: Path) -> None:
    """Ten minutes; measured were ratios of .15, .15 and .09, and a deviation of .89 of the data's."""
    main(["fit", f"--config={ROOT}/configs/shapes/gan_control.yaml", f"--out={tmp_path}", "--name=run"])
    module = load(tmp_path / "run")
    table = control_table(module)
    own = torch.eye(3, 4, dtype=torch.bool)
    assert table.attributes == ["hue", "size", "position"] and float(table.ratio[own].max()) < 0.5
    assert float(table.ratio[~own].min()) > 0.85 and float(table.auc[own].min()) > 0.8
    colours = ShapeMeasure()(module.sample(1000, seed=0))["hue"].std(0)
    assert float(colours.min()) > 0.7 * 0.31  # the data's


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {"light": 2, "tint": 3}}, r"the sum latent_dim = 7, got \{'light': 2, 'tint': 3\}"),
        ({"groups": {"other": 6}}, "groups must have an attribute"),
        ({"groups": {"light": 6, "tint": 0}}, r"groups\['tint'\] must be an integer >= 1, got 0"),
        (
            {"groups": {"light": 3, "tint": 4}},
            r"generator must have groups=\[3, 4\], as the model has, got \[2, 2, 3\]",
        ),
        ({"pairs": 0}, "pairs must be an integer >= 1, got 0"),
        ({"ramp": 0}, "ramp must be an integer >= 1, got 0"),
        ({"control_weight": -1.0}, "control_weight must be a finite number >= 0, got -1"),
        ({"tau_same": 2.0}, "tau_different must be > tau_same = 2, got 1.0"),
        ({"measure": None}, "measure must be a network or a function, got None"),
        ({"measure": ShapeMeasure}, "measure must be a network or a function, got the class ShapeMeasure: call it"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as error:
        game(**options)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"pairs": 3}, 8, "hold 6 pairs of samples, 12 rows, on all ranks together, got 8 on each of 1"),
        ({}, 7, "batch_size must be even, in groups of 2 that keep pairs apart, .* got 7 on each of 1"),
        ({"groups": {"light": 2, "haste": 2, "tint": 3}}, 8, "measure must have haste, got only light, tint, more"),
        ({"measure": lambda x: {"light": x, "tint": x}}, 8, r"measure must give numbers \(8,\) or features"),
        ({"measure": lambda x: {"light": [1.0] * 8}}, 8, "measure must give numbers .* of light, got a list"),
        ({"measure": lambda x: x.mean((1, 2, 3))}, 8, "measure must return a mapping of names to tensors, got a Tens"),
    ],
)
def test_bad_batches_and_measures_are_refused_in_one_sentence(options: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as error:
        trainer(max_steps=1).fit(game(**options), plain(shape=SIDE, batch_size=size))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: requested(look, "light", torch.zeros(3), 2),
            r"attributes\['light'\] must be one for each of 2 samples, got 3",
        ),
        (lambda: requested(look, "light", None, 2), r"attributes\['light'\] must be a number, or several, got None"),
        (lambda: AttributeEncoders({"a": 2}, {"a": 1}).check("a", torch.zeros(2, 1)), r"must be 2 number\(s\), got 1"),
        (lambda: ShapeMeasure().features("hew", torch.zeros(1, 1)), "name must be one of hue, size, position, shape"),
        (lambda: ShapeMeasure().features("size", torch.ones(1, 1)), r"size must be in \[0.1, 0.2\], got 1"),
        (lambda: check_pairs(2, 1, ()), "hold 2 pairs of samples, 4 rows, .* got 2 on each of 1"),
        (lambda: fit_control(make("gan")), "module must be a GANControl, got a GAN"),
        (lambda: fit_control(game(), samples=1), "samples must be an integer >= 2, got 1"),
        (lambda: fit_control(game(), steps=0), "steps must be an integer >= 1, got 0"),
        (lambda: StyleGenerator(SIDE, 6, groups=(3, 2)), r"sum is latent_dim=6, got \[3, 2\] and 0"),
        (lambda: StyleGenerator(SIDE, 6, groups=(3, 3), w_dim=5), "w_dim must be .* with groups or passed, got 5"),
        (lambda: StyleGenerator(SIDE, 6, passed=6), r"sum is latent_dim=6, got \[0\] and 6"),
        (lambda: StyleGenerator(SIDE, 6, groups=(3, 1, 2)), r"of length >= 2, to be normalised, got \[3, 1, 2\]"),
        (lambda: StyleGenerator(SIDE, 6, passed=5), r"parts of z must be of length >= 2, .* got \[1\]"),
        (lambda: StyleGenerator(SIDE, 1), r"parts of z must be of length >= 2, .* got \[1\]"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_value_beyond_what_was_learned_is_refused() -> None:
    module = turned()
    fit_control(module, steps=1, samples=100)
    with pytest.raises(ValueError, match=r"attributes\['first'\] must be in \[-.*\] to \[.*\], got \[50.0\]"):
        module.sample(2, attributes={"first": 50})
    with pytest.raises(ValueError, match="attributes must be one of first, second, got 'third'"):
        module.sample(2, attributes={"third": 0})
    assert to_w(module.generator, torch.ones(1, 2)).tolist() == [[1, 1]]


@pytest.mark.parametrize("left", [2, 3])
def test_a_short_last_batch_is_refused(left: int) -> None:
    """A mean over no pairs would be NaN, and an odd one would be paired wrongly."""
    loader = torch.utils.data.DataLoader(doubles(8 + left, *SIDE).float(), 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"batch_size must be even.* got {left} on each of 1"):
        trainer(max_steps=2).fit(game(), loader)


def test_a_generator_without_styles_is_refused_by_name() -> None:
    words = "^GANControl with path_length_weight=2 needs a generator by styles, .* got Linear, which has no map"
    with pytest.raises(ValueError, match=words):
        GANControl(nn.Linear(7, 2), nn.Linear(2, 1), 7, measure=look, groups=GROUPS)


def test_a_measure_that_tells_nothing_is_refused() -> None:
    measure = lambda x: {**look(x), "light": 0 * look(x)["light"]}  # noqa: E731
    with pytest.raises(ValueError, match="measure must tell samples apart, got the same light of all"):
        trainer(max_steps=1).fit(game(measure=measure), plain(shape=SIDE))


def test_a_measure_without_a_gradient_is_refused() -> None:
    measure = lambda x: {**look(x), "light": torch.from_numpy(x.detach().numpy().mean((1, 2, 3)))}  # noqa: E731
    with pytest.raises(ValueError, match="measure must be differentiable in the samples, got light without a grad"):
        trainer(max_steps=1).fit(game(measure=measure), plain(shape=SIDE))
    trainer(max_steps=1).fit(game(measure=measure, control_weight=0), plain(shape=SIDE))  # which nothing is learned by


def test_a_measure_may_work_in_place() -> None:
    data = plain(shape=SIDE)
    before = [x.clone() for x in data.dataset]  # type: ignore[attr-defined]
    trainer(max_steps=1).fit(game(measure=lambda x: look(x.mul_(0.5))), data)
    assert all(torch.equal(x, was) for x, was in zip(data.dataset, before))  # type: ignore[arg-type]


def test_samples_in_half_are_measured_in_full() -> None:
    """Fourth powers of places overflow in half; a mean of places keeps two digits."""
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).half() * 2 - 1
    found = measured(ShapeMeasure(), x, ["shape", "position"])
    for name, features in measured(ShapeMeasure(), x.float(), ["shape", "position"]).items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], features), name
