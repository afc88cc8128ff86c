"""Pure functions of tensors: losses, penalties, and draws that several processes agree on."""

from lightning_gans.functional.conditional import check_scores, score, takes_labels
from lightning_gans.functional.consistency import consistency_term
from lightning_gans.functional.double_backward.input_gradient import double_backward, scores_and_gradient
from lightning_gans.functional.draw import normal, uniform
from lightning_gans.functional.importance import residual, stratum_weights, uniform_of
from lightning_gans.functional.kernels import log_kernel_density, median_distance
from lightning_gans.functional.lipschitz import adversarial_lipschitz_penalty
from lightning_gans.functional.losses import LOSSES, PAIRS, AdversarialLoss, SaddlePair
from lightning_gans.functional.penalties import (
    drift,
    finite_difference_penalty,
    gradient_norm,
    gradient_penalty,
    input_gradient,
    interpolate,
    path_length,
    perturb,
)
from lightning_gans.functional.preference import preference_loss
from lightning_gans.functional.ranks import gather_rows, mean_over_ranks, rank_and_world
from lightning_gans.functional.robust import outlier_share, rho_for_share, robust_weights
from lightning_gans.functional.shapes import draw_shapes
from lightning_gans.functional.unroll import score_with, unroll

__all__ = [
    "LOSSES",
    "PAIRS",
    "AdversarialLoss",
    "SaddlePair",
    "adversarial_lipschitz_penalty",
    "check_scores",
    "consistency_term",
    "double_backward",
    "draw_shapes",
    "drift",
    "finite_difference_penalty",
    "gather_rows",
    "gradient_norm",
    "gradient_penalty",
    "input_gradient",
    "interpolate",
    "log_kernel_density",
    "mean_over_ranks",
    "median_distance",
    "normal",
    "outlier_share",
    "path_length",
    "perturb",
    "preference_loss",
    "rank_and_world",
    "residual",
    "rho_for_share",
    "robust_weights",
    "score",
    "score_with",
    "scores_and_gradient",
    "stratum_weights",
    "takes_labels",
    "uniform",
    "uniform_of",
    "unroll",
]
