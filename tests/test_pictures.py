"""The film and the sheet of a run's pictures, and the picture of one-dimensional data."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from common import make, make_images, plain, trainer
from PIL import Image, PngImagePlugin
from torch import Tensor, nn

from lightning_gans import TECHNIQUES, PrimalDualGAN
from lightning_gans.callbacks import SampleGrid, sample_grid
from lightning_gans.datamodules import Gaussian1D
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.visualization import toy as toy_pictures
from lightning_gans.visualization.images import contact_sheet, evenly, save_film

ALONE = SimpleNamespace(is_global_zero=True, loggers=[])
FILES = {"animation.gif", "over_training.png"}


def colour(step: int) -> tuple[int, int, int]:
    return (step % 256, step // 256 % 256, 77)


def paint(folder: Path, steps: Any, size: tuple[int, int] = (12, 8)) -> SampleGrid:
    """A callback whose folder has a picture of one colour for each step."""
    folder.mkdir(exist_ok=True)
    for step in steps:
        Image.new("RGB", size, colour(step)).save(folder / f"step_{step:06d}.png")
    grid = SampleGrid()
    grid.folder = folder
    return grid


def film(folder: Path) -> tuple[list[tuple[int, ...]], list[int]]:
    """The first pixels and the durations of the frames."""
    pixels, durations = [], []
    with Image.open(folder / "animation.gif") as gif:
        for i in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(i)
            pixels.append(gif.convert("RGB").getpixel((0, 0)))
            durations.append(gif.info["duration"])
    return pixels, durations  # type: ignore[return-value]


# ---------------------------------------------------------------------- the film and the sheet
def test_evenly_spaced_from_the_first_to_the_last() -> None:
    paths = {step: Path(str(step)) for step in (9, 2, 5, 3, 4, 6, 7, 8, 1)}
    assert list(evenly(paths, 3)) == [1, 5, 9]
    assert list(evenly(paths, 4)) == [1, 4, 6, 9]  # 8/3 and 16/3, rounded
    assert list(evenly(paths, 9)) == list(evenly(paths, 100)) == list(range(1, 10))
    assert evenly(paths, 2) == {1: Path("1"), 9: Path("9")}


def test_the_film_loops_and_holds_its_last_frame(tmp_path: Path) -> None:
    paint(tmp_path, [0, 100, 300]).show_training(ALONE, 300)
    pixels, durations = film(tmp_path)
    assert pixels == [colour(0), colour(100), colour(300)]
    assert durations == [500, 500, 2000]
    with Image.open(tmp_path / "animation.gif") as gif:
        assert gif.size == (12, 8) and gif.info["loop"] == 0
    assert {p.name for p in tmp_path.iterdir()} == FILES | {f"step_{i:06d}.png" for i in (0, 100, 300)}


def test_each_frame_has_its_own_palette(tmp_path: Path) -> None:
    """Two frames of 200 colours each, none in common."""
    frames = [np.zeros((10, 20, 3), np.uint8) for _ in range(2)]
    frames[0][..., 0] = frames[1][..., 2] = 30 + np.arange(200).reshape(10, 20)
    save_film([Image.fromarray(frame) for frame in frames], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        for i, frame in enumerate(frames):
            gif.seek(i)
            np.testing.assert_allclose(np.asarray(gif.convert("RGB")).astype(int), frame, atol=3)


def test_a_long_run_is_thinned_and_only_what_is_shown_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = paint(tmp_path, range(0, 1250, 5))
    opened: list[str] = []
    inner = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(Path(path).name) or inner(path))
    grid.show_training(ALONE, 1245)
    monkeypatch.undo()
    assert len(opened) == 100 + 9
    pixels, durations = film(tmp_path)
    steps = [red + 256 * green for red, green, _ in pixels]
    assert len(steps) == 100 and (steps[0], steps[-1]) == (0, 1245)
    assert {b - a for a, b in pairwise(steps)} == {10, 15}  # 249/99 pictures, rounded, of 5 updates
    assert durations == [100] * 99 + [2000]


def test_steps_are_numbers_and_later_or_strange_files_are_not_of_this_run(tmp_path: Path) -> None:
    grid = paint(tmp_path, [7, 999_999, 1_000_000, 2_000_000])
    for name in ("step_abc.png", "step_3.png.part", "interpolation_000001.png", "latest.png"):
        Image.new("RGB", (12, 8), "white").save(tmp_path / name, format="PNG")
    grid.show_training(ALONE, 1_500_000)
    assert film(tmp_path)[0] == [colour(7), colour(999_999), colour(1_000_000)]


def test_bad_pictures_are_passed_over(tmp_path: Path) -> None:
    grid = paint(tmp_path, [3, 4, 5, 6])
    whole = (tmp_path / "step_000004.png").read_bytes()
    (tmp_path / "step_000000.png").write_bytes(b"")
    (tmp_path / "step_000001.png").write_text("no picture")
    (tmp_path / "step_000004.png").write_bytes(whole[: len(whole) // 2])
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "a" * 2**21, zip=True)  # more than Pillow unpacks: a ValueError
    Image.new("RGB", (12, 8)).save(tmp_path / "step_000002.png", pnginfo=text)
    paint(tmp_path, [5], size=(6, 8))
    grid.show_training(ALONE, 6)
    assert film(tmp_path)[0] == [colour(3), colour(6)]


@pytest.mark.parametrize("steps", [[], [5]])
def test_fewer_than_two_pictures_are_no_film(steps: list[int], tmp_path: Path) -> None:
    grid = paint(tmp_path, steps)
    (tmp_path / "step_000000.png").write_text("no picture")
    grid.show_training(ALONE, 10)
    assert not FILES & {p.name for p in tmp_path.iterdir()}


def test_large_frames_are_reduced_and_the_sheet_is_not_too_wide(tmp_path: Path) -> None:
    paint(tmp_path, [0, 1, 2, 3], size=(1720, 400)).show_training(ALONE, 3)
    with Image.open(tmp_path / "animation.gif") as gif, Image.open(tmp_path / "over_training.png") as sheet:
        assert gif.size == (860, 200)
        assert 1990 < sheet.width <= 2000
        assert sheet.getpixel((300, 100)) == colour(0) and sheet.getpixel((1900, 100)) == colour(2)


def test_the_sheet_has_every_picture_below_its_name() -> None:
    images = {f"update {i}": Image.new("RGB", (160, 50), colour(i)) for i in range(4)}
    sheet = np.asarray(contact_sheet(images, columns=3, gap=10))
    assert sheet.shape == (2 * (32 + 50 + 10) + 10, 3 * 170 + 10, 3)  # letters of 16, in a band of 32
    names = []
    for i in range(4):
        left, top = 10 + i % 3 * 170, 10 + i // 3 * 92
        assert (sheet[top + 32 : top + 82, left : left + 160] == colour(i)).all()
        name = sheet[top : top + 32, left : left + 160]
        assert name.min() < 100 and (name[[0, -1]] == 255).all() and (name[:, [0, -1]] == 255).all()
        names.append(name.tobytes())
    assert len(set(names)) == 4
    assert (sheet[102:, 180:] == 255).all()


def test_a_resumed_run_has_the_whole_film(tmp_path: Path) -> None:
    def grid() -> SampleGrid:
        return SampleGrid(2, rows=1, columns=2, dirpath=str(tmp_path))

    first = trainer(max_steps=2, callbacks=[grid()])
    first.fit(make_images("wgan", d_steps=1), plain(64, shape=(1, 8, 8)))
    assert len(film(tmp_path / "samples")[0]) == 2
    first.save_checkpoint(tmp_path / "a.ckpt")
    rest = trainer(max_steps=5, callbacks=[grid()])
    rest.fit(make_images("wgan", d_steps=1), plain(64, shape=(1, 8, 8)), ckpt_path=tmp_path / "a.ckpt")
    assert len(film(tmp_path / "samples")[0]) == 4  # 0, 2, 4 and the last, 5


def test_testing_and_other_ranks_make_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = SampleGrid(rows=1, columns=1, dirpath=str(tmp_path))
    paint(tmp_path / "samples", [0, 1])
    module, shown = make_images("wgan", d_steps=1), []
    monkeypatch.setattr(callback, "show_training", lambda trainer, last_step: shown.append(last_step))
    trainer(callbacks=[callback]).test(module, plain(8, shape=(1, 8, 8)), verbose=False)
    callback.drawn_step = module.global_step
    callback.on_train_end(SimpleNamespace(is_global_zero=False), module)  # type: ignore[arg-type]
    assert shown == []
    callback.on_train_end(SimpleNamespace(is_global_zero=True), module)  # type: ignore[arg-type]
    assert shown == [0]


# ---------------------------------------------------------------------- numbers
class At(nn.Module):
    """Noise (N, 1) to a + b z."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), b

    def forward(self, z: Tensor) -> Tensor:
        return self.a + self.b * z


def toy(technique: str = "gan", a: float = 0.0, **options: Any) -> Any:
    torch.manual_seed(0)
    return TECHNIQUES[technique](At(a, 0.5), ToyDiscriminator(shape=(1,), width=8, depth=1), 1, **options)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that become pictures."""
    seen: list[Any] = []
    inner = toy_pictures.figure_image
    monkeypatch.setattr(toy_pictures, "figure_image", lambda figure: seen.append(figure) or inner(figure))
    return seen


def draw(module: Any, fake: Tensor, real: Tensor | None, limits: tuple[float, float] | None = None) -> Image.Image:
    """The callback's picture of these samples and data."""
    grid = SampleGrid()
    grid.limits = limits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "sample", lambda module, n: fake)
        patch.setattr(grid, "real_points", lambda module: real)
        return grid.points_picture(module)


def normal(n: int = 1000, std: float = 1.0, mean: float = 1.0) -> Tensor:
    return mean + std * torch.randn(n, 1, generator=torch.Generator().manual_seed(4))


def test_bounds_hold_the_data_and_nearly_all_samples() -> None:
    fake = torch.linspace(0, 100, 101)[:, None]  # quantiles 1 and 99
    assert toy_pictures.common_bounds(fake, None) == pytest.approx((1 - 9.8, 99 + 9.8))
    assert toy_pictures.common_bounds(fake, torch.tensor([[-9.0], [201.0]])) == pytest.approx((-30, 222))
    nan = torch.full((5, 1), math.nan)
    assert toy_pictures.common_bounds(nan, torch.tensor([[0.0], [10.0]])) == pytest.approx((-1, 11))
    assert toy_pictures.common_bounds(nan, None) == pytest.approx((-1.2, 1.2))
    plane = torch.tensor([[0.0, 4.0], [math.nan, 1.0], [2.0, math.inf], [-math.inf, 3.0]])
    assert toy_pictures._bounds(plane) == pytest.approx((-1, 5))
    for fake in (plane, torch.full((5, 2), math.nan)):  # of a model that has diverged, without data beside it
        assert toy_pictures.toy_picture(fake, None).size == toy_pictures.toy_picture(plane, plane).size
    low, high = toy_pictures.common_bounds(torch.ones(5, 1), torch.ones(5, 1))
    assert low < 0.9 and high > 1.1


@pytest.mark.parametrize("d", [1, 2])
def test_samples_at_the_end_of_float32_are_drawn(d: int) -> None:
    """The axis ends before its width overflows, which would end a training that is about to diverge."""
    far = torch.tensor([[-3e38], [0.0], [3e38]]).expand(3, d)
    for fake, real in ((far, None), (far, far), (far[2:], None)):
        assert toy_pictures.toy_picture(fake, real, lambda x: x[:, 0])
    low, high = toy_pictures.common_bounds(far, None)
    assert -1e38 < low < -1e37 and 1e37 < high < 1e38


def test_narrow_data_are_shown_from_close_up() -> None:
    pair = torch.tensor([[0.9], [1.1]], dtype=torch.double)  # mean 1, standard deviation 0.1
    assert toy_pictures._close_up(pair, (0.0, 2.1)) == pytest.approx((0.4, 1.6))
    assert toy_pictures._close_up(pair, (0.0, 1.9)) is None
    assert toy_pictures._close_up(torch.full((1000, 1), 0.3), (-1.0, 4.0)) == pytest.approx((0.25, 0.35))
    assert toy_pictures._close_up(None, (0.0, 1.0)) is None


def test_the_panels_of_narrow_data(figures: list[Any]) -> None:
    fake, real = torch.cat([normal(600, 0.5, 0.0), normal(400, 0.01)]), normal(std=0.01)
    draw(toy(), fake, real, (-2.0, 2.0))
    whole, score, close = figures[0].axes
    assert whole.get_xlim() == score.get_xlim() == (-2, 2)
    window = float(real.double().mean()), float(real.double().std(correction=0))
    assert close.get_xlim() == pytest.approx((window[0] - 6 * window[1], window[0] + 6 * window[1]))
    low, high = close.get_xlim()
    outside = float(((fake < low) | (fake > high)).double().mean())
    assert 0.5 < outside < 0.6
    assert close.get_title(loc="left") == f"around the data, {100 * outside:.3g}% of the samples outside"
    assert (fake.abs() > 2).sum() == 0 and whole.get_title(loc="left") == ""
    areas = [sum(s.get_data().values) * (high - low) / 80 for s in close.patches[::2]]  # each once filled, once drawn
    assert areas == pytest.approx([1, 1 - outside], abs=2e-3)  # densities of all, not of those inside
    (curve,) = score.lines
    x = torch.as_tensor(curve.get_xdata(), dtype=torch.float)
    torch.testing.assert_close(torch.as_tensor(curve.get_ydata()), toy().discriminator(x[:, None]).detach())
    assert [t.get_text() for t in figures[0].legends[0].texts] == ["real", "generated", "score D(x)"]


def test_the_picture_has_one_size_and_steady_axes(figures: list[Any]) -> None:
    cases = [(normal(std=0.001), 1.0), (normal(std=0.001), 1e5), (torch.ones(9, 1), 1.0), (normal(), 1.0), (None, 1.0)]
    sizes = set()
    for real, scale in cases:
        module = toy()
        for p in module.discriminator.parameters():
            p.data.mul_(scale)
        sizes.add(draw(module, normal(std=0.5, mean=0.0), real).size)
    assert len(sizes) == 1
    assert [len(f.axes) for f in figures] == [3, 3, 3, 2, 2]
    places = [[axes.get_position().bounds for axes in f.axes] for f in figures]
    assert places[0] == places[1] == places[2] and places[3] == places[4]


def test_the_axis_is_decided_by_the_first_picture_that_has_data(figures: list[Any]) -> None:
    module, grid = toy(), SampleGrid(points=200)
    grid.pictures(module)
    assert grid.limits is None  # by the samples alone it may not hold the data
    grid.reference = lambda split: (normal(std=0.001, mean=5.0), None)
    grid.pictures(module)
    assert grid.limits is not None and grid.limits[0] < -0.5 and grid.limits[1] > 5.1
    module.generator.a.data.fill_(50.0)
    grid.pictures(module)
    module.generator.a.data.fill_(math.nan)
    grid.pictures(module)
    whole = [f.axes[0] for f in figures]
    assert whole[1].get_xlim() == whole[2].get_xlim() == whole[3].get_xlim() == grid.limits
    assert whole[0].get_xlim() != grid.limits
    assert whole[2].get_title(loc="left") == whole[3].get_title(loc="left") == "100% of the samples outside"


def test_a_new_training_decides_anew(tmp_path: Path) -> None:
    grid = SampleGrid(every_n_steps=9, points=50, dirpath=str(tmp_path))
    grid.limits = (0.0, 1e6)
    trainer(max_steps=1, callbacks=[grid]).fit(toy(), datamodule=Gaussian1D(batch_size=4, batches_per_epoch=4))
    assert grid.limits is not None and -9 < grid.limits[0] < 0 < grid.limits[1] < 9


def test_p_g_and_its_target_are_those_of_the_samples_shown(figures: list[Any]) -> None:
    module = toy("primal_dual", relative=False, sigma=0.7, alpha=0.2)
    fake = normal(50, 0.5, 0.0)
    draw(module, fake, normal(), (-3.0, 3.0))
    score, other = figures[0].axes[1], figures[0].axes[-1]
    p, target = (torch.as_tensor(line.get_ydata()).double() for line in other.lines)
    x = torch.as_tensor(other.lines[0].get_xdata()).double()
    by_hand = torch.exp(-((x[:, None] - fake[:, 0].double()) / 0.7).square()).mean(1)
    torch.testing.assert_close(p, by_hand, rtol=0, atol=1e-5)
    d = torch.as_tensor(score.lines[0].get_ydata()).double().sigmoid()
    torch.testing.assert_close(target, by_hand - 0.2 * (2 * (1 - d)).log(), rtol=0, atol=1e-5)
    assert len(figures[0].legends[0].texts) == 5


def test_no_p_g_without_a_unit_nor_by_one_rank_alone(figures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = normal(50)
    draw(toy("primal_dual"), fake, None)  # a relative sigma before the first step
    monkeypatch.setattr(sample_grid, "world_size", lambda: 2)
    monkeypatch.setattr(PrimalDualGAN, "dual", lambda *_: pytest.fail("would wait for the other rank"))
    draw(toy("primal_dual", relative=False), fake, None)
    assert [len(f.axes) for f in figures] == [2, 2]


def test_a_conditional_discriminator_has_no_curve(figures: list[Any]) -> None:
    nets = (ToyGenerator(shape=(1,), latent_dim=2, width=4), ToyDiscriminator(shape=(1,), width=4, num_classes=3))
    draw(TECHNIQUES["gan"](*nets, 2), normal(), normal())
    assert len(figures[0].axes) == 1


def test_the_plane_has_steady_axes_too(figures: list[Any]) -> None:
    module, grid = make("gan"), SampleGrid(points=50)
    grid.reference = lambda split: (torch.rand(60, 2), None)
    sizes = {grid.pictures(module)["grid"].size}
    for p in module.discriminator.parameters():
        p.data.mul_(100)
    for p in module.generator.parameters():
        p.data.mul_(5)
    sizes.add(grid.pictures(module)["grid"].size)
    first, second = ([(a.get_position().bounds, a.get_xlim()) for a in f.axes[:1]] for f in figures)
    assert len(sizes) == 1 and first == second
