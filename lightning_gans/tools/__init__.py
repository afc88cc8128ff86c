"""What one does with a trained GAN: load it, and score samples, whoever made them."""

from lightning_gans.tools.load import load
from lightning_gans.tools.score import Scored, score_samples

__all__ = ["Scored", "load", "score_samples"]
