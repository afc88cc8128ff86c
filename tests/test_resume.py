"""2N updates in one go == N, stop, restart, N: bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import OTHERS, VARIANTS, Noisy, equal, make, noisy_loader, trainer
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from lightning_gans import GANModule
from lightning_gans.callbacks.ema import EMA
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.runs.metrics_csv import MetricsCSV


def seeded_loader(sampler: bool, workers: int = 0, of_batches: bool = False) -> Any:
    """Its order, and the seeds of workers, come from generators of the user's."""
    own = torch.Generator().manual_seed(8)
    options: dict[str, Any] = {"shuffle": True, "generator": own, "batch_size": 4, "drop_last": True}
    if sampler:
        options = {"sampler": RandomSampler(range(44), generator=own), "batch_size": 4, "drop_last": True}
    if of_batches:
        options = {"batch_sampler": BatchSampler(options["sampler"], 4, drop_last=True)}
    return DataLoader(Noisy(44), num_workers=workers, **options)


def memory_loader() -> Any:
    data = torch.randint(256, (24, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return MemoryLoader(data, None, 4, transform=lambda x, g: x / 128 - 1 + 0.1 * torch.rand(x.shape, generator=g))


LOADERS: dict[str, Callable[[], Any]] = {
    "memory": memory_loader,  # 6 batches an epoch
    "plain": lambda: noisy_loader(44, 4, workers=0),
    "workers": lambda: noisy_loader(44, 4, workers=2),
    "short": lambda: noisy_loader(8, 4, workers=0),  # 2 batches: less than a cycle
    "unsized": lambda: Unsized(),
    "generator": lambda: seeded_loader(sampler=False),
    "generator and workers": lambda: seeded_loader(sampler=False, workers=1),
    "sampler": lambda: seeded_loader(sampler=True),
    "batches": lambda: seeded_loader(sampler=True, of_batches=True),
    "two": lambda: {"a": seeded_loader(sampler=False), "b": seeded_loader(sampler=True)},
}


class Unsized(torch.utils.data.IterableDataset):
    """A stream without a length."""

    def __iter__(self) -> Any:
        for _ in range(11):
            yield torch.rand(4, 2)


class Dropout(torch.nn.Module):
    """Draws from the global generator in each discriminator pass."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(torch.nn.functional.dropout(x, 0.3, self.training))


def run(
    folder: Path, name: str, loader: Any, steps: int, ckpt: Path | None = None, every: int = 0, **options: Any
) -> tuple[GANModule, pl.Trainer]:
    adversarial = name not in OTHERS
    module = make(name, **(({"d_steps": 3} if adversarial else {}) | options))
    if adversarial:
        module.discriminator = Dropout(module.discriminator)
    else:
        module.players[module.counted].accumulate = 3
    pl.seed_everything(5, verbose=False)
    logger = MetricsCSV(folder)
    saving = [callbacks.ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=every)] if every else []
    t = trainer(max_steps=steps, callbacks=[EMA(decay=0.9), *saving], logger=logger, log_every_n_steps=1,
                enable_checkpointing=bool(every))  # fmt: skip
    t.fit(module, train_dataloaders=loader, ckpt_path=str(ckpt) if ckpt else None, **_weights_only(ckpt))
    return module, t


def _weights_only(ckpt: Path | None) -> dict[str, Any]:
    return {}


def snapshot(module: GANModule, t: pl.Trainer, folder: Path) -> dict[str, Any]:
    t.save_checkpoint(folder / "end.ckpt")
    saved = torch.load(folder / "end.ckpt", weights_only=True)
    return {k: saved[k] for k in ("state_dict", "optimizer_states", "ema", "engine", "global_step")} | {
        "rows": (folder / "metrics.csv").read_text()
    }


def compare(tmp_path: Path, name: str, loader: str, stop: int, total: int, **options: Any) -> None:
    whole, t = run(tmp_path / "whole", name, LOADERS[loader](), total, every=stop, **options)
    expected = snapshot(whole, t, tmp_path / "whole")
    half = tmp_path / "half"
    run(half, name, LOADERS[loader](), stop, every=stop, **options)
    again, t = run(half, name, LOADERS[loader](), total, ckpt=half / f"step={stop}.ckpt", **options)
    assert t.global_step == total
    got = snapshot(again, t, half)
    for key, value in expected.items():
        assert equal(value, got[key]), key
    # The undisturbed run wrote the same file on its way, so that it is gone on with from there as well.
    written = [torch.load(tmp_path / f / f"step={stop}.ckpt", weights_only=True) for f in ("whole", "half")]
    for checkpoint in written:
        folders = [name for name in checkpoint["callbacks"] if name.startswith("ModelCheckpoint")]
        assert len(folders) == 1 and checkpoint["callbacks"].pop(folders[0])
    assert written[0].keys() == written[1].keys()
    for key, value in written[0].items():
        assert equal(value, written[1][key]), key


@pytest.mark.parametrize("name", [*VARIANTS, *OTHERS])
def test_resume_is_exact(tmp_path: Path, name: str) -> None:
    compare(tmp_path, name, "memory", stop=3, total=6)  # more batches than an epoch has


@pytest.mark.parametrize("loader", ["plain", "workers", "short", "unsized", "sampler", "batches"])
def test_resume_with_any_loader(tmp_path: Path, loader: str) -> None:
    compare(tmp_path, "gan", loader, stop=5, total=9)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_resume_around_the_end_of_an_epoch(tmp_path: Path, stop: int) -> None:
    """Steps 1 to 3 take 11 batches of the first epoch, two of them carried over; 4 begins with these."""
    compare(tmp_path, "gan", "plain", stop=stop, total=8)


@pytest.mark.parametrize("stop", [3, 4])
@pytest.mark.parametrize("loader", ["generator", "two"])
def test_generators_of_the_users_around_the_end_of_an_epoch(tmp_path: Path, loader: str, stop: int) -> None:
    compare(tmp_path, "gan", loader, stop=stop, total=8, **({"columns": {"real": "b"}} if loader == "two" else {}))


@pytest.mark.parametrize(("own", "reload"), [(True, 0), (True, 1), (False, 0)])
@pytest.mark.parametrize(
    ("d_steps", "g_steps", "updates", "stops"), [(1, 2, 29, [9, 10, 19]), (2, 2, 14, [4, 5]), (2, 3, 21, [7, 14])]
)
def test_resume_with_several_generator_updates(
    tmp_path: Path, d_steps: int, g_steps: int, updates: int, stops: list[int], own: bool, reload: int
) -> None:
    """Epochs of 5 batches, ended by the data; the last updates of a cycle are of the next one.

    A `MemoryLoader` draws its order with the first batch, which is not always asked for when the epoch is opened.
    """

    def fit(ckpt: Path | None = None) -> tuple[GANModule, pl.Trainer]:
        saving = callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
        pl.seed_everything(5, verbose=False)
        t = trainer(max_epochs=3, max_steps=-1, reload_dataloaders_every_n_epochs=reload,
                    callbacks=[] if ckpt else [saving], enable_checkpointing=ckpt is None)  # fmt: skip
        loader = (
            noisy_loader(20, 4, workers=0)
            if own
            else MemoryLoader(torch.rand(20, 2, generator=torch.Generator().manual_seed(0)), None, 4)
        )
        t.fit(module := make("gan", d_steps=d_steps, g_steps=g_steps), loader, ckpt_path=ckpt)
        return module, t

    whole, t = fit()
    assert t.global_step == updates
    for stop in stops:
        again, resumed = fit(tmp_path / f"step={stop}.ckpt")
        assert (resumed.global_step, again.images_seen) == (t.global_step, whole.images_seen)
        assert equal(again.state_dict(), whole.state_dict()), stop


class Seen(callbacks.Callback):
    """The batches that were trained on."""

    def __init__(self) -> None:
        self.batches: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.batches.append(pl_module.last_batch.real)


def test_a_generator_of_the_users_says_which_order_comes_first() -> None:
    """The same batches whatever the fit is seeded with: once the early opening has drawn, as a plain loop's."""
    generator = torch.Generator()
    loader = DataLoader(torch.arange(40.0).view(20, 2), 4, shuffle=True, generator=generator)
    generator.manual_seed(3)
    iter(loader)
    expected = list(loader)
    for seed in (1, 2):
        pl.seed_everything(seed, verbose=False)
        generator.manual_seed(3)
        seen = Seen()
        trainer(max_epochs=1, callbacks=[seen]).fit(make("gan"), loader)
        assert equal(seen.batches, expected)


class Anew(pl.LightningDataModule):
    """A loader for each epoch, with a generator of its own."""

    def train_dataloader(self) -> Any:
        data = torch.arange(16.0).view(8, 2)
        return DataLoader(data, 2, shuffle=True, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("stop", [4, 5, 6, 8])
def test_loaders_that_are_built_anew(tmp_path: Path, stop: int, every: int) -> None:
    """Stopped in an epoch of 4 batches, and at the end of one, before one that is built anew or not."""

    def run(steps: int, path: Any = None) -> list[torch.Tensor]:
        pl.seed_everything(3, verbose=False)
        seen = Seen()
        t = trainer(max_steps=steps, reload_dataloaders_every_n_epochs=every, callbacks=[seen])
        t.fit(make("gan"), datamodule=Anew(), ckpt_path=path)
        t.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return seen.batches

    whole = run(stop + 2)
    run(stop)
    again = run(len(whole), tmp_path / f"{stop}.ckpt")
    assert len(again) == len(whole) - stop and equal(again, whole[stop:])


def test_data_that_grow_within_a_run_are_told_by_nobody() -> None:
    class Growing(pl.LightningDataModule):
        items = 4

        def train_dataloader(self) -> Any:
            self.items += 4
            return DataLoader(torch.zeros(self.items, 2), 4)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The data have")
        trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(make("gan"), datamodule=Growing())


def test_persistent_workers_are_told() -> None:
    loader = DataLoader(torch.zeros(8, 2), 4, num_workers=1, persistent_workers=True)
    with pytest.warns(UserWarning, match="persistent_workers=True: what its data set draws"):
        trainer(max_steps=1).fit(make("gan"), loader)


@pytest.mark.slow
@pytest.mark.parametrize("loader", [name for name in LOADERS if name != "two"])  # which needs columns
@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 7, 11])
@pytest.mark.parametrize("d_steps", [1, 2, 5])
def test_resume_matrix(tmp_path: Path, loader: str, stop: int, d_steps: int) -> None:
    compare(tmp_path, "wgan_gp", loader, stop=stop, total=stop + 6, d_steps=d_steps)


class Interrupt(Exception):
    """Stops a run in the middle of a cycle."""


@pytest.mark.parametrize("cycles, done", [(4, 1), (4, 2), (1, 1), (2, 2), (3, 1)])
def test_resume_from_the_middle_of_a_cycle(tmp_path: Path, cycles: int, done: int) -> None:
    """Stopped after ``cycles`` whole cycles and ``done`` of three discriminator updates, saved there, gone on with.

    The third cycle is the last of its epoch of 11 batches.
    """

    def prepare(folder: Path) -> tuple[GANModule, pl.Trainer]:
        pl.seed_everything(5, verbose=False)
        t = trainer(max_steps=9, callbacks=[EMA(decay=0.9)], logger=MetricsCSV(folder), log_every_n_steps=1)
        return make("wgan_gp", d_steps=3), t

    module, t = prepare(tmp_path / "whole")
    t.fit(module, train_dataloaders=LOADERS["plain"]())
    expected = snapshot(module, t, tmp_path / "whole")

    module, t = prepare(tmp_path / "half")
    updates = 0

    def count() -> None:
        nonlocal updates
        updates += 1

    def interrupt() -> None:
        if updates == cycles * 3 + done:
            raise Interrupt

    module.after_discriminator_step = count  # type: ignore[method-assign]
    stream_pop = module._as_batch
    module._as_batch = lambda raw: (interrupt(), stream_pop(raw))[1]  # type: ignore[method-assign]
    with pytest.raises(Interrupt):
        t.fit(module, train_dataloaders=LOADERS["plain"]())
    t.save_checkpoint(tmp_path / "middle.ckpt")
    assert torch.load(tmp_path / "middle.ckpt", weights_only=True)["engine"]["done"]["d"] == done

    module, t = prepare(tmp_path / "half")
    t.fit(module, train_dataloaders=LOADERS["plain"](), ckpt_path=str(tmp_path / "middle.ckpt"))
    got = snapshot(module, t, tmp_path / "half")
    for key, value in expected.items():
        assert equal(value, got[key]), key


class Stateful(torch.utils.data.DataLoader):
    """A loader that Lightning restores by itself, as torchdata's StatefulDataLoader."""

    taken, start = 0, 0

    def __iter__(self) -> Any:
        start, self.start = self.start, 0
        self.taken = 0
        for batch in super().__iter__():
            self.taken += 1
            if self.taken > start:
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["taken"]


@pytest.mark.parametrize("stop", [1, 2])
def test_a_stateful_loader_is_left_to_lightning(tmp_path: Path, stop: int) -> None:
    data = torch.linspace(-1, 1, 88).view(44, 2)
    LOADERS["stateful"] = lambda: Stateful(data, 4)
    try:
        compare(tmp_path, "gan", "stateful", stop=stop, total=7)
    finally:
        del LOADERS["stateful"]


def test_resume_on_another_number_of_ranks_says_so(tmp_path: Path) -> None:
    _, t = run(tmp_path, "gan", LOADERS["plain"](), 3)
    t.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert "batches" not in checkpoint["engine"]["ranks"][0], "between two cycles"
    two = {**checkpoint["engine"], "ranks": checkpoint["engine"]["ranks"] * 2}
    for steps, engine, words in (
        (5, two, r"written by 2 process\(es\) on cpu and is resumed by 1 on cpu"),
        (
            6,
            {**checkpoint["engine"], "device": "cuda"},
            r"written by 1 process\(es\) on cuda and is resumed by 1 on cpu",
        ),
    ):
        torch.save({**checkpoint, "engine": engine}, tmp_path / "b.ckpt")
        with pytest.warns(UserWarning, match=words):
            afresh, t = run(tmp_path, "gan", LOADERS["plain"](), steps, ckpt=tmp_path / "b.ckpt")
        exact, _ = run(tmp_path, "gan", LOADERS["plain"](), steps, ckpt=tmp_path / "a.ckpt")
        assert t.global_step == steps and not equal(afresh.state_dict(), exact.state_dict())
