"""The networks of TransGAN (arXiv:2102.07074): transformers that make images of tokens, and tell them by patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.networks.attention import Attention, Kernel, Locality
from lightning_gans.networks.layers import ProjectionHead, append_one_hot, check_input, check_labels, image_shape


class TransformerBlock(nn.Module):
    """u + Attention(LN u), then u + MLP(LN u): linear to four times the width, GELU, linear back.

    Args:
        width: of the tokens.
        heads: see `Attention`, as for the remaining arguments.

    >>> block = TransformerBlock(16, heads=2, grid=(4, 4), relative=True)
    >>> block(torch.randn(2, 16, 16)).shape, block.attention.table.shape
    (torch.Size([2, 16, 16]), torch.Size([49, 2]))
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        kernel: Kernel = "auto",
        grid: tuple[int, int] | None = None,
        relative: bool = False,
        locality: Locality = "none",
        noise: bool = False,
    ) -> None:
        checks.sizes(width=width, heads=heads, grid=grid)
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        options = {"relative": relative, "locality": locality, "noise": noise, "qk_norm": kernel == "favor"}
        self.attention = Attention(width, heads, kernel=kernel, grid=grid, **options)  # type: ignore[arg-type]
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, width) to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TransGANGenerator(nn.Module):
    """Noise to images, by blocks on tokens whose grid doubles from stage to stage; no tanh at the end.

    ================================================ ====================
    layer (shape (3, 32, 32), defaults)              output
    ================================================ ====================
    linear, and a learned number for each place      (N, 64, 1024)
    5 x `TransformerBlock`                           (N, 64, 1024)
    pixel shuffle by 2, places                       (N, 256, 256)
    4 x block                                        (N, 256, 256)
    pixel shuffle by 2, places                       (N, 1024, 64)
    2 x block                                        (N, 1024, 64)
    1x1                                              (N, 3, 32, 32)
    ================================================ ====================

    83 312 495 parameters at the defaults, those of the final code for CIFAR-10. Linear layers start as torch's do, the
    1x1 convolution Glorot-uniform, places as a normal of .02.

    Args:
        shape: ``(C, H, W)``, both sides multiples of 2 to the number of stages less one.
        latent_dim: length of z.
        width: of the tokens in the first stage, a multiple of 4 at each further one, where they have a quarter.
        depths: blocks of each stage.
        heads: of each block.
        kernel: of attention, see `Attention`. With "favor" queries and keys are normalised, and nothing is relative.
        relative: attention learns a number for each displacement.
        locality: of the last block: how it counts what is near, "raster" (TransGAN's first code) or "window" (its
            paper). How far it sees is its buffer ``reach``, without a limit at first, which `TransGAN` moves.
        stem: it can also start from a small image (`upscale`), for super-resolution beside the game.
        num_classes: makes it conditional: ``forward(z, labels)``, the one-hot label beside z.

    >>> generator = TransGANGenerator((3, 16, 16), latent_dim=8, width=64, depths=(1, 1, 1))
    >>> generator(torch.randn(2, 8)).shape
    torch.Size([2, 3, 16, 16])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        latent_dim: int = 256,
        width: int = 1024,
        depths: Sequence[int] = (5, 4, 2),
        heads: int = 4,
        kernel: Kernel = "auto",
        relative: bool = True,
        locality: Locality = "none",
        stem: bool = False,
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, latent_dim=latent_dim, width=width, heads=heads, num_classes=num_classes)
        super().__init__()
        stages = _depths(depths)
        self.shape = _divided(shape, 2 ** (len(stages) - 1), "TransGANGenerator", f"with {len(stages)} depths")
        if width % (4 ** (len(stages) - 1) * heads):
            least = 4 ** (len(stages) - 1) * heads
            raise ValueError(f"TransGANGenerator: width must be a multiple of {least} (heads too), got {width}.")
        self.latent_dim, self.num_classes = latent_dim, num_classes
        height, across = (side >> (len(stages) - 1) for side in self.shape[1:])
        self.bottom = height, across
        self.project = nn.Linear(latent_dim + (num_classes or 0), height * across * width)
        self.stem = nn.Linear(self.shape[0], width) if stem else None
        self.places, self.stages = nn.ParameterList(), nn.ModuleList()
        for i, depth in enumerate(stages):
            grid = height << i, across << i
            self.places.append(_places(math.prod(grid), width >> 2 * i))
            blocks = nn.Sequential()
            for j in range(depth):
                last = (i, j) == (len(stages) - 1, depth - 1)
                local = locality if last else "none"
                by_place = relative and kernel != "favor"
                blocks.append(TransformerBlock(width >> 2 * i, heads, kernel, grid, by_place, local))
            self.stages.append(blocks)
        self.out = nn.Conv2d(width >> 2 * (len(stages) - 1), self.shape[0], 1)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latent_dim)`` to ``(N, C, H, W)``, unbounded."""
        check_input(z, (self.latent_dim,), "TransGANGenerator")
        check_labels(labels, self.num_classes, len(z), "TransGANGenerator")
        return self._from(self.project(append_one_hot(z, labels, self.num_classes)).unflatten(1, self._first))

    def upscale(self, x: Tensor) -> Tensor:
        """Images of the first grid's size ``(N, C, h, w)`` to ``(N, C, H, W)``, by the blocks that make images of z."""
        check_input(x, (self.shape[0], *self.bottom), "TransGANGenerator.upscale")
        if self.stem is None:
            raise ValueError("stem must be True for a TransGANGenerator that upscales, got False.")
        return self._from(self.stem(x.flatten(2).transpose(1, 2)))

    @property
    def _first(self) -> tuple[int, int]:
        return math.prod(self.bottom), self.places[0].shape[2]

    def _from(self, tokens: Tensor) -> Tensor:
        for i, (places, blocks) in enumerate(zip(self.places, self.stages)):
            if i:
                tokens = shuffled(tokens, (self.bottom[0] << (i - 1), self.bottom[1] << (i - 1)))
            tokens = blocks(tokens + places)
        return self.out(tokens.transpose(1, 2).unflatten(2, self.shape[1:]))


class TransGANDiscriminator(nn.Module):
    """Images to a raw score, by blocks on patches of one or several sizes and a class token at the end.

    ====================================================== ====================
    layer (shape (3, 32, 32), defaults)                    output
    ====================================================== ====================
    patches of 2x2, places                                 (N, 256, 288)
    3 x `TransformerBlock`                                 (N, 256, 288)
    mean over 2x2 tokens, beside patches of 4x4; places    (N, 64, 384)
    3 x block                                              (N, 64, 384)
    class token, block without displacements               (N, 65, 384)
    layer norm and linear of the class token               (N,)
    ====================================================== ====================

    10 210 400 parameters at the defaults, those of the final code for CIFAR-10, whose augmentation
    (``wrappers.DiffAugment``) is a wrapper here. Linear layers and places start as a normal of .02 cut at 2, patches
    Glorot-uniform, biases at 0. In training each attention adds noise to its tokens by a learned strength, 0 at first
    (there in evaluation too). One width is TransGAN's first discriminator, of one scale.

    Args:
        shape: ``(C, H, W)``, both sides multiples of the largest patch.
        widths: channels that the patches of each size add.
        depths: blocks of each size, and behind the class token.
        patch: side of the smallest patches; each further size has twice the side.
        heads: of each block.
        kernel: see `TransGANGenerator`, as for ``relative``.
        noise: whether attention adds noise.
        num_classes: makes it conditional: a projection of the class token (`ProjectionHead`).

    >>> critic = TransGANDiscriminator((3, 16, 16), widths=(16, 8), depths=(1, 1, 1))
    >>> critic(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2])
    """

    num_classes: int | None

    def __init__(
        self,
        shape: tuple[int, ...] = (3, 32, 32),
        widths: Sequence[int] = (288, 96),
        depths: Sequence[int] = (3, 3, 1),
        patch: int = 2,
        heads: int = 4,
        kernel: Kernel = "auto",
        relative: bool = True,
        noise: bool = True,
        num_classes: int | None = None,
    ) -> None:
        checks.sizes(shape=shape, heads=heads, num_classes=num_classes)
        super().__init__()
        checks.at_least_one(patch=patch)
        stages, scales = _depths(depths), [*widths]
        if len(stages) != len(scales) + 1:
            raise ValueError(
                f"TransGANDiscriminator: depths must be one more than widths, got {len(stages)} and {len(scales)}."
            )
        largest = patch << (len(scales) - 1)
        self.shape = _divided(shape, largest, "TransGANDiscriminator", f"with patches of {patch} to {largest}")
        self.num_classes, by_place = num_classes, relative and kernel != "favor"
        self.patches, self.places, self.stages = nn.ModuleList(), nn.ParameterList(), nn.ModuleList()
        width = 0
        for i, added in enumerate(scales):
            side, width = patch << i, width + added
            grid = self.shape[1] // side, self.shape[2] // side
            self.patches.append(nn.Conv2d(self.shape[0], added, side, side))
            self.places.append(_places(math.prod(grid), width))
            blocks = [TransformerBlock(width, heads, kernel, grid, by_place, noise=noise) for _ in range(stages[i])]
            self.stages.append(nn.Sequential(*blocks))
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        last = [TransformerBlock(width, heads, kernel, noise=noise) for _ in range(stages[-1])]
        self.last, self.norm = nn.Sequential(*last), nn.LayerNorm(width)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
            elif isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
            if isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.token, std=0.02)
        self.head = ProjectionHead(width, num_classes)
        nn.init.trunc_normal_(self.head.score.weight, std=0.02)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` to scores ``(N,)``."""
        check_input(x, self.shape, "TransGANDiscriminator")
        check_labels(labels, self.num_classes, len(x), "TransGANDiscriminator")
        tokens = x[:, :0]
        for patches, places, blocks in zip(self.patches, self.places, self.stages):
            maps = patches(x)
            if tokens.ndim == 3:
                larger = tokens.transpose(1, 2).unflatten(2, (2 * maps.shape[2], 2 * maps.shape[3]))
                maps = torch.cat([F.avg_pool2d(larger, 2), maps], 1)
            tokens = blocks(maps.flatten(2).transpose(1, 2) + places)
        tokens = self.last(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        return self.head(self.norm(tokens[:, 0]), labels)


def shuffled(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (N, H W, 4 c) of a grid (H, W) to (N, 4 H W, c): each becomes 2 x 2 of a quarter of its channels.

    >>> shuffled(torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]), (1, 2)).flatten().tolist()
    [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]
    """
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid), 2).flatten(2).transpose(1, 2)


def _places(number: int, width: int) -> nn.Parameter:
    places = nn.Parameter(torch.zeros(1, number, width))
    nn.init.trunc_normal_(places, std=0.02)
    return places


def _depths(depths: Sequence[int]) -> list[int]:
    checks.sizes(depths=(found := [*depths]))
    return found


def _divided(shape: Sequence[int], unit: int, who: str, reason: str) -> tuple[int, int, int]:
    """A shape (C, H, W) whose sides are multiples of ``unit``."""
    return image_shape(shape, who, f"H and W multiples of {unit} {reason}", lambda h, w: int(h % unit == 0 == w % unit))
