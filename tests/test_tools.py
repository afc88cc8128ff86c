"""Samples that were made anywhere are scored; each checkpoint has a card; runs go to the Hub and come back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from common import make, make_images, trainer
from PIL import Image
from torch import Tensor, nn

from lightning_gans import GAN
from lightning_gans.callbacks import EMA, GenerativeMetrics, ModeCoverage
from lightning_gans.cli import main
from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.datamodules import Digits, Ring
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.metrics import METRICS
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator, StyleGenerator, ToyDiscriminator
from lightning_gans.runs.card import card
from lightning_gans.runs.checkpoints import AtomicCheckpointIO
from lightning_gans.tools.score import read_samples, score_samples
from lightning_gans.tools.write import SampleWriter, latent_walk


class Means(nn.Module):
    """Features that need no training: means over rows and columns; and logits."""

    name = "means"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.float().mean(1) / 255
        return torch.cat([x.mean(1), x.mean(2)], dim=1), x.flatten(1)[:, :4]


@pytest.fixture
def digits() -> Digits:
    return Digits(batch_size=50)


def write_pngs(folder: Path, images: Tensor) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{i:04d}.png")


# ---------------------------------------------------------------------- scores
def test_scores_are_those_of_the_callback(digits: Digits, tmp_path: Path) -> None:
    """The same samples: by the callback in training, as a tensor, from files, and from arrays of two layouts."""
    torch.manual_seed(0)
    module = GAN(DCGANGenerator((1, 8, 8), 4, 4), DCGANDiscriminator((1, 8, 8), 4), 4)
    options: Any = {"metrics": [*METRICS, "uniformity"], "num_real": 300, "kid_subset_size": 50, "is_splits": 2}
    scored = GenerativeMetrics(1, Means(), num_fake=100, at_start=False, **options)
    trainer(max_steps=1, callbacks=[scored]).fit(module, digits)
    wanted = {k.removeprefix("metrics/"): v for k, v in scored.history[-1].items() if k != "step"}
    own = torch.Generator().manual_seed(0)
    images = ((module.sample(100, generator=own) + 1) * 127.5).round().clamp(0, 255).byte()
    write_pngs(tmp_path / "pngs", images)
    np.savez(tmp_path / "nhwc.npz", samples=images.permute(0, 2, 3, 1).numpy())
    np.savez(tmp_path / "nchw.npz", images.numpy())
    given: list[Any] = [images, tmp_path / "pngs", str(tmp_path / "nhwc.npz"), tmp_path / "nchw.npz"]
    for samples in given:
        found = score_samples(samples, digits, Means(), **options)
        assert found["scores"] == pytest.approx(wanted, rel=1e-6), samples
    protocol = found["protocol"]
    assert (protocol["reference_items"], protocol["fakes"], protocol["extractor"]) == (300, 100, "means")
    assert protocol["uniformity_items"] == scored.protocol["uniformity_items"] == 100
    assert protocol["reference_hash"] == scored.protocol["reference_hash"]
    real = score_samples(digits.reference("train")[0], digits, Means(), ["fid"], split="test")
    assert list(real["scores"]) == ["fid/means-test"] and real["scores"]["fid/means-test"] < wanted["fid/means"] / 10


@pytest.mark.slow
def test_scores_are_torch_fidelitys(digits: Digits, tmp_path: Path) -> None:
    """With InceptionV3 of random weights, on folders of files; torch-fidelity takes RGB files only.

    KID of one subset that holds all images, since random subsets are drawn in different ways.
    """
    import torch_fidelity

    from lightning_gans.metrics import InceptionExtractor

    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(_inception_weights(), weights)
    real, fake = digits.reference("train")[0][:50], digits.reference("test")[0][:50]
    fake = (fake.float() * 0.95).byte()
    for name, images in (("real", real), ("fake", fake)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:03d}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "fake"), input2=str(tmp_path / "real"), cuda=False, fid=True, isc=True, kid=True,
        prc=True, kid_subset_size=50, kid_subsets=1, isc_splits=1, verbose=False, save_cpu_ram=True, cache=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights), feature_layer_prc="2048",
    )  # fmt: skip
    digits.reference = lambda split="train": (real, None)  # type: ignore[method-assign, assignment]
    ours = score_samples(tmp_path / "fake", digits, InceptionExtractor(weights), is_splits=1, batch_size=25)["scores"]
    assert ours["fid/inception"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3, abs=1e-6)
    assert ours["is/inception"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert ours["kid/inception"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-9)
    assert 0 < theirs["precision"] < 1 and 0 < theirs["recall"] < 1
    for name in ("precision", "recall"):
        assert ours[f"{name}/inception"] == pytest.approx(theirs[name], rel=1e-6)


def _inception_weights() -> dict[str, Tensor]:
    from unittest import mock

    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    made: dict[str, Any] = {}

    class Caught(Exception):
        pass

    def caught(self: nn.Module, state: Any, *args: Any, **kwargs: Any) -> None:
        made.update({k: v.clone() for k, v in nn.Module.state_dict(self).items()})
        raise Caught

    with (
        mock.patch.object(theirs, "load_state_dict_from_url", lambda *a, **k: {}),
        mock.patch.object(theirs.FeatureExtractorInceptionV3, "load_state_dict", caught),
        pytest.raises(Caught),
    ):
        theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    return made


def test_pictures_of_many_samples_are_none(tmp_path: Path) -> None:
    """Whatever `predict` draws beside the samples, of a generator with a space w too."""
    net, writer = StyleGenerator((3, 8, 8)), SampleWriter(tmp_path / "made", (-1.0, 1.0))
    module = GAN(net, ToyDiscriminator((3, 8, 8), width=4), net.latent_dim)
    rank: Any = SimpleNamespace(is_global_zero=True, datamodule=None)
    writer.write_on_epoch_end(rank, module, [module.predict_step(3, 0)], None)
    assert {"grid.png", "walk-w.gif"} <= {path.name for path in writer.folder.iterdir()}
    assert read_samples(writer.folder, 3).shape == (3, 3, 8, 8)


def test_pictures_of_many_network_calls_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, writer, said = make_images("ddpm"), SampleWriter(tmp_path / "made", (-1.0, 1.0)), list[str]()
    monkeypatch.setattr(writer, "_draw_images", lambda *_: said.append("drawn"))
    rank: Any = SimpleNamespace(is_global_zero=True, progress_bar_callback=SimpleNamespace(print=said.append))
    writer.write_on_epoch_end(rank, module, [torch.zeros(2, 1, 8, 8)], None)
    calls = f"{module.network_calls} network calls each."
    assert said == [f"Drawing interpolation and walk: 832 samples of {calls}", "drawn"]


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        ("nowhere", {}, "path nowhere does not exist"),
        ("nowhere.npz", {}, r"samples nowhere\.npz does not exist"),
        ("other.npz", {}, r"samples other\.npz must hold an array 'samples' or 'arr_0', got x"),
        ("floats.npz", {}, r"must hold uint8 images \(N, H, W, C\), got torch\.float64 \(3, 1, 8, 8\)"),
        ("sizes", {}, r"samples must be of one size, got 8x8 \(0000\.png\) and 4x8 \(wide\.png\)"),
        (torch.zeros(9, 1, 9, 9, dtype=torch.uint8), {}, "must be uint8 images of 1x8x8, as Digits, got .* of 1x9x9"),
        (torch.zeros(3, 1, 8, 8, dtype=torch.uint8), {}, "samples must be at least 10 for these metrics, got 3"),
        (torch.zeros(20, 1, 8, 8, dtype=torch.uint8), {"num_real": 1}, r"num_real must .* in 2\.\.1500, got 1"),
    ],
)
def test_what_cannot_be_scored(samples: Any, options: Any, words: str, digits: Digits) -> None:
    np.savez("other.npz", x=np.zeros(3))
    np.savez("floats.npz", samples=np.zeros((3, 8, 8, 1)))
    write_pngs(Path("sizes"), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    Image.new("L", (4, 8)).save("sizes/wide.png")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        score_samples(samples, digits, Means(), **options)
    with pytest.raises(ValueError, match=r"data must be images, got Ring of shape \(2,\)"):
        score_samples(samples, Ring(), Means())


def test_another_extractor(digits: Digits) -> None:
    with pytest.raises(ValueError, match="extractor must be one of inception, lenet, resnet, got 'foo'"):
        score_samples(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), digits, "foo")


def test_score_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], digits: Digits) -> None:
    write_pngs(tmp_path / "made", digits.reference("train")[0][:30])
    Image.new("L", (64, 64)).save(tmp_path / "made" / "grid.png")  # of predict: no sample
    assert len(read_samples(tmp_path / "made", 1)) == 30
    extractor = [f"--extractor={__name__}.Means"]
    args = ["score", "--samples", str(tmp_path / "made"), "--data=Digits", "--metrics=[fid,kid]", *extractor]
    main([*args, "--kid_subset_size=20", "--out=deep/s.json"])
    told = capsys.readouterr().out
    found = json.loads(Path("deep/s.json").read_text())
    assert "30 images against Digits" in told and f"{found['scores']['fid/means']:.6g}" in told
    assert (
        set(found["scores"]) == {"fid/means", "kid/means", "kid_std/means"}
        and found["protocol"]["kid_subset_size"] == 20
    )
    with pytest.raises(SystemExit, match="error: path nowhere does not exist"):
        main(["score", "--samples=nowhere", "--data=Digits", *extractor])
    assert [p.name for p in Path("deep").iterdir()] == ["s.json"]
    with pytest.raises(SystemExit, match="error: path nowhere does not exist"):
        main(["score", "--samples", str(tmp_path / "made"), "--data=Images", "--data.path=nowhere", *extractor])
    with pytest.raises(SystemExit):
        main(["score", "--samples=x", "--data=Digitz"])
    assert "'Digitz': did you mean Digits" in capsys.readouterr().err


# ---------------------------------------------------------------------- cards
def fitted(folder: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    module = make("wgan_gp")
    keep = lightning_callbacks.ModelCheckpoint(
        folder / "checkpoints", "{step}", every_n_train_steps=1, save_last=True, monitor="metrics/modes", mode="max"
    )
    watch = [EMA(0.5), ModeCoverage(1, num_samples=50), keep]
    runs = trainer(max_steps=3, callbacks=watch, plugins=[AtomicCheckpointIO()], enable_checkpointing=True)
    runs.fit(module, Ring(batch_size=8))
    return module


def test_each_checkpoint_has_a_card(tmp_path: Path) -> None:
    fitted(tmp_path)
    folder = tmp_path / "checkpoints"
    names = {suffix: {p.stem for p in folder.glob(f"*{suffix}")} for suffix in (".ckpt", ".md")}
    assert names[".ckpt"] == names[".md"] and len(names[".md"]) == 2, "the card of a removed checkpoint is left"
    assert len(list(folder.iterdir())) == 4
    text = (folder / "last.md").read_text()
    assert text.startswith("# WGANGP on Ring\n\nWasserstein GAN with gradient penalty (") and "arXiv:1704.00028" in text
    assert "- generator updates: 3 (" in text and "- weights: averaged over training (EMA), and raw" in text
    last = torch.load(folder / "last.ckpt", weights_only=True)
    history = last["callbacks"]["ModeCoverage[coverage]"]["history"]
    best = max(e["metrics/high_quality"] for e in history)
    row = next(line for line in text.splitlines() if line.startswith("| high_quality"))
    cells = [c.strip() for c in row.strip("|").split("|")]
    assert cells[1:5] == [*(f"{e['metrics/high_quality']:.4g}" for e in (history[0], history[-1])), "3", f"{best:.4g}"]
    assert "samples 50" in text and 'load("last.ckpt").sample(64, seed=0)' in text
    config = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
    assert config["model"]["latent_dim"] == last["hyper_parameters"]["latent_dim"] and config["data"]["batch_size"] == 8


def test_a_card_after_a_resume_tells_the_protocol(tmp_path: Path) -> None:
    """Of the scores that it tells, before any has been measured anew."""
    fitted(tmp_path)
    keep = lightning_callbacks.ModelCheckpoint(tmp_path / "later", "{step}", every_n_train_steps=1, save_top_k=-1)
    watch = [EMA(0.5), ModeCoverage(100, num_samples=60), keep]
    runs = trainer(max_steps=5, callbacks=watch, plugins=[AtomicCheckpointIO()], enable_checkpointing=True)
    runs.fit(make("wgan_gp"), Ring(batch_size=8), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert "Protocol: samples 50" in (tmp_path / "later" / "step=4.md").read_text()


def test_a_history_of_another_kind_is_left_out() -> None:
    """A card ends no training."""
    states = {"mine": {"history": [0.5, 0.25]}, "none": {"history": [], "protocol": {}, "higher_is_better": []}}
    told = card({"class_path": "elsewhere.Mine", "callbacks": states})
    assert told.startswith("# Mine\n") and "## Scores" not in told


# ---------------------------------------------------------------------- pictures
def test_a_walk_ends_where_it_began() -> None:
    torch.manual_seed(0)
    module = make("gan")
    walk = latent_walk(module, n=3, places=4, frames=6)
    assert walk.shape[:2] == (24, 3)
    own = torch.Generator().manual_seed(0)
    stops = torch.randn(4, 3, module.latent_dim, generator=own)
    with torch.no_grad():
        wanted = conditional_call(module.generator.eval(), stops[2], None)
    torch.testing.assert_close(walk[12], wanted, rtol=0, atol=1e-5)
    steps = (walk.roll(-1, 0) - walk).flatten(1).norm(dim=1)
    assert float(steps.max()) < 6 * float(steps.mean()), "a jump"
    assert torch.equal(walk, latent_walk(module, n=3, places=4, frames=6))
