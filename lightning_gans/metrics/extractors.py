"""Feature extractors: uint8 images (N, C, H, W) -> features (N, F) and, where there are classes, logits (N, K).

One extractor object serves FID, IS, KID and precision/recall/density/coverage, so that all of them see the same resize
and the same weights. Its ``name`` goes into the name of every score made with it: a stand-in never poses as the
canonical score.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from lightning_gans import checks
from lightning_gans.networks.classifiers import LeNet, ResNetClassifier
from lightning_gans.runs.atomic import locked, replacing

CLASSIFIERS: dict[str, type[nn.Module]] = {"lenet": LeNet, "resnet": ResNetClassifier}
# Trained by the recipe of `ClassifierExtractor` on Digits, MNIST (lenet) and CIFAR-10 (resnet), and rounded to float16.
SHIPPED = Path(__file__).parent / "classifiers"


def content_hash(*tensors: Tensor) -> str:
    """First 16 hexadecimal digits of the SHA-256 of shapes, dtypes and values: equal content, equal hash.

    >>> [content_hash(torch.zeros(2)) == content_hash(torch.zeros(n)) for n in (2, 3)]
    [True, False]
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{tuple(flat.shape)}{flat.dtype}".encode())
        if flat.numel():
            digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)  # no copy
    return digest.hexdigest()[:16]


def weights_hash(module: nn.Module) -> str:
    """:func:`content_hash` of a module's parameters and buffers, in the order of their names.

    >>> one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> weights_hash(one) == weights_hash(other)
    False
    >>> _ = other.load_state_dict(one.state_dict())
    >>> weights_hash(one) == weights_hash(other)
    True
    """
    return content_hash(*(value for _, value in sorted(module.state_dict().items())))


def cache_folder() -> Path:
    """Where trained classifiers are kept: ``$LIGHTNING_GANS_CACHE``, else ``~/.cache/lightning_gans``."""
    return Path(os.environ.get("LIGHTNING_GANS_CACHE") or "~/.cache/lightning_gans").expanduser()


def check_images(images: Tensor) -> None:
    """Raise unless ``images`` are uint8 of shape (N, C, H, W)."""
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(
            f"images must be uint8 of shape (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}; "
            "for toy data use ModeCoverage."
        )


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator for a while; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class FeatureExtractor(nn.Module):
    """Base of the extractors: ``forward(images) -> (features, logits or None)``, in evaluation mode for good.

    Attributes:
        name: how scores made with it are called (``metrics/fid/<name>``).
        resize: what happens to the images' size, for the protocol.
        has_logits: whether the second output is there (the inception score needs it).

    >>> class Pixels(FeatureExtractor):
    ...     name = "pixels"
    ...     def forward(self, images):
    ...         return images.flatten(1).float(), None
    >>> Pixels().train().training, Pixels().describe()["resize"]
    (False, 'none')
    """

    name: str
    resize: str = "none"
    has_logits: bool = False

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)

    def describe(self) -> dict[str, Any]:
        """The extractor's part of the protocol: name, hash of its weights, resize."""
        return {"extractor": self.name, "extractor_weights": weights_hash(self), "resize": self.resize}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, F) and logits (N, K) of uint8 images (N, C, H, W)."""
        raise NotImplementedError


class InceptionExtractor(FeatureExtractor):
    """torch-fidelity's InceptionV3, converted from TensorFlow's of 2015-12-05: the canonical features.

    2048 pooled features and the 1008 logits without bias. Images are resized to 299x299 as TensorFlow 1 did (bilinear,
    no antialiasing); grey images are repeated to three channels.

    Args:
        weights_path: file with the weights; None lets torch-fidelity download them once into torch's hub folder.

    Raises:
        ValueError: the weights file is missing, is no such file, or could not be downloaded.

    >>> InceptionExtractor.name, InceptionExtractor.has_logits
    ('inception', True)
    >>> features, logits = InceptionExtractor()(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))  # doctest: +SKIP
    >>> features.shape, logits.shape  # doctest: +SKIP
    (torch.Size([1, 2048]), torch.Size([1, 1008]))
    """

    name = "inception"
    resize = "299x299 bilinear as in TensorFlow 1, antialias=False"
    has_logits = True

    def __init__(self, weights_path: str | os.PathLike[str] | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # only here is it needed

        super().__init__()
        path = None if weights_path is None else os.path.expanduser(os.fspath(weights_path))
        if path is not None and not os.path.isfile(path):
            raise ValueError(f"weights_path must be a file with InceptionV3 weights, got {path!r}, which is not there.")
        try:
            if path is not None:
                torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would unpickle anything
            with _own_random_state(0):  # building the network draws initial weights
                self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], path)
        except OSError as error:
            raise ValueError(
                f"the Inception weights could not be downloaded ({error}); give weights_path=<local file>, or take "
                "extractor='lenet' or 'resnet'."
            ) from error
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"weights_path={path!r} holds no InceptionV3 weights: {reason}") from error
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, 2048) and logits (N, 1008)."""
        check_images(images)
        if images.shape[1] not in (1, 3):
            raise ValueError(f"Inception takes images of 1 or 3 channels, got {images.shape[1]}.")
        features, logits = self.network(images.expand(-1, 3, -1, -1))
        return features, logits


class ModuleExtractor(FeatureExtractor):
    """Any module that maps uint8 images to features (N, F), or to a pair of features and logits.

    Args:
        module: the network; it is put into evaluation mode.
        name: name of the scores; by default the module's ``name`` attribute, else its class name in lower case, with
            ``own-`` before it where that is the name of one of our extractors.

    >>> extractor = ModuleExtractor(nn.Flatten(), name="pixels")
    >>> features, logits = extractor(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    >>> extractor.name, tuple(features.shape), logits
    ('pixels', (2, 16), None)
    """

    def __init__(self, module: nn.Module, name: str | None = None) -> None:
        super().__init__()
        own_name = getattr(module, "name", None)
        self.name = name or (own_name if isinstance(own_name, str) else type(module).__name__.lower())
        if self.name in ("inception", *CLASSIFIERS):
            self.name = f"own-{self.name}"
        self.resize = "the module's own"
        self.module = module
        self.has_logits = True  # not known before it is called
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the module returns, with None for logits that it does not have."""
        output = self.module(images)
        features, logits = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
        got = tuple(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
        if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(images):
            raise ValueError(
                f"extractor {self.name!r} must return features of shape (N, F), or a tuple of them and logits, got "
                f"{got} for {len(images)} images."
            )
        return features, logits


def as_extractor(module: nn.Module) -> FeatureExtractor:
    """An extractor of a module that is none; no other than Inception is called by that name.

    Raises:
        ValueError: the name of an extractor is one of ours, and it is not that.

    >>> as_extractor(nn.Flatten()).name
    'flatten'
    """
    if not isinstance(module, FeatureExtractor):
        return ModuleExtractor(module)
    known = {"inception": InceptionExtractor, **dict.fromkeys(CLASSIFIERS, ClassifierExtractor)}
    if not isinstance(module, known.get(module.name, FeatureExtractor)):
        raise ValueError(
            f"name must be another than {', '.join(known)} for {type(module).__name__}, got {module.name!r}."
        )
    return module


class ClassifierExtractor(FeatureExtractor):
    """Penultimate features and logits of a small classifier trained on the data set at hand.

    For data on which Inception makes no sense, or where it is not at hand. The recipe is fixed (Adam, one-cycle
    schedule, batches of 64), seeded, and leaves torch's global generators as they were; the result is kept under
    ``cache_dir`` by the hash of data, architecture and recipe. Yet rounding differs between processors and numbers of
    threads, and training makes another classifier of it, with another scale of scores. So those of the training sets of
    Digits and MNIST (``lenet``) and of CIFAR-10 (``resnet``) come with the package, and of other data scores can be
    compared where the protocol tells the same ``extractor_weights``.

    Args:
        images: training images, uint8 (N, C, H, W).
        labels: their classes, int64 (N,).
        architecture: ``"lenet"`` or ``"resnet"`` (:mod:`lightning_gans.networks.classifiers`).
        cache_dir: folder of the cache; None = :func:`cache_folder`.
        epochs: passes over the data; None = enough for about 15,000 images, at least 3.
        device: where to train.
        name: name of the scores; by default the architecture.

    >>> from tempfile import TemporaryDirectory
    >>> images, labels = torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 2, 1])
    >>> with TemporaryDirectory() as folder:
    ...     extractor = ClassifierExtractor(images, labels, cache_dir=folder, epochs=2)
    >>> extractor.name, tuple(extractor(images)[1].shape)
    ('lenet', (4, 3))
    """

    has_logits = True

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        architecture: str = "lenet",
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        epochs: int | None = None,
        device: torch.device | str = "cpu",
        name: str | None = None,
    ) -> None:
        super().__init__()
        check_images(images)
        checks.one_of("architecture", architecture, CLASSIFIERS)
        if not len(images) or labels.shape != (len(images),) or labels.dtype != torch.int64 or labels.min() < 0:
            least = f", the least {labels.min():g}" if labels.numel() else ""
            raise ValueError(
                f"labels must be int64 of shape ({len(images)},), for one image or more, and 0 or above, got "
                f"{labels.dtype} of shape {tuple(labels.shape)}{least}."
            )
        self.name = name or architecture
        num_classes = int(labels.max()) + 1
        epochs = epochs or max(3, -(-15_000 // len(images)))
        recipe = f"v1 {architecture} classes={num_classes} epochs={epochs} batch=64 adam one-cycle 3e-3"
        key = hashlib.sha256(f"{recipe} {content_hash(images, labels)}".encode()).hexdigest()[:16]
        self.path = Path(cache_dir or cache_folder()).expanduser() / "classifiers" / f"{architecture}-{key}.pt"
        device = torch.device(device)
        with _own_random_state(0):
            network = CLASSIFIERS[architecture](shape=tuple(images.shape[1:]), num_classes=num_classes)
            self.network = network.to(device=device, dtype=torch.float32)
            if not self._load(SHIPPED / self.path.name):
                # one process trains, and the others take what it has made
                with locked(self.path.with_suffix(".lock")):
                    if not self._load(self.path):
                        _train_classifier(self.network, images, labels, epochs, f"training {self.name} for the scores")
                        self._save()
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, F) and class logits (N, K)."""
        check_images(images)
        features = self.network.features(images.to(torch.float32) / 127.5 - 1)  # type: ignore[operator]
        return features, self.network.logits(features)  # type: ignore[operator]

    def _load(self, path: Path) -> bool:
        """Take the weights of a file; False if it is not there or cannot be read."""
        try:
            self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            return False
        except Exception as error:
            warnings.warn(f"{path} cannot be read ({type(error).__name__}); training anew.", stacklevel=2)
            return False
        return True

    def _save(self) -> None:
        """Put the weights into the cache; a read-only one costs a warning."""
        weights = {name: value.cpu() for name, value in self.network.state_dict().items()}
        try:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                torch.save(weights, file)
        except OSError as error:
            warnings.warn(f"the classifier could not be kept in {self.path.parent} ({error}).", stacklevel=2)


def _train_classifier(network: nn.Module, images: Tensor, labels: Tensor, epochs: int, title: str) -> None:
    """Minimise cross-entropy in place, on the network's device; all randomness is torch's global CPU generator's."""
    device = next(network.parameters()).device
    images, labels = images.to(device), labels.to(device)
    size = min(64, len(images))
    steps = len(images) // size
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * steps)
    network.train()
    with torch.enable_grad(), tqdm(total=epochs * steps, desc=title, leave=False) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images)).to(device)
            for rows in order[: steps * size].view(steps, size):
                loss = functional.cross_entropy(network(images[rows].float() / 127.5 - 1), labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    optimizer.zero_grad(set_to_none=True)
