"""Directions of a frozen generator: what A is held to, who learns, the law of the shifts, and what is found."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from common import QUIET, make, make_images
from PIL import Image
from torch import Tensor, nn

from lightning_gans import GAN
from lightning_gans.callbacks.direction_charts import DirectionCharts
from lightning_gans.cli import main
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.diagnostics import latent_directions
from lightning_gans.diagnostics.direction_measures import (
    attribute_correlations,
    match_directions,
    name_directions,
    sign_accuracy,
)
from lightning_gans.diagnostics.latent_directions import LatentDirections, raised
from lightning_gans.metrics import stroke_attributes
from lightning_gans.networks import DCGANGenerator, Reconstructor, ToyGenerator
from lightning_gans.networks.reconstructors import Body
from lightning_gans.wrappers import spectral_norm

KINDS = ("orthonormal", "unit", "free")


class Linear(nn.Module):
    """W z, where W has orthonormal rows: the first ``rank`` of a random rotation."""

    def __init__(self, rank: int = 4, latent_dim: int = 4, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.w = nn.Parameter(nn.init.orthogonal_(torch.empty(latent_dim, latent_dim, dtype=dtype))[:rank].clone())

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.w.T


class Coordinates(nn.Module):
    """A reconstructor that sees how much each coordinate has changed, and no sums of them: |x2 - x1|."""

    def __init__(self, d: int, k: int) -> None:
        super().__init__()
        self.which, self.how_far = nn.Linear(d, k), nn.Linear(d, 1)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        change = second - first
        return self.which(change.abs()), self.how_far(change).squeeze(1)


def trainer(**options: Any) -> pl.Trainer:
    return pl.Trainer(**(QUIET | {"num_sanity_val_steps": 0} | options))


def fitted(module: LatentDirections, steps: int, **options: Any) -> dict[str, float]:
    runner = trainer(max_steps=steps, **options)
    runner.fit(module)
    return dict(runner.validate(module, verbose=False)[0])


class EveryStep(pl.Callback):
    """Keeps A after each step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.seen.append(pl_module.matrix.detach().clone())


# ---------------------------------------------------------------------------------------------- the matrix
@pytest.mark.parametrize("init", ["random", "axes"])
@pytest.mark.parametrize("k", [3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_columns_are_held_to(kind: Any, k: int, init: Any) -> None:
    """After every step, to rounding in float64; they all begin with unit length."""
    module = LatentDirections(Linear(dtype=torch.float64), k, kind=kind, init=init, lr=0.05, batch_size=8)
    watch = EveryStep()
    start = module.matrix.detach().clone()
    trainer(max_steps=5, callbacks=[watch]).fit(module)
    assert len(watch.seen) == 5 and not torch.equal(start, watch.seen[0])
    if init == "axes":
        assert torch.allclose(start, torch.eye(4, k, dtype=torch.float64), atol=1e-14)
    for a in [start, *watch.seen]:
        gram = a.T @ a
        assert a.shape == (4, k)
        if kind == "orthonormal" or (a is start and init == "axes"):
            assert (gram - torch.eye(k)).abs().max() < 1e-12
        elif kind == "unit" or a is start:
            assert (gram.diagonal() - 1).abs().max() < 1e-12
            assert (gram - torch.eye(k)).abs().max() > 1e-3 or a is watch.seen[0]
        else:
            assert (gram.diagonal() - 1).abs().max() > 1e-3


def test_more_directions_than_dimensions() -> None:
    assert LatentDirections(Linear(), 9, kind="unit").matrix.shape == (4, 9)


# ---------------------------------------------------------------------------------------------- who learns
def conditional() -> nn.Module:
    return DCGANGenerator(shape=(1, 8, 8), latent_dim=3, width=4, num_classes=3)


def generators() -> dict[str, nn.Module]:
    return {"toy": make("gan"), "images": make_images("dcgan"), "conditional": conditional(),
            "spectral": spectral_norm(ToyGenerator(width=8, depth=1)), "linear": Linear()}  # fmt: skip


@pytest.mark.parametrize("name", list(generators()))
def test_the_generator_is_left_alone(name: str) -> None:
    """To the bit, buffers too: what was given, its modes, and the copy that is used."""
    module = generators()[name].train()
    directions = LatentDirections(module, 2, lr=0.1, batch_size=8)
    used = directions.generator
    before = [copy.deepcopy(net.state_dict()) for net in (module, used)]
    trainer(max_steps=3).fit(directions)
    for net, was in zip((module, used), before):
        assert all(torch.equal(value, was[key]) for key, value in net.state_dict().items())
    assert module.training and not any(m.training for m in used.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert not set(map(id, used.parameters())) & set(map(id, directions.parameters()))


def test_gradients_reach_a_and_the_reconstructor_only() -> None:
    """By A through the second sample: the first one has no graph."""
    module = LatentDirections(make("gan"), 3, kind="free")
    pairs = module.pairs(16, torch.Generator().manual_seed(0))
    assert not pairs.first.requires_grad and pairs.second.requires_grad
    logits, shift = module.reconstructor(pairs.first, pairs.second)
    (nn.functional.cross_entropy(logits, pairs.direction) + shift.abs().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert all(p.grad is None for p in module.generator.parameters())


def test_the_averaged_generator_is_taken() -> None:
    gan = make("gan")
    with torch.no_grad():
        gan.start_ema()
        for p in gan.ema.parameters():  # type: ignore[union-attr]
            p.add_(1.0)
    assert all(torch.equal(a, b) for a, b in zip(LatentDirections(gan).generator.parameters(), gan.ema.parameters()))  # type: ignore[union-attr]


def test_a_pair_has_one_class() -> None:
    """The second sample without its shift is the first, for a conditional generator too."""
    module = LatentDirections(conditional(), 2)
    source = torch.Generator().manual_seed(0)
    z, labels = module.noise(64, source)
    assert labels is not None and labels.unique().tolist() == [0, 1, 2]
    pairs = module.pairs(64, torch.Generator().manual_seed(0))
    again = module(z, pairs.direction, pairs.shift, labels)
    assert torch.equal(again, pairs.second) and torch.equal(
        pairs.first, module(z, pairs.direction, 0 * z[:, 0], labels)
    )


# ---------------------------------------------------------------------------------------------- the shifts
def test_small_shifts_are_raised() -> None:
    shift = torch.tensor([-6.0, -0.5, -0.2, -1e-9, 0.0, 1e-9, 0.49, 0.51, 6.0])
    assert raised(shift, 0.5).tolist() == pytest.approx([-6, -0.5, -0.5, -0.5, 0, 0.5, 0.5, 0.51, 6])


def test_the_law_of_the_shifts() -> None:
    """Uniform in [-6, 6] but for the twelfth that is raised to 1/2: E |eps| = 3 + 1/48; directions are uniform too."""
    module = LatentDirections(Linear(dtype=torch.float64), 3)
    pairs = module.pairs(200_000, torch.Generator().manual_seed(0))
    size = pairs.shift.abs()
    assert size.min() >= 0.5 and 5.99 < size.max() <= 6
    assert float((size == 0.5).double().mean()) == pytest.approx(1 / 12, abs=0.003)
    assert float(size.mean()) == pytest.approx(3 + 1 / 48, abs=0.015)
    assert float((pairs.shift > 0).double().mean()) == pytest.approx(0.5, abs=0.004)
    assert float(((size > 2) & (size < 3)).double().mean()) == pytest.approx(1 / 6, abs=0.004)
    assert torch.bincount(pairs.direction).tolist() == pytest.approx([66_667] * 3, abs=700)
    true = (pairs.second - pairs.first) @ module.generator.w  # W^T W = 1
    assert torch.allclose(true, pairs.shift[:, None] * module.matrix.T[pairs.direction], atol=1e-12)


def test_the_loss() -> None:
    """A reconstructor that knows nothing pays ln K and a quarter of E |eps|."""

    class Nothing(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            return 0 * second.sum(1, keepdim=True).expand(-1, 4), 0 * second.sum(1)

    module = LatentDirections(Linear(dtype=torch.float64), reconstructor=Nothing(), batch_size=20_000)
    runner = trainer(max_steps=1)
    runner.fit(module)
    seen = {name: float(value) for name, value in runner.logged_metrics.items()}
    assert seen["train/cross_entropy"] == pytest.approx(math.log(4), abs=1e-9)
    assert seen["train/shift_error"] == pytest.approx(3.0208, abs=0.05)
    assert seen["train/loss"] == pytest.approx(math.log(4) + 0.25 * seen["train/shift_error"], abs=1e-6)
    assert 0.2 < seen["train/accuracy"] < 0.3


# ---------------------------------------------------------------------------------------------- what is found
def test_axes_are_recovered() -> None:
    """Orthonormal directions of W z, read by coordinate, are the rows of W; in 200 steps from a random start."""
    torch.manual_seed(1)
    generator = Linear()
    module = LatentDirections(generator, reconstructor=Coordinates(4, 4), lr=0.03, batch_size=128)
    assert match_directions(module.matrix, generator.w.T).cosine.min() < 0.8
    seen = fitted(module, 200)
    assert match_directions(module.matrix, generator.w.T).cosine.min() > 0.98
    assert seen["directions/rca"] > 0.97 and seen["directions/shift_error"] < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_does_not_prove_that_axes_are_found(kind: Any) -> None:
    """The MLP of the default tells any basis of W z: accuracy 1, and directions that are not the rows of W."""
    torch.manual_seed(1)
    generator = Linear()
    module = LatentDirections(generator, kind=kind, lr=3e-3, batch_size=128)
    before = module.matrix.detach().clone()
    seen = fitted(module, 300)
    assert seen["directions/rca"] > 0.97 and seen["directions/shift_error"] < 0.4
    assert match_directions(module.matrix, generator.w.T).cosine.min() < 0.9
    assert (module.matrix - before).abs().max() > 0.01


def test_doubled_directions_cannot_be_told() -> None:
    """With every column twice, accuracy stays at one half of what it is without."""
    torch.manual_seed(1)
    module = LatentDirections(Linear(), 8, kind="free", reconstructor=Coordinates(4, 8), lr=0.03, batch_size=128)
    with torch.no_grad():
        module.directions.weight.copy_(module.generator.w.T.repeat(1, 2))  # type: ignore[operator, union-attr]
    module.directions.weight.requires_grad_(False)
    assert fitted(module, 100)["directions/rca"] == pytest.approx(0.5, abs=0.05)


def test_matching() -> None:
    """A permutation with signs and lengths is undone; what is left over stays out."""
    torch.manual_seed(0)
    true = nn.init.orthogonal_(torch.empty(5, 5, dtype=torch.float64))
    order, scale = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2.0, -1.0, 0.5, -3.0, 1.0], dtype=torch.float64)
    found = true[:, order] * scale
    match = match_directions(found, true)
    assert match.true.tolist() == [0, 1, 2, 3, 4] and order[match.found].tolist() == [0, 1, 2, 3, 4]
    assert torch.allclose(match.cosine, torch.ones(5, dtype=torch.float64))
    fewer = match_directions(found[:, :2], true)
    assert fewer.true.tolist() == [0, 3] and fewer.found.tolist() == [1, 0]
    # the best for both together, not the best one first: 0.8 + 0.6 against 1 + 0
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    assert match_directions(a, b).cosine.tolist() == pytest.approx([1.0, 0.6])
    turned = torch.tensor([[math.cos(0.3)], [math.sin(0.3)]])
    assert float(match_directions(turned, torch.eye(2)).cosine) == pytest.approx(math.cos(0.3))


# ---------------------------------------------------------------------------------------------- measures
class Bar(nn.Module):
    """8 x 8 images with one bright column, softly at 3.5 + z_0; z_1 changes nothing, z_2 the brightness."""

    latent_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("columns", torch.arange(8.0))

    def forward(self, z: Tensor) -> Tensor:
        bar = (-((self.columns - 3.5 - z[:, :1]) ** 2) / 2).exp() * torch.sigmoid(z[:, 2:])
        return 2 * bar[:, None, None].expand(-1, 1, 8, -1) - 1


def test_signs_are_told_where_something_changes() -> None:
    module = LatentDirections(Bar(), init="axes", max_shift=3.0)
    found = sign_accuracy(module, steps=25, num_test=256)
    assert found[0] > 0.95 and found[2] > 0.9 and float(found[1]) == pytest.approx(0.5, abs=0.1)
    assert all(p.grad is None for p in module.parameters())


def test_measuring_draws_from_no_global_generator() -> None:
    module = LatentDirections(Bar(), init="axes")
    before = torch.get_rng_state()
    options: dict[str, Any] = {
        "steps": 3,
        "num_test": 64,
        "make_classifier": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)),
    }
    found = sign_accuracy(module, **options)
    attribute_correlations(module, stroke_attributes, n=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(sign_accuracy(module, [2, 0], **options), found[[2, 0]])


def test_signs_of_points() -> None:
    """W z shifted by 6 along an axis: a threshold is right but for the normal's tail, Phi(6)."""
    module = LatentDirections(Linear(rank=1), 1, init="axes", kind="free")
    with torch.no_grad():
        module.directions.weight.copy_(module.generator.w.T)  # type: ignore[operator, union-attr]
    assert float(sign_accuracy(module)) > 0.99
    weak = float(sign_accuracy(module, magnitude=0.5, steps=100, num_test=4000))
    assert weak == pytest.approx(0.5 * (1 + math.erf(0.5 / math.sqrt(2))), abs=0.03)


def test_correlations_with_attributes() -> None:
    """Each attribute goes with its own axis; one that is the shift itself with 1, one against it with -1."""
    module = LatentDirections(Bar(), init="axes", max_shift=1.5)
    found = attribute_correlations(module, stroke_attributes)
    assert found["x"][0] > 0.95 and found["x"][1] == 0 and abs(float(found["x"][2])) < 0.3
    assert found["ink"][2] > 0.95 and found["ink"][1] == 0 and abs(float(found["ink"][0])) < 0.3
    linear = LatentDirections(Linear(dtype=torch.float64), init="axes")

    def along(x: Tensor) -> Mapping[str, Tensor]:
        z = x @ linear.generator.w  # type: ignore[operator]
        return {"first": z[:, 0], "third": -z[:, 2]}

    exact = attribute_correlations(linear, along, n=50)
    assert torch.allclose(exact["first"], torch.tensor([1.0, 0, 0, 0]).double(), atol=1e-6)
    assert torch.allclose(exact["third"], torch.tensor([0, 0, -1.0, 0]).double(), atol=1e-6)


def test_a_name_is_for_one_attribute_alone() -> None:
    correlations = {"a": torch.tensor([0.9, 0.9, -0.71, 0.6]), "b": torch.tensor([-0.6, 0.2, 0.1, 0.0]),
                    "c": torch.tensor([0.0, 0.49, 0.5, -0.8])}  # fmt: skip
    assert name_directions(correlations) == [None, "a", "a", None]
    assert name_directions(correlations, 0.55, 0.65) == ["a", "a", "a", "c"]


def test_attributes_of_strokes() -> None:
    """Bars whose attributes are known; the same whatever the range and the number of channels."""
    image = torch.zeros(4, 1, 20, 20, dtype=torch.float64)
    image[0, :, :, 5:8] = 1  # upright, three wide, at 6
    image[1, :, 4:6] = 0.5  # lying, two high, at 4.5
    for row in range(20):
        image[2, :, row, 19 - row] = 1  # /
    found = stroke_attributes(image, (0.0, 1.0))
    assert found["ink"].tolist() == pytest.approx([3 / 20, 1 / 20, 1 / 20, 0])
    assert found["thickness"][:2].tolist() == pytest.approx([3, 2])
    assert found["slant"].tolist() == pytest.approx([0, 0, 1, 0], abs=1e-12)
    assert found["x"].tolist() == pytest.approx([6, 9.5, 9.5, 0]) and found["y"].tolist() == pytest.approx(
        [9.5, 4.5, 9.5, 0]
    )
    upright = 0.5 * math.log((2 / 3) / ((400 - 1) / 12))
    assert found["aspect"].tolist() == pytest.approx([upright, 0.5 * math.log(33.25 / 0.25), 0, 0])
    other = stroke_attributes((2 * image - 1).expand(-1, 3, -1, -1))
    assert all(torch.allclose(found[name], other[name]) for name in found)


# ---------------------------------------------------------------------------------------------- reconstructors
@pytest.mark.parametrize("shape, body", [((2,), None), ((1,), "mlp"), ((1, 8, 8), None), ((3, 16, 16), "resnet"),
                                         ((1, 28, 28), "lenet"), ((1, 8, 8), "mlp"), ((3, 2, 2), None)])  # fmt: skip
def test_reconstructors(shape: tuple[int, ...], body: Body | None) -> None:
    """Shapes, every parameter in use, and both samples are looked at."""
    network = Reconstructor(shape, 5, body)
    first, second = torch.randn(2, 6, *shape).requires_grad_().unbind(0)
    logits, shift = network(first, second)
    assert logits.shape == (6, 5) and shift.shape == (6,)
    gradients = torch.autograd.grad(
        logits.square().sum() + shift.square().sum(), [first, second, *network.parameters()]
    )
    assert all(g.abs().sum() > 0 for g in gradients)


def test_a_reconstructors_frozen_part_stays_in_evaluation_mode() -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            h = self.body(torch.cat([x, y], 1))
            return h[:, :2], h[:, 2]

    part = LatentDirections(ToyGenerator(latent_dim=2, width=8), reconstructor=Body(), latent_dim=2).reconstructor
    assert part.training and not any(m.training for m in part.body.modules())


def test_a_reconstructor_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="body must be one of lenet, resnet, mlp, got 'vgg'"):
        Reconstructor((1, 8, 8), 3, "vgg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Reconstructor takes an input of shape \(N, 2\), got \(4, 3\)"):
        Reconstructor((2,), 3)(torch.zeros(4, 2), torch.zeros(4, 3))


# ---------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_brings_the_directions_back(tmp_path: Path) -> None:
    """A and R, with weights_only; the generator is given again, and another one is refused."""
    gan = make("gan")
    module = LatentDirections(gan, 2, kind="unit", batch_size=4, lr=0.1)
    runner = trainer(max_steps=3)
    runner.fit(module)
    runner.save_checkpoint(tmp_path / "a.ckpt")
    kept = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert not any("generator" in key for key in kept["state_dict"])
    again = LatentDirections.load_from_checkpoint(tmp_path / "a.ckpt", module=gan)
    assert torch.equal(again.matrix, module.matrix) and (again.kind, again.num_directions) == ("unit", 2)
    values = again.reconstructor.state_dict()
    assert all(torch.equal(values[key], value) for key, value in module.reconstructor.state_dict().items())
    with torch.no_grad():
        next(gan.generator.parameters()).add_(0.1)
    with pytest.raises(ValueError, match=r"module must be the generator [0-9a-f]{16} that the directions were found"):
        LatentDirections.load_from_checkpoint(tmp_path / "a.ckpt", module=gan)


@pytest.mark.parametrize("stop", [3, 6])
def test_a_resumed_training_goes_on_as_it_would_have(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, within an epoch and at its end."""
    monkeypatch.setattr(latent_directions, "EPOCH", 6)
    monkeypatch.setattr(latent_directions, "VALIDATION", 1)

    def fresh() -> LatentDirections:
        torch.manual_seed(1)
        return LatentDirections(make("gan"), batch_size=4, lr=0.01)

    whole, first, second = fresh(), fresh(), fresh()
    trainer(max_steps=10).fit(whole)
    runner = trainer(max_steps=stop)
    runner.fit(first)
    runner.save_checkpoint(tmp_path / "a.ckpt")
    torch.manual_seed(5)
    runner = trainer(max_steps=10)
    runner.fit(second, ckpt_path=tmp_path / "a.ckpt")
    assert runner.global_step == 10 and not torch.equal(first.matrix, whole.matrix)
    assert torch.equal(second.matrix, whole.matrix)


def test_noise_is_of_the_seed_alone() -> None:
    """Two seeds differ, the same one does not; no step's pairs are those of validation."""
    module = LatentDirections(Linear())
    seen = [module._terms(place)["cross_entropy"].item() for place in (0, 1, 2, 0)]
    assert seen[0] == seen[3] and len(set(seen)) == 3
    module.seed = 1
    assert module._terms(0)["cross_entropy"].item() not in seen


def test_accuracy_is_of_fresh_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation sees R in evaluation mode, the same pairs each time, and none of those that it was trained on."""
    monkeypatch.setattr(latent_directions, "EPOCH", 3)
    monkeypatch.setattr(latent_directions, "VALIDATION", 2)
    module = LatentDirections(Linear(), batch_size=4)
    seen: list[tuple[bool, float]] = []
    pairs = module.pairs

    def watched(n: int, source: torch.Generator) -> latent_directions.Pairs:
        found = pairs(n, source)
        seen.append((module.reconstructor.training, float(found.first[0, 0])))
        return found

    monkeypatch.setattr(module, "pairs", watched)
    trainer(max_steps=6).fit(module)
    trained = [value for training, value in seen if training]
    fresh = [value for training, value in seen if not training]
    assert len(set(trained)) == 6 and len(fresh) == 4 and fresh[:2] == fresh[2:] and not set(trained) & set(fresh)


# ---------------------------------------------------------------------------------------------- pictures
class Heights(nn.Module):
    """Numbers, (N, 1)."""

    latent_dim = 2

    def forward(self, z: Tensor) -> Tensor:
        return z.sum(1, keepdim=True)


def test_charts_are_written_and_logged(tmp_path: Path) -> None:
    """Whole files, an overview and one each for the first ones; rows and columns are what they say."""
    logger = loggers.TensorBoardLogger(str(tmp_path))
    shown: list[str] = []
    logger.experiment.add_image = lambda key, *args, **kwargs: shown.append(key)
    module = LatentDirections(make_images("dcgan"), 3, batch_size=4)
    charts = DirectionCharts(most=2, dirpath=tmp_path / "directions")
    trainer(max_steps=1, callbacks=[charts], logger=logger).fit(module)
    names = sorted(path.name for path in (tmp_path / "directions").iterdir())
    assert names == ["all.png", "direction_000.png", "direction_001.png"]
    assert shown == ["directions/all", "directions/direction_000", "directions/direction_001"]
    with Image.open(tmp_path / "directions" / "all.png") as image:
        assert image.size == (9 * 68 + 4, 3 * 68 + 4)
    assert module.chart(1, rows=2, columns=3).size == (3 * 68 + 4, 2 * 68 + 4)


def test_the_middle_of_a_chart_is_unshifted() -> None:
    """All rows of the overview have the same sample there, and differ elsewhere."""
    module = LatentDirections(Bar(), kind="unit", init="axes")
    chart = torch.tensor(list(module.chart(columns=3).convert("L").tobytes()), dtype=torch.uint8)
    cells = chart.reshape(3 * 68 + 4, 3 * 68 + 4)[4:, 4:].reshape(3, 68, 3, 68)[:, :64, :, :64]
    left, middle, right = cells.unbind(2)
    assert torch.equal(middle[0], middle[1]) and torch.equal(middle[0], middle[2])
    assert torch.equal(left[1], right[1]) and not torch.equal(left[0], right[0])


@pytest.mark.parametrize("generator", [Heights(), ToyGenerator(width=4, depth=1)])
def test_charts_of_points(generator: nn.Module) -> None:
    module = LatentDirections(generator)
    one, all_of_them = module.chart(0), module.chart()
    assert all_of_them.width > one.width and len(set(one.convert("L").getdata())) > 10


# ---------------------------------------------------------------------------------------------- the command line
def test_by_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the run's, a second one beside it; the checkpoint goes with the run's generator."""
    monkeypatch.setattr(latent_directions, "VALIDATION", 2)
    run = Path("runs/a")
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=False", "--trainer.max_steps=1",
             "--grid.every_n_steps=null"]  # fmt: skip
    net = ["--model.generator=ToyGenerator", "--model.generator.width=8", "--model.discriminator=ToyDiscriminator"]
    main(["fit", "--model=GAN", "--model.latent_dim=2", *net, "--data=Ring", "--name=a", *quiet])
    for name in ("directions", "directions-2"):
        capsys.readouterr()
        main(["directions", f"--ckpt_path={run}", "--max_steps=2", "--kind=unit", "--num_directions=3"])
        assert re.search(rf"RCA +0\.\d+ \(chance 0.333\)\n.*\nCharts +runs/a/{name}$", capsys.readouterr().out.strip())
        files = {path.name for path in (run / name).iterdir()}
        charts = {"all.png", *(f"direction_{k:03d}.png" for k in range(3))}
        assert files == charts | {"last.ckpt", "metrics.csv"}
    gan = GAN.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    again = LatentDirections.load_from_checkpoint(run / "directions" / "last.ckpt", module=gan)
    assert again.matrix.shape == (2, 3) and again.place == 2
    with pytest.raises(SystemExit):
        main(["directions", "--help"])
    assert "Updates, 20000 if not given." in capsys.readouterr().out
    for wrong, sentence in (
        ("--num_directions=0", "error: num_directions must be an integer >= 1, got 0."),
        ("--ckpt_path=runs/b", "error: There is no checkpoint at runs/b."),
        ("--kind=ortho", "error: kind must be one of orthonormal, unit, free, got 'ortho'."),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["directions", f"--ckpt_path={run}", wrong])
        assert str(caught.value) == sentence
    assert not (run / "directions-3").exists()


# ---------------------------------------------------------------------------------------------- bad input
class Rounded(nn.Module):
    latent_dim = 2

    def forward(self, z: Tensor) -> Tensor:
        return z.detach().round()


@pytest.mark.parametrize(
    "make_module, options, sentence",
    [
        (Linear, {"num_directions": 5}, "num_directions must be at most latent_dim = 4 "),
        (Linear, {"num_directions": 5, "kind": "unit", "init": "axes"}, "num_directions must be at most"),
        (Linear, {"num_directions": 0}, "num_directions must be an integer >= 1, got 0"),
        (Linear, {"latent_dim": 0}, "latent_dim must be an integer >= 1, got 0"),
        (Linear, {"latent_dim": 3}, r"module failed on noise of shape \(2, 3\)"),
        (Linear, {"kind": "ortho"}, "kind must be one of orthonormal, unit, free, got 'ortho'"),
        (Linear, {"init": "zero"}, "init must be one of random, axes, got 'zero'"),
        (Linear, {"max_shift": 0.0}, "max_shift must be a finite number > 0, got 0.0"),
        (Linear, {"min_shift": 6.0}, r"min_shift must be in \[0, max_shift\) = \[0, 6\), got 6.0"),
        (Linear, {"shift_weight": -1.0}, "shift_weight must be a finite number >= 0, got -1.0"),
        (Linear, {"shift_weight": math.nan}, "shift_weight must be a finite number >= 0, got nan"),
        (Linear, {"lr": 0.0}, "lr must be a finite number > 0, got 0.0"),
        (Linear, {"seed": -1}, "seed must be an integer >= 0, got -1"),
        (Linear, {"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        (lambda: nn.Linear(2, 2), {}, "latent_dim must be given for a Linear, which does not tell it, got None"),
        (lambda: "run.ckpt", {}, "module must be a GANModule or a generator, got a str"),
        (Rounded, {}, "module must have a gradient by its noise"),
        (Linear, {"reconstructor": Coordinates(4, 3)}, r"reconstructor must return logits \(N, 4\) and"),
    ],
)  # fmt: skip
def test_bad_settings(make_module: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LatentDirections(make_module(), **options)


def test_bad_calls(tmp_path: Path) -> None:
    module = LatentDirections(Linear(), 2)
    with pytest.raises(ValueError, match=r"direction must be an integer in 0..1, got 2"):
        module.chart(2)
    with pytest.raises(ValueError, match=r"chart needs images \(C, H, W\), or points in 1-D or 2-D, got \(4,\)"):
        module.chart()
    with pytest.raises(ValueError, match="magnitude must be a finite number > 0, got 0"):
        sign_accuracy(module, magnitude=0.0)
    with pytest.raises(ValueError, match=r"found and true must be matrices .* got shapes \(2, 2\) and \(3, 3\)"):
        match_directions(torch.eye(2), torch.eye(3))
    with pytest.raises(ValueError, match="correlations must be of two attributes or more, got 1"):
        name_directions({"a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"at_least must be in \(0, 1\), got 1.5"):
        name_directions({"a": torch.zeros(2), "b": torch.zeros(2)}, 1.5)
    with pytest.raises(ValueError, match="found must have columns that are not zero"):
        match_directions(torch.zeros(2, 2), torch.eye(2))
    with pytest.raises(ValueError, match=r"images must have shape \(N, C, H, W\), got \(3, 2\)"):
        stroke_attributes(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="DirectionCharts needs LatentDirections, got a GAN"):
        trainer(max_steps=1, callbacks=[DirectionCharts()]).fit(
            make("gan"), torch.utils.data.DataLoader(torch.zeros(8, 2))
        )  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"DirectionCharts: dirpath .* cannot be used"):
        trainer(max_steps=1, callbacks=[DirectionCharts(dirpath=tmp_path / "file")]).fit(module)
