"""What is shipped: recipes by name, in a clone and in a wheel, and a console command."""

from __future__ import annotations

import configparser
import email
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from test_imports import imports, modules
from test_light_imports import at_the_top

from lightning_gans.cli import OTHERS, main
from lightning_gans.cli.gan_cli import GANCLI
from lightning_gans.cli.recipes import COSTS, MAIN, RECIPES, names, shipped
from lightning_gans.version import __version__

ROOT = Path(__file__).parent.parent
FOLDERS = {"lightning_gans": "lightning_gans", "callbacks": "lightning_gans/callbacks",
           "datamodules": "lightning_gans/datamodules", "configs": "lightning_gans/configs"}  # fmt: skip


def told(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The table of recipes, by cells."""
    main(["recipes", *words])
    return [re.split(r" {2,}", line) for line in capsys.readouterr().out.partition("\n\n")[0].splitlines()]


def test_all_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = told(capsys)
    assert head == ["recipe", "technique", "data", "updates", "CPU time", "memory"]
    assert [line[0] for line in lines] == names() and MAIN in names() and len(names()) > 50
    assert {len(line) for line in lines} == {6}
    one = next(line for line in lines if line[0] == MAIN)
    assert one[1:4] == ["WGANGP", "Digits", "900"] and re.fullmatch(r"[\d.]+ (seconds|minutes)", one[4])
    assert re.fullmatch(r"\d+ MiB", one[5])
    assert [line[0] for line in told(capsys, "ring", "wgangp")[1:]] == ["ring/wgan_gp"]
    with pytest.raises(SystemExit, match="words must be in the line of a recipe, got nothing"):
        main(["recipes", "nothing"])
    with pytest.raises(SystemExit, match=r"got ring rnig; rnig: did you mean ring\?"):
        main(["recipes", "ring", "rnig"])


def test_a_recipe_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(RECIPES / "ring" / "wgan_gp.yaml")
    for given in ("ring/wgan_gp", "ring/wgan_gp.yaml", "configs/ring/wgan_gp.yaml"):
        assert shipped(given) == path
    own = Path("configs/ring/wgan_gp.yaml")
    own.parent.mkdir(parents=True)
    own.touch()
    assert shipped(str(own)) == str(own), "a file of the user's own comes first"
    for given in ("nope.yaml", "a/nope.yaml", "/etc/nope", "{}", '{"model": "a/b"}', "a: b\nc: d/e"):
        assert shipped(given) == given, "no recipe is meant"
    with pytest.raises(SystemExit, match=r"--config must be a file or a recipe, got ring/wgangp: did you mean ring/wg"):
        shipped("ring/wgangp")


@pytest.mark.parametrize("form", [["--config", "ring/wgan_gp"], ["--config=ring/wgan_gp"], ["-c", "ring/wgan_gp"]])
def test_the_command_line_finds_it(form: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", *form, "--print_config"])
    assert caught.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["class_path"].endswith("Ring") and config["trainer"]["max_steps"] == 1500


def test_from_a_shell_the_main_job_needs_no_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lightning-gans fit` alone is what `python train.py fit` is; a call from Python has no default."""
    asked: list[list[str]] = []
    monkeypatch.setattr(GANCLI, "__init__", lambda self, *args, **kwargs: asked.append(sys.argv[1:]))
    monkeypatch.setattr("sys.argv", ["lightning-gans", "fit", "--name=a"])
    main()
    assert asked == [["fit", f"--config={RECIPES / MAIN}.yaml", "--name=a"]] or asked == [
        ["fit", "--config", f"{RECIPES / MAIN}.yaml", "--name=a"]
    ]
    assert [line for line in (ROOT / "train.py").read_text().splitlines() if "main" in line][-1] == "    main()"


def test_all_commands_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"Other commands, each with --help: {', '.join(OTHERS)}." in told


def test_costs_are_of_recipes() -> None:
    assert set(names()) >= json.loads(COSTS.read_text())["recipes"].keys()


def test_all_packages_are_shipped() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    mapped = {"callbacks", "datamodules"}
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "lightning_gans").rglob("*.py")}
    assert listed == there | {f"lightning_gans.{name}" for name in mapped | {"configs"}}
    assert config["options.entry_points"]["console_scripts"].split() == [
        "lightning-gans",
        "=",
        "lightning_gans.cli:main",
    ]
    extras = config["options.extras_require"]
    assert {"wandb", "hub", "export", "datasets", "report", "docs", "test"} <= extras.keys()
    used = {name for key, text in extras.items() if key not in ("test", "docs") for name in text.split()}
    tests = {re.split(r"[<>=]", name)[0] for name in extras["test"].split()}
    assert used - {"geomloss"} <= tests and "nltk" in tests, "else scores are compared with no other's"


def test_what_is_imported_is_declared() -> None:
    """Not left to what others happen to need; extras are imported where they are used, inside of functions."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    needed = {re.split(r"[\[<>=]", line)[0] for line in config["options"]["install_requires"].split()}
    extras = {name for key, text in config["options.extras_require"].items() if key != "test" for name in text.split()}
    others = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "mpl_toolkits": "matplotlib"}

    def packages(found: Iterable[str]) -> set[str]:
        names = {name.split(".")[0] for name in found} - {"lightning_gans", "lightning"} - sys.stdlib_module_names
        return {others.get(name, name.replace("_", "-")) for name in names}

    for name, path in modules():
        assert packages(at_the_top(path)) <= needed, name
        assert packages(imports(path)) <= needed | {extra.replace("_", "-") for extra in extras}, name


def test_the_changelog_is_of_this_version() -> None:
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone, whose files git lists")
def test_a_wheel_from_the_sdist_works(tmp_path: Path) -> None:
    """Built from what git knows, installed where the library is not; what it depends on is taken from here."""

    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    tree = [Path(name) for name in listed if name and (ROOT / name).is_file()]
    for name in tree:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    run(sys.executable, "-c", "import setuptools.build_meta as b; b.build_sdist('..')", cwd=tmp_path / "tree")
    (sdist,) = tmp_path.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", ".", sdist)
    (wheel,) = tmp_path.glob("lightning_gans-*.whl")
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
        metadata = email.message_from_bytes(file.read(next(n for n in held if n.endswith("dist-info/METADATA"))))
    expected = {f"{FOLDERS[name.parts[0]]}/{Path(*name.parts[1:])}" for name in tree
                if name.parts[0] in FOLDERS and name.suffix in (".py", ".yaml", ".json", ".typed", ".pt")}  # fmt: skip
    assert expected <= held and not {n.split("/")[0] for n in held} - {"lightning_gans"} - {
        n.split("/")[0] for n in held if "dist-info" in n
    }
    assert metadata["Version"] == __version__ and metadata["Requires-Python"] == ">=3.10"
    assert {"wandb", "hub", "export", "report"} <= set(metadata.get_all("Provides-Extra") or [])
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or []) and "# lightning_gans" in metadata.as_string()

    run(sys.executable, "-m", "venv", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    others = dict.fromkeys([*(p for p in sys.path if p.endswith("site-packages")), sysconfig.get_path("purelib")])
    (site / "zz_dependencies.pth").write_text("\n".join(others))
    program = tmp_path / "venv" / "bin" / "lightning-gans"
    where = run(python, "-c", "import lightning_gans.callbacks as c; print(c.__file__)")
    assert where.startswith(str(site)), where
    assert "ring/wgan_gp" in run(program, "recipes", "ring")
    out = run(program, "fit", "--config", "ring/wgan_gp", "--trainer.max_steps=2", "--name=a")
    assert re.search(r"^Next +\S*lightning-gans predict --ckpt_path=runs/a", out, re.MULTILINE)
    assert "900 generator updates" in run(program, "fit", "--dry_run")
