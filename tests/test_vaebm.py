"""VAEBM against what is known of its chains, of its optimizer and of its spectral term, and on data it must learn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, near_modes, plain, state, trainer
from torch import Tensor, nn
from torch.optim import Adam

from lightning_gans import VAEBM
from lightning_gans.callbacks import EMA
from lightning_gans.cli import main
from lightning_gans.datamodules import MemoryLoader
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.langevin import langevin
from lightning_gans.networks import ToyDiscriminator, VAEDecoder, VAEEncoder
from lightning_gans.nonadversarial.singular import SingularValues
from lightning_gans.optim import ClippedAdam
from lightning_gans.tools import export
from lightning_gans.wrappers import weight_norm

RECIPE = Path(__file__).parent.parent / "configs" / "ring" / "vaebm.yaml"
W = torch.tensor([[1.0], [0.5]], dtype=torch.float64)  # x = W z + s e
S, T, C = 0.5, 0.8, torch.tensor([1.0, -1.0], dtype=torch.float64)


class Line(nn.Module):
    """The decoder of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(W.clone())

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.t()


class Back(nn.Module):
    """An encoder."""

    def __init__(self, latent_dim: int = 1) -> None:
        super().__init__()
        self.inner = nn.Linear(2, latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.inner(x)
        return mean, torch.zeros_like(mean)


class Quadratic(nn.Module):
    """E(x) = |x - c|^2 / (2 t^2), times a number."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x - C.to(x)).square().sum(1) / (2 * T**2)


def linear(energy: nn.Module, **options: Any) -> VAEBM:
    return VAEBM(Back(), Line(), energy, 1, vae_steps=0, sigma=S, **options).double()


def walked(module: VAEBM, n: int, steps: int) -> Tensor:
    own = torch.Generator().manual_seed(0)
    normal = lambda: torch.randn(n, 3, generator=own, dtype=torch.float64)  # noqa: E731
    return module.walk(normal(), None, module.energy, steps, normal)


# ---------------------------------------------------------------------- closed forms
def test_without_an_energy_a_chain_stays_normal() -> None:
    """Of variance 1 / (1 - eta / 4), since steps are finite."""
    end = walked(linear(Quadratic(0.0), step_size=0.5), 10_000, 20)
    torch.testing.assert_close(end.var(0), torch.full((3,), 1 / (1 - 0.125)).double(), rtol=0, atol=0.05)
    assert float(end.mean(0).abs().max()) < 0.03


def test_a_quadratic_energy_on_a_line_gives_the_known_normal_law() -> None:
    """Of precision I + M' M / t^2 and mean (precision)^-1 M' c / t^2, M = [W, s I]."""
    end = walked(linear(Quadratic(), step_size=0.05), 6000, 120)
    m = torch.cat([W, S * torch.eye(2, dtype=torch.float64)], 1)
    covariance = (torch.eye(3, dtype=torch.float64) + m.t() @ m / T**2).inverse()
    torch.testing.assert_close(end.mean(0), covariance @ m.t() @ C / T**2, rtol=0, atol=0.03)
    torch.testing.assert_close(end.t().cov(), covariance, rtol=0, atol=0.05)


def test_chains_do_not_know_of_each_other() -> None:
    module, noise = linear(Quadratic()), torch.randn(6, 3, dtype=torch.float64)
    still = lambda: torch.zeros(())  # noqa: E731
    both = [module.walk(part, None, module.energy, 5, still) for part in (noise, noise[:1])]
    torch.testing.assert_close(both[0][:1], both[1], rtol=1e-12, atol=0)


def test_a_chain_without_noise_goes_down() -> None:
    end = langevin(lambda x: x - 3, torch.zeros(1, 1), 200, 0.1, lambda: torch.zeros(()))
    assert float(end) == pytest.approx(3, abs=1e-3)


def test_singular_values_are_those_of_the_decomposition() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(7, 4), nn.Linear(4, 1)).double()
    values = SingularValues(net)
    exact = sum(torch.linalg.matrix_norm(p.flatten(1), 2) for p in net.parameters() if p.ndim > 1)
    for _ in range(20):
        found = values(net)
    assert float(found) == pytest.approx(float(exact), rel=1e-3)  # type: ignore[arg-type]
    slopes = [torch.autograd.grad(total, net[1].weight, retain_graph=True)[0] for total in (found, exact)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=0.05)


def test_singular_values_of_a_weight_that_is_made_of_others_are_its_own() -> None:
    torch.manual_seed(0)
    net = weight_norm(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    found = SingularValues(net)(net, 200)
    exact = sum(torch.linalg.matrix_norm(layer.weight, 2) for layer in net)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)
    assert torch.autograd.grad(found, list(net.parameters()), allow_unused=True)[-1] is not None


def test_ends_of_chains_of_classes_are_not_gone_on_with() -> None:
    net = ToyDiscriminator((2,), 8, 1, num_classes=3)
    assert VAEBM(VAEEncoder((2,), 3, 8), VAEDecoder((2,), 3, 8), net, 3).replay == 0
    assert make("vaebm").replay == 0.6


def test_weights_that_begin_at_zero_have_a_singular_value_later() -> None:
    net = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(net.weight)
    values = SingularValues(net)
    assert float(values(net)) == 0
    nn.init.normal_(net.weight)
    assert float(values(net, 40)) == pytest.approx(float(torch.linalg.matrix_norm(net.weight.detach(), 2)), rel=1e-3)


def test_the_optimizer_is_adam_on_gradients_cut_off_by_its_last_second_moment() -> None:
    own = torch.Generator().manual_seed(0)
    a, b = (nn.Parameter(torch.zeros(5)) for _ in range(2))
    ours, adam = ClippedAdam([a], 2.0, 0.05, lr=0.1), Adam([b], lr=0.1)
    cut = 0
    for step in range(12):
        gradient = torch.randn(5, generator=own) * (10 if step in (0, 6) else 1)
        a.grad, b.grad = gradient.clone(), gradient.clone()
        if step:
            bound = 2 * (adam.state[b]["exp_avg_sq"] / (1 - 0.999**step)).sqrt() + 0.05
            b.grad = torch.minimum(torch.maximum(gradient, -bound), bound)
            cut += int((b.grad != gradient).sum())
        ours.step(), adam.step()
        assert equal(a.detach(), b.detach())
    assert cut > 0


def test_a_gradient_of_the_energy_is_cut_off() -> None:
    """At 3 times what was usual plus .1, as ClippedAdam by default does."""
    module, w = make("vaebm", lr_energy=0.5), nn.Parameter(torch.zeros(1))
    optimizer = module.players["energy"].optimizer([w])
    for gradient in (1.0, 100.0):
        w.grad = torch.tensor([gradient])
        optimizer.step()
    assert float(w.grad) == pytest.approx(3.1) and optimizer.defaults["betas"] == (0.99, 0.999)
    assert optimizer.defaults["lr"] == 0.5


def given(real: Tensor, z: Tensor) -> Batch:
    return Batch(real, None, None, z, torch.Generator().manual_seed(0))


def test_the_terms_of_the_energy_by_hand() -> None:
    line = nn.Linear(2, 1)
    module = linear(nn.Sequential(line, nn.Flatten(0)), spectral=0.3)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[3.0, 4.0]]))  # whose singular value is 5
        line.bias.fill_(7.0)
    terms = module.terms("energy", given(torch.eye(2).double(), torch.tensor([[2.0, 0.0], [0.0, 0.0]]).double()))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx({"contrast": 0.5, "spectral": 1.5})


@pytest.mark.parametrize("noisy", [True, False])
def test_the_energy_is_trained_on_samples_as_they_are_drawn(noisy: bool) -> None:
    """f(z) of the ends of chains, or f(z) + s e."""
    module, n = linear(Quadratic(), noisy=noisy), 4000
    module.progress.updates["energy"] = 1
    made = module.negatives(given(torch.zeros(n, 2).double(), torch.zeros(n, 1).double()))
    away = made - module.ends[:n] @ W.t()
    assert float(away.std()) == pytest.approx(S * noisy, rel=0.2)


@pytest.mark.parametrize(("done", "share"), [(0, 0.0), (1, 0.2), (4, 0.8), (8, 0.8)])
def test_the_share_of_chains_that_go_on_grows_to_its_end(done: int, share: float) -> None:
    module, n = linear(Quadratic(0.0), chain_steps=1, replay=0.8, replay_after=4, buffer_size=4000), 4000
    module.progress.updates["energy"] = done
    module.ends += 1000  # far from where others begin
    module.pushed += n
    module.negatives(given(torch.zeros(n, 2).double(), torch.zeros(n, 1).double()))
    assert float((module.ends > 500).double().mean()) == pytest.approx(share, abs=0.03)


# ---------------------------------------------------------------------- training
def test_first_the_autoencoder_then_the_energy() -> None:
    first, second = (make("vaebm", vae_steps=3) for _ in range(2))
    trainer(max_steps=3).fit(first, plain())
    before, after = state(make("vaebm")), state(first)
    moved = {k.split(".")[0] for k in before if not equal(before[k], after[k])}
    assert moved == {"encoder", "decoder", "log_variances"}
    trainer(max_steps=8).fit(second, plain())
    assert second.progress.updates == {"vae": 3, "energy": 5}


def test_a_frozen_autoencoder_stays_to_the_bit_and_the_contrast_falls() -> None:
    torch.manual_seed(0)
    module = make("vaebm", vae_steps=0, sigma=1.0, spectral=0.0, lr_energy=1e-2)
    before, data = state(module), torch.randn(256, 2) * 0.1
    trainer(max_steps=1).fit(module, MemoryLoader(data, None, 64))
    batch = module.last_batch
    assert batch is not None
    at = lambda net: float((net(batch.real).mean() - net(batch.z).mean()).detach())  # noqa: E731
    old = make("vaebm").energy
    assert at(module.energy) < at(old)
    same = {k for k, v in state(module).items() if equal(v, before[k])}
    assert {k for k in before if k.startswith(("encoder", "decoder", "log_var"))} <= same
    assert {k for k in same if k.startswith("energy")} <= {"energy.layers.2.bias"}  # which cancels


def test_ends_of_chains_are_kept_in_a_ring_and_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make("vaebm", vae_steps=0, sigma=1.0, buffer_size=6, replay=1.0, replay_after=1)
    seen: list[Tensor] = []
    walk = VAEBM.walk

    def watched(self: VAEBM, noise: Tensor, *arguments: Any) -> Tensor:
        seen.extend([noise[:, :3].clone(), end := walk(self, noise, *arguments)])
        return end

    monkeypatch.setattr(VAEBM, "walk", watched)
    trainer(max_steps=3).fit(module, plain())  # of 4 chains each
    begun, ended = seen[::2], [end[:, :3] for end in seen[1::2]]
    assert int(module.pushed) == 12
    known = {tuple(row) for end in ended for row in end.tolist()}
    assert not any(tuple(row) in known for row in begun[0].tolist())  # from the prior
    assert all(tuple(row) in known for later in begun[1:] for row in later.tolist())
    assert {tuple(row) for row in module.ends.tolist()} == {tuple(row) for row in torch.cat(ended)[-6:].tolist()}


def test_it_learns_what_an_autoencoder_of_one_mode_cannot() -> None:
    """Two narrow modes on the x axis under a normal decoder."""
    torch.manual_seed(0)
    signs = torch.randint(2, (1024, 1)) * 2.0 - 1
    data = torch.cat([signs, torch.zeros(1024, 1)], 1) + 0.1 * torch.randn(1024, 2)
    decoder = nn.Linear(2, 2, bias=False)
    decoder.weight.data = torch.eye(2)
    module = VAEBM(Back(2), decoder, ToyDiscriminator((2,), 32, 2), 2, vae_steps=0, sigma=0.1, step_size=0.1,
                   chain_steps=15, sampling_steps=30, spectral=0.5, replay_after=50, lr_energy=4e-3)  # fmt: skip
    plainly = near_modes(module.sample(1000, seed=0))
    trainer(max_steps=80, callbacks=[EMA(decay=0.95)]).fit(module, MemoryLoader(data, None, 64))
    corrected = module.sample(1000, seed=0)
    sides = float((corrected[:, 0] > 0).float().mean())
    assert near_modes(corrected) > 0.11 > 1.6 * plainly and 0.3 < sides < 0.7
    with torch.no_grad():
        assert float(module.energy(data).mean()) < float(module.energy(torch.randn(1000, 2)).mean()) - 0.3


def test_what_it_decodes_is_as_various_as_its_samples() -> None:
    """Chains so long that they forget where they began, which all would meet by one noise."""
    module = VAEBM(Back(2), nn.Linear(2, 2), ToyDiscriminator((2,), 8, 1), 2, vae_steps=0, sigma=0.1, step_size=0.2,
                   sampling_steps=40)  # fmt: skip
    module.pushed += 1
    ratio = module.decode(module.latents(1000, seed=0)[0]).std(0) / module.sample(1000, seed=0).std(0)
    assert 0.85 < float(ratio.min()) <= float(ratio.max()) < 1.15


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vae_steps": -1}, "vae_steps must be an integer >= 0, got -1"),
        ({"chain_steps": 0}, "chain_steps must be an integer >= 1, got 0"),
        ({"sampling_steps": 0}, "sampling_steps must be an integer >= 1, got 0"),
        ({"buffer_size": 0}, "buffer_size must be an integer >= 1, got 0"),
        ({"replay_after": 0}, "replay_after must be an integer >= 1, got 0"),
        ({"vae_steps": 0}, "sigma must be that of the trained VAE with vae_steps=0, got None"),
        ({"step_size": 0.0}, "step_size must be a finite number > 0, got 0.0"),
        ({"spectral": -1.0}, "spectral must be a finite number >= 0, got -1.0"),
        ({"replay": 1.5}, r"replay must be in \[0, 1\], got 1.5"),
        ({"lr_energy": -1.0}, "lr_energy must be a finite number >= 0, got -1.0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("vaebm", **options)


def test_bad_company() -> None:
    module = make("vaebm")
    module.energy = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"energy must return scores of shape \(4,\), got \(4, 2\)"):
        trainer(max_steps=1).fit(module, plain())
    with pytest.raises(ValueError, match="export needs a module whose samples take one network call, got VAEBM"):
        export(make("vaebm"), "a.pt2")


def test_before_the_energy_it_samples_as_an_autoencoder() -> None:
    module = make("vaebm", noisy=False)
    z, _ = module.latents(5, seed=0)
    with torch.no_grad():
        assert equal(module.decode(z), module.decoder(z))
    assert module.network_calls == 5


def test_an_energy_of_classes_under_a_decoder_without_is_sampled_with_classes() -> None:
    nets = VAEEncoder((2,), 3, 8), VAEDecoder((2,), 3, 8), ToyDiscriminator(width=8, num_classes=4)
    module = VAEBM(*nets, 3, vae_steps=1, chain_steps=2)
    trainer(max_steps=2).fit(module, MemoryLoader(torch.randn(16, 2), torch.arange(16) % 4, 8))
    assert module.num_classes == 4 and module.sample(5, seed=0).shape == (5, 2)
    other = module.sample(5, torch.arange(5) % 4, seed=0)
    with torch.inference_mode():  # of trainer.test and predict
        assert equal(module.sample(5, torch.arange(5) % 4, seed=0), other)


def test_the_schedule_of_the_energy_begins_with_it() -> None:
    halves = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)  # noqa: E731
    module = make("vaebm", vae_steps=3, scheduler_vae=halves, scheduler_energy=halves, lr_vae=1.0, lr_energy=1.0)
    fit = trainer(max_steps=5)
    fit.fit(module, plain())
    rates = [o.param_groups[0]["lr"] for o in fit.optimizers]
    assert rates == [2.0**-5, 2.0**-2]


def test_a_dry_run_times_both_of_its_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    minimise = VAEBM.minimise
    monkeypatch.setattr(VAEBM, "minimise", lambda self, name, *rest: (seen.append(name), minimise(self, name, *rest)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(RECIPE), "--dry_run", "--model.vae_steps=5", "--trainer.max_steps=7"])
    told = capsys.readouterr().out
    assert "VAEBM, 5 encoder and decoder updates, then energy updates" in told
    assert "5 encoder and decoder updates and 2 energy updates, about" in told
    assert seen == 4 * ["vae"] + 4 * ["energy"] and re.search(r"Cycle +[\d.]+ ms and [\d.]+ ms measured", told)
