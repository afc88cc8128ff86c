"""Networks to networks: normalisation of weights."""

from lightning_gans.wrappers.spectral_norm import SpectralNorm, is_normalised, spectral_norm

__all__ = ["SpectralNorm", "is_normalised", "spectral_norm"]
