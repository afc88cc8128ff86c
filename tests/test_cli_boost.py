"""Rounds by the command line: ``boost`` is a ``fit`` for each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import equal

from lightning_gans import AdaGAN, BoostedGAN
from lightning_gans.cli import main
from lightning_gans.networks import ToyGenerator
from lightning_gans.stages import reweight

CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "BoostedGAN",
        "init_args": {
            "latent_dim": 2,
            "p": 0.75,
            "generator": {"class_path": "ToyGenerator", "init_args": {"width": 8, "depth": 1}},
            "discriminator": {"class_path": "ToyDiscriminator", "init_args": {"width": 8, "depth": 1}},
        },
    },
    "data": {
        "class_path": "TailSampled",
        "init_args": {
            "data": {"class_path": "RareTail1D", "init_args": {"batch_size": 8}},
            "tail": {"class_path": "Quantile", "init_args": {"share": 0.01}},
        },
    },
    "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "max_steps": 2},
    "grid": {"every_n_steps": None},
}


class Own(ToyGenerator):
    """A network that is none of the library's."""


def boost(*args: str) -> Any:
    Path("a.yaml").write_text(yaml.safe_dump(CONFIG))
    main(["boost", "--config=a.yaml", "--name=b", *args])
    return Path("runs/b")


def saved(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_rounds_by_the_command_line() -> None:
    """Two rounds; once more with another round, which leaves the first ones alone; a broken-off one is gone on with."""
    runs = boost("--rounds=2")
    before = {k: (runs / f"round-{k}" / "checkpoints" / "last.ckpt").read_bytes() for k in (0, 1)}
    assert boost("--rounds=3", "--trainer.max_steps=3") == runs
    assert sorted(p.name for p in runs.iterdir()) == ["round-0", "round-1", "round-2"]
    assert all((runs / f"round-{k}" / "checkpoints" / "last.ckpt").read_bytes() == v for k, v in before.items())
    module = BoostedGAN.load_from_checkpoint(runs / "round-2" / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(module.generator.weights, torch.tensor([0.5625, 0.1875, 0.25]))  # type: ignore[union-attr, operator]
    first = {k.removeprefix("generator."): v for k, v in saved(runs / "round-0")["state_dict"].items() if "gen" in k}
    assert equal(module.generator.components[0].state_dict(), first)  # type: ignore[index, union-attr]
    assert module.sample(4).shape == (4, 1) and saved(runs / "round-2")["global_step"] == 3
    config = runs / "round-2" / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 3", "max_steps: 5"))  # as if it had been stopped there
    boost("--rounds=3")
    assert saved(runs / "round-2")["global_step"] == 5


def test_adagan_by_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second round on the data are drawn by weights, which a run that goes on finds again.

    With a network of the user's own, whose class the configuration names.
    """
    monkeypatch.setattr("lightning_gans.cli.reweight", partial(reweight, steps=3))
    model: Any = {**CONFIG["model"]["init_args"], "beta": 0.25}
    del model["p"]
    model["generator"] = {"class_path": f"{__name__}.Own", "init_args": {"width": 8, "depth": 1}}
    data = {"class_path": "Ring", "init_args": {"batch_size": 8}}
    given = {**CONFIG, "model": {"class_path": "AdaGAN", "init_args": model}, "data": data}
    Path("ada.yaml").write_text(yaml.safe_dump(given))
    main(["boost", "--config=ada.yaml", "--name=c", "--rounds=3", "--weights=topk"])
    runs = Path("runs/c")
    configs = [yaml.safe_load((runs / f"round-{k}" / "config.yaml").read_text())["data"] for k in range(3)]
    assert [c["class_path"].rsplit(".", 1)[1] for c in configs] == ["Ring", "Resampled", "Resampled"]
    for k in (1, 2):
        weights = torch.load(configs[k]["init_args"]["probabilities"], weights_only=True)
        assert weights.shape == (10_000,) and int((weights > 0).sum()) == 5000
        assert configs[k]["init_args"]["data"]["class_path"].endswith(".Ring")
    module = AdaGAN.load_from_checkpoint(runs / "round-2" / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(module.generator.weights, torch.tensor([0.5625, 0.1875, 0.25]))  # type: ignore[union-attr, operator]
    config = runs / "round-2" / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 2", "max_steps: 4"))
    main(["boost", "--config=ada.yaml", "--name=c", "--rounds=3"])
    assert saved(runs / "round-2")["global_step"] == 4
    plain = {**given, "model": {"class_path": "GAN", "init_args": {k: v for k, v in model.items() if k != "beta"}}}
    Path("gan.yaml").write_text(yaml.safe_dump(plain))
    main(["fit", "--config=gan.yaml", "--name=g"])
    main(["boost", "--config=ada.yaml", "--name=d", "--rounds=2", "--first=runs/g", "--data.batch_size=16"])
    (config,) = Path("runs/d").glob("round-1/config.yaml")
    drawn = yaml.safe_load(config.read_text())["data"]
    assert drawn["class_path"].endswith(".Resampled"), "the technique of a round is its own, not its base's"
    assert drawn["init_args"]["data"]["init_args"]["batch_size"] == 16


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rounds=0", "--name=a"], "rounds must be an integer >= 1, got 0"),
        (["--rounds=2"], None),
        (["--name=a", "--first=nowhere"], "error: --first: There is no checkpoint at nowhere."),
    ],
)
def test_mistakes_are_told(capsys: pytest.CaptureFixture[str], args: list[str], words: str | None) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["boost", *args])
    told = caught.value.code if words else capsys.readouterr().err
    assert (words or "--name") in str(told) and not Path("runs").exists()
