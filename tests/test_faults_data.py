"""Data as people really have them: folders laid out by other programs, deep and many-paged files, odd columns."""

from __future__ import annotations

import json
import os
import struct
import warnings
import zipfile
import zlib
from collections import namedtuple
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from common import make_images, trainer
from PIL import Image
from torch import Tensor

from lightning_gans import GAN
from lightning_gans.datamodules import HuggingFace, Images, Resampled, TextFile, tail_loader
from lightning_gans.datamodules import pictures as files
from lightning_gans.datamodules.base import first_rows
from lightning_gans.datamodules.folder import listed_labels, split_folders, split_rows
from lightning_gans.functional.columns import columns
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.tools.score import read_samples
from lightning_gans.visualization.images import grid_image


def save(path: Path, pixels: Any = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(np.asarray(pixels)).save(path, **options)


def read(path: Path, **options: Any) -> tuple[Images, torch.Tensor]:
    data = Images(str(path), **{"size": 8, "mode": "L", "test_share": 0.0, **options})
    return data, data.load("train")[0]


# ------------------------------------------------------------------------------------------------- folders
def test_a_folder_has_its_whole_name_and_an_archive_none_of_its_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos.v2"
    save(folder / "a.png")
    save(folder / "more" / "a.png")
    with zipfile.ZipFile(tmp_path / "set.v2.zip", "w") as archive:
        archive.write(folder / "a.png", "a.png")
    monkeypatch.chdir(folder)
    for path in (".", "more/..", folder):
        assert Images(str(path)).name == "photos.v2"
    assert Images("../set.v2.zip").name == "set.v2"


def test_train_and_test_folders_are_splits_and_their_subfolders_classes(tmp_path: Path) -> None:
    for part, number in (("Train", 3), ("test", 2), ("val", 1)):
        for kind in ("cat", "dog"):
            for i in range(number):
                save(tmp_path / "data" / part / kind / f"{i}.png", np.full((8, 8), 10 * number, np.uint8))
    data, train = read(tmp_path, test_share=0.5)
    assert data.classes == ["cat", "dog"] and train.shape[0] == 6 and train.unique().tolist() == [30]
    test, labels = data.load("test")
    assert test.unique().tolist() == [20] and labels is not None and labels.tolist() == [0, 0, 1, 1]
    assert data.report == f"{tmp_path.name}: read 4 test images, from data/test, 2 classes from subfolders"
    for i in range(2):
        save(tmp_path / "flat" / "train" / f"{i}.png")
        save(tmp_path / "flat" / "validation" / f"{i}.png")
        save(tmp_path / "classes" / "train" / f"{i}.png")  # a toy railway: no split without a counterpart
        save(tmp_path / "classes" / "car" / f"{i}.png")
    assert Images(str(tmp_path / "flat")).num_classes is None
    assert Images(str(tmp_path / "classes")).classes == ["car", "train"]


def lost(path: Path, **options: Any) -> tuple[Images, list[str]]:
    """The data, and what is warned of while they are read."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = read(path, **options)[0]
    return data, [str(w.message) for w in told]


def test_images_beside_the_splits_are_left_out_and_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for kind in ("cat", "dog"):
            save(tmp_path / "a" / part / kind / "0.png")
            save(tmp_path / "b" / "images" / part / kind / "0.png")
            save(tmp_path / "c" / kind / part / "0.png")
    for stray in ("extra/0.png", "eval/0.png", "cover.png"):
        save(tmp_path / "a" / stray)
    data, told = lost(tmp_path / "a")
    assert told == ["a, train: 3 images beside train and val left out (cover.png, eval, extra)."]
    assert data.classes == ["cat", "dog"] and [len(data.split_files(name)) for name in ("train", "test")] == [2, 2]
    save(tmp_path / "b" / "masks" / "0.png")
    data, told = lost(tmp_path / "b")
    assert told == ["b, train: 1 images beside images/train and images/val left out (masks)."]
    with pytest.raises(ValueError, match="path must hold folders train and test once, got them in cat, dog: give the"):
        Images(str(tmp_path / "c"))
    for i in range(9):
        save(tmp_path / "d" / "cat" / f"{i}.png")
    for part in ("train", "test"):  # few, deep inside: toys
        save(tmp_path / "d" / "toys" / part / "0.png")
    assert Images(str(tmp_path / "d")).classes == ["cat", "toys"]


def test_images_beside_the_classes_are_left_out_and_named_and_empty_classes_too(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for i in range(2):
            save(tmp_path / "a" / kind / f"{i}.png")
            save(tmp_path / "b" / "train" / kind / f"{i}.png")
    (tmp_path / "a" / "eel").mkdir()
    (tmp_path / "a" / "fox").mkdir()
    (tmp_path / "a" / "fox" / "0.png").write_text("no picture")
    save(tmp_path / "a" / "cover.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted((tmp_path / "a").rglob("*")):
            archive.write(file, file.relative_to(tmp_path))
    for path in (tmp_path / "a", tmp_path / "a.zip"):
        data, told = lost(path)
        prefix = "" if path.is_dir() else "a/"
        assert data.classes == ["cat", "dog", "fox"] and data.load("train")[1].tolist() == [0, 0, 1, 1]  # type: ignore[union-attr]
        assert told == [
            f"a, train: 1 unreadable skipped ({prefix}fox/0.png: no picture of a known kind), 1 images beside the "
            f"class folders left out ({prefix}cover.png), no images in the folder eel, no training images of the "
            "class fox."
        ]
    for i in range(9):
        save(tmp_path / "a" / f"{i}.png")
    assert Images(str(tmp_path / "a")).num_classes is None  # most lie beside
    save(tmp_path / "b" / "test" / "0.png")
    with pytest.raises(ValueError, match=r"b must have classes in train and in test, or in none .* no subfolders in"):
        Images(str(tmp_path / "b"))


def test_rows_folders_and_labels_of_splits() -> None:
    for n, share, train in ((2, 0.1, 1), (2, 0.99, 1), (1, 0.9, 1), (10, 0.27, 7), (10, 0.0, 10)):
        found = split_rows(n, share)
        assert len(found["train"]) == train and sorted([*found["train"], *found["test"]]) == [*range(n)]
    files = ["x.png", "y.png", "d/train/a.png", "d/test/b.png"]
    for name in ("test", "Testing", "val", "valid", "validation", "eval"):
        assert sorted(split_folders([f"{name}/a.png", "train/b.png"])) == ["test", "train"]
    told = listed_labels(b'{"labels": [["a.png", 2], ["b.png", 0]]}', "dataset.json", ["a.png", "b.png"])
    assert told == ({"a.png": 2, "b.png": 0}, ["0", "1", "2"])
    assert sorted(split_folders(files)) == ["test", "train"] and split_folders([*files, "z.png"]) == {}


def test_the_first_items_are_of_all_classes(tmp_path: Path) -> None:
    for kind, number in (("a", 6), ("b", 2), ("c", 1)):
        for i in range(number):
            save(tmp_path / kind / f"{i}.png", np.full((8, 8), 10 * i, np.uint8))
    data, _ = read(tmp_path, items=5)
    images, labels = data.reference("train")
    assert labels is not None and labels.tolist() == [0, 0, 0, 1, 2] and data.num_items == 5
    held_out = Images(str(tmp_path), size=8, test_share=0.4, items=1)
    assert held_out.num_items == 1 and len(held_out.reference("test")[0]) == 4
    assert images[:, 0, 0, 0].tolist() == [0, 10, 20, 0, 0]
    assert first_rows(torch.tensor([0, 1, 0, 2]), 2) == first_rows(None, 2) == slice(2)


def test_a_run_does_not_go_on_with_classes_of_other_numbers(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for i in range(3):
            save(tmp_path / "a" / kind / f"{i}.png")
    options = {"path": str(tmp_path / "a"), "size": 8, "mode": "L", "batch_size": 3}

    def fit(steps: int, data: Any, ckpt: Any = None, last: Any = None, labelled: bool = True) -> None:
        run = trainer(max_steps=steps)
        nets = DCGANGenerator((1, 8, 8), 3, 4, num_classes=2), DCGANDiscriminator((1, 8, 8), 4, num_classes=2)
        run.fit(GAN(*nets, 3) if labelled else make_images("wgan", d_steps=1), datamodule=data, ckpt_path=ckpt)
        if last:
            run.save_checkpoint(last)

    for wrap, name in ((lambda data: data, "Images"), (lambda data: Resampled(data, torch.ones(5)), "Resampled")):
        last = tmp_path / f"{name}.ckpt"
        fit(1, wrap(Images(**options)), last=last)
        assert torch.load(last, weights_only=True)[name] == {"classes": ["cat", "dog"]}
        fit(2, wrap(Images(**options)), last)
        (tmp_path / "a" / "cat").rename(tmp_path / "a" / "eel")
        with pytest.raises(ValueError, match=r"classes of a must have the numbers .* got 0 for 'dog', which was 1"):
            fit(2, wrap(Images(**options)), last)
        fit(1, wrap(Images(**options)), last=tmp_path / "plain.ckpt", labelled=False)
        (tmp_path / "a" / "eel").rename(tmp_path / "a" / "bat")
        fit(2, wrap(Images(**options)), tmp_path / "plain.ckpt", labelled=False)  # to whom labels mean nothing
        with pytest.warns(UserWarning, match="run goes on with other classes of a, new: bat; gone: cat"):
            fit(2, wrap(Images(**options)), last)
        (tmp_path / "a" / "bat").rename(tmp_path / "a" / "cat")


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "sub" / "0.png")
    save(tmp_path / "nan" / "a.tif", np.full((8, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"none of its 1 image files can be read \(a.tif: it holds NaN"):
        read(tmp_path / "nan")
    (tmp_path / "a.zip").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a")

    def closed(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", closed)
    monkeypatch.setattr(Path, "open", closed)
    monkeypatch.setattr(Path, "read_text", closed)
    for name, use in (("sub", Images), ("a.zip", Images), ("a.txt", TextFile)):
        with pytest.raises(ValueError, match=rf"path {tmp_path}/{name} cannot be read \(Permission denied\)"):
            use(str(tmp_path / name))


def test_links_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    save(tmp_path / "data" / "cat" / "0.png")
    save(tmp_path / "elsewhere" / "0.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "dog")
    os.symlink(tmp_path / "data", tmp_path / "elsewhere" / "back")
    os.symlink(tmp_path, tmp_path / "data" / "cat" / "up")
    assert Images(str(tmp_path / "data")).files == ["cat/0.png", "dog/0.png"]


def test_labels_of_a_dataset_json_and_folders_that_are_storage_only(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"{i // 3:05}" / f"img{i:08}.png")
    save(tmp_path / "cover.png")
    assert Images(str(tmp_path)).num_classes is None
    (tmp_path / "cover.png").unlink()
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.png"))]
    target = tmp_path / "dataset.json"
    target.write_text(json.dumps({"labels": [[name, i % 3] for i, name in enumerate(names)]}))
    data = Images(str(tmp_path), test_share=0.0)
    assert data.num_classes == 3 and data.load("train")[1].tolist() == [0, 1, 2] * 2  # type: ignore[union-attr]
    assert "3 classes from dataset.json" in data.report
    target.write_text('{"labels": null}')
    assert Images(str(tmp_path)).num_classes is None
    target.write_text(json.dumps({"labels": [[names[0], 1]]}))
    with pytest.raises(ValueError, match=f"dataset.json must tell a class >= 0 for {names[1]}, got None"):
        Images(str(tmp_path))
    for i, foreign in enumerate(('["no labels"]', "", '{"labels": [{"id": 1, "name": "a"}]}', '{"labels": ["ab"]}')):
        with zipfile.ZipFile(tmp_path / f"set{i}.zip", "w") as archive:
            archive.writestr("a/dataset.json", foreign)
            archive.write(tmp_path / names[0], "a/0.png")
        data, told = lost(tmp_path / f"set{i}.zip")
        assert data.num_classes is None and told[0].startswith(f"set{i}, train: a/dataset.json left out, which is not")


# ------------------------------------------------------------------------------------------------- files
def test_one_scale_for_all_deep_files_whatever_each_holds(tmp_path: Path) -> None:
    for i, top in enumerate((300, 4000)):
        save(tmp_path / "deep" / f"{i}.png", np.full((8, 8), top, np.uint16))
        save(tmp_path / "float" / f"{i}.tif", np.full((8, 8), top / 1000, np.float32))
        save(tmp_path / "signed" / f"{i}.tif", np.full((8, 8), top - 2000, np.int32))
    data, images = read(tmp_path / "deep")
    assert images[:, 0, 0, 0].tolist() == [19, 249] and "integers in the range 0 to 4095" in data.report
    data, images = read(tmp_path / "float")
    assert images[:, 0, 0, 0].tolist() == [19, 255] and "floats in the range 0 to 4" in data.report
    data, images = read(tmp_path / "signed")
    assert images[:, 0, 0, 0].tolist() == [0, 255] and "range -1700 to 2000" in data.report
    data, images = read(tmp_path / "deep", scale=(0, 300))
    assert images.unique().tolist() == [255] and "range 0 to 300 as told" in data.report
    with pytest.raises(ValueError, match=r"scale must be \(low, high\) with low < high, got \(3, 3\)"):
        read(tmp_path / "deep", scale=(3, 3))
    assert read_samples(tmp_path / "deep", 1)[:, 0, 0, 0].tolist() == [19, 249]


def deep_png(path: Path, levels: np.ndarray, interlaced: int = 0) -> None:
    """A PNG of 16 bits per channel, (H, W, C), whose rows go through all filters in turn."""
    height, _, channels = levels.shape
    raw = levels.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    left, above = np.zeros_like(raw), np.zeros_like(raw)
    left[:, 2 * channels :], above[1:] = raw[:, : -2 * channels], raw[:-1]
    corner = np.zeros_like(raw)
    corner[1:] = left[:-1]
    distances = np.abs(np.stack([left, above, corner]) - (left + above - corner))
    paeth = np.choose(distances.argmin(0), [left, above, corner])
    by = [0 * raw, left, above, (left + above) // 2, paeth]
    rows = [bytes([i % 5]) + ((raw[i] - by[i % 5][i]) % 256).astype(np.uint8).tobytes() for i in range(height)]
    head = struct.pack(">IIBBBBB", levels.shape[1], height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, interlaced)
    packed = zlib.compress(b"".join(rows))
    chunks = ((b"IHDR", head), (b"IDAT", packed[:50]), (b"IDAT", packed[50:]), (b"IEND", b""))
    body = (struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_colour_of_16_bits_is_scaled_as_grey_is(mode: Any, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 4096, (12, 9, len(mode)))
    if mode != "RGB":
        levels[..., -1] *= 16
    deep_png(tmp_path / "a" / "0.png", levels)
    for options, white in (({}, 4095), ({"scale": (0, 2000)}, 2000)):
        data, images = read(tmp_path / "a", size=(12, 9), mode=mode, **options)
        wanted = np.rint(255 * np.minimum(levels / white, 1)).astype(int)
        if mode != "RGB":
            wanted[..., -1] = levels[..., -1] >> 8
        assert (images[0].permute(1, 2, 0).numpy() == wanted).all() and f"range 0 to {white}" in data.report
    save(tmp_path / "a" / "1.png", np.full((8, 8), 40000, np.uint16))
    assert read(tmp_path / "a", size=(12, 9), mode=mode)[1][0, 0].max() == round(4095 / 257)  # one scale for all


def test_colour_of_16_bits_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    deep_png(tmp_path / "a" / "0.png", np.full((1, 1, 3), 40000), interlaced=1)
    data, images = read(tmp_path / "a")
    assert images.unique().tolist() == [40000 >> 8] and "1 with the upper 8 of 16 bits per channel" in data.report
    with pytest.raises(ValueError, match=r"0.png: of its 16 bits per colour the upper 8 alone .* range 0 to 4095"):
        read(tmp_path / "a", scale=(0, 4095))


def test_all_pages_are_read_and_what_is_not_is_told(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((8, 8), 10 * i, np.uint8)) for i in range(4)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "moving.gif", save_all=True, append_images=pages[2:])
    for ending in ("jfif", "tga", "avif"):
        pages[3].save(tmp_path / f"{ending}.{ending}", format={"jfif": "JPEG"}.get(ending))
    (tmp_path / "scan.dcm").write_bytes(b"?")
    data, images = read(tmp_path)
    assert images[:, 0, 0, 0].tolist() == [30, 30, 10, 0, 10, 20, 30, 30]
    assert "read 8 train images, the pages of 5 files" in data.report
    assert "1 with the first frame of several" in data.report and "1 other files left out (.dcm)" in data.report


def test_rectangles_and_transparency(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 4), np.uint8)
    pixels[..., 1], pixels[..., 3] = 200, 128
    save(tmp_path / "a.png", pixels)
    _, images = read(tmp_path, size=[6, 8], mode="RGBA")
    assert images.shape == (1, 4, 6, 8) and images[0, :, 0, 0].tolist() == [0, 200, 0, 128]
    assert read(tmp_path, size=(6, 8), mode="LA")[1].shape == (1, 2, 6, 8)
    with pytest.raises(ValueError, match=r"size must be one number of pixels, or \(height, width\), got \[6, 8, 3\]"):
        read(tmp_path, size=[6, 8, 3])
    shown = grid_image(images, 1, cell=1, gap=0)
    assert shown.size == (8, 6) and shown.getpixel((0, 0)) == (127, 227, 127)
    assert grid_image(torch.zeros(2, 5, 6, 8), 2, cell=1, gap=1).size == (2 * 5 * 8 + 3, 8)


def test_damaged_files_stop_if_asked(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    save(tmp_path / "c.tif", np.full((8, 8), np.nan, np.float32))
    data, images = read(tmp_path)
    assert len(images) == 1 and "2 unreadable skipped (b.png: no picture of a known kind, c.tif)" in data.report
    with pytest.raises(ValueError, match=r"(b.png|c.tif) cannot be read \("):
        read(tmp_path, damaged="stop")
    with pytest.raises(ValueError, match=r"b.png cannot be read \("):
        read_samples(tmp_path, 3)
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"broken.npz must be a sound .npz file"):
        read_samples(tmp_path / "broken.npz", 3)


def test_few_large_pictures_are_not_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "AT_ONCE", 1000)
    at_once, most = [0], [0]
    page = files.Decoder.page

    def counted(self: files.Decoder, image: Image.Image, shape: Any) -> files.Page:
        at_once[0] += image.width * image.height
        most[0] = max(most[0], at_once[0])
        try:
            return page(self, image, shape)
        finally:
            at_once[0] -= image.width * image.height

    monkeypatch.setattr(files.Decoder, "page", counted)
    for i in range(6):
        save(tmp_path / f"{i}.png", np.full((40, 40), i % 2 == 0))
    _, images = read(tmp_path)
    assert most == [1600] and images[:, 0, 0, 0].tolist() == [255, 0] * 3


# ------------------------------------------------------------------------------------------------- batches
class Rows(torch.utils.data.Dataset):
    """Whatever a function makes of a number."""

    def __init__(self, row: Any) -> None:
        self.row = row

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return self.row(i)


def fitted(row: Any, conditional: bool = False, **options: Any) -> tuple[GAN, list[str]]:
    classes: Any = {"num_classes": 4 if conditional else None}
    nets = ToyGenerator((2,), 3, 8, 1, **classes), ToyDiscriminator((2,), 8, 1, **classes)
    module = GAN(*nets, 3, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(max_steps=1).fit(module, torch.utils.data.DataLoader(Rows(row), 4))
    return module, [str(w.message) for w in caught if "left out" in str(w.message)]


def test_further_columns_are_left_out_and_told_once() -> None:
    point = torch.tensor([1.0, 2.0])
    for row, told in (
        (lambda i: (point, i, f"{i}.png"), "2"),
        (lambda i: (point, f"{i}", torch.tensor(i), {"a": 1}), "2, 3"),
        (lambda i: (point, i, torch.ones(2)), "2"),
        (lambda i: {"image": point, "label": i, "path": "a"}, "path"),
    ):
        module, said = fitted(row)
        assert module.last_batch.weights is None and len(said) == 1, row(0)  # type: ignore[union-attr]
        assert said[0].startswith(f"Of each batch {told} is left out")
    module, said = fitted(lambda i: (point, i, float(i)), conditional=True)
    assert not said and module.last_batch.weights.tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_columns_are_named() -> None:
    names = {"real": "point", "labels": "kind", "weights": "weight"}
    row = lambda i: {"kind": i % 4, "weight": 1.0, "point": torch.tensor([1.0, 2.0])}  # noqa: E731
    module, said = fitted(row, conditional=True, columns=names)
    batch = module.last_batch
    assert not said and batch is not None and batch.labels.tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
    module, _ = fitted(lambda i: (i, 2.0, torch.zeros(2)), columns={"real": 2, "weights": 1})
    assert module.last_batch.weights.tolist() == [2.0] * 4  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"columns\['labels'\] must be one of kind, weight, point.* got 'class'"):
        fitted(row, columns={"real": "point", "labels": "class"})
    with pytest.raises(ValueError, match="columns must name real, and may name labels and weights, got x"):
        fitted(row, columns={"x": "point"})
    index = torch.arange(3)
    assert columns((torch.zeros(3, 2), None, None, index))[3] is index  # as our own loaders number items
    weighted = tail_loader(
        torch.utils.data.DataLoader(Rows(lambda i: (torch.zeros(2), i, "path")), 4), index.bool()[[0, 1] * 4]
    )
    assert next(iter(weighted))[2].mean() == 1


class Pair(NamedTuple):
    label: int
    image: Tensor
    path: str = "a"


def test_fields_of_named_tuples_are_columns() -> None:
    row = lambda i: Pair(i, torch.tensor([1.0, 2.0]))  # noqa: E731
    for names in (None, {"real": "image", "labels": "label"}, {"real": 1, "labels": 0}):
        module, said = fitted(row, conditional=True, columns=names)
        assert module.last_batch.labels.tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
        assert len(said) == 1 and f"Of each batch {'2' if names and names['real'] == 1 else 'path'} is" in said[0]
    with pytest.raises(ValueError, match=r"columns\['real'\] must be one of label, image, path.* got 'img'"):
        fitted(row, columns={"real": "img"})
    by_place = namedtuple("by_place", "data target")
    real, labels, *_ = columns(by_place(torch.zeros(3, 2), torch.arange(3)))
    assert real.shape == (3, 2) and labels.tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------------------- Hugging Face
class Stub:
    """What we use of a ``datasets.Dataset``."""

    def __init__(self, n: int, kinds: list[Any], deep: bool = False) -> None:
        self.features = {"img": None, "kind": None}
        levels = [np.full((6, 8), 400 * i if deep else i, np.uint16 if deep else np.uint8) for i in range(n)]
        self.rows = [{"img": Image.fromarray(x), "kind": kinds[i % len(kinds)]} for i, x in enumerate(levels)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        return self.rows[key] if isinstance(key, int) else [row[key] for row in self.rows]


def test_dictionaries_of_hugging_face() -> None:
    data = HuggingFace(Stub(10, ["b", "a"], deep=True), "img", "kind", size=(6, 8), mode="L", batch_size=4)
    images, labels = data.reference("train")
    assert images.shape == (9, 1, 6, 8) and len(data.reference("test")[0]) == 1 and data.classes == ["a", "b"]
    both = torch.cat([images, data.reference("test")[0]])[:, 0, 0, 0]
    assert sorted(both.tolist()) == [round(255 * 400 * i / 4095) for i in range(10)]  # one scale for all
    real, y = next(iter(data.train_dataloader()))
    assert real.shape == (4, 1, 6, 8) and y.dtype == torch.int64 and "path_or_dataset" not in data.hparams
    assert labels is not None and labels.sum() in (4, 5)
    data = HuggingFace({"train": Stub(5, [0, 2]), "validation": Stub(3, [1])}, "img", size=6, mode="L")
    assert len(data.reference("train")[0]) == 5 and len(data.reference("test")[0]) == 3 and data.num_classes is None
    with pytest.raises(ValueError, match="columns of the data set are img, kind; there is no 'image'"):
        HuggingFace(Stub(5, [0]))
    with pytest.raises(ValueError, match="must have a split 'train', got test"):
        HuggingFace({"test": Stub(5, [0])}, "img")


@pytest.mark.parametrize("bad", [-1, None, 1.5, [0], "a"])
def test_rows_of_hugging_face_without_a_class_are_one_sentence(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"label 'kind' must hold names or integers >= 0 .* row \d of the t\w+ split"):
        HuggingFace(Stub(6, [0, 1, bad]), "img", "kind")


def test_rows_of_hugging_face_without_a_picture_are_skipped_and_ids_may_be_sparse() -> None:
    rows = Stub(6, [1, 5, 10_000_000])
    rows.rows[1]["img"], rows.rows[3]["img"] = None, {"bytes": b"?"}
    data = HuggingFace(rows, "img", "kind", size=6, mode="L", test_share=0.0)
    with pytest.warns(UserWarning, match=r"HuggingFace, train: 2 unreadable skipped \(row 1: there is none, row 3\)"):
        images, labels = data.reference("train")
    assert data.classes == [1, 5, 10_000_000] and images[:, 0, 0, 0].tolist() == [0, 2, 4, 5]
    assert labels is not None and labels.tolist() == [0, 2, 1, 2]
    assert data.describe() == "HuggingFace: 4 training images, 1x6x6, in [-1, 1], 3 classes, 4 resized to 6x6 (crop)"
    for row in rows.rows:
        row["img"] = None
    with pytest.raises(ValueError, match=r"none of its 6 train pictures can be read \(row 0: there is none\)"):
        HuggingFace(rows, "img", test_share=0.0).reference("train")
    few = HuggingFace(Stub(3, [0]), "img", size=6)
    assert [len(few.reference(name)[0]) for name in ("train", "test")] == [2, 1]  # type: ignore[arg-type]


def test_a_real_data_set_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    pictures = [Image.fromarray(np.full((8, 8), i, np.uint8)) for i in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1] * 3}, features=features)
    made.save_to_disk(str(tmp_path / "set"))
    monkeypatch.setenv("HOME", str(tmp_path))
    data = HuggingFace("~/set", label="label", size=8, mode="L", test_share=0.0)
    assert data.classes == ["cat", "dog"]
    images, labels = data.reference()
    assert images[:, 0, 0, 0].tolist() == list(range(6)) and labels.tolist() == [0, 1] * 3 and data.num_classes == 2
    unknown = datasets.Dataset.from_dict({"image": pictures, "label": [-1] * 6}, features=features)
    with pytest.raises(ValueError, match=r"label 'label' must hold integers in 0..1 .* got -1 in row 0 of the train"):
        HuggingFace(unknown, label="label")
    with pytest.raises(TypeError, match=r"path_or_dataset must be a name, .* got IterableDataset"):
        HuggingFace(made.to_iterable_dataset())
