"""Networks to networks: normalisation of weights, augmentation of what a discriminator sees, mixtures of generators."""

from lightning_gans.wrappers.diff_augment import AdaptiveAugment, DiffAugment
from lightning_gans.wrappers.mixture import MixtureGenerator
from lightning_gans.wrappers.packed import Packed
from lightning_gans.wrappers.spectral_norm import SpectralNorm, is_normalised, spectral_norm
from lightning_gans.wrappers.weight_norm import weight_norm

__all__ = [
    "AdaptiveAugment",
    "DiffAugment",
    "MixtureGenerator",
    "Packed",
    "SpectralNorm",
    "is_normalised",
    "spectral_norm",
    "weight_norm",
]
