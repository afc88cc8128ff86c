"""What ``trainer.predict`` makes, as files: pictures, an interpolation, a walk in latent space, or one array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lightning_gans import checks
from lightning_gans._lightning import callbacks, pl
from lightning_gans.base import GANModule, evaluating
from lightning_gans.callbacks.image_logging import grid_image, save_image_atomic, save_loop, to_uint8
from lightning_gans.callbacks.probe import as_gan
from lightning_gans.callbacks.sample_grid import SampleGrid, contour_picture, density_picture, slerp
from lightning_gans.checkpoints import write_text

OVERVIEWS = ("grid.png", "interpolation.png", "walk.gif")  # pictures of samples, among those that are samples
_SHOWN = 256  # samples in the grid


class SampleWriter(callbacks.BasePredictionWriter):
    """Writes what ``trainer.predict(module, [64, 64, ...])`` has sampled.

    Images become ``00000.png``, ``00001.png`` ..., and beside them ``grid.png``, ``interpolation.png`` (rows of
    :func:`slerp` between two noises) and ``walk.gif``, all of the same noise each time; other samples ``samples.csv``,
    a row for each, with a picture of those in 1-D and 2-D. With ``npz`` there is one file in their place,
    ``samples.npz``, as evaluation scripts read it: ``samples``, for images uint8 (N, H, W, C), and ``labels`` (N,) of a
    conditional generator.

    Args:
        folder: where to; it is made if it is not there.
        npz: write one array, and no pictures.
        value_range: range of the generator's images; None = the datamodule's, else (-1, 1).
    """

    def __init__(self, folder: str | Path, npz: bool = False, value_range: tuple[float, float] | None = None) -> None:
        super().__init__("epoch")
        self.folder, self.npz, self.value_range = Path(folder), npz, value_range

    def write_on_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, predictions: Sequence[Any], batch_indices: Any
    ) -> None:
        """Write all samples, on rank 0 (every rank has made the same)."""
        if not trainer.is_global_zero:
            return
        module, datamodule = as_gan(self, pl_module), getattr(trainer, "datamodule", None)
        parts = [p for p in predictions if isinstance(p, Tensor)]
        samples = torch.cat(parts).cpu()
        low_high = self.value_range or getattr(datamodule, "value_range", None) or (-1.0, 1.0)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.npz:
            arrays = {"samples": to_uint8(samples, low_high).permute(0, 2, 3, 1) if samples.ndim == 4 else samples}
            if module.num_classes is not None:  # those that predict_step has drawn
                drawn = [module.latents(len(part), seed=i)[1] for i, part in enumerate(parts)]
                arrays["labels"] = torch.cat([labels for labels in drawn if labels is not None])
            save_npz(self.folder / "samples.npz", **arrays)
            print(f"Samples       {self.folder / 'samples.npz'}")
        elif samples.ndim == 4:
            self._write_images(module, samples, low_high)
        else:
            self._write_points(module, samples, getattr(datamodule, "reference", None))

    def _write_images(self, module: GANModule, samples: Tensor, low_high: tuple[float, float]) -> None:
        for i, sample in enumerate(tqdm(samples, "writing images", leave=False, disable=len(samples) < 1000)):
            image = grid_image(sample[None], 1, low_high, cell=sample.shape[-1], gap=0)
            save_image_atomic(image, self.folder / f"{i:05d}.png")
        shown = samples[:_SHOWN]
        save_image_atomic(grid_image(shown, max(1, round(len(shown) ** 0.5)), low_high), self.folder / OVERVIEWS[0])
        walks = SampleGrid(interpolations=8, columns=10)
        save_image_atomic(grid_image(walks.walk(module), walks.columns, low_high), self.folder / OVERVIEWS[1])
        frames = [grid_image(frame, 4, low_high) for frame in latent_walk(module, cells=16)]
        save_loop(frames, self.folder / OVERVIEWS[2])
        print(
            f"Samples       {self.folder}/00000.png to {len(samples) - 1:05d}.png\n"
            f"Sample grid   {self.folder / OVERVIEWS[0]}\n"
            f"Interpolation {self.folder / OVERVIEWS[1]}\n"
            f"Latent walk   {self.folder / OVERVIEWS[2]}"
        )

    def _write_points(self, module: GANModule, samples: Tensor, reference: Any) -> None:
        rows = "\n".join(",".join(f"{v:.8g}" for v in sample.flatten().tolist()) for sample in samples)
        write_text(self.folder / "samples.csv", rows + "\n")
        print(f"Samples       {self.folder / 'samples.csv'}")
        draw = {1: density_picture, 2: contour_picture}.get(samples.shape[1]) if samples.ndim == 2 else None
        if draw is not None:
            real = None if reference is None else reference("train")[0][: len(samples)].float()
            save_image_atomic(draw(module, samples.float(), real), self.folder / "samples.png")
            print(f"Picture       {self.folder / 'samples.png'}")


@torch.no_grad()
def latent_walk(module: GANModule, cells: int = 16, stops: int = 4, steps: int = 12, seed: int = 0) -> Tensor:
    """Samples along closed walks in latent space, from noise to noise by :func:`slerp` and back to the first.

    Args:
        module: its averaged generator is used if there is one.
        cells: walks at a time; of a conditional generator, cell i stays in class i modulo their number.
        stops: noises on each walk.
        steps: samples from one to the next.
        seed: of the noises.

    Returns:
        (stops * steps, cells, ...); after the last comes the first.
    """
    checks.at_least_one(cells=cells, stops=stops, steps=steps)
    labels = None if module.num_classes is None else torch.arange(cells) % module.num_classes
    z, labels = module.latents(cells * stops, None if labels is None else labels.repeat(stops), seed=seed)
    noises = z.view(stops, cells, -1)
    t = torch.linspace(0, 1, steps + 1).to(z)[:-1]
    legs = [slerp(noises[i], noises[(i + 1) % stops], t).transpose(0, 1) for i in range(stops)]
    net = module.generator if module.ema is None else module.ema
    with evaluating(net):
        frames = [net(z) if labels is None else net(z, labels[:cells]) for z in torch.cat(legs)]
    return torch.stack(frames).float()


def save_npz(path: Path, **arrays: Tensor) -> None:
    """Write arrays by name, under a temporary name first."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, **{name: value.cpu().numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
