"""Models made by a chain of fits, each on top of what the ones before have left."""

from lightning_gans.stages.ada_gan import density_ratio, reweight
from lightning_gans.stages.boost import boost
from lightning_gans.stages.cascade import Cascade
from lightning_gans.stages.control import fit_control
from lightning_gans.stages.guidance import guided_scores
from lightning_gans.stages.noisy_classifier import fit_noisy_classifier
from lightning_gans.stages.start import fit_vae, match_moments
from lightning_gans.stages.style_classifier import fit_style_classifier, style_accuracy

__all__ = [
    "Cascade", "boost", "density_ratio", "fit_control", "fit_noisy_classifier", "fit_style_classifier",
    "fit_vae", "guided_scores", "match_moments", "reweight", "style_accuracy",
]  # fmt: skip
