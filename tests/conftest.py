"""Shared settings: one torch thread (two on a busy 2-core machine are many times slower), slow tests."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch

torch.set_num_threads(1)
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run learning tests and other long ones")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--runslow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --runslow"))


@pytest.fixture(autouse=True)
def _quiet_and_seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what a test forgets to direct elsewhere does not land in the repository
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the right format, with random weights, for InceptionV3."""
    from common import varied_images
    from torch import nn

    from lightning_gans.metrics.extractors import FeatureExtractorInceptionV3

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits"])
    for name, parameter in network.named_parameters():
        if name.endswith("conv.weight"):
            nn.init.kaiming_normal_(parameter)
    (features, _) = network(varied_images(4))  # logits that differ: no weight on what all images share
    common = nn.functional.normalize(features.mean(0), dim=0)
    network.fc.weight -= torch.outer(network.fc.weight @ common, common)
    network.fc.weight *= 2 / (features @ network.fc.weight.T).std()
    torch.save(network.state_dict(), path)
    return path
