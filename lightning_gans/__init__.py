"""GAN training techniques as PyTorch Lightning modules.

>>> from lightning_gans import WGANGP
"""

from lightning_gans.compat import torchvision as _torchvision  # noqa: F401  isort: skip  (before anything that imports torchvision)
from typing import TYPE_CHECKING

from lightning_gans import nonadversarial as _nonadversarial
from lightning_gans import regularizers as regularizers
from lightning_gans import techniques as _techniques
from lightning_gans.compat import moved as _moved
from lightning_gans.engine import distributed as distributed
from lightning_gans.engine.batch import Batch as Batch
from lightning_gans.gan import GANModule as GANModule
from lightning_gans.nonadversarial import *  # noqa: F403
from lightning_gans.runs.load import load as load
from lightning_gans.techniques import *  # noqa: F403
from lightning_gans.version import __version__ as __version__

if not TYPE_CHECKING:  # which reads no computed list, and follows the aliases above
    __all__ = ["Batch", "GANModule", "__version__", "distributed", "load", "regularizers"]
    __all__ += [*_techniques.__all__, *_nonadversarial.__all__]

_moved.install()
__getattr__ = _moved.attribute
