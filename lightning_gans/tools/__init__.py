"""What one does with a trained GAN: load it, score its samples, take its generator elsewhere."""

from lightning_gans.runs.load import load
from lightning_gans.tools.export import export
from lightning_gans.tools.hub import load_from_hub, push_to_hub

__all__ = ["export", "load", "load_from_hub", "push_to_hub"]
