"""Runs on the Hugging Face Hub: ``push_to_hub`` and ``load_from_hub``, by the package ``huggingface_hub``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from lightning_gans import checks
from lightning_gans.base import GANModule
from lightning_gans.card import card
from lightning_gans.checkpoints import read_checkpoint
from lightning_gans.tools.load import load

FRONT = "---\nlibrary_name: pytorch-lightning\ntags:\n- gan\n- lightning_gans\n- {technique}\n---\n\n"
PICTURE = "samples/latest.png"


def push_to_hub(path: str | Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a run, or a single checkpoint, as a model that `load_from_hub` loads.

    What goes up: the last and the best checkpoint with their cards, the configuration, the scores and the newest sample
    grid; and the last one's card as the model's page. Checkpoints hold optimizer states and the command line's options,
    paths of data among them. A mixture's earlier rounds are not part of its checkpoint; `export` writes it whole.

    Args:
        path: folder of a run, or a checkpoint.
        repo_id: "user/name"; made if it is not there.
        private: whether a new one is for its owners only.
        token: of an account that may write there; None takes the one of ``hf auth login``.

    Returns:
        Where the page is.

    Raises:
        FileNotFoundError, ValueError: there is no checkpoint, or none of a GANModule.
        ImportError: ``huggingface_hub`` is missing.
    """
    hub, path = _hub(), Path(path)
    last = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    checkpoint = read_checkpoint(last)
    technique = str(checkpoint.get("class_path", "")).rpartition(".")[2]
    if not technique:
        raise ValueError(f"{last} is no checkpoint of a GANModule: it does not tell its class.")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "checkpoints").mkdir()
        shutil.copy(last, folder / "checkpoints" / "last.ckpt")
        if path.is_dir():
            patterns = ("config*.yaml", "scores-*.jsonl", "metrics.csv", "checkpoints/best-*", "checkpoints/last.md")
            for file in [f for pattern in (*patterns, PICTURE) for f in path.glob(pattern)]:
                (folder / file.relative_to(path)).parent.mkdir(exist_ok=True)
                shutil.copy(file, folder / file.relative_to(path))
        told = card(checkpoint).replace(
            "from lightning_gans import load", "from lightning_gans.tools import load_from_hub"
        )
        told = told.replace('load("last.ckpt")', f'load_from_hub("{repo_id}")')
        if (folder / PICTURE).is_file():
            title, rest = told.split("\n", 1)
            told = f"{title}\n\n![samples]({PICTURE})\n{rest}"
        (folder / "README.md").write_text(FRONT.format(technique=technique.lower()) + told)
        api = hub.HfApi(token=token)
        where = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=f"{technique} by lightning_gans")
    return str(where)


def load_from_hub(
    repo_id: str, which: Any = "last", *, revision: str | None = None, token: str | None = None, **options: Any
) -> GANModule:
    """The module of a model on the Hub, downloaded once and kept in ``huggingface_hub``'s cache.

    It is read as `load` reads a file of a stranger: no code of it is run.

    Args:
        repo_id: "user/name".
        which: "last" or "best".
        revision: branch, tag or commit.
        token: for a private one; None takes the one of ``hf auth login``.
        options: of `load`.

    Raises:
        FileNotFoundError, ValueError: as `load`.
        ImportError: ``huggingface_hub`` is missing.
    """
    checks.one_of("which", which, ("last", "best"))
    patterns = ["checkpoints/*.ckpt", "config*.yaml"]
    folder = _hub().snapshot_download(repo_id, revision=revision, token=token, allow_patterns=patterns)
    return load(folder, which, **options)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError('huggingface_hub is missing: pip install "lightning_gans[hub]".') from error
    return huggingface_hub


__all__ = ["load_from_hub", "push_to_hub"]
