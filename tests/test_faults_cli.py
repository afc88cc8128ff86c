"""What the command line makes of words that cannot be meant, or could be misunderstood."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import torch
import yaml
from torch import nn

from lightning_gans.cli import main, parsing
from lightning_gans.cli.configuration import fit_networks_to_data, require_annotations
from lightning_gans.cli.gan_cli import GANCLI
from lightning_gans.cli.mistakes import told
from lightning_gans.cli.parsing import all_shipped, given_values, innermost, prepared
from lightning_gans.cli.recipes import RECIPES
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import GANDataModule
from lightning_gans.engine.logbook import NonFiniteError

NETS = {
    "generator": {"class_path": "ToyGenerator", "init_args": {"width": 8, "num_classes": 3}},
    "discriminator": {"class_path": "ToyDiscriminator", "init_args": {"width": 8, "num_classes": 3}},
}
RING: dict[str, Any] = {
    "model": {
        "class_path": "WGANGP",
        "init_args": {
            "latent_dim": 3,
            "d_steps": 4,
            **NETS,
            "regularizers": [{"class_path": "R1", "init_args": {"weight": 7.0}}],
        },
    },
    "data": {"class_path": "Ring", "init_args": {"modes": 12, "batch_size": 16}},
    "trainer": {
        "accelerator": "cpu",
        "callbacks": [
            {"class_path": "EMA", "init_args": {"decay": 0.9}},
            {"class_path": "ModeCoverage", "init_args": {"every_n_steps": 50}},
        ],
    },
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ring.yaml").write_text(yaml.safe_dump(RING))


def understood(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """What a fit would be done with."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=ring.yaml", *args, "--print_config"])
    told = capsys.readouterr()
    assert ended.value.code in (0, None), (ended.value.code, told.err)
    return yaml.safe_load(told.out)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """The lines that end a command."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", *args])
    assert ended.value.code not in (0, None)
    told = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
    lines = told.strip().splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("error: ")) :]


# ---------------------------------------------------------------------- what a new class or list begins with
def test_another_class_begins_with_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """It keeps only what it cannot do without, and whether it has classes."""
    found = understood(capsys, "--data=Grid", "--model=GAN", "--model.generator=BottleneckGenerator")
    data, model = found["data"]["init_args"], found["model"]["init_args"]
    assert (data["modes"], data["batch_size"]) == (25, 256)
    assert (model["latent_dim"], model["d_steps"], model["regularizers"]) == (3, 1, [])
    generator = model["generator"]
    assert generator["class_path"].endswith(".BottleneckGenerator")
    assert model["discriminator"]["init_args"]["width"] == 8


def test_a_new_list_begins_anew_and_options_of_its_last_member_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    ours = ["--trainer.callbacks=EMA", "--trainer.callbacks.start_step=5", "--trainer.callbacks+=ModeCoverage"]
    found = understood(capsys, *ours, "--model.regularizers=[R1]")
    ema, coverage = found["trainer"]["callbacks"]
    assert (ema["init_args"]["decay"], ema["init_args"]["start_step"]) == (None, 5)
    assert coverage["init_args"]["every_n_steps"] != 50
    assert found["model"]["init_args"]["regularizers"][0]["init_args"]["weight"] != 7.0


def test_a_second_file_does_not_inherit_by_position(capsys: pytest.CaptureFixture[str]) -> None:
    mine = {"trainer": {"callbacks": [{"class_path": "EMA"}, {"class_path": "EMA"}]}, "data": {"class_path": "Grid"}}
    Path("mine.yaml").write_text(yaml.safe_dump(mine))
    found = understood(capsys, "--config", "mine.yaml")
    for callback in found["trainer"]["callbacks"]:
        assert (callback["init_args"]["decay"], callback["init_args"]["every_n_steps"]) == (None, 1)
    assert found["data"]["init_args"]["modes"] == 25 and found["model"]["init_args"]["d_steps"] == 4


def test_null_is_understood_at_any_depth(capsys: pytest.CaptureFixture[str]) -> None:
    nets = ["--model.generator.num_classes=null", "--model.discriminator.init_args.num_classes", "null"]
    model = understood(capsys, *nets, "--model.clip_grad_g=null")["model"]["init_args"]
    assert model["generator"]["init_args"]["num_classes"] is model["discriminator"]["init_args"]["num_classes"] is None
    assert model["generator"]["init_args"]["width"] == 8 and model["clip_grad_g"] is None
    assert prepared(["fit", "--model.generator.width=9", "--name", "null"]) == [
        "fit", "--model.generator.width=9", "--name", "null",
    ]  # fmt: skip


# ---------------------------------------------------------------------- what is given holds
class Points(GANDataModule):
    """A user's, of labelled points, that does not say so."""

    name, shape = "points", (2,)

    def __init__(self, max_step: int = 3) -> None:
        super().__init__()


class Bottleneck(nn.Module):
    """A critic whose latent_dim is its own, and whose classes are none by default."""

    def __init__(self, shape: tuple[int, ...] = (2,), latent_dim: int = 64, num_classes: int = 0) -> None:
        super().__init__()


def fitted(*args: str) -> dict[str, Any]:
    """The networks of a model for Points, with these values given, as a parser would have them."""
    nets: dict[str, Any] = {
        "generator": {"class_path": "lightning_gans.networks.ToyGenerator", "init_args": {}},
        "discriminator": {"class_path": f"{__name__}.Bottleneck", "init_args": {"num_classes": 0}},
    }
    given = given_values(["fit", *args])
    for (_, net, *inner, name), value in given.items():
        if inner:
            nets[net] = {"class_path": "lightning_gans.wrappers.Packed", "init_args": {inner[0]: nets[net]}}
        (nets[net]["init_args"][inner[0]] if inner else nets[net])["init_args"][name] = value
    model, data = {"init_args": {"latent_dim": 3, **nets}}, {"class_path": f"{__name__}.Points", "init_args": {}}
    options = namespace({"model": model, "data": data})
    fit_networks_to_data(options, given)
    return {name: net["init_args"] for name, net in options["model"].as_dict()["init_args"].items() if name in nets}


def namespace(value: Any) -> Any:
    """What a parser makes of a dictionary."""
    return jsonargparse.Namespace(**{k: namespace(v) for k, v in value.items()}) if isinstance(value, dict) else value


def test_what_is_given_holds_and_the_rest_is_filled_in() -> None:
    found = fitted()
    assert (found["generator"]["shape"], found["generator"]["latent_dim"]) == ([2], 3)
    assert found["discriminator"] == {"shape": [2], "latent_dim": 3, "num_classes": 0}
    assert fitted("--model.discriminator.latent_dim=64")["discriminator"]["latent_dim"] == 64
    assert fitted("--model.discriminator.init_args.shape=[2]")["discriminator"]["shape"] == [2]
    packed = fitted("--model.discriminator.network.shape=[4]")["discriminator"]["network"]["init_args"]
    assert packed == {"shape": [4], "latent_dim": 3, "num_classes": 0}, "a discriminator of packs of two points"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("generator.num_classes=3", "must be null for Points, which has no num_classes, got 3."),
        ("generator.shape=[3]", "must be that of the data, [2], got [3]."),
        ("generator.latent_dim=4", "must be --model.latent_dim, 3, got 4."),
    ],
)
def test_what_is_given_and_cannot_be_meant_is_refused(option: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"--model.{option.partition('=')[0]} {words}")):
        fitted(f"--model.{option}")


def test_a_file_goes_with_other_data_and_another_latent_dim() -> None:
    net = {"class_path": "A", "init_args": {"shape": [2], "latent_dim": 3, "num_classes": 4}}
    inner = {"class_path": "B", "init_args": {"network": net}}
    config = {"model": {"init_args": {"latent_dim": 3, "generator": net, "discriminator": inner}}}
    Path("run.yaml").write_text(yaml.safe_dump(config))

    def kept(*args: str, below: str = "generator") -> set[str]:
        return {p[-1] for p in given_values(["fit", "--config", "run.yaml", *args]) if p[1:2] == (below,)}

    assert kept() == kept("--data=Grid") == {"class_path", "latent_dim"}
    assert kept("--model.generator.shape=[3]", "--model.generator.num_classes=2") == {*kept(), "shape", "num_classes"}
    assert kept("--model.latent_dim=4") == {"class_path"}
    assert kept(below="discriminator") == {"class_path", "latent_dim", "shape"}  # below a wrapper samples may be packed


def test_labels_that_the_data_do_not_tell_of_are_refused_if_typed_and_told_if_in_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    [line] = refused(capsys, "--config=ring.yaml", "--model.discriminator.num_classes=3", "--trainer.callbacks=null")
    assert line == "error: --model.discriminator.num_classes must be null for Ring, which has no num_classes, got 3."
    said = r"--model.discriminator.num_classes 3 is left out: it must be null for Ring, which has no num_classes"
    with pytest.warns(UserWarning, match=said), pytest.raises(SystemExit):
        main(["fit", "--config=ring.yaml", "--trainer.callbacks=null", "--dry_run"])
    assert all_shipped(["fit", "--config", "digits/gan", f"--config={RECIPES}/ring/gan.yaml", "--data=Ring"])
    assert not all_shipped(["fit", "--config=digits/gan", "--config", "ring.yaml"])  # in which they are asked for
    assert not all_shipped(["fit", "--config=model: GAN\ndata: Ring\n"])


# ---------------------------------------------------------------------- mistakes, in one line
@pytest.mark.parametrize(
    ("args", "words", "hint"),
    [
        (["--model.generator.widht=3"], ["--model.generator", "Option 'widht' is not accepted"], "width"),
        (["--model.d_steps=x"], ["--model.d_steps must be int, got x"], None),
        (["--data=Rng"], ["--data must be the name of a class, got Rng"], "Ring"),
        (["--trainr.max_steps=3"], ["trainr"], "trainer"),
        (["--trainer.logger=WandLogger"], ["--trainer.logger must be the name of a class, got Wand"], "WandbLogger"),
        (["--model.optimizer_d=Adm"], ["--model.optimizer_d must be the name of a class, got Adm"], "Adam"),
        (["--trainer.precision=17"], ["--trainer.precision must be one of 64, 32, 16, ", " or null, got 17"], None),
        (["--seed_everything=x"], ["--seed_everything must be int, got x"], None),
        (["--trainer.max_steps=1e3"], ["--trainer.max_steps must be int, got 1000.0: write 1000"], None),
        (["--dry_r"], ["unrecognized arguments: --dry_r"], "dry_run"),  # was taken for it, by the parser alone
        ([f"--data={__name__}.Points", "--data.max_step=x"], ["--data.max_step must be int, got x"], None),  # its own
    ],
)
def test_the_innermost_mistake_in_a_line_and_the_hint_below(
    capsys: pytest.CaptureFixture[str], args: list[str], words: list[str], hint: str | None
) -> None:
    line, *hints = refused(capsys, "--config=ring.yaml", *args)
    assert all(word in line for word in words) and "Namespace" not in line
    assert len(hints) == (hint is not None) and all(f"did you mean {hint}" in told for told in hints)


def test_many_lines_become_one() -> None:
    tree = (
        'Parser key "model":\n  Does not validate against any of the Union subtypes\n  Subtypes: [a, b]\n  Errors:\n'
        "    - Problem with given class_path 'our.Net':\n        Parser key \"size\":\n"
        "          Does not validate against any of the Union subtypes\n          Errors:\n"
        "            - Expected a <class 'int'>\n            - Expected a <class 'NoneType'>\n"
        "          Given value type: <class 'str'>\n          Given value: wide\n"
        "    - Expected a <class 'NoneType'>\n  Given value type: <class 'dict'>\n  Given value: {'size': 'wide'}"
    )
    assert innermost(tree) == ("--model.size must be int or null, got wide", [])
    assert innermost("expected one argument") == ("expected one argument", [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model:\n\tclass_path: GAN\n", "got a tab in line 2, column 1; YAML indents by spaces."),
        ("model: [GAN\n", "must be YAML, got"),
        ("", "must hold options by name, such as model and data, got an empty file."),
        ("- GAN\n", "must hold options by name, such as model and data, got a list."),
    ],
)
def test_a_file_that_is_no_configuration_is_named(capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    Path("mine.yaml").write_text(text)
    (line,) = refused(capsys, "--config=mine.yaml")
    assert line.startswith("error: --config mine.yaml must ") and words in line


@pytest.mark.parametrize("where", ["--model.generator=MLP", "--model.generator.class_path=ResNet", "mine.yaml"])
def test_a_bare_name_is_not_taken_from_torchvision(capsys: pytest.CaptureFixture[str], where: str) -> None:
    importlib.import_module("torchvision.models")
    args = [where]
    if where == "mine.yaml":
        Path(where).write_text(
            json.dumps({"model": {"class_path": "GAN", "init_args": {"generator": {"class_path": "MLP"}}}})
        )
        args = ["--config", where]
    (line,) = refused(capsys, "--config=ring.yaml", *args)
    assert "must be a class of this library or a full path, as torchvision." in line
    assert ("ResNetGenerator" in line) == ("ResNet" in where)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["--model.generator=ToyGenerator", "--model.discriminator=ToyDiscriminator"], "generator"),
        (["--model.generator=torch.nn.Identity", "--model.generator.num_classes", "5"], "generator"),
        (["--config", "mine.yaml"], "generator"),
    ],
)
def test_a_network_without_an_annotation_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: list[str], name: str
) -> None:
    Path("unannotated.py").write_text(
        "from lightning_gans import GAN\nclass Mine(GAN):\n    def __init__(self, generator, discriminator, latent_dim,"
        " **kwargs):\n        super().__init__(generator, discriminator, latent_dim, **kwargs)\n"
    )
    nets = yaml.safe_dump({"model": {"init_args": {"latent_dim": 3, **NETS}}})
    Path("mine.yaml").write_text(nets.replace("Toy", "lightning_gans.networks.Toy"))
    monkeypatch.syspath_prepend(Path.cwd())
    line = refused(capsys, "--model=unannotated.Mine", "--data=Ring", "--model.latent_dim=3", *args)[-1]
    assert f".__init__ must annotate {name} (def __init__(self, {name}: nn.Module, ...))" in line


def test_a_word_without_an_annotation_is_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was imported, to see if it is a network."""
    Path("worded.py").write_text("class Worded:\n    def __init__(self, mode='loud'): ...\n")
    Path("loud.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(Path.cwd())
    require_annotations({"class_path": "worded.Worded", "init_args": {"mode": "loud"}})
    require_annotations({"class_path": "worded.Worded"})  # as jsonargparse has a class without arguments


@pytest.mark.parametrize(("rank", "told"), [(0, "error: d/loss must be finite."), (1, 1)])
def test_what_all_ranks_have_seen_one_of_them_tells(monkeypatch: pytest.MonkeyPatch, rank: int, told: Any) -> None:
    def found(*_: Any, **__: Any) -> None:
        raise NonFiniteError("d/loss must be finite.")

    monkeypatch.setattr(GANCLI, "__init__", found)
    monkeypatch.setattr(pl.utilities.rank_zero_only, "rank", rank)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=ring.yaml"])
    assert ended.value.code == told


class Linear(nn.Linear):
    """Has the name of another class."""


def test_a_bare_name_means_what_jsonargparse_finds() -> None:
    names = ("DCGANGenerator", "PixelShuffle", "Module", "None", "torch.nn.Linear")
    asked: list[tuple[Any, str]] = [*((nn.Module, name) for name in names), ((GANDataModule, nn.Module), "Ring")]
    asked += [(GANDataModule, name) for name in ("Ring", "GANDataModule", "DCGANGenerator")]
    for base, name in asked:
        assert parsing._by_name(base, name) == parsing._RESOLVE(base, name)
    assert parsing._by_name(nn.Module, "DCGANGenerator") == "lightning_gans.networks.DCGANGenerator"
    for name in ("Adam", "RMSprop"):  # torch has them too
        assert parsing._by_name(torch.optim.Optimizer, name) == f"lightning_gans.optim.{name}"
    with pytest.raises(ValueError, match="Multiple subclasses with name Linear"):
        parsing._by_name(nn.Module, "Linear")


@pytest.mark.parametrize("asked", ["reference", "fixed_loader", "describe", "num_items"])
def test_what_data_of_a_users_own_must_define_is_told(asked: str) -> None:
    class Mine(GANDataModule):
        pass

    with pytest.raises(SystemExit, match=f"^error: Mine must define {asked}, which is needed here, got none"), told():
        found = getattr(Mine(), asked)
        found(*["train"] * (asked != "describe"))


def test_choices_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, "--config=ring/gan", "--model.loss=foo")
    assert line.startswith("error: --model.loss must be one of minimax, non_saturating,") and line.endswith("got foo")
