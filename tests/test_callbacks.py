"""The diagnostic and picture callbacks: what they log, what they draw, and that they leave no trace in the training."""

from __future__ import annotations

import copy
import json
import math
import random
import struct
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from common import Record, equal, make, make_images, plain, state, trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gans import TECHNIQUES
from lightning_gans.callbacks import (
    EMA,
    GANProgressBar,
    GradientNorms,
    ModeCoverage,
    OverfitAlarm,
    SampleGrid,
    WandbSetup,
    WeightHistogram,
    grid_image,
    save_image_atomic,
)
from lightning_gans.callbacks.gradient_norms import layer_norms, layer_picture, mean_input_gradient
from lightning_gans.callbacks.overfit import accuracies
from lightning_gans.callbacks.probe import histogram, require_writable, run_dir, untouched
from lightning_gans.callbacks.wandb_setup import git_commit
from lightning_gans.callbacks.weight_histogram import histogram_picture, share_at
from lightning_gans.compat.lightning import callbacks as pl_callbacks
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.datamodules import Ring
from lightning_gans.diagnostics import LatentDirections
from lightning_gans.functional.latent import nearest, slerp
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.visualization.images import to_uint8


class Watch(pl.Callback):
    """Copies of the generator after every update."""

    def __init__(self) -> None:
        self.generators: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.generators.append(state(pl_module.generator))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.generators.append(state(pl_module.generator))


class Data(pl.LightningDataModule):
    """Images or points with a clean reference and held-out items."""

    def __init__(self, items: Tensor, held_out: Tensor | None = None, value_range: Any = None) -> None:
        super().__init__()
        self.items, self.held, self.value_range = items, held_out, value_range

    def reference(self, split: str = "train") -> tuple[Tensor, None]:
        return self.items, None

    def train_dataloader(self) -> Any:
        floats = self.items.float() / 127.5 - 1 if self.items.dtype == torch.uint8 else self.items
        return DataLoader(floats.repeat(8, *[1] * (floats.ndim - 1)), 4, shuffle=True)

    def val_dataloader(self) -> Any:
        return [] if self.held is None else DataLoader(self.held, 3)


def digits(n: int = 24) -> Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def batches(n: int = 100) -> Any:
    return plain(4 * n, 4)


def images(n: int = 40) -> Any:
    return plain(4 * n, 4, (1, 8, 8))


def conditional() -> pl.LightningModule:
    torch.manual_seed(0)
    generator = DCGANGenerator(shape=(1, 8, 8), latent_dim=3, width=4, num_classes=3)
    discriminator = DCGANDiscriminator(shape=(1, 8, 8), width=4, norm="none", num_classes=3)
    return TECHNIQUES["wgan_gp"](generator, discriminator, 3, d_steps=1)


# ---------------------------------------------------------------------- EMA
def test_ema_is_the_recursion_and_copies_buffers() -> None:
    module, watch = make_images("dcgan"), Watch()
    trainer(max_steps=4, callbacks=[EMA(decay=0.9), watch]).fit(module, images())
    parameters = dict(module.generator.named_parameters())
    mean = {name: watch.generators[0][name].double() for name in parameters}
    for now in watch.generators[1:]:
        mean = {name: 0.9 * mean[name] + 0.1 * now[name].double() for name in mean}
    averaged = state(module.ema)
    for name in mean:
        torch.testing.assert_close(averaged[name].double(), mean[name], rtol=0, atol=2e-7)
        assert not torch.equal(averaged[name], watch.generators[-1][name])
    buffers = [name for name in averaged if name not in parameters]
    assert any("running_var" in name for name in buffers)
    assert all(torch.equal(averaged[name], watch.generators[-1][name]) for name in buffers)


def test_ema_waits_and_skips_and_keeps_its_memory_in_updates() -> None:
    module, watch = make("gan"), Watch()
    trainer(max_steps=6, callbacks=[EMA(decay=0.8, start_step=2, every_n_steps=2), watch]).fit(module, batches())
    name = next(iter(watch.generators[0]))
    mean = watch.generators[2][name].double()
    for step in (4, 6):
        mean = 0.64 * mean + 0.36 * watch.generators[step][name].double()
    torch.testing.assert_close(state(module.ema)[name].double(), mean, rtol=0, atol=2e-7)
    averaged, ema = state(module.ema), next(c for c in module.trainer.callbacks if isinstance(c, EMA))
    ema.on_train_batch_end(module.trainer, module, None, None, 0)  # of a batch without an update
    assert equal(state(module.ema), averaged)
    early = make("gan")
    trainer(max_steps=1, callbacks=[EMA(start_step=2)]).fit(early, batches())
    assert early.ema is None


@pytest.mark.parametrize(
    ("batch", "half_life", "ramp_up", "step", "beta"),
    [
        (64, 500_000, None, 1, 0.99991128),
        (32, 10_000, None, 7, 0.99778440),
        (32, 10_000, 0.05, 100, 0.5 ** (32 / 160)),  # 5 % of 3,200
        (32, 10_000, 0.05, 100_000, 0.99778440),
    ],
)
def test_the_decay_of_a_half_life(batch: int, half_life: float, ramp_up: float | None, step: int, beta: float) -> None:
    assert EMA(half_life=half_life, ramp_up=ramp_up).beta(step, batch * step) == pytest.approx(beta, rel=1e-7)
    assert EMA(half_life=half_life, ramp_up=ramp_up).beta(step, 0) == 0  # where no samples are counted
    fourth = EMA(half_life=half_life, ramp_up=ramp_up, every_n_steps=4)
    assert fourth.beta(step, batch * step) == pytest.approx(beta**4, rel=1e-7)


def test_ema_by_half_life_is_that_of_its_decay() -> None:
    averages = []
    for ema in (EMA(half_life=8), EMA(decay=0.5**0.5)):  # batches of 4
        module = make("gan")
        trainer(max_steps=3, callbacks=[ema]).fit(module, batches())
        averages.append(state(module.ema))
    for a, b in zip(averages[0].values(), averages[1].values()):
        torch.testing.assert_close(a, b)


def test_images_are_counted_on_where_updates_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that fits twice: half-lives go by images of an update."""
    once, twice, after = make("gan"), make("gan"), make("gan")
    averages = EMA(half_life=1000), EMA(half_life=1000)
    trainer(max_epochs=3, max_steps=-1, callbacks=[averages[0]]).fit(once, batches(4))
    t = trainer(max_epochs=1, max_steps=-1, callbacks=[averages[1]])
    t.fit(twice, batches(4))
    t.fit_loop.max_epochs = 3
    t.fit(twice, batches(4))
    assert twice.images_seen == once.images_seen == 4 * t.global_step == 48
    t.fit_loop.max_epochs = 4
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(EMA, "beta", lambda _, *at, real=EMA.beta: asked.append(at) or real(_, *at))
    t.fit(after, batches(4))  # another module, whose average begins with it
    assert asked == [(k, 4 * k) for k in range(1, 5)]
    assert t.global_step == 16 and after.images_seen == 16
    assert averages[1].beta(t.global_step - averages[1].before, after.images_seen) == averages[0].beta(12, 48)
    trainer(max_epochs=1, max_steps=-1).fit(after, batches(4))  # a run of its own
    assert after.images_seen == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_life": 0}, "half_life must be a finite number > 0, got 0"),
        ({"half_life": 10, "decay": 0.9}, "decay must be None with a half_life, got 0.9"),
        ({"half_life": 10, "ramp_up": 0}, "ramp_up must be a finite number > 0, got 0"),
        ({"ramp_up": 0.05}, "ramp_up must be None without a half_life, got 0.05"),
    ],
)
def test_bad_half_lives(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMA(**options)


def test_ema_counts_generator_updates_not_discriminator_updates() -> None:
    module = make("gan", d_steps=3)
    trainer(max_steps=2, callbacks=[EMA(decay=0.5), watch := Watch()]).fit(module, batches())
    name = next(iter(watch.generators[0]))
    first, second, third = (generator[name].double() for generator in watch.generators)
    expected = 0.25 * first + 0.25 * second + 0.5 * third
    torch.testing.assert_close(state(module.ema)[name].double(), expected, rtol=0, atol=2e-7)


def test_ema_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, half, rest = make("gan"), make("gan"), make("gan")
    seed = torch.get_rng_state()
    trainer(max_steps=6, callbacks=[EMA(0.9)]).fit(whole, batches())
    torch.set_rng_state(seed)
    first = trainer(max_steps=3, callbacks=[EMA(0.9)])
    first.fit(half, batches())
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer(max_steps=6, callbacks=[EMA(0.9)]).fit(rest, batches(), ckpt_path=tmp_path / "half.ckpt")
    assert equal(state(rest.ema), state(whole.ema))
    assert not equal(state(rest.ema), state(half.ema))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_ema_in_other_precisions(tmp_path: Path, precision: Any) -> None:
    """It moves, is resumed to the bit, and samples are of the module's type."""
    whole, half, rest, watch = make("gan"), make("gan"), make("gan"), Watch()
    seed, options = torch.get_rng_state(), {"precision": precision}
    trainer(max_steps=6, callbacks=[EMA(0.999), watch], **options).fit(whole, batches())
    torch.set_rng_state(seed)
    first = trainer(max_steps=3, callbacks=[EMA(0.999)], **options)
    first.fit(half, batches())
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer(max_steps=6, callbacks=[EMA(0.999)], **options).fit(rest, batches(), ckpt_path=tmp_path / "half.ckpt")
    assert equal(state(rest), state(whole)) and equal(state(rest.ema), state(whole.ema))
    assert torch.equal(rest.sample(3, seed=0), whole.sample(3, seed=0))

    averaged = state(whole.ema)
    wide = torch.float64 if precision == "64-true" else torch.float32
    for name in averaged:
        mean = watch.generators[0][name].double()
        for now in watch.generators[1:]:
            mean = 0.999 * mean + 0.001 * now[name].double()
        torch.testing.assert_close(averaged[name].double(), mean, rtol=0, atol=2e-7)
        assert averaged[name].dtype == wide

    z, made = whole.latents(3, seed=0)[0], whole.sample(3, seed=0)
    assert z.dtype == made.dtype == whole.dtype == whole.network.get_parameter(next(iter(averaged))).dtype
    assert equal(state(whole.network), {name: value.to(whole.dtype) for name, value in averaged.items()})
    assert whole.ema is not whole.trained_network and equal(state(whole.ema), averaged)  # sampling leaves it alone


def test_an_average_follows_its_module(tmp_path: Path) -> None:
    """From one precision to another, within another module, and behind a validation."""
    module = make("gan")
    trainer(max_steps=2, callbacks=[EMA(0.9)]).fit(module, batches())
    averaged = state(module.ema)
    outer = nn.Sequential(module).bfloat16()
    assert module.sample(2, seed=0).dtype == torch.bfloat16 and equal(state(module.ema), averaged)
    outer.double()
    assert module.decode(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert equal(state(module.ema), {name: value.double() for name, value in averaged.items()})
    outer.float()
    with torch.inference_mode():
        assert module.sample(2, seed=0).dtype == torch.float32
    assert equal(state(module.ema), averaged)
    for precision in ("64-true", "bf16-true"):
        with torch.inference_mode():  # as in a validation before
            module.sample(2)
        trainer(max_steps=2, precision=precision, callbacks=[EMA(0.9)]).fit(module, batches())
        assert not module.ema.layers[0].weight.is_inference() and module.sample(2).dtype == module.dtype


class Outer(pl.LightningModule):
    """Trains something else on samples of a model."""

    def __init__(self, gan: Any = None) -> None:
        super().__init__()
        self.gan, self.net = gan or make("gan"), nn.Linear(2, 1)

    def training_step(self, batch: Tensor) -> Tensor:
        return (self.net(self.gan.sample(len(batch))) - self.net(batch)).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), 0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_an_average_within_another_module_is_in_its_checkpoint(tmp_path: Path, precision: Any) -> None:
    trainer(max_steps=2, callbacks=[EMA(0.9)]).fit(gan := make("gan"), batches())
    averaged = state(gan.ema)
    t = trainer(max_steps=2, precision=precision)
    t.fit(outer := Outer(gan), batches())
    t.save_checkpoint(tmp_path / "outer.ckpt")
    again = Outer.load_from_checkpoint(tmp_path / "outer.ckpt")
    assert equal(state(again.gan.ema), averaged) and equal(state(outer.gan.ema), averaged)
    assert torch.equal(again.to(outer.dtype).gan.sample(3, seed=0), gan.sample(3, seed=0))
    gan.drop_ema()
    t.save_checkpoint(tmp_path / "outer.ckpt")
    assert Outer.load_from_checkpoint(tmp_path / "outer.ckpt").gan.ema is None


def test_a_fit_without_ema_forgets_the_average_of_a_callback(tmp_path: Path) -> None:
    def begun() -> Any:
        trainer(max_steps=2, callbacks=[EMA(0.9)]).fit(module := make("gan"), batches())
        return module

    module = begun()
    module.trainer.save_checkpoint(tmp_path / "a.ckpt")
    nets = {"generator": make("gan").generator, "discriminator": make("gan").discriminator}
    for first in (module, type(module).load_from_checkpoint(tmp_path / "a.ckpt", **nets)):
        assert first.ema is not None
        with pytest.warns(UserWarning, match="averaged weights of an earlier fit are dropped, since no EMA goes on"):
            trainer(max_steps=2).fit(first, batches())
        assert first.ema is None
        first.trainer.save_checkpoint(tmp_path / "b.ckpt")
        assert "ema" not in torch.load(tmp_path / "b.ckpt", weights_only=True)

    for callbacks_of, by_hand in (([EMA(0.9)], False), ([], True)):  # what goes on stays
        module = begun()
        if by_hand:
            module.start_ema()
        averaged = state(module.ema)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*averaged")
            trainer(max_steps=2, callbacks=callbacks_of).fit(module, batches())
        assert equal(state(module.ema), averaged) == by_hand and module.ema_by_hand == by_hand


# ---------------------------------------------------------------------- progress bar
class Bars(GANProgressBar):
    """Remembers what was on the screen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int | None]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.seen.append((self.train_progress_bar.n, self.train_progress_bar.total))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.seen.append((pl_module.global_step, self.train_progress_bar.total))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.seen.append((self.train_progress_bar.n, self.train_progress_bar.total))


def test_one_bar_counts_generator_updates_to_max_steps(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bars()
    options = {"max_steps": 5, "callbacks": [bar], "enable_progress_bar": True, "log_every_n_steps": 1}
    trainer(**options).fit(make("gan", d_steps=2), batches(3))
    assert bar.seen[0] == (0, 5)
    assert bar.seen[-1] == (5, 5)
    assert {total for _, total in bar.seen} == {5}
    out = capsys.readouterr().out
    assert "Generator updates: 100%" in out
    assert "5/5" in out
    assert "d/loss=" in out
    assert "v_num" not in out
    assert "Epoch" not in out


def test_updates_of_a_model_without_a_generator_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(max_steps=2, callbacks=[GANProgressBar()], enable_progress_bar=True).fit(make("ddpm"), batches())
    assert "Updates: 100%" in (out := capsys.readouterr().out) and "Generator updates" not in out
    directions = LatentDirections(make("gan"), num_directions=2, batch_size=4)
    trainer(max_steps=2, callbacks=[GANProgressBar()], enable_progress_bar=True).fit(directions)
    assert "Updates: 100%" in (out := capsys.readouterr().out) and "Generator updates" not in out


def test_the_bar_goes_on_where_a_resumed_training_stopped(tmp_path: Path) -> None:
    first = trainer(max_steps=3)
    first.fit(make("gan"), batches())
    first.save_checkpoint(tmp_path / "half.ckpt")
    bar = Bars()
    resumed = trainer(max_steps=7, callbacks=[bar], enable_progress_bar=True)
    resumed.fit(make("gan"), batches(), ckpt_path=tmp_path / "half.ckpt")
    assert bar.seen[0] == (3, 7)
    assert bar.seen[-1] == (7, 7)
    assert bar.train_progress_bar.initial == 3


@pytest.mark.parametrize(("d_steps", "updates"), [(1, 12), (2, 6)])
def test_the_bar_estimates_the_total_from_epochs(d_steps: int, updates: int) -> None:
    bar = Bars()
    options = {"max_steps": -1, "max_epochs": 3, "callbacks": [bar], "enable_progress_bar": True}
    trainer(**options).fit(make("gan", d_steps=d_steps), batches(4))
    assert bar.seen[0] == (0, 12)  # before the first epoch the loader's length is all that is known
    assert bar.seen[1] == (updates // 3, updates)
    assert bar.seen[-1] == (updates, updates)


def test_the_bar_knows_how_far_a_resumed_epoch_is(tmp_path: Path) -> None:
    """Neither does the part of it that is made count twice, nor its rest for an epoch."""
    saving = pl_callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=3, save_top_k=-1)
    first = trainer(max_steps=7, callbacks=[saving], enable_checkpointing=True)
    first.fit(make("gan"), batches(4))
    first.save_checkpoint(tmp_path / "end.ckpt")
    for path in tmp_path.glob("*.ckpt"):  # of updates 3, 6 and 7: each within an epoch of four
        bar = Bars()
        resumed = trainer(max_steps=-1, max_epochs=4, callbacks=[bar], enable_progress_bar=True)
        resumed.fit(make("gan"), batches(4), ckpt_path=path)
        assert {total for _, total in bar.seen} == {resumed.global_step}


def test_the_bar_knows_no_total_without_an_end() -> None:
    bar = Bars()
    endless = trainer(max_steps=-1, max_epochs=-1, callbacks=[bar, _Stop(after=2)], enable_progress_bar=True)
    endless.fit(make("gan"), batches(4))
    assert bar.seen[0] == (0, None)
    assert bar.seen[-1] == (2, None)


class _Stop(pl.Callback):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        trainer.should_stop = pl_module.global_step >= self.after


def test_bar_names_are_short_and_keep_the_extractor() -> None:
    known = {"d/loss": -3.14159, "metrics/fid/lenet": 123.456, "metrics/kid/lenet": 7.0}
    found = GANProgressBar().get_metrics(SimpleNamespace(progress_bar_metrics=known), None)
    assert list(found.items()) == [("fid/lenet", "123"), ("d/loss", "-3.14"), ("kid/lenet", "7")]


@pytest.mark.parametrize(("columns", "expected"), [
    (40, "| [03:1"), (78, "left, fid/lenet=123, d/loss=-3.14, d/penalty=0.5]"),
    (140, "updates, fid/lenet=123, d/loss=-3.14, d/penalty=0.5]"),
])  # fmt: skip
def test_what_the_bar_shows_fits_into_the_terminal(
    columns: int, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = GANProgressBar()
    drawn = bar.train_progress_bar = bar.init_train_tqdm()
    drawn.start_t -= 5.0
    drawn.dynamic_ncols, drawn.total, drawn.unit = lambda _: (columns, 40), 200, " updates"
    monkeypatch.setattr(bar, "get_metrics", lambda *_: {"fid/lenet": "123", "d/loss": "-3.14", "d/penalty": "0.5"})
    capsys.readouterr()
    bar.draw(SimpleNamespace(), SimpleNamespace(global_step=5))
    shown = capsys.readouterr().out.strip("\r\n")
    assert expected in shown and shown.rstrip().endswith("]") and len(shown.rstrip()) <= columns


def test_into_a_file_it_is_drawn_every_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another line each time: a log of a day would be all bars."""
    bar = GANProgressBar()
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", log)
        trainer(max_steps=400, callbacks=[bar], enable_progress_bar=True, log_every_n_steps=1).fit(make("gan"), plain())
    assert bar.wait == 10 and (tmp_path / "log").read_text().count("Generator updates") < 8


def test_a_hidden_bar_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """As those of other ranks are."""
    for bar in (GANProgressBar(refresh_rate=0), Hidden()):
        t = trainer(max_steps=2, callbacks=[bar], enable_progress_bar=True)
        t.fit(make("gan"), batches())
        t.predict(make("gan"), [4, 4])
    assert "updates" not in "".join(capsys.readouterr())


class Hidden(GANProgressBar):
    def setup(self, *args: Any, **kwargs: Any) -> None:
        super().setup(*args, **kwargs)
        self.disable()


@pytest.mark.parametrize("wait", [0.0, 60.0])
def test_the_bar_of_samples_comes_to_its_end(monkeypatch: pytest.MonkeyPatch, wait: float) -> None:
    monkeypatch.setattr("lightning_gans.callbacks.progress._wait", lambda bar: wait)
    seen: list[int] = []

    class Seen(GANProgressBar):
        def on_predict_end(self, *args: Any) -> None:
            seen.extend([self.predict_progress_bar.n, self.predict_progress_bar.total])
            super().on_predict_end(*args)

    trainer(callbacks=[Seen()], enable_progress_bar=True).predict(make("gan"), [4] * 5)
    assert seen == [5, 5]


def test_other_bars_are_lightnings(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"callbacks": [GANProgressBar()], "enable_progress_bar": True}
    trainer(**options).test(make("gan"), batches(3), verbose=False)
    assert "Testing" in capsys.readouterr().out


# ---------------------------------------------------------------------- pictures
def test_grid_enlarges_cells_with_gaps() -> None:
    cells = torch.zeros(3, 1, 8, 8)
    cells[0], cells[1], cells[2, 0, 0, 0] = -1, 1, 1
    picture = np.asarray(grid_image(cells, columns=2, value_range=(-1, 1), cell=60, gap=4))
    assert picture.shape == (2 * 64 + 3 * 4, 2 * 64 + 3 * 4, 3)
    assert (picture[4:68, 4:68] == 0).all()
    assert (picture[4:68, 72:136] == 255).all()
    assert (picture[72:80, 4:12] == 255).all()  # one pixel became a square of 8
    assert (picture[72:136, 12:68] == 128).all()
    gap = picture[0, 0]
    assert 0 < gap.min() < 255
    assert (picture[:, 68:72] == gap).all()
    assert (picture[68:72] == gap).all()
    assert (picture[72:136, 72:136] == gap).all()  # the cell that is not there


def test_grid_keeps_large_images_colours_and_uint8() -> None:
    cell = torch.randint(0, 256, (1, 3, 70, 66), dtype=torch.uint8)
    picture = np.asarray(grid_image(cell, columns=8, gap=0))
    assert np.array_equal(picture, cell[0].permute(1, 2, 0).numpy())


def test_pixel_values_are_scaled_rounded_and_clipped() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 0.999, 1.0, 9.0, math.nan, math.inf]).reshape(1, 1, 1, 8)
    assert to_uint8(values, (-1, 1)).flatten().tolist() == [0, 0, 128, 255, 255, 255, 0, 255]
    assert to_uint8(torch.tensor([[[[0.0, 0.25, 1.0]]]]), (0, 1)).flatten().tolist() == [0, 64, 255]


@pytest.mark.parametrize("shape", [(4, 0, 8, 8), (0, 1, 8, 8), (1, 8, 8)])
def test_grid_says_what_it_wants(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images must be"):
        grid_image(torch.zeros(shape), columns=2)
    with pytest.raises(ValueError, match="columns must be an integer >= 1"):
        grid_image(torch.zeros(1, 1, 8, 8), columns=0)


def test_a_picture_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, written, save = tmp_path / "a.png", [], Image.Image.save
    monkeypatch.setattr(
        Image.Image, "save", lambda self, file, **k: written.append(Path(file)) or save(self, file, **k)
    )
    save_image_atomic(Image.new("RGB", (2, 2), "red"), path)
    assert len(written) == 1
    assert path not in written
    with Image.open(path) as picture:
        assert picture.getpixel((1, 1)) == (255, 0, 0)


def test_a_picture_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image_atomic(Image.new("RGB", (2, 2), "red"), tmp_path / "new" / "a.png")
    before = path.read_bytes()

    def half(self: Image.Image, file: Path, format: str) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_image_atomic(Image.new("RGB", (2, 2), "blue"), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


# ---------------------------------------------------------------------- sample grid
def test_slerp_closed_form() -> None:
    a, b = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 2.0]]).double()
    t = torch.tensor([0.0, 0.25, 0.5, 1.0]).double()
    angle = t * math.pi / 2
    expected = torch.stack([angle.cos(), 2 * angle.sin()], dim=1)[None]
    torch.testing.assert_close(slerp(a, b, t), expected, rtol=0, atol=1e-12)
    unit = nn.functional.normalize(torch.randn(2, 5, 7, dtype=torch.double), dim=-1)
    assert slerp(unit[0], unit[1], t).norm(dim=-1).sub(1).abs().max() < 1e-12
    torch.testing.assert_close(slerp(a, 3 * a, t)[0, :, 0], 1 + 2 * t)  # parallel: linear
    assert slerp(a, -a, t).isfinite().all()


def test_nearest_is_brute_force_in_pieces() -> None:
    items, queries = digits(30), digits(7)
    distance = (queries.float().flatten(1)[:, None] - items.float().flatten(1)[None]).square().sum(-1)
    assert torch.equal(nearest(queries, items, chunk=4), distance.argmin(1))
    assert torch.equal(nearest(items[5:9], items, chunk=4), torch.arange(5, 9))


def test_no_grid_is_drawn_if_none_is_asked_for(tmp_path: Path) -> None:
    trainer(max_steps=2, callbacks=[SampleGrid(None, dirpath=str(tmp_path))]).fit(make("gan"), plain())
    assert not list(tmp_path.iterdir())


def test_grid_is_drawn_at_start_every_n_updates_and_at_the_end(tmp_path: Path) -> None:
    grid = SampleGrid(every_n_steps=2, rows=2, columns=3, interpolations=2, dirpath=str(tmp_path))
    trainer(max_steps=5, callbacks=[grid]).fit(make_images("wgan_gp", d_steps=2), images())
    folder = tmp_path / "samples"
    steps = [0, 2, 4, 5]
    expected = {f"{kind}_{step:06d}.png" for kind in ("step", "interpolation") for step in steps}
    expected |= {"latest.png", "animation.gif", "over_training.png"}
    assert {p.name for p in folder.iterdir()} == expected
    with Image.open(folder / "latest.png") as latest, Image.open(folder / "step_000005.png") as last:
        assert latest.size == (3 * 68 + 4, 2 * 68 + 4)
        assert np.array_equal(np.asarray(latest), np.asarray(last))
    first = np.asarray(Image.open(folder / "step_000000.png"))
    assert not np.array_equal(first, np.asarray(Image.open(folder / "step_000005.png")))


def test_grid_has_the_same_noise_every_time() -> None:
    module, grid = make_images("wgan_gp"), SampleGrid(columns=3, rows=2, interpolations=1)
    first = grid.pictures(module)
    torch.randn(100)
    second = grid.pictures(module)
    assert all(np.array_equal(np.asarray(first[name]), np.asarray(second[name])) for name in first)
    other = SampleGrid(columns=3, rows=2, seed=1).pictures(module)["grid"]
    assert not np.array_equal(np.asarray(first["grid"]), np.asarray(other))


def test_walk_starts_and_ends_at_its_noises() -> None:
    module, grid = make_images("wgan_gp"), SampleGrid(columns=4, interpolations=2)
    ends = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0))
    module.generator.eval()
    walk = grid.walk(module).unflatten(0, (2, 4))
    torch.testing.assert_close(walk[:, 0], module(ends[0]))
    torch.testing.assert_close(walk[:, -1], module(ends[1]))


def test_grid_shows_one_class_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module, asked = conditional(), []
    sample = module.sample
    monkeypatch.setattr(module, "sample", lambda n, labels=None, **k: asked.append(labels) or sample(n, labels, **k))
    picture = SampleGrid(columns=2, interpolations=4).pictures(module)
    assert asked[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert picture["grid"].size == (2 * 68 + 4, 3 * 68 + 4)
    assert picture["interpolation"].size == (2 * 68 + 4, 4 * 68 + 4)


def test_neighbours_stand_below_their_samples(tmp_path: Path) -> None:
    module = make_images("wgan_gp")
    grid = SampleGrid(every_n_steps=9, columns=2, rows=1, neighbours=3, dirpath=str(tmp_path))
    items = to_uint8(module.sample(3, generator=torch.Generator().manual_seed(0)), (-1, 1))
    data = Data(torch.cat([digits(), items]), value_range=(-1, 1))
    grid.reference = data.reference
    pairs = np.asarray(grid.pictures(module)["neighbours"])
    assert pairs.shape == (2 * 68 + 4, 3 * 68 + 4, 3)
    assert np.array_equal(pairs[4:68], pairs[72:136])  # the samples are among the items
    with pytest.raises(ValueError, match=r"needs a datamodule .* for its neighbours"):
        trainer(max_steps=1, callbacks=[grid]).fit(module, images())


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("value", [None, 1.0])
def test_toy_pictures_show_data_samples_and_discriminator(d: int, value: float | None) -> None:
    torch.manual_seed(0)
    nets = (ToyGenerator(shape=(d,), latent_dim=2, width=8), ToyDiscriminator(shape=(d,), width=8))
    module = TECHNIQUES["gan"](*nets, 2)
    grid = SampleGrid(points=200)
    points = torch.randn(500, d) if value is None else torch.full((500, d), value)  # a point mass has no width
    grid.reference = Data(points).reference
    picture = np.asarray(grid.pictures(module)["grid"]).astype(int)
    orange = (picture[..., 0] - picture[..., 2] > 60).sum()
    blue = (picture[..., 2] - picture[..., 0] > 60).sum()
    assert orange > 30
    assert blue > 30
    dead = copy.deepcopy(module)
    for p in dead.discriminator.parameters():
        p.data.fill_(math.nan)
    grid.pictures(dead)


def test_images_are_drawn_in_their_range() -> None:
    class Red(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.colour = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))

        def forward(self, z: Tensor) -> Tensor:
            return self.colour.expand(len(z), 3, 8, 8)

    module = TECHNIQUES["gan"](Red(), ToyDiscriminator(shape=(3, 8, 8), width=4), 2)
    picture = np.asarray(SampleGrid().pictures(module, (0.0, 1.0))["grid"])
    assert {(255, 0, 0)} <= {tuple(p) for p in picture.reshape(-1, 3).tolist()}
    with pytest.warns(UserWarning, match="never below 0: say their range by the data module's value_range"):
        SampleGrid().pictures(module)


def test_other_shapes_are_told_once_and_not_drawn() -> None:
    module = TECHNIQUES["gan"](
        ToyGenerator(shape=(5,), latent_dim=2, width=8), ToyDiscriminator(shape=(5,), width=8), 2
    )
    with pytest.warns(UserWarning, match=r"not samples of \(5,\)"):
        assert SampleGrid().pictures(module) == {}


# ---------------------------------------------------------------------- gradient norms
class Linear(nn.Module):
    """D(x) = w.x: the gradient is w at every x."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w


def test_input_gradient_of_a_linear_critic_is_its_weight() -> None:
    torch.manual_seed(0)
    module = TECHNIQUES["gan"](ToyGenerator(shape=(2,), latent_dim=2, width=8), Linear(torch.tensor([3.0, 4.0])), 2)
    assert float(mean_input_gradient(module, torch.randn(5, 2), None)) == pytest.approx(5.0, rel=1e-6)
    record, norms = Record(), GradientNorms(every_n_steps=1, per_layer=False)
    stopped = TECHNIQUES["gan"](module.generator, module.discriminator, 2, lr_d=1e-12)
    trainer(max_steps=1, logger=record, callbacks=[norms]).fit(stopped, batches())
    for where in ("real", "fake", "interpolated"):
        assert record.of(f"grad/input/{where}")[1] == pytest.approx(5.0, rel=1e-5)


def test_input_gradients_are_taken_at_real_fake_and_between() -> None:
    class Square(nn.Module):  # D(x) = |x|^2 / 2 (+ 0 w): the gradient is x
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return x.square().sum(1) / 2 + self.w

    module = TECHNIQUES["gan"](ToyGenerator(shape=(2,), latent_dim=2, width=8), Square(), 2)
    batch = SimpleNamespace(real=torch.tensor([[4.0, 0.0]] * 500), labels=None)
    found = GradientNorms().input_norms(module, batch, torch.tensor([[2.0, 0.0]] * 400), step=1)
    assert float(found["grad/input/real"]) == pytest.approx(4.0)
    assert float(found["grad/input/fake"]) == pytest.approx(2.0)
    assert float(found["grad/input/interpolated"]) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("order", ["d_first", "g_first"])
def test_gradient_norms_are_those_of_each_players_own_step(order: str, tmp_path: Path) -> None:
    seen: dict[str, list[dict[str, float]]] = {"d": [], "g": []}

    class Ask(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
            first = optimizer.param_groups[0]["params"][0]
            player = "d" if any(first is p for p in pl_module.discriminator.parameters()) else "g"
            net = pl_module.discriminator if player == "d" else pl_module.generator
            seen[player].append({n: float(p.grad.square().sum()) for n, p in net.named_parameters()})

    record, module = Record(), make("gan", d_steps=2, order=order)
    norms = GradientNorms(every_n_steps=2, inputs=False, dirpath=str(tmp_path))
    trainer(max_steps=5, logger=record, callbacks=[Ask(), norms]).fit(module, batches())
    for player, per_cycle in (("d", 2), ("g", 1)):
        total = record.of(f"grad/{player}")
        assert sorted(total) == [2, 4]
        for step, value in total.items():
            squares = seen[player][step * per_cycle - 1]
            assert value == pytest.approx(math.sqrt(sum(squares.values())), rel=1e-5)
            layers = {name.rpartition(".")[0] for name in squares}
            assert len(layers) >= 2
            for layer in layers:
                own = sum(v for name, v in squares.items() if name.rpartition(".")[0] == layer)
                assert record.of(f"grad/{player}/{layer}")[step] == pytest.approx(math.sqrt(own), rel=1e-5)
    with Image.open(tmp_path / "gradients" / "latest.png") as picture:
        assert min(picture.size) > 300


def test_a_third_player_leaves_the_discriminators_norm_alone(tmp_path: Path) -> None:
    """Its step comes when D's gradient is old, and clipped."""
    found: dict[float | None, dict[str, float]] = {}
    for clip in (None, 1e-3):
        record, module = Record(), make("prc_gan_clip", d_steps=1, g_steps=1, clip_grad_d=clip)
        norms = GradientNorms(every_n_steps=1, inputs=False, dirpath=str(tmp_path))
        trainer(max_steps=1, logger=record, callbacks=[norms]).fit(module, batches())
        found[clip] = {player: record.of(f"grad/{player}")[1] for player in module.players}
    assert len(found[None]) == 3 and found[None]["d"] > 1e-2
    assert found[1e-3]["d"] == pytest.approx(found[None]["d"], rel=1e-6)


def test_norms_of_a_cycle_of_several_generator_updates(tmp_path: Path) -> None:
    """D steps along with the first of them, whichever is due; the norms are told where the cycle ends."""
    record, module = Record(), make("gan", g_steps=2)
    norms = GradientNorms(every_n_steps=5, inputs=False, dirpath=str(tmp_path))
    trainer(max_steps=10, logger=record, callbacks=[norms]).fit(module, batches())
    assert sorted(record.of("grad/d")) == sorted(record.of("grad/g")) == [6, 10]


def test_norms_of_another_training_are_forgotten(tmp_path: Path) -> None:
    norms = GradientNorms(every_n_steps=2, inputs=False, picture_every=1000, dirpath=str(tmp_path))
    for steps in (200, 6):
        trainer(max_steps=steps, callbacks=[norms]).fit(make("gan"), batches(400))
    assert [step for step, _ in norms.history] == [2, 4, 6] and (norms.logs, norms.apart) == (3, 0)


def test_layers_are_in_order_and_named_without_parametrizations() -> None:
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3)), nn.ReLU(), nn.Linear(3, 1))
    net(torch.randn(4, 2)).sum().backward()
    assert list(layer_norms(net)) == ["0", "2"]
    assert list(layer_norms(nn.Linear(2, 2))) == []


def test_layer_picture_survives_divergence() -> None:
    layers = {"d": {"a": 0.0, "b": math.nan, "c": math.inf}, "g": {}}
    assert min(layer_picture([(1, layers), (2, layers)]).size) > 300


# ---------------------------------------------------------------------- weight histogram
def test_many_weights_are_counted_one_by_one() -> None:
    """float32 has no 2^24 + 1."""
    found = histogram(torch.zeros(()).expand(2**24 + 3), 3, -1.0, 1.0)
    assert found.tolist() == [0, 2**24 + 3, 0]
    values = torch.randn(100)
    assert histogram(values, 5, -2.0, 2.0).tolist() == torch.histc(values, 5, -2.0, 2.0).tolist()


def test_share_at_c_counts_both_ends() -> None:
    weights = torch.tensor([-0.01, 0.01, 0.0099995, 0.0099, -0.0099, 0.0, 0.005, -0.005])
    assert float(share_at(weights, 0.01)) == pytest.approx(3 / 8)


def test_clipped_weights_gather_at_c(tmp_path: Path) -> None:
    record = Record()
    histogram = WeightHistogram(every_n_steps=2, dirpath=str(tmp_path))
    trainer(max_steps=4, logger=record, callbacks=[histogram]).fit(make("wgan", c=1e-3, d_steps=1), batches())
    shares = record.of("d/weights_at_c")
    assert sorted(shares) == [2, 4]
    assert 0.5 < min(shares.values()) <= max(shares.values()) <= 1
    names = {p.name for p in (tmp_path / "weights").iterdir()}
    assert names == {"step_000002.png", "step_000004.png", "latest.png"}


def test_without_clipping_there_is_no_share(tmp_path: Path) -> None:
    record = Record()
    histogram = WeightHistogram(every_n_steps=1, dirpath=str(tmp_path))
    trainer(max_steps=1, logger=record, callbacks=[histogram]).fit(make("wgan_gp"), batches())
    assert record.of("d/weights_at_c") == {}
    assert (tmp_path / "weights" / "latest.png").exists()
    for weights in (torch.zeros(9), torch.full((9,), math.nan)):
        histogram_picture(weights, None, 1)


# ---------------------------------------------------------------------- overfit alarm
def test_accuracies_closed_form() -> None:
    train, held_out, fake = torch.tensor([3.0, 5.0]), torch.tensor([3.0, 0.5, 0.5, 9.0]), torch.tensor([-1.0, -3.0])
    torch.testing.assert_close(accuracies(train, held_out, fake), torch.tensor([1.0, 0.5, 1.0]))  # midway: 1
    torch.testing.assert_close(accuracies(train, held_out, fake, threshold=0.0), torch.tensor([1.0, 1.0, 1.0]))
    torch.testing.assert_close(accuracies(train, held_out, fake, threshold=-2.0), torch.tensor([1.0, 1.0, 0.5]))


class KnowsByHeart(nn.Module):
    """Scores 4 for the training points (x1 > 0), -4 for all others."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return 8.0 * (x[:, 0] > 0) - 4 + self.w + 0 * x.sum(1)


def test_alarm_logs_and_warns_once() -> None:
    train = torch.rand(32, 2) + 0.1
    held_out = torch.cat([train[:6], -train[6:12]])  # half of them unknown to it
    module = TECHNIQUES["gan"](ToyGenerator(shape=(2,), latent_dim=2, width=8), KnowsByHeart(), 2, lr_d=1e-6)
    record = Record()
    alarm = OverfitAlarm(every_n_steps=1, threshold=0.0, patience=2)
    fit = trainer(max_steps=5, logger=record, callbacks=[alarm])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit.fit(module, datamodule=Data(train, held_out))
    told = [str(w.message) for w in caught if "OverfitAlarm" in str(w.message)]
    assert len(told) == 1
    assert "after 2 generator updates" in told[0]
    assert "100% of training samples for real, but 50% of held-out" in told[0]
    assert set(record.of("d/accuracy_train").values()) == {1.0}
    assert set(record.of("d/accuracy_heldout").values()) == {0.5}
    assert sorted(record.of("d/overfit_gap")) == [1, 2, 3, 4, 5]
    assert float(fit.callback_metrics["d/overfit_gap"]) == pytest.approx(0.5)
    share = float((module.last_fake[:, 0] <= 0).float().mean())
    assert record.of("d/accuracy_fake")[5] == pytest.approx(share)


def test_alarm_warns_in_each_training() -> None:
    train = torch.rand(32, 2) + 0.1
    alarm = OverfitAlarm(every_n_steps=1, threshold=0.0, patience=2)
    for _ in range(2):
        module = TECHNIQUES["gan"](ToyGenerator(shape=(2,), latent_dim=2, width=8), KnowsByHeart(), 2, lr_d=1e-6)
        with pytest.warns(UserWarning, match="OverfitAlarm: after 2 generator updates"):
            trainer(max_steps=3, callbacks=[alarm]).fit(module, datamodule=Data(train, -train))


def test_alarm_wants_its_checks_in_a_row() -> None:
    """Gaps of 1, 1, 0, 1, 1, 1 with a patience of 3."""
    module = TECHNIQUES["gan"](ToyGenerator(shape=(2,), latent_dim=2, width=8), KnowsByHeart(), 2, lr_d=1e-6)
    train = torch.rand(32, 2) + 0.1
    alarm = OverfitAlarm(every_n_steps=1, threshold=0.0, patience=3)

    class Change(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            alarm.held_out = (train if trainer.global_step == 2 else -train, None)

    with pytest.warns(UserWarning, match="OverfitAlarm: after 6 generator updates"):
        trainer(max_steps=7, callbacks=[Change(), alarm]).fit(module, datamodule=Data(train, -train))


def test_ranks_look_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold is midway of all ranks' scores, and norms by D's input are of all their rows."""
    record, train = Record(), torch.rand(32, 2) + 0.1
    module = TECHNIQUES["gan"](ToyGenerator(shape=(2,), latent_dim=2, width=8), KnowsByHeart(), 2, lr_d=1e-6)
    alarm, norms = OverfitAlarm(every_n_steps=1), GradientNorms(every_n_steps=1, per_layer=False)
    fit = trainer(max_steps=1, logger=record, callbacks=[alarm, norms])

    def reduce(value: Tensor, reduce_op: str = "mean", **_: Any) -> Tensor:  # as if others had 100 more
        return value + 100 if value.numel() in (1, 3) and reduce_op == "mean" else value

    monkeypatch.setattr(type(fit.strategy), "reduce", lambda self, value, *_, **options: reduce(value, **options))
    fit.fit(module, datamodule=Data(train, -train))
    assert record.of("d/accuracy_train")[1] == 100 and record.of("d/accuracy_fake")[1] == 101  # none is above 100
    assert all(100 <= record.of(f"grad/input/{where}")[1] < 101 for where in ("real", "fake", "interpolated"))


def test_early_stopping_can_watch_the_gap() -> None:
    train = torch.rand(32, 2) + 0.1
    module = TECHNIQUES["gan"](ToyGenerator(shape=(2,), latent_dim=2, width=8), KnowsByHeart(), 2, lr_d=1e-6)
    stop = pl_callbacks.EarlyStopping("d/overfit_gap", stopping_threshold=None, divergence_threshold=0.3, mode="min")
    alarm = OverfitAlarm(every_n_steps=1, threshold=0.0, patience=99)
    fit = trainer(max_steps=1000, callbacks=[alarm, stop], limit_val_batches=0)
    fit.fit(module, datamodule=Data(train, -train))
    assert 0 < fit.global_step < 1000


def test_alarm_is_silent_on_equal_data_and_reads_uint8() -> None:
    module, items = make_images("wgan_gp", d_steps=1), digits(32)
    held_out = items.float() / 127.5 - 1
    record, alarm = Record(), OverfitAlarm(every_n_steps=1, patience=1, max_gap=0.01)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*OverfitAlarm.*")
        fit = trainer(max_steps=3, logger=record, callbacks=[alarm])
        fit.fit(module, datamodule=Data(items, held_out, (-1.0, 1.0)))
    assert set(record.of("d/overfit_gap").values()) == {0.0}
    torch.testing.assert_close(alarm.train[0], held_out)


def test_alarm_tells_how_far_the_discriminator_is_from_its_start(tmp_path: Path) -> None:
    """Also after a resume."""
    data, ends = Data(torch.rand(32, 2), torch.rand(8, 2)), []
    for stops in ([4], [2, 4]):
        pl.seed_everything(0, verbose=False)
        module, ckpt, path = make("gan", lr_d=0.01), None, tmp_path / f"{len(stops)}.ckpt"
        begun = torch.cat([p.detach().flatten().clone() for p in module.discriminator.parameters()])
        for stop in stops:
            record = Record()
            fit = trainer(max_steps=stop, logger=record, callbacks=[OverfitAlarm(every_n_steps=1)])
            fit.fit(module, datamodule=data, ckpt_path=ckpt)
            fit.save_checkpoint(ckpt := path)
            module = module if stop == stops[-1] else make("gan", lr_d=0.01)
        now = torch.cat([p.detach().flatten() for p in module.discriminator.parameters()])
        ends.append(record.of("d/distance")[4])
        assert ends[-1] == pytest.approx(float((now - begun).norm() / begun.norm()), rel=1e-5) and ends[-1] > 0.01
    assert ends[0] == ends[1]


def test_alarm_needs_held_out_samples() -> None:
    for data in ({"train_dataloaders": batches()}, {"datamodule": Data(torch.rand(16, 2))}):
        with pytest.raises(ValueError, match="needs held-out samples"):
            trainer(max_steps=1, callbacks=[OverfitAlarm()]).fit(make("gan"), **data)


# ---------------------------------------------------------------------- leaving no trace
def everything(folder: Path) -> list[pl.Callback]:
    return [
        EMA(0.9),
        SampleGrid(1, rows=1, columns=2, interpolations=1, neighbours=1, dirpath=str(folder)),
        GradientNorms(1, picture_every=2, dirpath=str(folder)),
        WeightHistogram(1, dirpath=str(folder)),
        OverfitAlarm(1),
        WandbSetup(),
    ]


@pytest.mark.parametrize("build", [lambda: make_images("dcgan"), lambda: make_images("wgan_gp", d_steps=2)])
def test_callbacks_do_not_change_the_training(build: Any, tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], everything(tmp_path)):
        module = build()
        module.discriminator.train()
        part = next(m for m in module.generator.modules() if not list(m.children()))
        part.training = False  # an odd flag, to be kept
        next(module.discriminator.parameters()).requires_grad_(False)
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        data = Data(digits(), digits().float() / 127.5 - 1, (-1.0, 1.0))
        trainer(max_steps=3, callbacks=callbacks).fit(module, datamodule=data)
        parameters = list(module.parameters())
        grads = [torch.zeros(1) if p.grad is None else p.grad for p in parameters]
        ends.append(
            {
                "weights": state(module),
                "has grad": [p.grad is not None for p in parameters],
                "grads": grads,
                "requires_grad": [p.requires_grad for p in parameters],
                "flags": [m.training for m in module.modules()],
                "torch": torch.get_rng_state(),
                "others": [random.random(), np.random.rand()],
            }
        )
    for name in ends[0]:
        assert equal(ends[0][name], ends[1][name]), name
    assert len(list(tmp_path.rglob("*.png"))) > 10


def test_looking_restores_random_numbers_and_modes_even_after_an_error() -> None:
    module = make_images("dcgan")
    part = next(m for m in module.discriminator.modules() if not list(m.children()))
    part.training = False
    flags = [m.training for m in module.modules()]
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(RuntimeError), untouched(module):
        assert not any(m.training for net in (module.generator, module.discriminator) for m in net.modules())
        torch.randn(3), np.random.rand(3), random.random()
        raise RuntimeError
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert equal(before, after)
    assert [m.training for m in module.modules()] == flags


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    module = make_images("wgan_gp")
    elsewhere = SimpleNamespace(is_global_zero=False, loggers=[], log_dir=str(tmp_path))
    grid = SampleGrid(rows=1, columns=1, dirpath=str(tmp_path / "a"))
    histogram = WeightHistogram(dirpath=str(tmp_path / "b"))
    norms = GradientNorms(dirpath=str(tmp_path / "c"))
    norms.history = [(1, {"d": {"a": 1.0}, "g": {}})]
    for callback in (grid, histogram, norms):
        callback.setup(elsewhere, module, "fit")
    grid.act(elsewhere, module, 1)
    histogram.act(elsewhere, module, 1)
    norms.draw(elsewhere, 1)
    assert list(tmp_path.rglob("*")) == []


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize("kind", [SampleGrid, GradientNorms, WeightHistogram])
def test_unwritable_folder_is_told_before_training(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    module = make("gan")
    before = state(module)
    with pytest.raises(ValueError, match=f"{kind.__name__}: dirpath .*file.* is not a folder"):
        trainer(max_steps=1, callbacks=[kind(dirpath=str(tmp_path / "file" / "run"))]).fit(module, batches())
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match=f"{kind.__name__}: dirpath .* is not writable"):
        trainer(max_steps=1, callbacks=[kind(dirpath=str(tmp_path / "run"))]).fit(module, batches())
    assert equal(state(module), before)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_can_be_made_is_writable_and_not_made(tmp_path: Path) -> None:
    require_writable(SampleGrid(), tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: EMA(decay=1.0), r"decay must be in \[0, 1\), got 1.0"),
        (lambda: EMA(start_step=-1), "start_step must be an integer >= 0, got -1"),
        (lambda: EMA(every_n_steps=0), "every_n_steps must be an integer >= 1, got 0"),
        (lambda: SampleGrid(every_n_steps=2.5), "every_n_steps must be an integer >= 1, got 2.5"),
        (lambda: SampleGrid(rows=0), "rows must be an integer >= 1, got 0"),
        (lambda: SampleGrid(neighbours=-1), "neighbours must be an integer >= 0, got -1"),
        (lambda: GradientNorms(picture_every=0), "picture_every must be an integer >= 1, got 0"),
        (
            lambda: WeightHistogram(every_n_steps=True),
            "every_n_steps must be an integer >= 1, got True",
        ),
        (lambda: OverfitAlarm(max_gap=2), r"max_gap must be in \[0, 1\], got 2"),
        (lambda: OverfitAlarm(patience=0), "patience must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(make_it: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_it()


@pytest.mark.parametrize("callback", [EMA(), WeightHistogram(), SampleGrid(), OverfitAlarm()])
def test_another_module_is_refused(callback: pl.Callback, tmp_path: Path) -> None:
    class Other(pl.LightningModule):
        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return self.p.sum()

        def configure_optimizers(self) -> Any:
            self.p = nn.Parameter(torch.ones(1))
            return torch.optim.SGD([self.p], 0.1)

    with pytest.raises(
        TypeError, match=rf"^{type(callback).__name__} needs a model that .*, got Other, which has no \w+\.$"
    ):
        trainer(max_steps=1, callbacks=[callback], default_root_dir=tmp_path).fit(Other(), batches())


# ---------------------------------------------------------------------- loggers
def test_csv_logger_has_no_pictures_and_no_crash(tmp_path: Path) -> None:
    data = Data(digits(), digits().float() / 127.5 - 1, (-1.0, 1.0))
    log = loggers.CSVLogger(tmp_path)
    callbacks = [SampleGrid(1, rows=1, columns=2), GradientNorms(1), WeightHistogram(1), OverfitAlarm(1)]
    trainer(max_steps=2, logger=log, callbacks=callbacks).fit(make_images("wgan", d_steps=1), datamodule=data)
    header = (Path(log.log_dir) / "metrics.csv").read_text().splitlines()[0]
    for name in ("grad/d", "grad/g", "grad/input/interpolated", "d/weights_at_c", "d/overfit_gap"):
        assert name in header.split(",")
    assert (Path(log.log_dir) / "samples" / "latest.png").exists()  # the run's folder is the logger's


def test_tensorboard_shows_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = loggers.TensorBoardLogger(tmp_path)
    callbacks = [SampleGrid(2, rows=1, columns=2), GradientNorms(2), WeightHistogram(2)]
    trainer(max_steps=2, logger=log, callbacks=callbacks).fit(make_images("wgan_gp", d_steps=1), images())
    events = EventAccumulator(log.log_dir).Reload()
    assert set(events.Tags()["images"]) == {"samples/grid", "samples/over_training", "grad/layers", "d/weights"}
    grids = events.Images("samples/grid")
    assert [g.step for g in grids] == [0, 2]
    assert (grids[0].width, grids[0].height) == (2 * 68 + 4, 68 + 4)


def read_wandb(path: Path) -> list[Any]:
    """The records of an offline run: protobuf messages in a LevelDB log (blocks of 32 KiB, 7-byte headers)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last part
            record = Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


class OneFolder(loggers.Logger):
    """Has one folder for all runs, as W&B's."""

    name, save_dir = "project", None

    def __init__(self, save_dir: Path, version: str | int) -> None:
        super().__init__()
        self.save_dir, self.found = str(save_dir), version

    @property
    def version(self) -> Any:
        return self.found

    def log_metrics(self, *_: Any, **__: Any) -> None: ...

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...


def test_runs_of_a_logger_with_one_folder_keep_apart(tmp_path: Path) -> None:
    """Where Lightning keeps their checkpoints; not on the command line, which gives each run a folder."""
    for version, where in {"a": "project/a", "b": "project/b", 3: "project/version_3"}.items():
        modes = ModeCoverage(every_n_steps=1, num_samples=10, at_start=False)
        fit = trainer(max_steps=1, logger=OneFolder(tmp_path / "all", version), callbacks=[modes])
        fit.fit(make("gan"), datamodule=Ring(batch_size=4))
        assert run_dir(fit) == tmp_path / "all" / where
        assert (run_dir(fit) / "scores-coverage.jsonl").exists()
    assert not [*(tmp_path / "all").glob("*.jsonl")]
    for typed in (tmp_path / "run", f"{tmp_path}/run/"):
        assert run_dir(trainer(logger=OneFolder(typed, "c"), default_root_dir=typed)) == tmp_path / "run"


def test_an_offline_wandb_run_reads_back(tmp_path: Path, wandb: Any) -> None:
    log = loggers.WandbLogger(project="test", save_dir=str(tmp_path))
    callbacks = [SampleGrid(2, rows=1, columns=2, dirpath=str(tmp_path)), GradientNorms(1), WandbSetup()]
    fit = trainer(max_steps=4, logger=log, callbacks=callbacks, default_root_dir=tmp_path, log_every_n_steps=1)
    fit.fit(make_images("wgan_gp", d_steps=2), images())
    wandb.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records, deadline = read_wandb(path), time.monotonic() + 120
    while not any(record.HasField("exit") for record in records) and time.monotonic() < deadline:
        time.sleep(0.2)  # another process writes the file
        records = read_wandb(path)

    def key(item: Any) -> str:
        return item.key or "/".join(item.nested_key)

    rows = [{key(i): json.loads(i.value_json) for i in r.history.item} for r in records if r.HasField("history")]
    values = {"d/loss", "d/gradient_penalty", "g/loss", "grad/d", "grad/input/real", "time/images_seen"}
    for name in values:
        assert [row["trainer/global_step"] for row in rows if name in row] == [1, 2, 3, 4], name
    grids = [row for row in rows if any(name.startswith("samples/grid") for name in row)]
    assert [row["trainer/global_step"] for row in grids] == [0, 2, 4]
    pictures = list(path.parent.glob("files/media/images/samples/grid_*.png"))
    assert len(pictures) == 3

    config: dict[str, Any] = {}
    for record in records:
        for part in (record.config, record.run.config):
            config |= {key(item): json.loads(item.value_json) for item in part.update}
    assert config["git_commit"] == git_commit()
    assert config["technique"] == "WGANGP"
    assert config["d_steps"] == 2
    assert config["gp_weight"] == 10.0 and config["regularizer_weights"] == {}  # the injected ones
    axes = {m.glob_name or m.name: m.step_metric for m in (r.metric for r in records if r.HasField("metric"))}
    for group in ("d", "g", "grad", "metrics", "samples", "time"):
        assert axes[f"{group}/*"] == "trainer/global_step"


def test_git_commit_is_told_with_its_changes(tmp_path: Path) -> None:
    import subprocess

    assert git_commit(tmp_path) is None

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        run = subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "+"
