"""Per-sample random numbers that do not depend on how many processes share the batch.

Rank r of W takes rows r, r + W, r + 2W ... of one draw of W * n rows, so W processes together see exactly the numbers
that one process with a W times larger batch would. That needs the same generator state on every rank: pass generators
seeded alike, or, without a generator, seed the global one alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_gans.functional.ranks import rank_and_world


def uniform(
    n: int,
    *shape: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`n` rows of numbers uniform on [0, 1), (n, *shape), on `device` (default: the generator's).

    >>> a, b = (uniform(2, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    >>> torch.equal(a, b), tuple(a.shape)
    (True, (2, 3))
    """
    return _rows(torch.rand, n, shape, generator, device, dtype)


def normal(
    n: int,
    *shape: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`n` rows of standard normal numbers, (n, *shape), on `device` (default: the generator's).

    >>> a, b = (normal(2, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    >>> torch.equal(a, b), tuple(a.shape)
    (True, (2, 3))
    """
    return _rows(torch.randn, n, shape, generator, device, dtype)


def _rows(
    draw: Callable[..., Tensor],
    n: int,
    shape: tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Tensor:
    rank, world = rank_and_world()
    if world == 1 and (generator is None or device is None or generator.device.type == torch.device(device).type):
        return draw((n, *shape), generator=generator, device=device or (generator and generator.device), dtype=dtype)
    # torch draws only on the generator's own device: a CPU generator serves any device by a copy.
    source = device if generator is None else generator.device
    rows = draw((world * n, *shape), generator=generator, device=source, dtype=dtype)[rank::world]
    return rows.to(device=source if device is None else device).contiguous()
