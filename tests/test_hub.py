"""To the Hub and back, without a network: its client's three calls read from and write to a folder."""

from __future__ import annotations

import inspect
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from common import make, plain, trainer

import lightning_gans
from lightning_gans import TECHNIQUES, WGANGP
from lightning_gans.cli import main
from lightning_gans.runs.card import card
from lightning_gans.tools import hub
from lightning_gans.tools.hub import load_from_hub, push_to_hub

CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "WGANGP",
        "init_args": {
            "latent_dim": 2,
            "generator": {"class_path": "ToyGenerator", "init_args": {"width": 8, "depth": 1}},
            "discriminator": {"class_path": "ToyDiscriminator", "init_args": {"width": 8, "depth": 1}},
        },
    },
    "data": {"class_path": "Ring", "init_args": {"batch_size": 8}},
    "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "max_steps": 2,
                "callbacks": [{"class_path": "EMA", "init_args": {"decay": 0.5}}]},
}  # fmt: skip


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that takes the Hub's place; every call must have a form that the client itself takes."""
    folder, api = tmp_path / "remote", huggingface_hub.HfApi
    forms = {f.__name__: inspect.signature(f) for f in (api.create_repo, api.upload_folder)}
    download = inspect.signature(huggingface_hub.hf_hub_download)

    def create_repo(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = forms["create_repo"].bind(self, *args, **kwargs).arguments
        assert given["exist_ok"] is True
        (folder / given["repo_id"]).mkdir(parents=True, exist_ok=True)
        (folder / "visibility").write_text("private" if given["private"] else "public")
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{given['repo_id']}")

    def upload_folder(self: Any, *args: Any, **kwargs: Any) -> None:
        given = forms["upload_folder"].bind(self, *args, **kwargs).arguments
        shutil.copytree(given["folder_path"], folder / given["repo_id"], dirs_exist_ok=True)

    def hf_hub_download(*args: Any, **kwargs: Any) -> str:
        given = download.bind(*args, **kwargs).arguments
        return str(folder / given["repo_id"] / (given["revision"] or "") / given["filename"])

    monkeypatch.setattr(api, "create_repo", create_repo)
    monkeypatch.setattr(api, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line, with EMA weights and a picture."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "a.yaml").write_text(yaml.safe_dump(CONFIG))
    main(["fit", f"--config={folder / 'a.yaml'}", f"--out={folder}", "--name=run"])
    return folder / "run"


def head_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_run_goes_up_without_what_only_resuming_needs(trained: Path, remote: Path) -> None:
    """Least of all the place in the data ("engine"), with the training samples that wait for their turn."""
    whole = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert whole.keys() > {"engine", "optimizer_states", "callbacks", "loops"}
    assert "pending" in whole["engine"]["ranks"][0]["stream"]
    assert push_to_hub(trained, "me/ring", private=True) == "https://huggingface.co/me/ring"
    files = {str(p.relative_to(remote / "me" / "ring")) for p in (remote / "me" / "ring").rglob("*") if p.is_file()}
    assert files == {"README.md", "checkpoints/last.ckpt", "config.yaml", "samples/latest.png"}
    assert (remote / "visibility").read_text() == "private"
    published = torch.load(remote / "me" / "ring" / hub.CHECKPOINT, weights_only=True)
    assert not published.keys() & {"engine", "optimizer_states", "callbacks", "loops", "lr_schedulers"}
    for part in ("state_dict", "ema"):
        assert published[part].keys() == whole[part].keys()
        assert all(torch.equal(value, whole[part][name]) for name, value in published[part].items())
    for name in ("config.yaml", "samples/latest.png"):
        assert (remote / "me" / "ring" / name).read_bytes() == (trained / name).read_bytes()
    loaded, right = (WGANGP.load_from_checkpoint(folder / hub.CHECKPOINT) for folder in (remote / "me/ring", trained))
    given = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(loaded.sample(5, generator=given[0]), right.sample(5, generator=given[1]))


def test_the_card(trained: Path, remote: Path) -> None:
    push_to_hub(trained, "me/ring")
    card = (remote / "me" / "ring" / "README.md").read_text()
    assert (remote / "visibility").read_text() == "public"
    assert head_of(card) == {"library_name": "lightning_gans", "tags": ["gan", "WGANGP", "Ring"]}  # no licence
    assert "# WGANGP on Ring" in card and "arXiv:1704.00028" in card and "- generator updates: 2 (" in card
    assert "![Samples](samples/latest.png)" in card and 'load_from_hub("me/ring")' in card
    huggingface_hub.ModelCard(card)  # parsed as the Hub does


def test_the_card_tells_who_wrote_the_checkpoint(trained: Path, remote: Path, tmp_path: Path) -> None:
    """Not who reads it; of one that does not tell it is unknown."""
    whole = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert whole["versions"] == {"lightning_gans": lightning_gans.__version__, "torch": str(torch.__version__)}
    by = f", Lightning {whole['pytorch-lightning_version']}\n"
    assert f"- written by: lightning_gans {lightning_gans.__version__}, torch {torch.__version__}{by}" in card(whole)
    torch.save(whole | {"versions": {"lightning_gans": "0.0.7", "torch": "2.3.0"}}, tmp_path / "a.ckpt")
    push_to_hub(tmp_path / "a.ckpt", "me/ring")
    assert f"lightning_gans 0.0.7, torch 2.3.0{by}" in (remote / "me" / "ring" / "README.md").read_text()
    assert torch.load(remote / "me/ring" / hub.CHECKPOINT, weights_only=True)["versions"]["torch"] == "2.3.0"
    del whole["versions"]
    assert f"lightning_gans unknown, torch unknown{by}" in card(whole)


def test_the_newest_configuration(trained: Path, remote: Path, tmp_path: Path) -> None:
    """By its number: a run that was copied has times of the copying. SLURM's checkpoint lies in the run itself."""
    run = shutil.copytree(trained, tmp_path / "run")
    for name in ("config-2", "config-10", "config_mine"):
        (run / f"{name}.yaml").write_text(f"resumed: {name}\n")
    os.utime(run / "config-2.yaml", (2**31, 2**31))
    for checkpoint in ("checkpoints/last.ckpt", "hpc_ckpt_1.ckpt"):
        (run / "checkpoints" / "last.ckpt").rename(run / checkpoint)
        push_to_hub(run, "me/ring")
        assert (remote / "me/ring/config.yaml").read_text() == "resumed: config-10\n"
        assert (remote / "me/ring/samples/latest.png").is_file()
        shutil.rmtree(remote / "me/ring")


def test_a_checkpoint_of_a_script(remote: Path, tmp_path: Path) -> None:
    """It lies in no run folder, and its networks are the user's."""
    play = trainer(max_steps=1)
    play.fit(make("gan"), plain())
    play.save_checkpoint(tmp_path / "deep" / "down" / "mine.ckpt")
    push_to_hub(tmp_path / "deep" / "down" / "mine.ckpt", "me/mine")
    repository = remote / "me" / "mine"
    assert {str(p.relative_to(repository)) for p in repository.rglob("*") if p.is_file()} == {
        "README.md",
        hub.CHECKPOINT,
    }
    card = (repository / "README.md").read_text()
    assert 'load_from_hub("me/mine", generator=..., discriminator=...)' in card and "![Samples]" not in card


def test_what_is_refused_goes_nowhere(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        push_to_hub(tmp_path, "me/ring")
    torch.save({"a": 1}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="holds no Lightning checkpoint"):
        push_to_hub(tmp_path / "a.ckpt", "me/ring")
    foreign = {"state_dict": {}, "pytorch-lightning_version": "2.6"}
    torch.save(foreign, tmp_path / "f.ckpt")
    with pytest.raises(ValueError, match=r"f\.ckpt is no checkpoint of a GenerativeModule"):
        push_to_hub(tmp_path / "f.ckpt", "me/ring")
    mixture = {
        "state_dict": {},
        "class_path": "lightning_gans.BoostedGAN",
        "pytorch-lightning_version": "2.6",
        "hyper_parameters": {"base": "b/last.ckpt"},
    }
    torch.save(mixture, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=r"m\.ckpt is a mixture that cannot be built without b/last\.ckpt"):
        push_to_hub(tmp_path / "m.ckpt", "me/ring")
    assert not remote.exists()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (lambda: push_to_hub("run", "me/ring"), lambda: load_from_hub("me/ring")):
        with pytest.raises(
            ImportError, match=r"huggingface_hub must be installed .*: .+ -m pip install huggingface_hub$"
        ):
            call()


def test_every_technique_has_its_paper_in_the_card() -> None:
    cards = {cls.__name__: card({"class_path": f"{cls.__module__}.{cls.__name__}"}) for cls in TECHNIQUES.values()}
    assert {name for name, told in cards.items() if "arXiv:" not in told} == {"BoostedGAN", "RelGAN"}
    assert "openreview.net/forum" in cards["RelGAN"]  # which is not on arXiv; the other has no paper
    assert "arXiv:1906.04659" in cards["SRNGAN"] and card({"class_path": "elsewhere.Mine"}).startswith("# Mine\n")


# ---------------------------------------------------------------------- and back, by lightning_gans.load
def test_and_back(trained: Path, remote: Path) -> None:
    push_to_hub(trained, "me/ring")
    shutil.copytree(remote / "me" / "ring", remote / "me" / "ring" / "v1")
    right = WGANGP.load_from_checkpoint(trained / hub.CHECKPOINT)
    wanted = right.sample(5, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"revision": "v1"}):
        module = load_from_hub("me/ring", **options)
        assert torch.equal(module.sample(5, generator=torch.Generator().manual_seed(0)), wanted)
    raw = load_from_hub("me/ring", weights="raw")
    assert not torch.equal(raw.sample(5, generator=torch.Generator().manual_seed(0)), wanted)


class Payload:
    """Unpickled, it leaves a trace."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("trace",)


def test_code_from_the_hub_is_not_run(remote: Path) -> None:
    path = remote / "them" / "trap" / hub.CHECKPOINT
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6", "x": Payload()}, path)
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        load_from_hub("them/trap")
    assert not Path("trace").exists()
    torch.load(path, weights_only=False)
    assert Path("trace").exists()  # so it would have been run
