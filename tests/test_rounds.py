"""Rounds: one resumable fit each; AdaGAN's data; what a component can begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import QUIET, equal, plain, state
from torch import Tensor, nn

from lightning_gans import GAN, AdaGAN, BoostedGAN, GANModule
from lightning_gans.callbacks import EMA
from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.datamodules import Resampled, Ring
from lightning_gans.functional.boosting import BOOSTS
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.stages import ada_gan, boost, density_ratio, fit_vae, fits, match_moments, reweight

OPTIONS: dict[str, Any] = {k: v for k, v in QUIET.items() if k != "enable_checkpointing"}


def nets() -> tuple[nn.Module, nn.Module, int]:
    return ToyGenerator(width=8, depth=1), ToyDiscriminator(width=8, depth=1), 2


def make(last: GANModule | None) -> GANModule:
    return GAN(*nets(), d_steps=2) if last is None else BoostedGAN(*nets(), base=last, d_steps=2)


class Stop(lightning_callbacks.Callback):
    """Breaks off after so many updates of all rounds together, as a killed process would."""

    left = 10**9

    def on_train_batch_end(self, *args: Any) -> None:
        Stop.left -= 1
        if Stop.left == 0:
            raise KeyboardInterrupt


def run(folder: Path, **options: Any) -> GANModule:
    kept = {"max_steps": 6, "every_n_steps": 2, "callbacks": lambda: [EMA(0.9), Stop()]}
    return boost(make, plain(), 3, folder, **{**kept, **OPTIONS, **options})


# ---------------------------------------------------------------------- rounds
def test_each_round_is_on_top_of_the_last(tmp_path: Path) -> None:
    made: list[GANModule | None] = []
    begun: list[Tensor] = []

    def recorded(last: GANModule | None) -> GANModule:
        made.append(last)
        module = make(last)
        begun.append(list(module.generator.parameters())[-2].detach().clone())  # of the new generator
        return module

    module: Any = boost(recorded, plain(), 3, tmp_path, max_steps=4, callbacks=lambda: [EMA(0.9)], **OPTIONS)
    assert begun[0].shape == begun[1].shape and not torch.equal(begun[0], begun[1])  # each round has its own seed
    assert made[0] is None and type(made[1]) is GAN and type(made[2]) is BoostedGAN and len(made) == 3
    torch.testing.assert_close(module.generator.weights, torch.tensor([0.81, 0.09, 0.1]))
    first: Any = made[1]
    assert equal(module.generator.components[0].state_dict(), first.ema.state_dict())
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*"))
    assert files == [f"round-{k}/last.{suffix}" for k in range(3) for suffix in ("ckpt", "md")]
    saved = [torch.load(tmp_path / f, weights_only=True) for f in files[::2]]
    assert [s["global_step"] for s in saved] == [4, 4, 4]
    assert not equal(*(s["state_dict"][n] for s, n in zip(saved[:2], ("discriminator.layers.0.weight",) * 2)))


@pytest.mark.parametrize(("after", "kept", "new"), [(3, 2, 2), (6, 4, 2), (9, 8, 1), (13, 12, 1)])
def test_stopped_anywhere_it_ends_where_it_would_have(tmp_path: Path, after: int, kept: int, new: int) -> None:
    """Of 3 x 6 updates it has lost those since the last checkpoint, every second one; only new rounds are prepared."""
    whole = run(tmp_path / "whole")
    Stop.left = after
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "parts")
    Stop.left, prepared = 10**9, []
    again = run(tmp_path / "parts", prepare=prepared.append)
    assert (10**9 - Stop.left, len(prepared)) == (18 - kept, new)
    assert equal(state(whole), state(again)) and whole.ema is not None and again.ema is not None
    assert equal(whole.ema.state_dict(), again.ema.state_dict())


def test_finished_rounds_are_not_played_again(tmp_path: Path) -> None:
    before = run(tmp_path)
    Stop.left, told = 10**9, []
    again = run(tmp_path, prepare=lambda module: told.append(module))
    assert Stop.left == 10**9 and told == [] and equal(state(before), state(again))
    assert equal(before.sample(5, generator=seeded()), again.sample(5, generator=seeded()))


def test_rounds_that_others_stand_on_stay_as_they_are(tmp_path: Path) -> None:
    """Of more updates they would be others than those that are in the mixture; the last one goes on."""
    before: Any = run(tmp_path, max_steps=2)
    with pytest.warns(UserWarning, match=r"round-1/last\.ckpt is finished, .* other settings: max_steps 4 \(was 2\)"):
        after: Any = run(tmp_path, max_steps=4)
    saved = [torch.load(tmp_path / f"round-{k}" / "last.ckpt", weights_only=True) for k in range(3)]
    assert [s["global_step"] for s in saved] == [2, 2, 4]
    kept, gone_on = (module.generator.components for module in (before, after))
    assert all(equal(kept[k].state_dict(), gone_on[k].state_dict()) for k in range(2))
    assert not equal(kept[2].state_dict(), gone_on[2].state_dict())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_it_can_start_from_any_module(tmp_path: Path) -> None:
    first = GAN(*nets())
    before, prepared = state(first), []
    module: Any = boost(make, plain(), 2, tmp_path, max_steps=2, first=first, prepare=prepared.append, **OPTIONS)
    assert equal(before, state(first)) and len(module.generator.components) == 3 and len(prepared) == 2
    assert equal(module.generator.components[0].state_dict(), first.generator.state_dict())


def test_mistakes_are_told(tmp_path: Path) -> None:
    for wrong in ({"rounds": 0}, {"max_steps": 0}, {"every_n_steps": 0}):
        given: dict[str, Any] = {"rounds": 1, "max_steps": 2, "every_n_steps": 1, **wrong}
        with pytest.raises(ValueError, match="must be an integer >= 1, got 0"):
            boost(make, plain(), given.pop("rounds"), tmp_path, **given)
    run(tmp_path / "a")
    with pytest.raises(ValueError, match=r"max_steps is 5, but .*last\.ckpt is of 6 updates"):
        run(tmp_path / "a", max_steps=5)
    (tmp_path / "a" / "round-0" / "last.ckpt").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        run(tmp_path / "a")


# ---------------------------------------------------------------------- AdaGAN
class Fixed(nn.Module):
    """A generator of one value per row, which it is given with the noise."""

    def __init__(self, spread: float, centre: float) -> None:
        super().__init__()
        self.spread, self.centre = nn.Parameter(torch.tensor(spread)), centre

    def forward(self, z: Tensor) -> Tensor:
        return self.centre + self.spread * z


def test_a_classifier_finds_the_density_ratio() -> None:
    """Samples N(0, I) against a ring: h falls to almost 0 on the ring, which is far denser there than they are."""
    torch.manual_seed(0)
    data, module = Ring(std=0.3, scale=1.0), GAN(Fixed(1.0, 0.0), ToyDiscriminator(width=8), 2)
    x, _ = data.reference()
    h = density_ratio(data, module, ToyDiscriminator(width=32, depth=2), steps=600, batch_size=512, lr=1e-2)
    distance = torch.cdist(x.double(), data.modes.double()).square() / (2 * 0.3**2)
    truth = (-x.double().square().sum(1) / 2).exp() / ((-distance).exp().mean(1) / 0.3**2)
    error = (h.log() - truth.log()).abs()
    assert h.shape == (10_000,) and float(error.median()) < 0.5
    assert float(torch.corrcoef(torch.stack([h.log(), truth.log()]))[0, 1]) > 0.7


def test_a_classifier_returns_one_logit_for_each_sample() -> None:
    """In whatever form; what it cannot be is told before it is trained."""
    data, module = Ring(batch_size=8, batches_per_epoch=8), GAN(Fixed(1.0, 0.0), ToyDiscriminator(width=8), 2)
    assert density_ratio(data, module, nn.Linear(2, 1), steps=1, batch_size=8, looks=1).shape == (10_000,)
    with pytest.raises(ValueError, match=r"^classifier must return scores of shape \(8,\), got \(8, 2\)"):
        density_ratio(data, module, nn.Linear(2, 2), steps=1, batch_size=8, looks=1)


def test_weights_go_to_what_the_mixture_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    data, right = Ring(batch_size=64), GAN(Fixed(0.2, 1.0), ToyDiscriminator(width=8), 2)  # samples about (1, 1)
    assert reweight(data, None, ToyDiscriminator(), tmp_path) is data
    for weights in BOOSTS:
        (tmp_path / weights).mkdir()
        again = reweight(data, right, ToyDiscriminator(width=32, depth=2), tmp_path / weights, weights=weights,
                         steps=150, lr=3e-3)  # type: ignore[arg-type]  # fmt: skip
        assert isinstance(again, Resampled)
        x = next(iter(again.train_dataloader()))
        hit = float(((x - 1).norm(dim=1) < 0.4).double().mean())
        assert hit < 0.05, weights  # one mode in eight is there already
    monkeypatch.setattr(ada_gan, "density_ratio", None)  # from the file: no classifier is trained
    kept = reweight(data, right, ToyDiscriminator(width=32, depth=2), tmp_path / "star", steps=150, lr=3e-3)
    assert isinstance(kept, Resampled) and float(kept.probabilities.sum()) == pytest.approx(1)
    with pytest.raises(ValueError, match="weights must be one of star, dagger, topk, got 'best'"):
        reweight(data, right, nn.Identity(), tmp_path, weights="best")  # type: ignore[arg-type]


def test_adagan_in_rounds(tmp_path: Path) -> None:
    data = Ring(batch_size=32, batches_per_epoch=10)

    def weighted(last: GANModule | None, folder: Path) -> Any:
        return reweight(data, last, ToyDiscriminator(width=8, depth=1), folder, steps=5)

    grown = lambda last: AdaGAN(*nets(), base=last)  # noqa: E731
    module: Any = boost(grown, weighted, 3, tmp_path, max_steps=3, **OPTIONS)
    torch.testing.assert_close(module.generator.weights, torch.full((3,), 1 / 3))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.pt")) == [
        "round-1/weights.pt",
        "round-2/weights.pt",
    ]
    assert equal(state(module), state(boost(grown, weighted, 3, tmp_path, max_steps=3, **OPTIONS)))


# ---------------------------------------------------------------------- before a round
@pytest.mark.parametrize("begin", [match_moments, pytest.param(fit_vae, marks=pytest.mark.slow)])
def test_a_generator_begins_in_the_tail(begin: Callable[..., None]) -> None:
    torch.manual_seed(0)
    items = torch.randn(400, 2) @ torch.tensor([[0.5, 0.3], [0.0, 0.4]]) + torch.tensor([3.0, -2.0])
    generator = ToyGenerator(width=32, depth=1)
    begin(generator, items, 2, steps=1000 if begin is fit_vae else 400, lr=1e-2)
    x = generator(torch.randn(5000, 2)).detach()
    torch.testing.assert_close(x.mean(0), items.mean(0), rtol=0, atol=0.12)
    torch.testing.assert_close(torch.cov(x.T), torch.cov(items.T), rtol=0, atol=0.1)


def test_beginnings_of_conditional_generators_and_lines() -> None:
    torch.manual_seed(0)
    labels = torch.arange(200) % 2
    items = labels[:, None] * 4 + 0.1 * torch.randn(200, 1)
    generator = ToyGenerator(shape=(1,), width=32, depth=1, num_classes=2)
    fit_vae(generator, items, 2, labels=labels, steps=500, lr=1e-2)
    for label in (0, 1):
        x = generator(torch.randn(500, 2), torch.full((500,), label)).detach()
        assert float(x.mean()) == pytest.approx(4 * label, abs=0.3)
    for begin in (match_moments, fit_vae):
        for wrong in (torch.ones(5, 1), torch.ones(1, 1)):
            with pytest.raises(ValueError, match="items must be at least two different ones"):
                begin(generator, wrong, 2)  # type: ignore[operator]


@pytest.mark.parametrize("begin", [match_moments, pytest.param(fit_vae, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_items_may_be_of_another_type_than_the_generator(begin: Callable[..., None], dtype: torch.dtype) -> None:
    other = {torch.float32: torch.float64, torch.float64: torch.float32}[dtype]
    generator = ToyGenerator(width=8, depth=1).to(dtype)
    before = [p.detach().clone() for p in generator.parameters()]
    begin(generator, torch.randn(20, 2, dtype=other), 2, steps=1, batch_size=4)
    assert not equal(before, list(generator.parameters())) and next(generator.parameters()).dtype == dtype


# ---------------------------------------------------------------------- one fit each, and resumable
def stopped(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Fail before an update, as a process would that is killed there."""
    whole = fits.GenerativeModule.cycle

    def cycle(self: Any) -> None:
        if self.global_step == step:
            raise RuntimeError("stopped")
        whole(self)

    monkeypatch.setattr(fits.GenerativeModule, "cycle", cycle)


@pytest.mark.parametrize("begin", [match_moments, pytest.param(fit_vae, marks=pytest.mark.slow)])
def test_a_beginning_that_was_stopped_goes_on(
    begin: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))

    def begun(folder: Path) -> dict[str, Tensor]:
        torch.manual_seed(0)
        generator = ToyGenerator(width=8, depth=1)
        begin(generator, items, 2, steps=12, batch_size=8, folder=folder)
        return generator.state_dict()

    whole = begun(tmp_path / "whole")
    monkeypatch.setattr(fits, "EVERY", 5)
    with monkeypatch.context() as patch:
        stopped(patch, 7)
        with pytest.raises(RuntimeError, match="stopped"):
            begun(tmp_path / "parts")
    assert equal(whole, begun(tmp_path / "parts")) and equal(whole, begun(tmp_path / "parts"))
    (losses,) = (tmp_path / "whole").glob("*/metrics.csv")
    assert losses.read_text().startswith("step,")


def test_a_density_ratio_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, module = Ring(batch_size=16), GAN(Fixed(1.0, 0.0), ToyDiscriminator(width=8), 2)

    def ratio(folder: Path) -> Tensor:
        torch.manual_seed(0)
        classifier = ToyDiscriminator(width=8, depth=1)
        return density_ratio(data, module, classifier, steps=12, batch_size=8, looks=6, folder=folder)

    whole = ratio(tmp_path / "whole")
    monkeypatch.setattr(fits, "EVERY", 5)
    with monkeypatch.context() as patch:
        stopped(patch, 7)
        with pytest.raises(RuntimeError, match="stopped"):
            ratio(tmp_path / "parts")
    assert torch.equal(whole, ratio(tmp_path / "parts")) and torch.equal(whole, ratio(tmp_path / "parts"))
