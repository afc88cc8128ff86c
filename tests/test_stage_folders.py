"""A stage goes on with what lies in its folder only if that is of the same data, networks and settings."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import QUIET, equal, plain
from torch import Tensor, nn

from lightning_gans import DDPM, GAN, GANControl
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import Ring
from lightning_gans.networks import DiffusionMLP, TimedClassifier, ToyDiscriminator, ToyGenerator
from lightning_gans.stages import (
    boost,
    density_ratio,
    fit_control,
    fit_noisy_classifier,
    fit_vae,
    fits,
    match_moments,
    reweight,
)

State = dict[str, Tensor]


def items(seed: int) -> Tensor:
    return torch.randn(30, 2, generator=torch.Generator().manual_seed(seed))


def begun(begin: Callable[..., None], folder: Path | None, net: int = 8, data: int = 0, **options: Any) -> State:
    torch.manual_seed(0)
    generator = ToyGenerator(width=net, depth=1)
    begin(generator, items(data), 2, **{"steps": 2, "batch_size": 8, "folder": folder, **options})
    return dict(generator.state_dict())


def noisy(folder: Path | None, net: int = 8, data: int = 0, steps_of: int = 20, **options: Any) -> State:
    torch.manual_seed(options.get("seed", 0))
    x, module = items(data), DDPM(DiffusionMLP((2,), 8, 1), steps=steps_of)
    classifier = TimedClassifier((2,), 2, net, 1)
    fit_noisy_classifier(module, classifier, x, (x[:, 0] > 0).long(), steps=2, batch_size=8, folder=folder, **options)
    return dict(classifier.state_dict())


def control(folder: Path | None, net: int = 0, factor: float = 1.0, **options: Any) -> State:
    torch.manual_seed(net)
    nets = ToyGenerator(width=4, depth=1), ToyDiscriminator(width=4, depth=1)
    measure = lambda x: {"a": factor * x[:, 0], "b": x[:, 1]}  # noqa: E731
    module = GANControl(*nets, 2, measure=measure, groups={"a": 1, "b": 1}, path_length_weight=0)
    return dict(fit_control(module, folder, **{"samples": 30, "steps": 2, "width": 4, **options}).state_dict())


RING = Ring(batch_size=16)


def mixture(seed: int) -> GAN:
    torch.manual_seed(seed)
    return GAN(ToyGenerator(width=4, depth=1), ToyDiscriminator(width=4, depth=1), 2)


def ratio(folder: Path | None, net: int = 4, of: int = 0, **options: Any) -> State:
    torch.manual_seed(0)
    given = {"steps": 2, "batch_size": 8, "looks": 1, "folder": folder, **options}
    module, classifier = mixture(of), ToyDiscriminator(width=net, depth=1)
    return {"h": density_ratio(RING, module, classifier, **given)}


def weights(folder: Path | None, net: int = 4, of: int = 0, **options: Any) -> State:
    module, classifier = mixture(of), ToyDiscriminator(width=net, depth=1)
    torch.manual_seed(0)
    assert folder is not None
    found: Any = reweight(RING, module, classifier, folder, **{"steps": 2, "batch_size": 8, **options})
    return {"p": found.probabilities}


COMMON: list[dict[str, Any]] = [{"net": 6}, {"lr": 0.1}, {"batch_size": 4}]
STAGES: dict[str, tuple[Callable[..., State], list[dict[str, Any]]]] = {
    "match_moments": (lambda folder, **o: begun(match_moments, folder, **o), [*COMMON, {"data": 1}]),
    "fit_vae": (
        lambda folder, **o: begun(fit_vae, folder, **o),
        [{"net": 6}, {"data": 1}, {"sigma": 0.1}, {"width": 9}],
    ),
    "noisy": (noisy, [{"net": 6}, {"data": 1}, {"seed": 1}, {"steps_of": 30}]),
    "control": (control, [{"net": 1}, {"factor": 2.0}, {"seed": 1}, {"width": 6}, {"lr": 0.1}, {"samples": 31}]),
    "density_ratio": (ratio, [{"net": 6}, {"of": 1}, {"lr": 0.1}]),
    "reweight": (weights, [{"net": 6}, {"of": 1}, {"weights": "topk"}, {"beta": 0.2}, {"lr": 0.1}]),
}


def nothing(self: Any) -> None:
    raise AssertionError("an update was made")


@pytest.mark.parametrize("name", STAGES)
def test_a_folder_is_of_the_same_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of a setting trains anew, as in an empty folder; the same again trains nothing."""
    stage, changes = STAGES[name]
    place = tmp_path / "place"
    first = stage(place)
    for i, change in enumerate(changes):
        alone = stage(tmp_path / str(i), **change)
        assert equal(stage(place, **change), alone), change
        assert alone.keys() != first.keys() or not equal(alone, first), change
    with monkeypatch.context() as patch:
        patch.setattr(fits.GenerativeModule, "cycle", nothing)
        if name == "reweight":  # which has one place
            assert equal(stage(place, **changes[-1]), alone)
        else:
            assert equal(stage(place), first)


def test_rounds_of_other_networks_or_settings_are_told(tmp_path: Path) -> None:
    data = plain(batch_size=8)

    def rounds(width: int, steps: int = 2, **options: Any) -> Any:
        made = lambda last: GAN(ToyGenerator(width=width), ToyDiscriminator(width=4), 2, **options)  # noqa: E731
        return boost(made, data, 1, tmp_path, max_steps=steps, **(QUIET | {"enable_checkpointing": True}))

    rounds(4)
    for steps in (2, 3):  # loaded, and gone on with
        with pytest.raises(ValueError, match=r"folder must be that of a fit of the same networks, in which generator"):
            rounds(6, steps)
    with pytest.warns(UserWarning, match=r"is finished, and stays as it is, without other settings: loss hinge \(was"):
        rounds(4, loss="hinge")


def test_layers_of_other_kinds_are_other_networks(tmp_path: Path) -> None:
    """Of the same shapes."""
    for kind in (nn.ReLU, nn.Tanh):
        torch.manual_seed(0)
        classifier = nn.Sequential(nn.Linear(2, 4), kind(), nn.Linear(4, 1), nn.Flatten(0))
        density_ratio(RING, mixture(0), classifier, steps=2, batch_size=8, looks=1, folder=tmp_path)
    assert len({path.read_text() for path in tmp_path.rglob("settings.json")}) == 2


class _Kinds(pl.Callback):
    """The bars of a fit."""

    bars: list[str]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.bars = [type(c).__name__ for c in trainer.callbacks if isinstance(c, callbacks.ProgressBar)]


@pytest.mark.parametrize(
    ("given", "on", "expected"),
    [([], True, "GANProgressBar"), ([callbacks.TQDMProgressBar], True, "TQDMProgressBar"), ([], False, None)],
)
def test_a_stage_shows_our_bar_unless_there_is_another_or_none(given: list[Any], on: bool, expected: str) -> None:
    module, kinds = GAN(ToyGenerator(width=4), ToyDiscriminator(width=4), latent_dim=2), _Kinds()
    fits.fit(module, RING, 1, callbacks=[kinds, *(make() for make in given)], enable_progress_bar=on,
             enable_model_summary=False)  # fmt: skip
    assert kinds.bars == ([] if expected is None else [expected])


class Terminated(pl.Callback):
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_behind_the_last_update_ends_the_process(tmp_path: Path) -> None:
    """Lightning heeds it before an update alone, so that the next round, or stage, would begin."""
    options: dict[str, Any] = {"callbacks": lambda: [Terminated()], **QUIET, "enable_checkpointing": True}
    with pytest.raises(SystemExit) as ended:
        boost(lambda last: mixture(0), plain(batch_size=8), 2, tmp_path, max_steps=2, **options)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [path.parent.name for path in tmp_path.rglob("last.ckpt")] == ["round-0"]
