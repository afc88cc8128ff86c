"""A page beside each checkpoint: right, current, removed with it, and never in a training's way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, make, make_images, plain, trainer
from torch import nn

from lightning_gans import TECHNIQUES, WGANGP, GANModule, load
from lightning_gans._lightning import callbacks, plugins_io
from lightning_gans.callbacks import EMA, GenerativeMetrics, ModelCard
from lightning_gans.checkpoints import AtomicCheckpointIO
from lightning_gans.datamodules import Digits
from lightning_gans.networks import ToyDiscriminator, ToyGenerator


def rows(path: str | Path) -> dict[str, str]:
    """The table of facts, and of scores."""
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", Path(path).read_text(), re.MULTILINE))


def blocks(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"```json\n(.+?)\n```", Path(path).read_text(), re.DOTALL)]


def saving(**options: Any) -> callbacks.ModelCheckpoint:
    return callbacks.ModelCheckpoint("saved", "{step}", every_n_train_steps=1, **options)


def names() -> set[str]:
    return {path.name for path in Path("saved").iterdir()}


def test_what_it_says() -> None:
    """In a project of one's own, with a data module, an average and scores."""
    module = make_images("wgan_gp", d_steps=2)
    metrics = GenerativeMetrics(2, nn.Flatten(), ("fid",), num_fake=20, at_start=False)
    fitted = trainer(
        max_steps=5, callbacks=[EMA(), metrics, ModelCard(), saving(save_top_k=-1)], enable_checkpointing=True
    )
    fitted.fit(module, Digits(batch_size=8))
    assert names() == {f"step={i}.{kind}" for i in range(1, 6) for kind in ("ckpt", "md")}
    for i in (1, 3, 4):
        page = f"saved/step={i}.md"
        told, text = rows(page), Path(page).read_text()
        assert text.startswith(f"# WGANGP: step={i}.ckpt\n")
        assert told["technique"] == "WGANGP ([arXiv:1704.00028](https://arxiv.org/abs/1704.00028))"
        assert told["data"] == Digits().describe()
        assert told["generator updates"] == str(i) and told["real samples seen"] == str(i * 2 * 8)
        count = sum(p.numel() for p in module.generator.parameters())
        assert told["generator"] == f"DCGANGenerator, {count:,} parameters"
        assert told["discriminator"].startswith("DCGANDiscriminator") and told["averaged weights"] == "yes"
        assert told["regularizers"] == "gradient_penalty (weight 10)"
        assert f"torch {torch.__version__}" in told["versions"] and "Python 3." in told["versions"]
        score = "metrics/fid/flatten"
        if i == 1:
            assert "## Scores" not in text and score not in told
        else:
            assert f"Measured at update {i // 2 * 2}:" in text
            assert float(told[score]) == pytest.approx(metrics.history[i // 2 - 1][score], rel=1e-5)
            assert blocks(page)[0] == metrics.protocol
        assert blocks(page)[-2]["d_steps"] == 2 and blocks(page)[-1]["batch_size"] == 8


def test_the_line_that_loads_it_works() -> None:
    module = make("wgan")
    fitted = trainer(max_steps=1, callbacks=[ModelCard()])
    fitted.fit(module, plain())
    fitted.save_checkpoint("after.ckpt")  # as the command line does when fit has ended
    assert rows("after.md")["generator updates"] == "1"
    line = re.search(r"^samples = .*$", Path("after.md").read_text(), re.MULTILINE)
    assert line is not None and line[0] == 'samples = load("after.ckpt", generator=..., discriminator=...).sample(64)'
    mine = {"load": load, "G": ToyGenerator((2,), 3, 8, 1), "D": ToyDiscriminator((2,), 8, 1)}
    exec(line[0].replace("generator=...", "generator=G").replace("discriminator=...", "discriminator=D"), mine)
    assert mine["samples"].shape == (64, 2)  # type: ignore[attr-defined]


def test_it_goes_with_its_checkpoint() -> None:
    fitted = trainer(max_steps=4, callbacks=[ModelCard(), saving(save_last=True)], enable_checkpointing=True)
    fitted.fit(make("wgan"), plain())
    assert names() == {"step=4.ckpt", "step=4.md", "last.ckpt", "last.md"}
    assert rows("saved/last.md")["generator updates"] == "4"


def test_a_plain_loader() -> None:
    module = make("gan")
    fitted = trainer(max_steps=1, callbacks=[ModelCard()])
    fitted.fit(module, plain(400))
    fitted.save_checkpoint("a.ckpt")
    assert rows("a.md")["data"] == "DataLoader of a Tensor, 400 items"
    assert rows("a.md")["averaged weights"] == "no" and rows("a.md")["regularizers"] == "none"


def test_every_technique_tells_its_paper() -> None:
    pages = {}
    for name in TECHNIQUES:
        fitted = trainer(max_steps=1, callbacks=[ModelCard()])
        fitted.fit(module := make(name), plain())
        fitted.save_checkpoint(f"{name}.ckpt")
        told = rows(f"{name}.md")["technique"]
        assert told.startswith(type(module).__name__)
        pages[name] = re.findall(r"\[arXiv:([\d.]+)\]", told)
    assert all(len(found) == 1 for found in pages.values())
    assert pages["wgan_alp"] == ["1907.05681"] and pages["unrolled"] == ["1611.02163"] and pages["gan"] == ["1406.2661"]
    assert rows("boosted.md")["technique"].startswith("BoostedGAN, a kind of GAN ([arXiv:1406.2661]")  # has no paper
    assert "weight_network" in rows("robust_wgan.md")


class Mine(WGANGP):
    """A variant of a user's."""


class Bare(GANModule):
    def discriminator_terms(self, batch: Any, fake: Any) -> dict[str, Any]:
        return {"d": self.score(fake, batch).mean()}

    def generator_terms(self, batch: Any, fake: Any) -> dict[str, Any]:
        return {"g": -self.score(fake, batch).mean()}


@pytest.mark.parametrize(
    ("cls", "words"),
    [(Mine, "Mine, a kind of WGANGP ([arXiv:1704.00028](https://arxiv.org/abs/1704.00028))"), (Bare, "Bare")],
)
def test_a_technique_of_your_own(cls: type[GANModule], words: str) -> None:
    fitted = trainer(max_steps=1, callbacks=[ModelCard()])
    fitted.fit(cls(ToyGenerator((2,), 3, 8, 1), ToyDiscriminator((2,), 8, 1), 3), plain())
    fitted.save_checkpoint("a.ckpt")
    assert rows("a.md")["technique"] == words


def test_it_changes_nothing() -> None:
    """The same weights and the same checkpoint as without, which loads, by whatever writer."""
    found = []
    for extra, plugins in (([], []), ([ModelCard()], []), ([ModelCard(), ModelCard()], [AtomicCheckpointIO()])):
        torch.manual_seed(0)
        fitted = trainer(max_steps=3, callbacks=extra, plugins=plugins)
        fitted.fit(make("wgan"), plain())
        fitted.save_checkpoint("a.ckpt")
        found.append(torch.load("a.ckpt", weights_only=True))
        trainer(max_steps=4, callbacks=extra, plugins=plugins).fit(make("wgan"), plain(), ckpt_path="a.ckpt")
    assert all(equal(one[key], found[0][key]) for one in found for key in ("state_dict", "global_step", "gan"))
    assert isinstance(fitted.strategy.checkpoint_io, plugins_io.CheckpointIO)
    assert type(fitted.strategy.checkpoint_io.inner) is AtomicCheckpointIO  # type: ignore[attr-defined]


def test_a_card_that_cannot_be_written_costs_a_warning() -> None:
    class Broken(Digits):
        def describe(self) -> str:
            raise RuntimeError("no words")

    fitted = trainer(max_steps=1, callbacks=[ModelCard()])
    fitted.fit(make_images("wgan"), Broken(batch_size=8))
    with pytest.warns(UserWarning, match=r"there is no card for .*a\.ckpt \(RuntimeError: no words\)"):
        fitted.save_checkpoint("a.ckpt")
    assert Path("a.ckpt").is_file() and not Path("a.md").exists()
    assert not [p for p in Path().iterdir() if p.name.endswith(".tmp")]


def test_fit_again_with_another_module() -> None:
    fitted = trainer(max_steps=1, callbacks=[ModelCard()])
    fitted.fit(make("wgan"), plain())
    fitted.fit_loop.epoch_loop.max_steps = 2
    fitted.fit(make("gan"), plain())
    fitted.save_checkpoint("a.ckpt")
    assert rows("a.md")["technique"].startswith("GAN (")
