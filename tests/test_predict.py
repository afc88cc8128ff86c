"""What predict writes: pictures, an interpolation, a walk in latent space, or one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from common import make, make_images, trainer
from PIL import Image

from lightning_gans import WGANGP, GANModule
from lightning_gans.callbacks.image_logging import save_loop, to_uint8
from lightning_gans.callbacks.sample_writer import SampleWriter, latent_walk
from lightning_gans.datamodules import Ring
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator


def bold(module: GANModule) -> GANModule:
    """An untrained generator's samples are all grey; these are not."""
    with torch.no_grad():
        for p in module.generator.parameters():
            p *= 10 if p.ndim > 1 else 1
    return module


def conditional() -> GANModule:
    torch.manual_seed(2)
    generator = DCGANGenerator((1, 8, 8), 3, width=4, num_classes=5)
    return bold(WGANGP(generator, DCGANDiscriminator((1, 8, 8), width=4, norm="none", num_classes=5), 3))


def predict(module: GANModule, *batches: int, data: Ring | None = None, **options: object) -> set[str]:
    """Have samples written to ``out``, and say what lies there."""
    fitted = trainer(callbacks=[SampleWriter("out", **options)])  # type: ignore[arg-type]
    if data is None:
        fitted.predict(module, list(batches))  # type: ignore[arg-type]
    else:
        data.predict_dataloader = lambda: list(batches)  # type: ignore[method-assign]
        fitted.predict(module, datamodule=data)
    return {path.name for path in Path("out").iterdir()}


def test_images(capsys: pytest.CaptureFixture[str]) -> None:
    """In a project of one's own, without a data module."""
    module = bold(make_images("wgan"))
    names = {"grid.png", "interpolation.png", "walk.gif", *(f"{i:05d}.png" for i in range(7))}
    assert predict(module, 4, 3) == names
    told = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert told[1:] == ["out/grid.png", "out/interpolation.png", "out/walk.gif"]
    first = torch.from_numpy(np.array(Image.open("out/00001.png")))
    expected = to_uint8(module.sample(4, seed=0), (-1, 1))[1, 0]
    assert torch.equal(first, expected[..., None].expand(8, 8, 3)) and first.float().std() > 1
    with Image.open("out/walk.gif") as film:
        assert film.n_frames == 48 and film.info["loop"] == 0  # type: ignore[attr-defined]
    with Image.open("out/interpolation.png") as strip:
        assert strip.size[0] == 10 * 68 + 4 and strip.size[1] == 8 * 68 + 4


def test_npz_holds_what_was_sampled_and_its_labels() -> None:
    module = conditional()
    assert predict(module, 64, 6, npz=True) == {"samples.npz"}
    found = np.load("out/samples.npz")
    assert found["samples"].shape == (70, 8, 8, 1) and found["samples"].dtype == np.uint8
    labels = torch.from_numpy(found["labels"])
    assert labels.unique().tolist() == [0, 1, 2, 3, 4]
    parts = [module.sample(n, seed=i) for i, n in enumerate((64, 6))]
    assert np.array_equal(found["samples"], to_uint8(torch.cat(parts), (-1, 1)).permute(0, 2, 3, 1).numpy())
    z = torch.cat([module.latents(n, seed=i)[0] for i, n in enumerate((64, 6))])
    again = module.eval()(z, labels)  # the labels are those of these samples
    assert torch.allclose(again, torch.cat(parts), atol=1e-4)
    assert (module(z, (labels + 1) % 5) - again).abs().max() > 0.1, "the classes do not matter here"


def test_npz_without_classes_and_of_another_range() -> None:
    module = bold(make_images("wgan"))
    predict(module, 5, npz=True, value_range=(-2.0, 2.0))
    found = np.load("out/samples.npz")
    assert found.files == ["samples"]
    expected = to_uint8(module.sample(5, seed=0), (-2, 2)).permute(0, 2, 3, 1)
    assert np.array_equal(found["samples"], expected.numpy())


def test_points() -> None:
    module = make("wgan")
    assert predict(module, 5, data=Ring()) == {"samples.csv", "samples.png"}
    assert np.allclose(np.loadtxt("out/samples.csv", delimiter=","), module.sample(5, seed=0).numpy(), atol=1e-6)
    with Image.open("out/samples.png") as picture:
        colours = np.array(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert (colours[:, 0] - colours[:, 2] > 60).any(), "no real points are drawn"
    predict(module, 5, npz=True)
    assert np.array_equal(np.load("out/samples.npz")["samples"], module.sample(5, seed=0).numpy())


def test_latent_walk() -> None:
    """Through the noises, closed, each step small, and one class per cell."""
    module = conditional().eval()
    walk = latent_walk(module, cells=6, stops=3, steps=20, seed=4)
    assert walk.shape == (60, 6, 1, 8, 8)
    z, _ = module.latents(18, torch.zeros(18).long(), seed=4)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    for i, noise in enumerate(z.view(3, 6, 3)):
        torch.testing.assert_close(walk[20 * i], module(noise, labels))
    steps = (walk.roll(-1, 0) - walk).flatten(2).norm(dim=2)
    whole = (walk[0] - walk[20]).flatten(1).norm(dim=1)
    assert (steps.amax(0) < 0.5 * whole).all() and (steps > 0).all()
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
        latent_walk(module, steps=0)


def test_a_loop_has_no_pause() -> None:
    frames = [Image.new("RGB", (4, 4), (60 * i, 0, 0)) for i in range(3)]
    with Image.open(save_loop(frames, "a.gif", 50)) as film:
        durations = []
        for i in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(i)
            durations.append(film.info["duration"])
    assert durations == [50, 50, 50]
