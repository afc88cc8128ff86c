"""Scores of samples that are there already, by whatever model: a folder of images, an .npz or a tensor."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from tqdm.auto import tqdm

from lightning_gans import checks
from lightning_gans.metrics import (
    METRICS,
    ClassifierExtractor,
    FeatureExtractor,
    GenerativeScores,
    InceptionExtractor,
    ModuleExtractor,
    content_hash,
)
from lightning_gans.metrics.generative import check_metrics
from lightning_gans.version import __version__

if TYPE_CHECKING:
    from lightning_gans.datamodules import GANDataModule

_EXTRACTORS = ("inception", "lenet", "resnet")


class Scored(NamedTuple):
    """Scores by full name, such as ``metrics/fid/inception``, and how they were made."""

    scores: dict[str, float]
    protocol: dict[str, Any]


def score_samples(
    samples: Tensor | str | Path,
    reference: GANDataModule | Tensor,
    *,
    extractor: str | nn.Module = "inception",
    metrics: Sequence[str] | str = METRICS,
    num_real: int | None = None,
    split: str = "train",
    batch_size: int = 200,
    seed: int = 0,
    is_splits: int = 10,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    cache_dir: str | None = None,
    device: str | None = None,
) -> Scored:
    """Score samples against a data set, as ``callbacks.GenerativeMetrics`` does while training.

    With ``inception`` these are torch-fidelity's features and formulas: FID, precision and recall are its numbers, IS
    and KID too where nothing is drawn at random (one split; one subset of all samples). Images are taken as they are,
    never resized but by the extractor. All samples count; another number of them gives another FID.

    Args:
        samples: uint8 images (N, C, H, W); or the path of a folder or zip file of images, all of one size (the
            overviews that ``predict`` writes among its images are left out), or of an .npz with an array ``samples``
            (or only one array) of uint8 (N, H, W, C) or (N, C, H, W).
        reference: a data module of images, or uint8 images (M, C, H, W) of the same size.
        extractor: ``inception`` (canonical; 2048 features of torch-fidelity's InceptionV3), ``lenet`` or ``resnet`` (a
            small classifier trained on the data module's training split at first use, then cached), or a module that
            maps uint8 images (N, C, H, W) to features (N, F) or to (features, logits).
        metrics: some of ``fid``, ``is``, ``kid``, ``prdc``, as a sequence or as one string with commas.
        num_real: size of the reference, drawn at random from the split; None = all of it.
        split: split of the data module that is the reference, ``train`` or ``test``.
        batch_size: images per forward pass of the extractor.
        seed: of the reference subset, and of the random subsets of IS and KID.
        is_splits: parts of the inception score.
        kid_subsets: subsets over which KID is averaged.
        kid_subset_size: their size, lowered to the number of samples at hand.
        cache_dir: folder for trained classifiers; None = ``$LIGHTNING_GANS_CACHE``, else ``~/.cache/lightning_gans``.
        device: where the extractor runs; None = a GPU if there is one.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: for settings out of range, samples that are no images, too few, or of another shape than the data.
    """
    names = check_metrics(metrics.split(",") if isinstance(metrics, str) else metrics)
    checks.at_least_one(batch_size=batch_size, is_splits=is_splits, kid_subsets=kid_subsets)
    checks.one_of("split", split, ("train", "test"))
    if kid_subset_size < 2:
        raise ValueError(f"kid_subset_size must be an integer >= 2, got {kid_subset_size!r}.")
    if not isinstance(extractor, nn.Module):
        checks.one_of("extractor", extractor, _EXTRACTORS)
    fake = samples if isinstance(samples, Tensor) else read_samples(samples)
    _check_images("samples", fake)
    needed = max(6 if "prdc" in names else 2, is_splits if "is" in names else 2)
    if len(fake) < needed:
        raise ValueError(
            f"samples must be at least {needed} for {', '.join(names)} of these settings, got {len(fake)}."
        )

    module = None if isinstance(reference, Tensor) else reference
    if module is not None:
        module.prepare_data()
    real, told = (reference, "images") if module is None else (module.reference(split)[0], module.describe())  # type: ignore[arg-type]
    assert isinstance(real, Tensor)
    _check_images("the reference", real)
    fake = _like_reference(fake, real)
    if num_real is not None:
        low = 6 if "prdc" in names else 2
        if not low <= num_real <= len(real):
            raise ValueError(f"num_real must be in {low}..{len(real)}, the size of the reference, got {num_real}.")
        real = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:num_real].sort().values]

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = _ready(extractor, module, cache_dir, where)
    scores = GenerativeScores(
        _extract(network, real, batch_size, where, "real images")[0],
        names, is_splits=is_splits, kid_subsets=kid_subsets, kid_subset_size=kid_subset_size, seed=seed,
    )  # fmt: skip
    found = scores(*_extract(network, fake, batch_size, where, "samples"))
    subsets, size = scores.kid_plan(len(real), len(fake))
    label = network.name if split == "train" else f"{network.name}-{split}"
    return Scored(
        {f"metrics/{name}/{label}": value for name, value in found.items()},
        {
            **network.describe(),
            "reference": told,
            "reference_split": None if module is None else split,
            "reference_items": len(real),
            "reference_hash": content_hash(real),
            "fakes": len(fake),
            "fakes_hash": content_hash(fake),
            "images": "uint8, as they are",
            "seed": seed,
            "features_dtype": "float32",
            "scores_dtype": "float64",
            "is_splits": is_splits,
            "kid_subsets": subsets,
            "kid_subset_size": size,
            "versions": {"lightning_gans": __version__, "torch": torch.__version__},
        },
    )


# ---------------------------------------------------------------------- reading
def read_samples(path: str | Path) -> Tensor:
    """The images of a folder, a zip file or an .npz, uint8 (N, C, H, W); those of files are RGB.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: no images, one that cannot be read, or images of several sizes.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"samples: there is nothing at {path}; it must be a folder of images, or an .npz.")
    return _read_npz(path) if path.suffix == ".npz" else _read_files(path)


def _read_npz(path: Path) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ["samples"] if "samples" in file.files else file.files
            array = file[names[0]] if len(names) == 1 else None
    except Exception as error:  # damaged bytes make numpy and zipfile fail in many ways
        raise ValueError(f"samples: {path} is no readable .npz of numbers.") from error
    if array is None:
        raise ValueError(
            f"samples: {path} must hold an array 'samples', or only one, got {', '.join(names) or 'none'}."
        )
    if array.dtype != np.uint8 or array.ndim != 4 or not {array.shape[1], array.shape[3]} & {1, 3}:
        raise ValueError(f"samples: {path} must hold uint8 (N, H, W, 1 or 3), got {array.dtype} {array.shape}.")
    images = torch.from_numpy(array)
    return images.permute(0, 3, 1, 2).contiguous() if array.shape[3] in (1, 3) else images


def _read_files(path: Path) -> Tensor:
    from lightning_gans.callbacks.sample_writer import OVERVIEWS  # here: `import lightning_gans` need not wait for it
    from lightning_gans.datamodules.folder import list_images, reader, recolour

    names = [name for name in list_images(path) if name not in OVERVIEWS]
    read, close = reader(path)

    def pixels(name: str) -> np.ndarray | str:
        try:
            with Image.open(io.BytesIO(read(name))) as image:
                return np.asarray(recolour(ImageOps.exif_transpose(image), "RGB"))
        except Exception as error:  # decoders fail in many ways
            return " ".join(str(error).split()) or type(error).__name__

    try:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = list(tqdm(pool.map(pixels, names), "reading samples", len(names), leave=False, unit="image"))
    finally:
        close()
    images: list[np.ndarray] = []
    for name, image in zip(names, found):
        if isinstance(image, str):
            raise ValueError(f"samples: {name} of {path} cannot be read ({image}).")
        images.append(image)
        if image.shape != images[0].shape:
            raise ValueError(
                f"samples must be images of one size, but in {path} {names[0]} has {_size(images[0])} pixels and "
                f"{name} {_size(image)}."
            )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _size(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape[:2]))


def _check_images(what: str, images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(
            f"{what} must be uint8 images (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}; toy data "
            "are scored by ModeCoverage."
        )


def _like_reference(fake: Tensor, real: Tensor) -> Tensor:
    """Samples with the reference's number of channels: grey images are stored as RGB by many."""
    shape, wanted = tuple(fake.shape[1:]), tuple(real.shape[1:])
    if shape[1:] == wanted[1:] and {shape[0], wanted[0]} == {1, 3}:
        if shape[0] == 1:
            return fake.expand(-1, 3, -1, -1)
        if bool((fake == fake[:, :1]).all()):
            return fake[:, :1]
        raise ValueError(f"samples must be grey, as the reference is, got coloured images of shape {shape}.")
    if shape != wanted:
        raise ValueError(f"samples must have the reference's shape {wanted}, got {shape}: nothing is resized here.")
    return fake


# ---------------------------------------------------------------------- features
def _ready(
    extractor: str | nn.Module, data: GANDataModule | None, cache_dir: str | None, device: torch.device
) -> FeatureExtractor:
    if extractor == "inception":
        extractor = InceptionExtractor()
    elif isinstance(extractor, str):
        images, labels = (None, None) if data is None else data.reference("train")
        if images is None or labels is None:
            raise ValueError(
                f"extractor={extractor!r} is trained on the data set's labels, but there are none: take 'inception' or "
                "give a module."
            )
        extractor = ClassifierExtractor(images, labels, extractor, cache_dir=cache_dir, device=device)
    elif not isinstance(extractor, FeatureExtractor):
        extractor = ModuleExtractor(extractor)
    assert isinstance(extractor, FeatureExtractor)
    return extractor.to(device)


@torch.no_grad()
def _extract(
    extractor: FeatureExtractor, images: Tensor, batch_size: int, device: torch.device, title: str
) -> tuple[Tensor, Tensor | None]:
    """Features and logits of all images, float32."""
    features: list[Tensor] = []
    logits: list[Tensor] = []
    for batch in tqdm(images.split(batch_size), f"features of {title}", leave=False):
        one, two = extractor(batch.to(device))
        features.append(one.float())
        if two is not None:
            logits.append(two.float())
    return torch.cat(features), torch.cat(logits) if logits else None
