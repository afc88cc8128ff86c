"""Diffusion against closed forms, on the ring, and guided; each of its special terms taken out must be noticed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from common import doubles, equal, make, make_images, plain, trainer
from torch import Tensor, nn
from torch.distributions import Normal

from lightning_gans import DDPM, load
from lightning_gans.callbacks import EMA, ModeCoverage
from lightning_gans.cli import main
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MemoryLoader, Ring
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import draw
from lightning_gans.functional.diffusion import Diffusion, betas_of, cell_log_probability
from lightning_gans.metrics import mode_coverage
from lightning_gans.networks import DiffusionMLP, DiffusionUNet, TimedClassifier
from lightning_gans.nonadversarial.times import LossAwareTimes
from lightning_gans.samplers import Guided, LatentLangevin
from lightning_gans.stages import fit_noisy_classifier
from lightning_gans.tools import export

CONFIGS = Path(__file__).parent.parent / "configs"


class Doubled(nn.Module):
    """x_t for its noise, and for v."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([x, x], 1)


# ---------------------------------------------------------------------- schedules
def test_schedules() -> None:
    linear, cosine = (Diffusion(betas_of(name, 1000)) for name in ("linear", "cosine"))  # type: ignore[arg-type]
    assert float(linear.kept[-1]) == pytest.approx(4.04e-5, rel=2e-3)
    assert float(cosine.kept[0]) == pytest.approx(1, abs=1e-4) and bool((cosine.kept.diff() < 0).all())
    assert float(cosine.kept[499]) == pytest.approx(math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2, rel=1e-3)
    assert float(cosine.betas.max()) == 0.999 and betas_of("linear", 100)[0] == pytest.approx(1e-3)
    assert float(betas_of("linear", 10)[-1]) == 0.999
    for dtype in (torch.float32, torch.float64):  # entries are of the type of what they are multiplied by
        found = linear.at("signal", torch.tensor([3]), torch.zeros(1, dtype=dtype))
        assert found.dtype == dtype and float(found) == float(linear.signal[3].to(dtype))


def test_noising_at_once_is_noising_step_by_step() -> None:
    process, x = Diffusion(betas_of("cosine", 30)), doubles(4, 2)
    mean, variance = x.clone(), torch.zeros((), dtype=torch.float64)
    for t, beta in enumerate(process.betas):
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        at = torch.full((4,), t)
        torch.testing.assert_close(process.noised(x, at, torch.zeros_like(x)), mean, rtol=1e-12, atol=1e-14)
        assert float((1 - process.kept)[t]) == pytest.approx(float(variance), rel=1e-12)
    noise, t = doubles(4, 2, seed=1), torch.tensor([0, 5, 20, 29])
    x_t = process.noised(x, t, noise)
    torch.testing.assert_close(process.clean(x_t, t, noise), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(process.noise(x_t, t, x), noise, rtol=1e-9, atol=1e-9)


def test_a_step_back_is_bayes_rule() -> None:
    process, i, x_0, x_t = Diffusion(betas_of("linear", 20)), 7, 0.4, -0.2
    grid = torch.linspace(-6, 6, 100_001, dtype=torch.float64)
    before, beta = process.before[i], process.betas[i]
    log = Normal(before.sqrt() * x_0, (1 - before).sqrt()).log_prob(grid)
    log = log + Normal((1 - beta).sqrt() * grid, beta.sqrt()).log_prob(torch.tensor(x_t, dtype=torch.float64))
    p = log.softmax(0)
    mean = (p * grid).sum()
    one, at = torch.tensor([[x_0], [x_t]], dtype=torch.float64), torch.tensor([i])
    assert float(process.mean(one[:1], one[1:], at)) == pytest.approx(float(mean), abs=1e-9)
    assert float(process.posterior[i]) == pytest.approx(float((p * (grid - mean) ** 2).sum()), rel=1e-7)


@pytest.mark.parametrize("eta", [None, 1.0])
def test_the_last_step_adds_no_noise(eta: float | None) -> None:
    process, x, x_t = Diffusion(betas_of("linear", 20)), doubles(3, 2), doubles(3, 2, seed=1)
    never = iter(()).__next__
    made = process.back(x_t, x, 0, process.log_variance(torch.zeros(3).long(), x, "fixed_large").exp(), eta, never)
    torch.testing.assert_close(made, x, rtol=1e-12, atol=1e-12)
    with pytest.raises(StopIteration):
        process.back(x_t, x, 1, process.betas[1], eta, never)
    assert process.back(x_t, x, 1, process.betas[1], 0.0, never).isfinite().all()  # without noise none is drawn


def test_respacing() -> None:
    process = Diffusion(betas_of("linear", 1000))
    same, few, strided = process.respaced(1000), process.respaced(5), process.respaced(10, strided=True)
    torch.testing.assert_close(same.betas, process.betas, rtol=1e-10, atol=1e-12)
    assert few.times.tolist() == [0, 250, 500, 749, 999] and strided.times.tolist() == list(range(0, 1000, 100))
    torch.testing.assert_close(few.kept, process.kept[few.times], rtol=1e-12, atol=0)
    begun = process.respaced(5, floor=0.01)
    assert float(begun.kept[-1]) == pytest.approx(0.01, rel=0.05) and begun.steps == 5
    assert len(process.respaced(1000, floor=0.01).times) == 1 + int(begun.times[-1])
    assert few.total == 1000 and few.respaced(2).times.tolist() == [0, 999]
    with pytest.raises(ValueError, match="steps must be at most 1000 of the schedule, got 1001"):
        process.respaced(1001)
    with pytest.raises(ValueError, match="steps must divide the 1000 times of the schedule, got 300"):
        process.respaced(300, strided=True)
    any_number = DDPM(DiffusionMLP((2,), 4, 1), (2,), steps=20, sampling_steps=7)
    assert any_number.network_calls == 7 and any_number.steps_back.times.tolist() == [0, 3, 6, 10, 13, 16, 19]


def test_one_step_is_from_pure_noise() -> None:
    one = Diffusion(betas_of("cosine", 20)).respaced(1)
    assert one.times.tolist() == [19]
    x, z = torch.tensor([[0.3]]), torch.tensor([[2.0]])
    assert torch.equal(one.back(z, x, 0, torch.ones(1), None, lambda: z), x)  # all of it is the predicted x_0


def test_variances() -> None:
    process, like, t = Diffusion(betas_of("linear", 50)), doubles(3, 2), torch.tensor([0, 1, 30])
    posterior = process.posterior[torch.tensor([1, 1, 30])].log()  # that of t = 0 has no logarithm
    ends = [process.log_variance(t, like, "learned", torch.full_like(like, v)) for v in (-1.0, 1.0, 0.0)]
    torch.testing.assert_close(ends[0][:, 0], posterior)
    torch.testing.assert_close(ends[1][:, 0], process.betas[t].log())
    torch.testing.assert_close(ends[2], (ends[0] + ends[1]) / 2)
    assert equal(process.log_variance(t, like, "fixed_small").flatten(), posterior)
    large = process.log_variance(t, like, "fixed_large").flatten().exp()
    torch.testing.assert_close(large, torch.stack([process.posterior[1], process.betas[1], process.betas[30]]))


# ---------------------------------------------------------------------- the bound
def test_the_bound_is_nothing_where_all_is_right() -> None:
    process, x, noise = Diffusion(betas_of("cosine", 40)), doubles(3, 2).clamp(-0.9, 0.9), doubles(3, 2, seed=1)
    t = torch.tensor([1, 10, 39])
    x_t = process.noised(x, t, noise)
    right = process.log_variance(t, x_t, "fixed_small")
    torch.testing.assert_close(process.bound(x, x_t, t, noise, right), torch.zeros(3).double(), rtol=0, atol=1e-10)
    other = Normal(process.mean(process.clean(x_t, t, 0.5 * noise), x_t, t), (right / 2 + 0.2).exp())
    exact = torch.distributions.kl_divergence(Normal(process.mean(x, x_t, t), (right / 2).exp()), other).mean(1)
    torch.testing.assert_close(process.bound(x, x_t, t, 0.5 * noise, right + 0.4), exact / math.log(2))


def test_cells_of_a_normal_law() -> None:
    """255 cells of width 2/255 and two halves, open at the ends: they sum to one, each nearly torch's."""
    x = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    mean, log_variance = torch.full_like(x, 0.2), torch.full_like(x, math.log(0.1))
    found = cell_log_probability(x, mean, log_variance).exp()
    assert float(found.sum()) == pytest.approx(1, abs=1e-9)
    law = Normal(mean, 0.1**0.5)
    v = (x[1:-1] - mean[1:-1] + torch.tensor([-1 / 255, 1 / 255])) / 0.1**0.5  # x phi(x) by tanh is torch's GELU
    below, above = (torch.nn.functional.gelu(v, approximate="tanh") / v).unbind(1)
    torch.testing.assert_close(found[1:-1, 0], above - below, rtol=0, atol=1e-8)
    assert cell_log_probability(x, mean, torch.full_like(x, -30.0)).isfinite().all()
    torch.testing.assert_close(found[1:-1], (law.cdf(x + 1 / 255) - law.cdf(x - 1 / 255))[1:-1], rtol=0, atol=2e-5)


def test_the_variance_learns_by_the_bound_and_the_noise_does_not() -> None:
    module = make("ddpm_learned", loss_aware=False).double()
    x = doubles(64, 2).clamp(-1, 1)
    terms = module.terms("denoiser", Batch(x, None, None, doubles(64, 2, seed=1), torch.Generator().manual_seed(0)))
    last = module.denoiser.layers[-1].weight
    by_bound, by_mse = (torch.autograd.grad(terms[name], last, retain_graph=True)[0] for name in ("bound", "mse"))
    assert float(by_bound[:2].abs().max()) == 0 and float(by_bound[2:].abs().max()) > 0
    assert float(by_mse[2:].abs().max()) == 0 and float(by_mse[:2].abs().max()) > 0


def test_the_bounds_weight_is_a_thousandth_of_the_steps() -> None:
    """The term by hand, of the same times."""
    module, n = make("ddpm_learned", loss_aware=False).double(), 64
    module.denoiser = Doubled()
    x, noise = doubles(n, 2).clamp(-1, 1), doubles(n, 2, seed=1)
    source = [torch.Generator().manual_seed(0) for _ in range(2)]
    t = (draw.uniform(n, generator=source[0], device=x.device, dtype=torch.float64) * 20).long()
    x_t = module.process.noised(x, t, noise)
    exact = module.process.bound(x, x_t, t, x_t, module.process.log_variance(t, x_t, "learned", x_t)).mean()
    found = module.terms("denoiser", Batch(x, None, None, noise, source[1]))
    torch.testing.assert_close(found["bound"], 0.02 * exact)
    torch.testing.assert_close(found["mse"], (x_t - noise).square().mean())


# ---------------------------------------------------------------------- times
def test_times_of_a_large_loss_are_more_frequent() -> None:
    times = LossAwareTimes(3)
    assert times.probabilities().tolist() == pytest.approx([1 / 3] * 3)
    times.update(torch.tensor([0, 1, 2] * 9), torch.tensor([1.0, 2.0, 3.0] * 9))
    assert times.probabilities().tolist() == pytest.approx([1 / 3] * 3)  # nine are not ten
    times.update(torch.tensor([2, 1, 0]), torch.tensor([3.0, 2.0, 1.0]))
    exact = [0.999 * w / 6 + 0.001 / 3 for w in (1, 2, 3)]
    assert times.probabilities().tolist() == pytest.approx(exact)
    times.update(torch.zeros(25, dtype=torch.int64), torch.arange(25.0))
    assert sorted(times.losses[0].tolist()) == list(range(15, 25))  # the last ten
    assert times.seen.tolist() == [35, 10, 10]


class Same(nn.Module):
    """x_t for its noise, which is worst at early times."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


def test_the_mean_loss_is_kept() -> None:
    """Drawn more often and weighed less: the sum over times of p(t) / (T p(t)) L_t is the mean of L_t."""
    module = make("ddpm_learned", variance="fixed_small").double()
    module.denoiser = Same()
    assert module.times is not None
    module.times.losses.copy_(torch.arange(1.0, 21)[:, None].expand(20, 10))
    module.times.seen.fill_(10)
    x, z = doubles(100_000, 2, seed=3), doubles(100_000, 2, seed=1)
    batch = Batch(x, None, None, z, torch.Generator().manual_seed(0))
    with torch.no_grad():
        aware = float(module.terms("denoiser", batch)["mse"])
        (t, losses), module.times = module._losses[-1], None
        plainly = float(module.terms("denoiser", batch)["mse"])
    assert float(t.double().mean()) > 12 and float(losses.mean()) < plainly - 0.1
    assert aware == pytest.approx(plainly, abs=0.02)


# ---------------------------------------------------------------------- sampling, with exact networks
class Exact(nn.Module):
    """The noise in x_t of data N(m_y, s^2), m_y by label; without labels of the mixture of both."""

    def __init__(self, process: Diffusion, means: Tensor, s: float) -> None:
        super().__init__()
        self.process, self.means, self.s, self.unused = process, means, s, nn.Parameter(torch.zeros(()).double())

    def posterior(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i = (t * self.process.total / 1000).round().long()
        kept = self.process.kept[i][:, None]
        return kept, kept * self.s**2 + 1 - kept, kept.sqrt() * self.means

    def logits(self, x: Tensor, t: Tensor) -> Tensor:
        _, variance, means = self.posterior(x, t)
        return -(x - means).square() / (2 * variance)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        kept, variance, means = self.posterior(x, t)
        mean = (self.logits(x, t).softmax(1) * means).sum(1, keepdim=True)
        return (x - mean) / variance * (1 - kept).sqrt() + 0 * self.unused


def exact(means: list[float], s: float, **options: Any) -> DDPM:
    steps, schedule = options.pop("steps", 1000), options.pop("schedule", "linear")
    net = Exact(Diffusion(betas_of(schedule, steps)), torch.tensor(means, dtype=torch.float64), s)
    return DDPM(net, (1,), steps=steps, schedule=schedule, **options)


@pytest.mark.parametrize(("steps", "variance"), [(10, 0.140), (50, 0.222), (250, 0.2437)])
def test_ddim_of_a_normal_law(steps: int, variance: float) -> None:
    """The variance that so many steps leave of N(0, 0.25): by a recursion of numbers, and as it was simulated."""
    module = exact([0.0], 0.5, eta=0.0)
    module.steps_back = module.process.respaced(steps, strided=True)
    z = doubles(2000, 1)
    ratio = module.decode(z) / z  # linear
    factor = 1.0
    for t in range(1000 - 1000 // steps, -1, -1000 // steps):
        a, before = float(module.process.kept[t]), float(module.process.kept[t - 1000 // steps]) if t else 1.0
        noise = (1 - a) ** 0.5 / (0.25 * a + 1 - a)
        factor *= before**0.5 * (1 - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - before) ** 0.5 * noise
    assert float((ratio - factor).abs().max()) < 1e-9 and factor**2 == pytest.approx(variance, abs=2e-3)


def test_ddim_with_noise_and_ancestral_steps_of_a_normal_law() -> None:
    for options, variance in (({"eta": 1.0}, 0.197), ({}, None)):
        module = exact([0.3], 0.5, **options)  # type: ignore[arg-type]
        module.steps_back = module.process.respaced(50, strided=True)
        samples = module.reverse(doubles(20_000, 1), generator=torch.Generator().manual_seed(0))
        assert float(samples.mean()) == pytest.approx(0.3, abs=0.03)
        if variance is not None:
            assert float(samples.var()) == pytest.approx(variance, abs=0.01)


@pytest.mark.parametrize("eta", [None, 0.0, 1.0])
def test_guided_by_an_exact_classifier_it_is_the_class(eta: float | None) -> None:
    module = exact([-1.0, 1.0], 0.3, steps=100, schedule="cosine", eta=eta)
    sampler = Guided(module, _Classifier(module.denoiser), scale=1.0)
    samples = sampler.draw(2000, torch.Generator().manual_seed(0), torch.ones(2000, dtype=torch.int64))
    assert float(samples.mean()) == pytest.approx(1, abs=0.06) and float(samples.std()) == pytest.approx(0.3, abs=0.04)
    x, t = doubles(5, 1), torch.full((5,), 400.0, dtype=torch.float64)
    push = sampler.push(x, t, torch.ones(5, dtype=torch.int64))
    kept, variance, means = module.denoiser.posterior(x, t)  # type: ignore[operator]
    wanted = (x - means[:, 1:]) / variance * (1 - kept).sqrt()
    torch.testing.assert_close(module.denoiser(x, t) - (1 - kept).sqrt() * push, wanted, rtol=0, atol=1e-14)


class _Classifier(nn.Module):
    num_classes = 2

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net.logits(x, t)


def test_networks_are_told_the_original_times() -> None:
    seen = []

    class Told(DiffusionMLP):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            seen.append(float(t[0]))
            return super().forward(x, t)

    DDPM(Told(), steps=50, sampling_steps=3).sample(1, seed=0)
    assert seen == [980.0, 480.0, 0.0]


def test_a_sample_is_clipped_if_it_is_an_image() -> None:
    wild = make_images("ddpm")
    with torch.no_grad():
        wild.denoiser.layers[-1].weight.mul_(1000)
    assert float(wild.sample(5, seed=0).abs().max()) < 10
    wild.clip = False
    assert float(wild.sample(5, seed=0).abs().max()) > 100
    assert not make("ddpm").clip


def test_seeds_that_follow_share_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of samples of seeds 0, 1, 2 are to be independent."""
    module, drawn = DDPM(DiffusionMLP((2,), 8), steps=4), list[Tensor]()
    reverse = module.reverse

    def watched(z: Tensor, labels: Any, generator: torch.Generator, **options: Any) -> Tensor:
        between = torch.randn(5, 2, generator=torch.Generator().set_state(generator.get_state()))
        drawn.extend([z, between])
        return reverse(z, labels, generator, **options)

    monkeypatch.setattr(module, "reverse", watched)
    for seed in range(3):
        module.sample(5, seed=seed)
    assert len({tuple(x.flatten().tolist()) for x in drawn}) == 6


# ---------------------------------------------------------------------- learning
RING: dict[str, Any] = {"radius": 1.0, "std": 0.04, "scale": 1.0, "batch_size": 256}


@pytest.fixture(scope="module")
def ring() -> tuple[DDPM, nn.Module, Ring, Tensor]:
    """A diffusion of the ring after 350 updates, a classifier of its modes, the data, and 1,000 samples."""
    pl.seed_everything(0, verbose=False)
    data = Ring(**RING)
    fall = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 350)  # noqa: E731
    module = DDPM(DiffusionMLP(), steps=50, variance="fixed_small", lr_denoiser=6e-3, scheduler_denoiser=fall)
    trainer(max_steps=350, callbacks=[EMA(0.95)]).fit(module, datamodule=data)
    x = data.sample_exact(10_000, torch.Generator().manual_seed(1))
    classifier = TimedClassifier((2,), 8, 64)
    fit_noisy_classifier(module, classifier, x, torch.cdist(x, data.modes).argmin(1), steps=80, batch_size=256, lr=8e-3)
    return module, classifier, data, module.sample(1000, seed=0)


def share(points: Tensor, data: Ring) -> float:
    return float(mode_coverage(points, data.modes, 3 * data.std)[1])


def test_the_ring(ring: Any) -> None:
    module, classifier, data, plainly = ring
    assert int(mode_coverage(plainly, data.modes, 3 * data.std)[0]) == 8 and share(plainly, data) > 0.6
    labels = torch.arange(8).repeat(50)
    guided = Guided(module, classifier, scale=2.0)
    points = guided.sample(400, labels, progress=False)
    assert float((torch.cdist(points, data.modes).argmin(1) == labels).float().mean()) > 0.9
    assert share(points, data) > share(plainly, data)
    assert guided.network_calls == 100 and module.network_calls == 50
    decoded = module.decode(module.latents(1000, seed=0)[0])  # as various as the samples are
    torch.testing.assert_close(decoded.std(0), plainly.std(0), rtol=0.1, atol=0)
    assert int(torch.cdist(decoded, data.modes).argmin(1).bincount(minlength=8).min()) > 60
    drawn = guided.sample(200, progress=False)  # of any class
    assert len(torch.cdist(drawn, data.modes).argmin(1).unique()) == 8


def test_without_what_it_takes_the_ring_is_missed(ring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, classifier, data, plainly = ring
    right, labels = share(plainly, data), torch.arange(8).repeat(50)
    with monkeypatch.context() as changed:  # noise is added at the last step, too
        back = Diffusion.back

        def noisy(self: Any, x_t: Tensor, x: Tensor, i: int, variance: Tensor, *args: Any) -> Tensor:
            return back(self, x_t, x, i, variance, *args) + (0.0 if i else variance.sqrt() * args[1]())

        changed.setattr(Diffusion, "back", noisy)
        assert share(module.sample(1000, seed=0), data) < right - 0.02
    with monkeypatch.context() as changed:  # the gradient points away from the class
        changed.setattr(Guided, "push", lambda self, x, t, y, push=Guided.push: -push(self, x, t, y))
        points = Guided(module, classifier, scale=2.0).sample(400, labels, progress=False)
        assert float((torch.cdist(points, data.modes).argmin(1) == labels).float().mean()) < 0.1
    whole = module.steps_back
    module.steps_back = module.process.respaced(25)
    half = share(module.sample(1000, seed=0), data)
    module.steps_back.told = module.steps_back.told * 2  # times twice the original ones
    module.steps_back.placed.clear()
    assert share(module.sample(1000, seed=0), data) < half - 0.1
    module.steps_back = whole


def test_fewer_steps_cost_quality(ring: Any) -> None:
    module, _, data, plainly = ring
    whole, module.steps_back = module.steps_back, module.process.respaced(5)
    few = module.sample(1000, seed=0)
    module.steps_back = whole
    assert share(few, data) < share(plainly, data) - 0.1


# ---------------------------------------------------------------------- networks
def test_a_unet_begins_with_the_loss_of_no_network() -> None:
    """Its last layer is 0: the mean of squared standard normal noise, 1."""
    net = DiffusionUNet((1, 8, 8), 8)
    module = DDPM(net, steps=20)
    x = torch.rand(256, 1, 8, 8) * 2 - 1
    batch = Batch(x, None, None, torch.randn(256, 64))
    assert float(module.terms("denoiser", batch)["mse"]) == pytest.approx(1, abs=0.05)
    conditional = DiffusionUNet((2, 8, 12), 8, (1, 2, 2), num_classes=3, learned_variance=True)
    assert conditional(torch.zeros(4, 2, 8, 12), torch.zeros(4), torch.zeros(4).long()).shape == (4, 4, 8, 12)
    with pytest.raises(ValueError, match=r"sides divisible by 4, got \(1, 6, 6\)"):
        DiffusionUNet((1, 6, 6), 8, (1, 1, 1))


def test_any_network_will_do(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    for classes in (None, 3):
        net = diffusers.UNet2DModel(8, 1, 1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
                                    num_class_embeds=classes, **blocks)  # fmt: skip
        module = DDPM(net, (1, 8, 8), steps=10, sampling_steps=2)
        data = MemoryLoader(torch.rand(12, 1, 8, 8), torch.arange(12) % 3, 4)
        trainer(max_steps=2).fit(module, data)
        assert module.num_classes == classes and module.sample(3, seed=0).shape == (3, 1, 8, 8)


def test_a_conditional_diffusion() -> None:
    x, y = plain(64).dataset[:], torch.arange(64) % 2  # type: ignore[index]
    x = x * 0.1 + (2.0 * y[:, None] - 1)
    torch.manual_seed(0)
    module = DDPM(DiffusionMLP((2,), 64, 2, num_classes=2), steps=20, lr_denoiser=5e-3)
    trainer(max_steps=200).fit(module, MemoryLoader(x, y, 32))
    samples = module.sample(100, torch.arange(100) % 2, seed=0)
    assert float((samples.mean(1).sign() == 2.0 * (torch.arange(100) % 2) - 1).float().mean()) > 0.9


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_few_bits_train_and_sample(precision: Any) -> None:
    """The walk is in float32, and times reach the network as they are: in bfloat16 999 would be 1000."""
    module, seen = make("ddpm"), list[Tensor]()
    trainer(max_steps=2, precision=precision).fit(module, plain())
    module.denoiser.register_forward_pre_hook(lambda net, given: seen.append(given[1]))
    x = module.sample(3, seed=0)
    assert x.dtype == next(module.parameters()).dtype and bool(x.isfinite().all())
    assert seen and all(t.dtype == torch.float32 and float(t.max()) < 1000 for t in seen)


# ---------------------------------------------------------------------- what is asked of it, and bad input
def test_samples_are_a_function_of_the_seed() -> None:
    module = make("ddpm")
    assert equal(module.sample(5, seed=3), module.sample(5, seed=3))
    own = torch.Generator()
    assert equal(module.sample(5, generator=own.manual_seed(1)), module.sample(5, generator=own.manual_seed(1)))
    z, _ = module.latents(4, seed=0)
    assert equal(module.decode(z), module.decode(z)) and equal(module(z), module.decode(z))


@pytest.mark.parametrize("name", ["ddpm", "vaebm"])
def test_what_is_decoded_of_noise_depends_on_nothing_beside_it(name: str) -> None:
    module = make(name, steps=20) if name == "ddpm" else make(name, chain_steps=3, step_size=0.3)
    if name == "vaebm":
        module.pushed += 1  # the energy has begun
    z, _ = module.latents(4, seed=0)
    together, apart = module.decode(z), torch.cat([module.decode(row) for row in z.split(1)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.decode(z.flip(0)).flip(0), together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.decode(z + 1e-4), together, rtol=1e-2, atol=1e-3)  # continuous, as paths are
    same = module.sample(2, seed=0) - module.reverse(z[:1].expand(2, -1), None, torch.Generator().manual_seed(1))
    assert float(same[1].abs().max()) > 1e-3  # of a sample the noise between is its own


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 1}, "steps must be an integer >= 2, got 1"),
        ({"schedule": "square"}, "schedule must be one of linear, cosine, got 'square'"),
        ({"variance": "none"}, "variance must be one of fixed_large, fixed_small, learned, got 'none'"),
        ({"sampling_steps": 21}, "sampling_steps must be an integer in 1..20, got 21"),
        ({"eta": -1.0}, r"eta must be in \[0, 1\], got -1.0"),
        ({"eta": 1.5}, r"eta must be in \[0, 1\], got 1.5"),
        ({"sampling_steps": 0}, "sampling_steps must be an integer in 1..20, got 0"),
        ({"loss_aware": True, "cuda_graphs": True}, "cuda_graphs must be False with loss_aware, got True"),
    ],
)
def test_bad_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("ddpm", **options)


def test_bad_company() -> None:
    module = make("ddpm")
    with pytest.raises(ValueError, match="shape must be given for a Linear, which has none, got None"):
        DDPM(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"shape must be integers >= 1, at least one, got \(0,\)"):
        DDPM(nn.Linear(2, 2), (0,))
    with pytest.raises(ValueError, match=r"shape must be that of the data, \(3,\), got \(2,\)"):
        trainer(max_steps=1).fit(module, MemoryLoader(torch.randn(8, 3), None, 4))
    bad = DDPM(DiffusionMLP((2,), 8, 1, learned_variance=True))
    with pytest.raises(ValueError, match=r"denoiser must return noise of shape \(4, 2\) with variance='fixed_lar"):
        trainer(max_steps=1).fit(bad, plain(8))
    with pytest.raises(ValueError, match="export needs a module whose samples take one network call, got DDPM"):
        export(module, "a.pt2")
    with pytest.raises(ValueError, match="LatentLangevin needs a module whose samples take one network call, got DDP"):
        LatentLangevin(module, lambda x: x[:, 0])
    for name, told in (("vae", "VAE"), ("vaebm", "VAEBM")):  # of which the second has a way back too
        with pytest.raises(ValueError, match=f"module must be a diffusion, with a reverse process, got {told}\\."):
            Guided(make(name), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="labels must be given to guide by Linear, which tells no num_classes"):
        Guided(module, nn.Linear(2, 2)).sample(3, progress=False)
    for labels, got in (([0, 3], "0..3"), ([-1, 0], "-1..0")):
        with pytest.raises(ValueError, match=f"labels must lie in 0..2, which the classifier knows, got {got}"):
            Guided(module, TimedClassifier((2,), 3, 8, 1)).sample(2, torch.tensor(labels), progress=False)
    x = torch.randn(20, 2)
    with pytest.raises(ValueError, match="labels must be the classes of the items, got none"):
        fit_noisy_classifier(module, TimedClassifier(), x, None)
    with pytest.raises(ValueError, match=r"classifier must return logits of 10 classes or more, got shape \(2, 3\)"):
        fit_noisy_classifier(module, TimedClassifier((2,), 3), x, torch.full((20,), 9))
    with pytest.raises(ValueError, match=r"items must be of shape \(2,\), as the diffusion's samples are, got \(1,\)"):
        fit_noisy_classifier(module, TimedClassifier((1,), 3), x[:, :1], torch.zeros(20, dtype=torch.int64))


def test_a_fit_of_the_classifier_goes_on(tmp_path: Path) -> None:
    module, x, ends = make("ddpm"), torch.randn(40, 2), []
    for stops in ([150], [100, 150]):
        torch.manual_seed(0)
        pl.seed_everything(0, verbose=False)
        classifier = TimedClassifier((2,), 2, 8, 1)
        for steps in stops:
            folder = tmp_path / str(len(stops))
            fit_noisy_classifier(module, classifier, x, (x[:, 0] > 0).long(), steps=steps, batch_size=8, folder=folder)
        ends.append({k: v.clone() for k, v in classifier.state_dict().items()})
    assert equal(*ends)


# ---------------------------------------------------------------------- costs are told; the command line
def test_costs_are_told(tmp_path: Path) -> None:
    data = Ring(**RING)
    module = DDPM(DiffusionMLP((2,), 8, 1), steps=20, sampling_steps=5)
    score = ModeCoverage(2, num_samples=100)
    trainer(max_steps=2, callbacks=[score], default_root_dir=tmp_path).fit(module, datamodule=data)
    assert score.protocol["network_calls"] == 5


def test_its_life_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Trained by its YAML, scored, carded, loaded, guided by one command; and its plan."""
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--grid.every_n_steps=null"]
    few = ["--model.sampling_steps=3", "--trainer.callbacks=[]", "--checkpoint.monitor=null", "--data.batch_size=16",
           "--model.denoiser.width=8"]  # fmt: skip
    short = ["fit", f"--config={CONFIGS / 'digits' / 'ddpm.yaml'}", *quiet, *few]
    main([*short, "--name=a", "--trainer.max_steps=4"])
    run = tmp_path / "runs" / "a"
    card = (run / "checkpoints" / "last.md").read_text()
    for words in ("# DDPM on Digits", "arXiv:2006.11239", "- network calls for a sample: 3"):
        assert words in card, words
    module = load(run)
    assert isinstance(module, DDPM) and module.network_calls == 3 and module.shape == (1, 8, 8)
    capsys.readouterr()
    main(["guide", f"--ckpt_path={run}", "--data=Digits", "--steps=3", "--samples=20", "--scales=[0, 2.5]"])
    told = capsys.readouterr().out
    assert "scale 0 " in told and "scale 2.5 " in told and " 6 network calls" in told, told
    rows = [json.loads(line) for line in (run / "guidance" / "scores.jsonl").read_text().splitlines()]
    assert [row["scale"] for row in rows] == [0, 2.5] and [row["network_calls"] for row in rows] == [3, 6]
    assert (run / "guidance" / "scale-2.5.png").is_file() and len(list((run / "guidance").glob("*/last.ckpt"))) == 1
    with pytest.raises(SystemExit, match="data must have labels to guide by, got Ring, which has none"):
        main(["guide", f"--ckpt_path={run}", "--data=Ring"])
    with pytest.raises(SystemExit, match=r"data must be of shape \(1, 8, 8\), as samples are, got \(3, 16, 16\)"):
        main(
            ["guide", f"--ckpt_path={run}", "--data={class_path: Shapes, init_args: {side: 16, items: 9, held_out: 9}}"]
        )
    with pytest.raises(SystemExit):
        main([*short, "--dry_run"])
    assert "DDPM, 1 update per cycle" in capsys.readouterr().out
