"""Techniques against problems with a known optimum; without its special term a technique must fail its test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from common import make, trainer
from torch import Tensor, nn

from lightning_gans import (
    DCGAN,
    GAN,
    WGAN,
    WGANALP,
    WGANGP,
    BoostedGAN,
    GANModule,
    PrimalDualGAN,
    RobustWGAN,
    UnrolledGAN,
)
from lightning_gans.callbacks import EMA
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Blob, Contaminated, MemoryLoader, RareTail1D, Ring, TailSampled, Threshold
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.penalties import gradient_norm, interpolate
from lightning_gans.metrics import mode_coverage, tail_mass
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.wrappers import MixtureGenerator


class Shift(nn.Module):
    """A fixed generator: z, which is standard normal."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        return z + 0 * self.unused


class Gap(torch.utils.data.IterableDataset):
    """Standard normal samples, shifted by one along the first axis."""

    def __iter__(self) -> Any:
        shift = torch.tensor([1.0, 0.0])
        while True:
            yield torch.randn(512, 2) + shift


class Linear(nn.Module):
    """f(x) = w . x"""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, 0.4]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def trained_critic(module: GANModule, steps: int) -> tuple[float, float, float]:
    """Estimate E f(x) - E f(z), slope along the gap, mean gradient norm on interpolates: of the trained critic."""
    pl.seed_everything(1, verbose=False)
    trainer(max_steps=steps).fit(module, train_dataloaders=torch.utils.data.DataLoader(Gap(), batch_size=None))
    f = module.discriminator
    z = torch.randn(50_000, 2)
    x = z + torch.tensor([1.0, 0.0])  # common random numbers: the same noise on both sides
    with torch.no_grad():
        estimate = float((f(x) - f(z)).mean())
    points = interpolate(x, torch.randn(50_000, 2))
    gradient = torch.autograd.grad(f(points.requires_grad_()).sum(), points)[0]
    return estimate, float(gradient[:, 0].mean()), float(gradient_norm(f, points, create_graph=False).mean())


def frozen_game(critic: nn.Module, weight: float) -> WGANGP:
    return WGANGP(Shift(), critic, 2, gp_weight=weight, d_steps=5, lr_d=2e-3, lr_g=0.0)


def meets_the_optimum(estimate: float, slope: float, norm: float) -> bool:
    """The optimal linear critic at gap m = 1, weight 10: ||w|| = 1 + m/20 = 1.05, objective m ||w|| - 10 (.05)^2."""
    value = estimate - 10 * (norm - 1) ** 2
    return abs(value / 1.025 - 1) < 0.1 and abs(slope / 1.05 - 1) < 0.1 and 0.9 < norm < 1.2


def test_gradient_penalty_finds_the_known_optimum() -> None:
    assert meets_the_optimum(*trained_critic(frozen_game(Linear(), 10.0), 150))


def test_without_the_penalty_the_known_optimum_is_missed() -> None:
    assert not meets_the_optimum(*trained_critic(frozen_game(Linear(), 0.0), 150))


@pytest.mark.slow
@pytest.mark.parametrize("weight, met", [(10.0, True), (0.0, False)])
def test_gradient_penalty_finds_the_known_optimum_with_an_mlp(weight: float, met: bool) -> None:
    critic = ToyDiscriminator(shape=(2,), width=64, depth=2)
    assert meets_the_optimum(*trained_critic(frozen_game(critic, weight), 400)) is met


def test_clipping_finds_the_corner_of_its_box() -> None:
    """The best linear critic with |w_i| <= c against the gap m = (1, 0) is w_1 = c, and its value is c."""
    module = WGAN(Shift(), Linear(), 2, c=0.05, lr_d=1e-2, lr_g=0.0)
    estimate, slope, _ = trained_critic(module, 40)
    assert slope == pytest.approx(0.05) and estimate == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("loss", ["minimax", "non_saturating"])
def test_optimal_discriminator_is_the_log_density_ratio(loss: str) -> None:
    """log p_d / p_g of N((1,0), 1) against N(0, 1) is x_1 - 1/2; the linear part is found."""
    module = GAN(Shift(), Linear(), 2, loss=loss, d_steps=5, lr_d=5e-2, lr_g=0.0, betas=(0.5, 0.9))
    _, slope, _ = trained_critic(module, 60)
    # without an intercept the best w solves E sigmoid(-w x) x = E sigmoid(w z) z, which 0.73 does (numerically)
    assert slope == pytest.approx(optimal_slope(), rel=0.1)


def optimal_slope() -> float:
    """argmin_w E softplus(-w x) + E softplus(w z), x ~ N(1, 1), z ~ N(0, 1), by quadrature and bisection."""
    t = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-t * t / 2) / (2 * torch.pi) ** 0.5

    def slope_of_loss(w: float) -> float:
        x, z = t + 1, t
        return float((density * (-torch.sigmoid(-w * x) * x + torch.sigmoid(w * z) * z)).sum())

    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope_of_loss(middle) < 0 else (low, middle)
    return low


class Dirac(nn.Module):
    """One point on the line, or the slope of a linear discriminator."""

    def __init__(self, value: float, generates: bool) -> None:
        super().__init__()
        self.value, self.generates = nn.Parameter(torch.tensor(value)), generates

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), 1) if self.generates else self.value * x[:, 0]


@pytest.mark.parametrize(("unroll_steps", "settles"), [(0, False), (5, True)])
def test_unrolling_settles_the_dirac_game(unroll_steps: int, settles: bool) -> None:
    """All data at 0, a point against a slope: gradient steps go round the equilibrium (0, 0) for ever."""
    sgd = lambda parameters: torch.optim.SGD(parameters, 0.3)  # noqa: E731
    options: Any = {"unroll_optimizer": "sgd", "unroll_lr": 0.3, "optimizer_g": sgd, "optimizer_d": sgd}
    module = UnrolledGAN(Dirac(1.0, True), Dirac(0.0, False), 1, unroll_steps=unroll_steps, **options)
    trainer(max_steps=150).fit(module, torch.utils.data.DataLoader(torch.zeros(300, 1), 2))
    distance = torch.stack([p.detach() for p in module.parameters()]).norm()
    assert (distance < 0.01) if settles else (distance > 0.5)


def on_the_ring(module: GANModule, steps: int) -> tuple[int, float]:
    """Modes covered and share of (EMA) samples within 0.1 of a mode after training on the 8-ring."""
    pl.seed_everything(2, verbose=False)
    data = Ring(batch_size=256)
    trainer(max_steps=steps, limit_val_batches=0, callbacks=[EMA(0.99)]).fit(module, datamodule=data)
    result = mode_coverage(module.sample(2000), data.modes, radius=0.1)
    return int(result.modes), float(result.high_quality)


def nets(width: int = 128, depth: int = 3) -> tuple[nn.Module, nn.Module, int]:
    torch.manual_seed(2)
    return ToyGenerator(width=width, depth=depth), ToyDiscriminator(width=width, depth=depth), 2


@pytest.mark.slow
def test_wgan_gp_learns_the_ring() -> None:
    modes, good = on_the_ring(WGANGP(*nets(), gp_weight=0.1, lr_g=5e-4, lr_d=5e-4, betas=(0.5, 0.9)), 1500)
    assert modes == 8 and good >= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("technique", [GAN, DCGAN])
def test_gan_learns_part_of_the_ring(technique: type[GAN]) -> None:
    """Some modes are dropped, as is known of this game: at least one is learned well."""
    modes, good = on_the_ring(technique(*nets(), loss="non_saturating", lr_g=1e-3, lr_d=1e-3), 2000)
    assert 1 <= modes <= 8 and good >= 0.5


@pytest.mark.slow
def test_wgan_moves_to_the_ring() -> None:
    """Clipped critics learn slowly: most mass comes near the ring, all directions are covered."""
    module = WGAN(*nets(), c=0.1, lr_g=5e-4, lr_d=5e-4)
    on_the_ring(module, 1500)
    radius = module.sample(2000).norm(dim=1)
    assert float(radius.median()) == pytest.approx(2 / 1.414, rel=0.15)


def test_make_is_deterministic() -> None:
    a, b = make("gan"), make("gan")
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


@pytest.mark.parametrize("weight, met", [(10.0, True), (0.0, False)])
def test_adversarial_lipschitz_penalty_finds_the_known_optimum(weight: float, met: bool) -> None:
    """The quotient of a linear critic is ||w|| in the worst direction: the optimum is that of the gradient penalty."""
    module = WGANALP(Shift(), Linear(), 2, alp_weight=weight, clip=None, g_batch_factor=1, lr_d=2e-3, lr_g=0.0)
    assert meets_the_optimum(*trained_critic(module, 150)) is met


class Spot(nn.Module):
    """A discriminator that sees nothing beyond half a unit from 3, where all data are."""

    def __init__(self) -> None:
        super().__init__()
        self.height, self.level = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.height * torch.exp(-(((x - 3) / 0.5) ** 2)).sum(1) + self.level


@pytest.mark.parametrize(("alpha", "distance"), [(1.0, 0.0), (0.0, 3.0)])
def test_the_kernel_term_finds_data_where_there_are_no_samples(alpha: float, distance: float) -> None:
    """The optimum is the point 3. The plain game (alpha = 0) has no gradient at 0, where the samples are, and stays."""
    pl.seed_everything(0, verbose=False)
    options: Any = {"sigma": 2.0, "relative": False, "lr_g": 5e-3, "lr_d": 2e-2}
    generator = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    module = PrimalDualGAN(generator, Spot(), 1, alpha=alpha, **options)
    trainer(max_steps=400).fit(module, torch.utils.data.DataLoader(torch.full((512, 1), 3.0), 64))
    assert float((module.sample(1000) - 3).abs().mean()) == pytest.approx(distance, abs=0.3)


class Slope(nn.Module):
    """f(x) = tanh(a) x, which is 1-Lipschitz."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.a.tanh() * x[:, 0]


@pytest.mark.parametrize(("rho", "left"), [(0.0264, 0.0), (0.01, 1 - (0.02 * 19) ** 0.5)])
@pytest.mark.parametrize("form", ["network", "discrete"])
def test_outliers_get_the_least_weight_that_the_ball_allows(form: str, rho: float, left: float) -> None:
    """190 samples where G is, 10 at 10: these are dropped from rho = .0263 on, and else keep 1 - sqrt(38 rho)."""
    data = torch.cat([torch.randn(190, 1, generator=torch.Generator().manual_seed(1)) / 10, torch.full((10, 1), 10.0)])
    torch.manual_seed(0)
    network = ToyDiscriminator(shape=(1,), width=16, depth=1) if form == "network" else None
    options: Any = {"weight_network": network, "gp_weight": 0.0, "d_steps": 1, "lr_d": 0.01, "lr_g": 0.0, "w_start": 0}
    module = RobustWGAN(Shift(), Slope(), 1, rho=rho, w_every=10 if network is None else 1, **options)
    trainer(max_steps=300).fit(module, MemoryLoader(data, None, 200))
    weights = module.sample_weights
    if network is not None:
        weights = module.weigh(Batch(data, None, None, data)).detach()
    assert weights is not None
    assert float(weights[-10:].mean()) == pytest.approx(left, abs=0.15 if form == "network" else 0.01)


def share_in_the_blob(module: GANModule) -> float:
    """Share of (EMA) samples near the blob after training on the 8-ring with 5 % of its points there."""
    pl.seed_everything(3, verbose=False)
    data = Contaminated(Ring(batch_size=256), Blob(), 0.05)
    trainer(max_steps=1500, limit_val_batches=0, callbacks=[EMA(0.99)]).fit(module, datamodule=data)
    samples = module.sample(5000)
    assert int(mode_coverage(samples, data.modes, radius=0.1).modes) == 8
    return float(((samples - Blob().modes).norm(dim=1) < 1).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "network", "discrete"])
def test_a_far_blob_is_left_out(form: str) -> None:
    """Plain WGAN-GP puts over 2 % there, the robust forms below 1 %."""
    same: Any = {"gp_weight": 0.1, "lr_g": 1e-3, "lr_d": 1e-3, "betas": (0.5, 0.9)}
    if form == "plain":
        assert share_in_the_blob(WGANGP(*nets(64), **same)) > 0.02
        return
    own: Any = {"weight_network": ToyDiscriminator(width=64)} if form == "network" else {"w_every": 20, "rho": 0.03}
    assert share_in_the_blob(RobustWGAN(*nets(64), **({"rho": 0.05} | own | same))) < 0.01


class Bumps(nn.Module):
    """A logit of its own for each part of the line, so that the tail's need not wait for the body's."""

    centres: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.arange(-3, 5.01, 0.25))
        self.w = nn.Parameter(torch.zeros(len(self.centres)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-((x - self.centres) / 0.35).square() / 2) @ self.w


def fast_p(parameters: Any) -> torch.optim.Optimizer:
    """The weight of the mixture, the one number, learns faster than the network beside it."""
    parameters = list(parameters)
    groups = [[p for p in parameters if p.ndim == 0], [p for p in parameters if p.ndim > 0]]
    rates = [{"params": group, "lr": lr} for group, lr in zip(groups, (2e-2, 1e-4))]
    return torch.optim.Adam(rates, betas=(0.5, 0.999))


class Normal(nn.Module):
    """mean + std z."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = nn.Parameter(torch.tensor([mean])), nn.Parameter(torch.tensor([std]))

    def forward(self, z: Tensor) -> Tensor:
        return self.mean + self.std * z


weighed = MixtureGenerator.importance


def unweighed(mixture: MixtureGenerator, n: int) -> Tensor:
    """Weights of 1 that have the gradient of the right ones' logarithms."""
    weights = weighed(mixture, n) + 1e-6  # one that is lost has none
    return weights / weights.detach()


@pytest.mark.slow
def test_the_share_of_a_rare_tail_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 % of the data lies beyond a gap. Of a mixture of the data's own two parts the learned weight goes from .05 to
    that 1 %. If fakes are drawn as often but not weighed, it does not."""
    data, masses = RareTail1D(batch_size=64), {}
    threshold, truth = data.tail_threshold, data.tail_mass
    assert threshold is not None and truth is not None
    decay = lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.02, 1200)  # noqa: E731
    for right in (True, False):
        base = GAN(Normal(0.0, 0.5), ToyDiscriminator((1,)), 1)
        options: dict[str, Any] = {"lr_d": 2e-2, "optimizer_g": fast_p, "scheduler_g": decay}
        module = BoostedGAN(Normal(3.0, 0.25), Bumps(), 1, base=base, p=0.95, learn_p=True, **options)
        if not right:
            monkeypatch.setattr(MixtureGenerator, "importance", unweighed)
        pl.seed_everything(11, verbose=False)
        source = TailSampled(data, Threshold(threshold))
        trainer(max_steps=1200, limit_val_batches=0, callbacks=[EMA(0.995)]).fit(module, datamodule=source)
        samples = module.sample(200_000, generator=torch.Generator().manual_seed(0))
        masses[right] = tail_mass(samples, threshold) / truth
    # eight seeds gave .985 to 1.006; to a tail at 2.81, of .30, it gives .65, so sensitive is the share to the shape
    assert masses[True] == pytest.approx(1, abs=0.05) and abs(masses[False] - 1) > 0.5, masses
