"""What one learns about a trained model."""

from lightning_gans.diagnostics.direction_measures import (
    attribute_correlations,
    match_directions,
    name_directions,
    sign_accuracy,
)
from lightning_gans.diagnostics.latent_directions import LatentDirections

__all__ = ["LatentDirections", "attribute_correlations", "match_directions", "name_directions", "sign_accuracy"]
