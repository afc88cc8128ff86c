"""Trained GANs to and from the Hugging Face Hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_gans import checks
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.runs.card import card
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, newest_checkpoint, read_checkpoint
from lightning_gans.runs.folder import configs, run_of
from lightning_gans.runs.load import load

CHECKPOINT = "checkpoints/last.ckpt"  # in the repository, which is laid out like a run
# What it takes to build the networks and to sample. A whole checkpoint may also hold training samples: batches that
# were fetched but not yet used.
_PUBLISHED = (
    "state_dict",
    "ema",
    "label_counts",
    "hyper_parameters",
    "datamodule_hyper_parameters",
    "class_path",
    "versions",
    "data",
    "epoch",
    "global_step",
    "pytorch-lightning_version",
)


def push_to_hub(path: str | Path, repo_id: str, private: bool = False, folder: str | Path | None = None) -> str:
    """Publish a trained GAN in a model repository of the Hugging Face Hub, which is made if it is not there.

    It gets ``README.md``, the model card; ``checkpoints/last.ckpt``, all networks with EMA weights, without what only
    resuming needs (optimizers, random numbers, waiting training batches); and of a run its newest ``config.yaml`` and
    ``samples/latest.png``. The card says nothing of a licence: choose one there. Settings are published as they are,
    paths of your machine among them. Log in first: ``hf auth login``, or ``HF_TOKEN``.

    Args:
        path: a checkpoint, or the folder of a run for its last one.
        repo_id: "user/name".
        private: whether a new repository can be seen by its owner only; one that is there stays as it is.
        folder: a new folder that is to hold all of it; nothing is sent then, and no package is needed. ``load(folder)``
            reads it, ``hf upload user/name folder`` sends it.

    Returns:
        The address of the repository, or the folder.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged or foreign, or a mixture whose first components only another checkpoint can build; for
            a folder that is there already.
        ImportError: ``huggingface_hub`` is not installed.
        ConnectionError: the Hub is out of reach, or refuses.

    >>> from lightning_gans import GAN
    >>> from lightning_gans.datamodules import Ring
    >>> from lightning_gans.networks import ToyDiscriminator, ToyGenerator
    >>> from lightning_gans.stages.fits import fit
    >>> model = GAN(ToyGenerator(width=8), ToyDiscriminator(width=8), latent_dim=2)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     fit(model, Ring(batch_size=8), 1, place, logger=False)
    ...     laid_out = push_to_hub(f"{place}/last.ckpt", "user/ring", folder=f"{place}/ring")
    ...     sorted(path.relative_to(laid_out).as_posix() for path in Path(laid_out).rglob("*.*"))
    ['README.md', 'checkpoints/last.ckpt']
    """
    if folder is None:
        checks.installed("huggingface_hub")
    elif Path(folder).exists():
        raise ValueError(f"folder must be a new one, got {folder}, which is there already.")
    path = newest_checkpoint(path) if Path(path).is_dir() else Path(path)
    checkpoint = read_checkpoint(path)
    if "class_path" not in checkpoint:
        raise ValueError(f"path: {path} is no checkpoint of a GenerativeModule: it does not tell its class.")
    if isinstance(base := checkpoint.get("hyper_parameters", {}).get("base"), str):
        raise ValueError(f"path: {path} is a mixture that cannot be built without {base}: export its generator.")
    with tempfile.TemporaryDirectory() as made:
        _lay_out(checkpoint, path, repo_id, Path(made))
        if folder is not None:
            return str(shutil.copytree(made, folder))
        from huggingface_hub import HfApi

        api = HfApi()
        with _reaching(repo_id):
            repository = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository.repo_id, folder_path=made, commit_message="Add a trained GAN")
    return str(repository)


@contextmanager
def _reaching(repo_id: str) -> Iterator[None]:
    """Whatever the client raises of the network, as one sentence; it has been several libraries' errors."""
    try:
        yield
    except ValueError:  # a bad name, of which it says what is wrong
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "").rstrip(".") or type(error).__name__
        raise ConnectionError(
            f"The Hub must be within reach and take {repo_id!r}, got {type(error).__name__}: {reason}. Log in by "
            "'hf auth login', or push_to_hub(..., folder=...) writes what would be sent."
        ) from error


def load_from_hub(repo_id: str, revision: str | None = None, **options: Any) -> GenerativeModule:
    """The GAN that :func:`push_to_hub` put there, ready to ``sample``.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit; the newest if not given.
        options: as of ``lightning_gans.load``, which reads the file without running any code that may be in it: the
            networks of a GAN that was trained by a script, and the like.

    Raises:
        ValueError: the file is damaged, foreign, or names a class that is refused.
        ImportError: ``huggingface_hub`` is not installed.
        ConnectionError: the Hub is out of reach, or has no such repository.
    """
    checks.installed("huggingface_hub")
    from huggingface_hub import hf_hub_download

    with _reaching(repo_id):
        path = hf_hub_download(repo_id, CHECKPOINT, revision=revision)
    return load(path, **options)


def _lay_out(checkpoint: dict[str, Any], path: Path, repo_id: str, folder: Path) -> None:
    """Write into ``folder`` what the repository is to hold."""
    published = {key: checkpoint[key] for key in _PUBLISHED if key in checkpoint}
    AtomicCheckpointIO().save_checkpoint(published, folder / CHECKPOINT)
    (folder / CHECKPOINT).with_suffix(".md").unlink()
    if (run := run_of(path)) is not None:
        shutil.copyfile(configs(run)[-1], folder / "config.yaml")
        if (grid := run / "samples" / "latest.png").is_file():
            (folder / "samples").mkdir()
            shutil.copyfile(grid, folder / "samples" / grid.name)
    (folder / "README.md").write_text(_card(checkpoint, repo_id, (folder / "samples").is_dir()))


def _card(checkpoint: dict[str, Any], repo_id: str, grid: bool) -> str:
    """The checkpoint's model card as the Hub wants it: below a head of YAML, with how to load it from there."""
    technique = str(checkpoint["class_path"]).rpartition(".")[2]
    plays = any(name.startswith("discriminator.") for name in checkpoint["state_dict"])
    tags = [*(["gan"] if plays else []), technique, *([data] if (data := checkpoint.get("data")) else [])]
    told_by_it = checkpoint.get("hyper_parameters", {})
    names = ("generator", "discriminator", "encoder", "decoder")
    lacking = [n for n in names if n not in told_by_it and any(k.startswith(f"{n}.") for k in checkpoint["state_dict"])]
    networks = "".join(f", {name}=..." for name in lacking)
    told = card(checkpoint).replace('load("last.ckpt"', f'load_from_hub("{repo_id}"{networks}')
    told = told.replace("from lightning_gans import load\n", "from lightning_gans.tools import load_from_hub\n")
    if grid:
        told = told.replace("\n", "\n\n![Samples](samples/latest.png)\n", 1)
    return f"---\nlibrary_name: lightning_gans\ntags: {json.dumps(tags)}\n---\n\n{told}"
