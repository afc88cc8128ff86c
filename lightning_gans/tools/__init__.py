"""What one does with a trained GAN: load it, and score samples, whoever made them."""

from lightning_gans.tools.load import load

__all__ = ["load"]
