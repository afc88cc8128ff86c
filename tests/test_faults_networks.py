"""Networks as other people write them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from common import critic, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gans import GAN, PRCGAN, WGANGP
from lightning_gans.callbacks import EMA
from lightning_gans.datamodules import Contaminated, MemoryLoader, Quantile, Ring, TailSampled, tail_loader
from lightning_gans.functional import score
from lightning_gans.functional.modes import copied
from lightning_gans.networks import (
    BottleneckDiscriminator,
    BottleneckGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    TaperedResNetDiscriminator,
    TaperedResNetGenerator,
)
from lightning_gans.runs.checkpoints import read_checkpoint
from lightning_gans.samplers import RejectionSampler
from lightning_gans.tools import export
from lightning_gans.wrappers import MixtureGenerator

X, Y = torch.randn(16, 2), torch.arange(16) % 4


def loader(*columns: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(*columns), 8)


def generator(z: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(z, 8), nn.ReLU(), nn.Linear(8, 2))


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


@pytest.mark.parametrize(
    ("g", "d", "wide", "odd"),
    [
        (DCGANGenerator, DCGANDiscriminator, (16, 28), (16, 30)),
        (ResNetGenerator, ResNetDiscriminator, (8, 20), (11, 22)),
        (TaperedResNetGenerator, TaperedResNetDiscriminator, (24, 12), (75, 100)),
        (BottleneckGenerator, BottleneckDiscriminator, (8, 12), (8, 11)),
    ],
)
def test_rectangles_whose_sides_the_depth_allows(g: Any, d: Any, wide: Any, odd: Any) -> None:
    width = 16 if g is BottleneckGenerator else 4
    made = g((4, *wide), latent_dim=3, width=width)(torch.randn(2, 3))
    assert made.shape == (2, 4, *wide) and d((4, *wide), width=width)(made).shape == (2,)
    for net in (g, d):
        with pytest.raises(ValueError, match=r"takes shape=\(C, H, W\) with .*, got \(3, "):
            net((3, *odd))


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


# ------------------------------------------------------------------------------------------------- settings
def tail() -> TailSampled:
    return TailSampled(Ring(), Quantile())


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: GAN(generator(), critic(), 3, lr_g=0.0), UserWarning, "lr_g is 0: generator will not learn"),
        (lambda: GAN(generator(), critic(), 3, lr_d=-1.0), ValueError, "lr_d must be a finite number >= 0, got -1.0"),
        (lambda: GAN(generator(), critic(), 3, betas=(0.9, 0.5)), UserWarning, r"betas are \(0.9, 0.5\): Adam's first"),
        (lambda: GAN(generator(), critic(), 3, betas=(0.9, 1.5)), ValueError, r"betas must be .* got \(0.9, 1.5\)"),
        (
            lambda: PRCGAN(generator(), critic(), 3, classifier=critic(), ratio_clip=1.5),
            UserWarning,
            r"ratio_clip is 1\.5: ratios are clipped at 1 \+ ratio_clip only",
        ),
        (lambda: RejectionSampler(lambda n, g: X, critic(), percentile=0.8), ValueError, "such as 80, got 0.8"),
        (
            lambda: TailSampled(Contaminated(tail()), Quantile()),
            ValueError,
            "must not be TailSampled",
        ),
        (
            lambda: tail_loader(tail_loader(MemoryLoader(X, Y, 8), Y == 0), Y == 0),
            ValueError,
            "a tail in a chosen share",
        ),
    ],
)
def test_settings_that_cannot_be_meant(make: Any, kind: Any, words: str) -> None:
    with pytest.warns(kind, match=words) if kind is UserWarning else pytest.raises(kind, match=words):
        make()


def test_two_averages_of_one_generator_are_refused() -> None:
    with pytest.raises(ValueError, match="EMA must be listed once, since a module has one average, got it 2 times"):
        trainer(max_steps=1, callbacks=[EMA(), EMA(0.9)]).fit(GAN(generator(), critic(), 3), loader(X))


def test_data_that_cannot_be_meant_are_told_in_the_first_batch() -> None:
    def fit(g: nn.Module, *columns: Tensor) -> None:
        trainer(max_steps=1).fit(GAN(g, critic(), 3), loader(*columns))

    with pytest.warns(UserWarning, match=r"lie in .* to [0-9]+, .* seem not to come: scale the data to \[-1, 1\]"):
        fit(nn.Sequential(generator(), nn.Tanh()), X.abs() * 90)
    with pytest.warns(UserWarning, match=r"scale the data to \[0, 1\]"):
        fit(nn.Sequential(generator(), nn.Sigmoid()), X.clamp(-1, 1))
    with pytest.warns(UserWarning, match="The weights of the first batch have mean 0;"):
        fit(generator(), X, Y, torch.zeros(16))
    with pytest.warns(UserWarning, match="The weights of the first batch have mean 100"):
        fit(generator(), X, Y, torch.full((16,), 100.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(generator(), X * 100, Y, torch.rand(16) + 0.5)
        fit(nn.Sequential(generator(), nn.Tanh()), X.clamp(-1, 1))
    assert not [w for w in caught if "first batch" in str(w.message)]


# ------------------------------------------------------------------------------------------------- checkpoints
class Code:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_damaged_checkpoint_names_a_whole_one_and_code_is_called_code(tmp_path: Path) -> None:
    whole = {"state_dict": {"w": torch.ones(500)}, "pytorch-lightning_version": "2"}
    torch.save(whole, tmp_path / "old.ckpt")
    content = (tmp_path / "old.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    size = f"{len(content) // 2:,} bytes"
    with pytest.raises(ValueError, match=rf"last.ckpt is not a readable .*\({size}; old.ckpt beside it is whole\)"):
        read_checkpoint(tmp_path / "last.ckpt")
    torch.save(whole | {"extra": Code()}, tmp_path / "evil.ckpt")
    with pytest.raises(
        ValueError, match=r"evil.ckpt is not a readable checkpoint: it holds code \(.*print\), which was not run"
    ):
        read_checkpoint(tmp_path / "evil.ckpt")
