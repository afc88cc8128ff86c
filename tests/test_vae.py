"""The variational autoencoder against what is known of it, and the Exemplar VAE's search for the nearest exemplars."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from common import doubles, equal, make, plain, state, trainer
from test_exemplar_vae import S2, B, Decode, W, X
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from lightning_gans import VAE, ExemplarVAE, load
from lightning_gans.callbacks import EMA
from lightning_gans.cli import main
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Digits, MemoryLoader
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.variational import mixture_log_density, standard_normal_kl
from lightning_gans.networks import ToyGenerator, VAEDecoder, VAEEncoder
from lightning_gans.stages import Cascade
from lightning_gans.tools import export

CONFIG = Path(__file__).parent.parent / "configs" / "digits" / "vae.yaml"


def test_the_divergence_is_torchs() -> None:
    mean, log_variance = doubles(5, 3), doubles(5, 3, seed=1)
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(standard_normal_kl(mean, log_variance), exact.double(), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(standard_normal_kl, (mean.requires_grad_(), log_variance.requires_grad_()))


# ---------------------------------------------------------------------- a linear case that is known
class Posterior(nn.Module):
    """q(z|x) = p(z|x) of x = w z + b + N(0, s^2), z standard normal: one variance, a mean linear in x."""

    def __init__(self) -> None:
        super().__init__()
        self.variance = 1 / (1 + float(W @ W) / S2)
        self.gain = nn.Parameter(W * self.variance / S2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = ((x - B) @ self.gain)[:, None]
        return mean, torch.full_like(mean, math.log(self.variance))


def linear(**options: Any) -> tuple[VAE, Tensor]:
    module = VAE(Posterior(), Decode(), 1, **options).double()
    with torch.no_grad():
        module.log_variances["data"].fill_(math.log(S2))
    covariance = S2 * torch.eye(2, dtype=torch.float64) + torch.outer(W, W)
    return module, MultivariateNormal(B, covariance).log_prob(X)


def test_the_bound_is_exact_where_q_is_the_posterior() -> None:
    module, exact = linear()
    torch.testing.assert_close(module.log_density_bound(X, samples=3), exact, rtol=1e-10, atol=0)
    module.progress.kept["beta"] = torch.ones(())
    node = [math.sqrt(3.0), -math.sqrt(3.0), 0.0]  # Gauss-Hermite, exact for squares: E over z ~ q(z|x)
    terms = [module.terms("vae", Batch(X, None, None, torch.full((2, 1), a, dtype=torch.float64))) for a in node]
    sums = [float(t["reconstruction"] + t["kl"]) for t in terms]
    assert -(sums[0] + sums[1] + 4 * sums[2]) / 6 == pytest.approx(float(exact.mean()), rel=1e-10)


def test_a_closed_divergence_is_the_mean_of_the_exemplars_estimate() -> None:
    """Its one-sample form, with a standard normal prior in place of the exemplars'."""
    module, _ = linear()
    mean, log_variance = module.encoder(X)
    z = mean[:, None] + (log_variance / 2).exp()[:, None] * doubles(2, 200_000, 1)
    q = Normal(mean[:, None], (log_variance / 2).exp()[:, None])
    sampled = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).mean((1, 2))
    closed = module.divergence(z[:, 0], mean, log_variance, Batch(X, None, None, z[:, 0]))
    torch.testing.assert_close(sampled, closed, rtol=0, atol=0.01)


def test_sigma_is_kept_or_learned() -> None:
    fixed, free = (make("vae", sigma=s, lr_vae=0.1) for s in (0.25, None))
    for module in (fixed, free):
        trainer(max_steps=3).fit(module, plain(40))
    assert float(fixed.log_variances["data"].detach()) == pytest.approx(2 * math.log(0.25))
    assert float(free.log_variances["data"].detach()) != 0


def test_a_decoder_may_take_labels() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 2) * 0.1, torch.arange(64) % 2
    x[:, 0] += 4.0 * y - 2
    module = VAE(VAEEncoder((2,), 3, 8), ToyGenerator((2,), 3, 16, 1, num_classes=2), 3, lr_vae=0.02)
    trainer(max_steps=150).fit(module, MemoryLoader(x, y, 32))
    assert module.num_classes == 2
    for label in (0, 1):
        samples = module.sample(100, torch.full((100,), label), seed=0)
        assert float((samples[:, 0].sign() == 2 * label - 1).float().mean()) > 0.9
    bounds = [float(module.log_density_bound(x, labels=given).mean()) for given in (y, 1 - y)]
    assert bounds[0] > bounds[1] + 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sigma": 0.0}, "sigma must be a finite number > 0, got 0.0"),
        ({"warm_up": -1}, "warm_up must be an integer >= 0, got -1"),
    ],
)
def test_bad_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("vae", **options)


def test_codes_and_bounds_are_by_both_averaged_networks_or_by_neither(tmp_path: Path) -> None:
    """Also of a checkpoint from before the encoder was averaged, which has the trained one."""
    module, x = make("vae", lr_vae=0.05), plain().dataset[:8]  # type: ignore[index]
    t = trainer(max_steps=5, callbacks=[EMA(0.8)])
    t.fit(module, plain())
    t.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    (decoder, _), (encoder, now) = module.averages["ema"], module.averages["encoder"]
    assert now is module.encoder and not equal(encoder(x)[0], now(x)[0])
    found = []
    for content in (saved, {k: v for k, v in saved.items() if k != "ema_encoder"}):
        again, plainly = make("vae"), make("vae")
        for net in (again, plainly):
            net.load_state_dict(saved["state_dict"])
        again.load_sampling_state(content)
        plainly.encoder.load_state_dict((encoder if content is saved else now).state_dict())
        plainly.decoder.load_state_dict(decoder.state_dict())
        for net in (again, plainly):
            torch.manual_seed(0)
            found.append(net.log_density_bound(x))
            found.append(Cascade(net).codes(x))
    for i in (0, 1, 4, 5):
        torch.testing.assert_close(found[i], found[i + 2])
    assert not equal(found[0], found[4])


def test_a_bound_takes_samples() -> None:
    with pytest.raises(ValueError, match="samples must be an integer >= 1, got 0"):
        make("vae").log_density_bound(torch.zeros(3, 2), samples=0)


@pytest.mark.parametrize("call", [lambda x: make("vae").log_density_bound(x), lambda x: make("exemplar_vae").vary(x)])
def test_pixels_that_are_no_samples_are_refused(call: Any) -> None:
    with pytest.raises(TypeError, match=r"x must be a floating-point tensor of samples .*, got torch\.uint8"):
        call(torch.zeros(3, 2, dtype=torch.uint8))


def test_noise_of_another_length_is_refused() -> None:
    module = VAE(nn.Identity(), nn.Linear(4, 2), 4)
    with pytest.raises(ValueError, match=r"z must have shape \(3, 4\), got \(3, 5\)"):
        module.decode(torch.zeros(3, 5))


# ---------------------------------------------------------------------- the nearest exemplars
def test_fewer_exemplars_bound_the_prior_from_below() -> None:
    """The nearest k with the number of all as divisor: less than all, more with larger k, all of it at the end."""
    z, means, v = doubles(4, 2), doubles(9, 2, seed=1), torch.tensor(-0.5, dtype=torch.float64)
    count = torch.full((4,), 9)
    order = torch.cdist(z, means).argsort(1)
    values = []
    for k in range(1, 10):
        out = torch.ones(4, 9, dtype=torch.bool).scatter_(1, order[:, :k], False)
        values.append(mixture_log_density(z, means, v, out, count))
    assert all(bool((a < b).all()) for a, b in pairwise(values))
    torch.testing.assert_close(values[-1], mixture_log_density(z, means, v), rtol=1e-12, atol=0)
    torch.testing.assert_close(mixture_log_density(z, means, v, count=count + 9), values[-1] - math.log(2))


def memory(n: int = 40) -> MemoryLoader:
    return MemoryLoader(plain(n).dataset, None, 8)  # type: ignore[arg-type]


class Watched(pl.Callback):
    """Which exemplars the prior is made of, and the codes that they are found by."""

    def __init__(self) -> None:
        self.encoded: list[Tensor] = []
        self.stale: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if "_together" not in vars(pl_module):
            together = pl_module._together
            pl_module._together = lambda index, generator: self.encoded.append(index) or together(index, generator)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        now = pl_module.encoder(trainer.train_dataloader.data)[0]
        self.stale.append(float((pl_module.codes - now).norm(dim=1).max().detach()))


def test_only_the_nearest_exemplars_are_encoded() -> None:
    module, watch = make("exemplar_vae_near", exemplars=None, neighbours=1, lr_vae=0.05), Watched()
    trainer(max_steps=12, callbacks=[watch]).fit(module, memory())
    used = [index for index in watch.encoded if len(index) < 40]
    assert len(used) == 12 and all(1 <= len(index) <= 8 for index in used)  # a neighbour for each of 8 rows
    assert 0 < watch.stale[0] < max(watch.stale)  # codes lag behind the encoder
    module.codes = torch.tensor([[0.0], [1.0], [1.5], [9.0], [4.0]]).expand(5, 3)
    rows = torch.tensor([0, 3]), torch.tensor([[0.1] * 3, [8.0] * 3])
    assert module.nearest(torch.arange(5), *rows).tolist() == [1, 4]  # not 0 and 3, which are their own
    module.neighbours = 2
    assert module.nearest(torch.tensor([0, 1, 2, 4]), *rows).tolist() == [1, 2, 4]
    module.neighbours = 100
    assert module.nearest(torch.arange(5), *rows).tolist() == [0, 1, 2, 3, 4]


def test_all_neighbours_are_all_exemplars() -> None:
    ends = []
    for neighbours in (None, 39):
        pl.seed_everything(0, verbose=False)
        module = make("exemplar_vae", neighbours=neighbours).double()
        trainer(max_steps=6).fit(module, MemoryLoader(plain(40, dtype=torch.float64).dataset, None, 8))  # type: ignore[arg-type]
        ends.append({k: v for k, v in state(module).items() if k != "codes"})
    for a, b in zip(*(end.values() for end in ends), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_a_new_fit_begins_with_new_codes() -> None:
    module = make("exemplar_vae_near")
    for n in (40, 24):
        trainer(max_steps=2).fit(module, memory(n))
        assert module.codes.shape == (n, 3) and "codes" in module.state_dict()
    assert "codes" not in make("exemplar_vae").state_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neighbours": 0}, "neighbours must be an integer >= 1, got 0"),
        ({"neighbours": 2, "cuda_graphs": True}, "cuda_graphs must be False with neighbours, got True"),
    ],
)
def test_bad_neighbours(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("exemplar_vae", **options)


def test_samples_like_a_given_one() -> None:
    module = make("exemplar_vae")
    trainer(max_steps=2).fit(module, memory())
    x, own = plain(40).dataset[:5], torch.Generator()  # type: ignore[index]
    first, other = module.vary(x, own.manual_seed(0)), module.vary(x, own.manual_seed(1))
    assert first.shape == x.shape and not equal(first, other) and equal(first, module.vary(x, own.manual_seed(0)))
    with torch.no_grad():
        module.log_variances["prior"].fill_(-60)
        torch.testing.assert_close(module.vary(x), module.decode(module.encoder(x)[0]))


@pytest.mark.slow
def test_the_nearest_exemplars_do_as_well_on_digits() -> None:
    """10 of 1,437: the bound of held-out digits, by all exemplars, is within 2 nats of that of all."""
    found = []
    for neighbours in (None, 10):
        pl.seed_everything(0, verbose=False)
        shape, data = (1, 8, 8), Digits(batch_size=100)
        nets = VAEEncoder(shape, 8, 64), VAEDecoder(shape, 8, 64)
        module = ExemplarVAE(*nets, 8, neighbours=neighbours, lr_vae=2e-3, warm_up=100)
        trainer(max_steps=1000).fit(module, datamodule=data)
        found.append(float(module.log_density_bound(data.reference("test")[0].float() / 127.5 - 1, samples=32).mean()))
    assert found[1] > found[0] - 2, found


# ---------------------------------------------------------------------- learning, and the command line
def test_it_learns_digits() -> None:
    """Two hundred updates: its bound on held-out digits is far above that of a normal density of each pixel."""
    pl.seed_everything(0, verbose=False)
    shape, data = (1, 8, 8), Digits(batch_size=100)
    module = VAE(VAEEncoder(shape, 8, 64), VAEDecoder(shape, 8, 64), 8, lr_vae=5e-3)
    trainer(max_steps=200).fit(module, datamodule=data)
    train, test = (data.reference(split)[0].float() / 127.5 - 1 for split in ("train", "test"))  # type: ignore[arg-type]
    mean, spread = train.mean(0), train.std()
    independent = Normal(mean, spread).log_prob(test).flatten(1).sum(1).mean()
    assert float(module.log_density_bound(test).mean()) > float(independent) + 8


@pytest.mark.slow  # ExemplarVAE's, by the same code, is among the default tests
def test_its_life_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Trained by its YAML, scored, carded, loaded, exported; and its plan."""
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--grid.every_n_steps=null"]
    short = ["fit", f"--config={CONFIG}", *quiet]
    main([*short, "--name=a", "--trainer.max_steps=4"])
    run = tmp_path / "runs" / "a"
    scores = [json.loads(line) for line in (run / "scores-lenet.jsonl").read_text().splitlines()]
    assert scores[-1]["step"] == 4 and math.isfinite(scores[-1]["metrics/fid/lenet"])
    card = (run / "checkpoints" / "last.md").read_text()
    for words in ("# VAE on Digits", "arXiv:1312.6114", "- updates: 4 (400 real samples seen)", "fid/lenet"):
        assert words in card, words
    module = load(run)
    assert isinstance(module, VAE) and module.ema is not None
    z, _ = module.latents(5, seed=3)
    exported = torch.export.load(export(module, tmp_path / "d.pt2")).module()
    torch.testing.assert_close(exported(z), module.sample(5, seed=3), rtol=1e-5, atol=1e-5)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*short, "--dry_run", "--trainer.max_steps=6"])
    assert "VAE, 1 update per cycle" in (told := capsys.readouterr().out) and "Length         6 updates" in told
    assert "Decoder " in told and "Log_variances" not in told
