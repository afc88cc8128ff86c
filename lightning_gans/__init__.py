"""GAN training techniques as PyTorch Lightning modules.

>>> from lightning_gans import WGANGP
"""

from lightning_gans.compat import torchvision as _torchvision  # noqa: F401  isort: skip  (before anything that imports torchvision)
from lightning_gans import regularizers
from lightning_gans.compat import moved as _moved
from lightning_gans.engine import distributed
from lightning_gans.engine.batch import Batch
from lightning_gans.gan import GANModule
from lightning_gans.nonadversarial import NONADVERSARIAL, ExemplarVAE
from lightning_gans.runs.load import load
from lightning_gans.techniques import (
    CTGAN,
    DCGAN,
    GAN,
    PRCGAN,
    SNGAN,
    SRNGAN,
    TECHNIQUES,
    WGAN,
    WGANALP,
    WGANGP,
    AdaGAN,
    BoostedGAN,
    PrimalDualGAN,
    RobustWGAN,
    UnrolledGAN,
)
from lightning_gans.version import __version__

__all__ = [
    "CTGAN",
    "DCGAN",
    "GAN",
    "NONADVERSARIAL",
    "PRCGAN",
    "SNGAN",
    "SRNGAN",
    "TECHNIQUES",
    "WGAN",
    "WGANALP",
    "WGANGP",
    "AdaGAN",
    "Batch",
    "BoostedGAN",
    "ExemplarVAE",
    "GANModule",
    "PrimalDualGAN",
    "RobustWGAN",
    "UnrolledGAN",
    "__version__",
    "distributed",
    "load",
    "regularizers",
]

_moved.install()
__getattr__ = _moved.attribute
