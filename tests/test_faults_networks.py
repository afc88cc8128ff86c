"""Networks as other people write them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from common import trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gans import GAN, WGANGP
from lightning_gans.callbacks import EMA
from lightning_gans.functional import score
from lightning_gans.functional.modes import copied
from lightning_gans.tools import export
from lightning_gans.wrappers import MixtureGenerator

X, Y = torch.randn(16, 2), torch.arange(16) % 4


def loader(*columns: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(*columns), 8)


def generator(z: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(z, 8), nn.ReLU(), nn.Linear(8, 2))


def critic(*end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), *end)


class Foreign(nn.Module):
    """A network with labels by another name."""

    def __init__(self, inputs: int, outputs: int, num_classes: int | None = 4) -> None:
        super().__init__()
        self.body, self.table, self.seen = nn.Linear(inputs, outputs), nn.Embedding(4, outputs), 0
        if num_classes is not None:
            self.num_classes = num_classes

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.seen += 1
        return self.body(x) + self.table(y)


class Optional(Foreign):
    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return self.body(x) if label is None else super().forward(x, label)


@pytest.mark.parametrize("end", [(), (nn.Unflatten(1, (1, 1, 1)),)])
def test_scores_of_n_times_one_are_one_per_sample(end: tuple[nn.Module, ...]) -> None:
    torch.manual_seed(0)
    net = critic(*end)
    assert torch.equal(score(net, X), net(X).flatten())
    trainer(max_steps=2).fit(WGANGP(generator(), net, 3), loader(X))
    with pytest.raises(ValueError, match=r"scores of shape \(16,\), got \(16, 2\)"):
        score(nn.Linear(2, 2), X)
    with pytest.raises(ValueError, match=r"scores of shape \(1,\), got \(2,\)"):
        score(lambda x: torch.zeros(2), X[:1])


def test_labels_by_any_usual_name() -> None:
    g, d = Foreign(3, 2), Foreign(2, 1)
    module = GAN(g, d, 3)
    trainer(max_steps=2).fit(module, loader(X, Y))
    assert g.seen > 3 and d.seen > 3 and module.num_classes == 4 and module.sample(5).shape == (5, 2)
    with pytest.raises(ValueError, match="generator is conditional, but the data loader yields no labels"):
        trainer(max_steps=1).fit(GAN(Foreign(3, 2, None), critic(), 3), loader(X))
    g = Optional(3, 2, None)
    trainer(max_steps=1).fit(GAN(g, critic(), 3), loader(X))
    assert g.seen == 0
    trainer(max_steps=1).fit(GAN(g, critic(), 3), loader(X, Y))
    assert g.seen > 0


def test_noise_as_maps_and_lazy_layers_are_told_with_their_cure() -> None:
    maps = nn.Sequential(nn.ConvTranspose2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten())
    with pytest.raises(ValueError, match=r"must take noise \(N, 3\), .* nn.Sequential\(nn.Unflatten\(1, \(3, 1, 1\)\)"):
        trainer(max_steps=1).fit(GAN(maps, critic(), 3), loader(X))
    trainer(max_steps=1).fit(GAN(nn.Sequential(nn.Unflatten(1, (3, 1, 1)), maps), critic(), 3), loader(X))
    lazy = nn.Sequential(nn.LazyLinear(1))
    with pytest.raises(ValueError, match="networks must have no lazy layers left, got Sequential: call it on a batch"):
        GAN(generator(), lazy, 3)
    lazy(X)
    GAN(generator(), lazy, 3)


def test_the_older_norms_of_torch_are_averaged_copied_and_exported(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        normed = nn.utils.weight_norm(nn.Linear(3, 8))
    assert torch.equal(copied(normed)(torch.ones(1, 3)), normed(torch.ones(1, 3)))
    g = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 8)), nn.ReLU(), nn.Linear(8, 2))
    module = GAN(g, critic(), 3)
    trainer(max_steps=3, callbacks=[EMA(0.5, start_step=2)]).fit(module, loader(X))
    assert module.ema is not None and not torch.equal(module.ema[2].weight, g[2].weight)  # type: ignore[index]
    z = torch.randn(4, 3)
    again = copied(g.train())
    assert torch.equal(again.eval()(z), g.eval()(z))
    assert MixtureGenerator(g, generator()).components[0](z).shape == (4, 2)
    made = torch.export.load(export(module, tmp_path / "g.pt2")).module()(z)
    torch.testing.assert_close(made, module.decode(z))
