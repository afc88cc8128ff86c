"""What one learns about a trained model."""

from lightning_gans.diagnostics.control_measures import ControlTable, control_table, requested_errors
from lightning_gans.diagnostics.direction_measures import (
    attribute_correlations,
    match_directions,
    name_directions,
    sign_accuracy,
)
from lightning_gans.diagnostics.latent_directions import LatentDirections

__all__ = [
    "ControlTable",
    "LatentDirections",
    "attribute_correlations",
    "control_table",
    "match_directions",
    "name_directions",
    "requested_errors",
    "sign_accuracy",
]
