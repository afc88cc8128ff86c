"""The in-memory loaders: what they yield, their random numbers, and several processes against one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import two_ranks
from torch import Generator, Tensor

from lightning_gans.datamodules import FreshLoader, MemoryLoader, Ring, memory, tail, tail_loader
from lightning_gans.datamodules.base import ToRange
from lightning_gans.datamodules.resampled import ResampledLoader
from lightning_gans.datamodules.tail import StratifiedLoader
from lightning_gans.functional import draw
from lightning_gans.stages.fits import _Again


def images(n: int = 20) -> Tensor:
    return torch.randint(0, 256, (n, 3, 4, 5), dtype=torch.uint8, generator=Generator().manual_seed(1))


def as_processes(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    """Let loaders and draws believe that this is process ``rank`` of ``world``."""
    for module in (memory, tail, draw):
        monkeypatch.setattr(module, "rank_and_world", lambda: (rank, world))


# -- MemoryLoader ------------------------------------------------------------------------------------------------------


def test_an_epoch_holds_each_item_once_with_its_label_and_weight() -> None:
    data = torch.arange(20.0)[:, None]
    loader = MemoryLoader(data, torch.arange(20), 6, weights=torch.arange(20) / 2, drop_last=False)
    batches = list(loader)
    assert [len(real) for real, _, _ in batches] == [6, 6, 6, 2] and len(loader) == 4
    real, labels, weights = (torch.cat(column) for column in zip(*batches))
    assert real.flatten().tolist() == labels.tolist() == (2 * weights).tolist()
    assert labels.tolist() != list(range(20)) and sorted(labels.tolist()) == list(range(20))
    plain = MemoryLoader(data, None, 6)
    plain.with_index = True
    real, labels, weights, index = next(iter(plain))
    assert real.flatten().tolist() == index.tolist() and labels is None is weights


@pytest.mark.parametrize(("labels", "weights"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_a_batch_is(labels: bool, weights: bool) -> None:
    loader = MemoryLoader(
        images(), torch.arange(20) if labels else None, 8, weights=torch.ones(20) if weights else None
    )
    assert len(loader) == len(list(loader)) == 2
    batch = next(iter(loader))
    if not labels and not weights:
        assert isinstance(batch, Tensor) and batch.shape == (8, 3, 4, 5) and batch.dtype == torch.uint8
        return
    assert [None if part is None else tuple(part.shape) for part in batch] == [
        (8, 3, 4, 5),
        (8,) if labels else None,
        *([(8,)] if weights else []),
    ]


def test_an_epoch_takes_one_number_of_the_global_stream_at_its_first_batch() -> None:
    loader = MemoryLoader(images(), None, 4, transform=ToRange(-1, 1, flip=True, dequantize=True))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    iterator = iter(loader)
    assert torch.equal(torch.get_rng_state(), before)
    first = [next(iterator)]
    after = torch.get_rng_state()
    first += list(iterator)
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(5)
    torch.empty((), dtype=torch.int64).random_()
    assert torch.equal(torch.get_rng_state(), after)

    second = list(loader)
    torch.manual_seed(5)
    replay = list(loader)
    assert all(torch.equal(a, b) for a, b in zip(first, replay, strict=True))
    assert not torch.equal(torch.stack(first), torch.stack(second))
    zeros = torch.zeros(20, 1, 1, 1, dtype=torch.uint8)
    noise = MemoryLoader(zeros, None, 4, transform=ToRange(0, 1, dequantize=True))
    assert not torch.equal(torch.cat(list(noise)).sort(0).values, torch.cat(list(noise)).sort(0).values)


def test_without_shuffling_every_pass_is_the_same_and_the_global_stream_is_left_alone() -> None:
    data = images()
    plain = MemoryLoader(data, None, 8, shuffle=False, drop_last=False)
    assert torch.equal(torch.cat(list(plain)), data)
    noisy = MemoryLoader(data, None, 8, shuffle=False, transform=ToRange(0, 1, dequantize=True))
    before = torch.get_rng_state()
    a, b = torch.cat(list(noisy)), torch.cat(list(noisy))
    assert torch.equal(a, b) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(a, data[:16] / 256)


def make_loader(batch_size: int, **kwargs: Any) -> MemoryLoader:
    return MemoryLoader(
        images(), torch.arange(20), batch_size, transform=ToRange(-1, 1, flip=True, dequantize=True), **kwargs
    )


def epoch(loader: Any) -> list[Any]:
    torch.manual_seed(11)
    return list(loader)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_batches_of_one(monkeypatch: pytest.MonkeyPatch, world: int, shuffle: bool) -> None:
    whole = epoch(make_loader(3 * world, shuffle=shuffle))
    for rank in range(world):
        as_processes(monkeypatch, rank, world)
        loader = make_loader(3, shuffle=shuffle)
        part = epoch(loader)
        assert len(loader) == len(part) == len(whole) == 20 // (3 * world)
        for (real, labels), (all_real, all_labels) in zip(part, whole, strict=True):
            assert torch.equal(real, all_real[rank::world]) and torch.equal(labels, all_labels[rank::world])


@pytest.mark.parametrize(("n", "world"), [(20, 3), (2, 5), (20, 2)])
def test_a_short_last_batch_is_filled_up_so_that_processes_agree(
    monkeypatch: pytest.MonkeyPatch, n: int, world: int
) -> None:
    parts = []
    for rank in range(world):
        as_processes(monkeypatch, rank, world)
        loader = MemoryLoader(torch.arange(n), None, 3, shuffle=False, drop_last=False)
        parts.append(list(loader))
        assert len(parts[-1]) == len(loader)
    assert len({tuple(len(batch) for batch in part) for part in parts}) == 1
    rows = torch.stack([torch.cat(part) for part in parts], dim=1).flatten()
    assert rows.tolist() == [i % n for i in range(-(-n // world) * world)]


def subclasses(of: type) -> set[type]:
    return {of}.union(*map(subclasses, of.__subclasses__()))


IN_ORDER: dict[type, Callable[[MemoryLoader], MemoryLoader]] = {
    MemoryLoader: lambda loader: loader,
    ResampledLoader: lambda loader: ResampledLoader(loader, torch.tensor([3.0, 0, 0, 0, 0, 0, 1])),
    StratifiedLoader: lambda loader: tail_loader(loader, torch.arange(7) > 4),
    _Again: lambda loader: _Again(loader.data, loader.labels, loader.batch_size),
}


@pytest.mark.parametrize("world", [1, 2])
def test_in_order_are_all_items_in_their_order(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    """Of every loader of ours, however it deals its items out."""
    ours = {cls for cls in subclasses(MemoryLoader) if cls.__module__.startswith("lightning_gans.")}
    assert ours == IN_ORDER.keys()
    for make in IN_ORDER.values():
        rows = []
        for rank in range(world):
            as_processes(monkeypatch, rank, world)
            loader = make(MemoryLoader(torch.arange(7), torch.arange(7), 2))
            next(iter(loader))
            known = torch.get_rng_state()
            rows.append(torch.cat([batch[1] for batch in loader.in_order()]))
            assert torch.equal(torch.get_rng_state(), known) and len(rows[-1]) == -(-7 // world) and loader.shuffle
        assert torch.stack(rows, 1).flatten()[:7].tolist() == list(range(7)), type(loader)


def work(rank: int, folder: Path) -> None:
    toy = epoch(FreshLoader(Ring().sample_exact, 4, 3))
    torch.save({"images": epoch(make_loader(3)), "toy": toy}, folder / f"{rank}.pt")


def test_two_gloo_processes_interleave_to_the_batches_of_one(tmp_path: Path) -> None:
    two_ranks(work, tmp_path)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = {"images": epoch(make_loader(6)), "toy": epoch(FreshLoader(Ring().sample_exact, 8, 3))}
    for rank, part in enumerate(parts):
        for (real, labels), (all_real, all_labels) in zip(part["images"], whole["images"], strict=True):
            assert torch.equal(real, all_real[rank::2]) and torch.equal(labels, all_labels[rank::2])
        for real, all_real in zip(part["toy"], whole["toy"], strict=True):
            assert torch.equal(real, all_real[rank::2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": torch.empty(0, 2)}, "The data set is empty"),
        (
            {"data": torch.tensor([[0.0, 0.0], [float("nan")] * 2, [1.0, 1.0]])},
            "data must be finite, but 1 of its 3 items",
        ),
        ({"data": torch.tensor([1.0, float("inf")])}, "data must be finite, but 1 of its 2 items"),
        ({"batch_size": 21}, "batch_size 21 is larger than the data set of 20 items"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"labels": torch.arange(19)}, r"labels must have shape \(20,\) as data has, got \(19,\)"),
        ({"weights": torch.ones(20, 1)}, r"weights must have shape \(20,\) as data has, got \(20, 1\)"),
    ],
)
def test_bad_data_are_refused_in_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        MemoryLoader(**{"data": images(), "labels": None, "batch_size": 2, **arguments})
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_a_batch_that_is_too_large_for_all_processes_together_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    as_processes(monkeypatch, 0, 2)
    with pytest.raises(
        ValueError, match=r"batch_size 11 on 2 processes \(together 22\) is larger than the data set of 20"
    ):
        MemoryLoader(images(), None, 11)


# -- FreshLoader -------------------------------------------------------------------------------------------------------


def counter(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, 2, generator=generator)


def test_fresh_batches_are_seeded_once_per_epoch_and_own_their_memory() -> None:
    loader = FreshLoader(counter, 4, 5)
    torch.manual_seed(3)
    iterator = iter(loader)
    first = [next(iterator)]
    after = torch.get_rng_state()
    first += list(iterator)
    assert torch.equal(torch.get_rng_state(), after) and len(first) == len(loader) == 5
    torch.manual_seed(3)
    torch.empty((), dtype=torch.int64).random_()
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(first, loader, strict=True))
    assert len(torch.cat(first).unique(dim=0)) == 20, "no two draws are the same"
    assert all(real.untyped_storage().nbytes() == 4 * 2 * 4 for real in first)


def test_fresh_batches_are_drawn_in_blocks_shared_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw_rows(n: int, generator: Generator) -> Tensor:
        drawn.append(n)
        return counter(n, generator)

    monkeypatch.setattr(FreshLoader, "block", 30)
    whole = epoch(FreshLoader(draw_rows, 12, 5))
    assert drawn == [24, 24, 12]
    for rank in range(3):
        as_processes(monkeypatch, rank, 3)
        part = epoch(FreshLoader(draw_rows, 4, 5))
        assert all(torch.equal(a, b[rank::3]) for a, b in zip(part, whole, strict=True))


def test_a_fresh_batch_may_be_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreshLoader, "block", 4)
    assert [len(batch) for batch in FreshLoader(counter, 6, 3)] == [6, 6, 6]


def test_fresh_loader_refuses_an_empty_epoch() -> None:
    with pytest.raises(ValueError, match="batches_per_epoch must be an integer >= 1, got 0"):
        FreshLoader(counter, 4, 0)


# -- ToRange -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (-0.5, 2)])
def test_grey_levels_fill_the_range(low: float, high: float) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    real = ToRange(low, high)(levels, Generator())
    expected = low + (high - low) * levels.double() / 255
    assert real.dtype == torch.float32
    torch.testing.assert_close(real.double(), expected, atol=3e-7, rtol=0)


def test_dequantisation_noise_is_one_grey_level_wide() -> None:
    levels = torch.arange(256, dtype=torch.uint8).repeat(400).reshape(400, 1, 16, 16)
    noise = ToRange(-1, 1, dequantize=True)(levels, Generator().manual_seed(0)).double() - (levels * 2.0 / 256 - 1)
    assert noise.min() >= -1e-7 and noise.max() <= 1 / 128 + 1e-7
    assert abs(noise.mean() * 128 - 0.5) < 0.01 and abs(noise.std() * 128 - 12**-0.5) < 0.01
    unit = ToRange(0, 1, dequantize=True)(levels, Generator().manual_seed(0)).double()
    torch.testing.assert_close(unit, (noise + levels * 2.0 / 256) / 2, atol=2e-7, rtol=0)


def test_flips_mirror_about_half_of_the_images_left_to_right() -> None:
    data = images(400)
    real = ToRange(0, 255, flip=True)(data, Generator().manual_seed(0))
    same = (real == data).flatten(1).all(1)
    mirrored = (real == data.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 160 < int(mirrored.sum()) < 240
