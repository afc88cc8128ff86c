"""What one does with a trained GAN: load it, take its generator elsewhere."""

from lightning_gans.tools.export import export
from lightning_gans.tools.load import load

__all__ = ["export", "load"]
