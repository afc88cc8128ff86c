"""Rounds by the command line: ``boost`` is a ``fit`` for each."""

from __future__ import annotations

import subprocess
import sys
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


def test_rounds_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Two rounds; once more with another round, which leaves the first ones alone; a broken-off one is gone on with."""
    runs = boost("--rounds=2")
    before = {k: (runs / f"round-{k}" / "checkpoints" / "last.ckpt").read_bytes() for k in (0, 1)}
    capsys.readouterr()
    assert boost("--rounds=3", "--trainer.max_steps=3") == runs
    said = capsys.readouterr().out
    for k in (0, 1):
        assert f"Round {k} is finished, as runs/b/round-{k}/config.yaml says: other options have no effect" in said
    assert "Round 2" not in said
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
    assert "Round 2 goes on as runs/b/round-2/config.yaml says" in capsys.readouterr().out
    assert not [path for path in runs.rglob(".*")]


@pytest.mark.slow
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


@pytest.mark.parametrize("technique", ["GAN", "WGANGP", "ExemplarVAE"])
def test_what_is_no_mixture_is_refused_before_anything_is_trained(technique: str) -> None:
    model = {"latent_dim": 2, **{k: CONFIG["model"]["init_args"][k] for k in ("generator", "discriminator")}}
    if technique == "ExemplarVAE":
        sizes = {"latent_dim": 2, "width": 8, "depth": 1}
        model = {"latent_dim": 2, "encoder": {"class_path": "VAEEncoder", "init_args": sizes},
                 "decoder": {"class_path": "VAEDecoder", "init_args": sizes}}  # fmt: skip
    Path("first.yaml").write_text(yaml.safe_dump(CONFIG))
    Path("no.yaml").write_text(yaml.safe_dump(CONFIG | {"model": {"class_path": technique, "init_args": model}}))
    with pytest.raises(SystemExit) as caught:
        main(["boost", "--config=no.yaml", "--name=b", "--first=first.yaml"])
    told = f"--model must be a mixture (BoostedGAN or AdaGAN) for the rounds after the first, got {technique}."
    assert caught.value.code == f"error: {told}" and not Path("runs").exists()


def test_weights_are_of_adagan() -> None:
    with pytest.raises(SystemExit) as caught:
        boost("--weights=star")
    assert caught.value.code == "error: --weights must be left out with BoostedGAN: only AdaGAN weighs the data."
    assert not Path("runs").exists()


def test_the_help_says_what_is_of_which_round(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["boost", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--first FIRST Configuration of the first round, to which no other option applies; or a run" in said


def test_mistakes_of_later_rounds_are_told_before_the_first() -> None:
    Path("first.yaml").write_text(yaml.safe_dump(CONFIG))
    for args in (["--model.p=many", "--config=first.yaml"], ["--trainer.max_steps=3"]):
        with pytest.raises(SystemExit) as caught:
            main(["boost", *args, "--name=b", "--first=first.yaml"])
        assert caught.value.code not in (0, None) and not Path("runs").exists()


def test_two_calls_at_once() -> None:
    """The second one is refused, in one sentence, and leaves what the first one has."""
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True)"
    Path("runs/b/round-0").mkdir(parents=True)
    command = [sys.executable, "-S", "-c", hold + "; sys.stdin.read()", "runs/b/.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(SystemExit, match=r"error: runs/b must be a folder that no other process writes to"):
            boost("--rounds=1")
        other.kill()
    assert not list(Path("runs").rglob("*.yaml")) and Path("runs/b/.lock").exists()
