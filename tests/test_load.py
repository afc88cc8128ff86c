"""From a checkpoint to samples: what was trained comes back, and nothing that a checkpoint says is run."""

from __future__ import annotations

import copy
import enum
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from common import GROWN, TEXTS, VARIANTS, bright, brightness, equal, make, plain, trainer
from torch import Tensor, nn

import lightning_gans
from lightning_gans import GAN, BoostedGAN, GANModule, load
from lightning_gans.callbacks import EMA
from lightning_gans.cli import main
from lightning_gans.compat.lightning import callbacks
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.wrappers import MixtureGenerator

NET = {"shape": [2], "width": 8, "depth": 1}
TOLD: dict[str, Any] = {  # as the command line writes it
    "_class_path": "lightning_gans.WGANGP",
    "_instantiator": "pytorch_lightning.cli.instantiate_module",
    "generator": {"class_path": "lightning_gans.networks.ToyGenerator", "init_args": {**NET, "latent_dim": 3}},
    "discriminator": {"class_path": "lightning_gans.networks.ToyDiscriminator", "init_args": NET},
    "latent_dim": 3,
    "betas": [0.0, 0.9],
    "regularizers": [{"class_path": "lightning_gans.regularizers.R1", "init_args": {"weight": 2.0}}],
    "optimizer_g": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
}


def saved(technique: str = "wgan_gp", path: str = "a.ckpt", steps: int = 2, **options: Any) -> GANModule:
    """Train a little, with an average, and write the checkpoint."""
    module = make(technique, **options)
    fitted = trainer(max_steps=steps, callbacks=[EMA(0.5)])
    fitted.fit(module, plain())
    fitted.save_checkpoint(path)
    return module


def networks(seed: int = 9) -> dict[str, nn.Module]:
    """The same architecture, other weights."""
    torch.manual_seed(seed)
    return {"generator": ToyGenerator((2,), 3, 8, 1), "discriminator": ToyDiscriminator((2,), 8, 1)}


def edited(path: str = "a.ckpt", **changes: Any) -> str:
    """Change what a checkpoint says of its hyperparameters; ``"."`` as a value removes one."""
    checkpoint = torch.load(path, weights_only=True)
    options = {**TOLD, **changes}
    checkpoint["hyper_parameters"] = {k: v for k, v in options.items() if v != "."}
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command line: ``a`` with an average and a best checkpoint; ``b``, two rounds of a mixture."""
    folder = tmp_path_factory.mktemp("runs")
    nets = {
        "generator": {"class_path": "ToyGenerator", "init_args": {"width": 8, "depth": 1}},
        "discriminator": {"class_path": "ToyDiscriminator", "init_args": {"width": 8, "depth": 1}},
    }
    trainer = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "max_steps": 3}
    quick = {"trainer": trainer, "grid": {"every_n_steps": None}}
    data = {"class_path": "RareTail1D", "init_args": {"batch_size": 8}}
    for name in ("BoostedGAN", "WGANGP"):
        model = {"class_path": name, "init_args": {"latent_dim": 2, **nets}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"model": model, "data": data, **quick}))
    coverage = {"class_path": "ModeCoverage", "init_args": {"every_n_steps": 1, "num_samples": 50}}
    main(["fit", f"--config={folder}/WGANGP.yaml", f"--out={folder}", "--name=a", "--checkpoint.monitor=metrics/w1",
          f"--trainer.callbacks=[{{class_path: EMA, init_args: {{decay: 0.5}}}}, {coverage}]",
          "--checkpoint.every_n_train_steps=1", "--model.regularizers+=R1"])  # fmt: skip
    main(["boost", f"--config={folder}/BoostedGAN.yaml", f"--out={folder}", "--name=b", "--rounds=2"])
    return folder


# ---------------------------------------------------------------------- what comes back
@pytest.mark.parametrize("technique", VARIANTS)
def test_every_technique_with_networks_of_your_own(technique: str) -> None:
    module = saved(technique)
    mine: dict[str, Any] = networks()
    if technique in TEXTS:
        fresh = make(technique)
        mine = {"generator": fresh.generator, "discriminator": fresh.discriminator}
    if technique == "style_transfer":
        mine["classifier"] = make(technique).classifier
    if technique in GROWN:
        mine["base"] = copy.deepcopy(mine["generator"])
    third = {"robust_wgan": "weight_network", "prc_gan_clip": "classifier"}
    if technique in third:
        mine[third[technique]] = ToyDiscriminator((2,), 8, 1)
    if technique == "prc_gan":
        mine["classifier"] = None
    if technique == "gan_control":
        mine["measure"] = brightness
    if technique == "stylex":
        mine |= {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(2, 1)), "classifier": bright}
    back = load("a.ckpt", **mine)
    assert type(back) is type(module) and equal(back.state_dict(), module.state_dict())
    assert torch.equal(back.sample(50, seed=3), module.sample(50, seed=3))
    assert back.latent_dim == module.latent_dim and back.d_steps == module.d_steps


def test_it_is_frozen_in_evaluation_mode_and_on_the_device() -> None:
    saved()
    back = load("a.ckpt", device="cpu", **networks())
    assert not any(m.training for m in back.modules()) and not any(p.requires_grad for p in back.parameters())
    assert back.device == torch.device("cpu")
    assert back.ema is not None and not any(p.requires_grad for p in back.ema.parameters())


def test_average_or_raw_weights() -> None:
    module = saved()
    ema, raw = (load("a.ckpt", weights=w, **networks()) for w in ("ema", "raw"))  # type: ignore[arg-type]
    z = torch.randn(5, 3)
    assert module.ema is not None and raw.ema is None
    assert torch.equal(ema.sample(5, generator=torch.Generator().manual_seed(0)), ema.sample(5, seed=0))
    seen = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ema.sample(5, seed=0), module.ema(seen))
    assert torch.equal(raw.sample(5, seed=0), module.generator(seen))
    assert (module.ema(z) - module.generator(z)).abs().max() > 1e-6, "the comparison is empty"


def test_networks_by_class_path() -> None:
    """As the command line writes them; the optimizers are left out, since nothing is trained."""
    module = saved()
    back = load(edited())
    assert equal(back.state_dict(), module.state_dict()) and torch.equal(
        back.sample(4, seed=0), module.sample(4, seed=0)
    )
    assert [(r.name, r.weight) for r in back.regularizers][-1] == ("r1", 2.0) and back.betas == (0.0, 0.9)
    assert back.hparams["generator"] == TOLD["generator"]


def test_a_run_folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(runs))
    folder = runs / "a" / "checkpoints"
    best = next(folder.glob("best-*.ckpt"))
    for given, file in (({}, folder / "last.ckpt"), ({"which": "best"}, best)):
        back = load(runs / "a", **given)  # type: ignore[arg-type]
        state = torch.load(file, weights_only=True)
        assert equal(back.state_dict(), state["state_dict"])
        assert back.ema is not None and equal(back.ema.state_dict(), state["ema"])
        assert equal(load(file).state_dict(), state["state_dict"])
        assert equal(load("~/a", **given).state_dict(), state["state_dict"])  # type: ignore[arg-type]
    assert back.sample(3).shape == (3, 1)


def test_the_best_is_the_one_that_the_last_checkpoint_tells(runs: Path, tmp_path: Path) -> None:
    """Several may lie there: those of an earlier monitor, or the best few."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    state = torch.load(runs / "a" / "checkpoints" / "last.ckpt", weights_only=True)
    states = {name: {**s, "best_model_path": "gone/best-step=000001.ckpt"} if "monitor" in s else s
              for name, s in state["callbacks"].items()}  # fmt: skip
    for i in (1, 2, 3):
        torch.save({**state, "callbacks": {}, "ema": {k: v + i for k, v in state["ema"].items()}},
                   folder / f"best-step=00000{i}.ckpt")  # fmt: skip
        os.utime(folder / f"best-step=00000{i}.ckpt", (i, i))

    def shift() -> float:
        back = load(tmp_path / "run", "best")
        assert back.ema is not None
        return float((next(iter(back.ema.state_dict().values())) - next(iter(state["ema"].values()))).mean())

    assert shift() == pytest.approx(3, abs=1e-4)  # the newest, if nothing tells
    torch.save({**state, "callbacks": states}, folder / "last.ckpt")
    assert shift() == pytest.approx(1, abs=1e-4)


def test_mixtures(runs: Path, tmp_path: Path) -> None:
    """Also from elsewhere, and after the folders were moved together."""
    path = runs / "b" / "round-1"
    back = load(path)
    assert isinstance(back, BoostedGAN) and isinstance(back.generator, MixtureGenerator)
    assert equal(back.state_dict(), torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    assert back.sample(7).shape == (7, 1)
    moved = tmp_path / "moved"
    for k in (0, 1):
        for name in ("config.yaml", "checkpoints/last.ckpt"):
            (moved / f"round-{k}" / name).parent.mkdir(parents=True, exist_ok=True)
            (moved / f"round-{k}" / name).write_bytes((runs / "b" / f"round-{k}" / name).read_bytes())
    state = torch.load(moved / "round-1/checkpoints/last.ckpt", weights_only=True)
    state["hyper_parameters"]["base"] = "elsewhere/round-0/checkpoints/last.ckpt"
    torch.save(state, moved / "round-1/checkpoints/last.ckpt")
    assert torch.equal(load(moved / "round-1").sample(7, seed=0), back.sample(7, seed=0))
    (moved / "round-0/checkpoints/last.ckpt").unlink()
    with pytest.raises(ValueError, match=r"There is no checkpoint at elsewhere/round-0/checkpoints/last\.ckpt"):
        load(moved / "round-1")
    state["hyper_parameters"]["base"] = str(moved / "round-1/checkpoints/last.ckpt")
    torch.save(state, moved / "round-1/checkpoints/last.ckpt")
    with pytest.raises(ValueError, match="a mixture that names itself as its base"):
        load(moved / "round-1")


class Mine(GANModule):
    """A technique of a user's, of which this module is imported."""

    def discriminator_terms(self, batch: Any, fake: Tensor) -> dict[str, Tensor]:
        return {"d": self.score(fake, batch).mean() - self.score(batch.real, batch).mean()}

    def generator_terms(self, batch: Any, fake: Tensor) -> dict[str, Tensor]:
        return {"g": -self.score(fake, batch).mean()}


def test_a_technique_of_your_own() -> None:
    module = Mine(**networks(1), latent_dim=3)  # type: ignore[arg-type]
    fitted = trainer(max_steps=1)
    fitted.fit(module, plain())
    fitted.save_checkpoint("a.ckpt")
    back = load("a.ckpt", **networks())
    assert type(back) is Mine and torch.equal(back.sample(5, seed=0), module.sample(5, seed=0))


class Fixing(GAN):
    """It decides some of what it hands on."""

    def __init__(self, width: int = 8, **options: Any) -> None:
        super().__init__(**networks(1), latent_dim=3, d_steps=width // 4, **options)  # type: ignore[arg-type]
        self.width = width


def test_a_technique_that_fixes_arguments() -> None:
    module = Fixing(12, lr_g=0.25)
    assert module.hparams.items() >= {"width": 12, "lr_g": 0.25, "d_steps": 3, "latent_dim": 3}.items()  # for loggers
    fitted = trainer(max_steps=1)
    fitted.fit(module, plain())
    fitted.save_checkpoint("fixing.ckpt")
    for back in (load("fixing.ckpt"), Fixing.load_from_checkpoint("fixing.ckpt")):
        assert (back.width, back.d_steps, back.players["g"].lr) == (12, 3, 0.25)
        assert torch.equal(back.sample(5, seed=0), module.sample(5, seed=0))
    with pytest.warns(UserWarning, match=r"other settings: d_steps 2 \(was 3\); width 8 \(was 12\)"):
        trainer(max_steps=2).fit(Fixing(8, lr_g=0.25), plain(), ckpt_path="fixing.ckpt")


class Through(GAN):
    """It hands on all that it is given."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Without ``super()``."""


class Widths(GAN):
    """Keeps what it is given as plain Lightning has it, ahead of the library."""

    def __init__(self, width: int = 8) -> None:
        self.save_hyperparameters()
        super().__init__(ToyGenerator((2,), 3, width, 1), ToyDiscriminator((2,), width, 1), 3)


class Kept(GAN):
    """The same behind it, networks and all."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module, width: int = 8) -> None:
        super().__init__(generator, discriminator, 3)
        self.save_hyperparameters()


def test_hyperparameters_that_a_class_keeps_itself(tmp_path: Path) -> None:
    """A live network among them, which Lightning only advises against, made checkpoints that nothing could read."""
    nets = make("gan")
    given: dict[str, Any] = {"generator": nets.generator, "discriminator": nets.discriminator}
    cases: list[tuple[GAN, dict[str, Any]]] = [(Widths(6), {}), (Kept(**given, width=6), given)]
    for i, (module, missing) in enumerate(cases):
        trainer(max_steps=1).fit(module, plain(8, 4))
        module.trainer.save_checkpoint(path := tmp_path / f"{i}.ckpt")
        assert torch.load(path, weights_only=True)["hyper_parameters"]["width"] == 6
        again = type(module).load_from_checkpoint(path, **missing)
        assert equal(again.state_dict(), module.state_dict()) and again.hparams.width == 6


class Weighing(GAN):
    """Keeps what is no number, and is read without running code all the same."""

    def __init__(self, weights: Any = None, kind: torch.dtype = torch.float32) -> None:
        super().__init__(ToyGenerator((2,), 3, 8, 1), ToyDiscriminator((2,), 8, 1), 3)
        self.save_hyperparameters()


def test_tensors_that_a_class_keeps_itself(tmp_path: Path) -> None:
    module = Weighing([torch.ones(3)], torch.float64)
    trainer(max_steps=1).fit(module, plain(8, 4))
    module.trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    again = Weighing.load_from_checkpoint(path)
    assert torch.equal(again.hparams.weights[0], torch.ones(3)) and again.hparams.kind == torch.float64


def test_arguments_without_a_name() -> None:
    module, nets = Through(*networks(1).values(), 3, d_steps=2), networks(2)
    fitted = trainer(max_steps=1)
    fitted.fit(module, plain())
    fitted.save_checkpoint("through.ckpt")
    for back in (load("through.ckpt", **nets), Through.load_from_checkpoint("through.ckpt", **nets)):
        assert (back.latent_dim, back.d_steps) == (3, 2)
        assert torch.equal(back.sample(5, seed=0), module.sample(5, seed=0))


def test_a_pickled_module_of_an_earlier_version_loads() -> None:
    saved("gan")
    module = Through(*networks(1).values(), 3)
    for name in ("loads", "_decided"):
        vars(module).pop(name, None)
    Through.on_load_checkpoint(module, torch.load("a.ckpt", weights_only=True))


class Loss(str, enum.Enum):
    HINGE = "hinge"


def test_numbers_of_numpy_and_words_of_enumerations() -> None:
    """In options, in what optimizers and schedules hold, and in callbacks: each was a checkpoint that nobody reads."""

    class Counts(callbacks.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"seen": [np.int64(3)]}

    lr = np.logspace(-4, -2, 3)
    options: dict[str, Any] = {"lr_g": lr[1], "lr_d": np.float32(0.25), "loss": Loss.HINGE, "d_steps": np.int64(2)}
    options |= {"optimizer_d": lambda p: torch.optim.Adam(p, lr[1], tuple(lr[:2]))}
    options |= {"scheduler_g": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: np.cos(step))}
    module = GAN(**networks(1), latent_dim=3, **options)  # type: ignore[arg-type]
    fitted = trainer(max_steps=2, callbacks=[Counts()])
    fitted.fit(module, plain())
    for weights_only in (False, True):
        fitted.save_checkpoint("numpy.ckpt", weights_only=weights_only)
        kept = torch.load("numpy.ckpt", weights_only=True)["hyper_parameters"]
        assert kept["lr_d"] == 0.25 and kept["loss"] == "hinge" and kept["d_steps"] == 2
        assert {type(value) for value in module.hparams.values()} <= {float, str, int, bool, tuple, type(None)}
        assert load("numpy.ckpt", **networks()).d_steps == 2


# ---------------------------------------------------------------------- sample
def test_sample_by_a_seed() -> None:
    module = make("wgan_gp")
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = (module.sample(6, seed=s) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was used"
    z, labels = module.latents(6, seed=1)
    assert labels is None and torch.equal(module(z), a)
    with pytest.raises(ValueError, match="seed must be None where a generator is given, got 0"):
        module.sample(2, generator=torch.Generator(), seed=0)
    for options, words in (({"n": 0}, "n must be"), ({"n": 2, "seed": -1}, "seed must be"),
                           ({"n": 2, "labels": torch.zeros(2).long()}, "labels")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            module.sample(**options)
    assert not a.requires_grad and not module.decode(z).requires_grad, "no graph is kept"


def test_a_generator_that_is_a_formula() -> None:
    """It has no parameters to tell where and in what its noise is to be."""
    module = lightning_gans.GAN(nn.Identity(), ToyDiscriminator((2,), 8, 1), 2)
    assert torch.equal(module.sample(3, seed=1), module.latents(3, seed=1)[0])


def test_noise_of_another_shape_is_told_by_ours_alone() -> None:
    class Fails(nn.Linear):
        def forward(self, z: Tensor) -> Tensor:
            if len(z) > 5:
                raise RuntimeError("of its own")
            return super().forward(z)

    module = lightning_gans.GAN(Fails(3, 2), ToyDiscriminator((2,), 8, 1), 3)
    with pytest.raises(ValueError, match=r"^z must have shape \(4, 3\), got \(4, 2\)\.$"):
        module.decode(torch.zeros(4, 2))
    with pytest.raises(RuntimeError, match=r"^of its own$"):
        module.sample(6)


def test_latents_of_a_conditional_generator() -> None:
    generator = ToyGenerator((2,), 3, 8, 1, num_classes=4)
    module = lightning_gans.WGANGP(generator, ToyDiscriminator((2,), 8, 1, num_classes=4), 3)
    z, labels = module.latents(50, seed=1)
    assert labels is not None and labels.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(module(z, labels), module.sample(50, seed=1))
    assert torch.equal(module.latents(50, seed=1)[1], labels), "drawn from the same source"  # type: ignore[arg-type]
    given = torch.full((5,), 2)
    assert torch.equal(module.latents(5, given)[1], given)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"which": "newest"}, "which must be one of last, best, got 'newest'"),
        ({"weights": "mean"}, "weights must be one of ema, raw, got 'mean'"),
        ({}, r"a\.ckpt cannot be loaded: the networks are not told by it: give generator=, discriminator=\."),
        ({**networks(), "generator": ToyGenerator((2,), 3, 9, 1)}, r"a\.ckpt cannot be loaded: .*size mismatch"),
        ({**networks(), "latent_dim": 0}, r"a\.ckpt cannot be loaded: latent_dim must be an integer >= 1, got 0"),
        ({**networks(), "colour": 1}, r"a\.ckpt cannot be loaded: .*unexpected keyword argument 'colour'"),
    ],
)
def test_one_sentence(arguments: dict[str, Any], words: str) -> None:
    saved(steps=1)
    with pytest.raises(ValueError, match=words) as caught:
        load("a.ckpt", **arguments)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    for path in ("nowhere.ckpt", str(tmp_path)):
        with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
            load(path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"There is no best checkpoint in .*: none was saved by a score"):
        load(tmp_path, "best")
    Path("text.ckpt").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"text\.ckpt is not a readable checkpoint"):
        load("text.ckpt")
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt is no checkpoint of a GenerativeModule: it does not tell"):
        load("other.ckpt")
    saved()
    whole = Path("a.ckpt").read_bytes()
    Path("half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.ckpt is not a readable checkpoint"):
        load("half.ckpt", **networks())


class Payload:
    """Unpickled it would create the file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


class Armed(nn.Module):
    """A network of a module that is imported, as those of other libraries may be; built, it creates the file."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        Path("pwned").touch()


def test_a_pickle_is_not_executed() -> None:
    saved()
    state = torch.load("a.ckpt", weights_only=True)
    torch.save({**state, "extra": Payload()}, "a.ckpt")
    Path("b.ckpt").write_bytes(pickle.dumps({**state, "extra": Payload()}))
    for path in ("a.ckpt", "b.ckpt"):
        with pytest.raises(ValueError, match="is not a readable checkpoint"):
            load(path, **networks())
    assert not Path("pwned").exists()
    pickle.loads(pickle.dumps(Payload()))
    assert Path("pwned").exists(), "the payload was harmless"


COMMAND = {"command": "touch pwned"}


@pytest.mark.parametrize("trust_code", [False, True])
@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("os.system", COMMAND, "is refused: it is no Module or Regularizer"),
        ("posix.system", COMMAND, "is refused: it is no Module or Regularizer"),
        ("subprocess.Popen", {"args": ["touch", "pwned"]}, "is refused: it is no Module or Regularizer"),
        ("torch.os.system", COMMAND, "is refused: it is no Module or Regularizer"),
        ("lightning_gans.runs.folder.os.system", COMMAND, "is refused: it is no Module or Regularizer"),
        ("builtins.exec", {"source": "open('pwned', 'w')"}, "is refused: it is no Module or Regularizer"),
        ("torch.hub.load", {"repo_or_dir": ".", "model": "x", "source": "local"}, "it is no Module or Regularizer"),
        ("torch.load", {"f": "b.ckpt", "weights_only": False}, "it is no Module or Regularizer"),
        ("system", COMMAND, "is refused|no such class"),
        ("lightning_gans.networks.ToyGenerater", {}, "there is no such class"),
        ("lightning_gans.nowhere.Net", {}, "there is no such class"),
    ],
)
def test_what_is_no_network_is_not_called(name: str, arguments: Any, words: str, trust_code: bool) -> None:
    saved(steps=1)
    Path("hubconf.py").write_text("import os; os.system('touch pwned')\ndef x(): pass\n")
    Path("b.ckpt").write_bytes(pickle.dumps(Payload()))
    evil = {"class_path": name, "init_args": arguments}
    wrapped = {"class_path": "lightning_gans.wrappers.DiffAugment", "init_args": {"discriminator": evil}}
    for where in ({"generator": evil}, {"discriminator": wrapped}, {"regularizers": [evil]}):
        with pytest.raises(ValueError, match=rf"a\.ckpt cannot be loaded: class path {name!r}.*({words})"):
            load(edited(**where), trust_code=trust_code)
    with pytest.raises(ValueError, match="cannot be loaded: class path"):
        load(edited(_class_path=name, generator="."), trust_code=trust_code)
    assert not Path("pwned").exists()


def test_what_another_library_would_do_is_not_done() -> None:
    saved(steps=1)
    names = [f"{__name__}.Armed", "lightning_gans.metrics.InceptionExtractor", "torch.jit.ScriptModule",
             "torch.nn.parallel.DataParallel", "torchmetrics.Metric"]  # fmt: skip
    for name in names:
        with pytest.raises(ValueError, match=rf"{name!r} is refused: it is none of lightning_gans' or torch\.nn's"):
            load(edited(generator={"class_path": name, "init_args": {}}))
    assert not Path("pwned").exists()
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(edited(generator={"class_path": names[0], "init_args": {}}), trust_code=True)  # built, but not the net
    assert Path("pwned").exists(), "the class was harmless"


def test_modules_are_imported_only_if_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module of the working directory; Lightning would import it as the ``_instantiator`` of a checkpoint."""
    saved(steps=1)
    Path("stranger.py").write_text(
        "import pathlib\nfrom lightning_gans.networks import ToyGenerator\npathlib.Path('pwned').touch()\n"
        "class Net(ToyGenerator):\n    pass\ndef make(cls, config):\n    raise SystemExit\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = {"class_path": "stranger.Net", "init_args": TOLD["generator"]["init_args"]}
    for name, where in (("generator", net), ("_class_path", "stranger.Net")):
        with pytest.raises(
            ValueError,
            match=r"'stranger\.Net' is refused: its module is not imported yet; if you trust .* trust_code=True",
        ):
            load(edited(**{name: where}))
    assert load(edited(_instantiator="stranger.make")).sample(2).shape == (2, 2)
    assert not Path("pwned").exists() and "stranger" not in sys.modules
    back = load(edited(generator=net), trust_code=True)
    assert type(back.generator).__name__ == "Net" and Path("pwned").exists()
    del sys.modules["stranger"]


def test_a_stranger_as_the_base_of_a_mixture() -> None:
    """A second file beside the first is read as the first."""
    module = saved("boosted")
    evil = {"class_path": "os.system", "init_args": COMMAND}
    saved(path="base.ckpt", steps=1)
    edited("base.ckpt", generator=evil)
    with pytest.raises(ValueError, match=r"base\.ckpt cannot be loaded: class path 'os\.system' is refused"):
        load(edited(_class_path="lightning_gans.BoostedGAN", regularizers=".", base="base.ckpt"))
    assert not Path("pwned").exists()
    edited("base.ckpt")
    back = load(edited(_class_path="lightning_gans.BoostedGAN", regularizers=".", base="base.ckpt", p=0.7))
    assert torch.equal(back.sample(20, seed=0), module.sample(20, seed=0))
