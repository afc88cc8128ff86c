"""What models with an encoder and a decoder share."""

from __future__ import annotations

import torch
from torch import nn

from lightning_gans.engine.batch import Batch
from lightning_gans.engine.frozen import frozen
from lightning_gans.functional.conditional import conditional_call


def check_codes(batch: Batch, encoder: nn.Module, decoder: nn.Module, latent_dim: int) -> None:
    """ValueError unless an encoder and a decoder fit the first batch and each other; leaves both as they are."""
    n, shape = len(batch.real), tuple(batch.real.shape)
    with torch.no_grad(), frozen(encoder), frozen(decoder):
        code = encoder(batch.real)
        if not isinstance(code, tuple) or [tuple(c.shape) for c in code] != [(n, latent_dim)] * 2:
            got = [tuple(c.shape) for c in code] if isinstance(code, tuple) else type(code).__name__
            raise ValueError(f"The encoder must return means and log variances ({n}, {latent_dim}), got {got}.")
        if (made := tuple(conditional_call(decoder, code[0], batch.labels).shape)) != shape:
            raise ValueError(f"The decoder's output must have the shape of the samples, {shape}, got {made}.")
