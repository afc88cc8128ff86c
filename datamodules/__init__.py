"""Data modules: toys that are known exactly, and images that live in memory on the training device.

Each says its `shape`, `num_classes` and `value_range` before any file is read.
"""

from lightning_gans.datamodules.base import GANDataModule, ImageDataModule
from lightning_gans.datamodules.cifar import CIFAR10, CIFAR100
from lightning_gans.datamodules.contaminated import Contaminated
from lightning_gans.datamodules.digits import Digits
from lightning_gans.datamodules.folder import Images
from lightning_gans.datamodules.hugging_face import HuggingFace
from lightning_gans.datamodules.memory import FreshLoader, MemoryLoader
from lightning_gans.datamodules.mnist import MNIST, FashionMNIST, StackedMNIST
from lightning_gans.datamodules.resampled import Resampled
from lightning_gans.datamodules.shapes import Shapes
from lightning_gans.datamodules.tail import (
    Classes,
    LowDensity,
    Quantile,
    Tail,
    TailSampled,
    TailSampler,
    Threshold,
    tail_loader,
)
from lightning_gans.datamodules.text import OneHot, PyDocText, TextDataModule, TextFile
from lightning_gans.datamodules.toy import Mixture, ToyDataModule
from lightning_gans.datamodules.toy1d import Gaussian1D, PointMass, RareTail1D
from lightning_gans.datamodules.toy2d import Blob, Grid, Ring, SwissRoll
from lightning_gans.datamodules.toy_styles import StyledText
from lightning_gans.datamodules.toy_text import MarkovText, OracleText

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "Blob",
    "Classes",
    "Contaminated",
    "Digits",
    "FashionMNIST",
    "FreshLoader",
    "GANDataModule",
    "Gaussian1D",
    "Grid",
    "HuggingFace",
    "ImageDataModule",
    "Images",
    "LowDensity",
    "MarkovText",
    "MemoryLoader",
    "Mixture",
    "OneHot",
    "OracleText",
    "PointMass",
    "PyDocText",
    "Quantile",
    "RareTail1D",
    "Resampled",
    "Ring",
    "Shapes",
    "StackedMNIST",
    "StyledText",
    "SwissRoll",
    "Tail",
    "TailSampled",
    "TailSampler",
    "TextDataModule",
    "TextFile",
    "Threshold",
    "ToyDataModule",
    "tail_loader",
]
