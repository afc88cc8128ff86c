"""Pure functions of tensors: losses, penalties, and draws that several processes agree on."""

from lightning_gans.functional.conditional import check_scores, score, takes_labels
from lightning_gans.functional.draw import normal, uniform
from lightning_gans.functional.input_gradient import double_backward
from lightning_gans.functional.losses import LOSSES, AdversarialLoss
from lightning_gans.functional.penalties import (
    finite_difference_penalty,
    gradient_norm,
    gradient_penalty,
    input_gradient,
    interpolate,
    perturb,
)
from lightning_gans.functional.ranks import mean_over_ranks, rank_and_world

__all__ = [
    "LOSSES",
    "AdversarialLoss",
    "check_scores",
    "double_backward",
    "finite_difference_penalty",
    "gradient_norm",
    "gradient_penalty",
    "input_gradient",
    "interpolate",
    "mean_over_ranks",
    "normal",
    "perturb",
    "rank_and_world",
    "score",
    "takes_labels",
    "uniform",
]
