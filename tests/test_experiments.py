"""The experiments' own arithmetic, and each of them from beginning to end in a few updates."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from common import trainer
from PIL import Image

from benchmarks.recipes import MARK, words
from experiments import (
    convergence,
    exemplars,
    laptop,
    measures,
    modes_at_equal_time,
    oracle,
    otdd_order,
    page,
    playing,
    robust,
    samplers,
    sampling_cost,
    sharpness,
    style_transfer,
)
from lightning_gans import RobustWGAN
from lightning_gans.datamodules import MNIST, Blob, Contaminated, Digits, Grid, Ring, StackedMNIST
from lightning_gans.datamodules.downloaded import default_root
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.robust import robust_weights
from lightning_gans.functional.text import one_hot
from lightning_gans.networks import ToyGenerator

ROOT = Path(__file__).parent.parent


def result(**columns: list[float]) -> playing.Result:
    rows = [{"step": 10 * i, "seconds": float(i), **{k: v[i] for k, v in columns.items()}} for i in range(8)]
    return {"rows": rows, "failed": None}


def test_numbers_of_a_run() -> None:
    run = result(**{"metrics/fid/lenet": [9, 8, 7, 2, 4, 5, 6, 3.0], "line": [1, 3, 5, 7, 9, 11, 13, 15.0]})
    assert measures.last(run, "metrics/fid/lenet") == 3 and measures.best(run, "metrics/fid/lenet") == 2
    assert measures.best(run, "line") == 15
    assert measures.at_time(run, "metrics/fid/lenet", 3.5) == pytest.approx(8**0.5)  # between 2 and 4
    assert measures.late_mean(run, "line") == 12
    assert measures.late_deviation(run, "line") == pytest.approx(0, abs=1e-12)  # a trend is no noise
    assert measures.late_deviation(run, "metrics/fid/lenet", 1.0) > 1
    assert measures.milliseconds(run) == pytest.approx(100)
    assert math.isnan(measures.last({**run, "failed": "not finite"}, "line"))


def test_spread_tells_of_failures() -> None:
    assert measures.spread([1.0, 3.0]) == "2 ± 1.4"
    assert measures.spread([1.0, math.nan]) == "1 (1 of 2)"
    assert measures.spread([math.nan]) == "none" and measures.spread([1.0, math.inf]) == "inf"


def test_a_game_is_played_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A game is known by its values and seed, whatever it is called."""
    played: list[int] = []

    def play(game: playing.Game) -> playing.Result:
        played.append(game["seed"])
        return result()

    monkeypatch.setattr(playing, "play", play)
    arguments = page.parser(None).parse_args(["--runs", str(tmp_path), "--jobs", "1"])
    game = playing.toy_game("Ring", 4, technique="gan")
    first = playing.sweep({"a": game}, [1, 2], arguments)
    again = playing.sweep({"b": game, "c": game | {"updates": 5}}, [1, 2], arguments)
    assert played == [1, 2, 1, 2]
    assert first["a"] == again["b"] and [r["game"]["updates"] for r in again["c"]] == [5, 5]


def test_a_game_on_a_file_is_known_by_what_stands_in_it(tmp_path: Path) -> None:
    """Not by where it lies; in whatever part of the game."""
    keys = []
    for name, text in (("a.txt", "one"), ("b.txt", "one"), ("c.txt", "two")):
        (tmp_path / name).write_text(text)
        data = {"data": "TextFile", "data_options": {"path": str(tmp_path / name)}}
        keys.append(playing._key({"start": data, "watch": [["X", {"n": 1}]]}))
    assert keys[0] == keys[1] != keys[2]
    assert playing._key({"path": str(tmp_path / "none.txt")}) != playing._key({"path": str(tmp_path / "other.txt")})
    two = {"path": [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]}  # of two styles
    (tmp_path / "b.txt").write_text("b")
    before = playing._key(two)
    (tmp_path / "b.txt").write_text("c")
    assert playing._key(two) != before


def test_what_is_kept_is_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []
    for value in (1, 2):
        found = playing.once(tmp_path / "new" / "a.json", lambda: {"value": made.append(value) or value})  # noqa: B023
        assert found == {"value": 1, "commit": playing.commit()}
    assert made == [1] and playing.told(1, [2]) == playing.told(1, (2,)) != playing.told(1, [3])


def test_a_few_items_of_each_class_and_all_the_others() -> None:
    data = exemplars.Few(each=3, seed=1)
    labels = [data.reference(split)[1] for split in ("train", "test")]
    assert torch.bincount(labels[0]).tolist() == [3] * 10 and len(labels[1]) == 1797 - 30
    again, other = (exemplars.Few(each=3, seed=seed).reference()[0] for seed in (1, 2))
    assert torch.equal(data.reference()[0], again) and not torch.equal(again, other)
    images = torch.rand(200, 1, 8, 8)
    images[..., [0, -1], :] = images[..., [0, -1]] = -1
    moved = exemplars.moved(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape and 10 < int((moved == images).flatten(1).all(1).sum()) < 40  # of nine places
    torch.testing.assert_close(moved.sum((1, 2, 3)), images.sum((1, 2, 3)))  # what leaves was ground


def test_copies_of_training_items_are_told() -> None:
    """All copied: all are nearest to a training item, at no distance; unseen ones are so by their number alone."""
    own = torch.Generator().manual_seed(0)
    trained, held_out, fresh = (torch.randn(n, 5, generator=own) for n in (500, 100, 2000))
    copies, real = (exemplars.nearness(x, trained, held_out) for x in (trained.clone(), fresh))
    assert copies["share"] == 1 and copies["distance"] < 1e-2
    assert real["share"] == pytest.approx(500 / 600, abs=0.03) and real["distance"] > 0.3
    found = exemplars.nearness(held_out, trained, held_out)  # each without itself
    assert found["share"] == pytest.approx(500 / 599, abs=0.1)
    assert found["distance"] == pytest.approx(real["distance"], abs=0.1)


@pytest.mark.parametrize(("data", "shares"), [(Ring(), [0.0064, 0.102]), (Grid(), [0.0314])])
def test_noise_where_the_modes_lie(data: Any, shares: list[float]) -> None:
    """As near to modes as areas (and on the circle arcs) say; the data are all near."""
    drawn = modes_at_equal_time.untrained(data, 20_000, 1)
    found = [modes_at_equal_time.scores(samples, data)["high_quality"] for samples in drawn.values()]
    assert found[:-1] == [pytest.approx(share, abs=0.006, rel=0) for share in shares] and found[-1] > 0.999


def test_stacked_digits_from_beginning_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of planted digits, told by their grey: the data hold the modes they hold; what was played needs no data again."""
    digits, labels = (torch.arange(10) * 25).byte().view(10, 1, 1, 1).expand(-1, -1, 28, 28), torch.arange(10)

    def told(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        grey = images.float().mean((1, 2, 3)) / 25
        return torch.stack([grey, grey.square()], 1), -20 * (grey[:, None] - labels).square()

    monkeypatch.setattr(MNIST, "prepare_data", lambda self: None)
    monkeypatch.setattr(MNIST, "load", lambda self, split: (digits, labels))
    monkeypatch.setattr(StackedMNIST, "num_stacks", {"train": 300, "test": 200})
    monkeypatch.setattr(modes_at_equal_time, "digit_classifier", lambda data: told)
    monkeypatch.setattr(modes_at_equal_time, "stacks", cache(modes_at_equal_time.Stacks))
    monkeypatch.setattr(modes_at_equal_time, "BLOCK", 25)
    monkeypatch.setattr(modes_at_equal_time, "BATCH", 4)
    out, runs = tmp_path / "result.md", tmp_path / "runs"
    chosen = ["--data", "StackedMNIST", "--calls", "2", "--samples", "40", "--seeds", "1", "--updates", "1"]
    monkeypatch.setattr(sys, "argv", ["experiments/a.py", *chosen, "--runs", str(runs), "--out", str(out)])
    modes_at_equal_time.main()
    kept = json.loads((runs / "modes-StackedMNIST-untrained-1-40.json").read_text())["lines"]
    held = StackedMNIST().reference("test")[1]
    assert held is not None
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(1))[:40]
    found = kept["the data"]["scores"]
    assert found["modes"] == len(held[rows].unique()) > 35 and found["high_quality"] == 1
    assert found["reverse_kl"] == pytest.approx(math.log(1000 / 40), abs=0.2)
    noise, mixed = (kept[name]["scores"] for name in ("noise", "pixels of different data"))
    assert noise["modes"] < 5 and mixed["modes"] < 10 and mixed["high_quality"] < 0.5
    assert found["distance"] < min(noise["distance"], mixed["distance"]) / 10
    games = [json.loads((runs / f"modes-StackedMNIST-{m}-1-90-40-2-1.json").read_text())
             for m in modes_at_equal_time.METHODS]  # fmt: skip
    assert all(len(game["sample"]) == 12 and len(game["sample"][0]) == 3 for game in games)
    assert [game["calls"] for game in games] == [1, 1, 1, 1, 21, 2]
    first = out.read_text()
    assert "## StackedMNIST: 1,000 modes" in first and "| DDPM |" in first and "on points" not in first

    a = argparse.Namespace(runs=str(runs), samples=40, stacked_seconds=90.0, calls=2, updates=1)
    monkeypatch.setattr(modes_at_equal_time, "stacks", None)
    assert modes_at_equal_time.trained("StackedMNIST", "GAN", 1, a) == games[0]
    assert modes_at_equal_time.plain("StackedMNIST", 1, a) == kept


def test_stacked_digits_have_the_networks_of_mnist() -> None:
    """With three channels; one channel is what `sampling_cost` plays."""
    one, three = sampling_cost.models("MNIST"), modes_at_equal_time.image_models()
    for name, method in (("DCGAN", "GAN"), ("WGANGP", "WGANGP"), ("DDPM", "DDPM")):
        shapes = [{k: v.shape for k, v in made().named_parameters()} for made in (one[name], three[method])]
        assert shapes[0].keys() == shapes[1].keys()
        assert 2 <= sum(shapes[0][k] != shapes[1][k] for k in shapes[0]) <= 3  # first and last layer
    assert one["VAE"]().latent_dim == 20 and three["VAE"]().latent_dim == 60


def test_a_moment_is_looked_at_once() -> None:
    """An epoch that ends within a cycle is told of with the step of the last one."""
    looked: list[int] = []
    at = otdd_order.At([1, 2], lambda module: {"n": looked.append(1) or len(looked)})
    for step in (0, 1, 1, 2, 3):
        at.on_train_batch_end(SimpleNamespace(global_step=step), None)  # type: ignore[arg-type]
    assert at.seen == {1: {"n": 1}, 2: {"n": 2}}


def test_the_order_of_generators() -> None:
    rows = [{"otdd": 3.0, "fid": 1.0, "accuracy": 0.2}, {"otdd": 2.0, "fid": 3.0, "accuracy": 0.8}]
    seen = {str(i): row for i, row in enumerate([*rows, {"otdd": 1.0, "fid": 2.0, "accuracy": 0.9}])}
    assert otdd_order.correlation(seen, "otdd") == pytest.approx(1)
    assert otdd_order.correlation(seen, "fid") == pytest.approx(-0.5)
    assert math.isnan(otdd_order.correlation(seen, "otdd", 0.5))  # of two there is no order to tell


def test_every_experiment_keeps_its_games() -> None:
    """So that one that is broken off goes on, and a page is written anew without playing."""
    for name in EXPERIMENTS:
        text = (ROOT / "experiments" / f"{name}.py").read_text()
        assert "playing.once(" in text or "playing.sweep(" in text, name


def test_a_game_begins_with_the_weights_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is played once per seed, for all games that go on from it, and is there only as a whole."""
    start = playing.toy_game("Ring", 2, width=4, technique="gan", ema=None)
    slow = {"lr_g": 1e-9, "lr_d": 1e-9}
    rest = playing.toy_game("Ring", 1, width=4, technique="gan", ema=None, start=start, options=slow)
    begun, play = [], playing.play
    monkeypatch.setattr(playing, "play", lambda game: (begun.append(game), play(game))[1])
    found = [playing.play(rest | {"seed": 1, "folder": str(tmp_path / name)}) for name in "ab"]
    whole = play(start | {"seed": 1, "folder": str(tmp_path / "whole")})
    assert [game["updates"] for game in begun] == [1, 2, 1]
    assert [p.name for p in tmp_path.glob("start-*/*")] == ["last.ckpt"] and not Path(begun[1]["folder"]).exists()
    for result in found:
        torch.testing.assert_close(torch.tensor(result["sample"]), torch.tensor(whole["sample"]), rtol=0, atol=1e-4)
    monkeypatch.setattr(playing, "ends", lambda *_: {"networks.generator.weight": torch.zeros(1)})
    with pytest.raises(AssertionError, match="generator has another name"):
        playing.play(rest | {"seed": 1, "folder": str(tmp_path / "c")})


def test_a_diverged_game_is_a_result() -> None:
    """It is told as failed, with what it is about."""
    game = playing.toy_game("Ring", 6, width=8, technique="gan", options={"loss": "wasserstein", "lr_d": 1e30})
    found = playing.play(game | {"seed": 0, "folder": "."})
    assert found["failed"] == "not finite" and math.isnan(measures.last(found, "metrics/modes"))


def test_words_stay_when_a_table_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.md"
    arguments = page.parser(None).parse_args(["--out", str(out)])
    given = ["--jobs", "1", "--runs", "/home/me", "--out", "a.md", "--file", "/home/me/b.txt"]
    monkeypatch.setattr(sys, "argv", ["experiments/a.py", *given])
    found = {"x": [{"commit": "abc"}]}
    page.publish(arguments, "Title", found, ["p"], ["| old |"])
    out.write_text(out.read_text().replace("# Title\n", "# Title\n\nThe answer.\n"))
    page.publish(arguments, "Title", found, ["p"], ["| new |"])
    text = out.read_text()
    assert text.startswith("# Title\n\nThe answer.\n") and "| new |" in text and "| old |" not in text
    assert "- commit: abc\n" in text
    assert (
        "- command: `python -m experiments.a --jobs 1 --out a.md --file b.txt`\n" in text
    )  # no folder of this machine


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (None, "# New"),
        ("", "# New"),
        (f"# Old\n\nSeen.\n\n{MARK}\n\n- command: `python -m a`\n\n| a |\n", "# Old\n\nSeen."),
        (
            f"# Old\n\n- command: `python -m a`, twice\n\nSeen.\n\n{MARK}\n",
            "# Old\n\n- command: `python -m a`, twice\n\nSeen.",
        ),
        ("# Old\n\n- of note\n\n- command: `python -m a`\n- commit: b\n\n| a |\n", "# Old\n\n- of note"),
    ],
)
def test_words_of_a_page(tmp_path: Path, text: str | None, kept: str) -> None:
    """New, empty, marked, with a command of its own above the mark, from before the mark: nothing is lost or twice."""
    out = tmp_path / "a.md"
    if text is not None:
        out.write_text(text)
    assert words(out, "New") == f"{kept}\n\n{MARK}\n"


def test_what_the_robust_games_differ_in() -> None:
    """rho is that of the true share, or of the presumed one on clean data; scores go by the clean data."""
    arguments = page.parser(None, presumed=0.05, w_every=20, rate=1e-3, width=8, updates=40).parse_args([])
    rho = {}
    for share in (0.0, 0.05, 0.2):
        plain = robust.contaminated(robust.plain_game("Ring", arguments), robust.OUTLIERS["Ring"], share)
        games = robust.methods(plain, share, arguments)
        rho[share] = {name: game["options"]["rho"] for name, game in games.items() if "rho" in game["options"]}
        assert all(("weight_network" in game) == name.startswith("network") for name, game in games.items())
        assert all(playing.scored(game) == "Ring" for game in games.values()) and "rho" not in plain["options"]
    found = [rho[0.2][f"{form}, rho right"] for form in robust.FORMS]
    assert found == pytest.approx([0.125, 0.125]) and len(rho[0.2]) == 2 and rho[0.0] == rho[0.05]
    assert list(rho[0.0].values()) == pytest.approx([0.05 / 0.95 / 4 * f for f in (1, 2, 4)] * 2)


def test_data_within_data() -> None:
    """Blobs in a ring with a rare mode, and who is who."""
    base = ["Ring", {"rare_share": 0.02}]
    options = {"base": base, "outliers": ["Blob", {"centre": [2, 2]}], "share": 0.02}
    game = playing.toy_game("Contaminated", 1, 8, technique="wgan_gp", data_options=options) | {"seed": 1}
    module, data = playing.build(game)
    assert playing.scored(game) == "Ring" and data.batch_size == 256 and data.outliers.modes.tolist() == [[2, 2]]
    points, _, outlying = data.mixed()
    found = robust.groups(data, points, outlying)
    assert torch.equal(found == 2, outlying) and 140 < int((found == 1).sum()) < 260
    assert float((points[found == 1] - torch.tensor([2 / 1.414, 0])).norm(dim=1).max()) < 0.1
    assert float((points[found == 2] - 2).norm(dim=1).max()) < 0.3
    assert robust.item_weights(module, data.fixed_loader("train")).unique().tolist() == [1]


def test_planted_groups_are_followed(tmp_path: Path) -> None:
    """A critic that is the first coordinate, and weights that are its reverse: the blob's is the highest of all."""

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0] + 0 * self.unused

    data = Contaminated(Ring(rare_share=0.02), Blob(), 0.1)
    nets = ToyGenerator(width=8), First()
    module = RobustWGAN(*nets, 2, rho=0.05, w_start=0, w_every=1, lr_d=0.0, lr_g=0.0)
    planted = robust.Planted(1, num_samples=50)
    rows = playing.Rows(playing.Clock())
    trainer(max_steps=1, limit_val_batches=0, callbacks=[planted], logger=rows, default_root_dir=tmp_path).fit(
        module, datamodule=data
    )
    seen = rows.rows[1]
    assert seen["auroc/margin/ordinary/outlying"] == seen["auroc/margin/hard/outlying"] == 1
    assert seen["auroc/weight/ordinary/outlying"] == pytest.approx(seen["auroc/margin/ordinary/outlying"], abs=0.01)
    points, _, outlying = data.mixed()
    weights = robust_weights(points[:, 0], 0.05)
    assert seen["weight/outlying"] == pytest.approx(float(weights[outlying].mean()), abs=1e-5)
    assert seen["divergence"] == pytest.approx(0.05, abs=1e-6) and seen["weight/hard"] > seen["weight/outlying"] + 0.1
    assert seen["margin/outlying"] - seen["margin/hard"] == pytest.approx(4 - 2 / 1.414, abs=0.02)
    assert sum(seen[f"samples/{group}"] for group in robust.GROUPS) == pytest.approx(1)
    assert planted.kept["weights"] == pytest.approx(weights.tolist(), abs=1e-4)
    shares = [seen[f"weight/{g}"] * planted.kept["groups"].count(k) for k, g in enumerate(robust.GROUPS)]
    assert sum(shares) == pytest.approx(10_000, abs=1)


def test_a_finished_game_is_sampled() -> None:
    """By each method, with one ratio for those that share it; the data themselves are as they should be."""
    tried = {
        "a": ["Thresholding", {"keep": 0.5, "burn_in": 1000}, "raw"],
        "b": ["MetropolisHastings", {"steps": 2}, "raw"],
        "c": ["RejectionSampler", {"burn_in": 100}, "isotonic"],
        "never": ["RejectionSampler", {"burn_in": 100, "gamma": 300.0}, "raw"],
    }
    watch = [
        [
            "experiments.samplers.Sampled",
            {"methods": tried, "num_samples": 2000, "num_real": 100, "keep": 3, "dearest": 50},
        ]
    ]
    game = playing.toy_game("Grid", 3, 8, technique="gan", ema=None, watch=watch)
    found = playing.play(game | {"seed": 0, "folder": "."})
    kept = found["kept"]["Sampled"]
    assert found["failed"] is None and kept.keys() == {"the data", "plain", *tried}
    assert kept["the data"]["modes"] == 25 and kept["the data"]["deviation"] == pytest.approx(1, abs=0.05)
    assert kept["the data"]["high quality"] > 0.99 and kept["plain"]["high quality"] < 0.2
    assert 1.85 < kept["a"]["proposals"] < 2.15 and kept["b"]["proposals"] == 2 and math.isfinite(kept["c"]["Z"])
    assert kept["never"].keys() == {"proposals", "acceptance"} and kept["never"]["proposals"] > 1e100


def test_tails_of_the_toy() -> None:
    drawn = samplers.tails([1, 2], 3000)
    assert drawn["rejection"].shape == (2, 3000)
    share = {name: float((x.abs() > 2).double().mean()) for name, x in drawn.items()}
    assert share["rejection"] == pytest.approx(0.0455, abs=0.011) and share["thresholding"] == 0
    assert samplers.tail_table(drawn)[2].startswith("| exact | 0.317 | 0.0455 | 0.0027 |")


def test_how_far_a_curve_lies_above_that_of_its_start() -> None:
    """On the line between two of its points, whichever way it goes; what it does not reach is left out."""

    def line(*points: tuple[float, float]) -> list[dict[str, float]]:
        return [{"x": x, "y": y} for x, y in points]

    def game(points: list[dict[str, float]], generator: str = "LanguageModel") -> playing.Result:
        return {"game": {"seed": 3, "generator": [generator, {}]}, "kept": {"Curves": {"last": points}}}

    for start in (line((0, 0), (2, 4), (4, 4)), line((4, 4), (2, 4), (0, 0))):
        found = oracle.above("last", {(3, False): start}, "x", "y")
        assert found(game(line((1, 3), (3, 4), (9, 9)))) == pytest.approx(0.5)  # 1 and 0
        assert math.isnan(found(game(line((9, 9)))))
    assert oracle.own_start(game([], "experiments.oracle.leaky")) == (3, True)


def test_the_autoencoder_learns_by_the_loss_of_the_game_without_its_other_terms() -> None:
    tiny = {"updates": 2, "alone": 2, "classifier": 0, "code": 4, "style": 0.1, "adversarial": 0.1}
    asked = style_transfer.parser().parse_args([f"--{name}={value}" for name, value in tiny.items()])
    games = [*style_transfer.games(asked).values()]
    alone, data = playing.build(games[0] | {"seed": 1})
    game = playing.build(games[2] | {"seed": 1})[0]
    game.load_state_dict(alone.state_dict(), strict=False)
    tokens, styles = (part[:6] for part in data.reference("train"))
    batch = Batch(one_hot(tokens, 8), styles, None, torch.randn(6, 12), torch.Generator())
    terms = game.generator_terms(batch, game.make_fake(batch))
    assert set(terms) == {"reconstruction", "style", "adversarial"}
    torch.testing.assert_close(alone.terms("g", batch)["reconstruction"], terms["reconstruction"])
    assert torch.equal(alone.transfer(tokens, styles), game.transfer(tokens, styles))


TINY = ["--seeds", "1", "--jobs", "1", "--updates", "8"]
QUICK = {
    "clipping_band",
    "finite_difference",
    "planted_collapse",
    "preference",
    "sampling_cost",
}  # the others take their time
EXPERIMENTS: dict[str, list[str]] = {
    "one_or_two_sided": ["--data", "Ring", "--weights", "0.1"],
    "finite_difference": ["--data", "Ring"],
    "clipping_band": ["--thresholds", "0.1", "--depth", "3", "--width", "8"],
    "reweight_and_clip": ["--data", "Ring", "--updates", "10"],
    "critic_normalisation": ["--data", "Digits", "--width", "4"],
    "primal_dual_gaussian": [
        "--deviations",
        "0",
        "0.0316228",
        "--sigmas",
        "1",
        "--alphas",
        "1",
        "--steps",
        "4",
        "--changes",
        "SGD 0.1",
    ],
    "mode_collapse": ["--data", "Ring", "--width", "8", "--ks", "1"],
    "unrolling": ["--width", "8", "--ks", "1", "--times", "2"],
    "optimizers": ["--data", "Gaussian1D", "--optimizers", "extra-Adam"],
    "primal_dual_mnist": ["--width", "2"],
    "architectures": ["--data", "Digits", "--width", "4", "--deep_updates", "1"],
    "robust": ["--data", "Ring", "--fractions", "0.2", "--width", "8", "--updates", "2"],
    "samplers": [
        *("--width", "8", "--samples", "200", "--real", "100", "--keep", "5", "--chain", "4", "--chains", "3"),
        *("--langevin", "3", "--gammas", "1", "--percentiles", "80", "--burn_ins", "100", "--techniques", "GAN"),
        *("--image_updates", "8", "--image_width", "4", "--image_real", "50", "--image_chain", "2"),
        *("--image_langevin", "2", "--image_keep", "5"),
    ],
    "latent_directions": [
        "--techniques",
        "dcgan",
        "--width",
        "4",
        "--directions",
        "2",
        "--steps",
        "2",
        "--updates",
        "2",
    ],
    "hard_or_outlying": ["--places", "4", "--width", "8", "--updates", "2"],
    "tail_gradients": ["--width", "8", "--boosted_updates", "4", "--often", "0.5", "--batches", "8"],
    "learned_width": ["--batch_sizes", "16", "--rates", "1e-4", "1e-3"],
    "boosted_start": ["--width", "8", "--long_updates", "8", "--shares", "0.05", "--ps", "0.9", "--batch_size", "128"],
    "late_clipping": ["--data", "Ring", "--start_updates", "2", "--updates", "10"],
    "weight_producers": ["--width", "8", "--updates", "2", "--commentary_steps", "2"],
    "transformers": ["--width", "4", "--updates", "2"],
    "linear_attention": ["--width", "4", "--updates", "2", "--sides", "4", "8"],
    "prc_text": ["--mle", "2", "--filters", "4", "--d_steps", "1"],
    "oracle": [
        *("--mle", "4", "--before", "1", "--vocabulary", "9", "--length", "5", "--items", "80", "--samples", "20"),
        *("--filters", "4", "--rollouts", "1", "--d_steps", "1", "--temperatures", "0.5", "1.0", "--updates", "2"),
        *("--leak", "1"),
    ],
    "style_transfer": ["--alone", "1", "--updates", "1", "--classifier", "1", "--code", "4"],
    "alphabet": ["--lengths", "8", "--alphabets", "words", "--width", "4"],
    "captions": [
        *("--mle", "2", "--before", "1", "--vocabulary", "30", "--length", "9", "--samples", "20", "--filters", "4"),
        *("--rollouts", "1", "--d_steps", "1", "--temperatures", "0.5", "1.0", "--updates", "2"),
    ],
    "modes_at_equal_time": ["--data", "Ring", "--seconds", "0.1", "--calls", "2", "--samples", "600"],
    "sharpness": ["--data", "Ring", "Digits", "--width", "8", "--rhos", "0.05"],
    "exemplars": ["--samples", "100", "--each", "2", "--pool", "20", "--classifier_steps", "2"],
    "otdd_order": [
        *("--moments", "1", "2", "--width", "4", "--each", "12", "--items", "110", "--classifier_steps", "2"),
    ],
    "planted_collapse": ["--data", "Ring", "--samples", "50", "--copies", "1", "2"],
    "preference": [
        *("--items", "64", "--held_out", "20", "--more_updates", "1", "--updates", "2", "--width", "2"),
        *("--reward_steps", "3", "--weights", "1", "--betas", "1"),
    ],
    "spaces": [
        *("--updates", "2", "--widths", "2", "2", "2", "--latent_dim", "4", "--directions", "2", "--steps", "1"),
        *("--samples", "2", "--fakes", "0", "--items", "64"),
    ],
    "control": [
        *("--updates", "2", "--widths", "2", "2", "2", "--samples", "8", "--best", "2", "--table", "50"),
        *("--steps", "2", "--fakes", "0", "--items", "64"),
    ],
    "explain": [
        *("--updates", "2", "--widths", "2", "2", "2", "--samples", "10", "--explained", "4", "--silent"),
        *("--fakes", "0", "--items", "64"),
    ],
    "sampling_cost": ["--ring_seconds", "0.1", "--data", "Ring", "--calls", "2", "--classifier_steps", "2"],
}


def test_what_has_to_be_prepared_is_what_data_are_made_of() -> None:
    wrapped = {"base": ["Ring", {}], "outliers": ["Blob", {}], "share": 0.1}
    assert playing._sources("Contaminated", wrapped) == set()
    assert playing._sources("Resampled", {"data": ["Contaminated", {**wrapped, "base": ["MNIST", {}]}]}) == {"MNIST"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in EXPERIMENTS])
def test_from_beginning_to_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a row per game, a figure beside it, and nothing left half-written."""
    if name == "primal_dual_mnist" and not list(default_root().glob("MNIST/raw/*")):
        pytest.skip("needs MNIST in $LIGHTNING_GANS_DATA")
    out = tmp_path / "result.md"
    rest: list[Any] = [*TINY, *EXPERIMENTS[name], "--runs", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [f"experiments/{name}.py", *rest])
    importlib.import_module(f"experiments.{name}").main()
    text = out.read_text()
    assert MARK in text and "- commit:" in text and "| " in text and "--runs" not in text
    assert out.with_suffix(".png").stat().st_size > 5000
    games = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    assert games and all(game["failed"] is None for game in games)
    assert not list(tmp_path.rglob("*.part"))


WITH_DATA = [n for n in (*EXPERIMENTS, "convergence") if "data=" in (ROOT / "experiments" / f"{n}.py").read_text()]


@pytest.mark.parametrize("data", ["Rng", "PyDocText"])
@pytest.mark.parametrize("name", WITH_DATA)
def test_a_data_set_that_it_does_not_know_is_one_sentence(
    name: str, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"experiments/{name}.py", "--data", data])
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{name}").main()
    assert f"argument --data: invalid choice: '{data}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*EXPERIMENTS, "convergence", "laptop"])
def test_a_page_of_ours_is_written_by_those_who_ask_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever types a command without ``--out`` keeps the results that came with the package."""
    outs: list[Path | None] = []

    def parse(parser: argparse.ArgumentParser) -> None:
        outs.append(parser.get_default("out"))
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{name}").main()
    assert len(outs) == 1 and (outs[0] is None or outs[0].parts[0] == "runs")


@pytest.mark.slow
def test_style_transfer_between_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is known to be right: no column of such."""
    for style in "01":
        (tmp_path / style).write_text("\n".join(f"{style} {i} words" for i in range(900)) + "\n")
    rest = ["--files", str(tmp_path / "0"), str(tmp_path / "1"), *EXPERIMENTS["style_transfer"]]
    out = tmp_path / "result.md"
    rest += ["--seeds", "1", "--jobs", "1", "--runs", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["experiments/style_transfer.py", *rest])
    style_transfer.main()
    text = out.read_text()
    assert "| game | accuracy | BLEU to the input | harmonic mean | copies | harmonic mean, best |" in text
    assert "| copying the input |" in text and "right" not in text.split("| game |")[1].split("![")[0]
    assert out.with_suffix(".png").stat().st_size > 5000


def test_pages_hold_no_path_of_a_machine() -> None:
    """A reader's machine has other folders."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    texts = {path.name: path.read_text() for path in pages}
    assert {name for name, text in texts.items() if re.search(r"(?:^|[\s`'\"=(])/\w+/\w", text, re.M)} == set()


def test_all_experiments_are_tested() -> None:
    scripts = {p.stem for p in (ROOT / "experiments").glob("*.py")}
    assert scripts - {"__init__", "playing", "measures", "page", "figures"} == {*EXPERIMENTS, "convergence", "laptop"}


@pytest.mark.slow
def test_recipes_for_a_laptop_are_played_by_their_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not again."""
    recipe = yaml.safe_load((ROOT / "configs" / "digits" / "wgan_gp.yaml").read_text())
    recipe["trainer"]["max_steps"] = recipe["checkpoint"]["every_n_train_steps"] = 2
    recipe["trainer"]["callbacks"][1]["init_args"] |= {"every_n_steps": 1, "num_fake": 200}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    out, name = tmp_path / "laptop.md", str(tmp_path / "tiny.yaml")
    rest = ["--only", name, "--seeds", "1", "2", "--runs", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["experiments/laptop.py", *rest])
    laptop.main()
    assert f"| {name} |" in out.read_text() and out.with_suffix(".png").stat().st_size > 5000
    kept = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    assert [[row["step"] for row in found["rows"]] for found in kept] == [[0, 1, 2]] * 2
    monkeypatch.setattr(laptop, "COMMAND", ["false"])
    laptop.main()


# ---------------------------------------------------------------------- games in a queue
def test_a_broken_off_game_goes_on(tmp_path: Path) -> None:
    game = playing.toy_game("Ring", 4, width=4, technique="gan", seed=1, save_every=2) | {"every": 4, "log_every": 1}
    whole = playing.play(game | {"updates": 6, "folder": str(tmp_path / "whole")})
    playing.play(game | {"folder": str(tmp_path / "broken")})
    rest = playing.play(game | {"updates": 6, "folder": str(tmp_path / "broken")})
    assert [row["step"] for row in rest["rows"]] == [row["step"] for row in whole["rows"]]
    assert rest["sample"] == whole["sample"]
    assert measures.series(rest, "metrics/high_quality") == measures.series(whole, "metrics/high_quality")
    again = playing.play(game | {"updates": 6, "folder": str(tmp_path / "broken")})  # at its end, before what is kept
    assert measures.series(again, "metrics/high_quality") == measures.series(whole, "metrics/high_quality")


def test_convergence_plays_what_is_missing_and_ranks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates first, then the seeds by the best one; a second call plays nothing; ties share a rank."""
    played: list[tuple[str, int, float]] = []

    def play(game: playing.Game) -> playing.Result:
        rate = game["options"]["lr_d"]
        played.append((game["technique"], game["seed"], rate))
        fid = {"wgan": 50.0, "dcgan": 10.0, "sn_gan": 10.5}[game["technique"]] + game["seed"] % 5
        scores = {"kid": 1.0, "precision": 0.5, "recall": 0.5, "fid": fid + abs(rate - convergence.RATES[1]) * 1e4}
        row = {"step": game["updates"], "seconds": 1.0} | {f"metrics/{k}/lenet": v for k, v in scores.items()}
        return {"rows": [row], "failed": None, "sample": torch.zeros(20, 1, 8, 8).tolist()}

    monkeypatch.setattr(playing, "play", play)
    monkeypatch.setattr(convergence, "updates_in", lambda technique, minutes, arguments: 300)
    real = dict.fromkeys(("fid", "kid", "precision", "recall"), 1.0)
    monkeypatch.setattr(convergence, "floor", lambda arguments: (real, "0123"))
    monkeypatch.setattr(convergence.figures, "curves", lambda *_, **__: Image.new("RGB", (8, 8)))  # one per game
    out = tmp_path / "page.md"
    command = ["convergence", "--data", "Digits", "--only", "wgan", "dcgan", "sn_gan", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    convergence.main()
    best = convergence.RATES[1]
    assert played[:4] == [*(("wgan", convergence.CHOOSING, rate) for rate in convergence.RATES), ("wgan", 1, best)]
    assert len(played) == 3 * (3 + 3) and {rate for _, seed, rate in played if seed < 4} == {best}
    lines = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert {line["updates"] for line in lines if line["seed"] == convergence.CHOOSING} == {100}
    text = out.read_text()
    assert all(row in text for row in ("| 1. dcgan | 12 ± 1 |", "| 1. sn_gan | 12.5 ± 1 |", "| 3. wgan | 52 ± 1 |"))
    assert "0 of 9 games are missing" in text and (tmp_path / "page" / "dcgan-1.png").exists()
    convergence.main()
    assert len(played) == 18 and "another" not in text
    of_a_game = next(i for i, line in enumerate(lines) if line["seed"] == 1)
    lines[of_a_game]["hardware"] = "another"
    out.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    convergence.main()
    assert "; another\n" in out.read_text() or "- hardware: another; " in out.read_text()
    for flag, was, got in (("--minutes", "15.0", "5.0"), ("--batch_size", "32", "64")):
        monkeypatch.setattr(sys, "argv", [*command, flag, got, "--out", str(out)])
        with pytest.raises(SystemExit, match=rf"{flag} must be {was}, as of the games in .*page.jsonl, got {got}"):
            convergence.main()
    monkeypatch.setattr(convergence, "floor", lambda arguments: (real, "4567"))  # as of another machine
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    with pytest.raises(SystemExit, match=r"page.jsonl were scored by another classifier than the one here \(4567\)"):
        convergence.main()


def test_a_technique_that_failed_once_is_ranked_last() -> None:
    def lines(*values: float) -> list[convergence.Line]:
        failed = {True: "not finite", False: None}
        return [
            {"rows": [{"step": 1, "metrics/fid/lenet": value}], "extractor": "lenet", "failed": failed[value > 9]}
            for value in values
        ]

    played = {"a": lines(3.0, 99.0), "b": lines(5.0, 6.0), "c": lines(99.0)}
    assert convergence.ranked(played) == {"b": "1", "a": "2", "c": "3"}


def test_logarithmic_axes_have_plain_numbers_of_one_size() -> None:
    from experiments.figures import tidy
    from lightning_gans.visualization.images import figure_image, new_figure

    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.plot([1, 2], [4, 80])
    axes.set_yscale("log")
    tidy(axes, "a title", "x", "y")
    figure_image(figure)
    labels = [t for t in axes.get_yticklabels(which="both") if t.get_text()]
    assert {"6", "10", "60"} <= {t.get_text() for t in labels} and {t.get_fontsize() for t in labels} == {8}
    axes.set_ylim(0.05, 200_000)
    figure_image(figure)
    assert {"0.1", "10", "1000", "100000"} <= {t.get_text() for t in axes.get_yticklabels(which="both")}


def test_curves_pair_seeds_by_their_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that one of them lacks is that between its neighbours."""
    from experiments import figures

    drawn: list[Any] = []
    monkeypatch.setattr(figures, "figure_image", lambda figure: drawn.append(figure.axes[0].lines[0].get_xydata()))
    one = [{"step": s, "seconds": 2.0 * s, "fid": v} for s, v in ((11, 79.0), (40, 20.0), (50, 10.0), (51, 11.0))]
    two = [{"step": s, "seconds": 4.0 * s, "fid": v} for s, v in ((10, 80.0), (30, 30.0), (40, 22.0), (50, 12.0))]
    results = [{"rows": rows, "failed": None} for rows in (one, two, two)]
    figures.curves({"panel": {"line": results[:2]}}, "fid", "FID", x="seconds")
    assert drawn[0].tolist() == [[33.0, (79 + 77.5) / 2], [120.0, 21.0], [150.0, 11.0]]
    figures.curves({"panel": {"line": results[1:]}}, "fid", "FID")
    assert drawn[1].tolist() == [[10.0, 80.0], [30.0, 30.0], [40.0, 22.0], [50.0, 12.0]]


def test_a_game_has_the_same_length_where_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once, and the same by the line of its third: each score would be at other updates otherwise."""
    row = {"seconds": 1.0, "step": 3}
    monkeypatch.setattr(playing, "play", lambda game: {"rows": [row, {"seconds": 11.0, "step": 1000}]})
    monkeypatch.setattr(convergence, "game", lambda *_: {})
    arguments = SimpleNamespace(data="Digits", minutes=40.0, runs=tmp_path)
    updates = convergence.length("gan", [], arguments)
    assert updates == 239_280 - 239_280 % 30 and updates % 30 == 0
    monkeypatch.setattr(playing, "play", lambda game: {"rows": [row, {"seconds": 99.0, "step": 1000}]})
    assert convergence.length("gan", [], arguments) == updates
    for minutes in (40.0, 15.0, 7.0):
        arguments.minutes = minutes
        line = {"technique": "gan", "updates": updates // 3, "minutes": minutes / 3}
        assert convergence.length("gan", [line], arguments) == updates


def test_sharpness_of_digits_is_told_beside_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpness, "Judge", lambda data: lambda images: {"quality": float(len(images))})
    told = sharpness.play(Digits(batch_size=8), {"sam_d": 0.05}, 1, 2, 16, 5)
    assert list(sharpness.scores_of("Digits").values()) == ["FID/lenet", "largest eigenvalue", "loss of D"]
    assert told["quality"] == 5 and told.keys() == {"failed", *sharpness.scores_of("Digits")}
    assert all(math.isfinite(told[name]) for name in sharpness.scores_of("Digits"))
    assert list(sharpness.scores_of("Ring")) == ["modes", "quality", "eigenvalue", "loss"]
