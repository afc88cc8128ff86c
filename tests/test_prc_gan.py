"""Sample reweighting and probability ratio clipping (arXiv:2006.06900)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import GAN, PRCGAN, WGANGP
from lightning_gans.compat.lightning import callbacks
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import prc
from lightning_gans.functional.losses import LOSSES
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import GradientPenalty


def game(**options: Any) -> PRCGAN:
    return make("prc_gan_clip", **({"d_steps": 5, "g_steps": 5} | options))  # type: ignore[return-value]


# ---------------------------------------------------------------------- weights
def test_weights_are_the_softmax_times_the_batch() -> None:
    f = torch.tensor([0.0, math.log(2), math.log(5)], dtype=torch.float64, requires_grad=True)
    weights = prc.softmax_weights(f)
    torch.testing.assert_close(weights, torch.tensor([0.375, 0.75, 1.875], dtype=torch.float64))
    torch.testing.assert_close(prc.softmax_weights(f + 7), weights)
    assert not weights.requires_grad
    assert prc.softmax_weights(torch.tensor([200.0, 0.0, -200.0])).tolist() == [3.0, 0.0, 0.0]


def test_temperature_flattens_the_weights() -> None:
    f = torch.tensor([0.0, math.log(4)], dtype=torch.float64)
    torch.testing.assert_close(prc.softmax_weights(f, 2.0), torch.tensor([2 / 3, 4 / 3], dtype=torch.float64))


def test_gradient_of_the_weighted_fakes_is_that_of_logsumexp() -> None:
    torch.manual_seed(0)
    f = torch.randn(16, dtype=torch.float64, requires_grad=True)
    weighted = torch.autograd.grad((prc.softmax_weights(f) * f).mean(), f)[0]
    torch.testing.assert_close(weighted, torch.autograd.grad(torch.logsumexp(f, 0), f)[0], rtol=0, atol=1e-12)


def test_the_module_weights_its_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = game().double()
    real, fake = torch.randn(2, 8, 2, dtype=torch.float64)
    batch = Batch(real, None, None, torch.zeros(8, 3))
    loss = module.discriminator_terms(batch, fake)["adversarial"]
    got = torch.autograd.grad(loss, list(module.discriminator.parameters()), allow_unused=True)
    bound = module.discriminator(real).mean() - torch.logsumexp(module.discriminator(fake), 0)
    want = torch.autograd.grad(-bound, list(module.discriminator.parameters()), allow_unused=True)
    for a, b in zip(got[:-1], want[:-1]):  # the last bias has gradient 0, up to rounding
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(module.values["d/donsker_varadhan"], bound + math.log(8))
    share = module.values["d/effective_share"]
    assert 0 < share <= 1 <= module.values["d/weight_max"]


def test_donsker_varadhan_value_is_the_divergence_for_the_best_score() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 400_000, dtype=torch.float64)
    values = [
        prc.donsker_varadhan(1.3 * (a + 1.3), 1.3 * b) for a, b in zip(real.chunk(20), fake.chunk(20), strict=True)
    ]
    mean, error = torch.stack(values).mean(), torch.stack(values).std() / math.sqrt(20)
    assert abs(mean - 1.3**2 / 2) < 4 * error


# ---------------------------------------------------------------------- ratio and surrogate
def test_ratio_of_two_gaussians() -> None:
    x = torch.linspace(-3, 3, 11, dtype=torch.float64)
    m0, m1, p_d = -0.3, 0.8, -0.5 * (x - 2).square()
    old, new = (p_d + 0.5 * (x - m).square() for m in (m0, m1))  # logits of the optimal classifiers
    torch.testing.assert_close(prc.log_ratio(new, old), (m1 - m0) * x - (m1**2 - m0**2) / 2)


def test_log_ratio_is_clamped() -> None:
    far = prc.log_ratio(torch.tensor([50.0, -50.0]), torch.zeros(2))
    assert far.tolist() == [-10.0, 10.0]


@pytest.mark.parametrize("surrogate", ["code", "paper"])
def test_surrogate(surrogate: prc.Surrogate) -> None:
    torch.manual_seed(0)
    f, r, e = torch.randn(100, dtype=torch.float64), torch.rand(100, dtype=torch.float64) * 3, 0.4
    clipped = r.clamp(1 - e, 1 + e)
    low, high = torch.minimum(r * f, clipped * f), torch.maximum(r * f, clipped * f)
    expected = low if surrogate == "paper" else torch.where(f > 0, low, high)
    torch.testing.assert_close(prc.surrogate_weights(r, f >= 0, e, surrogate) * f, expected, rtol=0, atol=1e-12)


def test_reward_is_each_samples_share_of_the_objective() -> None:
    f = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(prc.reward(LOSSES["wasserstein"].generator, f), f)
    torch.testing.assert_close(prc.reward(LOSSES["non_saturating"].generator, f), torch.nn.functional.logsigmoid(f))


class Linear(nn.Module):
    """Scores a x_0 + b."""

    def __init__(self, a: float, b: float = 0.0) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a).double()), b

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x[:, 0] + self.b


def surrogate_gradient(logit: float, **options: Any) -> tuple[Tensor, PRCGAN]:
    """d(-objective)/d(fake) for f = 3 x_0 and C's logits constant, of a batch of 4."""
    module = PRCGAN(ToyGenerator(shape=(2,), latent_dim=3), Linear(3.0), 3, classifier=Linear(0.0, logit), **options)
    module.kept["logits"] = torch.zeros(4, dtype=torch.float64)
    fake = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    batch = Batch(fake.detach(), None, None, torch.zeros(4, 3))
    return torch.autograd.grad(module.generator_terms(batch, fake)["adversarial"], fake)[0], module


@pytest.mark.parametrize(("ratio", "weight", "share"), [(10.0, 1.4, 1.0), (1.2, 1.2, 0.0), (0.1, 0.1, 0.0)])
def test_a_clipped_sample_still_pushes_with_weight_one_plus_epsilon(ratio: float, weight: float, share: float) -> None:
    gradient, module = surrogate_gradient(-math.log(ratio), ct_weight=0.0)
    torch.testing.assert_close(gradient[:, 0], torch.full((4,), -weight * 3 / 4, dtype=torch.float64))
    assert float(module.values["g/clipped"]) == share
    torch.testing.assert_close(float(module.values["g/ratio_q50"]), ratio)


def test_the_gradient_flows_through_the_ratio_too() -> None:
    """d/dx of f r with f = 3x, log r = -2x: (3 - 6x) e^{-2x}, per sample and negated."""
    module = PRCGAN(ToyGenerator(shape=(2,), latent_dim=3), Linear(3.0), 3, classifier=Linear(2.0), ct_weight=0.0)
    module.kept["logits"] = torch.zeros(1, dtype=torch.float64)
    fake = torch.full((1, 2), 0.3, dtype=torch.float64, requires_grad=True)
    batch = Batch(fake.detach(), None, None, torch.zeros(1, 3))
    gradient = torch.autograd.grad(module.generator_terms(batch, fake)["adversarial"], fake)[0]
    assert gradient[0, 0].item() == pytest.approx(-(3 - 6 * 0.3) * math.exp(-0.6), rel=1e-10)


def test_centred_scores_do_not_depend_on_the_critics_level() -> None:
    fake = torch.randn(6, 2, dtype=torch.float64)
    gradients = []
    for level in (0.0, 5.0):
        module = PRCGAN(
            ToyGenerator(shape=(2,), latent_dim=3), Linear(3.0, level), 3, classifier=Linear(2.0),
            ct_weight=0.0, center_scores=True, surrogate="paper",
        )  # fmt: skip
        module.kept["logits"] = torch.zeros(6, dtype=torch.float64)
        x = fake.clone().requires_grad_()
        loss = module.generator_terms(Batch(fake, None, None, torch.zeros(6, 3)), x)["adversarial"]
        gradients.append(torch.autograd.grad(loss, x)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


# ---------------------------------------------------------------------- the loop
class Recorder(PRCGAN):
    """Notes what happens, in order."""

    def minimise(self, player: str, *arguments: Any) -> None:
        self.log_of_steps.append(player)
        super().minimise(player, *arguments)

    def generator_terms(self, batch: Batch, fake: Tensor) -> Any:
        self.noise.append(batch.z.clone())
        with torch.no_grad():
            self.old.append(self.kept["logits"].clone())
        return super().generator_terms(batch, fake)


def recorder(**options: Any) -> Recorder:
    module = game(**options)
    module.__class__ = Recorder
    module.log_of_steps, module.noise, module.old = [], [], []  # type: ignore[attr-defined]
    return module  # type: ignore[return-value]


def test_a_cycle_is_d_steps_then_classifier_and_generator_in_turn() -> None:
    module = recorder(d_steps=2, g_steps=3, c_steps=2)
    fit = trainer(max_steps=4)
    fit.fit(module, plain(batch_size=4))
    assert "".join(module.log_of_steps) == "dd" + 3 * "ccg" + "dd" + "ccg"
    assert fit.global_step == 4
    z, old = module.noise, module.old
    assert equal(z[0], z[1]) and equal(z[1], z[2]) and not equal(z[2], z[3])
    assert equal(old[0], old[1]) and equal(old[1], old[2]) and not equal(old[2], old[3])
    assert module.images_seen == 4 * (2 + 2 + 4 * 2)


def test_the_ratio_is_one_where_nothing_has_moved() -> None:
    """C and G at learning rate 0: x_new = x_old and C_new = C_old."""
    module = game(lr_g=0.0, lr_c=0.0, g_steps=2, d_steps=1)
    trainer(max_steps=2).fit(module, plain(batch_size=8))
    for name in ("q05", "q50", "q95"):
        assert float(module.values[f"g/ratio_{name}"]) == pytest.approx(1.0, abs=1e-6)
    assert float(module.values["g/clipped"]) == 0.0


def test_the_classifier_learns_label_one_for_real() -> None:
    module = game(lr_g=0.0, lr_c=0.02, d_steps=1, g_steps=5)
    trainer(max_steps=150).fit(module, plain(batch_size=64))
    assert module.values["c/accuracy"] > 0.7
    real = plain(batch_size=64).dataset[:200]
    with torch.no_grad():
        assert module.classifier(real).mean() > module.classifier(module.sample(200)).mean()


def test_steps_leave_the_other_networks_alone() -> None:
    module = game(lr_g=0.0, lr_d=0.0, d_steps=1, g_steps=1)
    before = state(module)
    trainer(max_steps=2).fit(module, plain())
    changed = {name.split(".")[0] for name, value in state(module).items() if not equal(value, before[name])}
    assert changed == {"classifier"}


def test_resume_in_the_middle_of_a_cycle(tmp_path: Path) -> None:
    whole, first, rest = (game(d_steps=2, g_steps=3) for _ in range(3))
    torch.manual_seed(3)
    trainer(max_steps=8).fit(whole, plain(40, 4))
    torch.manual_seed(3)
    half = trainer(max_steps=5)
    half.fit(first, plain(40, 4))
    half.save_checkpoint(tmp_path / "c.ckpt")
    assert "logits" in torch.load(tmp_path / "c.ckpt", weights_only=True)["engine"]["ranks"][0]["kept"]
    torch.manual_seed(99)
    trainer(max_steps=8).fit(rest, plain(40, 4), ckpt_path=tmp_path / "c.ckpt")
    assert equal(state(whole), state(rest))


# ---------------------------------------------------------------------- learning
class Shifted(torch.utils.data.IterableDataset):
    """N(m, 1) in one dimension."""

    def __init__(self, m: float) -> None:
        self.m = m

    def __iter__(self) -> Any:
        while True:
            yield torch.randn(512, 1) + self.m


class Shift(nn.Module):
    """z + theta."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.theta


def play(module: PRCGAN, m: float, steps: int) -> None:
    torch.manual_seed(2)
    trainer(max_steps=steps).fit(module, torch.utils.data.DataLoader(Shifted(m), batch_size=None))


def test_clipped_updates_reach_the_data() -> None:
    """From 0 to the data's mean of 1.5."""
    torch.manual_seed(0)
    nets = [ToyDiscriminator(shape=(1,), width=width, depth=depth) for width, depth in ((32, 2), (16, 1))]
    rates = {"lr_d": 4e-3, "lr_c": 4e-3, "lr_g": 4e-3}
    module = PRCGAN(Shift(), nets[0], 1, classifier=nets[1], ct_weight=0.0, center_scores=True, **rates)
    play(module, 1.5, 450)
    assert abs(float(module.generator.theta) - 1.5) < 0.3


@pytest.mark.parametrize(("reweight", "temperature"), [(True, 1.0), (True, 2.0), (False, 1.0)])
def test_the_reweighted_critic_learns_the_log_ratio(reweight: bool, temperature: float) -> None:
    """f* = T log p_data / p_theta = 1.3 T x + const, at T = 1 of value 0.845; without weights the slope runs away."""
    options: dict[str, Any] = {"ratio_clip": None, "g_steps": 1, "gp_weight": 0.0, "ct_weight": 0.0, "lr_g": 0.0}
    options |= {"reweight": reweight, "temperature": temperature, "betas": (0.5, 0.9)}
    module = PRCGAN(Shift(), Linear(0.3).float(), 1, lr_d=0.02, **options)
    play(module, 1.3, 60)
    slope = float(module.discriminator.a.detach())
    assert abs(slope - 1.3 * temperature) < 0.15 * temperature if reweight else slope > 3
    if reweight and temperature == 1:
        assert abs(float(module.values["d/donsker_varadhan"]) - 1.3**2 / 2) < 0.25


def test_the_old_logits_are_from_before_the_classifiers_update() -> None:
    """G stands still: the ratio of the first generator update is what C's own update made of it."""
    module = game(lr_g=0.0, lr_c=0.05, d_steps=1, g_steps=1)
    before = {name: p.detach().clone() for name, p in module.classifier.named_parameters()}
    trainer(max_steps=1).fit(module, plain(batch_size=9))
    assert module.last_fake is not None
    with torch.no_grad():
        old = torch.func.functional_call(module.classifier, before, (module.last_fake,))
        ratio = (old - module.classifier(module.last_fake)).exp()
    assert float((ratio - 1).abs().min()) > 1e-3
    torch.testing.assert_close(module.values["g/ratio_q50"], ratio.median())


def test_the_classifiers_gradient_is_clipped() -> None:
    norms = []
    for largest in (1e-3, None):
        module = game(clip_grad_c=largest, d_steps=1, g_steps=1)
        trainer(max_steps=1).fit(module, plain())
        norms.append(float(torch.cat([p.grad.flatten() for p in module.classifier.parameters()]).norm()))
    assert norms[0] == pytest.approx(1e-3, rel=1e-3) and norms[1] > 1e-2


def test_the_classifier_has_an_optimizer_and_a_schedule_of_its_own() -> None:
    fall = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    module = game(optimizer_c=partial(torch.optim.SGD, lr=0.5), scheduler_c=fall, d_steps=1, g_steps=1)
    (t := trainer(max_steps=1)).fit(module, plain())
    assert isinstance(t.optimizers[2], torch.optim.SGD) and t.optimizers[2].param_groups[0]["lr"] == 0.05


class Point(nn.Module):
    """theta, whatever z."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        return self.theta.expand(len(z), 1)


@pytest.mark.parametrize(("surrogate", "level"), [("code", 2.0), ("code", -2.0), ("paper", 2.0), ("paper", -2.0)])
def test_a_cycle_moves_the_generator_by_the_clipped_surrogate(surrogate: prc.Surrogate, level: float) -> None:
    """f = x + b and l = -+x, so that r = e^{+-theta}; three steps of SGD on min(r f, clip(r) f), or the code's max.

    Without the clip the first case ends at 8.56 and not 1.16.
    """
    eta, slope = 0.2, -1.0 if level > 0 else 1.0
    nets, sgd = (Linear(1.0, level).float(), Linear(slope).float()), lambda p: torch.optim.SGD(p, eta)
    options: dict[str, Any] = {"surrogate": surrogate, "gp_weight": 0.0, "ct_weight": 0.0, "lr_d": 0.0, "lr_c": 0.0}
    module = PRCGAN(Point(), nets[0], 1, classifier=nets[1], d_steps=1, g_steps=3, optimizer_g=sgd, **options)
    trainer(max_steps=3).fit(module, plain(shape=(1,)))
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        f, r = theta + level, (-slope * theta).exp()
        least = torch.maximum if surrogate == "code" and level < 0 else torch.minimum
        (gradient,) = torch.autograd.grad(least(r * f, r.clamp(0.6, 1.4) * f), theta)
        theta = (theta + eta * gradient).detach().requires_grad_()
    assert float(module.generator.theta.detach()) == pytest.approx(float(theta.detach()), rel=1e-5)


class Untouched(nn.Module):
    """A classifier that must not be asked."""

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("the classifier was fed")


@pytest.mark.parametrize("plain_one", [GAN, WGANGP])
@pytest.mark.parametrize("classifier", [None, Untouched()])
def test_with_both_switches_off_it_is_the_plain_technique(plain_one: type, classifier: nn.Module | None) -> None:
    nets = [(ToyGenerator(shape=(2,), latent_dim=3, width=8), ToyDiscriminator(shape=(2,), width=8)) for _ in "ab"]
    for a, b in zip(*nets, strict=True):
        b.load_state_dict(a.state_dict())
    same: dict[str, Any] = {"d_steps": 2, "lr_d": 1e-3, "lr_g": 1e-3, "betas": (0.0, 0.9)}
    if plain_one is GAN:
        reference = GAN(*nets[0], 3, loss="wasserstein", regularizers=[GradientPenalty(5.0)], **same)
    else:
        reference = WGANGP(*nets[0], 3, gp_weight=5.0, **same)
    off: dict[str, Any] = {"reweight": False, "ratio_clip": None, "g_steps": 1, "ct_weight": 0.0}
    ours = PRCGAN(*nets[1], 3, classifier=classifier, **off, **same)
    assert not hasattr(ours, "classifier") and list(ours.players) == ["d", "g"]
    drawn = []
    for module in (reference, ours):
        torch.manual_seed(5)
        trainer(max_steps=6).fit(module, plain(batch_size=4))
        drawn.append(torch.get_rng_state())
    assert equal(state(reference), state(ours)) and equal(*drawn)
    assert equal(reference.run.noise.get_state(), ours.run.noise.get_state())
    assert reference.images_seen == ours.images_seen


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier": None}, "classifier must be a network with ratio_clip"),
        ({"ratio_clip": 0.0}, "ratio_clip must be"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"clip_grad_c": -1.0}, "clip_grad_c must be a finite number > 0"),
        ({"surrogate": "ppo"}, "surrogate must be"),
        ({"accumulate_g": 2}, "accumulate_g must be 1 with ratio_clip"),
        ({"g_batch_factor": 2}, "g_batch_factor must be 1 with ratio_clip"),
        ({"order": "g_first", "g_steps": 1}, "order must be 'd_first' with ratio_clip"),
        ({"c_steps": 0}, "c_steps must be an integer >= 1"),
        ({"g_steps": 0}, "g_steps must be an integer >= 1"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        game(**options)


@pytest.mark.parametrize("case", ["every third", "compared", "each"])
def test_what_takes_time_is_told_when_it_is_seen(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first update, those that are logged, and the last; in all where somebody compares a value."""
    told: list[int] = []
    summary = prc.ratio_summary
    monkeypatch.setattr(prc, "ratio_summary", lambda *a: told.append(module.global_step + 1) or summary(*a))
    torch.manual_seed(0)
    module = game(d_steps=1, g_steps=1)
    own = (
        [callbacks.ModelCheckpoint(tmp_path, monitor="g/clipped", every_n_train_steps=5)] if case == "compared" else []
    )
    t = trainer(
        max_steps=8, callbacks=own, log_every_n_steps=1 if case == "each" else 3, enable_checkpointing=bool(own)
    )
    t.fit(module, train_dataloaders=plain())
    assert told == ([1, 3, 6, 8] if case == "every third" else [*range(1, 9)])
    assert {"g/clipped", "c/accuracy", "d/weight_max"} <= module.values.keys()


@pytest.mark.parametrize(("every", "expected"), [(5, [1, 6, 11, 16]), (10, [1, 6, 16])])
def test_values_of_the_discriminator_are_of_the_cycle_that_is_logged(
    every: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its one update in five of the generator's is never the one at which values are logged."""
    told: list[int] = []
    summary = prc.weight_summary
    monkeypatch.setattr(prc, "weight_summary", lambda *a: told.append(module.global_step + 1) or summary(*a))
    module = game(d_steps=1, g_steps=5)
    trainer(max_steps=20, log_every_n_steps=every).fit(module, train_dataloaders=plain())
    assert told == expected
