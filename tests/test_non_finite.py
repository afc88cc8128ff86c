"""A NaN is told apart, named, kept as evidence, and never reaches a weight."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gans import WGANGP, Batch, GANModule
from lightning_gans.callbacks import EMA, NonFiniteError, NonFiniteGuard, RankConsistency
from lightning_gans.compat.lightning import callbacks as pl_callbacks
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed
from lightning_gans.engine.batch import Terms
from lightning_gans.regularizers import Regularizer

NAN = float("nan")


def loader(*bad: int) -> DataLoader:
    """Batches of 4; those with a number in ``bad`` (from 0) hold a NaN."""
    batches = plain(400, 4)
    for i in bad:
        batches.dataset[4 * i + 1] = NAN  # type: ignore[index]
    return batches


def fit(module: GANModule, data: Any, *callbacks: pl.Callback, steps: int = 6, **options: Any) -> pl.Trainer:
    t = trainer(max_steps=steps, callbacks=list(callbacks), **options)
    t.fit(module, train_dataloaders=data)
    return t


def everything(module: GANModule) -> dict[str, Any]:
    """Parameters, buffers, optimizer states and EMA weights, copied."""
    states = [o.optimizer.state_dict()["state"] for o in module.optimizers()]  # type: ignore[union-attr]
    ema = None if module.ema is None else {k: v.clone() for k, v in module.ema.state_dict().items()}
    tensors = [{k: {n: v.clone() for n, v in s.items()} for k, s in whole.items()} for whole in states]
    return {"module": state(module), "optimizers": tensors, "ema": ema}


class After(pl.Callback):
    """Remembers everything after each update, and the learning rates."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Any]] = {}
        self.rates: dict[int, list[float]] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GANModule)
        self.states[pl_module.global_step] = everything(pl_module)
        self.rates[pl_module.global_step] = [o.param_groups[0]["lr"] for o in trainer.optimizers]


class Steep(Regularizer):
    """Zero, with a gradient that is no number: sqrt at 0."""

    name = "steep"

    def __init__(self) -> None:
        super().__init__(1.0)

    def __call__(self, discriminator: nn.Module, batch: Any, fake: Tensor) -> Tensor:
        return (next(discriminator.parameters()) * 0).abs().sum().sqrt()


class BadGenerator(WGANGP):
    """The generator's loss is infinite in update ``at``."""

    at = 3

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        bad = float("inf") if self.global_step + 1 == self.at else 0.0
        return {**super().generator_terms(batch, fake), "drag": fake.sum() * 0 + bad}


@pytest.mark.parametrize("every, at", [(4, 4), (5, 5), (50, 6), (0, 6)])
def test_without_a_guard_training_stops_at_the_next_look(every: int, at: int) -> None:
    """Where losses are logged, else at the end; the first term of the first player is named."""
    module = make("wgan_gp")
    told = rf"d/adversarial must be a finite number, got nan at update {at}: training stopped"
    with pytest.raises(NonFiniteError, match=told):
        fit(module, loader(12), log_every_n_steps=every)
    assert module.global_step == at


def test_without_a_guard_diagnostics_may_be_infinite() -> None:
    class Noting(WGANGP):
        def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
            self.note(g_log_p=fake.sum() * 0 - float("inf"))
            return super().generator_terms(batch, fake)

    nets = make("wgan_gp")
    assert fit(Noting(nets.generator, nets.discriminator, 3), loader(), log_every_n_steps=1).global_step == 6


def test_weights_that_the_last_updates_spoil_are_told() -> None:
    """Finite losses, a gradient that is no number in the last update: no look at losses would see it."""
    steep = Steep()
    steep.player = "g"
    with pytest.raises(NonFiniteError, match=r"^generator\..* must be finite, got a NaN or infinity"):
        fit(make("wgan_gp", d_steps=1, regularizers=[steep]), loader(), steps=1)


def test_no_checkpoint_of_lost_weights(tmp_path: Path) -> None:
    saving = pl_callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(NonFiniteError, match="at update 3"):
        fit(make("wgan_gp"), loader(12), saving, enable_checkpointing=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=1.ckpt", "step=2.ckpt"]


def test_rollbacks_that_leave_no_learning_rate_stop(tmp_path: Path) -> None:
    guard = NonFiniteGuard("rollback", lr_factor=0.05, keep_every_n_steps=1)
    with (
        pytest.warns(UserWarning),
        pytest.raises(NonFiniteError, match=r"multiplied the learning rates by 0\.0025 alr"),
    ):
        fit(make("wgan_gp"), loader(10, 15, 20), guard, default_root_dir=tmp_path)


def test_a_guard_begins_anew_with_another_training(tmp_path: Path) -> None:
    """The rates of the second model were not lowered; those of a training that goes on were."""
    guard = NonFiniteGuard("rollback", lr_factor=0.05, keep_every_n_steps=1)
    for data, times in ((loader(5, 10), 2), (loader(5), 1), (loader(), 0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            t = fit(make("wgan_gp"), data, guard, steps=4, default_root_dir=tmp_path)
        assert (guard.gone_back, guard.lowered) == (times, pytest.approx(0.05**times))
        t.save_checkpoint(tmp_path / f"{times}.ckpt")
    trainer(max_steps=5, callbacks=[guard]).fit(make("wgan_gp"), loader(), ckpt_path=tmp_path / "1.ckpt")
    assert (guard.gone_back, guard.lowered) == (0, 0.05)


def test_stop_names_the_term_and_keeps_the_weights_and_the_batch(tmp_path: Path) -> None:
    module = make("wgan_gp")
    told = r"update 3, step of the discriminator, not finite: .*d/adversarial = nan\. Stopped"
    with pytest.raises(NonFiniteError, match=told):
        fit(module, loader(12), NonFiniteGuard(), default_root_dir=tmp_path)
    assert all(p.isfinite().all() for p in module.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["non_finite_step_000003.pt"]
    saved = torch.load(tmp_path / "non_finite_step_000003.pt", weights_only=True)
    assert saved["step"] == 3 and saved["network"] == "discriminator" and "d/adversarial = nan" in saved["found"]
    assert equal(saved["real"].isnan().any(1), torch.tensor([False, True, False, False]))
    assert saved["z"].shape == (4, 3) and saved["fake"].isfinite().all() and saved["labels"] is None
    assert saved["terms"].keys() >= {"d/adversarial", "d/gradient_penalty", "d/loss"}
    assert (tmp_path / "non_finite_step_000003.pt").stat().st_size < 20_000  # the batch, not what it is a slice of


@pytest.mark.parametrize("action", ["stop", "rollback"])
def test_a_good_run_is_left_alone(action: Any, tmp_path: Path) -> None:
    free, guarded = make("wgan_gp"), make("wgan_gp")
    for module, callbacks in ((free, []), (guarded, [NonFiniteGuard(action, keep_every_n_steps=1)])):
        torch.manual_seed(4)
        fit(module, loader(), *callbacks, default_root_dir=tmp_path)
    assert equal(everything(free), everything(guarded))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", [10, 12, 14])  # the first, the middle and the last discriminator step of update 3
def test_rollback_restores_everything_and_goes_on(batch: int, tmp_path: Path) -> None:
    module, after = make("wgan_gp", lr_g=0.01, lr_d=0.02), After()
    guard = NonFiniteGuard("rollback", lr_factor=0.25, keep_every_n_steps=2)
    with pytest.warns(
        UserWarning, match=r"update 3, step of the disc.*Going back to the state of update 2, .* 0\.25\."
    ):
        t = fit(module, loader(batch), EMA(decay=0.9), guard, after, default_root_dir=tmp_path)
    assert t.global_step == 6
    assert equal(after.states[3], after.states[2])
    assert not equal(after.states[4], after.states[3])  # it goes on
    assert all(p.isfinite().all() for p in module.parameters())
    assert after.rates[2] == [0.02, 0.01] and after.rates[6] == [0.005, 0.0025]
    assert (tmp_path / "non_finite_step_000003.pt").exists()


def test_the_kept_state_serves_again() -> None:
    """Optimizers write into the state that they are given: the kept one must not be it."""
    module, after = make("wgan_gp"), After()
    guard = NonFiniteGuard("rollback", keep_every_n_steps=2)
    with pytest.warns(UserWarning, match="Going back"):
        fit(module, loader(16, 21, 26), EMA(), guard, after, steps=7)  # updates 4, 5 and 6; 4 is not kept
    for step in (4, 5, 6):
        assert equal(after.states[step], after.states[2])
    assert after.rates[7] == [1e-4 / 8] * 2


def test_schedulers_go_on_from_lower_rates() -> None:
    def halving(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    module, after = make("wgan_gp", lr_g=0.6, lr_d=0.6, scheduler_g=halving, scheduler_d=halving), After()
    with pytest.warns(UserWarning, match="Going back"):
        fit(module, loader(12), NonFiniteGuard("rollback", keep_every_n_steps=1), after)
    assert after.rates[2] == pytest.approx([0.2, 0.2])
    assert after.rates[5] == pytest.approx([0.05, 0.05])  # 0.6 / 6, halved


def test_a_bad_generator_step_is_told_apart() -> None:
    free = make("wgan_gp")
    module = BadGenerator(free.generator, free.discriminator, 3)
    with pytest.raises(NonFiniteError, match=r"update 3, step of the generator, not finite: g/drag = inf\."):
        fit(module, loader(), NonFiniteGuard())


def test_rollback_of_a_bad_generator_step() -> None:
    free, after = make("wgan_gp"), After()
    module = BadGenerator(free.generator, free.discriminator, 3)
    with pytest.warns(UserWarning, match="step of the generator"):
        fit(module, loader(), NonFiniteGuard("rollback", keep_every_n_steps=1), after)
    assert equal(after.states[3], after.states[2])  # the discriminator's steps of the update are taken back too


def test_a_bad_gradient_under_finite_terms() -> None:
    module = make("wgan_gp", regularizers=[Steep()])
    name = r"16 of 16 elements of the gradient of discriminator\.layers\.0\.weight \(all terms are finite\)"
    with pytest.raises(NonFiniteError, match=f"update 1, step of the discriminator, not finite: {name}"):
        fit(module, loader(), NonFiniteGuard())


def test_a_scaler_minds_gradients_but_not_losses() -> None:
    def scaling() -> Any:
        return pl.plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))

    module = make("gan", regularizers=[Steep()])
    before = state(module.discriminator)
    t = fit(module, loader(), NonFiniteGuard(), steps=2, plugins=[scaling()])
    assert t.global_step == 2 and equal(before, state(module.discriminator))  # the scaler skipped the steps
    with pytest.raises(NonFiniteError, match="d/adversarial = nan"):
        fit(make("gan"), loader(1), NonFiniteGuard(), plugins=[scaling()])


# ---------------------------------------------------------------------- as on a GPU: read once per update
def late(*args: Any, **options: Any) -> NonFiniteGuard:
    """A guard that waits as it does on a GPU."""
    guard = NonFiniteGuard(*args, **options)
    guard.waits_each_step = False
    return guard


def test_late_stop_names_the_first_bad_step(tmp_path: Path) -> None:
    told = r"update 3, step of the discriminator, not finite: .*d/adversarial = nan.*\. Stopped after this update\."
    with pytest.raises(NonFiniteError, match=told):
        fit(make("wgan_gp"), loader(12), late(), default_root_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["non_finite_step_000003.pt"]


@pytest.mark.parametrize("batch", [10, 12, 14])
def test_late_rollback_goes_back_to_the_last_good_state(batch: int, tmp_path: Path) -> None:
    module, after = make("wgan_gp", lr_g=0.01, lr_d=0.02), After()
    guard = late("rollback", lr_factor=0.25, keep_every_n_steps=2)
    with pytest.warns(UserWarning, match="update 3, step of the disc.*Going back to the state of update 2"):
        fit(module, loader(batch), EMA(decay=0.9), guard, after, default_root_dir=tmp_path)
    assert equal(after.states[3], after.states[2]) and not equal(after.states[4], after.states[3])
    assert all(p.isfinite().all() for p in module.parameters()) and after.rates[6] == [0.005, 0.0025]


def test_late_looks_wait_once_per_update_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    tolist = Tensor.tolist
    monkeypatch.setattr("lightning_gans.callbacks.non_finite._all_finite", lambda *_: pytest.fail("it waited"))
    monkeypatch.setattr(Tensor, "tolist", lambda t: [reads.append(t.shape), tolist(t)][1])
    free, guarded = make("wgan_gp"), make("wgan_gp")
    for module, callbacks in ((free, []), (guarded, [late("rollback", keep_every_n_steps=1)])):
        reads.clear()
        torch.manual_seed(4)
        fit(module, loader(), *callbacks, log_every_n_steps=100)
    assert equal(everything(free), everything(guarded))
    assert len(reads) == 6  # updates


def test_a_late_look_at_gradients_under_finite_terms() -> None:
    with pytest.raises(NonFiniteError, match="update 1, step of the discriminator, not finite: the gradient"):
        fit(make("gan", regularizers=[Steep()]), loader(), late())


def test_every_n_steps() -> None:
    with pytest.raises(NonFiniteError, match="update 4, step of the discriminator"):
        fit(make("wgan_gp"), loader(10), NonFiniteGuard(every_n_steps=4))


def test_it_gives_up_where_every_rollback_fails() -> None:
    module = make("wgan_gp")
    told = "Stopped after 2 rollbacks to the state of update 2"
    with pytest.warns(UserWarning, match="Going back"), pytest.raises(NonFiniteError, match=told):
        fit(module, loader(*range(10, 40)), NonFiniteGuard("rollback", keep_every_n_steps=1, max_rollbacks=2))


def test_another_process_found_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = trainer(max_steps=2, callbacks=[NonFiniteGuard()], default_root_dir=tmp_path)
    asked = []
    monkeypatch.setattr(t.strategy, "reduce_boolean_decision", lambda bad, all=True: asked.append((bad, all)) or True)
    other = ("d", "d/adversarial = nan")
    monkeypatch.setattr(distributed, "gather_objects", lambda own: [own, own if isinstance(own, int) else other])
    words = r"d/adversarial = nan, on rank 1\. Stopped .*Its batch is in .*non_finite_step_000001_rank1\.pt"
    with pytest.raises(NonFiniteError, match=words):
        t.fit(make("wgan_gp"), train_dataloaders=loader())
    assert asked == [(False, False)] and not list(tmp_path.iterdir())


def test_a_full_disk_does_not_hide_what_was_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NonFiniteError, match=r"d/adversarial = nan.*could not be saved.*No space left"):
        fit(make("wgan_gp"), loader(3), NonFiniteGuard(), default_root_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"action": "ignore"}, "action must be one of stop, rollback, got 'ignore'"),
        ({"lr_factor": 0.0}, "lr_factor must be in .0, 1., got 0.0"),
        ({"lr_factor": 1.5}, "lr_factor must be in .0, 1., got 1.5"),
        ({"every_n_steps": 0}, "every_n_steps must be an integer >= 1, got 0"),
        ({"max_rollbacks": 0}, "max_rollbacks must be an integer >= 1, got 0"),
        ({"every_n_steps": 7}, "keep_every_n_steps must be a multiple of every_n_steps=7.* got 100"),
    ],
)
def test_bad_settings(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        NonFiniteGuard(**options)


# ---------------------------------------------------------------------- RankConsistency
def test_one_process_is_consistent_with_itself() -> None:
    free, watched = make("wgan_gp"), make("wgan_gp")
    for module, callbacks in ((free, []), (watched, [RankConsistency(every_n_steps=1)])):
        torch.manual_seed(4)
        fit(module, loader(), *callbacks)
    assert equal(everything(free), everything(watched))


def test_drift_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "lightning_gans.engine.distributed.drifted", lambda module: asked.append(1) or "generator.layers.0.bias"
    )
    with pytest.raises(
        RuntimeError, match=r"After generator update 4 the parameter 'generator\.layers\.0\.bias' is not"
    ):
        fit(make("wgan_gp"), loader(), RankConsistency(every_n_steps=4))
    assert asked == [1]


def test_rank_consistency_refuses_bad_settings() -> None:
    with pytest.raises(ValueError, match="every_n_steps must be an integer >= 1, got 0"):
        RankConsistency(0)


def test_every_nth_update_is_looked_at_with_its_whole_cycle() -> None:
    """D steps along with the first of two generator updates, of which the second is due."""
    with pytest.raises(NonFiniteError, match=r"in generator update 3, step of the discriminator, not finite: d/"):
        fit(make("gan", g_steps=2), loader(1), NonFiniteGuard(every_n_steps=2))
