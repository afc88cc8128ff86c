"""StylEx: what goes where, its terms by closed forms, and that what the classifier looks at is kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from common import doubles, equal, make, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import BoostedGAN, StyleGAN2, StylEx
from lightning_gans.callbacks import EMA
from lightning_gans.datamodules import MemoryLoader
from lightning_gans.diagnostics import AttFind, LatentDirections
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.latent import walk
from lightning_gans.networks import SoftDiscriminator, StyleEncoder, StyleGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.samplers import Truncation
from lightning_gans.tools.write import latent_walk

SIDE = (3, 8, 8)
DOUBLE = torch.float64


def rule(x: Tensor) -> Tensor:
    """Three classes, by which colour there is most of."""
    return 4 * x.mean((2, 3))


def game(**options: Any) -> StylEx:
    torch.manual_seed(1)
    g = StyleGenerator(SIDE, 8, widths=(4, 3), passed=3)
    nets: dict[str, Any] = {"encoder": StyleEncoder(SIDE, 8, 3, widths=(4, 3)), "classifier": rule}
    own: dict[str, Any] = {**nets, "num_classes": 3, "r1_every": 2, "path_length_every": 2}
    return StylEx(g, SoftDiscriminator(SIDE, (4, 3), group=2, classes=3), 8, **(own | options))


def told(module: StylEx, n: int = 6) -> Batch:
    batch = Batch(doubles(n, *SIDE, seed=5), None, None, doubles(n, 8, seed=6), torch.Generator().manual_seed(7))
    return module.told_by(batch)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_classifier_in_other_precisions(precision: Any) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    module = game(classifier=net)
    trainer(max_steps=2, precision=precision).fit(module, plain(shape=SIDE))
    assert module.classifier[1].weight.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    assert torch.equal(module.classifier[1].weight.to(net[1].weight), net[1].weight)


def test_half_are_reconstructions_by_code_and_verdict() -> None:
    module = game().double()
    batch, g = told(module), module.generator
    p = rule(batch.real).softmax(1)
    torch.testing.assert_close(batch.labels, p)
    torch.testing.assert_close(batch.z, torch.cat([doubles(6, 8, seed=6)[:, :5], p], 1))
    with torch.no_grad():
        fake = module.make_fake(batch)
        w = torch.cat([torch.cat([module.encoder(batch.real[:3]), p[:3]], 1), g.map(batch.z[3:])])  # type: ignore[operator]
        torch.testing.assert_close(fake, g.synthesis(g.spread(w)))  # type: ignore[operator]  # noise counts nothing yet
        torch.testing.assert_close(w[:, 5:], p)
        torch.testing.assert_close(module.encode(batch.real)[:3], w[:3])


def test_scores_are_means_by_soft_labels() -> None:
    module = game().double()
    batch = told(module)
    with torch.no_grad():
        heads = module.discriminator.layers(batch.real)  # type: ignore[operator]
        torch.testing.assert_close(module.score(batch.real, batch), (heads * batch.labels).sum(1))
        torch.testing.assert_close(module.discriminator(batch.real), heads.mean(1))
        one = torch.eye(3, dtype=DOUBLE)[torch.tensor([0, 2, 1, 0, 1, 2])]
        torch.testing.assert_close(module.discriminator(batch.real, one), heads[one.bool()])


def test_terms_by_closed_forms() -> None:
    weights = {"image": 2.0, "features": 0.3, "style": 0.5, "kl": 1.5}
    module = game(**{f"{name}_weight": value for name, value in weights.items()}).double()
    batch = told(module)
    fake = doubles(6, *SIDE, seed=9)
    with torch.no_grad():
        terms = module.generator_terms(batch, fake)
        x, again = batch.real[:3], fake[:3]
        p, q = rule(x).softmax(1), rule(again).softmax(1)
        unit = [y.log() / y.log().norm(dim=1, keepdim=True) for y in (p, q)]
        expected = {"image": (x - again).abs().mean(), "features": (unit[0] - unit[1]).square().sum(1).mean(),
                    "style": (module.encoder(x) - module.encoder(again)).abs().mean(),
                    "kl": (p * (p.log() - q.log())).sum(1).mean()}  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], weights[name] * value)
    same = module.generator_terms(batch, torch.cat([batch.real[:3], fake[3:]]))
    assert [float(same[name].abs()) for name in expected] == pytest.approx([0] * 4, abs=1e-12)
    assert game(kl_weight=0).double().generator_terms(batch, fake).keys() == terms.keys() - {"kl"}
    q = torch.full((1, 2), 0.5).log()
    kl = nn.functional.kl_div(q, torch.tensor([[0.9, 0.1]]), reduction="batchmean")
    assert float(kl) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


@pytest.mark.parametrize("features", [False, True])
def test_a_generator_step_reads_and_encodes_each_image_once(features: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """C has told of real samples before D's step; its features are asked for where it has some."""
    seen: dict[str, list[int]] = {"codes": [], "verdicts": [], "features": []}

    class Told(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen["verdicts"].append(len(x))
            return rule(x)

    net = Told()
    if features:
        net.features = lambda x: (seen["features"].append(len(x)), x.flatten(1))[1]  # type: ignore[assignment]
    module = game(classifier=net).double()
    last, encoder = told(module), module.encoder.forward
    monkeypatch.setattr(module.encoder, "forward", lambda x: (seen["codes"].append(len(x)), encoder(x))[1])
    for values in seen.values():
        values.clear()
    fresh = doubles(6, 8, seed=8)
    monkeypatch.setattr(StyleGAN2, "generator_batch", lambda self, last: dataclasses.replace(last, z=fresh))
    batch = module.generator_batch(last)
    assert batch.labels is last.labels is not None and torch.equal(batch.z[:, 5:], last.labels)
    assert torch.equal(batch.z[:, :5], fresh[:, :5])
    terms = module.generator_terms(batch, fake := module.make_fake(batch))
    assert seen == {"codes": [3, 3], "verdicts": [3] if features else [3, 3], "features": [3, 3] if features else []}
    again = module.generator_terms(batch, fake)  # the codes are of the step alone
    torch.testing.assert_close(again["style"], terms["style"])
    assert seen["codes"] == [3, 3, 3, 3]
    weights = [*module.encoder.parameters()]
    grads = [torch.autograd.grad(t["style"], weights, retain_graph=True) for t in (terms, again)]
    torch.testing.assert_close(*grads)


def test_everything_trains_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    whole, half, resumed = game(), game(), game()
    before = state(whole)
    for module, steps in ((whole, 6), (half, 3)):
        torch.manual_seed(3)
        t = trainer(max_steps=steps)
        t.fit(module, plain(shape=SIDE))
    t.save_checkpoint(tmp_path / "x.ckpt")
    trainer(max_steps=6).fit(resumed, plain(shape=SIDE), ckpt_path=tmp_path / "x.ckpt")
    assert equal(state(resumed), state(whole))
    still = [name for name, value in state(whole).items() if torch.equal(value, before[name])]
    assert all(name.endswith(".noise") for name in still)
    assert any(name.startswith("encoder.") for name in before)
    z, _ = whole.latents(5, seed=1)
    assert all(bool((whole.seen == row).all(1).any()) for row in z[:, 5:])  # of real samples
    assert torch.equal(whole.sample(5, seed=1), whole.decode(z))
    codes = whole.encode(plain(shape=SIDE).dataset[:4]).detach()  # type: ignore[index]
    assert AttFind(whole, rule, space="w", codes=codes).effects.shape == (4, 2, 8, 3)
    with pytest.raises(ValueError, match=r"codes must be w of shape \(4, 8\), got \(4, 3, 8, 8\)"):
        AttFind(whole, rule, codes=plain(shape=SIDE).dataset[:4])  # type: ignore[index]
    with pytest.raises(TypeError, match="x must be a floating-point tensor of samples"):
        whole.encode(torch.zeros(4, *SIDE, dtype=torch.uint8))


def test_the_generator_keeps_what_the_classifier_looks_at() -> None:
    """One small coordinate of three, which the image term alone leaves out."""

    def small(x: Tensor) -> Tensor:
        return 100 * x[:, 2]

    def played(kl_weight: float) -> float:
        torch.manual_seed(2)
        nets = ToyGenerator((3,), 3, width=16, depth=1), ToyDiscriminator((3,), width=16, depth=1)
        encoder = nn.Linear(3, 1)
        module = StylEx(*nets, 3, encoder=encoder, classifier=small, path_length_weight=0, image_weight=10.0,
                        kl_weight=kl_weight, features_weight=0, lr_g=2e-2)  # fmt: skip
        x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 1.0, 0.03])
        trainer(max_steps=120).fit(module, MemoryLoader(x, None, 32))
        with torch.no_grad():
            again = module.decode(module.encode(x))
        return float(((small(again) > 0) == (small(x) > 0)).double().mean())

    kept, left = played(1.0), played(0.0)
    assert kept > 0.9 and left < 0.8, (kept, left)


class One(nn.Module):
    """One logit of two classes, by the mean light; with features if it is told so."""

    def __init__(self, features: bool) -> None:
        super().__init__()
        if features:
            self.features = lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.mean((1, 2, 3))


@pytest.mark.parametrize("features", [False, True])
def test_a_classifier_of_one_logit_gives_every_term_a_gradient(features: bool) -> None:
    """At unit length one logit is only a sign."""
    torch.manual_seed(1)
    nets = StyleGenerator(SIDE, 8, widths=(4, 3), passed=2), SoftDiscriminator(SIDE, (4, 3), classes=2)
    module = StylEx(*nets, 8, encoder=StyleEncoder(SIDE, 8, 2, (4, 3)), classifier=One(features)).double()
    batch, fake = told(module), doubles(6, *SIDE, seed=9).requires_grad_()
    terms = module.generator_terms(batch, fake)
    for name in ("image", "features", "style", "kl"):
        gradient = torch.autograd.grad(terms[name], fake, retain_graph=True)[0]
        assert float(gradient[:3].abs().max()) > 1e-6 and float(gradient[3:].abs().max()) == 0, name
    if features:
        look = [nn.functional.normalize(module.classifier.features(x), dim=1) for x in (batch.real[:3], fake[:3])]
        torch.testing.assert_close(terms["features"], 0.1 * (look[0] - look[1]).square().sum(1).mean())


def test_codes_are_by_the_encoder_that_belongs_to_the_generator(tmp_path: Path) -> None:
    """Both are averaged, or neither is; also from a checkpoint, and from one that has no averaged encoder."""
    module, x = game(), plain(shape=SIDE).dataset[:4]  # type: ignore[index]
    t = trainer(max_steps=4, callbacks=[EMA(0.5)])
    t.fit(module, plain(shape=SIDE))
    assert module.ema is not None
    mean, now = module.averages["encoder"]
    assert now is module.encoder and not equal(mean(x), now(x))
    torch.testing.assert_close(module.encode(x)[:, :5], mean(x))
    t.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    again = game()
    for content, expected in ((saved, mean), ({k: v for k, v in saved.items() if k != "ema_encoder"}, now)):
        again.load_state_dict(saved["state_dict"])
        again.load_sampling_state(content)
        torch.testing.assert_close(again.encode(x)[:, :5], expected(x))
    again.drop_ema()
    torch.testing.assert_close(again.encode(x)[:, :5], now(x))


def weighed() -> Any:
    """An Exemplar VAE whose exemplars have been coded."""
    module: Any = make("exemplar_vae")
    module.means = 3 * torch.eye(3)
    return module


NORMAL, ONCE = "a module whose noise is standard normal", "a module whose samples take one network call"


@pytest.mark.parametrize(
    ("module", "words"),
    [(game(), NORMAL), (weighed(), NORMAL), (make("ddpm"), ONCE), (make("vaebm"), ONCE)],
    ids=["stylex", "exemplar_vae", "ddpm", "vaebm"],
)
@pytest.mark.parametrize(
    "tool",
    [
        lambda module: Truncation(module, threshold=0.7),
        LatentDirections,
        lambda module: BoostedGAN(ToyGenerator(), ToyDiscriminator(), 2, base=module),
    ],
    ids=["Truncation", "LatentDirections", "A mixture"],
)
def test_what_draws_noise_for_a_network_refuses_models_that_make_samples_otherwise(
    module: Any, words: str, tool: Any, request: Any
) -> None:
    who = request.node.callspec.id.split("-")[0]
    with pytest.raises(ValueError, match=f"{who} needs {words}, got"):
        tool(module)


@pytest.mark.parametrize("module", [game(), weighed()], ids=["stylex", "exemplar_vae"])
def test_ways_through_noise_of_another_law_are_straight(module: Any) -> None:
    """On the great circle probabilities would not sum to 1, and codes leave the span of their ends."""
    ends, _ = module.latents(4, seed=0)
    t = torch.linspace(0, 1, 5)
    expected = torch.lerp(ends[:2, None], ends[2:, None], t[None, :, None]).flatten(0, 1)
    torch.testing.assert_close(walk(module, 2, 5), module.decode(expected))
    stops, _ = module.latents(2, seed=0)
    there = torch.lerp(stops[:1, None], stops[1:, None], torch.tensor([0, 0.5])[None, :, None])[0]
    torch.testing.assert_close(latent_walk(module, n=1, places=2, frames=2)[:2, 0], module.decode(there))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_weight": -1.0}, "kl_weight must be a finite number >= 0, got -1"),
        ({"num_classes": 1}, "num_classes must be an integer >= 2, got 1"),
        ({"num_classes": 8}, "latent_dim must be an integer >= 9, got 8"),
        ({"num_classes": 2}, "generator must have passed=2, got 3"),
        ({"style_mixing": 0.5}, "style_mixing must be 0.0 of StylEx, whose codes are of one sample, got 0.5"),
        ({"g_batch_factor": 2}, "g_batch_factor must be 1 of StylEx, which goes by pairs, got 2"),
        ({"accumulate_g": 2}, "accumulate_g must be 1 of StylEx, which reconstructs D's one batch, got 2"),
        ({"classifier": None}, "classifier must be a network or a function, got None"),
        ({"encoder": rule}, "encoder must be a network, got <function rule"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as error:
        game(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"classifier": lambda x: x.mean((1, 2, 3))}, 4, "classifier must tell num_classes = 3 classes, got 2"),
        ({"encoder": StyleEncoder(SIDE, 9, 3, widths=4)}, 4, r"encoder must return codes \(N, 5\), got \(N, 6\)"),
        ({"classifier": lambda x: rule(x).detach()}, 4, "differentiable in the samples for kl_weight > 0"),
        ({"classifier": lambda x: rule(x).detach(), "kl_weight": 0.0}, 4, "samples for features_weight > 0"),
        ({}, 1, "batch_size must be >= 2 for reconstructions and samples, got a batch of 1 "),
    ],
)
def test_what_does_not_fit_is_refused_when_training_starts(options: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        trainer(max_steps=1).fit(game(**options), plain(shape=SIDE, batch_size=size))
    assert "\n" not in str(error.value)


def test_a_short_last_batch_is_refused() -> None:
    """Its mean over no reconstruction would be NaN."""
    loader = torch.utils.data.DataLoader(doubles(9, *SIDE).float(), 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"batch_size must be >= 2 .* got a batch of 1 "):
        trainer(max_steps=3).fit(game(), loader)


def test_networks_of_no_codes_or_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"classes must be below latent_dim = 8, got 8\."):
        StyleEncoder(SIDE, 8, 8)
    with pytest.raises(ValueError, match=r"classes must be an integer >= 1, got 0"):
        SoftDiscriminator(SIDE, classes=0)
