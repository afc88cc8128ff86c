"""The library in somebody else's project: the examples of the docs, run, and a Trainer as it comes."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gans import GAN, WGANGP, GANModule, load
from lightning_gans.compat.lightning import callbacks, loggers, pl

EXAMPLES = Path(__file__).parent / "dropin_examples"
pytestmark = pytest.mark.skipif(pl.__name__ != "pytorch_lightning", reason="the examples import pytorch_lightning")


def run(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    return runpy.run_path(str(EXAMPLES / name))


def nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    return generator, nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


def test_a_technique_of_ones_own_learns() -> None:
    result = run("own_technique.py")
    radius = result["samples"].norm(dim=1)
    assert result["trainer"].global_step == 600
    assert isinstance(result["model"], GANModule) and result["samples"].shape == (500, 2)
    assert 0.8 < float(radius.mean()) < 1.2 and float(radius.std()) < 0.35  # before training: 0.3
    assert {"d/real", "d/fake", "d/loss", "g/adversarial"} <= result["trainer"].callback_metrics.keys()


def test_the_technique_takes_less_than_20_lines() -> None:
    tree = ast.parse((EXAMPLES / "own_technique.py").read_text())
    (lsgan,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert lsgan.end_lineno - lsgan.lineno + 1 < 20  # type: ignore[operator]


def test_a_further_player_learns() -> None:
    result = run("own_player.py")
    model = result["model"]
    z = torch.randn(500, 2)
    with torch.no_grad():
        assert float((model.encoder(model(z)) - z).square().mean()) < 0.3  # before training: 1
    assert result["trainer"].global_step == model.progress.updates["e"] == 200
    assert {"e/reconstruction", "e/loss", "g/loss"} <= result["trainer"].callback_metrics.keys()


def test_own_networks_and_loader() -> None:
    result = run("own_networks.py")
    assert result["trainer"].global_step == 20 and result["samples"].shape == (64, 1, 8, 8)
    assert result["model"].images_seen == 20 * 5 * 32 and result["model"].num_classes is None
    assert float(result["model"].values["d/gradient_penalty"]) > 0


def test_own_conditional_networks_obey_the_label() -> None:
    result = run("own_conditional_networks.py")
    right = result["model"].sample(300, labels=torch.full((300,), 2))
    left = result["model"].sample(300, labels=torch.zeros(300, dtype=torch.long))
    assert right.mean(0).tolist() == pytest.approx([1.0, 0.0], abs=0.35)
    assert left.mean(0).tolist() == pytest.approx([-1.0, 0.0], abs=0.35)


def test_a_generator_that_needs_labels_tells_how_many_there_are() -> None:
    class Needs(nn.Linear):
        def forward(self, z: Tensor, labels: Tensor) -> Tensor:
            return super().forward(z) + labels[:, None]

    model = WGANGP(generator := Needs(3, 2), nets()[1], latent_dim=3)
    with pytest.raises(
        ValueError, match=r"^generator must tell num_classes, an attribute, as it needs labels, got none"
    ):
        model.sample(4)
    assert model.sample(4, torch.tensor([0, 1, 2, 3])).shape == (4, 2), "nobody needs to know how many, for these"
    generator.num_classes = 4  # type: ignore[assignment]
    assert model.sample(4).shape == (4, 2)
    with pytest.raises(ValueError, match=r"^labels were given, but the generator takes none"):
        WGANGP(*nets(), latent_dim=3).sample(4, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("form", ["x", "(x,)", "(x, y)", "(x, None)"])
def test_any_form_of_batch(form: str) -> None:
    """With nets that take no labels, the same data give the same training in whatever form they come."""
    x, y = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), torch.arange(40)
    loader: Any = {
        "x": DataLoader(x, 4),  # type: ignore[arg-type]
        "(x,)": DataLoader(TensorDataset(x), 4),
        "(x, y)": DataLoader(TensorDataset(x, y), 4),
        "(x, None)": DataLoader(x, 4, collate_fn=lambda items: (torch.stack(items), None)),  # type: ignore[arg-type]
    }[form]

    def train(data: Any) -> dict[str, Tensor]:
        model = WGANGP(*nets(), latent_dim=3)
        pl.seed_everything(0, verbose=False)
        trainer = pl.Trainer(max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(model, data)
        return model.state_dict()

    assert equal(train(loader), train(DataLoader(x, 4)))  # type: ignore[arg-type]


def test_a_trainer_as_it_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorBoard, the default ModelCheckpoint and progress bar, and a loader for validation."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loader = DataLoader(TensorDataset(torch.randn(40, 2), torch.arange(40)), 4)
    model = WGANGP(*nets(), latent_dim=3, d_steps=2)
    board = loggers.TensorBoardLogger(tmp_path)
    trainer = pl.Trainer(max_steps=12, accelerator="cpu", logger=board, log_every_n_steps=3)
    trainer.fit(model, loader, loader)
    assert trainer.global_step == 12
    assert isinstance(trainer.checkpoint_callback, callbacks.ModelCheckpoint)
    assert trainer.progress_bar_callback is not None and "d/loss" in trainer.progress_bar_metrics

    events = EventAccumulator(board.log_dir)
    events.Reload()
    for name in ("d/loss", "g/loss", "d/gradient_penalty", "time/images_seen"):
        assert [event.step for event in events.Scalars(name)] == [3, 6, 9, 12], name  # generator updates
    assert events.Scalars("time/images_seen")[-1].value == 12 * 2 * 4

    path = trainer.checkpoint_callback.best_model_path
    generator, discriminator = nets()
    again = WGANGP.load_from_checkpoint(path, generator=generator, discriminator=discriminator)
    assert equal(again.state_dict(), model.state_dict()) and again.d_steps == 2
    torch.load(path, weights_only=True)


def test_several_loaders_to_test_and_predict() -> None:
    model, loader = WGANGP(*nets(), latent_dim=3), DataLoader(TensorDataset(torch.randn(8, 2)), 4)
    quiet = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    quiet.test(model, [loader, loader])
    first, second = quiet.predict(model, [loader, loader])  # type: ignore[misc]
    assert equal(quiet.predict(model, loader), first) and len(second) == 2  # type: ignore[arg-type]
    assert not equal(first, second), "each has noise of its own"


def test_resumes_in_a_users_own_trainer(tmp_path: Path) -> None:
    loader = DataLoader(torch.randn(40, 2), 4)  # type: ignore[arg-type]

    def fit(max_steps: int, checkpoint: str | None = None) -> dict[str, Tensor]:
        pl.seed_everything(0, verbose=False)
        model = GAN(*nets(), latent_dim=3)
        trainer = pl.Trainer(max_steps=max_steps, accelerator="cpu", logger=False, default_root_dir=tmp_path,
                             enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(model, loader, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{max_steps}.ckpt")
        return model.state_dict()

    whole = fit(14)
    fit(6)
    assert equal(fit(14, str(tmp_path / "6.ckpt")), whole)


def test_in_somebodys_own_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LightningCLI of one's own with run=False: it builds what its arguments name, and fits it by itself."""
    from lightning_gans.compat.lightning import pl_cli

    class CLI(pl_cli.LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--note", default="")
            parser.link_arguments("trainer.max_steps", "note", compute_fn=str)

    networks = [f"--model.{n}=lightning_gans.networks.Toy{n.capitalize()}" for n in ("generator", "discriminator")]
    pairs = [(n, k, v) for n in ("generator", "discriminator") for k, v in (("shape", "[2]"), ("width", 8))]
    sizes = [f"--model.{n}.init_args.{k}={v}" for n, k, v in pairs]
    args = ["--model=lightning_gans.WGANGP", *networks, *sizes, "--model.generator.init_args.latent_dim=3"]
    args += ["--model.latent_dim=3", "--data=lightning_gans.datamodules.Ring", "--data.init_args.batch_size=4"]
    args += ["--trainer.max_steps=3", "--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.max_epochs=-1"]
    args += [f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
    cli = CLI(GANModule, pl.LightningDataModule, subclass_mode_model=True, subclass_mode_data=True, run=False,
              seed_everything_default=0, args=args, trainer_defaults={"enable_model_summary": False})  # fmt: skip
    assert cli.trainer.global_step == 0 and cli.config["note"] == "3"
    cli.trainer.fit(cli.model, cli.datamodule)
    assert type(cli.model) is WGANGP and cli.trainer.global_step == 3
    cli.trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert equal(load(tmp_path / "a.ckpt").state_dict(), cli.model.state_dict()), "it tells its networks"


def test_readme_and_docs_quote_the_examples() -> None:
    root = Path(__file__).parents[1]
    for page, count in (("README.md", 1), ("docs/own-project.md", 1), ("docs/add-a-technique.md", 1)):
        text = (root / page).read_text()
        assert len([path for path in EXAMPLES.glob("*.py") if path.read_text().strip() in text]) == count
