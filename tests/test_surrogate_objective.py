"""The generator's objectives along the line of a cycle: closed forms, and that looking leaves no trace."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import Record, equal, make, plain, state, trainer
from PIL import Image
from torch import Tensor, nn

from lightning_gans import PRCGAN
from lightning_gans.callbacks import SurrogateObjective
from lightning_gans.callbacks.surrogate_objective import line_picture, objectives
from lightning_gans.compat.lightning import pl
from lightning_gans.engine import distributed
from lightning_gans.engine.batch import Batch, Terms


class Shift(nn.Module):
    """z + theta, (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.theta


class Linear(nn.Module):
    """Scores a x_0 + b."""

    def __init__(self, a: float, b: float = 0.0) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), b

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x[:, 0] + self.b


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def linear(slope: float, *, level: float = 1.0, g_steps: int = 2, **options: Any) -> PRCGAN:
    """f = 3 x_0 + level and C's logits slope x_0, both at rest; G shifts."""
    still: dict[str, Any] = {"lr_d": 0.0, "lr_c": 0.0, "gp_weight": 0.0, "ct_weight": 0.0, "reweight": False}
    module = PRCGAN(
        Shift(), Linear(3.0, level), 2, classifier=Linear(slope), d_steps=1, g_steps=g_steps,
        optimizer_g=sgd, **(still | options),
    )  # fmt: skip
    return module.double()


def look(module: PRCGAN, steps: int, folder: Path, logger: Any = False, **options: Any) -> SurrogateObjective:
    callback = SurrogateObjective(dirpath=str(folder), **({"every_n_steps": 1} | options))
    trainer(max_steps=steps, callbacks=[callback], logger=logger).fit(module, plain(batch_size=16, dtype=torch.float64))
    return callback


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize(
    ("slope", "clip", "surrogate"),
    [(-0.75, 0.4, "code"), (-0.75, 0.05, "code"), (-0.75, 1e6, "code"), (0.75, 0.4, "code"), (0.75, 0.1, "paper")],
)
@pytest.mark.parametrize("g_steps", [1, 2])
def test_linear_game(slope: float, clip: float, surrogate: str, g_steps: int, tmp_path: Path) -> None:
    """r = exp(-slope s d) for the shift d of the cycle; the surrogate is the mean of min(r, 1 + eps) f, or PPO's."""
    module = linear(slope, ratio_clip=clip, surrogate=surrogate, g_steps=g_steps)
    [(step, s, conventional, clipped)] = look(module, g_steps, tmp_path, points=9, reach=4.0).history
    assert step == g_steps and s == [0.5 * i for i in range(9)]
    d, z = float(module.generator.theta[0].detach()), module.last_batch.z[:, 0]
    assert abs(d) > 0.05
    for at, plain_value, value in zip(s, conventional, clipped, strict=True):
        f, r = 3 * (z + at * d) + 1, torch.tensor(math.exp(-slope * at * d), dtype=torch.float64)
        held = r.clamp(max=1 + clip) * f
        if surrogate == "paper":
            held = torch.minimum(r * f, r.clamp(1 - clip, 1 + clip) * f)
        assert plain_value == pytest.approx(float(f.mean()), abs=1e-12)
        assert value == pytest.approx(float(held.mean()), abs=1e-12)


def test_without_the_clip_a_rising_ratio_makes_the_surrogate_rise_for_ever(tmp_path: Path) -> None:
    """f rises and so does r: unclipped, the gain is convex in s; clipped, it is a straight line from the bound on."""
    gains = {}
    for clip in (0.2, 1e6):
        _, _, _, surrogate = look(linear(-0.75, level=4.0, ratio_clip=clip), 2, tmp_path).history[0]
        gains[clip] = torch.tensor(surrogate).diff()
        assert (gains[clip] > 0).all()
    assert (gains[1e6].diff() > 0).all()
    assert gains[0.2][-8:].diff().abs().max() < 1e-4 * gains[0.2][-1] and gains[1e6][-1] > 3 * gains[0.2][-1]


def test_the_peak_of_a_falling_ratio(tmp_path: Path) -> None:
    """f e^{-a s d} is highest where a (mean f) = 3; the conventional objective has no peak but the last point."""
    module, record = linear(0.6, level=2.0), Record("surrogate/")
    callback = look(module, 2, tmp_path, record, points=401, reach=8.0)
    d, z = float(module.generator.theta[0].detach()), float(module.last_batch.z[:, 0].mean())
    peak = (1 / 0.6 - 2 / 3 - z) / d
    assert 1 < peak < 7
    assert record.rows == {2: {"surrogate/peak": pytest.approx(peak, abs=0.011), "surrogate/conventional_peak": 8.0}}
    _, _, conventional, surrogate = callback.history[0]
    assert surrogate[-1] < max(surrogate) and conventional[-1] > conventional[0]


def test_another_loss(tmp_path: Path) -> None:
    """The conventional objective of the non-saturating loss is E log s(f)."""
    module = linear(-0.75, loss="non_saturating")
    _, s, conventional, _ = look(module, 2, tmp_path, points=3).history[0]
    x = module.last_batch.z[:, 0]
    for at, value in zip(s, conventional, strict=True):
        f = 3 * (x + at * float(module.generator.theta[0].detach())) + 1
        assert value == pytest.approx(float(nn.functional.logsigmoid(f).mean()), abs=1e-12)


class Conditional(Shift):
    """z + theta + label."""

    num_classes = 3

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return z + self.theta + labels[:, None]


def test_labels_reach_the_generator(tmp_path: Path) -> None:
    module = linear(-0.75)
    module.generator, module.conditional = Conditional().double(), True
    data = torch.utils.data.TensorDataset(torch.rand(64, 2).double(), torch.arange(64) % 3)
    callback = SurrogateObjective(1, points=2, dirpath=str(tmp_path))
    trainer(max_steps=2, callbacks=[callback]).fit(module, torch.utils.data.DataLoader(data, 16))
    assert module.last_batch.labels.tolist() == [i % 3 for i in range(16)]
    f = 3 * (module.last_batch.z[:, 0] + module.last_batch.labels) + 1
    assert callback.history[0][2][0] == pytest.approx(float(f.mean()), abs=1e-12)


# ---------------------------------------------------------------------- which cycles
@pytest.mark.parametrize(
    ("every", "g_steps", "steps", "looks"),
    [(1, 1, 2, [1, 2]), (4, 3, 14, [6, 9, 12]), (2, 3, 5, [3]), (100, 3, 6, [])],
)
def test_the_cycle_in_which_the_count_is_reached(
    every: int, g_steps: int, steps: int, looks: list[int], tmp_path: Path
) -> None:
    callback = look(linear(-0.75, g_steps=g_steps), steps, tmp_path, every_n_steps=every, points=2)
    assert [step for step, *_ in callback.history] == looks
    pictures = {path.name for path in (tmp_path / "surrogate").glob("*")}
    assert pictures == {f"step_{step:06d}.png" for step in looks} | ({"latest.png"} if looks else set())


def test_an_epoch_that_ends_inside_a_cycle(tmp_path: Path) -> None:
    """Loaders of 2 batches, cycles of 1 + 3: the parameters are those from before the first update."""
    module, seen = linear(-0.75, g_steps=3), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            seen.append((module.global_step, float(module.generator.theta[0].detach())))

    callback = SurrogateObjective(1, points=3, dirpath=str(tmp_path))
    loader = plain(32, 16, dtype=torch.float64)
    trainer(max_steps=6, callbacks=[callback, Watch()]).fit(module, loader)
    assert [step for step, *_ in callback.history] == [3, 6]
    rise = callback.history[1][2][2] - callback.history[1][2][0]
    moved = dict(seen)
    assert rise == pytest.approx(3 * 2 * (moved[6] - moved[3]), abs=1e-12)


# ---------------------------------------------------------------------- modes, and no trace
def mixed(dropout: float = 0.3, **options: Any) -> PRCGAN:
    """BatchNorm in G and C, spectral norm in D, dropout in all three."""
    torch.manual_seed(1)

    def net(inputs: int, outputs: int, norm: bool, *end: nn.Module) -> nn.Sequential:
        first = nn.Linear(inputs, 8)
        layers = [first, nn.BatchNorm1d(8)] if norm else [nn.utils.parametrizations.spectral_norm(first)]
        return nn.Sequential(*layers, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, outputs), *end)

    nets = [net(2, 1, norm, nn.Flatten(0)) for norm in (False, True)]
    settings: dict[str, Any] = {"gp_weight": 0.0, "ct_weight": 0.0, "d_steps": 2, "g_steps": 3, "lr_g": 1e-2}
    return PRCGAN(net(3, 2, True), nets[0], 3, classifier=nets[1], **(settings | options))


def test_the_ratio_is_one_at_the_start_of_the_line_while_the_classifier_rests(tmp_path: Path) -> None:
    """Only with the batch statistics by which the old logits were made; after the cycle's movement it is not."""
    callback = look_float(mixed(dropout=0.0, lr_c=0.0), 3, tmp_path)
    _, _, conventional, surrogate = callback.history[0]
    assert surrogate[0] == pytest.approx(conventional[0], abs=1e-6)
    assert abs(surrogate[-1] - conventional[-1]) > 1e-4
    moved = look_float(mixed(dropout=0.0, lr_c=0.05), 3, tmp_path)
    assert abs(moved.history[0][3][0] - moved.history[0][2][0]) > 1e-4


def look_float(module: PRCGAN, steps: int, folder: Path) -> SurrogateObjective:
    callback = SurrogateObjective(1, points=3, dirpath=str(folder))
    trainer(max_steps=steps, callbacks=[callback]).fit(module, plain(batch_size=16))
    return callback


def test_dropout_has_the_same_masks_at_each_point() -> None:
    """Where nothing has moved, the curves are flat, bit for bit."""
    module = mixed(dropout=0.5, lr_g=0.0)
    trainer(max_steps=1).fit(module, plain(batch_size=16))
    before = {name: p.detach().clone() for name, p in module.generator.named_parameters()}
    curves = objectives(module, module.last_batch, before, {"logits": torch.zeros(16)}, [0.0, 0.5, 1.0, 2.0])
    assert all(len(set(row.tolist())) == 1 for row in curves)


def outcome(module: PRCGAN) -> dict[str, Any]:
    return {
        "weights": state(module),
        "values": dict(sorted(module.values.items())),
        "kept": dict(module.kept),
        "flags": [m.training for m in module.modules()],
        "grads": [torch.zeros(()) if p.grad is None else p.grad for p in module.parameters()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "noise": module.run.noise.get_state(),
        "random": torch.get_rng_state(),
    }


@pytest.mark.parametrize("graphs", [False, True])  # on a CPU: the steps of a graph, run eagerly
def test_it_leaves_no_trace(graphs: bool, tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [SurrogateObjective(1, points=5, dirpath=str(tmp_path))]):
        module = mixed(cuda_graphs=graphs)
        next(m for m in module.classifier.modules() if isinstance(m, nn.Dropout)).eval()
        torch.manual_seed(5)
        trainer(max_steps=7, callbacks=callbacks).fit(module, plain(40, 8))
        ends.append(outcome(module))
    for name, value in ends[0].items():
        assert equal(value, ends[1][name]), name
    assert len(list(tmp_path.rglob("step_*.png"))) == 2


def test_it_leaves_no_trace_in_a_resumed_training(tmp_path: Path) -> None:
    """From inside a cycle, which is passed over, to the next."""
    whole, first, rest = mixed(), mixed(), mixed()
    torch.manual_seed(3)
    trainer(max_steps=9).fit(whole, plain(40, 4))
    torch.manual_seed(3)
    callbacks = [SurrogateObjective(1, points=3, dirpath=str(tmp_path)) for _ in range(2)]
    half = trainer(max_steps=5, callbacks=callbacks[:1])
    half.fit(first, plain(40, 4))
    half.save_checkpoint(tmp_path / "c.ckpt")
    torch.manual_seed(99)
    go_on = trainer(max_steps=9, callbacks=callbacks[1:])
    go_on.fit(rest, plain(40, 4), ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    assert [[step for step, *_ in callback.history] for callback in callbacks] == [[3], [9]]
    expected, found = outcome(whole), outcome(rest)
    for name in ("weights", "values", "kept", "noise", "random"):
        assert equal(expected[name], found[name]), name


class Drawing(PRCGAN):
    """Draws per sample in the generator's step."""

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        torch.rand(1, generator=batch.generator)
        return super().generator_terms(batch, fake)


def test_no_draw_is_taken_from_the_trainings_noise() -> None:
    module = mixed()
    module.__class__ = Drawing
    trainer(max_steps=1).fit(module, plain(batch_size=8))
    before, now = outcome(module), {name: p.detach() for name, p in module.generator.named_parameters()}
    objectives(module, module.last_batch, now, {"logits": torch.zeros(8)}, [0.0, 1.0])
    assert equal(before, outcome(module))


def test_an_error_while_looking_leaves_no_trace_either() -> None:
    module = mixed()
    trainer(max_steps=4).fit(module, plain(batch_size=8))
    before, found = outcome(module), dict(module.named_parameters())
    assert "logits" in module.kept
    shifted = {name: found[f"generator.{name}"].detach() for name, _ in module.generator.named_parameters()}
    with pytest.raises(RuntimeError):
        objectives(module, module.last_batch, shifted, {"logits": torch.zeros(3)}, [0.0])
    assert equal(before, outcome(module))


# ---------------------------------------------------------------------- pictures and ranks
def test_the_curves_are_averaged_over_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distributed, "average", lambda tensors: [t + 1000 for t in tensors])
    callback, module = SurrogateObjective(dirpath=str(tmp_path)), linear(-0.75)
    trainer(max_steps=1).fit(module, plain(batch_size=16, dtype=torch.float64))
    before = {"theta": torch.zeros(2, dtype=torch.float64)}
    curves = objectives(module, module.last_batch, before, dict(module.kept), [0.0])
    assert curves.shape == (2, 1) and (curves > 900).all()
    callback.history = [(2, [0.0, 1.0], [0.0, 1.0], [0.0, 1.0])]
    elsewhere = SimpleNamespace(is_global_zero=False, loggers=[], log_dir=str(tmp_path))
    callback.setup(elsewhere, module, "fit")
    callback.draw(elsewhere)
    assert list(tmp_path.rglob("*")) == []


def test_picture(tmp_path: Path) -> None:
    look(linear(-0.75), 2, tmp_path)
    with Image.open(tmp_path / "surrogate" / "latest.png") as image:
        assert image.size == (780, 494)
    rising, falling = [0.0, 1.0, 2.0], [0.0, 1.0, -1.0]
    pictures = [line_picture((5, [0.0, 1.0, 2.0], rising, other)).tobytes() for other in (rising, falling)]
    assert pictures[0] != pictures[1]
    line_picture((5, [0.0, 1.0, 2.0], [0.0, math.nan, math.inf], falling))


def test_a_diverged_network_has_no_peak(tmp_path: Path) -> None:
    record, callback = Record("surrogate/"), SurrogateObjective(dirpath=str(tmp_path))
    callback.history = [(2, [0.0, 1.0], [0.0, math.nan], [0.0, 1.0])]
    callback.draw(SimpleNamespace(is_global_zero=True, loggers=[record]))
    assert record.rows == {
        2: {"surrogate/peak": 1.0, "surrogate/conventional_peak": pytest.approx(math.nan, nan_ok=True)}
    }


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be an integer >= 1, got 0"),
        ({"points": 1}, "points must be an integer >= 2, got 1"),
        ({"points": 2.0}, "points must be an integer >= 2, got 2.0"),
        ({"reach": 0.0}, "reach must be a finite number > 0, got 0.0"),
        ({"reach": math.inf}, "reach must be a finite number > 0, got inf"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SurrogateObjective(**options)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: make("wgan_gp"), "SurrogateObjective needs .* that clips ratios .*, got WGANGP without it"),
        (
            lambda: make("prc_gan"),
            "SurrogateObjective needs .*, got PRCGAN with ratio_clip=None",
        ),
        (lambda: linear(1.0, center_scores=True), "center_scores must be False for SurrogateObjective, .* got True"),
    ],
)
def test_a_module_without_a_surrogate_is_refused_before_training(module: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        look(module(), 1, tmp_path)


def test_unwritable_folder_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"SurrogateObjective: dirpath .* is not a folder"):
        look(linear(-0.75), 1, tmp_path / "file" / "run")
