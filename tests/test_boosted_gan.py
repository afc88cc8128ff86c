"""Mixtures of frozen generators and a new one, and the game that the new one plays."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import GAN, BoostedGAN
from lightning_gans.callbacks import EMA
from lightning_gans.cli import main
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.losses import LOSSES, RELATIVISTIC
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.wrappers import MixtureGenerator, mixture

DOUBLE = torch.float64


class Level(nn.Module):
    """Samples at one value, plus a little of the noise; counts its rows."""

    def __init__(self, value: float, spread: float = 0.0) -> None:
        super().__init__()
        self.value, self.spread, self.rows = nn.Parameter(torch.tensor(float(value))), spread, 0

    def forward(self, z: Tensor) -> Tensor:
        self.rows += len(z)
        return self.value + self.spread * z[:, :1]


def levels(*values: float, p: float = 0.9, **options: Any) -> MixtureGenerator:
    """Boosted from the left to the right, always with weight p for what was there."""
    net: nn.Module = Level(values[0])
    for value in values[1:]:
        net = MixtureGenerator(net, Level(value), p, **options)
    assert isinstance(net, MixtureGenerator)
    return net


def noise(n: int, width: int = 2) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------- the mixture
def test_weights_of_a_mixture_that_was_boosted_twice() -> None:
    net = MixtureGenerator(levels(0, 1, p=0.9), Level(2.0), 0.8)
    torch.testing.assert_close(net.weights, torch.tensor([0.72, 0.08, 0.2]))
    assert len(net.components) == 3 and net.num_classes is None
    net = net.double()
    assert float(net.weights.sum().detach()) == pytest.approx(1, abs=1e-7)


def test_samples_are_of_each_component_with_its_probability() -> None:
    net, z = levels(0, 1, 2, p=0.8).eval(), noise(40_000)
    x = net(z)[:, 0]
    for value, weight in zip((0, 1, 2), (0.64, 0.16, 0.2)):
        error = (weight * (1 - weight) / len(z)) ** 0.5
        assert abs(float((x == value).double().mean()) - weight) < 3 * error
    for value in (0, 1, 2):  # what a component sees is noise as ever
        seen = z[x == value]
        assert abs(float(seen.mean())) < 3 / seen.numel() ** 0.5 and float(seen.std()) == pytest.approx(1, abs=0.03)


def test_the_same_noise_gives_the_same_samples() -> None:
    """In another batch, in another order, in another precision; and a component computes its own rows only."""
    net, z = MixtureGenerator(Level(0.0, 0.1), Level(1.0, 0.1), 0.5).eval(), noise(64)
    x = net(z)
    assert net.components[0].rows + net.components[1].rows == 64 and net.components[0].rows > 20
    assert torch.equal(net(z.flip(0)).flip(0), x) and torch.equal(torch.cat([net(z[:7]), net(z[7:])]), x)
    assert torch.equal(copy.deepcopy(net).double()(z.double()).round(), x.double().round())


def test_training_batches_are_dealt_out_exactly() -> None:
    net = levels(0, 1, 2, p=0.8, share=0.25)
    x = net(noise(40))[:, 0]
    assert (x[:10] < 2).all() and (x[10:] == 2).all()
    assert {0.0, 1.0} >= set(x[:10].tolist())
    weights = net.importance(40)
    assert weights[:10].tolist() == pytest.approx([0.8 / 0.25] * 10) and weights[10:].tolist() == pytest.approx(
        [0.2 / 0.75] * 30
    )
    assert torch.equal(net(noise(40)), net(noise(40)))
    many = net(noise(40_000))[:10_000, 0]
    assert float((many == 0).double().mean()) == pytest.approx(0.8, abs=3 * 0.004)


@pytest.mark.parametrize(("n", "share"), [(4, 0.5), (5, 0.5), (7, 0.3), (3, 0.01), (3, 0.99)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_importance_is_global_over_processes(monkeypatch: pytest.MonkeyPatch, n: int, share: float, world: int) -> None:
    """Row i of rank r is row i W + r of one process; weights have mean one over all, with components as drawn."""
    net = levels(0, 1, p=0.9, share=share)
    whole, weights = net(noise(n * world))[:, 0], net.importance(n * world)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    assert float((weights * (whole == 0)).mean()) == pytest.approx(0.9, abs=1e-6)
    for rank in range(world):
        monkeypatch.setattr(mixture, "rank_and_world", lambda rank=rank: (rank, world))
        assert torch.equal(net(noise(n))[:, 0], whole[rank::world])
        torch.testing.assert_close(net.importance(n), weights[rank::world])


def test_one_sample_is_no_batch_of_a_mixture() -> None:
    net = levels(0, 1)
    with pytest.raises(ValueError, match="at least 2 samples, one of each side, got 1"):
        net(noise(1))
    assert levels(0, 1, share=0.0).importance(3).tolist() == [1, 1, 1]
    assert net.eval()(noise(1)).shape == (1, 1)


def test_frozen_components_keep_to_themselves() -> None:
    base = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    net = MixtureGenerator(base, nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), 0.6)
    before = copy.deepcopy(net.components[0].state_dict())
    net.train()
    z = noise(20).requires_grad_()
    net(z).sum().backward()
    assert z.grad is not None and not z.grad[:10].any() and z.grad[10:].any()
    assert not any(p.requires_grad for p in (net.logit, *net.components[0].parameters()))
    assert not net.components[0][1].training and net.components[1][1].training and base.training
    assert equal(before, net.components[0].state_dict())
    assert all(p.grad is None for p in net.components[0].parameters()) and base[0].weight.requires_grad
    assert all(p.grad is not None for p in net.components[1].parameters()) and net.logit.grad is None


def test_labels_go_with_their_rows() -> None:
    def conditional() -> ToyGenerator:
        return ToyGenerator(shape=(1,), latent_dim=2, width=4, depth=1, num_classes=3)

    torch.manual_seed(0)
    net, z, labels = MixtureGenerator(conditional(), conditional(), 0.5), noise(12), torch.arange(12) % 3
    assert net.num_classes == 3
    old, new = (c(z, labels) for c in net.components)
    torch.testing.assert_close(net(z, labels), torch.cat([old[:6], new[6:]]))
    x = net.eval()(z, labels)
    is_old, is_new = (torch.isclose(x, side, atol=1e-6) for side in (old, new))
    assert (is_old | is_new).all() and not is_old.all() and not is_new.all()


# ---------------------------------------------------------------------- the game
class Quadratic(nn.Module):
    """A discriminator that is curved, so that all samples matter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x[:, 0].square() - x[:, 0]


def game(p: float = 0.9, **options: Any) -> BoostedGAN:
    return BoostedGAN(Level(5.0, 1.0), Quadratic(), 1, **{"base": Level(0.0, 1.0), "p": p, **options}).double()


@pytest.mark.parametrize("loss", [name for name in LOSSES if name not in RELATIVISTIC])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_terms_are_expectations_under_the_mixture(loss: str, share: float) -> None:
    """p E_G + (1 - p) E_{G_1} on both sides, whatever is drawn more often."""
    module, z = game(0.9, loss=loss, share=share), noise(400, 1).double()
    batch = Batch(torch.randn(400, 1, dtype=DOUBLE), None, torch.rand(400, dtype=DOUBLE) * 2, z)
    fake, first = module(z), int(400 * share)
    scores = [module.discriminator(x) for x in (fake[:first], fake[first:])]
    parts, p = [float(module.loss.generator(s)) for s in scores], float(module.generator.p)
    found = module.generator_terms(batch, fake)["adversarial"]
    assert float(found) == pytest.approx(p * parts[0] + (1 - p) * parts[1], abs=1e-10)
    real = module.discriminator(batch.real)
    d = [float(module.loss.discriminator(real, s, real_weight=batch.weights)) for s in scores]
    found = module.discriminator_terms(batch, fake.detach())["adversarial"]
    assert float(found) == pytest.approx(p * d[0] + (1 - p) * d[1], abs=1e-10)
    assert p == pytest.approx(0.9, abs=1e-7)


def test_the_new_generators_gradient_has_the_factor_of_its_weight() -> None:
    found = {}
    for p in (0.9, 0.6):
        module, z = game(p), noise(400, 1).double()
        term = module.generator_terms(Batch(z, None, None, z), module(z))["adversarial"]
        found[p] = float(torch.autograd.grad(term, module.generator.components[1].value)[0])
    assert found[0.9] / found[0.6] == pytest.approx(0.1 / 0.4, rel=1e-5) and abs(found[0.9]) > 1e-4


def slope_by_p(p: float) -> tuple[float, float]:
    """dL/da for p = sigmoid(a), by autograd and by its formula, against the best D for .9 N(0, 1) + .1 N(5, 1)."""
    module = game(p, learn_p=True)

    def best(x: Tensor) -> Tensor:
        near, far = -(x[:, 0] ** 2) / 2, -((x[:, 0] - 5) ** 2) / 2
        data, fake = (torch.logaddexp(near + math.log(w), far + math.log1p(-w)) for w in (0.9, p))
        return data - fake

    module.score = lambda x, batch: best(x)  # type: ignore[method-assign]
    z = noise(4000, 1).double()
    fake = module(z)
    term = module.generator_terms(Batch(z, None, None, z), fake)["adversarial"]
    losses = [float(-torch.nn.functional.logsigmoid(best(x)).mean()) for x in (fake[:2000], fake[2000:])]
    return float(torch.autograd.grad(term, module.generator.logit)[0]), p * (1 - p) * (losses[0] - losses[1])


@pytest.mark.parametrize(("p", "sign"), [(0.7, -1), (0.8, -1), (0.9, 0), (0.95, 1)])
def test_p_rests_where_both_components_look_equally_real(p: float, sign: int) -> None:
    found, formula = slope_by_p(p)
    assert found == pytest.approx(formula, abs=1e-6)
    assert abs(found) < 1e-6 if sign == 0 else found * sign > 0.005


def test_p_moves_only_if_it_is_to_be_learned() -> None:
    for name, moved in (("boosted", False), ("boosted_learned", True)):
        module: Any = make(name, lr_g=0.01)
        trainer(max_steps=3).fit(module, train_dataloaders=plain())
        assert (abs(float(module.generator.p) - 0.7) > 1e-3) is moved
        assert float(module.values["g/p"]) == pytest.approx(0.7, abs=0.02)


# ---------------------------------------------------------------------- what it grows from
def test_it_is_grown_from_any_module_and_grows_on() -> None:
    """The frozen ones stay to the bit; the average is what counts, where there is one."""
    first: Any = make("wgan")
    trainer(max_steps=3, callbacks=[EMA(0.5)]).fit(first, train_dataloaders=plain())
    average = copy.deepcopy(first.ema.state_dict())
    assert not equal(average, first.generator.state_dict())
    second = BoostedGAN(make("gan").generator, make("gan").discriminator, 3, base=first)
    before = state(first)
    trainer(max_steps=3, callbacks=[EMA(0.5)]).fit(second, train_dataloaders=plain())
    assert equal(second.generator.components[0].state_dict(), average) and equal(before, state(first))
    third = BoostedGAN(make("gan").generator, make("gan").discriminator, 3, base=second, p=0.5)
    trainer(max_steps=3).fit(third, train_dataloaders=plain())
    assert equal(third.generator.components[0].state_dict(), average)
    assert second.ema is not None
    assert equal(third.generator.components[1].state_dict(), second.ema.components[1].state_dict())
    torch.testing.assert_close(third.generator.weights, torch.tensor([0.45, 0.05, 0.5]))
    assert third.sample(5).shape == (5, 2)


def test_without_a_base_it_is_a_plain_gan() -> None:
    found = []
    for cls in (GAN, BoostedGAN):
        module = cls(make("gan").generator, make("gan").discriminator, 3, loss="hinge")
        torch.manual_seed(4)
        trainer(max_steps=3).fit(module, train_dataloaders=plain())
        found.append(state(module))
    assert equal(*found)


def test_a_checkpoint_of_the_command_line_is_enough(tmp_path: Path) -> None:
    nets = "--model.generator=ToyGenerator", "--model.discriminator=ToyDiscriminator"
    quiet = ("--data=Ring", "--data.batch_size=8", "--trainer.max_steps=2", "--trainer.accelerator=cpu",
             "--trainer.enable_progress_bar=false", "--trainer.logger=false", "--grid.every_n_steps=null")  # fmt: skip
    main(["fit", "--model=GAN", "--model.latent_dim=2", *nets, *quiet, "--name=first"])
    path = "runs/first/checkpoints/last.ckpt"
    main(["fit", "--model=BoostedGAN", "--model.latent_dim=2", f"--model.base={path}", *nets, *quiet, "--name=second"])
    old = GAN.load_from_checkpoint(path)
    new = BoostedGAN.load_from_checkpoint("runs/second/checkpoints/last.ckpt")
    assert equal(new.generator.components[0].state_dict(), old.generator.state_dict())
    assert not equal(new.generator.components[1].state_dict(), old.generator.state_dict())
    assert new.sample(4).shape == (4, 2)


def test_a_checkpoint_of_a_script_does_not_tell_its_networks(tmp_path: Path) -> None:
    t = trainer(max_steps=1)
    t.fit(make("gan"), train_dataloaders=plain())
    t.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"base: .* the networks are not told by it: .* Or give the module itself"):
        game(base=str(tmp_path / "a.ckpt"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p": 1.0}, r"p must be in \(0, 1\), got 1.0"),
        ({"share": 0.0}, r"share must be in \(0, 1\), got 0.0"),
        ({"generator": levels(0, 1)}, "base must be None for a generator that is a mixture already, got a ToyGen"),
        ({"loss": "best"}, "loss must be one of"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], words: str) -> None:
    given = {"generator": ToyGenerator(), "base": ToyGenerator(), **options}
    with pytest.raises(ValueError, match=words):
        BoostedGAN(given.pop("generator"), ToyDiscriminator(), 2, **given)


def test_a_mixture_says_what_it_cannot_be() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"p": 0}, "p must"), ({"share": 1}, "share must"), ({"share": 0, "learn_p": True}, "share is 0")
    ]  # fmt: skip
    for options, words in cases:
        with pytest.raises(ValueError, match=words):
            MixtureGenerator(Level(0), Level(1), **options)
