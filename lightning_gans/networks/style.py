"""The networks of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, 2006.06676): images of styles, styles of w, w of z.

All of z, w, styles and layers are public: ``generator.mapping(z, labels)`` is w, ``generator.styles(spread(w))`` the
style of each layer, ``generator.render(styles)`` the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.numerics import RunningMeans, full_precision
from lightning_gans.networks.layers import append_one_hot, channels_last_, check_input, check_labels, image_shape

_SIDES = "H = W, a power of two of at least 8"
_EPS = 1e-8


def _stages(height: int, width: int) -> int:
    """Resolutions from 4 pixels on; 0 where there is no such network."""
    return height.bit_length() - 2 if height == width >= 8 and height & (height - 1) == 0 else 0


def blur(x: Tensor, before: int, after: int, gain: float = 1.0) -> Tensor:
    """Maps (N, C, H, W) filtered by gain times [1, 3, 3, 1] / 8 in both directions, zeros around them."""
    places = torch.arange(4, dtype=x.dtype, device=x.device)  # numbers of the host cannot be recorded in a CUDA graph
    row = (3 - 2 * (places - 1.5).abs().floor()) / 8  # 1, 3, 3, 1
    kernel = (gain * row[:, None] * row).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, (before, after) * 2), kernel, groups=x.shape[1])


def pixel_norm(x: Tensor) -> Tensor:
    """Rows (N, F) of mean square 1."""
    return x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt()


def _full(x: Tensor) -> Tensor:
    """In float32, or in float64 if it came so."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _activated(x: Tensor) -> Tensor:
    """LeakyReLU(0.2) times sqrt(2), which keeps the scale."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class EqualLinear(nn.Module):
    r"""A linear layer of equalised learning rate: weights N(0, 1), scaled by 1 / sqrt(fan in) when it is called.

    Args:
        features: that come in.
        out: that go out.
        lr_mul: its learning rate is so many times that of others; weights start as N(0, 1 / lr_mul^2), to be scaled.
        bias: where the bias starts.
        activate: LeakyReLU(0.2) times sqrt(2) behind it.
    """

    def __init__(self, features: int, out: int, lr_mul: float = 1.0, bias: float = 0.0, activate: bool = False) -> None:
        super().__init__()
        self.out_features = out
        self.weight = nn.Parameter(torch.randn(out, features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out,), bias / lr_mul))
        self.scale, self.lr_mul, self.activate = lr_mul / math.sqrt(features), lr_mul, activate

    def forward(self, x: Tensor) -> Tensor:
        """(N, features) to (N, out)."""
        y = F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)
        return _activated(y) if self.activate else y


class EqualConv2d(nn.Module):
    """A convolution of equalised learning rate, of half the size behind a blur if asked for.

    Args:
        channels: that come in.
        out: that go out.
        kernel: 1 or 3.
        halves: blur, then a stride of 2.
        activate: a bias, and LeakyReLU(0.2) times sqrt(2) behind it.
    """

    def __init__(self, channels: int, out: int, kernel: int, halves: bool = False, activate: bool = True) -> None:
        super().__init__()
        self.out_channels = out
        self.weight = nn.Parameter(torch.randn(out, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out)) if activate else None
        self.scale, self.halves, self.kernel = 1 / math.sqrt(channels * kernel**2), halves, kernel

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out, H, W), or half that size."""
        if self.halves:
            x = blur(x, *[1 + self.kernel // 2] * 2)
        padding = 0 if self.halves else self.kernel // 2
        y = F.conv2d(x, self.weight * self.scale, self.bias, stride=1 + self.halves, padding=padding)
        return y if self.bias is None else _activated(y)


class ModulatedConv2d(nn.Module):
    r"""A convolution whose weights are scaled by a style for each sample, and demodulated.

    .. math:: w'_{oi} = s_i w_{oi}, \qquad w''_{oi} = w'_{oi} \Big/ \sqrt{\textstyle\sum_{i, k} w'^2_{oik} + 10^{-8}}

    It is done without a kernel for each sample: the input is scaled by s, the output by the root, between them is an
    ordinary convolution.

    Args:
        channels: that come in.
        out: that go out.
        kernel: 1 or 3.
        doubles: twice the size, by a transposed convolution and a blur.
        demodulate: divide by the root; else by sqrt(fan in).

    >>> conv, x, style = ModulatedConv2d(4, 8, kernel=3, doubles=True), torch.randn(2, 4, 8, 8), torch.rand(2, 4) + 1
    >>> y = conv(x, style)
    >>> y.shape, torch.allclose(y, conv(x, 10 * style), atol=1e-4)  # only ratios of styles count
    (torch.Size([2, 8, 16, 16]), True)
    """

    def __init__(self, channels: int, out: int, kernel: int, doubles: bool = False, demodulate: bool = True) -> None:
        checks.sizes(channels=channels, out=out, kernel=kernel)
        super().__init__()
        self.out_channels = out
        self.weight = nn.Parameter(torch.randn(out, channels, kernel, kernel))
        self.doubles, self.demodulate, self.kernel = doubles, demodulate, kernel

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, channels, H, W) and styles (N, channels) to (N, out, H, W), or twice that size."""
        weight = self.weight if self.demodulate else self.weight / math.sqrt(self.weight[0].numel())
        y = x * style[:, :, None, None]
        if self.doubles:
            y = blur(F.conv_transpose2d(y, weight.transpose(0, 1), stride=2), 1, 1, gain=4)
        else:
            y = F.conv2d(y, weight, padding=self.kernel // 2)
        if not self.demodulate:
            return y
        with torch.autocast(x.device.type, enabled=False):  # these sums go beyond float16
            s, w = _full(style), _full(weight)
            norm = (s.square() @ w.square().sum((2, 3)).t() + _EPS).rsqrt()
        return y * norm.to(y.dtype)[:, :, None, None]


class StyleLayer(nn.Module):
    """Modulated convolution, noise of a learned strength, bias, LeakyReLU(0.2) times sqrt(2).

    Its constant noise is what samples are made with unless there is another.
    """

    noise: Tensor

    def __init__(self, w_dim: int, channels: int, out: int, side: int, doubles: bool = False) -> None:
        super().__init__()
        self.out_channels = out
        self.affine = EqualLinear(w_dim, channels, bias=1.0)
        self.conv = ModulatedConv2d(channels, out, 3, doubles)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("noise", torch.randn(1, side, side))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        """Maps, styles (N, channels) and noise (N, 1, H, W) to maps (N, out, H, W)."""
        y = self.conv(x, style) + self.strength * (self.noise if noise is None else noise)
        return _activated(y + self.bias[:, None, None])


class ToImage(nn.Module):
    """Maps to colours: a 1x1 convolution that is modulated, not demodulated."""

    def __init__(self, w_dim: int, channels: int, colours: int) -> None:
        super().__init__()
        self.out_channels = colours
        self.affine = EqualLinear(w_dim, channels, bias=1.0)
        self.conv = ModulatedConv2d(channels, colours, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(colours))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps and styles (N, channels) to images (N, colours, H, W)."""
        return self.conv(x, style) + self.bias[:, None, None]


class Mapping(nn.Module):
    """w of z, and of a label beside it if there are classes: layers that learn at a hundredth of the rate.

    Args:
        latent_dim: length of z; 0 for none.
        w_dim: length of w.
        layers: their number.
        num_classes: that a label may be.
        width: of the layers before the last; that of w by default.
    """

    def __init__(
        self, latent_dim: int, w_dim: int, layers: int, num_classes: int | None = None, width: int | None = None
    ) -> None:
        super().__init__()
        self.num_classes, widths = num_classes, [latent_dim, *[width or w_dim] * (layers - 1), w_dim]
        self.embed = None
        if num_classes is not None:
            self.embed = EqualLinear(num_classes, latent_dim or w_dim)
            widths[0] += latent_dim or w_dim
        self.layers = nn.Sequential(*(EqualLinear(i, o, lr_mul=0.01, activate=True) for i, o in pairwise(widths)))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, latent_dim) and labels (N,) to (N, w_dim)."""
        parts = [pixel_norm(z)] if z.shape[1] else []
        if self.embed is not None:
            parts.append(pixel_norm(self.embed(append_one_hot(z[:, :0], labels, self.num_classes))))
        return cast(Tensor, self.layers(torch.cat(parts, 1)))


class GroupedMapping(nn.Module):
    """w of z part by part: each group of z has a mapping of its own to the same place in w (arXiv:2101.02477).

    Args:
        groups: lengths of the groups; what is left of z is part of w as it is.
        width: of the layers before the last of each.
        layers: see `Mapping`, as for ``num_classes``.
        num_classes: known to each of the mappings.
    """

    def __init__(self, groups: Sequence[int], width: int, layers: int, num_classes: int | None = None) -> None:
        super().__init__()
        self.groups = tuple(groups)
        self.parts = nn.ModuleList(Mapping(n, n, layers, num_classes, width) for n in self.groups)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, latent_dim) and labels (N,) to w of the same length."""
        *own, rest = z.split([*self.groups, z.shape[1] - sum(self.groups)], 1)
        return torch.cat([*[part(x, labels) for part, x in zip(self.parts, own)], rest], 1)


class StyleGenerator(RunningMeans):
    """Noise to images by styles, each resolution adding to the image of the one before; no last tanh.

    ============================================= ====================
    layer (shape (3, 32, 32), defaults)           output
    ============================================= ====================
    mapping, 2 x linear                           w, (N, 64)
    learned 4x4 maps, style layer                 (N, 64, 4, 4)
    3 x [style layer twice the size, style layer] (N, 64, 32, 32)
    to image, from each resolution, summed        (N, 3, 32, 32)
    ============================================= ====================

    There is a w for each style layer and one for the last image, ``num_ws`` = 2 log2(H) - 2 in all; other images go by
    the w of the layer behind them. Noise is constant, also in training, unless it is given to :meth:`synthesis` (as
    `StyleGAN2` does), so that a seed tells a sample.

    Args:
        shape: ``(C, H, H)``, H a power of two of at least 8.
        latent_dim: length of z, >= 2, since z is normalised.
        w_dim: length of w; as z by default.
        widths: channels at each resolution, smallest first; one number for all of them.
        mapping_layers: of the mapping.
        num_classes: makes it conditional: ``forward(z, labels)``.
        groups: lengths >= 2 of parts of z, each of which has a mapping of its own to that part of w (`GANControl`).
        passed: so many numbers at the end of z are part of w as they are (`StylEx`).

    Attributes:
        mapping: the network from z and labels to w.
        w_mean: (w_dim,) running mean of w, which :meth:`truncate` goes by.
        path_length: () running mean of the path length (`regularizers.PathLength`).
        num_ws: styles come from so many w.
        noise_shapes: of the noise of each style layer, (1, H, W).

    >>> generator = StyleGenerator((3, 16, 16), latent_dim=8, widths=4)
    >>> w = generator.mapping(torch.zeros(5, 8))
    >>> generator.num_ws, tuple(w.shape), tuple(generator.synthesis(generator.spread(w)).shape)
    (6, (5, 8), (5, 3, 16, 16))
    """

    num_classes: int | None
    groups: tuple[int, ...] | None
    w_mean: Tensor
    path_length: Tensor
    running = ("w_mean", "path_length")

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        latent_dim: int = 64,
        w_dim: int | None = None,
        widths: int | Sequence[int] = 64,
        mapping_layers: int = 2,
        num_classes: int | None = None,
        groups: Sequence[int] | None = None,
        passed: int = 0,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, w_dim=w_dim, mapping_layers=mapping_layers, groups=groups)
        checks.sizes(num_classes=num_classes)
        checks.at_least(0, passed=passed)
        super().__init__()
        self.shape = image_shape(shape, "StyleGenerator", _SIDES, _stages)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        parts = [latent_dim - passed] if groups is None else list(groups)
        if min(parts, default=0) < 1 or sum(parts) + passed != latent_dim:
            raise ValueError(
                f"StyleGenerator: groups and passed must be lengths whose sum is latent_dim={latent_dim}, "
                f"got {parts} and {passed}."
            )
        if min(parts) < 2:  # of one number only the sign would be left
            raise ValueError(f"StyleGenerator: parts of z must be of length >= 2, to be normalised, got {parts}.")
        self.groups, self.passed = None if groups is None else tuple(parts), passed
        whole = groups is None and not passed
        if not whole and w_dim not in (None, latent_dim):
            parts_of = f"latent_dim={latent_dim} with groups or passed"
            raise ValueError(f"StyleGenerator: w_dim must be {parts_of}, got {w_dim}.")
        w_dim = latent_dim if w_dim is None else w_dim
        channels = _channels(widths, self.shape[1], "StyleGenerator")
        mapping = partial(Mapping, latent_dim, w_dim) if whole else partial(GroupedMapping, parts, latent_dim)
        self.mapping: nn.Module = mapping(mapping_layers, num_classes)
        self.constant = nn.Parameter(torch.randn(channels[0], 4, 4))
        self.layers = nn.ModuleList([StyleLayer(w_dim, channels[0], channels[0], 4)])
        self.images = nn.ModuleList([ToImage(w_dim, channels[0], self.shape[0])])
        for i, (before, width) in enumerate(pairwise(channels), 3):
            self.layers.append(StyleLayer(w_dim, before, width, 2**i, doubles=True))
            self.layers.append(StyleLayer(w_dim, width, width, 2**i))
            self.images.append(ToImage(w_dim, width, self.shape[0]))
        self.num_ws = len(self.layers) + 1
        self.register_buffer("w_mean", full_precision(torch.zeros(w_dim)))
        self.register_buffer("path_length", full_precision(torch.zeros(())))
        channels_last_(self)

    @property
    def noise_shapes(self) -> list[tuple[int, ...]]:
        """Of the noise of each style layer, without the batch's dimension."""
        return [tuple(cast(StyleLayer, layer).noise.shape) for layer in self.layers]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, C, H, H)``, unbounded."""
        w = self.map(z, labels)
        if self.training:
            self.follow(w.detach().mean(0))
        return self.synthesis(self.spread(w))

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """w (N, w_dim) of z (N, latent_dim), and of labels where there are classes."""
        check_input(z, (self.latent_dim,), "StyleGenerator")
        check_labels(labels, self.num_classes, len(z), "StyleGenerator")
        return cast(Tensor, self.mapping(z, labels))

    def spread(self, w: Tensor) -> Tensor:
        """One w (N, w_dim) for all layers: (N, num_ws, w_dim)."""
        return w[:, None].expand(-1, self.num_ws, -1)

    @torch.no_grad()
    def follow(self, mean: Tensor, rate: float = 0.005) -> None:
        """Have ``w_mean`` go on towards the mean (w_dim,) of a batch."""
        self.w_mean.lerp_(mean.to(self.w_mean.dtype), rate)

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """w (..., w_dim), drawn towards the mean: w_mean + psi (w - w_mean)."""
        return torch.lerp(self.w_mean.to(w.dtype), w, psi)

    def synthesis(self, ws: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images of w for each layer (N, num_ws, w_dim); see :meth:`render`."""
        return self.render(self.styles(ws), noise)

    def styles(self, ws: Tensor) -> list[Tensor]:
        """The styles (N, channels) of all style layers, then those of all images, smallest resolution first."""
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws must have shape (N, {self.num_ws}, {len(self.w_mean)}), got {tuple(ws.shape)}.")
        layers = [cast(StyleLayer, layer).affine(ws[:, i]) for i, layer in enumerate(self.layers)]
        return layers + [cast(ToImage, image).affine(ws[:, 2 * i + 1]) for i, image in enumerate(self.images)]

    def render(self, styles: Sequence[Tensor], noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images of styles, with noise (N, 1, H, W) of each style layer (`noise_shapes`); None: the constant one."""
        x = self.constant.expand(len(styles[0]), -1, -1, -1)
        image: Tensor | None = None
        for i, layer in enumerate(self.layers):
            x = layer(x, styles[i], None if noise is None else noise[i])
            if i % 2 == 0:
                own = self.images[i // 2](x, styles[len(self.layers) + i // 2])
                image = own if image is None else own + _doubled(image)
        return cast(Tensor, image).contiguous()  # a user's critic may call view


class MinibatchStd(nn.Module):
    """A further map: how much samples of a group differ, by which D sees a lack of variety (arXiv:1710.10196).

    It is the standard deviation over the group (biased, 1e-8 under the root), averaged over channels and places. The
    N / G groups of G = ``group`` samples are strided, {i, i + N/G, ...}, so that ranks that take every W-th row of a
    batch have the groups of one process. Where G does not divide N, the largest number below that does takes its place.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + 1, H, W)."""
        size = next(g for g in range(min(self.group, len(x)), 0, -1) if len(x) % g == 0)
        groups = _full(x.unflatten(0, (size, -1)))  # float16 has no 1e-8
        variance = (groups - groups.mean(0)).square().mean(0)  # `var` takes four times as long
        std = (variance + _EPS).sqrt().mean((1, 2, 3)).to(x.dtype)
        return torch.cat([x, std.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


def std_groups(network: nn.Module) -> list[int]:
    """Sizes of the groups of each `MinibatchStd` in a network."""
    return [layer.group for layer in network.modules() if isinstance(layer, MinibatchStd)]


class _Halve(nn.Module):
    """(conv, conv to half the size) and a 1x1 convolution to half the size, their sum over sqrt(2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.main = nn.Sequential(EqualConv2d(channels, channels, 3), EqualConv2d(channels, out, 3, halves=True))
        self.skip = EqualConv2d(channels, out, 1, halves=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.skip(x)) * math.sqrt(0.5)


class StyleDiscriminator(nn.Module):
    """Images to a raw score, by residual blocks and the standard deviation over small groups of the batch.

    ============================================ ====================
    layer (shape (3, 32, 32), defaults)          output
    ============================================ ====================
    1x1                                          (N, 64, 32, 32)
    3 x residual block to half the size          (N, 64, 4, 4)
    minibatch standard deviation                 (N, 65, 4, 4)
    3x3                                          (N, 64, 4, 4)
    linear                                       (N, 64)
    linear                                       (N,)
    ============================================ ====================

    Since a score depends on the group, a gradient by samples, as R1 takes it, is that of the sum of the scores.

    Args:
        shape: ``(C, H, H)``, H a power of two of at least 8.
        widths: channels at each resolution, smallest first, as of `StyleGenerator`; one number for all of them.
        group: samples of a group, >= 1; 1 switches the standard deviation off (it is 1e-4).
        num_classes: makes it conditional: ``forward(x, labels)``, a product with a mapping of the label.

    >>> critic = StyleDiscriminator((3, 16, 16), widths=(16, 8, 4), group=2)
    >>> critic(torch.randn(4, 3, 16, 16)).shape
    torch.Size([4])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        widths: int | Sequence[int] = 64,
        group: int = 4,
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, group=group, num_classes=num_classes)
        super().__init__()
        self.shape, self.num_classes = image_shape(shape, "StyleDiscriminator", _SIDES, _stages), num_classes
        channels = _channels(widths, self.shape[1], "StyleDiscriminator")[::-1]
        last = channels[-1]
        self.layers = nn.Sequential(EqualConv2d(self.shape[0], channels[0], 1))
        self.layers.extend(_Halve(before, width) for before, width in pairwise(channels))
        self.layers.extend([MinibatchStd(group), EqualConv2d(last + 1, last, 3), nn.Flatten()])
        self.layers.extend([EqualLinear(16 * last, last, activate=True), EqualLinear(last, last if num_classes else 1)])
        self.mapping = Mapping(0, last, 2, num_classes) if num_classes else None
        channels_last_(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, H)`` to scores ``(N,)``."""
        check_input(x, self.shape, "StyleDiscriminator")
        check_labels(labels, self.num_classes, len(x), "StyleDiscriminator")
        if self.mapping is None:
            return cast(Tensor, self.layers(x).squeeze(1))
        along = self.mapping(x.new_empty(len(x), 0), labels)  # first, as the last layer is one that x goes through
        return (self.layers(x) * along).sum(1) / math.sqrt(along.shape[1])


class SoftDiscriminator(StyleDiscriminator):
    """A `StyleDiscriminator` with a score for each class, and the mean of these by soft labels: probabilities (N, K).

    Args:
        shape: see `StyleDiscriminator`, as for ``widths`` and ``group``.
        classes: K; without probabilities all count alike.

    >>> critic, x = SoftDiscriminator((3, 16, 16), widths=4, classes=2), torch.randn(4, 3, 16, 16)
    >>> torch.allclose(critic(x), critic(x, torch.full((4, 2), 0.5)))
    True
    """

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        widths: int | Sequence[int] = 64,
        group: int = 4,
        classes: int = 2,
    ) -> None:
        checks.sizes(shape=shape, group=group, classes=classes)
        super().__init__(shape, widths, group)
        del self.num_classes  # it takes labels that are no classes
        self.layers[-1] = EqualLinear(cast(EqualLinear, self.layers[-1]).weight.shape[1], classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, H)`` and probabilities (N, K) to scores ``(N,)``."""
        check_input(x, self.shape, "SoftDiscriminator")
        scores = self.layers(x)
        return scores.mean(1) if labels is None else (scores * labels).sum(1)


class StyleEncoder(StyleDiscriminator):
    """Images to codes (N, latent_dim - classes): the part of w that `StylEx` does not take from its classifier.

    Args:
        shape: see `StyleDiscriminator`, as for ``widths``.
        latent_dim: length of z.
        classes: of the classifier.
        widths: of the channels.

    >>> StyleEncoder((3, 16, 16), latent_dim=8, classes=2, widths=4)(torch.randn(4, 3, 16, 16)).shape
    torch.Size([4, 6])
    """

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        latent_dim: int = 64,
        classes: int = 2,
        widths: int | Sequence[int] = 64,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim)
        checks.at_least(0, classes=classes)
        if classes >= latent_dim:
            raise ValueError(f"classes must be below latent_dim = {latent_dim}, got {classes}.")
        super().__init__(shape, widths, group=1)
        self.layers[-1] = EqualLinear(cast(EqualLinear, self.layers[-1]).weight.shape[1], latent_dim - classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, H)`` to codes."""
        check_input(x, self.shape, "StyleEncoder")
        return cast(Tensor, self.layers(x))


def _doubled(image: Tensor) -> Tensor:
    """Twice the size: zeros between the pixels, and a blur."""
    n, c, height, width = image.shape
    apart = F.pad(image[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * height, 2 * width)
    return blur(apart, 2, 1, gain=4)


def _channels(widths: int | Sequence[int], side: int, who: str) -> list[int]:
    """The width at each resolution."""
    stages = _stages(side, side)
    checks.sizes(widths=widths)
    channels = [widths] * stages if isinstance(widths, int) else list(widths)
    if len(channels) != stages:
        raise ValueError(f"{who}: widths must be one number or {stages} at {side} pixels, got {widths!r}.")
    return channels
