"""Architectures, without losses. Their arguments are of plain types, so that a config file can hold them."""

from __future__ import annotations

from lightning_gans.networks.attention import Attention
from lightning_gans.networks.cifar import CIFARCritic, CIFARGenerator
from lightning_gans.networks.classifiers import LeNet, ResNetClassifier
from lightning_gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lightning_gans.networks.deep_resnet import (
    BottleneckDiscriminator,
    BottleneckGenerator,
    TaperedResNetDiscriminator,
    TaperedResNetGenerator,
)
from lightning_gans.networks.diffusion import DiffusionMLP, DiffusionUNet, TimedClassifier
from lightning_gans.networks.language import LanguageModel
from lightning_gans.networks.layers import ConditionalBatchNorm2d, LayerNorm, ProjectionHead, make_norm
from lightning_gans.networks.leak_gan import LeakGANGenerator
from lightning_gans.networks.mlp import ToyDiscriminator, ToyGenerator
from lightning_gans.networks.mnist import MNISTCritic, MNISTGenerator
from lightning_gans.networks.perceiver import PerceiverCritic
from lightning_gans.networks.primal_dual import PrimalDualDiscriminator, PrimalDualGenerator
from lightning_gans.networks.r3 import R3Discriminator, R3Generator
from lightning_gans.networks.reconstructors import Reconstructor
from lightning_gans.networks.rel_gan import LSTMGenerator, RelationalGenerator, RelationalMemory, RelGANDiscriminator
from lightning_gans.networks.resnet import ResNetDiscriminator, ResNetGenerator
from lightning_gans.networks.seq_gan import SeqGANDiscriminator
from lightning_gans.networks.style import (
    ModulatedConv2d,
    SoftDiscriminator,
    StyleDiscriminator,
    StyleEncoder,
    StyleGenerator,
)
from lightning_gans.networks.style_transfer import StyleAutoencoder
from lightning_gans.networks.text import CharCritic, CharGenerator
from lightning_gans.networks.transformer import TransformerBlock, TransGANDiscriminator, TransGANGenerator
from lightning_gans.networks.vae import VAEDecoder, VAEEncoder

__all__ = [
    "Attention",
    "BottleneckDiscriminator",
    "BottleneckGenerator",
    "CIFARCritic",
    "CIFARGenerator",
    "CharCritic",
    "CharGenerator",
    "ConditionalBatchNorm2d",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DiffusionMLP",
    "DiffusionUNet",
    "LSTMGenerator",
    "LanguageModel",
    "LayerNorm",
    "LeNet",
    "LeakGANGenerator",
    "MNISTCritic",
    "MNISTGenerator",
    "ModulatedConv2d",
    "PerceiverCritic",
    "PrimalDualDiscriminator",
    "PrimalDualGenerator",
    "ProjectionHead",
    "R3Discriminator",
    "R3Generator",
    "Reconstructor",
    "RelGANDiscriminator",
    "RelationalGenerator",
    "RelationalMemory",
    "ResNetClassifier",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SeqGANDiscriminator",
    "SoftDiscriminator",
    "StyleAutoencoder",
    "StyleDiscriminator",
    "StyleEncoder",
    "StyleGenerator",
    "TaperedResNetDiscriminator",
    "TaperedResNetGenerator",
    "TimedClassifier",
    "ToyDiscriminator",
    "ToyGenerator",
    "TransGANDiscriminator",
    "TransGANGenerator",
    "TransformerBlock",
    "VAEDecoder",
    "VAEEncoder",
    "make_norm",
]
