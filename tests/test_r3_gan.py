"""R3GAN: pairs, and zero-centred penalties at real and at generated samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import make, plain, trainer
from torch import Tensor, nn

from lightning_gans import R3GAN, TECHNIQUES
from lightning_gans.callbacks import EMA
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Grid, Ring
from lightning_gans.engine.batch import Batch
from lightning_gans.metrics import mode_coverage
from lightning_gans.networks import R3Discriminator, R3Generator, ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import R1, R2

CONFIGS = Path(__file__).parent.parent / "configs"
DOUBLE = torch.float64


class Quadratic(nn.Module):
    """f(x) = a . x + b |x|^2 / 2, whose gradient is a + b x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.3, -0.7], dtype=DOUBLE))
        self.b = nn.Parameter(torch.tensor(0.4, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a + self.b * x.square().sum(1) / 2


def game(**options: Any) -> R3GAN:
    return R3GAN(ToyGenerator(shape=(2,), latent_dim=3, width=8), Quadratic(), 3, **options).double()


def points(seed: int) -> Tensor:
    return torch.randn(6, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def test_terms_and_their_gradients_by_hand() -> None:
    module, x, y = game(gamma=0.75), points(1), points(2)
    f: Any = module.discriminator
    terms = module.discriminator_terms(Batch(x, None, None, y), y)
    a, b = f.a.detach(), f.b.detach()
    gap = (f(x) - f(y)).detach()
    assert terms.keys() == {"adversarial", "r1", "r2"} == module.own_terms.keys()
    assert float(terms["adversarial"]) == pytest.approx(float(torch.log1p(torch.exp(-gap)).mean()), rel=1e-12)
    for name, at in (("r1", x), ("r2", y)):
        slopes = a + b * at
        assert float(terms[name]) == pytest.approx(0.375 * float(slopes.square().sum(1).mean()), rel=1e-12)
        by_a, by_b = torch.autograd.grad(terms[name], [f.a, f.b], retain_graph=True)
        torch.testing.assert_close(by_a, 0.75 * slopes.mean(0))
        torch.testing.assert_close(by_b, 0.75 * (slopes * at).sum(1).mean())
    s = torch.sigmoid(-gap)  # d loss / d f(x_i) = -s_i / N, and + s_i / N by f(y_i)
    by_a, by_b = torch.autograd.grad(terms["adversarial"], [f.a, f.b])
    torch.testing.assert_close(by_a, -(s[:, None] * (x - y)).mean(0))
    torch.testing.assert_close(by_b, -(s * (x.square() - y.square()).sum(1) / 2).mean())
    fake = y.clone().requires_grad_()
    (term,) = module.generator_terms(Batch(x, None, None, y), fake).values()
    assert float(term) == pytest.approx(float(torch.log1p(torch.exp(gap)).mean()), rel=1e-12)
    (by_fake,) = torch.autograd.grad(term, fake)
    torch.testing.assert_close(by_fake, -torch.sigmoid(gap)[:, None] * (a + b * y) / 6)


def test_gradcheck_of_the_discriminators_loss() -> None:
    module, x, y = game(gamma=0.8), points(1), points(2)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        f = lambda at: at @ a + b * at.square().sum(1) / 2  # noqa: E731
        module.critic = lambda batch: f  # type: ignore[method-assign,assignment]
        module.score = lambda at, batch: f(at)  # type: ignore[method-assign]
        return torch.stack(list(module.discriminator_terms(Batch(x, None, None, y), y).values())).sum()

    inputs = [p.detach().clone().requires_grad_() for p in module.discriminator.parameters()]
    assert torch.autograd.gradcheck(loss, inputs) and torch.autograd.gradgradcheck(loss, inputs)


def test_the_level_of_f_is_free_and_there_is_no_ratio() -> None:
    module, x, y = make("r3_gan").double(), points(1), points(2)
    before = module.discriminator_terms(Batch(x, None, None, y), y)
    with torch.no_grad():
        module.discriminator.layers[-1].bias += 5
    after = module.discriminator_terms(Batch(x, None, None, y), y)
    for name in before:
        torch.testing.assert_close(before[name], after[name])
    same = module.generator_terms(Batch(x, None, None, x), x)["adversarial"]
    assert float(same) == pytest.approx(math.log(2), rel=1e-14) and module.log_ratio is None


def test_a_pairs_weight_and_who_is_paired() -> None:
    module, x, y = game(gamma=0.0), points(1), points(2)
    weights = torch.tensor([2.0, 0, 1, 1, 0.5, 1.5], dtype=DOUBLE)
    gap = (module.discriminator(x) - module.discriminator(y)).detach()
    for order in (torch.arange(6), torch.arange(5, -1, -1)):
        pairs = (module.discriminator(x) - module.discriminator(y[order])).detach()
        (term,) = module.discriminator_terms(Batch(x, None, weights, y), y[order]).values()
        assert float(term) == pytest.approx(float((weights * torch.log1p(torch.exp(-pairs))).mean()), rel=1e-12)
    assert not torch.allclose(gap, pairs)


def test_the_terms_are_those_of_the_regularizers() -> None:
    torch.manual_seed(0)
    module, x, y = make("r3_gan", gamma=0.8).double(), points(1), points(2)
    terms = module.discriminator_terms(Batch(x, None, None, y), y)
    for name, regularizer in (("r1", R1(0.8)), ("r2", R2(0.8))):
        expected = 0.8 * regularizer(module.discriminator, Batch(x, None, None, y), y)
        torch.testing.assert_close(terms[name], expected, rtol=1e-7, atol=0)  # gamma was float32
    with pytest.raises(ValueError, match="'r1' more than once"):
        make("r3_gan", regularizers=[R1()])


def test_gamma_and_beta2_follow_half_a_cosine() -> None:
    module: Any = make("r3_gan", gamma=0.4, gamma_end=0.1, beta2_end=0.99, anneal_steps=4, betas=(0.0, 0.9))
    seen: list[tuple[float, float]] = []
    terms = module.discriminator_terms

    def recorded(batch: Batch, fake: Tensor) -> Any:
        seen.append((float(module.gamma), module.trainer.optimizers[0].param_groups[0]["betas"][1]))
        return terms(batch, fake)

    module.discriminator_terms = recorded
    trainer(max_steps=6).fit(module, plain())
    gammas = [0.4, 0.4 - 0.3 * (1 - math.sqrt(0.5)) / 2, 0.25, 0.1 + 0.3 * (1 - math.sqrt(0.5)) / 2, 0.1, 0.1]
    assert [g for g, _ in seen] == pytest.approx(gammas, rel=1e-6)
    assert [b for _, b in seen] == pytest.approx([0.9 + 0.09 * (0.4 - g) / 0.3 for g in gammas], rel=1e-6)
    assert not module.state_dict().keys() & {"gamma"}
    fixed: Any = make("r3_gan", gamma=0.4)
    trainer(max_steps=2).fit(fixed, plain())
    assert float(fixed.gamma) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0}, "gamma must be a finite number >= 0, got -1.0"),
        ({"gamma_end": 0.0}, "gamma_end must be a finite number > 0, got 0.0"),
        ({"gamma": 0, "gamma_end": 0.01}, "gamma_end must be None with gamma=0, .* penalties out, got 0.01"),
        ({"beta2_end": 1.0}, r"beta2_end must be in \(0, 1\), got 1.0"),
        ({"anneal_steps": 0}, "anneal_steps must be an integer >= 1, got 0"),
        ({"loss": "hinge"}, "loss must be relativistic, got 'hinge'"),
        ({"g_batch_factor": 2}, "g_batch_factor must be 1 with loss='relativistic', which goes by pairs, got 2"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("r3_gan", **options)


# ---------------------------------------------------------------------- networks
@pytest.mark.parametrize("side", [8, 16, 28, 32])
@pytest.mark.parametrize("num_classes", [None, 3])
def test_networks(side: int, num_classes: int | None) -> None:
    torch.manual_seed(0)
    shape, options = (2, side, side), {"cardinality": 4, "blocks": 1, "num_classes": num_classes}
    stages = {8: 2, 16: 3, 28: 3, 32: 4}[side]
    generator = R3Generator(shape, 5, [8, 4, 4, 2][:stages], **options)
    discriminator = R3Discriminator(shape, [8, 4, 4, 2][:stages], **options)
    labels = None if num_classes is None else torch.tensor([0, 2, 1])
    x = generator(torch.randn(3, 5), labels)
    assert x.shape == (3, *shape) and discriminator(x, labels).shape == (3,)
    names = {type(m).__name__ for net in (generator, discriminator) for m in net.modules()}
    assert not any("Norm" in name or name == "Tanh" for name in names)
    assert not list(discriminator.buffers()), "real and fake samples could not be scored in one pass"
    discriminator(x, labels).sum().backward()
    assert all(p.grad is not None for net in (generator, discriminator) for p in net.parameters())


def test_a_block_is_the_identity_at_first_and_keeps_the_scale_inside() -> None:
    torch.manual_seed(0)
    net = R3Generator((3, 32, 32), 64, widths=64, cardinality=8, blocks=2)
    blocks = [m for m in net.modules() if type(m).__name__ == "_Block"]
    x = torch.randn(2, 64, 8, 8)
    assert len(blocks) == 8 and all(torch.equal(block(x), x) for block in blocks)
    first, grouped = blocks[0].layers[0].weight, blocks[0].layers[2].weight
    gain = math.sqrt(2 / 1.04) * 8**-0.25
    assert float(first.std()) == pytest.approx(gain / 8, rel=0.05)
    assert grouped.shape == (128, 16, 3, 3) and float(grouped.std()) == pytest.approx(gain / 12, rel=0.05)
    critic = R3Discriminator((3, 32, 32), widths=64, cardinality=8, blocks=2, num_classes=100)
    first = next(m for m in critic.modules() if type(m).__name__ == "_Block").layers[0].weight  # type: ignore[index,union-attr]
    assert float(first.std()) == pytest.approx(gain / 8, rel=0.05)
    assert critic.embed is not None and float(critic.embed.weight.std()) == pytest.approx(1 / 8, rel=0.05)


def test_resampling_is_the_filter_1_2_1() -> None:
    from lightning_gans.networks import r3

    kernel = torch.tensor([1.0, 2, 1])
    kernel = (kernel[:, None] * kernel)[None, None]
    x = torch.randn(1, 1, 6, 6)
    expected = torch.nn.functional.conv2d(x, kernel / 16, stride=2, padding=1)
    torch.testing.assert_close(r3._Down()(x), expected)
    expected = torch.nn.functional.conv_transpose2d(x, kernel / 4, stride=2, padding=1, output_padding=1)
    torch.testing.assert_close(r3._Up()(x), expected)


def test_bad_widths() -> None:
    with pytest.raises(ValueError, match="R3Generator: widths must be one number or 3 at 16 pixels, got 2"):
        R3Generator((1, 16, 16), widths=[8, 8])
    with pytest.raises(ValueError, match="R3Discriminator: widths must be multiples of half the cardinality, 8, got 6"):
        R3Discriminator((1, 16, 16), widths=6)


# ---------------------------------------------------------------------- learning
class Point(nn.Module):
    """A generator of one point."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([at]))

    def forward(self, z: Tensor) -> Tensor:
        return self.at.expand(len(z), 1)


class Slope(nn.Module):
    """f(x) = psi x"""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.psi * x.squeeze(1)


def dirac(gamma: float, only: str | None = None) -> tuple[float, float]:
    """Distance from the data at 0, and slope, after 200 steps of plain gradients (the game of arXiv:1801.04406)."""
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.2)  # noqa: E731
    module: Any = R3GAN(Point(1.0), Slope(), 1, gamma=gamma, optimizer_g=sgd, optimizer_d=sgd)
    terms = module.discriminator_terms
    if only is not None:
        module.discriminator_terms = lambda *a: {k: v for k, v in terms(*a).items() if k in ("adversarial", only)}
    data = torch.utils.data.DataLoader([torch.zeros(1)] * 4000, 4)  # type: ignore[arg-type]
    trainer(max_steps=200).fit(module, data)
    return abs(float(module.generator.at)), abs(float(module.discriminator.psi))


def test_the_penalties_make_the_game_on_a_point_converge() -> None:
    """Without them the players go round in circles for ever; either half already damps them."""
    assert max(dirac(1.0)) < 0.01
    assert max(dirac(0.0)) > 0.2
    assert max(dirac(1.0, "r1")) < 0.05 and max(dirac(1.0, "r2")) < 0.05


def test_a_trained_discriminator_meets_the_known_optimum() -> None:
    """f = psi x of data at 1 and fakes at 0: sigmoid(-psi) = 2 gamma psi, or gamma psi with one of the penalties."""
    found = {}
    for only in (None, "r1", "r2"):
        module: Any = R3GAN(Point(0.0), Slope(), 1, gamma=0.5, lr_g=0.0, lr_d=0.03, betas=(0.0, 0.9))
        terms = module.discriminator_terms
        if only is not None:
            module.discriminator_terms = lambda *a, t=terms, o=only: {
                k: v for k, v in t(*a).items() if k in ("adversarial", o)
            }
        data = torch.utils.data.DataLoader([torch.ones(1)] * 4000, 4)  # type: ignore[arg-type]
        trainer(max_steps=200).fit(module, data)
        found[only] = float(module.discriminator.psi)
    both, one = root(1.0), root(0.5)
    assert found[None] == pytest.approx(both, abs=0.02)
    assert found["r1"] == pytest.approx(one, abs=0.02) and found["r2"] == pytest.approx(one, abs=0.02)


def root(gamma: float) -> float:
    """psi with sigmoid(-psi) = gamma psi."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if 1 / (1 + math.exp(middle)) < gamma * middle else (middle, high)
    return low


def coverage(technique: str, data: str, seed: int) -> tuple[int, float]:
    """Modes covered and share of samples of high quality after 2,000 updates of a recipe."""
    recipe = yaml.safe_load((CONFIGS / data / f"{technique}.yaml").read_text())
    options, size = recipe["model"]["init_args"], recipe["data"]["init_args"]["batch_size"]
    width = options["generator"]["init_args"]["width"]
    pl.seed_everything(seed, verbose=False)
    nets = {"generator": ToyGenerator(width=width), "discriminator": ToyDiscriminator(width=width)}
    module = TECHNIQUES[technique](**{**options, **nets})
    points: Any = {"ring": Ring, "grid": Grid}[data](batch_size=size)
    trainer(max_steps=2000, limit_val_batches=0, callbacks=[EMA(0.99)]).fit(module, datamodule=points)
    found = mode_coverage(module.sample(10_000, seed=0), points.modes, 4 * points.std)
    return int(found.modes), float(found.high_quality)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["ring", "grid"])
def test_it_covers_more_modes_than_the_non_saturating_game(data: str) -> None:
    """In sum over three seeds at equal updates. Its samples are also sharper on the ring; on the grid they are not
    (docs/results/r3-gan.md), where the other game is sharp at the modes that it has."""
    scores = {name: [coverage(name, data, seed) for seed in (1, 2, 3)] for name in ("r3_gan", "gan")}
    modes, quality = ({name: sum(s[i] for s in seeds) for name, seeds in scores.items()} for i in (0, 1))
    assert modes["r3_gan"] >= modes["gan"]
    if data == "ring":
        assert quality["r3_gan"] > quality["gan"]


@pytest.mark.parametrize("joint", [False, True])
def test_scores_and_penalties_come_from_one_pass(joint: bool) -> None:
    """As in the released code, so that an augmentation is the same in both."""
    torch.manual_seed(0)
    module, x, y = make("r3_gan").double(), points(1), points(2)
    seen: list[int] = []
    module.discriminator.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    module._joint = joint
    assert len(module.discriminator_terms(Batch(x, None, None, y), y)) == 3
    assert seen == ([12] if joint else [6, 6])
