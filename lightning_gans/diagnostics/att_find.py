"""AttFind: which coordinates of a generator decide what a classifier says, and in which direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.engine.contract import require_one_call
from lightning_gans.functional.conditional import as_logits, conditional_call
from lightning_gans.functional.latent import from_w, in_w, to_w
from lightning_gans.functional.modes import evaluating
from lightning_gans.visualization.images import grid_image

Space = Literal["styles", "w", "z"]
_CHUNK = 512  # samples at a time


class Pick(NamedTuple):
    """A coordinate that drives a decision.

    Attributes:
        coordinate: its number.
        direction: 1 where raising it is for the class, -1 where lowering it is.
        effect: mean gain of the class's logit over the samples that it was chosen by.
        flipped: share of them that come to be told as the class by it alone.
    """

    coordinate: int
    direction: int
    effect: float
    flipped: float


def coordinate_effects(
    logits_of: Callable[[Tensor, Tensor], Tensor], s: Tensor, *, shift: float = 1.0, trim: float = 0.02
) -> tuple[Tensor, Tensor, Tensor]:
    r"""What moving each coordinate to its least or largest value does to each logit of each sample.

    .. math:: \Delta_{idjk} = \ell_k(s_i + \mathrm{shift}\,(t_{dj} - s_{ij})\,e_j) - \ell_k(s_i)

    t_0 and t_1 are low and high quantiles of coordinate j over the samples, from which one never moves the wrong way.

    Args:
        logits_of: coordinates (M, S), and the number (M,) of the sample that each row is of, to logits (M, K).
        s: (N, S).
        shift: 0 leaves a coordinate, 1 moves it all the way.
        trim: the quantiles are ``trim`` and 1 - ``trim``, in [0, .5); 0 for minimum and maximum.

    Returns:
        Effects (N, 2, S, K), base logits (N, K) and targets (2, S).

    >>> s = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    >>> effects, _, _ = coordinate_effects(lambda s, _: torch.stack([0 * s[:, 0], s[:, 1]], 1), s, trim=0)
    >>> effects[0, :, :, 1].tolist()  # raising the second coordinate of the first sample does something
    [[0.0, 0.0], [0.0, 2.0]]
    """
    checks.not_negative(shift=shift)
    checks.each({"trim": trim}, "in [0, .5)", lambda share: 0 <= share < 0.5)
    n, length = s.shape
    rows = torch.arange(n, device=s.device)

    def of(x: Tensor, row: Tensor) -> Tensor:
        return torch.cat([logits_of(*part) for part in zip(x.split(_CHUNK), row.split(_CHUNK))])

    base, ends = of(s, rows), torch.stack([s.quantile(trim, 0), s.quantile(1 - trim, 0)])
    found = base.new_empty(n, 2, length, base.shape[1])
    for d in range(2):
        step = moved_by(s, ends[d], d, shift) - s
        for js in torch.arange(length, device=s.device).split(max(1, _CHUNK // n)):
            alone = nn.functional.one_hot(js, length).to(s)[:, None]
            moved = (s + step * alone).flatten(0, 1)  # coordinate by coordinate
            found[:, d, js] = (of(moved, rows.repeat(len(js))).view(len(js), n, -1) - base).transpose(0, 1)
    return found, base, ends


def moved_by(x: Tensor, end: Tensor, d: int, shift: float) -> Tensor:
    """Coordinates moved to their low (d = 0) or high end, or so much of the way; those beyond it stay."""
    return x + shift * ((torch.minimum, torch.maximum)[d](x, end) - x)


def pick_coordinates(
    effects: Tensor, base: Tensor, target: int, *, picks: int = 8, threshold: float = 0.2, unstable: float | None = None
) -> list[Pick]:
    """Greedy choice of the coordinates that move samples of other classes towards one (arXiv:2104.13369, algorithm 1).

    Over the samples that are told as another class and are not explained yet, the coordinate and direction with the
    largest mean gain is chosen; a sample is explained once its gains add up to five times ``threshold``. It stops when
    all are, or nothing gains: the released code goes on with coordinate 0.

    Args:
        effects: (N, 2, S, K), see :func:`coordinate_effects`.
        base: (N, K) logits.
        target: the class.
        picks: at most so many.
        threshold: a gain that counts, in logits, > 0.
        unstable: leave out samples of which more than this share of coordinates has an effect above ten thresholds.

    Raises:
        ValueError: for a class that there is not, and where no sample is told as another.

    >>> effects, base = torch.zeros(1, 2, 3, 2), torch.tensor([[1.0, 0.0]])  # a sample of class 0, three coordinates
    >>> effects[0, 1, 2, 1] = 2.0  # raising the last one is for class 1
    >>> [(pick.coordinate, pick.direction, pick.effect) for pick in pick_coordinates(effects, base, target=1)]
    [(2, 1, 2.0)]
    """
    classes = base.shape[1]
    checks.within(0, classes - 1, target=target)
    checks.at_least_one(picks=picks)
    checks.positive(threshold=threshold)
    others = base.argmax(1) != target
    if not bool(others.any()):
        raise ValueError(
            f"target must be a class that the classifier does not tell of all samples, got {target}, which it tells of "
            f"all {len(base)}: explain another class, or train the generator longer."
        )
    if unstable is not None:
        others &= (effects.abs() > 10 * threshold).flatten(1).double().mean(1) <= unstable
    if not bool(others.any()):
        raise ValueError(f"unstable must leave some samples of other classes than {target}, got {unstable!r}.")
    effects, base = effects[others], base[others]
    gain = effects[..., target].relu().flatten(1)
    explained, found = gain.new_zeros(len(gain)), list[Pick]()
    while len(found) < picks and bool((left := explained < 5 * threshold).any()):
        mean = gain[left].mean(0)
        column = int(mean.argmax())
        if not mean[column] > 0:
            break
        explained += gain[:, column]
        gain[:, column] = 0
        d, j = divmod(column, effects.shape[2])
        flipped = (base + effects[:, d, j]).argmax(1) == target
        found.append(Pick(j, 2 * d - 1, float(mean[column]), float(flipped.double().mean())))
    return found


def merge_picks(effects: Tensor, of_class: Mapping[int, list[Pick]]) -> list[Pick]:
    """One list for two classes, by directions for class 0: those of class 1 turned round, the most telling first.

    The effect is the mean gain of class 0 in that direction and of class 1 in the other, over all samples.

    >>> effects = torch.zeros(1, 2, 3, 2)
    >>> effects[0, 1, 2] = torch.tensor([-1.0, 2.0])  # raising the last coordinate is for class 1
    >>> effects[0, 0, 2] = torch.tensor([2.0, -1.0])  # lowering it for class 0
    >>> merged = merge_picks(effects, {0: [], 1: [Pick(2, 1, 2.0, 1.0)]})
    >>> [(pick.coordinate, pick.direction, pick.effect) for pick in merged]
    [(2, -1, 4.0)]
    """
    turned = {p.coordinate: p._replace(direction=-p.direction) for p in reversed(of_class[1])}
    chosen = {**turned, **{p.coordinate: p for p in reversed(of_class[0])}}  # of both directions the one chosen first
    mean = effects.mean(0)

    def told(p: Pick) -> Pick:
        d = (p.direction + 1) // 2
        return p._replace(effect=float(mean[d, p.coordinate, 0] + mean[1 - d, p.coordinate, 1]))

    return sorted(map(told, chosen.values()), key=lambda p: -p.effect)


class AttFind:
    """Which coordinates of a trained generator drive a classifier's decision (Lang et al. 2021, arXiv:2104.13369).

    Each coordinate of a space is moved to its low and its high end, one at a time, and the classifier looks at what
    comes of it (:func:`coordinate_effects`); :meth:`picks` chooses those that explain most, :meth:`table` tells and
    :meth:`chart` shows them. Nothing is trained, and neither network is changed.

    Args:
        module: a model whose noise can be chosen.
        classifier: samples (N, ...) to logits (N, K), K >= 2; or (N,) or (N, 1), the logit of class 1 against 0.
        space: coordinates: ``styles`` of all style layers (not those of the images, as in the paper), ``w``, or ``z``;
            by default styles where the generator has them.
        n: samples.
        shift: see :func:`coordinate_effects`, as for ``trim``.
        trim: quantiles in place of minimum and maximum.
        codes: w (N, w_dim) of samples to look at, of real ones, say (`StylEx.encode`), in place of ``n`` drawn ones.
        seed: of the samples.

    Attributes:
        coordinates: (n, S) of the samples.
        effects: (n, 2, S, K).
        base: (n, K) logits of the samples.

    Raises:
        ValueError: for a space that the generator does not have, and a classifier that does not fit.

    >>> from types import SimpleNamespace
    >>> z = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> model = SimpleNamespace(network=nn.Identity(), latents=lambda n, seed: (z, None))
    >>> found = AttFind(model, lambda x: -2 * x[:, 1], n=64)
    >>> [(pick.coordinate, pick.direction) for pick in found.picks(target=1)]
    [(1, -1)]
    """

    @torch.no_grad()
    def __init__(
        self,
        module: Any,
        classifier: Callable[[Tensor], Tensor],
        *,
        space: Space | None = None,
        n: int = 100,
        shift: float = 1.0,
        trim: float = 0.02,
        codes: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        n = n if codes is None else len(codes)
        checks.at_least(2, n=n)
        checks.functions(classifier=classifier)
        self.network, self.classifier = module.network, classifier
        styled, between = hasattr(self.network, "styles"), in_w(self.network)
        self.space: Space = space or ("styles" if styled else "w" if between else "z")
        checks.one_of("space", self.space, ("styles", "w", "z"))
        if not {"styles": styled, "w": between, "z": True}[self.space]:
            raise ValueError(f"space must be one that a {type(self.network).__name__} has, got {self.space!r}.")
        if codes is not None and self.space == "z":
            raise ValueError("codes must be None in z, got some: they are w.")
        require_one_call(module, self)
        self.z, self.labels = module.latents(n, seed=seed)
        with evaluating(self.network):
            s = self.z if self.space == "z" else to_w(self.network, self.z, self.labels)
            if codes is not None:
                if codes.shape != s.shape:
                    raise ValueError(f"codes must be w of shape {tuple(s.shape)}, got {tuple(codes.shape)}.")
                s = codes
            self._images: list[Tensor] = []  # the styles of images, which stay
            if self.space == "styles":
                styles, layers = self.network.styles(self.network.spread(s)), len(self.network.layers)
                self._lengths, self._images = [x.shape[1] for x in styles[:layers]], styles[layers:]
                s = torch.cat(styles[:layers], 1)
        self.coordinates, self.shift = s, shift
        self.effects, self.base, self.ends = coordinate_effects(self._logits, s, shift=shift, trim=trim)

    def render(self, s: Tensor, rows: Tensor) -> Tensor:
        """Samples (M, ...) of coordinates (M, S), all else being that of the samples ``rows`` (M,)."""
        labels = None if self.labels is None else self.labels[rows]
        with evaluating(self.network):
            if self.space == "styles":
                return self.network.render([*s.split(self._lengths, 1), *(x[rows] for x in self._images)])
            return from_w(self.network, s, labels) if self.space == "w" else conditional_call(self.network, s, labels)

    def _logits(self, s: Tensor, rows: Tensor) -> Tensor:
        return self._told(self.render(s, rows))

    def _told(self, x: Tensor) -> Tensor:
        with evaluating(self.classifier) if isinstance(self.classifier, nn.Module) else nullcontext():
            return as_logits(self.classifier(x), len(x))

    def picks(self, target: int, **options: Any) -> list[Pick]:
        """The coordinates that explain best what makes samples of a class; see :func:`pick_coordinates`."""
        return pick_coordinates(self.effects, self.base, target, **options)

    def name(self, coordinate: int) -> str:
        """Where a coordinate is: ``w[3]``, or a channel of a style layer, ``layer 2[5]``."""
        if self.space != "styles":
            return f"{self.space}[{coordinate}]"
        layer = 0
        while coordinate >= self._lengths[layer]:
            coordinate -= self._lengths[layer]
            layer += 1
        return f"layer {layer}[{coordinate}]"

    def table(self, picks: list[Pick]) -> str:
        """The picks as a table in Markdown."""
        lines = ["| coordinate | direction | gain of the logit | flipped by it alone |", "|---" * 4 + "|"]
        for p in picks:
            way = "up" if p.direction > 0 else "down"
            lines.append(f"| {self.name(p.coordinate)} | {way} | {p.effect:.3g} | {p.flipped:.0%} |")
        return "\n".join(lines)

    @torch.no_grad()
    def chart(
        self, pick: Pick, target: int, *, rows: int = 6, value_range: tuple[float, float] = (-1.0, 1.0)
    ) -> tuple[Image.Image, Tensor]:
        """A picture of what a pick changes, and the class's probabilities (rows, 2) before and after.

        Rows are the samples whose logit it raises most; columns the sample, the coordinate moved to the class's end (or
        ``shift`` of the way), and the difference of both, around grey.

        Raises:
            ValueError: for samples that are no images.
        """
        d, j = (pick.direction + 1) // 2, pick.coordinate
        gain = self.effects[:, d, j, target].masked_fill(self.base.argmax(1) == target, -torch.inf)
        which = gain.topk(min(rows, len(gain))).indices
        before = self.render(self.coordinates[which], which)
        s = self.coordinates[which].clone()
        s[:, j] = moved_by(s[:, j], self.ends[d, j], d, self.shift)
        after = self.render(s, which)
        if before.ndim != 4:
            raise ValueError(f"chart needs images (N, C, H, W), got samples of shape {tuple(before.shape)}.")
        told = [self._told(x).softmax(1)[:, target] for x in (before, after)]
        low, high = value_range
        shown = torch.stack([before, after, (low + high) / 2 + (after - before) / 2], 1).flatten(0, 1)
        return grid_image(shown.float().cpu(), 3, value_range), torch.stack(told, 1).cpu()
