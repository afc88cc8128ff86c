"""The score of a pack does not depend on the order of its members."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_gans.functional.numerics import full_precision
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class PermutationTerm(Regularizer):
    """mean (D(x_1 .. x_m) - D(x_p(1) .. x_p(m)))^2 over packs of reals, p one random transposition.

    SIRE (Cohen-Karlik, Ben David and Globerson, NeurIPS 2020), for a discriminator in ``wrappers.Packed``, which is to
    judge a set and reads a list. 0 for one that is invariant by its form.

    Args:
        weight: of the term.

    Raises:
        ValueError: when a game is made, for a discriminator that is not packed by two or more.

    >>> from types import SimpleNamespace
    >>> net = lambda x, order=None: (x.flip(0) if order is not None else x)[:, 0]  # that of the first member
    >>> net.size, batch = 2, SimpleNamespace(real=torch.tensor([[1.0], [4.0]]), generator=None)
    >>> float(PermutationTerm()(net, batch, fake=batch.real))
    9.0
    """

    name = "permutation"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)

    def fitting(self, network: nn.Module) -> Regularizer:
        """Itself, for packs of two or more."""
        if not isinstance(size := getattr(network, "size", 1), int) or size < 2:
            name = type(network).__name__
            raise ValueError(f"PermutationTerm needs a discriminator in wrappers.Packed, of size >= 2, got {name}.")
        return self

    def __call__(self, discriminator: Any, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at the real samples."""
        device, own = batch.real.device, batch.generator
        source = device if own is None else own.device
        pair = torch.randperm(discriminator.size, generator=own, device=source)[:2].to(device)
        order = torch.arange(discriminator.size, device=device).index_copy(0, pair, pair.flip(0))
        first, second = (discriminator(batch.real, *given) for given in ((), (order,)))
        return (full_precision(first) - full_precision(second)).square().mean()
