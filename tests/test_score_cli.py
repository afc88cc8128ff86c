"""Scores of samples that others have made: torch-fidelity's numbers, any protocol, and every mistake told."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import make_images, trainer, varied_images
from PIL import Image
from torch import Tensor, nn

from lightning_gans.callbacks import GenerativeMetrics, SampleWriter
from lightning_gans.callbacks.image_logging import to_uint8
from lightning_gans.cli import main
from lightning_gans.datamodules import Digits, Images, Ring
from lightning_gans.metrics import content_hash, extractors
from lightning_gans.tools import score_samples
from lightning_gans.tools.score import read_samples

FLAT: dict[str, Any] = {"extractor": nn.Flatten(), "metrics": ("fid", "prdc")}


def digits(n: int, first: int = 0) -> Tensor:
    return Digits().reference()[0][first : first + n]


def folder(images: Tensor, path: str = "mine", mode: str = "RGB") -> Path:
    """Images (N, C, H, W) as PNG files."""
    Path(path).mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).convert(mode).save(f"{path}/{i:03d}.png")
    return Path(path)


def npz(path: str = "mine.npz", **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return Path(path)


# ---------------------------------------------------------------------- the numbers
def test_equal_to_torch_fidelity(inception_weights: Path) -> None:
    """Whose own reading of the two folders, features and formulas are used; one split and one subset, none drawn."""
    from torch_fidelity import calculate_metrics

    number = 8
    images = varied_images(2 * number)
    images[-number // 2 :] = 255 - images[-number // 2 :]  # half of the fakes are far from the reals
    real, fake = folder(images[:number], "real"), folder(images[number:], "fake")
    theirs = calculate_metrics(
        input1=str(fake), input2=str(real), cuda=False, verbose=False, cache=False, save_cpu_ram=True,
        batch_size=8, isc=True, fid=True, kid=True, prc=True, isc_splits=1, kid_subsets=1, kid_subset_size=number,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(inception_weights),
    )  # fmt: skip
    main(["score", f"--samples={fake}", "--data=Images", f"--data.path={real}", "--data.size=32", "--data.test_share=0",
          "--extractor=InceptionExtractor", f"--extractor.weights_path={inception_weights}", "--is_splits=1",
          f"--kid_subset_size={number}", "--batch_size=8", "--out=new/scores.json"])  # fmt: skip
    ours = json.loads(Path("new/scores.json").read_text())
    for name, key in (
        ("fid", "frechet_inception_distance"),
        ("is", "inception_score_mean"),
        ("kid", "kernel_inception_distance_mean"),
        ("precision", "precision"),
        ("recall", "recall"),
    ):
        assert ours[f"metrics/{name}/inception"] == pytest.approx(theirs[key], rel=1e-4, abs=2e-6), (
            name
        )  # theirs: KID in float32
    assert ours["metrics/is/inception"] > 1.1 and ours["metrics/fid/inception"] > 0.1, "the comparison is empty"
    assert 0 < ours["metrics/precision/inception"] < 1


def test_equal_to_the_callback_whose_samples_they_are() -> None:
    """The same generator, reference subset and settings, by way of an array."""
    module = make_images("wgan")
    metrics = GenerativeMetrics(1, num_fake=90, num_real=70, split="test", at_start=False, **FLAT)
    trainer(max_steps=1, callbacks=[metrics]).fit(module, Digits(batch_size=8))
    fake = to_uint8(module.sample(90, seed=0), (-1, 1))  # the callback's first block of noise
    path = npz(samples=fake.permute(0, 2, 3, 1).numpy())
    scores, protocol = score_samples(path, Digits(), num_real=70, split="test", **FLAT)
    expected = {name: value for name, value in metrics.history[-1].items() if name != "step"}
    assert scores == pytest.approx(expected, rel=1e-9) and "metrics/fid/flatten-test" in scores
    shared = {"extractor", "extractor_weights", "reference_split", "reference_items", "reference_hash", "fakes"}
    assert all(protocol[key] == metrics.protocol[key] for key in shared)
    assert protocol["fakes_hash"] == content_hash(fake)


def test_every_way_in_gives_the_same() -> None:
    """A tensor, an array in two layouts and under another name, folders of RGB, grey and nested files, a zip file."""
    images = digits(40)
    moved = images.permute(0, 2, 3, 1).numpy()
    (nested := Path("nested/a")).mkdir(parents=True)
    folder(images, str(nested))
    with zipfile.ZipFile("mine.zip", "w") as archive:
        for path in sorted(folder(images, "rgb").iterdir()):
            archive.write(path, path.name)
    arrays = [npz("a.npz", samples=moved, labels=np.arange(40)), npz("b.npz", arr_0=moved)]
    arrays.append(npz("c.npz", samples=images.numpy()))
    ways: list[Any] = [images, *arrays, "rgb", folder(images, "grey", "L"), "nested", "mine.zip"]
    found = [score_samples(way, digits(60, 100), **FLAT) for way in ways]
    assert found[0].scores["metrics/fid/flatten"] > 1
    assert all(one.scores == found[0].scores for one in found)
    assert {one.protocol["fakes_hash"] for one in found} == {content_hash(images)}


def test_grey_samples_of_a_coloured_reference() -> None:
    images = digits(30)
    coloured = torch.cat([images, 255 - images, images], 1)
    one, three = (score_samples(x, coloured, **FLAT) for x in (images, images.expand(-1, 3, -1, -1)))
    assert one == three


def test_predict_and_score(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pictures that predict adds are no samples; the small classifier is trained on the training split."""
    seen: list[Tensor] = []
    monkeypatch.setattr(extractors, "_train_classifier", lambda _, images, *others: seen.append(images))
    module = make_images("wgan")
    trainer(callbacks=[SampleWriter("out")]).predict(module, [40])  # type: ignore[arg-type]
    assert Path("out/grid.png").is_file() and len(read_samples("out")) == 40
    images = to_uint8(module.sample(40, seed=0), (-1, 1))
    expected = score_samples(images, Digits(), extractor="lenet", metrics="fid,kid", split="test", cache_dir="cache")
    main(["score", "--samples=out", "--data=Digits", "--extractor=lenet", "--metrics=[fid,kid]", "--split=test",
          "--cache_dir=cache", "--out=a.json"])  # fmt: skip
    assert [len(images) for images in seen] == [1500], "it was not trained once, on the training split, and cached"
    told = json.loads(Path("a.json").read_text())
    assert told.pop("protocol") == expected.protocol and told == expected.scores
    assert list(told) == ["metrics/fid/lenet-test", "metrics/kid/lenet-test"]
    out = capsys.readouterr().out
    assert f"metrics/fid/lenet-test  {told['metrics/fid/lenet-test']:.6g}\n" in out and "a.json" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "cache", "out"]


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (torch.rand(20, 1, 8, 8), {}, r"samples must be uint8 images \(N, C, H, W\), got torch.float32 of shape"),
        (torch.zeros(20, 2).byte(), {}, r"samples must be uint8 images .* got torch.uint8 of shape \(20, 2\)"),
        (
            torch.zeros(20, 1, 8, 9).byte(),
            {},
            r"the reference's shape \(1, 8, 8\), got \(1, 8, 9\): nothing is resized",
        ),
        (torch.zeros(20, 3, 9, 9).byte(), {}, r"the reference's shape \(1, 8, 8\), got \(3, 9, 9\)"),
        (varied_images(20)[..., :8, :8], {}, r"samples must be grey, as the reference is, got coloured images"),
        (digits(5), {}, "samples must be at least 6 for fid, prdc of these settings, got 5"),
        (digits(9), {"metrics": ["is"]}, "samples must be at least 10 for is of these settings, got 9"),
        (digits(20), {"num_real": 1501}, r"num_real must be in 6\.\.1500, the size of the reference, got 1501"),
        (digits(20), {"num_real": 5}, r"num_real must be in 6\.\.1500, the size of the reference, got 5"),
        (digits(20), {"metrics": ["fod"]}, "metrics must be some of fid, is, kid, prdc, got fod"),
        (digits(20), {"metrics": ["is"], "is_splits": 1}, "'is' needs an extractor with class logits"),
        (digits(20), {"extractor": "vgg"}, "extractor must be one of inception, lenet, resnet, got 'vgg'"),
        (digits(20), {"split": "val"}, "split must be one of train, test, got 'val'"),
        (digits(20), {"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        (digits(20), {"kid_subset_size": 1}, "kid_subset_size must be an integer >= 2, got 1"),
    ],
)
def test_one_sentence(samples: Tensor, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        score_samples(samples, Digits(), **(FLAT | options))


def test_references_that_do_not_do() -> None:
    with pytest.raises(ValueError, match=r"the reference must be uint8 images .* toy data are scored by ModeCoverage"):
        score_samples(digits(20), Ring(), **FLAT)
    with pytest.raises(ValueError, match="extractor='lenet' is trained on the data set's labels, but there are none"):
        score_samples(digits(20), digits(20), extractor="lenet")
    data = Images(str(folder(digits(20), "plain")), size=8, mode="L")
    with pytest.raises(ValueError, match="extractor='lenet' is trained on the data set's labels, but there are none"):
        score_samples(digits(20), data, extractor="lenet")


def test_what_cannot_be_read() -> None:
    with pytest.raises(FileNotFoundError, match="samples: there is nothing at nowhere"):
        read_samples("nowhere")
    Path("a.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ValueError, match=r"a\.npz is no readable \.npz of numbers"):
        read_samples("a.npz")
    npz("b.npz", samples=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"b\.npz is no readable \.npz of numbers"):
        read_samples("b.npz")
    npz("c.npz", x=np.zeros(2), y=np.zeros(2))
    with pytest.raises(ValueError, match=r"c\.npz must hold an array 'samples', or only one, got x, y"):
        read_samples("c.npz")
    npz("d.npz", samples=np.zeros((3, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match=r"must hold uint8 \(N, H, W, 1 or 3\), got float32 \(3, 8, 8, 3\)"):
        read_samples("d.npz")
    mine = folder(digits(3))
    Image.new("RGB", (9, 8)).save("mine/001.png")
    with pytest.raises(ValueError, match=r"one size, but in mine 000\.png has 8x8 pixels and 001\.png 8x9"):
        read_samples(mine)
    Path("mine/001.png").write_bytes(Path("mine/000.png").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"samples: 001\.png of mine cannot be read"):
        read_samples(mine)
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="path empty holds no images"):
        read_samples("empty")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--samples=nowhere", "--data=Digits"], "error: samples: there is nothing at nowhere"),
        (["--samples=a.npz", "--data=Digits", "--extractor=vgg"], "error: extractor must be one of inception, lenet"),
        (["--samples=a.npz", "--data=Digits", "--extractor=InceptionExtractor", "--extractor.weights_path=none"],
         "error: weights_path must be a file with InceptionV3 weights, got 'none'"),
        (["--samples=a.npz", "--data=Digits", "--out=file/a.json"], "error: out file/a.json cannot be written"),
        (["--samples=a.npz", "--data=Digits", "--out=."], "error: out . cannot be written (it is a folder)"),
    ],
)  # fmt: skip
def test_the_command_line_ends_with_a_sentence(args: list[str], words: str) -> None:
    npz("a.npz", samples=digits(3).permute(0, 2, 3, 1).numpy())
    Path("file").touch()
    with pytest.raises(SystemExit) as caught:
        main(["score", *args])
    assert str(caught.value.code).startswith(words)


def test_a_wrong_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for args, words in (
        (["--data=Digts"], "did you mean Digits?"),
        (["--data=Digits", "--batchsize=3"], "batch_size?"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["score", "--samples=a", *args])
        assert caught.value.code == 2 and words in capsys.readouterr().err
