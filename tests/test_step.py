"""One optimizer step: closures that are called again, sharpness-aware gradients, whose optimizer is whose."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import torch
from common import BY_KIND, equal, make, make_images, plain, state, trainer
from torch import Tensor, nn

from lightning_gans import GAN, WGANGP, GANModule
from lightning_gans.callbacks import NonFiniteGuard
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.engine.batch import Batch
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.engine.step import Step
from lightning_gans.optim.sam import ascend, put_back

IMAGES = (1, 8, 8)


class Again(torch.optim.SGD):
    """Asks for the loss ``times`` times, then steps. It is none of torch's own, so it may."""

    times = 3
    losses: list[float] = []  # noqa: RUF012
    gradients: list[list[Tensor]] = []  # noqa: RUF012

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        for _ in range(self.times):
            type(self).losses.append(float(closure()))
            grads = [p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None]
            type(self).gradients.append(grads)
        return super().step()


class Once(torch.optim.SGD):
    """The same without asking again."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Again.losses, Again.gradients = [], []


class Watch(callbacks.Callback):
    """Counts hooks, and notes what is logged."""

    def __init__(self) -> None:
        self.hooks = 0
        self.values: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.hooks += 1

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.values.append({name: float(value) for name, value in pl_module.values.items()})


def fit(module: GANModule, shape: tuple[int, ...] = IMAGES, steps: int = 3, **options: Any) -> Watch:
    torch.manual_seed(5)
    watch = Watch()
    trainer(max_steps=steps, callbacks=[watch], **options).fit(module, plain(400, 4, shape=shape))
    return watch


def sgd(kind: type, lr: float = 0.05) -> Callable[..., Any]:
    return lambda parameters: kind(parameters, lr=lr)


# ---------------------------------------------------------------------- a closure that is called again
@pytest.mark.parametrize("name", BY_KIND)
def test_asking_again_changes_nothing(name: str) -> None:
    """Same losses, gradients, random numbers, buffers, log and hooks; with BatchNorm, and dropout where it is drawn."""
    options: dict[str, Any] = {"d_steps": 2}
    once = make_images(name, optimizer_d=sgd(Once), optimizer_g=sgd(Once), **options)
    again = make_images(name, optimizer_d=sgd(Again), optimizer_g=sgd(Again), **options)
    first, second = fit(once), fit(again)
    assert equal(state(once), state(again)) and first.values == second.values and first.hooks == second.hooks
    assert equal(once.run.noise.get_state(), again.run.noise.get_state())
    each = [Again.losses[i : i + Again.times] for i in range(0, len(Again.losses), Again.times)]
    assert len(each) >= 5 and all(len(set(losses)) == 1 for losses in each)
    for i in range(0, len(Again.gradients), Again.times):
        assert equal(Again.gradients[i], Again.gradients[i + 1])


class Counting(GAN):
    """Terms 1, 2, 3 ... of D, whatever the batch; one in two is noted."""

    seen = 0

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        self.seen += 1
        if self.seen % 2:
            self.note(d_odd=batch.real.new_tensor(self.seen))
        return {"adversarial": self.score(batch.real, batch).sum() * 0 + self.seen}


def test_an_accumulated_step_tells_the_mean_of_its_batches() -> None:
    """Loss, terms and what is noted, by those batches that have noted it; what the closure returns, asked again too."""
    nets = make("gan").double()
    module = Counting(nets.generator, nets.discriminator, 3, accumulate_d=3, optimizer_d=sgd(Again))
    trainer(max_steps=1).fit(module, plain(dtype=torch.float64))
    told = {name: float(value) for name, value in module.values.items() if name.startswith("d/")}
    assert told == {"d/loss": 2.0, "d/adversarial": 2.0, "d/odd": 2.0}
    assert Again.losses == [2.0, 5.0, 8.0]


def test_a_lost_batch_among_accumulated_ones_is_told() -> None:
    class Lost(Counting):
        def discriminator_terms(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
            terms = super().discriminator_terms(batch, fake)
            return {**terms, "other": terms["adversarial"] * (math.nan if self.seen == 1 else 0)}

    nets = make("gan")
    module = Lost(nets.generator, nets.discriminator, 3, accumulate_d=3)
    with pytest.raises(NonFiniteError, match=r"not finite: d/other = nan\. Stopped"):
        trainer(max_steps=1, callbacks=[NonFiniteGuard()]).fit(module, plain())


class Dropped(nn.Module):
    """A critic with dropout, which draws from torch's global numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)


def test_random_numbers_are_replayed() -> None:
    torch.manual_seed(0)
    module = WGANGP(make("gan").generator, Dropped(), 3, d_steps=1, optimizer_d=sgd(Again))
    fit(module, (2,))
    assert len(set(Again.losses[:3])) == 1 and len(set(Again.losses)) == 3


def test_lbfgs_descends() -> None:
    """An optimizer that must ask again: one step lowers D's loss on its batch by more than gradient descent."""

    def loss(optimizer: Any) -> float:
        module = make("gan", optimizer_d=optimizer, lr_g=0.0)
        data = torch.utils.data.DataLoader(torch.ones(4, 2).repeat(50, 1), 4)
        torch.manual_seed(5)
        trainer(max_steps=20).fit(module, data)
        return float(module.values["d/loss"])

    newton = loss(lambda parameters: torch.optim.LBFGS(parameters, lr=0.5, max_iter=4))
    assert newton < 0.7 * loss(sgd(Once, lr=0.5))


def test_clipping_is_the_same_each_time() -> None:
    module = make("gan", clip_grad_d=1e-3, optimizer_d=sgd(Again))
    fit(module, (2,), steps=1)
    norms = [float(torch.cat([g.flatten() for g in gradients]).norm()) for gradients in Again.gradients]
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3) and float(module.values["d/grad_norm"]) > 1e-2


def test_asking_again_is_refused_where_it_cannot_be() -> None:
    words = "The optimizer of 'd' must evaluate its closure once with cuda_graphs, got Again, which asks again."
    with pytest.warns(UserWarning, match="no effect"), pytest.raises(ValueError) as error:
        fit(make("gan", cuda_graphs=True, optimizer_d=sgd(Again)), (2,))
    assert str(error.value) == words
    precision = pytest.importorskip(f"{pl.__name__}.plugins.precision")
    plugin = precision.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    with pytest.raises(ValueError, match="must step without a closure under a gradient scaler, got Again"):
        fit(make("gan", optimizer_d=sgd(Again)), (2,), plugins=[plugin])


def test_hooks_of_the_module_fire_once_too() -> None:
    module, seen = make("gan", optimizer_d=sgd(Again), optimizer_g=sgd(Again)), []
    module.on_before_optimizer_step = lambda optimizer: seen.append(1)  # type: ignore[method-assign]
    fit(module, (2,), steps=2)
    assert len(seen) == 4


def test_hooks_that_come_late_fire_for_each_player() -> None:
    """Of a callback that was there, of one that takes its place, and of the module; the profiler is left as it was."""
    seen: list[str] = []

    class Late(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                vars(first)["on_before_optimizer_step"] = lambda *_: seen.append("callback")
                vars(pl_module)["on_before_optimizer_step"] = lambda *_: seen.append("module")

    first, module = pl.Callback(), make("gan")
    t = trainer(max_steps=4, callbacks=[first, Late()])
    t.fit(module, plain(40, 4))
    assert seen.count("callback") == seen.count("module") == 4 and "profile" not in vars(t.profiler)


@pytest.mark.parametrize("name", ["gan", "prc_gan_clip"])
def test_a_step_past_lightning_is_clipped_as_one_by_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that nobody hooks into go past Lightning's hooks, in one of which gradients are clipped."""
    ends, clips = [], []
    for watched in (False, True):
        torch.manual_seed(0)
        module = make(name, clip_grad_d=1e-3, clip_grad_g=1e-3)
        if watched:
            module.on_before_optimizer_step = lambda optimizer: None  # type: ignore[method-assign]
        with monkeypatch.context() as changed:
            changed.setattr(Step, "clip", lambda self, clip=Step.clip: (clips.append(self.player.name), clip(self)))
            trainer(max_steps=3).fit(module, plain(400, 4))
        ends.append((state(module), clips.count("d"), float(module.values["d/grad_norm"])))
    assert equal(ends[0][0], ends[1][0]) and ends[0][2] == ends[1][2] > 1e-2
    assert ends[0][1] > 0 and ends[1][1] == 2 * ends[0][1]


# ---------------------------------------------------------------------- sharpness-aware minimisation
def test_the_step_up_is_rho_long() -> None:
    w = [nn.Parameter(torch.randn(3, 4, dtype=torch.float64)), nn.Parameter(torch.randn(5, dtype=torch.float64))]
    still = nn.Parameter(torch.ones(2, dtype=torch.float64))
    before = [p.detach().clone() for p in w]
    for p in w:
        p.grad = torch.randn_like(p)
    saved = ascend([*w, still], 0.3)
    moved = torch.cat([(p - b).flatten() for p, b in zip(w, before)])
    gradient = torch.cat([p.grad.flatten() for p in w if p.grad is not None])
    torch.testing.assert_close(moved, 0.3 * gradient / gradient.norm(), rtol=1e-12, atol=0)
    put_back(saved)
    assert equal(before, [p.detach() for p in w])
    assert ascend([still], 0.3) == [] and equal(still.detach(), torch.ones_like(still))
    still.grad = torch.zeros_like(still)
    ascend([still], 0.3)
    assert equal(still.detach(), torch.ones_like(still))


@pytest.mark.parametrize("name", BY_KIND)
def test_rho_0_is_the_optimizer_itself(name: str) -> None:
    plain_, none = make_images(name), make_images(name, sam_d=0.0, sam_g=0.0)
    assert fit(plain_).values == fit(none).values and equal(state(plain_), state(none))


def test_the_gradient_is_that_of_the_moved_weights() -> None:
    """By hand: one step of each player, D's as the closed form has it."""
    torch.manual_seed(2)
    generator, critic = nn.Linear(3, 2).double(), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    critic = nn.Sequential(*critic, nn.Flatten(0)).double()
    reference = copy.deepcopy(critic)
    module = GAN(generator, critic, 3, sam_d=0.5, optimizer_d=sgd(Once, 1.0), lr_g=0.0)
    trainer(max_steps=1).fit(module, plain(40, 4, dtype=torch.float64))
    real, fake = module.last_batch.real, module.last_fake  # type: ignore[union-attr]

    def gradient() -> list[Tensor]:
        soft = nn.functional.softplus
        return list(torch.autograd.grad(soft(-reference(real)).mean() + soft(reference(fake)).mean(),
                                        list(reference.parameters())))  # fmt: skip

    first = gradient()
    length = torch.cat([g.flatten() for g in first]).norm()
    with torch.no_grad():
        for p, g in zip(reference.parameters(), first):
            p += 0.5 * g / length
    second = gradient()
    with torch.no_grad():
        for p, a, b in zip(reference.parameters(), first, second):
            p -= 0.5 * a / length + b
    for p, q in zip(critic.parameters(), reference.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_both_passes_see_the_same_numbers_and_leave_buffers_once() -> None:
    """With a rho that moves nothing in float32, all is as without: noise, dropout, BatchNorm's averages, the log."""
    plain_, tiny = make_images("gan", d_steps=2), make_images("gan", d_steps=2, sam_d=1e-30, sam_g=1e-30)
    assert fit(plain_).values == fit(tiny).values and equal(state(plain_), state(tiny))


def test_other_sam_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sam_d must be a finite number >= 0, got -0.1\."):
        make("gan", sam_d=-0.1)
    with pytest.raises(ValueError, match=r"sam_g must be None with cuda_graphs, got 0.1\."):
        make("gan", sam_g=0.1, cuda_graphs=True)


def test_sam_under_a_gradient_scaler_trains() -> None:
    precision = pytest.importorskip(f"{pl.__name__}.plugins.precision")
    plugin = precision.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    module = make_images("gan", sam_d=0.05, sam_g=0.05)
    before = state(module)
    fit(module, plugins=[plugin])
    assert all(torch.isfinite(p).all() for p in module.parameters()) and not equal(before, state(module))


# ---------------------------------------------------------------------- whose optimizer
class Swapped(GAN):
    def configure_optimizers(self) -> Any:
        d, g = (torch.optim.SGD(net.parameters(), 0.1) for net in (self.discriminator, self.generator))
        return [g, d], []


class OneForBoth(GAN):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_optimizers_may_come_in_any_order() -> None:
    nets = make("gan")
    module, same = (cls(*copy.deepcopy((nets.generator, nets.discriminator)), 3, optimizer_d=sgd(Once, 0.1),
                        optimizer_g=sgd(Once, 0.1)) for cls in (Swapped, GAN))  # fmt: skip
    fit(module, (2,))
    fit(same, (2,))
    assert equal(state(module), state(same))


def test_one_optimizer_for_two_is_refused() -> None:
    nets = make("gan")
    with pytest.raises(ValueError, match=r"one optimizer of the parameters of 'd' alone \(discriminator\), got 0 such"):
        fit(OneForBoth(nets.generator, nets.discriminator, 3), (2,))


# ---------------------------------------------------------------------- hooks of the user's, copies
class Forgetful(GAN):
    """Overrides hooks without super(), as people do."""

    def on_fit_start(self) -> None: ...
    def on_train_epoch_start(self) -> None: ...
    def on_before_optimizer_step(self, optimizer: Any) -> None: ...
    def on_save_checkpoint(self, checkpoint: Any) -> None: ...
    def on_load_checkpoint(self, checkpoint: Any) -> None: ...
    def on_fit_end(self) -> None: ...


def test_nothing_hangs_on_hooks(tmp_path: Any) -> None:
    nets = make("gan")

    def module(cls: Any) -> Any:
        made = cls(*copy.deepcopy((nets.generator, nets.discriminator)), 3, clip_grad_d=0.1, d_steps=3)
        made.start_ema()
        return made

    whole, half, rest = module(GAN), module(Forgetful), module(Forgetful)
    torch.manual_seed(1)
    trainer(max_steps=6).fit(whole, plain(28, 4))
    torch.manual_seed(1)
    first = trainer(max_steps=3)
    first.fit(half, plain(28, 4))
    first.save_checkpoint(tmp_path / "a.ckpt")
    trainer(max_steps=6).fit(rest, plain(28, 4), ckpt_path=tmp_path / "a.ckpt")
    assert equal(state(whole), state(rest)) and rest.ema is not None


class Counted(GAN):
    """Overrides hooks with super(), and counts; stands for a class of the library."""

    __module__ = "lightning_gans.of_a_test"

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.heard = ["fit"]

    def on_train_end(self) -> None:
        self.heard += ["end"]

    def on_save_checkpoint(self, checkpoint: Any) -> None:
        super().on_save_checkpoint(checkpoint)
        self.heard += ["save"]


class Without(Counted):
    def on_fit_start(self) -> None: ...
    def on_train_end(self) -> None:
        self.trainer.save_checkpoint("a.ckpt")  # whose hook is not that of this one

    def on_save_checkpoint(self, checkpoint: Any) -> None: ...


class With(Counted):
    def on_fit_start(self) -> None:
        super().on_fit_start()

    def on_train_end(self) -> None:
        self.trainer.save_checkpoint("a.ckpt")
        Counted.on_train_end(self)

    def on_save_checkpoint(self, checkpoint: Any) -> None:
        super().on_save_checkpoint(checkpoint)


class Mixin:
    def on_fit_start(self) -> None: ...
    def on_train_end(self) -> None:
        self.trainer.save_checkpoint("a.ckpt")  # type: ignore[attr-defined]


class Plain(GAN):
    """Of a class beside `Counted`, whose hooks come behind its own."""

    def on_fit_start(self) -> None: ...
    def on_train_end(self) -> None:
        self.trainer.save_checkpoint("a.ckpt")


class WithOverWithout(Without):
    def on_fit_start(self) -> None:
        super().on_fit_start()

    def on_train_end(self) -> None:
        super().on_train_end()


class WithoutOverWith(With):
    on_fit_start = Without.on_fit_start
    on_train_end = Without.on_train_end


class Mixed(Mixin, Counted): ...


class Crossed(Plain, Counted): ...


class Inherited(Without): ...


class Behind(pl.LightningModule):
    """With a hook that no class of ours has."""

    def on_train_start(self) -> None:
        self.heard += ["behind"]


class WithBehind(Counted, Behind): ...


@pytest.mark.parametrize(
    "cls", [Without, With, WithOverWithout, WithoutOverWith, Mixed, Crossed, Inherited], ids=lambda cls: cls.__name__
)
def test_a_hook_of_ours_is_called_once(tmp_path: Any, cls: Any) -> None:
    """Whatever stands over it: super() or not, several classes, a mixin, or a class beside its own."""
    nets = make("gan")
    module = cls(nets.generator, nets.discriminator, 3)
    fit(module, (2,))
    assert module.heard == ["fit", "save", "end"]


def test_hooks_of_a_class_behind_ours_are_called_too() -> None:
    nets = make("gan")
    module = WithBehind(nets.generator, nets.discriminator, 3)
    fit(module, (2,))
    assert module.heard == ["fit", "behind", "end"]


@pytest.mark.parametrize("calls_super", [False, True])
def test_averages_are_saved_and_loaded_beside_hooks_of_the_users(tmp_path: Any, calls_super: bool) -> None:
    loads: list[int] = []

    class Own(GAN):
        def load_sampling_state(self, checkpoint: Any) -> None:
            loads.append(1)
            super().load_sampling_state(checkpoint)

        def on_save_checkpoint(self, checkpoint: Any) -> None:
            if calls_super:
                super().on_save_checkpoint(checkpoint)
            checkpoint["mine"] = 1

        def on_load_checkpoint(self, checkpoint: Any) -> None:
            if calls_super:
                super().on_load_checkpoint(checkpoint)
                self.drop_ema()  # as they like

    nets = make("gan")
    networks = {"generator": nets.generator, "discriminator": nets.discriminator, "latent_dim": 3}
    module = Own(**networks)
    module.start_ema()
    t = trainer(max_steps=3)
    t.fit(module, plain(28, 4))
    for weights_only in (False, True):
        loads.clear()
        t.save_checkpoint(tmp_path / "a.ckpt", weights_only=weights_only)
        saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
        assert saved["mine"] == 1 and equal(saved["ema"], module.ema.state_dict())  # type: ignore[union-attr]
        again = Own.load_from_checkpoint(tmp_path / "a.ckpt", **copy.deepcopy(networks))
        assert loads == [1] and (again.ema is None) == calls_super
        assert calls_super or torch.equal(again.sample(3, seed=0), module.sample(3, seed=0))


class Unheard(GAN):
    """Overrides what only Lightning's own optimization calls."""

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        raise AssertionError

    optimizer_step = optimizer_zero_grad = on_before_zero_grad = lr_scheduler_step = configure_gradient_clipping
    on_before_backward = on_after_backward = backward = manual_backward = configure_gradient_clipping

    def on_before_optimizer_step(self, optimizer: Any) -> None: ...


def test_hooks_that_nobody_calls_are_told() -> None:
    """And it is true that nobody does, of whatever step there is."""
    unheard = callbacks.LambdaCallback(on_after_backward=lambda *_: 1 / 0, on_train_start=lambda *_: None)
    nets, told = make("gan"), []
    options = {"optimizer_g": sgd(Once, 0.1), "scheduler_d": lambda o: torch.optim.lr_scheduler.StepLR(o, 1)}
    theirs = callbacks.Callback.on_after_backward  # as lightning's has it where pytorch_lightning is used, or otherwise
    twin = FunctionType(theirs.__code__, {}, theirs.__name__)
    twin.__qualname__, twin.__module__ = theirs.__qualname__, "lightning.pytorch.callbacks.callback"
    foreign = type("Foreign", (callbacks.Callback,), {"on_after_backward": twin})
    for cls, mine in ((Unheard, [unheard]), (GAN, [callbacks.Callback(), foreign()])):
        module = cls(nets.generator, nets.discriminator, 3, clip_grad_g=1.0, sam_d=0.1, **options)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            trainer(max_steps=3, callbacks=mine).fit(module, plain())
        told.append([str(w.message) for w in record if "never called" in str(w.message)])
    assert told[1] == [] and len(told[0]) == 1 and told[0][0].count("Unheard.") == 9
    assert "Unheard.configure_gradient_clipping (in its place clip_grad_<player>);" in told[0][0]
    assert told[0][0].endswith("; LambdaCallback.on_after_backward (in its place on_before_optimizer_step).")


class Copying(callbacks.Callback):
    def __init__(self, copier: Callable[[Any], Any]) -> None:
        self.copier, self.copies = copier, []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.copies.append(self.copier(pl_module))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("name", ["wgan_gp", "prc_gan_clip", "robust_wgan", "unrolled"])
def test_copies_before_during_and_after_a_fit(name: str, copier: Callable[[Any], Any]) -> None:
    """A copy samples as its original did, and trains: what a fit holds open stays behind."""
    module = copier(make(name, cuda_graphs=True))
    during = Copying(copier)
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match="no effect"):
        trainer(max_steps=2, callbacks=[during]).fit(module, plain())
    after = copier(module)
    assert equal(module.sample(5, seed=1), after.sample(5, seed=1)) and equal(state(module), state(after))
    assert during.copies[-1].values.keys() == module.values.keys()
    for one in (during.copies[0], after):
        before = state(one)
        with pytest.warns(UserWarning, match="no effect"):
            trainer(max_steps=1).fit(one, plain())
        assert not equal(before, state(one)) and one.values is one.progress.values
