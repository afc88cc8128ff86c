"""``score_samples``: images, whoever made them, against a data set."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_gans import checks
from lightning_gans.datamodules.base import GANDataModule, Split
from lightning_gans.datamodules.pictures import CHANNELS, Decoder, common_scale, list_files, reading, told
from lightning_gans.metrics import (
    METRICS,
    ClassifierExtractor,
    FeatureExtractor,
    GenerativeScores,
    InceptionExtractor,
    as_extractor,
    content_hash,
)
from lightning_gans.metrics.extractors import CLASSIFIERS
from lightning_gans.metrics.generative import check_metrics
from lightning_gans.tools.write import SHEETS


def score_samples(
    samples: str | Path | Tensor,
    data: GANDataModule,
    extractor: Literal["inception", "lenet", "resnet"] | nn.Module = "inception",
    metrics: Sequence[str] = METRICS,
    split: Literal["train", "test", "all"] = "train",
    num_real: int | None = None,
    batch_size: int = 200,
    seed: int = 0,
    is_splits: int = 10,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    cache_dir: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Scores of images against a data set, by the same code as ``GenerativeMetrics`` uses in training.

    Args:
        samples: a folder or .zip file of images; an .npz file with ``samples`` or ``arr_0``, uint8 (N, H, W, C) or
            (N, C, H, W); or a tensor, uint8 (N, C, H, W). They must have the size and channels of the data: how images
            are resized is part of a score.
        data: the data set that is the reference.
        extractor: ``inception``, which the canonical scores are taken with; ``lenet`` or ``resnet``, a small
            classifier trained on the data set at first use; or a module from uint8 images (N, C, H, W) to features.
        metrics: some of ``fid``, ``is``, ``kid``, ``prdc``, ``uniformity`` (`metrics.GenerativeScores`).
        split: of the data that is the reference; "all" is both. Of `Images`, "train" is without its ``test_share``.
        num_real: size of the reference, drawn at random; None = all of the split.
        batch_size: images per forward pass.
        seed: of the reference subset, and of the random subsets of IS and KID.
        is_splits: parts of the inception score.
        kid_subsets: subsets over which KID is averaged.
        kid_subset_size: their size, lowered to the number of samples at hand.
        cache_dir: folder for trained classifiers; None = ``$LIGHTNING_GANS_CACHE``, else ``~/.cache/lightning_gans``.
        device: where features are computed.

    Returns:
        ``scores`` by name, which holds the extractor's (``fid/inception``), and their ``protocol``.

    Raises:
        FileNotFoundError: no such path.
        ValueError: for images of another shape than the data's, or too few; for data that are no images.
    """
    checks.one_of("split", split, ("train", "test", "all"))
    checks.at_least_one(batch_size=batch_size, is_splits=is_splits, kid_subsets=kid_subsets)
    checks.at_least(2, kid_subset_size=kid_subset_size)
    metrics = check_metrics(metrics)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be 'cpu' where there is no CUDA, got {device!r}.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the second where torch was built without it
        raise ValueError(f"device must be one that torch has here, got {device!r} ({told(error)}).") from error
    data.prepare_data()
    data.setup("test")
    splits: tuple[Split, ...] = ("train", "test") if split == "all" or getattr(data, "test_share", 0) > 0 else (split,)
    parts: dict[str, tuple[Tensor, Tensor | None]] = {name: data.reference(name) for name in splits}
    real, labels = _joined(parts) if split == "all" else parts[split]
    left_out = sum(len(x) for x, _ in parts.values()) - len(real)
    if real.dtype != torch.uint8 or real.dim() != 4:
        raise ValueError(f"data must be images, got {data.name} of shape {tuple(real.shape[1:])}.")
    fake = samples if isinstance(samples, Tensor) else read_samples(samples, int(real.shape[1]))
    if fake.dtype != torch.uint8 or fake.shape[1:] != real.shape[1:]:
        got, wanted = ("x".join(map(str, t.shape[1:])) for t in (fake, real))
        raise ValueError(f"samples must be uint8 images of {wanted}, as {data.name}, got {fake.dtype} of {got}.")
    checks.within(2, len(real), **checks.given(num_real=num_real))
    least = max(6 if "prdc" in metrics else 2, is_splits if "is" in metrics else 0)
    if len(fake) < least:
        raise ValueError(f"samples must be at least {least} for these metrics, got {len(fake)}.")
    if num_real is not None:
        own = torch.Generator().manual_seed(seed)
        real = real[torch.randperm(len(real), generator=own)[:num_real].sort().values]
    net = _extractor(extractor, data, labels, cache_dir, device)
    options = {"is_splits": is_splits, "kid_subsets": kid_subsets, "kid_subset_size": kid_subset_size}
    features, _ = _extract(net, real, batch_size, device, data.name)
    scorer = GenerativeScores(features, metrics, seed=seed, **options)  # type: ignore[arg-type]
    scores = scorer(*_extract(net, fake, batch_size, device, "samples"))
    subsets, size = scorer.kid_plan(len(real), len(fake))
    protocol = {
        **net.describe(), "reference": data.name, "reference_split": split, "reference_items": len(real),
        "reference_left_out": left_out, "reference_files": getattr(data, "report", ""),
        "reference_hash": content_hash(real), "fakes": len(fake),
        "fakes_labels": "as the samples have them", "fakes_hash": content_hash(fake),
        "images": "uint8", "features_dtype": "float32", "scores_dtype": "float64", "seed": seed,
        "is_splits": is_splits, "kid_subsets": subsets, "kid_subset_size": size,
        **scorer.uniformity_plan(len(fake)), "caveats": scorer.caveats(len(fake)),
    }  # fmt: skip
    name = net.name if split == "train" else f"{net.name}-{split}"
    return {"scores": {f"{k}/{name}": float(v) for k, v in scores.items()}, "protocol": protocol}


def _joined(parts: dict[str, tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    images, labels = zip(*parts.values())
    return torch.cat(images), None if any(y is None for y in labels) else torch.cat(labels)


def read_samples(path: str | Path, channels: int) -> Tensor:
    """Images (N, C, H, W) uint8 of a folder, .zip or .npz file; those of files with so many ``channels``."""
    path = Path(path).expanduser()
    if path.suffix == ".npz":
        if not path.is_file():
            raise FileNotFoundError(f"samples {path} does not exist.")
        if not zipfile.is_zipfile(path):
            raise ValueError(f"samples {path} must be a sound .npz file of numbers, got another or a truncated file.")
        try:
            with np.load(path, allow_pickle=False) as file:
                names = list(file)
                name = next((n for n in ("samples", "arr_0") if n in names), None)
                images = None if name is None else torch.from_numpy(file[name])
        except Exception as error:  # a broken archive, or an array of objects
            raise ValueError(f"samples {path} must be a sound .npz file of numbers, got: {told(error)}.") from error
        if images is None:
            raise ValueError(f"samples {path} must hold an array 'samples' or 'arr_0', got {', '.join(names)}.")
        if images.dim() == 4 and images.shape[1] != channels == images.shape[3]:
            images = images.permute(0, 3, 1, 2)
        if images.dim() != 4 or images.dtype != torch.uint8:
            shape = tuple(images.shape)
            raise ValueError(f"samples {path} must hold uint8 images (N, H, W, C), got {images.dtype} {shape}.")
        return images.contiguous()
    modes = {number: mode for mode, number in CHANNELS.items()}
    if channels not in modes:
        raise ValueError(f"samples must be an .npz file for data of {channels} channels, got {path}.")
    files, _ = list_files(path)
    if path.is_dir():  # pictures of many samples at once, as predict writes them
        files = [f for f in files if Path(f).name not in SHEETS]
    if not files:
        raise ValueError(f"samples {path} must hold pictures of one sample each, got none.")
    made: list[np.ndarray] = []
    with reading(path) as read:
        decode = Decoder(modes[channels], common_scale(read, files))
        for file in tqdm(files, "reading samples", leave=False, unit="image"):
            try:
                pages = decode(read(file)).pages
            except Exception as error:  # decoders fail in many ways
                raise ValueError(f"samples {path}: {file} cannot be read ({told(error)}).") from error
            made += [page.pixels for page in pages]
            if made[-1].shape != made[0].shape:
                one, other = (f"{image.shape[2]}x{image.shape[1]}" for image in (made[0], made[-1]))
                raise ValueError(f"samples must be of one size, got {one} ({files[0]}) and {other} ({file}).")
    return torch.from_numpy(np.stack(made))


def _extractor(
    given: Any, data: GANDataModule, labels: Tensor | None, cache_dir: str | None, device: str
) -> FeatureExtractor:
    if isinstance(given, nn.Module):
        return as_extractor(given).to(device)
    checks.one_of("extractor", given, ("inception", *CLASSIFIERS))
    if given == "inception":
        return InceptionExtractor().to(device)
    if labels is None:
        raise ValueError(f"extractor={given!r} is trained on the data's labels, but there are none: take 'inception'.")
    images, classes = data.reference("train")
    assert classes is not None
    return ClassifierExtractor(images, classes, given, cache_dir=cache_dir, device=torch.device(device)).to(device)


@torch.no_grad()
def _extract(net: FeatureExtractor, images: Tensor, size: int, device: str, what: str) -> tuple[Tensor, Tensor | None]:
    parts = [net(rows.to(device)) for rows in tqdm(images.split(size), f"features of {what}", leave=False)]
    logits = [p for _, p in parts if p is not None]
    return torch.cat([f for f, _ in parts]).float(), torch.cat(logits).float() if logits else None
