"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, arXiv:2006.10738), and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.conditional import conditional_call, takes_labels
from lightning_gans.functional.numerics import RunningMeans, full_precision
from lightning_gans.functional.ranks import mean_over_ranks, rank_and_world

_HOLE = 1 / 2  # share of a side


class DiffAugment(nn.Module):
    """D(T(x)) with a random T of its own for each sample: real and fake samples, in D's step and in G's.

    T is differentiable, so G learns through it, and penalties are taken of D o T. The policy is a choice of these, done
    in the order given:

    =========== ========================================================================================
    color       brightness: x + b, b ~ U[-0.5, 0.5); saturation: m + s (x - m), m the mean over channels,
                s ~ U[0, 2); contrast: m + c (x - m), m the mean of the whole image, c ~ U[0.5, 1.5)
    translation by whole pixels, up to a share of each side either way; what comes in is 0
    cutout      a rectangle of half of each side, centred at a random pixel, becomes 0
    =========== ========================================================================================

    Values may leave the range of the data. In evaluation mode T is the identity, so metrics and diagnostics see plain
    scores. Draws come from torch's global generator, as those of dropout. A regularizer that compares two passes
    (consistency, finite difference, adversarial Lipschitz) has a T for each.

    Args:
        discriminator: maps images (N, C, H, W) [, labels (N,)] to scores (N,); conditional or not, so is the wrapper.
        policy: names, as a sequence or as one string with commas.
        translation: the share of a side, in [0, 1]; TransGAN's code has .2.
        cutout_p: probability that a batch is cut, in [0, 1]; all of its samples are or none, .3 in TransGAN's code.

    Raises:
        ValueError: for an unknown name or none, and for settings out of range; when called, for samples that are no
            images.

    >>> net, x = DiffAugment(nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))), torch.rand(4, 1, 8, 8)
    >>> torch.equal(net(x), net(x)), torch.equal(net.eval()(x), net.discriminator(x))
    (False, True)
    """

    num_classes: int | None
    shape: tuple[int, ...]

    def __init__(
        self,
        discriminator: nn.Module,
        policy: str | Sequence[str] = "color,translation,cutout",
        translation: float = 0.125,
        cutout_p: float = 1.0,
    ) -> None:
        super().__init__()
        checks.share(translation=translation, cutout_p=cutout_p)
        self.translation, self.cutout_p = translation, cutout_p
        names = [name.strip() for name in (policy.split(",") if isinstance(policy, str) else policy)]
        if not names or not set(names) <= _POLICIES.keys():
            raise ValueError(f"policy must be one or several of {', '.join(_POLICIES)}, got {policy!r}.")
        self.discriminator, self.policy = discriminator, tuple(names)
        known: Any = discriminator
        if not takes_labels(discriminator):
            self.num_classes = None
        elif hasattr(known, "num_classes"):  # a conditional network need not say it
            self.num_classes = known.num_classes
        if hasattr(known, "shape"):
            self.shape = known.shape

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` to scores ``(N,)``."""
        if x.ndim != 4:
            raise ValueError(f"x must be images of shape (N, C, H, W) for DiffAugment, got {tuple(x.shape)}.")
        return conditional_call(self.discriminator, self.augment(x) if self.training else x, labels)

    def augment(self, x: Tensor) -> Tensor:
        """T(x) of images (N, C, H, W), in their precision but computed in float32 or better."""
        y = full_precision(x)
        for name in self.policy:
            y = self._done(name, y)
        return y if y.dtype == x.dtype else y.to(x.dtype)

    def _done(self, name: str, x: Tensor) -> Tensor:
        if name == "translation":
            return _translation(x, self.translation)
        y = _POLICIES[name](x)
        if name == "cutout" and self.cutout_p < 1:
            y = torch.where(torch.rand((), device=x.device) < self.cutout_p, y, x)
        return y


class AdaptiveAugment(RunningMeans, DiffAugment):
    r"""D(T(x)) where each operation of T is done with probability p only, which follows how far D overfits (ADA).

    .. math:: p \leftarrow \min\Big(1, \max\Big(0, p + \frac{n}{s}\, \mathrm{sign}(r - t)\Big)\Big),
              \qquad r = E\,\mathrm{sign}\, D(T(x))

    with r over the real samples of the last ``interval`` updates, n of them on all ranks, target t and speed s (Karras
    et al. 2020, arXiv:2006.06676). A D that scores training samples positive without fail has learned them by heart.
    `StyleGAN2` moves p, after D's updates, and logs ``d/sign`` and ``d/augment``; in other techniques it stays where it
    is. It is a buffer, part of every checkpoint.

    Departures: T is of the operations of `DiffAugment`, not of the paper's eighteen; p ends at 1.

    Args:
        discriminator: see `DiffAugment`, as for ``policy``.
        p: where p starts, in [0, 1].
        target: of r, in (0, 1).
        speed: images that take p from 0 to 1, at least; the paper takes 100,000 where training goes on from a model.
        interval: D updates from one step of p to the next.
        translation: see `DiffAugment`, as for ``cutout_p``.

    Raises:
        ValueError: for settings out of range, and as `DiffAugment`.

    >>> net = AdaptiveAugment(nn.Flatten(), "color", p=0.0)
    >>> x = torch.rand(2, 3, 4, 4)
    >>> bool(torch.equal(net(x), x.flatten(1)))  # p is 0: nothing is changed
    True
    """

    p: Tensor
    signs: Tensor
    running = ("p", "signs")

    def __init__(
        self,
        discriminator: nn.Module,
        policy: str | Sequence[str] = "color,translation,cutout",
        p: float = 0.0,
        target: float = 0.6,
        speed: float = 500_000,
        interval: int = 4,
        translation: float = 0.125,
        cutout_p: float = 1.0,
    ) -> None:
        super().__init__(discriminator, policy, translation, cutout_p)
        checks.inside(target=target)
        checks.positive(speed=speed)
        checks.at_least_one(interval=interval)
        checks.share(p=p)
        self.target, self.speed, self.interval = target, speed, interval
        self.register_buffer("p", full_precision(torch.tensor(float(p))))
        self.register_buffer("signs", full_precision(torch.tensor(0.0)))

    def augment(self, x: Tensor) -> Tensor:
        """T(x) of images (N, C, H, W), each operation on a share p of them."""
        y = full_precision(x)
        for name in self.policy:
            drawn = torch.rand(len(y), 1, 1, 1, dtype=y.dtype, device=y.device)
            y = torch.where(drawn < self.p, self._done(name, y), y)
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @torch.no_grad()
    def see(self, sign: Tensor, images: int, updates: int) -> None:
        """Take note of the mean sign of D's scores of ``images`` real samples; move p if it is time.

        A collective: every rank must call it, with numbers of its own.
        """
        self.signs += mean_over_ranks(sign)  # alike on all ranks, as a checkpoint has it
        if updates % self.interval == 0:
            r = self.signs / self.interval
            step = images * rank_and_world()[1] * self.interval / self.speed
            self.p.add_(torch.sign(r - self.target), alpha=step).clamp_(0, 1)
            self.signs.zero_()


def _uniform(low: float, high: float, like: Tensor) -> Tensor:
    return low + (high - low) * torch.rand(len(like), 1, 1, 1, dtype=like.dtype, device=like.device)


def _color(x: Tensor) -> Tensor:
    x = x + _uniform(-0.5, 0.5, x)
    for axes, low, high in ((1, 0.0, 2.0), ((1, 2, 3), 0.5, 1.5)):
        mean = x.mean(axes, keepdim=True)
        x = mean + _uniform(low, high, x) * (x - mean)
    return x


def _translation(x: Tensor, share: float = 0.125) -> Tensor:
    (rows, rows_inside), (columns, columns_inside) = (_shifted(x, axis, share) for axis in (2, 3))
    n, c = (torch.arange(size, device=x.device) for size in x.shape[:2])
    moved = x[n[:, None, None, None], c[:, None, None], rows[:, None, :, None], columns[:, None, None]]
    return moved * (rows_inside[:, None, :, None] & columns_inside[:, None, None]).to(x.dtype)


def _shifted(x: Tensor, axis: int, share: float) -> tuple[Tensor, Tensor]:
    """Where the pixels along an axis come from (N, side), and whether from inside of the image."""
    side = x.shape[axis]
    most = int(side * share + 0.5)
    source = torch.arange(side, device=x.device) - torch.randint(-most, most + 1, (len(x), 1), device=x.device)
    return source.clamp(0, side - 1), (source >= 0) & (source < side)


def _cutout(x: Tensor) -> Tensor:
    rows, columns = (_covered(x, axis) for axis in (2, 3))
    return x * (~(rows[:, None, :, None] & columns[:, None, None])).to(x.dtype)


def _covered(x: Tensor, axis: int) -> Tensor:
    """Which places along an axis (N, side) lie in a hole that may reach beyond the edge."""
    side = x.shape[axis]
    hole = int(side * _HOLE + 0.5)
    start = torch.randint(side, (len(x), 1), device=x.device) - hole // 2
    place = torch.arange(side, device=x.device)
    return (place >= start) & (place < start + hole)


_POLICIES: dict[str, Callable[[Tensor], Tensor]] = {"color": _color, "translation": _translation, "cutout": _cutout}
