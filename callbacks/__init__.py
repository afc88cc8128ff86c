"""Callbacks: they watch a training and change no gradient."""

from lightning_gans.callbacks.attention_maps import AttentionMaps
from lightning_gans.callbacks.direction_charts import DirectionCharts
from lightning_gans.callbacks.ema import EMA
from lightning_gans.callbacks.generative_metrics import GenerativeMetrics
from lightning_gans.callbacks.gradient_norms import GradientNorms
from lightning_gans.callbacks.label_information import LabelInformation
from lightning_gans.callbacks.loss_variance import LossVariance
from lightning_gans.callbacks.mode_coverage import ModeCoverage
from lightning_gans.callbacks.non_finite import NonFiniteError, NonFiniteGuard
from lightning_gans.callbacks.overfit import OverfitAlarm
from lightning_gans.callbacks.progress import GANProgressBar
from lightning_gans.callbacks.rank_consistency import RankConsistency
from lightning_gans.callbacks.rates import Rates
from lightning_gans.callbacks.sample_grid import SampleGrid
from lightning_gans.callbacks.sample_ranking import SampleRanking
from lightning_gans.callbacks.sample_text import SampleText
from lightning_gans.callbacks.stationarity_gap import StationarityGap
from lightning_gans.callbacks.surrogate_objective import SurrogateObjective
from lightning_gans.callbacks.text_metrics import TextMetrics
from lightning_gans.callbacks.transfer_metrics import TransferMetrics
from lightning_gans.callbacks.wandb_setup import WandbSetup
from lightning_gans.callbacks.weight_histogram import WeightHistogram
from lightning_gans.visualization.images import grid_image, save_image_atomic

__all__ = [
    "EMA",
    "AttentionMaps",
    "DirectionCharts",
    "GANProgressBar",
    "GenerativeMetrics",
    "GradientNorms",
    "LabelInformation",
    "LossVariance",
    "ModeCoverage",
    "NonFiniteError",
    "NonFiniteGuard",
    "OverfitAlarm",
    "RankConsistency",
    "Rates",
    "SampleGrid",
    "SampleRanking",
    "SampleText",
    "StationarityGap",
    "SurrogateObjective",
    "TextMetrics",
    "TransferMetrics",
    "WandbSetup",
    "WeightHistogram",
    "grid_image",
    "save_image_atomic",
]
