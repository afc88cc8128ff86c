"""What ``predict`` writes: samples as files or one array, and pictures of how they hang together."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_gans.compat.lightning import callbacks
from lightning_gans.datamodules.pictures import CHANNELS
from lightning_gans.engine.contract import Critic, Latents, Samples, has
from lightning_gans.engine.distributed import world_size
from lightning_gans.functional.conditional import score
from lightning_gans.functional.latent import between, in_w, walk, way
from lightning_gans.functional.pixels import range_of
from lightning_gans.functional.text import Vocabulary
from lightning_gans.metrics import to_uint8
from lightning_gans.runs.atomic import replacing, write_text
from lightning_gans.visualization.images import grid_image, save_film, save_image_atomic
from lightning_gans.visualization.toy import toy_picture

# Pictures of many samples, which are no samples themselves.
SHEETS = ("grid.png", "interpolation.png", "interpolation-w.png", "walk.gif", "walk-w.gif")


class SampleWriter(callbacks.BasePredictionWriter):
    """Writes predictions into a folder, and pictures of the generator beside them.

    Images become PNG files, or with ``npz`` one ``samples.npz`` that evaluation scripts read: ``samples`` uint8
    (N, H, W, C), and ``labels`` (N,) of a conditional generator. Others become ``samples.csv``, a row each, or with
    ``npz`` an array of their own type. Of images there are ``grid.png``; ``interpolation.png``, rows of samples on the
    great circle between two noises; and ``walk.gif``, on which 16 noises move along such circles and back to where they
    began. Those of a generator by styles are there again with straight ways in w (``-w``). With attributes asked
    for there is the grid alone. Of points there is ``samples.png``. Text becomes ``samples.txt``, a line each.

    Args:
        folder: where to; it is made.
        value_range: of images; None means (-1, 1), with a warning where samples are not of it.
        npz: one array in place of many files.
    """

    def __init__(self, folder: Path, value_range: tuple[float, float] | None, npz: bool = False) -> None:
        super().__init__("epoch")
        self.folder, self.known_range, self.npz = folder, value_range, npz
        self.told: list[str] = []

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any) -> None:
        """Write all samples, on rank 0 (every rank has made the same)."""
        if not trainer.is_global_zero:
            return
        made = [p for p in predictions if isinstance(p, Tensor)]
        if pl_module.num_classes is not None:
            known = getattr(pl_module, "label_counts", None) is not None
            self.told.append(f"Classes      {'as frequent as in the training data' if known else 'equally frequent'}")
        samples = torch.cat(made).cpu()
        if pl_module.vocabulary_size is not None:
            self._write_text(samples, pl_module.vocabulary)
            return
        images = samples.dim() == 4 and samples.shape[1] in CHANNELS.values()
        self.value_range = range_of(samples, self.known_range) if images else (-1.0, 1.0)
        if self.npz:
            self._write_npz(samples, _labels(pl_module, made), images)
        elif images:
            for i, sample in enumerate(samples):
                save_image_atomic(_picture(to_uint8(sample, self.value_range)), self.folder / f"{i:05d}.png")
            self.told.append(f"Samples      {self.folder}/00000.png to {len(samples) - 1:05d}.png")
        else:
            rows = "\n".join(",".join(f"{v:.8g}" for v in sample.flatten().tolist()) for sample in samples)
            write_text(self.folder / "samples.csv", rows + "\n")
            self.told.append(f"Samples      {self.folder / 'samples.csv'}")
        if images:
            if has(pl_module, Latents) and (calls := pl_module.network_calls) > 1 and trainer.progress_bar_callback:
                told = f"Drawing interpolation and walk: 832 samples of {calls:,} network calls each."
                trainer.progress_bar_callback.print(told)
            self._draw_images(pl_module, samples[:256])
        elif samples.dim() == 2 and samples.shape[1] in (1, 2):
            reference = getattr(trainer.datamodule, "reference", None)
            image = _points_picture(pl_module, samples, None if reference is None else reference("train")[0])
            save_image_atomic(image, self.folder / "samples.png")
            self.told.append(f"Picture      {self.folder / 'samples.png'}")

    def on_predict_end(self, *_: Any) -> None:
        """Say what lies where, behind the bar."""
        lines, self.told = self.told, []
        if lines:
            print("\n".join(lines))

    def on_exception(self, *_: Any) -> None:
        """What was written before it is there."""
        self.on_predict_end()

    def _write_text(self, tokens: Tensor, vocabulary: Vocabulary | None) -> None:
        """A line each: the text, or the tokens where their symbols are not known."""
        lines = [" ".join(map(str, row)) for row in tokens.tolist()]
        lines = lines if vocabulary is None else vocabulary.decode(tokens)
        if self.npz:
            self._write_npz(tokens, None, False)
        write_text(self.folder / "samples.txt", "\n".join(lines) + "\n")
        self.told.append(f"Samples      {self.folder / 'samples.txt'}")

    def _write_npz(self, samples: Tensor, labels: Tensor | None, images: bool) -> None:
        if images:
            samples = to_uint8(samples, self.value_range).permute(0, 2, 3, 1)
        arrays = {"samples": samples.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
        with replacing(self.folder / "samples.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        self.told.append(f"Samples      {self.folder / 'samples.npz'}")

    def _draw_images(self, module: Samples, shown: Tensor) -> None:
        grid = grid_image(shown, max(1, round(len(shown) ** 0.5)), self.value_range)
        save_image_atomic(grid, self.folder / "grid.png")
        if not has(module, Latents) or "attributes" in getattr(module, "sample_options", ()):  # ways have them not
            self.told.append(f"Picture      {self.folder / 'grid.png'}")
            return
        files = ["grid.png"]
        for space, more in {"z": "", **({"w": "-w"} if in_w(module.network) else {})}.items():
            rows = grid_image(walk(module, 8, 8, space=cast(Any, space)), 8, self.value_range)
            save_image_atomic(rows, self.folder / f"interpolation{more}.png")
            film = latent_walk(cast(Latents, module), space=cast(Any, space))
            save_film([grid_image(frame, 4, self.value_range) for frame in film], self.folder / f"walk{more}.gif")
            files += [f"interpolation{more}.png", f"walk{more}.gif"]
        self.told.append(f"Pictures     {self.folder}/{', '.join(files)}")


def _picture(pixels: Tensor) -> Image.Image:
    """A sample (C, H, W) uint8 as it is; a grey one in RGB."""
    picture = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
    return picture.convert("RGB") if len(pixels) == 1 else picture


def _points_picture(module: Any, samples: Tensor, real: Tensor | None, n: int = 1000) -> Image.Image:
    """Up to ``n`` samples and data in 1-D or 2-D, and what the discriminator says there, if there is one."""
    critic = has(module, Critic) and not module.conditional
    fake = samples[:n].float().to(next(module.trained_network.parameters(), samples).device)
    return toy_picture(
        fake,
        None if real is None else real[:n].float(),
        partial(score, module.discriminator) if critic else None,
        None if world_size() > 1 else getattr(module, "dual", None),
        like=next(module.discriminator.parameters()) if critic else fake,
    )


def latent_walk(
    module: Latents, n: int = 16, places: int = 4, frames: int = 12, seed: int = 0, space: Literal["z", "w"] = "z"
) -> Tensor:
    """Samples (places * frames, n, ...) of noises that move along great circles from place to place, and back.

    Args:
        module: a model whose noise can be chosen.
        n: how many noises move.
        places: random noises that each comes by.
        frames: steps from one to the next.
        seed: of the places, and of the classes of a conditional generator, which each keeps.
        space: in w the ways are straight, as where noise is not normal.
    """
    labels = None if module.num_classes is None else torch.arange(n) % module.num_classes
    noise, classes = module.latents(places * n, None if labels is None else labels.repeat(places), seed=seed)
    stops, labels = noise.unflatten(0, (places, n)), None if classes is None else classes[:n]
    t = torch.arange(frames) / frames
    made = []
    for here, there in zip(stops, stops.roll(-1, 0)):
        if space == "w":
            made += list(between(module, here, there, t, labels).transpose(0, 1).float())
            continue
        z = way(module, here, there, t.to(here))  # (n, frames, latent_dim)
        made += [module.decode(z[:, i], labels).float() for i in range(frames)]
    return torch.stack(made)


def _labels(module: Any, made: list[Tensor]) -> Tensor | None:
    """The labels that `predict_step` has drawn: those of the same noise."""
    if module.num_classes is None:
        return None
    drawn = [module.latents(len(batch), seed=i)[1] for i, batch in enumerate(made)]
    return torch.cat([labels.cpu() for labels in drawn if labels is not None])
