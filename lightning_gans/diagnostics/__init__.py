"""What one learns about a trained model."""

from lightning_gans.diagnostics.att_find import AttFind, coordinate_effects, merge_picks, pick_coordinates
from lightning_gans.diagnostics.commentaries import commentary_weights
from lightning_gans.diagnostics.control_measures import ControlTable, control_table, requested_errors
from lightning_gans.diagnostics.direction_measures import (
    attribute_correlations,
    match_directions,
    name_directions,
    sign_accuracy,
)
from lightning_gans.diagnostics.label_information import LabelUse, label_use
from lightning_gans.diagnostics.latent_directions import LatentDirections
from lightning_gans.diagnostics.neuron_shapley import FilterValues, filters_of, neuron_shapley, removal_curve, removed

__all__ = [
    "AttFind",
    "ControlTable",
    "FilterValues",
    "LabelUse",
    "LatentDirections",
    "attribute_correlations",
    "commentary_weights",
    "control_table",
    "coordinate_effects",
    "filters_of",
    "label_use",
    "match_directions",
    "merge_picks",
    "name_directions",
    "neuron_shapley",
    "pick_coordinates",
    "removal_curve",
    "removed",
    "requested_errors",
    "sign_accuracy",
]
