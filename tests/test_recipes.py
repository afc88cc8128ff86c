"""Every recipe of configs/ is built as its file says; some are trained."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_cli import files, pictures, rows
from torch import Tensor

from lightning_gans import GANModule
from lightning_gans.cli import GANCLI, main
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.conditional import conditional_call

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
DOWNLOADED = [r for r in RECIPES if re.search(r"class_path: \w*(MNIST|CIFAR|Images)", (CONFIGS / r).read_text())]
LARGE = {  # only shapes are looked at
    "cifar10/r3_gan.yaml", "cifar10/trans_gan.yaml", "cifar10/trans_gan_v1.yaml",
    "text/prc_gan.yaml", "text/leak_gan.yaml", "text/rel_gan.yaml",
}  # fmt: skip
# Each a kind of data or a kind of game; the others that need no download are trained with --runslow.
TRAINED = {"digits/wgan_gp.yaml", "ring/prc_gan.yaml", "swiss_roll/wgan_gp.yaml", "toy1d/boosted.yaml"}  # fmt: skip


class Instantiated(Exception):
    """Carries what `fit` would have trained."""


def recipe_args(recipe: str) -> list[str]:
    args = ["fit", f"--config={CONFIGS / recipe}", "--trainer.accelerator=cpu", "--name=a"]
    if "class_path: Images" in (CONFIGS / recipe).read_text():
        args.append(f"--data.path={pictures(Path('pictures'), ['RGB'])}")
    if "class_path: TextFile" in (CONFIGS / recipe).read_text():
        for style in ("0", "1"):
            Path(style).write_text("\n".join(f"{style} {i} words" for i in range(900)) + "\n")
        args.append("--data.path=['0', '1']")
    return args


def test_there_are_recipes() -> None:
    assert TRAINED | {"ring/wgan_gp.yaml"} <= set(RECIPES) - set(DOWNLOADED) and set(RECIPES) >= LARGE


def test_recipes_for_one_core_take_one() -> None:
    """Those that are named so or say so; the numbers of docs/results are those of one thread."""
    texts = {recipe: (CONFIGS / recipe).read_text() for recipe in RECIPES}
    meant = {
        r: yaml.safe_load(text) for r, text in texts.items() if "_cpu." in r or re.search(r"#.* (one|a) core", text)
    }
    assert len(meant) > 20
    assert [r for r, c in meant.items() if (c.get("threads"), c["trainer"].get("devices")) != (1, 1)] == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_make_networks_that_fit_their_data(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is built as the file says, without reading data, and all networks take one batch of the data's shape."""

    def fit(self: Any, model: Any, datamodule: Any, **kwargs: Any) -> None:
        raise Instantiated(model, datamodule, self)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    monkeypatch.setattr(
        GANCLI, "config_dump", {}, raising=False
    )  # what is only to be written takes a third of the time
    device = torch.device("meta" if recipe in LARGE else "cpu")
    on_device = device if recipe in LARGE else nullcontext()  # asked for each call of torch's, which takes 2 s in all
    with on_device, pytest.raises(Instantiated) as caught:
        main(recipe_args(recipe))
    module, data, trainer = caught.value.args
    assert trainer.max_steps > 0
    labels: Tensor | None = None
    if module.conditional:
        assert data.num_classes is not None
        labels = torch.tensor([0, data.num_classes - 1], device=device)
    with torch.no_grad(), on_device:
        fake = module(torch.randn(2, module.latent_dim), labels)
        assert fake.shape in ((2, *data.shape), (2, *data.shape[: 1 if module.vocabulary_size else None]))
        if not isinstance(module, GANModule):
            real = torch.rand(2, *data.shape) if module.vocabulary_size else fake  # samples are tokens
            return module.check_first_batch(Batch(real, labels, None, torch.randn(2, module.latent_dim)))
        scores = conditional_call(module.discriminator, fake, labels)
    assert scores.shape == (2,)


@pytest.mark.parametrize(
    "recipe", [pytest.param(r, marks=() if r in TRAINED else pytest.mark.slow) for r in RECIPES if r not in DOWNLOADED]
)
def test_recipes_without_downloads_train(recipe: str) -> None:
    """Two generator updates as the file says; of the callbacks those that need no feature extractor."""
    args = [*recipe_args(recipe), "--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
    if "GenerativeMetrics" in (CONFIGS / recipe).read_text():
        args += ["--trainer.callbacks=[]", "--checkpoint.monitor=null"]
    if recipe.startswith("text/"):  # as published, for a GPU
        args += ["--data.batch_size=4", "--model.d_steps=1"]
    main(args)
    run = Path("runs/a")
    assert {"1", "2"} <= {row["step"] for row in rows(run)} <= {"0", "1", "2"}
    assert all(
        np.isfinite(float(value)) for row in rows(run) for name, value in row.items() if value and name[1] == "/"
    )
    assert "checkpoints/last.ckpt" in files(run) and {"samples/latest.png", "samples/latest.txt"} & files(run)
