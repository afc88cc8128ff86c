"""Every import that README and docs ever told people to write goes on working, in processes of their own."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import lightning_gans

ROOT = Path(__file__).parent.parent
# Lines of code blocks, and names that the text tells (`rounds.boost`), as imports; by where they stood in version 0.1.
LINES = {
    "README.md, code": [
        "from lightning_gans import WGANGP",
        "from lightning_gans import GANModule",
        "from lightning_gans import load",
        "from lightning_gans.tools import export, load_from_hub, push_to_hub",
        "from lightning_gans import samplers",
        "from lightning_gans.tools.latent_directions import DirectionCharts, LatentDirections",
        "from lightning_gans.callbacks import DirectionCharts",
        "from lightning_gans.diagnostics import LatentDirections",
        "from lightning_gans.stages import fit_control",
    ],
    "docs/add-a-technique.md": ["from lightning_gans.engine.player import Player"],
    "docs/own-data.md": ["from lightning_gans.datamodules import GANDataModule"],
    "docs/scores.md": [
        "from lightning_gans.datamodules import Digits",
        "from lightning_gans.metrics import ClassifierExtractor, otdd_report, spectrum_gap, to_uint8",
    ],
    "README.md, text": [
        "from lightning_gans.optim import ExtraAdam, ExtraSGD, OptimisticAdam, OptimisticSGD",
        "from lightning_gans.checkpoints import AtomicCheckpointIO",
        "from lightning_gans.tools.score import score_samples",
        "from lightning_gans.tools.latent_directions import attribute_correlations, match_directions, name_directions",
        "from lightning_gans.tools.latent_directions import sign_accuracy",
        "from lightning_gans.datamodules import Contaminated, TailSampled",
        "from lightning_gans.wrappers import DiffAugment, spectral_norm, weight_norm",
        "from lightning_gans.callbacks import EMA, GANProgressBar, GenerativeMetrics, GradientNorms, LossVariance",
        "from lightning_gans.callbacks import ModeCoverage, NonFiniteGuard, OverfitAlarm, RankConsistency, SampleGrid",
        "from lightning_gans.callbacks import SampleRanking, StationarityGap, SurrogateObjective, WandbSetup",
        "from lightning_gans.callbacks import WeightHistogram",
        "from lightning_gans.samplers import CollaborativeSampler, LatentLangevin, LatentOptimisation, calibrate",
        "from lightning_gans.samplers import MetropolisHastings, RejectionSampler, Thresholding, Truncation",
        "from lightning_gans.samplers import keep_training",
    ],
    "docs/add-a-technique.md and docs/design.md, text": [
        "from lightning_gans.base import Batch, GANModule, Terms",
        "from lightning_gans.base import frozen, kept_buffers",
        "from lightning_gans.techniques import TECHNIQUES",
        "from lightning_gans.functional import draw, input_gradient, double_backward, residual",
        "from lightning_gans.functional.input_gradient import double_backward, input_gradient",
        "from lightning_gans.functional.draw import normal, uniform",
        "from lightning_gans.loading import load",
        "from lightning_gans.loggers import MetricsCSV",
        "from lightning_gans.card import card",
        "from lightning_gans.sample_weights import SampleWeighted",
        "from lightning_gans.rounds import boost, density_ratio, fit_vae, match_moments, reweight",
        "from lightning_gans.networks.fold import DownConv2d, UpConv2d",
        "from lightning_gans.wrappers import MixtureGenerator",
        "from lightning_gans.samplers import Calibrated, RatioHead",
    ],
    "docs/distributed.md, text": [
        "from lightning_gans import distributed",
        "from lightning_gans.distributed import GANDDPStrategy, average, gather_objects",
        "from lightning_gans.callbacks import RankConsistency",
    ],
    "docs/own-networks.md": ["from lightning_gans import SNGAN", "from lightning_gans import GAN"],
    "train.py": ["from lightning_gans.cli import main"],
    "docstrings": [
        "from lightning_gans.checkpoints import read_checkpoint",
        "from lightning_gans.functional.losses import LOSSES, PAIRS",
        "from lightning_gans.functional.robust import outlier_share, rho_for_share, robust_weights",
    ],
}
# What the packages exported by __all__.
EXPORTED = {
    "lightning_gans": "CTGAN DCGAN GAN PRCGAN SNGAN SRNGAN TECHNIQUES WGAN WGANALP WGANGP AdaGAN Batch BoostedGAN "
    "GANModule PrimalDualGAN RobustWGAN UnrolledGAN __version__ distributed load regularizers",
    "lightning_gans.callbacks": "EMA GANProgressBar GenerativeMetrics GradientNorms LossVariance ModeCoverage "
    "NonFiniteError NonFiniteGuard OverfitAlarm RankConsistency SampleGrid SampleRanking StationarityGap "
    "SurrogateObjective WandbSetup WeightHistogram grid_image save_image_atomic",
    "lightning_gans.datamodules": "CIFAR10 CIFAR100 MNIST Blob Classes Contaminated Digits FashionMNIST FreshLoader "
    "GANDataModule Gaussian1D Grid ImageDataModule Images LowDensity MemoryLoader Mixture PointMass Quantile "
    "RareTail1D Resampled Ring StackedMNIST SwissRoll Tail TailSampled TailSampler Threshold ToyDataModule tail_loader",
    "lightning_gans.functional": "AdversarialLoss LOSSES PAIRS SaddlePair check_scores double_backward "
    "finite_difference_penalty gather_rows gradient_norm gradient_penalty input_gradient interpolate "
    "log_kernel_density mean_over_ranks median_distance normal outlier_share perturb rank_and_world residual "
    "rho_for_share robust_weights score score_with stratum_weights takes_labels uniform uniform_of unroll",
    "lightning_gans.metrics": "ClassifierExtractor Coverage DensityCoverage FID FeatureExtractor GenerativeScores "
    "InceptionExtractor METRICS ModuleExtractor PRDC PrecisionRecall class_coverage content_hash density_coverage "
    "frechet_distance kde_coverage knn_radii mode_coverage precision_recall reverse_kl stroke_attributes tail_mass "
    "to_uint8 wasserstein1 weights_hash",
    "lightning_gans.networks": "BottleneckDiscriminator BottleneckGenerator CIFARCritic CIFARGenerator "
    "ConditionalBatchNorm2d DCGANDiscriminator DCGANGenerator LayerNorm LeNet MNISTCritic MNISTGenerator "
    "PrimalDualDiscriminator PrimalDualGenerator ProjectionHead Reconstructor ResNetClassifier ResNetDiscriminator "
    "ResNetGenerator TaperedResNetDiscriminator TaperedResNetGenerator ToyDiscriminator ToyGenerator make_norm",
    "lightning_gans.regularizers": "AdversarialLipschitzPenalty ConsistencyTerm DRAGAN FiniteDifferencePenalty "
    "GradientPenalty R1 R2 Regularizer ScorePenalty",
    "lightning_gans.samplers": "Calibrated Chains CollaborativeSampler LatentLangevin LatentOptimisation LatentSampler "
    "MetropolisHastings RatioHead RejectionSampler Report Sampler Thresholding Truncation acceptance_logit calibrate "
    "calibration_z keep_training pick",
    "lightning_gans.tools": "export load load_from_hub push_to_hub",
    "lightning_gans.wrappers": "DiffAugment MixtureGenerator SpectralNorm is_normalised spectral_norm weight_norm",
}
ALL = [line for lines in LINES.values() for line in lines]
ALL += [f"from {package} import {', '.join(names.split())}" for package, names in EXPORTED.items()]


def failing(lines: list[str], answer: Connection) -> None:
    """Send which lines fail, with the module as the first of the library that is imported: nothing of it is there."""
    for name in [n for n in sys.modules if n.split(".")[0] == "lightning_gans"]:
        del sys.modules[name]
    failed = []
    warnings.simplefilter("ignore")
    for line in lines:
        try:
            exec(line, {})
        except Exception as error:
            failed.append(f"{line} -> {error!r}")
    answer.send(failed)


OFTEN = ("lightning_gans", "lightning_gans.callbacks", "lightning_gans.samplers", "lightning_gans.base")  # one is moved


@pytest.mark.parametrize("often", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_module_by_itself(often: bool) -> None:
    modules: dict[str, list[str]] = {}
    for line in ALL:
        if (line.split()[1] in OFTEN) is often:
            modules.setdefault(line.split()[1], []).append(line)
    fork, (ours, theirs) = multiprocessing.get_context("fork"), multiprocessing.Pipe()
    for lines in modules.values():  # in children of this process, which has imported torch and Lightning already
        child = fork.Process(target=failing, args=(lines, theirs))
        child.start()
        child.join()
        assert child.exitcode == 0 and ours.recv() == []


def test_old_and_new_names_are_the_same() -> None:
    """A class that was found in two places and is two classes would pass no isinstance check."""
    namespace: dict[str, object] = {}
    seen: dict[str, object] = {}
    for line in ALL:
        exec(line, namespace)
        for name in line.partition(" import ")[2].split(", "):
            if isinstance(namespace[name], type):
                assert seen.setdefault(name, namespace[name]) is namespace[name], line
    assert seen["GANModule"] is lightning_gans.GANModule


def test_the_readme_is_listed() -> None:
    """A line that README or docs gain is to be added here, and stays when they lose it."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    told = {line.strip() for page in pages for line in page.read_text().splitlines() if "lightning_gans" in line}
    code = {line for line in told if line.startswith(("from lightning_gans", "import lightning_gans"))}
    assert code and code <= set(ALL)
