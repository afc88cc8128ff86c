"""Weight normalisation of a network (Salimans & Kingma 2016, arXiv:1602.07868)."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrizations

from lightning_gans.wrappers.spectral_norm import normalised_layers

Network = TypeVar("Network", bound=nn.Module)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def weight_norm(network: Network) -> Network:
    """Write the weights of all linear and convolutional layers of a network as g v / ||v||, in place; returns it.

    One g, and one v of the weight's size, per output; at first v is the weight and g its norm, so that the network
    computes what it did. Biases, embeddings and layers of normalisation are left alone. Keys in the state dict become
    ``<layer>.parametrizations.weight.original0`` (g) and ``....weight.original1`` (v).

    Args:
        network: any network whose weights are not yet normalised.

    Raises:
        ValueError: for a network with a layer that is normalised already, with an output whose weights are all zero
            (which have no direction), or without such layers.

    >>> layer = nn.Linear(3, 2)
    >>> sorted(name for name, _ in weight_norm(layer).named_parameters())
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, _LAYERS)}
    if not layers:
        raise ValueError("network must have linear or convolutional layers, got none.")
    done = normalised_layers(network)
    for name, layer in layers.items():
        if "weight" not in dict(layer.named_parameters(recurse=False)) or name in done:
            raise ValueError(f"network must be one without normalised weights, got one in layer {name!r}.")
        if not layer.weight.detach().movedim(_axis(layer), 0).flatten(1).any(1).all():
            raise ValueError(f"network must have weights other than 0 for each output, got none in layer {name!r}.")
    for layer in layers.values():
        parametrizations.weight_norm(layer, dim=_axis(layer))
    return network


def _axis(layer: nn.Module) -> int:
    """The axis of outputs."""
    return int(isinstance(layer, _TRANSPOSED))
