"""Better samples of a trained GAN, by its discriminator: no network is changed. One file per paper."""

from lightning_gans.samplers.base import LatentSampler, Report, Sampler
from lightning_gans.samplers.boosted import BoostedRatio, boosted_ratio
from lightning_gans.samplers.calibration import Calibrated, calibrate, calibration_z
from lightning_gans.samplers.collaborative import CollaborativeSampler
from lightning_gans.samplers.guided import Guided
from lightning_gans.samplers.latent_langevin import LatentLangevin
from lightning_gans.samplers.latent_optimisation import LatentOptimisation
from lightning_gans.samplers.metropolis_hastings import Chains, MetropolisHastings, pick
from lightning_gans.samplers.ratio_head import RatioHead, keep_training
from lightning_gans.samplers.rejection import RejectionSampler, Thresholding, acceptance_logit
from lightning_gans.samplers.truncation import Truncation

__all__ = [
    "BoostedRatio",
    "Calibrated",
    "Chains",
    "CollaborativeSampler",
    "Guided",
    "LatentLangevin",
    "LatentOptimisation",
    "LatentSampler",
    "MetropolisHastings",
    "RatioHead",
    "RejectionSampler",
    "Report",
    "Sampler",
    "Thresholding",
    "Truncation",
    "acceptance_logit",
    "boosted_ratio",
    "calibrate",
    "calibration_z",
    "keep_training",
    "pick",
]
