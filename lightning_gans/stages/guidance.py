"""How a trained diffusion's samples change as they are drawn more and more to classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lightning_gans import checks
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.metrics import ClassifierExtractor, GenerativeScores, to_uint8
from lightning_gans.networks import TimedClassifier
from lightning_gans.runs.atomic import write_text
from lightning_gans.runs.load import load
from lightning_gans.samplers import Guided
from lightning_gans.stages.noisy_classifier import fit_noisy_classifier
from lightning_gans.visualization.images import grid_image, save_image_atomic


def guided_scores(
    path: str | Path,
    data: GANDataModule,
    folder: str | Path,
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0),
    samples: int = 1000,
    steps: int = 2000,
    width: int = 256,
    seed: int = 0,
    trust_code: bool = False,
) -> list[dict[str, Any]]:
    """Train a noisy classifier for a diffusion, and score samples at each scale of guidance.

    Of each scale: FID by a LeNet trained on the data (``fid/lenet``), which also judges the class (``right_class``:
    the share of samples whose class it takes for the one that was asked for), and network calls per sample.

    Args:
        path: a run or checkpoint of a diffusion.
        data: labelled images.
        folder: where grids and scores go, and the classifier: in a folder of its own by its settings and the data.
        scales: of guidance, >= 0.
        samples: of each, >= 2, of classes as frequent as in the data.
        steps: updates of the classifier.
        width: of its three hidden layers.
        seed: of samples and classifier.
        trust_code: build classes of anywhere, as of ``load``.

    Raises:
        ValueError: for settings out of range, data without labels or of another shape, and a model that is no
            diffusion.
    """
    checks.at_least(2, samples=samples)
    checks.at_least_one(steps=steps, width=width)
    for scale in scales:
        checks.not_negative(scales=scale)
    module: Any = load(path, trust_code=trust_code)
    place = Path(folder)
    if not hasattr(module, "process"):
        raise ValueError(f"ckpt_path must be of a diffusion, got one of {type(module).__name__}.")
    data.prepare_data()
    data.setup("fit")
    images, labels = data.reference("train")
    if labels is None:
        raise ValueError(f"data must have labels to guide by, got {data.name}, which has none.")
    if images.dtype != torch.uint8:
        raise ValueError(f"data must be images for the judge of classes, got {data.name}.")
    if tuple(data.shape) != tuple(module.shape):
        raise ValueError(f"data must be of shape {tuple(module.shape)}, as samples are, got {tuple(data.shape)}.")
    low, high = data.value_range or (-1.0, 1.0)
    pl.seed_everything(seed, verbose=False)
    classifier = TimedClassifier(tuple(data.shape), int(labels.max()) + 1, width)
    items = images.float() / 255 * (high - low) + low
    fit_noisy_classifier(module, classifier, items, labels, steps=steps, folder=place, seed=seed)
    judge = ClassifierExtractor(images, labels, "lenet")
    scores = GenerativeScores(torch.cat([judge(part)[0] for part in images.split(1000)]), ("fid",))
    wanted = labels[torch.randint(len(labels), (samples,))]
    grid = torch.arange(classifier.num_classes or 1).repeat(8)
    rows = []
    for scale in scales:
        sampler = Guided(module, classifier, scale=scale)
        made = to_uint8(sampler.sample(samples, wanted, seed, progress=False), (low, high))
        features, logits = judge(made)
        assert logits is not None
        right = float((logits.argmax(1).cpu() == wanted).float().mean())
        rows.append({"scale": scale, "fid/lenet": scores(features)["fid"], "right_class": right,
                     "network_calls": sampler.network_calls, "samples": samples, "seed": seed})  # fmt: skip
        shown = sampler.sample(len(grid), grid, seed, progress=False)
        save_image_atomic(grid_image(shown, len(grid) // 8, (low, high)), place / f"scale-{scale:g}.png")
    write_text(place / "scores.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return rows
