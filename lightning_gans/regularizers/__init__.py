"""Terms that any technique can add to its discriminator's loss."""

from lightning_gans.regularizers.adversarial_lipschitz import AdversarialLipschitzPenalty
from lightning_gans.regularizers.consistency import ConsistencyTerm
from lightning_gans.regularizers.dragan import DRAGAN
from lightning_gans.regularizers.drift import Drift
from lightning_gans.regularizers.finite_difference import FiniteDifferencePenalty
from lightning_gans.regularizers.gradient_penalty import R1, R2, GradientPenalty
from lightning_gans.regularizers.information import InformationTerm
from lightning_gans.regularizers.regularizer import Regularizer
from lightning_gans.regularizers.score_penalty import ScorePenalty

__all__ = [
    "DRAGAN",
    "R1",
    "R2",
    "AdversarialLipschitzPenalty",
    "ConsistencyTerm",
    "Drift",
    "FiniteDifferencePenalty",
    "GradientPenalty",
    "InformationTerm",
    "Regularizer",
    "ScorePenalty",
]
