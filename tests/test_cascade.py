"""A model of a VAE's codes, and the boosted ratio of a model: laws that are known, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import equal, make, near_modes
from torch import Tensor, nn

from lightning_gans import DDPM, R3GAN, VAE, VAEBM, WGANGP
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.functional.variational import normal_log_density
from lightning_gans.networks import DiffusionMLP, ToyDiscriminator, ToyGenerator, VAEDecoder, VAEEncoder
from lightning_gans.samplers import BoostedRatio, LatentLangevin, MetropolisHastings, boosted_ratio
from lightning_gans.stages import Cascade


class Still(nn.Module):
    """An encoder whose codes are the samples themselves, with little noise."""

    def __init__(self, spread: float = 0.05) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(2 * math.log(spread)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.log_variance.expand_as(x)


def plain_vae(spread: float = 0.05) -> VAE:
    decoder = nn.Linear(2, 2, bias=False)
    decoder.weight.data = torch.eye(2)
    return VAE(Still(spread), decoder, 2, sigma=0.1)


def modes(n: int = 1024, seed: int = 0) -> Tensor:
    """Two narrow modes on the x axis."""
    own = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (n, 1), generator=own) * 2.0 - 1
    return torch.cat([signs, torch.zeros(n, 1)], 1) + 0.1 * torch.randn(n, 2, generator=own)


def diffusion() -> DDPM:
    return DDPM(DiffusionMLP((2,), 64, 2), steps=20, lr_denoiser=3e-3)


def gan() -> R3GAN:
    return R3GAN(ToyGenerator((2,), 4, 64, 2), ToyDiscriminator((2,), 64, 2), 4, lr_g=1e-3, lr_d=1e-3)


# ---------------------------------------------------------------------- cascades
@pytest.mark.parametrize(("second", "steps"), [(diffusion, 200), pytest.param(gan, 250, marks=pytest.mark.slow)])
def test_any_model_of_the_codes_makes_the_samples_of_an_autoencoder_better(
    second: Any, steps: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    cascade = Cascade(plain_vae())
    model = second()
    cascade.fit(model, modes(), steps=steps, batch_size=128, folder=tmp_path)
    samples = cascade.sample(1000, seed=1)
    assert near_modes(samples) > 0.28 > 4 * near_modes(cascade.first.sample(1000, seed=1))
    assert 0.35 < float((samples[:, 0] > 0).float().mean()) < 0.65
    assert equal(samples, cascade.sample(1000, seed=1)) and cascade.network_calls == model.network_calls + 1
    again, other = Cascade(plain_vae()), second()
    again.fit(other, modes(), steps=steps, batch_size=128, folder=tmp_path)  # which is only loaded
    assert equal(again.sample(10, seed=2), cascade.sample(10, seed=2))


class Known(GenerativeModule):
    """A law of codes that is known: normal with a deviation."""

    counted, made_by, latent_dim = "net", "net", 2

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.net, self.deviation = nn.Linear(1, 1), deviation

    def sample(self, n: int, labels: Any = None, generator: Any = None, seed: Any = None, **options: Any) -> Tensor:
        return self.deviation * torch.randn(n, 2, generator=generator)

    def log_density_bound(self, x: Tensor) -> Tensor:
        return normal_log_density(x, torch.zeros_like(x), torch.tensor(2 * math.log(self.deviation)))


def test_the_gain_is_the_difference_of_two_divergences_from_the_codes() -> None:
    """KL(codes || prior) - KL(codes || second): of codes N(0, s^2) that a second model knows, the first of them."""
    s = 0.5
    items = math.sqrt(s**2 - 0.05**2) * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(7))
    first = plain_vae()
    assert Cascade(first, Known(s)).gain(items) == pytest.approx(s**2 - 1 - 2 * math.log(s), abs=0.02)
    assert Cascade(first, Known(1.0)).gain(items) == pytest.approx(0, abs=1e-5)  # the prior itself
    assert Cascade(first, Known(2.0)).gain(items) < 0


def test_codes_are_drawn_around_the_means_and_the_same_for_a_seed() -> None:
    cascade, x = Cascade(plain_vae(0.5)), torch.zeros(4000, 2)
    codes = cascade.codes(x)
    assert float(codes.std()) == pytest.approx(0.5, rel=0.03) and equal(codes, cascade.codes(x))
    assert not equal(codes, cascade.codes(x, seed=1)) and cascade.first.encoder.training


def test_classes_go_to_whom_takes_them() -> None:
    decoder = ToyGenerator((2,), 2, 8, 1, num_classes=3)
    first = VAE(Still(), decoder, 2)
    both = Cascade(first, WGANGP(ToyGenerator((2,), 2, 8, 1, num_classes=3), ToyDiscriminator((2,), 8, 1), 2))
    alone = Cascade(first, WGANGP(ToyGenerator((2,), 2, 8, 1), ToyDiscriminator((2,), 8, 1), 2))
    for cascade in (both, alone):
        labels = torch.tensor([0, 1, 2, 2])
        one, two = (cascade.sample(4, y, seed=0) for y in (labels, labels.flip(0)))
        assert cascade.num_classes == 3 and not equal(one, two) and cascade.sample(5, seed=0).shape == (5, 2)


def test_the_gain_by_a_second_model_of_classes_is_told_them() -> None:
    """Codes at -1 and 1 by class, which that model knows: its classes exchanged it explains them badly."""

    class Sides(Known):
        num_classes = 2  # type: ignore[assignment]

        def log_density_bound(self, x: Tensor, labels: Any = None) -> Tensor:
            return super().log_density_bound(x - (2.0 * labels[:, None] - 1))

    y = torch.arange(200) % 2
    cascade = Cascade(plain_vae(), Sides(0.5))
    items = (2.0 * y[:, None] - 1).expand(-1, 2)
    assert cascade.gain(items, labels=y) > 0 > cascade.gain(items, labels=1 - y)
    with pytest.raises(ValueError, match="labels must be given for the gain by a conditional second model, got None"):
        cascade.gain(items)
    with pytest.raises(ValueError, match=r"labels must have shape \(200,\), one per sample, got \(3,\)"):
        cascade.gain(items, labels=y[:3])


def test_the_samples_of_images_are_images() -> None:
    cascade = Cascade(VAE(VAEEncoder((1, 8, 8), 3, 8), VAEDecoder((1, 8, 8), 3, 8), 3))
    cascade.fit(WGANGP(ToyGenerator((3,), 2, 8, 1), ToyDiscriminator((3,), 8, 1), 2), torch.rand(40, 1, 8, 8), steps=2)
    assert cascade.sample(3, seed=0).shape == (3, 1, 8, 8)


def test_what_a_cascade_refuses() -> None:
    with pytest.raises(ValueError, match="Cascade must have a model of the codes before it can sample, got none: fit"):
        Cascade(plain_vae()).sample(3)
    for cascade in (Cascade(plain_vae(), gan()), Cascade(plain_vae(), Known(1.0))):
        with pytest.raises(ValueError, match="labels were given, but the generator takes none"):
            cascade.sample(3, torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="labels were given, but the generator takes none"):
        Cascade(plain_vae(), Known(1.0)).gain(modes(), labels=torch.zeros(len(modes())).long())
    with pytest.raises(ValueError, match="first must be a VAE, which has an encoder and a prior, got R3GAN"):
        Cascade(gan())
    with pytest.raises(ValueError, match="Cascade needs a module whose samples take one network call, got VAEBM"):
        Cascade(VAEBM(Still(), nn.Linear(2, 2), ToyDiscriminator((2,), 8, 1), 2))
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
        Cascade(plain_vae()).fit(gan(), modes(), steps=0)
    with pytest.raises(TypeError, match="gain needs a model that bounds the density of data, got R3GAN, which has no"):
        Cascade(plain_vae(), gan()).gain(modes())
    with pytest.raises(ValueError, match="means must hold the exemplars' codes"):
        make("exemplar_vae").sample(3)


# ---------------------------------------------------------------------- boosted generative models
P = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def test_one_round_with_the_exact_classifier_is_the_data() -> None:
    """Four states under a uniform model; two rounds whose ratios multiply to the same, by halves."""
    four = lambda n, generator: torch.randint(4, (n, 1), generator=generator)  # noqa: E731
    exact = lambda x: (4 * P).log()[x[:, 0]]  # noqa: E731
    for ratio in (BoostedRatio([exact]), BoostedRatio([exact, exact], weights=[0.3, 0.7])):
        x = MetropolisHastings(four, ratio, steps=8).sample(10_000, progress=False)[:, 0]
        shares = x.bincount(minlength=4) / len(x)
        torch.testing.assert_close(shares.double(), P, rtol=0, atol=0.02)
        z = (torch.ones(4).double() / 4 * ratio(torch.arange(4)[:, None]).exp()).sum()
        assert float(z) == pytest.approx(1, abs=1e-12)  # which is normalised already
    assert BoostedRatio([])(torch.zeros(3, 1)).tolist() == [0, 0, 0]


def test_a_second_round_corrects_what_the_first_could_not() -> None:
    """Of N(0, 1) to N(1, .5^2): a linear logit moves, a quadratic one narrows; by chains, and in the latent space."""

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(torch.cat([x, x.square()], 1))

    torch.manual_seed(0)
    module = SimpleNamespace(generator=nn.Identity(), latent_dim=1)
    module.sample = lambda n, labels, generator: torch.randn(n, 1, generator=generator)
    real = 1 + 0.5 * torch.randn(4000, 1)
    ratio = boosted_ratio(module, real, [nn.Linear(1, 1), Square()], steps=100, lr=0.05, chain=8, progress=False)
    ends = [MetropolisHastings(module, BoostedRatio(ratio.ratios[:t]), steps=20).sample(600, progress=False)
            for t in (1, 2)]  # fmt: skip
    ends.append(LatentLangevin(module, ratio, steps=60, step_size=0.05).sample(600, progress=False))
    assert float(ends[0].std()) > 0.8
    for end in ends[1:]:
        assert float(end.mean()) == pytest.approx(1, abs=0.15) and float(end.std()) == pytest.approx(0.5, abs=0.12)


def test_what_a_boosted_ratio_refuses() -> None:
    with pytest.raises(ValueError, match="weights must be one for each of 1 ratios, got 2"):
        BoostedRatio([nn.Linear(1, 1)], weights=[1, 2])
    with pytest.raises(ValueError, match="chain must be an integer >= 1, got 0"):
        boosted_ratio(make("gan"), modes(), [nn.Linear(1, 1)], chain=0)
    with pytest.raises(ValueError, match="weights must be one for each of 1 ratios, got 0"):
        boosted_ratio(make("gan"), modes(), [nn.Linear(1, 1)], weights=[])
