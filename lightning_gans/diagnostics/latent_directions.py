"""Directions in the latent space of a trained GAN along which something changes that can be told, without labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from lightning_gans import checks
from lightning_gans.compat.lightning import pl
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import conditional_call, takes_labels
from lightning_gans.functional.latent import from_w, in_w, to_w
from lightning_gans.functional.modes import copied, evaluating
from lightning_gans.functional.numerics import full_precision
from lightning_gans.metrics.extractors import weights_hash
from lightning_gans.networks.reconstructors import Reconstructor
from lightning_gans.techniques.boosted_gan import component
from lightning_gans.visualization.images import grid_image
from lightning_gans.visualization.toy import scatter_picture

Kind = Literal["orthonormal", "unit", "free"]
Init = Literal["random", "axes"]
EPOCH, VALIDATION = 500, 50  # steps, and batches of fresh pairs after them


class Pairs(NamedTuple):
    """Samples ``first`` (N, ...) and ``second``, which is the first shifted by ``shift`` (N,) along ``direction``."""

    first: Tensor
    second: Tensor
    direction: Tensor
    shift: Tensor


class UnitColumns(nn.Module):
    """A parametrization: each column over its length."""

    def forward(self, matrix: Tensor) -> Tensor:
        """(d, K) to (d, K)."""
        return F.normalize(matrix, dim=0)

    def right_inverse(self, matrix: Tensor) -> Tensor:
        """What is kept of an assigned matrix."""
        return matrix


class FromW(nn.Module):
    """A generator as a function of its w, which labels have gone into."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator, self.latent_dim = generator, len(generator.w_mean)
        self.num_classes: int | None = getattr(generator, "num_classes", None)

    def forward(self, w: Tensor, labels: Tensor | None = None) -> Tensor:
        """w (N, w_dim) to samples."""
        return from_w(self.generator, w)


class LatentDirections(pl.LightningModule):
    r"""K directions in the latent space of a frozen generator, found without labels (arXiv:2002.03754).

    A matrix :math:`A \in R^{d \times K}` and a reconstructor R are trained together, so that R can tell along which
    column a sample was shifted, and how far:

    .. math:: \min_{A, R} E_{z, k, \epsilon}\; CE(k, \hat k) + \lambda |\epsilon - \hat\epsilon|, \qquad
              (\hat k, \hat\epsilon) = R(G(z),\, G(z + \epsilon A e_k))

    with z standard normal, k uniform, and :math:`\epsilon` uniform in [-max_shift, max_shift], where all magnitudes
    below ``min_shift`` are raised to it. It needs no data: ``Trainer(max_steps=20_000).fit(directions)``. Noise comes
    from ``seed`` and the place in the training alone, so a resumed training goes on as it would have.

    The generator is a copy in evaluation mode and no part of this module: whatever was given is left as it is, and a
    checkpoint holds A and R. To load one, give the generator again: ``LatentDirections.load_from_checkpoint(path,
    module=gan)``; another one is refused. Its averaged weights are taken if there are any. A conditional generator
    gets one class, drawn uniformly, for both samples of a pair.

    Logged: ``train/loss``, ``train/cross_entropy``, ``train/shift_error``, ``train/accuracy``; and on fresh pairs with
    R in evaluation mode, every 500 steps and by ``Trainer.validate``: ``directions/rca``, the share of directions that
    R tells (reconstructor classification accuracy, chance 1 / K), and ``directions/shift_error``, the mean of
    :math:`|\epsilon - \hat\epsilon|`. A high RCA says that directions can be told apart, not that people can name them:
    see ``sign_accuracy`` and ``attribute_correlations`` of ``diagnostics.direction_measures``.

    Args:
        module: a GAN, or a generator: noise (N, d) [, labels (N,)] to samples (N, ...).
        num_directions: K; None is d. At most d if they are orthonormal.
        latent_dim: d, where the generator does not tell it.
        kind: what A is held to after every step: ``orthonormal`` columns (a matrix exponential), columns of ``unit``
            length, or nothing (``free``).
        init: ``random`` columns of unit length, orthonormal for that kind, or the first K coordinate ``axes``, which
            suit generators that break down off their prior.
        reconstructor: R, (N, ...) twice to logits (N, K) and shifts (N,); None is a :class:`Reconstructor`.
        max_shift: the largest :math:`|\epsilon|`.
        min_shift: the smallest, in [0, max_shift).
        shift_weight: lambda, >= 0.
        batch_size: pairs in a step.
        lr: of Adam, for A and R.
        seed: of the noise.
        space: z, or w of a generator that has it (`networks.StyleGenerator`), whose coordinates they are then.

    Raises:
        ValueError: for settings out of range, a model whose noise is not normal, and a generator or reconstructor that
            cannot be used.

    >>> from lightning_gans.networks import ToyGenerator
    >>> directions = LatentDirections(ToyGenerator(latent_dim=4, width=8), num_directions=3)
    >>> A = directions.matrix
    >>> A.shape, torch.allclose(A.T @ A, torch.eye(3), atol=1e-5)
    (torch.Size([4, 3]), True)
    """

    def __init__(
        self,
        module: nn.Module,
        num_directions: int | None = None,
        *,
        latent_dim: int | None = None,
        kind: Kind = "orthonormal",
        init: Init = "random",
        reconstructor: nn.Module | None = None,
        max_shift: float = 6.0,
        min_shift: float = 0.5,
        shift_weight: float = 0.25,
        batch_size: int = 32,
        lr: float = 1e-4,
        seed: int = 0,
        space: Literal["z", "w"] = "z",
    ) -> None:
        super().__init__()
        checks.one_of("space", space, ("z", "w"))
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must be a GANModule or a generator, got a {type(module).__name__}.")
        if getattr(module, "vocabulary_size", None) is not None:
            raise ValueError("module must make images or points for LatentDirections, got one that makes text.")
        generator = component(module, self)
        told = getattr(module, "latent_dim", getattr(generator, "latent_dim", None))
        self.noise_length: int | None = None
        if space == "w":
            if not in_w(generator):
                raise ValueError(f"space must be z for a {type(generator).__name__}, which has no w, got 'w'.")
            self.noise_length = told
            generator = FromW(generator)
            told = generator.latent_dim
        d = told if latent_dim is None else latent_dim
        if d is None:
            raise ValueError(
                f"latent_dim must be given for a {type(module).__name__}, which does not tell it, got None."
            )
        k = d if num_directions is None else num_directions
        checks.at_least_one(latent_dim=d, num_directions=k, batch_size=batch_size)
        checks.one_of("kind", kind, get_args(Kind))
        checks.one_of("init", init, get_args(Init))
        checks.positive(max_shift=max_shift, lr=lr)
        below = f"in [0, max_shift) = [0, {max_shift:g})"
        checks.each({"min_shift": min_shift}, below, lambda shift: 0 <= shift < max_shift)
        checks.not_negative(shift_weight=shift_weight)
        checks.at_least(0, seed=seed)
        if k > d and (kind == "orthonormal" or init == "axes"):
            raise ValueError(
                f"num_directions must be at most latent_dim = {d} if they are {kind} from {init}, got {k}."
            )
        self.save_hyperparameters(ignore=["module", "reconstructor"])
        self.latent_dim, self.num_directions, self.kind = d, k, kind
        self.max_shift, self.min_shift, self.shift_weight = max_shift, min_shift, shift_weight
        self.batch_size, self.lr, self.seed = batch_size, lr, seed
        self.place = 0  # training steps so far, which the noise of the next one depends on
        frozen = copied(generator).eval().requires_grad_(False)
        self._frozen = {"generator": frozen}  # a dict, so that it is no submodule
        self.num_classes = _num_classes(generator)
        weight = next((t for t in [*frozen.parameters(), *frozen.buffers()] if t.is_floating_point()), torch.empty(0))
        self.noise_dtype = weight.dtype
        self.shape = _probe(frozen, d, self.num_classes, weight)
        self.directions = _columns(d, k, kind, init, self.noise_dtype)
        self.reconstructor = Reconstructor(self.shape, k) if reconstructor is None else reconstructor
        self.reconstructor.to(self.noise_dtype)
        _check_reconstructor(self.reconstructor, self.shape, k, self.noise_dtype)

    # ------------------------------------------------------------------ shifts
    @property
    def generator(self) -> nn.Module:
        """The frozen copy."""
        return self._frozen["generator"].to(self.device)

    @property
    def matrix(self) -> Tensor:
        """A (d, K), a column for each direction, with its graph."""
        return self.directions.weight

    def forward(self, z: Tensor, direction: Tensor, shift: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""Samples :math:`G(z + \epsilon A e_k)` of noise (N, d), numbers of directions k (N,) and shifts (N,)."""
        return conditional_call(self.generator, z + shift[:, None] * self.matrix.T[direction], labels)

    def noise(self, n: int, source: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Noise (n, d), or its w, and labels (n,) for a conditional generator, from a CPU generator."""
        length = self.noise_length or self.latent_dim
        z = draw.normal(n, length, generator=source, device=self.device, dtype=self.noise_dtype)
        labels = None if self.num_classes is None else _whole(n, self.num_classes, source, self.device)
        if self.noise_length is not None:
            with torch.no_grad():
                z = to_w(self.generator.generator, z, labels)
        return z, labels

    def pairs(self, n: int, source: torch.Generator) -> Pairs:
        """``n`` fresh pairs; the gradient goes to A through the second samples only."""
        z, labels = self.noise(n, source)
        direction = _whole(n, self.num_directions, source, self.device)
        uniform = draw.uniform(n, generator=source, device=self.device, dtype=self.noise_dtype)
        shift = raised(self.max_shift * (2 * uniform - 1), self.min_shift)
        first = conditional_call(self.generator, z, labels)  # frozen: without a graph
        return Pairs(first, self(z, direction, shift, labels), direction, shift)

    # ------------------------------------------------------------------ training
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step of A and R together; the batch is a number that says nothing."""
        terms = self._terms(2 * self.place)
        self.place += 1
        loss = terms["cross_entropy"] + self.shift_weight * terms["shift_error"]
        values = {"loss": loss, **terms}
        bar = {name: values.pop(name) for name in ("loss", "accuracy")}
        for some, shown in ((bar, True), (values, False)):
            self.log_dict(
                {f"train/{n}": v.detach() for n, v in some.items()}, prog_bar=shown, batch_size=self.batch_size
            )
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the accuracy and the error on fresh pairs, the same each time."""
        terms = self._terms(2 * batch_idx + 1)
        seen = {"directions/rca": terms["accuracy"], "directions/shift_error": terms["shift_error"]}
        self.log_dict(seen, prog_bar=True, batch_size=self.batch_size, sync_dist=True)

    def _terms(self, place: int) -> dict[str, Tensor]:
        pairs = self.pairs(self.batch_size, source_of(self.seed, place))
        logits, shift = (full_precision(output) for output in self.reconstructor(pairs.first, pairs.second))
        return {
            "cross_entropy": F.cross_entropy(logits, pairs.direction),
            "shift_error": (shift - pairs.shift).abs().mean(),
            "accuracy": (logits.detach().argmax(1) == pairs.direction).double().mean().to(shift.dtype),
        }

    def train_dataloader(self) -> Iterable[int]:
        """Numbers, as many as an epoch has steps: it takes no data."""
        return range(EPOCH)

    def val_dataloader(self) -> Iterable[int]:
        """The numbers of the batches of fresh pairs."""
        return range(VALIDATION)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam for A and R."""
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=self.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which generator the directions are of, and where the noise is."""
        checkpoint["directions"] = {"generator": weights_hash(self.generator), "place": self.place}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse directions of another generator."""
        kept = checkpoint["directions"]
        was, now = kept["generator"], weights_hash(self.generator)
        if was != now:
            raise ValueError(f"module must be the generator {was} that the directions were found for, got {now}.")
        self.place = kept["place"]

    # ------------------------------------------------------------------ pictures
    @torch.no_grad()
    def chart(
        self,
        direction: int | None = None,
        *,
        rows: int = 6,
        columns: int = 9,
        value_range: tuple[float, float] = (-1.0, 1.0),
        seed: int = 0,
    ) -> Image.Image:
        """What changes along one direction, or along each: shifts from -max_shift to max_shift from left to right.

        Images: a row for each of ``rows`` noise vectors, or for each direction, of one vector. Points in 1-D and 2-D: a
        scatter of 200 samples at each shift, a panel for each direction.

        Args:
            direction: its number; None is all of them.
            rows: noise vectors, for one direction.
            columns: shifts, >= 2; an odd number has the unshifted sample in the middle.
            value_range: of images, the values that become black and white.
            seed: of the noise.

        Raises:
            ValueError: there is no such direction, or samples are neither images nor such points.
        """
        checks.within(0, self.num_directions - 1, **checks.given(direction=direction))
        checks.at_least_one(rows=rows, columns=columns - 1)
        which = range(self.num_directions) if direction is None else [direction]
        points = self.shape in ((1,), (2,))
        if not points and len(self.shape) != 3:
            raise ValueError(f"chart needs images (C, H, W), or points in 1-D or 2-D, got {self.shape}.")
        n = 200 if points else 1 if direction is None else rows
        z, _ = self.noise(n, torch.Generator().manual_seed(seed))
        labels = None if self.num_classes is None else torch.arange(n, device=self.device) % self.num_classes
        shifts = torch.linspace(-self.max_shift, self.max_shift, columns)
        shown = torch.stack([torch.stack([self.at(z, k, float(s), labels) for s in shifts], 1) for k in which])
        if not points:
            return grid_image(shown.float().flatten(0, 2), columns, value_range)
        return scatter_picture(shown.float().cpu(), shifts, list(which))

    def at(self, z: Tensor, direction: int, shift: float, labels: Tensor | None = None) -> Tensor:
        """Samples of noise (N, d), all shifted alike along one direction."""
        numbers = torch.full((len(z),), direction, device=z.device)
        return self(z, numbers, z.new_full((len(z),), shift), labels)


def raised(shift: Tensor, smallest: float) -> Tensor:
    """Shifts with magnitudes below ``smallest`` raised to it, signs kept; an exact zero stays (arXiv:2002.03754)."""
    return shift.sign() * shift.abs().clamp(min=smallest)


# ---------------------------------------------------------------------- parts
def source_of(seed: int, place: int) -> torch.Generator:
    """Random numbers of one place; torch would look at the lower 32 bits of a seed only."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, place]).generate_state(1)[0]))


def _whole(n: int, below: int, source: torch.Generator, device: torch.device) -> Tensor:
    """(n,) whole numbers, uniform in 0..below-1."""
    uniform = draw.uniform(n, generator=source, device=device, dtype=torch.float64)
    return (uniform * below).long().clamp(max=below - 1)


def _num_classes(generator: nn.Module) -> int | None:
    """The classes that a generator knows, None without labels."""
    known = getattr(generator, "num_classes", None)
    if takes_labels(generator) and known is None:
        raise ValueError(f"module must tell num_classes if it takes labels, got a {type(generator).__name__} without.")
    return known if takes_labels(generator) else None


def _probe(generator: nn.Module, latent_dim: int, num_classes: int | None, like: Tensor) -> tuple[int, ...]:
    """The shape of a sample, of a generator that can be differentiated by its noise."""
    z = torch.zeros(2, latent_dim, dtype=like.dtype, device=like.device, requires_grad=True)
    labels = None if num_classes is None else torch.zeros(2, dtype=torch.int64, device=like.device)
    try:
        with torch.enable_grad():
            sample = conditional_call(generator, z, labels)
    except (RuntimeError, IndexError, ValueError) as error:
        shape = tuple(z.shape)
        raise ValueError(f"module failed on noise of shape {shape}: latent_dim is another length ({error}).") from error
    if not sample.requires_grad:
        raise ValueError("module must have a gradient by its noise, got samples without one.")
    return tuple(sample.shape[1:])


@torch.no_grad()
def _check_reconstructor(network: nn.Module, shape: tuple[int, ...], k: int, dtype: torch.dtype) -> None:
    samples = torch.zeros(2, *shape, dtype=dtype, device=next(network.parameters(), torch.empty(0)).device)
    with evaluating(network):  # parts may be kept in evaluation mode
        logits, shift = network(samples, samples)
    if logits.shape != (2, k) or shift.shape != (2,):
        raise ValueError(
            f"reconstructor must return logits (N, {k}) and shifts (N,), got {tuple(logits.shape)} and "
            f"{tuple(shift.shape)} for 2 pairs."
        )


def _columns(d: int, k: int, kind: str, init: str, dtype: torch.dtype) -> nn.Linear:
    """A as the weight (d, K) of a linear layer, held to what ``kind`` says."""
    layer = nn.Linear(k, d, bias=False, dtype=dtype)
    with torch.no_grad():
        if init == "axes":
            layer.weight.copy_(torch.eye(d, k))
        elif kind == "orthonormal":
            nn.init.orthogonal_(layer.weight)
        else:
            layer.weight.copy_(F.normalize(torch.randn(d, k, dtype=dtype), dim=0))
    if kind == "orthonormal":
        parametrizations.orthogonal(layer, orthogonal_map="matrix_exp")
    elif kind == "unit":
        parametrize.register_parametrization(layer, "weight", UnitColumns())
    return layer
