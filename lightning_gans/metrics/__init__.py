"""Scores of generated samples: FID, IS, KID, precision/recall/density/coverage, and exact ones for known data."""

from lightning_gans.functional.pixels import to_uint8
from lightning_gans.metrics.attributes import ShapeMeasure, ShapeRule, shape_attributes, stroke_attributes
from lightning_gans.metrics.coverage import (
    Coverage,
    class_coverage,
    kde_coverage,
    mode_coverage,
    reverse_kl,
    tail_mass,
    wasserstein1,
)
from lightning_gans.metrics.extractors import (
    ClassifierExtractor,
    FeatureExtractor,
    InceptionExtractor,
    ModuleExtractor,
    as_extractor,
    content_hash,
    weights_hash,
)
from lightning_gans.metrics.generative import (
    FID,
    METRICS,
    PRDC,
    DensityCoverage,
    GenerativeScores,
    PrecisionRecall,
    density_coverage,
    frechet_distance,
    knn_radii,
    precision_recall,
)
from lightning_gans.metrics.otdd import DatasetDistance, otdd, otdd_report
from lightning_gans.metrics.spectrum import spectrum_bands, spectrum_gap
from lightning_gans.metrics.uniformity import UniformityGap, alignment, uniformity, uniformity_gap

__all__ = [
    "FID",
    "METRICS",
    "PRDC",
    "ClassifierExtractor",
    "Coverage",
    "DatasetDistance",
    "DensityCoverage",
    "FeatureExtractor",
    "GenerativeScores",
    "InceptionExtractor",
    "ModuleExtractor",
    "PrecisionRecall",
    "ShapeMeasure",
    "ShapeRule",
    "UniformityGap",
    "alignment",
    "as_extractor",
    "class_coverage",
    "content_hash",
    "density_coverage",
    "frechet_distance",
    "kde_coverage",
    "knn_radii",
    "mode_coverage",
    "otdd",
    "otdd_report",
    "precision_recall",
    "reverse_kl",
    "shape_attributes",
    "spectrum_bands",
    "spectrum_gap",
    "stroke_attributes",
    "tail_mass",
    "to_uint8",
    "uniformity",
    "uniformity_gap",
    "wasserstein1",
    "weights_hash",
]
