"""Spectral normalisation (arXiv:1802.05957) and stable rank normalisation (arXiv:1906.04659) of a network's weights."""

from __future__ import annotations

import re
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from lightning_gans import checks
from lightning_gans.functional import numerics
from lightning_gans.functional.double_backward.input_gradient import no_autocast

Network = TypeVar("Network", bound=nn.Module)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_U = re.compile(r"(^|_)u\d*$")  # names of the vector of a power iteration
_START = 15  # power iterations before the first use


class SpectralNorm(nn.Module):
    """W to W / sigma, sigma = u' W v its largest singular value by power iteration, W as a matrix (outputs, rest).

    u is a buffer, v is computed from it; both are constants of the gradient, sigma is differentiated through W. Each
    forward pass takes ``power_iterations`` steps, in evaluation mode too, where their result is not kept.

    With ``stable_rank`` = c the stable rank ||W||_F^2 / sigma^2 is brought down to r = c min(rows, columns), where it
    is more: W / sigma = u v' + R becomes u v' + sqrt(r - 1) / ||R||_F R. This is why it is not torch's own spectral
    norm, which does not hand out u and v.

    Args:
        weight: the weight as it is now.
        dim: its axis of outputs.
        power_iterations: >= 1.
        stable_rank: c in (0, 1], or None.

    >>> weight = torch.diag(torch.tensor([4.0, 2.0]))
    >>> [round(w, 4) for w in SpectralNorm(weight)(weight).diag().tolist()]
    [1.0, 0.5]
    """

    u: Tensor

    def __init__(
        self, weight: Tensor, dim: int = 0, power_iterations: int = 1, stable_rank: float | None = None
    ) -> None:
        super().__init__()
        checks.at_least_one(power_iterations=power_iterations)
        checks.up_to_one(**checks.given(stable_rank=stable_rank))
        self.dim, self.power_iterations, self.stable_rank = dim, power_iterations, stable_rank
        matrix = self._matrix(weight.detach())
        u = F.normalize(torch.randn(len(matrix), dtype=matrix.dtype, device=matrix.device), dim=0)
        found, _ = self._iterate(matrix, u, _START)
        self.register_buffer("u", found if bool(found.any()) else u)  # of a weight that is 0, none is found

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight; while training, ``u`` is kept for the next time."""
        with no_autocast(weight.device.type):
            matrix, before = self._matrix(weight), self.u
            u, v = self._iterate(matrix.detach(), before, self.power_iterations)
            sigma, kept = torch.dot(u, matrix @ v), u
            found = sigma.detach() > 0  # not where the weight is 0, which stays as it is
            if weight.device.type not in numerics.LOOKED_AT or torch.compiler.is_compiling() or not found:
                sigma, kept = torch.where(found, sigma, 1), torch.where(found, u, before)
            if self.training:
                before.copy_(kept)
            smaller = min(matrix.shape)
            if self.stable_rank is None or smaller == 1:
                return weight / sigma
            rest = matrix / sigma - torch.outer(u, v)
            size = rest.norm().clamp_min(1e-12)
            room = max(self.stable_rank * smaller - 1, 0.0) ** 0.5
            matrix = torch.outer(u, v) + rest * (room / size).clamp_max(1)
            shape = [weight.shape[self.dim], *weight.shape[: self.dim], *weight.shape[self.dim + 1 :]]
            return matrix.view(shape).movedim(0, self.dim)

    def _matrix(self, weight: Tensor) -> Tensor:
        plain = self.dim == 0 and weight.ndim == 2
        return weight.view_as(weight) if plain else weight.movedim(self.dim, 0).flatten(1)

    @staticmethod
    def _iterate(matrix: Tensor, u: Tensor, times: int) -> tuple[Tensor, Tensor]:
        for _ in range(times):
            v = _unit(matrix.mT @ u)
            u = _unit(matrix @ v)
        return u, v


def _unit(x: Tensor) -> Tensor:
    """``F.normalize`` without the calls around it."""
    return x / torch.linalg.vector_norm(x, 2, 0, True).clamp_min(1e-12)


def spectral_norm(network: Network, power_iterations: int = 1, stable_rank: float | None = None) -> Network:
    """Normalise the weights of all linear, convolutional and embedding layers of a network, in place; returns it.

    Biases, and layers of normalisation, are left alone. Their keys in the state dict become
    ``<layer>.parametrizations.weight.original`` and ``....weight.0.u``. u is drawn from torch's global generator.

    Args:
        network: any network, no layer of which is normalised yet.
        power_iterations: per forward pass.
        stable_rank: c, see :class:`SpectralNorm`.

    Raises:
        ValueError: for an argument out of range, a network with a layer that is normalised already, by whatever code
            (:func:`normalised_layers`), or one without such layers. No layer is touched then.

    >>> layer = spectral_norm(nn.Linear(3, 3))
    >>> round(float(torch.linalg.matrix_norm(layer.eval().weight.detach(), 2)), 2)
    1.0
    """
    layers = [module for module in network.modules() if isinstance(module, _LAYERS)]
    if not layers:
        raise ValueError("network must have linear, convolutional or embedding layers, got none.")
    if done := normalised_layers(network):
        raise ValueError(f"network must be one without spectral norm, got one that has it already in {done[0]!r}.")
    for name, layer in network.named_modules():
        if (
            isinstance(layer, _LAYERS)
            and "weight" not in dict(layer.named_parameters(recurse=False))
            and not parametrize.is_parametrized(layer)
        ):
            raise ValueError(f"network must have plain weights, got a computed one in {name!r}.")
    norms = [SpectralNorm(layer.weight, int(isinstance(layer, _TRANSPOSED)), power_iterations, stable_rank)
             for layer in layers]  # fmt: skip
    for layer, norm in zip(layers, norms):
        parametrize.register_parametrization(layer, "weight", norm)
    return network


def normalised_layers(network: nn.Module) -> list[str]:
    """Names of the layers with a spectral norm, by whatever code: ours, torch's, its older hooks, layers of others.

    Others are known by the vector u of their power iteration, a buffer or parameter ``u``, ``u0``, ``weight_u``,
    ``sn_u`` or the like, that is as long as an axis of the weight.

    >>> normalised_layers(nn.Sequential(nn.Linear(2, 3), nn.utils.parametrizations.spectral_norm(nn.Linear(3, 1))))
    ['1']
    """
    found = []
    for name, layer in network.named_modules():
        norms = [p for ps in getattr(layer, "parametrizations", {}).values() for p in ps]
        known = any(_U.search(key) for p in norms for key in p._buffers)
        own = {k: t for k, t in [*layer._buffers.items(), *layer.named_parameters(recurse=False)] if t is not None}
        sizes = {n for key, t in own.items() if "weight" in key and t.dim() > 1 for n in t.shape}
        us = [t for key, t in own.items() if _U.search(key) and t.numel() == max(t.shape, default=0)]
        if known or (isinstance(layer, _LAYERS) and any(u.numel() in sizes for u in us)):
            found.append(name)
    return found


def is_normalised(network: nn.Module) -> bool:
    """Whether a network has a layer with a spectral norm, by whatever code (:func:`normalised_layers`).

    >>> is_normalised(nn.Linear(2, 1)), is_normalised(spectral_norm(nn.Linear(2, 1)))
    (False, True)
    """
    return bool(normalised_layers(network))


def plain_layers(network: nn.Module) -> list[str]:
    """Names of the linear, convolutional and embedding layers without a spectral norm."""
    done = set(normalised_layers(network))
    return [name for name, layer in network.named_modules() if isinstance(layer, _LAYERS) and name not in done]
