"""Parts of the engine that no technique here needs yet: each is used by a test."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from lightning_gans import GAN, GANModule
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import MemoryLoader, memory
from lightning_gans.datamodules.resampled import ResampledLoader
from lightning_gans.engine import resume, rng
from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import Player
from lightning_gans.engine.progress import Progress
from lightning_gans.engine.stream import DataStream
from lightning_gans.networks import DCGANGenerator
from lightning_gans.regularizers import Regularizer


def items(n: int = 40, **options: Any) -> MemoryLoader:
    return MemoryLoader(plain(n).dataset, None, 4, **options)  # type: ignore[arg-type]


def resumed(make_it: Any, folder: Path, stop: int, total: int) -> tuple[Any, Any]:
    """A module after ``total`` updates, and another after ``stop``, a checkpoint and the rest."""
    found = []
    for steps in ((total,), (stop, total)):
        path = None
        for end in steps:
            pl.seed_everything(3, verbose=False)
            module, t = make_it(), trainer(max_steps=end)
            t.fit(module, train_dataloaders=items(), ckpt_path=path)
            t.save_checkpoint(path := folder / f"{end}-{len(steps)}.ckpt")
        found.append(module)
    return found[0], found[1]


# ---------------------------------------------------------------------- Player.every
class Two(GenerativeModule):
    """Two players that learn the data's mean; b steps in every third cycle."""

    counted, made_by, latent_dim = "a", "first", 2

    def __init__(self, every: int = 3, every_a: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.play(Player("a", ("first",), every=every_a), Player("b", ("second",), every=every))

    def terms(self, player: str, batch: Batch) -> Terms:
        net = self.first if player == "a" else self.second
        return {"distance": (net(batch.z) - batch.real).square().mean()}


class Moves(callbacks.Callback):
    """Which networks moved in each cycle."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.before = state(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        after = state(pl_module)
        self.seen.append("".join(net[0] for net in ("first", "second")
                                 if not torch.equal(after[f"{net}.weight"], self.before[f"{net}.weight"])))  # fmt: skip


def test_a_player_may_step_in_every_third_cycle_only() -> None:
    module, moves = Two(), Moves()
    t = trainer(max_steps=7, callbacks=[moves])
    t.fit(module, train_dataloaders=plain())
    assert moves.seen == ["fs", "f", "f", "fs", "f", "f", "fs"]
    assert t.global_step == 7 and module.progress.updates == {"a": 7, "b": 3} and module.images_seen == 7 * 4


def test_its_turn_is_known_after_a_resume(tmp_path: Path) -> None:
    whole, again = resumed(Two, tmp_path, 4, 8)
    assert equal(state(whole), state(again)) and again.progress.updates == {"a": 8, "b": 3}


def test_the_player_that_is_counted_steps_always() -> None:
    with pytest.raises(ValueError, match=r"^a_every must be 1 for the player that is counted, got 2\.$"):
        Two(every_a=2)


# ---------------------------------------------------------------------- a third player
E = Player("e", ("encoder",))


class Encoded(GAN):
    """With an encoder of fakes, and of real batches of its own."""

    def __init__(self, *networks: Any, g_batches: int = 0, player: Player = E, **options: Any) -> None:
        super().__init__(*networks, 3, **options)
        torch.manual_seed(2)
        self.encoder, self.g_batches = nn.Linear(2, 3), g_batches
        self.play(player)

    def encoder_terms(self, batch: Batch) -> Terms:
        return {"distance": (self.encoder(batch.real) - batch.z).square().mean()}

    def before_generator_step(self, batches: Any) -> None:
        self.minimise("e", self.encoder_terms, batches or [self.last_batch])  # type: ignore[list-item]


def encoded(**options: Any) -> Encoded:
    nets = make("gan")
    return Encoded(nets.generator, nets.discriminator, **options)


@pytest.mark.parametrize("order", ["d_first", "g_first"])
@pytest.mark.parametrize("g_batches", [0, 2])
def test_a_third_player_steps_before_the_generator_in_either_order(order: Any, g_batches: int, tmp_path: Path) -> None:
    whole, again = resumed(lambda: encoded(order=order, g_batches=g_batches, d_steps=2), tmp_path, 3, 5)
    assert whole.progress.updates == {"d": 10, "g": 5, "e": 5} and whole.images_seen == 5 * (2 + g_batches) * 4
    assert equal(state(whole), state(again))


@pytest.mark.parametrize(("order", "g_steps"), [("d_first", 1), ("g_first", 1), ("d_first", 3)])
def test_a_third_player_steps_in_every_third_cycle_too(order: Any, g_steps: int) -> None:
    """Cycles 0, 3 and 6; where each has three updates of the generator, those of cycle 0 alone."""
    module = encoded(order=order, g_steps=g_steps, player=Player("e", ("encoder",), every=3))
    trainer(max_steps=7).fit(module, train_dataloaders=plain())
    assert module.progress.updates == {"d": 7 if g_steps == 1 else 3, "g": 7, "e": 3}


def test_a_third_player_is_given_as_many_batches_as_it_accumulates() -> None:
    player = Player("e", ("encoder",), accumulate=2)
    trainer(max_steps=2).fit(encoded(g_batches=2, player=player), train_dataloaders=plain())
    with pytest.raises(ValueError, match=r"^minimise must be given accumulate_e = 2 batches for 'e', got 1: have"):
        trainer(max_steps=2).fit(encoded(player=player), train_dataloaders=plain())


@pytest.mark.parametrize("order", ["d_first", "g_first"])
def test_a_third_player_begins_when_due_says_so(order: Any) -> None:
    class Begins(Encoded):
        def due(self, player: str) -> bool:
            return super().due(player) and (player != "e" or self.global_step - self.progress.done["g"] >= 3)

        def before_generator_step(self, batches: Any) -> None:
            assert order == "d_first" or self.last_fake is None, "a resumed run knows nothing of the last cycle's"
            super().before_generator_step(batches)

    nets = make("gan")
    module = Begins(nets.generator, nets.discriminator, order=order)
    trainer(max_steps=5).fit(module, train_dataloaders=plain())
    assert module.progress.updates == {"d": 5, "g": 5, "e": 2}


class Resting(Encoded):
    """Forgets its encoder."""

    def before_generator_step(self, batches: Any) -> None: ...


class Later(Resting):
    """Has it begin later, and says so."""

    def due(self, player: str) -> bool:
        return player != "e" and super().due(player)


def test_a_player_that_never_steps_is_told_once() -> None:
    for cls in (Resting, Later, Encoded):
        nets = make("gan")
        module = cls(nets.generator, nets.discriminator, g_steps=2)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            trainer(max_steps=6).fit(module, train_dataloaders=plain())
        told = [str(w.message) for w in record if "has made no update in the first cycle" in str(w.message)]
        assert len(told) == (cls is Resting) and all(text.startswith("The player 'e' has made no upd") for text in told)


class Unplayed(GAN):
    """A generator's term by a network that no player has, and others that are not meant to learn."""

    def __init__(self, *networks: Any, rest: bool) -> None:
        super().__init__(*networks, 3)
        self.encoder, self.scale = nn.Linear(2, 3).requires_grad_(not rest), nn.Parameter(torch.ones(()), not rest)
        self.frozen, self.looks = nn.Linear(2, 3).requires_grad_(False), nn.Linear(2, 3).eval()
        self.score_of, self.own = Measure(), nn.Linear(2, 3)
        self.mean, self.holds = AveragedModel(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 3).eval())

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        return {
            **super().generator_terms(batch, fake),
            "code": (self.scale * self.encoder(fake) - batch.z).square().mean(),
        }

    def configure_optimizers(self) -> Any:
        optimizers, schedulers = super().configure_optimizers()
        return [*optimizers, torch.optim.SGD(self.own.parameters(), 0.1)], schedulers


class Measure(nn.Module):
    """As torchmetrics' are, with a network that tells features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)

    def compute(self) -> None: ...


@pytest.mark.parametrize("rest", [True, False])
def test_networks_that_nobody_trains_are_told_by_name(rest: bool) -> None:
    nets = make("gan")
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        trainer(max_steps=2).fit(Unplayed(nets.generator, nets.discriminator, rest=rest), train_dataloaders=plain())
    told = [str(w.message) for w in record if "No player has the parameters of" in str(w.message)]
    assert len(told) == (not rest) and all("of encoder, scale, which Unplayed holds" in text for text in told)


# ---------------------------------------------------------------------- make_fake
class Doubled(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return 2 * self.net(z)


class Twice(GAN):
    """Fakes that are twice what the generator makes."""

    def make_fake(self, batch: Batch) -> Tensor:
        fake = 2 * super().make_fake(batch)
        self.progress.made["seen"] = torch.tensor(fake.requires_grad)
        return fake


def test_fakes_of_ones_own_reach_both_players() -> None:
    """As a generator that makes them would: in D's step without a graph, in G's with one."""
    ends, graphs = [], []
    for cls in (GAN, Twice):
        pl.seed_everything(0, verbose=False)
        known = make("gan")
        generator = known.generator if cls is Twice else Doubled(known.generator)
        module = cls(generator, known.discriminator, 3, d_steps=2)
        if cls is Twice:
            terms = module.discriminator_terms, module.generator_terms

            def watched(own: Any, module: Any = module) -> Any:
                return lambda batch, fake: (graphs.append((fake.requires_grad, len(fake))), own(batch, fake))[1]

            module.discriminator_terms, module.generator_terms = map(watched, terms)  # type: ignore[method-assign]
        trainer(max_steps=3).fit(module, train_dataloaders=plain())
        assert module.last_fake is not None and not module.last_fake.requires_grad
        ends.append([*state(module).values()])
    assert equal(*ends)
    assert graphs == [(False, 4), (False, 4), (True, 4)] * 3


# ---------------------------------------------------------------------- Regularizer.player, Regularizer.every
class Sum(Regularizer):
    """The sum of a network's parameters, whose gradient is 1."""

    name = "sum"

    def __init__(self, player: str, every: int, weight: float = 0.5) -> None:
        super().__init__(weight)
        self.player, self.every, self.called = player, every, 0

    def __call__(self, network: nn.Module, batch: Any, fake: Tensor) -> Tensor:
        self.called += 1
        assert fake.requires_grad is (self.player == "g")
        return torch.stack([p.sum() for p in network.parameters()]).sum()


class Still(GANModule):
    """A game in which nothing moves by itself."""

    def discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        return {"adversarial": 0 * self.score(batch.real, batch).sum()}

    def generator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        return {"adversarial": 0 * fake.sum()}


def still(term: Sum, **options: Any) -> Still:
    torch.manual_seed(0)
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    generator, discriminator = nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    return Still(generator, discriminator, 3, regularizers=[term], optimizer_g=sgd, optimizer_d=sgd, **options)


class Places(callbacks.Callback):
    """A bias of the generator and one of the discriminator after each update."""

    def __init__(self) -> None:
        self.g: list[float] = []
        self.d: list[float] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.g.append(float(pl_module.generator.bias[0]))
        self.d.append(float(pl_module.discriminator[0].bias[0]))

    def steps(self, player: str) -> list[float]:
        values = getattr(self, player)
        return [round(b - a, 5) for a, b in pairwise(values)]


def test_a_generators_term_in_every_third_update_is_three_times_as_heavy() -> None:
    """weight 0.5, gradient 1, learning rate 1: a step of 1.5, and none in between, where it is not evaluated."""
    term, places = Sum("g", 3), Places()
    module = still(term, d_steps=2)
    trainer(max_steps=7, callbacks=[places], log_every_n_steps=1).fit(module, train_dataloaders=plain())
    assert places.steps("g") == [-1.5, 0, 0, -1.5, 0, 0, -1.5] and places.steps("d") == [0.0] * 7
    assert term.called == 3 and "g/sum" in module.values and "d/sum" not in module.values


def test_a_discriminators_term_counts_the_discriminators_updates() -> None:
    """Three of them in a cycle: numbers 0, 2; 4; 6, 8; 10."""
    term, places = Sum("d", 2), Places()
    trainer(max_steps=4, callbacks=[places]).fit(still(term, d_steps=3), train_dataloaders=plain())
    assert places.steps("d") == [-2.0, -1.0, -2.0, -1.0] and places.steps("g") == [0.0] * 4
    assert term.called == 6


def test_it_is_logged_as_it_is_minimised() -> None:
    module = still(Sum("g", 3))
    total = float(sum(p.sum() for p in module.generator.parameters()))
    trainer(max_steps=1).fit(module, train_dataloaders=plain())
    assert float(module.values["g/sum"]) == pytest.approx(3 * 0.5 * total, rel=1e-5)
    assert float(module.values["g/loss"]) == pytest.approx(float(module.values["g/sum"]))


def test_a_regularizer_of_another_player_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^player of the regularizer 'sum' must be one of d, g, got 'e'\.$"):
        still(Sum("e", 1))


def test_its_turn_is_known_after_a_resume_too(tmp_path: Path) -> None:
    terms: list[Sum] = []

    def build() -> Still:
        terms.append(Sum("g", 3))
        return still(terms[-1])

    whole, again = resumed(build, tmp_path, 4, 8)
    assert equal(state(whole), state(again))
    assert [term.called for term in terms] == [3, 2, 1]  # 0, 3, 6; 0, 3 and then 6


def test_a_resume_on_another_number_of_ranks_still_knows_whose_turn_it_is() -> None:
    progress, stream, noise = Progress(), DataStream(0), torch.Generator()
    progress.begin("dg")
    saved = resume.save(progress, stream, noise) | {"updates": {"d": 8, "g": 4}}
    saved["ranks"] = saved["ranks"] * 2
    with pytest.warns(UserWarning, match="resumed by 1 on cpu"):
        resume.restore(saved, progress, stream, noise)
    assert progress.updates == {"d": 8, "g": 4}


# ---------------------------------------------------------------------- Batch.index
class Numbered(Two):
    """Keeps what its batches were."""

    needs_index = True

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []

    def terms(self, player: str, batch: Batch) -> Terms:
        self.batches.append(batch)
        return super().terms(player, batch)


class Unnumbered(Numbered):
    needs_index = False


def test_a_batch_tells_the_number_of_each_item() -> None:
    """Of a shuffled loader with a transform, labels and weights, which yields as ever afterwards."""
    data = plain(40).dataset
    loader = MemoryLoader(data, torch.arange(40) % 3, 4, transform=lambda x, _: x + 1, weights=torch.ones(40))  # type: ignore[arg-type]
    module = Numbered()
    trainer(max_steps=12).fit(module, loader)
    for batch in module.batches:
        assert batch.index is not None and batch.index.dtype == torch.int64 and batch.weights is not None
        torch.testing.assert_close(batch.real, loader.data[batch.index] + 1)
    first = torch.cat([batch.index for batch in module.batches[::1]][:14]).unique()  # type: ignore[misc]
    assert len(first) == 40  # the ten batches of an epoch, four of which two players saw
    assert len(next(iter(loader))) == 3


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_who_does_not_ask_gets_none(columns: int) -> None:
    labels, weights = torch.arange(40) % 3, torch.ones(40)
    loader = MemoryLoader(plain(40).dataset, labels if columns > 1 else None, 4,  # type: ignore[arg-type]
                          weights=weights if columns > 2 else None)  # fmt: skip
    module = Unnumbered()
    trainer(max_steps=2).fit(module, loader)
    assert all(batch.index is None for batch in module.batches)
    batch = next(iter(loader))
    assert (len(batch) if columns > 1 else batch.shape) == (columns if columns > 1 else (4, 2))


def test_a_loader_that_does_not_know_gives_none() -> None:
    module = Numbered()
    trainer(max_steps=2).fit(module, DataLoader(plain(40).dataset, 4))
    assert module.batches and all(batch.index is None for batch in module.batches)


def test_each_rank_gets_the_numbers_of_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch(rank: int, world: int, size: int) -> list[Any]:
        monkeypatch.setattr(memory, "rank_and_world", lambda: (rank, world))
        loader = MemoryLoader(plain(40).dataset, None, size)  # type: ignore[arg-type]
        loader.with_index = True
        torch.manual_seed(0)
        return list(loader)

    one = epoch(0, 1, 8)
    for rank in range(2):
        for (real, labels, weights, index), batch in zip(epoch(rank, 2, 4), one, strict=True):
            assert labels is None and weights is None
            assert equal(index, batch[3][rank::2]) and equal(real, batch[0][rank::2])


def test_items_that_are_drawn_more_than_once_keep_their_number() -> None:
    loader = ResampledLoader(items(8), torch.tensor([0.0] * 6 + [0.5, 0.5]))
    loader.with_index = True
    numbers = torch.cat([index for *_, index in loader])
    assert set(numbers.tolist()) == {6, 7}


def test_the_numbers_are_exact_after_a_resume(tmp_path: Path) -> None:
    whole, again = resumed(Numbered, tmp_path, 4, 14)
    assert equal([b.index for b in whole.batches][-10:], [b.index for b in again.batches][-10:])


def test_two_streams_of_random_numbers_take_turns() -> None:
    """Each draws what it would have drawn alone, cached normal numbers included, whatever the other draws."""
    draws: list[Callable[[], float]] = [
        random.random, lambda: random.gauss(0, 1), np.random.random, np.random.standard_normal,
        lambda: float(torch.rand(())), lambda: 0.0,
    ]  # fmt: skip
    chosen = random.Random(0)
    plans = [[[chosen.randrange(len(draws)) for _ in range(chosen.randrange(4))] for _ in range(60)] for _ in range(2)]
    plans[1][20:40] = [[5]] * 20  # a stretch in which one of them draws nothing

    def alone(seed: int, plan: list[list[int]]) -> list[float]:
        rng.seed(seed)
        return [draws[k]() for turn in plan for k in turn]

    with rng.untouched():
        expected = [alone(seed, plan) for seed, plan in enumerate(plans)]
        rng.seed(1)
        other: Any = rng.capture()  # as a checkpoint has it
        rng.seed(0)
        seen: list[list[float]] = [[], []]
        for turns in zip(*plans):
            for found, turn in zip(seen, turns):
                found += [draws[k]() for k in turn]
                other = rng.swap(other, cuda=False)
        assert seen == expected


def test_what_is_captured_holds_the_normal_numbers_that_wait() -> None:
    """Python and NumPy make two at a time."""
    with rng.untouched():
        rng.seed(0)
        random.gauss(0, 1), np.random.standard_normal()
        kept = rng.capture()
        every = (lambda: random.gauss(0, 1)), np.random.standard_normal, random.random, np.random.random
        draws = [[draw() for draw in every] for _ in range(2) if rng.restore(kept) is None]
        rng.seed(0)
        random.gauss(0, 1), np.random.standard_normal()
        assert draws == [[draw() for draw in every]] * 2


@pytest.mark.parametrize("keep", [rng.capture, lambda: rng.swap(None)])
def test_a_normal_number_that_waits_again_is_found(keep: Callable[[], Any]) -> None:
    """The words are the same as when none was waiting."""
    with rng.untouched():
        rng.seed(0)
        np.random.standard_normal()
        kept = keep()
        expected = np.random.standard_normal()
        rng.swap(None)
        rng.swap(kept)
        left = rng.swap(None)
        np.random.standard_normal()
        rng.swap(left)
        assert np.random.standard_normal() == expected


def test_what_a_checkpoint_can_hold() -> None:
    assert resume.is_plain({"a": [1, (2.0, None)]})
    assert not any(map(resume.is_plain, ({"a": nn.ReLU()}, [nn.ReLU()], (nn.ReLU(),))))
    assert resume.is_read({"a": {1, 2}, "b": [b"x", 1j, torch.float16, torch.device("cpu"), torch.zeros(1)]})
    assert not any(map(resume.is_read, ({"a": nn.ReLU()}, {nn.ReLU()}, (nn.ReLU(),))))
    given: Any = {"a": [np.float32(0.5), (np.int64(1),)]}
    found = resume.readable(given)
    assert found == {"a": [0.5, (1,)]} and [type(found["a"][0]), type(found["a"][1][0])] == [float, int]
    assert isinstance(given["a"][0], np.float32), "it is a copy"


def test_swapping_does_without_what_numpy_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "_found", lambda generator: None)
    test_two_streams_of_random_numbers_take_turns()


def test_moments_of_a_checkpoint_lie_as_their_weights_do(tmp_path: Path) -> None:
    """A network that was saved before it went to channels_last: the fused step reads both as they lie in memory."""

    class Small(nn.Module):
        def __init__(self, layout: torch.memory_format) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1).to(memory_format=layout)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((1, 2, 3))

    def play(layout: torch.memory_format, steps: int, checkpoint: Path | None = None) -> GAN:
        torch.manual_seed(0)
        module = GAN(DCGANGenerator((3, 8, 8), 3, 4), Small(layout), 3, lr_d=0.1)
        saving = callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
        t = trainer(max_steps=steps, callbacks=[] if checkpoint else [saving], enable_checkpointing=not checkpoint)
        t.fit(module, train_dataloaders=plain(shape=(3, 8, 8)), ckpt_path=checkpoint)
        return module

    whole = play(torch.contiguous_format, 6)
    again = play(torch.channels_last, 6, tmp_path / "step=3.ckpt")
    weights = [m.discriminator.conv.weight.detach() for m in (whole, again)]  # type: ignore[union-attr]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)
